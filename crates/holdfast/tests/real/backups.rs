//! Backups of a real database that is written to: what was acknowledged is in the point, whatever becomes of daemon and VM.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::backed::{self, TO_MAIN, plain};
use crate::lab::{BOOT, Lab, SOON, holdfast, signal};
use crate::rows::{Rows, address, ask, assert_of_point};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A laboratory with more settings of its backup.
fn lab_with(more: &str) -> Lab {
    backed::lab(&(TO_MAIN.to_owned() + more))
}

fn create(lab: &Lab) -> Value {
    let made = lab.json(&["backup", "create", "orders"]).as_array().unwrap()[0].clone();
    assert_eq!((&made["state"], &made["frozen"]), (&"done".into(), &true.into()), "{made}\n{}", lab.story());
    assert_eq!(made["warnings"], json!([]), "{made}");
    println!(
        "{}: {} read, {} added, {} s; the guest had to wait {} s",
        made["id"], made["read"], made["added"], made["seconds"], made["stall_s"]
    );
    made
}

/// A point, and what was acknowledged by the time that it is of.
fn create_while(lab: &Lab, rows: &Rows) -> (Value, Vec<i64>) {
    let before = rows.so_far();
    let point = create(lab);
    let listed: Value = serde_json::from_str(&plain(lab, &["list", "--json"])).unwrap();
    let known = listed.as_array().unwrap().iter().find(|known| known["id"] == point["id"]).unwrap();
    let by_then = rows.by(known["taken"].as_f64().unwrap());
    assert!(by_then.len() >= before.len(), "its time is one of before it was asked for: {known}");
    (point, by_then)
}

/// A `backup create` that is under way: it has read something.
fn begun(lab: &Lab, words: &[&str]) -> Child {
    let mut command = holdfast();
    command.arg("--state").arg(lab.state()).args(["backup", "create", "orders"]).args(words);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    lab.until(SOON, "the process that saves it reads", |lab| !readers(lab).is_empty());
    child
}

/// The processes that save something into the repository of this laboratory.
fn readers(lab: &Lab) -> Vec<i32> {
    let repo = lab.path().join("repo").display().to_string();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("nbd+unix:") && line.contains(&repo)
    };
    pids.filter(ours).collect()
}

/// The files that say how far a backup came.
fn attempts(folder: &Path) -> Vec<PathBuf> {
    let below = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = below.flat_map(|path| if path.is_dir() { attempts(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|word| word == "attempt")).collect()
}

/// The nodes of a backup that its QEMU has.
pub fn nodes(lab: &Lab) -> Vec<String> {
    let mut qmp = BufReader::new(UnixStream::connect(lab.vm("orders")["qmp"].as_str().unwrap()).unwrap());
    qmp.get_mut()
        .write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-named-block-nodes\"}")
        .unwrap();
    loop {
        let mut line = String::new();
        qmp.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        if let Some(all) = said["return"].as_array() {
            let names = all.iter().map(|node| node["node-name"].as_str().unwrap().to_owned());
            return names.filter(|name| name.starts_with("holdfast")).collect();
        }
    }
}

/// A point, restored and booted: every row that was acknowledged before it is there, and something that came after is not.
pub fn is_in(lab: &Lab, point: &Value, before: &[i64], later: &[i64]) {
    let mut other = Lab::new("");
    std::fs::remove_file(other.disk("orders")).unwrap();
    let out = other.disk("orders");
    plain(lab, &["restore", "--point", point["id"].as_str().unwrap(), "--out", out.to_str().unwrap()]);
    other.start();
    other.wait_well(BOOT);
    assert_of_point(&other, before, later);
    let hurt = ask(
        &address(&other),
        "select count(*) from pg_class where pg_relation_size(oid) is null and relkind = 'r'",
    );
    assert_eq!(hurt, Some(vec!["0".to_owned()]));
    println!("{}: {} acknowledged before it", point["id"], before.len());
}

