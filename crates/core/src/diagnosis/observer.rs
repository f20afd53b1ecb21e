//! Faults of Holdfast itself: an explanation for silence that costs nobody their VM.

use super::catalogue::{Fault, FaultRow, days};
use crate::evidence::Kind::*;

pub(super) const ROWS: &[&FaultRow] = &[&OBSERVER_SLOW, &RESTORE_POINTS_STALE];

/// Our own loop runs late, so what we call late may be ours.
const OBSERVER_SLOW: FaultRow = FaultRow {
    fault: Fault::ObserverSlow,
    says: "runs late",
    once_in: days(7),
    from: "Judged: weekly, where the host is busy. The loop measures its own lateness.",
    seen: &[
        (ObserverLags, 0.95),
        (ObserverOnTime, 0.002),
        (HypervisorSilent, 0.05),
        (AgentSilent, 0.05),
        (AppMute, 0.05),
        (AppUnreachable, 0.05),
        (NetworkSilent, 0.05),
    ],
};

/// Users are served; what a failure would lose now is more than was meant. That a point is too old is counted, not guessed.
const RESTORE_POINTS_STALE: FaultRow = FaultRow {
    fault: Fault::RestorePointsStale,
    says: "has no restore point that is new enough",
    once_in: days(90),
    from: "Judged: some four times a year: a disk that is full, a repository that is away. The age of the newest point says it.",
    seen: &[(PointsStale, 0.99)],
};
