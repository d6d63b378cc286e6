//! What is taken of a node, kept up as pods come and go so that the scheduler never adds up a cluster.

use crate::projection::{HostPort, Pod, Resources};
use std::collections::BTreeMap;

/// What a pod that names no request is taken to need when nodes are compared (never when it is decided whether it fits):
/// Kubernetes's numbers, so that a node doesn't look empty because nobody said what they need.
pub const ASSUMED_CPU: i64 = 100;
pub const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    pub requests: Resources,
    pub pods: i64,
    /// Requests with the assumed ones filled in: what scores rest on.
    pub likely_cpu: i64,
    pub likely_memory: i64,
    ports: BTreeMap<HostPort, u32>,
}

impl Usage {
    pub fn add(&mut self, pod: &Pod) {
        self.requests.add(&pod.requests);
        self.pods += 1;
        let (cpu, memory) = likely(pod);
        self.likely_cpu += cpu;
        self.likely_memory += memory;
        for port in &pod.host_ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
    }

    pub fn subtract(&mut self, pod: &Pod) {
        self.requests.subtract(&pod.requests);
        self.pods -= 1;
        let (cpu, memory) = likely(pod);
        self.likely_cpu -= cpu;
        self.likely_memory -= memory;
        for port in &pod.host_ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pods == 0
    }

    /// Whether `port` is taken: the same port and protocol on the same address, or either on all addresses.
    pub fn is_taken(&self, port: &HostPort) -> bool {
        let everywhere = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.ports.keys().any(|p| {
            p.port == port.port
                && p.protocol == port.protocol
                && (everywhere(&p.ip) || everywhere(&port.ip) || p.ip == port.ip)
        })
    }
}

/// What a pod likely takes, in thousandths of a core and bytes.
pub fn likely(pod: &Pod) -> (i64, i64) {
    let or = |asked: i64, assumed: i64| if asked == 0 { assumed } else { asked };
    (or(pod.requests.cpu, ASSUMED_CPU), or(pod.requests.memory, ASSUMED_MEMORY))
}
