//! One transaction as one flight of messages, and what came of it. Pure.
//!
//! The messages are: begin with our settings and the guards; what the file has set before; the file
//! or its step, as it is; the reset with the history row and the progress; COMMIT. They leave in one
//! round trip. A guard that does not hold raises an error, and then the server skips everything that
//! follows; and where the transaction has not even begun, it refuses what follows: so lock, guards,
//! work and rows live and die together, whoever is killed when.

use std::time::Duration;

use crate::apply::event::StepNumber;
use crate::apply::failure::{Advice, Excerpt, Failure, Phase};
use crate::apply::lock;
use crate::history::progress::{self, Progress};
use crate::history::table::{self, History, NewRow, Table, TableVersion};
use crate::migrations::migration::Migration;
use crate::migrations::steps::Step;
use crate::postgres::server_error::{Position, ServerError};
use crate::postgres::session::{ConnectionError, QueryError, Response, Responses};
use crate::process::signals::Signal;
use crate::sql::{self, Kind, Modes, Piece, Script};

/// What is sent at once: a longer file goes in pieces, so that the server need not hold it whole.
const PIECE: usize = 1 << 20;

/// Time limits for the statements of a migration, and what the server takes of them.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// How long a statement may queue for a table lock; zero is for ever.
    pub lock_timeout: Duration,
    /// How long a statement may run; zero is for ever, none is what the server has.
    pub statement_timeout: Option<Duration>,
    /// The server's major version.
    pub server_version: u32,
    /// Settings to do without: this server turned out not to take them, or (the lock's mark) a
    /// migration may set them back.
    pub unsupported_settings: Vec<&'static str>,
}

impl Timeouts {
    /// Whether a transaction has the lock's mark.
    fn is_marked(&self) -> bool {
        !self.unsupported_settings.contains(&lock::MARK.0)
    }
}

/// What a statement of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatementRole {
    Begin,
    TableLock,
    Setting(&'static str),
    Lock,
    History,
    Progress,
    Table,
    ProgressTable,
    Deferred,
    StillLocked,
    Reset,
    Row,
    ProgressRow,
}

type Statements = Vec<(StatementRole, String)>;

/// What of a migration a transaction runs.
#[derive(Clone, Copy, Debug)]
pub struct StepRef<'a> {
    /// The migration.
    pub migration: &'a Migration,
    /// Its file, read.
    pub script: &'a Script<'a>,
    /// The step.
    pub step: &'a Step,
    /// Which one that is, from 1, and of how many.
    pub reached: StepNumber,
}

impl<'a> StepRef<'a> {
    /// What is sent of the file, in pieces where it is long.
    fn pieces(&self) -> Vec<Piece<'a>> {
        let statements = self.step.statements.clone();
        if statements.is_empty() && self.script.statements().is_empty() {
            // Nothing that counts, and yet the server is to see it: it may be malformed.
            self.script.pieces(PIECE)
        } else {
            self.script.pieces_of(statements, PIECE)
        }
    }
}

/// What one transaction is to do.
#[derive(Debug, Default)]
pub struct TransactionSpec<'a> {
    /// What to run; without that, the rows are all there is to it.
    pub work: Option<StepRef<'a>>,
    /// What has to be done to the history table first.
    pub prepare: Vec<String>,
    /// Whether the progress table has to be made first.
    pub makes_progress: bool,
    /// The rows to write.
    pub entries: Vec<NewRow>,
    /// What to write of the progress.
    pub marks: Vec<String>,
    /// Whether its transaction is there to hold the lock for another connection's work, which may
    /// need every table.
    pub keeps: bool,
}

/// What a transaction is planned on, and guards.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Where the history is.
    pub table: &'a Table,
    /// The history.
    pub history: &'a History,
    /// The history table's state after the job's preparation.
    pub state: TableVersion,
    /// The progress of split migrations.
    pub progress: &'a Progress,
}

/// Stands before each message of a file that is sent together with the BEGIN. An error, a cancel or
/// a time limit can end the first message before the server has begun anything; what is under way
/// behind it would then be a transaction of its own, without lock, guards or row, and commit. Outside
/// a transaction block a savepoint is an error (25P01), in one message with others too; inside, one
/// that is released leaves nothing.
const IN_TRANSACTION: &str = "savepoint premigrate; release premigrate; ";
/// How many statements that is.
const IN_TRANSACTION_STATEMENTS: usize = 2;

/// A part of the file on its way.
#[derive(Debug)]
struct Message<'a> {
    piece: Piece<'a>,
    phase: Phase,
    /// The piece behind [`IN_TRANSACTION`]; none where it waits for the answers to all before it.
    guarded: Option<String>,
}

