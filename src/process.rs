//! The process: its signals, what it prints, and the app that it becomes.
//!
//! - `signals`: the signal that ends a run, and deadlines. `printer`: standard output and error.
//! - `exec`: becoming the app. `allocator`: what is reported when there is no memory left.
//! - `segment`: what `bundle` has added to this executable. `json`: how all JSON is printed.

pub mod allocator;
mod dispositions;
pub mod exec;
pub mod json;
pub mod printer;
pub mod segment;
pub mod signals;
