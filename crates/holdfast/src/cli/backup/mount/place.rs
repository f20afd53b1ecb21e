//! Where a restore point is mounted: the folder is made sure of, the kernel is asked (or, for a user who may not, `fusermount3`),
//! and it is taken away again. Only what is ours is ever taken away.

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{getgid, getuid};
use std::ffi::CString;
use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DEVICE: &str = "/dev/fuse";
/// What the kernel calls such a mount.
const KIND: &str = "fuse.holdfast";
/// What mounts and unmounts for a user who is not root.
const PROGRAM: &str = "fusermount3";
/// Where it finds the socket over which it hands the mount to us: its standard input.
const PROGRAM_SOCKET: (&str, &str) = ("_FUSE_COMMFD", "0");
/// The options as words, and as the kernel takes them.
const OPTIONS: &str = "ro,nosuid,nodev,noexec,noatime,default_permissions";
const FLAGS: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOATIME);

/// Why a point cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The folder is no place for it.
    #[error("{why}")]
    Folder {
        /// What is wrong with it.
        why: &'static str,
        /// The way out.
        hint: String,
    },
    /// It cannot be looked at.
    #[error("the folder cannot be looked at")]
    Look(#[source] io::Error),
    /// There is no FUSE, or not for this user.
    #[error("cannot open `{DEVICE}`")]
    Device(#[source] io::Error),
    /// The kernel would not.
    #[error("the kernel refused it")]
    Kernel(#[source] io::Error),
    /// Only root may without this program, and it cannot be run.
    #[error("`{PROGRAM}` cannot be run, and only root may mount without it")]
    NoProgram(#[source] io::Error),
    /// It would not.
    #[error("`{PROGRAM}` refused it: {0}")]
    Program(String),
    /// Something else is in the way.
    #[error("something else is mounted over it")]
    Covered,
}

impl PlaceError {
    /// How to go on.
    pub fn hint(&self) -> String {
        match self {
            Self::Folder { hint, .. } => hint.clone(),
            Self::Look(_) => "name a folder that is there, empty and yours".into(),
            Self::Device(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                format!(
                    "it must be readable and writable by you; or run the command as root: `ls -l {DEVICE}`"
                )
            }
            Self::Device(_) => {
                "load the kernel's module: `modprobe fuse`; a container needs `--device /dev/fuse`, too"
                    .into()
            }
            Self::Kernel(_) => "`holdfast backup serve` offers the disk without a mount".into(),
            Self::NoProgram(_) => "install the package fuse3, or run the command as root".into(),
            Self::Program(_) => {
                "the folder must be yours, and `--allow-other` needs `user_allow_other` in /etc/fuse.conf"
                    .into()
            }
            Self::Covered => "unmount that first".into(),
        }
    }
}

/// What is mounted last at a place.
struct Top {
    /// The number of its device, as the kernel writes it.
    device: String,
    kind: String,
}

fn top(path: &Path) -> Option<Top> {
    top_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

/// Finds it in a list of all mounts (proc(5)).
fn top_of(list: &str, path: &Path) -> Option<Top> {
    let path = path.as_os_str().as_bytes();
    list.lines().rev().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ');
        let (device, at) = (front.nth(2)?, front.nth(1)?);
        let kind = back.split(' ').next()?;
        (unescaped(at) == path).then(|| Top { device: device.to_owned(), kind: kind.to_owned() })
    })
}

/// Spaces, tabs, ends of lines and backslashes are written as three octal digits there.
fn unescaped(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    out
}

/// The folder, by its whole path, if a point can be mounted there. What a command that was killed left there is taken away,
/// and `tell` hears of that.
///
/// # Errors
/// If it is not there, is no folder or is not empty, or something that is dead is mounted there and stays.
pub fn free(folder: &Path, tell: impl FnOnce()) -> Result<PathBuf, PlaceError> {
    if is_dead(folder) {
        let path = absolute(folder).map_err(PlaceError::Look)?;
        let is_ours = top(&path).is_some_and(|top| top.kind == KIND);
        if !is_ours || unmount(&path, Way::Lazily).is_err() {
            return Err(PlaceError::Folder {
                why: "a mount is there whose program was killed",
                hint: format!("take it away, which loses nothing: `umount -l {}`", path.display()),
            });
        }
        tell();
    }
    let refused = |why, hint: &str| Err(PlaceError::Folder { why, hint: hint.into() });
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refused("it is not there", "make it first: `mkdir -p`");
        }
        Err(error) => return Err(PlaceError::Look(error)),
        Ok(known) if !known.is_dir() => return refused("it is no folder", "name an empty folder"),
        Ok(_) => {}
    }
    let path = folder.canonicalize().map_err(PlaceError::Look)?;
    if top(&path).is_some_and(|top| top.kind == KIND) {
        return refused("a restore point is mounted there", "`umount` it, or name another folder");
    }
    if fs::read_dir(&path).map_err(PlaceError::Look)?.next().is_some() {
        return refused("it is not empty", "what is in it would be hidden: name an empty folder");
    }
    Ok(path)
}

