//! One transaction as one batch of messages. Pure.
//!
//! The messages are: BEGIN with our settings and the guards; the settings of earlier steps; the
//! file, or its step, as it is; the reset with the history row and the progress; COMMIT. They leave
//! in one round trip. A guard that does not hold raises an error, and the server skips everything
//! after an error. So lock, guards, work and rows live and die together, whenever a process is
//! killed.

mod rehearsed;
mod result;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::apply::event::{self, Event, StepNumber};
use crate::apply::failure::Phase;
use crate::apply::lock;
use crate::history::progress::{self, Progress, ProgressChange, Record};
use crate::history::table::{self, NewRow, RowsOnTheirWay, Table, TableVersion};
use crate::migrations::migration::{Layout, Migration};
use crate::migrations::steps::{Step, Steps};
use crate::postgres::conninfo::{ServerSetting, ServerSettings};
use crate::postgres::session::Message;
use crate::sql::{Modes, Piece, Script, Statement};

use super::state::DatabaseState;

pub(super) use self::result::{
    Current, TransactionResult, is_unsupported, lost_failure, record_failure, repair_failure,
    replay_failure, sizes_failure, standalone_failure, statement_failure,
};

/// The longest message of a file. A longer file is sent in pieces, so that the server need not hold
/// it whole.
const MAX_MESSAGE: usize = 1 << 20;

/// Time limits and other settings for the statements of a migration.
#[derive(Clone, Debug)]
pub(super) struct Timeouts {
    /// Zero means no limit.
    pub lock_timeout: Duration,
    /// `None` keeps the server's setting, zero means no limit.
    pub statement_timeout: Option<Duration>,
    pub server_settings: ServerSettings,
    /// The server's major version.
    pub server_version: u32,
    /// Settings that this server refused.
    pub unsupported_settings: Vec<&'static str>,
    /// Whether this role may lock the history.
    pub locks_history: bool,
}

/// What a statement of ours is for: tells which guard an error comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatementRole {
    Begin,
    /// Lets the locks of the guards go.
    Savepoint,
    TableLock,
    /// Looks whether another session writes to the history, where we may not lock it.
    TableLook,
    Setting(&'static str),
    /// A setting of the connection string, or one that our lexer depends on.
    ServerSetting,
    Lock,
    TableKind,
    History,
    Progress,
    Table,
    ProgressTable,
    Deferred,
    StillLocked,
    ReadSettings,
    Reset,
    Row,
    ProgressRow,
}

/// Statements that leave as one message. Each entry is one statement: the server's count of
/// completed statements leads to the one that failed.
type Statements = Vec<(StatementRole, String)>;

/// A step of a migration that is about to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepRef<'a> {
    pub migration: &'a Migration,
    pub script: &'a Script<'a>,
    pub steps: &'a Steps,
    pub step: &'a Step,
    pub number: StepNumber,
}

impl<'a> StepRef<'a> {
    /// The row that records the step as finished.
    pub(super) fn record(&self) -> Record {
        Record::finished(&self.migration.name, self.number.step, self.step.hash.as_str())
    }

    /// What earlier steps have left in the session, as SQL that makes it again.
    pub(super) fn replay(&self, progress: &Progress) -> Vec<Piece<'a>> {
        let saved = progress.saved_settings(&self.migration.name);
        self.steps.replay(self.script, self.step, saved)
    }

    /// Whether the history row is written with it.
    pub(super) fn is_last(&self) -> bool {
        self.number.step >= self.steps.all().len()
    }

    /// The statement of a step that runs outside a transaction.
    pub(super) fn standalone(&self) -> Option<Statement<'a>> {
        self.step
            .outside_transaction
            .and_then(|_| self.script.statements().get(self.step.statements.start))
    }

    /// The event that reports that it was sent.
    pub(super) fn sent(&self, has_lock: bool) -> Event {
        let migration = self.migration.name.clone();
        let StepNumber { step, of } = self.number;
        let step = StepNumber { step: step.min(of), of };
        Event::Unprinted(event::Unprinted::Step { migration, step, has_lock })
    }

    fn pieces(&self) -> Vec<Piece<'a>> {
        self.script.pieces(self.step.statements.clone(), MAX_MESSAGE)
    }
}

/// What one transaction does.
#[derive(Debug, Default)]
pub(super) struct TransactionSpec<'a> {
    /// The step that it is for; `None` where only rows are written.
    pub step: Option<StepRef<'a>>,
    /// Whether the step's statements run in it.
    pub runs_step: bool,
    /// Statements that create or upgrade the history table.
    pub upgrade: Vec<String>,
    pub creates_progress: bool,
    pub rows: Vec<NewRow>,
    pub progress: Option<ProgressChange>,
    /// Whether it stays open, to hold the lock while a statement runs on another connection. That
    /// statement may need any table, so the locks of the guards are given back.
    pub holds_lock: bool,
}

