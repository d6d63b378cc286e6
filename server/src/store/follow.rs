//! For components that keep something up from all objects of a resource.

use super::StoreError;
use super::cluster::Cluster;
use super::memory::ListQuery;
use super::object::{Object, ResourceName};
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

    /// As [`Cluster::follow`], of the one object of a name, be it there or not.
    pub fn follow_one(
        self: &Arc<Self>,
        (resource, namespace, name): (&str, &str, &str),
        mut take: impl FnMut(&Object),
    ) -> Result<Watch, StoreError> {
        let (resource, namespace): (ResourceName, Arc<str>) = (resource.into(), namespace.into());
        let query =
            ListQuery { resource: resource.clone(), namespace: Some(namespace.clone()), ..ListQuery::default() };
        let listing = self.list(&query)?;
        listing.items.iter().filter(|object| *object.key.name == *name).for_each(|object| take(object));
        let filter = WatchFilter {
            resource: Some(resource),
            namespace: Some(namespace),
            field: Some(("metadata.name", name.to_owned())),
            internal: true,
        };
        self.watch(Some(listing.revision), filter)
    }
}
