//! Pods: from the desired object to running containers and back to a status.

pub mod network;
