//! The invariants of SAFETY.md, checked at each step against the truth of the world.
//!
//! The checker believes nothing that the engine says of itself where the world can be asked instead.

use crate::faults::AgentFault;
use crate::journal::{Restored, write};
use crate::machine::Machine;
use crate::snapshots::gives_up_in_need;
use crate::unserved::Unserved;
use crate::wishes::Wishes;
use crate::world::World;
use holdfast_core::action::{Action, ActionId, Command, Ended, Fact, Found, Operation, Order, Reason, Wish};
use holdfast_core::engine::{Desired, Engine, Reaction};
use holdfast_core::incident::Incident;
use holdfast_core::input::Input;
use holdfast_core::lease::{Incarnation, Lease, Token};
use holdfast_core::signal::{ProcessSign, Seen};
use holdfast_core::subject::VmName;
use holdfast_core::time::{Duration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, as in SAFETY.md; `replay` if a replay differed, `wish` if what a person asked for has not come true,
    /// or anything of a VM was taken for a fault of which nothing is broken.
    pub invariant: &'static str,
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {}: {}", self.invariant, self.at, self.what)
    }
}

/// Nobody starts a VM three times within this.
const A_MOMENT: Duration = Duration::from_secs(1);
/// Three periods, and the second that a failing question takes (T_FRESH).
const FRESH: Duration = Duration::from_secs(4);
/// A recovery begins when it is planned; its first order follows when evidence is kept and the lease taken.
const PREPARES: Duration = Duration::from_secs(8);
/// No back-off is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// STORM_N, STORM_PCT and STORM_W of I11.
const STORM: (usize, usize, Duration) = (3, 25, Duration::from_secs(60));

/// What the checker remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    pub(crate) violations: Vec<Violation>,
    /// Commands that were asked and not yet answered.
    pending: Option<Command>,
    /// In maintenance until then.
    maintained: BTreeMap<VmName, Timestamp>,
    /// Recoveries begun, per VM, since a person last interfered.
    recoveries: BTreeMap<VmName, VecDeque<Timestamp>>,
    /// The power of this VM was cut as the first half of a recovery.
    half_way: BTreeSet<VmName>,
    /// When a person last let go of the brake: for all that was wrong then (I11).
    released: Timestamp,
    /// Which VMs were acted on, and when last.
    acted: BTreeMap<VmName, Timestamp>,
    /// Destructive orders without an outcome, and the running incarnation that they name.
    open: BTreeMap<ActionId, (VmName, Option<Incarnation>)>,
    /// VMs that something unknown was done to, and nobody has looked since.
    unclear: BTreeSet<VmName>,
    /// Orders that have had their effect.
    done: BTreeSet<(u32, ActionId)>,
    started: BTreeMap<VmName, Incarnation>,
    /// When a VM was last started, and when before that.
    starts: BTreeMap<VmName, [Timestamp; 2]>,
    /// The newest token ever given out.
    token: Token,
    pub(crate) unserved: Unserved,
    pub(crate) wishes: Wishes,
}

impl Checker {
    pub(crate) fn broken(&mut self, invariant: &'static str, at: Timestamp, what: String) {
        self.violations.push(Violation { invariant, at, what });
    }

    /// A person asks for something.
    pub(crate) fn asks(&mut self, command: &Command, heard: bool) {
        self.pending = heard.then(|| command.clone());
    }

    /// A person was told that a VM is in maintenance.
    pub(crate) fn believes_maintained(&mut self, command: &Command) {
        if let (Wish::MaintenanceOn { until }, Some(_)) = (&command.wish, self.pending.take()) {
            self.maintained.insert(command.vm.clone(), until.unwrap_or(Timestamp::NEVER));
        }
    }

