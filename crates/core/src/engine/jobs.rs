//! The one thing that is being done to a VM: begun, settled, given up, ended.

use super::approved::tell_waits;
use super::commands::OPERATION;
use super::isolation::Came;
use super::planning::HEAR_FIRST;
use super::vm::doubled;
use super::{Desired, Engine, LATE};
use crate::action::{Ended, Operation, Order, Outcome, Reason};
use crate::evidence::BootCause;
use crate::incident::{AttemptResult, HeldReason, Incident, IncidentId, Phase, Resolution};
use crate::lease::{Death, DeathProof};
use crate::plan::Remedy;
use crate::recover::{Goal, Job, Next, Power, Step};
use crate::signal::{ProcessSign, Seen, Signal};
use crate::subject::{Subject, VmName};
use crate::time::{Duration, Timestamp};

/// An application that was restarted answers within this, or the restart has not helped.
const APP_SETTLES: Duration = Duration::from_secs(30);
/// The same after storage or network came back.
const VM_SETTLES: Duration = Duration::from_secs(20);

/// What somebody else has is tried for again after this at first, and after this at the latest.
const ROOM_SOON: Duration = Duration::from_secs(2);
const ROOM_LATER: Duration = Duration::from_secs(15);

/// How long evidence is waited for when the hypervisor itself is silent.
const SHORT_CAPTURE: Duration = Duration::from_millis(500);

/// How a job ended.
enum End {
    Done,
    Failed(String),
    /// Failed because somebody else is in the way.
    Blocked(String),
    /// Failed because its disk is not there.
    DiskGone(String),
    Unknown(String),
}

