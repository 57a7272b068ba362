//! A network that dies, and a server that talks without end, while migrations run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Database, Folder, Running, eventually, premigrate, server_port};
use crate::proxy::{Action, Proxy};
use crate::signals::SLEEPING;

/// The most memory that the process had, in kB.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[test]
fn notices_without_end_do_not_fill_the_memory() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[(
        "0000_loud",
        "do $$ begin for i in 1..200000 loop raise notice '% %', i, repeat('x', 2000); end loop; \
         end $$",
    )]);
    let running = premigrate(&database, &folder).start();
    let (pid, mut most) = (running.pid(), 0);
    while let Some(now) = peak(pid) {
        most = most.max(now);
        std::thread::sleep(Duration::from_millis(20));
    }
    running.finish().exits(0).says(&["applied 0000_loud"]);
    // 400 MB of notices came.
    assert!(most > 0 && most < 64_000, "{most} kB");
}

/// An end of a connection in this machine, and the timer that runs there: its kind, and in how many
/// hundredths of a second it runs out.
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

/// The ends of the process's connections to the server: its own, and the server's.
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

/// Whether the kernel asks the other side after so long a silence whether it is still there.
fn asks_after(end: &End, seconds: u64) -> bool {
    let (kind, when) = end.timer;
    // Some of it may have passed; a retransmission has another kind.
    kind == 2 && when <= seconds * 100 + 10
}

/// The whole of it, packets that are dropped, is shown by scripts/names: it needs a network of its
/// own.
#[test]
fn the_connection_asks_after_three_seconds_of_silence_whether_the_server_is_still_there() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "select pg_sleep(60)")]);
    let running = premigrate(&database, &folder).start();
    database.wait_for("the migration", SLEEPING);
    // What was sent is acknowledged after a moment; until then another timer runs.
    eventually("the keepalive timer", || {
        connections(&running).iter().any(|(ours, _)| asks_after(ours, 3))
    });
    running.end_by("TERM").exits(143);
}

/// Where our host dies, nobody tells the server; the default is two hours.
#[test]
fn the_server_asks_after_fifteen_seconds_of_silence_whether_we_are_still_there() {
    for (sql, count) in [
        ("insert into t values (1);\nselect pg_sleep(60)", 1),
        // The one that builds, and the one that holds the lock.
        ("create index concurrently t_a on t (a)", 2),
    ] {
        let database = Database::fresh();
        database.execute("create table t (a int)");
        let mut other = database.holding("insert into t values (0)");
        let folder = Folder::drizzle0(&[("0000_a", sql)]);
        let running = premigrate(&database, &folder).start();
        eventually("the server's keepalive timers", || {
            let asking =
                connections(&running).iter().filter(|(_, its)| asks_after(its, 15)).count();
            asking == count
        });
        running.signal("TERM");
        running.finish().exits(143);
        other.batch_execute("rollback").unwrap();
    }
}

/// A signal comes when this message is on its way, and from then on nothing arrives any more, on no
/// connection.
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
fn a_signal_ends_us_in_time_on_a_link_that_died_in_a_transaction() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "select pg_sleep(1)")]);
    ends_on_a_dead_link_at("pg_sleep", &database, &folder);
}

#[test]
fn a_signal_ends_us_in_time_on_a_link_that_died_while_we_looked_who_is_in_the_way() {
    let database = Database::fresh();
    database.execute("create table t ()");
    let mut holder = database.holding("lock table t");
    let folder = Folder::drizzle0(&[("0000_a", "alter table t add column a int")]);
    ends_on_a_dead_link_at("pg_blocking_pids", &database, &folder);
    holder.batch_execute("rollback").unwrap();
}

/// One connection builds the index, and another holds the lock meanwhile.
fn ends_on_dead_links_at(message: &'static str) {
    let database = Database::fresh();
    database.execute("create table t (a int)");
    let folder = Folder::drizzle0(&[("0000_a", "create index concurrently t_a on t (a)")]);
    ends_on_a_dead_link_at(message, &database, &folder);
}

#[test]
fn a_signal_ends_us_in_time_on_links_that_died_while_we_wrote_that_an_index_is_begun() {
    ends_on_dead_links_at("create index concurrently");
}

#[test]
fn a_signal_ends_us_in_time_on_links_that_died_in_a_concurrent_index() {
    ends_on_dead_links_at("*/ create index concurrently");
}
