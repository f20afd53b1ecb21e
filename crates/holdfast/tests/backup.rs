//! `holdfast backup` on plain files: what was saved is restored, what is hurt is named, and nothing is replaced.

#![expect(clippy::unwrap_used, reason = "tests")]

mod place;

use holdfast_backup::key::Cost;
use holdfast_backup::point::Point;
use holdfast_backup::repository::Repository;
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::slots;
use holdfast_backup::store::Folder;
use place::{MIB, Place, image};
use serde_json::Value;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

impl Place {
    /// One with an image.
    fn new() -> Self {
        let place = Self::empty();
        fs::write(place.path("disk.img"), image(6 * MIB)).unwrap();
        place
    }

    fn with_repository() -> Self {
        let place = Self::new();
        place.well(&["init"]);
        place
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let mut image = fs::OpenOptions::new().write(true).open(self.path("disk.img")).unwrap();
        image.seek(SeekFrom::Start(offset as u64)).unwrap();
        image.write_all(bytes).unwrap();
    }
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
    assert_eq!((&saved["id"], &saved["read"]), (&"disk/2".into(), &4_096.into()), "{saved}");
    assert!(saved["added"].as_u64().unwrap() < 8_192, "{saved}");
    let second = fs::read(place.path("disk.img")).unwrap();

    assert_eq!(place.json(&["image", "disk.img"])["added"], 0, "nothing changed since");
    let list = place.json(&["list"]);
    let points: Vec<&str> =
        list.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap()).collect();
    assert_eq!(points, ["disk/1", "disk/2", "disk/3"]);
    assert_eq!(place.json(&["list", "--of", "disk"]), list);
    assert_eq!(place.json(&["list", "--of", "another"]), serde_json::json!([]));
    assert!(place.restored("disk/1") == first && place.restored("2") == second);
    assert!(place.restored("latest") == second);
    assert!(place.well(&["verify", "--all"]).ends_with("3 of 3 points are whole\n"));
    assert_eq!(place.well(&["verify", "--point", "2"]), "point disk/2 is whole\n");
    let unfinished = fs::read_dir(place.root())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".unfinished"));
    assert_eq!(unfinished.count(), 0);
}

#[test]
fn a_disk_that_ends_within_a_page_is_restored_to_the_byte_and_its_holes_take_no_room() {
    let place = Place::with_repository();
    let mut bytes = image(9 * MIB);
    bytes.extend(image(MIB - 333));
    bytes[4 * MIB..8 * MIB].fill(0);
    fs::write(place.path("disk.img"), &bytes).unwrap();
    place.well(&["image", "disk.img"]);
    place.well(&["restore", "--out", "out.img"]);
    let known = fs::metadata(place.path("out.img")).unwrap();
    assert_eq!(known.len(), bytes.len() as u64);
    assert!(known.blocks() * 512 <= 5 * MIB as u64, "{} bytes are in use", known.blocks() * 512);
    assert!(fs::read(place.path("out.img")).unwrap() == bytes);
}

#[test]
fn hashes_that_are_lost_or_hurt_cost_a_look_and_harm_no_point() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    let kept = place.path(".cache/holdfast/pieces");
    let hashes = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path().join("disk/disk0");
    let all = fs::read(&hashes).unwrap();
    for (round, bytes) in [Some(all.clone()), Some(vec![7; all.len()]), None].into_iter().enumerate() {
        match bytes {
            Some(bytes) => fs::write(&hashes, bytes).unwrap(), // old ones, and wrong ones
            None => fs::remove_dir_all(&kept).unwrap(),
        }
        place.write(2 * MIB + 8_192 * round, &[round as u8 + 1; 4_096]);
        fs::write(place.path("changed"), format!("{} 4096\n", 2 * MIB + 8_192 * round)).unwrap();
        let saved = place.json(&["image", "disk.img", "--changed", "changed"]);
        assert!(saved["added"].as_u64().unwrap() < 8_192, "{saved}");
        assert!(place.restored("latest") == fs::read(place.path("disk.img")).unwrap(), "round {round}");
    }
    fs::remove_dir_all(&kept).unwrap();
    fs::write(place.path(".cache/holdfast/pieces"), "in the way").unwrap();
    let output = place.run(&["image", "disk.img"]);
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the hashes of this disk cannot be kept in"), "{said}");
}

