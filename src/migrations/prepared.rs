//! Migrations parsed and split into steps, or the reasons why they cannot be run. Pure.

use std::fmt;

use crate::migrations::down::DownSection;
use crate::migrations::encoding;
use crate::migrations::ignore::{self, DirectiveProblem};
use crate::migrations::migration::Migration;
use crate::migrations::rule::Rule;
use crate::migrations::steps::{Step, Steps};
use crate::sql::{Kind, LineColumn, Positions, Script, Statement, conflict};

#[derive(Debug)]
pub struct PreparedMigration<'a> {
    pub script: Script<'a>,
    pub steps: Steps,
    /// How many steps an earlier run has finished.
    pub done: usize,
}

/// A migration that cannot be run as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRunnable {
    pub file: String,
    pub position: Option<LineColumn>,
    pub reason: Reason,
}

/// Why a migration cannot be run as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The file cannot be read again.
    Unreadable(String),
    /// The file has this encoding, UTF-16 or UTF-32.
    OtherEncoding(&'static str),
    /// The first invalid byte, from 0.
    NotUtf8 {
        offset: usize,
    },
    /// The first NUL byte, from 0. The protocol cannot send one.
    HasNul {
        offset: usize,
    },
    /// This part of the file is another tool's way back.
    DownSection(DownSection),
    /// This statement rolls back the transaction, or prepares it for someone else to commit.
    RollsBack(String),
    /// What this statement creates exists only in its session, and later steps may run in another.
    NeedsSession(&'static str),
    /// COPY from the client, with more SQL where its data has to begin in the next line.
    CopyWithoutData,
    /// COPY to the client.
    CopyToClient,
    PsqlCommand(String),
    /// Setting this changes how the server reads SQL that is parsed already.
    ChangesLexing(&'static str),
    /// This statement fails, or makes the history row fail.
    SetTransaction(String),
    Directive(DirectiveProblem),
    /// The line is a conflict marker of git.
    ConflictMarker(String),
}

impl Reason {
    /// What `check` calls it.
    pub fn rule(&self) -> Rule {
        match self {
            Reason::Unreadable(_) => Rule::Unreadable,
            Reason::OtherEncoding(_) => Rule::Utf16,
            Reason::NotUtf8 { .. } => Rule::NotUtf8,
            Reason::HasNul { .. } => Rule::HasNul,
            Reason::DownSection(_) => Rule::DownSection,
            Reason::RollsBack(_) => Rule::RollsBack,
            Reason::NeedsSession(_) => Rule::NeedsSession,
            Reason::CopyWithoutData => Rule::CopyWithoutData,
            Reason::CopyToClient => Rule::CopyToClient,
            Reason::PsqlCommand(_) => Rule::PsqlCommand,
            Reason::ChangesLexing(_) => Rule::ChangesLexing,
            Reason::SetTransaction(_) => Rule::SetTransaction,
            Reason::Directive(_) => Rule::UnknownDirective,
            Reason::ConflictMarker(_) => Rule::ConflictMarker,
        }
    }
}

/// Read after the file's name.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unreadable(problem) => write!(f, "cannot be read: {problem}"),
            Reason::OtherEncoding(encoding) => {
                write!(f, "is {encoding}; save it as UTF-8")
            }
            Reason::NotUtf8 { offset } => {
                write!(f, "is not valid UTF-8 (byte {offset}); save it as UTF-8")
            }
            Reason::HasNul { offset } => write!(
                f,
                "contains a NUL byte (byte {offset}), which PostgreSQL does not accept; remove it"
            ),
            Reason::DownSection(section) => write!(
                f,
                "contains a down section ({section}), which would run too; copy the file without \
                 it to a folder for premigrate"
            ),
            Reason::RollsBack(statement) => write!(
                f,
                "contains `{statement}`, which would leave the migration's changes uncommitted; \
                 remove it"
            ),
            Reason::NeedsSession(what) => write!(
                f,
                "contains {what}, which lasts only as long as the session, but each step of this \
                 file may run in another session; move it, and the statements that need it, to a \
                 migration of their own"
            ),
            Reason::CopyWithoutData => f.write_str(
                "has SQL in the same line after COPY ... FROM STDIN, whose data begins in the next \
                 line; move that SQL below the data",
            ),
            Reason::CopyToClient => f.write_str(
                "contains COPY ... TO STDOUT, whose output no one would read; remove it",
            ),
            Reason::PsqlCommand(line) => {
                write!(f, "contains `{line}`, which only psql understands; remove it")
            }
            Reason::ChangesLexing(setting) => write!(
                f,
                "sets {setting}, but the file is parsed before any of it runs; write strings with \
                 backslashes as E'...', and save the file as UTF-8"
            ),
            Reason::SetTransaction(statement) => write!(
                f,
                "contains `{statement}`, which cannot work here, because its transaction begins \
                 with a query and ends by writing the history row; remove it"
            ),
            Reason::Directive(problem) => write!(f, "contains {problem}"),
            Reason::ConflictMarker(line) => {
                write!(f, "contains `{line}`, a conflict marker of git; resolve the conflict")
            }
        }
    }
}

