//! HTTP to granted origins. Capability `http = ["https://host:port", …]`.
//!
//! A unix socket that is granted as `unix:///run/NAME.sock` is reached as `http://NAME.unix/`.
//! Redirects are not followed and nothing is decompressed. Waiting ends by itself before the call's
//! deadline, so a plugin sees an error and can answer; [`Request::timeout`] ends it sooner.
//!
//! ```no_run
//! use kimberlite_plugin_sdk::{HandleError, http};
//!
//! fn post(url: &str, json: String) -> Result<(), HandleError> {
//!     let response = http::Request::post(url).header("content-type", "application/json").body(json).send()?;
//!     match response.status() {
//!         200..300 => Ok(()),
//!         401 | 403 => Err(HandleError::halt("the key was refused")),
//!         status => Err(HandleError::retry(format!("the server answered {status}"))),
//!     }
//! }
//! ```

use std::fmt;
use std::time::Duration;

use crate::handler::HandleError;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::fakes::http as host;
#[cfg(target_arch = "wasm32")]
use wasi as host;

#[cfg(target_arch = "wasm32")]
mod wasi;

/// Why there is no answer. For a handler each is a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The manifest or the operator's config does not name this origin, or its address is not
    /// allowed.
    Denied(String),
    /// It took too long.
    TimedOut(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text) | Self::TimedOut(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for HandleError {
    fn from(error: Error) -> Self {
        Self::retry(error)
    }
}

/// A request that has not been sent yet.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    timeout: Option<Duration>,
}

impl Request {
    /// A request with any method, for instance `PATCH`.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self { method, url, headers: Vec::new(), body: None, timeout: None }
    }

    /// Asks for `url`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// Posts to `url`.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Puts to `url`.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// Deletes `url`.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body; `Content-Length` follows from it.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Gives up when sending, waiting and reading the answer together take longer.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Sends it, and waits for status and headers of the answer. Any status is a good answer.
    pub fn send(self) -> Result<Response, Error> {
        host::send(self)
    }
}

/// What a test's server looks at.
#[cfg(not(target_arch = "wasm32"))]
impl Request {
    /// For instance `POST`.
    pub fn sent_method(&self) -> &str {
        &self.method
    }

    /// The whole URL.
    pub fn sent_url(&self) -> &str {
        &self.url
    }

    /// The value of a header, its name in any case.
    pub fn sent_header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body; empty if there is none.
    pub fn sent_body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }
}

/// An answer. Its body is read on demand.
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: host::Body,
}

impl Response {
    /// For instance 202.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first value of a header, its name in any case; none: it is not there, or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// How long the server wants to be left alone: its `Retry-After`, where that is a number of
    /// seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
    }

    /// Reads the body: at most `max` bytes of it, the rest is not looked at.
    pub fn body(self, max: usize) -> Result<Vec<u8>, Error> {
        self.body.read(max)
    }

    /// The same as text; bytes that are none are replaced.
    pub fn text(self, max: usize) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.body(max)?).into_owned())
    }
}

/// What a test's server answers.
#[cfg(not(target_arch = "wasm32"))]
impl Response {
    /// An answer without headers and body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: host::Body::default() }
    }

    /// Adds a header.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = host::Body(body.into());
        self
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

/// `https`, `host:port` and `/path?query` of a URL; a fragment stays at home. The error does not
/// repeat the URL: there may be a key in it.
#[cfg_attr(
    not(any(target_arch = "wasm32", test)),
    expect(dead_code, reason = "the host's server takes any URL")
)]
fn split(url: &str) -> Result<(&str, &str, String), Error> {
    let wrong = |what: &str| Error::Other(format!("cannot use the URL: {what}"));
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| wrong("it has to begin with http:// or https://"))?;
    if !matches!(scheme, "http" | "https") {
        return Err(wrong("it has to begin with http:// or https://"));
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() {
        return Err(wrong("it names no host"));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((scheme, authority, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_taken_apart() {
        let split = |url| split(url).map(|(scheme, authority, path)| format!("{scheme} {authority} {path}"));
        assert_eq!(split("http://[::1]:80/a/b?c=/d#e"), Ok("http [::1]:80 /a/b?c=/d".to_owned()));
        assert_eq!(split("https://x"), Ok("https x /".to_owned()));
        assert_eq!(split("https://x?q=1"), Ok("https x /?q=1".to_owned()));
    }

    #[test]
    fn error_about_a_url_does_not_repeat_it() {
        for url in ["ftp://x/secret", "http:///secret", "secret"] {
            assert!(!split(url).unwrap_err().to_string().contains("secret"));
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let response = |value: &str| Response::new(429).with_header("Retry-After", value).retry_after();
        assert_eq!(response("120"), Some(Duration::from_secs(120)));
        assert_eq!(response("Fri, 31 Dec 1999 23:59:59 GMT"), None);
    }
}
