//! The history: Drizzle's own table, its rows, and all SQL that names its columns.
//!
//! Text in, text out: nothing here talks to a server. All SQL is schema-qualified, since a
//! migration may have changed `search_path`, and lives on simple protocol, since every pooler
//! understands that.

use std::fmt;

use serde::Serialize;

use crate::migrations::layout::folder_prefix;
use crate::migrations::migration::{Layout, Migration};
use crate::postgres::session::ResultSet;
use crate::sql::quote;

/// One row: a migration that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The row's serial number.
    pub id: i64,
    /// The hash its file had.
    pub hash: String,
    /// Unix milliseconds: in Drizzle's rows when the migration was *generated*.
    pub created_at: Option<i64>,
    /// Its folder's name, where Drizzle 1.x, or we, wrote it.
    pub name: Option<String>,
    /// The transaction that wrote it as it is (`xmin`). Whoever changes a row writes another one. 0,
    /// which is no transaction's number, where it was written anew since it was read.
    pub xmin: u32,
    /// When it was applied, in ISO 8601, where the table was asked ([`Table::times`]) and knows.
    pub applied_at: Option<String>,
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

/// What the database has of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableVersion {
    /// Nothing, not even the schema.
    NoSchema,
    /// The schema, without the table.
    NoTable,
    /// The table of Drizzle 0.x: `id`, `hash`, `created_at`.
    V0,
    /// The table of Drizzle 1.x: also `name`, and mostly `applied_at`.
    V1,
}

impl TableVersion {
    /// Whether the table is there.
    pub fn has_table(self) -> bool {
        matches!(self, TableVersion::V0 | TableVersion::V1)
    }
}

/// The history at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// What there is of the table.
    pub state: TableVersion,
    /// Its rows, by `id`.
    pub rows: Vec<Row>,
    /// Whether the server is a standby, on which nothing can be applied.
    pub in_recovery: bool,
}

/// The table there is in the place of the history is not one that Drizzle would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotHistoryTable {
    /// What about it is different.
    pub what: String,
}

