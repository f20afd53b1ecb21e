//! What comes in on the socket is refused cleanly, whatever it is (A38, A42, A43).

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::quiet::{Quiet, err, vm};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Sends bytes and reads the answer: its status and its body.
fn send(daemon: &Quiet, request: &[u8]) -> (u16, String) {
    let mut socket = UnixStream::connect(daemon.path().join("state/holdfast.sock")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = socket.write_all(request); // it may have refused what it has seen so far
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn post(daemon: &Quiet, path: &str, body: &str) -> (u16, String) {
    let head = "Host: x\r\nConnection: close\r\nContent-Type: application/json";
    let request = format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    send(daemon, request.as_bytes())
}

fn get(daemon: &Quiet, path: &str) -> (u16, String) {
    send(daemon, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
}

/// It says what failed, why, and the way out.
fn is_refusal(body: &str) -> bool {
    let Ok(said) = serde_json::from_str::<Value>(body) else { return false };
    said["v"] == 1
        && ["error", "cause", "hint"].iter().all(|key| said[*key].as_str().is_some_and(|s| !s.is_empty()))
}

#[test]
fn nonsense_is_refused_with_its_reason_and_the_way_out_a38_a43() {
    let daemon = Quiet::running(&vm("a", "autostart = false\n"));
    let large = format!("{{\"by\": \"{}\"}}", "x".repeat(100_000));
    for (status, (path, body)) in [
        (404, ("/api/v1/vms/a/explode", "{}")),
        (409, ("/api/v1/vms/nobody/start", "{}")),
        (400, ("/api/v1/vms/a%1b%5b31m/start", "{}")),
        (422, ("/api/v1/vms/a/start", "{\"colour_me\": 1}")),
        (400, ("/api/v1/vms/a/start", "{")),
        (413, ("/api/v1/vms/a/start", large.as_str())),
        (404, ("/api/v1/nowhere", "{}")),
        (405, ("/api/v1/status", "{}")),
        (404, ("/api/v1/vms/a/drills/no-such-drill/inject", "{}")),
        (409, ("/api/v1/vms/a/drills/vm-kill/inject", "{}")),
    ] {
        let (answered, said) = post(&daemon, path, body);
        assert_eq!(answered, status, "{path}: {said}");
        assert!(is_refusal(&said), "{path}: {said}");
        assert!(said.chars().all(|c| !c.is_control()), "{path}: {said:?}");
    }
    for (body, words) in [
        ("{\"iops\": \"ma\\u001bny\"}", "iops: invalid type: string"),
        ("{\"limit\": -1}", "limit: invalid value: integer `-1`"),
        ("{\"limit\"", "EOF while parsing"),
        ("{\"iops\": 2000000}", "`iops` is from 1 to 1000000"),
        ("{\"limit\": 1}", "`limit` is from 64KiB/s to 1TiB/s"),
    ] {
        let (answered, said) = post(&daemon, "/api/v1/vms/a/backup", body);
        let told: Value = serde_json::from_str(&said).unwrap();
        let cause = told["cause"].as_str().unwrap();
        assert!([400, 422].contains(&answered) && cause.contains(words), "{body}: {said}");
        assert!(cause.chars().all(|c| !c.is_control()), "{cause:?}");
    }
    for (status, path) in [
        (400, "/api/v1/vms/a/logs?severity=awful"),
        (400, "/api/v1/vms/a/logs?grep=%28"),
        (400, "/api/v1/vms/a/logs?limit=-1"),
        (400, "/api/v1/vms/a/logs?colour=me"),
        (400, "/api/v1/vms/a%2f..%2f/logs"),
        (404, "/api/v1/vms/nobody/logs"),
        (404, "/api/v1/vms/nobody/logs/stream"),
        (404, "/api/v1/vms/nobody/logs/patterns"),
        (200, "/api/v1/vms/a/logs?since=1e300&until=-1e300&limit=99999999&after=18446744073709551615"),
        (200, "/api/v1/vms/a/logs?since=NaN&pattern=18446744073709551615"),
        (200, "/api/v1/logs/counts"),
    ] {
        let (answered, said) = get(&daemon, path);
        assert_eq!(answered, status, "{path}: {said}");
        assert!(status == 200 || is_refusal(&said), "{path}: {said}");
    }
    for path in
        ["/api/v1/../../etc/passwd", "/api/v1/incidents/..%2f..%2fetc%2fpasswd", "/api/v1/incidents/99"]
    {
        let (answered, said) = get(&daemon, path);
        assert!((400..500).contains(&answered) && is_refusal(&said), "{path}: {answered} {said}");
    }
    for request in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", &[0xff; 70_000]] {
        assert!([0, 400, 414, 431].contains(&send(&daemon, request).0));
    }
    assert_eq!(get(&daemon, "/api/v1/health").0, 200, "and it goes on");
    assert_eq!(daemon.vm("a")["state"], "stopped");
}

#[test]
fn a_command_for_a_start_that_is_over_is_refused_and_one_given_twice_is_harmless_a42() {
    let daemon = Quiet::running(&vm("a", ""));
    daemon
        .until("it runs", |daemon| daemon.vm("a")["pid"].is_u64() && daemon.vm("a")["incarnation"].is_u64());
    let before = daemon.vm("a");
    let (answered, said) = post(&daemon, "/api/v1/vms/a/stop", "{\"incarnation\": 99, \"grace_s\": 0}");
    assert_eq!(answered, 409, "{said}");
    assert!(said.contains("another one runs by now"), "{said}");
    for _ in 0..2 {
        assert_eq!(
            post(&daemon, "/api/v1/vms/a/maintenance-on", "{}"),
            (200, json!({"ok": true, "v": 1}).to_string())
        );
        assert_eq!(post(&daemon, "/api/v1/vms/a/start", "{}").0, 200);
    }
    daemon.until("it has been looked at", |daemon| !daemon.vm("a")["incarnation"].is_null());
    let after = daemon.vm("a");
    assert_eq!((&after["pid"], &after["incarnation"]), (&before["pid"], &before["incarnation"]));
}

#[test]
fn work_is_announced_for_a_time_and_told_to_be_done_once() {
    let daemon = Quiet::running(&vm("a", "autostart = false\n"));
    let announce = |words: &[&str]| daemon.say(&[&["vm", "announce", "a"], words].concat());
    for work in ["backup", "freeze", "migration", "reboot"] {
        assert!(announce(&[work, "--for", "10m"]).status.success());
        assert!(announce(&[work, "--done"]).status.success());
        let again = announce(&[work, "--done"]);
        assert_eq!(again.status.code(), Some(1));
        assert!(err(&again).contains("that work was not announced"), "{}", err(&again));
    }
    let long = announce(&["backup", "--for", "25h"]);
    assert!(err(&long).contains("must end within the next 24 hours"), "{}", err(&long));
    assert_eq!(announce(&["backup"]).status.code(), Some(2), "for how long, or done?");
    assert_eq!(announce(&["lunch", "--done"]).status.code(), Some(2));
    assert_eq!(post(&daemon, "/api/v1/vms/a/lunch-on", "{}").0, 404);
}
