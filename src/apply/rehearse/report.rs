//! What a rehearsal has found out. Pure.
//!
//! Serde writes the JSON from the fields; `render::answers::rehearse` writes the rest.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::apply::event::{milliseconds, milliseconds_if_known};
use crate::postgres::result::ResultSet;
use crate::postgres::server_error::ServerError;
use crate::sql::LineColumn;
use crate::sql::name::{self, Occurrence};

use super::trace::{Relation, RelationChange, RelationKind, TableCounts, Trace, Tracer};
use crate::sql::{LockMode, Queue};

/// A rehearsal, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which they ran; the last one may have failed.
    pub migrations: Vec<RehearsedMigration>,
    pub leftovers: Leftovers,
    /// Whether a file ended the transaction, so that not all of it was rolled back.
    pub is_lost: bool,
    pub took: Duration,
}

/// What the rollback did not undo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leftovers {
    pub sequences: Vec<AdvancedSequence>,
    /// How many advisory locks were taken for the session.
    pub session_locks: usize,
    /// Whether they are still held by a session of the pooler.
    pub keeps_locks: bool,
}

/// A sequence that the rehearsal has used: no rollback sets it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdvancedSequence {
    pub sequence: String,
    /// Its last value; null if it had none, or this role may not read it.
    pub before: Option<i64>,
    pub after: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RehearsedMigration {
    pub migration: String,
    pub file: String,
    pub outcome: RehearsalOutcome,
    /// The isolation level that `up` runs it in, or a step of it, if it is not READ COMMITTED as here.
    pub isolation: Option<&'static str>,
    /// Without what the tracing took.
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    pub took: Duration,
    /// How many bytes of WAL the server has written meanwhile, for all sessions.
    pub wal_bytes: Option<u64>,
    /// The tables and other relations that were there before the migration, those that queue most first.
    pub tables: Vec<TouchedTable>,
    /// The tables and views that it has made.
    pub created: Vec<String>,
    pub statements: Vec<RehearsedStatement>,
    /// When it began, after the first one did.
    #[serde(skip)]
    pub from: Duration,
    /// Each lock, in the order in which they were taken.
    #[serde(skip)]
    pub spans: Vec<LockSpan>,
    /// Each rewrite of a table.
    #[serde(skip)]
    pub rewrites: Vec<Rewrite>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RehearsalOutcome {
    /// All of it ran.
    Rehearsed,
    /// Some statements were not run.
    Partly,
    Failed,
}

/// A relation that a migration has locked, or done something to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TouchedTable {
    pub table: String,
    pub kind: RelationKind,
    /// The strongest lock that the migration takes; null if none was new.
    pub lock: Option<LockMode>,
    /// How long it is held: from the statement that takes it to the end of the migration's own
    /// transaction.
    #[serde(rename = "held_ms", serialize_with = "milliseconds")]
    pub held: Duration,
    /// What waits meanwhile.
    pub queues: Option<Queue>,
    /// A stronger lock that the rehearsal held on it already; whether the migration takes it again, the
    /// server does not show.
    pub already_held: Option<LockMode>,
    /// The migration that has taken that one.
    pub already_held_since: Option<String>,
    pub rewritten: bool,
    pub scanned: bool,
    pub rows_read: u64,
    pub rows_inserted: u64,
    pub rows_updated: u64,
    pub rows_deleted: u64,
    /// With TOAST, without indexes; before the migration and after.
    pub bytes_before: Option<u64>,
    pub bytes_after: Option<u64>,
    /// The server's estimate before the rehearsal.
    pub rows_before: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RehearsedStatement {
    /// From 1.
    pub statement: usize,
    pub line: usize,
    pub column: usize,
    /// Its first line, without secrets.
    pub text: String,
    #[serde(flatten, serialize_with = "form_fields")]
    pub form: Form,
    /// Null if it was not run.
    #[serde(rename = "ms", serialize_with = "milliseconds_if_known")]
    pub took: Option<Duration>,
    /// The locks that are new.
    pub locks: Vec<NewLock>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewLock {
    pub table: String,
    pub lock: LockMode,
}

/// How a statement was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    AsItIs,
    /// `up` runs it with CONCURRENTLY, and takes SHARE UPDATE EXCLUSIVE.
    WithoutConcurrently,
    No(NotRun),
}

/// Why a statement was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// The named statement cannot run inside a transaction block.
    NoTransactionBlock(&'static str),
    /// The server has refused it inside a transaction block.
    Refused(ServerError),
    /// It has the named effect, which no rollback undoes.
    Lasts(&'static str),
    /// It sets modes of its transaction, which it does not have to itself here.
    TransactionModes,
    /// It uses a value of an enum, which has to be committed first.
    EnumValue(ServerError),
    /// An earlier run of `up` has begun with it.
    Begun,
    /// It failed, and may need the statement at this place, which was not run.
    Depends { place: String, error: ServerError },
}

impl NotRun {
    pub fn code(&self) -> &'static str {
        match self {
            NotRun::NoTransactionBlock(_) | NotRun::Refused(_) => "no_transaction_block",
            NotRun::Lasts(_) => "not_undone",
            NotRun::TransactionModes => "transaction_modes",
            NotRun::EnumValue(_) => "enum_value",
            NotRun::Begun => "begun",
            NotRun::Depends { .. } => "depends",
        }
    }

    /// Whether a later statement may need what this one was to do.
    fn may_be_needed(&self) -> bool {
        match self {
            NotRun::NoTransactionBlock(kind) => {
                let changes_no_schema = ["VACUUM", "CLUSTER", "REINDEX", "ALTER SYSTEM", "DISCARD"];
                !changes_no_schema.iter().any(|other| kind.starts_with(other))
            }
            NotRun::TransactionModes => false,
            NotRun::Refused(_)
            | NotRun::Lasts(_)
            | NotRun::EnumValue(_)
            | NotRun::Begun
            | NotRun::Depends { .. } => true,
        }
    }
}

/// Read after "not run: ".
impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRun::NoTransactionBlock(kind) => {
                write!(f, "{kind} cannot run inside a transaction block")
            }
            NotRun::Refused(error) => {
                write!(f, "it cannot run inside a transaction block ({})", said(error))
            }
            NotRun::Lasts(effect) => write!(f, "no rollback undoes {effect}"),
            NotRun::TransactionModes => {
                f.write_str("one READ COMMITTED transaction holds the whole rehearsal")
            }
            NotRun::EnumValue(error) => {
                write!(f, "the new value has to be committed first ({})", said(error))
            }
            NotRun::Begun => f.write_str("an earlier run has begun with it, and did not finish"),
            NotRun::Depends { place, error } => {
                write!(f, "it failed ({}), and may need {place}, which was not run", said(error))
            }
        }
    }
}

