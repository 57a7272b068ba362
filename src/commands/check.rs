//! `check` finds everything wrong or suspicious in a migrations folder.
//!
//! Pure, but for `database`: where one is asked, it says what is pending, and how large the tables are. `layout` and `prepared` decide what `up` refuses; this module does not.

pub mod database;
mod earlier;
mod finding;
mod names;
mod snapshots;
mod sql;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

pub use earlier::Earlier;
pub use finding::{Finding, of_pending};

use self::finding::Findings;
use crate::commands::new::PLAIN_TEXT;
use crate::effects::{self, Relation, Sizes};
use crate::history::table::Table;
use crate::migrations::layout::{FolderScan, LayoutProblem, others_text};
use crate::migrations::migration::{Hash, Layout, Migration};
use crate::migrations::rule::{Rule, Severity};
use crate::migrations::source::{Files, JOURNAL, MigrationFolder};
use crate::sql::{LineColumn, MARKER, Positions};

/// The content of an empty migration of drizzle-kit's.
const DRIZZLE_TEXT: &str = "-- Custom SQL migration file, put your code below! --";

/// Tolerance for clock skew, in milliseconds: a day.
const CLOCK_SKEW: i64 = 24 * 60 * 60 * 1000;

const BOM: char = '\u{feff}';

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// How many there are.
    pub migrations: usize,
    /// By file, in the order in which migrations run.
    pub findings: Vec<Finding>,
    /// How many more there are that the files ignore.
    pub ignored: usize,
    /// How many of the migrations are pending, if a database was asked.
    pub pending: Option<usize>,
}

impl CheckReport {
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity() == severity).count()
    }

    /// How many of the warnings are about what can block.
    pub fn count_blocking(&self) -> usize {
        self.findings.iter().filter(|finding| finding.can_block()).count()
    }

    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// With `--strict`, what can block counts as an error.
    pub fn exit_code(&self, is_strict: bool) -> u8 {
        if self.has_errors() || (is_strict && self.count_blocking() > 0) { 65 } else { 0 }
    }
}

/// Checks a folder for a history in this table, at this time in Unix milliseconds. If it is known which
/// migrations there were earlier, of those only errors are found.
pub fn check(
    folder: &MigrationFolder,
    table: &Table,
    now: i64,
    earlier: Option<&Earlier>,
) -> CheckReport {
    Checked::read(folder, table, now, earlier, None).report(None)
}

/// A folder that was checked, but for the sizes of the tables.
pub struct Checked<'a> {
    folder: &'a MigrationFolder,
    scan: FolderScan,
    findings: Findings,
    /// The files of the migrations that are not new.
    old: HashSet<String>,
    knows_new: bool,
    pending: Option<usize>,
}

