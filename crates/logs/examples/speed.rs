//! What one line costs: `cargo run --release -p holdfast-logs --example speed`.
//!
//! Prints nanoseconds a line, cleaning included, for ordinary lines, a finding, and a line made to hurt.

use holdfast_logs::{Rules, clean};
use std::hint::black_box;
use std::time::Instant;

const LINES: [(&str, &[u8]); 4] = [
    (
        "kernel",
        b"[    1.012345] EXT4-fs (vda): mounted filesystem with ordered data mode. Quota mode: none.\r\n",
    ),
    ("database", b"pg 2026-11-23 21:19:49.000 UTC [61] LOG:  checkpoint complete: wrote 3 buffers (0.0%)\n"),
    (
        "coloured",
        b"[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mapt-daily.timer\x1b[0m - Daily apt activities.\r\n",
    ),
    ("finding", b"[   61.000123] Kernel panic - not syncing: sysrq triggered crash\n"),
];

fn main() {
    let started = Instant::now();
    let rules = Rules::standard();
    println!("{:<10} {:>8} us, once", "build", started.elapsed().as_micros());
    for (name, line) in LINES {
        time(rules, name, line, 1_000_000);
    }
    let hostile: String =
        rules.iter().map(|rule| rule.means).collect::<Vec<_>>().join("[ 1.0] BUG: EXT4-fs LOG:  ");
    time(rules, "hostile", hostile.as_bytes(), 50_000);
}

fn time(rules: &Rules, name: &str, line: &[u8], times: u32) {
    let started = Instant::now();
    for _ in 0..times {
        black_box(rules.find(&clean(black_box(line))));
    }
    let each = started.elapsed().as_nanos() / u128::from(times);
    println!("{name:<10} {each:>8} ns for {} bytes", line.len());
}
