//! Restore points of a simulated VM: what of its inside is on its disk, and so comes back when one goes back.

use crate::daemon::Running;
use crate::guest::Guest;
use crate::run::{Due, Run};
use holdfast_core::action::{Command, CommandId, Rewind, Wish};
use holdfast_core::engine::{Engine, Reaction};
use holdfast_core::input::Input;
use holdfast_core::point::{Grade, Known, PointId, Snapshot, SnapshotId};
use holdfast_core::protect::{Keep, Means, Schedule, may_go};
use holdfast_core::signal::{Seen, Signal};
use holdfast_core::subject::{AppName, Subject, VmName};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_core::written::{Marks, Written};

/// What of a guest is on its disk.
#[derive(Clone, Debug)]
struct OnDisk {
    /// Its file system.
    damaged: bool,
    /// Of each application, whether it is ruined there, and whether it is spoiled.
    apps: Vec<(AppName, [bool; 2])>,
}

#[derive(Clone, Debug)]
struct Kept {
    id: PointId,
    taken: Timestamp,
    on_disk: OnDisk,
    memory: bool,
    resumed: bool,
    /// What it was before it went back: nobody goes there by himself.
    set_aside: bool,
    /// It was taken by schedule.
    scheduled: bool,
    /// A backup that looked as if all of it had been encrypted.
    warned: bool,
    /// What the engine knew then of what was written.
    written: Marks,
}

/// All restore points of a VM.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    kept: Vec<Kept>,
    last: u64,
    /// The next start goes on with a memory.
    pub(crate) resumes: bool,
    /// None can be taken.
    pub(crate) fails: bool,
    /// The repository of backups cannot be reached.
    pub(crate) out_of_reach: bool,
}

