//! What persons order is done, and two VMs do not stand in each other's way.

use crate::hands::{Start, start_of, told, turn, wait_restarted};
use crate::lab::{BOOT, Lab, SOON, signal, vm_section, vms_of};
use std::time::Duration;

fn state_is(lab: &Lab, state: &str) {
    lab.until(BOOT, &format!("the VM is {state}"), |lab| lab.vm("orders")["state"] == state);
}

#[test]
fn what_a_person_orders_is_done_and_in_maintenance_nothing_else_is_i5() {
    let lab = Lab::running("");
    let before = Start::of(&lab, "orders");

    told(&lab, &["vm", "maintenance", "orders", "on"]);
    signal(before.pid, "KILL");
    lab.until(SOON, "its end is seen", |lab| lab.vm("orders")["pid"].is_null());
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        assert_eq!(vms_of(&lab.state()), Vec::<i32>::new(), "{}", lab.story());
        assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
    }
    told(&lab, &["vm", "maintenance", "orders", "off"]);
    wait_restarted(&lab, "orders", before);

    let before = Start::of(&lab, "orders");
    told(&lab, &["vm", "pause", "orders"]);
    state_is(&lab, "paused");
    told(&lab, &["vm", "resume", "orders"]);
    state_is(&lab, "running");
    lab.wait_well(SOON);
    assert_eq!(Start::of(&lab, "orders"), before, "{}", lab.story());

    told(&lab, &["vm", "restart", "orders", "--force"]);
    wait_restarted(&lab, "orders", before);

    told(&lab, &["vm", "stop", "orders"]);
    state_is(&lab, "stopped");
    assert_eq!(vms_of(&lab.state()), Vec::<i32>::new());
    assert!(lab.vm("orders")["incident"].is_null(), "stopped on purpose is not ill: {}", lab.story());
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        assert_eq!(start_of(&lab, "orders"), None, "{}", lab.story());
    }
    told(&lab, &["vm", "start", "orders"]);
    lab.wait_well(BOOT);
}

#[test]
fn two_vms_that_fail_at_once_both_come_back() {
    let _turn = turn();
    let mut lab = Lab::new(&vm_section("billing"));
    lab.start_warm(&["orders", "billing"]);
    let before = ["orders", "billing"].map(|vm| (vm, Start::of(&lab, vm)));
    for (_, start) in before {
        signal(start.pid, "KILL");
    }
    for (vm, start) in before {
        wait_restarted(&lab, vm, start);
    }
    let crashes = lab.incidents().iter().filter(|incident| incident["fault"] == "VmCrashed").count();
    assert_eq!(crashes, 2, "{}", lab.story());
    assert_eq!(lab.remedies(), ["restart-vm", "restart-vm"], "{}", lab.story());
    let pids: Vec<i32> = ["orders", "billing"].map(|vm| lab.pid(vm)).into();
    assert_eq!(vms_of(&lab.state()).len(), pids.len());
}
