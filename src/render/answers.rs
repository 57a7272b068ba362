//! Answers for stdout. Each is a value; text and JSON are two renderings of it, and JSON has one
//! object a line.

mod check;
mod dry_run;
mod list;
mod status;

use std::path::PathBuf;

use serde::Serialize;

pub use self::check::check_of;
pub use self::dry_run::dry_run_of;
pub use self::list::list_of;
pub use self::status::status_of;

use super::{clean, json_line};
use crate::cli::config::Format;

/// A file that `new` made.
#[derive(Serialize)]
struct CreatedFile {
    /// Its path.
    created: String,
}

pub fn created(paths: &[PathBuf], format: Format) -> String {
    let files = paths.iter().map(|path| CreatedFile { created: path.display().to_string() });
    match format {
        Format::Text => files.map(|file| format!("{}\n", clean(&file.created))).collect(),
        Format::Json => files.map(|file| json_line(&file)).collect(),
    }
}

fn json_lines<T: Serialize>(values: &[T]) -> String {
    values.iter().map(json_line).collect()
}
