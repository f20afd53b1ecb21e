//! The kinds of evidence: the columns of the fault catalogue.

use crate::signal::Channel;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $channel:ident, $healthy:expr;)*) => {
        /// What can be stated about a VM. Each kind has its channel and the probability of seeing it, at
        /// full strength, on a VM that is healthy: estimates from the fault model, refined by `learn` later.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// All kinds, in the order of the channels.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The channel it speaks through. Of what a channel says about one thing only the strongest counts.
            #[must_use]
            pub const fn channel(self) -> Channel {
                match self { $(Self::$name => Channel::$channel,)* }
            }

            /// The probability of this statement on a healthy VM.
            #[must_use]
            pub const fn if_healthy(self) -> f64 {
                match self { $(Self::$name => $healthy,)* }
            }
        }
    };
}

kinds! {
    /// The VM's process exited.
    ProcessExited: Process, 1e-6;
    /// A start was refused or ended at once.
    StartFailed: Process, 1e-6;
    /// A start was refused, as a file of the disk is not there any more.
    DiskGone: Process, 1e-9;
    /// The process is stopped by a signal.
    ProcessStopped: Process, 1e-5;
    /// The process waits for storage and cannot be interrupted.
    ProcessStuck: Process, 0.01;
    /// The process runs.
    ProcessRuns: Process, 0.999;

    /// The hypervisor gives no answer.
    HypervisorSilent: Hypervisor, 1e-4;
    /// The hypervisor answers and says the VM runs.
    HypervisorAnswers: Hypervisor, 0.999;
    /// The guest kernel reported its panic.
    PanicReported: Hypervisor, 1e-6;
    /// The guest's virtual watchdog ran out.
    WatchdogFired: Hypervisor, 1e-4;
    /// The VM is paused because a disk request failed.
    PausedIo: Hypervisor, 1e-6;
    /// The hypervisor itself failed.
    InternalError: Hypervisor, 1e-7;
    /// The guest reset itself again and again without ever being healthy.
    ResetsAgain: Hypervisor, 1e-7;
    /// The hypervisor found the image of a disk damaged.
    ImageCorrupt: Hypervisor, 1e-8;
    /// A number of the VM is not as usual.
    NumbersUnusual: Hypervisor, 0.02;
    /// The disk moves.
    DiskBusy: Hypervisor, 0.5;
    /// The disk does not move.
    DiskIdle: Hypervisor, 0.5;

    /// The console shows a kernel panic.
    ConsolePanic: Console, 1e-5;
    /// The console shows that the kernel killed a process for want of memory.
    ConsoleOutOfMemory: Console, 1e-3;
    /// The console shows a file system going read-only.
    ConsoleReadOnly: Console, 1e-5;
    /// The console shows a full disk.
    ConsoleDiskFull: Console, 1e-4;
    /// The console shows failing disk requests.
    ConsoleIoError: Console, 1e-3;
    /// The console shows tasks that do not move.
    ConsoleHungTask: Console, 1e-3;
    /// The console says that there is no root file system or no init.
    ConsoleRootLost: Console, 1e-6;
    /// The console shows that a database gave up.
    ConsoleAppPanic: Console, 1e-3;

    /// The guest agent does not answer.
    AgentSilent: Agent, 1e-4;
    /// Nothing in the guest has the agent's port open.
    AgentAway: Agent, 1e-3;
    /// The guest agent answers.
    AgentAnswers: Agent, 0.99;
    /// The guest's file systems have room and take writes.
    FsFine: Agent, 0.97;
    /// A file system of the guest fills up, and will be full soon.
    FsFilling: Agent, 1e-5;
    /// The memory of the guest fills up, and will be gone soon.
    MemoryFilling: Agent, 1e-5;
    /// A file system of the guest is full.
    FsFull: Agent, 1e-5;
    /// A file system of the guest says that it is full, and is damaged or refuses writes: its count is in doubt.
    FsInDoubt: Agent, 1e-5;
    /// The guest's root file system refuses writes.
    FsReadOnly: Agent, 1e-5;
    /// The guest has next to no memory left.
    MemoryLow: Agent, 0.01;
    /// The guest has plenty of memory left.
    MemoryFine: Agent, 0.9;
    /// The guest's kernel says that nobody listens on the application's port.
    NobodyListens: Agent, 1e-4;
    /// The guest's kernel says that connections wait and nobody takes them.
    QueueGrows: Agent, 1e-4;
    /// We ask all the time, and the guest's kernel says that nobody new has come to the application's port.
    NobodyArrives: Agent, 1e-6;
    /// The guest's kernel says that somebody listens and takes connections.
    ServiceListens: Agent, 0.99;
    /// The check inside the guest fails.
    CheckFailed: Agent, 1e-3;
    /// The check inside the guest passes.
    CheckPassed: Agent, 0.99;
    /// The guest agent answers, and for long nothing has reached the guest over its network.
    NetworkAway: Agent, 1e-4;

    /// Nobody takes the connection.
    AppRefused: Application, 1e-4;
    /// The connection is taken, and no answer comes.
    AppMute: Application, 1e-4;
    /// Not even a connection in time.
    AppUnreachable: Application, 1e-4;
    /// It refuses our credentials.
    AppDenied: Application, 1e-5;
    /// It has no room for one more connection.
    AppExhausted: Application, 3e-5;
    /// It answers wrongly.
    AppWrong: Application, 1e-5;
    /// It answers another value than was agreed, and than it answered before.
    AppMismatch: Application, 1e-6;
    /// It says that it is starting.
    AppStarting: Application, 1e-2;
    /// The probe itself cannot run.
    ProbeFailed: Application, 1e-6;
    /// The guest should have been up long ago.
    BootOverdue: Application, 1e-5;
    /// It answers, and takes far longer for it than it used to.
    AppSlow: Application, 1e-5;
    /// It answers.
    AppAnswers: Application, 0.999;
    /// Another application of the same guest answers.
    NeighbourAnswers: Application, 0.99;

    /// The virtual cable is unplugged.
    LinkDown: Network, 1e-5;
    /// The guest's kernel does not answer on the network.
    NetworkSilent: Network, 1e-3;
    /// The guest's kernel answers on the network.
    NetworkAnswers: Network, 0.99;

    /// A database says that it takes no more connections.
    LogNoConnectionLeft: Logs, 1e-4;
    /// A database says that data are not what was written.
    LogDataCorrupt: Logs, 1e-7;
    /// A database says that a copy of its data is no longer kept up to date.
    LogReplicationBroken: Logs, 1e-6;
    /// A database says that sessions wait for each other.
    LogLocksPileUp: Logs, 1e-6;
    /// A database gave up again and again.
    LogCrashLoop: Logs, 1e-6;
    /// The hypervisor's log says that the image of a disk is damaged.
    LogImageCorrupt: Logs, 1e-7;
    /// The guest says that a disk of its own is gone, slow or failing.
    LogStorageTrouble: Logs, 0.01;
    /// The guest says that a network card or link of its own is down.
    LogLinkDown: Logs, 0.01;
    /// The guest says that memory is short.
    LogMemoryShort: Logs, 0.01;
    /// The guest says that a disk is nearly full.
    LogSpaceShort: Logs, 0.01;
    /// The guest says that the application's service failed.
    LogServiceFailed: Logs, 0.01;
    /// A log is not as usual, in a way that no rule knows.
    LogUnusual: Logs, 0.05;

    /// The host is under pressure.
    HostPressed: Host, 0.02;
    /// The host is under no pressure.
    HostCalm: Host, 0.98;
    /// The host's disk is full.
    HostDiskFull: Host, 1e-4;
    /// The host's kernel tells of disk requests that failed.
    HostDiskErrors: Host, 5e-3;
    /// The host's kernel has killed a process for want of memory.
    HostOutOfMemory: Host, 5e-3;
    /// The host has next to no memory left.
    HostMemoryLow: Host, 0.01;
    /// A disk of the host fills up, and will be full soon.
    HostDiskFilling: Host, 1e-5;
    /// A disk of the host takes long for a small write, or its kernel says that it does.
    HostStorageSlow: Host, 1e-3;
    /// A disk of the host takes no write though it has room, or its kernel says that it is gone.
    HostStorageLost: Host, 1e-5;
    /// The host's kernel tells of failing memory, processors, buses or disks.
    HostHardwareFails: Host, 1e-5;
    /// The host's kernel says that a network card or link is down.
    HostLinkLost: Host, 1e-4;

    /// Our own loop runs late.
    ObserverLags: Observer, 0.02;
    /// Our own loop is on time.
    ObserverOnTime: Observer, 0.98;
    /// The newest restore point that is made by schedule is too old.
    PointsStale: Observer, 1e-6;
}

