//! Who reaches whom, and why not: Kubernetes's NetworkPolicies ([`policy`]), the whole way of a connection step by step
//! ([`why`]), and all pairs at once ([`matrix`]).
//!
//! Judged is what the cluster's objects say. What runs is told by nodes; whether a program listens nobody here knows.

pub mod matrix;
pub mod policy;
pub mod why;
