//! Runs what is pending as `up` would, in one transaction, and rolls it back. In between, the server is
//! asked what each statement has locked and rewritten.
//!
//! All migrations share the transaction, since each needs what the ones before it have made. Its
//! beginning has the guards of `up`, and takes the lock; each step begins with the settings that it has
//! in `up`, and ends like there, but for the history row: that would use up a number of a sequence.
//!
//! - `trace` asks what a statement did.
//! - `form` decides how a statement is run that a transaction cannot hold or undo.
//! - `report` is what comes of it.

mod form;
pub mod report;
pub mod trace;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cli::config::{Operation, Options};
use crate::history::plan::Plan;
use crate::history::progress::ProgressChange;
use crate::migrations::migration::MigrationSet;
use crate::postgres::result::{ResultRow, ResultSet};
use crate::postgres::server_error::ServerError;
use crate::postgres::session::{Message, QueryError, Response, Responses, Session};
use crate::process::signals::{Deadline, Signal, StopFlag};
use crate::sql::quote::EQ;
use crate::sql::{Kind, Piece, Positions, Statement};

use super::error::{ApplyError, RunFailure};
use super::event::{Blocker, Event, StepNumber};
use super::failure::Phase;
use super::interrupt::{Interrupt, Setback, as_connection_error, connection_lost, query_failed};
use super::load::Loaded;
use super::lock;
use super::lock_session::CLEANUP_TIMEOUT;
use super::next_action::{self, NextAction, next_action};
use super::observer::Backend;
use super::retry::{Backoff, Reply, conflict, is_conflict, stopped};
use super::state::DatabaseState;
use super::stretch::{Next, Prepared};
use super::transaction::{self, Current, StepRef, Transaction, TransactionResult, TransactionSpec};
use super::{QUERY_TIMEOUT, Runner, resume};

use self::form::{Run, Way};
use self::report::{AdvancedSequence, Leftovers, NotRun, Recorder, Report, StatementRef};
use self::trace::{Deferrable, Tracer};

/// A rehearsal, and why it ended before its end, if it did.
#[derive(Debug)]
pub struct Rehearsed {
    pub report: Report,
    pub failure: Option<RunFailure>,
}

