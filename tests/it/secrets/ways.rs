//! The ways to write a secret into SQL. None of them is printed, neither when that statement fails
//! nor when the one beside it does.

use std::time::Instant;

use super::PLANTED;
use crate::harness::{Database, Folder, premigrate, unique};

/// Statements that have the secret; ROLE stands for a role that exists.
const WAYS: &[&str] = &[
    // Of a role.
    "alter role ROLE password 'hunter2'",
    "alter role ROLE password \"hunter2\"",
    "alter role ROLE password hunter2",
    "alter role ROLE with encrypted password hunter2!hunter2.hunter2 login",
    "alter role ROLE password'hunter2'",
    "alter role ROLE password\n'hunter2'",
    "alter role ROLE password E'hunter2'",
    "alter role ROLE password U&'hunter2'",
    "alter role ROLE password $$hunter2$$",
    "alter role ROLE password $p$hunter2$p$",
    "alter role ROLE password 'hunter2",
    "alter role ROLE set app.password to hunter2",
    "create user ROLE identified by \"hunter2\"",
    "create user ROLE identified by hunter2",
    // In code.
    "do $$ begin execute 'alter role ROLE password ' || quote_literal('hunter2') || ' x'; end $$",
    "do $$ declare pw text := 'hunter2'; begin execute format('alter role ROLE password %L x', pw); end $$",
    "do $$ declare password text := \"hunter2\"; begin perform 1; end $$",
    "do $$ begin alter role ROLE password hunter2; end $$",
    "do 'begin execute ''alter role ROLE password ''''hunter2'''' x''; end'",
    "do $$ begin raise exception 'the password is %', 'hunter2'; end $$",
    "do $$ begin raise exception 'the password is %', 'hun' || 'ter2' using errcode = '23505', hint = 'hunter2', detail = '(hunter2)', column = 'hunter2'; end $$",
    "do $$ begin perform 'hunter2'::int; -- the password\nend $$",
    "create function f() returns int as $$ select 'hunter2'::int -- token\n$$ language sql",
    "create function f() returns int as $$ token = \"hunter2\" # hunter2\n$$ language plpython3u",
    // As an argument.
    "select set_config('app.password', 'hunter2', false), 1/0",
    "select set_config('app.password', \"hunter2\", false)",
    "select set_config('app.password', hunter2, false)",
    "select set_config(setting_name => 'app.password', new_value => 'hunter2', is_local => false), 1/0",
    "select set_config(new_value => \"hunter2\", setting_name => 'app.password', is_local => false)",
    "select f('hunter2', password) from users",
    "call set_password('hunter2')",
    "set app.password = 'hunter2'",
    "set app.password = \"hunter2\"",
    "set app.password to hunter2",
    // As data.
    "insert into users (name, password) values ('a', 'hunter2')",
    "insert into users (name, password) values ('a', \"hunter2\")",
    "insert into users (name, password) values ('a', hunter2)",
    "insert into users (number, password) values ('hunter2', 'hunter2')",
    "insert into users (name, token) values ('a', 'hunter2'), ('a', 'hunter2')",
    "update users set password = 'hunter2', number = null",
    "update users set password = \"hunter2\"",
    "select * from users where password = hunter2",
    "copy users (password) from '/hunter2'",
    "comment on column users.password is 'hunter2'",
    "alter table users alter password set default 'hunter2', add check (password <> 'hunter2')",
    "create table passwords (password text not null default \"hunter2\")",
    "create view v as select 'hunter2' as password",
    "select json_object('{password, hunter2}'), 1/0",
    "select jsonb_build_object('password', 'hunter2'), 1/0",
    "select '{\"password\": hunter2}'::jsonb",
    "select '{hunter2' ::int[], 'password'",
    "select ('{\"password\": \"hunter2\"}'::jsonb ->> 'password')::int",
    "select 'hunter2'::int as password",
    // Only the server puts it together.
    "select ('hun' || 'ter2')::int as password",
    "select E'\\x68unter2'::int as password",
    "select ('hunt'\n'er2')::int as password",
    // In a comment.
    "select 1 /* the password is hunter2 */",
    "select 1 /* the password is hunter2",
    "-- the password is hunter2\nselect 1",
    "select 1 -- password: hunter2\n",
    // Other words than password.
    "select 'hunter2'::int as token",
    "select 'hunter2'::int as client_secret",
    "select 'hunter2'::int as \"apiKey\"",
    "select 'hunter2'::int as api_key",
    "select 'hunter2'::int as passphrase",
    "select 'hunter2'::int as pwd",
    "select 'hunter2'::int as aws_access_key",
    "select 'hunter2'::int as private_key",
    "select 'hunter2'::int as credentials",
    "select 'Bearer hunter2'::int",
    "select crypt('hunter2', gen_salt('bf')), 1/0",
    "select crypt(\"hunter2\", gen_salt('bf'))",
    "select hmac('data', 'hunter2', 'sha256'), 1/0",
    "select pgp_sym_encrypt('data', 'hunter2'), 1/0",
    // To connect elsewhere.
    "create server s foreign data wrapper w options (password 'hunter2')",
    "create user mapping for public server s options (user 'u', password hunter2)",
    "create subscription s connection 'host=h password=hunter2' publication p",
    "select dblink_connect('postgres://u:hunter2@h/d')",
    "select dblink_connect(postgres://u:hunter2@h/d)",
];

