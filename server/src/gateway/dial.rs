//! Traffic from the edge to pods: a stream of the tunnel of the pod's node, whose agent connects to no address but that of
//! a pod that it runs.

use super::Gateway;
use crate::apiserver::raw_stream;
use longshore_api::Status;
use longshore_edge::{Dialer, Dialing, Endpoint, Stream};
use std::io;

/// What an agent from before says of a path that it doesn't know.
const UNKNOWN: u16 = 404;

impl Dialer for Gateway {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Dialing<'a> {
        Box::pin(stream(self, to, "endpoint"))
    }

    fn dial_datagrams<'a>(&'a self, to: &'a Endpoint) -> Dialing<'a> {
        Box::pin(stream(self, to, "datagrams"))
    }
}

async fn stream(gateway: &Gateway, to: &Endpoint, what: &str) -> io::Result<Box<dyn Stream>> {
    let path = format!("/{what}/{}", to.address);
    let stream = raw_stream(gateway, &to.cluster, &to.node, &path, std::iter::empty()).await;
    let stream = stream.map_err(|Status { code, message, .. }| match code {
        UNKNOWN => io::Error::new(io::ErrorKind::Unsupported, format!("the agent of node {:?} is too old", to.node)),
        _ => io::Error::other(message),
    })?;
    Ok(Box::new(stream))
}
