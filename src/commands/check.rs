//! Everything that can be said of a migrations folder without a database, all of it at once.
//!
//! Pure. A fault is what no run will apply; a remark is about what works, but perhaps not as meant,
//! or not with Drizzle. What is refused is decided by `layout` and `prepared`, not here.

mod finding;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

pub use finding::{Finding, Lint, Severity};

use crate::commands::new::{DRIZZLE_TEXT, PLAIN_TEXT};
use crate::history::table::Table;
use crate::migrations::layout::{FolderScan, LayoutProblem};
use crate::migrations::migration::{Hash, Layout, Migration, NotText};
use crate::migrations::prepared;
use crate::migrations::source::{Files, JOURNAL, MigrationFolder};
use crate::migrations::steps::Steps;
use crate::sql::{self, IgnoredMarker, Kind, LineColumn, MARKER, Script};

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// How many migrations there are.
    pub migrations: usize,
    /// What there is to say, by file in the order of the set.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// How many findings are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.what.severity() == severity).count()
    }

    /// Whether the folder cannot be applied as it is.
    pub fn is_faulty(&self) -> bool {
        self.count(Severity::Error) > 0
    }
}

/// What is further ahead than this is no clock that is a little fast.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// Says all there is to say of these files, for a history in this table, at this time in Unix
/// milliseconds.
pub fn check(folder: &MigrationFolder, table: &Table, now: i64) -> CheckReport {
    let files = &folder.files;
    let survey = FolderScan::new(folder);
    let mut findings = Findings::default();
    let journal = files.get(JOURNAL).map_or(&b""[..], |journal| journal);
    let journal = String::from_utf8_lossy(journal);
    findings.folder(files, &journal, &survey);
    findings.times(&journal, &survey, now);
    findings.contents(&survey.migrations);
    findings.line_ends(&survey.migrations);
    for migration in &survey.migrations {
        findings.sql(migration, table);
    }
    CheckReport { migrations: survey.migrations.len(), findings: findings.sorted(files, &survey) }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, file: &str, place: Option<LineColumn>, what: Lint) {
        self.0.push(Finding { file: file.to_owned(), place, what });
    }

    /// The folder and the journal first, then files that are missing, migrations, and the others.
    fn sorted(mut self, files: &Files, survey: &FolderScan) -> Vec<Finding> {
        let migrations = survey.migrations.iter().map(|migration| migration.file.as_str());
        let places: HashMap<&str, usize> = migrations.zip(3..).collect();
        let rank = |file: &str| match file {
            "" => 0,
            JOURNAL => 1,
            _ if !files.contains_key(file) => 2,
            _ => places.get(file).copied().unwrap_or(usize::MAX),
        };
        self.0.sort_by(|a, b| {
            (rank(&a.file), &a.file, a.place).cmp(&(rank(&b.file), &b.file, b.place))
        });
        self.0
    }

    fn folder(&mut self, files: &Files, journal: &str, survey: &FolderScan) {
        if journal.starts_with(BOM) {
            self.add(JOURNAL, None, Lint::Bom);
        }
        let mut by_lower_case: HashMap<String, &str> = HashMap::new();
        let mut tags_are_known = true;
        for problem in &survey.problems {
            let (file, place) = match problem {
                LayoutProblem::Unrecognised => ("", None),
                LayoutProblem::TwoLayouts => (JOURNAL, None),
                LayoutProblem::Journal(_) => {
                    tags_are_known = false;
                    (JOURNAL, None)
                }
                LayoutProblem::Tag(tag)
                | LayoutProblem::When(tag)
                | LayoutProblem::DuplicateName(tag) => (JOURNAL, place_of_tag(journal, tag)),
                LayoutProblem::MissingFile { file, .. } => {
                    by_lower_case.insert(file.to_lowercase(), file);
                    (file.as_str(), None)
                }
                LayoutProblem::FolderName(folder) | LayoutProblem::UnsortableName(folder) => {
                    (&*format!("{folder}/migration.sql"), None)
                }
            };
            self.add(file, place, Lint::LayoutProblem(problem.clone()));
        }

        for file in files.keys() {
            let other = *by_lower_case.entry(file.to_lowercase()).or_insert(file);
            if other != file {
                self.add(file, None, Lint::CaseCollision(other.to_owned()));
            }
        }

        if tags_are_known {
            let known: HashSet<&str> =
                survey.migrations.iter().map(|migration| migration.file.as_str()).collect();
            let others = files.keys().filter(|file| !known.contains(file.as_str()));
            for file in others.filter(|file| file.ends_with(".sql")) {
                self.add(file, None, Lint::Orphan(survey.layout));
            }
        }

        let marked = |migration: &Migration| text(migration).contains(MARKER);
        if survey.layout == Layout::Plain && survey.migrations.iter().any(marked) {
            self.add(JOURNAL, None, Lint::NoJournal);
        }
    }

    fn times(&mut self, journal: &str, survey: &FolderScan, now: i64) {
        let mut latest: Option<(i64, &str)> = None;
        for Migration { name, file, when, .. } in &survey.migrations {
            let Some(when) = *when else { continue };
            let of_journal = survey.layout == Layout::Drizzle0;
            let place = || place_of_tag(journal, name);
            if when > now.saturating_add(DAY) {
                let what = Lint::Future { name: name.clone(), when, layout: survey.layout };
                let (file, place) = if of_journal { (JOURNAL, place()) } else { (&**file, None) };
                self.add(file, place, what);
                continue;
            }
            match latest {
                Some((time, than)) if time >= when => {
                    if of_journal {
                        let (tag, than) = (name.clone(), than.to_owned());
                        self.add(JOURNAL, place(), Lint::NotLater { tag, when, than });
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
            let what = if text.is_empty() {
                Lint::Empty
            } else if text == DRIZZLE_TEXT || text == PLAIN_TEXT.trim() {
                Lint::EmptyTemplate
            } else {
                let first = *by_hash.entry(&migration.hash).or_insert(&migration.file);
                if first == migration.file {
                    continue;
                }
                Lint::SameContent(first.to_owned())
            };
            self.add(&migration.file, None, what);
        }
    }

    fn line_ends(&mut self, migrations: &[Migration]) {
        let mut crlf = Vec::new();
        for migration in migrations {
            let content = migration.content();
            let lines = content.iter().filter(|&&byte| byte == b'\n').count();
            match content.windows(2).filter(|pair| pair == b"\r\n").count() {
                0 => {}
                all if all == lines => crlf.push(&migration.file),
                _ => self.add(&migration.file, None, Lint::MixedLineEnds),
            }
        }
        // One checkout does it to all of them; then it is one thing to say.
        if let Some((first, others)) = crlf.split_first() {
            self.add(first, None, Lint::Crlf { others: others.len() });
        }
    }

    fn sql(&mut self, migration: &Migration, table: &Table) {
        let file = migration.file.as_str();
        if let Err(not_text) = migration.sql() {
            let (NotText::InvalidUtf8 { offset } | NotText::Nul { offset }) = not_text;
            let before = migration.content().get(..offset).unwrap_or_default();
            let before = String::from_utf8_lossy(before);
            let place = LineColumn::at(&before, before.len());
            self.add(file, Some(place), Lint::NotRunnable(not_text.into()));
        }
        let text = text(migration);
        if text.starts_with(BOM) {
            self.add(file, None, Lint::Bom);
        }
        let script = Script::parse(&text);
        let at = |offset: usize| Some(LineColumn::at(&text, offset));
        let steps = Steps::split(&script);
        for (position, reason) in prepared::reasons(&text, &script, &steps) {
            self.add(file, Some(position), Lint::NotRunnable(reason));
        }
        if let Some((why, first)) = steps.split {
            let place = first.and_then(|first| at(script.statements().get(first)?.start));
            self.add(file, place, Lint::Split { steps: steps.all().len(), why });
        }
        if let Some((what, offset)) = script.unterminated() {
            self.add(file, at(offset), Lint::Unterminated(what));
        }
        self.markers(file, &script, at);
        self.settings(file, &script, at);
        self.enum_values(file, &script, &steps, at);
        for (place, statement) in script.statements().iter().enumerate() {
            if statement.kind == Kind::SetTransaction
                && steps.rejects_set_transaction(&script, place)
            {
                let what = Lint::SetTransaction(statement.first_line());
                self.add(file, at(statement.start), what);
            }
            for change in statement.changes() {
                if let Some(name) = named_in_history(&change, table) {
                    let what = Lint::History { touch: change.touch, name };
                    self.add(file, at(statement.start), what);
                }
            }
        }
    }

    fn markers(&mut self, file: &str, script: &Script, at: impl Fn(usize) -> Option<LineColumn>) {
        let mut inside = Vec::new();
        // Behind a quote that is never closed, nothing is what it seems.
        let end = script.unterminated().map_or(usize::MAX, |(_, offset)| offset);
        for &(offset, ignored_markers) in
            script.ignored_markers().iter().filter(|(offset, _)| *offset < end)
        {
            match ignored_markers {
                IgnoredMarker::AlmostMarker => self.add(file, at(offset), Lint::AlmostMarker),
                IgnoredMarker::Inside(what) => inside.push((offset, what)),
            }
        }
        if let Some(((offset, inside), more)) = inside.split_first() {
            self.add(file, at(*offset), Lint::MarkerInside { inside, more: more.len() });
        }
    }

    fn settings(&mut self, file: &str, script: &Script, at: impl Fn(usize) -> Option<LineColumn>) {
        let mut left: Vec<(String, usize)> = Vec::new();
        let statements = script.statements().iter();
        for statement in statements.filter(|statement| statement.kind == Kind::Setting) {
            let Some(set) = statement.set_statement() else { continue };
            if !set.resets {
                if !left.iter().any(|(name, _)| *name == set.name) {
                    left.push((set.name, statement.start));
                }
            } else if set.name == "all" {
                left.retain(|(name, _)| matches!(name.as_str(), "role" | "authorization"));
            } else {
                left.retain(|(name, _)| *name != set.name);
            }
        }
        if let Some((_, first)) = left.first() {
            let first = at(*first);
            let names = left.into_iter().map(|(name, _)| name).collect();
            self.add(file, first, Lint::Options(names));
        }
    }

    fn enum_values(
        &mut self,
        file: &str,
        script: &Script,
        steps: &Steps,
        at: impl Fn(usize) -> Option<LineColumn>,
    ) {
        // PostgreSQL 17 lets a value be used whose enum is as new; those before it do not.
        for step in steps.all() {
            let mut added: Vec<(usize, &str)> = Vec::new();
            let statements = script.statements().get(step.statements.clone());
            for statement in statements.unwrap_or_default() {
                if statement.kind == Kind::AddEnumValue {
                    added.extend(statement.enum_value().map(|value| (statement.start, value)));
                    continue;
                }
                added.retain(|&(added_at, literal)| {
                    let used = statement.text.contains(literal);
                    if used && let Some(added) = at(added_at) {
                        let literal = literal.to_owned();
                        let what = Lint::NewEnumValue { literal, line: added.line };
                        self.add(file, at(statement.start), what);
                    }
                    !used
                });
            }
        }
    }
}

const BOM: char = '\u{feff}';

/// What is not text is checked too, as far as it can be read.
fn text(migration: &Migration) -> Cow<'_, str> {
    String::from_utf8_lossy(migration.content())
}

fn place_of_tag(journal: &str, tag: &str) -> Option<LineColumn> {
    let tag = serde_json::to_string(tag).ok()?;
    Some(LineColumn::at(journal, journal.find(&tag)?))
}

/// The history's table or schema, where that is what changes. A name without a schema may be any
/// table's; it is taken for the history's where that lives in `public`.
fn named_in_history(change: &sql::Change, table: &Table) -> Option<String> {
    let (schema, name) = table.names();
    let is = |parts: &[&str]| change.name.iter().rev().zip(parts).all(|(a, b)| a == b);
    if change.schema {
        return is(&[schema]).then(|| format!("the schema {schema}"));
    }
    let qualified = change.name.len() > 1 || schema == "public";
    (qualified && is(&[name, schema])).then(|| format!("the table {table}"))
}

#[cfg(test)]
mod tests;
