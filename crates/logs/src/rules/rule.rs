//! One known line as a row, and the words in which it is described.

use crate::record::Severity;

/// What a known line tells, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The kernel stopped itself.
    KernelPanic,
    /// The root file system could not be mounted, or init is missing.
    RootLost,
    /// A database gave up.
    AppPanic,
    /// The guest crashed or hangs, as its next start, its console or its hypervisor tells.
    GuestFailed,
    /// The hypervisor cannot run a VM any further.
    VmFailed,
    /// The hypervisor refuses to start a VM.
    VmRefused,
    /// A file system reports damage.
    FsError,
    /// A file system was switched to read-only.
    FsReadOnly,
    /// A disk request failed.
    DiskIoError,
    /// No space left on a disk.
    DiskFull,
    /// Stored data are not what was written.
    DataCorrupt,
    /// A disk image is damaged, or not what it should be.
    ImageCorrupt,
    /// A disk or a file server is gone.
    StorageLost,
    /// A disk is failing.
    DiskFailing,
    /// Memory, a processor or a bus is failing.
    BadHardware,
    /// The kernel met a bug but goes on.
    KernelOops,
    /// The kernel found its own memory overwritten, or failed twice.
    KernelBroken,
    /// The kernel killed a process for want of memory.
    OutOfMemory,
    /// A task or processor has not moved for long.
    HungTask,
    /// A service or program failed, or could not be started.
    ServiceFailed,
    /// A program crashed.
    ProgramCrashed,
    /// A copy of the data is no longer kept up to date.
    ReplicationBroken,
    /// A network card, link or address does not work.
    NetTrouble,
    /// A limit is reached: connections, files, processes.
    LimitReached,
    /// Somebody was not let in, as happens on any day: a password or a name is wrong.
    AccessDenied,
    /// Memory is short.
    MemoryShort,
    /// Disk space is short.
    SpaceShort,
    /// Sessions wait for each other.
    LocksPileUp,
    /// A disk is slow.
    StorageSlow,
    /// The machine does not get the processor time it needs.
    HostBusy,
    /// The clock was wrong, or stood still.
    ClockJumped,
    /// Somebody told the system or a database to stop: what ends now ends on purpose.
    GoingDown,
    /// A kernel started booting.
    BootStarted,
    /// A database is starting or replaying its log.
    AppStarting,
    /// The system says it is up.
    BootFinished,
    /// A database is ready.
    AppReady,
    /// The hypervisor did what it was told.
    HypervisorNotice,
}

impl Kind {
    /// Whether the engine takes such a line as evidence. The other kinds are shown to people and lead to
    /// no action; a line that both would know is always given to the rule of an evidence.
    #[must_use]
    pub const fn is_evidence(self) -> bool {
        match self {
            Self::KernelPanic
            | Self::RootLost
            | Self::AppPanic
            | Self::FsError
            | Self::FsReadOnly
            | Self::DiskIoError
            | Self::DiskFull
            | Self::KernelOops
            | Self::OutOfMemory
            | Self::HungTask
            | Self::GoingDown
            | Self::BootStarted
            | Self::AppStarting
            | Self::BootFinished
            | Self::AppReady => true,
            Self::GuestFailed
            | Self::VmFailed
            | Self::VmRefused
            | Self::DataCorrupt
            | Self::ImageCorrupt
            | Self::StorageLost
            | Self::DiskFailing
            | Self::BadHardware
            | Self::KernelBroken
            | Self::ServiceFailed
            | Self::ProgramCrashed
            | Self::ReplicationBroken
            | Self::NetTrouble
            | Self::LimitReached
            | Self::AccessDenied
            | Self::MemoryShort
            | Self::SpaceShort
            | Self::LocksPileUp
            | Self::StorageSlow
            | Self::HostBusy
            | Self::ClockJumped
            | Self::HypervisorNotice => false,
        }
    }
}

/// A fault that a line may speak for, by its name in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the catalogue says what each is")]
pub enum Fault {
    AppDown,
    AppHung,
    AppWrong,
    GuestPanicked,
    GuestHung,
    GuestBootFailed,
    GuestOutOfMemory,
    GuestDiskFull,
    GuestFsReadOnly,
    GuestNetLost,
    VmCrashed,
    VmHung,
    VmPausedIo,
    VmWontStart,
    HostOverloaded,
    HostDiskFull,
    StorageSlow,
    StorageLost,
    ImageCorrupt,
    HostNetLost,
    HostFailing,
    AppSlow,
    ReplicationBroken,
    OutOfConnections,
    CorruptionReported,
    LockPileUp,
}

/// Who must have written a line for a rule to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The kernel: the pattern stands at the start of the line or behind the kernel's own time stamp
    /// (`[   12.345678] `), level (`<4>`) or syslog name (`kernel: `), also in the middle of a line that
    /// somebody else had begun, as happens on a console.
    Kernel,
    /// Anybody; the pattern stands anywhere.
    Anyone,
}

/// One known line.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, as in incidents and `explain`.
    pub name: &'static str,
    /// What it means, for people.
    pub means: &'static str,
    /// What it tells.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The faults that may be behind it, the likeliest first; none if it is only good to know.
    pub speaks_for: &'static [Fault],
    pub(super) by: By,
    /// A literal that every such line holds: all that ordinary lines are searched for.
    pub(super) needs: &'static str,
    /// The whole pattern; empty if the literal says it all.
    pub(super) pattern: &'static str,
    /// Lines that also hold this are not meant.
    pub(super) unless: &'static str,
    /// Lines to find, from the field or from the source.
    pub examples: &'static [&'static str],
    /// Lines to leave alone, though they look like it: no rule knows them.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests hold every rule to it"))]
    pub(super) not: &'static [&'static str],
    /// Where the words come from: the file that prints them, or the manual.
    pub source: &'static str,
}

impl Rule {
    /// Whether only the kernel's own line counts, and not one that somebody else wrote.
    #[must_use]
    pub const fn is_by_kernel(&self) -> bool {
        matches!(self.by, By::Kernel)
    }
}
