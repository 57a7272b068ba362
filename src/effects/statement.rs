//! The rules for statements other than `ALTER TABLE`, and what all of them leave behind.

use squawk_syntax::ast::{self, AstNode, ColumnConstraint, Stmt, TableArg, TableConstraint};
use squawk_syntax::{SyntaxElement, SyntaxKind, SyntaxNode};

use super::alter_table::{checked_columns, checked_not_null};
use super::column_type::ColumnType;
use super::hazard::{Effect, Hazard, Patch, Work};
use super::reader::File;
use super::schema::{ForeignKey, KnownCheck, KnownColumn, KnownTable, Schema, TableName};
use super::syntax::{self, columns, find, has, is_on, name, name_of, text, word_of};
use crate::migrations::rule::Rule;
use crate::sql::{LineColumn, LockMode, quote};

/// PostgreSQL cuts longer names.
const MOST_BYTES: usize = 63;

impl File<'_, '_> {
    pub fn statement(&mut self, statement: &Stmt, sql: &str) {
        self.long_names(statement.syntax());
        match statement {
            Stmt::AlterTable(alter) => self.alter_table(alter),
            Stmt::AlterSchema(alter) => self.alter_schema(alter),
            Stmt::AlterType(alter) => self.alter_type(alter),
            Stmt::AlterIndex(alter) => self.alter_index(alter),
            Stmt::Cluster(cluster) => self.cluster(cluster),
            Stmt::CreateFunction(create) => self.create_function(create),
            Stmt::CreateIndex(create) => self.create_index(create, sql),
            Stmt::CreateMaterializedView(create) => self.create_filled(name_of(create.view())),
            Stmt::CreateTable(create) => self.create_table(create),
            Stmt::CreateTableAs(create) => self.create_filled(name_of(create.table_name())),
            Stmt::CreateTrigger(create) => self.create_trigger(create),
            Stmt::CreateType(create) => self.create_type(create),
            Stmt::Delete(delete) => {
                let condition = delete.where_clause_or_current_of();
                self.write("DELETE", delete.syntax(), name_of(delete.relation_name()), condition);
            }
            Stmt::DropDatabase(drop) => {
                let message = "DROP DATABASE loses all tables of a database; run it by hand, where someone \
                               looks at it";
                self.note(drop.syntax(), Rule::LosesMore, message.to_owned());
            }
            Stmt::DropIndex(drop) => self.drop_index(drop),
            Stmt::DropSchema(drop) => self.drop_others("DROP SCHEMA", drop.syntax()),
            Stmt::DropTable(drop) => self.drop_table(drop),
            Stmt::DropType(drop) => {
                self.drop_others("DROP TYPE", drop.syntax());
                let names = drop.type_name_refs().filter_map(|dropped| name(dropped.syntax()));
                for dropped in names.collect::<Vec<_>>() {
                    self.schema.enums.remove(&dropped);
                    self.gone_types.insert(dropped);
                }
            }
            Stmt::Insert(insert) => {
                if let Some(table) = name_of(insert.relation_name_ref())
                    && find(insert.syntax(), SyntaxKind::SELECT).is_some()
                {
                    self.works(insert.syntax(), &table, LockMode::RowExclusive, false);
                }
            }
            Stmt::Reindex(reindex) => self.reindex(reindex),
            Stmt::Truncate(truncate) => self.truncate(truncate),
            Stmt::Update(update) => {
                let condition = update.where_clause_or_current_of();
                self.write("UPDATE", update.syntax(), name_of(update.relation_name()), condition);
            }
            Stmt::Vacuum(vacuum) => self.vacuum(vacuum),
            _ => {}
        }
    }

    /// The first use of each name that PostgreSQL cuts.
    fn long_names(&mut self, statement: &SyntaxNode) {
        let tokens = statement.descendants_with_tokens().filter_map(SyntaxElement::into_token);
        let long = tokens
            .filter(|token| token.kind() == SyntaxKind::IDENT && token.text().len() > MOST_BYTES);
        for token in long.collect::<Vec<_>>() {
            let name = syntax::identifier(token.text());
            if name.len() <= MOST_BYTES || !self.schema.long_names.insert(name.clone()) {
                continue;
            }
            let kept = name.get(..name.floor_char_boundary(MOST_BYTES)).unwrap_or_default();
            let is_same = |other: &&String| other.starts_with(kept) && **other != name;
            let other = self.schema.long_names.iter().find(is_same);
            let message = match other {
                Some(other) => format!(
                    "this name has {} bytes, and PostgreSQL keeps the first {MOST_BYTES}, which are those \
                     of {other}, too; shorten both",
                    name.len()
                ),
                None => format!(
                    "this name has {} bytes, and PostgreSQL keeps the first {MOST_BYTES}, {kept}; shorten it, \
                     so that the database has the name that the code has",
                    name.len()
                ),
            };
            if let Some(parent) = token.parent() {
                self.note(&parent, Rule::ShortenedName, message);
            }
        }
    }

