//! Which session blocks a statement that waits for a lock. A second connection asks for it, less and
//! less often, and is closed each time. If it fails, nothing changes, and it is not tried again.

use std::time::{Duration, Instant};

use crate::apply::event::{Blocker, Event, Progress};
use crate::apply::lock::{age_sql, milliseconds};
use crate::cli::config::Options;
use crate::postgres::result::ResultRow;
use crate::postgres::session::{Response, Session};
use crate::process::signals::{Deadline, StopFlag};
use crate::sql::quote::{self, EQ};
use crate::sql::redact;

/// How long connecting and each query may take. The waiting statement is not polled during this time.
const BLOCKER_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two looks; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How the waiting backend is found.
#[derive(Clone, Copy, Debug)]
pub enum Waiting<'a> {
    /// By its process id, the second column of the reply to the first message.
    Answered,
    /// By the beginning of the statement that it runs: a pooler has chosen the backend.
    Running(&'a str),
}

pub struct Observer<'a> {
    options: &'a Options,
    stop: &'a StopFlag,
    migration: Option<&'a str>,
    waiting: Waiting<'a>,
    next_look: Instant,
    pause: Duration,
    has_failed: bool,
    /// The blocker that was seen last.
    seen: Option<Blocker>,
}

impl<'a> Observer<'a> {
    pub fn new(
        options: &'a Options,
        stop: &'a StopFlag,
        migration: Option<&'a str>,
        waiting: Waiting<'a>,
    ) -> Observer<'a> {
        Observer {
            options,
            stop,
            migration,
            waiting,
            next_look: Instant::now(),
            pause: FIRST_PAUSE,
            has_failed: false,
            seen: None,
        }
    }

    /// Looks for a blocker, and reports one that was not reported before.
    pub fn look(&mut self, responses: &[Response], emit: &mut dyn FnMut(Event)) {
        if self.has_failed || Instant::now() < self.next_look {
            return;
        }
        let Some(waiting) = self.waiting(responses) else { return };
        self.next_look = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        let Some(answer) = self.query_row(&blocker_sql(&waiting)) else {
            self.has_failed = true;
            return;
        };
        let Some(blocker) = parse(&answer) else {
            emit(Event::Progress(Progress::Unblocked));
            return;
        };
        let is_new = self.seen.as_ref().is_none_or(|seen| seen.pid != blocker.pid);
        if is_new {
            let migration = self.migration.map(str::to_owned);
            emit(Event::Blocked { migration, blocker: blocker.clone() });
        }
        self.seen = Some(blocker);
    }

    /// Returns the blocker that was seen last.
    pub fn finish(self) -> Option<Blocker> {
        self.seen
    }

    /// The condition for the waiting backend.
    fn waiting(&self, responses: &[Response]) -> Option<String> {
        match self.waiting {
            Waiting::Answered => {
                let pid = responses.first()?.row.as_ref()?.get(1)?.as_ref()?;
                pid.parse::<i32>().ok().map(|pid| format!("pid {EQ} {pid}"))
            }
            Waiting::Running(beginning) => Some(format!(
                "state {EQ} 'active' and datname {EQ} pg_catalog.current_database() \
                 and pg_catalog.starts_with(query, {})",
                quote::literal(beginning)
            )),
        }
    }

    fn query_row(&self, sql: &str) -> Option<Vec<Option<String>>> {
        let deadline = Deadline::after(BLOCKER_TIMEOUT, self.stop);
        let session = Session::open(&self.options.current_target(), deadline).ok()?;
        session.query_row_nowait(sql, deadline)
    }
}

/// Selects a session that blocks this backend, preferably one that does not wait itself. Only for a
/// backend that waits for a lock is anything asked of the lock manager, which holds up everybody.
fn blocker_sql(waiting: &str) -> String {
    format!(
        "select blocker, application_name, usename, state, {}, pg_catalog.left(query, 200), \
         (select pg_catalog.string_agg(distinct relation::pg_catalog.regclass::pg_catalog.text, ', ') \
         from pg_catalog.pg_locks where pg_locks.pid {EQ} waiting.pid and not granted), \
         pg_catalog.count(*) over () operator(pg_catalog.-) 1 \
         from (select pid from pg_catalog.pg_stat_activity \
         where {waiting} and wait_event_type {EQ} 'Lock' limit 1) waiting, \
         lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(waiting.pid)) blocker \
         left join pg_catalog.pg_stat_activity on pg_stat_activity.pid {EQ} blocker \
         order by coalesce(wait_event_type {EQ} 'Lock', false), xact_start limit 1",
        age_sql("coalesce(xact_start, query_start)")
    )
}

fn parse(row: &[Option<String>]) -> Option<Blocker> {
    let row = ResultRow::from(row);
    let text = |index| row.at(index).filter(|text| !text.is_empty()).map(str::to_owned);
    Some(Blocker {
        pid: text(0)?,
        application: text(1),
        role: text(2),
        state: text(3),
        open_for: milliseconds(row.at(4)),
        query: text(5).map(|query| redact::query(&query).into_owned()),
        table: text(6),
        others: row.at(7).and_then(|others| others.parse().ok()).unwrap_or_default(),
    })
}
