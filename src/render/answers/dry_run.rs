use std::fmt::Write as _;

use serde::Serialize;

use super::json_lines;
use crate::apply::dry_run::{DryRun, PlannedMigration, PlannedStep};
use crate::apply::event::RecordKind;
use crate::cli::config::Format;
use crate::render::{json_line, lines, plural};

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

pub fn dry_run_of(dry_run: &DryRun, format: Format) -> String {
    let DryRun { recorded, applied, pending } = dry_run;
    if format == Format::Text {
        return text(recorded, pending, *applied);
    }
    let mut lines = String::new();
    for (kind, names) in recorded {
        let record = |name: &String| json_line(&Recorded { action: *kind, migration: name });
        lines.extend(names.iter().map(record));
    }
    match pending.is_empty() {
        true => lines + &json_line(&NothingPending { applied: *applied, pending: 0 }),
        false => lines + &json_lines(pending),
    }
}

fn text(
    recorded: &[(RecordKind, Vec<String>)],
    pending: &[PlannedMigration],
    applied: usize,
) -> String {
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

impl PlannedMigration {
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
