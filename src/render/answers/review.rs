//! The findings of `check` for tools that show each at its line.

use std::path::Path;

use serde::Serialize;

use super::check::finding_message;

use crate::cli::config::ReviewFormat;
use crate::commands::check::{CheckReport, Finding};
use crate::migrations::rule::{Rule, Severity};
use crate::render::json_line;
use crate::sql::LineColumn;

/// `dir` is where the files are, as the command line names it.
pub fn review_of(report: &CheckReport, format: ReviewFormat, dir: Option<&Path>) -> String {
    match format {
        ReviewFormat::Sarif => sarif(report, dir),
        ReviewFormat::Github => {
            report.findings.iter().map(|finding| github(finding, dir)).collect()
        }
    }
}

/// The file's path for someone who stands where the command runs.
fn path(finding: &Finding, dir: Option<&Path>) -> Option<String> {
    let file = finding.file.as_ref()?;
    let path = dir.map(|dir| dir.join(file).display().to_string());
    let path = path.unwrap_or_else(|| file.clone());
    Some(path.strip_prefix("./").map_or(path.clone(), str::to_owned))
}

/// With the SQL that does less, if there is such SQL.
fn message(finding: &Finding) -> String {
    let patch = finding.patch.as_ref().map(|patch| format!("\n\n{patch}")).unwrap_or_default();
    finding_message(finding) + &patch
}

/// A command of GitHub Actions, which must be one line.
fn github(finding: &Finding, dir: Option<&Path>) -> String {
    let command = match finding.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut properties = Vec::new();
    if let Some(path) = path(finding, dir) {
        properties.push(format!("file={}", property(&path)));
    }
    if let Some(position) = finding.position {
        properties.push(format!("line={},col={}", position.line, position.column));
    }
    properties.push(format!("title={}", finding.rule));
    format!("::{command} {}::{}\n", properties.join(","), data(&message(finding)))
}

fn sarif(report: &CheckReport, dir: Option<&Path>) -> String {
    let mut rules: Vec<Rule> = Vec::new();
    let mut results = Vec::new();
    for finding in &report.findings {
        let known = rules.iter().position(|rule| *rule == finding.rule);
        let rule_index = known.unwrap_or(rules.len());
        if known.is_none() {
            rules.push(finding.rule);
        }
        let location = path(finding, dir).map(|path| Location {
            physical_location: PhysicalLocation {
                artifact_location: ArtifactLocation { uri: uri(&path) },
                region: finding.position.map(|LineColumn { line, column }| Region {
                    start_line: line,
                    start_column: column,
                }),
            },
        });
        results.push(SarifResult {
            rule_id: finding.rule,
            rule_index,
            level: finding.severity(),
            message: Message { text: message(finding) },
            locations: location.into_iter().collect(),
        });
    }
    let rules = rules.into_iter().map(|rule| ReportingDescriptor {
        id: rule,
        short_description: Message { text: rule.sentence().to_owned() },
        help: Message { text: format!("docs/rules.md#{}", section(rule)) },
        default_configuration: Configuration { level: rule.severity() },
    });
    let driver = ToolComponent {
        name: "premigrate",
        version: env!("CARGO_PKG_VERSION"),
        rules: rules.collect(),
    };
    json_line(&Log {
        schema: "https://json.schemastore.org/sarif-2.1.0.json",
        version: "2.1.0",
        runs: [Run { tool: Tool { driver }, column_kind: "unicodeCodePoints", results }],
    })
}

/// The objects of SARIF 2.1.0 that are used, by their names there. An error, a warning and a note are called the
/// same there.
#[derive(Serialize)]
struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    column_kind: &'static str,
    results: Vec<SarifResult>,
}

#[derive(Serialize)]
struct Tool {
    driver: ToolComponent,
}

#[derive(Serialize)]
struct ToolComponent {
    name: &'static str,
    version: &'static str,
    rules: Vec<ReportingDescriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportingDescriptor {
    id: Rule,
    short_description: Message,
    help: Message,
    default_configuration: Configuration,
}

#[derive(Serialize)]
struct Configuration {
    level: Severity,
}

#[derive(Serialize)]
struct Message {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifResult {
    rule_id: Rule,
    rule_index: usize,
    level: Severity,
    message: Message,
    locations: Vec<Location>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
    start_column: usize,
}

/// The section of docs/rules.md that has the rule.
fn section(rule: Rule) -> &'static str {
    if rule.is_about_effects() { rule.name() } else { "the-rules" }
}

/// A path as a relative reference.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
