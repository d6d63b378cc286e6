//! Clients that watch: each must be told every change of its kind once and in order, however often its stream breaks,
//! whatever replica it goes on with.

use crate::dice::Dice;
use crate::net::{Client, Net};
use crate::witness::Witness;
use futures::StreamExt;
use longshore_api::ids::ClusterId;
use longshore_server::store::ChangeKind;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What is watched: the path and the store's name of it.
pub const WATCHED: [(&str, &str); 4] = [
    ("/api/v1/pods", "pods"),
    ("/apis/apps/v1/replicasets", "replicasets.apps"),
    ("/apis/apps/v1/deployments", "deployments.apps"),
    ("/apis/discovery.k8s.io/v1/endpointslices", "endpointslices.discovery.k8s.io"),
];

pub struct Watcher {
    name: String,
    path: &'static str,
    resource: &'static str,
    client: Client,
    witness: Witness,
    dice: Dice,
    /// Up to where it has been told everything. Shared: the end of the story asks.
    told: Arc<Mutex<i64>>,
}

/// Sentence: what it saw broke it.
const SENTENCE: &str = "watchers_see_each_change_once_in_order";

impl Watcher {
    /// Starts one and says how to ask how far it is.
    pub fn start(
        number: usize,
        net: &Arc<Net>,
        cluster: &ClusterId,
        witness: &Witness,
        seed: u64,
    ) -> (&'static str, Arc<Mutex<i64>>) {
        let (path, resource) = WATCHED[number % WATCHED.len()];
        let name = format!("watcher {number} of {resource}");
        let told = Arc::new(Mutex::new(0));
        let watcher = Self {
            path,
            resource,
            client: Client::new(net, cluster, Dice::new(seed, &format!("client of {name}"))),
            witness: witness.clone(),
            dice: Dice::new(seed, &name),
            told: told.clone(),
            name,
        };
        tokio::spawn(watcher.run());
        (resource, told)
    }

    async fn run(mut self) {
        loop {
            if let Some(from) = self.list().await {
                *self.told.lock() = from;
                while self.follow().await {
                    tokio::time::sleep(self.dice.millis(5, 3000)).await;
                }
            }
            tokio::time::sleep(self.dice.millis(100, 2000)).await;
        }
    }

    /// All there is, and of which revision that is.
    async fn list(&mut self) -> Option<i64> {
        let list = self.client.get(self.path).await.good()?;
        let revision = list["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
        self.witness.check("a_list_is_the_state_of_its_revision", self.is_the_state(&list, revision));
        Some(revision)
    }

    fn is_the_state(&self, list: &Value, revision: i64) -> Result<(), String> {
        let mut state = self.witness.at(self.resource, revision);
        for item in list["items"].as_array().into_iter().flatten() {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default().to_string();
            let place = (text("namespace"), text("name"));
            match state.remove(&place) {
                Some(at) if at.to_string() == text("resourceVersion") => {}
                Some(at) => {
                    return Err(format!("{place:?} at {revision} is of {at}, listed {}", text("resourceVersion")));
                }
                None => return Err(format!("{place:?} was not there at {revision} and is listed")),
            }
        }
        match state.first_key_value() {
            Some((place, at)) => Err(format!("{place:?} (of {at}) was there at {revision} and is not listed")),
            None => Ok(()),
        }
    }

    /// Reads one stream to its end. False when everything has to be listed again.
    async fn follow(&mut self) -> bool {
        let from = *self.told.lock();
        let path = format!("{}?watch=1&allowWatchBookmarks=true&resourceVersion={from}", self.path);
        let Some(response) = self.client.watch(&path).await else { return true };
        let patience = self.dice.weighted(&[(3, 600), (2, 20), (1, 2)]);
        let ends_at = tokio::time::Instant::now() + self.dice.seconds(0, patience);
        let slow = self.dice.percent(20);
        let mut body = response.into_body().into_data_stream();
        let mut line = Vec::new();
        loop {
            let chunk = tokio::select! {
                biased;
                () = tokio::time::sleep_until(ends_at) => return true,
                chunk = body.next() => chunk,
            };
            let Some(Ok(chunk)) = chunk else { return true };
            for byte in chunk {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                let event = serde_json::from_slice(&line).unwrap_or(Value::Null);
                line.clear();
                match self.hear(&event) {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(why) => {
                        self.witness.check(SENTENCE, Err(format!("{}: {why}", self.name)));
                        return false;
                    }
                }
            }
            if slow {
                tokio::time::sleep(self.dice.millis(100, 5000)).await;
            }
        }
    }

    /// Whether to go on after an event.
    fn hear(&self, event: &Value) -> Result<bool, String> {
        let (kind, object) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
        let revision = object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse::<i64>().ok());
        let mut told = self.told.lock();
        let next = self.witness.next(self.resource, *told);
        match (kind, revision, next) {
            ("ERROR", ..) => match object["code"].as_i64() {
                Some(410) => Ok(false),
                // Too slow: go on from where we are.
                Some(429) => Ok(true),
                _ => Err(format!("it was told {object}")),
            },
            ("BOOKMARK", Some(revision), Some(next)) if next.revision <= revision => {
                Err(format!("a bookmark says {revision}, and {} of {} was not told", next.key.name, next.revision))
            }
            ("BOOKMARK", Some(revision), _) => {
                *told = revision.max(*told);
                Ok(true)
            }
            (_, Some(revision), Some(next)) if next.revision == revision => {
                let right = match next.kind {
                    ChangeKind::Created => "ADDED",
                    ChangeKind::Updated => "MODIFIED",
                    ChangeKind::Deleted => "DELETED",
                };
                *told = revision;
                let same = next.object.as_ref().is_none_or(|o| o["metadata"] == object["metadata"]);
                match kind == right && same {
                    true => Ok(true),
                    false => {
                        Err(format!("{} of {revision} is {right}, and it was told {kind} {object}", next.key.name))
                    }
                }
            }
            (_, Some(revision), next) => {
                let next = next.map(|n| format!("{} of {}", n.key.name, n.revision));
                let name = &object["metadata"]["name"];
                Err(format!("after {} comes {next:?}, and it was told {kind} {name} of {revision}", *told))
            }
            _ => Err(format!("it was told {event}")),
        }
    }
}

/// Whether a watcher has been told everything there is of its resource, given some time.
pub async fn has_heard_everything(witness: &Witness, resource: &str, told: &Arc<Mutex<i64>>) -> Result<(), String> {
    for _ in 0..120 {
        let at = *told.lock();
        if witness.next(resource, at).is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err(format!("a watcher of {resource} has heard nothing after {}", *told.lock()))
}
