//! Points that no policy asks for any more are removed (I12). What they alone needed is collected later
//! ([`crate::collect`]).

use crate::point::Point;
use crate::proof::{self, Grade};
use crate::repository::{PointName, Repository, Trouble};
use crate::retain::{Candidate, Keep, Reason, decide};
use std::collections::BTreeMap;

/// A clock that is this much ahead of the newest that is known may have jumped.
pub const JUMP: i64 = 86_400_000_000;
/// A clock may be this much behind: others have clocks, too.
const BEHIND: i64 = 60_000_000;

/// A point, and why it stays; one without a reason may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which.
    pub point: PointName,
    /// When it was taken, in microseconds since 1970; nothing if it cannot be read.
    pub taken: Option<i64>,
    /// Why it stays.
    pub reasons: Vec<Reason>,
}

/// Why nothing may be removed by the clock of this computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Frozen {
    /// It is behind what was written before.
    #[error("the clock went backwards: it is {0} s behind the newest restore point or the last prune")]
    Backwards(i64),
    /// It is more than a day ahead of all that is known.
    #[error("the clock may have jumped: it is {0} s ahead of the newest restore point and the last prune")]
    Jumped(i64),
}

/// Why each point of these VMs stays or may go; of all VMs if none is named. One of which a person was warned is doubtful, and
/// so are those after it, until the application of one was seen to answer.
///
/// # Errors
/// If the repository cannot be listed.
pub fn decisions(
    repository: &Repository,
    vm: Option<&str>,
    keep: &Keep,
    is_warned: impl Fn(&Point) -> bool,
) -> Result<Vec<Decision>, Trouble> {
    let mut by_vm = BTreeMap::<String, Vec<Candidate>>::new();
    for name in repository.points()?.into_iter().filter(|name| vm.is_none_or(|vm| vm == name.vm)) {
        let point = match repository.point(&name) {
            Ok(point) => Some(point),
            Err(why) if why.is_gone() => continue,
            Err(_) => None,
        };
        let taken = point.as_ref().map(|point| point.taken);
        let standing = proof::standing(repository, &name).unwrap_or_default();
        let is_verified = taken.is_some() && standing.verified.is_some();
        let of_vm = by_vm.entry(name.vm).or_default();
        let is_warned = point.is_some_and(|point| is_warned(&point));
        let was_doubtful = of_vm.last().is_some_and(|before| before.is_doubtful);
        let is_doubtful = (was_doubtful || is_warned) && standing.grade != Grade::AppChecked;
        let (sequence, proved) = (name.sequence, standing.grade as u8);
        of_vm.push(Candidate { sequence, taken, is_verified, proved, is_doubtful });
    }
    let of_vm = |(vm, candidates): (String, Vec<Candidate>)| {
        decide(&candidates, keep).into_iter().map(move |(point, reasons)| Decision {
            point: PointName { vm: vm.clone(), sequence: point.sequence },
            taken: point.taken,
            reasons,
        })
    };
    Ok(by_vm.into_iter().flat_map(of_vm).collect())
}

/// Whether the clock can be believed: it is neither behind the newest point and the last prune, nor more than a day ahead
/// of both (I12).
///
/// # Errors
/// If the repository cannot be listed or a mark cannot be read.
pub fn frozen(repository: &Repository, now: i64) -> Result<Option<Frozen>, Trouble> {
    let points = repository.points()?;
    let taken = points.iter().filter_map(|name| repository.point(name).ok()).map(|point| point.taken);
    let marks = repository.marks()?;
    let newest = taken.chain(marks.iter().map(|mark| mark.made)).max();
    Ok(newest.and_then(|newest| {
        let ahead = now.saturating_sub(newest);
        if ahead < -BEHIND {
            Some(Frozen::Backwards(-ahead / 1_000_000))
        } else {
            (ahead > JUMP).then_some(Frozen::Jumped(ahead / 1_000_000))
        }
    }))
}

/// Removes the points that may go, oldest first; then what was stated about them. `gone` is told of each.
///
/// # Errors
/// If one cannot be removed: those before it are.
pub fn remove(
    repository: &Repository,
    decisions: &[Decision],
    mut gone: impl FnMut(&PointName),
) -> Result<(), Trouble> {
    let mut names: Vec<&PointName> = decisions
        .iter()
        .filter(|decision| decision.reasons.is_empty())
        .map(|decision| &decision.point)
        .collect();
    names.sort_by_key(|name| (name.sequence, &name.vm));
    for name in names {
        repository.remove(&name.object())?;
        gone(name);
    }
    proof::tidy(repository)
}
