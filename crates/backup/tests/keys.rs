//! What opens a repository: no object of it is the only one of its kind, so that one that rots or goes loses nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;
mod memory;

use disks::{Image, Restored};
use holdfast_backup::block::BLOCK;
use holdfast_backup::cat;
use holdfast_backup::check::{self, Findings};
use holdfast_backup::head::Head;
use holdfast_backup::key::{Cost, KeyError, Master};
use holdfast_backup::repair::{self, Repaired, repair};
use holdfast_backup::repository::{PointName, Repository, Trouble};
use holdfast_backup::restore;
use holdfast_backup::save::{self, Before, Progress};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::slots::{self, Pair, SlotError};
use holdfast_backup::store::{Folder, Store};
use holdfast_backup::verify;
use holdfast_backup::{id::RepositoryId, point::Point};
use memory::{Memory, Steps};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

const CHEAP: Cost = Cost { memory: 8, rounds: 1, lanes: 1 };

fn seen(memory: &Memory) -> Box<dyn Store> {
    Box::new(memory.seen_by(None))
}

fn open(memory: &Memory, secret: &[u8]) -> Result<Repository, Trouble> {
    Repository::open(seen(memory), secret)
}

fn opens(memory: &Memory, secret: &[u8]) -> bool {
    open(memory, secret).is_ok()
}

/// A repository with a point.
fn repository() -> (Memory, RepositoryId) {
    let memory = Memory::default();
    let mut repository = Repository::create(seen(&memory), b"secret", CHEAP).unwrap();
    save(&mut repository);
    (memory, repository.id())
}

fn save(repository: &mut Repository) {
    let session = Session::begin(repository, "orders", &Writer::default()).unwrap();
    let disk = save::disk(repository, "disk0", &image(), Before::default(), 1, &Progress::default()).unwrap();
    let point = Point { vm: "orders".into(), sequence: 0, taken: 1, disks: vec![disk], note: String::new() };
    session.commit(repository, point).unwrap();
}

fn image() -> Image {
    Image((0..BLOCK + 99).map(|at| (at % 251) as u8).collect())
}

fn is_restored(memory: &Memory, secret: &[u8]) -> bool {
    let repository = open(memory, secret).unwrap();
    let point = repository.point(&PointName { vm: "orders".into(), sequence: 1 }).unwrap();
    let restored = Restored(Mutex::new(vec![0; image().0.len()]));
    restore::disk(&repository, &point.disks[0], &restored, 1, &AtomicU64::new(0)).unwrap();
    restored.0.into_inner().unwrap() == image().0
}

fn checked(memory: &Memory, secret: &[u8]) -> Findings {
    check::check(&open(memory, secret).unwrap()).unwrap()
}

fn repaired(memory: &Memory, secret: &[u8]) -> Repaired {
    let mut repository = open(memory, secret).unwrap();
    let found = verify::all(&repository, 1, &AtomicU64::new(0)).unwrap();
    let rules = repair::Rules {
        now: 1,
        writer: &Writer::default(),
        is_over: &|_| true,
        nobody_writes: false,
        forget_hurt: false,
    };
    repair(&mut repository, &found, &rules).unwrap()
}

#[test]
fn either_object_of_a_key_opens_it_and_the_other_is_told_of_and_written_anew() {
    let (memory, id) = repository();
    let own = format!("keys/{id}");
    let other = slots::add(&memory.seen_by(None), b"secret", b"other", CHEAP).unwrap();
    assert_eq!(memory.names("keys").len(), 4);
    let whole = memory.all();
    for name in [own.clone(), format!("{own}.copy")] {
        for how in ["rots", "is cut", "is gone"] {
            match how {
                "rots" => memory.damage(&name),
                "is cut" => replace_one(&memory, &name, &whole[&name][..50]),
                _ => remove_one(&memory, &name),
            }
            assert!(is_restored(&memory, b"secret"), "{name} {how}");
            let found = checked(&memory, b"secret");
            let is_told = if how == "is gone" { &found.alone } else { &found.wrong };
            assert!(is_told.iter().any(|told| told.contains(&own)), "{name} {how}: {found:?}");
            assert_eq!(repaired(&memory, b"secret").renewed, [&name[..]], "{how}");
            assert!(memory.all() == whole, "{name} {how}");
        }
    }
    // Of a key of somebody else only he can tell which of two that look well is right.
    memory.damage(&other);
    let done = repaired(&memory, b"secret");
    assert!(done.renewed.is_empty() && done.strange[0].contains("are not the same"), "{done:?}");
    assert!(opens(&memory, b"other"));
    assert_eq!(repaired(&memory, b"other").renewed, [&other[..]]);
    replace_one(&memory, &format!("{other}.copy"), b"nothing");
    assert_eq!(repaired(&memory, b"secret").renewed, [format!("{other}.copy")]);
    assert!(memory.all() == whole && checked(&memory, b"other").wrong.is_empty());
}

