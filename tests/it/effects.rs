//! What `check` says that statements do is what they do on a server.

pub mod examples;

use std::collections::BTreeSet;

use postgres::Client;
use premigrate::effects::{Effect, Hazard, Reader, Work};
use premigrate::migrations::rule::Rule;
use premigrate::migrations::steps::Steps;
use premigrate::sql::LockMode;
use premigrate::sql::{Kind, Script};

use self::examples::{EXAMPLES, Example, TABLES};
use crate::harness::{Database, Folder, has_since, premigrate, rows};

/// The hazards of each migration after the first, which is there already.
fn hazards(there: &str, migrations: &[&str]) -> Vec<Vec<Hazard>> {
    let mut reader = Reader::knowing_new();
    let mut read = |sql: &str, is_new: bool| {
        let script = Script::parse(sql);
        reader.read(&script, &Steps::split(&script), is_new)
    };
    assert_eq!(read(there, false), []);
    let mut found: Vec<_> = migrations.iter().map(|sql| read(sql, true)).collect();
    for (number, hazards) in reader.finish() {
        found[number - 1].extend(hazards);
    }
    found
}

impl Example {
    fn there(&self) -> String {
        format!("{TABLES}{}", self.before)
    }

    /// A session with the tables.
    fn session(&self) -> (Database, Client) {
        let database = Database::fresh();
        let mut client = database.client();
        client
            .batch_execute(&self.there())
            .unwrap_or_else(|error| panic!("{}: {error:?}", self.before));
        (database, client)
    }
}

#[test]
fn each_rule_has_a_bad_and_a_good_example() {
    // No example is as long as that.
    let about = |rule: &&Rule| rule.is_about_effects() && **rule != Rule::NotRead;
    let rules: BTreeSet<_> = Rule::ALL.iter().filter(about).map(|rule| rule.name()).collect();
    let bad: BTreeSet<_> = EXAMPLES.iter().map(|example| example.rule).collect();
    assert_eq!(bad, rules);
    for example in EXAMPLES {
        let found = hazards(&example.there(), &[example.bad]).concat();
        let rules: Vec<_> = found.iter().map(|hazard| hazard.rule.name()).collect();
        assert!(rules.contains(&example.rule), "{}: {rules:?}", example.bad);
        for (sql, found) in example.good.iter().zip(hazards(&example.there(), example.good)) {
            let is_wrong = |rule: &Rule| rule.can_block() || rule.name() == example.rule;
            let rules: Vec<_> = found.iter().map(|hazard| hazard.rule).filter(is_wrong).collect();
            assert_eq!(rules, [], "{sql}");
        }
    }
}

/// The examples that this server has all of.
fn examples() -> impl Iterator<Item = &'static Example> {
    EXAMPLES.iter().filter(|example| has_since(example.since, example.bad))
}

/// What a statement has done to a table, as the server says it.
#[derive(Debug)]
pub struct Trace {
    pub table: String,
    lock: Option<LockMode>,
    work: Work,
}

impl Trace {
    /// Whether others have waited for long.
    pub fn blocks(&self) -> bool {
        self.lock.is_some_and(|lock| lock >= LockMode::Share) && self.work != Work::None
    }

    /// Fails the test unless this is what a rule says of the statement, whose locks are gone if it ran alone.
    pub fn is_as_said(&self, sql: &str, is_alone: bool, rule: Rule, effect: &Effect) {
        let Trace { table, lock, work } = self;
        if !is_alone {
            assert_eq!(*lock, Some(effect.lock), "{rule}, {table}: {sql}");
        }
        // That of lock-held is the work of another statement.
        if rule != Rule::LockHeld {
            assert_eq!(*work, effect.work, "{rule}, {table}: {sql}");
        }
    }
}

/// The tables, each with its file and how often it has been read from end to end.
fn tables(client: &mut Client) -> Vec<(String, String, String)> {
    let sql = "select format('%s|%s|%s', oid::regclass, relfilenode, pg_stat_get_xact_numscans(oid)
                             + (select coalesce(sum(pg_stat_get_xact_numscans(relid)), 0)
                                from pg_partition_tree(oid) where level > 0))
               from pg_class where relkind in ('r', 'p') and oid >= 16384";
    let table = |row: String| {
        let mut parts = row.split('|').map(str::to_owned);
        let mut next = || parts.next().unwrap();
        (next(), next(), next())
    };
    rows(client, sql).into_iter().map(table).collect()
}

fn strongest_lock(client: &mut Client, table: &str) -> Option<LockMode> {
    let sql = format!(
        "select mode from pg_locks where pid = pg_backend_pid() and relation = to_regclass('{table}')"
    );
    let modes = rows(client, &sql);
    let held = modes.iter().filter_map(|mode| LockMode::parse(mode));
    held.filter(|mode| *mode >= LockMode::RowExclusive).max()
}

/// Runs a statement in the open transaction, and says what it has done to each table that was there.
pub fn trace(client: &mut Client, sql: &str) -> Result<Vec<Trace>, postgres::Error> {
    let before = tables(client);
    client.batch_execute(sql)?;
    let after = tables(client);
    let traces = before.into_iter().map(|(table, file, scans)| {
        let now = after.iter().find(|(now, ..)| *now == table);
        let work = match now {
            Some((_, now, _)) if *now != file => Work::Rewrite,
            Some((.., now)) if *now != scans => Work::Scan,
            _ => Work::None,
        };
        let lock = strongest_lock(client, &table);
        Trace { table, lock, work }
    });
    Ok(traces.collect())
}

/// Each with whether it runs outside of a transaction.
pub fn statements(sql: &str) -> Vec<(String, bool)> {
    let script = Script::parse(sql);
    let statements = script.statements().iter().map(|statement| {
        let is_alone = matches!(statement.kind, Kind::NoTransactionBlock(_));
        (statement.text.to_owned(), is_alone)
    });
    statements.collect()
}

