//! One subscription: requests through the API's router, answers into frames.

use super::Caller;
use crate::accounts::Accounts;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{Request, Response};
use http_body_util::BodyExt;
use longshore_api::Status;
use longshore_api::ids::ClusterId;
use longshore_api::stream::{Changes, List, Logs, ServerFrame, Shape, Watch};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tower::ServiceExt;

/// Items in one page of a list: a few hundred kB.
const PAGE: usize = 500;
/// The pauses between tries of a watch that can't be served for now.
const PAUSES: [u64; 5] = [1, 2, 4, 8, 15];
/// The largest event: an object is at most a few MB.
const LARGEST_LINE: usize = 16 << 20;

/// What a connection asks through.
#[derive(Clone)]
pub struct Source {
    pub(super) accounts: Arc<Accounts>,
    pub(super) api: Router,
    pub(super) caller: Caller,
}

/// How following a list ended.
enum Followed {
    /// It can go on from there.
    Ended(String),
    Compacted,
    Failed(String, Status),
}

/// Nobody listens any more.
fn gone() -> Status {
    Status::unavailable("the connection is gone")
}

type Parameters = BTreeMap<String, String>;

impl Source {
    async fn get(
        &self,
        cluster: &ClusterId,
        path: &str,
        query: &Parameters,
        accept: &str,
    ) -> Result<Response<Body>, Status> {
        if !(path.starts_with("/api/") || path.starts_with("/apis/"))
            || path.contains(['?', '#'])
            || path.contains("..")
        {
            return Err(Status::bad_request("path must be one of the Kubernetes API's, below the cluster"));
        }
        let query: Vec<String> = query.iter().map(|(k, v)| format!("{}={}", escaped(k), escaped(v))).collect();
        let uri = format!("/clusters/{}{path}?{}", escaped(cluster.as_str()), query.join("&"));
        let mut request = Request::get(uri)
            .header(ACCEPT, accept)
            .body(Body::empty())
            .map_err(|_| Status::bad_request("path or query can't be part of an address"))?;
        match &self.caller {
            // Asked anew for each request: signing out or losing a role ends what comes after.
            Caller::Ticket(holder) => {
                let identity = self.accounts.ticket_identity(cluster, holder).await?;
                request.extensions_mut().insert(identity);
            }
            Caller::Bearer(token) => {
                request.headers_mut().insert(AUTHORIZATION, token.clone());
            }
        }
        let Ok(response) = self.api.clone().oneshot(request).await;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| Status::failure(code, "", format!("HTTP {code}"))))
    }

    /// Lists, follows, and goes on as long as somebody listens; an error is one that trying again won't mend.
    pub async fn watch(&self, watch: Watch, frames: &Sender<ServerFrame>) -> Result<(), Status> {
        let mut from = watch.resume.clone();
        let mut tries = 0;
        loop {
            let step = match from.take() {
                Some(revision) => Ok(revision),
                None => self.list(&watch, frames).await,
            };
            let (followed, started) = match step {
                Ok(revision) => (self.follow(&watch, revision, frames).await, true),
                Err(status) if status.code == 410 => (Followed::Compacted, false),
                Err(status) => (Followed::Failed(String::new(), status), false),
            };
            if frames.is_closed() {
                return Ok(());
            }
            match followed {
                Followed::Ended(revision) => {
                    from = Some(revision);
                    tries = 0;
                }
                Followed::Compacted => tries += 1,
                Followed::Failed(_, status) if is_final(&status) => return Err(status),
                Followed::Failed(revision, status) => {
                    from = started.then_some(revision);
                    tries += 1;
                    frames.send(ServerFrame::Waiting { id: watch.id, status }).await.map_err(|_| gone())?;
                }
            }
            // Also after a clean end: a server that ends watches at once must not be asked without a pause.
            let pause = PAUSES[tries.min(PAUSES.len() - 1)];
            tokio::time::sleep(Duration::from_millis(if tries == 0 { 100 } else { pause * 1000 })).await;
        }
    }

    /// Sends the list page by page; answers with its revision.
    async fn list(&self, watch: &Watch, frames: &Sender<ServerFrame>) -> Result<String, Status> {
        #[derive(Deserialize)]
        struct Head {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            #[serde(default)]
            resource_version: String,
            #[serde(default)]
            r#continue: String,
        }
        let mut query = cleaned(&watch.query);
        query.insert("limit".into(), PAGE.to_string());
        let mut first = true;
        loop {
            let response = self.get(&watch.cluster, &watch.path, &query, Shape::accept(watch.shape)).await?;
            let body =
                response.into_body().collect().await.map_err(|_| Status::unavailable("the list broke off"))?.to_bytes();
            let unreadable = |_| Status::unavailable("the list could not be read");
            let Head { metadata } = serde_json::from_slice(&body).map_err(unreadable)?;
            let object: Box<RawValue> = serde_json::from_slice(&body).map_err(unreadable)?;
            let last = metadata.r#continue.is_empty();
            let list = List { id: watch.id, first, last, revision: metadata.resource_version.clone(), object };
            frames.send(ServerFrame::List(list)).await.map_err(|_| gone())?;
            if last {
                return Ok(metadata.resource_version);
            }
            query.insert("continue".into(), metadata.r#continue);
            first = false;
        }
    }

    async fn follow(&self, watch: &Watch, from: String, frames: &Sender<ServerFrame>) -> Followed {
        let mut query = cleaned(&watch.query);
        query.insert("watch".into(), "true".into());
        query.insert("allowWatchBookmarks".into(), "true".into());
        query.insert("resourceVersion".into(), from.clone());
        let response = match self.get(&watch.cluster, &watch.path, &query, Shape::accept(watch.shape)).await {
            Ok(response) => response,
            Err(status) if status.code == 410 => return Followed::Compacted,
            Err(status) => return Followed::Failed(from, status),
        };
        let mut revision = from;
        let mut lines = Lines::default();
        let mut body = response.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            let before = revision.clone();
            let mut events = Vec::new();
            for line in lines.push(&data) {
                match event(&line) {
                    Some(Event::Change(at, raw)) => {
                        revision = at.unwrap_or(revision);
                        events.push(raw);
                    }
                    Some(Event::Bookmark(at)) => revision = at.unwrap_or(revision),
                    Some(Event::Error(status)) if status.code == 410 => return Followed::Compacted,
                    Some(Event::Error(status)) => return Followed::Failed(revision, status),
                    None => {}
                }
            }
            if lines.rest.len() > LARGEST_LINE {
                return Followed::Failed(revision, Status::unavailable("an event is too large"));
            }
            if !events.is_empty() || revision != before {
                let changes = Changes { id: watch.id, revision: revision.clone(), events };
                if frames.send(ServerFrame::Changes(changes)).await.is_err() {
                    break;
                }
            }
        }
        Followed::Ended(revision)
    }

    /// Output as it comes, to its end.
    pub async fn logs(&self, logs: Logs, frames: &Sender<ServerFrame>) -> Result<(), Status> {
        if !logs.path.ends_with("/log") && !logs.path.ends_with("/proxy/links") {
            return Err(Status::bad_request("path must be a pod's log, or a node's links"));
        }
        let mut body = self.get(&logs.cluster, &logs.path, &logs.query, "*/*").await?.into_body();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            let text = take_text(&mut rest);
            if !text.is_empty() {
                frames.send(ServerFrame::Log { id: logs.id, text }).await.map_err(|_| gone())?;
            }
        }
        Ok(())
    }
}

