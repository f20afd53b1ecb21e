//! `holdfast backup image --format qcow2`: what is saved is the disk that a guest sees, and nothing that a head names is followed.

#![expect(clippy::unwrap_used, reason = "tests")]

mod place;

use place::machine::{assert_same, qemu};
use place::{Begun, MIB, Place, noise, until};
use rustix::process::Signal;
use std::fs;
use std::path::Path;

const QCOW2: [&str; 4] = ["image", "disk.qcow2", "--format", "qcow2"];

#[track_caller]
fn well(program: &str, words: &[&str]) {
    let output = qemu(program, words);
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
}

impl Place {
    /// A repository, and `disk.qcow2`: 64 MiB, of which five are noise. The same is in `disk.raw`, as `qemu-img` reads it.
    fn with_qcow2() -> Self {
        let place = Self::empty();
        place.well(&["init"]);
        let (raw, noisy) = (place.text("noise.raw"), place.path("noise.raw"));
        fs::write(&noisy, noise(3, 5 * MIB)).unwrap();
        let disk = place.text("disk.qcow2");
        well("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", &raw, &disk]);
        well("qemu-img", &["resize", "-q", "-f", "qcow2", &disk, "64M"]);
        well("qemu-io", &["-f", "qcow2", "-c", "write -P 9 40M 3k", &disk]);
        well("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &disk, &place.text("disk.raw")]);
        place
    }

    fn qemu_nbds(&self) -> Vec<u32> {
        let root = self.root().to_str().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_ours = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("qemu-nbd") && line.contains(root)
        };
        pids.filter(is_ours).collect()
    }
}

#[test]
fn the_disk_in_a_qcow2_is_saved_as_its_guest_sees_it_and_shares_its_blocks_with_a_raw_one() {
    let place = Place::with_qcow2();
    let before = fs::read(place.path("disk.qcow2")).unwrap();
    let saved = place.json(&QCOW2);
    assert_eq!((&saved["id"], &saved["size"]), (&"disk/1".into(), &(64 * MIB).into()), "{saved}");
    let read = saved["read"].as_u64().unwrap();
    assert!((5 * MIB as u64..7 * MIB as u64).contains(&read), "holes are not read: {saved}");
    assert!(saved["added"].as_u64().unwrap() >= 5 * MIB as u64, "{saved}");
    assert!(fs::read(place.path("disk.qcow2")).unwrap() == before, "nothing was written to it");
    let raw = fs::read(place.path("disk.raw")).unwrap();
    assert!(place.restored("disk/1") == raw);
    let same = place.json(&["image", "disk.raw", "--of", "copy"]);
    assert_eq!(same["added"], 0, "the same blocks: {same}");
    place.well(&["export", "--point", "disk/1", "--format", "qcow2", "--out", "out.qcow2"]);
    assert_same(&place.text("disk.raw"), "qcow2", &place.text("out.qcow2"));

    well("qemu-io", &["-f", "qcow2", "-c", "write -P 7 20M 64k", &place.text("disk.qcow2")]);
    fs::write(place.path("changed"), "20971520 65536\n").unwrap();
    let saved = place.json(&[&QCOW2[..], &["--changed", "changed"]].concat());
    assert_eq!((&saved["read"], &saved["all"]), (&(64 << 10).into(), &false.into()), "{saved}");
    well(
        "qemu-img",
        &["convert", "-f", "qcow2", "-O", "raw", &place.text("disk.qcow2"), &place.text("disk.raw")],
    );
    assert!(place.restored("disk/2") == fs::read(place.path("disk.raw")).unwrap());
    assert_eq!(place.qemu_nbds(), Vec::<u32>::new());
}

