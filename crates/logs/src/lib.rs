//! Log analysis: a line becomes a clean line, a clean line a finding.
//!
//! Pure: no clock, no file, no network, no memory of earlier lines. A line is written by a stranger
//! (I17): it is bounded, matched by automata that never look back, and only ever shown, never run.

mod clean;
mod rules;

pub use clean::{LONGEST_LINE, clean, escape};
pub use rules::{Kind, LOOKED_AT, Match, Rule, Rules};
