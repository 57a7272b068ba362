//! Watching what was sent until the server is done with it: what it says meanwhile, what it waits for,
//! and how far it is.

use std::time::{Duration, Instant};

use crate::postgres::session::{Response, Session};

use super::Runner;
use super::event::{Blocker, Event, Running, Unprinted};
use super::notices;
use super::observer::{Backend, Observation, Observer};
use super::transaction::{Current, StepRef};

pub(super) struct Watch<'a> {
    session: &'a Session,
    observer: Observer<'a>,
    started: Instant,
    /// What runs, as it was reported last.
    running: Running,
    /// The process id of the blocker that was reported last.
    reported: Option<String>,
}

/// What was seen of something that has ended.
pub(super) struct Watched {
    /// The session that blocked it last.
    pub(super) blocker: Option<Blocker>,
    lock_wait: Duration,
    may_look: bool,
}

impl<'a> Runner<'a> {
    /// Begins to watch what is sent next for a step; for rows alone if there is none.
    pub(super) fn watch<'s>(
        &self,
        session: &'s Session,
        step: Option<StepRef<'_>>,
        outside_transaction: Option<&'static str>,
        backend: Backend<'s>,
    ) -> Watch<'s>
    where
        'a: 's,
    {
        let migration = step.map(|step| step.migration.name.clone());
        self.begin_notices(session, step);
        Watch {
            session,
            observer: Observer::new(self.options, self.stop, backend, self.may_look),
            started: Instant::now(),
            running: Running {
                migration,
                step: step.and_then(|step| step.number.of_several()),
                statement: None,
                statements: step.map_or(0, |step| step.script.statements().len()),
                outside_transaction,
                running_for: Duration::ZERO,
                blocker: None,
                activity: None,
            },
            reported: None,
        }
    }

    /// Keeps the notices of what is sent next for a step.
    pub(super) fn begin_notices(&self, session: &Session, step: Option<StepRef<'_>>) {
        let migration = step.map(|step| step.migration.name.as_str());
        session.begin_notices(migration.unwrap_or_default(), self.options.notices);
    }

    /// Remembers what was seen of all that this run has sent.
    pub(super) fn watched(&mut self, watched: &Watched) {
        self.lock_waits += watched.lock_wait;
        self.may_look &= watched.may_look;
    }
}

impl Watch<'_> {
    /// Comes once a second. `current` is what the server works on.
    pub(super) fn tick(
        &mut self,
        responses: &[Response],
        current: Current,
        emit: &mut dyn FnMut(Event),
    ) {
        notices::report(self.session, self.migration(), emit);
        self.running.statement = current.statement;
        // A look may take a moment.
        self.report(emit);
        if let Some(Observation { blocker, activity }) =
            self.observer.look(responses, current.copy_length)
        {
            self.report_blocker(blocker.as_ref(), emit);
            (self.running.blocker, self.running.activity) = (blocker, activity);
            self.report(emit);
        }
    }

    fn report(&mut self, emit: &mut dyn FnMut(Event)) {
        self.running.running_for = self.started.elapsed();
        emit(Event::Running(self.running.clone()));
    }

    /// Reports a blocker that was not reported before.
    fn report_blocker(&mut self, blocker: Option<&Blocker>, emit: &mut dyn FnMut(Event)) {
        let Some(blocker) = blocker else {
            emit(Event::Unprinted(Unprinted::Unblocked));
            return;
        };
        if self.reported.as_ref() != Some(&blocker.pid) {
            self.reported = Some(blocker.pid.clone());
            let migration = self.running.migration.clone();
            emit(Event::Blocked { migration, blocker: blocker.clone() });
        }
    }

    /// Reports the last notices. `by_lock` is whether the statement ended because it did not get a lock.
    pub(super) fn finish(self, by_lock: bool, emit: &mut dyn FnMut(Event)) -> Watched {
        notices::report_last(self.session, self.migration(), emit);
        let until = by_lock.then(Instant::now);
        let Observer { last_blocker, lock_wait, may_look, .. } = self.observer;
        Watched { blocker: last_blocker, lock_wait: lock_wait.total(until), may_look }
    }

    fn migration(&self) -> Option<&str> {
        self.running.migration.as_deref()
    }
}
