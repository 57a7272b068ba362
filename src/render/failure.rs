//! A migration that failed: the server's words, whole, and the place in the file.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::apply::event::{Advice, Excerpt, Failure, Phase, StepNumber};
use crate::postgres::server_error::{Position, ServerError};
use crate::sql::redact;

use super::{indented, object, subject};

/// In words.
pub fn text(failure: &Failure) -> String {
    if failure.phase == Phase::LostTransaction {
        // What the server says here is about a guard of ours.
        let advice = failure.advice.map(|advice| format!("\n\n{}", advice_text(advice)));
        return format!(
            "{} ended its own transaction, and is not recorded\n\n  A statement of it has \
             committed or rolled back what came before, unseen by us:\n  look what stands, and \
             repair it by hand.{}",
            subject(&failure.migration),
            advice.unwrap_or_default().trim_end()
        );
    }
    let rolled_back =
        if failure.outside_transaction.is_none() { " and was rolled back" } else { "" };
    let step = match failure.reached {
        Some(StepNumber { step, of }) => format!(" in step {step} of {of}"),
        None => String::new(),
    };
    let mut text = format!("{} failed{step}{rolled_back}\n\n", subject(&failure.migration));
    text.push_str(&server_text(&failure.error));
    let statement = match failure.statement {
        Some(statement) => format!("statement {statement} of {}", failure.statements),
        None => match failure.phase {
            Phase::Begin => "at the begin of its transaction".to_owned(),
            Phase::Replay => "at the settings of the steps before".to_owned(),
            Phase::Statement => format!("in one of {} statements", failure.statements),
            Phase::Deferred => "at its end, where deferred constraints are checked".to_owned(),
            Phase::LostTransaction => "at its end".to_owned(),
            Phase::Record => "at its history row".to_owned(),
            Phase::Commit => "at COMMIT".to_owned(),
        },
    };
    let _ = match (&failure.file, failure.place) {
        (Some(file), Some((line, column))) => {
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
    if let Some(what @ "CREATE INDEX CONCURRENTLY") = failure.outside_transaction {
        let _ = write!(text, "\n  {}.\n", left_by(what));
    }
    text.trim_end().to_owned()
}

fn advice_text(advice: Advice) -> &'static str {
    match advice {
        Advice::Baseline => {
            "  The history is empty, but the objects exist. If the database was made by other \
             means,\n  `premigrate baseline --through NAME` records what it has already.\n"
        }
        Advice::NoTransaction => {
            "  This cannot run with the rest in one transaction. Put the line\n\n    \
             -- premigrate: no-transaction\n\n  into the file: then each statement is run, and \
             recorded, by itself.\n"
        }
    }
}

/// What a statement leaves that ended before its end, outside a transaction.
pub fn left_by(what: &str) -> &'static str {
    match what {
        "CREATE INDEX CONCURRENTLY" => {
            "A concurrent build cannot be rolled back: it may leave an INVALID index, which the \
             next start drops and builds again if it is named"
        }
        "REINDEX CONCURRENTLY" => {
            "It cannot be rolled back: it may leave INVALID indexes, named ..._ccnew or ..._ccold; \
             the next start does it again, and names them"
        }
        _ => "It cannot be rolled back; the next start looks what became of it",
    }
}

/// The server's words, whole, as psql has them.
fn server_text(error: &ServerError) -> String {
    let mut text = format!("  {} {}: {}\n", error.severity, error.code, indented(&error.message));
    if let Some(Position::InInternalQuery { query, position }) = &error.position {
        let before: String = query.chars().take(position.saturating_sub(1)).collect();
        let (before, query) = (redact::passwords(&before), redact::passwords(query));
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let queried = query.lines().nth(line).unwrap_or_default();
        let _ = writeln!(text, "  QUERY: {queried}\n         {}^", " ".repeat(column));
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

/// How much of a line is shown before and after the caret.
const BEFORE: usize = 60;
const AFTER: usize = 60;

fn excerpt_text(excerpt: &Excerpt) -> String {
    let width = excerpt.lines.last().map_or(0, |(number, _)| number.to_string().len()).max(3);
    let column = excerpt.caret.unwrap_or(1);
    // A line may be a megabyte of data: both lines are cut alike, so that the caret stays true.
    let skipped = column.saturating_sub(1 + BEFORE);
    let mut text = String::new();
    for (number, line) in &excerpt.lines {
        let shown: String = line
            .chars()
            .skip(skipped)
            .take(BEFORE + AFTER)
            .map(|c| if c == '\t' { ' ' } else { c })
            .collect();
        let _ = writeln!(text, "  {number:>width$} | {}", shown.trim_end());
    }
    if excerpt.caret.is_some() {
        let _ = writeln!(text, "  {:width$} | {}^", "", " ".repeat(column - 1 - skipped));
    }
    text
}

/// As an object.
pub fn json(failure: &Failure) -> Map<String, Value> {
    let error = &failure.error;
    let (query, position) = match &error.position {
        Some(Position::InInternalQuery { query, position }) => (Some(query), Some(position)),
        Some(Position::InStatement(_)) | None => (None, None),
    };
    let excerpt = failure.excerpt.as_ref().map(|excerpt| {
        let lines = excerpt.lines.iter();
        lines.map(|(line, text)| json!({ "line": line, "text": text })).collect::<Vec<_>>()
    });
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    object(json!({
        "event": "failed",
        "migration": failure.migration,
        "file": failure.file,
        "line": failure.place.map(|(line, _)| line),
        "column": failure.place.map(|(_, column)| column),
        "statement": failure.statement,
        "statements": failure.statements,
        "unit": failure.reached.map(|reached| reached.step),
        "units": failure.reached.map(|reached| reached.of),
        "alone": failure.outside_transaction,
        "phase": match failure.phase {
            Phase::Begin => "begin",
            Phase::Replay => "replay",
            Phase::Statement => "statement",
            Phase::Deferred => "deferred",
            Phase::LostTransaction => "lost_transaction",
            Phase::Record => "record",
            Phase::Commit => "commit",
        },
        "severity": error.severity,
        "sqlstate": error.code,
        "message": error.message,
        "detail": error.detail,
        "hint": error.hint,
        "where": error.context,
        "schema": error.schema,
        "table": error.table,
        "column_name": error.column,
        "datatype": error.datatype,
        "constraint": error.constraint,
        "query": query,
        "query_position": position,
        "excerpt": excerpt,
        "caret": failure.excerpt.as_ref().and_then(|excerpt| excerpt.caret),
        "advice": failure.advice.map(|advice| words(advice_text(advice))),
    }))
}
