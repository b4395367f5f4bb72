//! A plugin reaches what it asked for and was granted, and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use kimberlite_tests::{Agent, HttpSink, LineSink, Reply, TempDir};

use crate::{KIMBERLITE, collector};

/// An attempt: the table's name, its settings, its grants, and what the log then says.
struct Attempt {
    name: &'static str,
    settings: String,
    grant: String,
    words: Vec<&'static str>,
}

fn attempt(name: &'static str, settings: String, grant: &str, words: &[&'static str]) -> Attempt {
    Attempt { name, settings, grant: format!("grant = {{ {grant} }}"), words: words.to_vec() }
}

#[track_caller]
fn each_is_logged(attempts: &[Attempt]) -> Agent {
    let config: String =
        attempts.iter().map(|attempt| collector(attempt.name, &attempt.settings, &attempt.grant)).collect();
    let agent = Agent::start(KIMBERLITE, &config);
    for Attempt { name, words, .. } in attempts {
        let plugin = agent.wait_for(name, "has run", |plugin| plugin.runs() > 0);
        assert_eq!(plugin.figure("failures"), 0, "{plugin:?}");
        let name = format!("\"plugin\":\"{name}\"");
        let words: Vec<&str> = words.iter().copied().chain([name.as_str()]).collect();
        agent.wait_for_log(&words);
    }
    agent
}

#[test]
fn files_are_read_under_a_grant_and_nowhere_else() {
    let files = TempDir::new();
    files.write("granted/file", "seen");
    files.write("secret/file", "unseen");
    let at = |name: &str| files.join(name);
    let (granted, secret) = (at("granted"), at("secret"));
    symlink(at("secret/file"), at("granted/leak")).unwrap();
    symlink("/", at("granted/root")).unwrap();
    assert!(Command::new("mkfifo").arg(at("granted/pipe")).status().unwrap().success());

    let ask = |mode: &str, target: &str, ask: &str| {
        format!("mode = \"{mode}\", target = {:?}, ask_read = [{ask:?}]", at(target))
    };
    let grant = format!("read = [{granted:?}]");
    each_is_logged(&[
        attempt("reads", ask("read", "granted/file", &granted), &grant, &["did read"]),
        attempt("lists", ask("list", "granted", &granted), &grant, &["did list"]),
        attempt("elsewhere", ask("read", "secret/file", &granted), &grant, &["cannot read"]),
        attempt("upwards", ask("read", "granted/../secret/file", &granted), &grant, &["cannot read"]),
        attempt("by-link", ask("read", "granted/leak", &granted), &grant, &["cannot read"]),
        attempt("by-root", ask("read", "granted/root/etc/hostname", &granted), &grant, &["cannot read"]),
        attempt("pipe", ask("read", "granted/pipe", &granted), &grant, &["cannot read"]),
        attempt("writes", ask("write", "granted/new", &granted), &grant, &["cannot write"]),
        attempt(
            "unasked",
            format!("mode = \"read\", target = {:?}", at("secret/file")),
            &format!("read = [{secret:?}]"),
            &["cannot read"],
        ),
        attempt(
            "one-file",
            ask("read", "granted/file", &at("granted/file")),
            &format!("read = [{:?}]", at("granted/file")),
            &["did read"],
        ),
        attempt(
            "no-env",
            "mode = \"env\", target = \"KIMBERLITE_TEST_VARIABLE\"".to_owned(),
            "",
            &["cannot env"],
        ),
        attempt("no-home", "mode = \"env\", target = \"PATH\"".to_owned(), "", &["cannot env"]),
    ]);
    assert!(!fs::exists(at("granted/new")).unwrap());
}

#[test]
fn a_grant_of_one_file_shows_no_other_in_its_directory() {
    let files = TempDir::new();
    let (one, two) = (files.write("one", "seen"), files.write("two", "unseen"));
    let settings =
        |mode: &str, target: &str| format!("mode = \"{mode}\", target = {target:?}, ask_read = [{one:?}]");
    let grant = format!("read = [{one:?}]");
    each_is_logged(&[attempt("beside", settings("read", &two), &grant, &["cannot read"])]);
}

