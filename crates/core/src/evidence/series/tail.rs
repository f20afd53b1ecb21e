//! How surprising a statistic is, beside its own history: block maxima and the slope of their tail.
//!
//! The history is cut into blocks of equal length, and of each only the greatest value is kept (Gumbel, "Statistics of
//! Extremes", 1958): what comes in bursts counts once. When there are too many blocks, neighbours become one, so a block
//! is always about a hundredth of what was seen, be that minutes or months. The upper quarter of the maxima gives the
//! slope of the tail (Hill, "A simple general approach to inference about the tail of a distribution", 1975), and that
//! the number of blocks that should have reached so far by chance. The slope is itself uncertain, the more so the fewer
//! maxima it is from: the law of the next excess is a Pareto law, heavier than the exponential one it is fitted by.

use super::odds::ln;

/// Blocks before neighbours become one; from half of this to this many are kept.
const MOST: usize = 128;
/// With fewer nothing is said.
const LEAST: usize = 16;
/// One in so many maxima is above the point where the tail begins.
const TAIL: usize = 4;
/// The steepest slope that is believed, and the least value that is told from zero.
const STEEPEST: f64 = 0.02;
const NOTHING: f64 = 1e-12;
/// No surprise is greater: e^-200 is never by chance.
const GREATEST: f64 = 200.0;

/// The tail of one statistic, which is never negative.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tail {
    maxima: Vec<f64>,
    /// Values in a block, and in the one that is being filled.
    length: u64,
    filled: u64,
    greatest: f64,
    /// Where the tail begins, how many maxima lie above, and its slope (the mean of their logarithms above it).
    begins: f64,
    above: f64,
    slope: f64,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            maxima: Vec::new(),
            length: 1,
            filled: 0,
            greatest: 0.0,
            begins: NOTHING,
            above: 1.0,
            slope: STEEPEST,
        }
    }
}

impl Tail {
    /// How surprising this value is: minus the logarithm of the number of blocks of this history that should have
    /// reached it by chance. Not known while the history is short.
    pub(super) fn surprise(&self, value: f64) -> Option<f64> {
        if self.maxima.len() < LEAST {
            return None;
        }
        let beyond = (ln(value.max(NOTHING)) - ln(self.begins)) / self.slope;
        let beyond = if beyond > 0.0 { self.above * ln(1.0 + beyond / self.above) } else { beyond };
        Some((beyond - ln(self.above)).clamp(-GREATEST, GREATEST))
    }

    /// How many blocks have reached this value.
    pub(super) fn reached(&self, value: f64) -> usize {
        self.maxima.iter().filter(|&&most| most >= value).count()
    }

    /// Remembers a value. The block that is being filled does not count yet, so a burst is not its own excuse.
    pub(super) fn learn(&mut self, value: f64) {
        self.greatest = self.greatest.max(value);
        self.filled += 1;
        if self.filled < self.length {
            return;
        }
        self.maxima.push(self.greatest);
        (self.greatest, self.filled) = (0.0, 0);
        if self.maxima.len() == MOST {
            self.maxima = self.maxima.chunks(2).map(|two| two.iter().copied().fold(0.0, f64::max)).collect();
            self.length = self.length.saturating_mul(2);
        }
        self.fit();
    }

    fn fit(&mut self) {
        let mut sorted = self.maxima.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let above = (sorted.len() / TAIL).max(LEAST / TAIL);
        let Some(&begins) = sorted.get(above) else { return };
        self.begins = begins.max(NOTHING);
        self.above = above as f64;
        let from = ln(self.begins);
        let sum: f64 = sorted[..above].iter().map(|&most| ln(most.max(NOTHING)) - from).sum();
        self.slope = (sum / self.above).max(STEEPEST);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Values with a known tail: Pareto with index 4, in an order without pattern.
    fn pareto(n: u64) -> f64 {
        let mixed = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let uniform = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        uniform.powf(-0.25)
    }

    #[test]
    fn what_should_come_once_in_the_whole_history_is_no_surprise() {
        let mut tail = Tail::default();
        for n in 0..10_000 {
            assert!(tail.maxima.len() < MOST, "memory is bounded");
            tail.learn(pareto(n));
        }
        let once = 10_000f64.powf(0.25);
        let surprise = tail.surprise(once).unwrap();
        assert!(surprise.abs() < 1.0, "{surprise}");
        let rare = tail.surprise(once * 10f64.powf(0.25)).unwrap();
        assert!(
            (1.0..3.0).contains(&(rare - surprise)),
            "ten times rarer, 2.3 if the tail were known: {rare}"
        );
    }

    #[test]
    fn a_short_history_says_nothing_and_a_constant_one_believes_in_change() {
        let mut tail = Tail::default();
        assert_eq!(tail.surprise(1.0), None);
        for _ in 0..LEAST {
            tail.learn(0.0);
        }
        assert!(tail.surprise(0.0).unwrap() < 0.0);
        assert!(tail.surprise(1.0).unwrap() > 10.0);
    }
}
