//! One moment of a running VM's disk, offered over NBD so that another process can save it.
//!
//! A filter between the disk and its device copies what the guest overwrites into a scratch file before it is
//! overwritten (`copy-before-write`), and the moment is read through that (`snapshot-access`; both work since QEMU 7.1).
//! The guest comes first: if the scratch file is full, broken or slow, the moment is lost and the guest writes on. (The
//! job `blockdev-backup` of QEMU 7.2 fails the guest's write instead.) The guest's file systems are frozen for the instant
//! in which the filter is put in, if its agent can (I16).
//!
//! What was written since a moment is recorded in a dirty bitmap, in the image itself where that is a qcow2. The new one
//! records before the moment and the old one until after it, so that no write is in neither: a bitmap may say too much,
//! never too little. If no point came of the moment, the old one records again, and what the new one did; and the new one stays,
//! too: with it another process goes on where the one that was cut off had come to.
//!
//! All that is ours in QEMU is called `holdfast-...`; what others put there is not touched. What a daemon left that was
//! killed is found by these names.

mod bitmap;
mod off;
mod scratch;

use super::launch::{DISK_DEVICE, Format};
use super::live::Live;
use super::machine::Machine;
use super::qmp::QmpError;
use super::snapshot::freeze::frozen;
use super::snapshot::{is_disk_node, merges, now};
use crate::DriverError;
use bitmap::Bitmap;
use holdfast_core::lease::Incarnation;
pub use off::{Off, OffEnd, Reading};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const BACKUP: &str = "back up";
/// The filter that keeps what is overwritten; the name of the node below it follows.
pub(super) const FILTER: &str = "holdfast-keep-";
/// The disk as it was.
const MOMENT: &str = "holdfast-moment";
/// Where what is overwritten goes.
const SCRATCH: &str = "holdfast-scratch";
const EXPORT: &str = "holdfast-backup";
const HOLES: &str = "holdfast-holes";
/// What the exports are called over NBD: the moment, and the disk as it is now.
const EXPORT_NAME: &str = "disk0";
const HOLES_NAME: &str = "now";
/// How often it is asked whether an export is gone.
const POLL: Duration = Duration::from_millis(20);
/// A scratch file that is slower loses the moment, and the guest's write goes on (seconds).
const SLOWEST: u32 = 5;

/// What is wanted of a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Still {
    /// Whose points are made of it; each repository has bitmaps of its own.
    pub to: String,
    /// What the guest agent runs before it. One that fails is told, and does no harm.
    pub hooks: Vec<Vec<String>>,
}

/// A moment of a disk, while it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Where it is read.
    pub uri: String,
    /// The name of another export there: the disk as it is now. QEMU does not look through a moment into what the disk stands
    /// on, so this one is asked for holes: before the moment is asked, which tells what was written since.
    pub holes: &'static str,
    /// Bytes.
    pub size: u64,
    /// Bitmaps of what was written since earlier moments, the oldest first: that of the last point, and of attempts after it
    /// which made none. None if all has to be read.
    pub bitmaps: Vec<String>,
    /// The bitmap that records what is written from now on.
    pub begins: String,
    /// Why all has to be read, though a moment was taken before.
    pub why_all: Option<String>,
    /// What the scratch file may take (bytes).
    pub room: u64,
    /// When it was, in microseconds since 1970: what the guest had written by then is in it.
    pub taken: i64,
    /// Whether the guest's file systems were frozen.
    pub frozen: bool,
    /// For so long the guest's writes had to wait.
    pub stall: Duration,
    /// What went wrong and does no harm.
    pub warnings: Vec<String>,
    /// Of this start of the VM.
    incarnation: Incarnation,
    /// For this repository.
    to: String,
}

#[derive(Debug, Deserialize)]
struct Node {
    #[serde(rename = "node-name", default)]
    name: String,
    drv: String,
    image: Image,
    #[serde(rename = "dirty-bitmaps", default)]
    bitmaps: Vec<Bitmap>,
}

#[derive(Debug, Deserialize)]
struct Image {
    #[serde(rename = "virtual-size")]
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Export {
    id: String,
    #[serde(rename = "type")]
    kind: String,
}

/// How the filter came in: when, whether the file systems were frozen, and why not; for how long the guest's writes had to wait.
struct Put {
    taken: i64,
    frozen: bool,
    stall: Duration,
    warnings: Vec<String>,
}

/// One talk with a VM's QEMU about its backup.
struct Talk<'a> {
    machine: &'a Arc<Machine>,
    live: &'a Arc<Live>,
    limit: Duration,
    deadline: Instant,
}

