//! `holdfast backup` on plain files: what was saved is restored, what is hurt is named, and nothing is replaced.

#![expect(clippy::unwrap_used, reason = "tests")]

use holdfast_backup::point::Point;
use holdfast_backup::repository::Repository;
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::store::Folder;
use serde_json::Value;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MIB: usize = 1 << 20;

/// A folder with an image, in which the program runs as a user of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("disk.img"), image(6 * MIB)).unwrap();
        place
    }

    fn with_repository() -> Self {
        let place = Self::new();
        place.well(&["init"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.env_clear().env("HOME", self.0.path()).env("NO_COLOR", "1").current_dir(self.0.path());
        command.arg("backup").args(words).args(["--repo", "repo"]).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn well(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.well(&[words, &["--json"]].concat())).unwrap()
    }

    /// What is said of something that is refused.
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let mut image = fs::OpenOptions::new().write(true).open(self.path("disk.img")).unwrap();
        image.seek(SeekFrom::Start(offset as u64)).unwrap();
        image.write_all(bytes).unwrap();
    }

    fn restored(&self, point: &str) -> Vec<u8> {
        self.well(&["restore", "--point", point, "--out", "out.img"]);
        let bytes = fs::read(self.path("out.img")).unwrap();
        fs::remove_file(self.path("out.img")).unwrap();
        bytes
    }
}

/// Bytes that cannot be compressed, in every second MiB.
fn image(size: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(|at| if (at / MIB).is_multiple_of(2) { noise() } else { 0 }).collect()
}

#[test]
fn points_are_saved_listed_verified_and_restored_each_alone() {
    let place = Place::with_repository();
    let first = fs::read(place.path("disk.img")).unwrap();
    let saved = place.json(&["image", "disk.img"]);
    assert_eq!((&saved["id"], &saved["size"]), (&"disk/1".into(), &(6 * MIB).into()), "{saved}");
    assert!(saved["added"].as_u64().unwrap() > 3 * MIB as u64, "{saved}");

    place.write(2 * MIB + 8_192, &[1; 4_096]);
    fs::write(place.path("changed"), "# a page of the database\n2105344 4096\n").unwrap();
    let saved = place.json(&["image", "disk.img", "--changed", "changed"]);
    assert_eq!((&saved["id"], &saved["read"]), (&"disk/2".into(), &(64 << 10).into()), "{saved}");
    assert!(saved["added"].as_u64().unwrap() < 8_192, "{saved}");
    let second = fs::read(place.path("disk.img")).unwrap();

    assert_eq!(place.json(&["image", "disk.img"])["added"], 0, "nothing changed since");
    let list = place.json(&["list"]);
    let points: Vec<&str> =
        list.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap()).collect();
    assert_eq!(points, ["disk/1", "disk/2", "disk/3"]);
    assert!(place.restored("disk/1") == first && place.restored("2") == second);
    assert!(place.restored("latest") == second);
    assert!(place.well(&["verify", "--all"]).ends_with("3 of 3 points are whole\n"));
    assert_eq!(place.well(&["verify", "--point", "2"]), "point disk/2 is whole\n");
    let unfinished = fs::read_dir(place.0.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".unfinished"));
    assert_eq!(unfinished.count(), 0);
}

