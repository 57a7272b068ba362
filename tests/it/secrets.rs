//! A password planted wherever one can come from, then searched for in everything that failing runs
//! print, in text and in JSON.

mod ways;

use std::io::{Read, Write};

use crate::harness::{Database, Folder, Premigrate, Run, bare, premigrate, unique};
use crate::pgbouncer::PgBouncer;
use crate::waiting::server;

const PLANTED: &str = "hunter2";

#[track_caller]
fn keeps_it(run: &Run, what: &str) {
    let output = format!("{}{}", run.stdout, run.stderr);
    assert!(!output.contains(PLANTED), "{what}:\n{output}");
    assert_ne!(run.code, 0, "{what}:\n{output}");
    assert!(!run.stderr.is_empty(), "{what}");
}

/// A run with these variables, once in text and once in JSON.
fn try_with(folder: &Folder, variables: &[(&str, &str)]) {
    for format in ["text", "json"] {
        let run = variables
            .iter()
            .fold(bare().current_dir(&folder.path), |run, (name, value)| run.env(name, value));
        let run =
            run.arg("--dir").arg(&folder.path).args(&["--wait", "0", "--format", format]).run();
        keeps_it(&run, &format!("{format} {variables:?}"));
    }
}

#[test]
fn a_password_is_in_no_output_of_any_failing_run() {
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    folder.write("secret", "hunter2\n");
    folder.write("url", "postgres://u:hunter2@127.0.0.1:1/d\n");
    folder.write("bad_url", "postgres://u:hunter2@127.0.0.1:x/d\n");
    folder.write("binary", b"hunter2\xff");
    folder.write("pgpass", "*:*:*:*:hunter2\n");
    folder.write("broken.pem", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n");
    let path = |name: &str| folder.path.join(name).display().to_string();

    // URLs and key=value texts, well formed and in many ways not.
    for url in [
        "postgres://u:hunter2@127.0.0.1:1/d",
        "postgres://u:hunter2@no-such-host.invalid/d",
        "postgres://u:hunter2@%2Fno%2Fsuch/d",
        "postgres://u:hunter2@127.0.0.1:1,no-such-host.invalid/d",
        "postgres://u:hunter2@127.0.0.1:1/d?options=-c%20hunter2",
        "postgres://u:hunter2@127.0.0.1:1/d?sslmode=hunter2",
        "postgres://u:hunter2@127.0.0.1:1/d?sslmode=require&sslpassword=hunter2",
        "postgres://u:hunter2@127.0.0.1:1/d?sslrootcert=system&sslmode=require",
        "postgres://u:hunter2@127.0.0.1:1/d?connect_timeout=hunter2",
        "postgres://u:hunter2@127.0.0.1:hunter2/d",
        "postgres://u:hunter2",
        "postgres://u:hunter2/x",
        "postgres://u:hunter2%00@h/d",
        "postgres://u:hunter2%ff@h/d",
        "postgres://u:hunter2%@127.0.0.1:1/d",
        "postgres://u:p%hunter2@127.0.0.1:1/d",
        "postgres://u:p@hunter2@127.0.0.1:1/d",
        "postgres://u:p@hunter2/x@127.0.0.1:1/d",
        "postgres://u:p/hunter2@127.0.0.1:1/d",
        "postgres://u:1/hunter2@127.0.0.1:1/d",
        "postgres://u:p?hunter2@127.0.0.1:1/d",
        "postgres://u:p#hunter2@127.0.0.1:1/d",
        "postgres://u:p:hunter2@127.0.0.1:1/d",
        "postgres://u:p[hunter2@127.0.0.1:1/d",
        "postgres://u:p,hunter2@127.0.0.1:1/d",
        "postgres://u:hunter2@/d?user=",
        "postgres://h/d?user=u&password=hunter2&nonsense=1",
        "postgres://h/d?user=u&password=x&hunter2=1",
        "postgres://h/d?user=u&passwordhunter2",
        "postgres://127.0.0.1:1/d?user=u&password=hunter2",
        "postgres:u:hunter2@h/d",
        "postgres//u:hunter2@h/d",
        "psql postgres://u:hunter2@h/d",
        "jdbc:postgresql://h/d?user=u&password=hunter2",
        "mysql://u:hunter2@h/d",
        "prisma://h/?api_key=hunter2",
        "u:hunter2@h/d",
        "hunter2",
        "host=127.0.0.1 port=1 user=u password=hunter2",
        "host=127.0.0.1 port=1 user=u password='hunter2",
        "host=127.0.0.1 port=1 user=u password=a hunter2",
        "host=127.0.0.1 port=1 user=u password=a hunter2=b",
        "host=127.0.0.1 port=hunter2 user=u",
        "Host=h;Username=u;Password=hunter2",
    ] {
        try_with(&folder, &[("DATABASE_URL", url)]);
    }
    try_with(&folder, &[("MIGRATION_DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d")]);

    // The other places.
    let pg = [("PGHOST", "127.0.0.1"), ("PGPORT", "1"), ("PGUSER", "u")];
    for more in [
        ("PGPASSWORD", "hunter2"),
        ("PGPASSWORD_FILE", &path("secret")),
        ("PGPASSWORD_FILE", &path("binary")),
        ("PGPASSWORD_FILE", "hunter2"),
        ("PGPASSFILE", &path("pgpass")),
        ("PGOPTIONS", "-c app.key=hunter2"),
        ("PGSSLMODE", "hunter2"),
        ("PGSERVICE", "hunter2"),
        ("PGTARGETSESSIONATTRS", "hunter2"),
        ("DATABASE_URL_FILE", &path("url")),
        ("DATABASE_URL_FILE", &path("bad_url")),
        ("DATABASE_URL_FILE", "postgres://u:hunter2@127.0.0.1:1/d"),
        ("MIGRATION_DATABASE_URL_FILE", &path("url")),
        ("PREMIGRATE_WAIT", "hunter2"),
    ] {
        try_with(&folder, &[&pg[..], &[more]].concat());
    }
    folder.write(".env", "DATABASE_URL=postgres://u:hunter2@127.0.0.1:1/d\n");
    try_with(&folder, &[]);
    folder.write(".env", "DATABASE_URL='postgres://u:hunter2@127.0.0.1:x/d'\nhunter2\n");
    try_with(&folder, &[]);
    folder.write(".env", "PGHOST=127.0.0.1\nPGPORT=1\nPGUSER=u\nPGPASSWORD=hunter2\n");
    try_with(&folder, &[]);
}

/// Keys are pasted in many ways; what is not PEM must not pass for a file's name, which is shown.
#[test]
fn a_client_key_is_in_no_output_however_it_is_given() {
    let folder = Folder::drizzle0(&[("0000_a", "select 1")]);
    let yes_to_tls = server(|mut client, _| {
        let _ = client.read(&mut [0; 8]);
        let _ = client.write_all(b"S");
    });
    let (port, base64) = (yes_to_tls.to_string(), format!("hunter2{}", "A/b+".repeat(15)));
    for key in [
        format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----"),
        format!("\"-----BEGIN PRIVATE KEY-----\\n{base64}\\n-----END PRIVATE KEY-----\""),
        format!("PGSSLKEY=-----BEGIN PRIVATE KEY-----\n{base64}"),
        format!("MC4CAQAwBQYDK2Vw{base64}"),
        format!("LS0tLS1CRUdJTiBQUklWQVRF{base64}="),
        format!("{base64}\n{base64}=="),
    ] {
        let tls = [("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "u")];
        let given = [("PGSSLMODE", "require"), ("PGSSLCERT", "-----BEGIN "), ("PGSSLKEY", &key)];
        try_with(&folder, &[tls, given].concat());
    }
}

/// Against a real server that the password opens, or does not.
#[test]
fn a_password_is_in_no_output_of_a_failing_run_that_logs_in() {
    let database = Database::fresh();
    let role = unique("role");
    database.execute(&format!(
        "create role {role} login password 'hunter2' in role with_password; \
         grant all on database {} to {role}",
        database.name
    ));
    let folder = Folder::drizzle0(&[("0000_bad", "select nothing")]);
    let with = |password: &str, name: &str| -> Premigrate {
        let url = database.url.replacen("postgres@", &format!("{role}:{password}@"), 1);
        let url = url.replacen(&database.name, name, 1);
        bare().env("DATABASE_URL", url).arg("--dir").arg(&folder.path)
    };
    for format in ["text", "json"] {
        for (password, name, code) in [
            ("hunter2", database.name.as_str(), 70),
            ("hunter2", "no_such_database", 77),
            ("not-hunter2", &database.name, 77),
            ("hunter2%20", &database.name, 77),
        ] {
            let run = with(password, name).args(&["--format", format]).run();
            keeps_it(&run, name);
            assert_eq!(run.code, code, "{}", run.stderr);
        }
    }
}

/// What everybody on the host may read.
#[test]
fn a_password_is_in_no_command_line_and_our_url_not_in_the_apps_environment() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "select pg_sleep(1)")]);
    folder.write("secret", "hunter2");
    let running = bare()
        .env("MIGRATION_DATABASE_URL", format!("{}?password=hunter2", database.url))
        .env("PREMIGRATE_WAIT", "5s")
        .env("APP_KEY", "kept")
        .arg("--dir")
        .arg(&folder.path)
        .args(&["--", "/bin/sh", "-c", "tr '\\0' '\\n' </proc/$$/environ; cat /proc/$$/cmdline"])
        .start();
    database.wait_for(
        "the migration",
        "select 1 from pg_stat_activity where query like '%pg_sleep(1)%' and state = 'active' \
         and pid <> pg_backend_pid() and datname = current_database()",
    );
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", running.pid())).unwrap();
    assert!(line.contains("--dir") && !line.contains(PLANTED), "{line}");
    let run = running.finish().exits(0);
    assert!(run.stdout.contains("APP_KEY=kept"), "{}", run.stdout);
    for gone in [PLANTED, "MIGRATION_DATABASE_URL", "PREMIGRATE_"] {
        assert!(!run.stdout.contains(gone), "{gone}: {}", run.stdout);
        assert!(!run.stderr.contains(PLANTED), "{}", run.stderr);
    }
}

