//! Which point is meant, and when the next one is due.

use super::run::Which;
use super::watch::rows;
use crate::clock;
use crate::config::Config;
use crate::protect::{ProtectError, Protector};
use holdfast_backup::retain::{Candidate, Keep, stays_for_its_proof};
use holdfast_core::point::{Grade, SnapshotId};
use holdfast_core::protect;
use holdfast_core::subject::VmName;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a trial may take where nothing is configured.
pub const WITHIN: Duration = Duration::from_secs(600);
/// A point that is younger than this, and than the time between trials, is left alone: it may be one that somebody takes for
/// an hour.
const SETTLED: Duration = Duration::from_secs(600);
/// The points of a VM are listed so often, or as often as there is to be a trial.
const LIST_EVERY: Duration = Duration::from_secs(300);
/// One that could not be tried is not tried again before this time is over.
const AGAIN: Duration = Duration::from_secs(6 * 3_600);

/// Why no proof began.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProofError {
    /// There is no such VM.
    #[error("there is no such vm")]
    NoVm,
    /// It has no such point.
    #[error("it has no restore point `{0}`")]
    NoPoint(String),
    /// Nobody can tell which points there are.
    #[error("its restore points cannot be listed: {0}")]
    Unknown(String),
    /// Another is tried.
    #[error("a point of vm `{0}` is being tried, and it is one at a time")]
    Busy(VmName),
    /// The daemon ends.
    #[error("the daemon is stopping")]
    Stopping,
}

impl ProofError {
    /// The way out.
    pub fn hint(&self, vm: &str) -> String {
        match self {
            Self::NoVm => "`holdfast vm list` lists them".into(),
            Self::NoPoint(_) => format!(
                "`holdfast points {vm}` lists them; `holdfast snapshot create {vm}` or `holdfast backup create {vm}` makes one"
            ),
            Self::Unknown(_) => format!("`holdfast points {vm}` tells more"),
            Self::Busy(_) => "wait for it".into(),
            Self::Stopping => "wait for it to start again".into(),
        }
    }
}

/// A point, as far as trials are concerned.
#[derive(Clone, Debug, PartialEq)]
struct Point {
    which: Which,
    /// When it was taken, in seconds since 1970.
    taken: f64,
    /// When it was last tried.
    tried: Option<f64>,
    /// How many rows were counted then.
    rows: Option<u64>,
    /// It was compared with none before it.
    is_full: bool,
    /// As the rule sees it by which points go; nothing if that does not apply to it.
    kept: Option<Candidate>,
}

/// What is kept of the points of a VM that go by themselves.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    snapshots: Option<Keep>,
    backups: Option<Keep>,
}

impl Kept {
    fn of(config: &Config, vm: &VmName) -> Self {
        let Some(vm) = config.vms.get(vm) else { return Self::default() };
        let snapshots = vm.protect.snapshots.as_ref().map(|snapshots| snapshots.keep);
        Self { snapshots, backups: vm.protect.backup.as_ref().and_then(|backup| backup.keep) }
    }

    fn by(&self, which: &Which) -> Option<Keep> {
        match which {
            Which::Snapshot(_) => self.snapshots,
            Which::Backup(..) => self.backups,
        }
    }
}

/// All points of a VM that could be tried, oldest first.
async fn points(protector: &Protector, config: &Config, vm: &VmName) -> Result<Vec<Point>, ProofError> {
    let listed = match protector.list(vm).await {
        Ok(listed) => listed,
        Err(ProtectError::Unable) => Vec::new(),
        Err(error) => return Err(ProofError::Unknown(crate::act::chain(&error))),
    };
    let snapshots = listed.into_iter().map(|listed| listed.snapshot).filter(|snapshot| !snapshot.set_aside);
    let mut all: Vec<Point> = snapshots
        .map(|snapshot| Point {
            which: Which::Snapshot(snapshot.id),
            taken: snapshot.taken as f64 / 1e6,
            tried: snapshot.trial.as_ref().map(|trial| trial.when as f64 / 1e6),
            rows: snapshot.trial.as_ref().and_then(|trial| rows(&trial.words)),
            is_full: false,
            kept: snapshot.scheduled.then(|| protect::candidate(&snapshot)),
        })
        .collect();
    let saved = crate::backups::points(config, vm, crate::backups::LIST).await;
    let saved = saved.map_err(ProofError::Unknown)?;
    all.extend(saved.iter().filter_map(of_backup));
    all.sort_by(|one, other| one.taken.total_cmp(&other.taken));
    Ok(all)
}

