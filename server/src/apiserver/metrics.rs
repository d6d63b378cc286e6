//! A cluster's `/metrics`, under the names that Kubernetes's API server gives its own.

use super::authorize::Attributes;
use crate::metrics::{Kind, Page};
use crate::store::Cluster;
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Upper bounds of the histogram, in seconds: some of Kubernetes's.
const BOUNDS: [f64; 12] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 30.0];

/// The requests that a loaded cluster has answered. Only what the registry knows is counted, so its size is bounded.
#[derive(Default)]
pub(super) struct Requests(Mutex<BTreeMap<Endpoint, Answered>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    verb: &'static str,
}

impl Endpoint {
    pub fn of(asked: &Attributes) -> Self {
        let verb = match asked.verb.as_str() {
            _ if matches!(asked.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy") => "CONNECT",
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" => "POST",
            "update" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        Self {
            group: asked.group.clone(),
            version: asked.version.clone(),
            resource: asked.resource.clone(),
            subresource: asked.subresource.clone(),
            verb,
        }
    }

    /// Requests that last as long as their client likes say nothing by their time.
    fn is_long(&self) -> bool {
        matches!(self.verb, "WATCH" | "CONNECT") || self.subresource == "log"
    }

    fn labels(&self) -> [(&str, &str); 5] {
        [
            ("group", &self.group),
            ("version", &self.version),
            ("resource", &self.resource),
            ("subresource", &self.subresource),
            ("verb", self.verb),
        ]
    }
}

#[derive(Default)]
struct Answered {
    codes: BTreeMap<u16, u64>,
    /// How many took at most each bound.
    within: [u64; BOUNDS.len()],
    seconds: f64,
}

impl Requests {
    pub fn note(&self, endpoint: Endpoint, code: StatusCode, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut all = self.0.lock();
        let answered = all.entry(endpoint).or_default();
        *answered.codes.entry(code.as_u16()).or_default() += 1;
        answered.seconds += seconds;
        for (bound, within) in BOUNDS.iter().zip(&mut answered.within) {
            *within += u64::from(seconds <= *bound);
        }
    }

    fn write(&self, page: &mut Page) {
        let all = self.0.lock();
        page.family(
            "apiserver_request_total",
            Kind::Counter,
            "Requests answered since this replica loaded the cluster.",
        );
        for (endpoint, answered) in all.iter() {
            for (code, count) in &answered.codes {
                let code = code.to_string();
                let mut labels = endpoint.labels().to_vec();
                labels.push(("code", &code));
                page.sample("apiserver_request_total", &labels, count);
            }
        }
        let name = "apiserver_request_duration_seconds";
        page.family(name, Kind::Histogram, "Time until the answer, of requests that are not long-running.");
        for (endpoint, answered) in all.iter().filter(|(endpoint, _)| !endpoint.is_long()) {
            let labels = endpoint.labels();
            let count: u64 = answered.codes.values().sum();
            let bounds = BOUNDS.iter().map(f64::to_string).zip(answered.within);
            for (bound, within) in bounds.chain([("+Inf".to_string(), count)]) {
                let mut labels = labels.to_vec();
                labels.push(("le", &bound));
                page.sample(&format!("{name}_bucket"), &labels, within);
            }
            page.sample(&format!("{name}_sum"), &labels, answered.seconds);
            page.sample(&format!("{name}_count"), &labels, count);
        }
    }
}

/// The page of one cluster.
pub(super) fn page(cluster: &Arc<Cluster>, nodes: usize) -> Page {
    let mut page = Page::default();
    cluster.companion::<Requests>().write(&mut page);
    page.family("apiserver_storage_objects", Kind::Gauge, "Stored objects, by resource.");
    for (resource, count) in cluster.counts() {
        page.sample("apiserver_storage_objects", &[("resource", &resource)], count);
    }
    page.gauge("apiserver_storage_size_bytes", "Size of all objects' JSON.", cluster.size().1);
    page.gauge("apiserver_longrunning_watches", "Open watches of clients.", cluster.watchers());
    page.gauge("longshore_revision", "The newest resourceVersion.", cluster.revision().0);
    page.gauge("longshore_connected_nodes", "Nodes with a tunnel to this replica.", nodes);
    page
}
