//! Whether a point looks as if somebody had encrypted the disk since the one before: then the newest points are of no use, and a
//! person must see which is the last without that.
//!
//! What is encrypted cannot be compressed, and all of it is new. A database, a system, logs and sources compress to a half
//! or less, so little of what they change is like that; what is compressed already (films, archives, packages) cannot be told from
//! it. So a point is only suspicious if that is far more than what its VM brings otherwise. docs/backup.md has what was measured.

use super::{Note, bytes, shown};
use holdfast_backup::point::Disk;
use holdfast_backup::repository::{PointName, Repository};
use holdfast_backup::save;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// Of what a disk holds, at least so much is new and does not compress.
const SHARE: f64 = 0.25;
/// And so many times as much as is usual.
const HABIT: f64 = 2.0;
/// So many points say what is usual: what two of them brought. One large load is no habit.
const POINTS: usize = 10;
/// Less than this is nothing to speak of, on a disk that is nearly empty (bytes).
const LEAST: u64 = 4 << 20;

/// What of a disk is other than at the point before, in bytes; at a first point everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Of the blocks that hold something.
    pub used: u64,
    /// What differs: of pieces, or of whole blocks where it is not known which pieces do.
    pub changed: u64,
    /// What of it the repository did not have.
    pub new: u64,
    /// What that was compressed to.
    pub packed: u64,
    /// What could not be compressed by a sixteenth: of the new, and of what an attempt that failed had brought.
    pub dense: u64,
}

impl Change {
    /// Of this disk, whose parent held something in so many bytes.
    fn of(counted: &save::Change, before: u64, size: u64) -> Self {
        let grown = counted.grown.load(Ordering::Relaxed);
        Self {
            used: before.saturating_add_signed(grown).min(size),
            changed: counted.changed.load(Ordering::Relaxed),
            new: counted.new.load(Ordering::Relaxed),
            packed: counted.packed.load(Ordering::Relaxed),
            dense: counted.dense.load(Ordering::Relaxed),
        }
    }

    /// Bytes that were written and do not compress. A delta may bring more than what changed: its base may be older.
    fn dense(&self) -> u64 {
        self.dense.min(self.changed)
    }

    /// The same of all that the disk holds.
    fn share(&self) -> f64 {
        if self.used == 0 { 0.0 } else { self.dense() as f64 / self.used as f64 }
    }
}

/// Notes what is other than at the parent, and whether that is suspicious.
pub(super) fn note(
    note: &mut Note,
    repository: &Repository,
    disk: &Disk,
    parent: Option<&(PointName, Disk)>,
    counted: &save::Change,
) {
    let of = |name: &PointName| repository.point(name).ok().map(|point| Note::of(&point));
    let parents = parent.map_or_else(Vec::new, |(name, _)| last(repository, &name.vm, of));
    let before = parent.filter(|(_, before)| before.size == disk.size); // of another size all is counted anew
    let before = before.map_or(0, |(name, before)| {
        let known = of(name).and_then(|note| note.change).map(|change| change.used);
        known.unwrap_or_else(|| repository.used(before))
    });
    note.parent = parent.map(|(name, _)| shown(name));
    note.change = Some(Change::of(counted, before, disk.size));
    note.warning = suspicion(&parents, note);
}

/// What is noted of the last points of a VM.
fn last(repository: &Repository, vm: &str, of: impl Fn(&PointName) -> Option<Note>) -> Vec<Note> {
    let mut names = repository.points().unwrap_or_default(); // who cannot list them says so when the point is made
    names.retain(|name| name.vm == vm);
    names.iter().rev().take(POINTS).filter_map(of).collect()
}

