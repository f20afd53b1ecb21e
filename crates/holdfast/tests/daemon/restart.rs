//! A person's restart: what is bound to be refused is refused before anything is ended.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::signal;
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

#[test]
fn a_hung_vm_whose_kernel_is_gone_is_ended_only_once_it_is_there_again() {
    let mut daemon = Quiet::new(&vm("a", "kernel = \"vmlinux\"\n"));
    let kernel = daemon.path().join("vmlinux");
    fs::write(&kernel, KERNEL).unwrap();
    daemon.start(&[]);
    daemon.until("it runs", |daemon| pid(daemon).is_some());
    let hung = pid(&daemon);
    fs::remove_file(&kernel).unwrap();
    signal(i32::try_from(hung.unwrap()).unwrap(), "STOP");

    let why = format!("it would not start again: cannot read {}", kernel.display());
    let waits = format!("restart-vm has to wait: {why}");
    daemon.until("it is said", |daemon| {
        String::from_utf8_lossy(&daemon.say(&["explain", "1"]).stdout).contains(&waits)
    });
    assert_eq!(pid(&daemon), hung, "it is not ended");
    // A daemon that starts meanwhile looks after it, and after the others.
    daemon.kill();
    daemon.write(&format!("{}{}", vm("a", "kernel = \"vmlinux\"\n"), vm("b", "")));
    daemon.start(&[]);
    daemon.until("the other one runs", |daemon| daemon.vm("b")["pid"].is_u64());
    assert!(daemon.log().contains("the kernel of vm `a` is missing"), "{}", daemon.log());
    assert_eq!(pid(&daemon), hung, "it is not ended");
    fs::write(&kernel, KERNEL).unwrap();
    daemon.until("it was started again", |daemon| pid(daemon).is_some_and(|pid| Some(pid) != hung));
}

/// The processes that bring a backup into a disk of this daemon.
fn suppliers(daemon: &Quiet) -> Vec<i32> {
    let own = format!("{}.snapshots", daemon.path().join("a.raw").display());
    let all = fs::read_dir("/proc").unwrap().flatten();
    let is_own = |line: String| line.contains("\0supply\0") && line.contains(&own);
    all.filter(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(is_own))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn kill_suppliers(daemon: &Quiet) {
    suppliers(daemon).iter().for_each(|pid| signal(*pid, "KILL"));
    daemon.until("nobody brings anything", |daemon| suppliers(daemon).is_empty());
}

#[test]
fn a_vm_whose_disk_comes_in_is_not_ended_while_its_backup_cannot_be_had() {
    let mut daemon = Quiet::new(&vm("a", BACKED));
    let filled: Vec<u8> =
        (0..2_u32 << 20).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(daemon.path().join("a.raw"), filled).unwrap();
    init(&daemon);
    daemon.start(&[]);
    daemon.until("it runs", |daemon| pid(daemon).is_some());
    well(&daemon, &["backup", "create", "a", "--limit", "1GiB/s"]);
    well(&daemon, &["backup", "revert", "a", "1", "--yes"]);
    let (repository, away) = (daemon.path().join("repo"), daemon.path().join("away"));
    fs::rename(&repository, &away).unwrap();
    let restart = ["vm", "restart", "a", "--force"];
    let why = "its disk comes in from a/1, which cannot be read: ";
    is_refused(&daemon, &restart, why);
    kill_suppliers(&daemon);
    is_refused(&daemon, &restart, why);
    // Away from it a VM goes all the same; and back to what was left half only once that can be had.
    well(&daemon, &["snapshot", "revert", "a", "1", "--yes"]);
    let listed = daemon.json(&["snapshot", "list", "a"]);
    let left = listed["snapshots"].as_array().unwrap().last().unwrap()["id"].to_string();
    let back = ["snapshot", "revert", "a", &left, "--yes"];
    is_refused(&daemon, &back, why);
    fs::rename(&away, &repository).unwrap();
    well(&daemon, &back);
    let before = pid(&daemon);
    well(&daemon, &restart);
    daemon.until("it was started again", |daemon| pid(daemon).is_some_and(|pid| Some(pid) != before));
    daemon.until("it is brought", |daemon| !suppliers(daemon).is_empty());
    well(&daemon, &["vm", "stop", "a", "--force"]);
    kill_suppliers(&daemon);
}

#[test]
fn a_vm_whose_memory_is_saved_while_it_is_paused_is_shown_as_paused() {
    let mut daemon = Quiet::new(&vm("a", BACKED));
    init(&daemon);
    daemon.start(&[]);
    daemon.until("it runs, and is paused", |daemon| daemon.say(&["vm", "pause", "a"]).status.success());
    let paused = |daemon: &Quiet| {
        let shown = daemon.vm("a");
        shown["state"] == "paused"
            && shown["note"].as_str().is_some_and(|note| note.starts_with("paused by "))
    };
    daemon.until("it is paused", paused);
    well(&daemon, &["snapshot", "create", "a", "--memory"]);
    for _ in 0..30 {
        assert!(paused(&daemon), "{}", daemon.vm("a"));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    well(&daemon, &["backup", "create", "a", "--limit", "1GiB/s"]);
    assert!(paused(&daemon), "{}", daemon.vm("a"));
    well(&daemon, &["vm", "resume", "a"]);
    daemon.until("it runs on", |daemon| daemon.vm("a")["state"] != "paused");
}
