//! The report as Markdown, for a comment on a pull request.

use crate::apply::rehearse::report::{RehearsedMigration, Report};

use super::{HEADINGS, NOTHING, cells, is_told, remarks, summary, title};

pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for migration in &report.migrations {
        text.push_str(&migration_text(migration));
    }
    for line in summary(report) {
        text.push_str(&escaped(&line));
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn migration_text(migration: &RehearsedMigration) -> String {
    let mut text = format!("### {}\n\n", escaped(&title(migration)));
    let tables: Vec<_> = migration.tables.iter().filter(|table| is_told(table)).collect();
    if tables.is_empty() {
        text.push_str(&format!("It {NOTHING}.\n\n"));
    } else {
        text.push_str(&row(&HEADINGS.map(str::to_owned)));
        text.push_str(&row(&HEADINGS.map(|_| "---".to_owned())));
        for table in tables {
            text.push_str(&row(&cells(table).map(|cell| escaped(&cell))));
        }
        text.push('\n');
    }
    let created = Some(&migration.created).filter(|created| !created.is_empty());
    let created = created.map(|created| format!("new: {}", created.join(", ")));
    let remarks: Vec<_> = created.into_iter().chain(remarks(migration)).collect();
    for remark in &remarks {
        text.push_str(&format!("- {}\n", escaped(remark)));
    }
    if !remarks.is_empty() {
        text.push('\n');
    }
    text
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Text in which nothing is a mark of Markdown, nor of the HTML that it may contain.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in crate::render::one_line(text).chars() {
        if "\\`*_[]<>|#~&".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
