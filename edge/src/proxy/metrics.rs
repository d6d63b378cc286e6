//! What the edge counts, for whoever serves a page of metrics.

use longshore_api::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
pub struct Metrics {
    /// By cluster and the first digit of the status.
    requests: Mutex<BTreeMap<(ClusterId, u8), u64>>,
    seconds: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
    pub connections: AtomicU64,
    pub handshakes_failed: AtomicU64,
    pub connects_failed: AtomicU64,
    pub retries: AtomicU64,
    pub refused: AtomicU64,
}

/// Upper bounds in seconds.
const BOUNDS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// A family of samples in Prometheus's sense.
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub struct Sample {
    /// What follows the family's name: `_bucket`, `_sum`, `_count` of a histogram.
    pub suffix: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Metrics {
    pub fn request(&self, cluster: &ClusterId, status: u16, took: Duration) {
        let class = u8::try_from(status / 100).unwrap_or(0);
        *self.requests.lock().entry((cluster.clone(), class)).or_default() += 1;
        let seconds = took.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        count(&self.seconds[at]);
        self.microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(0), Ordering::Relaxed);
    }

    /// What is counted for a cluster that is gone.
    pub fn forget(&self, cluster: &ClusterId) {
        self.requests.lock().retain(|(known, _), _| known != cluster);
    }

    pub fn families(&self) -> Vec<Family> {
        let counted = self.requests.lock();
        let requests = counted.iter().map(|((cluster, class), value)| Sample {
            suffix: "",
            labels: vec![("cluster", cluster.to_string()), ("code", format!("{class}xx"))],
            value: *value as f64,
        });
        let mut families = vec![
            Family {
                name: "longshore_edge_requests_total",
                help: "Requests that were answered.",
                kind: Kind::Counter,
                samples: requests.collect(),
            },
            self.durations(),
        ];
        for (name, help, kind, value) in [
            ("longshore_edge_connections", "Connections of clients.", Kind::Gauge, &self.connections),
            (
                "longshore_edge_handshake_failures_total",
                "TLS handshakes that failed.",
                Kind::Counter,
                &self.handshakes_failed,
            ),
            (
                "longshore_edge_connect_failures_total",
                "Endpoints that could not be connected to.",
                Kind::Counter,
                &self.connects_failed,
            ),
            ("longshore_edge_retries_total", "Requests that were sent once more.", Kind::Counter, &self.retries),
            ("longshore_edge_refused_total", "Connections and requests over a limit.", Kind::Counter, &self.refused),
        ] {
            let value = value.load(Ordering::Relaxed) as f64;
            families.push(Family { name, help, kind, samples: vec![Sample { suffix: "", labels: Vec::new(), value }] });
        }
        families
    }

    fn durations(&self) -> Family {
        let mut total = 0.0;
        let mut samples = Vec::new();
        let bounds = BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_string()]);
        for (bound, bucket) in bounds.zip(&self.seconds) {
            total += bucket.load(Ordering::Relaxed) as f64;
            samples.push(Sample { suffix: "_bucket", labels: vec![("le", bound)], value: total });
        }
        let sum = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        samples.push(Sample { suffix: "_sum", labels: Vec::new(), value: sum });
        samples.push(Sample { suffix: "_count", labels: Vec::new(), value: total });
        let help = "From a request's head to the end of its answer.";
        Family { name: "longshore_edge_request_seconds", help, kind: Kind::Histogram, samples }
    }
}
