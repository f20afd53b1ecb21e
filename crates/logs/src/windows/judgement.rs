//! What is said about a window: how unusual, and what of it stands out.

use std::fmt::Write;

/// Reasons that are named.
const MOST_REASONS: usize = 3;

/// A part of the difference that is less than this is no reason.
const LEAST_SHARE: f64 = 0.1;

/// As far as something unusual goes that is not enough by itself, in multiples of the limit.
pub(super) const ALMOST: f64 = 0.9;

/// A window, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// 0 is as usual as can be, 0.5 at the limit, 1 as far as can be.
    pub score: f64,
    /// Beyond the limit.
    pub is_unusual: bool,
    /// What makes most of the difference to the usual window that is nearest, the most first.
    pub reasons: Vec<Reason>,
}

/// One thing that stands out; patterns by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No usual window had such a line.
    Unseen {
        /// Which.
        pattern: u32,
        /// How many lines.
        count: u32,
    },
    /// It is not there.
    Missing {
        /// Which.
        pattern: u32,
        /// How many lines there usually are.
        usual: u32,
    },
    /// There are other numbers of lines.
    Count {
        /// Which.
        pattern: u32,
        /// How many lines.
        count: u32,
        /// How many there usually are.
        usual: u32,
    },
    /// One never came right after the other; none is the beginning or the end.
    Step {
        /// What came first.
        before: Option<u32>,
        /// What came then.
        after: Option<u32>,
    },
}

impl Reason {
    pub(super) fn changed(pattern: u32, count: u32, usual: u32) -> Self {
        match count {
            0 => Self::Missing { pattern, usual },
            _ => Self::Count { pattern, count, usual },
        }
    }

    /// In a few words; `name` tells what a pattern is called.
    #[must_use]
    pub fn says(&self, name: impl Fn(u32) -> String) -> String {
        match *self {
            Self::Unseen { pattern, count: 1 } => format!("{} is in no usual window", name(pattern)),
            Self::Unseen { pattern, count } => {
                format!("{} is in no usual window, and came {count} times", name(pattern))
            }
            Self::Missing { pattern, usual } => format!("{} is missing, usually {usual}", name(pattern)),
            Self::Count { pattern, count: 1, usual } => {
                format!("{} came once, usually {usual} times", name(pattern))
            }
            Self::Count { pattern, count, usual } => {
                format!("{} came {count} times, usually {usual}", name(pattern))
            }
            Self::Step { before: Some(before), after: Some(after) } => {
                format!("{} never came right after {}", name(after), name(before))
            }
            Self::Step { before: Some(last), after: None } => format!("never ended with {}", name(last)),
            Self::Step { before: None, after: Some(first) } => format!("never began with {}", name(first)),
            Self::Step { before: None, after: None } => "there is nothing in it".to_owned(),
        }
    }
}

impl Judgement {
    /// All reasons as one sentence; nothing for a usual window.
    #[must_use]
    pub fn says(&self, name: impl Fn(u32) -> String) -> String {
        let mut text = String::new();
        for (number, reason) in self.reasons.iter().enumerate() {
            let between = if number == 0 { "" } else { "; " };
            let written = write!(text, "{between}{}", reason.says(&name));
            debug_assert!(written.is_ok(), "a String takes all");
        }
        text
    }
}

/// Multiples of the limit, from 0 on, as a score from 0 to 1.
pub(super) fn score(beyond: f64) -> f64 {
    if beyond.is_finite() { beyond / (1.0 + beyond) } else { 1.0 }
}

/// The parts that make most of the whole; at least one.
pub(super) fn largest(mut parts: Vec<(f64, Reason)>) -> Vec<Reason> {
    let whole: f64 = parts.iter().map(|(part, _)| part).sum();
    parts.sort_by(|a, b| b.0.total_cmp(&a.0));
    let most = parts.first().map_or(0.0, |(part, _)| *part);
    parts.retain(|(part, _)| *part > 0.0 && *part >= most.min(whole * LEAST_SHARE));
    parts.into_iter().take(MOST_REASONS).map(|(_, reason)| reason).collect()
}
