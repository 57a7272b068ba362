//! premigrate's reading of SQL, held against PostgreSQL's own parser and against its servers.
//!
//! A crate of its own, since the parser is PostgreSQL's C code: `scripts/test` runs it. What it
//! reads beside our own files, the server's and PostgreSQL's regression suite, `scripts/setup
//! oracle` fetches; and the servers from npm, pinned in `package-lock.json`, `scripts/setup node`.

mod agreement;
mod corpus;
mod fuzz;
mod parser;
mod server;
