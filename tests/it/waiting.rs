//! Waiting for the database: temporary errors are retried, final ones end the run at once.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use expect_test::expect;

use crate::harness::{Database, Folder, Premigrate, bare, premigrate, unique};
use crate::proxy::{Action, Proxy, Side};

pub fn folder() -> Folder {
    Folder::drizzle0(&[("0000_a", "create table a (id int)")])
}

/// Starts a server that handles each connection so; returns its port.
pub fn server(act: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let act = std::sync::Arc::new(act);
        for (number, client) in listener.incoming().enumerate() {
            let act = act.clone();
            thread::spawn(move || act(client.unwrap(), number));
        }
    });
    port
}

pub fn at(port: u16, folder: &Folder) -> Premigrate {
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
    bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path)
}

/// Keeps a connection open, and says nothing, until the other side closes it.
pub fn keep_silent(mut client: TcpStream) {
    let _ = std::io::copy(&mut client, &mut std::io::sink());
}

/// Reads a startup message, and answers with an error.
pub fn refuse(mut client: TcpStream, code: &str, message: &str) {
    let mut startup = [0; 1024];
    let _ = client.read(&mut startup);
    let mut fields = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message)] {
        fields.push(field);
        fields.extend_from_slice(value.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap();
    let _ = client.write_all(&[b"E", &length.to_be_bytes()[..], &fields].concat());
}

/// Half of the time that the database is waited for by default.
const NOT_WAITED: Duration = Duration::from_secs(30);

/// Less than a connection may take by default, which is ten seconds.
const WITHIN_LIMIT: Duration = Duration::from_secs(8);

fn waiting_lines(stderr: &str) -> usize {
    stderr.matches("waiting up to").count()
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let database = Database::fresh();
    let folder = folder();
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let through = database.through(address.port());
    let url = format!("{}?sslmode=disable", through.url);
    let running = premigrate(&through.at(url), &folder).start();
    running.wait_to_say("refused");
    let _proxy = Proxy::listening(TcpListener::bind(address).unwrap(), |_| Action::Pass);
    let run = running.finish().exits(0).says(&["refused", "applied 0000_a"]);
    assert_eq!(waiting_lines(&run.stderr), 1, "{}", run.stderr);
}

#[test]
fn a_reason_is_reported_once_and_again_when_it_changes() {
    let folder = folder();
    let port = server(|client, number| {
        let message = if number < 3 {
            "the database system is starting up"
        } else {
            "the database system is not yet accepting connections"
        };
        refuse(client, "57P03", message);
    });
    let run = at(port, &folder).args(&["--wait", "3s"]).run().exits(69);
    let run = run.stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: the database system is starting up (57P03)
        premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: the database system is not yet accepting connections (57P03)
        premigrate: could not connect to the database: 127.0.0.1:PORT: the database system is not yet accepting connections (57P03)
    "#]]);
    assert_eq!(waiting_lines(&run.stderr), 2, "{}", run.stderr);
    assert!(run.took >= Duration::from_secs(3), "{:?}", run.took);
}

#[test]
fn a_wait_that_goes_on_is_told_again_after_ten_seconds() {
    let port = server(|client, _| refuse(client, "57P03", "the database system is starting up"));
    let run = at(port, &folder()).args(&["--wait", "12s"]).run().exits(69);
    assert_eq!(waiting_lines(&run.stderr), 2, "{}", run.stderr);
}

#[test]
fn a_server_that_is_full_or_going_down_is_waited_for() {
    for (code, message) in [
        ("53300", "sorry, too many clients already"),
        ("57P01", "terminating connection due to administrator command"),
        ("08P01", "server login failed: FATAL the database system is starting up"),
    ] {
        let folder = folder();
        let port = server(move |client, _| refuse(client, code, message));
        let limits = ["--wait", "500ms", "--runner-wait", "500ms"];
        let run = at(port, &folder).args(&limits).run().exits(69).says(&[message]);
        assert!(run.took >= Duration::from_millis(500), "{code} {:?}", run.took);
    }
}

#[test]
fn a_name_that_is_not_resolved_yet_is_waited_for() {
    let folder = folder();
    let url = "postgres://u@no-such-host.invalid/d";
    bare()
        .env("DATABASE_URL", url)
        .arg("--dir")
        .arg(&folder.path)
        .args(&["--wait", "1s"])
        .run()
        .exits(69)
        .says(&["no-such-host.invalid:5432", "could not resolve the host name", "waiting up to"]);
}

#[test]
fn a_connection_that_is_closed_or_reset_is_tried_again() {
    let folder = folder();
    let reset = server(|client, _| {
        // A connection that is closed with unread data is reset.
        thread::sleep(Duration::from_millis(50));
        drop(client);
    });
    let closed = server(|mut client, _| {
        let _ = client.read(&mut [0; 1024]);
    });
    for port in [reset, closed] {
        let run = at(port, &folder).args(&["--wait", "700ms"]).run().exits(69);
        assert!(run.took >= Duration::from_millis(700), "{:?}\n{}", run.took, run.stderr);
        assert!(waiting_lines(&run.stderr) > 0, "{}", run.stderr);
    }
}

#[test]
fn a_server_that_accepts_and_does_not_answer_does_not_exceed_the_limit() {
    let silent = || server(|client, _| keep_silent(client));
    let folder = folder();
    for sslmode in ["disable", "prefer", "require"] {
        let url = format!("postgres://u@127.0.0.1:{}/d?sslmode={sslmode}", silent());
        let run = bare()
            .env("DATABASE_URL", url)
            .arg("--dir")
            .arg(&folder.path)
            .args(&["--wait", "1s"])
            .run()
            .exits(69)
            .says(&["did not answer"]);
        assert!(run.took < WITHIN_LIMIT, "{:?}", run.took);
    }
}

#[test]
fn a_log_in_that_stalls_does_not_exceed_the_limit() {
    let database = Database::fresh();
    let folder = folder();
    for number in 0..4 {
        let proxy = Proxy::start(move |message| match message.from {
            Side::Server if message.number == number => Action::Stall,
            _ => Action::Pass,
        });
        let run = premigrate(&proxy.to(&database), &folder).args(&["--wait", "500ms"]).run();
        let run = run.exits(69);
        assert!(run.took < WITHIN_LIMIT, "{:?}", run.took);
    }
}

#[test]
fn a_peer_that_is_not_a_postgresql_server_ends_the_run() {
    let folder = folder();
    let http = server(|mut client, _| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    let garbage = server(|mut client, _| {
        let _ = client.write_all(&[0xff; 4096]);
        keep_silent(client);
    });
    for port in [http, garbage] {
        for sslmode in ["disable", "prefer", "require"] {
            let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode={sslmode}");
            let run = bare()
                .env("DATABASE_URL", url)
                .arg("--dir")
                .arg(&folder.path)
                .run()
                .exits(69)
                .says(&["is not a PostgreSQL server"]);
            assert!(run.took < NOT_WAITED, "{:?}", run.took);
        }
    }
    // The first byte is a server's.
    let nonsense = server(|mut client, _| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"R\0\0\0\x01nonsense");
        keep_silent(client);
    });
    let run = at(nonsense, &folder).run().exits(69).says(&["the server sent a message of"]);
    assert!(run.took < NOT_WAITED, "{:?}", run.took);
}

