//! The command line, the environment and `.env`.
//!
//! - `args`: the options, their variables and `--help`. `environment`: the variables that are set, and
//!   what `dotenv` adds.
//! - `config`: what both mean. `only_for`: whether the app is one of these. `health`: addresses to listen
//!   on and to check. `error`: what is wrong with them.

pub mod args;
pub mod config;
pub mod dotenv;
pub mod environment;
pub mod error;
pub mod health;
mod only_for;
