//! One VM, looked at as a whole: judged, its incidents moved on, and what is wanted set against what is.

use super::{Desired, Engine, VmState};
use crate::action::{Operation, Reason};
use crate::diagnosis::{Diagnosis, Fault, Grounds, Level, Weighed, level};
use crate::evidence::{Evidence, Kind, Lens};
use crate::incident::{HeldReason, Incident, IncidentId, Phase, Resolution};
use crate::plan::Remedy;
use crate::policy::Mode;
use crate::recover::{Goal, Job, Power};
use crate::signal::RunState;
use crate::subject::{AppName, VmName};
use crate::time::{Duration, Timestamp, show};
use crate::verify::{Verdict, judge};

/// So many VMs, or one in twenty, are started at the same time where nothing is known to have failed.
const STARTS_AT_ONCE: usize = 8;
/// A suspicion that nothing supports any more is dropped after this.
const SUSPICION_KEEPS: Duration = Duration::from_secs(60);
/// An outage that no single fault explains is worth an incident after this.
const VAGUE_AFTER: Duration = Duration::from_secs(10);
/// Users that are not served for so long while nobody is sure why: a person is told.
const UNSURE_AFTER: Duration = Duration::from_secs(60);
/// A remedy has failed if its VM, back for a while, is sick again as surely as this, in parts of ten thousand.
const SURE_AGAIN: u16 = 9_700;
/// A suspicion is gone when everything has answered for so long.
const HEALED_AFTER: Duration = Duration::from_secs(2);
/// A held VM is looked at this often at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An answer of the hypervisor so long after a resumption is not from before it.
const STILL_PAUSED: Duration = Duration::from_millis(200);

/// Which of a VM's incidents.
type Scope = Option<AppName>;

