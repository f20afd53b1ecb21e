//! Disk images before they are opened: their layout, what they stand on, and who has them open.
//!
//! An image may name other files to read from, and a guest may have written that name. Only heads are read
//! here, nothing is followed into a place that the configuration does not allow (A31), and QEMU is then
//! told the whole chain file by file, so that it follows no name either.

use super::launch::Format;
use super::offered;
use super::spec::QemuVm;
use super::untrusted::tame;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest chain of images.
const CHAIN_MOST: usize = 64;
/// So much of an image is read: its head, the extensions of it, and the name of its backing file.
const HEAD: u64 = 64 * 1024;

/// One file of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The file.
    pub path: PathBuf,
    /// How it is laid out.
    pub format: Format,
    /// It is no file: somebody offers it over NBD on this socket.
    pub is_offered: bool,
}

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
    #[error(
        "the image {path} reads from `{backing}`, which is neither beside it nor among its `images` (A31)"
    )]
    Outside {
        /// The image.
        path: PathBuf,
        /// What it reads from.
        backing: String,
    },
    /// It stands on a file, and is to stand on none.
    #[error("the image {path} stands on `{backing}`, which is not followed (A31)")]
    Stands {
        /// The image.
        path: PathBuf,
        /// What it stands on.
        backing: String,
    },
    /// It stands on a restore point that is not offered now.
    #[error(
        "the image {path} stands on a restore point, and nobody offers that on {socket}: give `holdfast backup restore \
         --instant {path}` again, with the words as before"
    )]
    NotOffered {
        /// The image.
        path: PathBuf,
        /// Where it is to be offered.
        socket: PathBuf,
    },
    /// It is damaged, or of a kind that is not supported.
    #[error("the image {path} is of no use: {why}")]
    Strange {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
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

/// Checks an image and everything it stands on; the image itself comes first. `others` are the disks of
/// other VMs, which it may not stand on. `known`: its layout, where it is not for its head to say, as of an overlay that
/// we made (A31).
///
/// # Errors
/// If any part lies where it may not, is no image, or cannot be read.
pub fn check(vm: &QemuVm, known: Option<Format>, others: &[PathBuf]) -> Result<Vec<Layer>, ImageError> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut next = Some((vm.disk.clone(), known));
    while let Some((path, known)) = next.take() {
        if layers.len() == CHAIN_MOST {
            return Err(ImageError::Strange { path, why: "it stands on too many others" });
        }
        let head = read_head(&path)?;
        let format = known.unwrap_or_else(|| format_of(&head));
        if format == Format::Qcow2 {
            let strange = |why| ImageError::Strange { path: path.clone(), why };
            if !head.starts_with(&MAGIC) {
                return Err(strange("it is no qcow2: its head is damaged, or it is another file"));
            }
            let names = Names::parse(&head).map_err(strange)?;
            if let Some(backing) = names.backing {
                let outside = || ImageError::Outside { path: path.clone(), backing: tame(&backing, 200) };
                let is_raw = names.format == Some(Format::Raw);
                if let Some(socket) = offered::socket(&backing).filter(|_| is_raw) {
                    let socket = allowed_socket(vm, Path::new(socket)).ok_or_else(outside)?;
                    return on_offered(layers, path, socket);
                }
                let file = allowed(vm, others, &path, &backing);
                next = Some((file.ok_or_else(outside)?, names.format));
            }
        }
        layers.push(Layer { path, format, is_offered: false });
    }
    Ok(layers)
}

/// The chain ends with this image, and with the restore point that it stands on.
fn on_offered(mut layers: Vec<Layer>, image: PathBuf, socket: PathBuf) -> Result<Vec<Layer>, ImageError> {
    if !offered::is_there(&socket) {
        return Err(ImageError::NotOffered { path: image, socket });
    }
    layers.push(Layer { path: image, format: Format::Qcow2, is_offered: false });
    layers.push(Layer { path: socket, format: Format::Raw, is_offered: true });
    Ok(layers)
}

/// What an image says that it stands on: a file, or what somebody offers, by the name that its head has for it.
///
/// # Errors
/// If it cannot be read, or is no qcow2.
pub fn backing(path: &Path) -> Result<Option<String>, ImageError> {
    let head = read_head(path)?;
    let strange = |why| ImageError::Strange { path: path.to_owned(), why };
    if format_of(&head) != Format::Qcow2 {
        return Err(strange("it is no qcow2"));
    }
    Ok(Names::parse(&head).map_err(strange)?.backing)
}

