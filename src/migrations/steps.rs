//! Splits a migration into steps: one transaction each, or one statement outside any transaction. Pure.
//!
//! Most migrations are one step. A migration is split only if its text shows that one transaction
//! cannot hold it, and then into as few steps as possible.

use std::fmt;
use std::ops::Range;

use crate::migrations::migration::Hash;
use crate::migrations::replay::FileSettings;
use crate::sql::{Kind, Modes, NewValues, Script, Statement};

#[derive(Debug)]
pub struct Steps {
    steps: Vec<Step>,
    /// Why there is more than one step: the first reason, and the index of the statement it is
    /// about. [`SplitReason::Directive`] is about no statement.
    pub split: Option<(SplitReason, Option<usize>)>,
    pub(super) settings: FileSettings,
}

/// One transaction, or one statement outside any transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Indexes of the script's statements. Empty if the step only writes the history row.
    pub statements: Range<usize>,
    /// The name of its only statement, if that runs outside a transaction.
    pub outside_transaction: Option<&'static str>,
    /// The modes in which the transaction begins.
    pub modes: Modes,
    /// Hash of the statements with the data of COPY, ignoring comments and white space between them.
    pub hash: Hash,
    /// The settings to save at its end: those that the file may have made by then, and has not reset.
    /// Another one has the value that the session began with, or a time limit of ours.
    pub saves: Vec<String>,
}

/// Why a migration is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitReason {
    /// PostgreSQL rejects the named statement inside a transaction block.
    NoTransactionBlock(&'static str),
    /// The file has BEGIN or COMMIT of its own.
    TransactionControl,
    /// A new enum value can be used only after a commit.
    EnumValue,
    /// The line `-- premigrate: no-transaction`.
    Directive,
}

impl fmt::Display for SplitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SplitReason::NoTransactionBlock(what) => {
                write!(f, "{what} cannot run inside a transaction block")
            }
            SplitReason::TransactionControl => f.write_str("it contains BEGIN or COMMIT"),
            SplitReason::EnumValue => {
                f.write_str("it may use a new enum value, which must be committed first")
            }
            SplitReason::Directive => f.write_str("it contains `-- premigrate: no-transaction`"),
        }
    }
}

impl Steps {
    pub fn split(script: &Script<'_>) -> Steps {
        Splitter::new(script, script.no_transaction().then_some(0)).split()
    }

    /// Splits a script whose first steps have run, with these hashes. The directive may have been
    /// added after a later step failed, so it applies only to what has not run yet.
    pub fn split_after(script: &Script<'_>, finished: &[&str]) -> Steps {
        if !script.no_transaction() {
            return Steps::split(script);
        }
        let without = Steps::without_directive(script);
        let steps = without.all().iter().zip(finished);
        let unchanged = steps.take_while(|(step, hash)| step.hash.as_str() == **hash);
        let separate_from = unchanged.last().map_or(0, |(step, _)| step.statements.end);
        Splitter::new(script, Some(separate_from)).split()
    }

    /// Splits a script as if it had no directive.
    fn without_directive(script: &Script<'_>) -> Steps {
        Splitter::new(script, None).split()
    }

    /// At least one step. The last one is a transaction, since it writes the history row.
    pub fn all(&self) -> &[Step] {
        &self.steps
    }

    /// How many steps there are to a reader: a last one that only writes the history row is none.
    pub fn count(&self) -> usize {
        self.steps.iter().filter(|step| !step.statements.is_empty()).count().max(1)
    }

    /// Whether a `SET TRANSACTION` fails: because it comes too late in its transaction, or because
    /// the history row cannot be written after it.
    pub fn rejects_set_transaction(&self, script: &Script<'_>, index: usize) -> bool {
        let Some(statement) = script.statements().get(index) else { return false };
        if statement.kind != Kind::SetTransaction {
            return false;
        }
        let modes = statement.modes();
        let is_first = |step: &Step| {
            let mut statements = step.statements.clone();
            let is_work =
                |&index: &usize| !script.statements().get(index).as_ref().is_some_and(is_setting);
            statements.find(is_work) == Some(index)
        };
        let is_late = modes.isolation.is_some() && !self.steps.iter().any(is_first);
        modes.read_only || modes.before_queries || is_late
    }
}

impl Step {
    /// A step after all statements, which only writes the history row.
    fn record_only(script: &Script<'_>) -> Step {
        let end = script.statements().len();
        let hash = Hash::of(b"");
        Step {
            statements: end..end,
            outside_transaction: None,
            modes: Modes::default(),
            hash,
            saves: Vec::new(),
        }
    }
}

