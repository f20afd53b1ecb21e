//! Writers and collectors at once, cut off at every step: no listed point ever loses a block (I13, I14; S67).
//!
//! Every operation on the store is a step. A schedule says who takes the next one; whoever is cut off has all his later steps
//! fail, and the step itself may have been done or not.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;
mod full;
mod memory;

use disks::{Image, Restored};
use full::Full;
use holdfast_backup::block::BLOCK;
use holdfast_backup::collect::{CollectError, Collected, Rules, collect};
use holdfast_backup::key::Cost;
use holdfast_backup::point::Point;
use holdfast_backup::repository::{PointName, Repository, Trouble};
use holdfast_backup::restore;
use holdfast_backup::save::{self, Before, Progress, SaveError};
use holdfast_backup::session::{Open, Session, Writer};
use memory::{Memory, Steps};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

const CHEAP: Cost = Cost { memory: 8, rounds: 1, lanes: 1 };
const DAY: i64 = 86_400_000_000;

/// Five blocks that cannot be compressed, made of these numbers; 0 is a hole.
fn image(blocks: &[u8]) -> Image {
    let mut bytes = Vec::new();
    for number in blocks {
        let mut state = u64::from(*number);
        bytes.extend((0..BLOCK).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(*number));
            (state >> 56) as u8
        }));
    }
    Image(bytes)
}

/// The same with another piece in a block: it is stored as a delta.
fn touched(mut image: Image, block: usize, with: u8) -> Image {
    image.0[block * BLOCK + 5_000..][..200].fill(with);
    image
}

fn open(store: &Memory, steps: Option<&Steps>) -> Result<Repository, Trouble> {
    Repository::open(Box::new(store.seen_by(steps)), b"secret")
}

/// Saves an image as the next point of a VM, told that nothing but these blocks changed since the point of this number.
fn save(
    store: &Memory,
    steps: Option<&Steps>,
    vm: &str,
    image: &Image,
    changed: Option<(u64, &[usize])>,
) -> Result<PointName, SaveError> {
    let mut repository = open(store, steps)?;
    let session = Session::begin(&mut repository, vm, &Writer::default())?;
    let last = repository.points()?.into_iter().rfind(|point| point.vm == vm);
    let changed = changed.filter(|(since, _)| last.as_ref().is_some_and(|last| last.sequence == *since));
    let parent = last.and_then(|name| Some(repository.point(&name).ok()?.disks.remove(0)));
    let ranges = |blocks: &[usize]| {
        blocks.iter().map(|at| (at * BLOCK) as u64..((at + 1) * BLOCK) as u64).collect::<Vec<_>>()
    };
    let changed = changed.map(|(_, blocks)| ranges(blocks));
    let before = Before { parent: parent.as_ref(), changed: changed.as_deref(), ..Before::default() };
    let disk = save::disk(&repository, "disk0", image, before, 1, &Progress::default())?;
    let point = Point { vm: vm.into(), sequence: 0, taken: 7, disks: vec![disk], note: String::new() };
    Ok(session.commit(&repository, point)?)
}

fn nobody_is_dead(_: &Open) -> bool {
    false
}

fn collected(
    store: &Memory,
    steps: Option<&Steps>,
    now: i64,
    is_over: &dyn Fn(&Open) -> bool,
) -> Result<Collected, CollectError> {
    let mut repository = open(store, steps)?;
    let writer = Writer::default();
    let rules = Rules { now, grace: DAY, worth: 50, writer: &writer, is_over, dry: None };
    collect(&mut repository, &rules)
}

fn restored(repository: &Repository, name: &PointName) -> Vec<u8> {
    let disk = repository.point(name).unwrap().disks.remove(0);
    let target = Restored(Mutex::new(vec![0; disk.size as usize]));
    restore::disk(repository, &disk, &target, 1, &AtomicU64::new(0))
        .unwrap_or_else(|why| panic!("{name:?}: {why}"));
    target.0.into_inner().unwrap()
}

/// What each point must be.
type Expected = BTreeMap<PointName, Vec<u8>>;

