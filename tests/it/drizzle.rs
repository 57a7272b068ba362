//! Beside the real drizzle-orm and drizzle-kit, from npm.
