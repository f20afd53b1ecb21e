//! The one small trait behind which every hypervisor stands.
//!
//! A driver sees and does; it never decides. It tells what it saw as core signals without a time (the
//! program stamps them), and it refuses whatever names an old incarnation or token (I3).

use crate::snapshots::Snapshots;
use async_trait::async_trait;
use holdfast_core::action::{Fact, Found, Order};
use holdfast_core::lease::{Incarnation, Lease, Token};
use holdfast_core::policy::Ability;
use holdfast_core::signal::Seen;
use holdfast_core::subject::{AppName, VmName};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The adapter to one hypervisor.
#[async_trait]
pub trait Driver: Send + Sync {
    /// What this hypervisor can do for this VM. A plan never asks for more.
    fn abilities(&self, vm: &VmName) -> BTreeSet<Ability>;

    /// Where people and scripts find the VM.
    fn places(&self, vm: &VmName) -> Places;

    /// Looks whether the VM runs, from the process table and the run record, never from silence.
    /// `lease` in the answer stays `None`: the lease store knows it.
    async fn inspect(&self, vm: &VmName) -> Result<Found, DriverError>;

    /// Carries out one order within `limit`. Repeating it must be harmless. Orders about leases and
    /// inspections are not for drivers and are refused.
    ///
    /// # Errors
    /// [`DriverError::Unknown`] and [`DriverError::Late`] mean that nobody knows whether it was done;
    /// every other error means that it was certainly not done.
    async fn perform(&self, vm: &VmName, order: &Order, limit: Duration) -> Result<Fact, DriverError>;

    /// One look at the process and the hypervisor's own answers, within `limit` each.
    async fn poll(&self, vm: &VmName, limit: Duration) -> Vec<Glimpse>;

    /// Asks the guest agent. Silence within `limit` is an answer (`AgentSign::NoAnswer`).
    async fn ask(&self, vm: &VmName, question: &Question, limit: Duration) -> Vec<Glimpse>;

    /// Reads something inside the guest through its agent, with no haste: never while the agent is silent, and
    /// never so that a question or an order has to wait for long.
    ///
    /// # Errors
    /// [`DriverError::Blocked`]: not now, for somebody else needs the agent or it is silent.
    /// [`DriverError::Refused`]: the guest would or could not.
    async fn read(&self, vm: &VmName, what: &GuestRead, limit: Duration) -> Result<Piece, DriverError>;

    /// The next thing a hypervisor told unasked, or a process that was seen to exit. Waits.
    async fn next_event(&self) -> Glimpse;

    /// Whether a VM that runs would be started again once it has ended, asked before a person has it end.
    ///
    /// # Errors
    /// [`DriverError::Refused`] with the reason.
    async fn may_restart(&self, _vm: &VmName) -> Result<(), DriverError> {
        Ok(())
    }

    /// A start under this lease was refused before it came here, or never came: it is used up, and whoever looks next finds that
    /// incarnation dead, unless it runs. Harmless for one that was used up or started before.
    ///
    /// # Errors
    /// [`DriverError`]: it is not; then the lease may be taken once more.
    async fn refuse_start(&self, vm: &VmName, lease: &Lease, limit: Duration) -> Result<(), DriverError>;

    /// Whether all is there that its start needs besides its disk, asked before it is ended to be started with another disk.
    ///
    /// # Errors
    /// [`DriverError::Refused`] with the reason.
    async fn may_start(&self, _vm: &VmName) -> Result<(), DriverError> {
        Ok(())
    }

    /// Its snapshots, if it can take any.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// Injects a real fault, for drills; `undo` takes it back where it can be taken back.
    ///
    /// # Errors
    /// [`DriverError::Unable`] if this driver cannot, others as for [`Driver::perform`].
    async fn inject(&self, vm: &VmName, fault: &Injection) -> Result<(), DriverError>;
}

/// Something seen, without a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Glimpse {
    /// Of this VM.
    pub vm: VmName,
    /// Of this incarnation.
    pub incarnation: Incarnation,
    /// Of this application, if it is about one.
    pub app: Option<AppName>,
    /// What.
    pub seen: Seen,
}

/// Where people and scripts find a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// A control socket free for people and scripts (Holdfast has its own).
    pub qmp: Option<PathBuf>,
    /// The file its serial console goes to.
    pub console: Option<PathBuf>,
    /// The guest agent's socket.
    pub agent: Option<PathBuf>,
    /// What the hypervisor itself says of it.
    pub log: Option<PathBuf>,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// Which start of it that is.
    pub incarnation: Option<Incarnation>,
    /// Where a port of the guest is reached from this host.
    pub ports: Vec<(u16, SocketAddr)>,
    /// Why its hypervisor cannot be asked for as long as the VM runs, if that is so, for people.
    pub cut_off: Option<String>,
}

