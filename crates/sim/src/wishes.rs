//! What persons ask for comes true and is no fault: of a VM that nothing was broken of, nor of its host or of Holdfast,
//! by anybody but persons who asked for it.
//!
//! - No incident is opened of it, so no recovery is begun and no try is spent, however soon after each other they ask, or if
//!   nobody asks for anything.
//! - The last accepted wish that says how it is to stand wins: two minutes later it runs and serves, is paused or is off, is called
//!   so, and stays so until the next wish.
//! - From the moment at which a stop was accepted no start of it is asked for.

use crate::checker::Checker;
use crate::faults::Happening;
use crate::guest::Life;
use crate::machine::Machine;
use crate::world::World;
use holdfast_core::action::{Action, Order, Wish};
use holdfast_core::engine::{Engine, Reaction};
use holdfast_core::signal::RunState;
use holdfast_core::subject::VmName;
use holdfast_core::time::{Duration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// A guest has a minute to shut down, a killed process takes seconds to end, and a boot a quarter of a minute.
const COMES_TRUE: Duration = Duration::from_secs(120);

/// How a VM is to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Runs,
    Paused,
    Off,
}

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Something befell the host or Holdfast itself.
    all_touched: bool,
    /// Something befell these.
    touched: BTreeSet<VmName>,
    /// How each was last told to stand, and when it was last told anything.
    last: BTreeMap<VmName, (Stand, Timestamp)>,
}

impl Wishes {
    /// Something befalls the host, or Holdfast: nothing is promised any more that others have to keep.
    pub(crate) const fn befall_all(&mut self) {
        self.all_touched = true;
    }

    /// Something happens. What befalls a VM, it may have after-effects of for the rest of the story.
    pub(crate) fn befall(&mut self, what: &Happening) {
        match what {
            Happening::Person(..) | Happening::WallClock(_) => {}
            Happening::Process(vm, _)
            | Happening::Hypervisor(vm, _)
            | Happening::Guest(vm, _)
            | Happening::Agent(vm, _)
            | Happening::App(vm, _, _)
            | Happening::Cable(vm, _)
            | Happening::Disk(vm, _)
            | Happening::Order(_, vm, _) => drop(self.touched.insert(vm.clone())),
            Happening::Host(_) | Happening::Daemon(_) | Happening::Reload(_) => self.befall_all(),
            Happening::Repair | Happening::RestartIll => self.befall_all(),
        }
    }

    fn is_untouched(&self, vm: &VmName) -> bool {
        !self.all_touched && !self.touched.contains(vm)
    }

    /// The last wish for it was a moment ago.
    pub(crate) fn are_fresh(&self, now: Timestamp, vm: &VmName) -> bool {
        self.last.get(vm).is_some_and(|(_, at)| now.since(*at) <= Duration::from_secs(5))
    }

    /// A wish was accepted.
    pub(crate) fn accepted(&mut self, now: Timestamp, vm: &VmName, wish: &Wish) {
        let stand = match wish {
            Wish::Start | Wish::Restart { .. } | Wish::Rewind(_) | Wish::Resume => Some(Stand::Runs),
            Wish::Pause => Some(Stand::Paused),
            Wish::Stop { .. } => Some(Stand::Off),
            Wish::MaintenanceOn { .. }
            | Wish::MaintenanceOff
            | Wish::Release
            | Wish::Approve { .. }
            | Wish::Announce { .. }
            | Wish::WorkDone(_)
            | Wish::GiveUp(_) => None,
        };
        let before = self.last.get(vm).map(|(stand, _)| *stand);
        if let Some(stand) = stand.or(before) {
            self.last.insert(vm.clone(), (stand, now));
        }
    }
}

impl Checker {
    /// The engine took a step.
    pub(crate) fn mind_wishes(&mut self, now: Timestamp, reaction: &Reaction, engine: &Engine) {
        for id in &reaction.changed {
            let Some(incident) = engine.incident(*id).filter(|incident| !incident.is_closed()) else {
                continue;
            };
            let Some(name) = incident.subject.vm().filter(|vm| self.wishes.is_untouched(vm)) else {
                continue;
            };
            if engine.vm(name).is_some_and(|vm| vm.open_incidents().any(|open| open == *id)) {
                let fault = incident.fault();
                self.broken("wish", now, format!("{fault} of {name}, of which nothing is broken"));
                self.wishes.befall_all(); // said once
            }
        }
    }

    /// The engine asks for an action.
    pub(crate) fn mind_starts(&mut self, now: Timestamp, action: &Action) {
        let vm = &action.vm;
        let off = self.wishes.last.get(vm).is_some_and(|(stand, _)| *stand == Stand::Off);
        if off && matches!(action.order, Order::Start { .. }) && self.wishes.is_untouched(vm) {
            self.broken("wish", now, format!("{vm} is started, and was told to stop"));
        }
    }

    /// Looks whether what was asked for has come true.
    pub(crate) fn watch_wishes(&mut self, engine: &Engine, world: &World) {
        let now = world.now;
        for (at, machine) in world.machines.iter().enumerate() {
            let vm = &machine.setup.name;
            let Some((stand, since)) = self.wishes.last.get(vm).copied() else { continue };
            if now.since(since) < COMES_TRUE || !self.wishes.is_untouched(vm) {
                continue;
            }
            let said = engine.status(vm, now).map(|status| status.state).unwrap_or_default();
            if !(stands(machine, stand) && (stand != Stand::Runs || world.serves(at)) && said == word(stand))
            {
                let runs = machine.process.is_some();
                let what = format!("{vm} was last told to be {}: called {said}, runs: {runs}", word(stand));
                self.broken("wish", now, what);
                self.wishes.befall_all();
            }
        }
    }
}

/// What it is called then.
const fn word(stand: Stand) -> &'static str {
    match stand {
        Stand::Runs => "running",
        Stand::Paused => "paused",
        Stand::Off => "stopped",
    }
}

fn stands(machine: &Machine, stand: Stand) -> bool {
    let state = machine.hypervisor.state;
    match stand {
        Stand::Runs => machine.executes() && machine.guest.life == Life::Up,
        Stand::Paused => machine.process_runs() && state == RunState::Paused,
        Stand::Off => machine.process.is_none(),
    }
}
