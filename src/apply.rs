//! Changing the database: rounds of connect, read the history, decide, carry out.
//!
//! Whatever ends a round early, be it another runner, a changed history or a broken connection, the
//! way on is the same one: read the history again, and decide again with the same pure function.

pub mod blockers;
pub mod catalog_state;
pub mod error;
pub mod event;
pub mod load;
pub mod lock;
mod lock_session;
mod migration;
mod recovery;
pub mod resume;
mod retry;
mod session_settings;
mod standalone;
pub mod transaction;

use std::time::Duration;

use self::load::QUESTION;
use crate::apply::error::{ApplyError, Conflict, RunFailure};
use crate::apply::event::{Broken, Done, Event, Holder, InProgress, RecordKind, RetryReason};
use crate::apply::transaction::{Expected, TransactionSpec};
use crate::cli::config::Options;
use crate::history::plan::{self, Disagreement, Matches, Plan};
use crate::history::progress::Progress;
use crate::history::table::{History, NewRow};
use crate::migrations::migration::MigrationSet;
use crate::migrations::prepared::{self, PreparedMigration};
use crate::postgres::session::{Attempt, ConnectionError, QueryError, Session};
use crate::process::signals::{Deadline, Interrupted, StopFlag};

/// Between two looks whether another runner is done; random, so that many do not come at once.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The pause after a lock that did not come: it doubles up to the longest, ± 50 %.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the history may change under a plan before that is taken for more than other runners.
const MOST_CHANGES: u32 = 20;
/// How often a transaction whose connection breaks is tried before that is taken for its own doing.
const BREAKS: u32 = 3;

/// What is to be brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Everything pending is applied; these edited migrations are accepted first.
    Up {
        /// By name.
        accept: Vec<String>,
    },
    /// Migrations are recorded without running them: all, or up to and with this one.
    Baseline {
        /// By name.
        through: Option<String>,
    },
    /// Edited migrations are recorded as they are now: these, or all.
    Accept {
        /// By name; none is all.
        names: Option<Vec<String>>,
    },
}

impl Operation {
    /// What rows are written for, if writing them is all there is to it.
    fn kind(&self) -> Option<RecordKind> {
        match self {
            Operation::Up { .. } => None,
            Operation::Baseline { .. } => Some(RecordKind::Baseline),
            Operation::Accept { .. } => Some(RecordKind::Accept),
        }
    }

    /// The migrations to which it is limited, by name.
    fn named(&self) -> Vec<String> {
        match self {
            Operation::Up { .. } => Vec::new(),
            Operation::Baseline { through } => through.iter().cloned().collect(),
            Operation::Accept { names } => names.clone().unwrap_or_default(),
        }
    }
}

/// Brings it about. On return, whatever the end, no session of ours is open.
pub fn carry_out(
    task: &Operation,
    set: &MigrationSet,
    settings: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<(), RunFailure> {
    let (applied, pending) = (Vec::new(), Vec::new());
    let (broken, unsupported_settings) = (None, Vec::new());
    let mut run = Run {
        task,
        set,
        settings,
        stop,
        emit,
        applied,
        pending,
        broken,
        unsupported_settings,
        told_pooler: false,
        is_set: false,
        in_progress: None,
    };
    let result = run.go();
    result.map_err(|error| {
        let uncertain = run.broken.and_then(|(broken, _)| broken.migration);
        let uncertain = uncertain.filter(|_| !matches!(error, ApplyError::ConnectionLost(_)));
        let (applied, pending) = (run.applied, run.pending);
        RunFailure { error, applied, pending, uncertain, in_progress: run.in_progress }
    })
}

/// What `up` would do.
#[derive(Debug)]
pub struct DryRun<'a> {
    /// The edited migrations that it would accept, by name.
    pub accepted: Vec<String>,
    /// What it would run then.
    pub plan: Plan,
    /// How each of these runs.
    pub fit: Vec<PreparedMigration<'a>>,
}