/// No backup of ours reads a moment any more, once this is gone.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Machine {
    /// Holds a moment of the disk still and offers it. A moment that is there already is given up.
    ///
    /// # Errors
    /// Nothing of it is left then, and the guest was not disturbed.
    pub async fn begin_backup(
        self: Arc<Self>,
        still: &Still,
        limit: Duration,
    ) -> Result<Moment, DriverError> {
        self.must_be_reachable(BACKUP)?;
        let _one = self.snapshot_turn(BACKUP, Instant::now() + limit).await?;
        self.own_tree(BACKUP).await?; // which node is on top is known from here on
        let live = self.running()?;
        Talk::new(&self, &live, limit).clear().await?;
        let mut warnings = self.run_hooks(&still.hooks).await;
        let begins = bitmap::fresh(&still.to);
        let begun = Talk::new(&self, &live, limit).begin(&still.to, &begins).await;
        let begun = begun.map(|mut moment| {
            moment.warnings.append(&mut warnings);
            moment
        });
        self.is_held_still.store(begun.is_ok(), Ordering::Relaxed);
        if begun.is_err() {
            let again = Talk::new(&self, &live, limit); // it has time of its own
            if let Err(error) = again.forget(&begins).await {
                tracing::warn!(vm = %self.name, %error, "what was made for a backup is still there");
            }
        }
        begun
    }

    /// Offers it no more. If a point was made, its bitmap goes on alone; else what changed since the point before is known as
    /// if there had been no moment, and what changed since this one.
    ///
    /// # Errors
    /// What is left is cleared by the next who begins, and no write is forgotten.
    pub async fn end_backup(
        self: Arc<Self>,
        moment: &Moment,
        made: bool,
        limit: Duration,
    ) -> Result<(), DriverError> {
        let _over = Over(&self.is_held_still);
        let live = self.running()?;
        let talk = Talk::new(&self, &live, limit);
        if !made {
            return talk.clear().await;
        }
        if live.incarnation != moment.incarnation {
            return talk.forget(&moment.begins).await;
        }
        talk.take_down().await?;
        if let Some(disk) = talk.disk().await? {
            for old in bitmap::others(&disk.bitmaps, &moment.to, &moment.begins) {
                talk.remove(&disk, &old).await?;
            }
        }
        talk.clear().await
    }

    /// Takes down what an earlier backup left in its QEMU. What one reads that is under way stays.
    ///
    /// # Errors
    /// If QEMU does not answer, or will not.
    pub async fn clear_backup(self: Arc<Self>, limit: Duration) -> Result<(), DriverError> {
        self.must_be_reachable(BACKUP)?;
        let _one = self.snapshot_turn(BACKUP, Instant::now() + limit).await?;
        if self.is_held_still.load(Ordering::Relaxed) {
            return Ok(());
        }
        let live = self.running()?;
        Talk::new(&self, &live, limit).clear().await
    }

    fn scratch(&self) -> PathBuf {
        let disk = self.disk();
        let name = disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
        disk.with_file_name(format!(".{name}.holdfast-scratch"))
    }

    fn nbd_socket(&self) -> PathBuf {
        self.folder.inner().join("nbd")
    }
}

impl<'a> Talk<'a> {
    fn new(machine: &'a Arc<Machine>, live: &'a Arc<Live>, limit: Duration) -> Self {
        Self { machine, live, limit, deadline: Instant::now() + limit }
    }

    async fn tell(&self, command: &'static str, arguments: Value) -> Result<(), DriverError> {
        let told = self.live.run(command, arguments, self.deadline).await;
        told.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &QmpError) -> DriverError {
        self.machine.unconfirmed(BACKUP, self.limit, error)
    }

    async fn nodes(&self) -> Result<Vec<Node>, DriverError> {
        let nodes = self.live.call("query-named-block-nodes", json!({ "flat": true }), self.deadline).await;
        nodes.map_err(|error| self.failed(&error))
    }

    /// The node on top of the disk, when nothing of ours or of a drill is above it.
    async fn disk(&self) -> Result<Option<Node>, DriverError> {
        let top = self.connected().await?;
        if !is_disk_node(&top) {
            return Ok(None);
        }
        Ok(self.nodes().await?.into_iter().find(|node| node.name == top))
    }

    /// The node that the guest's disk is connected to.
    async fn connected(&self) -> Result<String, DriverError> {
        self.live.top_node(self.deadline).await.map_err(|error| self.failed(&error))
    }

    async fn remove(&self, disk: &Node, bitmap: &str) -> Result<(), DriverError> {
        self.tell("block-dirty-bitmap-remove", bitmap::of(&disk.name, bitmap)).await
    }