#[test]
fn a_database_is_backed_up_while_it_is_written_to_and_each_point_has_what_was_acknowledged() {
    let lab = backed::lab(TO_MAIN);
    let rows = Rows::start(&lab);
    let mut points = Vec::new();
    for _ in 0..3 {
        rows.wait_for_more(&lab);
        let (point, before) = create_while(&lab, &rows);
        points.push((point, before));
    }
    let bytes = |point: &Value, what: &str| point[what].as_u64().unwrap();
    let (full, second) = (&points[0].0, &points[1].0);
    let read = bytes(full, "read");
    assert!((32 << 20..1 << 30).contains(&read) && full["why_all"].is_null(), "holes are left out: {full}");
    assert!(bytes(second, "read") < bytes(full, "read") / 4, "only what changed is read: {second}");
    assert!(bytes(second, "added") < bytes(full, "added") / 4, "{second}");

    // QEMU is killed: what it wrote since the last point is not known, and still only the change is stored.
    signal(lab.pid("orders"), "KILL");
    rows.wait_for_more(&lab);
    lab.wait_well(BOOT);
    rows.wait_for_more(&lab);
    let (after_kill, before) = create_while(&lab, &rows);
    assert!(bytes(&after_kill, "read") > bytes(full, "read") / 2, "all is read: {after_kill}");
    assert!(bytes(&after_kill, "added") < bytes(full, "added") / 2, "{after_kill}");
    assert!(after_kill["why_all"].as_str().unwrap().contains("since the last point"), "{after_kill}");
    points.push((after_kill, before));
    rows.wait_for_more(&lab);
    let all = rows.stop();
    assert_eq!(nodes(&lab), Vec::<String>::new());
    let verified = plain(&lab, &["verify", "--all"]);
    assert!(verified.ends_with("4 of 4 points are whole\n"), "{verified}");
    for (point, before) in &points {
        is_in(&lab, point, before, &all);
    }
    let busy: Vec<String> = lab.remedies();
    assert_eq!(busy.len(), 1, "one recovery, from the kill: {busy:?}\n{}", lab.story());
}

#[test]
fn a_daemon_killed_in_a_backup_leaves_vm_and_bitmaps_right_and_a_person_may_cancel() {
    let mut lab = backed::lab(TO_MAIN); // R02
    let rows = Rows::start(&lab);
    let start = lab.incarnation("orders");
    create(&lab);
    // After an orderly stop everything has to be read again, so that there is time to be killed in.
    std::fs::remove_dir_all(lab.path().join("repo")).unwrap();
    plain(&lab, &["init"]);

    let mut waiting = begun(&lab, &[]);
    lab.kill_daemon();
    waiting.wait().unwrap();
    rows.wait_for_more_without_daemon();
    lab.start();
    lab.until(SOON, "what was left is taken down", |lab| nodes(lab).is_empty());
    lab.until(SOON, "the process that saved it has ended", |lab| readers(lab).is_empty());
    rows.wait_for_more(&lab);

    let waiting = begun(&lab, &[]);
    let busy = lab.cli(&["backup", "create", "orders"]);
    assert!(String::from_utf8_lossy(&busy.stderr).contains("one runs already"), "{busy:?}");
    let shown = String::from_utf8(lab.cli(&["vm", "show", "orders"]).stdout).unwrap();
    assert!(shown.contains("`holdfast backup cancel orders` ends it"), "{shown}");
    let cancelled = lab.cli(&["backup", "cancel", "orders"]);
    assert!(cancelled.status.success(), "{cancelled:?}");
    let ended = waiting.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(
        ended.status.code() == Some(1) && said.contains("cancelled, no restore point was made"),
        "{said}"
    );
    assert!(readers(&lab).is_empty() && nodes(&lab).is_empty());
    let over = lab.cli(&["backup", "cancel", "orders"]);
    assert!(String::from_utf8_lossy(&over.stderr).contains("the last one was cancelled, and none runs now"));
    assert_eq!(plain(&lab, &["list"]), "no restore points\n");

    let waiting = begun(&lab, &[]);
    lab.stop();
    assert!(!waiting.wait_with_output().unwrap().status.success());
    assert!(readers(&lab).is_empty());
    lab.start();
    assert_eq!((nodes(&lab), lab.incarnation("orders")), (Vec::new(), start));
    let before = rows.so_far();
    let first = create(&lab);
    rows.wait_for_more(&lab);
    let later = rows.so_far();
    let second = create(&lab);
    assert!(second["read"].as_u64().unwrap() < first["read"].as_u64().unwrap() / 4, "{second}");
    rows.wait_for_more(&lab);
    let all = rows.stop();
    is_in(&lab, &first, &before, &all);
    is_in(&lab, &second, &later, &all);
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}