/// What `up` would do now, where it is to accept these; changes nothing.
pub fn dry_run<'a>(
    set: &'a MigrationSet,
    accept: &[String],
    settings: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<DryRun<'a>, ApplyError> {
    let (session, mut history) = load::history(settings, stop, emit)?;
    let mut accepted = Vec::new();
    if !accept.is_empty() {
        let plan::Accepted { matches, records, .. } = self::accepted(set, Some(accept), &history)?;
        let (entries, names) = entries_of(set, records, &history);
        if !entries.is_empty() {
            history.after_upgrade(set.layout(), &matches.names(set));
            history.add(&entries);
        }
        accepted = names;
    }
    let plan = plan::plan(set, &history, settings.policy)
        .map_err(|disagreement| conflict(disagreement, set, &history))?;
    let progress = match plan.pending.is_empty() {
        true => Ok(Progress::default()),
        false => load::progress(&session, &history, settings, stop, emit),
    };
    session.close();
    let mut fit = prepared::fit(set, &plan.pending).map_err(ApplyError::NotRunnable)?;
    resume::resume(set, &plan, &mut fit, &progress?, &settings.table)?;
    Ok(DryRun { accepted, plan, fit })
}

/// What accepting these comes to, or all that were edited.
fn accepted(
    set: &MigrationSet,
    names: Option<&[String]>,
    history: &History,
) -> Result<plan::Accepted, ApplyError> {
    let places = |names: &[String]| {
        names.iter().map(|name| place_of(set, name)).collect::<Result<Vec<_>, _>>()
    };
    let named = names.map(places).transpose()?;
    plan::accept(set, history, named.as_deref())
        .map_err(|disagreement| conflict(disagreement, set, history))
}

/// What is to be written for these migrations, each with the row it has, and their names.
fn entries_of(
    set: &MigrationSet,
    records: Vec<(usize, Option<usize>)>,
    history: &History,
) -> (Vec<NewRow>, Vec<String>) {
    let layout = set.layout();
    let entry = |(place, row): (usize, Option<usize>)| {
        let migration = set.get(place)?;
        let entry = match row.and_then(|row| history.rows.get(row)) {
            Some(row) => NewRow::re_accept(migration, row, layout),
            None => NewRow::of(migration, layout),
        };
        Some((entry, migration.name.clone()))
    };
    records.into_iter().filter_map(entry).unzip()
}

struct Run<'a> {
    task: &'a Operation,
    set: &'a MigrationSet,
    settings: &'a Options,
    stop: &'a StopFlag,
    emit: &'a mut dyn FnMut(Event),
    /// What this run has applied.
    applied: Vec<String>,
    /// What it has still to apply.
    pending: Vec<String>,
    /// The last connection that broke in a transaction, and how often it did so in a row.
    broken: Option<(Box<Broken>, u32)>,
    /// Settings to do without.
    unsupported_settings: Vec<&'static str>,
    /// Whether it was said what a pooler means for statements outside a transaction.
    told_pooler: bool,
    /// Whether the session has settings of a statement outside a transaction.
    is_set: bool,
    /// The migration that is under way in several steps, and where it is.
    in_progress: Option<InProgress>,
}

/// What a round is to do.
enum Round<'a> {
    /// Nothing: it is all done.
    Done,
    /// Write these rows.
    Record { entries: Vec<NewRow>, names: Vec<String>, kind: RecordKind, matches: Matches },
    /// Run what is pending.
    Apply(Plan, Vec<PreparedMigration<'a>>),
}

/// Why a round ended before everything was done.
enum Setback {
    LockedOut(Option<Holder>),
    HistoryChanged,
    Broken(Box<Broken>),
    /// A statement that an earlier start had begun did nothing, and is forgotten.
    Settled,
}