/// Goes through the statements once. The open step begins at `start` and has not been pushed yet.
struct Splitter<'s, 'a> {
    script: &'s Script<'a>,
    /// The first statement that the directive applies to.
    separate_from: Option<usize>,
    steps: Vec<Step>,
    start: usize,
    /// The modes of the open step, from the file's own BEGIN.
    modes: Modes,
    /// The modes of the file's last BEGIN, which `COMMIT AND CHAIN` repeats.
    own_modes: Modes,
    /// Whether the file's own BEGIN is open: until its COMMIT, only a statement that cannot run in
    /// a transaction block ends the step.
    in_own_transaction: bool,
    /// The values that the open step adds to enums.
    added: NewValues<'s, 'a>,
    has_transaction_control: bool,
    split: Option<(SplitReason, Option<usize>)>,
}

impl<'s, 'a> Splitter<'s, 'a> {
    fn new(script: &'s Script<'a>, separate_from: Option<usize>) -> Splitter<'s, 'a> {
        Splitter {
            script,
            separate_from,
            steps: Vec::new(),
            start: 0,
            modes: Modes::default(),
            own_modes: Modes::default(),
            in_own_transaction: false,
            added: NewValues::of(script),
            has_transaction_control: false,
            split: separate_from.map(|_| (SplitReason::Directive, None)),
        }
    }

    fn split(mut self) -> Steps {
        let statements = self.script.statements();
        for (index, statement) in statements.iter().enumerate() {
            if self.separate_from == Some(index) {
                self.end_step(index, index);
            }
            let is_separate = self.separate_from.is_some_and(|from| from <= index);
            match statement.kind {
                Kind::Begin | Kind::Commit => self.transaction_control(index, &statement),
                Kind::NoTransactionBlock(name) => {
                    self.add_reason(SplitReason::NoTransactionBlock(name), index);
                    self.push_standalone(index, name);
                }
                _ if is_separate && !self.in_own_transaction => self.separate(index, &statement),
                Kind::AddEnumValue => self.added.add(index, &statement),
                _ if is_separate || !self.in_own_transaction => {
                    if let Some(used) = self.added.take_used(&statement).first() {
                        self.add_reason(SplitReason::EnumValue, used.index);
                        self.end_step(index, index);
                    }
                }
                _ => {}
            }
        }
        self.finish()
    }

    fn transaction_control(&mut self, index: usize, statement: &Statement<'_>) {
        self.end_step(index, index + 1);
        self.has_transaction_control = true;
        // After AND CHAIN, the next transaction is like the last one.
        if !statement.chains() {
            self.in_own_transaction = statement.kind == Kind::Begin;
            self.own_modes = statement.modes();
        }
        self.modes.clone_from(&self.own_modes);
        self.add_reason(SplitReason::TransactionControl, index);
    }

    /// A statement that the directive applies to.
    fn separate(&mut self, index: usize, statement: &Statement<'_>) {
        if is_setting(statement) {
            return;
        }
        if statement.may_refuse_transaction_block() {
            self.push_standalone(index, "a statement");
        } else {
            self.end_step(index + 1, index + 1);
        }
    }

    fn push_standalone(&mut self, index: usize, name: &'static str) {
        self.end_step(index, index + 1);
        self.push(index..index + 1, Some(name));
    }

    /// Ends the open step before the statement `end`; the next one begins at `next`. Settings alone
    /// are not a step, since they are replayed.
    fn end_step(&mut self, end: usize, next: usize) {
        let mut statements = self.script.statements().range(self.start..end).iter();
        if !statements.all(|statement| is_setting(&statement)) {
            self.push(self.start..end, None);
        }
        self.start = next;
        self.added.clear();
    }

    fn push(&mut self, range: Range<usize>, outside_transaction: Option<&'static str>) {
        let statements = self.script.statements().range(range.clone());
        let parts = range.clone().zip(statements.iter()).flat_map(|(index, statement)| {
            let data = self.script.copy_data(index).unwrap_or_default();
            [statement.text, ";", data].map(str::as_bytes)
        });
        let hash = Hash::of_parts(parts, "\n");
        let mut modes = std::mem::take(&mut self.modes);
        let first = statements.iter().find(|statement| !is_setting(statement));
        if let Some(first) = first.filter(|first| first.kind == Kind::SetTransaction) {
            modes = first.modes();
        }
        let saves = Vec::new();
        self.steps.push(Step { statements: range, outside_transaction, modes, hash, saves });
    }

    fn finish(mut self) -> Steps {
        let end = self.script.statements().len();
        self.end_step(end, end);
        if self.steps.is_empty() {
            // Only settings, if anything. The file's own BEGIN and COMMIT are never sent.
            let all = if self.has_transaction_control { 0..0 } else { 0..end };
            self.push(all, None);
        } else if self.steps.last().is_some_and(|last| last.outside_transaction.is_some()) {
            self.steps.push(Step::record_only(self.script));
        }
        let is_split = self.steps.len() > 1;
        let settings = FileSettings::of(self.script, &mut self.steps);
        Steps { steps: self.steps, split: self.split.filter(|_| is_split), settings }
    }

