//! Which migrations can be run as they are. Pure.

use std::fmt;

use crate::history::plan::Pending;
use crate::migrations::migration::{Migration, MigrationSet, NotText};
use crate::migrations::steps::Steps;
use crate::sql::{self, Kind, Script};

/// A pending migration that cannot be run as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRunnable {
    /// Its file.
    pub file: String,
    /// Where in it, if somewhere: line and column, from 1.
    pub place: Option<(usize, usize)>,
    /// Why.
    pub why: Why,
}

/// Why a migration cannot be run as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not text.
    NotText(NotText),
    /// It rolls back what it did, or leaves it to someone else to commit, with this statement.
    Undoes(String),
    /// What this makes does not outlive its step, and there are more to come.
    SessionBound(&'static str),
    /// It holds data for COPY, or wants some.
    CopyData,
    /// It holds a command of psql's.
    MetaCommand(String),
    /// It changes how the SQL after it is read, which has been read by then.
    ReadingSetting(&'static str),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NotText(NotText::InvalidUtf8 { offset }) => {
                write!(f, "is not UTF-8 (byte {offset}); save it as UTF-8")
            }
            Why::NotText(NotText::Nul { offset }) => {
                write!(f, "has a NUL (byte {offset}), which PostgreSQL cannot take; remove it")
            }
            Why::Undoes(what) => write!(
                f,
                "has `{what}`, which would leave nothing of what the history says was done; \
                 remove it"
            ),
            Why::SessionBound(what) => write!(
                f,
                "has {what}, which lasts as long as its session, but the file is run in several \
                 transactions; make it a table of its own and drop it at the end, or keep it \
                 within one transaction with ON COMMIT DROP"
            ),
            Why::CopyData => write!(f, "copies from or to the client; use INSERT"),
            Why::ReadingSetting(name) => write!(
                f,
                "sets {name}, but the file is read before any of it runs; write E'...' for strings \
                 with backslashes, and save the file as UTF-8"
            ),
            Why::MetaCommand(what) => {
                write!(f, "has `{what}`, which only psql understands; remove it")
            }
        }
    }
}

/// A migration that can be run: read, and cut into steps.
#[derive(Debug)]
pub struct PreparedMigration<'a> {
    /// Its file, read.
    pub script: Script<'a>,
    /// Its steps.
    pub steps: Steps,
    /// How many of them an earlier start has done.
    pub done: usize,
}

/// Reads what is pending; or says why it cannot be run, of every file of which that is so.
pub fn fit<'a>(
    set: &'a MigrationSet,
    pending: &[Pending],
) -> Result<Vec<PreparedMigration<'a>>, Vec<NotRunnable>> {
    let mut fit = Vec::with_capacity(pending.len());
    let mut unfit = Vec::new();
    for migration in pending.iter().filter_map(|pending| set.get(pending.index)) {
        match read(migration) {
            Ok(one) => fit.push(one),
            Err((place, why)) => {
                unfit.push(NotRunnable { file: migration.file.clone(), place, why })
            }
        }
    }
    if unfit.is_empty() { Ok(fit) } else { Err(unfit) }
}

/// Line and column, from 1.
pub type Place = Option<(usize, usize)>;

/// Reads a migration, or says why it cannot be run.
pub fn read(migration: &Migration) -> Result<PreparedMigration<'_>, (Place, Why)> {
    let text = migration.sql().map_err(|not_text| (None, Why::NotText(not_text)))?;
    let script = Script::read(text);
    let steps = Steps::of(&script);
    let first = reasons(text, &script, &steps).next();
    first.map_or(Ok(PreparedMigration { script, steps, done: 0 }), Err)
}

