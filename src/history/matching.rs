//! Which row of the history records which migration: [`match_rows`].
//!
//! Every row and every migration gets a status. What can be read in more than one way is
//! `Ambiguous`, and never guessed. Migrations and rows are named by their index.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use crate::history::table::{self, Row};
use crate::migrations::migration::{Layout, Migration, MigrationSet};

/// What the history says of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationStatus {
    /// This row records it, with the hash of its file.
    Applied(usize),
    /// This row records it, with another hash: the file changed after it ran.
    Edited(usize),
    /// There are rows that could record it, or another migration.
    Ambiguous,
    /// No row records it.
    Pending,
}

/// What the migrations say of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStatus {
    /// It records this migration.
    Matched(usize),
    /// It records this migration once more: runners raced, or an edit was accepted.
    Duplicate(usize),
    /// It could record any of several migrations.
    Ambiguous,
    /// It records none of the migrations.
    Unknown,
}

/// The status of every migration and of every row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    pub migrations: Vec<MigrationStatus>,
    pub rows: Vec<RowStatus>,
}

/// Matches rows with migrations: by identity and hash, then by identity alone (edited), then by
/// hash alone where a row has the identity of no migration.
pub fn match_rows(set: &MigrationSet, rows: &[Row]) -> Matches {
    let mut matcher = Matcher {
        set,
        rows,
        identities: Identities::new(set),
        matches: Matches {
            migrations: vec![MigrationStatus::Pending; set.migrations().len()],
            rows: vec![RowStatus::Unknown; rows.len()],
        },
    };
    let other_hash = matcher.by_identity_and_hash();
    let other_identity = matcher.by_identity(other_hash);
    matcher.by_hash(other_identity);
    matcher.matches
}

type IndexedRow<'a> = (usize, &'a Row);

struct Matcher<'a> {
    set: &'a MigrationSet,
    rows: &'a [Row],
    identities: Identities<'a>,
    matches: Matches,
}

