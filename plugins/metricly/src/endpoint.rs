//! Where posts go. All addresses follow from one URL and the key, as in Metricly's own client.

use kimberlite_plugin_sdk::{Error, Result};

/// The addresses of one data source.
pub(crate) struct Endpoint {
    metrics: String,
    events: String,
    /// Without name, element and time.
    checks: String,
    origin: String,
    key: String,
}

impl std::fmt::Debug for Endpoint {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Endpoint")
    }
}

impl Endpoint {
    /// `url` as the operator gave it, for instance `https://H/ingest/infrastructure`.
    pub(crate) fn new(url: &str, key: &str) -> Result<Self> {
        let wrong = |what: &str| Error::setting("url", what);
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| wrong("must begin with http:// or https://"))?;
        if !matches!(scheme, "http" | "https") {
            return Err(wrong("must begin with http:// or https://"));
        }
        if rest.contains(|c: char| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control()) {
            return Err(wrong("must be a plain address, without blanks, `?` and `#`"));
        }
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        if key.trim().is_empty() {
            return Err(Error::setting("api_key", "must not be empty"));
        }
        let key = encoded(key.trim());
        // Only the path is changed: a host may be called anything.
        let path = format!("{}/{key}", path.strip_suffix('/').unwrap_or(path));
        let origin = format!("{scheme}://{host}");
        Ok(Self {
            events: format!("{origin}{}", path.replacen("/ingest/", "/ingest/events/", 1)),
            checks: format!(
                "{origin}{}",
                path.replacen("/ingest/", "/check/", 1).replacen("/infrastructure", "", 1)
            ),
            metrics: format!("{origin}{path}"),
            origin,
            key,
        })
    }

    /// All that may be said in public: `https://H`.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn metrics(&self) -> &str {
        &self.metrics
    }

    pub(crate) fn events(&self) -> &str {
        &self.events
    }

    /// For the check `name` of `element`, which is missed `ttl` seconds later.
    pub(crate) fn check(&self, name: &str, element: &str, ttl: u32) -> String {
        format!("{}/{}/{}/{ttl}", self.checks, encoded(name), encoded(element))
    }

    /// `text` without the key, should anybody have put the URL into it.
    pub(crate) fn without_key(&self, text: &str) -> String {
        text.replace(&self.key, "[key]")
    }
}

/// `text` as one part of a path.
fn encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte.into());
        } else {
            out.push('%');
            out.push(DIGITS[usize::from(byte >> 4)].into());
            out.push(DIGITS[usize::from(byte & 15)].into());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(url: &str) -> [String; 3] {
        let endpoint = Endpoint::new(url, "K").unwrap();
        let check = endpoint.check("heartbeat", "host1", 150);
        [endpoint.metrics, endpoint.events, check].map(|address| address.replace("https://H", ""))
    }

    #[test]
    fn addresses_follow_from_one_url() {
        let infrastructure =
            ["/ingest/infrastructure/K", "/ingest/events/infrastructure/K", "/check/K/heartbeat/host1/150"];
        assert_eq!(addresses("https://H/ingest/infrastructure"), infrastructure);
        assert_eq!(addresses("https://H/ingest/infrastructure/"), infrastructure);
        let plain = ["/ingest/K", "/ingest/events/K", "/check/K/heartbeat/host1/150"];
        assert_eq!(addresses("https://H/ingest"), plain);
        assert_eq!(addresses("https://H"), ["/K", "/K", "/K/heartbeat/host1/150"]);
    }

    #[test]
    fn host_is_left_alone() {
        let endpoint = Endpoint::new("http://infrastructure:8080/ingest/infrastructure", "K").unwrap();
        assert_eq!(endpoint.check("c", "e", 1), "http://infrastructure:8080/check/K/c/e/1");
    }

    #[test]
    fn key_and_names_stay_one_part_of_the_path() {
        let endpoint = Endpoint::new("https://H/ingest", " a/b?c%ä\n").unwrap();
        assert_eq!(endpoint.metrics(), "https://H/ingest/a%2Fb%3Fc%25%C3%A4");
        let check = endpoint.check("disk /", "web 1", 60);
        assert!(check.ends_with("/disk%20%2F/web%201/60"), "{check}");
    }

    #[test]
    fn unusable_settings_are_named_and_not_repeated() {
        for url in
            ["", "api.example.com", "ftp://H/ingest", "https:///ingest", "https://H/?q", "https://H/a b"]
        {
            assert_eq!(Endpoint::new(url, "K").unwrap_err().setting_key(), Some("url"), "{url}");
        }
        assert_eq!(Endpoint::new("https://H", " ").unwrap_err().setting_key(), Some("api_key"));
    }

    #[test]
    fn key_is_taken_out_of_texts() {
        let endpoint = Endpoint::new("https://H/ingest", "SECRET").unwrap();
        assert_eq!(endpoint.without_key("no answer from /ingest/SECRET"), "no answer from /ingest/[key]");
        assert!(!format!("{endpoint:?}").contains("SECRET"));
    }
}
