//! An empty migration in drizzle-kit 0.x's layout: its file, its snapshot, its journal entry.
//!
//! The snapshot is the last one with another id, in the order of keys that drizzle-kit's parser
//! leaves behind: byte for byte what `generate --custom` of 0.31.11 writes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{DRIZZLE_TEXT, Fault, NewError, ORIGIN, Step, following, leading_digits, pretty};
use crate::migrations::layout;
use crate::migrations::migration::MigrationSet;
use crate::migrations::source::{Files, JOURNAL};

const VERSION: u64 = 7;

pub(super) fn steps(
    files: &Files,
    set: &MigrationSet,
    name: &str,
    now: i64,
    id: &str,
) -> Result<Vec<Step>, NewError> {
    let mut journal = journal(files)?;
    let snapshots = snapshots(files)?;
    let entries = journal.get_mut("entries").and_then(Value::as_array_mut);
    let Some(entries) = entries else {
        let problem = layout::LayoutProblem::Journal("has no list `entries`".to_owned());
        return Err(NewError::Set(vec![problem]));
    };
    let last_entry = entries.last().cloned().unwrap_or(Value::Null);
    let index_of_last = last_entry.get("idx").and_then(Value::as_i64);
    let index = match index_of_last {
        Some(index) => index + 1,
        None => i64::try_from(entries.len()).unwrap_or_default(),
    };
    let last = set.migrations().last().map(|last| last.name.as_str());
    let prefix = match last {
        Some(tag) => prefix(tag, index, now),
        None => format!("{index:04}"),
    };

    let parent = snapshots.last_key_value();
    // Without a prefix, drizzle-kit writes each snapshot over the one before, and reads none.
    if !prefix.is_empty() {
        goes_on_from(parent.map(|(file, _)| file), last, index - 1, files)?;
    }

    let tag = format!("{prefix}_{name}");
    let latest = set.migrations().iter().filter_map(|migration| migration.when).max();
    entries.push(json!({
        "idx": index,
        "version": VERSION.to_string(),
        "when": latest.map_or(now, |latest| now.max(latest + 1)),
        "tag": tag,
        "breakpoints": last_entry.get("breakpoints").and_then(Value::as_bool).unwrap_or(true),
    }));
    let path = format!("meta/{prefix}_snapshot.json");
    let content = pretty(&snapshot_after(parent.map(|(_, snapshot)| snapshot), id));
    Ok(vec![
        Step::Create { path: format!("{tag}.sql"), content: DRIZZLE_TEXT.to_owned() },
        if prefix.is_empty() && files.contains_key(&path) {
            Step::Replace { path, content }
        } else {
            Step::Create { path, content }
        },
        // Last: what it does not name is no migration.
        Step::Replace { path: JOURNAL.to_owned(), content: pretty(&journal) },
    ])
}

fn journal(files: &Files) -> Result<Value, NewError> {
    let invalid = |what: String| NewError::Set(vec![layout::LayoutProblem::Journal(what)]);
    let text = files.get(JOURNAL).ok_or_else(|| invalid("is missing".to_owned()))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let journal: Value = serde_json::from_slice(text)
        .map_err(|error| invalid(format!("is not valid JSON ({error})")))?;
    match journal.get("dialect").and_then(Value::as_str) {
        Some("postgresql") => Ok(journal),
        Some(other) => Err(NewError::Dialect(other.to_owned())),
        None => Err(invalid("has no `dialect`".to_owned())),
    }
}

/// The snapshots that drizzle-kit reads, in the order in which it does.
fn snapshots(files: &Files) -> Result<BTreeMap<String, Value>, NewError> {
    let mut snapshots = BTreeMap::new();
    let mut children: BTreeMap<String, String> = BTreeMap::new();
    for (file, content) in files {
        if !file.starts_with("meta/") || file.starts_with("meta/_") {
            continue;
        }
        let snapshot = super::snapshot(file, content, "postgresql", VERSION)?;
        let fault = |fault| NewError::Snapshot { file: file.clone(), fault };
        let Some(parent) = snapshot.get("prevId").and_then(Value::as_str) else {
            return Err(fault(Fault::Malformed("it has no `prevId`".to_owned())));
        };
        if let Some(other) = children.insert(parent.to_owned(), file.clone()) {
            return Err(fault(Fault::SameParent(other)));
        }
        snapshots.insert(file.clone(), snapshot);
    }
    Ok(snapshots)
}

