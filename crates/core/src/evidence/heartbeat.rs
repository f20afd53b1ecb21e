//! How long may a living subject be silent? A failure detector that learns it from the signs of life.
//!
//! It must never read a clock, act, or name a fault: it says how unusual a silence is, nothing more.
//!
//! # How it decides
//!
//! A deadline is a promise about *mistakes per hour* (suspicions of a live subject), not about one
//! heartbeat, because that is what a person feels (Chen, Toueg & Aguilera, "On the quality of service of
//! failure detectors", 2002). One setting serves every period and every kind of disturbance:
//!
//! 1. **The usual gap** is followed as a median (frugal streaming: one number and a step), so that lost
//!    heartbeats, pauses and the burst that follows a pause do not move it. Nothing needs to be told.
//! 2. **Only peaks matter.** A phi accrual detector fits one curve to *all* gaps (Hayashibara et al., 2004)
//!    and so describes the jitter, while the mistakes come from pauses, lost packets and black-outs. Here
//!    the gaps beyond the jitter are kept in bins of a third of an octave, and the tail is fitted to the
//!    largest of them alone: peaks over threshold (Pickands, 1975; Balkema & de Haan, 1974). The threshold
//!    is set by rate, so that the fit is carried forward by about the same factor after a day as after
//!    ten minutes.
//! 3. **What is not known yet is counted.** The excess of a peak is taken as exponential with an unknown mean
//!    (gamma prior), which makes the law of the next peak a generalized Pareto: few peaks, heavy tail, more
//!    patience. Disturbances of a kind *never seen so far* have their own rate, that falls as quiet time goes
//!    by (rule of succession). So a new subject gets more than a second, and a quiet one gets less each hour.
//! 4. **Disturbances come in groups** (a busy neighbour, a migration, a bad line). The jitter of the last
//!    minute of heartbeats tells the mood, and each mood remembers its own tail: what a bad line does is not
//!    forgotten on a good one, and a good one does not pay for it.
//! 5. **The budget is kept by feedback.** The detector sees its own mistakes: each makes it more careful, each
//!    hour without one a little bolder, within limits (adaptive conformal inference, Gibbs & Candès, 2021). So
//!    the long-run rate is the promised one even where the fitted tail is wrong, and a quiet hour pays for a
//!    rough one. Where waiting gains much (a long tail), a larger share of the budget is spent.
//!
//! Only arrival times are used. Where nothing ever goes wrong, what is left is a base from the arrivals and a
//! small margin, as in Bertier's detector (Bertier, Marin & Sens, 2002).
//!
//! All state is whole numbers and all arithmetic is exactly rounded (no `libm`, see `exact.rs`), so a checkpoint in any format
//! restores it exactly and a replay on another machine gives the same deadlines.

use super::exact::{exp2, log2, pow};
use serde::{Deserialize, Serialize};

/// Promised mistakes per hour of watching, in the long run.
const BUDGET: f64 = 0.75;
/// Mistakes per hour that a mood may start with, at a tail of [`USUAL_SCALE`]; feedback moves it.
const START: f64 = 0.55;
/// How strongly one mistake (or its absence) changes what is allowed: a factor of e^0.4.
const GAIN: f64 = 0.4;
/// The most that may be overdrawn, and saved, in mistakes: memory of the feedback, about four hours.
const OVERDRAFT: (f64, f64) = (-3.75, 2.5);
/// The tail scale, in microseconds, at which exactly the allowed share is spent.
const USUAL_SCALE: f64 = 400_000.0;

/// Peaks wanted for a fit: a few, and some per hour watched.
const PEAKS: (f64, f64) = (1.0, 18.0);
/// No fit is trusted as if it knew more peaks than this: keeps the tail a little heavy for ever.
const TRUSTED_PEAKS: f64 = 50.0;
/// Gamma prior of a peak's excess: worth so many peaks, of this mean in microseconds and in usual gaps.
const PRIOR: (f64, f64, f64) = (1.0, 300_000.0, 0.5);
/// Disturbances never seen so far: number, hours they are spread over, tail index; scale as in [`PRIOR`].
const UNSEEN: (f64, f64, f64) = (0.2, 0.1, 4.0);
const UNSEEN_SCALE: (f64, f64) = (500_000.0, 0.5);

