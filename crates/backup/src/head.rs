//! Which repository this is: the object `repository` says so. Should that be damaged or gone, the head of every other object does, and
//! whether it is true says the key, which opens in one repository only.

use crate::id::{LENGTH, PackId, RepositoryId};
use crate::repository::{Trouble, trouble};
use crate::store::Store;
use std::collections::BTreeMap;
use std::io;

/// The object that says it.
pub(crate) const HEAD: &str = "repository";
/// What it begins with, but for the version.
const MAGIC: &[u8; 7] = b"HFREPO\0";
const VERSION: u8 = 1;
/// So many objects of a folder are asked.
const ASKED_MOST: usize = 16;
/// So many answers are tried.
pub(crate) const TOLD_MOST: usize = 8;

/// How the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// As it was written.
    Well,
    /// It is something else.
    Damaged,
    /// It is not there.
    Gone,
}

impl Head {
    /// What is wrong with it, a sentence.
    #[must_use]
    pub const fn wrong(self) -> Option<&'static str> {
        match self {
            Self::Well => None,
            Self::Damaged => {
                Some("`repository` of the repository is damaged: which it is was told by other objects")
            }
            Self::Gone => {
                Some("`repository` of the repository is gone: which it is was told by other objects")
            }
        }
    }
}

/// The object of this repository.
pub(crate) fn object(id: RepositoryId) -> Vec<u8> {
    [&MAGIC[..], &[VERSION], &id.0].concat()
}

/// What the object says.
pub(crate) fn read(store: &dyn Store) -> Result<(Head, Option<RepositoryId>), Trouble> {
    let bytes = match store.read(HEAD, 0, 64) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok((Head::Gone, None)),
        Err(why) => return Err(trouble(HEAD, "read")(why)),
    };
    let said = bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first);
    match said {
        Some((&VERSION, id)) => {
            let id = id.try_into().ok().map(RepositoryId);
            Ok((id.map_or(Head::Damaged, |_| Head::Well), id))
        }
        Some(_) => Err(Trouble::Later),
        None => Ok((Head::Damaged, None)),
    }
}

/// What other objects say, what most of them do first. It is worth what the key says to it.
pub(crate) fn told(store: &dyn Store) -> Result<Vec<RepositoryId>, Trouble> {
    let mut counts = BTreeMap::<RepositoryId, usize>::new();
    for folder in ["index", "points", "packs"] {
        let listed = store.list(folder).map_err(trouble(folder, "listed"))?;
        for (name, _) in listed.iter().rev().take(ASKED_MOST) {
            let head = store.read(name, 0, 8 + LENGTH).unwrap_or_default(); // another may be read
            let id = head.strip_prefix(b"HF").and_then(|rest| rest.split_first_chunk::<6>());
            let id = id.filter(|(magic, _)| magic[5] == VERSION).and_then(|(_, id)| id.try_into().ok());
            id.into_iter().for_each(|id| *counts.entry(RepositoryId(id)).or_default() += 1);
        }
    }
    let mut told: Vec<_> = counts.into_iter().map(|(id, count)| (count, id)).collect();
    told.sort_unstable_by(|one, other| other.cmp(one));
    let told = told.into_iter().map(|(_, id)| id);
    // The first key has its name; an empty repository has nothing else.
    let keys = store.list("keys").map_err(trouble("keys", "listed"))?;
    let named = keys.iter().filter_map(|(name, _)| PackId::parse(name.strip_prefix("keys/")?));
    let mut all: Vec<_> = told.chain(named.map(|name| RepositoryId(name.0))).take(TOLD_MOST).collect();
    all.dedup();
    Ok(all)
}

/// Whether something is there that only a repository has.
pub(crate) fn is_used(store: &dyn Store) -> Result<bool, Trouble> {
    let has = |folder: &str| store.list(folder).map(|all| !all.is_empty()).map_err(trouble(folder, "listed"));
    Ok(has("index")? || has("points")? || has("packs")?)
}
