//! The rules for `ALTER TABLE`.

use squawk_syntax::ast::{self, AlterColumnOption, AlterTableAction, AstNode, Constraint};
use squawk_syntax::{SyntaxElement, SyntaxKind, SyntaxNode};

use super::column_type::{ColumnType, TypeChange};
use super::hazard::{Effect, Patch, Work, waiting_for};
use super::reader::{File, NotValid, PARTITIONED_CURE};
use super::schema::{KnownCheck, TableName};
use super::statement::{NewKey, TRIGGER_CURE};
use super::syntax::{columns, find, has, name, name_of, text, text_from, word_of};
use crate::migrations::rule::Rule;
use crate::sql::{LockMode, quote};

impl File<'_, '_> {
    pub fn alter_table(&mut self, alter: &ast::AlterTable) {
        let Some(table) = name_of(alter.table_relation_name()) else { return };
        for action in alter.actions() {
            self.alter_table_action(&table, &action);
            if takes_access_exclusive(&action) {
                self.holds(action.syntax(), &table);
            }
        }
    }

    fn alter_table_action(&mut self, table: &TableName, action: &AlterTableAction) {
        let node = action.syntax();
        let exists = self.exists(table);
        match action {
            AlterTableAction::AddColumn(add) => self.add_column(table, add),
            AlterTableAction::AddConstraint(add) => self.add_constraint(table, add),
            AlterTableAction::AlterColumn(alter) => self.alter_column(table, alter),
            AlterTableAction::DropColumn(drop) => self.drop_column(table, drop),
            AlterTableAction::DropConstraint(drop) => {
                if let Some(constraint) = word_of(drop.constraint_name_ref()) {
                    self.schema.drop_constraint(table, &constraint);
                }
                if has(node, SyntaxKind::CASCADE_KW) && exists {
                    let message = "DROP CONSTRAINT ... CASCADE also drops the foreign keys that refer to it; \
                                   drop those by name first, and leave CASCADE out";
                    self.note(node, Rule::LosesMore, message.to_owned());
                }
            }
            AlterTableAction::ValidateConstraint(validate) => self.validate(table, validate),
            AlterTableAction::AttachPartition(attach) => self.attach(table, attach),
            AlterTableAction::DetachPartition(detach) => self.detach(table, detach),
            AlterTableAction::SetLogged(_) => {
                self.rewrites(node, "SET LOGGED", Some(table.clone()));
            }
            AlterTableAction::SetUnlogged(_) => {
                self.rewrites(node, "SET UNLOGGED", Some(table.clone()));
            }
            AlterTableAction::SetAccessMethod(_) => {
                self.rewrites(node, "SET ACCESS METHOD", Some(table.clone()));
            }
            AlterTableAction::SetTablespace(_) => {
                self.rewrites(node, "SET TABLESPACE", Some(table.clone()));
            }
            AlterTableAction::DisableTrigger(_) if exists => {
                self.trigger("DISABLE TRIGGER", node, table)
            }
            AlterTableAction::EnableTrigger(_)
            | AlterTableAction::EnableAlwaysTrigger(_)
            | AlterTableAction::EnableReplicaTrigger(_)
                if exists =>
            {
                self.trigger("ENABLE TRIGGER", node, table);
            }
            AlterTableAction::RenameColumn(rename) => {
                let from = word_of(rename.column_name_ref());
                let to = word_of(rename.column_name());
                let (Some(from), Some(to)) = (from, to) else { return };
                if exists && !self.is_new_column(table, &from) {
                    self.breaks(node, &format!("the column {from} of {table}, which is renamed"));
                }
                self.schema.rename_column(table, &from, &to);
            }
            AlterTableAction::TableRenameTo(rename) => {
                if exists {
                    self.breaks(node, &format!("the table {table}, which is renamed"));
                }
                if let Some(to) = word_of(rename.table_name()) {
                    self.rename(table, &table.beside(to));
                }
            }
            AlterTableAction::SetSchema(set) => {
                if exists {
                    self.breaks(node, &format!("the table {table}, which moves to another schema"));
                }
                let schema =
                    find(set.syntax(), SyntaxKind::SCHEMA_REF).and_then(|node| name(&node));
                if let Some(schema) = schema {
                    let to = TableName::new(Some(schema.name), table.name.clone());
                    self.rename(table, &to);
                }
            }
            AlterTableAction::ReplicaIdentity(identity) if exists => {
                let message = match identity.replica_identity_option() {
                    Some(ast::ReplicaIdentityOption::ReplicaIdentityFull(_)) => {
                        "REPLICA IDENTITY FULL writes the whole old row to the WAL with each UPDATE and \
                         DELETE, and subscribers search for it; use a unique index"
                    }
                    Some(ast::ReplicaIdentityOption::ReplicaIdentityNothing(_)) => {
                        "REPLICA IDENTITY NOTHING makes each UPDATE and DELETE fail where the table is \
                         published; use a unique index"
                    }
                    _ => return,
                };
                self.note(node, Rule::Replication, message.to_owned());
            }
            AlterTableAction::SetOptions(set) if exists => {
                let text = text(set.syntax()).to_ascii_lowercase().replace([' ', '\n', '\''], "");
                let off = ["false", "off", "no", "0"];
                if off.iter().any(|off| text.contains(&format!("autovacuum_enabled={off}"))) {
                    let message = "without autovacuum, dead rows stay and statistics age; change its \
                                   thresholds instead";
                    self.note(node, Rule::Replication, message.to_owned());
                }
            }
            _ => {}
        }
    }

