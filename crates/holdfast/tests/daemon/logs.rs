//! What a VM says is kept, found again and shown: after a kill, from a damaged file, whatever it says.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::json::{doc, keys, shape};
use crate::quiet::{Quiet, err, out, vm};
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

/// A daemon whose VM runs, on an empty disk, so that nobody but us writes on its console.
fn running(name: &str) -> Quiet {
    let daemon = Quiet::running(&vm(name, ""));
    daemon.until("it runs", |daemon| runs(daemon, name));
    daemon
}

/// It was started, and its hypervisor answers.
fn runs(daemon: &Quiet, name: &str) -> bool {
    let vm = daemon.vm(name);
    vm["incarnation"].is_u64() && vm["pid"].is_u64() && vm["channels"]["hypervisor"]["state"] == "ok"
}

/// Writes on the console of a VM, as its hypervisor does.
fn write(daemon: &Quiet, name: &str, bytes: &[u8]) {
    let console = daemon.vm(name)["console"].as_str().unwrap().to_owned();
    daemon.until("its console is there", |_| {
        let opened = OpenOptions::new().append(true).open(&console); // a start that is under way may make it anew
        opened.and_then(|mut file| file.write_all(bytes)).is_ok()
    });
}

/// Kept records, as JSON.
fn logs(daemon: &Quiet, words: &[&str]) -> Vec<Value> {
    let said = daemon.say(&[&["logs"], words, &["--json"]].concat());
    assert!(said.status.success(), "{words:?}: {}", err(&said));
    out(&said).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["text"].as_str().unwrap()).collect()
}

/// The console is followed once lines of it are kept.
fn follow(daemon: &Quiet, name: &str) {
    daemon.until("its console is followed", |daemon| {
        write(daemon, name, b"hello from the test\n");
        !logs(daemon, &["show", name, "-n", "1"]).is_empty()
    });
}

#[test]
fn what_was_kept_outlives_kill_9_and_the_next_daemon_goes_on_with_the_same_patterns() {
    let mut daemon = running("a");
    follow(&daemon, "a");
    let lines: String = (0..300).map(|n| format!("[  {n}.5] request {n} took {} ms\n", n * 7)).collect();
    write(&daemon, "a", lines.as_bytes());
    let requests = |daemon: &Quiet| logs(daemon, &["a", "--grep", "request .* took", "-n", "1000"]);
    daemon.until("they are kept", |daemon| requests(daemon).len() == 300);
    let before = requests(&daemon);
    daemon.until("what was learned is kept, too", |daemon| {
        let file = rusqlite::Connection::open(daemon.path().join("state/logs.sqlite")).unwrap();
        file.query_row("SELECT COUNT(*) FROM mind", [], |row| row.get::<_, i64>(0)).unwrap() > 0
    });
    let many: String = (0..5_000).map(|n| format!("and in the middle of line {n} it is killed\n")).collect();
    write(&daemon, "a", many.as_bytes());
    daemon.kill();
    daemon.start(&[]);
    let after = requests(&daemon);
    assert_eq!(before, after, "what was kept is as it was");
    daemon.until("it is seen again", |daemon| daemon.vm("a")["incarnation"].is_u64());
    daemon.until("its console is followed again", |daemon| {
        write(daemon, "a", b"[  9.9] request 9999 took 1 ms\n");
        requests(daemon).len() > 300
    });
    let after = requests(&daemon);
    assert_eq!(after[0]["pattern"], after[300]["pattern"]);
    let numbers: Vec<u64> = after.iter().map(|record| record["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "none is there twice");
    assert!(daemon.vm("a")["pid"].is_u64(), "its VM ran on");
}

#[test]
fn lines_are_found_by_what_is_asked_for_live_or_not() {
    let daemon = running("analyze"); // a VM may be called like a command
    follow(&daemon, "analyze");
    let mut live = daemon.command(&["logs", "show", "analyze", "--follow", "--json", "--grep", "panic|bye"]);
    let mut live = live.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(live.stdout.take().unwrap()).lines();
    write(&daemon, "analyze", b"one\ntwo\nthree\n[    1.000] Kernel panic - not syncing: for a test\n");
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["rule"], "kernel-panic");
    write(&daemon, "analyze", b"bye\n");
    let second: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&second["text"], &second["source"]), (&"bye".into(), &"console".into()));
    live.kill().unwrap();
    live.wait().unwrap();
    let ask = |words: &[&str]| logs(&daemon, &[&["show", "analyze"], words].concat());
    assert_eq!(texts(&ask(&["-n", "2"])), ["[    1.000] Kernel panic - not syncing: for a test", "bye"]);
    assert_eq!(texts(&ask(&["--grep", "^t", "--source", "console"])), ["two", "three"]);
    assert_eq!(ask(&["--severity", "error"]).len(), 1);
    assert_eq!(ask(&["--since", "1d", "--until", "1h"]).len(), 0);
    let two = ask(&["--grep", "^two$"]);
    assert_eq!(texts(&ask(&["--pattern", &two[0]["pattern"].to_string()])), ["two"]);
    let patterns = logs(&daemon, &["patterns", "analyze"]);
    let hello = patterns.iter().find(|one| one["template"] == "hello from the test").unwrap();
    assert_eq!(hello["count"], hello["severities"]["info"]);
    assert!(out(&daemon.say(&["logs", "patterns", "analyze"])).contains("Kernel panic"));
    assert_eq!(logs(&daemon, &[]).len(), 0, "this host's: nothing feeds it yet");
    for (words, cause) in [
        (&["show", "analyze", "--severity", "awful"][..], "there is no severity `awful`"),
        (&["show", "analyze", "--grep", "("], "unclosed group"),
        (&["show", "analyze", "--grep", "(a{1000}){1000}"], "size limit"),
        (&["nobody"], "there is no vm `nobody`"),
        (&["patterns", "nobody"], "there is no vm `nobody`"),
        (&["nobody", "--follow"], "there is no vm `nobody`"),
        (&["../status"], "a name starts with"),
    ] {
        let said = daemon.say(&[&["logs"], words].concat());
        let code = if words == ["../status"] { 2 } else { 1 }; // no vm can be called so
        assert_eq!(said.status.code(), Some(code), "{words:?}");
        assert!(err(&said).contains(cause), "{words:?}: {}", err(&said));
    }
}

