//! A pattern as the miner keeps it: its tokens, and what was seen in each of its variables.

use super::census::{CENSUS_BYTES, Word, Words};
use super::hash::Sum;
use super::split::Split;
use super::token::{Token, Value, Values, What, hole_key, key, value_key};
use serde::{Deserialize, Serialize};

/// The number of a pattern: given once, in order of appearance, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PatternId(pub u64);

/// One token of a pattern.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub gap: bool,
    pub what: What,
    /// Of the text; of a value, that of its unit.
    pub hash: u64,
    /// The text; of a value, its unit.
    pub text: Box<str>,
    /// Whether lines had another text here.
    pub varied: bool,
    pub values: Values,
    /// Which words stood here, where it is a variable.
    #[serde(default, skip_serializing_if = "Words::is_none")]
    pub words: Words,
}

impl Part {
    fn new(token: &Token, line: &str) -> Self {
        let (text, values) = match token.what {
            What::Value(value) => (token.tail(line), Some(value)),
            What::Numbered => (token.text(line), Some(Value::Id)),
            What::Name => (token.text(line), Some(Value::Name)),
            What::Word | What::Mark => (token.text(line), None),
        };
        let mut part = Self {
            gap: token.gap,
            what: token.what,
            hash: token.hash,
            text: text.into(),
            varied: false,
            values: Values::default(),
            words: Words::None,
        };
        if let Some(value) = values {
            part.values.add(value);
        }
        part
    }

    /// What it counts as when shapes are compared.
    pub fn key(&self) -> u64 {
        key(self.what, self.hash, self.gap)
    }

    /// Whether it is shown as a variable.
    pub fn is_variable(&self) -> bool {
        match self.what {
            What::Value(_) | What::Name => true,
            What::Numbered => self.varied,
            What::Word | What::Mark => false,
        }
    }

    /// Whether it is a word of more than a letter.
    pub fn is_telling(&self) -> bool {
        self.what == What::Word && self.text.len() > 1
    }

    /// The unit that every value here had.
    pub fn unit(&self) -> &str {
        if self.varied || !matches!(self.what, What::Value(_)) { "" } else { &self.text }
    }

    /// Makes a variable of it.
    pub fn widen(&mut self) {
        let value = self.what.as_value();
        self.values.add(value);
        (self.what, self.hash, self.text, self.varied) = (What::Value(value), 0, "".into(), false);
    }

    /// Makes a word of it again.
    pub fn set_word(&mut self, word: &Word) {
        (self.what, self.hash, self.text) = (What::Word, word.hash, word.text.clone());
        (self.varied, self.values, self.words) = (false, Values::default(), Words::None);
    }

    /// Takes in what was seen at the same place of a pattern of the same shape.
    pub fn absorb(&mut self, other: &Self) {
        self.values.add_all(other.values);
        self.varied |= other.varied || self.hash != other.hash;
    }
}

/// A kind of line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pattern {
    pub id: PatternId,
    pub parts: Vec<Part>,
    /// Which parts have something to learn from a line.
    #[serde(skip)]
    pub open: Vec<u16>,
    /// The sum of its tokens.
    #[serde(skip)]
    sum: Sum,
    /// Whether words are counted in the place of a variable.
    #[serde(skip)]
    pub is_counting: bool,
    /// What it was split off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<PatternId>,
    /// What was split off it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Box<Split>>,
    pub count: u64,
    pub first: u64,
    pub last: u64,
    /// What is left of its count when room was made: halved each time.
    pub worth: u64,
}

impl Pattern {
    pub fn new(id: PatternId, tokens: &[Token], line: &str, now: u64) -> Self {
        let parts: Vec<Part> = tokens.iter().map(|token| Part::new(token, line)).collect();
        let mut pattern = Self {
            id,
            parts,
            open: Vec::new(),
            sum: Sum::default(),
            is_counting: false,
            of: None,
            split: None,
            count: 0,
            first: now,
            last: now,
            worth: 0,
        };
        pattern.refresh();
        pattern
    }

    /// Finds out again what follows from its parts.
    pub fn refresh(&mut self) {
        let learns = |part: &Part| matches!(part.what, What::Value(_) | What::Numbered);
        let open = self.parts.iter().enumerate().filter(|(_, part)| learns(part));
        self.open = open.map(|(at, _)| at as u16).collect();
        let parts = self.parts.iter().enumerate();
        self.is_counting = self.parts.iter().any(|part| part.words.are_few());
        self.sum = parts.fold(Sum::default(), |sum, (at, part)| sum.with(part.key(), at));
    }

    /// Its shape.
    pub fn shape(&self) -> u64 {
        self.sum.shape(self.parts.len())
    }

    /// Its shape with something else at that place.
    pub fn shape_with(&self, at: usize, new: u64) -> u64 {
        self.sum.instead(self.parts[at].key(), new, at).shape(self.parts.len())
    }

    /// Its shape without the word at that place, whatever the word is.
    pub fn hole(&self, at: usize) -> u64 {
        self.shape_with(at, hole_key(self.parts[at].gap))
    }

    /// Its shape with a value at that place.
    pub fn sibling(&self, at: usize) -> u64 {
        self.shape_with(at, value_key(self.parts[at].gap))
    }

    /// How many words it has besides that at this place, or all.
    pub fn words(&self, but: usize) -> usize {
        let others = self.parts.iter().enumerate().filter(|(at, _)| *at != but);
        others.filter(|(_, part)| part.is_telling()).count()
    }

    /// Learns from a line of its shape.
    pub fn hit(&mut self, tokens: &[Token], now: u64) {
        self.count += 1;
        self.worth += 1;
        self.last = now;
        for at in &self.open {
            let at = usize::from(*at);
            let (Some(part), Some(token)) = (self.parts.get_mut(at), tokens.get(at)) else { return };
            match token.what {
                What::Value(value) => {
                    part.values.add(value);
                    part.varied |= part.hash != token.hash;
                }
                What::Numbered if matches!(part.what, What::Numbered) => {
                    part.varied |= part.hash != token.hash
                }
                What::Numbered | What::Word | What::Name | What::Mark => {
                    part.values.add(token.what.as_value());
                    part.varied |= part.hash != 0;
                }
            }
        }
    }

    /// Makes a variable of the word at that place.
    pub fn widen(&mut self, at: usize) {
        let part = &mut self.parts[at];
        let words = match part.what {
            What::Word => Words::one(part.hash, &part.text, self.count),
            What::Name | What::Numbered | What::Mark | What::Value(_) => Words::None,
        };
        part.widen();
        part.words = words;
        self.refresh();
    }

    /// Takes in a pattern of the same shape.
    pub fn absorb(&mut self, other: &Self) {
        let counts = (self.count, other.count);
        for (part, other) in self.parts.iter_mut().zip(&other.parts) {
            part.absorb(other);
            part.words.absorb(&other.words, counts);
        }
        self.is_counting = self.parts.iter().any(|part| part.words.are_few());
        self.take_counts(other);
    }

    /// Takes in the lines of another pattern.
    pub fn take_counts(&mut self, other: &Self) {
        self.count += other.count;
        self.worth += other.worth;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    /// About how many bytes it takes, with its place in the tables.
    pub fn bytes(&self) -> usize {
        let texts: usize = self.parts.iter().map(|part| part.text.len()).sum();
        let censuses = self.parts.iter().filter(|part| part.words.are_few()).count();
        256 + texts + censuses * CENSUS_BYTES + self.parts.len() * (size_of::<Part>() + 2)
    }
}
