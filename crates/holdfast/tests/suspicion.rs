//! A disk that somebody encrypted is saved as any other, and its point says so; what a disk brings otherwise does not.

#![expect(clippy::unwrap_used, reason = "tests")]

mod place;

use place::{MIB, Place, noise};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// A block of the file system.
const BLOCK: usize = 4 << 10;

/// Lines of a log, each of its own.
fn text(seed: usize, length: usize) -> Vec<u8> {
    let line = |at: usize| {
        format!("Nov 27 09:{:02} db1 app[{}]: order {} was paid\n", at % 60, at % 97, at * 31 + seed)
    };
    let mut text: Vec<u8> = (0..length / 40 + 1).flat_map(|at| line(at).into_bytes()).collect();
    text.truncate(length);
    text
}

impl Place {
    /// An ext4 of 128 MiB with 40 MiB of logs and 8 MiB of archives.
    fn new() -> Self {
        let place = Self::empty();
        let files = place.path("files");
        fs::create_dir(&files).unwrap();
        for number in 0..10 {
            fs::write(files.join(format!("{number}.log")), text(number * 1_000_000, 4 * MIB)).unwrap();
        }
        fs::write(files.join("archive.gz"), noise(1, 8 * MIB)).unwrap();
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-t", "ext4", "-b", "4096", "-d"])
            .arg(&files)
            .arg(place.path("disk.img"))
            .arg("128M");
        assert!(make.status().unwrap().success());
        place.well(&["init"]);
        place
    }

    fn save(&self) -> Value {
        self.json(&["image", "disk.img"])
    }

    /// Writes something else into each block of the file system that holds something and is chosen.
    fn overwrite(&self, is_chosen: impl Fn(usize) -> bool, with: impl Fn(usize) -> Vec<u8>) {
        let image = fs::read(self.path("disk.img")).unwrap();
        let file = fs::OpenOptions::new().write(true).open(self.path("disk.img")).unwrap();
        let used = image.chunks(BLOCK).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0));
        for (at, _) in used.filter(|(at, _)| is_chosen(*at)) {
            file.write_all_at(&with(at), (at * BLOCK) as u64).unwrap();
        }
    }
}

fn last(place: &Place, field: &str) -> u64 {
    place.json(&["list"]).as_array().unwrap().last().unwrap()[field].as_u64().unwrap()
}

#[test]
fn an_encrypted_disk_is_told_with_the_last_point_before_it_and_other_changes_are_not() {
    let place = Place::new();
    assert_eq!(place.save()["warning"], Value::Null, "a first point never is");
    let used = last(&place, "used");
    assert!((48..64).contains(&(used >> 20)), "{used}");
    assert!((7..9).contains(&(last(&place, "dense") >> 20)), "the archives");

    // A log is written anew, and some blocks of the archive.
    place.overwrite(|at| at % 3 == 0, |at| text(at * 7_777, BLOCK));
    place.overwrite(|at| at % 97 == 0, |at| noise(at as u64, BLOCK));
    assert_eq!(place.save()["warning"], Value::Null);
    assert!(last(&place, "changed") > used / 4 && last(&place, "dense") < used / 10);
    assert!(last(&place, "packed") < last(&place, "new") / 2);

    place.overwrite(|at| at > 0, |at| noise(!at as u64, BLOCK));
    // All of it is there already, as if an attempt to save it had failed at its end: it is told no less.
    place.json(&["image", "disk.img", "--of", "other"]);
    let told = place.save();
    let warning = told["warning"].as_str().unwrap();
    assert!(warning.contains("as if it were encrypted"), "{warning}");
    assert!(warning.ends_with("the last point before that is disk/2"), "{warning}");
    assert!(last(&place, "dense") > used / 10 * 9);

    // The next one brings nothing of that kind, and the list still shows where it began.
    place.overwrite(|at| at % 50 == 0, |at| text(at, BLOCK));
    assert_eq!(place.save()["warning"], Value::Null);
    let list = place.json(&["list"]);
    let warned: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|point| !point["warning"].is_null())
        .map(|point| point["id"].as_str().unwrap())
        .collect();
    assert_eq!(warned, ["disk/3"]);
    let shown = place.well(&["list"]);
    assert!(shown.contains(&format!("\ndisk/3: {warning}\n")), "{shown}");
    restores(place.root());
    outlives_prunes(&place);
}

/// The last point before the warning stays however many come after it, unless a person says that the warning is wrong.
fn outlives_prunes(place: &Place) {
    let keep = ["prune", "--of", "disk", "--keep-last", "1"];
    let ids = |list: Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    };
    for number in [5, 6] {
        place.save();
        place.well(&["verify", "--all"]);
        let told = place.well(&keep);
        assert!(told.contains("the last before a warning") && told.contains("`--points-are-well`"), "{told}");
        let kept = ["disk/2", "disk/3", &format!("disk/{number}"), "other/1"];
        assert_eq!(ids(place.json(&["list"])), kept);
    }
    assert!(place.well(&["verify", "--all"]).ends_with("4 of 4 points are whole\n"));
    place.well(&[&keep[..], &["--points-are-well"]].concat());
    assert_eq!(ids(place.json(&["list"])), ["disk/6", "other/1"]);
}

/// The last good one is there.
fn restores(folder: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_clear().env("HOME", folder).current_dir(folder);
    command.args(["backup", "restore", "--repo", "repo", "--point", "disk/1", "--out", "good.img"]);
    assert!(command.status().unwrap().success());
    let checked = Command::new("e2fsck").args(["-fn", "good.img"]).current_dir(folder).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}
