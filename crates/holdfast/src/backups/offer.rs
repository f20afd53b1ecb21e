//! A disk of a restore point, offered over NBD on a Unix socket: read-only, to several clients at once, a thread each. For
//! `holdfast backup serve`, and for a command that boots from it; never within the daemon.

use crate::place;
use holdfast_backup::offered::{Offered, OfferedError};
use holdfast_backup::repository::Trouble;
use holdfast_nbd::server::{self, Disk};
use holdfast_nbd::{Extent, IS_HOLE, READS_ZERO};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, Uid, chownat, fchmod, flock};
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// So many at once; who comes then is sent away.
const CLIENTS_MOST: usize = 16;
/// Clients that may wait until they are let in.
const BACKLOG: i32 = 16;
/// Where nobody can be let in (no file is left to be opened, say), it is tried again after this time.
const AGAIN: Duration = Duration::from_millis(100);

/// Why a disk cannot be offered there.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// Something else has this name.
    #[error("`{}` is there already, and is no socket", .0.display())]
    Taken(PathBuf),
    /// Another server.
    #[error("`{}` is the socket of a server that runs", .0.display())]
    Served(PathBuf),
    /// The system would not.
    #[error("cannot listen on `{}`", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl OfferError {
    /// How to go on.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Taken(_) => "nothing was replaced; name a path that is not there, in a folder that is",
            Self::Served(_) => "name another path, or end that server first",
            Self::Listen { .. } => {
                "the folder must be there and yours to write to, and the path has 107 bytes at most"
            }
        }
    }
}

