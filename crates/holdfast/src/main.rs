//! To be filled.
#[allow(dead_code, reason = "the commands are wired later")]
mod cli;
#[allow(dead_code, reason = "the commands that use it are wired later")]
mod config;
#[allow(dead_code, reason = "wired by the daemon")]
mod sense;
fn main() {}
