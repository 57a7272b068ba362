//! The rules as cases, then as properties of random sets and histories.
//!
//! A set is written `name@when=content ...`, a history `name@created_at=content ...`; what is
//! missing is left out, and the content stands for its hash. `!` marks a migration out of order.

mod properties;
mod rows;

use super::*;
use crate::history::table::NewRow;
use crate::migrations::migration::{Hash, Migration};

fn split(item: &str) -> (&str, Option<i64>, &str) {
    let (identity, content) = item.split_once('=').unwrap();
    let (name, time) = identity.split_once('@').unwrap_or((identity, ""));
    (name, time.parse().ok(), content)
}

fn set(layout: Layout, items: &str) -> MigrationSet {
    let migrations = items
        .split_whitespace()
        .map(split)
        .map(|(name, when, content)| Migration::new(name, name, when, content.as_bytes().to_vec()));
    MigrationSet::new(layout, migrations.collect()).unwrap()
}

fn drizzle0(items: &str) -> MigrationSet {
    set(Layout::Drizzle0, items)
}

fn drizzle1(items: &str) -> MigrationSet {
    set(Layout::Drizzle1, items)
}

fn plain(items: &str) -> MigrationSet {
    set(Layout::Plain, items)
}

/// A history whose table has names if any row has one.
fn rows(items: &str) -> History {
    let rows: Vec<Row> = items
        .split_whitespace()
        .map(split)
        .zip(1..)
        .map(|((name, created_at, content), id)| Row {
            id,
            hash: Hash::of(content.as_bytes()).to_string(),
            created_at,
            name: (!name.is_empty()).then(|| name.to_owned()),
            xmin: None,
        })
        .collect();
    let named = rows.iter().any(|row| row.name.is_some());
    let table_version = if named { TableVersion::V1 } else { TableVersion::V0 };
    History { table_version, rows, in_recovery: false, has_objects: true }
}

/// The history once these rows are written.
fn written(
    set: &MigrationSet,
    history: &History,
    matches: &Matches,
    new_rows: &[NewRow],
) -> History {
    let mut after = history.clone();
    after.set_upgraded(set.layout(), &matches.row_names(set));
    for new_row in new_rows {
        let id = after.rows.iter().map(|row| row.id).max().unwrap_or(0) + 1;
        let answer = [id.to_string(), "7".to_owned(), "1800000000000".to_owned()].map(Some);
        after.rows.push(new_row.written(&answer, after.table_version).unwrap());
    }
    after
}

fn shown(mismatch: HistoryMismatch) -> String {
    match mismatch {
        HistoryMismatch::Edited { migrations } => {
            let names: Vec<_> = migrations.into_iter().map(|edited| edited.migration).collect();
            format!("edited: {}", names.join(" "))
        }
        HistoryMismatch::Ambiguous { migrations, .. } => {
            format!("ambiguous: {}", migrations.join(" "))
        }
        HistoryMismatch::NothingMatches { .. } => "nothing matches".to_owned(),
        HistoryMismatch::OlderThanHistory { migrations, .. } => {
            format!("older than the history: {}", migrations.join(" "))
        }
        HistoryMismatch::PossiblyApplied { migrations, .. } => {
            format!("possibly applied: {}", migrations.join(" "))
        }
        HistoryMismatch::NotUpgradable { rows } => {
            format!("not upgradable: {}", rows.join(" "))
        }
        HistoryMismatch::Strict { migrations, rows, files } => {
            format!("strict: {}", [migrations, rows, files].concat().join(" "))
        }
    }
}

fn up_with(set: &MigrationSet, history: &History, policy: Policy) -> String {
    let plan = match plan_up(set, history, policy) {
        Ok(plan) => plan,
        Err(mismatch) => return shown(mismatch),
    };
    let pending = plan.pending.iter().map(|pending| {
        let mark = if pending.out_of_order { "!" } else { "" };
        format!("{}{mark}", set.get(pending.index).unwrap().name)
    });
    let pending: Vec<_> = pending.collect();
    if pending.is_empty() { "up to date".to_owned() } else { format!("run {}", pending.join(" ")) }
}

fn up(set: &MigrationSet, history: &str) -> String {
    up_with(set, &rows(history), Policy::default())
}

fn apply_older(set: &MigrationSet, history: &str) -> String {
    up_with(set, &rows(history), Policy { apply_older: true, strict: false })
}

fn strict(set: &MigrationSet, history: &str) -> String {
    up_with(set, &rows(history), Policy { apply_older: false, strict: true })
}

/// What each row records: a migration, `=` it once more, `~` one of several, `?` none.
fn read(set: &MigrationSet, history: &str) -> String {
    let name = |index: usize| set.get(index).unwrap().name.clone();
    let statuses = match_rows(set, &rows(history).rows).rows.into_iter();
    let read = statuses.map(|status| match status {
        RowStatus::Matched(index) => name(index),
        RowStatus::Duplicate(index) => format!("={}", name(index)),
        RowStatus::Ambiguous => "~".to_owned(),
        RowStatus::Unknown => "?".to_owned(),
    });
    read.collect::<Vec<_>>().join(" ")
}

