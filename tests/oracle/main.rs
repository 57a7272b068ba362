//! Compares how premigrate reads SQL with PostgreSQL's own parser and with its servers.
//!
//! A separate crate, since the parser is PostgreSQL's C code. `scripts/test` runs it. `scripts/setup
//! oracle` fetches the server's files and PostgreSQL's regression suite; `scripts/setup node` fetches
//! the servers, pinned in `package-lock.json`.

mod agreement;
mod corpus;
mod fuzz;
mod parser;
mod server;
