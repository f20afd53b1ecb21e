//! What an open repository holds of its index: where each block lies, in some 15 bytes a block.
//!
//! A block is a number, in the order in which packs and their blocks were told of. Of each, in that order, its length and
//! depth are held: the first record of a pack has its place, and each other stands behind the one before. And of each name
//! its first bytes and the number of its block, in the order of the names; what names of one stretch begin with is said once.

use super::{Found, NoIndex, Pack, base, depth};
use crate::block::DEEPEST;
use crate::id::{BlockId, PackId};
use crate::pack::{self, HEAD, LONGEST, Spot};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Bytes of a name that are held. Among the 40 million blocks of 10 TB two names that begin alike come with a probability of
/// 2 in 10 million, and one that is not there is taken for one that is with 1 in 10^14. Who reads compares whole names.
const HELD: usize = 9;
type Start = [u8; HELD];

const fn start(id: BlockId) -> Start {
    let [a, b, c, d, e, f, g, h, i, ..] = id.0;
    [a, b, c, d, e, f, g, h, i]
}

/// Bits of a length: what is left of three bytes is a depth.
const LENGTH_BITS: u32 = 19;
/// The depth of a block to which no whole one leads.
const UNREACHED: u8 = (1 << (24 - LENGTH_BITS)) - 1;
/// The place of a base that is not there.
const NOWHERE: u32 = u32::MAX;
const _: () = assert!(LONGEST < 1 << LENGTH_BITS && DEEPEST < UNREACHED);

/// Bytes before each record.
const FRAME: u32 = pack::FRAME as u32;
/// Where the first record of a pack begins.
const FIRST: u32 = HEAD as u32 + FRAME;

/// Where the blocks of packs lie, by their numbers.
#[derive(Debug, Default)]
struct Blocks {
    packs: Vec<PackId>,
    /// The number of the first block of each pack.
    firsts: Vec<u32>,
    /// The length and depth of each block.
    all: Vec<[u8; 3]>,
    /// Where those lie that do not stand behind the one before.
    odd: BTreeMap<u32, u32>,
}

impl Blocks {
    /// Adds a block to the pack that was added last.
    fn push(&mut self, spot: Spot, depth: u8, expected: u32) {
        if spot.offset != expected {
            self.odd.insert(self.all.len() as u32, spot.offset);
        }
        let [first, second, third, _] = (spot.length | u32::from(depth) << LENGTH_BITS).to_le_bytes();
        self.all.push([first, second, third]);
    }

    /// The length and depth of a block.
    fn read(&self, block: u32) -> (u32, u8) {
        let [first, second, third] = self.all[block as usize];
        let both = u32::from_le_bytes([first, second, third, 0]);
        (both & ((1 << LENGTH_BITS) - 1), (both >> LENGTH_BITS) as u8)
    }

    fn count(&self) -> u32 {
        self.all.len() as u32
    }

    fn depth(&self, block: u32) -> u8 {
        self.read(block).1
    }

    fn set_depth(&mut self, block: u32, depth: u8) {
        let both = self.read(block).0 | u32::from(depth) << LENGTH_BITS;
        self.all[block as usize][2] = both.to_le_bytes()[2];
    }

    /// The place of its pack among all.
    fn pack(&self, block: u32) -> usize {
        self.firsts.partition_point(|first| *first <= block) - 1
    }

    fn found(&self, block: u32) -> Found {
        let pack = self.pack(block);
        let odd = self.odd.range(self.firsts[pack]..=block).next_back();
        let (from, mut offset) = odd.map_or((self.firsts[pack], FIRST), |(block, offset)| (*block, *offset));
        for before in from..block {
            offset += self.read(before).0 + FRAME;
        }
        let (length, depth) = self.read(block);
        Found { pack: self.packs[pack], spot: Spot { offset, length }, depth }
    }
}

/// How the name of a block begins, and its number. They are in the order of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    start: Start,
    block: [u8; 4],
}

impl Named {
    const fn new(id: BlockId, block: u32) -> Self {
        Self { start: start(id), block: block.to_be_bytes() }
    }

    const fn block(&self) -> u32 {
        u32::from_be_bytes(self.block)
    }
}