impl Engine {
    /// Begins a job. There is never more than one for a VM.
    pub(super) fn begin_job(&mut self, name: &VmName, job: Job) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let next = job.begin(&vm.power, job.incident());
        vm.job = Some(job);
        self.follow(name, next);
    }

    /// An outcome came for the action a job waits for.
    pub(super) fn settle_job(&mut self, name: &VmName, outcome: &Outcome) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(job) = vm.job.clone().filter(|job| job.action == Some(outcome.action)) else { return };
        self.note_captured(&job, &outcome.ended);
        let Some(vm) = self.vms.get_mut(name) else { return };
        let next = job.settle(now, &mut vm.power, &outcome.ended);
        self.follow(name, next);
    }

    fn note_captured(&mut self, job: &Job, ended: &Ended) {
        let (Some(id), Ended::Done(crate::action::Fact::Captured { files })) = (job.incident(), ended) else {
            return;
        };
        let files = files.clone();
        if let Some(incident) = self.edit(id) {
            incident.files.extend(files);
        }
    }

    /// The process is seen to be dead.
    pub(super) fn process_ended(&mut self, name: &VmName, proof: &DeathProof) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(job) = vm.job.clone() else {
            vm.power = Power::Off(proof.clone());
            if vm.desired != Desired::Running {
                let job =
                    Job::new(Goal::Down { grace: Duration::ZERO, then_up: false }, Reason::Upkeep, LATE);
                let next = job.died(&mut vm.power, proof);
                vm.job = Some(job);
                self.follow(name, next);
            }
            return;
        };
        if matches!(job.step, Step::Asking | Step::AwaitingEnd { .. } | Step::CuttingPower | Step::Doing) {
            let next = job.died(&mut vm.power, proof);
            self.follow(name, next);
        } else if vm.power.incarnation() == Some(proof.incarnation()) {
            vm.power = Power::Off(proof.clone());
        }
    }

    /// Goes one step on.
    fn follow(&mut self, name: &VmName, next: Next) {
        let Some(vm) = self.vms.get(name) else { return };
        match vm.ends_before_start(next) {
            Next::Ask(step, order, limit) => self.ask_for(name, step, order, limit),
            Next::Wait(step) => {
                if let Some(job) = self.vms.get_mut(name).and_then(|vm| vm.job.as_mut()) {
                    job.deadline =
                        if let Step::AwaitingEnd { until } = step { until } else { Timestamp::NEVER };
                    (job.step, job.action) = (step, None);
                }
            }
            Next::Finished => self.end_job(name, End::Done),
            Next::Unstarted => {
                if let Some(vm) = self.vms.get_mut(name) {
                    vm.lose_sight(self.now);
                }
                self.end_job(name, End::Done);
            }
            Next::Failed(why) => self.end_job(name, End::Failed(why)),
            Next::Blocked(why) => self.end_job(name, End::Blocked(why)),
            Next::DiskGone(why) => self.end_job(name, End::DiskGone(why)),
            Next::Unknown(why) => self.end_job(name, End::Unknown(why)),
        }
    }

    fn ask_for(&mut self, name: &VmName, step: Step, order: Order, limit: Duration) {
        let now = self.now;
        let Some(vm) = self.vms.get(name) else { return };
        let Some(reason) = vm.job.as_ref().map(|job| job.reason.clone()) else { return };
        // I5, at the very moment the intent is made, whatever was decided before.
        if vm.in_maintenance() && !matches!(reason, Reason::Command(_)) && order.is_destructive() {
            self.stop_automatic_job(name, Some(HeldReason::Maintenance));
            return;
        }
        if self.has_slept_over(name, &reason, &order) {
            return self.put_off(name);
        }
        if self.is_well_again(name, &reason, &order) {
            return self.leave_well(name);
        }
        // A hypervisor that is silent has no evidence to give.
        let deaf = matches!(order, Order::Capture { .. }) && vm.view.is_hypervisor_silent(&self.lens(vm));
        let limit = if deaf { SHORT_CAPTURE } else { limit };
        let isolated = step == Step::Claiming;
        let begins = matches!(step, Step::Starting(_));
        let incident = if let Reason::Incident(id) = &reason { Some(*id) } else { None };
        let (id, deadline) = self.ask(name, reason, order, limit);
        if let Some(vm) = self.vms.get_mut(name) {
            if begins {
                vm.view.begin_incarnation(now);
                (vm.paused_by, vm.ran) = (None, None); // the one that was paused, and ran, is dead
            }
            if let Some(job) = &mut vm.job {
                (job.step, job.action, job.deadline) = (step, Some(id), deadline + LATE);
            }
        }
        if let Some(id) = incident.filter(|_| isolated) {
            self.note_isolated(id, name);
        }
    }

    /// A recovery was decided, and before its first harm is done we were stopped: what it stands on may be over.
    fn has_slept_over(&self, name: &VmName, reason: &Reason, order: &Order) -> bool {
        let Some(vm) = self.vms.get(name) else { return false };
        let Reason::Incident(id) = reason else { return false };
        let harms =
            |incident: &Incident| incident.plan.as_ref().is_some_and(|plan| plan.remedy.is_destructive());
        let recovering = |incident: &&Incident| incident.phase == Phase::Recovering;
        let harms = self.incidents.get(id).filter(recovering).is_some_and(harms);
        let runs = matches!(vm.power, Power::On(_));
        harms && runs && order.is_destructive() && !self.view.trusts_silence(self.now)
    }

    /// The recovery is not begun after all, and costs nothing: first we hear what is true now (I10, S17).
    fn put_off(&mut self, name: &VmName) {
        let now = self.now;
        let job = self.vms.get_mut(name).and_then(|vm| vm.job.take());
        let Some(id) = job.and_then(|job| job.incident()) else { return };
        self.take_back(id, name);
        if let Some(incident) = self.edit(id) {
            incident.end_attempt(now, AttemptResult::Blocked(HEAR_FIRST.into()));
        }
        self.wait(id, self.view.doubt_until(), HEAR_FIRST.into());
    }

    fn note_isolated(&mut self, id: IncidentId, name: &VmName) {
        let proof = match self.vms.get(name).map(|vm| &vm.power) {
            Some(Power::Off(proof)) => proof.to_string(),
            Some(Power::On(_) | Power::Unknown) | None => return,
        };
        let now = self.now;
        if let Some(incident) = self.edit(id) {
            incident.times.isolated.get_or_insert(now);
            let text = format!("dead for certain: {proof}");
            if incident.story.iter().rfind(|line| line.step == "isolate").is_none_or(|line| line.text != text)
            {
                incident.tell(now, "isolate", text);
            }
        }
    }

    /// A job whose action nobody settles, or whose wait is over.
    pub(super) fn expire_job(&mut self, name: &VmName) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(job) = vm.job.clone().filter(|job| job.deadline <= now) else { return };
        if job.grace_is_over(now) {
            let next = job.after_grace(&vm.power);
            self.follow(name, next);
        } else if let Some(action) = job.action {
            let why = "no outcome was reported in time".to_owned();
            self.asked.remove(&action);
            let next = job.settle(now, &mut vm.power, &Ended::Unknown { why });
            self.follow(name, next);
        }
    }

    /// Stops what the engine does by itself; the outcome of what is under way is then looked for, not awaited.
    /// Its incident is held, if there is a reason to.
    pub(super) fn stop_automatic_job(&mut self, name: &VmName, reason: Option<HeldReason>) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(job) = vm.job.take() else { return };
        if job.action.is_some() && job.goal != Goal::Look {
            vm.lose_sight(Timestamp::ZERO);
        }
        let now = self.now;
        if let Some(incident) = job.incident().and_then(|id| self.edit(id)) {
            let why = reason.as_ref().map_or("decided otherwise", HeldReason::says);
            incident.end_attempt(now, AttemptResult::Unknown(format!("stopped: {why}")));
            if let Some(begun) = job.irrevocable() {
                incident.tell(now, "note", format!("{begun} was begun before and may still be done"));
            }
        }
        if let (Some(id), Some(reason)) = (job.incident(), reason) {
            self.hold(id, reason);
        }
    }

    /// The daemon started again: what was under way is looked for (I9).
    pub(super) fn look_again(&mut self, name: &VmName) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.lose_sight(now);
        vm.view.look_away();
        let isolating = vm.isolated.map(|isolated| isolated.incident);
        let resets = |job: &Job| job.goal == Goal::Do(Operation::Reset) && job.step == Step::Doing;
        if vm.job.as_ref().is_some_and(resets) {
            vm.view.begin_boot(now, BootCause::Reset); // if it was done, nobody heard of it, and the guest boots
        }
        let begun = !vm.job.as_ref().is_some_and(Job::prepares);
        let job = vm.job.take().and_then(|job| job.incident()).filter(|id| Some(*id) != isolating);
        job.iter().for_each(|id| self.after_break(*id, name, begun));
        if let Some(incident) = job.and_then(|id| self.edit(id)) {
            let why = "the daemon was restarted meanwhile".to_owned();
            incident.end_attempt(now, AttemptResult::Unknown(why));
            incident.tell(now, "note", "the daemon was restarted: what was under way is looked for".into());
        }
        self.wake(name, now);
    }

    /// What was given up while it was under way has ended, and nobody knows how: whatever was seen before then, the
    /// VM is looked at before anything is done to it (I9).
    /// What is being prepared meanwhile, and has not begun, is put off.
    pub(super) fn look_after(&mut self, name: &VmName) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        if !vm.job.as_ref().is_none_or(Job::prepares) {
            return;
        }
        let put_off = vm.job.take().and_then(|job| job.incident());
        vm.lose_sight(now);
        let Some(id) = put_off else { return };
        self.take_back(id, name);
        self.after_break(id, name, false);
        if let Some(incident) = self.edit(id) {
            let why = "how an earlier order ended is not known: it is looked at first".to_owned();
            incident.end_attempt(now, AttemptResult::Unknown(why.clone()));
            incident.tell(now, "note", why);
        }
        self.wake(name, now);
    }

    fn end_job(&mut self, name: &VmName, end: End) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(job) = vm.job.take() else { return };
        if let Power::On(lease) = &vm.power {
            vm.ran = Some(lease.clone());
        }
        if let (Step::Starting(_), End::Failed(why) | End::Blocked(why) | End::DiskGone(why)) =
            (&job.step, &end)
        {
            vm.view.start_failed(self.now, why.clone(), matches!(end, End::DiskGone(_)));
        }
        if let Step::Starting(_) = job.step {
            vm.unclaimed = 0;
        }
        if job.goal == Goal::Look {
            return self.after_look(name, &end);
        }
        if matches!(end, End::Unknown(_)) {
            vm.power = Power::Unknown;
            let wait = if job.step == Step::Claiming { vm.claim_again() } else { Duration::ZERO };
            vm.look = (0, self.now + wait);
        }
        if let End::Done = end {
            self.after_done(name, &job.goal);
        } else if job.goal == Goal::Do(Operation::Pause) {
            vm.paused_by = None;
        }
        if let (Goal::Rewind(_), Reason::Command(_)) = (&job.goal, &job.reason) {
            self.tell_not_back(name, &job, &end);
        }
        let came = match &end {
            End::Done => Came::Done,
            End::Failed(why) | End::Blocked(why) | End::DiskGone(why) => Came::Failed(why),
            End::Unknown(why) => Came::Unknown(why),
        };
        self.after_isolation(name, &job, &came);
        if let Some(id) = job.incident() {
            self.end_attempt(id, name, self.as_approved(id, &job, end));
        }
    }

    /// A person's way back that failed before the disk was another one: the VM that was ended for it starts again as it was, and
    /// has not crashed.
    fn tell_not_back(&mut self, name: &VmName, job: &Job, end: &End) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let (End::Failed(why) | End::Blocked(why) | End::DiskGone(why) | End::Unknown(why)) = end else {
            return;
        };
        let is_back = matches!(job.step, Step::Claiming | Step::Starting(_)); // both come after its disk
        let how = if is_back {
            "its disk is what it was then, and its start failed"
        } else if matches!(vm.power, Power::Off(_)) {
            "it did not go back, and starts from the disk that it had"
        } else {
            "it did not go back, and nothing was done to it"
        };
        vm.not_back = Some(format!("{how}: {why}"));
        if !is_back && matches!(vm.power, Power::Off(_)) && vm.desired == Desired::Running {
            self.begin_job(name, Job::new(Goal::Up, job.reason.clone(), OPERATION));
        }
    }

    fn after_done(&mut self, name: &VmName, goal: &Goal) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        match goal {
            Goal::Do(Operation::RestartApp(app)) => vm.view.begin_app(app),
            Goal::Do(Operation::Reset) => vm.view.begin_boot(now, BootCause::Reset),
            Goal::Do(Operation::Continue) => vm.view.goes_on(now),
            Goal::Do(
                Operation::Pause
                | Operation::Shutdown
                | Operation::LinkUp
                | Operation::LinkDown
                | Operation::Thaw,
            )
            | Goal::Look
            | Goal::Up
            | Goal::Cycle => {}
            Goal::Rewind(_) => {
                vm.view.dealt_with(); // what was said of the disk is of another one
                self.end_isolation(
                    name,
                    "the isolation is over: it went back, and its machine is another one",
                );
            }
            Goal::Down { .. } => vm.ran = None,
        }
    }

    fn after_look(&mut self, name: &VmName, end: &End) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        if let End::Failed(why) | End::Blocked(why) | End::DiskGone(why) | End::Unknown(why) = end {
            let wait = doubled(vm.look.0);
            vm.look = (vm.look.0 + 1, now + wait);
            vm.waits_for = Some(format!("its state is not clear: {why}"));
            return;
        }
        vm.look = (0, now);
        vm.waits_for = None;
        // It ran when we last knew, and it is dead: that is a crash, unless the host has booted since.
        let Power::Off(proof) = vm.power.clone() else { return };
        if *proof.death() == Death::HostRebooted {
            self.end_isolation(name, "the isolation is over: the host was rebooted");
            return self.close_all(name, &Resolution::Superseded { by: "the host's reboot".into() });
        }
        let Some(vm) = self.vms.get_mut(name) else { return };
        let crashed = vm.ran.as_ref().is_some_and(|ran| ran.incarnation() == proof.incarnation());
        if crashed && vm.desired == Desired::Running {
            let status = crate::lease::ExitStatus::Unknown;
            let seen = Seen::Process(ProcessSign::Exited { proof: proof.clone(), status });
            let incarnation = Some(proof.incarnation());
            vm.observe(now, &Signal { subject: Subject::Vm(name.clone()), incarnation, at: now, seen });
        }
    }

    fn end_attempt(&mut self, id: IncidentId, name: &VmName, end: End) {
        let now = self.now;
        let deadline = now + self.settling_time(id, name);
        let Some(incident) = self.edit(id) else { return };
        if !matches!(incident.phase, Phase::Recovering) {
            return;
        }
        let remedy = incident.plan.as_ref().map_or(Remedy::Hold, |plan| plan.remedy);
        let approved = incident.approved.take_if(|_| !matches!(end, End::Blocked(_))).is_some();
        let silent = incident.tried_before(remedy) && !approved;
        match end {
            End::Done => {
                incident.end_attempt(now, AttemptResult::Done);
                incident.times.isolated.get_or_insert(now);
                incident.times.recovered = Some(now);
                incident.phase = Phase::Verifying { deadline };
                if remedy.is_destructive() || !incident.tried_before(remedy) {
                    incident.tell(now, "recover", format!("{remedy} done, watching whether it helps"));
                }
            }
            End::Failed(why) | End::DiskGone(why) => {
                if !silent {
                    incident.tell(now, "recover", format!("{remedy} failed: {why}"));
                }
                incident.fail_attempt(now, why);
                incident.phase = Phase::Suspected;
            }
            End::Blocked(why) => {
                if incident.approved.is_some() {
                    tell_waits(incident, now, remedy, &why);
                } else if !silent {
                    incident.tell(now, "recover", format!("{remedy} has to wait: {why}"));
                }
                incident.end_attempt(now, AttemptResult::Blocked(why.clone()));
                self.take_back(id, name);
                self.await_room(id, why);
            }
            End::Unknown(why) => {
                if !silent {
                    let text = format!("not known whether {remedy} was done: {why}; looking");
                    incident.tell(now, "recover", text);
                }
                incident.end_attempt(now, AttemptResult::Unknown(why));
                incident.phase = Phase::Suspected;
            }
        }
    }

    /// What a person approved had not begun: it is waited for, however its preparation ended.
    fn as_approved(&self, id: IncidentId, job: &Job, end: End) -> End {
        let approved = self.incidents.get(&id).is_some_and(|incident| incident.approved.is_some());
        if let End::Unknown(why) = &end
            && approved
            && job.prepares()
        {
            return End::Blocked(why.clone());
        }
        end
    }

    /// Somebody else has what a remedy needs: it is tried again soon, and ever more rarely.
    fn await_room(&mut self, id: IncidentId, why: String) {
        let now = self.now;
        let Some(incident) = self.edit(id) else { return };
        let until = now + (now.since(incident.times.opened) / 4).clamp(ROOM_SOON, ROOM_LATER);
        incident.phase = Phase::Waiting { until, why };
    }

    /// How long a recovery may take to show.
    fn settling_time(&self, id: IncidentId, name: &VmName) -> Duration {
        let (Some(incident), Some(vm)) = (self.incidents.get(&id), self.vms.get(name)) else {
            return VM_SETTLES;
        };
        let verify = vm.policy.verify_for;
        match incident.plan.as_ref().map(|plan| plan.remedy) {
            Some(Remedy::RestartApp) => APP_SETTLES.max(verify * 2),
            Some(Remedy::ResumeIo | Remedy::Reconnect | Remedy::Hold) | None => VM_SETTLES.max(verify * 2),
            Some(
                Remedy::ResetGuest
                | Remedy::RestartVm
                | Remedy::FailOver
                | Remedy::Resume
                | Remedy::Revert
                | Remedy::Restore,
            ) => {
                let patience = self.view.patience(self.now);
                let due = vm.view.boot_due(vm.policy.boot_limit, patience);
                due.map_or(vm.policy.boot_limit, |due| due.since(self.now)) + verify
            }
        }
    }
}

impl Goal {
    /// The word for it on screen.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Look => "a look",
            Self::Up => "a start",
            Self::Down { then_up: false, .. } => "a stop",
            Self::Down { then_up: true, .. } | Self::Cycle => "a restart",
            Self::Rewind(_) => "going back to a restore point",
            Self::Do(operation) => operation.name(),
        }
    }
}
