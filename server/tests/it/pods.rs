//! A pod that runs, as far as the API knows, on a node whose agent a test pretends.

use crate::installation::Installation;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::{Value, json};
use std::convert::Infallible;

/// The address that the pod's status says.
pub const ADDRESS: &str = "10.244.0.7";

pub fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": 8080}]}]}})
}

/// Pod `p` on node `n1`, which answers what the server asks of it by `answer`; the pod.
pub async fn running<F>(here: &Installation, answer: F) -> Value
where
    F: Fn(Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + 'static,
{
    let machine = here.join("n1").await;
    let mut tunnel = machine.tunnel().await;
    tokio::spawn(async move {
        while let Some(stream) = tunnel.incoming.next().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answered = answer(request);
                async { Ok::<_, Infallible>(answered) }
            });
            tokio::spawn(longshore_tunnel::http::serve(stream, service));
        }
        drop(tunnel.opener);
    });
    here.default_account().await;
    let made = here.api("POST", "/api/v1/namespaces/default/pods", pod("p", "n1")).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let mut pod = made.json();
    let ready = json!([{"type": "Ready", "status": "True"}]);
    pod["status"] = json!({"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}], "conditions": ready});
    let said = here.api("PUT", "/api/v1/namespaces/default/pods/p/status", pod).await;
    assert_eq!(said.status, 200, "{}", said.text);
    said.json()
}
