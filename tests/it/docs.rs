//! README, `--help`, exit codes and changelog say the same.