impl<'a> Matcher<'a> {
    /// Matches rows that have a migration's identity and hash; returns the other rows.
    ///
    /// Migrations that share both cannot be told apart and need not be: each row says that one of
    /// them ran, and they are taken in order. Rows with few candidates go before rows with many,
    /// and a file's own hash before those of its other line ends, which another file may own.
    fn by_identity_and_hash(&mut self) -> Vec<IndexedRow<'a>> {
        let own_hash = |migration: &Migration, row: &Row| migration.hash.as_str() == row.hash;
        let any_hash = |migration: &Migration, row: &Row| migration.matches_hash(&row.hash);
        let mut by_candidate_count: BTreeMap<usize, Vec<IndexedRow<'a>>> = BTreeMap::new();
        for (row_index, row) in self.rows.iter().enumerate() {
            let candidate_count = self.identities.candidates(row).len();
            by_candidate_count.entry(candidate_count).or_default().push((row_index, row));
        }
        for rows in by_candidate_count.into_values() {
            for has_same_hash in [own_hash, any_hash] {
                for &(row_index, row) in &rows {
                    if !self.matches.is_unmatched(row_index) {
                        continue;
                    }
                    let is_match = |&&index: &&usize| {
                        let migration = self.set.get(index);
                        self.matches.is_pending(index)
                            && migration.is_some_and(|migration| has_same_hash(migration, row))
                    };
                    let candidates = self.identities.candidates(row);
                    if let Some(&migration) = candidates.iter().find(is_match) {
                        let status = MigrationStatus::Applied(row_index);
                        self.matches.set_match(migration, row_index, status);
                    }
                }
            }
        }
        let rows = self.rows.iter().enumerate();
        rows.filter(|(row_index, _)| self.matches.is_unmatched(*row_index)).collect()
    }

    /// Matches rows that have a migration's identity and another hash; returns the rows that have
    /// the identity of no migration. Where a single migration has that identity, it was edited.
    fn by_identity(&mut self, rows: Vec<IndexedRow<'a>>) -> Vec<IndexedRow<'a>> {
        let (mut unmatched, mut others) = (Vec::new(), Vec::new());
        let mut edited: BTreeMap<usize, usize> = BTreeMap::new();
        for (row_index, row) in rows {
            match self.identities.candidates(row) {
                [] => unmatched.push((row_index, row)),
                &[migration] if self.matches.is_pending(migration) => {
                    // The latest row is the one that counts.
                    if let Some(earlier) = edited.insert(migration, row_index) {
                        self.matches.set_row(earlier, RowStatus::Duplicate(migration));
                    }
                }
                candidates => others.push((row_index, row, candidates.to_vec())),
            }
        }
        for (migration, row_index) in edited {
            self.matches.set_match(migration, row_index, MigrationStatus::Edited(row_index));
        }

        // Each other row records a migration that has a row once more, or perhaps one that has none.
        let mut ambiguous = Vec::new();
        for (row_index, row, candidates) in others {
            let (pending, recorded): (Vec<usize>, Vec<usize>) =
                candidates.iter().partition(|&&migration| self.matches.is_pending(migration));
            let same_hash = recorded.iter().find(|&&migration| self.matches_hash(migration, row));
            match same_hash.or(recorded.first().filter(|_| pending.is_empty())) {
                Some(&migration) => {
                    self.matches.set_row(row_index, RowStatus::Duplicate(migration));
                }
                None => ambiguous.push((row_index, pending)),
            }
        }
        for (row_index, migrations) in ambiguous {
            self.matches.set_ambiguous([row_index], &migrations);
        }
        unmatched
    }

    /// Matches the rows of runners that write time stamps of their own, and of migrations that were
    /// renamed. It takes at least as many rows as there are pending migrations of one content.
    fn by_hash(&mut self, unmatched: Vec<IndexedRow<'a>>) {
        if unmatched.is_empty() {
            return;
        }
        let mut by_hash: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, migration) in self.set.migrations().iter().enumerate() {
            for hash in migration.hashes() {
                let migrations = by_hash.entry(hash).or_default();
                // Two of its hashes may be the same.
                if migrations.last() != Some(&index) {
                    migrations.push(index);
                }
            }
        }
        let mut same_candidates: BTreeMap<Vec<usize>, Vec<IndexedRow<'a>>> = BTreeMap::new();
        for (row_index, row) in unmatched {
            let candidates = by_hash.get(row.hash.as_str()).into_iter().flatten().copied();
            same_candidates.entry(candidates.collect()).or_default().push((row_index, row));
        }
        // Rows with few candidates go before rows with many.
        let mut same_candidates: Vec<_> = same_candidates.into_iter().collect();
        same_candidates.sort_by_key(|(candidates, _)| candidates.len());
        for (candidates, rows) in same_candidates {
            let is_pending = |&migration: &usize| self.matches.is_pending(migration);
            let pending: Vec<usize> = candidates.iter().copied().filter(is_pending).collect();
            if rows.len() < pending.len() {
                self.matches.set_ambiguous(rows.iter().map(|(row_index, _)| *row_index), &pending);
                continue;
            }
            for (&migration, &(row_index, _)) in pending.iter().zip(&rows) {
                let status = MigrationStatus::Applied(row_index);
                self.matches.set_match(migration, row_index, status);
            }
            for &(row_index, row) in rows.iter().skip(pending.len()) {
                let matched = pending.iter().copied().zip(rows.iter().map(|(_, row)| *row));
                if let Some(migration) = self.duplicate_of(row, matched, &candidates) {
                    self.matches.set_row(row_index, RowStatus::Duplicate(migration));
                }
            }
        }
    }

    /// The migration that a row records once more: the one matched with a row of the same identity.
    /// To drizzle-orm 1.x, the hash of a row without a name is its identity.
    fn duplicate_of<'m>(
        &self,
        row: &Row,
        mut matched: impl Iterator<Item = (usize, &'m Row)>,
        candidates: &[usize],
    ) -> Option<usize> {
        let has_identity = row.created_at.is_some() || row.name.is_some();
        let is_same = |other: &Row| (other.created_at, &other.name) == (row.created_at, &row.name);
        let same_identity = matched.find(|(_, other)| has_identity && is_same(other));
        let hash_is_identity = self.set.layout() == Layout::Drizzle1 && row.name.is_none();
        let same_hash = || {
            let mut candidates = candidates.iter().copied().rev();
            candidates.find(|&migration| hash_is_identity && self.matches.is_applied(migration))
        };
        same_identity.map(|(migration, _)| migration).or_else(same_hash)
    }

    fn matches_hash(&self, migration: usize, row: &Row) -> bool {
        self.set.get(migration).is_some_and(|migration| migration.matches_hash(&row.hash))
    }
}

impl Matches {
    pub fn migrations_where(&self, is_wanted: impl Fn(MigrationStatus) -> bool) -> Vec<usize> {
        let statuses = self.migrations.iter().enumerate();
        statuses.filter(|(_, status)| is_wanted(**status)).map(|(index, _)| index).collect()
    }

    pub fn rows_with(&self, wanted: RowStatus) -> Vec<usize> {
        let statuses = self.rows.iter().enumerate();
        statuses.filter(|(_, status)| **status == wanted).map(|(index, _)| index).collect()
    }

    /// The edited migrations, each with the row that records it.
    pub fn edited(&self) -> Vec<(usize, usize)> {
        let edited = |(index, status): (usize, &MigrationStatus)| match status {
            MigrationStatus::Edited(row) => Some((index, *row)),
            _ => None,
        };
        self.migrations.iter().enumerate().filter_map(edited).collect()
    }

