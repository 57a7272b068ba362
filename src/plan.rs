//! What there is to do: the carried set and the recorded history, paired, and what follows.
//!
//! Pure, and total: every row and every migration is accounted for exactly once. Nothing is ever
//! decided by a time stamp being larger than another; where the facts do not decide, nothing runs.

use std::collections::{BTreeMap, HashMap};

use crate::history::{self, History, Row, State};
use crate::migration::{Layout, Migration, MigrationSet};

/// What the history says of one carried migration. Rows are named by their place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Recorded, with the hash it bears.
    Applied(usize),
    /// Recorded, with another hash: changed since it ran.
    Edited(usize),
    /// Not recorded.
    Pending,
}

/// What the carried set says of one row. Migrations are named by their place in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStanding {
    /// The record of this migration.
    Of(usize),
    /// A further record of this migration: racing runners, or an accepted edit.
    Duplicate(usize),
    /// The record of nothing that is carried.
    Unknown,
}

/// Every migration and every row, each accounted for once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairing {
    /// A standing for each migration of the set.
    pub migrations: Vec<Standing>,
    /// A standing for each row of the history.
    pub rows: Vec<RowStanding>,
}

/// Rows and migrations that could be paired in more than one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambiguous {
    /// The rows' places.
    pub rows: Vec<usize>,
    /// The migrations' places.
    pub migrations: Vec<usize>,
}

/// Pairs rows with migrations: by identity and hash, then by identity alone (edited), then by
/// hash alone where a row's identity belongs to nothing carried.
pub fn pair(set: &MigrationSet, rows: &[Row]) -> Result<Pairing, Ambiguous> {
    let identities = Identities::of(set);
    let mut pairing = Pairing {
        migrations: vec![Standing::Pending; set.migrations().len()],
        rows: vec![RowStanding::Unknown; rows.len()],
    };
    let bears = |migration: usize, row: &Row| {
        set.get(migration).is_some_and(|migration| migration.bears(&row.hash))
    };

    // Migrations that share identity and content cannot be told apart, nor need they be: each row
    // says that one of them ran, and they are taken in order.
    let mut unpaired = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let same = identities.matching(row);
        match same.iter().find(|&&of| pairing.is_pending(of) && bears(of, row)) {
            Some(&of) => pairing.join(of, place, Standing::Applied(place)),
            None => unpaired.push((place, row, same)),
        }
    }

    let mut edited: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut strangers: Vec<(usize, &Row)> = Vec::new();
    for (place, row, same) in unpaired {
        let (free, taken): (Vec<usize>, Vec<usize>) =
            same.iter().partition(|&&of| pairing.is_pending(of));
        let again = taken.iter().find(|&&of| bears(of, row));
        match (again, taken.as_slice(), free.as_slice()) {
            (_, [], []) => strangers.push((place, row)),
            (Some(of), ..) | (None, [of, ..], []) => {
                pairing.set_row(place, RowStanding::Duplicate(*of));
            }
            (None, [], [of]) => edited.entry(*of).or_default().push(place),
            _ => return Err(Ambiguous { rows: vec![place], migrations: same.to_vec() }),
        }
    }
    for (of, mut places) in edited {
        // The latest record is the one that counts; those before it are the same story.
        if let Some(latest) = places.pop() {
            pairing.join(of, latest, Standing::Edited(latest));
        }
        for place in places {
            pairing.set_row(place, RowStanding::Duplicate(of));
        }
    }

    let mut by_hash: BTreeMap<&str, Vec<(usize, &Row)>> = BTreeMap::new();
    for (place, row) in strangers {
        by_hash.entry(&row.hash).or_default().push((place, row));
    }
    for alike in by_hash.values() {
        let Some((_, first)) = alike.first() else { continue };
        let free: Vec<usize> = (0..set.migrations().len())
            .filter(|&of| pairing.is_pending(of) && bears(of, first))
            .collect();
        if alike.len() < free.len() {
            let rows = alike.iter().map(|(place, _)| *place).collect();
            return Err(Ambiguous { rows, migrations: free });
        }
        for (&of, (place, _)) in free.iter().zip(alike) {
            pairing.join(of, *place, Standing::Applied(*place));
        }
        for (place, row) in alike.iter().skip(free.len()) {
            let twin = free.iter().zip(alike).find(|(_, (_, paired))| {
                (paired.created_at, &paired.name) == (row.created_at, &row.name)
            });
            if let Some((&of, _)) = twin {
                pairing.set_row(*place, RowStanding::Duplicate(of));
            }
        }
    }
    Ok(pairing)
}

impl Pairing {
    fn is_pending(&self, migration: usize) -> bool {
        self.migrations.get(migration) == Some(&Standing::Pending)
    }

    fn join(&mut self, migration: usize, row: usize, standing: Standing) {
        if let Some(slot) = self.migrations.get_mut(migration) {
            *slot = standing;
        }
        self.set_row(row, RowStanding::Of(migration));
    }

    fn set_row(&mut self, row: usize, standing: RowStanding) {
        if let Some(slot) = self.rows.get_mut(row) {
            *slot = standing;
        }
    }

