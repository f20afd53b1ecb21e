//! A disk that breaks where a test wants it to: no room, failed syncs, and power cuts that tear and
//! reorder whatever had not been synced. Only for tests.
//!
//! The rules are those of a careless but legal file system: a write survives only after its file was
//! synced, a name only after its folder was; of the rest any part may survive, writes in any order and
//! torn at sectors, changes of names in their order. After a failed sync the unsynced writes can still
//! be read and are lost at the power cut, although a second sync succeeds.

use super::{Disk, Listed, NewFile};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

/// A disk that breaks on demand.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<State>>);

/// What goes wrong, and when. Operations that change something are counted from zero.
#[derive(Clone, Copy, Debug, Default)]
pub enum Plan {
    /// Nothing.
    #[default]
    Fine,
    /// From this operation on, for so many, there is no room; each write gets this share of 256 through.
    Full { from: usize, count: usize, share: u8 },
    /// This operation fails.
    Fails { at: usize },
    /// The power fails during this operation; it and all later ones fail.
    Cut { at: usize },
}

#[derive(Default)]
struct State {
    plan: Plan,
    operations: usize,
    removed: Vec<String>,
    /// All files, by number.
    files: Vec<Content>,
    /// The names as programs see them.
    names: BTreeMap<String, usize>,
    /// The names that survive a power cut.
    durable: BTreeMap<String, usize>,
    /// Changes of names that may or may not survive, in order.
    changes: Vec<Change>,
}

#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
    lost: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Change {
    fn folder(&self) -> &str {
        let (Self::Create(name, _) | Self::Rename(name, _) | Self::Remove(name)) = self;
        name.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, number) => drop(names.insert(name.clone(), *number)),
            Self::Rename(from, to) => {
                if let Some(number) = names.remove(from) {
                    names.insert(to.clone(), number);
                }
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

impl Content {
    fn seen(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (at, more) in self.lost.iter().chain(&self.pending) {
            put(&mut bytes, *at, more);
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: u64, more: &[u8]) {
    let at = usize::try_from(at).expect("small files");
    if bytes.len() < at + more.len() {
        bytes.resize(at + more.len(), 0);
    }
    bytes[at..at + more.len()].copy_from_slice(more);
}

/// A small generator of numbers, good enough to choose what breaks.
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("64 bit") % limit.max(1)
    }
}

impl FaultyDisk {
    /// An empty one.
    pub fn new(plan: Plan) -> Self {
        let disk = Self::default();
        disk.plan(plan);
        disk
    }

    /// What goes wrong from now on; operations are counted from zero again.
    pub fn plan(&self, plan: Plan) {
        let mut state = self.state();
        state.plan = plan;
        state.operations = 0;
    }

    /// How many operations there were since the plan was made.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// The files that were removed under their final name.
    pub fn removed(&self) -> Vec<String> {
        self.state().removed.clone()
    }

    /// A file as it is seen now, changed at will.
    pub fn spoil(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let number = state.names[file];
        let mut bytes = state.files[number].seen();
        change(&mut bytes);
        state.files[number] = Content { durable: bytes, ..Content::default() };
    }

    /// The disk as it is found after a power cut; `seed` chooses what survived of the unsynced.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let state = self.state();
        let mut names = state.durable.clone();
        for change in &state.changes[..dice.below(state.changes.len() + 1)] {
            change.apply(&mut names);
        }
        let files: Vec<Content> = state.files.iter().map(|file| survive(file, &mut dice)).collect();
        drop(state);
        let found = State { files, durable: names.clone(), names, ..State::default() };
        Self(Arc::new(Mutex::new(found)))
    }

    /// The disk as it is found after the program was killed: the kernel forgets nothing.
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let found = State {
            files: state.files.clone(),
            names: state.names.clone(),
            durable: state.durable.clone(),
            changes: state.changes.clone(),
            ..State::default()
        };
        Self(Arc::new(Mutex::new(found)))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with it")
    }
}

/// What is left of a file: any of the unsynced writes, in any order, each torn at sectors.
fn survive(file: &Content, dice: &mut Dice) -> Content {
    const SECTOR: usize = 64; // smaller than real ones, so that small frames are torn too
    let mut bytes = file.durable.clone();
    let mut left = file.pending.clone();
    while !left.is_empty() && dice.below(8) > 0 {
        let (at, mut more) = left.swap_remove(dice.below(left.len()));
        let start = usize::try_from(at).expect("small files");
        let mode = dice.below(4);
        if mode == 0 {
            more.truncate(dice.below(more.len() + 1)); // the end is missing
        }
        let old = bytes.clone();
        put(&mut bytes, at, &more);
        let missing = |byte: usize| (byte / SECTOR).wrapping_mul(2_654_435_761) >> 3 & 1 == 0;
        if mode == 1 {
            for (byte, new) in bytes.iter_mut().enumerate().skip(start).take(more.len()) {
                if missing(byte) {
                    *new = old.get(byte).copied().unwrap_or(0); // some sectors in the middle are missing
                }
            }
        }
    }
    Content { durable: bytes, ..Content::default() }
}

