//! What is usual at this hour of the day, or of the week: which of the two is found out by forecasting.
//!
//! The day is cut into half hours, the week into hours; each remembers the mean of its last visits, and their median is
//! the forecast. The two compete on what they forecast, before they see it (prequential choice: Dawid, 1984), and the
//! one with the smaller error of late speaks. Against a forecast that knows no season it has to prove itself before
//! anything is called a season. Periods of any other length are found by `past.rs`.

use super::past::median;
use crate::time::{Duration, Timestamp};

/// The candidates: length in seconds, parts, visits remembered of each part.
const DAY: (u64, usize, usize) = (86_400, 48, 8);
const WEEK: (u64, usize, usize) = (604_800, 168, 4);
/// Errors fade by half in 500 forecasts (2^(-1/500)); fewer than so many prove nothing.
const FADE: f64 = 0.998_614_665_390_949_7;
const PROVEN: f64 = 30.0;
/// A season forecasts better than none by this factor at least.
const BETTER: f64 = 0.85;

/// A cycle of the calendar and what was usual in each part of it.
#[derive(Clone, Debug, PartialEq)]
struct Cycle {
    length: u64,
    parts: usize,
    kept: usize,
    /// The last visits of each part, and how many there were.
    means: Vec<f64>,
    visits: Vec<usize>,
    /// The part that is being visited, its sum and number of values, and what is usual there.
    part: Option<usize>,
    sum: f64,
    count: f64,
    usual: Option<f64>,
    error: Error,
}

/// The mean error of forecasts, the latest counting most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Error {
    sum: f64,
    weight: f64,
}

impl Error {
    fn learn(&mut self, error: f64) {
        self.sum = self.sum * FADE + error.abs();
        self.weight = self.weight * FADE + 1.0;
    }

    fn mean(&self) -> Option<f64> {
        (self.weight >= PROVEN).then(|| self.sum / self.weight)
    }
}

impl Cycle {
    fn new((length, parts, kept): (u64, usize, usize)) -> Self {
        Self {
            length,
            parts,
            kept,
            means: vec![0.0; parts * kept],
            visits: vec![0; parts],
            part: None,
            sum: 0.0,
            count: 0.0,
            usual: None,
            error: Error::default(),
        }
    }

    /// Goes to the part that this moment is in.
    fn turn(&mut self, at: Timestamp) {
        let length = self.length * 1_000_000;
        let within = u128::from(at.as_micros() % length) * self.parts as u128 / u128::from(length);
        let part = usize::try_from(within).unwrap_or(0);
        if self.part == Some(part) {
            return;
        }
        if let Some(left) = self.part {
            self.means[left * self.kept + self.visits[left] % self.kept] = self.sum / self.count.max(1.0);
            self.visits[left] += 1;
        }
        let known = self.visits[part].min(self.kept);
        let mut means = self.means[part * self.kept..][..known].to_vec();
        self.usual = median(&mut means);
        (self.part, self.sum, self.count) = (Some(part), 0.0, 0.0);
    }

    fn learn(&mut self, value: f64) {
        if let Some(usual) = self.usual {
            self.error.learn(value - usual);
        }
        self.sum += value;
        self.count += 1.0;
    }
}

/// What is usual at this hour.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Season {
    day: Cycle,
    week: Cycle,
    /// The error of a forecast that knows no season.
    none: Error,
}

impl Default for Season {
    fn default() -> Self {
        Self { day: Cycle::new(DAY), week: Cycle::new(WEEK), none: Error::default() }
    }
}

impl Season {
    /// Goes on to this moment.
    pub(super) fn turn(&mut self, at: Timestamp) {
        self.day.turn(at);
        self.week.turn(at);
    }

    /// The cycle that forecasts best, of those that can forecast this moment.
    fn best(&self) -> Option<&Cycle> {
        let able = |cycle: &&Cycle| cycle.usual.is_some() && cycle.error.mean().is_some();
        let error = |cycle: &&Cycle| cycle.error.mean().unwrap_or(f64::INFINITY);
        [&self.day, &self.week].into_iter().filter(able).min_by(|a, b| error(a).total_cmp(&error(b)))
    }

    /// What is usual now.
    pub(super) fn usual(&self) -> Option<f64> {
        self.best()?.usual
    }

    /// The length of the season, if there is one.
    pub(super) fn length(&self) -> Option<Duration> {
        let best = self.best()?;
        let (error, none) = (best.error.mean()?, self.none.mean()?);
        (error < none * BETTER).then(|| Duration::from_secs(best.length))
    }

    /// Takes a value in, and how far a forecast without season was off.
    pub(super) fn learn(&mut self, value: f64, off: f64) {
        self.day.learn(value);
        self.week.learn(value);
        self.none.learn(off);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day with office hours, and quiet weekends.
    fn office(hour: u64) -> f64 {
        let (day, hour) = (hour / 24 % 7, hour % 24);
        if day < 5 && (8..18).contains(&hour) { 100.0 } else { 10.0 }
    }

    fn after(hours: u64, value: impl Fn(u64) -> f64) -> Season {
        let mut season = Season::default();
        let mean = (0..hours).map(&value).sum::<f64>() / hours as f64;
        for hour in 0..hours {
            season.turn(Timestamp::from_secs(hour * 3_600));
            let value = value(hour);
            season.learn(value, value - mean);
        }
        season
    }

    #[test]
    fn a_day_is_found_before_a_week_and_a_week_where_the_day_is_wrong() {
        assert_eq!(
            after(24 * 6, |hour| (hour % 24) as f64 * 5.0).length(),
            Some(Duration::from_secs(86_400))
        );
        let mut season = after(24 * 35, office);
        assert_eq!(season.length(), Some(Duration::from_secs(604_800)));
        season.turn(Timestamp::from_secs(24 * 35 * 3_600 + 9 * 3_600));
        assert_eq!(season.usual(), Some(100.0), "the first day, at nine");
    }

    #[test]
    fn noise_and_constants_have_no_season() {
        let noise = |hour: u64| (hour.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64;
        assert_eq!(after(24 * 35, noise).length(), None);
        assert_eq!(after(24 * 35, |_| 3.0).length(), None);
    }
}
