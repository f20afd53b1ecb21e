//! The points of a repository as they are listed: what each says, and what was stated about it. Several are read at once, as a
//! store that is far away takes its time for each.

use crate::parts::on_threads;
use crate::point::Point;
use crate::proof::{self, Standing};
use crate::repository::{PointName, Repository, Trouble};
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many are read at once.
const AT_ONCE: usize = 8;

/// A point that is there.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: PointName,
    /// What it says, if it can be read.
    pub point: Result<Point, Trouble>,
    /// What was stated about it. A statement that cannot be read states nothing.
    pub standing: Standing,
}

/// Those of this VM, of all VMs if none is named: by VM and number. Nothing of another VM is read.
///
/// # Errors
/// If they, or what was stated about them, cannot be listed.
pub fn points(repository: &Repository, vm: Option<&str>) -> Result<Vec<Listed>, Trouble> {
    let names = repository.points_of(vm)?;
    let (stated, next) = (proof::stated(repository, vm)?, AtomicUsize::new(0));
    let work = || {
        let mut part = Vec::new();
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let numbers = stated.get(name).map_or(&[][..], Vec::as_slice);
            let proofs = proof::read(repository, name, numbers).unwrap_or_default();
            let (point, standing) = (repository.point(name), Standing::of(&proofs));
            part.push(Listed { name: name.clone(), point, standing });
        }
        part
    };
    let mut all: Vec<Listed> = on_threads(AT_ONCE.min(names.len()), work).into_iter().flatten().collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}