/// A qcow2 that reads from itself alone, by its head.
///
/// # Errors
/// If it cannot be read, is none, or names another file that it stands on or keeps its data in (A31).
pub fn alone(path: &Path) -> Result<Layer, ImageError> {
    match backing(path)? {
        None => Ok(Layer { path: path.to_owned(), format: Format::Qcow2, is_offered: false }),
        Some(backing) => Err(ImageError::Stands { path: path.to_owned(), backing: tame(&backing, 200) }),
    }
}

/// How an image is laid out, by its head.
///
/// # Errors
/// If it cannot be read, or is no regular file.
pub fn format(path: &Path) -> Result<Format, ImageError> {
    read_head(path).map(|head| format_of(&head))
}

fn format_of(head: &[u8]) -> Format {
    if head.starts_with(&MAGIC) { Format::Qcow2 } else { Format::Raw }
}

fn read_head(path: &Path) -> Result<Vec<u8>, ImageError> {
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    let safe = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(safe.bits().cast_signed()).open(path);
    let file = match file {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(ImageError::NotRegular { path: path.to_owned() });
        }
        other => other.map_err(io)?,
    };
    if !file.metadata().map_err(io)?.is_file() {
        return Err(ImageError::NotRegular { path: path.to_owned() });
    }
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).map_err(io)?;
    Ok(head)
}

/// The real path of a backing file, if it lies where it may. Names with a protocol (`json:`, `nbd:`) are
/// no paths.
fn allowed(vm: &QemuVm, others: &[PathBuf], image: &Path, backing: &str) -> Option<PathBuf> {
    let beside = image.parent()?;
    let has_protocol = backing.split_once(':').is_some_and(|(before, _)| !before.contains('/'));
    let real = (!has_protocol).then(|| fs::canonicalize(beside.join(backing)).ok()).flatten()?;
    let foreign = others.iter().filter_map(|other| fs::canonicalize(other).ok()).any(|other| other == real);
    (!foreign && is_in_place(vm, &real)).then_some(real)
}

/// The same of a socket, which may not be there now, and is never reached through a link.
fn allowed_socket(vm: &QemuVm, socket: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(socket.parent()?).ok()?.join(socket.file_name()?);
    is_in_place(vm, &real).then_some(real)
}

/// Whether this real path lies beside the disk, or where the configuration says.
fn is_in_place(vm: &QemuVm, real: &Path) -> bool {
    let own = vm.disk.parent().and_then(|folder| fs::canonicalize(folder).ok());
    let mut places = vm.images.iter().filter_map(|path| fs::canonicalize(path).ok()).chain(own);
    places.any(|place| real.starts_with(&place))
}

/// A qcow2 image begins so; what begins so may be a raw disk (A31).
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The extension that holds the layout of the backing file.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// The size of a cluster is two to the power of one of these.
const CLUSTER_BITS: std::ops::RangeInclusive<u64> = 9..=21;
/// Entries of its first table of mappings.
const L1_MOST: u64 = (32 << 20) / 8;
/// Bytes of its first table of counts.
const COUNTS_MOST: u64 = 8 << 20;
const SNAPSHOTS_MOST: u64 = 65_536;
/// The incompatible feature "data is in another file".
const EXTERNAL_DATA: u64 = 1 << 2;

/// The names in the head of a qcow2 image (QEMU document "Qcow2 Image File Format").
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    backing: Option<String>,
    format: Option<Format>,
}

impl Names {
    fn parse(head: &[u8]) -> Result<Self, &'static str> {
        let cut = "its head is cut short";
        let (version, at) = (number(head, 4, 4).ok_or(cut)?, number(head, 8, 8).ok_or(cut)?);
        let length = number(head, 16, 4).ok_or(cut)?;
        tables_fit(head).ok_or(cut)??;
        let begin = match version {
            2 => 72,
            3 if number(head, 72, 8).ok_or(cut)? & EXTERNAL_DATA != 0 => {
                return Err("its data is in another file (A31); convert it with `qemu-img convert`");
            }
            3 => number(head, 100, 4).ok_or(cut)?,
            _ => return Err("its version is not 2 or 3"),
        };
        if at == 0 {
            return Ok(Self::default());
        }
        let end = at
            .checked_add(length)
            .filter(|_| length <= 1023)
            .ok_or("the name of its backing file is too long")?;
        let name = slice(head, at, end).ok_or("the name of its backing file lies outside its head")?;
        let name = std::str::from_utf8(name).map_err(|_| "the name of its backing file is no text")?;
        Ok(Self { backing: Some(name.to_owned()), format: backing_format(head, begin)? })
    }
}

