//! The fault catalogue as data: names, levels, priors, likelihoods.

use super::lessons::Lessons;
use super::{application, guest, host, observer, vm};
use crate::evidence::Kind;
use crate::time::Duration;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The cause we believe in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fault {
    /// The application is not there: nobody listens.
    AppDown,
    /// The application is there and gives no answer.
    AppHung,
    /// The application answers, and wrongly.
    AppWrong,
    /// The application is there, and its users do not get through to it.
    AppCutOff,
    /// The application answers, and takes far longer than it used to.
    AppSlow,
    /// The database gives up again and again.
    AppCrashLoop,
    /// The database takes no more connections.
    OutOfConnections,
    /// The database says that stored data are not what was written.
    CorruptionReported,
    /// The database does not keep a copy up to date.
    ReplicationBroken,
    /// Sessions of the database wait for each other.
    LockPileUp,
    /// The guest kernel has panicked.
    GuestPanicked,
    /// The guest is powered and scheduled, but nothing inside moves.
    GuestHung,
    /// The guest does not come up.
    GuestBootFailed,
    /// The guest resets itself again and again before it is up.
    GuestBootLoop,
    /// The guest has no memory left.
    GuestOutOfMemory,
    /// A disk of the guest is full.
    GuestDiskFull,
    /// The guest's file system has gone read-only.
    GuestFsReadOnly,
    /// The guest is cut off from the network.
    GuestNetLost,
    /// The VM's process is gone.
    VmCrashed,
    /// The VM's process is there, but does not run.
    VmHung,
    /// The VM is paused because its storage failed.
    VmPausedIo,
    /// The hypervisor refuses to start the VM.
    VmWontStart,
    /// The image of one of its disks is damaged.
    ImageCorrupt,
    /// The image of one of its disks is not there any more.
    ImageLost,
    /// The host has more work than it can do.
    HostOverloaded,
    /// A disk of the host is full.
    HostDiskFull,
    /// A disk of the host is far slower than a disk is.
    StorageSlow,
    /// A disk of the host, or its file server, is gone.
    StorageLost,
    /// Memory, a processor, a bus or a disk of the host is failing.
    HostFailing,
    /// A network card or link of the host does not work.
    HostNetLost,
    /// The probe is wrong, not the application.
    ProbeBroken,
    /// Holdfast itself runs late.
    ObserverSlow,
    /// The newest restore point of a VM is older than it may be.
    RestorePointsStale,
}

/// A layer, from the application down to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One application.
    Application,
    /// The operating system of the guest.
    Guest,
    /// The machine as its hypervisor sees it.
    Vm,
    /// The host.
    Host,
    /// Holdfast itself.
    Observer,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One row of the catalogue: a fault that a person can read and argue with.
#[derive(Clone, Copy, Debug)]
pub struct FaultRow {
    /// The fault.
    pub fault: Fault,
    /// What it means, in a few words, as in "guest orders *is hung*".
    pub says: &'static str,
    /// One VM (or host) meets it about once in this time.
    pub once_in: Duration,
    /// Where these numbers come from: what was judged and by what, what a standard or a study says.
    pub from: &'static str,
    /// How likely each kind of evidence is, at full strength, if this is the fault. A kind that is not
    /// listed is as likely as on a healthy VM.
    pub seen: &'static [(Kind, f64)],
}

/// The layer a fault belongs to.
#[must_use]
pub const fn level(fault: Fault) -> Level {
    match fault {
        Fault::AppDown
        | Fault::AppHung
        | Fault::AppWrong
        | Fault::AppCutOff
        | Fault::AppSlow
        | Fault::AppCrashLoop
        | Fault::OutOfConnections
        | Fault::CorruptionReported
        | Fault::ReplicationBroken
        | Fault::LockPileUp => Level::Application,
        Fault::GuestPanicked
        | Fault::GuestHung
        | Fault::GuestBootFailed
        | Fault::GuestBootLoop
        | Fault::GuestOutOfMemory
        | Fault::GuestDiskFull
        | Fault::GuestFsReadOnly
        | Fault::GuestNetLost => Level::Guest,
        Fault::VmCrashed
        | Fault::VmHung
        | Fault::VmPausedIo
        | Fault::VmWontStart
        | Fault::ImageCorrupt
        | Fault::ImageLost => Level::Vm,
        Fault::HostOverloaded
        | Fault::HostDiskFull
        | Fault::StorageSlow
        | Fault::StorageLost
        | Fault::HostFailing
        | Fault::HostNetLost => Level::Host,
        Fault::ProbeBroken | Fault::ObserverSlow | Fault::RestorePointsStale => Level::Observer,
    }
}

/// Users are mostly served while it lasts: a person is told, and the VM runs on.
#[must_use]
pub const fn is_warning(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::AppSlow
            | Fault::OutOfConnections
            | Fault::CorruptionReported
            | Fault::ReplicationBroken
            | Fault::LockPileUp
            | Fault::RestorePointsStale
    )
}

