//! Restore points by schedule: made, kept, given up, and told of when they are too old.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::{BOOT, Lab, SOON};
use serde_json::Value;
use std::path::PathBuf;

/// The snapshots of the VM: their numbers, and whether they were taken by schedule.
fn snapshots(lab: &Lab) -> Vec<(u64, bool)> {
    let known = lab.json(&["snapshot", "list", "orders"]);
    let all = known["snapshots"].as_array().unwrap().clone();
    all.iter().map(|one| (one["id"].as_u64().unwrap(), one["scheduled"] == true)).collect()
}

fn by_schedule(lab: &Lab) -> Vec<u64> {
    snapshots(lab).into_iter().filter(|(_, scheduled)| *scheduled).map(|(id, _)| id).collect()
}

/// The files that the disk stands on, besides the configured one.
fn overlays(lab: &Lab) -> usize {
    let files = std::fs::read_dir(folder(lab)).unwrap().flatten();
    files.filter(|file| file.path().extension() == Some("qcow2".as_ref())).count()
}

fn folder(lab: &Lab) -> PathBuf {
    lab.path().join("orders.qcow2.snapshots")
}

/// The open incident of points that are too old.
fn stale(lab: &Lab) -> Option<Value> {
    let open = |incident: &Value| incident["fault"] == "RestorePointsStale" && incident["closed"].is_null();
    lab.incidents().into_iter().find(open)
}

#[test]
fn snapshots_are_taken_by_schedule_and_kept_as_configured_and_a_person_is_told_when_none_can_be() {
    let more = "[vm.orders.protect.snapshots]\nevery = \"10s\"\nkeep = { last = 2 }\nstale_after = \"25s\"\n";
    let mut lab = Lab::running(more);
    let start = lab.incarnation("orders");
    lab.until(BOOT, "two are taken by schedule", |lab| by_schedule(lab).len() >= 2);
    let mine = lab.json(&["snapshot", "create", "orders", "--note", "before the upgrade"]);
    let mine = mine["id"].as_u64().unwrap();

    // It goes on, the older ones go and give their room back, and a person's stays.
    let last = |lab: &Lab| by_schedule(lab).into_iter().max().unwrap_or(0);
    lab.until(2 * BOOT, "three more are taken", |lab| last(lab) >= mine + 3);
    lab.until(BOOT, "what need not be kept is gone", |lab| by_schedule(lab).len() == 2);
    lab.until(BOOT, "its room is given back", |lab| overlays(lab) <= 4); // two, a person's, and what is written now
    assert!(snapshots(&lab).contains(&(mine, false)), "{:?}\n{}", snapshots(&lab), lab.story());
    assert!(stale(&lab).is_none(), "{}", lab.story());

    // Without its record no snapshot can be taken. A daemon that starts anew finds out, tells, and touches nothing.
    lab.stop();
    let (record, away) = (folder(&lab).join("record"), lab.path().join("record"));
    std::fs::rename(&record, &away).unwrap();
    std::fs::remove_file(folder(&lab).join("record-copy")).unwrap();
    lab.start();
    lab.until(BOOT, "a person is told", |lab| stale(lab).is_some());
    let incident = stale(&lab).unwrap();
    let told = lab.cli(&["explain", &incident["id"].to_string()]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.contains("the newest snapshot is") && told.contains("one is to be made every 10s"),
        "{told}"
    );
    assert!(told.contains("record") && told.contains("holdfast snapshot create orders"), "{told}");
    assert_eq!((&lab.vm("orders")["state"], lab.incarnation("orders")), (&"running".into(), start));
    std::fs::rename(&away, &record).unwrap();
    let before = last(&lab);
    lab.until(BOOT, "one is taken again", |lab| last(lab) > before);
    lab.until(SOON, "that is over", |lab| stale(lab).is_none());
    assert_eq!(lab.incarnation("orders"), start);
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}
