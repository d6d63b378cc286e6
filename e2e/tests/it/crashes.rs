//! Server and Postgres are killed (-9) again and again while clients write: nothing acknowledged is lost, no revision is
//! given twice, no object is torn, and every watcher can tell the same story.
//!
//! `LONGSHORE_KILLS` says how often (6 unless told).

use longshore_e2e::linearizable::{self, NOT_SENT, Operation, Sent};
use longshore_e2e::{Installation, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use ureq::Agent;

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const WRITERS: u64 = 4;
const KEYS: u64 = 6;
/// Acknowledged writes between two kills.
const PROGRESS: usize = 60;
const PATIENCE: Duration = Duration::from_secs(90);

fn kills() -> usize {
    std::env::var("LONGSHORE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

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
    let revision = object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
    let number: Option<u64> = object["data"]["number"].as_str().and_then(|n| n.parse().ok());
    let (Some(revision), Some(number)) = (revision, number) else { panic!("torn: {object}") };
    let said = number.to_string();
    assert_eq!(object["metadata"]["labels"]["number"], said, "torn: {object}");
    assert_eq!(object["data"]["pad"], said.repeat(400), "torn: {object}");
    (revision, number)
}

/// What a revision was seen to be: by the answers to writers, by readers, by watchers.
#[derive(Default)]
struct Revisions(Mutex<BTreeMap<u64, (String, u64)>>);

impl Revisions {
    fn note(&self, revision: u64, name: &str, number: u64) {
        let mut all = self.0.lock().expect("no panic");
        let known = all.entry(revision).or_insert_with(|| (name.into(), number));
        assert_eq!(*known, (name.to_string(), number), "revision {revision} was given twice");
    }
}

/// Plain HTTP from loopback: what is tested is not TLS, and connections are many.
struct Client {
    base: String,
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
    fn new(installation: &Installation) -> Self {
        let admin = installation.admin();
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(40)));
        Self { base: admin.cluster_url.replacen("https", "http", 1), token: admin.token, agent: config.build().into() }
    }

    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
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

/// One client's life: reads, creates, updates and deletes some keys that others write, too.
struct Writer<'a> {
    client: &'a Client,
    clock: Instant,
    number: u64,
    acknowledged: &'a AtomicUsize,
    revisions: &'a Revisions,
    history: HashMap<String, Vec<Operation>>,
}

impl Writer<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn round(&mut self, key: u64) {
        let name = format!("key-{key}");
        let path = format!("{PATH}/{name}");
        let called = self.now();
        let found = self.client.send("GET", &path, None);
        let at = match found.status {
            200 => Some(read(&found.body)),
            _ => None,
        };
        self.note(&name, called, Sent::Get(at.map(|(_, number)| number)), &found);
        self.number += WRITERS;
        let called = self.now();
        let (sent, answer) = match (at, self.number % 7) {
            (None, _) if found.status == 404 => {
                let new = object(&name, self.number, "");
                (Sent::Create(self.number), self.client.send("POST", PATH, Some(&new)))
            }
            (None, _) => return,
            (Some((revision, from)), 0) => {
                let options = json!({"preconditions": {"resourceVersion": revision.to_string()}});
                (Sent::Delete { from: Some(from) }, self.client.send("DELETE", &path, Some(&options)))
            }
            (Some((revision, from)), _) => {
                let new = object(&name, self.number, &revision.to_string());
                (Sent::Update { from: Some(from), to: self.number }, self.client.send("PUT", &path, Some(&new)))
            }
        };
        if matches!(answer.status, 200 | 201) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            if !matches!(sent, Sent::Delete { .. }) {
                let (revision, number) = read(&answer.body);
                self.revisions.note(revision, &name, number);
            }
        }
        self.note(&name, called, sent, &answer);
    }

    fn note(&mut self, name: &str, called: u64, sent: Sent, answer: &Answer) {
        assert!(
            matches!(answer.status, 0 | NOT_SENT | 200 | 201 | 404 | 409 | 429 | 500 | 503 | 504),
            "{sent:?}: {} {}",
            answer.status,
            answer.body
        );
        let answered = self.now();
        if let Some(did) = sent.did(answer.status, answer.reason()) {
            self.history.entry(name.into()).or_default().push(Operation { called, answered, did });
        }
    }
}

