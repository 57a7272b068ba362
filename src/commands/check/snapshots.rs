//! What a check finds in the snapshots of drizzle-kit, which name those that they follow.

use std::collections::{HashMap, HashSet};

use super::finding::Findings;
use crate::migrations::layout::FolderScan;
use crate::migrations::migration::{Layout, Migration};
use crate::migrations::rule::Rule;
use crate::migrations::snapshots::{Links, Snapshot};
use crate::sql::LineColumn;

impl Findings {
    /// Two branches that were merged, and that nothing joins. Says so at the last snapshot that is new.
    pub(super) fn snapshots(
        &mut self,
        snapshots: &[(String, Snapshot)],
        scan: &FolderScan,
        is_new: &dyn Fn(&Migration) -> bool,
    ) {
        let mut linked = Vec::new();
        for (file, snapshot) in snapshots {
            let migration = migration_of(file, scan);
            match snapshot {
                Snapshot::Linked(links) if migration.is_some() => {
                    linked.push((file.as_str(), links));
                }
                Snapshot::Linked(_) => {}
                Snapshot::Conflict { line } => {
                    let position = Some(LineColumn { line: *line, column: 1 });
                    let message = "the snapshot contains a conflict marker of git; remove the migration of one \
                                   branch, unless it is applied already, and generate it again";
                    self.of_snapshot(file, migration, position, message.to_owned());
                }
            }
        }
        if scan.layout == Layout::Drizzle0 && !snapshots.is_empty() {
            self.shared_snapshot(&scan.migrations, is_new);
        }
        for group in heads(&linked, scan.layout) {
            let is_new = |file: &&&str| migration_of(file, scan).is_some_and(is_new);
            let Some(last) = group.iter().rfind(is_new) else { continue };
            let Some(other) = group.iter().find(|file| *file != last) else { continue };
            let message = match scan.layout {
                Layout::Drizzle1 => format!(
                    "nothing follows this snapshot and {other} together, as after a merge of two branches; run \
                     `drizzle-kit check`, which says whether they conflict, until the next `drizzle-kit \
                     generate` joins them"
                ),
                _ => format!(
                    "the snapshot follows the same one as {other}, as after a merge of two branches, and \
                     drizzle-kit then generates nothing; remove one of these migrations, unless it is applied \
                     already, and generate it again"
                ),
            };
            self.of_snapshot(last, migration_of(last, scan), None, message);
        }
    }

    /// In 0.x, the last migrations have one snapshot if they have one number. Once there is a later one, it
    /// does not matter any more.
    fn shared_snapshot(&mut self, migrations: &[Migration], is_new: &dyn Fn(&Migration) -> bool) {
        let Some((last, before)) = migrations.split_last() else { return };
        let same = before.iter().rfind(|other| number(other) == number(last));
        let Some(other) = same.filter(|other| is_new(last) || is_new(other)) else { return };
        let message = format!(
            "{} has the same number, as after a merge of two branches, so that drizzle-kit has a snapshot of only \
             one of them, and generates the changes of the other again; remove one of them, unless it is applied \
             already, and generate it again",
            other.file
        );
        self.of_file(&last.file, Rule::TwoHeads, message);
    }

    fn of_snapshot(
        &mut self,
        file: &str,
        migration: Option<&Migration>,
        position: Option<LineColumn>,
        message: String,
    ) {
        let mut files = migration.into_iter().map(|migration| migration.file.as_str());
        if !files.any(|file| self.is_ignored(file, Rule::TwoHeads, None)) {
            self.add(Some(file), position, Rule::TwoHeads, message);
        }
    }
}

/// Snapshots that should not be beside each other: in 0.x, those that follow the same one; in 1.x, those that
/// nothing follows.
fn heads<'a>(snapshots: &[(&'a str, &Links)], layout: Layout) -> Vec<Vec<&'a str>> {
    if layout == Layout::Drizzle1 {
        let followed: HashSet<&str> =
            snapshots.iter().flat_map(|(_, links)| links.parents()).collect();
        let heads = snapshots.iter().filter(|(_, links)| !followed.contains(links.id.as_str()));
        return vec![heads.map(|(file, _)| *file).collect()];
    }
    let mut by_parent: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut groups = Vec::new();
    for (file, links) in snapshots {
        for parent in links.parents() {
            by_parent.entry(parent).or_default().push(file);
        }
    }
    groups.extend(by_parent.into_values().filter(|files| files.len() > 1));
    groups.sort();
    groups
}

/// The migration that a snapshot belongs to. In 0.x, they have a number in common.
fn migration_of<'a>(snapshot: &str, scan: &'a FolderScan) -> Option<&'a Migration> {
    let of_number =
        snapshot.strip_prefix("meta/").and_then(|name| name.strip_suffix("_snapshot.json"));
    scan.migrations.iter().rfind(|migration| match of_number {
        Some(_) => number(migration) == of_number,
        None => snapshot.strip_suffix("/snapshot.json") == Some(migration.name.as_str()),
    })
}

/// What drizzle-kit 0.x begins the name of a migration and that of its snapshot with.
fn number(migration: &Migration) -> Option<&str> {
    migration.name.split('_').next()
}
