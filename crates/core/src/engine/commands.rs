//! What persons ask for. A person always wins over the engine (S12), and is told at once when not.

use super::service::is_served;
use super::{Desired, Engine};
use crate::action::{Command, Operation, Reason, Rewind, Wish, Work};
use crate::diagnosis::{Fault, is_warning};
use crate::incident::{HeldReason, IncidentId, Phase, Resolution};
use crate::recover::{Goal, Job, Power, Step};
use crate::subject::VmName;
use crate::time::{Duration, Timestamp};

/// The longest announcement; work that takes longer is announced again.
const LONGEST_WORK: Duration = Duration::from_secs(24 * 3_600);
pub(super) const OPERATION: Duration = Duration::from_secs(10);

impl Engine {
    /// Carries out a command, or says why not.
    pub(super) fn carry_out(&mut self, command: &Command) -> Result<(), String> {
        let name = &command.vm;
        if !self.vms.contains_key(name) {
            let known: Vec<&str> = self.vms.keys().map(VmName::as_str).collect();
            return Err(format!("no vm is called `{name}`; there are: {}", known.join(", ")));
        }
        match &command.wish {
            Wish::Start => self.wish_start(command),
            Wish::Stop { grace } => self.wish_stop(command, *grace),
            Wish::Restart { grace } => self.wish_restart(command, *grace),
            Wish::Rewind(to) => self.wish_rewind(command, *to),
            Wish::Approve { incident, to } => self.approve(command, *incident, *to),
            Wish::Pause => self.wish_operation(command, Operation::Pause),
            Wish::Resume => self.wish_operation(command, Operation::Continue),
            Wish::MaintenanceOn { until } => self.maintenance_on(name, until.unwrap_or(Timestamp::NEVER)),
            Wish::MaintenanceOff => self.maintenance_off(name),
            Wish::Release => self.release(command),
            Wish::Announce { work, until } => self.announce(name, *work, *until),
            Wish::WorkDone(work) => self.work_done(name, *work),
            Wish::GiveUp(id) => self.give_up(name, *id),
        }
    }

    pub(super) fn is_busy(&self, name: &VmName) -> Result<(), String> {
        let Some(vm) = self.vms.get(name) else { return Ok(()) };
        match &vm.job {
            Some(job) if job.goal == Goal::Look => {
                Err("its state is being looked at; try again in a moment".into())
            }
            Some(job) => Err(format!("{} is under way; wait for it or stop the VM", job.goal.name())),
            None if vm.power == Power::Unknown => {
                Err("its state is not known yet; try again in a moment".into())
            }
            None => Ok(()),
        }
    }

    fn wish_start(&mut self, command: &Command) -> Result<(), String> {
        let name = &command.vm;
        self.close_all(name, &Resolution::Superseded { by: command.by.clone() });
        let reason = Reason::Command(command.id);
        let idle = self.vms.get(name).is_some_and(|vm| vm.job.is_none());
        if idle && self.take_isolation_back(name, reason) {
            return Ok(());
        }
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        vm.desired = Desired::Running;
        vm.view.settled();
        vm.goes_on_after_stop(true, command.id); // it was only just told to stop: so it starts again, and nothing has crashed
        vm.owed = Some(command.id);
        self.pay(name);
        Ok(())
    }

    fn wish_stop(&mut self, command: &Command, grace: Duration) -> Result<(), String> {
        let name = &command.vm;
        self.close_all(name, &Resolution::Superseded { by: command.by.clone() });
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        vm.desired = Desired::Stopped { by: command.by.clone(), grace };
        vm.paused_by = None;
        vm.isolated = None;
        vm.goes_on_after_stop(false, command.id);
        let asks_gently =
            matches!(&vm.job, Some(job) if matches!(job.step, Step::Asking | Step::AwaitingEnd { .. }));
        if asks_gently && grace.is_zero() {
            vm.job = None; // stop now, after having asked gently: do not wait any longer
        }
        vm.owed = Some(command.id);
        self.pay(name);
        Ok(())
    }

    fn wish_restart(&mut self, command: &Command, grace: Duration) -> Result<(), String> {
        let name = &command.vm;
        self.is_busy(name)?;
        self.takes_over(command);
        let goal = Goal::Down { grace, then_up: true };
        self.begin_job(name, Job::new(goal, Reason::Command(command.id), OPERATION));
        Ok(())
    }

    /// A person has it end and start again: what was open is his, and from now on it is to run.
    fn takes_over(&mut self, command: &Command) {
        let name = &command.vm;
        self.close_all(name, &Resolution::Superseded { by: command.by.clone() });
        if let Some(vm) = self.vms.get_mut(name) {
            vm.desired = Desired::Running;
            vm.owed = None;
            vm.paused_by = None;
            vm.isolated = None;
        }
    }

