//! What became of a statement that ran outside any transaction, read off the catalogs. Pure: the
//! questions, and what their answers mean.

use crate::sql::quote;
use crate::sql::{Index, Kind, Statement};

/// What became of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogState {
    /// It is done.
    Done,
    /// It is not; or doing it again does no harm.
    NotDone,
    /// This index was begun, and nobody builds it any more.
    InvalidIndex(String),
    /// This index was begun, and someone may be building it.
    BeingBuilt(String),
    /// It is done by half; this SQL completes it.
    HalfDone(String),
    /// The catalogs do not tell.
    Unknown,
}

/// What there is to see of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What became of it, if it was begun.
    pub state: CatalogState,
    /// Its words for whoever asks later, if it is only to begin: it names what it is about in full,
    /// since what the names alone mean may change, by itself too. None where it is already as the
    /// statement is to make it, or half so: to find it so again tells nothing.
    pub identifying_sql: Option<String>,
}

/// What to ask; or what is clear without.
pub fn question_sql(statement: &Statement<'_>) -> Result<String, CatalogState> {
    let Kind::NoTransactionBlock(what) = statement.kind else { return Err(CatalogState::Unknown) };
    match (what, statement.index()) {
        ("CREATE INDEX CONCURRENTLY", Some(index)) => {
            let (Some(name), Some(table)) = (index.name, index.table) else {
                return Err(CatalogState::Unknown);
            };
            let name = quote::literal(name.last().map(String::as_str).unwrap_or_default());
            Ok(format!(
                "select indisvalid and indisready and indislive, {}, \
                 case when indexrelid is not null \
                 then pg_catalog.format('%I.%I', nspname, its_index.relname) end, \
                 pg_catalog.format('create index concurrently %I on %I.%I', \
                 {name}::name, nspname, its_table.relname) \
                 from pg_catalog.pg_class its_table \
                 join pg_catalog.pg_namespace on pg_namespace.oid = its_table.relnamespace \
                 left join (pg_catalog.pg_index \
                 join pg_catalog.pg_class its_index on its_index.oid = indexrelid \
                 and its_index.relkind = 'i') \
                 on indrelid = its_table.oid and its_index.relname = {name}::name \
                 where its_table.oid = pg_catalog.to_regclass({})",
                is_busy("its_table.oid"),
                quote::literal(&qualified(&table))
            ))
        }
        ("DROP INDEX CONCURRENTLY", Some(index)) => Ok(format!(
            "select pg_catalog.format('drop index concurrently %I.%I', nspname, relname) \
             from pg_catalog.pg_class \
             join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace \
             where pg_class.oid = pg_catalog.to_regclass({})",
            quote::literal(&qualified(&index.name.unwrap_or_default()))
        )),
        ("ALTER TABLE DETACH PARTITION CONCURRENTLY", None) => {
            let Some(names) = statement.detached() else { return Err(CatalogState::Unknown) };
            let [table, partition] = names.map(|name| quote::literal(&qualified(&name)));
            let detach = |how| {
                format!(
                    "pg_catalog.format('alter table %I.%I detach partition %I.%I {how}', \
                     (select nspname from pg_catalog.pg_namespace where oid = one.relnamespace), \
                     one.relname, \
                     (select nspname from pg_catalog.pg_namespace where oid = other.relnamespace), \
                     other.relname)"
                )
            };
            Ok(format!(
                // Version 13 has no such column, and no such statement.
                "select inhrelid is not null, \
                 case when (pg_catalog.to_jsonb(pg_inherits) ->> 'inhdetachpending')::boolean \
                 then {} end, {} \
                 from pg_catalog.pg_class one cross join pg_catalog.pg_class other \
                 left join pg_catalog.pg_inherits on inhparent = one.oid and inhrelid = other.oid \
                 where one.oid = pg_catalog.to_regclass({table}) \
                 and other.oid = pg_catalog.to_regclass({partition})",
                detach("finalize"),
                detach("concurrently")
            ))
        }
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
        ) => Err(CatalogState::NotDone),
        _ => Err(CatalogState::Unknown),
    }
}

/// What the answer to the question means.
pub fn read(statement: &Statement<'_>, answer: Option<&[Option<String>]>) -> Inspection {
    let field = |place: usize| answer.and_then(|row| row.get(place)).cloned().flatten();
    let is_true = |place: usize| field(place).as_deref() == Some("t");
    let (state, identifying_sql) = match statement.kind {
        Kind::NoTransactionBlock("DROP INDEX CONCURRENTLY") => {
            let is_gone = field(0).is_none();
            (if is_gone { CatalogState::Done } else { CatalogState::NotDone }, field(0))
        }
        Kind::NoTransactionBlock("ALTER TABLE DETACH PARTITION CONCURRENTLY") => {
            let state = match (answer, field(1)) {
                (_, Some(finalize)) => CatalogState::HalfDone(finalize),
                (Some(_), None) if !is_true(0) => CatalogState::Done,
                // Without both tables there is nothing to be done by half either.
                (_, None) => CatalogState::NotDone,
            };
            (state, field(2))
        }
        _ => {
            let state = match field(2) {
                None => CatalogState::NotDone,
                Some(_) if is_true(0) => CatalogState::Done,
                Some(index) if is_true(1) => CatalogState::BeingBuilt(index),
                Some(index) => CatalogState::InvalidIndex(index),
            };
            (state, field(3))
        }
    };
    let is_new = !matches!(state, CatalogState::Done | CatalogState::HalfDone(_));
    Inspection { state, identifying_sql: identifying_sql.filter(|_| is_new) }
}

