//! Faults of the host, which explain the silence of its VMs.

use super::catalogue::{Fault, FaultRow, days};
use crate::evidence::Kind::*;

pub(super) const ROWS: &[&FaultRow] = &[&HOST_OVERLOADED, &HOST_DISK_FULL];

/// The host has more work than it can do: answers are late, nobody is dead. The longer a silence, the
/// less this explains it (deadlines are stretched meanwhile).
const HOST_OVERLOADED: FaultRow = FaultRow {
    fault: Fault::HostOverloaded,
    says: "is overloaded",
    once_in: days(7),
    seen: &[
        (HostPressed, 0.95),
        (HostCalm, 0.005),
        (ObserverLags, 0.05),
        (HypervisorSilent, 0.02),
        (AgentSilent, 0.03),
        (AgentAway, 0.01),
        (AppMute, 0.05),
        (AppUnreachable, 0.03),
        (NetworkSilent, 0.05),
        (ProcessStuck, 0.2),
    ],
};

/// A disk of the host is full: VMs that write there will be paused.
const HOST_DISK_FULL: FaultRow = FaultRow {
    fault: Fault::HostDiskFull,
    says: "has a full disk",
    once_in: days(90),
    seen: &[(HostDiskFull, 0.97)],
};
