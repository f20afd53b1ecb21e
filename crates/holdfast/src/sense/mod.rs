//! The world becomes signals: what is watched, and how.
//!
//! Everything here looks and tells; nothing here judges or acts. What a guest, a server or a log says is
//! bounded, escaped and otherwise only counted (I17, I18), and our own trouble (no file descriptor left,
//! a wrong setting) is never told as the trouble of what we watch (I10).

mod closer;
pub mod console;
pub mod convert;
mod findings;
pub mod host;
pub mod lag;
pub mod logs;
mod lying;
pub mod network;
pub mod numbers;
mod own;
pub mod probe;
pub mod program;
mod tail;
mod wake;
mod watch;

pub use convert::resolve;
pub use findings::kind as finding_kind;
pub use watch::Watching;

use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor whose readiness to be read can be waited for.
#[expect(deprecated, reason = "an owned descriptor keeps the promise that the unsafe successor asks for")]
fn awaited(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..8 {
        let Some(error) = cause else { break };
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