impl<'a> TransactionSpec<'a> {
    /// The step, if its statements run in this transaction.
    fn running(&self) -> Option<StepRef<'a>> {
        self.step.filter(|_| self.runs_step)
    }

    fn modes(&self) -> Modes {
        self.running().map(|step| step.step.modes.clone()).unwrap_or_default()
    }

    /// The settings whose values are recorded with the step.
    fn saved_settings(&self) -> &[String] {
        match &self.progress {
            Some(ProgressChange::Finish { saved_settings, .. }) => saved_settings,
            _ => &[],
        }
    }

    /// Whether it runs its step, writes one row, and changes nothing else of ours.
    pub(super) fn is_plain(&self) -> bool {
        let changes_only_rows =
            self.upgrade.is_empty() && !self.creates_progress && self.progress.is_none();
        self.runs_step && self.rows.len() == 1 && changes_only_rows && !self.needs_table_lock()
    }

    /// Whether it cannot do without a lock on the history table. The snapshot of such a transaction
    /// is that of its first query, and must have what the last holder of our lock committed.
    pub(super) fn needs_table_lock(&self) -> bool {
        self.modes().isolation.is_some()
    }
}

/// What a transaction is planned on, and what its guards prove.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    pub table: &'a Table,
    pub layout: Layout,
    pub state: &'a DatabaseState,
    /// What the transactions will have written that are sent before it and not answered yet.
    pub ahead: Option<RowsOnTheirWay<'a>>,
}

impl Expected<'_> {
    /// The history table's version when the row is written.
    fn table_version(&self) -> TableVersion {
        self.state.history.version_after_upgrade(self.layout)
    }
}

/// Stands before each message of a file that is sent together with the BEGIN. An error, a cancel or
/// a time limit can end the first message before the server has begun anything; the messages after
/// it would then be a transaction of their own, without lock, guards or row, and commit. Outside a
/// transaction block a savepoint is an error (25P01); inside, one that is released leaves nothing.
const IN_TRANSACTION: &str = "savepoint premigrate; release premigrate; ";
const IN_TRANSACTION_STATEMENTS: usize = 2;

/// A message of the file.
#[derive(Debug)]
struct FileMessage<'a> {
    piece: Piece<'a>,
    phase: Phase,
    /// The piece after [`IN_TRANSACTION`]; `None` where it is sent only after the replies to all
    /// before it.
    guarded: Option<String>,
}

impl<'a> FileMessage<'a> {
    fn new(piece: Piece<'a>, phase: Phase, waits: bool) -> FileMessage<'a> {
        let guarded = (!waits).then(|| format!("{IN_TRANSACTION}{}", piece.text));
        FileMessage { piece, phase, guarded }
    }

    fn message(&self) -> Message<'_> {
        let sql = self.guarded.as_deref().unwrap_or(&self.piece.text);
        Message { sql, data: self.piece.data, discards_rows: true }
    }
}

/// A transaction, ready to be sent.
pub(super) struct Transaction<'a> {
    spec: &'a TransactionSpec<'a>,
    opening: Statements,
    file: Vec<FileMessage<'a>>,
    closing: Statements,
    begin: String,
    end: String,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        spec: &'a TransactionSpec<'a>,
        expected: &Expected<'_>,
        timeouts: &Timeouts,
    ) -> Transaction<'a> {
        let opening = opening(spec, expected, timeouts);
        let closing = closing(spec, expected, timeouts);
        Transaction {
            spec,
            begin: joined(&opening),
            end: joined(&closing),
            opening,
            file: file_messages(spec, &expected.state.progress),
            closing,
        }
    }

    /// The whole transaction.
    pub(super) fn messages(&self) -> Vec<Message<'_>> {
        let mut messages = vec![self.begin.as_str().into()];
        messages.extend(self.file.iter().map(FileMessage::message));
        messages.extend(self.release());
        messages
    }

    /// The guards alone: tells whether the transaction could run, and changes nothing. The result
    /// is that of the whole transaction, where `Committed` means that every guard holds.
    pub(super) fn guards_only(&self) -> [Message<'_>; 2] {
        [self.begin.as_str().into(), "rollback".into()]
    }

    /// Begins the transaction that holds the lock. The result is as of [`Self::guards_only`].
    pub(super) fn hold(&self) -> [Message<'_>; 1] {
        [self.begin.as_str().into()]
    }

    /// Ends the transaction that holds the lock. The result is read from the responses to
    /// [`Self::hold`] and to these together.
    pub(super) fn release(&self) -> [Message<'_>; 2] {
        [self.end.as_str().into(), "commit".into()]
    }

    /// Whether each message has to wait for the reply to the one before: the file is long, or it has the
    /// data of a COPY: the server would read the next message as data.
    pub(super) fn waits(&self) -> bool {
        self.file.iter().any(|message| message.guarded.is_none())
    }
}