fn remove_one(memory: &Memory, name: &str) {
    seen(memory).remove(name).unwrap();
}

fn replace_one(memory: &Memory, name: &str, bytes: &[u8]) {
    remove_one(memory, name);
    seen(memory).put(name, bytes).unwrap();
}

#[test]
fn a_secret_that_was_removed_or_changed_opens_nothing_any_more_whatever_copies_there_are() {
    let (memory, id) = repository();
    let store = memory.seen_by(None);
    let added = slots::add(&store, b"secret", b"other", CHEAP).unwrap();
    // Somebody copied it under another name; and of the own one nothing goes.
    let slot = memory.all()[&added].to_vec();
    store.put("keys/of-somebody", &slot).unwrap();
    store.put("keys/kept", &memory.all()[&format!("keys/{id}")]).unwrap();
    slots::remove(&store, b"secret", &added).unwrap();
    assert!(!opens(&memory, b"other") && opens(&memory, b"secret"));
    assert_eq!(memory.names("keys").len(), 3);
    let changed = slots::change(&store, b"secret", b"third", CHEAP).unwrap();
    assert!(!opens(&memory, b"secret") && opens(&memory, b"third"));
    assert_eq!(memory.names("keys"), [changed.clone(), format!("{changed}.copy")]);
    let refused = slots::remove(&store, b"third", &format!("{changed}.copy")).unwrap_err();
    assert!(matches!(refused, SlotError::Last(name) if name == changed));
    let all = slots::list(&store, b"third").unwrap();
    assert_eq!((all.len(), all[0].pair, all[0].is_own), (1, Pair::Well, true));
}

#[test]
fn a_change_of_keys_that_is_cut_off_at_any_step_leaves_one_that_opens_and_is_finished_later() {
    let (memory, _) = repository();
    let added = slots::add(&memory.seen_by(None), b"secret", b"other", CHEAP).unwrap();
    let steps = Steps::default();
    slots::change(&memory.copy().seen_by(Some(&steps)), b"other", b"new", CHEAP).unwrap();
    for step in 0..steps.taken() {
        for is_done in [false, true] {
            let memory = memory.copy();
            let cut = Steps::cut_at(step, is_done);
            let _ended = slots::change(&memory.seen_by(Some(&cut)), b"other", b"new", CHEAP);
            assert!(opens(&memory, b"other") || opens(&memory, b"new"), "step {step}");
            assert!(is_restored(&memory, b"secret"));

            let cut = Steps::cut_at(step, is_done);
            let _ended = slots::remove(&memory.seen_by(Some(&cut)), b"secret", &added);
            match slots::remove(&memory.seen_by(None), b"secret", &added) {
                Ok(()) | Err(SlotError::None(_)) => {}
                Err(why) => panic!("step {step}: {why}"),
            }
            assert!(!opens(&memory, b"other") && opens(&memory, b"secret"), "step {step}");
        }
    }
}

