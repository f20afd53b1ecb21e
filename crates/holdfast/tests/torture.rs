//! Repositories and processes that are killed, hurt, filled and locked out at random: no listed point is ever lost or torn (I13-I15;
//! R02-R04, R26-R28). The seed is printed; `HOLDFAST_TORTURE=SEED` takes another.

#![expect(clippy::unwrap_used, reason = "tests")]

mod place;

use holdfast_fuzz::Chance;
use place::Place;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KIB: usize = 1 << 10;

/// A place with images and a repository that much is done to.
struct Tortured {
    place: Place,
    repo: PathBuf,
    images: BTreeMap<&'static str, Vec<u8>>,
    /// What each point must be.
    expected: BTreeMap<String, Vec<u8>>,
    chance: Chance,
}

/// From the environment, or this.
fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |asked| asked.parse().unwrap())
}

impl Deref for Tortured {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Tortured {
    fn new(repo: Option<&Path>) -> Self {
        let seed = asked("HOLDFAST_TORTURE", 4);
        println!("HOLDFAST_TORTURE={seed}");
        let place = repo.map_or_else(Place::empty, Place::of);
        let repo = repo.map_or_else(|| place.path("repo"), Path::to_owned);
        let (images, expected) = Default::default();
        let mut place = Self { place, repo, images, expected, chance: Chance::new(seed) };
        for vm in ["orders", "billing"] {
            place.images.insert(vm, vec![0; 1_500 * KIB]);
            (0..6).for_each(|_| place.change(vm));
        }
        place.well(&["init"]);
        place
    }

    /// Writes noise, text, zeros or a few bytes somewhere into an image.
    fn change(&mut self, vm: &'static str) {
        let path = self.path(&format!("{vm}.img"));
        let (chance, image) = (&mut self.chance, self.images.get_mut(vm).unwrap());
        let length = if chance.once_in(2) { chance.below(9_000) } else { chance.below(400 * KIB) };
        let from = chance.below(image.len() - length);
        let kind = chance.below(3);
        for (at, byte) in image[from..from + length].iter_mut().enumerate() {
            *byte = match kind {
                0 => chance.draw() as u8,
                1 => b"a row of orders "[at % 16],
                _ => 0,
            };
        }
        fs::write(path, &*image).unwrap();
    }

