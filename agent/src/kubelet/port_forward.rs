//! `/portForward/{namespace}/{pod}?port=…`: the raw bytes of one connection to a port on a pod's own localhost.
//!
//! The connection is made before the answer: a port that nobody listens on is a refusal in words, not a stream that ends.

use super::{Body, Query, full, text};
use crate::network;
use crate::node::context::Context;
use crate::pods::network::refusal;
use crate::pods::spec;
use crate::runtime::{Role, Runtime};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use longshore_api::node::RAW_PORT_PROTOCOL;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What a connection on localhost may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn serve<B>(
    context: &Arc<Context>,
    namespace: &str,
    pod: &str,
    query: &Query,
    request: &mut Request<B>,
) -> Response<Body> {
    let Some(port) = query.get("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0) else {
        return text(StatusCode::BAD_REQUEST, "query parameter \"port\" is required");
    };
    if request.headers().get(UPGRADE).is_none_or(|protocol| protocol != RAW_PORT_PROTOCOL) {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    };
    let mut connection = match connect(context, namespace, pod, query.get("uid"), port).await {
        Ok(connection) => connection,
        Err((code, why)) => return text(code, why),
    };
    let about = format!("{namespace}/{pod}:{port}");
    tokio::spawn(async move {
        let carried = async {
            let mut server = TokioIo::new(upgrade.await.map_err(std::io::Error::other)?);
            tokio::io::copy_bidirectional(&mut server, &mut connection).await
        };
        if let Err(error) = carried.await {
            tracing::debug!(%error, "a connection to {about} broke");
        }
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(RAW_PORT_PROTOCOL));
    response
}

async fn connect(
    context: &Context,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
    port: u16,
) -> Result<TcpStream, (StatusCode, String)> {
    let not_found = || (StatusCode::NOT_FOUND, format!("pod not found ({:?})", format!("{pod}_{namespace}")));
    let known = context.pods.by_name(namespace, pod).ok_or_else(not_found)?;
    // A name can have been taken again since the server looked.
    if uid.is_some_and(|uid| uid != spec::uid(&known.pod)) {
        return Err(not_found());
    }
    let failed = |why: String| (StatusCode::INTERNAL_SERVER_ERROR, why);
    let runtime: &dyn Runtime = context.runtime.as_ref();
    if !runtime.is_real() {
        return Err(failed("this node's containers are pretended: nothing listens in them".into()));
    }
    let records = runtime.containers(Some(spec::uid(&known.pod))).await.map_err(|e| failed(e.to_string()))?;
    let sandbox = records.iter().find(|record| record.role == Role::Sandbox && record.is_running());
    let netns = sandbox.and_then(|sandbox| sandbox.netns()).ok_or_else(not_found)?;
    let connecting = network::connect_inside(&netns, spec::host_network(&known.pod), port);
    let connected = tokio::time::timeout(PATIENCE, connecting).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    connected.map_err(|error| {
        let why = refusal((Ipv4Addr::LOCALHOST, port).into(), &error);
        failed(format!("failed to connect to localhost:{port} inside the pod's network namespace: {why}"))
    })
}
