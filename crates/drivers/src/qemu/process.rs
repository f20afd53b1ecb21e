//! The process of a VM: who it is, whether it lives, how it ended.
//!
//! A process id is reused, so a process is known by its id, its start time and the boot of the host.
//! It is dead only when its pidfd is readable, or when no process with that id and start time exists
//! under the same boot; a closed socket or silence never counts (SAFETY section 3). Signals go through
//! the pidfd, so they can never hit a stranger that got the same id.

use holdfast_core::lease::{Death, ExitStatus};
use holdfast_core::signal::ProcessState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// One process, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks after the boot (`man 5 proc`, field 22 of `stat`).
    pub start: u64,
    /// The boot of the host it belongs to.
    pub boot: String,
}

/// A process that we hold on to. It stays the same one, also when its id is given to another.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    fd: AsyncFd<OwnedFd>,
    status: OnceLock<ExitStatus>,
}

/// Whether a process is there.
#[derive(Debug)]
pub enum Presence {
    /// It was a moment ago.
    Here(Process),
    /// It is gone, and this is how we know.
    Gone(Death),
}

/// A look at a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What the kernel says it does.
    pub state: ProcessState,
    /// Processor time used so far, user and system.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
}

/// A look at one thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadSample {
    /// Its number.
    pub tid: u32,
    /// Its name, as QEMU chose it (`CPU 0/KVM`), tamed.
    pub name: String,
    /// What the kernel says it does.
    pub state: ProcessState,
    /// Processor time used so far, user and system.
    pub cpu: Duration,
}

/// So many threads of a process are looked at.
const MAX_THREADS: usize = 256;

impl Process {
    /// Takes hold of a process that certainly is the one meant now: our own child, not yet waited for.
    ///
    /// # Errors
    /// As the kernel says; [`io::ErrorKind::NotFound`] if it cannot be read any more.
    pub fn hold(pid: u32) -> io::Result<Self> {
        let fd = rustix::process::pidfd_open(raw(pid)?, PidfdFlags::NONBLOCK)?;
        let start = Stat::read(&format!("/proc/{pid}/stat"))?.start;
        Ok(Self { id: ProcessId { pid, start, boot: boot_id()? }, fd: watch(fd)?, status: OnceLock::new() })
    }

    /// Looks for a process known from before.
    ///
    /// # Errors
    /// The kernel did not tell, so nobody knows.
    pub fn find(id: &ProcessId) -> io::Result<Presence> {
        if boot_id()? != id.boot {
            return Ok(Presence::Gone(Death::HostRebooted));
        }
        let gone = Ok(Presence::Gone(Death::NotFound { pid: id.pid }));
        let fd = match rustix::process::pidfd_open(raw(id.pid)?, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return gone,
            Err(error) => return Err(error.into()),
        };
        // The pidfd pins the process: if its start time is right now, it is right for ever.
        match Stat::read(&format!("/proc/{}/stat", id.pid)) {
            Ok(stat) if stat.start == id.start => {
                let process = Self { id: id.clone(), fd: watch(fd)?, status: OnceLock::new() };
                Ok(if process.has_exited()? {
                    Presence::Gone(Death::Exited { pid: id.pid, status: process.collect() })
                } else {
                    Presence::Here(process)
                })
            }
            Ok(_) => gone,
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone,
            Err(error) => Err(error),
        }
    }

    /// Who it is.
    #[must_use]
    pub const fn id(&self) -> &ProcessId {
        &self.id
    }

