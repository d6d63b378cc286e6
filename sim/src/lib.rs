//! The deterministic simulator.
pub mod clockwork;
pub mod dice;
