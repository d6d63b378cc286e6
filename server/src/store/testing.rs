//! For tests of every room: stores and clusters ready to use.

use super::{Cluster, NewCluster, Store};
use longshore_api::ids::OrganizationId;
use std::sync::Arc;

/// A new, empty cluster in a store that lives in memory only.
pub async fn cluster() -> Arc<Cluster> {
    let store = Store::in_memory();
    let id = store.create_cluster(NewCluster::new(OrganizationId::new("o-test"), "test")).await;
    store.cluster(&id.expect("a cluster in memory is made")).await.expect("and is there")
}
