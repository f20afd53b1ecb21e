//! The host and the observer: whether silence may be believed just now.

use super::forecast::Filling;
use super::{Evidence, FULL, Kind, Lens, Quote, lasted};
use crate::signal::{Finding, FindingKind, HostSign, ObserverSign};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Pressure is believed for so long after it was last seen.
const PRESSURE_KEEPS: Duration = Duration::from_secs(10);
/// Pressure that has lasted for so long is told to people; silence is doubted at once.
const PRESSURE_TELLS: Duration = Duration::from_secs(15);
/// Pressure is over, to people, when there was none for so long.
const PRESSURE_ENDS: Duration = Duration::from_secs(30);
/// Pressure that has begun goes on until it is below this share of what makes it begin, in parts of a hundred.
const EASED: u16 = 75;
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
/// A small durable write that takes so long, twice in a row, shows a slow disk.
const SLOW_WRITE: Duration = Duration::from_secs(2);
/// Less memory left than this share, in parts of a thousand, is next to none.
const MEMORY_LOW_BELOW: u64 = 20;
/// What is asked for every ten seconds stays true for so long.
const FACT_KEEPS: Duration = Duration::from_secs(30);
/// What the host's kernel has said is told for so long ...
const KERNEL_KEEPS: Duration = Duration::from_secs(600);
/// ... and loses half its weight in this time.
const KERNEL_HALF_LIFE: Duration = Duration::from_secs(60);
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
    #[serde(default)]
    slept: Option<(Timestamp, Timestamp)>, // from, to: our last sleep that was forgiven
    #[serde(default)]
    kernel: Vec<(Kind, Timestamp, String)>, // its last line of each kind
    #[serde(default)]
    memory: Option<(Timestamp, u64, u64)>, // at, available, total
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Told>,
}

/// The last line of one kind in the host's logs.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Told {
    kind: Kind,
    at: Timestamp,
    source: String,
    line: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DiskView {
    free: u64,
    total: u64,
    writable: bool,
    since: Timestamp,
    at: Timestamp,
    /// Small durable writes: how many failed in a row since one succeeded; how many were slow in a row, and the last.
    #[serde(default)]
    failed: Option<u32>,
    #[serde(default)]
    slow: (u32, Duration),
    #[serde(default)]
    fills: Filling,
}

impl HostView {
    /// Takes in what was seen of the host.
    pub fn observe(&mut self, at: Timestamp, sign: &HostSign) {
        match sign {
            HostSign::Pressure { cpu, memory, io, steal } => {
                let (since, from) = match &self.pressed {
                    Some((since, _, _)) => (*since, if self.is_pressed(at) { EASED } else { 100 }),
                    None => (at, 100),
                };
                if let Some(text) = pressure([*cpu, *memory, *io, *steal], from) {
                    self.pressed = Some((since, at, text));
                    return;
                }
                self.calm = Some(at);
                self.pressed = self.pressed.take().filter(|(_, seen, _)| at.since(*seen) <= PRESSURE_ENDS);
            }
            HostSign::Disk { path, free, total, latency } => {
                let old = self.disks.remove(path);
                self.disks.insert(path.clone(), DiskView::after(old, at, (*free, *total), *latency));
            }
            HostSign::Kernel(finding) => self.hear_kernel(at, finding),
            HostSign::Memory { available, total } => self.memory = Some((at, *available, *total)),
        }
    }

    /// Of each kind the last line is kept.
    fn hear_kernel(&mut self, at: Timestamp, finding: &Finding) {
        let Some(kind) = meaning(finding.kind) else { return };
        self.kernel.retain(|(other, ..)| *other != kind);
        self.kernel.push((kind, at, finding.line.clone()));
    }

    /// Anybody on the host may write to its logs: what they say is believed of the host alone, to which nothing is
    /// ever done, and says nothing of its VMs (I10).
    pub fn hear_log(&mut self, at: Timestamp, source: &str, finding: &Finding) {
        let Some(kind) = meaning(finding.kind).filter(|kind| is_of_host_alone(*kind)) else { return };
        self.logs.retain(|told| told.kind != kind);
        self.logs.push(Told { kind, at, source: source.to_owned(), line: finding.line.clone() });
    }

    /// We were not there from then until then. Returns how much of that was not known yet: the same sleep shows as a
    /// gap between our inputs and as a lag of our loop, and is forgiven once.
    pub fn sleep(&mut self, from: Timestamp, to: Timestamp) -> Duration {
        let known = self.slept.filter(|(since, until)| *since < to && from < *until);
        let (since, until) = known.unwrap_or((from, from));
        self.slept = Some((since.min(from), until.max(to)));
        since.since(from) + to.since(until.max(from))
    }

