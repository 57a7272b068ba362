//! Drizzle's history table: its rows, and all SQL that names its columns.
//!
//! Returns SQL and parses what the server answers; talks to no server. All names are qualified,
//! since a migration may have changed `search_path`.

use std::fmt;

use serde::Serialize;

use crate::migrations::folder_time::folder_prefix;
use crate::migrations::migration::{Layout, Migration};
use crate::postgres::result::{ResultRow, ResultSet};
use crate::sql::quote::{self, EQ};

/// A row: a migration that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: i64,
    pub hash: String,
    /// Unix milliseconds. Drizzle writes when the migration was *generated*.
    pub created_at: Option<i64>,
    /// The folder's name; only Drizzle 1.x and this program write it.
    pub name: Option<String>,
    /// The transaction that wrote this version of the row; `None` if this run has changed the row
    /// since it read it.
    pub xmin: Option<u32>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.created_at) {
            (Some(name), _) => write!(f, "row {} ({name})", self.id),
            (None, Some(when)) => write!(f, "row {} (created_at {when})", self.id),
            (None, None) => write!(f, "row {} (hash {})", self.id, self.hash),
        }
    }
}

/// Which table there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableVersion {
    /// None, and no schema for it.
    NoSchema,
    /// None.
    NoTable,
    /// The table of Drizzle 0.x: `id`, `hash`, `created_at`.
    V0,
    /// The table of Drizzle 1.x: also `name`, and usually `applied_at`.
    V1,
}

impl TableVersion {
    pub fn has_table(self) -> bool {
        matches!(self, TableVersion::V0 | TableVersion::V1)
    }
}

/// Why a table cannot be the history: what is true of it, without a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableProblem {
    /// Its columns or rows are not those that Drizzle makes.
    NotOfDrizzle(String),
    /// It is something else, such as a view.
    NotATable(&'static str),
    /// These rules change what becomes of an INSERT.
    HasRules(String),
}

impl fmt::Display for TableProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableProblem::NotOfDrizzle(problem) => f.write_str(problem),
            TableProblem::NotATable(kind) => write!(f, "is {kind}"),
            TableProblem::HasRules(rules) => write!(f, "has rules for INSERT ({rules})"),
        }
    }
}

/// The server gives smaller object IDs only to what `initdb` creates.
const FIRST_USER_OID: u32 = 16384;

/// The enabled rules of a relation for INSERT.
const INSERT_RULES: &str = "from pg_catalog.pg_rewrite where ev_class operator(pg_catalog.=) \
    pg_class.oid and ev_type operator(pg_catalog.=) '3' and ev_enabled operator(pg_catalog.<>) 'D'";

/// The history at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub table_version: TableVersion,
    /// In the order of their `id`.
    pub rows: Vec<Row>,
    /// Whether the server is a standby, which applies nothing.
    pub in_recovery: bool,
    /// Whether the database has tables or other relations; a new one has none.
    pub has_objects: bool,
}

