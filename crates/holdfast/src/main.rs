//! To be filled.
#[allow(dead_code, reason = "wired by the daemon")]
mod clock;
#[allow(dead_code, reason = "wired by the daemon")]
mod disk;
#[allow(dead_code, reason = "wired by the daemon")]
mod journal;
#[allow(dead_code, reason = "wired by the daemon")]
mod lease;
#[allow(dead_code, reason = "wired by the daemon")]
mod sense;
#[allow(dead_code, reason = "wired by the daemon")]
mod state;
fn main() {}
