//! The guest agent: whether it answers, and what it says of the guest as a whole.
//!
//! A guest can lie. What its agent says may make Holdfast doubt the guest, never trust it more than the
//! other channels allow (I17).

use super::forecast::{Filling, Forecast};
use super::pulse::Pulse;
use super::{Evidence, FULL, Kind, Lens, lasted};
use crate::signal::{AgentPort, AgentSign};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// A file system with less than this share left, in parts of a thousand, is full.
const FULL_BELOW: u64 = 10;
/// With this share left there is plenty of room: what failed for want of it would be done by now.
const ROOMY_FROM: u64 = 50;
/// A guest with less than this share of memory left, in parts of a thousand, is short of it.
const LOW_BELOW: u64 = 40;
/// Facts are asked for less often than signs of life: this long they stay true.
const FACT_KEEPS: Duration = Duration::from_secs(30);
/// A frozen guest is believed for so long after it was last seen frozen.
const FROZEN_KEEPS: Duration = Duration::from_secs(8);

/// What is remembered of the agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentView {
    pulse: Pulse,
    port: Option<AgentPort>,
    frozen: Option<(bool, Timestamp)>,
    disk: Option<Disk>,
    memory: Option<(u64, u64, Timestamp)>,
    /// Something fills, and will be full soon.
    #[serde(default)]
    filling: bool,
    #[serde(default)]
    fills: Option<Box<Fills>>, // apart: looked at only when a fact comes
}

/// What fills.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Fills {
    disk: Filling,
    memory: Filling,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Disk {
    mount: String,
    used: u64,
    total: u64,
    read_only: bool,
    since: Timestamp,
    at: Timestamp,
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
            AgentSign::FileSystem { mount, used, total, read_only } => {
                let same =
                    self.disk.as_ref().is_some_and(|d| is_full(d.used, d.total) == is_full(*used, *total));
                let since = self.disk.as_ref().filter(|_| same).map_or(at, |d| d.since);
                let mount = mount.clone();
                self.fill(|fills| fills.disk.observe(at, *used, *total));
                self.disk =
                    Some(Disk { mount, used: *used, total: *total, read_only: *read_only, since, at });
            }
            AgentSign::Memory { available, total } => {
                self.fill(|fills| fills.memory.observe(at, total.saturating_sub(*available), *total));
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

    fn fill(&mut self, observe: impl FnOnce(&mut Fills)) {
        let fills = self.fills.get_or_insert_default();
        observe(fills);
        self.filling = fills.disk.forecast().is_some() || fills.memory.forecast().is_some();
    }

    fn coming(&self, what: impl Fn(&Fills) -> &Filling) -> Option<Forecast> {
        self.fills.as_ref().and_then(|fills| what(fills).forecast())
    }

    /// It answers, and says that there is room on its disks.
    pub fn has_room(&self, lens: &Lens) -> bool {
        let room =
            self.disk.as_ref().is_some_and(|disk| lens.is_fresh(disk.at) && !is_full(disk.used, disk.total));
        room && self.is_alive(lens)
    }

    /// When it last said that its fullest disk has plenty of room, if that is its last word.
    pub fn room_seen(&self) -> Option<Timestamp> {
        let roomy = |disk: &&Disk| left(disk.used, disk.total) >= ROOMY_FROM && !disk.read_only;
        self.disk.as_ref().filter(roomy).map(|disk| disk.at)
    }

    /// It answers.
    pub fn is_alive(&self, lens: &Lens) -> bool {
        self.pulse.is_alive(lens)
    }

    /// It has answered since the VM was started or reset.
    pub const fn was_heard(&self) -> bool {
        self.pulse.answered().is_some()
    }

    pub fn speak(&self, lens: &Lens, say: &mut Vec<Evidence>) {
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
        self.speak_facts(lens, &mut push);
    }

    fn speak_facts(&self, lens: &Lens, push: &mut impl FnMut(Kind, Timestamp, Timestamp, u16, String)) {
        let keeps = |at: Timestamp| lens.now.since(at) <= FACT_KEEPS;
        if let Some(disk) = self.disk.as_ref().filter(|d| keeps(d.at)) {
            if is_full(disk.used, disk.total) {
                let percent = disk.used.saturating_mul(100) / disk.total.max(1);
                let text = format!("file system {} is full ({percent} %)", disk.mount);
                push(Kind::FsFull, disk.since, lens.now, FULL, text);
            }
            if disk.read_only {
                let text = format!("file system {} refuses writes", disk.mount);
                push(Kind::FsReadOnly, disk.since, lens.now, FULL, text);
            } else if let Some(forecast) =
                self.coming(|fills| &fills.disk).filter(|_| !is_full(disk.used, disk.total))
            {
                let text = format!("file system {} will be full {}", disk.mount, forecast.text());
                push(Kind::FsFilling, disk.at, disk.at, FULL, text);
            } else if !is_full(disk.used, disk.total) {
                let text = format!("file system {} has room", disk.mount);
                push(Kind::FsFine, disk.at, disk.at, FULL, text);
            }
        }
        if let Some((available, total, at)) = self.memory.filter(|(_, _, at)| keeps(*at)) {
            if is_low(available, total) {
                let text = format!("{} of {} MiB of guest memory left", available >> 20, total >> 20);
                push(Kind::MemoryLow, at, lens.now, FULL, text);
            } else if let Some(forecast) = self.coming(|fills| &fills.memory) {
                let text = format!("the guest's memory will be gone {}", forecast.text());
                push(Kind::MemoryFilling, at, lens.now, FULL, text);
            }
        }
    }
}

/// An agent is a small program in a busy guest: its silence says little until it has lasted.
fn tells_late(strength: u16) -> u16 {
    let squared = u32::from(strength) * u32::from(strength) / u32::from(FULL);
    u16::try_from(squared).unwrap_or(FULL)
}

/// So little memory is left that a kernel begins to kill.
pub(super) const fn is_low(available: u64, total: u64) -> bool {
    available.saturating_mul(1_000) < total.saturating_mul(LOW_BELOW)
}

const fn is_full(used: u64, total: u64) -> bool {
    total > 0 && left(used, total) < FULL_BELOW
}

/// What is left, in parts of a thousand.
const fn left(used: u64, total: u64) -> u64 {
    let parts = total.saturating_sub(used) as u128 * 1_000;
    match parts.checked_div(total as u128) {
        Some(left) => left as u64, // at most a thousand
        None => 0,
    }
}
