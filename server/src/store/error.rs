//! What can go wrong between a caller and the log, told apart by what the caller may conclude from it.

use super::Revision;

/// Why a read, a watch or a cluster could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No cluster of that id: 404, as for one of another tenant.
    #[error("no such cluster")]
    NotFound,
    /// A cluster of that name is there already.
    #[error("a cluster of this name exists already")]
    AlreadyExists,
    /// The revision asked for lies before what is kept: 410, list again.
    #[error("too old resource version, the oldest that is kept is {}", oldest.0)]
    Compacted { oldest: Revision },
    /// The revision asked for has not happened yet: wait a little (`Cluster::reached`), then 504.
    #[error("too large resource version, current: {}", current.0)]
    Future { current: Revision },
    /// Another replica owns the cluster; `advertise` is where it is reached.
    #[error("the cluster is served by {advertise}")]
    NotOwner { advertise: String },
    /// Postgres is away, or this replica's lease has run out: 503, try again.
    #[error("{0}")]
    Unavailable(String),
    /// A row that can't be what was written: a wrong key, a truncated file. 500, and an operator has to look.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// Why a write was not applied, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("the object exists already")]
    AlreadyExists,
    #[error("the object does not exist")]
    NotFound,
    /// The object is no longer at the revision that the write was made from.
    #[error("the object has been modified")]
    Conflict,
    /// 413. Surely not applied.
    #[error("the object would be larger than {} bytes", super::object::MOST_BYTES)]
    TooLarge,
    /// The cluster's queue is full: 429. Surely not applied.
    #[error("too many writes are waiting")]
    Busy { retry_after_seconds: u32 },
    /// Surely not applied: 503.
    #[error("{0}")]
    Unavailable(String),
    /// Postgres has no room left: 507. Surely not applied.
    #[error("the database's disk is full, nothing was written")]
    Full,
    /// Sent to Postgres, and the answer did not come in time: it may be applied or not. 504.
    #[error("the write's outcome is not known")]
    Unknown,
}