#[test]
fn a_file_becomes_a_point_again_by_writing_only_what_differs() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    let first = fs::read(place.path("disk.img")).unwrap();
    place.write(2 * MIB + 8_192, &[1; 4_096]);
    place.write(5 * MIB, &[2; 100]);
    fs::write(place.path("ranges"), format!("{} 4096\n{} 100\n", 2 * MIB + 8_192, 5 * MIB)).unwrap();
    let second = fs::read(place.path("disk.img")).unwrap();
    place.well(&["image", "disk.img"]);
    // By what its two points say, by what changed since the one that it is to be, and by looking at it.
    let ways: [&[&str]; 3] = [&["--holds", "2"], &["--changed", "ranges"], &[]];
    for way in ways {
        fs::write(place.path("old.img"), &second).unwrap();
        let words = [&["restore", "--onto", "old.img", "--point", "disk/1"], way].concat();
        assert_eq!(place.json(&words)["written"], 2 * 4_096, "{way:?}");
        assert!(fs::read(place.path("old.img")).unwrap() == first, "{way:?}");
    }
    assert_eq!(place.json(&["restore", "--onto", "old.img", "--point", "1"])["written"], 0);
    fs::write(place.path("old.img"), &second[..3 * MIB]).unwrap(); // shorter, too
    place.well(&["restore", "--onto", "old.img", "--point", "1", "--limit", "1GiB/s"]);
    assert!(fs::read(place.path("old.img")).unwrap() == first);
}

#[test]
fn a_restore_onto_a_file_that_ends_in_the_middle_leaves_it_under_another_name_and_is_finished_later() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    let first = fs::read(place.path("disk.img")).unwrap();
    fs::write(place.path("old.img"), vec![3; 6 * MIB]).unwrap();
    let words = ["restore", "--onto", "old.img", "--limit", "1MiB/s"];
    let mut command = place.command(&words);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !place.path("old.img.unfinished").exists() {
        assert!(running.try_wait().unwrap().is_none(), "it takes seconds");
        std::thread::yield_now();
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(!place.path("old.img").exists(), "nobody takes it for whole");
    assert!(fs::read(place.path("old.img.unfinished")).unwrap() != first);
    fs::write(place.path("old.img"), "of somebody").unwrap();
    assert!(place.refused(&["restore", "--onto", "old.img"]).contains("is there, too"));
    fs::remove_file(place.path("old.img")).unwrap();
    // What is believed of a file is not believed of one that was left.
    let output = place.run(&["restore", "--onto", "old.img", "--holds", "1"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("left half-written"));
    assert!(fs::read(place.path("old.img")).unwrap() == first);
    assert!(!place.path("old.img.unfinished").exists());
}

#[test]
fn nothing_is_restored_onto_what_is_in_use_or_no_file_or_by_a_point_that_is_not_there() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    fs::write(place.path("old.img"), "old").unwrap();
    let refused = |words: &[&str]| {
        let said = place.refused(&[&["restore"], words].concat());
        assert_eq!(fs::read(place.path("old.img")).unwrap(), b"old", "{words:?}");
        said
    };
    assert!(
        refused(&["--onto", "old.img", "--holds", "7"]).contains("there is no restore point `7` of disk")
    );
    assert!(refused(&["--onto", "none.img"]).contains("restore onto `none.img`"));
    std::os::unix::fs::symlink("old.img", place.path("link")).unwrap();
    assert!(refused(&["--onto", "link"]).contains("it is no file, or leads to another one"));
    assert!(refused(&["--onto", "."]).contains("it is no file"));
    let file = fs::File::open(place.path("old.img")).unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    assert!(refused(&["--onto", "old.img"]).contains("somebody uses it"));
    drop(file);
    let output = place.run(&["restore", "--onto", "old.img", "--out", "new.img"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_file_that_is_written_to_makes_no_point_whatever_its_time_says_afterwards() {
    let place = Place::with_repository();
    let mut saving = place.command(&["image", "disk.img", "--limit", "2MiB/s"]);
    let saving = saving.stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let file = fs::OpenOptions::new().write(true).open(place.path("disk.img")).unwrap();
    let then = file.metadata().unwrap().modified().unwrap();
    place.write(0, b"FIRST");
    place.write(6 * MIB - 9, b"SECOND");
    file.set_modified(then).unwrap();
    let output = saving.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("was written to while it was read"), "{said}");
    assert_eq!(place.json(&["list"]), Value::Array(Vec::new()));
}

#[test]
fn a_point_of_another_disk_than_was_named_is_refused() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    place.well(&["image", "disk.img", "--of", "billing"]);
    fs::write(place.path("old.img"), "old").unwrap();
    let said = place.refused(&["restore", "--of", "disk", "--point", "billing/1", "--onto", "old.img"]);
    assert!(said.contains("point `billing/1` is none of `disk`"), "{said}");
    assert_eq!(fs::read(place.path("old.img")).unwrap(), b"old");
    place.well(&["verify", "--of", "disk", "--point", "disk/1"]);
}

#[test]
fn a_restore_into_a_new_file_that_is_killed_leaves_nothing() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    let there = || fs::read_dir(place.root()).unwrap().count();
    let before = there();
    let mut restoring = place.command(&["restore", "--out", "new.img", "--limit", "1MiB/s"]);
    let mut restoring = restoring.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(restoring.try_wait().unwrap().is_none(), "it takes seconds");
    restoring.kill().unwrap();
    restoring.wait().unwrap();
    assert_eq!(there(), before);
    assert!(place.restored("1") == fs::read(place.path("disk.img")).unwrap());
}

