//! The oracle: PostgreSQL's own parser and scanner. Uses nothing of premigrate.

use std::ops::Range;

use pg_query::protobuf::{
    AlterSubscriptionType, AlterTableType, DefElem, DiscardMode, Node, ObjectType, OnCommitAction,
    RangeVar, ReindexObjectType, SelectStmt, Token, TransactionStmtKind, VariableSetKind,
    VariableSetStmt,
};
use pg_query::{NodeEnum, ParserOptions};

/// One statement, as PostgreSQL sees it.
pub struct Parsed {
    /// From the first token to the last.
    pub range: Range<usize>,
    pub needs: Needs,
}

/// What a statement needs to run, by its parse tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    Begin,
    Commit,
    Rollback,
    PrepareTransaction,
    SetTransaction,
    NoTransaction,
    DataFromClient,
    DataToClient,
    EnumValue,
    Setting,
    Session,
    /// Not compared: the parser accepts a setting that does not exist, or cannot decide.
    Unknown,
}

/// The statements of a text, if PostgreSQL accepts it.
pub fn parse(text: &str) -> Option<Vec<Parsed>> {
    let parsed = pg_query::parse(text, ParserOptions::default()).ok()?;
    let is_comment = |token| matches!(token, Token::SqlComment | Token::CComment);
    let tokens: Vec<Range<usize>> = pg_query::scan(text)
        .ok()?
        .tokens
        .iter()
        .filter(|token| !is_comment(token.token()))
        .map(|token| token.start as usize..token.end as usize)
        .collect();
    let statements = parsed.protobuf.stmts.iter().map(|raw| {
        let start = raw.stmt_location as usize;
        let end = if raw.stmt_len == 0 { text.len() } else { start + raw.stmt_len as usize };
        let mut inside = tokens.iter().filter(|token| token.start >= start && token.end <= end);
        let first = inside.next().expect("a statement has tokens");
        let last = inside.next_back().unwrap_or(first);
        let node = raw.stmt.as_ref().and_then(|node| node.node.as_ref()).expect("a statement");
        Parsed { range: first.start..last.end, needs: needs(node) }
    });
    Some(statements.collect())
}

fn needs(node: &NodeEnum) -> Needs {
    match node {
        NodeEnum::TransactionStmt(statement) => match statement.kind() {
            TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => {
                Needs::Begin
            }
            TransactionStmtKind::TransStmtCommit => Needs::Commit,
            TransactionStmtKind::TransStmtRollback => Needs::Rollback,
            TransactionStmtKind::TransStmtPrepare => Needs::PrepareTransaction,
            TransactionStmtKind::TransStmtCommitPrepared
            | TransactionStmtKind::TransStmtRollbackPrepared => Needs::NoTransaction,
            _ => Needs::Nothing,
        },
        NodeEnum::VariableSetStmt(statement) => setting(statement),
        // It is repeated in later sessions, as a setting is.
        NodeEnum::LoadStmt(_) => Needs::Setting,
        NodeEnum::VacuumStmt(statement) => outside_transaction(statement.is_vacuumcmd),
        NodeEnum::IndexStmt(statement) => outside_transaction(statement.concurrent),
        NodeEnum::DropStmt(statement) => outside_transaction(
            statement.concurrent && statement.remove_type() == ObjectType::ObjectIndex,
        ),
        NodeEnum::ReindexStmt(statement) => outside_transaction(match statement.kind() {
            ReindexObjectType::ReindexObjectSchema
            | ReindexObjectType::ReindexObjectSystem
            | ReindexObjectType::ReindexObjectDatabase => true,
            _ => flag(&statement.params, "concurrently") == Some(true),
        }),
        NodeEnum::ClusterStmt(statement) => outside_transaction(statement.relation.is_none()),
        NodeEnum::AlterTableStmt(statement) => {
            outside_transaction(statement.cmds.iter().any(|cmd| {
                let Some(NodeEnum::AlterTableCmd(cmd)) = &cmd.node else { return false };
                let def = cmd.def.as_ref().and_then(|def| def.node.as_ref());
                cmd.subtype() == AlterTableType::AtDetachPartition
                    && matches!(def, Some(NodeEnum::PartitionCmd(command)) if command.concurrent)
            }))
        }
        NodeEnum::CreatedbStmt(_)
        | NodeEnum::DropdbStmt(_)
        | NodeEnum::CreateTableSpaceStmt(_)
        | NodeEnum::DropTableSpaceStmt(_)
        | NodeEnum::AlterSystemStmt(_)
        | NodeEnum::DropSubscriptionStmt(_) => Needs::NoTransaction,
        // With other options, it is refused because of them.
        NodeEnum::AlterDatabaseStmt(statement) => outside_transaction(
            statement.options.len() == 1 && flag(&statement.options, "tablespace").is_some(),
        ),
        NodeEnum::DiscardStmt(statement) => {
            outside_transaction(statement.target() == DiscardMode::DiscardAll)
        }
        NodeEnum::CreateSubscriptionStmt(statement) => outside_transaction(
            flag(&statement.options, "create_slot") != Some(false)
                && flag(&statement.options, "connect") != Some(false),
        ),
        NodeEnum::AlterSubscriptionStmt(statement) => outside_transaction(match statement.kind() {
            AlterSubscriptionType::AlterSubscriptionRefresh => true,
            AlterSubscriptionType::AlterSubscriptionSetPublication
            | AlterSubscriptionType::AlterSubscriptionAddPublication
            | AlterSubscriptionType::AlterSubscriptionDropPublication => {
                flag(&statement.options, "refresh") != Some(false)
            }
            AlterSubscriptionType::AlterSubscriptionOptions => {
                flag(&statement.options, "failover").is_some()
                    || flag(&statement.options, "two_phase") == Some(false)
            }
            _ => false,
        }),
        NodeEnum::AlterEnumStmt(statement)
            if statement.old_val.is_empty() && !statement.new_val.is_empty() =>
        {
            Needs::EnumValue
        }
        NodeEnum::CopyStmt(statement) if statement.filename.is_empty() && !statement.is_program => {
            if statement.is_from {
                Needs::DataFromClient
            } else {
                Needs::DataToClient
            }
        }
        NodeEnum::PrepareStmt(_) | NodeEnum::ListenStmt(_) => Needs::Session,
        // CURSOR_OPT_HOLD
        NodeEnum::DeclareCursorStmt(statement) if statement.options & 0x20 != 0 => Needs::Session,
        NodeEnum::CreateStmt(statement) => temporary(
            statement.relation.as_ref(),
            statement.oncommit() == OnCommitAction::OncommitDrop,
        ),
        NodeEnum::CreateTableAsStmt(statement) => match statement.into.as_deref() {
            Some(into) => {
                temporary(into.rel.as_ref(), into.on_commit() == OnCommitAction::OncommitDrop)
            }
            None => Needs::Nothing,
        },
        NodeEnum::ViewStmt(statement) => temporary(statement.view.as_ref(), false),
        NodeEnum::CreateSeqStmt(statement) => temporary(statement.sequence.as_ref(), false),
        NodeEnum::CompositeTypeStmt(statement) => temporary(statement.typevar.as_ref(), false),
        NodeEnum::CreateFunctionStmt(statement) => in_pg_temp(&statement.funcname),
        NodeEnum::DefineStmt(statement) => match statement.kind() {
            ObjectType::ObjectAggregate | ObjectType::ObjectType => in_pg_temp(&statement.defnames),
            _ => Needs::Nothing,
        },
        NodeEnum::CreateDomainStmt(statement) => in_pg_temp(&statement.domainname),
        NodeEnum::CreateEnumStmt(statement) => in_pg_temp(&statement.type_name),
        NodeEnum::CreateRangeStmt(statement) => in_pg_temp(&statement.type_name),
        NodeEnum::SelectStmt(statement) => select(statement),
        _ => Needs::Nothing,
    }
}

