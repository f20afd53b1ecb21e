//! Which numbers a signal holds.

use holdfast_core::signal::{
    AgentSign, AppSign, Counters, HostSign, HypervisorSign, ObserverSign, ProcessSign, Seen, Signal,
};
use holdfast_core::subject::Subject;
use std::fmt;
use std::time::Duration;

/// A series: what of whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Of whom.
    pub subject: Subject,
    /// What.
    pub what: What,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Latency,
    HypervisorLatency,
    AgentLatency,
    Processor,
    Resident,
    Reads,
    Writes,
    PacketsSent,
    PacketsReceived,
    MemoryAvailable,
    /// Of the root.
    DiskUsed,
    /// Of the file system that is mounted there.
    DiskUsedAt(String),
    PressureProcessor,
    PressureMemory,
    PressureStorage,
    Steal,
    HostMemoryAvailable,
    /// Of this folder.
    WriteLatency(String),
    /// Of this folder.
    DiskFree(String),
    Lag,
    /// What a user defined, by its name.
    Own(String),
}

/// In what it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Bytes,
    /// A part of one.
    Share,
    PerSecond,
    /// Whatever a user says.
    Own,
}

impl Unit {
    /// As it stands in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Bytes => "B",
            Self::Share => "share",
            Self::PerSecond => "1/s",
            Self::Own => "",
        }
    }
}

impl What {
    /// In what it is measured.
    pub const fn unit(&self) -> Unit {
        match self {
            Self::Latency
            | Self::HypervisorLatency
            | Self::AgentLatency
            | Self::WriteLatency(_)
            | Self::Lag => Unit::Seconds,
            Self::Resident
            | Self::MemoryAvailable
            | Self::DiskUsed
            | Self::DiskUsedAt(_)
            | Self::HostMemoryAvailable
            | Self::DiskFree(_) => Unit::Bytes,
            Self::Processor
            | Self::PressureProcessor
            | Self::PressureMemory
            | Self::PressureStorage
            | Self::Steal => Unit::Share,
            Self::Reads | Self::Writes | Self::PacketsSent | Self::PacketsReceived => Unit::PerSecond,
            Self::Own(_) => Unit::Own,
        }
    }

    /// As it stands in files and addresses; it is never another's.
    pub fn key(&self) -> String {
        match self {
            Self::WriteLatency(path) => format!("write-latency:{path}"),
            Self::DiskFree(path) => format!("disk-free:{path}"),
            Self::DiskUsedAt(mount) => format!("disk-used:{mount}"),
            Self::Own(name) => format!("number:{name}"),
            Self::Latency => "latency".into(),
            Self::HypervisorLatency => "hypervisor-latency".into(),
            Self::AgentLatency => "agent-latency".into(),
            Self::Processor => "processor".into(),
            Self::Resident => "resident".into(),
            Self::Reads => "reads".into(),
            Self::Writes => "writes".into(),
            Self::PacketsSent => "packets-sent".into(),
            Self::PacketsReceived => "packets-received".into(),
            Self::MemoryAvailable => "memory-available".into(),
            Self::DiskUsed => "disk-used".into(),
            Self::PressureProcessor => "pressure-processor".into(),
            Self::PressureMemory => "pressure-memory".into(),
            Self::PressureStorage => "pressure-storage".into(),
            Self::Steal => "steal".into(),
            Self::HostMemoryAvailable => "memory".into(),
            Self::Lag => "lag".into(),
        }
    }

    /// What such a key stands for.
    pub fn of_key(key: &str) -> Option<Self> {
        match key.split_once(':') {
            Some(("write-latency", path)) => Some(Self::WriteLatency(path.to_owned())),
            Some(("disk-free", path)) => Some(Self::DiskFree(path.to_owned())),
            Some(("disk-used", mount)) => Some(Self::DiskUsedAt(mount.to_owned())),
            Some(("number", name)) => Some(Self::Own(name.to_owned())),
            Some(_) => None,
            None => PLAIN.iter().find(|what| what.key() == key).cloned(),
        }
    }
}

