//! How much a series moves from row to row, beside what it used to.

use super::odds::ln;
use super::past::median;
use std::collections::VecDeque;

/// Steps whose mean is the movement now.
const STEPS: usize = 10;
/// Rows before anything is said.
const READY: usize = 4 * STEPS;
/// Movements remembered, evenly spaced over all of the past: of more, every other leaves.
const KEPT: usize = 256;
/// A part of the usual movement that is added to both sides, so that a series which rests now and then is not strange.
const FLOOR: f64 = 0.1;
const FLOOR_OF_MEAN: f64 = 0.01;

/// The movement of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spread {
    last: Option<f64>,
    steps: VecDeque<f64>,
    rows: usize,
    past: Vec<f64>,
    /// One movement in so many is remembered, and how many were passed over since.
    every: usize,
    passed: usize,
    usual: f64,
    mean: f64,
}

/// The movement now, and what it usually is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Movement {
    pub(super) now: f64,
    pub(super) usual: f64,
    /// How many times more, or less, on a logarithmic scale.
    pub(super) strange: f64,
}

impl Spread {
    /// Takes a value in, and says how the movement up to it compares with that before.
    pub(super) fn learn(&mut self, value: f64) -> Option<Movement> {
        let last = self.last.replace(value)?;
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back((value - last).abs());
        self.rows += 1;
        let now = self.steps.iter().sum::<f64>() / STEPS as f64;
        let floor = FLOOR * self.usual + FLOOR_OF_MEAN * self.mean;
        let (above, below) = (now + floor, self.usual + floor);
        let strange = if above > 0.0 && below > 0.0 { (ln(above) - ln(below)).abs() } else { 0.0 };
        let said = (self.rows > READY).then_some(Movement { now, usual: self.usual, strange });
        if self.rows >= STEPS {
            self.remember(now);
        }
        said
    }

    fn remember(&mut self, now: f64) {
        self.passed += 1;
        if self.passed < self.every {
            return;
        }
        self.passed = 0;
        if self.past.len() == KEPT {
            let mut index = 0;
            self.past.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.every = self.every.max(1) * 2;
        }
        self.past.push(now);
        self.mean = self.past.iter().sum::<f64>() / self.past.len() as f64;
        self.usual = median(&mut self.past.clone()).unwrap_or(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_and_less_movement_are_both_strange() {
        let mut spread = Spread::default();
        let mut strange = |rows: usize, size: f64| {
            let mut last = 0.0;
            for n in 0..rows {
                let value = if n % 2 == 0 { size } else { -size };
                last = spread.learn(value).map_or(0.0, |movement| movement.strange);
            }
            last
        };
        assert!(strange(5_000, 1.0) < 0.1);
        assert!(strange(20, 5.0) > 1.0);
        assert!(strange(60, 1.0) < 0.1);
        assert!(strange(20, 0.1) > 1.0);
        assert!(spread.past.len() <= KEPT);
    }
}
