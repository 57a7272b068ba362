//! The process: its signals, what it prints, and the app that it becomes.

pub mod exec;
pub mod printer;
pub mod signals;
