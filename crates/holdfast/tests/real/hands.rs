//! What several of these tests do to a laboratory, and what they watch.

#![allow(dead_code, reason = "each group of tests uses its own part")]
#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::{Lab, SOON, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Waits between two looks that must see every state that lasts.
const LOOK: Duration = Duration::from_millis(200);

static ONE: Mutex<()> = Mutex::new(());

/// One at a time of those tests that load this machine, or starve what runs on it. Taken before the laboratory, so that it is
/// given back after it is gone.
pub fn turn() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All incidents of the VM `orders`, newest first. The host may be overloaded: it is, where many tests run.
pub fn own(lab: &Lab) -> Vec<Value> {
    lab.incidents().into_iter().filter(|incident| incident["vm"] == "orders").collect()
}

/// Which start of which process a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    pub pid: i32,
    pub incarnation: u64,
}

impl Start {
    pub fn of(lab: &Lab, vm: &str) -> Self {
        Self { pid: lab.pid(vm), incarnation: lab.incarnation(vm) }
    }
}

/// The start that runs, or `None` while none does.
pub fn start_of(lab: &Lab, vm: &str) -> Option<Start> {
    let vm = lab.vm(vm);
    let pid = i32::try_from(vm["pid"].as_i64()?).unwrap();
    Some(Start { pid, incarnation: vm["incarnation"].as_u64()? })
}

