//! Which pattern came right after which, and whether all such steps are known by now.

use super::window::{Step, Window};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps that are remembered.
const MOST: usize = 65_536;

/// A new step means something once fewer than one usual window in so many brings one.
const SETTLED: u64 = 1_000;

/// In how many windows each step was.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Steps {
    #[serde(with = "crate::pairs")]
    seen: BTreeMap<Step, u64>,
    /// Windows with an order.
    windows: u64,
    /// Steps that were in one window only.
    once: u64,
    /// There was no room for one.
    is_full: bool,
}

impl Steps {
    pub fn learn(&mut self, window: &Window) {
        let mut has_order = false;
        for step in window.steps() {
            has_order = true;
            if self.seen.len() >= MOST && !self.seen.contains_key(&step) {
                self.is_full = true;
                continue;
            }
            let times = self.seen.entry(step).or_default();
            *times += 1;
            match *times {
                1 => self.once += 1,
                2 => self.once -= 1,
                _ => {}
            }
        }
        self.windows += u64::from(has_order);
    }

    /// Whether a step that was never seen is so improbable that it means something. The share of what was seen
    /// once estimates the share of what was never seen (Good, Biometrika 40, 1953).
    pub fn is_settled(&self) -> bool {
        !self.is_full && (self.once + 1).saturating_mul(SETTLED) < self.windows + 1
    }

    /// Steps of a window that were never seen.
    pub fn unseen(&self, window: &Window) -> Vec<Step> {
        if self.windows == 0 || self.is_full {
            return Vec::new();
        }
        window.steps().filter(|step| !self.seen.contains_key(step)).collect()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.seen.len()
    }
}
