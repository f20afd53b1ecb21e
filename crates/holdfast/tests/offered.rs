//! `holdfast backup image` of disks that are offered over NBD: what changed, what is a hole, how far it is; and going on where a
//! backup was cut off, of such a disk and of a file.

#![expect(clippy::unwrap_used, reason = "tests")]

mod place;

use place::{MIB, Place, noise};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a program of QEMU, which must succeed.
fn qemu(program: &str, words: &[&str]) {
    let output = place::machine::qemu(program, words);
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
}

/// A `qemu-nbd` that offers `disk.qcow2` of a place as `disk`.
struct Offered(std::process::Child);

impl Drop for Offered {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Place {
    fn with_repository() -> Self {
        let place = Self::empty();
        place.well(&["init"]);
        place
    }

    fn qcow2(&self) -> String {
        self.path("disk.qcow2").to_str().unwrap().to_owned()
    }

    fn offer(&self, bitmaps: &[&str]) -> Offered {
        let mut server = Command::new("qemu-nbd");
        server.args(["--read-only", "--persistent", "--format=qcow2", "--export-name=disk"]);
        server.args(bitmaps.iter().map(|bitmap| format!("--bitmap={bitmap}")));
        let socket = self.path("socket");
        let _ = fs::remove_file(&socket);
        let server = server.arg(format!("--socket={}", socket.display())).arg(self.qcow2()).spawn();
        let server = Offered(server.expect("Debian's qemu-utils has qemu-nbd"));
        while !socket.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn io(&self, words: &[&str]) {
        let words: Vec<&str> = words.iter().flat_map(|word| ["-c", word]).collect();
        qemu("qemu-io", &[&["-f", "qcow2"], &words[..], &[&self.qcow2()]].concat());
    }

    /// The bytes of the disk, as QEMU reads them.
    fn disk(&self) -> Vec<u8> {
        let raw = self.path("as-it-is.raw");
        let raw = raw.to_str().unwrap();
        qemu("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &self.qcow2(), raw]);
        fs::read(raw).unwrap()
    }

    /// A disk of 200 MiB, of which 3 are not a hole.
    fn with_qcow2() -> Self {
        let place = Self::with_repository();
        qemu("qemu-img", &["create", "-q", "-f", "qcow2", &place.qcow2(), "200M"]);
        place.io(&["write -P 1 0 2M", "write -P 2 150M 1M"]);
        place
    }
}

const URI: &str = "nbd+unix:///disk?socket=socket";

#[test]
fn a_disk_is_saved_over_nbd_without_its_holes_and_then_only_what_its_bitmap_says() {
    let place = Place::with_qcow2();
    let offered = place.offer(&[]);
    let saved = place.json(&["image", URI]);
    assert_eq!((&saved["id"], &saved["read"]), (&"disk/1".into(), &(3 * MIB).into()), "{saved}");
    assert_eq!(saved["size"], 200 * MIB, "{saved}");
    drop(offered);
    let first = place.disk();

    qemu("qemu-img", &["bitmap", "--add", "-f", "qcow2", &place.qcow2(), "since"]);
    place.io(&["write -P 3 1M 4k", "write -P 4 70M 128k", "write -z 150M 64k"]);
    let offered = place.offer(&["since"]);
    let saved = place.json(&["image", URI, "--bitmap", "since"]);
    // What QEMU tells of in steps of 64 KiB; what became zeros counts, though nobody asks the server for it.
    assert_eq!((&saved["read"], &saved["all"]), (&(256 << 10).into(), &false.into()), "{saved}");
    drop(offered);
    let second = place.disk();
    assert!(first != second);
    assert!(place.restored("disk/1") == first && place.restored("disk/2") == second);

    let _offered = place.offer(&[]);
    let saved = place.json(&["image", URI, "--bitmap", "since"]);
    assert_eq!((&saved["all"], &saved["added"]), (&true.into(), &0.into()), "{saved}");
    assert!(saved["why_all"].as_str().unwrap().contains("`since` is not offered"), "{saved}");
    assert!(place.restored("disk/3") == second);
    let output = place.run(&["image", URI, "--bitmap", "since"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("all is read, and only the change is stored"));
}

#[test]
fn a_bitmap_of_ours_is_compared_with_the_point_that_began_with_it() {
    let place = Place::with_qcow2();
    qemu("qemu-img", &["bitmap", "--add", "-f", "qcow2", &place.qcow2(), "holdfast-a"]);
    let save = |words: &[&str], bitmaps: &[&str]| {
        let _offered = place.offer(bitmaps);
        place.json(&[&["image", URI], words].concat())
    };
    save(&["--begins", "holdfast-a"], &[]);
    place.io(&["write -P 5 30M 64k"]);
    save(&[], &[]);
    place.io(&["write -P 1 30M 64k", "write -P 6 90M 64k"]);
    let saved = save(&["--bitmap", "holdfast-a", "--begins", "holdfast-b"], &["holdfast-a"]);
    assert_eq!((&saved["read"], &saved["all"]), (&(128 << 10).into(), &false.into()), "{saved}");
    assert!(place.restored("disk/3") == place.disk());
    let list = place.json(&["list"]);
    assert_eq!(list[2]["parent"], "disk/1", "{list}");
    // A bitmap that no point began with says nothing.
    let saved = save(&["--bitmap", "holdfast-a", "--of", "other"], &["holdfast-a"]);
    assert!(saved["why_all"].as_str().unwrap().contains("no point began with the bitmap"), "{saved}");
    assert!(place.restored("other/1") == place.disk());
}

#[test]
fn a_point_is_of_the_moment_that_is_offered_and_not_of_when_somebody_began_to_read_it() {
    let place = Place::with_qcow2();
    let _offered = place.offer(&[]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let moment = now - 350_000;
    let saved = place.json(&["image", URI, "--taken", &moment.to_string()]);
    let seconds = |taken: &Value| (taken.as_f64().unwrap() * 1e6).round() as u128;
    assert_eq!(seconds(&saved["taken"]), moment, "{saved}");
    assert_eq!(seconds(&place.json(&["list"])[0]["taken"]), moment);
    // None is of a time that is yet to come.
    let later = place.json(&["image", URI, "--taken", &(now + 3_600_000_000).to_string()]);
    assert!(seconds(&later["taken"]) < now + 1_800_000_000, "{later}");
}

/// Kills a backup once it is known how far it came; how many bytes it had read by then.
fn killed_on_the_way(place: &Place, words: &[&str]) -> u64 {
    let mut command = place.command(&[&["image"], words, &["--json", "--progress"]].concat());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let record = || fs::read_dir(place.path(".cache/holdfast/pieces")).ok()?.next()?.ok().map(|at| at.path());
    let is_kept = || record().is_some_and(|at| at.join("disk/disk0.attempt").exists());
    let mut read = 0;
    for line in lines.map_while(Result::ok) {
        read = serde_json::from_str::<Value>(&line).unwrap()["read"].as_u64().unwrap();
        if is_kept() {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it was killed before it ended");
    read
}

#[test]
fn a_backup_that_was_killed_is_gone_on_with_and_what_was_written_since_is_read() {
    let place = Place::with_repository();
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", &place.qcow2(), "400M"]);
    place.io(&["write -P 1 0 20M", "write -P 2 100M 20M", "write -P 3 200M 20M", "write -P 4 300M 20M"]);
    qemu("qemu-img", &["bitmap", "--add", "-f", "qcow2", &place.qcow2(), "holdfast-a"]);
    let offered = place.offer(&[]);
    let slowly = [URI, "--begins", "holdfast-a", "--limit", "8MiB/s"];
    let read = killed_on_the_way(&place, &slowly);
    assert!((20..80).contains(&(read >> 20)), "{read}");
    drop(offered);
    place.io(&["write -P 5 1M 64k", "write -P 6 310M 64k", "write -z 3M 64k"]);

    // Nobody says what was written since: all is read.
    let offered = place.offer(&["holdfast-a"]);
    let whole = place.json(&["image", URI, "--of", "whole"]);
    assert_eq!((&whole["read"], &whole["resumed"]), (&(80 * MIB).into(), &0.into()), "{whole}");
    let saved = place.json(&["image", URI, "--bitmap", "holdfast-a", "--begins", "holdfast-b"]);
    let (resumed, read) = (saved["resumed"].as_u64().unwrap(), saved["read"].as_u64().unwrap());
    assert!(resumed > 0 && read < 61 << 20 && saved["why_all"].is_null(), "{saved}");
    assert!(saved["all"] == true && place.restored(saved["id"].as_str().unwrap()) == place.disk());
    drop(offered);

    // The point is there: the next one knows nothing of an attempt.
    qemu("qemu-img", &["bitmap", "--add", "-f", "qcow2", &place.qcow2(), "holdfast-b"]);
    let _offered = place.offer(&["holdfast-a", "holdfast-b"]);
    let saved = place.json(&["image", URI, "--bitmap", "holdfast-a", "--bitmap", "holdfast-b"]);
    assert_eq!(
        (&saved["read"], &saved["resumed"], &saved["all"]),
        (&0.into(), &0.into(), &false.into()),
        "{saved}"
    );
}

#[test]
fn a_file_that_was_not_written_to_since_a_backup_was_killed_is_not_read_twice() {
    let place = Place::with_repository();
    let image = fs::File::create(place.path("disk.img")).unwrap();
    image.set_len(300 << 20).unwrap();
    for at in [0, 100, 200] {
        image.write_all_at(&noise(at, 20 * MIB), at << 20).unwrap();
    }
    let settled = || std::thread::sleep(Duration::from_millis(400));
    settled();
    killed_on_the_way(&place, &["disk.img", "--limit", "4MiB/s"]);
    fs::copy(place.path("disk.img"), place.path("other.img")).unwrap();
    let other = place.json(&["image", "other.img", "--of", "disk"]);
    assert_eq!(other["resumed"], 0, "it is another file: {other}");

    settled();
    killed_on_the_way(&place, &["disk.img", "--of", "disk", "--limit", "4MiB/s"]);
    let saved = place.json(&["image", "disk.img"]);
    assert!(saved["resumed"].as_u64().unwrap() > 0 && saved["read"].as_u64().unwrap() <= 40 << 20, "{saved}");
    let restored = place.restored(saved["id"].as_str().unwrap());
    assert!(restored == fs::read(place.path("disk.img")).unwrap());
}

#[test]
fn a_place_where_no_disk_is_offered_is_said_and_makes_no_point() {
    let place = Place::with_qcow2();
    let no_place = place.run(&["image", "nbd+unix:///disk"]);
    assert_eq!(no_place.status.code(), Some(2));
    assert!(String::from_utf8(no_place.stderr).unwrap().contains("it names no `?socket=PATH`"));
    assert!(place.refused(&["image", URI]).contains("nobody offers it there"));
    assert!(
        place
            .refused(&["image", "disk.img", "--bitmap", "x"])
            .contains("`--bitmap` says nothing of the file")
    );
    let offered = place.offer(&[]);
    let refused = place.refused(&["image", "nbd+unix:///other?socket=socket"]);
    assert!(refused.contains("there is no such export"), "{refused}");
    drop(offered);
    fs::remove_file(place.path("socket")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    let liar = std::thread::spawn(move || listener.accept().unwrap().0.write_all(&[b'x'; 64]).unwrap());
    assert!(place.refused(&["image", URI]).contains("does not speak NBD"));
    liar.join().unwrap();
    assert_eq!(place.json(&["list"]), Value::Array(Vec::new()));
}

/// Three MiB, of which each has flags and bytes of its own.
struct Parts([(u32, u8); 3]);

impl holdfast_nbd::server::Disk for Parts {
    fn size(&self) -> u64 {
        3 << 20
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        for (at, byte) in (offset..).zip(bytes) {
            *byte = self.0[(at >> 20) as usize].1;
        }
        Ok(())
    }

    fn extent(&self, offset: u64) -> holdfast_nbd::Extent {
        holdfast_nbd::Extent {
            length: (1 << 20) - offset % (1 << 20),
            flags: self.0[(offset >> 20) as usize].0,
        }
    }
}

#[test]
fn a_hole_of_now_counts_only_where_nothing_was_written_since_the_moment() {
    use holdfast_nbd::{IS_HOLE, READS_ZERO};
    let place = Place::with_repository();
    let listener = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    // Of the moment it is known only where it was kept: a byte of 238 is never to be read.
    let now = Parts([(IS_HOLE | READS_ZERO, 238), (IS_HOLE | READS_ZERO, 238), (0, 238)]);
    let moment = Parts([(IS_HOLE, 238), (0, 7), (IS_HOLE, 9)]);
    let server = std::thread::spawn(move || {
        holdfast_nbd::server::serve(listener.accept().unwrap().0, "now", &now).unwrap();
        holdfast_nbd::server::serve(listener.accept().unwrap().0, "disk", &moment).unwrap();
    });
    let saved = place.json(&["image", URI, "--holes", "now"]);
    assert_eq!((&saved["read"], &saved["skipped"]), (&(2 * MIB).into(), &MIB.into()), "{saved}");
    server.join().unwrap();
    let restored = place.restored("disk/1");
    let expected = [[0; MIB], [7; MIB], [9; MIB]].concat();
    assert!(restored == expected);
}

/// A disk of which each piece takes its time.
struct Slow;

impl holdfast_nbd::server::Disk for Slow {
    fn size(&self) -> u64 {
        200 << 20
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        std::thread::sleep(Duration::from_millis(15));
        bytes.fill((offset >> 20) as u8 | 1);
        Ok(())
    }
}

#[test]
fn progress_is_told_line_by_line_and_a_listener_who_goes_away_ends_it() {
    let place = Place::with_repository();
    let listener = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let _ended_by_the_client =
                holdfast_nbd::server::serve(listener.accept().unwrap().0, "disk", &Slow);
        }
    });
    let words = ["image", URI, "--json", "--progress"];
    let mut child = place.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut heard = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    heard.read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["size"], 200 * MIB, "{line}");
    drop(heard);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && said.contains("it was stopped"), "{said}");
    assert_eq!(place.json(&["list"]), Value::Array(Vec::new()));

    let said = place.well(&words);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 1 && lines[..lines.len() - 1].iter().all(|line| line["id"].is_null()), "{said}");
    assert_eq!(lines.last().unwrap()["id"], "disk/1");
    server.join().unwrap();
}
