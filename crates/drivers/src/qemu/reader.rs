//! A `qemu-nbd` of our own that reads a disk which no VM has open, and offers over NBD what a guest would see.
//!
//! It is told the whole chain, file by file, so that it follows no name in a head (A31), and it writes nothing. It serves one
//! client, and ends with it, with whoever started it, or when it is told to. While it is there, QEMU's own lock keeps every
//! QEMU from writing to the disk. What others do no lock tells: whoever reads looks whether it was written to.

use super::account::Account;
use super::bound::{self, Bound, program};
use super::image::Layer;
use super::launch::Format;
use super::{offered, untrusted};
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// What the disk is called over NBD.
pub const EXPORT: &str = "disk0";
const SOCKET: &str = "nbd";
const PROGRAM: &str = "qemu-nbd";
/// The socket is its third descriptor, as systemd hands one over; it can be connected to at once.
const HANDED: &str = "exec 3<&0 0</dev/null && export LISTEN_FDS=1 LISTEN_PID=$$ &&";

/// How much it gives way to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As whoever started it.
    Same,
    /// It comes last.
    Last,
}

/// Why a disk is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// The socket cannot be made.
    #[error("cannot make the socket {path}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It does not start.
    #[error("`qemu-nbd` does not start: {0}")]
    NotStarted(String),
}

/// One that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Reader {
    process: Bound,
    folder: PathBuf,
    socket: PathBuf,
}

impl Reader {
    /// Has the images that stand on each other, the top first, offered on a socket in a folder that only we may look into, and
    /// that is gone with it. Whether they can be read shows once somebody connects.
    ///
    /// # Errors
    /// Every [`ReaderError`]; then nothing of it is left.
    pub fn start(layers: &[Layer], folder: PathBuf, pace: Pace) -> Result<Self, ReaderError> {
        let socket = folder.join(SOCKET);
        let failed = |source| ReaderError::Socket { path: socket.clone(), source };
        let listener = listen(&folder, &socket).map_err(failed)?;
        let (chain, account) = (format!("json:{}", chain(layers)), account_of(layers));
        match Bound::start("reader", move || launch(listener, &chain, account.as_ref(), pace)) {
            Ok(process) => Ok(Self { process, folder, socket }),
            Err(why) => {
                remove(&folder, &socket);
                Err(ReaderError::NotStarted(why))
            }
        }
    }

    /// Its process.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it is read.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Nobody else can connect from here on.
    pub fn hide(&self) {
        remove(&self.folder, &self.socket);
    }

    /// Has it end. It may be there a moment longer.
    pub fn end(&self) {
        self.hide();
        self.process.end();
    }

    /// Waits until it is gone; what it said, tamed.
    pub async fn gone(&self) -> String {
        last_words(&self.process.gone().await.said)
    }

    /// What it said, tamed, if it is gone.
    #[must_use]
    pub fn said(&self) -> Option<String> {
        self.process.said().as_deref().map(last_words)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end();
    }
}

/// What was left there by one that was killed is nobody's.
fn listen(folder: &Path, socket: &Path) -> io::Result<UnixListener> {
    remove(folder, socket);
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    UnixListener::bind(socket).inspect_err(|_| remove(folder, socket))
}

fn remove(folder: &Path, socket: &Path) {
    let _not_there = fs::remove_file(socket);
    let _not_there = fs::remove_dir(folder);
}

fn launch(listener: UnixListener, chain: &str, account: Option<&Account>, pace: Pace) -> io::Result<Child> {
    let reader = program(PROGRAM, "qemu-utils")?;
    let mut command = bound::command(HANDED)?;
    if pace == Pace::Last {
        command.arg(program("nice", "coreutils")?).args(["-n", "19"]);
        command.arg(program("ionice", "util-linux")?).args(["-c", "3", "-t"]);
    }
    command.arg(reader).args(["--read-only", "--export-name", EXPORT, chain]).current_dir("/");
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command.spawn()
}

/// The images, each with what it stands on, as QEMU is told of them: what a head says of others is not asked. Whoever reads a
/// qcow2 lets nobody write to it; a raw disk anybody may, unless that is asked for as here.
fn chain(layers: &[Layer]) -> Value {
    let one = |below: Value, layer: &Layer| {
        let mut node = json!({
            "driver": layer.format.name(),
            "file": { "driver": "file", "filename": layer.path.to_string_lossy(), "locking": "on" },
        });
        if layer.is_offered {
            node["file"] = offered::block(&layer.path);
        }
        match layer.format {
            Format::Qcow2 => node["backing"] = below,
            Format::Raw if layers.first() == Some(layer) => {
                let file = node["file"].take();
                node["file"] = json!({ "driver": "blkdebug", "image": file, "unshare-child-perms": ["write", "resize"] });
            }
            Format::Raw => {}
        }
        node
    };
    layers.iter().rev().fold(Value::Null, one)
}

/// Root reads what a guest may have had a hand in as the user whose image it is, where that user can read all of it.
fn account_of(layers: &[Layer]) -> Option<Account> {
    let owner = fs::symlink_metadata(&layers.first()?.path).ok()?.uid();
    let account = Account::numbered(owner).filter(|_| rustix::process::geteuid().is_root() && owner != 0)?;
    layers.iter().all(|layer| account.kept_from_reading(&layer.path).is_none()).then_some(account)
}

