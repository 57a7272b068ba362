//! The text of a failed migration: the server's error, the position in the file, and our advice.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::apply::event::StepNumber;
use crate::apply::failure::{Advice, Excerpt, Failure, Phase};
use crate::postgres::server_error::{Position, ServerError};
use crate::sql::LineColumn;

use super::{indented, subject};

pub fn text(failure: &Failure) -> String {
    if failure.phase == Phase::LostTransaction {
        return lost_transaction_text(failure);
    }
    let mut text = format!("{} failed", subject(&failure.migration));
    if let Some(StepNumber { step, of }) = failure.step {
        let _ = write!(text, " in step {step} of {of}");
    }
    if failure.outside_transaction.is_none() {
        text.push_str(" and was rolled back");
    }
    text.push_str("\n\n");
    text.push_str(&server_text(&failure.error));
    let statement = statement_text(failure);
    let _ = match (&failure.file, failure.position) {
        (Some(file), Some(LineColumn { line, column })) => {
            writeln!(text, "  at {file}:{line}:{column}, {statement}")
        }
        (Some(file), None) => writeln!(text, "  {file}, {statement}"),
        (None, _) => writeln!(text, "  {statement}"),
    };
    if let Some(excerpt) = &failure.excerpt {
        let _ = write!(text, "\n{}", excerpt_text(excerpt));
    }
    if let Some(advice) = failure.advice {
        let _ = write!(text, "\n{}", advice_text(advice));
    }
    if let Some(kind @ "CREATE INDEX CONCURRENTLY") = failure.outside_transaction {
        let _ = write!(text, "\n  {}.\n", left_by(kind));
    }
    text.trim_end().to_owned()
}

/// Without the server's error, which is about a guard of ours.
fn lost_transaction_text(failure: &Failure) -> String {
    format!(
        "{} ended its own transaction and was not recorded\n\n  Part of it may be committed: inspect \
         the database and repair it by hand.",
        subject(&failure.migration),
    )
}

/// The statement that failed, or else the part of the transaction.
fn statement_text(failure: &Failure) -> String {
    match (failure.statement, failure.phase) {
        (Some(statement), _) => format!("statement {statement} of {}", failure.statements),
        (None, Phase::Repair) => "while repairing what an earlier attempt left".to_owned(),
        (None, Phase::Begin) => "at the start of its transaction".to_owned(),
        (None, Phase::Replay) => "at a setting of an earlier step".to_owned(),
        (None, Phase::Statement) => format!("in one of {} statements", failure.statements),
        (None, Phase::Deferred) => "at its end, where deferred constraints are checked".to_owned(),
        (None, Phase::Record | Phase::LostTransaction) => "at its history row".to_owned(),
        (None, Phase::Commit) => "at COMMIT".to_owned(),
    }
}

fn advice_text(advice: Advice) -> &'static str {
    match advice {
        Advice::Baseline => {
            "  The history is empty, but the objects exist already. If the database was created by \
             other means,\n  run `premigrate baseline --through NAME` to record what it has.\n"
        }
        Advice::NoTransaction => {
            "  This statement cannot share a transaction with the others. Add the line\n\n    \
             -- premigrate: no-transaction\n\n  to the file. Each statement then runs, and is \
             recorded, on its own.\n"
        }
    }
}

/// What remains of a statement outside a transaction that did not finish.
pub fn left_by(kind: &str) -> &'static str {
    match kind {
        "CREATE INDEX CONCURRENTLY" => {
            "A concurrent build cannot be rolled back. It may leave an invalid index, which the next \
             run drops and builds again if the statement names it"
        }
        "REINDEX CONCURRENTLY" => {
            "It cannot be rolled back. It may leave invalid indexes named ..._ccnew or ..._ccold, \
             which the next run lists once it has repeated the statement"
        }
        _ => {
            "It cannot be rolled back. The next run repeats it if that is safe, and otherwise stops \
             and prints SQL for both cases"
        }
    }
}

/// The server's error with all its fields, as psql shows them.
fn server_text(error: &ServerError) -> String {
    let mut text = format!("  {} {}: {}\n", error.severity, error.code, indented(&error.message));
    if let Some(Position::InInternalQuery { query, position }) = &error.position {
        let before: String = query.chars().take(position.saturating_sub(1)).collect();
        let line = query.lines().nth(before.matches('\n').count()).unwrap_or_default();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let _ = writeln!(text, "  QUERY: {line}\n         {}^", " ".repeat(column));
    }
    for (name, value) in [
        ("DETAIL", &error.detail),
        ("HINT", &error.hint),
        ("CONTEXT", &error.context),
        ("SCHEMA", &error.schema),
        ("TABLE", &error.table),
        ("COLUMN", &error.column),
        ("DATATYPE", &error.datatype),
        ("CONSTRAINT", &error.constraint),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name}: {}", indented(value));
        }
    }
    text
}

/// How many characters of a line are shown before and after the caret.
const BEFORE: usize = 60;
const AFTER: usize = 60;

fn excerpt_text(excerpt: &Excerpt) -> String {
    let width = excerpt.lines.last().map_or(0, |line| line.number.to_string().len()).max(3);
    let column = excerpt.caret.unwrap_or(1);
    // A line may be a megabyte of data. All lines are cut alike, so that the caret stays in place.
    let skipped = column.saturating_sub(1 + BEFORE);
    let mut text = String::new();
    for line in &excerpt.lines {
        let shown: String = line
            .text
            .chars()
            .skip(skipped)
            .take(BEFORE + AFTER)
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect();
        let _ = writeln!(text, "  {:>width$} | {}", line.number, shown.trim_end());
    }
    if excerpt.caret.is_some() {
        let _ = writeln!(text, "  {:width$} | {}^", "", " ".repeat(column - 1 - skipped));
    }
    text
}

impl Serialize for Advice {
    /// A code for programs, and the sentence, which is kept here.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let words: Vec<_> = advice_text(*self).split_whitespace().collect();
        json!({"code": self.code(), "message": words.join(" ")}).serialize(serializer)
    }
}
