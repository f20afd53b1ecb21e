//! `holdfast backup mount`: what is mounted is what was saved, nothing of it can be changed, and it ends without a trace, whoever ends it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod place;

use holdfast_backup::point::Point;
use holdfast_backup::repository::Repository;
use holdfast_backup::save::{self, Before, Progress, Source};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::store::Folder;
use place::{Begun, MIB, Place, image, numbers};
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Where administrators' programs are.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

impl Place {
    fn new() -> Self {
        let place = Self::empty();
        fs::create_dir(place.path("at")).unwrap();
        place.well(&["init"]);
        place
    }

    /// One with the point `disk/1` of `disk.img`.
    fn with_point() -> Self {
        let place = Self::new();
        fs::write(place.path("disk.img"), image(9 * MIB + 77)).unwrap();
        place.well(&["image", "disk.img"]);
        place
    }

    fn mount(&self, words: &[&str]) -> Begun {
        Begun::ready(&mut self.command(&[&["mount", "at", "--json"], words].concat()))
    }

    fn is_mounted(&self) -> bool {
        fs::read_to_string("/proc/self/mountinfo").unwrap().contains(self.root().to_str().unwrap())
    }
}

/// Runs a program, which is of a package that the tests need.
fn run(program: &str, package: &str, words: &[&str]) -> Output {
    let output = Command::new(program).args(words).env("PATH", PATH).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; install Debian's {package}"))
}

#[track_caller]
fn well(program: &str, package: &str, words: &[&str]) -> String {
    let output = run(program, package, words);
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn assert_error<T: std::fmt::Debug>(result: io::Result<T>, error: rustix::io::Errno) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(error.raw_os_error()));
}

#[test]
fn a_disk_is_the_one_that_was_saved_however_many_read_it_and_wherever() {
    let place = Place::with_point();
    let mut mount = place.mount(&["--point", "disk/1"]);
    let expected = image(9 * MIB + 77);
    let disk = place.path("at/disk0.raw");
    let ready = &mount.ready;
    assert_eq!((&ready["v"], &ready["id"]), (&1.into(), &"disk/1".into()));
    assert_eq!(ready["disks"][0]["size"], expected.len());
    assert_eq!(ready["disks"][0]["file"], disk.canonicalize().unwrap().to_str().unwrap());
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (disk, expected) = (&disk, &expected);
            scope.spawn(move || {
                let (file, mut next) = (File::open(disk).unwrap(), numbers(seed));
                for _ in 0..200 {
                    let at = next() as usize % expected.len();
                    let length = (next() as usize % 300_000).min(expected.len() - at);
                    let mut bytes = vec![1; length];
                    file.read_exact_at(&mut bytes, at as u64).unwrap();
                    assert!(bytes == expected[at..at + length], "{length} bytes at {at}");
                }
                assert_eq!(file.read_at(&mut [0; 9], expected.len() as u64).unwrap(), 0);
            });
        }
    });
    assert!(fs::read(&disk).unwrap() == expected);
    let mut names: Vec<_> =
        fs::read_dir(place.path("at")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["disk0.raw", "point.json"]);
    let about: Value = serde_json::from_slice(&fs::read(place.path("at/point.json")).unwrap()).unwrap();
    let listed = place.json(&["list"]);
    assert_eq!(about, listed[0]);
    mount.signal(Signal::TERM);
    assert!(mount.ended().success() && !place.is_mounted());
    assert_eq!(mount.said(), "");
}

