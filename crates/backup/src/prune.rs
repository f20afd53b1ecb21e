//! Points that no policy asks for any more are removed (I12). What they alone needed is collected later
//! ([`crate::collect`]).

use crate::listed::{self, Listed};
use crate::point::Point;
use crate::proof::{self, Grade, Standing};
use crate::repository::{PointName, Repository, Trouble};
use crate::retain::{Candidate, Keep, Reason, decide, frees};
use std::collections::BTreeMap;

/// A clock that is this much ahead of the newest that is known may have jumped.
pub const JUMP: i64 = 86_400_000_000;
/// A pause before the newest point of a VM that is so many times as long as any before it may be a jump, too.
const FAR: i64 = 10;
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
    /// The newest point was taken by it, and is as far from those before it.
    #[error(
        "the clock may have jumped: a point was taken within the last day, {0} s after the one before it"
    )]
    Leapt(i64),
}

/// A point that is worth being read back: others may go once it was, and is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worth {
    /// Which: the newest of its VM that is not known to be hurt.
    pub point: PointName,
    /// When one of its VM was last read back and well, in microseconds since 1970; nothing if none ever was.
    pub verified: Option<i64>,
}

/// The points of each VM as they stand.
pub struct Points(BTreeMap<String, Vec<Stand>>);

struct Stand {
    candidate: Candidate,
    verified: Option<i64>,
    is_hurt: bool,
}

impl Points {
    /// Those of this VM; of all VMs if none is named. One of which a person was warned is doubtful, and so are those after it,
    /// until the application of one was seen to answer.
    ///
    /// # Errors
    /// If the repository cannot be listed.
    pub fn of(
        repository: &Repository,
        vm: Option<&str>,
        is_warned: impl Fn(&Point) -> bool,
    ) -> Result<Self, Trouble> {
        let mut by_vm = BTreeMap::<String, Vec<Stand>>::new();
        for Listed { name, point, standing } in listed::points(repository, vm)? {
            let point = match point {
                Ok(point) => Some(point),
                Err(why) if why.is_gone() => continue,
                Err(_) => None,
            };
            let Standing { verified, is_hurt, grade, .. } = standing;
            let taken = point.as_ref().map(|point| point.taken);
            let of_vm = by_vm.entry(name.vm).or_default();
            let is_warned = point.is_some_and(|point| is_warned(&point));
            let was_doubtful = of_vm.last().is_some_and(|before| before.candidate.is_doubtful);
            let candidate = Candidate {
                sequence: name.sequence,
                taken,
                is_verified: taken.is_some() && verified.is_some(),
                proved: grade as u8,
                is_doubtful: (was_doubtful || is_warned) && grade != Grade::AppChecked,
            };
            of_vm.push(Stand { candidate, verified, is_hurt });
        }
        Ok(Self(by_vm))
    }

    /// Why each of them stays or may go.
    #[must_use]
    pub fn decisions(&self, keep: &Keep) -> Vec<Decision> {
        let of_vm = |(vm, all): (&String, &Vec<Stand>)| {
            let (vm, decided) = (vm.clone(), decide(&candidates(all), keep));
            decided.into_iter().map(move |(point, reasons)| Decision {
                point: PointName { vm: vm.clone(), sequence: point.sequence },
                taken: point.taken,
                reasons,
            })
        };
        self.0.iter().flat_map(of_vm).collect()
    }

    /// What is worth being read back, of each VM one at most.
    #[must_use]
    pub fn worth(&self, keep: &Keep) -> Vec<Worth> {
        let of_vm = |(vm, all): (&String, &Vec<Stand>)| {
            let may_be_well = |stand: &&Stand| stand.candidate.taken.is_some() && !stand.is_hurt;
            let sequence = all.iter().filter(may_be_well).map(|stand| stand.candidate.sequence).max()?;
            let verified = all.iter().filter_map(|stand| stand.verified).max();
            let point = PointName { vm: vm.clone(), sequence };
            frees(&candidates(all), keep, sequence).then_some(Worth { point, verified })
        };
        self.0.iter().filter_map(of_vm).collect()
    }
}

fn candidates(all: &[Stand]) -> Vec<Candidate> {
    all.iter().map(|stand| stand.candidate).collect()
}

/// Whether the clock can be believed: it is neither behind the newest point and the last prune, nor more than a day ahead
/// of both (I12). A point that was taken a moment ago knows no better: then those before it are asked.
///
/// # Errors
/// If the repository cannot be listed or a mark cannot be read.
pub fn frozen(repository: &Repository, now: i64) -> Result<Option<Frozen>, Trouble> {
    let points = repository.points()?;
    let mut by_vm = BTreeMap::<String, Vec<i64>>::new();
    for point in points.iter().filter_map(|name| repository.point(name).ok()) {
        by_vm.entry(point.vm).or_default().push(point.taken);
    }
    let marks = repository.marks()?;
    let newest = by_vm.values().flatten().copied().chain(marks.iter().map(|mark| mark.made)).max();
    let Some(ahead) = newest.map(|newest| now.saturating_sub(newest)) else { return Ok(None) };
    Ok(if ahead < -BEHIND {
        Some(Frozen::Backwards(-ahead / 1_000_000))
    } else if ahead > JUMP {
        Some(Frozen::Jumped(ahead / 1_000_000))
    } else {
        by_vm.into_values().find_map(|taken| leap(taken, now)).map(|ahead| Frozen::Leapt(ahead / 1_000_000))
    })
}

/// How far the newest point of a VM is from the one before it, if it was taken of late and no pause before that was nearly as long. A VM
/// that was off for long looks the same, until its next point or for a day.
fn leap(mut taken: Vec<i64>, now: i64) -> Option<i64> {
    taken.sort_unstable();
    let is_fresh = now.saturating_sub(*taken.last()?) <= JUMP;
    let pauses: Vec<i64> = taken.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    let (last, before) = pauses.split_last()?;
    let usual = before.iter().copied().max()?.max(JUMP); // of two points nothing is known
    (is_fresh && *last > usual.saturating_mul(FAR)).then_some(*last)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_is_far_from_those_before_it_may_be_of_a_clock_that_jumped_and_the_next_one_shows_it() {
        let at = |days: &[i64]| days.iter().map(|day| day * JUMP).collect::<Vec<_>>();
        assert_eq!(leap(at(&[1, 2, 3, 400]), 400 * JUMP), Some(397 * JUMP));
        assert_eq!(leap(at(&[1, 2, 3, 13]), 13 * JUMP), None, "it was off for ten days");
        assert_eq!(leap(at(&[1, 31, 32, 300]), 300 * JUMP), None, "it was off for as long before");
        assert_eq!(leap(at(&[1, 2, 3, 400, 401]), 401 * JUMP), None, "there is another one");
        assert_eq!(leap(at(&[1, 2, 3, 400]), 402 * JUMP), None, "others were made for a day after it");
        assert_eq!(leap(at(&[1, 400]), 400 * JUMP), None, "of two nothing is known");
        assert_eq!((leap(at(&[7]), 7 * JUMP), leap(Vec::new(), 7)), (None, None));
    }
}
