//! What pending migrations do to tables, how large these are, and whether one is too large for
//! `--max-blocking`.

use std::collections::BTreeMap;

use crate::cli::config::Options;
use crate::effects::{Hazard, Reader, Relation, Sizes, TableName, TableSize, measured};
use crate::history::plan::Plan;
use crate::migrations::ignore;
use crate::migrations::migration::MigrationSet;
use crate::migrations::prepared::PreparedMigration;
use crate::migrations::rule::Rule;
use crate::migrations::steps::Steps;
use crate::postgres::conninfo::{ServerSetting, ServerSettings};
use crate::postgres::result::{ResultRow, ResultSet};
use crate::postgres::session::{Attempt, QueryError, Session};
use crate::process::signals::{Deadline, StopFlag};
use crate::sql::Script;
use crate::sql::quote::{self, EQ};

use super::error::{ApplyError, BlockingStatement};
use super::event::Event;
use super::interrupt::{Interrupt, as_connection_error, connection_lost};
use super::lock::DATABASE;
use super::retry::{Backoff, conflict, is_conflict};
use super::state::DatabaseState;
use super::stretch::{Next, Prepared};
use super::transaction;
use super::{QUERY_TIMEOUT, Runner};

/// What is found about pending migrations, as far as their files do not ignore it.
#[derive(Debug, Default)]
pub(super) struct PendingEffects {
    /// Of each of them, by its place in the set, in the order of the plan.
    pub(super) hazards: Vec<(usize, Vec<Hazard>)>,
    /// The places of the statements of which it is not known which tables they lock.
    unread: Vec<String>,
}

/// Reads pending migrations, one after the other: the statements that are still to run. Those of other
/// migrations say what there is.
pub(super) struct EffectsReader<'a> {
    set: &'a MigrationSet,
    reader: Reader,
    /// The first migration of the set that has not been read.
    position: usize,
    effects: PendingEffects,
    remaining: Vec<Remaining>,
}

