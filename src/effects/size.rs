//! How large the tables are that hazards are about.

use std::collections::HashMap;

use serde::Serialize;

use super::hazard::Hazard;
use super::schema::TableName;

/// A table or an index, as a database has it before the new migrations run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relation {
    /// `None` if the server looks the name up in its search path.
    pub schema: Option<String>,
    pub name: String,
    /// The statement of the file by which it has set its own search path.
    pub search_path: Option<String>,
}

impl Relation {
    pub(super) fn new(name: &TableName, search_path: Option<&str>) -> Relation {
        let schema = name.written_schema().map(str::to_owned);
        let search_path = search_path.filter(|_| schema.is_none()).map(str::to_owned);
        Relation { schema, name: name.name.clone(), search_path }
    }
}

/// How large a table is, with its partitions. `None` stands for what is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableSize {
    pub table: TableName,
    /// An estimate from the server's statistics.
    pub rows: Option<u64>,
    /// With TOAST, and without indexes.
    pub bytes: Option<u64>,
    pub index_bytes: Option<u64>,
    /// How many partitions it has, or tables that inherit from it.
    pub partitions: u64,
}

/// PostgreSQL scans this much in some hundredths of a second, and rewrites it with two indexes in two tenths:
/// hardly anyone notices that.
pub const SMALL: u64 = 10 << 20;

impl TableSize {
    pub fn is_small(&self) -> bool {
        self.bytes.is_some_and(|bytes| bytes < SMALL)
    }
}

/// The sizes of the tables that a database has.
pub type Sizes = HashMap<Relation, TableSize>;

/// The hazards with the sizes of their tables, without those of tables that the database does not have.
pub fn measured(hazards: Vec<Hazard>, sizes: &Sizes) -> Vec<Hazard> {
    let measured = hazards.into_iter().filter_map(|mut hazard| {
        if let Some(relation) = &hazard.relation {
            hazard.size = Some(sizes.get(relation)?.clone());
        }
        Some(hazard)
    });
    measured.collect()
}
