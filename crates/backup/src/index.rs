//! Where each block lies. Every object of the index tells of some packs; all of them together are what is known.

use crate::block::{DEEPEST, Form};
use crate::id::{BlockId, LENGTH, PackId};
use crate::pack::{FULL, HEAD, LONGEST, Spot};
use crate::parts::take;
use std::collections::{BTreeMap, BTreeSet};

/// Packs that one object of the index tells of: what was written before a kill is known after it.
pub const PACKS_MOST: usize = 64;

/// A block in a pack, as the index tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is called.
    pub id: BlockId,
    /// Where it lies.
    pub spot: Spot,
    /// How it is written.
    pub form: Form,
}

/// A pack, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// What it is called.
    pub id: PackId,
    /// Its blocks, in their order.
    pub blocks: Vec<Listed>,
}

/// The content of an object of the index is not one of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no index of this format")]
pub struct NoIndex;

/// The content of an object that tells of these packs.
#[must_use]
pub fn write(packs: &[Pack]) -> Vec<u8> {
    let mut out = Vec::new();
    for pack in packs {
        out.extend_from_slice(&pack.id.0);
        out.extend_from_slice(&(pack.blocks.len() as u32).to_le_bytes());
        for block in &pack.blocks {
            out.extend_from_slice(&block.id.0);
            out.extend_from_slice(&block.spot.offset.to_le_bytes());
            out.extend_from_slice(&block.spot.length.to_le_bytes());
            match block.form {
                Form::Whole => out.push(0),
                Form::Delta { base, depth } => {
                    out.push(depth);
                    out.extend_from_slice(&base.0);
                }
            }
        }
    }
    out
}

/// The packs that this content tells of.
///
/// # Errors
/// If it is not one of this format: it was sealed by somebody who has the key, and is no less looked at for that.
pub fn read(content: &[u8]) -> Result<Vec<Pack>, NoIndex> {
    let (mut rest, mut packs) = (content, Vec::new());
    while !rest.is_empty() {
        let id = PackId(*take::<LENGTH>(&mut rest).ok_or(NoIndex)?);
        let count = u32::from_le_bytes(*take::<4>(&mut rest).ok_or(NoIndex)?) as usize;
        if count > rest.len() / (LENGTH + 9) {
            return Err(NoIndex);
        }
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(listed(&mut rest).ok_or(NoIndex)?);
        }
        packs.push(Pack { id, blocks });
    }
    Ok(packs)
}

fn listed(rest: &mut &[u8]) -> Option<Listed> {
    let id = BlockId(*take::<LENGTH>(rest)?);
    let offset = u32::from_le_bytes(*take::<4>(rest)?);
    let length = u32::from_le_bytes(*take::<4>(rest)?);
    let form = match take::<1>(rest)? {
        [0] => Form::Whole,
        [depth] => Form::Delta { base: BlockId(*take::<LENGTH>(rest)?), depth: *depth },
    };
    let (offset_most, length_most) = ((FULL + 4) as u32, LONGEST as u32);
    if !(HEAD as u32..=offset_most).contains(&offset) || length > length_most {
        return None;
    }
    Some(Listed { id, spot: Spot { offset, length }, form })
}

/// Where a block lies, and how deep it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The pack.
    pub pack: PackId,
    /// Where in it.
    pub spot: Spot,
    /// Deltas that lead to a whole block; 0: it is one.
    pub depth: u8,
}

/// A block, in the one place where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// What it is called.
    pub id: BlockId,
    /// The number of its pack among all.
    pub pack: u32,
    /// Where in it.
    pub spot: Spot,
    /// Deltas that lead to a whole block; 0: it is one.
    pub depth: u8,
    /// What it differs from, if it does.
    pub base: Option<BlockId>,
}

/// Packs that were told of so far: of each block where it lies, 48 bytes, and nothing else. What tells of them need not be
/// held at once.
#[derive(Debug, Default)]
pub struct Gathered {
    numbers: BTreeMap<PackId, u32>,
    all: Vec<Chosen>,
}

