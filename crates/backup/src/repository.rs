//! A repository that is open: what it has, and the content of any block of it.

use crate::block::{BLOCK, DEEPEST, Damage, Form, Record};
use crate::head::{self, Head};
use crate::id::{BlockId, LENGTH, PackId, RepositoryId};
use crate::index::{Gathered, Index};
use crate::key::{Forged, KeyError, Keys};
use crate::mark::packs_of;
use crate::object::{self, Kind};
use crate::pack::{self, PackError};
use crate::point::{Disk, NoPoint, PAGE, Point};
use crate::slots;
use crate::store::{Store, is_name};
use crate::strays::Strays;
use std::collections::BTreeSet;
use std::io;

/// Keys that are tried, each of which may be there twice.
pub(crate) const KEYS_MOST: usize = 32;
/// The largest object of an index or a point that is read.
const OBJECT_MOST: usize = 128 << 20;

/// What is wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be read or written.
    #[error("`{name}` of the repository cannot be {done}")]
    Store {
        /// The object.
        name: String,
        /// What was tried: read, written, listed.
        done: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is none.
    #[error("there is no repository here")]
    None,
    /// It says so, or it is damaged in just that byte.
    #[error("a later version of this program wrote it, as its object `repository` says")]
    Later,
    /// There is one already.
    #[error("there is a repository here already")]
    Another,
    /// No key of it fits.
    #[error("it cannot be opened")]
    Key(#[from] KeyError),
    /// An index or a point was changed.
    #[error("`{name}` of the repository is damaged")]
    Damaged {
        /// The object.
        name: String,
    },
    /// A block is nowhere.
    #[error("block {0} is missing")]
    Missing(BlockId),
    /// A block cannot be read.
    #[error("block {id} in pack {pack} is damaged: {why}")]
    Block {
        /// The block.
        id: BlockId,
        /// Where it lies.
        pack: PackId,
        /// What is wrong with it.
        why: PackError,
    },
    /// The writer was given up by somebody else while it was at work.
    #[error("the number {sequence} of `{vm}` was given up: somebody thought that its writer had ended")]
    GivenUp {
        /// The VM.
        vm: String,
        /// The number that the point was to have.
        sequence: u64,
    },
    /// Nobody was told that somebody writes: what he relies on might be removed.
    #[error("nothing is written without a session")]
    NoSession,
    /// Others change what it looks at, again and again.
    #[error("others are changing it all the time")]
    Busy,
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom(#[from] getrandom::Error),
}

impl Trouble {
    /// Something is not there that was just listed.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// An open repository.
pub struct Repository {
    pub(crate) store: Box<dyn Store>,
    pub(crate) keys: Keys,
    pub(crate) index: Index,
    /// Packs that are there and must not be relied on: they are to go.
    pub(crate) doomed: BTreeSet<PackId>,
    /// A session began on it.
    pub(crate) is_writing: bool,
    damaged: Vec<String>,
    pub(crate) strays: Strays,
    /// The object of the key that opened it.
    pub(crate) own_key: String,
    pub(crate) head: Head,
}

/// A point that is there, by its name: what `points` lists without reading any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PointName {
    /// The VM.
    pub vm: String,
    /// Its number.
    pub sequence: u64,
}

impl PointName {
    /// The object that it is.
    #[must_use]
    pub fn object(&self) -> String {
        format!("points/{}/{:020}", self.vm, self.sequence)
    }

    pub(crate) fn of(object: &str) -> Option<Self> {
        let (vm, sequence) = object.strip_prefix("points/")?.split_once('/')?;
        let name = Self { vm: vm.to_owned(), sequence: sequence.parse().ok()? };
        (name.object() == object).then_some(name)
    }
}

/// The folder of what is kept of a VM; of all where none is named, or none can have that name.
pub(crate) fn folder_of(kind: &str, vm: Option<&str>) -> String {
    let is_part = |vm: &&str| is_name(vm) && !vm.contains('/');
    vm.filter(is_part).map_or_else(|| kind.to_owned(), |vm| format!("{kind}/{vm}"))
}

pub(crate) fn pack_object(pack: PackId) -> String {
    let name = pack.to_string();
    format!("packs/{}/{name}", &name[..2])
}

/// The pack that an object is; none if a pack of that name would be another object.
pub(crate) fn pack_of(object: &str) -> Option<PackId> {
    PackId::parse(object.rsplit('/').next()?).filter(|pack| pack_object(*pack) == object)
}

pub(crate) fn trouble(name: &str, done: &'static str) -> impl FnOnce(io::Error) -> Trouble {
    let name = name.to_owned();
    move |source| Trouble::Store { name, done, source }
}

impl Repository {
    pub(crate) fn unread(store: Box<dyn Store>, keys: Keys, own_key: String, head: Head) -> Self {
        Self {
            store,
            keys,
            index: Index::default(),
            doomed: BTreeSet::new(),
            is_writing: false,
            damaged: Vec::new(),
            strays: Strays::default(),
            own_key,
            head,
        }
    }

    /// Which repository this seems to be, without a key. What says so may be damaged: see [`Self::told_by_others`].
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn identify(store: &dyn Store) -> Result<RepositoryId, Trouble> {
        match head::read(store)?.1 {
            Some(id) => Ok(id),
            None => head::told(store)?.first().copied().ok_or(Trouble::None),
        }
    }

    /// Which repository this is as its other objects say, likely ones first: for who has no key of the one that [`Self::identify`] names.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn told_by_others(store: &dyn Store) -> Result<Vec<RepositoryId>, Trouble> {
        head::told(store)
    }

    /// How the object is that says which repository this is.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Which repository it is.
    #[must_use]
    pub const fn id(&self) -> RepositoryId {
        self.keys.repository()
    }

    /// Opens one.
    ///
    /// # Errors
    /// If there is none, this secret opens none of its keys, or its index is damaged.
    pub fn open(store: Box<dyn Store>, secret: &[u8]) -> Result<Self, Trouble> {
        let mut repository = Self::open_unread(store, secret)?;
        repository.reload()?;
        Ok(repository)
    }

    /// The same, for somebody who begins a session: that reads the index.
    ///
    /// # Errors
    /// If there is none, or this secret opens none of its keys.
    pub fn open_unread(store: Box<dyn Store>, secret: &[u8]) -> Result<Self, Trouble> {
        let slots::Unlocked { name, master, id, head, .. } = slots::open(&*store, secret)?;
        Ok(Self::unread(store, master.keys(id), name, head))
    }

    /// Reads the index anew: others may have written. Packs that no readable index tells of are read themselves, so a
    /// damaged index costs time and no block.
    ///
    /// # Errors
    /// If the repository cannot be listed, or has more packs than can be counted.
    pub fn reload(&mut self) -> Result<(), Trouble> {
        let doomed = std::mem::take(&mut self.doomed); // of the session that began on it
        self.reload_without(&doomed)
    }

    /// The same, with all packs: for somebody who reads, and writes no more.
    ///
    /// # Errors
    /// If the repository cannot be listed, or has more packs than can be counted.
    pub fn reload_all(&mut self) -> Result<(), Trouble> {
        self.is_writing = false;
        self.reload_without(&BTreeSet::new())
    }

    /// The same, as if these packs were not there.
    pub(crate) fn reload_without(&mut self, gone: &BTreeSet<PackId>) -> Result<(), Trouble> {
        let mut gathered = Gathered::default();
        let mut is_full = false;
        let (there, damaged) = self.each_told(|pack| is_full |= gathered.add(&pack).is_err())?;
        if is_full {
            return Err(Trouble::Damaged { name: "index".into() });
        }
        // What lies in several is read in one that stays: those that are to go may be hurt, or gone in the next moment.
        let marked = packs_of(&self.marks().unwrap_or_default());
        self.index = gathered.choose(|pack| there.contains(pack) && !gone.contains(pack), &marked);
        self.doomed.clone_from(gone);
        self.damaged = damaged;
        self.strays = Strays::default();
        Ok(())
    }

    /// The packs that are there.
    pub(crate) fn packs(&self) -> Result<BTreeSet<PackId>, Trouble> {
        let all = self.store.list("packs").map_err(trouble("packs", "listed"))?;
        Ok(all.iter().filter_map(|(name, _)| pack_of(name)).collect())
    }

    /// Where it lies.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Objects of the index that cannot be read, a sentence each.
    #[must_use]
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    pub(crate) fn object(&self, name: &str, kind: Kind) -> Result<Vec<u8>, Trouble> {
        let mut bytes = self.store.read(name, 0, OBJECT_MOST).map_err(trouble(name, "read"))?;
        let damaged = |Forged| Trouble::Damaged { name: name.to_owned() };
        object::read(&self.keys, kind, &mut bytes).map(<[u8]>::to_vec).map_err(damaged)
    }

    /// Its points, by VM and number.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn points(&self) -> Result<Vec<PointName>, Trouble> {
        self.points_of(None)
    }

    /// Those of this VM, of all VMs if none is named.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn points_of(&self, vm: Option<&str>) -> Result<Vec<PointName>, Trouble> {
        let folder = folder_of("points", vm);
        let all = self.store.list(&folder).map_err(trouble(&folder, "listed"))?;
        let is_point = |name: &str, length: u64| {
            length != object::EMPTY || self.object(name, Kind::Void).is_err() // a number that was given up
        };
        let points = all.iter().filter(|(name, length)| is_point(name, *length));
        let names = points.filter_map(|(name, _)| PointName::of(name));
        Ok(names.filter(|name| vm.is_none_or(|vm| vm == name.vm)).collect())
    }

    /// A point.
    ///
    /// # Errors
    /// If it cannot be read, was changed, or is another than its name says (A35).
    pub fn point(&self, name: &PointName) -> Result<Point, Trouble> {
        let object = name.object();
        let content = self.object(&object, Kind::Point)?;
        let point = Point::read(&content).map_err(|NoPoint| Trouble::Damaged { name: object.clone() })?;
        let is_it = point.vm == name.vm && point.sequence == name.sequence;
        is_it.then_some(point).ok_or(Trouble::Damaged { name: object })
    }

    /// Makes the content of a block in `block`, and compares it with its name.
    ///
    /// # Errors
    /// If it, or a block that it differs from, is missing or damaged.
    pub fn block(&self, id: BlockId, block: &mut Vec<u8>) -> Result<(), Trouble> {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next.filter(|_| chain.len() <= usize::from(DEEPEST)) {
            let (pack, opened) = self.record(id)?;
            let record = Record::read(&opened).map_err(|why| damaged(id, pack, why))?;
            next = match record.form {
                Form::Whole => None,
                Form::Delta { base, .. } => Some(base),
            };
            chain.push((id, pack, opened));
        }
        for (id, pack, opened) in chain.iter().rev() {
            let unfolded = Record::read(opened).and_then(|record| record.unfold(block));
            unfolded.map_err(|why| damaged(*id, *pack, why))?;
        }
        let pack = chain.first().map_or(PackId(id.0), |(_, pack, _)| *pack);
        if self.keys.name(block) == id { Ok(()) } else { Err(damaged(id, pack, Damage::Other)) }
    }

    /// The whole block that the deltas from this one on lead to.
    ///
    /// # Errors
    /// If one of them is missing or damaged.
    pub fn root(&self, id: BlockId) -> Result<BlockId, Trouble> {
        let mut at = id;
        for _ in 0..=DEEPEST {
            let (pack, opened) = self.record(at)?;
            match Record::read(&opened).map_err(|why| damaged(at, pack, why))?.form {
                Form::Whole => return Ok(at),
                Form::Delta { base, .. } => at = base,
            }
        }
        Err(Trouble::Missing(id))
    }

    /// Whether this page and all blocks that it names are where they can be read.
    #[must_use]
    pub fn has_page(&self, disk: &Disk, number: usize) -> bool {
        let known = |name: &BlockId| *name == BlockId::HOLE || self.index.find(*name).is_some();
        self.page(disk, number).is_ok_and(|names| names.iter().all(known))
    }

    /// The names of the blocks of a page of a disk; holes beyond its end.
    ///
    /// # Errors
    /// If the page is missing or damaged.
    pub fn page(&self, disk: &Disk, number: usize) -> Result<Vec<BlockId>, Trouble> {
        let mut names = vec![BlockId::HOLE; PAGE];
        let Some(page) = disk.pages.get(number).filter(|page| **page != BlockId::HOLE) else {
            return Ok(names);
        };
        let mut content = Vec::new();
        self.block(*page, &mut content)?;
        for (name, bytes) in names.iter_mut().zip(content.as_chunks::<LENGTH>().0) {
            *name = BlockId(*bytes);
        }
        Ok(names)
    }

    /// Bytes of the blocks of a disk that hold something; a page that cannot be read holds nothing.
    #[must_use]
    pub fn used(&self, disk: &Disk) -> u64 {
        let pages = (0..disk.pages.len()).filter_map(|number| self.page(disk, number).ok());
        let used = pages.flatten().filter(|name| *name != BlockId::HOLE).count();
        (used * BLOCK) as u64
    }

    /// The opened record of a block.
    fn record(&self, id: BlockId) -> Result<(PackId, Vec<u8>), Trouble> {
        let found = self.find(id).ok_or(Trouble::Missing(id))?;
        let name = pack_object(found.pack);
        let length = found.spot.length as usize;
        let mut sealed =
            self.store.read(&name, u64::from(found.spot.offset), length).map_err(trouble(&name, "read"))?;
        let opened = pack::open(&self.keys, found.pack, found.spot, id, &mut sealed);
        opened.map_err(|why| Trouble::Block { id, pack: found.pack, why })?;
        sealed.truncate(length.saturating_sub(crate::key::TAG)); // opened in place
        Ok((found.pack, sealed))
    }
}

fn damaged(id: BlockId, pack: PackId, why: Damage) -> Trouble {
    Trouble::Block { id, pack, why: why.into() }
}