fn said(error: &ServerError) -> String {
    format!("{} {}", error.code, error.message)
}

fn form_fields<S: Serializer>(form: &Form, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields {
        ran: &'static str,
        reason: Option<&'static str>,
        message: Option<String>,
    }
    let fields = match form {
        Form::AsItIs => Fields { ran: "as_it_is", reason: None, message: None },
        Form::WithoutConcurrently => {
            Fields { ran: "without_concurrently", reason: None, message: None }
        }
        Form::No(why) => {
            let message = Some(why.to_string());
            Fields { ran: "no", reason: Some(why.code()), message }
        }
    };
    fields.serialize(serializer)
}

/// A lock on a relation, on the clock of the rehearsal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockSpan {
    pub table: String,
    pub lock: LockMode,
    pub from: Duration,
    pub until: Duration,
    /// Whether an earlier step has taken it, so that it is not known whether this one does.
    pub already_held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    pub table: String,
    pub from: Duration,
    pub until: Duration,
}

/// Puts a report together while the migrations run. Its clock stands still while nothing of theirs
/// runs.
#[derive(Debug, Default)]
pub struct Recorder {
    report: Report,
    tracer: Tracer,
    clock: Duration,
    /// The relations that the transaction has locked, by number, with each mode.
    held: BTreeMap<u32, BTreeMap<LockMode, Taken>>,
    /// How many steps have ended.
    step: usize,
    /// What the current migration has touched, by number.
    touched: BTreeMap<u32, Touched>,
    /// The sizes as they were seen last.
    sizes: BTreeMap<u32, u64>,
    /// The statements that were not run and may be needed: the place and the text of each.
    skipped: Vec<(String, String)>,
}

