//! Faults of the guest's operating system.
//!
//! A fault that has a sign of its own (a full file system, a line on the console) lists what follows from
//! it low: where that sign is missing, the silence or the refusal speaks for another fault.

use super::catalogue::{Fault, FaultRow, days, years};
use crate::evidence::Kind::*;

pub(super) const ROWS: &[&FaultRow] = &[
    &GUEST_PANICKED,
    &GUEST_HUNG,
    &GUEST_BOOT_FAILED,
    &GUEST_BOOT_LOOP,
    &GUEST_OUT_OF_MEMORY,
    &GUEST_DISK_FULL,
    &GUEST_FS_READ_ONLY,
    &GUEST_NET_LOST,
];

/// The kernel stopped itself; it says so through pvpanic or on the console.
const GUEST_PANICKED: FaultRow = FaultRow {
    fault: Fault::GuestPanicked,
    says: "has panicked",
    once_in: days(365),
    from: "Judged: once a year. pvpanic tells the hypervisor of it (QEMU, docs/specs/pvpanic), and the console shows the kernel's own words.",
    seen: &[
        (PanicReported, 0.95),
        (ConsolePanic, 0.95),
        (BootOverdue, 0.5),
        (HypervisorAnswers, 0.005),
        (ConsoleRootLost, 0.01),
        (AgentSilent, 0.99),
        (AgentAway, 0.5),
        (AgentAnswers, 1e-4),
        (AppMute, 0.95),
        (AppRefused, 0.2),
        (AppDenied, 1e-9),
        (AppWrong, 1e-9),
        (AppMismatch, 1e-9),
        (AppExhausted, 1e-9),
        (AppStarting, 1e-6),
        (AppUnreachable, 0.9),
        (AppAnswers, 1e-4),
        (NeighbourAnswers, 1e-4),
        (DiskIdle, 0.99),
        (DiskBusy, 0.01),
        (NetworkSilent, 0.99),
        (NetworkAnswers, 0.001),
    ],
};

/// The guest is powered and scheduled, but nothing inside moves. A disk that moves speaks against it.
const GUEST_HUNG: FaultRow = FaultRow {
    fault: Fault::GuestHung,
    says: "is hung",
    once_in: years(2),
    from: "Judged: half as often as a panic. Whoever is hung writes nothing and answers nobody; a busy guest still does disk requests.",
    seen: &[
        (AgentSilent, 0.98),
        (AgentAway, 0.01),
        (AgentAnswers, 0.001),
        (AppMute, 0.95),
        (AppRefused, 0.001),
        (AppDenied, 1e-9),
        (AppWrong, 1e-9),
        (AppMismatch, 1e-9),
        (AppExhausted, 1e-9),
        (AppStarting, 1e-6),
        (AppUnreachable, 0.9),
        (AppAnswers, 1e-4),
        (NeighbourAnswers, 1e-4),
        (DiskIdle, 0.95),
        (DiskBusy, 0.01),
        (WatchdogFired, 0.5),
        (BootOverdue, 0.1),
        (ConsoleHungTask, 0.3),
        (LogStorageTrouble, 0.05),
        (NetworkSilent, 0.6),
        (NetworkAnswers, 0.4),
    ],
};

/// The guest was started or reset and does not arrive.
const GUEST_BOOT_FAILED: FaultRow = FaultRow {
    fault: Fault::GuestBootFailed,
    says: "does not come up",
    once_in: years(2),
    from: "Judged: one of the starts that a panic or an upgrade brings. Healthy guests' own starts teach how long one takes.",
    seen: &[
        (BootOverdue, 0.95),
        (ConsoleRootLost, 0.5),
        (ConsolePanic, 0.001),
        (AgentAway, 0.8),
        (AgentSilent, 0.005),
        (AgentAnswers, 0.1),
        (AppAnswers, 1e-5),
        (DiskIdle, 0.7),
        (NetworkSilent, 0.5),
        (NetworkAnswers, 0.1),
    ],
};

/// The guest comes half-way up and resets itself, again and again.
const GUEST_BOOT_LOOP: FaultRow = FaultRow {
    fault: Fault::GuestBootLoop,
    says: "resets itself again and again",
    once_in: years(2),
    from: "Judged: as often as a start that fails. QEMU tells each reset (event RESET).",
    seen: &[
        (ResetsAgain, 0.95),
        (BootOverdue, 0.01),
        (ConsolePanic, 0.01),
        (PanicReported, 0.0001),
        (AppAnswers, 0.01),
        (AgentAnswers, 0.2),
    ],
};

