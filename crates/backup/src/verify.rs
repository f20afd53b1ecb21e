//! Everything is read and hashed, and what is hurt is named: packs, blocks, and the points that need them.

use crate::block::{Form, Record};
use crate::id::{BlockId, PackId};
use crate::idle;
use crate::pack::Records;
use crate::parts::on_threads;
use crate::point::Point;
use crate::repository::{PointName, Repository, Trouble, pack_of, trouble};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

/// So many threads read at most: each has a pack in memory.
const THREADS_MOST: usize = 4;

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
    /// Blocks that cannot be read.
    pub lost: BTreeSet<BlockId>,
    /// Packs of which something is wrong.
    pub packs: BTreeSet<PackId>,
    /// What is wrong with packs that are to go and that nothing needs, a sentence each: no damage.
    pub idle: Vec<String>,
}

/// Reads everything, with so many threads. `done` counts the bytes that were read.
///
/// # Errors
/// If the repository cannot be listed: what cannot be read of it is a finding.
pub fn all(repository: &Repository, threads: usize, done: &AtomicU64) -> Result<Findings, Trouble> {
    some(repository, threads, done, &|_| true)
}

/// Reads these packs, and what every point names: a point of which nothing is found wrong is whole as far as was read.
///
/// # Errors
/// If the repository cannot be listed: what cannot be read of it is a finding.
pub fn some(
    repository: &Repository,
    threads: usize,
    done: &AtomicU64,
    is_meant: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Findings, Trouble> {
    let mut packs = repository.store.list("packs").map_err(trouble("packs", "listed"))?;
    packs.retain(|(name, _)| is_meant(name));
    let (by_pack, next) = (by_pack(repository)?, AtomicU64::new(0));
    let work = || {
        let (mut part, mut block) = (Part::default(), Vec::new());
        while let Some((name, length)) = packs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            part.read(repository, name, &by_pack, &mut block);
            done.fetch_add(*length, Ordering::Relaxed);
        }
        part
    };
    let (mut findings, mut hurt_packs) = (Findings::default(), BTreeMap::new());
    findings.wrong.extend(repository.damaged().iter().cloned());
    for part in on_threads(threads.min(THREADS_MOST), work) {
        findings.well += part.well;
        findings.wrong.extend(part.wrong);
        findings.lost.extend(part.lost);
        hurt_packs.extend(part.packs);
    }
    findings.packs.extend(hurt_packs.keys());
    findings.wrong.extend(crate::check::small(repository)?.0);
    for name in repository.points()? {
        match hurt(repository, &name, &findings.lost) {
            None => findings.whole.push(name),
            Some(why) => findings.hurt.push((name, why)),
        }
    }
    findings.wrong.extend(strays(repository));
    let (wrong, idle) = idle::apart(repository, hurt_packs);
    findings.wrong.extend(wrong);
    findings.idle = idle;
    findings.wrong.sort();
    findings.wrong.dedup();
    Ok(findings)
}

/// The blocks that are read in each pack, as the index tells.
fn by_pack(repository: &Repository) -> Result<BTreeMap<PackId, BTreeSet<BlockId>>, Trouble> {
    let mut all = BTreeMap::<PackId, BTreeSet<BlockId>>::new();
    repository.each_told(|pack| {
        let is_read_here = |id: &BlockId| repository.index.reads_in(pack.id, *id);
        let ids = pack.blocks.iter().map(|block| block.id).filter(is_read_here);
        all.entry(pack.id).or_default().extend(ids);
    })?;
    Ok(all)
}

/// What one thread found.
#[derive(Default)]
struct Part {
    well: u64,
    wrong: Vec<String>,
    lost: Vec<BlockId>,
    /// What is wrong with each pack of which something is.
    packs: Vec<(PackId, Vec<String>)>,
}

impl Part {
    /// Reads a pack.
    fn read(
        &mut self,
        repository: &Repository,
        name: &str,
        by_pack: &BTreeMap<PackId, BTreeSet<BlockId>>,
        block: &mut Vec<u8>,
    ) {
        let Some(id) = pack_of(name) else {
            self.wrong.push(format!("`{name}` is no name of a pack"));
            return;
        };
        let (mut met, mut wrong) = (BTreeSet::new(), Vec::new());
        if let Err(why) = go_through(repository, name, id, (&mut met, &mut wrong), block) {
            wrong.push(format!("`{name}`{why}"));
        }
        self.well += met.len() as u64;
        // The index tells of them, and they were not met, or were not well. What is hurt may be only what leads from
        // one to the next.
        let rest = by_pack.get(&id).into_iter().flatten().filter(|id| !met.contains(*id));
        self.lost.extend(rest.filter(|id| repository.block(**id, block).is_err()));
        self.packs.extend((!wrong.is_empty()).then_some((id, wrong)));
    }
}

/// Reads the records of a pack one after the other; those that are well are met.
fn go_through(
    repository: &Repository,
    name: &str,
    id: PackId,
    (met, wrong): (&mut BTreeSet<BlockId>, &mut Vec<String>),
    block: &mut Vec<u8>,
) -> Result<(), String> {
    let read = repository.store.read(name, 0, usize::MAX);
    let mut bytes = read.map_err(|error| format!(" cannot be read: {error}"))?;
    let mut records = Records::of(&repository.keys, id, &mut bytes).map_err(|why| format!(": {why}"))?;
    while let Some(found) = records.next() {
        // A delta that no point needs may have lost its base: then it is not found in the index, and means nothing.
        let is_idle =
            |record: &Record<'_>| record.form != Form::Whole && repository.index.find(record.id).is_none();
        if found.as_ref().is_ok_and(|(_, record)| is_idle(record)) {
            continue;
        }
        let sound = found
            .map_err(|why| why.to_string())
            .and_then(|(_, record)| sound(repository, &record, block).map(|()| record.id));
        match sound {
            Ok(id) => drop(met.insert(id)),
            Err(why) => wrong.push(format!("`{name}`: {why}")),
        }
    }
    Ok(())
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

/// That the index does not tell of packs that points need, if that was found.
pub(crate) fn strays(repository: &Repository) -> Option<String> {
    let count = repository.strays().len();
    let packs = if count == 1 { "a pack that points need" } else { "packs that points need" };
    (count > 0).then(|| {
        format!("the index does not tell of {packs} ({count}): an object of it is gone; nothing is lost")
    })
}

/// Why a point cannot be restored whole.
pub(crate) fn hurt(repository: &Repository, name: &PointName, lost: &BTreeSet<BlockId>) -> Option<String> {
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
            let missing =
                |id: &BlockId| *id != BlockId::HOLE && (lost.contains(id) || repository.find(*id).is_none());
            if let Some(at) = names.iter().position(missing) {
                let at = start + (at * crate::block::BLOCK) as u64;
                return Some(format!("disk `{}` at byte {at}: its block is lost", disk.name));
            }
        }
    }
    None
}