    fn rename(&mut self, table: &TableName, to: &TableName) {
        let before = self.relation(table);
        self.schema.rename_table(table, to.clone());
        self.renamed(before, to);
    }

    fn trigger(&mut self, command: &str, node: &SyntaxNode, table: &TableName) {
        let effect = (command, table, LockMode::ShareRowExclusive, Work::None);
        self.affects(node, Rule::TriggerLocks, effect, TRIGGER_CURE, None);
    }

    fn add_constraint(&mut self, table: &TableName, add: &ast::AddConstraint) {
        let (node, exists) = (add.syntax(), self.exists(table));
        match add.constraint() {
            Some(Constraint::ForeignKeyConstraint(constraint)) => {
                let key = NewKey::of(&constraint);
                if exists {
                    self.new_foreign_key(node, table, &key, &constraint);
                }
                self.foreign_key(node, table, key);
            }
            Some(Constraint::CheckConstraint(check)) => self.add_check(node, table, &check),
            Some(Constraint::NotNullConstraint(key)) => self.add_not_null(node, table, &key),
            Some(Constraint::UniqueConstraint(unique)) => {
                let named = unique
                    .constraint_name_clause()
                    .and_then(|name| word_of(name.constraint_name()));
                if let Some(index) = unique.using_index() {
                    self.take_index(table, named, find(index.syntax(), SyntaxKind::INDEX_REF));
                    return;
                }
                let list = unique.index_parameters().map(|list| columns(list.syntax()));
                let list = list.unwrap_or_default();
                let index =
                    named.unwrap_or_else(|| format!("{}_{}_key", table.name, list.join("_")));
                if exists {
                    let effect = ("ADD ... UNIQUE", table, LockMode::AccessExclusive, Work::Scan);
                    let parameters = unique.index_parameters().map(|list| text(list.syntax()));
                    let patch =
                        unique_patch(table, &index, &parameters.unwrap_or_default(), "UNIQUE");
                    let patch = Some(patch).filter(|_| is_simple_key(unique.syntax()));
                    self.affects(node, Rule::UniqueLocks, effect, INDEX_CURE, patch);
                }
                self.schema.add_index(table, Some(index), list);
            }
            Some(Constraint::PrimaryKeyConstraint(key)) => self.add_primary_key(node, table, &key),
            Some(Constraint::ExcludeConstraint(_)) if exists => {
                let effect = ("ADD ... EXCLUDE", table, LockMode::AccessExclusive, Work::Scan);
                let cure = "there is no other way, so do it at a quiet time, or in a new table";
                self.affects(node, Rule::ExclusionLocks, effect, cure, None);
            }
            _ => {}
        }
    }

