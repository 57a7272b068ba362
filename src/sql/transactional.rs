//! Whether a statement can run in a transaction block, and which of its effects a rollback undoes, as far
//! as its text shows it.

use super::lexer::TokenKind;
use super::script::Statement;
use super::settings::unquoted;
use super::tokens::Tokens;

/// Functions whose effect no rollback undoes: they reach another database, a file or another session,
/// or change the server, its statistics, or the value of a sequence.
const LASTING_FUNCTIONS: [&str; 43] = [
    "dblink",
    "dblink_connect",
    "dblink_connect_u",
    "dblink_exec",
    "dblink_send_query",
    "http",
    "http_delete",
    "http_get",
    "http_head",
    "http_patch",
    "http_post",
    "http_put",
    "lo_export",
    "pg_cancel_backend",
    "pg_copy_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_create_physical_replication_slot",
    "pg_create_restore_point",
    "pg_drop_replication_slot",
    "pg_file_rename",
    "pg_file_unlink",
    "pg_file_write",
    "pg_logical_emit_message",
    "pg_logical_slot_get_binary_changes",
    "pg_logical_slot_get_changes",
    "pg_promote",
    "pg_reload_conf",
    "pg_replication_slot_advance",
    "pg_rotate_logfile",
    "pg_stat_reset",
    "pg_stat_reset_backend_stats",
    "pg_stat_reset_replication_slot",
    "pg_stat_reset_shared",
    "pg_stat_reset_single_function_counters",
    "pg_stat_reset_single_table_counters",
    "pg_stat_reset_slru",
    "pg_stat_reset_subscription_stats",
    "pg_stat_statements_reset",
    "pg_switch_wal",
    "pg_terminate_backend",
    "run_command_on_workers",
    "setval",
];

/// What a statement may do to tables that exist, as far as their locks go, from the least on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableUse {
    /// It reads and writes rows.
    Rows,
    /// It gathers statistics, comments, or validates a constraint.
    Upkeep,
    /// It builds an index.
    Index,
    /// It adds a foreign key or a trigger.
    Constraint,
    Any,
}

/// How deep strings of code in strings of code are read.
const MAX_NESTING: usize = 4;

impl Statement<'_> {
    /// The same statement without CONCURRENTLY, which a transaction block accepts; every other
    /// character keeps its place. `None` for any other statement.
    pub fn without_concurrently(&self) -> Option<String> {
        let mut tokens = Tokens::new(self.text);
        if tokens.accept("create") {
            tokens.accept("unique");
            tokens.accept("index").then_some(())?;
        } else if tokens.accept("drop") {
            tokens.accept("index").then_some(())?;
        } else if tokens.accept("reindex") {
            if tokens.peek()?.is("(") {
                // Its options would be empty.
                return None;
            }
            tokens.accept_any(&["index", "table"]).then_some(())?;
        } else if tokens.accept("alter") && tokens.accept("table") {
            tokens.skip_past("detach", "partition").then_some(())?;
            tokens.skip_name();
        } else {
            return None;
        }
        let word = tokens.next_if(|token| token.is("concurrently"))?;
        let (before, rest) = self.text.split_at_checked(word.start)?;
        let after = rest.get(word.text.len()..)?;
        Some(format!("{before}{:width$}{after}", "", width = word.text.len()))
    }

    /// What the statement may do to tables that exist, but for what the functions do that it calls.
    pub fn table_use(&self) -> TableUse {
        let queries =
            ["select", "insert", "update", "delete", "merge", "copy", "with", "values", "table"];
        let mut tokens = Tokens::new(self.text);
        while tokens.accept("(") {}
        if tokens.accept_any(&queries) {
            TableUse::Rows
        } else if tokens.accept_any(&["analyze", "analyse", "comment"]) {
            TableUse::Upkeep
        } else if tokens.accept("create") {
            tokens.accept_any(&["unique", "unlogged"]);
            if tokens.accept("index") {
                TableUse::Index
            } else if tokens.accept("statistics") {
                TableUse::Upkeep
            } else if tokens.accept_any(&["table", "trigger", "constraint"]) {
                TableUse::Constraint
            } else {
                TableUse::Any
            }
        } else if tokens.accept("alter") && tokens.accept("table") {
            tokens.skip_if_exists();
            tokens.accept("only");
            tokens.skip_name();
            action_use(tokens)
        } else {
            TableUse::Any
        }
    }

    /// Whether the statement itself is a savepoint, or goes back to one or gives one up.
    pub fn is_savepoint(&self) -> bool {
        let mut tokens = Tokens::new(self.text);
        tokens.accept_any(&["savepoint", "release", "rollback"])
    }

    /// What the statement does that no rollback undoes: a `COPY` to a file or a program, or a
    /// function of [`LASTING_FUNCTIONS`].
    pub fn lasting_effect(&self) -> Option<&'static str> {
        let mut tokens = Tokens::new(self.text);
        let of_copy = if tokens.accept("copy") { copy_effect(tokens.clone()) } else { None };
        let runs_code = tokens.accept("do");
        if of_copy.is_some() || stores_calls(tokens) {
            return of_copy;
        }
        called(self.text, runs_code, MAX_NESTING)
    }
}