impl<'a> Message<'a> {
    fn new(piece: Piece<'a>, phase: Phase, waits: bool) -> Message<'a> {
        let guarded = (!waits).then(|| format!("{IN_TRANSACTION}{}", piece.text));
        Message { piece, phase, guarded }
    }

    fn message(&self) -> &str {
        self.guarded.as_deref().unwrap_or(&self.piece.text)
    }

    /// How many statements of the file have completed, of so many.
    fn completed(&self, all: usize) -> usize {
        let ours = self.guarded.as_ref().map_or(0, |_| IN_TRANSACTION_STATEMENTS);
        all.saturating_sub(ours)
    }

    /// How this part failed, and where.
    fn failed(
        &self,
        work: StepRef<'_>,
        completed: usize,
        error: &ServerError,
    ) -> (Phase, Option<ErrorLocation>) {
        let mut ours = 0;
        if self.guarded.is_some() {
            if completed < IN_TRANSACTION_STATEMENTS && error.is("25P01") {
                return (Phase::LostTransaction, None);
            }
            ours = IN_TRANSACTION.chars().count();
        }
        (self.phase, ErrorLocation::find(work, &self.piece, ours, self.completed(completed), error))
    }
}

/// A transaction, made ready to be sent.
#[derive(Debug)]
pub struct Transaction<'a> {
    job: &'a TransactionSpec<'a>,
    first_ever: bool,
    is_marked: bool,
    opening: Statements,
    messages_of_file: Vec<Message<'a>>,
    closing: Statements,
    begin: String,
    end: String,
}

/// What a flight came to.
#[derive(Debug)]
pub enum TransactionResult {
    /// The server committed it; with what the statement that wrote the row gave back.
    Committed(Vec<Option<String>>),
    /// Another runner holds the lock.
    LockedOut,
    /// The history or the progress is not what the plan was made from.
    HistoryChanged,
    /// The server does not take this setting.
    UnsupportedSetting(&'static str),
    /// Rolled back.
    Failed(Box<Failure>),
    /// Rolled back: our role may not do this to the history, or to the progress.
    PermissionDenied {
        /// What the server said.
        error: ServerError,
        /// Whether it is about the progress.
        of_progress: bool,
    },
    /// The connection ended, and what became of the migration is open.
    ConnectionLost {
        /// How many statements of the file are known to have completed.
        completed: usize,
        /// What broke.
        trouble: ConnectionError,
    },
    /// A signal ended it.
    Cancelled {
        /// Which.
        signal: Signal,
        /// Whether the server confirmed the roll-back.
        confirmed: bool,
    },
}

impl<'a> Transaction<'a> {
    /// Makes the messages for a database that is so.
    pub fn new(
        job: &'a TransactionSpec<'a>,
        ground: &Expected<'_>,
        limits: &Timeouts,
    ) -> Transaction<'a> {
        let Expected { table, history, state, .. } = *ground;
        let is_marked = limits.is_marked();
        let opening = opening(job, ground, limits);
        let mut closing = vec![
            // Whatever was put off to the end of the transaction fails here, and not in a reset.
            (StatementRole::Deferred, "set constraints all immediate".to_owned()),
            // A COMMIT that we did not see for what it is would let the row in alone.
            (StatementRole::StillLocked, lock::still_held_sql(is_marked)),
        ];
        closing.extend(RESET.map(|sql| (StatementRole::Reset, sql.to_owned())));
        closing.push((StatementRole::Reset, "discard temp".to_owned()));
        // The reset took it away, and the history may be locked too.
        closing.push((StatementRole::Setting("lock_timeout"), set_lock_timeout(limits)));
        closing.extend(
            job.entries.iter().map(|entry| (StatementRole::Row, table.insert_sql(entry, state))),
        );
        closing.extend(job.marks.iter().map(|mark| (StatementRole::ProgressRow, mark.clone())));
        let pieces = job.work.map(|work| work.pieces()).unwrap_or_default();
        let replay = job.work.map(|work| work.step.replay(work.script)).unwrap_or_default();
        let waits = pieces.len() > 1;
        let part = |phase| move |piece| Message::new(piece, phase, waits);
        let replay = replay.into_iter().map(part(Phase::Replay));
        Transaction {
            job,
            first_ever: history.rows.is_empty(),
            is_marked,
            begin: joined(&opening),
            end: joined(&closing),
            opening,
            messages_of_file: replay
                .chain(pieces.into_iter().map(part(Phase::Statement)))
                .collect(),
            closing,
        }
    }

