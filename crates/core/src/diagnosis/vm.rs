//! Faults of the machine as its hypervisor sees it. As in `guest.rs`, a fault that has a sign of its own
//! lists what follows from it low.

use super::catalogue::{Fault, FaultRow, days, years};
use crate::evidence::Kind::*;

pub(super) const ROWS: &[&FaultRow] =
    &[&VM_CRASHED, &VM_HUNG, &VM_PAUSED_IO, &VM_WONT_START, &IMAGE_CORRUPT, &IMAGE_LOST];

/// The process is gone; everything else follows from that. What an agent claims changes nothing (S06).
const VM_CRASHED: FaultRow = FaultRow {
    fault: Fault::VmCrashed,
    says: "has crashed",
    once_in: years(1),
    from: "Judged: once a year and VM. The end of a process is stated by its pidfd (pidfd_open(2)): there is no doubt about it.",
    seen: &[
        (ProcessExited, 0.999),
        (HostOutOfMemory, 0.1),
        (ProcessRuns, 1e-6),
        (ProcessStopped, 1e-7),
        (ProcessStuck, 1e-6),
        (HypervisorSilent, 0.9),
        (AgentSilent, 0.9),
        (AgentAway, 0.9),
        (AppRefused, 0.9),
        (AppMute, 0.3),
        (AppUnreachable, 0.3),
    ],
};

/// The process is there and does not run: stopped, stuck, or deaf.
const VM_HUNG: FaultRow = FaultRow {
    fault: Fault::VmHung,
    says: "is hung",
    once_in: years(2),
    from: "Judged: half as often as crashed. The state of a process stands in /proc/PID/stat (proc(5)); a QMP that is asked and silent is one more sign, not proof.",
    seen: &[
        (ProcessStopped, 0.9),
        (ProcessStuck, 0.3),
        (ProcessRuns, 0.2),
        (HypervisorSilent, 0.99),
        (HypervisorAnswers, 0.001),
        (InternalError, 0.95),
        (BootOverdue, 0.5),
        (DiskBusy, 0.01),
        (AgentSilent, 0.99),
        (AgentAway, 0.1),
        (AgentAnswers, 0.001),
        (AppMute, 0.95),
        (AppUnreachable, 0.95),
        (AppRefused, 0.01),
        (AppAnswers, 1e-4),
        (NeighbourAnswers, 1e-4),
        (NetworkSilent, 0.97),
        (NetworkAnswers, 0.01),
    ],
};

/// A disk request failed and the VM was paused for it: nothing is lost, it goes on when storage is back.
const VM_PAUSED_IO: FaultRow = FaultRow {
    fault: Fault::VmPausedIo,
    says: "is paused because its storage failed",
    once_in: days(180),
    from: "Judged: twice a year. QEMU with werror=stop tells BLOCK_IO_ERROR and the run state io-error.",
    seen: &[
        (PausedIo, 0.999),
        (LogStorageTrouble, 0.09),
        (HostDiskErrors, 0.2),
        (ProcessStopped, 1e-6),
        (HypervisorSilent, 1e-5),
        (HypervisorAnswers, 1e-4),
        (DiskIdle, 0.99),
        (DiskBusy, 0.05),
        (BootOverdue, 0.5),
        (AgentSilent, 0.01),
        (AgentAway, 0.01),
        (AppMute, 0.02),
        (AppUnreachable, 0.02),
        (AppRefused, 0.001),
        (NetworkSilent, 0.02),
    ],
};

/// The hypervisor refuses the start, or ends at once.
const VM_WONT_START: FaultRow = FaultRow {
    fault: Fault::VmWontStart,
    says: "does not start",
    once_in: years(1),
    from: "Judged: once a year, after a change of files or configuration. QEMU's exit and its last words say it.",
    seen: &[
        (StartFailed, 0.999),
        (ProcessExited, 0.01),
        (ProcessRuns, 1e-6),
        (ProcessStopped, 1e-7),
        (ProcessStuck, 1e-6),
        (AppRefused, 0.9),
        (AppMute, 0.3),
        (AppUnreachable, 0.9),
        (AgentAway, 0.9),
        (AgentSilent, 0.9),
    ],
};

/// Somebody removed it. A start says so, and only where the file system that it lay on is there.
const IMAGE_LOST: FaultRow = FaultRow {
    fault: Fault::ImageLost,
    says: "has lost its disk image",
    once_in: years(20),
    from: "Judged: a hand that slips, or an intruder. The file is not there where the last start opened it.",
    seen: &[
        (DiskGone, 0.999),
        (ProcessExited, 0.01),
        (ProcessRuns, 1e-6),
        (ProcessStopped, 1e-7),
        (ProcessStuck, 1e-6),
        (AppRefused, 0.9),
        (AppMute, 0.3),
        (AppUnreachable, 0.9),
        (AgentAway, 0.9),
        (AgentSilent, 0.9),
    ],
};

/// Its image is not what the hypervisor wrote. It refuses to write there, or to start: each start may damage more.
const IMAGE_CORRUPT: FaultRow = FaultRow {
    fault: Fault::ImageCorrupt,
    says: "has a damaged disk image",
    once_in: years(5),
    from: "Judged: rarer than a disk that loses data. QEMU tells BLOCK_IMAGE_CORRUPTED, and qemu-img check finds it.",
    seen: &[
        (ImageCorrupt, 0.95),
        (LogImageCorrupt, 0.9),
        (StartFailed, 0.003),
        (PausedIo, 0.03),
        (DiskIdle, 0.99),
        (DiskBusy, 0.05),
        (ProcessExited, 0.001),
        (AgentSilent, 0.01),
        (AgentAway, 0.01),
        (AppMute, 0.02),
        (AppUnreachable, 0.02),
        (AppRefused, 0.001),
        (NetworkSilent, 0.02),
    ],
};
