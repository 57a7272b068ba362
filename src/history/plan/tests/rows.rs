//! How rows are matched with migrations, by the layout and by what wrote them.

use super::*;

// Rows of Drizzle 0.x.

#[test]
fn duplicate_rows_of_racing_runners_are_ignored() {
    let set = drizzle0("a@1000=a b@2000=b");
    assert_eq!(read(&set, "@1000=a @1000=a @1000=a"), "a =a =a");
    assert_eq!(up(&set, "@1000=a @1000=a @1000=a"), "run b");
}

#[test]
fn the_latest_row_decides_whether_a_migration_was_edited() {
    let set = drizzle0("a@1000=newest");
    assert_eq!(read(&set, "@1000=old @1000=new"), "=a a");
    assert_eq!(up(&set, "@1000=old @1000=new"), "edited: a");
}

#[test]
fn an_accepted_edit_has_two_rows_and_both_images_start() {
    let history = "@1000=old @1000=new";
    for (content, reading) in [("old", "a =a"), ("new", "=a a")] {
        let set = drizzle0(&format!("a@1000={content}"));
        assert_eq!(
            (read(&set, history).as_str(), up(&set, history).as_str()),
            (reading, "up to date")
        );
    }
}

#[test]
fn two_files_with_the_same_content_are_two_migrations() {
    let set = drizzle0("a@1000=custom b@2000=custom c@3000=custom");
    assert_eq!(up(&set, "@1000=custom"), "run b c");
    assert_eq!(up(&set, "@2000=custom @1000=custom"), "run c");
}

#[test]
fn an_empty_custom_file_that_was_filled_in_later_is_edited() {
    let set = drizzle0("a@1000=filled b@2000=custom");
    assert_eq!(
        up(&set, "@1000=custom"),
        "edited: a",
        "b has the same hash, but another time stamp"
    );
}

#[test]
fn other_line_ends_are_no_edit() {
    let file = |content: &'static [u8]| {
        let migration = Migration::new("a", "a.sql", Some(1000), content);
        MigrationSet::new(Layout::Drizzle0, vec![migration]).unwrap()
    };
    let history = |content: &[u8]| {
        let mut history = rows("@1000=x");
        history.rows[0].hash = Hash::of(content).to_string();
        history
    };
    let (lf, crlf): (&[u8], &[u8]) = (b"x\ny\n", b"x\r\ny\r\n");
    for (was, is) in [(lf, &b"x\r\ny\r\n"[..]), (crlf, b"x\ny\n"), (lf, b"x\r\ny\n")] {
        assert_eq!(up_with(&file(is), &history(was), Policy::default()), "up to date");
    }
    assert_eq!(up_with(&file(b"x\ny"), &history(lf), Policy::default()), "edited: a");
}

#[test]
fn a_files_own_hash_goes_before_the_hash_of_its_other_line_ends() {
    // Both rows fit the first migration, and only the first row fits the second.
    let migrations = [("a", &b"x\r\ny\n"[..]), ("b", b"x\ny\n")]
        .map(|(name, content)| Migration::new(name, name, Some(1000), content));
    let set = MigrationSet::new(Layout::Drizzle0, migrations.to_vec()).unwrap();
    let mut history = rows("@1000=x @1000=y");
    history.rows[0].hash = Hash::of(b"x\ny\n").to_string();
    history.rows[1].hash = Hash::of(b"x\r\ny\n").to_string();
    assert_eq!(up_with(&set, &history, Policy::default()), "up to date");
}

#[test]
fn a_baseline_written_by_hand_is_an_edit_of_the_last_and_older_migrations() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c d@4000=d");
    assert_eq!(up(&set, "@3000=anything"), "edited: c");
    assert_eq!(accept_then_up(&set, "@3000=anything", &[2]), "older than the history: a b");
    assert_eq!(baseline_then_up(&set, "@3000=anything", Some(1)), "edited: c");
    assert_eq!(baseline_then_up(&set, "@3000=anything @3000=c", Some(1)), "run d");
}

