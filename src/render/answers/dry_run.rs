use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::json_lines;
use crate::apply::DryRun;
use crate::cli::config::Format;
use crate::migrations::migration::MigrationSet;
use crate::migrations::prepared::PreparedMigration;
use crate::render::{clean, json_line, plural};

/// What `up` would do, in its order.
struct Actions<'a> {
    accept: Vec<Accept<'a>>,
    apply: Vec<Apply<'a>>,
    /// How many migrations are applied already.
    applied: usize,
}

/// An edited migration whose current content would be accepted.
#[derive(Serialize)]
#[serde(tag = "action", rename = "accept")]
struct Accept<'a> {
    /// Its name.
    migration: &'a str,
}

/// A pending migration that would be applied.
#[derive(Serialize)]
#[serde(tag = "action", rename = "apply")]
struct Apply<'a> {
    /// Its name.
    migration: &'a str,
    /// Its file's path inside the migrations folder.
    file: &'a str,
    /// Whether a migration after it is applied already.
    out_of_order: bool,
    /// How many statements the file has.
    statements: usize,
    /// Why it is split into steps; null if it is not.
    split_reason: Option<String>,
    /// At least one.
    steps: Vec<Step>,
}

/// One transaction, or one statement outside any.
#[derive(Serialize)]
struct Step {
    /// Its number, from 1.
    step: usize,
    /// The statement that runs outside a transaction, such as `VACUUM`; null for a transaction.
    outside_transaction: Option<&'static str>,
    /// How many statements of the file it runs; 0 if it only writes the history row.
    statements: usize,
    /// Whether an earlier run has done it.
    done: bool,
}

pub fn dry_run_of(set: &MigrationSet, dry_run: &DryRun<'_>, format: Format) -> String {
    let actions = Actions::new(set, dry_run);
    match format {
        Format::Text => actions.text(),
        Format::Json if actions.apply.is_empty() => {
            let counts = json!({"applied": actions.applied, "pending": 0});
            json_lines(&actions.accept) + &json_line(&counts)
        }
        Format::Json => json_lines(&actions.accept) + &json_lines(&actions.apply),
    }
}

impl<'a> Actions<'a> {
    fn new(set: &'a MigrationSet, dry_run: &'a DryRun<'_>) -> Actions<'a> {
        let DryRun { accepted, plan, prepared } = dry_run;
        let accept = accepted.iter().map(|migration| Accept { migration });
        let apply = plan.pending.iter().zip(prepared).filter_map(|(pending, prepared)| {
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
        Actions { accept: accept.collect(), apply: apply.collect(), applied: plan.applied }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.accept.is_empty() {
            let count = plural(self.accept.len(), "migration");
            let _ =
                writeln!(text, "would accept the current content of {count}, without running it:");
        }
        for accept in &self.accept {
            let _ = writeln!(text, "  {}", accept.migration);
        }
        let _ = writeln!(
            text,
            "would apply {}, each in its own transaction{}; {} applied already",
            plural(self.apply.len(), "migration"),
            if self.apply.iter().any(Apply::is_split) { " or in the steps shown" } else { "" },
            self.applied
        );
        for apply in &self.apply {
            let _ = writeln!(text, "  {}", apply.text());
            for step in apply.steps.iter().filter(|_| apply.is_split()) {
                let _ = writeln!(text, "    {}", step.text());
            }
        }
        clean(&text)
    }
}

fn steps(prepared: &PreparedMigration<'_>) -> Vec<Step> {
    let steps = (1..).zip(prepared.steps.all());
    let steps = steps.map(|(number, step)| Step {
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
        if let Some(reason) = &self.split_reason {
            let _ = write!(text, " in {}, because {reason}", plural(self.steps.len(), "step"));
        }
        text.push_str(if self.out_of_order { "), out of order" } else { ")" });
        text
    }
}

impl Step {
    fn text(&self) -> String {
        let work = match (self.outside_transaction, self.statements) {
            (Some(statement), _) => format!("{statement}, outside a transaction"),
            (None, 0) => "the history row".to_owned(),
            (None, count) => format!("{} in a transaction", plural(count, "statement")),
        };
        format!("{}. {work}{}", self.step, if self.done { ", done" } else { "" })
    }
}
