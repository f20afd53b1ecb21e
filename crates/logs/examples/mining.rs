//! Patterns of a million mixed lines from memory, on one thread, beside the crate `logdrain` (Drain in Rust):
//! `cargo run --release -p holdfast-logs --example mining FOLDER [LINES]`.
//!
//! FOLDER has the lines: all files `messages.txt` below it, taken in turn, line by line, again and again.
//! Prints lines a second (the best of three rounds), patterns, and how much the memory of the process grew.

use holdfast_logs::{Miner, clean};
use logdrain::builtin_masks::{email, hex32, ipv4, jwt, uuid};
use std::path::{Path, PathBuf};
use std::time::Instant;

const ROUNDS: usize = 3;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("usage: mining FOLDER [LINES]");
    let count = arguments.next().map_or(1_000_000, |count| count.parse().expect("LINES is a number"));
    let lines = mixed(Path::new(&folder), count);
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    println!("{} lines, {:.1} MiB, one thread, best of {ROUNDS}", lines.len(), mib(bytes));
    println!("{:<10} {:>12} {:>8} {:>9} {:>14}", "", "lines/s", "MiB/s", "patterns", "memory MiB");
    let ours = || {
        let mut miner = Miner::default();
        for line in &lines {
            miner.add(&clean(line));
        }
        miner.view().groups().len()
    };
    measure("holdfast", lines.len(), bytes, ours);
    let theirs = || {
        let masks = vec![uuid(), hex32(), email(), ipv4(), jwt()];
        let miner = logdrain::Miner::builder().masks(masks).build().expect("the defaults are valid");
        for line in &lines {
            miner.add(&String::from_utf8_lossy(line));
        }
        miner.len()
    };
    measure("logdrain", lines.len(), bytes, theirs);
}

fn measure(name: &str, lines: usize, bytes: usize, mut run: impl FnMut() -> usize) {
    let before = resident("VmRSS:");
    let mut patterns = 0;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        patterns = run();
        best = best.min(started.elapsed().as_secs_f64());
    }
    let grown = resident("VmHWM:").saturating_sub(before) as f64 / 1024.0;
    let (pace, flow) = (lines as f64 / best, mib(bytes) / best);
    println!("{name:<10} {pace:>12.0} {flow:>8.1} {patterns:>9} {grown:>14.1}");
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What the kernel says of this process, in KiB: how much it has, and how much it had at most.
fn resident(row: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found =
        status.lines().find_map(|line| line.strip_prefix(row)?.split_whitespace().next()?.parse().ok());
    found.unwrap_or_default()
}

fn mixed(folder: &Path, count: usize) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    find(folder, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| std::fs::read(path).expect("a file that was just found");
    let files: Vec<Vec<u8>> = paths.iter().map(read).collect();
    let lines: Vec<Vec<&[u8]>> =
        files.iter().map(|file| file.split(|byte| *byte == b'\n').collect()).collect();
    assert!(!lines.is_empty(), "no messages.txt below {}", folder.display());
    let mut mixed = Vec::with_capacity(count);
    let mut round = 0;
    while mixed.len() < count {
        mixed.extend(lines.iter().map(|file| file[round % file.len()].to_vec()));
        round += 1;
    }
    mixed.truncate(count);
    mixed
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, found);
        } else if path.file_name().is_some_and(|name| name == "messages.txt") {
            found.push(path);
        }
    }
}
