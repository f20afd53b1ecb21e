//! What stands in the place of a variable, where words do: counted, so that a few words that are statements of a
//! program after all can be told from values.
//!
//! Bounded: a few words, a few other places of the line, a few things that stand there.

use super::token::{Token, What};
use super::{hash, part::Pattern};
use serde::{Deserialize, Serialize};

/// Words that are counted in one place; where there are more, it is a variable for good.
const MOST_WORDS: usize = 8;
/// Words that may be statements of a program.
const MOST_STATEMENTS: usize = 5;
/// Other places of the line that are looked at.
const MOST_TABLES: usize = 4;
/// Things that are told apart at each of them.
const MOST_FACES: usize = 6;
/// Lines between two questions.
const ROUND: u32 = 64;
/// From so many lines on, all counts are halved: what was long ago weighs less.
const LONG: u32 = 4_096;
/// Lines of each word, where nothing but their number speaks for it.
const LEAST_ALONE: u32 = 64;
/// Lines of each word that decides what else stands in the line.
const LEAST_DECISIVE: u32 = 24;
/// The chance that the next line has none of these words, where nothing else speaks for them.
const LEAST_CLOSED: f64 = 1.0 / 256.0;
/// Of the words' entropy: less is a rule with its exceptions.
const LEAST_BALANCE: f64 = 0.5;
/// Of the words' entropy, as much as the other place has to explain.
const LEAST_EXPLAINED: f64 = 0.5;
/// One in a million: the normal quantile.
const QUANTILE: f64 = 4.753_424;
/// What a census takes, about.
pub(super) const CENSUS_BYTES: usize = 2_048;

/// The words in the place of a variable.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) enum Words {
    /// None came.
    #[default]
    None,
    /// A few, each counted.
    Few(Box<Census>),
    /// More than a program has statements, or the pattern was split here.
    Many,
}

impl Words {
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    pub fn are_few(&self) -> bool {
        matches!(self, Self::Few(_))
    }

    /// One word of so many lines.
    pub fn one(hash: u64, text: &str, count: u64) -> Self {
        let mut census = Census::default();
        census.words.push(Word { hash, text: text.into(), count: small(count) });
        Self::Few(Box::new(census))
    }

    /// Takes in those of another pattern's lines; `counts` are the lines of this one and of the other.
    pub fn absorb(&mut self, other: &Self, counts: (u64, u64)) {
        *self = match (std::mem::take(self), other) {
            (Self::Many, _) | (_, Self::Many) => Self::Many,
            (Self::None, Self::None) => Self::None,
            (Self::Few(mut census), Self::None) => {
                census.others = census.others.saturating_add(small(counts.1));
                Self::Few(census)
            }
            (Self::None, Self::Few(other)) => {
                let mut census = other.clone();
                census.others = census.others.saturating_add(small(counts.0));
                Self::Few(census)
            }
            (Self::Few(census), Self::Few(other)) => census.joined(other),
        };
    }
}

/// A count that is no more than what is remembered.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(LONG).min(LONG)
}

/// A word, and how many lines had it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Word {
    pub hash: u64,
    pub text: Box<str>,
    pub count: u32,
}

/// How often each word came, and what came with it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Census {
    words: Vec<Word>,
    /// Lines with something else there: a number, a path, a name.
    others: u32,
    tables: Vec<Table>,
}

/// What stood at another place, beside each word.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Table {
    at: u16,
    faces: Vec<u64>,
    /// A row for each word, the last for what is none; a column for each face, the last for all others.
    counts: [[u32; MOST_FACES + 1]; MOST_WORDS + 1],
}

impl Table {
    fn add(&mut self, row: usize, face: u64) {
        let column = self.faces.iter().position(|known| *known == face).unwrap_or_else(|| {
            if self.faces.len() < MOST_FACES {
                self.faces.push(face);
                self.faces.len() - 1
            } else {
                MOST_FACES
            }
        });
        self.counts[row][column] += 1;
    }

    fn halve(&mut self) {
        self.counts.as_flattened_mut().iter_mut().for_each(|count| *count /= 2);
    }

