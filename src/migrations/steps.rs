//! A migration cut into steps: what runs in one transaction each, and what runs in none. Pure.
//!
//! Most migrations are one step. One is cut only where its text says that one transaction cannot
//! hold it, and then as little as possible.

use std::fmt;
use std::ops::Range;

use crate::migrations::migration::Hash;
use crate::sql::{Kind, Modes, Piece, Script, Statement};

/// A migration's steps, and why there are several.
#[derive(Debug)]
pub struct Steps {
    steps: Vec<Step>,
    /// The first place that cuts: the statement's index, and why; none for the directive.
    pub why: Option<(Option<usize>, SplitReason)>,
}

/// A part of a migration that is done or not done, as far as we can make it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which of the script's statements.
    pub statements: Range<usize>,
    /// What its only statement is, if that runs outside a transaction.
    pub outside_transaction: Option<&'static str>,
    /// How its transaction is to begin.
    pub modes: Modes,
    /// By which it is known again: of its statements, without what stands between them.
    pub hash: Hash,
}

/// Why a migration is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitReason {
    /// PostgreSQL runs this statement only outside a transaction block.
    Alone(&'static str),
    /// It begins or ends transactions of its own.
    TransactionControl,
    /// A value of an enum may be used only after a commit.
    EnumValue,
    /// The line `-- premigrate: no-transaction`.
    Directive,
}

impl fmt::Display for SplitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SplitReason::Alone(what) => {
                write!(f, "PostgreSQL runs {what} only outside a transaction")
            }
            SplitReason::TransactionControl => {
                f.write_str("it begins or ends transactions of its own")
            }
            SplitReason::EnumValue => {
                f.write_str("a value of an enum can be used only after it was committed")
            }
            SplitReason::Directive => f.write_str("it says no-transaction"),
        }
    }
}

impl Steps {
    /// Cuts a script.
    pub fn of(script: &Script<'_>) -> Steps {
        Steps::apart_from(script, script.no_transaction().then_some(0))
    }

    /// Cuts a script of which steps are done that have these hashes. The directive is also the cure
    /// of what failed behind others: it cuts anew only what it did not find done.
    pub fn behind(script: &Script<'_>, done: &[&str]) -> Steps {
        if !script.no_transaction() {
            return Steps::of(script);
        }
        let without = Steps::without_directive(script);
        let steps = without.all().iter().zip(done);
        let known = steps.take_while(|(step, hash)| step.hash.as_str() == **hash);
        let apart = known.last().map_or(0, |(step, _)| step.statements.end);
        Steps::apart_from(script, Some(apart))
    }

    /// Cuts a script as if it had no directive.
    pub fn without_directive(script: &Script<'_>) -> Steps {
        Steps::apart_from(script, None)
    }

    /// Cuts a script; from this statement on, if any, each stands apart.
    fn apart_from(script: &Script<'_>, apart: Option<usize>) -> Steps {
        let mut cutter = Splitter {
            script,
            apart,
            steps: Vec::new(),
            open: 0,
            modes: Modes::default(),
            why: apart.map(|_| (None, SplitReason::Directive)),
        };
        cutter.cut();
        Steps { steps: cutter.steps, why: cutter.why }
    }

    /// In their order; there is at least one, and the last is a transaction, for the history row.
    pub fn all(&self) -> &[Step] {
        &self.steps
    }

    /// Whether a `SET TRANSACTION` asks for what its transaction cannot become, or cannot be if a
    /// history row is to be written in it.
    pub fn fails_to_set(&self, script: &Script<'_>, at: usize) -> bool {
        let Some(statement) = script.statements().get(at) else { return false };
        let modes = statement.modes();
        let leads = |step: &Step| {
            let mut statements = step.statements.clone();
            let is_work = |&at: &usize| !script.statements().get(at).is_some_and(is_setting);
            statements.find(is_work) == Some(at)
        };
        let too_late = modes.isolation.is_some() || modes.deferrable.is_some();
        modes.read_only || (too_late && !self.steps.iter().any(leads))
    }

    /// Whether it takes more than one transaction.
    pub fn is_split(&self) -> bool {
        self.steps.len() > 1
    }
}

impl Step {
    /// The step behind all of a script's, which runs nothing.
    pub fn record_only(script: &Script<'_>) -> Step {
        let end = script.statements().len();
        let hash = Hash::of(b"");
        Step { statements: end..end, outside_transaction: None, modes: Modes::default(), hash }
    }

