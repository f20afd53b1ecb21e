//! A channel that is asked and answers: how long it has been silent, and what is usual for it.

use super::Lens;
use super::heartbeat::Heartbeat;
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// The questions and answers of one channel.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[repr(C)] // the answer to "is it alive?" lies in one place, and the heartbeat beside it
pub struct Pulse {
    failures: u32,
    answered: Option<Timestamp>,
    failed_first: Option<Timestamp>,
    failed: Option<Timestamp>,
    heartbeat: Heartbeat,
}

impl Pulse {
    /// It answered.
    pub fn answer(&mut self, at: Timestamp) {
        self.heartbeat.observe(at.as_micros());
        self.answered = Some(at);
        self.failed_first = None;
        self.failures = 0;
    }

    /// A question found no (good) answer.
    pub fn fail(&mut self, at: Timestamp) {
        self.failed_first.get_or_insert(at);
        self.failed = Some(at);
        self.failures = self.failures.saturating_add(1);
    }

    /// Forgets what was seen, keeps what was learned: a new incarnation answers for itself.
    pub fn renew(&mut self) {
        let mut heartbeat = std::mem::take(&mut self.heartbeat);
        heartbeat.interrupt();
        *self = Self { heartbeat, ..Self::default() };
    }

    /// The observer slept for so long: that time is no silence.
    pub fn forgive(&mut self, slept: Duration) {
        self.heartbeat.stretch(u64::try_from(slept.as_micros()).unwrap_or(u64::MAX));
        self.answered = self.answered.map(|at| at + slept);
        self.failed_first = self.failed_first.map(|at| at + slept);
        self.failures = self.failures.min(1);
    }

    /// Silence begins now, if it is silent.
    pub fn begin_silence(&mut self, now: Timestamp) {
        if self.failures > 0 {
            self.answered = self.answered.map(|_| now);
            (self.failed_first, self.failures) = (None, 0);
        }
    }

    /// When it last answered.
    pub const fn answered(&self) -> Option<Timestamp> {
        self.answered
    }

    /// Questions in a row that found no answer.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the last question was answered, and lately.
    pub fn is_alive(&self, lens: &Lens) -> bool {
        self.failures == 0 && self.answered.is_some_and(|at| lens.is_fresh(at))
    }

    /// Whether questions fail just now: since when, when last, and how many in a row.
    pub fn failing(&self, lens: &Lens) -> Option<(Timestamp, Timestamp, u32)> {
        let last = self.failed.filter(|at| self.failures > 0 && lens.is_fresh(*at))?;
        Some((self.failed_first.unwrap_or(last), last, self.failures))
    }

    /// Its silence: since its last answer (or the first question), proven by at least two questions, and
    /// longer than is usual for it. `full` is the silence of full strength.
    pub fn silence(&self, lens: &Lens, full: Duration) -> Option<(Timestamp, Timestamp, u16)> {
        let (first, last, failures) = self.failing(lens)?;
        let since = self.answered.unwrap_or(first);
        if !lens.hears_silence() || failures < 2 {
            return None;
        }
        let usual = self.answered.is_some() && last.as_micros() <= self.heartbeat.deadline();
        let strength = lens.ramp(last.since(since), full);
        Some((since, last, if usual { strength / 4 } else { strength }))
    }

    /// ", usually answers every 1.0s", once enough answers were seen.
    pub fn usual(&self) -> String {
        let usual = Duration::from_micros(self.heartbeat.usual());
        if usual.is_zero() {
            String::new()
        } else {
            format!(", usually answers every {}", crate::time::show(usual))
        }
    }
}
