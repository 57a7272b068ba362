//! The commands that do not change a database: `wait`, `status`, `check`, `new` and `healthcheck`.

pub mod check;
pub mod healthcheck;
pub mod new;
pub mod status;
pub mod wait;
