//! Disk images before they are opened: their layout, what they stand on, and who has them open.
//!
//! An image may name other files to read from. Those are followed only into folders that the configuration
//! allows (A31): otherwise a guest's image could read the host's files, or another VM's disk.

use super::launch::Format;
use super::spec::QemuVm;
use serde::Deserialize;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The longest chain of images.
const CHAIN_MOST: usize = 64;
/// `qemu-img info` reads heads only.
const LOOK: Duration = Duration::from_secs(10);

/// Why an image is not opened.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("cannot read the image {path}")]
    Io {
        /// The image.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is a link, a device, a FIFO or a folder.
    #[error("the image {path} is no regular file")]
    NotRegular {
        /// The image.
        path: PathBuf,
    },
    /// It stands on a file that the configuration does not allow.
    #[error("the image {path} reads from {backing}, which is neither beside it nor among its `images` (A31)")]
    Outside {
        /// The image.
        path: PathBuf,
        /// What it reads from.
        backing: String,
    },
    /// It is damaged, or of a kind that is not supported.
    #[error("qemu-img does not understand the image {path}: {said}")]
    Strange {
        /// The image.
        path: PathBuf,
        /// What was said.
        said: String,
    },
    /// Another process has it open for writing.
    #[error("the image {path} is in use by process {pid} ({name})")]
    Held {
        /// The image.
        path: PathBuf,
        /// By this process.
        pid: u32,
        /// Its command name.
        name: String,
    },
}

#[derive(Deserialize)]
struct Info {
    format: String,
    #[serde(rename = "full-backing-filename")]
    backing: Option<String>,
    #[serde(rename = "format-specific")]
    specific: Option<Specific>,
}

#[derive(Deserialize)]
struct Specific {
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "data-file")]
    data_file: Option<String>,
}

/// The layout of an image, told by its first bytes.
///
/// # Errors
/// If it cannot be read, or is no regular file.
pub fn format(path: &Path) -> Result<Format, ImageError> {
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    let kind = fs::symlink_metadata(path).map_err(io)?.file_type();
    if !kind.is_file() || kind.is_fifo() {
        return Err(ImageError::NotRegular { path: path.to_owned() });
    }
    let mut head = [0; 4];
    match File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) if head == *b"QFI\xfb" => Ok(Format::Qcow2),
        Ok(()) => Ok(Format::Raw),
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Ok(Format::Raw),
        Err(cause) => Err(io(cause)),
    }
}

/// Checks an image and everything it stands on.
///
/// # Errors
/// If any part lies where it may not, is no image, or cannot be read.
pub async fn check(vm: &QemuVm) -> Result<Format, ImageError> {
    let layout = format(&vm.disk)?;
    if layout == Format::Raw {
        return Ok(layout);
    }
    let mut next = Some((vm.disk.clone(), layout));
    for _ in 0..CHAIN_MOST {
        let Some((path, layout)) = next.take() else { return Ok(Format::Qcow2) };
        if layout == Format::Raw {
            continue;
        }
        let info = look(&path).await?;
        let outside = |backing: &str| ImageError::Outside { path: path.clone(), backing: backing.to_owned() };
        if let Some(data) = info.specific.and_then(|specific| specific.data).and_then(|data| data.data_file) {
            return Err(outside(&data)); // an external data file is never ours
        }
        if info.format != "qcow2" {
            return Err(ImageError::Strange { path, said: format!("it is {}", info.format) });
        }
        if let Some(backing) = info.backing {
            let file = allowed(vm, Path::new(&backing)).ok_or_else(|| outside(&backing))?;
            let layout = format(&file)?;
            next = Some((file, layout));
        }
    }
    Err(ImageError::Strange {
        path: vm.disk.clone(),
        said: format!("more than {CHAIN_MOST} images in its chain"),
    })
}

/// The real path of a backing file, if it lies where it may.
fn allowed(vm: &QemuVm, backing: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(backing).ok()?;
    let beside = vm.disk.parent().and_then(|folder| fs::canonicalize(folder).ok());
    let named = vm.images.iter().filter_map(|path| fs::canonicalize(path).ok());
    named.chain(beside).any(|place| real.starts_with(&place)).then_some(real)
}