/// The margin is never below this many usual gaps: one lost heartbeat is never enough.
const FLOOR: f64 = 1.05;
/// Until so many gaps were seen nothing is remembered as a peak.
const WARM: u32 = 8;
/// At first the margin is doubled; after so many gaps half of that is gone.
const YOUNG: u64 = 200;
/// A peak counts for no more than so many times the silence allowed then: a true outage that nobody
/// announced must not teach that outages are normal.
const PEAK_CAP: f64 = 2.0;

/// Bins of peaks, three per octave, from a quarter of the usual gap to some 400 of them.
const BINS: usize = 32;
const PER_OCTAVE: f64 = 3.0;
const FIRST_BIN: f64 = 0.25;
/// Excesses within so many mean deviations are jitter, not peaks.
const JITTER: f64 = 3.0;
/// One peak, in the bins: they fade by quarters, so a peak has eight parts.
const PEAK: u16 = 8;
/// What a mood remembers before all of it fades by a quarter, in microseconds of that mood.
const MEMORY: u64 = 8 * HOUR;
const HOUR: u64 = 3_600_000_000;

/// Weight of a new gap in the jitter; cap of one deviation; the moods begin at these jitters. All but the
/// first in usual gaps.
const JITTER_WEIGHT: f64 = 1.0 / 64.0;
const JITTER_CAP: f64 = 0.5;
const UNEASY: f64 = 1.0 / 50.0;
const ROUGH: f64 = 1.0 / 25.0;
/// Steps of the median, as parts of the usual gap: it doubles its pace while it runs one way.
const STEP: (f64, f64) = (1.0 / 1024.0, 0.2);
/// After so many copies in a row they are believed to be the new rhythm.
const COPIES: u8 = 64;
/// Fixed point of `jitter` and `step`.
const ONE: f64 = 16_777_216.0;

/// The learned rhythm of one subject on one channel.
///
/// Times are microseconds since boot, as in [`crate::time::Timestamp`]. There are no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)] // what each heartbeat touches lies side by side: among ten thousand subjects, memory is what costs
pub struct Heartbeat {
    /// The latest sign of life; `None`: nothing to measure a silence from.
    last: Option<u64>,
    /// How much of the silence since then was the observer's own.
    excused: u64,
    /// The median gap in nanoseconds; 0: not known.
    usual: u64,
    /// Mistakes made beyond the budget, in thousand millionths.
    overdraft: i64,
    /// Gaps seen.
    gaps: u32,
    /// The next step of the median.
    step: u32,
    /// Mean deviation from the usual gap, in usual gaps.
    jitter: u32,
    /// Heartbeats that a long gap has held up: they will come together.
    backlog: u32,
    /// The lower edge of the first bin is 2^(base/3) microseconds.
    base: i32,
    /// Copies in a row.
    copies: u8,
    /// Whether the median moved up last.
    rising: bool,
    mood: Mood,
    memories: [Memory; 3],
}

/// How unsteady the heartbeats are just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Mood {
    #[default]
    Calm,
    Uneasy,
    Rough,
}

/// What was seen in one mood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
struct Memory {
    /// How long it was watched, in microseconds.
    watched: u64,
    /// What follows from it: the silence allowed beyond the usual gap, in microseconds.
    margin: u64,
    /// When that is to be worked out again, as a value of `watched`.
    stale_at: u64,
    /// Number of peaks by size, in parts of [`PEAK`].
    peaks: [u16; BINS],
}

/// The law of silences beyond the usual gap: `per_hour * (1 + (x - from) / reach)^-index` exceed x (generalized
/// Pareto; x in microseconds).
struct Tail {
    per_hour: f64,
    from: f64,
    reach: f64,
    index: f64,
}

