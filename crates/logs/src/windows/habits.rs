//! The count vectors that were seen, each with its weight: all that is kept of the windows that were learned.

use super::model::Model;
use super::steps::Steps;
use super::window::{Counts, Window};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Weights are brought down before a number could run over.
const HEAVIEST: f64 = 1e9;

/// How much may be remembered. At the limit a quarter leaves, the lightest first, among equals the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Different count vectors.
    pub vectors: usize,
    /// Counts in all of them together, eight bytes each.
    pub counts: usize,
    /// Patterns that the subspace is made of: those of the most windows.
    pub columns: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { vectors: 2_048, counts: 1 << 19, columns: 256 }
    }
}

/// A vector that was seen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    weight: f64,
    last: u64,
}

/// What was usual so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Habits {
    room: Room,
    #[serde(with = "crate::pairs")]
    vectors: BTreeMap<Counts, Seen>,
    counts: usize,
    steps: Steps,
    windows: u64,
    /// What the next window weighs; it grows where the past is forgotten.
    gain: f64,
    growth: f64,
}

impl Habits {
    /// Nothing known yet. With a half-life, what was learned so many windows ago weighs half.
    #[must_use]
    pub fn new(room: Room, half_life: Option<u32>) -> Self {
        let growth = half_life.map_or(1.0, |windows| 2.0_f64.powf(1.0 / f64::from(windows.max(1))));
        let (vectors, counts, steps) = (BTreeMap::new(), 0, Steps::default());
        Self { room, vectors, counts, steps, windows: 0, gain: 1.0, growth }
    }

    /// This window is as windows are.
    pub fn learn(&mut self, window: &Window) {
        self.windows += 1;
        self.gain *= self.growth;
        if self.gain > HEAVIEST {
            self.vectors.values_mut().for_each(|seen| seen.weight /= self.gain);
            self.gain = 1.0;
        }
        self.steps.learn(window);
        let vector: Counts = window.counts().collect();
        let size = vector.len();
        let mut is_new = false;
        let seen = self.vectors.entry(vector).or_insert_with(|| {
            is_new = true;
            Seen { weight: 0.0, last: 0 }
        });
        seen.weight += self.gain;
        seen.last = self.windows;
        if is_new {
            self.counts += size;
            self.make_room();
        }
    }

    fn make_room(&mut self) {
        if self.vectors.len() <= self.room.vectors && self.counts <= self.room.counts {
            return;
        }
        let mut order: Vec<(f64, u64, usize)> =
            self.vectors.iter().map(|(vector, seen)| (seen.weight, seen.last, vector.len())).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (vectors, counts) = (self.room.vectors / 4 * 3, self.room.counts / 4 * 3);
        let (mut left, mut kept) = (order.len(), self.counts);
        let mut gone = Vec::new();
        for (_, last, size) in order {
            if left <= vectors && kept <= counts {
                break;
            }
            (left, kept) = (left - 1, kept - size);
            gone.push(last);
        }
        gone.sort_unstable();
        self.vectors.retain(|_, seen| gone.binary_search(&seen.last).is_err());
        self.counts = kept;
    }

    /// Windows that were learned.
    #[must_use]
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// How many different vectors are known, and the counts in them.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.vectors.len(), self.counts)
    }

    /// What windows are to be judged by; none while nothing was learned.
    #[must_use]
    pub fn model(&self) -> Option<Model> {
        let known: Vec<(&Counts, f64)> =
            self.vectors.iter().map(|(vector, seen)| (vector, seen.weight / self.gain)).collect();
        Model::of(&known, self.room.columns, self.steps.clone())
    }
}
