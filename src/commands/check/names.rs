//! What a check finds in the names of plain files, which decide their order.

use std::cmp::Ordering;
use std::fmt;

use super::finding::Findings;
use crate::migrations::migration::Migration;
use crate::migrations::rule::Rule;

impl Findings {
    pub(super) fn names(&mut self, migrations: &[Migration]) {
        self.number_kinds(migrations);
        for pair in migrations.windows(2) {
            let [a, b] = pair else { continue };
            self.same_number(a, b);
            self.number_after_word(a, b);
        }
    }

    /// Numbers that count differently have an order, but hardly the one that was meant: the first of
    /// each kind.
    fn number_kinds(&mut self, migrations: &[Migration]) {
        let mut seen: Vec<(NumberKind, &str)> = Vec::new();
        for Migration { name, file, .. } in migrations {
            let kind = NumberKind::of(name);
            let Some(kind) = kind.filter(|kind| seen.iter().all(|(other, _)| other != kind)) else {
                continue;
            };
            if let Some((last_kind, last)) = seen.last() {
                let message = format!(
                    "the name begins with {kind}, but that of {last} with {last_kind}: they run in \
                     the order of these numbers; begin each new name like the last one"
                );
                self.of_file(file, Rule::MixedNumbers, message);
            }
            seen.push((kind, file));
        }
    }

    fn same_number(&mut self, a: &Migration, b: &Migration) {
        let (first, second) = (digits(&a.name), digits(&b.name));
        let is_same = first.trim_start_matches('0') == second.trim_start_matches('0');
        if is_same && !first.is_empty() && !second.is_empty() {
            let message = format!(
                "the number {second} is that of {} too, so the rest of the names decides which runs \
                 first; give it a number of its own unless it is applied already",
                a.file
            );
            self.of_file(&b.file, Rule::SameNumber, message);
        }
    }

    /// `step10` runs before `step2`, since only a number at the start counts.
    fn number_after_word(&mut self, a: &Migration, b: &Migration) {
        let word = |name: &str| name.find(|c: char| c.is_ascii_digit()).filter(|&at| at > 0);
        let (Some(at), Some(other)) = (word(&a.name), word(&b.name)) else { return };
        let (Some((word, first)), Some((same, second))) =
            (a.name.split_at_checked(at), b.name.split_at_checked(other))
        else {
            return;
        };
        let (first, second) = (digits(first), digits(second));
        if word == same && compare_numbers(first, second) == Ordering::Greater {
            let message = format!(
                "the file runs after {}, because only a number at the start of a name counts; write \
                 the numbers with as many digits unless they are applied already",
                a.file
            );
            self.of_file(&b.file, Rule::NumberOrder, message);
        }
    }
}

fn digits(name: &str) -> &str {
    name.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default()
}

fn compare_numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    (a.len(), a).cmp(&(b.len(), b))
}

/// What the number at the start of a name counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NumberKind {
    Counter,
    Date,
    Timestamp,
    Seconds,
    Milliseconds,
}

impl NumberKind {
    fn of(name: &str) -> Option<NumberKind> {
        let digits = digits(name);
        let is_year = digits.starts_with("19") || digits.starts_with("20");
        match digits.len() {
            0 => None,
            8 if is_year => Some(NumberKind::Date),
            12 | 14 if is_year => Some(NumberKind::Timestamp),
            10 if digits.starts_with('1') => Some(NumberKind::Seconds),
            13 if digits.starts_with('1') => Some(NumberKind::Milliseconds),
            _ => Some(NumberKind::Counter),
        }
    }
}

impl fmt::Display for NumberKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NumberKind::Counter => "a counter",
            NumberKind::Date => "a date",
            NumberKind::Timestamp => "a date and time",
            NumberKind::Seconds => "seconds since 1970",
            NumberKind::Milliseconds => "milliseconds since 1970",
        })
    }
}
