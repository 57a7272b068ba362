//! `check`: all findings about a folder at once, without a database.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use expect_test::expect;

use crate::harness::{Database, Folder, Run, bare, needs, premigrate};

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

/// Two migrations, of which the second is new.
fn before_and_after() -> (Folder, Folder) {
    let first = ("0000_a", "create table a (b int);\nupdate a set b = 1;\nvacuum");
    let before = Folder::drizzle0(&[first]);
    let after = Folder::drizzle0(&[first]);
    after.add("0001_b", "create index \"i, %\" on a (b);\ncreate table c ();\ndrop table a");
    after.add("0002_c", "create index on c (d);\nabort");
    (before, after)
}

fn check(folder: &Folder, args: &[&str]) -> Run {
    let run = bare().current_dir(&folder.path).args(&["check", "--dir", "."]).args(args);
    run.run()
}

#[test]
fn since_reports_only_what_is_new_since_a_folder_or_a_list() {
    let (before, after) = before_and_after();
    let list = bare().args(&["list", "--format", "json", "--dir"]).arg(&before.path).run().exits(0);
    let file = Folder::empty();
    file.write("list.json", &list.stdout);
    let listed = file.path.join("list.json").display().to_string();
    let folder = before.path.display().to_string();
    let run = check(&after, &["--since", &listed]).exits(65);
    expect![[r#"
        0002_c.sql:2:1: error: the file contains `abort`, which would leave the migration's changes uncommitted; remove it [rolls-back]
        0001_b.sql:1:1: warning: CREATE INDEX takes SHARE on a and scans it, so writes wait until it is done; create it CONCURRENTLY [index-locks-writes]
            create index CONCURRENTLY "i, %" on a (b);
        0001_b.sql:3:1: note: the version of the app that still runs may use the table a, which is dropped; do this in a release after the one that no longer needs it [breaks-old-version]

        1 error, 1 warning that can block, 1 note in 3 migrations
    "#]].assert_eq(&run.stdout);
    let same = check(&after, &["--since", &folder]).exits(65);
    assert_eq!(same.stdout, run.stdout);
    after.write("0002_c.sql", "select 1");
    check(&after, &["--since", &folder]).exits(0);
    let strict = check(&after, &["--since", &folder, "--strict"]).exits(65);
    assert!(
        strict.stdout.ends_with("\n1 warning that can block, 1 note in 3 migrations\n"),
        "{}",
        strict.stdout
    );
    check(&before, &["--since", &folder, "--strict"]).exits(0);
    // An edit is new, too.
    after.write("0000_a.sql", "create table a (b int); drop table d");
    let edited = check(&after, &["--since", &folder]).exits(0);
    assert!(edited.stdout.contains("0000_a.sql:1:25: note: "), "{}", edited.stdout);
    for wrong in ["0000_a.sql", "../nothing"] {
        check(&after, &["--since", wrong]).exits(78).says(&["--since: ", wrong]);
        let of_variable = bare().current_dir(&after.path).env("PREMIGRATE_SINCE", wrong);
        let run = of_variable.args(&["check", "--dir", "."]).run();
        run.exits(78).says(&["PREMIGRATE_SINCE: ", wrong]);
    }
}

#[test]
fn github_gets_one_escaped_line_for_each_finding() {
    let (before, after) = before_and_after();
    let folder = before.path.display().to_string();
    after.write("0003_d,:%.sql", "");
    let run = check(&after, &["--since", &folder, "--format", "github"]).exits(65);
    expect![[r#"
        ::error file=0002_c.sql,line=2,col=1,title=rolls-back::the file contains `abort`, which would leave the migration's changes uncommitted; remove it [rolls-back]
        ::warning file=0003_d%2C%3A%25.sql,title=unused-file::the file is never run, because meta/_journal.json does not list it; if it is a migration, put its SQL in one made by `drizzle-kit generate --custom` [unused-file]
        ::warning file=0001_b.sql,line=1,col=1,title=index-locks-writes::CREATE INDEX takes SHARE on a and scans it, so writes wait until it is done; create it CONCURRENTLY [index-locks-writes]%0A%0Acreate index CONCURRENTLY "i, %25" on a (b);
        ::notice file=0001_b.sql,line=3,col=1,title=breaks-old-version::the version of the app that still runs may use the table a, which is dropped; do this in a release after the one that no longer needs it [breaks-old-version]
    "#]].assert_eq(&run.stdout);
}

#[test]
fn sarif_has_the_rules_and_the_places_of_all_findings() {
    let (before, after) = before_and_after();
    let folder = before.path.display().to_string();
    after.write("0003 d.sql", "");
    let run = check(&after, &["--since", &folder, "--format", "sarif"]).exits(65);
    let log: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let pretty =
        serde_json::to_string_pretty(&log).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
    expect![[r#"
        {
          "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
          "version": "2.1.0",
          "runs": [
            {
              "tool": {
                "driver": {
                  "name": "premigrate",
                  "version": "VERSION",
                  "rules": [
                    {
                      "id": "rolls-back",
                      "shortDescription": {
                        "text": "A statement rolls back the migration's transaction, or prepares it for a two-phase commit."
                      },
                      "help": {
                        "text": "docs/rules.md#the-rules"
                      },
                      "defaultConfiguration": {
                        "level": "error"
                      }
                    },
                    {
                      "id": "unused-file",
                      "shortDescription": {
                        "text": "An SQL file is never run."
                      },
                      "help": {
                        "text": "docs/rules.md#the-rules"
                      },
                      "defaultConfiguration": {
                        "level": "warning"
                      }
                    },
                    {
                      "id": "index-locks-writes",
                      "shortDescription": {
                        "text": "A `CREATE INDEX` keeps writers from a table that exists."
                      },
                      "help": {
                        "text": "docs/rules.md#index-locks-writes"
                      },
                      "defaultConfiguration": {
                        "level": "warning"
                      }
                    },
                    {
                      "id": "breaks-old-version",
                      "shortDescription": {
                        "text": "A statement takes away what the version of the app that still runs may use."
                      },
                      "help": {
                        "text": "docs/rules.md#breaks-old-version"
                      },
                      "defaultConfiguration": {
                        "level": "note"
                      }
                    }
                  ]
                }
              },
              "columnKind": "unicodeCodePoints",
              "results": [
                {
                  "ruleId": "rolls-back",
                  "ruleIndex": 0,
                  "level": "error",
                  "message": {
                    "text": "the file contains `abort`, which would leave the migration's changes uncommitted; remove it [rolls-back]"
                  },
                  "locations": [
                    {
                      "physicalLocation": {
                        "artifactLocation": {
                          "uri": "0002_c.sql"
                        },
                        "region": {
                          "startLine": 2,
                          "startColumn": 1
                        }
                      }
                    }
                  ]
                },
                {
                  "ruleId": "unused-file",
                  "ruleIndex": 1,
                  "level": "warning",
                  "message": {
                    "text": "the file is never run, because meta/_journal.json does not list it; if it is a migration, put its SQL in one made by `drizzle-kit generate --custom` [unused-file]"
                  },
                  "locations": [
                    {
                      "physicalLocation": {
                        "artifactLocation": {
                          "uri": "0003%20d.sql"
                        }
                      }
                    }
                  ]
                },
                {
                  "ruleId": "index-locks-writes",
                  "ruleIndex": 2,
                  "level": "warning",
                  "message": {
                    "text": "CREATE INDEX takes SHARE on a and scans it, so writes wait until it is done; create it CONCURRENTLY [index-locks-writes]\n\ncreate index CONCURRENTLY \"i, %\" on a (b);"
                  },
                  "locations": [
                    {
                      "physicalLocation": {
                        "artifactLocation": {
                          "uri": "0001_b.sql"
                        },
                        "region": {
                          "startLine": 1,
                          "startColumn": 1
                        }
                      }
                    }
                  ]
                },
                {
                  "ruleId": "breaks-old-version",
                  "ruleIndex": 3,
                  "level": "note",
                  "message": {
                    "text": "the version of the app that still runs may use the table a, which is dropped; do this in a release after the one that no longer needs it [breaks-old-version]"
                  },
                  "locations": [
                    {
                      "physicalLocation": {
                        "artifactLocation": {
                          "uri": "0001_b.sql"
                        },
                        "region": {
                          "startLine": 3,
                          "startColumn": 1
                        }
                      }
                    }
                  ]
                }
              ]
            }
          ]
        }"#]].assert_eq(&pretty);
    let none = check(&before, &["--since", &folder, "--format", "sarif"]).exits(0);
    let none: serde_json::Value = serde_json::from_str(&none.stdout).unwrap();
    assert_eq!(none["runs"][0]["results"], serde_json::json!([]));
    let refused = bare().args(&["list", "--format", "sarif"]).run().exits(78);
    refused.says(&["--format must be text or json"]);
}

/// What of a log is not as SARIF's schema requires, line by line.
fn schema_errors(log: &str) -> String {
    needs("Node");
    let file = Folder::empty();
    file.write("log.sarif", log);
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sarif");
    assert!(home.join("node_modules").is_dir(), "run `npm ci` in {}", home.display());
    let log = File::open(file.path.join("log.sarif")).expect("the log");
    let node = Command::new("node").arg(home.join("validate.mjs")).stdin(log).output();
    let node = node.expect("Node");
    assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));
    String::from_utf8(node.stdout).expect("text")
}

#[test]
fn each_sarif_log_is_valid_by_the_schema_of_oasis() {
    let (_, after) = before_and_after();
    after.write("0003 é d.sql", "");
    let unsound =
        Folder::drizzle0(&[("0000_a", "\u{feff}abort;\n\\set a"), ("0001_b", "select 'a")]);
    std::fs::remove_file(unsound.path.join("0001_b.sql")).unwrap();
    let plain = Folder::empty();
    plain.write("1_a.sql", "select 1");
    for (folder, code) in [(after, 65), (unsound, 65), (Folder::empty(), 65), (plain, 0)] {
        let log = check(&folder, &["--format", "sarif"]).exits(code).stdout;
        assert_eq!(schema_errors(&log), "", "{log}");
        let wrong = log.replace("\"level\"", "\"label\"");
        assert_eq!(schema_errors(&wrong).is_empty(), wrong == log, "{wrong}");
    }
}