impl<'a> Checked<'a> {
    /// If it is known which migrations there were earlier, or which are pending in a database, by name, only
    /// errors are found of the others.
    pub fn read(
        folder: &'a MigrationFolder,
        table: &Table,
        now: i64,
        earlier: Option<&Earlier>,
        pending: Option<&HashSet<String>>,
    ) -> Checked<'a> {
        let files = &folder.files;
        let scan = FolderScan::new(folder);
        let mut findings = Findings::default();
        let journal =
            files.get(JOURNAL).and_then(|journal| journal.read().ok()).unwrap_or_default();
        let journal = String::from_utf8_lossy(&journal);
        let mut tags = Tags::of(&journal);
        // First what is in the files, because this also finds what they ignore.
        let mut effects = match (earlier, pending) {
            (_, Some(_)) => effects::Reader::with_database(),
            (Some(_), None) => effects::Reader::knowing_new(),
            (None, None) => effects::Reader::default(),
        };
        let is_new = |migration: &&Migration| {
            earlier.is_none_or(|earlier| !earlier.has(migration))
                && pending.is_none_or(|pending| pending.contains(&migration.name))
        };
        for migration in &scan.migrations {
            let is_new = is_new(&migration);
            sql::check(&migration.unread(), is_new, table, &mut effects, &mut findings);
        }
        for (number, hazards) in effects.finish() {
            if let Some(migration) = scan.migrations.get(number) {
                findings.of_statements(&migration.file, hazards);
            }
        }
        for (file, content) in scan.unused.iter().filter_map(|file| files.get_key_value(file)) {
            let content = content.read().unwrap_or_default();
            sql::check_unused(file, &String::from_utf8_lossy(&content), &mut findings);
        }
        findings.folder(folder, &journal, &scan, &mut tags);
        findings.times(&scan, now, &mut tags);
        findings.snapshots(&folder.snapshots, &scan, &|migration| is_new(&migration));
        if scan.layout == Layout::Plain && scan.problems.is_empty() {
            findings.names(&scan.migrations);
        }
        findings.contents(&scan.migrations);
        findings.line_endings(&scan.migrations);
        let old = scan.migrations.iter().filter(|migration| !is_new(migration));
        let old = old.map(|migration| migration.file.clone()).collect();
        let knows_new = earlier.is_some() || pending.is_some();
        let pending = pending.map(HashSet::len);
        Checked { folder, scan, findings, old, knows_new, pending }
    }

    /// The tables whose sizes matter.
    pub fn relations(&self) -> Vec<&Relation> {
        self.findings.relations().into_iter().collect()
    }

    /// With the sizes of the tables that a database has, if one was asked.
    pub fn report(self, sizes: Option<&Sizes>) -> CheckReport {
        let Checked { folder, scan, mut findings, old, knows_new, pending } = self;
        findings.gather(sizes);
        if !knows_new {
            let files = scan.migrations.iter().map(|migration| migration.file.as_str());
            findings.only_latest_of_statements(&files.collect::<Vec<_>>());
        }
        findings.only_errors_of(&old.iter().map(String::as_str).collect());
        let (migrations, ignored) = (scan.migrations.len(), findings.ignored());
        let findings = findings.sorted(folder, &scan);
        CheckReport { migrations, ignored, pending, findings }
    }
}

impl Findings {
    fn folder(
        &mut self,
        folder: &MigrationFolder,
        journal: &str,
        scan: &FolderScan,
        tags: &mut Tags<'_>,
    ) {
        if journal.starts_with(BOM) {
            self.byte_order_mark(JOURNAL);
        }
        for problem in &scan.problems {
            self.layout_problem(problem, tags);
        }
        self.case_collisions(&folder.files, &scan.problems);
        self.unused_files(scan, &folder.upper_case);

        let has_marker = |migration: &&Migration| text(&migration.unread()).contains(MARKER);
        if scan.layout == Layout::Plain
            && let Some(first) = scan.migrations.iter().find(has_marker)
        {
            self.of_entry(
                &first.file,
                None,
                Rule::MissingJournal,
                "the journal is missing, so these files run as plain migrations although they look \
                 like drizzle-kit's; restore it, and check that it is copied into the image",
            );
        }
    }

    fn byte_order_mark(&mut self, file: &str) {
        self.of_file(
            file,
            Rule::Bom,
            "the file begins with a byte order mark, which makes Drizzle fail; save it without \
             one unless it is applied already",
        );
    }

    fn layout_problem(&mut self, problem: &LayoutProblem, tags: &mut Tags<'_>) {
        let (file, position) = match problem {
            LayoutProblem::Unrecognized
            | LayoutProblem::OtherLayout { .. }
            | LayoutProblem::Subfolder(_) => (None, None),
            LayoutProblem::TwoLayouts => (Some(JOURNAL.to_owned()), None),
            LayoutProblem::Journal(problem) => (Some(JOURNAL.to_owned()), problem.position()),
            LayoutProblem::Tag(tag)
            | LayoutProblem::When(tag)
            | LayoutProblem::DuplicateName(tag) => (Some(JOURNAL.to_owned()), tags.position(tag)),
            LayoutProblem::MissingFile { file, .. }
            | LayoutProblem::VersionOrder { second: file, .. } => (Some(file.clone()), None),
            LayoutProblem::DownFiles { first, .. } => (Some(first.file.clone()), None),
            LayoutProblem::FolderNames { first: folder, .. }
            | LayoutProblem::UnsortableName(folder) => {
                (Some(format!("{folder}/migration.sql")), None)
            }
        };
        // A finding begins with the name of its file.
        self.add(file.as_deref(), position, problem.rule(), format!("{problem:#}"));
    }

