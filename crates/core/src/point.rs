//! States of a VM that one can go back to.

use crate::plan::Remedy;
use crate::time::{Duration, Timestamp};
use crate::written::Marks;
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

/// The number of a backup of a VM in its repository; it only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackupId(pub u64);

/// A restore point of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PointId {
    /// A snapshot, beside the disk.
    Snapshot(SnapshotId),
    /// A backup, elsewhere.
    Backup {
        /// Its number.
        backup: BackupId,
    },
}

impl PointId {
    /// A backup of this number.
    #[must_use]
    pub const fn backup(number: u64) -> Self {
        Self::Backup { backup: BackupId(number) }
    }
}

impl From<SnapshotId> for PointId {
    fn from(id: SnapshotId) -> Self {
        Self::Snapshot(id)
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(id) => write!(f, "snapshot {id}"),
            Self::Backup { backup } => write!(f, "backup {}", backup.0),
        }
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
    /// It was taken by schedule, and may go by schedule.
    #[serde(default)]
    pub scheduled: bool,
    /// What it is, for people.
    pub note: String,
    /// What its last trial showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// What the applications had written by then.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub written: Marks,
}

impl Snapshot {
    /// How far it is proved. One that did not boot in a trial is no better than one that was only taken.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        match &self.trial {
            Some(trial) => trial.grade,
            None if self.frozen || self.memory.is_some() => Grade::Consistent,
            None => Grade::Taken,
        }
    }
}

/// What was seen of a point when its disk was booted in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What it proved; [`Grade::Taken`] if it did not boot.
    pub grade: Grade,
    /// When it ended, in microseconds since 1970.
    pub when: i64,
    /// How long it took until users would have been served, or the guest answered if it has no application, in
    /// milliseconds.
    pub boot_ms: Option<u64>,
    /// What a person should know of it.
    pub words: String,
}

/// The memory of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Bytes on disk.
    pub bytes: u64,
    /// How long its file is, in bytes; 0: that was not noted.
    #[serde(default)]
    pub length: u64,
    /// What the VM was when it was saved: it must be that again.
    pub machine: String,
    /// How often it was resumed (I23).
    pub resumed: u32,
    /// How its file is laid out.
    #[serde(default)]
    pub kind: MemoryKind,
    /// What the hypervisor calls the machine, with the version of that; empty: not known.
    #[serde(default)]
    pub machine_type: String,
}

/// How a saved memory is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryKind {
    /// One stream, as any QEMU writes and reads it. What was saved before there were others.
    #[default]
    Stream,
    /// Each page in a place of its own: only a QEMU that offers `mapped-ram` reads it.
    Mapped,
}

/// How far it is proved that a point can be gone back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// It was taken: its disk is as after a power cut.
    #[default]
    Taken,
    /// Its file systems were frozen, it was off, or its memory was saved with it.
    Consistent,
    /// It was booted in a sandbox.
    Booted,
    /// Its application answered there.
    AppChecked,
}

impl Grade {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Taken, Self::Consistent, Self::Booted, Self::AppChecked];

    /// The word for it on screen and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Consistent => "consistent",
            Self::Booted => "booted",
            Self::AppChecked => "app-checked",
        }
    }

    /// The grade of this word; of any other it is the least.
    #[must_use]
    pub fn named(word: &str) -> Self {
        Self::ALL.into_iter().find(|grade| grade.name() == word).unwrap_or_default()
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A restore point as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Which one.
    pub id: PointId,
    /// How far it is proved.
    pub grade: Grade,
    /// It has a memory that was never resumed (I23).
    pub resumable: bool,
    /// It may hold what somebody encrypted or overwrote: nobody goes there but a person who names it.
    #[serde(default)]
    pub doubtful: bool,
    /// How old it was when this was told. What seems to come from the future is as old as can be.
    pub age: Duration,
    /// What the applications had written by then.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub written: Marks,
}

/// The restore points of a VM, as they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Points {
    told: Timestamp,
    known: Vec<Known>,
}

/// A restore point that may be gone back to, and what that costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayBack {
    /// The point.
    pub point: Known,
    /// What was written in this time before the fault is no longer what users see.
    pub loses: Duration,
}

impl Points {
    /// These, told now.
    #[must_use]
    pub const fn told(now: Timestamp, known: Vec<Known>) -> Self {
        Self { told: now, known }
    }

    /// One of them, whatever it costs.
    #[must_use]
    pub fn find(&self, id: PointId, now: Timestamp, down_since: Timestamp) -> Option<WayBack> {
        self.aged(now, down_since).find(|(way, _)| way.point.id == id).map(|(way, _)| way)
    }

    /// The newest of which it is not sure that the fault is not in it, too: it is doubtful, or was taken when users may
    /// have been without service already. Of these kinds, and not one of those that were tried.
    #[must_use]
    pub fn uncertain(
        &self,
        now: Timestamp,
        down_since: Timestamp,
        tried: &[PointId],
        kinds: &[Remedy],
    ) -> Option<WayBack> {
        let fits = |(way, is_before): &(WayBack, bool)| {
            let unsure = way.point.doubtful || !is_before;
            unsure && !tried.contains(&way.point.id) && kinds.iter().any(|kind| way.point.is_for(*kind))
        };
        let ways = self.aged(now, down_since).filter(fits).map(|(way, _)| way);
        ways.min_by_key(|way| (way.point.doubtful, way.loses))
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn knows(&self, id: SnapshotId) -> bool {
        self.known.iter().any(|point| point.id == id.into())
    }

    /// It is to go: nobody goes back to it from now on. The newest one, and the newest of the best proved, stay.
    pub(crate) fn give_up(&mut self, id: SnapshotId) -> Result<(), &'static str> {
        let snapshots = || self.known.iter().filter(|point| matches!(point.id, PointId::Snapshot(_)));
        let best = snapshots().max_by_key(|point| (point.grade, point.id));
        let point = PointId::from(id);
        if !self.knows(id) {
            return Err("there is no such snapshot");
        }
        if best.is_some_and(|best| best.id == point) || snapshots().all(|other| other.id <= point) {
            return Err("it is the newest one, or the newest of the best proved");
        }
        self.known.retain(|known| known.id != point);
        Ok(())
    }