#[test]
fn what_is_there_is_never_replaced_and_what_is_wrong_is_said() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    place.well(&["image", "disk.img", "--of", "billing"]);
    assert!(place.refused(&["init"]).contains("there is a repository here already"));
    assert!(
        place
            .refused(&["restore", "--out", "disk.img", "--of", "disk"])
            .contains("`disk.img` is there already")
    );
    assert!(
        place
            .refused(&["restore", "--out", "new.img"])
            .contains("points of billing, disk: name one with `--of`")
    );
    assert!(
        place.refused(&["restore", "--out", "n", "--point", "disk/7"]).contains("no restore point `disk/7`")
    );
    assert!(place.refused(&["image", "disk.img", "--of", "../x"]).contains("`../x` is no name"));
    assert!(place.refused(&["image", "."]).contains("is no name"));
    assert!(
        place.refused(&["image", "/dev/null", "--of", "x"]).contains("neither a file nor a block device")
    );
    for (line, why) in
        [("1 2 3", "two numbers"), ("0 99999999", "ends behind the image"), ("x", "two numbers")]
    {
        fs::write(place.path("changed"), format!("0 10\n{line}\n")).unwrap();
        let said = place.refused(&["image", "disk.img", "--changed", "changed"]);
        assert!(said.contains("line 2 of `changed`") && said.contains(why), "{said}");
    }
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/mine"), "x").unwrap();
    let mut init = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let output = init.env_clear().env("HOME", place.0.path()).args(["backup", "init", "--repo"]);
    let output = output.arg(place.path("full")).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("is not empty"));
}

#[test]
fn a_lost_or_wrong_key_opens_nothing_and_a_passphrase_does() {
    let place = Place::new();
    fs::write(place.path("pass"), "correct horse battery\n").unwrap();
    place.well(&["init", "--key-file", "pass"]);
    let lost = place.refused(&["list"]);
    assert!(lost.contains("there is no key") && lost.contains("--key-file"), "{lost}");
    fs::write(place.path("wrong"), "correct horse batterx\n").unwrap();
    let wrong = place.refused(&["list", "--key-file", "wrong"]);
    assert!(wrong.contains("does not open the repository"), "{wrong}");
    fs::write(place.path("short"), "x\n").unwrap();
    assert!(place.refused(&["list", "--key-file", "short"]).contains("holds no key"));
    assert_eq!(place.well(&["list", "--key-file", "pass"]), "no restore points\n");
}

#[test]
fn a_hurt_block_is_named_its_point_is_not_restored_and_others_are() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    fs::write(place.path("other.img"), image(MIB / 2).iter().map(|byte| !byte).collect::<Vec<_>>()).unwrap();
    place.well(&["image", "other.img"]);
    let packs = files(&place.path("repo/packs"));
    let largest = packs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(largest, bytes).unwrap();
    let output = place.run(&["verify", "--all"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("damaged: ") && said.contains("point disk/1 cannot be restored whole"), "{said}");
    let refused = place.refused(&["restore", "--of", "disk", "--out", "new.img"]);
    assert!(refused.contains("cannot restore point disk/1") && refused.contains("block "), "{refused}");
    assert!(!place.path("new.img").exists());
    assert!(place.restored("other/1") == fs::read(place.path("other.img")).unwrap());
}

