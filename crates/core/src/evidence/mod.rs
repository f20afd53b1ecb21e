//! What signals may mean: a detector per channel, each in its own file, turning what was seen into
//! dated statements for or against a fault. A detector never names a fault.
//!
//! Three rules hold for all of them. Silence is only counted between answered questions that *we* asked
//! in time, so a stalled observer says nothing (I10). A statement that is no longer fresh is not made.
//! What an incarnation before this one did says nothing about this one.

mod agent;
mod app;
mod console;
mod disks;
mod exact;
mod forecast;
pub mod heartbeat;
mod host;
mod hypervisor;
mod kind;
mod lifecycle;
mod logs;
mod network;
mod process;
mod pulse;
pub mod series;
mod view;

pub use host::HostView;
pub use kind::{Kind, Topic};
pub use lifecycle::{Boot, BootCause};
pub use view::VmView;

use crate::subject::AppName;
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// A dated statement for or against faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What is stated.
    pub kind: Kind,
    /// About this application only; `None`: about the VM as a whole.
    pub app: Option<AppName>,
    /// Since when it has held.
    pub since: Timestamp,
    /// When it was last seen to hold.
    pub at: Timestamp,
    /// How much of its full weight it has, 0 to 1000: it grows with duration, shrinks with age.
    pub strength: u16,
    /// The sentence for people.
    pub text: String,
    /// The line of a log that it rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<Quote>,
}

/// What a statement quotes: enough to find the line again where logs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// When it was read.
    pub at: Timestamp,
    /// The line, or the sentence about it, as it was told; at most 256 characters.
    pub line: String,
}

/// Facts are asked for less often than signs of life: this long they stay true.
const FACT_KEEPS: Duration = Duration::from_secs(30);

/// Full weight.
pub const FULL: u16 = 1_000;

/// How a detector looks at what it remembers.
#[derive(Clone, Copy, Debug)]
pub struct Lens {
    /// The moment of looking.
    pub now: Timestamp,
    /// Older than this is not fresh (T_FRESH, SAFETY section 1).
    pub fresh: Duration,
    /// The longest that one question may take before it counts as unanswered.
    pub hang_after: Duration,
    /// Silence counts: neither the observer nor the host is known to be slow just now.
    pub trust_silence: bool,
    /// Deadlines are stretched by this factor while the host is under pressure.
    pub patience: u32,
    /// The guest is booting: its silence is expected.
    pub booting: bool,
    /// Announced work, or a frozen guest, explains slow answers.
    pub excused: bool,
}

impl Lens {
    /// Whether something seen then may still be stated.
    #[must_use]
    pub fn is_fresh(&self, at: Timestamp) -> bool {
        self.now.since(at) <= self.fresh
    }

    /// Two channels that fell silent within this fell silent at once: their questions are a period apart.
    #[must_use]
    pub fn at_once(&self) -> Duration {
        self.fresh / 2
    }

    /// Whether silence may be stated at all.
    #[must_use]
    pub const fn hears_silence(&self) -> bool {
        self.trust_silence && !self.booting && !self.excused
    }

    /// The strength of something that reaches its full weight after `full`.
    #[must_use]
    pub fn ramp(&self, lasted: Duration, full: Duration) -> u16 {
        let full = (full * self.patience).as_millis().max(1);
        u16::try_from((lasted.as_millis() * u128::from(FULL) / full).min(u128::from(FULL))).unwrap_or(FULL)
    }

    /// The strength of an event that loses half its weight in each `half_life`.
    #[must_use]
    pub fn aged(&self, at: Timestamp, half_life: Duration) -> u16 {
        let halves = self.now.since(at).as_millis() / half_life.as_millis().max(1);
        FULL.checked_shr(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(0)
    }
}

/// The sentence part "3.2s" or "14s" for a length of silence.
fn lasted(lens: &Lens, since: Timestamp) -> String {
    crate::time::show(lens.now.since(since))
}
