//! Which row is the record of which migration: the three steps of [`match_rows`].
//!
//! Total: every row and every migration gets a standing. What can be read in more than one way is
//! `Ambiguous`, and never guessed.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use crate::history::table::{self, Row};
use crate::migrations::migration::{Layout, Migration, MigrationSet};

/// What the history says of one carried migration. Rows are named by their place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationStatus {
    /// Recorded, with the hash it bears.
    Applied(usize),
    /// Recorded, with another hash: changed since it ran.
    Edited(usize),
    /// Recorded or not: there are rows that could be its record, or another's.
    Ambiguous,
    /// Not recorded.
    Pending,
}

/// What the carried set says of one row. Migrations are named by their place in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStatus {
    /// The record of this migration.
    Of(usize),
    /// A further record of this migration: racing runners, or an accepted edit.
    Duplicate(usize),
    /// The record of one of several migrations.
    Ambiguous,
    /// The record of nothing that is carried.
    Unknown,
}

/// Every migration and every row, each accounted for once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matches {
    /// A standing for each migration of the set.
    pub migrations: Vec<MigrationStatus>,
    /// A standing for each row of the history.
    pub rows: Vec<RowStatus>,
}

/// Pairs rows with migrations: by identity and hash, then by identity alone (edited), then by
/// hash alone where a row's identity belongs to nothing carried.
pub fn match_rows(set: &MigrationSet, rows: &[Row]) -> Matches {
    let mut matching = Matcher {
        set,
        rows,
        identities: Identities::of(set),
        matches: Matches {
            migrations: vec![MigrationStatus::Pending; set.migrations().len()],
            rows: vec![RowStatus::Unknown; rows.len()],
        },
    };
    let unpaired = matching.by_identity_and_hash();
    let unmatched = matching.by_identity(unpaired);
    matching.by_hash(unmatched);
    matching.matches
}

/// A row and its place in the history.
type Placed<'a> = (usize, &'a Row);

/// A pairing in the making.
struct Matcher<'a> {
    set: &'a MigrationSet,
    rows: &'a [Row],
    identities: Identities<'a>,
    matches: Matches,
}

