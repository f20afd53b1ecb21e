//! What a driver's orders do to a simulated machine: carried out, or refused because they are old (I3).
//!
//! Stories and the `Driver` of the simulator (`adapter.rs`) go through the same code, so the contract that every
//! driver must keep holds in the stories, too.

use crate::guest::Life;
use crate::mutant::Mutant;
use crate::world::{Plan, World};
use holdfast_core::action::{Fact, Found, Operation, Order, Rewind};
use holdfast_core::lease::{Death, DeathProof, ExitStatus, Incarnation, Lease, Sighting, Token};
use holdfast_core::point::PointId;
use holdfast_core::subject::AppName;
use holdfast_core::time::Duration;
use holdfast_witness::Eyewitness;
use std::fmt;

/// What an order has led to.
#[derive(Debug)]
pub(crate) enum Effect {
    Done(Fact),
    Failed(Refusal),
    /// Done when the process is gone.
    AwaitsExit(Incarnation),
    /// No answer will come.
    Silence,
}

/// Why an order was certainly not carried out.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is older than what was seen.
    Stale(String),
    /// Nothing runs.
    NotRunning,
    /// Somebody else has what it needs.
    Blocked(String),
    /// Its disk is not there.
    DiskGone(String),
    /// Anything else.
    Refused(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(why) => write!(f, "an old order: {why}"),
            Self::NotRunning => f.write_str("it does not run"),
            Self::Blocked(why) | Self::DiskGone(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

/// How long an agent that does not answer is waited for.
const AGENT: Duration = Duration::from_secs(2);
/// Why a VM does not start whose kernel is gone.
pub(crate) const NO_KERNEL: &str = "cannot read the kernel that it boots: No such file or directory";

fn refused(why: &str) -> Effect {
    Effect::Failed(Refusal::Refused(why.to_owned()))
}

impl World {
    /// Carries out an order of those that are for drivers. A start is asked for in two steps, so that it can be
    /// checked in between: [`World::may_start`], then [`World::start`].
    pub(crate) fn carry_out(&mut self, vm: usize, order: &Order, mutant: Option<Mutant>) -> Effect {
        match order {
            Order::Capture { incarnation, incident } => self.capture(vm, *incarnation, incident.0),
            Order::Perform { incarnation, token, operation } => {
                match self.admit(vm, *incarnation, *token, mutant) {
                    Err(why) => Effect::Failed(why),
                    Ok(()) => self.perform(vm, operation),
                }
            }
            Order::PowerOff { incarnation, token } => self.power_off(vm, *incarnation, *token, mutant),
            Order::Reach { to } => self.reach(vm, *to, mutant),
            Order::Rewind { proof, to } => self.rewind(vm, proof, *to),
            Order::Start { lease } => match self.may_start(vm, lease, mutant) {
                Ok(Some(pid)) => Effect::Done(Fact::Started { pid }),
                Ok(None) => self.started(vm, lease),
                Err(why) => Effect::Failed(why),
            },
            Order::Inspect | Order::TakeLease { .. } | Order::Adopt { .. } | Order::ReleaseLease { .. } => {
                refused("that is not for drivers")
            }
        }
    }

    /// Whether it could start again once it has ended.
    fn reach(&self, vm: usize, to: Option<Rewind>, mutant: Option<Mutant>) -> Effect {
        let machine = &self.machines[vm];
        if mutant == Some(Mutant::EndsForGood) {
            return Effect::Done(Fact::Nothing);
        }
        if machine.hypervisor.no_kernel_since.is_some() {
            return Effect::Failed(Refusal::Blocked(format!("it would not start again: {NO_KERNEL}")));
        }
        if to.is_none() && machine.deleted {
            return Effect::Failed(Refusal::DiskGone("it would not start again: its disk is gone".into()));
        }
        match to.map_or(Ok(()), |to| machine.snapshots.reach(to.to)) {
            Ok(()) => Effect::Done(Fact::Nothing),
            Err(why) => Effect::Failed(Refusal::Blocked(why)),
        }
    }

    /// Changes the disk of a VM that is dead for that of a restore point.
    fn rewind(&mut self, vm: usize, dead: &DeathProof, to: Rewind) -> Effect {
        let machine = &mut self.machines[vm];
        if machine.process.is_some() {
            return refused("it runs");
        }
        if dead.incarnation() < machine.record.started {
            return Effect::Failed(Refusal::Stale("another has run since".into()));
        }
        if let Err(why) = machine.snapshots.reach(to.to) {
            return Effect::Failed(Refusal::Blocked(why));
        }
        match machine.snapshots.rewind(self.now, &mut machine.guest, to) {
            Ok(()) => {
                if matches!(to.to, PointId::Backup { .. }) {
                    (machine.deleted, machine.storage) = (false, true); // it lies in a file of its own
                }
                Effect::Done(Fact::Nothing)
            }
            Err(why) => refused(&why),
        }
    }

    /// Starts what may be started.
    pub(crate) fn started(&mut self, vm: usize, lease: &Lease) -> Effect {
        match self.start(vm, lease.incarnation(), lease.token()) {
            Ok(pid) => Effect::Done(Fact::Started { pid }),
            Err(why) => Effect::Failed(Refusal::Refused(why)),
        }
    }

    /// What is on record, and what the process table says: never silence.
    pub(crate) fn inspect(&mut self, vm: usize, mutant: Option<Mutant>) -> Found {
        let exists = self.process_exists(vm, mutant);
        let boot = self.host.boot;
        let machine = &mut self.machines[vm];
        let name = machine.setup.name.clone();
        if let Some(process) = machine.process.as_ref().filter(|_| exists) {
            let state = machine.hears().then_some(machine.hypervisor.state);
            let lease = self.leases.of(&name).cloned();
            let seen = Sighting::of(Eyewitness::here(), process.incarnation);
            return Found::Running { seen, pid: process.pid, state, lease };
        }
        let newest = machine.record.started.max(self.leases.newest(&name));
        machine.record.burned = machine.record.burned.max(newest);
        let death = if newest == Incarnation::NONE {
            Death::NeverStarted
        } else if machine.record.boot != boot {
            Death::HostRebooted
        } else {
            Death::NotFound { pid: machine.record.pid }
        };
        Found::Dead(DeathProof::witnessed(Eyewitness::here(), name, newest, death))
    }

    /// Refuses what names another incarnation than the running one, or an old token (I3).
    fn admit(
        &self,
        vm: usize,
        incarnation: Incarnation,
        token: Token,
        mutant: Option<Mutant>,
    ) -> Result<(), Refusal> {
        let machine = &self.machines[vm];
        if mutant == Some(Mutant::IgnoresToken) && machine.process.is_some() {
            return Ok(());
        }
        match machine.incarnation() {
            None => Err(Refusal::NotRunning),
            Some(running) if running != incarnation => {
                Err(Refusal::Stale(format!("it names incarnation {incarnation}, {running} runs")))
            }
            Some(_) if token < machine.record.token => {
                Err(Refusal::Stale("its lease is not the newest".into()))
            }
            Some(_) => Ok(()),
        }
    }

    /// Evidence is kept of what runs and answers.
    fn capture(&self, vm: usize, incarnation: Incarnation, incident: u64) -> Effect {
        let machine = &self.machines[vm];
        if machine.incarnation() != Some(incarnation) {
            return Effect::Failed(Refusal::NotRunning);
        }
        let files = vec![format!("incidents/{incident}/console")];
        if machine.hears() { Effect::Done(Fact::Captured { files }) } else { Effect::Silence }
    }

    fn perform(&mut self, vm: usize, operation: &Operation) -> Effect {
        match operation {
            Operation::RestartApp(app) => self.order_app(vm, app),
            Operation::Shutdown => {
                let guest = &self.machines[vm].guest;
                if guest.life == Life::Up {
                    let plan = Plan::PowerDown(vm, guest.boots);
                    self.plan(Duration::from_millis(2_600), plan);
                }
                Effect::Done(Fact::Nothing)
            }
            _ if !self.machines[vm].hears() => {
                self.machines[vm].hypervisor.queued.push(operation.clone());
                Effect::Silence
            }
            Operation::Reset
            | Operation::Continue
            | Operation::Pause
            | Operation::LinkUp
            | Operation::LinkDown
            | Operation::Thaw => {
                self.operate(vm, operation);
                Effect::Done(Fact::Nothing)
            }
        }
    }

    fn order_app(&mut self, vm: usize, app: &AppName) -> Effect {
        let machine = &self.machines[vm];
        let Some(app) = machine.guest.app(app) else { return refused("no such application") };
        let reached = machine.setup.agent && self.agent_answers(vm) && !machine.guest.frozen;
        if !reached {
            return refused(&format!("the agent gave no answer in {}s", AGENT.as_secs()));
        }
        if machine.guest.life != Life::Up || !machine.executes() {
            return Effect::Silence; // an agent that lied
        }
        if machine.guest.apps[app].ruined {
            return refused("its restart command ended with exit code 1");
        }
        self.restart_app(vm, app);
        Effect::Done(Fact::Nothing)
    }

    fn power_off(
        &mut self,
        vm: usize,
        incarnation: Incarnation,
        token: Token,
        mutant: Option<Mutant>,
    ) -> Effect {
        let machine = &self.machines[vm];
        let died = |death| {
            let proof =
                DeathProof::witnessed(Eyewitness::here(), machine.setup.name.clone(), incarnation, death);
            Effect::Done(Fact::Died(proof))
        };
        if machine.process.is_none() && machine.record.started >= incarnation {
            return died(Death::NotFound { pid: machine.record.pid });
        }
        if let Err(why) = self.admit(vm, incarnation, token, mutant) {
            return Effect::Failed(why);
        }
        let promised = died(Death::NotFound { pid: machine.record.pid });
        self.kill(vm, ExitStatus::Signal(9));
        if mutant == Some(Mutant::DeathByPromise) { promised } else { Effect::AwaitsExit(incarnation) }
    }

    /// Whether a start may be made; `Some`: it has been made already, and this is its process.
    pub(crate) fn may_start(
        &self,
        vm: usize,
        lease: &Lease,
        mutant: Option<Mutant>,
    ) -> Result<Option<u32>, Refusal> {
        let is = |one: Mutant| mutant == Some(one);
        let machine = &self.machines[vm];
        if machine.setup.name != *lease.vm() {
            return Err(Refusal::Refused(format!("that is the lease of {}", lease.vm())));
        }
        if machine.incarnation() == Some(lease.incarnation()) && !is(Mutant::ReusesIncarnation) {
            if lease.token() < machine.record.token {
                return Err(Refusal::Stale("its lease is not the newest".into()));
            }
            return Ok(Some(machine.record.pid)); // a repetition
        }
        let burned = lease.incarnation() <= machine.record.burned && !is(Mutant::StartsBurned);
        let old = lease.token() <= machine.record.token || lease.incarnation() <= machine.record.started;
        if burned || (old && !is(Mutant::IgnoresToken) && !is(Mutant::ReusesIncarnation)) {
            return Err(Refusal::Stale("its lease is not the newest".into()));
        }
        if machine.taken {
            return Err(Refusal::Blocked("the image is in use by process 4711 (qemu-img)".into()));
        }
        if machine.deleted {
            return Err(Refusal::DiskGone("the image is not there any more".into()));
        }
        if machine.hypervisor.no_kernel_since.is_some() {
            return Err(Refusal::Refused(NO_KERNEL.into()));
        }
        if self.host.state_full {
            return Err(Refusal::Refused("cannot write the run record: no space left on device".into()));
        }
        Ok(None)
    }
}
