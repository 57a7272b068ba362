//! Crowds: more runners than the server has room for, of two versions of a folder, beside replicas that
//! only wait, through PgBouncer or not, and killed all the time; and beside drizzle-orm. Each migration
//! is applied once, and every runner ends well.
//!
//! CROWD sets how many runners there are.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::drizzle::{self, Drizzle};
use crate::faults::state::{difference, leftovers, state};
use crate::harness::{
    Database, Folder, LIMIT, Random, Running, output_within, premigrate, unique, with_database,
};
use crate::pgbouncer::PgBouncer;
use crate::server::Server;

const RUNNERS: usize = 200;
/// How many there are where some are killed, and others start.
const RUNNERS_BESIDE_KILLS: usize = 80;

/// How many connections the server has room for. Three of them are for superusers.
const CONNECTIONS: usize = 40;

/// As long as a runner may wait for a connection, and for others.
const WAITS: [&str; 4] = ["--wait", "300s", "--runner-wait", "300s"];
const ALL_DONE: Duration = Duration::from_secs(330);

/// For how long one of them is killed every so often.
const KILLING: Duration = Duration::from_secs(4);
const BETWEEN_KILLS: Duration = Duration::from_millis(40);

const APP: [&str; 3] = ["--", "echo", "started"];

/// A role that may only read.
const READER: &str = "crowd_reader";

/// Migrations of several kinds, whose effects are seen if they are missing or there twice.
const MIGRATIONS: [(&str, &str); 8] = [
    (
        "0000_log",
        "create table log (what text);
        create table counters (n int);
        insert into counters values (1)",
    ),
    (
        "0001_one",
        "insert into log values ('one'); update counters set n = n * 2; select pg_sleep(0.2)",
    ),
    (
        "0002_index",
        "insert into log values ('index');
        create index concurrently log_what on log (what);
        update counters set n = n + 3",
    ),
    (
        "0003_two",
        "insert into log values ('two'); select pg_sleep(0.2); update counters set n = n * 5",
    ),
    (
        "0004_values",
        "create type mood as enum ('ok');
        create table moods (mood mood);
        alter type mood add value 'fine';
        insert into moods values ('fine')",
    ),
    ("0005_copy", "copy log from stdin;\na\nb\n\\.\nselect pg_sleep(0.2)"),
    ("0006_vacuum", "update counters set n = n + 7; vacuum log; insert into log values ('vacuum')"),
    (
        "0007_last",
        "insert into log values ('last'); update counters set n = n * 11; select pg_sleep(0.2)",
    ),
];

/// How many of them the older version of the folder has.
const OLDER: usize = 4;

/// What takes part.
#[derive(Clone, Copy, Debug)]
enum Member {
    Newer,
    Older,
    Waiting,
}

/// A server with as few connections, and what is run on it.
struct Place {
    _turn: MutexGuard<'static, ()>,
    server: Server,
    pooler: Option<PgBouncer>,
    /// Past the pooler.
    database: Database,
    newer: Folder,
    older: Folder,
    /// As a single runner leaves it.
    undisturbed: String,
}

impl Place {
    fn new(pool_mode: Option<&str>) -> Place {
        // One crowd at a time is enough for the machine.
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let server = Server::start(&format!("max_connections = {CONNECTIONS}"));
        server.database().execute(&format!(
            "create role {READER} login; alter role {READER} set default_transaction_read_only = on"
        ));
        let (alone, database) = (new_database(&server), new_database(&server));
        let newer = Folder::drizzle0(&MIGRATIONS);
        premigrate(&alone, &newer).run().exits(0);
        let pooler = pool_mode.map(|mode| {
            let settings = format!("pool_mode = {mode}\ndefault_pool_size = 12");
            PgBouncer::before(server.port, &settings)
        });
        Place {
            _turn: turn,
            server,
            pooler,
            database,
            newer,
            older: Folder::drizzle0(&MIGRATIONS[..OLDER]),
            undisturbed: state(&alone),
        }
    }

    fn start(&self, member: Member) -> Running {
        let through = match &self.pooler {
            Some(pooler) => pooler.to(&self.database),
            None => self.database.through(self.server.port),
        };
        let reader = through.at(through.url.replace("postgres@", &format!("{READER}@")));
        let run = match member {
            Member::Newer => premigrate(&through, &self.newer),
            Member::Older => premigrate(&through, &self.older),
            Member::Waiting => premigrate(&reader, &self.newer).arg("wait"),
        };
        run.args(&WAITS).args(&APP).start()
    }

