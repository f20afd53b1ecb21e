//! Merges of deleted snapshots that a daemon left when it was killed.

use crate::backup::People;
use crate::bench::{Bench, LONG};
use crate::snapshots::{back, bench, of, overlay, take};
use holdfast_core::action::Order;
use holdfast_core::point::SnapshotId;
use holdfast_drivers::Driver;
use holdfast_drivers::qemu::{Qemu, QemuVm};
use holdfast_drivers::snapshots::Wanted;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

fn records(bench: &Bench) -> [PathBuf; 2] {
    ["record", "record-copy"].map(|name| bench.path("disk.snapshots").join(name))
}

/// Has the record say that an overlay was merged into the one below.
fn note_merged(bench: &Bench, from: u64, into: u64) {
    let text = std::fs::read_to_string(&records(bench)[0]).unwrap();
    let mut tree: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let overlays = tree["overlays"].as_array_mut().unwrap();
    overlays.retain(|overlay| overlay["number"] != from);
    for stands in overlays.iter_mut().filter(|overlay| overlay["parent"] == from) {
        stands["parent"] = into.into();
    }
    for frozen in tree["frozen"].as_array_mut().unwrap().iter_mut().filter(|frozen| frozen["file"] == from) {
        frozen["file"] = into.into();
    }
    let body = tree.to_string();
    let text = format!("holdfast snapshots 1 {:08x}\n{body}\n", crc32fast::hash(body.as_bytes()));
    for path in records(bench) {
        std::fs::write(path, &text).unwrap();
    }
}

#[tokio::test]
async fn a_merge_that_is_over_and_on_record_is_in_the_way_of_no_snapshot() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    for _ in 0..3 {
        bench.until_it_writes(&qemu).await;
        take(&bench, &qemu, Wanted::default()).await;
    }
    of(&qemu).forget(&bench.name, SnapshotId(2), LONG).await.unwrap();
    // As if the daemon had been killed between its record and QEMU, which was to forget the merge.
    let mut people = People::of(&qemu, &bench);
    let of_two = json!({ "job-id": "hf-merge-2-1", "device": "hf-overlay-3", "top-node": "hf-overlay-2",
        "base-node": "hf-overlay-1", "backing-file": "1.qcow2", "auto-dismiss": false });
    people.well("block-commit", of_two);
    while people.well("query-jobs", Value::Null)[0]["status"] != "concluded" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(people);
    note_merged(&bench, 2, 1);
    let refused = of(&qemu).take(&bench.name, Wanted::default(), LONG).await.unwrap_err();
    assert!(refused.to_string().contains("block job"), "{refused}");
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    assert!(!overlay(&bench, 2).exists() && overlay(&bench, 1).exists());
    bench.until_it_writes(&qemu).await;
    take(&bench, &qemu, Wanted::default()).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}

/// The same VM with another disk, which has a snapshot, too. Its folder is empty until then.
async fn with_another_disk(bench: &Bench) -> QemuVm {
    std::fs::copy(bench.path("disk"), bench.path("other")).unwrap();
    let vm = QemuVm { disk: bench.path("other"), ..bench.vm() };
    let of_other = Bench::new();
    let folder = |name: &str| of_other.path(name);
    let qemu = Qemu::open(vec![vm.clone()], bench.restarts.clone(), folder("run"), folder("evidence"))
        .await
        .unwrap();
    take(bench, &qemu, Wanted::default()).await;
    vm
}

fn other_record(bench: &Bench) -> String {
    std::fs::read_to_string(bench.path("other.snapshots/record")).unwrap()
}

#[tokio::test]
async fn a_merge_goes_on_in_the_disk_that_runs_where_another_one_is_configured_meanwhile() {
    let mut bench = bench(); // I15
    let other = with_another_disk(&bench).await;
    let before = other_record(&bench);
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let id = take(&bench, &qemu, Wanted::default()).await;
    bench.until_it_writes(&qemu).await;
    of(&qemu).forget(&bench.name, id, LONG).await.unwrap();
    let tidy = async {
        of(&qemu).tidy(&bench.name, 1, &|_| {}).await // slow enough for a reload in the middle of it
    };
    let reload = async {
        let mut people = People::of(&qemu, &bench);
        while people.well("query-jobs", Value::Null) == json!([]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        qemu.take_on(vec![other.clone()], bench.restarts.clone()).unwrap();
        people.well("block-job-set-speed", json!({ "device": "hf-merge-1-0", "speed": 0 }));
    };
    let (left, ()) = tokio::join!(tidy, reload);
    assert!(!left.unwrap());
    assert_eq!(other_record(&bench), before, "nobody wrote to the record of a disk that does not run");
    assert!(bench.path("other.snapshots/1.qcow2").exists() && !overlay(&bench, 1).exists());
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    qemu.take_on(vec![bench.vm()], bench.restarts.clone()).unwrap();
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    take(&bench, &qemu, Wanted::default()).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn snapshots_are_those_of_the_disk_that_runs_until_the_next_start_takes_another() {
    let mut bench = bench(); // I15
    let other = with_another_disk(&bench).await;
    let before = other_record(&bench);
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    qemu.take_on(vec![other.clone()], bench.restarts.clone()).unwrap();
    let name = bench.name.clone();
    let known = async || of(&qemu).list(&name).await.unwrap().len();
    assert_eq!(known().await, 0, "the disk that runs has none");
    let ids = [take(&bench, &qemu, Wanted::default()).await, take(&bench, &qemu, Wanted::default()).await];
    assert_eq!(known().await, 2);
    let refused = of(&qemu).may_rewind(&bench.name, back(ids[0])).await.unwrap_err().to_string();
    assert!(refused.contains("other") && refused.contains("another disk"), "{refused}");
    of(&qemu).forget(&bench.name, ids[1], LONG).await.unwrap();
    assert!(!of(&qemu).tidy(&bench.name, 0, &|_| {}).await.unwrap());
    let proof = bench.power_off(&qemu, &lease).await;
    let order = Order::Rewind { proof, to: back(ids[0]) };
    let refused = qemu.perform(&bench.name, &order, LONG).await.unwrap_err().to_string();
    assert!(
        refused.contains("another disk"),
        "what was decided while it ran is not done to another disk: {refused}"
    );
    assert_eq!(other_record(&bench), before);
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    assert_eq!(known().await, 1);
    bench.power_off(&qemu, &lease).await;
    assert_eq!(other_record(&bench), before);
}
