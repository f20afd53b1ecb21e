//! `holdfast backup` with a repository in an S3 store: a server of the crates `s3s` and `s3s-fs`, which checks signatures, ranges
//! and preconditions, and keeps its objects in a folder where they can be looked at, hurt, and are still there after it was killed.

#![expect(clippy::unwrap_used, reason = "tests")]

mod place;

use holdfast_bucket::{BUCKET, Habit, KEY, Process, SECRET};
use place::machine::{assert_same, qemu};
use place::{Begun, MIB, Place, noise, until};
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const REPO: &str = "s3://backups/of/atlas";
const BLOCK: usize = 256 << 10;

/// Not a test of anything: the server, in a process of its own.
#[test]
fn bucket() {
    holdfast_bucket::serve_if_asked();
}

/// A place whose repository is in a server, and an image.
struct Far {
    place: Place,
    server: Option<Process>,
    endpoint: String,
}

impl Deref for Far {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Far {
    fn new(habit: Habit) -> Self {
        let mut place = Place::of(REPO);
        fs::create_dir(place.path("data")).unwrap();
        let server = Process::start("bucket", &place.path("data"), 0, habit).unwrap();
        let endpoint = server.endpoint();
        let access =
            [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_ENDPOINT_URL", &endpoint)];
        access.into_iter().for_each(|(name, value)| place.set(name, value));
        fs::write(place.path("disk.img"), noise(7, 3 * MIB)).unwrap();
        Self { place, server: Some(server), endpoint }
    }

    fn with_repository() -> Self {
        let far = Self::new(Habit::Right);
        let said = far.well(&["init"]);
        assert!(said.contains(REPO), "{said}");
        far
    }

    /// Where the server keeps what is in the repository.
    fn kept(&self, name: &str) -> PathBuf {
        self.path("data").join(BUCKET).join("of/atlas").join(name)
    }

    fn begun(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn points(&self) -> Vec<String> {
        let list = self.json(&["list"]);
        list.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    }

    fn kill_server(&mut self) -> u16 {
        self.server.take().unwrap().kill()
    }

    fn start_server(&mut self, port: u16) {
        self.server = Some(Process::start("bucket", &self.path("data"), port, Habit::Right).unwrap());
    }
}

/// What is said of something that is refused.
fn refused(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("error:") && said.contains("cause:") && said.contains("hint:"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    said
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let inside = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| inside(entry.unwrap().path())).collect()
}

#[test]
fn a_repository_in_a_store_has_a_whole_life() {
    let place = Far::with_repository();
    let first = fs::read(place.path("disk.img")).unwrap();
    assert_eq!(place.json(&["image", "disk.img"])["id"], "disk/1");
    let mut second = first.clone();
    second[MIB..MIB + 8_192].fill(1);
    fs::write(place.path("disk.img"), &second).unwrap();
    let saved = place.json(&["image", "disk.img"]);
    assert!(saved["added"].as_u64().unwrap() < 65_536, "only the change is stored: {saved}");
    assert_eq!(place.points(), ["disk/1", "disk/2"]);
    assert!(place.restored("1") == first && place.restored("latest") == second);
    assert!(place.well(&["verify", "--all"]).ends_with("2 of 2 points are whole\n"));
    assert_eq!(place.json(&["check"])["ok"], true);
    assert_eq!(place.json(&["du"])["v"], 1);
    place.well(&["key", "add", "--new-key-file", "other.key"]);
    place.well(&["list", "--key-file", "other.key"]);

    fs::write(place.path("disk.img"), noise(8, MIB)).unwrap();
    place.well(&["image", "disk.img"]);
    place.well(&["verify", "--all"]);
    let before = files(&place.kept("packs")).len();
    place.well(&["prune", "--keep-last", "1"]);
    place.well(&["prune", "--keep-last", "1", "--grace", "0s"]);
    place.well(&["prune", "--keep-last", "1", "--grace", "0s"]);
    assert_eq!(place.points(), ["disk/3"]);
    assert!(files(&place.kept("packs")).len() < before, "what no point needs is gone from the store");
    assert!(place.restored("latest") == noise(8, MIB));
    assert!(place.well(&["repair"]).contains("nothing had to be repaired"), "nothing is hurt");

    let again = refused(place.command(&["init"]));
    assert!(again.contains("there is a repository here already"), "{again}");
    let above = refused(place.command_of("s3://backups/of", &["init"]));
    assert!(above.contains("it is not empty"), "{above}");
    let cat = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["backup", "cat", "--repo", REPO, "--point", "disk/3"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&cat.stderr).contains("reads folders alone"), "{cat:?}");
}

#[test]
fn a_point_in_a_store_is_offered_as_a_disk() {
    let place = Far::with_repository();
    place.well(&["image", "disk.img"]);
    let mut serving = place.begun(&["serve", "--socket", "offered"]);
    until("it is offered", || place.path("offered").exists());
    let url = format!("nbd+unix:///?socket={}", place.path("offered").display());
    let saved = place.json(&["image", &url, "--of", "copy"]);
    assert_eq!(
        (&saved["id"], &saved["added"]),
        (&"copy/1".into(), &0.into()),
        "it is the same disk: {saved}"
    );
    let pid = rustix::process::Pid::from_child(&serving);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(serving.wait().unwrap().success());
}

#[test]
fn several_write_at_once_and_each_has_its_point() {
    let place = Far::with_repository();
    fs::write(place.path("other.img"), noise(9, 2 * MIB)).unwrap();
    let same = |image| ["image", image, "--of", "orders"];
    let writers = [
        place.begun(&same("disk.img")),
        place.begun(&same("other.img")),
        place.begun(&["image", "other.img"]),
    ];
    for writer in writers {
        let output = writer.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    // Two that begin at once may use up a number between them.
    let points = place.points();
    let [one, two, third] = &points[..] else { panic!("{points:?}") };
    assert!(one.starts_with("orders/") && two.starts_with("orders/") && third == "other/1", "{points:?}");
    let (one, two) = (place.restored(one), place.restored(two));
    let (disk, other) = (noise(7, 3 * MIB), noise(9, 2 * MIB));
    assert!((one == disk && two == other) || (one == other && two == disk));
    assert!(place.well(&["verify", "--all"]).ends_with("3 of 3 points are whole\n"));
}

#[test]
fn what_opens_the_store_stands_in_a_file_that_only_its_owner_reads() {
    let place = Far::with_repository();
    let file = place.path("s3.env");
    let lines = format!(
        "AWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY={SECRET}\nAWS_ENDPOINT_URL={}\n",
        place.endpoint
    );
    fs::write(&file, lines).unwrap();
    let list = |mode: u32| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = place.command(&["list", "--s3-file", "s3.env"]);
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"].iter().for_each(|name| {
            command.env_remove(name);
        });
        command
    };
    assert!(list(0o600).output().unwrap().status.success());
    let open = refused(list(0o644));
    assert!(open.contains("is open to others (mode 644)") && open.contains("chmod 600"), "{open}");
}

