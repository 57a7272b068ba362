//! Statements outside a transaction whose runner is killed just before the server has them, or just
//! after it is done with them: what the catalogs then say is judged by what there was before.

use super::killed::killed_at;
use super::{PROGRESS, VALID};
use crate::harness::{Database, Folder, has_since, premigrate, rows};
use crate::proxy::{Action, Side};

/// Killed before the server has the statement that begins so.
fn killed_before(database: &Database, folder: &Folder, statement: &'static str) {
    let run = killed_at(database, folder, Action::Cut, move |message| {
        let tagged = message.text.starts_with("/* premigrate ");
        message.from == Side::Client && tagged && message.text.contains(statement)
    });
    assert_eq!(run.code, -9, "{}", run.stderr);
}

/// Killed when the server is done with a statement, and says this of it.
fn killed_behind(database: &Database, folder: &Folder, done: &'static str) {
    let run = killed_at(database, folder, Action::Cut, move |message| {
        message.from == Side::Server && message.tag == b'C' && message.text.starts_with(done)
    });
    assert_eq!(run.code, -9, "{}", run.stderr);
}

/// A runner that was killed before its statement had begun, and whose process number another role's
/// backend has now.
#[test]
fn the_backend_of_another_role_with_the_same_process_number_is_left_alone() {
    for may_terminate in [false, true] {
        let database = Database::fresh();
        let (role, url) = database.role();
        database.execute(&format!(
            "grant create on database {} to {role}; create schema s authorization {role}; \
             create table s.t (a int); alter table s.t owner to {role}",
            database.name
        ));
        if may_terminate {
            database.execute(&format!("grant pg_signal_backend to {role}"));
        }
        let ours = database.at(url);
        let (_, url) = database.role();
        let mut stranger = database.at(url).client();
        let folder = Folder::drizzle0(&[("0000_a", "vacuum s.t")]);
        killed_before(&ours, &folder, "vacuum");
        let pid = rows(&mut stranger, "select pg_backend_pid()").join("");
        database.execute(&format!("update drizzle.__drizzle_migrations_progress set pid = {pid}"));
        premigrate(&ours, &folder).run().exits(0).does_not_say("terminating");
        assert_eq!(rows(&mut stranger, "select 1"), ["1"], "{may_terminate}");
    }
}

/// With their schemas.
fn indexes(database: &Database) -> Vec<String> {
    database.rows("select schemaname || '.' || indexname from pg_indexes where tablename = 't'")
}

#[test]
fn an_index_that_was_there_before_is_not_taken_for_the_one_that_was_to_be_built() {
    let database = Database::fresh();
    database.execute("create table t (a int, b int); create index i on t (a)");
    let build = |when: &str| format!("create unique index concurrently {when}i on t (b)");
    let folder = Folder::drizzle0(&[("0000_a", &build(""))]);
    killed_before(&database, &folder, "create unique index");
    premigrate(&database, &folder).run().exits(70).says(&["42P07"]);
    assert_eq!(database.rows(VALID), ["i true false"]);

    folder.write("0000_a.sql", build("if not exists "));
    killed_before(&database, &folder, "create unique index");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows(VALID), ["i true false"]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn an_index_whose_name_cannot_be_read_is_not_recorded_while_it_is_invalid() {
    let database = Database::fresh();
    database.execute("create table t (a int); insert into t values (1), (1)");
    let sql = "create unique index concurrently if not exists U&\"\\0069\" on t (a)";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    premigrate(&database, &folder).run().exits(70).says(&["23505"]);
    premigrate(&database, &folder).run().exits(70).says(&["0000_a"]);
    assert_eq!(database.history(), Vec::<String>::new());
}

#[test]
fn an_index_that_was_dropped_is_not_taken_for_the_next_one_of_that_name() {
    let database = Database::fresh();
    database.execute(
        "create schema s1; create schema s2; create table s1.t (a int); create table s2.t (a int); \
         create index i on s1.t (a); create index i on s2.t (a)",
    );
    let sql = "set search_path = s1, s2;\ndrop index concurrently i";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    killed_behind(&database, &folder, "DROP INDEX");
    premigrate(&database, &folder).run().exits(0).says(&["is already done"]);
    assert_eq!(indexes(&database), ["s2.i"]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn an_index_that_was_never_there_is_not_taken_for_one_that_was_dropped() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "drop index concurrently i")]);
    killed_before(&database, &folder, "drop index");
    premigrate(&database, &folder).run().exits(70).says(&["42704"]);

    folder.write("0000_a.sql", "drop index concurrently if exists i");
    killed_before(&database, &folder, "drop index");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn an_index_is_looked_for_on_the_table_that_its_build_began_on() {
    let database = Database::fresh();
    database.execute("create table t (a int); create schema other; create table other.t (a int)");
    let folder = Folder::drizzle0(&[("0000_a", "create index concurrently \"I\" on t (a)")]);
    killed_behind(&database, &folder, "CREATE INDEX");
    let path = format!("alter database {} set search_path = other, public", database.name);
    database.execute(&path);
    premigrate(&database, &folder).run().exits(0).says(&["is already done"]);
    assert_eq!(indexes(&database), ["public.I"]);
    assert_eq!(database.value(PROGRESS), "");
}