/// Where the history is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    schema: String,
    name: String,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl Table {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Table {
        Table { schema: schema.into(), name: name.into() }
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Its name without the schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its quoted name, with the schema.
    pub fn qualified(&self) -> String {
        format!("{}.{}", quote::ident(&self.schema), quote::ident(&self.name))
    }

    /// Reads the table, and whether the server is a standby; see [`Table::parse`]. Fails with 42P01
    /// if there is no table; then see [`Table::schema_exists_sql`].
    ///
    /// `*` returns whichever columns there are, and no catalog is read: to a new backend, reading
    /// one more table, or building JSON, takes longer than all the rest.
    pub fn select_sql(&self) -> String {
        format!("select pg_catalog.pg_is_in_recovery(); select xmin, * from {}", self.qualified())
    }

    /// Reads whether there is a schema, for a missing table, and whether the database has relations
    /// that belong neither to the system nor to an extension; see [`Table::parse_schema_exists`]. Fails
    /// on a server that has no `xmin`.
    pub fn schema_exists_sql(&self) -> String {
        format!(
            "select pg_catalog.pg_is_in_recovery(), \
             exists (select from pg_catalog.pg_namespace where nspname {EQ} {}), \
             exists (select from pg_catalog.pg_class \
             where oid operator(pg_catalog.>=) {FIRST_USER_OID} \
             and not exists (select from pg_catalog.pg_depend where classid {EQ} pg_class.tableoid \
             and objid {EQ} pg_class.oid and deptype {EQ} 'e')), \
             (select xmin from pg_catalog.pg_class limit 1)",
            quote::literal(&self.schema)
        )
    }

    /// Raises an error unless rows can be written to the table, and read again: a view or a foreign
    /// table has no versions of rows, and a rule for INSERT may put a row elsewhere.
    pub fn kind_guard_sql(&self) -> String {
        guard_sql(&format!(
            "exists (select {} and (relkind {EQ} 'r' or relkind {EQ} 'p') \
             and not exists (select {INSERT_RULES}))",
            self.relation_sql()
        ))
    }

    /// Reads what [`Table::problem`] tells.
    pub fn problem_sql(&self) -> String {
        format!(
            "select relkind, (select pg_catalog.string_agg(pg_catalog.quote_ident(rulename), ', ') \
             {INSERT_RULES}) {}",
            self.relation_sql()
        )
    }

    /// Why rows cannot be written to the table, from the answer to [`Table::problem_sql`].
    pub fn problem(answer: &[Option<String>]) -> Option<TableProblem> {
        let answer = ResultRow::from(answer);
        let kind = match answer.at(0)? {
            "r" | "p" => {
                return answer.at(1).map(|rules| TableProblem::HasRules(rules.to_owned()));
            }
            "v" => "a view",
            "m" => "a materialized view",
            "f" => "a foreign table",
            _ => "no table",
        };
        Some(TableProblem::NotATable(kind))
    }

    fn relation_sql(&self) -> String {
        format!(
            "from pg_catalog.pg_class join pg_catalog.pg_namespace \
             on pg_namespace.oid {EQ} relnamespace where nspname {EQ} {} and relname {EQ} {}",
            quote::literal(&self.schema),
            quote::literal(&self.name)
        )
    }

    /// Reads whether the table exists from the catalogs, which every role may read.
    pub fn exists_sql(&self) -> String {
        format!("select {}", table_exists_sql(&self.schema, &self.name))
    }

    /// Parses the answer to [`Table::select_sql`]. The error says of the table why it is not one
    /// that Drizzle would create, such as "has no column hash".
    pub fn parse(&self, answer: &[ResultSet]) -> Result<History, String> {
        let [in_recovery, table] = answer else {
            return Err("cannot be read".to_owned());
        };
        let has_column = |name: &str| table.columns.iter().any(|column| column == name);
        if let Some(missing) =
            ["id", "hash", "created_at", "xmin"].iter().find(|name| !has_column(name))
        {
            return Err(format!("has no column {missing}"));
        }
        let mut rows = ResultRow::all(table).map(parse_row).collect::<Result<Vec<Row>, _>>()?;
        rows.sort_by_key(|row| row.id);
        Ok(History {
            table_version: if has_column("name") { TableVersion::V1 } else { TableVersion::V0 },
            rows,
            in_recovery: ResultRow::all(in_recovery).any(|row| row.at(0) == Some("t")),
            has_objects: true,
        })
    }

    /// Parses the answer to [`Table::schema_exists_sql`].
    pub fn parse_schema_exists(answer: &[Option<String>]) -> History {
        let is_true = |index| ResultRow::from(answer).at(index) == Some("t");
        History {
            table_version: if is_true(1) { TableVersion::NoTable } else { TableVersion::NoSchema },
            rows: Vec::new(),
            in_recovery: is_true(0),
            has_objects: is_true(2),
        }
    }

    /// The condition that there is still no table, and no schema if there was none.
    pub fn is_missing_sql(&self, version: TableVersion) -> String {
        match version {
            TableVersion::NoSchema => format!(
                "not exists (select from pg_catalog.pg_namespace where nspname {EQ} {})",
                quote::literal(&self.schema)
            ),
            _ => format!("not {}", table_exists_sql(&self.schema, &self.name)),
        }
    }

    /// The condition that the table has these rows, each in this version. The same number of rows
    /// makes it exact: a transaction that has committed adds no further row. The first `known` rows
    /// are not compared, nor other rows with an id as low.
    pub fn is_unchanged_sql(&self, history: &History, known: usize) -> String {
        let compared = history.rows.get(known..).unwrap_or_default();
        let version = |row: &Row| row.xmin.map_or("null".to_owned(), |xmin| xmin.to_string());
        let versions: Vec<_> = compared.iter().map(version).collect();
        let from = match compared.first().filter(|_| known > 0) {
            Some(first) => format!(" where id operator(pg_catalog.>=) {}", first.id),
            None => String::new(),
        };
        // In the order in which rows are read: a table that was copied may have an id twice.
        let mut pairs = compared.windows(2);
        let has_duplicate_id = pairs.any(|pair| matches!(pair, [a, b] if a.id == b.id));
        let order = if has_duplicate_id { "id, ctid" } else { "id" };
        format!(
            "array(select xmin from {}{from} order by {order}) {EQ} '{{{}}}'",
            self.qualified(),
            versions.join(",")
        )
    }

    /// The condition that after these rows just those have been written that are on their way, as far
    /// as their number and the last one tell: each was written where this held for those before it.
    pub fn is_extended_sql(&self, history: &History, rows: RowsOnTheirWay<'_>) -> String {
        let (column, value) = match (&rows.last.name, rows.last.created_at) {
            (Some(name), _) if history.table_version == TableVersion::V1 => ("name", name.clone()),
            (_, Some(when)) => ("created_at", when.to_string()),
            // It is not known before it is written.
            (_, None) => return "false".to_owned(),
        };
        let from = match history.rows.last() {
            Some(last) => format!(" where id operator(pg_catalog.>) {}", last.id),
            None => String::new(),
        };
        let before = rows.count.saturating_sub(1);
        format!(
            "array(select pg_catalog.concat(hash, ' ', {column}) from (select hash, {column} \
             from {}{from} order by id offset {before}) last) {EQ} array[{}]",
            self.qualified(),
            quote::literal(&format!("{} {value}", rows.last.hash))
        )
    }

    /// Keeps other sessions from writing rows until the transaction ends, or fails at once.
    pub fn lock_sql(&self) -> String {
        format!("lock table {} in share row exclusive mode nowait", self.qualified())
    }

    /// The statements that a new row needs first: they create the table as Drizzle does or, where
    /// rows need a name, upgrade a table of 0.x as drizzle-orm 1.x does. `names` are those that the
    /// rows of the history get, from [`Matches::row_names`](super::matching::Matches::row_names).
    pub fn create_or_upgrade_sql(
        &self,
        history: &History,
        layout: Layout,
        names: &[Option<String>],
    ) -> Vec<String> {
        let table = self.qualified();
        let mut statements = Vec::new();
        match history.table_version {
            TableVersion::NoSchema | TableVersion::NoTable => {
                if history.table_version == TableVersion::NoSchema {
                    statements.push(format!("create schema {}", quote::ident(&self.schema)));
                }
                let columns = if needs_name(layout) {
                    ", name pg_catalog.text, \
                     applied_at timestamp with time zone default pg_catalog.now()"
                } else {
                    ""
                };
                statements.push(format!(
                    "create table {table} \
                     (id serial primary key, hash pg_catalog.text not null, \
                     created_at bigint{columns})"
                ));
            }
            TableVersion::V0 if needs_name(layout) => {
                statements.push(format!(
                    "alter table {table} add column if not exists name pg_catalog.text"
                ));
                statements.push(format!(
                    "alter table {table} add column if not exists applied_at \
                     timestamp with time zone default pg_catalog.now()"
                ));
                // Nobody knows when these rows were applied; the default would claim to.
                statements.push(format!("update {table} set applied_at = null"));
                for (row, name) in history.rows.iter().zip(names) {
                    if let Some(name) = name {
                        let name = quote::literal(name);
                        statements.push(format!(
                            "update {table} set name = {name} where id {EQ} {}",
                            row.id
                        ));
                    }
                }
            }
            TableVersion::V0 | TableVersion::V1 => {}
        }
        statements
    }

    /// Inserts a row and returns what [`NewRow::written`] needs.
    pub fn insert_sql(&self, row: &NewRow, version: TableVersion) -> String {
        let (created_at, returned) = match row.created_at {
            Some(when) => (when.to_string(), ""),
            None => (
                "(extract(epoch from pg_catalog.clock_timestamp()) operator(pg_catalog.*) 1000)::bigint"
                    .to_owned(),
                ", (select created_at from written)",
            ),
        };
        let (column, name) = match (version, &row.name) {
            (TableVersion::V1, Some(name)) => (", name", format!(", {}", quote::literal(name))),
            _ => ("", String::new()),
        };
        // A trigger may drop the row without an error; then the cast raises one.
        format!(
            "with written as (insert into {} (hash, created_at{column}) \
             values ({}, {created_at}{name}) returning id::pg_catalog.text, created_at) \
             select coalesce((select id from written), \
             'premigrate: a trigger keeps rows out of the history')::bigint, \
             pg_catalog.pg_current_xact_id()::pg_catalog.xid{returned}",
            self.qualified(),
            quote::literal(&row.hash)
        )
    }

    /// Reads when each row was applied, in ISO 8601, and how many seconds ago. Where the table has
    /// no column `applied_at`, the name means the outer NULL, and no row is returned.
    pub fn applied_times_sql(&self) -> String {
        format!(
            "select id, pg_catalog.to_json(pg_catalog.date_trunc('second', applied)) \
             operator(pg_catalog.#>>) '{{}}', pg_catalog.floor(extract(epoch from \
             pg_catalog.clock_timestamp() operator(pg_catalog.-) applied)) \
             from (select null::pg_catalog.timestamptz as applied_at) unknown, \
             lateral (select id, applied_at as applied from {}) known where applied is not null",
            self.qualified()
        )
    }
}

/// Rows that are on their way to the server, which has not replied yet.
#[derive(Clone, Copy, Debug)]
pub struct RowsOnTheirWay<'r> {
    /// At least one.
    pub count: usize,
    pub last: &'r NewRow,
}

