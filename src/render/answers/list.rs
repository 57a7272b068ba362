use serde::Serialize;

use super::json_lines;
use crate::cli::config::Format;
use crate::migrations::migration::{Migration, MigrationSet};
use crate::migrations::source::Origin;
use crate::render::{json_line, lines, plural};

#[derive(Serialize)]
struct ListedMigration<'a> {
    migration: &'a str,
    /// Its place in the order in which migrations run, from 1.
    position: usize,
    /// Its file's path inside the migrations folder.
    file: &'a str,
    /// sha256 of the file, in hex, as Drizzle records it.
    hash: &'a str,
    bytes: usize,
    /// When it was generated, in Unix milliseconds; null for a plain file.
    when: Option<i64>,
    /// The folder's layout: `Drizzle 0.x`, `Drizzle 1.x` or `plain files`.
    layout: &'a str,
    /// `this executable`, or the folder.
    from: &'a str,
    /// Why its content is no text for the server; null if it is.
    problem: Option<String>,
}

/// What stands for a set without a migration.
#[derive(Serialize)]
struct EmptySet<'a> {
    migrations: usize,
    layout: &'a str,
    from: &'a str,
}

pub fn list_of(set: &MigrationSet, origin: &Origin, format: Format) -> String {
    let (layout, from) = (set.layout().to_string(), origin.to_string());
    let migrations =
        set.migrations().iter().zip(1..).map(|(migration, position)| ListedMigration {
            migration: &migration.name,
            position,
            file: &migration.file,
            hash: migration.hash.as_str(),
            bytes: migration.size(),
            when: migration.when,
            layout: &layout,
            from: &from,
            problem: problem(migration),
        });
    let migrations: Vec<_> = migrations.collect();
    match format {
        Format::Text => text(&migrations, &layout, &from),
        Format::Json if migrations.is_empty() => {
            json_line(&EmptySet { migrations: 0, layout: &layout, from: &from })
        }
        Format::Json => json_lines(&migrations),
    }
}

/// None in a bundle, which was checked when it was made.
fn problem(migration: &Migration) -> Option<String> {
    let reason = if migration.is_packed() { None } else { migration.unread().sql().err() };
    reason.map(|reason| format!("the file {reason}"))
}

fn text(migrations: &[ListedMigration<'_>], layout: &str, from: &str) -> String {
    let names = migrations.iter().map(|migration| migration.migration.chars().count());
    let width = names.max().unwrap_or_default();
    let title = format!("{} in {from} ({layout})", plural(migrations.len(), "migration"));
    let rows = migrations.iter().map(|listed| {
        let ListedMigration { migration, position, hash, bytes, problem, .. } = listed;
        let size = plural(*bytes, "byte");
        let problem = problem.iter().map(|problem| format!("  ({problem})")).collect::<String>();
        format!("{position:>4}  {migration:width$}  {hash}  {size:>9}{problem}")
    });
    lines([title].into_iter().chain(rows))
}
