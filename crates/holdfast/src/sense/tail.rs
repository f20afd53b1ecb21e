//! What it takes to follow a file that another program owns: a place in it that is known again, and lines.
//!
//! The file may be truncated, replaced, or grow without end and without a newline. Nothing here waits for
//! it, and what is not a plain file is refused (A30).

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes before the place we are at, by which a file is known again.
pub const MEMORY: usize = 64;
/// A line without an end is looked at when nothing was added for so long: a prompt has no end.
const HALF_LINE_RESTS: Duration = Duration::from_millis(500);
/// Bytes read at once.
const PIECE: usize = 8 * 1024;
/// Links that a path may lead through.
const MOST_LINKS: usize = 40;

/// Why a file cannot be followed now.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// Something else has taken the place of the file.
    #[error("`{}` is not a plain file", .0.display())]
    NotAFile(PathBuf),
    /// A link leads to a file that whoever made the link might not be allowed to read.
    #[error("`{}` is a link that belongs neither to root, nor to us, nor to the owner of what it leads to", .0.display())]
    StrangeLink(PathBuf),
    /// The system refused.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Whether a path may lead through links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The file itself must be no link.
    Refused,
    /// Links are followed where their owner gains nothing by it: those of root, ours, and those of the owner of
    /// the file at the end. Otherwise whoever may write to a folder of logs could have us read any file.
    Safe,
}

/// An open file, and a place in it.
#[derive(Debug)]
pub struct Open {
    /// The file.
    pub file: File,
    /// Its device and number.
    pub id: (u64, u64),
    /// Where we are in it.
    pub offset: u64,
    before: Vec<u8>,
}

impl Open {
    /// Opens a plain file, at its start.
    ///
    /// # Errors
    /// [`TailError`]; it never waits for a writer.
    pub fn new(path: &Path, links: Links) -> Result<Self, TailError> {
        let failed = |source| TailError::Io { path: path.to_owned(), source };
        let opened = match links {
            Links::Refused => open_here(path),
            Links::Safe => return Self::through_links(path),
        };
        let file = match opened {
            Ok(file) => file,
            Err(Errno::LOOP) => return Err(TailError::NotAFile(path.to_owned())),
            Err(error) => return Err(failed(error.into())),
        };
        Self::of(file, path)
    }

    fn through_links(path: &Path) -> Result<Self, TailError> {
        let failed = |source| TailError::Io { path: path.to_owned(), source };
        let (end, owners) = resolve(path).map_err(failed)?;
        let flags = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        // No link is followed that was not looked at: what was swapped since is refused.
        let file = match rustix::fs::openat2(CWD, &end, FLAGS, Mode::empty(), flags) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP) => return Err(TailError::StrangeLink(path.to_owned())),
            Err(Errno::NOSYS | Errno::PERM) => open_here(&end).map_err(|error| failed(error.into()))?,
            Err(error) => return Err(failed(error.into())),
        };
        let open = Self::of(file, path)?;
        let owner = open.file.metadata().map_err(failed)?.uid();
        let us = rustix::process::geteuid().as_raw();
        if owners.iter().any(|&link| link != 0 && link != us && link != owner) {
            return Err(TailError::StrangeLink(path.to_owned()));
        }
        Ok(open)
    }

    fn of(file: File, path: &Path) -> Result<Self, TailError> {
        let meta = file.metadata().map_err(|source| TailError::Io { path: path.to_owned(), source })?;
        if !meta.is_file() {
            return Err(TailError::NotAFile(path.to_owned()));
        }
        Ok(Self { file, id: id(&meta), offset: 0, before: Vec::new() })
    }

    /// How long it is now.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether no folder has it any more.
    pub fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Goes there; what stands before it is not known.
    pub fn go_to(&mut self, offset: u64) {
        self.offset = offset;
        self.before.clear();
    }

    /// Goes there and learns what stands before it.
    pub fn remember(&mut self, offset: u64) -> io::Result<()> {
        self.go_to(offset);
        self.before = self.before(offset)?;
        Ok(())
    }

    /// The bytes before a place, at most [`MEMORY`]; none if the file ends before it.
    pub fn before(&self, offset: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(offset).map_or(MEMORY, |offset| offset.min(MEMORY));
        let mut before = vec![0; length];
        let read = read_full(&self.file, &mut before, offset - length as u64)?;
        if read < length {
            before.clear();
        }
        Ok(before)
    }

    /// Whether what we have read still stands before our place. If not, the file was truncated and has
    /// grown past that place since.
    pub fn is_known(&self) -> io::Result<bool> {
        let mut before = [0; MEMORY];
        let length = self.before.len();
        let read = read_full(&self.file, &mut before[..length], self.offset - length as u64)?;
        Ok(before[..read] == self.before)
    }

    /// Reads on, at most so many bytes, piece by piece; `tell` gets each piece and where it begins.
    pub fn read_on(&mut self, most: u64, mut tell: impl FnMut(&[u8], u64)) -> io::Result<u64> {
        let mut piece = [0; PIECE];
        let mut left = most;
        while left > 0 {
            let room = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let count = match self.file.read_at(&mut piece[..room], self.offset) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let begin = self.offset;
            self.passed(&piece[..count]);
            left -= count as u64;
            tell(&piece[..count], begin);
        }
        Ok(most - left)
    }

    fn passed(&mut self, piece: &[u8]) {
        self.offset += piece.len() as u64;
        self.before.extend_from_slice(&piece[piece.len().saturating_sub(MEMORY)..]);
        self.before.drain(..self.before.len().saturating_sub(MEMORY));
    }
}

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

