//! Snapshots of a guest of 46 bytes that writes one sector of its disk, for ever.

use crate::backup::People;
use crate::bench::{Bench, LONG};
use crate::sector;
use holdfast_core::action::{Fact, Operation, Order, Rewind};
use holdfast_core::lease::DeathProof;
use holdfast_core::point::SnapshotId;
use holdfast_core::signal::RunState;
use holdfast_drivers::qemu::Qemu;
use holdfast_drivers::snapshots::{Listed, Snapshots, Wanted};
use holdfast_drivers::{Driver, DriverError, Injection};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The sector that the guest writes to, as it is before the guest runs.
const UNTOUCHED: [u8; 512] = [0xee; 512];

pub fn bench() -> Bench {
    let bench = sector::bench();
    let mut disk = std::fs::read(bench.path("disk")).unwrap();
    disk[512..1024].copy_from_slice(&UNTOUCHED);
    std::fs::write(bench.path("disk"), disk).unwrap();
    bench
}

pub fn of(qemu: &Qemu) -> &dyn Snapshots {
    qemu.snapshots().unwrap()
}

pub async fn take(bench: &Bench, qemu: &Qemu, wanted: Wanted) -> SnapshotId {
    of(qemu).take(&bench.name, wanted, LONG).await.unwrap().snapshot.id
}

async fn list(bench: &Bench, qemu: &Qemu) -> Vec<Listed> {
    of(qemu).list(&bench.name).await.unwrap()
}

pub fn back(to: SnapshotId) -> Rewind {
    Rewind { to: to.into(), resume: false, again: false }
}

pub async fn rewind(bench: &Bench, qemu: &Qemu, proof: &DeathProof, to: Rewind) -> Result<Fact, DriverError> {
    qemu.perform(&bench.name, &Order::Rewind { proof: proof.clone(), to }, LONG).await
}

/// The image that is written to, by its number.
pub fn overlay(bench: &Bench, number: u64) -> PathBuf {
    bench.path(&format!("disk.snapshots/{number}.qcow2"))
}

