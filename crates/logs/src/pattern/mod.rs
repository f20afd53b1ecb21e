//! Patterns: which kind of line is this? Found by the miner in the lines themselves, without any setting.
//!
//! A line is cut into typed tokens ([`scan`]), its shape gives its pattern ([`miner`]), patterns that differ
//! in what turns out to be a variable become one ([`weave`], [`view`], [`forms`],
//! [`pairs`]), what was made one too early is split again ([`census`], [`split`]), and the least useful leave
//! ([`room`]).

mod bytes;
mod census;
mod forms;
mod hash;
mod miner;
mod pairs;
mod part;
mod room;
mod scan;
mod snapshot;
mod split;
mod template;
mod time;
mod token;
mod value;
mod view;
mod weave;

pub use miner::{Limit, Miner};
pub use part::PatternId;
pub use snapshot::{Snapshot, SnapshotError};
pub use split::Family;
pub use template::{Piece, Template, VARIABLE};
pub use token::{Value, Values};
pub use view::{Group, View};

#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod tests;
