//! An S3 server for tests, in no program: the crate `s3s` speaks the protocol and checks signatures, `s3s-fs` keeps objects in a
//! folder, and a thin layer of our own makes a conditional put one step, which `s3s-fs` does not, and lets the server have the
//! bad habits that others have ([`Habit`]).
//!
//! It is a thread ([`Server`]) or, where it is to be killed, a process ([`Process`]): the test's own program, started again.

mod process;
mod service;

pub use process::{Process, serve_if_asked};
pub use service::{Habit, Server};

/// Who may ask.
pub const KEY: &str = "tester";
/// What it signs with.
pub const SECRET: &str = "correct-horse-battery-staple";
/// The bucket that is there.
pub const BUCKET: &str = "backups";