#[test]
fn hostile_lines_are_tame_in_every_output_a40() {
    let daemon = running("a");
    follow(&daemon, "a");
    let hostile =
        "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script> \u{202e}txt.exe\u{9b}31m \0 \u{7f} end of it";
    write(&daemon, "a", hostile.as_bytes());
    write(&daemon, "a", b"\n\xff\xfe not UTF-8, end of it\r\n");
    write(&daemon, "a", &[&[b'x'; 100_000][..], b"\nthe last, end of it\n"].concat());
    let ask = |daemon: &Quiet| logs(daemon, &["a", "--grep", "end of it"]);
    daemon.until("they are kept", |daemon| ask(daemon).len() == 3);
    let is_tame = |text: &str| text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'));
    for words in [
        &["logs", "a"][..],
        &["logs", "a", "--json"],
        &["logs", "patterns", "a"],
        &["logs", "patterns", "a", "--json"],
    ] {
        let said = out(&daemon.say(words));
        assert!(said.contains("<script>") && is_tame(&said), "{words:?}: {said:?}");
    }
    for record in ask(&daemon) {
        assert!(is_tame(record["text"].as_str().unwrap()), "{record}");
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_stops_nothing_i7_i22() {
    let mut daemon = Quiet::running(&vm("a", "autostart = false\n"));
    daemon.stop();
    let file = daemon.path().join("state/logs.sqlite");
    std::fs::write(&file, vec![0x5a; 100_000]).unwrap();
    daemon.start(&[]);
    assert!(daemon.say(&["vm", "start", "a"]).status.success());
    daemon.until("it runs", |daemon| daemon.vm("a")["incarnation"].is_u64());
    follow(&daemon, "a");
    assert_eq!(
        std::fs::read(daemon.path().join("state/logs.sqlite.damaged-1")).unwrap(),
        vec![0x5a; 100_000]
    );
    assert!(daemon.log().contains("kept logs were damaged, and are set aside"), "{}", daemon.log());
}

/// The only open incident that names this fault.
fn incident(daemon: &Quiet, fault: &str) -> Option<Value> {
    let incidents = daemon.json(&["incidents"]);
    incidents.as_array().unwrap().iter().find(|one| one["fault"] == fault).cloned()
}

#[test]
fn the_line_that_proves_a_fault_is_explained_among_its_neighbours_or_said_to_have_left_a40() {
    let app = "[vm.a.app.db]\nprobe = [\"/bin/true\"]\n";
    let mut daemon = Quiet::running(&[vm("a", ""), app.into()].concat());
    daemon.until("it runs", |daemon| runs(daemon, "a"));
    follow(&daemon, "a");
    daemon.until("its database answers", |daemon| daemon.vm("a")["apps"][0]["state"] == "ok");
    let lines = "one\ntwo\nthree\n\x1b[2Jfour\u{202e}\nERROR:  invalid page in block 7 of relation base/5/16384\n\
                 five\nsix\nseven\neight\n";
    write(&daemon, "a", lines.as_bytes());
    daemon.until("it is named", |daemon| incident(daemon, "CorruptionReported").is_some());
    let id = incident(&daemon, "CorruptionReported").unwrap()["id"].to_string();
    assert_eq!(incident(&daemon, "CorruptionReported").unwrap()["outage_s"], 0.0, "users are served");
    let lines = |daemon: &Quiet| {
        let explained = daemon.json(&["explain", &id]);
        let all = explained["evidence"].as_array().unwrap();
        all.iter().find(|one| one["lines"].is_object()).map(|one| one["lines"].clone()).unwrap()
    };
    daemon.until("they are written", |daemon| lines(daemon)["records"].as_array().unwrap().len() == 7);
    let found = lines(&daemon);
    let records = found["records"].as_array().unwrap();
    let proof = "ERROR:  invalid page in block 7 of relation base/5/16384";
    assert_eq!(texts(records), ["two", "three", "four\\u{202e}", proof, "five", "six", "seven"]);
    let proves: Vec<bool> = records.iter().map(|record| record["proves"].as_bool().unwrap()).collect();
    assert_eq!(proves, [false, false, false, true, false, false, false]);
    assert!(found["missing"].is_null());
    let documented = doc();
    assert_eq!(keys(&found), shape(&documented, "rests on a line of a log, `lines` is"));
    assert_eq!(keys(&records[3]), shape(&documented, "{missing, records: ["));
    let said = out(&daemon.say(&["explain", &id]));
    assert_eq!(said.lines().filter(|line| line.trim_start().starts_with("> ")).count(), 1, "{said}");
    assert!(said.lines().any(|line| line.starts_with("          > ") && line.ends_with(proof)), "{said}");

    daemon.stop();
    for file in std::fs::read_dir(daemon.path().join("state")).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().contains("logs.sqlite") {
            std::fs::remove_file(path).unwrap();
        }
    }
    daemon.start(&[]);
    follow(&daemon, "a");
    daemon.until("it says so", |daemon| {
        let missing = lines(daemon)["missing"].clone();
        missing.as_str().is_some_and(|why| why.contains("no longer kept"))
    });
    assert!(out(&daemon.say(&["explain", &id])).contains("(the lines around it are no longer kept"));
}
