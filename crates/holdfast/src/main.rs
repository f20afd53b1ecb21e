//! To be filled.
#[cfg_attr(not(test), expect(dead_code, reason = "wired by the daemon"))]
mod clock;
mod disk;
#[cfg_attr(not(test), expect(dead_code, reason = "wired by the daemon"))]
mod journal;
#[cfg_attr(not(test), expect(dead_code, reason = "wired by the daemon"))]
mod lease;
#[cfg_attr(not(test), expect(dead_code, reason = "wired by the daemon"))]
mod state;
fn main() {}
