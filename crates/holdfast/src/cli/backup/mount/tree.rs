//! What a mounted restore point looks like: one folder with a file for each disk, and what is known of the point. Nothing in it
//! ever changes, so the kernel may keep what it read; all reads go through the one way that every offer of a point has.

use crate::backups::offer::Told;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyLseek,
    ReplyOpen, Request,
};
use holdfast_nbd::IS_HOLE;
use holdfast_nbd::server::Disk;
use rustix::process::{getgid, getuid};
use std::ffi::OsStr;
use std::io;
use std::time::{Duration, SystemTime};

/// For so long the kernel need not ask again: nothing changes.
const KEPT: Duration = Duration::from_secs(86_400);
/// The most bytes of one question. The kernel asks for less.
const REQUEST_MOST: u32 = 1 << 20;
/// The first file; before it is the folder.
const FIRST: u64 = 2;
/// `whence` of a search for what is stored, and for what is not (lseek(2)).
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// What a file holds.
pub enum Content {
    /// The bytes of a disk.
    Disk(Told),
    /// These.
    Text(Vec<u8>),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Disk(disk) => disk.size(),
            Self::Text(text) => text.len() as u64,
        }
    }

    /// What there is of so many bytes from `offset` on.
    fn read(&self, offset: u64, most: u32) -> io::Result<Vec<u8>> {
        let length = self.size().saturating_sub(offset).min(u64::from(most.min(REQUEST_MOST))) as usize;
        let mut bytes = vec![0; length];
        if length > 0 {
            match self {
                Self::Disk(disk) => disk.read_at(offset, &mut bytes)?,
                Self::Text(text) => bytes.copy_from_slice(&text[offset as usize..][..length]),
            }
        }
        Ok(bytes)
    }

    /// Where the next hole begins, or what is no hole, from a byte of it on; the end is a hole.
    fn next(&self, mut at: u64, wants_hole: bool) -> Option<u64> {
        let size = self.size();
        let Self::Disk(disk) = self else { return (at < size).then_some(if wants_hole { size } else { at }) };
        if at >= size {
            return None;
        }
        while at < size {
            let extent = disk.extent(at);
            if (extent.flags & IS_HOLE != 0) == wants_hole {
                return Some(at);
            }
            at += extent.length;
        }
        wants_hole.then_some(size)
    }
}

/// A file.
pub struct File {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub content: Content,
    /// Bytes of it that may be stored, for programs that look whether it has holes.
    pub stored: u64,
}

/// The folder, and its files.
pub struct Tree {
    files: Vec<File>,
    taken: SystemTime,
    is_for_all: bool,
}

impl Tree {
    /// These files, as they were then; for its user alone, unless it is for all.
    pub const fn new(files: Vec<File>, taken: SystemTime, is_for_all: bool) -> Self {
        Self { files, taken, is_for_all }
    }

    fn file(&self, ino: INodeNo) -> Option<&File> {
        self.files.get(usize::try_from(ino.0.checked_sub(FIRST)?).ok()?)
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, size, stored, perm) = match self.file(ino) {
            Some(file) => (FileType::RegularFile, file.content.size(), file.stored, 0o444),
            None if ino == INodeNo::ROOT => (FileType::Directory, 0, 0, 0o555),
            None => return None,
        };
        Some(FileAttr {
            ino,
            size,
            blocks: stored.div_ceil(512),
            atime: self.taken,
            mtime: self.taken,
            ctime: self.taken,
            crtime: self.taken,
            kind,
            perm: if self.is_for_all { perm } else { perm & 0o700 },
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Tree {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _smaller = config.set_max_write(REQUEST_MOST); // it bounds what is read at once, too
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let at = self.files.iter().position(|file| *file.name == *name);
        let at = at.filter(|_| parent == INodeNo::ROOT).map(|at| INodeNo(at as u64 + FIRST));
        match at.and_then(|ino| self.attributes(ino)) {
            Some(attributes) => reply.entry(&KEPT, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        // Of the folder we are asked each time: if we are killed, whoever looks at it is told.
        let kept = if ino == INodeNo::ROOT { Duration::ZERO } else { KEPT };
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&kept, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        // The kernel refuses it before, unless somebody mounted it anew to be written to.
        if flags.acc_mode() == OpenAccMode::O_RDONLY {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        } else {
            reply.error(Errno::EROFS);
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = self.file(ino) else { return reply.error(Errno::EISDIR) };
        match file.content.read(offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO), // the disk tells why
        }
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let Some(file) = self.file(ino) else { return reply.error(Errno::EINVAL) };
        let wants_hole = match whence {
            SEEK_DATA => false,
            SEEK_HOLE => true,
            _ => return reply.error(Errno::EINVAL),
        };
        let next = u64::try_from(offset).ok().and_then(|at| file.content.next(at, wants_hole));
        match next.and_then(|at| i64::try_from(at).ok()) {
            Some(at) => reply.offset(at),
            None => reply.error(Errno::ENXIO),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if ino != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let folders = [".", ".."].map(|name| (INodeNo::ROOT, FileType::Directory, name));
        let files = self.files.iter().zip(FIRST..);
        let files = files.map(|(file, ino)| (INodeNo(ino), FileType::RegularFile, &file.name[..]));
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (ino, kind, name)) in folders.into_iter().chain(files).enumerate().skip(begin) {
            if reply.add(ino, at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
