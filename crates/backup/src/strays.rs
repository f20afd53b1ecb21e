//! Packs of which no index tells: because an object of it is gone, and then nothing that they hold is lost; or because they are not of
//! this repository, and then they are nobody's to take away.

use crate::id::{BlockId, PackId};
use crate::index::{Found, Index};
use crate::mark::packs_of;
use crate::pack::{HEAD, Records};
use crate::repository::{Repository, Trouble, pack_object};
use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What is in them. They are looked for once a block is missing, and only by those who read: what a writer relies on must be
/// told of, or it may be collected.
#[derive(Default)]
pub(crate) struct Strays {
    index: OnceLock<Index>,
    /// Packs that something was found in.
    needed: Mutex<BTreeSet<PackId>>,
}

impl Repository {
    /// Where a block lies.
    pub(crate) fn find(&self, id: BlockId) -> Option<Found> {
        let known = self.index.find(id);
        if known.is_some() || self.is_writing {
            return known;
        }
        let strays = self.strays.index.get_or_init(|| self.with_strays().unwrap_or_default());
        let found = strays.find(id)?;
        self.strays.needed.lock().unwrap_or_else(PoisonError::into_inner).insert(found.pack);
        Some(found)
    }

    /// Everything that is known, and what packs themselves tell of which nobody does.
    fn with_strays(&self) -> Result<Index, Trouble> {
        let (mut packs, _) = self.told()?;
        let mut there = self.packs()?;
        // What is to go is told of no more, and may be hurt.
        let marked = packs_of(&self.marks()?);
        there.retain(|pack| !marked.contains(pack));
        let told = packs.iter().map(|pack| pack.id).collect();
        packs.extend(self.untold(&told, &there)?);
        Index::of(packs).map_err(|_| Trouble::Damaged { name: "index".into() })
    }

    /// Of these packs those that are not known to be ours: no index tells of them, no mark names them, and their heads are of something
    /// else, or cannot be read. Somebody may need them.
    pub(crate) fn strangers(
        &self,
        packs: impl Iterator<Item = PackId>,
        told: &BTreeSet<PackId>,
        marked: &BTreeSet<PackId>,
    ) -> BTreeSet<PackId> {
        let is_ours = |pack: &PackId| {
            let head = self.store.read(&pack_object(*pack), 0, HEAD);
            head.is_ok_and(|mut head| Records::of(&self.keys, *pack, &mut head).is_ok())
        };
        packs.filter(|pack| !told.contains(pack) && !marked.contains(pack) && !is_ours(pack)).collect()
    }

    /// Packs of which the index should tell and does not: blocks were looked for, and found only there.
    pub(crate) fn strays(&self) -> BTreeSet<PackId> {
        self.strays.needed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