    /// Starts a crowd, and lets each come to its end; some are killed before, and start again.
    #[allow(clippy::print_stdout, reason = "the test shows it if it fails")]
    fn crowd(mut self, is_killed: bool) {
        let seed = u64::from(std::process::id());
        println!("seed {seed}");
        let mut random = Random(seed);
        let usual = if is_killed { RUNNERS_BESIDE_KILLS } else { RUNNERS };
        let size = std::env::var("CROWD").map_or(usual, |size| size.parse().expect("a number"));
        let (mut runs, mut kills) = (Vec::new(), 0);
        let mut kill_one = |runs: &mut Vec<(Member, Running)>, random: &mut Random| {
            let (member, victim) = runs.swap_remove(random.below(runs.len()));
            victim.signal("KILL");
            // It may have ended by itself just before.
            let run = victim.finish();
            match run.code {
                -9 => kills += 1,
                _ => drop(run.exits(0)),
            }
            runs.push((member, self.start(member)));
        };
        for number in 1..=size {
            // Most are of the newer version.
            let member = match random.below(10) {
                0..6 => Member::Newer,
                6..8 => Member::Older,
                _ => Member::Waiting,
            };
            runs.push((member, self.start(member)));
            // A busy machine may take so long to start all that the first have ended.
            if is_killed && number % 10 == 0 {
                kill_one(&mut runs, &mut random);
            }
        }
        let until = Instant::now() + if is_killed { KILLING } else { Duration::ZERO };
        while Instant::now() < until {
            thread::sleep(BETWEEN_KILLS);
            kill_one(&mut runs, &mut random);
        }
        println!("{kills} kills");
        assert_eq!(kills > 0, is_killed, "seed {seed}");
        for (member, run) in runs {
            let run = run.finish_within(ALL_DONE);
            assert_eq!(run.code, 0, "seed {seed}, {member:?}:\n{}", run.stderr);
            assert_eq!(run.stdout, "started\n", "seed {seed}, {member:?}:\n{}", run.stderr);
        }
        assert_eq!(difference(&self.undisturbed, &state(&self.database)), None, "seed {seed}");
        let left = leftovers(&self.database, self.pooler.is_some(), Duration::from_secs(20));
        assert_eq!(left, [""; 0], "seed {seed}");
        assert!(self.pooler.as_mut().is_none_or(PgBouncer::is_alive));
    }
}

/// A database of which that role can read whatever is made in it.
fn new_database(server: &Server) -> Database {
    let (all, name) = (server.database(), unique("crowd"));
    all.execute(&format!("create database {name}"));
    let database = Database::named(&name, with_database(&all.url, &name));
    database.execute(&format!(
        "alter default privileges grant usage on schemas to {READER}; \
         alter default privileges grant select on tables to {READER}"
    ));
    database
}

#[test]
fn on_a_server_with_forty_connections_each_of_two_hundred_ends_well() {
    Place::new(None).crowd(false);
}

#[test]
fn if_one_is_killed_at_any_time_the_others_end_well() {
    Place::new(None).crowd(true);
}

#[test]
fn if_one_is_killed_at_any_time_behind_pgbouncer_in_transaction_mode_the_others_end_well() {
    Place::new(Some("transaction")).crowd(true);
}

#[test]
fn if_one_is_killed_at_any_time_behind_pgbouncer_in_session_mode_the_others_end_well() {
    Place::new(Some("session")).crowd(true);
}

/// drizzle-orm takes no lock, but has written to the history from its first migration on.
#[test]
fn a_crowd_that_comes_while_drizzle_orm_migrates_applies_nothing_twice() {
    const CROWD: usize = 30;
    let insert = |what: &str| format!("insert into log values ('{what}'); select pg_sleep(0.2)");
    let [a, b, c] = ["a", "b", "c"].map(insert);
    let migrations: [(&str, &[u8]); 5] = [
        ("0000_log", b"create table log (what text)"),
        ("0001_a", a.as_bytes()),
        ("0002_b", b.as_bytes()),
        ("0003_c", c.as_bytes()),
        // drizzle-orm does not have this one yet.
        ("0004_index", b"create index concurrently log_what on log (what)"),
    ];
    for drizzle in [Drizzle::V0, Drizzle::V1] {
        let folders = [1, 3, 4, 5].map(|count| drizzle.folder(&migrations[..count]));
        let [first, older, theirs, newer] = &folders;
        let database = Database::fresh();
        drizzle.migrate(&database, first).exits(0);
        let their_run = drizzle.migrator(&database, theirs).spawn().expect("a run");
        database.wait_for("its first row", drizzle::WRITES_HISTORY);
        let start = |number: usize| match number % 3 {
            0 => premigrate(&database, newer).args(&WAITS).args(&APP).start(),
            1 => premigrate(&database, older).args(&WAITS).args(&APP).start(),
            _ => premigrate(&database, newer).arg("wait").args(&WAITS).args(&APP).start(),
        };
        let runs: Vec<_> = (0..CROWD).map(start).collect();
        assert!(output_within(LIMIT, their_run).status.success());
        for run in runs {
            assert_eq!(run.finish_within(ALL_DONE).exits(0).stdout, "started\n");
        }
        let applied = database.rows("select what from log order by what");
        assert_eq!(applied, ["a", "b", "c"], "{drizzle:?}");
        assert_eq!(database.history().len(), 5, "{drizzle:?}");
        assert_eq!(database.leftovers(), [""; 0]);
        drizzle.migrate(&database, theirs).exits(0);
        assert_eq!(database.history().len(), 5, "{drizzle:?}");
    }
}
