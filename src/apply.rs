//! Changing the database: connect, load the history, decide, act, and start over when something
//! intervenes.
//!
//! Another runner, a history that changed, a lost connection: each ends the round, and the next one
//! loads the history again and decides with the same pure function.
//!
//! A round:
//! - `create_database` comes before the first one, if it was asked for and is needed.
//! - `load` reads the history and the progress; `state` keeps both up to date after that.
//! - `next_action` decides what to do next, and `stretch` prepares what is pending; `dry_run` ends
//!   there.
//! - `migration` runs a migration's steps: `transaction` builds and reads one transaction, `train`
//!   sends one behind the other, and `retry` sends one again after a lock timeout or a deadlock;
//!   `resume` finds the first step that is not finished.
//! - `interrupt` is why a round ends early: after a lost connection, say. A lost COMMIT is no case of its own:
//!   the next round finds the row in the history, or runs the migration again as soon as it gets the lock,
//!   which the old backend holds while it lives.
//! - `sizes` asks how large the tables are that pending statements work on, before the first one runs.
//!
//! A statement outside a transaction:
//! - `standalone` runs it, `lock_session` holds the lock meanwhile, `session_settings` prepares the
//!   session.
//! - `recovery` finds out what became of one after a crash, with the queries of `catalog_state`.
//!
//! `rehearse` does the same in one transaction, traces what each statement locks and rewrites, and rolls
//! it back.
//!
//! Both:
//! - `lock` is the advisory lock.
//! - `watch` reports what goes on meanwhile: `notices` is what the server says, `observer` asks on a
//!   second connection for the session that we wait for (`blockers`) and how far it is (`activity`).
//! - `event`, `failure` and `error` are what is reported; `error_place` finds the place of a failure
//!   by name; `advice` is what to do about it, with the `extensions` that we know.

pub mod activity;
mod advice;
pub mod blockers;
pub mod catalog_state;
pub mod create_database;
pub mod dry_run;
pub mod error;
mod error_place;
pub mod event;
mod extensions;
pub mod failure;
mod interrupt;
pub mod load;
pub mod lock;
mod lock_session;
mod migration;
mod next_action;
mod notices;
mod observer;
mod recovery;
pub mod rehearse;
pub mod resume;
mod retry;
mod session_settings;
pub mod sizes;
mod standalone;
mod state;
mod stretch;
mod train;
mod transaction;
mod watch;

use std::collections::VecDeque;
use std::mem;
use std::slice;
use std::time::{Duration, Instant};

use crate::cli::config::{NewDatabase, Operation, Options};
use crate::history::plan::Plan;
use crate::history::progress::ProgressChange;
use crate::history::table::{History, NewRow};
use crate::migrations::migration::MigrationSet;
use crate::postgres::conninfo::SessionAttrs;
use crate::postgres::session::{Attempt, QueryError, Session};
use crate::process::signals::{Deadline, Interrupted, StopFlag};

use self::error::{ApplyError, RunFailure};
use self::event::{Applied, Event, HeldBy, InProgress, RecordKind, RetryReason};
use self::failure::LostConnection;
use self::interrupt::{Interrupt, Setback};
use self::load::Loaded;
use self::lock_session::HeldLock;
use self::next_action::{NextAction, next_action};
use self::session_settings::SettingsCheck;
use self::state::DatabaseState;
use self::stretch::Prepared;
use self::train::Train;
use self::transaction::{Expected, TransactionSpec};

/// The pause before another runner is looked for again; random, so that many do not come at once.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The first pause after a lock timeout, and the pause after a lost connection.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long one of our own small queries may take.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the history may change under a plan before other runners no longer explain it.
const MAX_HISTORY_CHANGES: u32 = 20;
/// How often a transaction may lose its connection before it is blamed for that; twice at the same
/// statement of the file is enough, since it may crash the server for everybody.
const MAX_LOST_CONNECTIONS: u32 = 3;

impl Operation {
    /// What is created if the database is missing.
    fn new_database(&self) -> Option<&NewDatabase> {
        match self {
            Operation::Up { create_database, .. } => create_database.as_ref(),
            Operation::Baseline { .. } | Operation::Accept { .. } => None,
        }
    }

