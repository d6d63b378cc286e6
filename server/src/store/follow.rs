//! For components that keep something up from all objects of a resource.

use super::StoreError;
use super::cluster::Cluster;
use super::memory::ListQuery;
use super::object::Object;
use super::watch::WatchFilter;
use super::watcher::Watch;
use std::sync::Arc;

impl Cluster {
    /// Hands all objects of a resource over, and watches it from there on. It keeps no cluster from being idle.
    pub fn follow(self: &Arc<Self>, resource: &str, mut take: impl FnMut(&Object)) -> Result<Watch, StoreError> {
        let listing = self.list(&ListQuery { resource: resource.into(), ..ListQuery::default() })?;
        listing.items.iter().for_each(|object| take(object));
        let filter = WatchFilter { resource: Some(resource.into()), internal: true, ..WatchFilter::default() };
        self.watch(Some(listing.revision), filter)
    }
}
