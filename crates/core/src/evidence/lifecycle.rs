//! Where a guest is in its life: booting, up, or overdue.

use super::{Evidence, FULL, Kind, Lens, lasted};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// Why a guest boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootCause {
    /// The VM was started.
    Started,
    /// It was reset by us, or nobody knows by whom.
    Reset,
    /// The guest reset itself.
    Itself,
}

/// A boot in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub cause: BootCause,
}

/// Learned boots, and the one in progress.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LifecycleView {
    boot: Option<Boot>,
    /// When the first began of the boots that the guest itself has broken off since it was last up, if it has.
    #[serde(default)]
    first: Option<Timestamp>,
    longest: Duration,
    boots: u32,
}

/// A boot may take so many times the longest one seen before it is overdue ...
const SLACK: u32 = 5;
/// ... but is never called overdue before this.
const LEAST: Duration = Duration::from_secs(60);

impl LifecycleView {
    /// A boot begins; a reset during a boot begins it anew. One that the guest itself breaks off and begins anew
    /// has its own time, but all of them together no more than one may have.
    pub fn begin(&mut self, at: Timestamp, cause: BootCause) {
        let broken_off = self.boot.filter(|_| cause == BootCause::Itself).map(|boot| boot.since);
        self.first = broken_off.map(|since| self.first.unwrap_or(since));
        self.boot = Some(Boot { since: at, cause });
    }

    /// The guest serves.
    pub fn arrive(&mut self, at: Timestamp) {
        self.first = None;
        if let Some(boot) = self.boot.take() {
            self.longest = self.longest.max(at.since(boot.since));
            self.boots = self.boots.saturating_add(1);
        }
    }

    /// It came to nothing: nothing is learned from it.
    pub fn end(&mut self) {
        (self.boot, self.first) = (None, None);
    }

    /// The boot in progress.
    pub const fn boot(&self) -> Option<Boot> {
        self.boot
    }

    /// The observer slept for so long.
    pub fn forgive(&mut self, slept: Duration) {
        if let Some(boot) = &mut self.boot {
            boot.since = boot.since + slept;
        }
        self.first = self.first.map(|first| first + slept);
    }

    /// When the boot in progress is overdue. Learned boots shorten the wait, never lengthen it; what the guest has
    /// spent on boots that it broke off counts in full against what was allowed for one.
    pub fn due(&self, boot_limit: Duration, patience: u32) -> Option<Timestamp> {
        let boot = self.boot?;
        let learned = if self.boots >= 2 { (self.longest * SLACK).max(LEAST) } else { boot_limit };
        let due = boot.since + boot_limit.min(learned) * patience;
        Some(self.first.map_or(due, |first| due.min(first + boot_limit * patience)))
    }

    pub fn speak(&self, lens: &Lens, boot_limit: Duration, say: &mut Vec<Evidence>) {
        let (Some(boot), Some(due)) = (self.boot, self.due(boot_limit, lens.patience)) else { return };
        if lens.now >= due && lens.trust_silence {
            let text = match (boot.cause, self.first) {
                (BootCause::Started, _) => {
                    format!("still not up {} after its start", lasted(lens, boot.since))
                }
                (BootCause::Reset | BootCause::Itself, None) => {
                    format!("still not up {} after its reset", lasted(lens, boot.since))
                }
                (BootCause::Reset | BootCause::Itself, Some(first)) => {
                    format!("still not up after {}, and resets itself", lasted(lens, first))
                }
            };
            say.push(Evidence {
                kind: Kind::BootOverdue,
                app: None,
                since: due,
                at: lens.now,
                strength: FULL,
                text,
                quote: None,
            });
        }
    }
}
