//! Requests: `fetch` with the session's CSRF token, answers as text or a `Status`.

use longshore_api::Status;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Headers, RequestCredentials, RequestInit, Response};

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";

thread_local! {
    /// What the session told us to send along; empty before signing in.
    static CSRF: RefCell<String> = const { RefCell::new(String::new()) };
}

pub fn set_csrf(token: &str) {
    CSRF.with(|csrf| *csrf.borrow_mut() = token.to_string());
}

/// What went wrong, in the shape every part of the API answers in, and the id to quote.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub status: Status,
    pub request_id: Option<String>,
}

impl Failure {
    /// No answer came: the network, or the server is away.
    fn unreachable() -> Self {
        let message = crate::words::t(crate::words::Word::ServerUnreachable);
        Self { status: Status::failure(0, "Unreachable", message), request_id: None }
    }
    pub fn code(&self) -> u16 {
        self.status.code
    }
    /// Kubernetes's message, which names the object and what was wrong with it.
    pub fn message(&self) -> String {
        if self.status.message.is_empty() { self.status.reason.clone() } else { self.status.message.clone() }
    }
}

/// A good answer.
pub struct Answer {
    pub text: String,
    /// What the server warned of (`Warning` headers).
    pub warnings: Vec<String>,
}

/// A request's body and what it is.
pub type Body<'a> = Option<(&'a str, String)>;

pub async fn send(method: &str, path: &str, accept: &str, body: Body<'_>) -> Result<Answer, Failure> {
    let response = fetch(method, path, accept, body).await.map_err(|_| Failure::unreachable())?;
    let code = response.status();
    let header = |name: &str| response.headers().get(name).ok().flatten();
    let request_id = header("x-request-id").or_else(|| header("audit-id"));
    let warnings = header("warning").map(|w| warnings(&w)).unwrap_or_default();
    let text = match response.text() {
        Ok(promise) => JsFuture::from(promise).await.ok().and_then(|t| t.as_string()).unwrap_or_default(),
        Err(_) => String::new(),
    };
    if response.ok() {
        return Ok(Answer { text, warnings });
    }
    let mut status = serde_json::from_str(&text)
        .unwrap_or_else(|_| Status::failure(code, "", if text.len() < 300 { text } else { String::new() }));
    status.code = code;
    if status.message.is_empty() && status.reason.is_empty() {
        status.message = format!("HTTP {code}");
    }
    if code == 401 && !path.starts_with("/v1/session") {
        super::session::expired();
    }
    Err(Failure { status, request_id })
}

async fn fetch(method: &str, path: &str, accept: &str, body: Body<'_>) -> Result<Response, JsValue> {
    let headers = Headers::new()?;
    headers.set("accept", accept)?;
    CSRF.with(|csrf| match csrf.borrow().as_str() {
        "" => Ok(()),
        token => headers.set("x-longshore-csrf", token),
    })?;
    let init = RequestInit::new();
    init.set_method(method);
    init.set_credentials(RequestCredentials::SameOrigin);
    if let Some((content_type, body)) = body {
        headers.set("content-type", content_type)?;
        init.set_body(&JsValue::from_str(&body));
    }
    init.set_headers(&headers);
    let window = web_sys::window().ok_or(JsValue::NULL)?;
    JsFuture::from(window.fetch_with_str_and_init(path, &init)).await?.dyn_into()
}

/// `299 - "text", 299 - "text"` → the texts.
fn warnings(header: &str) -> Vec<String> {
    header.split('"').skip(1).step_by(2).map(str::to_string).collect()
}

/// A JSON answer, read. One that isn't what was expected is an error like others.
pub fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, Failure> {
    serde_json::from_str(&answer.text).map_err(|error| Failure {
        status: Status::failure(0, "Unreadable", format!("the server's answer could not be read: {error}")),
        request_id: None,
    })
}

pub async fn get<T: DeserializeOwned>(path: &str) -> Result<T, Failure> {
    read(send("GET", path, JSON, None).await?)
}

pub async fn post<T: DeserializeOwned>(path: &str, body: &impl serde::Serialize) -> Result<T, Failure> {
    let body = serde_json::to_string(body).unwrap_or_default();
    read(send("POST", path, JSON, Some((JSON, body))).await?)
}

pub async fn patch(path: &str, kind: &'static str, body: &serde_json::Value) -> Result<Answer, Failure> {
    send("PATCH", path, JSON, Some((kind, body.to_string()))).await
}

pub async fn delete(path: &str) -> Result<Answer, Failure> {
    send("DELETE", path, JSON, None).await
}