/// What others write into statements: a file, a function, and who is in the way.
#[test]
fn a_password_in_a_statement_is_in_no_output() {
    let database = Database::fresh();
    let (role, other) = (unique("role"), unique("role"));
    database.execute(&format!("create role {role}; create role {other}; create table t (a int)"));
    let sql = format!("alter role {role} password 'hunter2'");
    let in_function = format!("do $d$ begin execute '{}'; end $d$", sql.replace('\'', "''"));
    let function = format!("do $d$ begin alter role {role} password 'hunter2' nonsense; end $d$");
    let mut blocker = database.client();
    let mut blocking = blocker.transaction().unwrap();
    blocking.batch_execute(&format!("lock t; {}", sql.replace(&role, &other))).unwrap();
    for format in ["text", "json"] {
        for (file, code) in [
            (format!("{sql} nonsense"), 70),
            (format!("{sql};\nselect nothing"), 70),
            (format!("alter role {role} password\n'hunter2' nonsense"), 70),
            (in_function.replace("hunter2''", "hunter2'' nonsense"), 70),
            (function.clone(), 70),
            ("select set_config('app.password', 'hunter2', false), 1/0".to_owned(), 70),
            (
                format!(
                    "do $$ begin execute format('alter role %I password %L x', '{role}', \
                     'hunter2'); end $$"
                ),
                70,
            ),
            ("alter table t add b int".to_owned(), 75),
        ] {
            let folder = Folder::drizzle0(&[("0000_a", &file)]);
            let run = premigrate(&database, &folder);
            let run = run.args(&["--format", format, "--lock-timeout", "2s"]);
            let run = run.args(&["--lock-retries", "0"]).run();
            keeps_it(&run, &file);
            assert_eq!(run.code, code, "{}", run.stderr);
            assert!(run.stderr.contains("***"), "{file}:\n{}", run.stderr);
        }
    }
}

