//! A pattern as people read it: its words and marks, and `<*>` for what changes.

use super::miner::Miner;
use super::part::{Part, PatternId};
use super::scan::scan;
use super::token::{Values, What};
use std::fmt;

/// How a variable is shown.
pub const VARIABLE: &str = "<*>";

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Always the same.
    Text(String),
    /// Changes; what types of value it has had.
    Variable(Values),
}

/// The words of a pattern, in order. Blanks at its ends are left out, and several in a row are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a Part>) -> Self {
        let mut template = Self::default();
        for part in parts {
            if part.gap && !template.pieces.is_empty() {
                template.push(" ");
            }
            if part.is_variable() {
                template.pieces.push(Piece::Variable(part.values));
                template.push(part.unit());
            } else {
                template.push(&part.text);
            }
        }
        template
    }

    fn push(&mut self, text: &str) {
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(last)) => last.push_str(text),
            Some(Piece::Variable(_)) | None => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    /// Its pieces, in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The types of its variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = Values> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(values) => Some(*values),
            Piece::Text(_) => None,
        })
    }

    /// The line that these values were taken out of, but for repeated blanks and those at its ends.
    #[must_use]
    pub fn fill(&self, values: &[&str]) -> String {
        let mut values = values.iter();
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Variable(_) => values.next().copied().unwrap_or(VARIABLE),
        });
        pieces.collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => out.write_str(text),
            Piece::Variable(_) => out.write_str(VARIABLE),
        })
    }
}

impl Miner {
    /// The template of a pattern as far as it is known now.
    #[must_use]
    pub fn template(&self, id: PatternId) -> Option<Template> {
        Some(Template::of(&self.get(self.resolve(id))?.parts))
    }

    /// What a line of this pattern has for its variables, in order: [`Template::fill`] gives the line back.
    #[must_use]
    pub fn values<'a>(&self, id: PatternId, line: &'a str) -> Option<Vec<&'a str>> {
        let pattern = self.get(self.resolve(id))?;
        let mut tokens = Vec::new();
        scan(line, &mut tokens);
        if tokens.len() != pattern.parts.len() {
            return None;
        }
        let mut values = Vec::new();
        for (part, token) in pattern.parts.iter().zip(&tokens) {
            let text = token.text(line);
            let is_same = part.text.as_ref() == text && part.gap == token.gap;
            match part.what {
                _ if part.is_variable() => values.push(text.strip_suffix(part.unit())?),
                What::Value(_) | What::Name | What::Numbered | What::Word | What::Mark if is_same => {}
                What::Value(_) | What::Name | What::Numbered | What::Word | What::Mark => return None,
            }
        }
        Some(values)
    }
}
