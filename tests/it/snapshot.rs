//! What a run printed, as a whole, beside what it is expected to print: `run.stderr_is(expect![[…]])`.
//! After a change of wording, `UPDATE_EXPECT=1 scripts/test --quick` writes what is printed now into
//! the tests; the diff is to be read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use expect_test::Expect;

use crate::harness::Run;

impl Run {
    /// Fails the test unless this is all that it printed on stderr.
    #[track_caller]
    pub fn stderr_is(self, expected: Expect) -> Run {
        is(&self.stderr, &expected);
        self
    }

    /// Fails the test unless this is all that it printed on stdout.
    #[track_caller]
    pub fn stdout_is(self, expected: Expect) -> Run {
        is(&self.stdout, &expected);
        self
    }

    /// The same for the JSON objects on stderr, one a line, each over several lines.
    #[track_caller]
    pub fn events_are(self, expected: Expect) -> Run {
        is(&over_lines(&self.stderr), &expected);
        self
    }

    /// The same for the last of them.
    #[track_caller]
    pub fn last_event_is(self, expected: Expect) -> Run {
        is(&over_lines(self.stderr.lines().last().unwrap_or_default()), &expected);
        self
    }

    /// The same for the JSON objects on stdout.
    #[track_caller]
    pub fn answers_are(self, expected: Expect) -> Run {
        is(&over_lines(&self.stdout), &expected);
        self
    }

    /// Gives a name to what is different in each run, for the test to compare the rest.
    pub fn with_name(mut self, name: &str, text: &str) -> Run {
        self.stdout = self.stdout.replace(text, name);
        self.stderr = self.stderr.replace(text, name);
        self
    }
}

fn over_lines(objects: &str) -> String {
    let objects = objects.lines().map(|line| {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        format!("{object:#}\n")
    });
    objects.collect()
}

/// Fails the test unless the text, without what differs in each run, is as expected.
#[track_caller]
pub fn is(text: &str, expected: &Expect) {
    /// In a loop the same place is compared more than once, and may be written only once.
    static WRITTEN: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

    let text = masked(text);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let place = format!("{expected:?}");
        let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = written.get_or_insert_default().insert(place, text.clone()) {
            drop(written);
            assert_eq!(before, text, "two texts at one place");
            return;
        }
    }
    expected.assert_eq(&text);
}

/// The text with names in place of what is different in each run: times, process ids, ports, and
/// the folders, databases and roles of a test's own.
pub fn masked(text: &str) -> String {
    let text = text.replace(&format!("{}/", env!("CARGO_TARGET_TMPDIR")), "");
    let text = text.replace(&format!("{}/", std::env::temp_dir().display()), "");
    let mut text = without_unique_names(&text);
    text = without_durations(&text);
    for (before, after) in [
        ("backend ", ""),
        ("PID ", ""),
        ("pid ", ""),
        ("pid = ", ""),
        ("\"pid\": ", ""),
        ("\"pid\": \"", ""),
        ("_backend(", ")"),
    ] {
        text = replaced(&text, before, |c| c.is_ascii_digit(), after, "PID");
    }
    text = replaced(&text, "ms\": ", |c| c.is_ascii_digit(), "", "TIME");
    text = replaced(&text, "/* premigrate ", |c| c.is_ascii_hexdigit(), " */", "TAG");
    for host in ["127.0.0.1:", "localhost:", "[::1]:", "\"port\": "] {
        // The ports that tests fix are below all that the kernel lends.
        let is_lent = |digits: &str| digits.len() == 5;
        text = replaced_if(&text, host, |c| c.is_ascii_digit(), "", "PORT", is_lent);
    }
    for (shape, name) in
        [("0000-00-00 00:00:00", "MOMENT"), ("0000-00-00T00:00:00", "MOMENT"), ("00:00:00", "SPAN")]
    {
        text = without_shape(&text, shape, name);
    }
    text
}

