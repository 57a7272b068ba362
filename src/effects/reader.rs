//! Goes through the migrations in order.

use std::collections::{BTreeMap, HashSet};

use squawk_syntax::SyntaxNode;

use super::hazard::{Effect, Hazard, Patch, Work};
use super::schema::{Schema, TableName};
use super::size::Relation;
use super::syntax::{self, MOST_TOKENS, Parsed};
use crate::migrations::rule::Rule;
use crate::migrations::steps::Steps;
use crate::sql::{LineColumn, LockMode, PathChange, Positions, Queue, Script, Statement};

/// Reads one migration after the other. Those that are not new say what there is when the new ones run: a
/// table exists unless a new migration has created it.
#[derive(Default)]
pub struct Reader {
    schema: Schema,
    /// How many have been read.
    migrations: usize,
    new: New,
    /// Whether a database says which tables there are.
    has_database: bool,
    /// The statements of the last migration of which it is not known which tables they lock.
    unread: Vec<Unread>,
    /// The foreign keys that may turn out to have no index, with the numbers of their migrations.
    unindexed: Vec<(usize, super::statement::UnindexedKey)>,
}

/// A statement of which it is not known which tables it locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Its index.
    pub statement: usize,
    pub position: LineColumn,
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

    /// The same, where a database says of each table whether it exists: a `CREATE TABLE IF NOT EXISTS` leaves
    /// one as it is.
    pub fn with_database() -> Reader {
        Reader { has_database: true, ..Reader::knowing_new() }
    }

    /// The statements of the migration that was read last of which it is not known which tables they lock:
    /// they are too long, or no SQL as far as the parser knows, or about all tables.
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }

    /// The hazards of the next migration, in order; none if it is not new.
    pub fn read(&mut self, script: &Script<'_>, steps: &Steps, is_new: bool) -> Vec<Hazard> {
        self.read_next(0, script, steps, is_new)
    }

    /// The same for a new migration, of which the database has what is before this statement.
    pub fn read_from(&mut self, first: usize, script: &Script<'_>, steps: &Steps) -> Vec<Hazard> {
        self.read_next(first, script, steps, true)
    }

    fn read_next(
        &mut self,
        first_left: usize,
        script: &Script<'_>,
        steps: &Steps,
        is_new: bool,
    ) -> Vec<Hazard> {
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
            has_database: self.has_database,
            first_left,
            schema: &mut self.schema,
            positions: Positions::new(script.text()),
            statement: 0,
            start: 0,
            search_path: SearchPath::default(),
            found: Vec::new(),
            unread: Vec::new(),
            held: None,
            not_valid: Vec::new(),
            gone_types: HashSet::new(),
            recreated: HashSet::new(),
            unindexed: Vec::new(),
        };
        let read = syntax::with_large_stack(|| {
            file.read(script, steps);
            (file.found, file.unindexed, file.unread)
        });
        // The system may have no room for the stack. Then nothing is known of the whole file.
        let start = Unread { statement: usize::MAX, position: LineColumn { line: 1, column: 1 } };
        let (found, unindexed, unread) =
            read.unwrap_or_else(|_| (Vec::new(), Vec::new(), vec![start]));
        self.unread = unread;
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

/// What the file has set for the lookup of names, as its own statements.
#[derive(Default)]
struct SearchPath {
    of_session: Option<String>,
    of_transaction: Option<String>,
}

impl SearchPath {
    fn change(&mut self, statement: &Statement<'_>) {
        let sql = || Some(statement.text.to_owned());
        match statement.search_path_change() {
            Some(PathChange::UntilTransactionEnds) => self.of_transaction = sql(),
            Some(PathChange::ForSession) => (self.of_session, self.of_transaction) = (sql(), None),
            None => {}
        }
    }

    fn current(&self) -> Option<&str> {
        self.of_transaction.as_deref().or(self.of_session.as_deref())
    }
}