#[test]
fn files_come_out_of_the_disk_in_a_qcow2() {
    let place = Place::empty();
    place.well(&["init"]);
    let (folder, raw) = (place.path("etc"), place.text("fs.raw"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("hostname"), "orders\n").unwrap();
    fs::File::create(&raw).unwrap().set_len(8 * MIB as u64).unwrap();
    let made = qemu("mke2fs", &["-q", "-t", "ext4", "-d", folder.to_str().unwrap(), &raw]);
    assert!(made.status.success(), "mke2fs of Debian's e2fsprogs: {made:?}");
    well("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &raw, &place.text("disk.qcow2")]);
    place.well(&QCOW2);
    assert!(place.well(&["files", "/"]).contains("hostname"));
    place.well(&["extract", "/hostname", "--out", "out"]);
    let out = place.path("out");
    let file = if out.is_dir() { out.join("hostname") } else { out };
    assert_eq!(fs::read_to_string(file).unwrap(), "orders\n");
}

#[test]
fn what_begins_as_a_qcow2_is_saved_only_once_it_is_said_what_it_is() {
    let place = Place::with_qcow2(); // A31
    let refused = place.refused(&["image", "disk.qcow2"]);
    assert!(refused.contains("`disk.qcow2` begins as a qcow2 image does"), "{refused}");
    assert!(refused.contains("`--format qcow2` saves the disk that it holds"), "{refused}");
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 0);

    // A guest wrote into its raw disk what names a file of this host.
    let secret = place.text("secret");
    fs::write(&secret, "of somebody else").unwrap();
    let disk = place.text("raw.img");
    well("qemu-img", &["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &secret, &disk, "1M"]);
    assert!(place.refused(&["image", "raw.img"]).contains("`--format raw` the bytes of the file"));
    let followed = place.refused(&["image", "raw.img", "--format", "qcow2"]);
    assert!(followed.contains(&format!("stands on `{secret}`, which is not followed (A31)")), "{followed}");
    place.well(&["image", "raw.img", "--format", "raw"]);
    assert!(place.restored("raw/1") == fs::read(&disk).unwrap());
}

#[test]
fn a_head_that_names_other_files_is_refused_and_so_is_what_is_no_qcow2_or_in_use() {
    let place = Place::with_qcow2(); // A31, A32
    let image = |name: &str| place.refused(&["image", name, "--format", "qcow2"]);
    let top = place.text("top.qcow2");
    well("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &place.text("disk.qcow2"), &top]);
    let refused = image("top.qcow2");
    assert!(
        refused.contains("which is not followed (A31)") && refused.contains("qemu-img convert"),
        "{refused}"
    );
    let data = format!("data_file={}", place.text("data"));
    well("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &data, &place.text("split.qcow2"), "1M"]);
    assert!(image("split.qcow2").contains("its data is in another file (A31)"));
    assert!(image("disk.raw").contains("it is no qcow2"));
    assert!(image("missing.qcow2").contains("No such file"));
    assert!(std::process::Command::new("mkfifo").arg(place.path("pipe.qcow2")).status().unwrap().success());
    assert!(image("pipe.qcow2").contains("is no regular file"));
    let mut spoilt = fs::read(place.path("disk.qcow2")).unwrap();
    spoilt[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
    fs::write(place.path("spoilt.qcow2"), &spoilt).unwrap();
    assert!(image("spoilt.qcow2").contains("too large (A32)"));
    // QEMU itself says what it cannot read.
    let mut spoilt = fs::read(place.path("disk.qcow2")).unwrap();
    spoilt[79] |= 1 << 4; // an incompatible feature, extended entries, that its tables do not have
    spoilt[32..36].copy_from_slice(&7_u32.to_be_bytes()); // and a way to encrypt that nobody knows
    fs::write(place.path("spoilt.qcow2"), &spoilt).unwrap();
    let said = image("spoilt.qcow2");
    assert!(said.contains("`qemu-nbd`: ") && said.contains("no point was made"), "{said}");

    let machine = place.machine();
    assert!(image("disk.qcow2").contains("lock"), "{}", image("disk.qcow2"));
    drop(machine);
    let nothing = place.refused(&["image", "nbd+unix:///x?socket=y", "--format", "raw"]);
    assert!(nothing.contains("`--format` says nothing of"), "{nothing}");
    assert_eq!((place.qemu_nbds(), place.json(&["list"])), (Vec::new(), serde_json::json!([])));
}

#[test]
fn where_qemu_nbd_is_missing_its_package_is_named() {
    let place = Place::with_qcow2();
    // In a space of its own there is something else in its place.
    let mut command = std::process::Command::new("unshare");
    let without = r#"mount --bind /dev/null "$(command -v qemu-nbd)" && exec "$@""#;
    command.args(["--map-root-user", "--mount", "sh", "-c", without, "sh"]);
    command
        .arg(env!("CARGO_BIN_EXE_holdfast"))
        .arg("backup")
        .args(QCOW2)
        .arg("--repo")
        .arg(place.path("repo"));
    command.env("HOME", place.root()).current_dir(place.root());
    let output = command.output().expect("unshare, package util-linux");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the program `qemu-nbd` is missing (package qemu-utils)"), "{said}");
    assert_eq!((output.status.code(), place.json(&["list"])), (Some(1), serde_json::json!([])));
}

#[test]
fn a_kill_leaves_no_qemu_nbd_and_the_next_goes_on_where_it_came_to() {
    let place = Place::with_qcow2();
    let old = place.text("disk.qcow2");
    let large = place.text("large.raw");
    fs::write(&large, noise(5, 160 * MIB)).unwrap();
    well("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &large, &old]);
    std::thread::sleep(std::time::Duration::from_millis(150)); // what was just written to could be written to once more
    let mut words = QCOW2.to_vec();
    words.extend(["--limit", "64MiB/s"]);
    let mut begun = Begun::of(&mut place.command(&words));
    let attempts = || {
        let all = fs::read_dir(place.path(".cache/holdfast/pieces")).ok()?.next()?.ok()?;
        Some(all.path().join("disk/disk0.attempt").exists())
    };
    until("it reads, and keeps how far it came", || attempts() == Some(true));
    let [reader] = place.qemu_nbds()[..] else { panic!("{:?}", place.qemu_nbds()) };
    let words = fs::read_to_string(format!("/proc/{reader}/cmdline")).unwrap();
    assert!(words.contains("--read-only") && words.contains("\"backing\":null"), "{words}");
    begun.signal(Signal::KILL);
    begun.ended();
    until("the reader is gone", || !Path::new(&format!("/proc/{reader}")).exists());
    let saved = place.json(&QCOW2);
    assert!(saved["resumed"].as_u64().unwrap() >= 64 * MIB as u64, "{saved}");
    assert!(place.restored(saved["id"].as_str().unwrap()) == fs::read(&large).unwrap());
    assert_eq!(place.qemu_nbds(), Vec::<u32>::new());
}

#[test]
fn one_that_is_written_to_while_it_is_read_makes_no_point() {
    let place = Place::with_qcow2();
    let mut words = QCOW2.to_vec();
    words.extend(["--limit", "1MiB/s"]);
    let mut begun = Begun::of(&mut place.command(&words));
    until("it reads", || !place.qemu_nbds().is_empty());
    std::thread::sleep(std::time::Duration::from_millis(500));
    // Nobody who asks for QEMU's lock can; others may.
    let refused = qemu("qemu-io", &["-f", "qcow2", "-c", "write 0 4k", &place.text("disk.qcow2")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lock"), "{refused:?}");
    let mut file = fs::OpenOptions::new().append(true).open(place.path("disk.qcow2")).unwrap();
    std::io::Write::write_all(&mut file, &[0]).unwrap();
    assert!(!begun.ended().success());
    assert!(begun.said().contains("was written to while it was read"));
    assert_eq!(place.json(&["list"]), serde_json::json!([]));
}
