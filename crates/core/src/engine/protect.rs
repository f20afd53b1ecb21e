//! Restore points by schedule: whether one may be made or given up now, and a person is told when the newest is too old.
//!
//! Nothing is ever done to a VM because of its restore points: a fault of them is told, and no more.

use super::{Desired, Engine, VmState};
use crate::action::Work;
use crate::evidence::{Evidence, FULL, Kind};
use crate::incident::{Incident, IncidentId, Phase, Resolution};
use crate::point::SnapshotId;
use crate::policy::Mode;
use crate::protect::{Means, Newest, Overdue, Protected, Schedules};
use crate::recover::{Goal, Power};
use crate::subject::{Subject, VmName};
use crate::time::{Duration, Timestamp};

/// While no point can be made, or one is too old, it is looked this often whether that has changed.
const LOOK: Duration = Duration::from_secs(60);

impl Engine {
    /// Why no restore point is made of a VM by schedule just now; nothing if one may be.
    #[must_use]
    pub fn holds_off(&self, name: &VmName, means: Means) -> Option<String> {
        let Some(vm) = self.vms.get(name) else { return Some(format!("there is no vm `{name}`")) };
        let of_snapshots = means == Means::Snapshot;
        // A backup adds, and takes nothing away: while an incident only waits for a person, backups go on.
        let waits = |id: &IncidentId| {
            let phase = self.incidents.get(id).map(|incident| &incident.phase);
            !of_snapshots && matches!(phase, Some(Phase::Held(_)))
        };
        if of_snapshots && vm.policy.mode == Mode::Observe {
            return Some("its mode is observe".into());
        }
        if of_snapshots && self.view.is_full(&vm.policy.disk_path) {
            return Some(format!("the disk of {} is full", vm.policy.disk_path));
        }
        let open = vm.open_incidents().find(|id| !waits(id)).and_then(|id| self.incidents.get(&id));
        open.map(|open| format!("{}, {}, is open", open.id, open.fault())).or_else(|| self.is_taken_up(vm))
    }

    /// What is being done to it, or keeps all from being done.
    fn is_taken_up(&self, vm: &VmState) -> Option<String> {
        let runs = matches!(vm.power, Power::On(_)) && vm.desired == Desired::Running;
        let job = vm.job.as_ref().map(|job| &job.goal);
        let work = vm.works.keys().find(|work| !matches!(work, Work::Snapshot));
        if vm.in_maintenance() {
            Some("it is in maintenance".into())
        } else if self.muted {
            Some("the journal cannot be written".into())
        } else if self.brake.pulled().is_some() {
            Some("too many VMs look failed at once".into())
        } else if let Some(goal) = job.filter(|goal| **goal != Goal::Look) {
            Some(format!("{} is under way", goal.name()))
        } else if !runs {
            Some("it does not run".into())
        } else if vm.isolated.is_some() {
            Some("it is isolated".into())
        } else if vm.is_paused() {
            Some("it is paused".into()) // nothing is written: one more would be as the last, and push another out of what is kept
        } else if vm.view.boot().is_some() {
            Some("it is booting".into())
        } else {
            work.map(|work| format!("its {} is under way", work.name()))
        }
    }

    /// A snapshot is to go by schedule. From this step on nobody goes back to it; whatever is refused here stays.
    pub(super) fn give_up(&mut self, name: &VmName, id: SnapshotId) -> Result<(), String> {
        if let Some(why) = self.holds_off(name, Means::Snapshot) {
            return Err(why);
        }
        let Some(vm) = self.vms.get_mut(name) else { return Ok(()) };
        vm.points.give_up(id).map_err(ToOwned::to_owned)
    }

    /// How old the newest point of a kind is, and why there is no newer one.
    pub(super) fn know_newest(
        &mut self,
        name: &VmName,
        means: Means,
        age: Option<Duration>,
        trouble: Option<&str>,
    ) {
        let told = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        // Who cannot look does not know better than we did.
        let age = age.or_else(|| trouble.and(vm.protected.age(means, told)));
        vm.protected.learn(means, Newest { told, age, trouble: trouble.map(ToOwned::to_owned) });
        self.look_at_points(name);
    }

