//! A server, a proxy and poolers of its own, in which one trial after the other takes place.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Database, Folder, Run, eventually, premigrate};
use crate::pgbouncer::PgBouncer;
use crate::proxy::{Action, Message, Proxy};
use crate::server::Server;

use super::fault::{End, EndOfSilence, Fault, Kind, Route, Spot, Trial};
use super::folder::{ASKED, ROLE, every_kind};
use super::state::{difference, leftovers, state};

const DISK: usize = 192;
/// The log is not to have the large migration in it, nor recovery to take long.
const SETTINGS: &str = "max_wal_size = 32MB\nmin_wal_size = 8MB\nshared_buffers = 16MB\n\
    log_min_error_statement = panic\nautovacuum = off\n";
/// For a run with whatever befalls it.
const LIMIT: Duration = Duration::from_secs(180);
/// For the server to end what is over.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many runs may ask a person before it is over.
const RUNS: usize = 8;

/// What an undisturbed run is like.
pub struct Undisturbed {
    pub folder: Folder,
    pub state: String,
    pub spots: Vec<Spot>,
}

pub struct Place {
    server: Server,
    database: Database,
    proxy: Proxy,
    watch: Watch,
    poolers: [Option<PgBouncer>; 2],
}

/// What is called at each message.
type Watch = Arc<Mutex<Option<Arc<dyn Fn(&Message) -> Action + Send + Sync>>>>;

/// How a trial went.
#[derive(Default)]
pub struct Outcome {
    /// For each fault whether it came, and how its run ended.
    pub ends: Vec<(Fault, bool, End)>,
    /// How the second runners ended.
    pub beside: Vec<End>,
    /// The statements about which a person was asked, as `ASKED` has them.
    pub asked: Vec<&'static str>,
    /// How often a person was told to drop invalid indexes.
    pub told: usize,
    /// What is not as it has to be.
    pub wrong: Option<String>,
}

impl Place {
    pub fn new() -> Place {
        let server = Server::start_on_disk(DISK, SETTINGS);
        server.database().execute(&format!("create role {ROLE}"));
        server.database().execute("create database faults");
        let database = server.database();
        let url = crate::harness::with_database(&database.url, "faults");
        let database = Database::named("faults", url);
        let watch = Watch::default();
        let called = watch.clone();
        let proxy = Proxy::before(server.port, move |message| {
            let watch = called.lock().expect("the watch").clone();
            watch.map_or(Action::Pass, |watch| watch(message))
        });
        Place { server, database, proxy, watch, poolers: [None, None] }
    }

    pub fn has_disk(&self) -> bool {
        self.server.has_disk()
    }

    /// Runs every migration without a fault.
    pub fn undisturbed(&mut self, is_pooled: bool) -> Undisturbed {
        let folder = every_kind(is_pooled);
        self.empty();
        let through = self.through(if is_pooled { Route::Transaction } else { Route::Direct });
        let spots = Arc::new(Mutex::new(Vec::new()));
        let (seen, base) = (spots.clone(), self.proxy.connections());
        self.watch_with(move |message| {
            let &Message { from, place, length, .. } = message;
            let connection = message.connection.wrapping_sub(base);
            seen.lock().expect("what was seen").push(Spot { connection, from, place, length });
            Action::Pass
        });
        premigrate(&through, &folder).run().exits(0);
        self.unwatch();
        let mut spots = std::mem::take(&mut *spots.lock().expect("what was seen"));
        spots.sort_by_key(|spot| (spot.connection, spot.from as usize, spot.place));
        Undisturbed { folder, state: state(&self.database), spots }
    }

    fn watch_with(&self, watch: impl Fn(&Message) -> Action + Send + Sync + 'static) {
        *self.watch.lock().expect("the watch") = Some(Arc::new(watch));
    }

    fn unwatch(&self) {
        *self.watch.lock().expect("the watch") = None;
    }