/// What it said last of why; hints may follow. It names the whole chain, which says nothing to people.
fn last_words(said: &str) -> String {
    let mut lines = said.lines().rev().filter(|line| !line.trim().is_empty());
    let why = lines.clone().find_map(|line| line.strip_prefix("qemu-nbd: "));
    let why = why.or_else(|| lines.next()).unwrap_or("it said nothing");
    untrusted::tame(why.rsplit_once("}': ").map_or(why, |(_, why)| why), 300)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    fn layer(path: &str, format: Format) -> Layer {
        Layer { path: path.into(), format, is_offered: false }
    }

    #[test]
    fn each_image_is_told_what_it_stands_on_and_the_last_that_it_stands_on_nothing() {
        let layers = [layer("/a,b", Format::Qcow2), layer("/c", Format::Qcow2)];
        let file = |name: &str| json!({ "driver": "file", "filename": name, "locking": "on" });
        let below = json!({ "driver": "qcow2", "file": file("/c"), "backing": null });
        assert_eq!(chain(&layers), json!({ "driver": "qcow2", "file": file("/a,b"), "backing": below }));
        let alone = chain(&[layer("/r", Format::Raw)]);
        assert_eq!((&alone["driver"], &alone["file"]["image"]), (&json!("raw"), &file("/r")));
        let layers = [layer("/q", Format::Qcow2), layer("/r", Format::Raw)];
        assert_eq!(chain(&layers)["backing"], json!({ "driver": "raw", "file": file("/r") }));
    }

    #[test]
    fn what_it_says_is_told_without_the_chain_and_without_hints() {
        let said = "qemu-nbd: Failed to blk_new_open 'json:{\"driver\": {}}': Failed to get \"write\" lock\nIs it?\n";
        assert_eq!(last_words(said), "Failed to get \"write\" lock");
        assert_eq!(last_words("setpriv: no\n\n"), "setpriv: no");
        assert_eq!(last_words(""), "it said nothing");
    }

    #[tokio::test]
    async fn one_that_cannot_read_says_why_and_leaves_no_socket() {
        let folder = tempfile::tempdir().unwrap();
        let (image, socket) = (folder.path().join("not-there"), folder.path().join("read"));
        let layers = [Layer { path: image, format: Format::Raw, is_offered: false }];
        let reader = Reader::start(&layers, socket.clone(), Pace::Last).unwrap();
        let said = tokio::time::timeout(Duration::from_secs(60), reader.gone()).await.unwrap();
        assert!(said.ends_with("No such file or directory") && !said.contains("driver"), "{said}");
        drop(reader);
        assert!(!socket.exists());
    }

    #[tokio::test]
    async fn no_qemu_writes_to_what_it_reads_whatever_its_format() {
        let folder = tempfile::tempdir().unwrap();
        let (image, read) = (folder.path().join("image"), folder.path().join("read"));
        for format in [Format::Raw, Format::Qcow2] {
            let run = |program: &str, words: &[&str]| {
                let output = std::process::Command::new(program).args(words).arg(&image).output();
                output.expect("Debian's qemu-utils")
            };
            let made = std::process::Command::new("qemu-img")
                .args(["create", "-q", "-f", format.name()])
                .arg(&image)
                .arg("1M")
                .status();
            assert!(made.expect("qemu-img, package qemu-utils").success());
            let layers = [Layer { path: image.clone(), format, is_offered: false }];
            let reader = Reader::start(&layers, read.clone(), Pace::Same).unwrap();
            let mut client = UnixStream::connect(reader.socket()).unwrap();
            client.read_exact(&mut [0; 8]).unwrap_or_else(|why| panic!("{why}: {:?}", reader.said()));
            let words = ["-f", format.name(), "-c", "write 0 4k"];
            let refused = String::from_utf8(run("qemu-io", &words).stderr).unwrap();
            assert!(refused.contains("Failed to get \"write\" lock"), "{format:?}: {refused}");
            reader.end();
            reader.gone().await;
            assert!(run("qemu-io", &words).status.success(), "{format:?}");
        }
    }

    #[tokio::test]
    async fn it_can_be_asked_at_once_and_ends_when_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (image, socket) = (folder.path().join("image"), folder.path().join("read"));
        fs::write(&image, [7; 4_096]).unwrap();
        fs::create_dir(&socket).unwrap();
        fs::write(socket.join(SOCKET), "left").unwrap();
        let layers = [Layer { path: image, format: Format::Raw, is_offered: false }];
        let reader = Reader::start(&layers, socket.clone(), Pace::Same).unwrap();
        let mut client = UnixStream::connect(reader.socket()).unwrap();
        let mut magic = [0; 8];
        client.read_exact(&mut magic).unwrap_or_else(|why| panic!("{why}: {:?}", reader.said()));
        assert_eq!(&magic, b"NBDMAGIC");
        reader.end();
        reader.gone().await;
        let mut rest = Vec::new();
        let _reset = client.read_to_end(&mut rest);
        assert!(!socket.exists() && !Path::new(&format!("/proc/{}", reader.pid())).exists());
    }
}