    fn ids(&self) -> Vec<String> {
        let list = self.json(&["list"]);
        list.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Takes up the points that came since, whether or not their makers could say so.
    fn take_up(&mut self) {
        for id in self.ids() {
            let vm = id.split('/').next().unwrap();
            let image = self.images[vm].clone();
            self.expected.entry(id).or_insert(image);
        }
    }

    /// What a point is restored as; nothing if that is refused, which names what is hurt.
    fn restored(&self, id: &str) -> Result<Vec<u8>, String> {
        let output = self.run(&["restore", "--point", id, "--out", "out.img"]);
        if !output.status.success() {
            assert!(!self.path("out.img").exists(), "{id}: refused, and yet there");
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let bytes = fs::read(self.path("out.img")).unwrap();
        fs::remove_file(self.path("out.img")).unwrap();
        Ok(bytes)
    }

    /// Every listed point is restored byte for byte.
    fn every_point_is_whole(&self, what: &str) -> usize {
        let ids = self.ids();
        for id in &ids {
            let bytes = self.restored(id).unwrap_or_else(|why| panic!("{what}: {id} is lost: {why}"));
            assert!(self.expected[id] == bytes, "{what}: {id} is torn");
        }
        ids.len()
    }
}

/// Kills it at a random moment of what it usually takes. Whether it had ended by itself.
fn kill(mut child: Child, usual: Duration, chance: &mut Chance) -> bool {
    std::thread::sleep(usual.mul_f64(chance.below(1_000) as f64 / 900.0)); // the moment is what is tried
    let _ = child.kill();
    child.wait().unwrap().success()
}

/// `HOLDFAST_R04=200` kills so often.
#[test]
fn killed_at_any_moment_nobody_loses_or_tears_a_point_r02_r03_r04() {
    let kills = asked("HOLDFAST_R04", 10);
    let mut place = Tortured::new(None);
    for vm in ["orders", "billing"] {
        place.well(&["image", &format!("{vm}.img")]);
    }
    place.take_up();
    let words: [&[&str]; 5] = [
        &["image", "orders.img"],
        &["image", "billing.img"],
        &["prune", "--keep-last", "2", "--grace", "0s", "--rewrite-below", "80"],
        &["restore", "--of", "orders", "--out", "killed.img"],
        &["verify", "--all"],
    ];
    let mut usual = [Duration::from_millis(300); 5];
    let (mut killed, mut ended, mut pruned) = (0, 0, 0);
    while killed < kills {
        let vm = if place.chance.once_in(2) { "orders" } else { "billing" };
        place.change(vm);
        // One, or two at once, of which the second is left alone.
        let (first, second) = (place.chance.below(words.len()), place.chance.below(3 * words.len()));
        let spawn =
            |at: usize| place.command(words[at]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (child, other) = (spawn(first), (second < words.len() && second != first).then(|| spawn(second)));
        let mut chance = place.chance.clone();
        let is_done = kill(child, usual[first], &mut chance);
        place.chance = chance;
        if let Some(mut other) = other {
            other.wait().unwrap();
        }
        killed += u64::from(!is_done);
        ended += u64::from(is_done);
        if let Ok(bytes) = fs::read(place.path("killed.img")) {
            let newest = place.expected.iter().filter(|(id, _)| id.starts_with("orders/"));
            assert!(
                newest.into_iter().any(|(_, known)| *known == bytes),
                "a restored file is whole, or not there"
            );
            fs::remove_file(place.path("killed.img")).unwrap();
        }
        let before = place.ids().len();
        place.take_up();
        let check = place.json(&["check"]);
        assert_eq!(check["ok"], true, "{:?}: {check}", words[first]);
        place.every_point_is_whole(&format!("{:?}", words[first]));
        if place.chance.once_in(3) {
            let began = Instant::now();
            place.well(words[4]);
            usual[4] = began.elapsed();
            let began = Instant::now();
            place.well(words[2]);
            usual[2] = began.elapsed();
            pruned += before - place.every_point_is_whole("prune");
        }
    }
    place.every_point_is_whole("the end");
    assert_eq!(place.json(&["verify", "--all"])["ok"], true);
    let left: Vec<_> = ["sessions", "marks"].map(|name| files(&place.repo.join(name)).len()).into();
    println!("{killed} killed, {ended} ended before, {pruned} points pruned, left {left:?}");
    place.well(&["prune", "--grace", "0s"]);
    assert!(files(&place.repo.join("sessions")).is_empty(), "the dead are found");
}

/// A command that is killed at a random moment, again and again, and then run to its end.
struct Killed {
    usual: Duration,
    chance: Chance,
}

impl Killed {
    /// Kills it once; `is_true` looks at what there is then. Then it is run again, and has to do all of it.
    fn once(&mut self, mut command: impl FnMut() -> Command, is_true: impl FnOnce(bool)) {
        let child = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        is_true(kill(child, self.usual, &mut self.chance));
        let begun = Instant::now();
        let output = command().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        self.usual = begun.elapsed();
    }
}

/// `HOLDFAST_R04=200` kills each so often.
#[test]
fn killed_at_any_moment_keys_repair_and_what_restores_are_finished_by_the_same_command_i15() {
    let kills = asked("HOLDFAST_R04", 6);
    let mut place = Tortured::new(None);
    place.well(&["image", "orders.img"]);
    place.change("orders");
    let held = place.images["orders"].clone();
    place.well(&["image", "orders.img"]);
    place.expected.insert("orders/2".into(), held);
    let first = place.restored("orders/1").unwrap();
    place.expected.insert("orders/1".into(), first.clone());
    let new = |place: &Tortured| Killed { usual: Duration::from_millis(50), chance: place.chance.clone() };
    let (mut onto, mut export, mut repair, mut key) = (new(&place), new(&place), new(&place), new(&place));
    fs::write(place.path("key-0"), "correct horse battery").unwrap();
    let opens = |number: u64| place.run(&["list", "--key-file", &format!("key-{number}")]).status.success();
    place.well(&["key", "add", "--new-key-file", "key-0"]);
    for round in 0..kills {
        let (target, unfinished) = (place.path("onto.img"), place.path("onto.img.unfinished"));
        fs::write(&target, &place.images["orders"]).unwrap();
        let words = ["restore", "--point", "orders/1", "--onto", "onto.img"];
        onto.once(
            || place.command(&words),
            |_| assert!(unfinished.exists() != target.exists(), "what is half done has another name"),
        );
        assert!(fs::read(&target).unwrap() == first);

        let words = ["export", "--point", "orders/2", "--out"];
        export.once(
            || {
                let left = fs::read(place.path("out.img"));
                assert!(left.is_err() || left.unwrap() == place.images["orders"], "whole, or not there");
                let _ = fs::remove_file(place.path("out.img"));
                place.command(&[&words[..], &["out.img"]].concat())
            },
            |is_done| assert!(!is_done || place.path("out.img").exists()),
        );
        fs::remove_file(place.path("out.img")).unwrap();

        let index = files(&place.repo.join("index")).remove(0);
        fs::write(&index, b"x").unwrap();
        repair.once(|| place.command(&["repair"]), |_| assert_eq!(place.every_point_is_whole("repair"), 2));
        assert_eq!(place.json(&["check"])["ok"], true);

        let [old, new] = [format!("key-{round}"), format!("key-{}", round + 1)];
        let change = ["key", "change", "--key-file", &old, "--new-key-file", &new];
        let child = place.command(&change).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let is_done = kill(child, key.usual, &mut key.chance);
        assert!(opens(round) || opens(round + 1), "one of them always");
        if is_done || !opens(round) {
            assert!(opens(round + 1) && !opens(round));
        } else {
            place.well(&change);
        }
        assert!(opens(round + 1) && !opens(round), "round {round}");
        assert_eq!(place.json(&["key", "list"]).as_array().unwrap().len(), 2, "a secret has one key");
    }
}

/// `HOLDFAST_R04=200` kills so often.
#[test]
fn an_init_that_was_killed_made_a_repository_that_opens_or_is_done_again() {
    let mut place = Tortured::new(None);
    for round in 0..asked("HOLDFAST_R04", 30) {
        let repo = place.path(&format!("made-{round}"));
        let child = place.command_of(&repo, &["init"]).stdout(Stdio::null()).spawn().unwrap();
        let mut chance = place.chance.clone();
        kill(child, Duration::from_millis(25), &mut chance);
        place.chance = chance;
        let run = |words: &[&str]| place.command_of(&repo, words).output().unwrap();
        if !run(&["list"]).status.success() {
            let made = run(&["init"]);
            assert!(made.status.success(), "round {round}: {made:?}");
            assert!(run(&["list"]).status.success(), "round {round}");
            assert_eq!(files(&repo.join("keys")).len(), 2, "round {round}");
        }
    }
}

/// `HOLDFAST_R28=500` flips so many.
#[test]
fn a_flipped_byte_is_found_wherever_it_is_named_and_hurts_no_other_point_r28() {
    let flips = asked("HOLDFAST_R28", 12);
    let mut place = Tortured::new(None);
    for _ in 0..3 {
        for vm in ["orders", "billing"] {
            place.change(vm);
            place.well(&["image", &format!("{vm}.img")]);
            place.take_up();
        }
    }
    place.well(&["verify", "--all"]); // which writes proofs
    let all = files(&place.repo);
    let (mut hurt, mut closed) = (0, 0);
    for round in 0..flips {
        // Half of them by size, half in any file.
        let sizes: Vec<usize> = all.iter().map(|path| path.metadata().unwrap().len() as usize).collect();
        let mut at = place.chance.below(sizes.iter().sum());
        let by_size = sizes
            .iter()
            .position(|size| {
                at < *size || {
                    at -= size;
                    false
                }
            })
            .unwrap();
        let file = if round % 2 == 0 { by_size } else { place.chance.below(all.len()) };
        let at = place.chance.below(sizes[file]);
        let bytes = fs::read(&all[file]).unwrap();
        let changed = bytes[at] ^ (1 << place.chance.below(8));
        let opened = fs::OpenOptions::new().write(true).open(&all[file]).unwrap();
        opened.write_all_at(&[changed], at as u64).unwrap();
        let what = format!("byte {at} of {}", all[file].display());
        let output = place.run(&["verify", "--all", "--no-record", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        if let Ok(found) = serde_json::from_slice::<Value>(&output.stdout) {
            for point in found["points"].as_array().unwrap() {
                let id = point["id"].as_str().unwrap();
                match place.restored(id) {
                    Ok(bytes) => {
                        assert!(point["whole"] == true && place.expected[id] == bytes, "{what}: {id}")
                    }
                    Err(why) => {
                        assert!(point["whole"] == false, "{what}: {why}");
                        let is_named = ["block ", "page ", "points/"].iter().any(|name| why.contains(name));
                        assert!(is_named, "{what}: {why}");
                        hurt += 1;
                    }
                }
            }
        } else {
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("cannot be used") || said.contains("no key"), "{what}: {said}");
            closed += 1;
        }
        opened.write_all_at(&[bytes[at]], at as u64).unwrap();
    }
    println!("{flips} flipped bytes: all found; {hurt} points hurt, {closed} times it did not open");
    place.every_point_is_whole("the end");
}

/// A small file system in memory, gone with this value.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, size: &str) -> Self {
        fs::create_dir(path).unwrap();
        let mount = Self(path.to_owned());
        mount.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "hf"]);
        mount
    }

