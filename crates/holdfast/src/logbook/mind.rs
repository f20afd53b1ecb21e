//! What is understood of one owner's records: their patterns, by one miner for all its sources, and what is unusual in
//! each source. It is kept beside the records, so that the number of a pattern stays what it is.

use super::SourceName;
use super::inlet::Entry;
use holdfast_core::lease::Incarnation;
use holdfast_core::subject::Subject;
use holdfast_core::time::{Duration, Timestamp};
use holdfast_logs::{
    During, Heard, LINES_LOOKED_AT, LONGEST_LINE, Limit, Match, Miner, PatternId, Rules, Severity, Snapshot,
    Statement, Unusual, escape,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The form in which it is kept.
const VERSION: u32 = 1;
/// Sources of one owner.
const MOST_SOURCES: usize = 64;
/// Known lines of one rule that are told within a second; all are counted.
const MOST_OF_A_RULE: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);
/// Patterns of one owner, whatever room there is.
const MOST_PATTERNS: usize = 10_000;
/// It is kept this often if something was learned ...
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// ... and so soon after a new pattern.
const KEEP_SOON: Duration = Duration::from_secs(5);

/// How often a pattern came, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// So many records.
    pub count: u64,
    /// The first and the last, in microseconds since 1970.
    pub first: i64,
    /// The last.
    pub last: i64,
    /// How many of each severity, the mildest first; those that say nothing count as `info`.
    pub severities: [u32; 8],
}

impl Tally {
    fn come(&mut self, received: i64, severity: Option<Severity>) {
        if self.count == 0 {
            self.first = received;
        }
        (self.count, self.last) = (self.count.saturating_add(1), received);
        let at = severity.unwrap_or(Severity::Info) as usize;
        self.severities[at] = self.severities[at].saturating_add(1);
    }

    fn add(&mut self, other: &Self) {
        self.first = if self.count == 0 { other.first } else { self.first.min(other.first) };
        self.last = if self.count == 0 { other.last } else { self.last.max(other.last) };
        self.count = self.count.saturating_add(other.count);
        for (own, other) in self.severities.iter_mut().zip(other.severities) {
            *own = own.saturating_add(other);
        }
    }
}

/// A pattern, as it is told.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its number.
    pub id: PatternId,
    /// Its words.
    pub template: String,
    /// How often it came.
    pub tally: Tally,
    /// The pattern that it was split off.
    pub of: Option<PatternId>,
}

/// One source of an owner.
#[derive(Debug)]
struct Source {
    unusual: Unusual,
    /// Whose its last record was.
    subject: Subject,
    incarnation: Option<Incarnation>,
    /// The number of that record.
    number: u64,
    used: Timestamp,
}

/// What is understood of one owner's records.
#[derive(Debug)]
pub struct Mind {
    miner: Miner,
    highest: u64,
    patterns: BTreeMap<PatternId, Tally>,
    sources: BTreeMap<SourceName, Source>,
    /// What was learned before a restart, of sources that have not spoken since.
    resting: BTreeMap<String, Unusual>,
    incarnation: Option<Incarnation>,
    told: BTreeMap<&'static str, (Timestamp, u32)>,
    /// When a record came last.
    pub used: Timestamp,
    /// When it was kept last.
    pub kept: Timestamp,
    has_new: bool,
}

/// The same at rest.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    v: u32,
    miner: Snapshot,
    highest: u64,
    patterns: Vec<(PatternId, Tally)>,
    sources: BTreeMap<String, Unusual>,
}

/// What a record turned out to be.
pub struct Understood {
    /// Its pattern.
    pub pattern: PatternId,
    /// How bad it is.
    pub severity: Option<Severity>,
    /// The rule that knows a line of it, and that line, escaped.
    pub known: Option<(Match, String)>,
    /// Whether that is one too many to be told.
    pub is_hushed: bool,
    /// Its pattern is new, and that is surprising.
    pub news: Option<Statement>,
}