/// Where the history is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    schema: String,
    table: String,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl Table {
    /// The table of this name, in this schema; any identifiers, they are quoted.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Table {
        Table { schema: schema.into(), table: table.into() }
    }

    /// Its schema's name and its own.
    pub fn names(&self) -> (&str, &str) {
        (&self.schema, &self.table)
    }

    fn qualified(&self) -> String {
        format!("{}.{}", quote::ident(&self.schema), quote::ident(&self.table))
    }

    /// Asks whether the server is a standby, and reads the table in one statement, and so at one
    /// moment, whichever columns there are: the answer names them, also where there is no row.
    /// Fails with 42P01 where there is no table; then [`Table::probe`] tells what there is.
    ///
    /// Plain columns, and no look into the catalogs: a new backend knows nothing yet, and takes
    /// longer to learn of JSON, or of one table more, than for all the rest.
    pub fn select_sql(&self) -> String {
        format!("select pg_catalog.pg_is_in_recovery(); select xmin, * from {}", self.qualified())
    }

    /// Asks for the schema, where the table is missing.
    pub fn schema_exists_sql(&self) -> String {
        format!(
            "select pg_catalog.pg_is_in_recovery(), \
             exists (select from pg_catalog.pg_namespace where nspname = {})",
            quote::literal(&self.schema)
        )
    }

    /// Asks whether the table is there, of the catalog, which is open to every role.
    pub fn exists_sql(&self) -> String {
        format!(
            "select exists (select from pg_catalog.pg_class join pg_catalog.pg_namespace \
             on pg_namespace.oid = relnamespace where nspname = {} and relname = {})",
            quote::literal(&self.schema),
            quote::literal(&self.table)
        )
    }

    /// Understands the answer to [`Table::read`].
    pub fn parse(&self, answer: &[ResultSet]) -> Result<History, NotHistoryTable> {
        let [in_recovery, table] = answer else {
            return Err(NotHistoryTable { what: "cannot be read".to_owned() });
        };
        let place = |name| table.columns.iter().position(|column| column == name);
        let needed = |name| {
            place(name).ok_or_else(|| NotHistoryTable { what: format!("has no column {name}") })
        };
        let columns = Columns {
            id: needed("id")?,
            hash: needed("hash")?,
            created_at: needed("created_at")?,
            name: place("name"),
            xmin: needed("xmin")?,
        };
        let state = if columns.name.is_some() { TableVersion::V1 } else { TableVersion::V0 };
        let mut rows =
            table.rows.iter().map(|row| columns.row(row)).collect::<Result<Vec<Row>, _>>()?;
        rows.sort_by_key(|row| row.id);
        let in_recovery = in_recovery.rows.first().and_then(|row| row.first()).cloned().flatten();
        Ok(History { state, rows, in_recovery: in_recovery.as_deref() == Some("t") })
    }

    /// Understands the answer to [`Table::probe`].
    pub fn parse_probe(answer: &[Option<String>]) -> History {
        let is_true = |place: usize| answer.get(place).cloned().flatten().as_deref() == Some("t");
        History {
            state: if is_true(1) { TableVersion::NoTable } else { TableVersion::NoSchema },
            rows: Vec::new(),
            in_recovery: is_true(0),
        }
    }

    /// Raises an error unless the history is still this one. For READ COMMITTED, in a statement
    /// after the one that took the lock, so that it sees what the lock's last holder committed.
    pub fn guard_sql(&self, history: &History) -> String {
        match history.state {
            // Read from the catalogs, with the statement's snapshot: `to_regclass` looks into the
            // backend's cache, which may not know yet what the lock's last holder committed.
            TableVersion::NoSchema => guard_sql(&format!(
                "not exists (select from pg_catalog.pg_namespace where nspname = {})",
                quote::literal(&self.schema)
            )),
            TableVersion::NoTable => guard_sql(&format!(
                "not exists (select from pg_catalog.pg_class \
                 join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace \
                 where nspname = {} and relname = {})",
                quote::literal(&self.schema),
                quote::literal(&self.table)
            )),
            TableVersion::V0 | TableVersion::V1 => guard_sql(&self.unchanged_sql(history)),
        }
    }

    /// The condition that the table there is has these rows still, each in this version. With the
    /// same number of rows that is exact: a transaction adds no row to what it has committed.
    pub fn unchanged_sql(&self, history: &History) -> String {
        let versions: Vec<_> = history.rows.iter().map(|row| row.xmin.to_string()).collect();
        // Ordered as rows are read: a table that was copied may have ids twice.
        let has_twins =
            history.rows.windows(2).any(|match_rows| matches!(match_rows, [a, b] if a.id == b.id));
        let order = if has_twins { "id, ctid" } else { "id" };
        format!(
            "array(select xmin from {} order by {order}) = '{{{}}}'",
            self.qualified(),
            versions.join(",")
        )
    }

    /// Keeps everybody else from writing rows until the end of the transaction, or fails at once.
    pub fn lock_sql(&self) -> String {
        format!("lock table {} in share row exclusive mode nowait", self.qualified())
    }

    /// What must be done before a row can be written: creating the table, the same as Drizzle's;
    /// or, where rows need a name and the table is of 0.x, upgrading it as drizzle-orm 1.x does.
    /// `names` are the names of the present rows, by their place.
    pub fn create_or_upgrade_sql(
        &self,
        history: &History,
        layout: Layout,
        names: &[Option<String>],
    ) -> Vec<String> {
        let table = self.qualified();
        let mut statements = Vec::new();
        match history.state {
            TableVersion::NoSchema | TableVersion::NoTable => {
                if history.state == TableVersion::NoSchema {
                    statements.push(format!("create schema {}", quote::ident(&self.schema)));
                }
                let columns = if needs_name(layout) {
                    ", name text, applied_at timestamp with time zone default now()"
                } else {
                    ""
                };
                statements.push(format!(
                    "create table {table} \
                     (id serial primary key, hash text not null, created_at bigint{columns})"
                ));
            }
            TableVersion::V0 if needs_name(layout) => {
                statements.push(format!("alter table {table} add column if not exists name text"));
                statements.push(format!(
                    "alter table {table} add column if not exists applied_at \
                     timestamp with time zone default now()"
                ));
                // When the old ones were applied is not known, and the default does not know.
                statements.push(format!("update {table} set applied_at = null"));
                for (row, name) in history.rows.iter().zip(names) {
                    if let Some(name) = name {
                        let name = quote::literal(name);
                        statements.push(format!(
                            "update {table} set name = {name} where id = {}",
                            row.id
                        ));
                    }
                }
            }
            TableVersion::V0 | TableVersion::V1 => {}
        }
        statements
    }

    /// Writes an entry, and gives its row back.
    pub fn insert_sql(&self, entry: &NewRow, state: TableVersion) -> String {
        let (created_at, told) = match entry.created_at {
            Some(when) => (when.to_string(), ""),
            None => (
                "(extract(epoch from pg_catalog.clock_timestamp()) * 1000)::bigint".to_owned(),
                ", (select created_at from written)",
            ),
        };
        let (column, name) = match (state, &entry.name) {
            (TableVersion::V1, Some(name)) => (", name", format!(", {}", quote::literal(name))),
            _ => ("", String::new()),
        };
        // A trigger may swallow the row, without an error.
        format!(
            "with written as (insert into {} (hash, created_at{column}) \
             values ({}, {created_at}{name}) returning id::text, created_at) \
             select coalesce((select id from written), \
             'premigrate: a trigger keeps rows out of the history')::bigint, \
             pg_catalog.pg_current_xact_id()::pg_catalog.xid{told}",
            self.qualified(),
            quote::literal(&entry.hash)
        )
    }

    /// Asks when each row was applied, in ISO 8601, and how many seconds ago. A table without
    /// `applied_at` takes NULL from around it, and so knows of no row.
    pub fn times_sql(&self) -> String {
        format!(
            "select id, pg_catalog.to_json(applied) #>> '{{}}', \
             extract(epoch from pg_catalog.clock_timestamp() - applied) \
             from (select null::pg_catalog.timestamptz as applied_at) unknown, \
             lateral (select id, applied_at as applied from {}) known where applied is not null",
            self.qualified()
        )
    }

    /// Asks for what stands between us and a row of the table. Of the sequences that give it its
    /// `id`, those in the column's default need a grant; an identity column's does not.
    pub fn missing_privileges_sql(&self) -> String {
        let table = quote::literal(&self.qualified());
        format!(
            "select pg_catalog.string_agg(distinct pg_catalog.format('%I.%I', place.nspname, \
             sequence.relname), ', '), pg_catalog.row_security_active({table}) \
             from pg_catalog.pg_attribute \
             join pg_catalog.pg_attrdef on adrelid = attrelid and adnum = attnum \
             join pg_catalog.pg_depend on pg_depend.objid = pg_attrdef.oid \
             and classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
             and refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
             join pg_catalog.pg_class sequence on sequence.oid = refobjid and relkind = 'S' \
             join pg_catalog.pg_namespace place on place.oid = sequence.relnamespace \
             where attname = 'id' and attrelid = {table}::pg_catalog.regclass"
        )
    }

    /// What someone who may has to run, so that this role can apply migrations; `prepare` is what
    /// has to be done to the table first, `obstacles` the answer to [`Table::obstacles`], if any.
    pub fn grants(
        &self,
        state: TableVersion,
        prepare: &[String],
        obstacles: &[Option<String>],
        role: &str,
    ) -> Vec<String> {
        let (schema, grantee) = (quote::ident(&self.schema), quote::ident(role));
        let create = format!("grant usage, create on schema {schema} to {grantee};");
        match state {
            // Not `authorization`: that takes a superuser, or a member of the role.
            TableVersion::NoSchema => vec![format!("create schema {schema};"), create],
            TableVersion::NoTable => vec![create],
            TableVersion::V0 | TableVersion::V1 => {
                let mut statements: Vec<String> =
                    prepare.iter().map(|statement| format!("{statement};")).collect();
                statements.extend(self.reading_grants(role));
                statements.push(format!("grant insert on {} to {grantee};", self.qualified()));
                if let Some(Some(sequences)) = obstacles.first() {
                    statements.push(format!("grant usage on sequence {sequences} to {grantee};"));
                }
                if let Some(Some("t")) = obstacles.get(1).map(Option::as_deref) {
                    statements.push(format!(
                        "create policy {grantee} on {} to {grantee} using (true) with check (true);",
                        self.qualified()
                    ));
                }
                statements
            }
        }
    }

    /// What someone who may has to run, so that this role can lock the history's table: for a
    /// migration that chooses its isolation level.
    pub fn locking_grant(&self, role: &str) -> String {
        format!("grant update on {} to {};", self.qualified(), quote::ident(role))
    }

    /// What someone who may has to run, so that this role can read the history.
    pub fn reading_grants(&self, role: &str) -> Vec<String> {
        let role = quote::ident(role);
        vec![
            format!("grant usage on schema {} to {role};", quote::ident(&self.schema)),
            format!("grant select on {} to {role};", self.qualified()),
        ]
    }
}