#[test]
fn what_cannot_be_opened_is_told_and_how_it_could() {
    let place = Far::with_repository();
    let mut wrong = place.command(&["image", "disk.img"]);
    wrong.env("AWS_SECRET_ACCESS_KEY", "x1y2z3-not-it");
    let said = refused(wrong);
    assert!(said.contains("403 SignatureDoesNotMatch") && said.contains(&place.endpoint), "{said}");
    assert!(said.contains("are AWS_ACCESS_KEY_ID, AWS_SECRET") && !said.contains("x1y2z3"), "{said}");

    let said = refused(place.command_of("s3://no-such-bucket/a", &["list"]));
    assert!(said.contains("404 NoSuchBucket") && said.contains("is the name right?"), "{said}");
    let said = refused(place.command_of("s3://backups/elsewhere", &["list"]));
    assert!(said.contains("there is no repository here") && said.contains("backup init"), "{said}");
    let mut unset = place.command(&["list"]);
    unset.env_remove("AWS_ACCESS_KEY_ID");
    let said = refused(unset);
    assert!(said.contains("`AWS_ACCESS_KEY_ID` is not set") && said.contains("--s3-file"), "{said}");
    for (name, why) in [("gs://backups/a", "is no kind of place"), ("s3://UP/a", "is no name of a bucket")] {
        let output = place.command_of(name, &["init"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
        assert!(!place.path(name).exists());
    }
}

#[test]
fn a_store_that_would_replace_objects_is_refused() {
    for habit in [Habit::Replaces, Habit::Refuses] {
        let place = Far::new(habit);
        let said = refused(place.command(&["init"]));
        assert!(said.contains("conditional puts"), "{habit:?}: {said}");
        let left: Vec<_> =
            files(&place.kept("")).into_iter().filter(|path| !path.ends_with("tmp/put-once")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_server_that_is_killed_in_a_backup_costs_that_backup_and_nothing_else() {
    let mut place = Far::with_repository();
    place.well(&["image", "disk.img"]);
    fs::write(place.path("large.img"), noise(10, 48 * MIB)).unwrap();
    let before = files(&place.kept("packs")).len();
    let saving = place.begun(&["image", "large.img", "--limit", "16MiB/s"]);
    until("a pack is in the store", || files(&place.kept("packs")).len() > before);
    let port = place.kill_server();
    let output = saving.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(&place.endpoint) && said.contains("is AWS_ENDPOINT_URL right"), "{said}");

    place.start_server(port);
    assert_eq!(place.points(), ["disk/1"], "no half point");
    assert_eq!(place.json(&["check"])["ok"], true);
    assert!(place.restored("disk/1") == noise(7, 3 * MIB));
    let saved = place.json(&["image", "large.img"]);
    assert_eq!(saved["id"], "large/2", "who may be alive has its number");
    assert!(place.restored("large/2") == noise(10, 48 * MIB));
    let pruned = place.json(&["prune", "--end-sessions"]);
    assert_eq!(pruned["v"], 1, "{pruned}");
}

#[test]
fn an_outage_that_is_short_is_only_waited_for() {
    let mut place = Far::with_repository();
    fs::write(place.path("large.img"), noise(11, 48 * MIB)).unwrap();
    let saving = place.begun(&["image", "large.img", "--limit", "16MiB/s"]);
    until("a pack is in the store", || !files(&place.kept("packs")).is_empty());
    let port = place.kill_server();
    place.start_server(port);
    let output = saving.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(place.restored("large/1") == noise(11, 48 * MIB));
}

#[test]
fn an_object_that_rots_in_the_store_is_named() {
    let place = Far::with_repository();
    place.well(&["image", "disk.img"]);
    let packs = files(&place.kept("packs"));
    let mut bytes = fs::read(&packs[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&packs[0], bytes).unwrap();
    let output = place.run(&["verify", "--all"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let name = packs[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(said.contains(&name) && said.contains("disk/1"), "{said}");
}

/// Reads a block of 256 KiB of a file.
fn block(file: &File, at: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; BLOCK];
    file.read_exact_at(&mut bytes, (at * BLOCK) as u64).map(|()| bytes)
}

#[test]
fn a_mounted_point_waits_for_a_store_that_is_away_and_one_that_stays_away_is_an_error_until_it_is_back() {
    let mut place = Far::with_repository();
    place.well(&["image", "disk.img"]);
    fs::create_dir(place.path("at")).unwrap();
    let mut mount = Begun::ready(&mut place.command(&["mount", "at", "--json"]));
    let file = File::open(place.path("at/disk0.raw")).unwrap();
    let expected = |at: usize| noise(7, 3 * MIB)[at * BLOCK..][..BLOCK].to_vec();
    assert!(block(&file, 0).unwrap() == expected(0));

    let port = place.kill_server();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| block(&file, 4));
        std::thread::sleep(std::time::Duration::from_millis(200)); // so that it waits; if not, all the same
        place.start_server(port);
        assert!(read.join().unwrap().unwrap() == expected(4), "it is only waited for");
    });
    for at in [6, 8] {
        place.kill_server();
        assert_eq!(block(&file, at).unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
        place.start_server(port);
        // Who reads just after that was found is told the same, without that the store is asked.
        until("it is there again", || block(&file, at).is_ok());
        assert!(block(&file, at).unwrap() == expected(at));
    }
    drop(file);
    mount.signal(Signal::TERM);
    assert!(mount.ended().success());
    let said = mount.said();
    assert_eq!(said.matches("cannot be reached").count(), 2, "once each time: {said}");
    assert!(said.contains(&place.endpoint) && said.contains("Nothing was lost"), "{said}");
    assert!(!said.contains("repair") && !said.contains(SECRET), "{said}");
}

#[test]
fn a_disk_becomes_a_point_in_a_store_though_the_store_goes_away_and_the_command_is_killed() {
    let mut place = Far::with_repository();
    place.well(&["image", "disk.img"]);
    let mut first = place.instant(&["--limit", "64KiB/s"]);
    let machine = place.machine();
    let port = place.kill_server();
    let url = format!("nbd+unix:///?socket={}", place.text("disk.qcow2.offered"));
    let read = qemu("qemu-img", &["convert", "-f", "raw", "-O", "raw", &url, &place.text("copy")]);
    assert!(!read.status.success(), "whoever reads is told in time: {read:?}");
    assert!(!first.has_ended() && place.needs_point());
    place.start_server(port);
    first.signal(Signal::KILL);
    first.ended();
    let said = first.said();
    assert!(said.contains("cannot be reached") && !said.contains("repair"), "{said}");

    let slow = place.instant(&["--limit", "64KiB/s"]);
    place.kill_server();
    place.start_server(port);
    drop(slow);
    let mut last = place.instant(&[]);
    place.kill_server();
    place.start_server(port);
    assert!(last.ended().success(), "{}", last.said());
    assert!(!place.needs_point());
    drop(machine);
    assert_same(&place.text("disk.img"), "qcow2", &place.text("disk.qcow2"));
}
