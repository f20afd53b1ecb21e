//! Collection: packs of which no point needs anything are removed, and no other (I13).
//!
//! It has two phases, in two runs. The first *marks* packs that no point needs ([`crate::mark`]); the second, a grace time
//! later, removes them. What makes that safe is no lock and no clock, but these rules:
//!
//! 1. A mark is never taken back. What is needed of a marked pack is copied first, then the pack goes.
//! 2. A writer names in its session the marks that it knows, and relies on no pack of those ([`crate::session`]).
//! 3. A pack is removed only if, in this order: its mark was read; every session that was open then knew the mark; and all
//!    points listed after that are found without any marked pack.
//!
//! A point made by a session that did not know the mark is thus among those listed, and any other needs no pack of it. Of
//! two who collect at once, the one who read the marks later knows all that the other may remove. `docs/backup-format.md`
//! has the whole argument; `tests/collect.rs` tries it out step by step.

use crate::id::{BlockId, LENGTH, PackId};
use crate::index::{self, Chosen, Index, Listed, PACKS_MOST, choose, place};
use crate::mark::{Mark, packs_of};
use crate::object::{self, Kind};
use crate::pack::{self, Packer, Spot};
use crate::point::{PAGE, Point};
use crate::repository::{PointName, Repository, Trouble, pack_object, pack_of, trouble};
use crate::session::{Open, Session, Writer};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Objects of the index are put together once there are so many.
const OBJECTS_MOST: usize = 64;

/// How to collect.
pub struct Rules<'a> {
    /// Now, in microseconds since 1970: only for the grace time.
    pub now: i64,
    /// How long a pack stays after it was marked, in microseconds: for those who still read it.
    pub grace: i64,
    /// A pack of which less than so many percent are needed is written anew without the rest.
    pub worth: u8,
    /// Who collects.
    pub writer: &'a Writer,
    /// Whether the writer of a session can be taken for dead. A wrong answer costs that writer its point, and harms none.
    pub is_over: &'a dyn Fn(&Open) -> bool,
    /// Only look, as if these points were not there.
    pub dry: Option<&'a BTreeSet<PointName>>,
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Packs that were removed, and their bytes.
    pub removed: Sum,
    /// Packs that were marked now, and their bytes; those that were written anew are among them.
    pub marked: Sum,
    /// Packs that were marked before and stay until their grace time is over or a writer has ended.
    pub waiting: Sum,
    /// Blocks that were written anew, and their bytes.
    pub copied: Sum,
    /// Sessions of dead writers that were given up.
    pub given_up: Vec<Open>,
    /// Writers at work: while there are any, nothing is marked.
    pub at_work: Vec<Open>,
}

/// How many, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    const fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Why nothing was collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The repository fails.
    #[error(transparent)]
    Repository(#[from] Trouble),
    /// A point is hurt: what it needs is not known, or lost.
    #[error("point {}/{} is hurt: {why}", .point.vm, .point.sequence)]
    Hurt {
        /// Which.
        point: PointName,
        /// What is wrong with it.
        why: String,
    },
    /// An object of the index is damaged.
    #[error("the index is damaged: {0}")]
    Index(String),
    /// Somebody else collects.
    #[error("process {} of `{}` collects already", .0.process, .0.host)]
    AtWork(Box<Writer>),
    /// After all was copied, a block that is needed would still be lost: a fault of this program, or of the disk.
    #[error("block {0} would be lost; nothing was removed (I13)")]
    Refused(BlockId),
}

/// Collects once.
///
/// # Errors
/// If the repository fails or is hurt, or somebody else collects: then no pack was removed that any point needs.
pub fn collect(repository: &mut Repository, rules: &Rules<'_>) -> Result<Collected, CollectError> {
    let mut done = Collected::default();
    if rules.dry.is_some() {
        let look = Look::take(repository, None, rules)?;
        let plan = look.plan(rules)?;
        plan.count(&look, &mut done);
        return Ok(done);
    }
    for session in repository.sessions()?.into_iter().filter(|session| (rules.is_over)(session)) {
        repository.give_up(&session)?;
        done.given_up.push(session);
    }
    let session = Session::collecting(repository, rules.writer)?;
    let ended = with_session(repository, session.name(), rules, &mut done);
    session.end(repository)?;
    repository.reload_all()?;
    ended.map(|()| done)
}