    /// Its number.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.id.pid
    }

    /// Waits until it has exited: all its threads are gone and its files closed.
    ///
    /// # Errors
    /// The kernel does not tell, so nobody knows.
    pub async fn exited(&self) -> io::Result<ExitStatus> {
        loop {
            let mut ready = self.fd.readable().await?;
            if self.has_exited()? {
                return Ok(self.collect());
            }
            ready.clear_ready();
        }
    }

    /// Whether it has exited.
    ///
    /// # Errors
    /// The kernel does not tell, so nobody knows.
    pub fn has_exited(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(fds[0].revents().contains(PollFlags::IN))
    }

    /// Sends a signal; to a process that has exited nothing happens.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends it and waits for its exit, at most `limit`. `None`: it has not exited (it may sit in
    /// uninterruptible sleep) and nobody knows when it will.
    ///
    /// # Errors
    /// The kernel refused or does not tell.
    pub async fn kill(&self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal(Signal::KILL)?;
        tokio::time::timeout(limit, self.exited()).await.ok().transpose()
    }

    /// Looks at it.
    ///
    /// # Errors
    /// It has exited and was collected, or the kernel does not tell.
    pub fn sample(&self) -> io::Result<Sample> {
        let stat = Stat::read(&format!("/proc/{}/stat", self.id.pid))?;
        if stat.start != self.id.start {
            return Err(io::ErrorKind::NotFound.into());
        }
        let page = rustix::param::page_size() as u64;
        Ok(Sample { state: stat.state, cpu: stat.cpu, rss: stat.pages.saturating_mul(page) })
    }

    /// Looks at its threads, in the order of their numbers.
    ///
    /// # Errors
    /// As for [`Process::sample`].
    pub fn threads(&self) -> io::Result<Vec<ThreadSample>> {
        let mut threads = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{}/task", self.id.pid))?.take(MAX_THREADS) {
            let path = entry?.path();
            let Some(tid) = path.file_name().and_then(|n| n.to_str()?.parse().ok()) else { continue };
            if let Ok(stat) = Stat::read(&path.join("stat").to_string_lossy()) {
                threads.push(ThreadSample { tid, name: stat.name, state: stat.state, cpu: stat.cpu });
            }
        }
        threads.sort_by_key(|thread| thread.tid);
        Ok(threads)
    }

    /// How it ended; if it was our child, it is collected so that it does not stay a zombie.
    fn collect(&self) -> ExitStatus {
        let ask = |options| rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options);
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(Some(status)) = ask(peek) {
            let status = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitStatus::Code(code),
                (None, Some(signal)) => ExitStatus::Signal(signal),
                (None, None) => ExitStatus::Unknown,
            };
            let status = *self.status.get_or_init(|| status);
            let _collected = ask(WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            return status;
        }
        // Collected by an earlier call, or never our child.
        self.status.get().copied().unwrap_or(ExitStatus::Unknown)
    }
}

#[expect(deprecated, reason = "sound here: an `OwnedFd` keeps the same descriptor open all its life")]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

fn raw(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The boot of this host, from the kernel. Another one means that all processes are others.
///
/// # Errors
/// The kernel does not tell.
pub fn boot_id() -> io::Result<String> {
    read_small("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// The processor time a process has used so far, user and system.
pub(super) fn processor_time(pid: u32) -> io::Result<Duration> {
    Stat::read(&format!("/proc/{pid}/stat")).map(|stat| stat.cpu)
}

/// Reads a small file of the kernel's.
pub(super) fn read_small(path: &str) -> io::Result<String> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(64 * 1024).read_to_end(&mut text)) {
        Ok(_) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            Err(io::ErrorKind::NotFound.into())
        }
        Err(error) => Err(error),
    }
}

/// What `/proc/PID/stat` says (`man 5 proc`).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: ProcessState,
    cpu: Duration,
    start: u64,
    pages: u64,
}

