//! One VM, looked at as a whole: judged, its incidents opened and moved on (`phases.rs`), and what is wanted set against
//! what is.

use super::commands::OPERATION;
use super::service::is_served;
use super::{Desired, Engine, VmState};
use crate::action::{Operation, Reason};
use crate::diagnosis::{Asked, Diagnosis, Fault, Grounds, Level, level};
use crate::evidence::{Evidence, Lens};
use crate::incident::{Incident, IncidentId, Phase, Resolution};
use crate::policy::Mode;
use crate::recover::{Goal, Job, Power};
use crate::signal::RunState;
use crate::subject::{AppName, VmName};
use crate::time::{Duration, Timestamp};

/// So many VMs, or one in twenty, are started at the same time where nothing is known to have failed.
const STARTS_AT_ONCE: usize = 8;
/// An outage that no single fault explains is worth an incident after this.
pub(super) const VAGUE_AFTER: Duration = Duration::from_secs(10);
/// Users that are not served for so long while nobody is sure why: a person is told.
pub(super) const UNSURE_AFTER: Duration = Duration::from_secs(60);
/// A held VM is looked at this often at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which of a VM's incidents.
type Scope = Option<AppName>;

impl Engine {
    /// Looks at a VM after something about it changed, or its time has come.
    pub(super) fn consider(&mut self, name: &VmName) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.end_excuse(now);
        self.pursue_isolation(name);
        self.pay(name);
        let Some(vm) = self.vms.get(name) else { return };
        if self.rests(vm) {
            return;
        }
        let lens = self.lens(vm);
        if self.may_judge(name) {
            self.judge_vm(name, &lens);
        } else {
            self.mind_approved(name, &lens);
        }
        self.reconcile(name);
        self.schedule(name);
    }

    /// It runs as it is meant to, nothing is under way, announced or due, and nothing seen gives reason for a
    /// closer look: the end of nearly all signals.
    pub(super) fn rests(&self, vm: &VmState) -> bool {
        let runs = matches!(vm.power, Power::On(_)) && vm.desired == Desired::Running;
        let quiet = vm.job.is_none()
            && vm.owed.is_none()
            && vm.open_incidents().next().is_none()
            && vm.works.is_empty();
        runs && quiet && vm.wake == Timestamp::NEVER && vm.view.is_calm(&self.lens(vm))
    }

    /// A VM is judged while it is meant to run and nobody but an incident works on it; not while it is being
    /// ended and started by ourselves, which would look like a crash.
    fn may_judge(&self, name: &VmName) -> bool {
        let Some(vm) = self.vms.get(name) else { return false };
        let operates = |job: &Job| job.incident().is_some() && matches!(job.goal, Goal::Do(_));
        let ours = vm.job.as_ref().is_none_or(operates);
        let settled = self.now >= vm.judge_from || matches!(vm.power, Power::Off(_));
        let left = vm.paused_by.is_none() && vm.isolated.is_none() && settled;
        vm.desired == Desired::Running && vm.power != Power::Unknown && ours && left
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
            let found = self.catalogue.diagnose(panel, &evidence, how_asked(&evidence, panel, self.now));
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
            && incident.approved.is_none()
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
        self.inherit_outage(wide, heir);
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
        self.follow_service(id, name, found.as_ref(), lens);
        let Some(phase) = self.incidents.get(&id).map(|incident| incident.phase.clone()) else { return };
        self.hear_late(id, found.as_ref());
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
        let lens = self.lens(vm);
        let app = scope.as_ref();
        let (served, serving) = (vm.view.served(&lens, app), is_served(vm, app, Some(&diagnosis), &lens));
        let wide = vm.incident.and_then(|id| self.incidents.get(&id));
        let drill = vm.in_drill() || wide.is_some_and(|incident| incident.drill);
        let id = self.next_incident();
        let mut incident = Incident::open(id, now, name, diagnosis, served);
        incident.drill = drill;
        incident.times.serving = serving;
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

    /// Sets what is wanted against what is, when nothing else is being done.
    fn reconcile(&mut self, name: &VmName) {
        let Some(vm) = self.vms.get(name).filter(|vm| vm.job.is_none()) else { return };
        let (now, automatic) = (self.now, self.may_act(vm));
        match (&vm.power, &vm.desired) {
            (Power::Unknown, _) if now >= vm.look.1 => self.upkeep(name, Goal::Look),
            // Whether a start that was refused is tried again, and when, is for an incident to say (I6).
            (Power::Off(_), Desired::Running)
                if automatic && vm.incident.is_none() && vm.isolated.is_none() && !vm.view.was_refused() =>
            {
                self.start_if_ready(name)
            }
            (Power::On(_), Desired::Stopped { grace, .. }) => {
                let grace = *grace;
                self.upkeep(name, Goal::Down { grace, then_up: false });
            }
            (Power::Unknown | Power::Off(_) | Power::On(_), _) => {}
        }
    }

    /// A person's start or stop is done as soon as nothing else is and it is known whether it runs.
    pub(super) fn pay(&mut self, name: &VmName) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let free = vm.job.is_none() && vm.power != Power::Unknown;
        let Some(command) = vm.owed.take_if(|_| free) else { return };
        let goal = match (&vm.power, &vm.desired) {
            (Power::Off(_), Desired::Running) => Goal::Up,
            (Power::On(_), Desired::Running) if vm.paused_by.take().is_some() => {
                Goal::Do(Operation::Continue)
            }
            (Power::On(_), Desired::Stopped { grace, .. }) => Goal::Down { grace: *grace, then_up: false },
            (Power::Unknown | Power::Off(_) | Power::On(_), _) => return,
        };
        self.begin_job(name, Job::new(goal, Reason::Command(command), OPERATION));
    }

    /// Something may be done to it unasked: its mode is armed, it is not in maintenance (I5), and what is intended
    /// can be recorded (I8).
    pub(super) fn may_act(&self, vm: &VmState) -> bool {
        vm.policy.mode == Mode::Armed && !vm.in_maintenance() && !self.muted
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
        let mut at = vm.next_expiry(now);
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
                Phase::Waiting { until, .. } if *until > now => *until,
                // The wait is over, and what it waited for may not be done: a person paused the VM.
                Phase::Waiting { .. } | Phase::Suspected | Phase::Held(_) | Phase::Verifying { .. } => {
                    now + LOOK_EVERY
                }
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

/// Users have not been served for so long that a person is told, whatever it may be.
fn how_asked(evidence: &[Evidence], app: Option<&AppName>, now: Timestamp) -> Asked {
    let outage = |e: &Evidence| e.kind.is_outage() && e.app.as_ref() == app;
    let long = evidence.iter().any(|e| outage(e) && now.since(e.since) >= UNSURE_AFTER);
    if long { Asked::Insistently } else { Asked::Usually }
}
