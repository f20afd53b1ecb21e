//! One VM on its host: process, hypervisor, disk, cable, and the driver's own durable record of it.

use crate::faults::Quirk;
use crate::guest::{Guest, Stage};
use crate::snapshots::Snapshots;
use crate::story::{FoundAs, VmSetup};
use holdfast_core::action::Operation;
use holdfast_core::lease::{Incarnation, Token};
use holdfast_core::signal::{ProcessState, RunState};
use holdfast_core::time::{Duration, Timestamp};
use std::collections::BTreeMap;

/// The VM's process on the host. While it exists it has the disk open for writing.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: ProcessState,
    /// A kill was sent; it ends when its memory is given back.
    pub(crate) dying: bool,
    pub(crate) since: Timestamp,
}

/// What the driver keeps on disk about a VM, and so still knows after a crash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RunRecord {
    /// The newest incarnation ever started.
    pub(crate) started: Incarnation,
    /// The newest token ever seen.
    pub(crate) token: Token,
    /// Its process.
    pub(crate) pid: u32,
    /// The boot of the host it was started under.
    pub(crate) boot: u32,
    /// The newest incarnation that was said to be dead: it will never be started any more.
    pub(crate) burned: Incarnation,
}

/// The hypervisor's side.
#[derive(Clone, Debug)]
pub(crate) struct Hypervisor {
    pub(crate) mute: bool,
    pub(crate) says_running: bool,
    pub(crate) refuses_start: bool,
    /// Since when what it boots from, besides its disk, is not there.
    pub(crate) no_kernel_since: Option<Timestamp>,
    pub(crate) state: RunState,
    pub(crate) writes: u64,
    /// Commands that wait until it reads its socket again.
    pub(crate) queued: Vec<Operation>,
}

/// What happens within this looks as if it happened at once: questions are a second apart.
const ONE_BREATH: Duration = Duration::from_secs(3);

/// What does not happen is noticed so much later than it would have happened.
const TOLD_LATE: Duration = Duration::from_secs(1);

/// One VM.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) setup: VmSetup,
    pub(crate) process: Option<Process>,
    pub(crate) record: RunRecord,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) guest: Guest,
    pub(crate) cable: bool,
    pub(crate) storage: bool,
    /// Another process has its image open for writing, wherever the VM itself has not.
    pub(crate) taken: bool,
    /// Its image is gone.
    pub(crate) deleted: bool,
    pub(crate) unkillable: bool,
    pub(crate) slow_death: bool,
    /// The end of its process is told late.
    pub(crate) unnoticed: bool,
    pub(crate) quirks: BTreeMap<String, Quirk>,
    /// Its snapshots, and what the next start goes on with.
    pub(crate) snapshots: Snapshots,
    /// When its hypervisor last went mute, and when something last befell its guest.
    pub(crate) muted_at: Option<Timestamp>,
    pub(crate) disturbed_at: Option<Timestamp>,
    /// When something was last wrong with it, in truth.
    pub(crate) ill_at: Option<Timestamp>,
}

impl Machine {
    pub(crate) fn new(setup: &VmSetup) -> Self {
        let state = RunState::Running;
        let mut machine = Self {
            setup: setup.clone(),
            process: None,
            record: RunRecord::default(),
            hypervisor: Hypervisor {
                mute: false,
                says_running: false,
                refuses_start: false,
                no_kernel_since: None,
                state,
                writes: 0,
                queued: Vec::new(),
            },
            guest: Guest::new(setup),
            cable: true,
            storage: true,
            taken: false,
            deleted: false,
            unkillable: false,
            slow_death: setup.large,
            unnoticed: false,
            quirks: BTreeMap::new(),
            snapshots: Snapshots::default(),
            muted_at: None,
            disturbed_at: None,
            ill_at: None,
        };
        if setup.found != FoundAs::Off {
            let (pid, incarnation) = (100, Incarnation(1));
            machine.process = Some(Process {
                pid,
                incarnation,
                state: ProcessState::Running,
                dying: false,
                since: Timestamp::ZERO,
            });
            machine.record = RunRecord { started: incarnation, pid, boot: 1, ..RunRecord::default() };
            machine.guest.be_up();
        }
        machine
    }

    /// The process exists and the host's kernel lets it run.
    pub(crate) fn process_runs(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.state == ProcessState::Running)
    }

    /// The guest's processors get time.
    pub(crate) fn executes(&self) -> bool {
        self.process_runs() && self.hypervisor.state == RunState::Running
    }

    /// Its control socket is read.
    pub(crate) fn hears(&self) -> bool {
        self.process_runs() && !self.hypervisor.mute
    }

    /// The incarnation whose process exists.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.process.as_ref().map(|process| process.incarnation)
    }

    /// Something is wrong with it, in truth, that no patience ends.
    pub(crate) fn is_ill(&self) -> bool {
        let state = self.hypervisor.state;
        !self.process_runs()
            || !matches!(state, RunState::Running | RunState::Paused)
            || !self.cable
            || !self.storage
            || (self.guest.frozen && !self.hears()) // and nobody can be told that it is only frozen
            || self.looks_hung()
            || self.guest.is_ill(&self.setup)
    }

    /// Its hypervisor went mute and something befell its guest in the same breath: nobody can tell that from a
    /// machine that hangs.
    fn looks_hung(&self) -> bool {
        let apart = |a: Timestamp, b: Timestamp| a.since(b).max(b.since(a));
        let (Some(mute), Some(guest)) = (self.muted_at, self.disturbed_at) else { return false };
        self.hypervisor.mute && apart(mute, guest) <= ONE_BREATH
    }

    /// It was ill at some time in the last so long.
    pub(crate) fn was_ill(&self, now: Timestamp, within: Duration) -> bool {
        self.is_ill() || self.ill_at.is_some_and(|at| now.since(at) <= within) || self.may_reset_itself(now)
    }

    /// It has reset itself in each of its last boots, and this one has not come any further than they did.
    fn may_reset_itself(&self, now: Timestamp) -> bool {
        let turn = self.guest.boot_time(&self.setup) * Stage::PLAN[1].1 / 100 + TOLD_LATE;
        self.guest.reset_itself.is_some_and(|at| now.since(at) <= turn)
    }

    /// At most one voice speaks of what goes on inside, so nobody can be sure of it.
    pub(crate) fn is_unseen(&self) -> bool {
        let bitten = self.hypervisor.state == RunState::Watchdog;
        self.guest.apps.is_empty() && (self.executes() || bitten)
    }

    /// Its users are served, and nothing at all is wrong with it.
    pub(crate) fn is_well(&self) -> bool {
        let h = &self.hypervisor;
        let starts = !h.refuses_start && h.no_kernel_since.is_none() && !self.taken;
        let watched = !h.mute && !h.says_running && starts;
        let steady = !self.guest.busy && !self.guest.frozen && self.guest.life == crate::guest::Life::Up;
        !self.is_ill() && self.executes() && watched && steady && self.quirks.is_empty()
    }
}