    fn new_foreign_key(
        &mut self,
        node: &SyntaxNode,
        table: &TableName,
        key: &NewKey,
        constraint: &ast::ForeignKeyConstraint,
    ) {
        let default = format!("{}_{}_fkey", table.name, key.columns.join("_"));
        let named = key.name.clone().unwrap_or(default);
        if has(constraint.syntax(), SyntaxKind::NOT_VALID) {
            self.remember_not_valid(node, table, named, LockMode::ShareRowExclusive);
            return;
        }
        // A partitioned table has NOT VALID for foreign keys since PostgreSQL 18.
        let (cure, patch) = match self.schema.is_partitioned(table) {
            true => (PARTITIONED_CURE, None),
            false => (VALIDATE_CURE, text_from(constraint.syntax(), SyntaxKind::FOREIGN_KW)),
        };
        let patch = patch.map(|body| not_valid_patch(table, &named, &body));
        let effect =
            Effect { table: table.clone(), lock: LockMode::ShareRowExclusive, work: Work::Scan };
        let referenced = key.referenced.as_ref().filter(|referenced| *referenced != table);
        let both = referenced.map_or_else(String::new, |referenced| format!(" and {referenced}"));
        let message = format!(
            "ADD ... FOREIGN KEY takes {} on {table}{both} and scans {table}, so writes wait until it is done; \
             {cure}",
            effect.lock
        );
        self.add(node, Rule::ForeignKeyScan, Some(effect), message, patch);
        self.works(node, table, LockMode::ShareRowExclusive, true);
    }

    fn add_check(&mut self, node: &SyntaxNode, table: &TableName, check: &ast::CheckConstraint) {
        let named = check.constraint_name_clause().and_then(|name| word_of(name.constraint_name()));
        let columns = checked_columns(check);
        // As PostgreSQL chooses it.
        let default = match columns.as_slice() {
            [column] => format!("{}_{column}_check", table.name),
            _ => format!("{}_check", table.name),
        };
        let named = named.unwrap_or(default);
        let is_not_valid = has(check.syntax(), SyntaxKind::NOT_VALID);
        let is_valid = !is_not_valid && !has(check.syntax(), SyntaxKind::NOT_ENFORCED);
        let not_null = checked_not_null(check);
        let known = KnownCheck { name: Some(named.clone()), columns, not_null, is_valid };
        self.schema.table_mut(table).checks.push(known);
        if !self.exists(table) {
            return;
        }
        if is_not_valid {
            self.remember_not_valid(node, table, named, LockMode::AccessExclusive);
        } else if is_valid {
            let patch = text_from(check.syntax(), SyntaxKind::CHECK_KW);
            let patch = patch.map(|body| not_valid_patch(table, &named, &body));
            let effect = ("ADD ... CHECK", table, LockMode::AccessExclusive, Work::Scan);
            self.affects(node, Rule::CheckScan, effect, VALIDATE_CURE, patch);
        }
    }

    fn remember_not_valid(
        &mut self,
        node: &SyntaxNode,
        table: &TableName,
        constraint: String,
        lock: LockMode,
    ) {
        let line = self.position(node).line;
        self.not_valid.push(NotValid { table: table.clone(), constraint, lock, line });
    }

    fn validate(&mut self, table: &TableName, validate: &ast::ValidateConstraint) {
        let node = validate.syntax();
        let Some(constraint) = word_of(validate.constraint_name_ref()) else { return };
        let checks = self.schema.table_mut(table).checks.iter_mut();
        for check in checks.filter(|check| check.name.as_ref() == Some(&constraint)) {
            check.is_valid = true;
        }
        let mut added = self.not_valid.iter();
        let added = added.find(|added| added.table == *table && added.constraint == constraint);
        let Some(NotValid { lock, line, .. }) = added else {
            if self.exists(table) {
                self.works(node, table, LockMode::ShareUpdateExclusive, true);
            }
            return;
        };
        let (lock, line) = (*lock, *line);
        let waiting = waiting_for(lock);
        let message = format!(
            "VALIDATE CONSTRAINT scans {table} while the transaction keeps {lock} from line {line}, so \
             {waiting} wait until it is done; move it to the next migration"
        );
        let effect = Effect { table: table.clone(), lock, work: Work::Scan };
        let next = format!("ALTER TABLE {} {};", table.quoted(), text(node));
        let patch = Patch::next(next);
        self.add(node, Rule::ValidateSameTransaction, Some(effect), message, Some(patch));
    }

