//! A real guest comes back from real faults, one test a remedy, with a client that counts its rows.

mod lab;

use lab::{Lab, SOON};
use serde_json::Value;

fn drill(lab: &Lab, fault: &str) -> Value {
    lab.wait_well(SOON);
    let report = lab.json(&["drill", "run", fault, "--vm", "orders", "--yes"]);
    assert_eq!(report["ok"], true, "{report:#}\n{}", lab.story());
    assert_eq!(report["rows_lost"], 0, "{report:#}");
    report
}

#[test]
fn every_remedy_brings_a_real_guest_back_without_a_lost_row() {
    let lab = Lab::running("");
    for (fault, remedy) in [
        ("app-kill", "restart-app"),
        ("app-stop", "restart-app"),
        ("link-down", "reconnect"),
        ("disk-error", "resume-io"),
        ("guest-panic", "reset-guest"),
        ("vm-kill", "restart-vm"),
    ] {
        let report = drill(&lab, fault);
        assert_eq!(report["remedy"], remedy, "{report:#}\n{}", lab.story());
    }
    assert!(lab.cli(&["replay"]).status.success(), "the journal replays byte for byte");
}
