//! The findings of `check` for tools that show each at its line.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::config::ReviewFormat;
use crate::commands::check::{CheckReport, Finding};
use crate::migrations::rule::{Rule, Severity};

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
    let Finding { message, rule, patch, .. } = finding;
    let patch = patch.as_ref().map(|patch| format!("\n\n{patch}")).unwrap_or_default();
    format!("{message} [{rule}]{patch}")
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
    for finding in &report.findings {
        if !rules.contains(&finding.rule) {
            rules.push(finding.rule);
        }
    }
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let region = finding.position.map(
                |position| json!({"startLine": position.line, "startColumn": position.column}),
            );
            let location = path(finding, dir).map(|path| {
                let mut place = json!({"artifactLocation": {"uri": uri(&path)}});
                if let (Some(place), Some(region)) = (place.as_object_mut(), region) {
                    place.insert("region".to_owned(), region);
                }
                json!({"physicalLocation": place})
            });
            json!({
                "ruleId": finding.rule.name(),
                "ruleIndex": rules.iter().position(|rule| *rule == finding.rule),
                "level": finding.severity().as_str(),
                "message": {"text": message(finding)},
                "locations": location.into_iter().collect::<Vec<_>>(),
            })
        })
        .collect();
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|rule| {
            json!({
                "id": rule.name(),
                "shortDescription": {"text": rule.sentence()},
                "help": {"text": format!("docs/rules.md#{}", section(rule))},
                "defaultConfiguration": {"level": rule.severity().as_str()},
            })
        })
        .collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "premigrate",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    log.to_string() + "\n"
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
