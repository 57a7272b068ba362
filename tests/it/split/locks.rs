//! Statements outside a transaction that a lock does not come to: they are tried again too.

use crate::harness::{Database, Folder, premigrate};

/// A session of ours that waits for a lock.
const WAITING: &str = "select from pg_stat_activity where datname = current_database() \
    and application_name = 'premigrate' and wait_event_type = 'Lock'";

#[test]
fn an_index_build_that_a_deadlock_ends_is_dropped_and_built_again() {
    let database = Database::fresh();
    database.execute(&format!(
        "create table t (a int); alter database {} set deadlock_timeout = '2s'",
        database.name
    ));
    // The build waits for this writer, which then waits for the build. Only the build looks for it.
    let mut writer = database.client();
    writer.batch_execute("set deadlock_timeout = '1h'; begin; insert into t values (1)").unwrap();
    let folder = Folder::drizzle0(&[("0000_a", "create index concurrently t_a on t (a)")]);
    let running = premigrate(&database, &folder).start();
    database.wait_for("the build", WAITING);
    writer.batch_execute("lock table t in share update exclusive mode; commit").unwrap();
    running.finish().exits(0).says(&[
        "0000_a failed: deadlock (40P01 deadlock detected",
        "rebuilding the invalid index public.t_a",
        "applied 0000_a",
    ]);
    let valid = "select indisvalid from pg_index where indrelid = 't'::regclass";
    assert_eq!(database.rows(valid), ["t"]);
    assert_eq!(database.leftovers(), [] as [String; 0]);
}

#[test]
fn a_vacuum_to_which_a_lock_does_not_come_is_tried_again() {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    let mut holder = database.client();
    let lock = "set application_name = 'shop'; begin; lock table t in share update exclusive mode";
    holder.batch_execute(lock).unwrap();
    let folder = Folder::drizzle0(&[("0000_a", "vacuum t")]);
    let args = ["--lock-timeout", "300ms", "--lock-retries"];
    premigrate(&database, &folder).args(&args).arg("0").run().exits(75).says(&["55P03"]);

    let running = premigrate(&database, &folder).args(&args).arg("8").start();
    database.wait_for("the vacuum", WAITING);
    database.wait_for_no("vacuum that waits", WAITING);
    holder.batch_execute("commit").unwrap();
    running.finish().exits(0).says(&["0000_a failed: lock timeout (55P03", "applied 0000_a"]);
    assert_eq!(database.leftovers(), [] as [String; 0]);
}