    /// What is sent.
    pub fn messages(&self) -> Vec<&str> {
        let mut messages = vec![self.begin.as_str()];
        messages.extend(self.messages_of_file.iter().map(Message::message));
        messages.extend([self.end.as_str(), "commit"]);
        messages
    }

    /// What is sent to learn whether the way is free, and to change nothing. Its judgement is that
    /// of the real thing, which it ends before the file: committed means that the way is free.
    pub fn probe(&self) -> [&str; 2] {
        [self.begin.as_str(), "rollback"]
    }

    /// What is sent to hold the lock for as long as the transaction stays open. Judged as a probe.
    pub fn hold(&self) -> [&str; 1] {
        [self.begin.as_str()]
    }

    /// What ends the transaction that holds the lock, with the rows of the job. Judged by
    /// [`Transaction::judge`], with the answer to [`Transaction::hold`] before.
    pub fn release(&self) -> [&str; 2] {
        [self.end.as_str(), "commit"]
    }

    /// Whether the messages have to go one by one, for their size; their parts rely on it.
    pub fn is_large(&self) -> bool {
        self.messages_of_file.iter().any(|part| part.guarded.is_none())
    }

    /// Reads from the answers what came of it.
    pub fn judge(&self, flight: &Responses) -> TransactionResult {
        let responses = &flight.responses;
        let failed = responses
            .iter()
            .enumerate()
            .find_map(|(at, answer)| Some((at, answer.completed, answer.error.as_ref()?)));
        // The error with which the server ends a session is told as a broken connection.
        let fatal = failed.and_then(|(_, _, error)| error.ends_session().then_some(error));
        let answered = fatal.is_none() && self.all_answered(responses);
        let broken = |trouble| TransactionResult::ConnectionLost {
            completed: self.completed(responses),
            trouble,
        };
        let last_word =
            |error: &ServerError| ConnectionError::Lost(error.message.clone(), Some(error.clone()));

        match (&flight.end, fatal) {
            (Some(QueryError::Stopped(signal)), _) => {
                let too_late = failed.is_none_or(|(_, _, error)| !error.is("57014"));
                if !(answered && too_late) {
                    return TransactionResult::Cancelled { signal: *signal, confirmed: answered };
                }
            }
            (_, Some(fatal)) => return broken(last_word(fatal)),
            (Some(QueryError::Client(trouble)), _) if failed.is_none() => {
                return broken(trouble.clone());
            }
            (Some(QueryError::Server(error)), _) if failed.is_none() => {
                return broken(last_word(error));
            }
            _ => {}
        }

        match failed {
            // The server rolls back, also where the connection broke after this.
            Some((at, completed, error)) => self.failed(at, completed, error),
            // No error anywhere: the row was written in the transaction that holds the lock, and
            // the answer to COMMIT is COMMIT. The driver keeps that word to itself; it would be
            // ROLLBACK only after an error.
            None => {
                let row = responses
                    .get(self.messages_of_file.len() + 1)
                    .and_then(|answer| answer.row.clone());
                TransactionResult::Committed(row.unwrap_or_default())
            }
        }
    }

    fn all_answered(&self, responses: &[Response]) -> bool {
        let last = responses.last();
        responses.len() == self.messages_of_file.len() + 3
            && last.is_some_and(|answer| answer.completed > 0 || answer.error.is_some())
    }

    fn completed(&self, responses: &[Response]) -> usize {
        let messages_of_file = self.messages_of_file.iter().zip(responses.iter().skip(1));
        let of_file = messages_of_file.filter(|(part, _)| part.phase == Phase::Statement);
        of_file.map(|(part, answer)| part.completed(answer.completed)).sum()
    }