    /// The settings that the statements before it made, in their words, for a session that has not
    /// run those.
    pub fn replay<'a>(&self, script: &Script<'a>) -> Vec<Piece<'a>> {
        // A step that runs nothing needs none.
        let start = if self.statements.is_empty() { 0 } else { self.statements.start };
        let before = script.statements().iter().take(start).enumerate();
        before
            .filter(|(_, it)| it.kind == Kind::Setting)
            .filter_map(|(place, _)| script.piece(place))
            .collect()
    }

    /// The statement, if it runs outside a transaction.
    pub fn lone<'s, 'a>(&self, script: &'s Script<'a>) -> Option<&'s Statement<'a>> {
        self.outside_transaction.and_then(|_| script.statements().get(self.statements.start))
    }
}

struct Splitter<'s, 'a> {
    script: &'s Script<'a>,
    /// From which statement on the directive cuts.
    apart: Option<usize>,
    steps: Vec<Step>,
    /// Where the open step begins.
    open: usize,
    /// What the file's own BEGIN asked for.
    modes: Modes,
    why: Option<(Option<usize>, SplitReason)>,
}

impl Splitter<'_, '_> {
    fn cut(&mut self) {
        let statements = self.script.statements();
        let mut has_boundary = false;
        // Between the file's own BEGIN and COMMIT, nothing but them cuts.
        let mut in_own = false;
        let mut modes = Modes::default();
        for (at, statement) in statements.iter().enumerate() {
            let is_apart = self.apart.is_some_and(|apart| apart <= at);
            if self.apart == Some(at) {
                self.close(at);
                self.open = at;
            }
            match statement.kind {
                Kind::Begin | Kind::Commit => {
                    self.close(at);
                    (self.open, has_boundary) = (at + 1, true);
                    // With AND CHAIN the next transaction is like the one before.
                    if !statement.chains() {
                        in_own = statement.kind == Kind::Begin;
                        modes = statement.modes();
                    }
                    self.modes.clone_from(&modes);
                    self.because(at, SplitReason::TransactionControl);
                }
                Kind::NoTransactionBlock(what) => {
                    self.because(at, SplitReason::Alone(what));
                    self.stand_alone(at, what);
                }
                _ if is_apart && !in_own => {
                    if statement.may_stand_alone() && !is_setting(statement) {
                        self.stand_alone(at, "a statement");
                    } else if !is_setting(statement) {
                        self.close(at + 1);
                        self.open = at + 1;
                    }
                }
                kind => {
                    let added = at > self.open
                        && (!in_own || is_apart)
                        && kind != Kind::AddEnumValue
                        && self.adds_value(at - 1);
                    if added {
                        self.because(at - 1, SplitReason::EnumValue);
                        self.close(at);
                        self.open = at;
                    }
                }
            }
        }
        self.close(statements.len());
        if self.steps.is_empty() {
            // Nothing but settings, if anything: sent as it is, unless it holds what we do not send.
            let all = if has_boundary { 0..0 } else { 0..statements.len() };
            self.push(all, None);
        } else if self.steps.last().is_some_and(|last| last.outside_transaction.is_some()) {
            // No row can be written in what runs outside a transaction.
            self.steps.push(Step::record_only(self.script));
        }
        if self.steps.len() == 1 {
            self.why = None;
        }
    }

    fn because(&mut self, at: usize, cut: SplitReason) {
        self.why.get_or_insert((Some(at), cut));
    }

    fn stand_alone(&mut self, at: usize, what: &'static str) {
        self.close(at);
        self.push(at..at + 1, Some(what));
        self.open = at + 1;
    }

    /// Ends the open step before this statement. Settings alone are none: they are replayed.
    fn close(&mut self, end: usize) {
        let statements = self.script.statements().get(self.open..end).unwrap_or_default();
        if !statements.iter().all(is_setting) {
            self.push(self.open..end, None);
        }
    }

    fn push(&mut self, range: Range<usize>, outside_transaction: Option<&'static str>) {
        let statements = self.script.statements().get(range.clone()).unwrap_or_default();
        let mut text = String::new();
        for statement in statements {
            text.push_str(&statement.text.replace("\r\n", "\n"));
            text.push(';');
        }
        let mut modes = std::mem::take(&mut self.modes);
        let leading = statements.iter().find(|statement| !is_setting(statement));
        if let Some(first) = leading.filter(|first| first.kind == Kind::SetTransaction) {
            modes = first.modes();
        }
        let hash = Hash::of(text.as_bytes());
        self.steps.push(Step { statements: range, outside_transaction, modes, hash });
    }

