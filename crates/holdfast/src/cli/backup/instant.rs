//! `holdfast backup restore --instant FILE`: the disk of a VM becomes a restore point at once, and the VM starts while its blocks
//! come in.
//!
//! FILE becomes an empty overlay over the point, which is offered on a socket beside it ([`crate::backups::offer`]); the
//! running QEMU is asked to copy the rest into it ([`stream`]). What FILE was is kept beside it (I15). FILE itself says how it
//! stands: as long as its head names the socket it needs the point, and then never more. So whoever is killed when, the
//! same command goes on; a marker beside FILE says which that is.

pub(super) mod stream;

use super::fresh::sync_folder;
use super::restore::RestoreArgs;
use super::{bar, disk, failed, say_aside, shown, troubled};
use crate::act::chain;
use crate::backups::offer::{self, Heard, READ_AGAIN};
use crate::cli::{CliError, Exit, print_json, wait_for};
use holdfast_backup::offered::Offered;
use holdfast_backup::point::Disk;
use holdfast_backup::repository::Repository;
use holdfast_drivers::qemu::image::{self, ImageError};
use holdfast_drivers::qemu::launch::Format;
use holdfast_drivers::qemu::offered::NAME;
use holdfast_drivers::qemu::snapshot::{Files, qcow2};
use rustix::fs::{CWD, FlockOperation, RenameFlags, fcntl_lock, renameat_with};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes of blocks that are kept in memory.
const MOST: usize = 64 << 20;
/// The largest marker that is read.
const MARKER_MOST: u64 = 4_096;
const HINT: &str = "nothing was changed";

/// What a disk is to become.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    v: u32,
    /// The repository, by its number.
    repository: String,
    /// Where it was.
    repo: PathBuf,
    point: String,
    disk: String,
    /// The file that the disk was before, by its device and number: it alone is put aside.
    old: Option<(u64, u64)>,
}

/// The disk, and what lies beside it.
struct Place {
    file: PathBuf,
    marker: PathBuf,
    socket: PathBuf,
    /// Where what it was is kept.
    kept: PathBuf,
}

/// Makes it so, and stays until nothing of the point is missing any more.
pub fn restore(args: &RestoreArgs, file: &Path, qmp: &Path) -> Result<Exit, CliError> {
    let (repository, folder) = (args.repository.open()?, &args.repository.repo);
    let name = args.point.find(&repository, folder)?;
    let point = repository.point(&name).map_err(troubled(folder))?;
    let (id, disk) = (shown(&name), disk::named(&point, None, &shown(&name))?.clone());
    let repo = folder.absolute().map_err(failed(format!("find `{folder}`")))?;
    let number = repository.id().to_string();
    let place = Place::of(file, &id)?;
    let (disk_name, old) = (disk.name.clone(), place.file.symlink_metadata().ok());
    let old = old.map(|known| (known.dev(), known.ino()));
    let marker = Marker { v: 1, repository: number, repo, point: id, disk: disk_name, old };
    let (begun, size) = (Instant::now(), disk.size);
    let offered = checked(repository, disk, file)?;
    place.prepare(&marker, size)?;
    wait_for(serve(args, &place, &marker, offered, qmp))?;
    fs::remove_file(&place.marker)
        .and_then(|()| sync_folder(&place.marker))
        .map_err(failed(format!("remove `{}`, which is not needed any more", place.marker.display())))?;
    let took = begun.elapsed().as_secs_f64();
    if args.json {
        print_json(&serde_json::json!({
            "v": 1, "id": marker.point, "file": place.file.to_string_lossy(), "size": size, "seconds": took,
            "kept": place.kept.exists().then(|| place.kept.to_string_lossy()),
        }))?;
    } else {
        say!("{} is point {} and needs it no more, {took:.1} s", place.file.display(), marker.point);
    }
    Ok(Exit::Fine)
}

/// A point that can be offered as the disk of a VM.
pub(super) fn checked(repository: Repository, disk: Disk, file: &Path) -> Result<Offered, CliError> {
    let refused = |cause: String, hint: &str| refused(file, cause, hint);
    if disk.size == 0 || !disk.size.is_multiple_of(512) {
        return Err(refused("the point is not the disk of a VM: it has no whole sectors".into(), HINT));
    }
    let disk = Offered::new(repository, disk, MOST);
    let mut magic = [0; 4];
    disk.read_at(0, &mut magic).map_err(|error| {
        refused(
            chain(&error),
            "nothing was changed; `holdfast backup verify` names the points that are whole",
        )
    })?;
    if magic == *b"QFI\xfb" {
        let hint = "nothing was changed; `holdfast backup restore --out FILE` makes that file again";
        return Err(refused("the point holds a qcow2 file, and not the disk in it".into(), hint));
    }
    Ok(disk)
}

