//! A cluster's API in memory, as far as a node speaks to it: lists, watches, status patches, deletions, tokens, events.

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;

type Body = UnsyncBoxBody<Bytes, Infallible>;
/// Plural, namespace, name.
type Key = (String, String, String);

#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    revision: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    /// Everything that happened, the revision being the place in it.
    log: Vec<(Key, &'static str, Value)>,
    /// While true, nobody is answered.
    away: bool,
    tokens: u64,
}

impl Api {
    pub fn new() -> Self {
        let api = Self { state: Arc::default(), revision: Arc::new(watch::channel(0).0) };
        api.put(
            "services",
            json!({"metadata": {"namespace": "default", "name": "kubernetes"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}),
        );
        api
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(
            tower::service_fn(move |request| {
                let api = api.clone();
                async move { api.answer(request).await }
            }),
            "default",
        )
    }

    /// Makes or replaces an object.
    pub fn put(&self, plural: &str, object: Value) {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let key = (plural.to_owned(), text("namespace"), text("name"));
        let mut state = self.state.lock();
        let kind = if state.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.note(&mut state, key, kind, object);
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&(plural.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn change(&self, plural: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = state.objects.get(&key).cloned().unwrap_or_else(|| panic!("there is no {key:?}"));
        change(&mut object);
        self.note(&mut state, key, "MODIFIED", object);
    }

    /// As `kubectl delete pod` asks for it: the node ends the pod and confirms.
    pub fn delete_pod(&self, name: &str, grace: u64) {
        self.change("pods", "default", name, |pod| {
            pod["metadata"]["deletionTimestamp"] =
                json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    pub fn set_away(&self, away: bool) {
        self.state.lock().away = away;
        // Open watches look again, and end.
        self.revision.send_modify(|_| {});
    }

    pub fn events(&self, pod: &str) -> Vec<(String, String)> {
        let state = self.state.lock();
        let events = state.objects.iter().filter(|((plural, ..), _)| plural == "events").map(|(_, event)| event);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events
            .filter(|e| e["involvedObject"]["name"] == pod)
            .map(|e| (text(&e["reason"]), text(&e["message"])))
            .collect()
    }

    fn note(&self, state: &mut State, key: Key, kind: &'static str, mut object: Value) {
        let revision = state.log.len() as u64 + 1;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        match kind {
            "DELETED" => drop(state.objects.remove(&key)),
            _ => drop(state.objects.insert(key.clone(), object.clone())),
        }
        state.log.push((key, kind, object));
        self.revision.send_replace(revision);
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Result<Response<Body>, std::io::Error> {
        if self.state.lock().away {
            return Err(std::io::Error::other("the tunnel is down"));
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let mut path: Vec<&str> = parts.uri.path().trim_start_matches("/api/v1/").split('/').collect();
        let mut namespace = None;
        if path[0] == "namespaces" && path.len() > 2 {
            namespace = Some(path[1].to_owned());
            path.drain(..2);
        }
        let of = |name: &str| (path[0].to_owned(), namespace.clone().unwrap_or_default(), name.to_owned());
        Ok(match (&parts.method, &path[1..]) {
            (&Method::GET, []) => {
                let wanted =
                    Selection { plural: path[0].into(), namespace, fields: query.get("fieldSelector").cloned() };
                match query.get("watch").map(String::as_str) {
                    Some("true" | "1") => self.watch(wanted, query["resourceVersion"].parse().unwrap_or(0)),
                    _ => self.list(&wanted),
                }
            }
            (&Method::GET, [name]) => match self.state.lock().objects.get(&of(name)) {
                Some(object) => json_answer(StatusCode::OK, object),
                None => not_found(name),
            },
            (&Method::POST, [account, "token"]) => {
                let mut state = self.state.lock();
                state.tokens += 1;
                let token = format!("token-{}-of-{account}", state.tokens);
                let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
                let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
                let status = json!({"token": token, "expirationTimestamp": expires});
                let answer = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
                    "spec": body["spec"], "status": status});
                json_answer(StatusCode::CREATED, &answer)
            }
            (&Method::POST, []) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                self.note(&mut self.state.lock(), of(&name), "ADDED", body.clone());
                json_answer(StatusCode::CREATED, &body)
            }
            (&Method::PATCH, [name, ..]) => {
                let mut state = self.state.lock();
                let Some(mut object) = state.objects.get(&of(name)).cloned() else { return Ok(not_found(name)) };
                let uid = &body["metadata"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return Ok(failure(StatusCode::CONFLICT, "Conflict", "the uid differs"));
                }
                merge(&mut object, &body);
                self.note(&mut state, of(name), "MODIFIED", object.clone());
                json_answer(StatusCode::OK, &object)
            }
            (&Method::DELETE, [name]) => {
                let mut state = self.state.lock();
                let Some(object) = state.objects.get(&of(name)).cloned() else { return Ok(not_found(name)) };
                assert_eq!(body["gracePeriodSeconds"], 0, "a node only confirms: {body}");
                self.note(&mut state, of(name), "DELETED", object.clone());
                json_answer(StatusCode::OK, &object)
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", parts.uri.path()),
        })
    }

    fn list(&self, wanted: &Selection) -> Response<Body> {
        let state = self.state.lock();
        let items: Vec<&Value> = state.objects.iter().filter(|(k, v)| wanted.has(k, v)).map(|(_, v)| v).collect();
        let revision = state.log.len().to_string();
        json_answer(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items}),
        )
    }

    fn watch(&self, wanted: Selection, from: u64) -> Response<Body> {
        let (api, revisions) = (self.clone(), self.revision.subscribe());
        let lines = futures::stream::unfold((from as usize, revisions), move |(at, mut revisions)| {
            let (api, wanted) = (api.clone(), wanted.clone());
            async move {
                loop {
                    {
                        let state = api.state.lock();
                        if state.away {
                            return None;
                        }
                        let news: String = state.log[at.min(state.log.len())..]
                            .iter()
                            .filter(|(key, _, object)| wanted.has(key, object))
                            .map(|(_, kind, object)| format!("{}\n", json!({"type": kind, "object": object})))
                            .collect();
                        if !news.is_empty() {
                            return Some((Ok(Frame::data(Bytes::from(news))), (state.log.len(), revisions)));
                        }
                    }
                    revisions.changed().await.ok()?;
                }
            }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(lines.boxed())))
    }
}

#[derive(Clone)]
struct Selection {
    plural: String,
    namespace: Option<String>,
    /// `path=value`
    fields: Option<String>,
}

impl Selection {
    fn has(&self, (plural, namespace, _): &Key, object: &Value) -> bool {
        let fits = |selector: &String| {
            let (path, value) = selector.split_once('=').expect("one requirement");
            object.pointer(&format!("/{}", path.replace('.', "/"))).is_some_and(|v| v == value)
        };
        *plural == self.plural
            && self.namespace.as_ref().is_none_or(|n| n == namespace)
            && self.fields.as_ref().is_none_or(fits)
    }
}

/// Strategic merging as far as pods' statuses need it: conditions by type, other lists as a whole.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().and_then(|t| t.remove(key))),
            Value::Array(items) if key == "conditions" => {
                let mut all = target[key].as_array().cloned().unwrap_or_default();
                for item in items {
                    match all.iter_mut().find(|c| c["type"] == item["type"]) {
                        Some(old) => merge(old, item),
                        None => all.push(item.clone()),
                    }
                }
                target[key] = json!(all);
            }
            Value::Array(items) => {
                target[key] = items.iter().filter(|i| i["$patch"].is_null()).cloned().collect();
            }
            Value::Object(_) => merge(&mut target[key], value),
            plain => target[key] = plain.clone(),
        }
    }
}

fn json_answer(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *response.status_mut() = code;
    response
}

fn not_found(name: &str) -> Response<Body> {
    failure(StatusCode::NOT_FOUND, "NotFound", &format!("{name:?} not found"))
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    json_answer(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code.as_u16()}),
    )
}
