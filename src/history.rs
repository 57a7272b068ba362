//! The history: Drizzle's own table, the plan that follows from it, and the progress table beside it.
//!
//! Pure. What is sent to the server is returned as SQL; what it answers is parsed from text.
//!
//! - `table`: the history table, its rows, and all SQL about it. `privileges`: what it must grant.
//! - `progress`: the table that records which steps are done, written by `apply::transaction` and `apply::standalone`.
//! - `matching`: which row records which migration, and whether that was edited since.
//! - `plan`: what to apply, what to record, and which of the findings of `matching` stop a run.

pub mod matching;
pub mod plan;
mod privileges;
pub mod progress;
pub mod table;
