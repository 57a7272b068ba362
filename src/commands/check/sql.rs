//! What a check finds in the SQL of one migration.

use std::collections::BTreeSet;

use super::finding::{Findings, Ignore};
use super::{BOM, is_blank, is_template, text};
use crate::effects;
use crate::history::table::Table;
use crate::migrations::ignore;
use crate::migrations::migration::Migration;
use crate::migrations::prepared::{self, Reason};
use crate::migrations::rule::Rule;
use crate::migrations::steps::Steps;
use crate::sql::invisible::{self, Invisible};
use crate::sql::settings::{SettingsInEffect, changes_meaning};
use crate::sql::{
    Change, IgnoredMarker, Kind, LineColumn, MARKER, NewValues, Positions, Script, Touch,
};

/// Checks the SQL of one migration, for a history in this table.
pub fn check(
    migration: &Migration,
    is_new: bool,
    table: &Table,
    effects: &mut effects::Reader,
    findings: &mut Findings,
) {
    let file = migration.file.as_str();
    match migration.sql() {
        Err(reason @ (Reason::NotUtf8 { offset } | Reason::HasNul { offset })) => {
            let before = migration.content().unwrap_or_default().get(..offset).unwrap_or_default();
            let before = String::from_utf8_lossy(before);
            let position = LineColumn::at(&before, before.len());
            findings.not_runnable(file, Some(position), &reason);
        }
        // The rest of it is no text.
        Err(reason) => {
            let empty = Script::parse("");
            findings.of_statements(file, effects.read(&empty, &Steps::split(&empty), is_new));
            return findings.not_runnable(file, None, &reason);
        }
        Ok(_) => {}
    }
    let text = text(migration);
    let script = Script::parse(&text);
    findings.read_ignores(file, &script);
    if text.starts_with(BOM) {
        findings.byte_order_mark(file);
    }
    let steps = Steps::split(&script);
    for (position, reason) in prepared::reasons(&text, &script, &steps) {
        findings.not_runnable(file, Some(position), &reason);
    }
    let positions = Positions::new(&text);
    let mut check = Check { file, positions, script: &script, steps: &steps, findings };
    check.no_statement();
    check.split();
    check.unterminated();
    check.markers();
    check.settings();
    check.lost_set_local();
    check.enum_values();
    check.invisible_characters();
    let of_history = check.history_changes(table);
    let mut hazards = effects.read(&script, &steps, is_new);
    hazards.retain(|hazard| !of_history.contains(&hazard.statement));
    findings.of_statements(file, hazards);
}

/// Checks the directives of a file that is never run.
pub fn check_unused(file: &str, text: &str, findings: &mut Findings) {
    let script = Script::parse(text);
    findings.read_ignores(file, &script);
    let mut positions = Positions::new(text);
    for (offset, problem) in ignore::problems(&script) {
        let position = positions.at(offset);
        findings.not_runnable(file, Some(position), &Reason::Directive(problem));
    }
}

impl Findings {
    fn not_runnable(&mut self, file: &str, position: Option<LineColumn>, reason: &Reason) {
        self.add(Some(file), position, reason.rule(), format!("the file {reason}"));
    }

    fn read_ignores(&mut self, file: &str, script: &Script<'_>) {
        for (rule, statement) in ignore::ignores(script) {
            self.ignore(Ignore { file: file.to_owned(), rule, statement });
        }
    }
}

struct Check<'a> {
    file: &'a str,
    positions: Positions<'a>,
    script: &'a Script<'a>,
    steps: &'a Steps,
    findings: &'a mut Findings,
}

