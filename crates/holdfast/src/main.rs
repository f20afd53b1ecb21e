//! To be filled.
#[allow(dead_code, reason = "wired by the daemon")]
mod disk;
#[allow(dead_code, reason = "wired by the daemon")]
mod journal;
#[allow(dead_code, reason = "wired by the daemon")]
mod sense;
fn main() {}
