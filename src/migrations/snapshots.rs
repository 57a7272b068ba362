//! The snapshots of the schema that drizzle-kit keeps beside its migrations. Each names those that it follows. They
//! decide nothing about what runs, so only `check` reads them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::sql::conflict;

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    Linked(Links),
    /// A conflict marker of git is in this line, from 1.
    Conflict {
        line: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Links {
    pub id: String,
    /// In 0.x.
    #[serde(default)]
    prev_id: Option<String>,
    /// In 1.x.
    #[serde(default)]
    prev_ids: Vec<String>,
}

impl Links {
    /// The snapshots that it follows; the first one follows one that does not exist.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.prev_id.iter().chain(&self.prev_ids).map(String::as_str)
    }
}

impl Snapshot {
    /// `None` for what is no snapshot.
    pub fn parse(text: &str) -> Option<Snapshot> {
        if let Ok(links) = serde_json::from_str(text) {
            return Some(Snapshot::Linked(links));
        }
        let (line, _) = conflict::first_line_of(text)?;
        Some(Snapshot::Conflict { line })
    }
}

/// The snapshots in a migrations folder, by their paths inside it; without those that cannot be read.
pub fn read(dir: &Path, is_stopped: &dyn Fn() -> bool) -> Vec<(String, Snapshot)> {
    let names_in = |dir: PathBuf| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    };
    let old = names_in(dir.join("meta")).filter(|name| name.ends_with("_snapshot.json"));
    let old = old.map(|name| format!("meta/{name}"));
    let new = names_in(dir.to_owned()).map(|name| format!("{name}/snapshot.json"));
    let mut files: Vec<String> = old.chain(new).collect();
    files.sort();
    let mut snapshots = Vec::new();
    for file in files {
        if is_stopped() {
            break;
        }
        let path = dir.join(&file);
        let text = path.is_file().then(|| fs::read_to_string(path).ok()).flatten();
        if let Some(snapshot) = text.and_then(|text| Snapshot::parse(&text)) {
            snapshots.push((file, snapshot));
        }
    }
    snapshots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_names_what_it_follows_in_both_layouts() {
        let parents = |text: &str| match Snapshot::parse(text) {
            Some(Snapshot::Linked(links)) => links.parents().collect::<Vec<_>>().join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(parents(r#"{"id": "b", "prevId": "a", "tables": {"t": []}}"#), "a");
        assert_eq!(parents(r#"{"prevIds": ["a", "c"], "id": "b"}"#), "a c");
        assert_eq!(parents("{\n<<<<<<< HEAD\n=======\n>>>>>>> b\n}"), "Some(Conflict { line: 2 })");
        for text in ["", "{}", "[1]", r#"{"id": 1}"#, r#"{"id": "b", "prevIds": 1}"#] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }
}
