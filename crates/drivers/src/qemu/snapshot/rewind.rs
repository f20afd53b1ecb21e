//! Going back to a snapshot, while the VM is dead; and the start that follows.

use super::super::QemuVm;
use super::super::configured::SnapshotTurn;
use super::super::image::{self, ImageError};
use super::super::launch::Format;
use super::super::machine::{Machine, error_chain};
use super::super::mapped::MAPPED;
use super::super::memory::Saved;
use super::super::start::on_top;
use super::files::Files;
use super::live::ANSWER;
use super::restore::is_gone;
use super::take::now;
use super::tree::{FileNumber, Tree};
use crate::DriverError;
use holdfast_core::action::Rewind;
use holdfast_core::lease::DeathProof;
use holdfast_core::point::{Memory, MemoryKind, PointId, Snapshot, SnapshotId};
use holdfast_core::written::Marks;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

pub(super) const REWIND: &str = "change the disk of";
const START: &str = "start";
const CHANGED: &str = "its snapshots changed while it was about to start: try it again";
/// What is needed at least for another overlay and its record.
const ROOM: u64 = 16 << 20;
/// How long a guest is given to hear that it was away.
const TELL_GUEST: Duration = Duration::from_secs(20);

/// What a start is to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The image on top.
    pub disk: PathBuf,
    /// What it stands on and is the VM's own, too: files of its snapshots, and the disk that is configured.
    pub below: Vec<PathBuf>,
    /// The memory that it goes on with.
    pub memory: Option<Saved>,
}

impl Machine {
    /// Makes a snapshot what the next start finds. What was there is kept as a snapshot of its own, so nothing is lost
    /// (I15). Needs the death of the incarnation that could write.
    ///
    /// # Errors
    /// As for [`crate::Driver::perform`]; then nothing has changed.
    pub async fn rewind(&self, dead: &DeathProof, way: Rewind, limit: Duration) -> Result<(), DriverError> {
        let deadline = Instant::now() + limit;
        let _one = self.snapshot_turn(REWIND, deadline).await?;
        let _turn = self.turn(deadline).await?;
        self.must_be_dead(dead)?;
        self.must_keep_its_disk().map_err(|why| self.refused(REWIND, why))?;
        let mut tree = self.own_tree(REWIND).await?;
        self.check_way(&tree, way).await?;
        self.files().skip_left(&mut tree);
        let to = self.snapshot_of(way)?;
        let aside = set_aside(&tree, format!("what it was before it went back to snapshot {to}"));
        let parent = tree.file_of(to).unwrap_or_default();
        let number = tree.begin();
        let begun = tree.clone();
        tree.rewind(to, aside, way.resume);
        self.on_disk(REWIND, move |files| {
            // Only the last of these steps changes what a start finds; an overlay that nobody asks for stays what it is.
            files
                .make_overlay(&begun, number, parent)
                .map_err(|e| format!("cannot make its overlay: {e}"))?;
            files.write(&tree)
        })
        .await
    }

    /// Whether it can be gone back to, asked before anything is ended. Whether there is such a backup is not for a driver to see.
    ///
    /// # Errors
    /// [`DriverError::Refused`] with the reason.
    pub async fn may_rewind(&self, way: Rewind) -> Result<(), DriverError> {
        self.take_wanted_disk_if_down();
        self.must_keep_its_disk().map_err(|why| self.refused(REWIND, why))?;
        match way.to {
            PointId::Snapshot(_) => {
                let tree = self.on_disk(REWIND, |files| files.read_or_new()).await?;
                self.check_way(&tree, way).await?;
            }
            PointId::Backup { .. } => {
                self.on_disk(
                    REWIND,
                    |files| if is_gone(files)? { Ok(()) } else { files.read_or_new().map(drop) },
                )
                .await?;
                self.must_have_room().await?;
            }
        }
        let would_not = |why| self.refused(REWIND, format!("it would not start again: {why}"));
        self.has_the_rest().await.map_err(would_not)
    }

