//! Everything is read and hashed, and what is hurt is named: packs, blocks, and the points that need them.

use crate::block::{Form, Record};
use crate::id::{BlockId, PackId};
use crate::pack::Records;
use crate::point::Point;
use crate::repository::{PointName, Repository, Trouble, trouble};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Blocks that are as their names say.
    pub well: u64,
    /// What is wrong, a sentence each: objects that are damaged, and blocks by name and pack.
    pub wrong: Vec<String>,
    /// Points that cannot be restored whole, with the disk and the first byte that is lost.
    pub hurt: Vec<(PointName, String)>,
    /// Points that can.
    pub whole: Vec<PointName>,
}

/// Reads everything, with so many threads. `done` counts the bytes that were read.
///
/// # Errors
/// If the repository cannot be listed: what cannot be read of it is a finding.
pub fn all(repository: &Repository, threads: usize, done: &AtomicU64) -> Result<Findings, Trouble> {
    let packs = repository.store.list("packs").map_err(trouble("packs", "listed"))?;
    let state = Mutex::new((Findings::default(), BTreeSet::new()));
    state.lock().unwrap_or_else(PoisonError::into_inner).0.wrong.extend(repository.damaged().iter().cloned());
    let next = AtomicU64::new(0);
    let work = || {
        let mut block = Vec::new();
        while let Some((name, length)) = packs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let (well, wrong, lost) = pack(repository, name, &mut block);
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0.well += well;
            state.0.wrong.extend(wrong);
            state.1.extend(lost);
            done.fetch_add(*length, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
    let (mut findings, lost) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    for name in repository.points()? {
        match hurt(repository, &name, &lost) {
            None => findings.whole.push(name),
            Some(why) => findings.hurt.push((name, why)),
        }
    }
    findings.wrong.sort();
    Ok(findings)
}

/// Reads a pack: blocks that are well, what is wrong, blocks that are lost.
fn pack(repository: &Repository, name: &str, block: &mut Vec<u8>) -> (u64, Vec<String>, Vec<BlockId>) {
    let (mut well, mut wrong, mut lost) = (0, Vec::new(), Vec::new());
    let mut listed: BTreeSet<BlockId> = BTreeSet::new();
    let id = name.rsplit('/').next().and_then(PackId::parse);
    if let Some(id) = id {
        listed.extend(repository.index.of_pack(id));
    }
    match (id, repository.store.read(name, 0, usize::MAX)) {
        (None, _) => wrong.push(format!("`{name}` is no name of a pack")),
        (_, Err(error)) => wrong.push(format!("`{name}` cannot be read: {error}")),
        (Some(id), Ok(mut bytes)) => match Records::of(&repository.keys, id, &mut bytes) {
            Err(why) => wrong.push(format!("`{name}`: {why}")),
            Ok(mut records) => {
                while let Some(found) = records.next() {
                    let sound = found
                        .map_err(|why| why.to_string())
                        .and_then(|(_, record)| sound(repository, &record, block).map(|()| record.id));
                    match sound {
                        Ok(id) => {
                            well += 1;
                            listed.remove(&id);
                        }
                        Err(why) => wrong.push(format!("`{name}`: {why}")),
                    }
                }
            }
        },
    }
    // The index tells of them, and they were not met, or were not well. What is hurt may be only what leads from one to the next.
    lost.extend(listed.into_iter().filter(|id| repository.block(*id, block).is_err()));
    (well, wrong, lost)
}

/// Reads a block where it was met: a save that was killed may have left it in a pack of which no index tells.
fn sound(repository: &Repository, record: &Record<'_>, block: &mut Vec<u8>) -> Result<(), String> {
    if let Form::Delta { base, .. } = record.form {
        repository.block(base, block).map_err(|why| format!("block {}: {why}", record.id))?;
    }
    record.unfold(block).map_err(|why| format!("block {}: {why}", record.id))?;
    let is_it = repository.keys.name(block) == record.id;
    is_it.then_some(()).ok_or_else(|| format!("block {}: its content is not what its name says", record.id))
}

/// Why a point cannot be restored whole.
fn hurt(repository: &Repository, name: &PointName, lost: &BTreeSet<BlockId>) -> Option<String> {
    let point: Point = match repository.point(name) {
        Ok(point) => point,
        Err(why) => return Some(why.to_string()),
    };
    for disk in &point.disks {
        for number in 0..disk.pages.len() {
            let start = (number * crate::point::PAGE * crate::block::BLOCK) as u64;
            let names = match repository.page(disk, number) {
                Ok(names) => names,
                Err(why) => return Some(format!("disk `{}` from byte {start} on: {why}", disk.name)),
            };
            let missing = |id: &BlockId| {
                *id != BlockId::HOLE && (lost.contains(id) || repository.index.find(*id).is_none())
            };
            if let Some(at) = names.iter().position(missing) {
                let at = start + (at * crate::block::BLOCK) as u64;
                return Some(format!("disk `{}` at byte {at}: its block is lost", disk.name));
            }
        }
    }
    None
}
