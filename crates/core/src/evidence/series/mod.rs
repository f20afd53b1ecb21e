//! Is something wrong with this series of numbers now? An online detector: one value after the other, each judged by
//! those before it alone. It must never read a clock, act, or name a fault: it says how unusual a value is.
//!
//! # How it decides
//!
//! 1. **Seven views**, none of which needs a setting: the value beside its recent mean; beside a forecast from the most
//!    similar moments of the past (the method of analogues); the unlikeness of the latest stretch to every earlier one
//!    (a discord); the value, and the mean of a day's worth, beside what is usual at this hour; the latest median beside
//!    the one before (level); the movement from row to row beside what it was (spread).
//! 2. **Each view is compared with its own history**, as block maxima with a Hill tail ([`tail`]). So scale, noise and
//!    units do not matter, and what a series does now and then is no surprise.
//! 3. **The surprises become one p-value**, a truncated product, and that a probability ([`odds`]).
//! 4. **One alarm for one trouble** ([`hush`]): quiet for three hundredths of what was seen, unless much stronger.
//!
//! Standing still and silence are judged by the lengths of earlier pauses ([`pause`]).
//!
//! Memory is bounded: some 150 KiB a series, however long it is. All arithmetic is exactly rounded (no `libm`, see
//! `exact.rs`), so a replay on another machine gives the same bits.

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
/// Rows after which an unlike stretch, a moved median or a change of movement is plain to see: since when it has held.
const SHAPE_AGE: usize = 12;
const LEVEL_AGE: usize = LEVEL.0 / 2;
const SPREAD_AGE: usize = 10;
/// Values in a row that are the same before the series is said to stand still.
const STILL: u32 = 3;
/// A silence of this many usual intervals is one.
const SILENT: f64 = 3.0;
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
    /// How often the latest value came in a row, and pauses of both kinds.
    same: u32,
    still: Pauses,
    silent: Pauses,
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
        let silence = self.heard(at);
        let flat = self.stood_still(at, value);
        let views = self.look(at, value);
        let mut total = 0.0;
        let mut most: Option<(f64, View)> = None;
        for (view, tail) in views.into_iter().zip(&mut self.tails) {
            let Some(view) = view else { continue };
            let weight = odds::weight(tail.surprise(view.strange));
            total += weight;
            if weight > 0.0 && most.is_none_or(|(heaviest, _)| weight > heaviest) {
                most = Some((weight, view));
            }
            tail.learn(view.strange);
        }
        let sight = most.map(|(_, view)| self.sight(at, view));
        let seen = (odds::by_chance(total, VIEWS as u32), sight);
        self.judge([Some(seen), flat, silence])
    }

    /// All views of a row; with that, it is part of the past.
    fn look(&mut self, at: Timestamp, value: f64) -> [Option<View>; VIEWS] {
        self.season.turn(at);
        let (recent, forecast, usual) = (self.recent(value), self.past.forecast(), self.season.usual());
        self.rows += 1;
        if self.times.len() > LEVEL.0 {
            self.times.pop_front();
        }
        self.times.push_back(at);
        self.past.push(value);
        self.season.learn(value, value - recent);
        self.weight = self.weight * RECENT + 1.0;
        self.mean = recent + (value - recent) / self.weight;
        let hour = if self.season.length().is_some() { SightKind::Season } else { SightKind::Level };
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
            self.off_season(value, usual, hour),
            self.level(),
            moved,
        ]
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

    /// Notes that a value came after a pause, which may have been a silence: then what that was worth.
    fn heard(&mut self, at: Timestamp) -> Option<(f64, Option<Sight>)> {
        let last = *self.times.back()?;
        let gap = at.since(last).as_secs_f64();
        let silence = (self.interval > 0.0 && gap > self.interval * SILENT)
            .then(|| told(SightKind::Missing, &self.silent.go_on(last, at), at))
            .flatten();
        self.silent.go_on(last, at);
        self.silent.end(at);
        let step = if gap > self.interval { INTERVAL_STEP } else { -INTERVAL_STEP };
        self.interval = if self.interval > 0.0 { self.interval * (1.0 + step) } else { gap };
        silence
    }

    /// Notes whether the value is the one before, and says how strange that is after a while.
    fn stood_still(&mut self, at: Timestamp, value: f64) -> Option<(f64, Option<Sight>)> {
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

    /// Nothing came until now.
    fn silence(&mut self, at: Timestamp) -> Verdict {
        let Some(&last) = self.times.back() else { return Verdict::default() };
        if at.since(last).as_secs_f64() <= self.interval * SILENT {
            return Verdict::default();
        }
        let silence = told(SightKind::Missing, &self.silent.go_on(last, at), at);
        self.judge([silence, None, None])
    }

    /// The least likely of what was seen, as a verdict.
    fn judge(&mut self, seen: [Option<(f64, Option<Sight>)>; 3]) -> Verdict {
        if self.rows < YOUNG {
            return Verdict::default();
        }
        let Some((chance, sight)) = seen.into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0)) else {
            return Verdict::default();
        };
        let wrong = odds::wrong(chance);
        let news = self.hush.lets(self.rows, -odds::ln(chance));
        Verdict { probability: if news { wrong } else { 0.0 }, wrong, sight }
    }

    /// A row of an incident: what is usual stands in for its value, so that rows stay rows.
    fn stand_in(&mut self, at: Timestamp) {
        let at = self.times.back().map_or(at, |&last| last.max(at));
        self.season.turn(at);
        let usual = self.season.length().and_then(|_| self.season.usual());
        let Some(value) = usual.or_else(|| self.past.forecast()) else { return };
        self.past.push(value);
        self.rows += 1;
    }
}

/// What a pause is worth: its chance, and what it is.
fn told(kind: SightKind, pause: &pause::Pause, at: Timestamp) -> Option<(f64, Option<Sight>)> {
    let weight = odds::weight(pause.surprise);
    (weight > 0.0).then(|| {
        let lasted = pause.lasted.as_secs_f64();
        let sight = Sight { kind, since: pause.since, at, value: lasted, usual: pause.longest };
        (odds::by_chance(weight, 1), Some(sight))
    })
}
