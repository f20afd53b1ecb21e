//! A snapshot is deleted: what only it needed is removed, or merged while the VM runs.

use super::super::job::{self, Job};
use super::super::live::Live;
use super::super::machine::{Machine, error_chain};
use super::live::{ANSWER, is_disk_node, node_of, overlay_node};
use super::tree::{FileNumber, Spare};
use crate::DriverError;
use holdfast_core::point::SnapshotId;
use holdfast_core::signal::RunState;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::super::qmp::QmpError;

const DELETE: &str = "delete a snapshot of";
pub(super) const MERGE: &str = "merge the files of";
const JOB: &str = "hf-merge-";
const POLL: Duration = Duration::from_millis(50);
/// How long the last piece of a merge may take, in which the guest stands still.
const PIVOT: Duration = Duration::from_secs(5);

/// A merge in QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// What is merged.
    pub from: u64,
    /// Into what.
    pub into: u64,
    /// How far it is, in bytes.
    pub done: u64,
    /// How much there is, in bytes.
    pub total: u64,
    state: String,
    error: Option<String>,
}

impl Merge {
    /// QEMU is about to change, or has changed, what the disk is written to.
    #[must_use]
    pub fn is_pivoting(&self) -> bool {
        matches!(self.state.as_str(), "ready" | "waiting" | "pending" | "concluded")
    }

    /// It can be ended.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == "ready"
    }

    /// It has ended, well or not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == "concluded"
    }

    fn job(&self) -> String {
        format!("{JOB}{}-{}", self.from, self.into)
    }
}

/// The merges of ours that QEMU knows.
pub async fn merges(live: &Live, deadline: Instant) -> Result<Vec<Merge>, QmpError> {
    let jobs: Vec<Job> = live.call(job::ASK, Value::Null, deadline).await?;
    let ours = |job: Job| {
        let (from, into) = job.id.strip_prefix(JOB)?.split_once('-')?;
        let (done, total) = (job.current_progress, job.total_progress);
        let (from, into) = (from.parse().ok()?, into.parse().ok()?);
        Some(Merge { from, into, done, total, state: job.status, error: job.error })
    };
    Ok(jobs.into_iter().filter_map(ours).collect())
}

/// Whether QEMU says that this merge has failed: then the disk is written to where it was before.
async fn has_failed(live: &Live, merge: &Merge) -> bool {
    let known = merges(live, Instant::now() + ANSWER).await.unwrap_or_default();
    known.iter().any(|known| known.job() == merge.job() && known.error.is_some())
}

impl Machine {
    /// Forgets a snapshot: from now on nobody can go back to it. Its room is given back by [`Machine::tidy`].
    ///
    /// # Errors
    /// There is none of that number, or it cannot be written down; then it is still there.
    pub async fn forget_snapshot(&self, id: SnapshotId, limit: Duration) -> Result<(), DriverError> {
        let _one = self.snapshot_turn(DELETE, Instant::now() + limit).await?;
        let mut tree = self.own_tree(DELETE).await?;
        if tree.resume == Some(id) {
            return Err(self.refused(DELETE, "its next start goes on with this one"));
        }
        let unknown = || self.refused(DELETE, format!("it has no snapshot {id}"));
        let forgotten = tree.forget(id).ok_or_else(unknown)?;
        self.on_disk(DELETE, move |files| {
            files.write(&tree)?;
            let gone = if forgotten.memory.is_some() { files.remove_memory(id) } else { Ok(()) };
            gone.map_err(|e| format!("its memory stays: {e}"))
        })
        .await
    }

