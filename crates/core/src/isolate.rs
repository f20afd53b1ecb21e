//! Make sure the broken part cannot act: the smallest sufficient isolation for each remedy.
//!
//! A VM that is held and may do harm is made harmless by `Network` or `Pause`, where its owner wants that. A
//! remedy needs neither: pausing a guest before its evidence is kept would leave it paused if the daemon
//! died in between, for a few milliseconds less of a fault that has lasted for seconds.
//!
//! Nothing here may leave two copies of a VM able to write (I1): a remedy that starts a new process
//! asks for `Power`, and only the driver's `DeathProof` ends that step.

use crate::action::Operation;
use crate::diagnosis::Fault;
use crate::incident::IncidentId;
use crate::plan::Remedy;
use crate::policy::Ability;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a subject is cut off, smallest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Nothing to do: the remedy itself stops what is broken.
    #[default]
    None,
    /// Its virtual cables are unplugged.
    Network,
    /// Its processors are stopped.
    Pause,
    /// Its process is ended, and the death proven.
    Power,
}

impl Isolation {
    /// The smallest isolation that makes this remedy safe.
    #[must_use]
    pub const fn before(remedy: Remedy) -> Self {
        match remedy {
            Remedy::ResumeIo | Remedy::Reconnect | Remedy::RestartApp | Remedy::ResetGuest | Remedy::Hold => {
                Self::None
            }
            Remedy::RestartVm | Remedy::FailOver | Remedy::Resume | Remedy::Revert | Remedy::Restore => {
                Self::Power
            }
        }
    }

    /// The word for it in the configuration and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Network => "network",
            Self::Pause => "pause",
            Self::Power => "power",
        }
    }

    /// What brings it about on a running machine, for a VM that is held.
    #[must_use]
    pub const fn operation(self) -> Option<Operation> {
        match self {
            Self::Network => Some(Operation::LinkDown),
            Self::Pause => Some(Operation::Pause),
            Self::None | Self::Power => None,
        }
    }

    /// What takes it back.
    #[must_use]
    pub const fn undo(self) -> Option<Operation> {
        match self {
            Self::Network => Some(Operation::LinkUp),
            Self::Pause => Some(Operation::Continue),
            Self::None | Self::Power => None,
        }
    }

    /// What the driver must be able to do.
    #[must_use]
    pub const fn needs(self) -> Option<Ability> {
        match self {
            Self::Network => Some(Ability::Link),
            Self::Pause => Some(Ability::Pause),
            Self::None | Self::Power => None,
        }
    }

    /// What is being done, for people.
    #[must_use]
    pub const fn does(self) -> &'static str {
        match self {
            Self::None => "nothing to do",
            Self::Network => "unplugging its virtual cables",
            Self::Pause => "stopping its processors",
            Self::Power => "ending its process",
        }
    }

    /// Why it suffices, for people.
    #[must_use]
    pub const fn says(self) -> &'static str {
        match self {
            Self::None => "nothing to do: the process stays, its lease is ours",
            Self::Network => "virtual cables unplugged",
            Self::Pause => "processors stopped",
            Self::Power => "process ended, death proven",
        }
    }
}

/// A held VM that is made harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolated {
    /// How.
    pub how: Isolation,
    /// For this incident.
    pub incident: IncidentId,
    /// Since when; `None`: it was asked for, and nobody knows yet whether it is done (I9).
    pub since: Option<Timestamp>,
}

/// What harm a fault may do while it lasts, for people; `None`: it only keeps users from being served.
#[must_use]
pub const fn harm(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::AppWrong => Some("a wrong answer is worse than none"),
        Fault::GuestFsReadOnly => Some("a damaged file system must not be written any further"),
        Fault::AppDown
        | Fault::AppHung
        | Fault::AppCutOff
        | Fault::AppSlow
        | Fault::AppCrashLoop
        | Fault::OutOfConnections
        | Fault::CorruptionReported
        | Fault::ReplicationBroken
        | Fault::LockPileUp
        | Fault::ImageCorrupt
        | Fault::ImageLost
        | Fault::StorageSlow
        | Fault::StorageLost
        | Fault::HostFailing
        | Fault::HostNetLost
        | Fault::GuestPanicked
        | Fault::GuestHung
        | Fault::GuestBootFailed
        | Fault::GuestBootLoop
        | Fault::GuestOutOfMemory
        | Fault::GuestDiskFull
        | Fault::GuestNetLost
        | Fault::VmCrashed
        | Fault::VmHung
        | Fault::VmPausedIo
        | Fault::VmWontStart
        | Fault::HostOverloaded
        | Fault::HostDiskFull
        | Fault::ProbeBroken
        | Fault::ObserverSlow
        | Fault::RestorePointsStale => None,
    }
}
