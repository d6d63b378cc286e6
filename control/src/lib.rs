//! The brain: controllers and scheduler as pure functions over an indexed view of a cluster.
//!
//! Nothing here awaits, reads a clock, draws a random number, or knows HTTP or SQL: time and seeds are arguments.

pub mod action;
pub mod contacts;
pub mod controllers;
pub mod projection;
pub mod scheduler;
pub mod usage;
pub mod view;

pub use action::{Action, Event, EventType, ObjectKey, Outcome, PatchKind, Propagation, Report};
pub use projection::Projection;
pub use view::View;