    fn case_collisions(&mut self, files: &Files, problems: &[LayoutProblem]) {
        let missing = problems.iter().filter_map(|problem| match problem {
            LayoutProblem::MissingFile { file, .. } => Some(file),
            _ => None,
        });
        let mut by_lower_case: HashMap<String, &str> =
            missing.map(|file| (file.to_lowercase(), file.as_str())).collect();
        for file in files.keys() {
            let other = *by_lower_case.entry(file.to_lowercase()).or_insert(file);
            if other != file {
                let message = format!(
                    "the name differs from {other} only in case, which some file systems ignore; \
                     rename one of them"
                );
                self.of_file(file, Rule::CaseCollision, message);
            }
        }
    }

    fn unused_files(&mut self, scan: &FolderScan, upper_case: &[String]) {
        // Then all files are unused, and the problem says more.
        let explains = |problem: &LayoutProblem| {
            matches!(
                problem,
                LayoutProblem::Journal(_)
                    | LayoutProblem::OtherLayout { .. }
                    | LayoutProblem::Subfolder(_)
            )
        };
        if scan.problems.iter().any(explains) {
            return;
        }
        let why = match scan.layout {
            Layout::Drizzle0 => &format!("because {JOURNAL} does not list it"),
            Layout::Drizzle1 => {
                "because only the migration.sql in a folder like 20260131093000_name is run"
            }
            Layout::Plain => "because only the files at the top of the folder are run",
        };
        let cure = match scan.layout {
            Layout::Drizzle0 => "in one made by `drizzle-kit generate --custom`",
            Layout::Drizzle1 | Layout::Plain => "in a file that is",
        };
        let (inside, top): (Vec<_>, Vec<_>) =
            scan.unused.iter().partition(|file| file.contains('/'));
        for file in top {
            let message =
                format!("the file is never run, {why}; if it is a migration, put its SQL {cure}");
            self.of_file(file, Rule::UnusedFile, message);
        }
        // A subfolder often has many, of one kind: that is one finding.
        let is_told = |file: &&String| !self.is_ignored(file, Rule::UnusedFile, None);
        let inside: Vec<_> = inside.into_iter().filter(is_told).collect();
        if let Some((first, others)) = inside.split_first() {
            let others = others_text(others.len(), ["nor is", "nor are"], "file");
            let message = format!(
                "the file is in a subfolder{others} and never run, {why}; if it is a migration, put its SQL {cure}"
            );
            self.add(Some(first), None, Rule::UnusedFile, message);
        }
        if let Some((first, others)) = upper_case.split_first() {
            let others = others_text(others.len(), ["nor is", "nor are"], "file");
            let message = format!(
                "the file is never run{others}, because its name does not end in .sql in lower case; \
                 rename it if it is a migration"
            );
            self.add(Some(first), None, Rule::UnusedFile, message);
        }
    }

    fn times(&mut self, scan: &FolderScan, now: i64, tags: &mut Tags<'_>) {
        let is_in_journal = scan.layout == Layout::Drizzle0;
        let mut latest: Option<(i64, &str)> = None;
        for Migration { name, file, when, .. } in &scan.migrations {
            let Some(when) = *when else { continue };
            if when > now.saturating_add(CLOCK_SKEW) {
                if is_in_journal {
                    let message = format!(
                        "the `when` of {name} ({when}) is in the future: until then, drizzle-orm \
                         0.x skips every migration that is generated after it; lower it unless \
                         {name} is applied already"
                    );
                    self.of_entry(file, tags.position(name), Rule::FutureTime, message);
                } else {
                    self.of_file(
                        file,
                        Rule::FutureTime,
                        "the time in the folder's name is in the future: migrations that are \
                         generated before then sort before it; rename the folder unless it is \
                         applied already",
                    );
                }
                continue;
            }
            match latest {
                Some((time, latest)) if time >= when => {
                    if is_in_journal {
                        let message = format!(
                            "the `when` of {name} ({when}) is not later than that of {latest}: \
                             where {latest} is applied, drizzle-orm 0.x skips {name}, and \
                             premigrate does not; raise it unless {name} is applied already"
                        );
                        self.of_entry(file, tags.position(name), Rule::NotLater, message);
                    }
                }
                _ => latest = Some((when, name)),
            }
        }
    }

