//! All that the engine is told. The same inputs give the same actions, byte for byte.

use crate::action::{Command, Outcome};
use crate::point::Known;
use crate::policy::Policies;
use crate::protect::Means;
use crate::signal::Signal;
use crate::subject::{HostName, VmName};
use crate::time::Duration;
use serde::{Deserialize, Serialize};

/// One thing the engine is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The program started (again): open intents are resolved by looking (I9).
    Started(Started),
    /// A configuration came into force.
    Configured(Policies),
    /// Something was seen.
    Signal(Signal),
    /// An action ended.
    Outcome(Outcome),
    /// A person asked for something.
    Command(Command),
    /// The wall clock was moved: what it now is ahead of engine time, in microseconds. To show times, never to
    /// decide (I20).
    WallClock {
        /// Wall clock minus engine time.
        offset: i64,
    },
    /// Which snapshots a VM has now.
    Points {
        /// The VM.
        vm: VmName,
        /// All of them.
        known: Vec<Known>,
    },
    /// How old the newest restore point of a VM is that is made by schedule.
    Newest {
        /// The VM.
        vm: VmName,
        /// Made by this.
        means: Means,
        /// How old it is; `None`: there is none, or with a trouble, nobody can tell: then it is what was told before.
        age: Option<Duration>,
        /// Why there is no newer one, a clause for people; `None`: nothing speaks against one.
        trouble: Option<String>,
    },
    /// Time has passed.
    Tick,
}

/// The program started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// On this host.
    pub host: HostName,
    /// The boot of the host, from the kernel; another one means that all processes are gone.
    pub boot: String,
    /// Wall clock minus engine time, in microseconds: to show times, never to decide (I20).
    pub wall_offset: i64,
}
