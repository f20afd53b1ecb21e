//! A backup as the remedy: the disk of a real database is gone or of no use, and what was acknowledged before the backup is
//! there again.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::backed::{self, backing};
use crate::lab::{BOOT, Lab, SOON, signal, vms_of};
use crate::rows::{Rows, assert_of_point, assert_sound, there};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a VM needs in its configuration that is restored by itself: it may lose an hour, and comes in so fast at most.
pub fn sections(limit: &str) -> String {
    format!(
        "[vm.orders.recover]\nmax_data_loss = \"1h\"\nboot_limit = \"3m\"\n\
         [vm.orders.protect]\nprove = {{ auto = false }}\nbackup.to = \"main\"\nbackup.limit = \"{limit}\"\n"
    )
}

/// A backup is made, the engine knows of it, and the database was seen to answer after it.
fn save(lab: &Lab) -> Value {
    let made = create(lab);
    // Within ten seconds it is listed for the engine, which takes a moment on a busy machine.
    std::thread::sleep(std::time::Duration::from_secs(20));
    lab.wait_asked("orders");
    made
}

pub fn create(lab: &Lab) -> Value {
    let made = lab.json(&["backup", "create", "orders", "--limit", "1GiB/s"])[0].take();
    assert_eq!(made["state"], "done", "{made}\n{}", lab.story());
    made
}

/// The file that the disk of the VM is now.
fn top(lab: &Lab) -> PathBuf {
    let mut folder = lab.disk("orders").into_os_string();
    folder.push(".snapshots");
    let files = std::fs::read_dir(Path::new(&folder)).unwrap().flatten().map(|entry| entry.path());
    let newest = files.filter(|path| path.extension().is_some_and(|end| end == "qcow2"));
    newest.max_by_key(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap()).unwrap()
}

pub fn needs_backup(lab: &Lab) -> bool {
    !backing(&top(lab)).is_null()
}

/// The processes that bring a backup into a disk of this laboratory.
pub fn suppliers(lab: &Lab) -> Vec<i32> {
    let own = format!("{}.snapshots", lab.disk("orders").display());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let is_own = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        line.contains("\0supply\0") && line.contains(&own)
    };
    all.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| is_own(&line)))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

pub fn recovered_by_restore(lab: &Lab) -> Value {
    let find = |lab: &Lab| lab.incidents().into_iter().find(|incident| incident["resolution"] == "recovered");
    lab.until(4 * BOOT, "a remedy ends it", |lab| find(lab).is_some());
    let incident = find(lab).unwrap();
    assert_eq!(
        incident["remedies"].as_array().unwrap().last().unwrap()["name"],
        "restore",
        "{}",
        lab.story()
    );
    incident
}

pub fn becomes_whole(lab: &Lab) {
    lab.until(4 * BOOT, "all of the backup is in the disk", |lab| !needs_backup(lab));
    lab.until(SOON, "nobody brings anything any more", |lab| suppliers(lab).is_empty());
}

/// The database tells how many rows were written since the newest point: those that were, and at most a few more that are its own.
fn tells_what_would_be_lost(lab: &Lab, least: usize, rows: usize) {
    let since = |lab: &Lab| lab.json(&["points", "orders"])[0]["since"]["postgres"].take();
    let told = |lab: &Lab| since(lab)["rows"].as_u64().unwrap_or_default();
    lab.until(SOON, "it is told how many rows would be lost", |lab| told(lab) >= least as u64);
    assert!(told(lab) <= rows as u64 + 500, "{} of {rows}", told(lab));
    assert!(since(lab)["log"].as_u64().unwrap() > 0);
    let shown = String::from_utf8(lab.cli(&["points", "orders"]).stdout).unwrap();
    assert!(shown.contains("rows since"), "{shown}");
}

/// A backup is made while rows are written: those from before it, and all.
fn around_a_backup(lab: &Lab) -> (Vec<i64>, Vec<i64>) {
    let rows = Rows::start(lab);
    let before = rows.so_far();
    save(lab);
    rows.wait_for_more(lab);
    (before, rows.stop())
}