/// Packs that were told of so far, in at most 29 bytes a block. What tells of them need not be held at once.
#[derive(Debug, Default)]
pub struct Gathered {
    known: HashSet<PackId>,
    blocks: Blocks,
    names: Vec<Named>,
    /// How the names of the bases of deltas begin, in the order of those.
    bases: Vec<Start>,
}

impl Gathered {
    /// One more, if it is not among them.
    ///
    /// # Errors
    /// If there are more blocks than can be counted: 4 thousand million, a pebibyte.
    pub fn add(&mut self, pack: &Pack) -> Result<(), NoIndex> {
        if !self.known.insert(pack.id) {
            return Ok(());
        }
        u32::try_from(self.names.len() + pack.blocks.len()).map_err(|_| NoIndex)?;
        self.blocks.packs.push(pack.id);
        self.blocks.firsts.push(self.names.len() as u32);
        let mut expected = FIRST;
        for block in &pack.blocks {
            self.names.push(Named::new(block.id, self.names.len() as u32));
            self.bases.extend(base(block.form).map(start));
            self.blocks.push(block.spot, depth(block.form).min(UNREACHED), expected);
            expected = block.spot.offset + block.spot.length + FRAME;
        }
        Ok(())
    }

    /// What is held of the packs that stay: of each block the place where it is read, as [`super::choose`] has it, and packs of
    /// `last` after all others.
    #[must_use]
    pub fn choose(mut self, stays: impl Fn(&PackId) -> bool, last: &BTreeSet<PackId>) -> Index {
        let stays: Vec<bool> = self.blocks.packs.iter().map(stays).collect();
        self.names.retain(|one| stays[self.blocks.pack(one.block())]);
        self.names.sort_unstable();
        self.reach();
        let Self { blocks, mut names, .. } = self;
        names.retain(|one| blocks.depth(one.block()) != UNREACHED);
        let rank = |one: &Named| {
            let pack = blocks.packs[blocks.pack(one.block())];
            (blocks.depth(one.block()), last.contains(&pack), pack, one.block)
        };
        for same in names.chunk_by_mut(|one, other| one.start == other.start).filter(|same| same.len() > 1) {
            same.sort_unstable_by_key(rank);
        }
        names.dedup_by_key(|one| one.start);
        Index::new(blocks, &names)
    }

    /// Finds out how many deltas lead from each block to a whole one: level by level, from the whole ones up.
    fn reach(&mut self) {
        let Self { blocks, names, bases, .. } = self;
        let place = |base: Start| {
            let at = names.partition_point(|one| one.start < base);
            names.get(at).filter(|one| one.start == base).map_or(NOWHERE, |_| at as u32)
        };
        let places: Vec<u32> = std::mem::take(bases).into_iter().map(place).collect();
        for block in 0..blocks.count() {
            if blocks.depth(block) != 0 {
                blocks.set_depth(block, UNREACHED);
            }
        }
        for level in 1..=DEEPEST {
            let (mut places, mut is_more) = (places.iter(), false);
            for block in 0..blocks.count() {
                if blocks.depth(block) == 0 {
                    continue;
                }
                let bases = places.next().and_then(|place| names.get(*place as usize..)).unwrap_or_default();
                let mut same = bases.iter().take_while(|one| one.start == bases[0].start);
                if blocks.depth(block) == UNREACHED && same.any(|one| blocks.depth(one.block()) < level) {
                    blocks.set_depth(block, level);
                    is_more = true;
                }
            }
            if !is_more {
                break;
            }
        }
    }
}

/// Everything that is known, in some 15 bytes a block.
#[derive(Debug, Default)]
pub struct Index {
    blocks: Blocks,
    /// Bytes that the names of a stretch have in common: these are not held.
    shared: usize,
    /// Where each stretch begins, and where the last ends.
    stretches: Vec<u32>,
    /// What the beginnings of the names have more, one after the other.
    rests: Vec<u8>,
    /// The number of each block, in the order of the names.
    numbers: Vec<u32>,
}

impl Index {
    /// Of all these packs, a block that lies in several where [`super::choose`] finds it.
    ///
    /// # Errors
    /// If there are more blocks than can be counted.
    pub fn of(packs: impl IntoIterator<Item = Pack>) -> Result<Self, NoIndex> {
        let mut gathered = Gathered::default();
        packs.into_iter().try_for_each(|pack| gathered.add(&pack))?;
        Ok(gathered.choose(|_| true, &BTreeSet::new()))
    }

