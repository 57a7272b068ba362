//! Becoming the app.
