//! Random stories of persons who change their mind: two or three wishes for one VM, shortly after each other, or at the
//! very moment at which what the first one asked for is done. The order in which single wishes come by chance is hours
//! apart, so chance alone would never show what becomes of a stop that is followed by a start.

use crate::faults::{Happening, PersonWish};
use crate::random::Random;
use crate::story::{Event, FoundAs, Moment, Story, VmSetup, When};
use holdfast_core::action::Work;
use holdfast_core::point::SnapshotId;
use holdfast_core::policy::Mode;
use std::time::Duration;

/// Whether persons change their mind in the random story of this seed, too.
pub(crate) const fn changes_mind(seed: u64) -> bool {
    seed % 8 == 3
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What was asked for has come true after this, and is looked at for a while.
const APART: (Duration, Duration) = (secs(150), secs(600));
/// Two wishes are so far apart.
const SOON: (Duration, Duration) = (Duration::from_millis(50), secs(5));

/// The orders that follow from wishes, and so the moments at which the next wish may come.
const ORDERS: &[&str] = &[
    "shutdown",
    "power-off",
    "take-lease",
    "start",
    "release-lease",
    "rewind",
    "pause",
    "continue",
    "inspect",
];

/// Wishes from that time on, and when the last of them is given.
fn pair(random: &mut Random, at: Duration, vms: &[VmSetup]) -> (Vec<Event>, Duration) {
    let vm = random.pick(vms);
    let (mut events, mut last) = (Vec::new(), at);
    let count = if random.percent(35) { 3 } else { 2 };
    for number in 0..count {
        let what = Happening::Person(vm.name.clone(), wish(random));
        if number > 0 {
            last += random.between(SOON.0, SOON.1);
        }
        let when = if number > 0 && random.percent(30) { moment(random, vm) } else { When::At(last) };
        events.push(Event { when, what, lasting: None });
    }
    (events, last)
}

/// A wish comes while an order is on its way, or before anybody knows that it is done.
fn moment(random: &mut Random, vm: &VmSetup) -> When {
    let (order, name) = ((*random.pick(ORDERS)).to_owned(), vm.name.clone());
    let recorded = random.percent(50);
    When::Upon(if recorded { Moment::Recorded(order, name) } else { Moment::Done(order, name) })
}

fn wish(random: &mut Random) -> PersonWish {
    let at_once = random.percent(40);
    match random.below(24) {
        0..5 => PersonWish::Start,
        5..10 => PersonWish::Stop { at_once },
        10..14 => PersonWish::Restart { at_once },
        14 => PersonWish::Pause,
        15 => PersonWish::Resume,
        16 | 17 => PersonWish::Maintain(at_once.then(|| random.between(secs(1), secs(120)))),
        18 => PersonWish::EndMaintenance,
        19 => PersonWish::Release,
        20 => {
            let works = [Work::Drill, Work::Backup, Work::Freeze, Work::Migration, Work::Reboot];
            PersonWish::Announce(*random.pick(&works), random.between(secs(1), secs(45)))
        }
        21 => PersonWish::Snapshot { memory: at_once },
        _ => PersonWish::GoBack { to: SnapshotId(1 + random.below(3)), resume: at_once },
    }
}

/// The wishes that the random story of a seed has besides, drawn apart from everything else in it: before anything
/// else happens, if there is time, and amid what does.
pub(crate) fn besides(seed: u64, begins: Duration, ends: Duration, vms: &[VmSetup]) -> Vec<Event> {
    let mut random = Random::new(!seed);
    let mut events = Vec::new();
    let calm = secs(60) + random.between(Duration::ZERO, secs(60));
    if calm + APART.0 < begins {
        events.extend(pair(&mut random, calm, vms).0);
    }
    let amid = random.between(begins, ends);
    events.extend(pair(&mut random, amid, vms).0);
    events
}

/// A story in which nothing is broken, and persons change their mind again and again.
pub(crate) fn story(seed: u64) -> Story {
    let mut random = Random::new(seed ^ 0x7769_7368);
    let Story { host, mut vms, learns, .. } = crate::simulate::story(seed);
    vms.truncate(3);
    for vm in &mut vms {
        vm.found = FoundAs::Running;
        vm.policy.protect.snapshot = None;
        vm.policy.mode = if random.percent(15) { Mode::Observe } else { Mode::Armed };
    }
    let mut events = Vec::new();
    for vm in &vms {
        let wish = PersonWish::Snapshot { memory: random.percent(50) };
        let what = Happening::Person(vm.name.clone(), wish);
        events.push(Event { when: When::At(secs(15)), what, lasting: None });
    }
    let mut at = random.between(secs(20), secs(120));
    for _ in 0..=random.below(6) {
        let (pair, last) = pair(&mut random, at, &vms);
        events.extend(pair);
        at = last + random.between(APART.0, APART.1);
    }
    let why = vec![format!("wishes {seed}: persons change their mind, and nothing is broken. I5 I6 I21")];
    Story { why, host, vms, events, learns, heals: Some(at), until: None }
}
