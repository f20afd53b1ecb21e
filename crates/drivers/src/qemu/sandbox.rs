//! A trial: a machine like the VM's boots a state of its disk, beside the VM, and harms nothing.
//!
//! It is not the VM: it has no lease and no run record, and none of its orders reaches it. What it boots from is only
//! read; all that it writes goes into an overlay that is removed with it. Its network leads nowhere, and only this host
//! reaches its ports. It gives way to others, and ends with whoever started it.

use super::account::Account;
use super::agent::Agent;
use super::bound::{self, Bound, program};
use super::image::Layer;
use super::launch::{self, Format, RunFolder, Start, Trial};
use super::machine::error_chain;
use super::qmp::Qmp;
use super::record::Port;
use super::sign::Status;
use super::snapshot::qcow2;
use super::spec::{Forward, Network, QemuVm};
use super::untrusted::tame;
use super::{make_folder, needs, process, start};
use holdfast_core::lease::{Incarnation, Token};
use holdfast_core::signal::RunState;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::FdFlags;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// What must stay free of the host's memory beside that of the trial.
const SPARE: u64 = 256 << 20;
/// Answers of its QEMU are waited for so long.
const ASIDE: Duration = Duration::from_secs(3);
/// So much of the end of its console is kept as evidence.
const CONSOLE_TAIL: u64 = 4_096;
/// Lines of that for people.
const LINES: usize = 40;
/// The first number of our questions to its agent.
const FIRST_QUESTION: u32 = 0x3d00_0000;

/// What is tried.
#[derive(Debug)]
pub struct Plan {
    /// The VM whose machine it is.
    pub vm: QemuVm,
    /// What it boots from.
    pub disk: Disk,
    /// An empty folder that is its own, and removed at its end.
    pub folder: PathBuf,
    /// The run folder of the driver: there it is remembered whether KVM runs guests.
    pub run_folder: PathBuf,
    /// Ports of the guest that this host is to reach.
    pub ports: Vec<u16>,
    /// How much it gives way to others, 0 to 19 (`man 1 nice`); with 19 also at the disk.
    pub nice: u32,
    /// The address that the guest has, if it asks nobody for one.
    pub address: Option<Ipv4Addr>,
}

/// What a trial boots from. It is never written to.
#[derive(Debug)]
pub enum Disk {
    /// Images that stand on each other, the top first.
    Files(Vec<Layer>),
    /// What is offered by NBD over a connection, and of how many bytes that is.
    Offered(OwnedFd, u64),
}

/// Why there is no trial.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The host has not the memory for it.
    #[error("the host has {free} MiB of memory left, and it needs {needed}")]
    Memory {
        /// What is free.
        free: u64,
        /// What is needed.
        needed: u64,
    },
    /// It cannot be made ready, or QEMU not be started.
    #[error("{0}")]
    NotReady(String),
}

/// A trial that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Sandbox {
    agent: Agent,
    ports: Vec<Port>,
    folder: PathBuf,
    run: RunFolder,
    process: Bound,
}

/// Whether a QEMU that has ended says that it may not read what it was to boot from, as somebody writes to that.
#[must_use]
pub fn was_locked_out(said: &str) -> bool {
    said.contains("Is another process using the image")
}

impl Sandbox {
    /// Starts one. It waits for the disk and for QEMU's process, not for the guest.
    ///
    /// # Errors
    /// Every [`SandboxError`]; then nothing of it is left but its folder.
    pub fn start(plan: Plan) -> Result<Self, SandboxError> {
        let ready = Ready::of(&plan)?;
        let words = ready.words(&plan);
        let (run, ports) = (ready.run.clone(), ready.ports.clone());
        let launch = move || ready.launch(&plan.vm, &words, plan.disk, plan.nice);
        let failed = |why| SandboxError::NotReady(format!("QEMU does not start: {why}"));
        let process = Bound::start("trial", launch).map_err(failed)?;
        let agent = Agent::new(run.agent(), FIRST_QUESTION);
        Ok(Self { agent, ports, folder: plan.folder, run, process })
    }

    /// Its guest agent.
    #[must_use]
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Its process.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where ports of the guest are reached from this host.
    #[must_use]
    pub fn ports(&self) -> Vec<(u16, SocketAddr)> {
        self.ports.iter().map(|port| (port.guest, port.listen)).collect()
    }

    /// Waits until QEMU is gone without our doing; what it said last, and the signal that ended it, if one did.
    pub async fn ended(&self) -> (String, Option<i32>) {
        let gone = self.process.gone().await;
        (start::last_words(&self.run), gone.signal)
    }

    /// Whether the guest has given up, or cannot go on, as far as QEMU tells: in words.
    pub async fn stuck(&self) -> Option<&'static str> {
        let (qmp, _events) = Qmp::connect(&self.run.control(), ASIDE).await.ok()?;
        let state = qmp.call::<Status>("query-status", Value::Null, ASIDE).await.ok()?.state();
        if state == RunState::IoError {
            return Some("what it boots from cannot be read");
        }
        (state == RunState::GuestPanicked).then_some("its kernel panicked")
    }

    /// The last lines of its console, tamed.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        let tail = tail(&self.run.console()).unwrap_or_default();
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| tame(line.trim(), 200)).collect()
    }

    /// Ends it, and removes all that it wrote.
    ///
    /// # Errors
    /// Its folder is still there.
    pub async fn end(self) -> io::Result<()> {
        self.process.end();
        self.process.gone().await;
        std::fs::remove_dir_all(&self.folder)
    }
}

