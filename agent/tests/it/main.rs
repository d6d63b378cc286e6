//! Tests of the agent against the real kernel and real containers (they need root), and over a tunnel's wire.

mod client;
mod machine;
mod network;
#[path = "../../../tunnel/tests/wire/mod.rs"]
mod wire;
