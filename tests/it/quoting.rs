//! Identifiers and literals, against the server's own quoting.
