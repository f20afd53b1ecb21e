//! What the engine asks for, and how it ended.
//!
//! Every action has a reason, a deadline and exactly one outcome. It is written to the journal before
//! anything is done (I8) and carries what its receiver needs to refuse an old one (I3).

use crate::incident::IncidentId;
use crate::lease::{DeathProof, Incarnation, Lease, Sighting, Token};
use crate::point::{PointId, SnapshotId};
use crate::signal::RunState;
use crate::subject::{AppName, VmName};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The number of an action; it only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u64);

/// Something the engine asks the program to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[must_use]
pub struct Action {
    /// Its number.
    pub id: ActionId,
    /// The VM it is for.
    pub vm: VmName,
    /// Why.
    pub reason: Reason,
    /// What.
    pub order: Order,
    /// When it has failed if nothing was heard of it. The program then reports `Unknown`.
    pub deadline: Timestamp,
}

/// Why an action is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// To end this incident.
    Incident(IncidentId),
    /// A person asked for it.
    Command(CommandId),
    /// The VM is meant to run and does not, or its state is not known yet.
    Upkeep,
}

/// What is to be done. Those that change something name the incarnation and the token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Look whether it runs, which incarnation, under which lease.
    Inspect,
    /// Keep evidence before it is destroyed: screenshot, console tail, registers, run state. 3 s at most.
    Capture {
        /// Of this incarnation.
        incarnation: Incarnation,
        /// For this incident.
        incident: IncidentId,
    },
    /// Look whether it could start again, before it is ended for that: whether all is there that it needs, and whether its disk,
    /// or the restore point that takes its place, can be had.
    Reach {
        /// What it goes back to; `None`: it starts from the disk that it has.
        #[serde(flatten)]
        to: Option<Rewind>,
    },
    /// Do something to the running machine.
    Perform {
        /// To this incarnation and no other.
        incarnation: Incarnation,
        /// Under this lease.
        token: Token,
        /// What.
        operation: Operation,
    },
    /// End the process and prove that it is dead.
    PowerOff {
        /// Of this incarnation and no other.
        incarnation: Incarnation,
        /// Under this lease.
        token: Token,
    },
    /// Take the lease for the next incarnation (I2). Needs the death of the one before.
    TakeLease {
        /// Of the incarnation before.
        proof: DeathProof,
    },
    /// Take over a VM that was found running without a lease on record (SAFETY section 3).
    Adopt {
        /// The incarnation found.
        #[serde(rename = "incarnation")]
        seen: Sighting,
    },
    /// Make a restore point what the next start finds. What was there is kept as another snapshot (I15). Needs the death of
    /// the incarnation that could write.
    Rewind {
        /// Of the incarnation before.
        proof: DeathProof,
        /// To what, and how.
        #[serde(flatten)]
        to: Rewind,
    },
    /// Start the VM.
    Start {
        /// The right to.
        lease: Lease,
    },
    /// Give the lease back.
    ReleaseLease {
        /// The incarnation it was for is dead.
        proof: DeathProof,
    },
}

impl Order {
    /// Whether it can change what users of the VM see. Those need a durable intent, an armed mode and
    /// the gates of I5, I6, I10 and I11.
    #[must_use]
    pub const fn is_destructive(&self) -> bool {
        match self {
            Self::Perform { .. } | Self::PowerOff { .. } | Self::Rewind { .. } | Self::Start { .. } => true,
            Self::Inspect
            | Self::Capture { .. }
            | Self::Reach { .. }
            | Self::TakeLease { .. }
            | Self::Adopt { .. }
            | Self::ReleaseLease { .. } => false,
        }
    }

    /// The word for it on screen and in the journal.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Capture { .. } => "capture",
            Self::Reach { .. } => "reach",
            Self::Perform { operation, .. } => operation.name(),
            Self::PowerOff { .. } => "power-off",
            Self::TakeLease { .. } => "take-lease",
            Self::Adopt { .. } => "adopt",
            Self::Rewind { .. } => "rewind",
            Self::Start { .. } => "start",
            Self::ReleaseLease { .. } => "release-lease",
        }
    }
}

/// Something done to a running machine. Repeating it must be harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Run the configured restart command of an application through the guest agent.
    RestartApp(AppName),
    /// Hard reset in place; a paused or panicked machine runs afterwards.
    Reset,
    /// Let a paused machine run on (also after an I/O error: the failed request is tried again).
    Continue,
    /// Pause it.
    Pause,
    /// Ask the guest to power down.
    Shutdown,
    /// Plug the virtual cables in.
    LinkUp,
    /// Unplug the virtual cables: isolation from the network.
    LinkDown,
    /// Thaw its file systems (I16).
    Thaw,
}