    fn add_primary_key(
        &mut self,
        node: &SyntaxNode,
        table: &TableName,
        key: &ast::PrimaryKeyConstraint,
    ) {
        let named = key.constraint_name_clause().and_then(|name| word_of(name.constraint_name()));
        let index = named.clone().unwrap_or_else(|| format!("{}_pkey", table.name));
        let taken = key.using_index().and_then(|index| find(index.syntax(), SyntaxKind::INDEX_REF));
        let list = match taken.as_ref().and_then(name) {
            Some(taken) => {
                let mut indexes =
                    self.schema.table(table).into_iter().flat_map(|table| &table.indexes);
                let of = indexes.find(|(name, _)| name.as_ref() == Some(&taken.name));
                of.map(|(_, columns)| columns.clone()).unwrap_or_default()
            }
            None => key.index_parameters().map(|list| columns(list.syntax())).unwrap_or_default(),
        };
        let nullable: Vec<_> =
            list.iter().filter(|column| !self.is_not_null(table, column)).cloned().collect();
        let parameters = key.index_parameters().map(|list| text(list.syntax()));
        if self.exists(table) && (taken.is_none() || !nullable.is_empty()) {
            let effect = ("ADD ... PRIMARY KEY", table, LockMode::AccessExclusive, Work::Scan);
            let columns = nullable.iter().map(|column| set_not_null_patch(table, column));
            let columns = columns.fold(Patch::default(), |patch, column| patch.then(&column));
            let (cure, add) = match taken {
                Some(_) => (
                    "make its columns NOT NULL first, without a scan",
                    Patch::of(format!("ALTER TABLE {} {};", table.quoted(), text(node))),
                ),
                None => {
                    let parameters = parameters.unwrap_or_default();
                    (INDEX_CURE, unique_patch(table, &index, &parameters, "PRIMARY KEY"))
                }
            };
            // Only then are the columns known to have no null.
            let patch = match nullable.as_slice() {
                [] => add,
                _ => columns.then(&Patch::next(add.now)),
            };
            let patch = Some(patch).filter(|_| is_simple_key(key.syntax()));
            self.affects(node, Rule::PrimaryKeyLocks, effect, cure, patch);
        }
        for column in &list {
            let known = &mut self.schema.table_mut(table).columns;
            known.entry(column.clone()).or_default().is_not_null = true;
        }
        match taken {
            Some(taken) => self.take_index(table, named, Some(taken)),
            None => self.schema.add_index(table, Some(index), list),
        }
    }

    /// A constraint takes an index over, and gives it its name.
    fn take_index(&mut self, table: &TableName, named: Option<String>, index: Option<SyntaxNode>) {
        let Some(index) = index.and_then(|index| name(&index)) else { return };
        let mut indexes = self.schema.table(table).into_iter().flat_map(|table| &table.indexes);
        let of = indexes.find(|(name, _)| name.as_ref() == Some(&index.name));
        let of = of.map(|(_, columns)| columns.clone()).unwrap_or_default();
        self.schema.drop_index(&table.beside(index.name.clone()));
        self.schema.add_index(table, Some(named.unwrap_or(index.name)), of);
    }

    /// Whether a column is known to have no null.
    fn is_not_null(&self, table: &TableName, column: &str) -> bool {
        let Some(table) = self.schema.table(table) else { return false };
        let mut checks = table.checks.iter().filter(|check| check.is_valid);
        table.columns.get(column).is_some_and(|column| column.is_not_null)
            || checks.any(|check| check.not_null.as_deref() == Some(column))
    }