impl<'a> EffectsReader<'a> {
    pub(super) fn new(set: &'a MigrationSet) -> EffectsReader<'a> {
        EffectsReader {
            set,
            reader: Reader::with_database(),
            position: 0,
            effects: PendingEffects::default(),
            remaining: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, next: Next<'_>) {
        let Next { pending, migration, prepared } = next;
        let before = self.set.migrations().iter().skip(self.position);
        for other in before.take(pending.index.saturating_sub(self.position)) {
            let other = other.unread();
            let script = Script::parse(other.sql().unwrap_or_default());
            self.reader.read(&script, &Steps::split(&script), false);
        }
        self.position = pending.index.saturating_add(1);
        let PreparedMigration { script, steps, done, .. } = prepared;
        let first = first_left(steps, *done);
        let found = self.reader.read_from(first, script, steps);
        let rest = Remaining { number: pending.index, first, ignores: ignore::ignores(script) };
        self.effects.hazards.push((pending.index, rest.of(found)));
        let unread = self.reader.unread().iter().filter(|it| it.statement >= first);
        self.effects.unread.extend(unread.map(|it| format!("{}:{}", migration.file, it.position)));
        self.remaining.push(rest);
    }

    pub(super) fn finish(self) -> PendingEffects {
        let EffectsReader { reader, mut effects, remaining, .. } = self;
        let mut of_all = reader.finish();
        for (rest, (_, hazards)) in remaining.iter().zip(&mut effects.hazards) {
            hazards.extend(rest.of(of_all.remove(&rest.number).unwrap_or_default()));
        }
        effects
    }
}

impl PendingEffects {
    /// Says of which statements it is not known whether `--max-blocking` refuses them.
    fn report_unread(&self, emit: &mut dyn FnMut(Event)) {
        if !self.unread.is_empty() {
            emit(Event::NotMeasured { statements: self.unread.clone() });
        }
    }

    pub(super) fn relations(&self) -> Vec<&Relation> {
        let mut relations: Vec<&Relation> = Vec::new();
        let hazards = self.hazards.iter().flat_map(|(_, hazards)| hazards);
        for relation in hazards.filter_map(|hazard| hazard.relation.as_ref()) {
            if !relations.contains(&relation) {
                relations.push(relation);
            }
        }
        relations
    }

    fn measure(&mut self, sizes: &Sizes) {
        for (_, hazards) in &mut self.hazards {
            *hazards = measured(std::mem::take(hazards), sizes);
        }
    }

    /// Counts a statement as one of which little is known if the size of its table is not known.
    fn add_unknown_sizes(&mut self, set: &MigrationSet) {
        for (index, hazards) in &self.hazards {
            let Some(migration) = set.get(*index) else { continue };
            let is_unknown = |hazard: &&Hazard| {
                hazard.blocks && hazard.size.as_ref().is_some_and(|size| size.bytes.is_none())
            };
            let unknown = hazards.iter().filter(is_unknown);
            self.unread.extend(unknown.map(|it| format!("{}:{}", migration.file, it.position)));
        }
    }

    /// What scans or rewrites a table that is larger than the limit, while others wait; the largest first.
    fn too_large(&self, set: &MigrationSet, limit: u64) -> Option<ApplyError> {
        let mut statements = Vec::new();
        for (index, hazards) in &self.hazards {
            let Some(migration) = set.get(*index) else { continue };
            for hazard in hazards.iter().filter(|hazard| hazard.blocks_longer_than(limit)) {
                let Some(size) = hazard.size.clone() else { continue };
                statements.push(BlockingStatement {
                    migration: migration.name.clone(),
                    file: migration.file.clone(),
                    position: Some(hazard.position),
                    rule: hazard.rule,
                    message: hazard.message.clone(),
                    size,
                    patch: hazard.patch.clone(),
                });
            }
        }
        statements.sort_by_key(|statement| std::cmp::Reverse(statement.size.bytes));
        (!statements.is_empty()).then_some(ApplyError::TableTooLarge { limit, statements })
    }
}

/// The part of a migration that is still to run.
struct Remaining {
    number: usize,
    /// The index of its first statement.
    first: usize,
    ignores: Vec<(Rule, Option<usize>)>,
}

impl Remaining {
    /// Those of the hazards that are about this part, and are not ignored.
    fn of(&self, hazards: Vec<Hazard>) -> Vec<Hazard> {
        let is_left = |hazard: &Hazard| {
            hazard.statement >= self.first
                && !self.ignores.contains(&(hazard.rule, Some(hazard.statement)))
        };
        hazards.into_iter().filter(is_left).collect()
    }
}

/// The index of the first statement after these steps.
fn first_left(steps: &Steps, done: usize) -> usize {
    match done.checked_sub(1).map(|last| steps.all().get(last)) {
        None => 0,
        Some(Some(step)) => step.statements.end,
        Some(None) => usize::MAX,
    }
}

/// The effects of pending migrations with the sizes of their tables, which are read without waiting for a
/// lock. Refuses what is too large.
pub(super) fn foresee(
    mut effects: PendingEffects,
    set: &MigrationSet,
    session: &Session,
    options: &Options,
    stop: &StopFlag,
    emit: &mut dyn FnMut(Event),
) -> Result<PendingEffects, ApplyError> {
    let sizes = look(&effects.relations(), session, options, stop)?;
    effects.measure(&sizes);
    let Some(limit) = options.max_blocking else { return Ok(effects) };
    effects.add_unknown_sizes(set);
    effects.report_unread(emit);
    match effects.too_large(set, limit) {
        Some(error) => Err(error),
        None => Ok(effects),
    }
}

/// The sizes of tables, without waiting for a lock: that of a table which another session has locked
/// exclusively is not known.
pub fn look(
    relations: &[&Relation],
    session: &Session,
    options: &Options,
    stop: &StopFlag,
) -> Result<Sizes, ApplyError> {
    if relations.is_empty() {
        return Ok(Sizes::new());
    }
    let settings = &options.target.settings;
    let role: String = settings.role_sql().into_iter().map(|sql| sql + ";\n").collect();
    let sizes = sizes_sql(relations, settings, false);
    // Another session may lock a table exclusively meanwhile.
    let sql = format!("begin read only;\n{role}set local lock_timeout = '1s';\n{sizes};\nrollback");
    match session.query(&sql, Deadline::after(QUERY_TIMEOUT, stop)) {
        Ok(sets) => Ok(parse(relations, &sets)),
        Err(QueryError::Stopped(signal)) => Err(signal.into()),
        Err(error) => Err(ApplyError::Unreachable { attempts: vec![Attempt::at_query(error)] }),
    }
}

impl Runner<'_> {
    /// Refuses, before anything runs, what scans or rewrites a table that is larger than `--max-blocking`
    /// allows. A later round does not ask again: then a table may be large that this run has made.
    pub(super) fn check_sizes(
        &mut self,
        session: &Session,
        plan: &Plan,
        prepared: &mut Prepared<'_>,
        state: &DatabaseState,
    ) -> Result<(), Interrupt> {
        let Some(limit) = self.options.max_blocking.filter(|_| !self.sizes_checked) else {
            return Ok(());
        };
        let mut effects = EffectsReader::new(self.set);
        prepared.in_stretches(self.set, &plan.pending, &state.progress, &mut |stretch| {
            stretch.iter().for_each(|next| effects.read(*next));
            Ok::<(), ApplyError>(())
        })?;
        let mut effects = effects.finish();
        for (_, hazards) in &mut effects.hazards {
            hazards.retain(|hazard| hazard.blocks);
        }
        let relations = effects.relations();
        if !relations.is_empty() {
            let sizes = self.sizes_under_lock(session, &relations, state)?;
            effects.measure(&sizes);
        }
        effects.report_unread(self.emit);
        if let Some(error) = effects.too_large(self.set, limit) {
            return Err(error.into());
        }
        self.sizes_checked = true;
        Ok(())
    }

    /// The sizes of tables, while this session holds the lock: so no other runner is just changing them.
    fn sizes_under_lock(
        &mut self,
        session: &Session,
        relations: &[&Relation],
        state: &DatabaseState,
    ) -> Result<Sizes, Interrupt> {
        let sql = sizes_sql(relations, &self.options.target.settings, true);
        let mut backoff = Backoff::default();
        loop {
            self.hold(session, session, None, state)?;
            let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
            let asked = session.query(&sql, deadline);
            if !matches!(asked, Err(QueryError::Stopped(_) | QueryError::Client(_))) {
                let deadline = Deadline::after(QUERY_TIMEOUT, self.stop);
                let released = session.query_row("rollback", deadline);
                released.map_err(sizes_failed)?;
            }
            match asked {
                Ok(sets) => return Ok(parse(relations, &sets)),
                Err(QueryError::Server(error)) if is_conflict(&error) => {
                    let reason = conflict(&error, None, false);
                    if !self.pause_for_lock(&mut backoff, None, reason)? {
                        let failure = Box::new(transaction::sizes_failure(&error));
                        return Err(ApplyError::LockTimeout { failure, blocker: None }.into());
                    }
                }
                Err(error) => return Err(sizes_failed(error)),
            }
        }
    }
}

/// What a failed query for the sizes means.
fn sizes_failed(error: QueryError) -> Interrupt {
    match error {
        QueryError::Stopped(signal) => signal.into(),
        QueryError::Server(error) if !error.ends_session() => {
            ApplyError::Failed(Box::new(transaction::sizes_failure(&error))).into()
        }
        error => connection_lost(None, None, as_connection_error(error)).into(),
    }
}

/// Whether no other session has locked a relation exclusively, or is about to.
pub(super) fn is_unlocked_sql(oid: &str) -> String {
    format!(
        "not exists (select from pg_catalog.pg_locks \
         where relation {EQ} {oid} and {DATABASE} and mode {EQ} 'AccessExclusiveLock')"
    )
}

/// Selects the sizes of the tables that exist, each with the number of the relation. Names without a schema
/// are looked up as where the migrations run. `waits` is whether it waits for locks.
fn sizes_sql(relations: &[&Relation], settings: &ServerSettings, waits: bool) -> String {
    let mut by_path: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
    for (number, relation) in relations.iter().enumerate() {
        let name = |name: &str| format!("{}::pg_catalog.name", quote::literal(name));
        let schema = relation.schema.as_deref().map_or("null::pg_catalog.name".to_owned(), name);
        let row = format!("({number}, {schema}, {})", name(&relation.name));
        by_path.entry(relation.search_path.as_deref()).or_default().push(row);
    }
    let mut sql: Vec<String> = settings.others.iter().map(ServerSetting::set_local_sql).collect();
    for (search_path, rows) in by_path {
        sql.extend(search_path.map(str::to_owned));
        sql.push(select_sql(&rows.join(", "), waits));
    }
    sql.join(";\n")
}

/// The rows of a table are estimated as the planner does it.
fn select_sql(named: &str, waits: bool) -> String {
    let unlocked = if waits { "true".to_owned() } else { is_unlocked_sql("tree.oid") };
    let size = |function: &str| {
        format!(
            "case when {unlocked} then pg_catalog.{function}(tree.oid::pg_catalog.regclass) end"
        )
    };
    let (heap, bytes, index_bytes) =
        (size("pg_relation_size"), size("pg_table_size"), size("pg_indexes_size"));
    let sum = |part: &str| {
        format!(
            "case when pg_catalog.bool_and({part} is not null) then pg_catalog.sum({part})::bigint end"
        )
    };
    let (row_count, bytes_sum, index_sum) = (sum("row_count"), sum("bytes"), sum("index_bytes"));
    format!(
        "with recursive tree as (\
         select number, relation as root, relation as oid, null::pg_catalog.oid as part from (\
         select number, coalesce((select indrelid from pg_catalog.pg_index \
         where indexrelid {EQ} found), found) as relation from (\
         select column1 as number, case when column2 is null \
         then pg_catalog.to_regclass(pg_catalog.quote_ident(column3))::pg_catalog.oid \
         else (select pg_class.oid from pg_catalog.pg_class \
         join pg_catalog.pg_namespace on pg_namespace.oid {EQ} relnamespace \
         where nspname {EQ} column2 and relname {EQ} column3) end as found \
         from (values {named}) named) looked_up) resolved where relation is not null \
         union select number, root, inhrelid, inhrelid from tree \
         join pg_catalog.pg_inherits on inhparent {EQ} tree.oid) \
         select number, nspname, root_class.relname, {row_count}, {bytes_sum}, {index_sum}, \
         pg_catalog.count(part) from (\
         select number, root, part, bytes, index_bytes, case when heap {EQ} 0 then 0 \
         when relpages operator(pg_catalog.>) 0 and reltuples operator(pg_catalog.>=) 0 \
         then reltuples operator(pg_catalog./) relpages operator(pg_catalog.*) (heap \
         operator(pg_catalog./) pg_catalog.current_setting('block_size')::bigint) end as row_count from (\
         select number, root, part, relpages, reltuples, {heap} as heap, {bytes} as bytes, \
         {index_bytes} as index_bytes from tree join pg_catalog.pg_class on pg_class.oid {EQ} tree.oid\
         ) parts) counted \
         join pg_catalog.pg_class root_class on root_class.oid {EQ} root \
         join pg_catalog.pg_namespace on pg_namespace.oid {EQ} root_class.relnamespace \
         group by number, nspname, root_class.relname"
    )
}

fn parse(relations: &[&Relation], sets: &[ResultSet]) -> Sizes {
    let sized = sets.iter().flat_map(ResultRow::all).filter_map(|row| {
        let relation = relations.get(row.at(0)?.parse::<usize>().ok()?)?;
        let number = |index| row.at(index)?.parse().ok();
        let size = TableSize {
            table: TableName::new(row.at(1).map(str::to_owned), row.at(2)?.to_owned()),
            rows: number(3),
            bytes: number(4),
            index_bytes: number(5),
            partitions: number(6).unwrap_or_default(),
        };
        Some(((*relation).clone(), size))
    });
    sized.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::plan::Pending;
    use crate::migrations::migration::{Layout, Migration};
    use crate::migrations::prepared;

    /// What is found about the last of these migrations, which is pending, after some of its steps.
    fn effects(migrations: &[&str], done: usize) -> PendingEffects {
        let migration = |(index, sql): (usize, &&str)| {
            Migration::new(
                format!("{index}"),
                format!("{index}.sql"),
                None,
                sql.as_bytes().to_vec(),
            )
        };
        let migrations: Vec<_> = migrations.iter().enumerate().map(migration).collect();
        let set = MigrationSet::new(Layout::Plain, migrations).unwrap();
        let index = set.migrations().len() - 1;
        let mut prepared = prepared::prepare(set.get(index).into_iter()).unwrap();
        prepared[0].done = done;
        let (pending, migration) =
            (&Pending { index, out_of_order: false }, &set.migrations()[index]);
        let mut effects = EffectsReader::new(&set);
        effects.read(Next { pending, migration, prepared: &prepared[0] });
        effects.finish()
    }

    /// The relations whose scan or rewrite others wait for.
    fn blocking(migrations: &[&str]) -> Vec<String> {
        let effects = effects(migrations, 0);
        let hazards =
            effects.hazards.iter().flat_map(|(_, hazards)| hazards).filter(|hazard| hazard.blocks);
        let names = hazards.filter_map(|hazard| hazard.relation.as_ref()).map(|relation| {
            let schema = relation.schema.as_ref().map(|it| format!("{it}.")).unwrap_or_default();
            let path = relation.search_path.as_ref().map(|it| format!(" [{it}]"));
            format!("{schema}{}{}", relation.name, path.unwrap_or_default())
        });
        names.collect()
    }

    #[test]
    fn what_scans_or_rewrites_under_a_lock_that_blocks_is_named_as_the_server_finds_it() {
        for (sql, expected) in [
            ("create index on t (a)", &["t"][..]),
            ("create index on public.\"T\" (a)", &["public.T"]),
            ("set search_path = s; create index on t (a)", &["t [set search_path = s]"]),
            ("set search_path = s; create index on x.t (a)", &["x.t"]),
            ("set local search_path = s; vacuum full t", &["t"]),
            ("alter table t rename to u; commit; alter table u alter a type int", &["t"]),
            ("alter table t set schema s; commit; create index on s.t (a)", &["t"]),
            ("alter table t rename to u; create table t (a int); create index on t (a)", &[]),
            ("drop table t; create table t (a int); create index on t (a)", &[]),
            ("create table if not exists t (a int); create index on t (a)", &["t"]),
            ("drop table t; create table if not exists t (a int); create index on t (a)", &[]),
            ("reindex index i", &["i"]),
            // What is held is small, perhaps, but is held as long as the other one is read.
            ("alter table t add b int; update u set b = 1", &["u"]),
            ("alter table t add b int; alter table u validate constraint k", &["u"]),
            ("alter table t add b int; update u set b = 1 where id = 7", &[]),
            ("alter table t add b int; insert into u select 1", &[]),
            ("update t set b = 1", &[]),
            ("drop table t; truncate u; drop index i; create index concurrently on t (a)", &[]),
            (
                "-- premigrate: ignore index-locks-writes because it is night\ncreate index on t (a)",
                &[],
            ),
            ("-- premigrate: ignore check-scan because it is night\ncreate index on t (a)", &["t"]),
        ] {
            assert_eq!(blocking(&[sql]), expected, "{sql}");
        }
        let there = "create table t (a varchar(10)); alter table old rename to renamed";
        assert_eq!(blocking(&[there, "alter table t alter a type text"]), [""; 0]);
        assert_eq!(blocking(&[there, "create index on renamed (a)"]), ["renamed"]);
    }

    #[test]
    fn what_earlier_steps_have_done_is_passed_over() {
        let sql = "create index on t (a); vacuum; create index on u (a)";
        let names = |done| {
            let effects = effects(&[sql], done);
            let names = effects.relations().into_iter().map(|relation| relation.name.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["t", "u"]);
        assert_eq!(names(1), ["u"]);
        assert_eq!(names(2), ["u"]);
        assert_eq!(names(3), [""; 0]);
        assert_eq!(names(9), [""; 0]);
        let renamed = "alter table t rename to u; vacuum; create index on u (a)";
        let effects = effects(&[renamed], 1);
        assert_eq!(
            effects.relations().iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
            ["u"]
        );
    }

    #[test]
    fn what_is_not_read_is_named_where_it_may_take_long() {
        let long = format!("alter table t add check (a in ({}))", "1, ".repeat(5_000) + "1");
        let seed = format!("insert into t values {}", "(1), ".repeat(5_000) + "(1)");
        for (sql, expected) in [
            (long.as_str(), &["0.sql:1:1"][..]),
            (&seed, &[]),
            ("select 1;\n alter table t frobnicate", &["0.sql:2:2"]),
            ("create index i over t (a)", &["0.sql:1:1"]),
            ("vacuum full", &["0.sql:1:1"]),
            ("reindex schema s", &["0.sql:1:1"]),
            ("refresh materialized view v", &["0.sql:1:1"]),
            ("refresh materialized view concurrently v", &[]),
            ("alter domain d add constraint k check (value > 0)", &["0.sql:1:1"]),
            ("alter table all in tablespace a set tablespace b", &["0.sql:1:1"]),
            ("vacuum full t; vacuum; alter table t add b int", &[]),
            ("select f(; create view v as select 1", &[]),
        ] {
            assert_eq!(effects(&[sql], 0).unread, expected, "{}", sql.get(..60).unwrap_or(sql));
        }
    }
}