/// So many of those that were taken by schedule are kept.
const KEEP: Keep = Keep { last: 3, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
/// Bytes of its log that a row takes.
const ROW_BYTES: u64 = 2_600;
/// It is looked so many times in the time between two of them whether one is due.
const LOOKS: u32 = 10;

/// One is taken so often, and a person is told of twice that, as in the program.
pub(crate) fn schedule(every: Duration) -> Schedule {
    Schedule { every, stale_after: (every * 2).max(Duration::from_secs(600)) }
}

/// No snapshot goes while anything is wrong or under way: it may be the one that is needed (I12).
pub(crate) fn gives_up_in_need(command: &Command, reaction: &Reaction, engine: &Engine) -> Option<String> {
    let refused = reaction.answers.iter().any(|a| a.command == command.id && a.refused.is_some());
    let vm = engine.vm(&command.vm).filter(|_| !refused && matches!(command.wish, Wish::GiveUp(_)))?;
    let needed = vm.open_incidents().next().is_some() || vm.job.is_some() || vm.in_maintenance();
    needed.then(|| format!("a snapshot of {} was given up while it may be needed", command.vm))
}

fn on_disk(guest: &Guest) -> OnDisk {
    let apps = guest.apps.iter().map(|app| (app.name.clone(), [app.ruined, app.spoiled])).collect();
    OnDisk { damaged: guest.damaged, apps }
}

impl Snapshots {
    /// One is taken.
    pub(crate) fn take(&mut self, now: Timestamp, guest: &Guest, memory: bool) {
        self.last += 1;
        self.keep(SnapshotId(self.last).into(), now, guest, memory, false);
    }

    /// What was known of what was written when the newest was taken.
    fn mark(&mut self, written: Marks) {
        self.kept.iter_mut().rev().take(1).for_each(|kept| kept.written.clone_from(&written));
    }

    /// A backup is made.
    pub(crate) fn back_up(&mut self, now: Timestamp, guest: &Guest, warned: bool) {
        self.last += 1;
        self.keep(PointId::backup(self.last), now, guest, false, warned);
    }

    fn keep(&mut self, id: PointId, now: Timestamp, guest: &Guest, memory: bool, warned: bool) {
        let on_disk = on_disk(guest);
        self.kept.push(Kept {
            id,
            taken: now,
            on_disk,
            memory,
            resumed: false,
            set_aside: false,
            scheduled: false,
            warned,
            written: Marks::new(),
        });
    }

    /// As the engine is told of them.
    fn known(&self, now: Timestamp) -> Vec<Known> {
        let known = |kept: &Kept| Known {
            id: kept.id,
            grade: if kept.memory { Grade::Consistent } else { Grade::Taken },
            resumable: kept.memory && !kept.resumed,
            doubtful: kept.warned,
            age: now.since(kept.taken),
            written: kept.written.clone(),
        };
        self.kept.iter().filter(|kept| !kept.set_aside).map(known).collect()
    }

    /// Those that may go by what is kept. Nothing here has a clock that is wrong: the world's own time will do.
    fn may_go(&self, now: Timestamp) -> Vec<SnapshotId> {
        let micros = |at: Timestamp| i64::try_from(at.since(Timestamp::ZERO).as_micros()).unwrap_or(i64::MAX);
        let snapshot = |kept: &Kept| {
            let PointId::Snapshot(id) = kept.id else { return None };
            Some(Snapshot {
                id,
                taken: micros(kept.taken),
                memory: None,
                frozen: kept.memory,
                set_aside: kept.set_aside,
                scheduled: kept.scheduled,
                trial: None,
                written: Marks::new(),
                note: String::new(),
            })
        };
        let all: Vec<Snapshot> = self.kept.iter().filter_map(snapshot).collect();
        may_go(&all, &KEEP, micros(now)).unwrap_or_default()
    }

    /// How old the newest is that one could go back to.
    fn age(&self, now: Timestamp) -> Option<Duration> {
        let is_snapshot = |kept: &&Kept| matches!(kept.id, PointId::Snapshot(_));
        let newest = self.kept.iter().filter(is_snapshot).rfind(|kept| !kept.set_aside)?;
        Some(now.since(newest.taken))
    }

    /// Whether it can be had.
    pub(crate) fn reach(&self, to: PointId) -> Result<(), String> {
        if self.out_of_reach && matches!(to, PointId::Backup { .. }) {
            return Err("the repository cannot be reached".into());
        }
        Ok(())
    }

    /// Goes back: what the guest was is kept, and its disk is what it was.
    pub(crate) fn rewind(&mut self, now: Timestamp, guest: &mut Guest, to: Rewind) -> Result<(), String> {
        let kept = self.kept.iter_mut().find(|kept| kept.id == to.to);
        let kept = kept.ok_or_else(|| format!("it has no {}", to.to))?;
        if to.resume && !kept.memory {
            return Err("it has no memory".into());
        }
        if to.resume && kept.resumed && !to.again {
            return Err("its memory was resumed before (I23)".into());
        }
        kept.resumed |= to.resume;
        self.resumes = to.resume;
        let disk = kept.on_disk.clone();
        self.take(now, guest, false);
        self.kept.iter_mut().rev().take(1).for_each(|aside| aside.set_aside = true);
        guest.damaged = disk.damaged;
        for app in &mut guest.apps {
            let was = disk.apps.iter().find(|(name, _)| *name == app.name);
            let [ruined, spoiled] = was.map(|(_, was)| *was).unwrap_or_default();
            (app.ruined, app.spoiled, app.broken) = (ruined, spoiled, app.broken && ruined);
        }
        Ok(())
    }
}

impl Run {
    /// A person has a snapshot taken.
    pub(crate) fn take_snapshot(&mut self, name: &VmName, memory: bool) {
        let Some(vm) = self.world.index(name) else { return };
        let machine = &mut self.world.machines[vm];
        machine.snapshots.take(self.world.now, &machine.guest, memory && machine.process.is_some());
        machine.snapshots.mark(self.daemon.engine.written(name));
        self.tell_points(name);
    }

    /// A person has a backup made.
    pub(crate) fn back_up(&mut self, name: &VmName, warned: bool) {
        let Some(vm) = self.world.index(name) else { return };
        let machine = &mut self.world.machines[vm];
        machine.snapshots.back_up(self.world.now, &machine.guest, warned);
        machine.snapshots.mark(self.daemon.engine.written(name));
        self.tell_points(name);
    }

    /// Clients write so many rows into each application of a VM, which tells of it. Since the last boot it counts them.
    pub(crate) fn write_rows(&mut self, name: &VmName, rows: u64) {
        let Some(vm) = self.world.index(name) else { return };
        let (machine, at) = (&mut self.world.machines[vm], self.world.now);
        let incarnation = machine.incarnation();
        let since = i64::try_from(machine.guest.boots).unwrap_or(i64::MAX);
        let mut told = Vec::new();
        for app in &mut machine.guest.apps {
            let before = if app.written.since == since { app.written.rows } else { 0 };
            app.written = Written { rows: before + rows, log: app.written.log + rows * ROW_BYTES, since };
            told.push((Subject::App(name.clone(), app.name.clone()), Seen::Written(app.written)));
        }
        for (subject, seen) in told {
            self.receive(Input::Signal(Signal { subject, incarnation, at, seen }));
        }
    }

    /// The engine is told which restore points there are.
    pub(crate) fn tell_points(&mut self, name: &VmName) {
        let Some(vm) = self.world.index(name) else { return };
        let known = self.world.machines[vm].snapshots.known(self.world.now);
        self.receive(Input::Points { vm: name.clone(), known });
    }

    /// The daemon begins to look after the snapshots that are taken by schedule.
    pub(crate) fn plan_points(&mut self) {
        for vm in 0..self.world.machines.len() {
            if let Some(schedule) = self.world.machines[vm].setup.policy.protect.snapshot {
                self.after(schedule.every / LOOKS, Due::Points(vm));
            }
        }
    }

    /// What is due is taken, what need not be kept is given up, and the engine is told: as the program does it.
    pub(crate) fn mind_points(&mut self, vm: usize) {
        let machine = &self.world.machines[vm];
        let name = machine.setup.name.clone();
        let Some(schedule) = machine.setup.policy.protect.snapshot else { return };
        self.after(schedule.every / LOOKS, Due::Points(vm));
        if self.daemon.running != Running::Up {
            return;
        }
        let machine = &mut self.world.machines[vm];
        let is_due = schedule.is_due(machine.snapshots.age(self.world.now));
        let may = self.daemon.engine.holds_off(&name, Means::Snapshot).is_none();
        if is_due && may && !machine.snapshots.fails {
            machine.snapshots.take(self.world.now, &machine.guest, false);
            machine.snapshots.kept.iter_mut().rev().take(1).for_each(|kept| kept.scheduled = true);
            self.tell_points(&name);
        }
        let machine = &self.world.machines[vm];
        let trouble = (is_due && may && machine.snapshots.fails)
            .then(|| "the last try: there is no room for it".to_owned());
        let age = machine.snapshots.age(self.world.now);
        if is_due {
            self.receive(Input::Newest { vm: name.clone(), means: Means::Snapshot, age, trouble });
        }
        for id in self.world.machines[vm].snapshots.may_go(self.world.now) {
            self.give_up_snapshot(vm, &name, id);
        }
    }

    /// The engine is asked first; what it refuses stays.
    fn give_up_snapshot(&mut self, vm: usize, name: &VmName, id: SnapshotId) {
        self.daemon.commands += 1;
        let (by, number) = ("schedule".to_owned(), CommandId(self.daemon.commands));
        self.receive(Input::Command(Command { id: number, by, vm: name.clone(), wish: Wish::GiveUp(id) }));
        let agreed = self.daemon.engine.vm(name).is_some_and(|vm| !vm.points.knows(id));
        if agreed && self.daemon.running == Running::Up {
            self.world.machines[vm].snapshots.kept.retain(|kept| kept.id != id.into());
            self.tell_points(name);
        }
    }
}
