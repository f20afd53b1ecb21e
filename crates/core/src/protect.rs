//! Restore points by schedule: which is due, which is overdue, which snapshots may go. It decides on what it is told of
//! the points that are there, so a restart forgets nothing; it makes none, and removes none.

use crate::incident::IncidentId;
use crate::lease::Incarnation;
use crate::point::{Snapshot, SnapshotId};
use crate::time::{Duration, Timestamp, show};
use holdfast_retain::{Candidate, decide};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use holdfast_retain::Keep;

/// Clocks may differ by this much (microseconds) before a point is one from the future.
const AHEAD: i64 = 60_000_000;
/// After a start, of the VM or of ours, nobody is told of points that are too old for this long: one may be on its way.
const GRACE: Duration = Duration::from_secs(600);

/// What restore points are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// Snapshots: near, and lost with the disk.
    Snapshot,
    /// Backups: elsewhere.
    Backup,
}

impl Means {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Snapshot, Self::Backup];

    /// The word for it on screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Backup => "backup",
        }
    }
}

/// How often one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// How old the newest may become before the next is made.
    pub every: Duration,
    /// How old it may become before a person is told.
    pub stale_after: Duration,
}

impl Schedule {
    /// Whether one is due. Of which nothing is known, or which seems to come from the future, is none.
    #[must_use]
    pub fn is_due(&self, age: Option<Duration>) -> bool {
        age.is_none_or(|age| age >= self.every)
    }
}

/// Which restore points are made of a VM by schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedules {
    /// Snapshots.
    pub snapshot: Option<Schedule>,
    /// Backups.
    pub backup: Option<Schedule>,
}

impl Schedules {
    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = (Means, Schedule)> {
        let all = [(Means::Snapshot, self.snapshot), (Means::Backup, self.backup)];
        all.into_iter().filter_map(|(means, schedule)| Some((means, schedule?)))
    }
}

/// What was told of the newest point of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// When this was told.
    pub told: Timestamp,
    /// How old it was then; `None`: there is none, or nobody can tell.
    pub age: Option<Duration>,
    /// Why there is no newer one, a clause for people; `None`: nothing speaks against one.
    pub trouble: Option<String>,
}

/// What the engine knows of the restore points that are made of a VM by schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protected {
    /// Since when each kind is to be made.
    pub(crate) since: BTreeMap<Means, Timestamp>,
    /// Since when one could be made, and of which incarnation: the VM runs, and so do we.
    pub(crate) able: Option<(Incarnation, Timestamp)>,
    /// The newest snapshot.
    pub(crate) snapshot: Option<Newest>,
    /// The newest backup.
    pub(crate) backup: Option<Newest>,
    /// The open incident of points that are too old.
    pub(crate) overdue: Option<IncidentId>,
    /// When it is looked at again.
    pub(crate) look: Option<Timestamp>,
}

impl Protected {
    /// What was told of the newest point.
    #[must_use]
    pub const fn newest(&self, means: Means) -> Option<&Newest> {
        match means {
            Means::Snapshot => self.snapshot.as_ref(),
            Means::Backup => self.backup.as_ref(),
        }
    }

    pub(crate) fn learn(&mut self, means: Means, newest: Newest) {
        match means {
            Means::Snapshot => self.snapshot = Some(newest),
            Means::Backup => self.backup = Some(newest),
        }
    }

    /// Whether the newest point of a kind is too old, and since when; else when it will be.
    #[must_use]
    pub fn overdue(&self, means: Means, schedule: &Schedule, now: Timestamp) -> Overdue {
        let (Some(since), Some((_, able))) = (self.since.get(&means), self.able) else {
            return Overdue::Not(Timestamp::NEVER);
        };
        let old = self.age(means, now).unwrap_or_else(|| now.since(*since));
        // A start of ours makes no point that is too old a newer one.
        let grace = if self.overdue.is_some() { Duration::ZERO } else { schedule.stale_after.min(GRACE) };
        let left = schedule.stale_after.saturating_sub(old).max(grace.saturating_sub(now.since(able)));
        if left.is_zero() {
            Overdue::Since(now - old.saturating_sub(schedule.stale_after))
        } else {
            Overdue::Not(now + left)
        }
    }

