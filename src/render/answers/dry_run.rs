use std::fmt::Write as _;

use serde::Serialize;

use super::check::{ReportedFinding, finding_text};
use super::json_lines;
use crate::apply::dry_run::{DryRun, PlannedMigration, PlannedStep};
use crate::apply::event::RecordKind;
use crate::cli::config::{Format, Style};
use crate::commands::check::{Finding, of_pending};
use crate::render::{json_line, lines, plural};

/// A pending migration, with what its statements do to tables that exist, the worst first.
#[derive(Serialize)]
struct Apply<'a> {
    #[serde(flatten)]
    planned: &'a PlannedMigration,
    findings: Vec<ReportedFinding<'a>>,
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

pub fn dry_run_of(dry_run: &DryRun, style: impl Into<Style>) -> String {
    let Style { format, is_colored } = style.into();
    let DryRun { recorded, applied, pending } = dry_run;
    let hazards = pending.iter().map(|it| (it.file.as_str(), it.hazards.as_slice()));
    let found = of_pending(hazards);
    if format == Format::Text {
        return text(recorded, pending, *applied) + &findings_text(&found, is_colored);
    }
    let mut lines = String::new();
    for (kind, names) in recorded {
        let record = |name: &String| json_line(&Recorded { action: *kind, migration: name });
        lines.extend(names.iter().map(record));
    }
    match pending.is_empty() {
        true => lines + &json_line(&NothingPending { applied: *applied, pending: 0 }),
        false => {
            let applied = pending.iter().map(|planned| {
                let of_file =
                    found.iter().filter(|it| it.file.as_deref() == Some(planned.file.as_str()));
                Apply { planned, findings: of_file.map(ReportedFinding::new).collect() }
            });
            lines + &json_lines(&applied.collect::<Vec<_>>())
        }
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

/// What the migrations do to tables, below the plan.
fn findings_text(found: &[Finding], is_colored: bool) -> String {
    let lines = found.iter().map(|finding| finding_text(finding, is_colored) + "\n");
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
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
