//! What is unusual in a log by the times of its own lines, as the daemon judges a source while it comes.
//!
//! The clock is that of the lines. It goes on where they do, it stands where a line is a little older than the one before,
//! and it leaps only if two lines in a row say so: one line of another year moves nothing. Over a leap, nobody listened.

use holdfast_logs::{During, Heard, Miner, PatternId, Sort, Statement, Unusual};
use std::collections::BTreeMap;

/// Between two looks at who is late, in microseconds.
const STEP: u64 = 15_000_000;
const MINUTE: u64 = 60_000_000;
/// The longest time without lines that is looked through; longer is a leap.
const LONGEST_GAP: u64 = 60 * MINUTE;
/// A line that is older than the one before by no more than this was merely written late.
const LATE: u64 = MINUTE;
/// Minutes of lines before anything but their pattern's novelty can be told.
const LEAST_MINUTES: u64 = 60;
/// Different things that are kept: each a sort with its pattern.
const MOST_KEPT: usize = 1_000;
/// Looks at one pattern's habits that are free, and those that each line adds. So a log of few lines over a long time takes
/// a bounded time too.
const FREE_LOOKS: u64 = 50_000_000;
const LOOKS_A_LINE: u64 = 20;

/// Something unusual, of one sort and pattern.
pub struct Odd {
    /// The most surprising statement.
    pub statement: Statement,
    /// When that was, in microseconds since 1970, by the lines' own times.
    pub time: i64,
    /// The line after which it was noticed.
    pub line: u64,
    /// How many times it was.
    pub times: u64,
}

/// Whether anything could be said at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// No line has a time.
    Timeless,
    /// Less than an hour of lines.
    Short,
    /// Enough.
    Enough,
}

/// A line, as far as habits go.
#[derive(Clone, Copy)]
pub struct Seen {
    /// Its number.
    pub line: u64,
    /// When it says it was, in microseconds since 1970.
    pub time: Option<i64>,
    pub heard: Heard,
}

/// The habits of a log, and what differed from them.
pub struct Habits {
    unusual: Unusual,
    /// The time that has come, in microseconds since 1970; none before the first line with a time.
    now: Option<u64>,
    /// Where a single line leapt to.
    leap: Option<u64>,
    looks: u64,
    minutes: u64,
    odd: BTreeMap<(Sort, Option<PatternId>), Odd>,
    /// Statements that were too many to be kept.
    pub dropped: u64,
    /// Times without lines that were not looked through, as the log has too few lines for its length.
    pub unlooked: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            unusual: Unusual::of_single_patterns(),
            now: None,
            leap: None,
            looks: FREE_LOOKS,
            minutes: 0,
            odd: BTreeMap::new(),
            dropped: 0,
            unlooked: 0,
        }
    }
}

impl Habits {
    /// Takes in a line. One without a time counts where the one before it does.
    pub fn add(&mut self, seen: Seen, miner: &Miner) {
        self.looks = self.looks.saturating_add(LOOKS_A_LINE);
        if let Some(time) = seen.time.and_then(|time| u64::try_from(time).ok()) {
            self.go_to(time, seen.line.saturating_sub(1), miner);
        }
        let Some(now) = self.now else { return };
        let told = self.unusual.line(now, seen.heard, During::Quiet, |id| miner.name(id));
        if let Some(statement) = told {
            self.keep(statement, seen.line);
        }
    }

    fn go_to(&mut self, time: u64, line: u64, miner: &Miner) {
        let Some(now) = self.now else {
            self.leap_to(time);
            return;
        };
        if follows(time, now) {
            self.leap = None;
            self.pass(now, time.max(now), line, miner);
        } else if self.leap.is_some_and(|leap| follows(time, leap)) {
            // of what came before a silence, some may have been late within it
            self.pass(now, time.clamp(now, now.saturating_add(LONGEST_GAP)), line, miner);
            self.leap_to(time);
        } else {
            self.leap = Some(time);
        }
    }

    fn leap_to(&mut self, time: u64) {
        self.unusual.interrupt(time);
        (self.now, self.leap) = (Some(time), None);
    }

    /// Looks, step by step, at what was late or over from one line to the next.
    fn pass(&mut self, from: u64, to: u64, line: u64, miner: &Miner) {
        let steps = to / STEP - from / STEP;
        let cost = (steps + steps / 2).saturating_mul(self.unusual.patterns() as u64);
        if cost > self.looks {
            self.unlooked += 1;
            self.leap_to(to);
            return;
        }
        self.looks -= cost;
        self.minutes += to / MINUTE - from / MINUTE;
        for step in 1..=steps {
            let now = (from / STEP + step) * STEP;
            self.now = Some(now);
            for statement in self.unusual.look(now, During::Quiet, |id| miner.name(id)) {
                self.keep(statement, line);
            }
        }
        self.now = Some(to);
    }

    /// The log is over.
    pub fn end(&mut self, line: u64, miner: &Miner) {
        for statement in self.unusual.end(During::Quiet, |id| miner.name(id)) {
            self.keep(statement, line);
        }
    }

