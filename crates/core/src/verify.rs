//! See that it stays back: a recovery counts only when everything has answered for long enough.

use crate::time::{Duration, Timestamp};

/// How a recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Healthy for long enough; served since then.
    Healthy(Timestamp),
    /// Not yet; look again then at the latest.
    Wait(Timestamp),
    /// The deadline has passed.
    Failed,
}

/// Judges a recovery: `healthy_since` is when everything began to answer, if it does.
#[must_use]
pub fn judge(
    now: Timestamp,
    recovered: Timestamp,
    healthy_since: Option<Timestamp>,
    verify_for: Duration,
    deadline: Timestamp,
) -> Verdict {
    match healthy_since {
        Some(since) => {
            let since = since.max(recovered);
            let enough = since + verify_for;
            if now >= enough { Verdict::Healthy(since) } else { Verdict::Wait(enough) }
        }
        None if now >= deadline => Verdict::Failed,
        None => Verdict::Wait(deadline),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn health_from_before_the_remedy_does_not_count() {
        let five = Duration::from_secs(5);
        assert_eq!(judge(at(12), at(10), Some(at(1)), five, at(60)), Verdict::Wait(at(15)));
        assert_eq!(judge(at(15), at(10), Some(at(1)), five, at(60)), Verdict::Healthy(at(10)));
    }

    #[test]
    fn a_recovery_that_is_healthy_at_its_deadline_may_finish() {
        let five = Duration::from_secs(5);
        assert_eq!(judge(at(60), at(10), Some(at(58)), five, at(60)), Verdict::Wait(at(63)));
        assert_eq!(judge(at(60), at(10), None, five, at(60)), Verdict::Failed);
    }
}
