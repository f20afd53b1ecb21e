//! One folder of the host: how much is free, and how long a small durable write takes.

use holdfast_core::signal::HostSign;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How often a folder is looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// A write that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(5);
/// What is written.
const BLOCK: [u8; 4096] = [0x5a; 4096];
/// Where, in the folder; removed at once.
const NAME: &str = ".holdfast-disk-probe";

#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    total: u64,
}

/// Watches one folder. A disk that hangs is looked at by one thread and no second one.
pub async fn watch(folder: PathBuf, out: mpsc::Sender<HostSign>) {
    let path = folder.to_string_lossy().into_owned();
    let mut clock = tokio::time::interval(PERIOD);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known: Option<Space> = None;
    let mut told = None;
    while !out.is_closed() {
        clock.tick().await;
        let folder = folder.clone();
        let mut looking = tokio::task::spawn_blocking(move || look(&folder));
        let looked = loop {
            match timeout(LIMIT, &mut looking).await {
                Ok(looked) => break looked,
                Err(_elapsed) => {
                    tell(&mut told, &path, Some("it does not answer".into()));
                    if let Some(space) = known
                        && out.send(sign(&path, space, None)).await.is_err()
                    {
                        return;
                    }
                }
            }
        };
        let Ok(looked) = looked else { return };
        match looked {
            Ok((space, written)) => {
                known = Some(space);
                tell(&mut told, &path, written.as_ref().err().map(ToString::to_string));
                if out.send(sign(&path, space, written.ok())).await.is_err() {
                    return;
                }
            }
            Err(error) => tell(&mut told, &path, Some(error.to_string())),
        }
    }
}

fn sign(path: &str, space: Space, latency: Option<Duration>) -> HostSign {
    HostSign::Disk { path: path.into(), free: space.free, total: space.total, latency }
}

/// Says a trouble once, until it is another one.
fn tell(told: &mut Option<String>, path: &str, trouble: Option<String>) {
    if let Some(error) = &trouble
        && *told != trouble
    {
        tracing::warn!(path, error, "a folder cannot be written durably");
    }
    *told = trouble;
}

/// Blocks for as long as the disk does.
fn look(folder: &Path) -> io::Result<(Space, io::Result<Duration>)> {
    let seen = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
    let space = Space { free: bytes(seen.f_bavail), total: bytes(seen.f_blocks) };
    Ok((space, write(folder)))
}

/// Writes 4 KiB durably to a file of its own, which no link or leftover can lead elsewhere.
fn write(folder: &Path) -> io::Result<Duration> {
    let path = folder.join(NAME);
    remove(&path)?; // of a run that was cut off
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let started = Instant::now();
    let mut file = File::from(rustix::fs::openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR)?);
    let written = file.write_all(&BLOCK).and_then(|()| file.sync_data());
    let took = started.elapsed();
    let removed = remove(&path);
    written.and(removed).map(|()| took)
}

fn remove(path: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (space, written) = look(folder.path()).unwrap();
        assert!(space.free <= space.total && space.total > 0);
        assert!(written.is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join(NAME)).unwrap();
        assert!(write(folder.path()).is_ok());
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    }

    #[test]
    fn what_cannot_be_written_has_no_latency() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(NAME)).unwrap(); // cannot be unlinked
        let (_, written) = look(folder.path()).unwrap();
        assert!(written.is_err());
        assert!(look(&folder.path().join("gone")).is_err());
    }
}
