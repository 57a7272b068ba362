use std::fmt::Write as _;

use serde_json::json;

use super::json_lines;
use crate::cli::config::Format;
use crate::commands::check::{CheckReport, Finding, Severity};
use crate::render::{clean, json_line, place_text, plural};

pub fn check_of(report: &CheckReport, format: Format) -> String {
    match format {
        Format::Text => text(report),
        Format::Json if report.findings.is_empty() => {
            json_line(&json!({"migrations": report.migrations, "errors": 0, "warnings": 0}))
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
    let Finding { severity, file, position, message, .. } = finding;
    let severity = severity.as_str();
    match file {
        Some(file) => format!("{}: {severity}: {message}\n", place_text(file, *position)),
        None => format!("{severity}: {message}\n"),
    }
}
