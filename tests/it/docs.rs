//! README, `--help`, exit codes and changelog say the same as the program.

use std::io;
use std::path::Path;

use premigrate::apply::error::ApplyError;
use premigrate::apply::failure::Broken;
use premigrate::cli::error::{ConfigError, UsageError};
use premigrate::error::Error;
use premigrate::history::plan::HistoryMismatch;
use premigrate::history::table::Table;
use premigrate::migrations::source::Unreadable;
use premigrate::postgres::server_error::ServerError;
use premigrate::postgres::session::{Attempt, ConnectionError, QueryError};
use premigrate::process::exec::ExecError;

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

/// The README's exit codes, with what it says of each.
fn codes_of_readme() -> Vec<(String, String)> {
    let readme = project("README.md");
    let (_, section) = readme.split_once("\n## Exit codes\n").expect("exit codes");
    let (table, _) = section.split_once("\n## ").expect("a next section");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.skip(1).map(|row| row.split_once(" | ").expect("two cells"));
    cells.map(|(code, words)| (code.to_owned(), words.to_owned())).collect()
}

/// Those of `--help`, which has no room for more than some of these words.
fn codes_of_help() -> Vec<(String, String)> {
    let (_, codes) = premigrate::cli::args::HELP.split_once("Exit codes: ").expect("exit codes");
    let codes = codes.split_whitespace().collect::<Vec<_>>().join(" ");
    let entries = codes.trim_end_matches('.').split("; ");
    let cut = |entry: &str| {
        let is_code = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let code: Vec<&str> = entry.split(' ').take_while(is_code).collect();
        let words: Vec<&str> = entry.split(' ').skip_while(is_code).collect();
        (code.join(" "), words.join(" "))
    };
    entries.map(cut).collect()
}

#[test]
fn the_readme_and_the_help_say_the_same_of_the_same_exit_codes() {
    let (mut readme, help) = (codes_of_readme(), codes_of_help());
    // The help tells that one beside its option.
    readme.retain(|(code, _)| code != "10");
    assert!(
        premigrate::cli::args::HELP
            .contains("--exit-code            status: 10 if something is pending")
    );
    let codes =
        |of: &[(String, String)]| of.iter().map(|(code, _)| code.clone()).collect::<Vec<_>>();
    assert_eq!(codes(&readme), codes(&help));
    for ((code, long), (_, short)) in readme.iter().zip(&help) {
        let bare = |text: &str| text.to_lowercase().replace([',', ':', ';'], "");
        let (long, short) = (bare(long), bare(short));
        for word in short.split(' ').filter(|word| *word != "or") {
            assert!(long.split(' ').any(|other| other == word), "{code}: {word:?} in {long:?}");
        }
    }
}

#[test]
fn an_error_ends_with_the_exit_code_that_the_readme_has_for_it() {
    let unreachable =
        |cause| Error::from(ApplyError::Unreachable { attempts: vec![Attempt::at_query(cause)] });
    let refusal = ServerError { code: "28P01".to_owned(), ..ServerError::default() };
    let (table, trouble) = (Table::new("s", "t"), ConnectionError::TimedOut);
    let broken = Broken { migration: None, step: None, completed: 0, statements: 0, trouble };
    let app = |kind: io::ErrorKind| {
        let reason = ExecError { error: kind.into(), hint: None };
        Error::App { program: String::new(), reason }
    };
    let readme = codes_of_readme();
    for (words, error) in [
        ("the command line is wrong", Error::Usage(UsageError::NoApp)),
        ("the migrations are invalid", Unreadable::NothingEmbedded.into()),
        (
            "the history disagrees",
            ApplyError::HistoryMismatch(HistoryMismatch::NotUpgradable { unknown: vec![] }).into(),
        ),
        ("the database is unreachable", unreachable(QueryError::Client(ConnectionError::TimedOut))),
        ("stays read-only", ApplyError::ReadOnly.into()),
        ("a migration failed", ApplyError::ConnectionLost(Box::new(broken)).into()),
        ("another runner is at work", ApplyError::LockedOut { holder: None }.into()),
        ("try again", ApplyError::HistoryTimeout(table).into()),
        ("refused: password", unreachable(QueryError::Server(refusal.clone()))),
        ("permission", ApplyError::PermissionDenied { error: refusal, statements: vec![] }.into()),
        ("the configuration is wrong", Error::Config(ConfigError::NoDatabase)),
        ("the app cannot be executed", app(io::ErrorKind::PermissionDenied)),
        ("is not there", app(io::ErrorKind::NotFound)),
    ] {
        let (codes, said) = readme.iter().find(|(_, said)| said.contains(words)).expect(words);
        // Where one row has two codes, it has as many halves.
        let code = match codes.split_once(", ") {
            Some((first, _)) if said.find(words) < said.find("; ") => first,
            Some((_, second)) => second,
            None => codes,
        };
        assert_eq!(error.exit_code().to_string(), code, "{words}");
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
