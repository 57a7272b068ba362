//! Options from flags, variables, `.env` and defaults, and which database they name.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use expect_test::expect;

use crate::harness::{
    Database, Folder, Premigrate, Run, Running, bare, premigrate, unique, with_database,
};

/// A migration that records the role that ran it.
fn who() -> Folder {
    Folder::drizzle0(&[("0000_who", "create table who as select current_user as name")])
}

/// The executable in the migrations folder, which may hold a `.env`.
fn in_folder(folder: &Folder) -> Premigrate {
    bare().current_dir(&folder.path).arg("--dir").arg(&folder.path)
}

/// The URL's parts: user, host, port.
pub fn parts(url: &str) -> (&str, &str, &str) {
    let (_, rest) = url.split_once("://").unwrap();
    let (user, rest) = rest.split_once('@').unwrap();
    let (place, _) = rest.split_once('/').unwrap();
    let (host, port) = place.split_once(':').unwrap_or((place, "5432"));
    (user, host, port)
}

// Flags, variables, defaults.

#[test]
fn a_flag_overrides_its_variable_and_a_variable_the_default() {
    for (flag, variable, schema) in
        [(None, None, "drizzle"), (None, Some("var"), "var"), (Some("flag"), Some("var"), "flag")]
    {
        let (database, folder) = (Database::fresh(), who());
        let mut run = premigrate(&database, &folder);
        run = variable.into_iter().fold(run, |run, name| run.env("PREMIGRATE_SCHEMA", name));
        run = flag.into_iter().fold(run, |run, name| run.args(&["--schema", name]));
        run.run().exits(0);
        let rows = format!("select count(*) from {schema}.__drizzle_migrations");
        assert_eq!(database.value(&rows), "1");
    }
}

/// Variables with a value that each refuses.
const CHECKED: [(&str, &str); 19] = [
    ("PREMIGRATE_WAIT", "soon"),
    ("PREMIGRATE_RUNNER_WAIT", "-1s"),
    ("PREMIGRATE_HEALTH", "everywhere"),
    ("PREMIGRATE_TIMEOUT", "1m30s"),
    ("PREMIGRATE_LOCK_TIMEOUT", "5 s"),
    ("PREMIGRATE_LOCK_RETRIES", "many"),
    ("PREMIGRATE_STATEMENT_TIMEOUT", "1.5s"),
    ("PREMIGRATE_APPLY_OLDER", "yes"),
    ("PREMIGRATE_NOTICES", "loud"),
    ("PREMIGRATE_CREATE_DATABASE", "yes"),
    ("PREMIGRATE_DRY_RUN", "on"),
    ("PREMIGRATE_STRICT", "TRUE"),
    ("PREMIGRATE_DATABASE", "shop"),
    ("PREMIGRATE_MAX_BLOCKING", "huge"),
    ("PREMIGRATE_EXIT_CODE", "Yes"),
    ("PREMIGRATE_ALL", "Ja"),
    ("PREMIGRATE_FORMAT", "xml"),
    ("PREMIGRATE_COLOR", "sometimes"),
    ("PREMIGRATE_SKIP", "2"),
];

#[test]
fn a_variable_refuses_a_wrong_value() {
    let (database, folder) = (Database::fresh(), who());
    for (variable, bad) in CHECKED {
        let run = premigrate(&database, &folder).env(variable, bad).run().exits(78);
        run.says(&[&format!("{variable} must be")]).does_not_say(bad);
    }
    assert_eq!(database.tables(), Vec::<String>::new());
}

