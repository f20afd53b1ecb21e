//! The host and the observer: whether silence may be believed just now.

use super::{Evidence, FULL, Kind, Lens, lasted};
use crate::signal::{HostSign, ObserverSign};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Pressure is believed for so long after it was last seen.
const PRESSURE_KEEPS: Duration = Duration::from_secs(10);
/// Waiting for memory by this share of time, in tenths of a percent, is pressure.
const MEMORY_PRESSED: u16 = 200;
/// All tasks waiting for storage by this share of time is pressure.
const IO_PRESSED: u16 = 600;
/// Waiting for a processor by this share of time is pressure.
const CPU_PRESSED: u16 = 970;
/// A hypervisor above stealing this share of time is pressure.
const STEAL_PRESSED: u16 = 300;
/// Deadlines are stretched by this while the host is under pressure.
const PATIENCE: u32 = 3;
/// Own lag from here on makes silence doubtful.
const LAG_MATTERS: Duration = Duration::from_millis(500);
/// Less free than this share, in parts of a thousand, is a full disk of the host.
const DISK_FULL_BELOW: u64 = 10;
/// Doubt lasts at most this long after a lag.
const DOUBT_MOST: Duration = Duration::from_secs(5);

/// What is remembered of the host and of ourselves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostView {
    pressed: Option<(Timestamp, Timestamp, String)>, // since, at
    calm: Option<Timestamp>,
    disks: BTreeMap<String, DiskView>,
    lag: Option<(Timestamp, Timestamp, Duration)>, // since, at, worst
    doubt_until: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DiskView {
    free: u64,
    total: u64,
    writable: bool,
    since: Timestamp,
    at: Timestamp,
}

impl HostView {
    /// Takes in what was seen of the host.
    pub fn observe(&mut self, at: Timestamp, sign: &HostSign) {
        match sign {
            HostSign::Pressure { cpu, memory, io, steal } => {
                let text = pressure(*cpu, *memory, *io, *steal);
                let since = self.pressed.as_ref().map_or(at, |(since, _, _)| *since);
                if let Some(text) = text {
                    self.pressed = Some((since, at, text));
                    return;
                }
                self.calm = Some(at);
                if self.pressed.as_ref().is_some_and(|(_, seen, _)| at.since(*seen) > PRESSURE_KEEPS) {
                    self.pressed = None;
                }
            }
            HostSign::Disk { path, free, total, latency } => {
                let writable = latency.is_some() || *free > 0;
                let full = is_full(*free, *total);
                let old = self.disks.get(path).filter(|d| is_full(d.free, d.total) == full);
                let since = old.map_or(at, |d| d.since);
                let disk = DiskView { free: *free, total: *total, writable, since, at };
                self.disks.insert(path.clone(), disk);
            }
            HostSign::Memory { .. } | HostSign::Kernel(_) => {}
        }
    }

    /// What we saw of ourselves. Returns how long the loop slept, if that matters.
    pub fn observe_self(&mut self, at: Timestamp, sign: &ObserverSign) -> Option<Duration> {
        match sign {
            ObserverSign::Lag(lag) if *lag >= LAG_MATTERS => {
                self.doubt(at, *lag);
                Some(*lag)
            }
            ObserverSign::Dropped(_) => {
                self.doubt(at, LAG_MATTERS);
                None
            }
            ObserverSign::Lag(_) => None,
        }
    }

    /// From now on, for about twice that long, silence says nothing.
    pub fn distrust(&mut self, at: Timestamp, unheard: Duration) {
        self.doubt_until = self.doubt_until.max(at + unheard.saturating_mul(2).min(DOUBT_MOST));
    }

    /// Our loop ran late: silence says nothing for a while, and the lateness is told.
    pub fn doubt(&mut self, at: Timestamp, lag: Duration) {
        self.distrust(at, lag);
        let since =
            self.lag.filter(|(_, last, _)| at.since(*last) < PRESSURE_KEEPS).map_or(at, |(s, _, _)| s);
        let worst = self.lag.filter(|(s, _, _)| *s == since).map_or(lag, |(_, _, worst)| worst.max(lag));
        self.lag = Some((since, at, worst));
    }

    /// Whether silence counts now.
    pub fn trusts_silence(&self, now: Timestamp) -> bool {
        now >= self.doubt_until
    }

    /// When doubt ends.
    pub const fn doubt_until(&self) -> Timestamp {
        self.doubt_until
    }

    /// By how much deadlines are stretched now.
    pub fn patience(&self, now: Timestamp) -> u32 {
        if self.is_pressed(now) { PATIENCE } else { 1 }
    }

    fn is_pressed(&self, now: Timestamp) -> bool {
        self.pressed.as_ref().is_some_and(|(_, at, _)| now.since(*at) <= PRESSURE_KEEPS)
    }

    /// Whether the disk of this folder is known to be full.
    pub fn is_full(&self, path: &str) -> bool {
        self.disks.get(path).is_some_and(|disk| is_full(disk.free, disk.total))
    }

    /// The paths of full disks, with the sentence.
    pub fn full_disks(&self) -> impl Iterator<Item = (&str, String, Timestamp)> {
        self.disks.iter().filter(|(_, d)| is_full(d.free, d.total) || !d.writable).map(|(path, d)| {
            let text = format!("{path}: {} of {} MiB free", d.free >> 20, d.total >> 20);
            (path.as_str(), text, d.since)
        })
    }

    /// What host and observer say, to everybody.
    pub fn speak(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, text| {
            say.push(Evidence { kind, app: None, since, at, strength: FULL, text });
        };
        if let Some((since, at, text)) = self.pressed.as_ref().filter(|_| self.is_pressed(lens.now)) {
            let text = format!("host under pressure for {}: {text}", lasted(lens, *since));
            push(Kind::HostPressed, *since, *at, text);
        } else if let Some(at) = self.calm.filter(|at| lens.now.since(*at) <= PRESSURE_KEEPS) {
            push(Kind::HostCalm, at, at, "host under no pressure".into());
        }
        if let Some((since, at, worst)) = self.lag.filter(|(_, at, _)| lens.now.since(*at) <= PRESSURE_KEEPS)
        {
            let text = format!("our own loop ran up to {} late", crate::time::show(worst));
            push(Kind::ObserverLags, since, at, text);
        } else {
            push(Kind::ObserverOnTime, lens.now, lens.now, "our own loop is on time".into());
        }
    }

    /// What host and observer say of the host itself: the same, and its disks.
    pub fn speak_of_host(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        self.speak(lens, say);
        for (_, text, since) in self.full_disks() {
            let kind = Kind::HostDiskFull;
            say.push(Evidence { kind, app: None, since, at: lens.now, strength: FULL, text });
        }
    }
}

fn pressure(cpu: u16, memory: u16, io: u16, steal: u16) -> Option<String> {
    let percent = |what: &str, tenths: u16| format!("{what} {} %", tenths / 10);
    let mut parts = Vec::new();
    if cpu >= CPU_PRESSED {
        parts.push(percent("waiting for a processor", cpu));
    }
    if memory >= MEMORY_PRESSED {
        parts.push(percent("waiting for memory", memory));
    }
    if io >= IO_PRESSED {
        parts.push(percent("waiting for storage", io));
    }
    if steal >= STEAL_PRESSED {
        parts.push(percent("stolen by a hypervisor above", steal));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

const fn is_full(free: u64, total: u64) -> bool {
    total > 0 && free.saturating_mul(1_000) < total.saturating_mul(DISK_FULL_BELOW)
}