fn with_session(
    repository: &mut Repository,
    own: PackId,
    rules: &Rules<'_>,
    done: &mut Collected,
) -> Result<(), CollectError> {
    let look = Look::take(repository, Some(own), rules)?;
    let plan = look.plan(rules)?;
    // What is due goes first where nothing of it is needed: that takes no room, and a repository that is full needs it.
    let is_free = !plan.remove.is_empty() && look.prove(repository, &Plan::default()).is_ok();
    if is_free {
        remove(repository, &plan)?;
    }
    let mut copier = Copier::new(repository)?;
    for one in &plan.copy {
        copier.copy(one, look.names[one.pack as usize])?;
    }
    copier.close()?;
    look.prove(repository, &plan)?;
    // Always a mark, though it may be of nothing: it says when was collected last.
    let name = PackId::random().map_err(Trouble::from)?;
    let mark = Mark { name, made: rules.now, packs: plan.mark.clone() };
    repository.put_sealed(&Mark::object_of(mark.name), Kind::Mark, mark.name, &mark.write())?;
    if !is_free {
        remove(repository, &plan)?;
    }
    plan.count(&look, done);
    tidy_index(repository)?;
    let there = repository.packs()?;
    let is_over = |mark: &&Mark| !mark.packs.iter().any(|pack| there.contains(pack));
    for mark in look.marks.iter().filter(is_over) {
        repository.remove(&Mark::object_of(mark.name))?;
    }
    Ok(())
}

fn remove(repository: &Repository, plan: &Plan) -> Result<(), Trouble> {
    plan.remove.iter().try_for_each(|pack| repository.remove(&pack_object(*pack)))
}

/// A repository as it was found, in the order on which rule 3 rests.
struct Look {
    marks: Vec<Mark>,
    /// Marks that every open session knows, and whose grace time is over.
    due: BTreeSet<PackId>,
    /// Bytes of each pack that was there before the sessions were looked at, without those that are not ours.
    packs: BTreeMap<PackId, u64>,
    /// Writers at work.
    at_work: Vec<Open>,
    /// Blocks that points name.
    needed: HashSet<BlockId>,
    /// Packs by number.
    names: Vec<PackId>,
    /// Where every block is read.
    all: Vec<Chosen>,
    /// The same, without marked packs.
    kept: Vec<Chosen>,
}

/// What is to be done.
#[derive(Default)]
struct Plan {
    copy: Vec<Chosen>,
    mark: Vec<PackId>,
    remove: Vec<PackId>,
}

impl Look {
    fn take(
        repository: &mut Repository,
        own: Option<PackId>,
        rules: &Rules<'_>,
    ) -> Result<Self, CollectError> {
        let marks = repository.marks()?;
        let listed = repository.store.list("packs").map_err(trouble("packs", "listed"))?;
        let mut packs: BTreeMap<PackId, u64> =
            listed.iter().filter_map(|(name, length)| Some((pack_of(name)?, *length))).collect();
        let mut at_work = repository.sessions()?;
        at_work.retain(|session| {
            Some(session.name) != own && !(rules.dry.is_some() && (rules.is_over)(session))
        });
        if let Some(other) = at_work.iter().find(|session| session.point.is_none()) {
            return Err(CollectError::AtWork(Box::new(other.writer.clone())));
        }
        let is_due = |mark: &&Mark| {
            let age = rules.now.checked_sub(mark.made);
            age.is_some_and(|age| age >= rules.grace.max(0))
                && at_work.iter().all(|session| session.knows.contains(&mark.name))
        };
        let due = marks.iter().filter(is_due).map(|mark| mark.name).collect();
        let mut points = repository.points()?;
        points.retain(|point| rules.dry.is_none_or(|gone| !gone.contains(point)));
        let (told, damaged) = repository.told()?;
        if let Some(damaged) = damaged.into_iter().next() {
            return Err(CollectError::Index(damaged));
        }
        let marked = packs_of(&marks);
        let many = |_| Trouble::Damaged { name: "index".into() };
        let (names, all) = choose(told.iter().cloned()).map_err(many)?;
        let kept = kept(&told, &names, &marked)?;
        let known = told.iter().map(|pack| pack.id).collect();
        let strangers = repository.strangers(packs.keys().copied(), &known, &marked);
        packs.retain(|pack, _| !strangers.contains(pack));
        repository.index = Index::of(told).map_err(many)?;
        repository.doomed.clear();
        let needed = needed(repository, points, &all)?;
        Ok(Self { marks, due, packs, at_work, needed, names, all, kept })
    }

