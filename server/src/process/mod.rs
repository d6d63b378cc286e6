//! The process around the rooms: its commands, the port it listens on, the Postgres it may keep, the files `dev` writes.

pub mod dev;
pub mod edge;
pub mod files;
pub mod listener;
pub mod names;
pub mod postgres;
pub mod serving;
mod stall;
mod unread;
