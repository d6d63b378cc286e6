//! The edge.
pub mod host;
pub mod ingress;
pub mod model;
pub mod path;
pub mod services;
pub mod table;
