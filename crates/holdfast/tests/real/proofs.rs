//! Proof that restore points of a real database work: booted beside it, asked, checked, and nothing of that is felt.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::backed;
use crate::lab::{BOOT, Lab, SOON, signal};
use crate::rows::Rows;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A laboratory whose trials are only made when somebody asks, and which is backed up.
fn lab() -> Lab {
    lab_with("auto = false")
}

/// The same, with other settings of its trials.
fn lab_with(prove: &str) -> Lab {
    backed::lab(&format!("[vm.orders.protect]\nprove = {{ {prove}, nice = 0 }}\nbackup.to = \"main\"\n"))
}

pub fn prove(lab: &Lab, point: &str) -> Value {
    let ended = lab.cli(&["prove", "orders", "--point", point, "--json"]);
    let doc: Value = serde_json::from_slice(&ended.stdout)
        .unwrap_or_else(|_| panic!("{}\n{}", String::from_utf8_lossy(&ended.stderr), lab.story()));
    let is_proved = doc["grade"] == "booted" || doc["grade"] == "app-checked";
    assert_eq!(ended.status.success(), is_proved, "{doc}");
    println!("{point}: {} in {} s: {}", doc["grade"], doc["seconds"], doc["words"]);
    doc
}

fn point(lab: &Lab, id: &str) -> Value {
    let points = lab.json(&["points", "orders"]);
    points.as_array().unwrap().iter().find(|point| point["id"] == id).cloned().unwrap()
}

/// Processes of trials of this laboratory.
fn trials(lab: &Lab) -> Vec<PathBuf> {
    let own = lab.state().join("trials").display().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_own = |path: &PathBuf| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&own))
    };
    all.filter(is_own).collect()
}

pub fn nothing_is_left(lab: &Lab) {
    lab.until(SOON, "the trial is gone", |lab| trials(lab).is_empty());
    let left = std::fs::read_dir(lab.state().join("trials")).map(Iterator::count).unwrap_or(0);
    assert_eq!(left, 0, "files of a trial");
}

#[test]
fn a_snapshot_and_a_backup_are_proved_beside_the_database_that_serves_on() {
    let lab = lab();
    let rows = Rows::start(&lab);
    let taken = lab.json(&["snapshot", "create", "orders"]);
    let saved = lab.json(&["backup", "create", "orders"])[0]["id"].as_str().unwrap().to_owned();
    let snapshot = format!("snapshot/{}", taken["id"]);
    for id in [snapshot.as_str(), saved.as_str()] {
        assert_eq!(point(&lab, id)["grade"], "consistent");
        let proof = prove(&lab, id);
        let words = proof["words"].as_str().unwrap();
        assert_eq!((&proof["state"], &proof["grade"]), (&"done".into(), &"app-checked".into()), "{proof}");
        assert!(words.contains("pg_amcheck") && words.contains("nothing wrong in"), "{words}");
        let known = point(&lab, id);
        assert_eq!((&known["grade"], &known["trial"]), (&"app-checked".into(), &proof["words"]), "{known}");
        assert!(
            (known["boot_s"].as_f64().unwrap() - proof["boot_s"].as_f64().unwrap()).abs() < 0.01,
            "{known}"
        );
        nothing_is_left(&lab);
        rows.wait_for_more(&lab);
    }
    rows.stop();
    let felt: Vec<Value> = lab.incidents().into_iter().filter(|incident| !incident["vm"].is_null()).collect();
    assert_eq!(felt, Vec::<Value>::new(), "{}", lab.story());
}

/// Overwrites what the disk of a snapshot holds from there on.
fn spoil(disk: &Path, from: u64, bytes: u64) {
    let write = format!("write -q -P 0xa5 {from} {bytes}");
    let done = std::process::Command::new("qemu-io").args(["-f", "qcow2", "-c", &write]).arg(disk).status();
    assert!(done.expect("qemu-io, package qemu-utils").success());
}

#[test]
fn a_point_that_does_not_boot_is_found_out_and_is_worth_less_than_before() {
    let lab = lab();
    let taken = lab.json(&["snapshot", "create", "orders"]);
    let id = format!("snapshot/{}", taken["id"]);
    assert_eq!(point(&lab, &id)["grade"], "consistent");
    assert!(lab.cli(&["vm", "stop", "orders"]).status.success());
    lab.until(BOOT, "the vm is off", |lab| lab.vm("orders")["pid"].is_null());
    spoil(&lab.disk("orders"), 0, 64 << 20);
    let proof = prove(&lab, &id);
    assert_eq!((&proof["state"], &proof["grade"]), (&"done".into(), &"taken".into()), "{proof}");
    let known = point(&lab, &id);
    assert_eq!((&known["grade"], &known["proved"]), (&"taken".into(), &Value::Null), "{known}");
    nothing_is_left(&lab);
}

#[test]
fn the_newest_point_is_tried_by_itself_and_a_trial_gives_way_to_an_incident() {
    let lab = lab_with("every = \"1m\", memory = \"320MiB\"");
    let first = lab.json(&["snapshot", "create", "orders"])["id"].clone();
    lab.until(BOOT * 4, "a trial by schedule is over", |lab| {
        point(lab, &format!("snapshot/{first}"))["grade"] == "app-checked"
    });
    lab.json(&["snapshot", "create", "orders"]);
    lab.until(BOOT * 4, "the next trial runs", |lab| !trials(lab).is_empty());
    let is_small = |lab: &Lab| {
        let lines =
            trials(lab).into_iter().map(|path| std::fs::read(path.join("cmdline")).unwrap_or_default());
        lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains("\x00-m\x00320M\x00"))
    };
    lab.until(SOON, "its machine has the memory of a sandbox", is_small);
    signal(lab.pid("orders"), "KILL");
    let left = |lab: &Lab| std::fs::read_dir(lab.state().join("trials")).map_or(0, Iterator::count);
    lab.until(SOON, "it gave way, and nothing is left", |lab| trials(lab).is_empty() && left(lab) == 0);
    lab.wait_well(BOOT);
    let log = std::fs::read_to_string(lab.path().join("daemon.log")).unwrap();
    assert!(log.contains("a trial gives way"), "{}", lab.story());
}
