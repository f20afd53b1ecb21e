//! Marks: packs that are to go. A mark is never taken back: it is there for as long as one of its packs, and whoever begins to
//! write while it is there relies on none of them. [`crate::collect`] says why.

use crate::id::{LENGTH, PackId};
use crate::object::{self, Kind};
use crate::parts::take;
use crate::repository::{Repository, Trouble, trouble};
use std::collections::BTreeSet;

const VERSION: u8 = 1;
/// Marks lie here.
pub(crate) const FOLDER: &str = "marks";

/// A mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What it is called.
    pub name: PackId,
    /// When it was made, in microseconds since 1970.
    pub made: i64,
    /// The packs that are to go.
    pub packs: Vec<PackId>,
}

impl Mark {
    /// The object that a mark of this name is.
    pub(crate) fn object_of(name: PackId) -> String {
        format!("{FOLDER}/{name}")
    }

    /// Its content, to be sealed.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.made.to_le_bytes());
        self.packs.iter().for_each(|pack| out.extend_from_slice(&pack.0));
        out
    }

    /// Reads it again; nothing if it is not one of this format.
    #[must_use]
    pub fn read(name: PackId, content: &[u8]) -> Option<Self> {
        let mut rest = content;
        let [VERSION] = take::<1>(&mut rest)? else { return None };
        let made = i64::from_le_bytes(*take(&mut rest)?);
        let (packs, []) = rest.as_chunks::<LENGTH>() else { return None };
        Some(Self { name, made, packs: packs.iter().copied().map(PackId).collect() })
    }
}

/// The packs that are to go, as these marks say.
pub(crate) fn packs_of(marks: &[Mark]) -> BTreeSet<PackId> {
    marks.iter().flat_map(|mark| &mark.packs).copied().collect()
}

impl Repository {
    /// The names of the marks that are there.
    pub(crate) fn mark_names(&self) -> Result<BTreeSet<PackId>, Trouble> {
        let all = self.store.list(FOLDER).map_err(trouble(FOLDER, "listed"))?;
        Ok(all.iter().filter_map(|(name, _)| PackId::parse(name.strip_prefix(FOLDER)?.get(1..)?)).collect())
    }

    /// These marks; one that went meanwhile is left out, its packs are gone.
    ///
    /// # Errors
    /// If one cannot be read: which packs are to go is not known then.
    pub(crate) fn read_marks(&self, names: &BTreeSet<PackId>) -> Result<Vec<Mark>, Trouble> {
        let mut marks = Vec::new();
        for name in names {
            let object = Mark::object_of(*name);
            let content = match self.sealed(&object, Kind::Mark, *name) {
                Ok(content) => content,
                Err(why) if why.is_gone() => continue,
                Err(why) => return Err(why),
            };
            marks.push(Mark::read(*name, &content).ok_or(Trouble::Damaged { name: object })?);
        }
        Ok(marks)
    }

    /// The marks that are there.
    ///
    /// # Errors
    /// If they cannot be listed or read.
    pub fn marks(&self) -> Result<Vec<Mark>, Trouble> {
        self.read_marks(&self.mark_names()?)
    }

    /// The content of an object that has its random name in its own name, too.
    pub(crate) fn sealed(&self, object: &str, kind: Kind, name: PackId) -> Result<Vec<u8>, Trouble> {
        let damaged = || Trouble::Damaged { name: object.to_owned() };
        let head = self.store.read(object, 0, 40).map_err(trouble(object, "read"))?;
        if object::name(&head) != Some(name) {
            return Err(damaged());
        }
        self.object(object, kind)
    }

    /// Writes such an object.
    pub(crate) fn put_sealed(
        &self,
        object: &str,
        kind: Kind,
        name: PackId,
        content: &[u8],
    ) -> Result<(), Trouble> {
        let bytes = object::write_as(&self.keys, kind, name, content);
        self.store.put(object, &bytes).map_err(trouble(object, "written"))
    }

    /// Removes an object. That it is gone already is as well.
    pub(crate) fn remove(&self, object: &str) -> Result<(), Trouble> {
        match self.store.remove(object) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(trouble(object, "removed")(why)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_not_if_it_was_cut() {
        let name = PackId([3; LENGTH]);
        let mark = Mark { name, made: -7, packs: vec![PackId([1; LENGTH]), PackId([2; LENGTH])] };
        let content = mark.write();
        assert_eq!(Mark::read(name, &content).unwrap(), mark);
        let whole = [9, 25, 41];
        for length in (0..content.len()).filter(|length| !whole.contains(length)) {
            assert_eq!(Mark::read(name, &content[..length]), None, "{length}");
        }
    }
}
