//! Recognizes down migrations: SQL by which another tool takes a migration back, in a file or in a
//! section of its own. premigrate would run it as if it were part of the migration. Pure.

use std::collections::HashMap;
use std::fmt;

use crate::migrations::migration::Migration;
use crate::sql::Script;

/// The part of a file that takes the rest of it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownSection {
    /// The line that begins it.
    pub marker: String,
    pub tool: Option<&'static str>,
    /// Where the line begins.
    pub offset: usize,
}

impl fmt::Display for DownSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tool {
            Some(tool) => write!(f, "`{}`, of {tool}", self.marker),
            None => write!(f, "`{}`", self.marker),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// A comment that begins a section.
struct Marker {
    direction: Direction,
    tool: Option<&'static str>,
    doubt: Doubt,
}

/// Whether a marker could be an ordinary comment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// A line of nothing but `Down`: one, unless it comes after other statements.
    Bare,
    /// One, unless the file also has the marker of the other direction.
    Loose,
}

impl DownSection {
    /// The first one that holds a statement: what is empty or commented out does no harm.
    pub fn first_in(script: &Script<'_>) -> Option<DownSection> {
        let lines = script.comment_lines();
        let markers = lines.filter_map(|(offset, line)| Some((offset, line, marker(line)?)));
        let markers: Vec<_> = markers.collect();
        let has_up = markers.iter().any(|(_, _, marker)| marker.direction == Direction::Up);
        let ends = markers.iter().skip(1).map(|(offset, ..)| *offset).chain([usize::MAX]);
        let is_meant = |offset: usize, marker: &Marker| match marker.doubt {
            Doubt::None => true,
            Doubt::Bare => has_up || has_statement(script, 0, offset),
            Doubt::Loose => has_up,
        };
        let down = markers.iter().zip(ends).find(|((offset, _, marker), end)| {
            marker.direction == Direction::Down
                && is_meant(*offset, marker)
                && has_statement(script, *offset, *end)
        });
        let ((offset, line, marker), _) = down?;
        let line = line.trim_end().chars().take(60).collect();
        Some(DownSection { marker: line, tool: marker.tool, offset: *offset })
    }
}

fn has_statement(script: &Script<'_>, from: usize, to: usize) -> bool {
    let last = script.statements().before(to).last();
    last.is_some_and(|last| last.start + last.text.len() > from)
}

/// What a comment line is to the tools that know it; upper and lower case do not matter.
fn marker(line: &str) -> Option<Marker> {
    let text = line.trim_start_matches('-').trim().to_ascii_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    let sure = |direction, tool| Some(Marker { direction, tool: Some(tool), doubt: Doubt::None });
    let direction = |word: &str| match word {
        "up" => Some(Direction::Up),
        "down" => Some(Direction::Down),
        _ => None,
    };
    match *words.as_slice() {
        ["migrate:up", ..] => sure(Direction::Up, "dbmate"),
        ["migrate:down", ..] => sure(Direction::Down, "dbmate"),
        ["+goose", word] => sure(direction(word)?, "goose"),
        ["+migrate", word, ..] => sure(direction(word)?, "sql-migrate"),
        ["+micrate", word, ..] => sure(direction(word)?, "micrate"),
        ["rambler", word, ..] => sure(direction(word)?, "rambler"),
        ["create", "above", "/", "drop", "below", "----"] => sure(Direction::Down, "tern"),
        ["//@undo"] | ["//", "@undo"] | ["@undo"] => sure(Direction::Down, "MyBatis Migrations"),
        ["!ups"] => sure(Direction::Up, "Play"),
        ["!downs"] => sure(Direction::Down, "Play"),
        ["migration.sql", "--"] => sure(Direction::Up, "Atlas"),
        ["down.sql", "--"] => sure(Direction::Down, "Atlas"),
        [word, migration, ref more @ ..] if migration.starts_with("migration") => Some(Marker {
            direction: direction(word)?,
            tool: Some("node-pg-migrate"),
            doubt: if more.is_empty() { Doubt::Bare } else { Doubt::Loose },
        }),
        _ => {
            // shmig's `-- ==== DOWN ====`, and the plain `-- Down` of several others.
            let word = text.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            Some(Marker { direction: direction(word)?, tool: None, doubt: Doubt::Bare })
        }
    }
}

/// A file that takes another migration back, or the folder's own tool would read it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownFile {
    pub file: String,
    pub tool: Option<&'static str>,
}

