//! Where logs come from: files through a kill of the daemon, senders on the loopback, QEMU itself.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::quiet::{Quiet, out, vm};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{File, Permissions, rename, set_permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

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

/// A request of OTLP over HTTP.
fn export(text: &str) -> String {
    let body = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"{text}"}}}}]}}]}}]}}"#
    );
    format!(
        "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
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
    let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
    stream.write_all(export("by otlp").as_bytes()).unwrap();
    daemon.until("that too", |daemon| kept(daemon) == ["by syslog", "by otlp"]);

    daemon.write(&[listen, vm("a", IDLE)].concat());
    let said = out(&daemon.say(&["reload"]));
    assert!(said.contains("vm a: log.sent"), "{said}");
    socket.send_to(b"<11>of a stranger now", ("127.0.0.1", udp)).unwrap();
    daemon.until("it is dropped", |daemon| source(daemon, &name)["dropped"] == 1);
    assert_eq!(kept(&daemon).len(), 2);
}

/// A certificate for `name` with its key, signed by a new authority: its own, the key, and the authority's.
fn certificate(name: &str) -> [String; 3] {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (own, its) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let authority = params.self_signed(&its).unwrap().pem();
    let params_of_own = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let signed = params_of_own.signed_by(&own, &rcgen::Issuer::new(params, its)).unwrap();
    [signed.pem(), own.serialize_pem(), authority]
}

/// A connection with TLS of one who trusts this authority and has this certificate.
fn with_tls(port: u16, authority: &str, own: &str, key: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let own = vec![CertificateDer::from_pem_slice(own.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = config.with_root_certificates(roots).with_client_auth_cert(own, key).unwrap();
    let name = ServerName::try_from("logs.example").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port)).unwrap())
}

#[test]
fn otlp_over_tls_is_taken_from_who_has_a_certificate_and_a_key_that_others_may_read_is_told() {
    let mut daemon = Quiet::new("");
    let [cert, key, authority] = certificate("logs.example");
    let [own, own_key, senders] = certificate("orders");
    let folder = daemon.path().to_owned();
    let at = |name: &str| folder.join(name);
    for (name, pem) in [("logs.pem", &cert), ("logs.key", &key), ("senders.pem", &senders)] {
        append(&at(name), pem);
        set_permissions(at(name), Permissions::from_mode(0o600)).unwrap();
    }
    let port = free_port();
    let listen = format!("[logs.otlp]\nhttp = \"127.0.0.1:{port}\"\n");
    let files = "cert = \"logs.pem\"\nkey = \"logs.key\"\nclient_ca = \"senders.pem\"\n";
    let sent = "[vm.a.log.sent]\naddress = [\"127.0.0.1\"]\n";
    daemon.write(&[&listen, files, &vm("a", IDLE), sent].concat());
    daemon.start(&[]);
    let name = format!("otlp http tls 127.0.0.1:{port}");
    daemon.until("it listens", |daemon| source(daemon, &name)["state"] == "following");
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(export("in the clear").as_bytes()).unwrap();
    daemon.until("plain text is refused", |daemon| source(daemon, &name)["dropped"] == 1);
    assert!(daemon.log().contains("could not set TLS up"), "{}", daemon.log());
    let mut stream = with_tls(port, &authority, &own, &own_key);
    stream.write_all(export("with TLS").as_bytes()).unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    daemon.until("it is kept", |daemon| kept(daemon) == ["with TLS"]);
    set_permissions(at("logs.key"), Permissions::from_mode(0o644)).unwrap();
    let _ = with_tls(port, &authority, &own, &own_key).write_all(b"GET");
    daemon.until("the key is told", |daemon| source(daemon, &name)["state"] == "failing");
    let why = source(&daemon, &name)["why"].to_string();
    assert!(why.contains("others may read the key"), "{why}");
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

/// QEMU appends to it; here the test does, for nothing runs in the VM.
#[test]
fn what_a_console_says_while_the_daemon_is_away_is_kept_once_and_is_no_sign_of_a_fault() {
    let mut daemon = Quiet::running(&vm("a", ""));
    daemon.until("its console is read", |daemon| source(daemon, "console")["state"] == "following");
    let run = daemon.path().join("state");
    let found = Command::new("find").arg(&run).args(["-name", "console.log"]).output().unwrap();
    let console = Path::new(std::str::from_utf8(&found.stdout).unwrap().trim()).to_owned();
    let lines = |daemon: &Quiet| -> Vec<String> {
        let all = kept(daemon).into_iter();
        all.filter(|text| text.starts_with("line ") || text.contains("panic")).collect()
    };
    append(&console, "line 1\r\nline 2\r\n");
    daemon.until("they are kept", |daemon| lines(daemon).len() == 2);
    let panic = "[   61.0] Kernel panic - not syncing: of long ago";
    for number in 3..5 {
        daemon.kill();
        append(&console, &format!("line {number}\r\n{panic}\r\n"));
        daemon.start(&[]);
        let expected = 2 * (number - 2) + 2;
        daemon.until("what came meanwhile is kept", |daemon| lines(daemon).len() >= expected);
    }
    append(&console, "line 5\r\n");
    daemon.until("it goes on", |daemon| lines(daemon).last().is_some_and(|text| text == "line 5"));
    assert_eq!(lines(&daemon), ["line 1", "line 2", "line 3", panic, "line 4", panic, "line 5"]);
    assert_eq!(daemon.json(&["incidents"]), serde_json::json!([]));
}
