//! Where each block of some packs is read, with all that is known of it: for those who work with all blocks at once.

use super::{Listed, NoIndex, Pack, base, depth};
use crate::block::DEEPEST;
use crate::id::{BlockId, PackId};
use crate::pack::Spot;

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

/// For each block of these packs the place where it is read, in the order of their names: that to which the fewest deltas
/// lead, and of those the first; the packs are numbered in the order of their names. A block to which no whole one leads has
/// no place. So more packs never make a block harder to reach, and one that some packs suffice for is found in any that hold
/// those (I13 rests on this).
///
/// # Errors
/// If there are more packs than can be counted.
pub fn choose(packs: impl IntoIterator<Item = Pack>) -> Result<(Vec<PackId>, Vec<Chosen>), NoIndex> {
    let mut packs: Vec<Pack> = packs.into_iter().collect();
    packs.sort_by_key(|pack| pack.id);
    packs.dedup_by_key(|pack| pack.id);
    u32::try_from(packs.len()).map_err(|_| NoIndex)?;
    let chosen = |(number, pack): (usize, &Pack)| {
        let of = |block: &Listed| Chosen {
            id: block.id,
            pack: number as u32,
            spot: block.spot,
            depth: depth(block.form),
            base: base(block.form),
        };
        pack.blocks.iter().map(of).collect::<Vec<_>>()
    };
    let all = packs.iter().enumerate().flat_map(chosen).collect();
    Ok((packs.iter().map(|pack| pack.id).collect(), best(all)))
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