impl Heartbeat {
    /// A subject of which nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A sign of life arrived. Copies, bursts and times that go back are all right: they count as signs of
    /// life, and teach nothing wrong.
    pub fn observe(&mut self, at: u64) {
        let Some(last) = self.last else {
            self.last = Some(at);
            return;
        };
        let gap = at.saturating_sub(last.saturating_add(self.excused));
        let late = at > self.deadline();
        self.last = Some(last.max(at));
        self.excused = 0;
        if gap == 0 && self.usual == 0 {
            return;
        }
        self.gaps = self.gaps.saturating_add(1);
        self.learn_period(gap);
        let excess = micros(gap) - self.usual_micros();
        if self.gaps > WARM {
            self.keep_budget(gap, late);
            self.remember(gap, excess);
        }
        self.feel(excess);
        if self.memory().watched >= self.memory().stale_at {
            self.decide();
        }
    }

    /// When to begin to suspect if nothing more arrives: the last moment of usual silence, in microseconds.
    /// `u64::MAX` while there is nothing to measure from.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.last.map_or(u64::MAX, |last| {
            last.saturating_add(self.excused).saturating_add(self.usual()).saturating_add(self.margin())
        })
    }

    /// How much this silence speaks for the end of the subject, as a probability: 0 while the next sign of life
    /// is not even due, 0.5 exactly at the deadline, and but for rounding never falling as `now` grows. Its odds
    /// grow as silences so long get rarer in the fitted tail; there is no prior for failure in it, so weigh it with
    /// others.
    #[must_use]
    pub fn suspicion(&self, now: u64) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let due = last.saturating_add(self.excused).saturating_add(self.usual());
        let margin = micros(self.margin());
        let (tail, _) = self.widest_tail();
        let from = tail.from.min(margin);
        let rarity = |excess: f64| pow((1.0 + (excess - from) / tail.reach).max(0.0), tail.index);
        let rise = |excess: f64| (rarity(excess) - rarity(0.0)).max(f64::MIN_POSITIVE);
        let odds = rise(micros(now.saturating_sub(due))) / rise(margin);
        odds.min(f64::MAX) / (1.0 + odds.min(f64::MAX))
    }

    /// The usual gap between signs of life in microseconds; 0 while it is not known.
    #[must_use]
    pub const fn usual(&self) -> u64 {
        self.usual / 1_000
    }

    /// The latest sign of life.
    #[must_use]
    pub const fn last(&self) -> Option<u64> {
        self.last
    }

    /// The observer itself stood still for so many microseconds since the last sign of life: no silence.
    pub const fn stretch(&mut self, by: u64) {
        self.excused = self.excused.saturating_add(by);
    }

    /// The silence that now ends, or begins, has a known cause (a restart, a true failure, a frozen guest):
    /// suspect nothing until the next sign of life and learn nothing from the gap. What was learned stays.
    pub const fn interrupt(&mut self) {
        self.last = None;
        self.excused = 0;
        self.backlog = 0;
    }

    /// The silence allowed beyond the usual gap, in microseconds.
    fn margin(&self) -> u64 {
        let margin = match self.memory().margin {
            0 => whole(self.widest_tail().1),
            known => known,
        };
        margin.saturating_add(margin / (u64::from(self.gaps) + YOUNG) * YOUNG)
    }

    const fn memory(&self) -> &Memory {
        &self.memories[self.mood as usize]
    }

    fn usual_micros(&self) -> f64 {
        micros(self.usual) / 1_000.0
    }
}

/// Learning.
impl Heartbeat {
    /// Follows the median of the gaps.
    fn learn_period(&mut self, gap: u64) {
        let gap = gap.min(24 * HOUR) * 1_000;
        if self.usual == 0 {
            self.usual = gap;
            self.step = part(STEP.1);
        } else if self.gaps <= WARM && gap / 4 > self.usual {
            self.usual = gap; // those before were copies, or a burst
        } else if self.is_informative(gap) {
            let rising = gap > self.usual;
            let step = f64::from(self.step) / ONE;
            let step = if rising == self.rising { step * 1.5 } else { step * 0.5 }.clamp(STEP.0, STEP.1);
            self.rising = rising;
            self.step = part(step);
            let usual = micros(self.usual);
            self.usual = whole(if rising { usual * (1.0 + step) } else { usual / (1.0 + step) }).max(1_000);
        }
        self.shift_bins();
    }

