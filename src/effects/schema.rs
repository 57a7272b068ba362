//! What the migrations have made so far, as far as it decides what a later statement does.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Serialize, Serializer};

use super::column_type::ColumnType;
use super::size::Relation;
use crate::sql::quote;

/// The name of a table or a type, folded and unquoted as the server does it. One without a schema is the
/// same as one in `public`: the two nearly always mean the same schema.
#[derive(Clone, Debug)]
pub struct TableName {
    /// As it is written.
    written_schema: Option<String>,
    pub name: String,
}

impl PartialEq for TableName {
    fn eq(&self, other: &TableName) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for TableName {}

impl PartialOrd for TableName {
    fn partial_cmp(&self, other: &TableName) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TableName {
    fn cmp(&self, other: &TableName) -> Ordering {
        (self.schema(), &self.name).cmp(&(other.schema(), &other.name))
    }
}

impl Hash for TableName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.schema(), &self.name).hash(state);
    }
}

impl TableName {
    pub fn new(schema: Option<String>, name: String) -> TableName {
        TableName { written_schema: schema, name }
    }

    /// A name in the same schema.
    pub(super) fn beside(&self, name: String) -> TableName {
        TableName { written_schema: self.written_schema.clone(), name }
    }

    /// `None` for `public`, too.
    pub(super) fn schema(&self) -> Option<&str> {
        self.written_schema.as_deref().filter(|schema| *schema != "public")
    }

    pub(super) fn written_schema(&self) -> Option<&str> {
        self.written_schema.as_deref()
    }

