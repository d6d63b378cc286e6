//! Clients who read and write the same few keys, and note what they were answered: for stories in which servers die.
//!
//! What must hold at the end is asked of the [`Record`]: the history of each key is linearizable, no revision was given
//! twice, no object was torn, and watchers were told all that anybody saw.

use crate::eventually;
use crate::linearizable::{self, NOT_SENT, Operation, Sent};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use ureq::Agent;

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const WRITERS: u64 = 4;
const KEYS: u64 = 6;
/// Acknowledged writes that are progress.
const PROGRESS: usize = 60;
const PATIENCE: Duration = Duration::from_secs(90);

/// A whole object says its number three times.
fn object(name: &str, number: u64, revision: &str) -> Value {
    let pad = number.to_string().repeat(400);
    json!({
        "metadata": {"name": name, "resourceVersion": revision, "labels": {"number": number.to_string()}},
        "data": {"number": number.to_string(), "pad": pad},
    })
}

/// Revision and number of an object that is whole.
fn read(object: &Value) -> (u64, u64) {
    let number: Option<u64> = object["data"]["number"].as_str().and_then(|n| n.parse().ok());
    let (Some(revision), Some(number)) = (revision(object), number) else { panic!("torn: {object}") };
    let said = number.to_string();
    assert_eq!(object["metadata"]["labels"]["number"], said, "torn: {object}");
    assert_eq!(object["data"]["pad"], said.repeat(400), "torn: {object}");
    (revision, number)
}

fn revision(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str().and_then(|revision| revision.parse().ok())
}

/// Asks the servers of one cluster: the one that served last, until it doesn't. Plain HTTP from loopback: what is tested is
/// not TLS, and connections are many.
pub struct Client {
    /// URLs of the cluster.
    bases: Vec<String>,
    at: AtomicUsize,
    token: String,
    agent: Agent,
}

struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
}

impl Client {
    pub fn new(bases: Vec<String>, token: &str, patience: Duration) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience));
        Self { bases, at: AtomicUsize::new(0), token: token.into(), agent: config.build().into() }
    }

    fn base(&self) -> (usize, &str) {
        let at = self.at.load(Ordering::Relaxed);
        (at, &self.bases[at % self.bases.len()])
    }

    /// The one that was asked doesn't serve: whoever is next will be.
    fn turn_from(&self, at: usize) {
        let _ = self.at.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let (at, base) = self.base();
        let answer = self.send_to(base, method, path, body);
        if matches!(answer.status, 0 | NOT_SENT | 503) {
            self.turn_from(at);
        }
        answer
    }

    fn send_to(&self, base: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(body.map(Value::to_string).unwrap_or_default())
            .expect("a request");
        let answered = match self.agent.run(request) {
            Ok(response) => response,
            Err(ureq::Error::ConnectionFailed) => return Answer { status: NOT_SENT, body: Value::Null },
            Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Answer { status: NOT_SENT, body: Value::Null };
            }
            Err(_) => return Answer { status: 0, body: Value::Null },
        };
        let status = answered.status().as_u16();
        match answered.into_body().read_json::<Value>() {
            Ok(body) => Answer { status, body },
            // Cut off while it answered.
            Err(_) => Answer { status: 0, body: Value::Null },
        }
    }
}

/// What all clients together saw.
pub struct Record {
    clock: Instant,
    acknowledged: AtomicUsize,
    /// What a revision was seen to be: by the answers to writers, by readers, by watchers.
    revisions: Mutex<BTreeMap<u64, (String, u64)>>,
    histories: Mutex<HashMap<String, Vec<Operation>>>,
    /// Nobody begins another round.
    over: AtomicBool,
    /// The last revision that watchers wait for; 0 while it isn't known.
    last: AtomicU64,
}