    /// Backups are brought by [`super::super::Qemu::restore`].
    fn snapshot_of(&self, way: Rewind) -> Result<SnapshotId, DriverError> {
        match way.to {
            PointId::Snapshot(id) => Ok(id),
            PointId::Backup { .. } => Err(DriverError::Unable("read a repository of backups")),
        }
    }

    async fn check_way(&self, tree: &Tree, way: Rewind) -> Result<(), DriverError> {
        let to = self.snapshot_of(way)?;
        let snapshot = tree.snapshot(to).ok_or_else(|| {
            let known: Vec<String> = tree.snapshots().map(|snapshot| snapshot.id.to_string()).collect();
            let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            self.refused(REWIND, format!("it has no snapshot {to}; there are: {there}"))
        })?;
        self.must_have_room().await?;
        self.must_stand(REWIND, tree, self.files(), tree.file_of(to).unwrap_or_default()).await?;
        if way.resume { self.may_resume(snapshot, way.again).await } else { Ok(()) }
    }

    async fn must_have_room(&self) -> Result<(), DriverError> {
        let room = self.on_disk(REWIND, |files| files.room().map_err(|e| e.to_string())).await?;
        if room < ROOM {
            let (free, least) = (room >> 20, ROOM >> 20);
            let why =
                format!("{free} MiB are free where its snapshots are, and {least} MiB should be: make room");
            return Err(self.refused(REWIND, why));
        }
        Ok(())
    }

    /// A file of the disk, and all that it stands on, are there and may be read. A backup that is not offered now will be.
    async fn must_stand(
        &self,
        what: &'static str,
        tree: &Tree,
        files: Files,
        file: FileNumber,
    ) -> Result<(), DriverError> {
        let (spec, others) = (self.spec(), self.disks_of_others());
        let chain = tree.chain_of(file);
        self.with_files(what, files, move |files| {
            if let Some(gone) = chain.into_iter().map(|file| files.path(file)).find(|path| !path.exists()) {
                return Err(format!("{} is not there any more", gone.display()));
            }
            let (spec, known) = on_top(&spec, &files.path(file));
            match image::check(&spec, known, &others) {
                Ok(_) | Err(ImageError::NotOffered { .. }) => Ok(()),
                Err(error) => Err(error_chain(&error)),
            }
        })
        .await
    }

    /// Whether it would be started again once it has ended, asked while it runs. Of one that does not run, its start tells.
    ///
    /// # Errors
    /// [`DriverError::Refused`] with the reason.
    pub async fn may_restart(&self) -> Result<(), DriverError> {
        if self.running().is_err() {
            return Ok(());
        }
        let files = self.files_at(&self.spec().disk);
        let tree = self.with_files(START, files.clone(), |files| files.read()).await?;
        let tree = tree.unwrap_or_else(|| Tree::of(Format::Raw));
        self.must_stand(START, &tree, files, tree.top()).await?;
        self.has_the_rest().await.map_err(|why| self.refused(START, why))
    }

    pub(super) fn must_be_dead(&self, dead: &DeathProof) -> Result<(), DriverError> {
        let newest = self.record().incarnation;
        match self.running() {
            Err(DriverError::NotRunning(_)) if dead.incarnation() == newest && *dead.vm() == self.name => {
                Ok(())
            }
            Err(DriverError::NotRunning(_)) => {
                let proven = dead.incarnation();
                Err(self.refused(REWIND, format!("the death of {proven} is proven, the newest is {newest}")))
            }
            Err(error) => Err(error),
            Ok(_) => Err(self.refused(REWIND, "it runs")),
        }
    }