impl<'a> Run<'a> {
    fn go(&mut self) -> Result<(), ApplyError> {
        let mut rivals = None;
        let primary = Deadline::after(self.settings.wait, self.stop);
        let mut told_standby = false;
        let mut recorded: Option<Vec<String>> = None;
        let mut changes = 0;
        loop {
            let (session, history) = load::history(self.settings, self.stop, self.emit)?;
            let round = self.decide(&history)?;
            if matches!(round, Round::Done) {
                session.close();
                if let Some(kind) = self.task.kind() {
                    match (recorded, self.broken.is_some()) {
                        (None, _) => {
                            let named = self.task.named();
                            (self.emit)(Event::NothingToRecord { kind, named });
                        }
                        // The answer to COMMIT was lost, and the rows are there.
                        (Some(migrations), true) => {
                            (self.emit)(Event::Recorded { migrations, kind });
                        }
                        (Some(_), false) => {}
                    }
                }
                return Ok(());
            }
            if history.in_recovery {
                session.close();
                if !told_standby {
                    let left = primary.remaining().unwrap_or_default();
                    (self.emit)(Event::WaitingForPrimary { left });
                    told_standby = true;
                }
                primary.sleep(POLL.0).map_err(|end| interrupted(end, ApplyError::ReadOnly))?;
                continue;
            }
            let before = self.applied.len();
            let (settings, stop) = (self.settings, self.stop);
            let progress = match load::progress(&session, &history, settings, stop, self.emit) {
                Ok(progress) => progress,
                Err(ApplyError::Unreachable(attempts)) => {
                    let Some(broken) = lost_at_question(attempts) else { continue };
                    self.count_break(broken)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let setback = match round {
                Round::Done => None,
                Round::Apply(plan, mut fit) => {
                    let table = &self.settings.table;
                    resume::resume(self.set, &plan, &mut fit, &progress, table)?;
                    let setback = self.apply(&session, &plan, &fit, history, progress)?;
                    if setback.is_none() {
                        session.close();
                        return Ok(());
                    }
                    setback
                }
                Round::Record { entries, names, kind, matches } => {
                    let setback =
                        self.record(&session, entries, &names, &matches, &history, &progress)?;
                    if setback.is_none() {
                        self.broken = None;
                        (self.emit)(Event::Recorded { migrations: names.clone(), kind });
                    }
                    recorded = Some(names);
                    setback
                }
            };
            match setback {
                // The next round finds nothing left to do, or goes on with the rest.
                None => session.close(),
                Some(Setback::HistoryChanged) => {
                    session.close();
                    changes = if self.applied.len() > before { 1 } else { changes + 1 };
                    if changes > MOST_CHANGES {
                        return Err(ApplyError::HistoryKeepsChanging(self.settings.table.clone()));
                    }
                    if changes > 1 {
                        self.pause(PAUSE)?;
                    }
                }
                Some(Setback::Settled) => session.close(),
                Some(Setback::Broken(broken)) => self.count_break(broken)?,
                Some(Setback::LockedOut(holder)) => {
                    session.close();
                    if self.applied.len() > before {
                        rivals = None;
                    }
                    let deadline = || Deadline::after(self.settings.runner_wait, self.stop);
                    let rivals = rivals.get_or_insert_with(|| LockWait::new(deadline()));
                    rivals.wait(holder, self.emit)?;
                }
            }
        }
    }

    /// What this history asks for, by the task.
    fn decide(&mut self, history: &History) -> Result<Round<'a>, ApplyError> {
        let set = self.set;
        let conflict = |disagreement| conflict(disagreement, set, history);
        match self.task {
            Operation::Baseline { through } => {
                let through = through.as_ref().map(|name| place_of(set, name)).transpose()?;
                let (matches, places) = plan::baseline(set, history, through).map_err(conflict)?;
                let records = places.into_iter().map(|place| (place, None)).collect();
                Ok(self.to_record(records, matches, history, RecordKind::Baseline))
            }
            Operation::Accept { names } => {
                let accepted = accepted(set, names.as_deref(), history)?;
                if !accepted.refused.is_empty() {
                    let name = |place: usize| Some(set.get(place)?.name.clone());
                    let pending = accepted.refused.into_iter().filter_map(name).collect();
                    return Err(ApplyError::NotApplied(pending));
                }
                let (records, matches) = (accepted.records, accepted.matches);
                Ok(self.to_record(records, matches, history, RecordKind::Accept))
            }
            Operation::Up { accept } => {
                if !accept.is_empty() {
                    // What is not edited any more was accepted by an earlier start.
                    let accepted = accepted(set, Some(accept), history)?;
                    let (records, matches) = (accepted.records, accepted.matches);
                    let round = self.to_record(records, matches, history, RecordKind::Accept);
                    if !matches!(round, Round::Done) {
                        return Ok(round);
                    }
                }
                let plan = plan::plan(set, history, self.settings.policy).map_err(conflict)?;
                let pending = plan.pending.iter().filter_map(|pending| set.get(pending.place));
                self.pending = pending.map(|migration| migration.name.clone()).collect();
                self.resolve_broken();
                if plan.pending.is_empty() {
                    self.tell_finished(&plan, history);
                    return Ok(Round::Done);
                }
                let fit = prepared::fit(set, &plan.pending).map_err(ApplyError::NotRunnable)?;
                Ok(Round::Apply(plan, fit))
            }
        }
    }

    fn to_record(
        &self,
        records: Vec<(usize, Option<usize>)>,
        matches: Matches,
        history: &History,
        kind: RecordKind,
    ) -> Round<'a> {
        if records.is_empty() {
            return Round::Done;
        }
        let (entries, names) = entries_of(self.set, records, history);
        Round::Record { entries, names, kind, matches }
    }