/// Whether a statement that fails may have done, and committed, a part of its work, which nothing
/// tells: an index whose name cannot be read (`U&"..."`) may be there, INVALID.
pub fn may_do_half(statement: &Statement<'_>) -> bool {
    let first = statement.text.split(|c: char| !c.is_ascii_alphabetic()).next();
    let is = |word: &str| first.is_some_and(|first| first.eq_ignore_ascii_case(word));
    let detaches = Kind::NoTransactionBlock("ALTER TABLE DETACH PARTITION CONCURRENTLY");
    let builds = statement.kind == Kind::NoTransactionBlock("CREATE INDEX CONCURRENTLY");
    is("call") || is("do") || statement.kind == detaches || builds && statement.index().is_none()
}

/// Asks for the SQL that drops the indexes which a statement that did not end has left, and which to
/// run it again does not take away; none where it leaves no such ones.
pub fn leftover_indexes_sql(statement: &Statement<'_>) -> Option<String> {
    let which = match (statement.kind, statement.index()) {
        // The new one; or, where all but the last step was done, the old one.
        (Kind::NoTransactionBlock(what), _) if what.starts_with("REINDEX") => {
            "relname ~ '_cc(new|old)[0-9]*$'".to_owned()
        }
        // The server gives it another name the next time.
        (_, Some(Index { name: None, table: Some(table) })) => {
            format!("indrelid = pg_catalog.to_regclass({})", quote::literal(&qualified(&table)))
        }
        _ => return None,
    };
    Some(format!(
        "select pg_catalog.string_agg(pg_catalog.format(\
         'drop index concurrently %I.%I;', nspname, relname), ' ' order by nspname, relname) \
         from pg_catalog.pg_index join pg_catalog.pg_class on pg_class.oid = indexrelid \
         join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace \
         where not indisvalid and relkind = 'i' and {which} and not {}",
        is_busy("indrelid")
    ))
}

/// Whether someone else is building on a table. That takes this lock, as a vacuum does; which of them
/// it is, and neither what it builds nor where, the server tells everyone, where it keeps account.
fn is_busy(table: &str) -> String {
    format!(
        "exists (select from pg_catalog.pg_locks where locktype = 'relation' \
         and database = (select oid from pg_catalog.pg_database \
         where datname = pg_catalog.current_database()) and relation = {table} \
         and mode = 'ShareUpdateExclusiveLock' and pid <> pg_catalog.pg_backend_pid() \
         and (pg_catalog.current_setting('track_activities') = 'off' \
         or pid in (select pid from pg_catalog.pg_stat_progress_create_index)))"
    )
}

/// Ends the backends in which a statement of ours runs that begins so, and the one that was ours
/// alone; gives the number of one that there still is.
pub fn end_backend_sql(tag: &str, pid: Option<i32>, backend_start: Option<&str>) -> String {
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

    fn told(sql: &str, answer: &[Option<&str>]) -> CatalogState {
        seen(sql, answer).state
    }

    /// What is seen where the answer is this row; none is an empty one.
    fn seen(sql: &str, answer: &[Option<&str>]) -> Inspection {
        let script = Script::parse(sql);
        let statement = &script.statements()[0];
        let row: Vec<_> = answer.iter().map(|field| field.map(str::to_owned)).collect();
        match question_sql(statement) {
            Ok(_) => read(statement, (!row.is_empty()).then_some(&row)),
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
        assert_eq!(told(sql, &[]), CatalogState::NotDone);
    }

    #[test]
    fn an_index_that_the_server_named_is_not_found_again() {
        assert_eq!(told("create index concurrently on t (a)", &[]), CatalogState::Unknown);
    }

    #[test]
    fn an_index_is_dropped_once_it_is_gone() {
        let identifying_sql = "drop index concurrently s.i";
        assert_eq!(told("drop index concurrently i", &[]), CatalogState::Done);
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
        assert_eq!(told(sql, &[]), CatalogState::NotDone);
    }

    #[test]
    fn what_does_no_harm_twice_runs_again_and_nothing_else_does() {
        for sql in ["vacuum t", "reindex index concurrently i", "alter system set a = 'b'"] {
            assert_eq!(told(sql, &[]), CatalogState::NotDone, "{sql}");
        }
        for sql in ["create database d", "call p()", "refresh materialized view concurrently v"] {
            assert_eq!(told(sql, &[]), CatalogState::Unknown, "{sql}");
        }
    }
}
