//! How a failed migration is reported, in text and in JSON: the whole of what is printed.

use expect_test::{Expect, expect};
use serde_json::json;

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

/// What is printed where this migration fails, the second of three.
#[track_caller]
fn check(sql: &str, expected: Expect) {
    let (database, folder) = failing(sql);
    premigrate(&database, &folder).run().exits(70).stderr_is(expected);
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
    run.stderr_is(expect![[r#"
        premigrate: 4 migrations in FOLDER (Drizzle 0.x)
        premigrate: applied 0000_documents in TIME
        premigrate: 0001_more failed and was rolled back

          ERROR 42703: column "titel" does not exist
          HINT: Perhaps you meant to reference the column "documents.title".
          at 0001_more.sql:3:42, statement 2 of 3

            2 | --> statement-breakpoint
            3 | UPDATE documents SET words = to_tsvector(titel);
              |                                          ^

          1 migration applied in this run is kept; 2 more are pending. The app was not started.
    "#]]);
}

#[test]
fn where_nothing_was_applied_nothing_is_reported_as_kept() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select nothing")]);
    premigrate(&database, &folder).run().exits(70).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: 0000_a failed and was rolled back

          ERROR 42703: column "nothing" does not exist
          at 0000_a.sql:1:8, statement 1 of 1

            1 | select nothing
              |        ^
    "#]]);
    folder.add("0001_b", "select 1");
    premigrate(&database, &folder).run().exits(70).stderr_is(expect![[r#"
        premigrate: 2 migrations in FOLDER (Drizzle 0.x)
        premigrate: 0000_a failed and was rolled back

          ERROR 42703: column "nothing" does not exist
          at 0000_a.sql:1:8, statement 1 of 1

            1 | select nothing
              |        ^

          1 more is pending.
    "#]]);
}

#[test]
fn columns_count_characters() {
    check(
        "select 'äöü €' as \"größe\", 'x' || größe2, '日本'",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42703: column "größe2" does not exist
              at 0001_more.sql:1:35, statement 1 of 1

                1 | select 'äöü €' as "größe", 'x' || größe2, '日本'
                  |                                   ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_byte_order_mark_has_no_column() {
    check(
        "\u{feff}selct 1",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42601: syntax error at or near "selct"
              at 0001_more.sql:1:1, statement 1 of 1

                1 | selct 1
                  | ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_syntax_error_at_the_end_has_its_place() {
    check(
        "create table a (\n  id int,",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42601: syntax error at end of input
              at 0001_more.sql:2:10, statement 1 of 1

                1 | create table a (
                2 |   id int,
                  |          ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_quote_that_is_never_closed_is_shown_where_it_opens() {
    check(
        "select 1;\nselect 'a;\nselect 2;",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42601: unterminated quoted string at or near "'a;
                select 2;"
              at 0001_more.sql:2:8, statement 2 of 2

                1 | select 1;
                2 | select 'a;
                  |        ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn without_a_position_the_name_that_the_statement_has_once_is_shown() {
    check(
        "select 1;\nalter table documents\n  add column note text, -- and title\n  \
         drop column \"Title\", add constraint titled check ('title' > title);\nselect 1;",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42703: column "Title" of relation "documents" does not exist
              at 0001_more.sql:4:15 (found by name), statement 2 of 3

                3 |   add column note text, -- and title
                4 |   drop column "Title", add constraint titled check ('title' > title);
                  |               ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_place_that_was_found_by_name_is_marked_in_json() {
    let database = Database::fresh();
    for (sql, place, line, column) in [
        ("create table a (b int);\nalter table a add c int,\n  add b int", "name", 3, 7),
        ("create table a (b int);\nselect b, c from a", "server", 2, 11),
        ("create table a (b int);\n select b / 0 from (values (1)) a (b)", "statement", 2, 2),
        ("create table a (b int);\ncopy a from stdin;\n1\nx\n\\.\n", "copy_line", 4, 1),
    ] {
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        let run = premigrate(&database, &folder).args(&["--format", "json"]).run().exits(70);
        let failed = run.events().pop().unwrap();
        let found = ["place", "line", "column"].map(|field| failed[field].clone());
        let expected = [json!(place), json!(line), json!(column)];
        assert_eq!(found, expected, "{sql}: {failed}");
        let has_caret = ["name", "server"].contains(&place);
        assert_eq!(failed["caret"].is_number(), has_caret, "{failed}");
    }
}

#[test]
fn without_a_position_and_a_name_the_statements_first_line_is_shown() {
    check(
        "insert into documents values (1, 'a');\n\n/* twice */ insert into documents\n\
         select 1, documents.title from documents;\nselect 1;",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 23505: duplicate key value violates unique constraint "documents_pkey"
              DETAIL: Key (id)=(1) already exists.
              SCHEMA: public
              TABLE: documents
              CONSTRAINT: documents_pkey
              at 0001_more.sql:3:13, statement 2 of 3

                2 | 
                3 | /* twice */ insert into documents

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_missing_value_names_table_and_column() {
    check(
        "insert into documents (id) values (1)",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 23502: null value in column "title" of relation "documents" violates not-null constraint
              DETAIL: Failing row contains (1, null).
              SCHEMA: public
              TABLE: documents
              COLUMN: title
              at 0001_more.sql:1:13 (found by name), statement 1 of 1

                1 | insert into documents (id) values (1)
                  |             ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn an_error_inside_a_function_shows_the_query_that_the_server_made() {
    check(
        "create function f() returns int language plpgsql as $$ begin\n  return (select nothing\n    \
         from documents);\nend $$;\nselect f();",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42703: column "nothing" does not exist
              QUERY: (select nothing
                             ^
              CONTEXT: PL/pgSQL function f() line 2 at RETURN
              at 0001_more.sql:5:1, statement 2 of 2

                4 | end $$;
                5 | select f();

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn an_error_inside_a_do_block_is_shown_with_its_context() {
    check(
        "do $$\r\nbegin\r\n  perform\r\n    1/0;\r\nend\r\n$$;\r\n",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 22012: division by zero
              CONTEXT: SQL statement "SELECT
                    1/0"
                PL/pgSQL function inline_code_block line 3 at PERFORM
              at 0001_more.sql:1:1, statement 1 of 1

                1 | do $$

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn everything_that_a_raised_error_brings_is_shown() {
    check(
        "do $$ begin\nraise exception 'no tenant' using hint = E'Set one,\\nthen try again.', \
         detail = 'There is none.', errcode = 'P0099', schema = 'public', table = 'documents', \
         column = 'title', datatype = 'text', constraint = 'c';\nend $$",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

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

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_deferred_constraint_fails_at_the_end() {
    check(
        "insert into notes values (7)",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 23503: insert or update on table "notes" violates foreign key constraint "notes_document_fkey"
              DETAIL: Key (document)=(7) is not present in table "documents".
              SCHEMA: public
              TABLE: notes
              CONSTRAINT: notes_document_fkey
              0001_more.sql, at its end, where deferred constraints are checked

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_failure_at_commit_is_reported_as_such() {
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
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR P0001: not today
              CONTEXT: PL/pgSQL function refuse() line 1 at RAISE
              0001_more.sql, at COMMIT

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_failure_at_the_history_row_is_reported_as_such() {
    check(
        "alter table drizzle.__drizzle_migrations add column team text not null",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 23502: column "team" of relation "__drizzle_migrations" contains null values
              SCHEMA: drizzle
              TABLE: __drizzle_migrations
              COLUMN: team
              at 0001_more.sql:1:53 (found by name), statement 1 of 1

                1 | alter table drizzle.__drizzle_migrations add column team text not null
                  |                                                     ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
    check(
        "alter table drizzle.__drizzle_migrations add constraint first check (id < 2)",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 23514: new row for relation "__drizzle_migrations" violates check constraint "first"
              DETAIL: Failing row contains (2, 8664fbc273f185504a705cc9a8b12e5dea99eb061580bc0095c9b5ce987d9a20, 1700000001000).
              SCHEMA: drizzle
              TABLE: __drizzle_migrations
              CONSTRAINT: first
              0001_more.sql, at its history row

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    check(
        &format!("select {}nothing, {}", "'1234567890', ".repeat(20), "1".repeat(200)),
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42703: column "nothing" does not exist
              at 0001_more.sql:1:288, statement 1 of 1

                1 | 0', '1234567890', '1234567890', '1234567890', '1234567890', nothing, 111111111111111111111111111111111111111111111111111
                  |                                                             ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn a_tab_does_not_move_the_caret() {
    check(
        "select 1;\n\tselect\t\tnothing;",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42703: column "nothing" does not exist
              at 0001_more.sql:2:10, statement 2 of 2

                1 | select 1;
                2 |  select  nothing;
                  |          ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let sql =
        "do $$ begin raise exception E'a\\x1b[31mb\\rc\\u009bd\\x07e\\tf\\ng'; end $$ -- \u{1b}[2J";
    check(
        sql,
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR P0001: a\u{1b}[31mb\rc\u{9b}d\u{7}e	f
                g
              CONTEXT: PL/pgSQL function inline_code_block line 1 at RAISE
              at 0001_more.sql:1:1, statement 1 of 1

                1 | do $$ begin raise exception E'a\x1b[31mb\rc\u009bd\x07e\tf\ng'; end $$ -- \u{1b}[2J

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
    let (database, folder) = failing(sql);
    let run = premigrate(&database, &folder).args(&["--format", "json"]).run().exits(70);
    assert!(!run.stderr.contains(|c: char| c.is_control() && c != '\n'), "{:?}", run.stderr);
    let message = run.events().pop().expect("events")["message"].clone();
    assert_eq!(message, "a\u{1b}[31mb\rc\u{9b}d\u{7}e\tf\ng");
}

#[test]
fn where_the_first_migration_of_a_history_meets_existing_objects_a_baseline_is_the_hint() {
    for (object, sql, expected) in [
        (
            "create table documents ()",
            DOCUMENTS,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: 0000_a failed and was rolled back

                  ERROR 42P07: relation "documents" already exists
                  at 0000_a.sql:1:14 (found by name), statement 1 of 2

                    1 | create table documents (id int primary key, title text not null);
                      |              ^

                  No applied migration created it. If the database was made by other means, such as drizzle-kit push, record what it has: run `premigrate baseline --through NAME --dir FOLDER`, or set PREMIGRATE_BASELINE_THROUGH=NAME, where NAME is the last migration whose changes it has.
            "#]],
        ),
        (
            "create type mood as enum ('sad')",
            "create type mood as enum ('sad')",
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: 0000_a failed and was rolled back

                  ERROR 42710: type "mood" already exists
                  at 0000_a.sql:1:13 (found by name), statement 1 of 1

                    1 | create type mood as enum ('sad')
                      |             ^

                  No applied migration created it. If the database was made by other means, such as drizzle-kit push, record what it has: run `premigrate baseline --through NAME --dir FOLDER`, or set PREMIGRATE_BASELINE_THROUGH=NAME, where NAME is the last migration whose changes it has.
            "#]],
        ),
        (
            "create schema app",
            "create schema app",
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: 0000_a failed and was rolled back

                  ERROR 42P06: schema "app" already exists
                  at 0000_a.sql:1:15 (found by name), statement 1 of 1

                    1 | create schema app
                      |               ^

                  No applied migration created it. If the database was made by other means, such as drizzle-kit push, record what it has: run `premigrate baseline --through NAME --dir FOLDER`, or set PREMIGRATE_BASELINE_THROUGH=NAME, where NAME is the last migration whose changes it has.
            "#]],
        ),
        (
            "create table t (a int); create index i on t (a)",
            "alter table t add column b int; create index i on t (b)",
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: 0000_a failed and was rolled back

                  ERROR 42P07: relation "i" already exists
                  at 0000_a.sql:1:46 (found by name), statement 2 of 2

                    1 | alter table t add column b int; create index i on t (b)
                      |                                              ^

                  No applied migration created it. If the database was made by other means, such as drizzle-kit push, record what it has: run `premigrate baseline --through NAME --dir FOLDER`, or set PREMIGRATE_BASELINE_THROUGH=NAME, where NAME is the last migration whose changes it has.
            "#]],
        ),
        (
            "create table t (a int)",
            "alter table t add column a int",
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: 0000_a failed and was rolled back

                  ERROR 42701: column "a" of relation "t" already exists
                  at 0000_a.sql:1:26 (found by name), statement 1 of 1

                    1 | alter table t add column a int
                      |                          ^

                  No applied migration created it. If the database was made by other means, such as drizzle-kit push, record what it has: run `premigrate baseline --through NAME --dir FOLDER`, or set PREMIGRATE_BASELINE_THROUGH=NAME, where NAME is the last migration whose changes it has.
            "#]],
        ),
        (
            "create function f() returns int language sql as 'select 1'",
            "create function f() returns int language sql as 'select 1'",
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: 0000_a failed and was rolled back

                  ERROR 42723: function "f" already exists with same argument types
                  at 0000_a.sql:1:17 (found by name), statement 1 of 1

                    1 | create function f() returns int language sql as 'select 1'
                      |                 ^

                  No applied migration created it. If the database was made by other means, such as drizzle-kit push, record what it has: run `premigrate baseline --through NAME --dir FOLDER`, or set PREMIGRATE_BASELINE_THROUGH=NAME, where NAME is the last migration whose changes it has.
            "#]],
        ),
    ] {
        let database = Database::fresh();
        database.execute(object);
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        premigrate(&database, &folder).run().exits(70).stderr_is(expected);
    }
    // Not so where others were applied before.
    check(
        "create table documents ()",
        expect![[r#"
            premigrate: 3 migrations in FOLDER (Drizzle 0.x)
            premigrate: applied 0000_documents in TIME
            premigrate: 0001_more failed and was rolled back

              ERROR 42P07: relation "documents" already exists
              at 0001_more.sql:1:14 (found by name), statement 1 of 1

                1 | create table documents ()
                  |              ^

              1 migration applied in this run is kept; 1 more is pending.
        "#]],
    );
}

#[test]
fn json_has_the_same_facts_as_fields_one_object_a_line() {
    let (database, folder) =
        failing("select 'é';--> statement-breakpoint\nselect id, titel from documents;");
    let run = premigrate(&database, &folder).args(&["--format=json", "--", "true"]).run();
    run.exits(70).events_are(expect![[r#"
        {
          "event": "loaded",
          "from": "FOLDER",
          "layout": "Drizzle 0.x",
          "migrations": 3
        }
        {
          "event": "applying",
          "migration": "0000_documents",
          "out_of_order": false
        }
        {
          "event": "applied",
          "migration": "0000_documents",
          "ms": TIME
        }
        {
          "event": "applying",
          "migration": "0001_more",
          "out_of_order": false
        }
        {
          "event": "failed",
          "error": "failed",
          "migration": "0001_more",
          "file": "0001_more.sql",
          "line": 2,
          "column": 12,
          "place": "server",
          "statement": 2,
          "statements": 2,
          "outside_transaction": null,
          "phase": "statement",
          "severity": "ERROR",
          "sqlstate": "42703",
          "message": "column \"titel\" does not exist",
          "detail": null,
          "hint": "Perhaps you meant to reference the column \"documents.title\".",
          "query": null,
          "query_position": null,
          "where": null,
          "schema": null,
          "table": null,
          "column_name": null,
          "datatype": null,
          "constraint": null,
          "excerpt": [
            {
              "line": 1,
              "text": "select 'é';--> statement-breakpoint"
            },
            {
              "line": 2,
              "text": "select id, titel from documents;"
            }
          ],
          "caret": 12,
          "applied": [
            "0000_documents"
          ],
          "pending": [
            "0001_more",
            "0002_last"
          ],
          "uncertain": [],
          "in_progress": null,
          "advice": null,
          "exit_code": 70,
          "app_started": false
        }
    "#]]);
}

#[test]
fn json_has_every_field_that_the_server_sends() {
    for (sql, expected) in [
        (
            "insert into notes values (7)",
            expect![[r#"
                {
                  "event": "failed",
                  "error": "failed",
                  "migration": "0001_more",
                  "file": "0001_more.sql",
                  "line": null,
                  "column": null,
                  "place": null,
                  "statement": null,
                  "statements": 1,
                  "outside_transaction": null,
                  "phase": "deferred",
                  "severity": "ERROR",
                  "sqlstate": "23503",
                  "message": "insert or update on table \"notes\" violates foreign key constraint \"notes_document_fkey\"",
                  "detail": "Key (document)=(7) is not present in table \"documents\".",
                  "hint": null,
                  "query": null,
                  "query_position": null,
                  "where": null,
                  "schema": "public",
                  "table": "notes",
                  "column_name": null,
                  "datatype": null,
                  "constraint": "notes_document_fkey",
                  "applied": [
                    "0000_documents"
                  ],
                  "pending": [
                    "0001_more",
                    "0002_last"
                  ],
                  "uncertain": [],
                  "in_progress": null,
                  "advice": null,
                  "exit_code": 70
                }
            "#]],
        ),
        (
            "do $$ begin perform 1/0; end $$",
            expect![[r#"
                {
                  "event": "failed",
                  "error": "failed",
                  "migration": "0001_more",
                  "file": "0001_more.sql",
                  "line": 1,
                  "column": 1,
                  "place": "statement",
                  "statement": 1,
                  "statements": 1,
                  "outside_transaction": null,
                  "phase": "statement",
                  "severity": "ERROR",
                  "sqlstate": "22012",
                  "message": "division by zero",
                  "detail": null,
                  "hint": null,
                  "query": null,
                  "query_position": null,
                  "where": "SQL statement \"SELECT 1/0\"\nPL/pgSQL function inline_code_block line 1 at PERFORM",
                  "schema": null,
                  "table": null,
                  "column_name": null,
                  "datatype": null,
                  "constraint": null,
                  "excerpt": [
                    {
                      "line": 1,
                      "text": "do $$ begin perform 1/0; end $$"
                    }
                  ],
                  "caret": null,
                  "applied": [
                    "0000_documents"
                  ],
                  "pending": [
                    "0001_more",
                    "0002_last"
                  ],
                  "uncertain": [],
                  "in_progress": null,
                  "advice": null,
                  "exit_code": 70
                }
            "#]],
        ),
        (
            "do $$ begin perform titel; end $$",
            expect![[r#"
                {
                  "event": "failed",
                  "error": "failed",
                  "migration": "0001_more",
                  "file": "0001_more.sql",
                  "line": 1,
                  "column": 1,
                  "place": "statement",
                  "statement": 1,
                  "statements": 1,
                  "outside_transaction": null,
                  "phase": "statement",
                  "severity": "ERROR",
                  "sqlstate": "42703",
                  "message": "column \"titel\" does not exist",
                  "detail": null,
                  "hint": null,
                  "query": "SELECT titel",
                  "query_position": 8,
                  "where": "PL/pgSQL function inline_code_block line 1 at PERFORM",
                  "schema": null,
                  "table": null,
                  "column_name": null,
                  "datatype": null,
                  "constraint": null,
                  "excerpt": [
                    {
                      "line": 1,
                      "text": "do $$ begin perform titel; end $$"
                    }
                  ],
                  "caret": null,
                  "applied": [
                    "0000_documents"
                  ],
                  "pending": [
                    "0001_more",
                    "0002_last"
                  ],
                  "uncertain": [],
                  "in_progress": null,
                  "advice": null,
                  "exit_code": 70
                }
            "#]],
        ),
    ] {
        let (database, folder) = failing(sql);
        let run = premigrate(&database, &folder).arg("--format=json").run();
        run.exits(70).last_event_is(expected);
    }
}

#[test]
fn json_has_our_advice_too() {
    let database = Database::fresh();
    database.execute("create procedure p() language plpgsql as $$ begin commit; end $$");
    let folder = Folder::drizzle0(&[("0000_a", "call p()")]);
    let run = premigrate(&database, &folder).args(&["--format=json"]).run().exits(70);
    run.last_event_is(expect![[r#"
        {
          "event": "failed",
          "error": "failed",
          "migration": "0000_a",
          "file": "0000_a.sql",
          "line": 1,
          "column": 1,
          "place": "statement",
          "statement": 1,
          "statements": 1,
          "outside_transaction": null,
          "phase": "statement",
          "severity": "ERROR",
          "sqlstate": "2D000",
          "message": "invalid transaction termination",
          "detail": null,
          "hint": null,
          "query": null,
          "query_position": null,
          "where": "PL/pgSQL function p() line 1 at COMMIT",
          "schema": null,
          "table": null,
          "column_name": null,
          "datatype": null,
          "constraint": null,
          "excerpt": [
            {
              "line": 1,
              "text": "call p()"
            }
          ],
          "caret": null,
          "applied": [],
          "pending": [
            "0000_a"
          ],
          "uncertain": [],
          "in_progress": null,
          "advice": {
            "code": "no_transaction",
            "message": "This statement cannot share a transaction with the others. Add the line -- premigrate: no-transaction to the file. Each statement then runs, and is recorded, on its own."
          },
          "exit_code": 70
        }
    "#]]);
}

#[test]
fn json_names_the_edited_migrations_with_both_hashes() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    premigrate(&database, &folder).run().exits(0);
    let before = folder.hash("0000_a.sql");
    folder.write("0000_a.sql", "select 2");
    let now = folder.hash("0000_a.sql");
    let run = premigrate(&database, &folder).args(&["--format=json"]).run().exits(65);
    run.with_name("BEFORE", &before).with_name("NOW", &now).last_event_is(expect![[r#"
        {
          "event": "error",
          "error": "history_mismatch",
          "mismatch": "edited",
          "migrations": [
            {
              "migration": "0000_a",
              "file": "0000_a.sql",
              "recorded_hash": "BEFORE",
              "current_hash": "NOW"
            }
          ],
          "applied": [],
          "pending": [],
          "uncertain": [],
          "in_progress": null,
          "message": "migrations were edited after they were applied; nothing was run:\n\n  - 0000_a.sql\n      applied  BEFORE\n      now      NOW\n\n  Restore the files, and make the change in a new migration. If the database already matches\n  the edited files, run `premigrate accept 0000_a --dir FOLDER`, or set PREMIGRATE_ACCEPT=0000_a",
          "exit_code": 65
        }
    "#]]);
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
        run.stderr_is(expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: 0000_spend failed and was rolled back

              ERROR 42601: trailing junk after numeric literal at or near "5s"
              at 0000_spend.sql:1:20, statement 1 of 4

                1 | set lock_timeout = 5s;
                  |                    ^
        "#]]);
        assert_eq!(database.rows("select cents::text from accounts"), ["100"]);
    }
    folder.write("0000_spend.sql", format!("set lock_timeout = '5s';\n{spends}"));
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select cents::text from accounts"), ["90"]);
}