pub(super) fn refused(file: &Path, cause: String, hint: &str) -> CliError {
    CliError::Said { error: format!("cannot restore `{}` at once", file.display()), cause, hint: hint.into() }
}

impl Place {
    fn of(file: &Path, point: &str) -> Result<Self, CliError> {
        let what = || format!("restore `{}` at once", file.display());
        let name = file.file_name().ok_or_else(|| failed(what())(io::ErrorKind::InvalidInput.into()))?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = folder.canonicalize().map_err(failed(what()))?.join(name);
        let beside = |end: &str| {
            let mut path = file.as_os_str().to_owned();
            path.push(end);
            PathBuf::from(path)
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        if !file.to_str().is_some_and(|text| text.bytes().all(plain)) {
            let hint = "nothing was changed; give the file and its folders plain names";
            return Err(refused(
                &file,
                "its path has other characters than letters, digits and `-._~`".into(),
                hint,
            ));
        }
        let kept = beside(&format!(".before-{}", point.replace('/', "-")));
        Ok(Self { marker: beside(".instant"), socket: beside(".offered"), kept, file })
    }

    fn backing(&self) -> String {
        format!("{NAME}{}", self.socket.display())
    }

    /// Whether the disk needs the point.
    fn needs_point(&self) -> Result<bool, CliError> {
        let backing = image::backing(&self.file).map_err(|error| self.unreadable(&error))?;
        Ok(backing.is_some_and(|backing| backing == self.backing()))
    }

    fn unreadable(&self, error: &ImageError) -> CliError {
        refused(&self.file, chain(error), "the same command goes on once it can be read")
    }

    /// The overlay takes the place of what the disk was; or what was begun is gone on with.
    fn prepare(&self, marker: &Marker, size: u64) -> Result<(), CliError> {
        let failed = |error: io::Error| refused(&self.file, error.to_string(), "the same command goes on");
        let before = self.read_marker()?;
        if let Some(before) = &before
            && (before.point != marker.point || before.repository != marker.repository)
        {
            let (point, repo) = (&before.point, before.repo.display());
            let hint = format!("finish that first (`--point {point}`); `{}` says so", self.marker.display());
            return Err(refused(&self.file, format!("it is becoming point {point} of {repo}"), &hint));
        }
        if before.is_none() {
            self.may_begin()?;
            self.write_marker(marker).map_err(failed)?;
        }
        let old = before.as_ref().unwrap_or(marker).old;
        let like = match self.file.symlink_metadata() {
            Ok(known) if old == Some((known.dev(), known.ino())) => {
                let _unused = self.lock()?; // no QEMU opens it from here on
                let renamed = renameat_with(CWD, &self.file, CWD, &self.kept, RenameFlags::NOREPLACE);
                renamed.map_err(|why| failed(why.into()))?;
                Some(known)
            }
            Ok(_) => return Ok(()), // the overlay, or what became of it
            Err(_) => self.kept.metadata().ok(),
        };
        self.make_overlay(size, like.as_ref()).map_err(failed)
    }

    /// What must be so before anything is changed.
    fn may_begin(&self) -> Result<(), CliError> {
        let tree = Files::of(&self.file).look().map_err(|why| refused(&self.file, why, HINT))?;
        if tree.is_some_and(|tree| tree.snapshots().next().is_some() || tree.chain().len() > 1) {
            let hint = "nothing was changed; `holdfast snapshot delete` them first, or name another file";
            return Err(refused(&self.file, "snapshots stand on what it is now".into(), hint));
        }
        if self.kept.symlink_metadata().is_ok() {
            let cause = format!("`{}` is there already, and never replaced (I15)", self.kept.display());
            return Err(refused(&self.file, cause, "nothing was changed; move that one away"));
        }
        if self.file.symlink_metadata().is_err() {
            return Ok(());
        }
        self.lock()?;
        let format = image::format(&self.file).map_err(|error| refused(&self.file, chain(&error), HINT))?;
        if format != Format::Qcow2 {
            // A VM whose disk was raw is not started from a qcow2 of that name: its guest may have written that (A31).
            let hint = "nothing was changed; name a new file, and that in the configuration of the VM";
            return Err(refused(&self.file, "it is raw now, and would become a qcow2".into(), hint));
        }
        Ok(())
    }

    /// Nobody uses the disk, and no QEMU can as long as this is held.
    fn lock(&self) -> Result<File, CliError> {
        let file = OpenOptions::new().read(true).write(true).open(&self.file);
        let file = file.map_err(|error| refused(&self.file, error.to_string(), HINT))?;
        let locked = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
        locked.map_err(|why| {
            let cause = format!("somebody uses it: {}", io::Error::from(why));
            refused(&self.file, cause, "stop its VM first (`holdfast vm stop`); nothing was changed")
        })?;
        Ok(file)
    }

    fn read_marker(&self) -> Result<Option<Marker>, CliError> {
        let mut text = String::new();
        match File::open(&self.marker) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.and_then(|file| file.take(MARKER_MOST).read_to_string(&mut text)),
        }
        .map_err(failed(format!("read `{}`", self.marker.display())))?;
        serde_json::from_str(&text).map(Some).map_err(|error| {
            let cause = format!("`{}` cannot be understood: {error}", self.marker.display());
            refused(
                &self.file,
                cause,
                "it was written by this command; without it, it is not known what was begun",
            )
        })
    }

