//! A VM's memory as a file: saved with a disk, and loaded with exactly that disk, once (I23).
//!
//! QEMU has no right to the file and its sandbox stays closed. It is given a descriptor of it where it offers to put each page
//! in a place of its own ([`super::mapped`]); otherwise the state is one stream through a Unix socket between QEMU and us, which
//! works the same with every version.

use super::live::Live;
use super::machine::{Machine, error_chain};
use super::mapped;
use super::qmp::QmpError;
use super::untrusted::Text;
use holdfast_core::point::MemoryKind;
use holdfast_core::signal::RunState;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

/// How long between two looks at what QEMU is doing.
pub(super) const POLL: Duration = Duration::from_millis(5);
/// Bytes a second: as fast as it goes.
pub(super) const FAST: u64 = 8 << 30;

/// How far QEMU is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Progress {
    /// Its word for it.
    pub status: Text,
    error_desc: Text,
}

/// A saved memory, and how it is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Where it is.
    pub file: PathBuf,
    /// How it is laid out.
    pub kind: MemoryKind,
}

pub(super) fn told(error: &QmpError) -> String {
    error_chain(error)
}

/// Loads the saved memory of a VM that was started to wait for it, and lets it run.
pub async fn load(machine: &Machine, live: &Live, saved: &Saved, deadline: Instant) -> Result<(), String> {
    let file = &saved.file;
    let file = File::open(file).map_err(|e| format!("cannot open {}: {e}", file.display()))?;
    match saved.kind {
        MemoryKind::Stream => load_stream(machine, live, file, deadline).await,
        MemoryKind::Mapped => mapped::load(live, &file, deadline).await,
    }
}

async fn load_stream(machine: &Machine, live: &Live, file: File, deadline: Instant) -> Result<(), String> {
    let socket = machine.folder.inner().join("memory");
    let _nothing_there = std::fs::remove_file(&socket);
    let told = |e: QmpError| told(&e);
    let place = json!({ "uri": format!("unix:{}", socket.display()) });
    live.run("migrate-incoming", place, deadline).await.map_err(told)?;
    let stream = UnixStream::connect(&socket).await.map_err(|e| format!("cannot reach the VM: {e}"))?;
    let stream = blocking(stream).map_err(|e| format!("cannot reach the VM: {e}"))?;
    let copied = tokio::time::timeout_at(deadline, copy(file, stream)).await;
    copied.map_err(|_| "loading took too long")?.map_err(|e| format!("loading broke off: {e}"))?;
    let _gone = std::fs::remove_file(&socket);
    until_it_runs(live, deadline).await
}

/// Waits until what is loaded is there, and lets the VM run.
pub(super) async fn until_it_runs(live: &Live, deadline: Instant) -> Result<(), String> {
    let told = |e: QmpError| told(&e);
    loop {
        let state = live.state(deadline).await.map_err(told)?;
        if state == RunState::Running {
            return Ok(());
        }
        if state != RunState::Moving || !is_loading(live, deadline).await? {
            live.run("cont", Value::Null, deadline).await.map_err(told)?;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn is_loading(live: &Live, deadline: Instant) -> Result<bool, String> {
    Ok(progress(live, deadline).await?.status.as_str() != "completed")
}

/// How far it is.
///
/// # Errors
/// A sentence; also where it ended without success.
pub(super) async fn progress(live: &Live, deadline: Instant) -> Result<Progress, String> {
    let progress: Progress = live.call("query-migrate", Value::Null, deadline).await.map_err(|e| told(&e))?;
    match progress.status.as_str() {
        "failed" | "cancelled" => Err(format!("QEMU gave it up: {}", progress.error_desc)),
        _ => Ok(progress),
    }
}

fn blocking(stream: UnixStream) -> io::Result<std::os::unix::net::UnixStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Copies all of one to the other, the way the kernel does it best; gives the other back.
async fn copy(from: impl Into<OwnedFd>, to: impl Into<OwnedFd>) -> io::Result<File> {
    let (mut from, mut to) = (File::from(from.into()), File::from(to.into()));
    let copied = tokio::task::spawn_blocking(move || io::copy(&mut from, &mut to).map(|_| to));
    copied.await.map_err(io::Error::other)?
}

/// Makes the file. What a guest has in its memory is nobody's business.
pub(super) fn create(to: &Path) -> Result<File, String> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(to);
    file.map_err(|e| format!("cannot make {}: {e}", to.display()))
}

/// Pauses a VM and saves its memory as a stream. The VM stays paused: end it, and keep its disk with the file.
pub async fn save(machine: &Machine, live: &Live, to: &Path, deadline: Instant) -> Result<(), String> {
    let told = |e: QmpError| told(&e);
    let socket = machine.folder.inner().join("memory");
    let _nothing_there = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(|e| format!("cannot listen: {e}"))?;
    // Only QEMU's user gets into the folder.
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(&socket, open).map_err(|e| format!("cannot open the socket to QEMU: {e}"))?;
    live.run("stop", Value::Null, deadline).await.map_err(told)?;
    let fast = json!({ "max-bandwidth": FAST });
    live.run("migrate-set-parameters", fast, deadline).await.map_err(told)?;
    let place = json!({ "uri": format!("unix:{}", socket.display()) });
    live.run("migrate", place, deadline).await.map_err(told)?;
    let file = create(to)?;
    let copied = tokio::time::timeout_at(deadline, async {
        let (stream, _) = listener.accept().await?;
        let file = copy(blocking(stream)?, file).await?;
        tokio::task::spawn_blocking(move || file.sync_all()).await.map_err(io::Error::other)?
    });
    copied.await.map_err(|_| "saving took too long")?.map_err(|e| format!("saving broke off: {e}"))?;
    let _gone = std::fs::remove_file(&socket);
    while is_loading(live, deadline).await? {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
