//! Carries out orders in the world, with delays, failures and lost answers; refuses old ones (I3).
//!
//! An order in flight belongs to the life of the daemon that gave it: its effect outlives a crash, its
//! answer does not.

use crate::faults::Quirk;
use crate::guest::Life;
use crate::mutant::Mutant;
use crate::run::{Due, Run};
use crate::world::Plan;
use holdfast_core::action::{Action, Ended, Fact, Found, Operation, Order, Outcome};
use holdfast_core::input::Input;
use holdfast_core::lease::{Death, DeathProof, Incarnation, Lease, Token};
use holdfast_core::subject::AppName;
use holdfast_core::time::Duration;

/// An order on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) action: Action,
    pub(crate) vm: usize,
    pub(crate) life: u32,
    /// Nobody will be told how it ended.
    mute: bool,
    ended: Option<Ended>,
    reported: bool,
    /// Ends when the process of this incarnation ends.
    awaits: Option<Incarnation>,
}

/// What an order has led to.
enum Effect {
    Done(Fact),
    Failed(String),
    /// Done when the process is gone.
    AwaitsExit(Incarnation),
    /// No answer will come.
    Silence,
}

/// How late a late order is carried out: after every deadline.
const LATE: Duration = Duration::from_secs(45);
/// How long an agent that does not answer is waited for.
const AGENT: Duration = Duration::from_secs(2);

fn takes(order: &Order) -> Duration {
    Duration::from_millis(match order {
        Order::Inspect => 10,
        Order::Capture { .. } => 150,
        Order::Perform { operation: Operation::RestartApp(_), .. } => 300,
        Order::Perform { .. }
        | Order::TakeLease { .. }
        | Order::Adopt { .. }
        | Order::ReleaseLease { .. } => 5,
        Order::PowerOff { .. } => 1,
        Order::Start { .. } => 40,
    })
}

impl Run {
    /// Hands actions to the driver.
    pub(crate) fn hand_over(&mut self, action: Action) {
        let Some(mut vm) = self.world.index(&action.vm) else { return };
        if self.is(Mutant::WrongVm) && action.id.0.is_multiple_of(7) {
            vm = (vm + 1) % self.world.machines.len();
        }
        let quirk = self.world.machines[vm].quirks.get(action.order.name()).copied();
        let slow = if self.world.host.slow || self.world.host.pressed { 400 } else { 0 };
        let after = takes(&action.order) + Duration::from_millis(slow);
        let (deadline, life) = (action.deadline, self.daemon.life);
        let mute = matches!(quirk, Some(Quirk::Unanswered | Quirk::Lost | Quirk::Late));
        let flight = self.flights.len();
        self.flights.push(Flight { action, vm, life, mute, ended: None, reported: false, awaits: None });
        match quirk {
            Some(Quirk::Fails) => {
                let why = "the hypervisor refuses it".to_owned();
                self.flights[flight].ended = Some(Ended::Failed { why });
                self.after(after, Due::Report(flight));
            }
            Some(Quirk::Lost) => {}
            Some(Quirk::Late) => self.after(LATE, Due::Effect(flight)),
            Some(Quirk::Unanswered | Quirk::Works) | None => self.after(after, Due::Effect(flight)),
        }
        self.at(deadline, Due::Deadline(flight));
    }

    /// The order reaches the world.
    pub(crate) fn take_effect(&mut self, flight: usize) {
        self.world.note_ill();
        let Flight { action, vm, .. } = self.flights[flight].clone();
        let recorded = self.daemon.journal.is_durable(self.flights[flight].life, action.id);
        let (truth, life) = (&self.world.machines[vm], self.flights[flight].life);
        self.checker.takes_effect(self.world.now, &action, life, truth, recorded);
        let before = self.world.machines[vm].incarnation();
        let effect = self.carry_out(vm, &action.order);
        if !matches!(effect, Effect::Failed(_)) {
            self.checker.obeyed(self.world.now, &action, before);
            self.timeline.act(self.world.now, &action);
        }
        match effect {
            Effect::Done(fact) => self.end_flight(flight, Ended::Done(fact), Duration::ZERO),
            Effect::Failed(why) => self.end_flight(flight, Ended::Failed { why }, Duration::ZERO),
            Effect::AwaitsExit(incarnation) => self.flights[flight].awaits = Some(incarnation),
            Effect::Silence => {}
        }
        self.upon_done(&action);
        self.settle_world();
    }

    fn end_flight(&mut self, flight: usize, ended: Ended, after: Duration) {
        self.flights[flight].ended = Some(ended);
        if !self.flights[flight].mute {
            self.after(after, Due::Report(flight));
        }
    }

