//! How a failed migration is reported, as text and as JSON.
