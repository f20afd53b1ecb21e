//! A guest that runs out of something: processes, memory, room on its disk.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Ends, Start, qmp, remedies_of, told, turn};
use crate::lab::{BOOT, Lab, SOON, signal};
use crate::rows::Rows;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const FORK_BOMB: &str = include_str!("../../src/drill/guest/fork-bomb.sh");
const MEMORY_HOG: &str = include_str!("../../src/drill/guest/memory-hog.sh");

/// The newest incident that was named as one of these, closed.
fn healed(lab: &Lab, faults: &[&str]) -> Value {
    let named = |lab: &Lab| {
        let ours = |incident: &Value| {
            !incident["closed"].is_null()
                && incident["resolution"] != "absorbed"
                && faults.contains(&incident["fault"].as_str().unwrap_or_default())
        };
        lab.incidents().into_iter().find(ours)
    };
    lab.until(BOOT, &format!("one of {faults:?} is named and over"), |lab| named(lab).is_some());
    named(lab).unwrap_or_default()
}

/// Something was done, and nothing more than a reset. How much it takes is up to the guest: its kernel may end
/// what starved it before the database is restarted.
fn ended_inside(incident: &Value) -> bool {
    let remedies = remedies_of(incident);
    !remedies.is_empty() && remedies.iter().all(|remedy| ["restart-app", "reset-guest"].contains(remedy))
}

#[test]
fn a_fork_bomb_and_a_memory_hog_are_named_and_healed_with_every_row_there_r12() {
    let _turn = turn();
    let lab = Lab::running("");
    let rows = Rows::start(&lab);
    let start = Start::of(&lab, "orders");

    lab.in_guest("orders", FORK_BOMB);
    let bombed = healed(&lab, &["GuestHung", "GuestOutOfMemory"]);
    lab.wait_well(BOOT);
    rows.wait_for_more(&lab);
    assert!(ended_inside(&bombed), "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start, "nothing more than a reset is needed: {}", lab.story());
    told(&lab, &["vm", "release", "orders"]);

    lab.in_guest("orders", MEMORY_HOG);
    let starved = healed(&lab, &["GuestOutOfMemory", "GuestPanicked"]);
    lab.wait_well(BOOT);
    rows.wait_for_more(&lab);
    assert!(ended_inside(&starved), "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());

    rows.all_there(&lab);
    assert!(lab.cli(&["replay"]).status.success(), "the journal replays byte for byte");
}

#[test]
fn drills_name_a_full_disk_leave_the_vm_as_it_was_when_interrupted_and_say_when_nothing_was_injected() {
    let _turn = turn();
    let lab = Lab::running("");
    let start = Start::of(&lab, "orders");

    let report = lab.json(&["drill", "run", "disk-full", "--vm", "orders", "--yes"]);
    assert_eq!(report["named"], "GuestDiskFull", "{report:#}\n{}", lab.story());
    assert_eq!(report["ok"], true, "{report:#}\n{}", lab.story());
    lab.wait_well(SOON);
    assert!(lab.remedies().iter().all(|remedy| remedy == "restart-app"), "{}", lab.story());

    let remedies = lab.remedies().len();
    interrupt_a_slow_disk(&lab);

    let no_sysrq =
        "mount -o bind /proc/sysrq-trigger /proc/sysrq-trigger; mount -o remount,bind,ro /proc/sysrq-trigger";
    lab.in_guest("orders", no_sysrq);
    let refused = lab.cli(&["drill", "run", "guest-panic", "--vm", "orders", "--json"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was injected: "), "{said}");
    assert!(refused.stdout.is_empty());

    assert_eq!(lab.remedies().len(), remedies, "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
}

/// Ctrl-c in the middle of a drill: its fault is taken back.
fn interrupt_a_slow_disk(lab: &Lab) {
    let mut command = crate::lab::holdfast();
    command.arg("--state").arg(lab.state()).args(["drill", "run", "disk-slow", "--vm", "orders", "--yes"]);
    let mut drill = Ends(command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let mut said = BufReader::new(drill.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("the fault is in")), "{}", lab.story());
    assert_eq!(iops(lab), 20);
    signal(drill.pid(), "INT");
    assert_eq!(drill.0.wait().unwrap().code(), Some(1));
    assert!(said.any(|line| line.contains("interrupted: its fault was taken back")), "{}", lab.story());
    assert_eq!(iops(lab), 0, "{}", lab.story());
}

/// How many operations a second QEMU allows the disk; 0: as many as it can.
fn iops(lab: &Lab) -> u64 {
    let disks = qmp(lab, "orders", r#"{"execute":"query-block"}"#);
    disks[0]["inserted"]["iops"].as_u64().unwrap()
}
