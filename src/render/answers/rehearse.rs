mod markdown;
mod picture;

use serde_json::json;

use super::json_lines;
use crate::apply::rehearse::report::{
    AdvancedSequence, Form, RehearsalOutcome, RehearsedMigration, RehearsedStatement, Report,
    TouchedTable,
};
use crate::apply::rehearse::trace::RelationKind;
use crate::cli::config::{Format, Style};
use crate::render::color::{Color, paint};
use crate::render::{json_line, one_line, plural, seconds, size};
use crate::sql::{LockMode, Queue};

pub use self::markdown::markdown;
pub use self::picture::{html, svg};

pub fn rehearsal_of(report: &Report, style: impl Into<Style>) -> String {
    let Style { format, is_colored } = style.into();
    match format {
        Format::Text => text(report, is_colored),
        Format::Json => json(report),
    }
}

fn json(report: &Report) -> String {
    let summary = json!({
        "rehearsed": report.migrations.len(),
        "ms": u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        "not_run": not_run(report),
        "sequences": report.leftovers.sequences,
        "session_locks": report.leftovers.session_locks,
    });
    json_lines(&report.migrations) + &json_line(&summary)
}

/// How many statements were not run.
fn not_run(report: &Report) -> usize {
    let statements = report.migrations.iter().flat_map(|migration| &migration.statements);
    statements.filter(|statement| matches!(statement.form, Form::No(_))).count()
}

fn text(report: &Report, is_colored: bool) -> String {
    let mut text = String::new();
    for migration in &report.migrations {
        text.push_str(&migration_text(migration, is_colored));
        text.push('\n');
    }
    for line in summary(report) {
        text.push_str(&one_line(&line));
        text.push('\n');
    }
    text
}

/// What is said of the whole, and what it has left.
fn summary(report: &Report) -> Vec<String> {
    let Some(last) = report.migrations.last() else {
        return vec!["nothing is pending, so there is nothing to rehearse".to_owned()];
    };
    let count = report.migrations.len() - usize::from(last.outcome == RehearsalOutcome::Failed);
    let migrations = plural(count, "migration");
    let end = match report.is_lost {
        true => "a file ended the transaction, so part of it may be committed",
        false => "all of it was rolled back",
    };
    let mut lines = vec![format!("rehearsed {migrations} in {}; {end}", seconds(report.took))];
    match not_run(report) {
        0 => {}
        count => lines.push(format!("{} not run, as shown", were(count, "statement"))),
    }
    lines.extend(report.leftovers.sequences.iter().map(sequence_text));
    match report.leftovers.session_locks {
        0 => {}
        count if report.leftovers.keeps_locks => lines.push(format!(
            "{} taken for the whole session, and a session of the pooler still has them",
            were(count, "advisory lock")
        )),
        count => lines.push(format!(
            "{} taken for the whole session, and released at the end",
            were(count, "advisory lock")
        )),
    }
    lines
}

fn were(count: usize, one: &str) -> String {
    format!("{} {}", plural(count, one), if count == 1 { "was" } else { "were" })
}

fn sequence_text(sequence: &AdvancedSequence) -> String {
    let AdvancedSequence { sequence, before, after } = sequence;
    let value = |value: &Option<i64>| match value {
        Some(value) => value.to_string(),
        None => "not used".to_owned(),
    };
    match (before, after) {
        (None, None) => {
            format!("the sequence {sequence} may have changed; no rollback sets it back")
        }
        _ => format!(
            "the sequence {sequence} has changed ({} before, {} now); no rollback sets it back",
            value(before),
            value(after)
        ),
    }
}

