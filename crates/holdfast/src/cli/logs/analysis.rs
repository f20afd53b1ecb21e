//! What is learned of a log, line by line, in bounded memory.

use super::Format;
use holdfast_logs::{Miner, PatternId, Rule, Rules, Severity, View, clean, escape, syslog_message};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Characters of an example that are shown.
pub const LONGEST_EXAMPLE: usize = 240;

/// Examples that are kept before those of patterns that left are thrown away.
const MOST_EXAMPLES: usize = 20_000;

/// Lines of which the pattern is remembered, for `--csv`: eight bytes each.
pub const MOST_REMEMBERED: usize = 100_000_000;

/// Known-bad lines of one rule.
pub struct Finding {
    pub rule: &'static Rule,
    pub lines: u64,
    pub first: u64,
    pub last: u64,
    pub example: String,
}

/// All that is known so far.
pub struct Analysis {
    format: Format,
    rules: &'static Rules,
    miner: Miner,
    findings: BTreeMap<&'static str, Finding>,
    examples: BTreeMap<PatternId, String>,
    newest: PatternId,
    /// The pattern of each line, if that is asked for.
    remembered: Option<Vec<PatternId>>,
    pub lines: u64,
    pub bytes: u64,
    /// Lines longer than what is looked at.
    pub cut: u64,
    /// Lines without the head of a syslog message.
    pub headless: u64,
}

impl Analysis {
    pub fn new(format: Format, remember: bool) -> Self {
        Self {
            format,
            rules: Rules::standard(),
            miner: Miner::default(),
            findings: BTreeMap::new(),
            examples: BTreeMap::new(),
            newest: PatternId(0),
            remembered: remember.then(Vec::new),
            lines: 0,
            bytes: 0,
            cut: 0,
            headless: 0,
        }
    }

    /// Takes in one line, as it is in the file.
    pub fn add(&mut self, raw: &[u8]) {
        self.lines += 1;
        let line = clean(raw);
        if let Some(found) = self.rules.find(&line) {
            let finding = self.findings.entry(found.rule.name).or_insert_with(|| Finding {
                rule: found.rule,
                lines: 0,
                first: self.lines,
                last: 0,
                example: escape(&line, LONGEST_EXAMPLE),
            });
            finding.lines += 1;
            finding.last = self.lines;
        }
        let message = match self.format {
            Format::Plain => &line,
            Format::Auto | Format::Syslog => match syslog_message(&line) {
                Some(at) => &line[at..],
                None => {
                    self.headless += 1;
                    &line
                }
            },
        };
        let id = self.miner.add(message);
        if id > self.newest {
            self.newest = id;
            self.keep_example(id, message);
        }
        if let Some(remembered) = &mut self.remembered {
            remembered.push(id);
        }
    }

    fn keep_example(&mut self, id: PatternId, message: &str) {
        if self.examples.len() >= MOST_EXAMPLES {
            let miner = &self.miner;
            self.examples.retain(|id, _| miner.template(*id).is_some());
        }
        self.examples.insert(id, escape(message, LONGEST_EXAMPLE));
    }

    /// Whether no more lines can be remembered.
    pub fn is_full(&self) -> bool {
        self.remembered.as_ref().is_some_and(|remembered| remembered.len() >= MOST_REMEMBERED)
    }

    /// Known-bad lines, the worst first.
    pub fn findings(&self) -> Vec<&Finding> {
        let mut findings: Vec<&Finding> = self.findings.values().collect();
        findings.sort_by_key(|finding| (Reverse(finding.rule.severity), finding.rule.kind, finding.first));
        findings
    }

    /// Patterns as all lines show them.
    pub fn view(&self) -> View {
        self.miner.view()
    }

    /// The pattern of each line.
    pub fn remembered(&self) -> &[PatternId] {
        self.remembered.as_deref().unwrap_or_default()
    }

    /// The first line of a pattern.
    pub fn example(&self, id: PatternId) -> &str {
        self.examples.get(&id).map_or("", String::as_str)
    }

    /// Patterns that left for want of room.
    pub fn dropped(&self) -> u64 {
        self.miner.dropped()
    }
}

/// Whether a known line is good to know, rather than bad.
pub fn is_notice(rule: &Rule) -> bool {
    rule.severity == Severity::Notice
}
