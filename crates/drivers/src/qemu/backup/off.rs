//! The disk of a VM that is off, offered over NBD so that another process can save it.
//!
//! A start never waits for a backup: before a QEMU is launched whoever reads the disk is ended, so what was read is of before
//! the start, and the rest is not to be had. The images are the ones that the next start would open, looked at as a start
//! looks at them (A31). Nothing is written to them: a bitmap in them tells afterwards what it told before.

use super::super::Qemu;
use super::super::image::{self, Layer};
use super::super::launch::Format;
use super::super::live::Life;
use super::super::machine::{Machine, error_chain};
use super::super::reader::{EXPORT, Pace, Reader};
use super::super::record::Record;
use super::super::snapshot::{Opened, qcow2};
use super::super::start::on_top;
use super::{BACKUP, escaped};
use crate::DriverError;
use holdfast_core::subject::VmName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// An order that takes longer may start the VM: then it is not off.
const ORDERS: Duration = Duration::from_secs(1);
/// A reader that is killed is gone before that, unless its storage hangs; then it will not read any more, either.
const GONE: Duration = Duration::from_secs(5);

/// The disk, while it is offered. Dropping it ends that.
#[derive(Debug)]
pub struct Off {
    /// Where it is read.
    pub uri: String,
    /// Bytes.
    pub size: u64,
    /// The images. If one of them is written to while it is read, what was read is of no one moment.
    pub files: Vec<PathBuf>,
    /// The guest shut down in order, and nobody has touched the images since.
    pub is_orderly: bool,
    reading: Arc<Reading>,
}

/// Who reads it.
#[derive(Debug)]
pub struct Reading {
    reader: Reader,
    /// It was ended for a start.
    gave_way: AtomicBool,
}

/// How an offer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffEnd {
    /// The VM was started: the rest of the disk was not to be had.
    GaveWay,
    /// It ended by itself or was not wanted any more; what whoever read it said.
    Said(String),
}

/// What a start would open.
struct Images {
    layers: Vec<Layer>,
    size: u64,
    is_orderly: bool,
}

impl Machine {
    async fn begin_off_backup(&self, limit: Duration) -> Result<Off, DriverError> {
        let deadline = Instant::now() + limit;
        let _one = self.snapshot_turn(BACKUP, deadline).await?;
        let _turn = self.turn(deadline.min(Instant::now() + ORDERS)).await?; // nobody starts it meanwhile
        match &*self.life.borrow() {
            Life::Dead(_) => {}
            Life::Running(_) => return Err(self.refused(BACKUP, "it was started in this moment")),
            Life::Unclear(why) => return Err(self.refused(BACKUP, why.clone())),
        }
        let disk = self.disk();
        let opened = self.open_disk(&disk).await?;
        self.must_be_unheld(BACKUP, &disk, &opened.disk).await?;
        let ((spec, known), others) = (on_top(&self.spec(), &opened.disk), self.disks_of_others());
        let (record, ended, folder) =
            (self.record(), *self.shut_down.borrow(), self.folder.path().join("read"));
        let begun = tokio::task::spawn_blocking(move || {
            let layers = image::check(&spec, known, &others).map_err(|error| error_chain(&error))?;
            let images = Images::of(layers, &opened, &record, ended)?;
            let reader = Reader::start(&images.layers, folder, Pace::Last).map_err(|e| error_chain(&e))?;
            Ok((images, reader))
        });
        let begun = begun.await.map_err(|error| self.refused(BACKUP, error.to_string()))?;
        let (Images { layers, size, is_orderly }, reader) =
            begun.map_err(|why: String| self.refused(BACKUP, why))?;
        let uri = format!("nbd+unix:///{EXPORT}?socket={}", escaped(reader.socket()));
        let reading = Arc::new(Reading { reader, gave_way: AtomicBool::new(false) });
        self.read_by(&reading);
        let files = layers.into_iter().map(|layer| layer.path).collect();
        Ok(Off { uri, size, files, is_orderly, reading })
    }

