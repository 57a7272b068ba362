use std::borrow::Cow;

use super::*;
use crate::cli::config::Format;
use crate::migrations::migration::MigrationSet;
use crate::render;

/// 2026-11-22T12:00:00Z
const NOW: i64 = 1_795_348_800_000;

fn table() -> Table {
    Table::new("drizzle", "__drizzle_migrations")
}

type Folder<'a> = &'a [(&'a str, &'a [u8])];

fn files(files: Folder) -> MigrationFolder {
    let file = |(path, content): &(&str, &[u8])| ((*path).to_owned(), Cow::Owned(content.to_vec()));
    files.iter().map(file).collect::<Files>().into()
}

fn journal(entries: &[(&str, i64)]) -> String {
    let entries: Vec<_> =
        entries.iter().map(|(tag, when)| format!(r#"{{"when":{when},"tag":"{tag}"}}"#)).collect();
    format!("{{\"entries\":[\n{}\n]}}", entries.join(",\n"))
}

/// Each finding as `file:line:column word`, faults with a `!`.
fn words(checked: &CheckReport) -> Vec<String> {
    checked
        .findings
        .iter()
        .map(|Finding { file, place, what }| {
            let place = place.map_or(String::new(), |position| format!(":{position}"));
            let fault = if what.severity() == Severity::Error { "!" } else { "" };
            format!("{file}{place} {}{fault}", what.code())
        })
        .collect()
}

fn told(of: Folder) -> Vec<String> {
    words(&check(&files(of), &table(), NOW))
}

/// Of one plain migration, without its name.
fn told_of(sql: impl AsRef<[u8]>) -> Vec<String> {
    let told = told(&[("1.sql", sql.as_ref())]);
    told.iter().map(|told| told["1.sql".len()..].trim_start_matches([':', ' ']).into()).collect()
}

fn sentence(of: Folder) -> String {
    let checked = check(&files(of), &table(), NOW);
    render::check_of(&checked, Format::Text).lines().next().unwrap().to_owned()
}

#[test]
fn of_what_drizzle_kit_makes_there_is_nothing_to_say() {
    let journal = journal(&[("0000_a", 1), ("0001_b", 2)]);
    let a = b"CREATE TABLE \"a\" (\n\t\"b\" text\n);\n--> statement-breakpoint\nCREATE INDEX \"c\" ON \"a\" (\"b\");";
    let b = b"ALTER TYPE \"public\".\"e\" ADD VALUE 'f';--> statement-breakpoint\nALTER TYPE \"public\".\"e\" ADD VALUE 'g' AFTER 'f';";
    let folder = [(JOURNAL, journal.as_bytes()), ("0000_a.sql", a), ("0001_b.sql", b)];
    let checked = check(&files(&folder), &table(), NOW);
    assert_eq!(words(&checked), [""; 0]);
    assert!(!checked.is_faulty());
    let text = render::check_of(&checked, Format::Text);
    assert_eq!(text, "2 migrations, nothing to say\n");
    let none = "{\"migrations\":2,\"faults\":0,\"remarks\":0}\n";
    assert_eq!(render::check_of(&checked, Format::Json), none);
    let folder = [("20261122180127_a/migration.sql", &a[..])];
    assert_eq!(told(&folder), [""; 0]);
}

#[test]
fn of_our_own_migrations_there_is_nothing_to_say() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let files = crate::migrations::source::load(&crate::migrations::source::Origin::Folder(folder))
        .unwrap();
    assert_eq!(words(&check(&files, &table(), NOW)), [""; 0]);
}

#[test]
fn everything_is_told_at_once_by_file_in_the_sets_order() {
    let journal = journal(&[("0001_b", 5), ("0000_a", 4), ("gone", 6)]);
    let folder: [(&str, &[u8]); 4] = [
        (JOURNAL, journal.as_bytes()),
        ("0000_a.sql", b"select 1;\n  vacuum;\nrollback;"),
        ("0001_b.sql", b"select 1;\n-->statement-breakpoint\nselect 'never closed"),
        ("0002_c.sql", b""),
    ];
    let checked = check(&files(&folder), &table(), NOW);
    assert_eq!(
        words(&checked),
        [
            "meta/_journal.json:3:17 not_later",
            "gone.sql no_file!",
            "0001_b.sql:2:1 near_miss",
            "0001_b.sql:3:8 unterminated!",
            "0000_a.sql:2:3 split",
            "0000_a.sql:3:1 undoes!",
            "0002_c.sql orphan",
        ]
    );
    assert!(checked.is_faulty());
    assert_eq!(
        render::check_of(&checked, Format::Text),
        "\
meta/_journal.json:3:17: remark: gives 0000_a the `when` 4, which is not later than that of 0001_b: \
drizzle-orm 0.x skips it where 0001_b has been applied, premigrate does not; raise it, unless it has \
been applied
gone.sql: fault: is missing, but meta/_journal.json lists gone; restore the file (was it copied into the \
image?)
0001_b.sql:2:1: remark: resembles `--> statement-breakpoint`, but nobody splits here; write it exactly \
so, or remove it, unless the file has been applied
0001_b.sql:3:8: fault: opens a quoted string that is never closed; close it
0000_a.sql:2:3: remark: is run in 3 steps, each recorded when it is done, since VACUUM cannot run inside a \
transaction block
0000_a.sql:3:1: fault: contains `rollback`, which would leave the migration's changes uncommitted; \
remove it
0002_c.sql: remark: is never run, since meta/_journal.json does not name it; put its SQL into a migration \
made by `drizzle-kit generate --custom`, or remove it

3 faults, 4 remarks in 2 migrations
"
    );
}

#[test]
fn json_has_one_object_a_line_with_a_word_for_programs() {
    let checked = check(&files(&[("1.sql", b"select 1;\nrollback\x1b;")]), &table(), NOW);
    assert_eq!(
        render::check_of(&checked, Format::Json),
        "{\"severity\":\"fault\",\"file\":\"1.sql\",\"line\":2,\"column\":1,\
         \"what\":\"undoes\",\"message\":\"contains `rollback\u{fffd}`, which would leave the \
         migration's changes uncommitted; remove it\"}\n"
    );
}

#[test]
fn everything_wrong_with_the_folder_is_a_fault() {
    let when = r#"{"entries":[{"tag":"a"}, {"tag":"../b","when":1}, {"when":1}]}"#;
    let twice = journal(&[("a", 1), ("a", 2), ("a", 3)]);
    let cases: [(Folder, &[&str]); 7] = [
        (&[], &[" unrecognised!"]),
        (&[("a/b.sql", b"")], &[" unrecognised!", "a/b.sql orphan"]),
        (
            &[(JOURNAL, b"{"), ("a.sql", b"abort")],
            &["meta/_journal.json journal!", "a.sql:1:1 undoes!"],
        ),
        (
            &[(JOURNAL, when.as_bytes()), ("a.sql", b"vacuum"), ("b.sql", b"vacuum")],
            &[
                "meta/_journal.json journal!",
                "meta/_journal.json:1:20 when!",
                "meta/_journal.json:1:33 tag!",
                "a.sql:1:1 split",
            ],
        ),
        (&[(JOURNAL, twice.as_bytes()), ("a.sql", b"-- a")], &["meta/_journal.json:2:17 twice!"]),
        (
            &[(JOURNAL, b"{\"entries\":[]}"), ("20261122000000_a/migration.sql", b"-- a")],
            &["meta/_journal.json two_layouts!"],
        ),
        (&[("init/migration.sql", b"-- a")], &["init/migration.sql folder_name!"]),
    ];
    for (folder, expected) in cases {
        assert_eq!(told(folder), expected, "{folder:?}");
        assert!(MigrationSet::from_folder(&files(folder)).is_err(), "{folder:?}");
    }
}

#[test]
fn what_no_transaction_can_hold_is_a_fault_each_time_that_it_stands_there() {
    for (sql, expected) in [
        ("rollback; prepare transaction 'a'", "1:1 undoes!, 1:11 undoes!"),
        (
            "listen a; commit; create temp table t (); vacuum",
            "1:1 session_bound!, 1:11 split, 1:19 session_bound!",
        ),
        ("copy t from stdin;\n1\n\\.\ncopy t to stdout", "1:1 copy_data!, 4:1 copy_data!"),
        ("\\restrict a\n\\unrestrict a", "1:1 meta_command!, 2:1 meta_command!"),
        ("select 1; set transaction isolation level serializable", "1:11 set_transaction!"),
        ("set transaction read only", "1:1 set_transaction!"),
        ("set transaction isolation level read committed", ""),
        ("select \"a", "1:8 unterminated!"),
        ("select $$a", "1:8 unterminated!"),
        ("/* a", "1:1 unterminated!"),
    ] {
        assert_eq!(told_of(sql).join(", "), expected, "{sql}");
    }
}

#[test]
fn what_takes_several_transactions_is_told_with_the_first_reason() {
    for (sql, expected) in [
        ("select 1;\nreindex system d", "2:1 split"),
        ("select 1;\ncommit;\nvacuum", "2:1 split"),
        ("alter type e add value 'b'; select 1", "1:1 split"),
        ("create table a ();\ncreate table b ();\n-- premigrate: no-transaction", "split"),
        ("begin; select 1; commit", ""),
    ] {
        assert_eq!(told_of(sql).join(", "), expected, "{sql}");
    }
}

#[test]
fn what_is_not_text_is_a_fault_and_is_read_on_as_far_as_it_can_be() {
    assert_eq!(told_of(b"-- \xc3\xa9\n -- \xff\nrollback"), ["2:5 not_utf8!", "3:1 undoes!"]);
    assert_eq!(told_of(b"select 1;\0 commit"), ["1:10 nul!"]);
}

#[test]
fn a_file_that_is_no_migration_is_told_in_every_layout() {
    let journal = journal(&[("a", 1)]);
    let folder: [(&str, &[u8]); 4] =
        [(JOURNAL, journal.as_bytes()), ("a.sql", b"-- a"), ("b.sql", b"commit"), ("c/d.sql", b"")];
    assert_eq!(told(&folder), ["b.sql orphan", "c/d.sql orphan"]);
    let folder: [(&str, &[u8]); 3] = [
        ("20261122000000_a/migration.sql", b"-- a"),
        ("20261122000000_a/more.sql", b""),
        ("b.sql", b""),
    ];
    assert_eq!(told(&folder), ["20261122000000_a/more.sql orphan", "b.sql orphan"]);
    assert_eq!(told(&[("1.sql", b"-- a"), ("down/1.sql", b"")]), ["down/1.sql orphan"]);
}

#[test]
fn files_of_drizzle_kit_without_their_journal_are_told() {
    let sql = b"select 1;--> statement-breakpoint\nselect 2";
    assert_eq!(told(&[("0000_a.sql", sql)]), ["meta/_journal.json no_journal"]);
    assert_eq!(told(&[("20261122000000_a/migration.sql", sql)]), [""; 0]);
}

/// Of a folder of 0.x with these times.
fn told_of_times(whens: &[i64]) -> Vec<String> {
    let tags: Vec<_> = (0..whens.len()).map(|at| format!("000{at}_a")).collect();
    let entries: Vec<_> = tags.iter().map(String::as_str).zip(whens.iter().copied()).collect();
    let mut folder = files(&[(JOURNAL, journal(&entries).as_bytes())]);
    for tag in &tags {
        folder.files.insert(format!("{tag}.sql"), Cow::Owned(format!("-- {tag}").into_bytes()));
    }
    words(&check(&folder, &table(), NOW))
}

#[test]
fn entries_that_drizzle_skips_for_their_time_are_told_with_their_place() {
    let not_later = |line: usize| format!("{JOURNAL}:{line}:17 not_later");
    assert_eq!(told_of_times(&[1, 2, 3]), [""; 0]);
    assert_eq!(told_of_times(&[1, 1, 2]), [not_later(3)]);
    assert_eq!(told_of_times(&[1, 9, 5, 6]), [not_later(4), not_later(5)]);
}

#[test]
fn a_time_in_the_future_is_told_of_itself_and_not_of_those_behind_it() {
    let told_of_one = told_of_times(&[1, NOW + DAY + 1, 3]);
    assert_eq!(told_of_one.len(), 1, "{told_of_one:?}");
    assert!(told_of_one[0].starts_with("meta/_journal.json:3:"), "{told_of_one:?}");
    assert!(told_of_one[0].ends_with(" future"), "{told_of_one:?}");
    assert_eq!(told_of_times(&[1, NOW + DAY]), [""; 0], "a clock that is a little fast");
    let folder = [("20991122000000_a/migration.sql", &b"-- a"[..])];
    assert_eq!(told(&folder), ["20991122000000_a/migration.sql future"]);
}

#[test]
fn the_same_content_twice_is_told_and_templates_as_such() {
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
        told(&folder),
        [
            "2.sql same_content",
            "3.sql same_content",
            "4.sql untouched",
            "5.sql untouched",
            "6.sql empty",
            "7.sql empty",
        ]
    );
    let written =
        [("1.sql", &b"-- Custom SQL migration file, put your code below! --\nselect 1"[..])];
    assert_eq!(told(&written), [""; 0]);
}

