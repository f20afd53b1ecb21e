//! How patterns become one: words that turn out to be variables.

use super::miner::{Hole, LEAST_WORDS, Miner};
use super::part::{Pattern, PatternId};
use super::token::{What, numbered_key};

/// Words of one pattern that stand in the table of holes.
const MOST_HOLES: usize = 40;

/// So many words in one hole cannot all be statements of a program, where the rest of the pattern has so
/// many words. What is assigned (`name=`), or is a user's name, needs the fewest; short statements
/// (`NAME startup succeeded`) the most; next to nothing else no number is enough.
fn enough(words: usize, assigned: bool) -> Option<usize> {
    match (assigned, words) {
        (_, 0) | (false, 1) => None,
        (true, _) => Some(3),
        (false, 2) => Some(24),
        (false, 3) => Some(12),
        (false, 4 | 5) => Some(8),
        (false, _) => Some(6),
    }
}

/// More words than these in a hole are values; a few may be a rule and its exceptions (`root`, and whoever
/// else), so the answer waits until all lines were seen.
const MANY: usize = 6;

/// From so many lines on, one of a few words that makes up nine tenths of them is part of the pattern, and
/// the others are exceptions to tell apart.
const SETTLED: u64 = 32;

/// When a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// More lines come: wait for them before a doubtful answer.
    Online,
    /// These are all the lines there are.
    Finally,
}

/// About what a hole takes, with one pattern in it.
pub(super) const HOLE_BYTES: usize = 72;

impl Miner {
    /// Compares a new pattern with those that differ from it in one word, and joins what belongs together.
    pub(super) fn weave(&mut self, id: PatternId, asked: Asked) {
        let mut due = vec![id];
        while let Some(id) = due.pop() {
            let Some(pattern) = self.get(id) else { continue };
            let found = self.first_change(&pattern.clone(), asked);
            if let Some((at, others)) = found {
                for id in others {
                    due.extend(self.widen(id, at));
                }
            }
        }
    }

    /// The pattern of that id, while it is a pattern of its own.
    pub(super) fn get(&self, id: PatternId) -> Option<&Pattern> {
        let place = *self.by_id.get(&id.0)?;
        self.places[place as usize].as_deref()
    }

    /// The first place at which this pattern shows, with others, that a word changes; and all of these.
    fn first_change(&mut self, pattern: &Pattern, asked: Asked) -> Option<(usize, Vec<PatternId>)> {
        let all_words = pattern.words(usize::MAX);
        let mut holes = 0;
        for (at, part) in pattern.parts.iter().enumerate() {
            let words = all_words - usize::from(part.is_telling());
            match part.what {
                What::Mark => {}
                What::Word | What::Name => {
                    holes += 1;
                    if holes > MOST_HOLES {
                        break;
                    }
                    let Some(enough) = enough(words, part.what == What::Name || is_assigned(pattern, at))
                    else {
                        continue;
                    };
                    let sibling = words >= LEAST_WORDS && self.shapes.contains_key(&pattern.sibling(at));
                    let others = self.stand_in(pattern.hole(at), pattern.id);
                    if sibling || (others.len() >= enough && self.are_values(&others, asked)) {
                        return Some((at, others));
                    }
                }
                What::Numbered => {
                    if words >= LEAST_WORDS && self.shapes.contains_key(&pattern.sibling(at)) {
                        return Some((at, vec![pattern.id]));
                    }
                }
                What::Value(_) => {
                    let others = if words >= LEAST_WORDS { self.like_value(pattern, at) } else { Vec::new() };
                    if !others.is_empty() {
                        return Some((at, others));
                    }
                }
            }
        }
        None
    }

    /// Whether the words of these patterns are values, rather than one of them the rule and the others
    /// exceptions.
    fn are_values(&self, others: &[PatternId], asked: Asked) -> bool {
        let counts = others.iter().filter_map(|id| self.get(*id)).map(|other| other.count);
        let (most, all) = counts.fold((0, 0), |(most, all), count| (count.max(most), all + count));
        let has_rule = all >= SETTLED && most * 10 >= all * 9;
        others.len() > MANY || (asked == Asked::Finally && !has_rule)
    }

