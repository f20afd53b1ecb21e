//! What somebody saw of a restore point, written beside it for good: that it was read back, that a machine booted from it.
//!
//! Statements are only ever added. A later one that a point is hurt, or that it did not boot, takes back what was proved of it
//! before.

use crate::id::{LENGTH, PackId};
use crate::object::{self, Kind};
use crate::parts::take;
use crate::repository::{PointName, Repository, Trouble, folder_of, trouble};
use std::collections::BTreeMap;
use std::io;

const VERSION: u8 = 1;
/// Proofs lie here.
pub(crate) const FOLDER: &str = "proofs";
/// The longest words in bytes.
pub const WORDS_MOST: usize = 1_024;

/// How far a restore point can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// It is there. Stated of a point, that it did not boot.
    #[default]
    Taken,
    /// It was taken while the guest held its file systems still, or was off.
    Consistent,
    /// A machine booted from it.
    Booted,
    /// Its applications answered, and no check of its data found anything wrong.
    AppChecked,
}

impl std::fmt::Display for Grade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Taken => "taken",
            Self::Consistent => "consistent",
            Self::Booted => "booted",
            Self::AppChecked => "app-checked",
        })
    }
}

/// What is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// All of it was read back and hashed, and is as it was written: it is *verified*.
    Verified,
    /// It could not be read whole.
    Hurt,
    /// It has this grade.
    Grade(Grade),
}

/// A statement about a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What.
    pub what: What,
    /// When, in microseconds since 1970.
    pub when: i64,
    /// How long the boot took until the application answered, in milliseconds; 0 where nothing booted.
    pub boot: u64,
    /// What a person should read of it.
    pub words: String,
}

/// All that is stated of a point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The best grade that was proved and not taken back.
    pub grade: Grade,
    /// When that was proved, in microseconds since 1970.
    pub proved: Option<i64>,
    /// How long it booted then, in milliseconds.
    pub boot: Option<u64>,
    /// When it was last booted, or was to, in microseconds since 1970.
    pub tried: Option<i64>,
    /// What a person should know of that.
    pub words: String,
    /// When it was last read back and well; nothing if never, or if it was found hurt later.
    pub verified: Option<i64>,
    /// It was found hurt, and not well since.
    pub is_hurt: bool,
}

impl Proof {
    /// Its content, about the point whose object has this random name; nothing if its words are too long.
    fn write(&self, of: PackId) -> Option<Vec<u8>> {
        if self.words.len() > WORDS_MOST {
            return None;
        }
        let what = match self.what {
            What::Verified => 1,
            What::Hurt => 2,
            What::Grade(Grade::Taken) => 3,
            What::Grade(Grade::Consistent) => 4,
            What::Grade(Grade::Booted) => 5,
            What::Grade(Grade::AppChecked) => 6,
        };
        let mut out = vec![VERSION];
        out.extend_from_slice(&of.0);
        out.push(what);
        out.extend_from_slice(&self.when.to_le_bytes());
        out.extend_from_slice(&self.boot.to_le_bytes());
        out.extend_from_slice(self.words.as_bytes());
        Some(out)
    }

    /// Reads it again, with the random name of the point that it is about.
    #[must_use]
    pub fn read(content: &[u8]) -> Option<(PackId, Self)> {
        let mut rest = content;
        let [VERSION] = take::<1>(&mut rest)? else { return None };
        let of = PackId(*take::<LENGTH>(&mut rest)?);
        let what = match take::<1>(&mut rest)? {
            [1] => What::Verified,
            [2] => What::Hurt,
            [3] => What::Grade(Grade::Taken),
            [4] => What::Grade(Grade::Consistent),
            [5] => What::Grade(Grade::Booted),
            [6] => What::Grade(Grade::AppChecked),
            _ => return None,
        };
        let when = i64::from_le_bytes(*take(&mut rest)?);
        let boot = u64::from_le_bytes(*take(&mut rest)?);
        let words = std::str::from_utf8(rest).ok().filter(|words| words.len() <= WORDS_MOST)?;
        Some((of, Self { what, when, boot, words: words.to_owned() }))
    }
}