/// The kernel had to kill processes for want of memory, or nothing can be allocated or begun any more.
const GUEST_OUT_OF_MEMORY: FaultRow = FaultRow {
    fault: Fault::GuestOutOfMemory,
    says: "is out of memory",
    once_in: days(90),
    from: "Judged: some four times a year. The kernel's own lines ('Out of memory: Killed process') and MemAvailable (proc(5)) say it.",
    seen: &[
        (ConsoleOutOfMemory, 0.95),
        (MemoryLow, 0.9),
        (MemoryFine, 0.08),
        (MemoryFilling, 0.12),
        (NumbersUnusual, 0.04),
        (LogMemoryShort, 0.09),
        (LogServiceFailed, 0.05),
        (LogUnusual, 0.1),
        (ConsoleHungTask, 0.005),
        (AgentSilent, 0.005),
        (AgentAway, 0.02),
        (AppMute, 0.03),
        (AppRefused, 0.1),
        (AppUnreachable, 0.03),
        (AppWrong, 0.05),
        (AppMismatch, 1e-5),
        (AppExhausted, 0.05),
        (AppAnswers, 0.2),
        (NobodyListens, 0.1),
        (QueueGrows, 0.1),
        (CheckFailed, 0.3),
        (NetworkSilent, 0.02),
    ],
};

/// A file system of the guest has no room left; what writes there fails or gives up.
const GUEST_DISK_FULL: FaultRow = FaultRow {
    fault: Fault::GuestDiskFull,
    says: "has a full disk",
    once_in: days(90),
    from: "Judged: some four times a year without a watch. The agent tells used and total bytes (guest-get-fsinfo); ENOSPC is in the application's own lines.",
    seen: &[
        (FsFull, 0.97),
        (FsInDoubt, 1e-4),
        (FsFilling, 0.12),
        (FsFine, 0.05),
        (ConsoleDiskFull, 0.7),
        (LogSpaceShort, 0.09),
        (LogServiceFailed, 0.05),
        (ConsoleAppPanic, 0.5),
        (AppWrong, 0.3),
        (AppMismatch, 1e-4),
        (AppRefused, 0.1),
        (AppMute, 0.02),
        (AppStarting, 0.1),
        (AppAnswers, 0.3),
        (NobodyListens, 0.1),
        (CheckFailed, 0.3),
    ],
};

/// The kernel stopped writing to a file system to save what is on it.
const GUEST_FS_READ_ONLY: FaultRow = FaultRow {
    fault: Fault::GuestFsReadOnly,
    says: "has a file system that is damaged or went read-only",
    once_in: years(1),
    from: "Judged: once a year, after I/O errors (ext4: errors=remount-ro). The agent tells the mounts' options.",
    seen: &[
        (FsReadOnly, 0.95),
        (FsFine, 0.05),
        (FsFull, 0.01),
        (FsInDoubt, 0.02), // what it counts its room by may be damaged, too
        (ConsoleReadOnly, 0.95),
        (ConsoleIoError, 0.6),
        (LogStorageTrouble, 0.09),
        (ConsoleAppPanic, 0.6),
        (AppWrong, 0.3),
        (AppMismatch, 1e-4),
        (AppRefused, 0.1),
        (AppMute, 0.02),
        (AppAnswers, 0.3),
        (NobodyListens, 0.1),
        (CheckFailed, 0.3),
        (AgentSilent, 0.02),
    ],
};

/// The guest lives, and nobody reaches it.
const GUEST_NET_LOST: FaultRow = FaultRow {
    fault: Fault::GuestNetLost,
    says: "is cut off from the network",
    once_in: years(1),
    from: "Judged: once a year. The hypervisor knows its cable; carrier and neighbours are read in the guest and on its tap interface.",
    seen: &[
        (LinkDown, 0.9),
        (LogLinkDown, 0.09),
        (NetworkAway, 0.9),
        (BootOverdue, 0.5),
        (NetworkSilent, 0.97),
        (NetworkAnswers, 0.01),
        (AppUnreachable, 0.95),
        (AppMute, 0.9),
        (AppRefused, 0.001),
        (AppAnswers, 1e-4),
        (NeighbourAnswers, 1e-4),
        (NobodyListens, 1e-5),
        (QueueGrows, 1e-5),
        (CheckPassed, 0.99),
        (CheckFailed, 1e-4),
    ],
};