#[test]
fn the_server_takes_the_locks_and_does_the_work_that_the_findings_say() {
    for example in examples() {
        let found = hazards(&example.there(), &[example.bad]).concat();
        let (_database, mut client) = example.session();
        let mut is_open = false;
        for (index, (sql, is_alone)) in statements(example.bad).into_iter().enumerate() {
            let of_statement = found.iter().filter(|hazard| hazard.statement == index);
            let claims =
                of_statement.filter_map(|hazard| Some((hazard.rule, hazard.effect.clone()?)));
            let claims: Vec<(Rule, Effect)> = claims.collect();
            if !is_open && !is_alone {
                client.batch_execute("begin").unwrap();
                is_open = true;
            }
            let traced = match trace(&mut client, &sql) {
                Ok(traced) => traced,
                Err(error) => {
                    assert_eq!(example.rule, "required-column", "{sql}: {error:?}");
                    assert_eq!(error.code().map(|code| code.code()), Some("23502"));
                    continue;
                }
            };
            for (rule, effect) in claims {
                let done = traced.iter().find(|traced| traced.table == effect.table.to_string());
                let Some(done) = done else { panic!("{sql}: {} is not there", effect.table) };
                done.is_as_said(&sql, is_alone, rule, &effect);
            }
        }
    }
}

#[test]
fn what_is_not_found_keeps_nobody_from_a_table_for_long() {
    for example in examples() {
        let (_database, mut client) = example.session();
        for sql in example.good {
            let parts = statements(sql);
            if parts.iter().any(|(_, is_alone)| *is_alone) {
                for (part, _) in parts {
                    client.batch_execute(&part).unwrap_or_else(|error| panic!("{part}: {error:?}"));
                }
                continue;
            }
            let there = tables(&mut client);
            client.batch_execute("begin").unwrap();
            for (part, _) in parts {
                // VALIDATE and SET NOT NULL in one transaction: the first scans, before the lock of the second.
                let traced =
                    trace(&mut client, &part).unwrap_or_else(|error| panic!("{part}: {error:?}"));
                let is_there =
                    |traced: &&Trace| there.iter().any(|(there, ..)| *there == traced.table);
                let blocking = traced.iter().filter(is_there).find(|traced| traced.blocks());
                assert!(blocking.is_none(), "{part}: {blocking:?}");
            }
            client.batch_execute("commit").unwrap();
        }
    }
}

#[test]
fn a_patch_does_what_it_replaces_and_has_no_finding_that_can_block() {
    for example in examples() {
        if example.rule == "detach-locks" && !has_since(14, "DETACH ... CONCURRENTLY") {
            continue;
        }
        let there = example.there();
        let found = hazards(&there, &[example.bad]).concat();
        let of_rule = |hazard: &&Hazard| hazard.rule.name() == example.rule;
        let Some(patch) = found.iter().find(of_rule).and_then(|hazard| hazard.patch.clone()) else {
            continue;
        };
        // What is not in the patch stays.
        let now = match example.rule {
            "validate-same-transaction" => example.bad.split(';').next().unwrap().to_owned(),
            "fk-without-index" => format!("{}; {}", example.bad, patch.now),
            _ => patch.now.clone(),
        };
        let migrations: Vec<&str> =
            [now.as_str()].into_iter().chain(patch.later.iter().map(String::as_str)).collect();
        for (sql, found) in migrations.iter().zip(hazards(&there, &migrations)) {
            let blocking = found.iter().filter(|hazard| hazard.rule.can_block());
            assert_eq!(blocking.count(), 0, "{sql}: {found:?}");
        }
        let (patched, folder) = (Database::fresh(), Folder::drizzle0(&[("0000_there", &there)]));
        for (number, sql) in migrations.iter().enumerate() {
            folder.add(&format!("000{}_patch", number + 1), sql);
            premigrate(&patched, &folder).run().exits(0);
            let batch = patch.batch.replace("= ...", "= 1");
            let mut client = patched.client();
            while number == 0 && !batch.is_empty() && client.execute(&batch, &[]).unwrap() > 0 {}
        }
        let (replaced, mut client) = example.session();
        if example.rule == "required-column" {
            client.batch_execute("truncate t").unwrap();
        }
        for (sql, _) in statements(example.bad) {
            client.batch_execute(&sql).unwrap();
        }
        // What the first two add, and names that PostgreSQL chooses.
        let differs = ["fk-without-index", "detach-locks", "partitioned-index"];
        if !differs.contains(&example.rule) {
            assert_eq!(shape(&patched), shape(&replaced), "{patch}");
        }
    }
}

/// The columns, constraints and indexes of all tables.
fn shape(database: &Database) -> Vec<String> {
    database.rows(
        "select format('%s.%s %s %s %s', attrelid::regclass, attname, atttypid::regtype, attnotnull,
                       pg_get_expr(adbin, adrelid))
         from pg_attribute join pg_class c on c.oid = attrelid
              left join pg_attrdef on adrelid = attrelid and adnum = attnum
         where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and attnum > 0
               and not attisdropped
         union all
         select format('%s %s %s %s', conrelid::regclass, conname, convalidated,
                       pg_get_constraintdef(oid))
         from pg_constraint where connamespace = 'public'::regnamespace
         union all
         select format('%s %s', pg_get_indexdef(indexrelid), indisvalid)
         from pg_index join pg_class c on c.oid = indexrelid
         where relnamespace = 'public'::regnamespace
         union all select format('%s %s', inhrelid::regclass, inhparent::regclass) from pg_inherits
         order by 1",
    )
}