    async fn may_resume(&self, snapshot: &Snapshot, again: bool) -> Result<(), DriverError> {
        let refused = |why: String| Err(self.refused(REWIND, why));
        let Some(memory) = &snapshot.memory else {
            return refused(format!("snapshot {} has no memory: it can only be booted", snapshot.id));
        };
        if memory.resumed > 0 && !again {
            return refused(format!(
                "the memory of snapshot {} was resumed before, and what its guest thought secret or new would be \
                 used twice (I23): go back to its disk alone, or add --again",
                snapshot.id
            ));
        }
        let wanted = describe(&self.spec());
        if memory.machine != wanted {
            return refused(format!(
                "the memory of snapshot {} was saved of another machine ({}; it is {wanted} now): it can only be booted",
                snapshot.id, memory.machine
            ));
        }
        self.must_be_saved_whole(snapshot.id, memory.length).await?;
        self.must_take(snapshot.id, memory).await
    }

    /// Its file is there, and as long as it was.
    async fn must_be_saved_whole(&self, id: SnapshotId, length: u64) -> Result<(), DriverError> {
        self.on_disk(REWIND, move |files| {
            let file = files.memory(id);
            match std::fs::metadata(&file) {
                Ok(meta) if meta.len() >= length => Ok(()),
                Ok(meta) => Err(format!(
                    "the memory of snapshot {id} is damaged: {} has {} bytes and had {length}; it can only be booted",
                    file.display(),
                    meta.len()
                )),
                Err(error) => Err(format!(
                    "the memory of snapshot {id} cannot be read: {}: {error}; it can only be booted",
                    file.display()
                )),
            }
        })
        .await
    }

    /// Whether the QEMU that is started takes this memory. It is asked while the one that runs still runs.
    async fn must_take(&self, id: SnapshotId, memory: &Memory) -> Result<(), DriverError> {
        if memory.kind == MemoryKind::Stream && memory.machine_type.is_empty() {
            return Ok(()); // saved before that was noted
        }
        let asked = self.able().await.map_err(|why| self.refused(REWIND, why))?;
        if memory.kind == MemoryKind::Mapped && !asked.migration.contains(MAPPED) {
            let why = format!("the memory of snapshot {id} was saved by a newer QEMU: it can only be booted");
            return Err(self.refused(REWIND, why));
        }
        if !memory.machine_type.is_empty() && memory.machine_type != asked.machine {
            return Err(self.refused(
                REWIND,
                format!(
                    "the memory of snapshot {id} was saved by another QEMU ({}; it makes a {} now): it can only be booted",
                    memory.machine_type, asked.machine
                ),
            ));
        }
        Ok(())
    }

    /// What it was started as, in the words that are kept with a memory.
    pub(super) fn started_as(&self) -> String {
        describe(&self.spec_started())
    }

    /// What a start with this disk is to open. A snapshot that was being taken when everything ended has its overlay on top.
    ///
    /// # Errors
    /// The record of the disk's files cannot be read or written.
    pub async fn open_disk(&self, disk: &Path) -> Result<Opened, DriverError> {
        let files = self.files_at(disk);
        let tree = self.with_files(START, files.clone(), |files| files.read()).await?;
        let Some(mut tree) = tree else {
            return Ok(Opened { disk: disk.to_owned(), below: Vec::new(), memory: None });
        };
        if tree.pending().is_some() {
            if self.disk() != disk {
                return Err(self.refused(START, CHANGED));
            }
            tree = self.settled_tree(START).await?;
        }
        let saved = |id| {
            let kind = tree.snapshot(id).and_then(|snapshot| snapshot.memory.as_ref());
            Saved { file: files.memory(id), kind: kind.map(|memory| memory.kind).unwrap_or_default() }
        };
        let memory = tree.resume.map(saved);
        let below = tree.chain().into_iter().skip(1).map(|file| files.path(file)).collect();
        Ok(Opened { disk: files.path(tree.top()), below, memory })
    }

