//! `healthcheck`, against servers of the tests' own, and against a run.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use crate::harness::{Database, Folder, Run, bare, eventually, premigrate};
use crate::health::free_port;

/// A server that gives every client this answer, and its port.
fn server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 1000]);
                for byte in answer {
                    let _ = stream.write_all(&[*byte]);
                }
                if answer.is_empty() {
                    thread::sleep(Duration::from_secs(60));
                }
            });
        }
    });
    port
}

/// Checks without any database.
fn check(url: &str) -> Run {
    bare().args(&["healthcheck", url]).run()
}

#[test]
fn a_page_is_healthy_if_it_answers_with_2xx() {
    for (answer, code, line) in [
        (&b"HTTP/1.1 200 OK\r\n\r\n"[..], 0, "healthy: 200 OK\n"),
        (b"HTTP/1.0 204 No Content\r\nA: b\r\nC: d\r\n\r\n", 0, "healthy: 204 No Content\n"),
        (b"HTTP/1.1 299\r\n\r\n", 0, "healthy: 299\n"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", 1, "unhealthy: 302 Found\n"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 1, "unhealthy: 404 Not Found\n"),
        (b"HTTP/1.1 500 \x1b[31m\r\n\r\n", 1, "unhealthy: 500\n"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 1, "unhealthy: 503 Service Unavailable\n"),
        (b"HTTP/1.1 20", 1, "unhealthy: 127.0.0.1:PORT does not answer in HTTP\n"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 1, "unhealthy: 127.0.0.1:PORT does not answer in HTTP\n"),
    ] {
        let port = server(answer);
        let run = check(&format!("http://127.0.0.1:{port}/live")).exits(code);
        assert_eq!(run.stdout, line.replace("PORT", &port.to_string()), "{}", run.stderr);
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn an_open_port_is_healthy() {
    let port = server(b"x");
    let run = check(&format!("tcp://127.0.0.1:{port}")).exits(0);
    assert_eq!(run.stdout, format!("healthy: 127.0.0.1:{port} accepts connections\n"));
    // It listens only on one of the addresses.
    check(&format!("tcp://localhost:{port}")).exits(0);
    let port = free_port();
    for url in [format!("tcp://127.0.0.1:{port}"), format!("http://127.0.0.1:{port}/")] {
        let run = check(&url).exits(1);
        let expected = format!("unhealthy: 127.0.0.1:{port}: Connection refused");
        assert!(run.stdout.starts_with(&expected), "{}", run.stdout);
    }
    let run = check("tcp://no-such-host.invalid:80").exits(1);
    assert!(run.stdout.starts_with("unhealthy: "), "{}", run.stdout);
}

#[test]
fn a_check_takes_no_longer_than_its_timeout() {
    let url = format!("http://127.0.0.1:{}/", server(b""));
    for run in [
        bare().args(&["healthcheck", &url, "--timeout", "300ms"]).run(),
        bare().args(&["healthcheck", &url]).env("PREMIGRATE_TIMEOUT", "300ms").run(),
    ] {
        let run = run.exits(1);
        assert_eq!(run.stdout, "unhealthy: no answer within 300ms\n");
        assert!(run.took < Duration::from_secs(4), "{:?}", run.took);
    }
    bare().args(&["healthcheck", &url, "--timeout", "soon"]).run().exits(78);
    let running = bare().args(&["healthcheck", &url, "--timeout", "50s"]).start();
    thread::sleep(Duration::from_millis(500));
    running.end_by("TERM").exits(143);
}

#[test]
fn a_check_answers_in_json_too() {
    let url = format!("http://127.0.0.1:{}/", server(b"HTTP/1.1 500 Oh\r\n\r\n"));
    let run = bare().args(&["healthcheck", &url, "--format", "json"]).run().exits(1);
    assert_eq!(run.stdout, "{\"healthy\":false,\"reason\":\"500 Oh\"}\n");
}

#[test]
fn what_cannot_be_checked_is_refused() {
    for (url, words) in [
        ("https://localhost/", "no TLS"),
        ("http://user:pw@localhost/", "sends no password"),
        ("localhost:80", "needs a URL"),
        ("http://", "needs a URL"),
        ("tcp://localhost", "needs a URL"),
        // It may have a password in it.
        ("postgres://user:pw@localhost/db", "connection string"),
    ] {
        check(url).exits(64).says(&[words]).does_not_say("pw");
    }
    bare().arg("healthcheck").run().exits(64).says(&["needs a URL"]);
    let run = bare().args(&["healthcheck", "http://a/", "http://b/"]).run().exits(64);
    run.says(&["unexpected argument"]);
    bare().args(&["up", "http://a/"]).run().exits(64).says(&["connection string"]);
    for flag in ["--dir", "--wait", "--health"] {
        bare().args(&["healthcheck", "http://a/", flag, "1"]).run().exits(64);
    }
    bare().args(&["healthcheck", "http://a/", "--", "echo"]).run().exits(64);
}

#[test]
fn a_run_with_health_is_alive_and_not_ready() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "select pg_sleep(5)")]);
    let address = format!("127.0.0.1:{}", free_port());
    let running = premigrate(&database, &folder).args(&["--health", &address]).start();
    eventually("a listener", || check(&format!("tcp://{address}")).code == 0);
    let run = check(&format!("http://{address}/live")).exits(0);
    assert_eq!(run.stdout, "healthy: 200 OK\n");
    let run = check(&format!("http://{address}/ready")).exits(1);
    assert_eq!(run.stdout, "unhealthy: 503 Service Unavailable\n");
    running.finish().exits(0);
    check(&format!("http://{address}/live")).exits(1);
}