#[test]
fn names_that_differ_in_case_only_are_told_also_where_one_is_missing() {
    let told_twice = told(&[("A.sql", b"-- a"), ("a.sql", b"-- b")]);
    assert_eq!(told_twice, ["a.sql case_only"]);
    let journal = journal(&[("0000_add", 1)]);
    let folder = [(JOURNAL, journal.as_bytes()), ("0000_Add.sql", &b"-- a"[..])];
    assert_eq!(
        told(&folder),
        ["0000_add.sql no_file!", "0000_Add.sql case_only", "0000_Add.sql orphan"]
    );
}

#[test]
fn bytes_that_an_editor_hides_are_told() {
    assert_eq!(told_of("\u{feff}select 1"), ["bom"]);
    let journal = format!("\u{feff}{}", journal(&[]));
    assert_eq!(told(&[(JOURNAL, journal.as_bytes())]), ["meta/_journal.json bom"]);
    assert_eq!(told_of("select 1;\r\nselect 2;\r\n"), ["crlf"]);
    assert_eq!(told_of("select 1;\r\nselect 2;\n"), ["mixed_line_ends"]);
    assert_eq!(told_of("select 1;\nselect 2;\n"), [""; 0]);
}

#[test]
fn crlf_in_many_files_is_one_thing_to_say() {
    let folder: [(&str, &[u8]); 3] =
        [("1.sql", b"-- a\r\n"), ("2.sql", b"-- b\r\n"), ("3.sql", b"-- c\r\n")];
    assert_eq!(told(&folder), ["1.sql crlf"]);
    let sentence = sentence(&folder);
    assert!(sentence.contains("(and so have 2 other files)"), "{sentence}");
    assert!(sentence.contains("*.sql text eol=lf"), "{sentence}");
}