    async fn begin(&self, to: &str, begins: &str) -> Result<Moment, DriverError> {
        let Some(disk) = self.disk().await? else {
            let tree = self.machine.own_tree(BACKUP).await?;
            self.machine.must_be_whole(BACKUP, &tree).await?;
            let why = "something stands between the guest and its disk: a drill, or another program's work";
            return Err(self.machine.refused(BACKUP, why));
        };
        if !merges(self.live, self.deadline).await.map_err(|error| self.failed(&error))?.is_empty() {
            return Err(self
                .machine
                .refused(BACKUP, "files of its snapshots are being merged: wait for that"));
        }
        let (old, why_all) = bitmap::usable(&disk.bitmaps, to);
        for name in bitmap::broken(&disk.bitmaps, to) {
            self.remove(&disk, name).await?;
        }
        let room = self.add_scratch(disk.image.size).await?;
        self.add_bitmap(&disk, begins).await?;
        let Put { taken, frozen, stall, warnings } = self.put_filter_in(&disk.name).await?;
        for old in &old {
            self.tell("block-dirty-bitmap-disable", bitmap::of(&disk.name, old)).await?;
        }
        self.offer(&disk.name, &old).await?;
        let socket = self.machine.nbd_socket();
        let uri = format!("nbd+unix:///{EXPORT_NAME}?socket={}", escaped(&socket));
        let (incarnation, to, begins) = (self.live.incarnation, to.to_owned(), begins.to_owned());
        let size = disk.image.size;
        let holes = HOLES_NAME;
        Ok(Moment {
            uri,
            holes,
            size,
            bitmaps: old,
            begins,
            why_all,
            room,
            taken,
            frozen,
            stall,
            warnings,
            incarnation,
            to,
        })
    }

    /// The moment: the guest's writes go through the filter from here on.
    async fn put_filter_in(&self, node: &str) -> Result<Put, DriverError> {
        let name = format!("{FILTER}{node}");
        let filter = json!({
            "driver": "copy-before-write", "node-name": name, "file": node, "target": SCRATCH,
            "on-cbw-error": "break-snapshot", "cbw-timeout": SLOWEST,
        });
        self.tell("blockdev-add", filter).await?;
        let (machine, live, at, deadline) =
            (Arc::clone(self.machine), Arc::clone(self.live), connection(&name), self.deadline);
        let limit = self.limit;
        let connect = async move {
            let taken = now(); // not after the thaw: what is written then is not in it
            let connected = live.run("qom-set", at, deadline).await;
            connected.map_err(|error| machine.unconfirmed(BACKUP, limit, &error)).map(|()| taken)
        };
        let began = Instant::now();
        match frozen(Arc::clone(self.machine), connect).await {
            Ok(taken) => Ok(Put { taken, frozen: true, stall: began.elapsed(), warnings: Vec::new() }),
            // A guest without an agent, say: its disk is as after a power cut, and that is told.
            Err(DriverError::Refused { why, .. } | DriverError::Blocked { why, .. }) => {
                let (began, taken) = (Instant::now(), now());
                self.tell("qom-set", connection(&name)).await?;
                let warnings = vec![format!("its file systems were not frozen: {why}")];
                Ok(Put { taken, frozen: false, stall: began.elapsed(), warnings })
            }
            Err(error) => Err(error),
        }
    }

    /// Has a new bitmap record from now on: in the image, if that can be.
    async fn add_bitmap(&self, disk: &Node, name: &str) -> Result<(), DriverError> {
        let persistent = disk.drv == Format::Qcow2.name();
        let mut wanted = bitmap::of(&disk.name, name);
        wanted["persistent"] = persistent.into();
        let added = self.live.run("block-dirty-bitmap-add", wanted, self.deadline).await;
        match added {
            // An old qcow2 keeps none; then it is known for as long as this QEMU runs.
            Err(QmpError::Refused { desc, .. }) if persistent => {
                tracing::warn!(vm = %self.machine.name, why = desc, "what changes is not recorded in the image");
                self.tell("block-dirty-bitmap-add", bitmap::of(&disk.name, name)).await
            }
            added => added.map_err(|error| self.failed(&error)),
        }
    }

    async fn offer(&self, node: &str, bitmaps: &[String]) -> Result<(), DriverError> {
        let moment = json!({
            "driver": "snapshot-access", "node-name": MOMENT, "file": format!("{FILTER}{node}"),
        });
        self.tell("blockdev-add", moment).await?;
        let socket = self.machine.nbd_socket();
        let at = json!({ "type": "unix", "data": { "path": socket.to_string_lossy() } });
        self.tell("nbd-server-start", json!({ "addr": at })).await?;
        let bitmaps: Vec<Value> = bitmaps.iter().map(|name| json!({ "node": node, "name": name })).collect();
        let export = json!({
            "type": "nbd", "id": EXPORT, "node-name": MOMENT, "name": EXPORT_NAME, "bitmaps": bitmaps,
        });
        self.tell("block-export-add", export).await?;
        let holes = json!({ "type": "nbd", "id": HOLES, "node-name": node, "name": HOLES_NAME });
        self.tell("block-export-add", holes).await
    }