impl Standing {
    /// What these statements, in the order in which they were made, come to.
    #[must_use]
    pub fn of(proofs: &[Proof]) -> Self {
        let mut standing = Self::default();
        for proof in proofs {
            match proof.what {
                What::Verified => (standing.verified, standing.is_hurt) = (Some(proof.when), false),
                What::Hurt => standing = Self { is_hurt: true, ..Self::default() },
                What::Grade(grade) => standing.learn(grade, proof),
            }
        }
        standing
    }

    fn learn(&mut self, grade: Grade, proof: &Proof) {
        if grade != Grade::Consistent {
            (self.tried, self.words) = (Some(proof.when), proof.words.clone());
        }
        if grade == Grade::Taken {
            (self.grade, self.proved, self.boot) = (grade, None, None);
        } else if grade >= self.grade {
            (self.grade, self.proved) = (grade, Some(proof.when));
            self.boot = (grade >= Grade::Booted).then_some(proof.boot);
        }
    }
}

/// States something about a point. It is durable when this returns.
///
/// # Errors
/// If the point is not there, its words are too long, or it cannot be written.
pub fn prove(repository: &Repository, name: &PointName, proof: &Proof) -> Result<(), Trouble> {
    let of = random_name(repository, name)?;
    let mut number = 1 + numbers(repository, name)?.last().copied().unwrap_or(0);
    loop {
        let object = object(name, number);
        let content = proof.write(of).ok_or(Trouble::Damaged { name: object.clone() })?;
        let bytes = object::write(&repository.keys, Kind::Proof, &content)?;
        match repository.store.put(&object, &bytes) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(trouble(&object, "written")(source)),
        }
    }
}

/// What was stated about a point, in the order in which it was. A statement that cannot be read states nothing.
///
/// # Errors
/// If the point or its proofs cannot be listed.
pub fn proofs(repository: &Repository, name: &PointName) -> Result<Vec<Proof>, Trouble> {
    read(repository, name, &numbers(repository, name)?)
}

/// Those of these numbers.
pub(crate) fn read(
    repository: &Repository,
    name: &PointName,
    numbers: &[u64],
) -> Result<Vec<Proof>, Trouble> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let of = random_name(repository, name)?;
    let read = |number: &u64| {
        let content = repository.object(&object(name, *number), Kind::Proof).ok()?;
        Proof::read(&content).filter(|(about, _)| *about == of).map(|(_, proof)| proof)
    };
    Ok(numbers.iter().filter_map(read).collect())
}

/// The numbers of what was stated about each point of a VM, in their order; of all VMs if none is named.
pub(crate) fn stated(
    repository: &Repository,
    vm: Option<&str>,
) -> Result<BTreeMap<PointName, Vec<u64>>, Trouble> {
    let folder = folder_of(FOLDER, vm);
    let all = repository.store.list(&folder).map_err(trouble(&folder, "listed"))?;
    let mut stated = BTreeMap::<PointName, Vec<u64>>::new();
    for (object, _) in all {
        let number = object.rsplit('/').next().and_then(|number| number.parse().ok());
        if let (Some(point), Some(number)) = (about(&object), number) {
            stated.entry(point).or_default().push(number);
        }
    }
    Ok(stated)
}

/// The point that a statement is about.
fn about(object: &str) -> Option<PointName> {
    let (point, _) = object.strip_prefix(FOLDER)?.rsplit_once('/')?;
    PointName::of(&format!("points{point}"))
}

/// What all that was stated about a point comes to.
///
/// # Errors
/// If the point or its proofs cannot be listed.
pub fn standing(repository: &Repository, name: &PointName) -> Result<Standing, Trouble> {
    Ok(Standing::of(&proofs(repository, name)?))
}

