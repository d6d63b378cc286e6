//! The store: a cluster is one ordered log in Postgres with an in-memory copy in front.
//!
//! A write's way: `Cluster::commit` → `sequencer` (judges it against the newest state, gives it a revision) → `flusher`
//! (one transaction for the batches of many clusters) → `postgres/flush` (the fence and the rows) → back to `cluster`
//! (memory, history, watchers), and only then the answer. A read's way: `cluster` → `memory`.
//!
//! **Invariants.** Nothing is published or answered before it is durable. A revision is given once. A replica that lost
//! a cluster can't write to it (epoch and revision are checked in the statement that writes) and doesn't serve it (the
//! lease is checked after each answer was taken). Nothing outside this room knows SQL of objects; nothing in it knows HTTP.

mod audience;
mod clock;
mod cluster;
mod companion;
mod error;
mod flusher;
mod follow;
mod frozen;
mod history;
mod house;
mod lease;
mod log;
mod memory;
pub mod object;
mod postgres;
mod quiet;
mod replica;
mod seal;
mod sequencer;
pub mod simulated;
pub mod testing;
#[cfg(test)]
mod tests;
mod volatile;
mod watch;
mod watcher;
mod written;

pub use cluster::{Cluster, ClusterInfo, CommitWait, Hold, Newest};
pub use error::{StoreError, WriteError};
pub use history::HistoryLimits;
pub use memory::{ListQuery, Listing};
pub use object::{Change, ChangeKind, Draft, Key, MOST_BYTES, Object, ResourceName, Revision};
pub use replica::{ClusterHook, Kinds, NewCluster, Retention, Store, StoreOptions};
pub use seal::{DataKey, KeyRing, MasterKey, SealError};
pub use sequencer::{QueueLimits, Write};
pub use watch::{Ended, WATCHABLE_FIELDS, WatchFilter, WatchItem};
pub use watcher::Watch;

/// What clients are told; the log has the details.
const AWAY: &str = "the database can't be reached, please try again";
const MOVED: &str = "the cluster is being moved, please try again";
const LEASE_OVER: &str = "this replica has lost touch with the database, please try again";