    /// What is to be copied, marked and removed.
    fn plan(&self, rules: &Rules<'_>) -> Result<Plan, CollectError> {
        let mut plan = Plan::default();
        let (mut used, mut lost) = (vec![false; self.kept.len()], Vec::new());
        for id in &self.needed {
            if !follow(&self.kept, *id, |at| used[at] = true) {
                lost.push(*id);
            }
        }
        let marked = packs_of(&self.marks);
        let mut copied = BTreeSet::new();
        for id in lost {
            // What is found only with marked packs: a point was made by somebody who did not know the mark.
            let well = follow(&self.all, id, |at| {
                if marked.contains(&self.names[self.all[at].pack as usize]) {
                    copied.insert(at);
                }
            });
            if !well {
                return Err(CollectError::Refused(id));
            }
        }
        plan.copy.extend(copied.into_iter().map(|at| self.all[at]));
        if self.at_work.is_empty() {
            self.plan_marks(rules, &marked, &used, &mut plan);
        }
        let due = self.marks.iter().filter(|mark| self.due.contains(&mark.name));
        plan.remove.extend(due.flat_map(|mark| &mark.packs).filter(|pack| self.packs.contains_key(pack)));
        plan.copy.sort_by_key(|one| (one.pack, one.spot));
        plan.copy.dedup_by_key(|one| one.id);
        Ok(plan)
    }

    /// Packs of which nothing or little is needed.
    fn plan_marks(&self, rules: &Rules<'_>, marked: &BTreeSet<PackId>, used: &[bool], plan: &mut Plan) {
        let mut in_use = BTreeMap::<PackId, u64>::new();
        for (one, _) in self.kept.iter().zip(used).filter(|(_, used)| **used) {
            *in_use.entry(self.names[one.pack as usize]).or_default() += u64::from(one.spot.length);
        }
        let worth = |size: u64| size.saturating_mul(u64::from(rules.worth)) / 100;
        let idle = |pack: &PackId, size: u64| in_use.get(pack).is_none_or(|used| *used < worth(size));
        let unmarked = self.packs.iter().filter(|(pack, _)| !marked.contains(pack));
        plan.mark = unmarked.filter(|(pack, size)| idle(pack, **size)).map(|(pack, _)| *pack).collect();
        let anew: BTreeSet<PackId> = plan.mark.iter().copied().collect();
        let stay = self.kept.iter().zip(used).filter(|(_, used)| **used).map(|(one, _)| *one);
        plan.copy.extend(stay.filter(|one| anew.contains(&self.names[one.pack as usize])));
    }

    /// Looks anew, after all was copied, whether every block that is needed is found without a marked pack (I13). This stays on
    /// in every build.
    fn prove(&self, repository: &Repository, plan: &Plan) -> Result<(), CollectError> {
        let mut marked = packs_of(&self.marks);
        marked.extend(&plan.mark);
        let (mut told, _) = repository.told()?;
        told.retain(|pack| !marked.contains(&pack.id));
        let (_, kept) = choose(told).map_err(|_| Trouble::Damaged { name: "index".into() })?;
        let lost = self.needed.iter().find(|id| !follow(&kept, **id, |_| {}));
        lost.map_or(Ok(()), |id| Err(CollectError::Refused(*id)))
    }
}

