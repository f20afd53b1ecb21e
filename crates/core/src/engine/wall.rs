//! What the wall clock showed, to show times to people; nothing is decided by it (I20).

use super::Engine;
use crate::time::Timestamp;

/// So many changes of the wall clock are remembered: of starts, and of steps in between.
const ANCHORS_KEPT: usize = 32;

impl Engine {
    /// Wall clock minus engine time at that moment, in microseconds: to show, never to decide (I20).
    #[must_use]
    pub fn wall_offset(&self, at: Timestamp) -> i64 {
        let anchor = self.anchors.iter().rev().find(|(from, _)| *from <= at).or(self.anchors.first());
        anchor.map_or(0, |(_, offset)| *offset)
    }

    /// From now on the wall clock is so far ahead, in microseconds.
    pub(super) fn anchor(&mut self, wall_offset: i64) {
        self.anchors.push((self.now, wall_offset));
        if self.anchors.len() > ANCHORS_KEPT {
            self.anchors.remove(0);
        }
    }
}
