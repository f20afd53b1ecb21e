//! From a diagnosis to a plan: sure enough, allowed, begun; or held, with the reason. And its end.

use super::points::{rewind, with_loss};
use super::{Engine, VmState};
use crate::action::{Operation, Reason};
use crate::diagnosis::Fault;
use crate::evidence::Lens;
use crate::incident::{HeldReason, Incident, IncidentId, Phase, Resolution};
use crate::isolate::Isolation;
use crate::plan::{Plan, Remedy, choose, ladder};
use crate::policy::Mode;
use crate::recover::{Goal, Job, Power};
use crate::subject::{AppName, VmName};
use crate::time::{Duration, Timestamp, show};

/// Below this no fault is called confirmed, however cheap its remedy, in parts of ten thousand.
const LEAST_SURE: u16 = 7_500;
/// A fault that only a person can end is one if it lasts so long.
const HOLD_AFTER: Duration = Duration::from_secs(5);
/// Resuming a paused VM is tried this often at first, later rarely: it costs the guest nothing.
const RESUME_SOON: Duration = Duration::from_secs(1);
const RESUME_LATER: Duration = Duration::from_secs(5);
const RESUMES_SOON: Duration = Duration::from_secs(600);
/// A VM of which nobody knows whether it runs is being looked at, which does not take long.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// A VM that is being worked on is looked at again after this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why nothing is begun just after a stall.
pub(super) const HEAR_FIRST: &str = "what is true now is heard first";
/// Faults that no further sign has told apart for so long, none will.
const LONG_UNDECIDED: Duration = Duration::from_secs(30);
/// What is told of the VM that was one too many (I11).
pub(super) const BRAKE_PULLED: &str = "the storm brake is pulled: too many VMs look failed at once (I11)";

impl Engine {
    /// Sure enough for the gentlest remedy that is left? Then plan it, or hold.
    pub(super) fn try_confirm(&mut self, id: IncidentId, name: &VmName, lens: &Lens) {
        let Some((remedy, passed)) = self.remedy_for(id, name, lens) else { return };
        let drill = self.vms.get(name).is_some_and(VmState::in_drill);
        self.confirm(id, name, drill);
        self.plan(id, name, remedy, passed);
    }

    /// The gentlest remedy that is left, if we are sure enough for it, and why the gentler ones are not.
    pub(super) fn remedy_for(&self, id: IncidentId, name: &VmName, lens: &Lens) -> Option<(Remedy, String)> {
        let (vm, incident) = (self.vms.get(name)?, self.incidents.get(&id)?);
        let diagnosis = &incident.diagnosis;
        let tried: Vec<Remedy> = incident.attempts.iter().filter(|a| !a.forgiven).map(|a| a.remedy).collect();
        if diagnosis.is_forecast() {
            return None; // it has not happened yet
        }
        // A damaged image is not started: that may damage more of it. One that is not there cannot be.
        let startable = !matches!(diagnosis.fault, Fault::ImageCorrupt | Fault::ImageLost);
        let dead = matches!(vm.power, Power::Off(_)) && startable;
        let (remedy, passed) = if dead {
            (Remedy::RestartVm, "the VM does not run".to_owned())
        } else {
            {
                let (fault, app) = (diagnosis.fault, diagnosis.app.as_ref());
                let ways = self.ways(incident, vm);
                choose(fault, self.lessons_in_use(), app, &vm.policy, &tried, &ways)
            }
        };
        if self.is_sure_of(incident, vm, remedy, &tried, lens, dead) {
            return Some((remedy, passed));
        }
        // A way back that we are not sure of is a person's to decide.
        let person = remedy.goes_back() && self.is_sure_of(incident, vm, Remedy::Hold, &tried, lens, dead);
        person
            .then(|| (Remedy::Hold, format!("{passed}; {remedy} passed over: too little is seen to be sure")))
    }

    /// Whether we are sure enough for this remedy, on grounds that suffice, and it harms nobody who is served.
    fn is_sure_of(
        &self,
        incident: &Incident,
        vm: &VmState,
        remedy: Remedy,
        tried: &[Remedy],
        lens: &Lens,
        dead: bool,
    ) -> bool {
        let diagnosis = &incident.diagnosis;
        let threshold = remedy.threshold().max(LEAST_SURE);
        // Once a remedy has failed, the name of the fault matters less than whether the next one ends it.
        let ends = |fault| ladder(fault).contains(&remedy);
        let helps = incident.named.is_some() && diagnosis.share_of(ends) >= threshold;
        let sure = diagnosis.probability >= threshold || helps || dead;
        let sure = sure || self.is_the_same_to_all(incident, vm, remedy, tried);
        let grounded = !remedy.is_destructive() || diagnosis.grounds.suffice() || dead;
        let serving = vm.serves(lens, diagnosis.settled_at());
        let harmless = !remedy.is_destructive() || dead || !serving;
        let lasted = self.now.since(incident.times.opened);
        if remedy == Remedy::Hold && incident.attempts.is_empty() && lasted < HOLD_AFTER {
            return false; // a person is not called for what passes
        }
        sure && grounded && harmless
    }