/// A database with a table `p` and a partition `q` of it.
fn with_partition() -> Database {
    let database = Database::fresh();
    database.execute(
        "create table p (a int) partition by list (a); \
         create table q partition of p for values in (1)",
    );
    database
}

const DETACH: &str = "alter table p detach partition q concurrently";
const PARTITIONS: &str = "select inhrelid::regclass from pg_inherits";

#[test]
fn a_partition_that_was_detached_by_half_is_detached() {
    if !has_since(14, "DETACH PARTITION ... CONCURRENTLY") {
        return;
    }
    let database = with_partition();
    let mut reader = database.holding("select from p");
    let folder = Folder::drizzle0(&[("0000_a", DETACH)]);
    let mut killed = premigrate(&database, &folder).start();
    database.wait_for("its half", "select from pg_inherits where inhdetachpending");
    killed.child.kill().unwrap();
    killed.finish();
    assert_eq!(database.leftovers(), [] as [String; 0]);
    reader.batch_execute("commit").unwrap();
    let run = premigrate(&database, &folder).run().exits(0);
    run.says(&["finishing it with: alter table public.p detach partition public.q finalize"]);
    assert_eq!(database.rows(PARTITIONS), [""; 0]);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn whether_a_partition_was_detached_is_seen() {
    if !has_since(14, "DETACH PARTITION ... CONCURRENTLY") {
        return;
    }
    let database = with_partition();
    let folder = Folder::drizzle0(&[("0000_a", DETACH)]);
    killed_before(&database, &folder, "detach");
    killed_behind(&database, &folder, "ALTER TABLE");
    assert_eq!(database.rows(PARTITIONS), [""; 0]);
    premigrate(&database, &folder).run().exits(0).says(&["is already done"]);

    // Nor is there a doubt where it was refused, or was none before.
    folder.add("0001_b", DETACH);
    killed_before(&database, &folder, "detach");
    premigrate(&database, &folder).run().exits(70).says(&["is not a partition of"]);
    folder.write("0001_b.sql", "alter table p detach partition none concurrently");
    premigrate(&database, &folder).run().exits(70).says(&["42P01"]);
    folder.write("0001_b.sql", "vacuum p");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn a_procedure_that_was_refused_before_it_ran_leaves_no_doubt() {
    if !has_since(14, "BEGIN ATOMIC") {
        return;
    }
    let database = Database::fresh();
    database.execute("create table log (a int); create procedure q() begin atomic; end");
    let sql = |statement: &str| format!("-- premigrate: no-transaction\n{statement}");
    let folder = Folder::drizzle0(&[("0000_a", &sql("call p(now())"))]);
    premigrate(&database, &folder).run().exits(70).says(&["42883"]);
    folder.write("0000_a.sql", sql("do $$ begin insert into log values (1); selec 1; end $$"));
    premigrate(&database, &folder).run().exits(70).says(&["42601"]);
    folder.write("0000_a.sql", sql("call q()"));
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.value(PROGRESS), "");
}

#[test]
fn a_procedure_in_which_something_was_refused_leaves_a_doubt() {
    for failing in ["call p(now())", "selec 1", "create function p() language plpgsql as $_$ x $_$"]
    {
        let folder = Folder::drizzle0(&[(
            "0000_a",
            &format!(
                "-- premigrate: no-transaction\n\
                 do $do$ begin insert into log values (1); commit; \
                 execute $e${failing}$e$; end $do$"
            ),
        )]);
        let database = Database::fresh();
        database.execute("create table log (a int)");
        premigrate(&database, &folder).run().exits(70).says(&["42"]);
        let run = premigrate(&database, &folder).run().exits(70);
        run.says(&["nothing shows whether it finished"]);
        assert_eq!(database.value("select count(*) from log"), "1");
    }
}
