//! A running agent: `kimberlite run` as a child process.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::code_cache;
use crate::dir::TempDir;
use crate::verb::command;
use crate::wait;

type Lines = Arc<Mutex<Vec<String>>>;

/// Killed when dropped; [`Agent::stop`] asks it to end.
#[derive(Debug)]
pub struct Agent {
    pub dir: TempDir,
    child: Child,
    stderr: Lines,
    stdout: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// An agent that has ended.
#[derive(Debug)]
pub struct Ended {
    /// None: it died of a signal.
    pub code: Option<i32>,
    pub took: Duration,
    pub stderr: Vec<String>,
    pub stdout: Vec<String>,
}

/// A plugin as `/api/v1/plugins` shows it.
#[derive(Debug, Clone)]
pub struct Plugin(pub Value);

impl Plugin {
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or_default()
    }

    /// A figure by its path: `delivery/delivered`. 0 where there is none.
    pub fn figure(&self, path: &str) -> u64 {
        self.0.pointer(&format!("/{path}")).and_then(Value::as_u64).unwrap_or(0)
    }

    /// How often it ran, well or not.
    pub fn runs(&self) -> u64 {
        self.figure("collect_duration/count")
    }

    pub fn kills(&self, reason: &str) -> u64 {
        self.figure(&format!("kills/{reason}"))
    }

    /// Reason and text; empty where nothing has failed yet.
    pub fn last_failure(&self) -> (&str, &str) {
        let field = |name: &str| self.0["last_failure"][name].as_str().unwrap_or_default();
        (field("reason"), field("text"))
    }
}

impl Agent {
    /// Starts one with a directory of its own. `config` needs no `[agent]`.
    pub fn start(binary: &str, config: &str) -> Self {
        Self::start_in(TempDir::new(), binary, "", config)
    }

    /// `agent` are further keys of `[agent]`.
    pub fn start_with(binary: &str, agent: &str, config: &str) -> Self {
        Self::start_in(TempDir::new(), binary, agent, config)
    }

    /// In the directory of one that has ended, or one that holds files already.
    pub fn start_in(dir: TempDir, binary: &str, agent: &str, config: &str) -> Self {
        Self::start_by(&[], dir, binary, agent, config)
    }

    /// By a command that turns into its arguments in the end: `env`, `nice`, `unshare`.
    pub fn start_by(wrapper: &[&str], dir: TempDir, binary: &str, agent: &str, config: &str) -> Self {
        let file = dir.write("kimberlite.toml", config_text(&dir, agent, config));
        code_cache::lend(&dir.join("data/cache"));
        let mut words = wrapper.iter().copied().chain([binary]);
        let mut command = command(words.next().unwrap());
        command.args(words).args(["run", "--log-format", "json", "-c", &file]);
        // What tests of secrets and of the `env` capability look for.
        command.env("KIMBERLITE_TEST_VARIABLE", "hush-hush-variable");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {binary}: {error}"));
        let (stderr, read_stderr) = collect(child.stderr.take().unwrap());
        let (stdout, read_stdout) = collect(child.stdout.take().unwrap());
        Self { dir, child, stderr, stdout, readers: vec![read_stderr, read_stdout] }
    }

