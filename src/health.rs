//! What a run tells over HTTP while it lasts, for `--health`. Nothing of it is left in the app.
//!
//! - `state` is what there is to tell, and follows from the events. Pure.
//! - `page` is the answer to a request. Pure. `server` is the thread that listens and answers.

mod page;
mod server;
mod state;
#[cfg(test)]
mod tests;

pub use self::server::Health;