#[test]
fn a_daemon_killed_at_any_moment_of_backups_forgets_no_write() {
    let mut lab = backed::lab(TO_MAIN); // R02
    let kills = std::env::var("HOLDFAST_R02").map_or(4, |text| text.parse().unwrap());
    let rows = Rows::start(&lab);
    let start = lab.incarnation("orders");
    // In the first one, once it has come somewhere: the next goes on there.
    let mut waiting = begun(&lab, &["--limit", "10MiB/s"]);
    lab.until(SOON * 2, "it is kept how far it is", |lab| !attempts(&lab.state().join("cache")).is_empty());
    lab.kill_daemon();
    waiting.wait().unwrap();
    rows.wait_for_more_without_daemon();
    lab.start();
    lab.until(SOON, "what was left is taken down", |lab| nodes(lab).is_empty() && readers(lab).is_empty());
    let before_first = rows.so_far();
    let first = create(&lab);
    let (resumed, read) = (first["resumed"].as_u64().unwrap(), first["read"].as_u64().unwrap());
    assert!(resumed > 0 && attempts(&lab.state().join("cache")).is_empty(), "{first}");
    println!("{resumed} bytes of the disk were known, {read} were read");
    for kill in 0..kills {
        let mut command = holdfast();
        command.arg("--state").arg(lab.state()).args(["backup", "create", "orders"]);
        let mut waiting = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300 + kill * 1_337 % 5_000));
        lab.kill_daemon();
        waiting.wait().unwrap();
        if !lab.state().join("run/orders/frozen").exists() {
            rows.wait_for_more_without_daemon();
        } // else it is frozen in this very moment, and the next daemon thaws it (I16)
        lab.start();
        rows.wait_for_more(&lab);
    }
    lab.until(SOON, "what was left is taken down", |lab| nodes(lab).is_empty() && readers(lab).is_empty());
    assert_eq!(lab.incarnation("orders"), start);
    let before = rows.so_far();
    let last = create(&lab);
    assert!(last["why_all"].is_null(), "it is known what changed: {last}");
    rows.wait_for_more(&lab);
    let all = rows.stop();
    let verified = plain(&lab, &["verify", "--all"]);
    let points: Value = serde_json::from_str(&plain(&lab, &["list", "--json"])).unwrap();
    let count = points.as_array().unwrap().len();
    assert!(verified.ends_with(&format!("{count} of {count} points are whole\n")), "{verified}");
    is_in(&lab, &first, &before_first, &all);
    is_in(&lab, &last, &before, &all);
}

#[test]
fn a_point_is_made_by_itself_when_the_newest_is_too_old() {
    let lab = lab_with("every = \"1h\"\n");
    let points =
        |lab: &Lab| -> Vec<Value> { serde_json::from_str(&plain(lab, &["list", "--json"])).unwrap() };
    lab.until(4 * BOOT, "a first point is made by itself", |lab| points(lab).len() == 1);
    lab.until(BOOT, "its disk is let go", |lab| nodes(lab).is_empty());
    assert!(lab.cli(&["snapshot", "create", "orders"]).status.success());
    let known = lab.json(&["points", "orders"]);
    let told = |point: &Value| ["id", "kind", "grade"].map(|field| point[field].as_str().unwrap().to_owned());
    let all: Vec<[String; 3]> = known.as_array().unwrap().iter().map(told).collect();
    let expected = [["orders/1", "backup", "consistent"], ["snapshot/1", "snapshot", "consistent"]];
    assert_eq!(all, expected.map(|point| point.map(str::to_owned)), "{known}");
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}

