//! What the miner knows, to be kept across a restart.

use super::hash::ByHash;
use super::miner::{Hole, Limit, Miner};
use super::part::{Pattern, PatternId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A miner at rest. A miner made of it goes on exactly as the one it was taken of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    v: u32,
    limit: Limit,
    now: u64,
    next: u64,
    dropped: u64,
    patterns: Vec<Pattern>,
    holes: BTreeMap<u64, Hole>,
    merged: BTreeMap<PatternId, PatternId>,
}

/// The form of today's snapshots.
const VERSION: u32 = 1;

/// Why a snapshot is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It was written by another version.
    #[error("the snapshot has form {found}, this program reads form {VERSION}")]
    Version {
        /// Its form.
        found: u32,
    },
    /// Two patterns have one number, or one that was not given out yet.
    #[error("pattern {id} of the snapshot cannot be")]
    Pattern {
        /// Its number.
        id: u64,
    },
}

impl Miner {
    /// All that it knows.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut patterns: Vec<Pattern> =
            self.places.iter().flatten().map(|pattern| (**pattern).clone()).collect();
        patterns.sort_by_key(|pattern| pattern.id);
        Snapshot {
            v: VERSION,
            limit: self.limit,
            now: self.now,
            next: self.next,
            dropped: self.dropped,
            patterns,
            holes: self.holes.iter().map(|(hash, hole)| (*hash, hole.clone())).collect(),
            merged: self.merged.clone(),
        }
    }

    /// A miner that goes on from there.
    ///
    /// # Errors
    /// If the snapshot is of another version or contradicts itself.
    pub fn restore(snapshot: Snapshot) -> Result<Self, SnapshotError> {
        if snapshot.v != VERSION {
            return Err(SnapshotError::Version { found: snapshot.v });
        }
        let mut miner = Self::new(snapshot.limit);
        (miner.now, miner.next, miner.dropped) = (snapshot.now, snapshot.next, snapshot.dropped);
        for (place, mut pattern) in snapshot.patterns.into_iter().enumerate() {
            let id = pattern.id.0;
            pattern.refresh();
            let is_new = miner.by_id.insert(id, place as u32).is_none();
            let is_alone =
                pattern.of.is_some() || miner.shapes.insert(pattern.shape(), place as u32).is_none();
            if !is_new || !is_alone || id >= miner.next {
                return Err(SnapshotError::Pattern { id });
            }
            miner.places.push(Some(Box::new(pattern)));
        }
        miner.holes = snapshot.holes.into_iter().collect::<ByHash<Hole>>();
        miner.merged = snapshot.merged;
        miner.count_bytes();
        Ok(miner)
    }
}
