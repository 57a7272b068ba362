//! The commands that do not change a database: `status`, `check` and `new`.

pub mod check;
pub mod new;
pub mod status;
