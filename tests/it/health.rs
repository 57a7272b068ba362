//! What a run tells over HTTP while it lasts, and that clients hold nothing up.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use premigrate::apply::lock;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::container;
use crate::harness::{
    Database, Folder, LIMIT, Premigrate, bare, eventually, needs, output_within, premigrate,
};

/// How soon a question has to be answered, however busy the machine is.
const PROMPT: Duration = Duration::from_secs(2);

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Checks that a program gets the port even without SO_REUSEADDR, which the standard library sets.
fn assert_free(port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&address(port).into()).expect("the port is free");
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The status and the body of a page; `None` if nobody listens.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let text = send(port, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    let status = head.split(' ').nth(1).expect(head).parse().expect(head);
    Some((status, body.to_owned()))
}

/// What is answered to this; `None` if nobody listens any more.
fn send(port: u16, request: &[u8]) -> Option<String> {
    let mut stream = TcpStream::connect(address(port)).ok()?;
    stream.set_read_timeout(Some(PROMPT)).unwrap();
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    // As HTTP clients do, it closes the connection once it has everything.
    while !is_whole(&answer) {
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("no answer in {PROMPT:?}")
            }
            Err(_) => return None,
        }
    }
    is_whole(&answer).then(|| String::from_utf8(answer).unwrap())
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split_once("Content-Length: ").expect(head).1;
    body.len() == length.split("\r\n").next().unwrap().parse::<usize>().unwrap()
}

fn ready(port: u16) -> Value {
    let (status, body) = get(port, "/ready").expect("a listener");
    assert_eq!(status, 503);
    serde_json::from_str(&body).expect(&body)
}

/// Waits until the run is in this state.
#[track_caller]
fn wait_until(port: u16, state: &str) -> Value {
    let mut last = Value::Null;
    eventually(&format!("the state {state}"), || {
        if get(port, "/live").is_some() {
            last = ready(port);
        }
        last["state"] == state
    });
    last
}

fn healthy(database: &Database, folder: &Folder, port: u16) -> Premigrate {
    premigrate(database, folder).args(&["--health", &format!("127.0.0.1:{port}")])
}

fn slow(seconds: f64) -> Folder {
    Folder::drizzle0(&[
        ("0000_log", "create table log (what text)"),
        ("0001_slow", &format!("select pg_sleep({seconds})")),
    ])
}