/// A migration while it is read.
pub(super) struct File<'r, 't> {
    pub number: usize,
    new: &'r New,
    has_database: bool,
    /// The index of the first statement that the database does not have.
    first_left: usize,
    pub schema: &'r mut Schema,
    positions: Positions<'t>,
    statement: usize,
    /// The byte offset in the file of the statement.
    start: usize,
    search_path: SearchPath,
    pub found: Vec<Found>,
    unread: Vec<Unread>,
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
        let mut starts = steps.all().iter().map(|step| step.statements.start).peekable();
        for (index, statement) in script.statements().iter().enumerate() {
            if starts.next_if(|&start| start <= index).is_some() {
                self.held = None;
                self.not_valid.clear();
                self.search_path.of_transaction = None;
            }
            self.statement = index;
            let first = statement.text.split(|c: char| !c.is_ascii_alphabetic()).next();
            let first = first.unwrap_or_default().to_ascii_lowercase();
            if first == "do" {
                for (offset, inner) in statement.inner(&syntax::BEGINNINGS) {
                    self.start = statement.start + offset;
                    self.read_one(inner);
                }
            } else if is_about_others(statement.text) {
                self.start = statement.start;
                self.unread();
            } else if ["set", "reset"].contains(&first.as_str()) {
                self.search_path.change(&statement);
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
        let parsed = syntax::parse(text);
        let is_read = matches!(parsed, Parsed::Statement { has_errors: false, .. });
        if !is_read && may_take_long(text) {
            self.unread();
        }
        match parsed {
            Parsed::Statement { statement, .. } => self.statement(&statement, text),
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

    /// Notes that it is not known which tables the statement locks.
    pub fn unread(&mut self) {
        let position = self.positions.at(self.start);
        self.unread.push(Unread { statement: self.statement, position });
    }

    /// Where a database that the new migrations have not changed yet has the table.
    pub fn relation(&self, table: &TableName) -> Relation {
        let before = self.schema.table(table).and_then(|known| known.before.clone());
        before.unwrap_or_else(|| Relation::new(table, self.search_path.current()))
    }

    /// Remembers what a table is called until this migration renames it.
    pub fn renamed(&mut self, before: Relation, to: &TableName) {
        if self.is_new(self.number) && self.statement >= self.first_left {
            self.schema.table_mut(to).before = Some(before);
        }
    }

    /// Whether `CREATE TABLE IF NOT EXISTS` may find a table that the database has.
    pub fn may_be_there(&self, table: &TableName) -> bool {
        self.has_database && self.is_new(self.number) && !self.schema.was_dropped(table)
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
        let relation = effect.as_ref().map(|effect| self.relation(&effect.table));
        let blocks = effect.as_ref().is_some_and(|effect| {
            effect.work != Work::None && effect.lock.queue() >= Some(Queue::Writes)
        });
        let size = None;
        let hazard =
            Hazard { rule, statement, position, effect, relation, blocks, size, message, patch };
        self.found.push(Found { hazard, column: None });
    }

    /// Says of what was added last that its time depends on this table, or on the table of this index, and
    /// whether others wait while that is scanned.
    pub fn depends_on(&mut self, table: &TableName, blocks: bool) {
        let relation = Some(self.relation(table));
        if let Some(Found { hazard, .. }) = self.found.last_mut() {
            (hazard.relation, hazard.blocks) = (relation, blocks);
        }
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
            self.works(node, table, lock, true);
        }
    }

    /// Remembers a lock that keeps everyone from a table that exists.
    pub fn holds(&mut self, node: &SyntaxNode, table: &TableName) {
        if self.held.is_none() && self.exists(table) {
            let line = self.position(node).line;
            self.held = Some(Held { table: table.clone(), line });
        }
    }

    /// Long work, under a lock of its own on a table. `scans` is whether it is about all rows.
    pub fn works(&mut self, node: &SyntaxNode, table: &TableName, lock: LockMode, scans: bool) {
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
        if scans && self.exists(table) {
            self.depends_on(table, true);
        }
    }
}

/// Whether a statement may scan or rewrite a table under a lock that keeps others from rows.
fn may_take_long(statement: &str) -> bool {
    let words = statement.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let words: Vec<_> = words.take(3).map(str::to_ascii_lowercase).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["alter" | "cluster" | "reindex" | "vacuum", ..]
            | ["create", "index", ..]
            | ["create", "unique", "index"]
    )
}

/// Whether a statement scans or rewrites tables that it does not name, and keeps others from them.
fn is_about_others(statement: &str) -> bool {
    let words = statement.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let words: Vec<_> = words.take(6).map(str::to_ascii_lowercase).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["refresh", "materialized", "view", rest @ ..] => rest.first() != Some(&"concurrently"),
        ["alter", "domain", ..]
        | ["alter", "table" | "index", "all", "in", "tablespace", ..]
        | ["alter", "materialized", "view", "all", "in", "tablespace"] => true,
        _ => false,
    }
}

/// Whether an INSERT is of more than the values in its text.
fn reads_rows(insert: &str) -> bool {
    insert.get(..1_000).unwrap_or(insert).to_ascii_lowercase().contains("select")
}