fn open_here(path: &Path) -> Result<File, Errno> {
    rustix::fs::openat(CWD, path, FLAGS, Mode::empty()).map(File::from)
}

/// Fills a buffer from a place on, as far as the file goes.
pub fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Device and number of a file.
pub fn id(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// A path without links, and the owners of those that it led through.
fn resolve(path: &Path) -> io::Result<(PathBuf, Vec<u32>)> {
    let own = |part: Component<'_>| part.as_os_str().to_owned();
    let mut left: Vec<OsString> = path.components().rev().map(own).collect();
    let (mut end, mut owners) = (PathBuf::from("/"), Vec::new());
    while let Some(part) = left.pop() {
        if part == ".." {
            end.pop();
            continue;
        }
        end.push(&part);
        if part == "/" {
            continue;
        }
        let meta = std::fs::symlink_metadata(&end)?;
        if meta.is_symlink() {
            if owners.len() == MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            owners.push(meta.uid());
            let target = std::fs::read_link(&end)?;
            end.pop();
            left.extend(target.components().rev().filter(|part| *part != Component::CurDir).map(own));
        }
    }
    Ok((end, owners))
}

/// Bytes become lines: half ones are kept for their other half, and none is longer than a limit.
#[derive(Debug)]
pub struct Lines {
    longest: usize,
    half: Vec<u8>,
    /// The line was too long and has been told already; what follows of it is dropped.
    told: bool,
    grew: Option<Instant>,
}

impl Lines {
    /// None is longer than this; what is more of it is dropped.
    pub const fn new(longest: usize) -> Self {
        Self { longest, half: Vec::new(), told: false, grew: None }
    }

    /// Tells the lines that these bytes end, each with how many of these bytes had been used by then.
    pub fn feed(&mut self, bytes: &[u8], now: Instant, mut tell: impl FnMut(&[u8], usize)) {
        let mut used = 0;
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            used += piece.len();
            let ended = piece.ends_with(b"\n");
            if ended && self.half.is_empty() && !self.told {
                tell(&piece[..piece.len().min(self.longest)], used);
                continue;
            }
            let room = self.longest - self.half.len();
            self.half.extend_from_slice(&piece[..piece.len().min(room)]);
            if !self.told && (ended || self.half.len() == self.longest) {
                tell(&self.half, used);
                self.told = true;
            }
            if ended {
                self.half.clear();
                self.told = false;
            }
        }
        self.grew = Some(now);
    }

    /// A half line to which nothing is added, once.
    pub fn rested(&mut self, now: Instant) -> Option<&[u8]> {
        let rests = self.grew.is_some_and(|at| now.saturating_duration_since(at) >= HALF_LINE_RESTS);
        if self.told || self.half.is_empty() || !rests {
            return None;
        }
        self.grew = None;
        Some(&self.half)
    }

    /// The half line of a file that ends here.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let half = std::mem::take(&mut self.half);
        let told = std::mem::take(&mut self.told);
        (!told && !half.is_empty()).then_some(half)
    }

    /// Bytes of memory that it holds on to.
    #[cfg(test)]
    pub fn holds(&self) -> usize {
        self.half.capacity()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_open_itself_refuses_what_came_between() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        symlink("/dev/zero", &path).unwrap();
        assert!(matches!(Open::new(&path, Links::Refused), Err(TailError::NotAFile(_))));
        assert!(matches!(Open::new(&path, Links::Safe), Err(TailError::NotAFile(_))));
        for links in [Links::Refused, Links::Safe] {
            assert!(matches!(Open::new(Path::new("/dev/null"), links), Err(TailError::NotAFile(_))));
            assert!(matches!(Open::new(Path::new("/nowhere"), links), Err(TailError::Io { .. })));
        }
    }

    #[test]
    fn our_own_links_are_followed_also_through_folders_and_circles_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/log"), "x").unwrap();
        symlink("./real", at("folder")).unwrap();
        symlink("../real/log", at("real/current")).unwrap();
        let open = Open::new(&at("folder/current"), Links::Safe).unwrap();
        assert_eq!(open.id, Open::new(&at("real/log"), Links::Refused).unwrap().id);
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert!(matches!(Open::new(&at("a"), Links::Safe), Err(TailError::Io { .. })));
    }

    #[test]
    fn a_link_of_a_stranger_to_a_file_of_another_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return; // only root can make a link of somebody else
        }
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("secret"), folder.path().join("log"));
        std::fs::write(&file, "x").unwrap();
        symlink(&file, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(12_345), None).unwrap();
        assert!(matches!(Open::new(&link, Links::Safe), Err(TailError::StrangeLink(_))));
        std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
        assert!(Open::new(&link, Links::Safe).is_ok());
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_are_cut(
            text in proptest::collection::vec(prop_oneof![4 => Just(b'x'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..400),
            cuts in proptest::collection::vec(1usize..60, 1..40),
        ) {
            let mut whole = Vec::new();
            Lines::new(64).feed(&text, Instant::now(), |line, used| whole.push((line.to_vec(), used)));
            let (mut lines, mut parts, mut rest) = (Lines::new(64), Vec::new(), &text[..]);
            for cut in cuts.iter().cycle() {
                let done = text.len() - rest.len();
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                lines.feed(piece, Instant::now(), |line, used| parts.push((line.to_vec(), done + used)));
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            let text = |all: &[(Vec<u8>, usize)]| all.iter().map(|(line, _)| line.clone()).collect::<Vec<_>>();
            prop_assert_eq!(text(&whole), text(&parts));
            // What ended with a newline ends at the same place.
            for ((line, a), (_, b)) in whole.iter().zip(&parts) {
                prop_assert!(!line.ends_with(b"\n") || a == b);
            }
        }
    }
}