    fn create_table(&mut self, create: &ast::CreateTable) {
        let Some(created) = name_of(create.table_name()) else { return };
        let is_there = self.schema.is_known(&created);
        if create.if_not_exists().is_some() && is_there {
            return;
        }
        let is_temporary = matches!(create.persistence(), Some(ast::Persistence::Temp(_)));
        let partition_by = create.partition_by();
        let items = partition_by.as_ref().and_then(|by| by.partition_item_list());
        let partition_key = items.and_then(|items| {
            let [key] = <[_; 1]>::try_from(plain_columns(items.syntax())).ok()?;
            (items.syntax().children().count() == 1).then_some(key)
        });
        let may_be_there = create.if_not_exists().is_some() && self.may_be_there(&created);
        let mut table = KnownTable {
            created: Some(self.number).filter(|_| !may_be_there),
            is_temporary,
            is_partitioned: partition_by.is_some(),
            partition_key,
            ..KnownTable::default()
        };
        let mut keys = Vec::new();
        for arg in create.table_arg_list().into_iter().flat_map(|list| list.args()) {
            match arg {
                TableArg::Column(column) => {
                    self.created_column(&created, &column, &mut table, &mut keys)
                }
                TableArg::TableConstraint(TableConstraint::ForeignKeyConstraint(key)) => {
                    keys.push(NewKey::of(&key));
                }
                TableArg::TableConstraint(constraint) => {
                    let node = constraint.syntax();
                    let name = find(node, SyntaxKind::CONSTRAINT_NAME).and_then(|node| name(&node));
                    let list = find(node, SyntaxKind::CONSTRAINT_COLUMN_REF_LIST);
                    let list = list.map(|list| columns(&list)).unwrap_or_default();
                    if let TableConstraint::CheckConstraint(check) = &constraint {
                        let name = name.as_ref().map(|name| name.name.clone());
                        let (columns, not_null) = (checked_columns(check), checked_not_null(check));
                        let is_valid = !has(node, SyntaxKind::NOT_ENFORCED);
                        table.checks.push(KnownCheck { name, columns, not_null, is_valid });
                    }
                    if let TableConstraint::PrimaryKeyConstraint(_) = constraint {
                        for column in &list {
                            table.columns.entry(column.clone()).or_default().is_not_null = true;
                        }
                    }
                    table.indexes.push((name.map(|name| name.name), list));
                }
                TableArg::LikeClause(_) => {}
            }
        }
        let indexes = std::mem::take(&mut table.indexes);
        self.schema.create_table(created.clone(), table);
        for (name, columns) in indexes {
            self.schema.add_index(&created, name, columns);
        }
        if let Some(parent) = create.partition_of().and_then(|of| name_of(of.table_name_ref())) {
            self.schema.table_mut(&parent).partitions.push(created.clone());
        }
        for key in keys {
            self.foreign_key(create.syntax(), &created, key);
        }
    }

    fn created_column(
        &mut self,
        created: &TableName,
        column: &ast::Column,
        table: &mut KnownTable,
        keys: &mut Vec<NewKey>,
    ) {
        let Some(name) = word_of(column.name()) else { return };
        let mut known = KnownColumn {
            column_type: column.ty().map(|ty| ColumnType::read(&text(ty.syntax()))),
            ..KnownColumn::default()
        };
        for clause in column.clauses() {
            match clause {
                ast::ColumnClause::ColumnConstraint(ColumnConstraint::NotNullConstraint(_)) => {
                    known.is_not_null = true;
                }
                ast::ColumnClause::ColumnConstraint(ColumnConstraint::PrimaryKeyConstraint(_)) => {
                    known.is_not_null = true;
                    table
                        .indexes
                        .push((Some(format!("{}_pkey", created.name)), vec![name.clone()]));
                }
                ast::ColumnClause::ColumnConstraint(ColumnConstraint::UniqueConstraint(_)) => {
                    let index = format!("{}_{name}_key", created.name);
                    table.indexes.push((Some(index), vec![name.clone()]));
                }
                ast::ColumnClause::ColumnConstraint(ColumnConstraint::ReferencesConstraint(
                    key,
                )) => {
                    keys.push(NewKey::of_column(&key, &name));
                }
                _ => {}
            }
        }
        table.columns.insert(name, known);
    }

