//! The text of a history that does not match the migrations.

use std::fmt::Write as _;

use crate::cli::args::{CommandName, Commands, shell_word};
use crate::history::plan::{EditedMigration, HistoryMismatch};
use crate::migrations::source::JOURNAL;

use super::{is_or_are, list, one_line, plural};

pub fn text(mismatch: &HistoryMismatch, nothing_ran: &str, commands: &Commands) -> String {
    let baseline = |name| commands.line(CommandName::Baseline, &format!("--through {name}"));
    match mismatch {
        HistoryMismatch::Edited { migrations } => edited_text(migrations, nothing_ran, commands),
        HistoryMismatch::Ambiguous { rows, migrations } => format!(
            "ambiguous history: {} could record {}; {nothing_ran}. Restore the files as they \
             were applied, and give each new migration its own timestamp and content",
            rows.join(", "),
            migrations.join(" or ")
        ),
        HistoryMismatch::NothingMatches { row_count, migration_count } => format!(
            "no row of the history matches a migration ({}, {}); {nothing_ran}. Check that the \
             database, --dir and --table are right. If the migrations were squashed, run \
             `{}`, where NAME is the last one whose changes the database has. To run them all, set \
             --apply-older",
            plural(*row_count, "row"),
            plural(*migration_count, "migration"),
            baseline("NAME")
        ),
        HistoryMismatch::OlderThanHistory { migrations, first_applied } => {
            let last = migrations.last().map(String::as_str).unwrap_or_default();
            let them = if migrations.len() == 1 { "it" } else { "them" };
            format!(
                "{} {} older than {first_applied}, the first migration in the history; \
                 {nothing_ran}. Run `{}` to record {them} as applied, \
                 or set --apply-older to run {them}",
                migrations.join(", "),
                is_or_are(migrations.len()),
                baseline(&shell_word(last))
            )
        }
        HistoryMismatch::PossiblyApplied { migrations, rows } => format!(
            "{} may be applied already: {} may record an earlier version; {nothing_ran}. Run \
             `{}` for a migration that was applied; you can then delete its old \
             row. To run all pending migrations, set --apply-older",
            migrations.join(" or "),
            rows.join(" or "),
            commands.line(CommandName::Accept, "NAME")
        ),
        HistoryMismatch::NotUpgradable { rows } => format!(
            "the history table has the columns of Drizzle 0.x and cannot be upgraded: some rows match no \
             migration ({}); {nothing_ran}. Check that the database, --dir and --table are right. \
             Restore the migrations of these rows. If they were squashed or replaced, delete the \
             rows, and record what replaces them with `{}`",
            rows.join(", "),
            baseline("NAME")
        ),
        HistoryMismatch::Strict { migrations, rows, files } => {
            strict_text(migrations, rows, files, nothing_ran)
        }
    }
}

fn strict_text(
    migrations: &[String],
    rows: &[String],
    files: &[String],
    nothing_ran: &str,
) -> String {
    let (mut reasons, mut cures) = (Vec::new(), Vec::new());
    if !migrations.is_empty() {
        let verb = is_or_are(migrations.len());
        reasons.push(format!("{} {verb} out of order", migrations.join(", ")));
        cures.push("Generate the out-of-order migrations again, so that they come after the last applied one");
    }
    if !rows.is_empty() {
        let verb = if rows.len() == 1 { "matches" } else { "match" };
        reasons.push(format!("{} {verb} no migration", rows.join(", ")));
        cures.push("Use the version of the app that has the migrations of these rows");
    }
    if !files.is_empty() {
        reasons.push(format!("{JOURNAL} does not list {}", files.join(", ")));
        cures.push("Remove the files, or add them to the journal");
    }
    format!(
        "refused by --strict: {}; {nothing_ran}. {}. Or start without --strict",
        reasons.join("; "),
        cures.join(". ")
    )
}

fn edited_text(migrations: &[EditedMigration], nothing_ran: &str, commands: &Commands) -> String {
    let mut text = list(
        &format!("migrations were edited after they were applied; {nothing_ran}:"),
        migrations.iter().map(|edited| {
            format!(
                "{}\n      applied  {}\n      now      {}",
                one_line(&edited.file),
                one_line(&edited.recorded_hash),
                edited.current_hash
            )
        }),
    );
    let names: Vec<_> = migrations.iter().map(|edited| edited.migration.as_str()).collect();
    let words: Vec<_> = names.iter().map(|name| shell_word(name)).collect();
    let _ = write!(
        text,
        "\n\n  Restore the files, and make the change in a new migration. If the database already \
         matches\n  the edited files, run `{}`",
        one_line(&commands.line(CommandName::Accept, &words.join(" ")))
    );
    // In the variable, a comma ends a name, and blanks around a name do not count.
    let is_plain = |name: &str| !name.contains(|c: char| c == ',' || c.is_control());
    if names.iter().all(|name| is_plain(name) && name.trim() == *name) {
        let _ = write!(text, ", or set PREMIGRATE_ACCEPT={}", names.join(","));
    }
    text
}
