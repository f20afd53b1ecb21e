//! Leases on a disk that breaks at every operation.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::disk::faulty::{Dice, FaultyDisk, Plan};
use holdfast_core::lease::Death;
use holdfast_witness::Eyewitness;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn vm(name: &str) -> VmName {
    name.parse().unwrap()
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn dead(name: &str, incarnation: u64) -> DeathProof {
    DeathProof::witnessed(Eyewitness::here(), vm(name), Incarnation(incarnation), Death::NeverStarted)
}

fn seen(incarnation: u64) -> Sighting {
    Sighting::of(Eyewitness::here(), Incarnation(incarnation))
}

fn records(disk: &FaultyDisk) -> Records {
    Records {
        disk: Arc::new(disk.clone()),
        folder: "l".into(),
        tokens: Mutex::default(),
        turns: Mutex::default(),
    }
}

fn on_record(records: &Records, name: &str) -> Option<Lease> {
    records.load(&vm(name)).unwrap().filter(|record| record.held).map(|record| record.lease)
}

#[tokio::test]
async fn a_vm_lives_through_take_release_and_take_again() {
    let store: Box<dyn LeaseStore> = Box::new(FileLeases::new(Arc::new(FaultyDisk::default()), "l"));
    let atlas = host("atlas");
    assert_eq!(store.read(&vm("a")).await.unwrap(), None);
    let first = store.take(&dead("a", 0), &atlas).await.unwrap();
    assert_eq!((first.incarnation(), first.token(), first.holder()), (Incarnation(1), Token(1), &atlas));
    assert_eq!(store.read(&vm("a")).await.unwrap(), Some(first.clone()));
    let second = store.take(&dead("a", 1), &atlas).await.unwrap();
    assert!(second.incarnation() == Incarnation(2) && second.token() > first.token());
    store.release(&dead("a", 2)).await.unwrap();
    store.release(&dead("a", 2)).await.unwrap();
    assert_eq!(store.read(&vm("a")).await.unwrap(), None);
    let third = store.take(&dead("a", 2), &atlas).await.unwrap();
    assert!(
        third.incarnation() == Incarnation(3) && third.token() > second.token(),
        "no number is used twice"
    );
    assert_eq!(store.adopt(&vm("a"), seen(3), &atlas).await.unwrap(), third);
}

#[test]
fn a_vm_does_not_wait_for_the_disk_writes_of_another_and_takes_turns_with_itself_i2() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let leases = FileLeases::new(Arc::new(FaultyDisk::default()), "l");
    let turn = Arc::clone(lock(&leases.0.turns).entry(vm("a")).or_default());
    let busy = lock(&turn); // somebody is at the record of `a`
    let again = leases.clone();
    let first = runtime.spawn(async move { again.take(&dead("a", 0), &host("atlas")).await });
    let second = runtime.block_on(leases.take(&dead("b", 0), &host("atlas"))).unwrap();
    assert!(!first.is_finished());
    drop(busy);
    let first = runtime.block_on(first).unwrap().unwrap();
    assert_ne!(first.token(), second.token());
}

#[test]
fn the_same_proof_gives_the_same_lease_to_the_same_host_and_none_to_another_i9() {
    let disk = FaultyDisk::default();
    let lease = records(&disk).take(&dead("a", 0), &host("atlas")).unwrap();
    assert_eq!(records(&disk).take(&dead("a", 0), &host("atlas")).unwrap(), lease);
    let error = records(&disk).take(&dead("a", 0), &host("titan")).unwrap_err();
    assert!(matches!(error, LeaseError::HeldBy { .. }), "{error}");
    assert_eq!(error.to_string(), "the lease of vm `a` is held by host `atlas`");
}