    /// Whether this adds a value to an enum that its transaction did not create.
    fn adds_value(&self, at: usize) -> bool {
        let statements = self.script.statements();
        let adds = statements.get(at).filter(|it| it.kind == Kind::AddEnumValue);
        let Some(name) = adds.and_then(Statement::enum_name) else { return false };
        let same =
            |made: Vec<String>| made.iter().rev().zip(name.iter().rev()).all(|(a, b)| a == b);
        let before = statements.get(self.open..at).unwrap_or_default();
        let plain = before.iter().filter(|it| it.kind == Kind::Plain);
        !plain.filter_map(Statement::enum_name).any(same)
    }
}

fn is_setting(statement: &Statement<'_>) -> bool {
    statement.kind == Kind::Setting
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps in a word each: `2-3` are the statements of a transaction, from 1; `outside_transaction 4` one
    /// outside; `row` is a transaction for the row only.
    fn cut(sql: &str) -> Vec<String> {
        told(&Steps::of(&Script::read(sql)))
    }

    fn told(steps: &Steps) -> Vec<String> {
        let told = steps.all().iter().map(|step| {
            let Range { start, end } = step.statements;
            match (step.outside_transaction, end - start) {
                (Some(_), _) => format!("alone {end}"),
                (None, 0) => "row".to_owned(),
                (None, 1) => format!("{end}"),
                (None, _) => format!("{}-{end}", start + 1),
            }
        });
        told.collect()
    }

    #[test]
    fn the_directive_cuts_anew_only_what_is_not_done() {
        let plain = "create table a (); create table b (); vacuum; set a = b; \
             create table c (); create table d ()";
        let script = Script::read(plain);
        let done: Vec<String> =
            Steps::of(&script).all().iter().map(|it| it.hash.to_string()).collect();
        let behind = |done: &[&str]| {
            let directed = format!("-- premigrate: no-transaction\n{plain}");
            let script = Script::read(&directed);
            told(&Steps::behind(&script, done))
        };
        let [first, second, third] = [&*done[0], &done[1], &done[2]];
        assert_eq!(behind(&[]), ["1", "2", "alone 3", "4-5", "6"]);
        assert_eq!(behind(&["edited", second]), ["1", "2", "alone 3", "4-5", "6"]);
        assert_eq!(behind(&[first]), ["1-2", "alone 3", "4-5", "6"]);
        assert_eq!(behind(&[first, second]), ["1-2", "alone 3", "4-5", "6"]);
        assert_eq!(behind(&[first, second, third]), ["1-2", "alone 3", "4-6"]);
        let apart = Hash::of(b"set a = b;create table c ();");
        assert_eq!(behind(&[first, second, apart.as_str()]), ["1-2", "alone 3", "4-5", "6"]);
    }

    fn why(sql: &str) -> Option<SplitReason> {
        Steps::of(&Script::read(sql)).why.map(|(_, cut)| cut)
    }

    #[test]
    fn a_migration_that_one_transaction_can_hold_is_one_unit() {
        for (sql, steps) in [
            ("select 1; select 2", "1-2"),
            ("set a = b; select 1", "1-2"),
            ("", "row"),
            ("-- nothing", "row"),
            ("set a = b", "1"),
            ("savepoint a; select 1; rollback to a", "1-3"),
            ("alter type a add value 'b'; alter type a add value 'c'", "1-2"),
        ] {
            assert_eq!(cut(sql), [steps], "{sql}");
            assert_eq!(why(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_statement_that_refuses_transactions_stands_alone() {
        let sql = "create table a (); create index concurrently i on a (b); select 1; select 2";
        assert_eq!(cut(sql), ["1", "alone 2", "3-4"]);
        assert_eq!(why(sql), Some(SplitReason::Alone("CREATE INDEX CONCURRENTLY")));
        assert_eq!(cut("vacuum"), ["alone 1", "row"]);
        assert_eq!(cut("vacuum; vacuum"), ["alone 1", "alone 2", "row"]);
    }

    #[test]
    fn the_files_own_begin_and_commit_mark_boundaries_and_belong_to_no_unit() {
        assert_eq!(cut("select 1; commit; select 2"), ["1", "3"]);
        assert_eq!(cut("select 1; begin; select 2; select 3; commit; select 4"), ["1", "3-4", "6"]);
        // As Drizzle's users write it.
        let sql = "select 1; commit; create index concurrently i on a (b); begin; select 2";
        assert_eq!(cut(sql), ["1", "alone 3", "5"]);
        assert_eq!(cut("commit; create index concurrently i on a (b); begin"), ["alone 2", "row"]);
        assert_eq!(cut("begin; commit"), ["row"]);
    }

    #[test]
    fn a_wrapped_file_is_one_unit_and_settings_before_it_are_replayed() {
        assert_eq!(cut("begin; select 1; select 2; commit"), ["2-3"]);
        assert_eq!(why("begin; select 1; commit"), None);
        let sql = "set a = b; begin; select 1; commit";
        assert_eq!(cut(sql), ["3"]);
        let script = Script::read(sql);
        let steps = Steps::of(&script);
        let replay = steps.all()[0].replay(&script);
        assert_eq!(replay.iter().map(|piece| &*piece.text).collect::<Vec<_>>(), ["set a = b"]);
        assert_eq!(Step::record_only(&script).replay(&script), []);
    }

    #[test]
    fn a_value_of_an_enum_is_committed_before_what_follows() {
        let sql = "select 1; alter type e add value 'a'; alter type e add value 'b'; select 2";
        assert_eq!(cut(sql), ["1-3", "4"]);
        assert_eq!(why(sql), Some(SplitReason::EnumValue));
        let created = "create type s.e as enum (); alter type e add value 'a'; select 'a'::e";
        assert_eq!(cut(created), ["1-3"]);
        let wrapped = "begin; alter type e add value 'a'; select 2; commit";
        assert_eq!(cut(wrapped), ["2-3"]);
        assert_eq!(cut(&format!("-- premigrate: no-transaction\n{wrapped}")), ["2", "3"]);
    }

    #[test]
    fn with_the_directive_each_statement_is_a_unit_and_what_may_refuse_stands_alone() {
        let directive = "-- premigrate: no-transaction\n";
        let sql = format!(
            "{directive}create table a (); call p(); set a = b; insert into a default values"
        );
        assert_eq!(cut(&sql), ["1", "alone 2", "3-4"]);
        assert_eq!(why(&sql), Some(SplitReason::Directive));
        let sql = format!("{directive}begin; select 1; select 2; commit; select 3");
        assert_eq!(cut(&sql), ["2-3", "alone 5", "row"]);
    }

    #[test]
    fn a_unit_is_known_by_its_statements_and_not_by_what_stands_between() {
        let hashes = |sql: &str| -> Vec<Hash> {
            let steps = Steps::of(&Script::read(sql));
            steps.all().iter().map(|step| step.hash.clone()).collect()
        };
        let plain = hashes("select 1;\nvacuum;\nselect 'a\nb'");
        assert_eq!(hashes("-- a\r\nselect 1 ; /* b */ vacuum;;\r\nselect 'a\r\nb';"), plain);
        assert_ne!(hashes("select 2;\nvacuum;\nselect 'a\nb'")[0], plain[0]);
    }

    #[test]
    fn a_transactions_mode_can_be_set_before_its_work_only() {
        for (sql, at, fails) in [
            ("set transaction isolation level serializable; select 1", 0, false),
            ("set a = b; set transaction isolation level serializable; select 1", 1, false),
            ("select 1; set transaction isolation level serializable", 1, true),
            ("select 1; set transaction isolation level read committed", 1, false),
            ("select 1; set transaction not deferrable", 1, true),
            ("set transaction read only; select 1", 0, true),
            ("select 1; set transaction read write", 1, false),
            ("select 1; commit; set transaction isolation level serializable", 2, false),
        ] {
            let script = Script::read(sql);
            assert_eq!(Steps::of(&script).fails_to_set(&script, at), fails, "{sql}");
        }
    }

    #[test]
    fn a_transaction_begins_in_the_mode_that_the_file_asks_for() {
        let isolation = |sql: &str| {
            let steps = Steps::of(&Script::read(sql));
            steps.all().iter().map(|step| step.modes.isolation).collect::<Vec<_>>()
        };
        let sql = "set transaction isolation level serializable; select 1";
        assert_eq!(isolation(sql), [Some("serializable")]);
        let sql = "select 1; begin isolation level repeatable read; select 1; commit; select 1";
        assert_eq!(isolation(sql), [None, Some("repeatable read"), None]);
        assert_eq!(isolation("select 1; set transaction isolation level serializable"), [None]);
        let sql =
            "begin isolation level serializable; select 1; commit and chain; select 2; commit";
        assert_eq!(isolation(sql), [Some("serializable"); 2]);
    }
}