    /// `ADD ... NOT NULL column`, which PostgreSQL has since 18.
    fn add_not_null(&mut self, node: &SyntaxNode, table: &TableName, key: &ast::NotNullConstraint) {
        let Some(column) = word_of(key.column_name_ref()) else { return };
        let named = key.constraint_name_clause().and_then(|name| word_of(name.constraint_name()));
        let named = named.unwrap_or_else(|| format!("{}_{column}_not_null", table.name));
        let is_known = self.is_not_null(table, &column);
        let is_valid = !has(key.syntax(), SyntaxKind::NOT_VALID);
        if self.exists(table) && !is_valid {
            self.remember_not_valid(node, table, named.clone(), LockMode::AccessExclusive);
        } else if self.exists(table) && !is_known {
            let effect = ("ADD ... NOT NULL", table, LockMode::AccessExclusive, Work::Scan);
            let body = format!("NOT NULL {}", quote::ident(&column));
            let patch = not_valid_patch(table, &named, &body);
            self.affects(node, Rule::NotNullScan, effect, VALIDATE_CURE, Some(patch));
        }
        let columns = vec![column.clone()];
        let known = KnownCheck { name: Some(named), columns, not_null: Some(column), is_valid };
        self.schema.table_mut(table).checks.push(known);
    }

    fn attach(&mut self, table: &TableName, attach: &ast::AttachPartition) {
        let Some(partition) = name_of(attach.table_name_ref()) else { return };
        let key = self.schema.table(table).and_then(|table| table.partition_key.as_ref());
        // Hopefully by the bounds of the partition.
        let checks_key = |check: &KnownCheck| {
            let is_of_key = key.is_none_or(|key| check.columns.contains(key));
            check.is_valid && check.not_null.is_none() && is_of_key
        };
        let known = self.schema.table(&partition);
        let is_checked = known.is_some_and(|known| known.checks.iter().any(checks_key));
        if self.exists(&partition) && !is_checked {
            let bound = attach.partition_type();
            let bound = bound.and_then(|bound| partition_condition(key?, &bound));
            let patch = bound.map(|condition| {
                let check = format!("{}_of_{}", partition.name, table.name);
                let patch = not_valid_patch(&partition, &check, &format!("CHECK ({condition})"));
                let next = format!(
                    "ALTER TABLE {} {};\nALTER TABLE {} DROP CONSTRAINT {};",
                    table.quoted(),
                    text(attach.syntax()),
                    partition.quoted(),
                    quote::ident(&check)
                );
                patch.then(&Patch::next(next))
            });
            let lock = LockMode::AccessExclusive;
            let effect = ("ATTACH PARTITION", &partition, lock, Work::Scan);
            let cure = "add a CHECK with the bounds that is NOT VALID, and validate it before";
            self.affects(attach.syntax(), Rule::AttachScan, effect, cure, patch);
        }
        self.schema.table_mut(table).partitions.push(partition);
    }

    fn detach(&mut self, table: &TableName, detach: &ast::DetachPartition) {
        let Some(partition) = name_of(detach.table_name_ref()) else { return };
        self.schema.table_mut(table).partitions.retain(|known| *known != partition);
        if detach.detach_partition_option().is_none() && self.exists(table) {
            let patch = Patch::of(format!(
                "ALTER TABLE {} DETACH PARTITION {} CONCURRENTLY;",
                table.quoted(),
                partition.quoted()
            ));
            let effect = ("DETACH PARTITION", table, LockMode::AccessExclusive, Work::None);
            let cure = "detach it CONCURRENTLY";
            self.affects(detach.syntax(), Rule::DetachLocks, effect, cure, Some(patch));
        }
    }

    fn drop_column(&mut self, table: &TableName, drop: &ast::DropColumn) {
        let node = drop.syntax();
        let Some(column) = word_of(drop.column_name_ref()) else { return };
        if self.exists(table) {
            if !self.is_new_column(table, &column) {
                self.breaks(node, &format!("the column {column} of {table}, which is dropped"));
            }
            let indexes = self.schema.table(table).map(|table| table.indexes.as_slice());
            let wider = indexes.unwrap_or_default().iter();
            let mut wider = wider.filter(|(_, of)| of.len() > 1 && of.contains(&column));
            if let Some((Some(index), of)) = wider.next() {
                let others: Vec<_> = of.iter().filter(|other| **other != column).cloned().collect();
                let message = format!(
                    "DROP COLUMN also drops the index {index}, which {} uses, too; create another one first, \
                     if it is needed",
                    others.join(", ")
                );
                self.note(node, Rule::LosesMore, message);
            } else if matches!(drop.drop_behavior(), Some(ast::DropBehavior::Cascade(_))) {
                let message = "DROP COLUMN ... CASCADE also drops the views and foreign keys that need the \
                               column; drop those by name first, and leave CASCADE out";
                self.note(node, Rule::LosesMore, message.to_owned());
            }
        }
        self.schema.drop_column(table, &column);
    }

