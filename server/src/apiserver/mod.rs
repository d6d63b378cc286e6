//! Kubernetes's HTTP API, one for each cluster, written once for all kinds.
//!
//! A core without HTTP (`Api`: verbs over a `Context`) and an HTTP shell around it (`router`). The shell parses, asks who
//! it is and whether they may, calls one verb, and renders the answer; the driver of controllers and the page's stream call
//! the same verbs. Nothing here holds SQL, knows a kind by name where its data can say it, or answers an error in another
//! shape than `Status`.

pub mod authorize;
pub mod decode;
pub mod discovery;
pub mod metadata;
pub mod negotiate;
pub mod node_proxy;
pub mod options;
pub mod patch;
pub mod render;
pub mod request;
pub mod schema;
pub mod tokens;

pub use node_proxy::NodeProxy;
pub use options::{
    CreateOptions, DeleteOptions, FieldValidation, GetOptions, ListOptions, PatchOptions, Propagation, UpdateOptions,
    VersionMatch, WatchOptions,
};
pub use tokens::{BoundObject, IssuedToken, TokenIssuer, TokenSpec};
