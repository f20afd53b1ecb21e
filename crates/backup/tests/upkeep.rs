//! What keeps a repository well: keys, checks, repair, what it costs, export, and the second reader of the format.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;
mod memory;

use disks::Image;
use holdfast_backup::block::BLOCK;
use holdfast_backup::cat::{Reader, identify};
use holdfast_backup::collect::{self, collect};
use holdfast_backup::export::{Layout, Qcow2};
use holdfast_backup::key::Cost;
use holdfast_backup::point::Point;
use holdfast_backup::proof::{self, Grade, Proof, What};
use holdfast_backup::prune;
use holdfast_backup::repair::{self, repair};
use holdfast_backup::repository::{PointName, Repository, Trouble};
use holdfast_backup::restore::{self, Target};
use holdfast_backup::retain::Keep;
use holdfast_backup::save::{self, Before, Progress};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::slots::{self, SlotError};
use holdfast_backup::store::{Folder, Store as _};
use holdfast_backup::{check, usage, verify};
use memory::{Memory, Steps};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU64;

const CHEAP: Cost = Cost { memory: 8, rounds: 1, lanes: 1 };

struct Into<'a>(&'a File);

impl Target for Into<'_> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(seed) | 1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Noise, text, a hole, and an end that is no whole block.
fn image(seed: u8) -> Image {
    let mut bytes = noise(seed, 3 * BLOCK);
    bytes.extend(b"a row of the table of orders; ".repeat(5_000));
    bytes.resize(bytes.len() + 4 * BLOCK, 0);
    bytes.extend(noise(seed, 9_001));
    Image(bytes)
}

fn store(folder: &Path) -> Box<Folder> {
    Box::new(Folder::open(folder).unwrap())
}

fn open(folder: &Path) -> Repository {
    Repository::open(store(folder), b"secret").unwrap()
}

fn saved(folder: &Path, vm: &str, image: &Image, taken: i64) -> PointName {
    let mut repository = open(folder);
    let session = Session::begin(&mut repository, vm, &Writer::default()).unwrap();
    let last = repository.points().unwrap().into_iter().rfind(|point| point.vm == vm);
    let parent = last.and_then(|name| repository.point(&name).ok()).map(|mut point| point.disks.remove(0));
    let before = Before { parent: parent.as_ref(), ..Before::default() };
    let disk = save::disk(&repository, "disk0", image, before, 1, &Progress::default()).unwrap();
    let point = Point { vm: vm.into(), sequence: 0, taken, disks: vec![disk], note: String::new() };
    session.commit(&repository, point).unwrap()
}

