//! A pattern that was made one too early is split again: each of a few words that are statements after all gets a
//! pattern of its own.
//!
//! The parent keeps its number, its lines and whatever else comes there. A child is found through its parent only, so
//! nothing joins them again; it has a new number, and says what it came of.

use super::census::{CENSUS_BYTES, Word, Words};
use super::miner::Miner;
use super::part::{Pattern, PatternId};
use super::token::{Token, What};
use serde::{Deserialize, Serialize};

/// Where a pattern was split, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Split {
    at: u16,
    /// Hashes of words, and the patterns of lines that have them.
    pub children: Vec<(u64, PatternId)>,
}

impl Split {
    /// The child that a line belongs to.
    fn child(&self, tokens: &[Token]) -> Option<PatternId> {
        let token = tokens.get(usize::from(self.at)).filter(|token| token.what == What::Word)?;
        self.children.iter().find(|(hash, _)| *hash == token.hash).map(|(_, id)| *id)
    }
}

/// What a pattern was split off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The pattern that was split.
    pub parent: PatternId,
    /// What all of them were once: no part of another.
    pub root: PatternId,
}

impl Miner {
    /// What this pattern was split off, if it was.
    #[must_use]
    pub fn family(&self, id: PatternId) -> Option<Family> {
        let parent = self.get(id)?.of?;
        Some(Family { parent: self.resolve(parent), root: self.root(parent) })
    }

    /// The pattern that this one was split off, if it was.
    #[must_use]
    pub fn came_of(&self, id: PatternId) -> Option<PatternId> {
        self.get(self.resolve(id))?.of.map(|of| self.resolve(of))
    }

    /// The pattern that this one was split off in the end, or itself.
    fn root(&self, id: PatternId) -> PatternId {
        let mut id = self.resolve(id);
        while let Some(of) = self.came_of(id).filter(|of| *of < id) {
            id = of;
        }
        id
    }

    /// Goes on from a pattern to its child that has the word of this line.
    pub(super) fn descend(&self, mut place: u32, tokens: &[Token]) -> u32 {
        while let Some(pattern) = &self.places[place as usize]
            && let Some(split) = &pattern.split
            && let Some(id) = split.child(tokens)
            && let Some(child) = self.by_id.get(&id.0)
        {
            place = *child;
        }
        place
    }

    /// Counts a line's words, and splits the pattern if they show that it has to be.
    pub(super) fn count_words(&mut self, place: u32, tokens: &[Token], line: &str) {
        let Some(pattern) = &mut self.places[place as usize] else { return };
        let (due, more) = pattern.count_words(tokens, line);
        self.bytes = self.bytes.saturating_add_signed(more * CENSUS_BYTES as isize);
        if let Some((at, words)) = due {
            self.split(place, at, &words);
        }
    }

    /// Makes a pattern of each of these words at that place; later, where there is no room now.
    fn split(&mut self, place: u32, at: usize, words: &[Word]) {
        if self.by_id.len() + words.len() > self.limit.patterns || self.bytes > self.limit.bytes {
            return;
        }
        let Some(mut parent) = self.places[place as usize].take() else { return };
        self.bytes -= parent.bytes();
        parent.parts[at].words = Words::Many;
        parent.refresh();
        let mut children = Vec::new();
        for word in words {
            let id = PatternId(self.next);
            self.next += 1;
            children.push((word.hash, id));
            let child = Box::new(parent.child(id, at, word, self.now));
            self.bytes += child.bytes();
            let place = self.free.pop().unwrap_or_else(|| {
                self.places.push(None);
                (self.places.len() - 1) as u32
            });
            self.places[place as usize] = Some(child);
            self.by_id.insert(id.0, place);
        }
        parent.split = Some(Box::new(Split { at: at as u16, children }));
        self.bytes += parent.bytes();
        self.places[place as usize] = Some(parent);
        self.aliases.clear();
    }

    /// What turned out to be a variable in a parent is one in its children.
    pub(super) fn widen_children(&mut self, parent: &Pattern, at: usize) {
        for id in parent.children() {
            let Some(place) = self.by_id.get(&id.0).copied() else { continue };
            let Some(mut child) = self.places[place as usize].take() else { continue };
            self.bytes -= child.bytes();
            child.widen(at);
            self.bytes += child.bytes();
            self.widen_children(&child, at);
            self.places[place as usize] = Some(child);
        }
    }

    /// Takes what was split off a pattern into another, which it became a part of.
    pub(super) fn fold_children(&mut self, split: Option<Box<Split>>, into: &mut Pattern) {
        for (_, id) in split.into_iter().flat_map(|split| split.children) {
            let Some(place) = self.by_id.remove(&id.0) else { continue };
            let Some(mut child) = self.places[place as usize].take() else { continue };
            self.bytes -= child.bytes();
            self.free.push(place);
            self.merged.insert(id, into.id);
            into.take_counts(&child);
            self.fold_children(child.split.take(), into);
        }
    }

    /// Forgets children that left.
    pub(super) fn forget_children(&mut self) {
        let Self { places, by_id, .. } = self;
        for pattern in places.iter_mut().flatten() {
            let Some(split) = &mut pattern.split else { continue };
            split.children.retain(|(_, id)| by_id.contains_key(&id.0));
            if split.children.is_empty() {
                pattern.parts[usize::from(split.at)].words = Words::None;
                pattern.split = None;
            }
        }
    }
}

impl Pattern {
    /// The patterns that were split off it.
    pub fn children(&self) -> impl Iterator<Item = PatternId> {
        self.split.iter().flat_map(|split| split.children.iter().map(|(_, id)| *id))
    }

    fn child(&self, id: PatternId, at: usize, word: &Word, now: u64) -> Self {
        let mut child = self.clone();
        (child.id, child.of, child.split) = (id, Some(self.id), None);
        (child.count, child.first, child.last, child.worth) = (0, now, now, u64::from(word.count));
        child.parts.iter_mut().for_each(|part| {
            if part.words.are_few() {
                part.words = Words::None;
            }
        });
        child.parts[at].set_word(word);
        child.refresh();
        child
    }
}