impl Mind {
    /// One that knows nothing; pattern numbers up to that were given before.
    pub fn new(saved: Option<Saved>, given: u64, now: Timestamp) -> Self {
        let saved = saved.filter(|saved| saved.v == VERSION);
        let (mut miner, mut highest, mut patterns, mut resting) =
            (Miner::default(), 0, BTreeMap::new(), BTreeMap::new());
        if let Some(saved) = saved
            && let Ok(restored) = Miner::restore(saved.miner)
        {
            (miner, highest, resting) = (restored, saved.highest, saved.sources);
            patterns = saved.patterns.into_iter().collect();
        }
        miner.reserve(PatternId(given));
        let (sources, told) = (BTreeMap::new(), BTreeMap::new());
        let (used, kept, highest) = (now, now, highest.max(given));
        Self {
            miner,
            highest,
            patterns,
            sources,
            resting,
            incarnation: None,
            told,
            used,
            kept,
            has_new: false,
        }
    }

    /// How much it may learn.
    pub fn set_room(&mut self, bytes: usize) {
        self.miner.set_limit(Limit { patterns: MOST_PATTERNS, bytes });
    }

    /// Understands a record. `number` is the one that it will be kept under.
    pub fn understand(&mut self, entry: &Entry, number: u64, during: During) -> Understood {
        let record = &entry.record;
        let known = find(entry);
        let severity = record.severity.max(known.as_ref().map(|(known, _)| known.rule.severity));
        let first = first_line(&record.text);
        let pattern = self.miner.add(first);
        let is_unseen = pattern.0 > self.highest;
        self.highest = self.highest.max(pattern.0);
        self.has_new |= is_unseen;
        if is_unseen && self.patterns.len() > 2 * MOST_PATTERNS {
            self.tidy();
        }
        self.patterns.entry(pattern).or_default().come(entry.received, severity);
        if entry.incarnation.is_some() && entry.incarnation != self.incarnation {
            self.incarnation = entry.incarnation;
            self.interrupt(entry.at);
        }
        self.used = entry.at;
        let is_hushed = known.as_ref().is_some_and(|(known, _)| !self.may_tell(known.rule.name, entry.at));
        let family = self.miner.family(pattern);
        let heard = Heard { pattern, family, is_new: is_unseen && family.is_none(), severity };
        let news = self.hear(entry, number, heard, during);
        Understood { pattern, severity, known, is_hushed, news }
    }

    /// The habits of its source hear of it.
    fn hear(&mut self, entry: &Entry, number: u64, heard: Heard, during: During) -> Option<Statement> {
        if self.sources.len() >= MOST_SOURCES && !self.sources.contains_key(&entry.source) {
            let oldest =
                self.sources.iter().min_by_key(|(_, source)| source.used).map(|(name, _)| name.clone());
            oldest.map(|name| self.sources.remove(&name));
        }
        let source = self.sources.entry(entry.source.clone()).or_insert_with(|| Source {
            unusual: self.resting.remove(entry.source.as_str()).unwrap_or_default(),
            subject: entry.subject.clone(),
            incarnation: None,
            number,
            used: entry.at,
        });
        source.subject.clone_from(&entry.subject);
        (source.incarnation, source.number, source.used) = (entry.incarnation, number, entry.at);
        let miner = &self.miner;
        source.unusual.line(entry.at.as_micros(), heard, during, |id| miner.name(id))
    }

    fn may_tell(&mut self, rule: &'static str, now: Timestamp) -> bool {
        let (since, count) = self.told.entry(rule).or_insert((now, 0));
        if now.since(*since) >= SECOND {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= MOST_OF_A_RULE
    }

    /// What is over or late, with the source and the last record there.
    pub fn look(
        &mut self,
        now: Timestamp,
        during: During,
    ) -> Vec<(SourceName, Subject, Option<Incarnation>, u64, Statement)> {
        let Self { miner, sources, .. } = self;
        let mut told = Vec::new();
        for (source, of) in sources {
            let statements = of.unusual.look(now.as_micros(), during, |id| miner.name(id));
            let about =
                |statement| (source.clone(), of.subject.clone(), of.incarnation, of.number, statement);
            told.extend(statements.into_iter().map(about));
        }
        told
    }

    /// Nobody could speak, or nobody listened.
    pub fn interrupt(&mut self, now: Timestamp) {
        self.sources.values_mut().for_each(|source| source.unusual.interrupt(now.as_micros()));
    }

    /// The habits that take memory: of which source, when it spoke last, and how many bytes.
    pub fn habits(&self) -> impl Iterator<Item = (&SourceName, Timestamp, usize)> {
        self.sources.iter().map(|(name, source)| (name, source.used, source.unusual.bytes()))
    }

    /// Bytes of memory that its patterns take, as the miner counts them.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.miner.bytes()
    }