#[test]
fn migrations_with_one_time_stamp_are_told_apart_by_hash() {
    let set = drizzle0("a@1000=a b@1000=b c@1000=c");
    assert_eq!(up(&set, "@1000=a @1000=b @1000=c"), "up to date");
    assert_eq!(up(&set, "@1000=c @1000=a"), "run b!");
    assert_eq!(read(&set, "@1000=c @1000=c @1000=a"), "c =c a");
}

#[test]
fn rows_of_one_time_stamp_with_unknown_hashes_are_ambiguous() {
    let set = drizzle0("a@1000=a b@1000=b");
    assert_eq!(up(&set, "@1000=x"), "ambiguous: a b", "a or b");
    assert_eq!(up(&set, "@1000=a @1000=x"), "ambiguous: b", "b before an edit, or a");
    assert_eq!(up(&set, "@1000=x @1000=y"), "ambiguous: a b");
    assert_eq!(up(&set, "@1000=a @1000=b @1000=x"), "up to date", "both ran in any case");
    assert_eq!(apply_older(&set, "@1000=x"), "ambiguous: a b");
}

#[test]
fn all_ambiguous_migrations_are_reported_at_once() {
    let set = drizzle0("a@1000=a b@1000=b c@2000=c d@2000=d e@3000=e");
    assert_eq!(up(&set, "@1000=x @2000=y @3000=e"), "ambiguous: a b c d");
    assert_eq!(read(&set, "@1000=x @2000=y @3000=e"), "~ ~ e");
}

#[test]
fn migrations_with_one_time_stamp_and_content_are_taken_in_order() {
    let set = drizzle0("a@1000=x b@1000=x");
    assert_eq!(up(&set, "@1000=x"), "run b!");
    assert_eq!(up(&set, "@1000=x @1000=x"), "up to date");
    assert_eq!(read(&set, "@1000=x @1000=x @1000=x"), "a b =a");
}

#[test]
fn a_time_stamp_in_the_far_future_skips_nothing() {
    let set = drizzle0("a@1000=a future@9000000000000=f b@2000=b");
    assert_eq!(up(&set, "@1000=a @9000000000000=f"), "run b!");
    assert_eq!(
        up(&drizzle0("a@1000=a b@2000=b"), "@1000=a @9000000000000=f"),
        "possibly applied: b"
    );
}

#[test]
fn a_row_without_a_time_stamp_is_matched_by_its_hash() {
    let set = drizzle0("a@1000=a b@2000=b");
    assert_eq!(up(&set, "@=a"), "run b");
    assert_eq!(up(&set, "@=a @=b"), "up to date");
    assert_eq!(up(&set, "@1000=a @=old-b"), "possibly applied: b");
}

// Rows of runners that write time stamps of their own.

#[test]
fn rows_with_other_time_stamps_are_matched_by_their_hash() {
    let set = drizzle0("a@1000=a b@2000=b c@3000=c");
    assert_eq!(up(&set, "@1500=a @2500=b"), "run c");
    assert_eq!(up(&set, "@3500=a @3501=b"), "run c!", "drizzle-orm would skip it");
}

#[test]
fn a_row_belongs_to_the_migration_of_its_time_stamp() {
    let set = drizzle0("a@1000=a b@2000=b");
    assert_eq!(up(&set, "@1000=a @1000=b"), "run b", "a once had the content of b");
    assert_eq!(up(&set, "@1000=b"), "edited: a");
}

#[test]
fn an_edited_migration_with_another_time_stamp_does_not_run_again() {
    let set = drizzle0("a@1000=a b@2000=b");
    assert_eq!(up(&set, "@1500=a @2500=old-b"), "possibly applied: b", "the last in the journal");
    assert_eq!(up(&set, "@1500=a @1600=other"), "run b", "the row is older than b");
}

#[test]
fn time_stamps_that_are_no_milliseconds_prove_nothing() {
    let set = drizzle0("a@1700000000000=a b@1700000001000=b");
    assert_eq!(up(&set, "@1=a @2=old-b"), "possibly applied: b", "counted");
    assert_eq!(up(&set, "@1700000000=a @1700000001=old-b"), "possibly applied: b", "seconds");
    assert_eq!(up(&set, "@=a @=old-b"), "possibly applied: b", "nothing");
    assert_eq!(up(&set, "@1=a"), "run b", "without unknown rows they do not matter");
    assert_eq!(accept_then_up(&set, "@1=a @2=old-b", &[1]), "up to date");
}

