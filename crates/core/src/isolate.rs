//! Make sure the broken part cannot act: the smallest sufficient isolation for each remedy.
//!
//! Nothing here may leave two copies of a VM able to write (I1): a remedy that starts a new process
//! asks for `Power`, and only the driver's `DeathProof` ends that step.

use crate::plan::Remedy;
use serde::{Deserialize, Serialize};

/// How far a subject is cut off, smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Nothing to do: the remedy itself stops what is broken.
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
            Remedy::RestartVm | Remedy::FailOver | Remedy::Revert | Remedy::Restore => Self::Power,
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
