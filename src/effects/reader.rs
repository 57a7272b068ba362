//! Goes through the migrations in order.

use std::collections::{BTreeMap, HashSet};

use squawk_syntax::SyntaxNode;

use super::hazard::{Effect, Hazard, Patch, Work};
use super::schema::{Schema, TableName};
use super::syntax::{self, MOST_TOKENS, Parsed};
use crate::migrations::rule::Rule;
use crate::migrations::steps::Steps;
use crate::sql::{LineColumn, LockMode, Positions, Script};

/// Reads one migration after the other. Those that are not new say what there is when the new ones run: a
/// table exists unless a new migration has created it.
#[derive(Default)]
pub struct Reader {
    schema: Schema,
    /// How many have been read.
    migrations: usize,
    new: New,
    /// The foreign keys that may turn out to have no index, with the numbers of their migrations.
    unindexed: Vec<(usize, super::statement::UnindexedKey)>,
}

/// Which of the migrations that have been read are new.
#[derive(Default)]
enum New {
    /// Not known: each migration is read as if only it were new.
    #[default]
    Unknown,
    /// Their numbers.
    Known(HashSet<usize>),
}

/// The rules whose cure PostgreSQL does not have for a partitioned table.
const NOT_PARTITIONED: [Rule; 3] = [Rule::DropIndexLocks, Rule::UniqueLocks, Rule::PrimaryKeyLocks];
pub(super) const PARTITIONED_CURE: &str =
    "there is no other way for a partitioned table, so do it at a quiet time";

impl Reader {
    /// Reads migrations of which it is known whether they are new.
    pub fn knowing_new() -> Reader {
        Reader { new: New::Known(HashSet::new()), ..Reader::default() }
    }

    /// The hazards of the next migration, in order; none if it is not new.
    pub fn read(&mut self, script: &Script<'_>, steps: &Steps, is_new: bool) -> Vec<Hazard> {
        let number = self.migrations;
        self.migrations += 1;
        if let New::Known(new) = &mut self.new
            && is_new
        {
            new.insert(number);
        }
        let mut file = File {
            number,
            new: &self.new,
            schema: &mut self.schema,
            positions: Positions::new(script.text()),
            statement: 0,
            start: 0,
            found: Vec::new(),
            held: None,
            not_valid: Vec::new(),
            gone_types: HashSet::new(),
            recreated: HashSet::new(),
            unindexed: Vec::new(),
        };
        // Nothing is found where there is no memory for the large stack.
        let read = syntax::with_large_stack(|| {
            file.read(script, steps);
            (file.found, file.unindexed)
        });
        let (found, unindexed) = read.unwrap_or_default();
        if !is_new {
            return Vec::new();
        }
        self.unindexed.extend(unindexed.into_iter().map(|key| (number, key)));
        found.into_iter().map(|found| found.hazard).collect()
    }

    /// What only the last migration decides, by the number of the migration that it is about, from 0.
    pub fn finish(self) -> BTreeMap<usize, Vec<Hazard>> {
        let Reader { schema, unindexed, .. } = self;
        let mut hazards: BTreeMap<usize, Vec<Hazard>> = BTreeMap::new();
        for (number, key) in unindexed {
            if let Some(hazard) = key.hazard(&schema) {
                hazards.entry(number).or_default().push(hazard);
            }
        }
        hazards
    }
}

/// A hazard, and the column that it is about.
pub(super) struct Found {
    pub hazard: Hazard,
    pub column: Option<(TableName, String)>,
}

/// The lock that a transaction keeps until its end.
pub(super) struct Held {
    pub table: TableName,
    pub line: usize,
}

/// A constraint that was added without being checked.
pub(super) struct NotValid {
    pub table: TableName,
    pub constraint: String,
    pub lock: LockMode,
    pub line: usize,
}

/// A migration while it is read.
pub(super) struct File<'r, 't> {
    pub number: usize,
    new: &'r New,
    pub schema: &'r mut Schema,
    positions: Positions<'t>,
    statement: usize,
    /// The byte offset in the file of the statement.
    start: usize,
    pub found: Vec<Found>,
    /// The first one of the transaction.
    pub held: Option<Held>,
    /// Those of the transaction.
    pub not_valid: Vec<NotValid>,
    /// The types that the file drops or renames, and those of them that it creates again.
    pub gone_types: HashSet<TableName>,
    pub recreated: HashSet<TableName>,
    pub unindexed: Vec<super::statement::UnindexedKey>,
}

