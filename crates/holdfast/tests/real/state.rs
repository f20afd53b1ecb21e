//! The state folder is full or damaged: the daemon goes on or refuses clearly, and no VM is harmed.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Dice, Start, lives, start_of, untouched_for, wait_restarted};
use crate::lab::{Lab, SOON, holdfast, signal, vms_of};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A small file system in memory, gone with this value.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, size: &str) -> Self {
        fs::create_dir(path).unwrap();
        let options = format!("size={size},mode=0700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "hf"]).arg(path).status();
        assert!(done.unwrap().success(), "mount needs root");
        Self(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until nothing more goes in.
fn fill(path: &Path) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    while file.write_all(&[7; 512]).is_ok() {}
}

#[test]
fn a_full_state_folder_stops_every_action_and_no_watching_and_room_brings_both_back_r25() {
    let mut lab = Lab::new("");
    let _mount = Mount::new(&lab.state(), "1m");
    lab.start_warm(&["orders"]);
    let before = Start::of(&lab, "orders");
    let ballast = lab.state().join("ballast");

    lab.until(SOON, "the status says that nothing is done", |lab| {
        fill(&ballast);
        lab.json(&["status"])["mode"] == "observe"
    });
    let note = lab.json(&["status"])["note"].to_string();
    assert!(note.contains("journal cannot be written"), "{note}");
    assert_eq!(start_of(&lab, "orders"), Some(before));
    signal(before.pid, "KILL");
    lab.until(SOON, "its end is seen", |lab| lab.vm("orders")["pid"].is_null());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        fill(&ballast);
        assert_eq!(vms_of(&lab.state()), Vec::<i32>::new(), "nothing is done that is not on record");
    }
    assert_eq!(lab.json(&["status"])["mode"], "observe", "{}", lab.story());

    fs::remove_file(&ballast).unwrap();
    wait_restarted(&lab, "orders", before);
}

/// What is in a folder: each plain file with its bytes.
fn contents(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            contents(&path, found);
        } else if kind.is_file() {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

/// The files that a daemon must be able to trust.
fn precious(state: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    contents(state, &mut all);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    all.retain(|path, _| {
        let ours = [".hfj", ".lease"].iter().any(|end| name(path).ends_with(end));
        ours || ["version", "tokens", "run"].contains(&name(path).as_str())
    });
    all
}

/// Makes the folder what it was, but for what QEMU has open.
fn put_back(state: &Path, whole: &BTreeMap<PathBuf, Vec<u8>>) {
    for folder in ["journal", "leases"] {
        for file in fs::read_dir(state.join(folder)).unwrap().flatten() {
            fs::remove_file(file.path()).unwrap();
        }
    }
    for (path, bytes) in whole {
        fs::write(path, bytes).unwrap();
    }
}

/// Every damage that is tried on one file, each with its name.
fn damages(bytes: &[u8], dice: &mut Dice) -> Vec<(String, Vec<u8>)> {
    let length = bytes.len() as u64;
    let (flip, cut) = (dice.below(length), dice.below(length));
    let mut flipped = bytes.to_vec();
    flipped[usize::try_from(flip).unwrap()] ^= 1 << dice.below(8);
    vec![
        (format!("flipped at {flip} of {length}"), flipped),
        (format!("cut at {cut} of {length}"), bytes[..usize::try_from(cut).unwrap()].to_vec()),
        ("empty".into(), Vec::new()),
    ]
}

/// Starts a daemon that may refuse; says whether it runs.
fn starts(lab: &Lab) -> Result<crate::hands::Ends, String> {
    let log = lab.path().join("damaged.log");
    let mut command = holdfast();
    command.arg("run").arg("--config").arg(lab.config()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut daemon = crate::hands::Ends(command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
    let began = Instant::now();
    loop {
        if let Some(status) = daemon.0.try_wait().unwrap() {
            let said = fs::read_to_string(&log).unwrap();
            assert!(status.code().is_some_and(|code| code == 1 || code == 2), "{status}: {said}");
            assert!(said.contains("hint"), "a refusal tells the way out: {said}");
            return Err(said);
        }
        if lab.cli(&["vm", "list"]).status.success() {
            return Ok(daemon);
        }
        assert!(began.elapsed() < SOON, "it neither runs nor refuses");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_damaged_state_file_is_noticed_nothing_is_deleted_and_the_vm_runs_on_r28_r29() {
    let mut lab = Lab::running("");
    let start = Start::of(&lab, "orders");
    lab.stop();
    let whole = precious(&lab.state());
    assert!(whole.len() >= 5, "{:?}", whole.keys());
    let mut dice = Dice::new(28);
    for (path, bytes) in &whole {
        for (what, damaged) in damages(bytes, &mut dice) {
            let what = format!("{} {what}", path.display());
            put_back(&lab.state(), &whole);
            fs::write(path, &damaged).unwrap();
            let daemon = starts(&lab);
            if daemon.is_ok() {
                lab.until(SOON, &format!("{what}: it knows the VM"), |lab| {
                    lab.vm("orders")["pid"] == start.pid || lab.vm("orders")["state"] == "held"
                });
            }
            drop(daemon);
            assert!(lives(start.pid), "{what}: the VM was harmed");
            assert_eq!(vms_of(&lab.state()), [start.pid], "{what}: another was started");
            let mut after = BTreeMap::new();
            contents(&lab.state(), &mut after);
            let kept = damaged.is_empty() || after.values().any(|bytes| bytes.starts_with(&damaged));
            assert!(kept, "{what}: the damaged file was deleted");
        }
    }
    put_back(&lab.state(), &whole);
    lab.start();
    lab.wait_well(SOON);
    assert_eq!(Start::of(&lab, "orders"), start, "{}", lab.story());
    untouched_for(&lab, "orders", Duration::from_secs(3), || {});
}
