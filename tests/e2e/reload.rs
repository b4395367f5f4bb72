//! Files come, change and go while the agent runs: it follows at once, and nothing else notices.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::Duration;

use kimberlite::plugin::section::embed;
use kimberlite_tests::{
    Agent, HOSTILE_COLLECTOR, HOSTILE_HANDLER, HttpSink, LineSink, Minisign, Plugin, Reply, TempDir, verb,
};
use rustix::process::Signal;

use crate::{KIMBERLITE, collector, graphite, handler, metricly};

/// A collector that brings `PREFIX.calls`. `asks` are further tables of its manifest.
fn component(name: &str, prefix: &str, asks: &str) -> Vec<u8> {
    let manifest = format!(
        "name = \"{name}\"\nkind = \"collector\"\nversion = \"1.0.0\"\ndescription = \"for tests\"\n\
         [settings.prefix]\ntype = \"text\"\ndefault = \"{prefix}\"\nhelp = \"of its metrics\"\n{asks}"
    );
    embed(&fs::read(HOSTILE_COLLECTOR).unwrap(), &manifest).unwrap()
}

/// Somebody puts it there in one piece.
fn put(path: &str, bytes: impl AsRef<[u8]>) {
    let aside = format!("{path}.new");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, path).unwrap();
}

/// With a directory for plugins, and what its `[agent]` says.
fn prepared() -> (TempDir, String, String) {
    let dir = TempDir::new();
    let plugins = dir.join("plugins");
    fs::create_dir(&plugins).unwrap();
    let keys = format!(
        "self_metrics = false\ninterval = \"200ms\"\ndebounce = \"100ms\"\nplugin_dirs = [{plugins:?}]"
    );
    (dir, plugins, keys)
}

/// An agent that measures and delivers, and whose plugin directory and config are to change.
struct Followed {
    agent: Agent,
    sink: LineSink,
    plugins: String,
    keys: String,
    /// The tables it starts with.
    base: String,
}

impl Followed {
    fn start() -> Self {
        Self::start_with("", |_, _| {})
    }

    /// `more` are further keys of `[agent]`; `before` is done before it starts.
    fn start_with(more: &str, before: impl FnOnce(&TempDir, &str)) -> Self {
        let (dir, plugins, keys) = prepared();
        let keys = format!("{keys}\n{more}");
        before(&dir, &plugins);
        let sink = LineSink::start();
        let base = quick("good") + &graphite(sink.port(), "");
        let agent = Agent::start_in(dir, KIMBERLITE, &keys, &base);
        wait_for_calls(&agent, &sink, "good");
        Self { agent, sink, plugins, keys, base }
    }
}

fn quick(name: &str) -> String {
    collector(name, "", "interval = \"200ms\"")
}

fn calls(sinks: &[&LineSink], prefix: &str) -> Vec<u64> {
    let start = format!("servers.web-1.{prefix}.calls ");
    let lines = sinks.iter().flat_map(|sink| sink.lines());
    let values = lines.filter_map(|line| line.strip_prefix(&start)?.split(' ').next()?.parse::<f64>().ok());
    values.map(|value| value as u64).collect()
}

/// Something of this prefix arrives from now on.
fn wait_for_calls(agent: &Agent, sink: &LineSink, prefix: &str) {
    let before = calls(&[sink], prefix).len();
    agent.wait(&format!("`{prefix}` arrives"), |_| (calls(&[sink], prefix).len() > before + 1).then_some(()));
}

fn refused(plugin: &Plugin) -> String {
    plugin.0["refused"]["reason"].as_str().unwrap_or_default().to_owned()
}

fn waits_for(plugin: &Plugin) -> String {
    plugin.0["waits_for"].as_str().unwrap_or_default().to_owned()
}

