//! What statements do to tables that exist, and what does less: which lock they take, whether they scan or
//! rewrite the table, and what they take from the version of the app that still runs. Pure.
//!
//! - `hazard`: what is found, in terms of PostgreSQL's locks.
//! - `reader` goes through the migrations in order; `statement`, `alter_table` and `column` are its rules.
//! - `schema`: what the migrations have made so far.
//! - `size`: how large the tables are, and what that means for a hazard.
//! - `syntax` reads a statement with PostgreSQL's grammar. What runs does not depend on it.

mod alter_table;
mod column;
mod column_type;
mod hazard;
mod reader;
mod schema;
mod size;
mod statement;
mod syntax;

pub use self::hazard::{Effect, Hazard, NEXT_MIGRATION, Patch, Work, gathered};
pub use self::reader::Reader;
pub use self::schema::TableName;
pub use self::size::{Relation, SMALL, Sizes, TableSize, measured};

#[cfg(test)]
mod tests;
