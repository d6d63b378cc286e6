//! What users do: they deploy, scale, roll out and back, pause, delete and make anew, take pods and nodes away, and repeat
//! themselves when they got no answer.

use crate::dice::Dice;
use crate::net::{Client, Net};
use crate::witness::Witness;
use longshore_api::ids::ClusterId;
use serde_json::{Value, json};
use std::sync::Arc;

/// Where users work. The second one comes and goes.
pub const NAMESPACES: [&str; 2] = ["default", "team"];
const APPS: [&str; 3] = ["red", "green", "blue"];

pub struct User {
    name: String,
    client: Client,
    witness: Witness,
    dice: Dice,
    nodes: u8,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Deploy,
    Scale,
    RollOut,
    Undo,
    Pause,
    Resume,
    DeleteDeployment,
    DeleteSet,
    DeletePod,
    DeletePodByForce,
    RelabelPod,
    Drain,
    Cordon,
    Uncordon,
    MakeService,
    DeleteService,
    DeleteNamespace,
    Replace,
    List,
}

const DEEDS: &[(u64, Deed)] = &[
    (20, Deed::Deploy),
    (14, Deed::Scale),
    (16, Deed::RollOut),
    (5, Deed::Undo),
    (3, Deed::Pause),
    (4, Deed::Resume),
    (6, Deed::DeleteDeployment),
    (2, Deed::DeleteSet),
    (8, Deed::DeletePod),
    (2, Deed::DeletePodByForce),
    (3, Deed::RelabelPod),
    (2, Deed::Drain),
    (2, Deed::Cordon),
    (4, Deed::Uncordon),
    (4, Deed::MakeService),
    (2, Deed::DeleteService),
    (1, Deed::DeleteNamespace),
    (4, Deed::Replace),
    (6, Deed::List),
];

fn deployments(namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/deployments")
}

fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

impl User {
    pub fn new(number: u8, net: &Arc<Net>, cluster: &ClusterId, witness: &Witness, seed: u64, nodes: u8) -> Self {
        let name = format!("user {number}");
        let client = Client::new(net, cluster, Dice::new(seed, &format!("client of {name}")));
        Self { client, witness: witness.clone(), dice: Dice::new(seed, &name), name, nodes }
    }

    /// Does one thing after another, for ever.
    pub async fn run(mut self) {
        loop {
            let pause = self.dice.weighted(&[(3, 1000), (4, 5000), (1, 20_000)]);
            tokio::time::sleep(self.dice.millis(50, pause)).await;
            let deed = self.dice.weighted(DEEDS);
            let said = self.act(deed).await;
            if let Some(said) = said {
                self.witness.tell(format!("{}: {said}", self.name));
            }
        }
    }

