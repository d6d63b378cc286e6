//! Pods: from the desired object to running containers and back to a status.
//!
//! Pure: [`plan`] (what to do next), [`status`] (what to say), [`environment`], [`backoff`], [`spec`].
//! With I/O: the worker of each pod, and the manager that watches the cluster for pods of this node.

pub mod backoff;
pub mod desired;
pub mod environment;
pub mod images;
pub mod manager;
pub mod network;
pub mod plan;
pub mod references;
pub mod spec;
pub mod status;
pub mod view;
pub mod worker;