#[test]
fn a_key_that_is_added_again_is_the_one_that_was_left_and_a_change_leaves_nothing_that_the_old_secret_opens()
{
    let (memory, _) = repository();
    let steps = Steps::default();
    slots::add(&memory.copy().seen_by(Some(&steps)), b"secret", b"new", CHEAP).unwrap();
    for step in 0..steps.taken() {
        for is_done in [false, true] {
            let memory = memory.copy();
            let _ended =
                slots::add(&memory.seen_by(Some(&Steps::cut_at(step, is_done))), b"secret", b"new", CHEAP);
            let name = slots::add(&memory.seen_by(None), b"secret", b"new", CHEAP).unwrap();
            let of_new = [name.clone(), format!("{name}.copy")];
            assert!(of_new.iter().all(|name| memory.all().contains_key(name)), "step {step}");
            assert_eq!(memory.names("keys").len(), 4, "step {step}: a secret has one key");
        }
    }
    // Keys of one secret that are there several times, as an earlier version put them.
    let slot = Master::unlock(
        &memory.all()[&memory.names("keys")[0]],
        b"secret",
        open(&memory, b"secret").unwrap().id(),
    );
    let slot = slot.unwrap().lock(b"secret", CHEAP, open(&memory, b"secret").unwrap().id()).unwrap();
    memory.seen_by(None).put("keys/again", &slot).unwrap();
    slots::change(&memory.seen_by(None), b"secret", b"new", CHEAP).unwrap();
    assert!(!opens(&memory, b"secret") && opens(&memory, b"new"));
    slots::change(&memory.seen_by(None), b"new", b"new", CHEAP).unwrap();
    assert!(opens(&memory, b"new"));
    assert_eq!(memory.names("keys").len(), 2);
}

#[test]
fn a_repository_whose_making_is_cut_off_at_any_step_is_made_anew_or_opens_with_what_was_kept() {
    let steps = Steps::default();
    Repository::create(Box::new(Memory::default().seen_by(Some(&steps))), b"secret", CHEAP).unwrap();
    for step in 0..steps.taken() {
        for is_done in [false, true] {
            let (memory, cut) = (Memory::default(), Steps::cut_at(step, is_done));
            let begun = Repository::begin(Box::new(memory.seen_by(Some(&cut))), b"kept", CHEAP);
            let (is_kept, _ended) = (begun.is_ok(), begun.and_then(|begun| begun.finish()));
            match Repository::create(seen(&memory), b"again", CHEAP) {
                Ok(_) => assert!(opens(&memory, b"again") && memory.names("keys").len() == 2, "step {step}"),
                Err(Trouble::Another) => assert!(is_kept && opens(&memory, b"kept"), "step {step}"),
                Err(why) => panic!("step {step}: {why}"),
            }
        }
    }
    let memory = Memory::default();
    memory.seen_by(None).put("keys/of-somebody", b"x").unwrap();
    Repository::create(seen(&memory), b"secret", CHEAP).unwrap();
    assert_eq!(memory.names("keys").len(), 3, "what is no key stays");
    // Of two who begin at once one finishes, and takes away nothing that the other relies on until he cannot.
    let memory = Memory::default();
    let begin = |secret: &[u8]| Repository::begin(seen(&memory), secret, CHEAP).unwrap();
    let (first, second) = (begin(b"first"), begin(b"second"));
    first.finish().unwrap();
    assert!(matches!(second.finish(), Err(Trouble::Another)));
    assert!(opens(&memory, b"first") && memory.names("keys").len() == 2);
}

#[test]
fn a_head_that_is_damaged_or_gone_is_told_by_other_objects_and_put_back() {
    let (memory, id) = repository();
    let empty = Memory::default();
    let empty_id = Repository::create(seen(&empty), b"secret", CHEAP).unwrap().id();
    for (memory, id) in [(memory, id), (empty, empty_id)] {
        let whole = memory.all();
        for at in (0..25).filter(|at| *at != 7) {
            if at == 24 {
                remove_one(&memory, "repository");
            } else {
                let mut changed = whole["repository"].to_vec();
                changed[at] ^= 0x10;
                replace_one(&memory, "repository", &changed);
            }
            let repository = open(&memory, b"secret").unwrap_or_else(|why| panic!("byte {at}: {why}"));
            assert_eq!(repository.id(), id, "byte {at}");
            assert!(repository.head() == if at == 24 { Head::Gone } else { Head::Damaged });
            if at < 7 || at == 24 {
                assert_eq!(Repository::identify(&memory.seen_by(None)).unwrap(), id, "byte {at}");
            }
            assert!(Repository::told_by_others(&memory.seen_by(None)).unwrap().contains(&id));
            assert!(matches!(open(&memory, b"wrong"), Err(Trouble::Key(KeyError::Wrong))), "byte {at}");
            let found = checked(&memory, b"secret");
            assert!(found.wrong[0].contains("`repository` of the repository is"), "{found:?}");
            assert_eq!(repaired(&memory, b"secret").renewed, ["repository"], "byte {at}");
            assert!(memory.all() == whole, "byte {at}");
        }
        // What says that a later version wrote it is left to that.
        let mut later = whole["repository"].to_vec();
        later[7] = 2;
        replace_one(&memory, "repository", &later);
        assert!(matches!(open(&memory, b"secret"), Err(Trouble::Later)));
    }
}

