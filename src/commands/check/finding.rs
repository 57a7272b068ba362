//! What a check finds, and the order in which it is shown.

use std::collections::HashMap;

use serde::Serialize;

use crate::apply::failure::line_and_column;
use crate::migrations::layout::FolderScan;
use crate::migrations::source::{Files, JOURNAL};
use crate::sql::LineColumn;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// The file's path inside the migrations folder; null for the folder itself.
    pub file: Option<String>,
    #[serde(flatten, serialize_with = "line_and_column")]
    /// `None` where a finding is about the whole file.
    pub position: Option<LineColumn>,
    /// The rule's name, which stays the same when the message is reworded.
    pub rule: &'static str,
    /// What is wrong, and what to do about it.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// `up` refuses the folder, or the migration would fail.
    Error,
    /// It can be applied, but perhaps not with the effect that was meant.
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

#[derive(Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    pub fn error(
        &mut self,
        file: &str,
        position: Option<LineColumn>,
        rule: &'static str,
        message: String,
    ) {
        let (severity, file) = (Severity::Error, Some(file.to_owned()));
        self.0.push(Finding { severity, file, position, rule, message });
    }

    pub fn warning(
        &mut self,
        file: &str,
        position: Option<LineColumn>,
        rule: &'static str,
        message: impl Into<String>,
    ) {
        let (severity, file, message) = (Severity::Warning, Some(file.to_owned()), message.into());
        self.0.push(Finding { severity, file, position, rule, message });
    }

    /// The folder and the journal first, then missing files, migrations, and all other files.
    pub fn sorted(mut self, files: &Files, scan: &FolderScan) -> Vec<Finding> {
        let migrations = scan.migrations.iter().map(|migration| migration.file.as_str());
        let migrations: HashMap<&str, usize> = migrations.zip(3..).collect();
        let rank = |finding: &Finding| match finding.file.as_deref() {
            None => 0,
            Some(JOURNAL) => 1,
            Some(file) if !files.contains_key(file) => 2,
            Some(file) => migrations.get(file).copied().unwrap_or(usize::MAX),
        };
        self.0.sort_by(|a, b| (rank(a), &a.file, a.position).cmp(&(rank(b), &b.file, b.position)));
        self.0
    }
}