/// The tables that its head tells of are not larger than QEMU takes them (A32; block/qcow2.h, `QCOW_MAX_L1_SIZE`,
/// `QCOW_MAX_REFTABLE_SIZE`, `QCOW_MAX_SNAPSHOTS`): whoever reads one has room for it first. `None`: the head ends before.
fn tables_fit(head: &[u8]) -> Option<Result<(), &'static str>> {
    let (bits, mappings) = (number(head, 20, 4)?, number(head, 36, 4)?);
    let (counts, snapshots) = (number(head, 56, 4)?, number(head, 60, 4)?);
    Some(if !CLUSTER_BITS.contains(&bits) {
        Err("its clusters have a size that no image has")
    } else if mappings > L1_MOST || counts << bits > COUNTS_MOST || snapshots > SNAPSHOTS_MOST {
        Err("it tells of tables that are too large (A32)")
    } else {
        Ok(())
    })
}

/// What the head says of the layout of the backing file; old images say nothing.
fn backing_format(head: &[u8], begin: u64) -> Result<Option<Format>, &'static str> {
    let mut at = begin;
    while let (Some(kind), Some(length)) =
        (number(head, at, 4), at.checked_add(4).and_then(|l| number(head, l, 4)))
    {
        let data = slice(head, at + 8, at + 8 + length).ok_or("an extension of its head is too long")?;
        match (u32::try_from(kind), data) {
            (Ok(0), _) => break,
            (Ok(BACKING_FORMAT), b"raw") => return Ok(Some(Format::Raw)),
            (Ok(BACKING_FORMAT), b"qcow2") => return Ok(Some(Format::Qcow2)),
            (Ok(BACKING_FORMAT), _) => return Err("its backing file is neither qcow2 nor raw"),
            _ => at += 8 + length.next_multiple_of(8),
        }
    }
    Ok(None)
}

fn slice(head: &[u8], from: u64, to: u64) -> Option<&[u8]> {
    head.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
}

/// A number of `width` bytes, most significant first.
fn number(head: &[u8], at: u64, width: u64) -> Option<u64> {
    Some(slice(head, at, at.checked_add(width)?)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// Whether this process has this file open.
#[must_use]
pub fn has_open(pid: u32, path: &Path) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    fs::metadata(path).is_ok_and(|image| open_in(&process, &image).next().is_some())
}

/// The numbers under which a process has this file open.
fn open_in(process: &Path, image: &fs::Metadata) -> impl Iterator<Item = OsString> {
    let same = |meta: fs::Metadata| (meta.dev(), meta.ino()) == (image.dev(), image.ino());
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    files.filter(move |file| fs::metadata(file.path()).is_ok_and(same)).map(|file| file.file_name())
}

/// The other processes that have this file open, each with its folder and the numbers of it there, as far as we may look into them.
fn users(image: &fs::Metadata) -> impl Iterator<Item = (u32, PathBuf, Vec<OsString>)> {
    let us = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok().filter(|&pid| pid != us)?;
        let numbers: Vec<OsString> = open_in(&entry.path(), image).collect();
        (!numbers.is_empty()).then(|| (pid, entry.path(), numbers))
    })
}

/// Another process that has a file open, for whatever.
#[must_use]
pub fn user(path: &Path) -> Option<u32> {
    users(&fs::metadata(path).ok()?).next().map(|(pid, ..)| pid)
}

/// Who else has an image open for writing, as far as we may look into other processes. QEMU's own lock is
/// the second line: it also stops what we cannot see (R15).
#[must_use]
pub fn holder(path: &Path) -> Option<ImageError> {
    let image = fs::metadata(path).ok()?;
    let is_written = |process: &Path, numbers: &[OsString]| {
        numbers.iter().any(|number| writes(&process.join("fdinfo").join(number)))
    };
    let (pid, process, _) = users(&image).find(|(_, process, numbers)| is_written(process, numbers))?;
    let mut name = String::new();
    let comm = File::open(process.join("comm"));
    let _gone = comm.and_then(|comm| comm.take(64).read_to_string(&mut name));
    Some(ImageError::Held { path: path.to_owned(), pid, name: tame(name.trim(), 32) })
}

