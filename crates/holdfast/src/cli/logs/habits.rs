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
/// Minutes with lines that are compared as a whole for nothing, and how many lines pay for one more. Each costs up to a tenth of
/// a millisecond, with its share of a new model.
const FREE_WINDOWS: u64 = 20_000;
const LINES_A_WINDOW: u64 = 200;

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
    lines: u64,
    /// Minutes with lines.
    windows: u64,
    /// Minutes with lines that were not compared as a whole, as the log has too few lines for its length.
    pub uncompared: u64,
    /// By sort, pattern, and of whole minutes which.
    odd: BTreeMap<(Sort, Option<PatternId>, u64), Odd>,
    /// Statements that were too many to be kept.
    pub dropped: u64,
    /// Times without lines that were not looked through, as the log has too few lines for its length.
    pub unlooked: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            unusual: Unusual::default(),
            now: None,
            leap: None,
            looks: FREE_LOOKS,
            minutes: 0,
            lines: 0,
            windows: 0,
            uncompared: 0,
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
        self.lines += 1;
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

    /// A minute with lines is over.
    fn count_window(&mut self) {
        self.windows += 1;
        if self.uncompared > 0 {
            self.uncompared += 1;
        } else if self.windows > FREE_WINDOWS + self.lines / LINES_A_WINDOW {
            self.uncompared = 1;
            self.unusual.forget_windows();
        }
    }

    /// Looks, step by step, at what was late or over from one line to the next.
    fn pass(&mut self, from: u64, to: u64, line: u64, miner: &Miner) {
        if to / MINUTE != from / MINUTE {
            self.count_window();
        }
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
        let minute = if statement.sort == Sort::Window { self.now.unwrap_or_default() / MINUTE } else { 0 };
        let key = (statement.sort, statement.pattern, minute);
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

    /// What is told of a day and a half with a line like clockwork, requests, a burst, an error as never before, a line that stays
    /// away and minutes unlike the others: pairs of a second and a line of text.
    fn eventful() -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        let mut chance = 7_u64;
        for second in 0..36 * 3_600_u64 {
            let mut next = |most: u64| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (chance >> 33) % most
            };
            let mut say = |text: String| lines.push((second, text));
            if second.is_multiple_of(30) && !(100_000..101_000).contains(&second) {
                say(format!("heartbeat {second} of the pump"));
            }
            let is_odd = second / 60 == 1_900;
            for word in ["get", "put", "list"] {
                let most = if is_odd { 2 } else { 12 };
                if next(most) == 0 && !(is_odd && word == "get") {
                    say(format!("request to {word} object number {second} served"));
                }
            }
            if (90_000..90_040).contains(&second) {
                (0..20).for_each(|n| say(format!("request to list object number {n} served")));
            }
            if second == 80_000 {
                say("error: the disk gave up".to_owned());
            }
        }
        lines
    }

    #[test]
    fn a_file_is_judged_as_the_daemon_judges_its_source() {
        use crate::logbook::{Entry, Mind, SourceName};
        use holdfast_core::time::Timestamp;
        let start = START as u64 / 3_600_000_000 * 3_600;
        let lines = eventful();
        let (mut miner, mut habits, mut newest) = (Miner::default(), Habits::default(), PatternId(0));
        for (number, (second, text)) in lines.iter().enumerate() {
            let pattern = miner.add(text);
            let (is_new, severity) =
                (pattern > newest, holdfast_logs::decode::plain(text.as_bytes(), 0).severity);
            newest = newest.max(pattern);
            let heard = Heard { pattern, family: miner.family(pattern), is_new, severity };
            let time = Some(((start + second) * 1_000_000) as i64);
            habits.add(Seen { line: number as u64 + 1, time, heard }, &miner);
        }
        let (mut mind, mut told) = (Mind::new(None, 0, Timestamp::ZERO), Vec::new());
        let mut waiting = lines.iter().peekable();
        for second in 0..=lines.last().map_or(0, |(second, _)| *second) {
            let at = Timestamp::from_millis((start + second) * 1_000);
            told.extend(mind.look(at, During::Quiet).into_iter().map(|(.., statement)| statement));
            while let Some((_, text)) = waiting.next_if(|(of, _)| *of == second) {
                let record = holdfast_logs::decode::plain(text.as_bytes(), 0);
                let subject = holdfast_core::subject::Subject::Guest("orders".parse().expect("a name"));
                let source = SourceName::new("file");
                let entry =
                    Entry { subject, incarnation: None, source, at, received: 0, record, place: None };
                told.extend(mind.understand(&entry, 1, During::Quiet).news);
            }
        }
        let said = |statements: &mut dyn Iterator<Item = Statement>| {
            let about = |statement: Statement| match statement.sort {
                Sort::Silence => (statement.sort, format!("{:?}", statement.pattern)), // noticed within 15 s, not 5
                Sort::New | Sort::Burst | Sort::Rate | Sort::Window => (statement.sort, statement.says),
            };
            statements.map(about).collect::<std::collections::BTreeSet<_>>()
        };
        let (offline, online) =
            (said(&mut habits.odd.values().map(|odd| odd.statement.clone())), said(&mut told.into_iter()));
        for sort in [Sort::New, Sort::Burst, Sort::Silence, Sort::Window] {
            assert!(offline.iter().any(|(of, _)| *of == sort), "{sort:?}: {offline:?}");
        }
        assert!(offline.is_subset(&online), "{offline:?} {online:?}");
        let sorts = |all: &std::collections::BTreeSet<(Sort, String)>| {
            all.iter().map(|(sort, _)| *sort).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(sorts(&offline), sorts(&online));
    }

    #[test]
    fn a_log_of_few_lines_over_centuries_takes_no_more_looks_than_it_may() {
        let habits = heard((0..20_000).map(|n| n * 3_599));
        assert!(habits.minutes > 1_000_000 && habits.unlooked == 0);
        assert!(habits.windows < FREE_WINDOWS && habits.uncompared == 0, "{}", habits.windows);
        let habits = heard((0..40_000).map(|n| n * 60));
        assert!((19_000..21_000).contains(&habits.uncompared), "{}", habits.uncompared);
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
