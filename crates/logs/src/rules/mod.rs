//! Known lines, as data: one file a family. A rule is a row that a person can read and argue with.
//!
//! Every row carries lines that it must find and lines that look like it and are nobody's; the tests
//! hold all rows to both, and to being found first among all rows. The table for readers is docs/rules.md.

mod boot;
mod filesystems;
mod kernel;
mod memory;
mod mysql;
mod network;
mod postgres;
mod postgres_files;
mod postgres_sessions;
mod programs;
mod qemu;
mod redis;
mod rule;
mod storage;
mod systemd;
#[cfg(test)]
mod tests;
mod virtualbox;
mod vmware;
mod windows;

use crate::record::Record;
pub use crate::record::Severity;
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use rule::By;
pub use rule::{Fault, Kind, Rule};
use std::sync::{LazyLock, OnceLock};

/// Bytes at the start of a line in which a finding must show itself: what follows in a long line is data
/// of whoever caused it (a query, a path), and not worth the time.
pub const LOOKED_AT: usize = 1_024;

/// Lines of one record in which a finding must show itself.
pub const LINES_LOOKED_AT: usize = 64;

/// Before a kernel message.
const KERNEL_LEAD: &str = r"(?:^|\] |> ?|kernel: )";

/// All rules by family. The first that fits a line names it, those of an evidence before all others
/// ([`Kind::is_evidence`]); so the more telling stand before, and the words of any program come last.
const FAMILIES: [(&str, &[Rule]); 17] = [
    ("Boot", boot::RULES),
    ("PostgreSQL", postgres::RULES),
    ("PostgreSQL's files", postgres_files::RULES),
    ("PostgreSQL's sessions", postgres_sessions::RULES),
    ("MySQL and MariaDB", mysql::RULES),
    ("Redis", redis::RULES),
    ("Linux kernel", kernel::RULES),
    ("Memory and hardware", memory::RULES),
    ("File systems", filesystems::RULES),
    ("Storage", storage::RULES),
    ("Network", network::RULES),
    ("systemd", systemd::RULES),
    ("QEMU and libvirt", qemu::RULES),
    ("VirtualBox", virtualbox::RULES),
    ("VMware", vmware::RULES),
    ("Windows", windows::RULES),
    ("Any program", programs::RULES),
];

const COUNT: usize = {
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        count += FAMILIES[family].1.len();
        family += 1;
    }
    count
};
const _: () = assert!(COUNT <= 64 * WORDS, "the candidates of a line are a few words of bits");

/// Words of 64 bits that have a bit for each rule.
const WORDS: usize = 4;

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

/// A rule, and its patterns once a line was a candidate for it.
#[derive(Debug)]
struct Row {
    rule: &'static Rule,
    pattern: OnceLock<Option<Regex>>,
    unless: OnceLock<Option<Regex>>,
}

static STANDARD: LazyLock<Rules> = LazyLock::new(Rules::build);

impl Rules {
    /// All known lines. Built once, at the first call (a few milliseconds); a pattern when it is first needed.
    #[must_use]
    pub fn standard() -> &'static Self {
        &STANDARD
    }

    fn build() -> Self {
        let mut rules: Vec<&'static Rule> = FAMILIES.iter().flat_map(|(_, rules)| rules.iter()).collect();
        rules.sort_by_key(|rule| !rule.kind.is_evidence()); // stable: else as in the table
        let literals = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(rules.iter().map(|rule| rule.needs))
            .expect("some hundred short literals fit an automaton");
        let rows =
            rules.into_iter().map(|rule| Row { rule, pattern: OnceLock::new(), unless: OnceLock::new() });
        Self { literals, rows: rows.collect() }
    }

    /// The rule that knows this line, which is meant to be clean ([`crate::clean`]).
    #[must_use]
    pub fn find(&self, line: &str) -> Option<Match> {
        let seen = &line.as_bytes()[..line.len().min(LOOKED_AT)];
        let mut candidates = [0_u64; WORDS];
        for found in self.literals.find_overlapping_iter(seen) {
            let rule = found.pattern().as_usize();
            candidates[rule / 64] |= 1 << (rule % 64);
        }
        for (word, mut bits) in candidates.into_iter().enumerate() {
            while bits != 0 {
                let row = &self.rows[64 * word + bits.trailing_zeros() as usize];
                bits &= bits - 1;
                if row.fits(seen) {
                    return Some(Match { rule: row.rule, kind: row.rule.kind });
                }
            }
        }
        None
    }

    /// The rule that knows a line of this record, of its first [`LINES_LOOKED_AT`]: each is read with its program
    /// before it, so that a line counts as the kernel's only if the kernel said it. A rule of an evidence comes first.
    #[must_use]
    pub fn find_in(&self, record: &Record) -> Option<Match> {
        let lead = record.lead();
        let mut best: Option<Match> = None;
        for line in record.text.split('\n').take(LINES_LOOKED_AT) {
            let found = if lead.is_empty() { self.find(line) } else { self.find(&format!("{lead}{line}")) };
            if found.is_some_and(|found| found.kind.is_evidence()) {
                return found;
            }
            best = best.or(found);
        }
        best
    }

    /// All rules by family, as in their files.
    pub fn families() -> impl Iterator<Item = (&'static str, &'static [Rule])> {
        FAMILIES.into_iter()
    }

    /// All rules, in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = &'static Rule> {
        self.rows.iter().map(|row| row.rule)
    }
}

impl Row {
    fn fits(&self, line: &[u8]) -> bool {
        let pattern = self.pattern.get_or_init(|| whole(self.rule));
        let unless =
            self.unless.get_or_init(|| (!self.rule.unless.is_empty()).then(|| regex(self.rule.unless)));
        pattern.as_ref().is_none_or(|pattern| pattern.is_match(line))
            && !unless.as_ref().is_some_and(|unless| unless.is_match(line))
    }
}

/// All that a line of this rule must be; nothing if its literal is enough.
fn whole(rule: &Rule) -> Option<Regex> {
    match (rule.by, rule.pattern) {
        (By::Anyone, "") => None,
        (By::Anyone, pattern) => Some(regex(pattern)),
        (By::Kernel, "") => Some(regex(&format!("{KERNEL_LEAD}{}", regex::escape(rule.needs)))),
        (By::Kernel, pattern) => Some(regex(&format!("{KERNEL_LEAD}(?:{pattern})"))),
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
