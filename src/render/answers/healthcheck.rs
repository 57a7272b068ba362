use crate::cli::config::Format;
use crate::commands::healthcheck::Health;
use crate::render::{json_line, lines};

pub fn healthcheck_of(health: &Health, format: Format) -> String {
    let word = if health.healthy { "healthy" } else { "unhealthy" };
    match format {
        Format::Text => lines([format!("{word}: {}", health.reason)]),
        Format::Json => json_line(health),
    }
}