    /// The kind of rows that it writes, if writing rows is all it does.
    fn record_kind(&self) -> Option<RecordKind> {
        match self {
            Operation::Up { .. } => None,
            Operation::Baseline { .. } => Some(RecordKind::Baseline),
            Operation::Accept { .. } => Some(RecordKind::Accept),
        }
    }

    /// The migrations that were named for it.
    fn names(&self) -> Vec<String> {
        match self {
            Operation::Up { accept, baseline_through, through, .. } => {
                accept.iter().chain(baseline_through).chain(through).cloned().collect()
            }
            Operation::Baseline { through } => through.iter().cloned().collect(),
            Operation::Accept { names } => names.clone().unwrap_or_default(),
        }
    }
}

/// Carries out an operation. When it returns, every session is closed.
pub fn run(
    operation: &Operation,
    set: &MigrationSet,
    options: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<(), RunFailure> {
    let options_on_primary = &options.on_primary();
    let mut runner = Runner::new(operation, set, [options, options_on_primary], stop, emit);
    match runner.run() {
        Ok(()) => {
            runner.report_done();
            Ok(())
        }
        Err(error) => Err(runner.failure(error)),
    }
}

/// A run: what it was asked for, and what it has to remember from one round to the next.
struct Runner<'a> {
    operation: &'a Operation,
    set: &'a MigrationSet,
    /// What is created if the database is missing, until it was there once.
    creates: Option<&'a NewDatabase>,
    options: &'a Options,
    /// For where the first server is a standby, and something is to be written.
    options_on_primary: &'a Options,
    stop: &'a StopFlag,
    emit: &'a mut dyn FnMut(Event),
    /// What this run has applied, by name.
    applied: Vec<String>,
    /// What it has still to apply, by name and in order.
    pending: VecDeque<String>,
    /// The migration that was announced last, so that not each round announces it again.
    announced: Option<String>,
    /// The migrations whose rows it has sent, by name.
    recorded: Option<Vec<String>>,
    /// The migrations whose rows the server has committed last, by name.
    confirmed: Vec<String>,
    /// The migration of several steps that is under way.
    in_progress: Option<InProgress>,
    /// Whether the history has rows that match no migration.
    has_unknown_rows: bool,
    lost_connection: Option<Losses>,
    /// The migrations that were on their way behind the one that lost its connection, or whose end
    /// was not confirmed, by name.
    unanswered: Vec<String>,
    /// Whether transactions are sent before those ahead of them are answered: not once a row was
    /// written in another way than they were sent to expect, as by a trigger.
    sends_ahead: bool,
    /// For another runner, or a lock on the history; with the process number of the backend.
    lock_wait: Option<PollingWait<'a, Option<String>>>,
    /// For a free connection; with the attempts to get one.
    slot_wait: Option<PollingWait<'a, Vec<Attempt>>>,
    /// While a statement runs outside a transaction.
    held_lock: Option<HeldLock<'a>>,
    /// The backend that still runs a statement of an earlier attempt, and since when it is known.
    stale_backend: Option<(String, Instant)>,
    /// Whether it was reported what `--through` leaves pending.
    through_reported: bool,
    /// Whether no table was found to be too large for `--max-blocking`.
    sizes_checked: bool,
    /// How often in a row the history had changed under the plan.
    history_changes: u32,
    /// Settings that the server refused.
    unsupported_settings: Vec<&'static str>,
    /// Whether transactions lock the history: not once the server has refused that.
    locks_history: bool,
    /// Whether a pooler's effect on statements outside a transaction was reported.
    pooler_noted: bool,
    /// Whether the session has settings that were made for a statement outside a transaction.
    settings_left: bool,
    /// How long it has worked on migrations, and how long of that it waited for locks.
    worked: Duration,
    lock_waits: Duration,
    /// Whether a second connection may be used to look at a statement that takes long.
    may_look: bool,
}

/// Connections that were lost in a row, in the same transaction.
struct Losses {
    last: Box<LostConnection>,
    times: u32,
    /// Whether there is no other attempt.
    is_blamed: bool,
}

/// How a round ended that did not have to start over.
enum Round {
    /// The operation is done.
    Finished,
    /// There may be more to do.
    Continue,
}

