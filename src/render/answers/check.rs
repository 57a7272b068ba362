use serde::Serialize;
use serde_json::json;

use super::json_lines;
use crate::cli::config::{Format, Style};
use crate::commands::check::{CheckReport, Finding};
use crate::effects::{Patch, TableSize};
use crate::migrations::rule::{Rule, Severity};
use crate::render::color::{Color, paint};
use crate::render::{json_line, one_line, place_text, plural, size_text};

/// A finding in JSON.
#[derive(Serialize)]
pub(super) struct ReportedFinding<'a> {
    severity: Severity,
    can_block: bool,
    #[serde(flatten)]
    finding: &'a Finding,
}

impl ReportedFinding<'_> {
    pub(super) fn new(finding: &Finding) -> ReportedFinding<'_> {
        ReportedFinding { severity: finding.severity(), can_block: finding.can_block(), finding }
    }
}

pub fn check_of(report: &CheckReport, style: impl Into<Style>) -> String {
    let Style { format, is_colored } = style.into();
    match format {
        Format::Text => text(report, is_colored),
        Format::Json => json(report),
    }
}

fn json(report: &CheckReport) -> String {
    let findings: Vec<_> = report.findings.iter().map(ReportedFinding::new).collect();
    let summary = json!({
        "migrations": report.migrations,
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "blocking": report.count_blocking(),
        "notes": report.count(Severity::Note),
        "ignored": report.ignored,
        "pending": report.pending,
    });
    json_lines(&findings) + &json_line(&summary)
}

fn text(report: &CheckReport, is_colored: bool) -> String {
    let findings = report.findings.iter().map(|finding| finding_text(finding, is_colored));
    let mut findings: Vec<_> = findings.collect();
    let mut migrations = plural(report.migrations, "migration");
    if let Some(pending) = report.pending {
        migrations.push_str(&format!(" ({pending} pending)"));
    }
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
    let Finding { file, position, patch, .. } = finding;
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
    let message = one_line(&finding_message(finding));
    let patch = patch_lines(patch.as_ref());
    match file {
        Some(file) => format!("{}: {severity} {message}{patch}", place_text(file, *position)),
        None => format!("{severity} {message}{patch}"),
    }
}

/// The sentence of a finding, with the size of its table, and its rule.
pub(super) fn finding_message(finding: &Finding) -> String {
    message_text(&finding.message, finding.size.as_ref(), finding.rule)
}

pub fn message_text(message: &str, size: Option<&TableSize>, rule: Rule) -> String {
    let size = size.map(|size| format!(". {}", size_text(size))).unwrap_or_default();
    format!("{message}{size} [{rule}]")
}

/// SQL below a sentence.
pub fn patch_lines(patch: Option<&Patch>) -> String {
    let patch = patch.map(Patch::to_string).unwrap_or_default();
    patch.lines().map(|line| format!("\n    {}", one_line(line))).collect()
}
