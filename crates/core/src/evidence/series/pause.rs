//! Where nothing moves, and where nothing comes: how long a series stood still or was silent, beside earlier pauses.

use super::tail::Tail;
use crate::time::{Duration, Timestamp};

/// A pause is strange only if it is so many times as long as the longest there was.
const LONGER: f64 = 3.0;

/// Pauses of one kind, as lengths of time that are over, and the one that may be going on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pauses {
    tail: Tail,
    pub(super) longest: f64,
    since: Option<Timestamp>,
}

/// A pause that goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pause {
    pub(super) since: Timestamp,
    pub(super) lasted: Duration,
    pub(super) longest: f64,
    /// See [`Tail::surprise`].
    pub(super) surprise: Option<f64>,
}

impl Pauses {
    /// The pause goes on at this moment, and began at that one unless it had begun before.
    pub(super) fn go_on(&mut self, since: Timestamp, at: Timestamp) -> Pause {
        let since = *self.since.get_or_insert(since);
        let lasted = at.since(since);
        let length = lasted.as_secs_f64();
        let surprise = (length >= self.longest * LONGER).then(|| self.tail.surprise(length)).flatten();
        Pause { since, lasted, longest: self.longest, surprise }
    }

    /// What goes on is none of ours any more, and teaches nothing.
    pub(super) fn break_off(&mut self) {
        self.since = None;
    }

    /// It is over, if there was one.
    pub(super) fn end(&mut self, at: Timestamp) {
        let Some(since) = self.since.take() else { return };
        let length = at.since(since).as_secs_f64();
        self.longest = self.longest.max(length);
        self.tail.learn(length);
    }
}
