//! What the server says while statements run: NOTICE, WARNING, INFO. Pure.
//!
//! A flood of them is counted and not kept, so that it takes no memory.

use std::mem;

use serde::Serialize;

use crate::postgres::server_error::ServerError;

/// Which notices are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoticeLevel {
    #[default]
    Nothing,
    Warning,
    /// WARNING, and NOTICE without what IF [NOT] EXISTS skips.
    Notice,
    /// All.
    Info,
}

/// One notice, with its passwords masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// In English, whatever `lc_messages` is.
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// The functions of the server whose only notice is that something is not there.
const SKIPPING: [&str; 15] = [
    "ATExecDropColumn",
    "ATExecDropConstraint",
    "ATExecDropExpression",
    "ATExecDropIdentity",
    "AlterSequence",
    "AlterTableNamespace",
    "DropErrorMsgNonExistent",
    "DropRole",
    "DropSubscription",
    "DropTableSpace",
    "RemoveUserMapping",
    "RenameRelation",
    "does_not_exist_skipping",
    "dropdb",
    "renameatt",
];

/// How many are kept of one subject: so many warnings, and so many others.
const MAX_KEPT: usize = 50;
/// How many characters of a text are kept.
const MAX_LENGTH: usize = 2000;

/// The notices about one subject.
#[derive(Debug, Default)]
pub struct Notices {
    level: NoticeLevel,
    subject: String,
    /// Those that nobody has taken yet.
    kept: Vec<Notice>,
    warning_count: usize,
    other_count: usize,
    left_out: usize,
}

/// What decides on a notice.
#[derive(Clone, Copy, Debug)]
pub struct NoticeKind<'a> {
    pub severity: &'a str,
    pub sqlstate: &'a str,
    pub message: &'a str,
    /// The function of the server that raised it.
    pub routine: Option<&'a str>,
}

impl Notices {
    /// Begins to keep notices; those about the same subject count together.
    pub fn begin(&mut self, subject: &str, level: NoticeLevel) {
        if self.subject != subject {
            *self = Notices { subject: subject.to_owned(), ..Notices::default() };
        }
        self.level = level;
    }

    /// Keeps a notice, or counts it.
    pub fn add(&mut self, kind: NoticeKind<'_>, notice: impl FnOnce() -> ServerError) {
        if kind.level() > self.level {
            return;
        }
        let count = match kind.level() {
            NoticeLevel::Warning => &mut self.warning_count,
            _ => &mut self.other_count,
        };
        *count = count.saturating_add(1);
        if *count <= MAX_KEPT {
            self.kept.push(Notice::new(notice()));
        } else {
            self.left_out += 1;
        }
    }

    /// Those that came since the last call.
    pub fn take(&mut self) -> Vec<Notice> {
        mem::take(&mut self.kept)
    }

    /// Stops keeping notices. Returns how many were left out.
    pub fn end(&mut self) -> usize {
        self.level = NoticeLevel::Nothing;
        mem::take(&mut self.left_out)
    }
}

impl NoticeKind<'_> {
    /// The least level at which it is reported.
    fn level(self) -> NoticeLevel {
        match self.severity {
            "WARNING" => NoticeLevel::Warning,
            "NOTICE" if !self.is_skip() => NoticeLevel::Notice,
            _ => NoticeLevel::Info,
        }
    }

    /// Whether IF EXISTS or IF NOT EXISTS has skipped something. That a thing exists has a code of
    /// its own; that it does not has none, so that these go by the function, and by the English
    /// message where the function may have others.
    fn is_skip(self) -> bool {
        match self.routine {
            // RAISE
            Some("exec_stmt_raise") => false,
            Some(routine) if SKIPPING.contains(&routine) => true,
            _ => match self.sqlstate {
                "42P07" | "42710" | "42701" | "42P06" => true,
                _ => self.message.ends_with(", skipping"),
            },
        }
    }
}

impl Notice {
    fn new(notice: ServerError) -> Notice {
        let shortened = |text: String| match text.char_indices().nth(MAX_LENGTH) {
            Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
            None => text,
        };
        Notice {
            severity: notice.severity,
            sqlstate: notice.code,
            message: shortened(notice.message),
            detail: notice.detail.map(shortened),
            hint: notice.hint.map(shortened),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<'a>(severity: &'a str, sqlstate: &'a str, routine: &'a str) -> NoticeKind<'a> {
        NoticeKind { severity, sqlstate, message: "", routine: Some(routine) }
    }

    #[test]
    fn what_if_exists_skips_is_only_reported_with_everything() {
        use NoticeLevel::{Info, Notice, Warning};
        for (kind, level) in [
            (kind("WARNING", "01000", "exec_stmt_raise"), Warning),
            (kind("NOTICE", "00000", "exec_stmt_raise"), Notice),
            (kind("NOTICE", "42P07", "exec_stmt_raise"), Notice),
            (kind("NOTICE", "00000", "reportDependentObjects"), Notice),
            (kind("NOTICE", "42P07", "transformCreateStmt"), Info),
            (kind("NOTICE", "00000", "does_not_exist_skipping"), Info),
            (kind("NOTICE", "00000", "DropRole"), Info),
            (kind("WARNING", "00000", "DropRole"), Warning),
            (kind("INFO", "00000", "heap_vacuum_rel"), Info),
        ] {
            assert_eq!(kind.level(), level, "{kind:?}");
        }
        let message = "role \"a\" does not exist, skipping";
        let skipped = NoticeKind { message, ..kind("NOTICE", "00000", "ProcessUtilitySlow") };
        assert_eq!(skipped.level(), Info);
    }

    #[test]
    fn a_flood_is_counted_and_not_kept_and_warnings_still_get_through() {
        let (mut notices, mut made) = (Notices::default(), 0);
        let mut add = |notices: &mut Notices, severity| {
            notices.add(kind(severity, "00000", "exec_stmt_raise"), || {
                made += 1;
                let message = "x".repeat(3000);
                ServerError { severity: severity.to_owned(), message, ..ServerError::default() }
            });
        };
        add(&mut notices, "NOTICE");
        notices.begin("0000_a", NoticeLevel::Notice);
        for _ in 0..1000 {
            add(&mut notices, "NOTICE");
        }
        add(&mut notices, "INFO");
        let kept = notices.take();
        assert_eq!(kept.len(), MAX_KEPT);
        assert!(kept.iter().all(|notice| notice.message.len() == MAX_LENGTH + 3));
        assert_eq!(notices.end(), 1000 - MAX_KEPT);
        // The next step of the same migration.
        notices.begin("0000_a", NoticeLevel::Notice);
        add(&mut notices, "NOTICE");
        add(&mut notices, "WARNING");
        assert_eq!((notices.take().len(), notices.end()), (1, 1));
        notices.begin("0001_b", NoticeLevel::Notice);
        add(&mut notices, "NOTICE");
        assert_eq!((notices.take().len(), notices.end()), (1, 0));
        assert_eq!(made, MAX_KEPT + 2);
    }
}
