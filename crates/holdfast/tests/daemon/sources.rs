//! Where logs come from: files through a kill of the daemon, senders on the loopback, QEMU itself.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::quiet::{Quiet, out, vm};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{File, rename};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;

const IDLE: &str = "autostart = false\n";

fn append(path: &Path, text: &str) {
    File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn source(daemon: &Quiet, name: &str) -> Value {
    let doc = daemon.json(&["logs", "sources"]);
    let sources = doc["sources"].as_array().unwrap();
    sources.iter().find(|source| source["source"] == name).cloned().unwrap_or(Value::Null)
}

/// What is kept of VM `a`, from the oldest on.
fn kept(daemon: &Quiet) -> Vec<String> {
    let said = out(&daemon.say(&["logs", "a", "--json"]));
    let text = |line: &str| serde_json::from_str::<Value>(line).ok()?["text"].as_str().map(ToOwned::to_owned);
    said.lines().filter_map(text).collect()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_log_is_read_on_where_it_was_after_a_kill_and_a_rotation() {
    let mut daemon = Quiet::new("");
    let log = daemon.path().join("orders.log");
    let config = format!("{}[vm.a.log.orders]\nfile = \"orders.log\"\n", vm("a", IDLE));
    daemon.write(&config);
    daemon.start(&[]);
    let name = format!("file {}", log.display());
    daemon.until("it waits", |daemon| source(daemon, &name)["why"] == "no such file");
    append(&log, "line 1\nline 2\n");
    daemon.until("they are kept", |daemon| kept(daemon) == ["line 1", "line 2"]);
    append(&log, "line 3\n");
    daemon.kill();
    append(&log, "line 4\n");
    rename(&log, daemon.path().join("orders.log.1")).unwrap();
    append(&log, "line 5\n");
    daemon.start(&[]);
    let all: Vec<String> = (1..=5).map(|number| format!("line {number}")).collect();
    daemon.until("each is kept, once", |daemon| kept(daemon) == all);
    append(&log, "line 6\n");
    daemon.until("it goes on", |daemon| kept(daemon).len() == 6);
    assert_eq!(source(&daemon, &name)["state"], "following");
}

#[test]
fn what_a_known_address_sends_is_its_vms_and_a_reload_changes_only_what_it_names() {
    let (udp, http) = (free_port(), free_port());
    let listen =
        format!("[logs.syslog]\nudp = \"127.0.0.1:{udp}\"\n[logs.otlp]\nhttp = \"127.0.0.1:{http}\"\n");
    let sent = "[vm.a.log.sent]\naddress = [\"127.0.0.1\"]\n";
    let daemon = Quiet::running(&[listen.clone(), vm("a", IDLE), sent.into()].concat());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = format!("syslog udp 127.0.0.1:{udp}");
    daemon.until("it listens", |daemon| source(daemon, &name)["state"] == "following");
    socket.send_to(b"<11>1 2026-11-26T10:00:00Z liar app - - - by syslog", ("127.0.0.1", udp)).unwrap();
    daemon.until("it is kept", |daemon| kept(daemon) == ["by syslog"]);
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"by otlp"}}]}]}]}"#;
    let request = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    daemon.until("that too", |daemon| kept(daemon) == ["by syslog", "by otlp"]);

    daemon.write(&[listen, vm("a", IDLE)].concat());
    let said = out(&daemon.say(&["reload"]));
    assert!(said.contains("vm a: log.sent"), "{said}");
    socket.send_to(b"<11>of a stranger now", ("127.0.0.1", udp)).unwrap();
    daemon.until("it is dropped", |daemon| source(daemon, &name)["dropped"] == 1);
    assert_eq!(kept(&daemon).len(), 2);
}

#[test]
fn sources_have_the_documented_keys_and_qemu_is_one_of_them() {
    let doc =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.md")).unwrap();
    let config = format!("{}[vm.a.log.gone]\nfile = \"folder\"\n", vm("a", ""));
    let daemon = Quiet::running(&config);
    std::fs::create_dir(daemon.path().join("folder")).unwrap();
    daemon.until("qemu's log is read", |daemon| source(daemon, "qemu")["state"] == "following");
    daemon.until("so is its console", |daemon| source(daemon, "console")["state"] == "following");
    let failing = format!("file {}", daemon.path().join("folder").display());
    daemon.until("a folder is no log", |daemon| source(daemon, &failing)["state"] == "failing");
    let documented = doc.split("sources: [{").nth(1).unwrap().split('}').next().unwrap();
    let documented: BTreeSet<&str> = documented.split(',').map(str::trim).collect();
    let doc = daemon.json(&["logs", "sources"]);
    for source in doc["sources"].as_array().unwrap() {
        let keys: BTreeSet<&str> = source.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, documented);
    }
    let shown = daemon.say(&["logs", "sources"]);
    assert_eq!(shown.status.code(), Some(3));
    assert!(out(&shown).contains("vm a") && out(&shown).contains("is not a plain file"), "{}", out(&shown));
}