impl Plan {
    fn count(&self, look: &Look, done: &mut Collected) {
        let size = |pack: &PackId| look.packs.get(pack).copied().unwrap_or(0);
        self.remove.iter().for_each(|pack| done.removed.add(size(pack)));
        self.mark.iter().for_each(|pack| done.marked.add(size(pack)));
        self.copy.iter().for_each(|one| done.copied.add(u64::from(one.spot.length)));
        let waiting = look.marks.iter().filter(|mark| !look.due.contains(&mark.name));
        let there = waiting.flat_map(|mark| &mark.packs).filter(|pack| look.packs.contains_key(pack));
        there.for_each(|pack| done.waiting.add(size(pack)));
        done.at_work.clone_from(&look.at_work);
    }
}

/// Where blocks are read without these packs; the packs keep the numbers that they have among all.
fn kept(
    told: &[index::Pack],
    names: &[PackId],
    without: &BTreeSet<PackId>,
) -> Result<Vec<Chosen>, CollectError> {
    let blocks =
        |pack: &index::Pack| if without.contains(&pack.id) { Vec::new() } else { pack.blocks.clone() };
    let packs = told.iter().map(|pack| index::Pack { id: pack.id, blocks: blocks(pack) });
    let (same, kept) = choose(packs).map_err(|_| Trouble::Damaged { name: "index".into() })?;
    debug_assert_eq!(same, names);
    Ok(kept)
}

/// Goes from a block to the whole one that its deltas lead to. Whether it got there.
fn follow(chosen: &[Chosen], id: BlockId, mut visit: impl FnMut(usize)) -> bool {
    let mut next = Some(id);
    while let Some(id) = next {
        let Some(at) = place(chosen, id) else { return false };
        visit(at);
        next = chosen[at].base;
    }
    true
}

/// The blocks that these points name: pages, and what they are of.
fn needed(
    repository: &Repository,
    points: Vec<PointName>,
    all: &[Chosen],
) -> Result<HashSet<BlockId>, CollectError> {
    let (mut needed, mut pages, mut content) = (HashSet::new(), HashSet::new(), Vec::new());
    for name in points {
        let hurt = |why: String| CollectError::Hurt { point: name.clone(), why };
        let point: Point = match repository.point(&name) {
            Ok(point) => point,
            Err(why) if why.is_gone() => continue, // somebody removed it just now
            Err(why) => return Err(hurt(why.to_string())),
        };
        for page in point.disks.iter().flat_map(|disk| &disk.pages) {
            if *page == BlockId::HOLE || !pages.insert(*page) {
                continue;
            }
            repository.block(*page, &mut content).map_err(|why| hurt(why.to_string()))?;
            needed.insert(*page);
            for id in content.as_chunks::<LENGTH>().0.iter().take(PAGE).map(|id| BlockId(*id)) {
                if id != BlockId::HOLE && place(all, id).is_none() {
                    return Err(hurt(format!("block {id} is missing")));
                }
                needed.extend((id != BlockId::HOLE).then_some(id));
            }
        }
    }
    Ok(needed)
}

