//! Why a database cannot be reached or refuses us: each reason has its sentence, what to do, its
//! exit code, and the decision whether waiting helps.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use expect_test::{Expect, expect};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::{Database, Folder, Premigrate, bare, unique};
use crate::pgbouncer::PgBouncer;
use crate::waiting::{at, folder, keep_silent, refuse, server};

/// Runs it, and asserts whether it waits until its time is over. That is little where it does, and
/// where it does not, more than a server needs, however busy the machine is.
#[track_caller]
fn ends(run: Premigrate, code: i32, waits: bool, expected: Expect) {
    let limit = if waits { Duration::from_millis(1500) } else { Duration::from_secs(55) };
    let time = format!("{}ms", limit.as_millis());
    let run = run.args(&["--wait", &time, "--runner-wait", &time]).run().exits(code);
    let run = run.stderr_is(expected);
    assert_eq!(run.took >= limit, waits, "{:?}\n{}", run.took, run.stderr);
}

fn to(url: &str, folder: &Folder) -> Premigrate {
    bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path)
}

#[test]
fn each_rejection_by_a_server_or_a_pooler_has_a_hint() {
    let folder = folder();
    let cases = [
        (
            "28P01",
            "password authentication failed for user \"u\"",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: password authentication failed for user "u" (28P01)
                  hint: correct the password, or set one for the role; in a URL, percent-encode it: %40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %
            "#]],
        ),
        (
            "28000",
            "role \"u\" does not exist",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: role "u" does not exist (28000)
                  hint: create the role, allow it to log in, or correct the user in the URL
            "#]],
        ),
        (
            "28000",
            "role \"u\" is not permitted to log in",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: role "u" is not permitted to log in (28000)
                  hint: create the role, allow it to log in, or correct the user in the URL
            "#]],
        ),
        (
            "3D000",
            "database \"d\" does not exist",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: database "d" does not exist (3D000)
                  hint: create the database, as `up --create-database` does, or correct its name in the URL; where the URL has no database, it is the name of the user
            "#]],
        ),
        (
            "42501",
            "permission denied for database \"d\"",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: permission denied for database "d" (42501)
                  hint: grant the role the CONNECT privilege on the database
            "#]],
        ),
        (
            "28000",
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: no pg_hba.conf entry for host "10.0.0.1", user "u", database "d", no encryption (28000)
                  hint: add sslmode=require to the URL: the server's pg_hba.conf rejects connections without TLS
            "#]],
        ),
        (
            "28000",
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", SSL encryption",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: no pg_hba.conf entry for host "10.0.0.1", user "u", database "d", SSL encryption (28000)
                  hint: allow this role, database and address in the server's pg_hba.conf
            "#]],
        ),
        (
            "28000",
            "pg_hba.conf rejects connection for host \"10.0.0.1\", user \"u\", database \"d\"",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: pg_hba.conf rejects connection for host "10.0.0.1", user "u", database "d" (28000)
                  hint: change the rule in the server's pg_hba.conf that rejects this role, database and address
            "#]],
        ),
        (
            "53300",
            "sorry, too many clients already",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: sorry, too many clients already (53300)
                premigrate: could not connect to the database: 127.0.0.1:PORT: sorry, too many clients already (53300)
                  hint: raise the connection limit of the server, the role or the database, or find out which clients use the connections
            "#]],
        ),
        (
            "53300",
            "too many connections for role \"u\"",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: too many connections for role "u" (53300)
                premigrate: could not connect to the database: 127.0.0.1:PORT: too many connections for role "u" (53300)
                  hint: raise the connection limit of the server, the role or the database, or find out which clients use the connections
            "#]],
        ),
        (
            "57P03",
            "the database system is starting up",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: the database system is starting up (57P03)
                premigrate: could not connect to the database: 127.0.0.1:PORT: the database system is starting up (57P03)
            "#]],
        ),
        (
            "53100",
            "could not write init file: No space left on device",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: could not write init file: No space left on device (53100)
                premigrate: could not connect to the database: 127.0.0.1:PORT: could not write init file: No space left on device (53100)
                  hint: free space on the server's disk
            "#]],
        ),
        (
            "53200",
            "out of memory",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: out of memory (53200)
                premigrate: could not connect to the database: 127.0.0.1:PORT: out of memory (53200)
                  hint: find out what uses up the server's memory
            "#]],
        ),
        (
            "58030",
            "could not read block 0: Input/output error",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: could not read block 0: Input/output error (58030)
                premigrate: could not connect to the database: 127.0.0.1:PORT: could not read block 0: Input/output error (58030)
                  hint: check the server's log: its operating system reports an error
            "#]],
        ),
        // PgBouncer's
        (
            "08P01",
            "no such user: u",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: no such user: u (08P01)
                  hint: add the role to the pooler's auth_file or auth_query, or correct the user in the URL
            "#]],
        ),
        (
            "3D000",
            "no such database: d",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: no such database: d (3D000)
                  hint: add the database to the pooler's [databases], or correct its name in the URL
            "#]],
        ),
        (
            "08P01",
            "SASL authentication failed",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: SASL authentication failed (08P01)
                  hint: correct the password, or set one for the role; in a URL, percent-encode it: %40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %
            "#]],
        ),
        (
            "08P01",
            "unsupported startup parameter: options",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: unsupported startup parameter: options (08P01)
                  hint: remove options from the URL, which the pooler does not pass on, or connect to the server directly
            "#]],
        ),
        (
            "08P01",
            "no more connections allowed (max_client_conn)",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: no more connections allowed (max_client_conn) (08P01)
                premigrate: could not connect to the database: 127.0.0.1:PORT: no more connections allowed (max_client_conn) (08P01)
                  hint: raise the pooler's max_client_conn
            "#]],
        ),
        (
            "08P01",
            "query_wait_timeout",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: query_wait_timeout (08P01)
                premigrate: could not connect to the database: 127.0.0.1:PORT: query_wait_timeout (08P01)
                  hint: raise the pooler's pool_size, or find out which clients keep its connections busy
            "#]],
        ),
        (
            "08P01",
            "pgbouncer cannot connect to server",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: pgbouncer cannot connect to server (08P01)
                premigrate: could not connect to the database: 127.0.0.1:PORT: pgbouncer cannot connect to server (08P01)
            "#]],
        ),
        (
            "08P01",
            "SSL required",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: SSL required (08P01)
                  hint: add sslmode=require to the URL: the server requires TLS
            "#]],
        ),
        (
            "08P01",
            "login rejected",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: login rejected (08P01)
                  hint: allow this role, database and address in the pooler's auth_hba_file
            "#]],
        ),
        (
            "08P01",
            "bouncer config error",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: bouncer config error (08P01)
                  hint: check the pooler's log for its configuration error
            "#]],
        ),
        // The server's own words, which PgBouncer passes on without the SQLSTATE
        (
            "08P01",
            "database \"d\" does not exist",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: database "d" does not exist (08P01)
                  hint: create the database, as `up --create-database` does, or correct its name in the URL; where the URL has no database, it is the name of the user
            "#]],
        ),
        (
            "08P01",
            "server login failed: FATAL role \"u\" does not exist",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: server login failed: FATAL role "u" does not exist (08P01)
                  hint: create the role, allow it to log in, or correct the user in the URL
            "#]],
        ),
        (
            "08P01",
            "role \"u\" is not permitted to log in",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: role "u" is not permitted to log in (08P01)
                  hint: create the role, allow it to log in, or correct the user in the URL
            "#]],
        ),
        (
            "08P01",
            "permission denied for database \"d\"",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: permission denied for database "d" (08P01)
                  hint: grant the role the CONNECT privilege on the database
            "#]],
        ),
        (
            "08P01",
            "role \"u\" is not permitted to log in",
            77,
            false,
            expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: role "u" is not permitted to log in (08P01)
              hint: create the role, allow it to log in, or correct the user in the URL
        "#]],
        ),
        (
            "08P01",
            "permission denied for database \"d\"",
            77,
            false,
            expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: permission denied for database "d" (08P01)
              hint: grant the role the CONNECT privilege on the database
        "#]],
        ),
        (
            "08P01",
            "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: no pg_hba.conf entry for host "10.0.0.1", user "u", database "d", no encryption (08P01)
                  hint: allow the pooler's connections for this role in the server's pg_hba.conf
            "#]],
        ),
        (
            "08P01",
            "too many connections for role \"u\"",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: too many connections for role "u" (08P01)
                premigrate: could not connect to the database: 127.0.0.1:PORT: too many connections for role "u" (08P01)
                  hint: raise the connection limit of the server, the role or the database, or find out which clients use the connections
            "#]],
        ),
        (
            "08P01",
            "sorry, too many clients already",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: sorry, too many clients already (08P01)
                premigrate: could not connect to the database: 127.0.0.1:PORT: sorry, too many clients already (08P01)
                  hint: raise the connection limit of the server, the role or the database, or find out which clients use the connections
            "#]],
        ),
        // Supavisor's
        (
            "XX000",
            "Tenant or user not found",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: Tenant or user not found (XX000)
                  hint: use postgres.PROJECT as the user and the host of the project's region, as Supabase's pooler requires
            "#]],
        ),
        (
            "XX000",
            "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited",
            69,
            true,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited (XX000)
                premigrate: could not connect to the database: 127.0.0.1:PORT: MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited (XX000)
                  hint: raise the pooler's pool size, or have other clients use transaction mode
            "#]],
        ),
        // Neon's and Azure's
        (
            "XX000",
            "Endpoint ID is not specified. Either please upgrade the postgres client library",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: Endpoint ID is not specified. Either please upgrade the postgres client library (XX000)
                  hint: use Neon's host name and sslmode=require, or add options=endpoint%3DENDPOINT to the URL
            "#]],
        ),
        (
            "XX000",
            "connection is insecure (try using `sslmode=require`)",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: connection is insecure (try using `sslmode=require`) (XX000)
                  hint: add sslmode=require to the URL: the server requires TLS
            "#]],
        ),
        (
            "XX000",
            "connection is insecure (try using `sslmode=require`)",
            77,
            false,
            expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: connection is insecure (try using `sslmode=require`) (XX000)
              hint: add sslmode=require to the URL: the server requires TLS
        "#]],
        ),
        (
            "28000",
            "SSL connection is required. Please specify SSL options and retry.",
            77,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not log in to the database: 127.0.0.1:PORT: SSL connection is required. Please specify SSL options and retry. (28000)
                  hint: add sslmode=require to the URL: the server requires TLS
            "#]],
        ),
    ];
    // At once, since many of them wait.
    thread::scope(|scope| {
        for (code, message, exit_code, waits, expected) in cases {
            let folder = &folder;
            scope.spawn(move || {
                let port = server(move |client, _| refuse(client, code, message));
                ends(at(port, folder), exit_code, waits, expected);
            });
        }
    });
}