    fn alter_column(&mut self, table: &TableName, alter: &ast::AlterColumn) {
        let node = alter.syntax();
        let (Some(column), Some(option)) = (word_of(alter.column_name_ref()), alter.option())
        else {
            return;
        };
        let exists = self.exists(table);
        let is_old = exists && !self.is_new_column(table, &column);
        match option {
            AlterColumnOption::SetNotNull(_) => {
                if exists && !self.is_not_null(table, &column) {
                    let effect = ("SET NOT NULL", table, LockMode::AccessExclusive, Work::Scan);
                    let cure = "add a CHECK that is NOT VALID, and validate it before";
                    let patch = set_not_null_patch(table, &column);
                    self.affects(node, Rule::NotNullScan, effect, cure, Some(patch));
                }
                self.schema.table_mut(table).columns.entry(column).or_default().is_not_null = true;
            }
            AlterColumnOption::DropNotNull(_) => {
                if is_old {
                    let what =
                        format!("that the column {column} of {table} has no NULL, which ends");
                    self.breaks(node, &what);
                }
                self.schema.table_mut(table).columns.entry(column).or_default().is_not_null = false;
            }
            AlterColumnOption::DropDefault(_) if is_old => {
                let what = format!("the default of {column} of {table}, which is dropped");
                self.breaks(node, &what);
                if let Some(found) = self.found.last_mut() {
                    found.column = Some((table.clone(), column));
                }
            }
            AlterColumnOption::SetDefault(_) => {
                // The default was dropped only until then.
                let column = Some((table.clone(), column));
                self.found.retain(|found| {
                    found.hazard.rule != Rule::BreaksOldVersion || found.column != column
                });
            }
            AlterColumnOption::SetType(set) => self.set_type(node, table, column, &set),
            _ => {}
        }
    }

    fn set_type(
        &mut self,
        node: &SyntaxNode,
        table: &TableName,
        column: String,
        set: &ast::SetType,
    ) {
        let Some(ty) = set.ty() else { return };
        let new = ColumnType::read(&text(ty.syntax()));
        let known = self.schema.column(table, &column);
        let old = known.and_then(|column| column.column_type.clone());
        let named = name(ty.syntax());
        if self.exists(table) {
            let subject = Some((table.clone(), column.clone()));
            let effect = Effect {
                table: table.clone(),
                lock: LockMode::AccessExclusive,
                work: Work::Rewrite,
            };
            if let Some(recreated) = named.as_ref().filter(|name| self.recreated.contains(name)) {
                self.found.retain(|found| {
                    found.hazard.rule != Rule::TypeRewrite || found.column != subject
                });
                let message = format!(
                    "the enum {recreated} is made anew, which {}; keep its values, and add new ones with \
                     ALTER TYPE ... ADD VALUE",
                    effect.sentence()
                );
                self.add(node, Rule::EnumRecreated, Some(effect), message, None);
                self.works(node, table, LockMode::AccessExclusive, true);
            } else {
                let change = match converts(set, &column) {
                    true => TypeChange::Rewrite,
                    false => ColumnType::changed_to(old.as_ref(), &new),
                };
                // Nothing else is stored as the values of an enum are.
                let is_enum = named.is_some_and(|name| self.schema.enums.contains_key(&name));
                let change = match change {
                    TypeChange::Unknown if is_enum => TypeChange::Rewrite,
                    change => change,
                };
                let unless = match change {
                    TypeChange::Nothing => None,
                    TypeChange::Rewrite => Some(""),
                    TypeChange::Unknown => Some(" unless the values are stored the same"),
                    TypeChange::UnlessUtc => Some(" unless TimeZone is UTC"),
                };
                if let Some(unless) = unless {
                    let message = format!(
                        "a new type for {column} takes ACCESS EXCLUSIVE on {table} and rewrites it{unless}, \
                         so reads and writes wait until it is done; add a column of the new type, fill it in \
                         batches, and use that one"
                    );
                    self.add(node, Rule::TypeRewrite, Some(effect), message, None);
                    if let Some(found) = self.found.last_mut() {
                        found.column = subject;
                    }
                    self.works(node, table, LockMode::AccessExclusive, true);
                }
            }
        }
        let known = &mut self.schema.table_mut(table).columns;
        known.entry(column).or_default().column_type = Some(new);
    }
}