/// Waits until a restore that is slow has written its first block, and changes that: as a disk does that takes one thing and gives
/// another.
fn changed_meanwhile(restoring: &mut Child, file: &mut dyn FnMut() -> Option<fs::File>) {
    let wanted = image(6 * MIB);
    place::until("the first block is written", || {
        assert!(restoring.try_wait().unwrap().is_none(), "it takes seconds");
        let Some(file) = file() else { return false };
        let mut there = vec![0; 4_096];
        let is_written = file.read_exact_at(&mut there, 0).is_ok() && there == wanted[..4_096];
        if is_written {
            file.write_all_at(&[!wanted[777]], 777).unwrap();
        }
        is_written
    });
}

fn opened(path: &Path) -> Option<fs::File> {
    fs::OpenOptions::new().read(true).write(true).open(path).ok()
}

#[test]
fn a_new_file_that_is_not_what_was_written_gets_no_name_but_that_of_evidence_i15() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    let mut restoring = place.command(&["restore", "--out", "new.img", "--limit", "1500KiB/s"]);
    let mut restoring = restoring.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let open = format!("/proc/{}/fd", restoring.id());
    // The file has no name: it is found among what the command has open.
    let mut find = || {
        let all = fs::read_dir(&open).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let is_it = |path: &PathBuf| {
            fs::read_link(path).is_ok_and(|to| to.starts_with(place.root()))
                && fs::metadata(path).is_ok_and(|known| known.is_file() && known.len() == 6 * MIB as u64)
        };
        opened(&all.into_iter().find(is_it)?)
    };
    changed_meanwhile(&mut restoring, &mut find);
    let output = restoring.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("`new.img`: what is read back from byte 777 on is not what was written"), "{said}");
    assert!(said.contains("`new.img.differs`"), "{said}");
    assert!(!place.path("new.img").exists());
    let (there, wanted) = (fs::read(place.path("new.img.differs")).unwrap(), image(6 * MIB));
    assert!(there[777] == !wanted[777] && there[778..] == wanted[778..]);
    place.well(&["restore", "--out", "new.img"]);
    assert!(fs::read(place.path("new.img")).unwrap() == wanted);
}

#[test]
fn a_file_that_becomes_a_point_and_is_not_what_was_written_does_not_get_its_name_back_i15() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    fs::write(place.path("old.img"), vec![3; 6 * MIB]).unwrap();
    let mut restoring = place.command(&["restore", "--onto", "old.img", "--limit", "4MiB/s"]);
    let mut restoring = restoring.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    changed_meanwhile(&mut restoring, &mut || opened(&place.path("old.img.unfinished")));
    let output = restoring.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    let wrong = "`old.img.unfinished`: what is read back from byte 777 on is not what was written there";
    assert!(said.contains(wrong) && said.contains("no VM starts from it"), "{said}");
    assert!(!place.path("old.img").exists() && place.path("old.img.unfinished").exists());
    place.well(&["restore", "--onto", "old.img"]);
    assert!(fs::read(place.path("old.img")).unwrap() == image(6 * MIB));
}