    async fn act(&mut self, deed: Deed) -> Option<String> {
        let namespace = *self.dice.pick(&["default", "default", "team"]);
        let app = *self.dice.pick(&APPS);
        let path = format!("{}/{app}", deployments(namespace));
        let spec = |spec: Value| json!({"spec": spec});
        let answer = match deed {
            Deed::Deploy => {
                if namespace == "team" {
                    self.client.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await;
                }
                let body = self.deployment(app);
                self.client.post(&deployments(namespace), &body).await
            }
            Deed::Scale => {
                let replicas = self.dice.between(0, 7);
                match self.dice.percent(50) {
                    true => self.client.patch(&format!("{path}/scale"), &spec(json!({"replicas": replicas}))).await,
                    false => self.client.patch(&path, &spec(json!({"replicas": replicas}))).await,
                }
            }
            Deed::RollOut => {
                let image = self.image();
                self.client.patch(&path, &template(app, &image)).await
            }
            Deed::Undo => self.client.patch(&path, &template(app, "web:1")).await,
            Deed::Pause => self.client.patch(&path, &spec(json!({"paused": true}))).await,
            Deed::Resume => self.client.patch(&path, &spec(json!({"paused": null}))).await,
            Deed::DeleteDeployment => {
                let how = *self.dice.pick(&["Background", "Background", "Foreground", "Foreground", "Orphan"]);
                self.client.delete(&path, &json!({"propagationPolicy": how})).await
            }
            Deed::DeleteSet => {
                let set = self.one("/apis/apps/v1/namespaces", "replicasets", namespace).await?;
                let how = *self.dice.pick(&["Background", "Foreground", "Orphan"]);
                let path = format!("/apis/apps/v1/namespaces/{namespace}/replicasets/{}", name(&set));
                self.client.delete(&path, &json!({"propagationPolicy": how})).await
            }
            Deed::DeletePod => {
                let pod = self.one("/api/v1/namespaces", "pods", namespace).await?;
                let grace = *self.dice.pick(&[None, None, Some(1), Some(5), Some(60)]);
                let options = json!({"gracePeriodSeconds": grace, "preconditions": {"uid": uid(&pod)}});
                self.client.delete(&format!("{}/{}", pods(namespace), name(&pod)), &options).await
            }
            Deed::DeletePodByForce => {
                let pod = self.one("/api/v1/namespaces", "pods", namespace).await?;
                self.witness.model(|model| model.force(uid(&pod)));
                let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid(&pod)}});
                self.client.delete(&format!("{}/{}", pods(namespace), name(&pod)), &options).await
            }
            Deed::RelabelPod => {
                let pod = self.one("/api/v1/namespaces", "pods", namespace).await?;
                let label = *self.dice.pick(&["lost", app, "red"]);
                let body = json!({"metadata": {"labels": {"app": label}}});
                self.client.patch(&format!("{}/{}", pods(namespace), name(&pod)), &body).await
            }
            Deed::Drain => return self.drain().await,
            Deed::Cordon => {
                let node = self.node();
                self.client.patch(&node, &spec(json!({"unschedulable": true}))).await
            }
            Deed::Uncordon => {
                let node = self.node();
                self.client.patch(&node, &spec(json!({"unschedulable": null}))).await
            }
            Deed::MakeService => {
                let body = json!({"metadata": {"name": app}, "spec": {"selector": {"app": app},
                    "ports": [{"port": 80, "targetPort": 8080}]}});
                self.client.post(&format!("/api/v1/namespaces/{namespace}/services"), &body).await
            }
            Deed::DeleteService => {
                self.client.delete(&format!("/api/v1/namespaces/{namespace}/services/{app}"), &json!({})).await
            }
            Deed::DeleteNamespace => self.client.delete("/api/v1/namespaces/team", &json!({})).await,
            Deed::Replace => return self.replace(&path).await,
            Deed::List => self.client.get(&pods(namespace)).await,
        };
        Some(format!("{deed:?} {namespace}/{app}: {}", answer.code()))
    }

    /// Reads, thinks, writes: what came in between must not be overwritten.
    async fn replace(&mut self, path: &str) -> Option<String> {
        let mut deployment = self.client.get(path).await.good()?;
        tokio::time::sleep(self.dice.millis(0, 300)).await;
        deployment["spec"]["replicas"] = json!(self.dice.between(0, 6));
        let answer = self.client.put(path, &deployment).await;
        Some(format!("Replace {path}: {}", answer.code()))
    }

    async fn drain(&mut self) -> Option<String> {
        let node = self.dice.between(0, u64::from(self.nodes) - 1);
        let node = format!("n{node}");
        let path = format!("/api/v1/nodes/{node}");
        self.client.patch(&path, &json!({"spec": {"unschedulable": true}})).await;
        let list = self.client.get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")).await.good()?;
        for pod in list["items"].as_array().into_iter().flatten() {
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            let body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": name(pod), "namespace": namespace}});
            self.client.post(&format!("{}/{}/eviction", pods(namespace), name(pod)), &body).await;
        }
        Some(format!("drains {node}"))
    }

    fn node(&mut self) -> String {
        format!("/api/v1/nodes/n{}", self.dice.between(0, u64::from(self.nodes) - 1))
    }

    async fn one(&mut self, base: &str, plural: &str, namespace: &str) -> Option<Value> {
        let list = self.client.get(&format!("{base}/{namespace}/{plural}")).await.good()?;
        let items = list["items"].as_array()?;
        (!items.is_empty()).then(|| self.dice.pick(items).clone())
    }

    fn image(&mut self) -> String {
        let kind = self.dice.weighted(&[(12, "web"), (2, "crash"), (2, "flaky"), (2, "slow"), (1, "missing")]);
        format!("{kind}:{}", self.dice.between(1, 4))
    }

    fn deployment(&mut self, app: &str) -> Value {
        let image = self.image();
        let strategy = match self.dice.between(0, 9) {
            0 => json!({"type": "Recreate"}),
            1 => rolling(json!(1), json!(0)),
            2 => rolling(json!(0), json!(1)),
            3 => rolling(json!("50%"), json!("50%")),
            4 => rolling(json!("100%"), json!("0%")),
            _ => json!({}),
        };
        let mut pod = json!({
            "containers": [{"name": "c", "image": image, "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m"}}}],
            "terminationGracePeriodSeconds": *self.dice.pick(&[0, 1, 1, 5, 5, 30, 30, 30]),
        });
        if self.dice.percent(15) {
            pod["initContainers"] = json!([{"name": "i", "image": "web:1"}]);
        }
        if self.dice.percent(15) {
            pod["containers"].as_array_mut().expect("an array").push(json!({"name": "d", "image": "web:1"}));
        }
        json!({
            "metadata": {"name": app},
            "spec": {
                "replicas": self.dice.between(0, 6),
                "selector": {"matchLabels": {"app": app}},
                "strategy": strategy,
                "minReadySeconds": *self.dice.pick(&[0, 0, 0, 3]),
                "revisionHistoryLimit": *self.dice.pick(&[10, 10, 0, 1]),
                "progressDeadlineSeconds": *self.dice.pick(&[600, 30]),
                "template": {"metadata": {"labels": {"app": app}}, "spec": pod},
            },
        })
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn template(app: &str, image: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m"}}}]}}}})
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// What a good administrator does when all faults are over: nodes take pods, images are right, nothing is paused, and what
/// nobody looks after and can't run goes.
pub async fn put_in_order(client: &mut Client) -> Option<()> {
    for node in items(client, "/api/v1/nodes").await? {
        insist(client, &format!("/api/v1/nodes/{}", name(&node)), json!({"spec": {"unschedulable": null}})).await?;
    }
    for namespace in NAMESPACES {
        for deployment in items(client, &deployments(namespace)).await? {
            let app = name(&deployment).to_string();
            let mut body = template(&app, "web:9");
            body["spec"]["paused"] = Value::Null;
            insist(client, &format!("{}/{app}", deployments(namespace)), body).await?;
        }
        let sets = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
        for set in items(client, &sets).await?.iter().filter(|set| is_hopeless(set, "/spec/template/spec")) {
            client.delete(&format!("{sets}/{}", name(set)), &json!({"propagationPolicy": "Background"})).await;
        }
        for pod in items(client, &pods(namespace)).await?.iter().filter(|pod| is_hopeless(pod, "/spec")) {
            client.delete(&format!("{}/{}", pods(namespace), name(pod)), &json!({})).await;
        }
    }
    Some(())
}

/// Nobody's, and of an image that never runs well.
fn is_hopeless(object: &Value, spec: &str) -> bool {
    let containers = object.pointer(&format!("{spec}/containers")).and_then(Value::as_array);
    let runs = |c: &Value| c["image"].as_str().is_some_and(|i| i.starts_with("web") || i.starts_with("slow"));
    let owned = object["metadata"]["ownerReferences"].as_array().is_some_and(|o| !o.is_empty());
    !owned && !containers.into_iter().flatten().all(runs)
}

async fn items(client: &mut Client, path: &str) -> Option<Vec<Value>> {
    client.get(path).await.good()?["items"].as_array().cloned()
}

async fn insist(client: &mut Client, path: &str, patch: Value) -> Option<()> {
    match client.patch(path, &patch).await.code() {
        // Gone is in order, too.
        200..300 | 404 => Some(()),
        _ => None,
    }
}