    /// The migrations that were changed after they had been applied, each with its row.
    pub fn edited(&self) -> Vec<(usize, usize)> {
        let all = self.migrations.iter().enumerate();
        all.filter_map(|(place, standing)| match standing {
            Standing::Edited(row) => Some((place, *row)),
            Standing::Applied(_) | Standing::Pending => None,
        })
        .collect()
    }

    /// The migrations that are to run, in order.
    pub fn pending(&self, set: &MigrationSet) -> Vec<Pending> {
        let recorded = self.places(|standing| *standing != Standing::Pending);
        let pending = self.places(|standing| *standing == Standing::Pending).into_iter();
        pending
            .map(|place| Pending { place, out_of_order: is_out_of_order(set, place, &recorded) })
            .collect()
    }

    /// The rows of which nothing carried knows.
    pub fn unknown(&self) -> Vec<usize> {
        let all = self.rows.iter().enumerate();
        all.filter(|(_, standing)| **standing == RowStanding::Unknown).map(|(row, _)| row).collect()
    }

    /// The name that each row has in a table of Drizzle 1.x, if it is the record of anything.
    pub fn names(&self, set: &MigrationSet) -> Vec<Option<String>> {
        let name = |standing: &RowStanding| match standing {
            RowStanding::Of(place) | RowStanding::Duplicate(place) => {
                Some(history::row_name(set.get(*place)?, set.layout()))
            }
            RowStanding::Unknown => None,
        };
        self.rows.iter().map(name).collect()
    }

    fn places(&self, wanted: impl Fn(&Standing) -> bool) -> Vec<usize> {
        let all = self.migrations.iter().enumerate();
        all.filter(|(_, standing)| wanted(standing)).map(|(place, _)| place).collect()
    }
}

/// Which migrations a row may be the record of, going by identity.
struct Identities<'a> {
    layout: Layout,
    by_name: HashMap<&'a str, Vec<usize>>,
    by_when: HashMap<i64, Vec<usize>>,
    by_second: HashMap<i64, Vec<usize>>,
}

impl<'a> Identities<'a> {
    fn of(set: &'a MigrationSet) -> Identities<'a> {
        let mut identities = Identities {
            layout: set.layout(),
            by_name: HashMap::new(),
            by_when: HashMap::new(),
            by_second: HashMap::new(),
        };
        for (place, Migration { name, when, .. }) in set.migrations().iter().enumerate() {
            identities.by_name.entry(name).or_default().push(place);
            if let Some(when) = *when {
                identities.by_when.entry(when).or_default().push(place);
                identities.by_second.entry(second(when)).or_default().push(place);
            }
        }
        identities
    }

    fn matching(&self, row: &Row) -> &[usize] {
        let by_name = || self.by_name.get(row.name.as_deref()?);
        let by_when = || self.by_when.get(&row.created_at?);
        let by_second = || self.by_second.get(&second(row.created_at?));
        let found = match (self.layout, &row.name) {
            (Layout::Drizzle0, None) => by_when(),
            // Drizzle 1.x wrote it, and keeps whole seconds only.
            (Layout::Drizzle0, Some(_)) => by_second(),
            // Drizzle 0.x wrote it; 1.x, when it upgrades the table, looks for it by the second.
            (Layout::Drizzle1, None) => by_second(),
            (Layout::Drizzle1 | Layout::Plain, _) => by_name(),
        };
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

fn second(milliseconds: i64) -> i64 {
    milliseconds.div_euclid(1000)
}

/// What a run may do although the history speaks against it, and what it may not although the
/// history lets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Run pending migrations at which the rules would stop.
    pub apply_older: bool,
    /// Refuse unknown rows, and pending migrations that are out of order.
    pub strict: bool,
}

/// A migration that is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its place in the set.
    pub place: usize,
    /// Whether one that comes after it has been applied already.
    pub out_of_order: bool,
}

/// What a run will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How rows and migrations belong together.
    pub pairing: Pairing,
    /// How many of the carried migrations have been applied.
    pub applied: usize,
    /// What is to run, in this order.
    pub pending: Vec<Pending>,
    /// The rows, by place, of which nothing carried knows.
    pub unknown: Vec<usize>,
}

/// Why nothing may run. Migrations and rows are named by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// Migrations were changed after they had been applied: each with its row.
    Edited(Vec<(usize, usize)>),
    /// Rows could be paired in more than one way.
    Ambiguous(Ambiguous),
    /// There is a history, and none of it is about the carried set.
    NothingMatches,
    /// What is pending comes before everything that the history knows.
    OlderThanHistory {
        /// The pending migrations that do.
        pending: Vec<usize>,
        /// The first that was applied.
        first_applied: usize,
    },
    /// A pending migration out of order may be what a row that matches nothing recorded.
    MayHaveRun {
        /// The pending migrations out of order.
        pending: Vec<usize>,
        /// The rows that match nothing.
        unknown: Vec<usize>,
    },
    /// The table is of Drizzle 0.x and has to be upgraded, but these rows have no name to get.
    NotUpgradable {
        /// The rows that match nothing.
        unknown: Vec<usize>,
    },
    /// `--strict` forbids it.
    Strict {
        /// The pending migrations out of order.
        out_of_order: Vec<usize>,
        /// The rows that match nothing.
        unknown: Vec<usize>,
    },
}