    /// For long two faults have been likely, a panic or a hang, say, and this is the next remedy for either: then it
    /// matters no more which of them it is.
    fn is_the_same_to_all(
        &self,
        incident: &Incident,
        vm: &VmState,
        remedy: Remedy,
        tried: &[Remedy],
    ) -> bool {
        let (diagnosis, ways) = (&incident.diagnosis, self.ways(incident, vm));
        let (app, lessons) = (diagnosis.app.as_ref(), self.lessons_in_use());
        let next = |fault| choose(fault, lessons, app, &vm.policy, tried, &ways).0 == remedy;
        let long = self.now.since(incident.times.opened) >= LONG_UNDECIDED;
        let likely = remedy != Remedy::Hold && diagnosis.probability >= LEAST_SURE;
        long && likely && diagnosis.share_of(next) >= remedy.threshold()
    }

    pub(super) fn confirm(&mut self, id: IncidentId, name: &VmName, drill: bool) {
        let now = self.now;
        let Some(incident) = self.incidents.get(&id) else { return };
        if incident.named.is_some() {
            return;
        }
        let text = self.describe(&incident.subject.to_string(), &incident.diagnosis, "confirmed");
        let wide = incident.app().is_none();
        if let Some(incident) = self.edit(id) {
            incident.named = Some(incident.diagnosis.clone());
            incident.times.diagnosed = Some(now);
            incident.drill |= drill;
            incident.tell(now, "diagnosis", text);
        }
        if wide {
            self.absorb_apps(id, name);
        }
        self.join_to_causes();
    }