/// Listens on a port without SO_REUSEADDR, says what it has inherited, and ends after its first client,
/// which closes the connection first: otherwise the port would not be free for the next.
const APP: &str = "
import os, socket, sys
listener = socket.socket()
listener.bind(('127.0.0.1', int(sys.argv[1])))
listener.listen()
print(sorted(os.listdir('/proc/self/fd'), key=int), os.listdir('/proc/self/task') == [str(os.getpid())])
print([line for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn')])
sys.stdout.flush()
client, _ = listener.accept()
client.recv(1000)
client.sendall(b'HTTP/1.1 204 No Content\\r\\nContent-Length: 0\\r\\n\\r\\n')
client.recv(1000)
";

fn app(port: u16) -> [String; 4] {
    ["python3", "-c", APP, &port.to_string()].map(str::to_owned)
}

#[test]
fn the_port_answers_during_a_long_migration_and_then_is_the_apps_in_python() {
    needs("Python");
    let database = Database::fresh();
    let (folder, port) = (slow(4.0), free_port());
    let app = app(port);
    let app: Vec<_> = app.iter().map(String::as_str).collect();
    let plain = bare().env("PREMIGRATE_SKIP", "1").arg("--").args(&app).start();
    eventually("the app", || get(port, "/").is_some_and(|(status, _)| status == 204));
    let plain = plain.finish().exits(0).stdout;

    let running = healthy(&database, &folder, port).arg("--").args(&app).start();
    wait_until(port, "applying");
    // A probe asks all the time, as Kubernetes and Docker do.
    let (mut live, mut is_app) = (0, false);
    let mut seen = Value::Null;
    while !is_app {
        match get(port, "/live").map(|(status, _)| status) {
            Some(200) => live += 1,
            Some(204) => is_app = true,
            Some(status) => panic!("{status}"),
            // Between our listener and that of the app.
            None => {}
        }
        if live == 10 {
            seen = ready(port);
            let (status, body) = get(port, "/metrics").unwrap();
            assert_eq!(status, 200);
            for line in ["premigrate_migrations_applied 1", "premigrate_migrations_pending 1"] {
                assert!(body.lines().any(|other| other == line), "{body}");
            }
            assert!(body.contains("\npremigrate_migration_seconds{migration=\"0001_slow\"} "));
            assert_eq!(get(port, "/").unwrap().0, 503);
            live += 1;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert!(live > 20, "{live}");
    assert_eq!(
        ["state", "migration", "step", "step_count", "applied", "pending", "retries", "blocker"]
            .map(|field| seen[field].to_string()),
        ["\"applying\"", "\"0001_slow\"", "1", "1", "1", "1", "0", "null"]
    );
    assert!(seen["migration_for_ms"].as_u64().is_some_and(|time| time < 4000), "{seen}");
    // Nothing is left: no descriptor, no thread, no blocked signal.
    assert_eq!(running.finish().exits(0).stdout, plain);
    assert_eq!(database.leftovers(), [""; 0]);
}

#[test]
fn the_reason_of_each_wait_is_told() {
    let database = Database::fresh();
    let (folder, port) = (slow(0.0), free_port());

    let nobody = database.at(with_port(&database, free_port()));
    let running = healthy(&nobody, &folder, port).start();
    let ready = wait_until(port, "waiting_for_database");
    let message = ready["attempts"][0]["message"].as_str().unwrap();
    assert!(message.to_lowercase().contains("refused"), "{ready}");
    let (_, metrics) = get(port, "/metrics").unwrap();
    assert!(metrics.contains("\npremigrate_waiting{for=\"database\"} 1\n"), "{metrics}");
    running.end_by("TERM").exits(143);
    assert_eq!(get(port, "/live"), None);

    let mut holder = database.holding(&lock::take_sql());
    let running = healthy(&database, &folder, port).start();
    let ready = wait_until(port, "waiting_for_runner");
    assert!(ready["holder"]["pid"].is_string(), "{ready}");
    // It stays so while the run looks again and again.
    let pause = Instant::now() + Duration::from_secs(6);
    while Instant::now() < pause {
        assert_eq!(self::ready(port)["state"], "waiting_for_runner");
        thread::sleep(Duration::from_millis(5));
    }
    holder.batch_execute("rollback; begin; create table log (); lock table log").unwrap();
    let ready = wait_until(port, "applying");
    assert_eq!((&ready["migration"], &ready["pending"]), (&"0000_log".into(), &2.into()));
    eventually("the blocker", || self::ready(port)["blocker"]["pid"].is_string());
    let ready = wait_until(port, "retrying");
    assert_eq!((&ready["reason"], &ready["attempt"]), (&"lock".into(), &2.into()));
    assert_eq!(ready["blocker"]["query"], Value::Null, "{ready}");
    holder.batch_execute("rollback").unwrap();
    running.finish().exits(0);
    assert_eq!(get(port, "/live"), None);
}

/// The database's URL with another port.
fn with_port(database: &Database, port: u16) -> String {
    database.through(port).url
}

#[test]
fn a_wait_tells_what_it_waits_for() {
    let database = Database::fresh();
    let (folder, port) = (slow(0.0), free_port());
    let address = format!("127.0.0.1:{port}");
    let waiting = premigrate(&database, &folder).args(&["wait", "--health", &address]).start();
    let ready = wait_until(port, "waiting_for_migrations");
    assert_eq!(ready["migrations"], serde_json::json!(["0000_log", "0001_slow"]));
    premigrate(&database, &folder).run().exits(0);
    waiting.finish().exits(0).says(&["up to date, 2 applied"]);
    assert_eq!(get(port, "/live"), None);
}

#[test]
fn a_port_alone_is_that_of_every_address() {
    let database = Database::fresh();
    let (folder, port) = (slow(2.0), free_port());
    let running =
        premigrate(&database, &folder).env("PREMIGRATE_HEALTH", format!(":{port}")).start();
    wait_until(port, "applying");
    // Not where the host has no IPv6.
    if TcpListener::bind("[::1]:0").is_ok() {
        let mut stream = TcpStream::connect(("::1", port)).unwrap();
        stream.write_all(b"GET /live HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    running.finish().exits(0);
}

#[test]
fn an_address_that_cannot_be_listened_on_is_one_error_and_nothing_is_done() {
    let database = Database::fresh();
    let folder = slow(0.0);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = healthy(&database, &folder, port).run().exits(78);
    let expected = format!("cannot listen on 127.0.0.1:{port} for --health (Address");
    assert_eq!(run.says(&[&expected]).stderr.lines().count(), 1);
    let run = premigrate(&database, &folder).args(&["--health", &format!(":{port}")]).run();
    run.exits(78).says(&[&format!("cannot listen on :{port} for --health (Address")]);
    // An address for documents, which no host has.
    let run = premigrate(&database, &folder).args(&["--health", "192.0.2.1:80"]).run().exits(78);
    run.says(&["cannot listen on 192.0.2.1:80 for --health ("]);
    for wrong in ["localhost:80", "80", ":0", ":65536", "", "127.0.0.1"] {
        let run = premigrate(&database, &folder).args(&["--health", wrong]).run().exits(78);
        let expected = "--health must be :PORT, IP:PORT or [IPV6]:PORT";
        assert_eq!(run.says(&[expected]).stderr.lines().count(), 1);
    }
    for command in ["status", "baseline", "accept", "list", "check", "new"] {
        let run = premigrate(&database, &folder).args(&[command, "--health", ":1"]).run();
        run.exits(64).says(&["--health cannot be used with"]);
    }
    assert_eq!(database.tables(), Vec::<String>::new());
    // What does not take long does not listen.
    healthy(&database, &folder, port).arg("--dry-run").run().exits(0);
    healthy(&database, &folder, port).env("PREMIGRATE_SKIP", "1").run().exits(0);
}

/// A number that the kernel has of a process.
fn status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    let value = line.expect(name).split_whitespace().next().unwrap();
    value.parse().unwrap()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Sends header lines until nobody reads them any more. Returns how many bytes.
fn send_headers(port: u16, limit: usize) -> usize {
    let mut stream = TcpStream::connect(address(port)).unwrap();
    stream.set_write_timeout(Some(PROMPT)).unwrap();
    let line = [b"X: ".as_slice(), &[b'x'; 8000], b"\r\n"].concat();
    let mut sent = stream.write(b"GET /live HTTP/1.1\r\n").unwrap();
    while sent < limit {
        match stream.write(&line) {
            Ok(length) => sent += length,
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn clients_that_are_silent_slow_or_endless_hold_nothing_up() {
    let database = Database::fresh();
    let (folder, port) = (slow(8.0), free_port());
    let started = Instant::now();
    let running = healthy(&database, &folder, port).args(&["--", "echo", "started"]).start();
    wait_until(port, "applying");
    let pid = running.pid();
    let (threads, memory) = (status(pid, "Threads"), status(pid, "VmRSS"));
    // A listener with a thread for each client would have hundreds.
    let check = || {
        assert_eq!(status(pid, "Threads"), threads);
        let grown = status(pid, "VmRSS").saturating_sub(memory);
        assert!(grown < 4096, "{grown} KiB");
        assert!(descriptors(pid) < 100, "{}", descriptors(pid));
        let asked = Instant::now();
        assert_eq!(get(port, "/live").expect("a listener").0, 200);
        assert!(asked.elapsed() < PROMPT);
    };

    let connect = |request: &[u8]| {
        let mut stream = TcpStream::connect(address(port)).unwrap();
        let _ = stream.write_all(request);
        stream
    };
    let silent: Vec<_> = (0..200).map(|_| connect(b"")).collect();
    check();
    let half: Vec<_> = (0..200).map(|_| connect(b"GET /live HTTP/1.1\r\nHost:")).collect();
    check();
    let headers = thread::spawn(move || send_headers(port, 10 << 20));
    check();
    // One byte after the other, and answers that nobody reads.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let Ok(mut stream) = TcpStream::connect(address(port)) else { return };
                    for byte in b"GET /ready HTTP/1.1\r\n".iter().cycle().take(50) {
                        let _ = stream.write_all(&[*byte]);
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            });
        }
        for _ in 0..100 {
            check();
        }
        is_over.store(true, Ordering::SeqCst);
    });
    headers.join().unwrap();
    check();
    for request in [&b"\x16\x03\x01\x02\0\x01\0\x01"[..], b"\0\r\n\r\n", b"GET\r\n\r\n"] {
        assert!(send(port, request).unwrap().starts_with("HTTP/1.1 400 "));
    }
    drop((silent, half));
    let more: Vec<_> = (0..200).map(|_| connect(b"")).collect();
    // They are connected still, and keep neither the app from starting nor the port.
    let run = running.finish().exits(0);
    assert_eq!(run.stdout, "started\n");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    drop(more);
    assert_free(port);
}

#[test]
fn a_client_that_goes_on_after_its_answer_is_sent_away() {
    let database = Database::fresh();
    let (folder, port) = (slow(7.0), free_port());
    let running = healthy(&database, &folder, port).start();
    wait_until(port, "applying");
    let mut stream = TcpStream::connect(address(port)).unwrap();
    let asked = Instant::now();
    stream.write_all(b"HEAD /live HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    // It reads to the end of the stream, as simple clients do.
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("Connection: close\r\n\r\n"), "{answer}");
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    while stream.write_all(b"x").is_ok() {
        assert!(asked.elapsed() < Duration::from_secs(15));
        thread::sleep(Duration::from_millis(50));
    }
    running.finish().exits(0);
}

#[test]
fn signals_end_a_run_that_answers_as_they_end_others() {
    let database = Database::fresh();
    let (folder, port) = (slow(60.0), free_port());
    let running = healthy(&database, &folder, port).start();
    database.wait_for("the slow migration", crate::signals::SLEEPING);
    wait_until(port, "applying");
    let open = TcpStream::connect(address(port)).unwrap();
    running.end_by("TERM").exits(143).says(&["0001_slow", "rolled back"]);
    drop(open);
    assert_free(port);
    assert_eq!(database.leftovers(), [""; 0]);
}

#[test]
#[ignore = "scripts/image builds the image, and runs this"]
fn a_container_answers_from_outside_whatever_its_clients_do_and_then_the_app_has_the_port() {
    let database = Database::fresh();
    let (folder, port) = (slow(20.0), free_port());
    let app = Folder::drizzle0(&[("0000_app", "select pg_sleep(5)")]);
    let volume = |folder: &Folder, to| format!("{}:{to}:ro", folder.path.display());
    let (ours, apps) = (volume(&folder, "/ours"), volume(&app, "/apps"));
    let address = format!("127.0.0.1:{port}");
    let mut command = container::run("premigrate", &["--volume", &ours, "--volume", &apps]);
    // The image has no other program that listens.
    command
        .args(["--dir", "/ours", "--health", &address, "--", "/premigrate"])
        .args(["--dir", "/apps", "--health", &address, "--table", "of_app"])
        .env("DATABASE_URL", &database.url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until(port, "applying");
    eventually("the slow migration", || ready(port)["migration"] == "0001_slow");
    let begun = Instant::now();
    let state = ready(port);
    assert_eq!((&state["state"], &state["step"]), (&"applying".into(), &1.into()));

    let connect = |request: &[u8]| {
        let mut stream = TcpStream::connect(self::address(port)).unwrap();
        let _ = stream.write_all(request);
        stream
    };
    let mut clients: Vec<_> = (0..200).map(|_| connect(b"")).collect();
    clients.extend((0..200).map(|_| connect(b"GET /live HTTP/1.1\r\nHost:")));
    let headers = thread::spawn(move || send_headers(port, 10 << 20));
    let mut probes = 0;
    let switched = loop {
        // A startup probe: between the two listeners, it is refused.
        let asked = Instant::now();
        let is_live = get(port, "/live").inspect(|(status, _)| assert_eq!(*status, 200)).is_some();
        assert!(asked.elapsed() < PROMPT);
        probes += 1;
        if is_live && get(port, "/ready").is_some_and(|(_, body)| body.contains("0000_app")) {
            break begun.elapsed();
        }
        assert!(begun.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(100));
    };
    assert!((18..30).contains(&switched.as_secs()) && probes > 50, "{switched:?}, {probes}");
    headers.join().unwrap();
    let output = output_within(LIMIT, child);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(database.rows("select count(*) from drizzle.of_app"), ["1"]);
}