#[test]
fn holes_stay_holes_and_every_tool_can_read_it() {
    let place = Place::new();
    let qcow2 = place.text("disk.qcow2");
    well("qemu-img", "qemu-utils", &["create", "-q", "-f", "qcow2", &qcow2, "200M"]);
    let write = ["-f", "qcow2", "-c", "write -P 1 0 2M", "-c", "write -P 2 150M 1M", &qcow2];
    well("qemu-io", "qemu-utils", &write);
    let raw = place.text("disk.img");
    well("qemu-img", "qemu-utils", &["convert", "-f", "qcow2", "-O", "raw", &qcow2, &raw]);
    place.well(&["image", "disk.img"]);
    let _mount = place.mount(&[]);
    let disk = place.text("at/disk0.raw");
    well("qemu-img", "qemu-utils", &["compare", "-f", "raw", "-F", "qcow2", &disk, &qcow2]);
    let map = well("qemu-img", "qemu-utils", &["map", "--output=json", "-f", "raw", &disk]);
    let map: Value = serde_json::from_str(&map).unwrap();
    let parts: Vec<_> = map.as_array().unwrap().iter().map(|part| (&part["length"], &part["data"])).collect();
    let part = |mib: usize, is_data: bool| (Value::from(mib * MIB), Value::from(is_data));
    let expected = [part(2, true), part(148, false), part(1, true), part(49, false)];
    assert_eq!(parts, expected.each_ref().map(|(length, data)| (length, data)));
    let copy = place.path("copy");
    well("cp", "coreutils", &[&disk, copy.to_str().unwrap()]);
    let copied = fs::metadata(&copy).unwrap();
    assert!(copied.len() == 200 * MIB as u64 && copied.blocks() * 512 <= 4 * MIB as u64, "{copied:?}");
}

#[test]
fn a_qcow2_that_was_saved_as_a_file_is_that_file() {
    let place = Place::new();
    let qcow2 = place.text("disk.qcow2");
    well("qemu-img", "qemu-utils", &["create", "-q", "-f", "qcow2", &qcow2, "200M"]);
    well("qemu-io", "qemu-utils", &["-f", "qcow2", "-c", "write -P 1 5M 2M", &qcow2]);
    place.well(&["image", "disk.qcow2", "--format", "raw"]);
    let _mount = place.mount(&[]);
    let disk = place.path("at/disk0.raw");
    assert!(fs::read(&disk).unwrap() == fs::read(&qcow2).unwrap());
    well("qemu-img", "qemu-utils", &["check", "-f", "qcow2", disk.to_str().unwrap()]);
}

#[test]
fn nothing_in_it_can_be_changed_by_anybody() {
    let place = Place::with_point();
    let _mount = place.mount(&[]);
    let refused = || {
        let disk = place.path("at/disk0.raw");
        assert_error(File::options().write(true).open(&disk), rustix::io::Errno::ROFS);
        assert_eq!(fs::metadata(&disk).unwrap().mode() & 0o7777, 0o400);
        assert!(File::create(place.path("at/new")).is_err() && fs::remove_file(&disk).is_err());
        assert!(fs::rename(&disk, place.path("at/other")).is_err());
        assert!(fs::create_dir(place.path("at/folder")).is_err());
        assert!(fs::read(&disk).unwrap() == image(9 * MIB + 77));
    };
    refused();
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = list.lines().find(|line| line.contains(place.root().to_str().unwrap())).unwrap();
    assert!(
        line.contains(" ro,nosuid,nodev,noexec,noatime ") && line.contains("fuse.holdfast disk/1"),
        "{line}"
    );
    assert!(line.contains("default_permissions") && !line.contains("allow_other"), "{line}");
    // Root can tell the kernel otherwise, and still nothing is written.
    mount_remount(place.path("at"), MountFlags::empty(), c"").unwrap();
    refused();
}