    fn absorb_apps(&mut self, id: IncidentId, name: &VmName) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let absorbed: Vec<IncidentId> = vm.app_incidents.values().copied().collect();
        if vm.job.as_ref().and_then(Job::incident).is_some_and(|worked| absorbed.contains(&worked)) {
            self.stop_automatic_job(name, None);
        }
        for narrow in absorbed {
            self.inherit_outage(narrow, id);
            self.close(narrow, name, Resolution::Absorbed(id));
        }
    }

    /// One incident takes over from another: users have been without service since the earlier of the two.
    pub(super) fn inherit_outage(&mut self, from: IncidentId, to: IncidentId) {
        let down = self.incidents.get(&from).filter(|incident| !incident.times.serving);
        let since = down.map(|incident| incident.times.down_since);
        if let (Some(since), Some(heir)) = (since, self.incidents.get_mut(&to)) {
            let before = (!heir.times.serving).then_some(heir.times.down_since);
            heir.times.down_since = before.map_or(since, |before| before.min(since));
            heir.times.serving = false;
        }
    }

    /// The gates, in their order: mode, maintenance (I5), brake (I11), budget and back-off (I6).
    fn plan(&mut self, id: IncidentId, name: &VmName, remedy: Remedy, passed: String) {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return };
        let (policy, now) = (std::sync::Arc::clone(&vm.policy), self.now);
        let counted = remedy.is_destructive() && !incident.drill;
        self.let_go_of_brake();
        if counted && self.brake.mark(now, name, self.vms.len(), &self.policies.brake) {
            self.tell(id, "note", BRAKE_PULLED.into());
        }
        let Some(vm) = self.vms.get(name) else { return };
        let gate = if self.muted {
            Some(HeldReason::NoRecord)
        } else if policy.mode == Mode::Observe {
            Some(HeldReason::Observing)
        } else if vm.in_maintenance() {
            Some(HeldReason::Maintenance)
        } else if self.brake.pulled().is_some() && counted {
            Some(HeldReason::Brake)
        } else if remedy == Remedy::Hold {
            Some(self.hold_for_approval(id, name).unwrap_or(HeldReason::NoRemedy))
        } else if counted && !vm.tries.has_left(now, &policy.budget) && !self.may_go_back(vm, remedy) {
            Some(self.hold_for_approval(id, name).unwrap_or(HeldReason::BudgetSpent))
        } else {
            None
        };
        self.tell_flapping(id, name, counted);
        if let Some(reason) = gate {
            return self.hold(id, reason);
        }
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return };
        if let Some((until, why)) = self.must_wait(vm, incident, remedy, counted) {
            return self.wait(id, until, why);
        }
        let spent = vm.tries.spent(now, &policy.budget);
        if let Some(vm) = self.vms.get_mut(name).filter(|_| counted) {
            vm.tries.spend(now, &policy.budget);
            vm.went_back = if remedy.goes_back() { Some(now) } else { vm.went_back };
        }
        let threshold = remedy.threshold().max(LEAST_SURE);
        let (try_number, tries) = (spent + 1, policy.budget.tries);
        let (way, vm) = (self.way_of(id, name, remedy), self.vms.get(name));
        let why = way.as_ref().zip(vm).map(|(way, vm)| with_loss(&passed, vm, way));
        let why = why.unwrap_or(passed);
        let to = way.map(|way| rewind(remedy, &way));
        let (verify_for, approved_by) = (policy.verify_for, None);
        let plan = Plan { remedy, threshold, try_number, tries, verify_for, why, to, approved_by };
        self.carry_out_plan(id, name, plan);
    }

    /// A new incident soon after the last ones of this VM were over: it counts as failing (I6), and that is told once.
    fn tell_flapping(&mut self, id: IncidentId, name: &VmName, counted: bool) {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return };
        let begins = incident.attempts.is_empty() && !incident.story.iter().any(|line| line.step == "note");
        let Some(times) = vm.tries.flapping(self.now, &vm.policy.budget).filter(|_| begins && counted) else {
            return;
        };
        let within = show(vm.policy.budget.within);
        self.tell(id, "note", format!("flapping: it fails again after {times} recoveries within {within}"));
    }

    fn must_wait(
        &self,
        vm: &VmState,
        incident: &Incident,
        remedy: Remedy,
        counted: bool,
    ) -> Option<(Timestamp, String)> {
        let now = self.now;
        if vm.job.is_some() {
            return Some((now + LOOK_EVERY, "something else is being done to it".into()));
        }
        if vm.power == Power::Unknown {
            return Some((now + LOOK_SOON, "it is looked at first".into())); // something was broken off (I9)
        }
        let dead = matches!(vm.power, Power::Off(_));
        if remedy.is_destructive() && !dead && !self.view.trusts_silence(now) {
            // What was true before we slept or were away may have passed: first we hear what is true now (I10, S17).
            return Some((self.view.doubt_until(), HEAR_FIRST.into()));
        }
        let open =
            |id: IncidentId| self.incidents.get(&id).is_some_and(|i| !matches!(i.phase, Phase::Held(_)));
        let wider = incident.app().is_some() && vm.incident.is_some_and(open);
        if wider && (Isolation::before(remedy) == Isolation::Power || remedy == Remedy::ResetGuest) {
            return Some((now + LOOK_EVERY, "a wider fault is suspected".into()));
        }
        if remedy == Remedy::ResumeIo {
            let soon = now.since(incident.times.opened) < RESUMES_SOON;
            let last = incident.attempts.last().filter(|a| a.remedy == Remedy::ResumeIo)?;
            let next = last.started + if soon { RESUME_SOON } else { RESUME_LATER };
            return (next > now).then(|| (next, "its storage is not back yet".into()));
        }
        let earliest = vm.tries.earliest(now, &vm.policy.budget);
        let waits = counted && earliest > now;
        waits.then(|| (earliest, format!("back-off {} before the next try", show(earliest.since(now)))))
    }

    pub(super) fn carry_out_plan(&mut self, id: IncidentId, name: &VmName, plan: Plan) {
        let now = self.now;
        let remedy = plan.remedy;
        if remedy.is_destructive() {
            self.interrupt_service(id);
        }
        let isolation = Isolation::before(remedy);
        let Some(incident) = self.edit(id) else { return };
        let goal = goal(&plan, incident.diagnosis.app.as_ref());
        let number = if incident.drill {
            "drill".to_owned()
        } else if !remedy.is_destructive() {
            "costs no try".to_owned()
        } else if plan.try_number > plan.tries {
            "a try of its own".to_owned()
        } else {
            format!("try {} of {}", plan.try_number, plan.tries)
        };
        if !incident.tries_again(remedy) {
            let why = if plan.why.is_empty() { "the gentlest there is" } else { &plan.why };
            incident.tell(now, "plan", format!("{remedy}, {number}; {why}"));
            if isolation == Isolation::None {
                incident.times.isolated.get_or_insert(now);
                incident.tell(now, "isolate", isolation.says().to_owned());
            }
        }
        incident.plan = Some(plan);
        incident.phase = Phase::Recovering;
        incident.begin_attempt(now, remedy);
        let goal = goal.unwrap_or_else(|| self.goal_for_all(name));
        self.begin_job(name, Job::new(goal, Reason::Incident(id), remedy.limit()));
    }

    /// A remedy for an application, when the fault is the guest's: the first one that can be restarted.
    fn goal_for_all(&self, name: &VmName) -> Goal {
        let apps = self.vms.get(name).map(|vm| &vm.policy.apps);
        let app = apps.and_then(|apps| apps.iter().find(|(_, app)| app.can_restart)).map(|(name, _)| name);
        app.map_or(Goal::Cycle, |app| Goal::Do(Operation::RestartApp(app.clone())))
    }

    pub(super) fn wait(&mut self, id: IncidentId, until: Timestamp, why: String) {
        let now = self.now;
        let Some(incident) = self.edit(id) else { return };
        let told = incident
            .story
            .iter()
            .rev()
            .take(4)
            .any(|line| line.step == "plan" && line.text.starts_with("waiting"));
        if !told {
            incident.tell(now, "plan", format!("waiting: {why}"));
        }
        incident.phase = Phase::Waiting { until, why };
    }

    /// Leaves it alone, with a reason, for a person.
    pub(super) fn hold(&mut self, id: IncidentId, reason: HeldReason) {
        let now = self.now;
        self.no_longer_approved(id);
        let Some(incident) = self.edit(id).filter(|incident| !incident.is_closed()) else { return };
        if incident.phase != Phase::Held(reason.clone()) {
            let because = incident.because(&reason);
            if incident.story.last().is_none_or(|line| line.text != because) {
                incident.tell(now, "held", because);
            }
            incident.phase = Phase::Held(reason);
        }
    }

    pub(super) fn close(&mut self, id: IncidentId, name: &VmName, how: Resolution) {
        let now = self.now;
        if let Some(vm) = self.vms.get_mut(name) {
            vm.incident = vm.incident.filter(|open| *open != id);
            vm.app_incidents.retain(|_, open| *open != id);
        }
        self.no_longer_approved(id);
        let lens = self.vms.get(name).map(|vm| self.lens(vm));
        let served = lens.and_then(|lens| self.vms.get(name)?.view.healthy_since(&lens));
        if let Some(incident) = self.edit(id) {
            incident.times.closed = Some(now);
            if matches!(how, Resolution::Healed | Resolution::Recovered(_)) {
                let since = served.unwrap_or(now).max(incident.times.down_since);
                incident.times.served.get_or_insert(since);
            }
            let outage = show(incident.outage(now));
            incident.tell(now, "closed", format!("{}, outage {outage}", how.name()));
            incident.phase = Phase::Closed(how);
        }
        self.learn_from(id);
        self.let_go_of_brake();
    }

    /// When its window is over and every VM that it held has proved healthy, the brake lets go by itself.
    fn let_go_of_brake(&mut self) {
        let held = |incident: &Incident| incident.phase == Phase::Held(HeldReason::Brake);
        let over = self.brake.pulled().is_some_and(|at| self.now.since(at) >= self.policies.brake.within);
        if over && !self.incidents.values().any(held) {
            self.brake.release();
        }
    }

    pub(super) fn close_all(&mut self, name: &VmName, how: &Resolution) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let open: Vec<IncidentId> = vm.open_incidents().collect();
        if vm.job.as_ref().is_some_and(|job| job.incident().is_some()) {
            self.stop_automatic_job(name, None);
        }
        for id in open {
            self.close(id, name, how.clone());
        }
    }
}

fn goal(plan: &Plan, app: Option<&AppName>) -> Option<Goal> {
    Some(match plan.remedy {
        Remedy::ResumeIo => Goal::Do(Operation::Continue),
        Remedy::Reconnect => Goal::Do(Operation::LinkUp),
        Remedy::RestartApp => Goal::Do(Operation::RestartApp(app?.clone())),
        Remedy::ResetGuest => Goal::Do(Operation::Reset),
        Remedy::Resume | Remedy::Revert | Remedy::Restore => Goal::Rewind(plan.to?),
        Remedy::RestartVm | Remedy::FailOver | Remedy::Hold => Goal::Cycle,
    })
}
