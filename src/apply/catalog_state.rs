//! What became of a statement that ran outside any transaction, read from the catalogs. Pure: the
//! queries, and what their answers mean.

use crate::postgres::result::ResultRow;
use crate::sql::quote::{self, EQ};
use crate::sql::redact;
use crate::sql::{Index, Kind, Statement};

/// What the catalogs say of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogState {
    Done,
    /// It is not done, or running it again is harmless.
    NotDone,
    /// This index is invalid, and no backend is building it.
    InvalidIndex(String),
    /// This index is invalid, and a backend may be building it.
    BeingBuilt(String),
    /// Half of it is done; this SQL finishes it.
    HalfDone(String),
    /// The catalogs do not show it.
    Unknown,
}

/// A statement as the catalogs show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub state: CatalogState,
    /// Schema-qualified SQL that is stored in the progress table, so that a later run inspects the
    /// same object. `None` if the object already looks finished, since then its presence proves
    /// nothing, and if there is nothing to inspect since the statement may run again.
    pub identifying_sql: Option<String>,
}

const CREATE_INDEX: Kind = Kind::NoTransactionBlock("CREATE INDEX CONCURRENTLY");
const DROP_INDEX: Kind = Kind::NoTransactionBlock("DROP INDEX CONCURRENTLY");
const DETACH: Kind = Kind::NoTransactionBlock("ALTER TABLE DETACH PARTITION CONCURRENTLY");

/// The query that shows the state of a statement, or the state that needs no query.
pub fn inspection_sql(statement: &Statement<'_>) -> Result<String, CatalogState> {
    match (statement.kind, statement.index()) {
        (CREATE_INDEX, Some(Index { name: Some(name), table: Some(table) })) => {
            Ok(created_index_sql(&name, &table))
        }
        (DROP_INDEX, Some(Index { name: Some(name), .. })) => Ok(dropped_index_sql(&name)),
        (DETACH, None) => {
            let names = statement.detached().ok_or(CatalogState::Unknown)?;
            Ok(detached_partition_sql(&names))
        }
        (
            Kind::NoTransactionBlock(
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
            ),
            _,
        ) => Err(CatalogState::NotDone),
        _ => Err(CatalogState::Unknown),
    }
}

/// Selects whether the index is valid, whether a backend may be building it, its name, and SQL that
/// identifies it.
fn created_index_sql(name: &[String], table: &[String]) -> String {
    let name = quote::literal(name.last().map(String::as_str).unwrap_or_default());
    format!(
        "select indisvalid and indisready and indislive, {}, \
         case when indexrelid is not null \
         then pg_catalog.format('%I.%I', nspname, its_index.relname) end, \
         pg_catalog.format('create index concurrently %I on %I.%I', \
         {name}::pg_catalog.name, nspname, its_table.relname) \
         from pg_catalog.pg_class its_table \
         join pg_catalog.pg_namespace on pg_namespace.oid {EQ} its_table.relnamespace \
         left join (pg_catalog.pg_index \
         join pg_catalog.pg_class its_index on its_index.oid {EQ} indexrelid \
         and its_index.relkind {EQ} 'i') \
         on indrelid {EQ} its_table.oid and its_index.relname {EQ} {name}::pg_catalog.name \
         where its_table.oid {EQ} pg_catalog.to_regclass({})",
        is_being_built_sql("its_table.oid"),
        quote::literal(&qualified(table))
    )
}

/// Selects SQL that identifies the index, if it exists.
fn dropped_index_sql(name: &[String]) -> String {
    format!(
        "select pg_catalog.format('drop index concurrently %I.%I', nspname, relname) \
         from pg_catalog.pg_class \
         join pg_catalog.pg_namespace on pg_namespace.oid {EQ} relnamespace \
         where pg_class.oid {EQ} pg_catalog.to_regclass({})",
        quote::literal(&qualified(name))
    )
}

/// Selects whether the partition is attached, SQL that finishes a half done DETACH, and SQL that
/// identifies both tables.
fn detached_partition_sql(names: &[Vec<String>; 2]) -> String {
    let [table, partition] = names.each_ref().map(|name| quote::literal(&qualified(name)));
    let detach = |how| {
        format!(
            "pg_catalog.format('alter table %I.%I detach partition %I.%I {how}', \
             (select nspname from pg_catalog.pg_namespace where oid {EQ} one.relnamespace), \
             one.relname, \
             (select nspname from pg_catalog.pg_namespace where oid {EQ} other.relnamespace), \
             other.relname)"
        )
    };
    // PostgreSQL 13 has neither the column nor the statement.
    format!(
        "select inhrelid is not null, \
         case when (pg_catalog.to_jsonb(pg_inherits) \
         operator(pg_catalog.->>) 'inhdetachpending')::boolean \
         then {} end, {} \
         from pg_catalog.pg_class one cross join pg_catalog.pg_class other \
         left join pg_catalog.pg_inherits on inhparent {EQ} one.oid and inhrelid {EQ} other.oid \
         where one.oid {EQ} pg_catalog.to_regclass({table}) \
         and other.oid {EQ} pg_catalog.to_regclass({partition})",
        detach("finalize"),
        detach("concurrently")
    )
}

