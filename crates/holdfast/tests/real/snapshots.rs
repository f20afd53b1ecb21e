//! Snapshots of a real database: what was acknowledged is there again, and nothing that was there is lost.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::lab::{BOOT, Lab, SOON};
use crate::rows::{Rows, address, ask, assert_of_point, assert_sound, there, told};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// An hour may be lost without a person.
const MAY_LOSE: &str = "\n[vm.orders.recover]\nmax_data_loss = \"1h\"\nboot_limit = \"75s\"\n";

/// A laboratory whose database is told to write everything down before a snapshot.
fn lab() -> Lab {
    let mut lab = Lab::changed(quiesced);
    lab.start_warm(&["orders"]);
    lab
}

pub fn quiesced(config: String) -> String {
    config + "quiesce = \"su postgres -c 'psql -h /run/postgresql -c checkpoint'\"\n"
}

pub fn create(lab: &Lab, words: &[&str]) -> Value {
    let taken = lab.json(&[&["snapshot", "create", "orders"], words].concat());
    assert_eq!(taken["warnings"], Value::Array(Vec::new()), "{taken}\n{}", lab.story());
    println!("snapshot {}: the guest had to wait {} s", taken["id"], taken["stall_s"]);
    taken
}

fn back(lab: &Lab, how: &str, id: &Value, words: &[&str]) {
    let id = id.to_string();
    let done = lab.cli(&[&["snapshot", how, "orders", &id, "--yes"], words].concat());
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), lab.story());
}

/// No file is left that no snapshot needs, when there are none.
fn until_room_is_given_back(lab: &Lab) {
    lab.until(BOOT, "the room of deleted snapshots is given back", |lab| {
        // Where each snapshot was killed before it began, there is no folder of them.
        let files = std::fs::read_dir(lab.path().join("orders.qcow2.snapshots")).into_iter().flatten();
        files.filter(|entry| entry.as_ref().unwrap().path().extension() == Some("qcow2".as_ref())).count()
            <= 1
    });
}

#[test]
fn a_database_goes_back_to_its_snapshot_and_forward_again() {
    let lab = lab();
    let rows = Rows::start(&lab);
    let before = rows.so_far();
    let taken = create(&lab, &["--freeze"]);
    assert_eq!(taken["frozen"], true);
    (0..3).for_each(|_| rows.wait_for_more(&lab));
    let all = rows.stop();
    back(&lab, "revert", &taken["id"], &[]);
    lab.wait_well(BOOT);
    assert_of_point(&lab, &before, &all);
    assert_sound(&lab);

    // What it was when it was ended is a snapshot, too.
    let known = lab.json(&["snapshot", "list", "orders"]);
    let aside = known["snapshots"].as_array().unwrap().iter().find(|one| one["set_aside"] == true).unwrap();
    back(&lab, "revert", &aside["id"], &[]);
    lab.wait_well(BOOT);
    let found = there(&lab);
    let lost: Vec<&i64> = all.iter().filter(|id| !found.contains(id)).collect();
    assert!(lost.is_empty(), "{} acknowledged, lost: {lost:?}", all.len());

    let known = lab.json(&["snapshot", "list", "orders"]);
    for one in known["snapshots"].as_array().unwrap() {
        assert!(lab.cli(&["snapshot", "delete", "orders", &one["id"].to_string()]).status.success());
    }
    until_room_is_given_back(&lab);
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
    lab.wait_well(SOON);
}

#[test]
fn a_database_goes_on_with_its_memory_and_only_once() {
    goes_on_with_its_memory(&lab());
}

/// A database whose rows are inserted without a pause goes back with its memory, once (I23).
pub fn goes_on_with_its_memory(lab: &Lab) {
    let rows = Rows::start(lab);
    let before = rows.so_far();
    let taken = create(lab, &["--memory"]);
    assert!(taken["memory"].as_u64().unwrap() > 1 << 20, "{taken}");
    let points = lab.json(&["points", "orders"]);
    let point = (&points[0]["id"], &points[0]["grade"], &points[0]["memory"]);
    assert_eq!(point, (&"snapshot/1".into(), &"consistent".into(), &true.into()), "{points}");
    (0..3).for_each(|_| rows.wait_for_more(lab));
    let all = rows.stop();
    let at = started(lab);
    back(lab, "resume", &taken["id"], &[]);
    lab.wait_well(SOON);
    assert_of_point(lab, &before, &all);
    assert_sound(lab);
    assert_eq!(started(lab), at, "it went on, and did not boot");
    lab.until(SOON, "its clock is right again", |lab| {
        let told = ask(&address(lab), "select extract(epoch from now())::bigint");
        let Some(late) = told else { return false };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        late[0].parse::<u64>().unwrap().abs_diff(now) <= 2
    });
    let again = lab.cli(&["snapshot", "resume", "orders", &taken["id"].to_string(), "--yes"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("I23"), "{said}");
    lab.wait_well(SOON);
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}

/// When the database was started: another time after every boot.
fn started(lab: &Lab) -> String {
    told(lab, "select pg_postmaster_start_time()")[0].clone()
}

#[test]
fn a_daemon_killed_while_it_takes_snapshots_leaves_a_guest_that_runs_and_is_thawed() {
    let mut lab = lab(); // S71, I16
    let kills = std::env::var("HOLDFAST_S71").map_or(4, |text| text.parse().unwrap());
    let rows = Rows::start(&lab);
    let start = lab.incarnation("orders");
    for kill in 0..kills {
        let mut command = crate::lab::holdfast();
        command.arg("--state").arg(lab.state()).args(["snapshot", "create", "orders"]);
        command.args(if kill % 2 == 0 { ["--freeze"] } else { ["--memory"] });
        let mut taking = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100 + (kill * 97) % 900));
        lab.kill_daemon();
        taking.wait().unwrap();
        lab.start();
        rows.wait_for_more(&lab); // it runs, and what is written gets through
        for one in lab.json(&["snapshot", "list", "orders"])["snapshots"].as_array().unwrap() {
            lab.cli(&["snapshot", "delete", "orders", &one["id"].to_string()]);
        }
    }
    // In the middle of a merge: the next daemon goes on with it by itself.
    until_room_is_given_back(&lab);
    let one = create(&lab, &["--no-freeze"])["id"].to_string();
    lab.in_guest("orders", "dd if=/dev/urandom of=/var/tmp/much bs=1M count=96 conv=fsync");
    assert!(lab.cli(&["snapshot", "delete", "orders", &one]).status.success());
    lab.kill_daemon();
    lab.start();
    until_room_is_given_back(&lab);
    assert_eq!(lab.incarnation("orders"), start);
    lab.until(SOON, "it is thawed, and says so", |lab| {
        lab.ask_agent("orders", r#"{"execute":"guest-fsfreeze-status"}"#) == Some("thawed".into())
    });
    create(&lab, &["--freeze"]);
    rows.all_there(&lab);
}

