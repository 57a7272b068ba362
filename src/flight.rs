//! One transaction as one flight of messages, and what came of it. Pure.
//!
//! The messages are: begin with our settings and the guards; the file, as it is; the reset with the
//! history row; COMMIT. They leave in one round trip. A guard that does not hold raises an error,
//! and then the server skips everything that follows: so lock, guards, work and row live and die
//! together, whoever is killed when.

use std::time::Duration;

use crate::database::{Answer, Cause, Flight, Trouble};
use crate::history::{Entry, History, State, Table};
use crate::lock;
use crate::migration::Migration;
use crate::pg_error::{PgError, Position};
use crate::report::{Advice, Excerpt, Failure, Phase};
use crate::signals::Signal;
use crate::sql::{self, Piece, Script};

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
    /// Settings that this server turned out not to take.
    pub unsettable: Vec<&'static str>,
}

/// What a statement of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    Setting(&'static str),
    Lock,
    History,
    Table,
    Deferred,
    StillLocked,
    Reset,
    Row,
}

type Steps = Vec<(Step, String)>;

/// What one transaction is to do.
#[derive(Debug)]
pub struct Job<'a> {
    /// The file to run; without one, the rows are all there is to it.
    pub file: Option<(&'a Migration, &'a Script<'a>)>,
    /// What has to be done to the history table first.
    pub prepare: Vec<String>,
    /// The rows to write.
    pub entries: Vec<Entry>,
}

/// A transaction, made ready to be sent.
#[derive(Debug)]
pub struct Unit<'a> {
    job: &'a Job<'a>,
    first_ever: bool,
    opening: Steps,
    pieces: Vec<Piece<'a>>,
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
    /// The history is not what the plan was made from.
    HistoryChanged,
    /// The server does not take this setting.
    Unsettable(&'static str),
    /// Rolled back.
    Failed(Box<Failure>),
    /// Rolled back: our role may not do this to the history.
    Forbidden(PgError),
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

impl<'a> Unit<'a> {
    /// Makes the messages for a database that has this history; `state` is the table's after the
    /// job's preparation.
    pub fn new(
        job: &'a Job<'a>,
        table: &Table,
        history: &History,
        state: State,
        limits: &Limits,
    ) -> Unit<'a> {
        let opening = opening(job, table, history, limits);
        let mut closing = vec![
            // Whatever was put off to the end of the transaction fails here, and not in a reset.
            (Step::Deferred, "set constraints all immediate".to_owned()),
            // A COMMIT that we did not see for what it is would let the row in alone.
            (Step::StillLocked, lock::still_held()),
            (Step::Reset, "reset session authorization".to_owned()),
            (Step::Reset, "reset role".to_owned()),
            (Step::Reset, "reset all".to_owned()),
            (Step::Reset, "discard temp".to_owned()),
        ];
        closing.extend(job.entries.iter().map(|entry| (Step::Row, table.insert(entry, state))));
        Unit {
            job,
            first_ever: history.rows.is_empty(),
            begin: joined(&opening),
            end: joined(&closing),
            opening,
            pieces: job.file.map(|(_, script)| script.pieces(PIECE)).unwrap_or_default(),
            closing,
        }
    }

    /// What is sent.
    pub fn messages(&self) -> Vec<&str> {
        let pieces = self.pieces.iter().map(|piece| piece.text.as_ref());
        let mut messages = vec![self.begin.as_str()];
        messages.extend(pieces);
        messages.extend([self.end.as_str(), "commit"]);
        messages
    }

    /// What is sent to learn whether the way is free, and to change nothing. Its judgement is that
    /// of the real thing, which it ends before the file: committed means that the way is free.
    pub fn probe(&self) -> [&str; 2] {
        [self.begin.as_str(), "rollback"]
    }

    /// Whether the messages have to go one by one, for their size.
    pub fn is_large(&self) -> bool {
        self.pieces.len() > 1
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
                let row = answers.get(self.pieces.len() + 1).and_then(|answer| answer.row.clone());
                Verdict::Committed(row.unwrap_or_default())
            }
        }
    }

    fn all_answered(&self, answers: &[Answer]) -> bool {
        let last = answers.last();
        answers.len() == self.pieces.len() + 3
            && last.is_some_and(|answer| answer.completed > 0 || answer.error.is_some())
    }

    fn completed(&self, answers: &[Answer]) -> usize {
        answers.iter().skip(1).take(self.pieces.len()).map(|answer| answer.completed).sum()
    }

    fn failed(&self, message: usize, completed: usize, error: &PgError) -> Verdict {
        let step = |steps: &Steps| steps.get(completed).map(|(step, _)| *step);
        let phase = match message.checked_sub(1) {
            None => match step(&self.opening) {
                Some(Step::Lock) if error.is("22P02") => return Verdict::LockedOut,
                // 42P01: the table is gone.
                Some(Step::History) if error.is("22P02") || error.is("42P01") => {
                    return Verdict::HistoryChanged;
                }
                Some(Step::Setting(name)) => return Verdict::Unsettable(name),
                Some(Step::Table | Step::History) => Phase::Record,
                _ => Phase::Begin,
            },
            Some(message) => match self.pieces.get(message) {
                Some(piece) => {
                    let spot = self.job.file.and_then(|(migration, script)| {
                        let text = migration.sql().unwrap_or_default();
                        Spot::find(script, text, piece, completed, error)
                    });
                    return self.failure(Phase::Statement, spot, error);
                }
                None if message > self.pieces.len() => Phase::Commit,
                None => match step(&self.closing) {
                    Some(Step::Deferred) => Phase::Deferred,
                    Some(Step::StillLocked) => Phase::LostTransaction,
                    _ => Phase::Record,
                },
            },
        };
        if phase == Phase::Record && error.is("42501") {
            return Verdict::Forbidden(error.clone());
        }
        self.failure(phase, None, error)
    }

    fn failure(&self, phase: Phase, spot: Option<Spot>, error: &PgError) -> Verdict {
        // Duplicate table, object, schema, column, function.
        let exists = ["42P07", "42710", "42P06", "42701", "42723"].contains(&error.code.as_str());
        let file = self.job.file;
        Verdict::Failed(Box::new(Failure {
            migration: file.map(|(migration, _)| migration.name.clone()),
            file: file.map(|(migration, _)| migration.file.clone()),
            phase,
            statement: spot.as_ref().map(|spot| spot.statement),
            statements: file.map_or(0, |(_, script)| script.statements().len()),
            place: spot.as_ref().map(|spot| spot.place),
            excerpt: spot.map(|spot| spot.excerpt),
            error: error.clone(),
            advice: (exists && self.first_ever).then_some(Advice::Baseline),
        }))
    }
}