/// What the row means that [`inspection_sql`] selects.
pub fn inspection(statement: &Statement<'_>, row: Option<&[Option<String>]>) -> Inspection {
    let is_found = row.is_some();
    let row = ResultRow::from(row.unwrap_or_default());
    let text = |index| row.at(index).map(str::to_owned);
    let is_true = |index| row.at(index) == Some("t");
    let (state, identifying_sql) = match statement.kind {
        DROP_INDEX => {
            let is_gone = row.at(0).is_none();
            (if is_gone { CatalogState::Done } else { CatalogState::NotDone }, text(0))
        }
        DETACH => {
            let state = match text(1) {
                Some(finalize) => CatalogState::HalfDone(finalize),
                None if is_found && !is_true(0) => CatalogState::Done,
                // It is attached, or one of the tables does not exist.
                None => CatalogState::NotDone,
            };
            (state, text(2))
        }
        _ => {
            let state = match text(2) {
                None => CatalogState::NotDone,
                Some(_) if is_true(0) => CatalogState::Done,
                Some(index) if is_true(1) => CatalogState::BeingBuilt(index),
                Some(index) => CatalogState::InvalidIndex(index),
            };
            (state, text(3))
        }
    };
    let is_new = !matches!(state, CatalogState::Done | CatalogState::HalfDone(_));
    Inspection { state, identifying_sql: identifying_sql.filter(|_| is_new) }
}

/// A statement that the catalogs do not show. Whoever may read the progress table must not find more
/// of it than what kind of statement it is.
pub fn without_inspection(sql: &str, state: CatalogState) -> Inspection {
    let is_unknown = state == CatalogState::Unknown;
    Inspection { state, identifying_sql: is_unknown.then(|| redact::query(sql).into_owned()) }
}

/// Whether a statement that fails may have committed a part of its work that the catalogs do not
/// show: a procedure, or an index whose name cannot be read (`U&"..."`) and that may be invalid.
pub fn may_do_half(statement: &Statement<'_>) -> bool {
    let first = statement.text.split(|c: char| !c.is_ascii_alphabetic()).next();
    let is = |word: &str| first.is_some_and(|first| first.eq_ignore_ascii_case(word));
    let builds_unknown = statement.kind == CREATE_INDEX && statement.index().is_none();
    is("call") || is("do") || statement.kind == DETACH || builds_unknown
}

/// Selects SQL that drops the invalid indexes which an unfinished statement has left and which
/// running it again does not remove. `None` if it leaves none.
pub fn leftover_indexes_sql(statement: &Statement<'_>) -> Option<String> {
    let condition = match (statement.kind, statement.index()) {
        // The new index, or the old one if only the last phase is missing.
        (Kind::NoTransactionBlock(what), _) if what.starts_with("REINDEX") => {
            "relname operator(pg_catalog.~) '_cc(new|old)[0-9]*$'".to_owned()
        }
        // The server chooses another name the next time.
        (_, Some(Index { name: None, table: Some(table) })) => {
            format!("indrelid {EQ} pg_catalog.to_regclass({})", quote::literal(&qualified(&table)))
        }
        _ => return None,
    };
    Some(format!(
        "select pg_catalog.string_agg(pg_catalog.format(\
         'drop index concurrently %I.%I;', nspname, relname), ' ' order by nspname, relname) \
         from pg_catalog.pg_index join pg_catalog.pg_class on pg_class.oid {EQ} indexrelid \
         join pg_catalog.pg_namespace on pg_namespace.oid {EQ} relnamespace \
         where not indisvalid and relkind {EQ} 'i' and {condition} and not {}",
        is_being_built_sql("indrelid")
    ))
}

/// The condition that another backend may be building an index of this table. A build takes this
/// lock, and so does VACUUM; which of them it is, every role may see, unless `track_activities` is
/// off.
fn is_being_built_sql(table: &str) -> String {
    format!(
        "exists (select from pg_catalog.pg_locks where locktype {EQ} 'relation' \
         and database {EQ} (select oid from pg_catalog.pg_database \
         where datname {EQ} pg_catalog.current_database()) and relation {EQ} {table} \
         and mode {EQ} 'ShareUpdateExclusiveLock' and not pid {EQ} pg_catalog.pg_backend_pid() \
         and (pg_catalog.current_setting('track_activities') {EQ} 'off' \
         or pid {EQ} any (select pid from pg_catalog.pg_stat_progress_create_index)))"
    )
}

/// Terminates the backends that [`backend_sql`] finds. Selects the process id of one that still
/// exists.
pub fn end_backend_sql(tag: &str, pid: Option<i32>, backend_start: Option<&str>) -> String {
    let backend = backend_sql(tag, pid, backend_start);
    format!("select pid, pg_catalog.pg_terminate_backend(pid) from ({backend}) backend")
}