/// The down migrations among plain files, known by their names.
pub fn down_files(migrations: &[Migration]) -> Vec<DownFile> {
    let lower = |migration: &Migration| migration.name.to_ascii_lowercase();
    let names: HashMap<String, &Migration> =
        migrations.iter().map(|migration| (lower(migration), migration)).collect();
    let is_there = |name: &str| names.contains_key(name);
    let down = |migration: &Migration| {
        let tool = down_tool(&migration.name, &is_there)?;
        Some(DownFile { file: migration.file.clone(), tool })
    };
    migrations.iter().filter_map(down).collect()
}

/// What names a down migration, and its counterparts.
const DOWN_WORDS: [(&str, &[&str]); 5] = [
    ("down", &["up"]),
    ("undo", &["do"]),
    ("rollback", &["up", "apply", "migrate", "forward"]),
    ("revert", &["up", "apply", "deploy", "migrate"]),
    ("downgrade", &["upgrade"]),
];

/// `None` unless a file of this name, without `.sql`, is a down migration; the tool may be unknown.
fn down_tool(name: &str, is_there: &dyn Fn(&str) -> bool) -> Option<Option<&'static str>> {
    if is_flyway_undo(name) {
        return Some(Some("Flyway"));
    }
    let name = name.to_ascii_lowercase();
    DOWN_WORDS.iter().find_map(|(word, counterparts)| {
        if name == *word
            || name.ends_with(&format!(".{word}"))
            || name.contains(&format!(".{word}."))
        {
            return Some(tool_of_suffix(word));
        }
        let has_twin = places(&name, word).any(|(before, after)| {
            let mut twins = counterparts.iter().map(|up| format!("{before}{up}{after}"));
            let trimmed = before.trim_end_matches(is_separator);
            twins.any(|twin| is_there(&twin))
                || (!trimmed.is_empty() && is_there(&format!("{trimmed}{after}")))
        });
        has_twin.then_some(None)
    })
}

fn tool_of_suffix(word: &str) -> Option<&'static str> {
    match word {
        "down" => Some("golang-migrate or sqlx"),
        "undo" => Some("Postgrator"),
        "rollback" => Some("yoyo"),
        _ => None,
    }
}

/// `U2__name` or `U2.1__name`. Without the digits and both underscores, it is an innocent name.
fn is_flyway_undo(name: &str) -> bool {
    let version = name.strip_prefix('U').and_then(|rest| rest.split_once("__"));
    version.is_some_and(|(version, _)| {
        version.starts_with(|c: char| c.is_ascii_digit())
            && version.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '_'))
    })
}

/// The text before and after each occurrence of a whole word.
fn places<'a>(name: &'a str, word: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    name.match_indices(word).filter_map(move |(at, _)| {
        let (before, after) = (name.get(..at)?, name.get(at + word.len()..)?);
        let is_whole = (before.is_empty() || before.ends_with(is_separator))
            && (after.is_empty() || after.starts_with(is_separator));
        is_whole.then_some((before, after))
    })
}

