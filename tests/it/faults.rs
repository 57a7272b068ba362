//! Faults by the thousand, chosen by seeds: `scripts/faults` runs them. After each, a plain run ends
//! with schema, data and history as if there had been no fault, and nothing is left.
//!
//! A trial is one seed. Its faults come at messages of the protocol, so a seed repeats them as far as
//! the scheduler lets it. `docs/reliability.md` has the figures.

mod fault;
mod folder;
mod place;
pub mod state;
mod summary;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use expect_test::expect;

use crate::harness::{Database, premigrate, server, with_database};
use crate::proxy::Side;

use fault::{Fault, KINDS, Kind, Route, Spot, Trial};
use place::{Outcome, Place, Undisturbed};
use state::{difference, leftovers, state};
use summary::Summary;

/// How many trials take place at the same time: most of one is waiting.
const PLACES: usize = 6;

#[test]
#[ignore = "scripts/faults runs this"]
fn whatever_happens_a_plain_run_leaves_all_as_it_has_to_be() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed: u64 = setting("FAULTS_SEED").expect("scripts/faults sets FAULTS_SEED");
    let count: u64 = setting("FAULTS_COUNT").unwrap_or(u64::MAX);
    let minutes: u64 = setting("FAULTS_MINUTES").unwrap_or(u64::MAX / 60);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join("faults");
    std::fs::create_dir_all(&folder).expect("a folder");
    let log = Mutex::new(File::create(folder.join("log")).expect("a log"));

    let started = Instant::now();
    let is_late = || started.elapsed() > Duration::from_secs(minutes * 60);
    let mut first = Place::new();
    let (direct, pooled) = (first.undisturbed(false), first.undisturbed(true));
    let of = |route: Route| if route.is_pooled() { &pooled } else { &direct };
    let kinds = kinds(first.has_disk());
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    let work = |mut place: Place| {
        while !is_over.load(Ordering::SeqCst) && !is_late() {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= count {
                return;
            }
            let trial = Trial::of(seed + number, &kinds, |route| of(route).spots.clone());
            let outcome = endure(&mut place, &trial, of(trial.route));
            let line = summary::line(&trial, &outcome);
            writeln!(log.lock().expect("the log"), "{line}").expect("the log");
            let mut summary = summary.lock().expect("the summary");
            summary.add(&outcome);
            if outcome.wrong.is_some() {
                is_over.store(true, Ordering::SeqCst);
                summary.wrong.push((trial, outcome));
                return;
            }
        }
    };
    let places = PLACES.min(usize::try_from(count).unwrap_or(PLACES));
    thread::scope(|scope| {
        scope.spawn(|| work(first));
        for _ in 1..places {
            scope.spawn(|| work(Place::new()));
        }
    });
    let summary = summary.into_inner().expect("the summary");
    let text = summary.text(seed, started.elapsed(), kinds.len() < KINDS.len());
    std::fs::write(folder.join("summary.md"), &text).expect("the summary");
    println!("{text}");
    assert!(summary.wrong.is_empty(), "{}", summary.failures());
}

/// All of which this machine is able.
fn kinds(has_disk: bool) -> Vec<Kind> {
    KINDS.iter().copied().filter(|&kind| has_disk || kind != Kind::DiskFull).collect()
}

/// The same, where a run that does not end, for example, is a difference too.
fn endure(place: &mut Place, trial: &Trial, undisturbed: &Undisturbed) -> Outcome {
    let endured = std::panic::AssertUnwindSafe(|| place.endure(trial, undisturbed));
    std::panic::catch_unwind(endured).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let wrong = text.unwrap_or_else(|| "the trial panicked; see above".to_owned());
        Outcome { wrong: Some(wrong), ..Outcome::default() }
    })
}

/// Messages of two connections.
fn spots() -> Vec<Spot> {
    let of = |connection, from| {
        (0..50).map(move |place| Spot { connection, from, place, length: 10 + place })
    };
    let first = of(0, Side::Client).chain(of(0, Side::Server));
    first.chain(of(1, Side::Client)).chain(of(1, Side::Server)).collect()
}

#[test]
fn a_seed_stands_for_the_same_faults_each_time_and_all_kinds_have_their_turns() {
    let trials = |seeds: std::ops::Range<u64>| -> Vec<Trial> {
        seeds.map(|seed| Trial::of(seed, &KINDS, |_| spots())).collect()
    };
    let all = trials(0..1700);
    assert_eq!(all[40..50], trials(40..50));
    for kind in KINDS {
        let first = all.iter().filter(|trial| trial.faults[0].kind == kind);
        assert_eq!(first.count(), 100, "{kind:?}");
    }
    let faults: Vec<Fault> = all.iter().flat_map(|trial| trial.faults.clone()).collect();
    for connection in [0, 1] {
        for from in [Side::Client, Side::Server] {
            let is_there =
                |fault: &&Fault| (fault.spot.connection, fault.spot.from) == (connection, from);
            let there: Vec<_> = faults.iter().filter(is_there).collect();
            let share = there.len() * 100 / faults.len();
            assert!((20..30).contains(&share), "{share} % in {connection} {from:?}");
            for place in 0..50 {
                assert!(there.iter().any(|fault| fault.spot.place == place), "{place}");
            }
        }
    }
    assert!(all.iter().all(|trial| {
        let restarts = trial.faults.iter().any(|fault| fault.kind == Kind::PoolerRestarted);
        !restarts || trial.route.is_pooled()
    }));
}