/// What `up` does after `accept`, unless that refuses.
fn accept_then_up(set: &MigrationSet, history: &str, chosen: &[usize]) -> String {
    let history = rows(history);
    match plan_accept(set, &history, Some(chosen)) {
        Err(mismatch) => shown(mismatch),
        Ok(plan) if !plan.not_applied.is_empty() => {
            format!("not applied: {}", plan.not_applied.join(" "))
        }
        Ok(plan) => {
            let after = written(set, &history, &plan.matches, &plan.rows);
            up_with(set, &after, Policy::default())
        }
    }
}

/// What `up` does after `baseline`.
fn baseline_then_up(set: &MigrationSet, history: &str, through: Option<usize>) -> String {
    let history = rows(history);
    match plan_baseline(set, &history, through) {
        Err(mismatch) => shown(mismatch),
        Ok(plan) => {
            let after = written(set, &history, &plan.matches, &plan.rows);
            up_with(set, &after, Policy::default())
        }
    }
}

// What `up` sees and does.

#[test]
fn everything_runs_on_an_empty_history() {
    let set = drizzle0("a@1000=a b@2000=b");
    assert_eq!(up(&set, ""), "run a b");
    assert_eq!(up(&drizzle0(""), ""), "up to date");
}

#[test]
fn recorded_migrations_do_not_run_again() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    assert_eq!(up(&set, "@1000=a @2000=b"), "run c");
    assert_eq!(up(&set, "@1000=a @2000=b @3000=c"), "up to date");
}

/// What runs up to and with the migration at this index, how many more are pending, and which one
/// the history has after it, if nothing runs.
fn up_to(set: &MigrationSet, history: &str, through: usize) -> (Vec<usize>, usize, Option<usize>) {
    let plan = plan_up(set, &rows(history), Policy::default()).unwrap().up_to(through);
    let runs = plan.pending.iter().map(|pending| pending.index).collect();
    (runs, plan.later, plan.past(through))
}

#[test]
fn a_plan_ends_at_a_migration_unless_the_history_is_past_it() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    for (history, through, runs, later, past) in [
        ("", 1, &[0, 1][..], 1, None),
        ("", 2, &[0, 1, 2], 0, None),
        ("@1000=a", 0, &[], 2, None),
        ("@1000=a @2000=b", 0, &[], 1, Some(1)),
        ("@1000=a @3000=c", 0, &[], 1, Some(2)),
        ("@1000=a @3000=c", 1, &[1], 0, None),
        ("@1000=a @2000=b @3000=c", 2, &[], 0, None),
        ("@1000=a @2000=b @3000=c @4000=d", 2, &[], 0, None),
    ] {
        let expected = (runs.to_vec(), later, past);
        assert_eq!(up_to(&set, history, through), expected, "{history} {through}");
    }
}

#[test]
fn all_edits_are_reported_at_once_and_nothing_runs() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    assert_eq!(up(&set, "@1000=old @2000=older"), "edited: a b");
    assert_eq!(apply_older(&set, "@1000=old @2000=b"), "edited: a", "also with --apply-older");
}

#[test]
fn an_older_image_starts_after_a_roll_back() {
    let set = drizzle0("a@1000=a");
    assert_eq!(up(&set, "@1000=a @2000=b"), "up to date");
    assert_eq!(read(&set, "@1000=a @2000=b"), "a ?");
    assert_eq!(up(&drizzle0(""), "@1000=a"), "up to date", "also without any migrations");
}

#[test]
fn a_newer_image_without_an_applied_migration_continues() {
    let set = drizzle0("a@1000=a c@3000=c");
    assert_eq!(up(&set, "@1000=a @2000=of-a-branch"), "run c");
}

#[test]
fn a_migration_merged_before_an_applied_one_runs_out_of_order() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c d@4000=d");
    assert_eq!(up(&set, "@1000=a @3000=c"), "run b! d");
}

#[test]
fn a_migration_that_drizzle_0x_would_skip_runs_out_of_order() {
    let set = drizzle0("a@1000=a b@3000=b c@2000=c d@4000=d");
    assert_eq!(up(&set, "@1000=a @3000=b"), "run c! d", "last in the journal, and older");
    let set = drizzle0("a@1000=a b@1000=b");
    assert_eq!(up(&set, "@1000=a"), "run b!", "the same time stamp is skipped as well");
}

#[test]
fn a_history_of_another_project_stops_everything() {
    let set = drizzle0("a@1000=a b@2000=b");
    assert_eq!(up(&set, "@7000=x @8000=y"), "nothing matches");
    assert_eq!(apply_older(&set, "@100=x @200=y"), "run a b");
}

#[test]
fn squashed_migrations_need_baseline() {
    let set = drizzle0("squashed@3000=s next@4000=n");
    let history = "@1000=a @2000=b";
    assert_eq!(up(&set, history), "nothing matches");
    assert_eq!(baseline_then_up(&set, history, Some(0)), "run next");
}