impl Gathered {
    /// One more, if it is not among them.
    ///
    /// # Errors
    /// If there are more than can be counted: 1 million, 16 TiB.
    pub fn add(&mut self, pack: &Pack) -> Result<(), NoIndex> {
        let number = self.numbers.len() as u32;
        if self.numbers.contains_key(&pack.id) {
            return Ok(());
        }
        if u64::from(number) >= 1 << (64 - OFFSET_BITS - LENGTH_BITS) {
            return Err(NoIndex);
        }
        self.numbers.insert(pack.id, number);
        self.all.extend(pack.blocks.iter().map(|block| {
            let base = match block.form {
                Form::Whole => None,
                Form::Delta { base, .. } => Some(base),
            };
            Chosen { id: block.id, pack: number, spot: block.spot, depth: depth(block.form), base }
        }));
        Ok(())
    }

    /// For each block of those of the packs that stay the place where it is read, in the order of their names: that to which
    /// the fewest deltas lead, and of those the first, packs of `last` after all others. A block to which no whole one leads
    /// has no place. So more packs never make a block harder to reach, and one that some packs suffice for is found in any
    /// that hold those (I13 rests on this).
    #[must_use]
    pub fn choose(
        mut self,
        stays: impl Fn(&PackId) -> bool,
        last: &BTreeSet<PackId>,
    ) -> (Vec<PackId>, Vec<Chosen>) {
        let mut names: Vec<PackId> = self.numbers.keys().copied().filter(stays).collect();
        names.sort_by_key(|pack| last.contains(pack));
        let mut anew = vec![None; self.numbers.len()];
        for (number, name) in names.iter().enumerate() {
            anew[self.numbers[name] as usize] = Some(number as u32);
        }
        self.all.retain_mut(|one| {
            anew[one.pack as usize].is_some_and(|number| {
                one.pack = number;
                true
            })
        });
        (names, best(self.all))
    }
}

/// Where each block of these packs is read ([`Gathered::choose`]): they are numbered in the order of their names.
///
/// # Errors
/// If there are more packs than can be counted.
pub fn choose(packs: impl IntoIterator<Item = Pack>) -> Result<(Vec<PackId>, Vec<Chosen>), NoIndex> {
    let mut gathered = Gathered::default();
    packs.into_iter().try_for_each(|pack| gathered.add(&pack))?;
    Ok(gathered.choose(|_| true, &BTreeSet::new()))
}

fn best(mut all: Vec<Chosen>) -> Vec<Chosen> {
    all.sort_unstable_by_key(|one| (one.id, one.depth, one.pack, one.spot));
    let firsts = all.chunk_by(|one, other| one.id == other.id).filter_map(<[_]>::first);
    let leads = |one: &Chosen| {
        let is_below = |base| first(&all, base).is_some_and(|base| base.depth < one.depth);
        one.depth <= DEEPEST && one.base.is_none_or(is_below)
    };
    if firsts.into_iter().all(leads) {
        all.dedup_by_key(|one| one.id);
        return all; // as nearly always
    }
    by_level(&all)
}

/// Of the places of this block the one to which the fewest deltas lead.
fn first(all: &[Chosen], id: BlockId) -> Option<&Chosen> {
    all.get(all.partition_point(|one| one.id < id)).filter(|one| one.id == id)
}

/// From the whole blocks up, level by level.
fn by_level(all: &[Chosen]) -> Vec<Chosen> {
    let mut chosen: Vec<Chosen> = all.iter().filter(|one| one.base.is_none()).copied().collect();
    chosen.dedup_by_key(|one| one.id);
    for level in 1..=DEEPEST {
        let leads = |one: &&Chosen| one.base.is_some_and(|base| place(&chosen, base).is_some());
        let fresh = all.iter().filter(leads).filter(|one| place(&chosen, one.id).is_none());
        let mut fresh: Vec<Chosen> = fresh.map(|one| Chosen { depth: level, ..*one }).collect();
        fresh.sort_by_key(|one| (one.id, one.pack, one.spot));
        fresh.dedup_by_key(|one| one.id);
        if fresh.is_empty() {
            break;
        }
        chosen.extend(fresh);
        chosen.sort_unstable_by_key(|one| one.id);
    }
    chosen
}