/// What is in the folder of its snapshots.
fn left(bench: &Bench) -> Vec<String> {
    let entries = std::fs::read_dir(bench.path("disk.snapshots")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What the guest would read from the sector that it writes to, while it does not run.
fn sector_of(bench: &Bench, image: &std::path::Path) -> Vec<u8> {
    let raw = bench.path("raw");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-O", "raw"]).arg(image).arg(&raw);
    assert!(convert.status().expect("qemu-img, package qemu-utils").success());
    std::fs::read(raw).unwrap()[512..1024].to_vec()
}

#[tokio::test]
async fn a_snapshot_shows_the_disk_as_it_was_and_going_back_loses_nothing() {
    let mut bench = bench(); // I15
    let qemu = bench.open().await;
    let off =
        take(&bench, &qemu, Wanted { note: "before its first start".into(), ..Wanted::default() }).await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let running = take(&bench, &qemu, Wanted::default()).await;
    let frozen = std::fs::read(overlay(&bench, 1)).unwrap();
    bench.until_it_writes(&qemu).await;
    assert_eq!(std::fs::read(overlay(&bench, 1)).unwrap(), frozen, "what was frozen never changes");
    let refused = rewind(&bench, &qemu, &DeathProof::clone(&dead_of_nothing(&bench)), back(off)).await;
    assert!(matches!(refused, Err(DriverError::Refused { .. })), "{refused:?}");
    let proof = bench.power_off(&qemu, &lease).await;
    assert_ne!(sector_of(&bench, &overlay(&bench, 2)), UNTOUCHED);

    rewind(&bench, &qemu, &proof, back(off)).await.unwrap();
    assert_eq!(sector_of(&bench, &overlay(&bench, 3)), UNTOUCHED);
    let known = list(&bench, &qemu).await;
    let shown: Vec<(u64, bool, bool)> = known
        .iter()
        .map(|listed| (listed.snapshot.id.0, listed.snapshot.set_aside, listed.is_below))
        .collect();
    assert_eq!(shown, [(1, false, true), (2, false, false), (3, true, false)]);
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let proof = bench.power_off(&qemu, &lease).await;
    rewind(&bench, &qemu, &proof, back(running)).await.unwrap();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    let unknown = of(&qemu).may_rewind(&bench.name, back(SnapshotId(77))).await.unwrap_err();
    assert!(unknown.to_string().contains("there are: 1, 2, 3, 4"), "{unknown}");
}

fn dead_of_nothing(bench: &Bench) -> DeathProof {
    let seen = holdfast_witness::Eyewitness::here();
    let death = holdfast_core::lease::Death::NeverStarted;
    DeathProof::witnessed(seen, bench.name.clone(), holdfast_core::lease::Incarnation::NONE, death)
}

#[tokio::test]
async fn a_memory_is_resumed_once_and_never_of_another_machine() {
    let mut bench = bench(); // I23
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let saved = generation(&bench, &qemu);
    let wanted = Wanted { memory: true, ..Wanted::default() };
    let id = take(&bench, &qemu, wanted).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.until_it_writes(&qemu).await;
    let plain = take(&bench, &qemu, Wanted::default()).await;
    let proof = bench.power_off(&qemu, &lease).await;
    let resume = Rewind { to: id.into(), resume: true, again: false };
    let none = rewind(&bench, &qemu, &proof, Rewind { to: plain.into(), ..resume }).await.unwrap_err();
    assert!(none.to_string().contains("has no memory"), "{none}");

    rewind(&bench, &qemu, &proof, resume).await.unwrap();
    let lease = bench.start(&qemu).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.until_it_writes(&qemu).await;
    assert_ne!(generation(&bench, &qemu), saved, "the guest is told that it is another one");
    let proof = bench.power_off(&qemu, &lease).await;
    let twice = rewind(&bench, &qemu, &proof, resume).await.unwrap_err();
    assert!(twice.to_string().contains("I23"), "{twice}");
    rewind(&bench, &qemu, &proof, Rewind { again: true, ..resume }).await.unwrap();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let proof = bench.power_off(&qemu, &lease).await;
    drop(qemu);
    let larger = holdfast_drivers::qemu::QemuVm { memory: 128 << 20, ..bench.vm() };
    let qemu = bench.open_as(larger).await;
    let other = rewind(&bench, &qemu, &proof, Rewind { again: true, ..resume }).await.unwrap_err();
    assert!(other.to_string().contains("another machine"), "{other}");
    rewind(&bench, &qemu, &proof, back(id)).await.unwrap();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn deleted_snapshots_give_their_room_back_while_the_guest_writes() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        bench.until_it_writes(&qemu).await;
        ids.push(take(&bench, &qemu, Wanted::default()).await);
    }
    bench.power_off(&qemu, &lease).await;
    of(&qemu).forget(&bench.name, ids[1], LONG).await.unwrap();
    assert!(of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap(), "it waits until it runs");
    assert!(!of(&qemu).is_untidy(&bench.name).await.unwrap(), "nothing can be done now");
    let lease = bench.start(&qemu).await; // now all of them are opened anew, only for reading
    bench.until_it_writes(&qemu).await;
    assert!(of(&qemu).is_untidy(&bench.name).await.unwrap());
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    assert!(!of(&qemu).is_untidy(&bench.name).await.unwrap());
    assert!(!overlay(&bench, 2).exists() && overlay(&bench, 3).exists());
    bench.until_it_writes(&qemu).await;
    for id in [ids[0], ids[2]] {
        of(&qemu).forget(&bench.name, id, LONG).await.unwrap();
    }
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    assert_eq!(list(&bench, &qemu).await, []);
    assert_eq!(left(&bench), ["record", "record-copy"]);
    bench.until_it_writes(&qemu).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.power_off(&qemu, &lease).await;
    assert_ne!(std::fs::read(bench.path("disk")).unwrap()[512..1024], UNTOUCHED);
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_snapshot_that_was_broken_off_anywhere_is_none_and_loses_nothing() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    qemu.inject(&bench.name, &Injection::Stop).await.unwrap();
    let limit = std::time::Duration::from_millis(700);
    let silent = of(&qemu).take(&bench.name, Wanted::default(), limit).await.unwrap_err();
    assert!(matches!(silent, DriverError::Refused { .. } | DriverError::Late { .. }), "{silent:?}");
    qemu.inject(&bench.name, &Injection::Unstop).await.unwrap();
    bench.until_it_writes(&qemu).await;
    // Whatever became of it, the next one is as good as any.
    let id = take(&bench, &qemu, Wanted::default()).await;
    assert_eq!(list(&bench, &qemu).await.last().unwrap().snapshot.id, id);
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_guest_that_stood_still_for_a_merge_runs_on_however_slow_its_qemu_is() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    let mut is_caught = false;
    for _ in 0..50 {
        bench.until_it_writes(&qemu).await;
        let id = take(&bench, &qemu, Wanted::default()).await;
        bench.until_it_writes(&qemu).await;
        of(&qemu).forget(&bench.name, id, LONG).await.unwrap();
        let silent = Silent::once_it_stands_still(&bench, &qemu);
        let _late = of(&qemu).tidy(&bench.name, 0, &|_| {}).await; // now or later, by itself
        is_caught = silent.was_caught();
        if is_caught {
            break;
        }
    }
    assert!(is_caught, "the moment in which it stands still was missed each time");
    until_run_on(&bench, &qemu).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.until_it_writes(&qemu).await;
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    assert_eq!(left(&bench), ["record", "record-copy"]);
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    assert_ne!(std::fs::read(bench.path("disk")).unwrap()[512..1024], UNTOUCHED);
}

/// Has a QEMU be silent as soon as its guest is to stand still for us, for longer than that may take.
struct Silent {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Silent {
    fn once_it_stands_still(bench: &Bench, qemu: &Qemu) -> Self {
        let (mark, pid) = (still(bench, qemu), qemu.places(&bench.name).pid.unwrap());
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !mark.exists() {
                if over.load(Ordering::Relaxed) {
                    return false; // that was quicker than we look
                }
                std::thread::yield_now();
            }
            signal(pid, "-STOP");
            std::thread::sleep(Duration::from_secs(7));
            signal(pid, "-CONT");
            true
        });
        Self { is_over, thread }
    }

    /// What it was to be silent in is over. Whether it was.
    fn was_caught(self) -> bool {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[tokio::test]
async fn a_guest_that_somebody_paused_stays_paused_whatever_is_settled() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let id = take(&bench, &qemu, Wanted::default()).await;
    bench.until_it_writes(&qemu).await;
    of(&qemu).forget(&bench.name, id, LONG).await.unwrap();
    bench.try_do(&qemu, &lease, Operation::Pause).await.unwrap();
    // We end in the middle of a merge, and it comes to its end without us.
    let few = tokio::time::timeout(Duration::from_secs(1), of(&qemu).tidy(&bench.name, 1, &|_| {})).await;
    assert!(few.is_err(), "{few:?}");
    let mut people = People::of(&qemu, &bench);
    people.well("block-job-set-speed", json!({ "device": "hf-merge-1-0", "speed": 0 }));
    drop(qemu);
    people.until_ready();
    let qemu = bench.open().await;
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    assert_eq!(bench.state(&qemu).await, Some(RunState::Paused));
    assert!(!overlay(&bench, 1).exists() && !still(&bench, &qemu).exists());
    bench.try_do(&qemu, &lease, Operation::Continue).await.unwrap();
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_guest_that_somebody_paused_is_paused_after_its_memory_was_saved() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.try_do(&qemu, &lease, Operation::Pause).await.unwrap();
    let with_memory = || Wanted { memory: true, ..Wanted::default() };
    take(&bench, &qemu, with_memory()).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Paused));
    take(&bench, &qemu, Wanted::default()).await;
    // Its memory is the same; QEMU would refuse to save it, once the disk is switched.
    let refused = of(&qemu).take(&bench.name, with_memory(), LONG).await.unwrap_err().to_string();
    assert!(refused.contains("its memory was saved since it was paused"), "{refused}");
    assert!(!overlay(&bench, 3).exists(), "nothing is left of it");
    assert_eq!(bench.state(&qemu).await, Some(RunState::Paused));
    bench.try_do(&qemu, &lease, Operation::Continue).await.unwrap();
    bench.until_it_writes(&qemu).await;
    take(&bench, &qemu, with_memory()).await;
    assert_eq!(bench.state(&qemu).await, Some(RunState::Running));
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn what_an_attempt_left_is_not_taken_for_a_disk() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let first = take(&bench, &qemu, Wanted::default()).await;
    // Going back was broken off: an overlay that nobody knows of has the next number.
    std::fs::copy(overlay(&bench, 1), overlay(&bench, 2)).unwrap();
    std::fs::write(overlay(&bench, 3), "").unwrap();
    let second = take(&bench, &qemu, Wanted::default()).await;
    assert_eq!((first.0, second.0), (1, 4));
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let proof = bench.power_off(&qemu, &lease).await;
    assert_ne!(sector_of(&bench, &overlay(&bench, 4)), UNTOUCHED);
    std::fs::copy(overlay(&bench, 4), overlay(&bench, 5)).unwrap();
    rewind(&bench, &qemu, &proof, back(second)).await.unwrap();
    assert_eq!(sector_of(&bench, &overlay(&bench, 6)), UNTOUCHED);
    assert_eq!(std::fs::read(overlay(&bench, 3)).unwrap(), b"", "what is not known stays as it is");
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn what_a_kill_left_gives_its_room_back_and_the_guest_writes_on() {
    let mut bench = bench(); // I15
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    for _ in 0..3 {
        bench.until_it_writes(&qemu).await;
        take(&bench, &qemu, Wanted::default()).await;
    }
    of(&qemu).forget(&bench.name, SnapshotId(2), LONG).await.unwrap();
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    let known = left(&bench);
    assert_eq!(known, ["1.qcow2", "3.qcow2", "record", "record-copy"]);
    // As if the daemon had been killed between the record and the file, which it was to remove.
    let lay = || {
        std::fs::copy(overlay(&bench, 1), overlay(&bench, 2)).unwrap();
        std::fs::write(bench.path("disk.snapshots/2.memory"), "").unwrap();
    };
    lay();
    assert!(of(&qemu).is_untidy(&bench.name).await.unwrap());
    let mut people = People::of(&qemu, &bench);
    let job = json!({ "job-id": "hf-merge-9-8", "device": "hf-overlay-3", "auto-finalize": false });
    people.well("block-stream", job);
    let is_merging = left(&bench);
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    assert_eq!(left(&bench), is_merging, "nothing goes while a merge is under way");
    people.well("job-cancel", json!({ "id": "hf-merge-9-8" }));
    while people.well("query-jobs", Value::Null) != json!([]) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(people);
    while of(&qemu).is_untidy(&bench.name).await.unwrap() {
        assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    }
    assert_eq!(left(&bench), known);
    bench.until_it_writes(&qemu).await;
    let proof = bench.power_off(&qemu, &lease).await;
    lay(); // and of one that is off
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    assert_eq!(left(&bench), known);
    rewind(&bench, &qemu, &proof, back(SnapshotId(1))).await.unwrap();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

/// Which generation the guest is told to be.
fn generation(bench: &Bench, qemu: &Qemu) -> Value {
    let told = People::of(qemu, bench).well("query-vm-generation-id", Value::Null);
    assert!(told["guid"].is_string(), "{told}");
    told
}

/// Is there while it stands still for a moment of ours.
fn still(bench: &Bench, qemu: &Qemu) -> PathBuf {
    let sockets = qemu.places(&bench.name).qmp.unwrap();
    sockets.parent().unwrap().parent().unwrap().join("still")
}

async fn until_run_on(bench: &Bench, qemu: &Qemu) {
    let (mark, begun) = (still(bench, qemu), Instant::now());
    while mark.exists() {
        assert!(begun.elapsed() < LONG, "it stands still");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn signal(pid: u32, word: &str) {
    assert!(Command::new("kill").args([word, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_drill_finds_the_disk_that_is_on_top_and_no_snapshot_is_taken_of_its_errors() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    take(&bench, &qemu, Wanted::default()).await;
    qemu.inject(&bench.name, &Injection::DiskError(true)).await.unwrap();
    let refused = of(&qemu).take(&bench.name, Wanted::default(), LONG).await.unwrap_err();
    assert!(matches!(refused, DriverError::Refused { .. }), "{refused}");
    qemu.inject(&bench.name, &Injection::DiskError(false)).await.unwrap();
    bench.try_do(&qemu, &lease, holdfast_core::action::Operation::Continue).await.unwrap();
    bench.until_it_writes(&qemu).await;
    take(&bench, &qemu, Wanted::default()).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_raw_disk_stays_raw_whatever_was_merged_into_its_head() {
    let mut bench = bench(); // A31
    let qemu = bench.open().await;
    let id = take(&bench, &qemu, Wanted::default()).await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    of(&qemu).forget(&bench.name, id, LONG).await.unwrap();
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    bench.power_off(&qemu, &lease).await;
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]).arg(bench.path("other")).arg("1M");
    assert!(create.status().expect("qemu-img, package qemu-utils").success());
    std::fs::write(bench.path("disk"), std::fs::read(bench.path("other")).unwrap()).unwrap();
    let start = Order::Start { lease: bench.lease() };
    let refused = qemu.perform(&bench.name, &start, LONG).await.unwrap_err();
    assert!(refused.to_string().contains("A31"), "{refused}");
}

#[tokio::test]
async fn a_disk_whose_record_of_overlays_is_lost_is_not_started() {
    let mut bench = bench();
    let qemu = bench.open().await;
    take(&bench, &qemu, Wanted::default()).await;
    let [record, copy] = ["record", "record-copy"].map(|name| bench.path("disk.snapshots").join(name));
    let whole = std::fs::read(&record).unwrap();
    for broken in [None, Some(&whole[..whole.len() / 2])] {
        for path in [&record, &copy] {
            match broken {
                None => std::fs::remove_file(path).unwrap(),
                Some(part) => std::fs::write(path, part).unwrap(),
            }
        }
        let start = Order::Start { lease: bench.lease() };
        let refused = qemu.perform(&bench.name, &start, LONG).await.unwrap_err();
        assert!(matches!(refused, DriverError::Refused { .. }), "{refused}");
        assert!(refused.to_string().contains("record"), "{refused}");
    }
    std::fs::write(&record, whole).unwrap();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn one_damaged_block_of_their_record_loses_no_snapshot() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let before = take(&bench, &qemu, Wanted::default()).await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let record = bench.path("disk.snapshots/record");
    std::fs::write(&record, [0; 512]).unwrap();
    let after = take(&bench, &qemu, Wanted::default()).await;
    let known: Vec<SnapshotId> = list(&bench, &qemu).await.iter().map(|listed| listed.snapshot.id).collect();
    assert_eq!(known, [before, after]);
    let proof = bench.power_off(&qemu, &lease).await;
    std::fs::remove_file(&record).unwrap();
    rewind(&bench, &qemu, &proof, back(before)).await.unwrap();
    assert_eq!(sector_of(&bench, &overlay(&bench, 3)), UNTOUCHED);
    std::fs::remove_file(&record).unwrap();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    assert!(record.exists());
}