/// Every listed point is one that somebody saved, and is restored byte for byte.
fn every_point_is_whole(store: &Memory, expected: &Expected) {
    let repository = open(store, None).unwrap();
    for name in repository.points().unwrap() {
        let bytes = restored(&repository, &name);
        assert!(expected.get(&name).is_some_and(|known| *known == bytes), "{name:?} is torn");
    }
}

fn remove_point(store: &Memory, vm: &str, sequence: u64) {
    let name = PointName { vm: vm.into(), sequence };
    open(store, None).unwrap().store().remove(&name.object()).unwrap();
}

/// A world with garbage of every kind: `orders/1` was removed, of whose packs one is needed in part, by a delta, and another not at
/// all; `billing/1` stays. Collected once a day ago, so that there is a mark that is due, where `marked`.
fn world(marked: bool) -> (Memory, Expected) {
    let store = Memory::default();
    Repository::create(Box::new(store.seen_by(None)), b"secret", CHEAP).unwrap();
    let first = image(&[1, 2, 3, 4, 5]);
    save(&store, None, "orders", &first, None).unwrap();
    let second = touched(image(&[1, 6, 7, 8, 9]), 0, 1);
    let two = save(&store, None, "orders", &second, None).unwrap();
    let other = image(&[20, 21]);
    let billing = save(&store, None, "billing", &other, None).unwrap();
    remove_point(&store, "orders", 1);
    if marked {
        let done = collected(&store, None, 0, &nobody_is_dead).unwrap();
        assert!(done.marked.count == 1 && done.copied.count > 0 && done.removed.count == 0, "{done:?}");
    }
    (store, [(two, second.0), (billing, other.0)].into())
}

/// What a writer of `orders` saves next: blocks of the point that was removed, which lie in what is garbage, and what is new.
fn third() -> Image {
    touched(touched(image(&[1, 2, 3, 8, 9]), 0, 1), 4, 3)
}

#[test]
fn what_no_point_needs_goes_in_two_runs_a_grace_time_apart_and_what_is_needed_stays() {
    let (store, expected) = world(false);
    let before = store.bytes_of("packs/");
    let first = collected(&store, None, 0, &nobody_is_dead).unwrap();
    assert!(first.marked.count == 1 && first.removed.count == 0, "{first:?}");
    assert!(first.copied.count > 0, "the base of a delta counts as needed: {first:?}");
    every_point_is_whole(&store, &expected);
    let soon = collected(&store, None, DAY - 1, &nobody_is_dead).unwrap();
    assert!(soon.removed.count == 0 && soon.waiting.count == 1 && soon.marked.count == 0, "{soon:?}");
    let later = collected(&store, None, DAY, &nobody_is_dead).unwrap();
    assert!(later.removed.count == 1 && later.removed.bytes > 4 * BLOCK as u64, "{later:?}");
    every_point_is_whole(&store, &expected);
    let after = store.bytes_of("packs/");
    assert!(after < before - 3 * BLOCK as u64, "{after} of {before}");
    assert_eq!(store.names("marks/").len(), 1, "the last one says when was collected");
    assert_eq!(store.names("sessions/"), Vec::<String>::new());
    let again = collected(&store, None, 2 * DAY, &nobody_is_dead).unwrap();
    assert_eq!(again, Collected::default());
}

#[test]
fn what_is_due_goes_though_there_is_no_room_for_a_mark() {
    let (store, expected) = world(true);
    let packs = store.names("packs/").len();
    let mut repository =
        Repository::open(Box::new(Full(store.seen_by(None), "marks/", AtomicU64::new(0))), b"secret")
            .unwrap();
    let writer = Writer::default();
    let rules =
        Rules { now: DAY, grace: DAY, worth: 50, writer: &writer, is_over: &nobody_is_dead, dry: None };
    let full = collect(&mut repository, &rules).unwrap_err();
    assert!(matches!(full, CollectError::Repository(Trouble::Store { .. })), "{full}");
    assert_eq!(store.names("packs/").len(), packs - 1);
    every_point_is_whole(&store, &expected);
    let done = collected(&store, None, DAY, &nobody_is_dead).unwrap();
    assert!(done.removed.count == 0 && store.names("marks/").len() == 1, "{done:?}");
    every_point_is_whole(&store, &expected);
}

