//! A guest that runs out of something: processes, memory, room on its disk.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Ends, Start, own, qmp, remedies_of, told, turn};
use crate::lab::{BOOT, Lab, SOON, signal};
use crate::rows::Rows;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

const FORK_BOMB: &str = include_str!("../../src/drill/guest/fork-bomb.sh");
const MEMORY_HOG: &str = include_str!("../../src/drill/guest/memory-hog.sh");

/// How often a guest may outlive what starves it.
const THROWS: usize = 5;

/// Starves the guest until it is named as one of these and healed. Chance decides how it goes: the guest's kernel
/// may end what starves it before anything need be done, or when only the database is left to restart. That is
/// right, and the guest is starved once more. Whatever happens, no more than a reset is done.
fn starved_and_healed(lab: &Lab, rows: &Rows, script: &str, faults: &[&str]) {
    let start = Start::of(lab, "orders");
    for _ in 0..THROWS {
        let before = own(lab).len();
        lab.in_guest("orders", script);
        let began = Instant::now();
        lab.until(BOOT, "the guest feels it or outlives it", |lab| {
            own(lab).len() > before || began.elapsed() > SOON
        });
        lab.wait_well(BOOT);
        rows.wait_for_more(lab);
        assert_eq!(Start::of(lab, "orders"), start, "nothing more than a reset is needed: {}", lab.story());
        let mut incidents = own(lab);
        incidents.truncate(incidents.len() - before);
        let done: Vec<&str> = incidents.iter().flat_map(remedies_of).collect();
        let inside = |remedy: &&str| ["restart-app", "reset-guest"].contains(remedy);
        assert!(done.iter().all(inside), "{}", lab.story());
        told(lab, &["vm", "release", "orders"]);
        let named = |incident: &Value| faults.contains(&incident["fault"].as_str().unwrap_or_default());
        if !done.is_empty() && incidents.iter().any(named) {
            return;
        }
    }
    panic!("never named as one of {faults:?} and healed\n{}", lab.story());
}

#[test]
fn a_fork_bomb_and_a_memory_hog_are_named_and_healed_with_every_row_there_r12() {
    let _turn = turn();
    let lab = Lab::running("");
    let rows = Rows::start(&lab);

    starved_and_healed(&lab, &rows, FORK_BOMB, &["GuestHung", "GuestOutOfMemory"]);
    starved_and_healed(&lab, &rows, MEMORY_HOG, &["GuestOutOfMemory", "GuestPanicked"]);

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
    has_the_documented_keys(&report);
    lab.wait_well(SOON);
    assert!(lab.remedies().iter().all(|remedy| remedy == "restart-app"), "{}", lab.story());

    let remedies = lab.remedies().len();
    interrupt_a_slow_disk(&lab);
    kill_a_slow_disk(&lab);

    let no_sysrq =
        "mount -o bind /proc/sysrq-trigger /proc/sysrq-trigger; mount -o remount,bind,ro /proc/sysrq-trigger";
    lab.in_guest("orders", &format!("{no_sysrq}; echo sysrq-is-off > /dev/console"));
    let console = lab.vm("orders")["console"].as_str().unwrap().to_owned();
    lab.until(SOON, "sysrq is off", |_| {
        std::fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains("sysrq-is-off"))
    });
    let refused = lab.cli(&["drill", "run", "guest-panic", "--vm", "orders", "--json"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing was injected: "), "{said}");
    assert!(refused.stdout.is_empty());

    assert_eq!(lab.remedies().len(), remedies, "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
}

/// The report of a drill has the keys of docs/json.md, and no others.
fn has_the_documented_keys(report: &Value) {
    const BEGINS: &str = "{v, fault, vm,";
    let (_, shape) =
        include_str!("../../../../docs/json.md").split_once(BEGINS).expect("the shape of a report");
    let (shape, _) = shape.split_once('}').unwrap();
    let words = BEGINS.trim_start_matches('{').split(',').chain(shape.split(','));
    let documented: BTreeSet<&str> = words.map(str::trim).filter(|word| !word.is_empty()).collect();
    let told: BTreeSet<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(told, documented);
}

/// Ctrl-c in the middle of a drill: its fault is taken back.
fn interrupt_a_slow_disk(lab: &Lab) {
    let (mut drill, mut said) = slow_disk(lab);
    signal(drill.pid(), "INT");
    assert_eq!(drill.0.wait().unwrap().code(), Some(1));
    assert!(said.any(|line| line.contains("interrupted: its fault was taken back")), "{}", lab.story());
    assert_eq!(iops(lab), 0, "{}", lab.story());
}

/// kill -9 in the middle of a drill: the daemon takes its fault back when the announcement is over.
fn kill_a_slow_disk(lab: &Lab) {
    let (drill, _said) = slow_disk(lab);
    drop(drill);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(iops(lab), 20, "the drill is still announced: {}", lab.story());
    let mut daemon = UnixStream::connect(lab.state().join("holdfast.sock")).unwrap();
    let over = "POST /api/v1/vms/orders/drill-off HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    daemon.write_all(over.as_bytes()).unwrap();
    let mut answer = String::new();
    daemon.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    lab.until(SOON, "the fault is taken back", |lab| iops(lab) == 0);
}

/// A drill that slows the disk down, with its fault in, and what it says from then on.
fn slow_disk(lab: &Lab) -> (Ends, impl Iterator<Item = String> + use<>) {
    let mut command = crate::lab::holdfast();
    command.arg("--state").arg(lab.state()).args(["drill", "run", "disk-slow", "--vm", "orders", "--yes"]);
    let mut drill = Ends(command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let mut said = BufReader::new(drill.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("the fault is in")), "{}", lab.story());
    assert_eq!(iops(lab), 20);
    (drill, said)
}

/// How many operations a second QEMU allows the disk; 0: as many as it can.
fn iops(lab: &Lab) -> u64 {
    let disks = qmp(lab, "orders", r#"{"execute":"query-block"}"#);
    disks[0]["inserted"]["iops"].as_u64().unwrap()
}
