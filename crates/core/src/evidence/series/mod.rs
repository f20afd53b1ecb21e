//! Is something wrong with this series of numbers now? An online detector: one value after the other, each judged by
//! those before it alone. It must never read a clock, act, or name a fault: it says how unusual a value is.
//!
//! # How it decides
//!
//! 1. **Seven views**, none of which needs a setting: the value beside its recent mean; beside a forecast from the most
//!    similar moments of the past (the method of analogues); the unlikeness of the latest stretch to every earlier one
//!    (a discord); the value, and the mean of the last two dozen, beside what is usual at this hour; the latest median
//!    beside the one before (level); the movement from row to row beside what it was (spread).
//! 2. **Each view is compared with its own history**, as block maxima with a Hill tail (`tail.rs`). So scale, noise and
//!    units do not matter, and what a series does now and then is no surprise.
//! 3. **The surprises become one chance**, a truncated product, and that a probability that was learned (`odds.rs`).
//! 4. **One alarm for one trouble** (`hush.rs`): whatever was told, however weakly, is not told again for three hundredths
//!    of what was seen, unless it becomes much stronger.
//!
//! Standing still and silence are judged by the lengths of earlier pauses (`pause.rs`). `docs/metrics.md` has the
//! formulas, what was measured, and what this cannot see.
//!
//! Memory is bounded: about 120 KiB a series, however long it is, and twice that while an incident lasts. All
//! arithmetic is exactly rounded (no `libm`, see `exact.rs`), so a replay on another machine gives the same bits.

mod hush;
mod odds;
mod past;
mod pause;
mod season;
mod sight;
mod spread;
mod tail;

pub use sight::{Sight, SightKind};

use crate::time::{Duration, Timestamp};
use hush::Hush;
use past::{Past, median};
use pause::Pauses;
use season::Season;
use spread::Spread;
use std::collections::VecDeque;
use tail::Tail;

/// Nothing is told before so many rows were seen.
const YOUNG: u64 = 128;
/// Values are held within these, so that no sum of them is infinite.
const LARGEST: f64 = 1e100;
/// The recent mean: older values count half after 50 rows (2^(-1/50)).
const RECENT: f64 = 0.986_232_704_493_358_7;
/// Rows of the level now and of the level before, and how many of the latter are needed.
const LEVEL: (usize, usize, usize) = (40, 300, 30);
/// Rows over which the season's error is averaged.
const SEASON: usize = 24;
/// Where there is a season, it says best what is unusual, also if another view is more surprised by up to this factor.
const SEASON_SAYS: f64 = 2.0;
/// Rows after which an unlike stretch, a moved median or a change of movement is plain to see: since when it has held.
const SHAPE_AGE: usize = 12;
const LEVEL_AGE: usize = LEVEL.0 / 2;
const SPREAD_AGE: usize = 10;
/// Values in a row that are the same before the series is said to stand still.
const STILL: u32 = 3;
/// A silence of this many usual intervals is one.
const SILENT: f64 = 3.0;
/// A silence is told when something is more likely wrong than not.
const TOLD: f64 = 0.5;
/// Steps of the usual interval, as a part of it: it follows the median.
const INTERVAL_STEP: f64 = 1.0 / 64.0;

/// Whether a value teaches what is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// It does.
    Yes,
    /// It does not: it belongs to an incident. A copy of the detector watches on until values teach again; what is usual
    /// stays as it was before.
    No,
}

/// What is thought of one value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The probability, 0 to 1, that something is wrong, where that is news: one alarm for one trouble.
    pub probability: f64,
    /// The same, news or not.
    pub wrong: f64,
    /// What speaks for it most, if anything does.
    pub sight: Option<Sight>,
}

/// The detector of one series. There are no settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    usual: Usual,
    /// Watches on while an incident's values are not to be learned from.
    aside: Option<Box<Usual>>,
}

impl Series {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges a value by those before it, and learns from it if it is to. A value that is not finite is missing. Time
    /// that goes back stands still.
    pub fn observe(&mut self, at: Timestamp, value: f64, learn: Learn) -> Verdict {
        match learn {
            Learn::Yes => {
                self.aside = None;
                self.usual.observe(at, value)
            }
            Learn::No => {
                let aside = self.aside.get_or_insert_with(|| Box::new(self.usual.clone()));
                let verdict = aside.observe(at, value);
                self.usual.stand_in(at);
                verdict
            }
        }
    }

    /// Judges that nothing came until this moment.
    pub fn silence(&mut self, at: Timestamp) -> Verdict {
        let watching = self.aside.as_deref_mut().unwrap_or(&mut self.usual);
        watching.silence(at)
    }