    /// How old the newest point of a kind is, if there is one.
    #[must_use]
    pub fn age(&self, means: Means, now: Timestamp) -> Option<Duration> {
        let newest = self.newest(means)?;
        Some(newest.age?.saturating_add(now.since(newest.told)))
    }

    /// The sentence about a point that is too old. `way` is what stands in the way of a new one just now.
    #[must_use]
    pub fn says(&self, means: Means, schedule: &Schedule, now: Timestamp, way: Option<&str>) -> String {
        let (name, every) = (means.name(), show(schedule.every));
        let newest = self.age(means, now).map_or_else(
            || format!("no {name} is known"),
            |age| format!("the newest {name} is {} old", show(age)),
        );
        let trouble = self.newest(means).and_then(|newest| newest.trouble.as_deref());
        let why = match (trouble, way) {
            (Some(trouble), _) => trouble.to_owned(),
            (None, Some(way)) => format!("none is made now: {way}"),
            (None, None) => "nobody has said why".to_owned(),
        };
        format!("{newest}, and one is to be made every {every}; {why}")
    }
}

/// Whether a point is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It is not, and will be then if no new one comes.
    Not(Timestamp),
    /// It is, since then.
    Since(Timestamp),
}

/// Nothing is given up, as the clock is wrong now, or was when this one was taken (I12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("snapshot {id} was taken {} from now, says the clock: it is wrong, or was then", show(*ahead))]
pub struct FromTheFuture {
    /// The snapshot.
    pub id: SnapshotId,
    /// How far it is ahead.
    pub ahead: Duration,
}

/// A snapshot as the rule sees it by which points go. There is nothing of it to read back and hash: it is the disk of the VM
/// itself.
#[must_use]
pub const fn candidate(snapshot: &Snapshot) -> Candidate {
    Candidate {
        sequence: snapshot.id.0,
        taken: Some(snapshot.taken),
        is_verified: true,
        proved: snapshot.grade() as u8,
        is_doubtful: false,
    }
}

