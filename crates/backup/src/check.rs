//! The structure of a repository: is everything there that something else tells of? Reads the index, the points and their pages, and
//! the head of each pack, and none of the blocks: [`crate::verify`] does.

use crate::id::{BlockId, PackId};
use crate::idle;
use crate::mark::{Mark, packs_of};
use crate::object::Kind;
use crate::pack;
use crate::proof::{self, Proof};
use crate::repository::{PointName, Repository, Trouble, pack_object, pack_of, trouble};

use crate::slots;
use crate::verify;
use std::collections::{BTreeMap, BTreeSet};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Packs that are there.
    pub packs: u64,
    /// Blocks that the index tells of.
    pub blocks: u64,
    /// Packs of which no index tells: left by a writer that was killed, and collected one day. No damage.
    pub untold: Vec<PackId>,
    /// Keys that lie there once: if that object rots, its secret opens nothing. `repair` puts the second there.
    pub alone: Vec<String>,
    /// What is wrong, a sentence each.
    pub wrong: Vec<String>,
    /// What is wrong with packs that are to go and that nothing needs, a sentence each: no damage.
    pub idle: Vec<String>,
    /// Points that cannot be restored whole, with the disk and the first byte that is lost.
    pub hurt: Vec<(PointName, String)>,
    /// Points of which everything is there.
    pub whole: Vec<PointName>,
}

/// Looks at everything but the content of blocks.
///
/// # Errors
/// If the repository cannot be listed: what cannot be read of it is a finding.
pub fn check(repository: &Repository) -> Result<Findings, Trouble> {
    let mut findings = Findings { wrong: repository.damaged().to_vec(), ..Findings::default() };
    let (told, _) = repository.told()?;
    let listed = repository.store.list("packs").map_err(trouble("packs", "listed"))?;
    let mut sizes = BTreeMap::new();
    for (name, length) in listed {
        match pack_of(&name) {
            Some(pack) => drop(sizes.insert(pack, length)),
            None => findings.wrong.push(format!("`{name}` is no name of a pack")),
        }
    }
    let (mut lost, mut hurt_packs) = (BTreeSet::<BlockId>::new(), BTreeMap::<PackId, Vec<String>>::new());
    for pack in &told {
        let size = sizes.get(&pack.id).copied().unwrap_or(0);
        let is_cut = |block: &&crate::index::Listed| {
            u64::from(block.spot.offset) + u64::from(block.spot.length) > size
        };
        let cut: Vec<BlockId> = pack.blocks.iter().filter(is_cut).map(|block| block.id).collect();
        if !cut.is_empty() {
            let wrong = format!("`{}` is cut: it lacks {} blocks", pack_object(pack.id), cut.len());
            hurt_packs.entry(pack.id).or_default().push(wrong);
        }
        lost.extend(cut);
        findings.blocks += pack.blocks.len() as u64;
    }
    for (pack, wrong) in sizes.keys().filter_map(|pack| Some((*pack, head(repository, *pack)?))) {
        hurt_packs.entry(pack).or_default().push(wrong);
    }
    findings.packs = sizes.len() as u64;
    let known: BTreeSet<PackId> = told.iter().map(|pack| pack.id).collect();
    findings.untold = sizes.into_keys().filter(|pack| !known.contains(pack)).collect();
    let (wrong, alone) = small(repository)?;
    findings.wrong.extend(wrong);
    findings.alone = alone;
    for name in repository.points()? {
        match verify::hurt(repository, &name, &lost) {
            None => findings.whole.push(name),
            Some(why) => findings.hurt.push((name, why)),
        }
    }
    let strays = repository.strays();
    let strangers =
        repository.strangers(findings.untold.iter().copied(), &known, &packs_of(&repository.marks()?));
    findings.untold.retain(|pack| !strays.contains(pack) && !strangers.contains(pack));
    findings.wrong.extend(verify::strays(repository));
    let (wrong, idle) = idle::apart(repository, hurt_packs);
    findings.wrong.extend(wrong);
    findings.idle = idle;
    findings.wrong.sort();
    findings.wrong.dedup();
    Ok(findings)
}

/// What is wrong with the head of a pack.
fn head(repository: &Repository, pack: PackId) -> Option<String> {
    let name = pack_object(pack);
    match repository.store.read(&name, 0, pack::HEAD) {
        Err(why) => Some(format!("`{name}` cannot be read: {why}")),
        Ok(mut head) => {
            pack::Records::of(&repository.keys, pack, &mut head).err().map(|why| format!("`{name}`: {why}"))
        }
    }
}

/// What is wrong with what is neither block, index nor point: the head, keys, sessions, marks, proofs; and keys that lie there once.
pub(crate) fn small(repository: &Repository) -> Result<(Vec<String>, Vec<String>), Trouble> {
    let (mut wrong, alone) = slots::look(&*repository.store)?;
    let damaged = |name: &str| format!("`{name}` of the repository is damaged");
    wrong.extend(repository.head.wrong().map(str::to_owned));
    let (_, sessions) = repository.sessions_and_damaged()?;
    wrong.extend(sessions.iter().map(|name| damaged(name)));
    wrong.extend(bad_marks(repository)?.iter().map(|name| damaged(name)));
    wrong.extend(bad_proofs(repository)?.iter().map(|name| damaged(name)));
    Ok((wrong, alone))
}

/// Marks that cannot be read.
pub(crate) fn bad_marks(repository: &Repository) -> Result<Vec<String>, Trouble> {
    let mut bad = Vec::new();
    for name in repository.mark_names()? {
        let object = Mark::object_of(name);
        match repository.sealed(&object, Kind::Mark, name) {
            Ok(content) if Mark::read(name, &content).is_some() => {}
            Err(why) if why.is_gone() => {}
            _ => bad.push(object),
        }
    }
    Ok(bad)
}

/// Proofs that cannot be read.
pub(crate) fn bad_proofs(repository: &Repository) -> Result<Vec<String>, Trouble> {
    let all = repository.store.list(proof::FOLDER).map_err(trouble(proof::FOLDER, "listed"))?;
    let is_bad = |name: &String| match repository.object(name, Kind::Proof) {
        Ok(content) => Proof::read(&content).is_none(),
        Err(why) => !why.is_gone(),
    };
    Ok(all.into_iter().map(|(name, _)| name).filter(is_bad).collect())
}

/// Sessions that cannot be read.
pub(crate) fn bad_sessions(repository: &Repository) -> Result<Vec<String>, Trouble> {
    Ok(repository.sessions_and_damaged()?.1)
}
