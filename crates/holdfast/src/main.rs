//! To be filled.
#[cfg_attr(not(test), expect(dead_code, reason = "wired by the daemon"))]
mod disk;
#[cfg_attr(not(test), expect(dead_code, reason = "wired by the daemon"))]
mod journal;
fn main() {}
