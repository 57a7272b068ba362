use crate::cli::config::Format;
use crate::commands::healthcheck::Verdict;
use crate::render::{json_line, lines};

pub fn healthcheck_of(verdict: &Verdict, format: Format) -> String {
    let word = if verdict.healthy { "healthy" } else { "unhealthy" };
    match format {
        Format::Text => lines([format!("{word}: {}", verdict.reason)]),
        Format::Json => json_line(verdict),
    }
}
