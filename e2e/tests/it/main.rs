//! Whole-system tests, each a story that a user could tell.

mod main_job;
