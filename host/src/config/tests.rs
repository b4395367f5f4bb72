//! Whole files, good and bad, as an operator writes them.

use std::path::PathBuf;
use std::time::Duration;

use super::manifest::PluginKind;
use super::*;
use crate::capability::Capability;

fn env(name: &str) -> Option<String> {
    match name {
        "REGION" => Some("eu".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, Faults> {
    Config::parse(&[(PathBuf::from("/etc/k/main.toml"), text.to_owned())], &env)
}

/// One line for each fault: `line [table] message | hint`.
fn faults(text: &str) -> Vec<String> {
    let line = |fault: Fault| {
        let place = fault.place.unwrap();
        let hint = fault.hint.map(|hint| format!(" | {hint}")).unwrap_or_default();
        format!("{} [{}] {}{hint}", place.line, place.table, fault.message)
    };
    parse(text).unwrap_err().into_iter().map(line).collect()
}

#[test]
fn nothing_means_every_default() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.agent.interval, Duration::from_secs(60));
}

#[test]
fn the_example_of_the_design_is_understood() {
    let config = parse(
        r#"
        [agent]
        name = "web-1"
        tags = { env = "prod", region = "${REGION}" }
        attributes = { cpus = 8, distribution = "debian" }
        interval = "60s"
        default_grants = ["host-stats"]
        listen = "127.0.0.1:9617"

        [collectors.cpu]
        interval = "10s"
        settings = { percore = true, nested = { depth = 2 } }
        match = { except = ["*.guest"] }
        tags = { team = "infra" }
        counters = "total"
        limits = { memory = "8MiB", timeout = "2s", samples = 10000, series = 20000 }

        [collectors.docker]
        plugin = { file = "plugins/docker.wasm" }
        grant = { http = ["unix:///var/run/docker.sock"] }

        [handlers.metricly]
        settings = { url = "https://api.app.metricly.com/x", api_key = { file = "key" } }
        grant = { http = ["https://api.app.metricly.com"] }
        match = { metrics = ["*"], except = ["*.idle"] }
        queue = { memory = "8MiB", disk = "0B", sync = "0s", order = "newest-first" }
        tls = { ca = "/etc/ssl/ca.pem" }
        "#,
    )
    .unwrap();
    assert_eq!(config.agent.tags[1].value, "eu");
    assert_eq!(config.agent.attributes.len(), 2);

    let cpu = &config.collectors["cpu"];
    assert_eq!(cpu.interval, Duration::from_secs(10));
    assert_eq!(cpu.plugin.settings.keys().collect::<Vec<_>>(), ["percore", "nested.depth"]);
    assert_eq!(cpu.plugin.limits.memory, 8 << 20);
    assert_eq!(cpu.plugin.limits.timeout, Duration::from_secs(2));
    assert_eq!(cpu.counters, Some(Counters::Total));
    assert_eq!(cpu.plugin.grant, None);
    assert_eq!(cpu.plugin.place.to_string(), "/etc/k/main.toml:10  [collectors.cpu]");

    let docker = &config.collectors["docker"];
    assert_eq!(docker.plugin.source, PluginSource::File("/etc/k/plugins/docker.wasm".into()));
    assert_eq!(docker.interval, Duration::from_secs(60));
    assert_eq!(docker.plugin.limits.timeout, Duration::from_secs(10));
    assert_eq!(docker.plugin.grant.as_ref().unwrap().targets(Capability::Http).len(), 1);

    let metricly = &config.handlers["metricly"];
    assert_eq!(metricly.plugin.settings["api_key"].value, settings::GivenValue::File("/etc/k/key".into()));
    assert_eq!(metricly.plugin.limits.timeout, Duration::from_secs(30));
    assert_eq!((metricly.queue.order, metricly.queue.disk), (Order::NewestFirst, 0));
}

#[test]
fn a_short_interval_cuts_the_default_timeout() {
    let config = parse("[collectors.cpu]\ninterval = \"1s\"").unwrap();
    assert_eq!(config.collectors["cpu"].plugin.limits.timeout, Duration::from_secs(1));
}

#[test]
fn what_only_moved_is_equal() {
    let text = "[collectors.cpu]\nsettings = { percore = true }\n";
    assert_eq!(parse(text).unwrap(), parse(&format!("# a comment\n\n{text}")).unwrap());
    assert_ne!(parse(text).unwrap(), parse(&text.replace("true", "false")).unwrap());
}

#[test]
fn every_fault_is_reported_with_its_line() {
    let found = faults(
        "[agent]\n\
         interval = \"0s\"\n\
         data_dir = \"lib\"\n\
         listen = \"0.0.0.0:80\"\n\
         default_grants = [\"http\", \"host-stat\"]\n\
         \n\
         [collectors.cpu]\n\
         intervall = \"10s\"\n\
         limits = { memry = 5, series = 0 }\n\
         grant = { tpc = [], tcp = [\n\
           \"ok:1\",\n\
           \"nowhere\",\n\
         ], read = true }\n\
         \n\
         [collector.disk]\n",
    );
    assert_eq!(
        found,
        [
            "2 [agent] `interval` must be longer than 0s",
            "3 [agent] `data_dir` must be an absolute path, not `lib`",
            "4 [agent] `listen` must be a loopback address such as `127.0.0.1:9617`, not `0.0.0.0:80` \
             | everyone who reaches it sees all figures; put a proxy before it to let others in",
            "5 [agent] `default_grants` cannot hold `http`: it is granted by name only \
             | name it in the `grant` of the plugin's table",
            "5 [agent] there is no capability `host-stat` | did you mean `host-stats`?",
            "8 [collectors.cpu] unknown key `intervall` | did you mean `interval`?",
            "9 [collectors.cpu.limits] `series` must be more than 0",
            "9 [collectors.cpu.limits] unknown key `memry` | did you mean `memory`?",
            "10 [collectors.cpu.grant] there is no capability `tpc` | did you mean `tcp`?",
            "12 [collectors.cpu.grant] `nowhere` in `tcp`: expected `host:port`",
            "13 [collectors.cpu.grant] `read` must be a list of texts, not `true`",
            "15 [collector] unknown key `collector` | did you mean `collectors`?",
        ]
    );
}

#[test]
fn each_bad_value_says_what_it_should_be() {
    for (text, fault) in [
        (
            "[agent]\ninterval = 60",
            "2 [agent] `interval` must be a duration such as `\"30s\"`, not `60` | a duration has a unit: `interval = \"60s\"`",
        ),
        (
            "[agent]\ninterval = \"-5s\"",
            "2 [agent] `interval` must be a duration such as `\"30s\"`, not `\"-5s\"`",
        ),
        (
            "[collectors.x]\ninterval = \"1000000y\"",
            "2 [collectors.x] `interval` must be a duration such as `\"30s\"`, not `\"1000000y\"`",
        ),
        ("[agent]\nname = \"\"", "2 [agent] `name` must not be empty nor hold control characters"),
        (
            "[agent]\nname = \"${NAME}\"",
            "2 [agent] `name`: environment variable `NAME` is not set; a default is written `${NAME:-default}`",
        ),
        (
            "[agent]\nrelations = [\"a\", \"${X:?which}\"]",
            "2 [agent] `relations`: environment variable `X`: which",
        ),
        ("[agent]\ntags = { rack = 5 }", "2 [agent.tags] `rack` must be a text, not `5`"),
        (
            "[agent]\nlog_level = \"warning\"",
            "2 [agent] `log_level` must be one of `error`, `warn`, `info`, `debug`, `trace`, not `\"warning\"`",
        ),
        (
            "[agent]\nepoch_tick = 1979-05-27",
            "2 [agent] `epoch_tick` must be a duration such as `\"30s\"`, not a date",
        ),
        ("[agent]\ngrace = 99999999999999999999", "2 [agent] `grace`: 99999999999999999999 is too big"),
        ("collectors = 5", "1 [] `collectors` must be a table, not `5`"),
        ("[collectors]\ncpu = true", "2 [collectors] `cpu` must be a table, not `true`"),
        (
            "[collectors.x]\nplugin = 5",
            "2 [collectors.x] `plugin` must be a plugin's name or `{ file = \"name.wasm\" }`, not `5`",
        ),
        (
            "[collectors.x]\nplugin = { path = \"x\" }",
            "2 [collectors.x.plugin] `plugin` names no file | `plugin = { file = \"name.wasm\" }`",
        ),
        (
            "[collectors.x]\nlimits.timeout = \"2m\"",
            "2 [collectors.x.limits] `timeout` (2m) is longer than the interval (1m) | a run has to be over when the next one is due",
        ),
        (
            "[collectors.x]\nlimits.memory = -1",
            "2 [collectors.x.limits] `memory` must be a size such as `\"16MiB\"`, not `-1`",
        ),
        (
            "[collectors.x]\nsettings = { when = 1979-05-27 }",
            "2 [collectors.x.settings] `when` must be a text, a number, `true`, `false` or a list of texts, not a date",
        ),
        (
            "[collectors.x]\nqueue = {}",
            "2 [collectors.x.queue] unknown key `queue` | there are `interval`, `enabled`, `plugin`, `sha256`, `settings`, `grant`, `match`, `limits`, `tls`, `log_level`, `counters`, `tags`",
        ),
        (
            "[collectors.\"a/b\"]",
            "1 [collectors.\"a/b\"] the name \"a/b\" would not do as a file's name | `plugin = \"…\"` says which program a table of another name runs",
        ),
        (
            "[handlers.x]\nretry.jitter = 0.6",
            "2 [handlers.x.retry] `jitter` must lie between 0 and 0.5, not at 0.6",
        ),
        (
            "[handlers.x]\nretry.longest = \"10ms\"",
            "2 [handlers.x.retry] `retry.longest` is shorter than `retry.first`",
        ),
        (
            "[handlers.x]\ntls.cert = \"a\"",
            "2 [handlers.x.tls] `tls.cert` and `tls.key` go together: one of them is missing",
        ),
        (
            "[handlers.x]\ngrant.state = [\"x\"]",
            "2 [handlers.x.grant] `x` in `state`: expected `true`: there is nothing to name",
        ),
        (
            "[collectors.x]\n[handlers.x]",
            "2 [handlers.x] `x` names a handler here and a collector in /etc/k/main.toml:1 | call one of them something else, with `plugin = \"x\"`",
        ),
    ] {
        assert_eq!(faults(text)[0], fault);
    }
}

#[test]
fn a_setting_that_stands_twice_under_two_spellings_is_a_fault() {
    let found = faults("[collectors.x.settings]\na.b = 1\n\"a.b\" = 2\n");
    assert_eq!(found, ["3 [collectors.x.settings] setting `a.b` stands twice"]);
}

#[test]
fn defaults_are_granted_to_collectors_only_and_the_rest_by_name() {
    let config = parse("[collectors.disk]\n\n[handlers.graphite]\nsettings = { host = \"h\" }\n").unwrap();
    let ask = |capability, text: &str| crate::capability::Ask {
        capability,
        targets: vec![crate::capability::Target::parse(capability, text).unwrap()],
        previous: Vec::new(),
        reason: "to work".to_owned(),
    };
    let disk = &config.collectors["disk"].plugin;
    let graphite = &config.handlers["graphite"].plugin;
    let stats = [ask(Capability::HostStats, "disk")];
    assert!(disk.grants(PluginKind::Collector, "disk", &stats, &config.agent).unwrap().host_stats("disk"));
    assert!(graphite.grants(PluginKind::Handler, "graphite", &stats, &config.agent).is_err());
    let fault =
        graphite.grants(PluginKind::Handler, "graphite", &[ask(Capability::Tcp, "h:2003")], &config.agent);
    assert_eq!(
        fault.unwrap_err().to_string(),
        "error: handler `graphite` asks to connect to `h:2003` (to work), which the config does not grant\n  \
         /etc/k/main.toml:3  [handlers.graphite]\n  \
         hint: add `grant = { tcp = [\"h:2003\"] }`"
    );
}

#[test]
fn names_are_bounded_and_printable() {
    for name in ["", "..", "a\\u0007b", &"x".repeat(129)] {
        assert_eq!(faults(&format!("[handlers.\"{name}\"]")).len(), 1, "{name}");
    }
    assert!(parse(&format!("[handlers.\"{}\"]", "ü".repeat(64))).is_ok());
}

#[test]
fn wrong_syntax_is_named_by_line_and_nothing_else_of_that_file() {
    let found = faults("[agent]\ninterval = \nfoo = 5\n[collectors.cpu]\n[collectors.cpu]\n");
    assert!(found[0].starts_with("2 [] not valid TOML: "), "{found:?}");
    assert!(found.iter().all(|fault| fault.contains("not valid TOML")), "{found:?}");
    assert!(found.iter().any(|fault| fault.starts_with("5 [] ")), "{found:?}");
}

#[test]
fn tables_of_several_files_meet_and_a_second_one_names_both_places() {
    let file = |name: &str, text: &str| (PathBuf::from(name), text.to_owned());
    let main = file("k.toml", "[agent]\ninterval = \"5s\"\n[collectors.cpu]\n");
    let good = [
        main.clone(),
        file("conf.d/a.toml", "[agent]\nname = \"x\"\n\n[collectors.disk]\n[handlers.stdout]\n"),
    ];
    let config = Config::parse(&good, &env).unwrap();
    assert_eq!(config.collectors.keys().collect::<Vec<_>>(), ["cpu", "disk"]);
    assert_eq!((config.agent.name.as_deref(), config.agent.interval), (Some("x"), Duration::from_secs(5)));

    let bad = [
        main,
        file("conf.d/a.toml", "\n[collectors.cpu]\n"),
        file("conf.d/b.toml", "agent.interval = \"1s\"\nx = 1"),
    ];
    assert_eq!(
        Config::parse(&bad, &env).unwrap_err().to_string(),
        "error: `collectors.cpu` stands twice: here and in k.toml:3\n  conf.d/a.toml:2  [collectors.cpu]\n  hint: keep one of them\n\
         error: `agent.interval` stands twice: here and in k.toml:2\n  conf.d/b.toml:1  [agent]\n  hint: keep one of them\n\
         error: unknown key `x`\n  conf.d/b.toml:2\n  hint: there are `agent`, `collectors`, `handlers`"
    );
}

#[test]
fn files_are_found_in_name_order_and_missing_ones_are_named() {
    let directory = std::env::temp_dir().join(format!("kimberlite-config-{}", std::process::id()));
    let fragments = directory.join("conf.d");
    std::fs::create_dir_all(&fragments).unwrap();
    let main = directory.join("k.toml");
    std::fs::write(&main, "[collectors.cpu]").unwrap();
    std::fs::write(fragments.join("20.toml"), "[collectors.b]").unwrap();
    std::fs::write(fragments.join("10.toml"), "[collectors.a]").unwrap();
    std::fs::write(fragments.join(".20.toml"), "no toml").unwrap();
    std::fs::write(fragments.join("20.toml.bak"), "no toml").unwrap();

    let config = Config::load(std::slice::from_ref(&main), None, &env).unwrap();
    assert_eq!(config.collectors.keys().collect::<Vec<_>>(), ["cpu", "a", "b"]);

    let missing = directory.join("missing.toml");
    let faults = Config::load(std::slice::from_ref(&missing), None, &env).unwrap_err().to_string();
    assert!(faults.contains("cannot read the config") && faults.contains("missing.toml"), "{faults}");
    assert!(Config::load(&[main], Some(&directory.join("nowhere")), &env).is_err());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn without_a_config_seven_collectors_are_printed_and_metricly_needs_a_key() {
    let config = Config::embedded(Vec::new(), &env).unwrap();
    let names = ["cpu", "memory", "loadavg", "diskusage", "diskspace", "network", "vmstat"];
    assert_eq!(config.collectors.keys().collect::<Vec<_>>(), names);
    assert_eq!(config.collectors["cpu"].interval, Duration::from_secs(10));
    assert_eq!(config.handlers.keys().collect::<Vec<_>>(), ["stdout"]);

    let keyed = |name: &str| match name {
        "METRICLY_API_KEY" => Some("k".to_owned()),
        "METRICLY_URL" => Some("http://127.0.0.1:8080/ingest".to_owned()),
        _ => None,
    };
    let config = Config::embedded(Vec::new(), &keyed).unwrap();
    let metricly = &config.handlers["metricly"].plugin;
    assert_eq!(metricly.settings["api_key"].value, settings::GivenValue::Env("METRICLY_API_KEY".to_owned()));
    assert_eq!(
        metricly.grant.as_ref().unwrap().to_string(),
        r#"grant = { http = ["http://127.0.0.1:8080"] }"#
    );
}

const REFERENCE: &str = include_str!("../../../config/kimberlite.toml");

#[test]
fn every_commented_out_value_is_the_default() {
    let uncommented: String = REFERENCE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphabetic()) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(uncommented.trim_end(), REFERENCE.trim_end());
    assert_eq!(parse(&uncommented).unwrap(), parse(REFERENCE).unwrap());
}

#[test]
fn every_key_is_explained() {
    for (table, shown) in [
        ("[agent]\n", ""),
        ("[collectors.x]\n", ""),
        ("[collectors.x]\nmatch.", "match."),
        ("[collectors.x]\nlimits.", "limits."),
        ("[handlers.x]\n", ""),
        ("[handlers.x]\nqueue.", "queue."),
        ("[handlers.x]\nretry.", "retry."),
    ] {
        // The hint of a key that is like no other lists them all.
        let fault = &faults(&format!("{table}zzzzzzzzzzzzzzzz = 1"))[0];
        let (_, known) = fault.split_once("there are ").unwrap();
        for key in known.split('`').filter(|part| part.chars().all(|c| c.is_alphanumeric() || c == '_')) {
            let is_told = |line: &str| {
                let line = line.trim_start_matches('#').trim_start().trim_start_matches("for example: ");
                line.starts_with(&format!("{shown}{key} =")) || line.starts_with(&format!("{shown}{key}."))
            };
            assert!(key.is_empty() || REFERENCE.lines().any(is_told), "{table}{key}");
        }
    }
}
