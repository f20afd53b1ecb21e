//! The miner: a line in, the number of its pattern out, at once.
//!
//! Lines of one shape (the same words and marks, values anywhere in between) are one pattern: one hash of
//! the line, one look-up. A line of a new shape is compared with those that differ from it in one word only:
//! each pattern stands, for each of its words, in the table of **holes** under its shape without that word.
//! A word becomes a variable when a pattern of the same shape has a value there (numbers, paths: what else
//! stands there is a value too), or when so many words were seen in the hole that they cannot all be
//! statements of a program. The more words the rest has, the fewer it takes ([`super::weave`]).

use super::hash::ByHash;
use super::part::{Pattern, PatternId};
use super::scan::scan;
use super::token::{Token, What, hole_key, sum, value_key};
use super::weave::Asked;
use crate::clean::escape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Words that a pattern must have besides, for what stands where another line has a value to be one.
pub(super) const LEAST_WORDS: usize = 2;

/// Characters of a template in a sentence.
const LONGEST_NAME: usize = 200;

/// Answers that are remembered for lines of a pattern with a word for a variable.
const MOST_ALIASES: usize = 1 << 16;

/// How much the miner may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// So many patterns.
    pub patterns: usize,
    /// So many bytes of patterns and tables, as the miner counts them; a process takes up to twice as much.
    pub bytes: usize,
}

impl Default for Limit {
    /// 10,000 patterns, 16 MiB: a program writes some hundreds.
    fn default() -> Self {
        Self { patterns: 10_000, bytes: 16 << 20 }
    }
}

/// What the patterns show that differ in one word.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Hole {
    /// Those patterns; of a word that is known to change, those that were made of them.
    pub of: Vec<PatternId>,
    /// It is known to change.
    pub changes: bool,
}

/// Finds patterns, line by line. The same lines in the same order give the same ids, also across a
/// [`snapshot`](Self::snapshot).
#[derive(Clone, Debug)]
pub struct Miner {
    pub(super) limit: Limit,
    /// Lines so far.
    pub(super) now: u64,
    pub(super) next: u64,
    /// Patterns, each in its place for life.
    pub(super) places: Vec<Option<Box<Pattern>>>,
    pub(super) free: Vec<u32>,
    pub(super) by_id: ByHash<u32>,
    pub(super) shapes: ByHash<u32>,
    pub(super) holes: ByHash<Hole>,
    /// Shapes whose answer took more than one look-up; forgotten whenever an answer may change.
    pub(super) aliases: ByHash<u32>,
    pub(super) merged: BTreeMap<PatternId, PatternId>,
    /// Bytes of all patterns and holes, about.
    pub(super) bytes: usize,
    pub(super) dropped: u64,
    pub(super) tokens: Vec<Token>,
}

impl Default for Miner {
    fn default() -> Self {
        Self::new(Limit::default())
    }
}

impl Miner {
    /// One that knows nothing.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            now: 0,
            next: 1,
            places: Vec::new(),
            free: Vec::new(),
            by_id: ByHash::default(),
            shapes: ByHash::default(),
            holes: ByHash::default(),
            aliases: ByHash::default(),
            merged: BTreeMap::new(),
            bytes: 0,
            dropped: 0,
            tokens: Vec::new(),
        }
    }

    /// How much it may keep from now on. What is too much leaves when the next new pattern comes.
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// What a pattern is called in a sentence: its template in backquotes, escaped and cut.
    #[must_use]
    pub fn name(&self, id: PatternId) -> String {
        let template = self.template(id).map(|template| escape(&template.to_string(), LONGEST_NAME));
        format!("`{}`", template.unwrap_or_else(|| format!("pattern {}", id.0)))
    }

    /// Numbers up to this one were given, and are not given again, whatever became of their patterns.
    pub fn reserve(&mut self, id: PatternId) {
        self.next = self.next.max(id.0.saturating_add(1));
    }

    /// The pattern of a line, which is meant to be clean ([`crate::clean`]). Takes time proportional to the
    /// length of the line, and for a line of a new shape also to its number of words.
    pub fn add(&mut self, line: &str) -> PatternId {
        let mut tokens = std::mem::take(&mut self.tokens);
        scan(line, &mut tokens);
        self.now += 1;
        let shape = sum(&tokens).shape(tokens.len());
        let known = self.shapes.get(&shape).or_else(|| self.aliases.get(&shape)).copied();
        let place = known.unwrap_or_else(|| self.settle(shape, &tokens, line));
        let pattern = self.places[place as usize].as_mut().expect("tables name places that are taken");
        pattern.hit(&tokens, self.now);
        let id = pattern.id;
        if pattern.is_counted(&tokens) {
            self.count_words(place, &tokens, line);
        }
        self.tokens = tokens;
        id
    }

    /// A line that belongs to the one before: it counts only where lines are numbered.
    pub fn pass_over(&mut self) {
        self.now += 1;
    }

    /// Finds or makes the pattern of a line of an unknown shape.
    fn settle(&mut self, exact: u64, said: &[Token], line: &str) -> u32 {
        let mut tokens = said.to_vec();
        while let Some(at) = self.changing(&tokens) {
            let token = &mut tokens[at];
            (token.what, token.hash, token.tail) = (What::Value(token.what.as_value()), 0, 0);
            let shape = sum(&tokens).shape(tokens.len());
            if let Some(place) = self.shapes.get(&shape).copied() {
                let place = self.descend(place, said);
                if self.aliases.len() >= MOST_ALIASES {
                    self.aliases.clear();
                }
                self.aliases.insert(exact, place);
                return place;
            }
        }
        self.make_room();
        let id = PatternId(self.next);
        self.next += 1;
        let pattern = Box::new(Pattern::new(id, &tokens, line, self.now));
        self.bytes += pattern.bytes();
        let shape = pattern.shape();
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        self.places[place as usize] = Some(pattern);
        self.by_id.insert(id.0, place);
        self.shapes.insert(shape, place);
        self.aliases.clear();
        self.weave(id, Asked::Online);
        let id = self.resolve(id);
        let place = self.by_id.get(&id.0).copied().unwrap_or(place);
        self.descend(place, said)
    }

    /// The first word that is known to change in lines like this.
    fn changing(&self, tokens: &[Token]) -> Option<usize> {
        let sum = sum(tokens);
        let words = tokens.iter().filter(|token| token.is_telling()).count();
        let changes = |(at, token): &(usize, &Token)| {
            let with = |new| sum.instead(token.key(), new, *at).shape(tokens.len());
            let is_known = || self.holes.get(&with(hole_key(token.gap))).is_some_and(|hole| hole.changes);
            let others = words - usize::from(token.is_telling());
            let has_sibling =
                || others >= LEAST_WORDS && self.shapes.contains_key(&with(value_key(token.gap)));
            match token.what {
                What::Word | What::Name => is_known() || has_sibling(),
                What::Numbered => has_sibling(),
                What::Mark | What::Value(_) => false,
            }
        };
        tokens.iter().enumerate().find(changes).map(|(at, _)| at)
    }
}