#[test]
fn it_is_for_its_user_alone_unless_others_are_let_in() {
    let place = Place::with_point();
    fs::set_permissions(place.root(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let disk = place.text("at/disk0.raw");
    let as_other = || {
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "head", "-c", "1", &disk];
        run("setpriv", "util-linux", &user).status.success()
    };
    let mut mount = place.mount(&[]);
    assert!(!as_other());
    mount.signal(Signal::INT);
    assert!(mount.ended().success());
    let _mount = place.mount(&["--allow-other"]);
    assert!(as_other());
}

#[test]
fn a_damaged_block_is_an_error_for_who_reads_it_and_all_others_can_be_read() {
    let place = Place::with_point();
    let packs = fs::read_dir(place.path("repo/packs")).unwrap();
    let packs = packs.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let largest = packs.map(|pack| pack.unwrap().path()).max_by_key(|pack| fs::metadata(pack).unwrap().len());
    let largest = largest.unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let mut mount = place.mount(&[]);
    let (file, expected) = (File::open(place.path("at/disk0.raw")).unwrap(), image(9 * MIB + 77));
    let mut hurt = 0;
    for _ in 0..2 {
        hurt = 0;
        for (at, expected) in expected.chunks(256 << 10).enumerate() {
            let mut bytes = vec![0; expected.len()];
            match file.read_exact_at(&mut bytes, (at * (256 << 10)) as u64) {
                Ok(()) => assert!(bytes == expected, "block {at}"),
                read => {
                    assert_error(read, rustix::io::Errno::IO);
                    hurt += 1;
                }
            }
        }
    }
    assert_eq!(hurt, 1, "one byte was damaged, so one block is");
    drop(file);
    mount.signal(Signal::INT);
    assert!(mount.ended().success() && !place.is_mounted());
    let said = mount.said();
    assert_eq!(said.matches("the disk cannot be read at byte").count(), 1, "{said}");
    assert!(
        said.contains("is damaged") && said.contains("disk disk0") && said.contains("backup repair"),
        "{said}"
    );
}

#[test]
fn who_unmounts_it_ends_the_command() {
    let place = Place::with_point();
    let mut mount = place.mount(&[]);
    assert!(!mount.has_ended());
    well("umount", "mount", &[&place.text("at")]);
    assert!(mount.ended().success() && !place.is_mounted());
    // At once, by another command, while the first one may still be ending.
    let mut first = place.mount(&[]);
    well("umount", "mount", &[&place.text("at")]);
    let mut second = place.mount(&[]);
    assert!(first.ended().success());
    assert!(fs::read(place.path("at/disk0.raw")).unwrap() == image(9 * MIB + 77));
    second.signal(Signal::TERM);
    assert!(second.ended().success() && !place.is_mounted());
}

#[test]
fn one_that_is_in_use_is_gone_from_its_place_and_served_until_it_is_closed() {
    let place = Place::with_point();
    let mut mount = place.mount(&[]);
    let file = File::open(place.path("at/disk0.raw")).unwrap();
    mount.signal(Signal::TERM);
    let begun = Instant::now();
    while place.is_mounted() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it stays mounted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut bytes = vec![0; MIB];
    file.read_exact_at(&mut bytes, 4 * MIB as u64).unwrap();
    assert!(bytes == image(5 * MIB)[4 * MIB..] && !mount.has_ended());
    drop(file);
    let ended = mount.ended();
    let said = mount.said();
    assert!(ended.success(), "{said}");
    assert!(said.contains("served until its last file is closed"));

    let mut mount = place.mount(&[]);
    let file = File::open(place.path("at/disk0.raw")).unwrap();
    mount.signal(Signal::TERM);
    while place.is_mounted() {
        std::thread::sleep(Duration::from_millis(5));
    }
    mount.signal(Signal::TERM);
    assert!(mount.ended().success());
    assert!(file.read_at(&mut [0; 1], 8 * MIB as u64).is_err(), "it was ended at once");
}

#[test]
fn what_a_killed_command_left_is_cleared_by_the_next_one_and_nothing_else_is() {
    let place = Place::with_point();
    let mut mount = place.mount(&[]);
    let refused = place.refused(&["mount", "at"]);
    assert!(refused.contains("a restore point is mounted there"), "{refused}");
    mount.signal(Signal::KILL);
    mount.ended();
    assert_error(fs::metadata(place.path("at")), rustix::io::Errno::NOTCONN);
    let mut mount = place.mount(&[]);
    assert!(fs::read(place.path("at/disk0.raw")).unwrap() == image(9 * MIB + 77));
    mount.signal(Signal::TERM);
    assert!(mount.ended().success() && !place.is_mounted());
    assert!(mount.said().contains("what a command that was killed left there was unmounted"));
}

#[test]
fn where_it_cannot_be_mounted_or_found_nothing_is_and_the_way_out_is_said() {
    let place = Place::with_point();
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/precious"), "").unwrap();
    fs::write(place.path("other.key"), "not the secret of it").unwrap();
    for (words, why, hint) in [
        (vec!["mount", "nowhere"], "it is not there", "mkdir"),
        (vec!["mount", "full"], "it is not empty", "name an empty folder"),
        (vec!["mount", "disk.img"], "it is no folder", "name an empty folder"),
        (vec!["mount", "at", "--point", "7"], "there is no restore point `7`", "backup list"),
        (vec!["mount", "at", "--disk", "disk9"], "its disks are: disk0", "--disk"),
        (vec!["mount", "at", "--key-file", "other.key"], "", "name the right key with `--key-file`"),
    ] {
        let refused = place.refused(&words);
        assert!(refused.contains(why) && refused.contains(hint), "{words:?}: {refused}");
    }
    assert!(!place.is_mounted());
}

/// A shell in which nothing that is mounted is seen by others, and `/dev/fuse` is what `device` makes of it.
fn shell(place: &Place, device: &str, script: &str) -> Output {
    let holdfast = env!("CARGO_BIN_EXE_holdfast");
    let text = format!("set -e; mount -t tmpfs none /dev; {device}; HOLDFAST={holdfast}; {script}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &text]).env_clear().env("PATH", PATH).env("NO_COLOR", "1");
    command.env("HOME", place.root()).env("HOLDFAST_REPO", place.path("repo")).current_dir(place.root());
    command.output().expect("Debian's util-linux")
}

#[test]
fn a_machine_without_fuse_is_told_what_it_lacks() {
    let place = Place::with_point();
    let said = shell(&place, "true", "$HOLDFAST backup mount at");
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("cannot open `/dev/fuse`") && text.contains("modprobe fuse"), "{text}");
    assert_eq!(said.status.code(), Some(1));
}

const FOR_ALL: &str =
    "mknod /dev/fuse c 10 229; chmod 666 /dev/fuse; mknod /dev/null c 1 3; chmod 666 /dev/null";

/// Gives all of it to a user who is nobody, and runs the command as that one.
fn as_nobody(place: &Place, more: &str, script: &str) -> Output {
    fs::set_permissions(place.root(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    well("chown", "coreutils", &["-R", "65534:65534", &place.text("")]);
    let user = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all";
    shell(place, &format!("{FOR_ALL}; {more}"), &format!("{user} $HOLDFAST backup mount at {script}"))
}

#[test]
fn a_user_mounts_and_unmounts_it_by_the_program_that_may() {
    assert!(
        run("fusermount3", "fuse3", &["-V"]).status.success(),
        "install Debian's fuse3: `scripts/setup.sh --tests`"
    );
    let place = Place::with_point();
    let script = "> said & pid=$!; until grep -q umount said; do kill -0 $pid; sleep 0.01; done; \
                  grep \"$PWD/at .*fuse.holdfast\" /proc/self/mountinfo; \
                  setpriv --reuid=65534 --regid=65534 --clear-groups cmp at/disk0.raw disk.img; \
                  kill $pid; wait $pid; ! grep \"$PWD/at .*fuse.holdfast\" /proc/self/mountinfo";
    let said = as_nobody(&place, "true", script);
    assert!(said.status.success(), "{said:?}");
    let line = String::from_utf8_lossy(&said.stdout);
    assert!(line.contains(" ro,nosuid,nodev,noexec,noatime ") && line.contains("user_id=65534"), "{line}");
}

#[test]
fn a_user_without_that_program_is_told_its_package() {
    let place = Place::with_point();
    let hidden = "program=/usr/bin/fusermount3; [ ! -e $program ] || mount --bind /dev/null $program";
    let said = as_nobody(&place, hidden, "");
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(text.contains("install the package fuse3"), "{text}");
}

/// Some bytes.
struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.copy_from_slice(&self.0[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn is_hole(&self, _: &std::ops::Range<u64>) -> bool {
        false
    }
}

/// Makes a point of several disks, with a passphrase.
fn several(place: &Place, disks: &[(&str, Vec<u8>)]) {
    let secret = fs::read(place.path("passphrase")).unwrap();
    let store = Box::new(Folder::open(&place.path("repo")).unwrap());
    let mut repository = Repository::open_unread(store, &secret).unwrap();
    let session = Session::begin(&mut repository, "many", &Writer::default()).unwrap();
    let save = |(name, bytes): &(&str, Vec<u8>)| {
        save::disk(&repository, name, &Bytes(bytes.clone()), Before::default(), 1, &Progress::default())
            .unwrap()
    };
    let disks = disks.iter().map(save).collect();
    let point = Point { vm: "many".into(), sequence: 0, taken: 7, disks, note: String::new() };
    session.commit(&repository, point).unwrap();
}

#[test]
fn all_disks_of_a_point_are_there_or_the_one_that_is_named() {
    let place = Place::empty();
    fs::create_dir(place.path("at")).unwrap();
    fs::write(place.path("passphrase"), "several words of it").unwrap();
    place.well(&["init", "--key-file", "passphrase"]);
    let disks = [("disk0", image(3 * MIB)), ("wal", vec![5; 99]), ("empty", vec![])];
    several(&place, &disks);
    let mut mount = place.mount(&["--key-file", "passphrase"]);
    for (name, bytes) in &disks {
        assert!(fs::read(place.path(&format!("at/{name}.raw"))).unwrap() == *bytes, "{name}");
    }
    mount.signal(Signal::TERM);
    assert!(mount.ended().success());
    let _mount = place.mount(&["--key-file", "passphrase", "--disk", "wal"]);
    assert_eq!(fs::read(place.path("at/wal.raw")).unwrap(), vec![5; 99]);
    assert!(!place.path("at/disk0.raw").exists());
}

#[test]
fn the_file_system_of_a_guest_is_mounted_from_it_and_one_of_its_files_is_read() {
    let place = Place::new();
    let (tree, image) = (place.path("tree"), place.text("disk.img"));
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/hosts"), "127.0.0.1 orders\n").unwrap();
    well("mkfs.ext4", "e2fsprogs", &["-q", "-d", tree.to_str().unwrap(), &image, "32M"]);
    place.well(&["image", "disk.img"]);
    let mut mount = place.mount(&[]);
    let disk = place.text("at/disk0.raw");
    assert_eq!(well("debugfs", "e2fsprogs", &["-R", "cat /etc/hosts", &disk]), "127.0.0.1 orders\n");
    fs::create_dir(place.path("inside")).unwrap();
    if loops() {
        let inside = place.text("inside");
        well("mount", "mount", &["-o", "loop,ro,noload", &disk, &inside]);
        assert_eq!(fs::read_to_string(place.path("inside/etc/hosts")).unwrap(), "127.0.0.1 orders\n");
        well("umount", "mount", &[&inside]);
    }
    mount.signal(Signal::TERM);
    assert!(mount.ended().success() && !place.is_mounted());
}

/// Whether this machine has loop devices: a container may have none.
fn loops() -> bool {
    Path::new("/dev/loop-control").exists() && run("losetup", "mount", &["-f"]).status.success()
}
