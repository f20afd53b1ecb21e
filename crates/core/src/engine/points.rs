//! Snapshots as a way back: which one, what it loses, and who may decide that.

use super::{Engine, VmState};
use crate::action::{Command, Rewind};
use crate::incident::{HeldReason, Incident, IncidentId};
use crate::plan::{Plan, Remedy, Ways, ladder};
use crate::point::{Known, Points, SnapshotId, WayBack};
use crate::subject::VmName;
use crate::time::{Duration, show};

impl Engine {
    /// These are the snapshots of a VM now.
    pub(super) fn know_points(&mut self, name: &VmName, known: &[Known]) {
        let now = self.now;
        if let Some(vm) = self.vms.get_mut(name) {
            vm.points = Points::told(now, known.to_vec());
        }
    }

    /// What stands in the way of remedies: a snapshot that would lose more than may be lost is none to go back to
    /// without a person.
    pub(super) fn ways(&self, incident: &Incident, vm: &VmState) -> Ways {
        let bound = vm.policy.max_data_loss;
        let way = |resume| match self.best(incident, vm, Some(bound), resume) {
            _ if bound.is_zero() => Err("nothing may be lost without a person (`max_data_loss`)"),
            Some(way) => Ok(way),
            None if self.best(incident, vm, None, resume).is_some() => {
                Err("it would lose more than `max_data_loss`")
            }
            None if resume => Err("no snapshot from before has a memory to go on with"),
            None => Err("there is no snapshot from before that was not tried"),
        };
        Ways { unplugged: vm.view.is_unplugged(), resume: way(true), revert: way(false) }
    }

    fn best(
        &self,
        incident: &Incident,
        vm: &VmState,
        bound: Option<Duration>,
        resume: bool,
    ) -> Option<WayBack> {
        let tried: Vec<SnapshotId> = incident
            .attempts
            .iter()
            .filter(|attempt| !attempt.forgiven)
            .filter_map(|attempt| attempt.to)
            .collect();
        vm.points.best(self.now, incident.times.down_since, bound, &tried, resume)
    }

    /// Where this remedy goes to.
    pub(super) fn way_of(&self, id: IncidentId, name: &VmName, remedy: Remedy) -> Option<WayBack> {
        let (vm, incident) = (self.vms.get(name)?, self.incidents.get(&id)?);
        let ways = self.ways(incident, vm);
        match remedy {
            Remedy::Resume => ways.resume.ok(),
            Remedy::Revert => ways.revert.ok(),
            Remedy::ResumeIo
            | Remedy::Reconnect
            | Remedy::RestartApp
            | Remedy::ResetGuest
            | Remedy::RestartVm
            | Remedy::FailOver
            | Remedy::Restore
            | Remedy::Hold => None,
        }
    }

    /// The last rung has a try of its own, once in the window of the budget: else the rungs before would leave it none.
    pub(super) fn may_go_back(&self, vm: &VmState, remedy: Remedy) -> bool {
        let window = vm.policy.budget.within;
        remedy.goes_back() && vm.went_back.is_none_or(|at| self.now.since(at) >= window)
    }

    /// Nothing is left but a way back that a person has to agree to, if there is one: that is told.
    pub(super) fn hold_for_approval(&mut self, id: IncidentId, name: &VmName) -> Option<HeldReason> {
        let (vm, incident) = (self.vms.get(name)?, self.incidents.get(&id)?);
        let helps = ladder(incident.fault()).contains(&Remedy::Revert);
        if !helps || incident.times.serving {
            return None;
        }
        let way = self.best(incident, vm, None, false)?;
        let text = format!("{}: `holdfast approve {}` goes back to it", describe(&way), id.0);
        if !incident.story.iter().any(|line| line.text == text) {
            self.tell(id, "plan", text);
        }
        Some(HeldReason::Approval)
    }

    /// A person agrees to go back, whatever that loses.
    pub(super) fn approve(
        &mut self,
        command: &Command,
        id: IncidentId,
        to: Option<SnapshotId>,
    ) -> Result<(), String> {
        let name = &command.vm;
        self.is_busy(name)?;
        let vm = self.vms.get(name).filter(|vm| vm.open_incidents().any(|open| open == id));
        let (Some(vm), Some(incident)) = (vm, self.incidents.get(&id)) else {
            return Err(format!("{id} is no open incident of `{name}`"));
        };
        if vm.in_maintenance() {
            return Err("it is in maintenance: end that first, or use `holdfast snapshot revert`".into());
        }
        if self.muted {
            return Err("the journal cannot be written, so nothing is done".into());
        }
        let way = match to {
            Some(to) => vm.points.find(to, self.now, incident.times.down_since),
            None => self.best(incident, vm, None, false),
        };
        let way = way.ok_or("there is no such snapshot from before the fault")?;
        let remedy = if way.point.resumable { Remedy::Resume } else { Remedy::Revert };
        let (verify_for, tries) = (vm.policy.verify_for, vm.policy.budget.tries);
        let why = with_loss(&format!("approved by {}", command.by), &way);
        let to = Some(rewind(remedy, &way));
        let plan = Plan { remedy, threshold: 0, try_number: tries + 1, tries, verify_for, why, to };
        self.confirm(id, name, false);
        self.carry_out_plan(id, name, plan);
        Ok(())
    }
}

/// The order that goes there. A memory is never resumed a second time by ourselves (I23).
pub(super) const fn rewind(remedy: Remedy, way: &WayBack) -> Rewind {
    Rewind { to: way.point.id, resume: matches!(remedy, Remedy::Resume), again: false }
}

/// Why, and what it loses.
pub(super) fn with_loss(why: &str, way: &WayBack) -> String {
    if why.is_empty() { describe(way) } else { format!("{}; {why}", describe(way)) }
}

fn describe(way: &WayBack) -> String {
    let (point, loses) = (&way.point, show(way.loses));
    format!(
        "snapshot {} ({}) was taken {loses} before users were left without service; what was written since is set \
         aside, and no longer what they see",
        point.id, point.grade
    )
}