const VALIDATE_CURE: &str = "add it NOT VALID, and validate it in the next migration";
pub(super) const INDEX_CURE: &str = "create a unique index CONCURRENTLY, and use that one";

fn takes_access_exclusive(action: &AlterTableAction) -> bool {
    match action {
        AlterTableAction::AddConstraint(add) => {
            !matches!(add.constraint(), Some(Constraint::ForeignKeyConstraint(_)))
        }
        AlterTableAction::AlterColumn(alter) => !matches!(
            alter.option(),
            Some(AlterColumnOption::SetStatistics(_) | AlterColumnOption::SetOptions(_))
        ),
        AlterTableAction::DetachPartition(detach) => detach.detach_partition_option().is_none(),
        AlterTableAction::AttachPartition(_)
        | AlterTableAction::ClusterOn(_)
        | AlterTableAction::SetWithoutCluster(_)
        | AlterTableAction::SetOptions(_)
        | AlterTableAction::ResetOptions(_)
        | AlterTableAction::ValidateConstraint(_)
        | AlterTableAction::DisableTrigger(_)
        | AlterTableAction::EnableTrigger(_)
        | AlterTableAction::EnableAlwaysTrigger(_)
        | AlterTableAction::EnableReplicaTrigger(_) => false,
        _ => true,
    }
}

/// Whether USING computes something other than a cast of the column.
fn converts(set: &ast::SetType, column: &str) -> bool {
    let Some(expression) = set.using_expr().and_then(|using| using.expr()) else { return false };
    let mut node = expression.syntax().clone();
    while matches!(node.kind(), SyntaxKind::CAST_EXPR | SyntaxKind::PAREN_EXPR) {
        let Some(inner) = node.children().next() else { return true };
        node = inner;
    }
    node.kind() != SyntaxKind::NAME_REF || name(&node).is_none_or(|name| name.name != column)
}

/// The columns that a CHECK names.
pub(super) fn checked_columns(check: &ast::CheckConstraint) -> Vec<String> {
    let Some(expression) = check.expr() else { return Vec::new() };
    let names = expression.syntax().descendants();
    let names = names.filter(|node| node.kind() == SyntaxKind::NAME_REF);
    let is_function = |node: &SyntaxNode| {
        node.parent().is_some_and(|parent| parent.kind() == SyntaxKind::CALL_EXPR)
    };
    let names = names.filter(|node| !is_function(node));
    let mut columns: Vec<_> = names.filter_map(|node| Some(name(&node)?.name)).collect();
    columns.sort();
    columns.dedup();
    columns
}

/// The column of `CHECK (column IS NOT NULL)`.
pub(super) fn checked_not_null(check: &ast::CheckConstraint) -> Option<String> {
    use SyntaxKind::{COMMENT, L_PAREN, R_PAREN, WHITESPACE};
    let expression = check.expr()?;
    let node = expression.syntax();
    let words = node.descendants_with_tokens().filter_map(SyntaxElement::into_token);
    let words: Vec<_> = words
        .map(|token| token.kind())
        .filter(|kind| !matches!(kind, WHITESPACE | COMMENT | L_PAREN | R_PAREN))
        .collect();
    let [_, SyntaxKind::IS_KW, SyntaxKind::NOT_KW, SyntaxKind::NULL_KW] = words.as_slice() else {
        return None;
    };
    let column = node.descendants().find(|node| node.kind() == SyntaxKind::NAME_REF)?;
    name(&column).map(|name| name.name)
}

