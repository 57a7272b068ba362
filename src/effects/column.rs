//! The rules for `ADD COLUMN`.

use squawk_syntax::ast::{self, AstNode, Constraint, GeneratedAs};
use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::alter_table::{INDEX_CURE, not_valid_patch, set_not_null_patch, unique_patch};
use super::column_type::ColumnType;
use super::hazard::{Patch, Work};
use super::reader::File;
use super::schema::{KnownColumn, TableName};
use super::statement::NewKey;
use super::syntax::{name, text, text_from, word_of};
use crate::migrations::rule::Rule;
use crate::sql::{LockMode, quote};

/// Functions of PostgreSQL's and of its extensions that return something else each time.
const VOLATILE: [&str; 9] = [
    "clock_timestamp",
    "currval",
    "gen_random_bytes",
    "lastval",
    "nextval",
    "random",
    "random_normal",
    "setval",
    "timeofday",
];

/// What the names of functions that make identifiers contain.
const IDENTIFIERS: [&str; 4] = ["uuid", "ulid", "nanoid", "cuid"];

/// What the names of those contain that return the same for the same arguments.
const CONSTANT_IDENTIFIERS: [&str; 5] = ["_nil", "_ns_", "_v3", "_v5", "_extract"];

impl File<'_, '_> {
    pub fn add_column(&mut self, table: &TableName, add: &ast::AddColumn) {
        let Some(column) = word_of(add.column_name()) else { return };
        let exists = self.exists(table);
        let is_there = self.schema.column(table, &column).is_some();
        if add.if_not_exists().is_some() && is_there {
            return;
        }
        let column_type = add.ty().map(|ty| ColumnType::read(&text(ty.syntax())));
        let constraints: Vec<_> = add.constraints().collect();
        if exists {
            let before = self.found.len();
            self.computed_column(table, &column, add, column_type.as_ref(), &constraints);
            self.constrained_column(table, &column, add, &constraints);
            // Each adds the column, and leaves the other's cause in it.
            let found = self.found.get_mut(before..).unwrap_or_default();
            if found.iter().filter(|found| found.hazard.patch.is_some()).count() > 1 {
                found.iter_mut().for_each(|found| found.hazard.patch = None);
            }
        }
        let is_not_null = constraints.iter().any(|constraint| {
            matches!(
                constraint,
                Constraint::NotNullConstraint(_) | Constraint::PrimaryKeyConstraint(_)
            )
        });
        let known = KnownColumn { column_type, is_not_null, added: Some(self.number) };
        self.schema.table_mut(table).columns.insert(column.clone(), known);
        for constraint in &constraints {
            let suffix = match constraint {
                Constraint::UniqueConstraint(unique) => {
                    let named = unique.constraint_name_clause();
                    let named = named.and_then(|name| word_of(name.constraint_name()));
                    named.unwrap_or_else(|| format!("{}_{column}_key", table.name))
                }
                Constraint::PrimaryKeyConstraint(_) => format!("{}_pkey", table.name),
                Constraint::ReferencesConstraint(key) => {
                    self.foreign_key(add.syntax(), table, NewKey::of_column(key, &column));
                    continue;
                }
                _ => continue,
            };
            self.schema.add_index(table, Some(suffix), vec![column.clone()]);
        }
    }

    /// What the rows that exist get in the new column.
    fn computed_column(
        &mut self,
        table: &TableName,
        column: &str,
        add: &ast::AddColumn,
        column_type: Option<&ColumnType>,
        constraints: &[Constraint],
    ) {
        let node = add.syntax();
        let rewrite = |command| (command, table, LockMode::AccessExclusive, Work::Rewrite);
        let generated = constraints.iter().find_map(|constraint| match constraint {
            Constraint::GeneratedConstraint(generated) => Some(generated.generated_as()),
            _ => None,
        });
        let computed = match &generated {
            Some(Some(GeneratedAs::GeneratedIdentity(_))) => Some("ADD COLUMN ... AS IDENTITY"),
            Some(Some(GeneratedAs::GeneratedStored(stored)))
                if super::syntax::has(stored.syntax(), SyntaxKind::STORED_KW) =>
            {
                Some("ADD COLUMN ... STORED")
            }
            _ if column_type.is_some_and(ColumnType::is_serial) => Some("ADD COLUMN ... serial"),
            _ => None,
        };
        if let Some(command) = computed {
            let cure = "add a plain column, fill it in batches, and let a trigger or the app fill it \
                        meanwhile";
            self.affects(node, Rule::GeneratedRewrite, rewrite(command), cure, None);
            return;
        }
        let default = constraints.iter().find_map(|constraint| match constraint {
            Constraint::DefaultConstraint(default) => default.expr(),
            _ => None,
        });
        let is_required = constraints
            .iter()
            .any(|constraint| matches!(constraint, Constraint::NotNullConstraint(_)));
        let add_only = |without: &[SyntaxKind]| {
            format!("ALTER TABLE {} {};", table.quoted(), column_text(add, without))
        };
        match default {
            Some(expression) => {
                let Some(function) = self.volatile_function(expression.syntax()) else { return };
                let command = format!("ADD COLUMN ... DEFAULT {function}()");
                let cure = "add the column without it, then set the default, and fill the rows that exist \
                            in batches";
                let without = [SyntaxKind::DEFAULT_CONSTRAINT, SyntaxKind::NOT_NULL_CONSTRAINT];
                let value = text(expression.syntax());
                let now = format!(
                    "{}\nALTER TABLE {} ALTER COLUMN {} SET DEFAULT {value};",
                    add_only(&without),
                    table.quoted(),
                    quote::ident(column),
                );
                let patch = filled(now, table, column, &value, is_required);
                self.affects(node, Rule::DefaultRewrite, rewrite(&command), cure, Some(patch));
            }
            None if is_required && generated.is_none() => {
                let message = format!(
                    "ADD COLUMN ... NOT NULL without a default fails if {table} has rows; give it a default, \
                     or let it be NULL until each row has a value"
                );
                let now = add_only(&[SyntaxKind::NOT_NULL_CONSTRAINT]);
                let patch = filled(now, table, column, "...", is_required);
                self.add(node, Rule::RequiredColumn, None, message, Some(patch));
            }
            None => {}
        }
    }

