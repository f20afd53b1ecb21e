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
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
    write!(&mut &*stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    first
}

fn out(said: &Output) -> String {
    String::from_utf8(said.stdout.clone()).unwrap()
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