    fn keep(&mut self, statement: Statement, line: u64) {
        let time = self.now.and_then(|now| i64::try_from(now).ok()).unwrap_or_default();
        let key = (statement.sort, statement.pattern);
        let is_room = self.odd.len() < MOST_KEPT;
        match self.odd.get_mut(&key) {
            Some(odd) if odd.statement.decibans >= statement.decibans => odd.times += 1,
            Some(odd) => *odd = Odd { statement, time, line, times: odd.times + 1 },
            None if is_room => drop(self.odd.insert(key, Odd { statement, time, line, times: 1 })),
            None => self.dropped += 1,
        }
    }

    /// How many things were unusual, those that were too many to be kept among them.
    pub fn count(&self) -> u64 {
        self.odd.len() as u64 + self.dropped
    }

    /// What was unusual, the most surprising first, else in the order of the lines.
    pub fn odd(&self) -> Vec<&Odd> {
        let mut odd: Vec<&Odd> = self.odd.values().collect();
        odd.sort_by(|a, b| {
            let (a_is, b_is) = (&a.statement, &b.statement);
            b_is.decibans.total_cmp(&a_is.decibans).then(a.line.cmp(&b.line))
        });
        odd
    }

    /// Whether it went on long enough for anything to be usual.
    pub fn span(&self) -> Span {
        match self.now {
            None => Span::Timeless,
            Some(_) if self.minutes < LEAST_MINUTES => Span::Short,
            Some(_) => Span::Enough,
        }
    }
}

/// Whether a line of this time may come right after one of the other.
fn follows(time: u64, before: u64) -> bool {
    time.saturating_add(LATE) >= before && time <= before.saturating_add(LONGEST_GAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_795_478_400_000_000;
    const SECOND: i64 = 1_000_000;

    /// Lines of one pattern at these seconds.
    fn heard(seconds: impl Iterator<Item = i64>) -> Habits {
        let mut miner = Miner::default();
        let mut habits = Habits::default();
        for (number, second) in seconds.enumerate() {
            let pattern = miner.add("heartbeat 1 of the pump");
            let time = Some(START.saturating_add(second.saturating_mul(SECOND)));
            let (line, is_new) = (number as u64 + 1, number == 0);
            let heard = Heard { pattern, family: None, is_new, severity: None };
            habits.add(Seen { line, time, heard }, &miner);
        }
        habits.end(0, &miner);
        habits
    }

    #[test]
    fn a_gap_in_a_beat_is_told_with_its_time_and_line() {
        let beat = (0..400).map(|n| n * 30);
        assert!(heard(beat.clone()).odd().is_empty());
        let gap = beat.map(|second| if second < 9_000 { second } else { second + 600 });
        let habits = heard(gap);
        let [odd] = habits.odd()[..] else { panic!("{}", habits.odd().len()) };
        assert_eq!((odd.statement.sort, odd.line, odd.times), (Sort::Silence, 300, 1));
        let late = (odd.time - START) / SECOND - 8_970;
        assert!((60..180).contains(&late) && habits.span() == Span::Enough, "{late}");
    }

    #[test]
    fn a_burst_at_the_very_end_is_told_and_a_beat_that_may_still_come_is_not() {
        let beat = (0..400).map(|n| n * 30);
        let habits = heard(beat.chain(std::iter::repeat_n(12_000, 100)));
        let [odd] = habits.odd()[..] else { panic!("{}", habits.odd().len()) };
        assert_eq!(odd.statement.sort, Sort::Burst);
        assert!(
            odd.statement.says.contains(" comes 100 times a minute, usually 2"),
            "{}",
            odd.statement.says
        );
    }

    #[test]
    fn times_that_leap_go_back_or_are_from_another_age_do_no_harm() {
        let beat = |n: i64| n * 30;
        let one_far_out = (0..400).map(|n| if n == 200 { 252_000_000_000 } else { beat(n) });
        assert!(heard(one_far_out).odd().is_empty());
        let shuffled = (0..400).map(|n| beat(n) - (n % 3) * 40);
        assert!(heard(shuffled).odd().is_empty());
        let older_file_after_it = (0..400).map(|n| if n < 200 { beat(n) } else { beat(n) - 9_000_000 });
        assert!(heard(older_file_after_it).odd().is_empty());
        let extremes = (0..400).map(|n| [i64::MIN, i64::MAX, 0, -1, beat(n)][n as usize % 5]);
        assert!(heard(extremes).odd().is_empty());
    }

    #[test]
    fn a_log_of_few_lines_over_centuries_takes_no_more_looks_than_it_may() {
        let habits = heard((0..20_000).map(|n| n * 3_599));
        assert!(habits.minutes > 1_000_000 && habits.unlooked == 0);
        let (miner, mut habits) = (Miner::default(), Habits::default());
        for line in 0..40_000 {
            let time = Some(START + line * 1_800 * SECOND);
            let pattern = PatternId(line as u64 % 1_000);
            let heard = Heard { pattern, family: None, is_new: line < 1_000, severity: None };
            habits.add(Seen { line: line as u64, time, heard }, &miner);
        }
        assert!(habits.unlooked > 30_000 && habits.odd().len() <= MOST_KEPT, "{}", habits.unlooked);
    }
}
