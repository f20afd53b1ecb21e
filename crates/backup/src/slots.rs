//! The keys of a repository: each is the master key, sealed with a secret of its own, and lies there twice: without any key
//! all is lost.

use crate::head;
use crate::id::{PackId, RepositoryId};
use crate::key::{self, Cost, KeyError, Master, SLOT};
use crate::repository::{KEYS_MOST, Repository, Trouble, trouble};
use crate::store::Store;
use std::collections::BTreeMap;
use std::io;

/// What the name of the second of the two ends with.
const COPY: &str = ".copy";
/// So many objects are looked at.
const OBJECTS_MOST: usize = 8 * KEYS_MOST;
/// KiB that are filled at most to try one secret, all keys and rounds together: 32 passphrases take three quarters of it. Whoever
/// can write to a repository can put keys there that cost more (I18).
const WORK_MOST: u64 = 8 << 20;
/// So often a key is removed that comes back.
const TRIES: usize = 3;

/// A key, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The object that it is.
    pub name: String,
    /// What its secret costs to try; nothing if it is damaged.
    pub cost: Option<Cost>,
    /// It is the one that the secret opened.
    pub is_own: bool,
    /// How its two objects are.
    pub pair: Pair,
}

/// How the two objects of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    /// Both are there, and say the same.
    Well,
    /// One is there, which looks like a key.
    Alone,
    /// One of them looks like no key.
    Hurt,
    /// Both look like a key, and are not the same.
    Differs,
    /// Nothing that is there looks like a key.
    Strange,
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
    let own = open(store, secret)?;
    let slot = |(name, objects): (String, Vec<Object>)| {
        let cost = objects.iter().find_map(|object| key::cost(&object.bytes));
        Slot { cost, is_own: name == stem(&own.name), pair: pair(&objects), name }
    };
    Ok(keys(store)?.into_iter().map(slot).collect())
}

/// Adds a key: from now on this secret opens the repository, too. Its name; that of the one that there is, if it does already: an `add`
/// that was killed is finished, and a secret has one key.
///
/// # Errors
/// If the old secret opens nothing, there are too many keys, or it cannot be written.
pub fn add(store: &dyn Store, secret: &[u8], new: &[u8], cost: Cost) -> Result<String, SlotError> {
    let own = open(store, secret)?;
    if secret != new
        && let Ok(there) = open(store, new)
    {
        return Ok(twice(store, &there)?);
    }
    if keys(store)?.values().filter(|objects| pair(objects) != Pair::Strange).count() >= KEYS_MOST {
        return Err(SlotError::TooMany);
    }
    let name = format!("keys/{}", PackId::random().map_err(Trouble::from)?);
    let slot = own.master.lock(new, cost, own.id).map_err(Trouble::from)?;
    put(store, &name, &slot)?;
    // Read back before anybody relies on it.
    for name in both(&name) {
        Master::unlock(&read(store, &name)?, new, own.id).map_err(Trouble::from)?;
    }
    Ok(name)
}

/// Removes a key, never the one that this secret opens: so one that somebody has is always left.
///
/// # Errors
/// If there is none of that name, it is the one that the secret opens, or it cannot be removed.
pub fn remove(store: &dyn Store, secret: &[u8], name: &str) -> Result<(), SlotError> {
    let (own, name) = (open(store, secret)?, stem(name));
    if stem(&own.name) == name {
        return Err(SlotError::Last(name.to_owned()));
    }
    if !keys(store)?.contains_key(name) {
        return Err(SlotError::None(name.to_owned()));
    }
    take_away(store, name, &own.slot)?;
    // Two who remove each other's key at once must not leave none.
    if !keys(store)?.contains_key(stem(&own.name)) {
        let name = format!("keys/{}", PackId::random().map_err(Trouble::from)?);
        put(store, &name, &own.slot)?;
    }
    Ok(())
}

/// Puts a new key in place of all that this secret opens. The new one is there, and was tried, before the old ones go.
///
/// # Errors
/// If the old secret opens nothing, or the repository cannot be written.
pub fn change(store: &dyn Store, secret: &[u8], new: &[u8], cost: Cost) -> Result<String, SlotError> {
    let old = open(store, secret)?;
    let name = add(store, secret, new, cost)?;
    take_away(store, stem(&old.name), &[])?;
    if secret == new {
        return Ok(name);
    }
    loop {
        match open(store, secret) {
            Ok(another) => take_away(store, stem(&another.name), &[])?,
            Err(Trouble::Key(_)) => return Ok(name),
            Err(why) => return Err(why.into()),
        }
    }
}

