//! Connections that break, locks that do not come, and how many round trips it takes.