    /// The season of the calendar that the series has, if any: a day or a week.
    #[must_use]
    pub fn season(&self) -> Option<Duration> {
        self.usual.season.length()
    }
}

/// All that is known of a series.
#[derive(Clone, Debug, Default, PartialEq)]
struct Usual {
    rows: u64,
    /// Times of the latest rows, newest last.
    times: VecDeque<Timestamp>,
    past: Past,
    season: Season,
    spread: Spread,
    /// The recent mean, and the weight of what is in it.
    mean: f64,
    weight: f64,
    /// The latest errors of the season.
    errors: VecDeque<f64>,
    tails: [Tail; VIEWS],
    /// What all views together weighed.
    all: Tail,
    /// How often the latest value came in a row, and pauses of both kinds.
    same: u32,
    still: Pauses,
    silent: Pauses,
    silence_told: bool,
    /// The usual interval between values, in seconds.
    interval: f64,
    hush: Hush,
}

/// The views, in the order of [`Usual::look`].
const VIEWS: usize = 7;

/// One view of a row: how strange it looks, on the view's own scale, and what that would mean.
#[derive(Clone, Copy, Debug, PartialEq)]
struct View {
    strange: f64,
    kind: SightKind,
    value: f64,
    usual: f64,
    /// Rows since it has held.
    age: usize,
}

impl View {
    /// Two values side by side.
    fn of(kind: SightKind, value: f64, usual: f64, age: usize) -> Self {
        Self { strange: (value - usual).abs(), kind, value, usual, age }
    }
}

impl Usual {
    fn observe(&mut self, at: Timestamp, value: f64) -> Verdict {
        let at = self.times.back().map_or(at, |&last| last.max(at));
        if !value.is_finite() {
            return self.silence(at);
        }
        let value = value.clamp(-LARGEST, LARGEST);
        self.heard(at);
        let flat = self.stood_still(at, value);
        let views = self.look(at, value);
        let mut total = 0.0;
        let mut most: Option<(f64, View)> = None;
        for (view, tail) in views.into_iter().zip(&mut self.tails) {
            let Some(view) = view else { continue };
            let weight = odds::weight(tail.surprise(view.strange));
            total += weight;
            let says = weight * if view.kind == SightKind::Season { SEASON_SAYS } else { 1.0 };
            if says > 0.0 && most.is_none_or(|(heaviest, _)| says > heaviest) {
                most = Some((says, view));
            }
            tail.learn(view.strange);
        }
        let sight = most.map(|(_, view)| self.sight(at, view));
        let reached = self.all.reached(total);
        self.all.learn(total);
        let chance = (odds::by_chance(total, VIEWS as u32) * (1.0 + reached as f64)).min(1.0);
        let seen = (chance, sight);
        self.judge(seen, flat)
    }

    /// All views of a row; with that, it is part of the past.
    fn look(&mut self, at: Timestamp, value: f64) -> [Option<View>; VIEWS] {
        self.season.turn(at);
        let (recent, forecast, usual) = (self.recent(value), self.past.forecast(), self.season.usual());
        self.rows += 1;
        self.row_at(at);
        self.past.push(value);
        self.season.learn(value, value - recent);
        self.weight = self.weight * RECENT + 1.0;
        self.mean = recent + (value - recent) / self.weight;
        let (hour, hours) = match self.season.length() {
            Some(_) => (SightKind::Season, SightKind::Season),
            None => (SightKind::Spike, SightKind::Level),
        };
        let unlike = self.past.unlike().map(|strange| View {
            strange,
            kind: SightKind::Shape,
            value,
            usual: forecast.unwrap_or(value),
            age: SHAPE_AGE,
        });
        let moved = self.spread.learn(value).map(|movement| View {
            strange: movement.strange,
            kind: SightKind::Spread,
            value: movement.now,
            usual: movement.usual,
            age: SPREAD_AGE,
        });
        [
            Some(View::of(SightKind::Spike, value, recent, 0)),
            forecast.map(|forecast| View::of(SightKind::Spike, value, forecast, 0)),
            unlike,
            usual.map(|usual| View::of(hour, value, usual, 0)),
            self.off_season(value, usual, hours),
            self.level(),
            moved,
        ]
    }

    fn row_at(&mut self, at: Timestamp) {
        if self.times.len() > LEVEL.0 {
            self.times.pop_front();
        }
        self.times.push_back(at);
    }

    /// The recent mean before this value, which is the first one's own.
    fn recent(&self, value: f64) -> f64 {
        if self.rows == 0 { value } else { self.mean }
    }

