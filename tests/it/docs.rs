//! README, docs, `--help`, exit codes and changelog say the same as the program. Every shell block and
//! every SQL block in them is run.
//!
//! Each document has a folder and a database of its own, in which its blocks run in order:
//! - `console` is a transcript: each command after `$ ` has to print the lines below it.
//! - `sh` has to succeed, unless [`NOT_RUN`] says why it is not run.
//! - `sql` that begins with a comment `-- FOLDER/FILE.sql` becomes that file; any other runs as it is.
//! - `js` and `bash` are scripts, and begin with a comment that names their file.
//!
//! `docs/adopt.md` runs in the example, with the real drizzle-kit (`drizzle/adopt.rs`). The files in
//! `docs/deploy` are read by `deploy.rs`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use premigrate::apply::error::ApplyError;
use premigrate::apply::event::HeldBy;
use premigrate::apply::failure::LostConnection;
use premigrate::cli::args::{self, CommandName, HELP, OPTIONS, Parsed};
use premigrate::cli::config::{self, Config};
use premigrate::cli::environment::Environment;
use premigrate::cli::error::{ConfigError, UsageError};
use premigrate::error::Error;
use premigrate::history::plan::HistoryMismatch;
use premigrate::history::table::Table;
use premigrate::migrations::source::Unreadable;
use premigrate::postgres::server_error::ServerError;
use premigrate::postgres::session::{Attempt, ConnectionError, QueryError};
use premigrate::process::exec::ExecError;

use crate::harness::{Database, Folder, bare, premigrate};
use crate::reference::Reference;

const DOCUMENTS: [&str; 14] = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/reference.md",
    "docs/how-it-works.md",
    "docs/reliability.md",
    "docs/drizzle.md",
    "docs/rules.md",
    "docs/rehearse.md",
    "docs/adopt.md",
    "docs/deploy/compose.md",
    "docs/deploy/kubernetes.md",
    "docs/deploy/platforms.md",
    "docs/deploy/systemd.md",
];

/// Lines of `sh` blocks that are not run, and why.
const NOT_RUN: [(&str, &str); 18] = [
    (
        "PREMIGRATE_MIGRATIONS=none cargo install --path . --locked",
        "compiles a release for minutes",
    ),
    ("PREMIGRATE_MIGRATIONS=none scripts/build-static", "takes minutes; .ci/run runs the script"),
    (
        "docker build -f Dockerfile.scratch --build-arg MIGRATIONS=none -t premigrate .",
        "needs an engine and the network; scripts/dockerfiles builds it",
    ),
    ("scripts/demo", "compiles, and needs a server of its own"),
    ("scripts/check", "scripts/test runs it"),
    (
        "RELEASE_REPOSITORY=https://HOST/OWNER/premigrate scripts/release 0.1.0",
        "takes minutes; scripts/test-release runs it",
    ),
    ("scripts/test-release", "takes minutes"),
    ("scripts/reproducible", "takes a quarter of an hour"),
    ("scripts/offline", "takes minutes"),
    ("scripts/test --server 13", "runs these tests"),
    ("scripts/faults", "takes minutes; .ci/run runs it"),
    ("scripts/fuzz", "takes minutes; scripts/test reads some of it"),
    ("scripts/test", "runs this test"),
    ("scripts/test --quick", "runs this test"),
    ("UPDATE_EXPECT=1 scripts/test", "runs this test"),
    (".ci/run", "runs this test"),
    ("scripts/with-postgres cargo test --test it up::", "scripts/test runs these tests"),
    ("scripts/test --quick up::", "scripts/test runs these tests"),
];

/// A line of a `sh` block without the comment behind it.
fn command_of(line: &str) -> &str {
    line.split(" #").next().unwrap_or_default().trim_end()
}

pub fn project(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A fenced block of a document.
pub struct Block {
    pub language: String,
    pub content: String,
    /// The document and the line of the fence.
    pub place: String,
    /// The heading of the second level above it, if any.
    pub section: String,
}

pub fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut section = String::new();
    for (line, number) in project(document).lines().zip(1..) {
        match (open.as_mut(), line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                block.content.push_str(line);
                block.content.push('\n');
            }
            (None, Some(language)) => {
                let place = format!("{document}:{number}");
                let language = language.to_owned();
                let section = section.clone();
                open = Some(Block { language, content: String::new(), place, section });
            }
            (None, None) => {
                if let Some(heading) = line.strip_prefix("## ") {
                    heading.clone_into(&mut section);
                }
            }
        }
    }
    assert!(open.is_none(), "{document}: a block is not closed");
    blocks
}