    /// A start that changes the record of its snapshots, as one does that goes on with a saved memory, waits until nobody else
    /// does: who has read the record before that would write down that the memory is still to be used (I23). It waits before it
    /// has the turn to give an order, as all who take both do. Any other start waits for nobody.
    ///
    /// # Errors
    /// [`DriverError::Blocked`], if its turn does not come soon.
    pub async fn turn_to_resume(&self, deadline: Instant) -> Result<Option<SnapshotTurn<'_>>, DriverError> {
        let files = self.files_at(&self.spec().disk);
        let tree = self.with_files(START, files, |files| files.read()).await.ok().flatten(); // one that cannot be read is for the start to say
        let changes = tree.is_some_and(|tree| tree.resume.is_some() || tree.pending().is_some());
        if !changes || self.running().is_ok() {
            return Ok(None);
        }
        let turn = self.snapshot_turn(START, deadline.min(Instant::now() + ANSWER)).await;
        let why = "its snapshots are being changed".to_owned();
        turn.map(Some).map_err(|_| DriverError::Blocked { what: START, vm: self.name.clone(), why })
    }

    /// The memory that the start goes on with is used from now on, whatever becomes of it (I23). Needs what
    /// [`Machine::turn_to_resume`] gave.
    ///
    /// # Errors
    /// It cannot be written down; then it must not be used.
    pub async fn use_memory(&self, disk: &Path, turn: Option<&SnapshotTurn<'_>>) -> Result<(), DriverError> {
        let is_ours = turn.is_some();
        self.with_files(START, self.files_at(disk), move |files| {
            let Some(mut tree) = files.read()? else { return Ok(()) };
            let Some(id) = tree.resume.take() else { return Ok(()) };
            if !is_ours {
                return Err(CHANGED.into());
            }
            if let Some(memory) = tree.snapshot_mut(id).and_then(|snapshot| snapshot.memory.as_mut()) {
                memory.resumed += 1;
            }
            files.write(&tree)
        })
        .await
    }

    /// A guest that goes on with a saved memory is told the time, and thawed if it was saved frozen (I16).
    pub(in super::super) async fn tell_guest_it_was_away(&self) {
        let until = Instant::now() + TELL_GUEST;
        let told = async {
            let (_turn, mut session) = self.agent_session("wake", TELL_GUEST, until).await?;
            let awake = session.wake(now()).await;
            awake.map_err(|error| self.agent_failed("wake", TELL_GUEST, &error))
        };
        if let Err(error) = told.await {
            let error = error_chain(&error);
            tracing::warn!(vm = %self.name, error, "the guest was not told that it was away: its clock may be late");
        }
    }

    /// The snapshots of a tree that is settled.
    pub(in super::super) async fn tree(&self, what: &'static str) -> Result<Option<Tree>, DriverError> {
        self.on_disk(what, |files| files.read()).await
    }
}

/// The snapshot of what is on top, which something else takes the place of.
pub(super) fn set_aside(tree: &Tree, note: String) -> Snapshot {
    Snapshot {
        id: tree.next(),
        taken: now(),
        memory: None,
        frozen: false,
        set_aside: true,
        scheduled: false,
        note,
        trial: None,
        written: Marks::new(),
    }
}