impl State {
    /// Counts an operation; how much of a write of `bytes` gets through, or the error for all of it.
    fn step(&mut self, bytes: usize) -> Result<(), (usize, io::Error)> {
        let number = self.operations;
        self.operations += 1;
        match self.plan {
            Plan::Full { from, count, share } if (from..from + count).contains(&number) => {
                Err((bytes * usize::from(share) / 256, io::ErrorKind::StorageFull.into()))
            }
            Plan::Fails { at } if at == number => Err((bytes / 2, io::Error::other("a test broke it"))),
            Plan::Cut { at } if number >= at => {
                Err((if number == at { bytes } else { 0 }, io::Error::other("no power")))
            }
            Plan::Fine | Plan::Full { .. } | Plan::Fails { .. } | Plan::Cut { .. } => Ok(()),
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let dying = matches!(self.plan, Plan::Cut { at } if at == self.operations);
        let result = self.step(0).map_err(|(_, error)| error);
        if result.is_ok() || dying {
            change.apply(&mut self.names);
            self.changes.push(change);
        }
        result
    }

    fn number(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for FaultyDisk {
    fn list(&self, folder: &str) -> io::Result<Vec<Listed>> {
        let state = self.state();
        let inside = |name: &str| match name.rsplit_once('/') {
            Some((place, file)) if place == folder => Some(file.to_owned()),
            None if folder.is_empty() => Some(name.to_owned()),
            _ => None,
        };
        let listed = |(name, number): (&String, &usize)| {
            let bytes = state.files[*number].seen().len() as u64;
            inside(name).map(|name| Listed { name, bytes })
        };
        Ok(state.names.iter().filter_map(listed).collect())
    }

    fn read(&self, file: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
        let bytes = state.files[state.number(file)?].seen();
        let from = usize::try_from(from).expect("small files").min(bytes.len());
        Ok(bytes[from..bytes.len().min(from.saturating_add(most))].to_vec())
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.state();
        let number = state.files.len();
        state.files.push(Content::default());
        state.change(Change::Create(file.to_owned(), number))?;
        drop(state);
        Ok(Box::new(FaultyFile { disk: self.clone(), number }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.number(from)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        let mut state = self.state();
        state.number(file)?;
        state.change(Change::Remove(file.to_owned()))?;
        if !file.ends_with(".new") {
            state.removed.push(file.to_owned());
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.state();
        state.step(0).map_err(|(_, error)| error)?;
        let changes = std::mem::take(&mut state.changes);
        let (done, open): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.folder() == folder);
        for change in &done {
            change.apply(&mut state.durable);
        }
        state.changes = open;
        Ok(())
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    number: usize,
}

impl NewFile for FaultyFile {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.step(bytes.len());
        let through = result.as_ref().map_or_else(|(through, _)| *through, |()| bytes.len());
        state.files[self.number].pending.push((at, bytes[..through].to_vec()));
        result.map_err(|(_, error)| error)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.step(0).map_err(|(_, error)| error);
        let dead = matches!(state.plan, Plan::Cut { at } if state.operations > at);
        let file = &mut state.files[self.number];
        if result.is_ok() {
            for (at, bytes) in std::mem::take(&mut file.pending) {
                put(&mut file.durable, at, &bytes);
            }
        } else if !dead {
            let pending = std::mem::take(&mut file.pending);
            file.lost.extend(pending);
        }
        result
    }

    fn another(&self) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(Self { disk: self.disk.clone(), number: self.number }))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn write(disk: &FaultyDisk, sync: bool) -> io::Result<()> {
        let mut file = disk.create("a")?;
        file.write_at(0, b"hello")?;
        if sync {
            file.sync()?;
            disk.sync_folder("")?;
        }
        Ok(())
    }

    #[test]
    fn only_what_was_synced_always_survives() {
        let (synced, unsynced) = (FaultyDisk::default(), FaultyDisk::default());
        write(&synced, true).unwrap();
        write(&unsynced, false).unwrap();
        let found = |disk: &FaultyDisk, seed| disk.after_power_cut(seed).read("a", 0, 9).ok();
        assert!((0..50).all(|seed| found(&synced, seed).unwrap() == b"hello"));
        let ends: std::collections::BTreeSet<_> = (0..50).map(|seed| found(&unsynced, seed)).collect();
        assert!(ends.contains(&None) && ends.contains(&Some(b"hello".to_vec())) && ends.len() > 3);
    }

    #[test]
    fn a_second_sync_after_a_failed_one_lies() {
        let disk = FaultyDisk::new(Plan::Fails { at: 2 });
        let mut file = disk.create("a").unwrap();
        file.write_at(0, b"hello").unwrap();
        file.sync().unwrap_err();
        file.sync().unwrap();
        disk.sync_folder("").unwrap();
        assert_eq!(disk.read("a", 0, 9).unwrap(), b"hello");
        assert_eq!(disk.after_power_cut(1).read("a", 0, 9).unwrap(), b"");
    }

    #[test]
    fn without_room_a_part_of_the_write_gets_through() {
        let disk = FaultyDisk::new(Plan::Full { from: 1, count: 1, share: 128 });
        let mut file = disk.create("a").unwrap();
        assert_eq!(file.write_at(0, b"abcd").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.read("a", 0, 9).unwrap(), b"ab");
        file.write_at(0, b"abcd").unwrap();
        assert_eq!(disk.read("a", 0, 9).unwrap(), b"abcd");
    }
}