/// A row that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRow {
    hash: String,
    /// None is the time of writing.
    created_at: Option<i64>,
    name: Option<String>,
}

impl NewRow {
    /// A migration, under its own identity.
    pub fn of(migration: &Migration, layout: Layout) -> NewRow {
        NewRow {
            hash: migration.hash.as_str().to_owned(),
            created_at: migration.when,
            name: Some(row_name(migration, layout)),
        }
    }

    /// A migration that has a row already, under that row's identity and with its present hash.
    pub fn re_accept(migration: &Migration, row: &Row, layout: Layout) -> NewRow {
        let entry = NewRow::of(migration, layout);
        NewRow {
            created_at: row.created_at.or(entry.created_at),
            name: row.name.clone().or(entry.name),
            ..entry
        }
    }

    /// The row as it was written, from what [`Table::insert`] gave back.
    pub fn written(&self, answer: &[Option<String>], state: TableVersion) -> Option<Row> {
        let number = |place: usize| answer.get(place)?.as_ref()?.parse().ok();
        Some(Row {
            id: number(0)?,
            hash: self.hash.clone(),
            created_at: self.created_at.or_else(|| number(2)),
            name: self.name.clone().filter(|_| state == TableVersion::V1),
            xmin: answer.get(1)?.as_ref()?.parse().ok()?,
            applied_at: None,
        })
    }
}

