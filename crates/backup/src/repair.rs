//! Repair: what can be made whole again is, and what is lost is said. A restore point is never removed, unless that is asked
//! for by name.

use crate::check;
use crate::collect::{Copier, tell, untell};
use crate::head::{self, HEAD, Head};
use crate::id::PackId;
use crate::index::{self, Listed, PACKS_MOST};
use crate::mark::{Mark, packs_of};
use crate::object::Kind;
use crate::proof;
use crate::repository::{PointName, Repository, Trouble, pack_object, trouble};
use crate::session::{Open, Session, Writer};
use crate::slots;
use crate::verify::Findings;
use std::collections::BTreeSet;
use std::io;

/// How to repair.
pub struct Rules<'a> {
    /// Now, in microseconds since 1970.
    pub now: i64,
    /// Who repairs.
    pub writer: &'a Writer,
    /// Whether the writer of a session can be taken for dead.
    pub is_over: &'a dyn Fn(&Open) -> bool,
    /// Nobody writes: sessions that cannot be read may go.
    pub nobody_writes: bool,
    /// Points that cannot be restored whole are to be removed.
    pub forget_hurt: bool,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Objects of the index that were written anew.
    pub index: Vec<String>,
    /// Packs that points need, and of which the index tells again.
    pub told: u64,
    /// Packs that were hurt: what is well of them was written anew, and they are to go.
    pub packs: Vec<PackId>,
    /// Blocks that are lost. The next save of an image that has one heals every point that needs it.
    pub lost: u64,
    /// Marks, proofs and sessions that could not be read, and were removed.
    pub removed: Vec<String>,
    /// Sessions that cannot be read and stay: their writers may be alive.
    pub left: Vec<String>,
    /// What was damaged or gone and lies there whole again, told by others: `repository`, and one of the two objects of a key.
    pub renewed: Vec<String>,
    /// What is not known to be ours, a sentence each. It stays as it is.
    pub strange: Vec<String>,
    /// Hurt points that were removed, as was asked for.
    pub forgotten: Vec<PointName>,
}

/// Repairs what `found` says ([`crate::verify::all`]).
///
/// # Errors
/// If the repository cannot be written: what was done until then stays, and it can be run again.
pub fn repair(repository: &mut Repository, found: &Findings, rules: &Rules<'_>) -> Result<Repaired, Trouble> {
    let mut done = Repaired::default();
    for session in repository.sessions_and_damaged()?.0.into_iter().filter(|session| session.point.is_none())
    {
        if !(rules.nobody_writes || (rules.is_over)(&session)) {
            return Err(Trouble::Busy); // somebody collects, and may have read what is removed here
        }
        repository.give_up(&session)?;
    }
    renew(repository, &mut done)?;
    for name in check::bad_marks(repository)?.into_iter().chain(check::bad_proofs(repository)?) {
        repository.remove(&name)?;
        done.removed.push(name);
    }
    for name in check::bad_sessions(repository)? {
        if rules.nobody_writes {
            repository.remove(&name)?;
            done.removed.push(name);
        } else {
            done.left.push(name);
        }
    }
    rebuild_index(repository, &mut done)?;
    let session = Session::collecting(repository, rules.writer)?;
    repository.reload_all()?;
    let ended = set_aside(repository, found, rules, &mut done);
    session.end(repository)?;
    ended?;
    if rules.forget_hurt {
        for (name, _) in &found.hurt {
            repository.remove(&name.object())?;
            done.forgotten.push(name.clone());
        }
        proof::tidy(repository)?;
    }
    repository.reload_all()?;
    Ok(done)
}

/// What opens the repository is put there whole again.
fn renew(repository: &mut Repository, done: &mut Repaired) -> Result<(), Trouble> {
    if repository.head != Head::Well {
        match repository.store.remove(HEAD) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(trouble(HEAD, "removed")(why)),
            _ => {} // until it is there again, others say which repository this is
        }
        let id = repository.id();
        repository.store.put(HEAD, &head::object(id)).map_err(trouble(HEAD, "written"))?;
        repository.head = Head::Well;
        done.renewed.push(HEAD.to_owned());
    }
    let keys = slots::renew(repository)?;
    done.renewed.extend(keys.written);
    done.strange.extend(keys.left);
    Ok(())
}

/// Tells anew of the packs of which no readable object of the index tells, where one cannot be read or is gone; then those that
/// cannot be read go.
fn rebuild_index(repository: &Repository, done: &mut Repaired) -> Result<(), Trouble> {
    let (mut known, mut bad) = (BTreeSet::new(), Vec::new());
    for (name, _) in repository.store.list("index").map_err(trouble("index", "listed"))? {
        let told = repository.object(&name, Kind::Index).ok().and_then(|content| index::read(&content).ok());
        match told {
            Some(packs) => known.extend(packs.iter().map(|pack| pack.id)),
            None => bad.push(name),
        }
    }
    let strays = repository.strays();
    if bad.is_empty() && strays.is_empty() {
        return Ok(());
    }
    let fresh = repository.untold(&known, &repository.packs()?)?;
    fresh.chunks(PACKS_MOST).try_for_each(|packs| tell(repository, packs))?;
    done.told = strays.len() as u64;
    for name in bad {
        repository.remove(&name)?;
        done.index.push(name);
    }
    Ok(())
}

/// Writes what is well of hurt packs anew, marks them, and tells of nothing in them: a block that is lost is not found any more, so
/// it is written again where it is met.
fn set_aside(
    repository: &Repository,
    found: &Findings,
    rules: &Rules<'_>,
    done: &mut Repaired,
) -> Result<(), Trouble> {
    done.lost = found.lost.len() as u64;
    let marked = packs_of(&repository.marks()?);
    let lost = found.lost.iter().filter_map(|id| repository.index.find(*id)).map(|found| found.pack);
    let of_lost: BTreeSet<PackId> = lost.collect();
    let mut hurt: BTreeSet<PackId> = found.packs.union(&of_lost).copied().collect();
    let (told, _) = repository.told()?;
    let known = told.iter().map(|pack| pack.id).collect();
    let strangers = repository.strangers(hurt.iter().copied(), &known, &marked);
    // Somebody who repaired was killed, where one that is marked already is told of with a lost block.
    hurt.retain(|pack| !strangers.contains(pack) && (!marked.contains(pack) || of_lost.contains(pack)));
    let stays = |pack| {
        format!("`{}` is not of this repository, or its head is damaged, and stays", pack_object(pack))
    };
    done.strange.extend(strangers.into_iter().map(stays));
    if hurt.is_empty() {
        return Ok(());
    }
    let mut copier = Copier::new(repository)?;
    for pack in told.iter().filter(|pack| hurt.contains(&pack.id)) {
        let is_elsewhere =
            |block: &&Listed| marked.contains(&pack.id) && !repository.index.reads_in(pack.id, block.id);
        for block in pack.blocks.iter().filter(|block| !is_elsewhere(block)) {
            match copier.copy_listed(block, pack.id) {
                Err(Trouble::Block { .. }) => {} // lost: found by who verified, or just now
                copied => copied?,
            }
        }
    }
    copier.close()?;
    let name = PackId::random()?;
    let mark = Mark { name, made: rules.now, packs: hurt.difference(&marked).copied().collect() };
    if !mark.packs.is_empty() {
        repository.put_sealed(&Mark::object_of(name), Kind::Mark, name, &mark.write())?;
    }
    done.packs = hurt.iter().copied().collect();
    untell(repository, &hurt)
}