/// Follows all changes from `from` on over every crash; the revisions that it was told, until it was told `until`.
fn follow(client: &Client, from: u64, until: &AtomicUsize, revisions: &Revisions) -> BTreeMap<u64, String> {
    let mut told = BTreeMap::new();
    let mut at = from;
    loop {
        let goal = until.load(Ordering::Relaxed) as u64;
        if goal != 0 && at >= goal {
            return told;
        }
        let uri =
            format!("{}{PATH}?watch=1&allowWatchBookmarks=true&timeoutSeconds=3&resourceVersion={at}", client.base);
        let request = client.agent.get(uri).header("authorization", format!("Bearer {}", client.token));
        let Ok(response) = request.call() else {
            std::thread::yield_now();
            continue;
        };
        if response.status() != 200 {
            assert_ne!(response.status(), 410, "all of this run's history is kept");
            continue;
        }
        for line in BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok) {
            // The last line of a killed server may be half of one.
            let Ok(event) = serde_json::from_str::<Value>(&line) else { break };
            let (kind, changed) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
            let revision = changed["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
            let Some(revision) = revision else { panic!("{line}") };
            match kind {
                "BOOKMARK" => at = at.max(revision),
                "ADDED" | "MODIFIED" | "DELETED" => {
                    assert!(revision > at, "{revision} after {at}: {kind}");
                    at = revision;
                    let name = changed["metadata"]["name"].as_str().unwrap_or_default();
                    told.insert(revision, kind.to_string());
                    if kind != "DELETED" && name.starts_with("key-") {
                        let (_, number) = read(changed);
                        revisions.note(revision, name, number);
                    }
                }
                _ => break,
            }
        }
    }
}

#[test]
fn server_and_postgres_are_killed_in_a_loop_and_nothing_acknowledged_is_lost() {
    let mut installation = Installation::start();
    let client = Client::new(&installation);
    let first = client.send("GET", PATH, None).body["metadata"]["resourceVersion"].as_str().map(str::parse::<u64>);
    let first = first.and_then(Result::ok).expect("a list has a revision");
    let (stop, acknowledged, goal) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let revisions = Revisions::default();
    let clock = Instant::now();

    let (histories, told) = std::thread::scope(|scope| {
        let (client, stop, acknowledged, goal, revisions) = (&client, &stop, &acknowledged, &goal, &revisions);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    let history = HashMap::new();
                    let mut writer = Writer { client, clock, number: writer + 1, acknowledged, revisions, history };
                    for round in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        writer.round((round * 5 + writer.number) % KEYS);
                    }
                    writer.history
                })
            })
            .collect();
        let watchers: Vec<_> = (0..2).map(|_| scope.spawn(move || follow(client, first, goal, revisions))).collect();
        let progress = || {
            let enough = acknowledged.load(Ordering::Relaxed) + PROGRESS;
            eventually("clients make progress", PATIENCE, || match acknowledged.load(Ordering::Relaxed) {
                count if count >= enough => Ok(()),
                count => Err(format!("{count} of {enough} writes")),
            });
        };
        for kill in 0..kills() {
            progress();
            if kill % 2 == 0 {
                installation.kill_server();
                installation.start_server();
            } else {
                installation.kill_postgres();
            }
        }
        progress();
        stop.store(true, Ordering::Relaxed);
        let mut histories: HashMap<String, Vec<Operation>> = HashMap::new();
        for writer in writers {
            for (key, history) in writer.join().expect("a writer") {
                histories.entry(key).or_default().extend(history);
            }
        }
        let last = client.send("POST", PATH, Some(&json!({"metadata": {"name": "last"}})));
        assert_eq!(last.status, 201, "{}", last.body);
        let last = last.body["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok()).expect("a revision");
        goal.store(last, Ordering::Relaxed);
        let told: Vec<_> = watchers.into_iter().map(|w| w.join().expect("a watcher")).collect();
        (histories, told)
    });

    // What is there at the end is read once more from what Postgres holds.
    installation.kill_server();
    installation.start_server();
    let mut histories = histories;
    for (name, history) in &mut histories {
        let called = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let found = client.send("GET", &format!("{PATH}/{name}"), None);
        let number = (found.status == 200).then(|| read(&found.body).1);
        let did = Sent::Get(number).did(found.status, found.reason()).expect("the server answers");
        history.push(Operation { called, answered: called + 1, did });
    }
    linearizable::check_all(&histories).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(told[0], told[1], "two watchers were told two stories");
    for (revision, (name, number)) in revisions.0.lock().expect("no panic").iter() {
        assert!(told[0].contains_key(revision), "no watcher was told of {name} = {number} at {revision}");
    }
}
