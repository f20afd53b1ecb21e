//! Disk and memory of one moment.
//!
//! Memory is copied while the guest runs, where QEMU can do that; only for what is left at the end, and for the disk's switch
//! to its overlay, the guest stands still. So the order is: the commands in the guest, the copy, then in one and the same stop
//! the switch and the rest of the copy. File systems are not frozen for it: a freeze would have to begin before a stop whose
//! moment QEMU chooses (I16), it would be in the memory and had to be undone after each resume, and it would add nothing,
//! as what the disk lacks is in the memory.

use super::super::live::Live;
use super::super::machine::Machine;
use super::super::mapped::{self, Copying};
use super::super::memory;
use super::live::ANSWER;
use super::take::{Switch, TAKE, now};
use holdfast_core::point::{Memory, MemoryKind, Snapshot};
use holdfast_core::signal::RunState;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// What is to be done in that moment.
pub(super) struct Moment<'a> {
    /// The VM's QEMU.
    pub live: &'a Live,
    /// How the VM was before, and is to be afterwards.
    pub before: RunState,
    /// The switch of the disk to its overlay, as QEMU is told.
    pub switch: Value,
    /// Where the memory goes.
    pub file: &'a Path,
    /// When it must be over.
    pub deadline: Instant,
}

impl Machine {
    /// Saves both. For how long the guest had to wait.
    pub(super) async fn with_memory(
        &self,
        moment: &Moment<'_>,
        snapshot: &mut Snapshot,
    ) -> Result<Duration, Switch> {
        let told = |error| Switch::Not(self.unconfirmed(TAKE, ANSWER, &error));
        let kind = match mapped::is_offered(moment.live, moment.deadline).await.map_err(told)? {
            true => MemoryKind::Mapped,
            false => MemoryKind::Stream,
        };
        let machine_type = machine_type(moment).await;
        if moment.before == RunState::Running {
            self.note_still(moment.live).await.map_err(Switch::Not)?;
        }
        let saved = match kind {
            MemoryKind::Mapped => self.while_it_runs(moment, snapshot).await,
            MemoryKind::Stream => self.while_it_stands(moment, snapshot).await,
        };
        if saved.is_err() {
            self.run_on_after(moment).await?; // whatever it was that failed
        }
        let stall = saved.inspect_err(|_| drop(fs::remove_file(moment.file)))?;
        let (bytes, length) =
            fs::metadata(moment.file).map_or((0, 0), |meta| (meta.blocks() * 512, meta.len()));
        let machine = self.started_as();
        snapshot.memory = Some(Memory { bytes, length, machine, resumed: 0, kind, machine_type });
        Ok(stall)
    }

    /// Memory is copied while the VM runs.
    async fn while_it_runs(&self, moment: &Moment<'_>, snapshot: &mut Snapshot) -> Result<Duration, Switch> {
        let not_saved = |why: String| self.refused(TAKE, format!("its memory was not saved: {why}"));
        let begun = Copying::begin(moment.live, moment.file, moment.deadline).await;
        let copying = begun.map_err(|why| Switch::Not(not_saved(why)))?;
        let still = copying.until_still(moment.before, moment.deadline).await;
        let switched = match still {
            Ok(_) => self.switch_disk(moment, snapshot).await,
            Err(ref why) => Err(Switch::Not(not_saved(why.clone()))),
        };
        let saved = match switched {
            Ok(()) => {
                copying.finish(moment.deadline).await.map_err(|why| Switch::WithoutMemory(not_saved(why)))
            }
            Err(why) => Err(why),
        };
        if saved.is_err() {
            copying.give_up().await;
        }
        let ran = self.run_on_after(moment).await;
        let stall = still.map_or(Duration::ZERO, |since| since.elapsed());
        let file = copying.clear().await;
        ran?;
        saved?;
        let synced = mapped::sync(file).await;
        synced.map_err(|e| Switch::WithoutMemory(not_saved(format!("writing it failed: {e}"))))?;
        Ok(stall)
    }

    /// The VM stands still while its memory is copied.
    async fn while_it_stands(
        &self,
        moment: &Moment<'_>,
        snapshot: &mut Snapshot,
    ) -> Result<Duration, Switch> {
        let told = |error| Switch::Not(self.unconfirmed(TAKE, ANSWER, &error));
        let began = Instant::now();
        let saved = async {
            moment.live.run("stop", Value::Null, moment.deadline).await.map_err(told)?;
            self.switch_disk(moment, snapshot).await?;
            let saved = memory::save(self, moment.live, moment.file, moment.deadline).await;
            saved.map_err(|why| {
                Switch::WithoutMemory(self.refused(TAKE, format!("its memory was not saved: {why}")))
            })
        };
        let saved = saved.await;
        self.run_on_after(moment).await?;
        saved.map(|()| began.elapsed())
    }

    async fn switch_disk(&self, moment: &Moment<'_>, snapshot: &mut Snapshot) -> Result<(), Switch> {
        snapshot.taken = now();
        let switched = moment.live.run("blockdev-snapshot", moment.switch.clone(), moment.deadline).await;
        switched.map_err(|error| {
            let error = self.unconfirmed(TAKE, ANSWER, &error);
            if error.is_unknown() { Switch::Perhaps(error) } else { Switch::Not(error) }
        })
    }

    /// However it went: what was running is to run, unless it stopped by itself.
    async fn run_on_after(&self, moment: &Moment<'_>) -> Result<(), Switch> {
        let mut ran = self.run_on(moment.live, moment.deadline).await;
        if ran.is_err() {
            ran = self.run_on(moment.live, Instant::now() + ANSWER).await;
        }
        ran.map_err(|error| {
            tracing::error!(vm = %self.name, %error, "it stands still after a snapshot");
            Switch::Perhaps(error)
        })
    }
}

/// What QEMU calls the machine. Without it the memory is one that nobody can tell to be of another machine.
async fn machine_type(moment: &Moment<'_>) -> String {
    let words = json!({ "path": "/machine", "property": "type" });
    let said: Result<super::super::untrusted::Text, _> =
        moment.live.call("qom-get", words, moment.deadline).await;
    let said = said.map(|said| said.to_string()).unwrap_or_default();
    said.strip_suffix("-machine").map(str::to_owned).unwrap_or_default()
}
