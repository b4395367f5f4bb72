//! What an answer to one post means.
//!
//! | answer | verdict |
//! |---|---|
//! | 2xx | delivered |
//! | 401, 403, 410, 418 | halt: the key is wrong, or the service wants no more |
//! | 400, 413, 422 | refused: something in it cannot be taken |
//! | 408, 429, 5xx, any other, none | later |

use std::time::Duration;

use kimberlite_plugin_sdk::http::Response;

use crate::retry_after;

/// Of one post. The texts are for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Delivered,
    Later { after: Option<Duration>, reason: String },
    Refused(String),
    Halt(String),
}

impl Verdict {
    /// `what` was answered with this.
    pub(crate) fn of(what: &str, response: &Response) -> Self {
        let status = response.status();
        let reason = format!("{what} was answered with status {status}");
        match status {
            200..300 => Self::Delivered,
            401 | 403 => Self::Halt(format!("{reason}: the key is not accepted; see `api_key`")),
            410 | 418 => {
                Self::Halt(format!("{reason}: the service wants nothing more from this data source"))
            }
            400 | 413 | 422 => Self::Refused(reason),
            _ => Self::Later { after: response.header("retry-after").and_then(retry_after::parse), reason },
        }
    }

    /// `what` was not answered at all.
    pub(crate) fn unanswered(what: &str, error: &str) -> Self {
        Self::Later { after: None, reason: format!("{what} failed: {error}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16) -> Verdict {
        Verdict::of("metrics", &Response::new(status))
    }

    #[test]
    fn each_status_has_its_verdict() {
        for status in [200, 202, 204, 299] {
            assert_eq!(verdict(status), Verdict::Delivered, "{status}");
        }
        for status in [401, 403, 410, 418] {
            assert!(matches!(verdict(status), Verdict::Halt(_)), "{status}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(verdict(status), Verdict::Refused(_)), "{status}");
        }
        for status in [301, 302, 404, 405, 408, 409, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(verdict(status), Verdict::Later { after: None, .. }), "{status}");
        }
    }

    #[test]
    fn receiver_may_say_how_long_to_wait() {
        let response = Response::new(429).with_header("Retry-After", "7");
        let Verdict::Later { after, .. } = Verdict::of("metrics", &response) else { panic!("not later") };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }
}