    /// For SQL.
    pub fn quoted(&self) -> String {
        match self.schema() {
            Some(schema) => format!("{}.{}", quote::ident(schema), quote::ident(&self.name)),
            None => quote::ident(&self.name),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema() {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Serialize for TableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Default)]
pub(super) struct Schema {
    tables: HashMap<TableName, KnownTable>,
    /// The table of each index that has a name.
    indexes: HashMap<TableName, TableName>,
    /// The values of each enum, in order.
    pub enums: HashMap<TableName, Vec<String>>,
    /// The functions that have been declared IMMUTABLE or STABLE, and all others.
    pub functions: HashMap<String, bool>,
    pub foreign_keys: Vec<ForeignKey>,
    /// Names that have been found too long.
    pub long_names: HashSet<String>,
    /// The tables that a migration has dropped.
    dropped: HashSet<TableName>,
}

#[derive(Default)]
pub(super) struct KnownTable {
    /// The number of the migration that created it; `None` if none did.
    pub created: Option<usize>,
    /// What it is called until a new migration renames it.
    pub before: Option<Relation>,
    pub is_temporary: bool,
    pub is_partitioned: bool,
    /// The column by which it is partitioned, if it is one column and no expression.
    pub partition_key: Option<String>,
    pub partitions: Vec<TableName>,
    pub columns: HashMap<String, KnownColumn>,
    /// The columns of each index, by its name if it has one.
    pub indexes: Vec<(Option<String>, Vec<String>)>,
    /// Those that are not part of a column.
    pub checks: Vec<KnownCheck>,
}

/// A `CHECK` or `NOT NULL` constraint.
pub(super) struct KnownCheck {
    pub name: Option<String>,
    /// Those that it names.
    pub columns: Vec<String>,
    /// The column that has no NULL, if that is what it says.
    pub not_null: Option<String>,
    pub is_valid: bool,
}

#[derive(Clone, Default)]
pub(super) struct KnownColumn {
    pub column_type: Option<ColumnType>,
    pub is_not_null: bool,
    /// The number of the migration that added it, unless its table was created with it.
    pub added: Option<usize>,
}

pub(super) struct ForeignKey {
    pub table: TableName,
    pub name: Option<String>,
    pub columns: Vec<String>,
    pub referenced: TableName,
}

impl Schema {
    pub fn table(&self, name: &TableName) -> Option<&KnownTable> {
        self.tables.get(name)
    }

    pub fn is_partitioned(&self, name: &TableName) -> bool {
        self.table(name).is_some_and(|table| table.is_partitioned)
    }

    /// A table that is there, also if no migration has created it.
    pub fn table_mut(&mut self, name: &TableName) -> &mut KnownTable {
        self.tables.entry(name.clone()).or_default()
    }

    pub fn create_table(&mut self, name: TableName, table: KnownTable) {
        self.tables.insert(name, table);
    }

    /// Whether a migration has created it, and none has dropped it.
    pub fn is_known(&self, name: &TableName) -> bool {
        self.tables.get(name).is_some_and(|table| table.created.is_some())
    }

    pub fn column(&self, table: &TableName, column: &str) -> Option<&KnownColumn> {
        self.tables.get(table)?.columns.get(column)
    }

    /// Whether a migration has dropped a table of this name.
    pub fn was_dropped(&self, name: &TableName) -> bool {
        self.dropped.contains(name)
    }

    pub fn drop_table(&mut self, name: &TableName) {
        self.tables.remove(name);
        self.dropped.insert(name.clone());
        self.indexes.retain(|_, table| table != name);
        self.foreign_keys.retain(|key| key.table != *name && key.referenced != *name);
    }

    pub fn rename_table(&mut self, from: &TableName, to: TableName) {
        if let Some(table) = self.tables.remove(from) {
            self.tables.insert(to.clone(), table);
        }
        for table in self.indexes.values_mut().filter(|table| *table == from) {
            table.clone_from(&to);
        }
        for key in &mut self.foreign_keys {
            for name in [&mut key.table, &mut key.referenced] {
                if name == from {
                    name.clone_from(&to);
                }
            }
        }
    }

    pub fn rename_column(&mut self, table: &TableName, from: &str, to: &str) {
        let renamed = |columns: &mut [String]| {
            for column in columns.iter_mut().filter(|column| *column == from) {
                to.clone_into(column);
            }
        };
        for key in self.foreign_keys.iter_mut().filter(|key| key.table == *table) {
            renamed(&mut key.columns);
        }
        let known = self.table_mut(table);
        if let Some(column) = known.columns.remove(from) {
            known.columns.insert(to.to_owned(), column);
        }
        for (_, columns) in &mut known.indexes {
            renamed(columns);
        }
    }

    pub fn drop_column(&mut self, table: &TableName, column: &str) {
        let known = self.table_mut(table);
        known.columns.remove(column);
        known.indexes.retain(|(_, columns)| !columns.iter().any(|other| other == column));
        known.checks.retain(|check| !check.columns.iter().any(|other| other == column));
        self.foreign_keys
            .retain(|key| key.table != *table || !key.columns.iter().any(|other| other == column));
    }

    pub fn add_index(&mut self, table: &TableName, name: Option<String>, columns: Vec<String>) {
        if let Some(name) = &name {
            self.indexes.insert(table.beside(name.clone()), table.clone());
        }
        self.table_mut(table).indexes.push((name, columns));
    }

    pub fn table_of_index(&self, index: &TableName) -> Option<&TableName> {
        self.indexes.get(index)
    }

    pub fn drop_index(&mut self, index: &TableName) {
        if let Some(table) = self.indexes.remove(index) {
            self.table_mut(&table).indexes.retain(|(name, _)| name.as_ref() != Some(&index.name));
        }
    }

    pub fn drop_constraint(&mut self, table: &TableName, name: &str) {
        self.drop_index(&table.beside(name.to_owned()));
        self.table_mut(table).checks.retain(|check| check.name.as_deref() != Some(name));
        self.foreign_keys.retain(|key| key.table != *table || key.name.as_deref() != Some(name));
    }

    /// Whether an index begins with these columns, in any order.
    pub fn is_indexed(&self, table: &TableName, columns: &[String]) -> bool {
        self.table(table).is_some_and(|table| {
            table.indexes.iter().any(|(_, indexed)| {
                let first = indexed.get(..columns.len());
                first.is_some_and(|first| columns.iter().all(|column| first.contains(column)))
            })
        })
    }
}