fn migration_text(migration: &RehearsedMigration, is_colored: bool) -> String {
    let mut lines = vec![one_line(&title(migration))];
    let tables: Vec<_> = migration.tables.iter().filter(|table| is_told(table)).collect();
    if tables.is_empty() {
        lines.push(format!("  it {NOTHING}"));
    } else {
        lines.extend(table_lines(&tables, is_colored));
    }
    if !migration.created.is_empty() {
        lines.push(one_line(&format!("  new: {}", migration.created.join(", "))));
    }
    lines.extend(remarks(migration).map(|remark| one_line(&format!("  {remark}"))));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// The migration, how long it took, and how much was written.
fn title(migration: &RehearsedMigration) -> String {
    let RehearsedMigration { migration: name, took, wal_bytes, outcome, .. } = migration;
    let after = if *outcome == RehearsalOutcome::Failed { "failed after " } else { "" };
    let wal = wal_bytes.map(|bytes| format!(", {} of WAL", size(bytes))).unwrap_or_default();
    format!("{name}: {after}{}{wal}", seconds(*took))
}

/// What is said of a migration of which there is no table to tell.
const NOTHING: &str = "takes no table lock that anything waits for, and begins no sequential scan";

/// Whether it matters to others, or takes time.
fn is_told(table: &TouchedTable) -> bool {
    table.queues.is_some()
        || table.rewritten
        || table.scanned
        || has_new_rows(table)
        || locks_rows(table)
}

/// Whether writes of some of its rows wait.
fn locks_rows(table: &TouchedTable) -> bool {
    let is_row_lock = table.lock == Some(LockMode::RowShare);
    is_row_lock || table.rows_updated + table.rows_deleted > 0
}

fn has_new_rows(table: &TouchedTable) -> bool {
    table.rows_inserted + table.rows_updated + table.rows_deleted > 0
}

const HEADINGS: [&str; 6] = ["table", "size", "lock", "held", "waiting meanwhile", "also"];

fn table_lines(tables: &[&TouchedTable], is_colored: bool) -> Vec<String> {
    let rows = tables.iter().map(|table| cells(table).map(|cell| one_line(&cell)));
    let rows: Vec<_> = [HEADINGS.map(str::to_owned)].into_iter().chain(rows).collect();
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    });
    let colors = [None].into_iter().chain(tables.iter().map(|table| color_of(table.queues)));
    let lines = rows.iter().zip(colors).map(|(row, color)| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            // The lock, and who waits for it.
            match color.filter(|_| [2, 4].contains(&column)) {
                Some(color) => paint(cell, color, is_colored) + &padding,
                None => format!("{cell}{padding}"),
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("  {}", line.trim_end())
    });
    lines.collect()
}

fn color_of(queues: Option<Queue>) -> Option<Color> {
    match queues? {
        Queue::ReadsAndWrites => Some(Color::Red),
        Queue::Writes => Some(Color::Yellow),
        Queue::Maintenance => None,
    }
}

fn cells(table: &TouchedTable) -> [String; 6] {
    [
        table_name(table),
        table.bytes_before.map(size).unwrap_or_default(),
        lock_text(table),
        seconds(table.held),
        waiting_text(table),
        effects(table).join(", "),
    ]
}

fn table_name(table: &TouchedTable) -> String {
    let kind = match table.kind {
        RelationKind::Table | RelationKind::Other => "",
        RelationKind::Index => "index ",
        RelationKind::View => "view ",
        RelationKind::MaterializedView => "materialized view ",
        RelationKind::Sequence => "sequence ",
        RelationKind::ForeignTable => "foreign table ",
    };
    format!("{kind}{}", table.table)
}

/// The strongest lock, and one that may hide a stronger one.
fn lock_text(table: &TouchedTable) -> String {
    let new = table.lock.map(|lock| lock.to_string());
    let hidden = table.already_held.zip(table.already_held_since.as_ref());
    let hidden = hidden.map(|(lock, since)| format!("at most {lock} (held since {since})"));
    new.into_iter().chain(hidden).collect::<Vec<_>>().join(", ")
}

/// What waits for a lock of the table or of its rows.
fn waiting_text(table: &TouchedTable) -> String {
    let of_table = queue_text(table.queues);
    match table.queues {
        None if locks_rows(table) => "writes of these rows".to_owned(),
        Some(Queue::Maintenance) if locks_rows(table) => {
            format!("{of_table}, writes of these rows")
        }
        _ => of_table.to_owned(),
    }
}