#[test]
fn a_look_changes_nothing() {
    let (store, _) = world(true);
    let before = store.all();
    let mut repository = open(&store, None).unwrap();
    let writer = Writer::default();
    let rules = Rules {
        now: DAY,
        grace: DAY,
        worth: 50,
        writer: &writer,
        is_over: &nobody_is_dead,
        dry: Some(&BTreeSet::new()),
    };
    let look = collect(&mut repository, &rules).unwrap();
    assert_eq!((look.removed.count, store.all() == before), (1, true));
    let gone = [PointName { vm: "billing".into(), sequence: 1 }].into();
    let without = collect(&mut repository, &Rules { dry: Some(&gone), ..rules }).unwrap();
    assert_eq!((without.marked.count, store.all() == before), (1, true), "what it alone needs");
    assert_eq!(look, collected(&store, None, DAY, &nobody_is_dead).unwrap());
}

#[test]
fn while_somebody_writes_nothing_is_marked_and_what_he_does_not_know_to_be_marked_stays() {
    let (store, mut expected) = world(false);
    let mut repository = open(&store, None).unwrap();
    let session = Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let done = collected(&store, None, 0, &nobody_is_dead).unwrap();
    assert!(done.marked.count == 0 && done.at_work.len() == 1, "{done:?}");
    session.end(&repository).unwrap();

    let session = Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let disk =
        save::disk(&repository, "disk0", &third(), Before::default(), 1, &Progress::default()).unwrap();
    // As if the collector had looked before the session began.
    let sessions = store.take("sessions/");
    assert_eq!(collected(&store, None, 0, &nobody_is_dead).unwrap().marked.count, 2);
    store.restore(sessions);
    let waits = collected(&store, None, 5 * DAY, &nobody_is_dead).unwrap();
    assert!(waits.removed.count == 0 && waits.waiting.count == 2, "{waits:?}");
    let point = Point { vm: "orders".into(), sequence: 0, taken: 7, disks: vec![disk], note: String::new() };
    expected.insert(session.commit(&repository, point).unwrap(), third().0);
    let rescued = collected(&store, None, 5 * DAY, &nobody_is_dead).unwrap();
    assert!(rescued.removed.count == 2 && rescued.copied.count > 2, "{rescued:?}");
    every_point_is_whole(&store, &expected);
}

#[test]
fn a_writer_that_was_given_up_makes_no_point_and_its_number_stays_empty() {
    let (store, expected) = world(false);
    let mut repository = open(&store, None).unwrap();
    let session = Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let disk =
        save::disk(&repository, "disk0", &third(), Before::default(), 1, &Progress::default()).unwrap();
    let done = collected(&store, None, 0, &|_| true).unwrap();
    assert_eq!((done.given_up.len(), done.at_work.len()), (1, 0));
    assert!(collected(&store, None, DAY, &nobody_is_dead).unwrap().removed.count > 0);
    let point = Point { vm: "orders".into(), sequence: 0, taken: 7, disks: vec![disk], note: String::new() };
    let refused = session.commit(&repository, point).unwrap_err();
    assert!(matches!(refused, Trouble::GivenUp { sequence: 3, .. }), "{refused}");
    every_point_is_whole(&store, &expected);
    assert_eq!(repository.points().unwrap().len(), 2);
    assert_eq!(save(&store, None, "orders", &third(), None).unwrap().sequence, 4);
}

#[test]
fn two_who_begin_have_two_numbers_and_a_hurt_repository_is_not_collected() {
    let (store, _) = world(true);
    let begin = || Session::begin(&mut open(&store, None).unwrap(), "orders", &Writer::default()).unwrap();
    let (one, two) = (begin(), begin());
    assert_eq!((one.sequence(), two.sequence()), (3, 4));
    store.damage("points/orders/00000000000000000002");
    let refused = collected(&store, None, DAY, &nobody_is_dead).unwrap_err();
    assert!(matches!(&refused, CollectError::Hurt { point, .. } if point.sequence == 2), "{refused}");
    store.take("points/orders/00000000000000000002");
    let index = store.names("index/");
    store.damage(&index[0]);
    assert!(matches!(collected(&store, None, DAY, &nobody_is_dead), Err(CollectError::Index(_))));
}

/// How many steps somebody takes alone.
fn steps_of(act: impl FnOnce(&Steps)) -> usize {
    let steps = Steps::default();
    act(&steps);
    steps.taken()
}