/// Selects the process ids of the backends that run a statement of ours that begins with `tag`, and
/// of the backend of the earlier session. What our role may not see of a backend is NULL: such a
/// backend is not known to be ours, since process ids are used again. The workers of a parallel index
/// build, which come and go, show the same statement.
pub fn backend_sql(tag: &str, pid: Option<i32>, backend_start: Option<&str>) -> String {
    let earlier_session = match (pid, backend_start) {
        (Some(pid), Some(start)) => {
            format!("or pid {EQ} {pid} and backend_start {EQ} {}", quote::literal(start))
        }
        _ => String::new(),
    };
    format!(
        "select pid from pg_catalog.pg_stat_activity \
         where backend_type {EQ} 'client backend' and not pid {EQ} pg_catalog.pg_backend_pid() \
         and datname {EQ} pg_catalog.current_database() \
         and (state {EQ} 'active' and pg_catalog.starts_with(query, {}) {earlier_session})",
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

    fn state(sql: &str, answer: &[Option<&str>]) -> CatalogState {
        seen(sql, answer).state
    }

    /// What is seen where the answer is this row; none is an empty one.
    fn seen(sql: &str, answer: &[Option<&str>]) -> Inspection {
        let script = Script::parse(sql);
        let statement = &script.statements().first().unwrap();
        let row: Vec<_> = answer.iter().map(|field| field.map(str::to_owned)).collect();
        match inspection_sql(statement) {
            Ok(_) => inspection(statement, (!row.is_empty()).then_some(&row)),
            Err(state) => Inspection { state, identifying_sql: None },
        }
    }

    #[test]
    fn an_index_is_built_or_invalid_or_not_there() {
        let sql = "create index concurrently i on t (a)";
        let identifying_sql = "create index concurrently i on s.t";
        let seen = |valid, busy, index| seen(sql, &[valid, busy, index, Some(identifying_sql)]);
        let found = |state| Inspection { state, identifying_sql: Some(identifying_sql.to_owned()) };
        let (yes, no, index) = (Some("t"), Some("f"), Some("s.i"));
        assert_eq!(seen(None, no, None), found(CatalogState::NotDone));
        assert_eq!(seen(no, no, index), found(CatalogState::InvalidIndex("s.i".to_owned())));
        assert_eq!(seen(no, yes, index), found(CatalogState::BeingBuilt("s.i".to_owned())));
        assert_eq!(
            seen(yes, no, index),
            Inspection { state: CatalogState::Done, identifying_sql: None }
        );
        assert_eq!(state(sql, &[]), CatalogState::NotDone);
    }

    #[test]
    fn an_index_that_the_server_named_is_not_found_again() {
        assert_eq!(state("create index concurrently on t (a)", &[]), CatalogState::Unknown);
    }

    #[test]
    fn an_index_is_dropped_once_it_is_gone() {
        let identifying_sql = "drop index concurrently s.i";
        assert_eq!(state("drop index concurrently i", &[]), CatalogState::Done);
        let found = Inspection {
            state: CatalogState::NotDone,
            identifying_sql: Some(identifying_sql.to_owned()),
        };
        assert_eq!(seen("drop index concurrently i", &[Some(identifying_sql)]), found);
    }

    #[test]
    fn a_partition_is_detached_or_half_so_or_not() {
        let sql = "alter table p detach partition q concurrently";
        let identifying_sql = "alter table s.p detach partition s.q concurrently";
        let seen = |attached, finalize| seen(sql, &[attached, finalize, Some(identifying_sql)]);
        let found = Inspection {
            state: CatalogState::NotDone,
            identifying_sql: Some(identifying_sql.to_owned()),
        };
        assert_eq!(seen(Some("t"), None), found);
        assert_eq!(
            seen(Some("f"), None),
            Inspection { state: CatalogState::Done, identifying_sql: None }
        );
        let half = CatalogState::HalfDone("finalize".to_owned());
        assert_eq!(
            seen(Some("t"), Some("finalize")),
            Inspection { state: half, identifying_sql: None }
        );
        assert_eq!(state(sql, &[]), CatalogState::NotDone);
    }

    #[test]
    fn of_a_statement_that_the_catalogs_do_not_show_its_kind_is_kept() {
        let kept = |sql: &str| {
            let script = Script::parse(sql);
            let state = inspection_sql(&script.statements().first().unwrap()).unwrap_err();
            without_inspection(sql, state).identifying_sql
        };
        for (sql, masked) in [
            ("call p('secret')", "call p('***')"),
            ("create database d -- secret", "create database d -- ***"),
            (
                "create index concurrently on t ((a || 'b'))",
                "create index concurrently on t ((a || '***'))",
            ),
        ] {
            assert_eq!(kept(sql).as_deref(), Some(masked));
            assert_eq!(kept(masked).as_deref(), Some(masked));
        }
        assert_eq!(kept("alter system set a = 'secret'"), None);
    }

    #[test]
    fn what_does_no_harm_twice_runs_again_and_nothing_else_does() {
        for sql in ["vacuum t", "reindex index concurrently i", "alter system set a = 'b'"] {
            assert_eq!(state(sql, &[]), CatalogState::NotDone, "{sql}");
        }
        for sql in ["create database d", "call p()", "refresh materialized view concurrently v"] {
            assert_eq!(state(sql, &[]), CatalogState::Unknown, "{sql}");
        }
    }
}
