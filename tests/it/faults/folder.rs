//! Migrations of every kind, whose effects are seen if they are missing or there twice: no table has
//! a key, and counters are added to and multiplied.

use crate::harness::Folder;

/// A role of the server to run statements under.
pub const ROLE: &str = "faults_owner";

const BASE: &str = "create table log (what text);
create table items (id int, label text);
create table few (n int);
create table counters (n int);--> statement-breakpoint
insert into counters values (1);
insert into few select generate_series(1, 4);
insert into items select g, 'item ' || g from generate_series(1, 500) g;--> statement-breakpoint
create type mood as enum ('ok');
create table parts (id int) partition by range (id);
create table parts_1 partition of parts for values from (0) to (10);
create table parts_2 partition of parts for values from (10) to (20);
insert into parts values (1), (11);
create materialized view totals as select count(*) as n from items;
create unique index totals_n on totals (n);
create index items_id on items (id);
create function slowly(n int) returns int language plpgsql immutable as
    $$ begin perform pg_sleep(0.01); return n; end $$;
grant usage, create on schema public to faults_owner;
insert into log values ('base')";

const PLAIN: &str = "insert into log values ('plain');
update counters set n = n + 1;
do $$ begin execute 'insert into log values (''a block'')'; end $$;
alter table items add column price int not null default 1;
select pg_sleep(0.03);
update items set price = price + id";

const INDEXES: &str = "insert into log values ('indexes, one');
create index concurrently if not exists few_slowly on few (slowly(n));
create unique index concurrently items_unique on items (id, label);
drop index concurrently items_id;
update counters set n = n * 2;
insert into log values ('indexes, two')";

const NAMELESS: &str = "create index concurrently on few (n)";

const AGAIN: &str = "insert into log values ('again');
reindex index concurrently few_slowly;
reindex table concurrently items;
vacuum (analyze) items;
update counters set n = n + 3";

const VALUES: &str = "alter type mood add value 'fine';
create table moods (mood mood);
insert into moods values ('fine'), ('ok');
alter type mood add value 'good' before 'ok';
insert into moods select 'good'::mood from few;
insert into log values ('values')";

const PARTS: &str = "begin;
insert into log values ('parts, one');
update counters set n = n * 3;
commit;
alter table parts detach partition parts_2 concurrently;
insert into log values ('parts, two')";

const ALONE: &str = "-- premigrate: no-transaction
insert into log values ('alone, one');
update counters set n = n + 5;
create index concurrently items_price on items (price);
insert into log select 'alone, two' from pg_sleep(0.03)";

const PROCEDURE: &str = "-- premigrate: no-transaction
create table batches (of text, number int);
create procedure fill() language plpgsql as $$ begin
    for number in 1..3 loop
        insert into batches values ('procedure', number);
        perform pg_sleep(0.01);
        commit;
    end loop;
end $$;
call fill();
update counters set n = n + 7";

const BLOCK: &str = "-- premigrate: no-transaction
do $$ begin
    for number in 1..3 loop
        insert into batches values ('block', number);
        perform pg_sleep(0.01);
        commit;
    end loop;
end $$;
insert into items select g, 'late' from generate_series(1000, 1020) g;
refresh materialized view concurrently totals;
insert into log values ('block')";

const ROLES: &str = "set role faults_owner;
create table owned (id int);
insert into owned select generate_series(1, 50);
create index concurrently owned_id on owned (id);
insert into owned values (51);
reset role;
insert into log values ('roles')";

const SETTINGS: &str = "select set_config('faults.count', (select sum(n)::text from counters), false);
set work_mem = '5MB';
insert into log values ('settings, ' || current_setting('faults.count'));
commit;
insert into log select 'settings, ' || current_setting('faults.count') || current_setting('work_mem');
vacuum few;
insert into log values ('settings, ' || current_setting('faults.count'))";

const ISOLATED: &str = "set transaction isolation level serializable;
update counters set n = n * 5;
insert into log select 'isolated, ' || current_setting('transaction_isolation')";

/// In the order in which they are applied. A pooler keeps no settings, so behind one some of them
/// are refused before they run.
pub fn every_kind(is_pooled: bool) -> Folder {
    let copied: Vec<String> = (0..200).map(|id| format!("{id}\tcopied {id}")).collect();
    let copy = format!(
        "insert into log values ('copy');\ncopy items (id, label) from stdin;\n{}\n\\.\n\
         update counters set n = n + 11;",
        copied.join("\n")
    );
    // Longer than what is sent at once.
    let insert = format!("insert into log values ('{}');\n", "x".repeat(400_000));
    let large = format!("{}update counters set n = n * 7;", insert.repeat(3));
    let mut migrations = vec![
        ("0000_base", BASE),
        ("0001_plain", PLAIN),
        ("0002_indexes", INDEXES),
        ("0003_nameless", NAMELESS),
        ("0004_again", AGAIN),
        ("0005_values", VALUES),
        ("0006_copy", &copy),
        ("0007_parts", PARTS),
        ("0008_alone", ALONE),
        ("0009_procedure", PROCEDURE),
        ("0010_block", BLOCK),
        ("0011_large", &large),
        ("0012_roles", ROLES),
        ("0013_settings", SETTINGS),
        ("0014_isolated", ISOLATED),
    ];
    if is_pooled {
        migrations.retain(|(tag, _)| !["0012_roles", "0013_settings"].contains(tag));
    }
    Folder::drizzle0(&migrations)
}

/// A statement of which nothing shows whether it finished, so that premigrate asks.
pub struct Asked {
    /// How it begins.
    pub statement: &'static str,
    /// Selects a row if it finished.
    pub is_done: &'static str,
    /// Removes what part of it has left.
    pub undo: &'static str,
}

/// What a person would do about each.
pub const ASKED: [Asked; 4] = [
    Asked {
        statement: "call fill()",
        is_done: "select from batches where of = 'procedure' having count(*) = 3",
        undo: "delete from batches where of = 'procedure'",
    },
    Asked {
        statement: "do ",
        is_done: "select from batches where of = 'block' having count(*) = 3",
        undo: "delete from batches where of = 'block'",
    },
    Asked {
        statement: "refresh materialized view concurrently totals",
        is_done: "select from totals where n = (select count(*) from items)",
        undo: "",
    },
    Asked {
        statement: "create index concurrently on few",
        is_done: "select from pg_index where indexrelid = to_regclass('few_n_idx') and indisvalid",
        undo: "drop index if exists few_n_idx",
    },
];