fn file_messages<'a>(spec: &TransactionSpec<'a>, progress: &Progress) -> Vec<FileMessage<'a>> {
    let Some(step) = spec.running() else { return Vec::new() };
    let pieces = step.pieces();
    let waits = pieces.len() > 1 || pieces.iter().any(|piece| piece.data.is_some());
    let message = |phase| move |piece| FileMessage::new(piece, phase, waits);
    let replay = step.replay(progress).into_iter().map(message(Phase::Replay));
    replay.chain(pieces.into_iter().map(message(Phase::Statement))).collect()
}

/// Sets back what a migration has set for its session.
pub(super) const RESET: [&str; 3] = ["reset session authorization", "reset role", "reset all"];

/// How long a killed runner's statement may go on before the server notices: instead of until it is
/// done. PostgreSQL has it since 14.
const CHECK_INTERVAL: (&str, &str) = ("client_connection_check_interval", "'1s'");

/// TCP keepalives, so that the server drops our locks within 30 s if this host dies. The default is
/// two hours.
const KEEPALIVES: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "15"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// The time limits of a statement outside a transaction, set for the session. A concurrent build
/// waits for other transactions more than once, and would be in the way if it were half done: it
/// has no `lock_timeout`.
pub(super) fn session_timeouts_sql(timeouts: &Timeouts, statement: &str) -> Vec<String> {
    let mut settings = Vec::new();
    if !is_concurrent(statement) {
        settings.push(format!("set lock_timeout = {}", milliseconds(timeouts.lock_timeout)));
    }
    if let Some(timeout) = timeouts.statement_timeout {
        settings.push(format!("set statement_timeout = {}", milliseconds(timeout)));
    }
    if timeouts.server_version >= 14 {
        settings.push(format!("set {} = {}", CHECK_INTERVAL.0, CHECK_INTERVAL.1));
    }
    settings.push(KEEPALIVES.map(|(name, value)| format!("set {name} = {value}")).join("; "));
    settings
}

/// The settings of the connection string for a statement outside a transaction.
pub(super) fn session_settings_sql(timeouts: &Timeouts, statement: &str) -> Vec<String> {
    let settings = timeouts.server_settings.all();
    let is_wanted =
        |setting: &&ServerSetting| setting.name != "lock_timeout" || !is_concurrent(statement);
    settings.filter(is_wanted).map(ServerSetting::set_sql).collect()
}

fn is_concurrent(statement: &str) -> bool {
    statement.to_ascii_lowercase().contains("concurrently")
}

fn milliseconds(time: Duration) -> String {
    format!("'{}ms'", time.as_millis())
}

fn transaction_settings(timeouts: &Timeouts) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("lock_timeout", milliseconds(timeouts.lock_timeout)),
        ("idle_in_transaction_session_timeout", "0".to_owned()),
    ];
    if let Some(timeout) = timeouts.statement_timeout {
        settings.push(("statement_timeout", milliseconds(timeout)));
    }
    if timeouts.server_version >= 14 {
        settings.push((CHECK_INTERVAL.0, CHECK_INTERVAL.1.to_owned()));
    }
    if timeouts.server_version >= 17 {
        settings.push(("transaction_timeout", "0".to_owned()));
    }
    settings.extend(KEEPALIVES.map(|(name, value)| (name, value.to_owned())));
    settings.retain(|(name, _)| !timeouts.unsupported_settings.contains(name));
    settings
}