    /// Whether a gap (in nanoseconds) says something about the period: not if it is one of those that were
    /// held up and come together, nor a copy, unless copies are all that comes.
    fn is_informative(&mut self, gap: u64) -> bool {
        let held_up = (gap.saturating_add(self.usual / 2) / self.usual).saturating_sub(1);
        if held_up > 0 {
            self.backlog = self.backlog.saturating_add(u32::try_from(held_up).unwrap_or(u32::MAX));
        } else if gap < self.usual / 2 && self.backlog > 0 {
            self.backlog -= 1;
            return false;
        } else if gap < self.usual / 8 && self.gaps > WARM {
            self.copies = self.copies.saturating_add(1);
            return self.copies > COPIES;
        } else {
            self.backlog = 0;
        }
        self.copies = 0;
        true
    }

    /// Keeps the bins where the usual gap is: they are times, so what was seen moves along.
    fn shift_bins(&mut self) {
        let base = (PER_OCTAVE * log2((FIRST_BIN * self.usual_micros()).max(1.0))).floor() as i32;
        let by = base.saturating_sub(self.base);
        if by.unsigned_abs() < 2 && self.gaps > 1 {
            return;
        }
        self.base = base;
        self.memories.iter_mut().for_each(|memory| memory.shift(by));
    }

    /// Lives within the budget: pays for a mistake, is paid by the hour.
    fn keep_budget(&mut self, gap: u64, late: bool) {
        let nano = |mistakes: f64| (mistakes * 1e9) as i64;
        let spent = nano(f64::from(late)) - nano(BUDGET * micros(gap.min(HOUR)) / micros(HOUR));
        self.overdraft = self.overdraft.saturating_add(spent).clamp(nano(OVERDRAFT.0), nano(OVERDRAFT.1));
        if late {
            self.memories.iter_mut().for_each(|memory| memory.stale_at = 0);
        }
    }

    /// Keeps a peak, and the time it was looked for, in the mood that was before it.
    fn remember(&mut self, gap: u64, excess: f64) {
        let usual = self.usual_micros();
        let cap = PEAK_CAP * (usual + micros(self.memory().margin));
        let is_peak = excess > (JITTER * f64::from(self.jitter) / ONE).max(FIRST_BIN) * usual;
        let bin = if is_peak { self.bin(excess.min(cap)) } else { None };
        let memory = &mut self.memories[self.mood as usize];
        memory.watched = memory.watched.saturating_add(gap.min(HOUR));
        if let Some(bin) = bin {
            memory.peaks[bin] = memory.peaks[bin].saturating_add(PEAK);
            memory.stale_at = 0;
        }
        if memory.watched > MEMORY || bin.is_some_and(|bin| memory.peaks[bin] > u16::MAX - PEAK) {
            memory.fade();
        }
    }

    /// Follows the jitter, and with it the mood.
    fn feel(&mut self, excess: f64) {
        let deviation = (excess.abs() / self.usual_micros()).min(JITTER_CAP);
        let jitter = f64::from(self.jitter) / ONE;
        let weight = JITTER_WEIGHT.max(1.0 / (f64::from(self.gaps) + 1.0));
        let jitter = jitter + weight * (deviation - jitter);
        self.jitter = part(jitter);
        self.mood = match jitter {
            jitter if jitter > ROUGH => Mood::Rough,
            jitter if jitter > UNEASY => Mood::Uneasy,
            _ => Mood::Calm,
        };
    }

    /// The bin of an excess in microseconds, if it is large enough for one.
    fn bin(&self, excess: f64) -> Option<usize> {
        let bin = (PER_OCTAVE * log2(excess.max(1.0))).floor() as i32;
        usize::try_from(bin.saturating_sub(self.base)).ok().map(|bin| bin.min(BINS - 1))
    }
}

