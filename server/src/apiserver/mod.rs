//! Kubernetes's HTTP API, one for each cluster, written once for all kinds.
//!
//! A core without HTTP (`Api`: verbs over a `Context`) and an HTTP shell around it (`router`). The shell parses, asks who
//! it is and whether they may, calls one verb, and renders the answer; the driver of controllers and the page's stream call
//! the same verbs. Nothing here holds SQL, knows a kind by name where its data can say it, or answers an error in another
//! shape than `Status`.

pub mod admission;
mod answer;
pub mod api;
mod apply;
pub mod authorize;
pub mod binding;
mod body;
pub mod decisions;
pub mod decode;
pub mod delete;
pub mod discovery;
mod errors;
mod frames;
mod heavy;
pub mod metadata;
mod metrics;
pub mod negotiate;
mod node_leases;
mod node_paths;
pub mod node_proxy;
mod node_restriction;
mod node_scope;
pub mod openapi;
pub mod options;
pub mod patch;
mod pod_place;
mod port_forward;
mod proxy;
pub mod read;
pub mod render;
pub mod request;
mod reviews;
pub mod router;
mod scale;
pub mod schema;
mod serve;
mod streams;
pub mod tokens;
pub mod watch;
pub mod write;

pub use api::{Api, Context, Deleted, Written};
pub use binding::Binding;
pub use node_proxy::NodeProxy;
pub use options::{
    CreateOptions, DeleteOptions, FieldValidation, GetOptions, ListOptions, PatchOptions, Propagation, UpdateOptions,
    VersionMatch, WatchOptions,
};
pub use read::Page;
pub use router::{InCluster, router};
pub(crate) use streams::raw as raw_stream;
pub use tokens::{BoundObject, IssuedToken, Publication, TokenIssuer, TokenSpec};
pub use watch::Watcher;
pub use write::Patch;
