//! Asks the running agent, for the verbs of the command line. It blocks, for they do nothing else.

use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::listener;
use crate::data_dir::admin_socket;
use crate::status::Snapshot;

/// The agent answers at once, or is in trouble.
const TIMEOUT: Duration = Duration::from_secs(10);

/// No answer is longer, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no agent runs on `{}`\n  hint: start it with `kimberlite run`, or name its config with `-c`", .0.display())]
    NotRunning(PathBuf),
    #[error("this user may not ask the agent at `{}`\n  hint: run as the agent's user or as root", .0.display())]
    NotAllowed(PathBuf),
    /// The agent's own words.
    #[error("{0}")]
    Refused(String),
    #[error("agent at `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The agent that has one data directory.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Fails with [`ClientError::NotRunning`] if no agent answers there.
    pub fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        let client = Self { socket: admin_socket(data_dir) };
        listener::connect(&client.socket).map_err(|error| client.fault(error))?;
        Ok(client)
    }

    /// The agent's figures and those of all its plugins.
    pub fn plugins(&self) -> Result<Snapshot, ClientError> {
        let body = self.ask("GET", "/api/v1/plugins")?;
        serde_json::from_str(&body).map_err(|error| self.fault(error.into()))
    }

    /// Has the agent look at config and plugins anew. Gives the agent's answer.
    pub fn reload(&self) -> Result<String, ClientError> {
        self.ask("POST", "/api/v1/reload").map(|text| text.trim_end().to_owned())
    }

    /// Lets a quarantined plugin run again. Gives the agent's answer.
    pub fn release(&self, plugin: &str) -> Result<String, ClientError> {
        self.command(plugin, "release")
    }

    /// Lets a halted handler deliver again. Gives the agent's answer.
    pub fn resume(&self, plugin: &str) -> Result<String, ClientError> {
        self.command(plugin, "resume")
    }

    /// Hands a dead letter back to its handler. Gives the agent's answer.
    pub fn retry(&self, handler: &str, number: u64) -> Result<String, ClientError> {
        self.command(handler, &format!("deadletters/{number}/retry"))
    }

    fn command(&self, plugin: &str, verb: &str) -> Result<String, ClientError> {
        let name = utf8_percent_encode(plugin, NON_ALPHANUMERIC);
        self.ask("POST", &format!("/api/v1/plugins/{name}/{verb}")).map(|text| text.trim_end().to_owned())
    }

    /// HTTP 1.0, so that the answer comes in one piece and ends with the connection.
    fn ask(&self, method: &str, path: &str) -> Result<String, ClientError> {
        let talk = || {
            let mut stream = listener::connect(&self.socket)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            write!(stream, "{method} {path} HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = talk().map_err(|error| self.fault(error))?;
        let (status, body) = split(&answer)
            .ok_or_else(|| self.fault(io::Error::new(ErrorKind::InvalidData, "that was no HTTP answer")))?;
        match status {
            200 => Ok(body.to_owned()),
            _ => Err(ClientError::Refused(body.trim_end().to_owned())),
        }
    }

    fn fault(&self, source: io::Error) -> ClientError {
        let path = self.socket.clone();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
            ErrorKind::PermissionDenied => ClientError::NotAllowed(path),
            _ => ClientError::Io { path, source },
        }
    }
}

/// Status and body.
fn split(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Temp;
    use super::*;

    #[test]
    fn where_no_agent_runs_that_is_said_with_the_next_step() {
        let temp = Temp::new("no-agent");
        let error = Client::connect(temp.path()).unwrap_err();
        assert!(matches!(error, ClientError::NotRunning(_)));
        assert!(error.to_string().contains("kimberlite run"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(admin_socket(temp.path())).unwrap());
        assert!(matches!(Client::connect(temp.path()).unwrap_err(), ClientError::NotRunning(_)));
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        for text in ["", "HTTP/1.0 200 OK", "HTTP/1.0\r\n\r\n", "HTTP/1.0 x OK\r\n\r\n"] {
            assert_eq!(split(text), None, "{text}");
        }
        assert_eq!(split("HTTP/1.0 409 Conflict\r\na: b\r\n\r\nno\n"), Some((409, "no\n")));
    }
}
