//! The whole program against a real PostgreSQL server, whose address is in `TEST_DATABASE_URL`
//! (`scripts/with-postgres` gives one). Each test has a database of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod harness;
mod pgbouncer;
mod proxy;

mod answers;
mod app;
mod breaks;
mod check;
mod docs;
mod drizzle;
mod failures;
mod handover;
mod history;
mod input;
mod pid1;
mod quoting;
mod runners;
mod scaffold;
mod scale;
mod settings;
mod signals;
mod up;
mod waiting;
