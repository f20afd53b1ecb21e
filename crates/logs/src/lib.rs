//! Log analysis: bytes become records, a line a clean line, a clean line a finding and a pattern.
//!
//! Pure: no clock, no file, no network, no chance. A line is written by a stranger
//! (I17): it is bounded, matched by automata that never look back, and only ever shown, never run.

mod clean;
pub mod decode;
mod header;
mod join;
mod pairs;
mod pattern;
mod record;
mod rules;
mod unusual;
mod windows;

pub use clean::{LONGEST_LINE, clean, clean_text, escape};
pub use header::syslog_message;
pub use join::{Join, MOST_WAITING, PATIENCE};
pub use pattern::{
    Family, Group, Limit, Miner, PatternId, Piece, Snapshot, SnapshotError, Template, VARIABLE, Value,
    Values, View,
};
pub use record::{
    LONGEST_FIELD, LONGEST_FIELD_NAME, LONGEST_PROGRAM, LONGEST_TEXT, MOST_FIELDS, Record, Severity,
};
pub use rules::{Fault, Kind, LINES_LOOKED_AT, LOOKED_AT, Match, Rule, Rules};
pub use unusual::{Heard, Sort, Statement, Unusual};
pub use windows::{
    During, Habits, Judgement, MOST_IN_WINDOW, Model, Reason, Room, Rows, Space, Watch, Window,
};
