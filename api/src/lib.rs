//! What server, agent, page and tests share.
//!
//! This crate has no I/O, no clock and no randomness, and builds for WebAssembly. It must never name axum, sqlx, tokio
//! or Docker. Everything here is either a wire shape (a struct that both ends of a connection serialize) or a rule that
//! both ends must judge alike (names, selectors, quantities).

pub mod accounts;
pub mod edge;
pub mod field;
pub mod ids;
pub mod join_token;
pub mod meta;
pub mod name_servers;
pub mod names;
pub mod network;
pub mod network_policy;
pub mod node;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod stream;

pub use status::Status;
