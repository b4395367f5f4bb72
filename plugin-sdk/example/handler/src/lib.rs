//! Posts samples as a JSON array.

use kimberlite_plugin_sdk::{
    Batch, HandleError, Handler, Receipt, Result, Settings, Value, export_handler, http,
};
use serde_json::json;

struct PostJson {
    url: String,
}

impl Handler for PostJson {
    fn new(settings: &Settings) -> Result<Self> {
        Ok(Self { url: settings.require("url")? })
    }

    fn handle(&mut self, batch: &Batch) -> Result<Receipt, HandleError> {
        let request = http::Request::post(&self.url).header("content-type", "application/json");
        let response = request.body(to_json(batch)).send()?; // a network error becomes a retry
        match response.status() {
            200..300 => Ok(Receipt::delivered()),
            401 | 403 => Err(HandleError::halt("the receiver refuses us")),
            413 => Err(HandleError::too_large("the receiver wants smaller batches")),
            status => Err(HandleError::retry(format!("the receiver answered {status}"))),
        }
    }
}

export_handler!(PostJson);

fn to_json(batch: &Batch) -> String {
    let samples = batch.samples().map(|sample| {
        let value = match sample.value() {
            Value::Number(number) => json!(number),
            Value::Summary(summary) => json!(summary.avg),
        };
        json!({
            "element": sample.element().id(),
            "metric": sample.name(),
            "timestamp": sample.timestamp(),
            "value": value,
        })
    });
    serde_json::Value::from_iter(samples).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_plugin_sdk::testing;

    fn post(status: u16) -> Result<Receipt, HandleError> {
        testing::serve_http(move |request| {
            assert_eq!(request.sent_url(), "http://receiver/");
            let body = r#"[{"element":"test","metric":"load","timestamp":1000,"value":0.5}]"#;
            assert_eq!(request.sent_body(), body.as_bytes());
            Ok(http::Response::new(status))
        });
        let mut handler = PostJson::new(&Settings::new().with("url", "http://receiver/")).unwrap();
        handler.handle(&testing::batch().at(1000).gauge("load", 0.5).build())
    }

    #[test]
    fn accepted_post_is_delivered() {
        assert_eq!(post(202), Ok(Receipt::delivered()));
    }

    #[test]
    fn overloaded_receiver_gets_it_later() {
        assert!(matches!(post(503), Err(HandleError::Retry { .. })));
    }

    #[test]
    fn wrong_key_waits_for_a_person() {
        assert!(matches!(post(403), Err(HandleError::Halt(_))));
    }
}
