use serde::Serialize;
use serde_json::json;

use super::json_lines;
use crate::cli::config::{Format, Style};
use crate::commands::check::{CheckReport, Finding};
use crate::migrations::rule::Severity;
use crate::render::color::{Color, paint};
use crate::render::{json_line, one_line, place_text, plural};

/// A finding in JSON.
#[derive(Serialize)]
struct ReportedFinding<'a> {
    severity: Severity,
    #[serde(flatten)]
    finding: &'a Finding,
}

pub fn check_of(report: &CheckReport, style: impl Into<Style>) -> String {
    let Style { format, is_colored } = style.into();
    match format {
        Format::Text => text(report, is_colored),
        Format::Json => json(report),
    }
}

fn json(report: &CheckReport) -> String {
    let findings = report
        .findings
        .iter()
        .map(|finding| ReportedFinding { severity: finding.severity(), finding });
    let findings: Vec<_> = findings.collect();
    let summary = json!({
        "migrations": report.migrations,
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "ignored": report.ignored,
    });
    json_lines(&findings) + &json_line(&summary)
}

fn text(report: &CheckReport, is_colored: bool) -> String {
    let findings = report.findings.iter().map(|finding| finding_text(finding, is_colored));
    let mut findings: Vec<_> = findings.collect();
    let migrations = plural(report.migrations, "migration");
    let counts =
        [Severity::Error, Severity::Warning].map(|severity| (severity, report.count(severity)));
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(severity, count)| plural(count, severity.as_str())).collect();
    let ignored = match report.ignored {
        0 => String::new(),
        count => format!(", {count} ignored"),
    };
    match counts.is_empty() {
        true => findings.push(format!("{migrations}, no problems found{ignored}")),
        false => {
            let summary = format!("{} in {migrations}{ignored}", counts.join(", "));
            findings.extend([String::new(), summary]);
        }
    }
    findings.into_iter().map(|line| line + "\n").collect()
}

pub fn finding_text(finding: &Finding, is_colored: bool) -> String {
    let Finding { file, position, rule, message } = finding;
    let color = match finding.severity() {
        Severity::Error => Color::Red,
        Severity::Warning => Color::Yellow,
    };
    let severity = paint(&format!("{}:", finding.severity().as_str()), color, is_colored);
    let message = one_line(&format!("{message} [{rule}]"));
    match file {
        Some(file) => format!("{}: {severity} {message}", place_text(file, *position)),
        None => format!("{severity} {message}"),
    }
}