/// Where the blocks of a document run: a project with two migrations, and a `.env`.
pub struct Project {
    pub folder: Folder,
    pub drizzle: Folder,
    pub database: Database,
}

impl Project {
    pub fn new() -> Project {
        let drizzle = Folder::drizzle0(&[
            (
                "0000_documents",
                "CREATE TABLE documents (id uuid PRIMARY KEY, title text NOT NULL);",
            ),
            (
                "0001_tags",
                "CREATE TABLE tags (document uuid REFERENCES documents, name text);\n\
                 --> statement-breakpoint\n\
                 CREATE INDEX CONCURRENTLY tags_name ON tags (name);\n\
                 --> statement-breakpoint\n\
                 INSERT INTO tags SELECT id, 'new' FROM documents;",
            ),
        ]);
        let project = Project::with(drizzle);
        project.executable("bin/node", "#!/bin/sh\necho Listening on port 3000\n");
        project
    }

    /// The same with these migrations, and the machine's own Node.
    pub fn with(drizzle: Folder) -> Project {
        let (folder, database) = (Folder::empty(), Database::fresh());
        symlink(&drizzle.path, folder.path.join("drizzle")).expect("a link");
        folder.write(".env", format!("DATABASE_URL={}\n", database.url));
        let project = Project { folder, drizzle, database };
        std::fs::create_dir(project.bin()).expect("a folder");
        symlink(env!("CARGO_BIN_EXE_premigrate"), project.bin().join("premigrate"))
            .expect("a link");
        project
    }

    pub fn bin(&self) -> PathBuf {
        self.folder.path.join("bin")
    }

    pub fn executable(&self, path: &str, content: &str) {
        self.folder.write(path, content);
        let mode = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.folder.path.join(path), mode).expect("its mode");
    }

    /// Runs a command line; returns the exit code, and what it printed.
    fn shell(&self, command: &str) -> (Option<i32>, String) {
        let path = std::env::var("PATH").expect("PATH");
        let output = Command::new("timeout")
            .args(["--kill-after=5", "60", "bash", "-c", &format!("exec 2>&1\n{command}")])
            .env_clear()
            .env("PATH", format!("{}:{path}", self.bin().display()))
            .current_dir(&self.folder.path)
            .output()
            .expect("bash");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_ne!(output.status.code(), Some(124), "`{command}` ran for a minute: {printed}");
        (output.status.code(), printed)
    }

    pub fn run(&self, Block { language, content, place, .. }: &Block) {
        match language.as_str() {
            "console" => {
                let (actual, expected) = (masked(&self.transcript(content)), masked(content));
                assert!(actual == expected, "{place} prints\n{actual}\nand not\n{expected}");
            }
            "sh" => self.script(content, place),
            "sql" => self.sql(content),
            "js" | "bash" => {
                let comment = content.lines().find(|line| !line.starts_with("#!"));
                let name = comment.and_then(|line| line.split(' ').nth(1)).expect(place);
                self.executable(name, content);
            }
            // Not commands: other tests look at the Dockerfiles and at the Rust.
            "text" | "dockerfile" | "yaml" | "json" | "rust" => {}
            other => panic!("{place}: a block in {other:?}, of which no test knows what to do"),
        }
    }

    fn transcript(&self, content: &str) -> String {
        let mut actual = String::new();
        for command in content.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let _ = write!(actual, "$ {command}\n{}", self.shell(command).1);
        }
        actual
    }

    fn script(&self, content: &str, place: &str) {
        let is_run = |line: &&str| NOT_RUN.iter().all(|(other, _)| command_of(line) != *other);
        let lines: Vec<&str> = content.lines().filter(is_run).collect();
        let (code, output) = self.shell(&format!("set -e\n{}", lines.join("\n")));
        assert_eq!(code, Some(0), "{place}: {output}");
    }

    fn sql(&self, content: &str) {
        let first = content.lines().next().and_then(|line| line.strip_prefix("-- "));
        match first.filter(|path| path.ends_with(".sql")) {
            Some(path) => match path.strip_prefix("drizzle/") {
                Some(file) => self.drizzle.add(file.trim_end_matches(".sql"), content),
                None => self.folder.write(path, content),
            },
            None => self.database.execute(content),
        }
    }
}