fn queue_text(queues: Option<Queue>) -> &'static str {
    match queues {
        Some(Queue::ReadsAndWrites) => "reads and writes",
        Some(Queue::Writes) => "writes",
        Some(Queue::Maintenance) => "schema changes, VACUUM",
        None => "",
    }
}

/// What was done beside the lock.
fn effects(table: &TouchedTable) -> Vec<String> {
    let mut effects = Vec::new();
    if table.rewritten {
        effects.push(match table.bytes_after {
            Some(bytes) => format!("rewritten, now {}", size(bytes)),
            None => "rewritten".to_owned(),
        });
    }
    if table.scanned {
        effects.push("a sequential scan began".to_owned());
    }
    let rows = [
        (table.rows_inserted, "inserted"),
        (table.rows_updated, "updated"),
        (table.rows_deleted, "deleted"),
    ];
    let rows = rows.into_iter().filter(|(count, _)| *count > 0);
    effects.extend(rows.map(|(count, what)| {
        format!("{} {what}", plural(usize::try_from(count).unwrap_or(usize::MAX), "row"))
    }));
    effects
}

/// What there is to say of how a migration was run.
fn remarks(migration: &RehearsedMigration) -> impl Iterator<Item = String> {
    let isolation = migration.isolation.map(|level| {
        let level = level.to_ascii_uppercase();
        format!("`up` runs it in {level}; it was rehearsed in READ COMMITTED")
    });
    let statements = migration.statements.iter();
    let of_statements = statements.filter_map(|statement| remark(&migration.file, statement));
    isolation.into_iter().chain(of_statements)
}