    /// A process ended: whoever waits for that is told.
    pub(crate) fn process_ended(&mut self, vm: usize, proof: &DeathProof) {
        let waits = |flight: &Flight| flight.vm == vm && flight.awaits == Some(proof.incarnation());
        let waiting: Vec<usize> = (0..self.flights.len()).filter(|f| waits(&self.flights[*f])).collect();
        for flight in waiting {
            self.flights[flight].awaits = None;
            let ended = Ended::Done(Fact::Died(proof.clone()));
            self.end_flight(flight, ended, Duration::from_millis(1));
        }
    }

    /// The answer reaches the daemon that asked, if it still lives.
    pub(crate) fn report(&mut self, flight: usize) {
        let one = &mut self.flights[flight];
        if one.reported || one.life != self.daemon.life {
            return;
        }
        let Some(ended) = one.ended.clone() else { return };
        one.reported = true;
        let outcome = Outcome { action: one.action.id, ended };
        if !self.is(Mutant::DropsOutcomes) {
            self.receive(Input::Outcome(outcome));
        }
    }

    /// Nobody answered in time.
    pub(crate) fn give_up(&mut self, flight: usize) {
        let one = &mut self.flights[flight];
        if one.reported {
            return;
        }
        let why = format!("no answer to {} in time", one.action.order.name());
        one.ended = Some(Ended::Unknown { why });
        if self.is(Mutant::GuessesOutcome) {
            let one = &mut self.flights[flight];
            let fact = match &one.action.order {
                Order::PowerOff { incarnation, .. } => {
                    let death = Death::NotFound { pid: 1 };
                    Fact::Died(DeathProof::witnessed(one.action.vm.clone(), *incarnation, death))
                }
                _ => Fact::Nothing,
            };
            one.ended = Some(Ended::Done(fact));
        }
        self.report(flight);
    }

    fn carry_out(&mut self, vm: usize, order: &Order) -> Effect {
        match order {
            Order::Inspect => Effect::Done(Fact::Found(self.inspect(vm))),
            Order::Capture { incident, .. } => {
                let files = vec![format!("incidents/{}/console", incident.0)];
                if self.world.machines[vm].hears() {
                    Effect::Done(Fact::Captured { files })
                } else {
                    Effect::Silence
                }
            }
            Order::Perform { incarnation, token, operation } => match self.admit(vm, *incarnation, *token) {
                Err(why) => Effect::Failed(why),
                Ok(()) => self.perform(vm, operation),
            },
            Order::PowerOff { incarnation, token } => self.power_off(vm, *incarnation, *token),
            Order::TakeLease { proof } => self.take_lease(vm, proof),
            Order::Adopt { incarnation } => self.adopt(vm, *incarnation),
            Order::Start { lease } => self.start(vm, lease),
            Order::ReleaseLease { .. } => Effect::Done(Fact::Nothing),
        }
    }

    /// What is on record, and what the process table says: never silence.
    fn inspect(&mut self, vm: usize) -> Found {
        let exists = self.world.process_exists(vm, self.options.mutant);
        let boot = self.world.host.boot;
        let machine = &mut self.world.machines[vm];
        let name = machine.setup.name.clone();
        if let Some(process) = machine.process.as_ref().filter(|_| exists) {
            let state = machine.hears().then_some(machine.hypervisor.state);
            let lease = self.world.leases.of(&name).cloned();
            return Found::Running { incarnation: process.incarnation, pid: process.pid, state, lease };
        }
        let newest = machine.record.started.max(self.world.leases.newest(&name));
        machine.record.burned = machine.record.burned.max(newest);
        let death = if newest == Incarnation::NONE {
            Death::NeverStarted
        } else if machine.record.boot != boot {
            Death::HostRebooted
        } else {
            Death::NotFound { pid: machine.record.pid }
        };
        Found::Dead(DeathProof::witnessed(name, newest, death))
    }

    /// Refuses what names another incarnation than the running one, or an old token (I3).
    fn admit(&self, vm: usize, incarnation: Incarnation, token: Token) -> Result<(), String> {
        let machine = &self.world.machines[vm];
        if self.is(Mutant::IgnoresToken) && machine.process.is_some() {
            return Ok(());
        }
        match machine.incarnation() {
            None => Err("it does not run".into()),
            Some(running) if running != incarnation => {
                Err(format!("an old order: it names incarnation {incarnation}, {running} runs"))
            }
            Some(_) if token < machine.record.token => {
                Err("an old order: its lease is not the newest".into())
            }
            Some(_) => Ok(()),
        }
    }

