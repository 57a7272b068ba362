//! `--create-database`.

use std::net::{Shutdown, TcpStream};

use postgres::{Client, NoTls};

use crate::harness::{
    Database, Folder, Premigrate, premigrate, server, server_port, unique, with_database,
};
use crate::pgbouncer::PgBouncer;
use crate::waiting;

/// A database that does not exist.
fn missing() -> Database {
    let name = unique("it");
    Database::named(&name, with_database(&server(), &name))
}

/// The same database, as another role.
fn with_user(database: &Database, role: &str) -> Database {
    let (scheme, rest) = database.url.split_once("://").unwrap();
    let (_, host) = rest.split_once('@').unwrap();
    database.at(format!("{scheme}://{role}@{host}"))
}

fn exists(database: &Database) -> bool {
    let mut client = Client::connect(&server(), NoTls).unwrap();
    let sql = "select from pg_database where datname = $1";
    !client.query(sql, &[&database.name]).unwrap().is_empty()
}

/// The role that owns a database.
fn owner(database: &Database) -> String {
    database.value("select datdba::regrole from pg_database where datname = current_database()")
}

fn one_table() -> Folder {
    Folder::drizzle0(&[("0000_a", "create table a ()")])
}

fn creating(database: &Database, folder: &Folder) -> Premigrate {
    premigrate(database, folder).arg("--create-database")
}

#[test]
fn a_missing_database_is_created_and_an_existing_one_is_used() {
    let (database, folder) = (missing(), one_table());
    let run = premigrate(&database, &folder).run().exits(77);
    run.says(&["does not exist (3D000)", "create the database, as `up --create-database` does"]);
    let (name, app) = (&database.name, ["--", "echo", "started"]);
    let run = creating(&database, &folder).args(&app).run().exits(0).says(&[
        &format!("the database {name} does not exist; creating it\n"),
        &format!("created the database {name} in "),
        "applied 0000_a",
    ]);
    assert_eq!(run.stdout, "started\n");
    assert_eq!(database.tables(), ["a"]);
    let run = creating(&database, &folder).run().exits(0).does_not_say("creat");
    run.says(&["up to date"]);
}

#[test]
fn the_name_of_a_new_database_is_quoted() {
    let (plain, folder) = (missing(), one_table());
    let name = format!("{} \"Ä\"; x", plain.name);
    let url = with_database(&server(), &format!("{}%20%22%C3%84%22%3B%20x", plain.name));
    let database = Database::named(&name, url);
    creating(&database, &folder).run().exits(0);
    assert!(exists(&database));
}

#[test]
fn of_many_runners_one_creates_the_database() {
    let (database, folder) = (missing(), one_table());
    let runs: Vec<_> = (0..6).map(|_| creating(&database, &folder).start()).collect();
    let runs: Vec<_> = runs.into_iter().map(|run| run.finish().exits(0)).collect();
    let created = format!("created the database {} in ", database.name);
    assert_eq!(runs.iter().filter(|run| run.stderr.contains(&created)).count(), 1);
    assert_eq!(database.history().len(), 1);
}

#[test]
fn only_up_creates_a_database() {
    let (database, folder) = (missing(), one_table());
    let with_variable = || premigrate(&database, &folder).env("PREMIGRATE_CREATE_DATABASE", "1");
    with_variable().arg("status").run().exits(77);
    with_variable().arg("baseline").run().exits(77);
    with_variable().arg("--dry-run").run().exits(77);
    // A wrong name is found first.
    with_variable().args(&["--through", "0009_x"]).run().exits(64).says(&["0009_x"]);
    assert!(!exists(&database));
    premigrate(&database, &folder).args(&["status", "--create-database"]).run().exits(64);
    with_variable().run().exits(0);
}

#[test]
fn a_role_that_may_not_create_it_gets_the_sql_for_one_that_may() {
    let (database, folder) = (missing(), one_table());
    let (role, _) = Database::fresh().role();
    let as_role = with_user(&database, &role);
    let sql = format!("create database \"{}\" owner \"{role}\";", database.name);
    creating(&as_role, &folder).run().exits(77).says(&[
        "permission denied to create database",
        "Ask an administrator to run:\n\n    ",
        &sql,
    ]);
    Client::connect(&server(), NoTls).unwrap().batch_execute(&sql).unwrap();
    creating(&as_role, &folder).run().exits(0);
    assert_eq!(owner(&database), role);
}

#[test]
fn the_role_of_the_connection_string_owns_the_database() {
    let (database, folder) = (missing(), one_table());
    let other = Database::fresh();
    let ((creator, _), (role, _)) = (other.role(), other.role());
    other.execute(&format!("alter role {creator} createdb; grant {role} to {creator}"));
    let mut as_creator = with_user(&database, &creator);
    as_creator.url += &format!("?role={role}");
    creating(&as_creator, &folder).run().exits(0);
    assert_eq!(owner(&database), role);
}

