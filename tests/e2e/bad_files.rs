//! Bad input: one error that names the culprit, the place and the next step, while the rest runs on.

use std::borrow::Cow;
use std::fs;
use std::net::TcpListener;

use kimberlite_tests::{Agent, HOSTILE_COLLECTOR, HOSTILE_HANDLER, Output, TempDir, verb};
use wasm_encoder::{Component, ComponentSection, CustomSection, Module};

use crate::{KIMBERLITE, collector, handler};

/// The hostile collector with every `from` in it turned into a `to` of the same length.
fn patched(from: &str, to: &str) -> Vec<u8> {
    let mut bytes = fs::read(HOSTILE_COLLECTOR).unwrap();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from.as_bytes()) {
        bytes[at + found..][..to.len()].copy_from_slice(to.as_bytes());
        at += found + to.len();
    }
    assert!(at > 0, "{from:?} is not there");
    bytes
}

/// With this manifest behind, where it wins over the one inside.
fn with_manifest(text: &str) -> Vec<u8> {
    let mut bytes = fs::read(HOSTILE_COLLECTOR).unwrap();
    let section = CustomSection { name: Cow::Borrowed("kimberlite:manifest"), data: text.as_bytes().into() };
    section.append_to_component(&mut bytes);
    bytes
}

#[test]
fn each_bad_file_is_told_for_what_it_is_and_the_rest_runs() {
    let whole = fs::read(HOSTILE_COLLECTOR).unwrap();
    let manifest = "name = \"x\"\nkind = \"collector\"\nversion = \"1\"\n";
    let bad: [(&str, Vec<u8>, &[&str]); 13] = [
        ("empty", Vec::new(), &["empty"]),
        ("text", b"#!/bin/sh\necho hello\n".to_vec(), &["not WebAssembly"]),
        ("truncated", whole[..whole.len() / 2].to_vec(), &["WebAssembly"]),
        (
            "flipped",
            {
                let mut bytes = whole.clone();
                let at = bytes.len() / 3;
                bytes[at..at + 64].fill(0xff);
                bytes
            },
            &[],
        ),
        ("module", Module::new().finish(), &["core module", "wasm32-wasip2"]),
        ("nothing", Component::new().finish(), &["kimberlite:plugin/collector"]),
        (
            "newer",
            patched("kimberlite:plugin/collector@0.1.0", "kimberlite:plugin/collector@0.9.0"),
            &["0.9.0", "0.1"],
        ),
        (
            "older",
            patched("kimberlite:plugin/collector@0.1.0", "kimberlite:plugin/collector@0.0.7"),
            &["0.0.7", "0.1"],
        ),
        (
            "differs",
            patched("forget-elements", "forget-elephant"),
            &["forget-elephant", "kimberlite:plugin@0.1", "rebuild it"],
        ),
        (
            "stranger",
            patched("kimberlite:plugin/udp@0.1.0", "kimberlite:plugin/xyz@0.1.0"),
            &["kimberlite:plugin/xyz"],
        ),
        (
            "typo",
            with_manifest(&format!("{manifest}descripton = \"x\"\n")),
            &["descripton", "description", "plugin.toml:4"],
        ),
        ("other-kind", with_manifest(&manifest.replace("collector", "handler")), &["handler", "collector"]),
        ("needy", with_manifest(&format!("{manifest}memory = \"64MiB\"\n")), &["64", "16", "memory ="]),
    ];
    let files = TempDir::new();
    let mut config = collector("good", "", "");
    for (name, bytes, _) in &bad {
        let path = files.write(&format!("{name}.wasm"), bytes);
        config += &format!("[collectors.{name}]\nplugin = {{ file = {path:?} }}\n\n");
    }
    config += "[collectors.absent]\nplugin = { file = \"absent.wasm\" }\n\n";
    config += &format!("[collectors.wrong-table]\nplugin = {{ file = {HOSTILE_HANDLER:?} }}\n\n");
    config += "[collectors.nameless]\n\n";
    let more: [(&str, &[&str]); 3] = [
        ("absent", &["absent.wasm", "No such file"]),
        ("wrong-table", &["is a handler", "[handlers.wrong-table]"]),
        ("nameless", &["no plugin `nameless`", "cpu"]),
    ];
    let agent = Agent::start(KIMBERLITE, &config);
    agent.wait_for("good", "runs", |good| good.runs() > 2);
    let validated = verb(KIMBERLITE, &["validate", "-c", &agent.config_file()]).expect_code(1);
    let validated = validated.stdout + &validated.stderr;
    let expected = bad.iter().map(|(name, _, words)| (*name, *words)).chain(more);
    for (name, words) in expected {
        let plugin = agent.plugin(name).unwrap();
        let why = plugin.0["waits_for"].as_str().unwrap();
        assert_eq!(plugin.state(), "parked", "{plugin:?}");
        for words in words.iter().copied().chain(["kimberlite.toml:"]) {
            assert!(why.contains(words), "`{name}`: {words:?} is not in: {why}");
        }
        assert!(why.contains(name), "`{name}` is not named in: {why}");
        assert!(
            agent.has_logged(&[&format!("\"plugin\":\"{name}\""), "error"]),
            "`{name}` is not in the log"
        );
        assert!(validated.contains(name), "`{name}` is not in what validate says:\n{validated}");
    }
    let listed = verb(KIMBERLITE, &["list", "-c", &agent.config_file()]).expect_code(0);
    assert!(listed.stdout.contains("core module"), "{listed:?}");
}

#[track_caller]
fn says(output: &Output, words: &[&str]) {
    for words in words {
        assert!(output.stderr.contains(words), "{words:?} is not in:\n{}{}", output.stdout, output.stderr);
    }
}

