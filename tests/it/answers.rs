//! `list`, `--dry-run`, `--help`, `--version`: answers on stdout.
