//! From this node to pods: through the cluster's network, and to nothing else in it.

use crate::network::PodNetwork;
use longshore_edge::{Dialer, Dialing, Endpoint, Stream};
use std::io;
use std::sync::Arc;

/// The cluster's network as it is on this node.
pub struct Inside(pub Arc<PodNetwork>);

impl Dialer for Inside {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> Dialing<'a> {
        Box::pin(async move {
            let stream = self.0.connect_to_pod(to.address).await;
            let stream = stream.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", to.address)))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