    fn perform(&mut self, vm: usize, operation: &Operation) -> Effect {
        match operation {
            Operation::RestartApp(app) => self.restart_app(vm, app),
            Operation::Shutdown => {
                let guest = &self.world.machines[vm].guest;
                if guest.life == Life::Up {
                    let plan = Plan::PowerDown(vm, guest.boots);
                    self.world.plan(Duration::from_millis(2_600), plan);
                }
                Effect::Done(Fact::Nothing)
            }
            _ if !self.world.machines[vm].hears() => {
                self.world.machines[vm].hypervisor.queued.push(operation.clone());
                Effect::Silence
            }
            Operation::Reset
            | Operation::Continue
            | Operation::Pause
            | Operation::LinkUp
            | Operation::LinkDown
            | Operation::Thaw => {
                self.world.operate(vm, operation);
                Effect::Done(Fact::Nothing)
            }
        }
    }

    fn restart_app(&mut self, vm: usize, app: &AppName) -> Effect {
        let machine = &self.world.machines[vm];
        let Some(app) = machine.guest.app(app) else { return Effect::Failed("no such application".into()) };
        let reached = machine.setup.agent && self.world.agent_answers(vm) && !machine.guest.frozen;
        if !reached {
            return Effect::Failed(format!("the agent gave no answer in {}s", AGENT.as_secs()));
        }
        if machine.guest.life != Life::Up || !machine.executes() {
            return Effect::Silence; // an agent that lied
        }
        if machine.guest.apps[app].ruined {
            return Effect::Failed("its restart command ended with exit code 1".into());
        }
        self.world.restart_app(vm, app);
        Effect::Done(Fact::Nothing)
    }

    fn power_off(&mut self, vm: usize, incarnation: Incarnation, token: Token) -> Effect {
        let machine = &self.world.machines[vm];
        let died = |death| {
            let proof = DeathProof::witnessed(machine.setup.name.clone(), incarnation, death);
            Effect::Done(Fact::Died(proof))
        };
        if machine.process.is_none() && machine.record.started >= incarnation {
            return died(Death::NotFound { pid: machine.record.pid });
        }
        if let Err(why) = self.admit(vm, incarnation, token) {
            return Effect::Failed(why);
        }
        let promised = died(Death::NotFound { pid: machine.record.pid });
        self.world.kill(vm, holdfast_core::lease::ExitStatus::Signal(9));
        if self.is(Mutant::DeathByPromise) { promised } else { Effect::AwaitsExit(incarnation) }
    }

    fn take_lease(&mut self, vm: usize, proof: &DeathProof) -> Effect {
        if self.world.host.state_full {
            return Effect::Failed("cannot write the lease: no space left on device".into());
        }
        let name = self.world.machines[vm].setup.name.clone();
        if self.is(Mutant::ReusesIncarnation) {
            return Effect::Done(Fact::Leased(self.world.leases.grant(&name, proof.incarnation())));
        }
        match self.world.leases.take(proof) {
            Ok(lease) => Effect::Done(Fact::Leased(lease)),
            Err(why) => Effect::Failed(why),
        }
    }

    fn adopt(&mut self, vm: usize, incarnation: Incarnation) -> Effect {
        let machine = &mut self.world.machines[vm];
        if machine.incarnation() != Some(incarnation) {
            return Effect::Failed(format!("incarnation {incarnation} does not run"));
        }
        if self.world.host.state_full {
            return Effect::Failed("cannot write the lease: no space left on device".into());
        }
        let name = machine.setup.name.clone();
        let lease = match self.world.leases.of(&name) {
            Some(lease) if lease.incarnation == incarnation => lease.clone(),
            Some(lease) if lease.incarnation > incarnation => {
                return Effect::Failed(format!("incarnation {} was leased since", lease.incarnation));
            }
            Some(_) | None => self.world.leases.grant(&name, incarnation),
        };
        machine.record.token = lease.token;
        Effect::Done(Fact::Leased(lease))
    }

    fn start(&mut self, vm: usize, lease: &Lease) -> Effect {
        let machine = &self.world.machines[vm];
        if machine.incarnation() == Some(lease.incarnation) && !self.is(Mutant::ReusesIncarnation) {
            return Effect::Done(Fact::Started { pid: machine.record.pid }); // a repetition
        }
        let burned = lease.incarnation <= machine.record.burned && !self.is(Mutant::StartsBurned);
        let old = lease.token <= machine.record.token || lease.incarnation <= machine.record.started;
        if burned || (old && !self.is(Mutant::IgnoresToken) && !self.is(Mutant::ReusesIncarnation)) {
            return Effect::Failed("an old order: its lease is not the newest".into());
        }
        if self.world.host.state_full {
            return Effect::Failed("cannot write the run record: no space left on device".into());
        }
        self.checker.starts(self.world.now, machine, lease, self.world.leases.of(&lease.vm));
        match self.world.start(vm, lease.incarnation, lease.token) {
            Ok(pid) => Effect::Done(Fact::Started { pid }),
            Err(why) => Effect::Failed(why),
        }
    }
}
