//! The commands that do not change a database: `wait`, `status`, `list --extract`, `check`, `new`,
//! `bundle` and `healthcheck`.

pub mod bundle;
pub mod check;
pub mod extract;
pub mod healthcheck;
pub mod new;
pub mod status;
pub mod wait;
