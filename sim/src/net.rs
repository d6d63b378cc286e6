//! The server's hosts and the way of requests to them: delayed, lost, answered in vain, sent twice.

use crate::dice::Dice;
use crate::fate::Way;
use crate::process::{Process, Setup};
use crate::witness::Witness;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use longshore_api::ids::{ClusterId, UserId};
use longshore_server::accounts::{Identity, Role};
use longshore_server::store::simulated::SimulatedDatabase;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The machines that run servers, and the database.
pub struct Net {
    pub database: SimulatedDatabase,
    witness: Witness,
    setup: Setup,
    seed: u64,
    hosts: Vec<Host>,
    /// Whether requests get lost.
    pub trouble: AtomicBool,
}

struct Host {
    name: &'static str,
    state: Mutex<HostState>,
}

struct HostState {
    process: Option<Arc<Process>>,
    starts: u32,
    way: Way,
}

impl Net {
    pub fn new(hosts: &[&'static str], setup: Setup, witness: &Witness, seed: u64) -> Self {
        let host = |name: &&'static str| Host {
            name,
            state: Mutex::new(HostState { process: None, starts: 0, way: Way::Good }),
        };
        Self {
            database: SimulatedDatabase::new(Arc::new(witness.clone())),
            witness: witness.clone(),
            setup,
            seed,
            hosts: hosts.iter().map(host).collect(),
            trouble: AtomicBool::new(false),
        }
    }

    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The process on a host, where it runs. Any number is some host's.
    pub fn process(&self, at: usize) -> Option<Arc<Process>> {
        self.hosts[at % self.hosts.len()].state.lock().process.clone().filter(|p| p.is_alive())
    }

    /// Starts the server on a host, unless it runs; tries until the database lets it.
    pub async fn start(&self, at: usize) -> Arc<Process> {
        loop {
            if let Some(process) = self.process(at) {
                return process;
            }
            let host = &self.hosts[at % self.hosts.len()];
            let (name, way) = {
                let mut state = host.state.lock();
                state.starts += 1;
                (format!("{}{}", host.name, state.starts), state.way)
            };
            let dice = Dice::new(self.seed, &format!("database's way of {name}"));
            self.witness.tell(format!("server {name} starts"));
            match Process::start(&name, self.setup, &self.database, &self.witness, dice, way).await {
                Ok(process) => {
                    let mut state = host.state.lock();
                    process.line().become_so(state.way);
                    if state.process.as_ref().is_some_and(|p| p.is_alive()) {
                        process.kill();
                    } else {
                        state.process = Some(process);
                    }
                }
                Err(error) => {
                    self.witness.tell(format!("server {name} can't start: {error}"));
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// How the host reaches the database from now on.
    pub fn set_way(&self, at: usize, way: Way) {
        let mut state = self.hosts[at % self.hosts.len()].state.lock();
        state.way = way;
        if let Some(process) = &state.process {
            process.line().become_so(way);
        }
    }
}

/// How a request ended for who sent it.
#[derive(Clone, Debug)]
pub enum Answer {
    Is(u16, Value),
    /// Nobody knows whether it was carried out.
    Lost,
}

impl Answer {
    pub fn code(&self) -> u16 {
        match self {
            Self::Is(code, _) => *code,
            Self::Lost => 0,
        }
    }

    /// The answer's tree where it is good.
    pub fn good(self) -> Option<Value> {
        match self {
            Self::Is(200..300, tree) => Some(tree),
            _ => None,
        }
    }
}

/// A user's client.
pub struct Client {
    net: Arc<Net>,
    cluster: ClusterId,
    pub dice: Dice,
    at: usize,
}

impl Client {
    pub fn new(net: &Arc<Net>, cluster: &ClusterId, dice: Dice) -> Self {
        Self { net: net.clone(), cluster: cluster.clone(), dice, at: 0 }
    }

    /// One request, on its way to where the last one was answered.
    pub async fn send(&mut self, method: Method, path: &str, kind: &str, body: Option<&Value>) -> Answer {
        let trouble = self.net.trouble.load(Ordering::Relaxed);
        let (there, back) = match trouble && self.dice.percent(5) {
            true => (self.dice.millis(10, 5000), self.dice.millis(10, 5000)),
            false => (self.dice.millis(0, 20), self.dice.millis(0, 20)),
        };
        let what = self.dice.between(0, 99);
        tokio::time::sleep(there).await;
        if trouble && what < 3 {
            return Answer::Lost;
        }
        let mut answer = self.arrive(&method, path, kind, body).await;
        if trouble && (3..6).contains(&what) {
            // Sent once more by something in between that saw no answer.
            answer = self.arrive(&method, path, kind, body).await;
        }
        tokio::time::sleep(back).await;
        if matches!(answer.code(), 0 | 503) {
            self.at += 1;
        }
        if trouble && (6..9).contains(&what) { Answer::Lost } else { answer }
    }

    async fn arrive(&self, method: &Method, path: &str, kind: &str, body: Option<&Value>) -> Answer {
        let Some(process) = self.net.process(self.at) else { return Answer::Lost };
        let bytes = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
        let request = request(&self.cluster, method, path, kind, bytes);
        let answered = async {
            let response = process.ask(request).await?;
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await.ok()?.to_bytes();
            Some(Answer::Is(code, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
        };
        let answered = tokio::time::timeout(Duration::from_secs(30), answered).await;
        answered.ok().flatten().unwrap_or(Answer::Lost)
    }

    /// A stream of what a watch says; none where it is refused or nobody is there.
    pub async fn watch(&mut self, path: &str) -> Option<Response<Body>> {
        tokio::time::sleep(self.dice.millis(0, 20)).await;
        let process = self.net.process(self.at);
        let request = request(&self.cluster, &Method::GET, path, "", Bytes::new());
        let response = match process {
            Some(process) => process.ask(request).await.filter(|r| r.status().is_success()),
            None => None,
        };
        if response.is_none() {
            self.at += 1;
        }
        response
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "", None).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", Some(body)).await
    }

    pub async fn put(&mut self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, "application/json", Some(body)).await
    }

    pub async fn patch(&mut self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/merge-patch+json", Some(body)).await
    }

    pub async fn delete(&mut self, path: &str, options: &Value) -> Answer {
        self.send(Method::DELETE, path, "application/json", Some(options)).await
    }
}

fn request(cluster: &ClusterId, method: &Method, path: &str, kind: &str, body: Bytes) -> Request {
    let identity = Identity::person(UserId::new("u-1"), "user@example.com", Role::Owner);
    let uri = format!("/clusters/{cluster}{path}");
    let request = Request::builder().method(method).uri(uri).header("accept", "application/json");
    let request = request.header("content-type", kind).extension(identity);
    request.body(Body::from(body)).expect("paths here are URIs")
}
