//! Real faults, not announced as drills: each is named, and the smallest remedy brings the service back.

use crate::hands::{Start, closed, remedies_of, told, turn, wait_restarted};
use crate::lab::{BOOT, Lab, signal};
use crate::rows::Rows;

#[test]
fn a_killed_a_stopped_and_a_panicked_vm_and_a_hung_database_come_back_r09_r10_r11_r16() {
    let _turn = turn();
    let lab = Lab::running("");
    let rows = Rows::start(&lab);

    let before = Start::of(&lab, "orders");
    signal(before.pid, "KILL");
    wait_restarted(&lab, "orders", before);
    rows.wait_for_more(&lab);
    assert_eq!(remedies_of(&closed(&lab, "VmCrashed")), ["restart-vm"], "{}", lab.story());
    told(&lab, &["vm", "release", "orders"]);

    let before = Start::of(&lab, "orders");
    signal(before.pid, "STOP");
    wait_restarted(&lab, "orders", before);
    rows.wait_for_more(&lab);
    let hung = closed(&lab, "VmHung");
    assert_eq!(remedies_of(&hung), ["restart-vm"], "{}", lab.story());
    let began = hung["remedies"][0]["ended"].as_f64();
    assert!(
        hung["isolated"].as_f64() <= began,
        "the old process is gone before the new one is there: {hung:#}"
    );
    told(&lab, &["vm", "release", "orders"]);

    let before = Start::of(&lab, "orders");
    lab.in_guest("orders", "echo c > /proc/sysrq-trigger");
    let panicked = closed(&lab, "GuestPanicked");
    lab.wait_well(BOOT);
    rows.wait_for_more(&lab);
    assert_eq!(remedies_of(&panicked), ["reset-guest"], "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), before, "the guest was reset, its QEMU was not restarted");
    told(&lab, &["vm", "release", "orders"]);

    lab.in_guest("orders", "kill -STOP $(head -n 1 /var/lib/postgresql/*/main/postmaster.pid)");
    let hung = closed(&lab, "AppHung");
    lab.wait_well(BOOT);
    rows.wait_for_more(&lab);
    assert_eq!(remedies_of(&hung), ["restart-app"], "{}", lab.story());
    assert_eq!(Start::of(&lab, "orders"), before, "only the application was restarted");

    rows.all_there(&lab);
    assert!(lab.cli(&["replay"]).status.success(), "the journal replays byte for byte");
}