/// Deciding.
impl Heartbeat {
    /// Works out the margin of the present mood from what it remembers; a calmer mood that is better known
    /// says what is the least.
    fn decide(&mut self) {
        let (_, margin) = self.widest_tail();
        let margin = margin.max(FLOOR * self.usual_micros());
        let (calmer, rest) = self.memories.split_at_mut(self.mood as usize);
        let memory = &mut rest[0];
        let better_known = calmer.iter().filter(|calm| calm.watched > memory.watched).map(|calm| calm.margin);
        memory.margin = better_known.fold(whole(margin).max(1), u64::max);
        memory.stale_at = memory.watched.saturating_add((memory.watched / 64).clamp(500_000, HOUR / 60));
    }

    /// Of the tail that was seen and the tail that may yet be, the one that asks for more patience, and how much.
    fn widest_tail(&self) -> (Tail, f64) {
        let (seen, unseen, allowed) = (self.seen(), self.unseen(), self.allowed());
        let (of_seen, of_unseen) = (seen.margin(allowed), unseen.margin(allowed));
        if of_seen > of_unseen { (seen, of_seen) } else { (unseen, of_unseen) }
    }

    /// Mistakes per hour that feedback allows just now.
    fn allowed(&self) -> f64 {
        START * exp2(-GAIN * std::f64::consts::LOG2_E * self.overdraft as f64 / 1e9)
    }

    /// The tail of the disturbances seen in this mood, fitted to the largest of them.
    fn seen(&self) -> Tail {
        let memory = self.memory();
        let hours = micros(memory.watched) / micros(HOUR);
        let wanted = (PEAKS.0 + PEAKS.1 * hours) * f64::from(PEAK);
        let (mut peaks, mut bin) = (0.0, BINS);
        let mut sum = 0.0;
        while bin > 0 && peaks < wanted {
            bin -= 1;
            let here = f64::from(memory.peaks[bin]);
            if here > 0.0 {
                peaks += here;
                sum += here * self.edge(bin as f64 + 0.5);
            }
        }
        let from = self.edge(bin as f64);
        let (peaks, sum) = (peaks / f64::from(PEAK), sum / f64::from(PEAK));
        let index = PRIOR.0 + peaks;
        let reach = PRIOR.0 * (PRIOR.1 + PRIOR.2 * self.usual_micros()) + (sum - peaks * from).max(0.0);
        let trusted = index.min(TRUSTED_PEAKS);
        Tail { per_hour: peaks / (UNSEEN.1 + hours), from, reach: reach * trusted / index, index: trusted }
    }

    /// The tail of the disturbances that were not seen so far.
    fn unseen(&self) -> Tail {
        let hours = micros(self.memory().watched) / micros(HOUR);
        let scale = UNSEEN_SCALE.0 + UNSEEN_SCALE.1 * self.usual_micros();
        Tail { per_hour: UNSEEN.0 / (UNSEEN.1 + hours), from: 0.0, reach: UNSEEN.2 * scale, index: UNSEEN.2 }
    }

    /// The lower edge of a bin in microseconds.
    fn edge(&self, bin: f64) -> f64 {
        exp2((f64::from(self.base) + bin) / PER_OCTAVE)
    }
}

impl Memory {
    /// Moves all peaks down by so many bins. What falls out below is jitter now; above, the last bin has it.
    fn shift(&mut self, by: i32) {
        let old = std::mem::replace(&mut self.peaks, [0; BINS]);
        for (bin, peaks) in (0_i32..).zip(old) {
            if let Ok(bin) = usize::try_from(bin.saturating_sub(by)) {
                let bin = bin.min(BINS - 1);
                self.peaks[bin] = self.peaks[bin].saturating_add(peaks);
            }
        }
        self.stale_at = 0;
    }

    /// Forgets a quarter.
    fn fade(&mut self) {
        self.peaks.iter_mut().for_each(|peaks| *peaks -= peaks.div_ceil(4));
        self.watched = self.watched / 4 * 3;
        self.stale_at = 0;
    }
}