#[test]
fn markers_in_odd_places_are_told_once_a_file() {
    let marker = MARKER;
    for (sql, expected) in [
        (format!("select '{marker}', $${marker}$$"), "1:9 marker_inside"),
        (format!("create table t ({marker}\na int)"), "1:17 marker_inside"),
        (format!("/* {marker}\n{marker} */"), "1:4 marker_inside"),
        ("select 1;\n-->statement-breakpoint\nselect 2".to_owned(), "2:1 near_miss"),
        (format!("select 'never closed; {marker}"), "1:8 unterminated!"),
    ] {
        assert_eq!(
            told(&[("20261122000000_a/migration.sql", sql.as_bytes())]),
            [format!("20261122000000_a/migration.sql:{expected}")]
        );
    }
    let sql = format!("/* {marker}\n{marker} */");
    let sentence = sentence(&[("20261122000000_a/migration.sql", sql.as_bytes())]);
    assert!(sentence.contains("inside a comment (and 1 more in such places)"), "{sentence}");
}

#[test]
fn whoever_meddles_with_the_history_is_told() {
    for (sql, expected) in [
        ("create schema drizzle", "1:1 history"),
        ("create schema if not exists \"drizzle\"", "1:1 history"),
        ("create table drizzle.__drizzle_migrations ()", "1:1 history"),
        ("CREATE TABLE \"drizzle\".\"__drizzle_migrations\" ()", "1:1 history"),
        ("alter table d.drizzle.__drizzle_migrations add a int", "1:1 history"),
        ("drop schema a, drizzle cascade", "1:1 history"),
        ("select 1;\ndelete from drizzle.__drizzle_migrations", "2:1 history"),
        ("create table __drizzle_migrations ()", ""),
        ("create table public.__drizzle_migrations ()", ""),
        ("create table drizzle.other ()", ""),
        ("create schema \"Drizzle\"", ""),
        ("select 'create schema drizzle'", ""),
    ] {
        assert_eq!(told_of(sql).join(", "), expected, "{sql}");
    }
    let files = files(&[("1.sql", b"drop table t; drop table public.t; drop table s.t")]);
    let checked = check(&files, &Table::new("public", "t"), NOW);
    assert_eq!(words(&checked), ["1.sql:1:1 history", "1.sql:1:15 history"]);
}

