//! Moments of a disk that a guest writes to all the time.

use crate::bench::{Bench, LONG, is_exit};
use crate::sector;
use holdfast_drivers::qemu::{Moment, Qemu, Still};
use holdfast_drivers::snapshots::Wanted;
use holdfast_drivers::{Driver, DriverError, Injection};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

/// Has `qemu-img` do something with images.
pub fn image(words: &[&str]) {
    let ended = Command::new("qemu-img").args(words).output().expect("Debian's qemu-utils has qemu-img");
    assert!(ended.status.success(), "{words:?}: {ended:?}");
}

/// The bench of the guest that writes a sector twenty times a second, on a qcow2 of 64 MiB.
pub fn bench() -> Bench {
    let bench = sector::bench();
    let (disk, raw) = (bench.path("disk"), bench.path("raw"));
    std::fs::rename(&disk, &raw).unwrap();
    image(&["convert", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), disk.to_str().unwrap()]);
    image(&["resize", "-q", "-f", "qcow2", disk.to_str().unwrap(), "64M"]);
    bench
}

/// The control socket for people.
pub struct People(BufReader<UnixStream>);

impl People {
    pub fn of(qemu: &Qemu, bench: &Bench) -> Self {
        let stream = UnixStream::connect(qemu.places(&bench.name).qmp.unwrap()).unwrap();
        let mut people = Self(BufReader::new(stream));
        people.0.read_line(&mut String::new()).unwrap();
        people.well("qmp_capabilities", Value::Null);
        people
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, Value> {
        let mut asked = json!({ "execute": command });
        if !arguments.is_null() {
            asked["arguments"] = arguments;
        }
        writeln!(self.0.get_mut(), "{asked}").unwrap();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let mut said: Value = serde_json::from_str(&line).unwrap();
            if !said["error"].is_null() {
                return Err(said["error"].take());
            }
            if said.get("return").is_some() {
                return Ok(said["return"].take());
            }
        }
    }

    pub fn well(&mut self, command: &str, arguments: Value) -> Value {
        self.ask(command, arguments).unwrap()
    }

    /// Writes as the guest does. What came of it, QEMU prints to its log at its end.
    fn io(&mut self, what: &str) {
        let line = format!("qemu-io -d /machine/peripheral/vd0/virtio-backend \"{what}\"");
        assert_eq!(self.well("human-monitor-command", json!({ "command-line": line })), "", "{what}");
    }

    /// Of the disk, names and whether they record; those without a name are QEMU's own.
    fn bitmaps(&mut self) -> Vec<(String, bool)> {
        let nodes = self.well("query-named-block-nodes", json!({ "flat": true }));
        let disk = nodes.as_array().unwrap().iter().find(|node| node["node-name"] == "disk0").unwrap();
        let all = disk["dirty-bitmaps"].as_array().cloned().unwrap_or_default();
        let named = all.iter().filter_map(|bitmap| {
            Some((bitmap["name"].as_str()?.to_owned(), bitmap["recording"].as_bool().unwrap()))
        });
        let mut named: Vec<_> = named.collect();
        named.sort();
        named
    }