impl Tail {
    /// The silence beyond the usual gap, in microseconds, that is exceeded as often as allowed.
    ///
    /// The least mean delay for a given number of mistakes would spend them in proportion to the scale of the
    /// tail; equal shares would ignore it. This spends them by its square root.
    fn margin(&self, allowed: f64) -> f64 {
        let mut scale = self.reach / self.index;
        let mut margin = self.from;
        for _ in 0..3 {
            let times = self.per_hour / (allowed * (scale / USUAL_SCALE).sqrt());
            margin = self.from + self.reach * (pow(times.max(1.0), 1.0 / self.index) - 1.0);
            scale = (self.reach + margin - self.from) / (self.index + 1.0);
        }
        margin
    }
}

/// Exact up to 2^53, which is 285 years of microseconds.
const fn micros(time: u64) -> f64 {
    time as f64
}

/// Saturates.
const fn whole(value: f64) -> u64 {
    value as u64
}

/// A part of one as a fixed-point number; saturates.
const fn part(value: f64) -> u32 {
    (value * ONE) as u32
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000;
    const SECOND: u64 = 1_000 * MS;

    /// A subject that answered so many times at this gap, and when it did last.
    fn steady(gap: u64, times: u64) -> (Heartbeat, u64) {
        let mut heartbeat = Heartbeat::new();
        (0..=times).for_each(|n| heartbeat.observe(n * gap));
        (heartbeat, times * gap)
    }

    /// Silence allowed after the latest sign of life.
    fn patience(heartbeat: &Heartbeat) -> u64 {
        heartbeat.deadline() - heartbeat.last().unwrap()
    }

    /// A generator for tests: whole numbers below a bound.
    fn below(bound: u64, state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % bound
    }

    #[test]
    fn nothing_is_suspected_before_the_first_sign_of_life() {
        let heartbeat = Heartbeat::new();
        assert_eq!(heartbeat.deadline(), u64::MAX);
        assert!(heartbeat.suspicion(u64::MAX) < 1e-9);
        assert_eq!((heartbeat.usual(), heartbeat.last()), (0, None));
    }

    #[test]
    fn a_new_subject_gets_patience_and_a_quiet_one_less_each_hour() {
        let (fresh, _) = steady(100 * MS, 20);
        let (warm, _) = steady(100 * MS, 3_000);
        let (known, _) = steady(100 * MS, 144_000);
        assert!(patience(&fresh) > SECOND, "{}", patience(&fresh));
        assert!(patience(&warm) < patience(&fresh));
        assert!(patience(&known) < 300 * MS, "{}", patience(&known));
    }

    #[test]
    fn every_period_is_learned_and_one_lost_heartbeat_is_never_enough() {
        for gap in [10 * MS, 100 * MS, SECOND, 10 * SECOND, 60 * SECOND] {
            let (heartbeat, _) = steady(gap, 20_000);
            assert!(heartbeat.usual().abs_diff(gap) <= gap / 100, "{gap}: {}", heartbeat.usual());
            assert!(patience(&heartbeat) > 2 * gap, "{gap}: {}", patience(&heartbeat));
            assert!(patience(&heartbeat) < 3 * gap + 500 * MS, "{gap}: {}", patience(&heartbeat));
        }
    }

    #[test]
    fn a_burst_after_a_pause_does_not_change_what_is_usual() {
        let (mut heartbeat, mut at) = steady(100 * MS, 1_000);
        for _ in 0..20 {
            at += 30 * SECOND; // nothing is sent for this long, then all of it
            (0..300).for_each(|n| heartbeat.observe(at + n * 10));
            (1..50).for_each(|n| heartbeat.observe(at + n * 100 * MS));
            at += 5 * SECOND;
        }
        assert!(heartbeat.usual().abs_diff(100 * MS) <= 3 * MS, "{}", heartbeat.usual());
    }

    #[test]
    fn copies_teach_nothing() {
        let mut heartbeat = Heartbeat::new();
        (0..2_000).for_each(|n| (0..3).for_each(|copy| heartbeat.observe(n * 100 * MS + copy)));
        assert!(heartbeat.usual().abs_diff(100 * MS) <= 3 * MS, "{}", heartbeat.usual());
    }

    #[test]
    fn a_time_that_goes_back_is_a_sign_of_life_that_changes_no_deadline_for_the_worse() {
        let (mut heartbeat, at) = steady(100 * MS, 1_000);
        let before = heartbeat.deadline();
        heartbeat.observe(at - 40 * SECOND);
        assert_eq!(heartbeat.last(), Some(at));
        assert!(heartbeat.deadline() >= before);
    }

    #[test]
    fn a_new_period_is_learned_both_ways() {
        let (mut heartbeat, mut at) = steady(100 * MS, 36_000);
        for gap in [SECOND, 20 * MS] {
            for _ in 0..3_000 {
                at += gap;
                heartbeat.observe(at);
            }
            assert!(heartbeat.usual().abs_diff(gap) <= gap / 50, "{gap}: {}", heartbeat.usual());
        }
    }

    #[test]
    fn what_was_seen_keeps_its_length_when_the_period_changes() {
        let mut heartbeat = Heartbeat::new();
        let mut at = 0;
        for n in 0..40_000 {
            at += if n % 500 == 499 { 900 * MS } else { 100 * MS };
            heartbeat.observe(at);
        }
        let before = patience(&heartbeat) - heartbeat.usual();
        for _ in 0..2_000 {
            at += 300 * MS;
            heartbeat.observe(at);
        }
        let after = patience(&heartbeat) - heartbeat.usual();
        assert!(before > 700 * MS && after.abs_diff(before) < before / 2, "{before} {after}");
    }

    #[test]
    fn the_observers_own_pause_is_no_silence() {
        let (mut heartbeat, at) = steady(SECOND, 1_000);
        let (before, usual) = (heartbeat.deadline(), heartbeat.clone());
        heartbeat.stretch(30 * SECOND);
        assert_eq!(heartbeat.deadline(), before + 30 * SECOND);
        assert!(heartbeat.suspicion(at + 31 * SECOND) < 0.01);
        heartbeat.observe(at + 31 * SECOND);
        assert_eq!(heartbeat.memories[0].peaks, usual.memories[0].peaks, "learned as a silence");
        heartbeat.stretch(u64::MAX);
        assert_eq!(heartbeat.deadline(), u64::MAX);
        heartbeat.observe(at + 32 * SECOND);
        assert!(patience(&heartbeat) < 3 * SECOND, "for ever blind");
    }

    #[test]
    fn an_announced_outage_teaches_nothing() {
        let (mut heartbeat, at) = steady(SECOND, 1_000);
        let before = patience(&heartbeat);
        heartbeat.interrupt();
        assert_eq!(heartbeat.deadline(), u64::MAX);
        heartbeat.observe(at + 600 * SECOND);
        assert_eq!(patience(&heartbeat), before);
    }

    #[test]
    fn an_outage_that_nobody_announced_teaches_little() {
        let (mut heartbeat, at) = steady(100 * MS, 72_000);
        (0..1_000).for_each(|n| heartbeat.observe(at + 1_800 * SECOND + n * 100 * MS));
        assert!(patience(&heartbeat) < 3 * SECOND, "{}", patience(&heartbeat));
    }

    #[test]
    fn suspicion_is_one_half_at_the_deadline() {
        for times in [1, 5, 30, 3_000] {
            let (heartbeat, at) = steady(100 * MS, times);
            assert!(heartbeat.suspicion(at + 50 * MS) < 1e-9);
            assert!((heartbeat.suspicion(heartbeat.deadline()) - 0.5).abs() < 1e-9);
            assert!(heartbeat.suspicion(heartbeat.deadline() + 60 * SECOND) > 0.99);
        }
    }

    /// Two bad lines of the test's own making; the promise is one mistake an hour, on the long run.
    #[test]
    fn mistakes_stay_within_the_budget_where_bursts_are_lost_and_where_the_subject_pauses() {
        for pauses in [false, true] {
            let (mut heartbeat, mut dice) = (Heartbeat::new(), 7);
            let (mut due, mut mistakes, mut patient, hours) = (0, 0, 0, 48);
            while due < hours * HOUR {
                due += 100 * MS;
                if below(1_200, &mut dice) == 0 {
                    if pauses {
                        due += (20 * MS) << below(6, &mut dice);
                    } else {
                        while below(4, &mut dice) > 0 {
                            due += 100 * MS;
                        }
                    }
                }
                let at = due + below(5 * MS, &mut dice);
                mistakes += u64::from(at > heartbeat.deadline());
                heartbeat.observe(at);
                patient += patience(&heartbeat);
            }
            assert!(mistakes <= hours, "{mistakes} mistakes in {hours} hours");
            let mean = patient / (hours * HOUR / (100 * MS));
            assert!(mean < if pauses { SECOND } else { 2 * SECOND }, "{mean}");
        }
    }

    #[test]
    fn a_bad_hour_is_remembered_through_good_ones() {
        let (mut heartbeat, mut dice, mut at) = (Heartbeat::new(), 7, 0);
        let mut hour = |bad: bool, heartbeat: &mut Heartbeat| {
            let end = at + HOUR;
            while at < end {
                at += 90 * MS + below(if bad { 30 } else { 1 } * MS, &mut dice);
                if bad && below(1_000, &mut dice) == 0 {
                    at += 1_500 * MS;
                }
                heartbeat.observe(at);
            }
            patience(heartbeat)
        };
        let bad = hour(true, &mut heartbeat);
        let good = hour(false, &mut heartbeat).min(hour(false, &mut heartbeat));
        for _ in 0..600 {
            at += 90 * MS + below(30 * MS, &mut dice);
            heartbeat.observe(at);
        }
        assert!(good < 600 * MS && bad > 1_500 * MS && patience(&heartbeat) > 1_500 * MS, "{good} {bad}");
    }

    #[test]
    fn it_is_small_for_there_is_one_per_channel() {
        assert!(size_of::<Heartbeat>() <= 336, "{}", size_of::<Heartbeat>());
    }

    /// What powers may be wrong by.
    const ROUNDING: f64 = 1e-12;

    proptest! {
        #[test]
        fn whatever_comes_the_answers_make_sense(
            steps in prop::collection::vec((0_u8..12, prop_oneof![0_u64..3, 0_u64..5_000_000, any::<u64>()]), 1..300),
        ) {
            let mut heartbeat = Heartbeat::new();
            let mut at = 0_u64;
            for (what, by) in steps {
                match what {
                    0 => heartbeat.stretch(by),
                    1 => heartbeat.interrupt(),
                    2 => heartbeat.observe(at.saturating_sub(by)),
                    _ => {
                        at = at.saturating_add(by);
                        heartbeat.observe(at);
                    }
                }
                let deadline = heartbeat.deadline();
                prop_assert!(deadline >= heartbeat.last().unwrap_or(u64::MAX));
                let mut before = 0.0;
                for now in [0, at, deadline, deadline.saturating_add(by), u64::MAX] {
                    let suspicion = heartbeat.suspicion(now.max(at));
                    prop_assert!((0.0..=1.0).contains(&suspicion), "{}", suspicion);
                    prop_assert!(now < deadline || suspicion >= before - ROUNDING, "{suspicion} {before}");
                    before = suspicion;
                }
            }
        }

        #[test]
        fn a_checkpoint_goes_on_as_if_nothing_had_been(
            gaps in prop::collection::vec(0_u64..3_000_000, 1..200), cut in 0_usize..200,
        ) {
            let (mut kept, mut at) = (Heartbeat::new(), 0);
            let mut restored: Option<Heartbeat> = None;
            for (n, gap) in gaps.into_iter().enumerate() {
                at += gap;
                kept.observe(at);
                if let Some(restored) = &mut restored {
                    restored.observe(at);
                    prop_assert_eq!(&*restored, &kept);
                } else if n == cut {
                    restored = Some(serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap());
                }
            }
        }
    }
}