#[test]
fn cut_off_at_any_step_a_writer_or_collector_harms_no_point_and_the_next_run_goes_on() {
    for marked in [false, true] {
        let (start, known) = world(marked);
        for is_writer in [true, false] {
            let act = |store: &Memory, steps: &Steps| {
                if is_writer {
                    save(store, Some(steps), "orders", &third(), Some((2, &[1, 2, 4]))).is_ok()
                } else {
                    collected(store, Some(steps), DAY, &nobody_is_dead).is_ok()
                }
            };
            let count = steps_of(|steps| assert!(act(&start.copy(), steps)));
            assert!(count > 10, "{count}");
            for (cut, is_done) in (0..count).flat_map(|cut| [(cut, false), (cut, true)]) {
                let (store, mut expected) = (start.copy(), known.clone());
                act(&store, &Steps::cut_at(cut, is_done));
                let next = PointName { vm: "orders".into(), sequence: 3 };
                expected.insert(next, third().0);
                every_point_is_whole(&store, &expected);
                // A day later, with the dead given up, all is collected, and another point is made.
                for day in [2, 4, 6] {
                    collected(&store, None, day * DAY, &|_| true).unwrap();
                }
                every_point_is_whole(&store, &expected);
                assert_eq!(store.names("sessions/"), Vec::<String>::new(), "cut at {cut}");
                let name = save(&store, None, "orders", &third(), None).unwrap();
                expected.insert(name, third().0);
                every_point_is_whole(&store, &expected);
            }
        }
    }
}

/// Runs two at once: one takes so many steps, then the other so many, then the first goes on to its end, then the other.
fn interleaved(store: &Memory, (first, second): (usize, usize), worlds: &Worlds) {
    let (one, two) = Steps::in_turns(&[first, second, usize::MAX, usize::MAX]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = (worlds.one)(store, &one);
            one.end();
        });
        scope.spawn(|| {
            let _ = (worlds.two)(store, &two);
            two.end();
        });
    });
}

type Act = dyn Fn(&Memory, &Steps) -> bool + Sync;

struct Worlds {
    one: Box<Act>,
    two: Box<Act>,
}

fn writer(vm: &'static str) -> Box<Act> {
    Box::new(move |store, steps| save(store, Some(steps), vm, &third(), Some((2, &[1, 2, 4]))).is_ok())
}

fn collector() -> Box<Act> {
    Box::new(|store, steps| collected(store, Some(steps), DAY, &nobody_is_dead).is_ok())
}

/// A collector who takes everybody for dead: the worst that a wrong guess can do.
fn rash_collector() -> Box<Act> {
    Box::new(|store, steps| collected(store, Some(steps), DAY, &|_| true).is_ok())
}

/// One who collects, and again a day later.
fn patient_collector() -> Box<Act> {
    Box::new(|store, steps| {
        [0, DAY].iter().all(|now| collected(store, Some(steps), *now, &nobody_is_dead).is_ok())
    })
}

/// Somebody who removes a point, then collects.
fn pruner(sequence: u64) -> Box<Act> {
    Box::new(move |store, steps| {
        let Ok(repository) = open(store, Some(steps)) else { return false };
        let name = PointName { vm: "orders".into(), sequence };
        repository.store().remove(&name.object()).is_ok()
            && collected(store, Some(steps), DAY, &nobody_is_dead).is_ok()
    })
}

/// Every pair of places where each is stopped for the other to go on; then what is left is collected, twice.
fn every_interleaving(marked: bool, worlds: &Worlds) {
    every_interleaving_in(world(marked), worlds);
}

fn every_interleaving_in((start, mut expected): (Memory, Expected), worlds: &Worlds) {
    for vm in ["orders", "billing"] {
        for sequence in 1..5 {
            let name = PointName { vm: vm.into(), sequence };
            expected.entry(name).or_insert_with(|| third().0);
        }
    }
    let one = steps_of(|steps| assert!((worlds.one)(&start.copy(), steps)));
    let two = steps_of(|steps| assert!((worlds.two)(&start.copy(), steps)));
    let (every, mut tried) = (every(), 0);
    let pairs = (0..=one).flat_map(|first| (0..=two + 12).map(move |second| (first, second)));
    for (first, second) in pairs.filter(|(first, second)| (first * 5 + second).is_multiple_of(every)) {
        let store = start.copy();
        interleaved(&store, (first, second), worlds);
        every_point_is_whole(&store, &expected);
        for day in [1, 3, 5] {
            collected(&store, None, day * DAY, &|_| true)
                .unwrap_or_else(|why| panic!("{first} {second}: {why}"));
        }
        every_point_is_whole(&store, &expected);
        tried += 1;
    }
    println!("{tried} interleavings of {one} and {two} steps");
    assert!(tried > 20);
}

