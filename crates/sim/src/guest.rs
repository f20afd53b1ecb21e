//! What runs inside a VM: an operating system that boots, an agent, and applications.
//!
//! This is the truth; what Holdfast gets to see of it is made in `sense.rs`.

use crate::faults::{AgentFault, AppFault, GuestFault};
use crate::story::VmSetup;
use holdfast_core::subject::AppName;
use holdfast_core::time::Timestamp;
use holdfast_core::written::Written;
use std::time::Duration;

/// How far a boot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Firmware, or a kernel that has not printed yet.
    Firmware,
    /// The kernel prints.
    Kernel,
    /// Where a boot that fails does so.
    Middle,
    /// The network is up; nobody listens.
    Network,
    /// The agent is there.
    Agent,
    /// The applications are starting.
    Starting,
    /// All is up.
    Up,
}

impl Stage {
    /// The stages after power-on, and when they come in parts of a hundred of the whole boot.
    pub(crate) const PLAN: [(Self, u32); 6] = [
        (Self::Kernel, 5),
        (Self::Middle, 40),
        (Self::Network, 60),
        (Self::Agent, 75),
        (Self::Starting, 85),
        (Self::Up, 100),
    ];
}

/// Whether the operating system lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Without power.
    Off,
    /// Booting.
    Booting(Stage),
    /// Up.
    Up,
    /// Nothing inside answers.
    Hung {
        /// The disk moves all the same.
        working: bool,
    },
    /// The kernel stopped itself.
    Panicked,
}

/// How one application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppState {
    Serving,
    Starting,
    Dead,
    Hung,
    Wrong,
    Exhausted,
}

/// One application.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) name: AppName,
    pub(crate) state: AppState,
    /// Counts its changes, so that an old timer does not touch a new state.
    pub(crate) turn: u64,
    pub(crate) denies: bool,
    pub(crate) slow: bool,
    pub(crate) unprobed: bool,
    /// Nobody gets through to it.
    pub(crate) cut_off: bool,
    /// Its numbers show that it is far slower than ever.
    pub(crate) crawls: bool,
    /// No restart of it helps.
    pub(crate) broken: bool,
    /// No reboot helps either.
    pub(crate) ruined: bool,
    /// What is on its disk is wrong, and so are its answers.
    pub(crate) spoiled: bool,
    /// How much clients have written, as it counts itself.
    pub(crate) written: Written,
}

impl App {
    pub(crate) fn enter(&mut self, state: AppState) {
        self.state = state;
        self.turn += 1;
    }

    /// How it comes up when something starts it.
    pub(crate) const fn comes_up(&self) -> AppState {
        match () {
            () if self.broken || self.ruined => AppState::Dead,
            () if self.spoiled => AppState::Wrong,
            () => AppState::Serving,
        }
    }

    /// What a person would call its state: serving, on the way, or failed.
    pub(crate) const fn is_ill(&self) -> bool {
        !matches!(self.state, AppState::Serving | AppState::Starting)
            || self.broken
            || self.ruined
            || self.spoiled
    }

    pub(crate) fn strike(&mut self, fault: AppFault) {
        match fault {
            AppFault::Dies => self.enter(AppState::Dead),
            AppFault::Hangs => self.enter(AppState::Hung),
            AppFault::Wrong => self.enter(AppState::Wrong),
            AppFault::Spoiled => {
                self.spoiled = true;
                self.enter(AppState::Wrong);
            }
            AppFault::Exhausted => self.enter(AppState::Exhausted),
            AppFault::Starts => self.enter(AppState::Starting),
            AppFault::Denies => self.denies = true,
            AppFault::Slow => self.slow = true,
            AppFault::CannotBeProbed => self.unprobed = true,
            AppFault::CutOff => self.cut_off = true,
            AppFault::Crawls => self.crawls = true,
            AppFault::LogsExhausted
            | AppFault::LogsDamage
            | AppFault::LogsReplication
            | AppFault::LogsLocks
            | AppFault::LogsPanic
            | AppFault::LogsNews => {} // only words
            AppFault::Broken | AppFault::Ruined => {
                self.broken = true;
                self.ruined = fault == AppFault::Ruined;
                self.enter(AppState::Dead);
            }
            AppFault::Works => {
                (self.denies, self.slow, self.unprobed, self.crawls) = (false, false, false, false);
                (self.broken, self.ruined, self.spoiled, self.cut_off) = (false, false, false, false);
                self.enter(AppState::Serving);
            }
        }
    }
}

/// The inside of a VM.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) life: Life,
    /// Counts its boots, so that an old timer does not touch a new boot.
    pub(crate) boots: u64,
    pub(crate) boot_fault: Option<GuestFault>,
    /// When its kernel last began to boot.
    pub(crate) booted: Timestamp,
    /// When a fault last had it reset itself.
    pub(crate) reset_itself: Option<Timestamp>,
    /// Only a new process ends its hang.
    pub(crate) wedged: bool,
    pub(crate) agent: AgentFault,
    /// The agent has come up in this boot.
    pub(crate) has_agent: bool,
    pub(crate) busy: bool,
    /// It has said something untrue: what it says next to that is its own doing (I17).
    pub(crate) misleads: bool,
    /// Its kernel has killed for want of memory in this boot: one that is slow after that may be thrashing.
    pub(crate) starved: bool,
    pub(crate) writes_nothing: bool,
    pub(crate) frozen: bool,
    pub(crate) net_lost: bool,
    pub(crate) read_only: bool,
    pub(crate) disk_full: bool,
    /// Its file system is damaged, and says that it is full.
    pub(crate) damaged: bool,
    /// Since when its disk fills.
    pub(crate) fills: Option<Timestamp>,
    /// Since when the disk of a tablespace fills; it is mounted as long as that.
    pub(crate) fills_tablespace: Option<Timestamp>,
    pub(crate) low_memory: bool,
    pub(crate) apps: Vec<App>,
}

