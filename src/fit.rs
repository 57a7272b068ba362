//! Which migrations can be run as they are. Pure.

use std::fmt;

use crate::migration::{Migration, MigrationSet, NotText};
use crate::plan::Pending;
use crate::sql::{self, Kind, Script};

/// A pending migration that cannot be run as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
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
    /// It begins or ends transactions of its own, with this statement.
    TransactionControl(String),
    /// PostgreSQL runs this statement only outside a transaction.
    Alone(&'static str),
    /// It asks for no transaction.
    Directive,
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
            Why::TransactionControl(what) => write!(
                f,
                "has `{what}`, but each migration runs in a transaction of its own; remove it"
            ),
            Why::Alone(what) => write!(
                f,
                "has {what}, which PostgreSQL runs only outside a transaction; this version \
                 cannot apply it"
            ),
            Why::Directive => {
                write!(f, "asks for no-transaction, which this version cannot do")
            }
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

/// Reads what is pending; or says why it cannot be run, of every file of which that is so.
pub fn scripts<'a>(
    set: &'a MigrationSet,
    pending: &[Pending],
) -> Result<Vec<Script<'a>>, Vec<Unfit>> {
    let mut scripts = Vec::with_capacity(pending.len());
    let mut unfit = Vec::new();
    for migration in pending.iter().filter_map(|pending| set.get(pending.place)) {
        match read(migration) {
            Ok(script) => scripts.push(script),
            Err((place, why)) => unfit.push(Unfit { file: migration.file.clone(), place, why }),
        }
    }
    if unfit.is_empty() { Ok(scripts) } else { Err(unfit) }
}

/// Line and column, from 1.
pub type Place = Option<(usize, usize)>;

fn read(migration: &Migration) -> Result<Script<'_>, (Place, Why)> {
    let text = migration.sql().map_err(|not_text| (None, Why::NotText(not_text)))?;
    let script = Script::read(text);
    let first = reasons(text, &script).next();
    first.map_or(Ok(script), Err)
}

/// Every reason why this text cannot be run as it is, in its order.
pub fn reasons(text: &str, script: &Script<'_>) -> impl Iterator<Item = (Place, Why)> {
    let statements = script.statements().iter().filter_map(move |statement| {
        let why = match statement.kind {
            Kind::Begin | Kind::Commit | Kind::Rollback | Kind::PrepareTransaction => {
                Why::TransactionControl(statement.first_line())
            }
            Kind::Alone(what) => Why::Alone(what),
            Kind::CopyFromClient | Kind::CopyToClient => Why::CopyData,
            Kind::MetaCommand => Why::MetaCommand(statement.first_line()),
            Kind::ReadingSetting(name) => Why::ReadingSetting(name),
            _ => return None,
        };
        Some((Some(sql::line_and_column(text, statement.start)), why))
    });
    statements.chain(script.no_transaction().then_some((None, Why::Directive)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(sql: &str) -> Option<(Place, Why)> {
        read(&Migration::new("a", "a.sql", None, sql.as_bytes().to_vec())).err()
    }

    #[test]
    fn a_file_that_one_transaction_can_hold_is_fit() {
        for sql in ["", "-- nothing", "create table a (); savepoint s; rollback to s", "select ';'"]
        {
            assert_eq!(why(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_file_that_no_transaction_can_hold_is_told_with_its_place() {
        let told = why("select 1;\n  create index concurrently i on t (a);");
        assert_eq!(told, Some((Some((2, 3)), Why::Alone("CREATE INDEX CONCURRENTLY"))));
        let told = why("select 1;\ncommit;");
        assert_eq!(told, Some((Some((2, 1)), Why::TransactionControl("commit".to_owned()))));
        assert_eq!(why("-- premigrate: no-transaction\n"), Some((None, Why::Directive)));
        assert_eq!(why("copy t from stdin;\n1\n\\.\n"), Some((Some((1, 1)), Why::CopyData)));
        let told = why("\\restrict key\nselect 1");
        assert_eq!(told, Some((Some((1, 1)), Why::MetaCommand("\\restrict key".to_owned()))));
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
        let text = "begin;\nvacuum;\n-- premigrate: no-transaction\ncommit;";
        let told: Vec<_> = reasons(text, &Script::read(text)).map(|(place, _)| place).collect();
        assert_eq!(told, [Some((1, 1)), Some((2, 1)), Some((4, 1)), None]);
    }

    #[test]
    fn what_is_not_text_is_not_fit() {
        let migration = Migration::new("a", "a.sql", None, &b"ab\xff"[..]);
        let told = read(&migration).err();
        assert_eq!(told, Some((None, Why::NotText(NotText::InvalidUtf8 { offset: 2 }))));
    }
}
