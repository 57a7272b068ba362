//! Several runners at once: each migration is applied once.