impl History {
    /// The table's state after [`Table::prepare`].
    pub fn version_after_upgrade(&self, layout: Layout) -> TableVersion {
        if self.state == TableVersion::V1 || needs_name(layout) {
            TableVersion::V1
        } else {
            TableVersion::V0
        }
    }

    /// Becomes the history after [`Table::prepare`], which gives rows a name only in an upgrade.
    pub fn after_upgrade(&mut self, layout: Layout, names: &[Option<String>]) {
        let state = self.version_after_upgrade(layout);
        if self.state != TableVersion::V1 && state == TableVersion::V1 {
            for (row, name) in self.rows.iter_mut().zip(names) {
                row.name.clone_from(name);
                row.xmin = 0;
            }
        }
        self.state = state;
    }

    /// Whether it has to be read again, to tell later whether it is still the same.
    pub fn is_outdated(&self) -> bool {
        self.rows.iter().any(|row| row.xmin == 0)
    }

    /// Becomes the history after [`Table::insert`] of each of these entries, for a plan.
    pub fn add(&mut self, entries: &[NewRow]) {
        for entry in entries {
            self.rows.push(Row {
                id: self.rows.last().map_or(1, |row| row.id.saturating_add(1)),
                hash: entry.hash.clone(),
                created_at: entry.created_at,
                name: entry.name.clone().filter(|_| self.state == TableVersion::V1),
                xmin: 0,
                applied_at: None,
            });
        }
    }
}

/// Wraps a condition so that it raises 22P02 when it does not hold. A plain division by zero would
/// do, but this reads better in the server's log. It also gives the backend's process number.
pub fn guard_sql(condition: &str) -> String {
    format!(
        "select (case when {condition} then '1' else 'premigrate: not now' end)::int, \
         pg_catalog.pg_backend_pid()"
    )
}

/// Whether a row of this layout is known by its name, so that the table must have one.
pub fn needs_name(layout: Layout) -> bool {
    layout != Layout::Drizzle0
}

/// What Drizzle 1.x calls this migration. For a folder of 0.x that is the name which
/// `drizzle-kit up` will give it: its time, then its tag without the prefix.
pub fn row_name(migration: &Migration, layout: Layout) -> String {
    match (layout, migration.when) {
        (Layout::Drizzle0, Some(when)) => {
            let name = migration.name.split_once('_').map_or("", |(_, name)| name);
            format!("{}_{name}", folder_prefix(when))
        }
        _ => migration.name.clone(),
    }
}

/// Where the columns that concern us stand in a row.
struct Columns {
    id: usize,
    hash: usize,
    created_at: usize,
    name: Option<usize>,
    xmin: usize,
}

