//! Posts samples, events and checks to Metricly.
//!
//! ```text
//! batch ─┬─ samples of an element ──▶ body ──▶ POST URL/KEY ─────┐
//!        ├─ event ─────────────────▶ body ──▶ POST …/events/… ──┼──▶ Verdict ──▶ Delivery ──▶ answer
//!        └─ check ─ ok ─────────────────────▶ POST /check/… ────┘    of a post    of the batch
//!                 └ else: as an event
//! ```
//!
//! Nothing is remembered from batch to batch.

mod body;
mod delivery;
mod endpoint;
mod json;
mod retry_after;
mod verdict;

use std::ops::Range;
use std::time::Duration;

use kimberlite_plugin_sdk::batch::CheckView;
use kimberlite_plugin_sdk::{
    Batch, Error, HandleError, Handler, Receipt, Result, Settings, Status, agent, export_handler, http,
};

use delivery::Delivery;
use endpoint::Endpoint;
use verdict::Verdict;

const JSON: &str = "application/json";
/// What the client library sends with its empty body.
const FORM: &str = "application/x-www-form-urlencoded";

#[derive(Debug)]
struct Metricly {
    endpoint: Endpoint,
    user_agent: String,
    timeout: Duration,
}

impl Handler for Metricly {
    fn new(settings: &Settings) -> Result<Self> {
        let url = settings.text("url").unwrap_or("https://api.app.metricly.com/ingest/infrastructure");
        let timeout = settings.get("timeout")?.unwrap_or(Duration::from_secs(10));
        if timeout.is_zero() {
            return Err(Error::setting("timeout", "must not be 0"));
        }
        Ok(Self {
            endpoint: Endpoint::new(url, settings.require("api_key")?)?,
            user_agent: format!("kimberlite/{}", agent::info().version),
            timeout,
        })
    }

    fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError> {
        let mut delivery = Delivery::default();
        for element in batch.elements() {
            if let Some(metrics) = body::metrics(batch, element) {
                let verdict = self.post("metrics", self.endpoint.metrics(), JSON, metrics.body);
                delivery.take(verdict, metrics.items)?;
            }
        }
        for event in batch.events() {
            let verdict = self.post("event", self.endpoint.events(), JSON, body::event(event));
            delivery.take(verdict, one(event.item()))?;
        }
        for check in batch.checks() {
            delivery.take(self.check(check), one(check.item()))?;
        }
        delivery.end()
    }
}

impl Metricly {
    /// The post itself is the sign of life, whatever is in it: what is not well must not be posted.
    fn check(&self, check: CheckView<'_>) -> Verdict {
        if check.status() == Status::Ok {
            let url = self.endpoint.check(check.name(), check.element().id(), check.ttl());
            self.post("check", &url, FORM, Vec::new())
        } else {
            self.post("check's event", self.endpoint.events(), JSON, body::failed_check(check))
        }
    }

    /// Texts of the verdict never hold the whole URL: the key is part of it.
    fn post(&self, what: &str, url: &str, content_type: &str, body: Vec<u8>) -> Verdict {
        let answer = http::Request::post(url)
            .header("content-type", content_type)
            .header("user-agent", &self.user_agent)
            .timeout(self.timeout)
            .body(body)
            .send();
        let what = format!("the {what} post to {}", self.endpoint.origin());
        match answer {
            Ok(response) => Verdict::of(&what, &response),
            Err(error) => Verdict::unanswered(&what, &self.endpoint.without_key(&error.to_string())),
        }
    }
}

fn one(item: u32) -> Vec<Range<u32>> {
    std::iter::once(item..item + 1).collect()
}

