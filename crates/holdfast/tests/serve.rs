//! `holdfast backup serve`: what is offered is the disk that was saved, only its user may read it, and it ends without a trace.

#![expect(clippy::unwrap_used, reason = "tests")]

mod place;

use place::machine::{assert_same, qemu};
use place::{Begun, MIB, Place, image};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

impl Place {
    fn new() -> Self {
        let place = Self::empty();
        place.well(&["init"]);
        place
    }

    /// One with the point `disk/1` of `disk.img`.
    fn with_point() -> Self {
        let place = Self::new();
        fs::write(place.path("disk.img"), image(9 * MIB)).unwrap();
        place.well(&["image", "disk.img"]);
        place
    }

    /// `disk.qcow2`, as it is before.
    fn old_disk(&self) {
        let disk = self.text("disk.qcow2");
        assert!(qemu("qemu-img", &["create", "-q", "-f", "qcow2", &disk, "9M"]).status.success());
        assert!(qemu("qemu-io", &["-f", "qcow2", "-c", "write -P 9 0 1M", &disk]).status.success());
    }

    fn serve(&self, words: &[&str]) -> Begun {
        let mut command = self.command(&[&["serve", "--socket", "socket", "--json"], words].concat());
        Begun::ready(command.stdin(Stdio::piped()))
    }
}

fn url(server: &Begun) -> &str {
    server.ready["url"].as_str().unwrap()
}

#[test]
fn two_clients_at_once_read_the_disk_that_was_saved_and_nothing_is_left_behind() {
    let place = Place::with_point();
    let mut server = place.serve(&["--point", "disk/1", "--disk", "disk0"]);
    let size = 9 * MIB;
    let ready = &server.ready;
    assert_eq!((&ready["v"], &ready["id"], &ready["size"]), (&1.into(), &"disk/1".into(), &size.into()));
    assert_eq!(ready["socket"], place.path("socket").canonicalize().unwrap().to_str().unwrap());
    let mode = fs::symlink_metadata(place.path("socket")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let silent = UnixStream::connect(place.path("socket")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_same(url(&server), "raw", &place.text("disk.img")));
        }
    });
    let map = qemu("qemu-img", &["map", "--output=json", "-f", "raw", url(&server)]);
    let map: Value = serde_json::from_slice(&map.stdout).unwrap();
    assert_eq!(map.as_array().unwrap().len(), 9, "holes are told: {map}");
    server.signal(Signal::TERM);
    assert!(server.ended().success() && !place.path("socket").exists());
    drop(silent);
}

#[test]
fn the_disk_of_a_qcow2_is_offered_as_its_guest_sees_it_and_takes_no_writes() {
    let place = Place::new();
    let (image, socket) = (place.text("disk.qcow2"), place.text("from"));
    assert!(qemu("qemu-img", &["create", "-q", "-f", "qcow2", &image, "200M"]).status.success());
    let write = ["-f", "qcow2", "-c", "write -P 1 0 2M", "-c", "write -P 2 150M 1M", &image];
    assert!(qemu("qemu-io", &write).status.success());
    let arguments = ["--read-only", "--persistent", "--format=qcow2", "--socket", &socket, &image];
    let mut from = Command::new("qemu-nbd").args(arguments).spawn().unwrap();
    while !place.path("from").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let saved = place.command(&["image", "nbd+unix:///?socket=from", "--of", "disk"]).output();
    from.kill().unwrap();
    from.wait().unwrap();
    assert!(saved.as_ref().unwrap().status.success(), "{saved:?}");
    let server = place.serve(&[]);
    assert_same(url(&server), "qcow2", &image);
    let written = qemu("qemu-io", &["-f", "raw", "-c", "write 0 4k", url(&server)]);
    assert!(!written.status.success(), "{written:?}");
    // What a VM writes goes into an overlay.
    let overlay = place.text("overlay.qcow2");
    let words = ["create", "-q", "-f", "qcow2", "-b", url(&server), "-F", "raw", &overlay];
    assert!(qemu("qemu-img", &words).status.success());
    let words = ["-f", "qcow2", "-c", "write -P 3 1M 4k", "-c", "read -P 1 0 1M", &overlay];
    let written = qemu("qemu-io", &words);
    assert!(written.status.success() && !String::from_utf8_lossy(&written.stdout).contains("failed"));
    assert_same(url(&server), "qcow2", &image);
}

#[test]
fn the_socket_of_a_server_that_was_killed_is_replaced_and_that_of_one_that_runs_is_not() {
    let place = Place::with_point();
    let mut server = place.serve(&[]);
    server.signal(Signal::KILL);
    server.ended();
    assert!(place.path("socket").exists());
    let server = place.serve(&[]);
    let refused = place.refused(&["serve", "--socket", "socket"]);
    assert!(refused.contains("is the socket of a server that runs"), "{refused}");
    assert!(refused.contains("end that server first"), "{refused}");
    assert_same(url(&server), "raw", &place.text("disk.img"));

    let refused = place.refused(&["serve", "--socket", "disk.img"]);
    assert!(refused.contains("is there already, and is no socket"), "{refused}");
    assert!(fs::read(place.path("disk.img")).unwrap() == image(9 * MIB));
    let refused = place.refused(&["serve", "--socket", "nowhere/socket"]);
    assert!(refused.contains("the folder must be there"), "{refused}");
    assert!(!place.path("nowhere").exists());
}