/// What never changed has missed nothing and brought nothing twice.
fn assert_undisturbed(agent: Agent, sinks: &[&LineSink]) {
    let good = agent.plugin("good").unwrap();
    assert_eq!((good.figure("skipped"), good.figure("failures")), (0, 0), "{good:?}");
    agent.stop();
    let calls = calls(sinks, "good");
    assert_eq!(calls, (1..=calls.len() as u64).collect::<Vec<_>>());
}

#[test]
fn plugins_come_change_and_go_and_nobody_else_notices() {
    let Followed { agent, sink, plugins, .. } = Followed::start();
    let file = format!("{plugins}/dropped.wasm");

    // Copied, then replaced by renaming.
    fs::write(&file, component("dropped", "v1", "")).unwrap();
    wait_for_calls(&agent, &sink, "v1");
    put(&file, component("dropped", "v2", ""));
    wait_for_calls(&agent, &sink, "v2");

    // Broken: the old one runs on, and both are shown.
    let whole = component("dropped", "v3", "");
    put(&file, &whole[..whole.len() / 2]);
    let plugin = agent.wait_for("dropped", "has refused something", |plugin| !refused(plugin).is_empty());
    assert!(refused(&plugin).contains("not a whole WebAssembly file"), "{plugin:?}");
    wait_for_calls(&agent, &sink, "v2");
    let list = verb(KIMBERLITE, &["list", "-c", &agent.config_file()]).expect_code(0).stdout;
    assert!(list.contains("dropped runs on, ") && list.contains("was refused"), "{list}");

    // One byte at a time, with pauses longer than the debounce.
    let mut slow = fs::File::create(&file).unwrap();
    for (place, byte) in whole.iter().enumerate() {
        slow.write_all(&[*byte]).unwrap();
        if place % (whole.len() / 3) == 1 {
            thread::sleep(Duration::from_millis(250));
        }
    }
    drop(slow);
    wait_for_calls(&agent, &sink, "v3");
    assert_eq!(refused(&agent.plugin("dropped").unwrap()), "");

    // Gone.
    fs::remove_file(&file).unwrap();
    agent.wait("it is gone", |agent| agent.plugin("dropped").is_none().then_some(()));
    let before = calls(&[&sink], "v3").len();
    wait_for_calls(&agent, &sink, "good");
    wait_for_calls(&agent, &sink, "good");
    assert_eq!(calls(&[&sink], "v3").len(), before);
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn a_swap_of_links_replaces_what_they_lead_to() {
    // As Kubernetes lays out a ConfigMap.
    let lay_out = |_: &TempDir, plugins: &str| {
        for version in ["v1", "v2"] {
            fs::create_dir(format!("{plugins}/..{version}")).unwrap();
            fs::write(format!("{plugins}/..{version}/k.wasm"), component("k", version, "")).unwrap();
        }
        symlink("..v1", format!("{plugins}/..data")).unwrap();
        symlink("..data/k.wasm", format!("{plugins}/k.wasm")).unwrap();
    };
    let Followed { agent, sink, plugins, .. } = Followed::start_with("", lay_out);
    wait_for_calls(&agent, &sink, "v1");
    symlink("..v2", format!("{plugins}/..data_tmp")).unwrap();
    fs::rename(format!("{plugins}/..data_tmp"), format!("{plugins}/..data")).unwrap();
    wait_for_calls(&agent, &sink, "v2");
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn a_directory_that_goes_and_comes_back_is_followed() {
    let Followed { agent, sink, plugins, .. } =
        Followed::start_with("", |_, plugins| fs::remove_dir(plugins).unwrap());
    for round in 0..2 {
        fs::create_dir(&plugins).unwrap();
        fs::write(format!("{plugins}/x.wasm"), component("x", &format!("round{round}"), "")).unwrap();
        wait_for_calls(&agent, &sink, &format!("round{round}"));
        fs::remove_dir_all(&plugins).unwrap();
        agent.wait("it is gone", |agent| agent.plugin("x").is_none().then_some(()));
    }
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn a_changed_config_restarts_only_what_changed() {
    let (dir, _, keys) = prepared();
    let (first, second) = (LineSink::start(), LineSink::start());
    fs::create_dir(dir.join("conf.d")).unwrap();
    let base = |rest: &str| quick("good") + &graphite(first.port(), "") + rest;
    dir.write("conf.d/more.toml", quick("more"));
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &base(""));
    wait_for_calls(&agent, &first, "more");

    // A typo changes nothing and is told.
    agent.set_config(&keys, &base("[collectors.other]\nintervall = \"1s\"\n"));
    agent.wait("it is told", |agent| {
        let (code, body) = agent.get("/-/healthy")?;
        (code == 503 && body.contains("intervall")).then_some(())
    });
    assert_eq!(agent.metric("kimberlite_config_last_reload_success"), Some(0.0));
    // The running agent is found all the same.
    for words in [&["list"][..], &["deadletters", "list"]] {
        verb(KIMBERLITE, &[words, &["-c", &agent.config_file()]].concat()).expect_code(0);
    }
    // So does a setting that the plugin does not take; what else is in the file does not count either.
    agent.set_config(&keys, &base(&(collector("other", "mood = \"bad\"", "") + &quick("late"))));
    agent.wait("it is told", |agent| agent.get("/-/healthy")?.1.contains("mood").then_some(()));
    assert!(agent.plugin("other").is_none() && agent.plugin("late").is_none());
    // The next good one counts.
    agent.set_config(&keys, &base(&quick("other")));
    wait_for_calls(&agent, &first, "other");
    assert_eq!(agent.get("/-/healthy").unwrap().0, 200);

    // Another interval needs no other instance: its count of calls goes on.
    let every = |interval: &str| {
        collector("other", "", &format!("interval = \"{interval}\"\nlimits = {{ timeout = \"100ms\" }}"))
    };
    agent.set_config(&keys, &base(&every("100ms")));
    agent.wait_for_log(&["plugin is replaced", "other"]);
    wait_for_calls(&agent, &first, "other");
    let before = calls(&[&first], "other").len();
    agent.set_config(&keys, &base(&every("300ms")));
    agent.wait_for_log(&["plugin goes on with a changed config", "other"]);
    wait_for_calls(&agent, &first, "other");
    let other = calls(&[&first], "other").split_off(before - 1);
    assert!(other.len() > 1 && other.is_sorted(), "{other:?}");

    // A fragment goes.
    fs::remove_file(agent.dir.join("conf.d/more.toml")).unwrap();
    agent.wait("it is gone", |agent| agent.plugin("more").is_none().then_some(()));

    // A name becomes a handler's.
    agent.set_config(&keys, &base(&quick("turns")));
    wait_for_calls(&agent, &first, "turns");
    agent.set_config(&keys, &base(&handler("turns", "", "")));
    agent.wait_for("turns", "delivers", |plugin| plugin.figure("delivery/delivered") > 0);

    // The handler delivers elsewhere: nothing of its queue is lost.
    agent.set_config(&keys, &base("").replace(&first.port().to_string(), &second.port().to_string()));
    wait_for_calls(&agent, &second, "good");
    assert_undisturbed(agent, &[&first, &second]);
}

#[test]
fn signals_and_the_command_line_reload_where_nothing_is_watched() {
    let Followed { agent, sink, plugins, keys, .. } = Followed::start_with("watch = \"off\"", |_, _| {});
    fs::write(format!("{plugins}/a.wasm"), component("a", "a", "")).unwrap();
    let told = verb(KIMBERLITE, &["reload", "-c", &agent.config_file()]).expect_code(0).stdout;
    assert!(told.contains("1 started"), "{told}");
    wait_for_calls(&agent, &sink, "a");
    fs::write(format!("{plugins}/b.wasm"), component("b", "b", "")).unwrap();
    agent.signal(Signal::HUP);
    wait_for_calls(&agent, &sink, "b");
    agent.set_config(&keys, "[nonsense]\n");
    let told = verb(KIMBERLITE, &["reload", "-c", &agent.config_file()]).expect_code(78).stderr;
    assert!(told.contains("nonsense"), "{told}");
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn looking_now_and_then_finds_changes_too() {
    let poll = "watch = \"poll\"\nwatch_interval = \"200ms\"";
    let Followed { agent, sink, plugins, .. } = Followed::start_with(poll, |_, _| {});
    fs::write(format!("{plugins}/a.wasm"), component("a", "a", "")).unwrap();
    wait_for_calls(&agent, &sink, "a");
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn what_is_not_granted_by_default_is_parked_with_the_lines_to_paste() {
    let Followed { agent, sink, plugins, keys, base } = Followed::start();
    let asks = "[capabilities.read]\nask = [\"/etc/hostname\"]\nreason = \"to know where it is\"\n";
    let file = format!("{plugins}/curious.wasm");
    put(&file, component("curious", "c", asks));
    let parked = agent.wait_for("curious", "is parked", |plugin| plugin.state() == "parked");
    let lines = "[collectors.curious]\ngrant = { read = [\"/etc/hostname\"] }\n";
    assert!(waits_for(&parked).contains(lines.trim_end()), "{parked:?}");
    let inspected = verb(KIMBERLITE, &["inspect", &file, "-o", "json"]).expect_code(0).json_lines();
    assert_eq!(inspected[0]["config"], lines);
    agent.set_config(&keys, &(base + lines));
    wait_for_calls(&agent, &sink, "c");
    // A handler always needs a table.
    let manifest = "name = \"taker\"\nkind = \"handler\"\nversion = \"1.0.0\"\ndescription = \"for tests\"\n";
    put(&format!("{plugins}/taker.wasm"), embed(&fs::read(HOSTILE_HANDLER).unwrap(), manifest).unwrap());
    let parked = agent.wait_for("taker", "is parked", |plugin| plugin.state() == "parked");
    assert!(waits_for(&parked).trim_end().ends_with("[handlers.taker]"), "{parked:?}");
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn an_upgrade_that_asks_for_more_waits_for_a_person() {
    let (dir, plugins, keys) = prepared();
    let sink = LineSink::start();
    let file = format!("{plugins}/eager.wasm");
    let asks =
        |families: &str| format!("[capabilities.host-stats]\nask = [{families}]\nreason = \"to measure\"\n");
    fs::write(&file, component("eager", "v1", &asks("\"cpu\""))).unwrap();
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &(quick("good") + &graphite(sink.port(), "")));
    wait_for_calls(&agent, &sink, "v1");
    put(&file, component("eager", "v2", &asks("\"cpu\", \"network\"")));
    let plugin = agent.wait_for("eager", "has refused something", |plugin| !refused(plugin).is_empty());
    let why = refused(&plugin);
    assert!(why.contains("network") && !why.contains("cpu") && why.contains("release eager"), "{why}");
    wait_for_calls(&agent, &sink, "v1");
    verb(KIMBERLITE, &["release", "eager", "-c", &agent.config_file()]).expect_code(0);
    wait_for_calls(&agent, &sink, "v2");
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn a_replacement_that_does_not_start_leaves_the_old_one() {
    let (dir, plugins, keys) = prepared();
    let sink = LineSink::start();
    let file = format!("{plugins}/x.wasm");
    fs::write(&file, component("x", "v1", "")).unwrap();
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &(quick("good") + &graphite(sink.port(), "")));
    wait_for_calls(&agent, &sink, "v1");
    let mode = "[settings.mode]\ntype = \"text\"\ndefault = \"init-trap\"\nhelp = \"how it dies\"\n";
    put(&file, component("x", "v2", mode));
    let plugin = agent.wait_for("x", "has refused something", |plugin| !refused(plugin).is_empty());
    assert!(refused(&plugin).contains("no wish to live"), "{plugin:?}");
    wait_for_calls(&agent, &sink, "v1");
    // The old one is put back, and the bad one once more.
    put(&file, component("x", "v1", ""));
    agent.wait_for("x", "has refused nothing", |plugin| refused(plugin).is_empty());
    put(&file, component("x", "v2", mode));
    agent.wait_for("x", "has refused it again", |plugin| refused(plugin).contains("no wish to live"));
    put(&file, component("x", "v3", ""));
    wait_for_calls(&agent, &sink, "v3");
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn a_name_has_one_owner() {
    let (dir, plugins, keys) = prepared();
    let sink = LineSink::start();
    let [a, b, cpu] = ["a", "b", "cpu"].map(|name| format!("{plugins}/{name}.wasm"));
    fs::write(&b, component("shared", "b", "")).unwrap();
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &(quick("good") + &graphite(sink.port(), "")));
    wait_for_calls(&agent, &sink, "b");
    // It comes first in the order, but the name is taken. So are those of bundled plugins.
    put(&a, component("shared", "a", ""));
    put(&cpu, component("cpu", "cpu", ""));
    for (file, why) in [(&a, "has the name `shared` already"), (&cpu, "a bundled plugin has the name `cpu`")]
    {
        agent.wait_for(file, why, |plugin| plugin.state() == "parked" && waits_for(plugin).contains(why));
    }
    fs::remove_file(&b).unwrap();
    wait_for_calls(&agent, &sink, "a");
    assert!(agent.plugin(&a).is_none());
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn only_what_is_signed_and_what_has_the_hash_is_run() {
    let (dir, plugins, keys) = prepared();
    let sink = LineSink::start();
    let (ours, others) = (Minisign::new(), Minisign::new());
    let keys = format!("{keys}\ntrusted_keys = [{:?}]", ours.public_key());
    let good = fs::read(HOSTILE_COLLECTOR).unwrap();
    let config =
        collector("good", "", "interval = \"100ms\"").replace(HOSTILE_COLLECTOR, &dir.join("good.wasm"));
    dir.write("good.wasm", &good);
    dir.write("good.wasm.minisig", ours.sign(&good));
    let base = config + &graphite(sink.port(), "");
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &base);
    wait_for_calls(&agent, &sink, "good");
    let file = format!("{plugins}/x.wasm");
    let (v1, v2) = (component("x", "v1", ""), component("x", "v2", ""));
    put(&file, &v1);
    let parked = |agent: &Agent, why: &str| {
        agent.wait_for(&file, why, |plugin| waits_for(plugin).contains(why));
    };
    parked(&agent, "x.wasm.minisig");
    put(&format!("{file}.minisig"), others.sign(&v1));
    parked(&agent, "not signed by any of");
    put(&format!("{file}.minisig"), ours.sign(&v1));
    wait_for_calls(&agent, &sink, "v1");
    let inspected = verb(KIMBERLITE, &["inspect", &file, "-c", &agent.config_file()]).expect_code(0).stdout;
    assert!(inspected.contains(&ours.public_key()), "{inspected}");
    // Pinned, another one does not take its place, however well it is signed.
    let sha256 = kimberlite::component_file::sha256(&v1);
    agent.set_config(&keys, &format!("{base}[collectors.x]\nsha256 = {sha256:?}\n"));
    agent.wait_for_log(&["plugin goes on with a changed config"]);
    put(&format!("{file}.minisig"), ours.sign(&v2));
    put(&file, &v2);
    let plugin =
        agent.wait_for("x", "has refused something", |plugin| refused(plugin).contains("its table wants"));
    assert!(refused(&plugin).contains(&sha256), "{plugin:?}");
    wait_for_calls(&agent, &sink, "v1");
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn bad_files_end_in_a_stated_outcome_and_nobody_else_notices() {
    let Followed { agent, sink, plugins, .. } = Followed::start();
    let outside = agent.dir.write("outside.wasm", component("outside", "outside", ""));
    let path = |name: &str| format!("{plugins}/{name}.wasm");
    fs::write(path("empty"), "").unwrap();
    fs::create_dir(path("directory")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    fs::File::create(path("huge")).unwrap().set_len(2 << 30).unwrap();
    symlink(&outside, path("link")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    put(&path("traversal"), component("../../etc/x", "x", ""));
    put(&path("control"), component("a\\u0007b", "x", ""));
    fs::write(path("others"), component("others", "x", "")).unwrap();
    fs::set_permissions(path("others"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    for (name, why) in [
        ("empty", "is empty"),
        ("directory", "it is not a file"),
        ("pipe", "it is not a file"),
        ("huge", "`agent.plugin_size` allows"),
        ("link", "leads out of its directory"),
        ("dangling", "cannot be read"),
        ("traversal", "would not do as a file's name"),
        ("control", "holds a control character"),
        ("others", "others can write"),
    ] {
        let is_told = |plugin: &Plugin| plugin.state() == "parked" && waits_for(plugin).contains(why);
        agent.wait_for(&path(name), why, is_told);
    }
    // One that changes all the time, and a whole one beside it.
    let busy = path("busy");
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..30 {
                fs::write(&busy, [round; 100]).unwrap();
                thread::sleep(Duration::from_millis(50));
            }
        });
        put(&path("whole"), component("whole", "whole", ""));
        wait_for_calls(&agent, &sink, "whole");
        let busy = agent.plugin(&busy).unwrap();
        assert!(waits_for(&busy).contains("is still being written"), "{busy:?}");
    });
    agent
        .wait_for(&busy, "is told for what it is", |plugin| waits_for(plugin).contains("is not WebAssembly"));
    for name in ["empty", "huge", "link", "others"] {
        fs::remove_file(path(name)).unwrap();
    }
    agent.wait("they are not shown any more", |agent| agent.plugin(&path("huge")).is_none().then_some(()));
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn a_thousand_files_at_once_and_their_deletion_disturb_nobody() {
    let Followed { agent, sink, plugins, .. } = Followed::start();
    let paths: Vec<String> = (0..1000).map(|number| format!("{plugins}/{number}.wasm")).collect();
    // Most are no good; every fiftieth has to be compiled, and may be gone before it is.
    for (number, path) in paths.iter().enumerate() {
        match number % 50 {
            0 => put(path, component(&format!("n{number}"), &format!("n{number}"), "")),
            _ => fs::write(path, "no plugin").unwrap(),
        }
    }
    agent.wait("the first of them runs", |agent| {
        agent.plugins().iter().any(|plugin| plugin.0["name"].as_str().unwrap().starts_with('n')).then_some(())
    });
    paths.iter().for_each(|path| fs::remove_file(path).unwrap());
    agent.wait("all are gone", |agent| (agent.plugins().len() == 2).then_some(()));
    assert_undisturbed(agent, &[&sink]);
}

#[test]
fn a_handler_that_comes_back_takes_up_its_spool() {
    let (dir, _, keys) = prepared();
    let sink = HttpSink::start(&[Reply::Status(503)]);
    let tables = |rest: &str| quick("good") + rest;
    let table = metricly(sink.port(), "hush-hush-key", "queue = { sync = \"100ms\" }");
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &tables(&table));
    agent.wait_for("metricly", "spools", |plugin| plugin.figure("spool_bytes") > 0);
    agent.set_config(&keys, &tables(""));
    let orphan = agent.wait_for("metricly", "is orphaned", |plugin| plugin.state() == "orphaned");
    assert!(orphan.figure("spool_bytes") > 0 && waits_for(&orphan).contains("kept until"), "{orphan:?}");
    sink.answer(Reply::Status(202));
    agent.set_config(&keys, &tables(&table));
    agent.wait("the first of it arrives", |_| {
        let posted = crate::faults::posted(&sink);
        posted.iter().any(|id| id == "good.calls 1" || id == "good.calls 1.0").then_some(())
    });
    agent.wait_for("metricly", "has emptied its spool", |plugin| plugin.figure("spool_bytes") == 0);
    assert!(!Path::new(&agent.data("spool/metricly/orphaned")).exists());
}

#[test]
fn what_a_plugin_stored_stays_when_it_is_exchanged_and_goes_when_it_does() {
    let (dir, _, keys) = prepared();
    let remembers = |memory: &str| {
        let rest =
            format!("interval = \"50ms\"\ngrant = {{ state = true }}\nlimits = {{ memory = \"{memory}\" }}");
        collector("remember", "mode = \"remember\", ask_state = true", &rest)
    };
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &remembers("12MiB"));
    agent.wait_for_log(&["remembers 9 calls"]);
    agent.set_config(&keys, &remembers("13MiB"));
    agent.wait_for_log(&["plugin is replaced", "remember"]);
    agent.wait_for_log(&["remembers 29 calls"]);
    let ones = agent.log().iter().filter(|line| line["message"] == "remembers 1 calls").count();
    assert_eq!(ones, 1, "it has begun anew");
    agent.set_config(&keys, "");
    agent.wait("nothing is kept", |agent| {
        (!Path::new(&agent.data("state/remember.json")).exists()).then_some(())
    });
}

#[test]
fn a_changed_secret_reaches_its_handler() {
    let (dir, _, keys) = prepared();
    let sink = HttpSink::start(&[Reply::Status(202)]);
    let key = dir.write("key", "first-secret");
    let table = metricly(sink.port(), "KEY", "").replace("\"KEY\"", &format!("{{ file = {key:?} }}"));
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &(quick("good") + &table));
    let asked_with = |secret: &str| sink.requests().iter().any(|request| request.path.contains(secret));
    agent.wait("the first key is used", |_| asked_with("first-secret").then_some(()));
    fs::write(&key, "second-secret").unwrap();
    agent.wait("the second key is used", |_| asked_with("second-secret").then_some(()));
    let ids: Vec<String> =
        crate::faults::posted(&sink).into_iter().filter(|id| id.contains("calls")).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len());
}

/// What it takes, but for what comes and goes.
fn footprint(agent: &Agent) -> [usize; 3] {
    let pid = agent.pid();
    let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let code = maps.lines().filter(|line| line.contains("r-x")).count();
    [count("task"), count("fd"), code]
}

#[test]
fn a_thousand_reloads_that_change_nothing_leave_nothing() {
    let (dir, plugins, keys) = prepared();
    let sink = LineSink::start();
    fs::write(format!("{plugins}/x.wasm"), component("x", "x", "")).unwrap();
    let agent = Agent::start_in(dir, KIMBERLITE, &keys, &(quick("good") + &graphite(sink.port(), "")));
    wait_for_calls(&agent, &sink, "x");
    let reload = || assert_eq!(agent.post("/api/v1/reload").unwrap().0, 200);
    let resident = || agent.metric("kimberlite_resident_memory_bytes").unwrap();
    // Until the allocator has found its size.
    (0..200).for_each(|_| reload());
    let (before, memory) = (footprint(&agent), resident());
    (0..1000).for_each(|_| reload());
    // Threads that a look has used rest for a moment.
    agent.wait("nothing is left", |agent| (footprint(agent) <= before).then_some(()));
    let grown = resident() - memory;
    println!(
        "1,000 reloads: threads, files, code {before:?} as before; {:.0} KiB more resident",
        grown / 1024.0
    );
    assert!(grown < 2.0 * 1024.0 * 1024.0, "{grown} bytes");
    assert_undisturbed(agent, &[&sink]);
}