impl<'a> Runner<'a> {
    /// `options`, and the same for where the first server is a standby.
    fn new(
        operation: &'a Operation,
        set: &'a MigrationSet,
        [options, options_on_primary]: [&'a Options; 2],
        stop: &'a StopFlag,
        emit: &'a mut dyn FnMut(Event),
    ) -> Runner<'a> {
        Runner {
            operation,
            set,
            creates: operation.new_database(),
            options,
            options_on_primary,
            stop,
            emit,
            applied: Vec::new(),
            pending: VecDeque::new(),
            announced: None,
            recorded: None,
            confirmed: Vec::new(),
            in_progress: None,
            has_unknown_rows: false,
            lost_connection: None,
            unanswered: Vec::new(),
            sends_ahead: true,
            lock_wait: None,
            slot_wait: None,
            held_lock: None,
            stale_backend: None,
            through_reported: false,
            sizes_checked: false,
            history_changes: 0,
            unsupported_settings: Vec::new(),
            locks_history: true,
            pooler_noted: false,
            settings_left: false,
            worked: Duration::ZERO,
            lock_waits: Duration::ZERO,
            may_look: true,
        }
    }

    fn run(&mut self) -> Result<(), ApplyError> {
        next_action::check_names(self.operation, self.set)?;
        let primary_wait = Deadline::after(self.options.wait, self.stop);
        let mut standby_reported = false;
        loop {
            let Loaded { session, history, progress, is_pooled } = self.load()?;
            // Another runner may have finished it.
            self.in_progress = None;
            let action = next_action(self.operation, self.set, self.options.policy, &history)?;
            self.update_pending(&action);
            self.check_through(&action)?;
            let mut prepared = action.prepare(self.set)?;
            if let NextAction::Nothing { plan } = action {
                self.report_nothing_left(plan.as_ref(), &history);
                return Ok(());
            }
            let is_any = self.options.target.target_session_attrs == SessionAttrs::Any;
            if history.in_recovery && is_any && !session.is_only_choice {
                (self.emit)(Event::LookingForPrimary);
                self.options = self.options_on_primary;
                continue;
            }
            if history.in_recovery {
                drop(session);
                let left = primary_wait.remaining().unwrap_or_default();
                let waiting = Event::WaitingForPrimary { left };
                (self.emit)(waiting.repeated_unless(!standby_reported));
                standby_reported = true;
                primary_wait.sleep(POLL.0).map_err(|end| interrupted(end, ApplyError::ReadOnly))?;
                continue;
            }
            let state = DatabaseState::new(history, progress?, is_pooled);
            let applied = self.applied.len();
            let started = Instant::now();
            let performed = self.perform(action, &mut prepared, &session, state);
            self.worked += started.elapsed();
            match performed {
                Ok(Round::Finished) => return Ok(()),
                Ok(Round::Continue) => {}
                Err(Interrupt::Fail(error)) => return Err(self.with_advice(error, &session)),
                Err(Interrupt::StartOver(setback)) => {
                    drop(session);
                    self.wait_after(setback, self.applied.len() > applied)?;
                }
            }
        }
    }

    fn perform(
        &mut self,
        action: NextAction,
        prepared: &mut Prepared<'_>,
        session: &Session,
        mut state: DatabaseState,
    ) -> Result<Round, Interrupt> {
        match action {
            NextAction::Nothing { .. } => Ok(Round::Finished),
            NextAction::Apply(plan) => {
                resume::check_abandoned(self.set, &state.progress, &self.options.table)
                    .map_err(|error| self.not_resumed(error, session))?;
                self.check_pending(session, &plan, prepared, &state)?;
                self.check_sizes(session, &plan, prepared, &state)?;
                state.row_names = plan.matches.row_names(self.set);
                self.apply(session, &plan, prepared, &mut state)?;
                Ok(Round::Finished)
            }
            NextAction::Record { rows, names, kind, matches } => {
                if self.confirmed == names {
                    // A trigger or a rule keeps what is written from being read.
                    return Err(ApplyError::HistoryKeepsChanging(self.options.table.clone()).into());
                }
                state.row_names = matches.row_names(self.set);
                self.recorded = Some(names.clone());
                self.record(session, rows, &names, &state)?;
                self.confirmed = names.clone();
                self.lost_connection = None;
                (self.emit)(Event::Recorded { migrations: names, kind });
                Ok(Round::Continue)
            }
        }
    }