/// The new tag's prefix, in the style of the last one: drizzle-kit's `migrations.prefix`.
fn prefix(last: &str, index: i64, now: i64) -> String {
    match leading_digits(last) {
        "" if last.starts_with('_') => String::new(),
        digits if digits.len() < 10 => {
            let number = digits.parse::<i64>().map_or(index, |number| index.max(number + 1));
            format!("{number:04}")
        }
        digits => following(digits, now).unwrap_or_else(|| format!("{index:04}")),
    }
}

/// Whether the snapshot that sorts last, from which drizzle-kit goes on, is the last migration's.
fn goes_on_from(
    sorts_last: Option<&String>,
    last: Option<&str>,
    index: i64,
    files: &Files,
) -> Result<(), NewError> {
    let expected = last.map(|tag| match leading_digits(tag) {
        // Renamed by hand: then nothing tells which is its snapshot.
        "" => sorts_last.cloned().unwrap_or_else(|| format!("meta/{index:04}_snapshot.json")),
        digits => format!("meta/{digits}_snapshot.json"),
    });
    match (expected, sorts_last) {
        (Some(file), _) if !files.contains_key(&file) => {
            Err(NewError::Snapshot { file, fault: Fault::Missing })
        }
        (expected, Some(file)) if expected.as_ref() != Some(file) => {
            Err(NewError::Snapshot { file: file.clone(), fault: Fault::NotTheLast })
        }
        _ => Ok(()),
    }
}

fn snapshot_after(parent: Option<&Value>, id: &str) -> Value {
    let empty = json!({ "tables": {}, "enums": {}, "schemas": {} });
    let mut snapshot = parent.unwrap_or(&empty).clone();
    let parent_id = snapshot.get("id").cloned().unwrap_or_else(|| ORIGIN.into());
    if let Some(fields) = snapshot.as_object_mut() {
        fields.insert("id".to_owned(), id.into());
        fields.insert("prevId".to_owned(), parent_id);
        fields.insert("version".to_owned(), VERSION.to_string().into());
        fields.insert("dialect".to_owned(), "postgresql".into());
        fields.insert("_meta".to_owned(), json!({ "columns": {}, "schemas": {}, "tables": {} }));
    }
    normal(snapshot, &[])
}

/// A value inside a snapshot as drizzle-kit's parser returns it: keys in the parser's order, and
/// those that older releases did not write. Keys that it does not know come last.
fn normal(value: Value, path: &[&str]) -> Value {
    let inner = |key: &str, value| normal(value, &[path, &[key]].concat());
    match value {
        Value::Array(items) => items.into_iter().map(|item| inner("", item)).collect(),
        Value::Object(mut fields) => {
            if let Value::Object(defaults) = defaults(path) {
                for (key, value) in defaults {
                    fields.entry(key).or_insert(value);
                }
            }
            let known = keys(path).split_whitespace();
            let mut ordered: Map<_, _> =
                known.filter_map(|key| fields.shift_remove_entry(key)).collect();
            ordered.extend(fields);
            for (key, value) in &mut ordered {
                *value = inner(key, value.take());
            }
            Value::Object(ordered)
        }
        other => other,
    }
}