/// One interleaving of so many is tried; all with `HOLDFAST_INTERLEAVINGS=1`.
fn every() -> usize {
    std::env::var("HOLDFAST_INTERLEAVINGS").map_or(17, |every| every.parse().unwrap())
}

#[test]
fn a_writer_and_a_collector_at_once() {
    for marked in [false, true] {
        every_interleaving(marked, &Worlds { one: writer("orders"), two: collector() });
    }
}

#[test]
fn a_collector_and_a_writer_at_once() {
    every_interleaving(true, &Worlds { one: collector(), two: writer("billing") });
}

#[test]
fn a_writer_and_somebody_who_removes_its_parent() {
    for marked in [false, true] {
        every_interleaving(marked, &Worlds { one: writer("orders"), two: pruner(2) });
    }
    every_interleaving(true, &Worlds { one: pruner(2), two: writer("orders") });
}

#[test]
fn a_writer_and_a_collector_who_comes_twice() {
    every_interleaving(false, &Worlds { one: writer("orders"), two: patient_collector() });
}

#[test]
fn a_writer_whose_parent_relies_on_what_is_marked_and_goes_meanwhile() {
    let (store, mut expected) = world(false);
    let mut repository = open(&store, None).unwrap();
    let session = Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let sessions = store.take("sessions/"); // as if the collector had looked before the session began
    collected(&store, None, 0, &nobody_is_dead).unwrap();
    store.restore(sessions);
    let disk =
        save::disk(&repository, "disk0", &third(), Before::default(), 1, &Progress::default()).unwrap();
    let point = Point { vm: "orders".into(), sequence: 0, taken: 7, disks: vec![disk], note: String::new() };
    expected.insert(session.commit(&repository, point).unwrap(), third().0);
    // Told that nothing changed, or one block: then the page is read, and the blocks beside that one are taken as they were.
    for told in [&[][..], &[3]] {
        let writer: Box<Act> = Box::new(move |store, steps| {
            save(store, Some(steps), "orders", &third(), Some((3, told))).is_ok()
        });
        let world = (store.copy(), expected.clone());
        every_interleaving_in(world, &Worlds { one: writer, two: pruner(3) });
    }
}

#[test]
fn a_writer_and_a_collector_who_thinks_that_it_is_dead() {
    every_interleaving(true, &Worlds { one: writer("orders"), two: rash_collector() });
}

#[test]
fn two_collectors_who_think_each_other_dead() {
    every_interleaving(true, &Worlds { one: rash_collector(), two: rash_collector() });
}

#[test]
fn two_writers_of_one_vm() {
    every_interleaving(true, &Worlds { one: writer("orders"), two: writer("orders") });
}

#[test]
fn of_two_writers_of_one_vm_each_has_its_point_wherever_the_other_comes_between() {
    let (start, _) = world(false);
    let alone = steps_of(|steps| assert!(writer("orders")(&start.copy(), steps)));
    let made = Arc::new(Mutex::new(Vec::new()));
    let write = || -> Box<Act> {
        let made = made.clone();
        Box::new(move |store, steps| {
            let point = save(store, Some(steps), "orders", &third(), None);
            made.lock().unwrap().push(point.as_ref().map_or(0, |point| point.sequence));
            point.is_ok()
        })
    };
    let worlds = Worlds { one: write(), two: write() };
    for first in 0..alone {
        made.lock().unwrap().clear();
        interleaved(&start.copy(), (first, usize::MAX), &worlds);
        let made: BTreeSet<u64> = made.lock().unwrap().iter().copied().collect();
        assert_eq!(made, [3, 4].into(), "stopped after {first} steps");
    }
}
