//! Chooses the folder that is embedded, and has cargo look at it again when a file comes or goes.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-env-changed=PREMIGRATE_MIGRATIONS");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let chosen = env::var("PREMIGRATE_MIGRATIONS").unwrap_or_else(|_| "migrations".to_owned());

    let folder = if chosen == "none" {
        let empty = out.join("none");
        fs::create_dir_all(&empty).map_err(|error| format!("{}: {error}", empty.display()))?;
        empty
    } else {
        Path::new(&chosen).canonicalize().map_err(|error| {
            format!(
                "PREMIGRATE_MIGRATIONS: the folder `{chosen}` cannot be read ({error}); name the \
                 migrations folder to embed, as seen from Cargo.toml, or `none`"
            )
        })?
    };
    println!("cargo:rerun-if-changed={}", folder.display());
    // cargo gives these to the tests too, where a PREMIGRATE_* that is unknown would be refused.
    println!("cargo:rustc-env=EMBEDDED_MIGRATIONS={}", folder.display());
    // Snapshots are not embedded, and yet they tell that a journal is missing.
    println!("cargo:rustc-env=EMBEDDED_META={}", folder.join("meta").is_dir());
    Ok(())
}