fn is_separator(c: char) -> bool {
    matches!(c, '_' | '-' | '.' | ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(sql: &str) -> Option<(Option<&'static str>, usize)> {
        let section = DownSection::first_in(&Script::parse(sql))?;
        Some((section.tool, sql[..section.offset].matches('\n').count() + 1))
    }

    #[test]
    fn a_down_section_is_known_by_the_marker_of_its_tool() {
        for (up, down, tool) in [
            ("-- migrate:up", "-- migrate:down", "dbmate"),
            ("--migrate:up", "--migrate:down transaction:false", "dbmate"),
            ("-- +goose Up", "-- +goose Down", "goose"),
            ("--+goose up", "--   +goose DOWN\r", "goose"),
            ("-- +migrate Up", "-- +migrate Down notransaction", "sql-migrate"),
            ("-- +micrate Up", "-- +micrate Down", "micrate"),
            ("-- rambler up", "-- rambler down", "rambler"),
            ("", "---- create above / drop below ----", "tern"),
            ("-- // create a", "-- //@UNDO", "MyBatis Migrations"),
            ("--// create a", "--//@UNDO", "MyBatis Migrations"),
            ("-- !Ups", "-- !Downs", "Play"),
            ("-- atlas:txtar\n-- migration.sql --", "-- down.sql --", "Atlas"),
            ("-- Up Migration", "-- Down Migration", "node-pg-migrate"),
            ("--- UP migration: a", "  -- down migrations", "node-pg-migrate"),
        ] {
            let sql = format!("{up}\ncreate table a ();\n{down}\ndrop table a;\n");
            let line = up.matches('\n').count() + 3;
            assert_eq!(section(&sql), Some((Some(tool), line)), "{sql}");
        }
        for (up, down) in [
            ("-- ====  UP  ====", "-- ==== DOWN ===="),
            ("-- up", "-- Down:"),
            ("-- users", "-- DOWN"),
        ] {
            let sql = format!("{up}\ncreate table a ();\n{down}\ndrop table a;\n");
            assert_eq!(section(&sql), Some((None, 3)), "{sql}");
        }
        assert_eq!(section("\u{feff}-- migrate:down\ndrop table a"), Some((Some("dbmate"), 1)));
        let unfinished = "-- migrate:up\ncreate table a ()\n-- migrate:down\ndrop table a";
        assert_eq!(section(unfinished), Some((Some("dbmate"), 3)));
    }

    #[test]
    fn what_only_resembles_a_down_section_is_none() {
        for sql in [
            // Without a statement in it.
            "-- migrate:up\ncreate table a ();\n-- migrate:down\n",
            "-- ==== UP ====\ncreate table a ();\n-- ==== DOWN ====\n-- drop table a;\n",
            "-- +goose Down\n-- +goose Up\ncreate table a ();",
            // Not a comment line of its own.
            "insert into a values ('\n-- migrate:down\n'); select 1",
            "do $$\n-- migrate:down\n$$; select 1",
            "/*\n-- migrate:down\n*/ select 1",
            "create table a (); -- migrate:down\nselect 1",
            // An ordinary comment.
            "-- up\ncreate table a ();\n-- scale down\nselect 1",
            "-- down migration: none\ncreate table a ();",
            "-- Down\nselect 1",
            "select 1;\n-- down migration: by hand\nselect 2",
            "-- rollback\ndrop table b;",
            "-- migrate:downtown\nselect 1",
            "-- rollback plan: see down.sql\nselect 1",
        ] {
            assert_eq!(section(sql), None, "{sql}");
        }
    }

    fn down_names(names: &[&str]) -> Vec<(String, Option<&'static str>)> {
        let migration = |name: &&str| Migration::new(*name, format!("{name}.sql"), None, &b""[..]);
        let migrations: Vec<_> = names.iter().map(migration).collect();
        let files = down_files(&migrations).into_iter();
        files.map(|DownFile { file, tool }| (file, tool)).collect()
    }

    #[test]
    fn a_down_file_is_known_by_its_name() {
        for (name, tool) in [
            ("1_a.down", Some("golang-migrate or sqlx")),
            ("1_a.DOWN", Some("golang-migrate or sqlx")),
            ("1_a.tx.down", Some("golang-migrate or sqlx")),
            ("down", Some("golang-migrate or sqlx")),
            ("001.undo.users", Some("Postgrator")),
            ("0001.a.rollback", Some("yoyo")),
            ("1_a.revert", None),
            ("U1__a", Some("Flyway")),
            ("U2.1__a", Some("Flyway")),
            ("U2_1__a", Some("Flyway")),
        ] {
            let expected = [(format!("{name}.sql"), tool)];
            assert_eq!(down_names(&["0001_first", name]), expected, "{name}");
        }
    }

    #[test]
    fn a_name_that_may_be_innocent_counts_only_with_its_twin() {
        for (name, twin) in [
            ("0003_scale_down", "0003_scale_up"),
            ("0003_scale_down", "0003_scale"),
            ("20200101-a-down", "20200101-a-up"),
            ("001_down_users", "001_up_users"),
            ("down_001", "up_001"),
            ("0001_Revert", "0001_Deploy"),
            ("0004_rollback_orders", "0004_orders"),
            ("1_downgrade", "1_upgrade"),
        ] {
            assert_eq!(down_names(&[name]), [], "{name}");
            assert_eq!(down_names(&[name, "0002_scale_up"]), [], "{name}");
            assert_eq!(down_names(&[name, twin]), [(format!("{name}.sql"), None)], "{name}");
        }
    }

    #[test]
    fn an_innocent_name_is_not_a_down_file() {
        let names = [
            "U_turns",
            "Users__1",
            "u1__a",
            "U__a",
            "0005_download",
            "0006_countdown",
            "0007_undoable",
        ];
        assert_eq!(down_names(&names), []);
    }
}
