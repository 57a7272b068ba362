//! Dead networks, endless notices, and closing connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Database, Folder, LIMIT, Running, eventually, premigrate, server_port};
use crate::proxy::{Action, Proxy, Side};
use crate::signals::SLEEPING;

#[test]
fn endless_notices_do_not_fill_the_memory() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[(
        "0000_loud",
        "do $$ begin for i in 1..200000 loop raise notice '% %', i, repeat('x', 2000); end loop; \
         end $$",
    )]);
    let (run, peak) = premigrate(&database, &folder).start().finish_with_peak(LIMIT);
    run.exits(0).says(&["applied 0000_loud"]);
    // 400 MB of notices came.
    assert!(peak > 0 && peak < 64 << 20, "{peak}");
}

/// One end of a connection on this machine, and its timer: the kind, and the hundredths of a second
/// until it expires.
struct End {
    socket: String,
    local: String,
    remote: String,
    timer: (u8, u64),
}

fn ends() -> Vec<End> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().skip(1).map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (kind, when) = fields[5].split_once(':').unwrap();
        let timer = (u8::from_str_radix(kind, 16).unwrap(), u64::from_str_radix(when, 16).unwrap());
        let [local, remote, socket] = [1, 2, 9].map(|field| fields[field].to_owned());
        End { socket, local, remote, timer }
    });
    lines.collect()
}

/// Both ends of the process's connections to the server, its own first.
fn connections(running: &Running) -> Vec<(End, End)> {
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap() {
        let Ok(link) = std::fs::read_link(entry.unwrap().path()) else { continue };
        sockets.push(link.display().to_string());
    }
    let server = format!("0100007F:{:04X}", server_port());
    let (ours, mut others): (Vec<_>, Vec<_>) =
        ends().into_iter().partition(|end| sockets.contains(&format!("socket:[{}]", end.socket)));
    let ours = ours.into_iter().filter(|end| end.remote == server);
    ours.filter_map(|end| {
        let at = others.iter().position(|other| other.remote == end.local)?;
        Some((end, others.swap_remove(at)))
    })
    .collect()
}

/// Whether the kernel sends a keepalive probe after so many idle seconds.
fn probes_after(end: &End, seconds: u64) -> bool {
    let (kind, when) = end.timer;
    // Part of the time may have passed; a retransmission has another kind.
    kind == 2 && when <= seconds * 100 + 10
}

#[test]
fn a_long_statement_is_looked_after_less_and_less_often_and_by_no_lasting_connection() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "select pg_sleep(60)")]);
    let proxy = Proxy::start(|_| Action::Pass);
    let running = premigrate(&proxy.to(&database), &folder).start();
    database.wait_for("the migration", SLEEPING);
    let started = Instant::now();
    let others = "select from pg_stat_activity where datname = current_database() \
         and application_name = 'premigrate' and query not like '%pg_sleep%'";
    // After one second, after two and after four.
    for looks in 1..=3 {
        eventually("a look", || proxy.connections() > looks);
        database.wait_for_no("other session", others);
    }
    assert!(started.elapsed() > Duration::from_secs(3), "{:?}", started.elapsed());
    running.end_by("TERM").exits(143);
}

/// Dropped packets are tested by scripts/names, which needs a network of its own.
#[test]
fn the_connection_is_probed_after_three_idle_seconds() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "select pg_sleep(60)")]);
    let running = premigrate(&database, &folder).start();
    database.wait_for("the migration", SLEEPING);
    // Until the data is acknowledged, another timer runs.
    eventually("the keepalive timer", || {
        connections(&running).iter().any(|(ours, _)| probes_after(ours, 3))
    });
    running.end_by("TERM").exits(143);
}