#[test]
fn fewer_rows_than_files_of_one_content_are_ambiguous() {
    let set = drizzle0("a@1000=x b@2000=x c@3000=c");
    assert_eq!(up(&set, "@5=x @6=x"), "run c");
    assert_eq!(up(&set, "@5=x"), "ambiguous: a b");
    assert_eq!(up(&set, "@1000=x @6=x"), "run c", "one of them is known by its identity");
    assert_eq!(read(&set, "@5=x @6=x @7=x @6=x"), "a b ? =b");
}

#[test]
fn files_of_one_content_match_rows_with_other_line_ends() {
    let migrations = [("a", 1000), ("b", 2000)]
        .map(|(name, when)| Migration::new(name, name, Some(when), &b"x\n"[..]));
    let set = MigrationSet::new(Layout::Drizzle0, migrations.to_vec()).unwrap();
    let mut history = rows("@5=x @6=x");
    history.rows[0].hash = Hash::of(b"x\n").to_string();
    history.rows[1].hash = Hash::of(b"x\r\n").to_string();
    assert_eq!(up_with(&set, &history, Policy::default()), "up to date");
}

// Drizzle 0.x's folder on a table of 1.x: rows with names keep whole seconds.

#[test]
fn rows_with_names_are_matched_by_the_second() {
    let set = drizzle0("0_a@1234=a 1_b@2345=b");
    assert_eq!(up(&set, "19700101000001_a@1000=a"), "run 1_b");
    assert_eq!(up(&set, "19700101000001_a@1234=a"), "run 1_b", "the table was upgraded");
    assert_eq!(up(&set, "renamed@1000=a"), "run 1_b", "the tag does not count");
    assert_eq!(up(&set, "19700101000001_a@1000=old"), "edited: 0_a");
}

#[test]
fn a_row_without_a_name_is_matched_by_the_millisecond() {
    let set = drizzle0("0_a@1234=a 1_b@1345=b");
    assert_eq!(read(&set, "19700101000001_a@1000=a @1345=b"), "0_a 1_b");
    assert_eq!(read(&set, "19700101000001_a@1000=a @1000=x"), "0_a ?");
}

#[test]
fn within_one_second_the_hash_decides_and_then_the_name() {
    let set = drizzle0("0_a@1100=a 1_b@1200=b");
    assert_eq!(up(&set, "19700101000001_b@1000=b"), "older than the history: 0_a");
    assert_eq!(up(&set, "19700101000001_a@1000=a"), "run 1_b");
    assert_eq!(up(&set, "19700101000001_a@1000=old"), "edited: 0_a");
    assert_eq!(up(&set, "19700101000001_a@1000=old 19700101000001_b@1000=b"), "edited: 0_a");
    assert_eq!(up(&set, "renamed@1000=old"), "ambiguous: 0_a 1_b");
}

// Drizzle 1.x.

#[test]
fn folders_are_matched_by_name() {
    let set = drizzle1("a@1000=a b@2000=b c@2000=c");
    assert_eq!(up(&set, "a@1000=a"), "run b c");
    assert_eq!(up(&set, "a@1000=a c@2000=c"), "run b!");
    assert_eq!(up(&set, "a@1000=old"), "edited: a");
    assert_eq!(up(&set, "a@1000=a a@1000=a b@=b"), "run c", "only the name counts");
    assert_eq!(up(&set, "a@1000=a b@2000=b"), "run c", "in order within one second");
}

#[test]
fn a_renamed_folder_is_matched_by_its_content() {
    let set = drizzle1("new-name@1000=a b@2000=b");
    assert_eq!(up(&set, "old-name@1000=a"), "run b");
    assert_eq!(read(&set, "old-name@1000=a old-name@1000=a"), "new-name =new-name");
}

