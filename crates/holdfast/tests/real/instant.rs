//! A restore point becomes the disk of a VM that is started at once, while its blocks come in: nothing is lost or taken for
//! another, whoever is killed in the middle.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::backed::{self, TO_MAIN, backing, command};
use crate::lab::{BOOT, Lab, SOON, signal};
use crate::rows::{Rows, assert_of_point};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

fn beside(lab: &Lab, end: &str) -> PathBuf {
    let mut path = lab.disk("orders").into_os_string();
    path.push(end);
    path.into()
}

/// A restore at once that is under way.
struct Instant(Option<Child>);

impl Drop for Instant {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill(); // it may have ended
            child.wait().unwrap();
        }
    }
}

impl Instant {
    /// The point is offered when this returns.
    fn begin(lab: &Lab, qmp: &str, more: &[&str]) -> Self {
        let disk = lab.disk("orders");
        let words =
            ["restore", "--point", "orders/1", "--instant", disk.to_str().unwrap(), "--qmp", qmp, "--json"];
        let mut command = command(lab, &[&words, more].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut begun = Self(Some(child));
        let socket = beside(lab, ".offered");
        lab.until_without_daemon(SOON, "the point is offered", || {
            if begun.0.as_mut().unwrap().try_wait().unwrap().is_some() {
                panic!("{:?}", begun.0.take().unwrap().wait_with_output());
            }
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        begun
    }

    fn signal(&self, name: &str) {
        signal(i32::try_from(self.0.as_ref().unwrap().id()).unwrap(), name);
    }

    /// Whether it ended well, and what it said.
    fn ended(mut self) -> (bool, String) {
        let ended = self.0.take().unwrap().wait_with_output().unwrap();
        let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        (ended.status.success(), said)
    }
}

#[test]
fn a_vm_is_started_from_a_point_at_once_and_whoever_is_killed_meanwhile_it_ends_whole() {
    let lab = backed::lab(&format!("[vm.orders.recover]\ntries = 9\nwithin = \"2h\"\n{TO_MAIN}"));
    let rows = Rows::start(&lab);
    let before = rows.so_far();
    assert!(lab.cli(&["backup", "create", "orders"]).status.success(), "{}", lab.story());
    rows.wait_for_more(&lab);
    let all = rows.stop();
    let qmp = lab.vm("orders")["qmp"].as_str().unwrap().to_owned();
    let disk = lab.disk("orders");
    let words = ["restore", "--instant", disk.to_str().unwrap(), "--qmp", &qmp];
    let refused = command(&lab, &words).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("somebody uses it"), "{said}");
    assert!(!beside(&lab, ".instant").exists());
    assert!(lab.cli(&["vm", "stop", "orders"]).status.success());
    lab.until(BOOT, "it is off", |lab| lab.vm("orders")["pid"].is_null());

    // Stopped before the VM ran: it is not started, and says why, until the same command goes on.
    let slow = ["--limit", "1MiB/s"];
    let instant = Instant::begin(&lab, &qmp, &slow);
    instant.signal("TERM");
    let (is_well, said) = instant.ended();
    assert!(!is_well && said.contains("the same command goes on"), "{said}");
    lab.cli(&["vm", "start", "orders"]);
    lab.until(SOON, "why it does not start", |lab| {
        let story = lab.story();
        story.contains("nobody offers that on") && story.contains("back-off")
    });
    lab.cli(&["vm", "stop", "orders"]);
    let instant = Instant::begin(&lab, &qmp, &slow);
    lab.cli(&["vm", "start", "orders"]);
    lab.wait_well(BOOT);
    assert_of_point(&lab, &before, &all);
    assert!(!backing(&disk).is_null(), "not all is there yet");

    let rows = Rows::start(&lab);
    // The server is killed: what the guest reads waits, and goes on.
    instant.signal("KILL");
    drop(instant);
    let instant = Instant::begin(&lab, &qmp, &slow);
    rows.wait_for_more(&lab);
    // QEMU is killed: it is started again on what is there.
    signal(lab.pid("orders"), "KILL");
    rows.wait_for_more(&lab);
    lab.wait_well(BOOT);
    assert!(!backing(&disk).is_null(), "not all is there yet");
    instant.signal("INT");
    drop(instant.ended());
    let (is_well, said) = Instant::begin(&lab, &qmp, &[]).ended();
    assert!(is_well, "{said}\n{}", lab.story());
    let told: Value = serde_json::from_str(&said[said.find('{').unwrap()..]).unwrap();
    assert_eq!(told["kept"], beside(&lab, ".before-orders-1").to_str().unwrap(), "{said}");
    assert!(backing(&disk).is_null());
    assert!(!beside(&lab, ".offered").exists() && !beside(&lab, ".instant").exists());

    // From now on the repository is not needed.
    fs::remove_dir_all(lab.path().join("repo")).unwrap();
    rows.wait_for_more(&lab);
    signal(lab.pid("orders"), "KILL");
    rows.wait_for_more(&lab);
    lab.wait_well(BOOT);
    rows.all_there(&lab);
    let checked = Command::new("qemu-img").args(["check", "-U", "-q"]).arg(lab.disk("orders")).status();
    assert!(checked.unwrap().code().unwrap() != 2, "the disk is hurt");
}
