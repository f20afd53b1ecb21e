//! When something that fills will be full: a line through what was seen, with its interval.
//!
//! The line is the median of the slopes of all pairs of points (Theil 1950; Sen 1968, *Estimates of the regression
//! coefficient based on Kendall's tau*), which a third of wild points does not move; its interval are Sen's
//! order statistics for 99 %. It is believed no further ahead than four times as long as it was seen.

use crate::time::{Duration, Timestamp, show};
use serde::{Deserialize, Serialize};

/// Points that are kept. When there are more, every second one goes, and from then on they are twice as far apart.
const MOST: usize = 32;
/// Fewer points show no line.
const LEAST: usize = 8;
/// Points are so far apart at first.
const APART: Duration = Duration::from_secs(5);
/// Nothing is told of what is so far ahead.
const AHEAD_MOST: Duration = Duration::from_secs(86_400);
/// The line is believed for so many times as long as it was seen.
const BELIEVED: u32 = 4;
/// Less used than this, in parts of a hundred, is not yet worth a word.
const USED_LEAST: u64 = 20;

/// What was used at which time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Filling {
    points: Vec<(Timestamp, u64)>,
    apart: Duration,
    total: u64,
    coming: Option<Forecast>,
}

/// When it will be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// The likeliest time from the last point on.
    pub left: Duration,
    /// No sooner than this ...
    pub soonest: Duration,
    /// ... and no later than this, in 99 of a hundred cases.
    pub latest: Duration,
}

impl Filling {
    /// So much of so much was used then. Another size, or a quarter of it freed at once, begins anew.
    pub fn observe(&mut self, at: Timestamp, used: u64, total: u64) {
        let freed = self.points.last().is_some_and(|(_, last)| used.saturating_add(total / 4) < *last);
        if total != self.total || freed {
            *self = Self { points: Vec::new(), apart: APART, total, coming: None };
        }
        if self.points.last().is_some_and(|(last, _)| at.since(*last) < self.apart) {
            return;
        }
        self.points.push((at, used));
        if self.points.len() > MOST {
            let mut nth = 0;
            self.points.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.apart *= 2;
        }
        self.coming = self.extend();
    }

    /// When it will be full, if it fills and that is near enough.
    #[must_use]
    pub const fn forecast(&self) -> Option<Forecast> {
        self.coming
    }

    fn extend(&self) -> Option<Forecast> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        let grew = last.1 > first.1 && last.1.saturating_mul(100) >= self.total.saturating_mul(USED_LEAST);
        if self.points.len() < LEAST || !grew {
            return None;
        }
        let slopes = self.slopes();
        let middle = slopes.len() / 2;
        let width = confidence(self.points.len());
        let low = slopes[middle.saturating_sub(width)];
        let high = slopes[(middle + width).min(slopes.len() - 1)];
        let room = self.total.saturating_sub(last.1) as f64;
        let seconds =
            |slope: f64| Duration::from_secs_f64((room / slope).min(AHEAD_MOST.as_secs_f64() * 4.0));
        let seen = last.0.since(first.0);
        (low > 0.0)
            .then(|| Forecast { left: seconds(slopes[middle]), soonest: seconds(high), latest: seconds(low) })
            .filter(|forecast| forecast.left <= (seen * BELIEVED).min(AHEAD_MOST))
    }

    /// The slopes of all pairs, in bytes a second, the smallest first.
    fn slopes(&self) -> Vec<f64> {
        let mut slopes = Vec::with_capacity(self.points.len() * (self.points.len() - 1) / 2);
        for (i, (from, before)) in self.points.iter().enumerate() {
            for (to, after) in &self.points[i + 1..] {
                slopes.push((*after as f64 - *before as f64) / to.since(*from).as_secs_f64());
            }
        }
        slopes.sort_by(f64::total_cmp);
        slopes
    }
}

impl Forecast {
    /// "in about 42m (30m to 1h 10m)".
    #[must_use]
    pub fn text(&self) -> String {
        format!("in about {} ({} to {})", show(self.left), show(self.soonest), show(self.latest))
    }
}

/// How far from the middle of all slopes, sorted, the interval reaches: half of 2.576 standard deviations of
/// Kendall's sum.
fn confidence(points: usize) -> usize {
    let n = points as f64;
    let deviation = (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    (2.576 * deviation / 2.0).ceil() as usize
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn filled(used: impl Fn(u64) -> u64, times: u64) -> Filling {
        let mut filling = Filling::default();
        for n in 0..times {
            filling.observe(Timestamp::from_secs(100 + n * 10), used(n), 10 * GIB);
        }
        filling
    }

    #[test]
    fn a_disk_that_fills_steadily_is_full_when_the_line_says() {
        let filling = filled(|n| 5 * GIB + n * GIB / 100, 120); // a hundredth of a GiB in 10 s
        let forecast = filling.forecast().unwrap();
        let left = forecast.left.as_secs();
        assert!((3_700..3_950).contains(&left), "{left}"); // 381 hundredths are left
        assert!(forecast.soonest <= forecast.left && forecast.left <= forecast.latest);
        assert!(filling.points.len() <= MOST);
    }

    #[test]
    fn what_stands_still_breathes_or_is_far_ahead_is_not_told() {
        assert_eq!(filled(|_| 9 * GIB, 100).forecast(), None);
        assert_eq!(filled(|n| 5 * GIB + n % 7 * GIB / 50, 100).forecast(), None);
        assert_eq!(filled(|n| 5 * GIB + n * 1_000, 100).forecast(), None);
        assert_eq!(filled(|n| n * GIB / 100, 100).forecast(), None, "nearly empty");
    }

    #[test]
    fn a_rotation_begins_anew_and_a_wild_point_moves_nothing() {
        let freed = filled(|n| if n < 50 { 5 * GIB + n * GIB / 20 } else { GIB }, 52);
        assert_eq!(freed.forecast(), None);
        let wild = |n: u64| 5 * GIB + n * GIB / 100 + if n == 20 { GIB } else { 0 };
        let left = filled(wild, 120).forecast().unwrap().left.as_secs();
        assert!((3_600..4_050).contains(&left), "{left}");
    }
}
