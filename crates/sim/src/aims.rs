//! Random stories that aim at one promise: events that hit only together are put close to each other. Chance
//! alone would need thousands of seeds for what these find in a few.

use crate::faults::{AppFault, DaemonFault, DiskFault, GuestFault, Happening, HostFault, PersonWish};
use crate::faults::{ProcessFault, Quirk};
use crate::random::Random;
use crate::story::{Event, VmSetup, When};
use holdfast_core::subject::AppName;
use std::time::Duration;

/// Whether the story of this seed aims at something.
pub(crate) const fn aims(seed: u64) -> bool {
    seed % 8 == 5
}

/// How many VMs such a story may have.
pub(crate) const COUNTS: &[u64] = &[1, 1, 2, 5, 5, 12];

fn event(at: Duration, what: Happening, lasting: Option<Duration>) -> Event {
    Event { when: When::At(at), what, lasting }
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The events of one aim, from that time on, and when the last of them begins.
pub(crate) fn aim(random: &mut Random, at: Duration, vms: &[VmSetup]) -> (Vec<Event>, Duration) {
    let vm = random.pick(vms).clone();
    match random.below(5) {
        0 => late_order(random, at, &vm),
        1 if vms.len() > 4 => storm(random, at, vms),
        1 | 2 => stall(random, at, &vm),
        3 => power_cut(random, at, &vm),
        _ => late_news(random, at, &vm),
    }
}

/// Something that needs this order.
fn needs(random: &mut Random, vm: &VmSetup) -> (&'static str, Happening) {
    let name = vm.name.clone();
    let app: Option<&AppName> = vm.policy.apps.keys().next_back();
    match (random.below(6), app) {
        (0, _) => ("power-off", Happening::Process(name, ProcessFault::Stops)),
        (1, _) => ("start", Happening::Process(name, ProcessFault::Dies)),
        (2, _) => ("take-lease", Happening::Process(name, ProcessFault::Dies)),
        (3, _) => ("continue", Happening::Disk(name, DiskFault::Fails)),
        (4, Some(app)) => ("restart-app", Happening::App(name, app.clone(), AppFault::Dies)),
        _ => ("reset", Happening::Guest(name, GuestFault::Panics)),
    }
}

/// An order is lost or late, and by then another incarnation runs (I1, I2, I3, I9).
fn late_order(random: &mut Random, at: Duration, vm: &VmSetup) -> (Vec<Event>, Duration) {
    let (order, fault) = needs(random, vm);
    let quirk = *random.pick(&[Quirk::Late, Quirk::Late, Quirk::Unanswered, Quirk::Lost]);
    let quirk = Happening::Order(order.to_owned(), vm.name.clone(), quirk);
    let lasts = random.between(secs(5), secs(70));
    let fault_at = at + random.between(secs(1), secs(3));
    let again = *random.pick(&[ProcessFault::Dies, ProcessFault::Dies, ProcessFault::Stops]);
    let again_at = fault_at + random.between(secs(5), secs(40));
    let again = Happening::Process(vm.name.clone(), again);
    (
        vec![event(at, quirk, Some(lasts)), event(fault_at, fault, None), event(again_at, again, None)],
        again_at,
    )
}

/// Many VMs look failed at once (I11).
fn storm(random: &mut Random, at: Duration, vms: &[VmSetup]) -> (Vec<Event>, Duration) {
    let (kind, mut last) = (random.below(3), at);
    let mut strike = |vm: &VmSetup| {
        last = at + random.between(Duration::ZERO, secs(12));
        let what = match kind {
            0 => Happening::Process(vm.name.clone(), ProcessFault::Dies),
            1 => Happening::Guest(vm.name.clone(), GuestFault::Panics),
            _ => Happening::Guest(vm.name.clone(), GuestFault::Hangs),
        };
        event(last, what, None)
    };
    let events = vms.iter().map(&mut strike).collect();
    (events, at + secs(12))
}

/// The daemon stands still, for a moment or for long, and something may happen meanwhile (I10).
fn stall(random: &mut Random, at: Duration, vm: &VmSetup) -> (Vec<Event>, Duration) {
    let long = random.between(Duration::from_millis(1), secs(60));
    let mut events = vec![event(at, Happening::Daemon(DaemonFault::Stalls), Some(long))];
    let meanwhile = at + random.between(Duration::ZERO, long);
    if random.percent(50) {
        let what = *random.pick(&[GuestFault::Reboots, GuestFault::Busy, GuestFault::Hangs]);
        let lasting = (what == GuestFault::Busy).then_some(secs(5));
        events.push(event(meanwhile, Happening::Guest(vm.name.clone(), what), lasting));
    }
    (events, meanwhile)
}

/// The host loses power right after something was said or done: nothing of it may be forgotten (I3, I5, I8).
fn power_cut(random: &mut Random, at: Duration, vm: &VmSetup) -> (Vec<Event>, Duration) {
    let name = vm.name.clone();
    let first = match random.below(3) {
        0 => Happening::Person(name, PersonWish::Maintain(Some(secs(300)))),
        1 => Happening::Process(name, ProcessFault::Dies),
        _ => Happening::Person(name, PersonWish::Restart { at_once: true }),
    };
    let cut = at + random.between(Duration::from_millis(20), secs(2));
    (vec![event(at, first, None), event(cut, Happening::Host(HostFault::LosesPower), None)], cut)
}

/// The end of a process is told when the next one already runs (I3, I10).
fn late_news(random: &mut Random, at: Duration, vm: &VmSetup) -> (Vec<Event>, Duration) {
    let late = Happening::Process(vm.name.clone(), ProcessFault::EndsUnnoticed);
    let stops_at = at + random.between(secs(1), secs(3));
    let stops = Happening::Process(vm.name.clone(), ProcessFault::Stops);
    (vec![event(at, late, Some(secs(40))), event(stops_at, stops, None)], stops_at)
}
