//! The session that holds the lock while a statement runs outside a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{BUILD, BUILDING, VALID, with_writer};
use crate::harness::{Database, Folder, premigrate};
use crate::proxy::{Action, Proxy};

const HOLDERS: &str = "select pid from pg_locks where locktype = 'advisory' \
    and database = (select oid from pg_database where datname = current_database())";

fn folder() -> Folder {
    Folder::drizzle0(&[("0000_a", BUILD)])
}

/// Ends the session that holds the lock; returns its process number.
fn end_holder(database: &Database) -> String {
    let holder = database.value(HOLDERS);
    database.execute(&format!("select pg_terminate_backend({holder})"));
    database.wait_for_no("holder", &format!("{HOLDERS} and pid = {holder}"));
    holder
}

#[test]
fn the_session_that_holds_the_lock_is_used_now_and_then_and_takes_no_snapshot() {
    let database = Database::fresh();
    let mut writer = with_writer(&database);
    let folder = folder();
    let running = premigrate(&database, &folder).start();
    database.wait_for("the build", BUILDING);
    let holder = format!("select from pg_stat_activity where pid = {}", database.value(HOLDERS));
    let used = |after: &str| {
        let used =
            format!("{holder} and state_change > '{after}' and state = 'idle in transaction'");
        database.wait_for("its use", &used);
        let state = holder.replace("from", "state_change, backend_xmin from");
        let state = database.value(&state);
        state.strip_suffix('|').expect("no snapshot").to_owned()
    };
    let once = used("-infinity");
    used(&used(&once));
    writer.batch_execute("commit").unwrap();
    running.finish().exits(0).says(&["applied 0000_a"]);
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

#[test]
fn a_lock_that_was_lost_during_a_statement_is_taken_again() {
    let database = Database::fresh();
    let mut writer = with_writer(&database);
    let folder = folder();
    let first = premigrate(&database, &folder).start();
    database.wait_for("the build", BUILDING);
    let lost = end_holder(&database);
    database.wait_for("the new holder", &format!("{HOLDERS} and pid <> {lost}"));
    let second = premigrate(&database, &folder).start();
    second.wait_to_say("for another runner to finish");
    writer.batch_execute("commit").unwrap();
    let first = first.finish().exits(0);
    first.says(&["0000_a: lost the connection that held the lock", "applied 0000_a"]);
    second.finish().exits(0);
    assert_eq!(database.rows(VALID), ["t_a true false"]);
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

#[test]
fn a_statement_whose_runner_has_lost_only_the_lock_is_left_to_it() {
    let database = Database::fresh();
    let mut writer = with_writer(&database);
    let folder = folder();
    let is_cut_off = Arc::new(AtomicBool::new(false));
    let cut_off = is_cut_off.clone();
    let proxy = Proxy::start(move |message| {
        // No new connection gets through.
        let is_new = message.tag == 0 && cut_off.load(Ordering::SeqCst);
        if is_new { Action::Cut } else { Action::Pass }
    });
    let first = premigrate(&proxy.to(&database), &folder).start();
    database.wait_for("the build", BUILDING);
    is_cut_off.store(true, Ordering::SeqCst);
    end_holder(&database);
    first.wait_to_say("lost the connection that held the lock");
    let second = premigrate(&database, &folder).start();
    second.wait_to_say("still runs a statement of an earlier attempt; waiting");
    is_cut_off.store(false, Ordering::SeqCst);
    second.wait_to_say("for another runner to finish");
    writer.batch_execute("commit").unwrap();
    first.finish().exits(0).says(&["applied 0000_a"]);
    second.finish().exits(0).does_not_say("terminating");
    assert_eq!(database.rows(VALID), ["t_a true false"]);
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

#[test]
fn a_lock_that_another_took_during_a_statement_does_not_undo_what_the_statement_did() {
    let database = Database::fresh();
    let mut writer = with_writer(&database);
    let folder = folder();
    let running = premigrate(&database, &folder).start();
    database.wait_for("the build", BUILDING);
    end_holder(&database);
    let mut other = database.holding("select pg_advisory_xact_lock(8102650200187171425)");
    running.wait_to_say("lost the connection that held the lock");
    writer.batch_execute("commit").unwrap();
    let built = "select from pg_index where indexrelid = to_regclass('t_a') and indisvalid";
    database.wait_for("the index", built);
    running.wait_to_say("0000_a: the statement has ended; waiting up to");
    other.batch_execute("commit").unwrap();
    running.finish().exits(0).says(&["applied 0000_a"]);
    assert_eq!(database.rows(VALID), ["t_a true false"]);
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

#[test]
fn steps_are_not_said_to_be_left_of_a_migration_that_another_runner_has_finished() {
    let database = Database::fresh();
    let sql = "create table log (what text);\ncommit;\ninsert into log values ('a')";
    let folder = Arc::new(Folder::drizzle0(&[("0000_a", sql)]));
    let (direct, same) = (database.direct(), folder.clone());
    let begun = AtomicUsize::new(0);
    let proxy = Proxy::start(move |message| {
        // Before our second step, another runner does it, and then the history is damaged.
        let is_begin = message.text.starts_with("begin isolation");
        if is_begin && begun.fetch_add(1, Ordering::SeqCst) == 1 {
            premigrate(&direct, &same).run().exits(0);
            direct.execute("update drizzle.__drizzle_migrations set hash = 'another'");
            return Action::Cut;
        }
        Action::Pass
    });
    let run = premigrate(&proxy.to(&database), &folder).run().exits(65);
    run.says(&["edited"]).does_not_say("steps of 0000_a");
    assert_eq!(database.rows("select what from log"), ["a"]);
}
