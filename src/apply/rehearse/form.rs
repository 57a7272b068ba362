//! How a statement is rehearsed. Pure.

use crate::apply::transaction::StepRef;
use crate::postgres::server_error::ServerError;
use crate::sql::name::{self, Occurrence};
use crate::sql::{Kind, LockMode, Statement, TableUse};

use super::report::{Form, NotRun};

pub(super) enum Way {
    Run(Run),
    No(NotRun),
}

pub(super) struct Run {
    pub(super) form: Form,
    /// What is sent in place of the statement.
    pub(super) sql: Option<String>,
    /// Whether the server may refuse it inside a transaction block.
    pub(super) may_be_refused: bool,
}

/// `is_begun` is whether an earlier run has begun with this statement, outside a transaction.
pub(super) fn way(step: StepRef<'_>, statement: &Statement<'_>, is_begun: bool) -> Way {
    let as_it_is = |may_be_refused| Way::Run(Run { form: Form::AsItIs, sql: None, may_be_refused });
    if let Some(effect) = statement.lasting_effect() {
        return Way::No(NotRun::Lasts(effect));
    }
    match statement.kind {
        Kind::SetTransaction => Way::No(NotRun::TransactionModes),
        _ if is_begun => Way::No(NotRun::Begun),
        Kind::NoTransactionBlock(kind) => match statement.without_concurrently() {
            Some(sql) => Way::Run(Run {
                form: Form::WithoutConcurrently,
                sql: Some(sql),
                may_be_refused: true,
            }),
            None => Way::No(NotRun::NoTransactionBlock(kind)),
        },
        _ => as_it_is(step.step.outside_transaction.is_some()),
    }
}

/// The strongest lock that a statement may take on a table.
pub(super) fn at_most(statement: &Statement<'_>) -> LockMode {
    match statement.table_use() {
        TableUse::Rows => LockMode::RowExclusive,
        TableUse::Upkeep => LockMode::ShareUpdateExclusive,
        TableUse::Index => LockMode::Share,
        TableUse::Constraint => LockMode::ShareRowExclusive,
        TableUse::Any => LockMode::AccessExclusive,
    }
}

/// Whether a statement may have failed because this one was not run: it names what is missing.
pub(super) fn may_need(error: &ServerError, not_run: &str) -> bool {
    let fields = [&error.column, &error.constraint, &error.datatype];
    let mut names: Vec<&str> = fields.into_iter().filter_map(|field| field.as_deref()).collect();
    names.extend(error.quoted_name());
    // The table in which a row is missing.
    if error.is("23503") {
        let detail = error.detail.as_deref().unwrap_or_default();
        names.extend(detail.split('"').skip(1).step_by(2));
    }
    let is_named = |name: &&str| {
        name::occurrence(not_run, name) != Occurrence::Never || name::is_string(not_run, name)
    };
    names.iter().any(is_named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_put_down_to_what_was_not_run_only_if_both_name_the_same() {
        let error = |code: &str, message: &str, detail: Option<&str>| ServerError {
            code: code.to_owned(),
            message: message.to_owned(),
            detail: detail.map(str::to_owned),
            ..ServerError::default()
        };
        let not_run = "create table m (a mood default 'fine')";
        let missing = error("42P01", "relation \"m\" does not exist", None);
        assert!(may_need(&missing, not_run));
        let column = error("42703", "column \"a\" of relation \"t\" does not exist", None);
        assert!(may_need(&column, not_run));
        let key = "Key (a)=(1) is not present in table \"m\".";
        let row = error("23503", "insert or update on table \"t\" violates ...", Some(key));
        assert!(may_need(&row, not_run));
        let other = error("42703", "column \"b\" of relation \"m\" does not exist", None);
        assert!(!may_need(&other, not_run));
        assert!(!may_need(&error("22012", "division by zero", None), not_run));
    }
}
