//! From files to an ordered, checked set of migrations, each split into steps. Needs no database.

pub mod collation;
pub mod folder_time;
pub mod layout;
pub mod migration;
pub mod prepared;
pub mod source;
pub mod steps;