    fn write_marker(&self, marker: &Marker) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.marker)?;
        let written = file.write_all(&serde_json::to_vec(marker)?).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(&self.marker)))?; // nothing was begun
        sync_folder(&self.marker)
    }

    /// A file that is whole when it has its name, and belongs to whoever the disk belonged to.
    fn make_overlay(&self, size: u64, like: Option<&fs::Metadata>) -> io::Result<()> {
        let mut unfinished = self.file.as_os_str().to_owned();
        unfinished.push(".unfinished-overlay");
        let unfinished = PathBuf::from(unfinished);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {} // it was ours: it is made while the marker is there
        }
        let mut overlay = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        qcow2::write_overlay(&mut overlay, size, &self.backing(), Format::Raw)?;
        if let Some(like) = like {
            overlay.set_permissions(fs::Permissions::from_mode(like.mode() & 0o777))?;
            fchown(&overlay, Some(like.uid()), Some(like.gid()))?;
        }
        renameat_with(CWD, &unfinished, CWD, &self.file, RenameFlags::NOREPLACE)?;
        sync_folder(&self.file)
    }
}

/// Offers the point until the disk needs it no more.
async fn serve(
    args: &RestoreArgs,
    place: &Place,
    marker: &Marker,
    offered: Offered,
    qmp: &Path,
) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let asked = |source| CliError::Io { what: "listen to signals".into(), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(asked)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(asked)?;
    if !place.needs_point()? {
        return Ok(()); // whoever brought the last block was killed before he could say so
    }
    let bar = bar(offered.size(), args.json);
    let tell = |heard: &Heard<'_>| match heard {
        Heard::Failed(error) => {
            let (why, hint) = (chain(error), offer::hint(error));
            say_aside(&format!("the guest was told of an input/output error: {why}. {hint}"));
        }
        Heard::Again => say_aside(READ_AGAIN),
    };
    let offer = offer::offer(offered, &place.socket, tell)
        .map_err(|error| refused(&place.file, chain(&error), error.hint()))?;
    let owner = place.file.metadata().map_err(failed(format!("look at `{}`", place.file.display())))?.uid();
    offer.give_to(owner).map_err(failed(format!("give `{}` to user {owner}", place.socket.display())))?;
    if !args.json {
        let kept = if place.kept.exists() {
            format!("; what it was is {}", place.kept.display())
        } else {
            String::new()
        };
        say_aside(&format!("{} is point {}{kept}. Start its VM now", place.file.display(), marker.point));
    }
    let names = [&place.file, args.instant.as_ref().unwrap_or(&place.file)].map(PathBuf::as_path);
    let is_whole = async {
        while place.needs_point()? {
            stream::stream(qmp, &names, args.limits.wanted().limit.unwrap_or(0), &bar).await;
        }
        Ok::<(), CliError>(())
    };
    let ended = tokio::select! {
        ended = is_whole => ended,
        _ = interrupt.recv() => Err(stopped(place)),
        _ = terminate.recv() => Err(stopped(place)),
    };
    bar.finish_and_clear();
    drop(offer);
    ended?;
    whole(&place.file)
}

/// Nothing is missing any more: what QEMU wrote last of all, its head, is on the disk.
pub(super) fn whole(file: &Path) -> Result<(), CliError> {
    let synced = File::open(file).and_then(|file| file.sync_all());
    synced.map_err(failed(format!("write `{}` to the disk", file.display())))
}

fn stopped(place: &Place) -> CliError {
    let cause = "it was stopped before all of the point was there: a VM that reads what is missing waits, and is paused then";
    refused(&place.file, cause.into(), "the same command goes on; until then the VM is not started")
}
