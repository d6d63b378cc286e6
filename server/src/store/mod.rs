//! The store: a cluster is one ordered log in Postgres with an in-memory copy in front.

mod cluster;
mod companion;
mod error;
mod history;
mod memory;
pub mod object;
mod replica;
mod seal;
pub mod testing;
mod watch;

pub use cluster::{Cluster, ClusterInfo, CommitWait, Newest, Watch, Write};
pub use error::{StoreError, WriteError};
pub use history::HistoryLimits;
pub use memory::{ListQuery, Listing};
pub use object::{Change, ChangeKind, Draft, Key, Object, ResourceName, Revision};
pub use replica::{ClusterHook, Kinds, NewCluster, Store};
pub use seal::{DataKey, KeyRing, MasterKey, SealError};
pub use watch::{Ended, WATCHABLE_FIELDS, WatchFilter, WatchItem};
