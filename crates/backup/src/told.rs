//! What the index tells of packs, and the packs of themselves where nobody does.

use crate::id::PackId;
use crate::index::{self, Listed};
use crate::object::Kind;
use crate::pack::Records;
use crate::repository::{Repository, Trouble, pack_object, trouble};
use std::collections::BTreeSet;

/// How often the index is listed anew where somebody puts it together.
const LOOKS_MOST: usize = 4;

impl Repository {
    /// What is known of the packs that are there, and which objects of the index cannot be read.
    pub(crate) fn told(&self) -> Result<(Vec<index::Pack>, Vec<String>), Trouble> {
        let mut packs = Vec::new();
        let (there, damaged) = self.each_told(|pack| packs.push(pack))?;
        packs.retain(|pack| there.contains(&pack.id));
        packs.sort_by_key(|pack| pack.id);
        packs.dedup_by_key(|pack| pack.id);
        Ok((packs, damaged))
    }

    /// Visits what is told of packs, some of them twice, and says which packs are there, and which objects of the index cannot be
    /// read. What lay in a pack that is gone is not known any more, and is written again where it is met.
    pub(crate) fn each_told(
        &self,
        mut visit: impl FnMut(index::Pack),
    ) -> Result<(BTreeSet<PackId>, Vec<String>), Trouble> {
        let (mut told, mut damaged) = (BTreeSet::new(), Vec::new());
        let list = || self.store.list("index").map_err(trouble("index", "listed"));
        let (mut names, mut looked, mut looks) = (list()?, BTreeSet::new(), 0);
        while let Some((name, _)) = names.pop() {
            if !looked.insert(name.clone()) {
                continue;
            }
            let packs = self.object(&name, Kind::Index).and_then(|content| {
                index::read(&content).map_err(|_| Trouble::Damaged { name: name.clone() })
            });
            match packs {
                Ok(packs) => packs.into_iter().for_each(|pack| {
                    told.insert(pack.id);
                    visit(pack);
                }),
                // Several were put together meanwhile ([`crate::collect`]): what they told of is told by another.
                Err(why) if why.is_gone() && looks < LOOKS_MOST => {
                    looks += 1;
                    names = list()?;
                }
                Err(why) => damaged.push(why.to_string()),
            }
        }
        let there = self.packs()?;
        if !damaged.is_empty() {
            self.untold(&told, &there)?.into_iter().for_each(visit);
        }
        Ok((there, damaged))
    }

    /// What the packs themselves tell, where nobody else does.
    pub(crate) fn untold(
        &self,
        told: &BTreeSet<PackId>,
        there: &BTreeSet<PackId>,
    ) -> Result<Vec<index::Pack>, Trouble> {
        let mut found = Vec::new();
        for id in there.difference(told).copied() {
            let name = pack_object(id);
            let mut bytes = self.store.read(&name, 0, usize::MAX).map_err(trouble(&name, "read"))?;
            let Ok(mut records) = Records::of(&self.keys, id, &mut bytes) else { continue };
            let mut blocks = Vec::new();
            while let Some(record) = records.next() {
                blocks.extend(record.ok().map(|(spot, record)| Listed {
                    id: record.id,
                    spot,
                    form: record.form,
                }));
            }
            found.push(index::Pack { id, blocks });
        }
        Ok(found)
    }
}
