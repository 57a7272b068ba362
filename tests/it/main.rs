//! The whole program against a real PostgreSQL server, whose address is in `TEST_DATABASE_URL`
//! (`scripts/with-postgres` gives one). Each test has a database of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod container;
mod harness;
mod pgbouncer;
mod proxy;
#[allow(dead_code, reason = "src/render/tests/documented.rs uses the rest")]
mod reference;
mod server;
mod server_settings;
mod snapshot;

mod answers;
mod app;
mod bare;
mod bench;
mod breaks;
mod bundle;
mod check;
mod copy;
mod create_database;
mod crowds;
mod cures;
mod deploy;
mod docs;
mod drizzle;
mod effects;
mod extremes;
mod failover;
mod failures;
mod faults;
mod folders;
mod fuzz;
mod handover;
mod health;
mod healthcheck;
mod history;
mod hostile;
mod house;
mod input;
mod libpq;
mod new;
mod notices;
mod only_for;
mod pid1;
mod pipeline;
mod planted;
mod quoting;
mod reasons;
mod rehearse;
mod rotation;
mod runners;
mod scale;
mod secrets;
mod settings;
mod signals;
mod sizes;
mod split;
mod streams;
mod terminal;
mod through;
mod tls;
mod up;
mod vigilance;
mod wait;
mod waiting;