    /// What it has written to its log so far, JSON line by line.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.stderr.lock().unwrap();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Whether a line of the log has all these words.
    pub fn has_logged(&self, words: &[&str]) -> bool {
        let lines = self.stderr.lock().unwrap();
        lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }

    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// `GET path` over the admin socket: status and body. None: it does not answer yet.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        self.ask("GET", path)
    }

    /// The same with `POST`.
    pub fn post(&self, path: &str) -> Option<(u16, String)> {
        self.ask("POST", path)
    }

    fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.dir.join("data/admin.sock")).ok()?;
        write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Waits until `ask` has an answer.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        wait(what, || self.all_that_is_known(), || ask(self))
    }

    /// Waits until this plugin is as wanted.
    #[track_caller]
    pub fn wait_for(&self, name: &str, what: &str, is: impl Fn(&Plugin) -> bool) -> Plugin {
        self.wait(&format!("`{name}` {what}"), |agent| agent.plugin(name).filter(|plugin| is(plugin)))
    }

    /// Waits until the log has a line with all these words.
    #[track_caller]
    pub fn wait_for_log(&self, words: &[&str]) {
        self.wait(&format!("a log line with {words:?}"), |agent| agent.has_logged(words).then_some(()));
    }

    pub fn plugins(&self) -> Vec<Plugin> {
        let Some((200, body)) = self.get("/api/v1/plugins") else { return Vec::new() };
        let snapshot: Value = serde_json::from_str(&body).unwrap();
        snapshot["plugins"].as_array().unwrap().iter().cloned().map(Plugin).collect()
    }

    pub fn plugin(&self, name: &str) -> Option<Plugin> {
        self.plugins().into_iter().find(|plugin| plugin.0["name"] == name)
    }

    /// The value of a line of `/metrics`, given whole: `kimberlite_x{plugin="a"}`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, body) = self.get("/metrics")?;
        body.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// Changes its config, as an editor saves it: aside, then renamed.
    pub fn set_config(&self, agent: &str, config: &str) {
        let aside = self.dir.write("kimberlite.toml.new", config_text(&self.dir, agent, config));
        fs::rename(aside, self.config_file()).unwrap();
    }

    pub fn config_file(&self) -> String {
        self.dir.join("kimberlite.toml")
    }

    /// A path in its data directory.
    pub fn data(&self, path: &str) -> String {
        self.dir.join(&format!("data/{path}"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, and what came of it.
    pub fn stop(self) -> Ended {
        self.stop_and_keep().0
    }

    /// The directory, too: for the next agent.
    pub fn stop_and_keep(mut self) -> (Ended, TempDir) {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        let ended = self.ended(begun);
        (ended, std::mem::take(&mut self.dir))
    }

    /// SIGKILL, and the directory for the next agent.
    pub fn kill_and_keep(mut self) -> TempDir {
        self.signal(Signal::KILL);
        self.ended(Instant::now());
        std::mem::take(&mut self.dir)
    }

    /// Waits for an agent that ends by itself.
    pub fn end(mut self) -> Ended {
        self.ended(Instant::now())
    }

    fn ended(&mut self, begun: Instant) -> Ended {
        let stderr = self.stderr.clone();
        let context = || stderr.lock().unwrap().join("\n");
        let child = &mut self.child;
        let status = wait("the agent has ended", context, || child.try_wait().unwrap());
        let took = begun.elapsed();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        code_cache::take_back(&self.dir.join("data/cache"));
        let lines = |lines: &Lines| lines.lock().unwrap().clone();
        Ended { code: status.code(), took, stderr: lines(&self.stderr), stdout: lines(&self.stdout) }
    }

    /// For a test that has failed.
    pub fn all_that_is_known(&self) -> String {
        let plugins: Vec<_> = self.plugins().iter().map(|plugin| plugin.0.to_string()).collect();
        let log = self.stderr.lock().unwrap().join("\n");
        let config = fs::read_to_string(self.config_file()).unwrap_or_default();
        format!("config:\n{config}\nplugins:\n{}\nlog:\n{log}", plugins.join("\n"))
    }
}

/// The whole config of an agent that keeps to this directory.
fn config_text(dir: &TempDir, agent: &str, config: &str) -> String {
    let data = dir.join("data");
    let plugins = if agent.contains("plugin_dirs") { "" } else { "plugin_dirs = []\n" };
    format!("[agent]\nname = \"web-1\"\ndata_dir = {data:?}\n{plugins}{agent}\n\n{config}")
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        code_cache::take_back(&self.dir.join("data/cache"));
    }
}

fn collect(source: impl Read + Send + 'static) -> (Lines, JoinHandle<()>) {
    let lines = Lines::default();
    let kept = lines.clone();
    let reader = thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            kept.lock().unwrap().push(line);
        }
    });
    (lines, reader)
}