#[test]
fn addresses_are_reached_under_a_grant_and_no_others() {
    let (sink, other) = (LineSink::start(), LineSink::start());
    let web = HttpSink::start(&[Reply::Status(302)]);
    let address = format!("127.0.0.1:{}", sink.port());
    let elsewhere = format!("127.0.0.1:{}", other.port());
    let origin = format!("http://127.0.0.1:{}", web.port());
    let ask =
        |mode: &str, target: &str| format!("mode = \"{mode}\", target = {target:?}, ask_tcp = [{address:?}]");
    let tcp = format!("tcp = [{address:?}]");
    let get = |target: &str| format!("mode = \"get\", target = {target:?}, ask_http = [{origin:?}]");
    let http = format!("http = [{origin:?}]");
    let agent = each_is_logged(&[
        attempt("connects", ask("connect", &address), &tcp, &["did connect"]),
        attempt("elsewhere", ask("connect", &elsewhere), &tcp, &["cannot connect", "NotGranted", "tcp ="]),
        attempt("named", ask("connect", "localhost:1"), &tcp, &["cannot connect", "NotGranted"]),
        attempt(
            "unasked",
            format!("mode = \"connect\", target = {elsewhere:?}"),
            &format!("tcp = [{elsewhere:?}]"),
            &["cannot connect", "NotGranted"],
        ),
        attempt("by-wasi", ask("connect-wasi", &address), &tcp, &["cannot connect-wasi"]),
        attempt("resolves", ask("resolve", "localhost:80"), &tcp, &["cannot resolve"]),
        attempt("datagram", ask("datagram", &address), &tcp, &["cannot datagram", "NotGranted"]),
        // And a redirection is not followed.
        attempt("asks", get(&format!("{origin}/x")), &http, &["status 302"]),
        attempt("asks-other", get(&format!("http://{elsewhere}/x")), &http, &["cannot get"]),
        attempt("asks-nobody", format!("mode = \"get\", target = \"{origin}/y\""), "", &["cannot get"]),
    ]);
    assert_eq!(other.connections(), 0, "nobody was to come here");
    assert!(web.requests().iter().all(|request| request.path == "/x"));
    drop(agent);
}

#[test]
fn the_hosts_own_figures_and_store_are_granted_like_anything_else() {
    let stats = "mode = \"stats\", ask_stats = [\"cpu\"]".to_owned();
    each_is_logged(&[
        attempt("stats", stats, "host-stats = [\"cpu\"]", &["did stats"]),
        attempt(
            "no-stats",
            "mode = \"stats\"".to_owned(),
            "host-stats = true",
            &["cannot stats", "NotGranted"],
        ),
        attempt(
            "other-stats",
            "mode = \"stats\", ask_stats = [\"load\"]".to_owned(),
            "host-stats = true",
            &["cannot stats", "NotGranted"],
        ),
        attempt(
            "state",
            "mode = \"remember\", ask_state = true".to_owned(),
            "state = true",
            &["did remember"],
        ),
        attempt(
            "no-state",
            "mode = \"remember\"".to_owned(),
            "state = true",
            &["cannot remember", "NotGranted"],
        ),
    ]);
}

#[test]
fn what_asks_for_more_than_it_is_granted_is_parked_with_the_line_that_is_missing() {
    let config = collector("greedy", "ask_tcp = [\"10.0.0.7:2003\"], ask_state = true", "")
        + &collector("good", "", "");
    let agent = Agent::start(KIMBERLITE, &config);
    let greedy = agent.wait_for("greedy", "is parked", |plugin| plugin.state() == "parked");
    let waits_for = greedy.0["waits_for"].as_str().unwrap();
    for words in ["10.0.0.7:2003", "state", "grant = ", "kimberlite.toml:", "to hold connections"] {
        assert!(waits_for.contains(words), "{words:?} is not in:\n{waits_for}");
    }
    agent.wait_for("good", "runs", |good| good.runs() > 0);
}

#[test]
fn what_a_call_stored_outlives_the_agent_if_the_call_ended_well() {
    let config: String = ["remember", "remember-in-vain"]
        .iter()
        .map(|mode| {
            let settings = format!("mode = \"{mode}\", ask_state = true");
            collector(mode, &settings, "grant = { state = true }\nlimits = { failures = 3 }")
        })
        .collect();
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait_for_log(&["remembers 2 calls", "\"remember\""]);
    agent.wait_for("remember-in-vain", "was killed twice", |plugin| plugin.kills("trap") >= 2);
    let (ended, dir) = agent.stop_and_keep();
    let said = |line: &String| line.contains("remembers") && line.contains("\"remember\"");
    let runs = ended.stderr.iter().filter(|line| said(line)).count();
    let vain = |line: &String| line.contains("remembers 2") && line.contains("in-vain");
    assert!(!ended.stderr.iter().any(vain), "{ended:?}");

    let agent = Agent::start_in(dir, KIMBERLITE, "", &config);
    agent.wait_for_log(&[&format!("remembers {} calls", runs + 1), "\"remember\""]);
    agent.wait_for_log(&["remembers 1 calls", "in-vain"]);
}