    fn failed(&self, message: usize, completed: usize, error: &ServerError) -> TransactionResult {
        let role = |statements: &Statements| statements.get(completed).map(|(role, _)| *role);
        let changed = ["22P02", "42P01"].contains(&error.code.as_str());
        let forbidden =
            |of_progress| TransactionResult::PermissionDenied { error: error.clone(), of_progress };
        let phase = match message.checked_sub(1) {
            None => match role(&self.opening) {
                // A standby: the history was read at another server, through a pooler or of several
                // hosts.
                Some(StatementRole::Begin) if error.is("0A000") => {
                    let trouble = ConnectionError::Lost(error.message.clone(), Some(error.clone()));
                    return TransactionResult::ConnectionLost { completed: 0, trouble };
                }
                Some(StatementRole::Lock) if error.is("22P02") => {
                    return TransactionResult::LockedOut;
                }
                // Who writes the history holds a lock on it, and its advisory lock too.
                Some(StatementRole::TableLock) if error.is("55P03") => {
                    return TransactionResult::LockedOut;
                }
                // 42P01: the table is gone.
                Some(
                    StatementRole::History | StatementRole::Progress | StatementRole::TableLock,
                ) if changed => {
                    return TransactionResult::HistoryChanged;
                }
                // drizzle-orm, which takes no lock, made it just now.
                Some(StatementRole::Table | StatementRole::ProgressTable)
                    if ["42P06", "42P07", "23505"].contains(&error.code.as_str()) =>
                {
                    return TransactionResult::HistoryChanged;
                }
                Some(StatementRole::Setting(name)) => {
                    return TransactionResult::UnsupportedSetting(name);
                }
                Some(StatementRole::Progress | StatementRole::ProgressTable)
                    if error.is("42501") =>
                {
                    return forbidden(true);
                }
                Some(StatementRole::Table | StatementRole::History | StatementRole::TableLock)
                    if error.is("42501") =>
                {
                    return forbidden(false);
                }
                Some(
                    StatementRole::Table | StatementRole::ProgressTable | StatementRole::History,
                ) => Phase::Record,
                _ => Phase::Begin,
            },
            Some(message) => match (self.messages_of_file.get(message), self.job.work) {
                (Some(part), Some(work)) => {
                    let (phase, location) = part.failed(work, completed, error);
                    return self.failure(phase, location, error);
                }
                _ if message > self.messages_of_file.len() => Phase::Commit,
                _ => match role(&self.closing) {
                    Some(StatementRole::Deferred) => Phase::Deferred,
                    Some(StatementRole::StillLocked) => Phase::LostTransaction,
                    Some(StatementRole::ProgressRow) if error.is("42501") => {
                        return forbidden(true);
                    }
                    _ if error.is("42501") => return forbidden(false),
                    _ => Phase::Record,
                },
            },
        };
        self.failure(phase, None, error)
    }

    fn failure(
        &self,
        phase: Phase,
        location: Option<ErrorLocation>,
        error: &ServerError,
    ) -> TransactionResult {
        let script = self.job.work.map(|work| work.script);
        let sets = location.as_ref().and_then(|location| {
            Some(script?.statements().get(location.statement - 1)?.kind == Kind::SetTransaction)
        });
        let has_cure = script.is_some_and(Script::no_transaction) || sets == Some(true);
        let advice = match phase {
            // Not where the server itself has found no transaction (25P01).
            Phase::LostTransaction => {
                (self.is_marked && !error.is("25P01")).then_some(Advice::ResetAll)
            }
            _ => advice(error, self.first_ever && phase == Phase::Statement),
        };
        let advice = advice.filter(|advice| !(has_cure && *advice == Advice::NoTransaction));
        TransactionResult::Failed(Box::new(failure(self.job.work, phase, location, error, advice)))
    }
}

/// What a session has set for itself, set back.
pub const RESET: [&str; 3] = ["reset session authorization", "reset role", "reset all"];

fn advice(error: &ServerError, first_ever: bool) -> Option<Advice> {
    match error.code.as_str() {
        // Duplicate table, object, schema, column, function.
        "42P07" | "42710" | "42P06" | "42701" | "42723" if first_ever => Some(Advice::Baseline),
        // What refuses a transaction block, a procedure that commits, a new value of an enum.
        "25001" | "2D000" | "55P04" => Some(Advice::NoTransaction),
        _ => None,
    }
}

fn failure(
    work: Option<StepRef<'_>>,
    phase: Phase,
    location: Option<ErrorLocation>,
    error: &ServerError,
    advice: Option<Advice>,
) -> Failure {
    Failure {
        migration: work.map(|work| work.migration.name.clone()),
        file: work.map(|work| work.migration.file.clone()),
        phase,
        statement: location.as_ref().map(|location| location.statement),
        statements: work.map_or(0, |work| work.script.statements().len()),
        position: location.as_ref().map(|location| location.place),
        excerpt: location.map(|location| location.excerpt),
        error: error.clone(),
        advice,
        step: work.map(|work| work.reached).filter(|step| step.of > 1),
        outside_transaction: work.and_then(|work| work.step.outside_transaction),
    }
}

/// How a statement outside a transaction failed; before it stood so many characters of ours.
pub fn lone_failure(work: StepRef<'_>, error: &ServerError, ours: usize) -> Failure {
    let piece =
        work.step.outside_transaction.and_then(|_| work.script.piece(work.step.statements.start));
    let location = piece.and_then(|piece| ErrorLocation::find(work, &piece, ours, 0, error));
    failure(Some(work), Phase::Statement, location, error, None)
}

/// How a setting of an earlier step failed before a statement outside a transaction.
pub fn replay_failure(work: StepRef<'_>, setting: &Piece<'_>, error: &ServerError) -> Failure {
    let location = ErrorLocation::find(work, setting, 0, 0, error);
    failure(Some(work), Phase::Replay, location, error, None)
}