/// Whether a mount is there that nobody serves any more.
fn is_dead(path: &Path) -> bool {
    fs::read_dir(path).is_err_and(|error| error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()))
}

/// The whole path of a folder that cannot be looked into.
fn absolute(folder: &Path) -> io::Result<PathBuf> {
    let whole = std::path::absolute(folder)?;
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(whole),
    }
}

/// A mount of ours, which is taken away when this is dropped, unless that is done.
pub struct Mounted {
    path: PathBuf,
    device: Option<String>,
}

/// How a mount is taken away.
#[derive(Clone, Copy)]
enum Way {
    /// If nobody uses it.
    IfFree,
    /// From its place, now; for those who use it when they are done.
    Lazily,
}

/// How it went.
pub enum Left {
    /// It is gone.
    Gone,
    /// It is gone from its place, and somebody still uses it.
    Used,
}

/// Mounts there what is served over the file that comes with it. `point` is what it is called in a list of mounts.
///
/// # Errors
/// If there is no FUSE here, or not for this user.
pub fn mount(path: &Path, point: &str, is_for_all: bool) -> Result<(OwnedFd, Mounted), PlaceError> {
    let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let device = rustix::fs::open(DEVICE, flags, mode).map_err(|why| PlaceError::Device(why.into()))?;
    let for_all = if is_for_all { ",allow_other" } else { "" };
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let data = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},default_permissions{for_all}",
        device.as_raw_fd()
    );
    let data = CString::new(data).map_err(|why| PlaceError::Kernel(why.into()))?;
    let device = match rustix::mount::mount(point, path, KIND, FLAGS, data.as_c_str()) {
        Ok(()) => device,
        Err(Errno::PERM) => by_program(path, point, for_all)?,
        Err(why) => return Err(PlaceError::Kernel(why.into())),
    };
    let known = top(path).filter(|top| top.kind == KIND).map(|top| top.device);
    Ok((device, Mounted { path: path.to_owned(), device: known }))
}

/// Has the program mount it that may.
fn by_program(path: &Path, point: &str, for_all: &str) -> Result<OwnedFd, PlaceError> {
    let (ours, its) = UnixStream::pair().map_err(PlaceError::NoProgram)?;
    let mut command = Command::new(PROGRAM);
    let (_, subtype) = KIND.split_once('.').unwrap_or_default();
    command.arg("-o").arg(format!("{OPTIONS},fsname={point},subtype={subtype}{for_all}")).arg("--").arg(path);
    command.env(PROGRAM_SOCKET.0, PROGRAM_SOCKET.1).stdin(OwnedFd::from(its));
    let child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(PlaceError::NoProgram)?;
    drop(command); // or its end of the socket stays open here
    let device = received(&ours);
    let said = child.wait_with_output().map_err(PlaceError::NoProgram)?;
    let why = || PlaceError::Program(crate::config::tame(String::from_utf8_lossy(&said.stderr).trim()));
    device.ok().flatten().filter(|_| said.status.success()).ok_or_else(why)
}

