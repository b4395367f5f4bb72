//! A secret is written nowhere, whatever goes wrong and whoever says it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kimberlite_tests::{Agent, HttpSink, LineSink, Reply, TempDir, verb, verb_with_input};

use crate::{KIMBERLITE, collector, handler, metricly};

/// Has characters that look different in a URL.
const SECRET: &str = "hush/hush+key%41 x";

/// Every form in which it might be found.
fn forms() -> [String; 4] {
    let encoded =
        |space: &str| SECRET.replace('%', "%25").replace('/', "%2F").replace('+', "%2B").replace(' ', space);
    [SECRET.to_owned(), encoded("%20"), encoded("+"), "hush".to_owned()]
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    for form in forms() {
        let found = text.lines().find(|line| line.contains(&form));
        assert!(found.is_none(), "{what} tells the secret as {form:?}: {found:?}");
    }
}

#[test]
fn no_output_of_a_failing_agent_has_a_secret() {
    let gone = LineSink::start();
    let port = gone.port();
    drop(gone);
    let angry = HttpSink::start(&[Reply::Status(500), Reply::Status(401)]);
    let token = format!("token = {SECRET:?}");
    let fast = "retry = { first = \"50ms\", longest = \"100ms\" }";
    let mut config = metricly(angry.port(), SECRET, fast)
        + &metricly(port, SECRET, fast)
            .replace("handlers.metricly", "handlers.nobody]\nplugin = \"metricly\"\n[nothing")
            .replace("\n[nothing]", "");
    for mode in ["trap", "error", "init-error"] {
        config += &collector(mode, &format!("mode = \"{mode}\", {token}"), "limits = { failures = 2 }");
    }
    for mode in ["retry", "reject", "halt"] {
        config += &handler(&format!("out-{mode}"), &format!("mode = \"{mode}\", {token}"), fast);
    }
    config += &handler(
        "out-trap",
        &format!("mode = \"trap\", {token}"),
        &format!("{fast}\nlimits = {{ failures = 2 }}"),
    );
    config += &collector("good", "", "interval = \"200ms\"");
    let agent = Agent::start_with(KIMBERLITE, "log_level = \"trace\"", &config);
    for (name, failures) in
        [("trap", 2), ("error", 1), ("init-error", 2), ("nobody", 2), ("out-trap", 2), ("out-retry", 1)]
    {
        agent.wait_for(name, "has failed", |plugin| plugin.figure("failures") >= failures);
    }
    for name in ["metricly", "out-halt"] {
        agent.wait_for(name, "is halted", |plugin| plugin.state() == "halted");
    }
    // So these say it, and say it scrubbed.
    for (name, words) in [("trap", "out of patience"), ("out-halt", "halt says"), ("error", "no data today")]
    {
        agent.wait_for_log(&[name, words]);
    }
    for path in ["/api/v1/plugins", "/metrics?samples=1", "/-/healthy", "/-/ready"] {
        assert_clean(path, &agent.get(path).unwrap().1);
    }
    let file = agent.config_file();
    for args in [&["list"][..], &["list", "-o", "json"], &["validate"], &["validate", "-o", "json"]] {
        let args: Vec<&str> = args.iter().copied().chain(["-c", &file]).collect();
        let output = verb(KIMBERLITE, &args);
        assert_clean(&args.join(" "), &(output.stdout + &output.stderr));
    }
    let data = agent.dir.path().join("data");
    assert_private(&data);
    let ended = agent.stop();
    assert_clean("the log", &ended.stderr.join("\n"));
    assert_clean("standard output", &ended.stdout.join("\n"));
    // The receiver got it, or this test has shown nothing.
    assert!(angry.requests().iter().any(|request| request.path.contains("hush")), "{:?}", angry.requests());
}

/// Nothing in it can be read by others.
fn assert_private(path: &Path) {
    let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    for entry in fs::read_dir(path).into_iter().flatten() {
        assert_private(&entry.unwrap().path());
    }
}

#[test]
fn faults_of_the_config_do_not_quote_a_secret() {
    let files = TempDir::new();
    let sample = r#"{"timestamp":1503300000000,"element":"a","metric":"b","value":1,"kind":"gauge"}"#;
    // Refused while it is resolved, refused by the plugin, refused by nobody.
    for url in
        [format!("not a url {SECRET}"), format!("http://{SECRET}/x"), "http://127.0.0.1:1/x".to_owned()]
    {
        let table = format!(
            "[handlers.metricly]\nsettings = {{ url = {url:?}, api_key = {SECRET:?} }}\n\
             grant = {{ http = [\"http://127.0.0.1:1\"] }}\n"
        );
        let config = files.write("k.toml", table);
        let args = ["send", "metricly", "--from", "-", "--give-up", "300ms", "-c", &config, "-vv"];
        let sent = verb_with_input(KIMBERLITE, &args, sample);
        assert!(sent.code != Some(0), "{sent:?}");
        if !url.contains("hush") {
            assert_clean("send", &(sent.stdout + &sent.stderr));
        }
    }
    let short =
        files.write("short.toml", format!("[handlers.metricly]\nsettings = {{ api_key = [{SECRET:?}] }}\n"));
    let checked = verb(KIMBERLITE, &["validate", "-c", &short]).expect_code(1);
    assert_clean("validate", &(checked.stdout + &checked.stderr));
}

#[test]
fn a_secret_comes_from_a_file_or_a_variable_too() {
    let sink = HttpSink::start(&[Reply::Status(500)]);
    let files = TempDir::new();
    files.write("key", format!("{SECRET}\n"));
    let table = metricly(sink.port(), "KEY", "").replace("\"KEY\"", "{ file = \"key\" }");
    let config = files.write("k.toml", table);
    let sample = r#"{"timestamp":1503300000000,"element":"a","metric":"b","value":1,"kind":"gauge"}"#;
    let args = ["send", "metricly", "--from", "-", "--give-up", "300ms", "-c", &config];
    let sent = verb_with_input(KIMBERLITE, &args, sample).expect_code(1);
    assert!(sink.requests()[0].path.contains("hush"), "{:?}", sink.requests());
    assert_clean("send", &(sent.stdout + &sent.stderr));
}
