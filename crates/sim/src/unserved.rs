//! I21 while faults last: users that nobody serves are never without an incident for longer than a boot may take
//! and a minute. What Holdfast cannot or must not see is left out: a VM that a person has taken in hand, announced
//! work, a daemon that does not run.

use crate::checker::Checker;
use crate::world::World;
use holdfast_core::engine::{Desired, Engine, VmState};
use holdfast_core::policy::Mode;
use holdfast_core::signal::RunState;
use holdfast_core::subject::VmName;
use holdfast_core::time::{Duration, Timestamp};
use std::collections::BTreeMap;

/// A boot that is overdue, and an outage that nobody can explain, are told within this.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// This is looked at every two seconds, and a VM is looked at every second.
const LOOKS: Duration = Duration::from_secs(4);
/// Deadlines are stretched by this while the host is under pressure.
const PATIENCE: u32 = 3;

/// Since when the users of each VM are not served, with nobody told.
pub(crate) type Unserved = BTreeMap<VmName, Timestamp>;

impl Checker {
    /// Looks at all VMs. `up`: the daemon runs, and has a journal that it can write.
    pub(crate) fn watch_users(&mut self, up: bool, engine: &Engine, world: &World) {
        let now = world.now;
        for (at, machine) in world.machines.iter().enumerate() {
            let name = &machine.setup.name;
            let Some(state) = engine.vm(name).filter(|state| up && ought_to_serve(state)) else {
                self.unserved.remove(name);
                continue;
            };
            let told = state.open_incidents().next().is_some() || state.waits_for.is_some();
            if told || world.serves(at) {
                self.unserved.remove(name);
                continue;
            }
            let since = *self.unserved.entry(name.clone()).or_insert(now);
            let patience = if world.host.pressed { PATIENCE } else { 1 };
            let bound = state.policy.boot_limit * patience + TOLD_WITHIN + LOOKS;
            if now.since(since) > bound {
                self.unserved.remove(name);
                let long = now.since(since);
                self.broken("I21", now, format!("{name} has served nobody for {long:?}, and nobody is told"));
            }
        }
    }
}

/// It is Holdfast's to look after just now.
fn ought_to_serve(state: &VmState) -> bool {
    let wanted = state.desired == Desired::Running && state.policy.mode == Mode::Armed;
    let paused = state.paused_by.is_some() || state.view.run_state() == Some(RunState::Paused);
    let by_hand = state.in_maintenance() || paused || state.isolated.is_some();
    wanted && !by_hand && state.works.is_empty()
}