/// Decides what a run does with this set and this history.
pub fn plan(set: &MigrationSet, history: &History, policy: Policy) -> Result<Plan, Disagreement> {
    let rows = &history.rows;
    let pairing = pair(set, rows).map_err(Disagreement::Ambiguous)?;
    let edited = pairing.edited();
    if !edited.is_empty() {
        return Err(Disagreement::Edited(edited));
    }

    let applied = pairing.places(|standing| matches!(standing, Standing::Applied(_)));
    let pending = pairing.pending(set);
    let unknown = pairing.unknown();
    let out_of_order: Vec<usize> = pending
        .iter()
        .filter(|pending| pending.out_of_order)
        .map(|pending| pending.place)
        .collect();

    if policy.strict && !(out_of_order.is_empty() && unknown.is_empty()) {
        return Err(Disagreement::Strict { out_of_order, unknown });
    }
    if !pending.is_empty() && !rows.is_empty() && !policy.apply_older {
        let Some(&first_applied) = applied.first() else {
            return Err(Disagreement::NothingMatches);
        };
        let older: Vec<usize> =
            out_of_order.iter().copied().filter(|&place| place < first_applied).collect();
        if !older.is_empty() {
            return Err(Disagreement::OlderThanHistory { pending: older, first_applied });
        }
        if !out_of_order.is_empty() && !unknown.is_empty() {
            return Err(Disagreement::MayHaveRun { pending: out_of_order, unknown });
        }
    }
    if !pending.is_empty() {
        upgradable(set, history, &unknown)?;
    }
    Ok(Plan { applied: applied.len(), pairing, pending, unknown })
}

/// As drizzle-orm 1.x, a table of 0.x is upgraded only if every row gets a name.
fn upgradable(
    set: &MigrationSet,
    history: &History,
    unknown: &[usize],
) -> Result<(), Disagreement> {
    let upgrades = history.state == State::Unnamed && history::needs_name(set.layout());
    if upgrades && !unknown.is_empty() {
        return Err(Disagreement::NotUpgradable { unknown: unknown.to_vec() });
    }
    Ok(())
}

/// What `baseline` records: the pending migrations, up to and with this place.
pub fn baseline(
    set: &MigrationSet,
    history: &History,
    through: Option<usize>,
) -> Result<(Pairing, Vec<usize>), Disagreement> {
    let pairing = pair(set, &history.rows).map_err(Disagreement::Ambiguous)?;
    let mut places = pairing.places(|standing| *standing == Standing::Pending);
    places.retain(|&place| through.is_none_or(|through| place <= through));
    if !places.is_empty() {
        upgradable(set, history, &pairing.unknown())?;
    }
    Ok((pairing, places))
}

/// What `accept` records: of these migrations, or of all, those that were edited, each with its
/// row; and those that may be what an unknown row recorded, without one. With them, those that are
/// pending and so cannot be accepted.
pub fn accept(
    set: &MigrationSet,
    history: &History,
    named: Option<&[usize]>,
) -> Result<Accepted, Disagreement> {
    let pairing = pair(set, &history.rows).map_err(Disagreement::Ambiguous)?;
    let is_meant = |place: usize| named.is_none_or(|named| named.contains(&place));
    let is_named = |place: usize| named.is_some_and(|named| named.contains(&place));
    let mut accepted = Accepted { pairing, records: Vec::new(), refused: Vec::new() };
    for (place, row) in accepted.pairing.edited() {
        if is_meant(place) {
            accepted.records.push((place, Some(row)));
        }
    }
    let unknown = accepted.pairing.unknown();
    for Pending { place, out_of_order } in accepted.pairing.pending(set) {
        if is_named(place) {
            if out_of_order && !unknown.is_empty() {
                accepted.records.push((place, None));
            } else {
                accepted.refused.push(place);
            }
        }
    }
    if !accepted.records.is_empty() {
        upgradable(set, history, &unknown)?;
    }
    Ok(accepted)
}

/// What is accepted, and what cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How rows and migrations belong together.
    pub pairing: Pairing,
    /// The migrations to record anew, each with the row it has.
    pub records: Vec<(usize, Option<usize>)>,
    /// The migrations that are pending: there is nothing of them to accept.
    pub refused: Vec<usize>,
}

/// Out of order: one that comes after it in the set has been applied, or Drizzle 0.x would skip it,
/// which it does by time stamp.
fn is_out_of_order(set: &MigrationSet, place: usize, applied: &[usize]) -> bool {
    let when = |place: usize| set.get(place).and_then(|migration| migration.when);
    let skipped_by_drizzle = || {
        let latest = applied.iter().filter_map(|&place| when(place)).max();
        set.layout() == Layout::Drizzle0 && latest.is_some() && when(place) <= latest
    };
    applied.last().is_some_and(|&last| place < last) || skipped_by_drizzle()
}