/// A row that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    hash: String,
    /// `None` is the time of writing.
    created_at: Option<i64>,
    name: Option<String>,
}

impl NewRow {
    /// Records a migration under its own identity.
    pub fn new(migration: &Migration, layout: Layout) -> NewRow {
        NewRow {
            hash: migration.hash.as_str().to_owned(),
            created_at: migration.when,
            name: Some(row_name(migration, layout)),
        }
    }

    /// Records the current hash of a migration under the identity of the row that it has.
    pub fn re_accept(migration: &Migration, row: &Row, layout: Layout) -> NewRow {
        let own = NewRow::new(migration, layout);
        NewRow {
            created_at: row.created_at.or(own.created_at),
            name: row.name.clone().or(own.name),
            ..own
        }
    }

    /// The row as it was written, from the answer to [`Table::insert_sql`].
    pub fn written(&self, answer: &[Option<String>], version: TableVersion) -> Option<Row> {
        let answer = ResultRow::from(answer);
        let created_at = || answer.at(2)?.parse().ok();
        Some(Row {
            id: answer.at(0)?.parse().ok()?,
            hash: self.hash.clone(),
            created_at: self.created_at.or_else(created_at),
            name: self.name.clone().filter(|_| version == TableVersion::V1),
            xmin: Some(answer.at(1)?.parse().ok()?),
        })
    }
}

