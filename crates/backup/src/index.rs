//! Where each block lies. Every object of the index tells of some packs; all of them together are what is known.

use crate::block::Form;
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
        let blocks = (0..count).map(|_| listed(&mut rest)).collect::<Option<_>>().ok_or(NoIndex)?;
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

impl Index {
    /// Of all these packs. A block that lies in several is found in the first.
    ///
    /// # Errors
    /// If there are more packs than can be counted: 1 million, 16 TiB.
    pub fn of(packs: impl IntoIterator<Item = Pack>) -> Result<Self, NoIndex> {
        let (mut index, mut all) = (Self::default(), Vec::new());
        for pack in packs {
            let number = index.packs.len() as u64;
            if number >= 1 << (64 - OFFSET_BITS - LENGTH_BITS) {
                return Err(NoIndex);
            }
            index.packs.push(pack.id);
            all.extend(
                pack.blocks.iter().map(|block| (block.id, squeeze(number, block.spot), depth(block.form))),
            );
        }
        all.sort_unstable();
        all.dedup_by_key(|(id, ..)| *id);
        index.ids = all.iter().map(|(id, ..)| *id).collect();
        index.spots = all.iter().map(|(_, spot, _)| *spot).collect();
        index.depths = all.iter().map(|(.., depth)| *depth).collect();
        Ok(index)
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

    fn packs() -> impl Strategy<Value = Vec<Pack>> {
        let pack = (any::<[u8; LENGTH]>(), prop::collection::vec(listed(), 0..20));
        prop::collection::vec(pack.prop_map(|(id, blocks)| Pack { id: PackId(id), blocks }), 0..9)
    }

    proptest! {
        #[test]
        fn an_index_is_read_as_it_was_written_and_finds_each_block_and_no_other(packs in packs(), other in any::<[u8; LENGTH]>()) {
            let content = write(&packs);
            prop_assert_eq!(&read(&content).unwrap(), &packs);
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
        fn any_bytes_are_an_index_or_refused(content in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(packs) = read(&content) {
                prop_assert_eq!(write(&packs).len(), content.len());
            }
        }
    }
}
