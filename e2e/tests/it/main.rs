//! Whole-system tests, each a story that a user could tell.

mod browser;
mod hostile;
mod main_job;
mod postgres;