    /// Whether what stands at that place goes with the word: the G-test says that it is no chance (one in a million),
    /// and it explains half of the words' entropy.
    fn is_decided(&self, words: &[usize]) -> bool {
        let rows: Vec<&[u32]> = words.iter().map(|word| &self.counts[*word][..]).collect();
        let columns = (0..=MOST_FACES).map(|column| rows.iter().map(|row| row[column]).sum::<u32>());
        let columns: Vec<u32> = columns.collect();
        let sums: Vec<u32> = rows.iter().map(|row| row.iter().sum()).collect();
        let cells: Vec<u32> = rows.iter().flat_map(|row| row.iter().copied()).collect();
        let (all, used) =
            (f64::from(sums.iter().sum::<u32>()), columns.iter().filter(|sum| **sum > 0).count());
        if used < 2 || sums.contains(&0) {
            return false;
        }
        let own = entropy(&sums);
        let shared = own + entropy(&columns) - entropy(&cells);
        let freedom = ((rows.len() - 1) * (used - 1)) as f64;
        2.0 * all * shared > beyond(freedom) && shared >= LEAST_EXPLAINED * own
    }
}

/// The entropy of these counts, in nats.
fn entropy(counts: &[u32]) -> f64 {
    let all = f64::from(counts.iter().sum::<u32>());
    let part = |count: &u32| f64::from(*count) / all;
    counts.iter().filter(|count| **count > 0).map(|count| -part(count) * part(count).ln()).sum()
}

/// What chi squared exceeds once in a million times (Wilson and Hilferty, 1931).
fn beyond(freedom: f64) -> f64 {
    let part = 2.0 / (9.0 * freedom);
    freedom * (1.0 - part + QUANTILE * part.sqrt()).powi(3)
}

impl Census {
    fn joined(mut self: Box<Self>, other: &Self) -> Words {
        self.others = self.others.saturating_add(other.others);
        for word in &other.words {
            match self.words.iter_mut().find(|own| own.hash == word.hash) {
                Some(own) => own.count = own.count.saturating_add(word.count),
                None => self.words.push(word.clone()),
            }
        }
        self.tables.clear(); // what stood beside words without a common row is counted anew
        if self.words.len() > MOST_WORDS { Words::Many } else { Words::Few(self) }
    }

    fn lines(&self) -> u32 {
        self.words.iter().map(|word| word.count).fold(self.others, u32::saturating_add)
    }

    /// Counts what a line has at this place. `false` if there are too many words.
    fn come(&mut self, at: u16, tokens: &[Token], line: &str, places: &[u16]) -> bool {
        if self.lines() >= LONG {
            self.halve();
        }
        let token = &tokens[usize::from(at)];
        let row = match token.what {
            What::Word => match self.words.iter().position(|word| word.hash == token.hash) {
                Some(row) => row,
                None if self.words.len() == MOST_WORDS => return false,
                None => {
                    let text = token.text(line).into();
                    self.words.push(Word { hash: token.hash, text, count: 0 });
                    self.words.len() - 1
                }
            },
            What::Name | What::Numbered | What::Mark | What::Value(_) => MOST_WORDS,
        };
        match self.words.get_mut(row) {
            Some(word) => word.count += 1,
            None => self.others += 1,
        }
        if self.tables.is_empty() {
            let others = places.iter().filter(|place| **place != at).take(MOST_TABLES);
            let table = |at: &u16| Table {
                at: *at,
                faces: Vec::new(),
                counts: [[0; MOST_FACES + 1]; MOST_WORDS + 1],
            };
            self.tables.extend(others.map(table));
        }
        for table in &mut self.tables {
            if let Some(other) = tokens.get(usize::from(table.at)) {
                table.add(row, face(other));
            }
        }
        true
    }

    /// Words that did not come for long make room. Rows of the tables go with them.
    fn halve(&mut self) {
        self.others /= 2;
        self.words.iter_mut().for_each(|word| word.count /= 2);
        self.tables.iter_mut().for_each(Table::halve);
        while let Some(row) = self.words.iter().position(|word| word.count == 0) {
            self.words.remove(row);
            for table in &mut self.tables {
                table.counts[row..MOST_WORDS].rotate_left(1);
                table.counts[MOST_WORDS - 1] = [0; MOST_FACES + 1];
            }
        }
    }