/// Who has taken a lock.
#[derive(Clone, Debug)]
struct Taken {
    step: usize,
    migration: String,
}

/// What the current migration has done to a relation.
#[derive(Debug)]
struct Touched {
    relation: Relation,
    /// The locks of the current step, each with the time when it was taken.
    taken: BTreeMap<LockMode, Duration>,
    /// When the current step has first shown in it.
    since: Option<Duration>,
    /// The strongest lock of the steps that have ended, and how long it was held.
    lock: Option<(LockMode, Duration)>,
    /// How long they used it.
    used: Duration,
    already_held: Option<(LockMode, String)>,
    created: bool,
    rewritten: bool,
    counts: TableCounts,
    bytes_before: Option<u64>,
    bytes_after: Option<u64>,
}

/// A statement of a file, for the report.
#[derive(Clone, Debug)]
pub struct StatementRef<'a> {
    /// From 1.
    pub number: usize,
    pub position: LineColumn,
    /// Its first line, without secrets.
    pub first_line: String,
    pub text: &'a str,
    /// The strongest lock that it may take.
    pub at_most: LockMode,
}

impl StatementRef<'_> {
    fn reported(
        &self,
        form: Form,
        took: Option<Duration>,
        locks: Vec<NewLock>,
    ) -> RehearsedStatement {
        RehearsedStatement {
            statement: self.number,
            line: self.position.line,
            column: self.position.column,
            text: self.first_line.clone(),
            form,
            took,
            locks,
        }
    }
}

impl Recorder {
    /// Begins a transaction, of which the tracer knows how it was before.
    pub fn new(tracer: Tracer) -> Recorder {
        Recorder { tracer, ..Recorder::default() }
    }

    pub fn tracer(&mut self) -> &mut Tracer {
        &mut self.tracer
    }

    pub fn begin_migration(
        &mut self,
        migration: &str,
        file: &str,
        isolation: Option<&'static str>,
    ) {
        self.touched.clear();
        self.report.migrations.push(RehearsedMigration {
            migration: migration.to_owned(),
            file: file.to_owned(),
            outcome: RehearsalOutcome::Rehearsed,
            isolation,
            took: Duration::ZERO,
            wal_bytes: None,
            tables: Vec::new(),
            created: Vec::new(),
            statements: Vec::new(),
            from: self.clock,
            spans: Vec::new(),
            rewrites: Vec::new(),
        });
    }

    /// What ran for the migration was none of its statements: the beginning of a step or its end.
    pub fn spend(&mut self, took: Duration) {
        self.clock += took;
    }

    /// The statements that were not run, and that a later one may need: the place and the text of each.
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    pub fn not_run(&mut self, statement: &StatementRef<'_>, why: NotRun) {
        let Some(migration) = self.report.migrations.last_mut() else { return };
        if why.may_be_needed() {
            let place = format!("{}:{}", migration.file, statement.position);
            self.skipped.push((place, statement.text.to_owned()));
        }
        migration.outcome = RehearsalOutcome::Partly;
        migration.statements.push(statement.reported(Form::No(why), None, Vec::new()));
    }

    /// A statement has run, and the server has answered what it did.
    pub fn ran(
        &mut self,
        statement: &StatementRef<'_>,
        form: Form,
        took: Duration,
        answer: &[ResultSet],
    ) {
        let from = self.clock;
        self.clock += took;
        let Trace { effects, wal } = self.tracer.observe(answer);
        let mut locks = Vec::new();
        let mut seen = BTreeSet::new();
        for effect in effects {
            let table = effect.relation.to_string();
            let new = effect.new_locks.iter();
            locks.extend(new.map(|lock| NewLock { table: table.clone(), lock: *lock }));
            seen.insert(effect.relation.oid);
            self.touch(effect, statement, &form, from);
        }
        // A lock that is held already is not new. So what an earlier step has locked counts as locked
        // again by a statement that names it.
        let held = self.tracer.held().filter(|relation| {
            !seen.contains(&relation.oid)
                && self.earlier(relation.oid, statement.at_most).is_some_and(|(lock, _)| {
                    form == Form::WithoutConcurrently || lock.queue().is_some()
                })
                && name::occurrence(statement.text, &relation.name) != Occurrence::Never
        });
        for relation in held.cloned().collect::<Vec<_>>() {
            let size = self.sizes.get(&relation.oid).copied();
            let effect = RelationChange { size, ..RelationChange::none(relation) };
            self.touch(effect, statement, &form, from);
        }
        let Some(migration) = self.report.migrations.last_mut() else { return };
        if let Some(bytes) = wal {
            *migration.wal_bytes.get_or_insert_default() += bytes;
        }
        migration.statements.push(statement.reported(form, Some(took), locks));
    }