/// Every reason why this text cannot be run as it is, in its order.
pub fn reasons(
    text: &str,
    script: &Script<'_>,
    steps: &Steps,
) -> impl Iterator<Item = (Place, Why)> {
    let last_unit = steps.all().last().map_or(0, |last| last.statements.start);
    script.statements().iter().enumerate().filter_map(move |(at, statement)| {
        let why = match statement.kind {
            Kind::Rollback | Kind::PrepareTransaction => Why::Undoes(statement.first_line()),
            Kind::CopyFromClient | Kind::CopyToClient => Why::CopyData,
            Kind::MetaCommand => Why::MetaCommand(statement.first_line()),
            Kind::ReadingSetting(name) => Why::ReadingSetting(name),
            Kind::SessionBound(what) if at < last_unit => Why::SessionBound(what),
            _ => return None,
        };
        Some((Some(sql::line_and_column(text, statement.start)), why))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(sql: &str) -> Option<(Place, Why)> {
        read(&Migration::new("a", "a.sql", None, sql.as_bytes().to_vec())).err()
    }

    #[test]
    fn a_file_that_transactions_and_lone_statements_can_hold_is_fit() {
        for sql in [
            "",
            "-- nothing",
            "create table a (); savepoint s; rollback to s",
            "select ';'",
            "select 1; commit; create index concurrently i on t (a); begin; select 2",
            "-- premigrate: no-transaction\ncall p()",
            "create temp table t ()",
            "vacuum; create temp table t ()",
        ] {
            assert_eq!(why(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_file_that_undoes_its_work_or_talks_to_the_client_is_told_with_its_place() {
        let told = why("select 1;\n  rollback;");
        assert_eq!(told, Some((Some((2, 3)), Why::Undoes("rollback".to_owned()))));
        assert_eq!(why("copy t from stdin;\n1\n\\.\n"), Some((Some((1, 1)), Why::CopyData)));
        let told = why("\\restrict key\nselect 1");
        assert_eq!(told, Some((Some((1, 1)), Why::MetaCommand("\\restrict key".to_owned()))));
    }

    #[test]
    fn what_lives_in_a_session_does_not_live_across_units() {
        for (sql, what) in [
            ("create temp table t (); vacuum", "CREATE TEMPORARY TABLE"),
            ("prepare p as select 1; commit; select 1", "PREPARE"),
            ("listen a; commit; select 1", "LISTEN"),
            ("declare c cursor with hold for select 1; vacuum", "DECLARE CURSOR WITH HOLD"),
        ] {
            assert_eq!(why(sql), Some((Some((1, 1)), Why::SessionBound(what))), "{sql}");
        }
        assert_eq!(why("create temp table t () on commit drop; vacuum"), None);
    }

    #[test]
    fn a_setting_that_changes_how_sql_is_read_is_fit_only_where_it_changes_nothing() {
        for sql in [
            "set standard_conforming_strings = on",
            "SET client_encoding = 'UTF8'",
            "set names 'utf8'",
            "set local work_mem = '1MB'",
        ] {
            assert_eq!(why(sql), None, "{sql}");
        }
        for (sql, name) in [
            ("set standard_conforming_strings = off", "standard_conforming_strings"),
            ("set local standard_conforming_strings to 'off'", "standard_conforming_strings"),
            ("set session client_encoding to latin1", "client_encoding"),
            ("set names 'latin1'", "names"),
            ("set \"standard_conforming_strings\" = off", "standard_conforming_strings"),
        ] {
            assert_eq!(why(sql), Some((Some((1, 1)), Why::ReadingSetting(name))), "{sql}");
        }
    }

    #[test]
    fn all_reasons_are_told_to_those_who_ask_for_all() {
        let text = "rollback;\n\\d\nabort;";
        let script = Script::read(text);
        let steps = Steps::of(&script);
        let told: Vec<_> = reasons(text, &script, &steps).map(|(place, _)| place).collect();
        assert_eq!(told, [Some((1, 1)), Some((2, 1)), Some((3, 1))]);
    }

    #[test]
    fn what_is_not_text_is_not_fit() {
        let migration = Migration::new("a", "a.sql", None, &b"ab\xff"[..]);
        let told = read(&migration).err();
        assert_eq!(told, Some((None, Why::NotText(NotText::InvalidUtf8 { offset: 2 }))));
    }
}
