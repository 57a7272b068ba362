//! One transaction as one flight of messages, and what came of it. Pure.
//!
//! The messages are: begin with our settings and the guards; what the file has set before; the file
//! or its unit, as it is; the reset with the history row and the progress; COMMIT. They leave in one
//! round trip. A guard that does not hold raises an error, and then the server skips everything that
//! follows; and where the transaction has not even begun, it refuses what follows: so lock, guards,
//! work and rows live and die together, whoever is killed when.

use std::time::Duration;

use crate::apply::event::{Advice, Excerpt, Failure, Phase, Reached};
use crate::apply::lock;
use crate::history::progress::{self, Progress};
use crate::history::table::{self, Entry, History, State, Table};
use crate::migrations::migration::Migration;
use crate::migrations::steps::Unit;
use crate::postgres::server_error::{PgError, Position};
use crate::postgres::session::{Answer, Cause, Flight, Trouble};
use crate::process::signals::Signal;
use crate::sql::{self, Kind, Modes, Piece, Script};

/// What is sent at once: a longer file goes in pieces, so that the server need not hold it whole.
const PIECE: usize = 1 << 20;

/// Time limits for the statements of a migration, and what the server takes of them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a statement may queue for a table lock; zero is for ever.
    pub lock_timeout: Duration,
    /// How long a statement may run; zero is for ever, none is what the server has.
    pub statement_timeout: Option<Duration>,
    /// The server's major version.
    pub server_version: u32,
    /// Settings to do without: this server turned out not to take them, or (the lock's mark) a
    /// migration may set them back.
    pub unsettable: Vec<&'static str>,
}

impl Limits {
    /// Whether a transaction has the lock's mark.
    fn is_marked(&self) -> bool {
        !self.unsettable.contains(&lock::MARK.0)
    }
}

/// What a statement of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
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
    Mark,
}

type Steps = Vec<(Step, String)>;

/// What of a migration a transaction runs.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The migration.
    pub migration: &'a Migration,
    /// Its file, read.
    pub script: &'a Script<'a>,
    /// The unit.
    pub unit: &'a Unit,
    /// Which one that is, from 1, and of how many.
    pub reached: Reached,
}

impl<'a> Work<'a> {
    /// What is sent of the file, in pieces where it is long.
    fn pieces(&self) -> Vec<Piece<'a>> {
        let statements = self.unit.statements.clone();
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
pub struct Job<'a> {
    /// What to run; without that, the rows are all there is to it.
    pub work: Option<Work<'a>>,
    /// What has to be done to the history table first.
    pub prepare: Vec<String>,
    /// Whether the progress table has to be made first.
    pub makes_progress: bool,
    /// The rows to write.
    pub entries: Vec<Entry>,
    /// What to write of the progress.
    pub marks: Vec<String>,
    /// Whether its transaction is there to hold the lock for another connection's work, which may
    /// need every table.
    pub keeps: bool,
}

/// What a transaction is planned on, and guards.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Where the history is.
    pub table: &'a Table,
    /// The history.
    pub history: &'a History,
    /// The history table's state after the job's preparation.
    pub state: State,
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
struct Part<'a> {
    piece: Piece<'a>,
    phase: Phase,
    /// The piece behind [`IN_TRANSACTION`]; none where it waits for the answers to all before it.
    guarded: Option<String>,
}

