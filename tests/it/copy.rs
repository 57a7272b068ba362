//! `COPY ... FROM stdin` with its data, and the output of pg_dump. psql is the example.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{Database, Folder, has_since, output_of, premigrate};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Proxy, Side};
use crate::signals::SLEEPING;

const FILE: &str = "0000_copy.sql";

/// One migration, in a file that psql can run too.
fn one(sql: &str) -> Folder {
    Folder::drizzle0(&[("0000_copy", sql)])
}

/// Whether psql runs a file to its end.
fn psql(database: &Database, file: &Path) -> bool {
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "-d", &database.url, "-f"]);
    output_of(psql.arg(file)).status.success()
}

const TABLE: &str = "create table t (a text, b text);\n";

#[test]
fn the_data_of_copy_is_what_it_is_for_psql() {
    let long = format!("copy t from stdin;\n{}\\.\n", "0123456789\tb\n".repeat(30_000));
    for copy in [
        "copy t from stdin;\n\\.\nselect 1;\n;copy t from stdin;\n\\.\n",
        "copy t from stdin",
        "COPY public.t (b, a) FROM stdin; -- the data\n1\t2\n\\N\t\\\\N\n\\.\n",
        "copy t from stdin;\n1\t2\n3\t4",
        "copy t from stdin;\r\n1\t2\r\n\t\\N\r\n\\.\r\n",
        "copy t from stdin;\na\tit's; \"x\" $$ /* --> statement-breakpoint\n-- b\t\\\\.\n\\.\n",
        "copy t from stdin csv;\n\"1\n2\",\"it\"\"s\"\n,\"\"\n\\.\n",
        "copy t from stdin (format csv, header match);\na,b\n1,2\n\\.\n",
        "copy t from stdin with (delimiter '|', null 'none');\nnone|x\\|y\n\\.\n",
        "copy t from stdin csv quote '\"' escape '!';\n\"a!\"b\",c\n\\.\n",
        "copy t (a) from stdin where a <> '2';\n1\n2\n\\.\ncopy t (a) from stdin;\né😀\n\\.\n",
        "\\restrict x\ncopy t (a) from stdin;\n\\\\restrict\n\\.\n\\unrestrict x\n",
        &long,
    ] {
        let folder = one(&format!("{TABLE}{copy}"));
        let [ours, theirs] = [Database::fresh(), Database::fresh()];
        premigrate(&ours, &folder).run().exits(0);
        assert!(psql(&theirs, &folder.path.join(FILE)), "{copy}");
        let rows = "select ctid, t::text from t";
        assert_eq!(ours.rows(rows), theirs.rows(rows), "{copy}");
    }
}

#[test]
fn data_that_copy_refuses_is_reported_at_its_line_and_nothing_of_the_file_stays() {
    let has_match = has_since(15, "HEADER MATCH");
    for (copy, line) in [
        ("copy t from stdin;\n1\t2\n3\n\\.\n", 4),
        ("copy t from stdin csv;\n,\n\"1\n2\",3\n4,5,6\n\\.\nselect 1;", 6),
        ("copy t from stdin (format csv, header match);\na,c\n\\.\n", 3),
        ("copy t from stdin csv;\n\"a\n\\.\n", 3),
        ("copy n from stdin;\n1\n2\nx\n\\.\n", 5),
        ("copy t (c) from stdin;\n1\n\\.\n", 2),
    ] {
        if copy.contains("header match") && !has_match {
            continue;
        }
        let folder = one(&format!("{TABLE}{copy}"));
        let database = Database::fresh();
        database.execute("create table n (n int)");
        let run = premigrate(&database, &folder).run().exits(70);
        let run = run.says(&[&format!("at {FILE}:{line}:"), "statement 2 of"]);
        assert_eq!(database.tables(), ["n"], "{}", run.stderr);
        assert!(!psql(&database, &folder.path.join(FILE)), "{copy}");
    }
}

