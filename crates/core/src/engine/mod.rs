//! `step(now, input) -> actions`: the whole flow, for one host.
//!
//! The engine is the only place where decisions are made. It is a function of its inputs: the same
//! inputs give the same actions, byte for byte, in production, in simulation and in replay. Its state can
//! be written down whole (a checkpoint) and read back.

mod approved;
mod commands;
mod consider;
mod host;
mod isolation;
mod jobs;
mod lessons;
mod phases;
mod planning;
mod points;
mod protect;
mod service;
mod status;
mod vm;
mod wall;

pub use status::{AppStatus, ChannelState, ChannelStatus, VmStatus};
pub use vm::{Desired, VmState};
use vm::{Left, Vms};

use crate::action::{Action, ActionId, Answer, Command, Ended, Order, Outcome, Reason};
use crate::diagnosis::{Catalogue, Lessons};
use crate::evidence::{HostView, Lens};
use crate::incident::{Attempt, Incident, IncidentId, Phase, Resolution};
use crate::input::{Input, Started};
use crate::lease::Incarnation;
use crate::plan::Brake;
use crate::policy::{Mode, Policies, VmPolicy};
use crate::recover::Power;
use crate::signal::{LogSign, ObserverSign, Seen, Signal};
use crate::subject::{HostName, Subject, VmName};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Closed incidents that are remembered.
const INCIDENTS_KEPT: usize = 500;
/// VMs that left the configuration and are remembered.
const LEFT_KEPT: usize = 10_000;
/// The engine hears of every running VM about once a period; a longer gap is a stall of our own.
const STALL: Duration = Duration::from_millis(1_800);
/// An action whose outcome nobody reports is given up this long after its deadline.
const LATE: Duration = Duration::from_secs(2);

/// What one step asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct Reaction {
    /// To be done, each with one outcome.
    pub actions: Vec<Action>,
    /// To be said to those who asked.
    pub answers: Vec<Answer>,
    /// Incidents that changed: for those who watch.
    pub changed: BTreeSet<IncidentId>,
}

