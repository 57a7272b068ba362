//! How a failed migration is reported, in text and in JSON: the whole of what is printed.

use serde_json::{Value, json};

use crate::harness::{Database, Folder, premigrate};

/// What there is when the migration that fails begins.
const DOCUMENTS: &str = "create table documents (id int primary key, title text not null);
create table notes (document int references documents deferrable initially deferred);";

/// A database in which one migration is applied, this one fails, and one is never tried.
fn failing(sql: &str) -> (Database, Folder) {
    let documents = ("0000_documents", DOCUMENTS);
    let folder = Folder::drizzle0(&[documents, ("0001_more", sql), ("0002_last", "select 1")]);
    (Database::fresh(), folder)
}

#[track_caller]
fn equal(printed: &str, expected: &str) {
    assert!(printed == expected, "\n----- printed\n{printed}\n----- expected\n{expected}\n-----");
}

/// Everything printed from the failure on, up to what is kept.
#[track_caller]
fn check(sql: &str, expected: &str) {
    let (database, folder) = failing(sql);
    let run = premigrate(&database, &folder).run().exits(70);
    let at = run.stderr.find("premigrate: 0001_more failed").expect(&run.stderr);
    let end = "\n  1 migration applied in this run is kept; 1 more is pending.\n";
    let report = &run.stderr[at..];
    equal(report.strip_suffix(end).expect(report), expected);
    assert_eq!(database.history().len(), 1);
}

#[test]
fn a_failure_names_the_place_the_reason_and_what_is_kept() {
    let (database, folder) = failing(
        "ALTER TABLE documents ADD COLUMN words tsvector;\n--> statement-breakpoint\n\
         UPDATE documents SET words = to_tsvector(titel);\n--> statement-breakpoint\n\
         ALTER TABLE documents ALTER COLUMN words SET NOT NULL;",
    );
    folder.add("0003_very_last", "select 1");
    let run = premigrate(&database, &folder).args(&["--", "echo", "started"]).run().exits(70);
    assert_eq!(run.stdout, "");
    let mut lines = run.stderr.split_inclusive('\n');
    let events: Vec<&str> = lines.by_ref().take(4).collect();
    let path = folder.path.display();
    assert_eq!(events[0], format!("premigrate: 4 migrations in {path} (Drizzle 0.x)\n"));
    assert_eq!(events[1], "premigrate: applying 0000_documents\n");
    assert!(events[2].starts_with("premigrate: applied 0000_documents in "), "{events:?}");
    assert_eq!(events[3], "premigrate: applying 0001_more\n");
    equal(
        &lines.collect::<String>(),
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 42703: column "titel" does not exist
  HINT: Perhaps you meant to reference the column "documents.title".
  at 0001_more.sql:3:42, statement 2 of 3

    2 | --> statement-breakpoint
    3 | UPDATE documents SET words = to_tsvector(titel);
      |                                          ^

  1 migration applied in this run is kept; 2 more are pending. The app was not started.
"#,
    );
}

#[test]
fn when_nothing_was_applied_nothing_is_said_to_be_kept() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select nothing")]);
    let run = premigrate(&database, &folder).run().exits(70).does_not_say("kept");
    let run = run.does_not_say("pending").does_not_say("The app");
    assert!(run.stderr.ends_with("^\n"), "{}", run.stderr);
    folder.add("0001_b", "select 1");
    let run = premigrate(&database, &folder).run().exits(70).does_not_say("kept");
    assert!(run.stderr.ends_with("^\n\n  1 more is pending.\n"), "{}", run.stderr);
}

#[test]
fn columns_count_characters() {
    check(
        "select 'äöü €' as \"größe\", 'x' || größe2, '日本'",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 42703: column "größe2" does not exist
  at 0001_more.sql:1:35, statement 1 of 1

    1 | select 'äöü €' as "größe", 'x' || größe2, '日本'
      |                                   ^
"#,
    );
}

#[test]
fn a_byte_order_mark_has_no_column() {
    check(
        "\u{feff}selct 1",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 42601: syntax error at or near "selct"
  at 0001_more.sql:1:1, statement 1 of 1

    1 | selct 1
      | ^
"#,
    );
}

