//! Backups of a VM that is off: as it lies there, and never in the way of a start.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::backed::{self, TO_MAIN, plain};
use crate::backups::is_in;
use crate::hands::told;
use crate::lab::{BOOT, Lab, SOON, holdfast};
use crate::rows::Rows;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};

fn create(lab: &Lab) -> Value {
    let made = lab.json(&["backup", "create", "orders"]).as_array().unwrap()[0].clone();
    assert_eq!(made["state"], "done", "{made}\n{}", lab.story());
    println!("{}: {} read, {} added, {} s", made["id"], made["read"], made["added"], made["seconds"]);
    made
}

/// A slow `backup create` of which something was read.
fn begun(lab: &Lab) -> Child {
    let mut command = holdfast();
    command.arg("--state").arg(lab.state()).args(["backup", "create", "orders", "--limit", "2MiB/s"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    lab.until(SOON, "its disk is read", |lab| !qemu_nbds(lab).is_empty());
    child
}

/// The processes that read its disk.
fn qemu_nbds(lab: &Lab) -> Vec<u32> {
    let disk = lab.disk("orders").display().to_string();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("qemu-nbd") && line.contains(&disk)
    };
    pids.filter(is_ours).collect()
}

fn stop(lab: &Lab, words: &[&str]) {
    told(lab, &[&["vm", "stop", "orders"], words].concat());
    lab.until(BOOT, "it is off", |lab| lab.vm("orders")["pid"].is_null());
}

/// The grade of a snapshot that is taken now.
fn snapshot_grade(lab: &Lab, words: &[&str]) -> Value {
    let taken = lab.json(&[&["snapshot", "create", "orders"], words].concat());
    let points = lab.json(&["points", "orders"]);
    let id = format!("snapshot/{}", taken["id"]);
    let point = points.as_array().unwrap().iter().find(|point| point["id"] == *id);
    point.unwrap_or_else(|| panic!("{taken}: {points}"))["grade"].clone()
}

/// The same as what QEMU finds in the disk.
fn is_as_it_lies_there(lab: &Lab, point: &Value) {
    let out = lab.path().join("restored.raw");
    let id = point["id"].as_str().unwrap();
    plain(lab, &["restore", "--point", id, "--out", out.to_str().unwrap()]);
    let mut compare = Command::new("qemu-img");
    compare.args(["compare", "-f", "qcow2", "-F", "raw"]).arg(lab.disk("orders")).arg(&out);
    let ended = compare.output().expect("Debian's qemu-utils has qemu-img");
    assert!(ended.status.success(), "{ended:?}");
    std::fs::remove_file(out).unwrap();
}

#[test]
fn a_vm_that_is_off_is_backed_up_and_the_next_backup_of_it_running_knows_what_changed_since_the_last() {
    let lab = backed::lab(TO_MAIN);
    let rows = Rows::start(&lab);
    let running = create(&lab);
    assert_eq!(running["off"], false, "{running}");
    rows.wait_for_more(&lab);
    let before = rows.stop();
    stop(&lab, &[]);
    let off = create(&lab);
    assert_eq!((&off["off"], &off["frozen"], &off["warnings"]), (&true.into(), &false.into(), &json!([])));
    let bytes = |point: &Value, what: &str| point[what].as_u64().unwrap();
    assert!(bytes(&off, "added") < bytes(&running, "added") / 4, "the same blocks: {off}");
    is_as_it_lies_there(&lab, &off);
    let again = create(&lab);
    assert_eq!(again["added"], 0, "{again}");
    let listed: Value = serde_json::from_str(&plain(&lab, &["list", "--json"])).unwrap();
    assert_eq!(listed[1]["grade"], "consistent", "its guest shut down in order: {listed}");
    assert!(plain(&lab, &["files", "/etc", "--point", off["id"].as_str().unwrap()]).contains("passwd"));

    told(&lab, &["vm", "start", "orders"]);
    lab.wait_well(BOOT);
    let rows = Rows::start(&lab);
    rows.wait_for_more(&lab);
    let so_far = rows.so_far();
    let next = create(&lab);
    assert_eq!((&next["off"], &next["why_all"]), (&false.into(), &Value::Null), "{next}");
    assert!(bytes(&next, "read") < bytes(&running, "read") / 2, "only what changed is read: {next}");
    rows.wait_for_more(&lab);
    let all = rows.stop();
    let verified = plain(&lab, &["verify", "--all"]);
    assert!(verified.ends_with("4 of 4 points are whole\n"), "{verified}");
    is_in(&lab, &next, &so_far, &all);
    stop(&lab, &[]);
    assert_eq!(
        snapshot_grade(&lab, &["--freeze"]),
        "consistent",
        "what its guest left takes the place of a freeze"
    );
    assert!(!before.is_empty() && lab.remedies().is_empty(), "{}", lab.story());
}

#[test]
fn a_start_ends_the_backup_of_a_vm_that_is_off_and_nothing_of_a_killed_one_is_left() {
    let mut lab = backed::lab(TO_MAIN);
    stop(&lab, &["--force"]);
    let waiting = begun(&lab);
    told(&lab, &["vm", "start", "orders"]);
    let ended = waiting.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && said.contains("a start never waits for a backup"), "{said}");
    assert_eq!((qemu_nbds(&lab), plain(&lab, &["list"])), (Vec::new(), "no restore points\n".to_owned()));
    lab.wait_well(BOOT);
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());

    stop(&lab, &["--force"]);
    let mut waiting = begun(&lab);
    lab.kill_daemon();
    waiting.wait().unwrap();
    lab.until_without_daemon(SOON, "nobody reads its disk", || qemu_nbds(&lab).is_empty());
    lab.start();
    let off = create(&lab);
    let warning = off["warnings"][0].as_str().unwrap();
    assert!(off["off"] == true && warning.contains("not seen to shut down in order"), "{off}");
    let refused = lab.cli(&["snapshot", "create", "orders", "--freeze"]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("not seen to be shut down"), "{why}");
    assert_eq!(snapshot_grade(&lab, &[]), "taken", "its guest lost its power");
    let listed: Value = serde_json::from_str(&plain(&lab, &["list", "--json"])).unwrap();
    assert_eq!(listed[0]["grade"], "taken", "{listed}");
    is_as_it_lies_there(&lab, &off);
    assert!(qemu_nbds(&lab).is_empty());
}
