//! The migrations that there were earlier: of those, `check --since` says only what is wrong.

use std::collections::HashSet;

use serde_json::Value;

use crate::migrations::layout::FolderScan;
use crate::migrations::migration::Migration;
use crate::migrations::source::MigrationFolder;

/// Names, each with the hash of the file.
pub struct Earlier(HashSet<(String, String)>);

impl Earlier {
    pub fn of_folder(folder: &MigrationFolder) -> Earlier {
        let migrations = FolderScan::new(folder).migrations.into_iter();
        Earlier(migrations.map(|it| (it.name.clone(), it.hash.as_str().to_owned())).collect())
    }

    /// Reads the answer of `list --format json`.
    pub fn of_list(text: &str) -> Option<Earlier> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let objects: Vec<Value> =
            lines.map(|line| serde_json::from_str(line).ok()).collect::<Option<_>>()?;
        // A folder without migrations has this object alone.
        if let [only] = objects.as_slice()
            && only.get("migrations").and_then(Value::as_u64) == Some(0)
        {
            return Some(Earlier(HashSet::new()));
        }
        let known = objects.iter().map(|object| {
            let field = |name| object.get(name).and_then(Value::as_str).map(str::to_owned);
            Some((field("migration")?, field("hash")?))
        });
        let known: HashSet<_> = known.collect::<Option<_>>()?;
        (!known.is_empty()).then_some(Earlier(known))
    }

    /// Whether it was there, with the content that it has now.
    pub fn has(&self, migration: &Migration) -> bool {
        let Earlier(known) = self;
        known.contains(&(migration.name.clone(), migration.hash.as_str().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_of_list_is_a_list() {
        let listed = "{\"migration\":\"0000_a\",\"position\":1,\"hash\":\"ab\"}\n";
        let Some(Earlier(known)) = Earlier::of_list(listed) else { panic!("no list") };
        assert_eq!(known, HashSet::from([("0000_a".to_owned(), "ab".to_owned())]));
        let none = "{\"migrations\":0,\"layout\":\"plain files\",\"from\":\"sql\"}\n";
        assert!(Earlier::of_list(none).is_some());
        for text in
            ["", "0000_a  applied", "{}", "[1]", "{\"migration\":\"a\"}", "{\"migrations\":1}"]
        {
            assert!(Earlier::of_list(text).is_none(), "{text}");
        }
    }
}
