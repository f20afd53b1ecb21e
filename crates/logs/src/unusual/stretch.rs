//! The patterns of each minute as a window, judged by the minutes before ([`Watch`]), and by how often such a verdict
//! comes: a source whose minutes are often unlike the others surprises nobody by one more.

use super::tail::{MOST_DECIBANS, decibans};
use crate::pattern::PatternId;
use crate::windows::{During, Judgement, Reason, Room, Watch, Window};
use serde::{Deserialize, Serialize};

/// Verdicts are counted in steps of how far beyond the limit a window is.
const STEPS: [f64; 8] = [1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 5.0, 10.0];
/// What a window weighs after a window: half after 2,048.
const KEEP: f64 = 0.999_661_6;
/// A verdict as rare as one in a thousand minutes is told.
const LEAST_DECIBANS: f64 = 30.0;
/// Windows before verdicts are counted.
const YOUNG: u64 = 256;
/// Less than for a log that is read offline: there are many sources.
const ROOM: Room = Room { vectors: 256, counts: 1 << 14, columns: 64 };

/// The minutes of one source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stretches {
    #[serde(skip)]
    window: Window,
    watch: Watch,
    windows: f64,
    beyond: [f64; STEPS.len()],
}

impl Default for Stretches {
    fn default() -> Self {
        let watch = Watch::with_room(ROOM);
        Self { window: Window::default(), watch, windows: 0.0, beyond: [0.0; STEPS.len()] }
    }
}

impl Stretches {
    /// A line came.
    pub fn come(&mut self, pattern: PatternId) {
        self.window.add(u32::try_from(pattern.0).unwrap_or(u32::MAX), 1); // their order is that of chance
    }

    /// Nobody listened for a while.
    pub fn interrupt(&mut self) {
        self.window = Window::default();
    }

    /// Bytes of memory that habits and model take, about.
    pub fn bytes(&self) -> usize {
        let (vectors, counts) = self.watch.habits().size();
        counts * 8 + vectors * (64 + 2 * 8 * ROOM.columns)
    }

    /// Minutes that were learned.
    #[cfg(test)]
    pub fn known(&self) -> u64 {
        self.watch.habits().windows()
    }

    /// A minute with lines in it is over; what is unusual about it, and how much, if it is worth telling.
    pub fn minute(&mut self, during: During) -> Option<(Judgement, f64)> {
        let judgement = self.watch.window(&std::mem::take(&mut self.window), during)?;
        if self.watch.habits().windows() < YOUNG {
            return None; // of a model that knows little, verdicts say little too
        }
        let beyond = if judgement.score < 1.0 { judgement.score / (1.0 - judgement.score) } else { f64::MAX };
        let step = STEPS.iter().rposition(|step| judgement.is_unusual && beyond >= *step);
        let surprise = step.map(|step| decibans((self.beyond[step] + 0.5) / (self.windows + 1.0)));
        match during {
            During::Incident => {}
            During::Quiet => {
                self.windows = self.windows * KEEP + 1.0;
                for (at, beyond) in self.beyond.iter_mut().enumerate() {
                    *beyond = *beyond * KEEP + f64::from(u8::from(step.is_some_and(|step| step >= at)));
                }
            }
        }
        // What is merely new is told as news.
        let is_more = judgement.reasons.iter().any(|reason| !matches!(reason, Reason::Unseen { .. }));
        let surprise = surprise.filter(|surprise| is_more && *surprise >= LEAST_DECIBANS)?;
        Some((judgement, surprise.min(MOST_DECIBANS)))
    }
}