#[test]
fn nothing_is_written_into_the_repository_that_it_comes_from() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    std::os::unix::fs::symlink("repo", place.path("aside")).unwrap();
    let head = fs::read(place.path("repo/repository")).unwrap();
    for words in [
        ["restore", "--onto", "repo/repository"],
        ["restore", "--out", "repo/new.img"],
        ["restore", "--out", "aside/keys/new.img"],
        ["export", "--out", "./repo/new.qcow2"],
    ] {
        let told = place.refused(&words);
        assert!(told.contains("lies in the repository"), "{words:?}: {told}");
    }
    assert_eq!(fs::read(place.path("repo/repository")).unwrap(), head);
    place.well(&["restore", "--out", "repo.img"]); // beside it
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
    for (point, code) in [("disk/7", 1), ("disk/seven", 2), ("newest", 2)] {
        let said = place.run(&["restore", "--out", "n", "--point", point]);
        assert_eq!(said.status.code(), Some(code), "{point}: none is there, or none can be: {said:?}");
    }
    for words in [&["image", "disk.img", "--of", "../x"][..], &["image", "."]] {
        let said = place.run(words);
        assert_eq!(said.status.code(), Some(2), "{words:?}: {said:?}");
        assert!(String::from_utf8_lossy(&said.stderr).contains("is no name"), "{words:?}: {said:?}");
    }
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
    let output = init.env_clear().env("HOME", place.root()).args(["backup", "init", "--repo"]);
    let output = output.arg(place.path("full")).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("is not empty"));
    // A folder of somebody that is called like one of ours is no rest of a repository.
    fs::create_dir_all(place.path("alien/keys")).unwrap();
    fs::write(place.path("alien/keys/of-somebody"), "x").unwrap();
    let output = place.command_of(place.path("alien"), &["init"]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("is not empty"));
}

#[test]
fn a_lost_or_wrong_key_opens_nothing_and_a_passphrase_does() {
    let place = Place::new();
    // Where the key that is made cannot be kept, nothing is made.
    fs::write(place.path(".config"), "no folder").unwrap();
    let output = place.run(&["init"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty() && said.contains("write the key"), "{said}");
    let absent = place.refused(&["init", "--key-file", "pass"]);
    assert!(absent.contains("write a passphrase into it first; or leave `--key-file`"), "{absent}");
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
fn a_key_may_come_out_of_a_pipe() {
    let place = Place::new();
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    let given = |text: &str, words: &[&str]| {
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| fs::write(place.path("pipe"), text).unwrap());
            let said = place.run(words);
            writer.join().unwrap();
            said.status.code()
        })
    };
    assert_eq!(given("correct horse battery\n", &["init", "--key-file", "pipe"]), Some(0));
    assert_eq!(given("correct horse battery\n", &["list", "--key-file", "pipe"]), Some(0));
    assert_eq!(given("another\n", &["list", "--key-file", "pipe"]), Some(1));
}

#[test]
fn a_new_key_that_opens_nothing_is_not_left_behind() {
    let place = Place::new();
    let made = place.json(&["init"]);
    let key = fs::read_to_string(made["key_file"].as_str().unwrap()).unwrap();
    let store = Folder::open(&place.path("repo")).unwrap();
    let cheap = Cost { memory: 8, rounds: 1, lanes: 1 };
    for number in 1..32 {
        slots::add(&store, key.trim().as_bytes(), format!("another {number}").as_bytes(), cheap).unwrap();
    }
    fs::write(place.path("pass"), "correct horse battery\n").unwrap();
    for what in ["add", "change"] {
        for file in ["new.key", "pass"] {
            let said = place.refused(&["key", what, "--new-key-file", file]);
            assert!(said.contains("no key was changed"), "{said}");
        }
    }
    assert!(!place.path("new.key").exists(), "it was made for this");
    assert!(place.path("pass").exists(), "it was not");
}