/// Puts the second object of a key there, if it is gone. Its name.
fn twice(store: &dyn Store, key: &Unlocked) -> Result<String, Trouble> {
    let name = stem(&key.name).to_owned();
    for object in both(&name) {
        match store.put(&object, &key.slot) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => {
                return Err(trouble(&object, "written")(why));
            }
            _ => {}
        }
    }
    Ok(name)
}

/// Puts a key there twice; or not at all, unless what was put cannot be removed either.
pub(crate) fn put(store: &dyn Store, name: &str, slot: &[u8]) -> Result<(), Trouble> {
    let [first, second] = both(name);
    store.put(&first, slot).map_err(trouble(&first, "written"))?;
    store.put(&second, slot).map_err(|why| {
        let _ = store.remove(&first); // nobody was told of it
        trouble(&second, "written")(why)
    })
}

/// The two names of a key.
pub(crate) fn both(name: &str) -> [String; 2] {
    [name.to_owned(), format!("{name}{COPY}")]
}

/// Removes both objects of a key, and others of the same bytes, but for these: a secret that goes opens nothing any more.
fn take_away(store: &dyn Store, name: &str, kept: &[u8]) -> Result<(), Trouble> {
    let mut opened: Vec<Vec<u8>> = Vec::new();
    for _ in 0..TRIES {
        let all = objects(store)?;
        let own = all.iter().filter(|object| stem(&object.name) == name);
        opened.extend(own.map(|object| object.bytes.clone()).filter(|bytes| key::cost(bytes).is_some()));
        let goes = |object: &&Object| {
            stem(&object.name) == name || (opened.contains(&object.bytes) && object.bytes != kept)
        };
        let doomed: Vec<&Object> = all.iter().filter(goes).collect();
        if doomed.is_empty() {
            return Ok(()); // nor did somebody who repairs put it back meanwhile
        }
        for object in doomed {
            match store.remove(&object.name) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => {
                    return Err(trouble(&object.name, "removed")(why));
                }
                _ => {}
            }
        }
    }
    Err(Trouble::Busy)
}

/// What was done about keys of which one of the two objects is damaged or not there.
#[derive(Debug, Default)]
pub(crate) struct Renewed {
    /// Objects that were written anew.
    pub(crate) written: Vec<String>,
    /// What nobody here can tell, a sentence each. It stays as it is.
    pub(crate) left: Vec<String>,
}

/// Puts what is well of each key in place of what is not: of the own one what opened, of another what alone looks like a key.
pub(crate) fn renew(repository: &Repository) -> Result<Renewed, Trouble> {
    let (store, own) = (&*repository.store, &repository.own_key);
    let mut done = Renewed::default();
    for (name, objects) in keys(store)? {
        let is_own = |object: &&Object| object.name == *own;
        let well = match pair(&objects) {
            Pair::Well => continue,
            Pair::Alone | Pair::Hurt => objects.iter().find(|object| key::cost(&object.bytes).is_some()),
            Pair::Differs => objects.iter().find(is_own),
            Pair::Strange => None,
        };
        let Some(well) = well else {
            done.left.extend(wrong(&name, pair(&objects)));
            continue;
        };
        let [first, second] = both(&name);
        let other = if well.name == first { second } else { first };
        if objects.iter().any(|object| object.name == other) {
            store.remove(&other).map_err(trouble(&other, "removed"))?;
        }
        store.put(&other, &well.bytes).map_err(trouble(&other, "written"))?;
        // Whoever removed this key meanwhile did not see what was put now.
        if matches!(store.read(&well.name, 0, 1), Err(why) if why.kind() == io::ErrorKind::NotFound) {
            store.remove(&other).map_err(trouble(&other, "removed"))?;
        } else {
            done.written.push(other);
        }
    }
    Ok(done)
}

/// What is wrong with keys, a sentence each; and those that lie there once, which is how they were put there before.
pub(crate) fn look(store: &dyn Store) -> Result<(Vec<String>, Vec<String>), Trouble> {
    let (mut all, mut alone) = (Vec::new(), Vec::new());
    for (name, objects) in keys(store)? {
        let pair = pair(&objects);
        all.extend(wrong(&name, pair));
        alone.extend((pair == Pair::Alone).then_some(name));
    }
    Ok((all, alone))
}

fn wrong(name: &str, pair: Pair) -> Option<String> {
    match pair {
        Pair::Well | Pair::Alone => None,
        Pair::Hurt => Some(format!(
            "one of the two objects of the key `{name}` is damaged; the other opens the repository"
        )),
        Pair::Differs => Some(format!(
            "the two objects of the key `{name}` are not the same: one is damaged, and `repair` by who has its secret writes it anew"
        )),
        Pair::Strange => Some(format!("`{name}` is no key, or damaged, and stays")),
    }
}

