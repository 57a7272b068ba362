//! `check`: everything that can be said of a folder alone, all of it at once.

use crate::harness::{Folder, bare};

#[test]
fn the_embedded_wiki_passes_every_check() {
    let run = bare().arg("check").run().exits(0);
    assert_eq!(run.stdout, "27 migrations, nothing to say\n");
}

#[test]
fn all_errors_and_warnings_are_reported_at_once_without_a_database() {
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table a ();\nvacuum;\nabort;\ncopy a to stdout"),
        ("0001_b", "select 'open"),
        ("0002_c", "select 1;\nrollback"),
        ("0003_d", "\u{feff}-- Custom SQL migration file, put your code below! --"),
    ]);
    folder.write("9999_orphan.sql", "select 1");
    folder.edit_journal(|entries| entries[3]["when"] = 1.into());
    let run = bare().args(&["check", "--dir"]).arg(&folder.path).run().exits(65);
    for told in [
        "0000_a.sql:2:1: remark: is run in 3 steps, each recorded when it is done, since PostgreSQL \
         runs VACUUM only outside a transaction",
        "0000_a.sql:3:1: fault: has `abort`",
        "0000_a.sql:4:1: fault: copies",
        "0001_b.sql:1:8: fault:",
        "0002_c.sql:2:1: fault: has `rollback`",
        "0003_d.sql: remark:",
        "9999_orphan.sql: remark: is never run",
        "meta/_journal.json",
        "\n4 faults, ",
    ] {
        assert!(run.stdout.contains(told), "{told}:\n{}", run.stdout);
    }
    assert_eq!(run.stderr, "");
}

#[test]
fn a_folder_that_cannot_be_read_is_reported_with_the_rest() {
    let folder = Folder::drizzle0(&[("0000_a", "abort"), ("0001_b", "")]);
    std::fs::remove_file(folder.path.join("0001_b.sql")).unwrap();
    let run = bare().args(&["check", "--format", "json", "--dir"]).arg(&folder.path).run();
    let run = run.exits(65);
    let lines: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let faults: Vec<_> = lines.iter().filter(|line| line["severity"] == "fault").collect();
    assert_eq!(faults.len(), 2, "{}", run.stdout);
}
