//! Waiting for the database, and refusals that end at once.