/// Tests each by its effect, on one history.
#[test]
fn every_option_has_a_variable_that_is_read() {
    let (database, folder) = (Database::fresh(), who());
    let path = folder.path.display().to_string();
    let url = format!("DATABASE_URL={}", database.url);
    folder.write("url.env", url);
    let env_file = format!("{path}/url.env");
    let place = [
        ("PREMIGRATE_DIR", path.as_str()),
        ("PREMIGRATE_ENV_FILE", &env_file),
        ("PREMIGRATE_SCHEMA", "other"),
        ("PREMIGRATE_TABLE", "history"),
    ];
    let run = |command: &str, variable: &str, value: &str| {
        let start = place.iter().fold(bare(), |start, (name, value)| start.env(name, value));
        start.arg(command).env(variable, value).run()
    };
    let rows = || database.value("select count(*) from other.history");

    folder.add("0001_a", "select 1");
    run("baseline", "PREMIGRATE_THROUGH", "0000_who").exits(0);
    assert_eq!(rows(), "1");
    run("status", "PREMIGRATE_EXIT_CODE", "1").exits(10);
    folder.write("0000_who.sql", "edited");
    run("up", "PREMIGRATE_ACCEPT", "0000_who")
        .exits(0)
        .says(&["accepted the current content of 1 migration"]);
    assert_eq!(rows(), "3");
    folder.write("0000_who.sql", "edited again");
    run("accept", "PREMIGRATE_ALL", "0").exits(64).says(&["`accept` needs names, or --all"]);
    run("accept", "PREMIGRATE_ALL", "1")
        .exits(0)
        .says(&["accepted the current content of 1 migration"]);

    run("up", "PREMIGRATE_BASELINE_THROUGH", "nothing").exits(64).says(&["nothing"]);
    run("up", "PREMIGRATE_THROUGH", "nothing").exits(64).says(&["nothing"]);
    let copy = unique("copy");
    let copied = premigrate(&database, &folder).env("PREMIGRATE_TEMPLATE", "no_such");
    let copied = copied.env("DATABASE_URL", with_database(&database.url, &copy));
    copied.env("PREMIGRATE_CREATE_DATABASE", "1").run().exits(78).says(&["no_such"]);

    let file = |name: &str| folder.path.join(name).display().to_string();
    run("rehearse", "PREMIGRATE_HERE", "1").exits(0);
    run("rehearse", "PREMIGRATE_ON", &database.url).exits(0);
    for variable in ["PREMIGRATE_HTML", "PREMIGRATE_SVG"] {
        let picture = file(variable);
        let start = bare().args(&["rehearse", "--here"]).env(variable, &picture);
        let start = place.iter().fold(start, |start, (name, value)| start.env(name, value));
        start.run().exits(0);
        assert!(Path::new(&picture).exists());
    }
    let rehearsed = bare().args(&["rehearse", "--here"]);
    let rehearsed = place.iter().fold(rehearsed, |run, (name, value)| run.env(name, value));
    let rehearsed = rehearsed.env("PREMIGRATE_FROM_SCRATCH", "1").run().exits(64);
    rehearsed.says(&["--from-scratch rehearses all migrations in an empty one"]);

    let skipped = bare().args(&["up", "--", "echo"]);
    let skipped = place.iter().fold(skipped, |run, (name, value)| run.env(name, value));
    let skipped = skipped.env("PREMIGRATE_ONLY_FOR", "app").run().exits(0);
    skipped.says(&["does not name echo"]);

    let (base, output) = (file("base"), file("bundle"));
    std::fs::copy(env!("CARGO_BIN_EXE_premigrate"), &base).expect("a copy");
    run("list", "PREMIGRATE_EXTRACT", &file("out")).exits(0);
    let bundle = |base: &str| {
        let start = bare().arg("bundle").env("PREMIGRATE_DIR", file("out"));
        start.env("PREMIGRATE_BASE", base).env("PREMIGRATE_OUTPUT", &output).run()
    };
    bundle("/bin/true").exits(65).says(&["/bin/true"]);
    bundle(&base).exits(0);
    assert!(Path::new(&output).exists());

    run("check", "PREMIGRATE_SINCE", "/nowhere").exits(78).says(&["/nowhere cannot be read"]);

    let shown = [
        "PREMIGRATE_SINCE",
        "PREMIGRATE_ONLY_FOR",
        "PREMIGRATE_EXTRACT",
        "PREMIGRATE_OUTPUT",
        "PREMIGRATE_BASE",
        "PREMIGRATE_THROUGH",
        "PREMIGRATE_TEMPLATE",
        "PREMIGRATE_BASELINE_THROUGH",
        "PREMIGRATE_EXIT_CODE",
        "PREMIGRATE_ACCEPT",
        "PREMIGRATE_HERE",
        "PREMIGRATE_ON",
        "PREMIGRATE_FROM_SCRATCH",
        "PREMIGRATE_HTML",
        "PREMIGRATE_SVG",
    ];
    let shown = shown.into_iter().chain(place.map(|(name, _)| name));
    let shown: BTreeSet<_> =
        shown.chain(CHECKED.map(|(name, _)| name)).map(str::to_owned).collect();
    let skip = "PREMIGRATE_SKIP".to_owned();
    let all = premigrate::cli::args::OPTIONS
        .iter()
        .map(|opt| premigrate::cli::args::variable(opt.flag))
        .chain([skip]);
    assert_eq!(shown, all.collect());
}