/// Rehearses what is pending. When it returns, every session is closed, and all of it is rolled back,
/// unless a file ended the transaction. What no rollback undoes is left: the values of sequences, dead rows
/// and the larger files that hold them, and the WAL. With `from_scratch`, the database has to be empty.
pub fn rehearse(
    operation: &Operation,
    from_scratch: bool,
    set: &MigrationSet,
    options: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Rehearsed {
    let on_primary = &options.on_primary();
    let mut runner = Runner::new(operation, set, [on_primary, on_primary], stop, emit);
    let mut rehearsal = Rehearsal { from_scratch, ..Rehearsal::default() };
    let error = runner.rehearse(&mut rehearsal).err().map(lost_rehearsal);
    let is_lost = error.as_ref().is_some_and(is_lost);
    let failure = error.map(|error| runner.failure(error));
    let report = rehearsal.recorder.finish(rehearsal.leftovers, is_lost);
    Rehearsed { report, failure }
}

/// What one attempt at a rehearsal has come to.
#[derive(Default)]
struct Rehearsal {
    from_scratch: bool,
    recorder: Recorder,
    leftovers: Leftovers,
    /// The answer to the beginning of the transaction, which names the backend.
    began: Response,
    /// How many advisory locks other than ours the backend had then: a pooler's may have some.
    locks_before: usize,
    /// Whether a step before this one has added a value to an enum.
    has_new_enum_value: bool,
}

/// The last values of sequences, by their names.
type Sequences = BTreeMap<String, Option<i64>>;

impl Runner<'_> {
    fn rehearse(&mut self, rehearsal: &mut Rehearsal) -> Result<(), ApplyError> {
        next_action::check_names(self.operation, self.set)?;
        let mut backoff = Backoff::default();
        loop {
            let Loaded { session, history, progress, is_pooled } = self.load()?;
            let action = next_action(self.operation, self.set, self.options.policy, &history)?;
            self.update_pending(&action);
            self.check_through(&action)?;
            if rehearsal.from_scratch && history.has_objects {
                return Err(ApplyError::NotEmpty);
            }
            let mut prepared = action.prepare(self.set)?;
            let NextAction::Apply(plan) = action else { return Ok(()) };
            if history.in_recovery {
                return Err(ApplyError::ReadOnly);
            }
            let state = DatabaseState::new(history, progress?, is_pooled);
            let from_scratch = rehearsal.from_scratch;
            *rehearsal = Rehearsal { from_scratch, ..Rehearsal::default() };
            match self.attempt(&session, &plan, &mut prepared, state, rehearsal) {
                Ok(()) => return Ok(()),
                Err(Interrupt::Fail(ApplyError::LockTimeout { failure, blocker })) => {
                    let reason = conflict(&failure.error, blocker.as_ref(), false);
                    let migration = failure.migration.clone();
                    if !self.pause_for_lock(&mut backoff, migration.as_deref(), reason)? {
                        return Err(ApplyError::LockTimeout { failure, blocker });
                    }
                }
                Err(Interrupt::Fail(error)) => return Err(self.with_advice(error, &session)),
                Err(Interrupt::StartOver(setback)) => {
                    drop(session);
                    let lost = match &setback {
                        Setback::ConnectionLost(lost) => Some((lost.migration.clone(), lost.step)),
                        _ => None,
                    };
                    self.wait_after(setback, false)?;
                    if let Some((migration, step)) = lost
                        && let Some(lost) = self.lost_too_often(migration.as_deref(), step)
                    {
                        return Err(ApplyError::ConnectionLost(lost));
                    }
                }
            }
        }
    }

    /// One attempt, which ends with a rollback.
    fn attempt(
        &mut self,
        session: &Session,
        plan: &Plan,
        prepared: &mut Prepared<'_>,
        mut state: DatabaseState,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), Interrupt> {
        resume::check_abandoned(self.set, &state.progress, &self.options.table)?;
        self.check_pending(session, plan, prepared, &state)?;
        let sequences = self.sequences(session);
        let rehearsed = self.run_all(session, plan, prepared, &mut state, rehearsal);
        if rehearsed.is_err() {
            rehearsal.recorder.fail();
        }
        // Where the connection is lost, the server does so by itself.
        let session_locks = self.release_session_locks(session, rehearsal.locks_before);
        self.roll_back(session);
        rehearsal.leftovers = Leftovers {
            sequences: self.used_sequences(session, &rehearsal.recorder, sequences),
            session_locks,
            keeps_locks: state.is_pooled && rehearsal.locks_before > 0,
        };
        rehearsed
    }

    fn run_all(
        &mut self,
        session: &Session,
        plan: &Plan,
        prepared: &mut Prepared<'_>,
        state: &mut DatabaseState,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), Interrupt> {
        let (progress, mut has_begun) = (state.progress.clone(), false);
        prepared.in_stretches(self.set, &plan.pending, &progress, &mut |stretch| {
            for next in stretch {
                self.rehearse_migration(session, *next, &mut has_begun, state, rehearsal)?;
            }
            Ok(())
        })
    }

    fn rehearse_migration(
        &mut self,
        session: &Session,
        next: Next<'_>,
        has_begun: &mut bool,
        state: &mut DatabaseState,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), Interrupt> {
        let Next { migration, prepared, .. } = next;
        let (script, steps) = (&prepared.script, &prepared.steps);
        let numbered = (1..).zip(steps.all()).map(|(number, step)| {
            let number = StepNumber { step: number, of: steps.count() };
            StepRef { migration, script, steps, step, number }
        });
        if let Some(first) = numbered.clone().next().filter(|_| !*has_begun) {
            self.begin(session, first, state, rehearsal)?;
            *has_begun = true;
        }
        let isolation = steps.all().iter().find_map(|step| step.modes.isolation);
        rehearsal.recorder.begin_migration(&migration.name, &migration.file, isolation);
        for step in numbered.skip(prepared.done) {
            self.check_signal()?;
            // A later step without a statement only writes the history row.
            if step.number.step == 1 || !step.step.statements.is_empty() {
                self.rehearse_step(session, step, state, rehearsal)?;
            }
        }
        rehearsal.recorder.end_migration();
        Ok(())
    }

    /// Begins the transaction: with the lock and the guards, and with the history if there is none,
    /// since a migration may name it.
    fn begin(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        state: &mut DatabaseState,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), Interrupt> {
        let is_missing = !state.history.table_version.has_table();
        let upgrade = if is_missing { self.upgrade_sql(state) } else { Vec::new() };
        let spec = TransactionSpec { step: Some(step), upgrade, ..TransactionSpec::default() };
        let began = loop {
            let transaction =
                Transaction::new(&spec, &self.expected(state), &self.timeouts(session));
            let sent = self.exchange(session, step, None, transaction.opening(), rehearsal)?;
            let Some(result) = transaction.opening_result(&sent.reply) else { break sent.reply };
            self.roll_back(session);
            match self.reply(result, session, &spec, state)? {
                Reply::Committed(_) | Reply::PartRefused => {}
                Reply::Blocked { failure, blocker } => {
                    return Err(ApplyError::LockTimeout { failure, blocker }.into());
                }
            }
        };
        state.committed(&spec, self.set.layout(), &[])?;
        rehearsal.recorder = Recorder::new(self.baseline(session, step)?);
        self.ask_within(session, step, "savepoint premigrate_rehearsal")?;
        rehearsal.locks_before = self.advisory_locks(session);
        rehearsal.began = began;
        Ok(())
    }

    fn rehearse_step(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        state: &mut DatabaseState,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), Interrupt> {
        let progress = (!step.is_last()).then(|| ProgressChange::Finish {
            record: step.record(),
            saved_settings: step.step.saves.clone(),
        });
        let spec = TransactionSpec {
            step: Some(step),
            runs_step: true,
            creates_progress: progress.is_some() && !state.progress.exists,
            progress,
            ..TransactionSpec::default()
        };
        let transaction = Transaction::new(&spec, &self.expected(state), &self.timeouts(session));
        let mut transaction = transaction.continued();
        let sent = self.exchange(session, step, None, transaction.opening(), rehearsal)?;
        if let Some(result) = transaction.opening_result(&sent.reply) {
            return Err(self.refused(result, session, &spec, state));
        }
        rehearsal.recorder.spend(sent.took);
        for setting in step.replay(&state.progress) {
            let message = Message::from(&*setting.text);
            let sent = self.exchange(session, step, None, message, rehearsal)?;
            if let Some(error) = &sent.reply.error {
                let failure = transaction::replay_failure(step, &setting, error);
                return Err(ApplyError::Failed(Box::new(failure)).into());
            }
            rehearsal.recorder.spend(sent.took);
        }
        // What has been locked until here is not the file's.
        let answer = self.ask_within(session, step, &rehearsal.recorder.tracer().sample_sql())?;
        rehearsal.recorder.tracer().observe(&answer);

        // Its own savepoints end with it, as they do in `up`.
        self.ask_within(session, step, "savepoint premigrate_step")?;
        self.run_statements(session, step, state, rehearsal)?;
        self.ask_within(session, step, "release savepoint premigrate_step")?;

        let constraints = self.ask_within(session, step, &trace::deferrable_sql())?;
        transaction.checks(&Deferrable::parse(&constraints));
        let sent = self.exchange(session, step, None, transaction.closing(), rehearsal)?;
        if let Some(result) = transaction.closing_result(&sent.reply) {
            return Err(self.refused(result, session, &spec, state));
        }
        rehearsal.recorder.spend(sent.took);
        rehearsal.recorder.end_step();
        Ok(state.committed(&spec, self.set.layout(), &sent.reply.row.unwrap_or_default())?)
    }

    fn run_statements(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        state: &DatabaseState,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), Interrupt> {
        let statements = step.script.statements();
        if statements.is_empty() {
            // It may be malformed.
            for piece in step.script.pieces(0..0, usize::MAX) {
                let sent = self.exchange(session, step, None, message_of(&piece), rehearsal)?;
                if let Some(error) = &sent.reply.error {
                    return Err(failed(step, &piece, error, sent.blocker));
                }
                rehearsal.recorder.spend(sent.took);
            }
        }
        let mut unfinished = state.progress.of(&step.migration.name).filter(|it| !it.finished);
        let is_begun = unfinished.any(|record| record.step == step.number.step);
        let mut positions = Positions::new(step.script.text());
        let mut adds_enum_value = false;
        for index in step.step.statements.clone() {
            let Some(statement) = statements.get(index) else { continue };
            self.check_signal()?;
            let reported = StatementRef {
                number: index + 1,
                position: positions.at(statement.start),
                first_line: statement.first_line(),
                text: statement.text,
                at_most: form::at_most(&statement),
            };
            match form::way(step, &statement, is_begun) {
                Way::No(why) => rehearsal.recorder.not_run(&reported, why),
                Way::Run(run) => {
                    self.run_statement(session, step, &statement, &reported, run, rehearsal)?;
                }
            }
            adds_enum_value |= statement.kind == Kind::AddEnumValue;
        }
        rehearsal.has_new_enum_value |= adds_enum_value;
        Ok(())
    }

    fn run_statement(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        statement: &Statement<'_>,
        reported: &StatementRef<'_>,
        run: Run,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), Interrupt> {
        let index = reported.number - 1;
        let piece = match run.sql {
            Some(sql) => step.script.piece(index).map(|piece| Piece { text: sql.into(), ..piece }),
            None => step.script.pieces(index..index + 1, usize::MAX).into_iter().next(),
        };
        let Some(piece) = piece else { return Ok(()) };
        let may_be_left_out = run.may_be_refused
            || rehearsal.has_new_enum_value
            || !rehearsal.recorder.skipped().is_empty();
        // It would be gone with a savepoint of ours, or take one with it.
        let has_savepoint = may_be_left_out && !statement.is_savepoint();
        if has_savepoint {
            self.ask_within(session, step, "savepoint premigrate_statement")?;
        }
        let number = Some(reported.number);
        let sent = self.exchange(session, step, number, message_of(&piece), rehearsal)?;
        let Some(error) = &sent.reply.error else {
            if has_savepoint {
                self.ask_within(session, step, "release savepoint premigrate_statement")?;
            }
            let answer =
                self.ask_within(session, step, &rehearsal.recorder.tracer().sample_sql())?;
            rehearsal.recorder.ran(reported, run.form, sent.took, &answer);
            return Ok(());
        };
        if !has_savepoint || is_conflict(error) {
            return Err(failed(step, &piece, error, sent.blocker));
        }
        // Without the secrets of the statement.
        let failure = transaction::statement_failure(step, &piece, error);
        let may_need = |(_, text): &&(String, String)| form::may_need(error, text);
        let needed = rehearsal.recorder.skipped().iter().find(may_need);
        let why = match (error.code.as_str(), needed) {
            ("25001" | "2D000", _) if run.may_be_refused => NotRun::Refused(failure.error),
            ("55P04", _) if rehearsal.has_new_enum_value => NotRun::EnumValue(failure.error),
            (_, Some((place, _))) => NotRun::Depends { place: place.clone(), error: failure.error },
            (_, None) => return Err(failed(step, &piece, error, sent.blocker)),
        };
        let back = "rollback to savepoint premigrate_statement; \
            release savepoint premigrate_statement";
        self.ask_within(session, step, back)?;
        rehearsal.recorder.not_run(reported, why);
        Ok(())
    }

    /// Sends one message for a step, and reports what goes on meanwhile.
    fn exchange(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        statement: Option<usize>,
        message: Message<'_>,
        rehearsal: &Rehearsal,
    ) -> Result<Exchanged, Interrupt> {
        let mut watch = self.watch(session, Some(step), None, Backend::Answered);
        let copy_length = message.data.and_then(|data| u64::try_from(data.len()).ok());
        let emit = &mut *self.emit;
        let mut tick = |_: &[Response]| {
            let began = std::slice::from_ref(&rehearsal.began);
            watch.tick(began, Current { statement, copy_length }, emit);
        };
        let started = Instant::now();
        let deadline = Deadline::never(self.stop);
        let Responses { mut responses, end } =
            session.send_batch(&[message], true, deadline, &mut tick);
        let took = started.elapsed();
        let reply = responses.pop().unwrap_or_default();
        let by_lock = reply.error.as_ref().is_some_and(is_conflict);
        let watched = watch.finish(by_lock, emit);
        self.watched(&watched);
        let completed = statement.map(|statement| statement - 1);
        let lost = |error| connection_lost(Some(step), completed, error).into();
        match (&reply.error, end) {
            (_, Some(QueryError::Stopped(signal))) => Err(self.stopped(session, step, signal)),
            (Some(error), _) if error.ends_session() => {
                Err(lost(as_connection_error(QueryError::Server(error.clone()))))
            }
            (None, Some(error)) => Err(lost(as_connection_error(error))),
            _ => Ok(Exchanged { reply, took, blocker: watched.blocker }),
        }
    }

    /// Asks the server something for ourselves.
    fn ask_within(
        &mut self,
        session: &Session,
        step: StepRef<'_>,
        sql: &str,
    ) -> Result<Vec<ResultSet>, Interrupt> {
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        session.query(sql, deadline).map_err(|error| match error {
            QueryError::Stopped(signal) => self.stopped(session, step, signal),
            // A statement of the file has ended the transaction.
            QueryError::Server(error) if error.is("25P01") || error.is("3B001") => {
                let failure = transaction::lost_failure(step, &error);
                ApplyError::Failed(Box::new(failure)).into()
            }
            error => query_failed(step, error),
        })
    }

    /// What is there before the first statement.
    fn baseline(&mut self, session: &Session, step: StepRef<'_>) -> Result<Tracer, Interrupt> {
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        match session.query(&trace::baseline_sql(true), deadline) {
            Ok(answer) => Ok(Tracer::new(&answer)),
            // Another session has locked a table meanwhile.
            Err(QueryError::Server(error)) if !error.ends_session() => {
                self.ask_within(session, step, trace::RECOVER)?;
                Ok(Tracer::new(&self.ask_within(session, step, &trace::baseline_sql(false))?))
            }
            Err(QueryError::Stopped(signal)) => Err(self.stopped(session, step, signal)),
            Err(error) => Err(query_failed(step, error)),
        }
    }

    /// What our own statements for a step met with.
    fn refused(
        &mut self,
        result: TransactionResult,
        session: &Session,
        spec: &TransactionSpec<'_>,
        state: &DatabaseState,
    ) -> Interrupt {
        self.roll_back(session);
        match self.reply(result, session, spec, state) {
            Ok(Reply::Blocked { failure, blocker }) => {
                ApplyError::LockTimeout { failure, blocker }.into()
            }
            Ok(Reply::Committed(_) | Reply::PartRefused) => Setback::HistoryChanged.into(),
            Err(interrupt) => interrupt,
        }
    }

    fn stopped(&self, session: &Session, step: StepRef<'_>, signal: Signal) -> Interrupt {
        let confirmed = self.roll_back(session);
        stopped(signal, Some(step), None, confirmed).into()
    }

    /// Returns whether the server has confirmed it.
    fn roll_back(&self, session: &Session) -> bool {
        let deadline = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
        session.query_row("rollback", deadline).is_ok()
    }

    /// The last values of the sequences; `None` if they cannot be read.
    fn sequences(&self, session: &Session) -> Option<Sequences> {
        let lock_timeout = self.options.lock_timeout.as_millis();
        let sql = format!(
            "begin; set local lock_timeout = {lock_timeout}; \
             select schemaname, sequencename, last_value from pg_catalog.pg_sequences; rollback"
        );
        let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
        let Ok(answer) = session.query(&sql, deadline) else {
            self.roll_back(session);
            return None;
        };
        let rows = answer.iter().flat_map(ResultRow::all);
        let named = rows.filter_map(|row| {
            let name = format!("{}.{}", row.at(0)?, row.at(1)?);
            Some((name, row.at(2).and_then(|value| value.parse().ok())))
        });
        Some(named.collect())
    }

    /// The sequences whose values were used.
    fn used_sequences(
        &self,
        session: &Session,
        recorder: &Recorder,
        before: Option<Sequences>,
    ) -> Vec<AdvancedSequence> {
        let mut used = recorder.used_sequences();
        // Others came with the history, and are gone with it.
        used.retain(|name| before.as_ref().is_none_or(|before| before.contains_key(name)));
        let has_gaps = recorder.has_gaps();
        let after = if used.is_empty() && !has_gaps { None } else { self.sequences(session) };
        let value = |sequences: &Option<Sequences>, name: &str| *sequences.as_ref()?.get(name)?;
        if has_gaps {
            let all = before.iter().flat_map(BTreeMap::keys);
            let changed = all.filter(|name| value(&before, name) != value(&after, name)).cloned();
            used.extend(changed.collect::<Vec<_>>());
            used.sort();
            used.dedup();
        }
        let advanced = used.into_iter().map(|sequence| AdvancedSequence {
            before: value(&before, &sequence),
            after: value(&after, &sequence),
            sequence,
        });
        let is_advanced = |it: &AdvancedSequence| it.before != it.after || it.after.is_none();
        advanced.filter(is_advanced).collect()
    }

    /// Releases the advisory locks that the files have taken for the session, and returns how many they
    /// were. Behind a pooler, its session is ours only until the transaction ends.
    fn release_session_locks(&self, session: &Session, before: usize) -> usize {
        let deadline = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
        // This lets go of those that were taken for the transaction.
        if session.query("rollback to savepoint premigrate_rehearsal", deadline).is_err() {
            return 0;
        }
        let taken = self.advisory_locks(session).saturating_sub(before);
        // It would release those of other clients of a pooler too.
        if taken > 0 && before == 0 {
            let deadline = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
            let _ = session.query("select pg_catalog.pg_advisory_unlock_all()", deadline);
        }
        taken
    }

    /// How many advisory locks this session has, but for ours.
    fn advisory_locks(&self, session: &Session) -> usize {
        let sql = format!(
            "select pg_catalog.count(*) from pg_catalog.pg_locks \
             where locktype {EQ} 'advisory' and pid {EQ} pg_catalog.pg_backend_pid() and not ({})",
            lock::is_held_sql()
        );
        let deadline = Deadline::ignoring_signals(CLEANUP_TIMEOUT, self.stop);
        let row = session.query_row(&sql, deadline).ok().flatten();
        let count = row.and_then(|row| row.into_iter().next().flatten());
        count.and_then(|count| count.parse().ok()).unwrap_or_default()
    }
}

/// A failure as that of a rehearsal.
fn lost_rehearsal(mut error: ApplyError) -> ApplyError {
    if let ApplyError::Failed(failure) = &mut error
        && failure.phase == Phase::LostTransaction
    {
        failure.phase = Phase::LostRehearsal;
    }
    error
}

fn is_lost(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Failed(failure) if failure.phase == Phase::LostRehearsal)
}

/// What came of a message.
struct Exchanged {
    reply: Response,
    took: Duration,
    /// The session that blocked it last.
    blocker: Option<Blocker>,
}

fn message_of<'m>(piece: &'m Piece<'_>) -> Message<'m> {
    Message { sql: &piece.text, data: piece.data, discards_rows: true }
}

/// A statement of the file has failed.
fn failed(
    step: StepRef<'_>,
    piece: &Piece<'_>,
    error: &ServerError,
    blocker: Option<Blocker>,
) -> Interrupt {
    let failure = Box::new(transaction::statement_failure(step, piece, error));
    match is_conflict(error) {
        true => ApplyError::LockTimeout { failure, blocker }.into(),
        false => ApplyError::Failed(failure).into(),
    }
}
