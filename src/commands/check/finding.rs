//! What a check finds, what of it the files ignore, and the order in which it is shown.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use serde::{Serialize, Serializer};

use crate::apply::failure::line_and_column;
use crate::effects::{
    Effect, Hazard, Patch, Relation, Sizes, TableName, TableSize, Work, gathered, measured,
};
use crate::migrations::layout::FolderScan;
use crate::migrations::rule::{Rule, Severity};
use crate::migrations::source::{JOURNAL, MigrationFolder};
use crate::sql::{LineColumn, LockMode};

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
    /// What the statement does to a table.
    #[serde(flatten, serialize_with = "effect_fields")]
    pub effect: Option<Effect>,
    /// That of the table that it is about, if a database was asked.
    pub size: Option<TableSize>,
    pub patch: Option<Patch>,
}

impl Finding {
    /// What a statement of a migration does.
    pub fn of_statement(file: &str, hazard: Hazard) -> Finding {
        let Hazard { rule, position, effect, size, message, patch, .. } = hazard;
        let (file, position) = (Some(file.to_owned()), Some(position));
        Finding { file, position, rule, message, effect, size, patch }
    }

    /// About a small table, what would be a warning is a note.
    pub fn severity(&self) -> Severity {
        match self.rule.can_block() && !self.can_block() {
            true => Severity::Note,
            false => self.rule.severity(),
        }
    }

    pub fn can_block(&self) -> bool {
        self.rule.can_block() && !self.size.as_ref().is_some_and(TableSize::is_small)
    }

    /// What sorts the worst first of what statements do: warnings before notes, large tables before small
    /// ones, and then what takes longer.
    pub fn harm(&self) -> (bool, Reverse<u64>, u8) {
        let bytes = self.size.as_ref().and_then(|size| size.bytes).unwrap_or_default();
        let work = match self.effect.as_ref().map(|effect| effect.work) {
            None | Some(Work::Rewrite) => 0,
            Some(Work::Scan) => 1,
            Some(Work::None) => 2,
        };
        let is_note = self.severity() == Severity::Note;
        (is_note, Reverse(bytes), if is_note { 0 } else { work })
    }
}

/// The fields are there, and null, where there is no effect.
fn effect_fields<S: Serializer>(effect: &Option<Effect>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields<'a> {
        table: Option<&'a TableName>,
        lock: Option<LockMode>,
        work: Option<Work>,
    }
    let effect = effect.as_ref();
    Fields {
        table: effect.map(|effect| &effect.table),
        lock: effect.map(|effect| effect.lock),
        work: effect.map(|effect| effect.work),
    }
    .serialize(serializer)
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
    /// What the statements of each file do.
    hazards: Vec<(String, Vec<Hazard>)>,
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
        let (effect, size, patch) = (None, None, None);
        self.found.push(Finding { file, position, rule, message, effect, size, patch });
    }

    /// Adds what the statements of a migration do, unless its file ignores it.
    pub fn of_statements(&mut self, file: &str, mut hazards: Vec<Hazard>) {
        hazards.retain(|hazard| !self.is_ignored(file, hazard.rule, Some(hazard.statement)));
        self.hazards.push((file.to_owned(), hazards));
    }

    /// The tables that the statements are about.
    pub fn relations(&self) -> HashSet<&Relation> {
        let hazards = self.hazards.iter().flat_map(|(_, hazards)| hazards);
        hazards.filter_map(|hazard| hazard.relation.as_ref()).collect()
    }

    /// Makes findings of what the statements do, with the sizes of the tables if a database was asked.
    pub fn gather(&mut self, sizes: Option<&Sizes>) {
        for (file, mut hazards) in std::mem::take(&mut self.hazards) {
            if let Some(sizes) = sizes {
                hazards = measured(hazards, sizes);
            }
            let hazards = gathered(hazards).into_iter();
            self.found.extend(hazards.map(|hazard| Finding::of_statement(&file, hazard)));
        }
    }

    /// Leaves of what statements do, and how they are run, the last finding of each rule, which says how many
    /// migrations before have one, too.
    pub fn only_latest_of_statements(&mut self, migrations: &[&str]) {
        let number = |finding: &Finding| {
            let file = finding.file.as_deref();
            migrations.iter().position(|migration| Some(*migration) == file)
        };
        let mut others: HashMap<Rule, usize> = HashMap::new();
        let of_statements =
            |finding: &Finding| finding.rule.is_about_effects() || finding.rule == Rule::Split;
        let (mut statements, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.found).into_iter().partition(of_statements);
        self.found = rest;
        statements.sort_by_key(|finding| std::cmp::Reverse(number(finding)));
        let is_latest = |finding: &Finding| {
            let seen = others.entry(finding.rule);
            let count = seen.and_modify(|count| *count += 1).or_insert(0);
            *count == 0
        };
        statements.retain(is_latest);
        for mut finding in statements {
            match others.get(&finding.rule).copied().unwrap_or_default() {
                0 => {}
                1 => finding.message.push_str(" (an earlier migration has it, too)"),
                count => {
                    finding
                        .message
                        .push_str(&format!(" ({count} earlier migrations have it, too)"));
                }
            }
            self.found.push(finding);
        }
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

    /// Leaves of these files only what is an error.
    pub fn only_errors_of(&mut self, files: &HashSet<&str>) {
        self.used.retain(|ignore| !files.contains(ignore.file.as_str()));
        self.found.retain(|finding| {
            let is_of = finding.file.as_deref().is_some_and(|file| files.contains(file));
            !is_of || finding.severity() == Severity::Error
        });
    }

    /// How many findings were ignored.
    pub fn ignored(&self) -> usize {
        self.used.len()
    }

    /// What is wrong with the files, in their order: the folder and the journal first, then missing files,
    /// migrations, and all other files. Then what their statements do, the worst first.
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
        self.found.sort_by(|a, b| {
            // None comes first.
            let harm = |it: &Finding| it.rule.is_about_effects().then(|| it.harm());
            let key = |it: &Finding| (harm(it), rank(it));
            (key(a), &a.file, a.position).cmp(&(key(b), &b.file, b.position))
        });
        self.found
    }
}

/// What the statements of pending migrations do, the worst first. Each migration is a file and what was found
/// in it.
pub fn of_pending<'a>(migrations: impl Iterator<Item = (&'a str, &'a [Hazard])>) -> Vec<Finding> {
    let findings = migrations.flat_map(|(file, hazards)| {
        let hazards = gathered(hazards.to_vec()).into_iter();
        hazards.map(|hazard| Finding::of_statement(file, hazard))
    });
    let mut findings: Vec<_> = findings.collect();
    findings.sort_by_key(Finding::harm);
    findings
}
