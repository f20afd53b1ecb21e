//! A person's word that an incident is ended by going back: carried out, waited for, withdrawn.

use super::points::{rewind, ways_back, with_loss};
use super::{Engine, VmState};
use crate::action::{Command, Order, Reason};
use crate::evidence::Lens;
use crate::incident::{AttemptResult, HeldReason, Incident, IncidentId, Phase};
use crate::plan::{Plan, Remedy};
use crate::point::PointId;
use crate::recover::{Power, Step};
use crate::subject::VmName;
use crate::time::{Duration, Timestamp, show};

/// What stands in the way of it here is looked at again after this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Users that are served again for so long need no way back.
const WELL_AFTER: Duration = Duration::from_secs(2);
/// Why it was not done.
const WELL_AGAIN: &str = "users are served again";

impl Engine {
    /// A person agrees to go back, whatever that loses.
    pub(super) fn approve(
        &mut self,
        command: &Command,
        id: IncidentId,
        to: Option<PointId>,
    ) -> Result<(), String> {
        let name = &command.vm;
        self.is_watched(name)?;
        if self.reaches(name) != Some(true) {
            self.is_busy(name)?; // what is only waited for is replaced
        }
        let plan = self.approved_plan(command, id, to)?;
        self.withdraw(name, &command.by);
        self.confirm(id, name, false);
        let again = self.incidents.get(&id).is_some_and(|incident| incident.tries_again(plan.remedy));
        if again {
            self.tell(id, "plan", format!("{}, once more; {}", plan.remedy, plan.why));
        }
        self.begin_approved(id, name, plan);
        Ok(())
    }

    /// A person's way back was gone, and whether that helps is not known yet: another one would end what boots.
    fn is_watched(&self, name: &VmName) -> Result<(), String> {
        let open = self.vms.get(name).into_iter().flat_map(VmState::open_incidents);
        for incident in open.filter_map(|id| self.incidents.get(&id)) {
            let plan = incident.plan.as_ref().filter(|_| matches!(incident.phase, Phase::Verifying { .. }));
            let Some((plan, by)) = plan.and_then(|plan| Some((plan, plan.approved_by.as_ref()?))) else {
                continue;
            };
            let ago = show(self.now.since(incident.times.recovered.unwrap_or(self.now)));
            let to = plan.to.map_or_else(|| plan.remedy.to_string(), |to| to.to.to_string());
            return Err(format!(
                "it went back to {to} {ago} ago, as {by} approved, and is being watched whether that helps: wait \
                 for that (`holdfast explain {}`), or stop the VM",
                incident.id.0
            ));
        }
        Ok(())
    }

    /// What would be done, or why nothing is.
    fn approved_plan(&self, command: &Command, id: IncidentId, to: Option<PointId>) -> Result<Plan, String> {
        let name = &command.vm;
        let vm = self.vms.get(name).filter(|vm| vm.open_incidents().any(|open| open == id));
        let (Some(vm), Some(incident)) = (vm, self.incidents.get(&id)) else {
            return Err(format!("{id} is no open incident of `{name}`"));
        };
        if vm.in_maintenance() {
            return Err("it is in maintenance: end that first".into());
        }
        if self.muted {
            return Err("the journal cannot be written, so nothing is done".into());
        }
        let way = match to {
            Some(to) => vm.points.find(to, self.now, incident.times.down_since),
            None => self.best(incident, vm, None, &ways_back(incident)),
        };
        let way = way.ok_or_else(|| match to {
            Some(to) => format!("it has no {to}"),
            None => format!(
                "there is no restore point from before the fault; `holdfast points {name}` lists all: name one"
            ),
        })?;
        if let Some(since) = served_since(vm, incident, &self.lens(vm)) {
            let (again, point) = (show(self.now.since(since)), way.point.id);
            return Err(format!(
                "users have been served again for {again}, and {point} would take that from them: `{}` goes back all \
                 the same, and asks before",
                by_hand(name, point)
            ));
        }
        let remedy = match way.point.id {
            PointId::Backup { .. } => Remedy::Restore,
            PointId::Snapshot(_) if way.point.resumable => Remedy::Resume,
            PointId::Snapshot(_) => Remedy::Revert,
        };
        let (verify_for, tries) = (vm.policy.verify_for, vm.policy.budget.tries);
        let why = with_loss(&format!("approved by {}", command.by), vm, &way);
        let (to, approved_by) = (Some(rewind(remedy, &way)), Some(command.by.clone()));
        Ok(Plan { remedy, threshold: 0, try_number: tries + 1, tries, verify_for, why, to, approved_by })
    }

    fn begin_approved(&mut self, id: IncidentId, name: &VmName, plan: Plan) {
        if let Some(incident) = self.edit(id) {
            incident.approved = Some(plan.clone());
        }
        self.carry_out_plan(id, name, plan);
    }

