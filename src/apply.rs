//! Running what is pending: rounds of connect, read the history, plan, apply.
//!
//! Whatever ends a round early, be it another runner, a changed history or a broken connection, the
//! way on is the same one: read the history again, and plan again with the same pure function.

use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::connect::{self, NoSession};
use crate::database::{Attempt, Cause, Session};
use crate::error::{Conflict, Ended, Error};
use crate::fit;
use crate::flight::{Limits, Unit, Verdict};
use crate::history::{History, Row, Table};
use crate::lock;
use crate::migration::{Migration, MigrationSet};
use crate::pg_error::PgError;
use crate::plan::{self, Plan};
use crate::report::{Again, Broken, Done, Event, Holder};
use crate::signals::{Interrupted, Patience, Stop};
use crate::sql::Script;

/// Between two looks whether another runner is done; random, so that many do not come at once.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The pause after a lock that did not come: it doubles up to the longest, ± 50 %.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long our own small questions may take.
const QUESTION: Duration = Duration::from_secs(30);
/// How often a migration whose connection breaks is tried before that is taken for its own doing.
const BREAKS: u32 = 3;

/// Applies everything pending; how many migrations this run applied. On return, whatever the end,
/// no session of ours is open.
pub fn up(
    set: &MigrationSet,
    settings: &Settings,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<usize, Ended> {
    let (applied, pending) = (Vec::new(), Vec::new());
    let mut run =
        Run { set, settings, stop, tell, applied, pending, broken: None, unsettable: Vec::new() };
    match run.go() {
        Ok(()) => Ok(run.applied.len()),
        Err(error) => Err(Ended { error, applied: run.applied, pending: run.pending }),
    }
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
    let plan = decide(set, settings, &history)?;
    fit::scripts(set, &plan.pending).map_err(Error::Unfit)?;
    Ok(plan)
}

struct Run<'a> {
    set: &'a MigrationSet,
    settings: &'a Settings,
    stop: &'a Stop,
    tell: &'a mut dyn FnMut(Event),
    /// What this run has applied.
    applied: Vec<String>,
    /// What it has still to apply.
    pending: Vec<String>,
    /// The migration whose connection broke last, and how often in a row.
    broken: Option<(String, u32)>,
    /// Settings that the server turned out not to take.
    unsettable: Vec<&'static str>,
}

/// Why a round ended before everything was applied.
enum Setback {
    LockedOut(Option<Holder>),
    HistoryChanged,
    Broken(Box<Broken>),
}

