//! What a check finds, what of it the files ignore, and the order in which it is shown.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::apply::failure::line_and_column;
use crate::migrations::layout::FolderScan;
use crate::migrations::rule::{Rule, Severity};
use crate::migrations::source::{JOURNAL, MigrationFolder};
use crate::sql::LineColumn;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file's path inside the migrations folder; null for the folder itself.
    pub file: Option<String>,
    #[serde(flatten, serialize_with = "line_and_column")]
    /// `None` where a finding is about the whole file.
    pub position: Option<LineColumn>,
    pub rule: Rule,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Finding {
    pub fn severity(&self) -> Severity {
        self.rule.severity()
    }
}

/// A rule that a file ignores.
#[derive(PartialEq, Eq, Hash)]
pub struct Ignore {
    pub file: String,
    pub rule: Rule,
    /// The index of the statement at which it is ignored; `None` for the file as a whole.
    pub statement: Option<usize>,
}

#[derive(Default)]
pub struct Findings {
    found: Vec<Finding>,
    ignores: HashSet<Ignore>,
    /// Those of the ignores that there was something for.
    used: HashSet<Ignore>,
}

impl Findings {
    /// A rule to be ignored from now on.
    pub fn ignore(&mut self, ignore: Ignore) {
        self.ignores.insert(ignore);
    }

    pub fn is_ignored(&mut self, file: &str, rule: Rule, statement: Option<usize>) -> bool {
        let ignore = Ignore { file: file.to_owned(), rule, statement };
        let is_ignored = self.ignores.contains(&ignore);
        if is_ignored {
            self.used.insert(ignore);
        }
        is_ignored
    }

    /// Adds a finding that nothing ignores.
    pub fn add(
        &mut self,
        file: Option<&str>,
        position: Option<LineColumn>,
        rule: Rule,
        message: impl Into<String>,
    ) {
        let (file, message) = (file.map(str::to_owned), message.into());
        self.found.push(Finding { file, position, rule, message });
    }

    /// What is about a file as a whole.
    pub fn of_file(&mut self, file: &str, rule: Rule, message: impl Into<String>) {
        if !self.is_ignored(file, rule, None) {
            self.add(Some(file), None, rule, message);
        }
    }

    /// What the journal, or its absence, means for a migration. The file can ignore it, while the
    /// journal has no place for that.
    pub fn of_entry(
        &mut self,
        file: &str,
        position: Option<LineColumn>,
        rule: Rule,
        message: impl Into<String>,
    ) {
        if !self.is_ignored(file, rule, None) {
            self.add(Some(JOURNAL), position, rule, message);
        }
    }

    /// How many findings were ignored.
    pub fn ignored(&self) -> usize {
        self.used.len()
    }

    /// The folder and the journal first, then missing files, migrations, and all other files.
    pub fn sorted(mut self, folder: &MigrationFolder, scan: &FolderScan) -> Vec<Finding> {
        let migrations = scan.migrations.iter().map(|migration| migration.file.as_str());
        let migrations: HashMap<&str, usize> = migrations.zip(3..).collect();
        let is_there = |file: &str| {
            folder.files.contains_key(file) || folder.upper_case.iter().any(|other| other == file)
        };
        let rank = |finding: &Finding| match finding.file.as_deref() {
            None => 0,
            Some(JOURNAL) => 1,
            Some(file) if !is_there(file) => 2,
            Some(file) => migrations.get(file).copied().unwrap_or(usize::MAX),
        };
        self.found
            .sort_by(|a, b| (rank(a), &a.file, a.position).cmp(&(rank(b), &b.file, b.position)));
        self.found
    }
}