#[test]
fn a_deleted_disk_is_restored_by_itself_and_whoever_is_killed_meanwhile_it_ends_whole() {
    let mut lab = backed::lab(&sections("2MiB"));
    let rows = Rows::start(&lab);
    let before = rows.so_far();
    save(&lab);
    let saved = rows.so_far().len();
    rows.wait_for_more(&lab);
    let all = rows.stop();
    tells_what_would_be_lost(&lab, all.len() - saved, all.len());
    // Its repository is out of reach at first, as where it is not mounted.
    let (repository, away) = (lab.path().join("repo"), lab.path().join("away"));
    std::fs::rename(&repository, &away).unwrap();
    std::fs::remove_file(lab.disk("orders")).unwrap();
    signal(lab.pid("orders"), "KILL");
    lab.until(BOOT, "it is said that it waits", |lab| lab.story().contains("restore has to wait"));
    std::fs::rename(&away, &repository).unwrap();
    let incident = recovered_by_restore(&lab);
    assert_eq!(incident["fault"], "ImageLost");
    let told = "what was written since (postgres: about ";
    assert!(lab.story().contains(told), "{}", lab.story());
    lab.wait_well(BOOT);
    assert_of_point(&lab, &before, &all);
    assert_sound(&lab);
    assert!(needs_backup(&lab), "not all is there yet");
    let told = lab.cli(&["points", "orders"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("its disk comes in from orders/1; it takes"), "{told}");
    let refused = lab.cli(&["backup", "create", "orders"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("its disk is still coming in from backup orders/1: wait for that"), "{told}");

    // Who brings it is killed: another goes on.
    let rows = Rows::start(&lab);
    suppliers(&lab).iter().for_each(|pid| signal(*pid, "KILL"));
    rows.wait_for_more(&lab);
    lab.until(BOOT, "another brings it", |lab| !suppliers(lab).is_empty() || !needs_backup(lab));
    rows.wait_for_more(&lab);
    let acknowledged = rows.stop();

    // All are killed, as by a power cut: what is started again goes on from what is there.
    assert!(needs_backup(&lab), "not all is there yet");
    let (vm, bringing) = (lab.pid("orders"), suppliers(&lab));
    lab.kill_daemon();
    let config = std::fs::read_to_string(lab.config()).unwrap();
    std::fs::write(lab.config(), config.replace("\"2MiB\"", "\"1GiB\"")).unwrap(); // as fast as it goes
    bringing.into_iter().chain([vm]).for_each(|pid| signal(pid, "KILL"));
    std::fs::rename(&repository, &away).unwrap();
    lab.start();
    lab.until(BOOT, "it is said that its start waits", |lab| lab.story().contains("restart-vm has to wait"));
    std::fs::rename(&away, &repository).unwrap();
    lab.wait_well(2 * BOOT);
    let now = there(&lab);
    assert!(acknowledged.iter().all(|id| now.contains(id)), "what was acknowledged since is there");
    becomes_whole(&lab);
    let rows = Rows::start(&lab);
    rows.wait_for_more(&lab);
    rows.all_there(&lab);
}

#[test]
fn an_encrypted_disk_goes_back_to_the_last_backup_from_before_that() {
    let lab = backed::lab(&sections("1GiB"));
    let (before, all) = around_a_backup(&lab);
    // An intruder encrypts what lies around first, while the database serves on, and the database last.
    let console = PathBuf::from(lab.vm("orders")["console"].as_str().unwrap());
    lab.in_guest(
        "orders",
        "head -c 60000000 /dev/urandom > /var/documents; sync; echo encrypted > /dev/console",
    );
    lab.until(BOOT, "documents are encrypted", |_| {
        std::fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains("encrypted"))
    });
    let made = save(&lab);
    assert!(made["warnings"].to_string().contains("as if it were encrypted"), "{made}\n{}", lab.story());
    lab.in_guest(
        "orders",
        "find $(ls -d /var/lib/postgresql/*/main)/base -type f -size +0 | while read f; do \
         n=$(stat -c %s $f); head -c $n /dev/urandom | dd of=$f conv=notrunc bs=64k 2>/dev/null; done; sync",
    );
    let id = recovered_by_restore(&lab)["id"].to_string();
    let told = lab.cli(&["explain", &id]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("restore") && told.contains("backup 1 ("), "{told}");
    lab.wait_well(BOOT);
    assert_of_point(&lab, &before, &all);
    becomes_whole(&lab);
}

#[test]
fn a_person_takes_a_vm_back_to_its_backup_and_forward_again() {
    let lab = backed::lab(&sections("1GiB"));
    let (before, all) = around_a_backup(&lab);
    let said = |words: &[&str]| {
        let ended = lab.cli(words);
        (ended.status.success(), String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
    };
    let (is_well, told) = said(&["backup", "revert", "orders", "7", "--yes"]);
    assert!(!is_well && told.contains("orders has no backup `7`"), "{told}");
    let (is_well, told) = said(&["backup", "revert", "orders", "latest"]);
    assert!(!is_well && told.contains("nobody is there to ask"), "{told}");
    let (is_well, told) = said(&["backup", "revert", "orders", "1", "--yes"]);
    assert!(is_well && told.contains("boots backup 1"), "{told}\n{}", lab.story());
    let (is_well, told) = said(&["snapshot", "create", "orders"]);
    let is_whole = !needs_backup(&lab);
    assert!(is_whole || is_well || told.contains("still coming in"), "{told}");
    lab.wait_well(BOOT);
    assert_of_point(&lab, &before, &all);
    becomes_whole(&lab);

    let snapshots = lab.json(&["snapshot", "list", "orders"]);
    let aside =
        snapshots["snapshots"].as_array().unwrap().iter().find(|one| one["set_aside"] == true).unwrap();
    let (is_well, told) = said(&["snapshot", "revert", "orders", &aside["id"].to_string(), "--yes"]);
    assert!(is_well, "{told}");
    lab.wait_well(BOOT);
    let now = there(&lab);
    assert!(all.iter().all(|id| now.contains(id)), "what was set aside has every row");
}

/// The numbers of the sockets on which a backup is offered to a disk of this laboratory.
fn sockets(lab: &Lab) -> Vec<String> {
    let mut folder = lab.disk("orders").into_os_string();
    folder.push(".snapshots");
    let files = std::fs::read_dir(Path::new(&folder)).unwrap().flatten().map(|entry| entry.path());
    let offered = files.filter(|path| path.extension().is_some_and(|end| end == "offered"));
    let mut names: Vec<String> =
        offered.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_disk_that_was_left_while_it_came_in_is_offered_no_more_and_again_to_whoever_goes_back_to_it() {
    let lab = backed::lab(&sections("1MiB"));
    let (before, all) = around_a_backup(&lab);
    let number = |lab: &Lab| top(lab).file_stem().unwrap().to_str().unwrap().to_owned();
    let revert = |lab: &Lab, words: [&str; 4]| {
        let ended = lab.cli(&[&words[..], &["--yes"]].concat());
        assert!(ended.status.success(), "{ended:?}\n{}", lab.story());
        lab.wait_well(BOOT);
    };
    // Twice to the same backup, the second time while the first still comes in.
    revert(&lab, ["backup", "revert", "orders", "1"]);
    let first = number(&lab);
    assert!(needs_backup(&lab), "not all is there yet");
    assert_eq!(sockets(&lab), std::slice::from_ref(&first));
    revert(&lab, ["backup", "revert", "orders", "1"]);
    let second = number(&lab);
    lab.until(BOOT, "the first is offered no more", |lab| sockets(lab) == std::slice::from_ref(&second));
    lab.until(SOON, "nobody offers it", |lab| suppliers(lab).len() == 1);
    let rows = Rows::start(&lab);
    rows.wait_for_more(&lab);
    rows.all_there(&lab);
    assert!(needs_backup(&lab), "the one that it stands on is offered still");

    // Back to the first, which was left half: it is offered again, to it alone.
    let listed = lab.json(&["snapshot", "list", "orders"]);
    let aside: Vec<String> =
        listed["snapshots"].as_array().unwrap().iter().map(|one| one["id"].to_string()).collect();
    revert(&lab, ["snapshot", "revert", "orders", aside.last().unwrap()]);
    assert_of_point(&lab, &before, &all);
    lab.until(BOOT, "the second is offered no more", |lab| sockets(lab) == std::slice::from_ref(&first));

    // And away from all of them: nothing is offered, and what a killed one left goes, too.
    suppliers(&lab).iter().for_each(|pid| signal(*pid, "KILL"));
    drop(std::os::unix::net::UnixListener::bind(top(&lab).with_file_name("orders-9.offered")).unwrap());
    revert(&lab, ["snapshot", "revert", "orders", &aside[0]]);
    lab.until(BOOT, "nothing is offered", |lab| sockets(lab).is_empty() && suppliers(lab).is_empty());
    let now = there(&lab);
    assert!(all.iter().all(|id| now.contains(id)), "what was set aside has every row");
}

#[test]
fn a_restored_vm_whose_run_folder_is_gone_runs_on_alone_and_a_restart_brings_all_back() {
    let mut lab = backed::lab(&sections("1GiB")); // I1, I7
    create(&lab);
    let ended = lab.cli(&["backup", "revert", "orders", "1", "--yes"]);
    assert!(ended.status.success(), "{ended:?}\n{}", lab.story());
    lab.wait_well(BOOT);
    becomes_whole(&lab);
    let pid = lab.pid("orders");
    lab.kill_daemon();
    std::fs::remove_dir_all(lab.state().join("run")).unwrap();
    lab.start();
    let way_out = "it will from the next start of its vm on";
    lab.until(SOON, "a person is told what to do", |lab| lab.story().contains(way_out));
    assert_eq!((lab.pid("orders"), vms_of(&lab.state())), (pid, vec![pid]), "{}", lab.story());
    let ended = lab.cli(&["vm", "restart", "orders", "--force"]);
    assert!(ended.status.success(), "{ended:?}");
    lab.until(BOOT, "it is another", |lab| {
        lab.vm("orders")["pid"].as_i64().is_some_and(|new| new != i64::from(pid))
    });
    lab.wait_well(BOOT);
    assert_eq!(vms_of(&lab.state()), [lab.pid("orders")]);
}
