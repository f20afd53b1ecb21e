//! What restore points cost: what each needs of the repository, and what would be free without it.

use crate::id::{BlockId, PackId};
use crate::index::{Chosen, choose, place};
use crate::repository::{PointName, Repository, Trouble, trouble};
use std::collections::BTreeMap;

/// What a point, or a VM with all its points, costs in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its disks.
    pub size: u64,
    /// What it needs in the repository, sealed.
    pub stored: u64,
    /// What nobody else needs of that.
    pub unique: u64,
}

/// What everything costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Du {
    /// Each point; one that cannot be read whole is left out.
    pub points: Vec<(PointName, Usage)>,
    /// Each VM; its size is that of its newest point.
    pub vms: BTreeMap<String, Usage>,
    /// All packs.
    pub packs: u64,
    /// What any point needs of them.
    pub needed: u64,
    /// Points that cannot be read whole.
    pub hurt: Vec<PointName>,
}

/// No number.
pub(crate) const NOBODY: u32 = u32::MAX;
const MANY: u32 = u32::MAX - 1;

/// Who needs each block: nobody, one, or many.
struct Owners(Vec<u32>);

impl Owners {
    fn add(&mut self, at: usize, who: u32) {
        let owner = &mut self.0[at];
        *owner = if *owner == NOBODY || *owner == who { who } else { MANY };
    }
}

/// Counts.
///
/// # Errors
/// If the repository cannot be listed.
pub fn du(repository: &Repository) -> Result<Du, Trouble> {
    let (told, _) = repository.told()?;
    let (_, chosen): (Vec<PackId>, _) =
        choose(told).map_err(|_| Trouble::Damaged { name: "index".into() })?;
    let (mut by_point, mut by_vm) = (Owners(vec![NOBODY; chosen.len()]), Owners(vec![NOBODY; chosen.len()]));
    let mut du = Du::default();
    let listed = repository.store.list("packs").map_err(trouble("packs", "listed"))?;
    du.packs = listed.iter().map(|(_, length)| length).sum();
    let (mut seen, mut numbers) = (vec![NOBODY; chosen.len()], BTreeMap::new());
    for name in repository.points()? {
        let number = du.points.len() as u32;
        let count = numbers.len() as u32;
        let vm = *numbers.entry(name.vm.clone()).or_insert(count);
        let visit = |at: usize| {
            by_point.add(at, number);
            by_vm.add(at, vm);
        };
        match point(repository, &name, &chosen, (&mut seen, number), visit) {
            Some(usage) => du.points.push((name, usage)),
            None => du.hurt.push(name),
        }
    }
    let length = |at: usize| u64::from(chosen[at].spot.length);
    let names: BTreeMap<u32, &String> = numbers.iter().map(|(name, number)| (*number, name)).collect();
    for (at, (point, vm)) in
        by_point.0.iter().zip(&by_vm.0).enumerate().filter(|(_, (point, _))| **point != NOBODY)
    {
        du.needed += length(at);
        if let Some((_, usage)) = du.points.get_mut(*point as usize) {
            usage.unique += length(at);
        }
        if let Some(name) = names.get(vm) {
            du.vms.entry((*name).clone()).or_default().unique += length(at);
        }
    }
    stored_by_vm(repository, &chosen, &mut du);
    Ok(du)
}

/// What each VM needs in all, and how large it is.
fn stored_by_vm(repository: &Repository, chosen: &[Chosen], du: &mut Du) {
    let mut seen = vec![NOBODY; chosen.len()];
    let mut numbers = BTreeMap::new();
    for (name, usage) in &du.points {
        let count = numbers.len() as u32;
        let number = *numbers.entry(name.vm.clone()).or_insert(count);
        let needed = point(repository, name, chosen, (&mut seen, number), |_| {});
        let vm = du.vms.entry(name.vm.clone()).or_default();
        vm.stored += needed.map_or(0, |needed| needed.stored);
        vm.size = usage.size;
    }
}

/// What a point needs, nothing if a part of it is nowhere; each block once for each number that is seen.
pub(crate) fn point(
    repository: &Repository,
    name: &PointName,
    chosen: &[Chosen],
    (seen, number): (&mut [u32], u32),
    mut visit: impl FnMut(usize),
) -> Option<Usage> {
    let point = repository.point(name).ok()?;
    let mut usage = Usage::default();
    for disk in &point.disks {
        usage.size += disk.size;
        for page in 0..disk.pages.len() {
            let names = repository.page(disk, page).ok()?;
            for id in names.into_iter().chain([disk.pages[page]]).filter(|id| *id != BlockId::HOLE) {
                let mut next = Some(id);
                while let Some(id) = next {
                    let at = place(chosen, id)?;
                    if seen[at] == number {
                        break; // and what it leads to, too
                    }
                    seen[at] = number;
                    usage.stored += u64::from(chosen[at].spot.length);
                    visit(at);
                    next = chosen[at].base;
                }
            }
        }
    }
    Some(usage)
}