/// What must be the same for a memory to be resumed.
fn describe(spec: &QemuVm) -> String {
    let network = match spec.network.mac() {
        Some(mac) => format!("network card {mac}"),
        None => "no network card".to_owned(),
    };
    let boot = if spec.kernel.is_some() { ", direct kernel boot" } else { "" };
    let mib = spec.memory >> 20;
    format!("{mib} MiB, {} processors, {network}{boot}", spec.cpus)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::super::launch::RunFolder;
    use super::super::super::machine::Starts;
    use super::*;
    use holdfast_core::lease::{Incarnation, Lease, Sighting, Token};
    use holdfast_witness::Eyewitness;
    use std::sync::Arc;
    use tokio::sync::mpsc;

    /// A VM that is off and goes on with the memory of snapshot 1 when it is started; its QEMU ends at once.
    fn resuming(place: &Path) -> Arc<Machine> {
        let disk = place.join("disk");
        std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
        let spec = QemuVm { memory: 64 << 20, program: Some("/bin/false".into()), ..QemuVm::plain(disk) };
        let folder = RunFolder::of(&place.join("run"), &spec.name);
        std::fs::create_dir_all(folder.path()).unwrap();
        let machine = Machine::open(spec, folder, mpsc::channel(8).0, &Starts::now());
        let files = machine.files();
        files.make_folder().unwrap();
        let mut tree = Tree::of(Format::Raw);
        let memory = serde_json::json!({ "bytes": 1, "length": 1, "machine": "", "resumed": 0 });
        let memory: Memory = serde_json::from_value(memory).unwrap();
        let number = tree.begin();
        files.make_overlay(&tree, number, FileNumber::BASE).unwrap();
        tree.settle(Some(Snapshot {
            memory: Some(memory),
            ..set_aside(&Tree::of(Format::Raw), String::new())
        }));
        tree.resume = Some(SnapshotId(1));
        files.write(&tree).unwrap();
        Arc::new(machine)
    }

    /// What its next start goes on with, and how often that was used.
    fn used(machine: &Machine) -> (Option<SnapshotId>, u32) {
        let tree = machine.files().read().unwrap().unwrap();
        let memory = tree.snapshot(SnapshotId(1)).unwrap().memory.clone();
        (tree.resume, memory.unwrap().resumed)
    }

    #[tokio::test]
    async fn a_memory_is_used_by_a_start_only_while_nobody_else_changes_the_record_i23() {
        let place = tempfile::tempdir().unwrap();
        let machine = resuming(place.path());
        let start = async |n: u64, limit: Duration| {
            let seen = Sighting::of(Eyewitness::here(), Incarnation(n));
            let lease = Lease::adopting(machine.name.clone(), seen, Token(n), "here".parse().unwrap());
            machine.start(&lease, limit).await
        };
        let other = machine.snapshot_turn(REWIND, Instant::now()).await.unwrap();
        let refused = start(1, Duration::from_millis(50)).await;
        assert!(matches!(refused, Err(DriverError::Blocked { .. })), "{refused:?}");
        assert_eq!(used(&machine), (Some(SnapshotId(1)), 0));
        assert!(machine.use_memory(&machine.disk(), None).await.is_err(), "it has no turn");
        assert_eq!(used(&machine), (Some(SnapshotId(1)), 0));
        drop(other);
        let ended = start(2, Duration::from_secs(60)).await;
        assert!(matches!(ended, Err(DriverError::Refused { .. })), "{ended:?}");
        assert_eq!(used(&machine), (None, 1));
    }

    #[tokio::test]
    async fn who_reads_a_snapshot_does_not_change_what_a_vm_counts_as_started_i23() {
        let place = tempfile::tempdir().unwrap();
        let machine = resuming(place.path());
        let _as_if_it_ran = machine.turn(Instant::now()).await.unwrap();
        let before = machine.started_as();
        assert!(machine.configure(QemuVm { memory: 128 << 20, ..QemuVm::clone(&machine.spec()) }));
        machine.files_of_snapshot(SnapshotId(1)).await.unwrap();
        assert_eq!(machine.started_as(), before);
    }

    #[tokio::test]
    async fn a_start_that_resumes_nothing_waits_for_nobody() {
        let place = tempfile::tempdir().unwrap();
        let machine = resuming(place.path());
        let mut tree = machine.files().read().unwrap().unwrap();
        tree.resume = None;
        machine.files().write(&tree).unwrap();
        let _other = machine.snapshot_turn(REWIND, Instant::now()).await.unwrap();
        assert!(machine.turn_to_resume(Instant::now()).await.unwrap().is_none());
    }
}