impl Stat {
    fn read(path: &str) -> io::Result<Self> {
        let text = read_small(path)?;
        Self::parse(&text, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an odd /proc/PID/stat"))
    }

    /// The name stands in brackets and may hold brackets and spaces itself, so the last one counts.
    fn parse(text: &str, ticks_a_second: u64) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let state = match fields.first()?.chars().next()? {
            'D' => ProcessState::DiskWait,
            'T' | 't' => ProcessState::Stopped,
            'Z' | 'X' | 'x' => ProcessState::Zombie,
            _ => ProcessState::Running,
        };
        let ticks = number(14)?.saturating_add(number(15)?);
        let cpu = Duration::from_micros(ticks.saturating_mul(1_000_000) / ticks_a_second.max(1));
        let name = super::untrusted::tame(name, 32);
        Some(Self { name, state, cpu, start: number(22)?, pages: number(24)? })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const LONG: Duration = Duration::from_secs(20); // only keeps a test from hanging

    #[expect(clippy::zombie_processes, reason = "collected through its pidfd")]
    fn sleeper() -> Process {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        Process::hold(child.id()).unwrap()
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let tail = " T 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 4 0 777 9 12 0";
        let stat = Stat::parse(&format!("42 (a) R (b)){tail}"), 100).unwrap();
        assert_eq!(stat.name, "a) R (b)");
        assert_eq!((stat.state, stat.start, stat.pages), (ProcessState::Stopped, 777, 12));
        assert_eq!(stat.cpu, Duration::from_secs(2));
        for odd in ["", "42", "42 (a", "42 (a) ", "42 (a) R 1 2", "()", ")("] {
            assert_eq!(Stat::parse(odd, 100), None, "{odd}");
        }
    }

    #[tokio::test]
    async fn a_killed_child_is_dead_with_its_signal_and_leaves_no_zombie() {
        let process = sleeper();
        assert!(!process.has_exited().unwrap());
        assert_eq!(process.kill(LONG).await.unwrap(), Some(ExitStatus::Signal(9)));
        assert!(process.has_exited().unwrap());
        assert_eq!(process.exited().await.unwrap(), ExitStatus::Signal(9));
        assert!(read_small(&format!("/proc/{}/stat", process.pid())).is_err());
        process.signal(Signal::KILL).unwrap(); // harmless
    }

    #[tokio::test]
    async fn a_process_known_from_before_is_found_and_another_with_its_number_is_not() {
        let known = sleeper().id().clone();
        let Presence::Here(process) = Process::find(&known).unwrap() else { panic!("not found") };
        let stranger = ProcessId { start: known.start - 1, ..known.clone() };
        let gone = |id: &ProcessId| match Process::find(id).unwrap() {
            Presence::Here(_) => None,
            Presence::Gone(death) => Some(death),
        };
        assert_eq!(gone(&stranger), Some(Death::NotFound { pid: known.pid }));
        let before = ProcessId { boot: "another".into(), ..known.clone() };
        assert_eq!(gone(&before), Some(Death::HostRebooted));
        process.kill(LONG).await.unwrap();
        assert_eq!(gone(&known), Some(Death::NotFound { pid: known.pid }));
    }

    #[tokio::test]
    async fn a_process_that_nobody_collected_is_dead_all_the_same() {
        let process = sleeper();
        process.signal(Signal::KILL).unwrap();
        while !process.has_exited().unwrap() {
            tokio::task::yield_now().await;
        }
        let found = Process::find(process.id()).unwrap();
        let (pid, status) = (process.pid(), ExitStatus::Signal(9));
        assert!(matches!(found, Presence::Gone(d) if d == Death::Exited { pid, status }));
    }

    #[tokio::test]
    async fn a_stopped_process_is_seen_as_stopped_and_can_be_killed() {
        let process = sleeper();
        assert_eq!(process.sample().unwrap().state, ProcessState::Running);
        process.signal(Signal::STOP).unwrap();
        while process.sample().unwrap().state != ProcessState::Stopped {
            tokio::task::yield_now().await;
        }
        assert!(!process.has_exited().unwrap());
        let threads = process.threads().unwrap();
        assert_eq!((threads.len(), threads[0].name.as_str()), (1, "sleep"));
        assert_eq!(process.kill(LONG).await.unwrap(), Some(ExitStatus::Signal(9)));
        assert!(process.sample().is_err());
    }

    #[tokio::test]
    async fn a_process_that_does_not_end_in_time_is_not_called_dead() {
        let process = sleeper();
        let waited = tokio::time::timeout(Duration::from_millis(50), process.exited()).await;
        assert!(waited.is_err());
        process.kill(LONG).await.unwrap();
    }
}
