use std::time::Instant;

use super::*;
use crate::cli::config::Format;
use crate::migrations::migration::MigrationSet;
use crate::migrations::snapshots::Snapshot;
use crate::migrations::{prepared, source};
use crate::render;

/// 2026-11-22T12:00:00Z
const NOW: i64 = 1_795_348_800_000;

fn table() -> Table {
    Table::new("drizzle", "__drizzle_migrations")
}

type Folder<'a> = &'a [(&'a str, &'a [u8])];

fn files(files: Folder) -> MigrationFolder {
    let file = |(path, content): &(&str, &[u8])| ((*path).to_owned(), content.to_vec().into());
    files.iter().map(file).collect::<Files>().into()
}

fn journal(entries: &[(&str, i64)]) -> String {
    let entries: Vec<_> =
        entries.iter().map(|(tag, when)| format!(r#"{{"when":{when},"tag":"{tag}"}}"#)).collect();
    format!("{{\"entries\":[\n{}\n]}}", entries.join(",\n"))
}

/// Each finding as `file:line:column rule`, errors with a `!`.
fn rules(report: &CheckReport) -> Vec<String> {
    let rule = |finding: &Finding| {
        let file = finding.file.as_deref().unwrap_or_default();
        let position = finding.position.map_or(String::new(), |position| format!(":{position}"));
        let mark = if finding.severity() == Severity::Error { "!" } else { "" };
        format!("{file}{position} {}{mark}", finding.rule)
    };
    report.findings.iter().map(rule).collect()
}

fn rules_in(folder: Folder) -> Vec<String> {
    rules(&check(&files(folder), &table(), NOW, None))
}

/// Those in one plain migration, without its name.
fn rules_in_sql(sql: impl AsRef<[u8]>) -> Vec<String> {
    let rules = rules_in(&[("1.sql", sql.as_ref())]);
    rules.iter().map(|rule| rule["1.sql".len()..].trim_start_matches([':', ' ']).into()).collect()
}

fn first_message(folder: Folder) -> String {
    check(&files(folder), &table(), NOW, None).findings.swap_remove(0).message
}

#[test]
fn files_of_drizzle_kit_have_no_findings() {
    let journal = journal(&[("0000_a", 1), ("0001_b", 2)]);
    let a = b"CREATE TABLE \"a\" (\n\t\"b\" text\n);\n--> statement-breakpoint\nCREATE INDEX \"c\" ON \"a\" (\"b\");";
    let b = b"ALTER TYPE \"public\".\"e\" ADD VALUE 'f';--> statement-breakpoint\nALTER TYPE \"public\".\"e\" ADD VALUE 'g' AFTER 'f';";
    let folder = [(JOURNAL, journal.as_bytes()), ("0000_a.sql", a), ("0001_b.sql", b)];
    let report = check(&files(&folder), &table(), NOW, None);
    assert_eq!(rules(&report), [""; 0]);
    assert!(!report.has_errors());
    let text = render::check_of(&report, Format::Text);
    assert_eq!(text, "2 migrations, no problems found\n");
    let none = "{\"migrations\":2,\"errors\":0,\"warnings\":0,\"blocking\":0,\"notes\":0,\"ignored\":0,\"pending\":null}\n";
    assert_eq!(render::check_of(&report, Format::Json), none);
    let folder = [("20261122180127_a/migration.sql", &a[..])];
    assert_eq!(rules_in(&folder), [""; 0]);
}

#[test]
fn nothing_is_wrong_with_the_migrations_of_this_project() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let (_, files) = source::load(Some(&folder), &|| false).unwrap();
    let mut report = check(&files, &table(), NOW, None);
    report.findings.retain(|finding| !finding.rule.is_about_effects());
    assert_eq!(rules(&report), [""; 0]);
}

#[test]
fn findings_are_sorted_by_file_in_the_order_of_the_set() {
    let journal = journal(&[("0001_b", 5), ("0000_a", 4), ("gone", 6)]);
    let folder: [(&str, &[u8]); 4] = [
        (JOURNAL, journal.as_bytes()),
        ("0000_a.sql", b"select 1;\n  vacuum;\nrollback;"),
        ("0001_b.sql", b"select 1;\n-->statement-breakpoint\nselect 'never closed"),
        ("0002_c.sql", b""),
    ];
    let report = check(&files(&folder), &table(), NOW, None);
    assert_eq!(
        rules(&report),
        [
            "meta/_journal.json:3:17 not-later",
            "gone.sql missing-file!",
            "0001_b.sql:2:1 almost-marker",
            "0001_b.sql:3:8 unterminated!",
            "0000_a.sql:2:3 split",
            "0000_a.sql:3:1 rolls-back!",
            "0002_c.sql unused-file",
        ]
    );
    assert!(report.has_errors());
    assert_eq!(
        render::check_of(&report, Format::Text),
        "\
meta/_journal.json:3:17: warning: the `when` of 0000_a (4) is not later than that of 0001_b: where \
0001_b is applied, drizzle-orm 0.x skips 0000_a, and premigrate does not; raise it unless 0000_a is \
applied already [not-later]
gone.sql: error: the file is missing, but meta/_journal.json lists gone; restore the file, and \
check that it is copied into the image [missing-file]
0001_b.sql:2:1: warning: this resembles `--> statement-breakpoint`, but neither premigrate nor Drizzle \
splits here; write it exactly like that or remove it, unless the file is applied already [almost-marker]
0001_b.sql:3:8: error: this quoted string is never closed; close it [unterminated]
0000_a.sql:2:3: warning: the file runs in 3 steps, each recorded when it is done, because VACUUM \
cannot run inside a transaction block [split]
0000_a.sql:3:1: error: the file contains `rollback`, which would leave the migration's changes \
uncommitted; remove it [rolls-back]
0002_c.sql: warning: the file is never run, because meta/_journal.json does not list it; if it is a \
migration, put its SQL in one made by `drizzle-kit generate --custom` [unused-file]

3 errors, 4 warnings in 2 migrations
"
    );
}

#[test]
fn json_has_one_object_a_line_with_the_name_of_the_rule_and_a_summary() {
    let report = check(&files(&[("1.sql", b"select 1;\nrollback '\x1b';")]), &table(), NOW, None);
    assert_eq!(
        render::check_of(&report, Format::Json),
        "{\"severity\":\"error\",\"can_block\":false,\"file\":\"1.sql\",\"line\":2,\"column\":1,\
         \"rule\":\"rolls-back\",\"message\":\"the file contains `rollback '\\u001b'`, which would leave \
         the migration's changes uncommitted; remove it\",\
         \"table\":null,\"lock\":null,\"work\":null,\"size\":null,\"patch\":null}\n\
         {\"migrations\":1,\"errors\":1,\"warnings\":0,\"blocking\":0,\"notes\":0,\"ignored\":0,\"pending\":null}\n"
    );
}

#[test]
fn a_message_that_shows_a_statement_hides_its_password() {
    let message = first_message(&[("1.sql", b"\\connect postgres://app:hunter2@db/app")]);
    assert!(message.contains("`\\connect postgres://app:***@db/app`"), "{message}");
}

#[test]
fn every_layout_problem_is_an_error() {
    let when = r#"{"entries":[{"tag":"a"}, {"tag":"../b","when":1}, {"when":1}]}"#;
    let twice = journal(&[("a", 1), ("a", 2), ("a", 3)]);
    let cases: [(Folder, &[&str]); 10] = [
        (&[], &[" no-migrations!"]),
        (&[("a/b.sql", b"")], &[" no-migrations!"]),
        (&[("a/up.sql", b""), ("b/up.sql", b"")], &[" no-migrations!"]),
        (&[("1.sql", b"select 1"), ("1.down.sql", b"select 2")], &["1.down.sql down-files!"]),
        (&[("V10__b.sql", b"select 1"), ("V2__a.sql", b"select 2")], &["V2__a.sql version-order!"]),
        (
            &[(JOURNAL, b"{"), ("a.sql", b"abort")],
            &["meta/_journal.json invalid-journal!", "a.sql:1:1 rolls-back!"],
        ),
        (
            &[(JOURNAL, when.as_bytes()), ("a.sql", b"vacuum"), ("b.sql", b"vacuum")],
            &[
                "meta/_journal.json invalid-journal!",
                "meta/_journal.json:1:20 invalid-when!",
                "meta/_journal.json:1:33 invalid-tag!",
            ],
        ),
        (
            &[(JOURNAL, twice.as_bytes()), ("a.sql", b"select 1")],
            &["meta/_journal.json:2:17 duplicate-name!"],
        ),
        (
            &[(JOURNAL, b"{\"entries\":[]}"), ("20261122000000_a/migration.sql", b"select 1")],
            &["meta/_journal.json two-layouts!"],
        ),
        (&[("init/migration.sql", b"select 1")], &["init/migration.sql invalid-folder-name!"]),
    ];
    for (folder, expected) in cases {
        assert_eq!(rules_in(folder), expected, "{folder:?}");
        assert!(MigrationSet::from_folder(&files(folder)).is_err(), "{folder:?}");
    }
}

#[test]
fn every_statement_that_cannot_run_is_an_error() {
    for (sql, expected) in [
        ("rollback; prepare transaction 'a'", "1:1 rolls-back!, 1:11 rolls-back!"),
        (
            "listen a; commit; create temp table t (); vacuum",
            "1:1 needs-session!, 1:11 split, 1:19 needs-session!",
        ),
        ("copy t from stdin;\n\\set a\n\\.\ncopy t to stdout", "4:1 copy-to-client!"),
        ("copy t from stdin; select 1;\n1", "1:1 copy-without-data!"),
        ("\\restrict a\nselect 1;\n\\unrestrict a", ""),
        (
            "\\set a\nselect (1 \\gexec\n\\.",
            "1:1 psql-command!, 2:11 psql-command!, 3:1 psql-command!",
        ),
        ("select 1; set transaction isolation level serializable", "1:11 set-transaction!"),
        ("set transaction read only", "1:1 set-transaction!"),
        ("set transaction isolation level read committed", ""),
        ("select \"a", "1:8 unterminated!"),
        ("select $$a", "1:8 unterminated!"),
        ("/* a", "1:1 unterminated!"),
    ] {
        assert_eq!(rules_in_sql(sql).join(", "), expected, "{sql}");
    }
}

#[test]
fn a_split_migration_is_reported_at_the_first_reason_to_split_it() {
    for (sql, expected) in [
        ("select 1;\nreindex system d", "2:1 split"),
        ("select 1;\ncommit;\nvacuum", "2:1 split"),
        ("alter type e add value 'b'; select 'b'", "1:1 split"),
        ("alter type e add value 'b'; select 1", ""),
        ("create table a ();\ncreate table b ();\n-- premigrate: no-transaction", "split"),
        ("begin; select 1; commit", ""),
        // Alone, it is done or not.
        ("vacuum", ""),
    ] {
        assert_eq!(rules_in_sql(sql).join(", "), expected, "{sql}");
    }
}

#[test]
fn only_the_last_migration_that_is_split_is_told() {
    let folder: Folder =
        &[("1.sql", b"select 1;\nvacuum"), ("2.sql", b"select 2;\nvacuum"), ("3.sql", b"select 3")];
    assert_eq!(rules_in(folder), ["2.sql:2:1 split"]);
    assert!(first_message(folder).ends_with(" (an earlier migration has it, too)"));
}

#[test]
fn a_file_that_is_not_text_is_an_error_and_the_rest_of_it_is_checked() {
    assert_eq!(
        rules_in_sql(b"-- \xc3\xa9\n -- \xff\nrollback"),
        ["2:5 not-utf8!", "3:1 rolls-back!"]
    );
    assert_eq!(rules_in_sql(b"select 1;\0 commit"), ["1:10 has-nul!"]);
}

#[test]
fn an_unused_file_is_reported_in_every_layout() {
    let journal = journal(&[("a", 1)]);
    let folder: [(&str, &[u8]); 4] = [
        (JOURNAL, journal.as_bytes()),
        ("a.sql", b"select 1"),
        ("b.sql", b"commit"),
        ("c/d.sql", b""),
    ];
    assert_eq!(rules_in(&folder), ["b.sql unused-file", "c/d.sql unused-file"]);
    // One finding for all subfolders, and none for what drizzle-down keeps beside a migration.
    let folder = [
        (JOURNAL, journal.as_bytes()),
        ("a.sql", b"select 1"),
        ("a.down.sql", b"select 2"),
        ("c/d.sql", b""),
        ("c/e.sql", b""),
    ];
    assert_eq!(rules_in(&folder), ["c/d.sql unused-file"]);
    assert!(first_message(&folder).contains("(nor is 1 other file)"));
    let folder: [(&str, &[u8]); 3] = [
        ("20261122000000_a/migration.sql", b"select 1"),
        ("20261122000000_a/more.sql", b""),
        ("b.sql", b""),
    ];
    assert_eq!(rules_in(&folder), ["20261122000000_a/more.sql unused-file", "b.sql unused-file"]);
    assert_eq!(
        rules_in(&[("1.sql", b"select 1"), ("down/1.sql", b"")]),
        ["down/1.sql unused-file"]
    );
}

#[test]
fn files_of_drizzle_kit_without_their_journal_are_reported() {
    let sql = b"select 1;--> statement-breakpoint\nselect 2";
    assert_eq!(rules_in(&[("0000_a.sql", sql)]), ["meta/_journal.json missing-journal"]);
    assert_eq!(rules_in(&[("20261122000000_a/migration.sql", sql)]), [""; 0]);
}

/// Those in a folder of Drizzle 0.x with these times.
fn rules_for_times(whens: &[i64]) -> Vec<String> {
    let tags: Vec<_> = (0..whens.len()).map(|at| format!("000{at}_a")).collect();
    let entries: Vec<_> = tags.iter().map(String::as_str).zip(whens.iter().copied()).collect();
    let mut folder = files(&[(JOURNAL, journal(&entries).as_bytes())]);
    for tag in &tags {
        let sql = format!("select '{tag}'");
        folder.files.insert(format!("{tag}.sql"), sql.into_bytes().into());
    }
    rules(&check(&folder, &table(), NOW, None))
}

#[test]
fn journal_entries_that_drizzle_orm_skips_are_reported_at_their_position() {
    let not_later = |line: usize| format!("{JOURNAL}:{line}:17 not-later");
    assert_eq!(rules_for_times(&[1, 2, 3]), [""; 0]);
    assert_eq!(rules_for_times(&[1, 1, 2]), [not_later(3)]);
    assert_eq!(rules_for_times(&[1, 9, 5, 6]), [not_later(4), not_later(5)]);
}

#[test]
fn a_time_in_the_future_is_reported_once_and_not_for_later_entries() {
    let one = rules_for_times(&[1, NOW + CLOCK_SKEW + 1, 3]);
    assert_eq!(one.len(), 1, "{one:?}");
    assert!(one[0].starts_with("meta/_journal.json:3:"), "{one:?}");
    assert!(one[0].ends_with(" future-time"), "{one:?}");
    assert_eq!(rules_for_times(&[1, NOW + CLOCK_SKEW]), [""; 0], "a clock that is a little fast");
    let folder = [("20991122000000_a/migration.sql", &b"select 1"[..])];
    assert_eq!(rules_in(&folder), ["20991122000000_a/migration.sql future-time"]);
}

#[test]
fn duplicate_content_empty_files_and_empty_templates_are_reported() {
    let folder: [(&str, &[u8]); 8] = [
        ("1.sql", b"select 1"),
        ("2.sql", b"select 1"),
        ("3.sql", b"select 1"),
        ("4.sql", DRIZZLE_TEXT.as_bytes()),
        ("5.sql", PLAIN_TEXT.as_bytes()),
        ("6.sql", b""),
        ("7.sql", b" \n\t"),
        ("8.sql", b"-- on purpose"),
    ];
    assert_eq!(
        rules_in(&folder),
        [
            "2.sql same-content",
            "3.sql same-content",
            "4.sql empty-template",
            "5.sql empty-template",
            "6.sql empty-file",
            "7.sql empty-file",
            "8.sql no-statement",
        ]
    );
    let written =
        [("1.sql", &b"-- Custom SQL migration file, put your code below! --\nselect 1"[..])];
    assert_eq!(rules_in(&written), [""; 0]);
}

#[test]
fn names_that_differ_only_in_case_are_reported_even_if_one_file_is_missing() {
    let collision = rules_in(&[("A.sql", b"select 1"), ("a.sql", b"select 2")]);
    assert_eq!(collision, ["a.sql case-collision"]);
    let journal = journal(&[("0000_add", 1)]);
    let folder = [(JOURNAL, journal.as_bytes()), ("0000_Add.sql", &b"select 1"[..])];
    assert_eq!(
        rules_in(&folder),
        ["0000_add.sql missing-file!", "0000_Add.sql case-collision", "0000_Add.sql unused-file"]
    );
}

#[test]
fn names_whose_order_is_hardly_meant_are_reported() {
    for (names, expected) in [
        (&["step10", "step2"][..], &["step2.sql number-order"][..]),
        (&["step1", "step2", "b10", "a2", "10x", "2y"], &[]),
        (&["10_a", "010_b"], &["10_a.sql same-number"]),
        (&["0001_a", "0001_b", "0002_c"], &["0001_b.sql same-number"]),
        (
            &["0001_a", "20240101_b", "1700000000000_c"],
            &["20240101_b.sql mixed-numbers", "1700000000000_c.sql mixed-numbers"],
        ),
        (&["1700000000_a", "20240101120000_b"], &["20240101120000_b.sql mixed-numbers"]),
        (&["1_a", "2_b", "10_c", "100_d", "notes"], &[]),
        (&["20240101_a", "20240102_b"], &[]),
    ] {
        let files: Vec<_> = names.iter().map(|name| format!("{name}.sql")).collect();
        let texts: Vec<_> = (0..names.len()).map(|number| format!("select {number}")).collect();
        let folder = files.iter().map(String::as_str).zip(texts.iter().map(String::as_bytes));
        let folder: Vec<(&str, &[u8])> = folder.collect();
        assert_eq!(rules_in(&folder), expected, "{names:?}");
    }
}

#[test]
fn byte_order_marks_and_line_endings_are_reported() {
    assert_eq!(rules_in_sql("\u{feff}select 1"), ["bom"]);
    let journal = format!("\u{feff}{}", journal(&[]));
    assert_eq!(rules_in(&[(JOURNAL, journal.as_bytes())]), ["meta/_journal.json bom"]);
    assert_eq!(rules_in_sql("select 1;\r\nselect 2;\r\n"), ["crlf"]);
    assert_eq!(rules_in_sql("select 1;\r\nselect 2;\n"), ["mixed-line-endings"]);
    assert_eq!(rules_in_sql("select 1;\nselect 2;\n"), [""; 0]);
}

#[test]
fn crlf_in_many_files_is_one_finding() {
    let folder: [(&str, &[u8]); 3] =
        [("1.sql", b"select 1\r\n"), ("2.sql", b"select 2\r\n"), ("3.sql", b"select 3\r\n")];
    assert_eq!(rules_in(&folder), ["1.sql crlf"]);
    let message = first_message(&folder);
    assert!(message.contains("(so do 2 other files)"), "{message}");
    assert!(message.contains("*.sql text eol=lf"), "{message}");
}

#[test]
fn ignored_markers_are_reported_once_per_file() {
    let marker = MARKER;
    for (sql, expected) in [
        (format!("select '{marker}', $${marker}$$"), "1:9 marker-inside"),
        (format!("create table t ({marker}\na int)"), "1:17 marker-inside"),
        (format!("/* {marker}\n{marker} */ select 1"), "1:4 marker-inside"),
        ("select 1;\n-->statement-breakpoint\nselect 2".to_owned(), "2:1 almost-marker"),
        (format!("select 'never closed; {marker}"), "1:8 unterminated!"),
    ] {
        assert_eq!(
            rules_in(&[("20261122000000_a/migration.sql", sql.as_bytes())]),
            [format!("20261122000000_a/migration.sql:{expected}")]
        );
    }
    let sql = format!("/* {marker}\n{marker} */ select 1");
    let message = first_message(&[("20261122000000_a/migration.sql", sql.as_bytes())]);
    assert!(message.contains("inside a comment (1 more in the file)"), "{message}");
}

#[test]
fn statements_that_change_the_history_are_reported() {
    for (sql, expected) in [
        ("create schema drizzle", "1:1 changes-history"),
        ("create schema if not exists \"drizzle\"", "1:1 changes-history"),
        ("create table drizzle.__drizzle_migrations ()", "1:1 changes-history"),
        ("CREATE TABLE \"drizzle\".\"__drizzle_migrations\" ()", "1:1 changes-history"),
        ("alter table d.drizzle.__drizzle_migrations add a int", "1:1 changes-history"),
        ("drop schema a, drizzle cascade", "1:1 changes-history"),
        ("select 1;\ndelete from drizzle.__drizzle_migrations", "2:1 changes-history"),
        ("create table __drizzle_migrations ()", ""),
        ("create table public.__drizzle_migrations ()", ""),
        ("create table drizzle.other ()", ""),
        ("create schema \"Drizzle\"", ""),
        ("select 'create schema drizzle'", ""),
    ] {
        assert_eq!(rules_in_sql(sql).join(", "), expected, "{sql}");
    }
    let files =
        files(&[("1.sql", b"drop table t; drop table public.t; alter table s.t add a int")]);
    let report = check(&files, &Table::new("public", "t"), NOW, None);
    assert_eq!(rules(&report), ["1.sql:1:1 changes-history", "1.sql:1:15 changes-history"]);
}

#[test]
fn settings_that_are_not_reset_are_reported_by_name() {
    for (sql, names) in [
        ("set search_path = a", "search_path"),
        ("set local search_path = a", ""),
        ("set role a; select 1; reset role", ""),
        ("set role a; select 1; reset all", "role"),
        ("set a.b = 1; set role c; set a.b = 3; reset all", "role"),
        ("set a.b = 1; set datestyle = iso; set a.b = 3", "datestyle, a.b"),
        // What only limits or tells.
        ("set lock_timeout = '5s'; set statement_timeout = 0; set client_min_messages = error", ""),
        ("set work_mem = 2; set search_path = a; set lock_timeout = 1", "search_path"),
        // What it always is.
        ("set standard_conforming_strings = on; set client_encoding = 'UTF8'", ""),
        ("select pg_catalog.set_config('search_path', '', false)", "search_path"),
        ("select set_config('search_path', '', true)", ""),
        ("set time zone 'UTC'; set time zone default", ""),
        ("set session authorization a; set role b; reset session authorization", "role"),
    ] {
        let report = check(&files(&[("1.sql", sql.as_bytes())]), &table(), NOW, None);
        match report.findings.as_slice() {
            [] => assert_eq!(names, "", "{sql}"),
            [Finding { rule: Rule::LeftoverSettings, message, .. }] => {
                let leaves = format!("the file leaves {names} set, ");
                assert!(!names.is_empty() && message.starts_with(&leaves), "{sql}: {message}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn set_local_is_the_cure_only_where_there_is_one_transaction() {
    let message = |sql: &str| first_message(&[("1.sql", sql.as_bytes())]);
    let one = message("set search_path = a; create table t ()");
    assert!(one.contains("; use SET LOCAL in each"), "{one}");
    let ignored = "-- premigrate: ignore split because of the index\n";
    let alone = format!("set search_path = a; {ignored}create index concurrently i on t (c)");
    let alone = message(&alone);
    assert!(alone.contains("and RESET them at the end of this one, because SET LOCAL"), "{alone}");
}

#[test]
fn a_set_local_that_ends_before_the_next_statement_is_reported() {
    let alone = "create index concurrently i on t (c)";
    for (sql, expected) in [
        (format!("set local a = b; {alone}"), "1:1 lost-set-local, 1:18 split"),
        (
            format!("select 1; set local a = b; set c = d; set local e = f; {alone}"),
            "1:11 lost-set-local, 1:39 lost-set-local, 1:56 split",
        ),
        (
            "-- premigrate: no-transaction\nset local a = b; select 1".to_owned(),
            "split, 2:1 lost-set-local",
        ),
        (format!("set local a = b; select 1; {alone}"), "1:28 split"),
        (format!("{alone}; set local a = b; select 1"), "1:1 split"),
        (
            format!("-- premigrate: ignore lost-set-local because of 1\nset local a = b; {alone}"),
            "2:18 split",
        ),
        ("select 1; set local a = b; commit".to_owned(), ""),
        ("set local a = b; select 1".to_owned(), ""),
        ("select 1; set local a = b".to_owned(), ""),
    ] {
        assert_eq!(rules_in_sql(&sql).join(", "), expected, "{sql}");
    }
}

#[test]
fn using_a_new_enum_value_in_the_same_transaction_is_reported() {
    let add = "alter type e add value 'b';\n";
    for (sql, expected) in [
        (format!("begin; {add}update t set e = 'b' where c; commit"), "2:1 new-enum-value"),
        (format!("{add}update t set e = 'b' where c; select 'b'"), "1:1 split"),
        (format!("begin; {add}{add}update t set e = 'a' where c; commit"), ""),
        (format!("select 'b'; {add}"), ""),
        (format!("create type e as enum ('a'); {add}select 'b'"), "1:30 split"),
        (format!("{add}alter type e add value 'c' after 'b'"), ""),
    ] {
        assert_eq!(rules_in_sql(&sql).join(", "), expected, "{sql}");
    }
}

/// How many findings are ignored, and the rules of the others.
fn ignored_and_rules(folder: Folder) -> (usize, Vec<String>) {
    let report = check(&files(folder), &table(), NOW, None);
    (report.ignored, rules(&report))
}

#[track_caller]
fn is_ignored(folder: Folder, count: usize) {
    assert_eq!(ignored_and_rules(folder), (count, vec![]), "{folder:?}");
}

#[test]
fn a_directive_ignores_a_rule_in_the_statement_that_it_is_before() {
    let line = |rule: &str| format!("\n-- premigrate: ignore {rule} because it is meant so\n");
    let history = "delete from drizzle.__drizzle_migrations;";
    let ignore = line("changes-history");
    for (sql, ignored, others) in [
        (format!("{ignore}{history}"), 1, &[][..]),
        (format!("select 1;{ignore}-- more\n/* more */ {history} select 2"), 1, &[]),
        (format!("delete from{ignore}drizzle.__drizzle_migrations"), 1, &[]),
        (format!("{history}{ignore}"), 1, &[]),
        (format!("{ignore}{history}\n{history}"), 1, &["1.sql:4:1 changes-history"]),
        (format!("{ignore}select 1; {history}"), 0, &["1.sql:3:11 changes-history"]),
        (format!("{history}{ignore}select 1"), 0, &["1.sql:1:1 changes-history"]),
        (format!("{}{history}", line("split")), 0, &["1.sql:3:1 changes-history"]),
    ] {
        let (count, rules) = ignored_and_rules(&[("1.sql", sql.as_bytes())]);
        assert_eq!(count, ignored, "{sql}");
        assert_eq!(rules, others, "{sql}");
    }
}

#[test]
fn every_rule_about_a_statement_can_be_ignored() {
    for (rule, before, sql) in [
        ("split", "select 1;", "vacuum"),
        ("almost-marker", "select 1;", "-->statement-breakpoint\nselect 2"),
        ("marker-inside", "select 1;", "select '--> statement-breakpoint'"),
        ("changes-history", "select 1;", "create schema drizzle"),
        ("leftover-settings", "select 1;", "set search_path = a"),
        ("new-enum-value", "begin; alter type e add value 'b';", "select 'b'; commit"),
        ("invisible-character", "select 1;", "select a\u{a0}from b"),
    ] {
        let with = |directive: &str| format!("{before}\n{directive}{sql}");
        let without = with("");
        assert!(!rules_in_sql(without).is_empty(), "{rule}");
        let ignored = with(&format!("-- premigrate: ignore {rule} because it is meant so\n"));
        is_ignored(&[("20261122000000_a/migration.sql", ignored.as_bytes())], 1);
    }
}

#[test]
fn a_directive_at_the_head_of_a_file_ignores_what_is_about_the_whole_file() {
    let ignored = |rules: &[&str], sql: &str| {
        let line = |rule| format!("-- premigrate: ignore {rule} because it is meant so\n");
        rules.iter().map(line).collect::<String>() + sql
    };
    for (rule, sql) in [
        ("no-statement", ""),
        ("crlf", "select 1\r\n"),
        ("split", "-- premigrate: no-transaction\nselect 1; select 2"),
    ] {
        let mut sql = ignored(&[rule], sql);
        if rule == "crlf" {
            sql = sql.replace("\r\n", "\n").replace('\n', "\r\n");
        }
        is_ignored(&[("1.sql", sql.as_bytes())], 1);
        let late = format!("select 0;\n{sql}");
        assert_eq!(ignored_and_rules(&[("1.sql", late.as_bytes())]).0, 0, "{rule}");
    }
    let bom = format!("\u{feff}{}", ignored(&["bom"], "select 1"));
    is_ignored(&[("1.sql", bom.as_bytes())], 1);
    let mixed = ignored(&["mixed-line-endings"], "select 1\r\n");
    is_ignored(&[("1.sql", mixed.as_bytes())], 1);
    let marked = ignored(&["missing-journal"], "select 1;--> statement-breakpoint\nselect 2");
    is_ignored(&[("1.sql", marked.as_bytes())], 1);

    let (first, second) = ("select 1", &ignored(&["same-number"], "select 2"));
    is_ignored(&[("1_a.sql", first.as_bytes()), ("1_b.sql", second.as_bytes())], 1);
    let second = &ignored(&["mixed-numbers"], "select 2");
    is_ignored(&[("1_a.sql", first.as_bytes()), ("20240101_b.sql", second.as_bytes())], 1);
    let second = &ignored(&["number-order"], "select 2");
    is_ignored(&[("a10.sql", first.as_bytes()), ("a2.sql", second.as_bytes())], 1);
    let second = &ignored(&["case-collision"], "select 2");
    is_ignored(&[("A.sql", first.as_bytes()), ("a.sql", second.as_bytes())], 1);
    let same = &ignored(&["same-content"], "select 2");
    is_ignored(&[("a.sql", same.as_bytes()), ("b.sql", same.as_bytes())], 1);
    let unused = &ignored(&["unused-file"], "select 2");
    is_ignored(&[("a.sql", first.as_bytes()), ("down/a.sql", unused.as_bytes())], 1);
    let late = ignored(&["future-time"], "select 1");
    is_ignored(&[("20991122000000_a/migration.sql", late.as_bytes())], 1);
}

#[test]
fn what_the_journal_says_of_a_migration_is_ignored_in_its_file() {
    let journal = journal(&[("a", 5), ("b", 4), ("c", NOW + CLOCK_SKEW + 1)]);
    let line =
        |rule| format!("-- premigrate: ignore {rule} because it is applied\nselect '{rule}'");
    let (b, c, d) = (line("not-later"), line("future-time"), line("unused-file"));
    let folder: Folder = &[
        (JOURNAL, journal.as_bytes()),
        ("a.sql", b"select 1"),
        ("b.sql", b.as_bytes()),
        ("c.sql", c.as_bytes()),
        ("d.sql", d.as_bytes()),
    ];
    is_ignored(folder, 3);
}

#[test]
fn a_finding_about_many_files_leaves_out_those_that_ignore_it() {
    let ignored = b"-- premigrate: ignore crlf because of an old editor\r\nselect 1\r\n";
    let folder: Folder =
        &[("1.sql", ignored), ("2.sql", b"select 2\r\n"), ("3.sql", b"select 3\r\n")];
    assert_eq!(ignored_and_rules(folder), (1, vec!["2.sql crlf".to_owned()]));
    assert!(first_message(folder).contains("(so does 1 other file)"));
}

#[test]
fn the_summary_counts_what_is_ignored() {
    let sql = b"-- premigrate: ignore split because of locks\nvacuum;\nselect 1;\nset role a";
    let report = check(&files(&[("1.sql", sql)]), &table(), NOW, None);
    let text = render::check_of(&report, Format::Text);
    assert!(text.ends_with("\n\n1 warning in 1 migration, 1 ignored\n"), "{text}");
    let json = render::check_of(&report, Format::Json);
    let last = "{\"migrations\":1,\"errors\":0,\"warnings\":1,\"blocking\":0,\"notes\":0,\"ignored\":1,\"pending\":null}";
    assert_eq!(json.lines().last(), Some(last));
    let sql = b"-- premigrate: ignore split because of locks\nvacuum;\nselect 1";
    let report = check(&files(&[("1.sql", sql)]), &table(), NOW, None);
    let text = render::check_of(&report, Format::Text);
    assert_eq!(text, "1 migration, no problems found, 1 ignored\n");
}

#[test]
fn a_directive_that_ignores_nothing_is_an_error() {
    for sql in [
        "-- premigrate: ignore spilt because of locks\nselect 1",
        "-- premigrate: ignore split\nselect 1",
        "-- premigrate: ignore rolls-back because I want to\nselect 1",
    ] {
        assert_eq!(rules_in_sql(sql), ["1:1 unknown-directive!"], "{sql}");
        let folder = &[("1.sql", &b"select 1"[..]), ("down/1.sql", sql.as_bytes())];
        let rules = rules_in(folder);
        assert_eq!(rules, ["down/1.sql unused-file", "down/1.sql:1:1 unknown-directive!"], "{sql}");
    }
}

#[test]
fn invisible_characters_are_named_with_their_place() {
    for (sql, expected) in [
        ("create table a(id int);\n\u{feff}create table b(id int);", "2:1 invisible-syntax-error!"),
        ("create table a(id int);\n\u{200b}select 1;", "2:1 invisible-syntax-error!"),
        ("create\u{a0}table a(id int)", "1:7 invisible-syntax-error!"),
        ("\u{feff}\u{feff}select 1", "bom, 1:1 invisible-syntax-error!"),
        ("create table a\u{a0}(id int)", "1:15 invisible-character"),
        (
            "select 1,\u{2060} 2,\n\u{202e}3, 4\u{ad}",
            "1:10 invisible-character, 2:1 invisible-character, 2:6 invisible-character",
        ),
        ("select '\u{a0}', \"\u{200b}\", $$\u{feff}$$ -- \u{2060}\n /* \u{200d} */", ""),
        ("copy t from stdin;\n\u{a0}\n\\.\n", ""),
        ("select größe, 名前, имя", ""),
        ("select 1\u{8}", "1:9 invisible-syntax-error!"),
        ("select 1,\u{85}", "1:10 invisible-character"),
    ] {
        assert_eq!(rules_in_sql(sql).join(", "), expected, "{sql:?}");
    }
    // One finding for each character, and what is certain to fail is another.
    let sql = "select 1\u{a0};\nselect 2\u{a0};\nselect\u{a0}3;\nselect 4\u{a0}";
    assert_eq!(rules_in_sql(sql), ["1:9 invisible-character", "3:7 invisible-syntax-error!"]);
    assert_eq!(
        first_message(&[("1.sql", sql.as_bytes())]),
        "U+00A0 (NO-BREAK SPACE) is here (2 more in the file), which cannot be seen, but to \
         PostgreSQL it is a letter of the word, and no space; remove it, or replace it by a space"
    );
}

#[test]
fn a_file_in_utf16_is_called_that_and_nothing_else_is_said_of_it() {
    let text = "\u{feff}select 'a';\r\nrollback;\n";
    for (text, unit) in [(text, u16::to_le_bytes as fn(u16) -> [u8; 2]), (text, u16::to_be_bytes)] {
        for text in [text, text.trim_start_matches(BOM)] {
            let content: Vec<u8> = text.encode_utf16().flat_map(unit).collect();
            assert_eq!(rules_in_sql(&content), ["utf16!"], "{text:?}");
            let message = first_message(&[("1.sql", &content)]);
            assert!(message.contains("is UTF-16") && message.ends_with("save it as UTF-8"));
            assert_eq!(rules_in(&[(JOURNAL, &content)]), [format!("{JOURNAL} utf16!")]);
        }
    }
}

#[test]
fn conflict_markers_are_errors_in_sql_and_in_the_journal() {
    let sql = "select 1;\n<<<<<<< HEAD\nselect 2;\n=======\nselect 3;\n>>>>>>> b\n";
    assert_eq!(rules_in_sql(sql), ["2:1 conflict-marker!"]);
    let journal = "{\"entries\":[\n<<<<<<< HEAD\n{}\n=======\n>>>>>>> b\n]}";
    assert_eq!(
        rules_in(&[(JOURNAL, journal.as_bytes())]),
        ["meta/_journal.json:2:1 conflict-marker!"]
    );
}

#[test]
fn a_name_that_does_not_end_in_sql_in_lower_case_is_reported() {
    let mut folder = files(&[("1.sql", b"select 1")]);
    folder.upper_case = vec!["2.SQL".to_owned(), "sub/3.Sql".to_owned()];
    let report = check(&folder, &table(), NOW, None);
    assert_eq!(rules(&report), ["2.SQL unused-file"]);
    let message = &report.findings[0].message;
    assert!(message.contains("never run (nor is 1 other file)"), "{message}");
}

/// The findings about snapshots, each a path and its content.
fn snapshot_rules(folder: Folder, snapshots: &[(&str, &str)]) -> Vec<String> {
    let mut folder = files(folder);
    let snapshot = |(path, text): &(&str, &str)| Some(((*path).to_owned(), Snapshot::parse(text)?));
    folder.snapshots = snapshots.iter().filter_map(snapshot).collect();
    rules(&check(&folder, &table(), NOW, None))
}

#[test]
fn two_snapshots_of_0x_that_follow_the_same_one_are_two_heads() {
    let journal = journal(&[("0000_a", 1), ("0001_b", 2), ("0002_c", 3)]);
    let ignored = "-- premigrate: ignore two-heads because it is applied\nselect 3";
    let folder = |last: &str| {
        let migrations =
            [("0000_a.sql", "select 1"), ("0001_b.sql", "select 2"), ("0002_c.sql", last)];
        let files = migrations.into_iter().chain([(JOURNAL, journal.as_str())]);
        files.map(|(path, text)| (path.to_owned(), text.to_owned())).collect::<Vec<_>>()
    };
    let rules = |last: &str, snapshots: &[(&str, &str)]| {
        let folder = folder(last);
        let folder = folder.iter().map(|(path, text)| (path.as_str(), text.as_bytes()));
        snapshot_rules(&folder.collect::<Vec<_>>(), snapshots)
    };
    let first = ("meta/0000_snapshot.json", r#"{"id": "a", "prevId": "0"}"#);
    let second = ("meta/0001_snapshot.json", r#"{"id": "b", "prevId": "a"}"#);
    let third = ("meta/0002_snapshot.json", r#"{"id": "c", "prevId": "b"}"#);
    assert_eq!(rules("select 3", &[first, second, third]), [""; 0]);
    let beside = ("meta/0002_snapshot.json", r#"{"id": "c", "prevId": "a"}"#);
    let found = ["meta/0002_snapshot.json two-heads"];
    assert_eq!(rules("select 3", &[first, second, beside]), found);
    assert_eq!(rules(ignored, &[first, second, beside]), [""; 0]);
    // What the journal does not list is no head.
    let unlisted = ("meta/0007_snapshot.json", r#"{"id": "x", "prevId": "a"}"#);
    assert_eq!(rules("select 3", &[first, second, third, unlisted]), [""; 0]);
    let conflict = ("meta/0002_snapshot.json", "{\n<<<<<<< HEAD\n=======\n>>>>>>> b\n}");
    let found = ["meta/0002_snapshot.json:2:1 two-heads"];
    assert_eq!(rules("select 3", &[first, second, conflict]), found);
}

#[test]
fn two_last_migrations_of_0x_that_share_a_snapshot_are_two_heads() {
    let rules = |tags: &[&str]| {
        let entries: Vec<_> = tags.iter().copied().zip(1..).collect();
        let journal = journal(&entries);
        let names: Vec<_> = tags.iter().map(|tag| format!("{tag}.sql")).collect();
        let texts: Vec<_> = tags.iter().map(|tag| format!("select '{tag}'")).collect();
        let files = names.iter().map(String::as_str).zip(texts.iter().map(String::as_bytes));
        let folder: Vec<_> = files.chain([(JOURNAL, journal.as_bytes())]).collect();
        snapshot_rules(&folder, &[("meta/0001_snapshot.json", r#"{"id": "a", "prevId": "0"}"#)])
    };
    assert_eq!(rules(&["0000_a", "0001_b", "0001_c"]), ["0001_c.sql two-heads"]);
    assert_eq!(rules(&["0000_a", "0001_b", "0001_c", "0002_d"]), [""; 0]);
}

#[test]
fn snapshots_of_1x_that_nothing_follows_are_two_heads() {
    let names = ["20260101000000_a", "20260101000001_b", "20260101000002_c", "20260101000003_d"];
    let paths = names.map(|name| format!("{name}/migration.sql"));
    let texts = names.map(|name| format!("select '{name}'"));
    let paths_and_texts = paths.iter().map(String::as_str).zip(texts.iter().map(String::as_bytes));
    let folder: Vec<_> = paths_and_texts.collect();
    let rules = |snapshots: &[&str]| {
        let paths = names.map(|name| format!("{name}/snapshot.json"));
        let snapshots = paths.iter().map(String::as_str).zip(snapshots.iter().copied());
        snapshot_rules(&folder, &snapshots.collect::<Vec<_>>())
    };
    let a = r#"{"id": "a", "prevIds": ["0"]}"#;
    let b = r#"{"id": "b", "prevIds": ["a"]}"#;
    let c = r#"{"id": "c", "prevIds": ["a"]}"#;
    let d = r#"{"id": "d", "prevIds": ["b", "c"]}"#;
    assert_eq!(rules(&[a, b, c]), ["20260101000002_c/snapshot.json two-heads"]);
    assert_eq!(rules(&[a, b, c, d]), [""; 0]);
    assert_eq!(rules(&[a, b]), [""; 0]);
}

#[test]
fn every_message_is_one_sentence_with_a_fix() {
    for folder in random_folders() {
        for finding in check(&folder, &table(), NOW, None).findings {
            let message = finding.message;
            assert!(!message.ends_with('.') && !message.contains("  "), "{message}");
            assert!(message.contains(';') || message.contains(','), "{message}");
            assert!(
                finding.position.is_none_or(|position| position.line > 0 && position.column > 0)
            );
        }
    }
}

#[test]
fn every_refused_folder_has_an_error_and_no_folder_panics() {
    let mut seen = [0; 3];
    for folder in random_folders() {
        let report = check(&folder, &table(), NOW, None);
        for format in [Format::Text, Format::Json] {
            render::check_of(&report, format);
        }
        let refused = match MigrationSet::from_folder(&folder) {
            Err(_) => 0,
            Ok(set) => {
                assert_eq!(report.migrations, set.migrations().len());
                if prepared::prepare(set.migrations().iter()).is_err() { 1 } else { 2 }
            }
        };
        seen[refused] += 1;
        assert!(refused == 2 || report.has_errors(), "{folder:?}");
    }
    assert!(seen.iter().all(|&count| count > 300), "{seen:?}");
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    /// One of these, the first ones most often: they are what goes well.
    fn one(&mut self, tokens: &'static str) -> &'static str {
        let tokens: Vec<_> = tokens.split('|').collect();
        tokens[self.below(tokens.len()).min(self.below(tokens.len()))]
    }

    /// Up to `most` of these in a row, or as many of any bytes.
    fn soup(&mut self, tokens: &'static str, most: usize) -> Vec<u8> {
        let length = self.below(most);
        if self.below(6) == 0 {
            (0..length).map(|_| self.below(256) as u8).collect()
        } else {
            (0..length).map(|_| self.one(tokens)).collect::<String>().into_bytes()
        }
    }
}

/// Folders of tokens that matter and of any bytes, from a fixed seed.
fn random_folders() -> impl Iterator<Item = MigrationFolder> {
    const SQL: &str = "select 1|;|\n|--> statement-breakpoint|set role a|reset|all|set time|set|\
        '|$$|/*|*/|--|\r\n|\u{feff}|é|\0|(|)|-->statement-breakpoint|begin;|commit;|vacuum;|\
        set_config(|set transaction|alter type e add value 'b'|create table|drop schema|truncate|\
        -- premigrate: ignore split because a\n|<<<<<<< a\n|\u{a0}|\
        drizzle|.|,|copy t from stdin;|\\x|-- premigrate: no-transaction\n| |\"";
    const JSON: &str = "{|}|[|]|,|:|\"entries\"|\"tag\"|\"when\"|\"a\"|1|1e99|null|\u{feff}|\
        \"\\ud800\"|9223372036854775807|-9223372036854775808";
    const TAGS: &str = "a|b|A|gone|c/d|../x|x/migration";
    const WHENS: &str = "1|2|\"3\"|9223372036854775807|-9223372036854775808|1.5";
    const PATHS: &str = "a.sql|A.sql|b.sql|1.sql|c/d.sql|.sql|20261122000000_a/migration.sql|\
        20261122000000_A/migration.sql|99999999999999_a/migration.sql|x/migration.sql";
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..3_000).map(move |_| {
        let mut files = Files::new();
        for _ in 0..=random.below(4) {
            let sql = random.soup(SQL, 12);
            files.insert(random.one(PATHS).to_owned(), sql.into());
        }
        let journal = match random.below(4) {
            0 => Some(random.soup(JSON, 20)),
            1 => {
                let entries: Vec<_> = (0..random.below(4))
                    .map(|_| {
                        let (tag, when) = (random.one(TAGS), random.one(WHENS));
                        format!(r#"{{"tag":"{tag}","when":{when}}}"#)
                    })
                    .collect();
                Some(format!(r#"{{"entries":[{}]}}"#, entries.join(",")).into_bytes())
            }
            _ => None,
        };
        files.extend(journal.map(|journal| (JOURNAL.to_owned(), journal.into())));
        files.into()
    })
}

/// With a pass over the text for each finding, this takes many minutes.
#[test]
fn a_hundred_thousand_findings_are_placed_in_one_pass() {
    let began = Instant::now();
    let sql = "rollback; ".repeat(100_000);
    assert_eq!(rules_in_sql(sql).last().map(String::as_str), Some("1:999991 rolls-back!"));
    let entries: Vec<_> = (0..20_000).map(|index| (format!("{index}"), -index)).collect();
    let entries: Vec<_> = entries.iter().map(|(tag, when)| (tag.as_str(), *when)).collect();
    let files: Files = entries
        .iter()
        .map(|(tag, _)| (format!("{tag}.sql"), format!("select {tag}").into_bytes().into()))
        .chain([(JOURNAL.to_owned(), journal(&entries).into_bytes().into())])
        .collect();
    let report = check(&files.into(), &table(), NOW, None);
    assert_eq!(
        rules(&report).last().map(String::as_str),
        Some("meta/_journal.json:20001:22 not-later")
    );
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