    /// The name of each row in a table of Drizzle 1.x, if it records one of the migrations.
    pub fn row_names(&self, set: &MigrationSet) -> Vec<Option<String>> {
        let name = |status: &RowStatus| match status {
            RowStatus::Matched(migration) | RowStatus::Duplicate(migration) => {
                Some(table::row_name(set.get(*migration)?, set.layout()))
            }
            RowStatus::Ambiguous | RowStatus::Unknown => None,
        };
        self.rows.iter().map(name).collect()
    }

    fn is_pending(&self, migration: usize) -> bool {
        self.migrations.get(migration) == Some(&MigrationStatus::Pending)
    }

    fn is_applied(&self, migration: usize) -> bool {
        matches!(self.migrations.get(migration), Some(MigrationStatus::Applied(_)))
    }

    fn is_unmatched(&self, row: usize) -> bool {
        self.rows.get(row) == Some(&RowStatus::Unknown)
    }

    fn set_match(&mut self, migration: usize, row: usize, status: MigrationStatus) {
        self.set_migration(migration, status);
        self.set_row(row, RowStatus::Matched(migration));
    }

    fn set_ambiguous(&mut self, rows: impl IntoIterator<Item = usize>, migrations: &[usize]) {
        rows.into_iter().for_each(|row| self.set_row(row, RowStatus::Ambiguous));
        for &migration in migrations {
            self.set_migration(migration, MigrationStatus::Ambiguous);
        }
    }

    fn set_migration(&mut self, migration: usize, status: MigrationStatus) {
        if let Some(slot) = self.migrations.get_mut(migration) {
            *slot = status;
        }
    }

    fn set_row(&mut self, row: usize, status: RowStatus) {
        if let Some(slot) = self.rows.get_mut(row) {
            *slot = status;
        }
    }
}

/// Finds the migrations that share a row's identity. Each index is built when the first row needs
/// it: with nothing pending, a start should cost as little as possible.
pub(super) struct Identities<'a> {
    set: &'a MigrationSet,
    by_name: OnceCell<HashMap<String, Vec<usize>>>,
    by_when: OnceCell<HashMap<i64, Vec<usize>>>,
    by_second: OnceCell<HashMap<i64, Vec<usize>>>,
}

impl<'a> Identities<'a> {
    pub(super) fn new(set: &'a MigrationSet) -> Identities<'a> {
        Identities {
            set,
            by_name: OnceCell::new(),
            by_when: OnceCell::new(),
            by_second: OnceCell::new(),
        }
    }

    /// The migrations that this row may record, going by its identity.
    pub(super) fn candidates(&self, row: &Row) -> &[usize] {
        let layout = self.set.layout();
        let by_name = || {
            let name = |migration: &Migration| Some(table::row_name(migration, layout));
            self.by_name.get_or_init(|| self.index_by(name)).get(row.name.as_deref()?)
        };
        let by_when = || {
            let when = |migration: &Migration| migration.when;
            self.by_when.get_or_init(|| self.index_by(when)).get(&row.created_at?)
        };
        let by_second = || {
            let second_of = |migration: &Migration| migration.when.map(second);
            self.by_second.get_or_init(|| self.index_by(second_of)).get(&second(row.created_at?))
        };
        let candidates = match (layout, &row.name) {
            (Layout::Drizzle0, None) => by_when(),
            // Drizzle 1.x wrote the row, and keeps whole seconds. Of several migrations of one
            // second the name picks one, or none if they were renamed since.
            (Layout::Drizzle0, Some(_)) => {
                let same_second = by_second().filter(|migrations| migrations.len() > 1);
                let same_name = by_name().filter(|migrations| {
                    matches!(migrations.as_slice(), [migration]
                        if same_second.is_some_and(|others| others.contains(migration)))
                });
                same_name.or_else(by_second)
            }
            // Drizzle 0.x wrote the row; Drizzle 1.x looks for it by the second when it upgrades.
            (Layout::Drizzle1, None) => by_second(),
            (Layout::Drizzle1 | Layout::Plain, _) => by_name(),
        };
        candidates.map(Vec::as_slice).unwrap_or_default()
    }

    fn index_by<K: Eq + Hash>(
        &self,
        identity: impl Fn(&Migration) -> Option<K>,
    ) -> HashMap<K, Vec<usize>> {
        let mut indices: HashMap<K, Vec<usize>> = HashMap::new();
        for (index, migration) in self.set.migrations().iter().enumerate() {
            if let Some(identity) = identity(migration) {
                indices.entry(identity).or_default().push(index);
            }
        }
        indices
    }
}

fn second(milliseconds: i64) -> i64 {
    milliseconds.div_euclid(1000)
}
