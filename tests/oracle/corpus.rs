//! Real SQL: the extensions and the catalog scripts of the installed server, PostgreSQL's regression
//! suite, and our migrations. Only our own files are part of this repository.

use std::path::{Path, PathBuf};

use crate::agreement::{check_consistency, compare};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every `*.sql` under a folder that is valid UTF-8, sorted by path.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}; scripts/setup oracle", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if !path.ends_with("node_modules") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "sql")
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The file without lines that only psql understands: its commands and the data of COPY.
fn for_the_server(text: &str) -> String {
    let mut lines = Vec::new();
    let mut in_data = false;
    for line in text.lines() {
        if in_data {
            in_data = line != "\\.";
            continue;
        }
        let lower = line.to_ascii_lowercase();
        in_data =
            lower.starts_with("copy ") && lower.contains("from stdin") && lower.ends_with(';');
        if !in_data && !line.trim_start().starts_with('\\') {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The most lines to try as one statement before its first line is skipped.
const MAX_LINES: usize = 300;
/// The most line ends with a semicolon to try as the end of that statement.
const MAX_TRIES: usize = 12;

#[derive(Default)]
struct Seen {
    statements: usize,
    lines: usize,
    skipped: usize,
    differences: Vec<String>,
}

impl Seen {
    fn compare(&mut self, path: &Path, text: &str) -> Option<usize> {
        match compare(text) {
            Ok(compared) => compared,
            Err(difference) => {
                self.differences.push(format!("{}: {difference}", path.display()));
                Some(0)
            }
        }
    }

    /// Compares the whole file, or else those runs of lines that PostgreSQL accepts.
    fn read(&mut self, path: &Path, text: &str) {
        if let Err(broken) = check_consistency(text) {
            self.differences.push(format!("{}: {broken}", path.display()));
        }
        let text = for_the_server(text);
        self.lines += text.lines().count();
        if let Some(statements) = self.compare(path, &text) {
            self.statements += statements;
            return;
        }
        let lines: Vec<&str> = text.lines().collect();
        let mut accepted = String::new();
        let mut at = 0;
        while at < lines.len() {
            let ends =
                (at..lines.len().min(at + MAX_LINES)).filter(|&end| lines[end].contains(';'));
            let taken = ends.take(MAX_TRIES).find_map(|end| {
                let text = lines[at..=end].join("\n");
                Some((end, self.compare(path, &text)?, text))
            });
            if let Some((end, statements, text)) = taken {
                self.statements += statements;
                let is_copy = text.to_ascii_lowercase().contains("stdin");
                if !is_copy && lines[end].trim_end().ends_with(';') {
                    accepted.push_str(&text);
                    accepted.push('\n');
                }
                at = end + 1;
            } else {
                self.skipped += 1;
                at += 1;
            }
        }
        // All accepted lines as one text: an earlier statement must not change a later one.
        let _ = self.compare(path, &accepted);
    }
}

fn check(what: &str, folders: &[PathBuf], at_least: usize) {
    let mut seen = Seen::default();
    let mut count = 0;
    for (path, text) in folders.iter().flat_map(|folder| files(folder)) {
        count += 1;
        seen.read(&path, &text);
    }
    let Seen { statements, lines, skipped, differences } = seen;
    println!(
        "{what}: {count} files, {lines} lines, {statements} statements compared, \
         {skipped} lines that PostgreSQL does not accept"
    );
    assert!(differences.is_empty(), "{}\n{}", differences.len(), differences.join("\n\n"));
    assert!(statements >= at_least, "only {statements} statements");
}

#[test]
fn the_servers_own_scripts_are_read_as_its_parser_reads_them() {
    let folders = std::fs::read_dir("/usr/share/postgresql").expect("an installed server");
    let folders: Vec<_> = folders.map(|folder| folder.expect("a folder").path()).collect();
    check("share", &folders, 3_000);
}

#[test]
fn the_regression_suite_is_read_as_its_parser_reads_it() {
    check("regression suite", &[root().join("target/oracle/postgresql")], 45_000);
}

#[test]
fn our_own_files_are_read_as_the_parser_reads_them() {
    check("migrations", &[root().join("migrations"), root().join("tests")], 100);
}