impl Engine {
    /// Looks at a VM after something about it changed, or its time has come.
    pub(super) fn consider(&mut self, name: &VmName) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.end_excuse(now);
        let Some(vm) = self.vms.get(name) else { return };
        if self.rests(vm) {
            return;
        }
        let lens = self.lens(vm);
        if self.may_judge(name) {
            self.judge_vm(name, &lens);
        }
        self.reconcile(name);
        self.schedule(name);
    }

    /// It runs as it is meant to, nothing is under way, announced or due, and nothing seen gives reason for a
    /// closer look: the end of nearly all signals.
    pub(super) fn rests(&self, vm: &VmState) -> bool {
        let runs = matches!(vm.power, Power::On(_)) && vm.desired == Desired::Running;
        let quiet = vm.job.is_none() && vm.open_incidents().next().is_none() && vm.works.is_empty();
        runs && quiet && vm.wake == Timestamp::NEVER && vm.view.is_calm(&self.lens(vm))
    }

    /// A VM is judged while it is meant to run and nobody but an incident works on it; not while it is being
    /// ended and started by ourselves, which would look like a crash.
    fn may_judge(&self, name: &VmName) -> bool {
        let Some(vm) = self.vms.get(name) else { return false };
        let operates = |job: &Job| job.incident().is_some() && matches!(job.goal, Goal::Do(_));
        let ours = vm.job.as_ref().is_none_or(operates);
        vm.desired == Desired::Running && vm.power != Power::Unknown && ours && vm.paused_by.is_none()
    }

    fn judge_vm(&mut self, name: &VmName, lens: &Lens) {
        let Some(vm) = self.vms.get(name) else { return };
        let mut evidence = vm.view.evidence(lens, vm.policy.boot_limit);
        self.view.speak(lens, &mut evidence);
        let apps: Vec<AppName> = vm.policy.apps.keys().cloned().collect();
        let mut of_vm: Option<Diagnosis> = None;
        let mut of_apps: Vec<(AppName, Option<Diagnosis>)> = Vec::new();
        let panels = if apps.is_empty() { vec![None] } else { apps.iter().map(Some).collect() };
        for panel in panels {
            let found =
                self.catalogue.diagnose(panel, &evidence, unserved_for_long(&evidence, panel, self.now));
            let (wide, narrow) = split(found);
            if let Some(wide) = wide
                && of_vm.as_ref().is_none_or(|best| wide.probability > best.probability)
            {
                of_vm = Some(wide);
            }
            of_apps.extend(panel.map(|app| (app.clone(), narrow)));
        }
        if of_vm.is_none()
            && self.is_behind_us(name)
            && of_apps.iter().any(|(_, found)| speaks(found, self.now))
        {
            return self.give_way(name, of_apps, lens, &evidence);
        }
        self.update(name, &None, of_vm, lens, &evidence);
        for (app, found) in of_apps {
            if self.app_stands_alone(name) {
                self.update(name, &Some(app), found, lens, &evidence);
            }
        }
    }

    /// Something was done about the wide fault, or was to be, and nothing speaks for it any more.
    fn is_behind_us(&self, name: &VmName) -> bool {
        let Some(vm) = self.vms.get(name).filter(|vm| matches!(vm.power, Power::On(_))) else { return false };
        let Some(incident) = vm.incident.and_then(|id| self.incidents.get(&id)) else { return false };
        incident.is_confirmed()
            && match &incident.phase {
                Phase::Suspected | Phase::Waiting { .. } => true,
                Phase::Verifying { .. } => {
                    let since = incident.times.recovered.unwrap_or(incident.times.opened);
                    self.now.since(since) >= vm.policy.verify_for
                }
                Phase::Recovering | Phase::Held(_) | Phase::Closed(_) => false,
            }
    }

    /// What is still wrong has a cause of its own, and gets an incident of its own: the wide one is over.
    fn give_way(
        &mut self,
        name: &VmName,
        of_apps: Vec<(AppName, Option<Diagnosis>)>,
        lens: &Lens,
        evidence: &[Evidence],
    ) {
        for (app, found) in of_apps {
            self.update(name, &Some(app), found, lens, evidence);
        }
        let Some(vm) = self.vms.get(name) else { return };
        let (Some(wide), Some(heir)) = (vm.incident, vm.app_incidents.values().next().copied()) else {
            return;
        };
        let since = self.incidents.get(&wide).map(|incident| incident.times.down_since);
        if let (Some(since), Some(heir)) = (since, self.incidents.get_mut(&heir)) {
            heir.times.down_since = heir.times.down_since.min(since);
        }
        self.tell(wide, "note", format!("that is over; what is still down is {heir}"));
        self.close(wide, name, Resolution::Absorbed(heir));
    }

    /// A wider fault that is sure enough explains the applications' trouble.
    fn app_stands_alone(&self, name: &VmName) -> bool {
        let wide = self.vms.get(name).and_then(|vm| vm.incident).and_then(|id| self.incidents.get(&id));
        wide.is_none_or(|incident| !incident.is_confirmed())
    }

    fn slot(&self, name: &VmName, scope: &Scope) -> Option<IncidentId> {
        let vm = self.vms.get(name)?;
        match scope {
            None => vm.incident,
            Some(app) => vm.app_incidents.get(app).copied(),
        }
    }

    fn update(
        &mut self,
        name: &VmName,
        scope: &Scope,
        found: Option<Diagnosis>,
        lens: &Lens,
        evidence: &[Evidence],
    ) {
        let Some(id) = self.slot(name, scope) else {
            if let Some(diagnosis) = found.filter(|d| !is_vague(d, self.now) && self.may_open(name, d)) {
                self.open_incident(name, scope, diagnosis, evidence);
            }
            return;
        };
        let Some(phase) = self.incidents.get(&id).map(|incident| incident.phase.clone()) else { return };
        match phase {
            Phase::Suspected => self.update_suspected(id, name, found, lens),
            Phase::Waiting { until, .. } => self.update_waiting(id, name, found, lens, until),
            Phase::Recovering => self.update_recovering(id, name, found.as_ref()),
            Phase::Verifying { deadline } => self.update_verifying(id, name, found, lens, deadline),
            Phase::Held(reason) => self.update_held(id, name, found, lens, &reason),
            Phase::Closed(_) => {}
        }
    }

    /// What an application does while it is being restarted says nothing about its guest.
    fn may_open(&self, name: &VmName, diagnosis: &Diagnosis) -> bool {
        let job = self.vms.get(name).and_then(|vm| vm.job.as_ref());
        let restarting = job.is_some_and(|job| matches!(job.goal, Goal::Do(Operation::RestartApp(_))));
        !restarting || matches!(diagnosis.grounds, Grounds::Conclusive(_))
    }

    fn open_incident(&mut self, name: &VmName, scope: &Scope, diagnosis: Diagnosis, evidence: &[Evidence]) {
        let now = self.now;
        let Some(vm) = self.vms.get(name) else { return };
        let served = vm.view.served(&self.lens(vm));
        let wide = vm.incident.and_then(|id| self.incidents.get(&id));
        let drill = vm.in_drill() || wide.is_some_and(|incident| incident.drill);
        let id = self.next_incident();
        let mut incident = Incident::open(id, now, name, diagnosis, served);
        incident.drill = drill;
        self.open(incident);
        if let Some(vm) = self.vms.get_mut(name) {
            match scope {
                None => vm.incident = Some(id),
                Some(app) => {
                    vm.app_incidents.insert(app.clone(), id);
                }
            }
        }
        let outage = evidence.iter().any(|e| e.kind.is_outage() || e.kind.is_conclusive());
        if outage && !drill && self.brake.mark(now, name, self.vms.len(), &self.policies.brake) {
            self.tell(id, "note", super::planning::BRAKE_PULLED.into());
        }
        let Some(vm) = self.vms.get(name) else { return };
        let lens = self.lens(vm);
        self.try_confirm(id, name, &lens);
        if let Some(incident) = self.incidents.get(&id).filter(|incident| incident.named.is_none()) {
            let text = self.describe(&incident.subject.to_string(), &incident.diagnosis, "suspected");
            self.tell(id, "diagnosis", text);
        }
    }

    pub(super) fn describe(&self, subject: &str, diagnosis: &Diagnosis, certainty: &str) -> String {
        let says = self.catalogue.row(diagnosis.fault).says;
        let reasons: Vec<&str> = diagnosis
            .evidence
            .iter()
            .filter(|w| w.counts && w.weight > 0)
            .take(3)
            .map(|w| w.evidence.text.as_str())
            .collect();
        let (whole, part) = (diagnosis.probability / 100, diagnosis.probability / 10 % 10);
        format!("{} {subject} {says}, {certainty} {whole}.{part} %: {}", diagnosis.fault, reasons.join("; "))
    }

    fn update_suspected(&mut self, id: IncidentId, name: &VmName, found: Option<Diagnosis>, lens: &Lens) {
        let now = self.now;
        match found {
            Some(diagnosis) => {
                let outage = diagnosis.evidence.iter().any(|w| w.evidence.kind.is_outage());
                self.revise(id, name, diagnosis);
                self.try_confirm(id, name, lens);
                let Some(incident) = self.incidents.get(&id) else { return };
                let long = now.since(incident.times.down_since) >= UNSURE_AFTER;
                let passing = now.since(incident.times.opened) < VAGUE_AFTER;
                if outage && long && !passing && incident.phase == Phase::Suspected {
                    self.hold(id, HeldReason::Unsure);
                }
            }
            None if self.vms.get(name).is_some_and(|vm| matches!(vm.power, Power::Off(_))) => {
                self.try_confirm(id, name, lens); // whatever it was, it does not run
            }
            None => {
                let healthy = self.healthy_for(name, lens).is_some_and(|healthy| healthy >= HEALED_AFTER);
                let Some(incident) = self.incidents.get(&id) else { return };
                let alone = now.since(incident.times.opened) > SUSPICION_KEEPS;
                let pending = incident.is_confirmed() && !healthy; // a remedy failed: only health ends it
                if healthy || (alone && !pending) {
                    let how = incident.how_it_healed();
                    self.close(id, name, how);
                } else if pending && now.since(incident.last_tried()) >= UNSURE_AFTER {
                    self.hold(id, HeldReason::Unsure);
                }
            }
        }
    }

    /// The diagnosis is kept up to date until something is done about it.
    fn revise(&mut self, id: IncidentId, name: &VmName, diagnosis: Diagnosis) {
        let now = self.now;
        let Some(incident) = self.incidents.get(&id) else { return };
        let renamed = incident.diagnosis.fault != diagnosis.fault;
        let subject = crate::incident::subject_of(name, &diagnosis);
        let text = renamed.then(|| self.describe(&subject.to_string(), &diagnosis, "now suspected"));
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        if incident.named.is_none() {
            incident.subject = subject;
        }
        incident.diagnosis = diagnosis;
        if let Some(text) = text {
            incident.tell(now, "diagnosis", text);
            self.reaction.changed.insert(id);
        }
    }

    /// How long everything has answered, if it does.
    fn healthy_for(&self, name: &VmName, lens: &Lens) -> Option<Duration> {
        let vm = self.vms.get(name)?;
        if !matches!(vm.power, Power::On(_)) {
            return None;
        }
        vm.view.healthy_since(lens).map(|since| lens.now.since(since))
    }

    fn update_waiting(
        &mut self,
        id: IncidentId,
        name: &VmName,
        found: Option<Diagnosis>,
        lens: &Lens,
        until: Timestamp,
    ) {
        if found.is_none() && self.healthy_for(name, lens).is_some_and(|healthy| healthy >= HEALED_AFTER) {
            return self.close(id, name, Resolution::Healed);
        }
        if self.now < until {
            if let Some(diagnosis) = found {
                self.revise(id, name, diagnosis);
            }
            return;
        }
        if let Some(incident) = self.edit(id) {
            incident.phase = Phase::Suspected;
        }
        self.update_suspected(id, name, found, lens); // on what is seen now, not on what was
    }

    fn update_held(
        &mut self,
        id: IncidentId,
        name: &VmName,
        found: Option<Diagnosis>,
        lens: &Lens,
        reason: &HeldReason,
    ) {
        let Some(vm) = self.vms.get(name) else { return };
        let enough = vm.policy.verify_for;
        if found.is_none() && self.healthy_for(name, lens).is_some_and(|healthy| healthy >= enough) {
            return self.close(id, name, Resolution::Healed);
        }
        if found.is_none() && *reason == HeldReason::NoRemedy && self.is_over(id, name, lens) {
            return self.close(id, name, Resolution::Healed); // what is still down has another cause
        }
        if let (HeldReason::Unsure, Some(diagnosis)) = (reason, &found) {
            self.revise(id, name, diagnosis.clone());
        }
        let Some(vm) = self.vms.get(name) else { return };
        let lifted = match reason {
            HeldReason::Unsure => self.remedy_for(id, name, lens).is_some(),
            HeldReason::Maintenance => !vm.in_maintenance(),
            HeldReason::Observing => vm.policy.mode == Mode::Armed,
            HeldReason::Brake => self.brake.pulled().is_none(),
            HeldReason::NoRecord => !self.muted,
            HeldReason::BudgetSpent => false, // a person releases it (I6)
            HeldReason::NoRemedy => {
                let before = self.incidents.get(&id).map(|incident| incident.diagnosis.fault);
                found.as_ref().is_some_and(|d| d.grounds.suffice() && Some(d.fault) != before)
            }
        };
        if lifted {
            if let Some(incident) = self.edit(id) {
                incident.phase = Phase::Suspected;
            }
            if *reason != HeldReason::NoRecord {
                self.tell(id, "note", "what held it back is gone: it is looked at afresh".into());
            }
            self.update_suspected(id, name, found, lens);
        }
    }

    /// The guest itself says, freshly, that the cause is gone: its agent answers, its disk has room.
    fn is_over(&self, id: IncidentId, name: &VmName, lens: &Lens) -> bool {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return false };
        incident.app().is_none() && incident.fault() == Fault::GuestDiskFull && vm.view.has_room(lens)
    }

    /// A command in the guest comes to no end once the guest has stopped: then something else is tried.
    fn update_recovering(&mut self, id: IncidentId, name: &VmName, found: Option<&Diagnosis>) {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return };
        let (Some(job), Some(attempt)) = (&vm.job, incident.attempts.last()) else { return };
        let inside = matches!(job.goal, Goal::Do(Operation::RestartApp(_))) && job.incident() == Some(id);
        let why = found.and_then(|d| struck_again(d, attempt.started, false)).filter(|_| inside);
        let Some(why) = why else { return };
        self.stop_automatic_job(name, None); // and the VM is looked at before anything else is done (I9)
        let now = self.now;
        let Some(incident) = self.edit(id) else { return };
        incident.tell(now, "recover", format!("given up: {why}"));
        incident.fail_attempt(now, why);
        incident.phase = Phase::Suspected;
    }

    fn update_verifying(
        &mut self,
        id: IncidentId,
        name: &VmName,
        found: Option<Diagnosis>,
        lens: &Lens,
        deadline: Timestamp,
    ) {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return };
        let recovered = incident.times.recovered.unwrap_or(incident.times.opened);
        let resumed = incident.plan.as_ref().is_some_and(|plan| plan.remedy == Remedy::ResumeIo);
        if let Some(why) = found.as_ref().and_then(|d| struck_again(d, recovered, resumed)) {
            return self.remedy_failed(id, name, found, format!("it struck again: {why}"), lens);
        }
        let fails_again = |d: &Diagnosis| vm.view.came_back(recovered) && is_sure_since(d, recovered);
        if found.as_ref().is_some_and(fails_again) {
            return self.remedy_failed(id, name, found, "it came back, and fails again".into(), lens);
        }
        // A host that is no longer under pressure has no longer time.
        let boots = vm.view.boot_due(vm.policy.boot_limit, lens.patience);
        let deadline = boots.map_or(deadline, |due| deadline.min(due + vm.policy.verify_for));
        let healthy = vm.view.healthy_since(lens).filter(|_| matches!(vm.power, Power::On(_)));
        match judge(self.now, recovered, healthy, vm.policy.verify_for, deadline) {
            Verdict::Healthy(served) => self.recovered(id, name, served),
            Verdict::Wait(_) => {}
            Verdict::Failed => {
                let waited = show(self.now.since(recovered));
                self.remedy_failed(id, name, found, format!("still not healthy {waited} later"), lens);
            }
        }
    }

    fn remedy_failed(
        &mut self,
        id: IncidentId,
        name: &VmName,
        found: Option<Diagnosis>,
        why: String,
        lens: &Lens,
    ) {
        let now = self.now;
        if let Some(incident) = self.edit(id) {
            let again = incident.plan.as_ref().is_some_and(|plan| incident.tried_before(plan.remedy));
            if !again {
                incident.tell(now, "verify", why.clone());
            }
            incident.fail_attempt(now, why);
            incident.phase = Phase::Suspected;
        }
        self.update_suspected(id, name, found, lens);
    }

    fn recovered(&mut self, id: IncidentId, name: &VmName, served: Timestamp) {
        let now = self.now;
        let Some(incident) = self.edit(id) else { return };
        incident.times.served = Some(served);
        incident.times.verified = Some(now);
        incident.tell(now, "verify", format!("healthy for {}", show(now.since(served))));
        let remedy = incident.plan.as_ref().map_or(Remedy::Hold, |plan| plan.remedy);
        self.close(id, name, Resolution::Recovered(remedy));
        if let Some(vm) = self.vms.get_mut(name) {
            vm.view.settled();
        }
    }

    /// Sets what is wanted against what is, when nothing else is being done.
    fn reconcile(&mut self, name: &VmName) {
        let Some(vm) = self.vms.get(name).filter(|vm| vm.job.is_none()) else { return };
        let (now, automatic) =
            (self.now, vm.policy.mode == Mode::Armed && !vm.in_maintenance() && !self.muted);
        match (&vm.power, &vm.desired) {
            (Power::Unknown, _) if now >= vm.look.1 => self.upkeep(name, Goal::Look),
            (Power::Off(_), Desired::Running) if automatic && vm.incident.is_none() => {
                self.start_if_ready(name)
            }
            (Power::On(_), Desired::Stopped { grace, .. }) => {
                let grace = *grace;
                self.upkeep(name, Goal::Down { grace, then_up: false });
            }
            (Power::Unknown | Power::Off(_) | Power::On(_), _) => {}
        }
    }

    fn upkeep(&mut self, name: &VmName, goal: Goal) {
        self.begin_job(name, Job::new(goal, Reason::Upkeep, Duration::from_secs(10)));
    }

    /// As many VMs are booting as may at once: the host is not to be stormed (S55).
    fn is_crowded(&self) -> bool {
        let most = STARTS_AT_ONCE.max(self.vms.len() / 20);
        let held = |vm: &VmState| {
            let mut open = vm.open_incidents().filter_map(|id| self.incidents.get(&id));
            open.any(|incident| matches!(incident.phase, Phase::Held(_)))
        };
        let runs = |vm: &VmState| matches!(vm.view.run_state(), None | Some(RunState::Running)) && !held(vm);
        let boots = |vm: &&VmState| {
            vm.job.as_ref().is_some_and(Job::starts) || (vm.view.boot().is_some() && runs(vm))
        };
        self.vms.values().filter(boots).take(most).count() == most
    }

    fn start_if_ready(&mut self, name: &VmName) {
        let Some(vm) = self.vms.get(name) else { return };
        let up = |other: &VmName| {
            let other = self.vms.get(other);
            other.is_none_or(|vm| matches!(vm.power, Power::On(_)) && vm.view.boot().is_none())
        };
        let waits =
            vm.policy.needs.iter().find(|other| !up(other)).map(|other| format!("vm {other} to be up"));
        let waits = waits.or_else(|| self.is_crowded().then(|| "others to boot first".to_owned()));
        let ready = waits.is_none();
        if let Some(vm) = self.vms.get_mut(name) {
            vm.waits_for = waits;
        }
        if ready {
            self.upkeep(name, Goal::Up);
        }
    }

    /// Says when to look at it again without a signal.
    fn schedule(&mut self, name: &VmName) {
        let Some(vm) = self.vms.get(name) else { return };
        let now = self.now;
        let mut at = vm.next_expiry();
        if let Some(job) = &vm.job {
            at = at.min(job.deadline);
        } else if vm.power == Power::Unknown {
            at = at.min(vm.look.1.max(now + Duration::from_millis(20)));
        }
        if vm.waits_for.is_some() {
            at = at.min(now + LOOK_EVERY);
        }
        for id in vm.open_incidents() {
            let Some(incident) = self.incidents.get(&id) else { continue };
            at = at.min(match &incident.phase {
                Phase::Waiting { until, .. } => *until,
                Phase::Suspected | Phase::Held(_) | Phase::Verifying { .. } => now + LOOK_EVERY,
                Phase::Recovering | Phase::Closed(_) => Timestamp::NEVER,
            });
        }
        if let Some(due) = vm.view.boot_due(vm.policy.boot_limit, self.view.patience(now)) {
            at = at.min(due.max(now + LOOK_EVERY));
        }
        if at < Timestamp::NEVER {
            self.wake(name, at);
        }
    }
}

