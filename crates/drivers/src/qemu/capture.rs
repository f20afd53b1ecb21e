//! Evidence, before it is destroyed: what was on the screen and the console, where the processors stood,
//! what the process did. Three seconds at most, and whatever could be had counts.

use super::live::Live;
use super::machine::Machine;
use super::untrusted::tame;
use crate::DriverError;
use holdfast_core::action::Fact;
use holdfast_core::incident::IncidentId;
use holdfast_core::lease::Incarnation;
use holdfast_core::signal::ProcessState;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// So much of the end of the console is kept.
const CONSOLE: u64 = 64 * 1024;
/// A picture larger than this is none.
const PICTURE: u64 = 8 << 20;
/// The evidence of so many incidents is kept, newest first.
const INCIDENTS: usize = 100;
/// All of it, whatever the order allows.
const MOST: Duration = Duration::from_secs(3);

impl Machine {
    /// Keeps evidence of this incarnation for this incident under `root`.
    pub async fn capture(
        &self,
        incarnation: Incarnation,
        incident: IncidentId,
        root: &Path,
        limit: Duration,
    ) -> Result<Fact, DriverError> {
        let deadline = Instant::now() + limit.min(MOST);
        let live = self.running()?;
        if live.incarnation != incarnation {
            return Err(self.refused("capture", format!("{} runs, not {incarnation}", live.incarnation)));
        }
        let folder = PathBuf::from(incident.0.to_string());
        make_room(root, &folder).map_err(|e| self.refused("capture", e.to_string()))?;
        let mut files = Vec::new();
        let mut keep = |name: &str, content: io::Result<Vec<u8>>| {
            let path = folder.join(format!("{}-{name}", self.name));
            match content.and_then(|content| write(&root.join(&path), &content)) {
                Ok(()) => files.push(path.to_string_lossy().into_owned()),
                Err(error) => {
                    tracing::debug!(vm = %self.name, name, %error, "evidence that could not be had")
                }
            }
        };
        // What cannot be asked for comes first: it is there also when QEMU is silent.
        keep("process.txt", Ok(self.describe_process(&live).into_bytes()));
        keep("console.txt", tail(&self.folder.console(), CONSOLE));
        // A stopped process answers nobody: each moment spent on asking it is one more of the outage.
        if !live.process.sample().is_ok_and(|sample| sample.state == ProcessState::Stopped) {
            keep("screen.png", self.screen(&live, deadline).await);
            keep("registers.txt", self.registers(&live, deadline).await);
        }
        Ok(Fact::Captured { files })
    }

    fn describe_process(&self, live: &Live) -> String {
        let mut text = format!("process {} of {} {}\n", live.process.pid(), self.name, live.incarnation);
        match live.process.sample() {
            Ok(s) => {
                text.push_str(&format!("state {:?}, cpu {:?}, resident {} bytes\n", s.state, s.cpu, s.rss))
            }
            Err(error) => text.push_str(&format!("{error}\n")),
        }
        for thread in live.process.threads().into_iter().flatten() {
            text.push_str(&format!(
                "{:>8} {:16} {:?} {:?}\n",
                thread.tid, thread.name, thread.state, thread.cpu
            ));
        }
        text
    }

    async fn screen(&self, live: &Live, deadline: Instant) -> io::Result<Vec<u8>> {
        let picture = self.folder.inner().join("screen.png");
        let _nothing_there = fs::remove_file(&picture);
        let place = json!({ "filename": picture.to_string_lossy(), "format": "png" });
        live.run("screendump", place, deadline).await.map_err(io::Error::other)?;
        let content = tail(&picture, PICTURE);
        fs::remove_file(&picture)?;
        content
    }

    async fn registers(&self, live: &Live, deadline: Instant) -> io::Result<Vec<u8>> {
        let state: Value =
            live.call("query-status", Value::Null, deadline).await.map_err(io::Error::other)?;
        let order = json!({ "command-line": "info registers -a" });
        let text: String =
            live.call("human-monitor-command", order, deadline).await.map_err(io::Error::other)?;
        let lines = text.lines().take(2_000).map(|line| tame(line, 400) + "\n");
        Ok(format!("{state}\n{}", lines.collect::<String>()).into_bytes())
    }
}

/// The last `most` bytes of a file that may have become anything: only a regular file is read.
fn tail(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let safe = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(safe.bits().cast_signed()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    file.seek(SeekFrom::Start(meta.len().saturating_sub(most)))?;
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    io::Write::write_all(&mut file, content)
}

/// Makes the folder of an incident, and lets go of those of the oldest.
fn make_room(root: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join(folder))?;
    let mut incidents: Vec<u64> =
        fs::read_dir(root)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    incidents.sort_unstable();
    let old = incidents.len().saturating_sub(INCIDENTS);
    for incident in &incidents[..old] {
        let _kept_then = fs::remove_dir_all(root.join(incident.to_string()));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_regular_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("console");
        fs::write(&file, "0123456789").unwrap();
        assert_eq!(tail(&file, 4).unwrap(), b"6789");
        assert_eq!(tail(&file, 99).unwrap(), b"0123456789");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(tail(&link, 4).is_err());
        assert!(tail(Path::new("/dev/zero"), 4).is_err());
    }

    #[test]
    fn the_oldest_evidence_makes_room() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("notes"), "a person's").unwrap();
        for incident in 1..=(INCIDENTS + 3) {
            make_room(root.path(), Path::new(&incident.to_string())).unwrap();
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), INCIDENTS + 1);
        assert!(!root.path().join("3").exists() && root.path().join("4").exists());
        assert!(root.path().join("notes").exists());
    }
}