    /// The best for one of these remedies, of those from before the fault that are not doubtful and were not tried yet: the
    /// best proved, of these the newest. With a bound, of those that lose no more than that.
    #[must_use]
    pub fn best(
        &self,
        now: Timestamp,
        down_since: Timestamp,
        bound: Option<Duration>,
        tried: &[PointId],
        kinds: &[Remedy],
    ) -> Option<WayBack> {
        let fits = |way: &WayBack| {
            let suits = kinds.iter().any(|kind| way.point.is_for(*kind));
            let untried = !way.point.doubtful && !tried.contains(&way.point.id);
            suits && untried && bound.is_none_or(|bound| way.loses <= bound)
        };
        let rank = |way: &WayBack| (way.point.grade, std::cmp::Reverse(way.loses), way.point.id);
        let before = self.aged(now, down_since).filter_map(|(way, is_before)| is_before.then_some(way));
        before.filter(fits).max_by_key(rank)
    }

    /// All of them, and whether each was taken before the fault: a later one has it, too.
    fn aged(&self, now: Timestamp, down_since: Timestamp) -> impl Iterator<Item = (WayBack, bool)> {
        let (lasted, since) = (now.since(down_since), now.since(self.told));
        self.known.iter().map(move |point| {
            let before = point.age.saturating_add(since).checked_sub(lasted);
            (WayBack { point: point.clone(), loses: before.unwrap_or_default() }, before.is_some())
        })
    }
}

impl Known {
    /// Whether this remedy can go there.
    #[must_use]
    pub const fn is_for(&self, remedy: Remedy) -> bool {
        match self.id {
            PointId::Snapshot(_) => {
                matches!(remedy, Remedy::Revert) || (matches!(remedy, Remedy::Resume) && self.resumable)
            }
            PointId::Backup { .. } => matches!(remedy, Remedy::Restore),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: u64, grade: Grade, age: u64, resumable: bool) -> Known {
        let (doubtful, age, written) = (false, Duration::from_secs(age), Marks::new());
        Known { id: SnapshotId(id).into(), grade, resumable, doubtful, age, written }
    }

    #[test]
    fn the_best_proved_is_taken_then_the_newest_and_none_from_after_the_fault() {
        let at = |s: u64| Timestamp::ZERO + Duration::from_secs(s);
        let points = Points::told(
            at(1_000),
            vec![
                known(1, Grade::AppChecked, 900, false),
                known(2, Grade::Consistent, 300, true),
                known(3, Grade::Consistent, 200, false),
                known(4, Grade::Taken, 100, false),
                known(5, Grade::AppChecked, 5, false),
            ],
        );
        let best = |bound: Option<u64>, tried: &[u64], resume: bool| {
            let tried: Vec<PointId> = tried.iter().map(|id| SnapshotId(*id).into()).collect();
            // It is 1020 s, and users have not been served since 990 s.
            let kinds = [if resume { Remedy::Resume } else { Remedy::Revert }];
            let way = points.best(at(1_020), at(990), bound.map(Duration::from_secs), &tried, &kinds)?;
            let PointId::Snapshot(SnapshotId(id)) = way.point.id else { return None };
            Some((id, way.loses.as_secs()))
        };
        assert_eq!(best(None, &[], false), Some((1, 890)));
        assert_eq!(best(Some(300), &[], false), Some((3, 190)));
        assert_eq!(best(Some(300), &[3], false), Some((2, 290)));
        assert_eq!(best(Some(300), &[], true), Some((2, 290)));
        assert_eq!(best(Some(100), &[], false), Some((4, 90)));
        assert_eq!(best(Some(1), &[], false), None);
    }

    #[test]
    fn a_memory_that_was_noted_before_there_were_kinds_is_a_stream_of_an_unknown_machine() {
        let old = r#"{"bytes": 7, "machine": "512 MiB", "resumed": 1}"#;
        let read: Memory = serde_json::from_str(old).expect("a record from before");
        let same = Memory { bytes: 7, machine: "512 MiB".into(), resumed: 1, ..Memory::default() };
        assert_eq!((read.kind, &read), (MemoryKind::Stream, &same));
        let mapped = Memory { kind: MemoryKind::Mapped, machine_type: "pc-i440fx-10.0".into(), ..same };
        let written = serde_json::to_string(&mapped).expect("it is plain");
        assert_eq!(serde_json::from_str::<Memory>(&written).expect("it was just written"), mapped);
    }

    #[test]
    fn the_newest_and_the_newest_of_the_best_proved_are_never_given_up_i12() {
        let known = vec![
            known(1, Grade::Consistent, 40, false),
            known(2, Grade::Consistent, 30, false),
            known(3, Grade::Taken, 20, false),
            known(4, Grade::Taken, 10, false),
        ];
        let mut points = Points::told(Timestamp::ZERO, known);
        for (id, goes) in [(4, false), (2, false), (1, true), (3, true), (3, false), (2, false)] {
            assert_eq!(points.give_up(SnapshotId(id)).is_ok(), goes, "{id}");
        }
        assert!(points.knows(SnapshotId(2)) && !points.knows(SnapshotId(3)));
    }
}
