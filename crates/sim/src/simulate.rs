//! Random stories: one seed gives the VMs, what happens to them, and when it is all over. Each is run with
//! every invariant checked at each step; then all faults end, and every VM must be well or held (I21).

use crate::checker::Violation;
use crate::faults::{
    AgentFault, AppFault, CableFault, DaemonFault, DiskFault, GuestFault, Happening, HostFault,
    HypervisorFault, ORDERS, PersonWish, ProcessFault, Quirk,
};
use crate::mutant::Mutant;
use crate::random::{Random, noise};
use crate::run::Options;
use crate::scenario::tell;
use crate::story::{Event, FoundAs, Moment, Story, VmSetup, When};
use holdfast_core::action::Work;
use holdfast_core::diagnosis::Fault;
use holdfast_core::isolate::Isolation;
use holdfast_core::plan::Remedy;
use holdfast_core::policy::{Ability, AppPolicy, Mode};
use holdfast_core::subject::{AppName, VmName};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How seeds are run.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// With one thing done wrongly.
    pub mutant: Option<Mutant>,
    /// So many at the same time, at least one.
    pub threads: usize,
    /// Stop at the first seed that fails.
    pub stop: bool,
    /// Go through quiet time probe by probe.
    pub dont_skip: bool,
}

/// A seed that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
    /// Its story, as a file could hold it.
    pub story: String,
    /// What Holdfast did.
    pub timeline: Vec<String>,
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds that were run.
    pub seeds: u64,
    /// The time that all their VMs lived, in seconds.
    pub vm_seconds: u64,
    /// Inputs that engines took in.
    pub inputs: u64,
    /// Confirmed incidents by fault.
    pub faults: BTreeMap<Fault, u64>,
    /// Remedies that were tried.
    pub remedies: BTreeMap<Remedy, u64>,
    /// Seeds that broke an invariant, lowest first.
    pub failures: Vec<Failure>,
}

/// Runs random stories.
#[must_use]
pub fn run(seeds: Seeds) -> Report {
    run_stories(seeds, story)
}

/// Runs the stories that this tells of each seed.
#[must_use]
pub fn run_stories(seeds: Seeds, tells: fn(u64) -> Story) -> Report {
    let next = AtomicU64::new(0);
    let failed_at = AtomicU64::new(u64::MAX);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..seeds.threads.max(1) {
            scope.spawn(|| {
                let mut own = Report::default();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let done = seeds.stop && number > failed_at.load(Ordering::Relaxed);
                    if number >= seeds.count || done {
                        break;
                    }
                    let seed = seeds.from.wrapping_add(number);
                    let (mutant, dont_skip) = (seeds.mutant, seeds.dont_skip);
                    if own.add(&tells(seed), Options { seed, mutant, dont_skip, ..Options::default() }) {
                        failed_at.fetch_min(number, Ordering::Relaxed);
                    }
                }
                report.lock().expect("no thread panics while it adds").merge(own);
            });
        }
    });
    let mut report = report.into_inner().expect("no thread panics while it adds");
    report.failures.sort_by_key(|failure| failure.seed);
    report
}

