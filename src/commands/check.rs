//! `check`: all that is wrong, or suspicious, in a migrations folder, found without a database.
//!
//! Pure. What `up` refuses is decided by `layout` and `prepared`, not here.

mod finding;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

pub use finding::{Finding, Lint, Severity};

use self::finding::Position;
use crate::commands::new::PLAIN_TEXT;
use crate::history::table::Table;
use crate::migrations::layout::{FolderScan, LayoutProblem};
use crate::migrations::migration::{Hash, Layout, Migration};
use crate::migrations::prepared::{self, Reason};
use crate::migrations::source::{Files, JOURNAL, MigrationFolder};
use crate::migrations::steps::Steps;
use crate::sql::{self, IgnoredMarker, Kind, LineColumn, MARKER, Script};

/// The content of an empty migration of drizzle-kit's.
const DRIZZLE_TEXT: &str = "-- Custom SQL migration file, put your code below! --";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// How many there are.
    pub migrations: usize,
    /// By file, in the order in which migrations run.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }
}

/// Tolerance for clock skew, in milliseconds: a day.
const CLOCK_SKEW: i64 = 24 * 60 * 60 * 1000;

/// Checks a folder for a history in this table, at this time in Unix milliseconds.
pub fn check(folder: &MigrationFolder, table: &Table, now: i64) -> CheckReport {
    let files = &folder.files;
    let scan = FolderScan::new(folder);
    let mut findings = Findings::default();
    let journal = files.get(JOURNAL).map_or(&b""[..], |journal| journal);
    let journal = String::from_utf8_lossy(journal);
    findings.folder(files, &journal, &scan);
    findings.times(&journal, &scan, now);
    findings.contents(&scan.migrations);
    findings.line_endings(&scan.migrations);
    for migration in &scan.migrations {
        findings.sql(migration, table);
    }
    CheckReport { migrations: scan.migrations.len(), findings: findings.sorted(files, &scan) }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding about a file, or a position in it.
    fn add(&mut self, file: &str, position: Position, lint: &Lint) {
        self.0.push(Finding::new(Some(file), position, lint));
    }

    /// The folder and the journal first, then missing files, migrations, and all other files.
    fn sorted(mut self, files: &Files, scan: &FolderScan) -> Vec<Finding> {
        let migrations = scan.migrations.iter().map(|migration| migration.file.as_str());
        let migrations: HashMap<&str, usize> = migrations.zip(3..).collect();
        let rank = |finding: &Finding| match finding.file.as_deref() {
            None => 0,
            Some(JOURNAL) => 1,
            Some(file) if !files.contains_key(file) => 2,
            Some(file) => migrations.get(file).copied().unwrap_or(usize::MAX),
        };
        self.0.sort_by(|a, b| {
            let position = |finding: &Finding| (finding.line, finding.column);
            (rank(a), &a.file, position(a)).cmp(&(rank(b), &b.file, position(b)))
        });
        self.0
    }

    fn folder(&mut self, files: &Files, journal: &str, scan: &FolderScan) {
        if journal.starts_with(BOM) {
            self.add(JOURNAL, None, &Lint::Bom);
        }
        let mut by_lower_case: HashMap<String, &str> = HashMap::new();
        for problem in &scan.problems {
            if let LayoutProblem::MissingFile { file, .. } = problem {
                by_lower_case.insert(file.to_lowercase(), file);
            }
            self.layout_problem(journal, problem);
        }
        for file in files.keys() {
            let other = *by_lower_case.entry(file.to_lowercase()).or_insert(file);
            if other != file {
                self.add(file, None, &Lint::CaseCollision(other.to_owned()));
            }
        }

        let is_journal_valid =
            !scan.problems.iter().any(|problem| matches!(problem, LayoutProblem::Journal(_)));
        if is_journal_valid {
            let migrations = scan.migrations.iter().map(|migration| migration.file.as_str());
            let migrations: HashSet<&str> = migrations.collect();
            let others = files.keys().filter(|file| !migrations.contains(file.as_str()));
            for file in others.filter(|file| file.ends_with(".sql")) {
                self.add(file, None, &Lint::UnusedFile(scan.layout));
            }
        }

        let has_marker = |migration: &Migration| text(migration).contains(MARKER);
        if scan.layout == Layout::Plain && scan.migrations.iter().any(has_marker) {
            self.add(JOURNAL, None, &Lint::MissingJournal);
        }
    }

    fn layout_problem(&mut self, journal: &str, problem: &LayoutProblem) {
        let lint = Lint::LayoutProblem(problem.clone());
        match problem {
            LayoutProblem::Unrecognized => self.0.push(Finding::new(None, None, &lint)),
            LayoutProblem::TwoLayouts | LayoutProblem::Journal(_) => self.add(JOURNAL, None, &lint),
            LayoutProblem::Tag(tag)
            | LayoutProblem::When(tag)
            | LayoutProblem::DuplicateName(tag) => {
                self.add(JOURNAL, position_of_tag(journal, tag), &lint);
            }
            LayoutProblem::MissingFile { file, .. } => self.add(file, None, &lint),
            LayoutProblem::FolderName(folder) | LayoutProblem::UnsortableName(folder) => {
                self.add(&format!("{folder}/migration.sql"), None, &lint);
            }
        }
    }

    fn times(&mut self, journal: &str, scan: &FolderScan, now: i64) {
        let mut latest: Option<(i64, &str)> = None;
        for Migration { name, file, when, .. } in &scan.migrations {
            let Some(when) = *when else { continue };
            let is_in_journal = scan.layout == Layout::Drizzle0;
            if when > now.saturating_add(CLOCK_SKEW) {
                let (migration, layout) = (name.clone(), scan.layout);
                let lint = Lint::FutureTime { migration, when, layout };
                if is_in_journal {
                    self.add(JOURNAL, position_of_tag(journal, name), &lint);
                } else {
                    self.add(file, None, &lint);
                }
                continue;
            }
            match latest {
                Some((time, latest)) if time >= when => {
                    if is_in_journal {
                        let (tag, latest) = (name.clone(), latest.to_owned());
                        let lint = Lint::NotLater { tag, when, latest };
                        self.add(JOURNAL, position_of_tag(journal, name), &lint);
                    }
                }
                _ => latest = Some((when, name)),
            }
        }
    }

    fn contents(&mut self, migrations: &[Migration]) {
        let mut by_hash: HashMap<&Hash, &str> = HashMap::new();
        for migration in migrations {
            let text = text(migration);
            let text = text.trim_start_matches(BOM).trim();
            let lint = if text.is_empty() {
                Lint::EmptyFile
            } else if text == DRIZZLE_TEXT || text == PLAIN_TEXT.trim() {
                Lint::EmptyTemplate
            } else {
                let first = *by_hash.entry(&migration.hash).or_insert(&migration.file);
                if first == migration.file {
                    continue;
                }
                Lint::SameContent(first.to_owned())
            };
            self.add(&migration.file, None, &lint);
        }
    }

    fn line_endings(&mut self, migrations: &[Migration]) {
        let mut crlf = Vec::new();
        for migration in migrations {
            let content = migration.content();
            let lines = content.iter().filter(|&&byte| byte == b'\n').count();
            match content.windows(2).filter(|pair| pair == b"\r\n").count() {
                0 => {}
                all if all == lines => crlf.push(&migration.file),
                _ => self.add(&migration.file, None, &Lint::MixedLineEndings),
            }
        }
        // A checkout converts all files at once: that is one finding.
        if let Some((first, others)) = crlf.split_first() {
            self.add(first, None, &Lint::Crlf { other_files: others.len() });
        }
    }

    fn sql(&mut self, migration: &Migration, table: &Table) {
        let file = migration.file.as_str();
        if let Err(reason @ (Reason::NotUtf8 { offset } | Reason::HasNul { offset })) =
            migration.sql()
        {
            let before = migration.content().get(..offset).unwrap_or_default();
            let before = String::from_utf8_lossy(before);
            let position = LineColumn::at(&before, before.len());
            self.add(file, Some(position), &Lint::NotRunnable(reason));
        }
        let text = text(migration);
        if text.starts_with(BOM) {
            self.add(file, None, &Lint::Bom);
        }
        let script = Script::parse(&text);
        let position = |offset: usize| Some(LineColumn::at(&text, offset));
        let steps = Steps::split(&script);
        for (position, reason) in prepared::reasons(&text, &script, &steps) {
            self.add(file, Some(position), &Lint::NotRunnable(reason));
        }
        if let Some((reason, index)) = steps.split {
            let first = index.and_then(|index| script.statements().get(index));
            let position = first.and_then(|first| position(first.start));
            self.add(file, position, &Lint::Split { steps: steps.all().len(), reason });
        }
        if let Some((token, offset)) = script.unterminated() {
            self.add(file, position(offset), &Lint::Unterminated(token));
        }
        self.markers(file, &script, position);
        self.settings(file, &script, position);
        self.enum_values(file, &script, &steps, position);
        for (index, statement) in script.statements().iter().enumerate() {
            if statement.kind == Kind::SetTransaction
                && steps.rejects_set_transaction(&script, index)
            {
                let lint = Lint::SetTransaction(statement.first_line());
                self.add(file, position(statement.start), &lint);
            }
            for change in statement.changes() {
                if let Some(object) = history_object(&change, table) {
                    let lint = Lint::ChangesHistory { touch: change.touch, object };
                    self.add(file, position(statement.start), &lint);
                }
            }
        }
    }

    fn markers(&mut self, file: &str, script: &Script, position: impl Fn(usize) -> Position) {
        let mut inside = Vec::new();
        // After a quote that is never closed, everything is inside it.
        let end = script.unterminated().map_or(usize::MAX, |(_, offset)| offset);
        let markers = script.ignored_markers().iter();
        for &(offset, marker) in markers.filter(|(offset, _)| *offset < end) {
            match marker {
                IgnoredMarker::AlmostMarker => {
                    self.add(file, position(offset), &Lint::AlmostMarker);
                }
                IgnoredMarker::Inside(token) => inside.push((offset, token)),
            }
        }
        if let Some((&(offset, inside), more)) = inside.split_first() {
            self.add(file, position(offset), &Lint::MarkerInside { inside, more: more.len() });
        }
    }

    fn settings(&mut self, file: &str, script: &Script, position: impl Fn(usize) -> Position) {
        let mut leftover: Vec<(String, usize)> = Vec::new();
        let statements = script.statements().iter();
        for statement in statements.filter(|statement| statement.kind == Kind::Setting) {
            let Some(set) = statement.set_statement() else { continue };
            if !set.resets {
                if !leftover.iter().any(|(name, _)| *name == set.name) {
                    leftover.push((set.name, statement.start));
                }
            } else if set.name == "all" {
                // RESET ALL resets neither of these.
                leftover.retain(|(name, _)| matches!(name.as_str(), "role" | "authorization"));
            } else {
                leftover.retain(|(name, _)| *name != set.name);
            }
        }
        if let Some(&(_, offset)) = leftover.first() {
            let names = leftover.into_iter().map(|(name, _)| name).collect();
            self.add(file, position(offset), &Lint::LeftoverSettings(names));
        }
    }

    /// Statements that name a value after the same transaction has added it to an enum. PostgreSQL
    /// 17 and later accept that if the transaction has also created the enum; others never do.
    fn enum_values(
        &mut self,
        file: &str,
        script: &Script,
        steps: &Steps,
        position: impl Fn(usize) -> Position,
    ) {
        for step in steps.all() {
            let mut added: Vec<(usize, &str)> = Vec::new();
            let statements = script.statements().get(step.statements.clone());
            for statement in statements.unwrap_or_default() {
                if statement.kind == Kind::AddEnumValue {
                    added.extend(statement.enum_value().map(|literal| (statement.start, literal)));
                    continue;
                }
                added.retain(|&(offset, literal)| {
                    let is_used = statement.text.contains(literal);
                    if is_used && let Some(added_in) = position(offset) {
                        let literal = literal.to_owned();
                        let lint = Lint::NewEnumValue { literal, added_in_line: added_in.line };
                        self.add(file, position(statement.start), &lint);
                    }
                    !is_used
                });
            }
        }
    }
}

const BOM: char = '\u{feff}';

/// The file as text, also if it is not valid UTF-8, so that the rest of it is checked.
fn text(migration: &Migration) -> Cow<'_, str> {
    String::from_utf8_lossy(migration.content())
}

fn position_of_tag(journal: &str, tag: &str) -> Position {
    let tag = serde_json::to_string(tag).ok()?;
    Some(LineColumn::at(journal, journal.find(&tag)?))
}

/// The history's table or schema, if that is what the statement changes. An unqualified name counts
/// only if the history is in `public`: elsewhere it is more likely another table's.
fn history_object(change: &sql::Change, table: &Table) -> Option<String> {
    let (schema, name) = (table.schema(), table.name());
    let is = |parts: &[&str]| change.name.iter().rev().zip(parts).all(|(a, b)| a == b);
    if change.schema {
        return is(&[schema]).then(|| format!("the schema {schema}"));
    }
    let is_qualified = change.name.len() > 1 || schema == "public";
    (is_qualified && is(&[name, schema])).then(|| format!("the table {table}"))
}

#[cfg(test)]
mod tests;
