//! A disk whose power is cut (S65): what was not made durable may be there or not, name by name and in any order, and of a file
//! that was being written any part.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::files::{Entry, Files};
use super::{Folder, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const ROOT: &str = "/repo";

/// A file, whatever it is called.
#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    is_durable: bool,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Folder,
    File(usize),
}

/// A change of a folder that may not be on the disk.
#[derive(Clone, Debug)]
struct Change {
    path: PathBuf,
    /// Nothing: the name was taken away.
    now: Option<Thing>,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<File>,
    /// As programs see it, and as it is on the disk for certain.
    seen: BTreeMap<PathBuf, Thing>,
    durable: BTreeMap<PathBuf, Thing>,
    pending: Vec<Change>,
    /// So many steps are left until the power is cut.
    left: Option<usize>,
    steps: usize,
}

impl State {
    fn change(&mut self, path: &Path, now: Option<Thing>) {
        match now {
            Some(thing) => drop(self.seen.insert(path.to_owned(), thing)),
            None => drop(self.seen.remove(path)),
        }
        self.pending.push(Change { path: path.to_owned(), now });
    }

    /// After the power was cut and is back: what is there. Each of these bits decides for one thing that was not durable.
    fn after(&self, mut chance: impl FnMut() -> bool) -> Self {
        let mut there = self.durable.clone();
        for change in self.pending.iter().filter(|_| chance()) {
            match change.now {
                Some(thing) => drop(there.insert(change.path.clone(), thing)),
                None => drop(there.remove(&change.path)),
            }
        }
        // A name whose folder is not there is nowhere.
        let is_reached = |path: &Path| path.ancestors().skip(1).all(|above| there.contains_key(above));
        let reached: BTreeMap<_, _> = there
            .iter()
            .filter(|(path, _)| is_reached(path))
            .map(|(path, thing)| (path.clone(), *thing))
            .collect();
        let torn = |file: &File| {
            let length = if file.is_durable || chance() { file.bytes.len() } else { file.bytes.len() / 2 };
            let mut bytes = file.bytes[..length].to_vec();
            if !file.is_durable && chance() {
                bytes.fill(0);
            }
            File { bytes, is_durable: true }
        };
        let files = self.files.iter().map(torn).collect();
        Self { files, seen: reached.clone(), durable: reached, ..Self::default() }
    }
}

#[derive(Clone)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn new() -> Self {
        let there: BTreeMap<_, _> =
            Path::new(ROOT).ancestors().map(|path| (path.to_owned(), Thing::Folder)).collect();
        Self(Arc::new(Mutex::new(State { seen: there.clone(), durable: there, ..State::default() })))
    }

    fn folder(&self) -> Folder {
        Folder::on(ROOT.into(), Box::new(self.clone()))
    }

    /// Does a step, unless the power is cut before it. The step at which that happens may be done or not.
    fn step<T>(&self, step: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        state.steps += 1;
        if state.left == Some(0) {
            return Err(ErrorKind::NotConnected.into());
        }
        state.left = state.left.map(|left| left - 1);
        step(&mut state)
    }
}

impl Files for Disk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<PathBuf> = {
            let state = self.0.lock().unwrap();
            path.ancestors().filter(|above| !state.seen.contains_key(*above)).map(Path::to_owned).collect()
        };
        missing.iter().rev().try_for_each(|path| {
            self.step(|state| {
                state.change(path, Some(Thing::Folder));
                Ok(())
            })
        })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let number = self.step(|state| {
            if state.seen.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let number = state.files.len();
            state.files.push(File { bytes: bytes.to_owned(), is_durable: false });
            state.change(path, Some(Thing::File(number)));
            Ok(number)
        })?;
        self.step(|state| {
            state.files[number].is_durable = true;
            Ok(())
        })
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        self.step(|state| {
            let thing = *state.seen.get(file).ok_or(ErrorKind::NotFound)?;
            if state.seen.contains_key(name) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            state.change(name, Some(thing));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|state| {
            state.seen.get(path).ok_or(ErrorKind::NotFound)?;
            state.change(path, None);
            Ok(())
        })
    }

    fn sync(&self, folder: &Path) -> io::Result<()> {
        self.step(|state| {
            let all = std::mem::take(&mut state.pending);
            let (own, others): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|change| change.path.parent() == Some(folder));
            state.pending = others;
            for Change { path, now } in own {
                match now {
                    Some(thing) => drop(state.durable.insert(path, thing)),
                    None => drop(state.durable.remove(&path)),
                }
            }
            Ok(())
        })
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let Some(Thing::File(number)) = state.seen.get(path) else { return Err(ErrorKind::NotFound.into()) };
        let bytes = state.files[*number].bytes.get(offset as usize..).unwrap_or_default();
        Ok(bytes[..length.min(bytes.len())].to_vec())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let state = self.0.lock().unwrap();
        let inside = state.seen.iter().filter(|(path, _)| path.parent() == Some(folder));
        let entry = |(path, thing): (&PathBuf, &Thing)| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let length = match thing {
                Thing::Folder => None,
                Thing::File(number) => Some(state.files[*number].bytes.len() as u64),
            };
            Entry { name, length }
        };
        Ok(inside.map(entry).collect())
    }
}

