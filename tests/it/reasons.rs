//! Why a database cannot be reached or refuses us: each reason has its sentence, what to do, its
//! exit code, and the decision whether waiting helps.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::{Database, Premigrate, Run, bare, unique};
use crate::pgbouncer::PgBouncer;
use crate::waiting::{at, folder, refuse, server};

/// Runs it; whether it waits is whether it says so. Where it does, it has little patience, and where
/// it does not, more than a server needs, however busy the machine is.
#[track_caller]
fn ends(run: Premigrate, code: i32, waits: bool, words: &[&str]) -> Run {
    let limit = if waits { "1500ms" } else { "60s" };
    let run = run.args(&["--wait", limit, "--runner-wait", limit]).run().exits(code).says(words);
    assert_eq!(run.stderr.contains("waiting up to"), waits, "{}", run.stderr);
    assert!(run.took < Duration::from_secs(30), "{:?}", run.took);
    run
}

fn to(url: &str) -> Premigrate {
    let folder = Box::leak(Box::new(folder()));
    bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path)
}

#[test]
fn each_rejection_by_a_server_or_a_pooler_has_a_hint() {
    let folder = folder();
    for (code, message, exit_code, waits, cure) in [
        (
            "28P01",
            "password authentication failed for user \"u\"",
            77,
            false,
            "correct the password",
        ),
        ("28000", "role \"u\" does not exist", 77, false, "create the role"),
        ("28000", "role \"u\" is not permitted to log in", 77, false, "allow it to log in"),
        ("3D000", "database \"d\" does not exist", 77, false, "create the database"),
        ("42501", "permission denied for database \"d\"", 77, false, "CONNECT"),
        (
            "28000",
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption",
            77,
            false,
            "add sslmode=require",
        ),
        (
            "28000",
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", SSL encryption",
            77,
            false,
            "allow this role, database and address in the server's pg_hba.conf",
        ),
        (
            "28000",
            "pg_hba.conf rejects connection for host \"10.0.0.1\", user \"u\", database \"d\"",
            77,
            false,
            "change the rule in the server's pg_hba.conf",
        ),
        ("53300", "sorry, too many clients already", 69, true, "raise the connection limit"),
        ("53300", "too many connections for role \"u\"", 69, true, "raise the connection limit"),
        ("57P03", "the database system is starting up", 69, true, "is starting up"),
        (
            "53100",
            "could not write init file: No space left on device",
            69,
            true,
            "free space on the server's disk",
        ),
        ("53200", "out of memory", 69, true, "the server's memory"),
        ("58030", "could not read block 0: Input/output error", 69, true, "the server's log"),
        // PgBouncer's
        ("08P01", "no such user: u", 77, false, "add the role to the pooler's auth_file"),
        ("3D000", "no such database: d", 77, false, "add the database to the pooler's [databases]"),
        ("08P01", "SASL authentication failed", 77, false, "correct the password"),
        ("08P01", "unsupported startup parameter: options", 77, false, "remove options"),
        ("08P01", "no more connections allowed (max_client_conn)", 69, true, "max_client_conn"),
        ("08P01", "query_wait_timeout", 69, true, "pool_size"),
        ("08P01", "pgbouncer cannot connect to server", 69, true, "pgbouncer cannot connect"),
        ("08P01", "SSL required", 77, false, "the server requires TLS"),
        ("08P01", "login rejected", 77, false, "the pooler's auth_hba_file"),
        ("08P01", "bouncer config error", 77, false, "the pooler's log"),
        // The server's own words, which PgBouncer passes on without the SQLSTATE
        ("08P01", "database \"d\" does not exist", 77, false, "create the database"),
        (
            "08P01",
            "server login failed: FATAL role \"u\" does not exist",
            77,
            false,
            "create the role",
        ),
        ("08P01", "role \"u\" is not permitted to log in", 77, false, "allow it to log in"),
        ("08P01", "permission denied for database \"d\"", 77, false, "CONNECT"),
        (
            "08P01",
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption",
            77,
            false,
            "allow the pooler's connections",
        ),
        ("08P01", "too many connections for role \"u\"", 69, true, "raise the connection limit"),
        ("08P01", "sorry, too many clients already", 69, true, "raise the connection limit"),
        // Supavisor's
        ("XX000", "Tenant or user not found", 77, false, "postgres.PROJECT"),
        (
            "XX000",
            "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited",
            69,
            true,
            "transaction mode",
        ),
        // Neon's and Azure's
        (
            "XX000",
            "Endpoint ID is not specified. Either please upgrade the postgres client library",
            77,
            false,
            "sslmode=require",
        ),
        (
            "XX000",
            "connection is insecure (try using `sslmode=require`)",
            77,
            false,
            "the server requires TLS",
        ),
        (
            "28000",
            "SSL connection is required. Please specify SSL options and retry.",
            77,
            false,
            "the server requires TLS",
        ),
    ] {
        let port = server(move |client, _| refuse(client, code, message));
        ends(at(port, &folder), exit_code, waits, &[message, code, cure]);
    }
}