    fn create_filled(&mut self, created: Option<TableName>) {
        if let Some(created) = created {
            self.schema.create_table(
                created,
                KnownTable { created: Some(self.number), ..KnownTable::default() },
            );
        }
    }

    pub fn foreign_key(&mut self, node: &SyntaxNode, table: &TableName, key: NewKey) {
        let NewKey { name, columns, referenced, deletes } = key;
        let Some(referenced) = referenced else { return };
        if deletes && !columns.is_empty() {
            let key = UnindexedKey {
                statement: self.statement_index(),
                position: self.position(node),
                table: table.clone(),
                columns: columns.clone(),
                referenced: referenced.clone(),
                is_new: !self.exists(table),
            };
            self.unindexed.push(key);
        }
        let table = table.clone();
        self.schema.foreign_keys.push(ForeignKey { table, name, columns, referenced });
    }

    fn create_index(&mut self, create: &ast::CreateIndex, sql: &str) {
        let node = create.syntax();
        let Some(relation) = create.table_relation_name() else { return };
        let Some(table) = name(relation.syntax()) else { return };
        let is_only = relation.only_token().is_some();
        let items = create.partition_item_list();
        let items = items.map(|list| plain_columns(list.syntax())).unwrap_or_default();
        let index = name_of(create.index()).map(|name| name.name);
        let known = self.schema.table(&table);
        let is_partitioned = known.is_some_and(|table| table.is_partitioned);
        let partitions = known.map(|table| table.partitions.clone()).unwrap_or_default();
        // Only a partitioned table has an index that is empty.
        let is_empty = is_only && (is_partitioned || !self.schema.is_known(&table));
        if create.concurrently_token().is_none() && self.exists(&table) && !is_empty {
            if is_partitioned {
                let patch = partitioned_patch(node, index.as_deref(), &table, &partitions);
                self.affects(
                    node,
                    Rule::PartitionedIndex,
                    ("CREATE INDEX on a partitioned table", &table, LockMode::Share, Work::Scan),
                    "create it ON ONLY this table, then CONCURRENTLY on each partition, and attach those",
                    patch,
                );
            } else {
                let keyword = create.index_token();
                let patch = keyword.and_then(|keyword| {
                    let (before, after) =
                        sql.split_at_checked(usize::from(keyword.text_range().end()))?;
                    Some(Patch::of(format!("{before} CONCURRENTLY{after};")))
                });
                self.affects(
                    node,
                    Rule::IndexLocksWrites,
                    ("CREATE INDEX", &table, LockMode::Share, Work::Scan),
                    "create it CONCURRENTLY",
                    patch,
                );
            }
        }
        self.schema.add_index(&table, index, items);
    }

    fn drop_index(&mut self, drop: &ast::DropIndex) {
        let names: Vec<TableName> =
            drop.index_refs().filter_map(|index| name(index.syntax())).collect();
        let is_concurrent = has(drop.syntax(), SyntaxKind::CONCURRENTLY_KW);
        for index in &names {
            let table = self.schema.table_of_index(index).cloned();
            if !is_concurrent && table.as_ref().is_none_or(|table| self.exists(table)) {
                let if_exists = if drop.if_exists().is_some() { "IF EXISTS " } else { "" };
                let patch = format!("DROP INDEX CONCURRENTLY {if_exists}{};", index.quoted());
                let patch = Patch::of(patch);
                let cure = "drop it CONCURRENTLY";
                match &table {
                    Some(table) => {
                        let effect = ("DROP INDEX", table, LockMode::AccessExclusive, Work::None);
                        self.affects(
                            drop.syntax(),
                            Rule::DropIndexLocks,
                            effect,
                            cure,
                            Some(patch),
                        );
                        self.holds(drop.syntax(), table);
                    }
                    None => {
                        let message = format!(
                            "DROP INDEX takes ACCESS EXCLUSIVE on the table of {index}, so it waits for \
                             transactions that use the table, and reads and writes wait behind it; {cure}"
                        );
                        self.add(drop.syntax(), Rule::DropIndexLocks, None, message, Some(patch));
                        self.depends_on(index, false);
                    }
                }
            }
            self.schema.drop_index(index);
        }
    }