    /// The engine took a step.
    pub(crate) fn steps(
        &mut self,
        now: Timestamp,
        input: &Input,
        reaction: &Reaction,
        engine: &Engine,
        world: &World,
    ) {
        if engine.now() != now {
            self.broken("I20", now, format!("the engine was told that it is {}", engine.now()));
        }
        match input {
            Input::Started(_) => {
                let open = std::mem::take(&mut self.open);
                self.unclear.extend(open.into_values().map(|(vm, _)| vm));
            }
            Input::Outcome(outcome) => {
                let vm = self.open.remove(&outcome.action);
                match (&outcome.ended, vm) {
                    // What a dead incarnation was told can have no effect any more (I3).
                    (Ended::Unknown { .. }, Some((vm, to))) if can_matter(world, &vm, to) => {
                        self.unclear.insert(vm);
                    }
                    (Ended::Done(Fact::Found(found)), _) => self.looked(found, outcome.action, world),
                    (
                        Ended::Unknown { .. }
                        | Ended::Done(_)
                        | Ended::Failed { .. }
                        | Ended::Blocked { .. }
                        | Ended::DiskGone { .. },
                        _,
                    ) => {}
                }
            }
            Input::Command(command) => {
                self.answered(now, command, reaction);
                if let Some(what) = gives_up_in_need(command, reaction, engine) {
                    self.broken("I12", now, what);
                }
            }
            Input::Signal(signal) => self.saw(&signal.seen, world),
            Input::Configured(_)
            | Input::WallClock { .. }
            | Input::Points { .. }
            | Input::Newest { .. }
            | Input::Tick => {}
        }
        self.mind_wishes(now, reaction, engine);
        for action in &reaction.actions {
            self.mind_starts(now, action);
            self.asks_for(now, action, engine, world);
        }
    }

    /// The end of the newest process was seen: that is a look, too.
    fn saw(&mut self, seen: &Seen, world: &World) {
        let Seen::Process(ProcessSign::Exited { proof, .. }) = seen else { return };
        let newest = world.index(proof.vm()).map(|vm| world.machines[vm].record.started);
        if newest == Some(proof.incarnation()) {
            self.unclear.remove(proof.vm());
        }
    }

    fn looked(&mut self, found: &Found, _action: ActionId, world: &World) {
        match found {
            Found::Dead(proof) => {
                self.unclear.remove(proof.vm());
            }
            Found::Running { pid, .. } => {
                let seen = world.machines.iter().find(|machine| machine.record.pid == *pid);
                if let Some(machine) = seen {
                    self.unclear.remove(&machine.setup.name);
                }
            }
            Found::Unclear { .. } => {}
        }
    }

    fn answered(&mut self, now: Timestamp, command: &Command, reaction: &Reaction) {
        self.pending = None;
        let refused = reaction.answers.iter().any(|a| a.command == command.id && a.refused.is_some());
        if refused {
            return;
        }
        let vm = &command.vm;
        self.wishes.accepted(now, vm, &command.wish);
        match &command.wish {
            Wish::MaintenanceOn { until } => {
                self.maintained.insert(vm.clone(), until.unwrap_or(Timestamp::NEVER));
            }
            Wish::MaintenanceOff => {
                self.maintained.remove(vm);
            }
            Wish::Release => {
                self.recoveries.remove(vm);
                self.released = now;
            }
            Wish::Start
            | Wish::Stop { .. }
            | Wish::Restart { .. }
            | Wish::Rewind(_)
            | Wish::Approve { .. } => {
                self.recoveries.remove(vm);
                self.starts.remove(vm); // a person may have it start as often as he asks for it
            }
            Wish::Pause | Wish::Resume | Wish::Announce { .. } | Wish::WorkDone(_) | Wish::GiveUp(_) => {}
        }
    }

    /// The engine asks for an action.
    fn asks_for(&mut self, now: Timestamp, action: &Action, engine: &Engine, world: &World) {
        let vm = &action.vm;
        let Some(machine) = world.index(vm).map(|at| &world.machines[at]) else { return };
        let changes = action.order.is_destructive() || matches!(action.order, Order::TakeLease { .. });
        if !changes {
            return;
        }
        let name = action.order.name();
        let by_person = matches!(action.reason, Reason::Command(_));
        self.maintained.retain(|_, until| *until > now);
        if !by_person && self.maintained.contains_key(vm) {
            self.broken("I5", now, format!("{name} of {vm} in maintenance"));
        }
        if !by_person && self.unclear.contains(vm) {
            self.broken(
                "I9",
                now,
                format!("{name} of {vm}, and nobody has looked what became of the last order"),
            );
        }
        if !action.order.is_destructive() {
            return;
        }
        let to = match &action.order {
            Order::Perform { incarnation, .. } | Order::PowerOff { incarnation, .. } => Some(*incarnation),
            Order::Inspect
            | Order::Capture { .. }
            | Order::Reach { .. }
            | Order::TakeLease { .. }
            | Order::Adopt { .. }
            | Order::Rewind { .. }
            | Order::Start { .. }
            | Order::ReleaseLease { .. } => None,
        };
        self.open.insert(action.id, (vm.clone(), to));
        match &action.reason {
            Reason::Command(_) => {}
            Reason::Upkeep => self.check_upkeep(now, action, engine, machine),
            Reason::Incident(id) => match engine.incident(*id) {
                Some(incident) => self.check_recovery(now, action, incident, machine, world),
                None => self.broken("I10", now, format!("{name} of {vm} for no incident")),
            },
        }
    }