    /// The words that are statements of their own, if they are; `is_assigned` if they stand behind `=`.
    fn statements(&self, is_assigned: bool) -> Option<Vec<Word>> {
        let often = |least: u32| {
            let rows = self.words.iter().enumerate().filter(move |(_, word)| word.count >= least);
            rows.map(|(row, _)| row).collect::<Vec<usize>>()
        };
        let alone = || Some(often(LEAST_ALONE)).filter(|rows| !is_assigned && self.is_closed(rows));
        let decisive = || Some(often(LEAST_DECISIVE)).filter(|rows| self.is_decisive(rows));
        let rows = alone().or_else(decisive)?;
        Some(rows.iter().map(|row| self.words[*row].clone()).collect())
    }

    /// How many lines have one of these words, if these may be statements: a few, and none of them the rule.
    fn of(&self, rows: &[usize]) -> Option<u32> {
        let counts: Vec<u32> = rows.iter().map(|row| self.words[*row].count).collect();
        let are_few = (2..=MOST_STATEMENTS).contains(&rows.len());
        (are_few && entropy(&counts) >= LEAST_BALANCE * (rows.len() as f64).ln()).then(|| counts.iter().sum())
    }

    /// Whether next to nothing but these words comes (Good and Turing, as for new patterns).
    fn is_closed(&self, rows: &[usize]) -> bool {
        let lines = self.lines();
        let chance = |lines_of: u32| (f64::from(lines - lines_of) + 0.5) / (f64::from(lines) + 1.0);
        self.of(rows).is_some_and(|of| chance(of) <= LEAST_CLOSED)
    }

    /// Whether most lines have one of these words, and it decides what else stands in the line.
    fn is_decisive(&self, rows: &[usize]) -> bool {
        self.of(rows).is_some_and(|of| of >= self.lines() / 2)
            && self.tables.iter().any(|table| table.is_decided(rows))
    }
}

/// What a token looks like: a word by itself, a value by its type and unit.
fn face(token: &Token) -> u64 {
    match token.what {
        What::Value(value) => hash::fold(token.hash ^ (value as u64 + 1), 0x2545_f491_4f6c_dd1d),
        What::Word | What::Name | What::Numbered | What::Mark => token.hash,
    }
}

impl Pattern {
    /// Whether this line has to be counted word by word.
    pub fn is_counted(&self, tokens: &[Token]) -> bool {
        let begins = |at: &u16| {
            let at = usize::from(*at);
            matches!((&self.parts[at].what, &self.parts[at].words), (What::Value(_), Words::None))
                && tokens.get(at).is_some_and(|token| token.what == What::Word)
        };
        self.is_counting || self.open.iter().any(begins)
    }

    /// Counts the words that a line of its shape has in the places of variables. The place at which the pattern is
    /// to be split, with the words; and how many more censuses it has now.
    pub fn count_words(&mut self, tokens: &[Token], line: &str) -> (Option<(usize, Vec<Word>)>, isize) {
        let (mut due, mut more) = (None, 0);
        for place in 0..self.open.len() {
            let at = self.open[place];
            let (index, before) = (usize::from(at), self.count.saturating_sub(1));
            let (Some(part), Some(token)) = (self.parts.get_mut(index), tokens.get(index)) else { break };
            if !matches!(part.what, What::Value(_)) {
                continue;
            }
            if part.words.is_none() && token.what == What::Word {
                part.words = Words::Few(Box::new(Census { others: small(before), ..Census::default() }));
                more += 1;
            }
            let Words::Few(census) = &mut part.words else { continue };
            if !census.come(at, tokens, line, &self.open) {
                part.words = Words::Many;
                more -= 1;
            } else if due.is_none() && self.split.is_none() && census.lines().is_multiple_of(ROUND) {
                let is_assigned = index.checked_sub(1).is_some_and(|before| &*self.parts[before].text == "=");
                let Words::Few(census) = &self.parts[index].words else { continue };
                due = census.statements(is_assigned).map(|words| (index, words));
            }
        }
        self.is_counting = self.parts.iter().any(|part| part.words.are_few());
        (due, more)
    }
}