    /// Enters a pattern in a hole; all that are in it.
    fn stand_in(&mut self, hole: u64, id: PatternId) -> Vec<PatternId> {
        let bytes = &mut self.bytes;
        let hole = self.holes.entry(hole).or_insert_with(|| {
            *bytes += HOLE_BYTES;
            Hole::default()
        });
        if !hole.of.contains(&id) {
            hole.of.push(id);
            *bytes += size_of::<PatternId>();
        }
        hole.of.clone()
    }

    /// Patterns that have a word where this one has a value.
    fn like_value(&self, pattern: &Pattern, at: usize) -> Vec<PatternId> {
        let hole = self.holes.get(&pattern.hole(at));
        let mut others = hole.map_or_else(Vec::new, |hole| hole.of.clone());
        let numbered = self.shapes.get(&pattern.shape_with(at, numbered_key(pattern.parts[at].gap)));
        others.extend(numbered.and_then(|place| self.places[*place as usize].as_ref()).map(|other| other.id));
        others.retain(|id| {
            self.get(*id)
                .and_then(|other| other.parts.get(at))
                .is_some_and(|part| !matches!(part.what, What::Value(_)))
        });
        others
    }

    /// Makes a variable of the word there. The pattern this gives, if it has to be compared again.
    fn widen(&mut self, id: PatternId, at: usize) -> Option<PatternId> {
        let place = *self.by_id.get(&self.resolve(id).0)?;
        let mut pattern = self.places[place as usize].take()?;
        if pattern.parts.get(at).is_none_or(|part| matches!(part.what, What::Value(_) | What::Mark)) {
            self.places[place as usize] = Some(pattern);
            return None;
        }
        self.aliases.clear();
        self.shapes.remove(&pattern.shape());
        let hole = pattern.hole(at);
        self.bytes -= pattern.bytes();
        pattern.widen(at);
        self.widen_children(&pattern, at);
        let shape = pattern.shape();
        let id = match self.shapes.get(&shape).copied() {
            Some(other) => self.merge(pattern, place, other),
            None => {
                self.bytes += pattern.bytes();
                self.shapes.insert(shape, place);
                let id = pattern.id;
                self.places[place as usize] = Some(pattern);
                id
            }
        };
        if let Some(hole) = self.holes.get_mut(&hole) {
            hole.changes = true;
            hole.of.clear();
            hole.of.push(id);
        }
        Some(id)
    }

    /// Joins a pattern, taken out of its place, with another of the same shape; the older number stays.
    fn merge(&mut self, mut pattern: Box<Pattern>, place: u32, other: u32) -> PatternId {
        let Some(mut kept) = self.places[other as usize].take() else { return pattern.id };
        self.bytes -= kept.bytes();
        if pattern.id < kept.id {
            std::mem::swap(&mut pattern.id, &mut kept.id);
        }
        kept.absorb(&pattern);
        match pattern.split.take() {
            split if kept.split.is_none() => kept.split = split,
            split => self.fold_children(split, &mut kept),
        }
        self.bytes += kept.bytes();
        self.by_id.remove(&pattern.id.0);
        self.by_id.insert(kept.id.0, other);
        self.free.push(place);
        let (gone, id) = (pattern.id, kept.id);
        self.places[other as usize] = Some(kept);
        self.merged.insert(gone, id);
        id
    }

    /// The pattern that a pattern has become a part of, or itself.
    #[must_use]
    pub fn resolve(&self, mut id: PatternId) -> PatternId {
        while let Some(into) = self.merged.get(&id).filter(|into| **into < id) {
            id = *into;
        }
        id
    }
}

/// Whether a word stands right behind `=`.
fn is_assigned(pattern: &Pattern, at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| &pattern.parts[before]);
    before.is_some_and(|before| &*before.text == "=")
}