/// So that the server notices if our host dies; the default is two hours.
#[test]
fn the_server_probes_us_after_fifteen_idle_seconds() {
    for (sql, count) in [
        ("insert into t values (1);\nselect pg_sleep(60)", 1),
        // One builds the index, the other holds the lock.
        ("create index concurrently t_a on t (a)", 2),
    ] {
        let database = Database::fresh();
        database.execute("create table t (a int)");
        let mut other = database.holding("insert into t values (0)");
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        let running = premigrate(&database, &folder).start();
        eventually("the server's keepalive timers", || {
            let asking =
                connections(&running).iter().filter(|(_, its)| probes_after(its, 15)).count();
            asking == count
        });
        running.signal("TERM");
        running.finish().exits(143);
        other.batch_execute("rollback").unwrap();
    }
}

/// Sends a signal when this message is sent, and from then on drops everything on all connections.
#[track_caller]
fn ends_on_a_dead_link_at(message: &'static str, database: &Database, folder: &Folder) {
    let dead = Arc::new(AtomicBool::new(false));
    let shared = dead.clone();
    let proxy = Proxy::start(move |passing| {
        let dies = passing.text.contains(message);
        match shared.fetch_or(dies, Ordering::SeqCst) || dies {
            true => Action::Stall,
            false => Action::Pass,
        }
    });
    let app = ["--", "echo", "started"];
    let running = premigrate(&proxy.to(database), folder).args(&app).start();
    eventually(message, || dead.load(Ordering::SeqCst));
    let run = running.end_by("TERM").exits(143).says(&["SIGTERM"]);
    assert_eq!(run.stdout, "");
}

#[test]
fn a_signal_ends_the_run_in_time_if_the_network_died_in_a_transaction() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "select pg_sleep(1)")]);
    ends_on_a_dead_link_at("pg_sleep", &database, &folder);
}

#[test]
fn a_signal_ends_the_run_in_time_if_the_network_died_while_blockers_were_queried() {
    let database = Database::fresh();
    database.execute("create table t ()");
    let mut holder = database.holding("lock table t");
    let folder = Folder::drizzle0(&[("0000_a", "alter table t add column a int")]);
    ends_on_a_dead_link_at("pg_blocking_pids", &database, &folder);
    holder.batch_execute("rollback").unwrap();
}

/// One connection builds the index, and another holds the lock.
fn ends_on_dead_links_at(message: &'static str) {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    let folder = Folder::drizzle0(&[("0000_a", "create index concurrently t_a on t (a)")]);
    ends_on_a_dead_link_at(message, &database, &folder);
}

#[test]
fn a_signal_ends_the_run_in_time_if_the_network_died_while_a_step_was_recorded_as_started() {
    ends_on_dead_links_at("create index concurrently");
}

#[test]
fn a_signal_ends_the_run_in_time_if_the_network_died_in_a_concurrent_index_build() {
    ends_on_dead_links_at("*/ create index concurrently");
}

/// Otherwise the server logs "unexpected EOF on client connection".
#[test]
fn every_connection_ends_with_a_terminate_message_also_after_a_failure_or_a_signal() {
    for (sql, code) in [
        ("create table t ()", 0),
        ("select 1 / 0", 70),
        ("create index concurrently t_a on t (a)", 70),
        ("select pg_sleep(60)", 143),
    ] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        let (sessions, terminated) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (sessions.clone(), terminated.clone());
        let proxy = Proxy::start(move |message| {
            match (message.from, message.tag) {
                (Side::Client, 0) if message.text.contains("application_name") => {
                    counts.0.fetch_add(1, Ordering::SeqCst);
                }
                (Side::Client, b'X') => {
                    counts.1.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
            Action::Pass
        });
        let running = premigrate(&proxy.to(&database), &folder).start();
        if code == 143 {
            database.wait_for("the migration", SLEEPING);
            running.signal("TERM");
        }
        running.finish().exits(code);
        assert!(sessions.load(Ordering::SeqCst) > 0);
        eventually("Terminate on every connection", || {
            terminated.load(Ordering::SeqCst) == sessions.load(Ordering::SeqCst)
        });
    }
}
