//! Memory that is saved while its guest runs, by a QEMU that offers `mapped-ram`.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::{BOOT, Lab, SOON, holdfast, signal};
use crate::repositories::Mount;
use crate::rows::Rows;
use crate::snapshots::{goes_on_with_its_memory, quiesced};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};

/// So fast is a copy that is to be found under way, in bytes a second.
const SLOW: u64 = 1 << 20;

/// So many KiB are where its snapshots are.
const ROOM: u64 = 2 << 20;

/// What is where its snapshots are, but for the record of them and its copy.
fn files(lab: &Lab) -> Vec<PathBuf> {
    let all = std::fs::read_dir(lab.path().join("orders.qcow2.snapshots")).unwrap();
    let is_record = |path: &PathBuf| path.ends_with("record") || path.ends_with("record-copy");
    all.map(|entry| entry.unwrap().path()).filter(|path| !is_record(path)).collect()
}

/// So many memories are there.
fn memories(lab: &Lab) -> usize {
    files(lab).iter().filter(|path| path.extension() == Some("memory".as_ref())).count()
}

#[test]
fn a_database_works_on_while_its_memory_is_saved_and_goes_on_with_it_once() {
    let mut lab = Lab::changed_on_qemu10(quiesced); // I23
    lab.start_warm(&["orders"]);
    goes_on_with_its_memory(&lab);
    let file = lab.path().join("orders.qcow2.snapshots/1.memory").metadata().unwrap();
    assert!(file.len() > 512 << 20 && file.blocks() * 512 < file.len(), "each page has its place");
}

/// The control socket for people. It takes one of them at a time.
struct People(BufReader<UnixStream>);

impl People {
    fn of(lab: &Lab) -> Self {
        let stream = UnixStream::connect(lab.vm("orders")["qmp"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut people = Self(BufReader::new(stream));
        people.ask("qmp_capabilities", json!({}));
        people
    }

    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        writeln!(self.0.get_mut(), "{}", json!({ "execute": command, "arguments": arguments })).unwrap();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let mut said: Value = serde_json::from_str(&line).unwrap();
            assert!(said["error"].is_null(), "{command}: {said}");
            if said.get("return").is_some() {
                return said["return"].take();
            }
        }
    }

    fn progress(&mut self) -> String {
        self.ask("query-migrate", json!({}))["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Nothing is left of a copy.
    fn assert_clear(&mut self) {
        let all = self.ask("query-migrate-capabilities", json!({}));
        assert!(all.as_array().unwrap().iter().all(|one| one["state"] == false), "{all}");
        assert_eq!(self.ask("query-fdsets", json!({})), json!([]));
    }
}

/// Somebody takes a snapshot with its memory, which is slow from the moment on in which the copy is seen to be under way.
fn taking(lab: &Lab) -> (Child, People) {
    let mut people = People::of(lab);
    let mut command = holdfast();
    command.arg("--state").arg(lab.state()).args(["snapshot", "create", "orders", "--memory"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while people.progress() != "active" {
        assert!(child.try_wait().unwrap().is_none(), "it was over before it was seen\n{}", lab.story());
    }
    people.ask("migrate-set-parameters", json!({ "max-bandwidth": SLOW }));
    assert_eq!(people.progress(), "active");
    (child, people)
}

fn refused(taking: Child, why: &str) {
    let Output { status, stderr, .. } = taking.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success() && said.contains(why), "{said}");
}

fn assert_no_snapshot(lab: &Lab) {
    assert_eq!(lab.json(&["snapshot", "list", "orders"])["snapshots"], json!([]), "{}", lab.story());
    assert_eq!(files(lab), Vec::<PathBuf>::new(), "half a point is left");
}

#[test]
fn a_copy_of_memory_that_is_broken_off_leaves_the_guest_running_and_no_half_point() {
    let mut lab = Lab::changed_on_qemu10(quiesced); // S71
    let room = Mount::new(&lab.path().join("orders.qcow2.snapshots"), ROOM);
    lab.start_warm(&["orders"]);
    let rows = Rows::start(&lab);
    let start = lab.incarnation("orders");
    given_up_by_somebody_else(&lab);
    rows.wait_for_more(&lab);
    on_a_full_disk(&lab, &room);
    rows.wait_for_more(&lab);
    by_the_end_of_the_daemon(&mut lab, &rows);
    rows.wait_for_more(&lab);
    assert_eq!(lab.incarnation("orders"), start);
    not_by_the_end_of_who_asked(&lab);
    rows.wait_for_more(&lab);

    let (child, _) = taking(&lab);
    signal(lab.pid("orders"), "KILL");
    refused(child, "");
    lab.until(SOON, "it is started again", |lab| lab.incarnation("orders") > start);
    lab.wait_well(BOOT);
    assert_eq!(lab.json(&["snapshot", "list", "orders"])["snapshots"], json!([]));
    assert_eq!(memories(&lab), 0, "half a point is left");
    rows.wait_for_more(&lab);
    rows.all_there(&lab);
}

fn given_up_by_somebody_else(lab: &Lab) {
    let (child, mut people) = taking(lab);
    people.ask("migrate_cancel", json!({}));
    refused(child, "memory was not saved");
    people.assert_clear();
    assert_no_snapshot(lab);
}

fn on_a_full_disk(lab: &Lab, room: &Mount) {
    let (child, mut people) = taking(lab);
    room.resize(room.used() + 1024);
    people.ask("migrate-set-parameters", json!({ "max-bandwidth": SLOW << 10 }));
    refused(child, "memory was not saved");
    room.resize(ROOM);
    people.assert_clear();
    assert_no_snapshot(lab);
}

/// The one that is taken then is as good as any.
fn not_by_the_end_of_who_asked(lab: &Lab) {
    let (mut child, mut people) = taking(lab);
    child.kill().unwrap();
    child.wait().unwrap();
    people.ask("migrate-set-parameters", json!({ "max-bandwidth": SLOW << 10 }));
    let taken = |lab: &Lab| lab.json(&["snapshot", "list", "orders"])["snapshots"][0].clone();
    lab.until(SOON, "it is taken", |lab| taken(lab)["memory"].as_u64() > Some(SLOW));
    people.assert_clear();
    let id = taken(lab)["id"].to_string();
    assert!(lab.cli(&["snapshot", "delete", "orders", &id]).status.success());
}

fn by_the_end_of_the_daemon(lab: &mut Lab, rows: &Rows) {
    let (mut child, mut people) = taking(lab);
    lab.kill_daemon();
    child.wait().unwrap();
    rows.wait_for_more_without_daemon();
    assert_eq!(people.progress(), "active", "nobody ended the copy");
    lab.start();
    lab.until(SOON, "nothing is left of it", |lab| memories(lab) == 0);
    assert_eq!(people.progress(), "cancelled");
    people.assert_clear();
    assert_no_snapshot(lab);
}
