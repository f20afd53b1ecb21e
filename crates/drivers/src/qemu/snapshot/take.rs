//! A snapshot is taken: of a running VM in a moment that its users hardly feel, or of one that is off.

use super::super::live::{Life, Live};
use super::super::machine::{Machine, error_chain};
use super::CHAIN_MOST;
use super::freeze::frozen;
use super::live::{ANSWER, is_disk_node, overlay_node};
use super::moment::Moment;
use super::tree::{FileNumber, Tree};
use crate::snapshots::{Taken, Wanted};
use crate::{DriverError, FREEZE};
use holdfast_core::point::{Snapshot, SnapshotId};
use holdfast_core::signal::RunState;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

pub(super) const TAKE: &str = "take a snapshot of";
/// Commands in the guest before the disk is frozen have so long in all.
const HOOKS: Duration = Duration::from_secs(30);
/// Room that must be left for what is written to the disk from now on, at least: a share of the disk ...
const ROOM_SHARE: u64 = 16;
/// ... and not less than this many bytes.
const ROOM_LEAST: u64 = 256 << 20;
/// QEMU would refuse it once the disk is switched.
const SAVED: &str =
    "its memory was saved since it was paused, and is the same; it can be saved again once it ran";
/// Room for what QEMU saves beside the guest's memory.
const DEVICES: u64 = 64 << 20;

impl Machine {
    /// Takes a snapshot.
    ///
    /// # Errors
    /// As for [`crate::Driver::perform`]. The VM runs on as before in every case that QEMU tells of.
    pub async fn take_snapshot(
        self: Arc<Self>,
        wanted: Wanted,
        limit: Duration,
    ) -> Result<Taken, DriverError> {
        let deadline = Instant::now() + limit;
        self.must_be_reachable(TAKE)?;
        let _one = self.snapshot_turn(TAKE, deadline).await?;
        let mut tree = self.own_tree(TAKE).await?;
        self.must_be_whole(TAKE, &tree).await?;
        self.check_room(&tree, wanted.memory).await?;
        let warnings = self.run_hooks(&wanted.hooks).await;
        let _turn = self.turn(deadline).await?;
        let life = self.life.borrow().clone();
        let live = match life {
            Life::Running(live) => Some(live),
            Life::Dead(_) if wanted.memory => {
                return Err(self.refused(TAKE, "it does not run, so it has no memory to save"));
            }
            Life::Dead(_) => None,
            Life::Unclear(why) => return Err(self.refused(TAKE, why)),
        };
        let is_orderly = self.is_whole_when_off(live.is_none(), &tree, wanted.freeze)?;
        self.remember_raw(&tree).await?;
        let number = self.prepare_overlay(&mut tree).await?;
        let mut snapshot = Snapshot {
            id: SnapshotId(number.0),
            taken: now(),
            memory: None,
            frozen: false,
            set_aside: false,
            scheduled: wanted.scheduled,
            note: wanted.note.clone(),
            trial: None,
            written: wanted.written.clone(),
        };
        let stall = match live {
            None => {
                snapshot.frozen = is_orderly;
                Duration::ZERO
            }
            Some(live) => {
                let switched = self.clone().switch(&live, &tree, number, &wanted, &mut snapshot, deadline);
                match switched.await {
                    Ok(stall) => stall,
                    Err(Switch::Not(error)) => return Err(self.undo(Some(&live), tree, number, error).await),
                    Err(Switch::Perhaps(error)) => return Err(error), // what is pending is settled later
                    Err(Switch::WithoutMemory(error)) => {
                        tree.settle(None);
                        self.note_tree(TAKE, &tree).await?;
                        return Err(error);
                    }
                }
            }
        };
        tree.settle(Some(snapshot.clone()));
        self.note_tree(TAKE, &tree).await?;
        Ok(Taken { snapshot, stall, warnings })
    }

    /// A raw disk stays one, whatever its guest writes through overlays and merges into its head (A31).
    async fn remember_raw(&self, tree: &Tree) -> Result<(), DriverError> {
        let (mut record, disk) = (self.record(), self.disk());
        if tree.base != super::super::launch::Format::Raw || record.raw.contains(&disk) {
            return Ok(());
        }
        record.remember_raw(&disk);
        self.write(record).await
    }

    /// Whether the disk of one that is off is as its guest left it, which takes the place of a freeze.
    fn is_whole_when_off(&self, is_off: bool, tree: &Tree, freeze: bool) -> Result<bool, DriverError> {
        let is_whole = is_off && self.ended_in_order(&self.files().path(tree.top()));
        if is_off && freeze && !is_whole {
            return Err(self.refused(FREEZE, "it is off, and was not seen to be shut down by its guest"));
        }
        Ok(is_whole)
    }

    /// Whether there is room for it; nothing is begun that would fill the disk.
    async fn check_room(&self, tree: &Tree, memory: bool) -> Result<(), DriverError> {
        if tree.chain().len() >= CHAIN_MOST {
            let why =
                format!("its disk stands on {} files already: delete older snapshots first", CHAIN_MOST - 1);
            return Err(self.refused(TAKE, why));
        }
        let saved = if memory { self.spec_started().memory + DEVICES } else { 0 };
        let tree = tree.clone();
        self.on_disk(TAKE, move |files| {
            let format = if tree.top() == FileNumber::BASE { tree.base } else { super::super::launch::Format::Qcow2 };
            let told = |e: std::io::Error| e.to_string();
            let size = super::qcow2::virtual_size(&files.path(tree.top()), format).map_err(told)?;
            let needed = saved + (size / ROOM_SHARE).max(ROOM_LEAST).min(size);
            let room = files.room().map_err(told)?;
            if room >= needed {
                return Ok(());
            }
            let mib = |bytes: u64| bytes.div_ceil(1 << 20);
            Err(format!(
                "{} MiB are free where its snapshots are, and {} MiB should be, for its memory and for what it writes \
                 from now on: make room, or delete older snapshots",
                mib(room),
                mib(needed)
            ))
        })
        .await
    }

