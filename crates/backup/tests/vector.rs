//! A small repository as version 1 writes it, kept in `vector.txt`, a line an object: both readers must read it for ever.
//!
//! It is written anew with `BLESS=1`, which is right only with a new version of the format.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;

use disks::Image;
use holdfast_backup::block::BLOCK;
use holdfast_backup::cat::Reader;
use holdfast_backup::collect::{Rules, collect};
use holdfast_backup::key::Cost;
use holdfast_backup::point::Point;
use holdfast_backup::proof::{self, Grade, Proof, What};
use holdfast_backup::repository::{PointName, Repository};
use holdfast_backup::save::{self, Before, Progress};
use holdfast_backup::session::{Session, Writer};
use holdfast_backup::store::{Folder, Store};
use holdfast_backup::{check, verify};
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::AtomicU64;

const SECRET: &[u8] = b"correct horse battery staple";
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vector.txt");

/// Text, a hole, and an end of noise that is no whole block; the second has another piece in the first block.
fn images() -> [Vec<u8>; 2] {
    let mut first = b"orders are rows ".repeat(BLOCK / 16);
    first.resize(3 * BLOCK, 0);
    first.extend((0..777_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8));
    let mut second = first.clone();
    second[20_000..20_100].fill(b'x');
    [first, second]
}

fn open(folder: &Path) -> Repository {
    Repository::open(Box::new(Folder::open(folder).unwrap()), SECRET).unwrap()
}

fn saved(folder: &Path, bytes: &[u8], parent: Option<u64>) {
    let mut repository = open(folder);
    let session = Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let name = parent.map(|sequence| PointName { vm: "orders".into(), sequence });
    let disk = name.map(|name| repository.point(&name).unwrap().disks.remove(0));
    let before = Before { parent: disk.as_ref(), ..Before::default() };
    let image = Image(bytes.to_vec());
    let disk = save::disk(&repository, "disk0", &image, before, 1, &Progress::default()).unwrap();
    let note = r#"{"added":0,"parent":null}"#.to_owned();
    let point =
        Point { vm: "orders".into(), sequence: 0, taken: 1_795_773_600_000_000, disks: vec![disk], note };
    session.commit(&repository, point).unwrap();
}

/// Points 1 and 3, of which 3 is a delta; a void in place of 2; a proof, a session that was left, and a mark.
fn written(folder: &Path) -> String {
    let cheap = Cost { memory: 64, rounds: 1, lanes: 1 };
    Repository::create(Box::new(Folder::open(folder).unwrap()), SECRET, cheap).unwrap();
    let [first, second] = images();
    saved(folder, &first, None);
    let mut repository = open(folder);
    Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    repository.give_up(&repository.sessions().unwrap()[0]).unwrap();
    saved(folder, &second, Some(1));
    let writer = Writer { host: "atlas".into(), boot: "1/2/3".into(), process: 7, started: 8, begun: 9 };
    let rules = Rules { now: 10, grace: 0, worth: 50, writer: &writer, is_over: &|_| false, dry: None };
    collect(&mut open(folder), &rules).unwrap();
    Session::begin(&mut open(folder), "billing", &writer).unwrap();
    let what = What::Grade(Grade::Booted);
    let proof = Proof { what, when: 11, boot: 4_200, words: "SELECT 1".into() };
    proof::prove(&open(folder), &PointName { vm: "orders".into(), sequence: 3 }, &proof).unwrap();
    let store = Folder::open(folder).unwrap();
    let folders = ["keys", "packs", "index", "points", "proofs", "sessions", "marks"];
    let listed = folders.iter().flat_map(|folder| store.list(folder).unwrap()).map(|(name, _)| name);
    let mut text = String::new();
    for name in ["repository".to_owned()].into_iter().chain(listed) {
        write!(text, "{name} ").unwrap();
        for byte in store.read(&name, 0, usize::MAX).unwrap() {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn what_version_1_wrote_is_read_by_both_readers() {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(KEPT, written(tempfile::tempdir().unwrap().path())).unwrap();
    }
    let (folder, kept) = (tempfile::tempdir().unwrap(), std::fs::read_to_string(KEPT).unwrap());
    let store = Folder::open(folder.path()).unwrap();
    for line in kept.lines() {
        let (name, hex) = line.split_once(' ').unwrap();
        let digits = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = hex.as_bytes().as_chunks().0.iter().map(digits).collect();
        store.put(name, &bytes).unwrap();
    }
    let [first, second] = images();
    let reader = Reader::open(folder.path(), SECRET).unwrap();
    for (number, expected) in [(1, first), (3, second)] {
        let mut out = Vec::new();
        reader.cat(("orders", number), None, &mut out).unwrap();
        assert!(out == expected, "{number}");
    }
    assert!(reader.cat(("orders", 2), None, &mut Vec::new()).is_err());

    let repository = open(folder.path());
    let names: Vec<u64> = repository.points().unwrap().iter().map(|name| name.sequence).collect();
    assert_eq!(names, [1, 3]);
    let found = verify::all(&repository, 1, &AtomicU64::new(0)).unwrap();
    assert!(found.wrong.is_empty() && found.whole.len() == 2, "{found:?}");
    let found = check::check(&repository).unwrap();
    assert!(found.wrong.is_empty() && found.untold.is_empty(), "{found:?}");
    let session = repository.sessions().unwrap().remove(0);
    assert_eq!((session.writer.host.as_str(), session.writer.begun), ("atlas", 9));
    let marks = repository.marks().unwrap();
    assert_eq!((marks.len(), marks[0].made, session.knows.contains(&marks[0].name)), (1, 10, true));
    let standing = proof::standing(&repository, &PointName { vm: "orders".into(), sequence: 3 }).unwrap();
    assert_eq!((standing.grade, standing.boot, standing.proved), (Grade::Booted, Some(4_200), Some(11)));
}