    /// Forgets the habits of a source.
    pub fn forget(&mut self, source: &SourceName) {
        self.sources.remove(source);
    }

    /// All patterns, the most records first.
    pub fn patterns(&self) -> Vec<Known> {
        let view = self.miner.view();
        let mut tallies: BTreeMap<PatternId, Tally> = BTreeMap::new();
        for (id, tally) in &self.patterns {
            if let Some(group) = view.find(*id) {
                tallies.entry(group.id).or_default().add(tally);
            }
        }
        let mut known: Vec<Known> = view
            .groups()
            .iter()
            .filter_map(|group| {
                let template = escape(&group.template.to_string(), LONGEST_LINE);
                Some(Known { id: group.id, template, tally: *tallies.get(&group.id)?, of: group.of })
            })
            .collect();
        known.sort_by(|a, b| b.tally.count.cmp(&a.tally.count).then(a.id.cmp(&b.id)));
        known
    }

    /// All numbers that records of a pattern may have been kept under, or of one that was split off it.
    pub fn members(&self, id: PatternId) -> Vec<u64> {
        let view = self.miner.view();
        let id = view.find(id).map_or(id, |group| group.id);
        let all = std::iter::once(id).chain(view.split_off(id));
        all.flat_map(|id| view.members(id)).map(|id| id.0).collect()
    }

    /// Whether it should be kept now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.used > self.kept && now.since(self.kept) >= if self.has_new { KEEP_SOON } else { KEEP_EVERY }
    }

    /// Whether something was learned since it was kept.
    pub fn has_learned(&self) -> bool {
        self.used > self.kept
    }

    /// All that is to be kept.
    pub fn save(&mut self, now: Timestamp) -> Saved {
        self.tidy();
        (self.kept, self.has_new) = (now, false);
        let own =
            self.sources.iter().map(|(name, source)| (name.as_str().to_owned(), source.unusual.clone()));
        let mut sources: BTreeMap<String, Unusual> = own.collect();
        let room = MOST_SOURCES.saturating_sub(sources.len());
        let resting = self.resting.iter().filter(|(name, _)| !sources.contains_key(*name)).take(room);
        let resting: Vec<_> = resting.map(|(name, unusual)| (name.clone(), unusual.clone())).collect();
        sources.extend(resting);
        Saved {
            v: VERSION,
            miner: self.miner.snapshot(),
            highest: self.highest,
            patterns: self.patterns.iter().map(|(id, tally)| (*id, *tally)).collect(),
            sources,
        }
    }

    /// Counts of patterns that became one are one; those of patterns that left go.
    fn tidy(&mut self) {
        for (id, tally) in std::mem::take(&mut self.patterns) {
            let id = self.miner.resolve(id);
            if self.miner.template(id).is_some() {
                self.patterns.entry(id).or_default().add(&tally);
            }
        }
    }
}

fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    &line[..line.floor_char_boundary(LONGEST_LINE)]
}

/// The worst known line of a record, of its first few. What only the kernel says does not count from another program
/// (I17).
fn find(entry: &Entry) -> Option<(Match, String)> {
    let record = &entry.record;
    let (lead, rules) = (record.lead(), Rules::standard());
    let is_kernel = matches!(record.program.as_str(), "" | "kernel");
    let find =
        |line: &str| if lead.is_empty() { rules.find(line) } else { rules.find(&format!("{lead}{line}")) };
    let lines = record.text.lines().take(LINES_LOOKED_AT);
    let (known, line) = lines
        .filter_map(|line| Some((find(line)?, line)))
        .filter(|(known, _)| is_kernel || !known.rule.is_by_kernel())
        .min_by_key(|(known, _)| known.kind)?;
    Some((known, escape(line.trim(), LONGEST_LINE)))
}
