//! `check`: all findings about a folder at once, without a database.

use crate::harness::{Database, Folder, bare, premigrate};

#[test]
fn the_embedded_migrations_are_checked() {
    let run = bare().arg("check").run().exits(0);
    let summary = "\n6 warnings that can block, 5 notes in 27 migrations\n";
    assert!(run.stdout.ends_with(summary), "{}", run.stdout);
}

#[test]
fn all_errors_and_warnings_are_shown_at_once_without_a_database() {
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table a ();\nvacuum;\nabort;\ncopy a to stdout"),
        ("0001_b", "select 'open"),
        ("0002_c", "select 1;\nrollback"),
        ("0003_d", "\u{feff}-- Custom SQL migration file, put your code below! --"),
    ]);
    folder.write("9999_orphan.sql", "select 1");
    folder.edit_journal(|entries| entries[3]["when"] = 1.into());
    let run = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
    for finding in [
        "0000_a.sql:2:1: warning: the file runs in 3 steps, each recorded when it is done, because \
         VACUUM cannot run inside a transaction block [split]\n",
        "0000_a.sql:3:1: error: the file contains `abort`",
        "0000_a.sql:4:1: error: the file contains COPY",
        "0001_b.sql:1:8: error: ",
        "0002_c.sql:2:1: error: the file contains `rollback`",
        "0003_d.sql: warning: ",
        "9999_orphan.sql: warning: the file is never run",
        "meta/_journal.json",
        "\n4 errors, ",
    ] {
        assert!(run.stdout.contains(finding), "{finding}:\n{}", run.stdout);
    }
    assert_eq!(run.stderr, "");
}

#[test]
fn a_missing_file_is_reported_with_all_other_errors() {
    let folder = Folder::drizzle0(&[("0000_a", "abort"), ("0001_b", "")]);
    std::fs::remove_file(folder.path.join("0001_b.sql")).unwrap();
    let run = bare().args(&["check", "--format", "json", "--dir"]).arg(&folder.path).run();
    let run = run.exits(65);
    let lines: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors = lines.iter().filter(|line| line["severity"] == "error");
    let rules: Vec<_> = errors.map(|line| (line["file"].as_str(), line["rule"].as_str())).collect();
    let expected = [("0001_b.sql", "missing-file"), ("0000_a.sql", "rolls-back")];
    assert_eq!(rules, expected.map(|(file, rule)| (Some(file), Some(rule))), "{}", run.stdout);
}

#[test]
fn a_rule_is_ignored_by_a_line_in_the_file_and_counted() {
    let ignore = "-- premigrate: ignore split because the index must not block writes\n";
    let sql = format!("create table a (b int);\n{ignore}create index concurrently i on a (b);");
    let folder = Folder::drizzle0(&[("0000_a", &sql)]);
    let run = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(0);
    assert_eq!(run.stdout, "1 migration, no problems found, 1 ignored\n");
    let database = Database::fresh();
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a"]);
}

#[test]
fn a_line_that_ignores_no_rule_is_refused_by_check_and_by_up() {
    let folder = Folder::empty();
    for (line, cure) in [
        ("ignore spilt because of locks", "write `-- premigrate: ignore split because REASON`"),
        ("ignore split", "write `-- premigrate: ignore split because REASON`"),
        ("ignore rolls-back because I want to", "rolls-back is an error, which cannot be ignored"),
    ] {
        folder.write("0001_a.sql", format!("-- premigrate: {line}\ncreate table a ();"));
        let run = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
        assert!(run.stdout.contains("0001_a.sql:1:1: error: "), "{}", run.stdout);
        assert!(run.stdout.contains(cure), "{}", run.stdout);
        let database = Database::fresh();
        premigrate(&database, &folder).run().exits(65).says(&["0001_a.sql:1:1 ", cure]);
        assert!(database.tables().is_empty());
    }
}

#[test]
fn a_file_whose_name_ends_in_upper_case_is_reported_as_never_run() {
    let folder = Folder::empty();
    folder.write("0001_a.sql", "select 1");
    folder.write("0002_b.SQL", "select 2");
    let run = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(0);
    let finding =
        "0002_b.SQL: warning: the file is never run, because its name does not end in .sql";
    assert!(run.stdout.contains(finding), "{}", run.stdout);
}

#[test]
fn conflict_markers_are_refused_by_check_and_by_up() {
    let conflict = "<<<<<<< HEAD\n=======\n>>>>>>> b\n";
    let folder = Folder::drizzle0(&[("0000_a", "select 1"), ("0001_b", conflict)]);
    let refused = |words: &[&str]| {
        let run = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
        let database = Database::fresh();
        let up = premigrate(&database, &folder).run().exits(65).says(words);
        assert!(up.stdout.is_empty() && database.tables().is_empty());
        run.stdout
    };
    let found = refused(&["0001_b.sql:1:1 contains `<<<<<<< HEAD`", "resolve the conflict"]);
    assert!(found.contains("0001_b.sql:1:1: error: the file contains `<<<<<<< HEAD`"), "{found}");
    folder.write("0001_b.sql", "select 2");
    let journal = folder.path.join("meta/_journal.json");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, format!("{text}\n{conflict}")).unwrap();
    let found = refused(&["meta/_journal.json contains a conflict marker of git in line"]);
    assert!(found.contains(": error: the file contains a conflict marker"), "{found}");
}

/// As PowerShell's `>` writes it.
fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn utf16_is_called_utf16_by_every_command() {
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    let database = Database::fresh();
    let each = |words: &[&str], list_code: i32| {
        let check = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
        let list = bare().args(&["list", "--dir"]).arg(&folder.path).run().exits(list_code);
        let up = premigrate(&database, &folder).run().exits(65);
        for run in [check, list, up] {
            let said = run.stdout + &run.stderr;
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
    };
    folder.write("0000_a.sql", utf16("select 1;\r\n"));
    each(&["is UTF-16", "save it as UTF-8"], 0);
    folder.write("0000_a.sql", "select 1");
    let journal = std::fs::read_to_string(folder.path.join("meta/_journal.json")).unwrap();
    folder.write("meta/_journal.json", utf16(&journal));
    each(&["meta/_journal.json", "is UTF-16", "save it as UTF-8"], 65);
}
