//! Drizzle's history table, the progress table beside it, and the plan made from both. Pure: what
//! is sent to the server is returned as text.

pub mod matching;
pub mod plan;
pub mod progress;
pub mod table;