/// How what we write, or ask, for a statement outside a transaction failed.
pub fn record_failure(work: StepRef<'_>, error: &ServerError) -> Failure {
    failure(Some(work), Phase::Record, None, error, None)
}

/// How a statement of ours failed about what an earlier one has left.
pub fn mending_failure(work: StepRef<'_>, error: &ServerError) -> Failure {
    failure(Some(work), Phase::Begin, None, error, None)
}

/// The limits of a statement outside a transaction, for the session. A concurrent build waits for
/// others more than once, and half done it would be in the way: it has no limit for locks.
pub fn session_limits(limits: &Timeouts, statement: &str) -> Vec<String> {
    let milliseconds = |time: Duration| format!("'{}ms'", time.as_millis());
    let mut settings = Vec::new();
    if !statement.to_ascii_lowercase().contains("concurrently") {
        settings.push(format!("set lock_timeout = {}", milliseconds(limits.lock_timeout)));
    }
    if let Some(timeout) = limits.statement_timeout {
        settings.push(format!("set statement_timeout = {}", milliseconds(timeout)));
    }
    if limits.server_version >= 14 {
        settings.push(format!("set {} = {}", CHECK_INTERVAL.0, CHECK_INTERVAL.1));
    }
    settings.push(KEEPALIVES.map(|(name, value)| format!("set {name} = {value}")).join("; "));
    settings
}

fn set_lock_timeout(limits: &Timeouts) -> String {
    format!("set local lock_timeout = '{}ms'", limits.lock_timeout.as_millis())
}

/// How long a killed runner's statement may go on: instead of until it is done.
pub const CHECK_INTERVAL: (&str, &str) = ("client_connection_check_interval", "'1s'");

/// How the server notices that our host is gone, of which nobody tells it, with all that we hold; the
/// default is two hours.
const KEEPALIVES: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "15"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

fn opening(job: &TransactionSpec<'_>, ground: &Expected<'_>, limits: &Timeouts) -> Statements {
    let Expected { table, history, progress, .. } = *ground;
    let milliseconds = |time: Duration| format!("'{}ms'", time.as_millis());
    let mut settings = vec![
        ("lock_timeout", milliseconds(limits.lock_timeout)),
        ("idle_in_transaction_session_timeout", "0".to_owned()),
    ];
    if let Some(timeout) = limits.statement_timeout {
        settings.push(("statement_timeout", milliseconds(timeout)));
    }
    if limits.server_version >= 14 {
        settings.push((CHECK_INTERVAL.0, CHECK_INTERVAL.1.to_owned()));
    }
    if limits.server_version >= 17 {
        settings.push(("transaction_timeout", "0".to_owned()));
    }
    settings.extend(KEEPALIVES.map(|(name, value)| (name, value.to_owned())));
    settings.retain(|(name, _)| !limits.unsupported_settings.contains(name));

    let modes = job.work.map(|work| work.step.modes.clone()).unwrap_or_default();
    let mut statements = vec![(StatementRole::Begin, begin(&modes))];
    if modes.isolation.is_some() {
        // Its snapshot is of its first query, and must have what the last holder of our lock
        // committed. This takes none, and whoever writes a row is done before it or waits for us.
        statements.push((StatementRole::TableLock, table.lock_sql()));
    }
    for (name, value) in settings {
        statements.push((StatementRole::Setting(name), format!("set local {name} = {value}")));
    }
    statements.push((StatementRole::Lock, lock::take_sql()));
    if limits.is_marked() {
        let (mark, held) = lock::MARK;
        statements.push((StatementRole::Setting(mark), format!("set local {mark} = '{held}'")));
    }
    if job.keeps {
        // Back to here, the locks on the tables that were looked at are given back.
        statements.push((StatementRole::Begin, "savepoint guarded".to_owned()));
    }
    if history.state.has_table() && !progress.exists {
        // Which is how it mostly is: one statement is faster than two.
        let both = format!("{} and {}", table.unchanged_sql(history), progress::missing_sql(table));
        statements.push((StatementRole::History, table::guard_sql(&both)));
    } else {
        statements.push((StatementRole::History, table.guard_sql(history)));
        statements.push((StatementRole::Progress, progress::unchanged_sql(table, progress)));
    }
    if job.keeps {
        statements.push((StatementRole::Begin, "rollback to savepoint guarded".to_owned()));
    }
    statements.extend(job.prepare.iter().map(|sql| (StatementRole::Table, sql.clone())));
    if job.makes_progress {
        statements.push((StatementRole::ProgressTable, progress::create_sql(table)));
    }
    statements
}