    /// The wait for what a person approved is over for now: is it begun again, or has he to say it again? Whether this incident
    /// waits for that at all.
    pub(super) fn go_on_approved(&mut self, id: IncidentId, name: &VmName, lens: &Lens) -> bool {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return false };
        let Some(plan) = incident.approved.clone() else { return false };
        let busy = self.muted || vm.job.is_some() || vm.power == Power::Unknown;
        let served = served_since(vm, incident, lens);
        if served.is_some_and(|since| self.now.since(since) >= WELL_AFTER) {
            self.hold(id, HeldReason::Approval);
        } else if busy || served.is_some() {
            let until = self.now + LOOK_EVERY;
            if let Some(Incident { phase: Phase::Waiting { until: at, .. }, .. }) = self.edit(id) {
                *at = until;
            }
        } else {
            self.begin_approved(id, name, plan);
        }
        true
    }

    /// One that is isolated is not judged, and what a person approved for it is waited for all the same.
    pub(super) fn mind_approved(&mut self, name: &VmName, lens: &Lens) {
        let Some(vm) = self.vms.get(name).filter(|vm| vm.isolated.is_some() && vm.job.is_none()) else {
            return;
        };
        let due = |id: &IncidentId| {
            let incident = self.incidents.get(id);
            incident.is_some_and(|it| matches!(it.phase, Phase::Waiting { until, .. } if until <= self.now))
        };
        let due: Vec<IncidentId> = vm.open_incidents().filter(due).collect();
        for id in due {
            self.go_on_approved(id, name, lens);
        }
    }

    /// What a person approved is about to end a VM whose users are served again, since it was last looked.
    pub(super) fn is_well_again(&self, name: &VmName, reason: &Reason, order: &Order) -> bool {
        let (Some(vm), Reason::Incident(id)) = (self.vms.get(name), reason) else { return false };
        let approved = self.incidents.get(id).filter(|incident| incident.approved.is_some());
        let lens = self.lens(vm);
        order.is_destructive() && approved.is_some_and(|it| served_since(vm, it, &lens).is_some())
    }

    /// So nothing is ended, and it is seen whether they stay served.
    pub(super) fn leave_well(&mut self, name: &VmName) {
        let until = self.now + LOOK_EVERY;
        let job = self.vms.get_mut(name).and_then(|vm| vm.job.take());
        let Some(id) = job.and_then(|job| job.incident()) else { return };
        self.break_off(id, name, WELL_AGAIN);
        if let Some(incident) = self.edit(id) {
            incident.phase = Phase::Waiting { until, why: WELL_AGAIN.into() };
        }
    }

    /// Nothing of it was done yet.
    fn break_off(&mut self, id: IncidentId, name: &VmName, why: &str) {
        let now = self.now;
        self.take_back(id, name);
        if let Some(incident) = self.edit(id) {
            incident.end_attempt(now, AttemptResult::Blocked(why.into()));
        }
    }

    /// It is only seen whether the restore point can be had that a person approved: nothing is changed yet. Whether it was
    /// waited for before.
    fn reaches(&self, name: &VmName) -> Option<bool> {
        let job = self.vms.get(name)?.job.as_ref().filter(|job| job.step == Step::Reaching)?;
        let incident = self.incidents.get(&job.incident()?)?;
        incident.approved.as_ref().map(|plan| incident.tried_before(plan.remedy))
    }

    /// A person thinks better of what was approved and could not be done yet.
    pub(super) fn withdraw(&mut self, name: &VmName, by: &str) {
        if self.reaches(name).is_some() {
            let job = self.vms.get_mut(name).and_then(|vm| vm.job.take());
            if let Some(id) = job.and_then(|job| job.incident()) {
                self.break_off(id, name, &format!("withdrawn by {by}"));
                self.be_held(id);
            }
        }
        let open: Vec<IncidentId> =
            self.vms.get(name).into_iter().flat_map(VmState::open_incidents).collect();
        let waits = |id: &IncidentId| {
            let incident = self.incidents.get(id);
            incident.is_some_and(|it| it.approved.is_some() && it.phase != Phase::Recovering)
        };
        let waiting: Vec<IncidentId> = open.into_iter().filter(waits).collect();
        for id in waiting {
            self.no_longer_approved(id);
            self.be_held(id);
        }
    }

    /// As it was before that was approved.
    fn be_held(&mut self, id: IncidentId) {
        if let Some(incident) = self.edit(id) {
            incident.phase = Phase::Held(HeldReason::Approval);
        }
    }

    /// What a person approved is over with what it was approved for, and its story says so.
    pub(super) fn no_longer_approved(&mut self, id: IncidentId) {
        let Some(plan) = self.incidents.get_mut(&id).and_then(|incident| incident.approved.take()) else {
            return;
        };
        let by = plan.approved_by.unwrap_or_default();
        let to = plan.to.map_or_else(|| plan.remedy.to_string(), |to| to.to.to_string());
        self.tell(id, "note", format!("going back to {to}, as {by} approved it, is not waited for any more"));
    }

    /// It was broken off, before or after it had begun to change anything. What was approved is begun again only in the first case.
    pub(super) fn after_break(&mut self, id: IncidentId, name: &VmName, begun: bool) {
        let (until, why) = (self.now + LOOK_EVERY, "it was broken off, and is begun again");
        let waits = !begun && self.incidents.get(&id).is_some_and(|incident| incident.approved.is_some());
        if waits {
            self.break_off(id, name, why);
        }
        let Some(incident) = self.edit(id) else { return };
        incident.approved.take_if(|_| !waits);
        incident.phase = if waits { Phase::Waiting { until, why: why.into() } } else { Phase::Suspected };
    }
}

/// What a person approved has to wait: that is told once each time that he says so.
pub(super) fn tell_waits(incident: &mut Incident, at: Timestamp, remedy: Remedy, why: &str) {
    let mut since = incident.story.iter().rev().take_while(|line| line.step != "plan");
    if since.all(|line| line.step != "recover") {
        let text =
            format!("{remedy} has to wait: {why}; as approved, it is tried again until it can be done");
        incident.tell(at, "recover", text);
    }
}

/// How one goes there without any fault.
fn by_hand(name: &VmName, point: PointId) -> String {
    match point {
        PointId::Snapshot(id) => format!("holdfast snapshot revert {name} {id}"),
        PointId::Backup { backup } => format!("holdfast backup revert {name} {}", backup.0),
    }
}

/// Since when the users of what an incident is about are served, if they are.
fn served_since(vm: &VmState, incident: &Incident, lens: &Lens) -> Option<Timestamp> {
    vm.view.served_since(lens, incident.app()).filter(|_| matches!(vm.power, Power::On(_)))
}
