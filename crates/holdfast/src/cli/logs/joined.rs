//! Which lines of a file go on what stands before them: stack traces, an oops, what PostgreSQL says to a message. It is the
//! daemon's own joining, asked only where a line may matter to it: most do not, and making a record of each costs as much as
//! all else.

use holdfast_logs::Join;
use holdfast_logs::decode::{Glance, auto};
use std::collections::VecDeque;

/// Lines that are remembered for one that may go on any of them, and that are asked about behind such a line.
const NEAR: usize = 8;
/// Bytes in which the prefix of a PostgreSQL line ends.
const PREFIX: usize = 192;
/// What a line that belongs to others may begin with.
const STARTS: [&str; 10] = [
    "Caused by: ",
    "Suppressed: ",
    "Traceback ",
    "panic: ",
    "fatal error: ",
    "goroutine ",
    "thread '",
    "note: ",
    "stack backtrace:",
    "During handling of ",
];

/// The lines near the one that is read.
#[derive(Default)]
pub struct Joined {
    before: VecDeque<Vec<u8>>,
    join: Join,
    /// So many lines are asked about still.
    asked: usize,
}

impl Joined {
    /// Whether this line goes on one before it. `text` is its message, without what stands before it.
    pub fn goes_on(&mut self, raw: &[u8], text: &str, seen: &Glance, received: i64) -> bool {
        let may = seen.message.is_none() && seen.time.is_none() || matters(text) || is_kernel(raw, seen);
        let goes_on = (may || self.asked > 0) && self.ask(raw, received);
        self.asked = if may { NEAR } else { self.asked.saturating_sub(1) };
        self.remember(raw);
        goes_on
    }

    fn ask(&mut self, raw: &[u8], received: i64) -> bool {
        if self.asked == 0 {
            self.join = Join::new();
            for line in &self.before {
                self.join.push(auto(line, received), 0);
            }
        }
        let begun = self.join.begun();
        self.join.push(auto(raw, received), 0);
        self.join.begun() == begun
    }

    fn remember(&mut self, raw: &[u8]) {
        let mut line =
            if self.before.len() < NEAR { Vec::new() } else { self.before.pop_front().unwrap_or_default() };
        line.clear();
        line.extend_from_slice(raw.trim_ascii_end());
        self.before.push_back(line);
    }

    /// Another file begins.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether a message may belong to others, by its form.
fn matters(text: &str) -> bool {
    let near = &text[..text.floor_char_boundary(PREFIX)];
    text.is_empty()
        || text.starts_with([' ', '\t'])
        || STARTS.iter().any(|start| text.starts_with(start))
        || near.contains(":  ")
}

/// Whether the kernel said it, which is joined by what its lines look like.
fn is_kernel(raw: &[u8], seen: &Glance) -> bool {
    seen.message.is_some_and(|at| raw[..at.min(raw.len())].ends_with(b"kernel: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_logs::decode::{glance, plain};

    /// Whether each of these lines goes on others: by all records, and as it is asked here.
    fn both(lines: &[&str]) -> (Vec<bool>, Vec<bool>) {
        let (mut join, mut joined) = (Join::new(), Joined::default());
        let ask = |line: &&str| {
            let begun = join.begun();
            join.push(plain(line.as_bytes(), 0), 0);
            let seen = glance(line, 0);
            let asked = joined.goes_on(line.as_bytes(), &line[seen.message.unwrap_or(0)..], &seen, 0);
            (join.begun() == begun, asked)
        };
        lines.iter().map(ask).unzip()
    }

    #[test]
    fn it_is_joined_as_the_daemon_joins_it() {
        let mixed = [
            "2026-11-23 21:19:48,123 [main] ERROR a.B - it failed",
            "java.lang.IllegalStateException: no",
            "\tat a.B.c(B.java:12)",
            "Caused by: java.io.IOException: gone",
            "\tat a.F.g(F.java:1)",
            "\t... 2 more",
            "2026-11-23 21:19:49,000 [main] INFO a.B - on",
            "2026-11-23 21:19:48.123 UTC [61] ERROR:  duplicate key",
            "2026-11-23 21:19:48.124 UTC [62] LOG:  other",
            "2026-11-23 21:19:48.125 UTC [61] DETAIL:  Key (id)=(7) already exists.",
            "2026-11-23 21:19:48.126 UTC [61] STATEMENT:  INSERT",
            "\tVALUES (7)",
            "2026-11-23 21:19:49.123 UTC [61] LOG:  next",
            "Nov 23 21:19:48 h kernel: [   11.000001] ------------[ cut here ]------------",
            "Nov 23 21:19:48 h sshd[7]: ready",
            "Nov 23 21:19:48 h kernel: [   11.000002] kernel BUG at mm/slub.c:363!",
            "Nov 23 21:19:48 h kernel: [   11.000010] Call Trace:",
            "Nov 23 21:19:48 h kernel: [   11.000015] ---[ end trace 0 ]---",
            "Nov 23 21:19:48 h kernel: [   11.000017] eth0: up",
            "Nov 23 21:19:50 h app[1]: Traceback (most recent call last):",
            "Nov 23 21:19:50 h db[2]: ready",
            "Nov 23 21:19:50 h app[1]:   File \"a.py\", line 1",
            "Nov 23 21:19:50 h db[2]: ready",
            "Nov 23 21:19:50 h app[1]: ValueError: no",
            "Nov 23 21:19:50 h app[1]: started",
            "panic: runtime error: index out of range",
            "",
            "goroutine 1 [running]:",
            "main.main()",
            "\t/tmp/x.go:8 +0x1d",
            "exit status 2",
            "thread 'main' panicked at src/main.rs:2:5:",
            "it failed",
            "note: run with `RUST_BACKTRACE=1`",
            "next",
        ];
        let (all, asked) = both(&mixed);
        assert_eq!(all, asked);
        assert!(all.iter().filter(|goes_on| **goes_on).count() > 15, "{all:?}");
        let calm: Vec<String> =
            (0..40).map(|n| format!("Nov 23 21:19:48 h app[{}]: request {n} served", n % 3)).collect();
        let calm: Vec<&str> = calm.iter().map(String::as_str).chain(mixed).collect();
        let (all, asked) = both(&calm);
        assert_eq!(all, asked);
    }
}