#[test]
fn endless_output_before_the_log_in_does_not_fill_the_memory() {
    let folder = folder();
    let port = server(|mut client, _| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"R\0\0\0\x08\0\0\0\0");
        let notice = b"N\0\0\0\x1fSNOTICE\0C00000\0Mon and on\0\0";
        let notices = notice.repeat(1000);
        while client.write_all(&notices).is_ok() {}
    });
    let run = at(port, &folder).run().exits(69).says(&["the server sent more than 1048576 bytes"]);
    assert!(run.took < NOT_WAITED, "{:?}", run.took);
}

#[test]
fn reading_the_history_is_retried_when_a_timeout_of_the_role_cancels_it() {
    let (database, folder) = (Database::fresh(), folder());
    premigrate(&database, &folder).run().exits(0);
    let (role, url) = database.role();
    database.execute(&format!(
        "grant usage on schema drizzle to {role}; grant select on all tables in schema drizzle to {role}"
    ));
    for (limit, code) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        database
            .execute(&format!("alter role {role} reset all; alter role {role} set {limit} = 100"));
        let start = || bare().env("DATABASE_URL", &url).arg("--dir").arg(&folder.path);
        let mut holder = database.client();
        let mut holder = holder.transaction().unwrap();
        holder.batch_execute("lock table drizzle.__drizzle_migrations").unwrap();
        for args in [&["--wait=0"][..], &["--wait=400ms", "--runner-wait=400ms"]] {
            let run = start().args(args).run().exits(75);
            run.says(&["timed out reading the history table", "check whether it is locked"]);
        }
        let waits = start().start();
        waits.wait_to_say(code);
        holder.rollback().unwrap();
        waits.finish().exits(0).says(&["waiting up to", code, "up to date"]);
    }
}

#[test]
fn reading_the_progress_is_retried_when_a_timeout_of_the_role_cancels_it() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "create table t (a int);\ncommit;\nselect 1 / 0")]);
    premigrate(&database, &folder).run().exits(70);
    database.execute(&format!("alter database {} set lock_timeout = 100", database.name));
    let mut holder = database.holding("lock table drizzle.__drizzle_migrations_progress");
    let look = || premigrate(&database, &folder).arg("--dry-run");
    for args in [&["--wait=0"][..], &["--wait=400ms", "--runner-wait=400ms"]] {
        look().args(args).run().exits(75).says(&["timed out reading the history table"]);
    }
    let waits = look().start();
    waits.wait_to_say("55P03");
    holder.batch_execute("rollback").unwrap();
    let run = waits.finish().exits(0).says(&["waiting up to", "55P03"]);
    assert!(run.stdout.contains("1 statement in a transaction, done"), "{}", run.stdout);
}

