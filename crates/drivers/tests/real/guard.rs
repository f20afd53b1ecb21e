//! Snapshots rest on a record of the disk: nothing is done where that is not what is written to.

use crate::bench::{Bench, LONG};
use crate::off::writer_of;
use crate::snapshots::{back, bench, of, overlay, rewind, take};
use holdfast_core::action::{Found, Operation, Order, Rewind};
use holdfast_core::lease::{DeathProof, Lease};
use holdfast_core::point::{PointId, SnapshotId};
use holdfast_drivers::qemu::{Qemu, QemuVm, Still};
use holdfast_drivers::snapshots::Wanted;
use holdfast_drivers::{Driver, DriverError};
use std::path::PathBuf;
use std::process::Command;
use tokio::time::Instant;

/// A VM that is off, with snapshot 1.
async fn off(bench: &mut Bench, qemu: &Qemu) -> (SnapshotId, DeathProof) {
    let lease = bench.start(qemu).await;
    bench.until_it_writes(qemu).await;
    let first = take(bench, qemu, Wanted::default()).await;
    (first, bench.power_off(qemu, &lease).await)
}

fn record(bench: &Bench) -> [std::path::PathBuf; 2] {
    ["disk.snapshots/record", "disk.snapshots/record-copy"].map(|name| bench.path(name))
}

#[tokio::test]
async fn nothing_is_changed_of_a_disk_that_somebody_else_writes_to() {
    let mut bench = bench(); // I1, R15
    let qemu = bench.open().await;
    let (first, proof) = off(&mut bench, &qemu).await;
    let before = record(&bench).map(|at| std::fs::read(at).unwrap());
    let mut writer = writer_of(&overlay(&bench, 1));
    let snapshots = of(&qemu);
    let refused = [
        snapshots.take(&bench.name, Wanted::default(), LONG).await.map(drop),
        snapshots.forget(&bench.name, first, LONG).await,
        snapshots.tidy(&bench.name, 0, &|_| ()).await.map(drop),
        rewind(&bench, &qemu, &proof, back(first)).await.map(drop),
    ];
    writer.kill().unwrap();
    writer.wait().unwrap();
    for one in refused {
        let Err(DriverError::Blocked { why, .. }) = one else { panic!("{one:?}") };
        assert!(why.contains(&format!("in use by process {}", writer.id())), "{why}");
    }
    assert_eq!(record(&bench).map(|at| std::fs::read(at).unwrap()), before);
    rewind(&bench, &qemu, &proof, back(first)).await.unwrap();
}

#[tokio::test]
async fn a_record_that_is_not_of_what_qemu_writes_to_is_not_built_upon() {
    let mut bench = bench(); // I15
    let qemu = bench.open().await;
    bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let first = take(&bench, &qemu, Wanted::default()).await;
    let old = record(&bench).map(|at| std::fs::read(at).unwrap());
    take(&bench, &qemu, Wanted::default()).await;
    let new = record(&bench).map(|at| std::fs::read(at).unwrap());
    let put = |bytes: &[Vec<u8>; 2]| {
        record(&bench).iter().zip(bytes).for_each(|(at, bytes)| std::fs::write(at, bytes).unwrap());
    };
    put(&old);
    let snapshots = of(&qemu);
    let refused = [
        snapshots.take(&bench.name, Wanted::default(), LONG).await.map(drop),
        snapshots.forget(&bench.name, first, LONG).await,
    ];
    for one in refused {
        let why = one.unwrap_err().to_string();
        assert!(
            why.contains("disk.snapshots/2.qcow2, and the record") && why.contains("1.qcow2 on top"),
            "{why}"
        );
    }
    put(&new);
    take(&bench, &qemu, Wanted::default()).await;
}

#[tokio::test]
async fn a_vm_that_writes_to_overlays_alone_is_found_without_its_run_folder() {
    let mut bench = bench(); // I1, I7, R28
    let qemu = bench.open().await;
    off(&mut bench, &qemu).await;
    // As after a restore, once all has come in: nothing of the configured disk is read any more.
    let top = overlay(&bench, 1);
    let alone = ["rebase", "-q", "-f", "qcow2", "-b", "", top.to_str().unwrap()];
    crate::backup::image(&alone);
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let pid = qemu.places(&bench.name).pid;
    drop(qemu);
    std::fs::remove_dir_all(bench.path("run")).unwrap();
    let qemu = bench.open().await;
    let found = qemu.inspect(&bench.name).await.unwrap();
    let Found::Running { seen, .. } = found else { panic!("{found:?}") };
    assert_eq!((seen.incarnation(), qemu.places(&bench.name).pid), (lease.incarnation(), pid));
    cannot_be_asked(&bench, &qemu, &lease).await;
    bench.power_off(&qemu, &lease).await;
    bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
}

/// Whoever needs its QEMU is told at once that its socket is gone.
async fn cannot_be_asked(bench: &Bench, qemu: &Qemu, lease: &Lease) {
    let (began, still) = (Instant::now(), Still { to: "main".into(), hooks: Vec::new() });
    let refused = [
        of(qemu).take(&bench.name, Wanted::default(), LONG).await.map(drop),
        qemu.begin_backup(&bench.name, &still, LONG).await.map(drop),
    ];
    for one in refused {
        let Err(DriverError::CutOff { why, .. }) = one else { panic!("{one:?}") };
        assert_eq!(Some(why), qemu.places(&bench.name).cut_off);
    }
    let why = qemu.places(&bench.name).cut_off.unwrap();
    assert!(why.contains("its control socket") && why.ends_with("control is gone"), "{why}");
    let asked = bench.try_do(qemu, lease, Operation::Shutdown).await;
    is_refused(asked, "and cannot reach the socket of the guest agent");
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
}

