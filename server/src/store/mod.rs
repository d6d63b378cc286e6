//! The store: a cluster is one ordered log in Postgres with an in-memory copy in front.

pub mod object;

pub use object::{Change, ChangeKind, Draft, Key, Object, ResourceName, Revision};