#[test]
fn a_scheduled_backup_prunes_what_need_not_be_kept_and_a_repository_that_cannot_be_opened_is_told() {
    let mut lab = lab_with("keep = { last = 1 }\n");
    let (first, second) = (create(&lab), create(&lab));
    let config = std::fs::read_to_string(lab.config()).unwrap();
    let scheduled = "every = \"1m\"\nstale_after = \"65s\"\nkeep = {";
    std::fs::write(lab.config(), config.replace("keep = {", scheduled)).unwrap();
    assert!(lab.cli(&["reload"]).status.success(), "{}", lab.story());
    let there = |lab: &Lab| -> Vec<String> {
        let points: Vec<Value> = serde_json::from_str(&plain(lab, &["list", "--json"])).unwrap();
        points.iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    };
    let id = |point: &Value| point["id"].as_str().unwrap().to_owned();
    let older = [id(&first), id(&second)];
    lab.until(2 * BOOT, "the older ones are pruned", |lab| !there(lab).iter().any(|id| older.contains(id)));
    let left = there(&lab);
    let points: Vec<Value> = serde_json::from_str(&plain(&lab, &["list", "--json"])).unwrap();
    assert!(
        points.iter().any(|point| point["verified"].is_f64()),
        "one that stays was read back: {points:?}"
    );
    let log = |lab: &Lab| std::fs::read_to_string(lab.path().join("daemon.log")).unwrap();
    let told = "restore points that need not be kept were removed";
    lab.until(SOON, "it is told once all of it is done", |lab| log(lab).contains(told));

    // One that writes just now would make the folder of a repository anew, so it is the key that goes.
    let (key, away) = (lab.path().join("key"), lab.path().join("away"));
    std::fs::rename(&key, &away).unwrap();
    let stale = |lab: &Lab| {
        let open =
            |incident: &Value| incident["fault"] == "RestorePointsStale" && incident["closed"].is_null();
        lab.incidents().into_iter().find(open)
    };
    lab.until(2 * BOOT, "a person is told", |lab| stale(lab).is_some());
    let told = |lab: &Lab| {
        let id = stale(lab).map(|incident| incident["id"].to_string()).unwrap_or_default();
        String::from_utf8_lossy(&lab.cli(&["explain", &id]).stdout).into_owned()
    };
    lab.until(2 * BOOT, "why is told", |lab| told(lab).contains("the last try"));
    assert!(told(&lab).contains("the newest backup is"), "{}", told(&lab));
    std::fs::rename(&away, &key).unwrap();
    lab.until(2 * BOOT, "one is made again", |lab| there(lab).len() > left.len());
    lab.until(BOOT, "that is over", |lab| stale(lab).is_none());
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
    lab.stop();
}

/// What the process that saves something was told with this word.
fn told_with(lab: &Lab, what: &str) -> Option<String> {
    let line = std::fs::read(format!("/proc/{}/cmdline", readers(lab).last()?)).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word)).collect();
    let at = words.iter().position(|word| word == what)?;
    Some(words.get(at + 1)?.to_string())
}

#[test]
fn a_backup_is_no_faster_than_its_limit_a_reload_changes_that_and_a_person_may_want_another() {
    let lab = lab_with("limit = \"4MiB\"\n");
    let made = create(&lab);
    let (read, took) = (made["read"].as_u64().unwrap(), made["seconds"].as_f64().unwrap());
    assert_eq!(made["limit"], 4 << 20, "{made}");
    // The first MiB is asked for at once.
    let least = (read - (1 << 20)) as f64 / f64::from(4 << 20);
    assert!(took >= least && least > 7.0, "{took} s for {read} bytes, and not {least} s: {made}");

    let config = std::fs::read_to_string(lab.config()).unwrap();
    std::fs::write(lab.config(), config.replace("\"4MiB\"", "\"64KiB\"\niops = 50")).unwrap();
    let changed = lab.json(&["reload"])["changed"][0]["at_once"].clone();
    assert_eq!(changed, json!(["protect.backup"]));
    // Everything is read again, which would take an hour.
    std::fs::remove_dir_all(lab.path().join("repo")).unwrap();
    plain(&lab, &["init"]);
    let waiting = begun(&lab, &[]);
    assert_eq!(told_with(&lab, "--limit").as_deref(), Some("64KiB/s"));
    assert_eq!(told_with(&lab, "--iops").as_deref(), Some("50"));
    signal(i32::try_from(waiting.id()).unwrap(), "INT");
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(1));

    let slow = lab.cli(&["backup", "create", "orders", "--limit", "1KiB/s"]);
    let said = String::from_utf8_lossy(&slow.stderr).into_owned();
    assert!(slow.status.code() == Some(2) && said.contains("from 64KiB/s to 1TiB/s"), "{said}");
    let made = lab.json(&["backup", "create", "orders", "--limit", "1GiB/s", "--iops", "9000"])[0].clone();
    assert_eq!((&made["state"], &made["limit"]), (&"done".into(), &(1 << 30).into()), "{made}");
    assert_eq!(made["iops"], 9_000, "{made}");
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}
