//! A held VM that may do harm is made harmless, where its owner wants that: the last thing that is done by
//! itself, and the first that a person takes back.
//!
//! Never anything but cutting its cables or stopping its processors, and never on less than a remedy would
//! need: the fault sure on sufficient, fresh grounds (I10), the mode armed, no maintenance (I5), no brake
//! (I11), and the intent on record first (I8). While it is isolated it is not judged: the silence is ours.

use super::{Engine, VmState};
use crate::action::Reason;
use crate::diagnosis::Diagnosis;
use crate::evidence::Lens;
use crate::incident::{HeldReason, Incident, IncidentId};
use crate::isolate::{Isolated, Isolation, harm};
use crate::recover::{Goal, Job, Power};
use crate::signal::RunState;
use crate::subject::VmName;
use crate::time::Duration;

/// How long one try may take.
const LIMIT: Duration = Duration::from_secs(10);
/// After a try that failed, or of which nobody knows how it ended.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// So long after it was taken back what is heard may still be an answer of before: of an agent that is asked
/// how its cables are, or of an application that could not be reached.
const SETTLES: Duration = Duration::from_secs(6);
/// A fault that isolates is as sure as any that is acted upon, in parts of ten thousand.
const SURE: u16 = 7_500;

/// How the job of an isolation, or of its end, came out.
pub(super) enum Came<'a> {
    /// As wished.
    Done,
    /// It was not done.
    Failed(&'a str),
    /// Nobody knows.
    Unknown(&'a str),
}

impl Engine {
    /// Isolates a held VM if it is to be, and may be. `found` is what is seen now.
    pub(super) fn isolate_held(
        &mut self,
        id: IncidentId,
        name: &VmName,
        found: Option<Diagnosis>,
        lens: &Lens,
        reason: &HeldReason,
    ) {
        let Some(found) = found.filter(|found| self.must_isolate(id, name, found, lens, reason)) else {
            return;
        };
        let Some(vm) = self.vms.get_mut(name) else { return };
        let how = vm.policy.isolate;
        let Some(operation) = how.operation() else { return };
        vm.isolated = Some(Isolated { how, incident: id, since: None });
        vm.isolate_at = self.now + TRY_AGAIN;
        let harm = harm(found.fault).unwrap_or_default();
        self.revise(id, name, found); // what it stands on is kept
        self.tell_once(id, format!("{}, because {harm}", how.does()));
        self.begin_job(name, Job::new(Goal::Do(operation), Reason::Incident(id), LIMIT));
    }

    fn tell_once(&mut self, id: IncidentId, text: String) {
        let told = |incident: &Incident| incident.story.iter().any(|line| line.text == text);
        if self.incidents.get(&id).is_some_and(|incident| !told(incident)) {
            self.tell(id, "isolate", text);
        }
    }

    fn must_isolate(
        &self,
        id: IncidentId,
        name: &VmName,
        found: &Diagnosis,
        lens: &Lens,
        reason: &HeldReason,
    ) -> bool {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return false };
        let how = vm.policy.isolate;
        let hopeless = reason.is_hopeless() || *reason == HeldReason::BudgetSpent;
        let able = how.needs().is_some_and(|ability| vm.policy.abilities.contains(&ability));
        let armed = self.may_act(vm);
        let braked = self.brake.pulled().is_some() && !incident.drill;
        let free = vm.job.is_none() && vm.isolated.is_none() && matches!(vm.power, Power::On(_));
        let sure = found.grounds.suffice() && found.probability >= SURE && harm(found.fault).is_some();
        let serving = vm.serves(lens, found.settled_at());
        let due = self.now >= vm.isolate_at;
        hopeless && able && armed && !braked && free && sure && !serving && due && incident.is_confirmed()
    }

    /// An isolation of which nobody knows whether it was done is looked for, never repeated blindly (I9).
    pub(super) fn pursue_isolation(&mut self, name: &VmName) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(isolated) = vm.isolated.filter(|isolated| isolated.since.is_none()) else { return };
        match &vm.power {
            Power::On(_) if vm.job.is_some() => {}
            Power::On(_) if is_isolated(vm, isolated.how) => self.isolated(name),
            Power::On(_) if self.now < vm.isolate_at => {}
            Power::On(_) | Power::Off(_) => vm.isolated = None, // it is not: it is judged again
            Power::Unknown => {}
        }
    }

    /// It is isolated now.
    fn isolated(&mut self, name: &VmName) {
        let now = self.now;
        let Some(isolated) = self.vms.get_mut(name).and_then(|vm| vm.isolated.as_mut()) else { return };
        isolated.since = Some(now);
        let (id, says) = (isolated.incident, isolated.how.says());
        self.interrupt_service(id);
        if let Some(incident) = self.edit(id).filter(|incident| !incident.is_closed()) {
            incident.times.isolated = Some(now);
            incident.tell(now, "isolate", format!("{says}; `holdfast vm release {name}` takes it back"));
        }
    }

    /// A job is over: was it an isolation, or the end of one?
    pub(super) fn after_isolation(&mut self, name: &VmName, job: &Job, came: &Came<'_>) {
        let Goal::Do(operation) = &job.goal else { return };
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(isolated) = vm.isolated else { return };
        let begins =
            job.incident() == Some(isolated.incident) && isolated.how.operation().as_ref() == Some(operation);
        let ends = job.incident().is_none() && isolated.how.undo().as_ref() == Some(operation);
        let id = isolated.incident;
        match came {
            Came::Done if begins => self.isolated(name),
            Came::Done if ends => {
                self.end_isolation(name, "the isolation is taken back: it is looked at afresh");
            }
            Came::Failed(why) if begins => {
                vm.isolated = None;
                self.tell_once(
                    id,
                    format!("not isolated: {why}; `holdfast vm pause {name}` does it by hand"),
                );
            }
            Came::Unknown(why) if begins => {
                self.tell_once(id, format!("not known whether it is isolated: {why}; looking"));
            }
            Came::Failed(why) | Came::Unknown(why) if ends => {
                self.tell(id, "isolate", format!("the isolation was not taken back: {why}"));
            }
            Came::Done | Came::Failed(_) | Came::Unknown(_) => {}
        }
    }

    /// It is no longer isolated, or its machine is gone.
    pub(super) fn end_isolation(&mut self, name: &VmName, why: &str) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(isolated) = vm.isolated.take() else { return };
        vm.view.look_away();
        vm.view.begin_silence(now);
        vm.judge_from = now + SETTLES;
        vm.isolate_at = now;
        let open = self.incidents.get(&isolated.incident).is_some_and(|incident| !incident.is_closed());
        if open {
            self.tell(isolated.incident, "isolate", why.to_owned());
        }
    }

    /// A person wants it back as it was; `true` if something is being done for that.
    pub(super) fn take_isolation_back(&mut self, name: &VmName, reason: Reason) -> bool {
        let Some(vm) = self.vms.get(name) else { return false };
        let Some(isolated) = vm.isolated else { return false };
        match (&vm.power, isolated.how.undo()) {
            (Power::On(_), Some(undo)) => {
                self.begin_job(name, Job::new(Goal::Do(undo), reason, LIMIT));
                true
            }
            (Power::Off(_), _) => {
                self.end_isolation(name, "the isolation is over: its process is gone");
                false
            }
            (Power::On(_) | Power::Unknown, _) => false,
        }
    }
}

/// It is already as isolation would make it.
fn is_isolated(vm: &VmState, how: Isolation) -> bool {
    match how {
        Isolation::Network => vm.view.is_unplugged(),
        Isolation::Pause => vm.view.run_state() == Some(RunState::Paused),
        Isolation::None | Isolation::Power => false,
    }
}
