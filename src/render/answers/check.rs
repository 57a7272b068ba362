use serde_json::json;

use super::json_lines;
use crate::cli::config::Format;
use crate::commands::check::{CheckReport, Finding, Severity};
use crate::render::{json_line, lines, place_text, plural};

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
    let mut findings: Vec<_> = report.findings.iter().map(finding_text).collect();
    let migrations = plural(report.migrations, "migration");
    let counts =
        [Severity::Error, Severity::Warning].map(|severity| (severity, report.count(severity)));
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(severity, count)| plural(count, severity.as_str())).collect();
    match counts.is_empty() {
        true => findings.push(format!("{migrations}, no problems found")),
        false => findings.extend([String::new(), format!("{} in {migrations}", counts.join(", "))]),
    }
    lines(findings)
}

fn finding_text(finding: &Finding) -> String {
    let Finding { severity, file, position, message, .. } = finding;
    let severity = severity.as_str();
    match file {
        Some(file) => format!("{}: {severity}: {message}", place_text(file, *position)),
        None => format!("{severity}: {message}"),
    }
}
