//! Traffic from the edge to pods: a stream of the tunnel of the pod's node, whose agent connects to no address but that of
//! a pod that it runs.

use super::Gateway;
use crate::apiserver::raw_stream;
use longshore_edge::{Dialer, Dialing, Endpoint, Stream};
use std::io;

impl Dialer for Gateway {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Dialing<'a> {
        Box::pin(async move {
            let path = format!("/endpoint/{}", to.address);
            let stream = raw_stream(self, &to.cluster, &to.node, &path, std::iter::empty()).await;
            let stream = stream.map_err(|status| io::Error::other(status.message))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