fn of_backup(doc: &serde_json::Value) -> Option<Point> {
    let is_whole = doc["hurt"] == false;
    let name = doc["id"].as_str()?;
    let which = Which::Backup(name.to_owned(), doc["size"].as_u64()?);
    let (taken, tried) = (doc["taken"].as_f64()?, doc["tried"].as_f64());
    let kept = Candidate {
        sequence: name.rsplit_once('/')?.1.parse().ok()?,
        taken: Some((taken * 1e6) as i64),
        is_verified: !doc["verified"].is_null(),
        proved: Grade::named(doc["grade"].as_str().unwrap_or_default()) as u8,
        is_doubtful: false, // that is looked at where points go, not where they are tried
    };
    let rows = doc["trial"].as_str().and_then(rows);
    let is_full = doc["parent"].is_null();
    is_whole.then_some(Point { which, taken, tried, rows, is_full, kept: Some(kept) })
}

/// The point that is meant, as `points` names it, or the newest; and how many rows were counted when another was tried last.
pub async fn find(
    protector: &Protector,
    config: &Config,
    vm: &VmName,
    point: Option<&str>,
) -> Result<(Which, Option<u64>), ProofError> {
    let all = points(protector, config, vm).await;
    let before = all.as_ref().ok().and_then(|all| rows_before(all));
    if let Some(id) = point.and_then(|point| point.strip_prefix("snapshot/")?.parse().ok()) {
        return Ok((Which::Snapshot(SnapshotId(id)), before)); // what is wrong with it, its driver tells
    }
    let (all, wanted) = (all?, point.filter(|point| *point != "latest"));
    let found = match wanted {
        None => all.last(),
        Some(wanted) => all.iter().find(|point| point.which.to_string() == wanted),
    };
    found
        .map(|point| (point.which.clone(), before))
        .ok_or_else(|| ProofError::NoPoint(wanted.unwrap_or("latest").into()))
}

/// The rows that were counted last.
fn rows_before(all: &[Point]) -> Option<u64> {
    let counted = all.iter().filter(|point| point.rows.is_some());
    let last = counted.max_by(|one, other| one.tried.unwrap_or(0.0).total_cmp(&other.tried.unwrap_or(0.0)));
    last.and_then(|point| point.rows)
}

/// When points were listed and tried last.
#[derive(Debug, Default)]
pub struct Due {
    listed: BTreeMap<VmName, Instant>,
    tried: BTreeMap<(VmName, String), Instant>,
}

impl Due {
    /// A trial of this point begins.
    pub fn tried(&mut self, vm: &VmName, which: &Which) {
        self.tried.retain(|_, at| at.elapsed() < AGAIN);
        self.tried.insert((vm.clone(), which.to_string()), Instant::now());
    }

    /// The trial of this point was ended before it showed anything.
    pub fn not_tried(&mut self, vm: &VmName, point: &str) {
        self.tried.remove(&(vm.clone(), point.to_owned()));
    }

    /// The point of this VM that is to be tried now, if one is.
    pub async fn of(
        &mut self,
        protector: &Protector,
        config: &Config,
        vm: &VmName,
        every: Duration,
    ) -> Option<String> {
        if self.listed.get(vm).is_some_and(|at| at.elapsed() < LIST_EVERY.min(every)) {
            return None;
        }
        self.listed.insert(vm.clone(), Instant::now());
        let all = match points(protector, config, vm).await {
            Ok(all) => all,
            Err(error) => {
                tracing::debug!(%vm, %error, "whether a proof is due is not known");
                return None;
            }
        };
        let now = clock::wall_seconds();
        let due = due(&all, &Kept::of(config, vm), now, every)?.which.to_string();
        (!self.tried.contains_key(&(vm.clone(), due.clone()))).then_some(due)
    }
}

/// The one to be tried: a full one that never was, as all that follow stand on it; else the newest, once the last trial is too
/// old, or once nothing but its proof keeps an older one.
fn due<'a>(all: &'a [Point], kept: &Kept, now: f64, every: Duration) -> Option<&'a Point> {
    let settled = SETTLED.min(every).as_secs_f64();
    let untried = |point: &&Point| point.tried.is_none() && now - point.taken >= settled;
    let last = all.iter().filter_map(|point| point.tried).fold(f64::NEG_INFINITY, f64::max);
    let is_over = (now - last).abs() >= every.as_secs_f64(); // a trial in the future says nothing
    let full = all.iter().rev().find(|point| point.is_full).filter(untried);
    let newest = || all.last().filter(untried).filter(|_| is_over);
    full.or_else(newest).or_else(|| all.iter().rev().filter(untried).find(|point| succeeds(point, all, kept)))
}