    /// Runs commands in the guest; those that failed, and why.
    pub(in super::super) async fn run_hooks(&self, hooks: &[Vec<String>]) -> Vec<String> {
        let deadline = Instant::now() + HOOKS;
        let mut warnings = Vec::new();
        for hook in hooks {
            if let Err(error) = self.run_in_guest("prepare", hook, HOOKS, deadline).await {
                warnings.push(error_chain(&error));
            }
        }
        warnings
    }

    /// Makes the overlay that will be on top, and writes down that it will be.
    async fn prepare_overlay(&self, tree: &mut Tree) -> Result<FileNumber, DriverError> {
        let before = tree.clone();
        let (begun, number) = self
            .on_disk(TAKE, move |files| {
                files.make_folder().map_err(|e| format!("cannot make {}: {e}", files.folder().display()))?;
                let mut begun = before.clone();
                files.skip_left(&mut begun);
                let number = begun.begin();
                files.write(&begun)?;
                let made = files.make_overlay(&begun, number, begun.top());
                made.map_err(|e| {
                    let _pending = files.write(&before); // if it stays, the next who looks finds no overlay
                    format!("cannot make {}: {e}", files.path(number).display())
                })?;
                Ok((begun, number))
            })
            .await?;
        *tree = begun;
        Ok(number)
    }

    /// Nothing has changed for the VM: what was prepared is removed.
    async fn undo(
        &self,
        live: Option<&Live>,
        mut tree: Tree,
        number: FileNumber,
        error: DriverError,
    ) -> DriverError {
        if let Some(live) = live {
            let node = json!({ "node-name": overlay_node(number.0) });
            let _not_there = live.run("blockdev-del", node, Instant::now() + ANSWER).await;
        }
        tree.give_up();
        let undone = self.on_disk(TAKE, move |files| {
            files.write(&tree)?;
            files.remove(number).map_err(|e| e.to_string())
        });
        if let Err(why) = undone.await {
            tracing::warn!(vm = %self.name, %why, "what was prepared for a snapshot is left");
        }
        error
    }

    /// Puts the overlay on top of the running VM's disk. For how long it had to wait.
    async fn switch(
        self: Arc<Self>,
        live: &Arc<Live>,
        tree: &Tree,
        number: FileNumber,
        wanted: &Wanted,
        snapshot: &mut Snapshot,
        deadline: Instant,
    ) -> Result<Duration, Switch> {
        let not = |error| Switch::Not(error);
        let refused = |why: &str| Switch::Not(self.refused(TAKE, why));
        let told = |error| self.unconfirmed(TAKE, ANSWER, &error);
        let top = live.top_node(deadline).await.map_err(told).map_err(not)?;
        if !is_disk_node(&top) {
            return Err(refused("a backup or a drill holds its disk"));
        }
        let status = live.status(deadline).await.map_err(told).map_err(not)?;
        let before = status.state();
        if !matches!(before, RunState::Running | RunState::Paused) {
            return Err(refused("it is neither running nor paused"));
        }
        if wanted.memory && status.is_saved() {
            return Err(refused(SAVED));
        }
        let path = self.files().path(number);
        let overlay = json!({
            "driver": "qcow2", "node-name": overlay_node(number.0), "discard": "unmap", "backing": null,
            "file": { "driver": "file", "filename": path.to_string_lossy(), "locking": "on" },
        });
        live.run("blockdev-add", overlay, deadline).await.map_err(told).map_err(not)?;
        let switch = json!({ "node": top, "overlay": overlay_node(number.0) });
        if wanted.memory {
            let file = self.files().memory(SnapshotId(tree.pending().unwrap_or_default().0));
            let moment = Moment { live, before, switch, file: &file, deadline };
            return self.with_memory(&moment, snapshot).await;
        }
        let began = Instant::now();
        snapshot.frozen = wanted.freeze;
        let done = if wanted.freeze {
            let (machine, live) = (Arc::clone(&self), Arc::clone(live));
            frozen(Arc::clone(&self), async move {
                let at = now(); // not after the thaw: what is written then is not in it
                let done = live.run("blockdev-snapshot", switch, deadline).await;
                done.map_err(|error| machine.unconfirmed(TAKE, ANSWER, &error)).map(|_| at)
            })
            .await
        } else {
            let at = now();
            live.run("blockdev-snapshot", switch, deadline).await.map_err(told).map(|_| at)
        };
        snapshot.taken = done
            .map_err(|error| if error.is_unknown() { Switch::Perhaps(error) } else { Switch::Not(error) })?;
        Ok(began.elapsed())
    }
}

/// Why the disk was not switched to the overlay as it should.
pub(super) enum Switch {
    /// It certainly was not.
    Not(DriverError),
    /// Nobody knows.
    Perhaps(DriverError),
    /// It was, but the memory is not saved.
    WithoutMemory(DriverError),
}

/// Microseconds since 1970, to show.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
