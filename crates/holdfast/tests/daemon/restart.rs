//! A person's restart: what is bound to be refused is refused before anything is ended.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::quiet::{Quiet, err, vm};
use std::fs;

/// It is backed up, and comes in slowly.
const BACKED: &str = "[vm.a.protect]\nprove = { auto = false }\nbackup.to = \"main\"\nbackup.limit = \"64KiB\"\n\
                      [repository.main]\npath = \"repo\"\nkey_file = \"key\"\n";

fn init(daemon: &Quiet) {
    fs::write(daemon.path().join("key"), "correct horse battery\n").unwrap();
    well(daemon, &["backup", "init", "--repo", "repo", "--key-file", "key"]);
}

fn well(daemon: &Quiet, words: &[&str]) {
    let ended = daemon.say(words);
    assert!(ended.status.success(), "{words:?}: {}\n{}", err(&ended), daemon.log());
}

/// It is refused for this reason, and the VM runs on.
fn is_refused(daemon: &Quiet, words: &[&str], why: &str) {
    let before = pid(daemon);
    let refused = daemon.say(words);
    let told = err(&refused);
    assert_eq!(refused.status.code(), Some(1), "{words:?}: {told}");
    assert!(told.contains(&format!("it would not start again: {why}")), "{words:?}: {told}");
    assert!(before.is_some() && pid(daemon) == before, "{words:?}: it runs on");
}

/// A kernel that QEMU takes, and that does nothing.
const KERNEL: [u8; 1 << 14] = [0; 1 << 14];

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

#[test]
fn a_vm_whose_kernel_is_gone_is_not_ended_by_any_way_back() {
    let kernel = |daemon: &Quiet| daemon.path().join("vmlinux");
    let mut daemon = Quiet::new(&vm("a", &format!("kernel = \"vmlinux\"\n{BACKED}")));
    fs::write(kernel(&daemon), KERNEL).unwrap();
    init(&daemon);
    daemon.start(&[]);
    daemon.until("it runs", |daemon| pid(daemon).is_some());
    well(&daemon, &["snapshot", "create", "a", "--memory"]);
    well(&daemon, &["backup", "create", "a", "--limit", "1GiB/s"]);
    fs::remove_file(kernel(&daemon)).unwrap();
    let ways = [
        &["vm", "restart", "a", "--force"][..],
        &["snapshot", "revert", "a", "1", "--yes"],
        &["snapshot", "resume", "a", "1", "--yes"],
        &["backup", "revert", "a", "1", "--yes"],
    ];
    let why = format!("cannot read {}: No such file", kernel(&daemon).display());
    for way in ways {
        is_refused(&daemon, way, &why);
    }
    fs::write(kernel(&daemon), KERNEL).unwrap();
    well(&daemon, ways[1]);
    // One that is off says what is not there, and nothing of who might read it.
    well(&daemon, &["vm", "stop", "a", "--force"]);
    daemon.until("it is off", |daemon| pid(daemon).is_none());
    fs::remove_file(kernel(&daemon)).unwrap();
    let _refused = daemon.say(&["vm", "start", "a"]);
    daemon.until("it is said", |daemon| daemon.log().contains(&why));
    assert!(!daemon.log().contains("cannot reach what it needs"), "{}", daemon.log());
}
