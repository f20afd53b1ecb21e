//! The way of orders to the world and of answers back: with delays, failures and losses.
//!
//! An order in flight belongs to the life of the daemon that gave it: its effect outlives a crash, its
//! answer does not.

use crate::faults::Quirk;
use crate::hypervisor::{Effect, Refusal};
use crate::mutant::Mutant;
use crate::run::{Due, Run};
use holdfast_core::action::{Action, Ended, Fact, Operation, Order, Outcome};
use holdfast_core::input::Input;
use holdfast_core::lease::{Death, DeathProof, Incarnation, Sighting};
use holdfast_core::time::Duration;
use holdfast_witness::Eyewitness;

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

/// How late a late order is carried out: after every deadline.
const LATE: Duration = Duration::from_secs(45);
pub(crate) fn takes(order: &Order) -> Duration {
    Duration::from_millis(match order {
        Order::Inspect => 10,
        Order::Capture { .. } => 150,
        Order::Perform { operation: Operation::RestartApp(_), .. } => 300,
        Order::Perform { .. }
        | Order::TakeLease { .. }
        | Order::Adopt { .. }
        | Order::ReleaseLease { .. } => 5,
        Order::PowerOff { .. } => 1,
        Order::Reach { .. } | Order::Rewind { .. } => 20,
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
            Effect::Failed(Refusal::Blocked(why)) => {
                self.end_flight(flight, Ended::Blocked { why }, Duration::ZERO);
            }
            Effect::Failed(Refusal::DiskGone(why)) => {
                self.end_flight(flight, Ended::DiskGone { why }, Duration::ZERO);
            }
            Effect::Failed(why) => {
                // What was seen of it meanwhile, as the end of a process that was refused its memory, comes first.
                let why = why.to_string();
                self.end_flight(flight, Ended::Failed { why }, Duration::from_millis(1));
            }
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
        let why = match one.action.order {
            Order::PowerOff { .. } => "its process is still there although it was killed".to_owned(),
            _ => format!("no answer to {} in time", one.action.order.name()),
        };
        one.ended = Some(Ended::Unknown { why });
        if self.is(Mutant::GuessesOutcome) {
            let one = &mut self.flights[flight];
            let fact = match &one.action.order {
                Order::PowerOff { incarnation, .. } => {
                    let death = Death::NotFound { pid: 1 };
                    Fact::Died(DeathProof::witnessed(
                        Eyewitness::here(),
                        one.action.vm.clone(),
                        *incarnation,
                        death,
                    ))
                }
                _ => Fact::Nothing,
            };
            one.ended = Some(Ended::Done(fact));
        }
        self.report(flight);
    }

    /// Leases are the store's, everything else is for the driver.
    fn carry_out(&mut self, vm: usize, order: &Order) -> Effect {
        let mutant = self.options.mutant;
        match order {
            Order::Inspect => Effect::Done(Fact::Found(self.world.inspect(vm, mutant))),
            Order::TakeLease { proof } => self.take_lease(vm, proof),
            Order::Adopt { seen } => self.adopt(vm, *seen),
            Order::Start { lease } => match self.world.may_start(vm, lease, mutant) {
                Ok(Some(pid)) => Effect::Done(Fact::Started { pid }), // a repetition
                Ok(None) => {
                    let (machine, held) = (&self.world.machines[vm], self.world.leases.of(lease.vm()));
                    self.checker.starts(self.world.now, machine, lease, held);
                    self.world.started(vm, lease)
                }
                Err(why) => Effect::Failed(why),
            },
            Order::ReleaseLease { .. } => Effect::Done(Fact::Nothing),
            Order::Capture { .. }
            | Order::Reach { .. }
            | Order::Perform { .. }
            | Order::PowerOff { .. }
            | Order::Rewind { .. } => self.world.carry_out(vm, order, mutant),
        }
    }

    fn take_lease(&mut self, vm: usize, proof: &DeathProof) -> Effect {
        if self.world.host.state_full {
            return Effect::Failed(Refusal::Refused(
                "cannot write the lease: no space left on device".into(),
            ));
        }
        let name = self.world.machines[vm].setup.name.clone();
        if self.is(Mutant::ReusesIncarnation) {
            let lease = self.world.leases.adopt(&name, Sighting::of(Eyewitness::here(), proof.incarnation()));
            self.checker.leases(self.world.now, &lease);
            return Effect::Done(Fact::Leased(lease));
        }
        match self.world.leases.take(proof) {
            Ok(lease) => {
                self.checker.leases(self.world.now, &lease);
                Effect::Done(Fact::Leased(lease))
            }
            Err(why) => Effect::Failed(Refusal::Refused(why)),
        }
    }

    fn adopt(&mut self, vm: usize, seen: Sighting) -> Effect {
        let incarnation = seen.incarnation();
        let machine = &mut self.world.machines[vm];
        if machine.incarnation() != Some(incarnation) {
            return Effect::Failed(Refusal::Refused(format!("incarnation {incarnation} does not run")));
        }
        if self.world.host.state_full {
            return Effect::Failed(Refusal::Refused(
                "cannot write the lease: no space left on device".into(),
            ));
        }
        let name = machine.setup.name.clone();
        let lease = match self.world.leases.of(&name) {
            Some(lease) if lease.incarnation() == incarnation => lease.clone(),
            Some(lease) if lease.incarnation() > incarnation => {
                return Effect::Failed(Refusal::Refused(format!(
                    "incarnation {} was leased since",
                    lease.incarnation()
                )));
            }
            Some(_) | None => self.world.leases.adopt(&name, seen),
        };
        machine.record.token = lease.token();
        Effect::Done(Fact::Leased(lease))
    }
}