export_handler!(Metricly);

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::{Check, Element, Event, testing};
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    /// What arrived at a server: path, content type, length of the body.
    type Posts = Rc<RefCell<Vec<(String, String, usize)>>>;

    /// A server that gives these answers in turn, and 202 behind them; 0 is no answer.
    fn server(answers: &[u16]) -> Posts {
        let posts = Posts::default();
        let shared = posts.clone();
        let mut answers = VecDeque::from(answers.to_vec());
        testing::serve_http(move |request| {
            assert_eq!(request.sent_method(), "POST");
            assert_eq!(request.sent_header("User-Agent"), Some("kimberlite/0.1.0"));
            let path = request.sent_url().strip_prefix("http://H").unwrap().to_owned();
            let content_type = request.sent_header("content-type").unwrap().to_owned();
            shared.borrow_mut().push((path, content_type, request.sent_body().len()));
            match answers.pop_front().unwrap_or(202) {
                0 => Err(http::Error::Other(format!("no way to {}", request.sent_url()))),
                429 => Ok(http::Response::new(429).with_header("retry-after", "30")),
                status => Ok(http::Response::new(status)),
            }
        });
        posts
    }

    fn handle(batch: &Batch) -> Result<Receipt, HandleError> {
        let settings =
            Settings::new().with("url", "http://H/ingest/infrastructure").with("api_key", "SECRET/1");
        Metricly::new(&settings).unwrap().handle(batch)
    }

    /// Two samples, an event and two checks, of one element.
    fn batch() -> Batch {
        let check = |name, status| Check::new(name, status, Duration::from_secs(150));
        testing::batch()
            .of(&Element::new("web 1"))
            .gauge("a", 1)
            .gauge("b", 2)
            .event(Event::new("INFO", "deploy"))
            .check(check("heart/beat", Status::Ok))
            .check(check("disk", Status::Critical))
            .build()
    }

    fn one_sample() -> Batch {
        testing::batch().gauge("a", 1).build()
    }

    fn reason(answer: Result<Receipt, HandleError>) -> String {
        answer.unwrap_err().to_string()
    }

    #[test]
    fn samples_events_and_checks_go_where_they_belong() {
        let posts = server(&[]);
        assert_eq!(handle(&batch()), Ok(Receipt::delivered()));
        let posts = posts.take();
        let paths: Vec<_> =
            posts.iter().map(|(path, content_type, _)| (path.as_str(), content_type.as_str())).collect();
        assert_eq!(
            paths,
            [
                ("/ingest/infrastructure/SECRET%2F1", JSON),
                ("/ingest/events/infrastructure/SECRET%2F1", JSON),
                ("/check/SECRET%2F1/heart%2Fbeat/web%201/150", FORM),
                ("/ingest/events/infrastructure/SECRET%2F1", JSON),
            ]
        );
        assert_eq!(posts[2].2, 0);
    }

    #[test]
    fn nothing_is_posted_for_nothing() {
        let posts = server(&[]);
        assert_eq!(handle(&testing::batch().build()), Ok(Receipt::delivered()));
        assert_eq!(
            handle(&testing::batch().event(Event::new("INFO", "t")).build()),
            Ok(Receipt::delivered())
        );
        assert_eq!(posts.borrow().len(), 1);
    }

    #[test]
    fn retry_says_what_was_delivered() {
        for (answers, done) in
            [(vec![503], 0), (vec![202, 503], 2), (vec![202, 202, 0], 3), (vec![202, 202, 202, 404], 4)]
        {
            server(&answers);
            let Err(HandleError::Retry { done: ranges, after: None, .. }) = handle(&batch()) else {
                panic!("{answers:?}")
            };
            assert_eq!(ranges.iter().map(ExactSizeIterator::len).sum::<usize>(), done);
        }
    }

    #[test]
    fn wish_of_the_receiver_is_passed_on() {
        server(&[429]);
        let Err(HandleError::Retry { after, .. }) = handle(&one_sample()) else { panic!() };
        assert_eq!(after, Some(Duration::from_secs(30)));
    }

    #[test]
    fn refused_samples_are_halved_until_one_is_left() {
        for status in [400, 413, 422] {
            server(&[status]);
            assert!(matches!(handle(&batch()), Err(HandleError::TooLarge(_))), "{status}");
            server(&[status]);
            let Err(HandleError::Reject { which, .. }) = handle(&one_sample()) else { panic!("{status}") };
            assert_eq!((which.len(), which[0].clone()), (1, 0..1));
        }
    }

    #[test]
    fn refused_event_does_not_hold_up_what_follows() {
        let posts = server(&[202, 400]);
        let Err(HandleError::Reject { which, .. }) = handle(&batch()) else { panic!() };
        assert_eq!((which.len(), which[0].clone()), (1, 2..3));
        assert_eq!(posts.borrow().len(), 4);
    }

    #[test]
    fn wrong_key_and_unwanted_agent_halt() {
        for status in [401, 403, 410, 418] {
            let posts = server(&[status]);
            assert!(matches!(handle(&batch()), Err(HandleError::Halt(_))), "{status}");
            assert_eq!(posts.borrow().len(), 1);
        }
    }

    #[test]
    fn no_text_holds_the_key() {
        for status in [0, 400, 401, 410, 413, 429, 500] {
            server(&[status]);
            let reason = reason(handle(&batch()));
            assert!(!reason.contains("SECRET"), "{reason}");
        }
    }

    #[test]
    fn missing_key_is_named() {
        let error = Metricly::new(&Settings::new()).unwrap_err();
        assert_eq!(error.to_string(), "setting `api_key`: is required");
    }
}
