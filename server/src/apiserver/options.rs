//! What a verb is asked for beside its object: `metav1.ListOptions` and its kin, parsed and checked once.

use longshore_api::selector::{FieldSelector, LabelSelector};

/// How strictly unknown and duplicate fields of a body are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    /// What a server does for clients that say nothing.
    #[default]
    Warn,
    Strict,
}

/// How a `resourceVersion` in a read is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionMatch {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// "" or "0" or a revision: not older than.
    pub resource_version: String,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// 0: no limit.
    pub limit: usize,
    pub r#continue: String,
    pub resource_version: String,
    pub version_match: VersionMatch,
}

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub resource_version: String,
    pub version_match: VersionMatch,
    pub bookmarks: bool,
    /// None: what `resourceVersion` implies. Some(true): the state first, then a bookmark that says so.
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    pub dry_run: bool,
    pub field_manager: String,
}

#[derive(Clone, Debug, Default)]
pub struct UpdateOptions {
    pub dry_run: bool,
    pub field_manager: String,
}

#[derive(Clone, Debug, Default)]
pub struct PatchOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}