#[test]
fn a_folder_that_was_renamed_and_edited_does_not_run_again() {
    let set = drizzle1("a@1000=a new-name@2000=new");
    assert_eq!(up(&set, "a@1000=a old-name@2000=old"), "possibly applied: new-name");
    assert_eq!(up(&set, "a@1000=a older@1500=x"), "run new-name");
}

#[test]
fn rows_of_a_0x_table_are_matched_by_the_second_whatever_their_hash() {
    let set = drizzle1("a@1000=a b@2000=b");
    assert_eq!(up(&set, "@1234=a"), "run b");
    assert_eq!(up(&set, "@1234=old"), "edited: a");
    assert_eq!(up(&set, "@1234=a @1234=a"), "run b", "duplicates get the same name");
}

#[test]
fn within_one_second_the_hash_decides_as_in_drizzle_orm() {
    let set = drizzle1("a@1000=a b@1000=b c@2000=c");
    assert_eq!(up(&set, "@1100=a @1200=b"), "run c");
    assert_eq!(up(&set, "@1200=b"), "older than the history: a");
    assert_eq!(up(&set, "@1100=x"), "ambiguous: a b");
}

#[test]
fn a_0x_row_of_another_second_is_matched_by_hash_even_if_that_has_a_row() {
    let set = drizzle1("a@1000=a b@2000=b");
    assert_eq!(up(&set, "@7000=a"), "run b");
    assert_eq!(read(&set, "@1000=a @7000=a @=a"), "a =a =a");
    assert_eq!(up(&set, "@1000=a @7000=a"), "run b");
}

#[test]
fn a_0x_table_with_an_unknown_row_is_not_upgraded() {
    let set = drizzle1("a@1000=a b@2000=b");
    assert_eq!(up(&set, "@1000=a @9500=gone"), "not upgradable: row 2 (created_at 9500)");
    assert_eq!(apply_older(&set, "@1000=a @9500=gone"), "not upgradable: row 2 (created_at 9500)");
    assert_eq!(up(&set, "@1000=a @2000=b @9500=gone"), "up to date", "no row is written");
    assert_eq!(
        up(&set, "@2000=b @9500=gone"),
        "not upgradable: row 2 (created_at 9500)",
        "baseline could not write either"
    );
    assert_eq!(
        up(&set, "@8000=x @9500=y"),
        "not upgradable: row 1 (created_at 8000) row 2 (created_at 9500)",
        "--apply-older could not write either"
    );
    assert_eq!(
        baseline_then_up(&set, "@1000=a @9500=gone", None),
        "not upgradable: row 2 (created_at 9500)"
    );
    assert_eq!(
        accept_then_up(&set, "@1000=old @9500=gone", &[0]),
        "not upgradable: row 2 (created_at 9500)"
    );
    assert_eq!(accept_then_up(&set, "@1000=old", &[0]), "run b");
}

#[test]
fn a_row_of_0x_in_a_1x_table_is_matched_by_its_time_stamp() {
    let set = drizzle1("a@1000=a b@2000=b c@3000=c");
    assert_eq!(up(&set, "a@1000=a @2345=b"), "run c");
    assert_eq!(read(&set, "@1234=a a@1000=a b@2000=b"), "a =a b");
}

// Plain files.

#[test]
fn plain_files_are_matched_by_name() {
    let set = plain("1=a 2=b 3=c");
    assert_eq!(up(&set, "1@1700000000000=a"), "run 2 3");
    assert_eq!(up(&set, "1@1700000000000=a 3@1700000000001=c"), "run 2!");
    assert_eq!(up(&set, "1@1700000000000=old"), "edited: 1");
    assert_eq!(up(&set, "2@1700000000000=b"), "older than the history: 1");
    assert_eq!(up(&set, "renamed@1700000000000=a"), "run 2 3");
}

#[test]
fn the_time_of_applying_does_not_order_plain_files() {
    let set = plain("1=a 2=b");
    assert_eq!(up(&set, "1@1700000000000=a gone@1700000000001=x"), "run 2");
    assert_eq!(up(&set, "1@1700000000000=a @1700000000001=x"), "possibly applied: 2", "no name");
}