impl Guest {
    /// A guest without power.
    pub(crate) fn new(setup: &VmSetup) -> Self {
        let app = |name: &AppName| App {
            name: name.clone(),
            state: AppState::Dead,
            turn: 0,
            denies: false,
            slow: false,
            unprobed: false,
            cut_off: false,
            crawls: false,
            broken: false,
            ruined: false,
            spoiled: false,
            written: Written::default(),
        };
        Self {
            life: Life::Off,
            boots: 0,
            booted: Timestamp::ZERO,
            boot_fault: None,
            reset_itself: None,
            wedged: false,
            agent: AgentFault::Answers,
            has_agent: false,
            busy: false,
            misleads: false,
            starved: false,
            writes_nothing: false,
            frozen: false,
            net_lost: false,
            read_only: false,
            disk_full: false,
            damaged: false,
            fills: None,
            fills_tablespace: None,
            low_memory: false,
            apps: setup.policy.apps.keys().map(app).collect(),
        }
    }

    /// Power-on or reset: what was only in memory is gone. A wedged machine does not even notice a reset.
    pub(crate) fn boot(&mut self) {
        self.boots += 1;
        if self.wedged {
            return;
        }
        self.life = Life::Booting(Stage::Firmware);
        self.agent = AgentFault::Answers;
        self.has_agent = false;
        (self.busy, self.frozen, self.net_lost) = (false, false, false);
        (self.misleads, self.starved) = (false, false);
        (self.read_only, self.low_memory) = (false, false);
        for app in &mut self.apps {
            app.broken &= app.ruined;
            app.enter(AppState::Dead);
        }
    }

    /// It is up at once, as a VM that has run for long.
    pub(crate) fn be_up(&mut self) {
        self.boot();
        self.has_agent = true;
        self.life = Life::Up;
        self.apps.iter_mut().for_each(|app| app.enter(AppState::Serving));
    }

    /// The power is gone.
    pub(crate) fn lose_power(&mut self) {
        self.life = Life::Off;
        self.boots += 1;
        self.wedged = false;
        self.apps.iter_mut().for_each(|app| app.enter(AppState::Dead));
    }

    /// How long this boot takes.
    pub(crate) fn boot_time(&self, setup: &VmSetup) -> Duration {
        let slowly = self.boot_fault == Some(GuestFault::BootsSlowly);
        setup.boots_in * if slowly { 4 } else { 1 }
    }

    /// Its applications come up, as far as they can.
    pub(crate) fn arrive(&mut self) {
        self.life = Life::Up;
        let dead = self.read_only;
        for app in &mut self.apps {
            let state = if dead { AppState::Dead } else { app.comes_up() };
            app.enter(state);
        }
    }

    /// Its disk moves.
    pub(crate) const fn is_writing(&self) -> bool {
        match self.life {
            Life::Booting(_) | Life::Hung { working: true } => true,
            Life::Up => !self.writes_nothing && !self.frozen,
            Life::Off | Life::Hung { working: false } | Life::Panicked => false,
        }
    }

    /// Something in it fills.
    pub(crate) const fn is_filling(&self) -> bool {
        self.fills.is_some() || self.fills_tablespace.is_some()
    }

    /// Nobody inside answers in time, though it is well.
    pub(crate) fn is_slow(&self) -> bool {
        self.busy || self.frozen || self.apps.iter().any(|app| app.slow)
    }

    /// Something is wrong inside that no patience ends. A slow, busy, frozen or booting guest is well: unless
    /// it gives other signs of a hang, or is frozen with nobody inside to say so in time.
    pub(crate) fn is_ill(&self, setup: &VmSetup) -> bool {
        let overdue = self.boot_time(setup) > setup.policy.boot_limit; // that is what the limit is for
        let failing_boot = overdue || self.boot_fault.is_some_and(|fault| fault != GuestFault::BootsSlowly);
        match self.life {
            Life::Booting(_) => failing_boot || self.apps.iter().any(|app| app.ruined),
            Life::Up => {
                let starts = self.apps.iter().any(|app| app.state == AppState::Starting);
                let looks_hung = self.is_slow() && (self.misleads || self.writes_nothing || self.starved);
                let looks_hung = looks_hung || (starts && self.misleads);
                let stuck = self.frozen && (self.busy || self.agent != AgentFault::Answers);
                let defect = self.net_lost || self.read_only || self.seems_full() || self.low_memory;
                let defect = defect || looks_hung || stuck;
                defect || self.apps.iter().any(App::is_ill)
            }
            Life::Off | Life::Hung { .. } | Life::Panicked => true,
        }
    }

    /// Its file system says that no room is left.
    pub(crate) const fn seems_full(&self) -> bool {
        self.disk_full || self.damaged
    }

    /// The index of an application.
    pub(crate) fn app(&self, name: &AppName) -> Option<usize> {
        self.apps.iter().position(|app| app.name == *name)
    }
}