/// Paging and watching are ours.
fn cleaned(query: &Parameters) -> Parameters {
    const OURS: [&str; 7] = [
        "watch",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "sendInitialEvents",
        "allowWatchBookmarks",
    ];
    query.iter().filter(|(k, _)| !OURS.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What won't be otherwise a second later.
fn is_final(status: &Status) -> bool {
    (400..500).contains(&status.code) && !matches!(status.code, 408 | 410 | 429)
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that these bytes complete.
    fn push(&mut self, data: &Bytes) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(data);
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        whole.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect()
    }
}

enum Event {
    Change(Option<String>, Box<RawValue>),
    Bookmark(Option<String>),
    Error(Status),
}

/// Reads what a watch event is and at which revision, and leaves the rest as it came.
fn event(line: &[u8]) -> Option<Event> {
    #[derive(Deserialize)]
    struct Head<'a> {
        r#type: String,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Object {
        metadata: Metadata,
        rows: Vec<Row>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default, rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    #[derive(Deserialize)]
    struct Row {
        #[serde(default)]
        object: Inner,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Inner {
        metadata: Metadata,
    }
    let head: Head<'_> = serde_json::from_slice(line).ok()?;
    if head.r#type == "ERROR" {
        let status = serde_json::from_str(head.object.get());
        return Some(Event::Error(status.unwrap_or_else(|_| Status::unavailable("the watch broke off"))));
    }
    let object: Object = serde_json::from_str(head.object.get()).unwrap_or_default();
    let inner = object.rows.into_iter().map(|r| r.object.metadata.resource_version);
    let revision = inner.chain([object.metadata.resource_version]).find(|r| !r.is_empty());
    if head.r#type == "BOOKMARK" {
        return Some(Event::Bookmark(revision));
    }
    Some(Event::Change(revision, serde_json::from_slice(line).ok()?))
}

/// Takes all whole characters from the front; bytes that are no UTF-8 become replacement characters.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let end = match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        // A character that is cut off waits for its rest.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => bytes.len(),
    };
    let rest = bytes.split_off(end);
    let text = String::from_utf8_lossy(bytes).into_owned();
    *bytes = rest;
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_their_revision_whatever_their_shape() {
        let change = |line: &str| match event(line.as_bytes()) {
            Some(Event::Change(revision, _)) => revision,
            _ => panic!("{line}"),
        };
        assert_eq!(change(r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"}}}"#).as_deref(), Some("7"));
        let table = r#"{"type":"ADDED","object":{"kind":"Table","metadata":{},"rows":[{"cells":[],"object":{"metadata":{"resourceVersion":"8"}}}]}}"#;
        assert_eq!(change(table).as_deref(), Some("8"));
        let mark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
        assert!(matches!(event(mark.as_bytes()), Some(Event::Bookmark(Some(r))) if r == "9"));
        assert!(event(b"{").is_none());
    }

    #[test]
    fn lines_and_characters_are_cut_nowhere() {
        let mut lines = Lines::default();
        assert!(lines.push(&Bytes::from_static(b"{\"a\"")).is_empty());
        assert_eq!(lines.push(&Bytes::from_static(b":1}\n{}\n{")), [b"{\"a\":1}".to_vec(), b"{}".to_vec()]);
        let mut bytes = "é€".as_bytes()[..4].to_vec();
        assert_eq!(take_text(&mut bytes), "é");
        assert_eq!(bytes.len(), 2);
        bytes.push(0xac);
        assert_eq!(take_text(&mut bytes), "€");
    }

    #[test]
    fn paging_is_not_the_clients() {
        let query = BTreeMap::from([("watch".to_string(), "1".to_string()), ("labelSelector".into(), "a=b c".into())]);
        assert_eq!(cleaned(&query).keys().collect::<Vec<_>>(), ["labelSelector"]);
        assert_eq!(escaped("a=b c/é"), "a%3Db%20c%2F%C3%A9");
    }
}