    fn check_upkeep(&mut self, now: Timestamp, action: &Action, engine: &Engine, machine: &Machine) {
        let vm = &action.vm;
        let wanted = engine.vm(vm).is_some_and(|state| state.desired == Desired::Running);
        if wanted && !matches!(action.order, Order::Start { .. }) {
            self.broken("I7", now, format!("upkeep asks to {} {vm}", action.order.name()));
        }
        let rebooted = machine.record.boot == 0;
        if matches!(action.order, Order::Start { .. }) && !rebooted && machine.process.is_some() {
            self.broken("I1", now, format!("upkeep starts {vm}, which has a process"));
        }
    }

    fn check_recovery(
        &mut self,
        now: Timestamp,
        action: &Action,
        incident: &Incident,
        machine: &Machine,
        world: &World,
    ) {
        let (vm, name) = (&action.vm, action.order.name());
        let gentle = matches!(
            &action.order,
            Order::Perform { operation: Operation::Continue | Operation::LinkUp | Operation::Thaw, .. }
        );
        if gentle {
            return;
        }
        let for_good = machine.hypervisor.no_kernel_since.is_some_and(|since| now.since(since) > PREPARES);
        if for_good && matches!(action.order, Order::PowerOff { .. }) {
            self.broken("I21", now, format!("{name} of {vm}, which could not start again"));
        }
        let isolation =
            matches!(&action.order, Order::Perform { operation: Operation::Pause | Operation::LinkDown, .. });
        let wanted = machine.setup.policy.isolate.operation();
        if isolation
            && !matches!(&action.order, Order::Perform { operation, .. } if Some(operation) == wanted.as_ref())
        {
            self.broken("I7", now, format!("{name} of {vm}, which nobody wants"));
        }
        // A guest that says something untrue on a slow host that does not say so, or whose only other voice, its agent,
        // is mute: two signs, and both are false.
        let mute = machine.guest.apps.is_empty() && machine.guest.agent != AgentFault::Answers;
        let misled = machine.guest.misleads && (world.host.slow || mute);
        if !machine.was_ill(now, FRESH) && !misled {
            self.broken("I10", now, format!("{name} of {vm}, which is well"));
        }
        if !incident.diagnosis.grounds.suffice() && machine.process.is_some() {
            self.broken("I10", now, format!("{name} of {vm} on thin grounds"));
        }
        if incident.drill {
            return;
        }
        if incident.times.opened > self.released {
            self.check_storm(now, vm, world.machines.len());
        }
        if isolation {
            return; // it brings nothing back, and so costs no try
        }
        self.check_budget(now, action, machine);
    }

    fn check_budget(&mut self, now: Timestamp, action: &Action, machine: &Machine) {
        let (vm, name) = (&action.vm, action.order.name());
        let starts = matches!(action.order, Order::Start { .. });
        if starts && machine.taken {
            return; // somebody else has its disk: that is no try
        }
        if matches!(action.order, Order::Rewind { .. }) && self.half_way.contains(vm) {
            return; // part of the recovery that ended it
        }
        let second_half = starts && self.half_way.remove(vm);
        if matches!(action.order, Order::PowerOff { .. } | Order::Rewind { .. }) {
            self.half_way.insert(vm.clone());
        }
        if second_half {
            return;
        }
        let budget = machine.setup.policy.budget;
        let begun = self.recoveries.entry(vm.clone()).or_default();
        begun.retain(|at| now.since(*at) < budget.within);
        let wait = (budget.backoff * (1 << begun.len().saturating_sub(1).min(6))).min(LONGEST_WAIT);
        let soon = begun.back().is_some_and(|last| now.since(*last) + PREPARES < wait);
        begun.push_back(now);
        let count = begun.len();
        if soon {
            self.broken("I6", now, format!("{name} of {vm} did not wait {wait:?} after the recovery before"));
        }
        let goes_back = usize::from(!machine.setup.policy.max_data_loss.is_zero()); // a try of its own
        if count > budget.tries as usize + goes_back {
            self.broken("I6", now, format!("{name} of {vm} is recovery {count} of {}", budget.tries));
        }
    }

