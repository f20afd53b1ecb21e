//! Merges of deleted snapshots that a daemon left when it was killed.

use crate::backup::People;
use crate::bench::{Bench, LONG};
use crate::snapshots::{bench, of, overlay, take};
use holdfast_core::point::SnapshotId;
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