fn outside_transaction(is_refused: bool) -> Needs {
    if is_refused { Needs::NoTransaction } else { Needs::Nothing }
}

fn setting(statement: &VariableSetStmt) -> Needs {
    let resets =
        matches!(statement.kind(), VariableSetKind::VarReset | VariableSetKind::VarResetAll);
    match statement.name.as_str() {
        "TRANSACTION" | "TRANSACTION SNAPSHOT" if !resets => Needs::SetTransaction,
        // Keywords of the grammar, followed by `TO` or `=`.
        "constraints" | "transaction" | "local" | "session" | "names" => Needs::Unknown,
        _ if statement.is_local => Needs::Nothing,
        _ => Needs::Setting,
    }
}

fn temporary(relation: Option<&RangeVar>, dropped_at_commit: bool) -> Needs {
    match relation {
        Some(relation) if relation.relpersistence == "t" && !dropped_at_commit => Needs::Session,
        Some(relation) if relation.schemaname == "pg_temp" => Needs::Session,
        _ => Needs::Nothing,
    }
}

fn in_pg_temp(name: &[Node]) -> Needs {
    match name.first().and_then(|part| part.node.as_ref()) {
        Some(NodeEnum::String(schema)) if name.len() > 1 && schema.sval == "pg_temp" => {
            Needs::Session
        }
        _ => Needs::Nothing,
    }
}

/// Only the first query of a UNION may have an INTO, but the parser does not check it.
fn makes_temporary(statement: &SelectStmt) -> bool {
    let into = statement.into_clause.as_ref().and_then(|into| into.rel.as_ref());
    let parts = [statement.larg.as_deref(), statement.rarg.as_deref()];
    temporary(into, false) == Needs::Session || parts.into_iter().flatten().any(makes_temporary)
}

fn select(statement: &SelectStmt) -> Needs {
    if makes_temporary(statement) {
        return Needs::Session;
    }
    let sets = statement.target_list.iter().any(|target| {
        let Some(NodeEnum::ResTarget(target)) = &target.node else { return false };
        let value = target.val.as_ref().and_then(|value| value.node.as_ref());
        let Some(NodeEnum::FuncCall(call)) = value else { return false };
        let is = |node: Option<&Node>, wanted: &str| match node.and_then(|node| node.node.as_ref())
        {
            Some(NodeEnum::String(name)) => name.sval == wanted,
            Some(NodeEnum::AConst(constant)) => {
                format!("{:?}", constant.val).contains("Boolean { boolval: false }")
                    && wanted == "false"
            }
            _ => false,
        };
        is(call.funcname.last(), "set_config") && is(call.args.get(2), "false")
    });
    // premigrate requires that the query does nothing else, which the parse tree does not show.
    if sets { Needs::Unknown } else { Needs::Nothing }
}

/// A flag in an option list, by the server's rules for booleans. Without a value it is on.
fn flag(options: &[Node], name: &str) -> Option<bool> {
    let mut options = options.iter().filter_map(|option| match &option.node {
        Some(NodeEnum::DefElem(option)) if option.defname == name => Some(is_on(option)),
        _ => None,
    });
    options.next_back()
}

fn is_on(option: &DefElem) -> bool {
    match option.arg.as_ref().and_then(|arg| arg.node.as_ref()) {
        Some(NodeEnum::String(text)) => {
            !["false", "off"].iter().any(|off| text.sval.eq_ignore_ascii_case(off))
        }
        Some(NodeEnum::Integer(number)) => number.ival != 0,
        _ => true,
    }
}