    /// The strongest lock up to this one that an earlier step has taken, with its migration.
    fn earlier(&self, oid: u32, at_most: LockMode) -> Option<(LockMode, String)> {
        let mut held = self.held.get(&oid)?.range(..=at_most).rev();
        let earlier = held.find(|(_, taken)| taken.step < self.step);
        earlier.map(|(lock, taken)| (*lock, taken.migration.clone()))
    }

    fn touch(
        &mut self,
        effect: RelationChange,
        statement: &StatementRef<'_>,
        form: &Form,
        from: Duration,
    ) {
        let oid = effect.relation.oid;
        let earlier = self.earlier(oid, statement.at_most);
        let Some(migration) = self.report.migrations.last_mut() else { return };
        if effect.rewritten && effect.relation.kind != RelationKind::Index {
            let table = effect.relation.to_string();
            migration.rewrites.push(Rewrite { table, from, until: self.clock });
        }
        let touched = match self.touched.entry(oid) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let at_first = self.tracer.baseline(oid).and_then(|baseline| baseline.size);
                let size = self.sizes.get(&oid).copied().or(at_first);
                entry.insert(Touched::new(effect.relation, size))
            }
        };
        touched.since.get_or_insert(from);
        touched.created |= effect.created;
        touched.rewritten |= effect.rewritten;
        touched.counts.add(effect.counts);
        touched.bytes_after = effect.size;
        self.sizes.extend(effect.size.map(|size| (oid, size)));
        let held = self.held.entry(oid).or_default();
        for lock in &effect.new_locks {
            let (step, migration) = (self.step, migration.migration.clone());
            held.entry(*lock).or_insert(Taken { step, migration });
        }
        if *form == Form::WithoutConcurrently {
            // What `up` takes, whatever was held or taken here.
            touched.taken.entry(LockMode::ShareUpdateExclusive).or_insert(from);
        } else {
            touched.already_held = touched.already_held.take().max(earlier);
            for lock in effect.new_locks {
                touched.taken.entry(lock).or_insert(from);
            }
        }
    }

    /// In `up`, the transaction of a step ends here, and lets its locks go.
    pub fn end_step(&mut self) {
        let until = self.clock;
        let Some(migration) = self.report.migrations.last_mut() else { return };
        for touched in self.touched.values_mut() {
            for (lock, from) in std::mem::take(&mut touched.taken) {
                touched.lock = touched.lock.max(Some((lock, until.saturating_sub(from))));
                if !touched.created {
                    let table = touched.relation.to_string();
                    let already_held = false;
                    migration.spans.push(LockSpan { table, lock, from, until, already_held });
                }
            }
            let since = touched.since.take();
            let earlier = touched.already_held.as_ref().map(|(lock, _)| *lock);
            let is_stronger = |held: &LockMode| touched.lock.is_none_or(|(new, _)| *held > new);
            let earlier = earlier.filter(|held| !touched.created && is_stronger(held));
            if let (Some(from), Some(lock)) = (since, earlier) {
                let table = touched.relation.to_string();
                migration.spans.push(LockSpan { table, lock, from, until, already_held: true });
            }
            let used = since.map_or(Duration::ZERO, |since| until.saturating_sub(since));
            touched.used = touched.used.max(used);
        }
        migration.spans.sort_by_key(|span| span.from);
        self.step += 1;
    }

    pub fn end_migration(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        let Some(migration) = self.report.migrations.last_mut() else { return };
        migration.took = self.clock.saturating_sub(migration.from);
        // An index goes with its table.
        let is_told = |index: &Touched| {
            let table = index.relation.table.and_then(|table| touched.get(&table));
            table.is_some_and(|table| {
                table.created
                    || table.strongest() >= index.strongest() && table.rewritten >= index.rewritten
            })
        };
        let told = touched.values().filter(|touched| is_told(touched));
        let told: BTreeSet<_> = told.map(|index| index.relation.to_string()).collect();
        migration.spans.retain(|span| !told.contains(&span.table));
        let of_before = touched.values().filter(|touched| !touched.created && !is_told(touched));
        let tables = of_before.map(|touched| {
            let rows = self.tracer.baseline(touched.relation.oid).and_then(|it| it.rows);
            touched.reported(rows)
        });
        migration.tables = tables.collect();
        migration
            .tables
            .sort_by(|a, b| (b.queues, b.held, &a.table).cmp(&(a.queues, a.held, &b.table)));
        let created = touched.values().filter(|touched| {
            let kind = touched.relation.kind;
            touched.created && !matches!(kind, RelationKind::Index | RelationKind::Sequence)
        });
        migration.created = created.map(|touched| touched.relation.to_string()).collect();
        migration.created.sort();
    }

    /// The migration has failed, and is the last.
    pub fn fail(&mut self) {
        self.end_step();
        self.end_migration();
        if let Some(migration) = self.report.migrations.last_mut() {
            migration.outcome = RehearsalOutcome::Failed;
        }
    }

    /// Whether a statement failed or was not run, so that what it used does not show.
    pub fn has_gaps(&self) -> bool {
        self.report
            .migrations
            .iter()
            .any(|migration| migration.outcome != RehearsalOutcome::Rehearsed)
    }

    /// The sequences that were there before, and whose values the migrations may have used.
    pub fn used_sequences(&self) -> Vec<String> {
        let is_used = |relation: &&Relation| {
            let locks = self.held.get(&relation.oid);
            relation.kind == RelationKind::Sequence
                && self.tracer.baseline(relation.oid).is_some()
                && locks.is_some_and(|locks| locks.contains_key(&LockMode::RowExclusive))
        };
        self.tracer.held().filter(is_used).map(Relation::to_string).collect()
    }

    pub fn finish(self, leftovers: Leftovers, is_lost: bool) -> Report {
        Report { leftovers, is_lost, took: self.clock, ..self.report }
    }
}

