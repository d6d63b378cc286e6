//! The parts that pages are made of.

pub mod dialog;
pub mod editor;
pub mod icon;
pub mod logs;
pub mod palette;
pub mod shell;
pub mod state;
pub mod table;
pub mod theme;
