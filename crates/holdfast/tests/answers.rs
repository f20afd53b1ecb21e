//! What commands make of the answers of a daemon, which is made up here.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};

/// The program beside a daemon that gives these answers, each to one request whose line begins so, in this order.
fn answered(words: &[&str], answers: Vec<(&'static str, Value)>) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("holdfast.sock")).unwrap();
    let daemon = std::thread::spawn(move || {
        for (asked, answer) in answers {
            let line = answer_one(&listener.accept().unwrap().0, &answer);
            assert!(line.starts_with(asked), "{line} where {asked} was expected");
        }
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_clear().env("NO_COLOR", "1").env("HOME", folder.path()).current_dir(folder.path());
    let said = command.arg("--state").arg(folder.path()).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(daemon.is_finished(), "{said:?}");
    daemon.join().unwrap();
    said
}

/// Reads a request and answers it. Its first line.
fn answer_one(stream: &UnixStream, answer: &Value) -> String {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    for line in reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
        if let Some(bytes) = line.to_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let body = answer.to_string();
    let status = if answer.get("hint").is_some() { "409 Conflict" } else { "200 OK" };
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close");
    write!(&mut &*stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    first
}

fn out(said: &Output) -> String {
    String::from_utf8(said.stdout.clone()).unwrap()
}

fn doc(said: &Output) -> Value {
    assert!(said.status.success(), "{said:?}");
    serde_json::from_slice(&said.stdout).unwrap()
}

#[test]
fn a_repository_that_cannot_be_opened_is_not_told_as_no_restore_points() {
    let points = |trouble: Value| {
        let known = json!({ "v": 1, "points": [], "trouble": trouble });
        answered(&["points", "a"], vec![("GET /api/v1/vms/a/points", known)])
    };
    let said = points(json!("it is not mounted"));
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(out(&said), "a has no snapshots; whether it has backups is not known\n");
    let aside = String::from_utf8(said.stderr).unwrap();
    assert!(aside.contains("its backups cannot be listed: it is not mounted"), "{aside}");
    assert!(out(&points(Value::Null)).contains("a has no restore points; `holdfast snapshot create a`"));
}

#[test]
fn what_the_daemon_refuses_and_what_it_cannot_tell_are_json_for_programs() {
    let refusal = json!({ "v": 1, "error": "cannot list", "cause": "there is no vm `a`", "hint": "look" });
    let said = answered(
        &["snapshot", "list", "a", "--json"],
        vec![("GET /api/v1/vms/a/snapshots", refusal.clone())],
    );
    let told: Value = serde_json::from_slice(&said.stderr).unwrap();
    assert_eq!((said.status.code(), &told["exit"]), (Some(1), &json!(1)), "{told}");
    for field in ["v", "error", "cause", "hint"] {
        assert_eq!(told[field], refusal[field]);
    }
    let known = json!({ "v": 1, "points": [], "trouble": "it is not mounted" });
    let said = answered(&["points", "a", "--json"], vec![("GET /api/v1/vms/a/points", known)]);
    let told: Value = serde_json::from_slice(&said.stderr).unwrap();
    assert!(told["cause"] == "it is not mounted" && out(&said) == "[]\n", "{said:?}");
}

#[test]
fn a_backup_of_somebody_else_is_shown_and_cancelled() {
    let done = || vec![("POST /api/v1/vms/a/backup/cancel", json!({ "v": 1, "ok": true }))];
    assert!(out(&answered(&["backup", "cancel", "a"], done())).contains("a: its backup ends"));
    let told = doc(&answered(&["backup", "cancel", "a", "--json"], done()));
    assert_eq!(told, json!({ "v": 1, "vm": "a", "ok": true }));
    let refusal = json!({ "v": 1, "error": "none", "cause": "none runs now", "hint": "nothing" });
    let said = answered(&["backup", "cancel", "a"], vec![("POST /api/v1/vms/a/backup/cancel", refusal)]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
}

#[test]
fn who_approves_is_told_that_it_may_wait_and_where_to_look() {
    let done = json!({ "v": 1, "ok": true, "vm": "a" });
    let said = out(&answered(&["approve", "3"], vec![("POST /api/v1/incidents/3/approve", done)]));
    for words in ["a is to go back", "waits until", "`holdfast explain 3`", "`holdfast watch`"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn each_of_several_snapshots_is_deleted_or_told_why_not() {
    let refusal = |id: u64| {
        let error = format!("cannot delete snapshot {id}");
        json!({ "v": 1, "error": error, "cause": format!("it has no {id}"), "hint": "look" })
    };
    let answers = || {
        vec![
            ("DELETE /api/v1/vms/a/snapshots/1", refusal(1)),
            ("DELETE /api/v1/vms/a/snapshots/2", json!({ "v": 1, "ok": true })),
            ("DELETE /api/v1/vms/a/snapshots/3", refusal(3)),
        ]
    };
    let said = answered(&["snapshot", "delete", "a", "1", "2", "3"], answers());
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(out(&said), "a: snapshot 2 is deleted; its room is given back in the background\n");
    let aside = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(aside.contains("cause: it has no 1\n") && aside.contains("cause: it has no 3\n"), "{aside}");
    let said = answered(&["snapshot", "delete", "a", "1", "2", "3", "--json"], answers());
    let told: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((said.status.code(), &told["deleted"]), (Some(1), &json!([2])), "{said:?}");
    assert_eq!((&told["refused"][1]["id"], &told["refused"][1]["cause"]), (&json!(3), &json!("it has no 3")));
    let alone = answered(&["snapshot", "delete", "a", "1", "--json"], vec![answers().swap_remove(0)]);
    assert!(alone.status.code() == Some(1) && out(&alone).is_empty(), "an error like any other: {alone:?}");
}

/// A VM that runs for so many times.
fn status(incarnation: u64) -> (&'static str, Value) {
    let vm = json!({
        "v": 1, "name": "a", "driver": "qemu", "state": "running", "incarnation": incarnation, "address": {},
        "channels": {}, "apps": [], "protection": "armed", "tries": 0, "tries_most": 3,
    });
    let doc = json!({ "v": 1, "host": "atlas", "mode": "armed", "vms": [vm], "host_incidents": [] });
    ("GET /api/v1/status", doc)
}

#[test]
fn what_was_deleted_and_how_long_it_took_to_go_back_is_told_to_programs() {
    let done = json!({ "v": 1, "ok": true });
    let deleted = answered(
        &["snapshot", "delete", "a", "3", "--json"],
        vec![("DELETE /api/v1/vms/a/snapshots/3", done.clone())],
    );
    assert_eq!(doc(&deleted), json!({ "v": 1, "vm": "a", "id": 3, "deleted": [3], "refused": [] }));

    let one = json!({
        "id": 3, "taken": 1.0, "memory": 1, "resumed": 0, "frozen": true, "set_aside": false, "scheduled": false,
        "disk": 1, "below": false, "note": "", "since": {},
    });
    let list = json!({ "v": 1, "vm": "a", "snapshots": [one], "merging": null });
    for how in ["revert", "resume"] {
        let answers = vec![
            ("GET /api/v1/vms/a/snapshots", list.clone()),
            status(1),
            ("POST /api/v1/vms/a/snapshots/3/revert", done.clone()),
            status(1),
            status(2),
        ];
        let back = doc(&answered(&["snapshot", how, "a", "3", "--yes", "--json"], answers));
        assert!(back["vm"] == "a" && back["id"] == 3 && back["seconds"].as_f64().unwrap() > 0.0, "{back}");
    }
    let point = json!({ "id": "a/7", "vm": "a", "kind": "backup", "memory": false, "grade": "taken" });
    let answers = vec![
        ("GET /api/v1/vms/a/points", json!({ "v": 1, "points": [point], "trouble": null })),
        status(1),
        ("POST /api/v1/vms/a/backups/7/revert", done),
        status(2),
    ];
    let back = doc(&answered(&["backup", "revert", "a", "latest", "--yes", "--json"], answers));
    assert!(back["id"] == "a/7" && back["seconds"].is_f64(), "{back}");
    let asks = answered(&["snapshot", "revert", "a", "3", "--json"], Vec::new());
    assert!(asks.status.code() == Some(2) && out(&asks).is_empty(), "a question is no JSON: {asks:?}");
}
