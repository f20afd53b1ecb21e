//! How many tries in how long (I6), and how the waits between them grow.

use crate::policy::Budget;
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The recoveries of one VM that still count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    at: VecDeque<Timestamp>,
}

/// No wait grows beyond this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

impl Tries {
    /// How many lie in the window that ends now: it slides, so a failure just over its edge is just over.
    #[must_use]
    pub fn spent(&self, now: Timestamp, budget: &Budget) -> u32 {
        let inside = self.at.iter().filter(|at| now.since(**at) < budget.within).count();
        u32::try_from(inside).unwrap_or(u32::MAX)
    }

    /// Whether one more is left.
    #[must_use]
    pub fn has_left(&self, now: Timestamp, budget: &Budget) -> bool {
        self.spent(now, budget) < budget.tries
    }

    /// When the next one may begin: at once after none, then after the back-off, twice, four times ...
    #[must_use]
    pub fn earliest(&self, now: Timestamp, budget: &Budget) -> Timestamp {
        let (Some(last), spent @ 1..) = (self.at.back(), self.spent(now, budget)) else { return now };
        let wait = budget.backoff.saturating_mul(1 << (spent - 1).min(16)).min(LONGEST_WAIT);
        *last + wait
    }

    /// One more was begun.
    pub fn spend(&mut self, now: Timestamp, budget: &Budget) {
        while self.at.front().is_some_and(|at| now.since(*at) >= budget.within) {
            self.at.pop_front();
        }
        self.at.push_back(now);
    }

    /// The last one was not made after all.
    pub fn take_back(&mut self) {
        self.at.pop_back();
    }

    /// A person said: try again.
    pub fn forget(&mut self) {
        self.at.clear();
    }

    /// How often it was recovered lately, if it fails again and again: after more than one recovery in the window.
    #[must_use]
    pub fn flapping(&self, now: Timestamp, budget: &Budget) -> Option<u32> {
        Some(self.spent(now, budget)).filter(|spent| *spent >= 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tries_an_hour_and_the_window_slides() {
        let budget = Budget::default();
        let mut tries = Tries::default();
        for minute in [0, 20, 40] {
            let now = Timestamp::from_secs(minute * 60);
            assert!(tries.has_left(now, &budget));
            tries.spend(now, &budget);
        }
        assert!(!tries.has_left(Timestamp::from_secs(3_599), &budget));
        assert!(tries.has_left(Timestamp::from_secs(3_600), &budget));
    }

    #[test]
    fn the_waits_between_tries_double() {
        let budget = Budget::default();
        let mut tries = Tries::default();
        let now = Timestamp::from_secs(100);
        assert_eq!(tries.earliest(now, &budget), now);
        tries.spend(now, &budget);
        assert_eq!(tries.earliest(now, &budget).since(now), Duration::from_secs(5));
        tries.spend(now, &budget);
        assert_eq!(tries.earliest(now, &budget).since(now), Duration::from_secs(10));
    }
}
