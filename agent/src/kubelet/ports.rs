//! `/portForward/{namespace}/{pod}?port=…` and `/proxy/…`: the raw bytes of one connection to a port of a pod; on the pod's own
//! localhost, or at its address (`tls=true`: inside TLS that ends here). `/endpoint/{address}:{port}`: the same, of the pod
//! that has this address; `/datagrams/{address}:{port}`: many clients' datagrams to it ([`longshore_edge::datagrams`]).
//!
//! All are made inside the pod's own network namespace and lead to nothing outside of it, whatever a status says about
//! addresses. The connection is made before the answer: a port that nobody listens on is a refusal in words, not a stream
//! that ends. (Of datagrams nobody can tell.)

use super::{Body, Query, full, text};
use crate::network;
use crate::node::context::Context;
use crate::pods::network::refusal;
use crate::pods::spec;
use crate::pods::view::Known;
use crate::probes::check;
use crate::runtime::{Role, Runtime};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use longshore_api::node::RAW_PORT_PROTOCOL;
use nlink::netlink::namespace::Netns;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What a connection inside one machine may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of datagrams on their way, in bytes.
const PIPE: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Localhost,
    Address,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Code and sentence of a refusal.
type Refused = (StatusCode, String);

/// A port of a pod by its name.
pub async fn serve<B>(
    context: &Arc<Context>,
    way: Way,
    namespace: &str,
    pod: &str,
    query: &Query,
    request: &mut Request<B>,
) -> Response<Body> {
    let Some(port) = query.get("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0) else {
        return text(StatusCode::BAD_REQUEST, "query parameter \"port\" is required");
    };
    let connecting = async {
        let known = known(context, namespace, pod, query.get("uid"))?;
        let inside = self::namespace(context, &known).await?;
        match way {
            Way::Localhost => Ok(Box::new(localhost(&inside, port).await?) as Box<dyn Io>),
            Way::Address => {
                let ip = known.status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
                address(&inside, ip, port, query.flag("tls")).await
            }
        }
    };
    carry(connecting, format!("{namespace}/{pod}:{port}"), request).await
}

/// A port of the pod that has an address.
pub async fn endpoint<B>(
    context: &Arc<Context>,
    datagrams: bool,
    endpoint: &str,
    request: &mut Request<B>,
) -> Response<Body> {
    let Ok(endpoint) = endpoint.parse::<SocketAddr>() else {
        return text(StatusCode::BAD_REQUEST, "an address with a port is required");
    };
    let connecting = async {
        real(context)?;
        let known = context.pods.by_address(endpoint.ip());
        let known = known.ok_or_else(|| failed(format!("no pod of this node has the address {}", endpoint.ip())))?;
        let inside = namespace(context, &known).await?;
        match datagrams {
            true => Ok(self::datagrams(inside, endpoint)),
            false => address(&inside, Some(endpoint.ip()), endpoint.port(), false).await,
        }
    };
    carry(connecting, endpoint.to_string(), request).await
}

/// A stream of datagrams to an address of the pod's own.
fn datagrams(pod: Netns, endpoint: SocketAddr) -> Box<dyn Io> {
    let (near, far) = tokio::io::duplex(PIPE);
    tokio::spawn(async move {
        let ended = longshore_edge::datagrams::answer(far, || network::datagrams_to_own(&pod, endpoint)).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "datagrams to {endpoint} ended");
        }
    });
    Box::new(near)
}

/// Connects, and answers with the upgrade to its bytes.
async fn carry<B>(
    connecting: impl Future<Output = Result<Box<dyn Io>, Refused>>,
    about: String,
    request: &mut Request<B>,
) -> Response<Body> {
    let asked = request.headers().get(UPGRADE).is_some_and(|protocol| protocol == RAW_PORT_PROTOCOL);
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>().filter(|_| asked) else {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    };
    let connected = tokio::time::timeout(PATIENCE, connecting).await;
    let mut connection = match connected.unwrap_or_else(|_| Err(failed("the connection took too long"))) {
        Ok(connection) => connection,
        Err((code, why)) => return text(code, why),
    };
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

fn failed(why: impl Into<String>) -> Refused {
    (StatusCode::SERVICE_UNAVAILABLE, why.into())
}

fn real(context: &Context) -> Result<(), Refused> {
    let why = "this node's containers are pretended: nothing listens in them";
    context.runtime.is_real().then_some(()).ok_or_else(|| failed(why))
}

fn known(context: &Context, namespace: &str, pod: &str, uid: Option<&str>) -> Result<Known, Refused> {
    real(context)?;
    let known = context.pods.by_name(namespace, pod);
    // A name can have been taken again since the server looked.
    let known = known.filter(|known| uid.is_none_or(|uid| uid == spec::uid(&known.pod)));
    known.ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod not found ({:?})", format!("{pod}_{namespace}"))))
}

/// The network namespace of the pod's sandbox.
async fn namespace(context: &Context, known: &Known) -> Result<Netns, Refused> {
    let runtime: &dyn Runtime = context.runtime.as_ref();
    let records = runtime.containers(Some(spec::uid(&known.pod))).await.map_err(|e| failed(e.to_string()))?;
    let sandbox = records.iter().find(|record| record.role == Role::Sandbox && record.is_running());
    let path = sandbox.and_then(|sandbox| sandbox.netns()).ok_or_else(|| failed("the pod's sandbox does not run"))?;
    network::of_pod(&path, spec::host_network(&known.pod)).map_err(|e| failed(e.to_string()))
}

async fn localhost(pod: &Netns, port: u16) -> Result<TcpStream, Refused> {
    network::connect_localhost(pod, port).await.map_err(|error| {
        let why = refusal((Ipv4Addr::LOCALHOST, port).into(), &error);
        failed(format!("failed to connect to localhost:{port} inside the pod's network namespace: {why}"))
    })
}

/// `ip`: the pod's own.
async fn address(pod: &Netns, ip: Option<IpAddr>, port: u16, tls: bool) -> Result<Box<dyn Io>, Refused> {
    let ip = ip.filter(|ip| !ip.is_loopback()).ok_or_else(|| failed("the pod has no address"))?;
    let connected = network::connect_own(pod, (ip, port).into()).await;
    let stream = connected.map_err(|error| failed(refusal((ip, port).into(), &error)))?;
    if !tls {
        return Ok(Box::new(stream));
    }
    let name = rustls_pki_types::ServerName::IpAddress(ip.into());
    match check::tls_connector().connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(failed(error.to_string())),
    }
}