#[test]
fn killed_at_any_moment_a_save_harms_no_point_and_is_taken_up_again() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    let mut expected = vec![fs::read(place.path("disk.img")).unwrap()];
    for round in 0..12_u8 {
        let fresh: Vec<u8> = image(2 * MIB).iter().map(|byte| byte.wrapping_add(round + 1)).collect();
        place.write(usize::from(round % 3) * 2 * MIB, &fresh);
        let mut child = place.command(&["image", "disk.img"]).stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(round) * 7));
        child.kill().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let is_done = child.wait().unwrap().success();
        let points = place.json(&["list"]).as_array().unwrap().len();
        // It may have ended a moment before it could say so.
        assert!(points == expected.len() || points == expected.len() + 1, "round {round}: {said}");
        assert!(!is_done || points == expected.len() + 1);
        if points > expected.len() {
            expected.push(fs::read(place.path("disk.img")).unwrap());
        }
    }
    place.well(&["image", "disk.img"]);
    expected.push(fs::read(place.path("disk.img")).unwrap());
    place.well(&["verify", "--all"]);
    // The number of one who was killed stays empty.
    let list = place.json(&["list"]);
    assert_eq!(list.as_array().unwrap().len(), expected.len());
    for (point, bytes) in list.as_array().unwrap().iter().zip(&expected) {
        assert!(&place.restored(point["id"].as_str().unwrap()) == bytes, "{point}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn what_need_not_be_kept_goes_once_a_newer_point_is_verified_and_the_rest_is_restored() {
    let place = Place::with_repository();
    let mut expected = Vec::new();
    for round in 0..5_u8 {
        let fresh: Vec<u8> = image(2 * MIB).iter().map(|byte| byte.wrapping_add(round * 50)).collect();
        place.write(0, &fresh);
        place.well(&["image", "disk.img"]);
        expected.push(fs::read(place.path("disk.img")).unwrap());
    }
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    };
    let keep = ["prune", "--keep-last", "1", "--grace", "0s"];
    let kept = place.json(&keep);
    assert!(kept["points"].as_array().unwrap().iter().all(|point| point["stays"] == true), "{kept}");
    assert!(place.well(&keep).contains("a point goes only once a newer one is verified"));

    assert_eq!(place.well(&["verify", "--point", "4"]), "point disk/4 is whole\n");
    let list = place.json(&["list"]);
    assert!(
        list[3]["verified"].is_f64() && list[3]["grade"] == "taken" && list[4]["verified"].is_null(),
        "{list}"
    );
    let dry = place.json(&[&keep[..], &["--dry-run"]].concat());
    assert_eq!(
        (dry["points"][4]["stays"].as_bool(), ids(&place.json(&["list"])).len()),
        (Some(false), 5),
        "{dry}"
    );
    let before = size(&place.path("repo/packs"));
    place.well(&keep);
    assert_eq!(ids(&place.json(&["list"])), ["disk/4", "disk/5"], "the last, and the newest verified one");
    let swept = place.json(&keep);
    assert!(swept["removed"]["count"].as_u64().unwrap() >= 2, "{swept}");
    let after = size(&place.path("repo/packs"));
    assert!(after + 2 * MIB as u64 <= before, "{after} of {before}");
    assert!(place.restored("disk/4") == expected[3] && place.restored("disk/5") == expected[4]);
    assert!(place.well(&["verify", "--all"]).ends_with("2 of 2 points are whole\n"));
    assert!(!place.path("repo/proofs/disk/00000000000000000001").join("00000001").exists());
}

#[test]
fn a_repository_is_checked_counted_exported_and_read_by_another_reader() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    let bytes = fs::read(place.path("disk.img")).unwrap();
    assert!(place.well(&["check"]).ends_with("1 of 1 points have all that they need\n"));
    assert_eq!(place.json(&["check"])["ok"], true);
    assert_eq!(place.json(&["repair"])["ok"], true);
    let du = place.json(&["du"]);
    assert_eq!(
        (&du["points"][0]["id"], &du["vms"][0]["size"]),
        (&"disk/1".into(), &(6 * MIB).into()),
        "{du}"
    );
    assert!(place.well(&["du"]).contains("disk/1"));
    assert!(place.run(&["cat", "--point", "disk/1"]).stdout == bytes);
    assert!(place.refused(&["cat", "--point", "disk/7"]).contains("cannot read point disk/7"));
    place.well(&["export", "--format", "raw", "--out", "raw.img"]);
    assert!(fs::read(place.path("raw.img")).unwrap() == bytes);
    place.well(&["export", "--format", "qcow2", "--out", "disk.qcow2"]);
    let mut qemu = Command::new("qemu-img");
    qemu.args(["compare", "-f", "raw", "-F", "qcow2", "disk.img", "disk.qcow2"]).current_dir(place.0.path());
    assert!(qemu.status().expect("`qemu-img`, of the Debian package qemu-utils").success());
    assert!(place.refused(&["export", "--out", "raw.img"]).contains("is there already"));
    assert!(place.refused(&["export", "--out", "n", "--disk", "sdb"]).contains("its disks are: disk0"));
    assert!(place.well(&["verify", "--sample", "100%"]).contains("of 100 % of the packs"));
    assert!(place.json(&["list"])[0]["verified"].is_null(), "a sample proves nothing of a point");
    assert_eq!(place.run(&["verify", "--sample", "0"]).status.code(), Some(2));
}