#[test]
fn what_can_be_no_name_no_place_and_no_bound_is_wrong_usage() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    for point in ["../1", "/1", "ONE/1", "a\u{1}b/1", "disk/x"] {
        let said = place.run(&["verify", "--point", point]);
        let told = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(2), "{point:?}: {told}");
        assert!(!told.contains('\u{1}'), "{told:?}");
    }
    assert_eq!(place.run(&["verify", "--point", "other/1"]).status.code(), Some(1));
    assert_eq!(place.run(&["image", "nbd://"]).status.code(), Some(2));
    for bound in [["--limit", "63KiB/s"], ["--limit", "0MiB"], ["--iops", "0"], ["--iops", "1000001"]] {
        let said = place.run(&[&["image", "disk.img"][..], &bound].concat());
        let told = String::from_utf8(said.stderr).unwrap();
        assert!(said.status.code() == Some(2) && told.contains(" is from "), "{bound:?}: {told}");
    }
}

#[test]
fn what_is_made_and_who_can_open_it_is_told_to_programs() {
    let place = Place::new();
    let made = place.json(&["init"]);
    let (key, repo) = (made["key_file"].as_str().unwrap(), made["repo"].as_str().unwrap());
    assert!(made["v"] == 1 && Path::new(key).is_file() && repo.ends_with("repo"), "{made}");
    assert!(key.ends_with(&format!("/{}.key", made["repository"].as_str().unwrap())), "{made}");
    let added = place.json(&["key", "add", "--new-key-file", "new.key"]);
    assert_eq!((&added["v"], &added["key_file"]), (&1.into(), &"new.key".into()), "{added}");
    let changed = place.json(&["key", "change", "--new-key-file", "newer.key", "--key-file", "new.key"]);
    assert!(changed["key"] != added["key"] && changed["key_file"] == "newer.key", "{changed}");
    let name = changed["key"].as_str().unwrap();
    assert_eq!(place.json(&["key", "remove", name]), serde_json::json!({ "v": 1, "key": name }));
    assert!(place.refused(&["list", "--key-file", "newer.key"]).contains("does not open the repository"));
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
    qemu.args(["compare", "-f", "raw", "-F", "qcow2", "disk.img", "disk.qcow2"]).current_dir(place.root());
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
fn a_repository_without_its_head_and_half_of_its_keys_opens_and_is_made_whole() {
    let place = Place::with_repository();
    place.well(&["image", "disk.img"]);
    let (head, keys) = (place.path("repo/repository"), files(&place.path("repo/keys")));
    let whole = [fs::read(&head).unwrap(), fs::read(&keys[0]).unwrap()];
    assert_eq!((keys.len(), fs::read(&keys[1]).unwrap()), (2, whole[1].clone()));
    // Gone; and the name of another repository, whose key this user has not.
    let mut other = whole[0].clone();
    other[12] ^= 1;
    for other in [None, Some(&other), Some(&b"x".to_vec())] {
        other.map_or_else(|| fs::remove_file(&head), |other| fs::write(&head, other)).unwrap();
        fs::write(&keys[0], b"x").unwrap();
        let listed = place.run(&["list"]);
        let said = String::from_utf8(listed.stderr).unwrap();
        assert!(
            listed.status.success() && said.contains("`holdfast backup repair` writes it anew"),
            "{said}"
        );
        assert!(place.restored("1") == fs::read(place.path("disk.img")).unwrap());
        assert_eq!(place.json(&["key", "list"])[0]["objects"], "one damaged");
        let output = place.run(&["check"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            !output.status.success() && said.contains("of the key `keys/") && said.contains("`repository`"),
            "{said}"
        );
        assert!(place.refused(&["init"]).contains("`holdfast backup repair"), "no second one is made there");
        assert!(
            place.well(&["repair"]).contains("`repository` was damaged or not there, and was written anew")
        );
        assert_eq!([fs::read(&head).unwrap(), fs::read(&keys[0]).unwrap()], whole);
        assert!(place.well(&["check"]).contains("1 of 1 points"));
    }
    fs::remove_file(&keys[1]).unwrap();
    assert!(place.well(&["check"]).contains("lies there once"));
    fs::write(place.path("repo/keys/readme"), "of somebody").unwrap();
    assert!(place.well(&["repair"]).contains("`keys/readme` is no key, or damaged, and stays"));
    assert_eq!(files(&place.path("repo/keys")).len(), 3);
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

#[test]
fn what_would_be_passed_over_in_silence_is_said() {
    let place = Place::with_repository();
    assert!(place.refused(&["prune", "--of", "disk"]).contains("there are none at all"));
    place.well(&["image", "disk.img"]);
    place.well(&["image", "disk.img", "--of", "billing"]);
    for words in [&["prune", "--of", "dsik"][..], &["prune", "--of", "dsik", "--keep-last", "1", "--dry-run"]]
    {
        let said = place.refused(words);
        assert!(said.contains("no restore point of `dsik`") && said.contains("billing, disk"), "{said}");
    }
    place.well(&["prune", "--of", "disk", "--keep-last", "1"]);
    for (all, one) in
        [("--all", ["--point", "disk/1"]), ("--all", ["--of", "disk"]), ("--sample=9%", ["--of", "disk"])]
    {
        let output = place.run(&[&["verify", all][..], &one].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains("cannot be used with"), "{said}");
    }
    place.well(&["verify", "--all"]);
    fs::write(place.path("changed"), "# nothing\n").unwrap();
    place.write(0, b"changed");
    for words in [&["image", "disk.img"][..], &["restore", "--of", "disk", "--onto", "disk.img"]] {
        let output = place.run(&[words, &["--changed", "changed"]].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains("`changed` names no range"), "{said}");
    }
    assert!(fs::read(place.path("disk.img")).unwrap().starts_with(b"changed"), "it was believed");
    assert!(place.restored("disk/2") == image(6 * MIB));
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
    // S68, I12
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

#[test]
fn a_clock_that_jumped_before_the_newest_backup_freezes_pruning_until_there_is_another() {
    // S68, I12
    const DAY: i64 = 86_400;
    let place = Place::with_repository();
    (0..3).for_each(|days| taken_at(&place, "disk", (days - 400) * DAY));
    taken_at(&place, "disk", 0);
    place.well(&["verify", "--all"]);
    let said = place.refused(&["prune", "--keep-last", "1"]);
    assert!(
        said.contains("may have jumped: a point was taken") && said.contains("--clock-is-right"),
        "{said}"
    );
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 4);
    taken_at(&place, "disk", 0);
    place.well(&["verify", "--all"]);
    place.well(&["prune", "--keep-last", "1"]);
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_is_to_be_read_back_so_that_others_may_go_is_told_and_read_no_faster_than_asked_for() {
    let place = Place::with_repository();
    place.json(&["image", "disk.img"]);
    place.json(&["image", "disk.img"]);
    let pruned = |count: u64| {
        let told = place.json(&["prune", "--keep-last", "1"]);
        let gone = told["points"].as_array().unwrap().iter().filter(|point| point["stays"] == false).count();
        assert_eq!(gone as u64, count, "{told}");
        told["worth"].clone()
    };
    assert_eq!(pruned(0), serde_json::json!([{ "id": "disk/2", "verified": null }]));
    let begun = Instant::now();
    place.well(&["verify", "--point", "disk/2", "--limit", "2MiB/s"]);
    // The first MiB is asked for at once.
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(pruned(1), serde_json::json!([]));
    for bound in [["--limit", "1MiB"], ["--iops", "5"]] {
        assert_eq!(place.run(&["verify", "--all", bound[0], bound[1]]).status.code(), Some(2));
    }
}

#[test]
fn a_disk_is_read_and_written_no_more_often_than_asked_for() {
    let place = Place::with_repository();
    let took = |words: &[&str]| {
        let begun = Instant::now();
        place.well(words);
        begun.elapsed()
    };
    // Eight blocks of data, written as two runs. The first is asked for at once.
    let read = took(&["image", "disk.img", "--iops", "10"]);
    assert!(read >= Duration::from_millis(650), "{read:?}");
    let verified = took(&["verify", "--point", "latest", "--iops", "2"]);
    assert!(verified >= Duration::from_millis(450), "{verified:?}");
    let written = took(&["restore", "--out", "new.img", "--iops", "2"]);
    assert!(written >= Duration::from_millis(450), "{written:?}");
    assert!(fs::read(place.path("new.img")).unwrap() == fs::read(place.path("disk.img")).unwrap());
    for none in ["0", "-1", "many"] {
        assert_eq!(place.run(&["image", "disk.img", "--iops", none]).status.code(), Some(2), "{none}");
    }
}

fn size(folder: &Path) -> u64 {
    files(folder).iter().map(|path| path.metadata().unwrap().len()).sum()
}