    fn reindex(&mut self, reindex: &ast::Reindex) {
        let node = reindex.syntax();
        if is_on(node, SyntaxKind::CONCURRENTLY_KW) {
            return;
        }
        let (what, table, target) = match reindex.reindex_target() {
            Some(ast::ReindexTarget::ReindexTargetTable(target)) => {
                let name = name_of(find_ref(target.syntax(), SyntaxKind::TABLE_NAME_REF));
                ("TABLE", name.clone(), name)
            }
            Some(ast::ReindexTarget::ReindexTargetIndex(target)) => {
                let name = name_of(find_ref(target.syntax(), SyntaxKind::INDEX_REF));
                let table = name.as_ref().and_then(|index| self.schema.table_of_index(index));
                ("INDEX", table.cloned(), name)
            }
            // A schema, or all of the database.
            _ => return self.unread(),
        };
        let Some(target) = target else { return };
        let patch = format!("REINDEX {what} CONCURRENTLY {};", target.quoted());
        let patch = Some(Patch::of(patch));
        // To plan a query, the server opens each index of its tables.
        let message = |table: &str| {
            format!(
                "REINDEX takes SHARE on {table} and ACCESS EXCLUSIVE on each index, and scans the table, so \
                 writes and nearly all reads wait until it is done; reindex it CONCURRENTLY"
            )
        };
        match table {
            Some(table) if self.exists(&table) => {
                let message = message(&table.to_string());
                let effect =
                    Effect { table: table.clone(), lock: LockMode::Share, work: Work::Scan };
                self.add(node, Rule::ReindexLocks, Some(effect), message, patch);
                self.works(node, &table, LockMode::Share, true);
            }
            Some(_) => {}
            None => {
                let message = message(&format!("the table of {target}"));
                self.add(node, Rule::ReindexLocks, None, message, patch);
                self.depends_on(&target, true);
            }
        }
    }

    fn cluster(&mut self, cluster: &ast::Cluster) {
        let node = cluster.syntax();
        let target = node.children().find(|child| child.kind() == SyntaxKind::TABLE_NAME_REF);
        match target.and_then(|target| name(&target)) {
            Some(table) => self.rewrites(node, "CLUSTER", Some(table)),
            None => self.unread(),
        }
    }

    fn vacuum(&mut self, vacuum: &ast::Vacuum) {
        let node = vacuum.syntax();
        if !is_on(node, SyntaxKind::FULL_KW) {
            return;
        }
        let tables =
            node.descendants().filter(|node| node.kind() == SyntaxKind::TABLE_RELATION_NAME);
        let tables: Vec<_> = tables.filter_map(|table| name(&table)).collect();
        if tables.is_empty() {
            self.unread();
        }
        for table in tables {
            self.rewrites(node, "VACUUM FULL", Some(table));
        }
    }

    pub fn rewrites(&mut self, node: &SyntaxNode, command: &str, table: Option<TableName>) {
        let Some(table) = table.filter(|table| self.exists(table)) else { return };
        self.affects(
            node,
            Rule::Rewrite,
            (command, &table, LockMode::AccessExclusive, Work::Rewrite),
            "run it at a quiet time, or use pg_repack",
            None,
        );
    }

    fn create_trigger(&mut self, create: &ast::CreateTrigger) {
        let Some(table) = create.on_relation().and_then(|on| name_of(on.relation_name_ref()))
        else {
            return;
        };
        if self.exists(&table) {
            let effect = ("CREATE TRIGGER", &table, LockMode::ShareRowExclusive, Work::None);
            self.affects(create.syntax(), Rule::TriggerLocks, effect, TRIGGER_CURE, None);
        }
    }

    fn create_type(&mut self, create: &ast::CreateType) {
        let Some(created) = name_of(create.type_name()) else { return };
        if let Some(ast::CreateTypeKind::EnumType(list)) = create.kind() {
            let values =
                list.syntax().descendants().filter(|node| node.kind() == SyntaxKind::LITERAL);
            let values = values.map(|value| syntax::string(&value)).collect();
            self.schema.enums.insert(created.clone(), values);
        }
        if self.gone_types.contains(&created) {
            self.recreated.insert(created);
        }
    }