/// What is kept of a VM from this source of logs, from the oldest on.
pub fn kept(lab: &Lab, vm: &str, source: &str) -> Vec<Value> {
    let output = lab.cli(&["logs", vm, "--source", source, "--json", "-n", "2000"]);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Watches for a while that nothing is done about a VM: no remedy, the same process, the same start.
pub fn untouched_for(lab: &Lab, vm: &str, time: Duration, mut meanwhile: impl FnMut()) {
    let (before, remedies) = (Start::of(lab, vm), lab.remedies().len());
    let began = Instant::now();
    while began.elapsed() < time {
        meanwhile();
        assert_eq!(Start::of(lab, vm), before, "{}", lab.story());
        assert_eq!(lab.remedies().len(), remedies, "{}", lab.story());
        std::thread::sleep(LOOK);
    }
}

/// Waits until another start of the VM runs and everything is well.
pub fn wait_restarted(lab: &Lab, vm: &str, before: Start) {
    let limit = crate::lab::BOOT;
    let other = |lab: &Lab| start_of(lab, vm).is_some_and(|now| now.incarnation > before.incarnation);
    lab.until(limit, "another start of the VM runs", other);
    lab.wait_well(limit);
    assert_ne!(Start::of(lab, vm).pid, before.pid);
    assert!(!lives(before.pid), "the old one is gone");
}

/// Waits until the newest incident of that fault is closed; returns it.
pub fn closed(lab: &Lab, fault: &str) -> Value {
    lab.wait_closed(fault, crate::lab::BOOT)
}

/// The remedies of one incident, in order.
pub fn remedies_of(incident: &Value) -> Vec<&str> {
    let all = incident["remedies"].as_array().unwrap();
    all.iter().map(|remedy| remedy["name"].as_str().unwrap()).collect()
}

/// Asks the QEMU of a VM, on the socket that is there for people and scripts.
pub fn qmp(lab: &Lab, vm: &str, question: &str) -> Value {
    let socket = UnixStream::connect(lab.vm(vm)["qmp"].as_str().unwrap()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    (&socket).write_all(format!("{{\"execute\":\"qmp_capabilities\"}}\n{question}\n").as_bytes()).unwrap();
    let mut answers = BufReader::new(&socket).lines().map(|line| {
        let line = line.unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    });
    let mut answer =
        || answers.find(|said| said.get("return").is_some() || said.get("error").is_some()).unwrap();
    answer(); // to the capabilities
    let said = answer();
    assert!(said.get("error").is_none(), "{question}: {said}");
    said["return"].clone()
}

/// A command that must be taken.
pub fn told(lab: &Lab, words: &[&str]) {
    let mut said = String::new();
    lab.until(SOON, &words.join(" "), |lab| {
        let output = lab.cli(words);
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        let busy = said.contains("try again") || said.contains("under way");
        assert!(output.status.success() || busy, "{words:?}: {said}\n{}", lab.story());
        output.status.success()
    });
}

/// A process in a frozen control group (version 2), thawed with this value.
pub struct Frozen {
    pid: i32,
    home: PathBuf,
    group: PathBuf,
}

impl Frozen {
    pub fn new(pid: i32) -> Self {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.controllers").exists());
        let mount = mount.expect("control groups of version 2");
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let home = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("a group of its own");
        let frozen = Self {
            pid,
            home: mount.join(home),
            group: mount.join(format!("hf-frozen-{}", std::process::id())),
        };
        fs::create_dir(&frozen.group).unwrap();
        fs::write(frozen.group.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(frozen.group.join("cgroup.freeze"), "1").unwrap();
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.group.join("cgroup.freeze"), "0");
        let _ = fs::write(self.home.join("cgroup.procs"), self.pid.to_string());
        let _ = fs::remove_dir(&self.group);
    }
}

/// A child process that ends with this value.
pub struct Ends(pub Child);

impl Ends {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that burns one processor.
pub fn hog() -> Ends {
    Ends(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
}

/// A VM to which its host gives a tenth of a processor; what it wants more is stolen from it. With the end of this value
/// it has all it wants again.
pub enum Starved {
    /// Its own control group of version 2, limited.
    Limited(PathBuf),
    /// Moved to a limited control group of version 1, and home again.
    Moved { pid: i32, home: PathBuf, group: PathBuf },
    /// Where control groups have no processors to give: so many others want them that about as little is left.
    Crowded(Vec<Ends>),
}

impl Starved {
    pub fn new(pid: i32) -> Self {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        Self::limited(&groups).or_else(|| Self::moved(&groups, pid)).unwrap_or_else(Self::crowded)
    }

    fn limited(groups: &str) -> Option<Self> {
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let limit = Path::new("/sys/fs/cgroup").join(own).join("cpu.max");
        fs::write(&limit, "10000 100000").is_ok().then_some(Self::Limited(limit))
    }

    fn moved(groups: &str, pid: i32) -> Option<Self> {
        let (controllers, own) = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
            controllers.split(',').any(|one| one == "cpu").then_some((controllers, path))
        })?;
        let mount = Path::new("/sys/fs/cgroup").join(controllers);
        let (home, group) = (mount.join(own), mount.join(format!("hf-starved-{}", std::process::id())));
        fs::create_dir(&group).ok()?;
        let moved = Self::Moved { pid, home, group: group.clone() };
        let limited = fs::write(group.join("cpu.cfs_quota_us"), "10000");
        limited.and_then(|()| fs::write(group.join("cgroup.procs"), pid.to_string())).is_ok().then_some(moved)
    }

    fn crowded() -> Self {
        let processors = std::thread::available_parallelism().unwrap().get();
        Self::Crowded((0..processors * 8).map(|_| hog()).collect())
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        match self {
            Self::Limited(limit) => drop(fs::write(limit, "max 100000")),
            Self::Moved { pid, home, group } => {
                let _gone = fs::write(home.join("cgroup.procs"), pid.to_string());
                let began = Instant::now();
                while fs::remove_dir(&group).is_err() && began.elapsed() < SOON {
                    std::thread::sleep(LOOK);
                }
            }
            Self::Crowded(hogs) => hogs.clear(),
        }
    }
}

/// The processor time that a process has used.
pub fn processor_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

/// A stopped process that runs on when this is dropped.
pub struct Stopped(i32);

impl Stopped {
    pub fn new(pid: i32) -> Self {
        signal(pid, "STOP");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// Numbers that look random and are the same in each run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Holds on to a process, so that it can be told when it has really ended. `None`: there is none.
pub fn hold(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).ok()
}

/// Whether a process has ended: all its threads are gone and its files closed. A killed one is not there yet.
pub fn has_ended(process: &OwnedFd) -> bool {
    let mut look = [PollFd::new(process, PollFlags::IN)];
    poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    look[0].revents().contains(PollFlags::IN)
}

/// Whether a process is there and has not ended.
pub fn lives(pid: i32) -> bool {
    hold(pid).is_some_and(|process| !has_ended(&process))
}

/// The sockets that a process has open, by the numbers that the kernel's tables have.
pub fn sockets_of(pid: i32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let number = |file: PathBuf| Some(file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    files.filter_map(|file| number(fs::read_link(file.path()).ok()?)).collect()
}
