//! The history: Drizzle's own table, the progress table beside it, and the plan made from both.
//!
//! Pure. What is sent to the server is returned as SQL; what it answers is parsed from text.

pub mod matching;
pub mod plan;
mod privileges;
pub mod progress;
pub mod table;
