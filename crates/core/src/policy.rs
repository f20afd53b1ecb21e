//! What is wanted for a VM, as meant (the program checks what was written).

use crate::isolate::Isolation;
use crate::protect::Schedules;
use crate::subject::{AppName, VmName};
use crate::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything the engine must know of the configuration. Recorded with the inputs, so that a replay
/// can swap it (`replay --with`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Policies {
    /// Per VM.
    pub vms: BTreeMap<VmName, VmPolicy>,
    /// When too many look failed (I11).
    pub brake: BrakePolicy,
    /// The period of probes and polls; three of them are "fresh" (T_FRESH).
    pub period: Period,
    /// What closed incidents have taught is used; else it is only counted.
    #[serde(default)]
    pub use_lessons: bool,
}

/// The period of probes and polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Period(pub Duration);

impl Default for Period {
    fn default() -> Self {
        Self(Duration::from_secs(1))
    }
}

/// Who acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Holdfast acts.
    #[default]
    Armed,
    /// Holdfast only tells.
    Observe,
}

/// What is wanted for one VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmPolicy {
    /// Who acts.
    pub mode: Mode,
    /// It is meant to run from the start.
    pub autostart: bool,
    /// Its applications.
    pub apps: BTreeMap<AppName, AppPolicy>,
    /// What its driver can do. A plan never asks for more.
    pub abilities: BTreeSet<Ability>,
    /// How many recoveries in how long (I6).
    pub budget: Budget,
    /// How long everything must answer before a recovery counts.
    pub verify_for: Duration,
    /// The longest boot, `T_BOOT_MAX`; learned boots shorten the wait, never lengthen it.
    pub boot_limit: Duration,
    /// Silence of guest and application for so long, on two channels, is a hung guest.
    pub hang_after: Duration,
    /// VMs that must be up before this one is started. Checked to be free of cycles (S56).
    pub needs: Vec<VmName>,
    /// The folder of its disk, as host disk signals name it.
    pub disk_path: String,
    /// Rungs that would lose more acknowledged writes than this wait for a person.
    pub max_data_loss: Duration,
    /// How it is isolated while it is held and may do harm.
    #[serde(default)]
    pub isolate: Isolation,
    /// Which restore points are made of it by schedule.
    #[serde(default)]
    pub protect: Schedules,
}

impl Default for VmPolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Armed,
            autostart: true,
            apps: BTreeMap::new(),
            abilities: Ability::ALL.into(),
            budget: Budget::default(),
            verify_for: Duration::from_secs(5),
            boot_limit: Duration::from_secs(300),
            hang_after: Duration::from_secs(10),
            needs: Vec::new(),
            disk_path: String::new(),
            max_data_loss: Duration::ZERO,
            isolate: Isolation::None,
            protect: Schedules::default(),
        }
    }
}

/// What is known of one application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppPolicy {
    /// A restart command is configured.
    pub can_restart: bool,
}

/// How many recoveries in how long, and how the waits between them grow (I6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// So many at most, 1 to 100.
    pub tries: u32,
    /// In any window of this length.
    pub within: Duration,
    /// The wait before the second try; it doubles with each further one.
    pub backoff: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tries: 3, within: Duration::from_secs(3_600), backoff: Duration::from_secs(5) }
    }
}

/// When too many VMs look failed at once, the watcher may be the one that is ill (I11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakePolicy {
    /// More than so many VMs ...
    pub vms: u32,
    /// ... and more than this share of all, in percent ...
    pub percent: u32,
    /// ... within this time.
    pub within: Duration,
}

impl Default for BrakePolicy {
    fn default() -> Self {
        Self { vms: 3, percent: 25, within: Duration::from_secs(60) }
    }
}

/// One thing a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// Hard reset in place.
    Reset,
    /// Pause and continue.
    Pause,
    /// Plug and unplug the virtual cable.
    Link,
    /// Talk to a guest agent.
    Agent,
    /// Run configured commands in the guest.
    Exec,
    /// Take a screenshot.
    Screenshot,
    /// Follow the serial console.
    Console,
    /// Tell a guest panic.
    Panic,
    /// Tell a failed disk request and stop for it.
    IoError,
    /// End the process and prove its death.
    PowerOff,
    /// Ask the guest to power down.
    Shutdown,
    /// Inject faults for drills.
    Inject,
    /// Take snapshots, and go back to them.
    Snapshot,
}

impl Ability {
    /// All there are.
    pub const ALL: [Self; 13] = [
        Self::Reset,
        Self::Pause,
        Self::Link,
        Self::Agent,
        Self::Exec,
        Self::Screenshot,
        Self::Console,
        Self::Panic,
        Self::IoError,
        Self::PowerOff,
        Self::Shutdown,
        Self::Inject,
        Self::Snapshot,
    ];
}
