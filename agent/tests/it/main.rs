//! Tests of the agent against the real kernel and real containers; they need root.

mod machine;
mod network;
