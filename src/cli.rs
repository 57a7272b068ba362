//! What was asked for: the command line, the environment, `.env`.

pub mod args;
pub mod config;
pub mod dotenv;