impl Operation {
    /// The word for it on screen and in the journal.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RestartApp(_) => "restart-app",
            Self::Reset => "reset",
            Self::Continue => "continue",
            Self::Pause => "pause",
            Self::Shutdown => "shutdown",
            Self::LinkUp => "link-up",
            Self::LinkDown => "link-down",
            Self::Thaw => "thaw",
        }
    }
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which action.
    pub action: ActionId,
    /// How.
    pub ended: Ended,
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It was done.
    Done(Fact),
    /// It was certainly not done.
    Failed {
        /// Why, for people.
        why: String,
    },
    /// It was certainly not done, because somebody else has what it needs, as a disk: once that is free it can
    /// be done. This costs no try.
    Blocked {
        /// Who has what, for people.
        why: String,
    },
    /// It was certainly not done: a file of its disk is not there, on the file system where it was.
    DiskGone {
        /// Which, for people.
        why: String,
    },
    /// Nobody knows: look, never repeat blindly (I9).
    Unknown {
        /// Why, for people.
        why: String,
    },
}

/// What an action brought to light.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Nothing more than that it was done.
    Nothing,
    /// What an inspection found.
    Found(Found),
    /// The VM is dead.
    Died(DeathProof),
    /// The lease is ours.
    Leased(Lease),
    /// The VM was started.
    Started {
        /// Its process.
        pid: u32,
    },
    /// Evidence was kept.
    Captured {
        /// The files, relative to the state folder.
        files: Vec<String>,
    },
}

/// What an inspection found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It runs.
    Running {
        /// Which incarnation.
        #[serde(rename = "incarnation")]
        seen: Sighting,
        /// Its process.
        pid: u32,
        /// Its run state; `None` if the hypervisor did not answer.
        state: Option<RunState>,
        /// The lease on record, if any.
        lease: Option<Lease>,
    },
    /// It does not run, and here is why we are sure.
    Dead(DeathProof),
    /// It could not be told.
    Unclear {
        /// Why, for people.
        why: String,
    },
}

/// The number of a command; it only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u64);

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Its number.
    pub id: CommandId,
    /// Who asks (I19), for the record.
    pub by: String,
    /// For which VM.
    pub vm: VmName,
    /// What.
    pub wish: Wish,
}

/// What a person may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Let it run, from now on.
    Start,
    /// Stop it, from now on: ask the guest first, then cut the power after `grace`.
    Stop {
        /// How long the guest may take; zero cuts the power at once.
        grace: std::time::Duration,
    },
    /// Stop, then start.
    Restart {
        /// How long the guest may take; zero cuts the power at once.
        grace: std::time::Duration,
    },
    /// Go back to a restore point, from its death on.
    Rewind(Rewind),
    /// Go back to a restore point to end an incident, whatever that loses.
    Approve {
        /// The incident.
        incident: IncidentId,
        /// To this one; `None`: to the best.
        to: Option<PointId>,
    },
    /// Pause it.
    Pause,
    /// Let a paused VM run on.
    Resume,
    /// Leave it alone (I5), until then or until told otherwise.
    MaintenanceOn {
        /// When it ends by itself.
        until: Option<Timestamp>,
    },
    /// Look after it again.
    MaintenanceOff,
    /// Try again although it was held: budget and brake start afresh.
    Release,
    /// A drill, backup, freeze or move is about to disturb the VM until then at the latest.
    Announce {
        /// What.
        work: Work,
        /// When it will be over; later it is a fault itself.
        until: Timestamp,
    },
    /// The announced work is over.
    WorkDone(Work),
    /// A snapshot is given up by schedule: from now on nobody goes back to it.
    GiveUp(SnapshotId),
}

/// Which restore point is gone back to, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewind {
    /// The point.
    pub to: PointId,
    /// Go on with its memory, instead of booting its disk.
    #[serde(default)]
    pub resume: bool,
    /// A person knows that this memory was resumed before (I23).
    #[serde(default)]
    pub again: bool,
}

/// Work that disturbs a VM on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A real fault is injected; it is to be found and healed as always, outside the budget.
    Drill,
    /// A backup: slow answers are no fault.
    Backup,
    /// File systems are frozen: writes hang.
    Freeze,
    /// A snapshot is taken, or deleted ones are merged: it may stand still for a moment, and be slow.
    Snapshot,
    /// The VM is being moved: it may be paused.
    Migration,
    /// The guest is rebooted on purpose.
    Reboot,
}

impl Work {
    /// The word for it on screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drill => "drill",
            Self::Backup => "backup",
            Self::Freeze => "freeze",
            Self::Snapshot => "snapshot",
            Self::Migration => "migration",
            Self::Reboot => "reboot",
        }
    }
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// To this command.
    pub command: CommandId,
    /// `None`: accepted. Otherwise why it was refused.
    pub refused: Option<String>,
}