/// The keys of the object at this path, in the parser's order; none where any may stand.
fn keys(path: &[&str]) -> &'static str {
    match path {
        [] => {
            "id prevId version dialect tables enums schemas views sequences roles \
             policies _meta internal"
        }
        ["tables", _] => {
            "name schema columns indexes foreignKeys compositePrimaryKeys \
             uniqueConstraints policies checkConstraints isRLSEnabled"
        }
        ["tables" | "views", _, "columns", _] => {
            "name type typeSchema primaryKey notNull default isUnique uniqueName \
             nullsNotDistinct generated identity"
        }
        ["tables" | "views", _, "columns", _, "generated"] => "type as",
        ["tables" | "views", _, "columns", _, "identity"] | ["sequences", _] => {
            "name increment minValue maxValue startWith cache cycle schema type"
        }
        ["tables", _, "indexes", _] => "name columns isUnique with method where concurrently",
        ["tables", _, "indexes", _, "columns", _] => "expression isExpression asc nulls opclass",
        ["tables", _, "foreignKeys", _] => {
            "name tableFrom columnsFrom tableTo schemaTo columnsTo onUpdate onDelete"
        }
        ["tables", _, "compositePrimaryKeys" | "uniqueConstraints", _] => {
            "name columns nullsNotDistinct"
        }
        ["tables", _, "checkConstraints", _] => "name value",
        ["tables", _, "policies", _] | ["policies", _] => {
            "name as for to using withCheck on schema"
        }
        ["enums", _] => "name schema values",
        ["roles", _] => "name createDb createRole inherit",
        ["views", _] => {
            "name schema columns definition materialized with isExisting withNoData \
             using tablespace"
        }
        ["views", _, "with"] => {
            "checkOption securityBarrier securityInvoker fillfactor toastTupleTarget \
             parallelWorkers autovacuumEnabled vacuumIndexCleanup vacuumTruncate \
             autovacuumVacuumThreshold autovacuumVacuumScaleFactor \
             autovacuumVacuumCostDelay autovacuumVacuumCostLimit autovacuumFreezeMinAge \
             autovacuumFreezeMaxAge autovacuumFreezeTableAge \
             autovacuumMultixactFreezeMinAge autovacuumMultixactFreezeMaxAge \
             autovacuumMultixactFreezeTableAge logAutovacuumMinDuration \
             userCatalogTable"
        }
        ["internal", "tables", _, "columns", _] => {
            "isArray dimensions rawType isDefaultAnExpression"
        }
        _ => "",
    }
}