    /// A configuration came into force, or we started: from now on points may be made.
    pub(super) fn expect_points(&mut self, name: &VmName, restarted: bool) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        if restarted {
            vm.protected.able = None;
        }
        let schedules = vm.policy.protect;
        vm.protected.since.retain(|means, _| schedules.iter().any(|(wanted, _)| wanted == *means));
        for (means, _) in schedules.iter() {
            vm.protected.since.entry(means).or_insert(now);
        }
        if !vm.protected.since.is_empty() {
            self.look_at_points(name);
        } else if vm.protected.look.is_some() {
            let by = "configuration".to_owned();
            self.end_overdue(name, Resolution::Superseded { by }, "none are to be made any more");
            let look = self.vms.get_mut(name).and_then(|vm| std::mem::take(&mut vm.protected).look);
            look.map(|look| self.point_timers.remove(&(look, name.clone())));
        }
    }

    pub(super) fn run_point_timers(&mut self) {
        while let Some((at, name)) = self.point_timers.first().cloned().filter(|(at, _)| *at <= self.now) {
            self.point_timers.remove(&(at, name.clone()));
            self.look_at_points(&name);
        }
    }

    /// Whether its points are too old now, and when to look again.
    pub(super) fn look_at_points(&mut self, name: &VmName) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name).filter(|vm| !vm.protected.since.is_empty()) else { return };
        let paused = vm.is_paused();
        let runs = vm.power.incarnation().filter(|_| !paused && !vm.in_maintenance());
        let before = vm.protected.able.filter(|(incarnation, _)| runs == Some(*incarnation));
        vm.protected.able = runs.map(|incarnation| before.unwrap_or((incarnation, now)));
        let off = matches!(vm.power, Power::Off(_)) && vm.desired != Desired::Running;
        let next = next_look(&vm.protected, &vm.policy.protect, now);
        let before = vm.protected.look.replace(next);
        before.map(|look| self.point_timers.remove(&(look, name.clone())));
        self.point_timers.insert((next, name.clone()));
        if off {
            let by = "its stop".to_owned();
            self.end_overdue(name, Resolution::Superseded { by }, "it is off: nothing is written to it");
        } else if paused {
            let by = "its pause".to_owned();
            self.end_overdue(name, Resolution::Superseded { by }, "it is paused: nothing is written to it");
        } else if runs.is_some() {
            self.judge_points(name);
        }
    }

    fn judge_points(&mut self, name: &VmName) {
        let evidence = self.stale_points(name);
        let open = self.vms.get(name).and_then(|vm| vm.protected.overdue);
        match (self.catalogue.diagnose_points(&evidence), open) {
            (None, Some(_)) => self.end_overdue(name, Resolution::Healed, "there are new ones"),
            (None, None) => {}
            (Some(diagnosis), Some(id)) => {
                if let Some(incident) = self.edit_quietly(id) {
                    incident.named = Some(diagnosis.clone()); // why none came may be another reason now
                    incident.diagnosis = diagnosis;
                }
            }
            (Some(diagnosis), None) => {
                let id = self.next_incident();
                let subject = Subject::Vm(name.clone());
                let text = self.describe(&subject.to_string(), &diagnosis, "confirmed");
                self.open(Incident::only_told(id, self.now, subject, diagnosis));
                if let Some(vm) = self.vms.get_mut(name) {
                    vm.protected.overdue = Some(id);
                }
                self.tell(id, "diagnosis", text);
                let way =
                    "Holdfast tries again, and does nothing else: once a new one is there, this is over";
                self.tell(id, "held", format!("{way}; {}", self.way_out(name)));
            }
        }
    }

    fn stale_points(&self, name: &VmName) -> Vec<Evidence> {
        let (now, Some(vm)) = (self.now, self.vms.get(name)) else { return Vec::new() };
        let stale = vm.policy.protect.iter().filter_map(|(means, schedule)| {
            let Overdue::Since(since) = vm.protected.overdue(means, &schedule, now) else { return None };
            let way = self.holds_off(name, means);
            let text = vm.protected.says(means, &schedule, now, way.as_deref());
            let kind = Kind::PointsStale;
            Some(Evidence { kind, app: None, since, at: now, strength: FULL, text, quote: None })
        });
        stale.collect()
    }

    /// What a person may try, to see what is in the way.
    fn way_out(&self, name: &VmName) -> String {
        let Some(vm) = self.vms.get(name) else { return String::new() };
        let late = |(means, schedule)| {
            let is_late = matches!(vm.protected.overdue(means, &schedule, self.now), Overdue::Since(_));
            is_late.then(|| format!("`holdfast {} create {name}`", means.name()))
        };
        let late: Vec<String> = vm.policy.protect.iter().filter_map(late).collect();
        format!("{} tries now, and says what is in the way", late.join(" or "))
    }

    /// Nobody needs to be told any more.
    pub(super) fn end_overdue(&mut self, name: &VmName, how: Resolution, why: &str) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(incident) = vm.protected.overdue.take().and_then(|id| self.edit(id)) else { return };
        incident.times.closed = Some(now);
        incident.tell(now, "closed", format!("{}: {why}", how.name()));
        incident.phase = Phase::Closed(how);
    }

    fn edit_quietly(&mut self, id: IncidentId) -> Option<&mut Incident> {
        self.incidents.get_mut(&id)
    }
}

/// When a point will be too old if no new one comes.
fn next_look(protected: &Protected, schedules: &Schedules, now: Timestamp) -> Timestamp {
    let overdue = schedules.iter().map(|(means, schedule)| protected.overdue(means, &schedule, now));
    let at = overdue.map(|overdue| match overdue {
        Overdue::Not(Timestamp::NEVER) | Overdue::Since(_) => now + LOOK,
        Overdue::Not(at) => at.max(now + Duration::from_millis(20)),
    });
    at.min().unwrap_or(now + LOOK)
}