impl Report {
    /// Runs one seed; true if it broke an invariant.
    fn add(&mut self, story: &Story, options: Options) -> bool {
        let seed = options.seed;
        let told = tell(story, Options { quiet: true, ..options.clone() });
        self.seeds += 1;
        self.vm_seconds += told.lasted.as_secs() * story.vms.len() as u64;
        self.inputs += told.inputs;
        for (fault, remedies) in told.outcomes {
            *self.faults.entry(fault).or_default() += 1;
            remedies.into_iter().for_each(|remedy| *self.remedies.entry(remedy).or_default() += 1);
        }
        let Some(violation) = told.violations.into_iter().next() else { return false };
        let timeline = tell(story, options).timeline;
        self.failures.push(Failure { seed, violation, story: story.to_string(), timeline });
        true
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.vm_seconds += other.vm_seconds;
        self.inputs += other.inputs;
        other.faults.into_iter().for_each(|(fault, n)| *self.faults.entry(fault).or_default() += n);
        other.remedies.into_iter().for_each(|(remedy, n)| *self.remedies.entry(remedy).or_default() += n);
        self.failures.extend(other.failures);
    }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A VM that is started when the story begins has so long until things happen to it.
const FIRST_START: Duration = secs(20 * 60);

/// The story of a seed.
#[must_use]
pub fn story(seed: u64) -> Story {
    let mut random = Random::new(seed);
    let host = "atlas".parse().expect("atlas is a name");
    let aimed = crate::aims::aims(seed);
    let counts: &[u64] =
        if aimed { crate::aims::COUNTS } else { &[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 5, 12] };
    let count = *random.pick(counts);
    let mut vms: Vec<VmSetup> = (1..=count).map(|n| vm(&mut random, n)).collect();
    for (number, vm) in (0..).zip(&mut vms) {
        vm.policy.isolate = match noise(seed, number, 0, 6) {
            0 => Isolation::Network,
            1 => Isolation::Pause,
            _ => Isolation::None,
        };
    }
    let mut events = Vec::new();
    for (number, vm) in (0..).zip(&mut vms).filter(|(number, _)| noise(seed, *number, 1, 4) == 0) {
        vm.policy.max_data_loss =
            *[secs(60), secs(3_600 * 1_000)].get(noise(seed, number, 2, 2) as usize).unwrap_or(&secs(60));
        let wish = PersonWish::Snapshot { memory: noise(seed, number, 3, 2) == 0 };
        let what = Happening::Person(vm.name.clone(), wish);
        events.push(Event { when: When::At(secs(15)), what, lasting: None });
    }
    for (_, vm) in (0..).zip(&mut vms).filter(|(number, _)| noise(seed, *number, 4, 16) == 0) {
        vm.policy.protect.snapshot = Some(crate::snapshots::schedule(secs(50 * 3_600)));
    }
    let mut at = random.between(secs(20), secs(240 * 3_600));
    if vms.iter().any(|vm| vm.found == FoundAs::Off) {
        at = at.min(FIRST_START); // what befalls its first start does not last for days
    }
    let begins = at;
    events.extend(lost_kernels(seed, begins, &vms));
    for round in 0..*random.pick(&[1, 1, 1, 1, 2]) {
        if round > 0 {
            for (after, what) in
                [(60, Happening::Repair), (60, Happening::RestartIll), (60, Happening::RestartIll)]
            {
                at += secs(after);
                events.push(Event { when: When::At(at), what, lasting: None });
            }
            at += random.between(secs(120), secs(2 * 3_600));
        }
        if aimed {
            let (aim, last) = crate::aims::aim(&mut random, at, &vms);
            events.extend(aim);
            at = last;
        }
        for _ in 0..=random.below(if aimed { 2 } else { 6 }) {
            at += random.between(Duration::ZERO, secs(25));
            events.push(event(&mut random, at, &vms));
        }
    }
    let heals = at + random.between(secs(10), secs(60));
    if crate::pairs::changes_mind(seed) {
        events.extend(crate::pairs::besides(seed, begins, at, &vms));
    }
    let why = vec![format!("seed {seed}: a random story. I1 I2 I3 I5 I6 I7 I8 I9 I10 I11 I20 I21")];
    let learns = noise(seed, u64::MAX, 0, 4) == 0;
    Story { why, host, vms, events, learns, heals: Some(heals), until: None }
}

/// Some VMs could not start again when it begins. Nobody notices while they run.
fn lost_kernels(seed: u64, begins: Duration, vms: &[VmSetup]) -> impl Iterator<Item = Event> {
    let lost = (0..).zip(vms).filter(move |(number, _)| noise(seed, *number, 5, 16) == 0);
    lost.map(move |(_, vm)| Event {
        when: When::At(begins.saturating_sub(secs(10))),
        what: Happening::Hypervisor(vm.name.clone(), HypervisorFault::LosesKernel),
        lasting: None,
    })
}

/// The story of a seed in which nothing is broken, and persons give two or three wishes shortly after each other.
#[must_use]
pub fn wishes(seed: u64) -> Story {
    crate::pairs::story(seed)
}

fn vm(random: &mut Random, number: u64) -> VmSetup {
    let name: VmName = format!("vm{number}").parse().expect("a letter and digits are a name");
    let mut vm = VmSetup::plain(name);
    vm.boots_in = random.between(secs(2), secs(15));
    vm.policy.boot_limit = random.between(secs(40), secs(90));
    vm.policy.budget.tries = 1 + random.below(4) as u32;
    vm.policy.budget.within = *random.pick(&[secs(600), secs(3_600)]);
    vm.policy.hang_after = *random.pick(&[secs(5), secs(10), secs(10), secs(20)]);
    vm.tap = random.percent(30);
    vm.checked = random.percent(30);
    vm.agent = !random.percent(12);
    vm.watchdog = random.percent(15).then(|| random.between(secs(5), secs(30)));
    vm.large = random.percent(15);
    vm.policy.mode = if random.percent(4) { Mode::Observe } else { Mode::Armed };
    vm.found = *random.pick(&[FoundAs::Running; 12]);
    if random.percent(8) {
        vm.found = *random.pick(&[FoundAs::Unleased, FoundAs::Off]);
    }
    if random.percent(8) {
        vm.policy.abilities.remove(random.pick(&[Ability::Reset, Ability::Exec, Ability::Link]));
    }
    if number > 1 && random.percent(10) {
        vm.policy.needs.push("vm1".parse().expect("vm1 is a name"));
    }
    let app = |name: &str| name.parse::<AppName>().expect("it is a name");
    match random.below(10) {
        0 => vm.policy.apps.clear(),
        1 | 2 => drop(vm.policy.apps.insert(app("cache"), AppPolicy { can_restart: random.percent(80) })),
        3 => drop(vm.policy.apps.insert(app("db"), AppPolicy { can_restart: false })),
        _ => {}
    }
    vm
}

fn event(random: &mut Random, at: Duration, vms: &[VmSetup]) -> Event {
    let vm = random.pick(vms);
    let what = happening(random, vm);
    let lasting = lasting(random, &what);
    let when = if random.percent(12) { upon(random, vm, at) } else { When::At(at) };
    Event { when, what, lasting }
}

/// A moment that depends on what Holdfast does, where the daemon or a person may interfere.
fn upon(random: &mut Random, vm: &VmSetup, at: Duration) -> When {
    let order = (*random.pick(&["power-off", "start", "take-lease", "reset", "restart-app"])).to_owned();
    match random.below(4) {
        0 => When::Upon(Moment::Recorded(order, vm.name.clone())),
        1 => When::Upon(Moment::Done(order, vm.name.clone())),
        2 => {
            let phase = *random.pick(&["suspected", "waiting", "recovering", "verifying", "held"]);
            When::Upon(Moment::Phase(vm.name.clone(), phase.to_owned()))
        }
        _ => When::At(at),
    }
}

/// What can be taken back is, after a while, in most cases.
fn lasting(random: &mut Random, what: &Happening) -> Option<Duration> {
    what.undo()?;
    let (least, most) = match what {
        Happening::Daemon(DaemonFault::Crashes) => (Duration::from_millis(200), secs(20)),
        Happening::Daemon(_) => (Duration::from_millis(50), secs(30)),
        Happening::Reload(_) => (secs(1), secs(40)),
        _ => (Duration::from_millis(500), secs(45)),
    };
    let always = matches!(what, Happening::Daemon(_) | Happening::Reload(_));
    (always || random.percent(70)).then(|| random.between(least, most))
}

fn happening(random: &mut Random, vm: &VmSetup) -> Happening {
    let name = vm.name.clone();
    match random.below(100) {
        0..14 => Happening::Process(name, *random.pick(PROCESS)),
        14..20 => Happening::Hypervisor(name, *random.pick(HYPERVISOR)),
        20..48 => Happening::Guest(name, *random.pick(GUEST)),
        48..54 => Happening::Agent(name, *random.pick(AGENT)),
        54..66 => match vm.policy.apps.keys().next_back() {
            Some(app) => Happening::App(name, app.clone(), *random.pick(APP)),
            None => Happening::Guest(name, GuestFault::Hangs),
        },
        66..69 => Happening::Cable(name, CableFault::Unplugged),
        69..72 => Happening::Disk(name, *random.pick(DISK)),
        72..77 => {
            let quirk = *random.pick(&[Quirk::Fails, Quirk::Unanswered, Quirk::Lost, Quirk::Late]);
            Happening::Order((*random.pick(ORDERS)).to_owned(), name, quirk)
        }
        77..82 => Happening::Host(*random.pick(HOST)),
        82..90 => Happening::Daemon(*random.pick(DAEMON)),
        90..91 => Happening::Reload(Some(name)),
        91..92 => Happening::WallClock(*random.pick(&[31_536_000, -31_536_000, 3_600, -60])),
        _ => Happening::Person(name, wish(random)),
    }
}

fn wish(random: &mut Random) -> PersonWish {
    let long = random.between(secs(5), secs(120));
    match random.below(12) {
        0 => PersonWish::Start,
        1 => PersonWish::Stop { at_once: random.percent(50) },
        2 => PersonWish::Restart { at_once: random.percent(50) },
        3 => PersonWish::Pause,
        4 => PersonWish::Resume,
        5 | 6 => PersonWish::Maintain(random.percent(70).then_some(long)),
        7 => PersonWish::EndMaintenance,
        8 => PersonWish::Release,
        9 | 10 => {
            let works = [Work::Drill, Work::Backup, Work::Freeze, Work::Migration, Work::Reboot];
            PersonWish::Announce(*random.pick(&works), long)
        }
        _ => PersonWish::EndWork(Work::Drill),
    }
}

const PROCESS: &[ProcessFault] = &[
    ProcessFault::Dies,
    ProcessFault::Dies,
    ProcessFault::Dies,
    ProcessFault::Stops,
    ProcessFault::Stops,
    ProcessFault::CannotDie,
    ProcessFault::DiesSlowly,
];
const DISK: &[DiskFault] =
    &[DiskFault::Fails, DiskFault::Fails, DiskFault::Fails, DiskFault::Taken, DiskFault::Damaged];
const HYPERVISOR: &[HypervisorFault] = &[
    HypervisorFault::Mute,
    HypervisorFault::Mute,
    HypervisorFault::SaysRunning,
    HypervisorFault::Fails,
    HypervisorFault::RefusesStart,
];
const GUEST: &[GuestFault] = &[
    GuestFault::Hangs,
    GuestFault::Hangs,
    GuestFault::HangsWorking,
    GuestFault::HangsForGood,
    GuestFault::Panics,
    GuestFault::Panics,
    GuestFault::PanicsUnheard,
    GuestFault::Reboots,
    GuestFault::Reboots,
    GuestFault::PowersDown,
    GuestFault::Busy,
    GuestFault::WritesNothing,
    GuestFault::OutOfMemory,
    GuestFault::DiskFull,
    GuestFault::ReadOnly,
    GuestFault::NetLost,
    GuestFault::Freezes,
    GuestFault::TripsWatchdog,
    GuestFault::CannotBoot,
    GuestFault::LosesRoot,
    GuestFault::PanicsAtBoot,
    GuestFault::ResetsAtBoot,
    GuestFault::BootsSlowly,
    GuestFault::PrintsPanic,
    GuestFault::PrintsOutOfMemory,
    GuestFault::PrintsIoError,
    GuestFault::PrintsDiskFull,
    GuestFault::PrintsHungTask,
    GuestFault::Fills,
];
const AGENT: &[AgentFault] = &[AgentFault::Mute, AgentFault::Away, AgentFault::SaysWell];
const APP: &[AppFault] = &[
    AppFault::Dies,
    AppFault::Dies,
    AppFault::Hangs,
    AppFault::Hangs,
    AppFault::Wrong,
    AppFault::Exhausted,
    AppFault::Denies,
    AppFault::Starts,
    AppFault::Broken,
    AppFault::Ruined,
    AppFault::Slow,
    AppFault::CannotBeProbed,
    AppFault::Crawls,
    AppFault::LogsExhausted,
    AppFault::LogsDamage,
    AppFault::LogsLocks,
    AppFault::LogsPanic,
    AppFault::LogsPanic,
    AppFault::LogsNews,
];
const HOST: &[HostFault] = &[
    HostFault::Pressed,
    HostFault::Slow,
    HostFault::DiskFull,
    HostFault::StateFull,
    HostFault::LosesPower,
    HostFault::DiskSlow,
    HostFault::DiskGone,
];
const DAEMON: &[DaemonFault] = &[
    DaemonFault::Crashes,
    DaemonFault::Crashes,
    DaemonFault::Crashes,
    DaemonFault::Stalls,
    DaemonFault::Stalls,
    DaemonFault::LosesRecord,
];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_random_story_can_be_kept_as_a_file() {
        for seed in 0..300 {
            let story = story(seed);
            assert_eq!(story.to_string().parse::<Story>().unwrap(), story, "seed {seed}");
        }
    }
}