    fn alter_type(&mut self, alter: &ast::AlterType) {
        let Some(altered) = name_of(alter.type_name_ref()) else { return };
        match alter.action() {
            Some(ast::AlterTypeAction::AddValue(add)) => self.add_value(&add, &altered),
            Some(ast::AlterTypeAction::RenameValue(rename)) => {
                let values =
                    rename.syntax().children().filter(|node| node.kind() == SyntaxKind::LITERAL);
                let values: Vec<_> = values.map(|value| syntax::string(&value)).collect();
                let [from, to] = values.as_slice() else { return };
                let known = self.schema.enums.get_mut(&altered);
                let known = known.into_iter().flatten().find(|value| *value == from);
                if let Some(value) = known {
                    value.clone_from(to);
                }
                let what =
                    format!("the value {} of {altered}, which is renamed", quote::literal(from));
                self.breaks(rename.syntax(), &what);
            }
            Some(ast::AlterTypeAction::TypeRenameTo(rename)) => {
                let to = find(rename.syntax(), SyntaxKind::TYPE_NAME).and_then(|node| name(&node));
                if let (Some(values), Some(to)) = (self.schema.enums.remove(&altered), to) {
                    self.schema.enums.insert(altered.beside(to.name), values);
                }
                self.gone_types.insert(altered);
            }
            _ => {}
        }
    }

    fn add_value(&mut self, add: &ast::AddValue, altered: &TableName) {
        let Some(value) = add.literal().map(|literal| syntax::string(literal.syntax())) else {
            return;
        };
        let position = add.value_position();
        let Some(values) = self.schema.enums.get_mut(altered) else { return };
        let near = position.as_ref().and_then(|near| find(near.syntax(), SyntaxKind::LITERAL));
        let near = near.map(|near| syntax::string(&near));
        let at = values.iter().position(|value| Some(value) == near.as_ref());
        let is_before = matches!(position, Some(ast::ValuePosition::BeforeValue(_)));
        let at = at.map_or(values.len(), |at| if is_before { at } else { at + 1 });
        let is_sorted = values.len() > 2 && values.is_sorted();
        let last = values.last().filter(|last| position.is_none() && is_sorted && value < **last);
        let message = last.map(|last| {
            format!(
                "{} sorts after {} in {altered}, whose values were in alphabetical order; add it with BEFORE, \
                 unless no query sorts by it",
                quote::literal(&value),
                quote::literal(last)
            )
        });
        values.insert(at, value);
        if let Some(message) = message {
            self.note(add.syntax(), Rule::EnumOrder, message);
        }
    }

    fn alter_index(&mut self, alter: &ast::AlterIndex) {
        let Some(index) = name_of(alter.index_ref()) else { return };
        let renamed = find(alter.syntax(), SyntaxKind::INDEX).and_then(|node| name(&node));
        if let (Some(table), Some(renamed)) = (self.schema.table_of_index(&index).cloned(), renamed)
        {
            let columns = self.schema.table(&table).and_then(|table| {
                let mut indexes = table.indexes.iter();
                indexes
                    .find(|(name, _)| name.as_ref() == Some(&index.name))
                    .map(|(_, of)| of.clone())
            });
            self.schema.drop_index(&index);
            self.schema.add_index(&table, Some(renamed.name), columns.unwrap_or_default());
        }
    }

    fn alter_schema(&mut self, alter: &ast::AlterSchema) {
        if let (Some(ast::AlterSchemaAction::SchemaRenameTo(_)), Some(schema)) =
            (alter.action(), word_of(alter.schema_ref()))
        {
            self.breaks(alter.syntax(), &format!("the schema {schema}, which is renamed"));
        }
    }

    fn create_function(&mut self, create: &ast::CreateFunction) {
        let Some(created) = name_of(create.name()) else { return };
        let options = create.option_list();
        let is_stable = options.is_some_and(|options| {
            has(options.syntax(), SyntaxKind::IMMUTABLE_KW)
                || has(options.syntax(), SyntaxKind::STABLE_KW)
        });
        self.schema.functions.insert(created.name, !is_stable);
    }