/// Faults of the VM or its guest on the one side, of one application or its probe on the other. What the
/// host or the observer explains is not the VM's fault.
fn split(found: Option<Diagnosis>) -> (Option<Diagnosis>, Option<Diagnosis>) {
    let Some(diagnosis) = found else { return (None, None) };
    match level(diagnosis.fault) {
        Level::Guest | Level::Vm => (Some(diagnosis), None),
        Level::Application => (None, Some(diagnosis)),
        Level::Observer if diagnosis.fault == Fault::ProbeBroken => (None, Some(diagnosis)),
        Level::Observer | Level::Host => (None, None),
    }
}

/// There is a fault to speak of.
fn speaks(found: &Option<Diagnosis>, now: Timestamp) -> bool {
    found.as_ref().is_some_and(|diagnosis| !is_vague(diagnosis, now))
}

/// No fault stands out, and users have not been without service for long: nothing to speak of yet.
fn is_vague(diagnosis: &Diagnosis, now: Timestamp) -> bool {
    let outages = diagnosis.evidence.iter().filter(|w| w.evidence.kind.is_outage());
    let since = outages.map(|w| w.evidence.since).min();
    diagnosis.probability < 5_000 && since.is_none_or(|since| now.since(since) < VAGUE_AFTER)
}

/// Sure enough to act upon, and on nothing that was seen before then.
fn is_sure_since(diagnosis: &Diagnosis, since: Timestamp) -> bool {
    let speaks = |w: &&Weighed| w.counts && w.weight > 0;
    diagnosis.probability >= SURE_AGAIN
        && diagnosis.grounds.suffice()
        && diagnosis.evidence.iter().filter(speaks).all(|w| w.evidence.since > since)
}

/// Users have not been served for so long that a person is told, whatever it may be.
fn unserved_for_long(evidence: &[Evidence], app: Option<&AppName>, now: Timestamp) -> bool {
    let outage = |e: &Evidence| e.kind.is_outage() && e.app.as_ref() == app;
    evidence.iter().any(|e| outage(e) && now.since(e.since) >= UNSURE_AFTER)
}

/// A conclusive sign that is newer than the remedy. A VM that was resumed may have been paused again before we
/// heard that the resumption was done, so there it counts that it is still seen paused some time later.
fn struck_again(diagnosis: &Diagnosis, recovered: Timestamp, resumed: bool) -> Option<String> {
    let Grounds::Conclusive(kind) = diagnosis.grounds else { return None };
    let paused = |e: &Evidence| resumed && e.kind == Kind::PausedIo && e.at > recovered + STILL_PAUSED;
    let sign = diagnosis.evidence.iter().map(|w| &w.evidence);
    let mut sign = sign.filter(|e| e.kind == kind && (e.since > recovered || paused(e)));
    sign.next().map(|e| e.text.clone())
}
