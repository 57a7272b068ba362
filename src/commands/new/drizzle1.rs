//! An empty migration in drizzle-kit 1.x's layout: a folder with its file and its snapshot, which
//! follows every snapshot that nothing follows yet, and so joins branches that were merged.
//!
//! What drizzle-kit 1.0.0-rc.5 refuses to go on from is refused here for the same reasons.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{DRIZZLE_TEXT, Fault, NewError, ORIGIN, Step, pretty};
use crate::migrations::layout::folder_prefix;
use crate::migrations::migration::MigrationSet;
use crate::migrations::source::Files;

const VERSION: u64 = 9;

struct Snapshot {
    file: String,
    id: String,
    parents: Vec<String>,
    is_base: bool,
    footprints: Vec<Value>,
}

impl Snapshot {
    fn read(file: &str, content: &[u8]) -> Result<Snapshot, NewError> {
        let value = super::snapshot(file, content, "postgres", VERSION)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let parents = value.get("prevIds").and_then(Value::as_array);
        let parents = parents.and_then(|ids| ids.iter().map(text).collect::<Option<Vec<_>>>());
        let snapshot = |id, parents| Snapshot {
            file: file.to_owned(),
            id,
            parents,
            is_base: value.get("type").and_then(Value::as_str) == Some("base"),
            footprints: value
                .get("footprints")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
        };
        match (value.get("id").and_then(text), parents) {
            (Some(id), Some(parents)) => Ok(snapshot(id, parents)),
            _ => Err(NewError::Snapshot {
                file: file.to_owned(),
                fault: Fault::Malformed("it has no list `prevIds`".to_owned()),
            }),
        }
    }

    fn folder(&self) -> &str {
        self.file.split('/').next().unwrap_or_default()
    }

    fn invalid(&self, fault: Fault) -> NewError {
        NewError::Snapshot { file: self.file.clone(), fault }
    }
}

pub(super) fn steps(
    files: &Files,
    set: &MigrationSet,
    name: &str,
    now: i64,
    id: &str,
) -> Result<Vec<Step>, NewError> {
    let snapshots: Vec<_> = files
        .iter()
        .filter(|(path, _)| path.ends_with("/snapshot.json"))
        .map(|(path, content)| Snapshot::read(path, content))
        .collect::<Result<_, _>>()?;
    let history = History::new(&snapshots)?;
    let mut leaves = history.leaves();
    history.branches_agree(&leaves)?;
    // drizzle-kit looks at the last one's text first.
    leaves.reverse();
    let newest = set.migrations().last();
    if let (Some(newest), true) = (newest, leaves.is_empty()) {
        let file = format!("{}/snapshot.json", newest.name);
        return Err(NewError::Snapshot { file, fault: Fault::Missing });
    }

    let snapshot = json!({
        "type": "diff",
        "version": VERSION.to_string(),
        "dialect": "postgres",
        "id": id,
        "prevIds": leaves.iter().map(|leaf| leaf.id.as_str()).collect::<Vec<_>>(),
        "footprints": [],
        "deltas": [],
    });
    let newest = set.migrations().iter().filter_map(|migration| migration.when).max();
    let time = newest.map_or(now, |newest| now.max(newest + 1000));
    Ok(vec![Step::CreateFolder {
        name: format!("{}_{name}", folder_prefix(time)),
        files: vec![
            ("migration.sql".to_owned(), DRIZZLE_TEXT.to_owned()),
            ("snapshot.json".to_owned(), pretty(&snapshot)),
        ],
    }])
}

/// Snapshots by their id, each of which follows others that are there too.
struct History<'s>(BTreeMap<&'s str, &'s Snapshot>, &'s [Snapshot]);

impl<'s> History<'s> {
    fn new(snapshots: &'s [Snapshot]) -> Result<History<'s>, NewError> {
        let by_id: BTreeMap<_, _> = snapshots.iter().map(|s| (s.id.as_str(), s)).collect();
        let mut bases = snapshots.iter().filter(|snapshot| snapshot.is_base);
        match (bases.next(), bases.next(), snapshots.first()) {
            (Some(first), Some(second), _) => {
                return Err(second.invalid(Fault::SecondBase(first.file.clone())));
            }
            (None, _, Some(first)) => return Err(first.invalid(Fault::NoBase)),
            _ => {}
        }
        for snapshot in snapshots {
            let first_parent = snapshot.parents.first().map_or(ORIGIN, String::as_str);
            if !snapshot.is_base && first_parent == ORIGIN {
                return Err(snapshot.invalid(Fault::NoBase));
            }
            for id in snapshot.parents.iter().filter(|id| *id != ORIGIN) {
                let Some(parent) = by_id.get(id.as_str()) else {
                    return Err(snapshot.invalid(Fault::NoParent(id.clone())));
                };
                // Also what ends a circle.
                if snapshot.folder() <= parent.folder() {
                    return Err(snapshot.invalid(Fault::BeforeParent(parent.folder().to_owned())));
                }
            }
        }
        Ok(History(by_id, snapshots))
    }

    /// Those that none follows, oldest first.
    fn leaves(&self) -> Vec<&'s Snapshot> {
        let parents: BTreeSet<_> =
            self.1.iter().flat_map(|s| &s.parents).map(String::as_str).collect();
        self.1.iter().filter(|snapshot| !parents.contains(snapshot.id.as_str())).collect()
    }

