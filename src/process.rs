//! The process: its signals, what it prints, and the app that it becomes.
//!
//! - `signals`: the signal that ends a run, and deadlines. `printer`: standard output and error.
//! - `exec`: becoming the app.

mod dispositions;
pub mod exec;
pub mod printer;
pub mod signals;