    /// What is checked for the rows that exist.
    fn constrained_column(
        &mut self,
        table: &TableName,
        column: &str,
        add: &ast::AddColumn,
        constraints: &[Constraint],
    ) {
        let node = add.syntax();
        let scan = |command| (command, table, LockMode::AccessExclusive, Work::Scan);
        let has_default = constraints
            .iter()
            .any(|constraint| matches!(constraint, Constraint::DefaultConstraint(_)));
        for constraint in constraints {
            let kind = constraint.syntax().kind();
            let add_only = format!("ALTER TABLE {} {};", table.quoted(), column_text(add, &[kind]));
            let add_only = Patch::of(add_only);
            let list = format!("({})", quote::ident(column));
            match constraint {
                Constraint::UniqueConstraint(unique) => {
                    let named = unique.constraint_name_clause();
                    let named = named.and_then(|name| word_of(name.constraint_name()));
                    let index = named.unwrap_or_else(|| format!("{}_{column}_key", table.name));
                    let patch = unique_patch(table, &index, &list, "UNIQUE");
                    let is_simple = text(unique.syntax()).to_ascii_lowercase().ends_with("unique");
                    let patch = is_simple.then(|| add_only.then(&patch));
                    let effect = scan("ADD COLUMN ... UNIQUE");
                    self.affects(node, Rule::UniqueLocks, effect, INDEX_CURE, patch);
                }
                Constraint::PrimaryKeyConstraint(_) => {
                    let effect = scan("ADD COLUMN ... PRIMARY KEY");
                    self.affects(node, Rule::PrimaryKeyLocks, effect, INDEX_CURE, None);
                }
                Constraint::CheckConstraint(check) => {
                    let named = check.constraint_name_clause();
                    let named = named.and_then(|name| word_of(name.constraint_name()));
                    let named = named.unwrap_or_else(|| format!("{}_{column}_check", table.name));
                    let patch = text_from(check.syntax(), SyntaxKind::CHECK_KW);
                    let patch =
                        patch.map(|body| add_only.then(&not_valid_patch(table, &named, &body)));
                    let cure =
                        "add it NOT VALID after the column, and validate it in the next migration";
                    self.affects(node, Rule::CheckScan, scan("ADD COLUMN ... CHECK"), cure, patch);
                }
                Constraint::ReferencesConstraint(key) if has_default => {
                    let new = NewKey::of_column(key, column);
                    let named = new.name.unwrap_or_else(|| format!("{}_{column}_fkey", table.name));
                    let body = text_from(key.syntax(), SyntaxKind::REFERENCES_KW);
                    let patch = body.map(|body| {
                        let body = format!("FOREIGN KEY {list} {body}");
                        add_only.then(&not_valid_patch(table, &named, &body))
                    });
                    let cure = "add the foreign key NOT VALID after the column, and validate it in the next \
                                migration";
                    let effect = scan("ADD COLUMN ... REFERENCES with a default");
                    self.affects(node, Rule::ForeignKeyScan, effect, cure, patch);
                }
                _ => {}
            }
        }
    }

    /// A function in an expression that may return something else for each row.
    fn volatile_function(&self, expression: &SyntaxNode) -> Option<String> {
        let calls = expression.descendants().filter(|node| node.kind() == SyntaxKind::CALL_EXPR);
        let mut functions = calls.filter_map(|call| name(&call.children().next()?));
        functions.find(|function| self.is_volatile(function)).map(|function| function.name)
    }

    fn is_volatile(&self, function: &TableName) -> bool {
        let name = function.name.as_str();
        if let Some(is_volatile) = self.schema.functions.get(name) {
            return *is_volatile;
        }
        let is_built_in = function.schema().is_none_or(|schema| schema == "pg_catalog");
        !is_built_in
            || VOLATILE.contains(&name)
            || (IDENTIFIERS.iter().any(|part| name.contains(part))
                && !CONSTANT_IDENTIFIERS.iter().any(|part| name.contains(part)))
    }
}

/// A column that is added first, and then gets a value in each row that exists.
fn filled(now: String, table: &TableName, column: &str, value: &str, is_required: bool) -> Patch {
    let batch = format!(
        "UPDATE {0} SET {1} = {value} WHERE {1} IS NULL AND ctid = ANY (ARRAY(\n\
         \x20   SELECT ctid FROM {0} WHERE {1} IS NULL LIMIT 1000));",
        table.quoted(),
        quote::ident(column)
    );
    let patch = Patch { batch, ..Patch::of(now) };
    match is_required {
        true => patch.and_later(set_not_null_patch(table, column)),
        false => patch,
    }
}

/// `ADD COLUMN`, without some of its constraints.
fn column_text(add: &ast::AddColumn, without: &[SyntaxKind]) -> String {
    let if_not_exists = if add.if_not_exists().is_some() { "IF NOT EXISTS " } else { "" };
    let kept = add.syntax().children().filter(|child| {
        child.kind() != SyntaxKind::IF_NOT_EXISTS && !without.contains(&child.kind())
    });
    let kept: Vec<_> = kept.map(|child| text(&child)).collect();
    format!("ADD COLUMN {if_not_exists}{}", kept.join(" "))
}
