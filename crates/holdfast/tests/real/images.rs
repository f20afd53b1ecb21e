//! A disk that somebody else has open, and a control socket that is gone or silent.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Ends, Start, lives, start_of, untouched_for};
use crate::lab::{BOOT, Lab, SOON, vms_of};
use crate::writers::Writers;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A QEMU that nobody told Holdfast about, with the VM's disk open for writing.
fn foreign(lab: &Lab) -> Ends {
    let disk = lab.path().join("orders.qcow2");
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-display", "none", "-accel", "tcg", "-m", "64", "-S", "-drive"]);
    command.arg(format!("file={},format=qcow2,if=virtio", disk.display()));
    let qemu = Ends(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let writes = || {
        let files = fs::read_dir(format!("/proc/{}/fd", qemu.pid())).into_iter().flatten().flatten();
        files.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|file| file == disk)
    };
    lab.until_without_daemon(SOON, "the other QEMU has the disk", writes);
    qemu
}

#[test]
fn a_disk_that_another_qemu_has_open_is_not_touched_and_its_holder_is_named_r15() {
    let mut lab = Lab::new("");
    let other = foreign(&lab);
    let writers = Writers::watch(&lab.path().join("orders.qcow2"));
    lab.start();
    let named = |incident: &serde_json::Value| incident["fault"] == "VmWontStart";
    let waits = |lab: &Lab| lab.incidents().into_iter().find(named).filter(|i| i["phase"] == "waiting");
    lab.until(BOOT, "the disk is waited for", |lab| waits(lab).is_some());
    std::thread::sleep(Duration::from_secs(20)); // longer than three tries take
    let holder = format!("process {}", other.pid());
    lab.until(SOON, "it is waited for, between tries, and its holder is named", |lab| {
        let Some(incident) = waits(lab) else { return false };
        lab.json(&["explain", &incident["id"].to_string()]).to_string().contains(&holder)
    });
    assert!(lives(other.pid()), "the other one was not harmed");
    assert_eq!(vms_of(&lab.state()), Vec::<i32>::new());
    drop(other);
    lab.wait_well(BOOT); // by itself: waiting has cost no try
    assert_eq!(writers.most(), 1, "one writer only");
}

#[test]
fn a_healthy_vm_is_not_touched_when_its_control_socket_is_gone_or_silent_r13_r14() {
    let mut lab = Lab::running("");
    let start = Start::of(&lab, "orders");
    let folder = lab.state().join("run/orders/vm");
    let (control, aside) = (folder.join("control"), folder.join("aside"));

    fs::rename(&control, &aside).unwrap();
    untouched_for(&lab, "orders", Duration::from_secs(6), || {});
    lab.kill_daemon();
    lab.start();
    lab.until(SOON, "it is found by its process", |lab| start_of(lab, "orders") == Some(start));
    untouched_for(&lab, "orders", Duration::from_secs(10), || {});

    lab.kill_daemon();
    let silent = UnixListener::bind(&control).unwrap();
    lab.start();
    lab.until(SOON, "it is found by its process", |lab| start_of(lab, "orders") == Some(start));
    untouched_for(&lab, "orders", Duration::from_secs(15), || {});
    drop(silent);

    fs::rename(&aside, &control).unwrap();
    lab.wait_well(SOON);
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}