    fn mount(&self, words: &[&str]) {
        let done = Command::new("mount").args(words).arg(&self.0).status();
        assert!(done.unwrap().success(), "mount needs root");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_or_read_only_repository_loses_nothing_and_goes_on_when_there_is_room_r26_r27() {
    let outside = tempfile::tempdir().unwrap();
    let mount = Mount::new(&outside.path().join("small"), "4m");
    let mut place = Tortured::new(Some(&mount.0.join("repo")));
    place.well(&["image", "orders.img"]);
    place.take_up();
    let mut full = String::new();
    while full.is_empty() {
        place.change("orders");
        let output = place.run(&["image", "orders.img"]);
        if output.status.success() {
            place.take_up();
        } else {
            full = String::from_utf8(output.stderr).unwrap();
        }
    }
    assert!(full.contains("No space left on device") && full.contains("nothing was lost"), "{full}");
    assert!(full.contains("`holdfast backup prune` with what is to be kept"), "{full}");
    let points = place.every_point_is_whole("full");
    place.run(&["prune", "--grace", "0s"]);
    place.every_point_is_whole("collected while it was full");
    mount.mount(&["-o", "remount,size=64m"]);
    place.well(&["image", "orders.img"]);
    place.take_up();
    assert_eq!(place.every_point_is_whole("room"), points + 1);
    assert_eq!(place.json(&["check"])["ok"], true);

    mount.mount(&["-o", "remount,ro"]);
    place.every_point_is_whole("read-only");
    for words in [&["image", "orders.img"][..], &["prune"], &["repair"]] {
        let said = place.refused(words);
        assert!(said.contains("Read-only file system") && said.contains("nothing was lost"), "{said}");
    }
    let verified = place.run(&["verify", "--all"]);
    assert!(verified.status.success(), "{verified:?}");
    assert!(String::from_utf8(verified.stderr).unwrap().contains("what was found is not recorded"));
    mount.mount(&["-o", "remount,rw"]);
    place.well(&["verify", "--all"]);
}

#[test]
fn many_at_once_write_prune_restore_and_verify_and_each_does_its_work() {
    let mut place = Tortured::new(None);
    for vm in ["orders", "billing"] {
        place.well(&["image", &format!("{vm}.img")]);
    }
    place.take_up();
    place.well(&["verify", "--all"]);
    for round in 0..3 {
        place.change("orders");
        place.change("billing");
        let words: [&[&str]; 6] = [
            &["image", "orders.img"],
            &["image", "billing.img"],
            &["image", "orders.img", "--of", "third"],
            &["prune", "--keep-last", "1", "--grace", "0s"],
            &["restore", "--point", "billing/1", "--out", "beside.img"],
            &["verify", "--point", "orders/1"],
        ];
        place.images.insert("third", place.images["orders"].clone());
        let spawn = |words: &&[&str]| {
            place.command(words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<Child> = words.iter().map(spawn).collect();
        for (child, words) in children.into_iter().zip(&words) {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "round {round}, {words:?}: {output:?}");
        }
        fs::remove_file(place.path("beside.img")).unwrap();
        place.take_up();
        place.every_point_is_whole("at once");
    }
    assert_eq!(place.json(&["check"])["ok"], true);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