async fn look(path: &Path) -> Result<Info, ImageError> {
    let strange = |said: String| ImageError::Strange { path: path.to_owned(), said };
    let mut command = tokio::process::Command::new("qemu-img");
    // -U: only look, also while a guest runs; the layout is named, so that nothing is guessed.
    command.args(["info", "-U", "-f", "qcow2", "--output=json"]).arg(path);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(LOOK, command.output()).await;
    let output = ended
        .map_err(|_| strange(format!("no answer within {LOOK:?}")))?
        .map_err(|source| ImageError::Io { path: path.to_owned(), source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(strange(said.trim().chars().take(200).collect()));
    }
    serde_json::from_slice(&output.stdout).map_err(|cause| strange(cause.to_string()))
}

/// Whether this process has this file open.
#[must_use]
pub fn has_open(pid: u32, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|image| opens(Path::new("/proc").join(pid.to_string()), &image))
}

fn opens(process: PathBuf, image: &fs::Metadata) -> bool {
    let same = |meta: fs::Metadata| (meta.dev(), meta.ino()) == (image.dev(), image.ino());
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    open.map(|file| fs::metadata(file.path())).any(|meta| meta.is_ok_and(same))
}

/// Who has an image open, from the process table: to name the holder when QEMU finds it locked (R15).
#[must_use]
pub fn holder(path: &Path) -> Option<ImageError> {
    let image = fs::metadata(path).ok()?;
    let us = std::process::id();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == us {
            continue;
        }
        if opens(entry.path(), &image) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let name = name.trim().chars().filter(|c| !c.is_control()).collect();
            return Some(ImageError::Held { path: path.to_owned(), pid, name });
        }
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::spec::{Accel, Network};
    use super::*;

    fn vm(disk: &Path, images: Vec<PathBuf>) -> QemuVm {
        QemuVm {
            name: "orders".parse().unwrap(),
            disk: disk.to_owned(),
            images,
            memory: 512 << 20,
            cpus: 1,
            accel: Accel::Tcg,
            kernel: None,
            network: Network::None,
            user: None,
            memory_state: None,
        }
    }

    fn create(disk: &Path, backing: Option<&Path>) {
        let mut command = std::process::Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]);
        if let Some(backing) = backing {
            command.args(["-F", "raw", "-b"]).arg(backing);
        }
        command.arg(disk);
        if backing.is_none() {
            command.arg("1M");
        }
        assert!(command.status().expect("qemu-img, package qemu-utils").success());
    }

    #[tokio::test]
    async fn a_backing_file_elsewhere_is_refused_unless_the_configuration_allows_it() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (disk, base) = (ours.path().join("d.qcow2"), theirs.path().join("base.raw"));
        fs::write(&base, vec![0; 1 << 20]).unwrap();
        create(&disk, Some(&base));
        let refused = check(&vm(&disk, Vec::new())).await.unwrap_err();
        assert!(matches!(refused, ImageError::Outside { .. }), "{refused}");
        assert_eq!(check(&vm(&disk, vec![theirs.path().to_owned()])).await.unwrap(), Format::Qcow2);
    }

    #[tokio::test]
    async fn a_link_a_fifo_and_a_damaged_image_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("d.qcow2");
        create(&disk, None);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&disk, &link).unwrap();
        assert!(matches!(check(&vm(&link, Vec::new())).await, Err(ImageError::NotRegular { .. })));
        let bad = folder.path().join("bad");
        fs::write(&bad, b"QFI\xfb and then nonsense").unwrap();
        assert!(matches!(check(&vm(&bad, Vec::new())).await, Err(ImageError::Strange { .. })));
    }

    #[test]
    fn the_holder_of_an_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("d.raw");
        fs::write(&disk, b"x").unwrap();
        assert!(holder(&disk).is_none());
        let mut tail =
            std::process::Command::new("tail").args(["-f"]).arg(&disk).stdout(Stdio::null()).spawn().unwrap();
        let found = (0..200).find_map(|_| {
            std::thread::park_timeout(Duration::from_millis(20)); // until tail has opened it
            holder(&disk)
        });
        tail.kill().unwrap();
        tail.wait().unwrap();
        assert!(matches!(found, Some(ImageError::Held { pid, .. }) if pid == tail.id()));
    }
}