#[test]
fn each_reason_why_a_server_cannot_be_reached_has_a_hint() {
    let folder = folder();
    let silent = server(|client, _| keep_silent(client));
    let http = server(|mut client, _| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let no_tls = server(|mut client, _| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"N");
        keep_silent(client);
    });
    let at = |place: &str| to(&format!("postgres://u:p@{place}"), &folder);
    let run = at("no-such-host.invalid/d").args(&["--wait", "1500ms"]).run().exits(69);
    run.says(&["could not resolve", "check the spelling"]);
    ends(
        at("127.0.0.1:1/d"),
        69,
        true,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: waiting up to TIME for the database: 127.0.0.1:1: Connection refused (os error 111)
            premigrate: could not connect to the database: 127.0.0.1:1: Connection refused (os error 111)
              hint: check that the server runs and listens on this port; inside a container, localhost is the container itself: use the host or service name of the database
        "#]],
    );
    ends(
        at("%2Fno%2Fsuch%2Ffolder/d"),
        69,
        true,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: waiting up to TIME for the database: /no/such/folder/.s.PGSQL.5432: No such file or directory (os error 2)
            premigrate: could not connect to the database: /no/such/folder/.s.PGSQL.5432: No such file or directory (os error 2)
              hint: mount the server's socket directory, or use a TCP host: no server listens on this socket
        "#]],
    );
    ends(
        at(&format!("127.0.0.1:{http}/d")),
        69,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not connect to the database: 127.0.0.1:PORT: this is not a PostgreSQL server
              hint: check the port: PostgreSQL's default is 5432, PgBouncer's is 6432
        "#]],
    );
    ends(
        at(&format!("127.0.0.1:{no_tls}/d?sslmode=require")),
        77,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: the server does not support TLS, but sslmode requires it; enable TLS on the server, or use sslmode=prefer
        "#]],
    );
    let (_busy, unanswering) = full_listener();
    for (port, expected) in [
        (
            silent,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not connect to the database: 127.0.0.1:PORT: timed out: the server accepted the connection but did not answer
                  hint: check whether the server is overloaded, or is a pooler that waits for its own server; connect_timeout (10 s by default) and --wait limit how long this may take
            "#]],
        ),
        (
            unanswering,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not connect to the database: 127.0.0.1:PORT: timed out
                  hint: check the host and port, and any firewall or security group in between
            "#]],
        ),
    ] {
        let run = at(&format!("127.0.0.1:{port}/d")).args(&["--wait", "700ms"]).run();
        run.exits(69).stderr_is(expected);
    }
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
    let (database, folder) = (Database::fresh(), folder());
    let pooler = PgBouncer::start(2);
    let missing = pooler.to(&database).url.replacen(&database.name, "no_such_database", 1);
    ends(
        to(&missing, &folder),
        77,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: database "no_such_database" does not exist (08P01)
              hint: create the database, as `up --create-database` does, or correct its name in the URL; where the URL has no database, it is the name of the user
        "#]],
    );
    let pooler = PgBouncer::start_with_tls();
    let plain = format!("{}?sslmode=disable", pooler.to(&database).url);
    ends(
        to(&plain, &folder),
        77,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: SSL required (08P01)
              hint: add sslmode=require to the URL: the server requires TLS
        "#]],
    );
}