/// Whether a file is open for writing: the last digit of its octal flags is the access mode.
fn writes(info: &Path) -> bool {
    let text = fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_none_or(|flags| flags & 3 != 0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Stdio;

    fn vm(disk: &Path, images: Vec<PathBuf>) -> QemuVm {
        QemuVm { images, ..QemuVm::plain(disk) }
    }

    fn qemu_img(args: &[&str]) {
        let status = std::process::Command::new("qemu-img").args(args).stdout(Stdio::null()).status();
        assert!(status.expect("qemu-img, package qemu-utils").success(), "{args:?}");
    }

    fn create(disk: &Path, backing: Option<&str>) {
        let disk = disk.to_str().unwrap();
        match backing {
            Some(backing) => {
                qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing, disk, "1M"])
            }
            None => qemu_img(&["create", "-q", "-f", "qcow2", disk, "1M"]),
        }
    }

    fn refused(vm: &QemuVm) -> ImageError {
        check(vm, None, &[]).unwrap_err()
    }

    #[test]
    fn a_backing_file_elsewhere_is_refused_unless_the_configuration_allows_it() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()); // A31
        let (disk, base) = (ours.path().join("d.qcow2"), theirs.path().join("base.raw"));
        fs::write(&base, b"QFI\xfb: a raw file by the word of the image above").unwrap();
        create(&disk, base.to_str());
        assert!(matches!(refused(&vm(&disk, Vec::new())), ImageError::Outside { .. }));
        let vm = vm(&disk, vec![theirs.path().to_owned()]);
        let layers = check(&vm, None, &[]).unwrap();
        assert_eq!(
            layers[1],
            Layer { path: base.canonicalize().unwrap(), format: Format::Raw, is_offered: false }
        );
        assert!(matches!(check(&vm, None, &[base]), Err(ImageError::Outside { .. })), "another VM's disk");
    }

    #[test]
    fn an_image_that_tells_of_tables_too_large_to_be_read_is_refused_a32() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("d.qcow2");
        create(&disk, None);
        let whole = fs::read(&disk).unwrap();
        assert!(check(&vm(&disk, Vec::new()), None, &[]).is_ok());
        for (at, number, why) in [
            (20, 30_u32, "its clusters"),
            (20, u32::MAX, "its clusters"),
            (36, u32::MAX, "too large (A32)"),
            (56, u32::MAX, "too large (A32)"),
            (60, 65_537, "too large (A32)"),
        ] {
            let mut spoilt = whole.clone();
            spoilt[at..at + 4].copy_from_slice(&number.to_be_bytes());
            fs::write(&disk, spoilt).unwrap();
            let error = refused(&vm(&disk, Vec::new())).to_string();
            assert!(error.contains(why), "{at}: {error}");
        }
        fs::write(&disk, &whole[..50]).unwrap();
        assert!(refused(&vm(&disk, Vec::new())).to_string().contains("cut short"));
    }

    #[test]
    fn a_restore_point_is_read_only_where_it_may_lie_and_while_it_is_offered() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()); // A31
        let disk = ours.path().join("d.qcow2");
        let named = |folder: &Path| format!("{}{}", offered::NAME, folder.join("d.qcow2.offered").display());
        let (here, there) = (named(&ours.path().canonicalize().unwrap()), named(theirs.path()));
        let _elsewhere =
            std::os::unix::net::UnixListener::bind(theirs.path().join("d.qcow2.offered")).unwrap();
        create(&disk, Some(&there));
        assert!(matches!(refused(&vm(&disk, Vec::new())), ImageError::Outside { .. }));
        fs::remove_file(&disk).unwrap();
        create(&disk, Some(&here));
        let why = refused(&vm(&disk, Vec::new()));
        assert!(
            matches!(why, ImageError::NotOffered { .. }) && why.to_string().contains("--instant"),
            "{why}"
        );
        let socket = ours.path().canonicalize().unwrap().join("d.qcow2.offered");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let layers = check(&vm(&disk, Vec::new()), None, &[]).unwrap();
        let point = Layer { path: socket.clone(), format: Format::Raw, is_offered: true };
        assert_eq!((layers.len(), &layers[1]), (2, &point));
        assert_eq!(backing(&disk).unwrap().as_deref(), Some(here.as_str()));
        drop(listener); // as if it was killed
        let why = refused(&vm(&disk, Vec::new()));
        assert!(
            matches!(why, ImageError::NotOffered { .. }) && why.to_string().contains("--instant"),
            "{why}"
        );
        fs::remove_file(&socket).unwrap();
        fs::write(&socket, "a file of that name").unwrap();
        assert!(matches!(refused(&vm(&disk, Vec::new())), ImageError::NotOffered { .. }));
    }

    #[test]
    fn names_that_lead_elsewhere_are_never_followed() {
        let folder = tempfile::tempdir().unwrap(); // A31
        let disk = folder.path().join("d.qcow2");
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("innocent")).unwrap();
        for name in [
            "/etc/passwd",
            "../../../../etc/passwd",
            "innocent",
            "/dev/zero",
            "missing",
            "nbd://h/x",
            r#"json:{"driver":"nbd","host":"h"}"#,
            "fat:rw:/etc",
        ] {
            create(&disk, Some(name));
            assert!(matches!(refused(&vm(&disk, Vec::new())), ImageError::Outside { .. }), "{name}");
            fs::remove_file(&disk).unwrap();
        }
        let data = format!("data_file={}", folder.path().join("data").display());
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", &data, disk.to_str().unwrap(), "1M"]);
        assert!(matches!(refused(&vm(&disk, Vec::new())), ImageError::Strange { .. }));
    }

    #[test]
    fn a_chain_is_followed_to_its_end_and_no_further_than_is_sane() {
        let folder = tempfile::tempdir().unwrap();
        let path = |n: usize| folder.path().join(format!("{n}.qcow2"));
        fs::write(folder.path().join("base"), "raw").unwrap();
        let link = |n: usize, name: &str| {
            let (disk, format) = (path(n), if name == "base" { "raw" } else { "qcow2" });
            qemu_img(&[
                "create",
                "-q",
                "-u",
                "-f",
                "qcow2",
                "-F",
                format,
                "-b",
                name,
                disk.to_str().unwrap(),
                "1M",
            ]);
        };
        link(0, "base");
        link(1, "0.qcow2");
        let layers = check(&vm(&path(1), Vec::new()), None, &[]).unwrap();
        let formats: Vec<Format> = layers.iter().map(|layer| layer.format).collect();
        assert_eq!(formats, [Format::Qcow2, Format::Qcow2, Format::Raw]);
        link(0, "1.qcow2");
        assert!(matches!(refused(&vm(&path(1), Vec::new())), ImageError::Strange { .. }));
    }

    #[test]
    fn a_link_a_pipe_a_folder_and_a_damaged_image_are_refused() {
        let folder = tempfile::tempdir().unwrap(); // A07
        let path = |name: &str| folder.path().join(name);
        create(&path("disk"), None);
        std::os::unix::fs::symlink(path("disk"), path("link")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for name in ["link", "pipe", "", "/dev/zero"] {
            assert!(matches!(refused(&vm(&path(name), Vec::new())), ImageError::NotRegular { .. }), "{name}");
        }
        fs::write(path("bad"), b"QFI\xfb and then nonsense").unwrap();
        assert!(matches!(refused(&vm(&path("bad"), Vec::new())), ImageError::Strange { .. }));
    }

    #[test]
    fn only_one_who_writes_holds_an_image() {
        let folder = tempfile::tempdir().unwrap(); // R15
        let disk = folder.path().join("d.raw");
        fs::write(&disk, b"x").unwrap();
        let open = |redirect: &str| {
            let shell = format!("exec {redirect}{}; echo; exec sleep 100", disk.display());
            let mut child =
                std::process::Command::new("sh").args(["-c", &shell]).stdout(Stdio::piped()).spawn().unwrap();
            child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
            let found = holder(&disk);
            let pid = child.id();
            child.kill().unwrap();
            child.wait().unwrap();
            (pid, found)
        };
        assert!(holder(&disk).is_none());
        assert!(open("9<").1.is_none());
        let (pid, found) = open("9<>");
        assert!(matches!(found, Some(ImageError::Held { pid: holder, .. }) if holder == pid), "{found:?}");
    }

    proptest! {
        #[test]
        fn any_head_is_read_or_refused(mut head in prop::collection::vec(any::<u8>(), 0..300), version in 0_u8..5) {
            if head.len() > 8 {
                head[..8].copy_from_slice(&[b'Q', b'F', b'I', 0xfb, 0, 0, 0, version]);
            }
            let _ = Names::parse(&head);
        }
    }
}