/// Why this point is suspicious beside the last ones of its VM: of what the disk holds, a quarter or more was written anew and
/// does not compress, and that is twice as much as is usual. A first point never is, and those that
/// were everything themselves say nothing of what is usual.
fn suspicion(parents: &[Note], this: &Note) -> Option<String> {
    let (change, parent) = (this.change?, this.parent.as_ref()?);
    let usual = parents.iter().filter(|note| note.parent.is_some()).filter_map(|note| note.change);
    let mut usual: Vec<f64> = usual.map(|change| change.share()).collect();
    usual.sort_by(|one, other| other.total_cmp(one));
    let usual = usual.get(1).copied();
    let is_far = usual.is_none_or(|usual| change.share() >= HABIT * usual);
    if change.share() < SHARE || change.dense() < LEAST || !is_far {
        return None;
    }
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let otherwise = usual.map_or_else(String::new, |usual| format!(", where {} are usual", percent(usual)));
    Some(format!(
        "{} of what the disk holds was written anew and cannot be compressed, as if it were encrypted \
         ({}{otherwise}); the last point before that is {parent}",
        percent(change.share()),
        bytes(change.dense()),
    ))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A point of a disk of which 1000 MiB are in use.
    fn point(changed: u64, dense: u64) -> Note {
        let (new, packed) = (changed * MIB, (changed - dense) * MIB / 3 + dense * MIB);
        let change = Change { used: 1_000 * MIB, changed: new, new, packed, dense: dense * MIB };
        Note { parent: Some("orders/6".into()), change: Some(change), ..Note::default() }
    }

    fn first(dense: u64) -> Note {
        Note { parent: None, ..point(1_000, dense) }
    }

    #[test]
    fn a_disk_that_is_overwritten_by_what_does_not_compress_is_suspicious_and_the_last_good_point_is_named() {
        let calm = [point(20, 1), point(180, 180), point(30, 2), first(100)];
        let why = suspicion(&calm, &point(900, 890)).unwrap();
        assert!(why.starts_with("89 % of what the disk holds"), "{why}");
        assert!(why.contains("where 0 % are usual"), "{why}");
        assert!(why.ends_with("the last point before that is orders/6"), "{why}");
        // The share counts, whatever else was written in the same time.
        assert!(suspicion(&calm, &point(1_000, 250)).is_some());
        assert_eq!(suspicion(&calm, &point(1_000, 249)), None);
        let unknown = suspicion(&[first(1_000)], &point(300, 300)).unwrap();
        assert!(!unknown.contains("usual"), "{unknown}");
    }

    #[test]
    fn a_first_point_is_never_suspicious_and_no_measure_of_what_is_usual() {
        assert_eq!(suspicion(&[], &first(1_000)), None);
        assert!(suspicion(&[first(1_000)], &point(600, 600)).is_some(), "a disk of films was encrypted");
    }

    #[test]
    fn what_a_vm_brings_each_time_is_not_suspicious_and_twice_as_much_is() {
        let archives = [point(300, 300), point(10, 0), point(280, 280)];
        assert_eq!(suspicion(&archives, &point(550, 550)), None);
        assert!(suspicion(&archives, &point(560, 560)).is_some());
    }

    #[test]
    fn what_is_large_and_compresses_or_is_next_to_nothing_is_not_suspicious() {
        assert_eq!(suspicion(&[point(1, 0)], &point(1_000, 0)), None, "a database was loaded");
        let change =
            Change { used: 8 * MIB, changed: 3 * MIB, new: 3 * MIB, packed: 3 * MIB, dense: 3 * MIB };
        assert_eq!(suspicion(&[], &Note { change: Some(change), ..point(0, 0) }), None);
        // Of points of earlier builds nothing is known.
        let unknown = Note { change: None, ..point(0, 0) };
        assert_eq!(suspicion(&[point(1, 0)], &unknown), None);
        assert!(suspicion(&[unknown], &point(500, 500)).is_some());
    }

    #[test]
    fn a_delta_of_an_older_base_counts_no_more_than_what_changed() {
        let mut deep = point(100, 0);
        deep.change.as_mut().unwrap().dense = 600 * MIB;
        assert_eq!(suspicion(&[point(100, 10)], &deep), None);
    }
}
