//! The operator's program that makes DNS records, for proofs by DNS-01: `POST URL/present` and `POST URL/cleanup`, each with
//! `{"fqdn": "_acme-challenge.example.com.", "value": "…"}`. It is what lego calls `httpreq`, so programs for many providers
//! are there. It answers 2xx once the record can be asked for.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use std::fmt;
use std::time::Duration;

/// Until a record can be seen by the world.
const PATIENCE: Duration = Duration::from_secs(180);
/// What is read of an answer that tells what went wrong.
const LONGEST: usize = 4096;

pub struct Webhook {
    url: String,
    authorization: Option<HeaderValue>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// No record was made, or none taken away.
#[derive(Debug, thiserror::Error)]
#[error("the DNS webhook: {0}")]
pub struct WebhookError(String);

impl Webhook {
    /// `authorization`: the header's whole value, such as `Bearer …`, a secret. None where the URL is none.
    pub fn new(url: &str, authorization: Option<&str>) -> Option<Self> {
        let known = url.parse::<Uri>().ok()?.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
        let authorization = match authorization {
            Some(text) => {
                let mut value = HeaderValue::from_str(text).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let tls =
            HttpsConnectorBuilder::new().with_provider_and_platform_verifier(rustls::crypto::ring::default_provider());
        let connector = tls.ok()?.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        known.then(|| Self { url: url.trim_end_matches('/').into(), authorization, client })
    }

    /// Makes a TXT record; ends when the world can see it.
    pub async fn present(&self, record: &Record) -> Result<(), WebhookError> {
        self.ask("present", record).await
    }

    pub async fn clean_up(&self, record: &Record) -> Result<(), WebhookError> {
        self.ask("cleanup", record).await
    }

    async fn ask(&self, what: &str, record: &Record) -> Result<(), WebhookError> {
        let broken = |error: &dyn fmt::Display| WebhookError(error.to_string());
        let body = json!({"fqdn": format!("{}.", record.name), "value": record.value}).to_string();
        let request = Request::post(format!("{}/{what}", self.url)).header(CONTENT_TYPE, "application/json");
        let mut request = request.body(Full::from(body)).map_err(|error| broken(&error))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let asked = async {
            let answer = self.client.request(request).await.map_err(|error| broken(&error))?;
            let status = answer.status();
            if status.is_success() {
                return Ok(());
            }
            let told = Limited::new(answer.into_body(), LONGEST).collect().await;
            let told =
                told.map(|told| String::from_utf8_lossy(&told.to_bytes()).trim().to_string()).unwrap_or_default();
            Err(WebhookError(format!("{what} of {} is answered with {status}: {told}", record.name)))
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(done) => done,
            Err(_) => Err(WebhookError(format!("{what} of {} is not answered", record.name))),
        }
    }
}

/// A TXT record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Without the dot at its end.
    pub name: String,
    pub value: String,
}

impl Record {
    /// RFC 8555, 8.4: what proves a host, and a wildcard of its domain.
    pub fn of(host: &str, value: String) -> Self {
        Self { name: format!("_acme-challenge.{}", host.strip_prefix("*.").unwrap_or(host)), value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_proven_at_its_domain() {
        for host in ["example.com", "*.example.com"] {
            assert_eq!(Record::of(host, String::new()).name, "_acme-challenge.example.com");
        }
    }

    #[test]
    fn only_addresses_of_the_web_are_taken() {
        let good = |url| Webhook::new(url, Some("Bearer x")).is_some();
        assert!(good("https://dns.example.com/acme/") && good("http://127.0.0.1:8080"));
        assert!(!good("ftp://example.com") && !good("example.com") && !good(""));
        assert!(Webhook::new("https://example.com", Some("a\nb")).is_none());
    }
}