impl Check<'_> {
    fn add_at(&mut self, offset: usize, rule: Rule, message: String) {
        let position = self.positions.at(offset);
        self.findings.add(Some(self.file), Some(position), rule, message);
    }

    /// Adds what no directive ignores.
    fn warn_at(&mut self, offset: usize, rule: Rule, message: String) {
        if !self.is_ignored(offset, rule) {
            self.add_at(offset, rule, message);
        }
    }

    fn is_ignored(&mut self, offset: usize, rule: Rule) -> bool {
        let statement = self.script.statement_at(offset);
        self.findings.is_ignored(self.file, rule, statement)
    }

    fn split(&mut self) {
        let Some((reason, index)) = self.steps.split else { return };
        // What is done outside of a transaction is done or not, if it is alone.
        let count @ 2.. = self.steps.count() else { return };
        let message = format!(
            "the file runs in {count} steps, each recorded when it is done, because {reason}"
        );
        match index.and_then(|index| self.script.statements().get(index)) {
            Some(first) => self.warn_at(first.start, Rule::Split, message),
            None => self.findings.of_file(self.file, Rule::Split, message),
        }
    }

    fn no_statement(&mut self) {
        // What is blank, a template or never closed has a finding of its own.
        let text = self.script.text();
        let is_known = is_blank(text) || is_template(text);
        let is_open = self.script.unterminated().is_some();
        if self.script.statements().is_empty() && !is_known && !is_open {
            self.findings.of_file(
                self.file,
                Rule::NoStatement,
                "the file contains no SQL statement, but is recorded as applied, and SQL that is \
                 added to it later will not run; write its SQL first, or, if the database already \
                 has what it describes, record it with `baseline`",
            );
        }
    }

    fn unterminated(&mut self) {
        if let Some((token, offset)) = self.script.unterminated() {
            let message = format!("this {token} is never closed; close it");
            self.add_at(offset, Rule::Unterminated, message);
        }
    }

    /// Markers at which drizzle-orm splits and premigrate does not, and what only resembles one.
    fn markers(&mut self) {
        let mut inside = Vec::new();
        // After a quote that is never closed, everything is inside it.
        let end = self.script.unterminated().map_or(usize::MAX, |(_, offset)| offset);
        let markers = self.script.ignored_markers().iter();
        for &(offset, marker) in markers.filter(|(offset, _)| *offset < end) {
            match marker {
                IgnoredMarker::AlmostMarker => {
                    let message = format!(
                        "this resembles `{MARKER}`, but neither premigrate nor Drizzle splits here; \
                         write it exactly like that or remove it, unless the file is applied already"
                    );
                    self.warn_at(offset, Rule::AlmostMarker, message);
                }
                IgnoredMarker::Inside(token) => {
                    if !self.is_ignored(offset, Rule::MarkerInside) {
                        inside.push((offset, token));
                    }
                }
            }
        }
        if let Some((&(offset, token), more)) = inside.split_first() {
            let more = more_text(more.len());
            let message = format!(
                "this `{MARKER}` is inside {token}{more}: premigrate ignores it, but drizzle-orm \
                 splits there and fails; remove it unless the file is applied already"
            );
            self.add_at(offset, Rule::MarkerInside, message);
        }
    }

    /// Returns the indexes of the statements that change the history.
    fn history_changes(&mut self, table: &Table) -> BTreeSet<usize> {
        let mut indexes = BTreeSet::new();
        for (index, statement) in self.script.statements().iter().enumerate() {
            for change in statement.changes() {
                let Some(object) = history_object(&change, table) else { continue };
                indexes.insert(index);
                let message = match change.touch {
                    Touch::Create => format!(
                        "this statement creates {object}, which holds the history; remove it, \
                         because premigrate and Drizzle create it themselves"
                    ),
                    Touch::Alter => format!(
                        "this statement alters {object}, which holds the history; remove it"
                    ),
                    Touch::Drop => {
                        format!("this statement drops {object}, which holds the history; remove it")
                    }
                    Touch::Write => format!(
                        "this statement writes to the history, {object}; remove it and use \
                         `baseline` or `accept`"
                    ),
                };
                self.warn_at(statement.start, Rule::ChangesHistory, message);
            }
        }
        indexes
    }

    /// Settings that decide what later SQL means, and that are set and not reset.
    fn settings(&mut self) {
        let mut in_effect = SettingsInEffect::none();
        let statements = self.script.statements().iter();
        for statement in statements.filter(|statement| statement.kind == Kind::Setting) {
            in_effect.add(statement.set_statement(), statement.start);
        }
        let leftover = in_effect.changed().filter_map(|(set, &offset)| Some((&*set?.name, offset)));
        let leftover: Vec<(&str, usize)> = leftover
            .filter(|&(name, offset)| {
                changes_meaning(name) && !self.is_ignored(offset, Rule::LeftoverSettings)
            })
            .collect();
        if let Some(&(_, offset)) = leftover.first() {
            let names: Vec<_> = leftover.into_iter().map(|(name, _)| name).collect();
            let cure = match self.steps.all() {
                [_] => "use SET LOCAL in each migration that needs them",
                // The transaction of SET LOCAL would end with its step.
                _ => {
                    "set them in each migration that needs them, and RESET them at the end of this \
                     one, because SET LOCAL would end with its step"
                }
            };
            let message = format!(
                "the file leaves {} set, but no migration inherits settings from another; {cure}",
                names.join(", ")
            );
            self.add_at(offset, Rule::LeftoverSettings, message);
        }
    }

    /// Each SET LOCAL after which its step has only settings, while another step has more to run.
    fn lost_set_local(&mut self) {
        let statements = self.script.statements();
        let steps = self.steps.all().iter().filter(|step| !step.statements.is_empty());
        let last = steps.clone().next_back().map_or(0, |last| last.statements.start);
        for step in steps.take_while(|step| step.statements.start < last) {
            let of_step = statements.range(step.statements.clone()).iter().rev();
            let settings: Vec<_> = of_step
                .take_while(|statement| statement.is_set_local() || statement.kind == Kind::Setting)
                .collect();
            for statement in settings.iter().rev().filter(|statement| statement.is_set_local()) {
                let message = "this SET LOCAL has no effect, because its transaction ends before \
                               the next statement; use SET, and RESET at the end of the file";
                self.warn_at(statement.start, Rule::LostSetLocal, message.to_owned());
            }
        }
    }

    /// Characters that cannot be seen: the first of each, with how many more there are.
    fn invisible_characters(&mut self) {
        let mut firsts: Vec<(Rule, Invisible, usize, usize)> = Vec::new();
        let statements = self.script.statements().iter();
        for statement in statements.filter(|statement| statement.kind != Kind::PsqlCommand) {
            for place in invisible::in_words(statement.text) {
                let rule = match place.is_syntax_error {
                    true => Rule::InvisibleSyntaxError,
                    false => Rule::InvisibleCharacter,
                };
                let offset = statement.start + place.offset;
                if self.is_ignored(offset, rule) {
                    continue;
                }
                let mut known = firsts.iter_mut();
                match known.find(|first| (first.0, first.1) == (rule, place.invisible)) {
                    Some((.., more)) => *more += 1,
                    None => firsts.push((rule, place.invisible, offset, 0)),
                }
            }
        }
        for (rule, invisible, offset, more) in firsts {
            let more = more_text(more);
            let effect = match rule {
                Rule::InvisibleSyntaxError => "PostgreSQL rejects the statement for it",
                _ => "to PostgreSQL it is a letter of the word, and no space",
            };
            let message = format!(
                "{invisible} is here{more}, which cannot be seen, but {effect}; remove it, or \
                 replace it by a space"
            );
            self.add_at(offset, rule, message);
        }
    }

    /// Statements that may use a value which the same transaction has added to an enum. PostgreSQL
    /// 17 and later accept that if the transaction has also created the enum; others never do.
    fn enum_values(&mut self) {
        let mut added = NewValues::of(self.script);
        for step in self.steps.all() {
            added.clear();
            let statements = self.script.statements().range(step.statements.clone());
            for (index, statement) in step.statements.clone().zip(statements.iter()) {
                if statement.kind == Kind::AddEnumValue {
                    added.add(index, &statement);
                    continue;
                }
                for value in added.take_used(&statement) {
                    let message = format!(
                        "line {} adds {} to an enum, and the value cannot be used until that is \
                         committed (55P04); if this statement uses it, move the statement to the \
                         next migration",
                        self.positions.at(value.start).line,
                        value.literal
                    );
                    self.warn_at(statement.start, Rule::NewEnumValue, message);
                }
            }
        }
    }
}

/// How many more there are, where only the first one is reported.
fn more_text(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" ({count} more in the file)"),
    }
}

/// The history's table or schema, if that is what the statement changes. An unqualified name counts
/// only if the history is in `public`: elsewhere it is more likely another table's.
fn history_object(change: &Change, table: &Table) -> Option<String> {
    let (schema, name) = (table.schema(), table.name());
    let is = |parts: &[&str]| change.name.iter().rev().zip(parts).all(|(a, b)| a == b);
    if change.schema {
        return is(&[schema]).then(|| format!("the schema {schema}"));
    }
    let is_qualified = change.name.len() > 1 || schema == "public";
    (is_qualified && is(&[name, schema])).then(|| format!("the table {table}"))
}