    /// Gives back the room of files that no snapshot needs: removes those that nothing stands on, and merges others in
    /// the running VM, at most `rate` bytes a second (0: as fast as it goes). What a kill left of which nothing is on record goes, too. `told` hears how far it is. What can be
    /// merged only while the VM runs is left until then. Whether anything is left.
    ///
    /// # Errors
    /// As for [`crate::Driver::perform`]. Whatever was broken off is gone on with the next time.
    pub async fn tidy(
        self: Arc<Self>,
        rate: u64,
        mut told: impl FnMut(&Merge) + Send,
    ) -> Result<bool, DriverError> {
        let _one = self.snapshot_turn(MERGE, Instant::now() + ANSWER).await?;
        if self.tree(MERGE).await?.is_none() {
            return Ok(false);
        }
        self.finish_merges().await?;
        loop {
            let mut tree = self.own_tree(MERGE).await?;
            match tree.spare() {
                None => {
                    self.sweep(&tree).await;
                    return Ok(false);
                }
                Some(Spare::Leaf(leaf)) => {
                    tree.removed(leaf);
                    self.on_disk(MERGE, move |files| {
                        files.write(&tree)?; // first: a file that is left is less than one that is missing
                        files.remove(leaf).map_err(|e| e.to_string())
                    })
                    .await?;
                }
                Some(Spare::Inner { from, into }) => match self.running() {
                    Ok(live) => self.merge(&live, from, into, rate, &mut told).await?,
                    Err(DriverError::NotRunning(_)) => {
                        self.sweep(&tree).await;
                        return Ok(true);
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Whether [`Machine::tidy`] would give room back now.
    ///
    /// # Errors
    /// The record of its snapshots cannot be read.
    pub async fn is_untidy(&self) -> Result<bool, DriverError> {
        let Some(tree) = self.tree(MERGE).await? else { return Ok(false) };
        let is_spare = match tree.spare() {
            None => false,
            Some(Spare::Leaf(_)) => true,
            Some(Spare::Inner { .. }) => self.running().is_ok(),
        };
        Ok(is_spare || self.on_disk(MERGE, move |files| Ok(files.has_left(&tree))).await?)
    }

    async fn merge(
        &self,
        live: &Live,
        from: FileNumber,
        into: FileNumber,
        rate: u64,
        told: &mut (impl FnMut(&Merge) + Send),
    ) -> Result<(), DriverError> {
        let until = || Instant::now() + ANSWER;
        let failed = |error: QmpError| self.unconfirmed(MERGE, ANSWER, &error);
        let known = merges(live, until()).await.map_err(failed)?;
        if !known.iter().any(|merge| (merge.from, merge.into) == (from.0, into.0)) {
            self.begin_merge(live, from, into, rate).await?;
        }
        loop {
            let merges = merges(live, until()).await.map_err(failed)?;
            let gone = || self.refused(MERGE, "QEMU forgot the merge: it was cancelled");
            let merge = merges.into_iter().find(|merge| (merge.from, merge.into) == (from.0, into.0));
            let merge = merge.ok_or_else(gone)?;
            told(&merge);
            match merge.state.as_str() {
                "ready" => match self.pivot(live, &merge).await {
                    // Where it is written to is still to be found out, and then it runs on.
                    Err(error) if self.is_still_for_us(live) => {
                        let error = error_chain(&error);
                        tracing::warn!(vm = %self.name, error, "a merge takes long to end, and the guest stands still for it");
                    }
                    pivoted => pivoted?,
                },
                "concluded" => {
                    self.finish_merge(live, &merge).await?;
                    return self.run_on(live, until()).await;
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn begin_merge(
        &self,
        live: &Live,
        from: FileNumber,
        into: FileNumber,
        rate: u64,
    ) -> Result<(), DriverError> {
        let until = Instant::now() + ANSWER;
        let failed = |error: QmpError| self.unconfirmed(MERGE, ANSWER, &error);
        let files = self.files();
        let nodes = live.nodes(until).await.map_err(failed)?;
        let node = |file: FileNumber| {
            let missing =
                || self.refused(MERGE, format!("{} is not open in QEMU", files.path(file).display()));
            node_of(&nodes, &files.path(file)).ok_or_else(missing)
        };
        let top = live.top_node(until).await.map_err(failed)?;
        if !is_disk_node(&top) {
            return Err(self.refused(MERGE, "a backup or a drill holds its disk"));
        }
        let (upper, lower) = (node(from)?, node(into)?);
        let mut order = json!({
            "job-id": format!("{JOB}{}-{}", from.0, into.0), "device": top, "top-node": upper, "base-node": lower,
            "speed": rate, "auto-dismiss": false,
        });
        if upper != top {
            let name = files.backing_name(into).map_err(|e| self.refused(MERGE, e.to_string()))?;
            order["backing-file"] = name.into();
        }
        live.run("block-commit", order, until).await.map_err(failed)
    }

    /// All is copied, and what is written now goes to both. The guest stands still until it is on record which of them
    /// is the disk: what would be written in between would be in one and looked for in the other.
    pub(super) async fn pivot(&self, live: &Live, merge: &Merge) -> Result<(), DriverError> {
        let until = Instant::now() + PIVOT;
        let failed = |error: QmpError| self.unconfirmed(MERGE, PIVOT, &error);
        let _turn = self.turn(until).await?;
        if live.state(until).await.map_err(failed)? == RunState::Running {
            self.note_still(live).await?;
        }
        let mut is_ending = false;
        let pivoted = async {
            live.run("stop", Value::Null, until).await.map_err(failed)?;
            let ends = live.run("job-complete", json!({ "id": merge.job() }), until).await;
            is_ending = !matches!(ends, Err(QmpError::Refused { .. }));
            ends.map_err(failed)?;
            self.until_noted(live, merge, until).await
        };
        let pivoted = pivoted.await;
        // If it is not known where it is written to, it stays paused: that can be mended, what is lost cannot.
        if pivoted.is_ok() || !is_ending || has_failed(live, merge).await {
            self.run_on(live, Instant::now() + ANSWER).await?;
        }
        pivoted
    }

    /// Waits for the end of a merge, and writes down what it has changed.
    async fn until_noted(&self, live: &Live, merge: &Merge, until: Instant) -> Result<(), DriverError> {
        loop {
            let known = merges(live, until).await.map_err(|error| self.unconfirmed(MERGE, PIVOT, &error))?;
            let over = known.iter().find(|known| known.job() == merge.job() && known.is_over());
            if let Some(over) = over {
                return self.note_merge(over).await;
            }
            if Instant::now() >= until {
                return Err(self.late(MERGE, PIVOT));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Writes down what a merge that is over has changed.
    async fn note_merge(&self, merge: &Merge) -> Result<(), DriverError> {
        if let Some(why) = &merge.error {
            return Err(self.refused(MERGE, super::super::untrusted::tame(why, 200)));
        }
        let (from, into) = (FileNumber(merge.from), FileNumber(merge.into));
        let Some(mut tree) = self.tree(MERGE).await? else { return Ok(()) };
        if tree.stands_on(from, into) {
            tree.merged(from, into);
            self.note_tree(MERGE, &tree).await?;
        }
        Ok(())
    }

    /// A kill between the record and QEMU leaves a merge that is over, and while QEMU knows of it no snapshot can be taken.
    async fn finish_merges(&self) -> Result<(), DriverError> {
        let live = match self.running() {
            Err(DriverError::NotRunning(_)) => return Ok(()),
            live => live?,
        };
        let known = merges(&live, Instant::now() + ANSWER).await;
        let known = known.map_err(|error| self.unconfirmed(MERGE, ANSWER, &error))?;
        for merge in known.iter().filter(|merge| merge.is_over()) {
            self.finish_merge(&live, merge).await?;
        }
        Ok(())
    }

    /// A merge is over: what it has changed is on record, QEMU forgets it, and the file goes.
    pub(super) async fn finish_merge(&self, live: &Live, merge: &Merge) -> Result<(), DriverError> {
        let until = Instant::now() + ANSWER;
        let noted = self.note_merge(merge).await;
        let dismissed = live.run("job-dismiss", json!({ "id": merge.job() }), until).await;
        noted?;
        dismissed.map_err(|error| self.unconfirmed(MERGE, ANSWER, &error))?;
        self.close_overlay(live, merge.from, until).await;
        let from = FileNumber(merge.from);
        self.on_disk(MERGE, move |files| {
            if files.read()?.is_some_and(|tree| tree.has(from)) {
                return Err(format!("{} was merged, and is still on record", files.path(from).display()));
            }
            files.remove(from).map_err(|e| e.to_string())
        })
        .await
    }

    /// QEMU lets go of a file that was merged. Where it does not, the file takes its room until the VM ends.
    async fn close_overlay(&self, live: &Live, number: u64, until: Instant) {
        let nodes = live.nodes(until).await.unwrap_or_default();
        let path = self.files().path(FileNumber(number));
        let named = node_of(&nodes, &path).map_or_else(|| overlay_node(number), ToOwned::to_owned);
        if let Err(error) = live.run("blockdev-del", json!({ "node-name": named }), until).await {
            tracing::debug!(vm = %self.name, error = error_chain(&error), "QEMU keeps a merged file open");
        }
    }
}