/// Where a block stands among these, which are in the order of their names.
#[must_use]
pub fn place(chosen: &[Chosen], id: BlockId) -> Option<usize> {
    chosen.binary_search_by_key(&id, |one| one.id).ok()
}

/// Everything that is known, 25 bytes a block.
#[derive(Debug, Default)]
pub struct Index {
    packs: Vec<PackId>,
    ids: Vec<BlockId>, // sorted
    spots: Vec<u64>,
    depths: Vec<u8>,
}

/// Bits of an offset within a pack, and of a length.
const OFFSET_BITS: u32 = 25;
const LENGTH_BITS: u32 = 19;
const _: () = assert!(FULL + LONGEST < 1 << OFFSET_BITS && LONGEST < 1 << LENGTH_BITS);

/// Blocks that are moved before the room that they had is given back.
const AT_ONCE: usize = 1 << 16;

impl Index {
    /// Of all these packs, a block that lies in several where [`choose`] finds it.
    ///
    /// # Errors
    /// If there are more packs than can be counted: 1 million, 16 TiB.
    pub fn of(packs: impl IntoIterator<Item = Pack>) -> Result<Self, NoIndex> {
        let (packs, chosen) = choose(packs)?;
        Ok(Self::new(packs, chosen))
    }

    /// Of what was chosen of these packs. It is taken from the end on and given back by and by: at no time is there room for both.
    #[must_use]
    pub fn new(packs: Vec<PackId>, mut chosen: Vec<Chosen>) -> Self {
        let count = chosen.len();
        let (mut ids, mut spots) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut depths = Vec::with_capacity(count);
        while !chosen.is_empty() {
            for one in chosen.drain(chosen.len().saturating_sub(AT_ONCE)..).rev() {
                ids.push(one.id);
                spots.push(squeeze(u64::from(one.pack), one.spot));
                depths.push(one.depth);
            }
            chosen.shrink_to_fit();
        }
        ids.reverse();
        spots.reverse();
        depths.reverse();
        Self { packs, ids, spots, depths }
    }

    /// Where this block lies.
    #[must_use]
    pub fn find(&self, id: BlockId) -> Option<Found> {
        let at = self.ids.binary_search(&id).ok()?;
        let squeezed = self.spots[at];
        let offset = (squeezed >> LENGTH_BITS & ((1 << OFFSET_BITS) - 1)) as u32;
        let length = (squeezed & ((1 << LENGTH_BITS) - 1)) as u32;
        let pack = self.packs[(squeezed >> (LENGTH_BITS + OFFSET_BITS)) as usize];
        Some(Found { pack, spot: Spot { offset, length }, depth: self.depths[at] })
    }

    /// The blocks that are found in each pack.
    #[must_use]
    pub fn by_pack(&self) -> BTreeMap<PackId, BTreeSet<BlockId>> {
        let mut all = BTreeMap::<PackId, BTreeSet<BlockId>>::new();
        for (id, squeezed) in self.ids.iter().zip(&self.spots) {
            let pack = self.packs[(squeezed >> (LENGTH_BITS + OFFSET_BITS)) as usize];
            all.entry(pack).or_default().insert(*id);
        }
        all
    }