/// The text with names in place of what differs between runs: times and process IDs.
fn masked(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, tail) = rest.split_at(start);
        result.push_str(before);
        let end = tail.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(tail.len());
        let (number, after) = tail.split_at(end);
        let units = [
            " ms",
            " seconds ago",
            " second ago",
            " s",
            " MB of WAL",
            " kB of WAL",
            " bytes of WAL",
        ];
        let after_unit = units.iter().find_map(|unit| after.strip_prefix(unit));
        let after_unit = after_unit.filter(|rest| !rest.starts_with(char::is_alphanumeric));
        let is_time = ["ms\":", "_ago\":"].iter().any(|name| before.ends_with(name));
        if before.ends_with("backend ") {
            (result, rest) = (result + "PID", after);
        } else if is_time || after_unit.is_some() {
            (result, rest) = (result + "TIME", after_unit.unwrap_or(after));
        } else if after.starts_with('-') && tail.get(10..11) == Some("T") {
            // ISO 8601, with a time zone.
            let end = tail.find(|c: char| !c.is_ascii_digit() && !"-:+T.".contains(c));
            (result, rest) = (result + "MOMENT", &tail[end.unwrap_or(tail.len())..]);
        } else {
            (result, rest) = (result + number, after);
        }
    }
    // A column of times is as wide as its longest.
    let masked = result + rest;
    let lines = masked.split_inclusive('\n').map(|line| {
        let (indent, mut text) = line.split_at(line.len() - line.trim_start_matches(' ').len());
        let mut line = indent.to_owned();
        while let Some((before, after)) = text.split_once("   ") {
            line = line + before + "  ";
            text = after.trim_start_matches(' ');
        }
        line + text
    });
    lines.collect()
}

#[test]
fn only_times_and_process_ids_are_masked() {
    for (text, expected) in [
        ("step 1 of 3 in 9 ms, 2 of 3 in 1.5 s", "step 1 of 3 in TIME, 2 of 3 in TIME"),
        ("3 statements in 2 steps", "3 statements in 2 steps"),
        (r#"{"step":1,"ms":12,"attempt":2}"#, r#"{"step":1,"ms":TIME,"attempt":2}"#),
        ("a  2026-11-29T18:15:04+00:00  (5 seconds ago)", "a  MOMENT  (TIME)"),
        ("backend 471 of app", "backend PID of app"),
        ("a: 12 ms, 1.2 kB of WAL", "a: TIME, TIME"),
        ("  held    writes\n  9 ms    reads", "  held  writes\n  TIME  reads"),
    ] {
        assert_eq!(masked(text), expected);
    }
}

fn run_blocks(document: &str) {
    let project = Project::new();
    for block in blocks(document) {
        project.run(&block);
    }
}

#[test]
fn the_blocks_of_the_readme_run() {
    run_blocks("README.md");
}

#[test]
fn the_blocks_of_the_reference_run() {
    run_blocks("docs/reference.md");
}

#[test]
fn the_grants_of_the_reference_are_all_that_wait_needs() {
    let blocks = blocks("docs/reference.md");
    let grants = blocks.iter().find(|block| block.content.contains("GRANT ")).expect("the grants");
    let database = Database::fresh();
    let (role, url) = database.role();
    let sql = grants.content.replace("TO app;", &format!("TO {role};"));
    let folder = Folder::drizzle0(&[("0000_grants", &sql)]);
    premigrate(&database, &folder).run().exits(0);
    let reader = database.at(url);
    premigrate(&reader, &folder).arg("wait").run().exits(0);
    database.execute(&format!("revoke usage on schema drizzle from {role}"));
    premigrate(&reader, &folder).arg("wait").run().exits(77);
}

#[test]
fn the_blocks_of_how_it_works_run() {
    run_blocks("docs/how-it-works.md");
}

#[test]
fn the_blocks_about_drizzle_run() {
    run_blocks("docs/drizzle.md");
}

#[test]
fn the_blocks_about_rules_run() {
    run_blocks("docs/rules.md");
}

#[test]
fn the_blocks_about_rehearsing_run() {
    run_blocks("docs/rehearse.md");
}

#[test]
fn the_blocks_for_contributors_run_or_have_a_reason_not_to() {
    run_blocks("CONTRIBUTING.md");
    assert_eq!(blocks("CHANGELOG.md").len(), 0);
    let all: String =
        DOCUMENTS.iter().flat_map(|document| blocks(document)).map(|block| block.content).collect();
    for (line, _) in NOT_RUN {
        assert!(all.lines().any(|other| command_of(other) == line), "{line:?} is nowhere");
    }
}

#[test]
fn the_example_for_contributors_is_a_test() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_log", "create table log (what text)")]);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_log"]);
    assert_eq!(database.tables(), ["log"]);

    let blocks = blocks("CONTRIBUTING.md");
    let example = blocks.iter().find(|block| block.language == "rust").expect("an example");
    let here = include_str!("docs.rs");
    for line in example.content.lines() {
        assert!(here.lines().any(|other| other.trim() == line), "{line}");
    }
}

