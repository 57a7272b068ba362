//! What is found about a statement.

use std::cmp::Reverse;
use std::{fmt, iter};

use serde::{Serialize, Serializer};

use super::schema::TableName;
use super::size::{Relation, TableSize};
use crate::migrations::rule::Rule;
use crate::sql::{LineColumn, LockMode, Queue};

/// What takes long while the lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    None,
    /// It reads all rows.
    Scan,
    /// It writes all rows to a new file.
    Rewrite,
}

/// What a statement does to a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    pub table: TableName,
    pub lock: LockMode,
    pub work: Work,
}

impl Effect {
    /// Read after the name of a command.
    pub(super) fn sentence(&self) -> String {
        let Effect { table, lock, work } = self;
        let waiting = waiting_for(*lock);
        match work {
            Work::None => format!(
                "takes {lock} on {table}, so it waits for transactions that use the table, and {waiting} \
                 wait behind it"
            ),
            Work::Scan => {
                format!("takes {lock} on {table} and scans it, so {waiting} wait until it is done")
            }
            Work::Rewrite => {
                format!(
                    "takes {lock} on {table} and rewrites it, so {waiting} wait until it is done"
                )
            }
        }
    }
}

/// Who waits for a lock that keeps others from the rows.
pub(super) fn waiting_for(lock: LockMode) -> &'static str {
    match lock.queue() {
        Some(Queue::ReadsAndWrites) => "reads and writes",
        _ => "writes",
    }
}

/// Something to know about a statement before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hazard {
    pub rule: Rule,
    /// The index of the statement.
    pub statement: usize,
    pub position: LineColumn,
    /// `None` where it is about more than a table, or where a lock is not the point.
    pub effect: Option<Effect>,
    /// The table that decides how long it takes, or an index of it: the one that is scanned, rewritten or
    /// locked.
    pub relation: Option<Relation>,
    /// Whether that table is scanned or rewritten while a lock of the transaction keeps others from rows.
    pub blocks: bool,
    /// As far as a database was asked.
    pub size: Option<TableSize>,
    /// What happens, and what to do about it.
    pub message: String,
    pub patch: Option<Patch>,
}

impl Hazard {
    /// Whether others wait while a table that is larger than this is scanned or rewritten.
    pub fn blocks_longer_than(&self, limit: u64) -> bool {
        let bytes = self.size.as_ref().and_then(|size| size.bytes);
        self.blocks && bytes.is_some_and(|bytes| bytes > limit)
    }

    fn is_small(&self) -> bool {
        self.size.as_ref().is_some_and(TableSize::is_small)
    }
}

/// SQL that has the same result, and does less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// In the place of the statement.
    pub now: String,
    /// After that, outside of a migration: one batch, to be run until no row is left.
    pub batch: String,
    /// What needs another transaction: in the next migration, in the one after that, and so on.
    pub later: Vec<String>,
}

/// Stands before what needs another transaction.
pub const NEXT_MIGRATION: &str = "-- in the next migration:";
const MIGRATION_AFTER: &str = "-- in the migration after that:";
const BATCH: &str = "-- outside of a migration, until no row is left:";

impl Patch {
    pub(super) fn of(now: impl Into<String>) -> Patch {
        Patch { now: now.into(), ..Patch::default() }
    }

    /// SQL for the next migration.
    pub(super) fn next(next: impl Into<String>) -> Patch {
        Patch { later: vec![next.into()], ..Patch::default() }
    }

    /// This one, and then another, of which what can be in one transaction is.
    pub(super) fn then(mut self, other: &Patch) -> Patch {
        let count = self.later.len().max(other.later.len());
        self.later.resize(count, String::new());
        let own = [&mut self.now, &mut self.batch].into_iter().chain(&mut self.later);
        let others = [&other.now, &other.batch].into_iter().chain(&other.later);
        for (all, more) in own.zip(others) {
            if !all.is_empty() && !more.is_empty() {
                all.push('\n');
            }
            all.push_str(more);
        }
        self
    }

    /// This one, and then another whose first SQL needs the last of this one to be committed.
    pub(super) fn and_later(mut self, other: Patch) -> Patch {
        self.later.push(other.now);
        self.later.extend(other.later);
        self
    }
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = ["", BATCH, NEXT_MIGRATION].into_iter().chain(iter::repeat(MIGRATION_AFTER));
        let texts = [&self.now, &self.batch].into_iter().chain(&self.later);
        let parts = headings.zip(texts).filter(|(_, text)| !text.is_empty());
        let lines = parts.flat_map(|(heading, text)| [heading, text.as_str()]);
        f.write_str(&lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n"))
    }
}

impl Serialize for Patch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One hazard for each rule, and another one for what it finds about small tables: that of the largest table,
/// or the first, which says where the others are, with the patches of all.
pub fn gathered(mut hazards: Vec<Hazard>) -> Vec<Hazard> {
    hazards.sort_by_key(|hazard| {
        Reverse(hazard.size.as_ref().and_then(|size| size.bytes).unwrap_or_default())
    });
    let mut gathered: Vec<(Hazard, Vec<usize>)> = Vec::new();
    for hazard in hazards {
        let key = |hazard: &Hazard| (hazard.rule, hazard.is_small());
        match gathered.iter_mut().find(|(first, _)| key(first) == key(&hazard)) {
            None => gathered.push((hazard, Vec::new())),
            Some((first, lines)) => {
                lines.push(hazard.position.line);
                if let Some(patch) = hazard.patch {
                    first.patch = Some(first.patch.take().unwrap_or_default().then(&patch));
                }
            }
        }
    }
    let one = gathered.into_iter().map(|(mut first, mut lines)| {
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        if lines == [first.position.line] {
            lines.clear();
        }
        if count > 0 {
            first.message.push_str(&more_text(count, &lines));
        }
        first
    });
    one.collect()
}

/// How many more there are, and the first lines that have them.
fn more_text(count: usize, lines: &[usize]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = lines.iter().take(SHOWN).map(usize::to_string).collect();
    match (lines, lines.len() > SHOWN) {
        ([], _) => format!(" ({count} more in the line)"),
        ([line], _) => format!(" ({count} more, in line {line})"),
        (_, false) => format!(" ({count} more, in lines {})", shown.join(", ")),
        (_, true) => format!(" ({count} more, in lines {} ...)", shown.join(", ")),
    }
}
