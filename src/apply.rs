//! Changing the database: rounds of connect, read the history, decide, carry out.
//!
//! Whatever ends a round early, be it another runner, a changed history or a broken connection, the
//! way on is the same one: read the history again, and decide again with the same pure function.

use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::connect::{self, NoSession, Waits};
use crate::database::{Attempt, Cause, Session};
use crate::error::{Conflict, Ended, Error, RolledBack};
use crate::fit;
use crate::flight::{Job, Limits, Unit, Verdict};
use crate::history::{Entry, History, State, Table};
use crate::lock;
use crate::migration::MigrationSet;
use crate::pg_error::PgError;
use crate::plan::{self, Disagreement, Pairing, Plan};
use crate::report::{Again, Broken, Done, Event, Holder, Purpose};
use crate::signals::{Interrupted, Patience, Stop};
use crate::sql::Script;

/// Between two looks whether another runner is done; random, so that many do not come at once.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The pause after a lock that did not come: it doubles up to the longest, ± 50 %.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long our own small questions may take.
const QUESTION: Duration = Duration::from_secs(30);
/// How often the history may change under a plan before that is taken for more than other runners.
const MOST_CHANGES: u32 = 20;
/// How often a transaction whose connection breaks is tried before that is taken for its own doing.
const BREAKS: u32 = 3;

/// What is to be brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
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

impl Task {
    /// What rows are written for, if writing them is all there is to it.
    fn purpose(&self) -> Option<Purpose> {
        match self {
            Task::Up { .. } => None,
            Task::Baseline { .. } => Some(Purpose::Baseline),
            Task::Accept { .. } => Some(Purpose::Accept),
        }
    }
}

