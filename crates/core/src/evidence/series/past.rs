//! The latest values, and how far now is from each earlier moment.
//!
//! For each lag one number is kept: the distance between the latest values and those a lag ago, old differences fading.
//! It costs one addition a lag and row, and answers three questions at once. *Was there ever a stretch like this one?*
//! The least distance says so: it is great for a discord (Keogh, Lin & Fu, "HOT SAX", 2005; Yeh et al., "Matrix Profile I",
//! 2016). *What comes next?* What came next where the distance was small: the method of analogues (Lorenz, 1969). *Is
//! there a season?* The lags at which a series is like itself are the multiples of its period, whatever that is.

/// Lags, and so values, that are remembered: two weeks of one in five minutes.
pub(super) const LAGS: usize = 4_096;
/// Rows after which a difference counts half, and the mean age of what counts (1 / (1 - 2^(-1/12))).
const FADE: f64 = 0.943_874_312_681_693_5;
const SPAN: f64 = 17.817_4;
/// A stretch is like the one just before it: lags below this are no earlier moment.
const APART: usize = 36;
/// Lags beyond that, before anything is said of likeness.
const ENOUGH: usize = 50;
/// The nearest moments that are asked for what came next, and rows before they are asked.
const NEAREST: usize = 9;
const READY: usize = 20;

/// Values, newest first, and distances by lag.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Past {
    /// Filled from the back; the newest value is at `start`.
    values: Vec<f64>,
    start: usize,
    /// By lag, beginning with one row.
    distances: Vec<f64>,
}

impl Past {
    /// The latest values, newest first, [`LAGS`] at most.
    pub(super) fn latest(&self) -> &[f64] {
        let all = &self.values[self.start..];
        &all[..all.len().min(LAGS)]
    }

    /// What should come next, as it came after the moments that were most like now.
    pub(super) fn forecast(&self) -> Option<f64> {
        if self.latest().len() <= READY {
            return None;
        }
        let mut nearest = [(f64::INFINITY, 0); NEAREST];
        let mut found = 0;
        for (lag, &distance) in self.distances.iter().enumerate() {
            if distance >= nearest[NEAREST - 1].0 {
                continue;
            }
            let place = nearest.partition_point(|near| near.0 <= distance);
            nearest[place..].rotate_right(1);
            nearest[place] = (distance, lag);
            found = (found + 1).min(NEAREST);
        }
        let mut next: Vec<f64> = nearest[..found].iter().map(|&(_, lag)| self.latest()[lag]).collect();
        median(&mut next)
    }

    /// How unlike now is to every earlier moment: the mean difference to the one that is most like it.
    pub(super) fn unlike(&self) -> Option<f64> {
        let earlier = self.distances.get(APART - 1..).filter(|earlier| earlier.len() > ENOUGH)?;
        Some(earlier.iter().copied().fold(f64::INFINITY, f64::min) / SPAN)
    }

    /// Takes the next value in.
    pub(super) fn push(&mut self, value: f64) {
        let values = &self.values[self.start..];
        for (distance, earlier) in self.distances.iter_mut().zip(values) {
            *distance = *distance * FADE + (value - earlier).abs();
        }
        if self.distances.len() < LAGS
            && let Some(oldest) = values.get(self.distances.len())
        {
            self.distances.push((value - oldest).abs() * SPAN);
        }
        if self.start == 0 {
            self.make_room();
        }
        self.start -= 1;
        self.values[self.start] = value;
    }

    /// Doubles the room, up to twice what is remembered; then the oldest half leaves.
    fn make_room(&mut self) {
        let kept = self.values.len().min(LAGS);
        let room = (kept * 2).max(64);
        let mut values = vec![0.0; room];
        values[room - kept..].copy_from_slice(&self.values[..kept]);
        self.start = room - kept;
        self.values = values;
    }
}

/// The median; the upper one of two.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_is_first_and_the_oldest_leaves() {
        let mut past = Past::default();
        for n in 0..3 * LAGS {
            past.push(n as f64);
            assert_eq!(past.latest()[0], n as f64);
            assert_eq!(past.latest().len(), (n + 1).min(LAGS));
            assert_eq!(past.latest().last(), Some(&((n + 1).saturating_sub(LAGS) as f64)));
        }
        assert!(past.values.len() <= 2 * LAGS && past.distances.len() == LAGS);
    }

    #[test]
    fn a_period_of_any_length_is_forecast() {
        let mut past = Past::default();
        let wave = |n: usize| ((n % 37) * (n % 37)) as f64;
        for n in 0..700 {
            if n > 450 {
                assert_eq!(past.forecast(), Some(wave(n)), "row {n}");
                assert!(past.unlike().unwrap() < 1.0, "row {n}");
            }
            past.push(wave(n));
        }
        for _ in 0..12 {
            past.push(-500.0);
        }
        assert!(past.unlike().unwrap() > 200.0, "never seen before");
    }
}
