//! Snapshots of a simulated VM: what of its inside is on its disk, and so comes back when one goes back.

use crate::guest::Guest;
use crate::run::Run;
use holdfast_core::action::Rewind;
use holdfast_core::input::Input;
use holdfast_core::point::{Grade, Known, SnapshotId};
use holdfast_core::subject::{AppName, VmName};
use holdfast_core::time::Timestamp;

/// What of a guest is on its disk: which applications are damaged there.
type OnDisk = Vec<(AppName, bool)>;

#[derive(Clone, Debug)]
struct Kept {
    id: SnapshotId,
    taken: Timestamp,
    on_disk: OnDisk,
    memory: bool,
    resumed: bool,
    /// What it was before it went back: nobody goes there by himself.
    set_aside: bool,
}

/// All snapshots of a VM.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    kept: Vec<Kept>,
    last: u64,
    /// The next start goes on with a memory.
    pub(crate) resumes: bool,
}

fn on_disk(guest: &Guest) -> OnDisk {
    guest.apps.iter().map(|app| (app.name.clone(), app.ruined)).collect()
}

impl Snapshots {
    /// One is taken.
    pub(crate) fn take(&mut self, now: Timestamp, guest: &Guest, memory: bool) {
        self.last += 1;
        let (id, on_disk) = (SnapshotId(self.last), on_disk(guest));
        self.kept.push(Kept { id, taken: now, on_disk, memory, resumed: false, set_aside: false });
    }

    /// As the engine is told of them.
    fn known(&self, now: Timestamp) -> Vec<Known> {
        let known = |kept: &Kept| Known {
            id: kept.id,
            grade: if kept.memory { Grade::Consistent } else { Grade::Taken },
            resumable: kept.memory && !kept.resumed,
            age: now.since(kept.taken),
        };
        self.kept.iter().filter(|kept| !kept.set_aside).map(known).collect()
    }

    /// Goes back: what the guest was is kept, and its disk is what it was.
    pub(crate) fn rewind(&mut self, now: Timestamp, guest: &mut Guest, to: Rewind) -> Result<(), String> {
        let kept = self.kept.iter_mut().find(|kept| kept.id == to.to);
        let kept = kept.ok_or_else(|| format!("it has no snapshot {}", to.to))?;
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
        for app in &mut guest.apps {
            let was = disk.iter().find(|(name, _)| *name == app.name).is_some_and(|(_, ruined)| *ruined);
            (app.ruined, app.broken) = (was, app.broken && was);
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
        self.tell_points(name);
    }

    /// The engine is told which snapshots there are.
    pub(crate) fn tell_points(&mut self, name: &VmName) {
        let Some(vm) = self.world.index(name) else { return };
        let known = self.world.machines[vm].snapshots.known(self.world.now);
        self.receive(Input::Points { vm: name.clone(), known });
    }
}
