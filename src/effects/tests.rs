//! What the examples in `tests/it/effects.rs` do not show: what is gathered, exempt, or too long to read.

use expect_test::{Expect, expect};

use super::{Hazard, Reader, gathered};
use crate::migrations::rule::Rule;
use crate::migrations::steps::Steps;
use crate::sql::Script;

fn read(reader: &mut Reader, sql: &str, is_new: bool) -> Vec<Hazard> {
    let script = Script::parse(sql);
    reader.read(&script, &Steps::split(&script), is_new)
}

/// The rules, with their places, that are found in the last migration, where all of them are new or only
/// the last one is.
fn rules(migrations: &[&str], are_new: bool) -> Vec<String> {
    let mut reader = Reader::knowing_new();
    let mut last = Vec::new();
    for (index, sql) in migrations.iter().enumerate() {
        last = read(&mut reader, sql, are_new || index + 1 == migrations.len());
    }
    last.iter().map(|hazard| format!("{} {}", hazard.position, hazard.rule)).collect()
}

fn messages(sql: &str, expected: &Expect) {
    let hazards = gathered(read(&mut Reader::default(), sql, true));
    let text = hazards.into_iter().map(|hazard| {
        let patch = hazard.patch.map(|patch| format!("\n{patch}")).unwrap_or_default();
        format!("{} {} [{}]{patch}\n", hazard.position, hazard.message, hazard.rule)
    });
    expected.assert_eq(&text.collect::<String>());
}