/// Durations that were measured or drawn, or what is left of one, stand behind "in", "up to" and "for",
/// and what is a part of one behind a comma.
fn without_durations(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    let start = |text: &str| {
        [" in ", " up to ", " for ", ", "]
            .iter()
            .filter_map(|word| Some(text.find(word)? + word.len()))
            .min()
    };
    while let Some(at) = start(rest) {
        let (head, tail) = rest.split_at(at);
        result.push_str(head);
        let unit = tail.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let behind = unit.strip_prefix(" ms").or_else(|| unit.strip_prefix(" s"));
        rest = match behind {
            Some(behind) if unit.len() < tail.len() && !behind.starts_with(char::is_alphabetic) => {
                result.push_str("TIME");
                behind
            }
            _ => tail,
        };
    }
    result + rest
}

/// A name from `harness::unique` is a word with three numbers behind it.
fn without_unique_names(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, word) = rest.split_at(start);
        let (word, after) = word.split_at(word.find(|c| !is_word(c)).unwrap_or(word.len()));
        result.push_str(before);
        let parts: Vec<&str> = word.split('_').collect();
        let is_number = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        match parts.windows(3).position(|three| three.iter().all(is_number)) {
            Some(at @ 1..) => {
                let name = match parts[at - 1] {
                    "it" => "DATABASE".to_owned(),
                    name => name.to_uppercase(),
                };
                let named = [&parts[..at - 1], &[name.as_str()], &parts[at + 3..]].concat();
                result.push_str(&named.join("_"));
            }
            _ => result.push_str(word),
        }
        rest = after;
    }
    result + rest
}

fn replaced(
    text: &str,
    before: &str,
    is_part: impl Fn(char) -> bool,
    after: &str,
    name: &str,
) -> String {
    replaced_if(text, before, is_part, after, name, |_| true)
}

/// Replaces what consists of such characters and stands between these texts.
fn replaced_if(
    text: &str,
    before: &str,
    is_part: impl Fn(char) -> bool,
    after: &str,
    name: &str,
    is_meant: impl Fn(&str) -> bool,
) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at + before.len());
        let (part, behind) = tail.split_at(tail.find(|c| !is_part(c)).unwrap_or(tail.len()));
        result.push_str(head);
        let is_it = !part.is_empty() && behind.starts_with(after) && is_meant(part);
        result.push_str(if is_it { name } else { part });
        rest = behind;
    }
    result + rest
}

/// Replaces what has this shape, in which `0` is any digit, with a fraction and a time zone behind.
fn without_shape(text: &str, shape: &str, name: &str) -> String {
    let fits = |text: &str| {
        text.len() >= shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                _ => byte == wanted,
            })
    };
    let mut result = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if fits(rest) {
            result.push_str(name);
            rest = rest[shape.len()..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            if name == "MOMENT" {
                rest = rest.trim_start_matches(|c: char| "+-:Z".contains(c) || c.is_ascii_digit());
            }
        } else {
            result.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    result
}

#[test]
fn what_differs_in_each_run_has_a_name_in_its_place() {
    let folder = crate::harness::unique("folder");
    let database = crate::harness::unique("it");
    let tmp = env!("CARGO_TARGET_TMPDIR");
    for (text, expected) in [
        (
            "applied 0001_a in 12 ms, attempt 2 in 1.5 s",
            "applied 0001_a in TIME, attempt 2 in TIME",
        ),
        ("waiting up to 1.5 s in 2 steps", "waiting up to TIME in 2 steps"),
        (&format!("3 migrations in {tmp}/{folder} (Drizzle)"), "3 migrations in FOLDER (Drizzle)"),
        (&format!("database \"{database}_not\""), "database \"DATABASE_not\""),
        ("20260101_1_2_a", "20260101_1_2_a"),
        (
            "127.0.0.1:45321: refused; 127.0.0.1:1: refused",
            "127.0.0.1:PORT: refused; 127.0.0.1:1: refused",
        ),
        ("backend 4711 of shop, for 00:00:01.25: x", "backend PID of shop, for SPAN: x"),
        ("pg_terminate_backend(4711)", "pg_terminate_backend(PID)"),
        ("'2026-01-02 03:04:05.678+00'", "'MOMENT'"),
        ("/* premigrate 0123456789abcdef */ drop", "/* premigrate TAG */ drop"),
    ] {
        assert_eq!(masked(text), expected);
    }
}