fn pair(objects: &[Object]) -> Pair {
    let looks = |object: &Object| key::cost(&object.bytes).is_some();
    match objects {
        [one, other] if looks(one) && looks(other) => {
            if one.bytes == other.bytes {
                Pair::Well
            } else {
                Pair::Differs
            }
        }
        [one, other] if looks(one) || looks(other) => Pair::Hurt,
        [one] if looks(one) => Pair::Alone,
        _ => Pair::Strange,
    }
}

/// An object that may be a key.
struct Object {
    name: String,
    bytes: Vec<u8>,
}

/// The objects that are kept with keys, those first that are as long as a key: what else lies there pushes none of them out.
fn objects(store: &dyn Store) -> Result<Vec<Object>, Trouble> {
    let mut all = store.list("keys").map_err(trouble("keys", "listed"))?;
    all.sort_by_key(|(_, length)| *length != SLOT as u64);
    let mut found = Vec::new();
    for (name, _) in all.into_iter().take(OBJECTS_MOST) {
        match read(store, &name) {
            Ok(bytes) => found.push(Object { name, bytes }),
            Err(why) if why.is_gone() => {} // removed meanwhile
            Err(why) => return Err(why),
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Keys by name, each with its one or two objects.
fn keys(store: &dyn Store) -> Result<BTreeMap<String, Vec<Object>>, Trouble> {
    let mut keys = BTreeMap::<String, Vec<Object>>::new();
    for object in objects(store)? {
        keys.entry(stem(&object.name).to_owned()).or_default().push(object);
    }
    Ok(keys)
}

/// Whether an object is called like a key, and looks like one.
pub(crate) fn is_key(store: &dyn Store, name: &str) -> bool {
    let is_name = stem(name).strip_prefix("keys/").is_some_and(|name| PackId::parse(name).is_some());
    is_name && read(store, name).is_ok_and(|bytes| key::cost(&bytes).is_some())
}

fn stem(name: &str) -> &str {
    name.strip_suffix(COPY).unwrap_or(name)
}

fn read(store: &dyn Store, name: &str) -> Result<Vec<u8>, Trouble> {
    store.read(name, 0, 1 << 10).map_err(trouble(name, "read"))
}

/// What a secret opened.
pub(crate) struct Unlocked {
    /// The object that it opens.
    pub(crate) name: String,
    /// What that holds.
    slot: Vec<u8>,
    pub(crate) master: Master,
    pub(crate) id: RepositoryId,
    pub(crate) head: head::Head,
}

/// Opens a repository, also one of which `repository` is damaged or gone.
pub(crate) fn open(store: &dyn Store, secret: &[u8]) -> Result<Unlocked, Trouble> {
    let (head, id) = head::read(store)?;
    let refused = match id.map(|id| unlock(store, secret, &[id], head)) {
        Some(Ok(unlocked)) => return Ok(unlocked),
        Some(Err(Trouble::Key(why))) => Some(Trouble::Key(why)),
        Some(Err(why)) => return Err(why),
        None => None,
    };
    let told: Vec<_> = head::told(store)?.into_iter().filter(|told| Some(*told) != id).collect();
    if told.is_empty() {
        return Err(refused.unwrap_or(Trouble::None));
    }
    let head = if head == head::Head::Well { head::Head::Damaged } else { head };
    unlock(store, secret, &told, head).map_err(|why| refused.unwrap_or(why))
}

/// Tries the keys, the cheapest first, each content once, with so much work at most.
fn unlock(
    store: &dyn Store,
    secret: &[u8],
    ids: &[RepositoryId],
    head: head::Head,
) -> Result<Unlocked, Trouble> {
    let costed = |object: Object| Some((key::cost(&object.bytes)?.work(), object));
    let mut all: Vec<(u64, Object)> = objects(store)?.into_iter().filter_map(costed).collect();
    all.sort_by(|one, other| (one.0, &one.1.bytes).cmp(&(other.0, &other.1.bytes)));
    all.dedup_by(|one, other| one.1.bytes == other.1.bytes);
    let (mut work, mut untried) = (0_u64, 0);
    let is_none = all.is_empty();
    for (number, (cost, Object { name, bytes })) in all.into_iter().enumerate() {
        work = work.saturating_add(cost);
        if work > WORK_MOST || number >= KEYS_MOST * 2 {
            untried += 1;
            continue;
        }
        if let Ok((master, id)) = Master::unlock_any(&bytes, secret, ids) {
            return Ok(Unlocked { name, slot: bytes, master, id, head });
        }
    }
    Err(Trouble::Key(match untried {
        _ if is_none => KeyError::Gone,
        0 => KeyError::Wrong,
        untried => KeyError::TooMuch { untried },
    }))
}
