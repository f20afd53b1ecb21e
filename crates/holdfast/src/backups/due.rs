//! When the next backup of a VM is due.

use crate::clock;
use holdfast_core::subject::VmName;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One that failed is not tried again before this time is over.
const AGAIN: Duration = Duration::from_secs(600);

/// What is known of the newest points.
#[derive(Debug, Default)]
pub struct Due {
    known: BTreeMap<VmName, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the newest point was taken, in seconds since 1970.
    taken: Option<f64>,
    /// When one was begun last.
    tried: Option<Instant>,
    /// When the repository was asked last.
    asked: Option<Instant>,
    /// Somebody was asked, and has answered.
    is_known: bool,
    /// Why the last try to make one failed, or to ask.
    trouble: Option<String>,
}

/// Whether it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is.
    Yes,
    /// It is not yet.
    No,
    /// How old the newest point is, is not known: ask the repository.
    Ask,
}

impl Due {
    /// Its points go to another repository, or nowhere: nothing is known of them.
    pub fn forget(&mut self, vm: &VmName) {
        self.known.remove(vm);
    }

    /// The newest point was taken then; nothing if there is none, or nobody can tell.
    pub fn learn(&mut self, vm: &VmName, taken: Option<f64>) {
        let known = self.known.entry(vm.clone()).or_default();
        (known.taken, known.is_known, known.trouble) = (taken, true, None);
    }

    /// None was made, or nobody can tell how old the newest is.
    pub fn failed(&mut self, vm: &VmName, why: String) {
        let known = self.known.entry(vm.clone()).or_default();
        (known.is_known, known.trouble) = (true, Some(why));
    }

    /// When the newest point was taken, in microseconds since 1970, and why there is no newer one; nothing until somebody
    /// has answered.
    pub fn newest(&self, vm: &VmName) -> Option<(Option<i64>, Option<String>)> {
        let known = self.known.get(vm).filter(|known| known.is_known)?;
        Some((known.taken.map(|taken| (taken * 1e6) as i64), known.trouble.clone()))
    }

    /// One begins now.
    pub fn tried(&mut self, vm: &VmName) {
        self.known.entry(vm.clone()).or_default().tried = Some(Instant::now());
    }

    /// Whether one is due that is to be made so often. Who is told to ask is not told so again at once.
    pub fn is_due(&mut self, vm: &VmName, every: Duration) -> Answer {
        let now = clock::wall_seconds();
        self.is_due_at(vm, every, now, Instant::now())
    }

    fn is_due_at(&mut self, vm: &VmName, every: Duration, wall: f64, now: Instant) -> Answer {
        let known = self.known.entry(vm.clone()).or_default();
        let is_soon =
            |last: Option<Instant>, least| last.is_some_and(|last| now.duration_since(last) < least);
        if is_soon(known.tried, AGAIN.min(every)) {
            return Answer::No;
        }
        if !known.is_known {
            if is_soon(known.asked, AGAIN) {
                return Answer::No;
            }
            known.asked = Some(now);
            return Answer::Ask;
        }
        // A point from the future was made when the clock was wrong: it says nothing.
        let age = known.taken.map(|taken| wall - taken).filter(|age| *age >= 0.0);
        if age.is_none_or(|age| age >= every.as_secs_f64()) { Answer::Yes } else { Answer::No }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_when_the_newest_point_is_too_old_and_not_again_at_once() {
        let (vm, mut due): (VmName, _) = ("a".parse().unwrap(), Due::default());
        let (hour, begin) = (Duration::from_secs(3_600), Instant::now());
        let at = |due: &mut Due, seconds: u64| {
            due.is_due_at(&vm, hour, seconds as f64, begin + Duration::from_secs(seconds))
        };
        assert_eq!(at(&mut due, 10_000), Answer::Ask);
        assert_eq!(at(&mut due, 10_001), Answer::No, "it is being asked");
        due.learn(&vm, None);
        assert_eq!(at(&mut due, 10_002), Answer::Yes, "there is none, as was answered");
        due.learn(&vm, Some(9_000.0));
        assert_eq!(at(&mut due, 12_000), Answer::No);
        assert_eq!(at(&mut due, 12_600), Answer::Yes);
        due.known.get_mut(&vm).unwrap().tried = Some(begin + Duration::from_secs(12_600));
        assert_eq!(at(&mut due, 12_700), Answer::No, "it failed, and is not tried again so soon");
        assert_eq!(at(&mut due, 13_300), Answer::Yes);
        due.learn(&vm, Some(99_999.0));
        assert_eq!(at(&mut due, 14_000), Answer::Yes, "the clock was wrong");
        due.learn(&vm, None);
        assert_eq!(at(&mut due, 14_001), Answer::Yes, "there is none");
    }
}