#[test]
fn a_wrong_password_ends_the_run_at_once() {
    let database = Database::fresh();
    let role = unique("role");
    database.execute(&format!("create role {role} login password 'right' in role with_password"));
    let folder = folder();
    let with = |password: &str| {
        let url = database.url.replace("postgres@", &format!("{role}{password}@"));
        premigrate(&database.at(url), &folder)
    };
    let run = with(":hunter2").run().exits(77).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: could not log in to the database: 127.0.0.1:PORT: password authentication failed for user "ROLE" (28P01)
          hint: correct the password, or set one for the role; in a URL, percent-encode it: %40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %
    "#]]);
    let run = run.does_not_say("hunter2");
    assert!(run.took < NOT_WAITED, "{:?}", run.took);
    let run = with("").run().exits(77).says(&["requires a password, but none was given"]);
    assert!(run.took < NOT_WAITED, "{:?}", run.took);
}

#[test]
fn an_unknown_database_ends_the_run_at_once() {
    let database = Database::named("none", Database::fresh().url + "_not");
    let folder = folder();
    let run = premigrate(&database, &folder).run().exits(77).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: could not log in to the database: 127.0.0.1:PORT: database "DATABASE_not" does not exist (3D000)
          hint: create the database, as `up --create-database` does, or correct its name in the URL; where the URL has no database, it is the name of the user
    "#]]);
    assert!(run.took < NOT_WAITED, "{:?}", run.took);
}

#[test]
fn a_server_without_tls_ends_the_run_at_once_if_tls_is_required() {
    let database = Database::fresh();
    let folder = folder();
    let url = format!("{}?sslmode=require", database.url);
    let run = premigrate(&Database::named("", url), &folder).run();
    let run = run.exits(77).says(&["does not support TLS"]);
    assert!(run.took < NOT_WAITED, "{:?}", run.took);
}

#[test]
fn a_wait_of_zero_is_a_single_attempt() {
    let folder = folder();
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = tries.clone();
    let port = server(move |client, _| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        refuse(client, "57P03", "the database system is starting up");
    });
    let run = at(port, &folder).args(&["--wait", "0"]).run().exits(69).says(&["57P03"]);
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(waiting_lines(&run.stderr), 0);
    premigrate(&Database::fresh(), &folder).args(&["--wait", "0"]).run().exits(0);
}

#[test]
fn the_limit_holds_although_the_pauses_grow() {
    let folder = folder();
    let started = Instant::now();
    at(1, &folder)
        .args(&["--wait", "1500ms"])
        .run()
        .exits(69)
        .says(&["could not connect to the database"]);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1500) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn json_has_an_event_for_each_reason() {
    let folder = folder();
    let port = server(|client, _| refuse(client, "57P03", "the database system is starting up"));
    let run = at(port, &folder).args(&["--wait", "300ms", "--format", "json"]).run().exits(69);
    let events = run.events();
    let waiting = events.iter().find(|event| event["event"] == "waiting").unwrap();
    let attempt = serde_json::json!({
        "stage": "login",
        "host": "127.0.0.1",
        "port": port,
        "address": "127.0.0.1",
        "tls": null,
        "message": "the database system is starting up (57P03)",
        "sqlstate": "57P03",
        "hint": null,
    });
    assert_eq!(waiting["attempts"], serde_json::json!([attempt]));
    assert_eq!(events.last().unwrap()["exit_code"], 69);
}

#[test]
fn a_rejection_by_one_host_is_final_although_another_is_down() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[]);
    let (authority, _) = database.url.rsplit_once('/').unwrap();
    let (scheme, host) = authority.split_once('@').unwrap();
    let url = format!("{scheme}@127.0.0.1:1,{host}/no_such_database");
    let run = bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path);
    let run = run.run().exits(77).says(&["no_such_database"]);
    assert!(run.took < NOT_WAITED, "{:?}", run.took);
}

#[test]
fn a_read_only_server_is_skipped_if_target_session_attrs_excludes_it() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    let role = unique("role");
    database.execute(&format!(
        "create role {role} superuser login; \
         alter role {role} set default_transaction_read_only = on"
    ));
    let url = database.url.replacen("postgres@", &format!("{role}@"), 1);
    let with = |attrs: &str| {
        let url = format!("{url}?target_session_attrs={attrs}");
        let run = bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path);
        run.args(&["--wait", "1s"]).run()
    };
    with("read-write").exits(69).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: the server is read-only, but one that takes writes is required
        premigrate: could not connect to the database: 127.0.0.1:PORT: the server is read-only, but one that takes writes is required
          hint: name the primary in the URL, or remove target_session_attrs if a standby will do
    "#]]);
    with("primary").exits(0);
}
