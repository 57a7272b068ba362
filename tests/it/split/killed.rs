//! Split migrations whose runner is killed, or whose connection is cut, wherever that may be; and
//! many runners at once. Whatever happens, each effect is there once, and then nothing is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::Client;

use crate::harness::{Database, Folder, Random, Run, premigrate, rows};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Message, Proxy, Side};

/// Both kinds of migrations, with effects that would be seen twice; and no more than that, since
/// every message of it is a case of its own.
fn both_kinds() -> Folder {
    Folder::drizzle0(&[
        (
            "0000_log",
            "create table log (what text);\ncreate type mood as enum ('ok');\n\
             create table t (a int, b int);\ncreate index t_a on t (a);\n\
             insert into t select g, g from generate_series(1, 2000) g;",
        ),
        (
            "0001_steps",
            "insert into log values ('one');\ncommit;\ninsert into log values ('two');\n\
             create unique index concurrently if not exists t_b on t (b);\n\
             drop index concurrently t_a;\nalter type mood add value 'fine';\n\
             select 'fine'::mood;\ninsert into log values ('three');",
        ),
        ("0002_slow", "insert into log values ('four');\nselect pg_sleep(0.05);"),
    ])
}

/// Schema, data and history, in one text.
fn state(client: &mut Client) -> String {
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
    rows(client, &parts.join(";")).join("\n")
}

fn undisturbed() -> String {
    let database = Database::fresh();
    premigrate(&database, &both_kinds()).run().exits(0);
    state(&mut database.client())
}

/// Every message of an undisturbed run, from either side.
fn messages(folder: &Folder) -> Vec<(Side, usize)> {
    let database = Database::fresh();
    let proxy = Proxy::start(|_| Action::Pass);
    premigrate(&proxy.to(&database), folder).run().exits(0);
    let from = |from| (0..proxy.messages(from)).map(move |number| (from, number));
    from(Side::Client).chain(from(Side::Server)).collect()
}

/// Does something at each of these messages, some at a time, each time in an empty database, in
/// which all is then as it is to be, and nothing left. The databases are few, and emptied in
/// between: to create one takes longer than all that is done in it.
fn each(messages: &[(Side, usize)], act: impl Fn(&Database, usize, (Side, usize)) -> Run + Sync) {
    let expected = undisturbed();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let database = Database::fresh();
                let mut client = database.client();
                loop {
                    let place = next.fetch_add(1, Ordering::SeqCst);
                    let Some(&message) = messages.get(place) else { return };
                    let run = act(&database, place, message);
                    assert_eq!(state(&mut client), expected, "{message:?}: {}", run.stderr);
                    assert_eq!(database.leftovers(), [] as [String; 0], "{message:?}");
                    let empty = "drop schema drizzle, public cascade; create schema public";
                    client.batch_execute(empty).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_kill_at_every_message_and_then_in_mid_statement_leaves_nothing_half_done() {
    let folder = both_kinds();
    let messages = messages(&folder);
    let kills = AtomicUsize::new(0);
    each(&messages, |database, seed, (from, number)| {
        println!("seed {seed}: {from:?} {number}");
        let mut random = Random(seed as u64);
        let arrives = [Action::Pass, Action::Cut][random.below(2)];
        let first = killed_at(database, &folder, arrives, move |message| {
            (message.from, message.number) == (from, number)
        });
        kills.fetch_add(usize::from(first.code == -9), Ordering::SeqCst);
        // The next start is killed at some time, unless it is faster.
        let mut running = premigrate(database, &folder).start();
        thread::sleep(Duration::from_millis(random.below(250) as u64));
        let _ = running.child.kill();
        kills.fetch_add(usize::from(running.finish().code == -9), Ordering::SeqCst);
        premigrate(database, &folder).run().exits(0)
    });
    let kills = kills.load(Ordering::SeqCst);
    println!("{kills} kills, for {} messages", messages.len());
    assert!(kills >= 300, "{kills}");
}

/// Starts it, and kills it at this message, which arrives or does not. It may end by itself before.
pub fn killed_at(
    database: &Database,
    folder: &Folder,
    action: Action,
    at: impl Fn(&Message) -> bool + Send + Sync + 'static,
) -> Run {
    let pid = Arc::new(AtomicI32::new(0));
    let victim = pid.clone();
    let proxy = Proxy::start(move |message| {
        if !at(message) {
            return Action::Pass;
        }
        while victim.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let _ = kill(Pid::from_raw(victim.load(Ordering::SeqCst)), Signal::SIGKILL);
        action
    });
    let running = premigrate(&proxy.to(database), folder).start();
    pid.store(running.pid() as i32, Ordering::SeqCst);
    let run = running.finish();
    if run.code == -9 { run } else { run.exits(0) }
}

#[test]
fn a_connection_cut_at_any_message_of_split_migrations_is_recovered_from() {
    let folder = both_kinds();
    each(&messages(&folder), |database, place, (from, number)| {
        println!("cut {place}: {from:?} {number}");
        let proxy = Proxy::start(move |message| {
            let here = (message.from, message.number) == (from, number);
            if here { Action::Cut } else { Action::Pass }
        });
        premigrate(&proxy.to(database), &folder).run().exits(0)
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
        assert_eq!(state(&mut database.client()), expected, "{mode}");

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