/// Those that are of their subject alone.
const PLAIN: [What; 17] = [
    What::Latency,
    What::HypervisorLatency,
    What::AgentLatency,
    What::Processor,
    What::Resident,
    What::Reads,
    What::Writes,
    What::PacketsSent,
    What::PacketsReceived,
    What::MemoryAvailable,
    What::DiskUsed,
    What::PressureProcessor,
    What::PressureMemory,
    What::PressureStorage,
    What::Steal,
    What::HostMemoryAvailable,
    What::Lag,
];

impl Name {
    /// As people name it among those of its owner: `processor`, `latency:postgres`.
    pub fn key(&self) -> String {
        match &self.subject {
            Subject::App(_, app) => format!("{}:{app}", self.what.key()),
            Subject::Vm(_) | Subject::Guest(_) | Subject::Host(_) => self.what.key(),
        }
    }

    /// Whether a user defined it.
    pub const fn is_own(&self) -> bool {
        matches!(self.what, What::Own(_))
    }

    /// Whether it is the one of this name.
    pub fn is(&self, key: &str) -> bool {
        self.key() == key
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match &self.subject {
            Subject::App(_, app) => app.to_string(),
            Subject::Vm(vm) | Subject::Guest(vm) => vm.to_string(),
            Subject::Host(host) => host.to_string(),
        };
        match &self.what {
            What::Latency => write!(f, "latency of {of}"),
            What::HypervisorLatency => write!(f, "answer time of the hypervisor of {of}"),
            What::AgentLatency => write!(f, "answer time of the agent of {of}"),
            What::Processor => write!(f, "processor use of {of}"),
            What::Resident => write!(f, "resident memory of {of}"),
            What::Reads => write!(f, "disk reads of {of}"),
            What::Writes => write!(f, "disk writes of {of}"),
            What::PacketsSent => write!(f, "packets sent by {of}"),
            What::PacketsReceived => write!(f, "packets received by {of}"),
            What::MemoryAvailable => write!(f, "free memory in {of}"),
            What::DiskUsed => write!(f, "disk used in {of}"),
            What::PressureProcessor => write!(f, "processor pressure on {of}"),
            What::PressureMemory => write!(f, "memory pressure on {of}"),
            What::PressureStorage => write!(f, "storage pressure on {of}"),
            What::Steal => write!(f, "processor time stolen from {of}"),
            What::HostMemoryAvailable => write!(f, "free memory of {of}"),
            What::WriteLatency(path) => write!(f, "write time of {path}"),
            What::DiskFree(path) => write!(f, "free space of {path}"),
            What::DiskUsedAt(mount) => write!(f, "disk used at {mount} in {of}"),
            What::Own(name) => write!(f, "number {name} of {of}"),
            What::Lag => write!(f, "lag of our own loop on {of}"),
        }
    }
}

/// A number as it was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// The value.
    Value(f64),
    /// A count that only rises: what matters is how fast.
    Total(f64),
}

/// Whether there is any number in it.
pub const fn measures(seen: &Seen) -> bool {
    match seen {
        Seen::Process(sign) => matches!(sign, ProcessSign::Alive { .. }),
        Seen::Hypervisor(sign) => {
            matches!(sign, HypervisorSign::Answered { .. } | HypervisorSign::Counters(_))
        }
        Seen::Agent(sign) => matches!(
            sign,
            AgentSign::Answered { .. } | AgentSign::FileSystem { .. } | AgentSign::Memory { .. }
        ),
        Seen::Application(sign) => matches!(sign, AppSign::Answered { .. }),
        Seen::Host(sign) => !matches!(sign, HostSign::Kernel(_)),
        Seen::Observer(sign) => matches!(sign, ObserverSign::Lag(_)),
        Seen::Console(_) | Seen::Network(_) | Seen::Log(_) | Seen::Number(_) | Seen::Written(_) => false,
    }
}