#[test]
fn a_proof_of_another_incarnation_takes_and_releases_nothing_i2() {
    let disk = FaultyDisk::default();
    let records = records(&disk);
    for incarnation in 0..3 {
        records.take(&dead("a", incarnation), &host("atlas")).unwrap();
    }
    let now = on_record(&records, "a");
    for wrong in [0, 1, 4, NUMBER_MOST - 1] {
        let error = records.take(&dead("a", wrong), &host("atlas")).unwrap_err();
        assert!(matches!(error, LeaseError::Mismatch { on_record: Incarnation(3), .. }), "{error}");
        assert!(matches!(records.release(&dead("a", wrong)), Err(LeaseError::Mismatch { .. })));
    }
    let error = records.take(&dead("a", u64::MAX), &host("atlas")).unwrap_err();
    assert!(matches!(error, LeaseError::Absurd { .. }) && !error.hint().is_empty());
    assert_eq!(on_record(&records, "a"), now);
}

#[test]
fn a_running_vm_is_adopted_if_nothing_or_exactly_it_is_on_record() {
    let disk = FaultyDisk::default();
    let records = records(&disk);
    let atlas = host("atlas");
    let lease = records.adopt(&vm("a"), seen(5), &atlas).unwrap();
    assert_eq!(lease.incarnation(), Incarnation(5));
    assert_eq!(records.adopt(&vm("a"), seen(5), &atlas).unwrap(), lease);
    let refused = |running, holder| records.adopt(&vm("a"), seen(running), &host(holder)).unwrap_err();
    assert!(matches!(refused(5, "titan"), LeaseError::HeldBy { .. }));
    assert!(matches!(refused(4, "atlas"), LeaseError::Mismatch { .. }));
    assert!(matches!(refused(0, "atlas"), LeaseError::Absurd { .. }));
    records.release(&dead("a", 5)).unwrap();
    let error = records.adopt(&vm("a"), seen(5), &atlas).unwrap_err();
    assert!(matches!(error, LeaseError::Dead { .. }), "it was proven dead");
}

#[test]
fn a_damaged_record_is_set_aside_and_refused_until_a_person_takes_it_away() {
    let disk = FaultyDisk::default();
    let first = records(&disk).take(&dead("a", 0), &host("atlas")).unwrap();
    disk.spoil("l/a.lease", |bytes| bytes[40] ^= 1);
    let records = records(&disk);
    for _ in 0..3 {
        let error = records.take(&dead("a", 1), &host("atlas")).unwrap_err();
        assert!(matches!(error, LeaseError::File { .. }), "{error}");
        assert!(error.hint().contains("`l/a.lease.damaged-1`"), "{}", error.hint());
        assert!(error.hint().contains("`holdfast vm release a`"));
        assert!(records.adopt(&vm("a"), seen(1), &host("atlas")).is_err());
        assert!(records.release(&dead("a", 1)).is_err());
    }
    records.take(&dead("b", 0), &host("atlas")).unwrap(); // others are not touched by it
    disk.rename("l/a.lease.damaged-1", "elsewhere").unwrap();
    let next = records.take(&dead("a", 1), &host("atlas")).unwrap();
    assert!(next.incarnation() == Incarnation(2) && next.token() > first.token());
}

#[test]
fn a_record_under_a_foreign_name_is_refused() {
    let disk = FaultyDisk::default();
    records(&disk).take(&dead("a", 0), &host("atlas")).unwrap();
    disk.rename("l/a.lease", "l/b.lease").unwrap();
    let error = records(&disk).take(&dead("b", 1), &host("atlas")).unwrap_err();
    assert!(matches!(error, LeaseError::File { source: SmallFileError::Damaged { .. }, .. }), "{error}");
}

