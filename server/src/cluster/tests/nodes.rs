//! Nodes whose agents are connected: their health is their tunnel's.

use super::*;
use crate::gateway::testing::Agent;

impl World {
    fn connect(&self, name: &str) -> Agent {
        Agent::connect(&self.sessions, self.cluster.id(), name)
    }

    /// What a kubelet says when it is well.
    async fn well(&self, name: &str) {
        let status = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "Kubelet"});
        let conditions = [
            status("Ready", "True"),
            status("MemoryPressure", "False"),
            status("DiskPressure", "False"),
            status("PIDPressure", "False"),
        ];
        let body = json!({"status": {"conditions": conditions}}).to_string();
        let patch = Patch { kind: PatchKind::Strategic, body: body.as_bytes() };
        let (cx, options) = (self.context(), PatchOptions::default());
        self.api.patch(&cx, kind("nodes"), "", name, Some("status"), patch, &options).await.unwrap();
    }

    fn ready(&self, name: &str) -> String {
        let node = self.get("nodes", "", name).unwrap();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|c| c["type"] == "Ready").unwrap_or_default();
        ready["status"].as_str().unwrap_or_default().to_string()
    }

    fn taints(&self, name: &str) -> Vec<(String, String)> {
        let node = self.get("nodes", "", name).unwrap();
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let text = |taint: &Value, field: &str| taint[field].as_str().unwrap_or_default().to_string();
        taints.iter().map(|taint| (text(taint, "key"), text(taint, "effect"))).collect()
    }

    fn ready_pods(&self, node: &str) -> usize {
        let pods = self.list("pods", "default").into_iter().filter(|p| p["spec"]["nodeName"] == node);
        pods.filter(|p| {
            let conditions = p["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
        .count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_tunnel_is_gone_is_unknown_after_its_grace_and_well_again_on_return() {
    let world = World::with_nodes(2).await;
    let lost = world.connect("n0");
    let _kept = world.connect("n1");
    world.create("deployments.apps", "default", deployment("web", 4, "web:1")).await;
    world.until_deployed("web", 4).await;
    assert_eq!((world.ready_pods("n0"), world.ready_pods("n1")), (2, 2));

    let begin = std::time::Instant::now();
    lost.opener.close();
    world.until("n0 is unknown", |w| w.ready("n0") == "Unknown").await;
    let silent = begin.elapsed();
    let unreachable = |effect: &str| ("node.kubernetes.io/unreachable".to_string(), effect.to_string());
    world.until("and tainted", |w| w.taints("n0").contains(&unreachable("NoSchedule"))).await;
    world.until("also for what runs there", |w| w.taints("n0").contains(&unreachable("NoExecute"))).await;
    world.until("its pods are not ready", |w| w.ready_pods("n0") == 0).await;
    assert_eq!((world.ready("n1").as_str(), world.taints("n1").len(), world.ready_pods("n1")), ("True", 0, 2));
    let node = world.get("nodes", "", "n0").unwrap();
    let ready = node["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").cloned();
    assert_eq!(ready.unwrap()["message"], "Kubelet stopped posting node status.");
    assert!(silent.as_secs() >= 15, "an agent that restarts is given time: {silent:?}");
    eprintln!("n0 was called unknown after {silent:?}");
    let gone: Vec<_> =
        world.list("pods", "default").into_iter().filter(|p| p["metadata"]["deletionTimestamp"].is_string()).collect();
    assert!(gone.is_empty(), "nothing is evicted before its toleration ends");

    let _back = world.connect("n0");
    world.well("n0").await;
    world.until("n0 is well again", |w| w.ready("n0") == "True" && w.taints("n0").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_back_within_its_grace_changes_nothing() {
    let world = World::with_nodes(1).await;
    let before = world.connect("n0");
    before.opener.close();
    before.opener.ended().await;
    let _back = world.connect("n0");
    // Another node that is really lost shows that the time has passed.
    world.node("n1").await;
    let other = world.connect("n1");
    other.opener.close();
    world.until("the other is unknown", |w| w.ready("n1") == "Unknown").await;
    assert_eq!((world.ready("n0").as_str(), world.taints("n0").len()), ("True", 0));
}