/// What there is to say of a statement that was not run as it is.
fn remark(file: &str, statement: &RehearsedStatement) -> Option<String> {
    let RehearsedStatement { line, column, form, .. } = statement;
    let place = format!("{file}:{line}:{column}");
    match form {
        Form::AsItIs => None,
        Form::WithoutConcurrently => Some(format!(
            "{place} ran without CONCURRENTLY; with it, `up` takes SHARE UPDATE EXCLUSIVE, as shown"
        )),
        Form::No(why) => Some(format!("{place} was not run: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;
    use crate::apply::rehearse::report::{Leftovers, LockSpan, NewLock, NotRun, Rewrite};
    use crate::postgres::server_error::ServerError;

    fn table(name: &str, lock: Option<LockMode>) -> TouchedTable {
        TouchedTable {
            table: name.to_owned(),
            kind: RelationKind::Table,
            lock,
            held: Duration::from_millis(1500),
            queues: lock.and_then(LockMode::queue),
            already_held: None,
            already_held_since: None,
            rewritten: false,
            scanned: false,
            rows_read: 0,
            rows_inserted: 0,
            rows_updated: 0,
            rows_deleted: 0,
            bytes_before: Some(44_000_000_000),
            bytes_after: Some(8192),
            rows_before: Some(7),
        }
    }

    fn statement(statement: usize, form: Form) -> RehearsedStatement {
        RehearsedStatement {
            statement,
            line: statement,
            column: 1,
            text: "vacuum".to_owned(),
            form,
            took: None,
            locks: vec![NewLock { table: "public.a".to_owned(), lock: LockMode::Share }],
        }
    }

    fn span(table: &str, lock: LockMode, times: [u64; 2], already_held: bool) -> LockSpan {
        let [from, until] = times.map(Duration::from_millis);
        LockSpan { table: table.to_owned(), lock, from, until, already_held }
    }

    fn report() -> Report {
        let error = ServerError {
            code: "42P01".to_owned(),
            message: "relation \"m\" does not exist".to_owned(),
            ..ServerError::default()
        };
        let not_run = [
            NotRun::NoTransactionBlock("VACUUM"),
            NotRun::Refused(error.clone()),
            NotRun::Lasts("dblink_exec"),
            NotRun::TransactionModes,
            NotRun::EnumValue(error.clone()),
            NotRun::Begun,
            NotRun::Depends { place: "a.sql:1:1".to_owned(), error },
        ];
        let forms = not_run.map(Form::No).into_iter();
        let forms = [Form::AsItIs, Form::WithoutConcurrently].into_iter().chain(forms);
        let migration = |name: &str, outcome| RehearsedMigration {
            migration: name.to_owned(),
            file: format!("{name}.sql"),
            outcome,
            isolation: None,
            took: Duration::from_millis(12),
            wal_bytes: Some(1_300_000),
            tables: Vec::new(),
            created: Vec::new(),
            statements: Vec::new(),
            from: Duration::ZERO,
            spans: Vec::new(),
            rewrites: Vec::new(),
        };
        let rewritten = TouchedTable {
            rewritten: true,
            scanned: true,
            rows_updated: 2,
            rows_deleted: 1,
            ..table("public.a", Some(LockMode::AccessExclusive))
        };
        let held = TouchedTable {
            already_held: Some(LockMode::AccessExclusive),
            already_held_since: Some("1_first".to_owned()),
            queues: Some(Queue::ReadsAndWrites),
            bytes_before: None,
            ..table("public.b\n", Some(LockMode::Share))
        };
        let index = TouchedTable {
            kind: RelationKind::Index,
            ..table("public.i", Some(LockMode::ShareUpdateExclusive))
        };
        let read = table("public.only_read", Some(LockMode::AccessShare));
        let first = RehearsedMigration {
            tables: vec![rewritten, held, index, read],
            created: vec!["public.c".to_owned(), "public.d".to_owned()],
            statements: (1..).zip(forms).map(|(number, form)| statement(number, form)).collect(),
            spans: vec![
                span("public.a", LockMode::AccessExclusive, [2, 12], false),
                span("public.<b>&\"c\"", LockMode::Share, [5, 12], false),
                span("public.<b>&\"c\"", LockMode::AccessExclusive, [5, 12], true),
                span("public.only_read", LockMode::AccessShare, [0, 12], false),
            ],
            rewrites: vec![Rewrite {
                table: "public.a".to_owned(),
                from: Duration::from_millis(2),
                until: Duration::from_millis(9),
            }],
            isolation: Some("serializable"),
            ..migration("1_first", RehearsalOutcome::Partly)
        };
        let from = Duration::from_millis(12);
        let second = RehearsedMigration {
            from,
            wal_bytes: None,
            ..migration("2_second", RehearsalOutcome::Failed)
        };
        let sequence = |name: &str, before, after| AdvancedSequence {
            sequence: name.to_owned(),
            before,
            after,
        };
        let leftovers = Leftovers {
            sequences: vec![
                sequence("public.s", None, Some(3)),
                sequence("public.unseen", None, None),
            ],
            session_locks: 2,
            keeps_locks: false,
        };
        let took = Duration::from_millis(24);
        Report { migrations: vec![first, second], leftovers, is_lost: false, took }
    }

    #[test]
    fn the_text_has_a_table_for_each_migration_and_says_what_was_not_run_and_what_is_left() {
        expect![[r#"
            1_first: 12 ms, 1.2 MB of WAL
              table           size   lock                                                  held   waiting meanwhile       also
              public.a        40 GB  ACCESS EXCLUSIVE                                      1.5 s  reads and writes        rewritten, now 8 kB, a sequential scan began, 2 rows updated, 1 row deleted
              public.b\n             SHARE, at most ACCESS EXCLUSIVE (held since 1_first)  1.5 s  reads and writes
              index public.i  40 GB  SHARE UPDATE EXCLUSIVE                                1.5 s  schema changes, VACUUM
              new: public.c, public.d
              `up` runs it in SERIALIZABLE; it was rehearsed in READ COMMITTED
              1_first.sql:2:1 ran without CONCURRENTLY; with it, `up` takes SHARE UPDATE EXCLUSIVE, as shown
              1_first.sql:3:1 was not run: VACUUM cannot run inside a transaction block
              1_first.sql:4:1 was not run: it cannot run inside a transaction block (42P01 relation "m" does not exist)
              1_first.sql:5:1 was not run: no rollback undoes dblink_exec
              1_first.sql:6:1 was not run: one READ COMMITTED transaction holds the whole rehearsal
              1_first.sql:7:1 was not run: the new value has to be committed first (42P01 relation "m" does not exist)
              1_first.sql:8:1 was not run: an earlier run has begun with it, and did not finish
              1_first.sql:9:1 was not run: it failed (42P01 relation "m" does not exist), and may need a.sql:1:1, which was not run

            2_second: failed after 12 ms
              it takes no table lock that anything waits for, and begins no sequential scan

            rehearsed 1 migration in 24 ms; all of it was rolled back
            7 statements were not run, as shown
            the sequence public.s has changed (not used before, 3 now); no rollback sets it back
            the sequence public.unseen may have changed; no rollback sets it back
            2 advisory locks were taken for the whole session, and released at the end
        "#]].assert_eq(&rehearsal_of(&report(), Format::Text));
    }

    #[test]
    fn what_waits_for_rows_and_what_is_not_undone_is_said() {
        let written = TouchedTable { rows_updated: 1, ..table("a", Some(LockMode::RowExclusive)) };
        assert_eq!(cells(&written)[4], "writes of these rows");
        let locked = table("a", Some(LockMode::RowShare));
        assert!(is_told(&locked));
        assert_eq!(cells(&locked)[4], "writes of these rows");
        let index =
            TouchedTable { rows_deleted: 1, ..table("a", Some(LockMode::ShareUpdateExclusive)) };
        assert_eq!(cells(&index)[4], "schema changes, VACUUM, writes of these rows");
        let whole = TouchedTable { rows_updated: 1, ..table("a", Some(LockMode::Share)) };
        assert_eq!(cells(&whole)[4], "writes");

        let mut report = Report { is_lost: true, ..report() };
        report.leftovers.keeps_locks = true;
        let lines = summary(&report);
        assert_eq!(
            lines[0],
            "rehearsed 1 migration in 24 ms; a file ended the transaction, so part of it may be committed"
        );
        assert_eq!(
            lines.last().unwrap(),
            "2 advisory locks were taken for the whole session, and a session of the pooler still has them"
        );
    }

    #[test]
    fn colors_are_for_locks_that_reads_or_writes_wait_for() {
        let style = Style { format: Format::Text, is_colored: true };
        let text = rehearsal_of(&report(), style);
        let red: Vec<_> = text.lines().filter(|line| line.contains("\u{1b}[1;31m")).collect();
        assert_eq!(red.len(), 2, "{text}");
        let plain = text.replace("\u{1b}[1;31m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, rehearsal_of(&report(), Format::Text));
    }

    #[test]
    fn json_has_an_object_for_each_migration_and_one_for_all() {
        let text = rehearsal_of(&report(), Format::Json);
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 3);
        let ran = |index: usize| objects[0]["statements"][index]["ran"].clone();
        assert_eq!([ran(0), ran(1), ran(2)], ["as_it_is", "without_concurrently", "no"]);
        expect![[r#"
            {
              "rehearsed": 2,
              "ms": 24,
              "not_run": 7,
              "sequences": [
                {
                  "sequence": "public.s",
                  "before": null,
                  "after": 3
                },
                {
                  "sequence": "public.unseen",
                  "before": null,
                  "after": null
                }
              ],
              "session_locks": 2
            }"#]]
        .assert_eq(&format!("{:#}", objects[2]));
    }

    #[test]
    fn markdown_has_a_table_for_each_migration_and_no_mark_of_others() {
        expect![[r####"
            ### 1\_first: 12 ms, 1.2 MB of WAL

            | table | size | lock | held | waiting meanwhile | also |
            | --- | --- | --- | --- | --- | --- |
            | public.a | 40 GB | ACCESS EXCLUSIVE | 1.5 s | reads and writes | rewritten, now 8 kB, a sequential scan began, 2 rows updated, 1 row deleted |
            | public.b\\n |  | SHARE, at most ACCESS EXCLUSIVE (held since 1\_first) | 1.5 s | reads and writes |  |
            | index public.i | 40 GB | SHARE UPDATE EXCLUSIVE | 1.5 s | schema changes, VACUUM |  |

            - new: public.c, public.d
            - \`up\` runs it in SERIALIZABLE; it was rehearsed in READ COMMITTED
            - 1\_first.sql:2:1 ran without CONCURRENTLY; with it, \`up\` takes SHARE UPDATE EXCLUSIVE, as shown
            - 1\_first.sql:3:1 was not run: VACUUM cannot run inside a transaction block
            - 1\_first.sql:4:1 was not run: it cannot run inside a transaction block (42P01 relation "m" does not exist)
            - 1\_first.sql:5:1 was not run: no rollback undoes dblink\_exec
            - 1\_first.sql:6:1 was not run: one READ COMMITTED transaction holds the whole rehearsal
            - 1\_first.sql:7:1 was not run: the new value has to be committed first (42P01 relation "m" does not exist)
            - 1\_first.sql:8:1 was not run: an earlier run has begun with it, and did not finish
            - 1\_first.sql:9:1 was not run: it failed (42P01 relation "m" does not exist), and may need a.sql:1:1, which was not run

            ### 2\_second: failed after 12 ms

            It takes no table lock that anything waits for, and begins no sequential scan.

            rehearsed 1 migration in 24 ms; all of it was rolled back

            7 statements were not run, as shown

            the sequence public.s has changed (not used before, 3 now); no rollback sets it back

            the sequence public.unseen may have changed; no rollback sets it back

            2 advisory locks were taken for the whole session, and released at the end
        "####]].assert_eq(&markdown(&report()));
    }

    /// The names of the elements that are open at the end, or closed without having been open.
    fn unbalanced(xml: &str) -> Vec<&str> {
        let mut open = Vec::new();
        for tag in xml.split('<').skip(1).map(|tag| tag.split('>').next().unwrap()) {
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            match tag.strip_prefix('/') {
                Some(_) if open.last() == Some(&name) => drop(open.pop()),
                Some(_) => open.push(name),
                None if tag.ends_with('/') || tag.starts_with(['?', '!']) => {}
                None if ["meta"].contains(&name) => {}
                None => open.push(name),
            }
        }
        open
    }

    #[test]
    fn the_picture_has_a_lane_for_each_table_that_something_waits_for() {
        let svg = svg(&report());
        assert_eq!(unbalanced(&svg), [""; 0], "{svg}");
        let count = |text: &str| svg.matches(text).count();
        assert_eq!(count("public.only_read"), 0);
        assert_eq!(count("<rect class=\"all\" x="), 2, "the bar and the legend");
        assert_eq!(count("<rect class=\"all held\""), 1);
        assert_eq!(count("<rect class=\"rewrite\""), 2, "the mark and the legend");
        assert!(svg.contains("ACCESS EXCLUSIVE, 10 ms"), "{svg}");
        assert!(svg.contains("public.&lt;b&gt;&amp;&quot;c&quot;"), "{svg}");
        let title = "public.a: ACCESS EXCLUSIVE for 10 ms in 1_first; waiting: reads and writes";
        assert!(svg.contains(&format!("<title>{title}</title>")), "{svg}");
        assert!(svg.contains("role=\"img\"") && svg.contains("prefers-color-scheme:dark"));
        // It needs nothing from elsewhere.
        assert_eq!(count("http"), 1, "its name space");
        let empty = super::svg(&Report::default());
        assert_eq!(unbalanced(&empty), [""; 0], "{empty}");
        assert!(empty.contains("no table lock that anything waits for"), "{empty}");
    }

    #[test]
    fn the_page_has_the_picture_and_the_tables() {
        let page = html(&report());
        assert_eq!(unbalanced(&page), [""; 0], "{page}");
        assert!(page.contains(svg(&report()).split_once('\n').unwrap().1), "{page}");
        assert!(page.contains("<td>ACCESS EXCLUSIVE</td>"), "{page}");
        assert!(page.contains("1_first.sql:3:1 was not run: VACUUM cannot"), "{page}");
        assert!(!page.contains("src=") && !page.contains("href="), "{page}");
    }

    #[test]
    fn sizes_are_in_the_unit_that_a_person_would_name() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (8192, "8 kB"),
            (1_300_000, "1.2 MB"),
            (1 << 20, "1 MB"),
            (44_000_000_000, "40 GB"),
            (u64::MAX, "16383 PB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