    /// Ends what is left of the last trial, and empties the database.
    fn empty(&mut self) {
        let mut client = self.database.client();
        let empty = "select pg_terminate_backend(pid) from pg_stat_activity \
             where datname = current_database() and pid <> pg_backend_pid(); \
             drop schema if exists drizzle cascade; drop schema public cascade; create schema public";
        for sql in empty.split("; ") {
            client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }

    fn pooler(&mut self, route: Route) -> Option<&mut PgBouncer> {
        let (number, mode) = match route {
            Route::Direct => return None,
            Route::Transaction => (0, "transaction"),
            Route::Session => (1, "session"),
        };
        let port = self.server.port;
        let settings =
            format!("pool_mode = {mode}\ndefault_pool_size = 20\nserver_login_retry = 0.2");
        Some(self.poolers[number].get_or_insert_with(|| PgBouncer::before(port, &settings)))
    }

    /// The database by a route, without the proxy.
    fn routed(&mut self, route: Route) -> Database {
        let server = self.server.port;
        let port = self.pooler(route).map_or(server, |pooler| pooler.port);
        self.database.through(port)
    }

    /// The database by a route, through the proxy.
    fn through(&mut self, route: Route) -> Database {
        let server = self.server.port;
        let port = self.pooler(route).map_or(server, |pooler| pooler.port);
        self.proxy.lead_to(port);
        self.proxy.to(&self.database)
    }

    /// Lets the faults come, and then runs until nothing is left to do. Whatever happened, all is as
    /// after an undisturbed run.
    pub fn endure(&mut self, trial: &Trial, undisturbed: &Undisturbed) -> Outcome {
        self.empty();
        let mut outcome = Outcome::default();
        let mut story = String::new();
        let wrong = self.endure_faults(trial, undisturbed, &mut outcome, &mut story);
        outcome.wrong = wrong.err().map(|wrong| format!("{wrong}\n{story}"));
        outcome
    }

    fn endure_faults(
        &mut self,
        trial: &Trial,
        undisturbed: &Undisturbed,
        outcome: &mut Outcome,
        story: &mut String,
    ) -> Result<(), String> {
        let folder = &undisturbed.folder;
        let mut drops = Vec::new();
        let mut standby = None;
        let mut was_complete = false;
        for fault in &trial.faults {
            if fault.kind == Kind::FailedOver {
                standby = Some(self.server.standby());
            }
            let struck = self.strike(trial.route, *fault, folder, standby.as_ref());
            for (run, is_victim) in struck.runs() {
                let end = end_of(run);
                story.push_str(&format!("{fault} -> {end}\n{}", run.stderr));
                drops.extend(to_drop(run));
                let is_explained = match is_victim {
                    true => fault.explains(&end),
                    false => fault.explains_of_server(&end),
                };
                // A standby may lack what the server had confirmed.
                was_complete |= end.code == 0 && fault.kind != Kind::FailedOver;
                let asked = self.heal(run, standby.as_ref())?;
                outcome.asked.extend(asked);
                match is_victim {
                    true => outcome.ends.push((*fault, struck.came, end.clone())),
                    false => outcome.beside.push(end.clone()),
                }
                if end.code != 0 && asked.is_none() && !is_explained {
                    return Err(format!("the fault does not explain this end: {end}"));
                }
            }
            if was_complete {
                break;
            }
        }
        // Plain runs, as many as ask a person and one more.
        let database = match &standby {
            Some(standby) => self.database.through(standby.port),
            None => self.routed(trial.route),
        };
        for number in 0..RUNS {
            let run = premigrate(&database, folder).args(&["--format", "json"]).start();
            let run = run.finish_within(LIMIT);
            let end = end_of(&run);
            story.push_str(&format!("run {number} without a fault -> {end}\n{}", run.stderr));
            drops.extend(to_drop(&run));
            let asked = self.heal(&run, standby.as_ref())?;
            outcome.asked.extend(asked);
            if end.code == 0 {
                if was_complete && run.stderr.contains(r#""event":"applied""#) {
                    return Err("a run that ended with 0 had left something pending".to_owned());
                }
                break;
            }
            if asked.is_none() {
                return Err(format!("a run without a fault ends with {end}"));
            }
        }
        outcome.told = drops.len();
        let server = standby.as_ref().unwrap_or(&self.server);
        let database = self.database.through(server.port);
        for sql in drops {
            // It may be gone: the rest of the migrations may have run the statement again.
            database.execute(&sql.replace("concurrently ", "if exists "));
        }
        let left = leftovers(&database, trial.route.is_pooled(), PATIENCE);
        if !left.is_empty() {
            return Err(format!("this is left: {left:#?}"));
        }
        let difference = difference(&undisturbed.state, &state(&database));
        if self.server.is_down() {
            // The standby has replaced it for this trial.
            self.server.up();
        }
        match difference {
            Some(lines) => Err(format!("this is not as after an undisturbed run:\n{lines}")),
            None => Ok(()),
        }
    }

    /// Runs once, with a fault.
    fn strike(
        &mut self,
        route: Route,
        fault: Fault,
        folder: &Folder,
        standby: Option<&Server>,
    ) -> Struck {
        let through = self.through(route);
        self.proxy.end_holes(false);
        let (came, struck) = channel();
        let (go_on, may_go_on) = channel();
        self.watch_with(at(fault, self.proxy.connections(), came, may_go_on));
        let start = |database| premigrate(database, folder).args(&["--format", "json"]).start();
        let running = start(&through);
        let victim = Pid::from_raw(running.pid().cast_signed());
        let is_over = AtomicBool::new(false);
        let (run, (second, did_come)) = thread::scope(|scope| {
            let (place, is_over, start, through) = (&mut *self, &is_over, &start, &through);
            let striker = scope.spawn(move || {
                // Until the message, or the end.
                loop {
                    match struck.recv_timeout(Duration::from_millis(20)) {
                        Ok(()) => break,
                        Err(_) if is_over.load(Ordering::SeqCst) => return (None, false),
                        Err(_) => {}
                    }
                }
                thread::sleep(fault.later);
                let second = fault.is_crowded.then(|| start(through));
                place.damage(route, fault, victim, standby, go_on);
                (second, true)
            });
            let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                running.finish_within(LIMIT)
            }));
            is_over.store(true, Ordering::SeqCst);
            (run, striker.join().expect("the fault is done"))
        });
        self.unwatch();
        self.proxy.end_holes(true);
        let second = second.map(|second| second.finish_within(LIMIT));
        let run = run.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Struck { came: did_come, run, second }
    }

    /// Does the damage, and repairs it after its time. `go_on` lets the message pass.
    fn damage(
        &mut self,
        route: Route,
        fault: Fault,
        victim: Pid,
        standby: Option<&Server>,
        go_on: Sender<()>,
    ) {
        let signal = |name: &str| {
            let signal = format!("SIG{name}").parse::<Signal>().expect("a signal");
            let _ = kill(victim, signal);
        };
        let pause = || {
            let _ = go_on.send(());
            thread::sleep(fault.time);
        };
        match fault.kind {
            Kind::ClientKilled => signal("KILL"),
            Kind::ClientSignalled => signal(fault.signal),
            Kind::ClientSignalledTwice => {
                signal(fault.signal);
                pause();
                signal(fault.signal);
            }
            Kind::ClientFrozen => {
                signal("STOP");
                pause();
                signal("CONT");
            }
            Kind::BlackHole => {
                pause();
                match fault.end_of_silence {
                    EndOfSilence::Reset => {}
                    EndOfSilence::Term => signal("TERM"),
                    EndOfSilence::Kill => signal("KILL"),
                }
            }
            Kind::BackendTerminated | Kind::StatementCancelled | Kind::BackendKilled => {
                self.strike_backend(fault);
            }
            Kind::ServerStopped | Kind::ServerKilled => {
                match fault.kind {
                    Kind::ServerStopped => self.server.down(),
                    _ => self.server.kill(),
                }
                pause();
                self.server.up();
            }
            Kind::FailedOver => {
                let standby = standby.expect("a standby");
                self.server.down();
                self.proxy.lead_to(standby.port);
                pause();
                standby.promote();
            }
            Kind::PoolerRestarted => {
                if let Some(pooler) = self.pooler(route) {
                    let _ = go_on.send(());
                    pooler.restart_after(fault.time);
                }
            }
            Kind::DiskFull => {
                self.server.fill_disk(fault.kilobytes);
                pause();
                self.server.empty_disk();
                // It ends where it cannot write its log.
                if self.server.is_down() {
                    self.server.up();
                }
            }
            Kind::RowDoubled => {
                self.database.execute("insert into log select what from log limit 1");
            }
            Kind::ConnectionClosed | Kind::ConnectionReset | Kind::HalfClosed | Kind::Delayed => {}
        }
        let _ = go_on.send(());
    }

    /// One of the backends that serve premigrate.
    fn strike_backend(&self, fault: Fault) {
        let mut client = self.database.client();
        let sessions = "select pid from pg_stat_activity where datname = current_database() \
             and application_name = 'premigrate' order by backend_start, pid";
        let sessions = crate::harness::rows(&mut client, sessions);
        let Some(pid) = sessions.get(fault.backend % sessions.len().max(1)) else { return };
        match fault.kind {
            Kind::BackendTerminated => {
                let _ = client.batch_execute(&format!("select pg_terminate_backend({pid})"));
            }
            Kind::StatementCancelled => {
                let _ = client.batch_execute(&format!("select pg_cancel_backend({pid})"));
            }
            _ => {
                let _ = kill(Pid::from_raw(pid.parse().expect("a number")), Signal::SIGKILL);
                drop(client);
                // The server starts again by itself, once all have ended.
                thread::sleep(Duration::from_millis(50));
                eventually("the server", || postgres_answers(&self.database));
            }
        }
    }

    /// Does what a person would do about the end of a run that asks one. Returns about what it asked.
    fn heal(&self, run: &Run, standby: Option<&Server>) -> Result<Option<&'static str>, String> {
        let Some(end) = last_event(run).filter(|event| event["error"] == "unknown_outcome") else {
            return Ok(None);
        };
        let text = |field: &str| end[field].as_str().unwrap_or_default().to_owned();
        let statement = text("statement");
        let is_it = |begin: &str| statement.to_lowercase().starts_with(begin);
        let Some(asked) = ASKED.iter().find(|asked| is_it(asked.statement)) else {
            return Err(format!("a person is asked about {statement}"));
        };
        let port = standby.map_or(self.server.port, |standby| standby.port);
        let database = self.database.through(port);
        if database.rows(asked.is_done).is_empty() {
            database.execute(asked.undo);
            database.execute(&text("sql_to_run_again"));
        } else {
            database.execute(&text("sql_if_done"));
        }
        Ok(Some(asked.statement))
    }
}

