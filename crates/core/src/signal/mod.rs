//! What was seen: one thing, at one time, about one subject, through one channel.
//!
//! A signal is a fact about an observation ("no answer for 2 s"), never a judgement ("down"). Silence
//! of the observer produces no signal at all, so it can never look like silence of the observed (I10).

mod words;

pub use words::{Finding, FindingKind, LogSign, Measure, NumberSign, Unusual};

use crate::lease::{DeathProof, ExitStatus, Incarnation};
use crate::subject::Subject;
use crate::time::{Duration, Timestamp};
use crate::written::Written;
use serde::{Deserialize, Serialize};

/// An independent way of seeing a VM. Evidence counts per channel: ten symptoms are one voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "DESIGN 2.1 explains each; the names are the documentation")]
pub enum Channel {
    Process,
    Hypervisor,
    Console,
    Agent,
    Application,
    Network,
    Logs,
    Host,
    Observer,
}

impl Channel {
    /// All channels, in the order they are shown.
    pub const ALL: [Self; 9] = [
        Self::Process,
        Self::Hypervisor,
        Self::Console,
        Self::Agent,
        Self::Application,
        Self::Network,
        Self::Logs,
        Self::Host,
        Self::Observer,
    ];

    /// The name on screen and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Hypervisor => "hypervisor",
            Self::Console => "console",
            Self::Agent => "agent",
            Self::Application => "application",
            Self::Network => "network",
            Self::Logs => "logs",
            Self::Host => "host",
            Self::Observer => "observer",
        }
    }
}

/// One thing seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// What it is about. For `Seen::Application` and the agent's view of a service: the application.
    pub subject: Subject,
    /// The incarnation that was seen; `None` for a host. An old one is ignored (I10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// When it was seen; never later than the step that takes it in.
    pub at: Timestamp,
    /// What was seen.
    pub seen: Seen,
}

/// What was seen, by channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// The VM's process on the host.
    Process(ProcessSign),
    /// The hypervisor's answers and events.
    Hypervisor(HypervisorSign),
    /// The guest's serial console.
    Console(ConsoleSign),
    /// The guest agent.
    Agent(AgentSign),
    /// An application probe.
    Application(AppSign),
    /// The way to the guest.
    Network(NetworkSign),
    /// What programs wrote, wherever it was read.
    Log(LogSign),
    /// A number that is not as usual.
    Number(NumberSign),
    /// How much an application has written, as it says itself.
    Written(Written),
    /// The host itself.
    Host(HostSign),
    /// Holdfast itself.
    Observer(ObserverSign),
}

impl Seen {
    /// The channel it came through.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Process(_) => Channel::Process,
            Self::Hypervisor(_) => Channel::Hypervisor,
            Self::Console(_) => Channel::Console,
            Self::Agent(_) => Channel::Agent,
            Self::Application(_) | Self::Written(_) => Channel::Application,
            Self::Network(_) => Channel::Network,
            Self::Log(_) => Channel::Logs,
            Self::Number(sign) => match sign.measure {
                Measure::Latency => Channel::Application,
                Measure::Other => Channel::Hypervisor,
            },
            Self::Host(_) => Channel::Host,
            Self::Observer(_) => Channel::Observer,
        }
    }
}

/// The VM's process, from `/proc` and its pidfd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessSign {
    /// It exists.
    Alive {
        /// What the kernel says it does.
        state: ProcessState,
        /// Processor time used so far, user and system.
        cpu: Duration,
        /// Resident memory in bytes.
        rss: u64,
    },
    /// It was seen to exit.
    Exited {
        /// The proof, which a restart needs.
        proof: DeathProof,
        /// How it ended.
        status: ExitStatus,
    },
}

/// What the kernel says a process does (`man 5 proc`, field 3 of `stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Running, or asleep until something happens (`R`, `S`, `I`).
    Running,
    /// Uninterruptible sleep, mostly storage (`D`).
    DiskWait,
    /// Stopped by a signal or a debugger (`T`, `t`).
    Stopped,
    /// Dead, not yet collected (`Z`, `X`).
    Zombie,
}

/// What the hypervisor answered or told unasked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HypervisorSign {
    /// It answered a question.
    Answered {
        /// The VM's run state.
        state: RunState,
        /// How long the answer took.
        latency: Duration,
    },
    /// It gave no answer.
    NoAnswer {
        /// How long this question waited.
        waited: Duration,
    },
    /// An event changed the run state.
    State(RunState),
    /// The guest kernel reported its panic (pvpanic).
    Panicked,
    /// The guest's virtual watchdog ran out.
    WatchdogFired,
    /// It found the image of a disk damaged, and does not use it any more.
    ImageCorrupt {
        /// The device, as the hypervisor names it; at most 64 characters.
        device: String,
        /// What is wrong with it, as the hypervisor says; at most 256 characters.
        text: String,
    },
    /// A disk request failed and the VM was stopped for it.
    IoError {
        /// The device, as the hypervisor names it; at most 64 characters.
        device: String,
        /// It was for want of space on the host.
        no_space: bool,
    },
    /// The machine was reset.
    Reset {
        /// By the guest itself (a reboot from inside), not by us.
        by_guest: bool,
    },
    /// The machine is powering down.
    Shutdown {
        /// By the guest itself.
        by_guest: bool,
    },
    /// What the devices have done so far.
    Counters(Counters),
}