/// Whether the former, a fault of the host, brings the latter upon its VMs: causes before symptoms.
#[must_use]
pub const fn brings(cause: Fault, fault: Fault) -> bool {
    let stops = matches!(fault, Fault::VmPausedIo | Fault::VmWontStart);
    let hangs = matches!(fault, Fault::VmHung | Fault::GuestHung | Fault::AppHung);
    let slows = matches!(fault, Fault::AppSlow);
    if matches!(cause, Fault::StorageLost) {
        stops || hangs || slows || matches!(fault, Fault::GuestFsReadOnly)
    } else if matches!(cause, Fault::HostDiskFull) {
        stops
    } else if matches!(cause, Fault::StorageSlow) {
        slows || matches!(fault, Fault::AppHung | Fault::GuestHung)
    } else if matches!(cause, Fault::HostOverloaded) {
        slows || matches!(fault, Fault::AppHung)
    } else if matches!(cause, Fault::HostFailing) {
        // The kernel ends a process whose memory is beyond repair (Documentation/mm/hwpoison.rst).
        matches!(fault, Fault::VmCrashed | Fault::GuestPanicked)
    } else {
        matches!(cause, Fault::HostNetLost) && matches!(fault, Fault::GuestNetLost)
    }
}

/// So many days.
pub(super) const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

/// So many years.
pub(super) const fn years(n: u64) -> Duration {
    days(n * 365)
}

/// The time in which a fault is looked for: prior odds are this over `once_in`.
const EXPOSURE: Duration = Duration::from_secs(3_600);

/// A thousandth of a deciban: the unit of all sums, so that they are exact and the same everywhere.
pub(super) const MILLI: f64 = 1_000.0;

/// The rows, ready for the product: prior and likelihood ratios in millidecibans.
#[derive(Clone, Debug)]
pub struct Catalogue {
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) data: &'static FaultRow,
    pub(super) prior: i32,
    pub(super) weights: Vec<i32>, // by kind, with what was learned
    pub(super) own: Vec<i32>,     // by kind, by the table alone
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::standard()
    }
}

impl Catalogue {
    /// The catalogue that comes with this version.
    #[must_use]
    pub fn standard() -> Self {
        let levels: [&[&'static FaultRow]; 5] =
            [application::ROWS, guest::ROWS, vm::ROWS, host::ROWS, observer::ROWS];
        Self { rows: levels.into_iter().flatten().copied().map(Row::new).collect() }
    }

    /// The same with what was learned.
    #[must_use]
    pub fn taught(lessons: &Lessons) -> Self {
        let mut catalogue = Self::standard();
        for row in &mut catalogue.rows {
            for (kind, listed) in row.data.seen {
                let likelihood = lessons.likelihood(row.data, *kind, *listed);
                row.weights[*kind as usize] = decibans(likelihood / kind.if_healthy());
            }
        }
        catalogue
    }

    /// The row of a fault.
    ///
    /// # Panics
    /// Never: every fault has a row, which a test holds.
    #[must_use]
    pub fn row(&self, fault: Fault) -> &'static FaultRow {
        self.rows.iter().find(|row| row.data.fault == fault).expect("every fault has a row").data
    }

    /// All rows, by level.
    pub fn iter(&self) -> impl Iterator<Item = &'static FaultRow> {
        self.rows.iter().map(|row| row.data)
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

impl Row {
    fn new(data: &'static FaultRow) -> Self {
        let prior = decibans(EXPOSURE.as_secs_f64() / data.once_in.as_secs_f64());
        let weight = |kind: &Kind| {
            let listed = data.seen.iter().find(|(listed, _)| listed == kind);
            listed.map_or(0, |(kind, likelihood)| decibans(likelihood / kind.if_healthy()))
        };
        let own: Vec<i32> = Kind::ALL.iter().map(weight).collect();
        Self { data, prior, weights: own.clone(), own }
    }
}

/// A ratio in thousandths of a deciban.
fn decibans(ratio: f64) -> i32 {
    (10.0 * ratio.log10() * MILLI).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_exactly_one_row_and_every_number_is_a_probability() {
        let catalogue = Catalogue::standard();
        let mut faults: Vec<Fault> = catalogue.iter().map(|row| row.fault).collect();
        faults.sort_unstable();
        faults.dedup();
        assert_eq!(faults.len(), 33);
        assert_eq!(faults.len(), catalogue.iter().count());
        for row in catalogue.iter() {
            for (kind, likelihood) in row.seen {
                assert!((1e-9..1.0).contains(likelihood), "{:?} {kind:?}", row.fault);
            }
            let says = row.from.starts_with("Judged: ") || row.from.starts_with("Prior from ");
            assert!(
                says && row.from.ends_with('.') && row.from.contains(". "),
                "{:?}: where from?",
                row.fault
            );
        }
    }

    #[test]
    fn every_kind_of_evidence_speaks_for_or_against_something() {
        let catalogue = Catalogue::standard();
        for kind in Kind::ALL {
            let used = catalogue.iter().any(|row| row.seen.iter().any(|(listed, _)| listed == kind));
            assert!(used, "{kind:?} is in no row");
        }
    }
}