    /// Makes the scratch file, gives it to QEMU, and takes its name away: it is gone with QEMU, whatever happens to us. What
    /// it may take (bytes).
    async fn add_scratch(&self, size: u64) -> Result<u64, DriverError> {
        let (path, disk) = (self.machine.scratch(), self.machine.disk());
        let named = path.clone();
        let made = tokio::task::spawn_blocking(move || scratch::make(&path, &disk, size)).await;
        let made = made.unwrap_or_else(|error| Err(error.to_string()));
        let added = match &made {
            Ok(room) => {
                let file = json!({ "driver": "file", "filename": named.to_string_lossy() });
                let bounded = json!({ "driver": "raw", "size": room, "file": file });
                let node =
                    json!({ "driver": "qcow2", "node-name": SCRATCH, "file": bounded, "backing": null });
                self.tell("blockdev-add", node).await
            }
            Err(why) => Err(self.machine.refused(BACKUP, why.clone())),
        };
        let _gone = fs::remove_file(&named);
        added.and(made.map_err(|why| self.machine.refused(BACKUP, why)))
    }

    /// Takes down the export, the filter and what belongs to it; the bitmaps stay.
    async fn take_down(&self) -> Result<(), DriverError> {
        let exports: Vec<Export> = self.exports().await?;
        let is_ours = |export: &Export| [EXPORT, HOLES].contains(&export.id.as_str());
        for export in exports.iter().filter(|export| is_ours(export)) {
            self.tell("block-export-del", json!({ "id": export.id, "mode": "hard" })).await?;
        }
        let is_offered = exports.iter().any(is_ours);
        while self.exports().await?.iter().any(is_ours) {
            if Instant::now() >= self.deadline {
                return Err(self.machine.late(BACKUP, self.limit));
            }
            tokio::time::sleep(POLL).await;
        }
        // Somebody may have put an export of his own beside ours, or have a server of his own.
        let socket = self.machine.nbd_socket();
        let is_shared = exports.iter().any(|export| !is_ours(export) && export.kind == "nbd");
        if !is_shared && (is_offered || tokio::net::UnixStream::connect(&socket).await.is_ok()) {
            self.tell("nbd-server-stop", Value::Null).await?;
            let _gone = fs::remove_file(&socket);
        }
        let nodes = self.nodes().await?;
        let ours = nodes.iter().map(|node| node.name.as_str());
        let mut ours: Vec<&str> =
            ours.filter(|name| [MOMENT, SCRATCH].contains(name) || name.starts_with(FILTER)).collect();
        let order = |name: &&str| [FILTER, SCRATCH].iter().position(|one| name.starts_with(one)); // each stands on the next
        ours.sort_by_key(order);
        for name in ours {
            if let Some(below) = name.strip_prefix(FILTER)
                && self.connected().await? == name
            {
                self.tell("qom-set", connection(below)).await?;
            }
            self.tell("blockdev-del", json!({ "node-name": name })).await?;
        }
        Ok(())
    }

    async fn exports(&self) -> Result<Vec<Export>, DriverError> {
        let exports = self.live.call("query-block-exports", Value::Null, self.deadline).await;
        exports.map_err(|error| self.failed(&error))
    }

    /// As [`Talk::clear`], of a moment that nobody read: its bitmap is of no use.
    async fn forget(&self, begins: &str) -> Result<(), DriverError> {
        self.clear().await?;
        match self.disk().await? {
            Some(disk) if bitmap::has(&disk.bitmaps, begins) => self.remove(&disk, begins).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Takes everything down, and has all bitmaps record again what was written since they began.
    async fn clear(&self) -> Result<(), DriverError> {
        self.take_down().await?;
        let Some(disk) = self.disk().await? else { return Ok(()) };
        for actions in bitmap::joining(&disk.name, &disk.bitmaps) {
            self.tell("transaction", json!({ "actions": actions })).await?;
        }
        Ok(())
    }
}

/// The order that connects the guest's disk to a node.
fn connection(node: &str) -> Value {
    json!({ "path": DISK_DEVICE, "property": "drive", "value": node })
}

/// A path as part of a URI.
fn escaped(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes
        .map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_part_of_a_uri_whatever_is_in_it() {
        assert_eq!(escaped(Path::new("/run/a b&c=d?e%/vm/nbd")), "/run/a%20b%26c%3Dd%3Fe%25/vm/nbd");
    }
}