#[test]
fn migrations_older_than_a_trimmed_history_need_a_decision() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c d@4000=d");
    assert_eq!(up(&set, "@3000=c"), "older than the history: a b");
    assert_eq!(apply_older(&set, "@3000=c"), "run a! b! d");
    assert_eq!(baseline_then_up(&set, "@3000=c", Some(1)), "run d");
}

#[test]
fn an_out_of_order_migration_beside_an_unknown_row_is_possibly_applied() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    let history = "@1000=a @5000=b-as-it-was @3000=c";
    assert_eq!(up(&set, history), "possibly applied: b");
    assert_eq!(apply_older(&set, history), "run b!");
    assert_eq!(accept_then_up(&set, history, &[1]), "up to date");
}

#[test]
fn strict_refuses_unknown_rows_and_out_of_order_migrations() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    assert_eq!(strict(&set, "@1000=a @3000=c"), "strict: b");
    assert_eq!(strict(&set, "@1000=a @2000=b @3000=c @4000=x"), "strict: row 4 (created_at 4000)");
    assert_eq!(strict(&set, "@1000=a"), "run b c");
    assert_eq!(strict(&set, "@1000=a @1000=a"), "run b c", "duplicates are known");
}

#[test]
fn apply_older_does_not_override_strict() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    let both = Policy { apply_older: true, strict: true };
    assert_eq!(up_with(&set, &rows("@1000=a @3000=c"), both), "strict: b");
}

#[test]
fn a_mismatch_is_serialized_under_its_kind() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    let json = |history: &str| {
        let mismatch = plan_up(&set, &rows(history), Policy::default()).unwrap_err();
        serde_json::to_string(&mismatch).unwrap()
    };
    assert_eq!(
        json("@3000=c"),
        r#"{"mismatch":"older_than_history","migrations":["a","b"],"first_applied":"c"}"#
    );
    let edited = json("@1000=old");
    assert!(edited.starts_with(
        r#"{"mismatch":"edited","migrations":[{"migration":"a","file":"a","recorded_hash":"#
    ));
}

// `baseline` and `accept`.

#[test]
fn baseline_records_migrations_without_a_row() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    let recorded = |history: &str, through| {
        plan_baseline(&set, &rows(history), through).unwrap().migrations.join(" ")
    };
    assert_eq!(recorded("", None), "a b c");
    assert_eq!(recorded("", Some(1)), "a b");
    assert_eq!(recorded("@2000=b", None), "a c");
    assert_eq!(recorded("@1000=old @2000=b", Some(1)), "", "an edit has a row");
    assert_eq!(baseline_then_up(&set, "", Some(1)), "run c");
}

#[test]
fn baseline_does_not_guess_either() {
    let set = drizzle0("a@1000=a b@1000=b");
    assert_eq!(baseline_then_up(&set, "@1000=x", None), "ambiguous: a b");
    assert_eq!(accept_then_up(&set, "@1000=x", &[0]), "ambiguous: a b");
}

#[test]
fn accept_records_the_chosen_or_all_edited_migrations() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    let history = rows("@1000=x @2000=y");
    let recorded = |chosen| plan_accept(&set, &history, chosen).unwrap().migrations;
    assert_eq!(recorded(None), ["a", "b"]);
    assert_eq!(recorded(Some(&[1])), ["b"]);
    assert_eq!(accept_then_up(&set, "@1000=x @2000=y", &[0]), "edited: b");
    assert_eq!(accept_then_up(&set, "@1000=x @2000=y", &[0, 1]), "run c");
    assert_eq!(accept_then_up(&set, "@1000=a @2000=y", &[0, 1]), "run c", "a has not changed");
}

#[test]
fn accept_refuses_pending_migrations() {
    let set = drizzle0("a@1000=a b@2000=b");
    assert_eq!(accept_then_up(&set, "@1000=a", &[1]), "not applied: b");
    assert_eq!(accept_then_up(&set, "@1000=a @1500=x", &[1]), "not applied: b");
    assert_eq!(
        accept_then_up(&drizzle0("a@1000=a b@2000=b c@3000=c"), "@1000=a @3000=c", &[1]),
        "not applied: b"
    );
}

#[test]
fn accept_records_a_migration_that_is_possibly_applied() {
    let set = drizzle0("a@1000=new");
    assert_eq!(up(&set, "@1500=old"), "nothing matches");
    assert_eq!(accept_then_up(&set, "@1500=old", &[0]), "up to date");
}

#[test]
fn an_accepted_edit_keeps_the_identity_of_its_row() {
    let set = drizzle0("0_a@1234=new");
    let history = rows("19700101000001_a@1000=old");
    let plan = plan_accept(&set, &history, None).unwrap();
    let after = written(&set, &history, &plan.matches, &plan.rows);
    assert_eq!(after.rows[1].created_at, Some(1000));
    assert_eq!(after.rows[1].name, history.rows[0].name);
}