/// The words of a Dockerfile's instruction that has a JSON array.
pub fn words(dockerfile: &str, instruction: &str) -> Vec<String> {
    let line = dockerfile.lines().find_map(|line| line.strip_prefix(instruction));
    serde_json::from_str(line.expect(instruction)).expect("a JSON array")
}

#[test]
fn the_entrypoints_of_the_dockerfiles_migrate_and_become_the_app() {
    let blocks = ["README.md", "docs/reference.md"].map(blocks).into_iter().flatten();
    let is_whole =
        |block: &Block| block.language == "dockerfile" && block.content.contains("ENTRYPOINT");
    let dockerfiles: Vec<_> = blocks.filter(is_whole).collect();
    assert_eq!(dockerfiles.len(), 2);
    for Block { content, place, .. } in &dockerfiles {
        let project = Project::new();
        project.executable("bin/my-app", "#!/bin/sh\necho Listening on port 3000\n");
        if content.contains("\nRUN ") {
            let bundle = words(content, "RUN ").join(" ");
            let bundle = bundle.replace("/drizzle", "drizzle").replace("/bundle", "bundle");
            let (code, output) = project.shell(bundle.strip_prefix('/').expect("a path"));
            assert_eq!(code, Some(0), "{place}: {output}");
            std::fs::rename(project.folder.path.join("bundle"), project.bin().join("premigrate"))
                .expect("a bundle");
        }
        let command = [words(content, "ENTRYPOINT "), words(content, "CMD ")].concat();
        // What the image has at the top is in the project here.
        let command = command.join(" ");
        let command = command.replace("/migrations", "drizzle").replace("/my-app", "my-app");
        let command = command.strip_prefix('/').expect("an absolute path");
        let (code, output) = project.shell(command);
        assert_eq!(code, Some(0), "{place}: {output}");
        assert!(output.ends_with("Listening on port 3000\n"), "{place}: {output}");
    }
    assert!(project("Dockerfile.scratch").contains("\nARG MIGRATIONS\n"));
}

#[test]
fn the_readme_is_short() {
    assert!(project("README.md").lines().count() <= 150);
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn the_links_lead_somewhere() {
    for document in DOCUMENTS {
        let text = project(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(document).parent().expect("a folder");
            let target = if path.is_empty() { document.into() } else { folder.join(path) };
            // A link to a folder shows its files.
            if Path::new(env!("CARGO_MANIFEST_DIR")).join(&target).is_dir() {
                assert_eq!(wanted, "", "{document}: {link}");
                continue;
            }
            let target = project(target.to_str().expect("a path"));
            let mut headings = target.lines().filter(|line| line.starts_with('#')).map(anchor);
            assert!(
                wanted.is_empty() || headings.any(|heading| heading == wanted),
                "{document}: {link}"
            );
        }
    }
}

/// The cells of the rows of a table, by the title of its first column.
fn table(document: &str, first_column: &str) -> Vec<Vec<String>> {
    let text = project(document);
    let start = format!("\n| {first_column} |");
    let (_, rows) = text.split_once(&start).unwrap_or_else(|| panic!("{document}: {first_column}"));
    let rows = rows.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| {
        let row = row.replace("\\|", "\u{0}");
        let cells = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{0}', "|"));
        cells.collect()
    });
    cells.collect()
}

