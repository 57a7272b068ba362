use std::fmt::Write as _;

use serde::Serialize;

use super::json_lines;
use crate::apply::DryRun;
use crate::apply::event::RecordKind;
use crate::cli::config::Format;
use crate::migrations::migration::MigrationSet;
use crate::migrations::prepared::PreparedMigration;
use crate::render::{json_line, lines, plural};

/// A pending migration that would be applied.
#[derive(Serialize)]
#[serde(tag = "action", rename = "apply")]
struct Apply<'a> {
    migration: &'a str,
    /// Its file's path inside the migrations folder.
    file: &'a str,
    /// Whether a migration after it is applied already.
    out_of_order: bool,
    /// How many statements the file has.
    statements: usize,
    /// Why it is split into steps; null if it is not.
    split_reason: Option<String>,
    steps: Vec<PlannedStep>,
}

/// A migration that would be recorded without running it.
#[derive(Serialize)]
struct Recorded<'a> {
    action: RecordKind,
    migration: &'a str,
}

/// What stands for a plan without a pending migration.
#[derive(Serialize)]
struct NothingPending {
    applied: usize,
    pending: usize,
}

/// One transaction, or one statement outside any.
#[derive(Serialize)]
struct PlannedStep {
    /// From 1.
    step: usize,
    /// The statement that runs outside a transaction, such as `VACUUM`; null for a transaction.
    outside_transaction: Option<&'static str>,
    /// How many statements of the file it runs.
    statements: usize,
    /// Whether an earlier run has done it.
    done: bool,
}

pub fn dry_run_of(set: &MigrationSet, dry_run: &DryRun<'_>, format: Format) -> String {
    let DryRun { recorded, plan, prepared } = dry_run;
    let pending = plan.pending.iter().zip(prepared).filter_map(|(pending, prepared)| {
        let migration = set.get(pending.index)?;
        Some(Apply {
            migration: &migration.name,
            file: &migration.file,
            out_of_order: pending.out_of_order,
            statements: prepared.script.statements().len(),
            split_reason: prepared.steps.split.map(|(reason, _)| reason.to_string()),
            steps: steps(prepared),
        })
    });
    let pending: Vec<_> = pending.collect();
    if format == Format::Text {
        return text(recorded, &pending, plan.applied);
    }
    let mut lines = String::new();
    for (kind, names) in recorded {
        let record = |name: &String| json_line(&Recorded { action: *kind, migration: name });
        lines.extend(names.iter().map(record));
    }
    match pending.is_empty() {
        true => lines + &json_line(&NothingPending { applied: plan.applied, pending: 0 }),
        false => lines + &json_lines(&pending),
    }
}

fn text(recorded: &[(RecordKind, Vec<String>)], pending: &[Apply], applied: usize) -> String {
    let mut text = Vec::new();
    for (kind, names) in recorded {
        let count = plural(names.len(), "migration");
        text.push(match kind {
            RecordKind::Baseline => format!("would record {count} as applied, without running:"),
            RecordKind::Accept => {
                format!("would accept the current content of {count}, without running it:")
            }
        });
        text.extend(names.iter().map(|name| format!("  {name}")));
    }
    if pending.is_empty() {
        text.push(format!("nothing to apply; {applied} applied already"));
        return lines(text);
    }
    text.push(format!(
        "would apply {}, each in its own transaction{}; {applied} applied already",
        plural(pending.len(), "migration"),
        if pending.iter().any(|apply| apply.split_reason.is_some()) { " or as shown" } else { "" },
    ));
    for apply in pending {
        text.push(format!("  {}", apply.text()));
        let steps = apply.steps.iter().filter(|_| apply.is_split());
        text.extend(steps.map(|step| format!("    {}", step.text())));
    }
    lines(text)
}

/// Without a last one that only writes the history row.
fn steps(prepared: &PreparedMigration<'_>) -> Vec<PlannedStep> {
    let steps = (1..).zip(prepared.steps.all()).take(prepared.steps.count());
    let steps = steps.map(|(number, step)| PlannedStep {
        step: number,
        outside_transaction: step.outside_transaction,
        statements: step.statements.len(),
        done: number <= prepared.done,
    });
    steps.collect()
}

impl Apply<'_> {
    fn is_split(&self) -> bool {
        self.steps.len() > 1
    }

    fn text(&self) -> String {
        let mut text = format!("{} ({}", self.migration, plural(self.statements, "statement"));
        match &self.split_reason {
            Some(reason) if self.is_split() => {
                let _ = write!(text, " in {}, because {reason}", plural(self.steps.len(), "step"));
            }
            Some(reason) => {
                let _ = write!(text, ", outside a transaction, because {reason}");
            }
            None => {}
        }
        text.push_str(if self.out_of_order { "), out of order" } else { ")" });
        text
    }
}

impl PlannedStep {
    fn text(&self) -> String {
        let work = match (self.outside_transaction, self.statements) {
            (Some(statement), _) => format!("{statement}, outside a transaction"),
            (None, count) => format!("{} in a transaction", plural(count, "statement")),
        };
        format!("{}. {work}{}", self.step, if self.done { ", done" } else { "" })
    }
}