#[test]
fn keys_are_added_changed_and_removed_and_never_the_last() {
    let place = Place::with_repository();
    fs::write(place.path("pass"), "correct horse battery\n").unwrap();
    place.well(&["key", "add", "--new-key-file", "pass"]);
    assert_eq!(place.well(&["list", "--key-file", "pass"]), "no restore points\n");
    let all = place.json(&["key", "list"]);
    let name = |yours: bool| {
        let all = all.as_array().unwrap().iter();
        all.clone().find(|key| key["yours"] == yours).unwrap()["key"].as_str().unwrap().to_owned()
    };
    let refused = place.refused(&["key", "remove", &name(true)]);
    assert!(refused.contains("without it you could open nothing"), "{refused}");
    assert!(place.refused(&["key", "remove", "x"]).contains("there is no key `keys/x`"));
    place.well(&["key", "change", "--new-key-file", "fresh", "--key-file", "pass"]);
    assert_eq!(fs::read_to_string(place.path("fresh")).unwrap().trim().len(), 64, "a random key was made");
    assert!(place.refused(&["list", "--key-file", "pass"]).contains("does not open the repository"));
    assert_eq!(place.well(&["list", "--key-file", "fresh"]), "no restore points\n");
    place.well(&["key", "remove", &name(true), "--key-file", "fresh"]);
    assert!(place.refused(&["list"]).contains("does not open the repository"));
    assert_eq!(place.json(&["key", "list", "--key-file", "fresh"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_is_hurt_is_repaired_said_and_removed_only_on_request() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    for path in files(&place.path("repo/index")) {
        fs::write(path, b"x").unwrap();
    }
    assert_eq!(place.run(&["check"]).status.code(), Some(1));
    assert!(place.refused(&["prune"]).contains("`holdfast backup repair` writes the index anew"));
    assert!(place.well(&["repair"]).contains("written anew"));
    assert_eq!(place.json(&["check"])["ok"], true);
    let point = place.path("repo/points/disk/00000000000000000001");
    fs::write(&point, b"x").unwrap();
    let said = place.run(&["repair"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8(said.stdout).unwrap().contains("point disk/1 is hurt"));
    assert!(
        place.refused(&["prune", "--clock-is-right"]).contains("nothing is collected while a point is hurt")
    );
    assert!(point.exists());
    assert!(place.well(&["repair", "--forget-hurt"]).contains("point disk/1 was removed"));
    assert_eq!(place.well(&["list"]), "no restore points\n");
}

/// Makes a point of nothing that says that it was taken then, by seconds from now.
fn taken_at(place: &Place, of: &str, seconds: i64) {
    let key = files(&place.path(".config/holdfast/keys")).remove(0);
    let secret = fs::read_to_string(key).unwrap();
    let store = Box::new(Folder::open(&place.path("repo")).unwrap());
    let mut repository = Repository::open(store, secret.trim().as_bytes()).unwrap();
    let session = Session::begin(&mut repository, of, &Writer::default()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let taken = (now + seconds) * 1_000_000;
    let point = Point { vm: of.into(), sequence: 0, taken, disks: Vec::new(), note: String::new() };
    session.commit(&repository, point).unwrap();
}

#[test]
fn a_clock_that_jumped_freezes_pruning() {
    const DAY: i64 = 86_400;
    let place = Place::with_repository();
    for (days, why) in [(-400, "may have jumped"), (2, "went backwards")] {
        taken_at(&place, "disk", days * DAY);
        place.well(&["verify"]);
        let said = place.refused(&["prune", "--keep-last", "1"]);
        assert!(said.contains(why) && said.contains("--clock-is-right"), "{said}");
    }
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 2);
    place.well(&["prune", "--keep-last", "1", "--clock-is-right"]);
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 1);
    assert!(place.refused(&["prune"]).contains("went backwards"));
}

fn size(folder: &Path) -> u64 {
    files(folder).iter().map(|path| path.metadata().unwrap().len()).sum()
}
