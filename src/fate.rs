//! What became of a statement that ran outside any transaction, read off the catalogs. Pure: the
//! questions, and what their answers mean.

use crate::quote;
use crate::sql::{Kind, Statement};

/// What became of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Done,
    /// It is not; or doing it again does no harm.
    Undone,
    /// This index was begun, and nobody builds it any more.
    Invalid(String),
    /// This index was begun, and someone may be building it.
    Busy(String),
    /// The catalogs do not tell.
    Unknown,
}

/// What to ask; or what is clear without.
pub fn question(statement: &Statement<'_>) -> Result<String, Fate> {
    let Kind::Alone(what) = statement.kind else { return Err(Fate::Unknown) };
    match (what, statement.index()) {
        ("CREATE INDEX CONCURRENTLY", Some(index)) => {
            let (Some(name), Some(table)) = (index.name, index.table) else {
                return Err(Fate::Unknown);
            };
            let name = name.last().map(String::as_str).unwrap_or_default();
            Ok(format!(
                // A build holds this lock on its table, as a vacuum does: that is for everyone to see,
                // while who is at what is not.
                "select indisvalid and indisready and indislive, \
                 exists (select from pg_catalog.pg_locks where locktype = 'relation' \
                 and database = (select oid from pg_catalog.pg_database \
                 where datname = pg_catalog.current_database()) and relation = indrelid \
                 and mode = 'ShareUpdateExclusiveLock' and pid <> pg_catalog.pg_backend_pid()), \
                 pg_catalog.format('%I.%I', nspname, relname) \
                 from pg_catalog.pg_index join pg_catalog.pg_class on pg_class.oid = indexrelid \
                 join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace \
                 where relname = {}::name and indrelid = pg_catalog.to_regclass({})",
                quote::literal(name),
                quote::literal(&qualified(&table))
            ))
        }
        ("DROP INDEX CONCURRENTLY", Some(index)) => Ok(format!(
            "select pg_catalog.to_regclass({}) is null",
            quote::literal(&qualified(&index.name.unwrap_or_default()))
        )),
        (
            "VACUUM"
            | "CLUSTER"
            | "ALTER SYSTEM"
            | "DISCARD ALL"
            | "REINDEX CONCURRENTLY"
            | "REINDEX SCHEMA"
            | "REINDEX DATABASE"
            | "REINDEX SYSTEM"
            | "ALTER SUBSCRIPTION REFRESH"
            | "ALTER DATABASE SET TABLESPACE",
            _,
        ) => Err(Fate::Undone),
        _ => Err(Fate::Unknown),
    }
}

/// What the answer to the question means.
pub fn read(statement: &Statement<'_>, answer: Option<&[Option<String>]>) -> Fate {
    let field = |place: usize| answer.and_then(|row| row.get(place)).cloned().flatten();
    let is_true = |place: usize| field(place).as_deref() == Some("t");
    if statement.kind == Kind::Alone("DROP INDEX CONCURRENTLY") {
        return if is_true(0) { Fate::Done } else { Fate::Undone };
    }
    match field(2) {
        None => Fate::Undone,
        Some(_) if is_true(0) => Fate::Done,
        Some(index) if is_true(1) => Fate::Busy(index),
        Some(index) => Fate::Invalid(index),
    }
}

/// Whether a statement that fails may have done, and committed, a part of its work.
pub fn may_do_half(statement: &Statement<'_>) -> bool {
    let first = statement.text.split(|c: char| !c.is_ascii_alphabetic()).next();
    let is = |word: &str| first.is_some_and(|first| first.eq_ignore_ascii_case(word));
    let detaches = Kind::Alone("ALTER TABLE DETACH PARTITION CONCURRENTLY");
    is("call") || is("do") || statement.kind == detaches
}

/// Ends the backends in which a statement of ours runs that begins so, and the one that was ours
/// alone; gives the number of one that there still is.
pub fn end_orphan(tag: &str, pid: Option<i32>, backend_start: Option<&str>) -> String {
    let ours_alone = match (pid, backend_start) {
        (Some(pid), Some(start)) => {
            format!("or pid = {pid} and coalesce(backend_start = {}, true)", quote::literal(start))
        }
        _ => String::new(),
    };
    format!(
        "select pid, pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity \
         where pid <> pg_catalog.pg_backend_pid() and datname = pg_catalog.current_database() \
         and (state = 'active' and pg_catalog.starts_with(query, {}) {ours_alone})",
        quote::literal(tag)
    )
}

fn qualified(name: &[String]) -> String {
    let parts: Vec<String> = name.iter().map(|part| quote::ident(part)).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Script;

    fn told(sql: &str, answer: Option<&[&str]>) -> Fate {
        let script = Script::read(sql);
        let statement = &script.statements()[0];
        let row: Option<Vec<_>> =
            answer.map(|row| row.iter().map(|field| Some((*field).to_owned())).collect());
        match question(statement) {
            Ok(_) => read(statement, row.as_deref()),
            Err(fate) => fate,
        }
    }

    #[test]
    fn an_index_is_built_or_invalid_or_not_there() {
        let sql = "create index concurrently i on s.t (a)";
        assert_eq!(told(sql, None), Fate::Undone);
        assert_eq!(told(sql, Some(&["t", "f", "s.i"])), Fate::Done);
        assert_eq!(told(sql, Some(&["f", "f", "s.i"])), Fate::Invalid("s.i".to_owned()));
        assert_eq!(told(sql, Some(&["f", "t", "s.i"])), Fate::Busy("s.i".to_owned()));
    }

    #[test]
    fn an_index_that_the_server_named_is_not_found_again() {
        assert_eq!(told("create index concurrently on t (a)", None), Fate::Unknown);
    }

    #[test]
    fn an_index_is_dropped_once_it_is_gone() {
        assert_eq!(told("drop index concurrently s.i", Some(&["t"])), Fate::Done);
        assert_eq!(told("drop index concurrently s.i", Some(&["f"])), Fate::Undone);
    }

    #[test]
    fn what_does_no_harm_twice_runs_again_and_nothing_else_does() {
        for sql in ["vacuum t", "reindex index concurrently i", "alter system set a = 'b'"] {
            assert_eq!(told(sql, None), Fate::Undone, "{sql}");
        }
        for sql in
            ["create database d", "call p()", "alter table t detach partition p concurrently"]
        {
            assert_eq!(told(sql, None), Fate::Unknown, "{sql}");
        }
    }
}