impl Columns {
    fn row(&self, values: &[Option<String>]) -> Result<Row, NotHistoryTable> {
        let text = |place: usize| values.get(place)?.as_deref();
        let not = |what: &str| NotHistoryTable { what: what.to_owned() };
        let number = |text: &str| text.parse::<i64>().ok();
        let created_at = text(self.created_at).map(|text| {
            number(text).ok_or_else(|| not("has a created_at that is not a whole number"))
        });
        Ok(Row {
            id: text(self.id)
                .and_then(number)
                .ok_or_else(|| not("has an id that is not a whole number"))?,
            hash: text(self.hash).ok_or_else(|| not("has a row without a hash"))?.to_owned(),
            created_at: created_at.transpose()?,
            name: self.name.and_then(text).map(str::to_owned),
            xmin: text(self.xmin)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| not("has a row without a version"))?,
            applied_at: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(columns: &[&str], rows: &[&[Option<&str>]]) -> [ResultSet; 2] {
        let owned = |row: &&[Option<&str>]| row.iter().map(|it| it.map(str::to_owned)).collect();
        let in_recovery =
            ResultSet { columns: vec![String::new()], rows: vec![vec![Some("f".to_owned())]] };
        let columns = columns.iter().map(ToString::to_string).collect();
        [in_recovery, ResultSet { columns, rows: rows.iter().map(owned).collect() }]
    }

    fn table() -> Table {
        Table::new("drizzle", "__drizzle_migrations")
    }

    #[test]
    fn rows_are_read_whichever_columns_there_are() {
        let rows: [&[_]; 2] = [
            &[Some("731"), Some("2"), Some("b"), None],
            &[Some("730"), Some("1"), Some("a"), Some("5")],
        ];
        let columns = ["xmin", "id", "hash", "created_at"];
        let history = table().parse(&answer(&columns, &rows)).unwrap();
        assert_eq!(history.state, TableVersion::V0);
        let seen = history.rows.iter().map(|row| (row.id, row.created_at, row.xmin));
        assert_eq!(seen.collect::<Vec<_>>(), [(1, Some(5), 730), (2, None, 731)]);

        let columns = ["name", "applied_at", "hash", "id", "created_at", "xmin"];
        let row: &[_] = &[Some("x"), None, Some("a"), Some("1"), Some("5"), Some("730")];
        let history = table().parse(&answer(&columns, &[row])).unwrap();
        assert_eq!(history.state, TableVersion::V1);
        assert_eq!(history.rows[0].name.as_deref(), Some("x"));
    }

    #[test]
    fn an_empty_table_still_tells_its_columns() {
        let none = answer(&["xmin", "id", "hash", "created_at", "name"], &[]);
        let history = table().parse(&none).unwrap();
        assert_eq!((history.state, history.rows), (TableVersion::V1, vec![]));
    }

    #[test]
    fn a_row_that_drizzle_would_not_write_is_not_read() {
        for (row, told) in [
            ([None, Some("a"), Some("5"), Some("730")], "has an id that is not a whole number"),
            (
                [Some("x"), Some("a"), Some("5"), Some("730")],
                "has an id that is not a whole number",
            ),
            ([Some("1"), None, Some("5"), Some("730")], "has a row without a hash"),
            (
                [Some("1"), Some("a"), Some("5.5"), Some("730")],
                "has a created_at that is not a whole number",
            ),
        ] {
            let rows = answer(&["id", "hash", "created_at", "xmin"], &[&row]);
            assert_eq!(table().parse(&rows).unwrap_err().what, told);
        }
    }

    #[test]
    fn a_table_that_is_not_drizzles_is_not_read() {
        let told = table().parse(&answer(&["id", "tag"], &[])).unwrap_err();
        assert_eq!(told.what, "has no column hash");
    }

    #[test]
    fn a_migration_of_0x_is_named_as_drizzle_kit_up_will_name_it() {
        let migration = Migration::new("0003_add_tags", "", Some(1_795_370_487_999), vec![]);
        assert_eq!(row_name(&migration, Layout::Drizzle0), "20261122180127_add_tags");
        let migration = Migration::new("20261122180127_x", "", Some(0), vec![]);
        assert_eq!(row_name(&migration, Layout::Drizzle1), "20261122180127_x");
    }

    #[test]
    fn names_and_hashes_enter_sql_quoted() {
        let table = Table::new(r#"a"b"#, "c'd");
        let migration = Migration::new("it's", "", None, vec![]);
        let sql = table.insert_sql(&NewRow::of(&migration, Layout::Plain), TableVersion::V1);
        assert!(sql.contains(r#""a""b"."c'd""#) && sql.contains("'it''s'"), "{sql}");
        assert!(table.select_sql().contains(r#"from "a""b"."c'd""#));
    }
}
