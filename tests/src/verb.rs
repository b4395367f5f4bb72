//! One verb of the command line, run to its end.

use std::io::Write;
use std::process::{Command, Stdio};

/// What a verb printed, and its exit code.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Panics with all that was printed unless the verb ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The lines of standard output, each of them JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// A command that knows nothing of this machine's configuration.
pub(crate) fn command(binary: &str) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("KIMBERLITE_") || name.starts_with("METRICLY_") {
            command.env_remove(name);
        }
    }
    command
}

/// `kimberlite ARGS`.
pub fn verb(binary: &str, args: &[&str]) -> Output {
    verb_with_input(binary, args, "")
}

/// `kimberlite ARGS < INPUT`.
pub fn verb_with_input(binary: &str, args: &[&str], input: &str) -> Output {
    let mut command = command(binary);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that has no use for its input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