#[test]
fn a_lost_counter_is_counted_anew_from_good_records_and_never_from_damaged_ones_i3() {
    let disk = FaultyDisk::default();
    let before = records(&disk);
    let tokens: Vec<_> =
        ["a", "b", "c"].map(|name| before.take(&dead(name, 0), &host("atlas")).unwrap().token()).to_vec();
    disk.spoil("l/tokens", |bytes| bytes[25] ^= 1);
    let token = records(&disk).take(&dead("d", 0), &host("atlas")).unwrap().token();
    assert!(tokens.iter().all(|before| *before < token));
    assert!(disk.list("l").unwrap().iter().any(|file| file.name == "tokens.damaged-1"));

    disk.spoil("l/tokens", |bytes| bytes.clear());
    disk.spoil("l/b.lease", |bytes| bytes.clear());
    for _ in 0..2 {
        let error = records(&disk).take(&dead("e", 0), &host("atlas")).unwrap_err();
        assert!(matches!(error, LeaseError::Tokens { .. }), "{error}");
        assert!(error.hint().contains("`l/b.lease.damaged-1`"), "{}", error.hint());
    }
}

#[test]
fn a_newer_record_is_left_untouched_i22() {
    let disk = FaultyDisk::default();
    let lease = records(&disk).take(&dead("a", 0), &host("atlas")).unwrap();
    let newer = SmallFile::new(Arc::new(disk.clone()), "l/a.lease", "lease", 2);
    newer.store(&OnRecord { lease, held: true }).unwrap();
    let before = disk.read("l/a.lease", 0, 999).unwrap();
    let error = records(&disk).take(&dead("a", 1), &host("atlas")).unwrap_err();
    assert!(matches!(error, LeaseError::File { source: SmallFileError::Newer { version: 2, .. }, .. }));
    assert_eq!(disk.read("l/a.lease", 0, 999).unwrap(), before);
}