impl<'a> Part<'a> {
    fn new(piece: Piece<'a>, phase: Phase, waits: bool) -> Part<'a> {
        let guarded = (!waits).then(|| format!("{IN_TRANSACTION}{}", piece.text));
        Part { piece, phase, guarded }
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
    fn failed(&self, work: Work<'_>, completed: usize, error: &PgError) -> (Phase, Option<Spot>) {
        let mut ours = 0;
        if self.guarded.is_some() {
            if completed < IN_TRANSACTION_STATEMENTS && error.is("25P01") {
                return (Phase::LostTransaction, None);
            }
            ours = IN_TRANSACTION.chars().count();
        }
        (self.phase, Spot::find(work, &self.piece, ours, self.completed(completed), error))
    }
}

/// A transaction, made ready to be sent.
#[derive(Debug)]
pub struct Transaction<'a> {
    job: &'a Job<'a>,
    first_ever: bool,
    is_marked: bool,
    opening: Steps,
    parts: Vec<Part<'a>>,
    closing: Steps,
    begin: String,
    end: String,
}

/// What a flight came to.
#[derive(Debug)]
pub enum Verdict {
    /// The server committed it; with what the statement that wrote the row gave back.
    Committed(Vec<Option<String>>),
    /// Another runner holds the lock.
    LockedOut,
    /// The history or the progress is not what the plan was made from.
    HistoryChanged,
    /// The server does not take this setting.
    Unsettable(&'static str),
    /// Rolled back.
    Failed(Box<Failure>),
    /// Rolled back: our role may not do this to the history, or to the progress.
    Forbidden {
        /// What the server said.
        error: PgError,
        /// Whether it is about the progress.
        of_progress: bool,
    },
    /// The connection ended, and what became of the migration is open.
    Broken {
        /// How many statements of the file are known to have completed.
        completed: usize,
        /// What broke.
        trouble: Trouble,
    },
    /// A signal ended it.
    Stopped {
        /// Which.
        signal: Signal,
        /// Whether the server confirmed the roll-back.
        confirmed: bool,
    },
}

impl<'a> Transaction<'a> {
    /// Makes the messages for a database that is so.
    pub fn new(job: &'a Job<'a>, ground: &Ground<'_>, limits: &Limits) -> Transaction<'a> {
        let Ground { table, history, state, .. } = *ground;
        let is_marked = limits.is_marked();
        let opening = opening(job, ground, limits);
        let mut closing = vec![
            // Whatever was put off to the end of the transaction fails here, and not in a reset.
            (Step::Deferred, "set constraints all immediate".to_owned()),
            // A COMMIT that we did not see for what it is would let the row in alone.
            (Step::StillLocked, lock::still_held(is_marked)),
        ];
        closing.extend(RESET.map(|sql| (Step::Reset, sql.to_owned())));
        closing.push((Step::Reset, "discard temp".to_owned()));
        // The reset took it away, and the history may be locked too.
        closing.push((Step::Setting("lock_timeout"), set_lock_timeout(limits)));
        closing.extend(job.entries.iter().map(|entry| (Step::Row, table.insert(entry, state))));
        closing.extend(job.marks.iter().map(|mark| (Step::Mark, mark.clone())));
        let pieces = job.work.map(|work| work.pieces()).unwrap_or_default();
        let replay = job.work.map(|work| work.unit.replay(work.script)).unwrap_or_default();
        let waits = pieces.len() > 1;
        let part = |phase| move |piece| Part::new(piece, phase, waits);
        let replay = replay.into_iter().map(part(Phase::Replay));
        Transaction {
            job,
            first_ever: history.rows.is_empty(),
            is_marked,
            begin: joined(&opening),
            end: joined(&closing),
            opening,
            parts: replay.chain(pieces.into_iter().map(part(Phase::Statement))).collect(),
            closing,
        }
    }

    /// What is sent.
    pub fn messages(&self) -> Vec<&str> {
        let mut messages = vec![self.begin.as_str()];
        messages.extend(self.parts.iter().map(Part::message));
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
        self.parts.iter().any(|part| part.guarded.is_none())
    }

    /// Reads from the answers what came of it.
    pub fn judge(&self, flight: &Flight) -> Verdict {
        let answers = &flight.answers;
        let failed = answers
            .iter()
            .enumerate()
            .find_map(|(at, answer)| Some((at, answer.completed, answer.error.as_ref()?)));
        // The error with which the server ends a session is told as a broken connection.
        let fatal = failed.and_then(|(_, _, error)| error.ends_session().then_some(error));
        let answered = fatal.is_none() && self.all_answered(answers);
        let broken = |trouble| Verdict::Broken { completed: self.completed(answers), trouble };
        let last_word = |error: &PgError| Trouble::Lost(error.message.clone(), Some(error.clone()));

        match (&flight.end, fatal) {
            (Some(Cause::Stopped(signal)), _) => {
                let too_late = failed.is_none_or(|(_, _, error)| !error.is("57014"));
                if !(answered && too_late) {
                    return Verdict::Stopped { signal: *signal, confirmed: answered };
                }
            }
            (_, Some(fatal)) => return broken(last_word(fatal)),
            (Some(Cause::Client(trouble)), _) if failed.is_none() => {
                return broken(trouble.clone());
            }
            (Some(Cause::Server(error)), _) if failed.is_none() => return broken(last_word(error)),
            _ => {}
        }

        match failed {
            // The server rolls back, also where the connection broke after this.
            Some((at, completed, error)) => self.failed(at, completed, error),
            // No error anywhere: the row was written in the transaction that holds the lock, and
            // the answer to COMMIT is COMMIT. The driver keeps that word to itself; it would be
            // ROLLBACK only after an error.
            None => {
                let row = answers.get(self.parts.len() + 1).and_then(|answer| answer.row.clone());
                Verdict::Committed(row.unwrap_or_default())
            }
        }
    }

    fn all_answered(&self, answers: &[Answer]) -> bool {
        let last = answers.last();
        answers.len() == self.parts.len() + 3
            && last.is_some_and(|answer| answer.completed > 0 || answer.error.is_some())
    }

    fn completed(&self, answers: &[Answer]) -> usize {
        let parts = self.parts.iter().zip(answers.iter().skip(1));
        let of_file = parts.filter(|(part, _)| part.phase == Phase::Statement);
        of_file.map(|(part, answer)| part.completed(answer.completed)).sum()
    }

    fn failed(&self, message: usize, completed: usize, error: &PgError) -> Verdict {
        let step = |steps: &Steps| steps.get(completed).map(|(step, _)| *step);
        let changed = ["22P02", "42P01"].contains(&error.code.as_str());
        let forbidden = |of_progress| Verdict::Forbidden { error: error.clone(), of_progress };
        let phase = match message.checked_sub(1) {
            None => match step(&self.opening) {
                // A standby: the history was read at another server, through a pooler or of several
                // hosts.
                Some(Step::Begin) if error.is("0A000") => {
                    let trouble = Trouble::Lost(error.message.clone(), Some(error.clone()));
                    return Verdict::Broken { completed: 0, trouble };
                }
                Some(Step::Lock) if error.is("22P02") => return Verdict::LockedOut,
                // Who writes the history holds a lock on it, and its advisory lock too.
                Some(Step::TableLock) if error.is("55P03") => return Verdict::LockedOut,
                // 42P01: the table is gone.
                Some(Step::History | Step::Progress | Step::TableLock) if changed => {
                    return Verdict::HistoryChanged;
                }
                // drizzle-orm, which takes no lock, made it just now.
                Some(Step::Table | Step::ProgressTable)
                    if ["42P06", "42P07", "23505"].contains(&error.code.as_str()) =>
                {
                    return Verdict::HistoryChanged;
                }
                Some(Step::Setting(name)) => return Verdict::Unsettable(name),
                Some(Step::Progress | Step::ProgressTable) if error.is("42501") => {
                    return forbidden(true);
                }
                Some(Step::Table | Step::History | Step::TableLock) if error.is("42501") => {
                    return forbidden(false);
                }
                Some(Step::Table | Step::ProgressTable | Step::History) => Phase::Record,
                _ => Phase::Begin,
            },
            Some(message) => match (self.parts.get(message), self.job.work) {
                (Some(part), Some(work)) => {
                    let (phase, spot) = part.failed(work, completed, error);
                    return self.failure(phase, spot, error);
                }
                _ if message > self.parts.len() => Phase::Commit,
                _ => match step(&self.closing) {
                    Some(Step::Deferred) => Phase::Deferred,
                    Some(Step::StillLocked) => Phase::LostTransaction,
                    Some(Step::Mark) if error.is("42501") => return forbidden(true),
                    _ if error.is("42501") => return forbidden(false),
                    _ => Phase::Record,
                },
            },
        };
        self.failure(phase, None, error)
    }

    fn failure(&self, phase: Phase, spot: Option<Spot>, error: &PgError) -> Verdict {
        let script = self.job.work.map(|work| work.script);
        let sets = spot.as_ref().and_then(|spot| {
            Some(script?.statements().get(spot.statement - 1)?.kind == Kind::SetTransaction)
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
        Verdict::Failed(Box::new(failure(self.job.work, phase, spot, error, advice)))
    }
}

/// What a session has set for itself, set back.
pub const RESET: [&str; 3] = ["reset session authorization", "reset role", "reset all"];

fn advice(error: &PgError, first_ever: bool) -> Option<Advice> {
    match error.code.as_str() {
        // Duplicate table, object, schema, column, function.
        "42P07" | "42710" | "42P06" | "42701" | "42723" if first_ever => Some(Advice::Baseline),
        // What refuses a transaction block, a procedure that commits, a new value of an enum.
        "25001" | "2D000" | "55P04" => Some(Advice::NoTransaction),
        _ => None,
    }
}

fn failure(
    work: Option<Work<'_>>,
    phase: Phase,
    spot: Option<Spot>,
    error: &PgError,
    advice: Option<Advice>,
) -> Failure {
    Failure {
        migration: work.map(|work| work.migration.name.clone()),
        file: work.map(|work| work.migration.file.clone()),
        phase,
        statement: spot.as_ref().map(|spot| spot.statement),
        statements: work.map_or(0, |work| work.script.statements().len()),
        place: spot.as_ref().map(|spot| spot.place),
        excerpt: spot.map(|spot| spot.excerpt),
        error: error.clone(),
        advice,
        reached: work.map(|work| work.reached).filter(|reached| reached.of > 1),
        alone: work.and_then(|work| work.unit.alone),
    }
}

/// How a statement outside a transaction failed; before it stood so many characters of ours.
pub fn lone_failure(work: Work<'_>, error: &PgError, ours: usize) -> Failure {
    let piece = work.unit.alone.and_then(|_| work.script.piece(work.unit.statements.start));
    let spot = piece.and_then(|piece| Spot::find(work, &piece, ours, 0, error));
    failure(Some(work), Phase::Statement, spot, error, None)
}

/// How a setting of an earlier unit failed before a statement outside a transaction.
pub fn replay_failure(work: Work<'_>, setting: &Piece<'_>, error: &PgError) -> Failure {
    let spot = Spot::find(work, setting, 0, 0, error);
    failure(Some(work), Phase::Replay, spot, error, None)
}

/// How what we write, or ask, for a statement outside a transaction failed.
pub fn record_failure(work: Work<'_>, error: &PgError) -> Failure {
    failure(Some(work), Phase::Record, None, error, None)
}

/// How a statement of ours failed about what an earlier one has left.
pub fn mending_failure(work: Work<'_>, error: &PgError) -> Failure {
    failure(Some(work), Phase::Begin, None, error, None)
}

/// The limits of a statement outside a transaction, for the session. A concurrent build waits for
/// others more than once, and half done it would be in the way: it has no limit for locks.
pub fn session_limits(limits: &Limits, statement: &str) -> Vec<String> {
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

fn set_lock_timeout(limits: &Limits) -> String {
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

fn opening(job: &Job<'_>, ground: &Ground<'_>, limits: &Limits) -> Steps {
    let Ground { table, history, progress, .. } = *ground;
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
    settings.retain(|(name, _)| !limits.unsettable.contains(name));

    let modes = job.work.map(|work| work.unit.modes.clone()).unwrap_or_default();
    let mut steps = vec![(Step::Begin, begin(&modes))];
    if modes.isolation.is_some() {
        // Its snapshot is of its first query, and must have what the last holder of our lock
        // committed. This takes none, and whoever writes a row is done before it or waits for us.
        steps.push((Step::TableLock, table.lock()));
    }
    for (name, value) in settings {
        steps.push((Step::Setting(name), format!("set local {name} = {value}")));
    }
    steps.push((Step::Lock, lock::take()));
    if limits.is_marked() {
        let (mark, held) = lock::MARK;
        steps.push((Step::Setting(mark), format!("set local {mark} = '{held}'")));
    }
    if job.keeps {
        // Back to here, the locks on the tables that were looked at are given back.
        steps.push((Step::Begin, "savepoint guarded".to_owned()));
    }
    if history.state.has_table() && !progress.exists {
        // Which is how it mostly is: one statement is faster than two.
        let both = format!("{} and {}", table.unchanged(history), progress::missing(table));
        steps.push((Step::History, table::guard(&both)));
    } else {
        steps.push((Step::History, table.guard(history)));
        steps.push((Step::Progress, progress::unchanged(table, progress)));
    }
    if job.keeps {
        steps.push((Step::Begin, "rollback to savepoint guarded".to_owned()));
    }
    steps.extend(job.prepare.iter().map(|sql| (Step::Table, sql.clone())));
    if job.makes_progress {
        steps.push((Step::ProgressTable, progress::create(table)));
    }
    steps
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

fn joined(steps: &Steps) -> String {
    let statements: Vec<&str> = steps.iter().map(|(_, sql)| sql.as_str()).collect();
    statements.join(";\n")
}

/// A place in a migration's file.
#[derive(Debug)]
struct Spot {
    statement: usize,
    place: (usize, usize),
    excerpt: Excerpt,
}

impl Spot {
    /// Where an error is in a piece, before which stood so many characters of ours: at the server's
    /// position, else at the beginning of the statement that has not completed.
    fn find(
        work: Work<'_>,
        piece: &Piece<'_>,
        ours: usize,
        completed: usize,
        error: &PgError,
    ) -> Option<Spot> {
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
        Some(Spot { statement: statement + 1, place: (line, column), excerpt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::steps::Units;
    use crate::postgres::server_error::PgError;
    use crate::process::signals::Stop;

    /// What a verdict comes to, in a word.
    fn told(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Committed(row) => format!("committed {}", row.len()),
            Verdict::LockedOut => "locked out".to_owned(),
            Verdict::HistoryChanged => "history changed".to_owned(),
            Verdict::Unsettable(name) => format!("unsettable {name}"),
            Verdict::Failed(failure) => {
                format!("failed {:?} {:?}", failure.phase, failure.statement)
            }
            Verdict::Forbidden { .. } => "forbidden".to_owned(),
            Verdict::Broken { completed, trouble: Trouble::Lost(why, _) } => {
                format!("broken after {completed}: {why}")
            }
            Verdict::Broken { completed, .. } => format!("broken after {completed}"),
            Verdict::Stopped { confirmed, .. } => format!("stopped, confirmed: {confirmed}"),
        }
    }

    fn error(severity: &str, code: &str) -> PgError {
        PgError {
            severity: severity.to_owned(),
            code: code.to_owned(),
            message: code.to_owned(),
            ..PgError::default()
        }
    }

    fn done(completed: usize) -> Answer {
        Answer { completed, ..Answer::default() }
    }

    fn failed(completed: usize, code: &str) -> Answer {
        Answer { completed, row: None, error: Some(error("ERROR", code)) }
    }

    /// The answer to the file's only message, behind [`IN_TRANSACTION`].
    fn ran(statements: usize) -> Answer {
        done(IN_TRANSACTION_STATEMENTS + statements)
    }

    fn ran_until(statements: usize, code: &str) -> Answer {
        failed(IN_TRANSACTION_STATEMENTS + statements, code)
    }

    fn lost() -> Option<Cause> {
        Some(Cause::Client(Trouble::Lost("lost".to_owned(), None)))
    }

    fn stopped() -> Option<Cause> {
        let stop = Stop::default();
        stop.raise(15);
        stop.raised().map(Cause::Stopped)
    }

    const SQL: &str = "insert into a values (1);\ninsert into a values (2);\nselect 3";

    /// Judges these answers to a migration of three statements, in one piece.
    fn judged(answers: &[Answer], end: Option<Cause>) -> String {
        judged_of(SQL, PIECE, answers, end)
    }

    fn judged_of(sql: &str, piece: usize, answers: &[Answer], end: Option<Cause>) -> String {
        let migration = Migration::new("m", "m.sql", None, sql.as_bytes().to_vec());
        let script = Script::read(sql);
        let units = Units::of(&script);
        let unit = &units.all()[0];
        let reached = Reached { unit: 1, of: 1 };
        let work = Some(Work { migration: &migration, script: &script, unit, reached });
        let job = Job { work, ..Job::default() };
        let mut transaction = transaction(&job);
        let pieces = script.pieces(piece);
        let waits = pieces.len() > 1;
        let part = |piece| Part::new(piece, Phase::Statement, waits);
        transaction.parts = pieces.into_iter().map(part).collect();
        told(&transaction.judge(&Flight { answers: answers.to_vec(), end }))
    }

    fn transaction<'a>(job: &'a Job<'a>) -> Transaction<'a> {
        let table = Table::new("s", "t");
        let history = History { state: State::Unnamed, rows: vec![], standby: false };
        let progress = &Progress::default();
        let state = State::Unnamed;
        let ground = Ground { table: &table, history: &history, state, progress };
        Transaction::new(job, &ground, &limits())
    }

    fn limits() -> Limits {
        Limits {
            lock_timeout: Duration::from_secs(5),
            statement_timeout: None,
            server_version: 18,
            unsettable: vec![],
        }
    }

    /// How many statements of the opening come before this one.
    fn before(wanted: Step) -> usize {
        let job = Job { prepare: vec!["create".to_owned()], ..Job::default() };
        let transaction = transaction(&job);
        transaction.opening.iter().position(|(step, _)| *step == wanted).unwrap()
    }

    /// What the server answers after an error, to the messages that are left; COMMIT it answers
    /// with ROLLBACK.
    fn skipped(answer: Answer, before: &[Answer]) -> Vec<Answer> {
        let mut answers = before.to_vec();
        answers.push(answer);
        while answers.len() < 3 {
            answers.push(failed(0, "25P02"));
        }
        answers.push(done(1));
        answers
    }

    #[test]
    fn without_an_error_it_is_committed() {
        let all = [done(7), ran(3), done(6), done(1)];
        assert_eq!(judged(&all, None), "committed 0");
        let row = Answer { completed: 7, row: Some(vec![None, None]), error: None };
        assert_eq!(judged(&[done(7), ran(3), row, done(1)], None), "committed 2");
        // The signal came too late.
        assert_eq!(judged(&all, stopped()), "committed 0");
    }

    #[test]
    fn any_missing_answer_leaves_it_open() {
        for answers in [
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
            let completed = answers.get(1).map_or(0, |answer| answer.completed.saturating_sub(2));
            assert_eq!(judged(answers, lost()), format!("broken after {completed}: lost"));
        }
    }

    #[test]
    fn the_servers_last_word_is_a_break_wherever_it_comes() {
        for severity in ["FATAL", "PANIC"] {
            let fatal = Answer { completed: 3, row: None, error: Some(error(severity, "57P01")) };
            for at in 0..4 {
                let mut answers = vec![done(7), ran(3), done(6)];
                answers.truncate(at);
                answers.push(fatal.clone());
                let completed = [0, 1, 3, 3][at];
                let broken = format!("broken after {completed}: 57P01");
                assert_eq!(judged(&answers, lost()), broken);
                assert_eq!(judged(&answers, None), broken);
                assert_eq!(judged(&answers, stopped()), "stopped, confirmed: false");
            }
        }
        let end = Some(Cause::Server(error("FATAL", "57P01")));
        assert_eq!(judged(&[done(7), ran(1)], end), "broken after 1: 57P01");
    }

    #[test]
    fn guards_that_do_not_hold_are_told_apart() {
        let opening = |step, code| judged(&skipped(failed(before(step), code), &[]), None);
        assert_eq!(opening(Step::Lock, "22P02"), "locked out");
        assert_eq!(opening(Step::History, "22P02"), "history changed");
        assert_eq!(opening(Step::History, "42P01"), "history changed");
        assert_eq!(opening(Step::History, "42501"), "forbidden");
        let setting = Step::Setting("transaction_timeout");
        assert_eq!(opening(setting, "42704"), "unsettable transaction_timeout");
        assert_eq!(opening(Step::Begin, "0A000"), "broken after 0: 0A000");
        assert_eq!(opening(Step::Begin, "57014"), "failed Begin None");
        assert_eq!(opening(Step::Lock, "42501"), "failed Begin None");
    }

    #[test]
    fn one_statement_guards_a_history_that_is_there_and_progress_that_is_not() {
        let guards = |state, exists| {
            let table = &Table::new("s", "t");
            let history = &History { state, rows: vec![], standby: false };
            let progress = &Progress { exists, ..Progress::default() };
            let ground = Ground { table, history, state, progress };
            let steps = opening(&Job::default(), &ground, &limits()).into_iter();
            let is_guard = |step: &Step| [Step::History, Step::Progress].contains(step);
            steps.map(|(step, _)| step).filter(is_guard).collect::<Vec<_>>()
        };
        assert_eq!(guards(State::Named, false), [Step::History]);
        // The table's absence is read from the catalogs, and nothing of it from a cache.
        assert_eq!(guards(State::NoTable, false), [Step::History, Step::Progress]);
        assert_eq!(guards(State::Named, true), [Step::History, Step::Progress]);
    }

    #[test]
    fn a_guard_that_did_not_hold_is_known_although_the_connection_broke_afterwards() {
        let answers = [failed(before(Step::Lock), "22P02")];
        assert_eq!(judged(&answers, lost()), "locked out");
    }

    #[test]
    fn a_statement_that_failed_is_counted() {
        let statement =
            |completed| judged(&skipped(ran_until(completed, "23505"), &[done(7)]), None);
        assert_eq!(statement(0), "failed Statement Some(1)");
        assert_eq!(statement(2), "failed Statement Some(3)");
        // The server rolls back without us.
        let answers = [done(7), ran_until(1, "23505")];
        assert_eq!(judged(&answers, lost()), "failed Statement Some(2)");
    }

    #[test]
    fn statements_are_counted_across_pieces() {
        let answers = [done(7), done(1), failed(0, "23505"), Answer::default(), done(0), done(1)];
        assert_eq!(judged_of(SQL, 1, &answers, None), "failed Statement Some(2)");
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
        let locked = [failed(before(Step::Lock), "22P02"), done(1)];
        assert_eq!(judged(&locked, None), "locked out");
        assert_eq!(judged(&[done(7)], lost()), "broken after 0: lost");
    }
}