    /// An UPDATE or DELETE.
    fn write(
        &mut self,
        command: &str,
        node: &SyntaxNode,
        table: Option<TableName>,
        condition: Option<ast::WhereClauseOrCurrentOf>,
    ) {
        let Some(table) = table.filter(|table| self.exists(table)) else { return };
        let is_of_all = condition.as_ref().is_none_or(is_about_null);
        if is_of_all {
            let effect =
                Effect { table: table.clone(), lock: LockMode::RowExclusive, work: Work::Scan };
            let message = format!(
                "{command} of all rows of {table} keeps each of them locked until the migration is done, and \
                 leaves as many dead rows; do it in batches, outside of the migration"
            );
            self.add(node, Rule::UnbatchedWrite, Some(effect), message, None);
        }
        self.works(node, &table, LockMode::RowExclusive, is_of_all);
    }

    fn drop_table(&mut self, drop: &ast::DropTable) {
        let node = drop.syntax();
        let cascades =
            drop.drop_behavior().is_some_and(|how| matches!(how, ast::DropBehavior::Cascade(_)));
        let names: Vec<TableName> =
            drop.table_name_refs().filter_map(|table| name(table.syntax())).collect();
        for table in &names {
            if self.exists(table) {
                self.breaks(node, &format!("the table {table}, which is dropped"));
                self.holds(node, table);
            }
            let keys = self.schema.foreign_keys.iter();
            let keys = keys.filter(|key| key.referenced == *table && !names.contains(&key.table));
            let mut others: Vec<_> = keys.map(|key| key.table.to_string()).collect();
            others.sort();
            others.dedup();
            if cascades && !others.is_empty() {
                let message = format!(
                    "CASCADE also drops the foreign keys that refer to {table} in {}; drop them by name, so \
                     that nothing else goes with them",
                    others.join(", ")
                );
                self.note(node, Rule::LosesMore, message);
            }
            self.schema.drop_table(table);
        }
    }

    /// DROP of what is no table, with CASCADE.
    fn drop_others(&mut self, command: &str, node: &SyntaxNode) {
        if has(node, SyntaxKind::CASCADE_KW) {
            let message = format!(
                "{command} ... CASCADE also drops all that depends on it, columns and tables included; drop \
                 that by name first, and leave CASCADE out"
            );
            self.note(node, Rule::LosesMore, message);
        }
    }

    fn truncate(&mut self, truncate: &ast::Truncate) {
        let node = truncate.syntax();
        let tables = truncate.table_list();
        let tables = tables.into_iter().flat_map(|list| list.table_relation_names());
        let tables: Vec<TableName> = tables.filter_map(|table| name(table.syntax())).collect();
        if truncate.drop_behavior().is_some_and(|how| matches!(how, ast::DropBehavior::Cascade(_)))
            && tables.iter().any(|table| self.exists(table))
        {
            let message = "TRUNCATE ... CASCADE also empties all tables that refer to this one, and those \
                           that refer to them; name each table, and leave CASCADE out";
            self.note(node, Rule::LosesMore, message.to_owned());
        }
        for table in &tables {
            self.holds(node, table);
        }
    }

    /// Notes what the version of the app that still runs may use.
    pub fn breaks(&mut self, node: &SyntaxNode, what: &str) {
        let message = format!(
            "the version of the app that still runs may use {what}; do this in a release after the one that \
             no longer needs it"
        );
        self.note(node, Rule::BreaksOldVersion, message);
    }
}

pub(super) const TRIGGER_CURE: &str = "give it a migration of its own";

/// A foreign key as it is written.
pub(super) struct NewKey {
    pub name: Option<String>,
    pub columns: Vec<String>,
    pub referenced: Option<TableName>,
    /// Whether it deletes or changes rows that refer to a deleted one.
    pub deletes: bool,
}

impl NewKey {
    pub fn of(key: &ast::ForeignKeyConstraint) -> NewKey {
        let list = find(key.syntax(), SyntaxKind::FOREIGN_KEY_COLUMN_LIST);
        NewKey {
            name: key.constraint_name_clause().and_then(|name| word_of(name.constraint_name())),
            columns: list.map(|list| columns(&list)).unwrap_or_default(),
            referenced: name_of(key.table_name_ref()),
            deletes: deletes(key.syntax()),
        }
    }

    pub fn of_column(key: &ast::ReferencesConstraint, column: &str) -> NewKey {
        NewKey {
            name: key.constraint_name_clause().and_then(|name| word_of(name.constraint_name())),
            columns: vec![column.to_owned()],
            referenced: name_of(key.table()),
            deletes: deletes(key.syntax()),
        }
    }
}

