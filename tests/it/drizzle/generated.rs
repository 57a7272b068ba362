//! All that drizzle-kit's generator writes is read, and is found to do what it does on a server.

use std::fmt::Write;

use expect_test::{ExpectFile, expect_file};
use premigrate::effects::{Hazard, Reader, Work};
use premigrate::migrations::rule::Rule;
use premigrate::migrations::steps::Steps;
use premigrate::sql::{Kind, MARKER, Script};
use serde::Deserialize;
use squawk_syntax::SourceFile;

use super::Drizzle::{self, V0, V1};
use super::{finish, node};
use crate::effects::trace;
use crate::harness::{Database, has_since, unique};

/// A migration.
#[derive(Deserialize)]
struct Generated {
    what: String,
    statements: Vec<String>,
}

fn generated(drizzle: Drizzle, role: &str) -> Vec<Generated> {
    let home = drizzle.home();
    let version = home.file_name().expect("v0 or v1");
    let script = home.with_file_name("generate.mjs");
    let run = finish(node().arg(script).arg(version).arg(role)).exits(0);
    let migrations = run.stdout.lines().map(|line| serde_json::from_str(line).expect(line));
    migrations.collect()
}

/// What check says of a statement, each in a line.
fn said(hazard: &Hazard) -> String {
    let work = |work| match work {
        Work::None => "",
        Work::Scan => ", scanned",
        Work::Rewrite => ", rewritten",
    };
    let effect = hazard.effect.as_ref();
    let effect = effect.map(|it| format!(": {} on {}{}", it.lock, it.table, work(it.work)));
    format!("    {}{}\n", hazard.rule, effect.unwrap_or_default())
}

/// Runs each migration on a server, and compares what its statements do with what is found, which is all that
/// keeps others waiting for long. Returns the statements, each with what is found about it.
fn compared(drizzle: Drizzle) -> String {
    let (database, role) = (Database::fresh(), unique("role"));
    let mut client = database.client();
    // Otherwise a timestamp is stored as one with a time zone is.
    client.batch_execute("set timezone to 'Europe/Berlin'").unwrap();
    let has_nulls = has_since(15, "NULLS NOT DISTINCT");
    let mut reader = Reader::default();
    let mut text = String::new();
    for Generated { what, statements } in generated(drizzle, &role) {
        let sql = statements.join(&format!("{MARKER}\n"));
        let script = Script::parse(&sql);
        let steps = Steps::split(&script);
        let found = reader.read(&script, &steps, true);
        writeln!(text, "-- {what}").unwrap();
        let there = database.tables();
        for (index, statement) in script.statements().iter().enumerate() {
            let errors = SourceFile::parse(statement.text).errors();
            assert!(errors.is_empty(), "{}: {errors:?}", statement.text);
            let is_alone = matches!(statement.kind, Kind::NoTransactionBlock(_));
            // Each in its own transaction, so that no lock of an earlier one is left.
            if !is_alone {
                client.batch_execute("begin").unwrap();
            }
            let traced = match has_nulls {
                true => trace(&mut client, statement.text),
                false => trace(&mut client, &statement.text.replace("NULLS NOT DISTINCT", "")),
            };
            let traced = traced.unwrap_or_else(|error| panic!("{}: {error:?}", statement.text));
            if !is_alone {
                client.batch_execute("commit").unwrap();
            }
            writeln!(text, "{};", statement.text.replace(&role, "ROLE")).unwrap();
            let of_statement: Vec<_> =
                found.iter().filter(|hazard| hazard.statement == index).collect();
            for hazard in &of_statement {
                text.push_str(&said(hazard));
                let effect = hazard.effect.as_ref().filter(|_| hazard.rule != Rule::LockHeld);
                let Some(effect) = effect else { continue };
                let done = traced.iter().find(|traced| traced.table == effect.table.to_string());
                let Some(done) = done else { panic!("{}: no {}", statement.text, effect.table) };
                done.is_as_said(statement.text, is_alone, hazard.rule, effect);
            }
            for traced in traced.iter().filter(|it| it.blocks() && there.contains(&it.table)) {
                let is_told = |hazard: &Hazard| {
                    let effect = hazard.effect.as_ref().filter(|_| hazard.rule.can_block());
                    let is_of_table =
                        effect.is_some_and(|effect| effect.table.to_string() == traced.table);
                    match hazard.rule {
                        // The first rewrite of an enum's column is reported with the second one.
                        Rule::EnumRecreated => is_of_table,
                        // The scan ends at the first row, with an error.
                        Rule::RequiredColumn => hazard.statement == index,
                        _ => is_of_table && hazard.statement == index,
                    }
                };
                assert!(found.iter().any(is_told), "{}: {traced:?}", statement.text);
            }
        }
        text.push('\n');
    }
    text
}

fn is_as_expected(drizzle: Drizzle, expected: &ExpectFile) {
    expected.assert_eq(&compared(drizzle));
}

#[test]
fn what_drizzle_kit_0x_generates_is_read_and_does_what_is_said() {
    is_as_expected(V0, &expect_file!["generated-0.x.txt"]);
}

#[test]
fn what_drizzle_kit_1x_generates_is_read_and_does_what_is_said() {
    is_as_expected(V1, &expect_file!["generated-1.x.txt"]);
}