#[test]
fn settings_that_are_not_set_back_are_told_by_name() {
    for (sql, names) in [
        ("set search_path = a", "search_path"),
        ("set local search_path = a", ""),
        ("set role a; select 1; reset role", ""),
        ("set role a; select 1; reset all", "role"),
        ("set a.b = 1; set work_mem = 2; set a.b = 3; reset all", ""),
        ("set a.b = 1; set work_mem = 2; set a.b = 3", "a.b, work_mem"),
        ("select pg_catalog.set_config('search_path', '', false)", "search_path"),
        ("select set_config('search_path', '', true)", ""),
        ("set time zone 'UTC'; set time zone default", ""),
        ("set session authorization a; set role b; reset session authorization", "role"),
    ] {
        let checked = check(&files(&[("1.sql", sql.as_bytes())]), &table(), NOW);
        let told: Vec<_> = checked.findings.into_iter().map(|finding| finding.what).collect();
        match told.as_slice() {
            [] => assert_eq!(names, "", "{sql}"),
            [Lint::Options(told)] => assert_eq!(told.join(", "), names, "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn an_enum_value_that_is_used_where_it_is_added_is_told() {
    let add = "alter type e add value 'b';\n";
    for (sql, expected) in [
        (format!("begin; {add}update t set e = 'b'; commit"), "2:1 new_enum_value"),
        (format!("{add}update t set e = 'b'; select 'b'"), "1:1 split"),
        (format!("begin; {add}{add}update t set e = 'a'; commit"), ""),
        (format!("select 'b'; {add}"), ""),
        (format!("create type e as enum ('a'); {add}select 'b'"), "2:1 new_enum_value"),
        (format!("{add}alter type e add value 'c' after 'b'"), ""),
    ] {
        assert_eq!(told_of(&sql).join(", "), expected, "{sql}");
    }
}

#[test]
fn every_sentence_stands_behind_a_file_and_ends_in_a_cure() {
    for folder in soups() {
        for finding in check(&folder, &table(), NOW).findings {
            let sentence = finding.what.to_string();
            assert!(!sentence.ends_with('.') && !sentence.contains("  "), "{sentence}");
            assert!(sentence.contains(';') || sentence.contains(','), "{sentence}");
            assert!(finding.place.is_none_or(|position| position.line > 0 && position.column > 0));
        }
    }
}

#[test]
fn whatever_is_refused_is_a_fault_and_nothing_panics() {
    let mut seen = [0; 3];
    for folder in soups() {
        let checked = check(&folder, &table(), NOW);
        for format in [Format::Text, Format::Json] {
            render::check_of(&checked, format);
        }
        let refused = match MigrationSet::from_folder(&folder) {
            Err(_) => 0,
            Ok(set) => {
                assert_eq!(checked.migrations, set.migrations().len());
                if prepared::prepare(set.migrations().iter()).is_err() { 1 } else { 2 }
            }
        };
        seen[refused] += 1;
        assert!(refused == 2 || checked.is_faulty(), "{folder:?}");
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
fn soups() -> impl Iterator<Item = MigrationFolder> {
    const SQL: &str = "select 1|;|\n|--> statement-breakpoint|set role a|reset|all|set time|set|\
        '|$$|/*|*/|--|\r\n|\u{feff}|é|\0|(|)|-->statement-breakpoint|begin;|commit;|vacuum;|\
        set_config(|set transaction|alter type e add value 'b'|create table|drop schema|truncate|\
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
            files.insert(random.one(PATHS).to_owned(), Cow::Owned(sql));
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
        files.extend(journal.map(|journal| (JOURNAL.to_owned(), Cow::Owned(journal))));
        files.into()
    })
}
