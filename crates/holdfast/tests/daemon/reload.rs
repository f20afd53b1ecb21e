//! The configuration read again by a running daemon: whole, or not at all.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::signal;
use crate::quiet::{Quiet, err, out, vm};
use holdfast_drivers::qemu::launch::Format;
use holdfast_drivers::qemu::snapshot::tree::Tree;
use holdfast_drivers::qemu::snapshot::{Files, Origin};
use serde_json::json;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

const IDLE: &str = "autostart = false\n";

#[test]
fn what_is_added_removed_and_changed_comes_into_force_and_is_told() {
    let daemon = Quiet::running(&[vm("a", IDLE), vm("b", IDLE)].concat());
    let tries = format!("{IDLE}[vm.a.recover]\ntries = 2\n");
    daemon.write(&["period = \"2s\"\n".to_owned(), vm("a", &tries), vm("c", IDLE)].concat());
    let answer = daemon.say(&["reload"]);
    assert_eq!((answer.status.code(), err(&answer)), (Some(0), String::new()));
    let file = daemon.config().display().to_string();
    assert_eq!(
        out(&answer).replace(&file, "FILE"),
        "FILE is in force\n  changed  period\n  added    vm c\n  \
         removed  vm b: left as it is, no longer looked after\n  changed  vm a: recover.tries\n"
    );
    assert_eq!(daemon.vms(), ["a", "c"]);
    assert_eq!(daemon.vm("a")["tries_most"], 2);
    let again = daemon.json(&["reload"]);
    let nothing = json!({"v": 1, "file": file, "settings": [], "added": [], "removed": [], "changed": [], "warnings": [], "notes": []});
    assert_eq!(again, nothing);
    assert!(out(&daemon.say(&["reload"])).ends_with("is in force; nothing has changed\n"));
}

#[test]
fn a09_a_wrong_file_changes_nothing_and_is_told_as_check_tells_it() {
    let daemon = Quiet::running(&vm("a", ""));
    daemon.until("it runs", |daemon| daemon.vm("a")["pid"].is_u64());
    let before = daemon.vm("a");
    daemon.write(&[vm("a", "cpus = 100\n[vm.a.recover]\ntrise = 2\n"), vm("b", IDLE)].concat());
    let (answer, check) = (daemon.say(&["reload"]), daemon.say(&["check"]));
    assert_eq!((answer.status.code(), out(&answer)), (Some(2), String::new()));
    let checked = err(&check).replace("holdfast.toml", &daemon.config().display().to_string());
    assert!(checked.contains("did you mean `tries`?") && checked.ends_with(": 2 problems\n"), "{checked}");
    assert_eq!(err(&answer), format!("{checked}the daemon goes on with the configuration before\n"));
    let answer = daemon.say(&["reload", "--json"]);
    assert_eq!(answer.status.code(), Some(2));
    let told: serde_json::Value = serde_json::from_str(&out(&answer)).unwrap();
    assert_eq!((&told["ok"], &told["count"]), (&json!(false), &json!(2)));
    assert_eq!(told["problems"], daemon.json(&["check"])["problems"]);
    signal(daemon.pid(), "HUP");
    let refused = "the new configuration is refused, the old one stays";
    daemon.until("a hangup is refused too", |daemon| daemon.log().contains("by=\"SIGHUP\""));
    assert!(daemon.log().contains(refused), "{}", daemon.log());
    assert_eq!(daemon.vms(), ["a"]);
    let after = daemon.vm("a");
    assert_eq!((&after["pid"], &after["incarnation"]), (&before["pid"], &before["incarnation"]));
    daemon.write(&[vm("a", ""), vm("b", IDLE)].concat());
    signal(daemon.pid(), "HUP");
    daemon.until("a hangup reads a right file", |daemon| daemon.vms() == ["a", "b"]);
    assert_eq!(daemon.vm("a")["pid"], before["pid"]);
}

#[test]
fn where_the_state_is_cannot_change_while_the_daemon_runs() {
    let daemon = Quiet::running(&vm("a", IDLE));
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    for (old, new, line) in [
        ("\"atlas\"", "\"other\"", "holdfast.toml:1:"),
        ("\"state\"\n", "\"state\"\nsocket = \"s\"\n", "holdfast.toml:3:"),
    ] {
        std::fs::write(daemon.config(), text.replace(old, new)).unwrap();
        let answer = daemon.say(&["reload"]);
        let said = err(&answer);
        assert_eq!(answer.status.code(), Some(2), "{said}");
        assert!(said.contains("cannot change while the daemon runs") && said.contains(line), "{said}");
        assert!(said.contains("restart the daemon") && said.contains("the VMs run on"), "{said}");
    }
}