/// Whether something is put, or removed; and what.
type Act = (bool, &'static str);

/// What a repository does, in short: packs, their index, a point; then another point, and the first one goes.
const ACTS: [Act; 8] = [
    (true, "packs/ab/1"),
    (true, "packs/cd/2"),
    (true, "index/1"),
    (true, "points/orders/1"),
    (true, "packs/ab/3"),
    (true, "index/3"),
    (true, "points/orders/2"),
    (false, "points/orders/1"),
];

fn bytes_of(name: &str) -> Vec<u8> {
    name.as_bytes().repeat(50)
}

/// Does all of it until the power is cut; what was said to be done, and what was under way.
fn act(folder: &Folder) -> (Vec<Act>, Option<Act>) {
    let mut done = Vec::new();
    for (puts, name) in ACTS {
        let ended = if puts { folder.put(name, &bytes_of(name)) } else { folder.remove(name) };
        match ended {
            Ok(()) => done.push((puts, name)),
            Err(_) => return (done, Some((puts, name))),
        }
    }
    (done, None)
}

/// Bits by chance, the same ones each time.
fn chance(mut state: u64) -> impl FnMut() -> bool {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 63 == 1
    }
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_that_was_said_to_be_there_and_leaves_nothing_torn_i14() {
    let whole = Disk::new();
    assert_eq!(act(&whole.folder()).1, None);
    let steps = whole.0.lock().unwrap().steps;
    assert!(steps > 40, "{steps}");
    for cut in 0..=steps {
        for seed in 0..64 {
            let disk = Disk::new();
            disk.0.lock().unwrap().left = Some(cut);
            let (done, under_way) = act(&disk.folder());
            let after = disk.0.lock().unwrap().after(chance(seed * 7_919 + cut as u64));
            let disk = Disk(Arc::new(Mutex::new(after)));
            let folder = disk.folder();
            let found: BTreeSet<String> = ["packs", "index", "points"]
                .iter()
                .flat_map(|part| folder.list(part).unwrap())
                .map(|(name, _)| name)
                .collect();
            let tell = format!("cut at {cut}, seed {seed}: {done:?}, then {under_way:?}: {found:?}");
            for name in &found {
                assert_eq!(folder.read(name, 0, usize::MAX).unwrap(), bytes_of(name), "torn: {tell}");
                assert!(done.iter().chain(&under_way).any(|(_, known)| known == name), "{tell}");
            }
            for (at, (puts, name)) in done.iter().enumerate() {
                let is_last = !done[at + 1..].iter().chain(&under_way).any(|(_, later)| later == name);
                assert!(!is_last || found.contains(*name) == *puts, "{name}: {tell}");
            }
            // Whoever comes next goes on from there, whatever was left beside the objects.
            folder.put("packs/ef/9", &bytes_of("packs/ef/9")).unwrap_or_else(|why| panic!("{why}: {tell}"));
            if let Some((true, name)) = under_way.filter(|(_, name)| !found.contains(*name)) {
                folder.put(name, &bytes_of(name)).unwrap_or_else(|why| panic!("{why}: {tell}"));
                assert_eq!(folder.read(name, 0, usize::MAX).unwrap(), bytes_of(name));
            }
            for name in &found {
                assert_eq!(folder.read(name, 0, usize::MAX).unwrap(), bytes_of(name), "harmed: {tell}");
            }
        }
    }
}
