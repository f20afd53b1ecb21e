//! Whether a series is as usual, and what is told of it if not.

use super::measure::{Name, What};
use holdfast_core::evidence::series::{Learn, Series, Sight};
use holdfast_core::signal::{Measure, NumberSign};
use holdfast_core::time::{Timestamp, show};
use std::time::Duration;

/// A latency is slow from so many times its usual ...
const SLOW_TIMES: f64 = 4.0;
/// ... and by so many seconds more: less is no trouble to anybody.
const SLOW_BY: f64 = 0.02;
/// It is slow no more below this share of what it was told at.
const FAST_AGAIN: f64 = 0.5;
/// So many values in a row, ten seconds each, before it is told, or told to be over.
const TOLD_AFTER: u32 = 3;
/// What has lasted for so long is how it is now: it is learned, and told no more.
const USUAL_AFTER: Duration = Duration::from_secs(3_600);
/// So sure the detector must be for a number that is no latency: of ten that are told, nine are real.
const SURE: f64 = 0.9;
/// So sure it must be once that a latency is not merely what it is at this hour, or now and then. One
/// in six is enough: that it is slow by so much, for half a minute, is seen without the detector.
const LIKELY: f64 = 0.17;
/// Values that tell what is usual for a latency.
const MEMORY: usize = 360;
/// Fewer tell nothing.
const YOUNG: usize = 60;

/// What is thought of a value.
#[derive(Debug, Default)]
pub struct Judged {
    /// What is told.
    pub told: Option<NumberSign>,
    /// It was usual, as far as is known, and was learned.
    pub taught: bool,
    /// What is unusual now, news or not.
    pub unusual: Option<String>,
}

/// One series, and what is usual for it.
#[derive(Default)]
pub struct Judge {
    series: Series,
    /// The latest values that were usual, newest last: for the middle of them.
    usual: Vec<f64>,
    slow: Slow,
    heard: Timestamp,
}

/// How slow a latency is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Slow {
    /// It is not.
    #[default]
    No,
    /// So many values in a row were; the detector found that unusual.
    Maybe(u32, bool),
    /// It was told: since then, beside this usual; so many values in a row were not slow any more.
    Yes { since: Timestamp, usual: f64, fast: u32 },
}

impl Slow {
    /// Whether what comes now is usual, as far as is known: also what is slow for long and surprises nobody.
    const fn teaches(self) -> bool {
        match self {
            Self::No => true,
            Self::Maybe(times, _) => times >= TOLD_AFTER,
            Self::Yes { .. } => false,
        }
    }
}

impl Judge {
    /// When it was last heard of.
    pub const fn heard(&self) -> Timestamp {
        self.heard
    }

    /// Judges a value by those before it. `ill`: an incident is open, and nothing is learned.
    pub fn observe(&mut self, now: Timestamp, value: f64, name: &Name, ill: bool) -> Judged {
        self.heard = now;
        let usual = !ill && self.slow.teaches();
        let learn = if usual { Learn::Yes } else { Learn::No };
        let verdict = self.series.observe(now, value, learn);
        let say = |sight: &Sight| sight.say(&name.to_string());
        let sight = verdict.sight.as_ref().filter(|_| name.what != What::Latency);
        let mut unusual = sight.filter(|_| verdict.wrong >= SURE).map(say);
        let told = if name.what == What::Latency {
            let told = self.latency(now, value, name, verdict.wrong >= LIKELY);
            unusual = told.as_ref().filter(|sign| sign.surprise > 0).map(|sign| sign.text.clone());
            told
        } else if super::is_of_host(&name.subject) || ill || verdict.probability < SURE {
            None
        } else {
            sight.map(|sight| sign(Measure::Other, name, decibans(verdict.probability), say(sight)))
        };
        let taught = usual && self.slow.teaches();
        if taught {
            self.remember(value);
        }
        Judged { told, taught, unusual }
    }

    /// Learns what was measured before this daemon began. Nothing is told.
    pub fn recall(&mut self, at: Timestamp, value: f64, teaches: bool) {
        self.heard = at;
        if teaches {
            self.series.observe(at, value, Learn::Yes);
            self.remember(value);
        }
    }

    fn remember(&mut self, value: f64) {
        self.usual.push(value);
        if self.usual.len() > MEMORY {
            self.usual.drain(..MEMORY / 4);
        }
    }

    /// A latency is compared with the middle of its last hour: many times as much, for half a minute, and the detector,
    /// which knows what this hour is like, finds that unusual (`odd`).
    fn latency(&mut self, now: Timestamp, value: f64, name: &Name, odd: bool) -> Option<NumberSign> {
        let usual = middle(&self.usual)?;
        let is_slow = value >= usual * SLOW_TIMES && value >= usual + SLOW_BY;
        let (slow, told) = match self.slow {
            Slow::No if is_slow => (Slow::Maybe(1, odd), false),
            Slow::Maybe(times, was_odd) if is_slow && !(times + 1 >= TOLD_AFTER && (odd || was_odd)) => {
                (Slow::Maybe(times + 1, odd || was_odd), false)
            }
            Slow::Maybe(..) if is_slow => (Slow::Yes { since: now, usual, fast: 0 }, true),
            Slow::No | Slow::Maybe(..) => (Slow::No, false),
            Slow::Yes { since, .. } if now.since(since) >= USUAL_AFTER => {
                self.usual.clear();
                self.slow = Slow::No;
                return Some(sign(Measure::Latency, name, 0, String::new()));
            }
            Slow::Yes { since, usual, fast } => {
                let fast = if value < usual * SLOW_TIMES * FAST_AGAIN { fast + 1 } else { 0 };
                if fast >= TOLD_AFTER {
                    self.slow = Slow::No;
                    return Some(sign(Measure::Latency, name, 0, String::new()));
                }
                (Slow::Yes { since, usual, fast }, true)
            }
        };
        self.slow = slow;
        let Slow::Yes { since, usual, .. } = slow else { return None };
        let (times, took) = (value / usual.max(1e-6), show(Duration::from_secs_f64(value)));
        let lasted = show(now.since(since) + super::ROLL_EVERY * TOLD_AFTER);
        let text = format!("{name} {times:.1}x its usual, {took}, for {lasted}");
        told.then(|| sign(Measure::Latency, name, 60, text))
    }
}

fn sign(measure: Measure, name: &Name, surprise: u16, text: String) -> NumberSign {
    let text = text.chars().take(256).collect();
    NumberSign { measure, series: name.to_string().chars().take(64).collect(), surprise, text }
}

/// A probability as decibans, 60 at most.
fn decibans(probability: f64) -> u16 {
    let odds = probability / (1.0 - probability).max(1e-6);
    (10.0 * odds.log10()).clamp(0.0, 60.0) as u16
}

fn middle(values: &[f64]) -> Option<f64> {
    if values.len() < YOUNG {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
