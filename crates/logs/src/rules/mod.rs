//! Known lines, as data: one file a family. A rule is a row that a person can read and argue with.
//!
//! Every row carries a line that it must find and, where useful, lines that it must not find; the tests
//! below hold all rows to both, and to being found first among all rows.

mod boot;
mod linux;
mod mysql;
mod postgres;
mod redis;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use std::sync::LazyLock;

/// Bytes at the start of a line in which a finding must show itself: what follows in a long line is data
/// of whoever caused it (a query, a path), and not worth the time.
pub const LOOKED_AT: usize = 1_024;

/// What a known line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The kernel stopped itself.
    KernelPanic,
    /// The kernel met a bug but goes on.
    KernelOops,
    /// A task or processor has not moved for long.
    HungTask,
    /// The kernel killed a process for want of memory.
    OutOfMemory,
    /// A file system reports damage.
    FsError,
    /// A file system was switched to read-only.
    FsReadOnly,
    /// A disk request failed.
    DiskIoError,
    /// No space left on a disk.
    DiskFull,
    /// The root file system could not be mounted, or init is missing.
    RootLost,
    /// A kernel started booting.
    BootStarted,
    /// The system says it is up.
    BootFinished,
    /// A database gave up.
    AppPanic,
    /// A database is starting or replaying its log.
    AppStarting,
    /// A database is ready.
    AppReady,
    /// Somebody told the system or a database to stop: what ends now ends on purpose.
    GoingDown,
}

/// Who must have written a line for a rule to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The kernel: the pattern stands at the start of the line or behind the kernel's own time stamp
    /// (`[   12.345678] `), level (`<4>`) or syslog name (`kernel: `), also in the middle of a line that
    /// somebody else had begun, as happens on a console.
    Kernel,
    /// Anybody; the pattern stands anywhere.
    Anyone,
}

/// One known line.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, as in incidents and `explain`.
    pub name: &'static str,
    /// What it means, for people.
    pub means: &'static str,
    /// What it tells.
    pub kind: Kind,
    by: By,
    /// A literal that every such line holds: all that ordinary lines are searched for.
    needs: &'static str,
    /// The whole pattern; empty if the literal says it all.
    pattern: &'static str,
    /// Lines that also hold this are not meant.
    unless: &'static str,
    /// A line to find, from the field or from the source.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests hold every rule to it"))]
    example: &'static str,
    /// Lines to leave alone.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests hold every rule to it"))]
    not: &'static [&'static str],
    /// Where the words come from: the file that prints them, or the manual.
    pub source: &'static str,
}

/// Before a kernel message.
const KERNEL_LEAD: &str = r"(?:^|\] |> ?|kernel: )";

/// All rules, the more telling first: the first that fits a line names it.
const FAMILIES: [&[Rule]; 5] = [boot::RULES, postgres::RULES, mysql::RULES, redis::RULES, linux::RULES];

const COUNT: usize = {
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};
const _: () = assert!(COUNT <= 128, "the candidates of a line are one u128");

/// A line that a rule knows.
#[derive(Clone, Copy, Debug)]
pub struct Match {
    /// Which rule.
    pub rule: &'static Rule,
    /// What it tells.
    pub kind: Kind,
}

/// The rules, ready to run. Finding takes time proportional to the length of the line.
#[derive(Debug)]
pub struct Rules {
    literals: AhoCorasick,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    rule: &'static Rule,
    pattern: Option<Regex>,
    unless: Option<Regex>,
}

static STANDARD: LazyLock<Rules> = LazyLock::new(Rules::build);

impl Rules {
    /// All known lines. Built once, at the first call (a few milliseconds).
    #[must_use]
    pub fn standard() -> &'static Self {
        &STANDARD
    }

    fn build() -> Self {
        let rules = || FAMILIES.iter().copied().flatten();
        let literals = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(rules().map(|rule| rule.needs))
            .expect("a hundred short literals fit an automaton");
        let rows = rules().map(|rule| Row {
            rule,
            pattern: compile(
                rule.by,
                if rule.pattern.is_empty() { None } else { Some(rule.pattern) },
                rule.needs,
            ),
            unless: (!rule.unless.is_empty()).then(|| regex(rule.unless)),
        });
        Self { literals, rows: rows.collect() }
    }

    /// The rule that knows this line, which is meant to be clean ([`crate::clean`]).
    #[must_use]
    pub fn find(&self, line: &str) -> Option<Match> {
        let seen = &line.as_bytes()[..line.len().min(LOOKED_AT)];
        let mut candidates = 0_u128;
        for found in self.literals.find_overlapping_iter(seen) {
            candidates |= 1 << found.pattern().as_u32();
        }
        while candidates != 0 {
            let row = &self.rows[candidates.trailing_zeros() as usize];
            candidates &= candidates - 1;
            if row.fits(seen) {
                return Some(Match { rule: row.rule, kind: row.rule.kind });
            }
        }
        None
    }

    /// All rules, the more telling first.
    pub fn iter(&self) -> impl Iterator<Item = &'static Rule> {
        self.rows.iter().map(|row| row.rule)
    }
}