    fn new(blocks: Blocks, names: &[Named]) -> Self {
        // A list of stretches takes no more than one byte of each name does.
        let shared = (0..4).rev().find(|shared| 4 << (8 * shared) <= names.len()).unwrap_or(0);
        let mut stretches = vec![0; (1 << (8 * shared)) + 1];
        names.iter().for_each(|one| stretches[stretch(&one.start[..shared]) + 1] += 1);
        let mut before = 0;
        for each in &mut stretches {
            before += *each;
            *each = before;
        }
        let mut rests = Vec::with_capacity(names.len() * (HELD - shared));
        names.iter().for_each(|one| rests.extend_from_slice(&one.start[shared..]));
        Self { blocks, shared, stretches, rests, numbers: names.iter().map(Named::block).collect() }
    }

    /// Where this block lies.
    #[must_use]
    pub fn find(&self, id: BlockId) -> Option<Found> {
        let start = start(id);
        let (head, rest) = start.split_at(self.shared);
        let number = stretch(head);
        let (mut low, end) =
            (*self.stretches.get(number)? as usize, *self.stretches.get(number + 1)? as usize);
        let mut high = end;
        while low < high {
            let middle = low.midpoint(high);
            if self.rest(middle) < rest { low = middle + 1 } else { high = middle }
        }
        (low < end && self.rest(low) == rest).then(|| self.blocks.found(self.numbers[low]))
    }

    /// Whether this is the pack that a block is read in.
    #[must_use]
    pub fn reads_in(&self, pack: PackId, id: BlockId) -> bool {
        self.find(id).is_some_and(|found| found.pack == pack)
    }

    fn rest(&self, at: usize) -> &[u8] {
        let length = HELD - self.shared;
        &self.rests[at * length..][..length]
    }

    /// How many blocks it knows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.numbers.len()
    }

    /// It knows none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

/// The number of the stretch of names that begin so.
fn stretch(head: &[u8]) -> usize {
    head.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::block::Form;
    use crate::id::LENGTH;
    use crate::index::Listed;

    /// Any 16 bytes, as a hash would have them.
    fn name(of: u32) -> [u8; LENGTH] {
        *blake3::hash(&of.to_le_bytes()).as_bytes().first_chunk().unwrap()
    }

    /// Packs of so many blocks each: every other is a delta of the one before.
    fn packs(count: u32, of: u32) -> impl Iterator<Item = Pack> {
        (0..count).map(move |number| {
            let mut offset = FIRST;
            let mut listed = |at: u32| {
                let block = number * of + at;
                let base = || BlockId(name(block - 1));
                let form =
                    if at.is_multiple_of(2) { Form::Whole } else { Form::Delta { base: base(), depth: 1 } };
                let spot = Spot { offset, length: 100 + at % 7 };
                offset += spot.length + FRAME;
                Listed { id: BlockId(name(block)), spot, form }
            };
            Pack { id: PackId(name(!number)), blocks: (0..of).map(&mut listed).collect() }
        })
    }

    #[test]
    fn a_block_takes_15_bytes_once_there_are_many() {
        for (count, of, most) in [(3, 300, 18), (40, 150, 16), (200, 1_500, 15)] {
            let index = Index::of(packs(count, of)).unwrap();
            for pack in packs(count, of) {
                for block in pack.blocks {
                    let depth = depth(block.form);
                    assert_eq!(index.find(block.id), Some(Found { pack: pack.id, spot: block.spot, depth }));
                }
            }
            let others = count * of..count * of + 10_000;
            assert!(others.into_iter().all(|other| index.find(BlockId(name(other))).is_none()));
            let Index { blocks, stretches, rests, numbers, .. } = &index;
            let of_packs = blocks.packs.len() * (LENGTH + size_of::<u32>());
            let of_numbers = size_of_val(&**stretches) + size_of_val(&**numbers);
            let bytes = of_packs + size_of_val(&*blocks.all) + of_numbers + rests.len();
            assert!(bytes <= most * index.len() && blocks.odd.is_empty(), "{bytes} of {}", index.len());
        }
    }
}
