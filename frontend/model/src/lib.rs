//! What the page makes of what it is told.
//!
//! Everything here is a function from data to data: no browser, no clock of its own, no signals. So it is tested natively
//! in milliseconds, and the rest of the page is left with painting. Nothing here may name leptos or web-sys.

pub mod apply;
pub mod attention;
pub mod deployment;
pub mod domain;
pub mod kinds;
pub mod kube;
pub mod lines;
pub mod link;
pub mod markup;
pub mod new_app;
pub mod node;
pub mod pod;
pub mod reach;
pub mod read;
pub mod scheduling;
pub mod service;
pub mod state;
pub mod table;
pub mod time;
pub mod topology;
pub mod words;
pub mod workload;
pub mod yaml;

pub use state::{Sentence, State};
pub use words::Word;
