//! That docs/reference.md has every field of every event and error, and no others.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{errors, events, parsed};
use crate::cli::args::Commands;
use crate::cli::config::Format;

#[path = "../../../tests/it/reference.rs"]
mod reference;

use reference::Reference;

const TEXT: &str = include_str!("../../../docs/reference.md");

fn reference() -> Reference {
    Reference::parse(TEXT)
}

/// Whether this is the row of an exit code.
fn is_of_code(row: &str, code: u8) -> bool {
    let first = row.split('|').nth(1).unwrap_or_default().trim();
    match code {
        129.. => first == "128+n",
        code => first.split(", ").any(|other| other == code.to_string()),
    }
}

fn object(line: &str) -> Map<String, Value> {
    parsed(line).as_object().unwrap().clone()
}

#[test]
fn the_reference_has_every_field_of_every_event() {
    let mut reference = reference();
    let mut names = BTreeSet::new();
    for event in events() {
        let mut object = object(&crate::render::event(&event, Format::Json));
        let name = object.remove("event").unwrap();
        let name = name.as_str().unwrap();
        reference.check(&object, &[("Events", name)]);
        names.insert(name.to_owned());
    }
    assert_eq!(reference.titles("Events"), names);
    assert_eq!(reference.unseen(&["Events"]), [""; 0]);
}

const EVERY_ERROR: (&str, &str) = ("Errors", "every error");
const EVERY_RUN: (&str, &str) = ("Errors", "every error of a command that uses the database");

#[test]
fn the_reference_has_every_field_of_every_error_with_its_exit_code() {
    let mut reference = reference();
    let (mut names, mut mismatches) = (BTreeSet::new(), BTreeSet::new());
    let rows: Vec<&str> = TEXT.lines().filter(|line| line.starts_with("| ")).collect();
    // The progress table is parsed from what a server answers.
    names.insert("bad_progress_table".to_owned());
    for error in errors() {
        let object =
            object(&crate::render::ended(&error, true, Format::Json, &Commands::default()));
        let name = object["error"].as_str().unwrap();
        let mut sections = vec![("Errors", name), EVERY_ERROR];
        if object.contains_key("applied") {
            sections.push(EVERY_RUN);
        }
        if object["event"] == "failed" {
            sections.extend([("Errors", "failed"), ("Objects", "server error")]);
        }
        if let Some(mismatch) = object.get("mismatch").and_then(Value::as_str) {
            sections.push(("History mismatches", mismatch));
            mismatches.insert(mismatch.to_owned());
        }
        reference.check(&object, &sections);
        let (text, code) = (reference.text("Errors", name), error.exit_code());
        let in_text = match code {
            129.. => "128 + n".to_owned(),
            code => code.to_string(),
        };
        assert!(text.contains(&in_text), "{name} ends with {code}: {text}");
        let row =
            rows.iter().find(|row| row.contains(&format!("`{name}`")) && is_of_code(row, code));
        assert!(row.is_some(), "{name} is not in the row of {code}");
        names.insert(name.to_owned());
    }
    let mut titles = reference.titles("Errors");
    titles.retain(|title| !title.starts_with("every error"));
    assert_eq!(titles, names);
    assert_eq!(reference.titles("History mismatches"), mismatches);
    let unseen = reference.unseen(&["Errors", "History mismatches"]);
    let unseen: Vec<_> =
        unseen.iter().filter(|field| !field.starts_with("bad_progress_table.")).collect();
    assert!(unseen.is_empty(), "{unseen:?}");
}