/// A disk that is offered. Once this is dropped, its clients are cut off and the socket is gone.
pub struct Offer {
    path: PathBuf,
    made: (u64, u64),
    listener: Arc<UnixListener>,
    clients: Arc<Clients>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Offers a disk on a socket of this path, which only its user may open (I19), in a folder that is there. A socket on
/// which nobody listens was left by a server that was killed, and is replaced. `tell` hears of a read that fails as [`Told`]
/// says; the client gets an error for each.
///
/// # Errors
/// If something is there, or it cannot be listened to. Then nothing was changed.
pub fn offer(
    disk: Offered,
    path: &Path,
    tell: impl Fn(&Heard<'_>) + Send + Sync + 'static,
) -> Result<Offer, OfferError> {
    let failed = |source| OfferError::Listen { path: path.to_owned(), source };
    let (path, listener) = listen(path)?;
    let known = path.symlink_metadata().map_err(failed)?;
    let (listener, is_over) = (Arc::new(listener), Arc::new(AtomicBool::new(false)));
    let clients = Arc::<Clients>::default();
    let disk = Told::new(disk, tell);
    let mut offer = Offer {
        path,
        made: (known.dev(), known.ino()),
        listener: Arc::clone(&listener),
        clients: Arc::clone(&clients),
        is_over: Arc::clone(&is_over),
        thread: None,
    };
    let serve = move || serve(&listener, &disk, &clients, &is_over);
    let thread = std::thread::Builder::new().name("offer".into()).spawn(serve);
    offer.thread = Some(thread.map_err(failed)?);
    Ok(offer)
}

/// Offers a disk to whoever is at the other end of this, until he has had enough. `tell` hears of a read that fails as
/// [`Told`] says.
///
/// # Errors
/// If the connection breaks.
pub fn serve_one(
    disk: Offered,
    stream: UnixStream,
    tell: impl Fn(&Heard<'_>) + Send + Sync + 'static,
) -> Result<(), holdfast_nbd::NbdError> {
    let disk = Told::new(disk, tell);
    server::serve(stream, "", &disk)
}

impl Offer {
    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody is there who reads it, or may.
    pub fn has_clients(&self) -> bool {
        !self.clients.all().is_empty()
    }

    /// Gives the socket to another user, who then can read the disk.
    ///
    /// # Errors
    /// If only root may do that.
    pub fn give_to(&self, user: u32) -> io::Result<()> {
        if self.path.symlink_metadata()?.uid() == user {
            return Ok(());
        }
        let user = Some(Uid::from_raw(user));
        Ok(chownat(CWD, &self.path, user, None, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Where the disk is, as QEMU and `backup image` understand it.
    pub fn uri(&self) -> String {
        let mut uri = "nbd+unix:///?socket=".to_owned();
        for byte in self.path.as_os_str().as_bytes() {
            if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
                uri.push(char::from(*byte));
            } else {
                let _ = write!(uri, "%{byte:02X}"); // a text takes what it is given
            }
        }
        uri
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let _ = rustix::net::shutdown(&*self.listener, Shutdown::Both); // it wakes who waits for a client
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let is_ours = |known: fs::Metadata| (known.dev(), known.ino()) == self.made;
        if self.path.symlink_metadata().is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The socket, and where it is, whatever folder is entered later.
fn listen(path: &Path) -> Result<(PathBuf, UnixListener), OfferError> {
    let failed = |source| OfferError::Listen { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(failed)?;
    let path = folder.join(name);
    // Two that begin at once must not each take the socket of the other for one that was left.
    let lock = File::open(&folder).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|why| failed(why.into()))?;
    clear(&path)?;
    let listener = bind(&path).map_err(|why| failed(why.into()))?;
    Ok((path, listener))
}

/// Removes the sockets in a folder of snapshots that servers left which were killed, but for this one; which they were. One on
/// which somebody listens stays, and so does all that is no socket.
pub fn clear_dead(folder: &Path, but: Option<&Path>) -> io::Result<Vec<PathBuf>> {
    let is_socket = |path: &PathBuf| path.symlink_metadata().is_ok_and(|known| known.file_type().is_socket());
    let paths = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let offered = paths.filter(|path| path.extension().is_some_and(|end| end == "offered"));
    let mut dead: Vec<PathBuf> = offered.filter(|path| Some(&**path) != but && is_socket(path)).collect();
    if dead.is_empty() {
        return Ok(dead);
    }
    let lock = File::open(folder)?; // one that is only just begun to be listened on is not taken for dead
    flock(&lock, FlockOperation::LockExclusive)?;
    dead.retain(|path| {
        is_socket(path)
            && connect(path).err() == Some(rustix::io::Errno::CONNREFUSED)
            && fs::remove_file(path).is_ok()
    });
    Ok(dead)
}

/// Removes a socket on which nobody listens.
fn clear(path: &Path) -> Result<(), OfferError> {
    let failed = |source| OfferError::Listen { path: path.to_owned(), source };
    let there = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.map_err(failed)?,
    };
    if !there.file_type().is_socket() {
        return Err(OfferError::Taken(path.to_owned()));
    }
    match connect(path) {
        Err(rustix::io::Errno::CONNREFUSED) => fs::remove_file(path).map_err(failed),
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Err(OfferError::Served(path.to_owned())),
        Err(why) => Err(failed(why.into())),
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Without waiting for a server that lets nobody in.
fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn bind(path: &Path) -> rustix::io::Result<UnixListener> {
    let socket = socket()?;
    // Before it has a name: there is no moment in which others could open it.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(UnixListener::from(socket))
}

/// Lets clients in until it is over, and then cuts them off.
fn serve(listener: &UnixListener, disk: &Told, clients: &Clients, is_over: &AtomicBool) {
    std::thread::scope(|scope| {
        for number in 0_u64.. {
            let accepted = listener.accept();
            if is_over.load(Ordering::Acquire) {
                break;
            }
            let Ok((stream, _)) = accepted else {
                std::thread::sleep(AGAIN);
                continue;
            };
            let Some(known) = clients.let_in(number, &stream) else { continue };
            let talk = move || {
                // How a client ends is its own affair; what cannot be read is told by the disk.
                let _ = server::serve(&stream, "", disk);
                drop(known);
            };
            let _ = std::thread::Builder::new().name("offer-client".into()).spawn_scoped(scope, talk);
        }
        clients.cut_off();
    });
}

/// Who is there.
#[derive(Default)]
struct Clients(Mutex<BTreeMap<u64, UnixStream>>);

/// A client that is known until this is dropped.
struct Known<'a>(&'a Clients, u64);

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.0.all().remove(&self.1);
    }
}

impl Clients {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, UnixStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_in(&self, number: u64, stream: &UnixStream) -> Option<Known<'_>> {
        let mut all = self.all();
        if all.len() >= CLIENTS_MOST {
            return None;
        }
        all.insert(number, stream.try_clone().ok()?);
        Some(Known(self, number))
    }

    fn cut_off(&self) {
        for stream in self.all().values() {
            let _ = stream.shutdown(std::net::Shutdown::Both); // it may have gone by itself
        }
    }
}

/// Who brings a backup says so in its log that a read failed ...
pub const UNREAD: &str = "error: ";
/// ... and so that the repository is in reach again.
pub const READ_AGAIN: &str = "its repository is read again";

/// What is told of the reads of a disk.
pub enum Heard<'a> {
    /// One failed.
    Failed(&'a OfferedError),
    /// Its repository could not be reached, and is read again.
    Again,
}

/// A disk, and who hears of the first read that fails because something is damaged or missing, of the first one each time
/// that the repository cannot be reached, and of the first one afterwards that does not fail.
pub struct Told {
    disk: Offered,
    tell: Box<dyn Fn(&Heard<'_>) + Send + Sync>,
    is_hurt: AtomicBool,
    is_away: AtomicBool,
}

impl Told {
    /// This disk.
    pub fn new(disk: Offered, tell: impl Fn(&Heard<'_>) + Send + Sync + 'static) -> Self {
        let (is_hurt, is_away) = Default::default();
        Self { disk, tell: Box::new(tell), is_hurt, is_away }
    }
}

/// Why the repository cannot be reached, if that is why a read failed.
const fn away(error: &OfferedError) -> Option<&io::Error> {
    match error {
        OfferedError::Repository { trouble: Trouble::Store { source, .. }, .. } => Some(source),
        OfferedError::Repository { .. } | OfferedError::Beyond { .. } => None,
    }
}

/// What can be done about a read that failed.
pub fn hint(error: &OfferedError) -> &'static str {
    away(error).map_or("`holdfast backup repair` says what is lost", |why| {
        place::hint(why).unwrap_or("nothing was lost: it is read again once the repository can be")
    })
}

impl Disk for Told {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let Err(error) = self.disk.read_at(offset, bytes) else {
            if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
                (self.tell)(&Heard::Again);
            }
            return Ok(());
        };
        let is_told = if away(&error).is_some() { &self.is_away } else { &self.is_hurt };
        if !is_told.swap(true, Ordering::Relaxed) {
            (self.tell)(&Heard::Failed(&error));
        }
        Err(io::Error::other(error))
    }

    fn extent(&self, offset: u64) -> Extent {
        let (length, is_hole) = self.disk.extent(offset);
        Extent { length, flags: if is_hole { IS_HOLE | READS_ZERO } else { 0 } }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_nobody_listens_on_and_nobody_needs_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let bound = |name: &str| UnixListener::bind(path(name)).unwrap();
        let _lives = bound("3.offered");
        for name in ["1.offered", "db-2.offered", "4.offered", "5.socket"] {
            drop(bound(name));
        }
        fs::write(path("6.offered"), "").unwrap();
        std::os::unix::fs::symlink(path("1.offered"), path("7.offered")).unwrap();
        let mut gone = clear_dead(folder.path(), Some(&path("4.offered"))).unwrap();
        gone.sort();
        assert_eq!(gone, [path("1.offered"), path("db-2.offered")]);
        let there = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!((there, clear_dead(folder.path(), None).unwrap()), (5, vec![path("4.offered")]));
    }
}
