//! Connecting to the server and querying it, by blocking calls.

pub mod backend_pid;
pub mod conninfo;
pub mod dns;
mod error;
pub mod known_messages;
mod login;
pub mod result;
pub mod server_error;
pub mod session;
mod simple_query;
pub mod socket;
pub mod tls;
pub mod wait;