impl Run<'_> {
    fn go(&mut self) -> Result<(), Error> {
        let mut rivals = None;
        let primary = Patience::lasting(self.settings.wait, self.stop);
        let mut told_standby = false;
        loop {
            let (session, history) = consult(self.settings, self.stop, self.tell)?;
            let plan = decide(self.set, self.settings, &history)?;
            let pending = plan.pending.iter().filter_map(|pending| self.set.get(pending.place));
            self.pending = pending.map(|migration| migration.name.clone()).collect();
            self.resolve_broken();
            if plan.pending.is_empty() {
                session.close();
                self.tell_finished(&plan, &history);
                return Ok(());
            }
            let scripts = fit::scripts(self.set, &plan.pending).map_err(Error::Unfit)?;
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
            match self.apply(&session, &plan, &scripts, history)? {
                None => {
                    session.close();
                    return Ok(());
                }
                Some(Setback::HistoryChanged) => session.close(),
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

    fn tell_finished(&mut self, plan: &Plan, history: &History) {
        if !plan.unknown.is_empty() {
            let rows = plan.unknown.iter().filter_map(|&row| history.rows.get(row));
            (self.tell)(Event::Unknown { rows: rows.map(ToString::to_string).collect() });
        }
        if self.applied.is_empty() {
            (self.tell)(Event::UpToDate { applied: plan.applied });
        }
    }

    /// Applies what the plan has, one migration after the other, in this session.
    fn apply(
        &mut self,
        session: &Session,
        plan: &Plan,
        scripts: &[Script<'_>],
        mut history: History,
    ) -> Result<Option<Setback>, Error> {
        for (pending, script) in plan.pending.iter().zip(scripts) {
            let Some(migration) = self.set.get(pending.place) else { continue };
            if let Some(signal) = self.stop.raised() {
                return Err(Error::Stopped { signal, rolled_back: None });
            }
            (self.tell)(Event::Applying {
                migration: migration.name.clone(),
                out_of_order: pending.out_of_order,
            });
            let started = Instant::now();
            let row = match self.run(session, migration, script, &history)? {
                Ok(row) => row,
                Err(setback) => return Ok(Some(setback)),
            };
            self.count_applied(&migration.name, Some(started.elapsed()));
            history.state = history.created(self.set.layout());
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

    /// Runs one migration, again where locks stand in its way; its row once it is committed.
    fn run(
        &mut self,
        session: &Session,
        migration: &Migration,
        script: &Script<'_>,
        history: &History,
    ) -> Result<Result<Row, Setback>, Error> {
        let (table, layout) = (&self.settings.table, self.set.layout());
        let mut attempt = 1;
        let mut pause = PAUSE;
        loop {
            let limits = Limits {
                lock_timeout: self.settings.lock_timeout,
                statement_timeout: self.settings.statement_timeout,
                server_version: session.server_version(),
                unsettable: self.unsettable.clone(),
            };
            let unit = Unit::new(migration, script, layout, table, history, &limits);
            let flight = session.flight(&unit.messages(), unit.is_large(), self.stop);
            let failure = match unit.judge(&flight) {
                Verdict::Committed(answer) => {
                    let row = Table::inserted(&answer, migration, history.state, layout);
                    // Where a rule or a trigger keeps the row from us, look at the table again.
                    return Ok(row.ok_or(Setback::HistoryChanged));
                }
                Verdict::Stopped { signal, confirmed } => {
                    let rolled_back = Some((migration.name.clone(), confirmed));
                    return Err(Error::Stopped { signal, rolled_back });
                }
                Verdict::Unsettable(setting) => {
                    self.unsettable.push(setting);
                    continue;
                }
                Verdict::HistoryChanged => return Ok(Err(Setback::HistoryChanged)),
                Verdict::LockedOut => return Ok(Err(Setback::LockedOut(self.holder(session)))),
                Verdict::Broken { completed, trouble } => {
                    return Ok(Err(Setback::Broken(Box::new(Broken {
                        migration: migration.name.clone(),
                        completed,
                        statements: script.statements().len(),
                        trouble,
                    }))));
                }
                Verdict::Forbidden(error) => {
                    let statements = table.grants(history.state, &self.settings.target.user);
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
                migration: migration.name.clone(),
                why: Again::Lock(failure.error.clone()),
                pause: jittered,
                attempt,
            });
            Patience::endless(self.stop)
                .sleep(jittered)
                .map_err(|end| interrupted(end, Error::NoLock(failure)))?;
        }
    }

    /// Who holds the lock; a question whose failure changes nothing.
    fn holder(&self, session: &Session) -> Option<Holder> {
        let patience = Patience::lasting(QUESTION, self.stop);
        lock::parse_holder(&session.ask(&lock::holder(), patience).ok()??)
    }

    /// The connection broke. The next round reads in the history what became of the migration; the
    /// old backend, while it is not gone, still holds the lock, and so is waited for.
    fn count_break(&mut self, broken: Box<Broken>) -> Result<(), Error> {
        let times = match &self.broken {
            Some((migration, times)) if *migration == broken.migration => times + 1,
            _ => 1,
        };
        if times >= BREAKS {
            return Err(Error::Broken(broken));
        }
        self.broken = Some((broken.migration.clone(), times));
        (self.tell)(Event::Retrying {
            migration: broken.migration.clone(),
            why: Again::Lost(broken.trouble.clone()),
            pause: PAUSE,
            attempt: times + 1,
        });
        let broken = Error::Broken(broken);
        Patience::endless(self.stop).sleep(PAUSE).map_err(|end| interrupted(end, broken))
    }

    /// Says so if the migration whose connection broke turns out to have been committed.
    fn resolve_broken(&mut self) {
        if let Some((migration, _)) = self.broken.take_if(|(it, _)| !self.pending.contains(it)) {
            self.count_applied(&migration, None);
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
            Err(Interrupted::Stopped(signal)) => Err(Error::Stopped { signal, rolled_back: None }),
        }
    }
}

/// Connects and reads the history: one round trip, where there is one.
pub fn consult(
    settings: &Settings,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
) -> Result<(Session, History), Error> {
    let patience = Patience::lasting(settings.wait, stop);
    loop {
        let session = connect::connect(&settings.target, settings.wait, stop, tell);
        let session = session.map_err(|none| match none {
            NoSession::Stopped(signal) => Error::Stopped { signal, rolled_back: None },
            NoSession::Unreachable(attempts) => Error::Unreachable(attempts),
        })?;
        let cause = match read(&session, &settings.table, stop) {
            Ok(Ok(history)) => return Ok((session, history)),
            Ok(Err(not)) => return Err(Error::NotAHistory(settings.table.clone(), not)),
            Err(cause) => cause,
        };
        let place = "after connecting".to_owned();
        let lost = |cause| Error::Unreachable(vec![Attempt { place, cause }]);
        match cause {
            Cause::Stopped(signal) => return Err(Error::Stopped { signal, rolled_back: None }),
            Cause::Server(error) if error.is("42501") => {
                let statements = settings.table.reading_grants(&settings.target.user);
                return Err(Error::Forbidden { error, statements });
            }
            cause if connect::passes(&cause) => {
                patience.sleep(PAUSE).map_err(|end| interrupted(end, lost(cause)))?;
            }
            cause => return Err(lost(cause)),
        }
    }
}

fn read(
    session: &Session,
    table: &Table,
    stop: &Stop,
) -> Result<Result<History, crate::history::NotAHistory>, Cause> {
    let patience = Patience::lasting(QUESTION, stop);
    match session.ask(&table.read(), patience) {
        Ok(answer) => Ok(table.parse(&answer.unwrap_or_default())),
        Err(Cause::Server(error)) if error.is("42P01") => {
            let answer = session.ask(&table.probe(), patience)?;
            Ok(Ok(Table::parse_probe(&answer.unwrap_or_default())))
        }
        Err(cause) => Err(cause),
    }
}

fn decide(set: &MigrationSet, settings: &Settings, history: &History) -> Result<Plan, Error> {
    plan::plan(set, &history.rows, settings.policy)
        .map_err(|disagreement| Error::Conflict(Conflict::new(disagreement, set, &history.rows)))
}

fn interrupted(end: Interrupted, at_time_out: Error) -> Error {
    match end {
        Interrupted::TimeOut => at_time_out,
        Interrupted::Stopped(signal) => Error::Stopped { signal, rolled_back: None },
    }
}

/// A lock that did not come in time, a deadlock, a serialization failure: each may be gone later.
fn is_transient(error: &PgError) -> bool {
    ["55P03", "40P01", "40001"].contains(&error.code.as_str())
}
