//! One pattern in one source: how often it comes, and how regularly.
//!
//! Counts of a minute and of a quarter of an hour are each compared with those before: mean and variance with
//! forgetting, a negative binomial tail. Logs are burstier than any model, so it must also be twice as much as ever
//! lately (or half as little). A line like clockwork is missed when it is late beyond its own habits.

use super::tail::{at_least, at_most, waits};
use serde::{Deserialize, Serialize};

/// Chances below these are told.
const BURST: f64 = 1e-6;
const RATE: f64 = 1e-6;
const SILENCE: f64 = 1e-4;
/// Lines of a burst, at least.
const LEAST_BURST: f64 = 10.0;
/// The least usual number of lines in a quarter of an hour whose lack is told.
const LEAST_LACK: f64 = 20.0;
/// Minutes, quarters of an hour and waits that must be known first.
const LEAST_MINUTES: f64 = 60.0;
const LEAST_QUARTERS: f64 = 16.0;
const LEAST_WAITS: u32 = 20;
/// Minutes in which a pattern came before its bursts are told.
const LEAST_SEEN: u32 = 10;
/// Waits are regular if they deviate by no more than this part of their mean.
const REGULAR: f64 = 0.5;
/// Lines of one event come together: shorter waits than this many seconds are none.
const TOGETHER: f64 = 0.5;
/// The clock of a guest, its scheduler and we deviate by so many seconds.
const JITTER: f64 = 0.5;
/// A wait weighs no less than this part in the mean of waits.
const LEAST_WEIGHT: f64 = 1.0 / 64.0;

/// Counts of stretches of one length.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counts {
    weight: f64,
    sum: f64,
    squares: f64,
    most: f64,
    least: f64,
    now: f64,
}

/// What is unlike a pattern's habits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unlike {
    /// How many lines came.
    pub count: f64,
    /// How many usually do.
    pub usual: f64,
    /// The chance of that.
    pub chance: f64,
}

impl Counts {
    fn mean(&self) -> f64 {
        (self.sum + 0.5) / (self.weight + 1.0)
    }

    /// How much larger the variance is than that of lines that know nothing of each other.
    fn spread(&self) -> f64 {
        let mean = self.mean();
        let variance = (self.squares / self.weight.max(1.0) - mean * mean).max(0.0);
        (variance / mean).clamp(1.0, 1e6)
    }

    fn more(&self, most: f64) -> Option<Unlike> {
        let (count, usual) = (self.now, self.mean());
        let chance = if count > 2.0 * self.most { at_least(count, usual, self.spread()) } else { 1.0 };
        (chance < most).then_some(Unlike { count, usual, chance })
    }

    fn less(&self, most: f64) -> Option<Unlike> {
        let (count, usual) = (self.now, self.mean());
        let chance = if count < self.least / 2.0 { at_most(count, usual, self.spread()) } else { 1.0 };
        (chance < most).then_some(Unlike { count, usual, chance })
    }

    fn learn(&mut self, keep: f64) {
        let count = self.now;
        self.least = if self.weight == 0.0 { count } else { count.min(self.least / keep) };
        self.weight = self.weight * keep + 1.0;
        self.sum = self.sum * keep + count;
        self.squares = self.squares * keep + count * count;
        self.most = count.max(self.most * keep);
    }
}

/// The habits of one pattern.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rhythm {
    minute: Counts,
    quarter: Counts,
    /// Minutes in which it came.
    seen: u32,
    /// When it came last, in microseconds; none after an interruption.
    last: Option<u64>,
    waits: u32,
    mean: f64,
    variance: f64,
    longest: f64,
    is_missed: bool,
}

impl Rhythm {
    /// A line came. `troubled`: when an incident was last seen open; a wait with that in it is not learned.
    pub fn come(&mut self, now: u64, troubled: Option<u64>) {
        self.minute.now += 1.0;
        self.quarter.now += 1.0;
        let wait = self.last.map(|last| seconds(now.saturating_sub(last)));
        let learns = self.last.is_some() && troubled < self.last;
        if let Some(wait) = wait.filter(|wait| learns && *wait >= TOGETHER) {
            self.waits = self.waits.saturating_add(1);
            let weight = (1.0 / f64::from(self.waits)).max(LEAST_WEIGHT);
            let off = wait - self.mean;
            self.mean += weight * off;
            self.variance += weight * (off * off * (1.0 - weight) - self.variance);
            self.longest = wait.max(self.longest * (1.0 - LEAST_WEIGHT / 16.0));
        }
        if wait.is_none_or(|wait| wait >= TOGETHER) {
            self.last = Some(now);
        }
        self.is_missed = false;
    }

    /// A minute is over; a burst in it.
    pub fn minute(&mut self, keep: Option<f64>) -> Option<Unlike> {
        let is_known = self.minute.weight >= LEAST_MINUTES && self.seen >= LEAST_SEEN;
        let burst = if is_known && self.minute.now >= LEAST_BURST { self.minute.more(BURST) } else { None };
        if let Some(keep) = keep {
            self.minute.learn(keep);
            self.seen = self.seen.saturating_add(u32::from(self.minute.now > 0.0));
        }
        self.minute.now = 0.0;
        burst
    }

    /// A quarter of an hour is over; another rate in it.
    pub fn quarter(&mut self, keep: Option<f64>) -> Option<Unlike> {
        let counts = &self.quarter;
        let is_known = counts.weight >= LEAST_QUARTERS && self.seen >= LEAST_SEEN;
        let more = || if counts.now >= LEAST_BURST { counts.more(RATE) } else { None };
        let less = || if counts.least >= LEAST_LACK { counts.less(RATE) } else { None };
        let changed = if is_known { more().or_else(less) } else { None };
        if let Some(keep) = keep {
            self.quarter.learn(keep);
        }
        self.quarter.now = 0.0;
        changed
    }

    /// Whether it is missed, once: seconds since the last line, seconds that usually pass, and the chance of that.
    pub fn missed(&mut self, now: u64) -> Option<Unlike> {
        let last = self.last.filter(|_| !self.is_missed && self.waits >= LEAST_WAITS)?;
        let wait = seconds(now.saturating_sub(last));
        let deviation = self.variance.sqrt();
        let is_late = wait > (2.0 * self.longest).max(3.0 * self.mean);
        if !is_late || deviation > REGULAR * self.mean {
            return None;
        }
        let chance = waits(wait, self.mean, deviation.max(0.05 * self.mean + JITTER));
        self.is_missed = chance < SILENCE;
        self.is_missed.then_some(Unlike { count: wait, usual: self.mean, chance })
    }

    /// Nobody listened for a while, or nobody could speak.
    pub fn interrupt(&mut self) {
        (self.last, self.minute.now, self.quarter.now) = (None, 0.0, 0.0);
    }

    /// The most lines of a minute, and of a quarter of an hour, that are remembered.
    #[cfg(test)]
    pub fn most(&self) -> (f64, f64) {
        (self.minute.most, self.quarter.most)
    }

    /// The longest wait that is remembered.
    #[cfg(test)]
    pub fn longest(&self) -> f64 {
        self.longest
    }

    /// When it came last.
    pub fn last(&self) -> u64 {
        self.last.unwrap_or(0)
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
