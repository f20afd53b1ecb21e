//! Who may run a VM, and the proof that an old copy can write no more (I1, I2, I3).
//!
//! The types make the dangerous order impossible: a start needs a [`Lease`], a new lease needs a
//! [`DeathProof`] of the incarnation before it, and both name the VM and the incarnation.

use crate::subject::{HostName, VmName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One start of a VM, numbered from 1, never reused. Zero: it never ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Before the first start.
    pub const NONE: Self = Self(0);

    /// The start after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A lease's number. It only rises, over all VMs of a store; a receiver refuses any lower than the
/// highest it has durably seen (I3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

/// The right of one host to run one incarnation of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The VM.
    pub vm: VmName,
    /// The one start it allows.
    pub incarnation: Incarnation,
    /// Its number.
    pub token: Token,
    /// Who has it.
    pub holder: HostName,
}

/// What showed that an incarnation can write no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Death {
    /// The process was seen to exit through its pidfd.
    Exited {
        /// The process id it had.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
    /// The control group it ran in is empty.
    GroupEmpty {
        /// The process id it had.
        pid: u32,
    },
    /// Its process is gone: no process has that id and start time, under the same boot of the host.
    NotFound {
        /// The process id it had.
        pid: u32,
    },
    /// The host has booted since that incarnation was started.
    HostRebooted,
    /// There never was a start.
    NeverStarted,
    /// The hypervisor refused the start before a process existed, or the process ended at once.
    StartRefused,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By `exit`, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not our child, so the kernel does not say.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("status unknown"),
        }
    }
}

/// Evidence that one incarnation of a VM can write no more. Only a driver makes one, from what it
/// saw with its own eyes; a closed socket or a silent agent is never enough (SAFETY section 3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeathProof {
    vm: VmName,
    incarnation: Incarnation,
    death: Death,
}

impl DeathProof {
    /// For drivers: states that this incarnation was seen dead.
    #[must_use]
    pub const fn witnessed(vm: VmName, incarnation: Incarnation, death: Death) -> Self {
        Self { vm, incarnation, death }
    }

    /// The VM that is dead.
    #[must_use]
    pub const fn vm(&self) -> &VmName {
        &self.vm
    }

    /// The incarnation that is dead.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// What was seen.
    #[must_use]
    pub const fn death(&self) -> &Death {
        &self.death
    }
}

impl fmt::Display for DeathProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.death {
            Death::Exited { pid, status } => write!(f, "process {pid} exited, {status}"),
            Death::GroupEmpty { pid } => write!(f, "the control group of process {pid} is empty"),
            Death::NotFound { pid } => write!(f, "process {pid} is gone"),
            Death::HostRebooted => f.write_str("the host has rebooted since"),
            Death::NeverStarted => f.write_str("it never ran"),
            Death::StartRefused => f.write_str("the start was refused"),
        }
    }
}
