//! The keys of a repository: each is the master key, sealed with a secret of its own.

use crate::id::{PackId, RepositoryId};
use crate::key::{self, Cost, KeyError, Master};
use crate::repository::{KEYS_MOST, Repository, Trouble, trouble};
use crate::store::Store;

/// A key, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The object that it is.
    pub name: String,
    /// What its secret costs to try; nothing if it is damaged.
    pub cost: Option<Cost>,
    /// It is the one that the secret opened.
    pub is_own: bool,
}

/// Why keys were not changed.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The repository fails, or the secret opens nothing.
    #[error(transparent)]
    Repository(#[from] Trouble),
    /// There are as many as are tried.
    #[error("a repository has at most {KEYS_MOST} keys")]
    TooMany,
    /// There is no key of that name.
    #[error("there is no key `{0}`")]
    None(String),
    /// Nothing that is known to open the repository would be left.
    #[error("`{0}` is the key that your secret opens: without it you could open nothing")]
    Last(String),
}

/// All keys.
///
/// # Errors
/// If they cannot be listed, or the secret opens none of them.
pub fn list(store: &dyn Store, secret: &[u8]) -> Result<Vec<Slot>, SlotError> {
    let id = Repository::identify(store)?;
    let (own, _) = unlock(store, secret, id)?;
    let mut slots = Vec::new();
    for (name, _) in names(store)? {
        let slot = read(store, &name)?;
        slots.push(Slot { cost: key::cost(&slot), is_own: name == own, name });
    }
    Ok(slots)
}

/// Adds a key: from now on this secret opens the repository, too. Its name.
///
/// # Errors
/// If the old secret opens nothing, there are too many keys, or it cannot be written.
pub fn add(store: &dyn Store, secret: &[u8], new: &[u8], cost: Cost) -> Result<String, SlotError> {
    let id = Repository::identify(store)?;
    let (_, master) = unlock(store, secret, id)?;
    if names(store)?.len() >= KEYS_MOST {
        return Err(SlotError::TooMany);
    }
    let name = format!("keys/{}", PackId::random().map_err(Trouble::from)?);
    let slot = master.lock(new, cost, id).map_err(Trouble::from)?;
    store.put(&name, &slot).map_err(trouble(&name, "written"))?;
    // Read back before anybody relies on it.
    Master::unlock(&read(store, &name)?, new, id).map_err(Trouble::from)?;
    Ok(name)
}

/// Removes a key, never the one that this secret opens: so one that somebody has is always left.
///
/// # Errors
/// If there is none of that name, it is the one that the secret opens, or it cannot be removed.
pub fn remove(store: &dyn Store, secret: &[u8], name: &str) -> Result<(), SlotError> {
    let id = Repository::identify(store)?;
    let (own, _) = unlock(store, secret, id)?;
    if own == name {
        return Err(SlotError::Last(own));
    }
    if !names(store)?.iter().any(|(known, _)| known == name) {
        return Err(SlotError::None(name.to_owned()));
    }
    let kept = read(store, &own)?;
    store.remove(name).map_err(trouble(name, "removed"))?;
    // Two who remove each other's key at once must not leave none.
    if !names(store)?.iter().any(|(known, _)| *known == own) {
        let name = format!("keys/{}", PackId::random().map_err(Trouble::from)?);
        store.put(&name, &kept).map_err(trouble(&name, "written"))?;
    }
    Ok(())
}

/// Puts a new key in place of the one that this secret opens. The new one is there, and was tried, before the old one goes.
///
/// # Errors
/// If the old secret opens nothing, or the repository cannot be written.
pub fn change(store: &dyn Store, secret: &[u8], new: &[u8], cost: Cost) -> Result<String, SlotError> {
    let id = Repository::identify(store)?;
    let (old, _) = unlock(store, secret, id)?;
    let name = add(store, secret, new, cost)?;
    store.remove(&old).map_err(trouble(&old, "removed"))?;
    Ok(name)
}

/// The names of all keys, and whether each looks like one.
pub(crate) fn shapes(store: &dyn Store) -> Result<Vec<(String, bool)>, Trouble> {
    let look = |(name, _): (String, u64)| {
        let is_well = read(store, &name).is_ok_and(|slot| key::cost(&slot).is_some());
        (name, is_well)
    };
    Ok(names(store)?.into_iter().map(look).collect())
}

fn names(store: &dyn Store) -> Result<Vec<(String, u64)>, Trouble> {
    store.list("keys").map_err(trouble("keys", "listed"))
}

fn read(store: &dyn Store, name: &str) -> Result<Vec<u8>, Trouble> {
    store.read(name, 0, 1 << 10).map_err(trouble(name, "read"))
}

/// The master key, and the name of the key that this secret opens.
pub(crate) fn unlock(
    store: &dyn Store,
    secret: &[u8],
    id: RepositoryId,
) -> Result<(String, Master), Trouble> {
    let mut refused = KeyError::Unknown;
    for (name, _) in names(store)?.into_iter().take(KEYS_MOST) {
        match Master::unlock(&read(store, &name)?, secret, id) {
            Ok(master) => return Ok((name, master)),
            Err(why) => refused = why,
        }
    }
    Err(refused.into())
}
