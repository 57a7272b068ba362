//! The history: Drizzle's own table, the plan that follows from it, and the progress table beside it.
//!
//! Pure. What is sent to the server is returned as SQL; what it answers is parsed from text.
//!
//! - `table`: the history table, its rows, and all SQL about it. `privileges`: what it must grant.
//! - `progress`: the table with the progress of incomplete migrations.
//! - `matching`: which row records which migration.
//! - `plan`: what to apply, what to record, and what stops a run: a migration that was edited, say.

pub mod matching;
pub mod plan;
mod privileges;
pub mod progress;
pub mod table;
