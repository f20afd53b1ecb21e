//! The hypervisor's answers and events, and whether the VM's disk moves.

use super::agent::memory_left;
use super::pulse::Pulse;
use super::{Evidence, FULL, Kind, Lens, lasted};
use crate::signal::{Counters, HypervisorSign, NumberSign, RunState};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A control socket that has been silent for so long is not merely slow. A process that was stopped shows it
/// sooner, through its own channel.
const SILENT_FULL: Duration = Duration::from_secs(8);
/// A disk that has not moved for so long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// The virtual watchdog's word loses half its weight in this time: the guest may have rebooted since.
const WATCHDOG_HALF_LIFE: Duration = Duration::from_secs(20);
/// Resets by the guest that still count.
const RESETS_KEPT: usize = 8;
/// A machine that is reset pulses its reset line several times: events this close are one reset.
const ONE_RESET: Duration = Duration::from_secs(3);
/// The next reset of a loop comes about one turn after the last: this much later at most, and we hear of it at once.
const RESET_LATE: Duration = Duration::from_millis(500);
/// So many resets without a healthy moment between make a boot loop.
const LOOP_RESETS: usize = 3;
/// What is unusual about a number is told for so long.
const UNUSUAL_KEEPS: Duration = Duration::from_secs(60);
/// So surprising, in decibans, is worth its full weight.
const SURPRISE_FULL: u16 = 60;

/// What is remembered of the hypervisor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HypervisorView {
    pulse: Pulse,
    state: Option<(RunState, Timestamp, Timestamp)>, // since, last seen
    panicked: Option<Timestamp>,
    watchdog: Option<Timestamp>,
    no_space: bool,
    counters: Option<(Counters, Timestamp)>,
    moved: Option<Timestamp>,
    still_since: Option<Timestamp>,
    resets: VecDeque<Timestamp>,
    reset_at: Option<Timestamp>, // the last that counted
    #[serde(default)]
    damaged: Option<Box<(Timestamp, String)>>,
    #[serde(default)]
    unusual: Option<Box<(Timestamp, NumberSign)>>,
}

impl HypervisorView {
    pub fn observe(&mut self, at: Timestamp, sign: &HypervisorSign) {
        match sign {
            HypervisorSign::Answered { state, .. } => {
                self.pulse.answer(at);
                self.enter(at, *state);
            }
            HypervisorSign::NoAnswer { .. } => self.pulse.fail(at),
            HypervisorSign::State(state) => self.enter(at, *state),
            HypervisorSign::Panicked => self.panicked = Some(at),
            HypervisorSign::WatchdogFired => self.watchdog = Some(at),
            HypervisorSign::ImageCorrupt { device, text } => {
                self.damaged.get_or_insert_with(|| Box::new((at, format!("{device}: {text}"))));
            }
            HypervisorSign::IoError { no_space, .. } => self.no_space = *no_space,
            HypervisorSign::Reset { by_guest } => self.reset(at, *by_guest),
            HypervisorSign::Shutdown { .. } => {}
            HypervisorSign::Counters(counters) => self.count(at, *counters),
        }
    }

    /// A number of the VM is not as usual, or is so again.
    pub fn observe_number(&mut self, at: Timestamp, sign: &NumberSign) {
        self.unusual = (sign.surprise > 0).then(|| Box::new((at, sign.clone())));
    }

    /// Since when somebody has it paused.
    pub fn paused_since(&self) -> Option<Timestamp> {
        self.state.filter(|(state, ..)| *state == RunState::Paused).map(|(_, since, _)| since)
    }

    fn enter(&mut self, at: Timestamp, state: RunState) {
        if self.paused_since().is_some() {
            self.still_since = self.still_since.map(|_| at); // nobody wrote anything while it stood still
        }
        let since = self.state.filter(|(before, ..)| *before == state).map_or(at, |(_, since, _)| since);
        self.state = Some((state, since, at));
        if state == RunState::Running {
            self.panicked = None;
        }
    }

    fn reset(&mut self, at: Timestamp, by_guest: bool) {
        self.panicked = None;
        self.watchdog = None;
        self.moved = Some(at);
        if self.reset_at.is_some_and(|counted| at.since(counted) < ONE_RESET) {
            return; // of the same reset; the time runs from the one that counted, or a fast loop would never count
        }
        self.reset_at = Some(at);
        if by_guest {
            self.resets.push_back(at);
            if self.resets.len() > RESETS_KEPT {
                self.resets.pop_front();
            }
        }
    }

    /// What the devices have done, as last told.
    pub fn counters(&self) -> Option<Counters> {
        self.counters.map(|(counters, _)| counters)
    }

    fn count(&mut self, at: Timestamp, counters: Counters) {
        let moves = |old: &Counters| (old.reads, old.writes) != (counters.reads, counters.writes);
        match &self.counters {
            Some((old, _)) if !moves(old) => {
                self.still_since.get_or_insert(at);
            }
            _ => {
                self.moved = Some(at);
                self.still_since = None;
            }
        }
        self.counters = Some((counters, at));
    }

    /// The observer slept for so long.
    pub fn forgive(&mut self, slept: Duration) {
        self.pulse.forgive(slept);
        self.still_since = self.still_since.map(|at| at + slept);
    }

    /// The guest was healthy: earlier resets are no loop.
    pub fn settled(&mut self) {
        self.resets.clear();
        self.watchdog = None;
    }

    /// The run state last heard of.
    pub fn state(&self) -> Option<RunState> {
        self.state.map(|(state, ..)| state)
    }