impl Touched {
    fn new(relation: Relation, bytes_before: Option<u64>) -> Touched {
        Touched {
            relation,
            taken: BTreeMap::new(),
            since: None,
            lock: None,
            used: Duration::ZERO,
            already_held: None,
            created: false,
            rewritten: false,
            counts: TableCounts::default(),
            bytes_before,
            bytes_after: None,
        }
    }

    /// The strongest lock that it may have taken.
    fn strongest(&self) -> Option<LockMode> {
        let new = self.lock.map(|(lock, _)| lock);
        new.max(self.already_held.as_ref().map(|(lock, _)| *lock))
    }

    fn reported(&self, rows_before: Option<u64>) -> TouchedTable {
        let Touched { relation, counts, .. } = self;
        let lock = self.lock.map(|(lock, _)| lock);
        // A weaker one tells nothing.
        let already_held = self.already_held.as_ref().filter(|(held, _)| Some(*held) > lock);
        let held = match self.lock {
            Some((lock, held)) if Some(lock) == self.strongest() => held,
            _ => self.used,
        };
        TouchedTable {
            table: relation.to_string(),
            kind: relation.kind,
            lock,
            held,
            queues: self.strongest().and_then(LockMode::queue),
            already_held: already_held.map(|(lock, _)| *lock),
            already_held_since: already_held.map(|(_, migration)| migration.clone()),
            rewritten: self.rewritten,
            scanned: relation.kind != RelationKind::Index && counts.scans > 0,
            rows_read: counts.rows_read,
            rows_inserted: counts.rows_inserted,
            rows_updated: counts.rows_updated,
            rows_deleted: counts.rows_deleted,
            bytes_before: self.bytes_before,
            bytes_after: self.bytes_after,
            rows_before,
        }
    }
}
