//! One window: how often each pattern came, and which came right after which.

use std::collections::{BTreeMap, BTreeSet};

/// Different patterns of one window that are told apart, and as many steps from one to the next; more are left out.
pub const MOST_IN_WINDOW: usize = 1_024;

/// How often each pattern came, by number.
pub(super) type Counts = Vec<(u32, u32)>;

/// From one pattern to the next; none is the beginning or the end of the window.
pub(super) type Step = (Option<u32>, Option<u32>);

/// The patterns of some lines that belong together: those of a minute, of a request, of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    counts: BTreeMap<u32, u32>,
    steps: BTreeSet<Step>,
    last: Option<u32>,
    has_order: bool,
}

impl Window {
    /// The next line is of this pattern.
    pub fn push(&mut self, pattern: u32) {
        self.add(pattern, 1);
        self.step((self.last, Some(pattern)));
        self.last = Some(pattern);
        self.has_order = true;
    }

    /// So many lines are of this pattern, in an order that is not known.
    pub fn add(&mut self, pattern: u32, count: u32) {
        let is_room = self.counts.len() < MOST_IN_WINDOW || self.counts.contains_key(&pattern);
        if count > 0 && is_room {
            let had = self.counts.entry(pattern).or_default();
            *had = had.saturating_add(count);
        }
    }

    fn step(&mut self, step: Step) {
        if self.steps.len() < MOST_IN_WINDOW {
            self.steps.insert(step);
        }
    }

    /// How often this pattern came.
    #[must_use]
    pub fn count(&self, pattern: u32) -> u32 {
        self.counts.get(&pattern).copied().unwrap_or_default()
    }

    /// The patterns that came, in the order of their numbers, and how often.
    pub fn counts(&self) -> impl Iterator<Item = (u32, u32)> {
        self.counts.iter().map(|(pattern, count)| (*pattern, *count))
    }

    /// All steps, the one into the first line and the one out of the last among them.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step> {
        let end = self.has_order.then_some((self.last, None));
        self.steps.iter().copied().chain(end)
    }
}

impl FromIterator<u32> for Window {
    fn from_iter<I: IntoIterator<Item = u32>>(patterns: I) -> Self {
        let mut window = Self::default();
        patterns.into_iter().for_each(|pattern| window.push(pattern));
        window
    }
}
