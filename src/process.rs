//! The process that premigrate is: the signals it gets, what it prints, and the app that it becomes.

pub mod exec;
pub mod printer;
pub mod signals;