    fn contents(&mut self, migrations: &[Migration]) {
        let mut by_hash: HashMap<&Hash, &str> = HashMap::new();
        for migration in migrations {
            let file = migration.file.as_str();
            let read = migration.unread();
            let text = text(&read);
            if is_blank(&text) {
                self.of_file(
                    file,
                    Rule::EmptyFile,
                    "the file is empty; write its SQL before it is applied, because an applied \
                     migration is not run again",
                );
                continue;
            }
            if is_template(&text) {
                self.of_file(
                    file,
                    Rule::EmptyTemplate,
                    "the file is a template without SQL; write its SQL before it is applied, \
                     because an applied migration is not run again",
                );
                continue;
            }
            let first = *by_hash.entry(&migration.hash).or_insert(file);
            if first != file {
                let message = format!(
                    "the file has the same content as {first}, and so the same hash; remove it if \
                     it is an accidental copy"
                );
                self.of_file(file, Rule::SameContent, message);
            }
        }
    }

    fn line_endings(&mut self, migrations: &[Migration]) {
        const GIT_ATTRIBUTES: &str = "add `*.sql text eol=lf` to .gitattributes";
        let mut crlf = Vec::new();
        for migration in migrations {
            let read = migration.unread();
            let content = read.content().unwrap_or_default();
            let lines = content.iter().filter(|&&byte| byte == b'\n').count();
            match content.windows(2).filter(|pair| pair == b"\r\n").count() {
                0 => {}
                all if all == lines => {
                    if !self.is_ignored(&migration.file, Rule::Crlf, None) {
                        crlf.push(&migration.file);
                    }
                }
                _ => {
                    let message = format!(
                        "the file has both CRLF and LF line endings, so its hash depends on the \
                         checkout; save it with LF unless it is applied already, and \
                         {GIT_ATTRIBUTES}"
                    );
                    self.of_file(&migration.file, Rule::MixedLineEndings, message);
                }
            }
        }
        // A checkout converts all files at once: that is one finding.
        if let Some((first, others)) = crlf.split_first() {
            let others = others_text(others.len(), ["so does", "so do"], "file");
            let message = format!(
                "the file has CRLF line endings{others}, so its hash depends on the checkout; \
                 {GIT_ATTRIBUTES}"
            );
            self.add(Some(first), None, Rule::Crlf, message);
        }
    }
}

/// The file as text, also if it is not valid UTF-8, so that the rest of it is checked.
fn text(migration: &Migration) -> Cow<'_, str> {
    String::from_utf8_lossy(migration.content().unwrap_or_default())
}

fn is_blank(text: &str) -> bool {
    text.trim_start_matches(BOM).trim().is_empty()
}

fn is_template(text: &str) -> bool {
    let text = text.trim_start_matches(BOM).trim();
    text == DRIZZLE_TEXT || text == PLAIN_TEXT.trim()
}

/// Where the tags of a journal are.
struct Tags<'a> {
    /// Each string in it, with its quotes, and the offset of the first.
    strings: HashMap<&'a str, usize>,
    positions: Positions<'a>,
}

impl<'a> Tags<'a> {
    fn of(journal: &'a str) -> Tags<'a> {
        let mut strings = HashMap::new();
        let mut start = None;
        let mut is_escaped = false;
        for (at, c) in journal.char_indices() {
            match (c, start) {
                _ if std::mem::take(&mut is_escaped) => {}
                ('\\', Some(_)) => is_escaped = true,
                ('"', Some(opening)) => {
                    strings.entry(journal.get(opening..=at).unwrap_or_default()).or_insert(opening);
                    start = None;
                }
                ('"', None) => start = Some(at),
                _ => {}
            }
        }
        Tags { strings, positions: Positions::new(journal) }
    }

    fn position(&mut self, tag: &str) -> Option<LineColumn> {
        let tag = serde_json::to_string(tag).ok()?;
        Some(self.positions.at(*self.strings.get(tag.as_str())?))
    }
}

#[cfg(test)]
mod tests;
