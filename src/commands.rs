//! The commands that change no database: `status`, `check`, `new`.

pub mod check;
pub mod new;
pub mod status;
