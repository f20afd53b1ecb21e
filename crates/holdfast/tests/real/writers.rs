//! How many processes have a disk at once (I1), the dying ones too.
//!
//! A killed process has no command line any more at once, while the kernel takes back its memory; its disk is open until
//! that is done. So each process of a VM that was ever seen is held on to, and counts until it has really ended.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{has_ended, hold};
use crate::lab::vms_of;
use rustix::fd::OwnedFd;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The QEMU processes whose command line names, or has named, this file or folder.
pub struct Living {
    mark: PathBuf,
    held: BTreeMap<i32, OwnedFd>,
}

impl Living {
    pub fn of(mark: &Path) -> Self {
        Self { mark: mark.to_owned(), held: BTreeMap::new() }
    }

    /// Those that have not ended. New ones are looked for first, so those that are returned lived at one time.
    pub fn look(&mut self) -> Vec<i32> {
        for pid in vms_of(&self.mark) {
            if let Some(process) = hold(pid) {
                self.held.entry(pid).or_insert(process);
            }
        }
        self.held.retain(|_, process| !has_ended(process));
        self.held.keys().copied().collect()
    }
}

/// What all looks together have seen.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    /// The most processes at any one look.
    pub most: usize,
    /// Looks at a process that was dying: its command line was gone, itself was not.
    pub dying: usize,
}

impl Seen {
    fn add(&mut self, living: &[i32]) {
        self.most = self.most.max(living.len());
        self.dying += living.iter().filter(|pid| is_dying(**pid)).count();
    }
}

fn is_dying(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
}

/// Looks all the time how many processes have a disk open for writing, as often as it can.
pub struct Writers {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writers {
    /// Looks at the QEMU processes of this disk.
    pub fn watch(disk: &Path) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (over, all, mut living) = (Arc::clone(&stop), Arc::clone(&seen), Living::of(disk));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                all.lock().unwrap().add(&living.look());
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { seen, stop, thread: Some(thread) }
    }

    /// Ends the watch.
    pub fn seen(mut self) -> Seen {
        self.end();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the watch; the most at any one look.
    pub fn most(self) -> usize {
        self.seen().most
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the watch has failed");
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

mod tests {
    use super::*;
    use crate::hands::Ends;
    use crate::lab::{SOON, signal};
    use crate::remedies::SmallPages;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    /// What it touches of memory: the kernel needs a tenth of a second to take it back.
    const MEMORY: &str = "bs=512M";

    /// No QEMU, but named like one: it has touched its memory and waits for somebody to read what it writes.
    fn large(disk: &Path) -> Ends {
        let mut command = Command::new("dd");
        command.arg0("qemu-system-none").arg("if=/dev/zero").arg(format!("of={}", disk.display()));
        command.args([MEMORY, "count=1"]).stdin(Stdio::null()).stderr(Stdio::null());
        Ends(command.spawn().unwrap())
    }

    #[test]
    fn a_killed_process_counts_until_it_has_ended_although_its_command_line_is_gone_r16() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        assert!(Command::new("mkfifo").arg(&disk).status().unwrap().success());
        let reader = fs::OpenOptions::new().read(true).write(true).open(&disk).unwrap();
        let (mut living, mut seen) = (Living::of(&disk), Seen::default());
        let writers = Writers::watch(&disk);
        let _slow = SmallPages::only(); // of large ones the kernel takes that much back in an instant
        let vm = large(&disk);
        let began = Instant::now();
        let touched = || rustix::io::ioctl_fionread(&reader).unwrap() > 0;
        while living.look() != [vm.pid()] || !touched() {
            assert!(began.elapsed() < SOON, "it writes");
            std::thread::sleep(Duration::from_millis(10));
        }
        let process = hold(vm.pid()).unwrap();
        signal(vm.pid(), "KILL");
        let mut unseen = 0;
        while !has_ended(&process) {
            let (named, counted) = (vms_of(&disk).len(), living.look());
            unseen += usize::from(named == 0 && counted == [vm.pid()]);
            seen.add(&counted);
        }
        assert!(unseen > 0, "it was counted although its command line was gone");
        assert!(seen.dying > 0 && seen.most == 1);
        assert_eq!(living.look(), Vec::<i32>::new(), "it has ended and waits to be collected");
        let watched = writers.seen();
        assert!(watched.dying > 0 && watched.most == 1, "the watch has seen it die");
    }
}