/// What PostgreSQL requires of the rows of a partition, so that it can prove it by a CHECK with the same
/// words; `None` if it cannot be said, or not by one column.
fn partition_condition(key: &str, bound: &ast::PartitionType) -> Option<String> {
    let key = quote::ident(key);
    let values: Vec<String> = bound.syntax().children().map(|value| text(&value)).collect();
    let is_any = |value: &&String| {
        let word = value.trim_matches(['(', ')', ' ']).to_ascii_lowercase();
        !["null", "minvalue", "maxvalue"].contains(&word.as_str())
    };
    let conditions = match (bound, values.as_slice()) {
        (ast::PartitionType::PartitionForValuesFrom(_), [from, to]) => {
            let from = Some(from).filter(is_any).map(|from| format!("{key} >= {from}"));
            let to = Some(to).filter(is_any).map(|to| format!("{key} < {to}"));
            from.into_iter().chain(to).collect::<Vec<_>>()
        }
        (ast::PartitionType::PartitionForValuesIn(_), list)
            if list.iter().all(|it| is_any(&it)) =>
        {
            vec![format!("{key} IN ({})", list.join(", "))]
        }
        _ => return None,
    };
    let is_not_null = std::iter::once(format!("{key} IS NOT NULL"));
    Some(is_not_null.chain(conditions).collect::<Vec<_>>().join(" AND "))
}

/// A constraint whose text begins with FOREIGN KEY, CHECK or NOT NULL.
pub(super) fn not_valid_patch(table: &TableName, constraint: &str, body: &str) -> Patch {
    let (table, constraint) = (table.quoted(), quote::ident(constraint));
    let add = format!("ALTER TABLE {table} ADD CONSTRAINT {constraint} {body} NOT VALID;");
    let validate = format!("ALTER TABLE {table} VALIDATE CONSTRAINT {constraint};");
    Patch::of(add).and_later(Patch::of(validate))
}

/// Whether a key has only what CREATE INDEX can say, too, in the same words.
fn is_simple_key(key: &SyntaxNode) -> bool {
    let text = text(key).to_ascii_lowercase();
    !["deferrable", "initially", "tablespace", "with", "without overlaps"]
        .iter()
        .any(|word| text.contains(word))
}

/// A constraint whose index is made before.
pub(super) fn unique_patch(table: &TableName, index: &str, parameters: &str, kind: &str) -> Patch {
    let (table, index) = (table.quoted(), quote::ident(index));
    // CREATE INDEX has these words behind the columns.
    let (nulls, rest) = match parameters.find('(') {
        Some(at) => parameters.split_at_checked(at).unwrap_or_default(),
        None => ("", parameters),
    };
    let nulls = nulls.trim();
    let nulls = if nulls.is_empty() { String::new() } else { format!(" {nulls}") };
    Patch::of(format!(
        "CREATE UNIQUE INDEX CONCURRENTLY {index} ON {table} {rest}{nulls};\n\
         ALTER TABLE {table} ADD CONSTRAINT {index} {kind} USING INDEX {index};"
    ))
}

fn not_null_name(table: &TableName, column: &str) -> String {
    // Since PostgreSQL 18, `..._not_null` is how NOT NULL itself is called.
    format!("{}_{column}_has_no_null", table.name)
}

/// What lets SET NOT NULL do without a scan.
fn not_null_patch(table: &TableName, column: &str) -> Patch {
    let body = format!("CHECK ({} IS NOT NULL)", quote::ident(column));
    not_valid_patch(table, &not_null_name(table, column), &body)
}

/// SET NOT NULL without a scan that keeps others waiting.
pub(super) fn set_not_null_patch(table: &TableName, column: &str) -> Patch {
    let set = format!(
        "ALTER TABLE {0} ALTER COLUMN {1} SET NOT NULL;\nALTER TABLE {0} DROP CONSTRAINT {2};",
        table.quoted(),
        quote::ident(column),
        quote::ident(&not_null_name(table, column))
    );
    not_null_patch(table, column).then(&Patch::next(set))
}
