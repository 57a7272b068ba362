use expect_test::expect;

use super::*;

fn answer(columns: &[&str], rows: &[&[Option<&str>]]) -> [ResultSet; 2] {
    let owned = |row: &&[Option<&str>]| row.iter().map(|text| text.map(str::to_owned)).collect();
    let in_recovery =
        ResultSet { columns: vec![String::new()], rows: vec![vec![Some("f".to_owned())]] };
    let columns = columns.iter().map(ToString::to_string).collect();
    [in_recovery, ResultSet { columns, rows: rows.iter().map(owned).collect() }]
}

fn table() -> Table {
    Table::new("drizzle", "__drizzle_migrations")
}

#[test]
fn columns_may_come_in_any_order() {
    let rows: [&[_]; 2] = [
        &[Some("731"), Some("2"), Some("b"), None],
        &[Some("730"), Some("1"), Some("a"), Some("5")],
    ];
    let columns = ["xmin", "id", "hash", "created_at"];
    let history = table().parse(&answer(&columns, &rows)).unwrap();
    assert_eq!(history.table_version, TableVersion::V0);
    let seen = history.rows.iter().map(|row| (row.id, row.created_at, row.xmin));
    assert_eq!(seen.collect::<Vec<_>>(), [(1, Some(5), Some(730)), (2, None, Some(731))]);

    let columns = ["name", "applied_at", "hash", "id", "created_at", "xmin"];
    let row: &[_] = &[Some("x"), None, Some("a"), Some("1"), Some("5"), Some("730")];
    let history = table().parse(&answer(&columns, &[row])).unwrap();
    assert_eq!(history.table_version, TableVersion::V1);
    assert_eq!(history.rows[0].name.as_deref(), Some("x"));
}

#[test]
fn a_row_of_unknown_version_never_passes_the_guard() {
    let rows: [&[_]; 2] = [
        &[Some("730"), Some("1"), Some("a"), Some("5"), None],
        &[Some("731"), Some("2"), Some("b"), Some("6"), None],
    ];
    let columns = ["xmin", "id", "hash", "created_at", "name"];
    let mut history = table().parse(&answer(&columns, &rows)).unwrap();
    history.rows[1].xmin = None;
    assert!(history.needs_reload());
    assert!(table().is_unchanged_sql(&history, 0).ends_with(" '{730,null}'"));
}

#[test]
fn rows_on_their_way_are_guarded_by_their_number_and_the_identity_of_the_last() {
    let row = |created_at, name: Option<&str>| NewRow {
        hash: "h".to_owned(),
        created_at,
        name: name.map(str::to_owned),
    };
    let condition = |columns: &[&str], count, row: &NewRow| {
        let values: Vec<_> = ["730", "7", "a", "5", "n"].map(Some)[..columns.len()].to_vec();
        let history = table().parse(&answer(columns, &[&values])).unwrap();
        table().is_extended_sql(&history, RowsOnTheirWay { count, last: row })
    };
    let (v0, v1) =
        (["xmin", "id", "hash", "created_at"], ["xmin", "id", "hash", "created_at", "name"]);
    expect![[r#"array(select pg_catalog.concat(hash, ' ', created_at) from (select hash, created_at from "drizzle"."__drizzle_migrations" where id operator(pg_catalog.>) 7 order by id offset 0) last) operator(pg_catalog.=) array['h 9']"#]].assert_eq(&condition(&v0, 1, &row(Some(9), Some("n"))));
    expect![[r#"array(select pg_catalog.concat(hash, ' ', name) from (select hash, name from "drizzle"."__drizzle_migrations" where id operator(pg_catalog.>) 7 order by id offset 2) last) operator(pg_catalog.=) array['h n']"#]].assert_eq(&condition(&v1, 3, &row(None, Some("n"))));
    // Its time is not known, and there is no other identity.
    assert_eq!(condition(&v0, 1, &row(None, Some("n"))), "false");
    assert_eq!(condition(&v1, 1, &row(None, None)), "false");
}

#[test]
fn an_empty_table_has_a_version() {
    let none = answer(&["xmin", "id", "hash", "created_at", "name"], &[]);
    let history = table().parse(&none).unwrap();
    assert_eq!((history.table_version, history.rows), (TableVersion::V1, vec![]));
}

#[test]
fn a_row_that_drizzle_would_not_write_is_an_error() {
    for (row, problem) in [
        ([None, Some("a"), Some("5"), Some("730")], "has an id that is not a whole number"),
        ([Some("x"), Some("a"), Some("5"), Some("730")], "has an id that is not a whole number"),
        ([Some("1"), None, Some("5"), Some("730")], "has a row without a hash"),
        (
            [Some("1"), Some("a"), Some("5.5"), Some("730")],
            "has a created_at that is not a whole number",
        ),
    ] {
        let rows = answer(&["id", "hash", "created_at", "xmin"], &[&row]);
        assert_eq!(table().parse(&rows).unwrap_err(), problem);
    }
}

#[test]
fn a_table_without_drizzles_columns_is_an_error() {
    let error = table().parse(&answer(&["id", "tag"], &[])).unwrap_err();
    assert_eq!(error, "has no column hash");
}

#[test]
fn a_migration_of_0x_gets_the_name_that_drizzle_kit_up_gives_it() {
    let migration = Migration::new("0003_add_tags", "", Some(1_795_370_487_999), vec![]);
    assert_eq!(row_name(&migration, Layout::Drizzle0), "20261122180127_add_tags");
    let migration = Migration::new("20261122180127_x", "", Some(0), vec![]);
    assert_eq!(row_name(&migration, Layout::Drizzle1), "20261122180127_x");
}

#[test]
fn names_are_quoted_in_sql() {
    let table = Table::new(r#"a"b"#, "c'd");
    let migration = Migration::new("it's", "", None, vec![]);
    let sql = table.insert_sql(&NewRow::new(&migration, Layout::Plain), TableVersion::V1);
    assert!(sql.contains(r#""a""b"."c'd""#) && sql.contains("'it''s'"), "{sql}");
    assert!(table.select_sql().contains(r#"from "a""b"."c'd""#));
}
