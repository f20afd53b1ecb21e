//! Who may run a VM, and the proof that an old copy can write no more (I1, I2, I3).
//!
//! The types make the dangerous order impossible: a start needs a [`Lease`], a new lease needs a
//! [`DeathProof`] of the incarnation before it, and both name the VM and the incarnation.
//!
//! What they promise: no code makes a proof but with the word of an [`Eyewitness`], which only drivers and the
//! simulator can give; no code makes a lease but from a proof, for exactly the incarnation after it, or from a
//! [`Sighting`]; none of them can be changed. What stays a convention: that a driver has truly looked; that a lease
//! store gives each token once and no lease before it is durable; and that a journal which is read back was ours, for
//! proofs and leases are read from it (its folder is its owner's alone).

use crate::subject::{HostName, VmName};
use holdfast_witness::Eyewitness;
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

/// The right of one host to run one incarnation of a VM. Only a lease store makes one, and gives it when it is durable.
///
/// It follows a proof of death, and is for no other incarnation than the next:
/// ```
/// # use holdfast_core::lease::{Death, DeathProof, Incarnation, Lease, Token};
/// # use holdfast_witness::Eyewitness;
/// let (vm, host) = ("db".parse().unwrap(), "atlas".parse().unwrap());
/// let dead = DeathProof::witnessed(Eyewitness::here(), vm, Incarnation(6), Death::HostRebooted);
/// assert_eq!(Lease::after(&dead, Token(12), host).incarnation(), Incarnation(7));
/// ```
/// An incarnation alone gives none:
/// ```compile_fail
/// # use holdfast_core::lease::{Incarnation, Lease, Token};
/// Lease::after(&Incarnation(6), Token(12), "atlas".parse().unwrap());
/// ```
/// and it is not written by hand, nor changed:
/// ```compile_fail
/// # use holdfast_core::lease::{Incarnation, Lease, Token};
/// let (vm, holder) = ("db".parse().unwrap(), "atlas".parse().unwrap());
/// let lease = Lease { vm, incarnation: Incarnation(7), token: Token(12), holder };
/// ```
/// ```compile_fail
/// # use holdfast_core::lease::{Incarnation, Lease};
/// fn again(lease: &mut Lease) {
///     lease.incarnation = lease.incarnation.next();
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    vm: VmName,
    incarnation: Incarnation,
    token: Token,
    holder: HostName,
}

impl Lease {
    /// For lease stores: the right to the start after the one that is proven dead (I2).
    #[must_use]
    pub fn after(dead: &DeathProof, token: Token, holder: HostName) -> Self {
        Self { vm: dead.vm.clone(), incarnation: dead.incarnation.next(), token, holder }
    }

    /// For lease stores: the right of what was found running without one to go on (SAFETY section 3).
    #[must_use]
    pub const fn adopting(vm: VmName, running: Sighting, token: Token, holder: HostName) -> Self {
        Self { vm, incarnation: running.0, token, holder }
    }

    /// The VM.
    #[must_use]
    pub const fn vm(&self) -> &VmName {
        &self.vm
    }

    /// The one start it allows.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Its number.
    #[must_use]
    pub const fn token(&self) -> Token {
        self.token
    }

    /// Who has it.
    #[must_use]
    pub const fn holder(&self) -> &HostName {
        &self.holder
    }
}

/// An incarnation that a driver has seen running; of which VM, says the action that it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sighting(Incarnation);

impl Sighting {
    /// For drivers: states that the process of this incarnation was seen alive.
    #[must_use]
    pub fn of(_by: Eyewitness, incarnation: Incarnation) -> Self {
        Self(incarnation)
    }

    /// Which incarnation.
    #[must_use]
    pub const fn incarnation(self) -> Incarnation {
        self.0
    }
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
///
/// ```
/// # use holdfast_core::lease::{Death, DeathProof, Incarnation};
/// # use holdfast_witness::Eyewitness;
/// DeathProof::witnessed(Eyewitness::here(), "db".parse().unwrap(), Incarnation(6), Death::HostRebooted);
/// ```
/// Without a witness there is none:
/// ```compile_fail
/// # use holdfast_core::lease::{Death, DeathProof, Incarnation};
/// DeathProof::witnessed((), "db".parse().unwrap(), Incarnation(6), Death::HostRebooted);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeathProof {
    vm: VmName,
    incarnation: Incarnation,
    death: Death,
}

impl DeathProof {
    /// For drivers: states that this incarnation was seen dead.
    #[must_use]
    pub fn witnessed(_by: Eyewitness, vm: VmName, incarnation: Incarnation, death: Death) -> Self {
        Self { vm, incarnation, death }
    }

    /// What follows from the refusal of the start that this lease was for: a driver refuses only when no process is
    /// left, and that incarnation is used up.
    pub(crate) fn of_refused_start(lease: &Lease) -> Self {
        Self { vm: lease.vm.clone(), incarnation: lease.incarnation, death: Death::StartRefused }
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::action::{Found, Order};

    #[test]
    fn a_sighting_is_written_as_journals_always_had_it() {
        let seen = Sighting::of(Eyewitness::here(), Incarnation(3));
        let found = Found::Running { seen, pid: 7, state: None, lease: None };
        let written = serde_json::to_string(&(Order::Adopt { seen }, found)).unwrap();
        assert_eq!(
            written,
            r#"[{"adopt":{"incarnation":3}},{"running":{"incarnation":3,"pid":7,"state":null,"lease":null}}]"#
        );
    }
}