#[test]
fn each_flipped_bit_is_refused_or_harmless_and_never_another_lease_r28() {
    let good = FaultyDisk::default();
    let lease = records(&good).take(&dead("a", 0), &host("atlas")).unwrap();
    let mut dice = Dice::new(3);
    for _ in 0..500 {
        let disk = good.after_kill();
        let file = ["l/a.lease", "l/tokens"][dice.below(2)];
        let bit = dice.below(disk.read(file, 0, 999).unwrap().len() * 8);
        disk.spoil(file, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let records = records(&disk);
        match records.take(&dead("a", 0), &host("atlas")) {
            Ok(again) => assert_eq!(again, lease),
            Err(LeaseError::File { source: SmallFileError::Damaged { .. }, .. }) => {}
            Err(other) => panic!("{other}"),
        }
        if let Ok(next) = records.take(&dead("a", 1), &host("atlas")) {
            assert!(next.token() > lease.token());
        }
    }
}

#[test]
fn the_example_in_the_manual_is_what_is_written() {
    let disk = FaultyDisk::default();
    let lease = Lease::after(&dead("orders", 2), Token(7), host("atlas"));
    records(&disk).store(&OnRecord { lease, held: true }).unwrap();
    let written = String::from_utf8(disk.read("l/orders.lease", 0, 999).unwrap()).unwrap();
    assert!(include_str!("../../../../../docs/journal.md").contains(&written), "{written}");
}

/// What is done to the store in the random runs.
#[derive(Clone, Debug)]
enum Deed {
    Take {
        vm: usize,
        host: usize,
    },
    TakeWithAnOldProof {
        vm: usize,
    },
    Release {
        vm: usize,
    },
    Adopt {
        vm: usize,
        host: usize,
    },
    /// The plan is for the operations that follow; then the program or the host starts again.
    Break {
        plan: Broken,
        after: usize,
    },
    Restart {
        power_cut: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Broken {
    Cut,
    Fails,
    Full,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let broken = prop_oneof![Just(Broken::Cut), Just(Broken::Fails), Just(Broken::Full)];
    let deed = prop_oneof![
        6 => (0..2_usize, 0..2_usize).prop_map(|(vm, host)| Deed::Take { vm, host }),
        1 => (0..2_usize).prop_map(|vm| Deed::TakeWithAnOldProof { vm }),
        1 => (0..2_usize).prop_map(|vm| Deed::Release { vm }),
        1 => (0..2_usize, 0..2_usize).prop_map(|(vm, host)| Deed::Adopt { vm, host }),
        4 => (broken, 0..12_usize).prop_map(|(plan, after)| Deed::Break { plan, after }),
        3 => proptest::option::of(any::<u64>()).prop_map(|power_cut| Deed::Restart { power_cut }),
    ];
    proptest::collection::vec(deed, 1..60)
}

/// All leases that anybody was ever given.
#[derive(Default)]
struct Given {
    leases: BTreeMap<(VmName, Incarnation), Lease>,
    highest: Token,
    newest: BTreeMap<VmName, Lease>,
    /// VMs whose last call failed: it may have put a lease on record that nobody has seen yet.
    unseen: BTreeSet<VmName>,
}

impl Given {
    fn last(&self, name: &str) -> Incarnation {
        self.newest.get(&vm(name)).map_or(Incarnation::NONE, |lease| lease.incarnation())
    }

    fn check(&mut self, name: &str, answer: Result<Lease, LeaseError>) {
        let lease = match answer {
            Ok(lease) => lease,
            Err(LeaseError::File { .. } | LeaseError::Tokens { .. }) => {
                self.unseen.insert(vm(name));
                return;
            }
            Err(_) => return,
        };
        let was_unseen = self.unseen.remove(lease.vm());
        let key = (lease.vm().clone(), lease.incarnation());
        if let Some(before) = self.leases.get(&key) {
            assert_eq!(*before, lease, "two leases for one incarnation");
            return;
        }
        assert!(self.leases.values().all(|before| before.token() != lease.token()), "one token, two leases");
        assert!(was_unseen || lease.token() > self.highest, "{lease:?} is not above {:?}", self.highest);
        if let Some(before) = self.newest.get(lease.vm()) {
            assert!(
                lease.incarnation() > before.incarnation() && lease.token() > before.token(),
                "{lease:?}"
            );
        }
        self.highest = self.highest.max(lease.token());
        self.newest.insert(lease.vm().clone(), lease.clone());
        self.leases.insert(key, lease);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn over_any_crashes_tokens_only_rise_and_an_incarnation_has_one_lease_i2_i3_i9(deeds in deeds()) {
        let (mut disk, mut given) = (FaultyDisk::default(), Given::default());
        let mut store = records(&disk);
        let names = ["a", "b"];
        let hosts = [host("atlas"), host("titan")];
        for deed in deeds {
            match deed {
                Deed::Take { vm, host } => {
                    let proof = dead(names[vm], given.last(names[vm]).0);
                    given.check(names[vm], store.take(&proof, &hosts[host]));
                }
                Deed::TakeWithAnOldProof { vm } => {
                    let proof = dead(names[vm], given.last(names[vm]).0.saturating_sub(1));
                    given.check(names[vm], store.take(&proof, &hosts[0]));
                }
                Deed::Release { vm } => drop(store.release(&dead(names[vm], given.last(names[vm]).0))),
                Deed::Adopt { vm: at, host } => {
                    let running = seen(given.last(names[at]).0);
                    given.check(names[at], store.adopt(&vm(names[at]), running, &hosts[host]));
                }
                Deed::Break { plan, after } => disk.plan(match plan {
                    Broken::Cut => Plan::Cut { at: after },
                    Broken::Fails => Plan::Fails { at: after },
                    Broken::Full => Plan::Full { from: after, count: 5, share: 100 },
                }),
                Deed::Restart { power_cut } => {
                    disk = power_cut.map_or_else(|| disk.after_kill(), |seed| disk.after_power_cut(seed));
                    store = records(&disk);
                }
            }
        }
        disk = disk.after_kill();
        let store = records(&disk);
        for name in names {
            let proof = dead(name, given.last(name).0);
            // One of the hosts can go on: whatever happened, nobody is locked out.
            let answers = hosts.clone().map(|host| store.take(&proof, &host));
            assert!(answers.iter().any(Result::is_ok), "{answers:?}");
            answers.into_iter().for_each(|answer| given.check(name, answer));
        }
    }
}
