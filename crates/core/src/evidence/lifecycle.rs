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
    /// It was reset, by us or by the guest.
    Reset,
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
    longest: Duration,
    boots: u32,
}

/// A boot may take so many times the longest one seen before it is overdue ...
const SLACK: u32 = 5;
/// ... but is never called overdue before this.
const LEAST: Duration = Duration::from_secs(60);

impl LifecycleView {
    /// A boot begins; a reset during a boot begins it anew.
    pub fn begin(&mut self, at: Timestamp, cause: BootCause) {
        self.boot = Some(Boot { since: at, cause });
    }

    /// The guest serves.
    pub fn arrive(&mut self, at: Timestamp) {
        if let Some(boot) = self.boot.take() {
            self.longest = self.longest.max(at.since(boot.since));
            self.boots = self.boots.saturating_add(1);
        }
    }

    /// It came to nothing: nothing is learned from it.
    pub fn end(&mut self) {
        self.boot = None;
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
    }

    /// When the boot in progress is overdue. Learned boots shorten the wait, never lengthen it.
    pub fn due(&self, boot_limit: Duration, patience: u32) -> Option<Timestamp> {
        let boot = self.boot?;
        let learned = if self.boots >= 2 { (self.longest * SLACK).max(LEAST) } else { boot_limit };
        Some(boot.since + boot_limit.min(learned) * patience)
    }

    pub fn speak(&self, lens: &Lens, boot_limit: Duration, say: &mut Vec<Evidence>) {
        let (Some(boot), Some(due)) = (self.boot, self.due(boot_limit, lens.patience)) else { return };
        if lens.now >= due && lens.trust_silence {
            let text = format!(
                "still not up {} after its {}",
                lasted(lens, boot.since),
                match boot.cause {
                    BootCause::Started => "start",
                    BootCause::Reset => "reset",
                }
            );
            say.push(Evidence {
                kind: Kind::BootOverdue,
                app: None,
                since: due,
                at: lens.now,
                strength: FULL,
                text,
            });
        }
    }
}
