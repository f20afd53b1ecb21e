//! Hostile input for every decoder of this crate, as if somebody who has the key had sealed it: what is sealed is damaged before it
//! is sealed. What is looked for is a panic, a block that is too long, and something that is read as what was not written.

#![expect(clippy::unwrap_used, reason = "tests")]

use holdfast_backup::block::{self, BLOCK, Record};
use holdfast_backup::id::{BlockId, PackId, RepositoryId};
use holdfast_backup::index::{self, Index, Listed, Pack, choose};
use holdfast_backup::key::{Cost, Keys, Master, cost};
use holdfast_backup::mark::Mark;
use holdfast_backup::object::{self, Kind};
use holdfast_backup::pack::{Packer, Records};
use holdfast_backup::point::{Disk, Point};
use holdfast_backup::proof::Proof;
use holdfast_backup::repository::PointName;
use holdfast_backup::session::{Open, Writer};
use holdfast_fuzz::{Chance, Damage, is_usual, run};
use std::collections::BTreeSet;

/// Numbers that mean something where a length, a count or a version stands.
const WORDS: [&[u8]; 9] = [
    b"\0",
    b"\x01",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x28\0\0\0",
    b"\0\0\0\0\0\0\x01\0",
    b"../..",
    b"\x28\xb5\x2f\xfd",
];

fn name(byte: u8) -> PackId {
    PackId([byte; 16])
}

fn keys() -> Keys {
    Master::random().unwrap().keys(RepositoryId([7; 16]))
}

fn record(id: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    block::write(BlockId([id; 16]), content, &mut out).unwrap();
    out
}

fn delta() -> Vec<u8> {
    let (mut out, content) = (Vec::new(), [b'd'; 9_000]);
    block::write_delta(BlockId([2; 16]), &content, (BlockId([1; 16]), 1), 0b101, &mut out).unwrap();
    out
}

fn packs() -> Vec<Pack> {
    let spot = holdfast_backup::pack::Spot { offset: 44, length: 100 };
    let form = |depth: u8| match depth {
        0 => block::Form::Whole,
        depth => block::Form::Delta { base: BlockId([depth - 1; 16]), depth },
    };
    let blocks = |from: u8| {
        (from..from + 4).map(|at| Listed { id: BlockId([at; 16]), spot, form: form(at) }).collect()
    };
    vec![Pack { id: name(1), blocks: blocks(0) }, Pack { id: name(2), blocks: blocks(2) }]
}

fn point() -> Point {
    let pages = |count: u8| (0..count).map(|at| BlockId([at; 16])).collect();
    let disks = vec![
        Disk { name: "disk0".into(), size: 100 << 20, pages: pages(2) },
        Disk { name: "wal".into(), size: 1, pages: pages(1) },
    ];
    Point { vm: "orders".into(), sequence: 7, taken: -1, disks, note: "{\"added\":1}".into() }
}

/// Inputs that were read, and that were refused: both must come, or nothing is looked for.
#[derive(Default)]
struct Count([u64; 2]);

impl Count {
    fn take<T>(&mut self, read: Option<T>) -> Option<T> {
        self.0[usize::from(read.is_some())] += 1;
        read
    }

    fn both_came(&self) {
        assert!(!is_usual() || self.0.iter().all(|count| *count > 50), "{:?}", self.0);
    }
}

#[test]
fn fuzz_points_and_indexes() {
    let (good, listed) = (point().write().unwrap(), index::write(&packs()));
    let damage = |good: &[u8], chance: &mut Chance| {
        Damage { good: &[good], words: &WORDS, most: 1 << 12 }.input(chance)
    };
    let mut counts = [Count::default(), Count::default()];
    run("points and indexes", 20_000, |chance| {
        let input = damage(&good, chance);
        if let Some(point) = counts[0].take(Point::read(&input).ok()) {
            assert_eq!(point.write().unwrap(), input, "what is read is what is written");
        }
        let input = damage(&listed, chance);
        if let Some(packs) = counts[1].take(index::read(&input).ok()) {
            assert_eq!(index::write(&packs), input);
            let (names, chosen) = choose(packs.clone()).unwrap();
            let told: BTreeSet<PackId> = packs.iter().map(|pack| pack.id).collect();
            assert_eq!(names.len(), told.len());
            let index = Index::of(packs).unwrap();
            for one in &chosen {
                let found = index.find(one.id).unwrap();
                assert!(found.depth <= one.depth && names.contains(&found.pack));
                let base = one.base.map(|base| index.find(base).unwrap());
                assert!(base.is_none_or(|base| base.depth < one.depth));
            }
        }
    });
    counts.iter().for_each(Count::both_came);
}

