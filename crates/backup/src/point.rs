//! A restore point: which blocks the disks of a VM were made of at one time. Its content says whose and which it is, so
//! that no point can be offered as another.

use crate::block::BLOCK;
use crate::id::{BlockId, LENGTH};
use crate::parts::{take, word};

/// Blocks that a page names: 64 MiB of a disk.
pub const PAGE: usize = 256;
/// The longest name of a VM or a disk in bytes.
pub const NAME_MOST: usize = 63;
/// The longest note in bytes.
pub const NOTE_MOST: usize = 64 << 10;
/// The largest disk: 256 TiB.
pub const DISK_MOST: u64 = 1 << 48;
const DISKS_MOST: usize = 64;
const VERSION: u8 = 1;

/// A disk of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// As the VM knows it.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The blocks that hold the names of its blocks, [`PAGE`] each; a hole where all of those are holes.
    pub pages: Vec<BlockId>,
}

/// A restore point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The VM, or what it is called where there is none.
    pub vm: String,
    /// Its number among those of the VM; it only rises.
    pub sequence: u64,
    /// When it was taken, in microseconds since 1970.
    pub taken: i64,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// What else is known of it, in JSON, for people and for those who come later.
    pub note: String,
}

/// The content of a point is not one of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no restore point of this format")]
pub struct NoPoint;

impl Disk {
    /// How many blocks a disk of this size has.
    #[must_use]
    pub const fn blocks(size: u64) -> u64 {
        size.div_ceil(BLOCK as u64)
    }

    /// How many pages.
    #[must_use]
    pub const fn pages(size: u64) -> u64 {
        Self::blocks(size).div_ceil(PAGE as u64)
    }
}

impl Point {
    /// Its content, to be sealed.
    ///
    /// # Errors
    /// If a name, a note or the number of disks is beyond the limits of this module.
    pub fn write(&self) -> Result<Vec<u8>, NoPoint> {
        let fits = self.note.len() <= NOTE_MOST && self.disks.len() <= DISKS_MOST;
        if !fits {
            return Err(NoPoint);
        }
        let mut out = vec![VERSION];
        put_name(&mut out, &self.vm)?;
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.taken.to_le_bytes());
        out.push(self.disks.len() as u8);
        for disk in &self.disks {
            if disk.size > DISK_MOST || disk.pages.len() as u64 != Disk::pages(disk.size) {
                return Err(NoPoint);
            }
            put_name(&mut out, &disk.name)?;
            out.extend_from_slice(&disk.size.to_le_bytes());
            disk.pages.iter().for_each(|page| out.extend_from_slice(&page.0));
        }
        out.extend_from_slice(self.note.as_bytes());
        Ok(out)
    }

    /// Reads it again.
    ///
    /// # Errors
    /// If it is not one of this format.
    pub fn read(content: &[u8]) -> Result<Self, NoPoint> {
        let mut rest = content;
        if take::<1>(&mut rest) != Some(&[VERSION]) {
            return Err(NoPoint);
        }
        let vm = name(&mut rest)?;
        let sequence = u64::from_le_bytes(*take(&mut rest).ok_or(NoPoint)?);
        let taken = i64::from_le_bytes(*take(&mut rest).ok_or(NoPoint)?);
        let [count] = *take::<1>(&mut rest).ok_or(NoPoint)?;
        if usize::from(count) > DISKS_MOST {
            return Err(NoPoint);
        }
        let disks = (0..count).map(|_| disk(&mut rest)).collect::<Result<_, _>>()?;
        let note = std::str::from_utf8(rest).ok().filter(|note| note.len() <= NOTE_MOST).ok_or(NoPoint)?;
        Ok(Self { vm, sequence, taken, disks, note: note.to_owned() })
    }
}

fn disk(rest: &mut &[u8]) -> Result<Disk, NoPoint> {
    let name = name(rest)?;
    let size = u64::from_le_bytes(*take(rest).ok_or(NoPoint)?);
    let count = usize::try_from(Disk::pages(size)).map_err(|_| NoPoint)?;
    if size > DISK_MOST || count > rest.len() / LENGTH {
        return Err(NoPoint);
    }
    let pages =
        (0..count).map(|_| take(rest).map(|id| BlockId(*id))).collect::<Option<_>>().ok_or(NoPoint)?;
    Ok(Disk { name, size, pages })
}

/// Whether this may be the name of a VM or a disk: what [`crate::store::is_name`] allows in one part (A33, A36).
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= NAME_MOST && !name.contains('/') && crate::store::is_name(name)
}

fn put_name(out: &mut Vec<u8>, name: &str) -> Result<(), NoPoint> {
    if !is_name(name) {
        return Err(NoPoint);
    }
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

fn name(rest: &mut &[u8]) -> Result<String, NoPoint> {
    word(rest).filter(|name| is_name(name)).ok_or(NoPoint)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point() -> Point {
        let disk = |name: &str, size: u64| {
            let pages = (0..Disk::pages(size)).map(|n| BlockId([n as u8; LENGTH])).collect();
            Disk { name: name.into(), size, pages }
        };
        let disks = vec![disk("disk0", 4 << 30), disk("wal", 1), disk("empty", 0)];
        Point { vm: "orders".into(), sequence: 7, taken: -1, disks, note: "{\"lsn\":\"0/1\"}".into() }
    }

    #[test]
    fn a_point_is_read_as_it_was_written_and_not_if_it_was_cut() {
        let content = point().write().unwrap();
        assert_eq!(Point::read(&content).unwrap(), point());
        let note = point().note.len();
        for length in 0..content.len() - note {
            assert_eq!(Point::read(&content[..length]), Err(NoPoint), "{length}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_and_disks_without_end_are_refused() {
        for vm in ["", "..", "a/b", "../x", "A", &"a".repeat(64), "a\n"] {
            assert_eq!(Point { vm: vm.into(), ..point() }.write(), Err(NoPoint), "{vm}");
        }
        let endless = Disk { name: "d".into(), size: u64::MAX, pages: vec![] };
        assert_eq!(Point { disks: vec![endless], ..point() }.write(), Err(NoPoint));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_point_or_refused(mut content in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let _ = Point::read(&content);
            content = point().write().unwrap();
            let at = at.index(content.len());
            content[at] = with;
            if let Ok(point) = Point::read(&content) {
                prop_assert_eq!(point.write().unwrap(), content);
            }
        }
    }
}
