use std::fmt::Write as _;

use serde::Serialize;

use super::json_lines;
use crate::cli::config::Format;
use crate::commands::check::{CheckReport, Finding, Severity};
use crate::render::{clean, json_line, plural};

/// What JSON shows where there is no finding.
#[derive(Serialize)]
struct NoFindings {
    /// How many there are.
    migrations: usize,
    /// 0.
    errors: usize,
    /// 0.
    warnings: usize,
}

pub fn check_of(report: &CheckReport, format: Format) -> String {
    match format {
        Format::Text => text(report),
        Format::Json if report.findings.is_empty() => {
            json_line(&NoFindings { migrations: report.migrations, errors: 0, warnings: 0 })
        }
        Format::Json => json_lines(&report.findings),
    }
}

fn text(report: &CheckReport) -> String {
    let mut text: String = report.findings.iter().map(finding_text).collect();
    let migrations = plural(report.migrations, "migration");
    let counts =
        [Severity::Error, Severity::Warning].map(|severity| (severity, report.count(severity)));
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(severity, count)| plural(count, severity.as_str())).collect();
    let _ = match counts.is_empty() {
        true => writeln!(text, "{migrations}, no problems found"),
        false => writeln!(text, "\n{} in {migrations}", counts.join(", ")),
    };
    clean(&text)
}

fn finding_text(finding: &Finding) -> String {
    let Finding { severity, file, line, column, message, .. } = finding;
    let mut text = String::new();
    if let Some(file) = file {
        text.push_str(file);
        if let (Some(line), Some(column)) = (line, column) {
            let _ = write!(text, ":{line}:{column}");
        }
        text.push_str(": ");
    }
    let _ = writeln!(text, "{}: {message}", severity.as_str());
    text
}