#[test]
fn what_is_doubled_missing_changed_or_left_is_noticed() {
    let database = Database::fresh();
    let role = folder::ROLE;
    database.execute(&format!(
        "do $$ begin create role {role}; exception when duplicate_object then null; end $$"
    ));
    let folder = folder::every_kind(false);
    premigrate(&database, &folder).run().exits(0);
    let expected = state(&database);
    let mut noticed = String::new();
    for sql in [
        "select 'nothing'",
        "insert into log values ('plain')",
        "update counters set n = n + 1",
        "delete from moods where mood = 'ok'",
        "alter table items alter price set default 2",
        "update pg_index set indisvalid = false where indexrelid = 'few_slowly'::regclass",
        "drop index few_n_idx",
        "alter table owned owner to postgres",
        "alter type mood rename value 'fine' to 'finer'",
        "delete from drizzle.__drizzle_migrations where id = 3",
        "insert into drizzle.__drizzle_migrations (hash, created_at) values ('', 0)",
        "create table drizzle.__drizzle_migrations_progress (a int)",
    ] {
        let copy = crate::harness::unique("copy");
        let create = format!("create database {copy} template {}", database.name);
        let server = Database::named("", server());
        server.execute(&create);
        let copy = Database::named(&copy, with_database(&server.url, &copy));
        copy.execute(sql);
        let difference = difference(&expected, &state(&copy));
        noticed += &format!("{sql}\n{}\n", difference.unwrap_or_default());
    }
    expect![[r#"
        select 'nothing'

        insert into log values ('plain')
        - log|21|a0e8670f7f913409bb944d0573e92b19
        + log|22|02836398770b64481b25f798a7ac913f

        update counters set n = n + 1
        - counters|1|f66aecc9d1b4615b8a6797d0aad0dfe2
        + counters|1|08a743aa9778ea0d2ca191cf5c75b445

        delete from moods where mood = 'ok'
        - moods|6|f943f410bc2c63dc60256cf099808231
        + moods|5|0c3c38e5e602450aa2b3c643d32e8a49

        alter table items alter price set default 2
        -     price integer DEFAULT 1 NOT NULL
        +     price integer DEFAULT 2 NOT NULL

        update pg_index set indisvalid = false where indexrelid = 'few_slowly'::regclass
        - CREATE INDEX few_slowly ON public.few USING btree (public.slowly(n));
        + invalid index|few_slowly

        drop index few_n_idx
        - CREATE INDEX few_n_idx ON public.few USING btree (n);

        alter table owned owner to postgres
        - ALTER TABLE public.owned OWNER TO faults_owner;
        + ALTER TABLE public.owned OWNER TO postgres;

        alter type mood rename value 'fine' to 'finer'
        -     'fine'
        - moods|6|f943f410bc2c63dc60256cf099808231
        +     'finer'
        + moods|6|f5c60ef864e0096ddec7003ac31ee7e1

        delete from drizzle.__drizzle_migrations where id = 3
        - history|125c7aae2909a8d245ba31720e1a40b5ddc646fb94927fb50d9cef5b0afa5686|1700000002000

        insert into drizzle.__drizzle_migrations (hash, created_at) values ('', 0)
        + history||0

        create table drizzle.__drizzle_migrations_progress (a int)
        + CREATE TABLE drizzle.__drizzle_migrations_progress (
        +     a integer
        + ALTER TABLE drizzle.__drizzle_migrations_progress OWNER TO postgres;
        + );
        + drizzle.__drizzle_migrations_progress|0|

    "#]]
    .assert_eq(&noticed);
}

#[test]
fn a_session_or_a_lock_that_is_left_is_noticed() {
    let database = Database::fresh();
    let left = |is_pooled| leftovers(&database, is_pooled, Duration::from_millis(500));
    assert_eq!(left(false), [""; 0]);
    let mut client = database.client();
    client.batch_execute("set application_name = 'premigrate'; begin; select 1").unwrap();
    let found = left(true);
    assert!(found.len() == 1 && found[0].contains("idle in transaction"), "{found:?}");
    client.batch_execute("commit; select pg_advisory_lock(1)").unwrap();
    let found = left(true);
    assert!(found.len() == 1 && found[0].starts_with("advisory lock"), "{found:?}");
    client.batch_execute("select pg_advisory_unlock_all()").unwrap();
    // A pooler keeps such a session.
    assert_eq!(left(true), [""; 0]);
    assert_eq!(left(false).len(), 1);
}

#[test]
fn a_row_that_is_written_twice_during_a_run_makes_the_trial_fail() {
    let mut place = Place::new();
    let undisturbed = place.undisturbed(false);
    let last = undisturbed.spots.iter().rfind(|spot| spot.connection == 0);
    let trial = |kind| {
        let mut trial = Trial::of(0, &[kind], |_| vec![*last.expect("a message")]);
        trial.route = Route::Direct;
        trial.faults.truncate(1);
        trial
    };
    let outcome = endure(&mut place, &trial(Kind::Delayed), &undisturbed);
    assert_eq!(outcome.wrong, None);
    let outcome = endure(&mut place, &trial(Kind::RowDoubled), &undisturbed);
    let wrong = outcome.wrong.unwrap();
    let (table, _) = wrong.split_once("\nrow doubled").expect(&wrong);
    expect![[r#"
        this is not as after an undisturbed run:
        - log|21|a0e8670f7f913409bb944d0573e92b19
        + log|22|b0db9416835f05736c166107c220b4dd
    "#]]
    .assert_eq(table);
}
