//! Pods: from the desired object to running containers and back to a status.
//!
//! Pure: [`plan`] (what to do next), [`status`] (what to say), [`told`]
//! (what the server knows), [`admission`], [`security`], [`resources`],
//! [`environment`], [`backoff`], [`spec`].
//! With I/O: the worker of each pod, and the manager that watches the cluster for pods of this node.

pub mod admission;
pub mod backoff;
pub mod desired;
pub mod environment;
pub mod images;
pub mod lifecycle;
pub mod manager;
pub mod network;
pub mod plan;
pub mod pulls;
pub mod references;
pub mod resources;
pub mod security;
pub mod services;
pub mod spec;
pub mod status;
pub mod told;
pub mod view;
pub mod worker;

#[cfg(test)]
mod world;