    /// How many blocks it knows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// It knows none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

const fn depth(form: Form) -> u8 {
    match form {
        Form::Whole => 0,
        Form::Delta { depth, .. } => depth,
    }
}

const fn squeeze(pack: u64, spot: Spot) -> u64 {
    pack << (OFFSET_BITS + LENGTH_BITS) | (spot.offset as u64) << LENGTH_BITS | spot.length as u64
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed() -> impl Strategy<Value = Listed> {
        let spot = (HEAD as u32..FULL as u32, 0..LONGEST as u32);
        (any::<[u8; LENGTH]>(), spot, 0..4_u8, any::<[u8; LENGTH]>()).prop_map(
            |(id, (offset, length), depth, base)| {
                let form = match depth {
                    0 => Form::Whole,
                    depth => Form::Delta { base: BlockId(base), depth },
                };
                Listed { id: BlockId(id), spot: Spot { offset, length }, form }
            },
        )
    }

    /// With a whole block behind each delta.
    fn grounded(mut packs: Vec<Pack>) -> Vec<Pack> {
        let whole = |block: &Listed| match block.form {
            Form::Whole => None,
            Form::Delta { base, .. } => Some(Listed { id: base, form: Form::Whole, ..*block }),
        };
        let blocks = packs.iter().flat_map(|pack| &pack.blocks).filter_map(whole).collect();
        packs.push(Pack { id: PackId([7; LENGTH]), blocks });
        packs
    }

    fn packs() -> impl Strategy<Value = Vec<Pack>> {
        let pack = (any::<[u8; LENGTH]>(), prop::collection::vec(listed(), 0..20));
        prop::collection::vec(pack.prop_map(|(id, blocks)| Pack { id: PackId(id), blocks }), 0..9)
    }

    proptest! {
        #[test]
        fn an_index_is_read_as_it_was_written_and_finds_each_block_and_no_other(packs in packs(), other in any::<[u8; LENGTH]>()) {
            let content = write(&packs);
            prop_assert_eq!(&read(&content).unwrap(), &packs);
            let packs = grounded(packs);
            let index = Index::of(packs.clone()).unwrap();
            for pack in &packs {
                for block in &pack.blocks {
                    let found = index.find(block.id).unwrap();
                    let expected = Found { pack: pack.id, spot: block.spot, depth: depth(block.form) };
                    prop_assert_eq!(found, expected);
                }
            }
            prop_assert_eq!(index.len(), packs.iter().map(|pack| pack.blocks.len()).sum::<usize>());
            prop_assert_eq!(index.find(BlockId(other)), None);
        }

        #[test]
        fn what_some_packs_suffice_for_is_found_among_more_and_its_deltas_lead_to_a_whole_block(
            blocks in prop::collection::vec((0..12_u8, 0..6_usize, 0..4_u8, 0..12_u8), 0..60), leave in 0..6_usize,
        ) {
            let pack = |number: usize| {
                let own = blocks.iter().filter(|(_, pack, ..)| *pack == number);
                let listed = |(id, _, depth, base): &(u8, usize, u8, u8)| {
                    let form = match depth {
                        0 => Form::Whole,
                        depth => Form::Delta { base: BlockId([*base; LENGTH]), depth: *depth },
                    };
                    Listed { id: BlockId([*id; LENGTH]), spot: Spot { offset: HEAD as u32, length: 9 }, form }
                };
                Pack { id: PackId([number as u8; LENGTH]), blocks: own.map(listed).collect() }
            };
            let (_, all) = choose((0..6).map(pack)).unwrap();
            let (_, fewer) = choose((0..6).filter(|number| *number != leave).map(pack)).unwrap();
            for one in &fewer {
                prop_assert!(place(&all, one.id).is_some(), "{one:?}");
            }
            for chosen in [&all, &fewer] {
                for one in chosen {
                    let base = one.base.map(|base| chosen[place(chosen, base).unwrap()].depth);
                    prop_assert!(base.is_none_or(|base| base < one.depth), "{one:?} of {base:?}");
                    prop_assert!(one.depth <= DEEPEST);
                }
            }
        }

        #[test]
        fn any_bytes_are_an_index_or_refused(content in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(packs) = read(&content) {
                prop_assert_eq!(write(&packs).len(), content.len());
            }
        }
    }
}