/// A run with a fault, and the one beside it.
struct Struck {
    came: bool,
    run: Run,
    second: Option<Run>,
}

impl Struck {
    /// Each with whether it is the one that was struck.
    fn runs(&self) -> impl Iterator<Item = (&Run, bool)> {
        std::iter::once((&self.run, true)).chain(self.second.iter().map(|run| (run, false)))
    }
}

/// What the proxy does at each message: at the fault's, what the fault says.
fn at(
    fault: Fault,
    first_connection: usize,
    came: Sender<()>,
    may_go_on: Receiver<()>,
) -> impl Fn(&Message) -> Action + Send + Sync + 'static {
    let (came, may_go_on) = (Mutex::new(came), Mutex::new(may_go_on));
    let is_done = AtomicBool::new(false);
    move |message| {
        let Spot { connection, from, place, .. } = fault.spot;
        let is_here = message.connection.checked_sub(first_connection) == Some(connection)
            && (message.from, message.place) == (from, place);
        if !is_here || is_done.swap(true, Ordering::SeqCst) {
            return Action::Pass;
        }
        let _ = came.lock().expect("the striker").send(());
        if let Some(how) = fault.of_connection() {
            return Action::Break(fault.bytes, how);
        }
        if fault.later.is_zero() {
            // Until the damage is done; what it takes, such as a server that stops, takes a while.
            let patience = Duration::from_secs(30);
            let _ = may_go_on.lock().expect("the striker").recv_timeout(patience);
        }
        Action::Pass
    }
}

fn end_of(run: &Run) -> End {
    let error = last_event(run).and_then(|event| event["error"].as_str().map(str::to_owned));
    End { code: run.code, error: error.unwrap_or_default() }
}

/// The last line of a run that was killed may be cut.
fn events(run: &Run) -> impl DoubleEndedIterator<Item = serde_json::Value> {
    run.stderr.lines().filter_map(|line| serde_json::from_str(line).ok())
}

fn last_event(run: &Run) -> Option<serde_json::Value> {
    events(run).next_back()
}

/// The statements that a run has told a person to drop invalid indexes with.
fn to_drop(run: &Run) -> Vec<String> {
    let told = events(run).filter(|event| event["event"] == "invalid_indexes");
    let sql: Vec<String> =
        told.filter_map(|event| event["sql"].as_str().map(str::to_owned)).collect();
    sql.iter().flat_map(|sql| sql.split_inclusive(';')).map(|sql| sql.trim().to_owned()).collect()
}

fn postgres_answers(database: &Database) -> bool {
    postgres::Client::connect(&database.url, postgres::NoTls).is_ok()
}
