//! Where a source was in a file, so that it goes on there after a restart, even if the file was rotated.

use super::super::tail::{MEMORY, Open, read_full};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes at the start of a file by which it is known again.
pub const HEAD: usize = 256;
/// Files of a folder that are looked at for a rotated one.
const MOST_LOOKED_AT: usize = 512;

/// A place in one file. The number of a device may change with a restart of the host, so it is not in here;
/// the number of a file may be used again, so some of its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's number.
    pub inode: u64,
    /// Bytes before the place.
    pub offset: u64,
    /// The checksum of the file's first bytes: at most [`HEAD`], and none behind the place.
    pub head: u32,
    /// The checksum of the last bytes before the place, at most [`MEMORY`].
    pub before: u32,
    /// When it was read, in seconds since 1970: a file of the same pattern that is younger is news after a restart.
    pub read_at: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inode, offset, head, before, read_at } = self;
        write!(f, "file {inode} {offset} {head:08x} {before:08x} {read_at}")
    }
}

/// A text that is no place.
#[derive(Debug, thiserror::Error)]
#[error("this is no place in a file")]
pub struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let words: Vec<&str> = text.split(' ').collect();
        let ["file", inode, offset, head, before, read_at] = words[..] else { return Err(NoPlace) };
        let sum = |text| u32::from_str_radix(text, 16).map_err(|_| NoPlace);
        let number = |text: &str| text.parse().map_err(|_| NoPlace);
        let (inode, offset, read_at) = (number(inode)?, number(offset)?, number(read_at)?);
        Ok(Self { inode, offset, head: sum(head)?, before: sum(before)?, read_at })
    }
}

impl Place {
    /// Whether this file has such a place, whatever its number is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_in(&self, open: &Open) -> io::Result<bool> {
        if open.size()? < self.offset {
            return Ok(false);
        }
        let head = head(&open.file)?;
        let length = usize::try_from(self.offset).map_or(HEAD, |offset| offset.min(HEAD));
        let same = head.len() >= length && crc32fast::hash(&head[..length]) == self.head;
        Ok(same && crc32fast::hash(&open.before(self.offset)?) == self.before)
    }

    /// The file that `path` was rotated to, or copied to, with this place in it: one beside it, of the same number
    /// if there is one, else of a name that begins like it.
    pub fn find_beside(&self, path: &Path) -> Option<Open> {
        if self.offset == 0 {
            return None; // every file has that place
        }
        let (folder, name) = (path.parent()?, path.file_name()?.to_str()?);
        let stem = name.split('.').next().filter(|stem| !stem.is_empty()).unwrap_or(name);
        let mut candidates: Vec<(bool, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(folder).ok()?.flatten().take(MOST_LOOKED_AT) {
            use std::os::unix::fs::DirEntryExt;
            let (same, other) = (entry.ino() == self.inode, entry.file_name());
            if same || other.to_str().is_some_and(|other| other.starts_with(stem) && other != name) {
                candidates.push((same, entry.path()));
            }
        }
        candidates.sort_by(|a, b| b.cmp(a));
        candidates.into_iter().find_map(|(_, path)| {
            let open = Open::new(&path, super::super::tail::Links::Refused).ok()?;
            self.is_in(&open).ok()?.then_some(open)
        })
    }
}

/// The first bytes of a file, at most [`HEAD`].
///
/// # Errors
/// It cannot be read.
pub fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let length = read_full(file, &mut head, 0)?;
    head.truncate(length);
    Ok(head)
}

/// Makes places in what is read from one file.
#[derive(Debug)]
pub struct Marker {
    inode: u64,
    head: Vec<u8>,
    /// What was read in this look, and up to [`MEMORY`] bytes before that.
    window: Vec<u8>,
    /// Where the window begins.
    begin: u64,
    read_at: u64,
}

impl Marker {
    /// For what is read from the place of this file on.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(open: &Open) -> io::Result<Self> {
        let window = open.before(open.offset)?;
        let begin = open.offset - window.len() as u64;
        let read_at = seconds(SystemTime::now());
        Ok(Self { inode: open.id.1, head: head(&open.file)?, window, begin, read_at })
    }

    /// Adds what was read next.
    pub fn read(&mut self, piece: &[u8]) {
        self.window.extend_from_slice(piece);
    }

    /// The place with so many bytes before it, among those read.
    pub fn place(&self, offset: u64) -> Place {
        let end =
            usize::try_from(offset - self.begin).map_or(self.window.len(), |at| at.min(self.window.len()));
        let before = &self.window[end.saturating_sub(MEMORY)..end];
        let length = usize::try_from(offset).map_or(HEAD, |offset| offset.min(HEAD));
        Place {
            inode: self.inode,
            offset,
            head: crc32fast::hash(&self.head[..length.min(self.head.len())]),
            before: crc32fast::hash(before),
            read_at: self.read_at,
        }
    }
}

/// Whole seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a file begins as one that is packed, which holds no lines.
pub fn is_packed(file: &File) -> bool {
    let mut head = [0; 6];
    let length = file.read_at(&mut head, 0).unwrap_or(0);
    let packed: [&[u8]; 5] = [b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"];
    packed.iter().any(|mark| head[..length].starts_with(mark))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_and_read() {
        let place = Place { inode: 7, offset: 1 << 40, head: 3, before: u32::MAX, read_at: 9 };
        assert_eq!(place.to_string(), "file 7 1099511627776 00000003 ffffffff 9");
        assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        for text in [
            "",
            "file",
            "file 1 2 3",
            "cursor 1 2 3 4 5",
            "file 1 -2 3 4 5",
            "file 1 2 3 4",
            "file 1 2 x 4 5",
        ] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