/// The numbers in it.
pub fn readings(signal: &Signal) -> Vec<(What, Reading)> {
    let seconds = |time: &Duration| Reading::Value(time.as_secs_f64());
    let bytes = |count: u64| Reading::Value(count as f64);
    match &signal.seen {
        Seen::Process(ProcessSign::Alive { cpu, rss, .. }) => {
            vec![(What::Processor, Reading::Total(cpu.as_secs_f64())), (What::Resident, bytes(*rss))]
        }
        Seen::Hypervisor(HypervisorSign::Answered { latency, .. }) => {
            vec![(What::HypervisorLatency, seconds(latency))]
        }
        Seen::Hypervisor(HypervisorSign::Counters(counters)) => of_counters(counters),
        Seen::Agent(AgentSign::Answered { latency }) => vec![(What::AgentLatency, seconds(latency))],
        Seen::Agent(AgentSign::FileSystem { mount, used, .. }) => {
            let what = if mount == "/" { What::DiskUsed } else { What::DiskUsedAt(mount.clone()) };
            vec![(what, bytes(*used))]
        }
        Seen::Agent(AgentSign::Memory { available, .. }) => vec![(What::MemoryAvailable, bytes(*available))],
        Seen::Application(AppSign::Answered { latency }) => vec![(What::Latency, seconds(latency))],
        Seen::Host(sign) => of_host(sign),
        Seen::Observer(ObserverSign::Lag(lag)) => vec![(What::Lag, seconds(lag))],
        Seen::Process(_)
        | Seen::Hypervisor(_)
        | Seen::Agent(_)
        | Seen::Application(_)
        | Seen::Observer(_)
        | Seen::Console(_)
        | Seen::Network(_)
        | Seen::Log(_)
        | Seen::Number(_)
        | Seen::Written(_) => Vec::new(),
    }
}

fn of_counters(counters: &Counters) -> Vec<(What, Reading)> {
    let total = |count: u64| Reading::Total(count as f64);
    let mut all = vec![(What::Reads, total(counters.reads)), (What::Writes, total(counters.writes))];
    all.extend(counters.packets_sent.map(|count| (What::PacketsSent, total(count))));
    all.extend(counters.packets_received.map(|count| (What::PacketsReceived, total(count))));
    all
}

fn of_host(sign: &HostSign) -> Vec<(What, Reading)> {
    let share = |tenths: u16| Reading::Value(f64::from(tenths) / 1_000.0);
    match sign {
        HostSign::Pressure { cpu, memory, io, steal } => vec![
            (What::PressureProcessor, share(*cpu)),
            (What::PressureMemory, share(*memory)),
            (What::PressureStorage, share(*io)),
            (What::Steal, share(*steal)),
        ],
        HostSign::Memory { available, .. } => {
            vec![(What::HostMemoryAvailable, Reading::Value(*available as f64))]
        }
        HostSign::Disk { path, free, latency, .. } => {
            let mut all = vec![(What::DiskFree(path.clone()), Reading::Value(*free as f64))];
            let took = latency.map(|took| Reading::Value(took.as_secs_f64()));
            all.extend(took.map(|took| (What::WriteLatency(path.clone()), took)));
            all
        }
        HostSign::Kernel(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_for_one_thing_and_is_read_back() {
        let named = [What::WriteLatency("/a:b".into()), What::DiskFree("/".into()), What::Own("lag".into())];
        let named = named.into_iter().chain([What::DiskUsedAt("/srv/ts1".into())]);
        for what in PLAIN.into_iter().chain(named) {
            assert_eq!(What::of_key(&what.key()), Some(what));
        }
        for key in ["", "latency:", "disk", "free:/"] {
            assert_eq!(What::of_key(key), None);
        }
    }
}
