//! What is learned of a log, line by line, in bounded memory.

use super::habits::{Habits, Seen};
use super::joined::Joined;
use super::timeline::Timeline;
use holdfast_logs::decode::{Glance, auto, glance, may_be_json, object};
use holdfast_logs::{Heard, Match, Miner, PatternId, Record, Rule, Rules, Severity, View, clean, escape};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Characters of an example that are shown.
pub const LONGEST_EXAMPLE: usize = 240;

/// Examples that are kept before those of patterns that left are thrown away.
const MOST_EXAMPLES: usize = 20_000;

/// Lines of which the pattern is remembered, for `--csv`: eight bytes each.
pub const MOST_REMEMBERED: usize = 100_000_000;

/// Lines of a finding that are kept.
const MOST_SHOWN: usize = 5;

/// Known-bad lines of one rule.
pub struct Finding {
    pub rule: &'static Rule,
    pub lines: u64,
    pub first: u64,
    pub last: u64,
    /// When the first was, in microseconds since 1970.
    pub time: Option<i64>,
    /// The first few, with their numbers.
    pub examples: Vec<(u64, String)>,
}

impl Finding {
    /// The first line.
    pub fn example(&self) -> &str {
        self.examples.first().map_or("", |(_, example)| example)
    }
}

/// Notes on files that are kept.
const MOST_NOTES: usize = 100;

/// All that is known so far.
pub struct Analysis {
    rules: &'static Rules,
    miner: Miner,
    /// When the lines came: what a time without a year is near to.
    received: i64,
    pub timeline: Timeline,
    pub habits: Habits,
    findings: BTreeMap<&'static str, Finding>,
    examples: BTreeMap<PatternId, String>,
    newest: PatternId,
    /// The pattern of each line, if that is asked for.
    remembered: Option<Vec<PatternId>>,
    /// Lines are joined with what they go on.
    joined: Option<Joined>,
    /// Lines that went on others.
    pub followers: u64,
    pub lines: u64,
    pub bytes: u64,
    /// Lines longer than what is looked at.
    pub cut: u64,
    /// Lines without the head of a syslog message.
    pub headless: u64,
    /// Entries that could not be read.
    pub skipped: u64,
    /// What is to be said of a file, the first few.
    pub notes: Vec<String>,
}

impl Analysis {
    /// `remember`s the pattern of each line, and `join`s lines that belong together.
    pub fn new(remember: bool, join: bool) -> Self {
        Self {
            rules: Rules::standard(),
            miner: Miner::default(),
            received: 0,
            timeline: Timeline::default(),
            habits: Habits::default(),
            findings: BTreeMap::new(),
            examples: BTreeMap::new(),
            newest: PatternId(0),
            remembered: remember.then(Vec::new),
            joined: join.then(Joined::default),
            followers: 0,
            lines: 0,
            bytes: 0,
            cut: 0,
            headless: 0,
            skipped: 0,
            notes: Vec::new(),
        }
    }

    /// From here on, lines came about then (microseconds since 1970).
    pub fn set_received(&mut self, micros: i64) {
        self.received = micros;
        self.joined.iter_mut().for_each(Joined::clear);
    }

    /// Something is to be said of a file.
    pub fn note(&mut self, note: String) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(note);
        }
    }

    /// Takes in one line, as it is in the file. What syslog puts before a message is no part of its pattern, if
    /// heads are looked for.
    /// Nor is what a JSON object has around its message; such a line may stand among others.
    pub fn add(&mut self, raw: &[u8], has_heads: bool) {
        if has_heads
            && may_be_json(raw)
            && let Some(record) = object(raw, self.received)
        {
            let seen = Glance { time: record.time, severity: record.severity, message: None };
            return if self.goes_on(raw, &record.text, &seen) {
                self.follow(&record.line(), &seen)
            } else {
                self.add_record(&record)
            };
        }
        let line = clean(raw);
        let seen = glance(&line, self.received);
        if self.goes_on(raw, &line[seen.message.unwrap_or(0)..], &seen) {
            return self.follow(&line, &seen);
        }
        if has_heads && seen.message.is_some_and(|at| line[at..].starts_with('{')) {
            return self.add_record(&auto(raw, self.received));
        }
        self.lines += 1;
        let known = self.rules.find(&line);
        if let Some(found) = known {
            self.find(found, seen.time, &line);
        }
        self.timeline.add(seen.time, seen.severity);
        self.headless += u64::from(seen.message.is_none());
        let message = seen.message.filter(|_| has_heads).map_or(&*line, |at| &line[at..]);
        self.learn(message, seen.time, seen.severity.max(known.map(|known| known.rule.severity)));
    }

    fn goes_on(&mut self, raw: &[u8], text: &str, seen: &Glance) -> bool {
        self.joined.as_mut().is_some_and(|joined| joined.goes_on(raw, text, seen, self.received))
    }

    /// A line that goes on what stands before it has no pattern of its own. It may be a known one.
    fn follow(&mut self, line: &str, seen: &Glance) {
        self.lines += 1;
        self.followers += 1;
        self.miner.pass_over();
        if let Some(found) = self.rules.find(line) {
            self.find(found, seen.time, line);
        }
        self.timeline.add(seen.time, seen.severity);
    }

    /// Takes in one record of another form than lines.
    pub fn add_record(&mut self, record: &Record) {
        self.lines += 1;
        let known = self.rules.find_in(record);
        if let Some(found) = known {
            self.find(found, record.time, &record.line());
        }
        self.timeline.add(record.time, record.severity);
        let severity = record.severity.max(known.map(|known| known.rule.severity));
        self.learn(record.text.split('\n').next().unwrap_or_default(), record.time, severity);
    }

    /// No more lines come.
    pub fn end(&mut self) {
        self.habits.end(self.lines, &self.miner);
    }

    fn find(&mut self, found: Match, time: Option<i64>, line: &str) {
        let finding = self.findings.entry(found.rule.name).or_insert_with(|| Finding {
            rule: found.rule,
            lines: 0,
            first: self.lines,
            last: 0,
            time,
            examples: Vec::new(),
        });
        finding.lines += 1;
        finding.last = self.lines;
        if finding.examples.len() < MOST_SHOWN {
            finding.examples.push((self.lines, escape(line, LONGEST_EXAMPLE)));
        }
    }

    fn learn(&mut self, message: &str, time: Option<i64>, severity: Option<Severity>) {
        let id = self.miner.add(message);
        let is_unseen = id > self.newest;
        if is_unseen {
            self.newest = id;
            self.keep_example(id, message);
        }
        let family = self.miner.family(id);
        let heard = Heard { pattern: id, family, is_new: is_unseen && family.is_none(), severity };
        self.habits.add(Seen { line: self.lines, time, heard }, &self.miner);
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