/// Brings it about. On return, whatever the end, no session of ours is open.
pub fn carry_out(
    task: &Task,
    set: &MigrationSet,
    settings: &Settings,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<(), Ended> {
    let (applied, pending) = (Vec::new(), Vec::new());
    let (broken, unsettable) = (None, Vec::new());
    let mut run = Run { task, set, settings, stop, tell, applied, pending, broken, unsettable };
    let result = run.go();
    result.map_err(|error| {
        let uncertain = run.broken.and_then(|(broken, _)| broken.migration);
        let uncertain = uncertain.filter(|_| !matches!(error, Error::Broken(_)));
        Ended { error, applied: run.applied, pending: run.pending, uncertain }
    })
}

/// What `up` would run now, and how; changes nothing.
pub fn dry_run(
    set: &MigrationSet,
    settings: &Settings,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<Plan, Error> {
    let (session, history) = consult(settings, stop, tell)?;
    session.close();
    let plan = plan::plan(set, &history, settings.policy)
        .map_err(|disagreement| conflict(disagreement, set, &history))?;
    fit::scripts(set, &plan.pending).map_err(Error::Unfit)?;
    Ok(plan)
}

struct Run<'a> {
    task: &'a Task,
    set: &'a MigrationSet,
    settings: &'a Settings,
    stop: &'a Stop,
    tell: &'a mut dyn FnMut(Event),
    /// What this run has applied.
    applied: Vec<String>,
    /// What it has still to apply.
    pending: Vec<String>,
    /// The last connection that broke in a transaction, and how often it did so in a row.
    broken: Option<(Box<Broken>, u32)>,
    /// Settings that the server turned out not to take.
    unsettable: Vec<&'static str>,
}

/// What a round is to do.
enum Round<'a> {
    /// Nothing: it is all done.
    Done,
    /// Write these rows.
    Record { entries: Vec<Entry>, names: Vec<String>, purpose: Purpose, pairing: Pairing },
    /// Run what is pending.
    Apply(Plan, Vec<Script<'a>>),
}

/// Why a round ended before everything was done.
enum Setback {
    LockedOut(Option<Holder>),
    HistoryChanged,
    Broken(Box<Broken>),
}

impl<'a> Run<'a> {
    fn go(&mut self) -> Result<(), Error> {
        let mut rivals = None;
        let primary = Patience::lasting(self.settings.wait, self.stop);
        let mut told_standby = false;
        let mut recorded: Option<Vec<String>> = None;
        let mut changes = 0;
        loop {
            let (session, history) = consult(self.settings, self.stop, self.tell)?;
            let round = self.decide(&history)?;
            if matches!(round, Round::Done) {
                session.close();
                if let Some(purpose) = self.task.purpose() {
                    match (recorded, self.broken.is_some()) {
                        (None, _) => (self.tell)(Event::NothingToRecord { purpose }),
                        // The answer to COMMIT was lost, and the rows are there.
                        (Some(migrations), true) => {
                            (self.tell)(Event::Recorded { migrations, purpose });
                        }
                        (Some(_), false) => {}
                    }
                }
                return Ok(());
            }
            if history.standby {
                session.close();
                if !told_standby {
                    let left = primary.left().unwrap_or_default();
                    (self.tell)(Event::WaitingForPrimary { left });
                    told_standby = true;
                }
                primary.sleep(POLL.0).map_err(|end| interrupted(end, Error::Standby))?;
                continue;
            }
            let before = self.applied.len();
            let setback = match round {
                Round::Done => None,
                Round::Apply(plan, scripts) => {
                    let setback = self.apply(&session, &plan, &scripts, history)?;
                    if setback.is_none() {
                        session.close();
                        return Ok(());
                    }
                    setback
                }
                Round::Record { entries, names, purpose, pairing } => {
                    let setback = self.record(&session, entries, &pairing, &history)?;
                    if setback.is_none() {
                        self.broken = None;
                        (self.tell)(Event::Recorded { migrations: names.clone(), purpose });
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
                        return Err(Error::Unsettled(self.settings.table.clone()));
                    }
                    if changes > 1 {
                        self.pause(PAUSE)?;
                    }
                }
                Some(Setback::Broken(broken)) => self.count_break(broken)?,
                Some(Setback::LockedOut(holder)) => {
                    session.close();
                    if self.applied.len() > before {
                        rivals = None;
                    }
                    let patience = || Patience::lasting(self.settings.runner_wait, self.stop);
                    let rivals = rivals.get_or_insert_with(|| Rivals::new(patience()));
                    rivals.wait(holder, self.tell)?;
                }
            }
        }
    }

    /// What this history asks for, by the task.
    fn decide(&mut self, history: &History) -> Result<Round<'a>, Error> {
        let set = self.set;
        let conflict = |disagreement| conflict(disagreement, set, history);
        match self.task {
            Task::Baseline { through } => {
                let through = through.as_ref().map(|name| place_of(set, name)).transpose()?;
                let (pairing, places) = plan::baseline(set, history, through).map_err(conflict)?;
                let records = places.into_iter().map(|place| (place, None)).collect();
                Ok(self.to_record(records, pairing, history, Purpose::Baseline))
            }
            Task::Accept { names } => {
                let accepted = self.accepted(names.as_deref(), history)?;
                if !accepted.refused.is_empty() {
                    let name = |place: usize| Some(set.get(place)?.name.clone());
                    let pending = accepted.refused.into_iter().filter_map(name).collect();
                    return Err(Error::NotApplied(pending));
                }
                let (records, pairing) = (accepted.records, accepted.pairing);
                Ok(self.to_record(records, pairing, history, Purpose::Accept))
            }
            Task::Up { accept } => {
                if !accept.is_empty() {
                    // What is not edited any more was accepted by an earlier start.
                    let accepted = self.accepted(Some(accept), history)?;
                    let (records, pairing) = (accepted.records, accepted.pairing);
                    let round = self.to_record(records, pairing, history, Purpose::Accept);
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
                let scripts = fit::scripts(set, &plan.pending).map_err(Error::Unfit)?;
                Ok(Round::Apply(plan, scripts))
            }
        }
    }

    fn accepted(
        &self,
        names: Option<&[String]>,
        history: &History,
    ) -> Result<plan::Accepted, Error> {
        let places = |names: &[String]| {
            names.iter().map(|name| place_of(self.set, name)).collect::<Result<Vec<_>, _>>()
        };
        let named = names.map(places).transpose()?;
        plan::accept(self.set, history, named.as_deref())
            .map_err(|disagreement| conflict(disagreement, self.set, history))
    }

    fn to_record(
        &self,
        records: Vec<(usize, Option<usize>)>,
        pairing: Pairing,
        history: &History,
        purpose: Purpose,
    ) -> Round<'a> {
        if records.is_empty() {
            return Round::Done;
        }
        let layout = self.set.layout();
        let mut names = Vec::with_capacity(records.len());
        let mut entries = Vec::with_capacity(records.len());
        for (place, row) in records {
            let Some(migration) = self.set.get(place) else { continue };
            names.push(migration.name.clone());
            entries.push(match row.and_then(|row| history.rows.get(row)) {
                Some(row) => Entry::again(migration, row, layout),
                None => Entry::of(migration, layout),
            });
        }
        Round::Record { entries, names, purpose, pairing }
    }

    fn tell_finished(&mut self, plan: &Plan, history: &History) {
        if !plan.unknown.is_empty() {
            let rows = plan.unknown.iter().filter_map(|&row| history.rows.get(row));
            (self.tell)(Event::Unknown { rows: rows.map(ToString::to_string).collect() });
        }
        if self.applied.is_empty() {
            (self.tell)(Event::UpToDate { applied: plan.applied });
        }
    }

    /// Writes rows, and nothing else.
    fn record(
        &mut self,
        session: &Session,
        entries: Vec<Entry>,
        pairing: &Pairing,
        history: &History,
    ) -> Result<Option<Setback>, Error> {
        let names = pairing.names(self.set);
        let prepare = self.settings.table.prepare(history, self.set.layout(), &names);
        let state = history.prepared_state(self.set.layout());
        let job = Job { file: None, prepare, entries };
        Ok(self.run(session, &job, history, state)?.err())
    }

    /// Applies what the plan has, one migration after the other, in this session.
    fn apply(
        &mut self,
        session: &Session,
        plan: &Plan,
        scripts: &[Script<'_>],
        mut history: History,
    ) -> Result<Option<Setback>, Error> {
        let layout = self.set.layout();
        let names = plan.pairing.names(self.set);
        for (pending, script) in plan.pending.iter().zip(scripts) {
            let Some(migration) = self.set.get(pending.place) else { continue };
            if let Some(signal) = self.stop.raised() {
                return Err(signal.into());
            }
            if self.given_up(Some(&migration.name)).is_none() {
                (self.tell)(Event::Applying {
                    migration: migration.name.clone(),
                    out_of_order: pending.out_of_order,
                });
            }
            let started = Instant::now();
            let entry = Entry::of(migration, layout);
            let job = Job {
                file: Some((migration, script)),
                prepare: self.settings.table.prepare(&history, layout, &names),
                entries: vec![entry.clone()],
            };
            let state = history.prepared_state(layout);
            let answer = match self.run(session, &job, &history, state)? {
                Ok(answer) => answer,
                Err(setback) => return Ok(Some(setback)),
            };
            self.count_applied(&migration.name, Some(started.elapsed()));
            // Where a rule or a trigger keeps the row from us, look at the table again.
            let Some(row) = entry.written(&answer, state) else {
                return Ok(Some(Setback::HistoryChanged));
            };
            history = history.prepared(layout, &names);
            history.rows.push(row);
        }
        Ok(None)
    }

    fn count_applied(&mut self, migration: &str, took: Option<Duration>) {
        (self.tell)(Event::Applied(Done { migration: migration.to_owned(), took }));
        self.applied.push(migration.to_owned());
        self.pending.retain(|pending| pending != migration);
        self.broken = None;
    }

    /// Runs one transaction, again where locks stand in its way. Once it is committed, what the
    /// statement that wrote its last row gave back.
    fn run(
        &mut self,
        session: &Session,
        job: &Job<'_>,
        history: &History,
        state: State,
    ) -> Result<Result<Vec<Option<String>>, Setback>, Error> {
        let table = &self.settings.table;
        let migration = job.file.map(|(migration, _)| migration.name.clone());
        let mut attempt = 1;
        let mut pause = PAUSE;
        loop {
            let limits = Limits {
                lock_timeout: self.settings.lock_timeout,
                statement_timeout: self.settings.statement_timeout,
                server_version: session.server_version(),
                unsettable: self.unsettable.clone(),
            };
            let unit = Unit::new(job, table, history, state, &limits);
            let given_up = self.given_up(migration.as_deref());
            let flight = match given_up {
                Some(_) => session.flight(&unit.probe(), false, self.stop),
                None => session.flight(&unit.messages(), unit.is_large(), self.stop),
            };
            let verdict = match (unit.judge(&flight), given_up) {
                // No backend is at it any more, and the history does not have it.
                (Verdict::Committed(_), Some(broken)) => return Err(Error::Broken(broken)),
                (Verdict::Stopped { signal, .. }, Some(_)) => {
                    return Err(signal.into());
                }
                (verdict, _) => verdict,
            };
            let failure = match verdict {
                Verdict::Committed(answer) => return Ok(Ok(answer)),
                Verdict::Stopped { signal, confirmed } => {
                    let rolled_back = Some(RolledBack { migration, confirmed });
                    return Err(Error::Stopped { signal, rolled_back });
                }
                Verdict::Unsettable(setting) => {
                    self.unsettable.push(setting);
                    continue;
                }
                Verdict::HistoryChanged => return Ok(Err(Setback::HistoryChanged)),
                Verdict::LockedOut => return Ok(Err(Setback::LockedOut(self.holder(session)))),
                Verdict::Broken { completed, trouble } => {
                    let statements = job.file.map_or(0, |(_, script)| script.statements().len());
                    let broken = Broken { migration, completed, statements, trouble };
                    return Ok(Err(Setback::Broken(Box::new(broken))));
                }
                Verdict::Forbidden(error) => {
                    let role = &self.settings.target.user;
                    let statements = table.grants(history.state, &job.prepare, role);
                    return Err(Error::Forbidden { error, statements });
                }
                Verdict::Failed(failure) if is_transient(&failure.error) => failure,
                Verdict::Failed(failure) => return Err(Error::Failed(failure)),
            };

            if attempt > self.settings.lock_retries {
                return Err(Error::NoLock(failure));
            }
            attempt += 1;
            let jittered = lock::jittered(pause / 2, pause + pause / 2);
            pause = (pause * 2).min(LONGEST_PAUSE);
            (self.tell)(Event::Retrying {
                migration: migration.clone(),
                why: Again::Lock(failure.error.clone()),
                pause: jittered,
                attempt,
            });
            self.pause(jittered)?;
        }
    }

    /// Who holds the lock; a question whose failure changes nothing.
    fn holder(&self, session: &Session) -> Option<Holder> {
        let patience = Patience::lasting(QUESTION, self.stop);
        lock::parse_holder(&session.ask(&lock::holder(), patience).ok()??)
    }

    /// The connection broke. The next round reads in the history what became of the transaction;
    /// the old backend, while it is not gone, still holds the lock, and so is waited for.
    fn count_break(&mut self, broken: Box<Broken>) -> Result<(), Error> {
        let times = match &self.broken {
            Some((before, times)) if before.migration == broken.migration => times + 1,
            _ => 1,
        };
        if times > 2 * BREAKS {
            let place = "after connecting".to_owned();
            return Err(Error::Unreachable(vec![Attempt {
                place,
                cause: Cause::Client(broken.trouble),
            }]));
        }
        (self.tell)(Event::Retrying {
            migration: broken.migration.clone(),
            why: Again::Lost(broken.trouble.clone()),
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
    fn given_up(&self, migration: Option<&str>) -> Option<Box<Broken>> {
        let (broken, times) = self.broken.as_ref()?;
        (*times >= BREAKS && broken.migration.as_deref() == migration).then(|| broken.clone())
    }

    fn pause(&self, time: Duration) -> Result<(), Error> {
        match Patience::endless(self.stop).sleep(time) {
            Ok(()) | Err(Interrupted::TimeOut) => Ok(()),
            Err(Interrupted::Stopped(signal)) => Err(signal.into()),
        }
    }
}

/// Waiting for another runner to be done.
struct Rivals<'a> {
    patience: Patience<'a>,
    /// The backend that was told last.
    told: Option<Option<String>>,
}

impl Rivals<'_> {
    fn new(patience: Patience<'_>) -> Rivals<'_> {
        Rivals { patience, told: None }
    }

    /// Waits for a moment, or says that it was long enough. The last look is at the very end.
    fn wait(&mut self, holder: Option<Holder>, tell: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let left = self.patience.left().unwrap_or_default();
        if left.is_zero() {
            return Err(Error::LockedOut(holder));
        }
        let pid = holder.as_ref().map(|holder| holder.pid.clone());
        if self.told.as_ref() != Some(&pid) {
            self.told = Some(pid);
            tell(Event::LockedOut { holder, left });
        }
        match self.patience.sleep(lock::jittered(POLL.0, POLL.1).min(left)) {
            Ok(()) | Err(Interrupted::TimeOut) => Ok(()),
            Err(Interrupted::Stopped(signal)) => Err(signal.into()),
        }
    }
}

/// Connects and reads the history: one round trip, where there is one.
pub fn consult(
    settings: &Settings,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<(Session, History), Error> {
    let waits = Waits { database: settings.wait, room: settings.runner_wait };
    let ask = |session: &Session, patience: Patience<'_>| read(session, settings, patience);
    match connect::connect(&settings.target, waits, stop, tell, ask) {
        Ok((session, Ok(history))) => Ok((session, history)),
        Ok((session, Err(error))) => {
            session.close();
            Err(error)
        }
        Err(NoSession::Stopped(signal)) => Err(signal.into()),
        Err(NoSession::Unreachable(attempts)) => Err(Error::Unreachable(attempts)),
        Err(NoSession::Unanswered) => Err(Error::Unanswered(settings.table.clone())),
    }
}

fn read(
    session: &Session,
    settings: &Settings,
    patience: Patience<'_>,
) -> Result<Result<History, Error>, Cause> {
    let table = &settings.table;
    match session.ask_all(&table.read(), patience) {
        Ok(answer) => {
            Ok(table.parse(&answer).map_err(|not| Error::NotAHistory(table.clone(), not)))
        }
        Err(Cause::Server(error)) if error.is("42P01") => {
            let answer = session.ask(&table.probe(), patience)?;
            Ok(Ok(Table::parse_probe(&answer.unwrap_or_default())))
        }
        Err(Cause::Server(error)) if error.is("42501") => {
            let role = &settings.target.user;
            let answer = session.ask(&table.exists(), patience).ok().flatten();
            let exists = answer.is_some_and(|row| row.first() == Some(&Some("t".to_owned())));
            let statements = if exists {
                table.reading_grants(role)
            } else {
                table.grants(State::NoTable, &[], role)
            };
            Ok(Err(Error::Forbidden { error, statements }))
        }
        Err(cause) => Err(cause),
    }
}

fn place_of(set: &MigrationSet, name: &str) -> Result<usize, Error> {
    let place = set.migrations().iter().position(|migration| migration.name == name);
    place.ok_or_else(|| Error::NoSuchMigration(name.to_owned()))
}

fn conflict(disagreement: Disagreement, set: &MigrationSet, history: &History) -> Error {
    Error::Conflict(Conflict::new(disagreement, set, &history.rows))
}

fn interrupted(end: Interrupted, at_time_out: Error) -> Error {
    match end {
        Interrupted::TimeOut => at_time_out,
        Interrupted::Stopped(signal) => signal.into(),
    }
}

/// A lock that did not come in time, a deadlock, a serialization failure: each may be gone later.
fn is_transient(error: &PgError) -> bool {
    ["55P03", "40P01", "40001"].contains(&error.code.as_str())
}