/// Whether it is the newest of its kind, and one before it is kept for nothing but its proof.
fn succeeds(point: &Point, all: &[Point], kept: &Kept) -> bool {
    let Some(keep) = kept.by(&point.which) else { return false };
    let is_like =
        |other: &&Point| std::mem::discriminant(&other.which) == std::mem::discriminant(&point.which);
    let alike: Vec<Candidate> = all.iter().filter(is_like).filter_map(|point| point.kept).collect();
    let newest = alike.iter().map(|candidate| candidate.sequence).max();
    point.kept.map(|own| own.sequence) == newest && stays_for_its_proof(&alike, &keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(id: u64, taken: f64, tried: Option<f64>, is_full: bool) -> Point {
        Point { which: Which::Snapshot(SnapshotId(id)), taken, tried, rows: None, is_full, kept: None }
    }

    fn due_of(all: &[Point], now: f64) -> Option<String> {
        due(all, &Kept::default(), now, Duration::from_secs(86_400)).map(|point| point.which.to_string())
    }

    #[test]
    fn the_newest_is_tried_once_a_day_and_a_full_one_at_once() {
        let mut all = vec![point(1, 1_000.0, None, false), point(2, 2_000.0, None, false)];
        assert_eq!(due_of(&all, 2_100.0), None, "it is too young");
        assert_eq!(due_of(&all, 2_700.0).as_deref(), Some("snapshot/2"));
        all[1].tried = Some(2_800.0);
        assert_eq!(due_of(&all, 200_000.0), None, "it was tried");
        all.push(point(3, 3_000.0, None, false));
        assert_eq!(due_of(&all, 80_000.0), None, "one was tried today");
        assert_eq!(due_of(&all, 90_000.0).as_deref(), Some("snapshot/3"));
        all.insert(2, point(7, 2_900.0, None, true));
        assert_eq!(due_of(&all, 80_000.0).as_deref(), Some("snapshot/7"));
        assert_eq!(due_of(&[], 80_000.0), None);
    }

    #[test]
    fn the_newest_is_tried_before_an_older_one_that_is_proved_would_go() {
        let backup = |id: u64, grade: Grade, tried: Option<f64>| {
            let doc = serde_json::json!({
                "id": format!("a/{id}"), "size": 1, "taken": id * 1_000, "hurt": false, "verified": 1.0,
                "grade": grade.name(), "tried": tried, "parent": "a/0",
            });
            of_backup(&doc).expect("it is one")
        };
        let due_of = |all: &[Point], last: u32, now: f64| {
            let kept = Kept { backups: Some(Keep { last, ..Keep::default() }), snapshots: None };
            due(all, &kept, now, Duration::from_secs(86_400)).map(|point| point.which.to_string())
        };
        let mut all = vec![
            backup(1, Grade::AppChecked, Some(1_500.0)),
            backup(2, Grade::Consistent, None),
            backup(3, Grade::Consistent, None),
        ];
        assert_eq!(due_of(&all, 3, 9_000.0), None, "it is one of the last");
        assert_eq!(due_of(&all, 2, 3_100.0), None, "the newest is too young");
        assert_eq!(due_of(&all, 2, 9_000.0).as_deref(), Some("a/3"));
        all.push(point(9, 4_000.0, None, false));
        assert_eq!(due_of(&all, 2, 9_000.0).as_deref(), Some("a/3"), "a snapshot is no backup");
        all[2] = backup(3, Grade::Taken, Some(8_000.0));
        assert_eq!(due_of(&all, 2, 9_000.0), None, "it was tried");
        all[2] = backup(3, Grade::AppChecked, Some(8_000.0));
        assert_eq!(due_of(&all, 2, 9_000.0), None, "the older one may go");
    }

    #[test]
    fn a_trial_that_gave_way_is_begun_again_and_one_that_showed_something_is_not() {
        let (mut due, vm) = (Due::default(), "a".parse::<VmName>().expect("a name"));
        let (one, other) = (Which::Snapshot(SnapshotId(1)), Which::Snapshot(SnapshotId(2)));
        due.tried(&vm, &one);
        due.tried(&vm, &other);
        due.not_tried(&vm, &one.to_string());
        let tried: Vec<&String> = due.tried.keys().map(|(_, point)| point).collect();
        assert_eq!(tried, ["snapshot/2"]);
    }

    #[test]
    fn rows_are_compared_with_those_of_the_last_trial() {
        let counted = |tried: f64, rows| Point { rows, ..point(1, 1.0, Some(tried), false) };
        let all = [counted(5.0, Some(7)), counted(9.0, Some(3)), counted(10.0, None), counted(2.0, Some(1))];
        assert_eq!((rows_before(&all), rows_before(&all[2..3])), (Some(3), None));
    }

    #[test]
    fn a_clock_that_jumped_makes_no_proof_due_for_ever() {
        let all = [point(1, 1_000.0, Some(9e9), false), point(2, 2_000.0, None, false)];
        assert_eq!(due_of(&all, 3_000.0).as_deref(), Some("snapshot/2"));
        assert_eq!(due_of(&[point(1, 9e9, None, false)], 3_000.0), None);
    }
}