/// Which snapshots may go by what is to be kept, oldest first. `now` is what the wall clock shows, in microseconds since
/// 1970. Only those that were taken by schedule: what a person took, or what was set aside, is a person's to give up.
///
/// # Errors
/// A clock that is behind a snapshot keeps all.
pub fn may_go(snapshots: &[Snapshot], keep: &Keep, now: i64) -> Result<Vec<SnapshotId>, FromTheFuture> {
    let ours = || snapshots.iter().filter(|snapshot| snapshot.scheduled && !snapshot.set_aside);
    if let Some(odd) = ours().find(|snapshot| snapshot.taken.saturating_sub(now) > AHEAD) {
        let ahead = Duration::from_micros(u64::try_from(odd.taken - now).unwrap_or(u64::MAX));
        return Err(FromTheFuture { id: odd.id, ahead });
    }
    let candidates: Vec<Candidate> = ours().map(candidate).collect();
    let goes = decide(&candidates, keep).into_iter().filter(|(_, reasons)| reasons.is_empty());
    let mut ids: Vec<SnapshotId> = goes.map(|(point, _)| SnapshotId(point.sequence)).collect();
    ids.sort_unstable();
    Ok(ids)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::written::Marks;

    const HOUR: i64 = 3_600_000_000;

    fn taken(id: u64, hours: i64, frozen: bool) -> Snapshot {
        let (memory, note) = (None, String::new());
        Snapshot {
            id: SnapshotId(id),
            taken: hours * HOUR,
            memory,
            frozen,
            set_aside: false,
            scheduled: true,
            trial: None,
            written: Marks::new(),
            note,
        }
    }

    fn gone(snapshots: &[Snapshot], keep: Keep, hours: i64) -> Vec<u64> {
        may_go(snapshots, &keep, hours * HOUR).unwrap().iter().map(|id| id.0).collect()
    }

    #[test]
    fn what_is_not_kept_goes_and_what_a_person_took_or_set_aside_stays() {
        let mut all: Vec<Snapshot> = (1..=6).map(|n| taken(n, n as i64, true)).collect();
        let keep = Keep { last: 2, ..Keep::default() };
        assert_eq!(gone(&all, keep, 7), [1, 2, 3, 4]);
        all[0].scheduled = false;
        all[2].set_aside = true;
        assert_eq!(gone(&all, keep, 7), [2, 4]);
        let hourly = Keep { hourly: 4, ..Keep::default() };
        assert_eq!(gone(&all, hourly, 7), [] as [u64; 0]);
    }

    #[test]
    fn the_newest_consistent_one_stays_whatever_is_kept() {
        let mut all = vec![taken(1, 1, true), taken(2, 2, true), taken(3, 3, false), taken(4, 4, false)];
        let keep = Keep { last: 1, ..Keep::default() };
        assert_eq!(gone(&all, keep, 5), [1, 3], "2 is the newest of the best proved, 4 the newest");
        all.push(taken(5, 5, true));
        assert_eq!(gone(&all, keep, 5), [1, 2, 3, 4]);
    }

    #[test]
    fn a_clock_that_is_behind_a_snapshot_keeps_all_i12() {
        let all: Vec<Snapshot> = (1..=6).map(|n| taken(n, n as i64, true)).collect();
        let keep = Keep { last: 1, ..Keep::default() };
        let odd = may_go(&all, &keep, 4 * HOUR).unwrap_err();
        assert_eq!((odd.id, odd.ahead), (SnapshotId(5), Duration::from_secs(3_600)));
        assert_eq!(gone(&all, keep, 6), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_point_is_overdue_once_it_is_older_than_may_be_and_one_could_have_been_made() {
        let at = Timestamp::from_secs;
        let able = |since: u64| Some((Incarnation::default(), at(since)));
        let schedule =
            Schedule { every: Duration::from_secs(3_600), stale_after: Duration::from_secs(7_200) };
        let since = BTreeMap::from([(Means::Snapshot, at(100))]);
        let mut known = Protected { since, able: able(100), ..Protected::default() };
        let overdue = |known: &Protected, now: u64| known.overdue(Means::Snapshot, &schedule, at(now));
        assert_eq!(overdue(&known, 200), Overdue::Not(at(7_300)), "there is none yet");
        assert_eq!(overdue(&known, 7_400), Overdue::Since(at(7_300)));
        let (told, trouble) = (at(8_000), None);
        known.learn(Means::Snapshot, Newest { told, age: Some(Duration::from_secs(60)), trouble });
        assert_eq!(overdue(&known, 8_100), Overdue::Not(at(15_140)));
        assert_eq!(overdue(&known, 15_140), Overdue::Since(at(15_140)));
        known.able = able(15_000);
        assert_eq!(overdue(&known, 15_140), Overdue::Not(at(15_600)), "it was off until a moment ago");
        assert_eq!(overdue(&known, 15_600), Overdue::Since(at(15_140)));
        known.overdue = Some(IncidentId(1));
        known.able = able(15_599);
        assert_eq!(overdue(&known, 15_600), Overdue::Since(at(15_140)), "it was told before");
        assert_eq!(known.overdue(Means::Backup, &schedule, at(99_999)), Overdue::Not(Timestamp::NEVER));
        known.able = None;
        assert_eq!(overdue(&known, 99_999), Overdue::Not(Timestamp::NEVER));
        let said = known.says(Means::Snapshot, &schedule, at(15_600), Some("it is in maintenance"));
        assert!(
            said.contains("2h 07m old") && said.ends_with("none is made now: it is in maintenance"),
            "{said}"
        );
    }
}