/// What a start needs, found out before there is a process.
struct Ready {
    run: RunFolder,
    disk: Vec<Layer>,
    engine: launch::Engine,
    account: Option<Account>,
    ports: Vec<Port>,
}

impl Ready {
    fn of(plan: &Plan) -> Result<Self, SandboxError> {
        has_memory(plan.vm.memory)?;
        needs::files_there(&plan.vm).map_err(SandboxError::NotReady)?;
        let told =
            |what: &'static str| move |e: io::Error| SandboxError::NotReady(format!("cannot {what}: {e}"));
        let run = RunFolder::of(&plan.folder, &plan.vm.name);
        let made = make_folder(&plan.folder, 0o711).and_then(|()| make_folder(run.path(), 0o711));
        made.map_err(|error| SandboxError::NotReady(error_chain(&error)))?;
        std::fs::create_dir_all(run.inner()).map_err(told("make its folder"))?;
        let engine = start::settle(&plan.vm, &plan.run_folder).map_err(SandboxError::NotReady)?;
        let mut disk =
            vec![Layer { path: run.inner().join("overlay"), format: Format::Qcow2, is_offered: false }];
        if let Disk::Files(files) = &plan.disk {
            disk.extend(files.iter().cloned());
        }
        let spec = without_tap(&plan.vm, &plan.ports);
        let account = start::account_for(&spec, &run, &disk, engine).map_err(SandboxError::NotReady)?;
        start::make_ready(&run, account.as_ref()).map_err(told("make its folder"))?;
        let size = size_of(&plan.disk).map_err(told("read what it boots from"))?;
        make_overlay(&disk[0].path, size, account.as_ref()).map_err(told("make its overlay"))?;
        let ports = start::choose_ports(&spec.network, &[]).map_err(told("find a free port"))?;
        Ok(Self { run, disk, engine, account, ports })
    }

    fn words(&self, plan: &Plan) -> Vec<String> {
        let below = match &plan.disk {
            Disk::Files(_) => None,
            Disk::Offered(connection, _) => Some(connection.as_raw_fd()),
        };
        let forwards: Vec<Forward> = self.ports.iter().copied().map(Forward::from).collect();
        launch::arguments(&Start {
            vm: &plan.vm,
            folder: &self.run,
            disk: &self.disk,
            engine: self.engine,
            forwards: &forwards,
            incarnation: Incarnation::NONE,
            token: Token(0),
            incoming: false,
            trial: Some(&Trial { below, address: plan.address }),
        })
    }

    /// Starts QEMU. The connection is its own from then on.
    fn launch(&self, vm: &QemuVm, words: &[String], disk: Disk, nice: u32) -> io::Result<Child> {
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(self.run.log())?;
        let mut command = bound::command("")?;
        command.arg(program("nice", "coreutils")?).args(["-n", nice.to_string().as_str()]);
        let class = if nice == 19 { "3" } else { "2" };
        command.arg(program("ionice", "util-linux")?).args(["-c", class, "-t"]);
        command.arg(vm.program()?).args(words).current_dir(self.run.inner());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(account) = &self.account {
            use std::os::unix::process::CommandExt;
            command.uid(account.uid).gid(account.gid);
        }
        if let Disk::Offered(connection, _) = &disk {
            rustix::io::fcntl_setfd(connection, FdFlags::empty())?;
        }
        let child = command.spawn()?;
        spare_last(child.id());
        Ok(child)
    }
}

/// The VM as far as rights and ports go: a tap interface is not needed.
fn without_tap(vm: &QemuVm, ports: &[u16]) -> QemuVm {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let forwards = || ports.iter().map(|&guest| Forward { listen, guest }).collect();
    let is_wired = vm.network != Network::None;
    QemuVm { network: if is_wired { Network::User(forwards()) } else { Network::None }, ..vm.clone() }
}

fn size_of(disk: &Disk) -> io::Result<u64> {
    match disk {
        Disk::Offered(_, size) => Ok(*size),
        Disk::Files(files) => {
            let top = files.first().ok_or_else(|| io::Error::other("there is no image"))?;
            qcow2::virtual_size(&top.path, top.format)
        }
    }
}

fn make_overlay(path: &Path, size: u64, account: Option<&Account>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    qcow2::write_empty(&mut file, size)?; // what it stands on is named on the command line
    account.map_or(Ok(()), |account| fchown(&file, Some(account.uid), Some(account.gid)))
}

fn has_memory(wanted: u64) -> Result<(), SandboxError> {
    let known = process::read_small("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let (free, needed) = (known.map_or(u64::MAX, |kib| kib >> 10), (wanted + SPARE) >> 20);
    if free >= needed { Ok(()) } else { Err(SandboxError::Memory { free, needed }) }
}

/// Where memory is short, a trial is the first to go.
fn spare_last(pid: u32) {
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "900") {
        tracing::debug!(%error, "a trial is spared as we are where memory is short");
    }
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let nofollow = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let mut file: File = OpenOptions::new().read(true).custom_flags(nofollow).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_TAIL).read_to_end(&mut bytes)?;
    Ok(bytes)
}