impl Row {
    fn fits(&self, line: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(line))
            && !self.unless.as_ref().is_some_and(|unless| unless.is_match(line))
    }
}

fn compile(by: By, pattern: Option<&str>, literal: &str) -> Option<Regex> {
    match (by, pattern) {
        (By::Anyone, None) => None,
        (By::Anyone, Some(pattern)) => Some(regex(pattern)),
        (By::Kernel, Some(pattern)) => Some(regex(&format!("{KERNEL_LEAD}(?:{pattern})"))),
        (By::Kernel, None) => Some(regex(&format!("{KERNEL_LEAD}{}", regex::escape(literal)))),
    }
}

fn regex(pattern: &str) -> Regex {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(1 << 18)
        .dfa_size_limit(1 << 18)
        .build()
        .expect("the rules are constants and the tests compile each")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::clean;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn found(line: &str) -> Option<&'static str> {
        Rules::standard().find(&clean(line.as_bytes())).map(|found| found.rule.name)
    }

    #[test]
    fn every_rule_finds_its_example_first_and_leaves_its_counter_examples() {
        for rule in Rules::standard().iter() {
            assert_eq!(found(rule.example), Some(rule.name), "{}", rule.example);
            for line in rule.not {
                assert_ne!(found(line), Some(rule.name), "{line}");
            }
        }
    }

    #[test]
    fn every_rule_says_what_it_is() {
        let mut names = BTreeSet::new();
        for rule in Rules::standard().iter() {
            assert!(names.insert(rule.name), "{} is there twice", rule.name);
            assert!(
                rule.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{}",
                rule.name
            );
            assert!(rule.means.len() > 10 && !rule.means.ends_with('.'), "{}", rule.name);
            assert!(rule.needs.len() >= 4, "{}: a short literal makes every line a candidate", rule.name);
            assert!(!rule.source.is_empty() && rule.example.len() < LOOKED_AT, "{}", rule.name);
        }
    }

    #[test]
    fn a_kernel_line_is_known_behind_every_prefix_it_may_have() {
        for prefix in [
            "",
            "[   12.345678] ",
            "<0>[   12.345678] ",
            "[   12.345678][  T123] ",
            "<3>",
            "Nov 23 21:19:48 orders kernel: ",
            "Nov 23 21:19:48 orders kernel: [   12.345678] ",
            "orders login: [   12.345678] ",
        ] {
            assert_eq!(
                found(&format!("{prefix}Aborting journal on device vda-8.")),
                Some("journal-aborted"),
                "{prefix}"
            );
        }
    }

    #[test]
    fn a_user_who_merely_writes_of_a_kernel_line_is_not_the_kernel() {
        for line in [
            "postgres: my note says Aborting journal on device vda-8.",
            "grep: INFO: task postgres:1 blocked for more than 120 seconds",
            "backup: log mentions EXT4-fs error (device vda)",
        ] {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_nobody() {
        for line in ORDINARY {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn the_cause_names_a_line_that_tells_two_things() {
        let kind = |line: &str| Rules::standard().find(line).map(|found| found.kind);
        let panic = |cause: &str| format!("[    1.5] Kernel panic - not syncing: {cause}");
        assert_eq!(kind(&panic("VFS: Unable to mount root fs on unknown-block(0,0)")), Some(Kind::RootLost));
        assert_eq!(kind(&panic("No working init found.")), Some(Kind::RootLost));
        assert_eq!(kind(&panic("Attempted to kill init! exitcode=0x0000000b")), Some(Kind::KernelPanic));
        let pg = |why: &str| {
            format!(
                "pg 2026-11-23 21:19:48.1 UTC [77] PANIC:  could not write to file \"pg_wal/xlogtemp.77\": {why}"
            )
        };
        assert_eq!(kind(&pg("No space left on device")), Some(Kind::DiskFull));
        assert_eq!(kind(&pg("Input/output error")), Some(Kind::DiskIoError));
        assert_eq!(kind(&pg("Read-only file system")), Some(Kind::FsReadOnly));
        assert_eq!(kind(&pg("Bad address")), Some(Kind::AppPanic));
    }

    #[test]
    fn a_finding_beyond_the_part_looked_at_is_not_found() {
        let line = format!("{}No space left on device", "x".repeat(LOOKED_AT));
        assert_eq!(found(&line), None);
        let cut = format!("{}é", "x".repeat(LOOKED_AT - 1)); // a character across the border
        assert_eq!(found(&cut), None);
    }

    #[test]
    fn a_line_made_of_all_literals_is_answered_all_the_same() {
        let hostile: String = Rules::standard().iter().map(|rule| rule.needs).collect::<Vec<_>>().join(" ");
        assert!(Rules::standard().find(&hostile).is_some());
    }

    proptest! {
        #[test]
        fn any_line_is_answered(raw in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let line = clean(&raw);
            let found = Rules::standard().find(&line);
            prop_assert!(found.is_none_or(|found| line.contains(found.rule.needs)));
        }

        #[test]
        fn lines_made_of_pieces_of_rules_are_answered(pieces in proptest::collection::vec(0..COUNT, 0..20), cut in 0usize..40) {
            let rules: Vec<_> = Rules::standard().iter().collect();
            let line: String = pieces.iter().map(|&i| rules[i].example.chars().skip(cut).collect::<String>()).collect();
            let line = clean(line.as_bytes());
            let found = Rules::standard().find(&line);
            prop_assert!(found.is_none_or(|found| line.contains(found.rule.needs)));
        }
    }

    #[test]
    fn the_engine_is_small_and_its_patterns_compile_once() {
        let rules = Rules::standard();
        assert_eq!(rules.rows.len(), COUNT);
        assert!(rules.literals.memory_usage() < 2 << 20, "{} bytes", rules.literals.memory_usage());
        assert!(std::ptr::eq(rules, Rules::standard()));
        assert!(rules.rows.first().unwrap().rule.kind == Kind::RootLost);
    }

    /// From boots and quiet days of real guests.
    const ORDINARY: &[&str] = &[
        "",
        "[    0.000000] Command line: console=ttyS0 root=/dev/vda rw panic=-1 oops=panic",
        "[    0.112233] x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'",
        "[    0.300000] Key type dns_resolver registered",
        "[    1.012345] EXT4-fs (vda): mounted filesystem with ordered data mode. Quota mode: none.",
        "[    1.212345] EXT4-fs (vda): re-mounted. Quota mode: none.",
        "[    1.312345] EXT4-fs (vda): recovery complete",
        "[    2.000000] random: crng init done",
        "[    2.100000] virtio_blk virtio1: [vda] 4194304 512-byte logical blocks (2.15 GB/2.00 GiB)",
        "[    3.100000] e1000: eth0 NIC Link is Up 1000 Mbps Full Duplex, Flow Control: RX",
        "[   30.000000] perf: interrupt took too long (2516 > 2500), lowering kernel.perf_event_max_sample_rate",
        "[   31.000000] postgres[412]: segfault at 0 ip 000055d0c0de sp 00007ffd error 4 in postgres[55d0]",
        "pg 2026-11-23 21:19:48.123 UTC [61] LOG:  checkpoint starting: time",
        "pg 2026-11-23 21:19:49.000 UTC [61] LOG:  checkpoint complete: wrote 3 buffers (0.0%)",
        "pg 2026-11-23 21:19:49.000 UTC [80] FATAL:  password authentication failed for user \"app\"",
        "pg 2026-11-23 21:19:49.000 UTC [80] ERROR:  relation \"nothing\" does not exist at character 15",
        "Nov 23 21:19:48 orders sshd[9]: Accepted publickey for root from 10.0.2.2 port 40522 ssh2",
        "Nov 23 21:19:48 orders systemd[1]: Started Daily apt download activities.",
        "2026-11-23  9:15:02 0 [Note] InnoDB: Buffer pool(s) load completed at 261123  9:15:02",
        "771:M 23 Nov 2026 21:19:48.000 * 100 changes in 300 seconds. Saving...",
        "Debian GNU/Linux 12 orders ttyS0",
    ];
}
