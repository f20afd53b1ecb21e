//! Where each block lies. Every object of the index tells of some packs; all of them together are what is known.

mod chosen;
mod held;

pub use chosen::{Chosen, choose, place};
pub use held::{Gathered, Index};

use crate::block::Form;
use crate::id::{BlockId, LENGTH, PackId};
use crate::pack::{FULL, HEAD, LONGEST, Spot};
use crate::parts::take;

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

const fn depth(form: Form) -> u8 {
    match form {
        Form::Whole => 0,
        Form::Delta { depth, .. } => depth,
    }
}

const fn base(form: Form) -> Option<BlockId> {
    match form {
        Form::Whole => None,
        Form::Delta { base, .. } => Some(base),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::block::DEEPEST;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

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
                    let expected = Found { pack: pack.id, spot: block.spot, depth: depth(block.form).min(1) };
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
                let own = blocks.iter().filter(|(_, pack, ..)| *pack == number).enumerate();
                let listed = |(at, (id, _, depth, base)): (usize, &(u8, usize, u8, u8))| {
                    let form = match depth {
                        0 => Form::Whole,
                        depth => Form::Delta { base: BlockId([*base; LENGTH]), depth: *depth },
                    };
                    let spot = Spot { offset: (HEAD + 4 + 13 * at) as u32, length: 9 };
                    Listed { id: BlockId([*id; LENGTH]), spot, form }
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
            // What is held finds the same blocks, each in a place where it lies and over a base that is less deep; told of
            // more packs in another order, and without those that do not stay.
            let mut gathered = Gathered::default();
            (0..6).rev().for_each(|number| gathered.add(&pack(number)).unwrap());
            let last = BTreeSet::from([PackId([1; LENGTH])]);
            let without = gathered.choose(|id| usize::from(id.0[0]) != leave, &last);
            for (held, chosen) in [(Index::of((0..6).map(pack)).unwrap(), &all), (without, &fewer)] {
                prop_assert_eq!(held.len(), chosen.len());
                for one in chosen {
                    let found = held.find(one.id).unwrap();
                    let lies = |block: &Listed| block.id == one.id && block.spot == found.spot;
                    let listed = pack(usize::from(found.pack.0[0])).blocks.into_iter().find(lies).unwrap();
                    let base = base(listed.form).map(|base| held.find(base).unwrap().depth);
                    prop_assert_eq!(found.depth, base.map_or(0, |base| base + 1));
                    prop_assert!(found.depth <= one.depth);
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
