//! The disk of a running VM as its QEMU sees it, and what is left over from a daemon before us.

use super::super::launch::{DISK_DEVICE, DISK_NODE};
use super::super::live::Live;
use super::super::machine::Machine;
use super::super::mapped;
use super::super::qmp::QmpError;
use super::merge::merges;
use super::tree::Tree;
use crate::DriverError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// How long one answer of QEMU may take.
pub const ANSWER: Duration = Duration::from_secs(10);
const SETTLE: &str = "settle the snapshots of";
/// How the nodes of overlays are called that are put on top while the VM runs.
const OVERLAY: &str = "hf-overlay-";

/// A node of QEMU's block graph.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its name.
    #[serde(rename = "node-name")]
    pub name: String,
    /// Its file.
    #[serde(default)]
    pub file: String,
    /// What drives it: `qcow2`, `raw`, `file`, ...
    #[serde(default)]
    pub drv: String,
}

/// The node of an overlay with this number, put on top while the VM runs.
#[must_use]
pub fn overlay_node(number: u64) -> String {
    format!("{OVERLAY}{number}")
}

impl Live {
    /// The node that the disk's device writes to.
    ///
    /// # Errors
    /// As for every question to QEMU.
    pub async fn top_node(&self, deadline: Instant) -> Result<String, QmpError> {
        let place = json!({ "path": DISK_DEVICE, "property": "drive" });
        self.call("qom-get", place, deadline).await
    }

    /// All nodes.
    ///
    /// # Errors
    /// As for every question to QEMU.
    pub async fn nodes(&self, deadline: Instant) -> Result<Vec<Node>, QmpError> {
        self.call("query-named-block-nodes", json!({ "flat": true }), deadline).await
    }
}

/// The node that holds an image of this path.
#[must_use]
pub fn node_of<'a>(nodes: &'a [Node], path: &Path) -> Option<&'a str> {
    let holds = |node: &&Node| matches!(node.drv.as_str(), "qcow2" | "raw") && is_file(&node.file, path);
    nodes.iter().find(holds).map(|node| node.name.as_str())
}

/// Whether QEMU's name of an image is this file.
fn is_file(name: &str, path: &Path) -> bool {
    file_of(name).is_some_and(|file| file == path)
}

/// The file of an image, by QEMU's name of it. Where the image stands on another than its head says, or the same by another
/// name, it is told as `json:` with all that it is made of.
pub(super) fn file_of(name: &str) -> Option<PathBuf> {
    let Some(parts) = name.strip_prefix("json:") else { return Some(name.into()) };
    let parts: Value = serde_json::from_str(parts).ok()?;
    parts.pointer("/file/filename").and_then(Value::as_str).map(PathBuf::from)
}

/// Whether this is a node of the disk itself, and not one that a drill has put on top.
#[must_use]
pub fn is_disk_node(name: &str) -> bool {
    name == DISK_NODE || name.starts_with("base") || name.starts_with(OVERLAY)
}

impl Machine {
    /// What the disk is made of, with nothing under way. The caller has the turn to change snapshots.
    pub(in super::super) async fn settled_tree(&self, what: &'static str) -> Result<Tree, DriverError> {
        let raw = self.record().raw.contains(&self.disk());
        let mut tree = self
            .on_disk(what, move |files| {
                let mut tree = files.read_or_new()?;
                if raw {
                    tree.base = super::super::launch::Format::Raw; // whatever its head says by now (A31)
                }
                Ok(tree)
            })
            .await?;
        let Some(pending) = tree.pending() else { return Ok(tree) };
        let on_top = match self.running() {
            Ok(live) => {
                let deadline = Instant::now() + ANSWER;
                let told = |error: &QmpError| self.unconfirmed(what, ANSWER, error);
                if let Err(why) = mapped::clear_left(&live).await {
                    tracing::warn!(vm = %self.name, why, "a copy of its memory may still be under way");
                }
                let top = live.top_node(deadline).await.map_err(|e| told(&e))?;
                let nodes = live.nodes(deadline).await.map_err(|e| told(&e))?;
                let path = self.files().path(pending);
                let top = top.strip_prefix(crate::qemu::backup::FILTER).unwrap_or(&top);
                let on_top = node_of(&nodes, &path) == Some(top);
                if !on_top {
                    let node = json!({ "node-name": overlay_node(pending.0) });
                    let _not_there = live.run("blockdev-del", node, deadline).await;
                }
                on_top
            }
            Err(DriverError::NotRunning(_)) => self.files().path(pending).exists(),
            Err(error) => return Err(error),
        };
        if on_top {
            tree.settle(None);
        } else {
            tree.give_up();
        }
        self.note_tree(what, &tree).await?;
        let memory = holdfast_core::point::SnapshotId(pending.0);
        self.on_disk(what, move |files| {
            let removed = files
                .remove_memory(memory)
                .and_then(|()| if on_top { Ok(()) } else { files.remove(pending) });
            removed.map_err(|error| error.to_string())
        })
        .await?;
        Ok(tree)
    }

    /// Settles what was under way with the running VM and was broken off, as by the end of the daemon. One that stands still for
    /// it runs on.
    pub(super) async fn settle_running(&self) -> Result<(), DriverError> {
        let deadline = Instant::now() + ANSWER;
        let live = match self.running() {
            Err(DriverError::NotRunning(_)) => return Ok(()), // settled by the next start
            live => live?,
        };
        let _one = self.snapshot_turn(SETTLE, deadline).await?;
        let is_still = self.is_still_for_us(&live);
        let merging = merges(&live, deadline).await.map_err(|e| self.unconfirmed(SETTLE, ANSWER, &e))?;
        self.settled_tree(SETTLE).await?;
        for merge in &merging {
            match () {
                () if merge.is_over() => self.finish_merge(&live, merge).await?,
                () if is_still && merge.is_ready() => self.pivot(&live, merge).await?,
                () if is_still && merge.is_pivoting() => {
                    return Err(self.refused(SETTLE, "QEMU is about to end a merge"));
                }
                () => {}
            }
        }
        if is_still {
            tracing::warn!(vm = %self.name, "it stood still for a snapshot that was broken off, and runs on now");
        }
        self.run_on(&live, Instant::now() + ANSWER).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_file_however_qemu_calls_it() {
        let path = Path::new("/vm/2.qcow2");
        let json = r#"json:{"backing": {"driver": "raw", "file": {"driver": "file", "filename": "/vm/d"}},
            "driver": "qcow2", "file": {"driver": "file", "filename": "/vm/2.qcow2"}}"#;
        assert!(is_file("/vm/2.qcow2", path) && is_file(json, path));
        assert!(!is_file(json, Path::new("/vm/d")) && !is_file("json:{", path) && !is_file("", path));
    }
}
