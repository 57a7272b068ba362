//! The lock that lets one runner work at a time.
//!
//! The transaction that does the work takes it (`transaction::opening`), and only ever tries to. So the
//! lock lives and dies with the work, through every pooler. A statement outside a transaction cannot
//! take it: `lock_session` holds it meanwhile, in a transaction on a second session. `Table::lock_sql`
//! is the lock on the history beside it, for migrators that do not know ours; a role that may not take
//! it looks for such a migrator instead ([`nobody_writes_sql`]).
//!
//! Nothing waits in the server for it: the snapshot of a waiting session would hold up the holder's
//! `CREATE INDEX CONCURRENTLY` forever.

use std::time::Duration;

use crate::apply::event::{Holder, HolderKind};
use crate::history::table::{self, Table};
use crate::postgres::result::ResultRow;
use crate::sql::quote::{self, EQ};

/// The advisory lock's key, the same for every release: `premigra` in ASCII.
const KEY: i64 = i64::from_be_bytes(*b"premigra");
/// The key as `pg_locks` shows it: the upper and the lower half.
const CLASS: u32 = u32::from_be_bytes(*b"prem");
const OBJECT: u32 = u32::from_be_bytes(*b"igra");

/// Takes the lock until the end of the transaction, or raises an error.
pub fn take_sql() -> String {
    table::guard_sql(&format!("pg_catalog.pg_try_advisory_xact_lock({KEY})"))
}

/// Raises an error unless the transaction is still the one that took the lock, and so holds it: it
/// is DEFERRABLE, and one that a file began would not be. Nothing in a transaction changes that mode,
/// not even RESET ALL. Reading `pg_locks` would take ten times as long.
pub fn still_held_sql() -> String {
    table::guard_sql("pg_catalog.current_setting('transaction_deferrable')::boolean")
}

/// Whether a row of `pg_locks` is our lock, and somebody has it.
pub fn is_held_sql() -> String {
    format!(
        "locktype {EQ} 'advisory' and classid {EQ} {CLASS} and objid {EQ} {OBJECT} \
         and objsubid {EQ} 1 and granted"
    )
}

/// Raises an error while another session writes to the history, for a role that may not lock it. It has
/// to be a statement of its own before the one that compares the history: a session that writes after it
/// writes higher ids than the history has.
pub fn nobody_writes_sql(history: &Table) -> String {
    let [writes, ..] = HISTORY_LOCKS;
    table::guard_sql(&format!(
        "not exists (select from pg_catalog.pg_locks where relation {EQ} pg_catalog.to_regclass({}) \
         and mode {EQ} '{writes}' and granted and {DATABASE} \
         and coalesce(pid, 0) operator(pg_catalog.<>) pg_catalog.pg_backend_pid())",
        quote::literal(&history.qualified())
    ))
}

/// Whether a row of `pg_locks` is of this database.
pub(super) const DATABASE: &str = "database operator(pg_catalog.=) (select oid from pg_catalog.pg_database \
    where datname operator(pg_catalog.=) pg_catalog.current_database())";

/// Selects the session that holds the lock. What our role may not see is NULL.
pub fn runner_sql() -> String {
    session_sql(&is_held_sql())
}

/// Selects a session that keeps us from working: one that holds the lock, or else one that has locked
/// the history.
pub fn holder_sql(history: &Table) -> String {
    let modes = HISTORY_LOCKS.map(quote::literal).join(", ");
    session_sql(&format!(
        "({} or granted and relation {EQ} pg_catalog.to_regclass({}) \
         and mode {EQ} any (array[{modes}]))",
        is_held_sql(),
        quote::literal(&history.qualified())
    ))
}

/// What keeps [`Table::lock_sql`] from locking the history. A session with one of the first two locks
/// writes to it, and so is a runner, though it may take no lock of ours.
const HISTORY_LOCKS: [&str; 6] = [
    "RowExclusiveLock",
    "ShareRowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// Selects a session with such a row in `pg_locks`, preferably a runner. Only autovacuum is of no role,
/// which every role may see.
fn session_sql(condition: &str) -> String {
    let [writes, also, ..] = HISTORY_LOCKS;
    format!(
        "select activity.pid, application_name, client_addr, {}, \
         case when usesysid is null then 'autovacuum' when locktype {EQ} 'advisory' \
         or mode {EQ} '{writes}' or mode {EQ} '{also}' then 'runner' else 'other' end \
         from pg_catalog.pg_locks join pg_catalog.pg_stat_activity activity \
         on activity.pid {EQ} pg_locks.pid \
         where {condition} and {DATABASE} order by 5 desc limit 1",
        age_sql("xact_start")
    )
}

/// Reads the row that [`runner_sql`] or [`holder_sql`] selects.
pub fn parse_holder(row: &[Option<String>]) -> Option<Holder> {
    let row = ResultRow::from(row);
    let text = |index| row.at(index).map(str::to_owned);
    Some(Holder {
        kind: match row.at(4) {
            Some("autovacuum") => HolderKind::Autovacuum,
            Some("other") => HolderKind::Other,
            _ => HolderKind::Runner,
        },
        pid: text(0)?,
        application: text(1).filter(|name| !name.is_empty()),
        address: text(2),
        open_for: milliseconds(row.at(3)),
    })
}

/// How many milliseconds ago that was.
pub(super) fn age_sql(time: &str) -> String {
    format!(
        "(extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) {time}) \
         operator(pg_catalog.*) 1000)::bigint"
    )
}

pub(super) fn milliseconds(text: Option<&str>) -> Option<Duration> {
    text?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_one_that_is_documented() {
        assert_eq!(KEY, 8_102_650_200_187_171_425);
        assert_eq!((i64::from(CLASS) << 32) | i64::from(OBJECT), KEY);
    }
}