#[test]
fn a_database_can_be_a_copy_of_another() {
    let (template, database, folder) = (Database::fresh(), missing(), one_table());
    premigrate(&template, &folder).run().exits(0);
    template.execute("create table kept ()");
    folder.add("0001_b", "create table b ()");
    let run = creating(&database, &folder).args(&["--template", &template.name]).run().exits(0);
    run.says(&[&format!("creating it as a copy of {}", template.name), "applied 0001_b"])
        .does_not_say("applied 0000_a");
    assert_eq!(database.tables(), ["a", "b", "kept"]);

    premigrate(&database, &folder)
        .args(&["--template", "x"])
        .run()
        .exits(78)
        .says(&["--template is only used with --create-database"]);
    let unused = premigrate(&database, &folder).env("PREMIGRATE_TEMPLATE", "x").run();
    unused.exits(0).says(&["up to date"]);
    let run = creating(&missing(), &folder).args(&["--template", "no_such"]).run().exits(78);
    run.says(&["template database \"no_such\" does not exist", "Correct the name"]);
}

#[test]
fn the_time_limit_of_the_role_does_not_end_the_copying_of_a_template() {
    let (template, database, folder) = (Database::fresh(), missing(), one_table());
    let (role, _) = template.role();
    let limit = format!("alter role {role} in database postgres set statement_timeout");
    template.execute(&format!(
        "alter role {role} createdb; {limit} = '50ms'; \
         alter database {} owner to {role}; create table large as select generate_series(1, 300000)",
        template.name
    ));
    let as_role = with_user(&database, &role);
    let started = || creating(&as_role, &folder).args(&["--template", &template.name]);
    started().run().exits(0).says(&["created the database"]);
    template.execute(&format!("drop database {}", database.name));
    let limited = started().args(&["--statement-timeout", "5ms"]).run();
    limited.exits(69).says(&["canceling statement due to statement timeout"]);
}

#[test]
fn a_template_that_is_in_use_is_waited_for() {
    let (template, folder) = (Database::fresh(), one_table());
    let in_use = template.client();
    let start = |database: &Database, wait: &str| {
        let run = creating(database, &folder).args(&["--template", &template.name]);
        run.args(&["--wait", wait]).start()
    };
    let (database, stopped, failed) = (missing(), missing(), missing());
    let patient = start(&database, "60s");
    patient.wait_to_say("is being accessed by other users (55006). There is 1 other session");
    let waiting = start(&stopped, "60s");
    waiting.wait_to_say("is being accessed by other users");
    waiting.end_by("TERM").exits(143);
    start(&failed, "0").finish().exits(75).says(&[
        "could not create the database",
        &format!("Close the other sessions of {}", template.name),
    ]);
    drop(in_use);
    patient.finish().exits(0).says(&["created the database"]);
    assert_eq!(database.tables(), ["a"]);
    assert!(!exists(&stopped) && !exists(&failed));
}

#[test]
fn behind_pgbouncer_a_database_is_created_too() {
    // It remembers for so many seconds that a database is missing.
    let pooler = PgBouncer::with("pool_mode = transaction\nserver_login_retry = 3");
    let (database, folder) = (missing(), one_table());
    creating(&pooler.to(&database), &folder).run().exits(0).says(&["created the database"]);
    assert_eq!(database.tables(), ["a"]);
}

#[test]
fn if_a_pooler_does_not_have_the_database_postgres_template1_is_used() {
    let pooler = PgBouncer::with(&format!(
        "pool_mode = transaction\nserver_login_retry = 1\n[databases]\n\
         postgres = host=127.0.0.1 port={} dbname=no_such user=postgres",
        server_port()
    ));
    let (database, folder) = (missing(), one_table());
    creating(&pooler.to(&database), &folder).run().exits(0).says(&["created the database"]);
    assert_eq!(database.tables(), ["a"]);
}

/// Passes everything on between a client and the test server.
fn join(client: &TcpStream) {
    let server = TcpStream::connect(("127.0.0.1", server_port())).unwrap();
    let copy = |from: &TcpStream, to: &TcpStream| {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    };
    copy(client, &server);
    copy(&server, client);
}

#[test]
fn a_pooler_that_remembers_a_missing_database_is_waited_for() {
    let (database, folder) = (missing(), one_table());
    let missing = format!("database \"{}\" does not exist", database.name);
    // The second connection creates it.
    let port = waiting::server(move |client, number| match number {
        0 | 2 | 3 => waiting::refuse(client, "08P01", &missing),
        _ => join(&client),
    });
    let through = database.through(port);
    let url = format!("{}?sslmode=disable", through.url);
    let run = creating(&through.at(url), &folder).run().exits(0);
    run.says(&["created the database", "waiting up to ", "applied 0000_a"]);
    assert_eq!(database.tables(), ["a"]);
}
