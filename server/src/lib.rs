//! longshore-server: Kubernetes's API for many tenants on one Postgres.
//!
//! The rooms, and what may know what (a room may use those below it, never one above):
//! `edge` → `gateway` and `cluster` → `apiserver` → `resources`, `accounts` → `store`. Only `store`, `accounts` and `edge` hold
//! SQL; only `apiserver`, `accounts` and `gateway` know HTTP.

pub mod accounts;
mod alarm;
pub mod apiserver;
pub mod app;
pub mod cluster;
pub mod edge;
pub mod gateway;
pub mod health;
pub mod metrics;
mod offload;
pub mod page;
pub mod process;
pub mod resources;
mod socket;
pub mod store;
pub mod stream;
