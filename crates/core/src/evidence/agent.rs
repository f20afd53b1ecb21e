//! The guest agent: whether it answers, and what it says of the guest as a whole.
//!
//! A guest can lie. What its agent says may make Holdfast doubt the guest, never trust it more than the
//! other channels allow (I17).

use super::disks::{DisksView, Told};
use super::forecast::{Filling, Forecast};
use super::pulse::Pulse;
use super::{Evidence, FACT_KEEPS, FULL, Kind, Lens, lasted};
use crate::signal::{AgentPort, AgentSign};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// A guest with less than this share of memory left, in parts of a thousand, is short of it.
const LOW_BELOW: u64 = 40;
/// A frozen guest is believed for so long after it was last seen frozen.
const FROZEN_KEEPS: Duration = Duration::from_secs(8);

/// What is remembered of the agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentView {
    pulse: Pulse,
    port: Option<AgentPort>,
    frozen: Option<(bool, Timestamp)>,
    #[serde(default)]
    disks: DisksView,
    memory: Option<(u64, u64, Timestamp)>,
    /// Something fills, and will be full soon.
    #[serde(default)]
    filling: bool,
    #[serde(default)]
    fills: Option<Box<Fills>>, // apart: looked at only when a fact comes
}

/// What fills, beside file systems.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Fills {
    memory: Filling,
}

impl AgentView {
    pub fn observe(&mut self, at: Timestamp, sign: &AgentSign) {
        match sign {
            AgentSign::Answered { .. } => {
                self.pulse.answer(at);
                self.port = Some(AgentPort::Open);
            }
            AgentSign::NoAnswer { port, .. } => {
                self.pulse.fail(at);
                self.port = Some(*port);
            }
            AgentSign::Frozen(frozen) => self.frozen = Some((*frozen, at)),
            AgentSign::FileSystem { mount, used, total, read_only, holds } => {
                let told = Told { mount, holds, used: *used, total: *total, read_only: *read_only };
                self.disks.observe(at, told);
                self.look_ahead();
            }
            AgentSign::Memory { available, total } => {
                let fills = self.fills.get_or_insert_default();
                fills.memory.observe(at, total.saturating_sub(*available), *total);
                self.look_ahead();
                self.memory = Some((*available, *total, at));
            }
            AgentSign::Service { .. }
            | AgentSign::Check { .. }
            | AgentSign::Carrier { .. }
            | AgentSign::Uptime(_) => {} // not of the agent itself
        }
    }

    /// Silence begins now, if it is silent.
    pub fn begin_silence(&mut self, now: Timestamp) {
        self.pulse.begin_silence(now);
    }

    /// The observer slept for so long.
    pub fn forgive(&mut self, slept: Duration) {
        self.pulse.forgive(slept);
    }

    /// File systems are frozen: writes hang on purpose.
    pub fn is_frozen(&self, now: Timestamp) -> bool {
        self.frozen.is_some_and(|(frozen, at)| frozen && now.since(at) <= FROZEN_KEEPS)
    }

    /// It has said lately how much memory is left.
    pub fn knows_memory(&self, lens: &Lens) -> bool {
        self.memory.is_some_and(|(_, _, at)| lens.now.since(at) <= FACT_KEEPS)
    }

    /// Something of the guest fills, and will be full soon.
    pub const fn is_filling(&self) -> bool {
        self.filling
    }

    fn look_ahead(&mut self) {
        self.filling = self.disks.is_filling() || self.memory_ahead().is_some();
    }

    /// When memory will be gone.
    fn memory_ahead(&self) -> Option<Forecast> {
        self.fills.as_ref().and_then(|fills| fills.memory.forecast())
    }

    /// It answers, and says that there is room on its disks.
    pub fn has_room(&self, lens: &Lens) -> bool {
        self.disks.have_room(lens) && self.is_alive(lens)
    }

    /// When it last said that its disks have plenty of room, if that is its last word.
    pub fn room_seen(&self) -> Option<Timestamp> {
        self.disks.room_seen()
    }

    /// It answers.
    pub fn is_alive(&self, lens: &Lens) -> bool {
        self.pulse.is_alive(lens)
    }

    /// It has answered since the VM was started or reset.
    pub const fn was_heard(&self) -> bool {
        self.pulse.answered().is_some()
    }

    /// `damaged`: since when the kernel has called a file system damaged.
    pub fn speak(&self, lens: &Lens, damaged: Option<Timestamp>, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, strength, text| {
            say.push(Evidence { kind, app: None, since, at, strength, text, quote: None });
        };
        if self.pulse.is_alive(lens) {
            let at = self.pulse.answered().unwrap_or(lens.now);
            push(Kind::AgentAnswers, at, at, FULL, format!("agent answered {} ago", lasted(lens, at)));
        } else if let Some((since, at, strength)) = self.pulse.silence(lens, lens.hang_after) {
            let strength = tells_late(strength);
            let (kind, what) = match self.port {
                Some(AgentPort::Closed) => (Kind::AgentAway, "agent is away"),
                _ => (Kind::AgentSilent, "agent silent"),
            };
            push(kind, since, at, strength, format!("{what} {}{}", lasted(lens, since), self.pulse.usual()));
        }
        self.disks.speak(lens, damaged, say);
        self.speak_memory(lens, say);
    }

