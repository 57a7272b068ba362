//! What is pending, prepared in stretches: a large set takes hardly more memory than its largest
//! migration.

use crate::history::plan::Pending;
use crate::history::progress::Progress;
use crate::migrations::migration::{Migration, MigrationSet};
use crate::migrations::prepared::{self, PreparedMigration};

use super::error::ApplyError;
use super::resume;

/// The most SQL of several migrations that is prepared at once, in bytes. A train ends with a stretch,
/// but so much takes far longer than a round trip.
const STRETCH: usize = 8 << 20;

/// Pending migrations that can be run as they are.
pub(super) struct Prepared<'a> {
    /// All of them, if that is one stretch. Otherwise nothing is kept, and each stretch is read and
    /// parsed again.
    kept: Option<Vec<PreparedMigration<'a>>>,
}

/// A migration that is to be applied.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    pub pending: &'a Pending,
    pub migration: &'a Migration,
    pub prepared: &'a PreparedMigration<'a>,
}

impl<'a> Prepared<'a> {
    /// Reads all SQL that is pending. Refuses it, with every reason, if some of it cannot be run.
    pub(super) fn new(
        set: &'a MigrationSet,
        pending: &[Pending],
    ) -> Result<Prepared<'a>, ApplyError> {
        let migrations = pending.iter().filter_map(|pending| set.get(pending.index));
        let kept = match pending.len() <= stretch(set, pending) {
            true => prepared::prepare(migrations).map(Some),
            false => prepared::check(migrations).map(|()| None),
        };
        let kept = kept.map_err(|migrations| ApplyError::NotRunnable { migrations })?;
        Ok(Prepared { kept })
    }

    /// Goes through all that is pending, with the steps that are done according to this progress. Fails
    /// if a file has changed since it was read first.
    pub(super) fn in_stretches<E: From<ApplyError>>(
        &mut self,
        set: &MigrationSet,
        pending: &[Pending],
        progress: &Progress,
        visit: &mut dyn FnMut(&[Next<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(kept) = &mut self.kept {
            let migrations = pending.iter().filter_map(|pending| set.get(pending.index)).collect();
            return visit_stretch(pending, migrations, kept, progress, visit);
        }
        let mut left = pending;
        while let Some((stretch, rest)) = left.split_at_checked(stretch(set, left)) {
            let migrations = stretch.iter().filter_map(|pending| set.get(pending.index));
            let migrations: Vec<_> = migrations.map(Migration::unread).collect();
            let mut prepared = prepared::prepare(migrations.iter())
                .map_err(|migrations| ApplyError::NotRunnable { migrations })?;
            let migrations = migrations.iter().collect();
            visit_stretch(stretch, migrations, &mut prepared, progress, visit)?;
            left = rest;
        }
        Ok(())
    }
}

fn visit_stretch<E>(
    pending: &[Pending],
    migrations: Vec<&Migration>,
    prepared: &mut [PreparedMigration<'_>],
    progress: &Progress,
    visit: &mut dyn FnMut(&[Next<'_>]) -> Result<(), E>,
) -> Result<(), E> {
    for (migration, prepared) in migrations.iter().zip(prepared.iter_mut()) {
        resume::split_as_before(migration, prepared, progress);
    }
    let next = pending.iter().zip(migrations).zip(prepared.iter());
    let next = next.map(|((pending, migration), prepared)| Next { pending, migration, prepared });
    visit(&next.collect::<Vec<_>>())
}

/// How many of these migrations are prepared at once: at least one.
fn stretch(set: &MigrationSet, pending: &[Pending]) -> usize {
    let mut bytes = 0_usize;
    let fits = |pending: &&Pending| {
        bytes = bytes.saturating_add(set.get(pending.index).map_or(0, Migration::size));
        bytes <= STRETCH
    };
    pending.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::migration::Layout;

    #[test]
    fn a_stretch_is_as_many_migrations_as_fit_and_at_least_one() {
        let length = |sizes: &[usize]| {
            let migration = |(index, size): (usize, &usize)| {
                Migration::new(index.to_string(), "a.sql", None, vec![b' '; *size])
            };
            let migrations = sizes.iter().enumerate().map(migration).collect();
            let set = MigrationSet::new(Layout::Plain, migrations).unwrap();
            let pending = |index| Pending { index, out_of_order: false };
            stretch(&set, &(0..sizes.len()).map(pending).collect::<Vec<_>>())
        };
        assert_eq!(length(&[1, 1]), 2);
        assert_eq!(length(&[STRETCH - 1, 1, 1]), 2);
        assert_eq!(length(&[STRETCH + 1, 1]), 1);
        assert_eq!(length(&[0, STRETCH + 1]), 1);
    }
}