impl<'a> Matcher<'a> {
    /// Migrations that share identity and content cannot be told apart, nor need they be: each row
    /// says that one of them ran, and they are taken in order. Rows that can be of few go before
    /// those that can be of many; and a file's own hash before those of its other line ends, which
    /// may be the own hash of another. Returns the rows that are left.
    fn by_identity_and_hash(&mut self) -> Vec<Placed<'a>> {
        let exactly = |migration: &Migration, row: &Row| migration.hash.as_str() == row.hash;
        let in_some_form = |migration: &Migration, row: &Row| migration.matches_hash(&row.hash);
        let mut by_breadth: BTreeMap<usize, Vec<Placed<'a>>> = BTreeMap::new();
        for (place, row) in self.rows.iter().enumerate() {
            let candidate_count = self.identities.matching(row).len();
            by_breadth.entry(candidate_count).or_default().push((place, row));
        }
        for same_candidates in by_breadth.into_values() {
            for matches_hash in [exactly, in_some_form] {
                for &(place, row) in &same_candidates {
                    let found = self.identities.matching(row).iter().copied().find(|&of| {
                        self.matches.is_unread(place)
                            && self.matches.is_pending(of)
                            && self
                                .set
                                .get(of)
                                .is_some_and(|migration| matches_hash(migration, row))
                    });
                    if let Some(of) = found {
                        self.matches.join(of, place, MigrationStatus::Applied(place));
                    }
                }
            }
        }
        let rows = self.rows.iter().enumerate();
        rows.filter(|(place, _)| self.matches.is_unread(*place)).collect()
    }

    /// A row that is left has another hash than any migration of its identity that has no row yet.
    /// If there is just one of that identity, it was edited. Returns the rows whose identity
    /// belongs to nothing carried.
    fn by_identity(&mut self, rows: Vec<Placed<'a>>) -> Vec<Placed<'a>> {
        let (mut unmatched, mut others) = (Vec::new(), Vec::new());
        let mut edited: BTreeMap<usize, usize> = BTreeMap::new();
        for (place, row) in rows {
            match self.identities.matching(row) {
                [] => unmatched.push((place, row)),
                &[of] if self.matches.is_pending(of) => {
                    // The latest record is the one that counts.
                    if let Some(earlier) = edited.insert(of, place) {
                        self.matches.set_row(earlier, RowStatus::Duplicate(of));
                    }
                }
                same => others.push((place, row, same.to_vec())),
            }
        }
        for (of, place) in edited {
            self.matches.join(of, place, MigrationStatus::Edited(place));
        }

        // A further record of one that has a row; or else, perhaps, the record of one that has not.
        let mut open = Vec::new();
        for (place, row, same) in others {
            let (free, taken): (Vec<usize>, Vec<usize>) =
                same.iter().partition(|&&of| self.matches.is_pending(of));
            let again = taken.iter().find(|&&of| self.matches_hash(of, row));
            match again.or(taken.first().filter(|_| free.is_empty())) {
                Some(&of) => self.matches.set_row(place, RowStatus::Duplicate(of)),
                None => open.push((place, free)),
            }
        }
        for (place, free) in open {
            self.matches.leave_open(&[place], &free);
        }
        unmatched
    }

    /// Rows of runners that write time stamps of their own, and of migrations that were renamed.
    /// As many rows as there are migrations of that content decide; fewer do not.
    fn by_hash(&mut self, unmatched: Vec<Placed<'a>>) {
        let mut same_candidates: BTreeMap<Vec<usize>, Vec<Placed<'a>>> = BTreeMap::new();
        for (place, row) in unmatched {
            let all = 0..self.set.migrations().len();
            let content = all.filter(|&of| self.matches_hash(of, row)).collect();
            same_candidates.entry(content).or_default().push((place, row));
        }
        // The fewer a row can be of, the sooner it is paired.
        let mut same_candidates: Vec<_> = same_candidates.into_iter().collect();
        same_candidates.sort_by_key(|(content, _)| content.len());
        for (content, rows) in same_candidates {
            let free: Vec<usize> =
                content.iter().copied().filter(|&of| self.matches.is_pending(of)).collect();
            if rows.len() < free.len() {
                let places: Vec<usize> = rows.iter().map(|(place, _)| *place).collect();
                self.matches.leave_open(&places, &free);
                continue;
            }
            for (&of, &(place, _)) in free.iter().zip(&rows) {
                self.matches.join(of, place, MigrationStatus::Applied(place));
            }
            for &(place, row) in rows.iter().skip(free.len()) {
                if let Some(of) = self.again(row, &content, &free, &rows) {
                    self.matches.set_row(place, RowStatus::Duplicate(of));
                }
            }
        }
    }

    /// Whose record a row is once more that has no identity, and of whose content everything has a
    /// row: that of its twin. To drizzle-orm 1.x the hash is the identity of such a row.
    fn again(
        &self,
        row: &Row,
        content: &[usize],
        free: &[usize],
        rows: &[Placed<'_>],
    ) -> Option<usize> {
        let is_twin = |it: &Row| (it.created_at, &it.name) == (row.created_at, &row.name);
        let is_marked = row.created_at.is_some() || row.name.is_some();
        let mut paired = free.iter().zip(rows).filter(|_| is_marked);
        let same_identity = paired.find(|(_, (_, it))| is_twin(it)).map(|(&of, _)| of);
        let by_hash = || content.iter().copied().rev().find(|&of| self.matches.is_applied(of));
        let hash_is_identity = self.set.layout() == Layout::Drizzle1 && row.name.is_none();
        same_identity.or_else(|| by_hash().filter(|_| hash_is_identity))
    }

    fn matches_hash(&self, migration: usize, row: &Row) -> bool {
        self.set.get(migration).is_some_and(|migration| migration.matches_hash(&row.hash))
    }
}

impl Matches {
    /// The migrations whose standing is such a one, by place.
    pub fn migrations(&self, wanted: impl Fn(MigrationStatus) -> bool) -> Vec<usize> {
        let all = self.migrations.iter().enumerate();
        all.filter(|(_, status)| wanted(**status)).map(|(place, _)| place).collect()
    }

    /// The rows whose standing is this one, by place.
    pub fn rows(&self, wanted: RowStatus) -> Vec<usize> {
        let all = self.rows.iter().enumerate();
        all.filter(|(_, status)| **status == wanted).map(|(place, _)| place).collect()
    }

    /// The migrations that were changed after they had been applied, each with its row.
    pub fn edited(&self) -> Vec<(usize, usize)> {
        let all = self.migrations.iter().enumerate();
        all.filter_map(|(place, status)| match status {
            MigrationStatus::Edited(row) => Some((place, *row)),
            MigrationStatus::Applied(_) | MigrationStatus::Ambiguous | MigrationStatus::Pending => {
                None
            }
        })
        .collect()
    }

    /// The name that each row has in a table of Drizzle 1.x, if it is the record of anything.
    pub fn names(&self, set: &MigrationSet) -> Vec<Option<String>> {
        let name = |status: &RowStatus| match status {
            RowStatus::Of(place) | RowStatus::Duplicate(place) => {
                Some(table::row_name(set.get(*place)?, set.layout()))
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

    fn is_unread(&self, row: usize) -> bool {
        self.rows.get(row) == Some(&RowStatus::Unknown)
    }

    fn join(&mut self, migration: usize, row: usize, status: MigrationStatus) {
        self.set_migration(migration, status);
        self.set_row(row, RowStatus::Of(migration));
    }

    fn leave_open(&mut self, rows: &[usize], migrations: &[usize]) {
        rows.iter().for_each(|&row| self.set_row(row, RowStatus::Ambiguous));
        migrations.iter().for_each(|&of| self.set_migration(of, MigrationStatus::Ambiguous));
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

/// Which migrations a row may be the record of, going by identity. What no row asks for is not
/// made: a start with nothing pending should cost no more than it must.
pub(super) struct Identities<'a> {
    set: &'a MigrationSet,
    by_name: OnceCell<HashMap<String, Vec<usize>>>,
    by_when: OnceCell<HashMap<i64, Vec<usize>>>,
    by_second: OnceCell<HashMap<i64, Vec<usize>>>,
}

impl<'a> Identities<'a> {
    pub(super) fn of(set: &'a MigrationSet) -> Identities<'a> {
        Identities {
            set,
            by_name: OnceCell::new(),
            by_when: OnceCell::new(),
            by_second: OnceCell::new(),
        }
    }

    pub(super) fn matching(&self, row: &Row) -> &[usize] {
        let layout = self.set.layout();
        let by_name = || {
            let name = |migration: &Migration| Some(table::row_name(migration, layout));
            self.by_name.get_or_init(|| self.places(name)).get(row.name.as_deref()?)
        };
        let by_when = || {
            let when = |migration: &Migration| migration.when;
            self.by_when.get_or_init(|| self.places(when)).get(&row.created_at?)
        };
        let by_second = || {
            let of = |migration: &Migration| migration.when.map(second);
            self.by_second.get_or_init(|| self.places(of)).get(&second(row.created_at?))
        };
        let found = match (layout, &row.name) {
            (Layout::Drizzle0, None) => by_when(),
            // Drizzle 1.x wrote it, and keeps whole seconds only. Of those that share one, its name
            // picks one; or none, where they were renamed since.
            (Layout::Drizzle0, Some(_)) => {
                let same = by_second().filter(|same| same.len() > 1);
                let called = by_name().filter(|called| {
                    matches!(called.as_slice(), [of] if same.is_some_and(|it| it.contains(of)))
                });
                called.or_else(by_second)
            }
            // Drizzle 0.x wrote it; 1.x, when it upgrades the table, looks for it by the second.
            (Layout::Drizzle1, None) => by_second(),
            (Layout::Drizzle1 | Layout::Plain, _) => by_name(),
        };
        found.map(Vec::as_slice).unwrap_or_default()
    }

    /// The migrations' places by an identity, in order.
    fn places<K: Eq + Hash>(
        &self,
        identity: impl Fn(&Migration) -> Option<K>,
    ) -> HashMap<K, Vec<usize>> {
        let mut places: HashMap<K, Vec<usize>> = HashMap::new();
        for (place, migration) in self.set.migrations().iter().enumerate() {
            if let Some(identity) = identity(migration) {
                places.entry(identity).or_default().push(place);
            }
        }
        places
    }
}

fn second(milliseconds: i64) -> i64 {
    milliseconds.div_euclid(1000)
}