/// The engine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Engine {
    host: Option<HostName>,
    boot: String,
    anchors: Vec<(Timestamp, i64)>,
    policies: Policies,
    vms: Vms,
    /// VMs that the configuration no longer names: what persons said of them holds when they come back (I5).
    #[serde(default)]
    left: BTreeMap<VmName, Left>,
    view: HostView,
    brake: Brake,
    incidents: BTreeMap<IncidentId, Incident>,
    host_incidents: BTreeMap<crate::diagnosis::Fault, IncidentId>,
    last_incident: IncidentId,
    last_action: ActionId,
    timers: BTreeSet<(Timestamp, VmName)>,
    /// When to look at the restore points of a VM: beside the others, so that a calm VM stays one.
    #[serde(default)]
    point_timers: BTreeSet<(Timestamp, VmName)>,
    asked: BTreeMap<ActionId, VmName>,
    now: Timestamp,
    muted: bool,
    #[serde(default)]
    lessons: Lessons,
    #[serde(skip)]
    catalogue: Catalogue,
    /// The catalogue is the one that the lessons make: not yet so after a restart.
    #[serde(skip)]
    is_taught: bool,
    #[serde(skip)]
    reaction: Reaction,
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one input and says what is to be done. An input costs the same among ten VMs or ten thousand.
    pub fn step(&mut self, now: Timestamp, input: &Input) -> Reaction {
        let now = now.max(self.now); // time never goes back (I20)
        self.notice_gap(now, matches!(input, Input::Started(_)));
        self.now = now;
        if !self.is_taught {
            self.teach();
        }
        match input {
            Input::Started(started) => self.start(started),
            Input::Configured(policies) => self.configure(policies),
            Input::Signal(signal) => self.observe(signal),
            Input::Outcome(outcome) => self.settle(outcome),
            Input::Command(command) => self.obey(command),
            Input::WallClock { offset } => self.anchor(*offset),
            Input::Points { vm, known } => self.know_points(vm, known),
            Input::Newest { vm, means, age, trouble } => {
                self.know_newest(vm, *means, *age, trouble.as_deref())
            }
            Input::Tick => {}
        }
        self.run_timers();
        self.run_point_timers();
        self.forget_old_incidents();
        std::mem::take(&mut self.reaction)
    }

    /// For the simulator, which skips quiet time: lets time pass in which every VM went on answering, without
    /// hearing each answer. Refused while anything is pending. A program must never call it: there, not to
    /// have heard for long is a stall.
    pub fn pass(&mut self, now: Timestamp) -> bool {
        let rests = |vm: &VmState| {
            let calm = match &vm.power {
                Power::On(_) => vm.view.is_calm(&self.lens(vm)),
                Power::Off(_) => vm.policy.mode == Mode::Observe,
                Power::Unknown => false,
            };
            vm.job.is_none()
                && vm.open_incidents().next().is_none()
                && (calm || vm.desired != Desired::Running)
        };
        let due = self.wake_at().is_some_and(|at| at <= now);
        if due || !self.host_incidents.is_empty() || !self.vms.values().all(rests) {
            return false;
        }
        let quiet = now.since(self.now);
        self.vms.values_mut().for_each(|vm| vm.view.forgive(quiet));
        self.now = self.now.max(now);
        true
    }

    /// When the next `Tick` is due, if any.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let first = [self.timers.first(), self.point_timers.first()];
        first.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// The moment of the last step.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The policies in force.
    #[must_use]
    pub const fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Incidents, oldest first.
    pub fn incidents(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.incidents.values()
    }

    /// One incident.
    #[must_use]
    pub fn incident(&self, id: IncidentId) -> Option<&Incident> {
        self.incidents.get(&id)
    }

    /// What is known of the VMs.
    pub fn vms(&self) -> impl Iterator<Item = (&VmName, &VmState)> {
        self.vms.iter()
    }

    /// What is known of one VM.
    #[must_use]
    pub fn vm(&self, name: &VmName) -> Option<&VmState> {
        self.vms.get(name)
    }

    /// Since when the storm brake is pulled, if it is (I11).
    #[must_use]
    pub const fn brake(&self) -> Option<Timestamp> {
        self.brake.pulled()
    }

    /// Whether it still waits for the outcome of this action. What it has given up is not to be begun: a person
    /// may have decided otherwise while the intent was on its way to the disk (I5).
    #[must_use]
    pub fn wants(&self, action: &Action) -> bool {
        self.awaits(&action.vm, action.id)
    }

    fn awaits(&self, vm: &VmName, action: ActionId) -> bool {
        let job = self.vms.get(vm).and_then(|vm| vm.job.as_ref());
        job.is_some_and(|job| job.action == Some(action))
    }

    /// These actions could not be recorded, and so were not done (I8). Until [`Engine::recorded`] nothing is
    /// begun any more; what is under way is settled and watched.
    pub fn not_recorded(&mut self, actions: &[Action], why: &str) {
        self.muted = true;
        for action in actions {
            if let Reason::Incident(id) = action.reason
                && self.wants(action)
            {
                self.take_back(id, &action.vm);
            }
            let ended = Ended::Failed { why: format!("not recorded, so not done: {why}") };
            self.settle(&Outcome { action: action.id, ended });
        }
        self.reaction = Reaction::default();
    }

    /// The journal can be written again.
    pub fn recorded(&mut self) {
        self.muted = false;
    }

    /// An attempt that was never made counts neither in the budget nor as tried.
    pub(super) fn take_back(&mut self, id: IncidentId, name: &VmName) {
        let Some(incident) = self.edit(id).filter(|incident| incident.phase == Phase::Recovering) else {
            return;
        };
        let spent = !incident.drill && incident.approved.is_none(); // what a person approved is none of the tries
        if let Some(attempt) = incident.attempts.last_mut() {
            attempt.forgiven = true;
        }
        let went_back = |attempt: &Attempt| !attempt.forgiven && attempt.remedy.goes_back();
        let has_gone_back = incident.attempts.iter().any(went_back);
        if let Some(vm) = self.vms.get_mut(name).filter(|_| spent) {
            vm.tries.take_back();
            vm.went_back.take_if(|_| !has_gone_back);
        }
    }

    fn start(&mut self, started: &Started) {
        self.host = Some(started.host.clone());
        self.boot.clone_from(&started.boot);
        self.anchor(started.wall_offset);
        self.asked.clear();
        let names: Vec<VmName> = self.vms.keys().cloned().collect();
        for name in names {
            self.look_again(&name);
            self.expect_points(&name, true);
        }
    }

    fn configure(&mut self, policies: &Policies) {
        self.policies = policies.clone();
        self.teach();
        let gone: Vec<VmName> =
            self.vms.keys().filter(|name| !policies.vms.contains_key(*name)).cloned().collect();
        for name in gone {
            self.abandon(&name);
        }
        let mut shared = Arc::new(VmPolicy::default());
        for (name, policy) in &policies.vms {
            let left = self.left.remove(name);
            let vm = self.vms.entry(name.clone()).or_insert_with(|| VmState::new(policy));
            if let Some(left) = left {
                vm.take_up(left);
            }
            vm.view.set_apps(policy.apps.keys());
            if *shared != *policy {
                shared = Arc::new(policy.clone());
            }
            vm.policy = Arc::clone(&shared); // neighbours mostly want the same
            self.wake(name, self.now); // what is wanted may be another thing than before
            self.expect_points(name, false);
        }
        self.vms.sort_unstable_keys();
    }

    /// The VM is no longer ours to look after: nothing more is done to it (S20).
    fn abandon(&mut self, name: &VmName) {
        let how = Resolution::Superseded { by: "configuration".into() };
        self.close_all(name, &how);
        self.end_overdue(name, how, "it is not looked after any more");
        if let Some(vm) = self.vms.shift_remove(name) {
            self.left.insert(name.clone(), vm.leave(self.now)); // the others stay in order
        }
        if self.left.len() > LEFT_KEPT {
            let oldest = self.left.iter().min_by_key(|(_, left)| left.at).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.left.remove(&name));
        }
        self.timers.retain(|(_, vm)| vm != name);
        self.point_timers.retain(|(_, vm)| vm != name);
        self.brake.clear(name);
    }

    fn observe(&mut self, signal: &Signal) {
        match (&signal.subject, &signal.seen) {
            (_, Seen::Observer(sign)) => self.observe_self(signal.at, sign),
            (_, Seen::Host(sign)) => {
                self.view.observe(signal.at.min(self.now), sign);
                self.consider_host();
            }
            (Subject::Host(_), Seen::Log(LogSign::Finding { source, finding })) => {
                self.view.hear_log(signal.at.min(self.now), source, finding);
                self.consider_host();
            }
            (subject, _) => {
                if let Some(name) = subject.vm().filter(|name| self.observe_vm(name, signal)) {
                    self.consider(&name.clone());
                }
            }
        }
    }

    fn observe_self(&mut self, at: Timestamp, sign: &ObserverSign) {
        if let Some(slept) = self.view.observe_self(at.min(self.now), sign) {
            self.vms.values_mut().for_each(|vm| vm.view.forgive(slept));
        }
        self.consider_host();
    }

    /// The first thing after a stall, or a restart: what could not be heard meanwhile is no silence (S17, S18).
    fn notice_gap(&mut self, now: Timestamp, restarted: bool) {
        let gap = now.since(self.now);
        let expects = || self.vms.values().any(|vm| vm.power.incarnation().is_some());
        if restarted {
            self.view.distrust(now, gap);
        } else if gap > STALL + self.policies.period.0 && expects() {
            self.view.doubt(now, gap);
        } else {
            return;
        }
        let unknown = self.view.sleep(self.now, now);
        self.vms.values_mut().for_each(|vm| vm.view.forgive(unknown));
    }

    /// Asks for an action.
    fn ask(&mut self, vm: &VmName, reason: Reason, order: Order, limit: Duration) -> (ActionId, Timestamp) {
        self.last_action.0 += 1;
        let (id, deadline) = (self.last_action, self.now + limit);
        self.asked.insert(id, vm.clone());
        self.reaction.actions.push(Action { id, vm: vm.clone(), reason, order, deadline });
        (id, deadline)
    }

    fn open(&mut self, incident: Incident) -> IncidentId {
        let id = incident.id;
        self.incidents.insert(id, incident);
        self.reaction.changed.insert(id);
        id
    }

    fn next_incident(&mut self) -> IncidentId {
        self.last_incident.0 += 1;
        self.last_incident
    }

    fn edit(&mut self, id: IncidentId) -> Option<&mut Incident> {
        self.reaction.changed.insert(id);
        self.incidents.get_mut(&id)
    }

    fn tell(&mut self, id: IncidentId, step: &str, text: String) {
        let now = self.now;
        if let Some(incident) = self.edit(id) {
            incident.tell(now, step, text);
        }
    }

    /// Asks to look at a VM again then at the latest.
    fn wake(&mut self, name: &VmName, at: Timestamp) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        if vm.wake > at {
            self.timers.remove(&(vm.wake, name.clone()));
            vm.wake = at;
            self.timers.insert((at, name.clone()));
        }
    }

    fn run_timers(&mut self) {
        let now = self.now;
        while let Some((at, name)) = self.timers.first().cloned().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, name.clone()));
            if let Some(vm) = self.vms.get_mut(&name) {
                vm.wake = Timestamp::NEVER;
                vm.expire(now);
            }
            self.expire_job(&name);
            self.consider(&name);
            self.wake_not_before(&name, now);
        }
    }

    /// Makes sure that a VM whose timer just ran asks for a later one: no loop within one moment.
    fn wake_not_before(&mut self, name: &VmName, now: Timestamp) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        if vm.wake <= now {
            self.timers.remove(&(vm.wake, name.clone()));
            vm.wake = now + Duration::from_millis(20);
            self.timers.insert((vm.wake, name.clone()));
        }
    }

    fn forget_old_incidents(&mut self) {
        while self.incidents.len() > INCIDENTS_KEPT {
            let Some(id) = self.incidents.values().find(|i| i.is_closed()).map(|i| i.id) else { return };
            self.incidents.remove(&id);
        }
    }

    fn lens(&self, vm: &VmState) -> Lens {
        let fresh = self.policies.period.0 * 3 + Duration::from_secs(1);
        let patience = self.view.patience(self.now);
        Lens {
            now: self.now,
            fresh,
            hang_after: vm.policy.hang_after,
            trust_silence: self.view.trusts_silence(self.now),
            patience,
            booting: vm.view.is_going_down(self.now)
                || vm.view.boot_due(vm.policy.boot_limit, patience).is_some_and(|due| self.now < due),
            excused: vm.is_excused(self.now),
        }
    }

    /// Takes in a signal of a VM, and says whether anything about it wants a closer look. A signal of an old
    /// incarnation, or of a VM that is not known to run, says nothing.
    fn observe_vm(&mut self, name: &VmName, signal: &Signal) -> bool {
        let now = self.now;
        let Some((index, _, vm)) = self.vms.get_full_mut(name) else { return false };
        let current: Option<Incarnation> = vm.current_incarnation();
        if signal.incarnation.is_some() && signal.incarnation != current {
            return false;
        }
        vm.observe(signal.at.min(now), signal);
        vm.end_excuse(now);
        if let Seen::Process(crate::signal::ProcessSign::Exited { proof, .. }) = &signal.seen {
            self.process_ended(name, proof);
            return true;
        }
        !self.rests(&self.vms[index])
    }

    /// Commands are answered at once, whatever they lead to.
    fn obey(&mut self, command: &Command) {
        let refused = self.carry_out(command).err();
        self.reaction.answers.push(Answer { command: command.id, refused });
        self.consider(&command.vm);
    }

    fn settle(&mut self, outcome: &Outcome) {
        let Some(name) = self.asked.remove(&outcome.action) else { return }; // late or unknown: ignored
        let awaited = self.awaits(&name, outcome.action);
        self.settle_job(&name, outcome);
        if !awaited && matches!(outcome.ended, Ended::Unknown { .. }) {
            self.look_after(&name);
        }
        self.consider(&name);
    }
}
