//! The command line, the environment and `.env`.

pub mod args;
pub mod config;
pub mod dotenv;
pub mod environment;
pub mod error;
