//! The file that keeps what the guest overwrites while a moment is read.

use super::super::snapshot::qcow2;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::Path;

/// So much of the free space is left to others.
const SHARE: u64 = 2;
/// The least room for a scratch file (bytes), where the disk is not smaller.
const ROOM_LEAST: u64 = 256 << 20;
/// What a qcow2 takes beside the bytes of its disk: a share of it, and this.
const OVERHEAD: u64 = 8 << 20;

/// Makes an empty qcow2 of this size that is QEMU's user's, in a file that has a limit. The limit (bytes).
pub fn make(path: &Path, disk: &Path, size: u64) -> Result<u64, String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let told = |what: &'static str| {
        let path = path.display().to_string();
        move |error: io::Error| format!("cannot {what} the scratch file {path}: {error}")
    };
    let free = rustix::fs::statvfs(folder).map_err(|error| told("find room for")(error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    let whole = size.saturating_add(size / 256).saturating_add(OVERHEAD);
    let room = (free / SHARE).min(whole) >> 16 << 16;
    if room < ROOM_LEAST.min(whole >> 16 << 16) {
        let (free, least) = (free >> 20, (SHARE * ROOM_LEAST.min(whole)) >> 20);
        return Err(format!(
            "there is no room for what the guest overwrites meanwhile: {} has {free} MiB free, and {least} are needed",
            folder.display()
        ));
    }
    let _left = fs::remove_file(path);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(told("make"))?;
    qcow2::write_empty(&mut file, size).map_err(told("write"))?;
    file.set_len(room).map_err(told("bound"))?;
    // Whom the disk belongs to is who QEMU runs as.
    let owner = fs::metadata(disk).map_err(told("hand over"))?;
    if rustix::process::geteuid().is_root() {
        chown(path, Some(owner.uid()), Some(owner.gid())).map_err(told("hand over"))?;
    }
    Ok(room)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_file_is_bounded_and_one_without_room_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, path) = (folder.path().join("disk"), folder.path().join(".scratch"));
        fs::write(&disk, "").unwrap();
        let room = make(&path, &disk, 64 << 20).unwrap();
        assert_eq!((fs::metadata(&path).unwrap().len(), room % (64 << 10)), (room, 0));
        assert!(room > 64 << 20 && room < 80 << 20, "{room}");
        let again = make(&path, &disk, 64 << 20).unwrap();
        assert_eq!(again, room, "what was left is made anew");
        assert!(make(&folder.path().join("no/scratch"), &disk, 1).is_err());
    }
}
