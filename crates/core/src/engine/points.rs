//! Restore points as a way back: which one, what it loses, and who may decide that.

use super::{Engine, VmState};
use crate::action::Rewind;
use crate::incident::{HeldReason, Incident, IncidentId, Phase};
use crate::plan::{Remedy, Ways, ladder};
use crate::point::{Known, PointId, Points, WayBack};
use crate::subject::VmName;
use crate::time::{Duration, show};
use crate::written::{Losses, Marks};

impl Engine {
    /// What the applications of a VM have written by now, of those that tell.
    #[must_use]
    pub fn written(&self, name: &VmName) -> Marks {
        self.vms.get(name).map(|vm| vm.view.written()).unwrap_or_default()
    }

    /// These are the restore points of a VM now. What was held for want of a way back is looked at again.
    pub(super) fn know_points(&mut self, name: &VmName, known: &[Known]) {
        let now = self.now;
        if let Some(vm) = self.vms.get_mut(name) {
            vm.points = Points::told(now, known.to_vec());
        }
        let open: Vec<IncidentId> =
            self.vms.get(name).into_iter().flat_map(VmState::open_incidents).collect();
        for id in open {
            self.look_for_way(id, name);
        }
    }

    /// What was left to a person, as nothing was left to go back to, may have a way back now.
    fn look_for_way(&mut self, id: IncidentId, name: &VmName) {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return };
        if incident.phase != Phase::Held(HeldReason::NoRemedy) {
            return;
        }
        let ways = self.ways(incident, vm);
        if ways_back(incident).iter().any(|remedy| ways.back(*remedy).is_some()) {
            if let Some(incident) = self.edit(id) {
                incident.phase = Phase::Suspected;
            }
            self.tell(id, "note", "there is a restore point now: it is looked at afresh".into());
            self.wake(name, self.now);
        } else if let Some(reason) = self.hold_for_approval(id, name) {
            self.hold(id, reason);
        }
    }

    /// What stands in the way of remedies: a point that would lose more than may be lost is none to go back to without a
    /// person.
    pub(super) fn ways(&self, incident: &Incident, vm: &VmState) -> Ways {
        let bound = vm.policy.max_data_loss;
        let way = |remedy, none| match self.best(incident, vm, Some(bound), &[remedy]) {
            _ if bound.is_zero() => Err("nothing may be lost without a person (`max_data_loss`)"),
            Some(way) => Ok(way),
            None if self.best(incident, vm, None, &[remedy]).is_some() => {
                Err("it would lose more than `max_data_loss`")
            }
            None => Err(none),
        };
        Ways {
            unplugged: vm.view.is_unplugged(),
            resume: way(Remedy::Resume, "no snapshot from before has a memory to go on with"),
            revert: way(Remedy::Revert, "there is no snapshot from before that was not tried"),
            restore: way(Remedy::Restore, "there is no backup from before that was not tried"),
        }
    }

    pub(super) fn best(
        &self,
        incident: &Incident,
        vm: &VmState,
        bound: Option<Duration>,
        kinds: &[Remedy],
    ) -> Option<WayBack> {
        vm.points.best(self.now, incident.times.down_since, bound, &tried(incident), kinds)
    }

    /// Where this remedy goes to.
    pub(super) fn way_of(&self, id: IncidentId, name: &VmName, remedy: Remedy) -> Option<WayBack> {
        let (vm, incident) = (self.vms.get(name)?, self.incidents.get(&id)?);
        self.ways(incident, vm).back(remedy).cloned()
    }

    /// The last rung has a try of its own, once in the window of the budget: else the rungs before would leave it none.
    pub(super) fn may_go_back(&self, vm: &VmState, remedy: Remedy) -> bool {
        let window = vm.policy.budget.within;
        remedy.goes_back() && vm.went_back.is_none_or(|at| self.now.since(at) >= window)
    }

    /// Nothing is left but a way back that a person has to agree to, if there is one: that is told.
    pub(super) fn hold_for_approval(&mut self, id: IncidentId, name: &VmName) -> Option<HeldReason> {
        let (vm, incident) = (self.vms.get(name)?, self.incidents.get(&id)?);
        let kinds = ways_back(incident);
        if kinds.is_empty() || incident.times.serving {
            return None;
        }
        let approve = format!("`holdfast approve {}", id.0);
        let text = match self.best(incident, vm, None, &kinds) {
            Some(way) => format!("{}: {approve}` goes back to it", describe(vm, &way)),
            None => {
                let since = incident.times.down_since;
                let way = vm.points.uncertain(self.now, since, &tried(incident), &kinds)?;
                format!("{}: {approve} {}` goes back to it all the same", doubt(&way), flag(way.point.id))
            }
        };
        if !incident.story.iter().any(|line| line.text == text) {
            self.tell(id, "plan", text);
        }
        Some(HeldReason::Approval)
    }
}

/// The order that goes there. A memory is never resumed a second time by ourselves (I23).
pub(super) const fn rewind(remedy: Remedy, way: &WayBack) -> Rewind {
    Rewind { to: way.point.id, resume: matches!(remedy, Remedy::Resume), again: false }
}

/// Why, and what it loses.
pub(super) fn with_loss(why: &str, vm: &VmState, way: &WayBack) -> String {
    let described = describe(vm, way);
    if why.is_empty() { described } else { format!("{described}; {why}") }
}

fn describe(vm: &VmState, way: &WayBack) -> String {
    let (point, loses) = (&way.point, show(way.loses));
    let lost = Losses::between(&point.written, &vm.view.written());
    let told = if lost.is_empty() { String::new() } else { format!(" ({lost})") };
    format!(
        "{} ({}) was taken {loses} before users were left without service; what was written since{told} is \
         set aside, and no longer what they see",
        point.id, point.grade
    )
}

/// What speaks against it, where it is not sure that the fault is not in it, too.
fn doubt(way: &WayBack) -> String {
    let point = &way.point;
    if point.doubtful {
        return format!("{} ({}) may hold what somebody encrypted or overwrote", point.id, point.grade);
    }
    format!(
        "{} ({}) was taken when users may have been without service already, and may have the fault in it",
        point.id, point.grade
    )
}

/// How `holdfast approve` is told of it.
fn flag(id: PointId) -> String {
    match id {
        PointId::Snapshot(id) => format!("--snapshot {id}"),
        PointId::Backup { backup } => format!("--backup {}", backup.0),
    }
}

/// The points that were gone back to in vain.
fn tried(incident: &Incident) -> Vec<PointId> {
    let counted = incident.attempts.iter().filter(|attempt| !attempt.forgiven);
    counted.filter_map(|attempt| attempt.to).collect()
}

/// The remedies that go back, of those that can end this fault.
pub(super) fn ways_back(incident: &Incident) -> Vec<Remedy> {
    ladder(incident.fault()).iter().copied().filter(|remedy| remedy.goes_back()).collect()
}