/// What a statement is about. Of what one channel says about one thing only the strongest counts; the guest
/// agent speaks of several things, which can be wrong each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The one thing that its channel is about.
    Itself,
    /// The file systems of the guest, or the disks of the host.
    Disks,
    /// The memory of the guest, or of the host.
    Memory,
    /// One application, seen from inside.
    Service,
    /// The guest's network.
    Network,
}

impl Kind {
    /// What it is about.
    #[must_use]
    pub const fn topic(self) -> Topic {
        if matches!(self, Self::FsFine | Self::FsFull | Self::FsInDoubt | Self::FsReadOnly)
            || matches!(self, Self::FsFilling | Self::HostDiskFilling | Self::HostDiskErrors)
            || matches!(self, Self::HostStorageSlow | Self::HostStorageLost | Self::HostDiskFull)
        {
            Topic::Disks
        } else if matches!(self, Self::MemoryLow | Self::MemoryFine | Self::MemoryFilling)
            || matches!(self, Self::HostOutOfMemory | Self::HostMemoryLow)
        {
            Topic::Memory
        } else if matches!(self, Self::NobodyListens | Self::QueueGrows | Self::ServiceListens)
            || matches!(self, Self::CheckFailed | Self::CheckPassed)
        {
            Topic::Service
        } else if matches!(self, Self::NetworkAway | Self::NobodyArrives | Self::HostLinkLost) {
            Topic::Network
        } else {
            Topic::Itself
        }
    }