    /// The mean of the latest values beside what was usual for them.
    fn off_season(&mut self, value: f64, usual: Option<f64>, kind: SightKind) -> Option<View> {
        let Some(usual) = usual else {
            self.errors.clear();
            return None;
        };
        if self.errors.len() == SEASON {
            self.errors.pop_front();
        }
        self.errors.push_back(value - usual);
        if self.errors.len() < SEASON {
            return None;
        }
        let values = &self.past.latest()[..SEASON];
        let mean = values.iter().sum::<f64>() / SEASON as f64;
        let error = self.errors.iter().sum::<f64>() / SEASON as f64;
        Some(View { strange: error.abs(), kind, value: mean, usual: mean - error, age: SEASON })
    }

    /// The median of the latest values beside that of those before.
    fn level(&self) -> Option<View> {
        let (now, before, least) = LEVEL;
        let latest = self.past.latest();
        if latest.len() < now + least {
            return None;
        }
        let mut values = [0.0; LEVEL.0 + LEVEL.1];
        let known = latest.len().min(now + before);
        values[..known].copy_from_slice(&latest[..known]);
        let (new, old) = values[..known].split_at_mut(now);
        Some(View::of(SightKind::Level, median(new)?, median(old)?, LEVEL_AGE))
    }

    fn sight(&self, at: Timestamp, view: View) -> Sight {
        let since = self.times.iter().rev().nth(view.age).or(self.times.front()).copied();
        Sight { kind: view.kind, since: since.unwrap_or(at), at, value: view.value, usual: view.usual }
    }

    /// Notes that a value came: how long after the one before, and that a silence is over.
    fn heard(&mut self, at: Timestamp) {
        let Some(&last) = self.times.back() else { return };
        self.silent.go_on(last, at);
        self.silent.end(at);
        self.silence_told = false;
        let gap = at.since(last).as_secs_f64();
        let step = if gap > self.interval { INTERVAL_STEP } else { -INTERVAL_STEP };
        self.interval = if self.interval > 0.0 { self.interval * (1.0 + step) } else { gap };
    }

    /// Notes whether the value is the one before, and says how strange that is after a while.
    fn stood_still(&mut self, at: Timestamp, value: f64) -> Option<(f64, Sight)> {
        let last = *self.times.back()?;
        if self.past.latest().first() != Some(&value) {
            self.same = 0;
            self.still.end(last);
            return None;
        }
        self.same = self.same.saturating_add(1);
        let pause = self.still.go_on(last, at);
        if self.same < STILL { None } else { told(SightKind::Flat, &pause, at) }
    }

    /// Nothing came until now. A silence is told once, and hushes nothing.
    fn silence(&mut self, at: Timestamp) -> Verdict {
        let Some(&last) = self.times.back() else { return Verdict::default() };
        if self.rows < YOUNG || at.since(last).as_secs_f64() <= self.interval * SILENT {
            return Verdict::default();
        }
        let Some((chance, sight)) = told(SightKind::Missing, &self.silent.go_on(last, at), at) else {
            return Verdict::default();
        };
        let wrong = odds::wrong_silence(chance);
        let news = wrong >= TOLD && !std::mem::replace(&mut self.silence_told, wrong >= TOLD);
        Verdict { probability: if news { wrong } else { 0.0 }, wrong, sight: Some(sight) }
    }

    /// The less likely of what was seen, as a verdict.
    fn judge(&mut self, seen: (f64, Option<Sight>), flat: Option<(f64, Sight)>) -> Verdict {
        if self.rows < YOUNG {
            return Verdict::default();
        }
        let (chance, sight) = match flat {
            Some((chance, sight)) if chance < seen.0 => (chance, Some(sight)),
            _ => seen,
        };
        let wrong = odds::wrong(chance);
        let news = self.hush.lets(self.rows, -odds::ln(chance));
        Verdict { probability: if news { wrong } else { 0.0 }, wrong, sight }
    }

    /// A row of an incident: what is usual stands in for its value, so that rows stay rows. A pause that an incident was
    /// part of is not one that there was.
    fn stand_in(&mut self, at: Timestamp) {
        let at = self.times.back().map_or(at, |&last| last.max(at));
        self.season.turn(at);
        let usual = self.season.length().and_then(|_| self.season.usual());
        self.same = 0;
        self.still.break_off();
        self.silent.break_off();
        self.row_at(at);
        let Some(value) = usual.or_else(|| self.past.forecast()) else { return };
        self.past.push(value);
        self.rows += 1;
    }
}

