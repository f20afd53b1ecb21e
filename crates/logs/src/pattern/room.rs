//! The miner's memory has a limit: the least useful patterns leave.

use super::miner::{Hole, Miner};
use super::part::PatternId;
use super::weave::HOLE_BYTES;

impl Miner {
    /// Makes room for one more pattern. At the limit a quarter of all leaves: those with the fewest lines,
    /// among equals those seen longest ago. When a pattern that was seen again has to leave, all that was seen
    /// so far counts half from then on. A pattern stays as long as one that was split off it. A flood of lines that never come again thus drives out itself.
    pub(super) fn make_room(&mut self) {
        if self.by_id.len() < self.limit.patterns.max(4) && self.bytes < self.limit.bytes {
            return;
        }
        let mut order: Vec<(u64, u64, u32)> = Vec::with_capacity(self.by_id.len());
        for (place, pattern) in self.places.iter().enumerate() {
            if let Some(pattern) = pattern
                && pattern.split.is_none()
            {
                order.push((pattern.worth, pattern.last, place as u32));
            }
        }
        order.sort_unstable();
        order.truncate(order.len().div_ceil(4));
        if order.last().is_some_and(|(worth, ..)| *worth > 1) {
            self.places.iter_mut().flatten().for_each(|pattern| pattern.worth /= 2);
        }
        for (_, _, place) in &order {
            if let Some(pattern) = self.places[*place as usize].take() {
                if pattern.of.is_none() {
                    self.shapes.remove(&pattern.shape());
                }
                self.by_id.remove(&pattern.id.0);
                self.free.push(*place);
                self.dropped += 1;
            }
        }
        self.aliases.clear();
        self.forget_children();
        self.forget();
    }

    /// Forgets what was known only of patterns that left.
    fn forget(&mut self) {
        let resolved = self.merged.keys().map(|id| (*id, self.resolve(*id))).collect();
        self.merged = resolved;
        let Self { merged, by_id, holes, .. } = self;
        let is_alive = |id: PatternId| by_id.contains_key(&id.0);
        holes.retain(|_, hole: &mut Hole| {
            for id in &mut hole.of {
                *id = merged.get(id).copied().unwrap_or(*id);
            }
            hole.of.retain(|id| is_alive(*id));
            !hole.of.is_empty()
        });
        holes.shrink_to_fit();
        merged.retain(|_, into| is_alive(*into));
        while merged.len() > 4 * self.limit.patterns {
            merged.pop_first();
        }
        self.count_bytes();
    }

    /// Counts anew what patterns and tables take.
    pub(super) fn count_bytes(&mut self) {
        let patterns: usize = self.places.iter().flatten().map(|pattern| pattern.bytes()).sum();
        let ids: usize = self.holes.values().map(|hole| hole.of.len()).sum();
        self.bytes = patterns + self.holes.len() * HOLE_BYTES + ids * size_of::<PatternId>();
    }

    /// About how many bytes patterns and tables take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.aliases.len() * 16 + self.merged.len() * 24
    }

    /// How many patterns left for want of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