    fn tell_finished(&mut self, plan: &Plan, history: &History) {
        if !plan.unknown.is_empty() {
            let rows = plan.unknown.iter().filter_map(|&row| history.rows.get(row));
            (self.emit)(Event::Unknown { rows: rows.map(ToString::to_string).collect() });
        }
        if self.applied.is_empty() {
            (self.emit)(Event::UpToDate { applied: plan.applied });
        }
    }

    /// Writes rows, and nothing else.
    fn record(
        &mut self,
        session: &Session,
        entries: Vec<NewRow>,
        recorded: &[String],
        matches: &Matches,
        history: &History,
        progress: &Progress,
    ) -> Result<Option<Setback>, ApplyError> {
        let table = &self.settings.table;
        let prepare =
            table.create_or_upgrade_sql(history, self.set.layout(), &matches.names(self.set));
        let state = history.version_after_upgrade(self.set.layout());
        let begun = recorded.iter().any(|name| progress.of(name).next().is_some());
        let marks = progress.close(table, recorded).filter(|_| begun).into_iter().collect();
        let job = TransactionSpec { prepare, entries, marks, ..TransactionSpec::default() };
        let ground = Expected { table, history, state, progress };
        Ok(self.run(session, &job, &ground)?.err())
    }

    fn count_applied(&mut self, migration: &str, took: Option<Duration>) {
        (self.emit)(Event::Applied(Done { migration: migration.to_owned(), took }));
        self.applied.push(migration.to_owned());
        self.pending.retain(|pending| pending != migration);
        (self.broken, self.in_progress) = (None, None);
    }

    /// Who holds the lock; a question whose failure changes nothing.
    fn holder(&self, session: &Session) -> Option<Holder> {
        let deadline = Deadline::after(QUESTION, self.stop);
        lock::parse_holder(&session.query_row(&lock::holder_sql(), deadline).ok()??)
    }

    /// The connection broke. The next round reads in the history what became of the transaction;
    /// the old backend, while it is not gone, still holds the lock, and so is waited for.
    fn count_break(&mut self, broken: Box<Broken>) -> Result<(), ApplyError> {
        let times = match &self.broken {
            Some((before, times))
                if before.migration == broken.migration && before.step == broken.step =>
            {
                times + 1
            }
            _ => 1,
        };
        if times > 2 * BREAKS {
            let cause = QueryError::Client(broken.trouble);
            return Err(ApplyError::Unreachable(vec![Attempt::at_query(cause)]));
        }
        (self.emit)(Event::Retrying {
            migration: broken.migration.clone(),
            why: RetryReason::Lost(broken.trouble.clone()),
            pause: PAUSE,
            attempt: times + 1,
        });
        self.broken = Some((broken, times));
        self.pause(PAUSE)
    }

