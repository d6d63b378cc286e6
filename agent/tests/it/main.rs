//! Tests of the agent against the real kernel and real containers (they need root), and over a tunnel's wire.

mod api;
mod client;
mod dns;
mod events;
mod firewall;
mod images;
mod ipv6;
mod machine;
mod mesh;
mod network;
mod node;
mod pods;
mod policies;
mod security;
mod services;
mod sessions;
mod volumes;
#[path = "../../../tunnel/tests/wire/mod.rs"]
mod wire;
