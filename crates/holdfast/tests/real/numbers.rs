//! Numbers of a user's own, from a real PostgreSQL, a real guest agent and this host; and a disk beside the root, which
//! fills.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{own, qmp};
use crate::lab::{BOOT, Lab, SOON};
use crate::rows::{address, ask_as};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use tempfile::NamedTempFile;

const NUMBERS: &str = r#"
[vm.orders.number.tables]
query = "select count(*) from pg_class"
unit = "tables"
every = "1s"

[vm.orders.number.writes]
query = "create table harm (n int)"
every = "1s"

[vm.orders.number.wal]
query = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
kind = "total"
unit = "B"
every = "1s"

[vm.orders.number.sessions]
query = "select count(*) from pg_stat_activity where application_name = 'holdfast' and backend_start < now() - interval '2 s'"
every = "1s"

[vm.orders.number.processes]
guest_command = ["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]
every = "2s"

[vm.orders.number.absent]
guest_command = ["cat", "/no/such/file"]
every = "2s"

[vm.orders.number.here]
command = ["/bin/echo", "-0.5"]
every = "1s"
"#;

fn series(lab: &Lab, name: &str) -> Option<Value> {
    let list = lab.json(&["metrics", "show", "orders"]);
    let name = format!("number:{name}");
    list["series"].as_array().unwrap().iter().find(|one| one["series"] == name.as_str()).cloned()
}

#[test]
fn a_query_a_command_in_the_guest_and_one_of_this_host_tell_numbers_and_harm_nothing() {
    let lab = Lab::running(NUMBERS);
    let value = |lab: &Lab, name: &str| series(lab, name).and_then(|one| one["last"].as_f64());
    for name in ["tables", "wal", "processes", "here"] {
        lab.until(SOON, name, |lab| value(lab, name).is_some());
    }
    assert!(value(&lab, "tables").unwrap() > 100.0);
    assert!(value(&lab, "processes").unwrap() > 5.0);
    assert_eq!(value(&lab, "here"), Some(-0.5));
    assert!(value(&lab, "wal").unwrap() >= 0.0);
    assert_eq!(series(&lab, "wal").unwrap()["unit"], "B/s");
    lab.until(SOON, "one session is kept for all queries", |lab| value(lab, "sessions") == Some(1.0));
    let why = |lab: &Lab, name: &str| {
        series(lab, name).and_then(|one| Some(one["trouble"].as_str()?.to_owned())).unwrap_or_default()
    };
    lab.until(SOON, "a write is refused", |lab| why(lab, "writes").contains("read-only transaction"));
    lab.until(SOON, "a failure in the guest is told", |lab| {
        why(lab, "absent").contains("exit code 1") && why(lab, "absent").contains("No such file")
    });
    assert_eq!(own(&lab).len(), 0, "{}", lab.story());
}

/// Puts another disk, with a file system of 200 MiB, into the running VM, mounts it, and makes a tablespace on it.
fn another_disk(lab: &Lab, place: &str) -> NamedTempFile {
    // Not in the folder of the test, into which the user of QEMU may not look.
    let image = NamedTempFile::with_prefix("hf-ts1-").unwrap();
    image.as_file().set_len(200 << 20).unwrap();
    image.as_file().set_permissions(std::fs::Permissions::from_mode(0o666)).unwrap();
    let made = std::process::Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(image.path()).status();
    assert!(made.expect("mkfs.ext4, package e2fsprogs").success());
    let add = [
        serde_json::json!({"execute": "blockdev-add", "arguments": {"driver": "raw", "node-name": "ts1",
            "file": {"driver": "file", "filename": image.path()}}}),
        serde_json::json!({"execute": "device_add", "arguments": {"driver": "virtio-blk-pci", "drive": "ts1",
            "id": "ts1"}}),
    ];
    for order in add {
        qmp(lab, "orders", &order.to_string());
    }
    let mount = "mkdir -p /srv/ts1; until mount -t ext4 /dev/vdb /srv/ts1; do sleep 0.2; done; \
                 mkdir /srv/ts1/data; chown postgres /srv/ts1/data";
    lab.in_guest("orders", mount);
    let make = "create tablespace ts1 location '/srv/ts1/data'";
    lab.until(BOOT, make, |_| {
        let _ = ask_as(place, "postgres", "postgres", make); // until it is mounted, or once it is made, in vain
        let there =
            ask_as(place, "postgres", "postgres", "select spcname from pg_tablespace where spcname = 'ts1'");
        there.is_some_and(|names| names == ["ts1"])
    });
    image
}

#[test]
fn another_disk_that_fills_is_foretold_and_named_with_the_tablespace_on_it() {
    let mut lab = Lab::running("");
    let place = address(&lab);
    let _image = another_disk(&lab, &place);
    // Where data lie is asked when a daemon begins, and then every five minutes.
    lab.stop();
    lab.start();
    lab.wait_well(SOON);
    let used = "disk-used:/srv/ts1";
    let listed = |lab: &Lab| {
        let list = lab.json(&["metrics", "show", "orders"]);
        list["series"].as_array().unwrap().iter().any(|one| one["series"] == used)
    };
    lab.until(SOON, used, listed);
    let fill = "dd if=/dev/zero of=/srv/ts1/fill bs=1M count=50 2>/dev/null; \
                while [ -e /srv/ts1 ]; do dd if=/dev/zero bs=1M count=1 2>/dev/null >> /srv/ts1/fill || exit; sync; sleep 1; done";
    lab.in_guest("orders", fill);
    let suspected = |lab: &Lab| {
        lab.incidents().into_iter().find(|one| one["vm"] == "orders" && one["fault"] == "GuestDiskFull")
    };
    lab.until(BOOT, "it is foretold", |lab| suspected(lab).is_some());
    let id = suspected(&lab).unwrap()["id"].to_string();
    let explained = lab.json(&["explain", &id]);
    assert_eq!(explained["certainty"], "Suspected", "{}", lab.story());
    let text = explained["evidence"].to_string();
    assert!(text.contains("file system /srv/ts1") && text.contains("will be full in about"), "{text}");
    lab.until(BOOT, "it is named with what lies on it", |lab| {
        let text = lab.json(&["explain", &id])["evidence"].to_string();
        text.contains("file system /srv/ts1, which holds tablespace ts1 of postgres, ")
    });
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}