/// What a pause is worth: its chance, and what it is.
fn told(kind: SightKind, pause: &pause::Pause, at: Timestamp) -> Option<(f64, Sight)> {
    let weight = odds::weight(pause.surprise);
    (weight > 0.0).then(|| {
        let lasted = pause.lasted.as_secs_f64();
        let sight = Sight { kind, since: pause.since, at, value: lasted, usual: pause.longest };
        (odds::by_chance(weight, 1), sight)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTES: u64 = 5;

    /// Noise between -1 and 1, mostly small, in an order without pattern.
    fn noise(seed: u64, n: u64) -> f64 {
        let mut state = (seed << 32) ^ n;
        let mut sum = 0.0;
        for _ in 0..4 {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            sum += (mixed >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
        }
        sum / 2.0
    }

    fn at(n: u64) -> Timestamp {
        Timestamp::from_secs(n * MINUTES * 60)
    }

    /// What is told of these values, with its row.
    fn told(rows: u64, value: impl Fn(u64) -> f64) -> Vec<(u64, Sight)> {
        let mut series = Series::new();
        let verdicts = (0..rows).map(|n| (n, series.observe(at(n), value(n), Learn::Yes)));
        verdicts
            .filter(|(_, verdict)| verdict.probability >= 0.5)
            .filter_map(|(n, v)| Some((n, v.sight?)))
            .collect()
    }

    /// A day that rises to noon and falls, five minutes a row, with a little noise.
    fn day(n: u64) -> f64 {
        let hour = (n * MINUTES % 1_440) as f64 / 60.0;
        100.0 - (hour - 12.0).powi(2) / 2.0 + noise(7, n)
    }

    #[test]
    fn what_never_changes_is_never_told() {
        for value in [0.0, -3.5, 1e300, 1e-300] {
            assert_eq!(told(6_000, |_| value), []);
        }
    }

    #[test]
    fn steady_noise_gives_few_alarms() {
        let told = |seed| told(5_000, move |n| 50.0 + noise(seed, n)).into_iter().map(|(n, _)| n);
        let alarms: Vec<u64> = (0..10).flat_map(told).collect();
        let settled = alarms.iter().filter(|n| **n >= 1_000).count();
        assert!(alarms.len() <= 30 && settled <= 12, "in 10 series of 5,000 rows: {alarms:?}");
    }

    #[test]
    fn a_spike_is_told_on_its_row() {
        let told = told(3_000, |n| if n == 2_500 { 60.0 } else { 50.0 + noise(1, n) });
        let spike = told.iter().find(|(n, _)| *n == 2_500).map(|(_, sight)| sight.kind);
        assert_eq!(spike, Some(SightKind::Spike), "{told:?}");
    }

    #[test]
    fn a_step_is_told_soon_and_not_for_ever() {
        let told = told(4_000, |n| noise(2, n) + if n >= 2_500 { 54.0 } else { 50.0 });
        let after: Vec<u64> = told.iter().map(|(n, _)| *n).filter(|n| *n >= 2_500).collect();
        assert!(after.first().is_some_and(|first| *first < 2_512), "{after:?}");
        assert!(after.iter().all(|n| *n < 3_000), "then it is the usual level: {after:?}");
    }

    #[test]
    fn a_day_that_does_not_come_is_told_as_not_usual_for_the_hour() {
        let lost = 10 * 288;
        let told = told(lost + 288, |n| if n >= lost { 28.0 + noise(7, n) } else { day(n) });
        assert!(told.iter().any(|(n, sight)| *n >= lost && sight.kind == SightKind::Season), "{told:?}");
        let first = told.iter().map(|(n, _)| n - lost.min(*n)).find(|late| *late > 0);
        assert!(first.is_some_and(|late| late < 288 / 2), "before noon: {first:?}");
    }

    #[test]
    fn the_season_is_found() {
        let mut series = Series::new();
        for n in 0..288 * 8 {
            series.observe(at(n), day(n), Learn::Yes);
        }
        assert_eq!(series.season(), Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn more_movement_around_the_same_level_is_told() {
        let told = told(3_000, |n| 50.0 + noise(3, n) * if n >= 2_500 { 6.0 } else { 1.0 });
        assert!(told.iter().any(|(n, _)| (2_500..2_600).contains(n)), "{told:?}");
    }

    #[test]
    fn silence_is_told_once_and_only_if_it_is_longer_than_ever() {
        let mut series = Series::new();
        for n in 0..1_000 {
            series.observe(at(n), noise(4, n), Learn::Yes);
        }
        assert_eq!(series.silence(at(1_000)).wrong, 0.0);
        let silent = series.silence(at(1_020));
        assert_eq!(silent.sight.as_ref().map(|sight| sight.kind), Some(SightKind::Missing));
        assert!(silent.probability > 0.9, "{silent:?}");
        let again = series.observe(at(1_021), f64::NAN, Learn::Yes);
        assert!(again.probability == 0.0 && again.wrong > 0.9, "a value that is none is silence: {again:?}");
        assert!(series.observe(at(1_022), 0.1, Learn::Yes).wrong < 0.5, "and it is over");
    }

    #[test]
    fn what_stands_still_is_told_if_it_never_did_so_long() {
        let told = told(2_400, |n| (noise(5, if n >= 2_000 { 2_000 } else { n }) * 4.0).round());
        assert!(told.iter().any(|(n, sight)| *n > 2_000 && sight.kind == SightKind::Flat), "{told:?}");
    }

    #[test]
    fn an_incident_teaches_nothing() {
        let value =
            |n: u64| noise(6, n) + if (2_000..2_300).contains(&n) || n >= 2_500 { 60.0 } else { 50.0 };
        let mut series = Series::new();
        let mut first = Series::new();
        for n in 0..2_500 {
            let learn = if (2_000..2_300).contains(&n) { Learn::No } else { Learn::Yes };
            let verdict = series.observe(at(n), value(n), learn);
            assert_eq!(
                first.observe(at(n), value(n), Learn::Yes).wrong >= 0.5 && n == 2_000,
                verdict.wrong >= 0.5 && n == 2_000
            );
        }
        let taught = first.observe(at(2_500), value(2_500), Learn::Yes).wrong;
        let clean = series.observe(at(2_500), value(2_500), Learn::Yes);
        assert!(clean.probability > 0.9 && clean.wrong > taught, "{clean:?} against {taught}");
    }

    #[test]
    fn pauses_that_an_incident_is_part_of_are_not_learned() {
        // Every seventh row is missing; then an incident, of which two rows come, with hours of silence before and between.
        let mut series = Series::new();
        for n in (0..1_000).filter(|n| n % 7 != 0) {
            series.observe(at(n), noise(9, n), Learn::Yes);
        }
        let (silent, still) = (series.usual.silent.longest, series.usual.still.longest);
        series.observe(at(1_060), 3.0, Learn::No);
        series.observe(at(1_120), 3.0, Learn::No);
        for n in 1_121..1_130 {
            series.observe(at(n), noise(9, n), Learn::Yes);
        }
        assert_eq!((series.usual.silent.longest, series.usual.still.longest), (silent, still));
    }

    #[test]
    fn units_do_not_matter() {
        let (mut one, mut other) = (Series::new(), Series::new());
        for n in 0..2_000 {
            let value = noise(8, n) + if n > 1_500 { 3.0 } else { 0.0 };
            let (a, b) = (
                one.observe(at(n), value, Learn::Yes),
                other.observe(at(n), value * 1_048_576.0, Learn::Yes),
            );
            assert!((a.wrong - b.wrong).abs() < 1e-6, "row {n}: {a:?} {b:?}");
        }
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(f64::MAX),
            Just(f64::MIN),
            -9.0..9.0
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_comes_it_is_a_probability_and_memory_is_bounded(
            rows in proptest::collection::vec((any::<u64>(), any_value(), any::<bool>()), 1..600),
            steady in any::<bool>(),
        ) {
            let (mut series, mut again) = (Series::new(), Series::new());
            for (n, (time, value, learns)) in rows.into_iter().enumerate() {
                let at = if steady { at(n as u64) } else { Timestamp::from_micros(time) };
                let learn = if learns || n < 300 { Learn::Yes } else { Learn::No };
                let verdict = series.observe(at, value, learn);
                prop_assert!((0.0..=1.0).contains(&verdict.wrong), "{verdict:?}");
                prop_assert!(verdict.probability == 0.0 || verdict.probability == verdict.wrong);
                prop_assert_eq!(&verdict, &again.observe(at, value, learn), "the same again");
                if let Some(sight) = &verdict.sight {
                    prop_assert!(sight.since <= sight.at && !sight.say("it").is_empty());
                    prop_assert!(sight.value.is_finite() && sight.usual.is_finite(), "{:?}", sight);
                }
                let quiet = series.silence(Timestamp::from_micros(time));
                prop_assert!((0.0..=1.0).contains(&quiet.wrong));
                prop_assert_eq!(quiet, again.silence(Timestamp::from_micros(time)));
            }
            prop_assert!(series.usual.times.len() <= LEVEL.0 + 1 && series.usual.errors.len() <= SEASON);
            prop_assert!(series.usual.past.latest().len() <= past::LAGS);
        }
    }
}
