//! Connecting to the server and querying it, by blocking calls.
//!
//! - `conninfo`: connection strings, and the variables that complete them.
//! - `login`: from a target to a session, by `dns`, `socket` and `tls`; `wait` decides whether to
//!   try again, and `known_messages` recognizes what poolers say.
//! - `session`: queries and batches over `simple_query`; `backend_pid`: the backend
//!   that a cancel request names.
//! - `server_settings`: what the server makes of the settings of the connection string.
//! - `server`: what the server is.
//! - `result`, `notices`, `server_error` and `error`: what comes back.

pub mod backend_pid;
pub mod conninfo;
pub mod dns;
mod error;
pub mod known_messages;
mod login;
pub mod notices;
mod relay;
pub mod result;
mod server;
pub mod server_error;
pub mod server_settings;
pub mod session;
mod simple_query;
pub mod socket;
pub mod tls;
pub mod wait;