    fn check_storm(&mut self, now: Timestamp, vm: &VmName, vms: usize) {
        self.acted.retain(|_, at| now.since(*at) < STORM.2);
        self.acted.insert(vm.clone(), now);
        let acted = self.acted.len();
        if acted > STORM.0 && acted * 100 > STORM.1 * vms {
            self.broken("I11", now, format!("{acted} of {vms} VMs were acted on within {:?}", STORM.2));
        }
    }

    /// An order reaches the world. `machine` is as it was before.
    pub(crate) fn takes_effect(
        &mut self,
        now: Timestamp,
        action: &Action,
        life: u32,
        machine: &Machine,
        recorded: bool,
    ) {
        let name = action.order.name();
        if !recorded {
            self.broken("I8", now, format!("{name} of {} is done and not recorded", action.vm));
        }
        if !self.done.insert((life, action.id)) {
            self.broken("I9", now, format!("{name} of {} is done twice", action.vm));
        }
        if action.order.is_destructive() && machine.setup.name != action.vm {
            self.broken("I7", now, format!("{name} of {} is done to {}", action.vm, machine.setup.name));
        }
    }

    /// An order was carried out and not refused. `before` is the incarnation that ran.
    pub(crate) fn obeyed(&mut self, now: Timestamp, action: &Action, before: Option<Incarnation>) {
        let named = match &action.order {
            Order::Perform { incarnation, .. } | Order::PowerOff { incarnation, .. } => *incarnation,
            Order::Rewind { .. } if before.is_some() => {
                return self.broken(
                    "I15",
                    now,
                    format!("the disk of {} is changed while it runs", action.vm),
                );
            }
            Order::Inspect
            | Order::Capture { .. }
            | Order::Reach { .. }
            | Order::TakeLease { .. }
            | Order::Adopt { .. }
            | Order::Rewind { .. }
            | Order::Start { .. }
            | Order::ReleaseLease { .. } => return,
        };
        if before.is_some_and(|running| running != named) {
            let name = action.order.name();
            self.broken("I3", now, format!("{name} of incarnation {named} is done to {before:?}"));
        }
    }

    /// A lease was given out.
    pub(crate) fn leases(&mut self, now: Timestamp, lease: &Lease) {
        if lease.token() <= self.token {
            self.broken("I3", now, format!("{lease:?} is given out after {:?}", self.token));
        }
        self.token = self.token.max(lease.token());
    }

    /// A process is about to be started.
    pub(crate) fn starts(&mut self, now: Timestamp, machine: &Machine, lease: &Lease, held: Option<&Lease>) {
        let vm = &machine.setup.name;
        if let Some(process) = &machine.process {
            let running = process.incarnation;
            self.broken("I1", now, format!("{vm} is started while incarnation {running} has its disk open"));
        }
        if held != Some(lease) {
            self.broken("I2", now, format!("{vm} is started under {lease:?}, on record is {held:?}"));
        }
        let [last, before] = self.starts.get(vm).copied().unwrap_or_default();
        self.starts.insert(vm.clone(), [now, last]);
        if before > Timestamp::ZERO && now.since(before) < A_MOMENT {
            self.broken("I6", now, format!("{vm} is started three times within {A_MOMENT:?}"));
        }
        let last = self.started.insert(vm.clone(), lease.incarnation());
        if last.is_some_and(|last| last >= lease.incarnation()) {
            self.broken("I9", now, format!("{vm} is started as {} after {last:?}", lease.incarnation()));
        }
    }

    /// The daemon crashed, stalled or was read back. No VM may have noticed.
    pub(crate) fn daemon_struck(&mut self, now: Timestamp, before: &[bool], after: &[bool]) {
        if before != after {
            self.broken("I7", now, "what happened to the daemon ended a VM".into());
        }
    }

    /// A person has accepted that Holdfast goes on with what is left of its state: what that no longer knows of
    /// cannot count (I5, I6).
    pub(crate) fn accepts_loss(&mut self) {
        self.recoveries.clear();
        self.maintained.clear();
    }

    /// The journal was read back after a restart.
    pub(crate) fn restored(&mut self, now: Timestamp, restored: &Restored, before: Option<&str>) {
        if let Some(what) = &restored.differs {
            self.broken("replay", now, what.clone());
        }
        let same = before.is_none_or(|before| before == write(&restored.engine));
        if restored.complete && !same {
            self.broken("replay", now, "the restored engine is not the one that crashed".into());
        }
    }
}

/// Whether an order to this running incarnation can still have an effect.
fn can_matter(world: &World, vm: &VmName, to: Option<Incarnation>) -> bool {
    let running = world.index(vm).and_then(|at| world.machines[at].incarnation());
    to.is_none_or(|to| running == Some(to))
}
