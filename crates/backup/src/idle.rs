//! Packs that are to go and that nothing needs: what rots in them is lost to nobody, and no finding. Repair sets hurt packs aside so,
//! until they are collected.

use crate::id::PackId;
use crate::index::choose;
use crate::mark::packs_of;
use crate::repository::{Repository, Trouble};
use crate::usage;
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with these packs, without and then of those that are idle.
pub(crate) fn apart(
    repository: &Repository,
    wrong: BTreeMap<PackId, Vec<String>>,
) -> (Vec<String>, Vec<String>) {
    // Where it cannot be told which those are, there are none.
    let idle = idle(repository, wrong.keys()).unwrap_or_default();
    let (idle, rest): (Vec<_>, Vec<_>) = wrong.into_iter().partition(|(pack, _)| idle.contains(pack));
    let sentences = |all: Vec<(PackId, Vec<String>)>| all.into_iter().flat_map(|(_, wrong)| wrong).collect();
    (sentences(rest), sentences(idle))
}

/// Of these packs those that are marked, and of which no point needs any block. None while a part of the index cannot be
/// read, or a point is hurt: what is needed is not known then.
fn idle<'a>(
    repository: &Repository,
    packs: impl Iterator<Item = &'a PackId>,
) -> Result<BTreeSet<PackId>, Trouble> {
    let marked = packs_of(&repository.marks()?);
    let mut idle: BTreeSet<PackId> = packs.filter(|pack| marked.contains(pack)).copied().collect();
    if idle.is_empty() {
        return Ok(idle);
    }
    if !repository.damaged().is_empty() || !repository.strays().is_empty() {
        return Ok(BTreeSet::new());
    }
    let (mut told, _) = repository.told()?;
    told.iter_mut().for_each(|pack| {
        let id = pack.id;
        pack.blocks.retain(|block| repository.index.reads_in(id, block.id));
    });
    let (names, chosen) = choose(told).map_err(|_| Trouble::Damaged { name: "index".into() })?;
    let mut seen = vec![usage::NOBODY; chosen.len()];
    for name in repository.points()? {
        let is_needed = |at: usize| {
            idle.remove(&names[chosen[at].pack as usize]);
        };
        if usage::point(repository, &name, &chosen, (&mut seen, 0), is_needed).is_none() {
            return Ok(BTreeSet::new());
        }
    }
    Ok(idle)
}
