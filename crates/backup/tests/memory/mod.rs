//! A store in memory, and who may take the next step on it.

#![allow(dead_code, reason = "each test file uses its own part")]

use holdfast_backup::store::Store;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

type Objects = BTreeMap<String, Arc<[u8]>>;

/// Objects of bytes.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Objects>>);

impl Memory {
    /// As somebody sees it, whose every operation is a step.
    pub fn seen_by(&self, steps: Option<&Steps>) -> Seen {
        Seen { objects: self.clone(), steps: steps.cloned() }
    }

    /// Another with the same objects.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.all())))
    }

    pub fn names(&self, folder: &str) -> Vec<String> {
        self.0.lock().unwrap().keys().filter(|name| name.starts_with(folder)).cloned().collect()
    }

    pub fn bytes_of(&self, folder: &str) -> u64 {
        let all = self.0.lock().unwrap();
        all.iter().filter(|(name, _)| name.starts_with(folder)).map(|(_, bytes)| bytes.len() as u64).sum()
    }

    pub fn all(&self) -> Objects {
        self.0.lock().unwrap().clone()
    }

    /// Takes these objects away.
    pub fn take(&self, folder: &str) -> Objects {
        let mut all = self.0.lock().unwrap();
        let (taken, left) =
            std::mem::take(&mut *all).into_iter().partition(|(name, _)| name.starts_with(folder));
        *all = left;
        taken
    }

    pub fn restore(&self, taken: Objects) {
        self.0.lock().unwrap().extend(taken);
    }

    /// Changes a byte in its middle.
    pub fn damage(&self, name: &str) {
        let mut all = self.0.lock().unwrap();
        let bytes = all.get_mut(name).unwrap();
        let mut changed = bytes.to_vec();
        changed[bytes.len() / 2] ^= 1;
        *bytes = changed.into();
    }
}

/// Where somebody is cut off: at this step, which may have been done.
#[derive(Clone, Copy)]
struct Cut {
    step: usize,
    is_done: bool,
}

/// Whose turn it is: who, for how many steps more; then the next.
struct Turns {
    left: Vec<(usize, usize)>,
    is_over: [bool; 2],
}

impl Turns {
    fn whose(&mut self) -> Option<usize> {
        while let Some((who, steps)) = self.left.last().copied() {
            if steps > 0 && !self.is_over[who] {
                return Some(who);
            }
            self.left.pop();
        }
        None
    }
}

/// The steps of one who works on a store.
#[derive(Clone, Default)]
pub struct Steps {
    who: usize,
    taken: Arc<Mutex<usize>>,
    cut: Option<Cut>,
    turns: Option<Arc<(Mutex<Turns>, Condvar)>>,
}

impl Steps {
    pub fn taken(&self) -> usize {
        *self.taken.lock().unwrap()
    }

    pub fn cut_at(step: usize, is_done: bool) -> Self {
        Self { cut: Some(Cut { step, is_done }), ..Self::default() }
    }

    /// For two who take turns of so many steps.
    pub fn in_turns(steps: &[usize]) -> (Self, Self) {
        let mut left: Vec<_> = steps.iter().enumerate().map(|(at, steps)| (at % 2, *steps)).collect();
        left.reverse();
        let turns = Some(Arc::new((Mutex::new(Turns { left, is_over: [false; 2] }), Condvar::new())));
        let first = Self { turns: turns.clone(), ..Self::default() };
        (first, Self { who: 1, turns, ..Self::default() })
    }

    /// Takes no step any more.
    pub fn end(&self) {
        let Some(turns) = &self.turns else { return };
        turns.0.lock().unwrap().is_over[self.who] = true;
        turns.1.notify_all();
    }

    /// Waits for its turn and does it, unless it was cut off.
    fn take<T>(&self, step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = {
            let mut taken = self.taken.lock().unwrap();
            *taken += 1;
            *taken - 1
        };
        if self.cut.is_some_and(|cut| number > cut.step) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let done = self.in_turn(|| {
            if self.cut.is_some_and(|cut| number == cut.step && !cut.is_done) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            step()
        });
        if self.cut.is_some_and(|cut| number == cut.step) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        done
    }

    fn in_turn<T>(&self, step: impl FnOnce() -> T) -> T {
        let Some(turns) = &self.turns else { return step() };
        let mut guard = turns.0.lock().unwrap();
        while guard.whose().is_some_and(|who| who != self.who) {
            guard = turns.1.wait(guard).unwrap();
        }
        let done = step();
        if let Some((_, left)) = guard.left.last_mut() {
            *left = left.saturating_sub(1);
        }
        turns.1.notify_all();
        done
    }
}

/// A store as somebody sees it.
pub struct Seen {
    objects: Memory,
    steps: Option<Steps>,
}

impl Seen {
    fn step<T>(&self, step: impl FnOnce(&mut Objects) -> io::Result<T>) -> io::Result<T> {
        let step = || step(&mut self.objects.0.lock().unwrap());
        match &self.steps {
            Some(steps) => steps.take(step),
            None => step(),
        }
    }
}

impl Store for Seen {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.step(|objects| {
            if objects.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            objects.insert(name.to_owned(), bytes.into());
            Ok(())
        })
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.step(|objects| {
            let bytes = objects.get(name).ok_or(io::ErrorKind::NotFound)?;
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            Ok(rest[..length.min(rest.len())].to_vec())
        })
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let folder = format!("{folder}/");
        self.step(|objects| {
            let inside = objects.iter().filter(|(name, _)| name.starts_with(&folder));
            Ok(inside.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(|objects| objects.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }
}