/// Lists every reason why some of these migrations cannot be run. Keeps nothing of them: one after the
/// other is in memory.
pub fn check<'a>(migrations: impl Iterator<Item = &'a Migration>) -> Result<(), Vec<NotRunnable>> {
    let reasons = |migration: &Migration| PreparedMigration::parse(&migration.unread()).err();
    let not_runnable: Vec<_> = migrations.filter_map(reasons).flatten().collect();
    if not_runnable.is_empty() { Ok(()) } else { Err(not_runnable) }
}

/// Prepares all migrations, or lists every reason why some of them cannot be run.
pub fn prepare<'a>(
    migrations: impl Iterator<Item = &'a Migration>,
) -> Result<Vec<PreparedMigration<'a>>, Vec<NotRunnable>> {
    let mut prepared = Vec::new();
    let mut not_runnable = Vec::new();
    for migration in migrations {
        match PreparedMigration::parse(migration) {
            Ok(migration) => prepared.push(migration),
            Err(reasons) => not_runnable.extend(reasons),
        }
    }
    if not_runnable.is_empty() { Ok(prepared) } else { Err(not_runnable) }
}

impl Migration {
    /// The content as text that can be sent to the server.
    pub fn sql(&self) -> Result<&str, Reason> {
        let content = self.content().map_err(|problem| Reason::Unreadable(problem.to_owned()))?;
        if let Some(encoding) = encoding::other_than_utf8(content) {
            return Err(Reason::OtherEncoding(encoding));
        }
        let text = std::str::from_utf8(content)
            .map_err(|error| Reason::NotUtf8 { offset: error.valid_up_to() })?;
        match text.find('\0') {
            Some(offset) => Err(Reason::HasNul { offset }),
            None => Ok(text),
        }
    }
}

impl PreparedMigration<'_> {
    /// Fails with every reason.
    pub fn parse(migration: &Migration) -> Result<PreparedMigration<'_>, Vec<NotRunnable>> {
        let not_runnable =
            |position, reason| NotRunnable { file: migration.file.clone(), position, reason };
        let text = migration.sql().map_err(|reason| vec![not_runnable(None, reason)])?;
        let script = Script::parse(text);
        let steps = Steps::split(&script);
        let reasons: Vec<_> = reasons(text, &script, &steps)
            .map(|(position, reason)| not_runnable(Some(position), reason))
            .collect();
        if reasons.is_empty() {
            Ok(PreparedMigration { script, steps, done: 0 })
        } else {
            Err(reasons)
        }
    }
}

/// Every reason why a text cannot be run as it is: a conflict, a down section, comments, then those
/// of statements, in the order of the text.
pub fn reasons(
    text: &str,
    script: &Script<'_>,
    steps: &Steps,
) -> impl Iterator<Item = (LineColumn, Reason)> {
    let down = DownSection::first_in(script);
    let down = down.map(|down| (LineColumn::at(text, down.offset), Reason::DownSection(down)));
    let mut positions = Positions::new(text);
    let numbered = script.statements().iter().enumerate();
    let of_statements = numbered.filter_map(move |(index, statement)| {
        let reason = statement_reason(script, index, steps)?;
        Some((positions.at(statement.start), reason))
    });
    let mut comment_positions = Positions::new(text);
    let directives = ignore::problems(script)
        .map(move |(offset, problem)| (comment_positions.at(offset), Reason::Directive(problem)));
    let conflict = conflict::first_in(script).map(|(offset, marker)| {
        (LineColumn::at(text, offset), Reason::ConflictMarker(marker.to_owned()))
    });
    conflict.into_iter().chain(down).chain(directives).chain(of_statements)
}

