//! When the guest is asked about an application that fails.

use holdfast_core::lease::Incarnation;
use std::time::Duration;
use tokio::time::Instant;

/// What is wrong with an application shows within this time; so long it is looked at closely each time it fails ...
const LOOK_CLOSELY: Duration = Duration::from_secs(10);
/// ... and after that this often: sooner than what was seen inside grows old.
const LOOK_NOW_AND_THEN: Duration = Duration::from_secs(5);

/// When to ask the guest about an application that fails: each time while it has only just answered, else now and
/// then. A guest that boots, or comes back, has better things to do than to answer us each second.
#[derive(Default)]
pub struct Closer {
    answered: Option<(Incarnation, Instant)>,
    looked: Option<Instant>,
}

impl Closer {
    /// It answered.
    pub fn answered(&mut self, incarnation: Incarnation) {
        self.answered = Some((incarnation, Instant::now()));
    }

    /// It failed; whether the guest is to be asked now.
    pub fn is_due(&mut self, incarnation: Incarnation) -> bool {
        let fresh = |(of, at): (Incarnation, Instant)| of == incarnation && at.elapsed() < LOOK_CLOSELY;
        let rested = self.looked.is_none_or(|at| at.elapsed() >= LOOK_NOW_AND_THEN);
        let due = rested || self.answered.is_some_and(fresh);
        if due {
            self.looked = Some(Instant::now());
        }
        due
    }
}