/// The file that is handed over a socket.
fn received(socket: &UnixStream) -> rustix::io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut control, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
    let mut bytes = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    Ok(control.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut files) = message else { return None };
        files.next()
    }))
}

fn unmount(path: &Path, way: Way) -> Result<(), PlaceError> {
    let (flags, word) = match way {
        Way::IfFree => (UnmountFlags::NOFOLLOW, "-u"),
        Way::Lazily => (UnmountFlags::NOFOLLOW | UnmountFlags::DETACH, "-uz"),
    };
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => {
            let said = Command::new(PROGRAM).arg(word).arg("--").arg(path).stdin(Stdio::null()).output();
            let said = said.map_err(PlaceError::NoProgram)?;
            let why = crate::config::tame(String::from_utf8_lossy(&said.stderr).trim());
            if said.status.success() { Ok(()) } else { Err(PlaceError::Program(why)) }
        }
        Err(why) => Err(PlaceError::Kernel(why.into())),
    }
}

impl Mounted {
    /// Takes it away: from its place at once, and for those who use it when they are done.
    ///
    /// # Errors
    /// If it stays.
    pub fn end(&self) -> Result<Left, PlaceError> {
        let Some(top) = top(&self.path) else { return Ok(Left::Gone) };
        if top.kind != KIND || self.device.as_ref().is_some_and(|device| *device != top.device) {
            return Err(PlaceError::Covered);
        }
        match unmount(&self.path, Way::IfFree) {
            Ok(()) => Ok(Left::Gone),
            Err(_) => unmount(&self.path, Way::Lazily).map(|()| Left::Used),
        }
    }
}

impl Drop for Mounted {
    /// Whoever served it is gone: then it is dead, unless it was unmounted. Another one that was mounted there since is not.
    fn drop(&mut self) {
        if top(&self.path).is_some_and(|top| top.kind == KIND) && is_dead(&self.path) {
            let _gone = unmount(&self.path, Way::Lazily);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LIST: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
60 22 0:40 / /mnt/a\\040b rw - tmpfs none rw
61 22 0:41 / /mnt/p ro,nosuid,nodev - fuse.holdfast orders/3 ro,user_id=0
62 61 0:42 / /mnt/p rw,relatime master:3 - tmpfs none rw
";

    #[test]
    fn what_was_mounted_last_at_a_place_is_found_whatever_its_name() {
        let found = |path: &str| top_of(LIST, Path::new(path)).map(|top| (top.device, top.kind));
        assert_eq!(found("/mnt/p"), Some(("0:42".into(), "tmpfs".into())));
        assert_eq!(found("/mnt/a b"), Some(("0:40".into(), "tmpfs".into())));
        assert_eq!(found("/mnt/a\\040b"), None);
        assert_eq!(found("/mnt"), None);
        assert_eq!((unescaped("\\134\\7"), unescaped("\\999")), (b"\\\\7".to_vec(), b"\\999".to_vec()));
    }

    #[test]
    fn the_words_for_the_program_say_what_the_kernel_is_told() {
        let words = ["ro", "nosuid", "nodev", "noexec", "noatime"];
        let known: Vec<&str> = OPTIONS.split(',').filter(|word| words.contains(word)).collect();
        assert_eq!((known.len(), FLAGS.bits().count_ones()), (5, 5));
    }

    #[test]
    fn a_folder_that_is_no_place_is_refused_and_the_way_out_is_said() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        let said = |path: &Path| free(path, || panic!("nothing is dead")).unwrap_err().to_string();
        assert_eq!(said(&file), "it is not there");
        fs::write(&file, "").unwrap();
        assert_eq!(said(&file), "it is no folder");
        assert_eq!(said(place.path()), "it is not empty");
        let empty = place.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert_eq!(free(&empty, || panic!("nothing is dead")).unwrap(), empty.canonicalize().unwrap());
    }
}