/// Whether a statement only stores the calls that it names, or has none: a routine, a view, a rule, a
/// trigger, a policy or a comment.
fn stores_calls(mut tokens: Tokens) -> bool {
    if !tokens.accept("create") {
        return tokens.accept("comment");
    }
    if tokens.accept("or") {
        tokens.accept("replace");
    }
    while tokens.accept_any(&["temp", "temporary", "recursive", "constraint"]) {}
    tokens.accept_any(&["function", "procedure", "view", "rule", "trigger", "policy"])
}

/// Of the only action of an `ALTER TABLE`; of several, any.
fn action_use(mut tokens: Tokens) -> TableUse {
    let of_first = if tokens.accept("validate") && tokens.accept("constraint") {
        TableUse::Upkeep
    } else if tokens.accept("add") {
        if tokens.accept("constraint") {
            tokens.next();
        }
        let is_key = tokens.accept("foreign");
        if is_key { TableUse::Constraint } else { TableUse::Any }
    } else {
        TableUse::Any
    };
    let mut depth = 0_usize;
    for token in tokens {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is(",") {
            return TableUse::Any;
        }
    }
    of_first
}

fn copy_effect(mut tokens: Tokens) -> Option<&'static str> {
    let mut depth = 0_usize;
    while let Some(token) = tokens.next() {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && (token.is("to") || token.is("from")) {
            if tokens.accept("program") {
                return Some("COPY with a program");
            }
            let is_file = tokens.peek().is_some_and(|next| next.kind == TokenKind::Literal);
            return (token.is("to") && is_file).then_some("COPY to a file");
        }
    }
    None
}

