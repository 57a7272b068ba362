//! README, `--help`, exit codes and changelog say the same as the program.

use std::path::Path;

use crate::harness::{Database, Folder, bare, premigrate};

fn project(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The content of the fenced block that follows a heading of the README.
fn block(heading: &str) -> String {
    let readme = project("README.md");
    let (_, section) = readme.split_once(&format!("\n## {heading}\n")).expect(heading);
    let (_, block) = section.split_once("```text\n").expect("a block");
    block.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_readme_shows_the_help_word_for_word() {
    assert_eq!(block("Usage"), bare().arg("--help").run().exits(0).stdout);
}

#[test]
fn the_readme_and_the_help_name_the_same_exit_codes() {
    let readme = project("README.md");
    let (_, section) = readme.split_once("\n## Exit codes\n").expect("exit codes");
    let (table, _) = section.split_once("\n## ").expect("a next section");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
    let codes: Vec<&str> = rows.filter_map(|row| row.split(" |").next()).skip(1).collect();
    let expected = ["0", "10", "64", "65", "69", "70", "75", "77", "78", "126, 127", "128+n"];
    assert_eq!(codes, expected);
    let help = bare().arg("--help").run().stdout;
    let (_, help) = help.split_once("Exit codes:").expect("exit codes");
    for code in expected.iter().filter(|code| **code != "10") {
        assert!(help.contains(code), "{code}");
    }
}

#[test]
fn the_failure_that_the_readme_shows_is_real() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_documents", "CREATE TABLE documents (id uuid PRIMARY KEY, title text NOT NULL);\n"),
        (
            "0001_add_search",
            "ALTER TABLE documents ADD COLUMN body text;\n--> statement-breakpoint\n\
             UPDATE documents SET body = lower(titel);\n",
        ),
        ("0002_stars", "CREATE TABLE stars (id uuid);\n"),
    ]);
    let run = premigrate(&database, &folder).args(&["--", "node", "server.js"]).run().exits(70);
    let (_, failure) = run.stderr.split_once("applying 0001_add_search\n").expect("the attempt");
    assert_eq!(failure, block("A failure"));
}

#[test]
fn the_readme_names_the_key_of_the_lock() {
    let key = i64::from_be_bytes(*b"premigra").to_string();
    assert!(project("README.md").contains(&key), "{key}");
}

#[test]
fn the_changelog_has_the_present_version() {
    assert!(project("CHANGELOG.md").contains(&format!("## [{}]", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn version_is_the_crates() {
    let run = bare().arg("--version").run().exits(0);
    assert!(run.stdout.starts_with(concat!("premigrate ", env!("CARGO_PKG_VERSION"), "\n")));
}

/// Other roots need another date: that of the crate's publication, as its index on crates.io has it.
#[test]
fn the_version_says_which_roots_are_carried_and_of_when() {
    let lock = project("Cargo.lock");
    let (_, of_the_roots) = lock.split_once("name = \"webpki-root-certs\"\n").expect("the crate");
    let version = of_the_roots.split('"').nth(1).expect("its version");
    let run = bare().arg("--version").run().exits(0);
    let said = run.stdout.lines().nth(1).expect("a second line");
    let date = said.strip_prefix("Mozilla's roots of ").expect("a date");
    let (date, rest) = date.split_once(' ').expect("a version");
    assert_eq!(rest, format!("(webpki-root-certs {version})"));
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00", "{said}");
}