    fn add_reason(&mut self, reason: SplitReason, index: usize) {
        self.split.get_or_insert((reason, Some(index)));
    }
}

fn is_setting(statement: &Statement<'_>) -> bool {
    statement.kind == Kind::Setting
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of each step's statements, from 1: `2-3` is a transaction, `outside 4` a
    /// statement outside any, `row` a transaction for the history row only.
    fn split(sql: &str) -> Vec<String> {
        numbers(&Steps::split(&Script::parse(sql)))
    }

    fn numbers(steps: &Steps) -> Vec<String> {
        let numbers = steps.all().iter().map(|step| {
            let Range { start, end } = step.statements;
            match (step.outside_transaction, end - start) {
                (Some(_), _) => format!("outside {end}"),
                (None, 0) => "row".to_owned(),
                (None, 1) => format!("{end}"),
                (None, _) => format!("{}-{end}", start + 1),
            }
        });
        numbers.collect()
    }

    #[test]
    fn the_directive_applies_only_to_what_has_not_run() {
        let plain = "create table a (); create table b (); vacuum; set a = b; \
             create table c (); create table d ()";
        let script = Script::parse(plain);
        let hashes: Vec<String> =
            Steps::split(&script).all().iter().map(|step| step.hash.to_string()).collect();
        let split_after = |finished: &[&str]| {
            let directed = format!("-- premigrate: no-transaction\n{plain}");
            let script = Script::parse(&directed);
            numbers(&Steps::split_after(&script, finished))
        };
        let [first, second, third] = [&*hashes[0], &hashes[1], &hashes[2]];
        assert_eq!(split_after(&[]), ["1", "2", "outside 3", "4-5", "6"]);
        assert_eq!(split_after(&["edited", second]), ["1", "2", "outside 3", "4-5", "6"]);
        assert_eq!(split_after(&[first]), ["1-2", "outside 3", "4-5", "6"]);
        assert_eq!(split_after(&[first, second]), ["1-2", "outside 3", "4-5", "6"]);
        assert_eq!(split_after(&[first, second, third]), ["1-2", "outside 3", "4-6"]);
        let separate = Hash::of(b"set a = b;create table c ();");
        assert_eq!(
            split_after(&[first, second, separate.as_str()]),
            ["1-2", "outside 3", "4-5", "6"]
        );
    }

    fn reason(sql: &str) -> Option<SplitReason> {
        Steps::split(&Script::parse(sql)).split.map(|(reason, _)| reason)
    }

    #[test]
    fn a_migration_that_one_transaction_can_hold_is_one_step() {
        for (sql, steps) in [
            ("select 1; select 2", "1-2"),
            ("set a = b; select 1", "1-2"),
            ("", "row"),
            ("-- nothing", "row"),
            ("set a = b", "1"),
            ("savepoint a; select 1; rollback to a", "1-3"),
            ("alter type a add value 'b'; alter type a add value 'c'", "1-2"),
        ] {
            assert_eq!(split(sql), [steps], "{sql}");
            assert_eq!(reason(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_statement_that_cannot_run_in_a_transaction_block_is_a_step() {
        let sql = "create table a (); create index concurrently i on a (b); select 1; select 2";
        assert_eq!(split(sql), ["1", "outside 2", "3-4"]);
        assert_eq!(reason(sql), Some(SplitReason::NoTransactionBlock("CREATE INDEX CONCURRENTLY")));
        assert_eq!(split("vacuum"), ["outside 1", "row"]);
        assert_eq!(split("vacuum; vacuum"), ["outside 1", "outside 2", "row"]);
    }

    #[test]
    fn a_transaction_for_the_history_row_alone_does_not_count_as_a_step() {
        for (sql, count) in [
            ("", 1),
            ("select 1", 1),
            ("vacuum", 1),
            ("vacuum; vacuum", 2),
            ("create table a (); vacuum", 2),
            ("create table a (); vacuum; select 1", 3),
        ] {
            assert_eq!(Steps::split(&Script::parse(sql)).count(), count, "{sql}");
        }
    }

    #[test]
    fn the_files_own_begin_and_commit_separate_steps_and_belong_to_none() {
        assert_eq!(split("select 1; commit; select 2"), ["1", "3"]);
        assert_eq!(
            split("select 1; begin; select 2; select 3; commit; select 4"),
            ["1", "3-4", "6"]
        );
        // As Drizzle's users write it.
        let sql = "select 1; commit; create index concurrently i on a (b); begin; select 2";
        assert_eq!(split(sql), ["1", "outside 3", "5"]);
        assert_eq!(
            split("commit; create index concurrently i on a (b); begin"),
            ["outside 2", "row"]
        );
        assert_eq!(split("begin; commit"), ["row"]);
    }

    #[test]
    fn a_file_wrapped_in_a_transaction_is_one_step_and_settings_before_it_are_replayed() {
        assert_eq!(split("begin; select 1; select 2; commit"), ["2-3"]);
        assert_eq!(reason("begin; select 1; commit"), None);
        let sql = "set a = b; begin; select 1; commit";
        assert_eq!(split(sql), ["3"]);
        let script = Script::parse(sql);
        let steps = Steps::split(&script);
        let replay = steps.replay(&script, &steps.all()[0], None);
        assert_eq!(replay.iter().map(|piece| &*piece.text).collect::<Vec<_>>(), ["set a = b"]);
        assert_eq!(steps.replay(&script, &Step::record_only(&script), None), []);
    }

    #[test]
    fn a_new_enum_value_is_committed_before_a_statement_that_may_use_it() {
        let sql = "select 1; alter type e add value 'a'; select 2; alter type e add value 'b'; \
            select 'a'; select 'b'";
        assert_eq!(split(sql), ["1-4", "5-6"]);
        assert_eq!(reason(sql), Some(SplitReason::EnumValue));
        let unused = "alter type e add value 'a'; alter type e add value 'b' after 'a'; select 2";
        assert_eq!(split(unused), ["1-3"]);
        // PostgreSQL accepts it since 17.
        let created = "create type s.e as enum (); alter type e add value 'a'; select 'a'::e";
        assert_eq!(split(created), ["1-2", "3"]);
        let wrapped = "begin; alter type e add value 'a'; select 'a'; commit";
        assert_eq!(split(wrapped), ["2-3"]);
        assert_eq!(split(&format!("-- premigrate: no-transaction\n{wrapped}")), ["2", "3"]);
    }

    #[test]
    fn with_the_directive_each_statement_is_a_step() {
        let directive = "-- premigrate: no-transaction\n";
        let sql = format!(
            "{directive}create table a (); call p(); set a = b; insert into a default values"
        );
        assert_eq!(split(&sql), ["1", "outside 2", "3-4"]);
        assert_eq!(reason(&sql), Some(SplitReason::Directive));
        assert_eq!(
            split(&format!("{directive}copy t from stdin;\n1\n\\.\nselect 1")),
            ["1", "outside 2", "row"]
        );
        let sql = format!("{directive}begin; select 1; select 2; commit; select 3");
        assert_eq!(split(&sql), ["2-3", "outside 5", "row"]);
    }

    #[test]
    fn the_hash_of_a_step_ignores_what_is_between_its_statements() {
        let hashes = |sql: &str| -> Vec<Hash> {
            let steps = Steps::split(&Script::parse(sql));
            steps.all().iter().map(|step| step.hash.clone()).collect()
        };
        let plain = hashes("select 1;\nvacuum;\nselect 'a\nb'");
        assert_eq!(hashes("-- a\r\nselect 1 ; /* b */ vacuum;;\r\nselect 'a\r\nb';"), plain);
        assert_ne!(hashes("select 2;\nvacuum;\nselect 'a\nb'")[0], plain[0]);
        let copied = hashes("copy t from stdin;\n1\n\\.\nvacuum");
        assert_eq!(hashes("copy t from stdin; -- a\r\n1\r\n\\.\r\nvacuum"), copied);
        assert_ne!(hashes("copy t from stdin;\n2\n\\.\nvacuum")[0], copied[0]);
    }

    #[test]
    fn the_modes_of_a_transaction_can_be_set_only_before_its_work() {
        for (sql, at, fails) in [
            ("set transaction isolation level serializable; select 1", 0, false),
            ("set a = b; set transaction isolation level serializable; select 1", 1, false),
            ("select 1; set transaction isolation level serializable", 1, true),
            ("select 1; set transaction isolation level read committed", 1, false),
            ("set transaction not deferrable; select 1", 0, true),
            ("set transaction isolation level serializable, deferrable; select 1", 0, true),
            ("set transaction snapshot '00000003-1'; select 1", 0, true),
            ("set transaction read only; select 1", 0, true),
            ("select 1; set transaction read write", 1, false),
            ("select 1; commit; set transaction isolation level serializable", 2, false),
        ] {
            let script = Script::parse(sql);
            assert_eq!(Steps::split(&script).rejects_set_transaction(&script, at), fails, "{sql}");
        }
    }

    #[test]
    fn a_transaction_begins_in_the_modes_that_the_file_asks_for() {
        let isolation = |sql: &str| {
            let steps = Steps::split(&Script::parse(sql));
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
