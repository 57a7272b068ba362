//! `new` adds an empty migration to a folder of plain files.

use crate::harness::{Database, Folder, bare, premigrate};

/// The names of the files in a folder.
fn listing(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(&folder.path).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_new_migration_is_the_next_to_run() {
    let database = Database::fresh();
    let folder = Folder::empty();
    folder.write("009_init.sql", "create table log (what text)");
    let run = bare().args(&["new", "fill", "--dir"]).arg(&folder.path).run().exits(0);
    let created = folder.path.join("010_fill.sql");
    assert_eq!(run.stdout, format!("{}\n", created.display()));
    let text = std::fs::read_to_string(created).expect("text");
    folder.write("010_fill.sql", text + "insert into log values ('filled')");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.rows("select what from log"), ["filled"]);
}

#[test]
fn a_missing_or_empty_folder_is_refused() {
    let folder = Folder::empty();
    let new = |dir: &str| bare().args(&["new", "x", "--dir"]).arg(folder.path.join(dir)).run();
    new("missing").exits(65).says(&["could not read ", "No such file"]);
    new("").exits(65).says(&["such as 0001_init.sql"]);
    assert_eq!(listing(&folder), Vec::<String>::new());
}

#[test]
fn without_a_folder_or_with_an_impossible_name_nothing_is_added() {
    bare().args(&["new", "x"]).run().exits(64).says(&["--dir DIR"]);
    let folder = Folder::empty();
    folder.write("1_a.sql", "");
    bare().args(&["new", "../x", "--dir"]).arg(&folder.path).run().exits(64).says(&["../x"]);
    assert_eq!(listing(&folder), ["1_a.sql"]);
}

#[test]
fn in_a_folder_of_drizzles_the_command_of_drizzle_kit_is_named() {
    let (drizzle0, drizzle1) = (Folder::drizzle0(&[("0000_a", "select 1")]), Folder::empty());
    drizzle1.write("20260131093000_a/migration.sql", "select 1");
    for folder in [drizzle0, drizzle1] {
        let before = listing(&folder);
        let run = bare().args(&["new", "fill it", "--dir"]).arg(&folder.path).run().exits(65);
        run.says(&["run `drizzle-kit generate --custom --name 'fill it'`"]);
        assert_eq!(listing(&folder), before);
    }
}