#[test]
fn fuzz_sessions_marks_and_proofs() {
    let writer = Writer { host: "atlas".into(), boot: "1/2".into(), process: 7, started: 8, begun: 9 };
    let at = Some(PointName { vm: "orders".into(), sequence: 3 });
    let session = Open { name: name(1), point: at, writer, knows: [name(2), name(3)].into() };
    let session = session.write().unwrap();
    let mark = Mark { name: name(1), made: 5, packs: vec![name(4), name(5)] }.write();
    let proof = [&[1][..], &[9; 16], &[5], &[0; 16], b"SELECT 1"].concat();
    let mut counts = [Count::default(), Count::default(), Count::default()];
    run("sessions, marks and proofs", 20_000, |chance| {
        let input = Damage { good: &[&session, &mark, &proof], words: &WORDS, most: 1 << 11 }.input(chance);
        if let Some(open) = counts[0].take(Open::read(name(1), &input)) {
            let again = open.write().unwrap();
            assert_eq!(Open::read(name(1), &again).unwrap(), open);
            assert!(again.len() <= input.len());
        }
        if let Some(mark) = counts[1].take(Mark::read(name(1), &input)) {
            assert_eq!(mark.write(), input);
        }
        if let Some((_, proof)) = counts[2].take(Proof::read(&input)) {
            assert!(proof.words.len() <= holdfast_backup::proof::WORDS_MOST);
        }
    });
    counts.iter().for_each(Count::both_came);
}

#[test]
fn fuzz_records_of_blocks() {
    let (text, noise) =
        (b"orders are rows ".repeat(2_000), (0..70_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8));
    let noise: Vec<u8> = noise.take(BLOCK).collect();
    let good = [record(1, &text), record(1, &noise), delta()];
    let good: Vec<&[u8]> = good.iter().map(|good| &good[..]).collect();
    let mut count = Count::default();
    run("records of blocks", 10_000, |chance| {
        let input = Damage { good: &good, words: &WORDS, most: 1 << 17 }.input(chance);
        let mut block = vec![b'b'; chance.below(BLOCK + 1)];
        let unfolded = Record::read(&input).and_then(|record| record.unfold(&mut block));
        assert!(block.len() <= BLOCK, "{}", block.len());
        count.take(unfolded.ok());
    });
    count.both_came();
}

#[test]
fn fuzz_packs_objects_and_keys() {
    let keys = keys();
    let mut packer = Packer::new(&keys).unwrap();
    for at in 0..5 {
        packer.add(&record(at, &[at; 5_000]));
    }
    let (pack, packed) = packer.close();
    let object = object::write(&keys, Kind::Point, &point().write().unwrap()).unwrap();
    let cheap = Cost { memory: 64, rounds: 1, lanes: 1 };
    let slot = Master::random().unwrap().lock(b"secret", cheap, RepositoryId([7; 16])).unwrap();
    let mut counts = [Count::default(), Count::default(), Count::default()];
    run("packs, objects and keys", 5_000, |chance| {
        let damage = |good: &[u8], chance: &mut Chance| {
            Damage { good: &[good], words: &WORDS, most: 1 << 16 }.input(chance)
        };
        let mut input = damage(&packed, chance);
        let walked = Records::of(&keys, pack, &mut input).ok().map(|mut records| {
            std::iter::from_fn(|| records.next().map(|found| found.is_ok()))
                .filter(|is_well| *is_well)
                .count()
        });
        assert!(counts[0].take(walked).is_none_or(|well| well <= 5));
        let mut input = damage(&object, chance);
        let is_whole = input == object;
        let read = counts[1].take(object::read(&keys, Kind::Point, &mut input).ok());
        assert_eq!(read.is_some(), is_whole, "only what was sealed is opened");
        let input = damage(&slot, chance);
        assert!(counts[2].take(cost(&input)).is_none_or(|cost| cost.memory <= 1 << 20 && cost.rounds <= 64));
    });
    counts.iter().for_each(Count::both_came);
}
