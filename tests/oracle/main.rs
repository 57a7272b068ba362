//! premigrate's reading of SQL, held against PostgreSQL's own parser and against a server.
//!
//! A crate of its own, since the parser is PostgreSQL's C code: `scripts/test` runs it. What it
//! reads beside our own files, the server's and PostgreSQL's regression suite, `scripts/setup
//! oracle` fetches.

mod agreement;
mod corpus;
mod fuzz;
mod parser;
mod server;