#[test]
fn an_ssh_server_is_not_taken_for_one_that_says_yes_to_tls() {
    let folder = folder();
    let ssh = server(|mut client, _| {
        let _ = client.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n");
        keep_silent(client);
    });
    for mode in ["disable", "prefer", "require", "verify-full"] {
        let url = format!("postgres://u:p@127.0.0.1:{ssh}/d?sslmode={mode}");
        ends(
            to(&url, &folder),
            69,
            false,
            expect![[r#"
                premigrate: 1 migration in FOLDER (Drizzle 0.x)
                premigrate: could not connect to the database: 127.0.0.1:PORT: this is not a PostgreSQL server
                  hint: check the port: PostgreSQL's default is 5432, PgBouncer's is 6432
            "#]],
        );
    }
}

#[test]
fn a_server_that_answers_the_question_for_tls_with_an_error_is_asked_without() {
    let folder = folder();
    let full = "sorry, too many clients already";
    let port = server(move |client, _| refuse(client, "53300", full));
    let to = |mode: &str| to(&format!("postgres://u:p@127.0.0.1:{port}/d?sslmode={mode}"), &folder);
    ends(
        to("prefer"),
        69,
        true,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: sorry, too many clients already (53300)
            premigrate: could not connect to the database: 127.0.0.1:PORT: sorry, too many clients already (53300)
              hint: raise the connection limit of the server, the role or the database, or find out which clients use the connections
        "#]],
    );
    // Such a server has not shown who it is, and its words are not passed on.
    ends(
        to("require"),
        69,
        true,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: the server answered the TLS request with an error; it may have no free connection slot
            premigrate: could not connect to the database: 127.0.0.1:PORT: the server answered the TLS request with an error; it may have no free connection slot
        "#]],
    );
}

#[test]
fn a_real_server_refuses_with_the_same_reasons() {
    let (database, folder) = (Database::fresh(), folder());
    let role = unique("role");
    database.execute(&format!("create role {role} login password 'right' in role with_password"));
    let as_user =
        |user: &str| to(&database.url.replacen("postgres@", &format!("{user}@"), 1), &folder);
    ends(
        as_user(&format!("{role}:wrong")),
        77,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: password authentication failed for user "ROLE" (28P01)
              hint: correct the password, or set one for the role; in a URL, percent-encode it: %40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %
        "#]],
    );
    ends(
        as_user(&role),
        77,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: the server requires a password, but none was given
              hint: set the password in the URL, in PGPASSWORD or PGPASSWORD_FILE, or in a password file
        "#]],
    );
    ends(
        as_user("nobody_here"),
        77,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: role "nobody_here" does not exist (28000)
              hint: create the role, allow it to log in, or correct the user in the URL
        "#]],
    );
    ends(
        to(&format!("{}_not", database.url), &folder),
        77,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: database "DATABASE_not" does not exist (3D000)
              hint: create the database, as `up --create-database` does, or correct its name in the URL; where the URL has no database, it is the name of the user
        "#]],
    );
    database.execute(&format!(
        "revoke connect on database {0} from public; create role no_{0} login",
        database.name
    ));
    ends(
        as_user(&format!("no_{}", database.name)),
        77,
        false,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: could not log in to the database: 127.0.0.1:PORT: permission denied for database "DATABASE" (42501)
              hint: grant the role the CONNECT privilege on the database
        "#]],
    );
    database.execute(&format!(
        "create role few_{0} login connection limit 0; grant connect on database {0} to few_{0}",
        database.name
    ));
    ends(
        as_user(&format!("few_{}", database.name)),
        69,
        true,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: waiting up to TIME for the database: 127.0.0.1:PORT: too many connections for role "few_DATABASE" (53300)
            premigrate: could not connect to the database: 127.0.0.1:PORT: too many connections for role "few_DATABASE" (53300)
              hint: raise the connection limit of the server, the role or the database, or find out which clients use the connections
        "#]],
    );
}

#[test]
fn the_failures_of_all_hosts_are_reported_each_with_its_hint() {
    let folder = folder();
    let starting =
        server(|client, _| refuse(client, "57P03", "the database system is starting up"));
    let url = format!(
        "postgres://u@127.0.0.1:1,%2Fno%2Fsuch%2Ffolder,127.0.0.1:{starting}/d?sslmode=disable"
    );
    ends(
        to(&url, &folder),
        69,
        true,
        expect![[r#"
            premigrate: 1 migration in FOLDER (Drizzle 0.x)
            premigrate: waiting up to TIME for the database: 127.0.0.1:1: Connection refused (os error 111); /no/such/folder/.s.PGSQL.5432: No such file or directory (os error 2); 127.0.0.1:PORT: the database system is starting up (57P03)
            premigrate: could not connect to the database:

              - 127.0.0.1:1: Connection refused (os error 111)
              - /no/such/folder/.s.PGSQL.5432: No such file or directory (os error 2)
              - 127.0.0.1:PORT: the database system is starting up (57P03)
              hint: check that the server runs and listens on this port; inside a container, localhost is the container itself: use the host or service name of the database
              hint: mount the server's socket directory, or use a TCP host: no server listens on this socket
        "#]],
    );
    let run = to(&url, &folder).args(&["--wait", "0", "--format", "json"]).run();
    run.exits(69).last_event_is(expect![[r#"
        {
          "event": "error",
          "error": "unreachable",
          "attempts": [
            {
              "stage": "login",
              "host": "127.0.0.1",
              "port": 1,
              "address": "127.0.0.1",
              "tls": null,
              "message": "Connection refused (os error 111)",
              "sqlstate": null,
              "hint": "check that the server runs and listens on this port; inside a container, localhost is the container itself: use the host or service name of the database"
            },
            {
              "stage": "login",
              "host": "/no/such/folder",
              "port": 5432,
              "address": "/no/such/folder/.s.PGSQL.5432",
              "tls": null,
              "message": "No such file or directory (os error 2)",
              "sqlstate": null,
              "hint": "mount the server's socket directory, or use a TCP host: no server listens on this socket"
            },
            {
              "stage": "login",
              "host": "127.0.0.1",
              "port": PORT,
              "address": "127.0.0.1",
              "tls": null,
              "message": "the database system is starting up (57P03)",
              "sqlstate": "57P03",
              "hint": null
            }
          ],
          "applied": [],
          "pending": [],
          "uncertain": [],
          "in_progress": null,
          "message": "could not connect to the database:\n\n  - 127.0.0.1:1: Connection refused (os error 111)\n  - /no/such/folder/.s.PGSQL.5432: No such file or directory (os error 2)\n  - 127.0.0.1:PORT: the database system is starting up (57P03)\n  hint: check that the server runs and listens on this port; inside a container, localhost is the container itself: use the host or service name of the database\n  hint: mount the server's socket directory, or use a TCP host: no server listens on this socket",
          "exit_code": 69
        }
    "#]]);
}

#[test]
fn a_host_that_does_not_answer_leaves_time_for_the_next() {
    let (database, folder) = (Database::fresh(), folder());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = database.url.replacen("@", &format!("@127.0.0.1:{port},"), 1);
    // It ends well at all since the first host did not take all of the time.
    to(&url, &folder).args(&["--wait", "4s"]).run().exits(0);
}

/// Lets a client in as this version of PostgreSQL, and closes the connection at its first query.
fn let_in(listener: &TcpListener, version: &str) {
    let (mut client, _) = listener.accept().unwrap();
    let mut startup = [0; 8];
    client.read_exact(&mut startup).unwrap();
    let mut rest = vec![0; u32::from_be_bytes(startup[..4].try_into().unwrap()) as usize - 8];
    client.read_exact(&mut rest).unwrap();
    let parameter = format!("server_version\0{version}\0");
    let messages = [
        (b'R', &[0, 0, 0, 0][..]),
        (b'S', parameter.as_bytes()),
        (b'K', &[0, 0, 0, 1, 0, 0, 0, 1]),
        (b'Z', b"I"),
    ];
    for (tag, body) in messages {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        client.write_all(&[&[tag][..], &length, body].concat()).unwrap();
    }
    let _ = client.read(&mut [0; 1]);
}

#[test]
fn a_server_that_is_too_old_is_named_before_anything_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || let_in(&listener, "12.22"));
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
    let run = to(&url, &folder).args(&["--wait", "60s"]).run().exits(78);
    run.says(&["the server is PostgreSQL 12; premigrate needs PostgreSQL 13 or later"]);
    server.join().unwrap();
}

#[test]
fn a_server_without_advisory_locks_is_named_before_anything_runs() {
    let database = Database::fresh();
    database.execute(
        "alter function pg_catalog.pg_try_advisory_xact_lock(bigint) rename to no_such_lock",
    );
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    let run = to(&database.url, &folder).run().exits(78);
    run.says(&["the server is one without advisory locks"]);
    assert!(database.tables().is_empty());
}

#[test]
fn a_pooler_in_statement_mode_is_named_and_not_tried_again() {
    let database = Database::fresh();
    let pooler = PgBouncer::start_in("statement", 5);
    let folder = Folder::drizzle0(&[("0000_a", "create table a ()")]);
    let run = to(&pooler.to(&database).url, &folder).args(&["--wait", "60s"]).run().exits(78);
    run.says(&["statement pooling mode", "pool_mode"]).does_not_say("connection lost");
    assert!(database.tables().is_empty());
}