    /// Says so if the migration whose connection broke turns out to have been committed.
    fn resolve_broken(&mut self) {
        let pending = &self.pending;
        let is_applied = |(broken, _): &mut (Box<Broken>, u32)| {
            broken.migration.as_ref().is_some_and(|migration| !pending.contains(migration))
        };
        if let Some((broken, _)) = self.broken.take_if(is_applied)
            && let Some(migration) = broken.migration
        {
            self.count_applied(&migration, None);
        }
    }

    /// How a transaction last broke its connection, if it did so too often to be sent again. Then
    /// all there is to learn is whether it was committed.
    fn given_up(&self, migration: Option<&str>, step: usize) -> Option<Box<Broken>> {
        let (broken, times) = self.broken.as_ref()?;
        let is_it = broken.migration.as_deref() == migration && broken.step == step;
        (*times >= BREAKS && is_it).then(|| broken.clone())
    }

    fn pause(&self, time: Duration) -> Result<(), ApplyError> {
        match Deadline::never(self.stop).sleep(time) {
            Ok(()) | Err(Interrupted::TimeOut) => Ok(()),
            Err(Interrupted::Stopped(signal)) => Err(signal.into()),
        }
    }
}

/// A connection that broke between two transactions.
fn lost_at_question(attempts: Vec<Attempt>) -> Option<Box<Broken>> {
    let trouble = match attempts.into_iter().next()?.cause {
        QueryError::Client(trouble) => trouble,
        QueryError::Server(error) => ConnectionError::Lost(error.message.clone(), Some(error)),
        QueryError::Stopped(_) => return None,
    };
    Some(Box::new(Broken { migration: None, step: 0, completed: 0, statements: 0, trouble }))
}

/// Waiting for another runner to be done.
struct LockWait<'a> {
    deadline: Deadline<'a>,
    /// The backend that was told last.
    told: Option<Option<String>>,
}

impl LockWait<'_> {
    fn new(deadline: Deadline<'_>) -> LockWait<'_> {
        LockWait { deadline, told: None }
    }

    /// Waits for a moment, or says that it was long enough. The last look is at the very end.
    fn wait(
        &mut self,
        holder: Option<Holder>,
        emit: &mut dyn FnMut(Event),
    ) -> Result<(), ApplyError> {
        let left = self.deadline.remaining().unwrap_or_default();
        if left.is_zero() {
            return Err(ApplyError::LockedOut(holder));
        }
        let pid = holder.as_ref().map(|holder| holder.pid.clone());
        if self.told.as_ref() != Some(&pid) {
            self.told = Some(pid);
            emit(Event::LockedOut { holder, left });
        }
        match self.deadline.sleep(lock::jittered(POLL.0, POLL.1).min(left)) {
            Ok(()) | Err(Interrupted::TimeOut) => Ok(()),
            Err(Interrupted::Stopped(signal)) => Err(signal.into()),
        }
    }
}

fn place_of(set: &MigrationSet, name: &str) -> Result<usize, ApplyError> {
    let place = set.migrations().iter().position(|migration| migration.name == name);
    place.ok_or_else(|| ApplyError::NoSuchMigration(name.to_owned()))
}

fn conflict(disagreement: Disagreement, set: &MigrationSet, history: &History) -> ApplyError {
    ApplyError::Conflict(Conflict::new(disagreement, set, &history.rows))
}

fn interrupted(end: Interrupted, at_time_out: ApplyError) -> ApplyError {
    match end {
        Interrupted::TimeOut => at_time_out,
        Interrupted::Stopped(signal) => signal.into(),
    }
}
