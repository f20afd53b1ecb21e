//! The demo's guest: where its image is, and how it is built if it is missing.

use super::CliError;
use super::init::FoundVm;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds the image from Debian packages; it needs no other file, so the binary carries it.
const BUILD: &str = include_str!("../../../../guest/build.sh");

/// The folder of the image: the named one, the built one, or one that is built now.
pub fn image(named: Option<&Path>) -> Result<PathBuf, CliError> {
    if let Some(folder) = named {
        return whole(folder).then(|| folder.to_owned()).ok_or_else(|| CliError::Said {
            error: format!("{} holds no guest image", folder.display()),
            cause: "it needs `vmlinux`, `initrd.gz` and `base.raw`".into(),
            hint: "leave --image away to have one built".into(),
        });
    }
    build()
}

fn whole(folder: &Path) -> bool {
    ["vmlinux", "initrd.gz", "base.raw"].iter().all(|file| folder.join(file).is_file())
}

/// Runs the build script: at once if the image is there already.
fn build() -> Result<PathBuf, CliError> {
    let io = |source| CliError::Io { what: "build the guest image (bash)".into(), source };
    let folder = tempdir().map_err(io)?;
    let script = folder.join("build.sh");
    std::fs::write(&script, BUILD).map_err(io)?; // it names its result by its own content
    let child =
        Command::new("bash").arg(&script).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(io)?;
    let ended = child.wait_with_output();
    let _ = std::fs::remove_dir_all(&folder); // a leftover script harms nobody
    let ended = ended.map_err(io)?;
    let said = String::from_utf8_lossy(&ended.stdout);
    let folder =
        said.lines().last().map(PathBuf::from).filter(|folder| ended.status.success() && whole(folder));
    folder.ok_or_else(|| CliError::Said {
        error: "the guest image could not be built".into(),
        cause: format!("its script ended with {}", ended.status),
        hint: "what it printed above tells what is missing; `make setup` installs what it needs".into(),
    })
}

/// A new folder that nobody else can have made.
fn tempdir() -> std::io::Result<PathBuf> {
    let nonce = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let folder = std::env::temp_dir().join(format!("holdfast-build-{}", nonce.trim()));
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&folder)?;
    Ok(folder)
}

/// Where the build script keeps what it builds.
fn cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    if let Some(folder) = variable("HOLDFAST_CACHE") {
        return Some(folder);
    }
    if rustix::process::geteuid().is_root() {
        return Some("/var/cache/holdfast".into());
    }
    let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    caches.map(|caches| caches.join("holdfast"))
}

/// The demo VM for a first configuration, if its image was built before.
pub fn found() -> Option<FoundVm> {
    let built = std::fs::read_dir(cache()?.join("guest")).ok()?;
    let mut folders: Vec<PathBuf> =
        built.flatten().map(|entry| entry.path()).filter(|path| whole(path)).collect();
    folders.sort_by_key(|folder| folder.metadata().and_then(|meta| meta.modified()).ok());
    let folder = folders.pop()?;
    let disk = std::env::current_dir().ok()?.join("orders.qcow2");
    if !disk.exists() {
        overlay(&folder.join("base.raw"), &disk).ok()?;
    }
    Some(FoundVm {
        name: "orders".into(),
        how: "the demo guest with PostgreSQL".into(),
        disk,
        memory: Some(512 << 20),
        cpus: Some(1),
        kernel: Some((
            folder.join("vmlinux"),
            Some(folder.join("initrd.gz")),
            "quiet root=/dev/vda rw panic=-1".into(),
        )),
        ..FoundVm::default()
    })
}

/// A fresh disk on top of an image that stays as it is.
pub fn overlay(base: &Path, disk: &Path) -> Result<(), CliError> {
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([base, disk])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CliError::Io { what: "run qemu-img (package qemu-utils)".into(), source })?;
    if made.status.success() {
        return Ok(());
    }
    Err(CliError::Said {
        error: format!("cannot make the disk {}", disk.display()),
        cause: String::from_utf8_lossy(&made.stderr).trim().to_owned(),
        hint: "is there room on that disk? `holdfast doctor` looks".into(),
    })
}