    /// A snapshot and all before it.
    fn line(&self, leaf: &'s Snapshot) -> BTreeSet<&'s str> {
        let mut line = BTreeSet::new();
        let mut ahead = vec![leaf];
        while let Some(snapshot) = ahead.pop() {
            if line.insert(snapshot.id.as_str()) {
                ahead.extend(snapshot.parents.iter().filter_map(|id| self.0.get(id.as_str())));
            }
        }
        line
    }

    /// What drizzle-kit looks at before it joins branches; after that, it never looks again.
    fn branches_agree(&self, leaves: &[&'s Snapshot]) -> Result<(), NewError> {
        for (at, a) in leaves.iter().enumerate() {
            for b in leaves.iter().skip(at + 1) {
                let (line_a, line_b) = (self.line(a), self.line(b));
                let only = |line: &BTreeSet<_>, other: &BTreeSet<_>| -> Vec<&'s Value> {
                    let ids = line.difference(other);
                    ids.filter_map(|id| self.0.get(*id)).flat_map(|s| &s.footprints).collect()
                };
                let (of_a, of_b) = (only(&line_a, &line_b), only(&line_b, &line_a));
                if conflict(&of_a, &of_b) || conflict(&of_b, &of_a) {
                    return Err(b.invalid(Fault::Conflict(a.file.clone())));
                }
            }
        }
        Ok(())
    }
}

/// Whether what some change is what others change or rest on, unless both are the same statement.
fn conflict(from: &[&Value], to: &[&Value]) -> bool {
    let nodes = |footprint: &Value, keys: [&str; 2]| -> Vec<Value> {
        let lists = keys.into_iter().filter_map(|key| footprint.get(key)?.as_array().cloned());
        lists.flatten().collect()
    };
    let is_same = |a: &Value, b: &Value| {
        a.get("sqlHash").is_some()
            && ["sqlHash", "statementType"].iter().all(|key| a.get(key) == b.get(key))
    };
    from.iter().any(|a| {
        let changed = nodes(a, ["writes", "sharedWrites"]);
        to.iter().any(|b| {
            let touched = nodes(b, ["writes", "reads"]);
            !is_same(a, b) && changed.iter().any(|node| touched.contains(node))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ID, files, refusal, written};
    use super::*;

    const A: &str = "20260131093000_a";
    const B: &str = "20260131093001_b";
    const C: &str = "20260131093002_c";

    fn base(id: &str) -> Value {
        json!({
            "type": "base", "version": "9", "dialect": "postgres", "id": id,
            "prevIds": [ORIGIN], "footprints": [], "ddl": []
        })
    }

    fn diff(id: &str, parents: &[&str], footprints: Value) -> Value {
        json!({
            "type": "diff", "version": "9", "dialect": "postgres", "id": id,
            "prevIds": parents, "footprints": footprints, "deltas": []
        })
    }

    fn folder(migrations: &[(&str, Value)]) -> Files {
        let mut folder = Vec::new();
        for (name, snapshot) in migrations {
            folder.push((format!("{name}/migration.sql"), String::new()));
            folder.push((format!("{name}/snapshot.json"), snapshot.to_string()));
        }
        files(&folder.iter().map(|(path, text)| (path.as_str(), text.clone())).collect::<Vec<_>>())
    }

    fn parents(files: &Files) -> Value {
        let snapshot: Value = serde_json::from_str(&written(files, "x")[1].1).unwrap();
        snapshot["prevIds"].clone()
    }

    fn writes(node: &str) -> Value {
        json!([{ "statementType": "create_table", "writes": [node] }])
    }

    #[test]
    fn a_migration_is_a_folder_with_its_file_and_its_snapshot() {
        let written = written(&folder(&[(A, base("a"))]), "a b é");
        assert_eq!(
            written,
            [
                ("20261122203740_a b é/migration.sql".to_owned(), DRIZZLE_TEXT.to_owned()),
                (
                    "20261122203740_a b é/snapshot.json".to_owned(),
                    format!(
                        "{{\n  \"type\": \"diff\",\n  \"version\": \"9\",\n  \"dialect\": \
                         \"postgres\",\n  \"id\": \"{ID}\",\n  \"prevIds\": [\n    \"a\"\n  ],\n  \
                         \"footprints\": [],\n  \"deltas\": []\n}}"
                    )
                ),
            ]
        );
    }

    #[test]
    fn the_time_is_at_least_a_second_after_every_other() {
        let written = written(&folder(&[("20991231235959_a", base("a"))]), "x");
        assert_eq!(written[0].0, "21000101000000_x/migration.sql");
    }

    #[test]
    fn a_folder_without_a_snapshot_is_passed_over_as_drizzle_kit_does() {
        let mut files = folder(&[(A, base("a"))]);
        files.insert(format!("{B}/migration.sql"), b"".to_vec().into());
        assert_eq!(parents(&files), json!(["a"]));
        files.remove(&format!("{A}/snapshot.json"));
        let said = refusal(&files, "x");
        assert!(said.starts_with(&format!("{B}/snapshot.json is missing")), "{said}");
    }

    #[test]
    fn merged_branches_are_joined() {
        let files = folder(&[
            (A, base("a")),
            (B, diff("b", &["a"], writes("t"))),
            (C, diff("c", &["a"], writes("u"))),
        ]);
        assert_eq!(parents(&files), json!(["c", "b"]));
    }

    #[test]
    fn branches_that_change_the_same_thing_are_not_joined() {
        let reads = json!([{ "statementType": "x", "writes": [], "reads": ["t"] }]);
        let shared = json!([{ "statementType": "x", "writes": [], "sharedWrites": ["t"] }]);
        let same = json!([{ "statementType": "x", "sqlHash": "1", "writes": ["t"] }]);
        let other = json!([{ "statementType": "x", "sqlHash": "2", "writes": ["t"] }]);
        for (one, two, agree) in [
            (&writes("t"), &writes("t"), false),
            (&writes("t"), &reads, false),
            (&reads, &writes("t"), false),
            (&writes("t"), &shared, false),
            (&reads, &shared, false),
            (&reads, &reads, true),
            (&shared, &shared, true),
            (&same, &same, true),
            (&same, &other, false),
        ] {
            let files = folder(&[
                (A, base("a")),
                (B, diff("b", &["a"], one.clone())),
                (C, diff("c", &["a"], two.clone())),
            ]);
            if agree {
                assert_eq!(parents(&files), json!(["c", "b"]), "{one} {two}");
            } else {
                let said = refusal(&files, "x");
                assert!(said.contains(&format!("{B}/snapshot.json end two branches")), "{said}");
            }
        }
    }

    #[test]
    fn what_both_branches_rest_on_is_no_conflict() {
        let files = folder(&[
            (A, base("a")),
            (B, diff("b", &["a"], writes("t"))),
            (C, diff("c", &["b"], writes("t"))),
            ("20260131093003_d", diff("d", &["b"], writes("u"))),
        ]);
        assert_eq!(parents(&files), json!(["d", "c"]));
    }

    #[test]
    fn a_snapshot_that_drizzle_kit_could_not_go_on_from_is_refused_by_name() {
        let old = json!({ "version": "8", "dialect": "postgres", "id": "b", "prevIds": ["a"] });
        let mysql = json!({ "version": "9", "dialect": "mysql", "id": "b", "prevIds": ["a"] });
        let bare = json!({ "version": "9", "dialect": "postgres", "id": "b" });
        for (first, second, named, said) in [
            (base("a"), old, B, "has the version 8, and 9 is known here; run `drizzle-kit up`"),
            (base("a"), mysql, B, "its `dialect` is not postgres"),
            (base("a"), bare, B, "it has no list `prevIds`"),
            (base("a"), json!([]), B, "it has no `version`"),
            (base("a"), base("b"), B, "is a first snapshot, and so is 20260131093000_a/"),
            (base("a"), diff("b", &["z"], json!([])), B, "follows the snapshot z, which is not"),
            (base("a"), diff("b", &[ORIGIN], json!([])), B, "has no first snapshot before it"),
            (diff("a", &["b"], json!([])), base("b"), A, "follows 20260131093001_b, but sorts"),
            (diff("a", &["b"], json!([])), diff("b", &["a"], json!([])), A, "no first snapshot"),
        ] {
            let refusal = refusal(&folder(&[(A, first), (B, second)]), "x");
            assert!(refusal.starts_with(&format!("{named}/snapshot.json ")), "{refusal}");
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