impl Record {
    fn new() -> Self {
        Self {
            clock: Instant::now(),
            acknowledged: AtomicUsize::new(0),
            revisions: Mutex::default(),
            histories: Mutex::default(),
            over: AtomicBool::new(false),
            last: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn saw(&self, revision: u64, name: &str, number: u64) {
        let mut all = self.revisions.lock().expect("no panic");
        let known = all.entry(revision).or_insert_with(|| (name.into(), number));
        assert_eq!(*known, (name.to_string(), number), "revision {revision} was given twice");
    }

    fn note(&self, name: &str, called: u64, sent: Sent, answer: &Answer) {
        assert!(
            matches!(answer.status, 0 | NOT_SENT | 200 | 201 | 404 | 409 | 429 | 500 | 503 | 504),
            "{sent:?}: {} {}",
            answer.status,
            answer.body
        );
        let answered = self.now();
        if let Some(did) = sent.did(answer.status, answer.reason()) {
            let mut histories = self.histories.lock().expect("no panic");
            histories.entry(name.into()).or_default().push(Operation { called, answered, did });
        }
    }

    /// Reads a key; revision and number of what is there, or the status.
    fn get(&self, name: &str, send: impl FnOnce(&str) -> Answer) -> Result<(u64, u64), u16> {
        let called = self.now();
        let found = send(&format!("{PATH}/{name}"));
        let at = (found.status == 200).then(|| read(&found.body));
        self.note(name, called, Sent::Get(at.map(|(_, number)| number)), &found);
        at.ok_or(found.status)
    }

    /// Waits until clients were acknowledged some more writes.
    pub fn progress(&self) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + PROGRESS;
        eventually("clients make progress", PATIENCE, || match self.acknowledged.load(Ordering::Relaxed) {
            count if count >= enough => Ok(()),
            count => Err(format!("{count} of {enough} writes")),
        });
    }
}

/// One client's life: reads, creates, updates and deletes some keys that others write, too.
fn write(client: &Client, record: &Record, writer: u64) {
    let mut number = writer + 1;
    for round in 0.. {
        if record.over.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("key-{}", (round * 5 + number) % KEYS);
        number += WRITERS;
        write_once(client, record, &name, number);
    }
}

fn write_once(client: &Client, record: &Record, name: &str, number: u64) {
    let path = format!("{PATH}/{name}");
    let at = record.get(name, |path| client.send("GET", path, None));
    let called = record.now();
    let (sent, answer) = match (at, number % 7) {
        (Err(404), _) => (Sent::Create(number), client.send("POST", PATH, Some(&object(name, number, "")))),
        (Err(_), _) => return,
        (Ok((revision, from)), 0) => {
            let options = json!({"preconditions": {"resourceVersion": revision.to_string()}});
            (Sent::Delete { from: Some(from) }, client.send("DELETE", &path, Some(&options)))
        }
        (Ok((revision, from)), _) => {
            let new = object(name, number, &revision.to_string());
            (Sent::Update { from: Some(from), to: number }, client.send("PUT", &path, Some(&new)))
        }
    };
    if matches!(answer.status, 200 | 201) {
        record.acknowledged.fetch_add(1, Ordering::Relaxed);
        if !matches!(sent, Sent::Delete { .. }) {
            let (revision, number) = read(&answer.body);
            record.saw(revision, name, number);
        }
    }
    record.note(name, called, sent, &answer);
}

/// Reads all keys of one server again and again, whether it serves or not: what it says must never be of the past.
fn read_from(client: &Client, base: &str, record: &Record) {
    for round in 0.. {
        if record.over.load(Ordering::Relaxed) {
            return;
        }
        let _ = record.get(&format!("key-{}", round % KEYS), |path| client.send_to(base, "GET", path, None));
    }
}

/// Follows all changes from `from` on over every crash; the revisions that it was told.
fn follow(client: &Client, from: u64, record: &Record) -> BTreeMap<u64, String> {
    let mut told = BTreeMap::new();
    let mut at = from;
    loop {
        let last = record.last.load(Ordering::Relaxed);
        if last != 0 && at >= last {
            return told;
        }
        let (server, base) = client.base();
        let uri = format!("{base}{PATH}?watch=1&allowWatchBookmarks=true&timeoutSeconds=3&resourceVersion={at}");
        let request = client.agent.get(uri).header("authorization", format!("Bearer {}", client.token));
        let Ok(response) = request.call() else {
            client.turn_from(server);
            std::thread::yield_now();
            continue;
        };
        if response.status() != 200 {
            assert_ne!(response.status(), 410, "all of this run's history is kept");
            client.turn_from(server);
            continue;
        }
        for line in BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok) {
            // The last line of a killed server may be half of one.
            let Ok(event) = serde_json::from_str::<Value>(&line) else { break };
            let (kind, changed) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
            let Some(revision) = revision(changed) else { panic!("{line}") };
            match kind {
                "BOOKMARK" => at = at.max(revision),
                "ADDED" | "MODIFIED" | "DELETED" => {
                    assert!(revision > at, "{revision} after {at}: {kind}");
                    at = revision;
                    let name = changed["metadata"]["name"].as_str().unwrap_or_default();
                    told.insert(revision, kind.to_string());
                    if kind != "DELETED" && name.starts_with("key-") {
                        let (_, number) = read(changed);
                        record.saw(revision, name, number);
                    }
                }
                _ => break,
            }
        }
    }
}

/// Clients write and watch, and read from each server, while `story` happens; then everything is read once more, `again` having
/// happened, and what all of them saw is judged.
pub fn live_through(client: &Client, story: impl FnOnce(&Record), again: impl FnOnce()) {
    let first = revision(&client.send("GET", PATH, None).body).expect("a list has a revision");
    let record = Record::new();
    let told: Vec<_> = std::thread::scope(|scope| {
        let record = &record;
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(client, record, writer))).collect();
        let several = client.bases.iter().filter(|_| client.bases.len() > 1);
        let readers: Vec<_> = several.map(|base| scope.spawn(move || read_from(client, base, record))).collect();
        let watchers: Vec<_> = (0..2).map(|_| scope.spawn(move || follow(client, first, record))).collect();
        story(record);
        record.over.store(true, Ordering::Relaxed);
        for thread in writers.into_iter().chain(readers) {
            thread.join().expect("a client");
        }
        let last = eventually("the last word is taken", PATIENCE, || {
            let answer = client.send("POST", PATH, Some(&json!({"metadata": {"generateName": "last-"}})));
            let taken = revision(&answer.body).filter(|_| answer.status == 201);
            taken.ok_or_else(|| format!("{}: {}", answer.status, answer.body))
        });
        record.last.store(last, Ordering::Relaxed);
        watchers.into_iter().map(|watcher| watcher.join().expect("a watcher")).collect()
    });

    // What is there at the end is read once more from what Postgres holds.
    again();
    for key in 0..KEYS {
        let name = format!("key-{key}");
        eventually("the end is read", PATIENCE, || match record.get(&name, |path| client.send("GET", path, None)) {
            Ok(_) | Err(404) => Ok(()),
            Err(status) => Err(format!("{status}")),
        });
    }
    linearizable::check_all(&record.histories.lock().expect("no panic")).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(told[0], told[1], "two watchers were told two stories");
    for (revision, (name, number)) in record.revisions.lock().expect("no panic").iter() {
        assert!(told[0].contains_key(revision), "no watcher was told of {name} = {number} at {revision}");
    }
}