fn opening(job: &Job<'_>, table: &Table, history: &History, limits: &Limits) -> Steps {
    let milliseconds = |time: Duration| format!("'{}ms'", time.as_millis());
    let mut settings = vec![
        ("lock_timeout", milliseconds(limits.lock_timeout)),
        ("idle_in_transaction_session_timeout", "0".to_owned()),
    ];
    if let Some(timeout) = limits.statement_timeout {
        settings.push(("statement_timeout", milliseconds(timeout)));
    }
    if limits.server_version >= 14 {
        // A killed runner's statement ends within a second, instead of when it is done.
        settings.push(("client_connection_check_interval", "'1s'".to_owned()));
    }
    if limits.server_version >= 17 {
        settings.push(("transaction_timeout", "0".to_owned()));
    }
    settings.retain(|(name, _)| !limits.unsettable.contains(name));

    let begin = "begin isolation level read committed read write";
    let mut steps = vec![(Step::Begin, begin.to_owned())];
    for (name, value) in settings {
        steps.push((Step::Setting(name), format!("set local {name} = {value}")));
    }
    steps.push((Step::Lock, lock::take()));
    steps.push((Step::History, table.guard(history)));
    steps.extend(job.prepare.iter().map(|sql| (Step::Table, sql.clone())));
    steps
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
    /// Where an error is: at the server's position, else at the beginning of the statement that
    /// has not completed.
    fn find(
        script: &Script<'_>,
        text: &str,
        piece: &Piece<'_>,
        completed: usize,
        error: &PgError,
    ) -> Option<Spot> {
        let (statement, offset, exact) = match error.position {
            Some(Position::InStatement(position)) => {
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
