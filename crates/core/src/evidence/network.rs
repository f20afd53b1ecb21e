//! The way to the guest: its kernel's answers, and the virtual cable.

use super::pulse::Pulse;
use super::{Evidence, FULL, Kind, Lens, lasted};
use crate::signal::NetworkSign;
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// A kernel that answers no echo for so long is not merely slow.
const SILENT_FULL: Duration = Duration::from_secs(5);

/// What is remembered of the network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NetworkView {
    pulse: Pulse,
    unplugged: Option<Timestamp>,
}

impl NetworkView {
    pub fn observe(&mut self, at: Timestamp, sign: &NetworkSign) {
        match sign {
            NetworkSign::Answered { .. } => self.pulse.answer(at),
            NetworkSign::NoAnswer { .. } => self.pulse.fail(at),
            NetworkSign::Link { up: true } => self.unplugged = None,
            NetworkSign::Link { up: false } => {
                self.unplugged.get_or_insert(at);
            }
        }
    }

    /// The guest boots: its kernel answers for itself again. A cable stays as it is.
    pub fn renew(&mut self) {
        self.pulse.renew();
    }

    /// We were not there: whether a cable was plugged in meanwhile is not known.
    pub const fn look_away(&mut self) {
        self.unplugged = None;
    }

    /// When the guest's kernel last answered.
    pub const fn answered(&self) -> Option<Timestamp> {
        self.pulse.answered()
    }

    /// Silence begins now, if it is silent.
    pub fn begin_silence(&mut self, now: Timestamp) {
        self.pulse.begin_silence(now);
    }

    /// The observer slept for so long.
    pub fn forgive(&mut self, slept: Duration) {
        self.pulse.forgive(slept);
    }

    /// A cable is unplugged.
    pub const fn is_unplugged(&self) -> bool {
        self.unplugged.is_some()
    }

    pub fn speak(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, strength, text| {
            say.push(Evidence { kind, app: None, since, at, strength, text, quote: None });
        };
        if let Some(since) = self.unplugged {
            let text = format!("the virtual cable has been unplugged for {}", lasted(lens, since));
            push(Kind::LinkDown, since, lens.now, FULL, text);
        }
        if self.pulse.is_alive(lens) {
            let at = self.pulse.answered().unwrap_or(lens.now);
            let text = format!("the guest's kernel answered on the network {} ago", lasted(lens, at));
            push(Kind::NetworkAnswers, at, at, FULL, text);
        } else if let Some((since, at, strength)) = self.pulse.silence(lens, SILENT_FULL) {
            let text = format!("the guest's kernel silent on the network {}", lasted(lens, since));
            push(Kind::NetworkSilent, since, at, strength, text);
        }
    }
}
