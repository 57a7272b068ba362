//! Split migrations whose runner is killed, or whose connection is cut, wherever that may be; and
//! many runners at once. Whatever happens, each effect is there once, and then nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Database, Folder, Random, Run, premigrate};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Fate, From, Proxy};

/// Both kinds of migrations, with effects that would be seen twice.
fn both_kinds() -> Folder {
    Folder::drizzle0(&[
        ("0000_log", "create table log (what text);\ncreate table t (a int, b int);"),
        ("0001_one", "insert into log values ('one');\ncommit;\ninsert into log values ('two');"),
        (
            "0002_index",
            "insert into t select g, g from generate_series(1, 2000) g;\ncommit;\n\
             create index concurrently t_a on t (a);\ninsert into log values ('three');\n\
             create unique index concurrently if not exists t_b on t (b);",
        ),
        ("0003_slow", "insert into log values ('four');\nselect pg_sleep(0.05);"),
        (
            "0004_enum",
            "create type mood as enum ('ok');\ncommit;\nalter type mood add value 'fine';\n\
             insert into log values ('five');",
        ),
        ("0005_drop", "drop index concurrently t_a;\nvacuum t;\ninsert into log values ('six');"),
    ])
}

/// Schema, data and history, in one text.
fn state(database: &Database) -> String {
    let parts = [
        "select what from log order by what",
        "select count(*), sum(a), sum(b) from t",
        "select indexrelid::regclass, indisvalid, indisready from pg_index \
         where indrelid = 't'::regclass order by 1",
        "select enumlabel from pg_enum order by enumsortorder",
        "select hash from drizzle.__drizzle_migrations order by created_at",
        "select relname from pg_class where relnamespace = 'drizzle'::regnamespace order by 1",
        "select relname from pg_class where relnamespace = 'public'::regnamespace order by 1",
    ];
    parts.map(|sql| database.rows(sql).join(",")).join("\n")
}

fn undisturbed() -> String {
    let database = Database::fresh();
    premigrate(&database, &both_kinds()).run().exits(0);
    state(&database)
}

/// Every message of an undisturbed run, from either side.
fn messages(folder: &Folder) -> Vec<(From, usize)> {
    let database = Database::fresh();
    let proxy = Proxy::start(|_| Fate::Passes);
    premigrate(&proxy.to(&database), folder).run().exits(0);
    let from = |from| (0..proxy.messages(from)).map(move |number| (from, number));
    from(From::Client).chain(from(From::Server)).collect()
}

/// Does something for each of these, some at a time.
fn each<T: Sync>(all: &[T], act: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::SeqCst);
                    let Some(one) = all.get(place) else { return };
                    act(place, one);
                }
            });
        }
    });
}

#[test]
fn a_kill_at_every_message_and_then_in_mid_statement_leaves_nothing_half_done() {
    let expected = undisturbed();
    let folder = both_kinds();
    // Those of the server are many small ones, which the client reads several at a time.
    let is_taken = |&(from, number): &(From, usize)| from == From::Client || number % 4 == 0;
    let messages: Vec<_> = messages(&folder).into_iter().filter(is_taken).collect();
    let kills = AtomicUsize::new(0);
    each(&messages, |seed, &(from, number)| {
        println!("seed {seed}: {from:?} {number}");
        let mut random = Random(seed as u64);
        let database = Database::fresh();
        let arrives = [Fate::Passes, Fate::Cut][random.below(2)];
        let first = killed_at(&database, &folder, from, number, arrives);
        kills.fetch_add(usize::from(first.code == -9), Ordering::SeqCst);
        // The next start is killed at some time, unless it is faster.
        let mut running = premigrate(&database, &folder).start();
        thread::sleep(Duration::from_millis(random.below(250) as u64));
        let _ = running.child.kill();
        kills.fetch_add(usize::from(running.finish().code == -9), Ordering::SeqCst);
        let run = premigrate(&database, &folder).run().exits(0);
        assert_eq!(state(&database), expected, "seed {seed}: {}", run.stderr);
        assert_eq!(database.leftovers(), [] as [String; 0], "seed {seed}");
    });
    let kills = kills.load(Ordering::SeqCst);
    println!("{kills} kills, for {} messages", messages.len());
    assert!(kills >= 300, "{kills}");
}

/// Starts it, and kills it at this message, which arrives or does not. After the last it may have
/// ended by itself.
fn killed_at(database: &Database, folder: &Folder, from: From, number: usize, fate: Fate) -> Run {
    let pid = Arc::new(AtomicI32::new(0));
    let victim = pid.clone();
    let proxy = Proxy::start(move |message| {
        if (message.from, message.number) != (from, number) {
            return Fate::Passes;
        }
        while victim.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let _ = kill(Pid::from_raw(victim.load(Ordering::SeqCst)), Signal::SIGKILL);
        fate
    });
    let running = premigrate(&proxy.to(database), folder).start();
    pid.store(running.pid() as i32, Ordering::SeqCst);
    let run = running.finish();
    if run.code == -9 { run } else { run.exits(0) }
}

#[test]
fn a_connection_cut_at_any_message_of_split_migrations_is_recovered_from() {
    let expected = undisturbed();
    let folder = both_kinds();
    // Every third: all of them take minutes.
    let cuts: Vec<_> = messages(&folder).into_iter().skip(1).step_by(3).collect();
    assert!(cuts.len() > 60, "{}", cuts.len());
    each(&cuts, |_, &(from, number)| {
        let database = Database::fresh();
        let proxy = Proxy::start(move |message| {
            let here = (message.from, message.number) == (from, number);
            if here { Fate::Cut } else { Fate::Passes }
        });
        let run = premigrate(&proxy.to(&database), &folder).run().exits(0);
        let place = format!("{from:?} {number}: {}", run.stderr);
        assert_eq!(state(&database), expected, "{place}");
        assert_eq!(database.leftovers(), [] as [String; 0], "{place}");
    });
}

#[test]
fn eight_runners_through_pgbouncer_do_nothing_twice_and_leave_nothing_in_its_pool() {
    const POOL: usize = 6;
    let expected = undisturbed();
    let folder = both_kinds();
    for mode in ["transaction", "session"] {
        let database = Database::fresh();
        // In session mode every runner keeps a connection, and one of them needs two.
        let pool = if mode == "session" { 20 } else { POOL };
        let pooler = PgBouncer::start_in(mode, pool);
        let through = pooler.to(&database);
        let runs: Vec<_> = (0..8).map(|_| premigrate(&through, &folder).start()).collect();
        for run in runs {
            run.finish().exits(0);
        }
        assert_eq!(state(&database), expected, "{mode}");

        let locks = "select count(*) from pg_locks where locktype = 'advisory' and database = \
             (select oid from pg_database where datname = current_database())";
        assert_eq!(database.value(locks), "0", "{mode}");
        // Each of the pool's connections at once.
        let mut clients: Vec<_> = (0..3).map(|_| through.client()).collect();
        for client in &mut clients {
            client.batch_execute("begin").unwrap();
        }
        for client in &mut clients {
            let left = "select (select count(*) from pg_prepared_statements) || ' ' || \
                 (select coalesce(string_agg(name, ','), '') from pg_settings where setting <> reset_val and source = 'session' \
                 and name not in ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', \
                 'standard_conforming_strings')) as left";
            let rows = client.simple_query(left).unwrap();
            let told = rows.iter().find_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            assert_eq!(told.as_deref(), Some("0 "), "{mode}");
        }
    }
}