/// The run state of a VM, from the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Made, not started.
    Prelaunch,
    /// Running.
    Running,
    /// Paused by somebody.
    Paused,
    /// Paused because a disk request failed.
    IoError,
    /// Stopped after the guest's panic.
    GuestPanicked,
    /// Stopped by the virtual watchdog.
    Watchdog,
    /// Powered down.
    Shutdown,
    /// Being saved, restored or migrated.
    Moving,
    /// The hypervisor itself failed.
    InternalError,
    /// Asleep (ACPI S3).
    Suspended,
    /// A state this version does not know.
    Other,
}

/// Running totals of a VM's devices; what matters is whether they move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Disk reads finished.
    pub reads: u64,
    /// Disk writes and flushes finished.
    pub writes: u64,
    /// Disk requests that failed.
    pub failed: u64,
    /// Guest memory that can still be given out, in bytes, where the balloon tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available: Option<u64>,
    /// Guest memory in all, in bytes, where the balloon tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
    /// Packets that the guest has sent, where its network card is an interface of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_sent: Option<u64>,
    /// Packets that were given to the guest, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets_received: Option<u64>,
}

/// What the serial console showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsoleSign {
    /// So many new lines.
    Lines(u32),
    /// A line that is known to be bad (or telling).
    Finding(Finding),
}

/// What the guest agent answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentSign {
    /// It answered.
    Answered {
        /// How long the answer took.
        latency: Duration,
    },
    /// It gave no answer.
    NoAnswer {
        /// How long this question waited.
        waited: Duration,
        /// Whether the guest has the agent's port open at all.
        port: AgentPort,
    },
    /// Whether its file systems are frozen.
    Frozen(bool),
    /// One of its file systems.
    FileSystem {
        /// Where it is mounted; at most 64 characters.
        mount: String,
        /// Bytes used.
        used: u64,
        /// Bytes in all.
        total: u64,
        /// It refuses writes.
        read_only: bool,
        /// What lies on it, as shown; at most 128 characters, empty if nobody knows.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        holds: String,
    },
    /// Memory of the guest.
    Memory {
        /// Bytes that can still be given out.
        available: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Whether its network card has a cable plugged in.
    Carrier {
        /// It has.
        up: bool,
    },
    /// How long its kernel has been up: a guest that booted while nobody looked says so.
    Uptime(Duration),
    /// What the guest's kernel says of the port of an application.
    Service {
        /// Something listens.
        listens: bool,
        /// Connections that nobody has accepted yet.
        waiting: u32,
        /// A number for each connection from elsewhere, made of its other end; none where there is none, or where
        /// not all of them are known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        peers: Vec<u32>,
    },
    /// What the configured check inside the guest says of an application.
    Check {
        /// It passed.
        passed: bool,
        /// What it printed, escaped, at most 256 characters.
        text: String,
    },
}

/// Whether the guest has opened the agent's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPort {
    /// Something inside the guest has it open.
    Open,
    /// Nothing has it open: the agent is not there (yet).
    Closed,
    /// The hypervisor does not tell, or somebody else is using the agent.
    Unknown,
}

/// What an application probe found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppSign {
    /// The right answer.
    Answered {
        /// How long it took.
        latency: Duration,
    },
    /// No right answer.
    Failed {
        /// In which way.
        how: ProbeFailure,
        /// What was said, escaped, at most 256 characters.
        text: String,
    },
}

/// In which way a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeFailure {
    /// Nobody listens: the connection was refused or closed before a byte came.
    Refused,
    /// Connected, but no answer in time.
    NoAnswer,
    /// Not even connected in time, or no route.
    Unreachable,
    /// It is starting and says so.
    Starting,
    /// It refused our name, password, certificate or database.
    Denied,
    /// It has no room for one more connection.
    Exhausted,
    /// It answered, but wrongly: an error, nonsense, a write that was not kept.
    Wrong,
    /// It took the question, and answered it with another value than was agreed, after it had given that.
    Mismatch,
    /// The probe itself could not run.
    Internal,
}

/// What was seen on the way to the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkSign {
    /// The guest's kernel answered.
    Answered {
        /// How long it took.
        latency: Duration,
    },
    /// It did not.
    NoAnswer {
        /// How long this question waited.
        waited: Duration,
    },
    /// The virtual cable.
    Link {
        /// Plugged in.
        up: bool,
    },
}

/// What was seen on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostSign {
    /// Pressure stall information over the last 10 s, in tenths of a percent (kernel document `psi`).
    Pressure {
        /// Share of time some task waited for a processor.
        cpu: u16,
        /// Share of time some task waited for memory.
        memory: u16,
        /// Share of time all tasks waited for storage.
        io: u16,
        /// Processor time stolen by a hypervisor above, in tenths of a percent.
        steal: u16,
    },
    /// Memory of the host in bytes.
    Memory {
        /// Bytes that can still be given out.
        available: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A file system that holds VM disks or our own state.
    Disk {
        /// Its path, as configured.
        path: String,
        /// Bytes free for us.
        free: u64,
        /// Bytes in all.
        total: u64,
        /// How long a small durable write took; `None` if it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        latency: Option<Duration>,
    },
    /// A telling line of the host's kernel.
    Kernel(Finding),
}

/// What Holdfast saw of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObserverSign {
    /// Its loop woke so much later than it had asked for.
    Lag(Duration),
    /// So many signals were dropped because a queue was full.
    Dropped(u32),
}
