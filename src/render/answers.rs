//! Answers to questions, for stdout: what is carried, what would run, how it stands, what is wrong.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::apply::DryRun;
use crate::apply::event::StepsDone;
use crate::cli::config::Format;
use crate::commands::check::{CheckReport, Finding, Severity};
use crate::commands::status::{Line, MigrationState, Status};
use crate::migrations::migration::MigrationSet;
use crate::migrations::prepared::PreparedMigration;
use crate::migrations::source::Origin;
use crate::migrations::steps::{Step, Steps};

use super::{clean, line, object, plural};

/// What is carried, for stdout.
pub fn list_of(set: &MigrationSet, origin: &Origin, format: Format) -> String {
    let migrations = set.migrations().iter().zip(1..);
    match format {
        Format::Text => {
            let names = set.migrations().iter().map(|migration| migration.name.chars().count());
            let width = names.max().unwrap_or_default();
            let count = plural(set.migrations().len(), "migration");
            let mut text = format!("{count} in {origin} ({})\n", set.layout());
            for (migration, place) in migrations {
                let _ = writeln!(
                    text,
                    "{place:>4}  {:width$}  {}  {:>9}",
                    migration.name,
                    migration.hash,
                    plural(migration.size(), "byte"),
                );
            }
            clean(&text)
        }
        Format::Json if set.migrations().is_empty() => line(object(json!({
            "migrations": 0,
            "layout": set.layout().to_string(),
            "from": origin.to_string(),
        }))),
        Format::Json => migrations
            .map(|(migration, place)| {
                line(object(json!({
                    "migration": migration.name,
                    "place": place,
                    "file": migration.file,
                    "hash": migration.hash.as_str(),
                    "bytes": migration.size(),
                    "when": migration.when,
                    "layout": set.layout().to_string(),
                    "from": origin.to_string(),
                })))
            })
            .collect(),
    }
}

/// What `up` would do, for stdout.
pub fn prospect_of(set: &MigrationSet, prospect: &DryRun<'_>, format: Format) -> String {
    let DryRun { accepted, plan, fit } = prospect;
    let pending = plan.pending.iter().zip(fit);
    let pending =
        pending.filter_map(|(pending, fit)| Some((pending, fit, set.get(pending.place)?)));
    match format {
        Format::Text => {
            let has_steps = fit.iter().any(|fit| fit.steps.is_split());
            let mut text = String::new();
            if !accepted.is_empty() {
                let _ = writeln!(
                    text,
                    "would accept {} as now in the file, not run:\n  {}",
                    plural(accepted.len(), "migration"),
                    accepted.join("\n  ")
                );
            }
            let _ = writeln!(
                text,
                "would apply {}, each in a transaction of its own{}; {} applied",
                plural(plan.pending.len(), "migration"),
                if has_steps { " or in the steps below it" } else { "" },
                plan.applied
            );
            for (pending, fit, migration) in pending {
                let _ = writeln!(
                    text,
                    "  {} ({}{}){}",
                    migration.name,
                    plural(fit.script.statements().len(), "statement"),
                    cut_text(&fit.steps),
                    if pending.out_of_order { ", out of order" } else { "" }
                );
                for (number, step) in steps(fit) {
                    let done = if number <= fit.done { ", done" } else { "" };
                    let _ = writeln!(text, "    {number}. {}{done}", step_text(step));
                }
            }
            clean(&text)
        }
        Format::Json => {
            let accepted = accepted
                .iter()
                .map(|migration| line(object(json!({ "migration": migration, "accepted": true }))));
            let nothing = plan
                .pending
                .is_empty()
                .then(|| line(object(json!({ "pending": 0, "applied": plan.applied }))));
            let pending = pending.map(|(pending, fit, migration)| {
                let steps = steps(fit).map(|(number, step)| {
                    json!({
                        "step": number,
                        "alone": step.outside_transaction,
                        "statements": step.statements.len(),
                        "done": number <= fit.done,
                    })
                });
                line(object(json!({
                    "migration": migration.name,
                    "file": migration.file,
                    "out_of_order": pending.out_of_order,
                    "statements": fit.script.statements().len(),
                    "units": fit.steps.all().len(),
                    "done": fit.done,
                    "transaction": !fit.steps.is_split(),
                    "why": fit.steps.why.map(|(_, why)| why.to_string()),
                    "steps": steps.collect::<Vec<_>>(),
                })))
            });
            accepted.chain(nothing).chain(pending).collect()
        }
    }
}

/// The steps of what has several, by number.
fn steps<'f>(fit: &'f PreparedMigration<'_>) -> impl Iterator<Item = (usize, &'f Step)> {
    (1..).zip(fit.steps.all()).filter(|_| fit.steps.is_split())
}

/// In how many steps, and why.
fn cut_text(steps: &Steps) -> String {
    let count = steps.all().len();
    match steps.why {
        Some((_, why)) => format!(", in {count} steps, since {why}"),
        None => String::new(),
    }
}

fn step_text(step: &Step) -> String {
    match (step.outside_transaction, step.statements.len()) {
        (Some(what), _) => format!("{what}, outside a transaction"),
        (None, 0) => "the history's row".to_owned(),
        (None, count) => format!("{} in a transaction", plural(count, "statement")),
    }
}

