//! Which session blocks a statement that waits for a lock. Pure.

use std::time::Duration;

use crate::apply::event::Blocker;
use crate::apply::lock::{age_sql, milliseconds};
use crate::postgres::result::ResultRow;
use crate::sql::quote::EQ;
use crate::sql::redact;

/// How many columns [`blocker_sql`] has.
pub const COLUMNS: usize = 9;

/// Selects a session that blocks the backend `running.pid`, preferably one that does not wait itself;
/// and then for how long that backend has been waiting. Only for one that waits for a lock is anything asked
/// of the lock manager, which holds up everybody.
pub fn blocker_sql(server_version: u32) -> String {
    let waiting_for = if server_version >= 14 {
        format!(
            "(select {} from pg_catalog.pg_locks where pg_locks.pid {EQ} running.pid and not granted)",
            age_sql("pg_catalog.min(waitstart)")
        )
    } else {
        "null".to_owned()
    };
    format!(
        "select blocker, application_name, usename, state, {} as open_for, \
         pg_catalog.left(query, 200) as query, \
         (select pg_catalog.string_agg(distinct relation::pg_catalog.regclass::pg_catalog.text, ', ') \
         from pg_catalog.pg_locks where pg_locks.pid {EQ} running.pid and not granted) as relations, \
         pg_catalog.count(*) over () operator(pg_catalog.-) 1 as others, {waiting_for} as waiting_for \
         from pg_catalog.unnest(case when running.wait_event_type {EQ} 'Lock' \
         then pg_catalog.pg_blocking_pids(running.pid) end) blocker \
         left join pg_catalog.pg_stat_activity on pg_stat_activity.pid {EQ} blocker \
         order by coalesce(pg_stat_activity.wait_event_type {EQ} 'Lock', false), xact_start limit 1",
        age_sql("coalesce(xact_start, query_start)")
    )
}

/// Reads the columns of [`blocker_sql`], which begin at this one.
pub fn parse(row: ResultRow<'_>, first: usize) -> Option<Blocker> {
    let text = |index| row.at(first + index).filter(|text| !text.is_empty()).map(str::to_owned);
    Some(Blocker {
        pid: text(0)?,
        application: text(1),
        role: text(2),
        state: text(3),
        open_for: milliseconds(row.at(first + 4)),
        query: text(5).map(|query| redact::query(&query).into_owned()),
        table: text(6),
        others: row.at(first + 7).and_then(|others| others.parse().ok()).unwrap_or_default(),
    })
}

/// Reads how long the backend has been waiting, if the server says so: 13 does not.
pub fn waiting_for(row: ResultRow<'_>, first: usize) -> Option<Duration> {
    milliseconds(row.at(first + 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_manager_is_asked_only_for_a_backend_that_waits_for_a_lock() {
        for version in [13, 18] {
            let sql = blocker_sql(version);
            let (before, after) = sql.split_once("pg_catalog.pg_blocking_pids(").unwrap();
            let condition = "case when running.wait_event_type operator(pg_catalog.=) 'Lock' then ";
            assert!(before.ends_with(condition), "{before}");
            assert!(after.starts_with("running.pid) end)"), "{after}");
            assert!(!after.contains("pg_blocking_pids"), "{after}");
        }
    }
}