impl History {
    /// Which table there is after [`Table::create_or_upgrade_sql`].
    pub fn version_after_upgrade(&self, layout: Layout) -> TableVersion {
        if self.table_version == TableVersion::V1 || needs_name(layout) {
            TableVersion::V1
        } else {
            TableVersion::V0
        }
    }

    /// Follows [`Table::create_or_upgrade_sql`], which gives rows a name only in an upgrade.
    pub fn set_upgraded(&mut self, layout: Layout, names: &[Option<String>]) {
        let version = self.version_after_upgrade(layout);
        if self.table_version != TableVersion::V1 && version == TableVersion::V1 {
            for (row, name) in self.rows.iter_mut().zip(names) {
                row.name.clone_from(name);
                row.xmin = None;
            }
        }
        self.table_version = version;
    }

    /// How many rows come before the id of the last of the first `count` rows.
    pub fn rows_before_id_of(&self, count: usize) -> usize {
        let first = self.rows.get(..count).unwrap_or(&self.rows);
        let Some(last) = first.last() else { return 0 };
        first.len() - first.iter().rev().take_while(|row| row.id == last.id).count()
    }

    /// Whether a guard needs the history to be read again, since it has rows of unknown version.
    pub fn needs_reload(&self) -> bool {
        self.rows.iter().any(|row| row.xmin.is_none())
    }