impl File<'_, '_> {
    fn read(&mut self, script: &Script<'_>, steps: &Steps) {
        let mut ends = steps.all().iter().map(|step| step.statements.end).peekable();
        for (index, statement) in script.statements().iter().enumerate() {
            if ends.next_if(|&end| end <= index).is_some() {
                self.held = None;
                self.not_valid.clear();
            }
            self.statement = index;
            let first = statement.text.split(|c: char| !c.is_ascii_alphabetic()).next();
            let first = first.unwrap_or_default().to_ascii_lowercase();
            if first == "do" {
                for (offset, inner) in statement.inner(&syntax::BEGINNINGS) {
                    self.start = statement.start + offset;
                    self.read_one(inner);
                }
            } else if first == "insert" && (self.held.is_none() || !reads_rows(statement.text)) {
                // A file may have very many of them.
            } else if syntax::BEGINNINGS.contains(&first.as_str())
                || first == "vacuum"
                || first == "with"
            {
                self.start = statement.start;
                self.read_one(statement.text);
            }
        }
    }

    fn read_one(&mut self, text: &str) {
        match syntax::parse(text) {
            Parsed::Statement(statement) => self.statement(&statement, text),
            Parsed::TooLong => {
                let message = format!(
                    "this statement has more than {MOST_TOKENS} words and signs, so it is not read, and nothing is \
                     known of the locks that it takes; `rehearse` shows them"
                );
                let position = self.positions.at(self.start);
                self.add_at(position, Rule::NotRead, None, message, None);
            }
            Parsed::Nothing => {}
        }
    }

    /// Whether a table may have rows, and users, when the new migrations run.
    pub fn exists(&self, table: &TableName) -> bool {
        let Some(table) = self.schema.table(table) else { return true };
        !table.is_temporary && !table.created.is_some_and(|number| self.is_new(number))
    }

    /// Whether a new migration adds the column.
    pub fn is_new_column(&self, table: &TableName, column: &str) -> bool {
        let added = self.schema.column(table, column).and_then(|column| column.added);
        added.is_some_and(|number| self.is_new(number))
    }

    fn is_new(&self, number: usize) -> bool {
        match self.new {
            New::Unknown => number == self.number,
            New::Known(new) => new.contains(&number),
        }
    }

    pub fn position(&mut self, node: &SyntaxNode) -> LineColumn {
        self.positions.at(self.start + syntax::offset(node))
    }

    pub fn statement_index(&self) -> usize {
        self.statement
    }

    /// Notes a hazard that has no effect on a table of its own.
    pub fn note(&mut self, node: &SyntaxNode, rule: Rule, message: String) {
        self.add(node, rule, None, message, None);
    }

    pub fn add(
        &mut self,
        node: &SyntaxNode,
        rule: Rule,
        effect: Option<Effect>,
        message: String,
        patch: Option<Patch>,
    ) {
        let position = self.position(node);
        self.add_at(position, rule, effect, message, patch);
    }

    fn add_at(
        &mut self,
        position: LineColumn,
        rule: Rule,
        effect: Option<Effect>,
        message: String,
        patch: Option<Patch>,
    ) {
        let statement = self.statement;
        let hazard = Hazard { rule, statement, position, effect, message, patch };
        self.found.push(Found { hazard, column: None });
    }

    /// Adds what a command does to a table.
    pub fn affects(
        &mut self,
        node: &SyntaxNode,
        rule: Rule,
        (command, table, lock, work): (&str, &TableName, LockMode, Work),
        cure: &str,
        patch: Option<Patch>,
    ) {
        let effect = Effect { table: table.clone(), lock, work };
        let (cure, patch) =
            match self.schema.is_partitioned(table) && NOT_PARTITIONED.contains(&rule) {
                true => (PARTITIONED_CURE, None),
                false => (cure, patch),
            };
        let message = format!("{command} {}; {cure}", effect.sentence());
        self.add(node, rule, Some(effect), message, patch);
        if work != Work::None {
            self.works(node, table, lock);
        }
    }

    /// Remembers a lock that keeps everyone from a table that exists.
    pub fn holds(&mut self, node: &SyntaxNode, table: &TableName) {
        if self.held.is_none() && self.exists(table) {
            let line = self.position(node).line;
            self.held = Some(Held { table: table.clone(), line });
        }
    }

    /// Long work, under a lock of its own on a table.
    pub fn works(&mut self, node: &SyntaxNode, table: &TableName, lock: LockMode) {
        let Some(Held { table: held, line }) = &self.held else { return };
        if held == table && lock == LockMode::AccessExclusive {
            return;
        }
        let message = format!(
            "line {line} has taken ACCESS EXCLUSIVE on {held}, and nobody reads or writes {held} until this \
             statement is done, too; move one of them to another migration"
        );
        let effect =
            Effect { table: held.clone(), lock: LockMode::AccessExclusive, work: Work::None };
        self.add(node, Rule::LockHeld, Some(effect), message, None);
    }
}

/// Whether an INSERT is of more than the values in its text.
fn reads_rows(insert: &str) -> bool {
    insert.get(..1_000).unwrap_or(insert).to_ascii_lowercase().contains("select")
}
