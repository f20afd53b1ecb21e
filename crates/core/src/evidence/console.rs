//! What known lines on the serial console tell.

use super::{Evidence, Kind, Lens, Quote, lasted};
use crate::signal::{ConsoleSign, FindingKind};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A line on the console loses half its weight in this time.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// What is told to stop may take so long to stop, and to come back if it was a restart.
const GOING_DOWN: Duration = Duration::from_secs(15);

/// What is remembered of the console: the newest line of each kind, and how often it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConsoleView {
    going_down: Option<Timestamp>,
    lines: Option<Timestamp>,
    found: BTreeMap<FindingKind, Found>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Found {
    first: Timestamp,
    last: Timestamp,
    count: u32,
    line: String,
}

impl ConsoleView {
    pub fn observe(&mut self, at: Timestamp, sign: &ConsoleSign) {
        self.lines = Some(at);
        let ConsoleSign::Finding(finding) = sign else { return };
        if finding.kind == FindingKind::GoingDown {
            self.going_down = Some(at);
        }
        if meaning(finding.kind).is_none() {
            return;
        }
        let entry = self.found.entry(finding.kind).or_insert_with(|| Found {
            first: at,
            last: at,
            count: 0,
            line: String::new(),
        });
        entry.last = at;
        entry.count = entry.count.saturating_add(1);
        entry.line.clone_from(&finding.line);
    }

    /// A kernel started booting, or the guest proved healthy: older lines speak of the past.
    pub fn turn_page(&mut self) {
        self.found.clear();
    }

    /// Somebody told the guest or its database to stop: it has this long to be gone, or back.
    pub fn is_going_down(&self, now: Timestamp) -> bool {
        self.going_down.is_some_and(|at| now.since(at) <= GOING_DOWN)
    }

    /// Whether it shows nothing that matters any more.
    pub fn is_quiet(&self, lens: &Lens) -> bool {
        self.found.values().all(|found| lens.aged(found.last, HALF_LIFE) == 0)
    }

    /// Since when the kernel has called a file system damaged, if that still counts.
    pub fn damaged(&self, lens: &Lens) -> Option<Timestamp> {
        let told = [FindingKind::FsError, FindingKind::FsReadOnly].map(|kind| self.found.get(&kind));
        let lasting = told.into_iter().flatten().filter(|found| lens.aged(found.last, HALF_LIFE) > 0);
        lasting.map(|found| found.first).min()
    }

    /// `room`: when the guest itself said last that there is room on all its disks.
    pub fn speak(&self, lens: &Lens, room: Option<Timestamp>, say: &mut Vec<Evidence>) {
        let damaged = self.damaged(lens);
        for (kind, found) in &self.found {
            if *kind == FindingKind::DiskFull && room.is_some_and(|room| room > found.last) {
                continue; // a line of the past
            }
            if *kind == FindingKind::DiskFull && damaged.is_some_and(|damaged| damaged <= found.first) {
                continue; // what the kernel no longer trusts is not written to, and so seems full
            }
            let Some(kind) = meaning(*kind) else { continue };
            let strength = lens.aged(found.last, HALF_LIFE);
            if strength == 0 {
                continue;
            }
            let often = if found.count > 1 { format!("{} times, last ", found.count) } else { String::new() };
            let text = format!("console, {often}{} ago: {}", lasted(lens, found.last), found.line);
            let quote = Some(Quote { at: found.last, line: found.line.clone() });
            say.push(Evidence { kind, app: None, since: found.first, at: lens.now, strength, text, quote });
        }
    }
}

const fn meaning(kind: FindingKind) -> Option<Kind> {
    Some(match kind {
        FindingKind::KernelPanic => Kind::ConsolePanic,
        FindingKind::OutOfMemory => Kind::ConsoleOutOfMemory,
        FindingKind::FsReadOnly => Kind::ConsoleReadOnly,
        FindingKind::DiskFull => Kind::ConsoleDiskFull,
        FindingKind::DiskIoError | FindingKind::FsError => Kind::ConsoleIoError,
        FindingKind::HungTask | FindingKind::KernelOops => Kind::ConsoleHungTask,
        FindingKind::RootLost => Kind::ConsoleRootLost,
        FindingKind::AppPanic => Kind::ConsoleAppPanic,
        FindingKind::BootStarted
        | FindingKind::BootFinished
        | FindingKind::AppStarting
        | FindingKind::AppReady
        | FindingKind::GoingDown
        | FindingKind::NoConnectionLeft
        | FindingKind::DataCorrupt
        | FindingKind::ReplicationBroken
        | FindingKind::LocksPileUp
        | FindingKind::ImageCorrupt
        | FindingKind::StorageLost
        | FindingKind::StorageSlow
        | FindingKind::HardwareFailing
        | FindingKind::LinkLost
        | FindingKind::ServiceFailed
        | FindingKind::MemoryShort
        | FindingKind::SpaceShort => return None, // of `logs.rs`, or of the host
    })
}
