//! One runner at a time: the lock, and who holds it.
//!
//! The lock is taken inside the transaction that does the work, and only ever tried. So it lives
//! and dies with the work, through every pooler; and nobody blocks on it, since a blocked waiter's
//! snapshot would hold up the holder's `CREATE INDEX CONCURRENTLY` for ever.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::apply::event::Holder;
use crate::history::table;

/// The advisory lock's key, the same for every release: `premigra` in ASCII.
const KEY: i64 = i64::from_be_bytes(*b"premigra");
/// The key as `pg_locks` shows it: the upper and the lower half.
const CLASS: u32 = u32::from_be_bytes(*b"prem");
const OBJECT: u32 = u32::from_be_bytes(*b"igra");

/// Takes the lock until the end of the transaction, or raises an error.
pub fn take_sql() -> String {
    table::guard_sql(&format!("pg_catalog.pg_try_advisory_xact_lock({KEY})"))
}

/// A setting that lasts as long as the transaction that took the lock; it is nobody else's. Not a
/// savepoint: a migration in a subtransaction writes rows that are not of the transaction whose number
/// its triggers see, and some extensions refuse to run in one.
pub const MARK: (&str, &str) = ("premigrate.lock", "1");

/// Whether this text may set all settings back, and [`MARK`] with them (`reset all`).
pub fn may_reset(text: &str) -> bool {
    let is_part_of_a_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    text.split(|c| !is_part_of_a_word(c)).any(|word| word.eq_ignore_ascii_case("reset"))
}

/// Raises an error unless this session holds the lock, which it does as long as the transaction is
/// still the one that took it. [`MARK`] tells: in no other is it a number. Where there may be
/// none, `pg_locks` is asked: for that the server plans longer than for all our other guards, and
/// gathers all of its locks.
pub fn still_held_sql(is_marked: bool) -> String {
    if is_marked {
        return format!("select pg_catalog.current_setting('{}')::int", MARK.0);
    }
    table::guard_sql(&format!(
        "exists (select from pg_catalog.pg_locks where locktype = 'advisory' \
         and classid = {CLASS} and objid = {OBJECT} and objsubid = 1 and granted \
         and pid = pg_catalog.pg_backend_pid())"
    ))
}

/// Asks who holds the lock; what our role may not see is null.
pub fn holder_sql() -> String {
    format!(
        "select pid, nullif(application_name, ''), client_addr, \
         (extract(epoch from pg_catalog.clock_timestamp() - xact_start) * 1000)::int8 \
         from pg_catalog.pg_locks join pg_catalog.pg_stat_activity using (pid) \
         where locktype = 'advisory' and classid = {CLASS} and objid = {OBJECT} \
         and objsubid = 1 and granted and database = \
         (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())"
    )
}

/// Understands the answer to [`holder`].
pub fn parse_holder(answer: &[Option<String>]) -> Option<Holder> {
    let field = |place: usize| answer.get(place).cloned().flatten();
    Some(Holder {
        pid: field(0)?,
        application: field(1),
        address: field(2),
        open_for: milliseconds(field(3)),
    })
}

/// A number of milliseconds, as the server gives it.
pub(super) fn milliseconds(field: Option<String>) -> Option<Duration> {
    field?.parse().ok().map(Duration::from_millis)
}

/// A random time in this range, so that runners that started together do not go on together.
pub fn jittered(from: Duration, to: Duration) -> Duration {
    let random = RandomState::new().hash_one(std::process::id());
    let span = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX);
    from + Duration::from_millis(random % span.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_one_that_is_documented() {
        assert_eq!(KEY, 8_102_650_200_187_171_425);
        assert_eq!((i64::from(CLASS) << 32) | i64::from(OBJECT), KEY);
    }

    #[test]
    fn what_may_reset_all_settings_has_the_word() {
        for text in ["reset all", "RESET ALL;", "perform 1;\tReset/**/all", "-- reset", "'reset'"] {
            assert!(may_reset(text), "{text}");
        }
        for text in ["", "create table password_reset_tokens ()", "reset$1", "preset all"] {
            assert!(!may_reset(text), "{text}");
        }
    }

    #[test]
    fn jitter_stays_in_its_range_and_varies() {
        let (from, to) = (Duration::from_secs(1), Duration::from_secs(5));
        let times: Vec<_> = (0..50).map(|_| jittered(from, to)).collect();
        assert!(times.iter().all(|time| (from..=to).contains(time)));
        assert!(times.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