#[test]
fn a_config_with_a_fault_starts_nothing_and_every_fault_is_named() {
    let files = TempDir::new();
    let config = files.write(
        "bad.toml",
        "[agent]\nintervall = \"10s\"\n\n[collectors.cpu]\ninterval = \"0s\"\n\n[collectors.memory]\ninterval = \"-1s\"\n\n[handler.stdout]\n",
    );
    for args in [&["run"][..], &["collect", "cpu"], &["send", "stdout", "--from", "-"]] {
        let args: Vec<&str> = args.iter().copied().chain(["-c", &config]).collect();
        let output = verb(KIMBERLITE, &args).expect_code(78);
        says(
            &output,
            &["bad.toml:2", "intervall", "`interval`", "bad.toml:5", "bad.toml:8", "bad.toml:10", "handlers"],
        );
    }
    let absent = verb(KIMBERLITE, &["run", "-c", &files.join("absent.toml")]).expect_code(78);
    says(&absent, &["absent.toml"]);
    let broken = files.write("broken.toml", "[agent\nname = 1\n");
    says(&verb(KIMBERLITE, &["run", "-c", &broken]).expect_code(78), &["broken.toml:1"]);
}

#[test]
fn a_setting_that_is_missing_or_unknown_is_named_with_its_line() {
    let files = TempDir::new();
    let config =
        files.write("k.toml", "[handlers.metricly]\nsettings = { url = \"http://127.0.0.1:1/x\" }\n");
    let sent = verb(KIMBERLITE, &["send", "metricly", "--from", "/dev/null", "-c", &config]).expect_code(78);
    says(&sent, &["api_key", "k.toml:1"]);
    let config = files.write("l.toml", collector("x", "amunt = 3", ""));
    let collected = verb(KIMBERLITE, &["collect", "x", "-c", &config]).expect_code(78);
    says(&collected, &["amunt", "amount", "l.toml:"]);
    let config = files.write("m.toml", handler("x", "amount = \"3\"", ""));
    says(
        &verb(KIMBERLITE, &["send", "x", "--from", "/dev/null", "-c", &config]).expect_code(78),
        &["amount", "m.toml:"],
    );
}

#[test]
fn what_is_built_in_has_fragments_too() {
    let dir = TempDir::new();
    let file = dir.write("uptime.toml", collector("mine", "", ""));
    let validated = verb(KIMBERLITE, &["validate", "--config-dir", dir.path().to_str().unwrap()]);
    let out = validated.expect_code(0).stdout;
    assert!(out.contains("ok: collector `mine`") && out.contains("ok: collector `cpu`"), "{out}");
    fs::write(&file, "[collectors.cpu]\n").unwrap();
    let twice = verb(KIMBERLITE, &["validate", "--config-dir", dir.path().to_str().unwrap()]).expect_code(1);
    assert!(twice.stderr.contains("uptime.toml:1") && twice.stderr.contains("built in"), "{twice:?}");
}

#[test]
fn a_config_that_others_can_write_is_refused() {
    let dir = TempDir::new();
    let file = dir.write("kimberlite.toml", format!("[agent]\ndata_dir = {:?}\n", dir.join("data")));
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    for (arguments, code) in [(&["run", "-c", &file], 78), (&["validate", "-c", &file], 1)] {
        let refused = verb(KIMBERLITE, arguments).expect_code(code);
        assert!(refused.stderr.contains(&format!("chmod go-w {file}")), "{refused:?}");
    }
}

#[test]
fn a_data_directory_in_use_is_refused_with_the_owners_pid() {
    let agent = Agent::start(KIMBERLITE, &collector("good", "", ""));
    agent.wait_for("good", "runs", |good| good.runs() > 0);
    let second = verb(KIMBERLITE, &["run", "-c", &agent.config_file()]).expect_code(74);
    says(&second, &["in use", "data_dir"]);
    let pid = fs::read_to_string(agent.dir.join("data/lock")).unwrap();
    says(&second, &[pid.trim()]);
}

#[test]
fn a_port_in_use_is_an_error_of_input_and_output() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let agent = Agent::start_with(KIMBERLITE, &format!("listen = \"{address}\""), &collector("good", "", ""));
    let ended = agent.end();
    assert_eq!(ended.code, Some(74), "{ended:?}");
    assert!(ended.stderr.join("\n").contains(&address), "{ended:?}");
}

#[test]
fn what_send_cannot_read_is_named_with_its_line() {
    let files = TempDir::new();
    let config = files.write("k.toml", handler("out", "", ""));
    let from = files.write(
        "samples.jsonl",
        "{\"timestamp\":1,\"element\":\"a\",\"metric\":\"b\",\"value\":1,\"kind\":\"gauge\"}\n{\"timestamp\":1,\"element\":\"a\"\n",
    );
    let sent = verb(KIMBERLITE, &["send", "out", "--from", &from, "-c", &config]).expect_code(74);
    says(&sent, &["samples.jsonl:2"]);
    let absent =
        verb(KIMBERLITE, &["send", "out", "--from", &files.join("absent"), "-c", &config]).expect_code(74);
    says(&absent, &["absent"]);
}

#[test]
fn a_manifest_that_is_wrong_is_not_embedded() {
    let files = TempDir::new();
    let before = fs::read(HOSTILE_COLLECTOR).unwrap();
    let wasm = files.write("x.wasm", &before);
    let manifest = files.write("plugin.toml", "name = \"x\"\nkind = \"collektor\"\nversion = \"1\"\n");
    let embedded = verb(KIMBERLITE, &["embed", &manifest, &wasm]);
    assert!(embedded.code != Some(0), "{embedded:?}");
    says(&embedded, &["collektor", "plugin.toml:2"]);
    assert!(fs::read(&wasm).unwrap() == before, "the file was changed");
}