    /// A person goes back to a snapshot: whatever was wrong is over with what it was wrong with.
    fn wish_rewind(&mut self, command: &Command, to: Rewind) -> Result<(), String> {
        let name = &command.vm;
        self.is_busy(name)?;
        self.takes_over(command);
        if let Some(vm) = self.vms.get_mut(name) {
            vm.view.settled();
            vm.not_back = None;
        }
        self.begin_job(name, Job::new(Goal::Rewind(to), Reason::Command(command.id), OPERATION));
        Ok(())
    }

    fn wish_operation(&mut self, command: &Command, operation: Operation) -> Result<(), String> {
        let name = &command.vm;
        self.is_busy(name)?;
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        if !matches!(vm.power, Power::On(_)) {
            return Err("it does not run".into());
        }
        let paused = vm.paused_by.take().is_some();
        vm.paused_by = (operation == Operation::Pause).then(|| command.by.clone());
        self.look_at_points(name); // while it is paused, none is made and none is missed
        if operation == Operation::Continue {
            self.close_all(name, &Resolution::Superseded { by: command.by.clone() });
            if !paused && self.take_isolation_back(name, Reason::Command(command.id)) {
                return Ok(());
            }
        }
        self.begin_job(name, Job::new(Goal::Do(operation), Reason::Command(command.id), OPERATION));
        Ok(())
    }

    /// From this very step on no intent is made for it (I5): the engine is the only one that makes them.
    fn maintenance_on(&mut self, name: &VmName, until: Timestamp) -> Result<(), String> {
        if until <= self.now {
            return Err("that moment has passed".into());
        }
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        vm.maintenance = Some(until);
        if vm.job.as_ref().is_some_and(|job| job.incident().is_some() || job.reason == Reason::Upkeep) {
            self.stop_automatic_job(name, Some(HeldReason::Maintenance));
        }
        let open: Vec<_> = self.vms.get(name).map(|vm| vm.open_incidents().collect()).unwrap_or_default();
        let isolated = self.vms.get(name).and_then(|vm| vm.isolated).map(|isolated| isolated.incident);
        for id in open.into_iter().filter(|id| Some(*id) != isolated) {
            self.hold(id, HeldReason::Maintenance);
        }
        Ok(())
    }

    fn maintenance_off(&mut self, name: &VmName) -> Result<(), String> {
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        vm.maintenance.take().map(|_| ()).ok_or_else(|| "it is not in maintenance".to_owned())
    }

    fn release(&mut self, command: &Command) -> Result<(), String> {
        let name = &command.vm;
        if self.vms.get(name).is_some_and(|vm| vm.isolated.is_some()) {
            self.is_busy(name)?;
            self.take_isolation_back(name, Reason::Command(command.id));
        }
        if self.brake.pulled().is_some() {
            self.brake.release();
        }
        self.withdraw(name, &command.by);
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        let under_way = vm.job.as_ref().is_some_and(|job| job.incident().is_some());
        vm.tries.forget();
        vm.overrun.clear();
        if under_way {
            vm.tries.spend(self.now, &vm.policy.budget); // it was begun before, and counts from now on (I6)
        }
        vm.view.dealt_with();
        let open: Vec<_> = vm.open_incidents().collect();
        for id in open {
            if self.was_only_told(id, name) {
                self.tell(id, "note", format!("released by {}: it is dealt with", command.by));
                self.close(id, name, Resolution::Superseded { by: command.by.clone() });
                continue;
            }
            let Some(incident) = self.edit(id) else { continue };
            if matches!(incident.phase, Phase::Held(_)) {
                incident.attempts.iter_mut().for_each(|attempt| attempt.forgiven = true);
                incident.phase = Phase::Suspected;
                self.tell(id, "note", format!("released by {}: it is looked at afresh", command.by));
            }
        }
        Ok(())
    }

    /// It rests on lines of a log alone, users are served, and nothing is or was done about it: whether it is dealt with,
    /// only a person can know.
    fn was_only_told(&self, id: IncidentId, name: &VmName) -> bool {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return false };
        let told =
            matches!(incident.phase, Phase::Suspected | Phase::Held(_)) && incident.attempts.is_empty();
        let fault = incident.fault();
        let of_lines = is_warning(fault) && fault != Fault::AppSlow; // that is measured
        told && of_lines && is_served(vm, incident.app(), None, &self.lens(vm))
    }

    fn announce(&mut self, name: &VmName, work: Work, until: Timestamp) -> Result<(), String> {
        if until <= self.now || until.since(self.now) > LONGEST_WORK {
            return Err("announced work must end within the next 24 hours".into());
        }
        if let Some(vm) = self.vms.get_mut(name) {
            vm.works.insert(work, until);
            vm.overrun.remove(&work);
        }
        Ok(())
    }

    fn work_done(&mut self, name: &VmName, work: Work) -> Result<(), String> {
        let removed =
            self.vms.get_mut(name).and_then(|vm| vm.works.remove(&work).or(vm.overrun.remove(&work)));
        removed.map(|_| ()).ok_or_else(|| "that work was not announced".to_owned())
    }
}
