//! States of a VM that one can go back to.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a snapshot of a VM; it only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub u64);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A snapshot: the disk of a VM as it was, and its memory if that was saved with it. It lies beside the disk and is lost
/// with it; a backup is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its number.
    pub id: SnapshotId,
    /// When it was taken, in microseconds since 1970.
    pub taken: i64,
    /// Its memory, if it was saved.
    pub memory: Option<Memory>,
    /// The guest's file systems were frozen meanwhile, so the disk is one that was put down in order.
    pub frozen: bool,
    /// It is what the VM had when somebody went back to another snapshot: evidence, and the way back.
    pub set_aside: bool,
    /// What it is, for people.
    pub note: String,
}

/// The memory of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Bytes on disk.
    pub bytes: u64,
    /// What the VM was when it was saved: it must be that again.
    pub machine: String,
    /// How often it was resumed (I23).
    pub resumed: u32,
}
