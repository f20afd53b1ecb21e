//! Repositories that are away, locked or full: that costs one backup, which says why, and nothing else.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::backed::{TO_MAIN, make_key, plain};
use crate::backups::nodes;
use crate::lab::{BOOT, Lab};
use crate::rows::{Rows, address, ask};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a database does on a busy day.
const LOAD: &str = r#"su postgres -c "psql -h /run/postgresql -d orders -c \"
create table load as select i, md5(i::text) as what, now() as at from generate_series(1, 100000) i\" -c \"
update load set what = md5(what) where i % 3 = 0\" -c checkpoint -c 'create table loaded (i int)'""#;

/// A file system in memory that holds so many KiB; it is gone with this.
pub struct Mount(PathBuf);

impl Mount {
    /// A folder that something is mounted on later.
    fn empty(place: PathBuf) -> Self {
        fs::create_dir(&place).unwrap();
        Self(place)
    }

    pub fn new(place: &Path, kib: u64) -> Self {
        let mount = Self::empty(place.to_owned());
        mount.run(&["mount", "-t", "tmpfs", "-o", &format!("size={kib}k"), "holdfast-test"]);
        mount
    }

    pub fn resize(&self, kib: u64) {
        self.run(&["mount", "-o", &format!("remount,size={kib}k")]);
    }

    /// KiB in use.
    pub fn used(&self) -> u64 {
        let said = Command::new("df").args(["-k", "--output=used"]).arg(&self.0).output().unwrap();
        String::from_utf8(said.stdout).unwrap().lines().last().unwrap().trim().parse().unwrap()
    }

    fn run(&self, words: &[&str]) {
        let ended = Command::new(words[0]).args(&words[1..]).arg(&self.0).output().unwrap();
        assert!(ended.status.success(), "{words:?}: {ended:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.0).status(); // it may not be mounted now
    }
}

/// A laboratory whose repository is a file system of its own, and what it is mounted on.
fn lab() -> (Lab, Mount) {
    let mut lab =
        Lab::changed(|config| config + TO_MAIN + "[repository.main]\npath = \"repo\"\nkey_file = \"key\"\n");
    let mount = Mount::new(&lab.path().join("repo"), 2 << 20);
    make_key(&lab);
    plain(&lab, &["init"]);
    lab.start_warm(&["orders"]);
    (lab, mount)
}

fn create(lab: &Lab) -> Value {
    let ended = lab.cli(&["backup", "create", "orders", "--json"]);
    let all: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(ended.status.success(), all[0]["state"] == "done", "{ended:?}");
    all[0].clone()
}

fn points(lab: &Lab) -> Vec<Value> {
    serde_json::from_str(&plain(lab, &["list", "--json"])).unwrap()
}

/// A backup fails, for this reason and with this way out, and the VM knows nothing of it.
fn fails(lab: &Lab, rows: &Rows, expected: [&str; 3]) {
    let start = lab.incarnation("orders");
    let doc = create(lab);
    assert_eq!(doc["state"], "failed", "{doc}");
    for (field, expected) in ["error", "cause", "hint"].into_iter().zip(expected) {
        let said = doc[field].as_str().unwrap();
        assert!(said.contains(expected), "{field}: {said}");
    }
    assert_eq!((nodes(lab), lab.incarnation("orders")), (Vec::new(), start), "{doc}");
    rows.wait_for_more(lab);
}

/// The next one is made, of the change alone.
fn goes_on(lab: &Lab, full: &Value) -> Value {
    let made = create(lab);
    assert_eq!((&made["state"], &made["why_all"]), (&"done".into(), &Value::Null), "{made}");
    assert!(made["read"].as_u64().unwrap() < full["read"].as_u64().unwrap() / 4, "{made}");
    assert_eq!(made["warnings"], json!([]), "{made}");
    made
}

#[test]
fn a_repository_that_is_away_locked_or_full_costs_a_backup_and_loses_nothing() {
    let (lab, mount) = lab();
    let rows = Rows::start(&lab);
    let full = create(&lab);
    assert_eq!(full["state"], "done", "{full}");

    // It is not mounted: the folder under it is empty. Then that is not there, either.
    let (repo, away) = (lab.path().join("repo"), Mount::empty(lab.path().join("away")));
    away.run(&["mount", "--bind", repo.to_str().unwrap()]);
    mount.run(&["umount", "-l"]); // somebody may be listing its points
    let unusable = "`/REPO` cannot be used".replace("/REPO", repo.to_str().unwrap());
    fails(&lab, &rows, [&unusable, "there is no repository here", "is that the folder?"]);
    fs::remove_dir(&repo).unwrap();
    fails(&lab, &rows, ["cannot open the repository", "No such file or directory", "is that the folder?"]);
    fs::create_dir(&repo).unwrap();
    mount.run(&["mount", "--bind", away.0.to_str().unwrap()]);
    away.run(&["umount"]);
    goes_on(&lab, &full);

    fs::write(lab.path().join("key"), "another passphrase\n").unwrap();
    fails(&lab, &rows, [&unusable, "this secret does not open the repository", "`--key-file`"]);
    make_key(&lab);
    goes_on(&lab, &full);

    // A database is loaded and changed: that is not suspicious.
    lab.in_guest("orders", LOAD);
    let is_loaded =
        |_: &Lab| ask(&address(&lab), "select to_regclass('loaded')") == Some(vec!["loaded".into()]);
    lab.until(BOOT, "a table is loaded", is_loaded);
    assert_eq!(create(&lab)["warnings"], json!([]));

    // 48 MiB come, and there is room for 24.
    let (before, held) = (points(&lab), mount.used());
    let written = || fs::metadata(lab.disk("orders")).unwrap().len();
    let start = written();
    lab.in_guest("orders", "dd if=/dev/urandom of=/root/archive bs=1M count=48 && sync");
    lab.until(BOOT, "the guest writes 48 MiB", |_| written() - start >= 46 << 20);
    mount.resize(held + (24 << 10));
    fails(&lab, &rows, [&unusable, "No space left on device", "nothing was lost"]);
    assert_eq!(points(&lab), before);
    plain(&lab, &["check"]);
    mount.resize(2 << 20);
    let made = create(&lab);
    assert_eq!((&made["state"], &made["why_all"]), (&"done".into(), &Value::Null), "{made}");
    assert!(made["added"].as_u64().unwrap() < 46 << 20, "what was saved is saved again: {made}");
    assert!(mount.used() - held < 60 << 10, "{} KiB were added", mount.used() - held);
    let all = points(&lab);
    println!("{}", json!(all));
    let verified = plain(&lab, &["verify", "--all"]);
    assert!(verified.ends_with(&format!("{0} of {0} points are whole\n", all.len())), "{verified}");
    rows.wait_for_more(&lab);
    rows.stop();
    assert_eq!(lab.remedies(), Vec::<String>::new(), "{}", lab.story());
}
