//! What docs/reference.md says of each object in JSON, compared with real ones.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The fields of every section, by the titles of its group and of itself, such as `Events` and `loaded`.
pub struct Reference(BTreeMap<(String, String), Section>);

#[derive(Default)]
struct Section {
    text: String,
    fields: BTreeMap<String, Field>,
}

struct Field {
    /// What stands in the parentheses.
    kind: String,
    /// Whether some object has it, or a value of each kind.
    seen: BTreeSet<&'static str>,
}

impl Reference {
    pub fn parse(text: &str) -> Reference {
        let mut sections: BTreeMap<_, Section> = BTreeMap::new();
        let (mut group, mut title) = (String::new(), None);
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("### ") {
                (group, title) = (heading.to_owned(), None);
            } else if let Some(heading) = line.strip_prefix("#### ") {
                title = Some(heading.trim_matches('`').to_owned());
            }
            let Some(title) = &title else { continue };
            let section = sections.entry((group.clone(), title.clone())).or_default();
            if let Some(field) = line.strip_prefix("- `") {
                let (name, rest) = field.split_once("` (").expect(line);
                let (kind, _) = rest.split_once("):").or(rest.split_once(")`:")).expect(line);
                let field = Field { kind: kind.to_owned(), seen: BTreeSet::new() };
                assert!(section.fields.insert(name.to_owned(), field).is_none(), "{line}");
            } else {
                section.text.push_str(line);
                section.text.push('\n');
            }
        }
        Reference(sections)
    }

    /// What a section says beside its fields.
    pub fn text(&self, group: &str, title: &str) -> &str {
        let section = self.0.get(&(group.to_owned(), title.to_owned()));
        &section.unwrap_or_else(|| panic!("no section {title:?} in {group:?}")).text
    }

    /// Checks that every field of an object is in one of these sections, with the kind of its value.
    pub fn check(&mut self, object: &Map<String, Value>, sections: &[(&str, &str)]) {
        for (name, value) in object {
            let section = sections.iter().find(|(group, title)| {
                self.0
                    .get(&key(group, title))
                    .is_some_and(|section| section.fields.contains_key(name))
            });
            let (group, title) =
                section.unwrap_or_else(|| panic!("{name} of {object:?} is not in {sections:?}"));
            let field =
                self.0.get_mut(&key(group, title)).and_then(|section| section.fields.get_mut(name));
            let field = field.expect("it was found");
            field.seen.insert(kind_of(value));
            let kind = field.kind.clone();
            assert!(is_of_kind(value, &kind), "{name} of {title} is {value}, and not {kind}");
            self.check_linked(value, &kind);
        }
    }

    /// Checks the objects in a value whose kind has a link to their section.
    fn check_linked(&mut self, value: &Value, kind: &str) {
        let Some((_, link)) = kind.split_once('[') else { return };
        let (title, _) = link.split_once(']').expect("a link");
        let group = self.0.keys().find(|(_, other)| other == title).expect(title).0.clone();
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for object in values.iter().filter_map(Value::as_object) {
            self.check(object, &[(&group, title)]);
        }
    }

    /// The fields of these groups that no object has had, each as `section.field`.
    pub fn unseen(&self, groups: &[&str]) -> Vec<String> {
        let sections = self.0.iter().filter(|((group, _), _)| groups.contains(&group.as_str()));
        let unseen = sections.flat_map(|((_, title), section)| {
            let unseen = section.fields.iter().filter(|(_, field)| field.seen.is_empty());
            unseen.map(move |(name, _)| format!("{title}.{name}"))
        });
        unseen.collect()
    }

    /// The titles in a group.
    pub fn titles(&self, group: &str) -> BTreeSet<String> {
        let keys = self.0.keys().filter(|(other, _)| other == group);
        keys.map(|(_, title)| title.clone()).collect()
    }
}

fn key(group: &str, title: &str) -> (String, String) {
    (group.to_owned(), title.to_owned())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "[",
    }
}

fn is_of_kind(value: &Value, kind: &str) -> bool {
    kind.split(" or ").any(|kind| match (value, kind.strip_prefix("array of ")) {
        (Value::Array(values), Some(kind)) => values.iter().all(|value| is_of_kind(value, kind)),
        (Value::Number(number), None) => kind == "integer" && !number.is_f64(),
        (value, None) => kind.starts_with(kind_of(value)),
        (_, Some(_)) => false,
    })
}