fn statement_reason(script: &Script<'_>, index: usize, steps: &Steps) -> Option<Reason> {
    let statement = script.statements().get(index)?;
    let last_step = steps.all().last().map_or(0, |last| last.statements.start);
    match statement.kind {
        Kind::Rollback | Kind::PrepareTransaction => {
            Some(Reason::RollsBack(statement.first_line()))
        }
        Kind::CopyFromClient => {
            script.copy_data(index).is_none().then_some(Reason::CopyWithoutData)
        }
        Kind::CopyToClient => Some(Reason::CopyToClient),
        Kind::PsqlCommand => Some(Reason::PsqlCommand(statement.first_line())),
        Kind::LexingSetting(setting) => Some(Reason::ChangesLexing(setting)),
        Kind::SetTransaction if steps.rejects_set_transaction(script, index) => {
            Some(Reason::SetTransaction(statement.first_line()))
        }
        Kind::SessionBound(what) if index < last_step => Some(Reason::NeedsSession(what)),
        Kind::Setting => None,
        _ if index < last_step => {
            unsaved_setting(steps, index, &statement).map(Reason::NeedsSession)
        }
        _ => None,
    }
}

/// A setting that the statement computes and that cannot be saved for the next step.
fn unsaved_setting(steps: &Steps, index: usize, statement: &Statement<'_>) -> Option<&'static str> {
    let computed = statement.computed_settings();
    if computed.unnamed {
        return Some("set_config of a setting whose name is computed");
    }
    let is_outside =
        |step: &Step| step.outside_transaction.is_some() && step.statements.contains(&index);
    let sets_outside = !computed.names.is_empty() && steps.all().iter().any(is_outside);
    sets_outside.then_some("code that sets something for the session outside a transaction")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(sql: impl AsRef<[u8]>) -> Migration {
        Migration::new("a", "a.sql", None, sql.as_ref().to_vec())
    }

    /// The only error.
    fn error(sql: &str) -> Option<(LineColumn, Reason)> {
        let [error] = &PreparedMigration::parse(&migration(sql)).err()?[..] else {
            panic!("{sql}")
        };
        Some((error.position.unwrap(), error.reason.clone()))
    }

    fn at(line: usize, column: usize, reason: Reason) -> Option<(LineColumn, Reason)> {
        Some((LineColumn { line, column }, reason))
    }

    #[test]
    fn a_file_that_is_not_text_is_refused_with_the_offset() {
        assert_eq!(migration(b"ab\xff").sql(), Err(Reason::NotUtf8 { offset: 2 }));
        assert_eq!(migration(b"a\0").sql(), Err(Reason::HasNul { offset: 1 }));
        assert_eq!(migration(b"a\0b\0c\0").sql(), Err(Reason::OtherEncoding("UTF-16")));
        assert_eq!(migration(b"select 1").sql(), Ok("select 1"));
    }

    #[test]
    fn a_file_that_can_be_split_into_steps_is_runnable() {
        for sql in [
            "",
            "-- nothing",
            "create table a (); savepoint s; rollback to s",
            "select ';'",
            "select 1; commit; create index concurrently i on t (a); begin; select 2",
            "-- premigrate: no-transaction\ncall p()",
            "create temp table t ()",
            "vacuum; create temp table t ()",
            "select set_config('a', b, false); vacuum; select 1",
            "-- premigrate: no-transaction\nselect set_config('a', f(), false); select 1",
            "\\restrict key\ncopy t from stdin;\n1\n\\.\n\\unrestrict key",
        ] {
            assert_eq!(error(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_file_that_rolls_back_or_needs_the_client_is_not_runnable() {
        let rolls_back = Reason::RollsBack("rollback".to_owned());
        assert_eq!(error("select 1;\n  rollback;"), at(2, 3, rolls_back));
        assert_eq!(error("copy t to stdout"), at(1, 1, Reason::CopyToClient));
        let same_line = "copy t from stdin; select 1;\n1\n";
        assert_eq!(error(same_line), at(1, 1, Reason::CopyWithoutData));
        let command = Reason::PsqlCommand("\\connect a".to_owned());
        assert_eq!(error("\\connect a\nselect 1"), at(1, 1, command));
    }

    #[test]
    fn what_exists_only_in_a_session_is_refused_before_the_last_step() {
        for (sql, what) in [
            ("create temp table t (); vacuum", "CREATE TEMPORARY TABLE"),
            ("prepare p as select 1; commit; select 1", "PREPARE"),
            ("listen a; commit; select 1", "LISTEN"),
            ("declare c cursor with hold for select 1; vacuum", "DECLARE CURSOR WITH HOLD"),
            (
                "do $$ begin perform set_config(a, b, false) from c; end $$; vacuum; select 1",
                "set_config of a setting whose name is computed",
            ),
            (
                "-- premigrate: no-transaction\ndo $$ begin set a = b; end $$; select 1",
                "code that sets something for the session outside a transaction",
            ),
        ] {
            let line = sql.matches('\n').count() + 1;
            assert_eq!(error(sql), at(line, 1, Reason::NeedsSession(what)), "{sql}");
        }
        assert_eq!(error("create temp table t () on commit drop; vacuum"), None);
    }

    #[test]
    fn a_setting_that_changes_how_sql_is_read_is_accepted_only_with_our_own_value() {
        for sql in [
            "set standard_conforming_strings = on",
            "SET client_encoding = 'UTF8'",
            "set names 'utf8'",
            "set local work_mem = '1MB'",
        ] {
            assert_eq!(error(sql), None, "{sql}");
        }
        for (sql, setting) in [
            ("set standard_conforming_strings = off", "standard_conforming_strings"),
            ("set local standard_conforming_strings to 'off'", "standard_conforming_strings"),
            ("set session client_encoding to latin1", "client_encoding"),
            ("set names 'latin1'", "names"),
            ("set \"standard_conforming_strings\" = off", "standard_conforming_strings"),
        ] {
            assert_eq!(error(sql), at(1, 1, Reason::ChangesLexing(setting)), "{sql}");
        }
    }

    #[test]
    fn a_mode_that_the_transaction_cannot_take_is_refused() {
        for sql in [
            "set transaction isolation level serializable, deferrable",
            "set transaction not deferrable",
            "set transaction read only",
        ] {
            assert_eq!(error(sql), at(1, 1, Reason::SetTransaction(sql.to_owned())), "{sql}");
        }
        assert_eq!(error("set transaction isolation level serializable; select 1"), None);
    }

    #[test]
    fn a_directive_that_is_not_understood_is_refused_with_the_right_one() {
        let (position, reason) = error("select 1;\n-- premigrate: no tx").unwrap();
        assert_eq!(position, LineColumn { line: 2, column: 1 });
        assert_eq!(
            reason.to_string(),
            "contains `-- premigrate: no tx`, which is not understood; write `-- premigrate: \
             no-transaction` on a line of its own, or change how the comment begins"
        );
    }

    #[test]
    fn reasons_lists_every_reason() {
        let text = "rollback;\n\\d\nabort;";
        let script = Script::parse(text);
        let steps = Steps::split(&script);
        let lines: Vec<_> =
            reasons(text, &script, &steps).map(|(position, _)| position.line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }

    #[test]
    fn every_reason_why_a_migration_is_not_runnable_is_listed() {
        let migrations =
            [migration("abort; copy t to stdout"), migration("select 1"), migration(b"ab\xff")];
        let errors = prepare(migrations.iter()).unwrap_err();
        let reasons: Vec<_> = errors.into_iter().map(|error| error.reason).collect();
        let rolls_back = Reason::RollsBack("abort".to_owned());
        assert_eq!(reasons, [rolls_back, Reason::CopyToClient, Reason::NotUtf8 { offset: 2 }]);
        assert_eq!(prepare(migrations[1..2].iter()).unwrap().len(), 1);
    }
}