/// What is refused before anything runs quotes the statement.
#[test]
fn a_password_in_a_statement_that_is_refused_is_in_no_output() {
    let database = Database::fresh();
    let pooler = PgBouncer::start(3);
    let meta = Folder::drizzle0(&[("0000_a", "\\connect postgres://u:hunter2@h/d")]);
    let set = Folder::drizzle0(&[("0000_a", "set search_path = 'hunter2', passwords;\nvacuum")]);
    for format in ["text", "json"] {
        for (folder, command, code) in [(&meta, "up", 65), (&meta, "check", 65), (&set, "up", 78)] {
            let run = premigrate(&pooler.to(&database), folder);
            let run = run.args(&[command, "--format", format]).run().exits(code);
            let output = format!("{}{}", run.stdout, run.stderr);
            assert!(output.contains("***") && !output.contains(PLANTED), "{output}");
        }
    }
}

/// Whoever may read the history may read the progress table beside it.
#[test]
fn the_progress_table_keeps_no_value_of_a_statement() {
    let database = Database::fresh();
    let sql = "-- premigrate: no-transaction\n\
               do $$ begin perform 'hunter2', pg_sleep(60); end $$";
    let folder = Folder::drizzle0(&[("0000_a", sql)]);
    let mut running = premigrate(&database, &folder).start();
    database.wait_for(
        "the statement",
        "select from pg_stat_activity where datname = current_database() \
         and wait_event = 'PgSleep'",
    );
    let kept = database.value("select statement from drizzle.__drizzle_migrations_progress");
    running.child.kill().unwrap();
    running.finish();
    assert_eq!(kept, "do $$ begin perform '***', pg_sleep(60); end $$");
    let run = premigrate(&database, &folder).run().exits(70);
    run.says(&["nothing shows whether it finished"]);
}