#[test]
fn a_secret_in_a_statement_is_in_no_output_however_it_is_written() {
    let database = Database::fresh();
    let role = unique("role");
    database.execute(&format!(
        "create role {role}; create table users (name text not null, password text, \
         token text unique, number int not null default 0); insert into users (name) values ('a')"
    ));
    let mut printed = Vec::new();
    for way in WAYS {
        assert!(way.contains(PLANTED) || way.contains("ter2") || way.contains("er2"), "{way}");
        let way = way.replace("ROLE", &role);
        for file in [format!("{way} non sense"), format!("{way};\nselect nothing")] {
            for format in ["text", "json"] {
                let folder = Folder::drizzle0(&[("0000_a", &file)]);
                let run = premigrate(&database, &folder).args(&["--format", format]).run();
                assert!([65, 70].contains(&run.code), "{file}\n{}", run.stderr);
                assert!(run.stderr.contains("0000_a"), "{file}\n{}", run.stderr);
                if format!("{}{}", run.stdout, run.stderr).to_lowercase().contains(PLANTED) {
                    printed.push(format!("{file}\n{}", run.stderr));
                }
            }
        }
    }
    assert!(printed.is_empty(), "{} printed:\n{}", printed.len(), printed.join("\n----\n"));
}

/// Errors that have no place in the file, or are only reported on the way.
#[test]
fn a_secret_that_a_trigger_or_a_retry_tells_is_in_no_output() {
    let database = Database::fresh();
    database.execute("create table users (password text)");
    let deferred = "create function tell() returns trigger language plpgsql as $$ begin \
                    raise exception 'not %', new.password; end $$;\n\
                    create constraint trigger tells after insert on users deferrable \
                    initially deferred for each row execute function tell();\n\
                    insert into users values ('hunter2')";
    let retried = "do $$ declare password text := 'hunter2'; begin \
                   raise exception 'not %', password using errcode = '40001'; end $$";
    let alone = "-- premigrate: no-transaction\n\
                 create index concurrently on users ((password::int + 'hunter2'::int))";
    let data = "copy users (password) from stdin;\na\nhunter2\tb\n\\.\n";
    for (file, code) in [(deferred, 70), (retried, 75), (alone, 70), (data, 70)] {
        for format in ["text", "json"] {
            let folder = Folder::drizzle0(&[("0000_a", file)]);
            let run = premigrate(&database, &folder);
            let run = run.args(&["--format", format, "--lock-retries", "1"]).run().exits(code);
            assert!(!run.stderr.contains(PLANTED), "{}", run.stderr);
        }
    }
}

#[test]
fn a_table_with_a_column_for_passwords_stays_readable() {
    let database = Database::fresh();
    let table = "create table users (password text default '', token int) nonsense";
    let folder = Folder::drizzle0(&[("0000_a", table)]);
    premigrate(&database, &folder).run().exits(70).says(&[table, "at or near \"nonsense\""]);
    let folder = Folder::drizzle0(&[("0000_a", "create index on users (passwrd);")]);
    database.execute("create table users (password text)");
    premigrate(&database, &folder)
        .run()
        .exits(70)
        .says(&["create index on users (passwrd);", "column \"passwrd\" does not exist"]);
}

/// What many quotes, words and URLs cost is no more than what as much of other text costs.
#[test]
fn ten_megabytes_of_what_looks_like_secrets_are_reported_soon() {
    let database = Database::fresh();
    let pieces = "'' password :// password=''x'' postgres://a:b@c \" -- /* $a (( ,";
    let many = pieces.repeat(10_000_000 / pieces.len());
    let told = format!("do $do$ begin raise exception '%', 'pwd {many}'; end $do$");
    let held = format!("select 'pwd {many}';\nselect nothing");
    for file in [told, held] {
        let folder = Folder::drizzle0(&[("0000_a", &file)]);
        let began = Instant::now();
        let run = premigrate(&database, &folder).args(&["--format", "json"]).run().exits(70);
        assert!(run.stderr.contains("***"));
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    }
}
