//! Running what is pending: order, transactions, the history table.

use crate::harness::{Database, Folder, premigrate};

#[test]
fn every_migration_runs_once_in_the_journals_order() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[
        ("0000_a", "create table log (id serial, what text)"),
        ("0001_b", "insert into log (what) values ('b')"),
        ("0002_c", "insert into log (what) values ('c')"),
    ]);
    premigrate(&database, &folder).run().exits(0).says(&["applied 0000_a", "applied 0002_c"]);
    premigrate(&database, &folder).run().exits(0).says(&["up to date, 3 applied"]);
    assert_eq!(database.rows("select what from log order by id"), ["b", "c"]);
    let hashes = ["0000_a.sql", "0001_b.sql", "0002_c.sql"].map(|file| folder.hash(file));
    assert_eq!(database.history(), hashes);
    assert_eq!(database.leftovers(), Vec::<String>::new());
}
