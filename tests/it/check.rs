//! `check`: all findings about a folder at once, without a database.

use crate::harness::{Folder, bare};

#[test]
fn the_embedded_migrations_have_no_findings() {
    let run = bare().arg("check").run().exits(0);
    assert_eq!(run.stdout, "27 migrations, no problems found\n");
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
         VACUUM cannot run inside a transaction block\n",
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
    let expected = [("0001_b.sql", "missing_file"), ("0000_a.sql", "rolls_back")];
    assert_eq!(rules, expected.map(|(file, rule)| (Some(file), Some(rule))), "{}", run.stdout);
}