fn begin(modes: &Modes) -> String {
    let level = modes.isolation.unwrap_or("read committed");
    let mut begin = format!("begin isolation level {level} read write");
    match modes.deferrable {
        Some(true) => begin.push_str(" deferrable"),
        Some(false) => begin.push_str(" not deferrable"),
        None => {}
    }
    begin
}

fn joined(statements: &Statements) -> String {
    let statements: Vec<&str> = statements.iter().map(|(_, sql)| sql.as_str()).collect();
    statements.join(";\n")
}

/// A place in a migration's file.
#[derive(Debug)]
struct ErrorLocation {
    statement: usize,
    place: (usize, usize),
    excerpt: Excerpt,
}

impl ErrorLocation {
    /// Where an error is in a piece, before which stood so many characters of ours: at the server's
    /// position, else at the beginning of the statement that has not completed.
    fn find(
        work: StepRef<'_>,
        piece: &Piece<'_>,
        ours: usize,
        completed: usize,
        error: &ServerError,
    ) -> Option<ErrorLocation> {
        let (script, text) = (work.script, work.migration.sql().unwrap_or_default());
        let (statement, offset, exact) = match error.position {
            Some(Position::InStatement(position)) => {
                let position = position.saturating_sub(ours);
                let offset = sql::offset_of(text, piece.first_char + position);
                (script.statement_at(offset)?, offset, true)
            }
            Some(Position::InInternalQuery { .. }) | None => {
                let statement = piece.first_statement + completed;
                (statement, script.statements().get(statement)?.start, false)
            }
        };
        let (line, column) = sql::line_and_column(text, offset);
        let excerpt = Excerpt::of(text, line, exact.then_some(column));
        Some(ErrorLocation { statement: statement + 1, place: (line, column), excerpt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::steps::Steps;
    use crate::postgres::server_error::ServerError;
    use crate::process::signals::StopFlag;

    /// What a verdict comes to, in a word.
    fn told(verdict: &TransactionResult) -> String {
        match verdict {
            TransactionResult::Committed(row) => format!("committed {}", row.len()),
            TransactionResult::LockedOut => "locked out".to_owned(),
            TransactionResult::HistoryChanged => "history changed".to_owned(),
            TransactionResult::UnsupportedSetting(name) => format!("unsettable {name}"),
            TransactionResult::Failed(failure) => {
                format!("failed {:?} {:?}", failure.phase, failure.statement)
            }
            TransactionResult::PermissionDenied { .. } => "forbidden".to_owned(),
            TransactionResult::ConnectionLost {
                completed,
                trouble: ConnectionError::Lost(why, _),
            } => {
                format!("broken after {completed}: {why}")
            }
            TransactionResult::ConnectionLost { completed, .. } => {
                format!("broken after {completed}")
            }
            TransactionResult::Cancelled { confirmed, .. } => {
                format!("stopped, confirmed: {confirmed}")
            }
        }
    }

    fn error(severity: &str, code: &str) -> ServerError {
        ServerError {
            severity: severity.to_owned(),
            code: code.to_owned(),
            message: code.to_owned(),
            ..ServerError::default()
        }
    }

    fn done(completed: usize) -> Response {
        Response { completed, ..Response::default() }
    }

    fn failed(completed: usize, code: &str) -> Response {
        Response { completed, row: None, error: Some(error("ERROR", code)) }
    }

    /// The answer to the file's only message, behind [`IN_TRANSACTION`].
    fn ran(statements: usize) -> Response {
        done(IN_TRANSACTION_STATEMENTS + statements)
    }

    fn ran_until(statements: usize, code: &str) -> Response {
        failed(IN_TRANSACTION_STATEMENTS + statements, code)
    }

    fn lost() -> Option<QueryError> {
        Some(QueryError::Client(ConnectionError::Lost("lost".to_owned(), None)))
    }

    fn stopped() -> Option<QueryError> {
        let stop = StopFlag::default();
        stop.raise(15);
        stop.raised().map(QueryError::Stopped)
    }

    const SQL: &str = "insert into a values (1);\ninsert into a values (2);\nselect 3";

    /// Judges these answers to a migration of three statements, in one piece.
    fn judged(responses: &[Response], end: Option<QueryError>) -> String {
        judged_of(SQL, PIECE, responses, end)
    }

    fn judged_of(
        sql: &str,
        piece: usize,
        responses: &[Response],
        end: Option<QueryError>,
    ) -> String {
        let migration = Migration::new("m", "m.sql", None, sql.as_bytes().to_vec());
        let script = Script::read(sql);
        let steps = Steps::of(&script);
        let step = &steps.all()[0];
        let reached = StepNumber { step: 1, of: 1 };
        let work = Some(StepRef { migration: &migration, script: &script, step, reached });
        let job = TransactionSpec { work, ..TransactionSpec::default() };
        let mut transaction = transaction(&job);
        let pieces = script.pieces(piece);
        let waits = pieces.len() > 1;
        let part = |piece| Message::new(piece, Phase::Statement, waits);
        transaction.messages_of_file = pieces.into_iter().map(part).collect();
        told(&transaction.judge(&Responses { responses: responses.to_vec(), end }))
    }

    fn transaction<'a>(job: &'a TransactionSpec<'a>) -> Transaction<'a> {
        let table = Table::new("s", "t");
        let history = History { state: TableVersion::V0, rows: vec![], in_recovery: false };
        let progress = &Progress::default();
        let state = TableVersion::V0;
        let ground = Expected { table: &table, history: &history, state, progress };
        Transaction::new(job, &ground, &limits())
    }

    fn limits() -> Timeouts {
        Timeouts {
            lock_timeout: Duration::from_secs(5),
            statement_timeout: None,
            server_version: 18,
            unsupported_settings: vec![],
        }
    }

    /// How many statements of the opening come before this one.
    fn before(wanted: StatementRole) -> usize {
        let job =
            TransactionSpec { prepare: vec!["create".to_owned()], ..TransactionSpec::default() };
        let transaction = transaction(&job);
        transaction.opening.iter().position(|(role, _)| *role == wanted).unwrap()
    }

    /// What the server answers after an error, to the messages that are left; COMMIT it answers
    /// with ROLLBACK.
    fn skipped(answer: Response, before: &[Response]) -> Vec<Response> {
        let mut responses = before.to_vec();
        responses.push(answer);
        while responses.len() < 3 {
            responses.push(failed(0, "25P02"));
        }
        responses.push(done(1));
        responses
    }

    #[test]
    fn without_an_error_it_is_committed() {
        let all = [done(7), ran(3), done(6), done(1)];
        assert_eq!(judged(&all, None), "committed 0");
        let row = Response { completed: 7, row: Some(vec![None, None]), error: None };
        assert_eq!(judged(&[done(7), ran(3), row, done(1)], None), "committed 2");
        // The signal came too late.
        assert_eq!(judged(&all, stopped()), "committed 0");
    }

    #[test]
    fn any_missing_answer_leaves_it_open() {
        for responses in [
            &[][..],
            &[done(0)],
            &[done(7)],
            &[done(7), done(1)],
            &[done(7), ran(2)],
            &[done(7), ran(3)],
            &[done(7), ran(3), done(6)],
            &[done(7), ran(3), done(6), done(0)],
            // The answer to COMMIT came, but not whole.
            &[done(7), ran(3), done(6), done(1)],
        ] {
            let completed = responses.get(1).map_or(0, |answer| answer.completed.saturating_sub(2));
            assert_eq!(judged(responses, lost()), format!("broken after {completed}: lost"));
        }
    }

    #[test]
    fn the_servers_last_word_is_a_break_wherever_it_comes() {
        for severity in ["FATAL", "PANIC"] {
            let fatal = Response { completed: 3, row: None, error: Some(error(severity, "57P01")) };
            for at in 0..4 {
                let mut responses = vec![done(7), ran(3), done(6)];
                responses.truncate(at);
                responses.push(fatal.clone());
                let completed = [0, 1, 3, 3][at];
                let broken = format!("broken after {completed}: 57P01");
                assert_eq!(judged(&responses, lost()), broken);
                assert_eq!(judged(&responses, None), broken);
                assert_eq!(judged(&responses, stopped()), "stopped, confirmed: false");
            }
        }
        let end = Some(QueryError::Server(error("FATAL", "57P01")));
        assert_eq!(judged(&[done(7), ran(1)], end), "broken after 1: 57P01");
    }

    #[test]
    fn guards_that_do_not_hold_are_told_apart() {
        let opening = |role, code| judged(&skipped(failed(before(role), code), &[]), None);
        assert_eq!(opening(StatementRole::Lock, "22P02"), "locked out");
        assert_eq!(opening(StatementRole::History, "22P02"), "history changed");
        assert_eq!(opening(StatementRole::History, "42P01"), "history changed");
        assert_eq!(opening(StatementRole::History, "42501"), "forbidden");
        let setting = StatementRole::Setting("transaction_timeout");
        assert_eq!(opening(setting, "42704"), "unsettable transaction_timeout");
        assert_eq!(opening(StatementRole::Begin, "0A000"), "broken after 0: 0A000");
        assert_eq!(opening(StatementRole::Begin, "57014"), "failed Begin None");
        assert_eq!(opening(StatementRole::Lock, "42501"), "failed Begin None");
    }

    #[test]
    fn one_statement_guards_a_history_that_is_there_and_progress_that_is_not() {
        let guards = |state, exists| {
            let table = &Table::new("s", "t");
            let history = &History { state, rows: vec![], in_recovery: false };
            let progress = &Progress { exists, ..Progress::default() };
            let ground = Expected { table, history, state, progress };
            let statements = opening(&TransactionSpec::default(), &ground, &limits()).into_iter();
            let is_guard = |role: &StatementRole| {
                [StatementRole::History, StatementRole::Progress].contains(role)
            };
            statements.map(|(role, _)| role).filter(is_guard).collect::<Vec<_>>()
        };
        assert_eq!(guards(TableVersion::V1, false), [StatementRole::History]);
        // The table's absence is read from the catalogs, and nothing of it from a cache.
        assert_eq!(
            guards(TableVersion::NoTable, false),
            [StatementRole::History, StatementRole::Progress]
        );
        assert_eq!(
            guards(TableVersion::V1, true),
            [StatementRole::History, StatementRole::Progress]
        );
    }

    #[test]
    fn a_guard_that_did_not_hold_is_known_although_the_connection_broke_afterwards() {
        let responses = [failed(before(StatementRole::Lock), "22P02")];
        assert_eq!(judged(&responses, lost()), "locked out");
    }

    #[test]
    fn a_statement_that_failed_is_counted() {
        let statement =
            |completed| judged(&skipped(ran_until(completed, "23505"), &[done(7)]), None);
        assert_eq!(statement(0), "failed Statement Some(1)");
        assert_eq!(statement(2), "failed Statement Some(3)");
        // The server rolls back without us.
        let responses = [done(7), ran_until(1, "23505")];
        assert_eq!(judged(&responses, lost()), "failed Statement Some(2)");
    }

    #[test]
    fn statements_are_counted_across_pieces() {
        let responses =
            [done(7), done(1), failed(0, "23505"), Response::default(), done(0), done(1)];
        assert_eq!(judged_of(SQL, 1, &responses, None), "failed Statement Some(2)");
        assert_eq!(judged_of(SQL, 1, &[done(7), done(1), done(1)], lost()), "broken after 2: lost");
    }

    #[test]
    fn the_end_of_a_transaction_fails_in_its_own_ways() {
        let before = [done(7), ran(3)];
        let closing = |completed, code| judged(&skipped(failed(completed, code), &before), None);
        assert_eq!(closing(0, "23503"), "failed Deferred None");
        assert_eq!(closing(1, "22P02"), "failed LostTransaction None");
        assert_eq!(closing(6, "23502"), "failed Record None");
        assert_eq!(closing(6, "42501"), "forbidden");
        let commit = [done(7), ran(3), done(6), failed(0, "40001")];
        assert_eq!(judged(&commit, None), "failed Commit None");
    }

    #[test]
    fn a_signal_is_told_by_what_the_server_made_of_it() {
        let cancelled = skipped(ran_until(1, "57014"), &[done(7)]);
        assert_eq!(judged(&cancelled, stopped()), "stopped, confirmed: true");
        // A statement failed before the cancel came: that is what there is to act on.
        let failed_before = skipped(ran_until(1, "23505"), &[done(7)]);
        assert_eq!(judged(&failed_before, stopped()), "failed Statement Some(2)");
        assert_eq!(judged(&[done(7), done(1)], stopped()), "stopped, confirmed: false");
        assert_eq!(
            judged(&[done(7), ran_until(1, "57014")], stopped()),
            "stopped, confirmed: false"
        );
        // Without a signal of ours, someone else cancelled it.
        assert_eq!(judged(&cancelled, None), "failed Statement Some(2)");
    }

    #[test]
    fn what_finds_no_transaction_is_not_run_and_is_told_as_that() {
        assert_eq!(
            judged(&skipped(failed(0, "25P01"), &[done(7)]), None),
            "failed LostTransaction None"
        );
        // The file's own savepoint is its own affair.
        assert_eq!(
            judged(&skipped(ran_until(0, "25P01"), &[done(7)]), None),
            "failed Statement Some(1)"
        );
    }

    #[test]
    fn a_probe_is_judged_by_its_opening() {
        assert_eq!(judged(&[done(7), done(1)], None), "committed 0");
        let locked = [failed(before(StatementRole::Lock), "22P02"), done(1)];
        assert_eq!(judged(&locked, None), "locked out");
        assert_eq!(judged(&[done(7)], lost()), "broken after 0: lost");
    }
}
