//! Requests and limits as the kernel counts them. Pure.
//!
//! Processor and memory only: `ephemeral-storage` is not measured on this node, and neither limits nor evicts.

use super::status::qos_class;
use crate::runtime::Resources;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use longshore_api::quantity::Quantity;

/// The kernel's period for processor limits, in microseconds.
const PERIOD: i64 = 100_000;
const MINIMUM_SHARES: i64 = 2;
const MINIMUM_QUOTA: i64 = 1000;

/// A request without a limit only weighs. `memory`: the node's, in bytes.
pub fn resources(pod: &Pod, container: &Container, memory: i64) -> Resources {
    let given = container.resources.clone().unwrap_or_default();
    let (limits, requests) = (given.limits.unwrap_or_default(), given.requests.unwrap_or_default());
    let amount = |q: Option<&Amount>| q.and_then(|q| Quantity::parse(&q.0).ok());
    let cpu = amount(limits.get("cpu")).map(|q| q.milli_value()).filter(|m| *m > 0);
    let asked = amount(requests.get("cpu")).map(|q| q.milli_value()).or(cpu).unwrap_or(0);
    let limit = amount(limits.get("memory")).map(|q| q.value()).filter(|m| *m > 0);
    let asked_memory = amount(requests.get("memory")).map(|q| q.value()).or(limit).unwrap_or(0);
    Resources {
        cpu_shares: Some((asked * 1024 / 1000).max(MINIMUM_SHARES)),
        cpu_period: cpu.map(|_| PERIOD),
        cpu_quota: cpu.map(|milli| (milli * PERIOD / 1000).max(MINIMUM_QUOTA)),
        memory: limit,
        oom_score_adj: Some(oom_score(qos_class(pod), asked_memory, memory)),
    }
}

/// Who is killed first when the machine runs out of memory: who asked for none, last who asked for all it may use.
fn oom_score(qos: &str, asked: i64, memory: i64) -> i64 {
    match qos {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        // The more of the machine one asked for, the later; always between the two others.
        _ if memory > 0 => (1000 - 1000_i64.saturating_mul(asked) / memory).clamp(3, 999),
        _ => 999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(given: Value) -> Resources {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": given}]}})).unwrap();
        resources(&pod, &pod.spec.as_ref().unwrap().containers[0], 1 << 30)
    }

    #[test]
    fn limits_bind_and_requests_weigh() {
        let all = of(json!({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}));
        assert_eq!((all.cpu_shares, all.cpu_period, all.cpu_quota), (Some(256), Some(100_000), Some(50_000)));
        assert_eq!(all.memory, Some(64 << 20));
        let none = of(json!({}));
        assert_eq!((none.cpu_shares, none.cpu_quota, none.memory), (Some(2), None, None));
        assert_eq!(of(json!({"limits": {"cpu": "1m"}})).cpu_quota, Some(1000));
    }

    #[test]
    fn who_asked_for_nothing_dies_first() {
        assert_eq!(of(json!({})).oom_score_adj, Some(1000));
        let half = of(json!({"requests": {"memory": "512Mi"}}));
        assert_eq!(half.oom_score_adj, Some(500));
        assert_eq!(of(json!({"requests": {"memory": "8Gi"}})).oom_score_adj, Some(3));
        assert_eq!(of(json!({"limits": {"memory": "1Mi", "cpu": "1"}})).oom_score_adj, Some(-997));
    }
}