    /// Whoever reads the disk is gone before anybody writes to it. The caller has the turn to give an order.
    pub(in super::super) async fn end_reading(&self) {
        let Some(reading) = self.reading() else { return };
        reading.gave_way.store(true, Ordering::Relaxed);
        reading.reader.end();
        if tokio::time::timeout(GONE, reading.reader.gone()).await.is_err() {
            let pid = reading.reader.pid();
            tracing::warn!(vm = %self.name, pid, "whoever read its disk for a backup was killed and is still there");
        }
    }

    /// It is off, its guest was seen to shut down by itself, and this image has not changed since.
    pub(in super::super) fn ended_in_order(&self, image: &Path) -> bool {
        are_as_left(*self.shut_down.borrow(), [image])
    }
}

impl Images {
    /// Looks at them once more: they are the ones on record, and none is other than it seems.
    fn of(
        layers: Vec<Layer>,
        opened: &Opened,
        record: &Record,
        ended: Option<SystemTime>,
    ) -> Result<Self, String> {
        if layers.iter().any(|layer| layer.is_offered) {
            return Err("its disk is still coming in from a backup: start it, and wait for that".into());
        }
        let real =
            |path: &Path| path.canonicalize().map_err(|e| format!("cannot find {}: {e}", path.display()));
        for (own, layer) in std::iter::once(&opened.disk).chain(&opened.below).zip(&layers) {
            if real(own)? != real(&layer.path)? {
                let (own, found) = (own.display(), layer.path.display());
                return Err(format!(
                    "an image of its snapshots is to stand on {own}, and names {found} (A31)"
                ));
            }
        }
        if layers.len() <= opened.below.len() {
            return Err("an image of its snapshots stands on nothing, and is to stand on others".into());
        }
        let Some(top) = layers.first() else { return Err("it has no disk".into()) };
        if top.format == Format::Qcow2 && record.raw.contains(&top.path) {
            return Err(format!(
                "{} was raw and now claims to be qcow2, which its guest may have written (A31)",
                top.path.display()
            ));
        }
        let told = |e: std::io::Error| format!("cannot read {}: {e}", top.path.display());
        let size = qcow2::virtual_size(&top.path, top.format).map_err(told)?;
        let is_orderly = are_as_left(ended, layers.iter().map(|layer| &*layer.path));
        Ok(Self { layers, size, is_orderly })
    }
}

/// Whether a guest shut down in order, and these images have not changed since.
fn are_as_left<'a>(ended: Option<SystemTime>, images: impl IntoIterator<Item = &'a Path>) -> bool {
    ended.is_some_and(|ended| images.into_iter().all(|image| is_older(image, ended)))
}

/// Whether nothing of a file changed after that time. That of its status nobody can set.
fn is_older(path: &Path, than: SystemTime) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(known) = path.metadata() else { return false };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(known.ctime()), u32::try_from(known.ctime_nsec())) else {
        return false;
    };
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos) <= than
}

impl Qemu {
    /// Offers the disk of a VM that is off, until somebody has read it, or the VM is started.
    ///
    /// # Errors
    /// As for [`crate::Driver::perform`]. Nothing of it is left then.
    pub async fn begin_off_backup(&self, vm: &VmName, limit: Duration) -> Result<Off, DriverError> {
        self.machine(vm)?.begin_off_backup(limit).await
    }
}

impl Off {
    /// The process that reads the images.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.reading.reader.pid()
    }

    /// Offers it no more; nobody has the images open then.
    pub async fn end(self) -> OffEnd {
        let before = self.reading.reader.said();
        self.reading.reader.end();
        let said = tokio::time::timeout(GONE, self.reading.reader.gone()).await;
        if self.reading.gave_way.load(Ordering::Relaxed) {
            return OffEnd::GaveWay;
        }
        OffEnd::Said(before.or(said.ok()).unwrap_or_default())
    }
}
