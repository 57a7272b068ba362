//! The modes of table locks.

use std::fmt;

use serde::Serialize;

/// The modes of PostgreSQL's table locks, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum LockMode {
    #[serde(rename = "ACCESS SHARE")]
    AccessShare,
    #[serde(rename = "ROW SHARE")]
    RowShare,
    #[serde(rename = "ROW EXCLUSIVE")]
    RowExclusive,
    #[serde(rename = "SHARE UPDATE EXCLUSIVE")]
    ShareUpdateExclusive,
    #[serde(rename = "SHARE")]
    Share,
    #[serde(rename = "SHARE ROW EXCLUSIVE")]
    ShareRowExclusive,
    #[serde(rename = "EXCLUSIVE")]
    Exclusive,
    #[serde(rename = "ACCESS EXCLUSIVE")]
    AccessExclusive,
}

/// What waits while a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// VACUUM and other changes of the schema.
    Maintenance,
    Writes,
    ReadsAndWrites,
}

impl LockMode {
    pub const ALL: [LockMode; 8] = [
        LockMode::AccessShare,
        LockMode::RowShare,
        LockMode::RowExclusive,
        LockMode::ShareUpdateExclusive,
        LockMode::Share,
        LockMode::ShareRowExclusive,
        LockMode::Exclusive,
        LockMode::AccessExclusive,
    ];

    /// As the documentation has it, such as `ACCESS EXCLUSIVE`.
    pub fn name(self) -> &'static str {
        match self {
            LockMode::AccessShare => "ACCESS SHARE",
            LockMode::RowShare => "ROW SHARE",
            LockMode::RowExclusive => "ROW EXCLUSIVE",
            LockMode::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            LockMode::Share => "SHARE",
            LockMode::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            LockMode::Exclusive => "EXCLUSIVE",
            LockMode::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// From `pg_locks.mode`, such as `AccessExclusiveLock`.
    pub fn parse(text: &str) -> Option<LockMode> {
        let name = text.strip_suffix("Lock")?;
        LockMode::ALL.into_iter().find(|mode| {
            let words = mode.name().split(' ').flat_map(str::chars);
            words.eq(name.chars().map(|c| c.to_ascii_uppercase()))
        })
    }

    /// What waits for it beside what changes the schema in the same way.
    pub fn queue(self) -> Option<Queue> {
        match self {
            LockMode::AccessShare | LockMode::RowShare | LockMode::RowExclusive => None,
            LockMode::ShareUpdateExclusive => Some(Queue::Maintenance),
            LockMode::Share | LockMode::ShareRowExclusive | LockMode::Exclusive => {
                Some(Queue::Writes)
            }
            LockMode::AccessExclusive => Some(Queue::ReadsAndWrites),
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modes_are_parsed_as_pg_locks_has_them() {
        for (text, mode) in [
            ("AccessShareLock", Some(LockMode::AccessShare)),
            ("ShareRowExclusiveLock", Some(LockMode::ShareRowExclusive)),
            ("ShareLock", Some(LockMode::Share)),
            ("SIReadLock", None),
            ("", None),
        ] {
            assert_eq!(LockMode::parse(text), mode, "{text}");
        }
    }
}