    /// The last failed disk request was for want of space on the host.
    pub const fn no_space(&self) -> bool {
        self.no_space
    }

    /// It has been silent for more than one question.
    pub const fn was_silent(&self) -> bool {
        self.pulse.failures() >= 2
    }

    /// It was asked and did not answer.
    pub fn is_silent(&self, lens: &Lens) -> bool {
        self.pulse.failing(lens).is_some()
    }

    /// It answers.
    pub fn is_alive(&self, lens: &Lens) -> bool {
        self.pulse.is_alive(lens)
    }

    pub fn speak(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, strength, text| {
            say.push(Evidence { kind, app: None, since, at, strength, text, quote: None });
        };
        if let Some((since, at, strength)) = self.pulse.silence(lens, SILENT_FULL) {
            let text = format!("hypervisor silent {}{}", lasted(lens, since), self.pulse.usual());
            push(Kind::HypervisorSilent, since, at, strength, text);
        }
        if let Some((state, since, seen)) = self.state {
            self.speak_state(lens, state, (since, seen), &mut push);
        }
        if let Some(at) = self.panicked {
            push(Kind::PanicReported, at, lens.now, FULL, "the guest kernel reported its panic".into());
        }
        if let Some(at) = self.watchdog.filter(|_| lens.hears_silence()) {
            let text = format!("the guest's watchdog ran out {} ago", lasted(lens, at));
            push(Kind::WatchdogFired, at, lens.now, lens.aged(at, WATCHDOG_HALF_LIFE), text);
        }
        if self.resets.len() >= LOOP_RESETS && self.loops_on(lens) {
            let since = self.resets.front().copied().unwrap_or(lens.now);
            let text =
                format!("the guest reset itself {} times in {}", self.resets.len(), lasted(lens, since));
            push(Kind::ResetsAgain, since, lens.now, FULL, text);
        }
        if let Some((at, text)) = self.damaged.as_deref() {
            push(
                Kind::ImageCorrupt,
                *at,
                lens.now,
                FULL,
                format!("the hypervisor found a damaged image, {text}"),
            );
        }
        if let Some((at, sign)) =
            self.unusual.as_deref().filter(|(at, _)| lens.now.since(*at) <= UNUSUAL_KEEPS)
        {
            let strength = sign.surprise.min(SURPRISE_FULL) * FULL / SURPRISE_FULL;
            push(Kind::NumbersUnusual, *at, lens.now, strength, sign.text.clone());
        }
        self.speak_disk(lens, &mut push);
    }

    /// The next reset is not overdue: a guest that has stopped resetting itself is in no loop any more.
    fn loops_on(&self, lens: &Lens) -> bool {
        let (Some(first), Some(last)) = (self.resets.front(), self.resets.back()) else { return false };
        let turns = u32::try_from(self.resets.len() - 1).unwrap_or(1).max(1);
        let turn = last.since(*first) / turns;
        lens.now.since(*last) <= turn + turn / 8 + RESET_LATE
    }

    fn speak_state(
        &self,
        lens: &Lens,
        state: RunState,
        (since, seen): (Timestamp, Timestamp),
        push: &mut impl FnMut(Kind, Timestamp, Timestamp, u16, String),
    ) {
        let at = self.pulse.answered().unwrap_or(since).max(since);
        match state {
            RunState::Running if self.pulse.is_alive(lens) => {
                push(Kind::HypervisorAnswers, since, at, FULL, "hypervisor answers: running".into());
            }
            RunState::GuestPanicked => {
                push(Kind::PanicReported, since, lens.now, FULL, "stopped after a guest panic".into());
            }
            RunState::IoError => {
                let why = if self.no_space { ": no space on the host" } else { "" };
                let text = format!("paused for a failed disk request for {}{why}", lasted(lens, since));
                push(Kind::PausedIo, since, seen, FULL, text);
            }
            RunState::InternalError => {
                push(Kind::InternalError, since, lens.now, FULL, "hypervisor: internal error".into());
            }
            RunState::Watchdog => {
                push(Kind::WatchdogFired, since, lens.now, FULL, "stopped by the guest's watchdog".into());
            }
            RunState::Running
            | RunState::Prelaunch
            | RunState::Paused
            | RunState::Shutdown
            | RunState::Moving
            | RunState::Suspended
            | RunState::Other => {}
        }
    }

    /// What the guest's balloon driver says of its memory: the guest's own word, and so of its agent's channel. That there is
    /// plenty is not told: it is the last word of a driver that may have stopped since.
    pub fn speak_memory(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let Some((counters, at)) = self.counters.filter(|(_, at)| lens.is_fresh(*at)) else { return };
        let (Some(available), Some(total)) = (counters.memory_available, counters.memory_total) else {
            return;
        };
        let Some(kind @ Kind::MemoryLow) = memory_left(available, total) else { return };
        let text =
            format!("{} of {} MiB of guest memory left, says its balloon", available >> 20, total >> 20);
        say.push(Evidence { kind, app: None, since: at, at, strength: FULL, text, quote: None });
    }

    fn speak_disk(&self, lens: &Lens, push: &mut impl FnMut(Kind, Timestamp, Timestamp, u16, String)) {
        let Some((_, at)) = self.counters.filter(|(_, at)| lens.is_fresh(*at)) else { return };
        match self.still_since {
            Some(since) if at.since(since) >= IDLE_AFTER => {
                push(Kind::DiskIdle, since, at, FULL, format!("disk idle for {}", lasted(lens, since)));
            }
            None => push(Kind::DiskBusy, self.moved.unwrap_or(at), at, FULL, "disk moves".into()),
            Some(_) => {}
        }
    }
}
