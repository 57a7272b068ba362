use serde::Serialize;
use serde_json::json;

use super::json_lines;
use crate::cli::config::{Format, Style};
use crate::commands::check::{CheckReport, Finding};
use crate::effects::Patch;
use crate::migrations::rule::Severity;
use crate::render::color::{Color, paint};
use crate::render::{json_line, one_line, place_text, plural};

/// A finding in JSON.
#[derive(Serialize)]
struct ReportedFinding<'a> {
    severity: Severity,
    can_block: bool,
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
    let findings = report.findings.iter().map(|finding| ReportedFinding {
        severity: finding.severity(),
        can_block: finding.rule.can_block(),
        finding,
    });
    let findings: Vec<_> = findings.collect();
    let summary = json!({
        "migrations": report.migrations,
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "blocking": report.count_blocking(),
        "notes": report.count(Severity::Note),
        "ignored": report.ignored,
    });
    json_lines(&findings) + &json_line(&summary)
}

fn text(report: &CheckReport, is_colored: bool) -> String {
    let findings = report.findings.iter().map(|finding| finding_text(finding, is_colored));
    let mut findings: Vec<_> = findings.collect();
    let migrations = plural(report.migrations, "migration");
    let counts = [Severity::Error, Severity::Warning, Severity::Note]
        .map(|severity| (severity, report.count(severity)));
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let counts = counts.map(|(severity, count)| {
        let blocking = match (severity, report.count_blocking()) {
            (Severity::Warning, blocking) if blocking == count => " that can block".to_owned(),
            (Severity::Warning, blocking) if blocking > 0 => format!(" ({blocking} can block)"),
            _ => String::new(),
        };
        plural(count, severity.as_str()) + &blocking
    });
    let counts: Vec<_> = counts.collect();
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
    let Finding { file, position, rule, message, patch, .. } = finding;
    let color = match finding.severity() {
        Severity::Error => Some(Color::Red),
        Severity::Warning => Some(Color::Yellow),
        Severity::Note => None,
    };
    let severity = format!("{}:", finding.severity().as_str());
    let severity = match color {
        Some(color) => paint(&severity, color, is_colored),
        None => severity,
    };
    let message = one_line(&format!("{message} [{rule}]"));
    let patch = patch.as_ref().map(Patch::to_string).unwrap_or_default();
    let patch: String = patch.lines().map(|line| format!("\n    {}", one_line(line))).collect();
    match file {
        Some(file) => format!("{}: {severity} {message}{patch}", place_text(file, *position)),
        None => format!("{severity} {message}{patch}"),
    }
}
