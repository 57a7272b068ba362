//! Who is in the way while a statement waits for a lock: seen by a second connection, which is
//! opened only then. A courtesy: its failure changes nothing, and it is not tried again.

use std::time::Duration;

use crate::apply::event::{Blocker, Event};
use crate::apply::lock::milliseconds;
use crate::postgres::conninfo::Target;
use crate::postgres::session::{Response, Session};
use crate::process::signals::{Deadline, StopFlag};
use crate::sql::{quote, redact};

/// How long connecting and each question may take. The one who waits is not looked after meanwhile.
const GLANCE: Duration = Duration::from_secs(2);

/// How the waiting backend is found.
#[derive(Clone, Copy, Debug)]
pub enum Waiting<'a> {
    /// Its number is the second column of the row that the first message gave.
    Answered,
    /// It runs the statement that begins so; which backend a pooler chose is not known.
    Running(&'a str),
}

/// Looks for whoever is in the way.
pub struct Observer<'a> {
    target: &'a Target,
    stop: &'a StopFlag,
    migration: Option<&'a str>,
    waiting: Waiting<'a>,
    session: Option<Session>,
    has_failed: bool,
    /// Who was seen last.
    pub seen: Option<Blocker>,
}

impl<'a> Observer<'a> {
    /// For what is about to be sent.
    pub fn new(
        target: &'a Target,
        stop: &'a StopFlag,
        migration: Option<&'a str>,
        waiting: Waiting<'a>,
    ) -> Observer<'a> {
        let (session, has_failed, seen) = (None, false, None);
        Observer { target, stop, migration, waiting, session, has_failed, seen }
    }

    /// Looks, and tells whoever is new in the way.
    pub fn look(&mut self, responses: &[Response], emit: &mut dyn FnMut(Event)) {
        if self.has_failed {
            return;
        }
        let Some(waiting) = self.waiting(responses) else { return };
        let Some(answer) = self.query_row(&question(&waiting)) else {
            self.has_failed = true;
            return;
        };
        let Some(blocker) = parse(&answer) else { return };
        let is_new = self.seen.as_ref().is_none_or(|seen| seen.pid != blocker.pid);
        if is_new {
            let migration = self.migration.map(str::to_owned);
            emit(Event::Blocked { migration, blocker: blocker.clone() });
        }
        self.seen = Some(blocker);
    }

    /// Closes the connection, and returns who was seen last.
    pub fn close(self) -> Option<Blocker> {
        self.seen
    }

    fn waiting(&self, responses: &[Response]) -> Option<String> {
        match self.waiting {
            Waiting::Answered => {
                let pid = responses.first()?.row.as_ref()?.get(1)?.as_ref()?;
                pid.parse::<i32>().ok().map(|pid| pid.to_string())
            }
            Waiting::Running(beginning) => Some(format!(
                "(select pid from pg_catalog.pg_stat_activity where state = 'active' \
                 and datname = pg_catalog.current_database() \
                 and pg_catalog.starts_with(query, {}) limit 1)",
                quote::literal(beginning)
            )),
        }
    }

    fn query_row(&mut self, question: &str) -> Option<Vec<Option<String>>> {
        let deadline = Deadline::after(GLANCE, self.stop);
        if self.session.is_none() {
            self.session = Some(Session::open(self.target, deadline).ok()?);
        }
        self.session.as_ref()?.query_row_nowait(question, deadline)
    }
}

/// Who blocks this backend: first those that do not wait themselves.
fn question(waiting: &str) -> String {
    format!(
        "select blocker, nullif(application_name, ''), usename, state, \
         (extract(epoch from pg_catalog.clock_timestamp() \
         - coalesce(xact_start, query_start)) * 1000)::int8, \
         nullif(pg_catalog.left(query, 200), ''), \
         (select pg_catalog.string_agg(distinct relation::pg_catalog.regclass::text, ', ') \
         from pg_catalog.pg_locks where pg_locks.pid = waiting.pid and not granted), \
         count(*) over () - 1 \
         from (select {waiting} as pid) waiting, \
         lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(waiting.pid)) blocker \
         left join pg_catalog.pg_stat_activity on pg_stat_activity.pid = blocker \
         order by wait_event_type is not distinct from 'Lock', xact_start limit 1"
    )
}

fn parse(answer: &[Option<String>]) -> Option<Blocker> {
    let field = |place: usize| answer.get(place).cloned().flatten();
    Some(Blocker {
        pid: field(0)?,
        application: field(1),
        role: field(2),
        state: field(3),
        open_for: milliseconds(field(4)),
        // It may be cut in the middle of a password.
        query: field(5).map(|query| redact::passwords(&query).into_owned()),
        table: field(6),
        others: field(7).and_then(|others| others.parse().ok()).unwrap_or_default(),
    })
}