    /// Checks, before anything runs, what the database has to say about pending migrations.
    fn check_pending(
        &self,
        session: &Session,
        plan: &Plan,
        prepared: &mut Prepared<'_>,
        state: &DatabaseState,
    ) -> Result<(), Interrupt> {
        let (mut changed, mut refused) = (Vec::new(), None);
        let mut settings = SettingsCheck::new(session, &state.progress);
        prepared.in_stretches(self.set, &plan.pending, &state.progress, &mut |stretch| {
            for next in stretch {
                changed.extend(resume::changed_step(*next, &state.progress));
                if changed.is_empty() && refused.is_none() {
                    refused = self.check_settings(*next, &mut settings).err();
                }
            }
            Ok::<(), ApplyError>(())
        })?;
        match refused {
            _ if !changed.is_empty() => {
                Err(ApplyError::ChangedSteps { migrations: changed }.into())
            }
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    /// Progress of a migration that is not in our set may be the work of another runner.
    fn not_resumed(&self, error: ApplyError, session: &Session) -> Interrupt {
        let may_be_another = matches!(error, ApplyError::AbandonedProgress { .. });
        match may_be_another.then(|| self.runner(session)) {
            Some(runner @ HeldBy::Session(_)) => Setback::LockedOut(runner).into(),
            _ => error.into(),
        }
    }

    /// Writes rows, and nothing else.
    fn record(
        &mut self,
        session: &Session,
        rows: Vec<NewRow>,
        names: &[String],
        state: &DatabaseState,
    ) -> Result<(), Interrupt> {
        let has_progress = names.iter().any(|name| state.progress.of(name).next().is_some());
        let spec = TransactionSpec {
            upgrade: self.upgrade_sql(state),
            rows,
            progress: has_progress.then(|| ProgressChange::Close { migrations: names.to_vec() }),
            ..TransactionSpec::default()
        };
        self.run_first(&mut Train::new(session, slice::from_ref(&spec)), state)?;
        Ok(())
    }

    fn upgrade_sql(&self, state: &DatabaseState) -> Vec<String> {
        let table = &self.options.table;
        table.create_or_upgrade_sql(&state.history, self.set.layout(), &state.row_names)
    }

    fn expected<'s>(&self, state: &'s DatabaseState) -> Expected<'s>
    where
        'a: 's,
    {
        Expected { table: &self.options.table, layout: self.set.layout(), state, ahead: None }
    }

    /// Waits as long as a setback asks for; or ends the run, if it came too often.
    fn wait_after(&mut self, setback: Setback, has_applied: bool) -> Result<(), ApplyError> {
        match setback {
            Setback::HistoryChanged => {
                self.history_changes = if has_applied { 1 } else { self.history_changes + 1 };
                if self.history_changes > MAX_HISTORY_CHANGES {
                    return Err(ApplyError::HistoryKeepsChanging(self.options.table.clone()));
                }
                if self.history_changes > 1 { self.pause(RETRY_PAUSE) } else { Ok(()) }
            }
            Setback::ConnectionLost(lost) => self.wait_after_lost_connection(lost),
            Setback::BackendRuns { pause } => self.pause(pause),
            Setback::NoSecondConnection { migration, second } => {
                self.wait_for_slot(second, has_applied, self.options.wait, |_| {
                    ApplyError::NoSecondConnection { migration }
                })
            }
            Setback::PoolerFull(attempt) => {
                self.wait_for_slot(attempt, has_applied, self.options.runner_wait, |attempts| {
                    ApplyError::Unreachable { attempts }
                })
            }
            Setback::LockedOut(holder) => {
                if has_applied {
                    self.lock_wait = None;
                }
                let limit = Deadline::after(self.options.runner_wait, self.stop);
                let wait = self.lock_wait.get_or_insert(PollingWait::until(limit));
                // That one has gone is no news after a line about it.
                let reported = || wait.reported.clone().flatten();
                let pid = holder.session().map(|holder| holder.pid.clone()).or_else(reported);
                let seen = holder.clone();
                wait.pause(
                    pid,
                    |left, is_new| {
                        let event = Event::LockedOut { holder: seen, left };
                        (self.emit)(event.repeated_unless(is_new));
                    },
                    || ApplyError::LockedOut { holder },
                )
            }
        }
    }

    /// Waits for a free connection, or ends the run with this error.
    fn wait_for_slot(
        &mut self,
        attempt: Attempt,
        has_applied: bool,
        limit: Duration,
        error: impl FnOnce(Vec<Attempt>) -> ApplyError,
    ) -> Result<(), ApplyError> {
        if has_applied {
            self.slot_wait = None;
        }
        let limit = Deadline::after(limit, self.stop);
        let wait = self.slot_wait.get_or_insert(PollingWait::until(limit));
        let attempts = vec![attempt];
        let failed = attempts.clone();
        wait.pause(
            attempts.clone(),
            |left, is_new| {
                (self.emit)(Event::Waiting { attempts, left }.repeated_unless(is_new));
            },
            || error(failed),
        )
    }

    /// The next round reads in the history what became of the transaction. The old backend holds
    /// the lock until it is gone, and so is waited for.
    fn wait_after_lost_connection(&mut self, lost: Box<LostConnection>) -> Result<(), ApplyError> {
        let (migration, step) = (lost.migration.as_deref(), lost.step);
        let before = self.lost_connection.as_ref().filter(|before| before.is_of(migration, step));
        let times = before.map_or(0, |before| before.times) + 1;
        let is_blamed = times >= MAX_LOST_CONNECTIONS
            || before.is_some_and(|before| {
                before.is_blamed || lost.began && before.last.completed == lost.completed
            });
        if times > 2 * MAX_LOST_CONNECTIONS {
            let error = QueryError::Client(lost.cause);
            return Err(ApplyError::Unreachable { attempts: vec![Attempt::at_query(error)] });
        }
        (self.emit)(Event::Retrying {
            migration: lost.migration.clone(),
            reason: RetryReason::ConnectionLost { cause: lost.cause.clone() },
            pause: RETRY_PAUSE,
            attempt: times + 1,
        });
        self.lost_connection = Some(Losses { last: lost, times, is_blamed });
        self.pause(RETRY_PAUSE)
    }

    /// The last loss of this transaction's connection, if it came too often for another attempt.
    /// Then only its guards are sent, to learn whether it was committed.
    fn lost_too_often(
        &self,
        migration: Option<&str>,
        step: Option<usize>,
    ) -> Option<Box<LostConnection>> {
        let losses =
            self.lost_connection.as_ref().filter(|losses| losses.is_of(migration, step))?;
        losses.is_blamed.then(|| losses.last.clone())
    }

    /// Remembers what is pending. A migration that lost its connection, or was behind one, and is not
    /// pending any more was committed.
    fn update_pending(&mut self, action: &NextAction) {
        let pending = match action {
            NextAction::Record { .. } => return,
            NextAction::Nothing { .. } => Vec::new(),
            NextAction::Apply(plan) => {
                self.has_unknown_rows = !plan.unknown.is_empty();
                plan.pending.iter().map(|pending| pending.index).collect()
            }
        };
        let migrations = pending.into_iter().filter_map(|index| self.set.get(index));
        self.pending = migrations.map(|migration| migration.name.clone()).collect();
        let is_pending = |migration: &String| self.pending.contains(migration);
        let lost = self.lost_connection.as_ref().and_then(|losses| losses.last.migration.clone());
        // The server may still run what is pending of them, from what it has received.
        let (left, applied): (Vec<_>, Vec<_>) =
            mem::take(&mut self.unanswered).into_iter().partition(is_pending);
        let lost = lost.filter(|migration| !is_pending(migration));
        self.unanswered = left;
        for migration in lost.into_iter().chain(applied) {
            self.record_applied(&migration, None);
        }
        if let NextAction::Apply(plan) | NextAction::Nothing { plan: Some(plan) } = action {
            (self.emit)(Event::history_read(plan));
        }
    }

    fn record_applied(&mut self, migration: &str, took: Option<Duration>) {
        (self.emit)(Event::Applied(Applied { migration: migration.to_owned(), took }));
        self.applied.push(migration.to_owned());
        match self.pending.front() {
            Some(first) if first == migration => drop(self.pending.pop_front()),
            _ => self.pending.retain(|pending| pending != migration),
        }
        (self.lost_connection, self.in_progress) = (None, None);
    }

    /// Refuses `--through` where the database is past it, and reports once what it leaves pending.
    fn check_through(&mut self, action: &NextAction) -> Result<(), ApplyError> {
        let Some(plan) = action.plan() else { return Ok(()) };
        if self.applied.is_empty() {
            next_action::check_through(self.operation, self.set, plan)?;
        }
        let event = next_action::through_event(self.operation, plan);
        if let Some(event) = event.filter(|_| !self.through_reported) {
            self.through_reported = true;
            (self.emit)(event);
        }
        Ok(())
    }

    fn report_nothing_left(&mut self, plan: Option<&Plan>, history: &History) {
        if let Some(plan) = plan {
            if let Some(event) = Event::unknown_rows(plan, history) {
                (self.emit)(event);
            }
            if self.applied.is_empty() {
                (self.emit)(Event::UpToDate { applied: plan.applied });
            }
        }
        let Some(kind) = self.operation.record_kind() else { return };
        match (self.recorded.take(), self.lost_connection.is_some()) {
            // The reply to COMMIT was lost, and the rows are there.
            (Some(migrations), true) => (self.emit)(Event::Recorded { migrations, kind }),
            (Some(migrations), false) if migrations == self.confirmed => {}
            // Another runner may have recorded them first.
            _ => {
                let named = self.operation.names();
                (self.emit)(Event::NothingToRecord { kind, named });
            }
        }
    }

    fn report_done(&mut self) {
        let (applied, took, lock_wait) = (self.applied.len(), self.worked, self.lock_waits);
        if applied > 0 {
            (self.emit)(Event::Done { applied, took, lock_wait });
        }
    }

    fn failure(&mut self, error: ApplyError) -> RunFailure {
        let lost = self.lost_connection.take().and_then(|losses| losses.last.migration);
        let lost = lost.filter(|_| !matches!(error, ApplyError::ConnectionLost(_)));
        RunFailure {
            uncertain: lost.into_iter().chain(mem::take(&mut self.unanswered)).collect(),
            applied: mem::take(&mut self.applied),
            pending: mem::take(&mut self.pending).into(),
            in_progress: self.in_progress.take(),
            error,
        }
    }

    /// How long to wait for a free connection, if longer than for the server: another runner that was
    /// seen may be taking the last one.
    fn slot_wait(&self) -> Option<Duration> {
        self.lock_wait.as_ref().and_then(|wait| wait.deadline.remaining())
    }

    fn pause(&self, time: Duration) -> Result<(), ApplyError> {
        match Deadline::never(self.stop).sleep(time) {
            Ok(()) | Err(Interrupted::TimeOut) => Ok(()),
            Err(Interrupted::Stopped(signal)) => Err(signal.into()),
        }
    }
}

impl Losses {
    fn is_of(&self, migration: Option<&str>, step: Option<usize>) -> bool {
        self.last.migration.as_deref() == migration && self.last.step == step
    }
}

/// Waiting for something outside, which is looked at again and again.
pub struct PollingWait<'a, T> {
    deadline: Deadline<'a>,
    /// What was reported last.
    reported: Option<T>,
}