fn is_refused<T: std::fmt::Debug>(asked: Result<T, DriverError>, why: &str) {
    let Err(DriverError::Refused { why: told, .. }) = asked else { panic!("{asked:?}") };
    assert!(told.contains(why), "{told}");
}

#[tokio::test]
async fn what_the_next_start_would_refuse_is_told_while_it_runs() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let first = take(&bench, &qemu, Wanted::default()).await;
    let to_backup = Rewind { to: PointId::backup(1), resume: false, again: false };
    let ways = [back(first), to_backup];
    let may = async || {
        qemu.may_restart(&bench.name).await.unwrap();
        for way in ways {
            of(&qemu).may_rewind(&bench.name, way).await.unwrap();
        }
    };
    may().await;
    let away = |name: &str| std::fs::rename(bench.path(name), bench.path("away")).unwrap();
    let back_again = |name: &str| std::fs::rename(bench.path("away"), bench.path(name)).unwrap();
    let [record, copy] = record(&bench).map(|at| std::fs::read(&at).map(|bytes| (at, bytes)).unwrap());
    for (at, _) in [&record, &copy] {
        std::fs::remove_file(at).unwrap();
    }
    is_refused(qemu.may_restart(&bench.name).await, "the record of them is missing");
    for way in ways {
        is_refused(of(&qemu).may_rewind(&bench.name, way).await, "the record of them is missing");
    }
    for (at, bytes) in [&record, &copy] {
        std::fs::write(at, bytes).unwrap();
    }
    away("disk");
    is_refused(qemu.may_restart(&bench.name).await, "disk is not there any more");
    is_refused(of(&qemu).may_rewind(&bench.name, ways[0]).await, "disk is not there any more");
    back_again("disk");
    may().await;
    // Of one that does not run there is nothing to end.
    bench.power_off(&qemu, &lease).await;
    away("disk");
    qemu.may_restart(&bench.name).await.unwrap();
}

/// A small file system in memory, gone with this value.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let words = ["-t", "tmpfs", "-o", "size=40m,mode=0755", "hf"];
        assert!(Command::new("mount").args(words).arg(&path).status().unwrap().success(), "mount needs root");
        Self(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn where_no_room_is_left_nothing_is_gone_back_to() {
    let mut bench = bench(); // I15
    let small = Mount::new(bench.path("small"));
    let disk = small.0.join("disk");
    std::fs::copy(bench.path("disk"), &disk).unwrap();
    let qemu = bench.open_as(QemuVm { disk, ..bench.vm() }).await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let first = take(&bench, &qemu, Wanted::default()).await;
    let to_backup = Rewind { to: PointId::backup(1), resume: false, again: false };
    let ballast = small.0.join("ballast");
    std::fs::write(&ballast, vec![7; 30 << 20]).unwrap();
    for way in [back(first), to_backup] {
        is_refused(of(&qemu).may_rewind(&bench.name, way).await, "MiB are free where its snapshots are");
    }
    let proof = bench.power_off(&qemu, &lease).await;
    let record = small.0.join("disk.snapshots/record");
    let before = std::fs::read(&record).unwrap();
    is_refused(rewind(&bench, &qemu, &proof, back(first)).await, "make room");
    assert_eq!(std::fs::read(&record).unwrap(), before);
    std::fs::remove_file(&ballast).unwrap();
    of(&qemu).may_rewind(&bench.name, to_backup).await.unwrap();
    rewind(&bench, &qemu, &proof, back(first)).await.unwrap();
}

#[tokio::test]
async fn an_overlay_without_its_head_is_not_given_to_a_guest_as_a_raw_disk() {
    let mut bench = bench(); // A31
    let qemu = bench.open().await;
    off(&mut bench, &qemu).await;
    let whole = std::fs::read(overlay(&bench, 1)).unwrap();
    for damaged in [Vec::new(), [vec![0; 512], whole[512..].to_vec()].concat()] {
        std::fs::write(overlay(&bench, 1), &damaged).unwrap();
        let order = Order::Start { lease: bench.lease() };
        let refused = qemu.perform(&bench.name, &order, LONG).await;
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("1.qcow2 is of no use: it is no qcow2"), "{why}");
        assert_eq!(std::fs::read(overlay(&bench, 1)).unwrap(), damaged, "nobody wrote to it");
    }
    std::fs::write(overlay(&bench, 1), whole).unwrap();
    bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
}

#[tokio::test]
async fn a_vm_that_has_another_name_now_starts_from_its_disk_and_snapshots() {
    let mut bench = bench();
    let qemu = bench.open().await;
    off(&mut bench, &qemu).await;
    qemu.let_go(std::slice::from_ref(&bench.name));
    bench.name = "sales".parse().unwrap();
    qemu.take_on(vec![bench.vm()], bench.restarts.clone()).unwrap();
    bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    take(&bench, &qemu, Wanted::default()).await;
}
