//! What a statement needs in order to run, read from its own text: a transaction, no transaction,
//! the client, or the session it leaves something in. What only the server can know (a partitioned
//! table, a procedure that commits) is `Plain`.

use super::lexer::TokenKind;
use super::script::Statement;
use super::tokens::Tokens;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs in a transaction and leaves nothing in the session.
    Plain,
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`, with or without `AND CHAIN`.
    Commit,
    /// `ROLLBACK`, `ABORT`. `ROLLBACK TO` a savepoint is `Plain`.
    Rollback,
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `SET TRANSACTION`, which must come before the first query of its transaction.
    SetTransaction,
    /// The named statement, which at least one version from 13 to 18 rejects inside a transaction
    /// block (25001). Versions that accept it there accept it outside of one too.
    NoTransactionBlock(&'static str),
    /// `COPY ... FROM STDIN`: the client sends data.
    CopyFromClient,
    /// `COPY ... TO STDOUT`: the client receives data.
    CopyToClient,
    /// A line for psql, such as `\connect`.
    PsqlCommand,
    /// `ALTER TYPE ... ADD VALUE`: the value cannot be used before it is committed (55P04).
    AddEnumValue,
    /// Changes a setting or the role beyond the transaction, or loads a library.
    Setting,
    /// Sets the named setting, which changes how the server reads the SQL of later messages:
    /// `standard_conforming_strings`, `client_encoding`.
    LexingSetting(&'static str),
    /// The named statement, whose result exists only in this session.
    SessionBound(&'static str),
}

pub(super) fn classify(statement: &str) -> Kind {
    let mut tokens = Tokens::new(statement);
    let Some(first) = tokens.next() else { return Kind::Plain };
    if first.text == "\\" {
        return Kind::PsqlCommand;
    }
    if first.kind != TokenKind::Word {
        return Kind::Plain;
    }
    match first.text.to_ascii_lowercase().as_str() {
        "begin" => Kind::Begin,
        "start" if tokens.accept("transaction") => Kind::Begin,
        "commit" | "end" if tokens.accept("prepared") => {
            Kind::NoTransactionBlock("COMMIT PREPARED")
        }
        "commit" | "end" => Kind::Commit,
        "rollback" if tokens.accept("prepared") => Kind::NoTransactionBlock("ROLLBACK PREPARED"),
        "rollback" | "abort" => {
            tokens.accept_any(&["work", "transaction"]);
            if tokens.accept("to") { Kind::Plain } else { Kind::Rollback }
        }
        // `PREPARE transaction AS ...` prepares a statement of that name.
        "prepare" if tokens.accept("transaction") && !tokens.accept_any(&["as", "("]) => {
            Kind::PrepareTransaction
        }
        "prepare" => Kind::SessionBound("PREPARE"),
        "set" => set_kind(tokens),
        "reset" => Kind::Setting,
        // What a library sets up lasts as long as the session, as a setting does.
        "load" => Kind::Setting,
        "listen" => Kind::SessionBound("LISTEN"),
        "declare" if tokens.skip_past("cursor", "with") && tokens.accept("hold") => {
            Kind::SessionBound("DECLARE CURSOR WITH HOLD")
        }
        "select" | "with" => select_kind(tokens),
        "copy" => copy_kind(tokens),
        "create" => create_kind(tokens),
        "alter" => alter_kind(tokens),
        "drop" => drop_kind(tokens),
        "vacuum" => Kind::NoTransactionBlock("VACUUM"),
        "cluster" => {
            tokens.option("verbose");
            tokens.accept("verbose");
            if tokens.is_at_end() { Kind::NoTransactionBlock("CLUSTER") } else { Kind::Plain }
        }
        "reindex" => reindex_kind(tokens),
        "discard" if tokens.accept("all") => Kind::NoTransactionBlock("DISCARD ALL"),
        _ => Kind::Plain,
    }
}

fn set_kind(mut tokens: Tokens) -> Kind {
    let local = tokens.accept("local");
    tokens.accept("session");
    let modes = ["transaction", "transaction_deferrable", "transaction_read_only"];
    if tokens.accept_any(&modes) {
        Kind::SetTransaction
    } else if tokens.accept("constraints") {
        Kind::Plain
    } else if let Some(setting) = lexing_setting(&mut tokens) {
        Kind::LexingSetting(setting)
    } else if local {
        Kind::Plain
    } else {
        Kind::Setting
    }
}

/// The name of a setting that changes how SQL is read. `None` if it is set to the value that our
/// lexer assumes, as pg_dump does.
fn lexing_setting(tokens: &mut Tokens) -> Option<&'static str> {
    let settings: [(&str, &[&str]); 3] = [
        ("standard_conforming_strings", &["on", "true", "yes", "1", "default"]),
        ("client_encoding", &["utf8", "utf-8", "unicode", "default"]),
        ("names", &["utf8", "utf-8", "unicode", "default"]),
    ];
    let unquoted = tokens.peek()?.text.trim_matches('"').to_ascii_lowercase();
    let (name, harmless) = settings.into_iter().find(|(name, _)| *name == unquoted)?;
    tokens.next();
    if !tokens.accept("to") {
        tokens.accept("=");
    }
    let value = tokens.next()?.text.trim_matches('\'').to_ascii_lowercase();
    (!harmless.contains(&value.as_str())).then_some(name)
}

/// The same for the text behind `SELECT`, if it is a call of `set_config`.
fn configured_lexing_setting(mut tokens: Tokens) -> Option<&'static str> {
    if !accept_set_config(&mut tokens) || !tokens.accept("(") {
        return None;
    }
    let name = tokens.next_if(|token| token.kind == TokenKind::Literal)?.text;
    tokens.accept(",").then_some(())?;
    let value = tokens.next()?.text;
    lexing_setting(&mut Tokens::new(&format!("{} to {value}", name.trim_matches('\''))))
}

/// Recognizes `SELECT set_config(..., false)` on its own, as pg_dump writes it, and
/// `SELECT ... INTO TEMP`.
fn select_kind(mut tokens: Tokens) -> Kind {
    if let Some(setting) = configured_lexing_setting(tokens.clone()) {
        return Kind::LexingSetting(setting);
    }
    if is_set_config(tokens.clone()) {
        return Kind::Setting;
    }
    let mut inserts = false;
    while let Some(token) = tokens.next() {
        if token.is("into") && !inserts {
            tokens.accept_any(&["local", "global"]);
            // One of these, or the end, follows a table that is itself named `temp`.
            let after_name = "from where group having window union intersect except order \
                limit offset fetch for )";
            if tokens.accept_any(&["temp", "temporary"])
                && tokens
                    .peek()
                    .is_some_and(|next| !after_name.split(' ').any(|word| next.is(word)))
            {
                return Kind::SessionBound("SELECT INTO TEMPORARY TABLE");
            }
        }
        inserts = token.is("insert") || token.is("merge");
    }
    Kind::Plain
}

fn is_set_config(mut tokens: Tokens) -> bool {
    let literal =
        |tokens: &mut Tokens| tokens.next_if(|token| token.kind == TokenKind::Literal).is_some();
    accept_set_config(&mut tokens)
        && tokens.accept("(")
        && literal(&mut tokens)
        && tokens.accept(",")
        && literal(&mut tokens)
        && tokens.accept(",")
        && tokens.accept("false")
        && tokens.accept(")")
        && tokens.is_at_end()
}

fn accept_set_config(tokens: &mut Tokens) -> bool {
    if tokens.accept("pg_catalog") {
        tokens.accept(".");
    }
    tokens.accept("set_config")
}

fn copy_kind(tokens: Tokens) -> Kind {
    // PostgreSQL accepts both names in both directions.
    let with_client = |preposition| {
        ["stdin", "stdout"].iter().any(|name| tokens.clone().skip_past(preposition, name))
    };
    if with_client("from") {
        Kind::CopyFromClient
    } else if with_client("to") {
        Kind::CopyToClient
    } else {
        Kind::Plain
    }
}

fn create_kind(mut tokens: Tokens) -> Kind {
    if tokens.accept("database") {
        return Kind::NoTransactionBlock("CREATE DATABASE");
    }
    if tokens.accept("tablespace") {
        return Kind::NoTransactionBlock("CREATE TABLESPACE");
    }
    if tokens.accept("subscription") {
        let makes_slot = !tokens.skip_past("with", "(")
            || (tokens.clone().flag("create_slot") != Some(false)
                && tokens.flag("connect") != Some(false));
        return if makes_slot {
            Kind::NoTransactionBlock("CREATE SUBSCRIPTION")
        } else {
            Kind::Plain
        };
    }
    tokens.accept("unique");
    if tokens.accept("index") && tokens.accept("concurrently") {
        return Kind::NoTransactionBlock("CREATE INDEX CONCURRENTLY");
    }
    if tokens.accept("or") {
        tokens.accept("replace");
    }
    tokens.accept_any(&["global", "local"]);
    if tokens.accept_any(&["temp", "temporary"]) {
        tokens.accept("recursive");
        return if tokens.accept("view") {
            Kind::SessionBound("CREATE TEMPORARY VIEW")
        } else if tokens.accept("sequence") {
            Kind::SessionBound("CREATE TEMPORARY SEQUENCE")
        } else if tokens.skip_past("commit", "drop") {
            Kind::Plain
        } else {
            Kind::SessionBound("CREATE TEMPORARY TABLE")
        };
    }
    while tokens.accept_any(&[
        "unlogged",
        "recursive",
        "table",
        "view",
        "sequence",
        "function",
        "procedure",
        "type",
        "domain",
        "aggregate",
        "if",
        "not",
        "exists",
    ]) {}
    if tokens.accept("pg_temp") && tokens.accept(".") {
        return Kind::SessionBound("CREATE in pg_temp");
    }
    Kind::Plain
}

fn alter_kind(mut tokens: Tokens) -> Kind {
    if tokens.accept("system") {
        return Kind::NoTransactionBlock("ALTER SYSTEM");
    }
    if tokens.accept("database") {
        tokens.skip_name();
        return alter_database_kind(tokens);
    }
    if tokens.accept("table") && tokens.skip_past("detach", "partition") {
        tokens.skip_name();
        if tokens.accept("concurrently") {
            return Kind::NoTransactionBlock("ALTER TABLE DETACH PARTITION CONCURRENTLY");
        }
    }
    if tokens.accept("type") {
        tokens.skip_name();
        if tokens.accept("add") && tokens.accept("value") {
            return Kind::AddEnumValue;
        }
    }
    if tokens.accept("subscription") {
        tokens.skip_name();
        return alter_subscription_kind(tokens);
    }
    Kind::Plain
}

/// There are two forms that set the tablespace, and a setting may be named `tablespace` too.
fn alter_database_kind(mut tokens: Tokens) -> Kind {
    let sets = tokens.accept("set");
    tokens.accept("with");
    if tokens.accept("tablespace") && !(sets && tokens.accept_any(&["=", "to", "."])) {
        Kind::NoTransactionBlock("ALTER DATABASE SET TABLESPACE")
    } else {
        Kind::Plain
    }
}

fn alter_subscription_kind(mut tokens: Tokens) -> Kind {
    if tokens.accept("refresh") {
        return Kind::NoTransactionBlock("ALTER SUBSCRIPTION REFRESH");
    }
    if !tokens.accept_any(&["set", "add", "drop"]) {
        return Kind::Plain;
    }
    let refuses = if tokens.accept("publication") {
        !tokens.skip_past("with", "(") || tokens.flag("refresh") != Some(false)
    } else {
        // These change the slot on the publisher, since 17 and since 18.
        tokens.accept("(")
            && (tokens.clone().flag("failover").is_some()
                || tokens.flag("two_phase") == Some(false))
    };
    if refuses { Kind::NoTransactionBlock("ALTER SUBSCRIPTION") } else { Kind::Plain }
}

fn drop_kind(mut tokens: Tokens) -> Kind {
    if tokens.accept("database") {
        Kind::NoTransactionBlock("DROP DATABASE")
    } else if tokens.accept("tablespace") {
        Kind::NoTransactionBlock("DROP TABLESPACE")
    } else if tokens.accept("subscription") {
        Kind::NoTransactionBlock("DROP SUBSCRIPTION")
    } else if tokens.accept("index") && tokens.accept("concurrently") {
        Kind::NoTransactionBlock("DROP INDEX CONCURRENTLY")
    } else {
        Kind::Plain
    }
}

fn reindex_kind(mut tokens: Tokens) -> Kind {
    let option = tokens.option("concurrently");
    if tokens.accept("schema") {
        return Kind::NoTransactionBlock("REINDEX SCHEMA");
    }
    if tokens.accept("database") {
        return Kind::NoTransactionBlock("REINDEX DATABASE");
    }
    if tokens.accept("system") {
        return Kind::NoTransactionBlock("REINDEX SYSTEM");
    }
    tokens.accept_any(&["index", "table"]);
    if tokens.accept("concurrently") || option == Some(true) {
        Kind::NoTransactionBlock("REINDEX CONCURRENTLY")
    } else {
        Kind::Plain
    }
}

impl Statement<'_> {
    /// Whether the server may reject the statement inside a transaction block although its text
    /// does not show it: a procedure that commits, a partitioned table, an extension's command.
    /// It never does for the listed ones, except for forms of [`Kind::NoTransactionBlock`].
    pub fn may_refuse_transaction_block(&self) -> bool {
        const NEVER: [&str; 16] = [
            "alter", "analyze", "comment", "copy", "declare", "delete", "drop", "grant", "insert",
            "lock", "merge", "reset", "revoke", "set", "truncate", "update",
        ];
        let mut tokens = Tokens::new(self.text);
        if tokens.accept("create") {
            // Extensions with self-refreshing views (TimescaleDB) need to commit.
            return tokens.accept("materialized");
        }
        if tokens.accept("select") {
            return !accept_set_config(&mut tokens);
        }
        !tokens.accept_any(&NEVER)
    }
}

/// Whether a statement with this beginning may have a `BEGIN ATOMIC` body.
pub(super) fn is_routine(start: &str) -> bool {
    let mut tokens = Tokens::new(start);
    let creates = tokens.accept("create") && (!tokens.accept("or") || tokens.accept("replace"));
    creates && tokens.accept_any(&["function", "procedure"])
}

#[cfg(test)]
mod tests;