impl<'a, T: PartialEq> PollingWait<'a, T> {
    pub fn until(deadline: Deadline<'a>) -> PollingWait<'a, T> {
        PollingWait { deadline, reported: None }
    }

    /// Waits for a moment, or ends the run when the time is up. The last look is at the very end.
    /// Reports the time left, and whether what was seen is something else than before.
    pub fn pause(
        &mut self,
        seen: T,
        report: impl FnOnce(Duration, bool),
        timed_out: impl FnOnce() -> ApplyError,
    ) -> Result<(), ApplyError> {
        let left = self.deadline.remaining().unwrap_or_default();
        if left.is_zero() {
            return Err(timed_out());
        }
        let is_new = self.reported.as_ref() != Some(&seen);
        self.reported = Some(seen);
        report(left, is_new);
        match self.deadline.sleep(retry::jittered(POLL.0, POLL.1).min(left)) {
            Ok(()) | Err(Interrupted::TimeOut) => Ok(()),
            Err(Interrupted::Stopped(signal)) => Err(signal.into()),
        }
    }
}

fn interrupted(end: Interrupted, at_time_out: ApplyError) -> ApplyError {
    match end {
        Interrupted::TimeOut => at_time_out,
        Interrupted::Stopped(signal) => signal.into(),
    }
}
