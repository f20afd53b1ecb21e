//! I21 when all faults are over: every VM runs and is well, is held with a reason, or is off because a person or a policy
//! wants that.

use crate::checker::Checker;
use crate::world::World;
use holdfast_core::engine::{Desired, Engine, VmState};
use holdfast_core::incident::Phase;
use holdfast_core::policy::Mode;
use holdfast_core::recover::Power;
use holdfast_core::signal::RunState;
use holdfast_core::subject::VmName;

impl Checker {
    /// All faults are over and the time to converge is, too (I21).
    pub(crate) fn converged(&mut self, engine: &Engine, world: &World) {
        let now = world.now;
        for machine in &world.machines {
            let vm = &machine.setup.name;
            let (Some(status), Some(state)) = (engine.status(vm, now), engine.vm(vm)) else { continue };
            let held = state
                .open_incidents()
                .filter_map(|id| engine.incident(id))
                .any(|incident| matches!(incident.phase, Phase::Held(_)));
            let settled = match status.state.as_str() {
                "running" => !machine.is_ill() || machine.is_unseen(),
                "held" => held,
                "stopped" => {
                    let told_not_to = |state: &VmState| {
                        let off = matches!(state.power, Power::Off(_)) && state.policy.mode == Mode::Observe;
                        state.in_maintenance() || off || state.desired != Desired::Running
                    };
                    // Or it needs another that is told not to run, or is held, and says so.
                    let held = |state: &VmState| {
                        let mut open = state.open_incidents().filter_map(|id| engine.incident(id));
                        open.any(|incident| matches!(incident.phase, Phase::Held(_)))
                    };
                    let needed = |vm: &VmName| engine.vm(vm).is_some_and(|s| told_not_to(s) || held(s));
                    let waits = state.waits_for.is_some() && state.policy.needs.iter().any(needed);
                    machine.process.is_none() && (told_not_to(state) || waits)
                }
                // Somebody paused it, through us or not, and that is said: nobody but a person pauses.
                "paused" => machine.hypervisor.state == RunState::Paused && status.note.is_some(),
                _ => false,
            };
            // What no healing takes back is not over: only a new process ends that, after a reset that did not.
            let settled = settled || (machine.guest.wedged && state.open_incidents().next().is_some());
            if !settled {
                let ill = if machine.is_ill() { "ill" } else { "well" };
                self.broken("I21", now, format!("{vm} is called {} and is {ill}: {status:?}", status.state));
            }
            let leased = world.leases.of(vm).map(|lease| lease.incarnation());
            if status.state == "running" && machine.incarnation() != leased {
                self.broken("I2", now, format!("{vm} runs without its lease"));
            }
        }
    }
}