#[test]
fn a_vm_that_runs_is_what_it_was_started_as_until_its_next_start_i7() {
    let daemon = Quiet::running(&vm("a", ""));
    daemon.until("it runs", |daemon| daemon.vm("a")["state"] == "running");
    let before = daemon.vm("a");
    daemon.write(&vm("a", "mode = \"observe\"\n").replace("64MiB", "96MiB"));
    let told = out(&daemon.say(&["reload"]));
    assert!(told.contains("changed  vm a: mode; memory from its next start on"), "{told}");
    let after = daemon.vm("a");
    assert_eq!((&after["pid"], &after["incarnation"]), (&before["pid"], &before["incarnation"]));
    assert_eq!(after["protection"], "observe");
    assert!(daemon.say(&["vm", "restart", "a", "--grace", "0s"]).status.success());
    daemon.until("it was restarted", |daemon| {
        let vm = daemon.vm("a");
        vm["state"] == "running" && vm["incarnation"] != before["incarnation"]
    });
    let line = std::fs::read(format!("/proc/{}/cmdline", daemon.vm("a")["pid"])).unwrap();
    assert!(String::from_utf8_lossy(&line).split('\0').any(|word| word == "96M"));
    let told = out(&daemon.say(&["reload"]));
    assert!(told.ends_with("nothing has changed\n"), "{told}");
}

#[test]
fn a_vm_that_is_no_longer_named_runs_on_and_is_taken_back_as_it_is_i7() {
    let mut daemon = Quiet::running(&[vm("a", ""), vm("b", IDLE)].concat());
    daemon.until("it runs", |daemon| daemon.vm("a")["state"] == "running");
    let before = daemon.vm("a");
    let process = format!("/proc/{}/cmdline", before["pid"]);
    let both = std::fs::read_to_string(daemon.config()).unwrap();
    for restarted in [false, true] {
        daemon.write(&vm("b", IDLE));
        assert!(daemon.say(&["reload"]).status.success());
        assert_eq!(daemon.vms(), ["b"]);
        if restarted {
            daemon.stop();
            daemon.start(&[]);
        }
        assert!(!std::fs::read(&process).unwrap().is_empty(), "it runs on");
        std::fs::write(daemon.config(), &both).unwrap();
        assert!(daemon.say(&["reload"]).status.success());
        daemon.until("it is known again", |daemon| daemon.vm("a")["state"] == "running");
        let after = daemon.vm("a");
        assert_eq!((&after["pid"], &after["incarnation"]), (&before["pid"], &before["incarnation"]));
    }
    let incidents = daemon.json(&["incidents"]);
    let of_vms = incidents.as_array().unwrap().iter().filter(|incident| !incident["vm"].is_null());
    assert_eq!(of_vms.collect::<Vec<_>>(), Vec::<&serde_json::Value>::new());
}

#[test]
fn systemd_is_told_when_a_reload_begins_and_ends() {
    let mut daemon = Quiet::new(&vm("a", IDLE));
    let place = daemon.path().join("notify");
    let socket = UnixDatagram::bind(&place).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    daemon.start(&[("NOTIFY_SOCKET", &place)]);
    let heard = || {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    assert_eq!(heard(), "READY=1");
    for broken in [false, true] {
        daemon.write(&vm("a", if broken { "cpus = 0\n" } else { IDLE }));
        assert_eq!(daemon.say(&["reload"]).status.code(), Some(if broken { 2 } else { 0 }));
        let begins = heard();
        let (reloading, at) = begins.split_once('\n').unwrap();
        assert_eq!(reloading, "RELOADING=1");
        assert!(at.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0, "{at}");
        assert_eq!(heard(), "READY=1", "it is ready again, whatever came of it");
    }
}

/// The disk of a VM that is off still comes in from point `a/3` of the repository `main`.
fn comes_in(disk: &Path) {
    let files = Files::of(disk);
    files.make_folder().unwrap();
    let mut tree = Tree::of(Format::Raw);
    let aside =
        serde_json::from_value(json!({"id": 1, "taken": 0, "frozen": false, "set_aside": true, "note": ""}));
    let number = tree.begin();
    files.make_root(&tree, number, 1 << 20).unwrap();
    tree.restore(Origin { to: "main".into(), repository: "7".into(), point: "a/3".into() }, aside.unwrap());
    files.write(&tree).unwrap();
}

#[test]
fn a_repository_that_changes_while_a_disk_comes_in_from_it_is_told() {
    let with = |path: &str| vm("a", IDLE) + &format!("[repository.main]\npath = \"{path}\"\n");
    let daemon = Quiet::new(&with("here"));
    comes_in(&daemon.path().join("a.raw"));
    let mut daemon = daemon;
    daemon.start(&[]);
    let notes = |config: &str| {
        daemon.write(config);
        let told = daemon.json(&["reload"]);
        assert!(told["notes"].is_array(), "{told}");
        told["notes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|note| note.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(notes(&(with("here") + "[repository.other]\npath = \"other\"\n")), Vec::<String>::new());
    let moved = notes(&with("there"));
    assert!(moved[0].contains("a/3, and [repository.main] is described otherwise"), "{moved:?}");
    let gone = notes(&vm("a", IDLE));
    assert!(gone[0].contains("[repository.main] is not named any more"), "{gone:?}");
    assert!(daemon.log().contains("comes in from a repository that changes"), "{}", daemon.log());
    assert_eq!(notes(&vm("a", IDLE)), Vec::<String>::new(), "once");
}
