//! The rows of a statement. The simple protocol sends every value as text.

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// The names of the columns, also where there is no row.
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

#[derive(Clone, Copy, Debug)]
pub struct ResultRow<'a> {
    columns: &'a [String],
    values: &'a [Option<String>],
}

impl<'a> ResultRow<'a> {
    pub fn all(set: &'a ResultSet) -> impl Iterator<Item = ResultRow<'a>> {
        set.rows.iter().map(|values| ResultRow { columns: &set.columns, values })
    }

    /// The value in this column; `None` for NULL, and where there is no such column.
    pub fn text(self, column: &str) -> Option<&'a str> {
        self.at(self.columns.iter().position(|name| name == column)?)
    }

    /// The value in the column at this index, from 0.
    pub fn at(self, index: usize) -> Option<&'a str> {
        self.values.get(index)?.as_deref()
    }
}

/// A row that came without the names of its columns.
impl<'a> From<&'a [Option<String>]> for ResultRow<'a> {
    fn from(values: &'a [Option<String>]) -> ResultRow<'a> {
        ResultRow { columns: &[], values }
    }
}