/// Copies records into new packs: as they are, sealed for their new place.
pub(crate) struct Copier<'a> {
    repository: &'a Repository,
    packer: Packer<'a>,
    listed: Vec<Listed>,
    packs: Vec<index::Pack>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(repository: &'a Repository) -> Result<Self, Trouble> {
        let packer = Packer::new(&repository.keys)?;
        Ok(Self { repository, packer, listed: Vec::new(), packs: Vec::new() })
    }

    fn copy(&mut self, one: &Chosen, pack: PackId) -> Result<(), Trouble> {
        self.copy_from(one.id, one.spot, pack)
    }

    /// Copies a block that the index tells of.
    pub(crate) fn copy_listed(&mut self, block: &Listed, pack: PackId) -> Result<(), Trouble> {
        self.copy_from(block.id, block.spot, pack)
    }

    fn copy_from(&mut self, id: BlockId, spot: Spot, pack: PackId) -> Result<(), Trouble> {
        let name = pack_object(pack);
        let read = self.repository.store.read(&name, u64::from(spot.offset), spot.length as usize);
        let mut sealed = read.map_err(trouble(&name, "read"))?;
        let hurt = |why| Trouble::Block { id, pack, why };
        let form = pack::open(&self.repository.keys, pack, spot, id, &mut sealed).map_err(hurt)?.form;
        sealed.truncate(sealed.len().saturating_sub(crate::key::TAG)); // opened in place
        let spot = self.packer.add(&sealed);
        self.listed.push(Listed { id, spot, form });
        if self.packer.is_full() { self.put() } else { Ok(()) }
    }

    fn put(&mut self) -> Result<(), Trouble> {
        let full = std::mem::replace(&mut self.packer, Packer::new(&self.repository.keys)?);
        let (id, bytes) = full.close();
        let name = pack_object(id);
        self.repository.store.put(&name, &bytes).map_err(trouble(&name, "written"))?;
        self.packs.push(index::Pack { id, blocks: std::mem::take(&mut self.listed) });
        if self.packs.len() < PACKS_MOST { Ok(()) } else { self.tell() }
    }

    fn tell(&mut self) -> Result<(), Trouble> {
        let packs = std::mem::take(&mut self.packs);
        if packs.is_empty() { Ok(()) } else { tell(self.repository, &packs) }
    }

    pub(crate) fn close(mut self) -> Result<(), Trouble> {
        if !self.packer.is_empty() {
            self.put()?;
        }
        self.tell()
    }
}

/// Writes an object of the index that tells of these packs.
pub(crate) fn tell(repository: &Repository, packs: &[index::Pack]) -> Result<(), Trouble> {
    let bytes = object::write(&repository.keys, Kind::Index, &index::write(packs))?;
    let name = format!("index/{}", PackId::random()?);
    repository.store.put(&name, &bytes).map_err(trouble(&name, "written"))
}

/// Tells anew of what these packs are told of with: nothing. What is well of them was told of elsewhere before.
pub(crate) fn untell(repository: &Repository, packs: &BTreeSet<PackId>) -> Result<(), Trouble> {
    for (name, _) in repository.store.list("index").map_err(trouble("index", "listed"))? {
        let Ok(content) = repository.object(&name, Kind::Index) else { continue }; // gone, or rebuilt
        let Ok(mut told) = index::read(&content) else { continue };
        if told.iter().any(|pack| packs.contains(&pack.id)) {
            told.iter_mut().filter(|pack| packs.contains(&pack.id)).for_each(|pack| pack.blocks.clear());
            tell(repository, &told)?;
            repository.remove(&name)?;
        }
    }
    Ok(())
}

/// Objects of the index that tell of packs that are gone, or of few where there are many objects, become new ones that tell
/// of the rest: first the new ones, then the old ones go.
fn tidy_index(repository: &Repository) -> Result<(), Trouble> {
    let names = repository.store.list("index").map_err(trouble("index", "listed"))?;
    let there = repository.packs()?; // after the index: what that tells of is there, or was removed
    let (mut old, mut rest, is_many) = (Vec::new(), Vec::new(), names.len() > OBJECTS_MOST);
    for (name, _) in names {
        let Ok(content) = repository.object(&name, Kind::Index) else { continue }; // gone, or for `repair`
        let Ok(mut packs) = index::read(&content) else { continue };
        let before = packs.len();
        packs.retain(|pack| there.contains(&pack.id));
        if packs.len() < before || (is_many && before < PACKS_MOST / 2) {
            old.push(name);
            rest.extend(packs);
        }
    }
    rest.chunks(PACKS_MOST).try_for_each(|packs| tell(repository, packs))?;
    old.iter().try_for_each(|name| repository.remove(name))
}