/// What is read inside a guest. Paths and commands come from the configuration or from ourselves, never from a
/// guest (I17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestRead {
    /// What a command prints, run to its end; at most 64 KiB of it.
    Command(Vec<String>),
    /// A piece of a file.
    File {
        /// Which.
        path: String,
        /// From this byte on.
        offset: u64,
        /// At most so many bytes.
        most: usize,
    },
}

/// What was read inside a guest: its own words, of which nothing is true for sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which start of the VM it is from.
    pub incarnation: Incarnation,
    /// The bytes of the file, or what the command printed: output, then errors.
    pub bytes: Vec<u8>,
    /// How long the file is.
    pub size: Option<u64>,
    /// The exit code of the command.
    pub code: Option<i64>,
}

/// A question to the guest agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Are you there?
    Ping,
    /// Are your file systems frozen, and how full are they?
    Disks,
    /// How much memory is left, and has your network card a cable?
    Health,
    /// Does something listen on these ports of yours, and do connections wait there? One answer an
    /// application.
    Services(Vec<(AppName, u16)>),
    /// Run this configured check of an application; exit status 0 is a pass.
    Check(AppName, Vec<String>),
}

/// A real fault, for drills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Injection {
    /// SIGKILL to the VM's process.
    Kill,
    /// SIGSTOP to the VM's process.
    Stop,
    /// SIGCONT to the VM's process.
    Unstop,
    /// Every disk write fails, from now on (`true`) or no longer (`false`).
    DiskError(bool),
    /// The disk does only so many operations a second; `None` takes it back.
    DiskSlow(Option<u32>),
    /// The virtual cables are unplugged (`true`) or plugged in.
    LinkDown(bool),
    /// Run this script of ours in the guest through the agent to its end. If it does not succeed, what it
    /// printed is the reason of a refusal.
    Check(String),
    /// Begin this script of ours in the guest through the agent, which may not survive it: its silence is
    /// consent.
    Script(String),
}

/// Why a driver did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The VM is not one of this driver's.
    #[error("vm `{0}` is not known to this driver")]
    NoSuchVm(VmName),
    /// The VM does not run.
    #[error("vm `{0}` does not run")]
    NotRunning(VmName),
    /// The order is older than what was already seen (I3).
    #[error("refused an old order for vm `{vm}`: it names {named:?}, the newest seen is {newest:?}")]
    Stale {
        /// The VM.
        vm: VmName,
        /// What the order named.
        named: (Incarnation, Token),
        /// The newest seen.
        newest: (Incarnation, Token),
    },
    /// This driver cannot do that.
    #[error("this driver cannot {0}")]
    Unable(&'static str),
    /// It was refused, and certainly not done.
    #[error("cannot {what} vm `{vm}`: {why}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Of which VM.
        vm: VmName,
        /// Why not, for people, with the way out where there is one.
        why: String,
    },
    /// Somebody else has what it needs. It was certainly not done, and can be done once that is free.
    #[error("cannot {what} vm `{vm}`: {why}")]
    Blocked {
        /// What was asked.
        what: &'static str,
        /// Of which VM.
        vm: VmName,
        /// Who has what, for people.
        why: String,
    },
    /// Its hypervisor cannot be asked for as long as the VM runs. It was certainly not done.
    #[error("cannot {what} vm `{vm}`: {why}")]
    CutOff {
        /// What was asked.
        what: &'static str,
        /// Of which VM.
        vm: VmName,
        /// What is gone, for people.
        why: String,
    },
    /// A file of its disk is not there any more, on the file system where it was opened last. It was not started.
    #[error("cannot start vm `{vm}`: {why}")]
    DiskGone {
        /// Which VM.
        vm: VmName,
        /// What is not there, for people.
        why: String,
    },
    /// No answer in time: nobody knows whether it was done.
    #[error("{what} of vm `{vm}` did not end within {limit:?}")]
    Late {
        /// What was asked.
        what: &'static str,
        /// Of which VM.
        vm: VmName,
        /// How long was waited.
        limit: Duration,
    },
    /// Nobody knows whether it was done.
    #[error("cannot tell whether {what} of vm `{vm}` was done: {why}")]
    Unknown {
        /// What was asked.
        what: &'static str,
        /// Of which VM.
        vm: VmName,
        /// What went wrong.
        why: String,
    },
    /// A file or socket failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// What was asked where a guest is not frozen, as it has no agent, or one that cannot: nothing was done yet.
pub const FREEZE: &str = "freeze the file systems of";

impl DriverError {
    /// Whether the order may have been carried out all the same (I9).
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Late { .. } | Self::Unknown { .. })
    }
}