fn opening(spec: &TransactionSpec<'_>, expected: &Expected<'_>, timeouts: &Timeouts) -> Statements {
    let Expected { table, state: DatabaseState { history, progress, compared, .. }, ahead, .. } =
        *expected;
    let has_table = history.table_version.has_table();
    let modes = spec.modes();
    let mut statements = vec![(StatementRole::Begin, begin_sql(&modes))];
    statements.extend(role_statement(timeouts));
    if spec.needs_table_lock() {
        // Fails while a runner that writes a row is at work, and takes no snapshot.
        statements.push((StatementRole::TableLock, table.lock_sql()));
    }
    for (name, value) in transaction_settings(timeouts) {
        statements.push((StatementRole::Setting(name), format!("set local {name} = {value}")));
    }
    statements.push((StatementRole::Lock, lock::take_sql()));
    if has_table && compared.is_none() {
        statements.push((StatementRole::TableKind, table.kind_guard_sql()));
    }
    if spec.holds_lock {
        statements.push((StatementRole::Savepoint, "savepoint guarded".to_owned()));
    }
    if has_table && !spec.needs_table_lock() {
        // drizzle-orm does not know our lock, but from its first row on, these fail.
        statements.push(match timeouts.locks_history {
            true => (StatementRole::TableLock, table.lock_sql()),
            false => (StatementRole::TableLook, lock::nobody_writes_sql(table)),
        });
    }
    // A statement of its own after the one that took the lock: in READ COMMITTED it then sees what the
    // last holder committed.
    let known = compared.map_or(0, |compared| history.rows_before_id_of(compared));
    let is_as_planned = match ahead {
        _ if !has_table => table.is_missing_sql(history.table_version),
        Some(rows) => table.is_extended_sql(history, rows),
        None => table.is_unchanged_sql(history, known),
    };
    if has_table && !progress.exists {
        // The common case; one query is faster than two.
        let both = format!("{is_as_planned} and {}", progress::is_missing_sql(table));
        statements.push((StatementRole::History, table::guard_sql(&both)));
    } else {
        statements.push((StatementRole::History, table::guard_sql(&is_as_planned)));
        let progress = progress::guard_sql(table, progress, compared.is_some());
        statements.push((StatementRole::Progress, progress));
    }
    if spec.holds_lock {
        // Gives the locks of the guards back.
        statements.push((StatementRole::Savepoint, "rollback to savepoint guarded".to_owned()));
    }
    statements.extend(spec.upgrade.iter().map(|sql| (StatementRole::Table, sql.clone())));
    if spec.creates_progress {
        statements.push((StatementRole::ProgressTable, progress::create_sql(table)));
    }
    if spec.runs_step {
        // The last, so that they hold for the file alone.
        let settings = &timeouts.server_settings.others;
        let sql = |setting: &ServerSetting| (StatementRole::ServerSetting, setting.set_local_sql());
        statements.extend(settings.iter().map(sql));
    }
    statements
}

/// Begins a transaction that takes the lock again, for a statement that runs: what the guards of the
/// one before have proved holds for it.
pub(super) fn retake_lock_sql(timeouts: &Timeouts) -> String {
    let settings = transaction_settings(timeouts).into_iter();
    let settings: String =
        settings.map(|(name, value)| format!("set local {name} = {value};\n")).collect();
    format!("{};\n{settings}{}", begin_sql(&Modes::default()), lock::take_sql())
}

/// The role of the connection string works on the history too, as with the app's driver.
fn role_statement(timeouts: &Timeouts) -> Option<(StatementRole, String)> {
    timeouts.server_settings.role_sql().map(|sql| (StatementRole::ServerSetting, sql))
}

fn closing(spec: &TransactionSpec<'_>, expected: &Expected<'_>, timeouts: &Timeouts) -> Statements {
    let mut statements = vec![
        // A cancel may have come before our BEGIN, so that there is no transaction block.
        (StatementRole::StillLocked, "savepoint premigrate".to_owned()),
        (StatementRole::StillLocked, "release premigrate".to_owned()),
        // Deferred constraints and triggers fail here, under the file's own settings.
        (StatementRole::Deferred, "set constraints all immediate".to_owned()),
        // If the file ended our transaction, the row must not be written in another one.
        (StatementRole::StillLocked, lock::still_held_sql()),
    ];
    let change = spec.progress.as_ref();
    let progress = &expected.state.progress;
    let change = change.and_then(|change| progress.change_sql(expected.table, change));
    let mut change = change.map(|sql| (StatementRole::ProgressRow, sql));
    let [user, role, all] = RESET.map(|sql| (StatementRole::Reset, sql.to_owned()));
    // `RESET ALL` leaves the role as it is.
    let roles = [user, role].into_iter().chain(role_statement(timeouts));
    match spec.saved_settings() {
        [] => statements.extend(roles.chain([all])),
        names => {
            statements.push((StatementRole::ReadSettings, progress::read_settings_sql(names)));
            // The values are kept in a setting, which the last of these removes.
            statements.extend(roles.chain(change.take()).chain([all]));
        }
    }
    statements.push((StatementRole::Reset, "discard temp".to_owned()));
    // The reset took it away, and the history may be locked too.
    let lock_timeout = milliseconds(timeouts.lock_timeout);
    statements.push((
        StatementRole::Setting("lock_timeout"),
        format!("set local lock_timeout = {lock_timeout}"),
    ));
    let version = expected.table_version();
    let insert = |row| (StatementRole::Row, expected.table.insert_sql(row, version));
    statements.extend(spec.rows.iter().map(insert));
    statements.extend(change);
    statements
}

/// DEFERRABLE has no effect in a transaction that writes: it marks ours, see [`lock::still_held_sql`].
fn begin_sql(modes: &Modes) -> String {
    let level = modes.isolation.unwrap_or("read committed");
    format!("begin isolation level {level} read write deferrable")
}

fn joined(statements: &Statements) -> String {
    let statements: Vec<&str> = statements.iter().map(|(_, sql)| sql.as_str()).collect();
    statements.join(";\n")
}
