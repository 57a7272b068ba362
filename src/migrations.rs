//! From files to an ordered, checked set of migrations, each split into steps. Needs no database.
//!
//! - `source` reads files, from this executable or a folder.
//! - `layout` finds the migrations among them, and their order: by `folder_time` and `collation`.
//! - `down` recognizes down migrations, which other tools keep beside the others.
//! - `migration` is one of them; `steps` splits it, and `prepared` is the result.
//!   `replay`: the settings that a step inherits from earlier ones.

pub mod collation;
pub mod down;
pub mod folder_time;
pub mod layout;
pub mod migration;
pub mod prepared;
pub mod replay;
pub mod source;
pub mod steps;