#[test]
fn a_server_ends_with_the_program_that_holds_its_input() {
    let place = Place::with_point();
    let mut server = place.serve(&["--until-input-ends"]);
    assert_same(url(&server), "raw", &place.text("disk.img"));
    assert!(!server.has_ended());
    server.end_input();
    assert!(server.ended().success() && !place.path("socket").exists());
}

#[test]
fn a_point_a_disk_or_a_key_that_is_not_there_makes_no_socket() {
    let place = Place::with_point();
    let refused = place.refused(&["serve", "--socket", "socket", "--point", "7"]);
    assert!(refused.contains("there is no restore point `7`"), "{refused}");
    let refused = place.refused(&["serve", "--socket", "socket", "--disk", "disk9"]);
    assert!(refused.contains("has no such disk") && refused.contains("disk0"), "{refused}");
    fs::write(place.path("other.key"), "not the secret of it").unwrap();
    let refused = place.refused(&["serve", "--socket", "socket", "--key-file", "other.key"]);
    assert!(refused.contains("name the right key with `--key-file`"), "{refused}");
    assert!(!place.path("socket").exists());
}

#[test]
fn a_damaged_block_is_an_error_for_the_client_and_is_told_once() {
    let place = Place::with_point();
    let packs = fs::read_dir(place.path("repo/packs")).unwrap();
    for pack in packs.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap()) {
        let pack = pack.unwrap().path();
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let mut server = place.serve(&[]);
    for _ in 0..2 {
        let copied =
            qemu("qemu-img", &["convert", "-f", "raw", "-O", "raw", url(&server), &place.text("copy")]);
        let said = String::from_utf8_lossy(&copied.stderr).into_owned();
        assert!(!copied.status.success() && said.contains("Input/output error"), "{said}");
    }
    server.signal(Signal::INT);
    assert!(server.ended().success());
    let said = server.said();
    assert_eq!(said.matches("the disk cannot be read at byte").count(), 1, "{said}");
    assert!(said.contains("is damaged") && said.contains("backup repair"), "{said}");
}

#[test]
fn a_disk_becomes_a_point_while_it_is_in_use_and_whoever_is_killed_meanwhile_it_ends_whole() {
    let place = Place::with_point();
    place.old_disk();
    let old = fs::read(place.path("disk.qcow2")).unwrap();
    let slow = place.instant(&["--limit", "64KiB/s"]);
    assert!(fs::read(place.path("disk.qcow2.before-disk-1")).unwrap() == old, "what it was is kept");
    let machine = place.machine();
    slow.signal(Signal::KILL);
    drop(slow);
    assert!(place.needs_point());
    place.well(&["image", "disk.img"]);
    let other = place.refused(&["restore", "--instant", "disk.qcow2", "--qmp", "qmp", "--point", "disk/2"]);
    assert!(other.contains("it is becoming point disk/1"), "{other}");
    let slow = place.instant(&["--limit", "64KiB/s"]);
    drop(machine);
    let machine = place.machine();
    slow.signal(Signal::KILL);
    drop(slow);

    let mut last = place.instant(&[]);
    assert!(last.ended().success(), "{}", last.said());
    let said = last.printed();
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&told["id"], &told["size"]), (&"disk/1".into(), &(9 * MIB).into()), "{said}");
    assert!(!place.needs_point());
    drop(machine); // killed at once: all was on the disk before
    assert_same(&place.text("disk.img"), "qcow2", &place.text("disk.qcow2"));
    for end in [".instant", ".offered", ".unfinished-overlay"] {
        assert!(!place.path(&format!("disk.qcow2{end}")).exists(), "{end}");
    }
    assert!(fs::read(place.path("disk.qcow2.before-disk-1")).unwrap() == old);
}

#[test]
fn a_disk_that_must_not_become_a_point_stays_as_it_is() {
    let place = Place::with_point();
    let instant = |disk: &str, more: &[&str]| {
        place.refused(&[&["restore", "--instant", disk, "--qmp", "qmp", "--of", "disk"], more].concat())
    };
    fs::write(place.path("raw.img"), [7; 4_096]).unwrap();
    assert!(instant("raw.img", &[]).contains("it is raw now"));
    place.old_disk();
    let old = fs::read(place.path("disk.qcow2")).unwrap();
    let machine = place.machine();
    assert!(instant("disk.qcow2", &[]).contains("somebody uses it"));
    drop(machine);
    fs::write(place.path("disk.qcow2.before-disk-1"), "the only copy of something").unwrap();
    assert!(instant("disk.qcow2", &[]).contains("is there already, and never replaced (I15)"));
    fs::remove_file(place.path("disk.qcow2.before-disk-1")).unwrap();
    fs::create_dir(place.path("disk.qcow2.snapshots")).unwrap();
    fs::write(place.path("disk.qcow2.snapshots/1.qcow2"), "an overlay").unwrap();
    assert!(instant("disk.qcow2", &[]).contains("has overlays of the disk"));
    fs::remove_dir_all(place.path("disk.qcow2.snapshots")).unwrap();
    assert!(instant("a b.qcow2", &[]).contains("its path has other characters"));
    place.well(&["image", "disk.qcow2", "--format", "raw", "--of", "file"]);
    let refused = place.refused(&["restore", "--instant", "disk.qcow2", "--qmp", "qmp", "--of", "file"]);
    assert!(refused.contains("holds a qcow2 file, and not the disk in it"), "{refused}");
    assert!(fs::read(place.path("disk.qcow2")).unwrap() == old && !place.path("disk.qcow2.instant").exists());
}