/// The exit codes, with their meaning.
fn exit_codes(document: &str) -> Vec<(String, String)> {
    let rows = table(document, "code").into_iter();
    rows.map(|row| (row[0].clone(), row[1].clone())).collect()
}

/// Those of `--help`, which has room for some of these words only.
fn exit_codes_of_help() -> Vec<(String, String)> {
    let (_, codes) = HELP.split_once("Exit codes: ").expect("exit codes");
    let codes = codes.split_whitespace().collect::<Vec<_>>().join(" ");
    let entries = codes.trim_end_matches('.').split("; ");
    let split = |entry: &str| {
        let is_code = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let code: Vec<&str> = entry.split(' ').take_while(is_code).collect();
        let words: Vec<&str> = entry.split(' ').skip_while(is_code).collect();
        (code.join(" "), words.join(" "))
    };
    entries.map(split).collect()
}

#[test]
fn the_readme_the_reference_and_the_help_have_the_same_exit_codes() {
    let mut readme = exit_codes("README.md");
    assert_eq!(readme, exit_codes("docs/reference.md"));
    // The help has that one beside its option.
    readme.retain(|(code, _)| code != "10");
    assert!(HELP.contains("--exit-code              status: 10 if something is pending"));
    let help = exit_codes_of_help();
    let codes =
        |rows: &[(String, String)]| rows.iter().map(|(code, _)| code.clone()).collect::<Vec<_>>();
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
    let (table, cause) = (Table::new("s", "t"), ConnectionError::TimedOut);
    let broken = LostConnection {
        migration: None,
        step: None,
        began: false,
        completed: 0,
        statements: 0,
        cause,
    };
    let app = |kind: io::ErrorKind| {
        let reason = ExecError { error: kind.into(), hint: None };
        Error::App { program: String::new(), reason }
    };
    let readme = exit_codes("README.md");
    for (words, error) in [
        ("the command line is wrong", Error::Usage(UsageError::NoApp)),
        ("the migrations are invalid", Unreadable::NothingEmbedded.into()),
        (
            "the history disagrees",
            ApplyError::HistoryMismatch(HistoryMismatch::NotUpgradable { rows: vec![] }).into(),
        ),
        ("the database is unreachable", unreachable(QueryError::Client(ConnectionError::TimedOut))),
        ("stays read-only", ApplyError::ReadOnly.into()),
        ("a migration failed", ApplyError::ConnectionLost(Box::new(broken)).into()),
        ("another runner is at work", ApplyError::LockedOut { holder: HeldBy::Gone }.into()),
        ("try again", ApplyError::HistoryTimeout(table).into()),
        ("refused: password", unreachable(QueryError::Server(refusal.clone()))),
        ("permission", ApplyError::PermissionDenied { error: refusal, statements: vec![] }.into()),
        ("the configuration is wrong", Error::Config(ConfigError::NoDatabase)),
        ("the app cannot be executed", app(io::ErrorKind::PermissionDenied)),
        ("does not exist", app(io::ErrorKind::NotFound)),
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

/// An option as `--help` has it: with its value's name, and the default in brackets.
fn options_of_help() -> Vec<(String, Option<String>)> {
    let (_, options) = HELP.split_once("\nOptions:\n").expect("options");
    let (options, _) = options.split_once("\n\n").expect("their end");
    let entry = |line: &str| {
        let (option, meaning) = line.trim_start().split_once("  ").expect(line);
        let default = meaning.rsplit_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
        (option.to_owned(), default.map(str::to_owned))
    };
    options.lines().filter(|line| !line.contains("--help")).map(entry).collect()
}

#[test]
fn the_reference_and_the_help_have_the_same_options_and_defaults() {
    let reference = table("docs/reference.md", "option");
    let plain = |cell: &str| cell.replace('`', "");
    let documented: Vec<_> = reference.iter().map(|row| (plain(&row[0]), plain(&row[2]))).collect();
    let help: Vec<_> = options_of_help();
    for ((option, default), (other, documented)) in help.iter().zip(&documented) {
        assert_eq!(option, other);
        let default = default.as_deref().unwrap_or_default();
        assert!(
            documented.ends_with(default) && documented.is_empty() == default.is_empty(),
            "{option}: {documented:?}, {default:?}"
        );
    }
    assert_eq!(help.len(), documented.len());

    let variables: Vec<_> = reference.iter().map(|row| plain(&row[1])).collect();
    assert_eq!(
        variables,
        OPTIONS.iter().map(|option| args::variable(option.flag)).collect::<Vec<_>>()
    );
}

#[test]
fn each_command_takes_the_options_that_the_reference_has_for_it() {
    let commands = [
        "up",
        "wait",
        "status",
        "list",
        "check",
        "rehearse",
        "baseline",
        "accept",
        "new",
        "bundle",
        "healthcheck",
    ];
    for row in table("docs/reference.md", "option") {
        let option = row[0].replace('`', "");
        let flag = option.split(' ').next().expect("a flag");
        for command in commands {
            let mut words = vec![command, flag];
            words.extend(option.contains(' ').then_some("value"));
            let parsed = args::parse(words.iter().map(Into::into).collect());
            let is_used = !matches!(parsed, Err(UsageError::NotUsed { .. }));
            let is_documented = row[3] == "all" || row[3].split(", ").any(|other| other == command);
            assert_eq!(is_used, is_documented, "{command} {flag}: {parsed:?}");
        }
    }
    let documented: BTreeSet<_> = table("docs/reference.md", "command")
        .iter()
        .map(|row| {
            row[0].trim_start_matches('`').split([' ', '`']).next().expect("a word").to_owned()
        })
        .collect();
    assert_eq!(documented, commands.map(str::to_owned).into());
    assert!(commands.iter().all(|command| HELP.contains(&format!("\n  {command} "))));
}

/// The limit of a check without `--timeout`.
fn healthcheck_timeout() -> Duration {
    let parsed = args::parse(["healthcheck", "tcp://a:1"].map(Into::into).into());
    let Ok(Parsed::Run(invocation)) = parsed else { panic!("{parsed:?}") };
    let config = Config::new(invocation, &Environment::default()).expect("a configuration");
    let config::Command::Healthcheck { timeout, .. } = config.command else { panic!("{config:?}") };
    timeout
}

#[test]
fn the_defaults_of_the_reference_are_those_of_the_program() {
    let parsed = args::parse(Vec::new());
    let Ok(Parsed::Run(invocation)) = parsed else { panic!("{parsed:?}") };
    assert_eq!(invocation.command, CommandName::Up);
    let url = ("DATABASE_URL".into(), "postgres://u@h/d".into());
    let config = Config::new(invocation, &Environment::new([url])).expect("a configuration");
    let options = config.options().expect("options");
    let seconds = |flag: &str| match flag {
        "--wait" => Some(options.wait),
        "--runner-wait" => Some(options.runner_wait),
        "--lock-timeout" => Some(options.lock_timeout),
        "--timeout" => Some(healthcheck_timeout()),
        _ => None,
    };
    for row in table("docs/reference.md", "option") {
        let (option, default) = (row[0].replace('`', ""), row[2].replace('`', ""));
        let flag = option.split(' ').next().expect("a flag");
        let actual = match flag {
            "--schema" => options.table.schema().to_owned(),
            "--table" => options.table.name().to_owned(),
            "--lock-retries" => options.lock_retries.to_string(),
            "--statement-timeout" => {
                assert_eq!(options.statement_timeout, None);
                continue;
            }
            _ => match seconds(flag).map(|time| time.as_secs()) {
                Some(time) if time % 60 == 0 && time > 60 => format!("{}m", time / 60),
                Some(time) => format!("{time}s"),
                None => continue,
            },
        };
        assert_eq!(actual, default, "{flag}");
    }
}

#[test]
fn the_reference_has_every_field_of_every_answer() {
    let mut reference = Reference::parse(&project("docs/reference.md"));
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1"), ("0001_b", "select 2")]);
    folder.add("0002_c", "select 3;--> statement-breakpoint\nvacuum;select x");
    folder.add("0003_d", "rollback");
    let empty = Folder::drizzle0(&[]);
    let plain = Folder::empty();
    plain.write("0001_a.sql", "select 1");
    let up_to_date = Database::fresh();
    premigrate(&up_to_date, &plain).run().exits(0);

    premigrate(&database, &folder).arg("baseline").args(&["--through", "0000_a"]).run().exits(0);
    let to_c = Folder::drizzle0(&[("0000_a", "select 1"), ("0001_b", "select 2")]);
    to_c.add("0002_c", "select 3;--> statement-breakpoint\nvacuum;select x");
    premigrate(&database, &to_c).run().exits(70);
    database.execute(
        "insert into drizzle.__drizzle_migrations (hash, created_at) values ('x', 1), ('y', null)",
    );
    folder.write("0001_b.sql", "select 'edited'");

    let named = Database::fresh();
    premigrate(&named, &plain).run().exits(0);
    named.execute("insert into drizzle.__drizzle_migrations (hash, name) values ('x', 'unknown')");
    let rehearsed = Database::fresh();
    rehearsed.execute("create table a (id serial, b int)");
    let rows = Folder::drizzle0(&[("0000_a", "insert into a (b) values (1)")]);
    let indexed = Folder::drizzle0(&[("0000_a", "create index on a (b)")]);
    for (title, database, folder, args) in [
        ("list", &database, &folder, &["list"][..]),
        ("list", &database, &empty, &["list"]),
        ("list", &database, &plain, &["list"]),
        ("status", &database, &folder, &["status"]),
        ("status", &named, &plain, &["status"]),
        ("status", &Database::fresh(), &empty, &["status"]),
        ("check", &database, &folder, &["check"]),
        ("check", &database, &plain, &["check"]),
        ("check", &rehearsed, &indexed, &["check", "--database"]),
        ("rehearse", &rehearsed, &rows, &["rehearse", "--here"]),
        ("--dry-run", &database, &to_c, &["--dry-run", "--apply-older"]),
        ("--dry-run", &up_to_date, &plain, &["--dry-run"]),
        ("--dry-run", &rehearsed, &indexed, &["--dry-run"]),
        ("new", &database, &plain, &["new", "b"]),
        ("bundle", &database, &plain, &["bundle", "--output", "bundle"]),
    ] {
        let run = premigrate(database, folder).args(args).args(&["--format", "json"]).run();
        assert!(!run.stdout.is_empty(), "{args:?}: {}", run.stderr);
        for line in run.stdout.lines() {
            let object: serde_json::Value = serde_json::from_str(line).expect(line);
            let sections = [("Answers", title), ("Objects", "finding")];
            let sections = if title == "check" { &sections[..] } else { &sections[..1] };
            reference.check(object.as_object().expect(line), sections);
        }
    }
    let check = ["healthcheck", "tcp://127.0.0.1:1", "--format", "json"];
    let check: serde_json::Value =
        serde_json::from_str(&bare().args(&check).run().exits(1).stdout).expect("an object");
    reference.check(check.as_object().expect("an object"), &[("Answers", "healthcheck")]);
    assert_eq!(reference.unseen(&["Answers"]), [""; 0]);
}

#[test]
fn the_list_of_what_happens_at_start_has_the_numbers_of_the_code() {
    let readme = project("README.md");
    let (_, section) = readme.split_once("\n## What happens at start\n").expect("the list");
    let (section, _) = section.split_once("\n## ").expect("a next section");
    let is_numbered = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
    let count = section.lines().filter(is_numbered).count();
    let code = project("src/lib.rs");
    let comments = code.lines().filter_map(|line| line.trim_start().strip_prefix("// "));
    let mut covered = BTreeSet::new();
    for comment in comments {
        let mut words = comment.split(' ');
        let number = |word: Option<&str>| word?.strip_suffix('.')?.parse::<usize>().ok();
        let Some(first) = number(words.next()) else { continue };
        let last = if words.next() == Some("to") { number(words.next()) } else { None };
        covered.extend(first..=last.unwrap_or(first));
    }
    assert_eq!(covered, (1..=count).collect());
}

#[test]
fn the_documents_name_the_key_of_the_lock() {
    let key = i64::from_be_bytes(*b"premigra").to_string();
    assert!(project("docs/how-it-works.md").contains(&key), "{key}");
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
fn the_version_shows_which_roots_are_built_in_and_their_date() {
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
