//! Nodes without kubelets, and pods until the scheduler has given each one a node.

use super::{Timed, bodies, pool};
use crate::Result;
use crate::client::{Ask, Target};
use http_body_util::BodyExt;
use memchr::memmem;
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(300);

/// Ready nodes with room, in three zones. Nobody reports for them afterwards.
pub async fn make_nodes(target: &Target, nodes: usize) -> Result<Timed> {
    pool::each(target, CLIENTS, nodes, move |mut connection, number| async move {
        let name = format!("bench-{number}");
        let made = async {
            connection.ask(Ask::post("/api/v1/nodes", bodies::node(&name, number % 3))).await?;
            let status = format!("/api/v1/nodes/{name}/status");
            connection.ask(Ask::merge_patch(status, bodies::node_status())).await.map(drop)
        };
        let made = made.await;
        (connection, made)
    })
    .await
}

/// How long `pods` took, from before the first create: `created` when the last was answered, `bound` when a watcher had
/// seen a node on each.
pub struct Bound {
    pub created: Duration,
    pub bound: Duration,
}

/// Creates pods in a fresh namespace over the API and waits until all are bound. One watch of bound pods tells when: asking
/// again and again would be work for the side that is measured.
pub async fn bind(target: &Target, namespace: &str, pods: usize) -> Result<Bound> {
    let mut watcher = target.connect().await?;
    watcher.ask(Ask::post("/api/v1/namespaces", bodies::namespace(namespace))).await?;
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let bound_ones = format!("{path}?watch=true&timeoutSeconds=600&fieldSelector=spec.nodeName%21%3D");
    let answer = watcher.send(Ask::get(bound_ones)).await?;
    if !answer.status().is_success() {
        return Err(format!("watching {path}: {}", answer.status()).into());
    }
    let mut body = answer.into_body();
    let watching = tokio::spawn(async move {
        let added = memmem::Finder::new(br#"{"type":"ADDED""#);
        let (mut seen, mut tail) = (0, Vec::new());
        while seen < pods {
            let Some(frame) = body.frame().await else { return Err("the watch of bound pods ended".to_string()) };
            let frame = frame.map_err(|error| error.to_string())?;
            tail.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
            // Whole lines only: a frame may end anywhere.
            let whole = memchr::memrchr(b'\n', &tail).map_or(0, |end| end + 1);
            seen += added.find_iter(&tail[..whole]).count();
            tail.drain(..whole);
        }
        Ok(Instant::now())
    });
    let begun = Instant::now();
    let created = pool::requests(target, CLIENTS, pods, move |number| {
        Ask::post(path.clone(), bodies::pod(&format!("pod-{number}")))
    })
    .await?;
    let last = begun.elapsed();
    if created.errors > 0 {
        return Err(format!("{} of {pods} pods could not be created", created.errors).into());
    }
    let bound = tokio::time::timeout(PATIENCE, watching).await;
    let bound = bound.map_err(|_| format!("not all {pods} pods were bound within {PATIENCE:?}"))???;
    drop(watcher);
    Ok(Bound { created: last, bound: bound.duration_since(begun) })
}