#[test]
fn what_one_rule_finds_in_a_migration_is_one_hazard_with_the_patches_of_all() {
    let sql = "alter table t add check (a > 0), add constraint \"K\" check (b > 0);\n\
               select 1;\nalter table s.\"T\" add constraint k check (c > 0)";
    messages(
        sql,
        &expect![[r#"
            1:15 ADD ... CHECK takes ACCESS EXCLUSIVE on t and scans it, so reads and writes wait until it is done; add it NOT VALID, and validate it in the next migration (2 more, in lines 1, 3) [check-scan]
            ALTER TABLE "t" ADD CONSTRAINT "t_a_check" check (a > 0) NOT VALID;
            ALTER TABLE "t" ADD CONSTRAINT "K" check (b > 0) NOT VALID;
            ALTER TABLE "s"."T" ADD CONSTRAINT "k" check (c > 0) NOT VALID;
            -- in the next migration:
            ALTER TABLE "t" VALIDATE CONSTRAINT "t_a_check";
            ALTER TABLE "t" VALIDATE CONSTRAINT "K";
            ALTER TABLE "s"."T" VALIDATE CONSTRAINT "k";
            3:19 line 1 has taken ACCESS EXCLUSIVE on t, and nobody reads or writes t until this statement is done, too; move one of them to another migration [lock-held]
        "#]],
    );
}

#[test]
fn a_lock_is_told_with_what_takes_long_under_it() {
    let sql = "create index i on public.t (a);\nalter table t add b int;\nupdate t set b = a;\n\
               alter table t add foreign key (p) references s.p;\ndrop index j";
    messages(
        sql,
        &expect![[r#"
        1:1 CREATE INDEX takes SHARE on t and scans it, so writes wait until it is done; create it CONCURRENTLY [index-locks-writes]
        create index CONCURRENTLY i on public.t (a);
        3:1 UPDATE of all rows of t keeps each of them locked until the migration is done, and leaves as many dead rows; do it in batches, outside of the migration [unbatched-write]
        3:1 line 2 has taken ACCESS EXCLUSIVE on t, and nobody reads or writes t until this statement is done, too; move one of them to another migration (1 more, in line 4) [lock-held]
        4:15 ADD ... FOREIGN KEY takes SHARE ROW EXCLUSIVE on t and s.p and scans t, so writes wait until it is done; add it NOT VALID, and validate it in the next migration [foreign-key-scan]
        ALTER TABLE "t" ADD CONSTRAINT "t_p_fkey" foreign key (p) references s.p NOT VALID;
        -- in the next migration:
        ALTER TABLE "t" VALIDATE CONSTRAINT "t_p_fkey";
        5:1 DROP INDEX takes ACCESS EXCLUSIVE on the table of j, so it waits for transactions that use the table, and reads and writes wait behind it; drop it CONCURRENTLY [drop-index-locks]
        DROP INDEX CONCURRENTLY "j";
    "#]],
    );
}

#[test]
fn a_table_that_a_new_migration_creates_has_no_users() {
    let create = "create table t (a int)";
    let index = "create index on t (a)";
    assert_eq!(rules(&[create, index], true), [""; 0]);
    assert_eq!(rules(&[create, index], false), ["1:1 index-locks-writes"]);
    assert_eq!(rules(&[index], true), ["1:1 index-locks-writes"]);
    assert_eq!(rules(&[&format!("{create}; {index}")], true), [""; 0]);
    let renamed = ["create table t (a int); alter table t rename to u", "create index on u (a)"];
    assert_eq!(rules(&renamed, true), [""; 0]);
    assert_eq!(rules(&[create, "drop table t", index], true), ["1:1 index-locks-writes"]);
    let temporary = ["create temp table t (a int)", index];
    assert_eq!(rules(&temporary, false), [""; 0]);
    let view = "create materialized view t as select 1 a";
    assert_eq!(rules(&[view, index], true), [""; 0]);
    let schema = ["create table s.t (a int)", index];
    assert_eq!(rules(&schema, true), ["1:1 index-locks-writes"]);
}

#[test]
fn without_knowing_what_is_new_each_migration_is_read_as_if_it_alone_were() {
    let mut reader = Reader::default();
    assert_eq!(read(&mut reader, "create table t (a int); create index on t (a)", true), []);
    let second = read(&mut reader, "create index on t (a)", true);
    assert_eq!(second.first().map(|hazard| hazard.rule), Some(Rule::IndexLocksWrites));
}

#[test]
fn what_the_migrations_before_have_made_decides() {
    let text = "create table t (a text, n int not null)";
    assert_eq!(rules(&[text, "alter table t alter a type varchar"], false), [""; 0]);
    assert_eq!(rules(&[text, "alter table t alter n set not null"], false), [""; 0]);
    let checked = "alter table t add constraint k check (((a)) is not null)";
    assert_eq!(rules(&[text, checked, "alter table t alter a set not null"], false), [""; 0]);
    let dropped = "alter table t drop constraint k";
    let set = "alter table t alter a set not null";
    assert_eq!(rules(&[text, checked, dropped, set], false), ["1:15 not-null-scan"]);
    let unchecked = "alter table t add constraint k check (a is not null) not valid";
    assert_eq!(rules(&[text, unchecked, set], false), ["1:15 not-null-scan"]);
}

#[test]
fn a_transaction_ends_with_its_step() {
    let concurrently = "create index concurrently i on p (a)";
    let sql = format!("alter table t add n int; {concurrently}; update t set n = 1 where a > 1");
    assert_eq!(rules(&[&sql], true), [""; 0]);
}

#[test]
fn a_statement_that_is_too_long_to_be_read_is_told_unless_it_inserts_values() {
    let values = |count| vec!["1"; count].join(", ");
    let long = format!("select 1;\nupdate t set a = 1 where b in ({})", values(5_000));
    assert_eq!(rules(&[&long], true), ["2:1 not-read"]);
    let insert = format!("insert into t values ({})", values(5_000));
    assert_eq!(rules(&[&insert], true), [""; 0]);
    assert_eq!(rules(&[&format!("drop table u; {insert}")], true), ["1:1 breaks-old-version"]);
}

#[test]
fn a_column_that_blocks_for_two_reasons_has_no_patch() {
    let sql = "alter table t add u uuid default gen_random_uuid() unique";
    let hazards = read(&mut Reader::default(), sql, true);
    let patches: Vec<_> = hazards.iter().map(|it| (it.rule.name(), it.patch.is_some())).collect();
    assert_eq!(patches, [("default-rewrite", false), ("unique-locks", false)]);
}

#[test]
fn any_text_is_read_without_a_panic() {
    let deep =
        |open: &str, count: usize| format!("alter table t add check ({}", open.repeat(count));
    for count in [500, 4_900, 200_000] {
        for open in ["(", "not ", "- ", "f(", "array[", "case when ", "a + "] {
            let found = rules(&[&deep(open, count)], true);
            assert!(count < 5_000 || found == ["1:1 not-read"], "{open}: {found:?}");
        }
    }
    let statements = [
        "alter table t add column a int default (",
        "alter",
        "create index",
        "drop table ;",
        "alter table \"t",
        "do $$ begin alter",
        "update",
        "create table t (((",
        "alter table t\u{0}\u{a0}",
        "alter type e add value",
        "reindex",
        "vacuum full",
        "create type e as enum (",
        "\u{feff}alter table",
    ];
    let read = |sql: &str| {
        let mut reader = Reader::default();
        read(&mut reader, sql, true);
        // A panic leaves the whole file unread.
        assert!(reader.unread().iter().all(|it| it.statement != usize::MAX), "{sql}");
    };
    for sql in statements {
        for end in (0..=sql.len()).filter(|end| sql.is_char_boundary(*end)) {
            read(&sql[..end]);
        }
    }
}
