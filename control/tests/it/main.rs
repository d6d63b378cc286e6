//! Controllers and scheduler together, over a whole cluster in memory, in virtual time.

mod outages;
mod rollouts;
mod world;