#[test]
fn the_output_of_pg_dump_is_a_migration() {
    let source = Database::fresh();
    source.execute(include_str!("copy/schema.sql"));
    let dump = |database: &Database, option: &str| {
        let mut pg_dump = Command::new("pg_dump");
        pg_dump.args(["--exclude-schema=drizzle", option, &database.url]);
        let output = output_of(&mut pg_dump);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The key of \restrict is another each time.
    let comparable = |dump: &str| -> Vec<String> {
        let lines = dump.lines().filter(|line| !line.contains("restrict "));
        lines.map(str::to_owned).collect()
    };
    let expected = comparable(&dump(&source, "--format=plain"));
    for option in ["--format=plain", "--inserts", "--column-inserts"] {
        let folder = one(&dump(&source, option));
        let database = Database::fresh();
        premigrate(&database, &folder).run().exits(0);
        assert_eq!(comparable(&dump(&database, "--format=plain")), expected, "{option}");
    }
}

#[test]
fn commands_of_psql_are_refused_all_at_once_before_anything_runs() {
    let folder = Folder::drizzle0(&[
        ("0000_first", "create table t (a int);"),
        ("0001_psql", "\\connect a\ncopy t from stdin;\n\\set\n\\.\nselect 1 \\gset\n\\i b.sql\n"),
    ]);
    let places = ["0001_psql.sql:1:1", "0001_psql.sql:5:10", "0001_psql.sql:6:1"];
    let database = Database::fresh();
    let run = premigrate(&database, &folder).run().exits(65).says(&places);
    assert_eq!(run.stderr.matches("which only psql understands").count(), 3, "{}", run.stderr);
    assert_eq!(database.tables(), Vec::<String>::new());
    let check = premigrate(&database, &folder).args(&["check"]).run().exits(65);
    for place in places {
        assert!(check.stdout.contains(place), "{}", check.stdout);
    }
}

#[test]
fn a_step_with_copy_is_part_of_a_split_migration() {
    let copy = |value| {
        format!(
            "{TABLE}copy t (a) from stdin;\n{value}\n\\.\n\
             create unique index concurrently i on t (a);\ncopy t (a) from stdin;\n2\n\\.\n"
        )
    };
    let database = Database::fresh();
    let folder = one(&copy("2"));
    premigrate(&database, &folder).run().exits(70).says(&["statement 4 of 4"]);
    assert_eq!(database.rows("select a from t"), ["2"]);
    // The data is part of the step that was done.
    let edited = one(&copy("3"));
    premigrate(&database, &edited).run().exits(65).says(&["0000_copy.sql:1:1, step 1"]);
    database.execute("delete from t");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select a from t"), ["2"]);

    let directed = one(&format!("-- premigrate: no-transaction\n{}", copy("1")));
    let database = Database::fresh();
    premigrate(&database, &directed).run().exits(0);
    assert_eq!(database.rows("select a from t"), ["1", "2"]);
}

#[test]
fn a_signal_during_copy_rolls_it_back() {
    let database = Database::fresh();
    let folder = one(&format!(
        "{TABLE}create function nap() returns trigger language plpgsql as \
         'begin perform pg_sleep(60); return new; end';\n\
         create trigger nap before insert on t for each row execute function nap();\n\
         copy t (a) from stdin;\n1\n2\n\\.\n"
    ));
    let running = premigrate(&database, &folder).start();
    database.wait_for("the copy", SLEEPING);
    running.end_by("TERM").exits(143).says(&["0000_copy was rolled back"]);
    assert_eq!(database.tables(), Vec::<String>::new());
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn a_copy_that_met_a_lock_is_run_again_with_its_data() {
    let database = Database::fresh();
    database.execute(TABLE);
    let mut holder = database.holding("lock table t");
    let folder = one("copy t (a) from stdin;\n1\n\\.\ncopy t (a) from stdin;\n2\n\\.\n");
    let running = premigrate(&database, &folder).args(&["--lock-timeout", "300ms"]).start();
    running.wait_to_say("retrying");
    holder.batch_execute("rollback").unwrap();
    running.finish().exits(0);
    assert_eq!(database.rows("select a from t"), ["1", "2"]);
}

#[test]
fn a_connection_cut_at_any_message_of_copy_is_recovered_from() {
    let database = Database::fresh();
    database.execute(TABLE);
    for (schema, from, tag) in [
        ("asked", Side::Server, b'G'),
        ("data", Side::Client, b'd'),
        ("done", Side::Client, b'c'),
        ("completed", Side::Server, b'C'),
    ] {
        let rows = format!("{schema}\n").repeat(30_000);
        let folder = one(&format!("copy t (a) from stdin;\n{rows}\\.\n"));
        let cuts = AtomicUsize::new(0);
        let proxy = Proxy::start(move |message| {
            let is_here = (message.from, message.tag) == (from, tag)
                && (tag != b'C' || message.text.starts_with("COPY "));
            let is_first = is_here && cuts.fetch_add(1, Ordering::SeqCst) == 0;
            if is_first { Action::Cut } else { Action::Pass }
        });
        let run = premigrate(&proxy.to(&database), &folder).args(&["--schema", schema]).run();
        run.exits(0).says(&["connection lost during 0000_copy"]);
        let count = database.value(&format!("select count(*) from t where a = '{schema}'"));
        assert_eq!(count, "30000", "{schema}");
    }
    assert_eq!(database.leftovers(), Vec::<String>::new());
}

#[test]
fn copy_runs_through_pgbouncer_and_its_failure_leaves_the_connection_usable() {
    let mut pooler = PgBouncer::start(1);
    let database = Database::fresh();
    database.execute(TABLE);
    let bad = one(&format!("copy t from stdin;\n1\n{}\\.\n", "1\t2\n".repeat(100_000)));
    let good = one("copy t from stdin;\n1\t2\n\\.\n");
    for schema in ["first", "second", "third"] {
        let run = premigrate(&pooler.to(&database), &bad).run().exits(70);
        run.says(&[&format!("at {FILE}:2:1")]);
        premigrate(&pooler.to(&database), &good).args(&["--schema", schema]).run().exits(0);
    }
    assert_eq!(database.value("select count(*) from t"), "3");
    assert!(pooler.is_alive());
}