#[test]
fn each_reason_why_a_server_cannot_be_reached_has_a_hint() {
    let silent = server(|client, _| {
        thread::sleep(Duration::from_secs(60));
        drop(client);
    });
    let http = server(|mut client, _| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let no_tls = server(|mut client, _| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"N");
        thread::sleep(Duration::from_secs(60));
    });
    let at = |place: &str| to(&format!("postgres://u:p@{place}"));
    ends(at("no-such-host.invalid/d"), 69, true, &["could not resolve", "check the spelling"]);
    ends(at("127.0.0.1:1/d"), 69, true, &["refused", "check that the server runs", "localhost is"]);
    ends(at("%2Fno%2Fsuch%2Ffolder/d"), 69, true, &["no server listens on this socket"]);
    let unanswered = |port: u16| {
        let run = at(&format!("127.0.0.1:{port}/d")).args(&["--wait", "700ms"]).run();
        run.exits(69).says(&["timed out"]).does_not_say("waiting up to")
    };
    let stalled = ["accepted the connection but did not answer", "connect_timeout"];
    unanswered(silent).says(&stalled).does_not_say("firewall");
    let (_busy, port) = full_listener();
    unanswered(port).says(&["firewall"]);
    let words = ["is not a PostgreSQL server", "check the port"];
    ends(at(&format!("127.0.0.1:{http}/d")), 69, false, &words);
    ends(at(&format!("127.0.0.1:{no_tls}/d?sslmode=require")), 77, false, &["TLS"]);
}

/// One that the system answers no more for, since nobody accepts: packets to it are dropped, as by a
/// firewall.
fn full_listener() -> (Vec<Socket>, u16) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.as_socket().unwrap().port();
    let mut sockets = vec![listener];
    loop {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let connected = client.connect_timeout(&address, Duration::from_millis(200));
        sockets.push(client);
        if connected.is_err() {
            return (sockets, port);
        }
    }
}

#[test]
fn a_rejection_by_a_real_pooler_is_final() {
    let database = Database::fresh();
    let pooler = PgBouncer::start(2);
    let missing = to(&pooler.to(&database).url.replacen(&database.name, "no_such_database", 1));
    ends(missing, 77, false, &["\"no_such_database\" does not exist", "create the database"]);
    let pooler = PgBouncer::start_with_tls();
    let plain = to(&format!("{}?sslmode=disable", pooler.to(&database).url));
    ends(plain, 77, false, &["SSL required", "the server requires TLS"]);
}

#[test]
fn an_ssh_server_is_not_taken_for_one_that_accepts_tls() {
    let ssh = server(|mut client, _| {
        let _ = client.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n");
        thread::sleep(Duration::from_secs(60));
    });
    for mode in ["disable", "prefer", "require", "verify-full"] {
        let url = format!("postgres://u:p@127.0.0.1:{ssh}/d?sslmode={mode}");
        ends(to(&url), 69, false, &["is not a PostgreSQL server", "check the port"]);
    }
}

#[test]
fn a_server_that_answers_the_tls_request_with_an_error_is_tried_without_tls() {
    let full = "sorry, too many clients already";
    let port = server(move |client, _| refuse(client, "53300", full));
    let url = |mode: &str| format!("postgres://u:p@127.0.0.1:{port}/d?sslmode={mode}");
    ends(to(&url("prefer")), 69, true, &[full, "53300"]);
    let run = ends(to(&url("require")), 69, true, &["answered the TLS request with an error"]);
    // It has not shown who it is.
    run.does_not_say(full);
}

#[test]
fn a_real_server_refuses_with_the_same_reasons() {
    let database = Database::fresh();
    let role = unique("role");
    database.execute(&format!("create role {role} login password 'right' in role with_password"));
    let as_user = |user: &str| to(&database.url.replacen("postgres@", &format!("{user}@"), 1));
    let wrong = format!("{role}:wrong");
    ends(as_user(&wrong), 77, false, &["28P01", "correct the password"]).does_not_say(":wrong");
    ends(as_user(&role), 77, false, &["requires a password", "PGPASSWORD_FILE"]);
    ends(as_user("nobody_here"), 77, false, &["28000", "create the role"]);
    ends(to(&format!("{}_not", database.url)), 77, false, &["3D000", "create the database"]);
    database.execute(&format!(
        "revoke connect on database {0} from public; create role no_{0} login",
        database.name
    ));
    let no_role = format!("no_{}", database.name);
    ends(as_user(&no_role), 77, false, &["42501", "CONNECT"]);
    database.execute(&format!(
        "create role few_{0} login connection limit 0; grant connect on database {0} to few_{0}",
        database.name
    ));
    ends(
        as_user(&format!("few_{}", database.name)),
        69,
        true,
        &["53300", "raise the connection limit"],
    );
}

#[test]
fn the_failures_of_all_hosts_are_reported_each_with_its_hint() {
    let starting =
        server(|client, _| refuse(client, "57P03", "the database system is starting up"));
    let url = format!(
        "postgres://u@127.0.0.1:1,no-such-host.invalid,127.0.0.1:{starting}/d?sslmode=disable"
    );
    let run = ends(
        to(&url),
        69,
        true,
        &[
            "127.0.0.1:1: ",
            "refused",
            "no-such-host.invalid:5432: could not resolve the host name",
            &format!("127.0.0.1:{starting}: the database system is starting up (57P03)"),
            "hint: check that the server runs",
            "hint: check the spelling",
        ],
    );
    assert_eq!(run.stderr.matches("hint: ").count(), 2, "{}", run.stderr);
    let run = to(&url).args(&["--wait", "0", "--format", "json"]).run().exits(69);
    let attempts = run.events().last().unwrap()["attempts"].clone();
    let hints: Vec<_> =
        attempts.as_array().unwrap().iter().map(|one| one["hint"].is_string()).collect();
    assert_eq!(hints, [true, true, false]);
}

#[test]
fn a_host_that_does_not_answer_leaves_time_for_the_next() {
    let database = Database::fresh();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = database.url.replacen("@", &format!("@127.0.0.1:{port},"), 1);
    let run = to(&url).args(&["--wait", "4s"]).run().exits(0);
    assert!(run.took < Duration::from_secs(4), "{:?}", run.took);
}