/// The first such function that the text calls; with `runs_code`, also in its strings.
fn called(text: &str, runs_code: bool, nesting: usize) -> Option<&'static str> {
    let mut tokens = Tokens::new(text);
    // What stands behind it with parentheses is a table with its columns.
    let mut names_table = false;
    while let Some(token) = tokens.next() {
        let is_table = std::mem::replace(
            &mut names_table,
            ["into", "table", "exists", "references"].iter().any(|word| token.is(word)),
        );
        let found = match token.kind {
            TokenKind::Literal if runs_code && nesting > 0 => {
                called(&unquoted(token.text), runs_code, nesting - 1)
            }
            _ if is_table || !tokens.peek().is_some_and(|next| next.is("(")) => None,
            TokenKind::Word => LASTING_FUNCTIONS.into_iter().find(|name| token.is(name)),
            TokenKind::QuotedIdentifier => {
                LASTING_FUNCTIONS.into_iter().find(|name| token.text.trim_matches('"') == *name)
            }
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::TableUse;
    use crate::sql::Script;

    fn without_concurrently(sql: &str) -> Option<String> {
        Script::parse(sql).statements().first().unwrap().without_concurrently()
    }

    #[test]
    fn concurrently_is_left_out_and_every_other_character_keeps_its_place() {
        for (sql, expected) in [
            ("create index concurrently a on t (b)", "create index              a on t (b)"),
            (
                "CREATE UNIQUE INDEX /* x */ CONCURRENTLY ON t (concurrently)",
                "CREATE UNIQUE INDEX /* x */              ON t (concurrently)",
            ),
            ("drop index concurrently if exists a", "drop index              if exists a"),
            ("reindex table concurrently t", "reindex table              t"),
            (
                "alter table only a.p detach partition q concurrently",
                "alter table only a.p detach partition q             ",
            ),
        ] {
            assert_eq!(without_concurrently(sql).as_deref(), Some(expected), "{sql}");
        }
        for sql in [
            "create index concurrently_a on t (b)",
            "create table concurrently ()",
            "reindex (concurrently) table t",
            "reindex schema concurrently s",
            "alter table p detach partition concurrently finalize",
            "refresh materialized view concurrently v",
            "vacuum",
        ] {
            assert_eq!(without_concurrently(sql), None, "{sql}");
        }
    }

    fn lasting_effect(sql: &str) -> Option<&'static str> {
        Script::parse(sql).statements().first().unwrap().lasting_effect()
    }

    #[test]
    fn what_no_rollback_undoes_is_recognized() {
        for (sql, expected) in [
            ("copy t to '/tmp/a'", "COPY to a file"),
            ("copy (select 'to' from t) to program 'cat'", "COPY with a program"),
            ("copy t from program 'cat /a'", "COPY with a program"),
            ("select dblink_exec('c', 'x')", "dblink_exec"),
            ("with a as (select 1) select public.DBLINK('c', 'x')", "dblink"),
            ("do $$ begin perform pg_reload_conf(); end $$", "pg_reload_conf"),
            ("do 'begin execute ''select pg_switch_wal()''; end'", "pg_switch_wal"),
            ("select \"setval\"('s', 1)", "setval"),
            ("create table t as select dblink_exec('x')", "dblink_exec"),
            ("create materialized view v as select http_head('x')", "http_head"),
            (
                "create index on t (pg_logical_emit_message(true, 'a', b))",
                "pg_logical_emit_message",
            ),
            (
                "copy t from stdin where pg_stat_statements_reset() is null",
                "pg_stat_statements_reset",
            ),
            ("copy (select pg_file_unlink('a')) to stdout", "pg_file_unlink"),
        ] {
            assert_eq!(lasting_effect(sql), Some(expected), "{sql}");
        }
        for sql in [
            "copy t from stdin",
            "copy t from '/tmp/a'",
            "copy t to stdout",
            "create extension dblink",
            "create function f() returns text language sql as $$ select dblink_exec('x') $$",
            "insert into t values ('dblink(')",
            "create table if not exists http (a int references http (a))",
            "insert into http (a) values (1)",
            "create table a (http int)",
            "create or replace recursive view v (a) as select setval('s', 1)",
            "create constraint trigger a after insert on t for each row execute function http_post()",
            "create policy p on t using (setval('s', 1) > 0)",
            "select \"Setval\"(1)",
            "comment on function f is 'calls dblink()'",
        ] {
            assert_eq!(lasting_effect(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_a_statement_may_do_to_tables_is_recognized() {
        for (sql, expected) in [
            ("insert into t values (1)", TableUse::Rows),
            ("((select 1) union select 2)", TableUse::Rows),
            ("WITH a AS (b) c", TableUse::Rows),
            ("analyze t", TableUse::Upkeep),
            ("alter table only a.t validate constraint c", TableUse::Upkeep),
            ("create unique index on t (a, b)", TableUse::Index),
            ("create table t (a int references b)", TableUse::Constraint),
            ("create trigger a after insert on t execute function f()", TableUse::Constraint),
            (
                "alter table t add constraint c foreign key (a, b) references u",
                TableUse::Constraint,
            ),
            ("alter table t add foreign key (a) references u, drop b", TableUse::Any),
            ("alter table t add check (a > 0)", TableUse::Any),
            ("create policy p on t", TableUse::Any),
            ("do 'select'", TableUse::Any),
            ("call p()", TableUse::Any),
        ] {
            let used = Script::parse(sql).statements().first().unwrap().table_use();
            assert_eq!(used, expected, "{sql}");
        }
    }

    #[test]
    fn savepoints_are_recognized() {
        let is_savepoint =
            |sql: &str| Script::parse(sql).statements().first().unwrap().is_savepoint();
        assert!(["savepoint a", "release a", "rollback to a"].into_iter().all(is_savepoint));
        assert!(!is_savepoint("select savepoint from release"));
    }
}
