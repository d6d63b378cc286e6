//! Clients that create, change, read and delete a few objects all the time and record what they were answered.

use super::MAPS;
use super::linearizable::{Operation, Sent, check_all};
use crate::app::{Answer, TestApp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Default)]
pub struct Seen {
    time: AtomicU64,
    numbers: AtomicU64,
    operations: Mutex<HashMap<String, Vec<Operation>>>,
    /// What each revision was seen to be: name and value.
    revisions: Mutex<BTreeMap<u64, (String, u64)>>,
}

pub struct Clients {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    seen: Arc<Seen>,
}

/// An error as Kubernetes answers it.
#[track_caller]
pub fn is_error(status: u16, body: &Value) {
    assert!(matches!(status, 429 | 500 | 503 | 504 | 507), "{status}: {body}");
    assert_eq!((&body["kind"], &body["code"]), (&json!("Status"), &json!(status)), "{body}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
}

fn tree(name: &str, number: u64, revision: Option<&str>) -> Value {
    // Said twice, far apart: a torn object would show.
    let mut tree = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "annotations": {"number": number.to_string()}},
        "data": {"number": number.to_string(), "filler": "x".repeat(usize::try_from(number % 7).unwrap_or(0) * 200)},
    });
    if let Some(revision) = revision {
        tree["metadata"]["resourceVersion"] = revision.into();
    }
    tree
}

impl Seen {
    fn tick(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// Its number, after a look at whether it is whole and its revision only ever this.
    fn look(&self, object: &Value) -> u64 {
        let number = object["data"]["number"].as_str().and_then(|n| n.parse().ok()).expect("a number");
        assert_eq!(object["metadata"]["annotations"]["number"], object["data"]["number"], "torn: {object}");
        let filler = object["data"]["filler"].as_str().unwrap_or_default().len() as u64;
        assert_eq!(filler, number % 7 * 200, "torn: {object}");
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_string();
        let revision = text("resourceVersion").parse().expect("a revision");
        let this = (text("name"), number);
        let known = self.revisions.lock().unwrap().entry(revision).or_insert_with(|| this.clone()).clone();
        assert_eq!(known, this, "revision {revision} is two things");
        number
    }

    fn note(&self, name: &str, called: u64, sent: Sent, answer: &Answer) {
        let status = answer.status.as_u16();
        let reason = answer.body["reason"].as_str().unwrap_or_default();
        if status >= 500 || status == 429 {
            is_error(status, &answer.body);
        }
        if let Some(did) = sent.did(status, reason) {
            let operation = Operation { called, answered: self.tick(), did };
            self.operations.lock().unwrap().entry(name.into()).or_default().push(operation);
        }
    }

    /// How many operations have an answer, and how many have none.
    pub fn count(&self) -> (usize, usize) {
        let all = self.operations.lock().unwrap();
        let (open, done): (Vec<_>, Vec<_>) = all.values().flatten().partition(|operation| operation.did.is_open());
        (done.len(), open.len())
    }

    /// Everything fits one order, what is there now included.
    pub async fn judge(&self, app: &TestApp) {
        let names: Vec<String> = self.operations.lock().unwrap().keys().cloned().collect();
        for name in names {
            let called = self.tick();
            let answer = app.owner().get(&format!("{MAPS}/{name}")).await;
            let found = (answer.status == 200).then(|| self.look(&answer.body));
            self.note(&name, called, Sent::Get(found), &answer);
        }
        check_all(&self.operations.lock().unwrap()).unwrap_or_else(|why| panic!("{why}"));
    }
}

impl Clients {
    pub fn start(app: &TestApp, clients: usize, names: usize) -> Self {
        let seen = Arc::new(Seen::default());
        let (stop, stopping) = watch::channel(false);
        let tasks = (0..clients).map(|_| tokio::spawn(client(app.clone(), names, seen.clone(), stopping.clone())));
        Self { stop, tasks: tasks.collect(), seen }
    }

    /// Operations that were answered so far.
    pub fn done(&self) -> usize {
        self.seen.count().0
    }

    pub async fn stop(self) -> Arc<Seen> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("a client ends");
        }
        self.seen
    }
}

async fn client(app: TestApp, names: usize, seen: Arc<Seen>, stopping: watch::Receiver<bool>) {
    let mut known: HashMap<String, Value> = HashMap::new();
    while !*stopping.borrow() {
        // A server that refuses answers without waiting: it must get its turn.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let name = format!("k{}", rand::random_range(0..names));
        let (path, owner) = (format!("{MAPS}/{name}"), app.owner());
        let number = seen.numbers.fetch_add(1, Ordering::SeqCst) + 1;
        let called = seen.tick();
        let (sent, answer) = match (rand::random_range(0..10), known.get(&name)) {
            (0..3, _) | (_, None) => {
                let answer = owner.get(&path).await;
                let found = (answer.status == 200).then(|| seen.look(&answer.body));
                match found {
                    Some(_) => drop(known.insert(name.clone(), answer.body.clone())),
                    None => drop(known.remove(&name)),
                }
                if answer.status == 404 {
                    seen.note(&name, called, Sent::Get(None), &answer);
                    let called = seen.tick();
                    let answer = owner.post(MAPS, tree(&name, number, None)).await;
                    if answer.status == 201 {
                        seen.look(&answer.body);
                    }
                    seen.note(&name, called, Sent::Create(number), &answer);
                    continue;
                }
                (Sent::Get(found), answer)
            }
            (3..8, Some(object)) => {
                let from = seen.look(object);
                let revision = object["metadata"]["resourceVersion"].as_str();
                let answer = owner.put(&path, tree(&name, number, revision)).await;
                if answer.status == 200 {
                    seen.look(&answer.body);
                    known.insert(name.clone(), answer.body.clone());
                }
                (Sent::Update { from: Some(from), to: number }, answer)
            }
            (_, Some(object)) => {
                let from = seen.look(object);
                let body = json!({"preconditions": {"resourceVersion": object["metadata"]["resourceVersion"]}});
                (Sent::Delete { from: Some(from) }, owner.delete_with(&path, body).await)
            }
        };
        seen.note(&name, called, sent, &answer);
    }
}
