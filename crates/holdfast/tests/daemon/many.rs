//! As many VMs as a large host has.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::quiet::{Quiet, vm};

#[test]
fn a_thousand_vms_are_looked_at_and_known_again_after_a_kill_i9() {
    let config: String = (0..1_000).map(|n| vm(&format!("v{n}"), "autostart = false\n")).collect();
    let mut daemon = Quiet::running(&config);
    let all_known = |daemon: &Quiet| {
        let status = daemon.json(&["status"]);
        let vms = status["vms"].as_array().unwrap();
        assert_eq!(vms.len(), 1_000);
        vms.iter().all(|vm| vm["state"] == "stopped")
    };
    daemon.until("each has been looked at", all_known);
    assert!(daemon.say(&["vm", "maintenance", "v999", "on"]).status.success());
    daemon.kill();
    daemon.start(&[]);
    daemon.until("each has been looked at again", all_known);
    assert_eq!(daemon.vm("v999")["protection"], "maintenance", "what was said before is known");
}
