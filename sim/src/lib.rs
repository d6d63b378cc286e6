//! The deterministic simulator: whole clusters under virtual time in one thread, from one seed.
//!
//! Real: the store (over a database in memory that two replicas share), the API with its HTTP, admission and authorization,
//! controllers, scheduler and their drivers, tunnels, and the nodes' agents. Pretended: the database, what containers do,
//! and what carries messages; each delays, loses, repeats and breaks what the seed says. A [`witness`] sees every commit and
//! asks the sentences in [`checks`]; after the last fault everything must come to be as it is wanted, and to rest.
//!
//! A [`world`] is one thread: tokio's clock stands still while there is work and jumps when there is none, and clocks and
//! random bytes are answered by [`clockwork`]. So a seed is a history, always the same.

pub mod checks;
pub mod clockwork;
mod containers;
pub mod dice;
mod fate;
mod machine;
mod nemesis;
mod net;
mod process;
mod users;
mod watchers;
mod wire;
pub mod witness;
pub mod world;
