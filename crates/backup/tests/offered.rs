//! A disk of a point that is read at any place: the bytes that were saved, or an error, and never other ones.

#![expect(clippy::unwrap_used, reason = "tests")]

mod disks;
mod memory;

use disks::Image;
use holdfast_backup::block::BLOCK;
use holdfast_backup::key::Cost;
use holdfast_backup::offered::{Offered, OfferedError};
use holdfast_backup::point::Point;
use holdfast_backup::repository::{Repository, Trouble};
use holdfast_backup::save::{self, Before, Progress};
use holdfast_backup::session::{Session, Writer};
use memory::Memory;
use proptest::prelude::*;

const CHEAP: Cost = Cost { memory: 8, rounds: 1, lanes: 1 };
const MOST: usize = 3 * BLOCK;

fn created() -> Memory {
    let store = Memory::default();
    Repository::create(Box::new(store.seen_by(None)), b"secret", CHEAP).unwrap();
    store
}

fn open(store: &Memory) -> Repository {
    Repository::open(Box::new(store.seen_by(None)), b"secret").unwrap()
}

fn saved(store: &Memory, image: &Image) {
    let mut repository = open(store);
    let session = Session::begin(&mut repository, "orders", &Writer::default()).unwrap();
    let last = repository.points().unwrap().pop();
    let parent = last.map(|name| repository.point(&name).unwrap().disks.remove(0));
    let before = Before { parent: parent.as_ref(), ..Before::default() };
    let disk = save::disk(&repository, "disk0", image, before, 1, &Progress::default()).unwrap();
    let point = Point { vm: "orders".into(), sequence: 0, taken: 7, disks: vec![disk], note: String::new() };
    session.commit(&repository, point).unwrap();
}

/// The last point.
fn offered(store: &Memory) -> Offered {
    let repository = open(store);
    let name = repository.points().unwrap().pop().unwrap();
    let disk = repository.point(&name).unwrap().disks.remove(0);
    Offered::new(repository, disk, MOST)
}

fn noise(bytes: &mut [u8], seed: u64) {
    let mut state = seed | 1;
    for byte in bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
}

/// Noise and holes by turns, of which each has so many blocks.
fn image(size: usize, stretch: usize) -> Image {
    let mut bytes = vec![0; size];
    for (at, part) in bytes.chunks_mut(stretch * BLOCK).enumerate().step_by(2) {
        noise(part, at as u64 + 1);
    }
    Image(bytes)
}

fn is_gone_or_hurt(error: &OfferedError) -> bool {
    matches!(error, OfferedError::Repository { .. })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_part_of_a_disk_is_as_it_was_saved_and_what_is_kept_stays_within_its_bound(
        size in 1_usize..12 * BLOCK,
        stretch in 1_usize..4,
        touched in any::<prop::sample::Index>(),
        parts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..3 * BLOCK), 1..40),
    ) {
        let store = created();
        let mut image = image(size, stretch);
        saved(&store, &image);
        image.0[touched.index(size)] ^= 1; // a delta of the block, or a new one
        saved(&store, &image);
        let offered = offered(&store);
        prop_assert_eq!(offered.size(), size as u64);
        for (at, length) in parts {
            let at = at.index(size);
            let length = length.min(size - at);
            let mut bytes = vec![7; length];
            offered.read_at(at as u64, &mut bytes).unwrap();
            prop_assert!(bytes == image.0[at..at + length], "{} bytes at {}", length, at);
            prop_assert!(offered.held() <= MOST);
        }
        let mut at = 0;
        while at < size {
            let (length, is_hole) = offered.extent(at as u64);
            prop_assert!(length > 0);
            let part = &image.0[at..at + length as usize];
            prop_assert!(!is_hole || part.iter().all(|byte| *byte == 0));
            at += length as usize;
        }
        prop_assert_eq!(at, size);
    }
}

#[test]
fn holes_are_told_whole_across_pages_and_what_lies_beyond_the_end_is_refused() {
    let store = created();
    let (size, at) = (201 * (1 << 20) + 77, 131 << 20);
    let mut image = Image(vec![0; size]);
    noise(&mut image.0[at..at + BLOCK], 3);
    noise(&mut image.0[size - 77..], 4);
    saved(&store, &image);
    let offered = offered(&store);
    let mut extents = Vec::new();
    let mut begin = 0;
    while begin < size as u64 {
        let (length, is_hole) = offered.extent(begin);
        extents.push((length, is_hole));
        begin += length;
    }
    let last = 201 << 20;
    let expected = [(at, true), (BLOCK, false), (last - at - BLOCK, true), (77, false)]
        .map(|(l, hole)| (l as u64, hole));
    assert_eq!(extents, expected);
    assert_eq!(offered.extent(5).0, at as u64 - 5);
    let mut bytes = vec![1; 300];
    offered.read_at(size as u64 - 300, &mut bytes).unwrap();
    assert!(bytes == image.0[size - 300..]);
    for at in [size as u64 - 299, size as u64, u64::MAX] {
        let refused = offered.read_at(at, &mut bytes).unwrap_err();
        assert!(matches!(refused, OfferedError::Beyond { .. }), "{refused}");
    }
    offered.read_at(size as u64, &mut []).unwrap();
}

#[test]
fn a_damaged_block_is_an_error_and_never_other_bytes() {
    let store = created();
    let image = image(9 * BLOCK, 8);
    saved(&store, &image);
    for pack in store.names("packs/") {
        store.damage(&pack);
    }
    let (offered, mut hurt) = (offered(&store), 0);
    for (at, part) in image.0.chunks(BLOCK).enumerate() {
        let mut bytes = vec![0; part.len()];
        match offered.read_at((at * BLOCK) as u64, &mut bytes) {
            Ok(()) => assert!(bytes == part),
            Err(error) => {
                assert!(is_gone_or_hurt(&error), "{error}");
                hurt += 1;
            }
        }
    }
    assert!(hurt > 0 && hurt < 9, "{hurt} of 9");
}

#[test]
fn what_lies_in_another_pack_meanwhile_is_found_there_and_what_is_gone_is_an_error() {
    let store = created();
    let image = image(5 * BLOCK, 8);
    saved(&store, &image);
    let offered = offered(&store);
    let mut bytes = vec![0; 100];
    offered.read_at(0, &mut bytes).unwrap();
    let (_packs, _index) = (store.take("packs/"), store.take("index/"));
    let gone = offered.read_at(3 * BLOCK as u64, &mut bytes).unwrap_err();
    let is_missing = matches!(gone, OfferedError::Repository { trouble: Trouble::Missing(_), .. });
    assert!(is_missing, "{gone:?}");

    saved(&store, &image); // everything again, in other packs
    let offered = self::offered(&store);
    let old = (store.take("packs/"), store.take("index/"));
    saved(&store, &image);
    drop(old);
    let mut all = vec![0; image.0.len()];
    offered.read_at(0, &mut all).unwrap();
    assert!(all == image.0);
}

#[test]
fn several_threads_read_at_once() {
    let store = created();
    let image = image(8 * BLOCK, 2);
    saved(&store, &image);
    let offered = offered(&store);
    std::thread::scope(|scope| {
        for first in 0..4_usize {
            let (offered, image) = (&offered, &image);
            scope.spawn(move || {
                for at in (first * 1_000..image.0.len() - 5_000).step_by(97_003) {
                    let mut bytes = vec![0; 5_000];
                    offered.read_at(at as u64, &mut bytes).unwrap();
                    assert!(bytes == image.0[at..at + 5_000], "{at}");
                }
            });
        }
    });
    assert!(offered.held() <= MOST);
}