fn deletes(key: &SyntaxNode) -> bool {
    let action = find(key, SyntaxKind::ON_DELETE_ACTION);
    action.is_some_and(|action| {
        has(&action, SyntaxKind::CASCADE_KW) || has(&action, SyntaxKind::SET_KW)
    })
}

/// A foreign key that has no index unless a later statement makes one.
pub(super) struct UnindexedKey {
    statement: usize,
    position: LineColumn,
    table: TableName,
    columns: Vec<String>,
    referenced: TableName,
    /// Whether its table is.
    is_new: bool,
}

impl UnindexedKey {
    pub fn hazard(self, schema: &Schema) -> Option<Hazard> {
        let UnindexedKey { statement, position, table, columns, referenced, is_new } = self;
        let has_key = |key: &ForeignKey| key.table == table && key.columns == columns;
        if schema.is_indexed(&table, &columns) || !schema.foreign_keys.iter().any(has_key) {
            return None;
        }
        let listed = columns.join(", ");
        let message = format!(
            "each DELETE from {referenced} scans {table} for rows that refer to it, because {table} has no \
             index that begins with {listed}; create one"
        );
        let concurrently = if is_new { "" } else { "CONCURRENTLY " };
        let quoted: Vec<_> = columns.iter().map(|column| quote::ident(column)).collect();
        let patch =
            format!("CREATE INDEX {concurrently}ON {} ({});", table.quoted(), quoted.join(", "));
        Some(Hazard {
            rule: Rule::FkWithoutIndex,
            statement,
            position,
            effect: None,
            relation: None,
            blocks: false,
            size: None,
            message,
            patch: Some(Patch::of(patch)),
        })
    }
}

/// The columns of an index, up to the first expression.
fn plain_columns(list: &SyntaxNode) -> Vec<String> {
    let items = list.children().filter(|node| node.kind() == SyntaxKind::PARTITION_ITEM);
    let first = items.map_while(|item| {
        let column = item.children().next()?;
        (column.kind() == SyntaxKind::NAME_REF).then(|| name(&column))?
    });
    first.map(|name| name.name).collect()
}

/// What PostgreSQL's documentation recommends for a partitioned table, if the partitions are known.
fn partitioned_patch(
    create: &SyntaxNode,
    index: Option<&str>,
    table: &TableName,
    partitions: &[TableName],
) -> Option<Patch> {
    if partitions.is_empty() {
        return None;
    }
    let unique = if has(create, SyntaxKind::UNIQUE_KW) { "UNIQUE " } else { "" };
    let relation = find(create, SyntaxKind::TABLE_RELATION_NAME)?;
    let skipped = usize::from(relation.text_range().end() - create.text_range().start());
    let rest = create.text().to_string();
    let rest = rest.get(skipped..)?.trim();
    let index = table.beside(index.map_or_else(|| format!("{}_idx", table.name), str::to_owned));
    let mut patch = format!(
        "CREATE {unique}INDEX {} ON ONLY {} {rest};",
        quote::ident(&index.name),
        table.quoted()
    );
    for partition in partitions {
        let part = partition.beside(format!("{}_{}", partition.name, index.name));
        patch.push_str(&format!(
            "\nCREATE {unique}INDEX CONCURRENTLY {} ON {} {rest};\nALTER INDEX {} ATTACH PARTITION {};",
            quote::ident(&part.name),
            partition.quoted(),
            index.quoted(),
            part.quoted()
        ));
    }
    Some(Patch::of(patch))
}

/// A node that can be named.
fn find_ref(node: &SyntaxNode, kind: SyntaxKind) -> Option<ast::PathRef> {
    ast::PathRef::cast(find(&find(node, kind)?, SyntaxKind::PATH_REF)?)
}

/// Whether a condition is only that a column is null, as where all rows get a value.
fn is_about_null(condition: &ast::WhereClauseOrCurrentOf) -> bool {
    let tokens = condition.syntax().descendants_with_tokens().filter_map(SyntaxElement::into_token);
    let words = tokens.filter(|token| {
        !matches!(token.kind(), SyntaxKind::WHITESPACE | SyntaxKind::COMMENT | SyntaxKind::DOT)
    });
    let words: Vec<SyntaxKind> = words.map(|token| token.kind()).collect();
    matches!(
        words.as_slice(),
        [SyntaxKind::WHERE_KW, .., SyntaxKind::IS_KW, SyntaxKind::NULL_KW] if words.len() <= 5
    )
}