#[test]
fn the_variables_of_a_kubernetes_service_called_premigrate_are_passed_over_and_on() {
    let (database, folder) = (Database::fresh(), who());
    let service = [
        ("PREMIGRATE_SERVICE_HOST", "10.0.0.1"),
        ("PREMIGRATE_SERVICE_PORT", "80"),
        ("PREMIGRATE_SERVICE_PORT_HTTP", "80"),
        ("PREMIGRATE_PORT", "tcp://10.0.0.1:80"),
        ("PREMIGRATE_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("PREMIGRATE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("PREMIGRATE_PORT_80_TCP_PORT", "80"),
        ("PREMIGRATE_PORT_80_TCP_PROTO", "tcp"),
    ];
    let run = premigrate(&database, &folder);
    let run = service.iter().fold(run, |run, (name, value)| run.env(name, value));
    let run = run.args(&["--", "sh", "-c", "env | grep ^PREMIGRATE_ | sort"]).run().exits(0);
    let passed = service.map(|(name, value)| format!("{name}={value}\n"));
    let mut passed = passed.to_vec();
    passed.sort();
    assert_eq!(run.stdout, passed.concat());
    let run = premigrate(&database, &folder).env("PREMIGRATE_PORT_HTTP", "80").run();
    run.exits(78).says(&["unknown variable PREMIGRATE_PORT_HTTP"]);
}

#[test]
fn names_on_the_command_line_override_the_variable_for_all() {
    let (database, folder) = (Database::fresh(), who());
    folder.add("0001_a", "select 1");
    premigrate(&database, &folder).run().exits(0);
    folder.write("0000_who.sql", "edited");
    folder.write("0001_a.sql", "edited");
    let run = premigrate(&database, &folder).env("PREMIGRATE_ALL", "1").args(&["accept", "0001_a"]);
    run.run()
        .exits(0)
        .says(&["accepted the current content of 1 migration", "0001_a"])
        .does_not_say("0000_who");
}

#[test]
fn an_error_says_what_a_value_must_be() {
    let (database, folder) = (Database::fresh(), who());
    for (args, expected) in [
        (&["--accept", ""][..], "--accept must be a comma-separated list of names"),
        (&["--accept", "0000_who,"], "--accept must be a comma-separated list of names"),
        (
            &["--lock-retries", "99999999999"],
            "--lock-retries must be a whole number of at most 4294967295",
        ),
    ] {
        premigrate(&database, &folder).args(args).run().exits(78).says(&[expected]);
    }
    bare().args(&["list", "--dir", ""]).run().exits(78).says(&["--dir must be a folder"]);
    let accept = premigrate(&database, &folder).args(&["accept", ""]).run();
    accept.exits(64).says(&["`accept` needs names, or --all"]);
}

#[test]
fn a_boolean_is_1_or_true_or_0_or_false_or_empty() {
    let (database, folder) = (Database::fresh(), who());
    for value in ["1", "true"] {
        let run = premigrate(&database, &folder).env("PREMIGRATE_DRY_RUN", value).run().exits(0);
        assert!(run.stdout.starts_with("would apply 1 migration"), "{}", run.stdout);
    }
    for value in ["0", "false", ""] {
        let run = premigrate(&database, &folder).env("PREMIGRATE_DRY_RUN", value).run().exits(0);
        assert_eq!(run.stdout, "", "{value:?}");
    }
}

#[test]
fn an_unknown_variable_is_refused() {
    let (database, folder) = (Database::fresh(), who());
    let run = premigrate(&database, &folder).env("PREMIGRATE_WIAT", "1s").run().exits(78);
    run.says(&["unknown variable PREMIGRATE_WIAT"]);
    let run = premigrate(&database, &folder).env("PREMIGRATE_MIGRATIONS", "x").run().exits(78);
    run.says(&["set PREMIGRATE_DIR"]);
    assert_eq!(database.tables(), Vec::<String>::new());
}

#[test]
fn a_wrong_option_is_reported_in_the_requested_format() {
    let (database, folder) = (Database::fresh(), who());
    for (name, value) in [("PREMIGRATE_WIAT", "1s"), ("PREMIGRATE_WAIT", "soon")] {
        let run = premigrate(&database, &folder).env(name, value).env("PREMIGRATE_FORMAT", "json");
        let error = run.run().exits(78).events().pop().expect("an object");
        assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &78.into()));
    }
    premigrate(&database, &folder).args(&["--format", "xml"]).run().exits(78);
}

