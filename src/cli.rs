//! The command line, the environment and `.env`.
//!
//! - `args`: the options, their variables and `--help`. `environment`: the variables that are set, and
//!   what `dotenv` adds.
//! - `config`: what both mean. `error`: what is wrong with them.

pub mod args;
pub mod config;
pub mod dotenv;
pub mod environment;
pub mod error;