/// A snapshot is taken while rows are written: those from before it, and all. Its application was seen to answer after it.
fn around_a_snapshot(lab: &Lab, words: &[&str]) -> (Vec<i64>, Vec<i64>) {
    let rows = Rows::start(lab);
    let before = rows.so_far();
    create(lab, words);
    (0..3).for_each(|_| rows.wait_for_more(lab));
    lab.wait_asked("orders");
    (before, rows.stop())
}

#[test]
fn a_database_whose_files_are_gone_goes_back_by_itself_as_far_as_its_owner_allows() {
    let mut lab = Lab::changed(|config| config + MAY_LOSE);
    lab.start_warm(&["orders"]);
    let (before, all) = around_a_snapshot(&lab, &["--memory"]);
    delete_data(&lab);
    let incident = recovered(&lab, 4 * BOOT);
    assert_eq!(incident["remedies"].as_array().unwrap().last().unwrap()["name"], "resume", "{}", lab.story());
    lab.wait_well(SOON);
    assert_of_point(&lab, &before, &all);
}

#[test]
fn a_file_system_full_of_random_bytes_goes_back_by_itself() {
    let mut lab = Lab::changed(|config| config + MAY_LOSE);
    lab.start_warm(&["orders"]);
    let (before, all) = around_a_snapshot(&lab, &["--freeze"]);
    let spoil = "d=$(mount | sed -n 's/ on \\/ .*//p'); n=$(blockdev --getsize64 $d); sync; \
                 seq 0 160 $((n / 65536)) | while read at; do \
                 dd if=/dev/urandom of=$d bs=64k count=24 seek=$at conv=notrunc 2>/dev/null; done; \
                 echo 3 > /proc/sys/vm/drop_caches; pkill -9 postgres";
    lab.in_guest("orders", spoil);
    let incident = recovered(&lab, 4 * BOOT);
    assert_eq!(incident["remedies"].as_array().unwrap().last().unwrap()["name"], "revert", "{}", lab.story());
    lab.wait_well(BOOT);
    assert_of_point(&lab, &before, &all);
}

#[test]
fn nothing_is_lost_without_a_person_who_approves_it() {
    let mut lab = Lab::changed(|config| config + "\n[vm.orders.recover]\ntries = 1\nboot_limit = \"75s\"\n");
    lab.start_warm(&["orders"]);
    let (before, all) = around_a_snapshot(&lab, &["--freeze"]);
    delete_data(&lab);
    let held = |lab: &Lab| {
        let waits =
            |incident: &Value| incident["reason"].as_str().is_some_and(|why| why.contains("person's word"));
        lab.incidents().into_iter().find(waits)
    };
    lab.until(4 * BOOT, "a person is asked", |lab| held(lab).is_some());
    let id = held(&lab).unwrap()["id"].to_string();
    let told = lab.cli(&["explain", &id]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains(&format!("holdfast approve {id}")), "{told}");
    let approved = lab.cli(&["approve", &id]);
    assert!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
    recovered(&lab, 2 * BOOT);
    lab.wait_well(BOOT);
    assert_of_point(&lab, &before, &all);
}

/// A bad script: the database is ended, and all its files are gone.
fn delete_data(lab: &Lab) {
    let gone =
        "pkill -9 postgres; d=$(ls -d /var/lib/postgresql/*/main); rm -rf $d/base $d/pg_wal $d/global; sync";
    lab.in_guest("orders", gone);
}

/// The incident that a remedy ended.
fn recovered(lab: &Lab, limit: Duration) -> Value {
    let find = |lab: &Lab| lab.incidents().into_iter().find(|incident| incident["resolution"] == "recovered");
    lab.until(limit, "a remedy ends it", |lab| find(lab).is_some());
    find(lab).unwrap()
}