#[test]
fn timeouts_are_set_for_the_migration_as_given() {
    let timeouts = "create table timeouts as select current_setting('lock_timeout') as lock, \
                    current_setting('statement_timeout') as statement, \
                    current_setting('idle_in_transaction_session_timeout') as idle";
    for (args, expected) in [
        (&[][..], "5s|0|0"),
        (&["--lock-timeout", "250ms", "--statement-timeout", "1h"], "250ms|1h|0"),
        (&["--lock-timeout=0", "--statement-timeout=0"], "0|0|0"),
        (&["--lock-timeout=2m", "--statement-timeout=90"], "2min|90s|0"),
    ] {
        let database = Database::fresh();
        let folder = Folder::drizzle0(&[("0000_timeouts", timeouts)]);
        premigrate(&database, &folder).args(args).run().exits(0);
        assert_eq!(database.value("select * from timeouts"), expected);
    }
}

#[test]
fn a_statement_that_runs_too_long_fails_its_migration() {
    let database = Database::fresh();
    let folder = Folder::drizzle0(&[("0000_slow", "create table slow (); select pg_sleep(60)")]);
    let run = premigrate(&database, &folder).args(&["--statement-timeout", "100ms"]).run();
    run.exits(70).stderr_is(expect![[r#"
        premigrate: 1 migration in FOLDER (Drizzle 0.x)
        premigrate: 0000_slow failed and was rolled back

          ERROR 57014: canceling statement due to statement timeout
          at 0000_slow.sql:1:23, statement 2 of 2

            1 | create table slow (); select pg_sleep(60)

          --statement-timeout is 100ms. Raise it, or set it to 0 for no limit; its variable is PREMIGRATE_STATEMENT_TIMEOUT.
    "#]]);
    assert_eq!(database.tables(), Vec::<String>::new());
}

#[test]
fn the_servers_own_statement_timeout_is_left_alone() {
    let (database, folder) = (Database::fresh(), Folder::drizzle0(&[]));
    database.execute(&format!("alter database {} set statement_timeout = '7s'", database.name));
    folder.add("0000_a", "create table a as select current_setting('statement_timeout')");
    premigrate(&database, &folder).run().exits(0);
    assert_eq!(database.value("select * from a"), "7s");
}

// PREMIGRATE_SKIP.

#[test]
fn skip_only_becomes_the_app() {
    let run = bare()
        .env("PREMIGRATE_SKIP", "1")
        .env("DATABASE_URL", "nonsense")
        .args(&["--dir", "/nowhere", "--", "echo", "started"])
        .run()
        .exits(0);
    assert_eq!(run.stdout, "started\n");
    let told = ["PREMIGRATE_SKIP is set: no migrations were checked or applied", "starting echo"];
    assert_eq!(run.stderr, told.map(|line| format!("premigrate: {line}\n")).concat());

    let (database, folder) = (Database::fresh(), who());
    premigrate(&database, &folder).env("PREMIGRATE_SKIP", "true").run().exits(0);
    assert_eq!(database.tables(), Vec::<String>::new());
    premigrate(&database, &folder).env("PREMIGRATE_SKIP", "0").run().exits(0);
    assert_eq!(database.tables(), ["who"]);
}

// Which database.

#[test]
fn migration_database_url_comes_first_and_is_hidden_from_the_app() {
    let (database, folder) = (Database::fresh(), who());
    let (role, url) = database.role();
    database.execute(&format!(
        "grant all on database {} to {role}; grant all on schema public to {role}",
        database.name
    ));
    let app = "env | grep -E '^(MIGRATION_)?DATABASE_URL|^PREMIGRATE' | sort";
    let run = premigrate(&database, &folder)
        .env("MIGRATION_DATABASE_URL", &url)
        .env("PREMIGRATE_WAIT", "7s")
        .args(&["--", "sh", "-c", app])
        .run()
        .exits(0);
    assert_eq!(run.stdout, format!("DATABASE_URL={}\n", database.url));
    assert_eq!(database.value("select name from who"), role);
}

#[test]
fn without_a_url_libpqs_variables_name_the_database() {
    let (database, folder) = (Database::fresh(), who());
    let (user, host, port) = parts(&database.url);
    let run = in_folder(&folder)
        .env("PGHOST", host)
        .env("PGPORT", port)
        .env("PGUSER", user)
        .env("PGDATABASE", &database.name)
        .run();
    run.exits(0);
    assert_eq!(database.value("select name from who"), user);
}

#[test]
fn a_run_without_a_database_is_refused_with_a_hint() {
    let folder = who();
    let run = in_folder(&folder).run().exits(78);
    run.stderr_is(expect![[r#"
        premigrate: no database is named; set DATABASE_URL=postgres://USER:PASSWORD@HOST/DATABASE, or PGHOST and PGUSER
    "#]]);
}

// Files that hold secrets.

/// A role that has to log in with this password.
pub fn role_with_password(database: &Database, password: &str) -> String {
    let (role, _) = database.role();
    database.execute(&format!(
        "alter role {role} password {}; grant with_password to {role}; \
         grant all on database {} to {role}; grant all on schema public to {role}",
        premigrate::sql::quote::literal(password),
        database.name
    ));
    role
}

/// A file outside the migrations folder.
fn secret(text: impl AsRef<[u8]>) -> (Folder, String) {
    let folder = Folder::empty();
    folder.write("secret", text);
    let path = folder.path.join("secret").display().to_string();
    (folder, path)
}

#[test]
fn a_url_or_a_password_can_be_in_a_file() {
    let (database, folder) = (Database::fresh(), who());
    let (_kept, path) = secret(format!("{}\r\n\n", database.url));
    let run = in_folder(&folder).env("DATABASE_URL_FILE", &path);
    let run = run.args(&["--", "sh", "-c", "echo $DATABASE_URL_FILE$DATABASE_URL"]).run().exits(0);
    assert_eq!(run.stdout, format!("{path}\n"));
    let run = in_folder(&folder).env("MIGRATION_DATABASE_URL_FILE", &path);
    let run = run.env("DATABASE_URL", "nonsense");
    let app = "echo $MIGRATION_DATABASE_URL_FILE$DATABASE_URL";
    let run = run.args(&["--", "sh", "-c", app]).run().exits(0);
    assert_eq!(run.stdout, "nonsense\n");

    // Nothing is special in a password file, not even spaces.
    let password = " p$HOME#'\"\\%41 é ";
    let role = role_with_password(&database, password);
    database.execute("drop schema drizzle cascade; drop table who");
    let (_kept, path) = secret(format!("{password}\n"));
    let (_, host, port) = parts(&database.url);
    let run = in_folder(&folder)
        .env("PGHOST", host)
        .env("PGPORT", port)
        .env("PGUSER", &role)
        .env("PGDATABASE", &database.name)
        .env("PGPASSWORD_FILE", &path)
        .run();
    run.exits(0);
    assert_eq!(database.value("select name from who"), role);
}

#[test]
fn what_libpq_has_variables_for_can_be_in_files_too() {
    let (database, folder) = (Database::fresh(), who());
    let (user, host, port) = parts(&database.url);
    let files = Folder::empty();
    let with_files = |values: [(&str, &str); 3]| {
        let start = in_folder(&folder).env("PGPORT", port);
        values.iter().fold(start, |start, (name, value)| {
            files.write(name, format!("{value}\n\r\n"));
            start.env(name, files.path.join(name))
        })
    };
    let values =
        [("PGUSER_FILE", user), ("PGHOST_FILE", host), ("PGDATABASE_FILE", &database.name)];
    // They name a database, so that this is not read.
    folder.write(".env", "DATABASE_URL=postgres://u@127.0.0.1:1/d\n");
    let app = "echo $PGUSER$PGHOST$PGDATABASE; echo $PGUSER_FILE";
    let run = with_files(values).args(&["--", "sh", "-c", app]).run().exits(0);
    let file = files.path.join("PGUSER_FILE");
    assert_eq!(run.stdout, format!("\n{}\n", file.display()));
    assert_eq!(database.value("select name from who"), user);

    for (name, file) in
        [("PGUSER", "PGUSER_FILE"), ("PGHOST", "PGHOST_FILE"), ("PGDATABASE", "PGDATABASE_FILE")]
    {
        let run = with_files(values).env(name, "x").run().exits(78);
        run.says(&[&format!("both {name} and {file} are set")]);
        let run = with_files(values).env(file, "/nowhere").run().exits(78);
        run.says(&[&format!("the file that {file} names cannot be read")]);
    }
    let run = with_files([values[0], ("PGHOST_FILE", ""), values[2]]).run().exits(78);
    run.says(&["no host is given"]);
    let run = with_files([("PGUSER_FILE", ""), values[1], values[2]]).run().exits(78);
    run.says(&["no user is given"]);
}

#[test]
fn an_empty_file_counts_as_unset() {
    let (database, folder) = (Database::fresh(), who());
    let (_kept, path) = secret("\n");
    let run = premigrate(&database, &folder).env("MIGRATION_DATABASE_URL_FILE", &path).run();
    run.exits(0);
    let run = in_folder(&folder).env("DATABASE_URL_FILE", &path).run().exits(78);
    run.says(&["no database is named"]);
}

#[test]
fn a_variable_together_with_its_file_is_refused() {
    let (database, folder) = (Database::fresh(), who());
    let (_kept, path) = secret(&database.url);
    let run = premigrate(&database, &folder).env("DATABASE_URL_FILE", &path).run().exits(78);
    run.says(&["both DATABASE_URL and DATABASE_URL_FILE are set"]);
    let run = premigrate(&database, &folder).env("PGPASSWORD", "x").env("PGPASSWORD_FILE", &path);
    run.run().exits(78).says(&["both PGPASSWORD and PGPASSWORD_FILE are set"]);
    // Even if another URL comes first.
    let run = premigrate(&database, &folder).env("MIGRATION_DATABASE_URL", &database.url);
    let run = run.env("DATABASE_URL_FILE", "/nowhere").run().exits(78);
    run.says(&["both DATABASE_URL and DATABASE_URL_FILE are set"]);
}

#[test]
fn an_unreadable_secret_file_is_reported_by_its_variable() {
    let folder = who();
    let run = in_folder(&folder).env("DATABASE_URL_FILE", "/nowhere/url").run().exits(78);
    run.stderr_is(expect![[r#"
        premigrate: the file that DATABASE_URL_FILE names cannot be read (No such file or directory (os error 2))
    "#]]);
    let (_kept, path) = secret(b"postgres://u:\xff@h/d");
    let run = in_folder(&folder).env("DATABASE_URL_FILE", &path).run().exits(78);
    run.says(&["DATABASE_URL_FILE is not valid UTF-8"]);
}

// `.env`.

#[test]
fn an_env_file_is_read_if_the_environment_names_no_database() {
    let (database, folder) = (Database::fresh(), who());
    folder.write(
        ".env",
        format!(
            "# for development\nexport DATABASE_URL=\"{}\" # ours\r\nPREMIGRATE_SCHEMA=history\n\
             OTHER=x\nPATH=/nowhere\nNODE_ENV='development'\nnonsense\n",
            database.url
        ),
    );
    let app = "echo [$DATABASE_URL][$OTHER][$NODE_ENV][$PREMIGRATE_SCHEMA]";
    let run = in_folder(&folder).args(&["--", "sh", "-c", app]).run().exits(0);
    assert_eq!(run.stdout, "[][][][]\n");
    assert_eq!(database.value("select count(*) from history.__drizzle_migrations"), "1");
    let run = in_folder(&folder).env("PREMIGRATE_SCHEMA", "elsewhere").args(&["--dry-run"]).run();
    assert!(run.exits(0).stdout.starts_with("would apply 1 migration"));
}

#[test]
fn only_our_own_variables_are_taken_from_an_env_file() {
    let (database, folder) = (Database::fresh(), who());
    let role = role_with_password(&database, "in the password file");
    let (_, host, port) = parts(&database.url);
    let place = format!("PGHOST={host}\nPGPORT={port}\nPGDATABASE={}", database.name);
    let home = folder.path.display();
    folder.write(".pgpass", "*:*:*:*:in the password file\n");
    folder.write(".env", format!("{place}\nPGUSER={role}\nHOME={home}\n"));
    in_folder(&folder).run().exits(77).says(&["requires a password"]);
    let run = in_folder(&folder).env("HOME", home.to_string()).run();
    run.exits(0);
}

#[test]
fn an_env_file_is_not_read_if_the_environment_names_a_database() {
    let folder = who();
    folder.write(".env", "DATABASE_URL=postgres://u@127.0.0.1:1/d\nPREMIGRATE_WIAT=1\n");
    let database = Database::fresh();
    let (user, host, port) = parts(&database.url);
    let (_kept, path) = secret(&database.url);
    for variables in [
        &[("DATABASE_URL", database.url.as_str())][..],
        &[("MIGRATION_DATABASE_URL", &database.url)],
        &[("DATABASE_URL_FILE", &path)],
        &[("PGHOST", host), ("PGPORT", port), ("PGUSER", user), ("PGDATABASE", &database.name)],
    ] {
        let start = in_folder(&folder);
        let start = variables.iter().fold(start, |start, (name, value)| start.env(name, value));
        start.run().exits(0);
    }
    in_folder(&folder).run().exits(78).says(&["PREMIGRATE_WIAT"]);
    // An empty variable, as Compose leaves it, names no database.
    in_folder(&folder).env("DATABASE_URL", "").run().exits(78).says(&["PREMIGRATE_WIAT"]);
    in_folder(&folder).args(&["--env-file", ""]).run().exits(78).says(&["no database is named"]);
    let none = in_folder(&folder).env("PREMIGRATE_ENV_FILE", "").run();
    none.exits(78).says(&["no database is named"]);
    // It may be production's, and its host may have been forgotten.
    in_folder(&folder).env("PGDATABASE", "d").run().exits(78).says(&["no host is given"]);
    in_folder(&folder).env("PGSERVICE", "s").run().exits(78).says(&["service is not supported"]);
    // A user alone does not name a database.
    in_folder(&folder).env("PGUSER", "u").run().exits(78).says(&["PREMIGRATE_WIAT"]);
}

#[test]
fn database_variables_in_another_encoding_are_refused_only_when_a_database_is_needed() {
    let (database, folder) = (Database::fresh(), who());
    let file = |lines: &[&[u8]]| folder.write(".env", lines.concat());
    let list = || in_folder(&folder).arg("list").run();
    let url = format!("DATABASE_URL={}\n", database.url);
    file(&[b"# caf\xe9\nNAME=\xe9\n", url.as_bytes()]);
    in_folder(&folder).run().exits(0);
    file(&[b"PGPASSWORD=\xe9\n", url.as_bytes()]);
    list().exits(0);
    in_folder(&folder).run().exits(78).says(&[".env is not valid UTF-8"]);
    file(&[b"PREMIGRATE_TABLE=\xe9\n"]);
    list().exits(78).says(&[".env is not valid UTF-8"]);
}

#[test]
fn an_env_file_that_was_named_must_exist() {
    let (database, folder) = (Database::fresh(), who());
    folder.write("config/dev.env", format!("DATABASE_URL={}", database.url));
    in_folder(&folder).args(&["--env-file", "config/dev.env"]).run().exits(0);
    let run = in_folder(&folder).args(&["--env-file", "missing.env"]).run().exits(78);
    run.stderr_is(expect![[r#"
        premigrate: --env-file: missing.env cannot be read (No such file or directory (os error 2))
    "#]]);
    let run = in_folder(&folder).env("DATABASE_URL", &database.url);
    let run = run.args(&["--env-file", "missing.env"]).run().exits(78);
    run.stderr_is(expect![[r#"
        premigrate: --env-file: missing.env cannot be read (No such file or directory (os error 2))
    "#]]);
    let run = in_folder(&folder).env("PREMIGRATE_ENV_FILE", "missing.env").run().exits(78);
    run.stderr_is(expect![[r#"
        premigrate: PREMIGRATE_ENV_FILE: missing.env cannot be read (No such file or directory (os error 2))
    "#]]);
    assert!(!Path::new(".env").exists(), "other tests count on there being none");
}

/// Runs the executable without root's privileges, after this shell command.
fn unprivileged(folder: &Folder, prepare: &str, args: &[&str]) -> Run {
    let mut command = Command::new("sh");
    command.current_dir(&folder.path).args(["-c", &format!("{prepare}; exec \"$@\""), "sh"]);
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    if id.trim_ascii() == b"0" {
        command.args(["setpriv", "--inh-caps=-all", "--bounding-set=-all"]);
    }
    command.arg(env!("CARGO_BIN_EXE_premigrate")).args(args).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let run = Running::start(command).finish();
    let mode = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&folder.path, mode).unwrap();
    run
}

#[test]
fn an_unreadable_env_file_is_an_error() {
    let folder = Folder::empty();
    folder.write(".env", "DATABASE_URL=postgres://u@127.0.0.1:1/d");
    unprivileged(&folder, "chmod 0 .env", &[]).exits(78).stderr_is(expect![[r#"
        premigrate: .env: .env cannot be read (Permission denied (os error 13))
    "#]]);
}

#[test]
fn an_unreadable_directory_has_no_env_file() {
    let (folder, set) = (Folder::empty(), who());
    let dir = ["--dir", set.path.to_str().unwrap()];
    unprivileged(&folder, "chmod 0 .", &[&["check"], &dir[..]].concat()).exits(0);
    unprivileged(&folder, "chmod 0 .", &dir).exits(78).says(&["no database is named"]);
    let named = [&dir[..], &["--env-file", ".env"]].concat();
    unprivileged(&folder, "chmod 0 .", &named).exits(78).says(&[".env cannot be read"]);
}

#[test]
fn a_password_in_an_env_file_is_not_expanded() {
    let database = Database::fresh();
    for (written, password) in [
        ("pa$$word$HOME", "pa$$word$HOME"),
        ("'p#w d'", "p#w d"),
        ("\"p#w${PATH}\"", "p#w${PATH}"),
        ("`p'\"w`", "p'\"w"),
        ("p=w # not this", "p=w"),
    ] {
        let folder = who();
        let role = role_with_password(&database, password);
        let (_, host, port) = parts(&database.url);
        folder.write(
            ".env",
            format!(
                "PGHOST={host}\nPGPORT={port}\nPGUSER={role}\nPGDATABASE={}\n\
                 PGPASSWORD={written}\n",
                database.name
            ),
        );
        in_folder(&folder).arg("--dry-run").run().exits(0);
    }
}

// Secrets.

/// Fails the test if any part of the password was printed.
#[track_caller]
fn keeps_the_secret(run: &Run) {
    for printed in [&run.stdout, &run.stderr] {
        assert!(!printed.to_lowercase().contains("hunter"), "{printed}");
    }
}

#[test]
fn a_password_is_never_printed() {
    let (database, folder) = (Database::fresh(), who());
    let (_, host, port) = parts(&database.url);
    let (name, role) = (&database.name, role_with_password(&database, "Hunter@2"));
    let url = format!("postgres://{role}:Hunter%402@{host}:{port}/{name}");
    let wrong = format!("postgres://{role}:Hunter3@{host}:{port}/{name}");
    let dead = "postgres://u:hunter2@127.0.0.1:1/d";
    let with = |variables: &[(&str, &str)], args: &[&str]| {
        let start = in_folder(&folder).args(args);
        variables.iter().fold(start, |start, (name, value)| start.env(name, value))
    };
    let once = "--wait=0";
    let lost = format!("postgres://u:hunter2@{}.invalid/d", unique("host").replace('_', "-"));
    let tls = format!("{url}?sslmode=require");
    let nowhere = format!("postgres://{role}:Hunter%402@{host}:{port}/hunted");
    let keys = format!("host={host} port={port} user={role} password=Hunter@2 two dbname={name}");
    let pg = [("PGHOST", host), ("PGUSER", role.as_str()), ("PGPASSWORD", "hunter2")];
    let runs = [
        (69, with(&[("DATABASE_URL", dead)], &[once])),
        (69, with(&[("DATABASE_URL", dead)], &[once, "--format=json"])),
        (69, with(&[("DATABASE_URL", dead)], &["--wait=300ms"])),
        (69, with(&[("DATABASE_URL", &lost)], &[once])),
        (77, with(&[("DATABASE_URL", &wrong)], &[])),
        (77, with(&[("DATABASE_URL", &wrong)], &["--format=json"])),
        (77, with(&[("DATABASE_URL", &nowhere)], &[])),
        (77, with(&[("DATABASE_URL", &tls)], &[])),
        (78, with(&[("DATABASE_URL", "postgres://u:hunter/2@h/d@e")], &[])),
        (78, with(&[("DATABASE_URL", "postgres://u@h/d?password=a&hunter2")], &[])),
        (78, with(&[("DATABASE_URL", "postgres://u@h/d?password=a&hunter2=x")], &[])),
        (78, with(&[("DATABASE_URL", "hunter2")], &[])),
        (78, with(&[("DATABASE_URL", &keys)], &[])),
        (78, with(&[pg[0], pg[1], pg[2], ("PGPORT", "hunter2")], &[])),
        (78, with(&[pg[0], pg[1], pg[2], ("PGPASSWORD_FILE", "/hunter2")], &[])),
        // The secret itself instead of the path of its file.
        (78, with(&[pg[0], pg[1], ("PGPASSWORD_FILE", "hunter2")], &[])),
        (78, with(&[("DATABASE_URL_FILE", dead)], &[])),
        (78, with(&[("DATABASE_URL", dead), ("PREMIGRATE_URL", dead)], &[])),
        // There is no such argument, but people try.
        (64, with(&[], &[dead])),
        (64, with(&[], &["up", dead])),
        (64, with(&[], &["up", "password=hunter2"])),
        (64, with(&[], &["--database-url", dead])),
        (64, with(&[], &[&format!("--database-url={dead}")])),
        (64, with(&[], &[&format!("-{dead}")])),
        (64, with(&[], &["--format=json", dead])),
        (70, {
            folder.add("0001_bad", "select nothing");
            with(&[("DATABASE_URL", &url)], &[])
        }),
    ];
    for (at, (code, run)) in runs.into_iter().enumerate() {
        let run = run.run();
        keeps_the_secret(&run);
        assert_eq!(run.code, code, "{at}: {}", run.stderr);
    }
    folder.write("0000_who.sql", "select 'edited'");
    keeps_the_secret(&with(&[("DATABASE_URL", &url)], &[]).run().exits(65));
    folder.write(".env", "DATABASE_URL='postgres://u:hunter2@127.0.0.1:x/d'\nhunter2\n");
    keeps_the_secret(&with(&[], &[]).run().exits(78));
    keeps_the_secret(&with(&[], &["list"]).run().exits(0));
}
