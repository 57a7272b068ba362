//! Answers for stdout. Each is a value; text and JSON are two renderings of it, and JSON has one
//! object a line.

mod check;
mod dry_run;
mod healthcheck;
mod list;
mod rehearse;
mod review;
mod status;

use std::path::Path;

use serde::Serialize;

pub use self::check::{check_of, finding_text, message_text, patch_lines};
pub use self::dry_run::dry_run_of;
pub use self::healthcheck::healthcheck_of;
pub use self::list::list_of;
pub use self::rehearse::{html, markdown, rehearsal_of, svg};
pub use self::review::review_of;
pub use self::status::status_of;

use super::{json_line, lines, list, plural};
use crate::cli::config::Format;
use crate::commands::bundle::Bundle;
use crate::migrations::migration::{Hash, MigrationSet};
use crate::migrations::source::{MigrationFolder, Origin};

/// The file that `new` made.
pub fn created(path: &Path, format: Format) -> String {
    let path = path.display().to_string();
    match format {
        Format::Text => lines([path]),
        Format::Json => {
            #[derive(Serialize)]
            struct Created {
                created: String,
            }
            json_line(&Created { created: path })
        }
    }
}

/// What this executable carries, for `--version`.
pub fn carried(origin: &Origin, folder: &MigrationFolder) -> String {
    let bundled = match origin {
        Origin::Bundled { from } => format!(", bundled from {from}"),
        Origin::Embedded | Origin::Folder(_) => String::new(),
    };
    let digest = folder.digest();
    lines([match MigrationSet::from_folder(folder) {
        Ok(set) => {
            let count = plural(set.migrations().len(), "migration");
            format!("{count} ({}){bundled}, SHA-256 {digest}", set.layout())
        }
        Err(_) => format!("invalid migrations{bundled}; see `premigrate check`"),
    }])
}

/// The file that `bundle` made.
pub fn bundled(bundle: &Bundle, format: Format) -> String {
    let Bundle { path, migrations, layout, from, digest, bytes, errors } = bundle;
    let path = path.display().to_string();
    match format {
        Format::Text => {
            let line = format!(
                "{path}: {} from {from} ({layout}), {bytes} bytes; SHA-256 of the files {digest}",
                plural(*migrations, "migration")
            );
            if errors.is_empty() {
                return lines([line]);
            }
            let title = "Migrations with errors do not run where they are still pending:";
            let findings = errors.iter().map(|finding| finding_text(finding, false));
            format!("{}{}\n", lines([line]), list(title, findings))
        }
        Format::Json => {
            #[derive(Serialize)]
            struct Bundled<'a> {
                bundled: String,
                migrations: usize,
                layout: String,
                from: &'a str,
                digest: &'a Hash,
                bytes: u64,
                errors: usize,
            }
            json_line(&Bundled {
                bundled: path,
                migrations: *migrations,
                layout: layout.to_string(),
                from,
                digest,
                bytes: *bytes,
                errors: errors.len(),
            })
        }
    }
}

fn json_lines<T: Serialize>(values: &[T]) -> String {
    values.iter().map(json_line).collect()
}