    /// Whether this sign alone settles the matter (I10): seen with certainty, not inferred from silence.
    #[must_use]
    pub const fn is_conclusive(self) -> bool {
        matches!(
            self,
            Self::ProcessExited
                | Self::StartFailed
                | Self::DiskGone
                | Self::PanicReported
                | Self::PausedIo
                | Self::InternalError
                | Self::ImageCorrupt
                | Self::ConsoleRootLost
                | Self::LinkDown
                | Self::ResetsAgain
        )
    }

    /// Whether it tells of what is to come: it makes a fault suspected, and never more than that.
    #[must_use]
    pub const fn is_forecast(self) -> bool {
        matches!(self, Self::FsFilling | Self::MemoryFilling | Self::HostDiskFilling)
    }

    /// Whether it says that an application does not serve its users.
    #[must_use]
    pub const fn is_outage(self) -> bool {
        matches!(
            self,
            Self::AppRefused
                | Self::AppMute
                | Self::AppUnreachable
                | Self::AppDenied
                | Self::AppExhausted
                | Self::AppWrong
                | Self::AppMismatch
                | Self::AppStarting
                | Self::ProbeFailed
                | Self::BootOverdue
        )
    }

    /// Whether it is good news.
    #[must_use]
    pub const fn is_sign_of_life(self) -> bool {
        self.if_healthy() >= 0.4
    }
}
