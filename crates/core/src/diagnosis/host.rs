//! Faults of the host, which explain the silence of its VMs.

use super::catalogue::{Fault, FaultRow, days, years};
use crate::evidence::Kind::*;

pub(super) const ROWS: &[&FaultRow] =
    &[&HOST_OVERLOADED, &HOST_DISK_FULL, &STORAGE_SLOW, &STORAGE_LOST, &HOST_FAILING, &HOST_NET_LOST];

/// The host has more work than it can do: answers are late, nobody is dead. The longer a silence, the
/// less this explains it (deadlines are stretched meanwhile).
const HOST_OVERLOADED: FaultRow = FaultRow {
    fault: Fault::HostOverloaded,
    says: "is overloaded",
    once_in: days(7),
    from: "Judged: weekly peaks. Pressure is what the kernel measures as time lost waiting (PSI, Documentation/accounting/psi.rst).",
    seen: &[
        (HostPressed, 0.95),
        (HostCalm, 0.005),
        (HostMemoryLow, 0.5),
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
    from: "Judged: some four times a year. statvfs(3) says it.",
    seen: &[(HostDiskFull, 0.97), (HostDiskFilling, 0.12)],
};

/// A disk of the host takes seconds for what takes milliseconds: its VMs wait, and are not to blame.
const STORAGE_SLOW: FaultRow = FaultRow {
    fault: Fault::StorageSlow,
    says: "has slow storage",
    once_in: days(30),
    from: "Judged: once a month. A small synced write is timed; the kernel tells of requests that take long.",
    seen: &[(HostStorageSlow, 0.9)],
};

/// A disk or file server under the VMs does not answer, or takes no write: they will be paused.
const STORAGE_LOST: FaultRow = FaultRow {
    fault: Fault::StorageLost,
    says: "has lost storage",
    once_in: years(1),
    from: "Judged: once a year with a file server behind it. A write does not end though there is room; the kernel says that the device is gone.",
    seen: &[(HostStorageLost, 0.9), (HostDiskErrors, 0.3)],
};

/// Its hardware reports errors: it still works, and may not for long.
const HOST_FAILING: FaultRow = FaultRow {
    fault: Fault::HostFailing,
    says: "has failing hardware",
    once_in: years(2),
    from: "Prior from disks (2 to 4 % replaced a year: Schroeder & Gibson, FAST 2007) and memory (1.3 % of machines a year with uncorrectable errors: Schroeder, Pinheiro & Weber, SIGMETRICS 2009), several of each in a host. The kernel's own words: MCE, EDAC, SMART.",
    seen: &[(HostHardwareFails, 0.9)],
};

/// Its VMs may be fine, and nobody outside reaches them.
const HOST_NET_LOST: FaultRow = FaultRow {
    fault: Fault::HostNetLost,
    says: "has lost a network link",
    once_in: days(180),
    from: "Judged: twice a year. The driver says that its link is down.",
    seen: &[(HostLinkLost, 0.9)],
};
