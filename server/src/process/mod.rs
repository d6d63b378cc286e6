//! The process around the rooms: the port it listens on, the Postgres it may keep, the files `dev` writes, its commands.

pub mod listener;
pub mod postgres;
