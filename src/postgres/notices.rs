//! What the server says while statements run: NOTICE, WARNING, INFO. Pure.
//!
//! A flood of them is counted and not kept, so that it takes no memory.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

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

/// The notices about each subject, in the order in which the subjects were begun.
#[derive(Debug, Default)]
pub struct Notices {
    level: NoticeLevel,
    /// What is sent now is about this.
    sending: Option<Arc<str>>,
    subjects: VecDeque<Subject>,
}

/// The notices about one subject.
#[derive(Debug)]
struct Subject {
    name: Arc<str>,
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
    /// What is sent from now on is about this; all notices about the same subject count together.
    pub fn begin(&mut self, subject: &str, level: NoticeLevel) {
        self.level = level;
        if self.of(subject).is_none() {
            self.subjects.push_back(Subject::new(subject));
        }
        self.sending = self.of(subject).map(|it| it.name.clone());
    }

    /// What is sent from now on is about nothing of which anybody reads the notices.
    pub fn end(&mut self) {
        self.sending = None;
    }

    /// What is sent now is about this.
    pub fn sending(&self) -> Option<Arc<str>> {
        self.sending.clone()
    }

    /// Keeps a notice, or counts it.
    pub fn add(
        &mut self,
        subject: &str,
        kind: NoticeKind<'_>,
        notice: impl FnOnce() -> ServerError,
    ) {
        if kind.level() > self.level {
            return;
        }
        if let Some(subject) = self.of(subject) {
            subject.add(kind, notice);
        }
    }

    /// Those about this that came since the last call. Those about what was begun before are
    /// forgotten.
    pub fn take(&mut self, subject: &str) -> Vec<Notice> {
        if let Some(index) = self.index_of(subject) {
            self.subjects.drain(..index);
        }
        self.of(subject).map(|it| mem::take(&mut it.kept)).unwrap_or_default()
    }

    /// How many about this were left out since the last call.
    pub fn left_out(&mut self, subject: &str) -> usize {
        self.of(subject).map(|it| mem::take(&mut it.left_out)).unwrap_or_default()
    }

    /// Forgets what was begun after this: it has failed with it, and will be begun again.
    pub fn forget_after(&mut self, subject: &str) {
        if let Some(index) = self.index_of(subject) {
            self.subjects.truncate(index + 1);
        }
    }

    fn of(&mut self, subject: &str) -> Option<&mut Subject> {
        self.subjects.iter_mut().find(|it| *it.name == *subject)
    }

    fn index_of(&self, subject: &str) -> Option<usize> {
        self.subjects.iter().position(|it| *it.name == *subject)
    }
}

impl Subject {
    fn new(name: &str) -> Subject {
        let name = Arc::from(name);
        Subject { name, kept: Vec::new(), warning_count: 0, other_count: 0, left_out: 0 }
    }

    fn add(&mut self, kind: NoticeKind<'_>, notice: impl FnOnce() -> ServerError) {
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

    fn raised(severity: &str, message: &str) -> ServerError {
        let (severity, message) = (severity.to_owned(), message.to_owned());
        ServerError { severity, message, ..ServerError::default() }
    }

    #[test]
    fn a_flood_is_counted_and_not_kept_and_warnings_still_get_through() {
        let (mut notices, mut made) = (Notices::default(), 0);
        let mut add = |notices: &mut Notices, subject, severity| {
            notices.add(subject, kind(severity, "00000", "exec_stmt_raise"), || {
                made += 1;
                raised(severity, &"x".repeat(3000))
            });
        };
        add(&mut notices, "0000_a", "NOTICE");
        notices.begin("0000_a", NoticeLevel::Notice);
        for _ in 0..1000 {
            add(&mut notices, "0000_a", "NOTICE");
        }
        add(&mut notices, "0000_a", "INFO");
        let kept = notices.take("0000_a");
        assert_eq!((kept.len(), notices.left_out("0000_a")), (MAX_KEPT, 1000 - MAX_KEPT));
        assert!(kept.iter().all(|notice| notice.message.len() == MAX_LENGTH + 3));
        // The next step of the same migration.
        notices.end();
        notices.begin("0000_a", NoticeLevel::Notice);
        add(&mut notices, "0000_a", "NOTICE");
        add(&mut notices, "0000_a", "WARNING");
        assert_eq!((notices.take("0000_a").len(), notices.left_out("0000_a")), (1, 1));
        notices.begin("0001_b", NoticeLevel::Notice);
        add(&mut notices, "0001_b", "NOTICE");
        assert_eq!((notices.take("0001_b").len(), notices.left_out("0001_b")), (1, 0));
        assert_eq!(made, MAX_KEPT + 2);
    }

    #[test]
    fn notices_about_what_was_begun_later_wait_for_their_turn_or_are_forgotten() {
        let mut notices = Notices::default();
        let raise = |notices: &mut Notices, subject: &str, message: &str| {
            let kind = kind("NOTICE", "00000", "exec_stmt_raise");
            notices.add(subject, kind, || raised("NOTICE", message));
        };
        let messages =
            |kept: Vec<Notice>| kept.into_iter().map(|notice| notice.message).collect::<Vec<_>>();
        for subject in ["a", "b", "c"] {
            notices.begin(subject, NoticeLevel::Notice);
            assert_eq!(notices.sending().as_deref(), Some(subject));
        }
        for (subject, message) in [("b", "of b"), ("a", "of a"), ("c", "of c"), ("d", "of none")] {
            raise(&mut notices, subject, message);
        }
        assert_eq!(messages(notices.take("a")), ["of a"]);
        notices.end();
        assert_eq!(notices.sending(), None);
        assert_eq!(messages(notices.take("b")), ["of b"]);
        // It failed, and with it what came after it.
        notices.forget_after("b");
        notices.begin("c", NoticeLevel::Notice);
        raise(&mut notices, "c", "of c again");
        assert_eq!(messages(notices.take("c")), ["of c again"]);
        assert_eq!(messages(notices.take("b")), Vec::<String>::new());
    }
}
