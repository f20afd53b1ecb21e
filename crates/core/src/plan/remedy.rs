//! The ways back, and what each costs.

use crate::policy::Ability;
use crate::time::Duration;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// Let a VM that was paused for its storage run on; its failed requests are tried again.
    ResumeIo,
    /// Plug the virtual cables in again.
    Reconnect,
    /// Restart the application through the guest agent.
    RestartApp,
    /// Reset the guest in place; the process and its lease stay.
    ResetGuest,
    /// End the process, prove its death, start a new incarnation on the same disk.
    RestartVm,
    /// Start on a standby host (later).
    FailOver,
    /// Go back to disk and memory of a snapshot, and go on there.
    Resume,
    /// Go back to the disk of a snapshot, and boot it.
    Revert,
    /// Go back to a backup: its blocks come in while the VM runs.
    Restore,
    /// Leave it alone, with a reason, for a person.
    Hold,
}

/// A wrong kill is this many times as bad as the outage it causes: it takes trust with it.
const WRONG_KILL: f64 = 1_000.0;
/// Doing nothing leaves the service down until a person comes: about this long, in seconds.
const WAIT_FOR_PERSON: f64 = 900.0;

impl Remedy {
    /// The word for it on screen and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResumeIo => "resume-io",
            Self::Reconnect => "reconnect",
            Self::RestartApp => "restart-app",
            Self::ResetGuest => "reset-guest",
            Self::RestartVm => "restart-vm",
            Self::FailOver => "fail-over",
            Self::Resume => "resume",
            Self::Revert => "revert",
            Self::Restore => "restore",
            Self::Hold => "hold",
        }
    }

    /// What its driver must be able to do; `None`: this version cannot do it at all.
    #[must_use]
    pub const fn needs(self) -> Option<&'static [Ability]> {
        match self {
            Self::ResumeIo => Some(&[Ability::Pause]),
            Self::Reconnect => Some(&[Ability::Link]),
            Self::RestartApp => Some(&[Ability::Exec]),
            Self::ResetGuest => Some(&[Ability::Reset]),
            Self::RestartVm => Some(&[Ability::PowerOff]),
            // What it has is put aside as a snapshot, whatever takes its place.
            Self::Resume | Self::Revert | Self::Restore => Some(&[Ability::PowerOff, Ability::Snapshot]),
            Self::FailOver => None,
            Self::Hold => Some(&[]),
        }
    }

    /// The outage it causes where nothing was wrong, in seconds.
    const fn outage(self) -> f64 {
        match self {
            Self::ResumeIo | Self::Reconnect | Self::Hold => 0.05,
            Self::RestartApp => 3.0,
            Self::ResetGuest => 25.0,
            Self::RestartVm | Self::FailOver => 30.0,
            // A boot, and a person who takes it back: what was there is kept (I15), and its owner accepts the loss.
            Self::Resume | Self::Revert | Self::Restore => 60.0,
        }
    }

    /// How sure we must be to use it, in parts of ten thousand: the point where the outage it may end weighs
    /// more than the wrong it may do. The cheaper the remedy, the less certainty it needs.
    #[must_use]
    pub fn threshold(self) -> u16 {
        let cost = self.outage() * WRONG_KILL;
        (10_000.0 * cost / (cost + WAIT_FOR_PERSON)).ceil() as u16
    }

    /// Whether it ends what users were doing, so that I10 and the budget apply.
    #[must_use]
    pub const fn is_destructive(self) -> bool {
        !matches!(self, Self::ResumeIo | Self::Reconnect | Self::Hold)
    }

    /// Whether it loses what users wrote after a point.
    #[must_use]
    pub const fn goes_back(self) -> bool {
        matches!(self, Self::Resume | Self::Revert | Self::Restore)
    }

    /// How long it may take before it has failed. A boot comes on top (verification waits for it).
    #[must_use]
    pub const fn limit(self) -> Duration {
        match self {
            Self::ResumeIo | Self::Reconnect | Self::Hold => Duration::from_secs(5),
            Self::RestartApp => Duration::from_secs(60),
            Self::ResetGuest => Duration::from_secs(10),
            Self::RestartVm | Self::FailOver => Duration::from_secs(60),
            Self::Resume | Self::Revert => Duration::from_secs(60),
            Self::Restore => Duration::from_secs(180),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheaper_the_remedy_the_less_certainty_it_needs() {
        let rungs =
            [Remedy::ResumeIo, Remedy::RestartApp, Remedy::ResetGuest, Remedy::RestartVm, Remedy::Revert];
        assert!(rungs.windows(2).all(|pair| pair[0].threshold() < pair[1].threshold()));
        assert_eq!(Remedy::RestartApp.threshold(), 7_693);
        assert_eq!(Remedy::RestartVm.threshold(), 9_709);
    }
}