/// The best grade that was proved of a point, and not taken back.
///
/// # Errors
/// If the point or its proofs cannot be listed.
pub fn grade(repository: &Repository, name: &PointName) -> Result<Grade, Trouble> {
    Ok(standing(repository, name)?.grade)
}

/// Removes what was stated about points that are not there any more.
pub(crate) fn tidy(repository: &Repository) -> Result<(), Trouble> {
    let all = repository.store.list(FOLDER).map_err(trouble(FOLDER, "listed"))?;
    let points = repository.points()?; // after the proofs: what they are about was there before them
    let is_gone = |object: &str| about(object).is_some_and(|point| !points.contains(&point));
    let gone = all.iter().filter(|(object, _)| is_gone(object));
    gone.into_iter().try_for_each(|(object, _)| repository.remove(object))
}

fn object(name: &PointName, number: u64) -> String {
    format!("{}/{number:08}", folder(name))
}

fn folder(name: &PointName) -> String {
    format!("{FOLDER}/{}/{:020}", name.vm, name.sequence)
}

/// The numbers of the statements about a point, in their order.
fn numbers(repository: &Repository, name: &PointName) -> Result<Vec<u64>, Trouble> {
    let folder = folder(name);
    let all = repository.store.list(&folder).map_err(trouble(&folder, "listed"))?;
    Ok(all.iter().filter_map(|(object, _)| object.rsplit('/').next()?.parse().ok()).collect())
}

/// The random name in the head of a point: so what was stated about one is not taken for another that has its number.
fn random_name(repository: &Repository, name: &PointName) -> Result<PackId, Trouble> {
    let object = name.object();
    let head = repository.store.read(&object, 0, 40).map_err(trouble(&object, "read"))?;
    object::name(&head).ok_or(Trouble::Damaged { name: object })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn proof(what: What, when: i64) -> Proof {
        Proof { what, when, boot: 4_200, words: "SELECT 1".into() }
    }

    #[test]
    fn a_proof_is_read_as_it_was_written_and_not_if_it_was_cut() {
        let of = PackId([4; LENGTH]);
        for what in [What::Verified, What::Hurt, What::Grade(Grade::Taken), What::Grade(Grade::AppChecked)] {
            let content = proof(what, -3).write(of).unwrap();
            assert_eq!(Proof::read(&content).unwrap(), (of, proof(what, -3)));
            for length in 0..content.len() - 8 {
                assert_eq!(Proof::read(&content[..length]), None, "{length}");
            }
        }
        assert_eq!(Proof { words: "x".repeat(1_025), ..proof(What::Hurt, 0) }.write(of), None);
    }

    #[test]
    fn the_best_counts_until_it_is_found_hurt() {
        let (booted, checked) = (What::Grade(Grade::Booted), What::Grade(Grade::AppChecked));
        let all = [proof(checked, 1), proof(booted, 2), proof(What::Verified, 3)];
        let standing = Standing::of(&all);
        assert_eq!(
            (standing.grade, standing.proved, standing.boot),
            (Grade::AppChecked, Some(1), Some(4_200))
        );
        assert_eq!((standing.verified, standing.tried), (Some(3), Some(2)));
        let broken = Standing::of(&[&all[..], &[proof(What::Grade(Grade::Taken), 4)]].concat());
        assert_eq!((broken.grade, broken.proved, broken.tried), (Grade::Taken, None, Some(4)));
        assert_eq!(broken.words, "SELECT 1");
        let all = [&all[..], &[proof(What::Hurt, 4)]].concat();
        assert_eq!(Standing::of(&all), Standing { is_hurt: true, ..Standing::default() });
        let all = [&all[..], &[proof(What::Verified, 5)]].concat();
        assert_eq!(Standing::of(&all), Standing { verified: Some(5), ..Standing::default() });
        assert!(Grade::Taken < Grade::Consistent && Grade::Booted < Grade::AppChecked);
    }
}