    /// What we saw of ourselves. Returns how long the loop slept that was not known yet, if that matters.
    pub fn observe_self(&mut self, at: Timestamp, sign: &ObserverSign) -> Option<Duration> {
        match sign {
            ObserverSign::Lag(lag) if *lag >= LAG_MATTERS => {
                self.doubt(at, *lag);
                Some(self.sleep(at - *lag, at))
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
        self.speak_pressure(lens, self.is_pressed(lens.now), say);
        self.speak_of_self(lens, say);
        self.speak_kernel(lens, |kind| !is_of_host_alone(kind), say);
    }

    fn speak_kernel(&self, lens: &Lens, wanted: impl Fn(Kind) -> bool, say: &mut Vec<Evidence>) {
        let told =
            |(kind, at, _): &&(Kind, Timestamp, String)| wanted(*kind) && lens.now.since(*at) <= KERNEL_KEEPS;
        for (kind, at, line) in self.kernel.iter().filter(told) {
            let text = format!("the host's kernel, {} ago: {line}", lasted(lens, *at));
            let strength = lens.aged(*at, KERNEL_HALF_LIFE);
            let (kind, quote) = (*kind, Some(Quote { at: *at, line: line.clone() }));
            say.push(Evidence { kind, app: None, since: *at, at: lens.now, strength, text, quote });
        }
    }

    fn speak_logs(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        for told in self.logs.iter().filter(|told| lens.now.since(told.at) <= KERNEL_KEEPS) {
            let text = format!("{}, {} ago: {}", told.source, lasted(lens, told.at), told.line);
            let strength = lens.aged(told.at, KERNEL_HALF_LIFE);
            let quote = Some(Quote { at: told.at, line: told.line.clone() });
            let (kind, since, at) = (told.kind, told.at, lens.now);
            say.push(Evidence { kind, app: None, since, at, strength, text, quote });
        }
    }

    /// What host and observer say of the host itself: the same, but pressure only once it has lasted and until
    /// it is over for good; and its disks.
    pub fn speak_of_host(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let lasts = |(since, at, _): &(Timestamp, Timestamp, String)| at.since(*since) >= PRESSURE_TELLS;
        self.speak_pressure(lens, self.pressed.as_ref().is_some_and(lasts), say);
        self.speak_of_self(lens, say);
        for (_, text, since) in self.full_disks() {
            let kind = Kind::HostDiskFull;
            say.push(Evidence { kind, app: None, since, at: lens.now, strength: FULL, text, quote: None });
        }
        self.speak_kernel(lens, is_of_host_alone, say);
        self.speak_logs(lens, say);
        self.speak_disks(lens, say);
        let low = |(_, available, total): &(Timestamp, u64, u64)| {
            available.saturating_mul(1_000) < total.saturating_mul(MEMORY_LOW_BELOW)
        };
        let memory = self.memory.filter(|(at, ..)| lens.now.since(*at) <= FACT_KEEPS).filter(low);
        if let Some((at, available, total)) = memory {
            let text = format!("{} of {} MiB of the host's memory left", available >> 20, total >> 20);
            let kind = Kind::HostMemoryLow;
            say.push(Evidence {
                kind,
                app: None,
                since: at,
                at: lens.now,
                strength: FULL,
                text,
                quote: None,
            });
        }
    }

    fn speak_disks(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let known = |(_, disk): &(&String, &DiskView)| lens.now.since(disk.at) <= FACT_KEEPS;
        for (path, disk) in self.disks.iter().filter(known) {
            let mut push = |kind, text| {
                say.push(Evidence {
                    kind,
                    app: None,
                    since: disk.at,
                    at: lens.now,
                    strength: FULL,
                    text,
                    quote: None,
                });
            };
            if is_full(disk.free, disk.total) {
                continue; // that is what ails it
            }
            if disk.failed.is_some_and(|times| times >= 2) {
                push(Kind::HostStorageLost, format!("{path} takes no write any more, though it has room"));
            } else if disk.slow.0 >= 2 {
                let took = crate::time::show(disk.slow.1);
                push(Kind::HostStorageSlow, format!("a small write to {path} took {took}"));
            }
            if let Some(forecast) = disk.fills.forecast() {
                push(Kind::HostDiskFilling, format!("{path} will be full {}", forecast.text()));
            }
        }
    }

    fn speak_pressure(&self, lens: &Lens, pressed: bool, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, text| {
            say.push(Evidence { kind, app: None, since, at, strength: FULL, text, quote: None });
        };
        if let Some((since, at, text)) = self.pressed.as_ref().filter(|_| pressed) {
            let text = format!("host under pressure for {}: {text}", lasted(lens, *since));
            push(Kind::HostPressed, *since, *at, text);
        } else if let Some(at) = self.calm.filter(|at| lens.now.since(*at) <= PRESSURE_KEEPS) {
            push(Kind::HostCalm, at, at, "host under no pressure".into());
        }
    }

    fn speak_of_self(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, text| {
            say.push(Evidence { kind, app: None, since, at, strength: FULL, text, quote: None });
        };
        if let Some((since, at, worst)) = self.lag.filter(|(_, at, _)| lens.now.since(*at) <= PRESSURE_KEEPS)
        {
            let text = format!("our own loop ran up to {} late", crate::time::show(worst));
            push(Kind::ObserverLags, since, at, text);
        } else {
            push(Kind::ObserverOnTime, lens.now, lens.now, "our own loop is on time".into());
        }
    }
}

impl DiskView {
    fn after(old: Option<Self>, at: Timestamp, (free, total): (u64, u64), latency: Option<Duration>) -> Self {
        let full = is_full(free, total);
        let same = old.as_ref().filter(|disk| is_full(disk.free, disk.total) == full);
        let since = same.map_or(at, |disk| disk.since);
        let (failed, slow, mut fills) = old
            .map_or((None, (0, Duration::ZERO), Filling::default()), |old| (old.failed, old.slow, old.fills));
        fills.observe(at, total.saturating_sub(free), total);
        let failed = match (latency, failed) {
            (Some(_), _) => Some(0),
            (None, before) => before.map(|times| times.saturating_add(1)), // never taken a write: not ours to write to
        };
        let slow = match latency.filter(|took| *took >= SLOW_WRITE) {
            Some(took) => (slow.0.saturating_add(1), took),
            None => (0, Duration::ZERO),
        };
        Self { free, total, writable: latency.is_some() || free > 0, since, at, failed, slow, fills }
    }
}

/// What a line of the host says of it; nothing of most kinds.
const fn meaning(kind: FindingKind) -> Option<Kind> {
    Some(match kind {
        FindingKind::DiskIoError | FindingKind::FsError | FindingKind::FsReadOnly => Kind::HostDiskErrors,
        FindingKind::OutOfMemory => Kind::HostOutOfMemory,
        FindingKind::HardwareFailing => Kind::HostHardwareFails,
        FindingKind::LinkLost => Kind::HostLinkLost,
        FindingKind::StorageLost => Kind::HostStorageLost,
        FindingKind::StorageSlow => Kind::HostStorageSlow,
        FindingKind::NoConnectionLeft
        | FindingKind::DataCorrupt
        | FindingKind::ReplicationBroken
        | FindingKind::LocksPileUp
        | FindingKind::ImageCorrupt
        | FindingKind::KernelPanic
        | FindingKind::KernelOops
        | FindingKind::HungTask
        | FindingKind::DiskFull
        | FindingKind::RootLost
        | FindingKind::BootStarted
        | FindingKind::BootFinished
        | FindingKind::AppPanic
        | FindingKind::AppStarting
        | FindingKind::AppReady
        | FindingKind::GoingDown
        | FindingKind::ServiceFailed
        | FindingKind::MemoryShort
        | FindingKind::SpaceShort => return None,
    })
}

/// What says nothing of a VM, but of the host alone.
const fn is_of_host_alone(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::HostHardwareFails | Kind::HostLinkLost | Kind::HostStorageLost | Kind::HostStorageSlow
    )
}

/// What presses, of processor, memory, storage and theft, from this share of its limit on.
fn pressure(shares: [u16; 4], from: u16) -> Option<String> {
    let limits = [
        (CPU_PRESSED, "waiting for a processor"),
        (MEMORY_PRESSED, "waiting for memory"),
        (IO_PRESSED, "waiting for storage"),
        (STEAL_PRESSED, "stolen by a hypervisor above"),
    ];
    let presses = |share: u16, limit: u16| u32::from(share) * 100 >= u32::from(limit) * u32::from(from);
    let pressing = shares.into_iter().zip(limits).filter(|(share, (limit, _))| presses(*share, *limit));
    let parts: Vec<String> = pressing.map(|(share, (_, what))| format!("{what} {} %", share / 10)).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

const fn is_full(free: u64, total: u64) -> bool {
    total > 0 && free.saturating_mul(1_000) < total.saturating_mul(DISK_FULL_BELOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(now: Timestamp) -> Lens {
        let (fresh, hang_after) = (Duration::from_secs(4), Duration::from_secs(10));
        Lens { now, fresh, hang_after, trust_silence: true, patience: 1, booting: false, excused: false }
    }

    /// Shares of processor pressure in percent, one every two seconds, and how often a person was told of a
    /// new one.
    fn told(shares: impl IntoIterator<Item = u16>) -> usize {
        let (mut view, mut before, mut times) = (HostView::default(), false, 0);
        for (turn, share) in (0_u64..).zip(shares) {
            let now = Timestamp::from_micros(turn * 2_000_000);
            view.observe(now, &HostSign::Pressure { cpu: share * 10, memory: 0, io: 0, steal: 0 });
            let mut say = Vec::new();
            view.speak_of_host(&lens(now), &mut say);
            let tells = say.iter().any(|evidence| evidence.kind == Kind::HostPressed);
            times += usize::from(tells && !before);
            before = tells;
        }
        times
    }

    #[test]
    fn pressure_that_comes_and_goes_is_told_once() {
        let busy = (0..120).map(|turn| if turn % 7 < 4 { 98 } else { 93 });
        assert_eq!(told(busy), 1);
        let spells = (0..120).map(|turn| if turn % 12 < 6 { 99 } else { 20 });
        assert_eq!(told(spells), 1);
    }

    #[test]
    fn a_short_spell_is_not_told_and_makes_patient_at_once() {
        let spell = (0..60).map(|turn| if turn < 5 { 99 } else { 20 });
        assert_eq!(told(spell), 0);
        let mut view = HostView::default();
        let now = Timestamp::from_micros(1);
        view.observe(now, &HostSign::Pressure { cpu: 990, memory: 0, io: 0, steal: 0 });
        assert_eq!(view.patience(now), PATIENCE);
    }

    #[test]
    fn a_busy_host_below_the_limit_is_not_pressed() {
        assert_eq!(told((0..60).map(|_| 93)), 0);
    }

    /// What is found of the host, and what its VMs hear, after this line of a log.
    fn after(kind: FindingKind) -> (Vec<crate::diagnosis::Fault>, usize) {
        let (mut view, now) = (HostView::default(), Timestamp::from_secs(7));
        let finding = Finding { kind, rule: "any".into(), line: "smartd: it fails".into() };
        view.hear_log(now, "journal", &finding);
        let (mut of_host, mut to_vms) = (Vec::new(), Vec::new());
        view.speak_of_host(&lens(now), &mut of_host);
        view.speak(&lens(now), &mut to_vms);
        let found = crate::diagnosis::Catalogue::standard().diagnose_host(&of_host);
        let quoted = to_vms.iter().filter(|evidence| evidence.quote.is_some()).count();
        (found.iter().map(|diagnosis| diagnosis.fault).collect(), quoted)
    }

    #[test]
    fn a_log_of_the_host_is_believed_of_its_hardware_and_tells_its_vms_nothing() {
        use crate::diagnosis::Fault::{HostFailing, HostNetLost, StorageLost, StorageSlow};
        assert_eq!(after(FindingKind::HardwareFailing), (vec![HostFailing], 0));
        assert_eq!(after(FindingKind::LinkLost), (vec![HostNetLost], 0));
        assert_eq!(after(FindingKind::StorageLost), (vec![StorageLost], 0));
        assert_eq!(after(FindingKind::StorageSlow), (vec![StorageSlow], 0));
        assert_eq!(after(FindingKind::DiskIoError), (vec![], 0));
        assert_eq!(after(FindingKind::KernelPanic), (vec![], 0));
    }

    #[test]
    fn a_host_with_next_to_no_memory_is_overloaded_and_one_with_room_is_not() {
        let faults = |available: u64| {
            let (mut view, mut say) = (HostView::default(), Vec::new());
            let now = Timestamp::from_secs(7);
            view.observe(now, &HostSign::Memory { available, total: 8 << 30 });
            view.speak_of_host(&lens(now), &mut say);
            let found = crate::diagnosis::Catalogue::standard().diagnose_host(&say);
            found.iter().map(|diagnosis| diagnosis.fault).collect::<Vec<_>>()
        };
        assert_eq!(faults(100 << 20), [crate::diagnosis::Fault::HostOverloaded]);
        assert_eq!(faults(400 << 20), []);
    }
}
