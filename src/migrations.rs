//! From files to an ordered, checked set of migrations, each split into steps. Needs no database.
//!
//! - `source` reads files, from this executable or a folder; `content` is what one holds, and
//!   `payload` how a bundle carries them.
//! - `layout` finds the migrations among them, and their order: by `folder_time` and `collation`.
//! - `rule`: what may be wrong with them, which `check` reports; `ignore`: what it is not to report.
//! - `down` recognizes down migrations, which other tools keep beside the others; `encoding`: text
//!   that is not UTF-8.
//! - `migration` is one of them; `steps` splits it, and `prepared` is the result. Which steps are done is recorded in `history::progress`.
//!   `replay`: the settings that a step inherits from earlier ones.
//! - `snapshots`: what drizzle-kit keeps beside them.

pub mod collation;
pub mod content;
pub mod down;
pub mod encoding;
pub mod folder_time;
pub mod ignore;
pub mod layout;
pub mod migration;
pub mod payload;
pub mod prepared;
pub mod replay;
pub mod rule;
pub mod snapshots;
pub mod source;
pub mod steps;