/// How everything stands, for stdout.
pub fn status_of(status: &Status, format: Format) -> String {
    let state = |line: &Line| match line.state {
        MigrationState::Applied => "applied".to_owned(),
        MigrationState::Edited => "edited".to_owned(),
        MigrationState::Ambiguous => "ambiguous".to_owned(),
        MigrationState::Partial(StepsDone { done, of }) => format!("partial ({done} of {of})"),
        MigrationState::Pending => "pending".to_owned(),
        MigrationState::OutOfOrder => "pending, out of order".to_owned(),
    };
    if format == Format::Json {
        if status.is_empty() {
            return line(object(json!({ "applied": 0, "edited": 0, "pending": 0 })));
        }
        let lines = status.lines.iter().map(|it| {
            line(object(json!({
                "migration": it.migration,
                "state": state(it),
                "applied_at": it.applied_at,
                "seconds_ago": it.ago.map(|ago| ago.as_secs()),
            })))
        });
        let rows = |kind: &str, rows: &[String]| -> Vec<String> {
            rows.iter().map(|row| line(object(json!({ "row": row, "state": kind })))).collect()
        };
        return lines
            .chain(rows("duplicate", &status.duplicates))
            .chain(rows("ambiguous", &status.ambiguous))
            .chain(rows("unknown", &status.unknown))
            .collect();
    }
    let names = status.lines.iter().map(|line| line.migration.chars().count());
    let width = names.max().unwrap_or_default();
    let mut text = String::new();
    for line in &status.lines {
        let mut shown = format!("{:width$}  {}", line.migration, state(line));
        if let Some(applied_at) = &line.applied_at {
            // ISO 8601 without fractions of a second.
            let (at, rest) = applied_at.split_at_checked(19).unwrap_or((applied_at, ""));
            let offset = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            let _ = write!(shown, "  {}{offset}", at.replace('T', " "));
        }
        if let Some(ago) = line.ago {
            let _ = write!(shown, "  ({} ago)", about(ago));
        }
        let _ = writeln!(text, "{shown}");
    }
    for (rows, what) in [
        (&status.duplicates, "recorded more than once"),
        (&status.ambiguous, "could be the record of several migrations"),
        (&status.unknown, "known to the database, not carried"),
    ] {
        for row in rows {
            let _ = writeln!(text, "{row}: {what}");
        }
    }
    let count = |wanted: fn(MigrationState) -> bool| {
        status.lines.iter().filter(|line| wanted(line.state)).count()
    };
    let _ = write!(
        text,
        "{} applied, {} edited, {} pending",
        count(|state| state == MigrationState::Applied),
        count(|state| state == MigrationState::Edited),
        count(MigrationState::is_pending),
    );
    match count(|state| state == MigrationState::Ambiguous) {
        0 => text.push('\n'),
        ambiguous => drop(writeln!(text, ", {ambiguous} ambiguous")),
    }
    clean(&text)
}

/// A time in its largest unit.
fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => plural_u64(seconds, "second"),
        60..3600 => plural_u64(seconds / 60, "minute"),
        3600..86_400 => plural_u64(seconds / 3600, "hour"),
        _ => plural_u64(seconds / 86_400, "day"),
    }
}

fn plural_u64(count: u64, one: &str) -> String {
    plural(usize::try_from(count).unwrap_or(usize::MAX), one)
}

/// The files that `new` made, for stdout.
pub fn created(paths: &[PathBuf], format: Format) -> String {
    let shown = paths.iter().map(|path| path.display().to_string());
    match format {
        Format::Text => shown.map(|path| format!("{}\n", clean(&path))).collect(),
        Format::Json => shown.map(|path| line(object(json!({ "created": path })))).collect(),
    }
}

/// What there is to say of the carried set, for stdout.
pub fn check_of(checked: &CheckReport, format: Format) -> String {
    match format {
        Format::Text => {
            let mut text = String::new();
            for finding in &checked.findings {
                let _ = writeln!(text, "{}", finding_text(finding));
            }
            let counts: Vec<_> = [(Severity::Error, "fault"), (Severity::Warning, "remark")]
                .into_iter()
                .map(|(severity, word)| (checked.count(severity), word))
                .filter(|(count, _)| *count > 0)
                .map(|(count, word)| plural(count, word))
                .collect();
            let migrations = plural(checked.migrations, "migration");
            if counts.is_empty() {
                let _ = writeln!(text, "{migrations}, nothing to say");
            } else {
                let _ = writeln!(text, "\n{} in {migrations}", counts.join(", "));
            }
            clean(&text)
        }
        Format::Json if checked.findings.is_empty() => {
            line(object(json!({ "migrations": checked.migrations, "faults": 0, "remarks": 0 })))
        }
        Format::Json => checked
            .findings
            .iter()
            .map(|finding| {
                line(object(json!({
                    "severity": severity(finding),
                    "file": finding.file,
                    "line": finding.place.map(|(line, _)| line),
                    "column": finding.place.map(|(_, column)| column),
                    "what": finding.what.code(),
                    "message": clean(&sentence(finding)),
                })))
            })
            .collect(),
    }
}

fn finding_text(finding: &Finding) -> String {
    let mut place = finding.file.clone();
    if let Some((line, column)) = finding.place {
        let _ = write!(place, ":{line}:{column}");
    }
    if !place.is_empty() {
        place.push_str(": ");
    }
    format!("{place}{}: {}", severity(finding), sentence(finding))
}

fn severity(finding: &Finding) -> &'static str {
    match finding.what.severity() {
        Severity::Error => "fault",
        Severity::Warning => "remark",
    }
}

/// Without the file's name, where it begins with it: it stands before it already.
fn sentence(finding: &Finding) -> String {
    let sentence = finding.what.to_string();
    match sentence.strip_prefix(&finding.file).and_then(|rest| rest.strip_prefix(' ')) {
        Some(rest) if !finding.file.is_empty() => rest.to_owned(),
        _ => sentence,
    }
}