    /// Waits until a merge is at its end but for the last step.
    pub fn until_ready(&mut self) {
        let begun = std::time::Instant::now();
        while self.well("query-jobs", Value::Null)[0]["status"] != "ready" {
            assert!(begun.elapsed() < LONG, "the merge does not come to its end");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Nothing of a backup is left but bitmaps.
    fn is_clear(&mut self) {
        let nodes = self.well("query-named-block-nodes", json!({ "flat": true }));
        let left: Vec<&Value> = nodes.as_array().unwrap().iter().map(|node| &node["node-name"]).collect();
        assert!(!left.iter().any(|name| name.as_str().unwrap().starts_with("holdfast")), "{left:?}");
        assert_eq!(self.well("query-block-exports", Value::Null), json!([]));
        let stopped = self.ask("nbd-server-stop", Value::Null);
        assert!(stopped.is_err(), "a server was left");
    }
}

/// What is read through a moment has these bytes.
fn reads(moment: &Moment, patterns: &[&str]) {
    let mut command = Command::new("qemu-io");
    command.args(["-r", "-f", "raw"]);
    for pattern in patterns {
        command.args(["-c", &format!("read -P {pattern}")]);
    }
    let ended = command.arg(&moment.uri).output().expect("Debian's qemu-utils has qemu-io");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && !said.contains("failed"), "{patterns:?}: {ended:?}");
}

/// Which MiB of the disk its oldest bitmap says changed.
fn changed(moment: &Moment) -> Vec<u64> {
    changed_since(moment, &moment.bitmaps[0])
}

/// Which MiB of the disk this bitmap says changed.
fn changed_since(moment: &Moment, bitmap: &str) -> Vec<u64> {
    let socket = moment.uri.split_once("?socket=").unwrap().1;
    let image = format!(
        "driver=nbd,export=disk0,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}"
    );
    let ended = Command::new("qemu-img").args(["map", "--output=json", "--image-opts", &image]).output();
    let ended = ended.expect("Debian's qemu-utils has qemu-img");
    let map: Value = serde_json::from_slice(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    // QEMU shows what is dirty as what holds no data.
    let dirty = map.as_array().unwrap().iter().filter(|extent| extent["data"] == false);
    let mib = |extent: &Value| extent["start"].as_u64().unwrap() >> 20;
    let mut all: Vec<u64> = dirty.map(mib).collect();
    all.dedup();
    all
}

async fn begin(qemu: &Qemu, bench: &Bench) -> Moment {
    try_begin(qemu, bench, "main").await.unwrap()
}

async fn try_begin(qemu: &Qemu, bench: &Bench, to: &str) -> Result<Moment, DriverError> {
    qemu.begin_backup(&bench.name, &Still { to: to.into(), hooks: Vec::new() }, LONG).await
}

async fn end(qemu: &Qemu, bench: &Bench, moment: &Moment, made: bool) {
    qemu.end_backup(&bench.name, moment, made, LONG).await.unwrap();
}

#[tokio::test]
async fn a_moment_is_held_while_the_guest_writes_on_and_no_write_is_forgotten() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    let mut people = People::of(&qemu, &bench);
    people.io("write -P 1 10M 1M");
    let first = begin(&qemu, &bench).await;
    assert_eq!((first.bitmaps.len(), &first.why_all, first.size), (0, &None, 64 << 20));
    people.io("write -P 2 10M 64k");
    bench.until_it_writes(&qemu).await;
    reads(&first, &["1 10M 1M", "0 20M 1M"]);
    end(&qemu, &bench, &first, true).await;
    people.is_clear();
    assert_eq!(people.bitmaps(), [(first.begins.clone(), true)]);

    people.io("write -P 3 20M 64k");
    let second = begin(&qemu, &bench).await;
    assert_eq!(second.bitmaps, std::slice::from_ref(&first.begins));
    people.io("write -P 4 30M 64k");
    qemu.clear_backup(&bench.name, LONG).await.unwrap(); // what is read now is nobody's leftover
    assert_eq!(changed(&second), [0, 10, 20], "the guest's own sector, and what was written since the first");
    reads(&second, &["2 10M 64k", "3 20M 64k", "0 30M 64k"]);
    end(&qemu, &bench, &second, false).await;
    people.is_clear();

    // No point came of the second: the third follows the first, and knows what was written since the second, too.
    let third = begin(&qemu, &bench).await;
    assert_eq!(third.bitmaps, [first.begins.clone(), second.begins.clone()]);
    assert_eq!(changed(&third), [0, 10, 20, 30]);
    assert_eq!(changed_since(&third, &second.begins), [0, 30]);
    // We crash; the next of us finds what is left, and the guest has not noticed.
    drop(qemu);
    people.io("write -P 5 40M 64k");
    let qemu = bench.open().await;
    qemu.clear_backup(&bench.name, LONG).await.unwrap();
    people.is_clear();
    let all = [&first, &second, &third].map(|moment| (moment.begins.clone(), true));
    assert_eq!(people.bitmaps(), all);
    qemu.clear_backup(&bench.name, LONG).await.unwrap();
    let fourth = begin(&qemu, &bench).await;
    assert_eq!(changed(&fourth), [0, 10, 20, 30, 40]);
    // A moment that is there already is given up for another.
    let fifth = begin(&qemu, &bench).await;
    assert_eq!((fifth.bitmaps.len(), changed(&fifth)), (4, vec![0, 10, 20, 30, 40]));
    assert_eq!(changed_since(&fifth, &second.begins), [0, 30, 40]);
    assert_eq!(changed_since(&fifth, &third.begins), [0, 40]);
    end(&qemu, &bench, &fifth, true).await;
    assert_eq!(people.bitmaps(), [(fifth.begins, true)]);
    bench.until_it_writes(&qemu).await;
    assert!(!bench.path(".disk.holdfast-scratch").exists());
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_bitmap_outlives_an_orderly_end_of_its_qemu_and_is_not_believed_after_a_kill() {
    let mut bench = bench(); // S72
    let qemu = bench.open().await;
    bench.start(&qemu).await;
    let first = begin(&qemu, &bench).await;
    end(&qemu, &bench, &first, true).await;
    let mut people = People::of(&qemu, &bench);
    people.io("write -P 1 10M 64k");
    // It ends in the middle of a backup.
    let second = begin(&qemu, &bench).await;
    people.io("write -P 1 20M 64k");
    people.well("quit", Value::Null);
    bench.until(&qemu, "the exit", is_exit).await;
    assert!(matches!(
        qemu.end_backup(&bench.name, &second, false, LONG).await,
        Err(DriverError::NotRunning(_))
    ));
    bench.start(&qemu).await;
    // Its end comes late, and is of another start: no bitmap is taken for the new one's.
    qemu.end_backup(&bench.name, &second, true, LONG).await.unwrap();
    let third = begin(&qemu, &bench).await;
    assert_eq!((&third.bitmaps[..], changed(&third)), (&[first.begins][..], vec![0, 10, 20]));
    end(&qemu, &bench, &third, true).await;
    let mut people = People::of(&qemu, &bench);
    people.well("quit", Value::Null);
    bench.until(&qemu, "the exit", is_exit).await;

    let lease = bench.start(&qemu).await;
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
    let lease = bench.start(&qemu).await;
    let mut people = People::of(&qemu, &bench);
    let fourth = begin(&qemu, &bench).await;
    assert!(fourth.bitmaps.is_empty());
    assert!(fourth.why_all.as_ref().is_some_and(|why| why.contains("was killed")), "{fourth:?}");
    end(&qemu, &bench, &fourth, true).await;
    assert_eq!(people.bitmaps(), [(fourth.begins, true)], "the broken one is gone");
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn what_others_put_into_a_qemu_is_left_alone_and_two_repositories_know_their_own() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    let mut people = People::of(&qemu, &bench);
    people.well("block-dirty-bitmap-add", json!({ "node": "disk0", "name": "mine" }));
    people.well("block-dirty-bitmap-disable", json!({ "node": "disk0", "name": "mine" }));
    let address =
        json!({ "type": "unix", "data": { "path": bench.path("run/orders/vm/mine").to_str().unwrap() } });
    people.well("nbd-server-start", json!({ "addr": address }));
    let refused = try_begin(&qemu, &bench, "main").await.unwrap_err();
    assert!(refused.to_string().contains("NBD server already running"), "{refused}");
    people.well("nbd-server-stop", Value::Null); // it was not stopped by us
    people.is_clear();
    assert_eq!(people.bitmaps(), [("mine".to_owned(), false)]);

    let main = begin(&qemu, &bench).await;
    let busy = qemu.inject(&bench.name, &Injection::DiskError(true)).await.unwrap_err();
    assert!(busy.to_string().contains("a backup of it runs"), "{busy}");
    end(&qemu, &bench, &main, true).await;
    let far = try_begin(&qemu, &bench, "far").await.unwrap();
    assert!(far.bitmaps.is_empty(), "that of the other repository tells nothing here");
    end(&qemu, &bench, &far, true).await;
    let all = people.bitmaps();
    assert_eq!(all, [(far.begins.clone(), true), (main.begins.clone(), true), ("mine".into(), false)]);
    let again = begin(&qemu, &bench).await;
    assert_eq!(again.bitmaps, [main.begins]);
    end(&qemu, &bench, &again, false).await;

    qemu.inject(&bench.name, &Injection::DiskError(true)).await.unwrap();
    let refused = try_begin(&qemu, &bench, "main").await.unwrap_err();
    assert!(refused.to_string().contains("between the guest and its disk"), "{refused}");
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn a_raw_disk_has_its_bitmap_for_as_long_as_its_qemu_runs() {
    let mut bench = sector::bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    let first = begin(&qemu, &bench).await;
    end(&qemu, &bench, &first, true).await;
    bench.until_it_writes(&qemu).await;
    let second = begin(&qemu, &bench).await;
    assert_eq!((&second.bitmaps[..], changed(&second)), (&[first.begins][..], vec![0]));
    // A file in the place of the socket, which a broken QEMU may put there, stops nobody.
    end(&qemu, &bench, &second, true).await;
    drop(UnixListener::bind(bench.path("run/orders/vm/nbd")).unwrap());
    let third = begin(&qemu, &bench).await;
    reads(&third, &["0 512k 512k"]);
    end(&qemu, &bench, &third, true).await;
    bench.power_off(&qemu, &lease).await;
}

#[tokio::test]
async fn snapshots_and_backups_take_turns_and_a_bitmap_is_right_again_after_a_merge() {
    let mut bench = bench();
    let qemu = bench.open().await;
    let lease = bench.start(&qemu).await;
    let mut people = People::of(&qemu, &bench);
    let snapshots = qemu.snapshots().unwrap();
    let first = begin(&qemu, &bench).await;
    let refused = snapshots.take(&bench.name, Wanted::default(), LONG).await.unwrap_err();
    assert!(refused.to_string().contains("a backup or a drill holds its disk"), "{refused}");
    end(&qemu, &bench, &first, true).await;
    people.io("write -P 1 10M 64k");
    let taken = snapshots.take(&bench.name, Wanted::default(), LONG).await.unwrap();
    people.io("write -P 2 20M 64k");

    // The overlay that is on top now has recorded nothing yet.
    let second = begin(&qemu, &bench).await;
    assert!(second.bitmaps.is_empty());
    reads(&second, &["1 10M 64k", "2 20M 64k"]);
    people.io("write -P 3 20M 64k");
    end(&qemu, &bench, &second, true).await;
    let third = begin(&qemu, &bench).await;
    assert_eq!((&third.bitmaps[..], changed(&third)), (&[second.begins][..], vec![0, 20]));
    end(&qemu, &bench, &third, true).await;

    people.io("write -P 4 30M 64k");
    snapshots.forget(&bench.name, taken.snapshot.id, LONG).await.unwrap();
    assert!(!snapshots.tidy(&bench.name, 0, &|_| ()).await.unwrap());
    people.io("write -P 5 40M 64k");
    // The file of the first is on top again, and has recorded what was merged into it: all since the first.
    let fourth = begin(&qemu, &bench).await;
    assert_eq!((&fourth.bitmaps[..], changed(&fourth)), (&[first.begins][..], vec![0, 10, 20, 30, 40]));
    reads(&fourth, &["1 10M 64k", "3 20M 64k", "4 30M 64k", "5 40M 64k"]);
    end(&qemu, &bench, &fourth, true).await;
    people.is_clear();
    bench.until_it_writes(&qemu).await;
    bench.power_off(&qemu, &lease).await;
}
