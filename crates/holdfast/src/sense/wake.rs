//! Waits until a file changes (inotify), so that a quiet console costs one look a second.

use super::awaited;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// How long a file is left alone that says nothing: it may have been replaced meanwhile, or a half line
/// may rest in it.
const AT_LEAST: Duration = Duration::from_secs(1);

/// What wakes whoever follows a file.
#[derive(Debug)]
pub struct Wake {
    events: AsyncFd<OwnedFd>,
}

impl Wake {
    /// # Errors
    /// When the system has no inotify, or no more of it for this user (`max_user_instances`).
    pub fn new() -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { events: awaited(events)? })
    }

    /// Watches what is at this path now; watching it twice is watching it once. What is gone, or was never
    /// there, is watched when it is there.
    pub fn watch(&self, path: &Path) {
        let changes =
            WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB | WatchFlags::DONT_FOLLOW;
        // It fails when nothing is there, which a look tells better.
        let _ = inotify::add_watch(&self.events, path, changes);
    }

    /// The same, where the path may lead through links; new files beside it are told, too.
    pub fn watch_through(&self, path: &Path) {
        let changes = WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
        let _ = inotify::add_watch(&self.events, path, changes);
        if let Some(folder) = path.parent() {
            let _ = inotify::add_watch(&self.events, folder, WatchFlags::CREATE | WatchFlags::MOVED_TO);
        }
    }

    /// Waits for a change, at most a second.
    pub async fn changed(&self) {
        let _ = tokio::time::timeout(AT_LEAST, self.next()).await;
    }

    async fn next(&self) -> io::Result<()> {
        let mut ready = self.events.readable().await?;
        // What happened does not matter, only that it did: everything is read and forgotten.
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(self.events.get_ref(), &mut events) {
                Ok(1..) => {}
                Ok(0) | Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[tokio::test]
    async fn a_change_wakes_and_no_change_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let wake = Wake::new().unwrap();
        wake.watch(&path); // not there yet
        let mut file = File::create(&path).unwrap();
        wake.watch(&path);
        wake.watch(&path);
        let short = Duration::from_millis(50);
        assert!(tokio::time::timeout(short, wake.next()).await.is_err());
        file.write_all(b"one").unwrap();
        wake.next().await.unwrap();
        assert!(tokio::time::timeout(short, wake.next()).await.is_err());
        file.set_len(0).unwrap();
        wake.next().await.unwrap();
        std::fs::rename(&path, folder.path().join("console.1")).unwrap();
        wake.next().await.unwrap();
    }
}