/// What the parser adds to the object at this path where it is missing.
fn defaults(path: &[&str]) -> Value {
    match path {
        [] => json!({ "views": {}, "sequences": {}, "roles": {}, "policies": {} }),
        ["tables", _] => json!({
            "uniqueConstraints": {}, "policies": {}, "checkConstraints": {}, "isRLSEnabled": false
        }),
        ["tables", _, "indexes", _] => json!({ "method": "btree", "concurrently": false }),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ID, NOW, files, refusal, written};
    use super::*;

    fn entry(index: i64, tag: &str, when: i64) -> Value {
        json!({ "idx": index, "version": "7", "when": when, "tag": tag, "breakpoints": true })
    }

    fn snapshot(id: &str, parent: &str) -> String {
        let rest = json!({ "version": "7", "dialect": "postgresql", "tables": {}, "enums": {} });
        let mut snapshot = json!({ "id": id, "prevId": parent });
        snapshot.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        snapshot.to_string()
    }

    /// A folder with these tags, each with its file and a snapshot of its prefix.
    fn folder(tags: &[&str]) -> Files {
        let mut folder = Vec::new();
        let mut entries = Vec::new();
        let mut parent = ORIGIN.to_owned();
        for (index, tag) in (0..).zip(tags) {
            entries.push(entry(index, tag, 1000 + index));
            folder.push((format!("{tag}.sql"), "select 1".to_owned()));
            let prefix = leading_digits(tag);
            folder.push((format!("meta/{prefix}_snapshot.json"), snapshot(tag, &parent)));
            parent = (*tag).to_owned();
        }
        let journal = json!({ "version": "7", "dialect": "postgresql", "entries": entries });
        folder.push((JOURNAL.to_owned(), journal.to_string()));
        files(&folder.iter().map(|(path, text)| (path.as_str(), text.clone())).collect::<Vec<_>>())
    }

    fn paths(files: &Files) -> Vec<String> {
        written(files, "x").into_iter().map(|(path, _)| path).collect()
    }

    /// The last entry of the journal that is written.
    fn new_entry(files: &Files) -> Value {
        let journal: Value = serde_json::from_str(&written(files, "x")[2].1).unwrap();
        journal["entries"].as_array().unwrap().last().unwrap().clone()
    }

    fn with_entries(entries: Value) -> Files {
        let mut files = folder(&["0000_a"]);
        let journal = json!({ "version": "7", "dialect": "postgresql", "entries": entries });
        files.insert(JOURNAL.to_owned(), journal.to_string().into_bytes().into());
        files
    }

    #[test]
    fn a_migration_is_its_file_its_snapshot_and_its_entry_in_this_order() {
        let written = written(&folder(&["0000_a"]), "a b é");
        assert_eq!(written[0], ("0001_a b é.sql".to_owned(), DRIZZLE_TEXT.to_owned()));
        assert_eq!(
            written[1],
            (
                "meta/0001_snapshot.json".to_owned(),
                format!(
                    "{{\n  \"id\": \"{ID}\",\n  \"prevId\": \"0000_a\",\n  \"version\": \"7\",\n  \
                     \"dialect\": \"postgresql\",\n  \"tables\": {{}},\n  \"enums\": {{}},\n  \
                     \"views\": {{}},\n  \"sequences\": {{}},\n  \"roles\": {{}},\n  \
                     \"policies\": {{}},\n  \"_meta\": {{\n    \"columns\": {{}},\n    \
                     \"schemas\": {{}},\n    \"tables\": {{}}\n  }}\n}}"
                )
            )
        );
        let (path, journal) = &written[2];
        assert_eq!(path, JOURNAL);
        let added = "    {\n      \"idx\": 1,\n      \"version\": \"7\",\n      \
                     \"when\": 1795379860500,\n      \"tag\": \"0001_a b é\",\n      \
                     \"breakpoints\": true\n    }\n  ]\n}";
        assert!(journal.ends_with(added), "{journal}");
    }

    #[test]
    fn the_prefix_goes_on_as_the_last_one_was() {
        for (tags, prefix) in [
            (&[][..], "0000"),
            (&["0000_a", "0001_b"], "0002"),
            (&["0041_a"], "0042"),
            (&["20260131093000_a"], "20261122203740"),
            (&["20991231235959_a"], "21000101000000"),
            (&["1700000000_a"], "1795379860"),
            (&["1900000000_a"], "1900000001"),
            (&["_a"], ""),
        ] {
            let expected = [
                format!("{prefix}_x.sql"),
                format!("meta/{prefix}_snapshot.json"),
                JOURNAL.to_owned(),
            ];
            assert_eq!(paths(&folder(tags)), expected, "{tags:?}");
        }
    }

    #[test]
    fn the_time_is_now_but_after_every_other() {
        assert_eq!(new_entry(&folder(&["0000_a"]))["when"], NOW);
        let future = json!([entry(0, "0000_a", NOW + 5000)]);
        assert_eq!(new_entry(&with_entries(future))["when"], NOW + 5001);
    }

    #[test]
    fn breakpoints_and_idx_follow_the_last_entry() {
        let mut last = entry(7, "0000_a", 1);
        last["breakpoints"] = false.into();
        let new = new_entry(&with_entries(json!([last])));
        assert_eq!((&new["idx"], &new["breakpoints"]), (&json!(8), &json!(false)));
        let bare = json!([{ "when": 1, "tag": "0000_a" }]);
        let new = new_entry(&with_entries(bare));
        assert_eq!((&new["idx"], &new["breakpoints"]), (&json!(1), &json!(true)));
    }

    #[test]
    fn a_first_migration_has_an_empty_snapshot() {
        let snapshot: Value = serde_json::from_str(&written(&folder(&[]), "x")[1].1).unwrap();
        assert_eq!(snapshot["prevId"], ORIGIN);
        assert_eq!(snapshot["tables"], json!({}));
    }

    #[test]
    fn a_journal_of_another_database_is_refused() {
        let mut files = folder(&["0000_a"]);
        let journal = br#"{"version":"6","dialect":"sqlite","entries":[]}"#;
        files.insert(JOURNAL.to_owned(), journal.to_vec().into());
        assert!(refusal(&files, "x").starts_with("meta/_journal.json is for sqlite"));
    }

    #[test]
    fn a_broken_journal_is_refused() {
        let mut files = folder(&["0000_a"]);
        files.insert(JOURNAL.to_owned(), b"{".to_vec().into());
        let said = refusal(&files, "x");
        assert!(said.starts_with("meta/_journal.json is not valid JSON"), "{said}");
        assert!(said.ends_with("restore it from version control"), "{said}");
    }

    #[test]
    fn a_migration_without_its_file_is_refused() {
        let mut files = folder(&["0000_a"]);
        files.remove("0000_a.sql");
        assert!(refusal(&files, "x").starts_with("0000_a.sql is missing"));
    }

    #[test]
    fn a_snapshot_that_drizzle_kit_could_not_go_on_from_is_refused_by_name() {
        let two = || folder(&["0000_a", "0001_b"]);
        for (file, content, said) in [
            ("meta/0001_snapshot.json", None, "is missing, and the next migration is made from it"),
            ("meta/0001_snapshot.json", Some("{".to_owned()), "it is not valid JSON"),
            ("meta/0001_snapshot.json", Some(r#"{"id":"a"}"#.to_owned()), "it has no `version`"),
            (
                "meta/0000_snapshot.json",
                Some(snapshot("a", ORIGIN).replace("\"7\"", "\"6\"")),
                "has the version 6, and 7 is known here; run `drizzle-kit up`",
            ),
            (
                "meta/0000_snapshot.json",
                Some(snapshot("a", ORIGIN).replace("postgresql", "mysql")),
                "its `dialect` is not postgresql",
            ),
            (
                "meta/0001_snapshot.json",
                Some(snapshot("b", ORIGIN)),
                "follows the same snapshot as meta/0000_snapshot.json",
            ),
            (
                "meta/0002_snapshot.json",
                Some(snapshot("c", "0001_b")),
                "sorts last, so drizzle-kit",
            ),
        ] {
            let mut files = two();
            files.remove(file);
            files.extend(content.map(|text| (file.to_owned(), text.into_bytes().into())));
            let refusal = refusal(&files, "x");
            assert!(refusal.starts_with(&format!("{file} ")), "{refusal}");
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn a_file_that_has_the_new_ones_name_is_not_written_over() {
        let mut files = folder(&["0000_a"]);
        files.insert("0001_x.sql".to_owned(), b"".to_vec().into());
        assert!(refusal(&files, "x").starts_with("0001_x.sql is there already"));
    }

    #[test]
    fn keys_come_in_the_parsers_order_and_unknown_ones_last() {
        let index = json!({ "concurrently": true, "new": 1, "isUnique": true, "name": "i" });
        let table = json!({ "isRLSEnabled": true, "indexes": { "z": index, "a": {} } });
        let normal = normal(json!({ "tables": { "t": table }, "id": "x" }), &[]);
        assert_eq!(
            normal.to_string(),
            r#"{"id":"x","tables":{"t":{"indexes":{"z":{"name":"i","isUnique":true,"#.to_owned()
                + r#""method":"btree","concurrently":true,"new":1},"#
                + r#""a":{"method":"btree","concurrently":false}},"uniqueConstraints":{},"#
                + r#""policies":{},"checkConstraints":{},"isRLSEnabled":true}},"#
                + r#""views":{},"sequences":{},"roles":{},"policies":{}}"#
        );
    }
}
