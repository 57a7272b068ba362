//! Answers for stdout. Each is a value; text and JSON are two renderings of it, and JSON has one
//! object a line.

mod check;
mod dry_run;
mod healthcheck;
mod list;
mod status;

use std::path::Path;

use serde::Serialize;
use serde_json::json;

pub use self::check::check_of;
pub use self::dry_run::dry_run_of;
pub use self::healthcheck::healthcheck_of;
pub use self::list::list_of;
pub use self::status::status_of;

use super::{json_line, lines};
use crate::cli::config::Format;

/// The file that `new` made.
pub fn created(path: &Path, format: Format) -> String {
    let path = path.display().to_string();
    match format {
        Format::Text => lines([path]),
        Format::Json => json_line(&json!({"created": path})),
    }
}

fn json_lines<T: Serialize>(values: &[T]) -> String {
    values.iter().map(json_line).collect()
}
