//! A running VM that is backed up into an S3 store, proved and restored from there: a server in a process of its own, of the
//! crates `s3s` and `s3s-fs`.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::backed::{self, plain};
use crate::lab::{BOOT, Lab, signal};
use crate::proofs::{nothing_is_left, prove};
use crate::restored::{becomes_whole, create, needs_backup, recovered_by_restore, sections, suppliers};
use crate::rows::{Rows, assert_of_point};
use holdfast_bucket::{Habit, Process, SECRET};
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Not a test of anything: the server, in a process of its own.
#[test]
fn server() {
    holdfast_bucket::serve_if_asked();
}

/// Has the guest read all that its disk holds, and the disk, and not what it remembers of it.
const READ_ALL: &str = "echo 3 > /proc/sys/vm/drop_caches; cat /dev/vda > /dev/null";

/// The store stays away for so long once the VM was paused.
const AWAY: Duration = Duration::from_secs(20);

#[test]
fn a_vm_is_backed_up_into_a_store_proved_and_restored_from_there_though_the_store_goes_away() {
    let data = tempfile::tempdir().unwrap();
    let start = |port| Process::start("bucket::server", data.path(), port, Habit::Right).unwrap();
    let server = start(0);
    let lab = backed::lab_in_store(&server.endpoint(), &sections("2MiB"));
    let rows = Rows::start(&lab);
    let full = create(&lab);
    rows.wait_for_more(&lab);
    let before = rows.so_far();
    let second = create(&lab);
    let bytes = |point: &Value, what: &str| point[what].as_u64().unwrap();
    assert!(bytes(&second, "read") < bytes(&full, "read") / 4, "only what changed is read: {second}");
    assert!(bytes(&second, "added") < bytes(&full, "added") / 4, "{second}");
    assert!(plain(&lab, &["verify", "--all"]).ends_with("2 of 2 points are whole\n"));
    let proof = prove(&lab, second["id"].as_str().unwrap());
    assert_eq!(proof["grade"], "app-checked", "{proof}");
    nothing_is_left(&lab);
    lab.wait_asked("orders");

    let all = rows.stop();
    fs::remove_file(lab.disk("orders")).unwrap();
    signal(lab.pid("orders"), "KILL");
    recovered_by_restore(&lab);
    assert!(lab.story().contains("backup 2 (app-checked)"), "{}", lab.story());
    lab.wait_well(BOOT);
    assert_of_point(&lab, &before, &all);

    assert!(needs_backup(&lab), "not all is there yet");
    let rows = Rows::start(&lab);
    let (start_before, port) = (lab.incarnation("orders"), server.kill());
    lab.in_guest("orders", READ_ALL);
    lab.until(BOOT, "a VM that reads what is away is paused", |lab| lab.story().contains("VmPausedIo"));
    // It is let go on, and paused again with what it reads next; long enough to be taken for hung, were it silent.
    std::thread::sleep(AWAY);
    let _server = start(port);
    lab.wait_well(BOOT);
    assert_eq!(lab.incarnation("orders"), start_before, "it only waited\n{}", lab.story());
    rows.wait_for_more(&lab);
    becomes_whole(&lab);
    rows.all_there(&lab);
    assert!(!lab.story().contains(SECRET));
}

#[test]
fn a_vm_that_boots_while_the_store_is_away_that_its_disk_comes_in_from_says_what_it_waits_for() {
    let data = tempfile::tempdir().unwrap();
    let start = |port| Process::start("bucket::server", data.path(), port, Habit::Right).unwrap();
    let server = start(0);
    let mut lab = backed::lab_in_store(&server.endpoint(), &sections("1MiB"));
    create(&lab);
    let ended = lab.cli(&["backup", "revert", "orders", "1", "--yes"]);
    assert!(ended.status.success(), "{ended:?}\n{}", lab.story());
    let port = server.kill();
    assert!(needs_backup(&lab), "not all is there yet");
    let lacks = "its disk comes in from orders/1, which cannot be read: ";
    let is_told = |lab: &Lab| lab.vm("orders")["note"].as_str().is_some_and(|note| note.starts_with(lacks));
    lab.until(BOOT, "it is said what it waits for", is_told);
    let shown = String::from_utf8(lab.cli(&["vm", "show", "orders"]).stdout).unwrap();
    assert!(shown.contains(lacks), "{shown}");
    // Nobody offers it any more, and it cannot be opened.
    suppliers(&lab).iter().for_each(|pid| signal(*pid, "KILL"));
    lab.until(BOOT, "another cannot begin", |lab| suppliers(lab).is_empty() && is_told(lab));
    let server = start(port);
    lab.until(BOOT, "it is read again", |lab| !is_told(lab));
    lab.wait_well(2 * BOOT);

    // Away once more, and it ends. Its starts are refused before they come to its driver, and used up there all the same: whoever
    // looks next goes on from the last of them, and a snapshot that needs nothing of the store is a way out.
    server.kill();
    suppliers(&lab).iter().for_each(|pid| signal(*pid, "KILL"));
    assert!(needs_backup(&lab), "not all is there yet");
    signal(lab.pid("orders"), "KILL");
    let told = |lab: &Lab, what: &str| {
        fs::read_to_string(lab.path().join("daemon.log")).unwrap().matches(what).count()
    };
    let refused = |lab: &Lab| told(lab, "the backup that its disk comes from is not offered");
    lab.until(2 * BOOT, "its starts are refused", |lab| refused(lab) >= 3);
    lab.kill_daemon();
    let before = refused(&lab);
    lab.start();
    lab.until(2 * BOOT, "and again after a restart of the daemon", |lab| refused(lab) > before);
    let listed = lab.json(&["snapshot", "list", "orders"]);
    let aside = listed["snapshots"].as_array().unwrap().iter().find(|one| one["set_aside"] == true);
    let aside = aside.unwrap()["id"].to_string();
    let ended = lab.cli(&["snapshot", "revert", "orders", &aside, "--yes"]);
    assert!(ended.status.success(), "{ended:?}\n{}", lab.story());
    lab.wait_well(2 * BOOT);
    assert_eq!(told(&lab, "was asked about"), 0, "no lease was asked for that could not be given");
}