    fn speak_memory(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let mut push = |kind, text: String, at| {
            say.push(Evidence {
                kind,
                app: None,
                since: at,
                at: lens.now,
                strength: FULL,
                text,
                quote: None,
            });
        };
        if let Some((available, total, at)) =
            self.memory.filter(|(_, _, at)| lens.now.since(*at) <= FACT_KEEPS)
        {
            let left = || format!("{} of {} MiB of guest memory left", available >> 20, total >> 20);
            match (memory_left(available, total), self.memory_ahead()) {
                (Some(Kind::MemoryLow), _) => push(Kind::MemoryLow, left(), at),
                (_, Some(forecast)) => {
                    let text = format!("the guest's memory will be gone {}", forecast.text());
                    push(Kind::MemoryFilling, text, at);
                }
                // Memory can be gone in a moment: of a guest that is silent now it says nothing that it had plenty.
                (Some(kind), None) if self.is_alive(lens) => push(kind, left(), at),
                _ => {}
            }
        }
    }
}

/// An agent is a small program in a busy guest: its silence says little until it has lasted.
fn tells_late(strength: u16) -> u16 {
    let squared = u32::from(strength) * u32::from(strength) / u32::from(FULL);
    u16::try_from(squared).unwrap_or(FULL)
}

/// What is said of so much memory: so little is left that a kernel begins to kill, or a quarter and more.
pub(super) const fn memory_left(available: u64, total: u64) -> Option<Kind> {
    if available.saturating_mul(1_000) < total.saturating_mul(LOW_BELOW) {
        Some(Kind::MemoryLow)
    } else if total > 0 && available >= total.div_ceil(4) {
        Some(Kind::MemoryFine)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const TOTAL: u64 = 512 * MIB;

    fn lens(now: Timestamp) -> Lens {
        let (fresh, hang_after) = (Duration::from_secs(3), Duration::from_secs(3));
        Lens { now, fresh, hang_after, trust_silence: true, patience: 1, booting: false, excused: false }
    }

    /// What is said of the guest's memory after it told this much of it every ten seconds.
    fn told_of(available: impl Fn(u64) -> u64, times: u64) -> Vec<(Kind, String)> {
        let mut view = AgentView::default();
        let at = |n: u64| Timestamp::from_secs(100 + n * 10);
        for n in 0..times {
            view.observe(at(n), &AgentSign::Answered { latency: Duration::from_millis(1) });
            view.observe(at(n), &AgentSign::Memory { available: available(n), total: TOTAL });
        }
        let mut said = Vec::new();
        view.speak_memory(&lens(at(times - 1)), &mut said);
        said.into_iter().map(|evidence| (evidence.kind, evidence.text)).collect()
    }

    #[test]
    fn memory_that_goes_steadily_is_told_with_the_time_that_is_left_and_its_interval() {
        let told = told_of(|n| 300 * MIB - n * 4 * MIB, 40); // 144 MiB are left, and four go in ten seconds
        let text = "the guest's memory will be gone in about 6m 00s (6m 00s to 6m 00s)";
        assert_eq!(told, [(Kind::MemoryFilling, text.to_owned())]);
    }

    #[test]
    fn memory_that_breathes_or_stands_is_not_told_and_none_left_is_told_as_that() {
        assert_eq!(told_of(|n| 60 * MIB + n % 7 * 10 * MIB, 40), []);
        assert_eq!(told_of(|_| 100 * MIB, 40), []);
        let low = told_of(|_| 4 * MIB, 40);
        assert!(matches!(&low[..], [(Kind::MemoryLow, _)]), "{low:?}");
    }

    #[test]
    fn plenty_of_memory_is_told_from_a_quarter_on() {
        let plenty = told_of(|_| 128 * MIB, 40);
        assert_eq!(plenty, [(Kind::MemoryFine, "128 of 512 MiB of guest memory left".to_owned())]);
        assert_eq!(told_of(|_| 128 * MIB - 1, 40), []);
    }

    #[test]
    fn of_a_guest_that_is_silent_now_it_says_nothing_that_it_had_plenty() {
        let (mut view, mut said) = (AgentView::default(), Vec::new());
        view.observe(Timestamp::from_secs(100), &AgentSign::Answered { latency: Duration::from_millis(1) });
        view.observe(Timestamp::from_secs(100), &AgentSign::Memory { available: TOTAL, total: TOTAL });
        view.speak_memory(&lens(Timestamp::from_secs(110)), &mut said);
        assert_eq!(said, []);
    }
}
