//! A person's restart: what is bound to be refused is refused before anything is ended.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::quiet::{Quiet, err, vm};
use std::fs;

fn pid(daemon: &Quiet) -> Option<u64> {
    daemon.vm("a")["pid"].as_u64()
}

#[test]
fn a_vm_that_would_not_start_again_is_not_ended_for_that() {
    let daemon = Quiet::running(&vm("a", ""));
    daemon.until("it runs", |daemon| pid(daemon).is_some());
    let taken = daemon.say(&["snapshot", "create", "a"]);
    assert!(taken.status.success(), "{}", err(&taken));
    let before = pid(&daemon);
    let folder = daemon.path().join("a.raw.snapshots");
    let records = ["record", "record-copy"].map(|name| folder.join(name));
    let whole = records.each_ref().map(|at| fs::read(at).unwrap());
    records.iter().for_each(|at| fs::remove_file(at).unwrap());

    let refused = daemon.say(&["vm", "restart", "a", "--force"]);
    let told = err(&refused);
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(
        told.contains("would not start again") && told.contains("the record of them is missing"),
        "{told}"
    );
    assert!(told.contains("`holdfast vm stop a` ends it all the same"), "{told}");
    assert_eq!(pid(&daemon), before, "it runs on");

    for (at, bytes) in records.iter().zip(&whole) {
        fs::write(at, bytes).unwrap();
    }
    let restarted = daemon.say(&["vm", "restart", "a", "--force"]);
    assert!(restarted.status.success(), "{}", err(&restarted));
    daemon.until("it was started again", |daemon| pid(daemon).is_some_and(|pid| Some(pid) != before));
}