#[test]
fn no_repository_is_made_in_one_whose_head_is_gone() {
    let (memory, id) = repository();
    remove_one(&memory, "repository");
    let whole = memory.all();
    assert!(matches!(Repository::create(seen(&memory), b"other", CHEAP), Err(Trouble::Another)));
    assert!(memory.all() == whole);
    // An object of another repository, be it newer, does not take its place: the key says which it is.
    let (other, _) = repository_with_more();
    memory.restore(other.take("index"));
    let repository = open(&memory, b"secret").unwrap();
    assert_eq!(repository.id(), id);
}

fn repository_with_more() -> (Memory, RepositoryId) {
    let (memory, id) = repository();
    for _ in 0..3 {
        let mut changed = image();
        changed.0[7] ^= 1;
        save(&mut open(&memory, b"secret").unwrap());
    }
    (memory, id)
}

#[test]
fn the_second_reader_needs_neither_the_head_nor_both_objects_of_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = || Box::new(Folder::open(folder.path()).unwrap());
    let mut repository = Repository::create(store(), b"secret", CHEAP).unwrap();
    save(&mut repository);
    fs::remove_file(folder.path().join("repository")).unwrap();
    fs::write(folder.path().join(format!("keys/{}", repository.id())), [0; 108]).unwrap();
    assert_eq!(cat::identify(folder.path()).unwrap(), repository.id().0);
    let mut out = Vec::new();
    let reader = cat::Reader::open(folder.path(), b"secret").unwrap();
    reader.cat(("orders", 1), None, &mut out).unwrap();
    assert!(out == image().0);
}

#[test]
fn what_a_stranger_puts_beside_the_keys_costs_a_bounded_time_and_hides_none_i18() {
    let (memory, id) = repository();
    let store = memory.seen_by(None);
    for number in 0..400 {
        store.put(&format!("keys/0{number:03}"), b"junk").unwrap();
    }
    // Each asks for a GiB and 64 rounds: a minute.
    let master = Master::random().unwrap();
    let slot = master.lock(b"x", CHEAP, id).unwrap();
    for number in 0..40_u32 {
        let mut dear = slot.clone();
        dear[8..12].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        dear[12..16].copy_from_slice(&64_u32.to_le_bytes());
        dear[20..24].copy_from_slice(&number.to_le_bytes());
        store.put(&format!("keys/1{number:03}"), &dear).unwrap();
    }
    let begun = std::time::Instant::now();
    assert!(is_restored(&memory, b"secret"));
    let refused = open(&memory, b"wrong").err().unwrap();
    assert!(matches!(refused, Trouble::Key(KeyError::TooMuch { untried: 40 })), "{refused}");
    assert!(begun.elapsed().as_secs() < 20);
    // None of it is taken away, and all of it is told.
    let done = repaired(&memory, b"secret");
    assert!(done.strange.iter().any(|left| left.contains("`keys/0000` is no key")), "{done:?}");
    assert!(memory.names("keys/0").len() >= 400 && checked(&memory, b"secret").wrong.len() > 100);
    drop(memory.take("keys"));
    assert!(matches!(open(&memory, b"secret"), Err(Trouble::Key(KeyError::Gone))));
}