#[test]
fn a_syntax_error_at_the_end_has_its_place() {
    check(
        "create table a (\n  id int,",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 42601: syntax error at end of input
  at 0001_more.sql:2:10, statement 1 of 1

    1 | create table a (
    2 |   id int,
      |          ^
"#,
    );
}

#[test]
fn a_quote_that_is_never_closed_is_shown_where_it_opens() {
    check(
        "select 1;\nselect 'a;\nselect 2;",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 42601: unterminated quoted string at or near "'a;
    select 2;"
  at 0001_more.sql:2:8, statement 2 of 2

    1 | select 1;
    2 | select 'a;
      |        ^
"#,
    );
}

#[test]
fn without_a_position_the_statements_first_line_is_shown() {
    check(
        "insert into documents values (1, 'a');\n\n/* twice */ insert into documents\n\
         values (1, 'b');\nselect 1;",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 23505: duplicate key value violates unique constraint "documents_pkey"
  DETAIL: Key (id)=(1) already exists.
  SCHEMA: public
  TABLE: documents
  CONSTRAINT: documents_pkey
  at 0001_more.sql:3:13, statement 2 of 3

    2 | 
    3 | /* twice */ insert into documents
"#,
    );
}

#[test]
fn a_missing_value_names_table_and_column() {
    check(
        "insert into documents (id) values (1)",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 23502: null value in column "title" of relation "documents" violates not-null constraint
  DETAIL: Failing row contains (1, null).
  SCHEMA: public
  TABLE: documents
  COLUMN: title
  at 0001_more.sql:1:1, statement 1 of 1

    1 | insert into documents (id) values (1)
"#,
    );
}

#[test]
fn an_error_inside_a_function_shows_the_query_that_the_server_made() {
    check(
        "create function f() returns int language plpgsql as $$ begin\n  return (select nothing\n    \
         from documents);\nend $$;\nselect f();",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 42703: column "nothing" does not exist
  QUERY: (select nothing
                 ^
  CONTEXT: PL/pgSQL function f() line 2 at RETURN
  at 0001_more.sql:5:1, statement 2 of 2

    4 | end $$;
    5 | select f();
"#,
    );
}

#[test]
fn an_error_inside_a_do_block_is_shown_with_its_context() {
    check(
        "do $$\r\nbegin\r\n  perform\r\n    1/0;\r\nend\r\n$$;\r\n",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 22012: division by zero
  CONTEXT: SQL statement "SELECT
        1/0"
    PL/pgSQL function inline_code_block line 3 at PERFORM
  at 0001_more.sql:1:1, statement 1 of 1

    1 | do $$
"#,
    );
}

#[test]
fn everything_that_a_raised_error_brings_is_shown() {
    check(
        "do $$ begin\nraise exception 'no tenant' using hint = E'Set one,\\nthen try again.', \
         detail = 'There is none.', errcode = 'P0099', schema = 'public', table = 'documents', \
         column = 'title', datatype = 'text', constraint = 'c';\nend $$",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR P0099: no tenant
  DETAIL: There is none.
  HINT: Set one,
    then try again.
  CONTEXT: PL/pgSQL function inline_code_block line 2 at RAISE
  SCHEMA: public
  TABLE: documents
  COLUMN: title
  DATATYPE: text
  CONSTRAINT: c
  at 0001_more.sql:1:1, statement 1 of 1

    1 | do $$ begin
"#,
    );
}

#[test]
fn a_deferred_constraint_fails_at_the_end() {
    check(
        "insert into notes values (7)",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 23503: insert or update on table "notes" violates foreign key constraint "notes_document_fkey"
  DETAIL: Key (document)=(7) is not present in table "documents".
  SCHEMA: public
  TABLE: notes
  CONSTRAINT: notes_document_fkey
  0001_more.sql, at its end, where deferred constraints are checked
"#,
    );
}

#[test]
fn what_fails_at_commit_is_said_to() {
    // A trigger on the history row puts off once more what we have had checked by then.
    check(
        "create function put_off() returns trigger language plpgsql as \
         $$ begin set constraints all deferred; return new; end $$;\n\
         create function refuse() returns trigger language plpgsql as \
         $$ begin raise exception 'not today'; end $$;\n\
         create trigger put_off before insert on drizzle.__drizzle_migrations \
         for each row execute function put_off();\n\
         create constraint trigger refuse after insert on drizzle.__drizzle_migrations \
         deferrable initially deferred for each row execute function refuse();",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR P0001: not today
  CONTEXT: PL/pgSQL function refuse() line 1 at RAISE
  0001_more.sql, at COMMIT
"#,
    );
}

#[test]
fn what_fails_at_the_history_row_is_said_to() {
    check(
        "alter table drizzle.__drizzle_migrations add column team text not null",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 23502: column "team" of relation "__drizzle_migrations" contains null values
  SCHEMA: drizzle
  TABLE: __drizzle_migrations
  COLUMN: team
  at 0001_more.sql:1:1, statement 1 of 1

    1 | alter table drizzle.__drizzle_migrations add column team text not null
"#,
    );
    check(
        "alter table drizzle.__drizzle_migrations add constraint first check (id < 2)",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 23514: new row for relation "__drizzle_migrations" violates check constraint "first"
  DETAIL: Failing row contains (2, HASH, 1700000001000).
  SCHEMA: drizzle
  TABLE: __drizzle_migrations
  CONSTRAINT: first
  0001_more.sql, at its history row
"#
        .replace(
            "HASH",
            premigrate::migrations::migration::Hash::of(
                b"alter table drizzle.__drizzle_migrations add constraint first check (id < 2)",
            )
            .as_str(),
        )
        .as_str(),
    );
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    check(
        &format!("select {}nothing, {}", "'1234567890', ".repeat(20), "1".repeat(200)),
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 42703: column "nothing" does not exist
  at 0001_more.sql:1:288, statement 1 of 1

    1 | 0', '1234567890', '1234567890', '1234567890', '1234567890', nothing, 111111111111111111111111111111111111111111111111111
      |                                                             ^
"#,
    );
}

#[test]
fn a_tab_does_not_move_the_caret() {
    check(
        "select 1;\n\tselect\t\tnothing;",
        r#"premigrate: 0001_more failed and was rolled back

  ERROR 42703: column "nothing" does not exist
  at 0001_more.sql:2:10, statement 2 of 2

    1 | select 1;
    2 |  select  nothing;
      |          ^
"#,
    );
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let sql =
        "do $$ begin raise exception E'a\\x1b[31mb\\rc\\u009bd\\x07e\\tf\\ng'; end $$ -- \u{1b}[2J";
    check(
        sql,
        "premigrate: 0001_more failed and was rolled back

  ERROR P0001: a\u{fffd}[31mb\u{fffd}c\u{fffd}d\u{fffd}e\tf
    g
  CONTEXT: PL/pgSQL function inline_code_block line 1 at RAISE
  at 0001_more.sql:1:1, statement 1 of 1

    1 | do $$ begin raise exception E'a\\x1b[31mb\\rc\\u009bd\\x07e\\tf\\ng'; end $$ -- \u{fffd}[2J
",
    );
    let (database, folder) = failing(sql);
    let run = premigrate(&database, &folder).args(&["--format", "json"]).run().exits(70);
    assert!(!run.stderr.contains(|c: char| c.is_control() && c != '\n'), "{:?}", run.stderr);
    let message = run.events().pop().expect("events")["message"].clone();
    assert_eq!(message, "a\u{1b}[31mb\rc\u{9b}d\u{7}e\tf\ng");
}

#[test]
fn where_a_histories_first_migration_meets_existing_objects_a_baseline_is_hinted_at() {
    let hint = "The history is empty, but the objects exist already";
    for (object, sql) in [
        ("create table documents ()", DOCUMENTS),
        ("create type mood as enum ('sad')", "create type mood as enum ('sad')"),
        ("create schema app", "create schema app"),
        (
            "create table t (a int); create index i on t (a)",
            "alter table t add column b int; create index i on t (b)",
        ),
        ("create table t (a int)", "alter table t add column a int"),
        (
            "create function f() returns int language sql as 'select 1'",
            "create function f() returns int language sql as 'select 1'",
        ),
    ] {
        let database = Database::fresh();
        database.execute(object);
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        premigrate(&database, &folder).run().exits(70).says(&["already exists", hint]);
    }
    let (database, folder) = failing("create table documents ()");
    let run = premigrate(&database, &folder).run().exits(70);
    run.says(&["already exists"]).does_not_say(hint);
}

#[test]
fn json_has_the_same_facts_as_fields_one_object_a_line() {
    let (database, folder) =
        failing("select 'é';--> statement-breakpoint\nselect id, titel from documents;");
    let run = premigrate(&database, &folder).args(&["--format=json", "--", "true"]).run();
    let run = run.exits(70);
    let mut events = run.events();
    let names: Vec<_> = events.iter().map(|event| event["event"].clone()).collect();
    assert_eq!(names, ["loaded", "applying", "applied", "applying", "failed"]);
    assert_eq!(
        events[0],
        json!({
            "event": "loaded",
            "from": folder.path.display().to_string(),
            "layout": "Drizzle 0.x",
            "migrations": 3,
        })
    );
    assert_eq!(
        events[1],
        json!({ "event": "applying", "migration": "0000_documents", "out_of_order": false })
    );
    assert_eq!(events[2]["migration"], "0000_documents");
    assert!(events[2]["ms"].is_u64(), "{}", events[2]);
    let failed = events.pop().expect("events");
    let expected = json!({
        "event": "failed",
        "error": "failed",
        "migration": "0001_more",
        "file": "0001_more.sql",
        "line": 2,
        "column": 12,
        "statement": 2,
        "statements": 2,
        "outside_transaction": null,
        "phase": "statement",
        "severity": "ERROR",
        "sqlstate": "42703",
        "message": "column \"titel\" does not exist",
        "detail": null,
        "hint": "Perhaps you meant to reference the column \"documents.title\".",
        "where": null,
        "schema": null,
        "table": null,
        "column_name": null,
        "datatype": null,
        "constraint": null,
        "query": null,
        "query_position": null,
        "excerpt": [
            { "line": 1, "text": "select 'é';--> statement-breakpoint" },
            { "line": 2, "text": "select id, titel from documents;" },
        ],
        "caret": 12,
        "advice": null,
        "app_started": false,
        "exit_code": 70,
        "applied": ["0000_documents"],
        "pending": ["0001_more", "0002_last"],
        "uncertain": null,
        "in_progress": null,
    });
    assert_eq!(failed, expected, "{failed:#}");
}

#[test]
fn json_has_every_field_that_the_server_sends() {
    let (database, folder) = failing("insert into notes values (7)");
    let run = premigrate(&database, &folder).args(&["--format=json"]).run().exits(70);
    let failed = run.events().pop().expect("events");
    let expected = json!({
        "phase": "deferred",
        "line": null,
        "column": null,
        "statement": null,
        "statements": 1,
        "sqlstate": "23503",
        "detail": "Key (document)=(7) is not present in table \"documents\".",
        "schema": "public",
        "table": "notes",
        "constraint": "notes_document_fkey",
    });
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(&failed[field], value, "{field}");
    }

    let (database, folder) = failing("do $$ begin perform 1/0; end $$");
    let run = premigrate(&database, &folder).args(&["--format=json"]).run().exits(70);
    let failed = run.events().pop().expect("events");
    let context = failed["where"].as_str().unwrap_or_default();
    assert!(context.contains("inline_code_block line 1 at PERFORM"), "{failed:#}");
    assert_eq!(failed["line"], Value::from(1));
    assert_eq!(failed["app_started"], Value::Null, "there is none");

    let (database, folder) = failing("do $$ begin perform titel; end $$");
    let run = premigrate(&database, &folder).args(&["--format=json"]).run().exits(70);
    let failed = run.events().pop().expect("events");
    assert_eq!(failed["query"], "SELECT titel");
    assert_eq!(failed["query_position"], 8);
}

#[test]
fn json_has_our_advice_too() {
    let database = Database::fresh();
    database.execute("create procedure p() language plpgsql as $$ begin commit; end $$");
    let folder = Folder::drizzle0(&[("0000_a", "call p()")]);
    let run = premigrate(&database, &folder).args(&["--format=json"]).run().exits(70);
    let failed = run.events().pop().expect("events");
    assert_eq!(failed["advice"]["code"], "no_transaction");
    let advice = failed["advice"]["message"].as_str().unwrap_or_default();
    assert!(
        advice.contains("Add the line -- premigrate: no-transaction to the file"),
        "{failed:#}"
    );
}

#[test]
fn json_names_the_edited_migrations_with_both_hashes() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    premigrate(&database, &folder).run().exits(0);
    let before = folder.hash("0000_a.sql");
    folder.write("0000_a.sql", "select 2");
    let run = premigrate(&database, &folder).args(&["--format=json"]).run().exits(65);
    let ended = run.events().pop().expect("events");
    assert_eq!(ended["event"], "error");
    assert_eq!(ended["exit_code"], 65);
    let now = folder.hash("0000_a.sql");
    let edited = json!([{
        "migration": "0000_a", "file": "0000_a.sql", "recorded_hash": before, "current_hash": now
    }]);
    assert_eq!(ended["error"], "history_mismatch");
    assert_eq!(ended["mismatch"], "edited");
    assert_eq!(ended["migrations"], edited);
}

#[test]
fn a_setting_that_the_server_cannot_read_is_shown_where_it_stands_and_nothing_runs() {
    let database = Database::fresh();
    database.execute("create table accounts (cents int); insert into accounts values (100)");
    let spends = "begin;\nupdate accounts set cents = cents - 10;\ncommit;\n";
    let wrong = format!("set lock_timeout = 5s;\n{spends}");
    let folder = Folder::drizzle0(&[("0000_spend", &wrong)]);
    for _ in 0..3 {
        let run = premigrate(&database, &folder).run().exits(70);
        run.says(&["42601", "at 0000_spend.sql:1:20, statement 1 of 4", "set lock_timeout = 5s;"]);
        assert_eq!(database.rows("select cents::text from accounts"), ["100"]);
    }
    folder.write("0000_spend.sql", format!("set lock_timeout = '5s';\n{spends}"));
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select cents::text from accounts"), ["90"]);
}
