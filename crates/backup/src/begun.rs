//! A repository is made in two steps, so that whoever makes it can keep what opens it between them: wherever he is killed, there is one
//! that he can open, or none.

use crate::head::{self, HEAD, Head};
use crate::id::RepositoryId;
use crate::key::{Cost, Keys, Master};
use crate::repository::{Repository, Trouble, trouble};
use crate::slots;
use crate::store::Store;
use std::io;

/// A repository that has a key, and that nobody looks for yet.
pub struct Begun {
    store: Box<dyn Store>,
    keys: Keys,
    /// The object of its key.
    key: String,
    /// Keys that somebody left who was killed in just this state: they open nothing.
    left: Vec<String>,
}

impl Repository {
    /// Makes a new one, which this secret opens.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub fn create(store: Box<dyn Store>, secret: &[u8], cost: Cost) -> Result<Self, Trouble> {
        Self::begin(store, secret, cost)?.finish()
    }

    /// The first step: the key is there, and no repository.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub fn begin(store: Box<dyn Store>, secret: &[u8], cost: Cost) -> Result<Begun, Trouble> {
        if head::read(&*store)?.0 != Head::Gone || head::is_used(&*store)? {
            return Err(Trouble::Another); // or what says so is gone
        }
        let left = store.list("keys").map_err(trouble("keys", "listed"))?;
        let (id, master) = (RepositoryId::random()?, Master::random()?);
        let key = format!("keys/{id}");
        slots::put(&*store, &key, &master.lock(secret, cost, id)?)?;
        let left =
            left.into_iter().map(|(name, _)| name).filter(|name| slots::is_key(&*store, name)).collect();
        Ok(Begun { store, keys: master.keys(id), key, left })
    }
}

impl Begun {
    /// Which repository it will be.
    #[must_use]
    pub const fn id(&self) -> RepositoryId {
        self.keys.repository()
    }

    /// The second step: now it is one.
    ///
    /// # Errors
    /// If somebody else made one meanwhile, or it cannot be written: then nothing is left of this one.
    pub fn finish(self) -> Result<Repository, Trouble> {
        if let Err(source) = self.store.put(HEAD, &head::object(self.id())) {
            let is_there = source.kind() == io::ErrorKind::AlreadyExists;
            self.give_up();
            return Err(if is_there { Trouble::Another } else { trouble(HEAD, "written")(source) });
        }
        for name in &self.left {
            let _ = self.store.remove(name); // only now: whoever else had begun cannot finish any more
        }
        Ok(Repository::unread(self.store, self.keys, self.key, Head::Well))
    }

    /// Takes the key away again, after the head, should it be there. What stays is of no use to anybody, and in nobody's way.
    pub fn give_up(&self) {
        let is_there = head::read(&*self.store).is_ok_and(|(_, id)| id == Some(self.id()));
        if is_there && self.store.remove(HEAD).is_err() {
            return; // a head without a key would open to nobody
        }
        for name in slots::both(&self.key) {
            let _ = self.store.remove(&name);
        }
    }
}