/// A repository of two points of `orders`, the second with a small change, and one of `billing`, which has a part in common.
fn repository() -> (tempfile::TempDir, Vec<(PointName, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    Repository::create(store(folder.path()), b"secret", CHEAP).unwrap();
    let mut first = image(1);
    let one = saved(folder.path(), "orders", &first, 1_000_000);
    let before = first.0.clone();
    first.0[BLOCK + 9_000..BLOCK + 9_100].fill(7);
    let two = saved(folder.path(), "orders", &first, 2_000_000);
    let mut other = image(2);
    other.0[..BLOCK].copy_from_slice(&before[..BLOCK]);
    let three = saved(folder.path(), "billing", &other, 3_000_000);
    (folder, vec![(one, before), (two, first.0), (three, other.0)])
}

fn restored(repository: &Repository, name: &PointName) -> Option<Vec<u8>> {
    let file = tempfile::tempfile().unwrap();
    let disk = repository.point(name).ok()?.disks.remove(0);
    file.set_len(disk.size).unwrap();
    restore::disk(repository, &disk, &Into(&file), 1, &AtomicU64::new(0)).ok()?;
    let mut bytes = vec![0; disk.size as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

fn verified(repository: &Repository) -> verify::Findings {
    verify::all(repository, 1, &AtomicU64::new(0)).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_second_reader_reads_what_the_first_wrote_and_shares_nothing_with_it() {
    let (folder, points) = repository();
    let reader = Reader::open(folder.path(), b"secret").unwrap();
    assert_eq!(identify(folder.path()).unwrap(), open(folder.path()).id().0);
    for (name, bytes) in &points {
        let mut out = Vec::new();
        reader.cat((&name.vm, name.sequence), Some("disk0"), &mut out).unwrap();
        assert!(out == *bytes, "{name:?}");
    }
    assert!(Reader::open(folder.path(), b"secrex").is_err());
    assert!(reader.cat(("orders", 1), Some("disk1"), &mut Vec::new()).is_err());
    assert!(reader.cat(("orders", 9), None, &mut Vec::new()).is_err());
    let own = include_str!("../src/cat.rs");
    assert!(!own.contains("crate::") && !own.contains("super::") && !own.contains("holdfast_"));
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    assert!(own.lines().filter(is_code).count() <= 200);
}

#[test]
fn qcow2_is_read_by_qemu_as_the_disk_that_it_was() {
    let (folder, points) = repository();
    let repository = open(folder.path());
    for (name, bytes) in &points {
        let disk = repository.point(name).unwrap().disks.remove(0);
        let layout = Layout::of(&repository, &disk).unwrap();
        let (path, raw) = (folder.path().join("out.qcow2"), folder.path().join("raw"));
        let file = File::create(&path).unwrap();
        file.set_len(layout.length()).unwrap();
        let image = Into(&file);
        layout.write_tables(&image).unwrap();
        restore::disk(&repository, &disk, &Qcow2::new(&layout, &image), 2, &AtomicU64::new(0)).unwrap();
        fs::write(&raw, bytes).unwrap();
        let qemu = |words: &[&str]| {
            let run = Command::new("qemu-img").args(words).arg(&path).output();
            let output = run.expect("`qemu-img`, of the Debian package qemu-utils, reads the image");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(qemu(&["check", "-f", "qcow2"]).contains("No errors were found"));
        qemu(&["compare", "-f", "raw", "-F", "qcow2", raw.to_str().unwrap()]);
        assert!(file.metadata().unwrap().len() < 20 * BLOCK as u64, "holes are not written");
    }
}

#[test]
fn a_key_is_added_changed_and_removed_and_never_the_last_that_is_known() {
    let (folder, points) = repository();
    let place = store(folder.path());
    let opens = |secret: &[u8]| Repository::open(store(folder.path()), secret).is_ok();
    assert!(slots::add(&*place, b"wrong", b"other", CHEAP).is_err());
    let added = slots::add(&*place, b"secret", b"other", CHEAP).unwrap();
    assert!(opens(b"secret") && opens(b"other") && !opens(b"wrong"));
    let all = slots::list(&*place, b"other").unwrap();
    let own: Vec<&str> = all.iter().filter(|slot| slot.is_own).map(|slot| &slot.name[..]).collect();
    assert_eq!((all.len(), own), (2, vec![&added[..]]));
    assert!(all.iter().all(|slot| slot.cost == Some(CHEAP)));

    let refused = slots::remove(&*place, b"other", &added).unwrap_err();
    assert!(matches!(refused, SlotError::Last(name) if name == added));
    assert!(matches!(slots::remove(&*place, b"other", "keys/none"), Err(SlotError::None(_))));
    assert!(slots::remove(&*place, b"wrong", &added).is_err());
    slots::remove(&*place, b"secret", &added).unwrap();
    assert!(opens(b"secret") && !opens(b"other"));
    slots::change(&*place, b"secret", b"third", CHEAP).unwrap();
    assert!(!opens(b"secret") && opens(b"third"));
    assert_eq!(slots::list(&*place, b"third").unwrap().len(), 1);
    let repository = Repository::open(store(folder.path()), b"third").unwrap();
    assert!(restored(&repository, &points[0].0).unwrap() == points[0].1);
    for number in 1..32 {
        slots::add(&*place, b"third", format!("more {number}").as_bytes(), CHEAP).unwrap();
    }
    assert!(matches!(slots::add(&*place, b"third", b"more", CHEAP), Err(SlotError::TooMany)));
}

#[test]
fn what_a_point_costs_alone_is_what_is_free_without_it() {
    let (folder, _) = repository();
    let du = usage::du(&open(folder.path())).unwrap();
    let [one, two, billing] = [1, 2, 0].map(|at| du.points[at].1);
    assert_eq!(du.points[0].0.vm, "billing");
    assert!(one.stored > 3 * BLOCK as u64 && billing.unique > 2 * BLOCK as u64, "{du:?}");
    assert!(two.stored > one.stored && two.unique < 10_000, "a delta needs its base: {du:?}");
    assert!(billing.stored - billing.unique > BLOCK as u64, "a block that both have: {du:?}");
    assert_eq!(du.vms["billing"], billing);
    assert_eq!(du.vms["orders"].stored, two.stored, "the second needs all that the first does");
    assert!(du.needed <= du.packs && du.needed + 2_000 > du.packs, "{du:?}");
    let repository = open(folder.path());
    repository.store().remove("points/billing/00000000000000000001").unwrap();
    let without = usage::du(&repository).unwrap();
    assert_eq!(du.needed - without.needed, billing.unique);
}

#[test]
fn a_check_sees_what_is_gone_or_cut_and_reads_no_block() {
    let (folder, _) = repository();
    let well = check::check(&open(folder.path())).unwrap();
    assert!(well.wrong.is_empty() && well.hurt.is_empty() && well.whole.len() == 3, "{well:?}");
    let packs = files(&folder.path().join("packs"));
    let largest = packs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let bytes = fs::read(largest).unwrap();
    flip(largest, bytes.len() / 3);
    assert_eq!(check::check(&open(folder.path())).unwrap(), well, "what is in a block is for `verify`");
    fs::write(largest, &bytes[..bytes.len() / 3]).unwrap();
    let cut = check::check(&open(folder.path())).unwrap();
    assert!(cut.wrong.iter().any(|wrong| wrong.contains("is cut")) && !cut.hurt.is_empty(), "{cut:?}");
    fs::remove_file(largest).unwrap();
    let gone = check::check(&open(folder.path())).unwrap();
    assert!(!gone.hurt.is_empty() && gone.packs == well.packs - 1, "{gone:?}");
    fs::write(largest, &bytes).unwrap();
    for name in ["marks", "sessions", "proofs/orders/00000000000000000001"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("00000001"), b"nothing").unwrap();
    }
    let small = check::check(&open(folder.path())).unwrap();
    assert_eq!(small.wrong.len(), 2, "a mark needs a name of its own to count: {small:?}");
}

#[test]
fn a_damaged_index_is_written_anew_and_a_lost_block_is_healed_by_the_next_save() {
    let (folder, points) = repository();
    let (writer, folder) = (Writer::default(), folder.path());
    let mend = |forget_hurt: bool| {
        let mut repository = open(folder);
        let found = verified(&repository);
        let rules =
            repair::Rules { now: 0, writer: &writer, is_over: &|_| false, nobody_writes: false, forget_hurt };
        repair(&mut repository, &found, &rules).unwrap()
    };
    assert_eq!(mend(false), repair::Repaired::default());
    for path in files(&folder.join("index")) {
        flip(&path, 60);
    }
    assert_eq!(mend(false).index.len(), 3);
    assert!(open(folder).damaged().is_empty());
    points.iter().for_each(|(name, bytes)| assert!(restored(&open(folder), name).as_ref() == Some(bytes)));

    let packs = files(&folder.join("packs"));
    let largest = packs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    flip(largest, BLOCK + 5_000);
    let found = verified(&open(folder));
    let done = mend(false);
    assert_eq!(
        (done.lost, done.packs.len()),
        (2, 2),
        "a block, and the delta of it in another pack: {done:?}"
    );
    let repository = open(folder);
    for id in &found.lost {
        let read = repository.block(*id, &mut Vec::new());
        assert!(matches!(read, Err(Trouble::Missing(_))), "it must not hide the one that heals it: {read:?}");
    }
    let lost: Vec<_> =
        points.iter().filter(|(name, bytes)| restored(&repository, name).as_ref() != Some(bytes)).collect();
    assert!(!lost.is_empty() && lost.len() < 3, "one is hurt, others are not");
    assert_eq!(repository.points().unwrap().len(), 3, "a hurt point stays");
    let (name, bytes) = lost[0];
    saved(folder, &name.vm, &Image(bytes.clone()), 4_000_000);
    let repository = open(folder);
    points.iter().for_each(|(name, bytes)| assert!(restored(&repository, name).as_ref() == Some(bytes)));
    let well = verified(&open(folder));
    assert!(well.wrong.is_empty() && well.hurt.is_empty(), "what was set aside is no finding: {well:?}");
    assert_eq!((well.idle.len(), well.packs.len()), (1, 1), "{well:?}");
    assert_eq!(mend(false), repair::Repaired::default());
    let rules =
        collect::Rules { now: 9, grace: 0, worth: 50, writer: &writer, is_over: &|_| false, dry: None };
    assert_eq!(collect(&mut open(folder), &rules).unwrap().removed.count, 2);
    let well = verified(&open(folder));
    assert!(well.wrong.is_empty() && well.hurt.is_empty() && well.idle.is_empty(), "{well:?}");
}

#[test]
fn a_repair_that_is_cut_off_at_any_step_is_finished_by_the_next() {
    let (folder, _) = repository();
    let largest =
        files(&folder.path().join("packs")).into_iter().max_by_key(|path| path.metadata().unwrap().len());
    flip(&largest.unwrap(), 3 * BLOCK / 2);
    flip(&files(&folder.path().join("index"))[0], 50);
    let memory = Memory::default();
    for path in files(folder.path()) {
        let name = path.strip_prefix(folder.path()).unwrap().to_str().unwrap();
        memory.seen_by(None).put(name, &fs::read(&path).unwrap()).unwrap();
    }
    let open = |memory: &Memory| Repository::open(Box::new(memory.seen_by(None)), b"secret").unwrap();
    let repaired = |memory: &Memory, steps: Option<&Steps>| {
        let found = verified(&open(memory));
        let rules = repair::Rules {
            now: 1,
            writer: &Writer::default(),
            is_over: &|_| true,
            nobody_writes: false,
            forget_hurt: false,
        };
        repair(&mut Repository::open(Box::new(memory.seen_by(steps)), b"secret")?, &found, &rules)
    };
    let names =
        |hurt: Vec<(PointName, String)>| hurt.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let (whole, steps) = (memory.copy(), Steps::default());
    repaired(&whole, Some(&steps)).unwrap();
    let hurt = names(check::check(&open(&whole)).unwrap().hurt);
    assert!(!hurt.is_empty() && hurt == names(verified(&open(&memory)).hurt));
    for step in 0..steps.taken() {
        for is_done in [false, true] {
            let memory = memory.copy();
            let _ended = repaired(&memory, Some(&Steps::cut_at(step, is_done)));
            assert_eq!(names(verified(&open(&memory)).hurt), hurt, "step {step}");
            repaired(&memory, None).unwrap();
            let (found, checked) = (verified(&open(&memory)), check::check(&open(&memory)).unwrap());
            assert!(found.lost.is_empty(), "step {step}: {found:?}");
            assert!(
                names(found.hurt) == hurt && names(checked.hurt) == hurt,
                "step {step}: {:?}",
                checked.whole
            );
        }
    }
}

#[test]
fn what_rots_in_a_pack_that_is_to_go_is_a_finding_once_a_point_needs_it_and_not_before() {
    // I12, I13
    let (folder, points) = repository();
    let (writer, folder) = (Writer::default(), folder.path());
    let point = folder.join(points[2].0.object());
    let kept = fs::read(&point).unwrap();
    fs::remove_file(&point).unwrap();
    let before = files(&folder.join("packs"));
    before.iter().for_each(|pack| flip(pack, 12));
    let found = verified(&open(folder));
    assert_eq!((found.wrong.len(), found.idle.len()), (before.len(), 0), "none is to go yet: {found:?}");
    before.iter().for_each(|pack| flip(pack, 12));
    let rules =
        collect::Rules { now: 1, grace: 9, worth: 0, writer: &writer, is_over: &|_| false, dry: None };
    assert_eq!(collect(&mut open(folder), &rules).unwrap().marked.count, 1);
    let marked = open(folder).marks().unwrap().remove(0).packs.remove(0).to_string();
    let pack = before.iter().find(|path| path.ends_with(&marked)).unwrap();
    let sound = fs::read(pack).unwrap();
    let looks = |back: Option<&[u8]>| {
        back.iter().for_each(|bytes| fs::write(&point, bytes).unwrap());
        let (all, structure) = (verified(&open(folder)), check::check(&open(folder)).unwrap());
        ((all.wrong.len(), all.idle.len(), all.hurt.len()), (structure.wrong.len(), structure.idle.len()))
    };
    assert_eq!(looks(None), ((0, 0, 0), (0, 0)));
    flip(pack, 12); // its head: all that is in it can still be read
    assert_eq!(looks(None), ((0, 1, 0), (0, 1)));
    assert_eq!(looks(Some(&kept)), ((1, 0, 0), (1, 0)), "a point that is there again is whole, and reads it");
    fs::write(pack, &sound).unwrap();
    flip(pack, sound.len() - 500);
    assert_eq!(looks(None), ((1, 0, 1), (0, 0)), "a block of the point is lost");
    fs::remove_file(&point).unwrap();
    assert_eq!(looks(None), ((0, 1, 0), (0, 0)), "and nobody needs it");
    flip(&files(&folder.join("index"))[0], 60);
    assert_eq!(looks(None).0.1, 0, "what is needed is not known for sure");
}

#[test]
fn an_object_of_the_index_that_is_gone_loses_no_point() {
    let (folder, points) = repository();
    let (writer, folder) = (Writer::default(), folder.path());
    for gone in [1, usize::MAX] {
        let left = fs::read_dir(folder.join("packs")).unwrap().count();
        files(&folder.join("index")).iter().take(gone).for_each(|path| fs::remove_file(path).unwrap());
        points
            .iter()
            .for_each(|(name, bytes)| assert!(restored(&open(folder), name).as_ref() == Some(bytes)));
        let found = check::check(&open(folder)).unwrap();
        assert!(found.hurt.is_empty() && found.untold.is_empty(), "{found:?}");
        assert!(found.wrong.len() == 1 && found.wrong[0].contains("nothing is lost"), "{found:?}");
        // What needs it is not known to the index: nothing is collected.
        let rules =
            collect::Rules { now: 9, grace: 0, worth: 50, writer: &writer, is_over: &|_| false, dry: None };
        let refused = collect(&mut open(folder), &rules).unwrap_err();
        assert!(matches!(refused, collect::CollectError::Hurt { .. }), "{refused}");

        let mut repository = open(folder);
        let found = verified(&repository);
        let rules = repair::Rules {
            now: 0,
            writer: &writer,
            is_over: &|_| false,
            nobody_writes: false,
            forget_hurt: true,
        };
        let done = repair(&mut repository, &found, &rules).unwrap();
        assert!(done.told > 0 && done.lost == 0 && done.forgotten.is_empty(), "{done:?}");
        let well = verified(&open(folder));
        assert!(well.wrong.is_empty() && well.hurt.is_empty(), "{well:?}");
        assert_eq!(check::check(&open(folder)).unwrap().wrong, Vec::<String>::new());
        assert_eq!(fs::read_dir(folder.join("packs")).unwrap().count(), left);
    }
}

#[test]
fn what_is_not_of_this_repository_is_told_of_and_never_taken_away() {
    let (folder, points) = repository();
    let (other, _) = repository();
    let theirs = files(&other.path().join("packs")).remove(0);
    let name = theirs.file_name().unwrap().to_str().unwrap().to_owned();
    let strangers = [
        (format!("packs/{}/{name}", &name[..2]), fs::read(&theirs).unwrap()),
        (format!("packs/00/00{}", "ab".repeat(15)), b"a photograph".to_vec()),
        // A name that leads to no pack, and one that is a pack's in another place.
        ("packs/readme".into(), b"of somebody".to_vec()),
        (format!("packs/zz/{}", "cd".repeat(16)), b"of somebody".to_vec()),
        ("keys/readme".into(), b"of somebody".to_vec()),
    ];
    for (name, bytes) in &strangers {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let are_there =
        || strangers.iter().all(|(name, bytes)| &fs::read(folder.path().join(name)).unwrap() == bytes);
    let found = check::check(&open(folder.path())).unwrap();
    for (name, _) in &strangers {
        assert!(found.wrong.iter().any(|wrong| wrong.contains(&name[..])), "{name}: {found:?}");
    }
    assert!(found.untold.is_empty() && found.hurt.is_empty(), "{found:?}");
    // One of ours whose head rots is told of by the index, and what is in it is copied.
    let head = files(&folder.path().join("packs"));
    let ours = head.iter().find(|path| check_is_ours(path, folder.path())).unwrap();
    flip(ours, 12);
    let writer = Writer::default();
    for now in 1..4 {
        let mut repository = open(folder.path());
        let found = verified(&repository);
        let rules = repair::Rules {
            now,
            writer: &writer,
            is_over: &|_| true,
            nobody_writes: true,
            forget_hurt: false,
        };
        let done = repair(&mut repository, &found, &rules).unwrap();
        let told: Vec<_> = strangers
            .iter()
            .filter(|(name, _)| done.strange.iter().any(|one| one.contains(&name[..])))
            .collect();
        assert_eq!(told.len(), 3, "two packs, a key: {done:?}");
        assert_eq!((done.packs.len(), done.lost), (usize::from(now == 1), 0), "{done:?}");
        let rules = collect::Rules {
            now: now * 2,
            grace: 0,
            worth: 50,
            writer: &writer,
            is_over: &|_| true,
            dry: None,
        };
        collect(&mut repository, &rules).unwrap();
        assert!(are_there(), "{now}");
    }
    assert!(!ours.exists(), "what was written anew goes");
    for (name, bytes) in &points {
        assert!(restored(&open(folder.path()), name).as_ref() == Some(bytes), "{name:?}");
    }
}

fn check_is_ours(pack: &Path, folder: &Path) -> bool {
    fs::read(pack).unwrap().get(8..24) == Some(&open(folder).id().0[..])
}

#[test]
fn a_hurt_point_goes_only_where_that_is_asked_for() {
    let (folder, _) = repository();
    flip(&folder.path().join("points/orders/00000000000000000001"), 50);
    let writer = Writer::default();
    let mend = |forget_hurt| {
        let mut repository = open(folder.path());
        let found = verified(&repository);
        let rules =
            repair::Rules { now: 0, writer: &writer, is_over: &|_| false, nobody_writes: false, forget_hurt };
        repair(&mut repository, &found, &rules).unwrap().forgotten.len()
    };
    assert_eq!((mend(false), open(folder.path()).points().unwrap().len()), (0, 3));
    assert_eq!((mend(true), open(folder.path()).points().unwrap().len()), (1, 2));
}

#[test]
fn a_point_before_one_with_a_warning_stays_until_the_application_of_a_newer_one_was_seen_to_answer() {
    let (folder, _) = repository();
    (3..6).for_each(|taken| drop(saved(folder.path(), "orders", &image(taken as u8), taken)));
    let repository = open(folder.path());
    let names: Vec<_> = repository.points().unwrap().into_iter().filter(|name| name.vm == "orders").collect();
    let state = |at: usize, what| {
        let proof = Proof { what, when: 5, boot: 0, words: String::new() };
        proof::prove(&repository, &names[at], &proof).unwrap();
    };
    (0..5).for_each(|at| state(at, What::Verified));
    let stays = || -> Vec<u64> {
        let keep = Keep { last: 1, ..Keep::default() };
        let all = prune::Points::of(&repository, Some("orders"), |point| point.sequence == 3)
            .unwrap()
            .decisions(&keep);
        all.into_iter().filter(|one| !one.reasons.is_empty()).map(|one| one.point.sequence).collect()
    };
    assert_eq!((names.len(), stays()), (5, vec![5, 3, 2]));
    state(3, What::Grade(Grade::Booted)); // what is encrypted in it may not be needed for that
    assert_eq!(stays(), [5, 4, 3, 2]);
    state(3, What::Grade(Grade::AppChecked));
    assert_eq!(stays(), [5, 4]);
}

#[test]
fn the_newest_verified_point_of_each_vm_stays_and_a_hurt_one_is_none() {
    // S69, I12
    let (folder, points) = repository();
    let repository = open(folder.path());
    let state = |at: usize, what| {
        let proof = Proof { what, when: 5, boot: 4_200, words: "psql answered".into() };
        proof::prove(&repository, &points[at].0, &proof).unwrap();
    };
    let stays = || -> Vec<String> {
        let keep = Keep { last: 1, ..Keep::default() };
        let all =
            prune::Points::of(&repository, Some("orders"), |_| false).unwrap().decisions(&keep).into_iter();
        let why = |why: Vec<holdfast_backup::retain::Reason>| {
            why.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        all.map(|one| format!("{}: {}", one.point.sequence, why(one.reasons))).collect()
    };
    let worth = || {
        let points = prune::Points::of(&repository, None, |_| false).unwrap();
        let worth = points.worth(&Keep { last: 1, ..Keep::default() }).into_iter();
        worth.map(|one| (one.point.sequence, one.verified)).collect::<Vec<_>>()
    };
    assert_eq!(stays(), ["2: last 1, the newest", "1: none newer is verified"]);
    assert_eq!(worth(), [(2, None)], "the other goes once it was read back");
    state(1, What::Verified);
    assert_eq!(worth(), [], "it goes as it is");
    assert_eq!(stays(), ["2: last 1, the newest, the newest verified", "1: "]);
    state(0, What::Grade(Grade::Booted));
    assert_eq!(stays()[1], "1: the newest of the best proved");
    assert_eq!(proof::grade(&repository, &points[0].0).unwrap(), Grade::Booted);
    state(0, What::Hurt);
    state(1, What::Hurt);
    assert_eq!(stays(), ["2: last 1, the newest", "1: none newer is verified"]);
    assert_eq!(worth(), [], "what was found hurt is not read again for it");
    // A proof of another point that had the number is no proof of this one.
    state(1, What::Verified);
    let object = points[1].0.object();
    fs::copy(folder.path().join(points[0].0.object()), folder.path().join("kept")).unwrap();
    fs::remove_file(folder.path().join(&object)).unwrap();
    saved(folder.path(), "orders", &image(9), 9);
    assert_eq!(proof::proofs(&repository, &points[1].0).unwrap(), []);
}
