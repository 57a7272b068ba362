//! Flags, environment, files: where a run takes its settings from.
