//! What a statement that takes long waits for, and how far it is. A second connection asks for it, less
//! and less often, and is closed each time. Where it fails, or where the server has hardly any free
//! connections, nothing changes, and nobody looks again.

use std::time::{Duration, Instant};

use crate::apply::event::{Blocker, CommandProgress};
use crate::apply::{activity, blockers};
use crate::cli::config::Options;
use crate::postgres::result::ResultRow;
use crate::postgres::session::{Response, Session};
use crate::process::signals::{Deadline, StopFlag};
use crate::sql::quote::{self, EQ};

/// How long connecting and each query may take. The running statement is not polled during this time.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two looks; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// With fewer free connections than this, they are left to others.
const MIN_FREE_CONNECTIONS: i64 = 3;

/// How the backend is found that runs the statement.
#[derive(Clone, Copy, Debug)]
pub enum Backend<'a> {
    /// By its process id, the second column of the reply to the first message.
    Answered,
    /// By the beginning of the statement that it runs: a pooler has chosen the backend.
    Running(&'a str),
}

pub struct Observer<'a> {
    options: &'a Options,
    stop: &'a StopFlag,
    backend: Backend<'a>,
    next_look: Instant,
    pause: Duration,
    /// Whether a second connection may be used.
    pub may_look: bool,
    /// The blocker that was seen last, also where it blocks no more.
    pub last_blocker: Option<Blocker>,
    pub lock_wait: LockWait,
}

/// What one look has seen.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    pub blocker: Option<Blocker>,
    pub activity: Option<CommandProgress>,
}

impl<'a> Observer<'a> {
    pub fn new(
        options: &'a Options,
        stop: &'a StopFlag,
        backend: Backend<'a>,
        may_look: bool,
    ) -> Observer<'a> {
        Observer {
            options,
            stop,
            backend,
            next_look: Instant::now(),
            pause: FIRST_PAUSE,
            may_look,
            last_blocker: None,
            lock_wait: LockWait::default(),
        }
    }

    /// Looks, if it is time for it. `copy_length` is how many bytes of data the server gets.
    pub fn look(
        &mut self,
        responses: &[Response],
        copy_length: Option<u64>,
    ) -> Option<Observation> {
        if !self.may_look || Instant::now() < self.next_look {
            return None;
        }
        let condition = self.condition(responses)?;
        let row = self.query_row(&condition);
        let now = Instant::now();
        self.next_look = now + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        let Some(row) = row else {
            self.may_look = false;
            return None;
        };
        let row = ResultRow::from(row.as_slice());
        let free = row.at(0).and_then(|free| free.parse::<i64>().ok());
        self.may_look = free.is_none_or(|free| free >= MIN_FREE_CONNECTIONS);
        let blocker = blockers::parse(row, 1);
        let activity = activity::parse(row, 1 + blockers::COLUMNS, copy_length);
        self.lock_wait.look(blocker.is_some(), blockers::waiting_for(row, 1), now);
        if blocker.is_some() {
            self.last_blocker.clone_from(&blocker);
        }
        Some(Observation { blocker, activity })
    }

    /// The condition for the backend.
    fn condition(&self, responses: &[Response]) -> Option<String> {
        match self.backend {
            Backend::Answered => {
                let pid = responses.first()?.row.as_ref()?.get(1)?.as_ref()?;
                pid.parse::<i32>().ok().map(|pid| format!("pid {EQ} {pid}"))
            }
            Backend::Running(beginning) => Some(format!(
                "state {EQ} 'active' and datname {EQ} pg_catalog.current_database() \
                 and pg_catalog.starts_with(query, {})",
                quote::literal(beginning)
            )),
        }
    }

    fn query_row(&self, condition: &str) -> Option<Vec<Option<String>>> {
        let deadline = Deadline::after(LOOK_TIMEOUT, self.stop);
        let session = Session::open(&self.options.current_target(), deadline).ok()?;
        session.query_row_nowait(&look_sql(condition, session.server_version()), deadline)
    }
}

/// Selects how many connections are free, then the blocker and the activity of a backend. Other roles
/// may hide the type of their sessions, which are then counted as clients.
fn look_sql(condition: &str, server_version: u32) -> String {
    format!(
        "select pg_catalog.current_setting('max_connections')::int \
         operator(pg_catalog.-) pg_catalog.current_setting('superuser_reserved_connections')::int \
         operator(pg_catalog.-) (select pg_catalog.count(*) from pg_catalog.pg_stat_activity \
         where datid is not null and (backend_type is null or backend_type {EQ} 'client backend')), \
         blocker, application_name, usename, state, open_for, query, relations, others, waiting_for, \
         command, relation, phase, done, total \
         from (select pid, wait_event_type from pg_catalog.pg_stat_activity \
         where {condition} limit 1) running \
         left join lateral ({}) blocking on true left join lateral ({}) activity on true",
        blockers::blocker_sql(server_version),
        activity::activity_sql(server_version)
    )
}

/// How long a statement has waited for locks, as far as it was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct LockWait {
    /// Of the waits that are over.
    over: Duration,
    /// When the wait has begun that is not known to be over, and when it was seen last.
    current: Option<(Instant, Instant)>,
}

impl LockWait {
    /// A look has seen whether it waits, and for how long it has, if the server says so.
    fn look(&mut self, waits: bool, waiting_for: Option<Duration>, now: Instant) {
        let known = waiting_for.and_then(|time| now.checked_sub(time));
        let begun = known.or(self.current.map(|(begun, _)| begun)).unwrap_or(now);
        let begun = waits.then_some(begun);
        self.current = match (self.current, begun) {
            (Some((begun, seen)), Some(latest)) if latest <= seen => Some((begun, now)),
            (current, begun) => {
                self.over += current.map_or(Duration::ZERO, |(begun, seen)| seen - begun);
                begun.map(|begun| (begun, now))
            }
        };
    }

    /// The sum. `until` is when the last wait was over, where that is known.
    pub fn total(self, until: Option<Instant>) -> Duration {
        let last = self.current.map_or(Duration::ZERO, |(begun, seen)| {
            until.unwrap_or(seen).max(seen).saturating_duration_since(begun)
        });
        self.over + last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_locks_are_added_up_as_far_as_they_were_seen() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let sum = |looks: &[(u32, bool, Option<u32>)], until: Option<u32>| {
            let mut wait = LockWait::default();
            for &(at, waits, waiting_for) in looks {
                wait.look(waits, waiting_for.map(|time| second * time), start + second * at);
            }
            wait.total(until.map(|until| start + second * until)).as_secs()
        };
        let waits = |at, waiting_for| (at, true, Some(waiting_for));
        let runs = |at| (at, false, None);
        assert_eq!(sum(&[], Some(5)), 0);
        assert_eq!(sum(&[runs(1)], Some(5)), 0);
        assert_eq!(sum(&[waits(1, 1)], None), 1);
        assert_eq!(sum(&[waits(1, 1), waits(3, 3)], None), 3);
        assert_eq!(sum(&[waits(1, 1), waits(3, 3)], Some(5)), 5);
        // Over before the next look.
        assert_eq!(sum(&[waits(2, 1), runs(9)], Some(20)), 1);
        // Two waits, one after the other.
        assert_eq!(sum(&[waits(2, 2), waits(9, 1)], None), 3);
        // A server that does not say since when.
        assert_eq!(sum(&[(1, true, None), (3, true, None), runs(7)], None), 2);
    }
}