    /// Adds rows that have not been written, for a plan of what comes after them.
    pub fn add_unwritten(&mut self, rows: &[NewRow]) {
        for row in rows {
            self.rows.push(Row {
                id: self.rows.last().map_or(1, |last| last.id.saturating_add(1)),
                hash: row.hash.clone(),
                created_at: row.created_at,
                name: row.name.clone().filter(|_| self.table_version == TableVersion::V1),
                xmin: None,
            });
        }
    }
}

/// The condition that this table exists, with the statement's snapshot. `to_regclass` would read
/// the backend's cache, which may not know yet what another session committed.
pub(super) fn table_exists_sql(schema: &str, name: &str) -> String {
    format!(
        "exists (select from pg_catalog.pg_class join pg_catalog.pg_namespace \
         on pg_namespace.oid {EQ} relnamespace where nspname {EQ} {} and relname {EQ} {})",
        quote::literal(schema),
        quote::literal(name)
    )
}

/// Raises 22P02 unless the condition holds, with a text that explains itself in the server's log;
/// returns the backend's process id.
pub fn guard_sql(condition: &str) -> String {
    format!(
        "select (case when {condition} then '1' else 'premigrate: not now' end)::int, \
         pg_catalog.pg_backend_pid()"
    )
}

/// Whether the name identifies a row of this layout, so that the table has to have that column.
pub fn needs_name(layout: Layout) -> bool {
    layout != Layout::Drizzle0
}

/// What Drizzle 1.x calls this migration. For a folder of 0.x that is the name that
/// `drizzle-kit up` will give it: its time, then its tag without the number.
pub fn row_name(migration: &Migration, layout: Layout) -> String {
    match (layout, migration.when) {
        (Layout::Drizzle0, Some(when)) => {
            let name = migration.name.split_once('_').map_or("", |(_, name)| name);
            format!("{}_{name}", folder_prefix(when))
        }
        _ => migration.name.clone(),
    }
}

fn parse_row(row: ResultRow<'_>) -> Result<Row, &'static str> {
    let id = row.text("id").and_then(|text| text.parse().ok());
    let created_at = row.text("created_at").map(str::parse).transpose();
    let xmin = row.text("xmin").and_then(|text| text.parse().ok());
    Ok(Row {
        id: id.ok_or("has an id that is not a whole number")?,
        hash: row.text("hash").ok_or("has a row without a hash")?.to_owned(),
        created_at: created_at.map_err(|_| "has a created_at that is not a whole number")?,
        name: row.text("name").map(str::to_owned),
        xmin: Some(xmin.ok_or("has a row without a version")?),
    })
}

#[cfg(test)]
mod tests;
