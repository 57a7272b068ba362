//! Folders and files of extreme size or depth: they are read in bounded memory and time, or refused with
//! one sentence.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::harness::{Database, Folder, LIMIT, Premigrate, Run, bare, premigrate};

const MILLION: usize = 1_000_000;

/// For what takes seconds on a machine that does nothing else.
const LONG: Duration = Duration::from_secs(180);

fn on(folder: &Folder, args: &[&str]) -> Premigrate {
    bare().args(args).arg("--dir").arg(&folder.path)
}

#[track_caller]
fn has_not_crashed(run: &Run) {
    assert!((0..128).contains(&run.code), "{}: {}", run.code, run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

#[test]
fn json_that_is_nested_a_hundred_thousand_deep_is_refused() {
    let deep = "[".repeat(100_000);
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    folder.write("list.json", &deep);
    let list = folder.path.join("list.json");
    let since = on(&folder, &["check"]).arg("--since").arg(&list);
    has_not_crashed(&since.run().exits(78));
    for journal in [deep.clone(), format!(r#"{{"entries":{deep}"#), r#"{"a":"#.repeat(100_000)] {
        folder.write("meta/_journal.json", journal);
        let run = premigrate(&Database::fresh(), &folder).run().exits(65);
        run.says(&["meta/_journal.json", "is not valid JSON"]);
        for command in ["list", "check"] {
            has_not_crashed(&on(&folder, &[command]).run().exits(65));
        }
    }
}

#[test]
fn comments_and_parentheses_a_million_deep_are_read() {
    for (open, close, run_depth, code) in [
        // PostgreSQL takes quadratic time for these.
        ("/*", "*/", 10_000, 0),
        ("(", ")", MILLION, 70),
        ("[", "]", MILLION, 70),
        ("case when ", " end", 10_000, 70),
        ("begin atomic ", "", 10_000, 70),
    ] {
        let folder = Folder::empty();
        let nested = |depth| format!("select 1 {}{}", open.repeat(depth), close.repeat(depth));
        folder.write("1_deep.sql", nested(MILLION));
        for command in ["list", "check"] {
            has_not_crashed(&on(&folder, &[command]).start().finish_within(LONG));
        }
        folder.write("1_deep.sql", nested(run_depth));
        let run = premigrate(&Database::fresh(), &folder).start().finish_within(LONG);
        has_not_crashed(&run);
        assert_eq!(run.code, code, "{open}: {}", run.stderr);
    }
}

#[test]
fn twenty_thousand_files_are_read_in_little_time_and_memory() {
    const FILES: usize = 20_000;
    let (plain, drizzle) = (Folder::empty(), Folder::empty());
    let mut entries = Vec::new();
    for number in 0..FILES {
        let sql = format!("insert into log values ({number})");
        plain.write(&format!("{number:05}_a.sql"), &sql);
        drizzle.write(&format!("{number:05}_a.sql"), &sql);
        entries.push(format!(r#"{{"idx":{number},"when":{number},"tag":"{number:05}_a"}}"#));
    }
    let journal = format!(r#"{{"version":"7","entries":[{}]}}"#, entries.join(","));
    drizzle.write("meta/_journal.json", journal);
    for folder in [plain, drizzle] {
        let database = Database::fresh();
        let list = on(&folder, &["list"]).start().finish_with_peak(LONG);
        let baseline = premigrate(&database, &folder).arg("baseline").start();
        let baseline = baseline.finish_with_peak(LONG);
        let up = premigrate(&database, &folder).start().finish_with_peak(LONG);
        for (what, (run, peak)) in [("list", list), ("baseline", baseline), ("up", up)] {
            assert_eq!(run.code, 0, "{what}: {}", run.stderr);
            assert!(peak < 128 << 20, "{what}: {peak}");
            println!("{what}: {} MB in {:?}", peak >> 20, run.took);
        }
        assert_eq!(database.history().len(), FILES);
    }
}

/// A file of this size that is read as SQL: one comment, then a statement.
fn large(folder: &Folder, name: &str, megabytes: usize) {
    let line = format!("-- {}\n", "a line of a comment ".repeat(50));
    folder.write(name, line.repeat((megabytes << 20) / line.len()) + "create table large ();\n");
}

#[test]
fn a_file_of_300_megabytes_is_held_once() {
    let folder = Folder::empty();
    large(&folder, "1_large.sql", 300);
    let (run, peak) = on(&folder, &["list"]).start().finish_with_peak(LONG);
    assert!(run.exits(0).stdout.starts_with("1 migration in "));
    assert!(peak < 340 << 20, "{peak}");
}

#[test]
fn what_is_not_read_may_be_of_any_size() {
    let folder = Folder::empty();
    folder.write("1_a.sql", "select 1");
    let dump = std::fs::File::create(folder.path.join("dump.bin")).unwrap();
    dump.set_len(300 << 30).unwrap();
    let (run, peak) = on(&folder, &["list"]).start().finish_with_peak(LIMIT);
    assert!(run.exits(0).stdout.starts_with("1 migration in "));
    assert!(peak < 64 << 20, "{peak}");
}

#[test]
fn a_file_that_does_not_fit_into_memory_ends_the_run_with_a_sentence() {
    let folder = Folder::empty();
    let file = std::fs::File::create(folder.path.join("1_a.sql")).unwrap();
    file.set_len(1 << 43).unwrap();
    let run = on(&folder, &["list"]).start().finish_within(LIMIT).exits(70);
    run.says(&["out of memory"]);
}

#[test]
fn a_socket_in_the_place_of_a_file_is_no_migration() {
    let folder = Folder::empty();
    folder.write("0001_a.sql", "select 1");
    // The path of a socket must be short.
    let short = std::env::temp_dir().join(crate::harness::unique("s"));
    let _socket = UnixListener::bind(&short).unwrap();
    let inside = folder.path.join("0002_b.sql");
    std::os::unix::fs::symlink(&short, &inside).unwrap();
    let run = on(&folder, &["list"]).start().finish_within(LIMIT).exits(65);
    run.says(&[&format!("could not read {}: it is not a regular file", inside.display())]);
    std::fs::remove_file(&short).unwrap();
}
