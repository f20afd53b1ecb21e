//! Where an open incident goes when its VM is looked at, phase by phase.

use super::Engine;
use super::consider::{UNSURE_AFTER, VAGUE_AFTER};
use crate::action::Operation;
use crate::diagnosis::{Diagnosis, Fault, Grounds, Weighed, is_warning};
use crate::evidence::{Evidence, Kind, Lens};
use crate::incident::{HeldReason, IncidentId, Phase, Resolution};
use crate::plan::Remedy;
use crate::policy::Mode;
use crate::recover::{Goal, Power};
use crate::signal::Channel;
use crate::subject::VmName;
use crate::time::{Duration, Timestamp, show};
use crate::verify::{Verdict, judge};

/// A suspicion that nothing supports any more is dropped after this.
const SUSPICION_KEEPS: Duration = Duration::from_secs(60);
/// A remedy has failed if its VM, back for a while, is sick again as surely as this, in parts of ten thousand.
const SURE_AGAIN: u16 = 9_700;
/// A suspicion is gone when everything has answered for so long.
const HEALED_AFTER: Duration = Duration::from_secs(2);
/// An answer of the hypervisor so long after a resumption is not from before it.
const STILL_PAUSED: Duration = Duration::from_millis(200);

impl Engine {
    pub(super) fn update_suspected(
        &mut self,
        id: IncidentId,
        name: &VmName,
        found: Option<Diagnosis>,
        lens: &Lens,
    ) {
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
                let discounted = lens.patience > 1 || !lens.trust_silence; // silence may well be what there is
                if healthy || (alone && !pending && !discounted) {
                    let how = incident.how_it_healed();
                    self.close(id, name, how);
                } else if pending && now.since(incident.last_tried()) >= UNSURE_AFTER {
                    self.hold(id, HeldReason::Unsure);
                }
            }
        }
    }

    /// The diagnosis is kept up to date until something is done about it. A sign that settles the matter names
    /// the incident anew; what it was called before stays in its story.
    pub(super) fn revise(&mut self, id: IncidentId, name: &VmName, diagnosis: Diagnosis) {
        let now = self.now;
        let Some(incident) = self.incidents.get(&id) else { return };
        let renamed = incident.diagnosis.fault != diagnosis.fault;
        let subject = crate::incident::subject_of(name, &diagnosis);
        let settled = incident.is_settled_by(&diagnosis);
        let certainty = if settled { "now confirmed" } else { "now suspected" };
        let text = renamed.then(|| self.describe(&subject.to_string(), &diagnosis, certainty));
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        if incident.named.is_none() || settled {
            incident.subject = subject;
        }
        if settled {
            incident.named = Some(diagnosis.clone());
        }
        incident.diagnosis = diagnosis;
        if let Some(text) = text {
            incident.tell(now, "diagnosis", text);
            self.reaction.changed.insert(id);
        }
    }

    /// How long everything has answered, if it does.
    pub(super) fn healthy_for(&self, name: &VmName, lens: &Lens) -> Option<Duration> {
        let vm = self.vms.get(name)?;
        if !matches!(vm.power, Power::On(_)) {
            return None;
        }
        vm.view.healthy_since(lens).map(|since| lens.now.since(since))
    }

    pub(super) fn update_waiting(
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
        if self.go_on_approved(id, name, lens) {
            return;
        }
        if let Some(incident) = self.edit(id) {
            incident.phase = Phase::Suspected;
        }
        self.update_suspected(id, name, found, lens); // on what is seen now, not on what was
    }

    pub(super) fn update_held(
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
        if found.is_none() && reason.is_hopeless() && self.is_over(id, name, lens) {
            return self.close(id, name, Resolution::Healed); // what is still down has another cause
        }
        if let (HeldReason::Unsure, Some(diagnosis)) = (reason, &found) {
            self.revise(id, name, diagnosis.clone());
        }
        let Some(vm) = self.vms.get(name) else { return };
        let lifted = match reason {
            HeldReason::Unsure => {
                let seen = found.is_some() || matches!(vm.power, Power::Off(_));
                seen && self.remedy_for(id, name, lens).is_some()
            }
            HeldReason::Maintenance => !vm.in_maintenance(),
            HeldReason::Observing => vm.policy.mode == Mode::Armed,
            HeldReason::Brake => self.brake.pulled().is_none(),
            HeldReason::NoRecord => !self.muted,
            HeldReason::BudgetSpent => false, // a person releases it (I6)
            HeldReason::NoRemedy | HeldReason::Approval => {
                let before = self.incidents.get(&id).map(|incident| incident.diagnosis.fault);
                // What was worth a word only has become another thing; else, that must be sure.
                let told_only = before.is_some_and(is_warning);
                let other = |d: &Diagnosis| Some(d.fault) != before && !is_warning(d.fault);
                let changed = |d: &Diagnosis| Some(d.fault) != before && d.grounds.suffice();
                found.as_ref().is_some_and(|d| changed(d) || (told_only && other(d)))
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
        } else {
            self.isolate_held(id, name, found, lens, reason);
        }
    }

    /// The guest itself says, freshly, that the cause is gone: its agent answers, its disk has room.
    fn is_over(&self, id: IncidentId, name: &VmName, lens: &Lens) -> bool {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return false };
        incident.app().is_none() && incident.fault() == Fault::GuestDiskFull && vm.view.has_room(lens)
    }

    /// A line that says what is being repaired may come after a sign that was quicker. It changes nothing that was
    /// decided, and is what a person looks for.
    pub(super) fn hear_late(&mut self, id: IncidentId, found: Option<&Diagnosis>) {
        let (Some(found), Some(incident)) = (found, self.incidents.get(&id)) else { return };
        let repairs = matches!(incident.phase, Phase::Recovering | Phase::Verifying { .. });
        let Some(named) = incident.named.as_ref().filter(|named| repairs && named.fault == found.fault)
        else {
            return;
        };
        let told = |line: &Weighed| named.evidence.iter().any(|w| w.evidence.kind == line.evidence.kind);
        let is_line = |w: &&Weighed| matches!(w.evidence.kind.channel(), Channel::Console | Channel::Logs);
        let lines = found.evidence.iter().filter(is_line).filter(|w| w.weight > 0 && !told(w));
        let lines: Vec<Weighed> = lines.cloned().collect();
        if lines.is_empty() {
            return;
        }
        if let Some(named) = self.edit(id).and_then(|incident| incident.named.as_mut()) {
            named.evidence.extend(lines);
        }
    }

    /// A command in the guest comes to no end once the guest has stopped: then something else is tried.
    pub(super) fn update_recovering(&mut self, id: IncidentId, name: &VmName, found: Option<&Diagnosis>) {
        let (Some(vm), Some(incident)) = (self.vms.get(name), self.incidents.get(&id)) else { return };
        let (Some(job), Some(attempt)) = (&vm.job, incident.attempts.last()) else { return };
        let inside = matches!(job.goal, Goal::Do(Operation::RestartApp(_))) && job.incident() == Some(id);
        let why = found.and_then(|d| struck_again(d, attempt.started, After::Remedy)).filter(|_| inside);
        let Some(why) = why else { return };
        self.stop_automatic_job(name, None); // and the VM is looked at before anything else is done (I9)
        let now = self.now;
        let Some(incident) = self.edit(id) else { return };
        incident.tell(now, "recover", format!("given up: {why}"));
        incident.fail_attempt(now, why);
        incident.phase = Phase::Suspected;
    }

    pub(super) fn update_verifying(
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
        let after = if resumed { After::Resumption } else { After::Remedy };
        if let Some(why) = found.as_ref().and_then(|d| struck_again(d, recovered, after)) {
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
}

/// Sure enough to act upon, and on nothing that was seen before then.
fn is_sure_since(diagnosis: &Diagnosis, since: Timestamp) -> bool {
    let speaks = |w: &&Weighed| w.counts && w.weight > 0;
    diagnosis.probability >= SURE_AGAIN
        && diagnosis.grounds.suffice()
        && diagnosis.evidence.iter().filter(speaks).all(|w| w.evidence.since > since)
}

/// What a conclusive sign may have come after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The VM was let run on.
    Resumption,
    /// Anything else was done.
    Remedy,
}

/// A conclusive sign that is newer than the remedy. A VM that was resumed may have been paused again before we
/// heard that the resumption was done, so there it counts that it is still seen paused some time later.
fn struck_again(diagnosis: &Diagnosis, recovered: Timestamp, after: After) -> Option<String> {
    let Grounds::Conclusive(kind) = diagnosis.grounds else { return None };
    let paused = |e: &Evidence| {
        after == After::Resumption && e.kind == Kind::PausedIo && e.at > recovered + STILL_PAUSED
    };
    let sign = diagnosis.evidence.iter().map(|w| &w.evidence);
    let mut sign = sign.filter(|e| e.kind == kind && (e.since > recovered || paused(e)));
    sign.next().map(|e| e.text.clone())
}
