//! What was read in logs, and in numbers.

use serde::{Deserialize, Serialize};

/// What a log said: one that is not the console of the guest, but a file, a journal, or the hypervisor's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSign {
    /// A line that is known to be bad.
    Finding {
        /// Where it was read, as shown; at most 64 characters.
        source: String,
        /// The line.
        finding: Finding,
    },
    /// Something that no rule knows, and that is not usual.
    Unusual {
        /// Where it was read, as shown; at most 64 characters.
        source: String,
        /// In which way.
        how: Unusual,
        /// How surprising, in decibans: ten times the logarithm of how much rarer it is than a coin's head.
        surprise: u16,
        /// The sentence for people, escaped, at most 256 characters.
        text: String,
    },
}

/// In which way a log is not as usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unusual {
    /// A kind of line that was never seen before.
    New,
    /// Far more lines of a kind than ever.
    Burst,
    /// A line that used to come regularly does not.
    Silence,
    /// Lines of a kind come at another rate than they used to.
    Rate,
    /// A stretch of the log whose lines, taken together, are like no other.
    Window,
}

/// A number that is not as usual, by its own past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberSign {
    /// What it measures.
    pub measure: Measure,
    /// The series, as shown; at most 64 characters.
    pub series: String,
    /// How surprising, in decibans; 0: it is as usual again.
    pub surprise: u16,
    /// The sentence for people, at most 256 characters.
    pub text: String,
}

/// What a number measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// How long an application takes to answer.
    Latency,
    /// Anything else of a VM or its guest.
    Other,
}

/// A pattern in the logs, worth making a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it tells.
    pub kind: FindingKind,
    /// The rule that matched, as named in the rule file.
    pub rule: String,
    /// The line, escaped, at most 256 characters. Only ever shown, never run or parsed again (I17).
    pub line: String,
}

/// What a known line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The kernel stopped itself.
    KernelPanic,
    /// The kernel met a bug but goes on.
    KernelOops,
    /// A task or processor has not moved for long.
    HungTask,
    /// The kernel killed a process for want of memory.
    OutOfMemory,
    /// A file system reports damage.
    FsError,
    /// A file system was switched to read-only.
    FsReadOnly,
    /// A disk request failed inside the guest.
    DiskIoError,
    /// No space left on a disk of the guest.
    DiskFull,
    /// The root file system could not be mounted, or init is missing.
    RootLost,
    /// A kernel started booting.
    BootStarted,
    /// The guest says it is up.
    BootFinished,
    /// A database gave up (PANIC).
    AppPanic,
    /// A database is starting or replaying its log.
    AppStarting,
    /// A database is ready.
    AppReady,
    /// Somebody told the guest or a database to stop: what ends now ends on purpose.
    GoingDown,
    /// A database takes no more connections.
    NoConnectionLeft,
    /// A database, or a file system that checks, reads data that are not what was written.
    DataCorrupt,
    /// A copy of the data is no longer kept up to date.
    ReplicationBroken,
    /// Sessions wait for each other.
    LocksPileUp,
    /// The disk image of a VM is damaged.
    ImageCorrupt,
    /// A disk or a file server of the host is gone.
    StorageLost,
    /// A disk of the host is slow.
    StorageSlow,
    /// A disk, memory, a processor or a bus of the host is failing.
    HardwareFailing,
    /// A network card or link of the host does not work.
    LinkLost,
    /// A service failed, or a program crashed: which one, the line says.
    ServiceFailed,
    /// Memory is short, and nobody was ended for it yet.
    MemoryShort,
    /// A disk is nearly full.
    SpaceShort,
}

impl FindingKind {
    /// Of those that speak of a database, whether from the console or another log.
    #[must_use]
    pub const fn is_of_database(self) -> bool {
        matches!(
            self,
            Self::NoConnectionLeft | Self::DataCorrupt | Self::ReplicationBroken | Self::LocksPileUp
        )
    }
}
