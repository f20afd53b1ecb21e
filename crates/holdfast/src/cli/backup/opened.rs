//! What `backup image` reads: the bytes of a file, the disk that a qcow2 file holds, or one that somebody offers over NBD.

use super::attempt;
use super::failed;
use super::image::ImageArgs;
use super::remote::{self, Place, Remote};
use crate::act::chain;
use crate::cli::CliError;
use clap::ValueEnum;
use holdfast_backup::save::Source;
use holdfast_drivers::qemu::image::{self, Layer};
use holdfast_drivers::qemu::reader::{EXPORT, Pace, Reader};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So long the last words of a `qemu-nbd` are waited for that hung up.
const WORDS: Duration = Duration::from_secs(5);

/// How a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The bytes of the file are saved, whatever they mean.
    Raw,
    /// The disk that it holds is saved, as a guest sees it. It is read by `qemu-nbd`.
    Qcow2,
}

/// A disk that can be read, and what it is made of.
pub struct Opened {
    disk: Read,
    still: Still,
    /// Who reads the file for us.
    _reader: Option<Reader>,
}

enum Read {
    File(Image),
    Remote(Box<Remote>),
}

struct Image {
    file: File,
    size: u64,
}

impl Source for Image {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn is_hole(&self, span: &Range<u64>) -> bool {
        use rustix::fs::{SeekFrom, seek};
        // What the file system cannot tell is read.
        match seek(&self.file, SeekFrom::Data(span.start)) {
            Ok(start) => start >= span.end,
            Err(why) => why == rustix::io::Errno::NXIO, // none up to the end
        }
    }
}

/// Files that nobody may write to while the disk is read.
struct Still(Vec<File>);

/// How long such a file is and when it was last written to, and changed otherwise: the first can be set to anything.
pub type Stamp = (u64, [i64; 4]);

impl Still {
    fn of(paths: &[PathBuf]) -> Result<Self, CliError> {
        let open = |path: &PathBuf| {
            File::open(path).map_err(failed(format!("look at the image `{}`", path.display())))
        };
        paths.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// A device does not say, and who offers a disk over NBD holds it still.
    fn stamps(&self) -> io::Result<Vec<Option<Stamp>>> {
        let stamp = |file: &File| {
            let known = file.metadata()?;
            let times = [known.mtime(), known.mtime_nsec(), known.ctime(), known.ctime_nsec()];
            Ok(known.is_file().then_some((known.len(), times)))
        };
        self.0.iter().map(stamp).collect()
    }

    /// What this moment is called of a disk that is one file.
    fn moment(&self) -> Option<String> {
        match &self.0[..] {
            [file] => attempt::moment_of(file),
            [] | [_, _, ..] => None,
        }
    }
}

impl Opened {
    /// Opens it.
    pub fn of(args: &ImageArgs, place: Option<&Place>) -> Result<Self, CliError> {
        let of = |disk, still, reader| Self { disk, still, _reader: reader };
        if let Some(place) = place {
            let remote = Remote::open(place, &args.bitmap, args.holes.as_deref()).map_err(|error| {
                let hint =
                    "no point was made; does a QEMU or `qemu-nbd --read-only --persistent` offer it there?";
                unread(&args.file, chain(&error), hint)
            })?;
            return Ok(of(Read::Remote(Box::new(remote)), Still::of(&args.still)?, None));
        }
        if args.format == Some(Format::Qcow2) {
            let (remote, reader) = inside(&args.file)?; // so it is a regular file
            let still = Still::of(std::slice::from_ref(&args.file))?;
            return Ok(of(Read::Remote(Box::new(remote)), still, Some(reader)));
        }
        let image = open(&args.file, args.format)?;
        let file = image.file.try_clone().map_err(failed("look at the image".into()))?;
        Ok(of(Read::File(image), Still(vec![file]), None))
    }

    /// What is read.
    pub fn source(&self) -> &dyn Source {
        match &self.disk {
            Read::File(image) => image,
            Read::Remote(remote) => &**remote,
        }
    }

    /// The same, if it comes over NBD.
    pub fn remote(&self) -> Option<&Remote> {
        match &self.disk {
            Read::File(_) => None,
            Read::Remote(remote) => Some(remote),
        }
    }

    /// The same, to be told what will be wanted.
    pub fn remote_mut(&mut self) -> Option<&mut Remote> {
        match &mut self.disk {
            Read::File(_) => None,
            Read::Remote(remote) => Some(remote),
        }
    }

    /// What this moment of it is called, if it is known what will have been written since.
    pub fn moment(&self, begins: Option<&String>) -> Option<String> {
        let begins = begins.filter(|_| self.remote().is_some()).cloned();
        begins.or_else(|| self.still.moment())
    }

    /// What was written since another moment, if that is known.
    pub fn written_since(&self, then: &str) -> Option<Vec<Range<u64>>> {
        let changed = self.remote().and_then(|remote| remote.changed(then)).map(<[_]>::to_vec);
        changed.or_else(|| (self.still.moment()? == then).then(Vec::new))
    }

    /// When the files that it is made of were last written to.
    pub fn stamps(&self) -> Result<Vec<Option<Stamp>>, CliError> {
        self.still.stamps().map_err(failed("look at the image".into()))
    }

    /// All is read.
    pub fn close(self) {
        if let Read::Remote(remote) = self.disk {
            remote.close();
        }
    }
}

/// Opens a file whose bytes are saved. Nobody acts on what its head says, as a guest may have written that into a raw disk
/// (A31); but nobody saves the inside of a container without knowing it, either.
fn open(path: &Path, format: Option<Format>) -> Result<Image, CliError> {
    let what = || format!("read the image `{}`", path.display());
    let kind = std::fs::metadata(path).map_err(failed(what()))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a block device");
        return Err(CliError::Io { what: what(), source });
    }
    let mut file = File::open(path).map_err(failed(what()))?;
    let size = file.seek(SeekFrom::End(0)).map_err(failed(what()))?;
    let mut head = [0; image::MAGIC.len()];
    let is_whole = file.read_exact_at(&mut head, 0).is_ok();
    if format.is_none() && is_whole && head == image::MAGIC {
        return Err(CliError::Said {
            error: format!("`{}` begins as a qcow2 image does", path.display()),
            cause: "its bytes are not those of the disk in it, unless it is a raw disk whose guest wrote that (A31)"
                .into(),
            hint: "say which it is: `--format qcow2` saves the disk that it holds, `--format raw` the bytes of the file"
                .into(),
        });
    }
    Ok(Image { file, size })
}

/// The disk that a qcow2 file holds, and who reads it. Nothing that its head names is followed.
fn inside(file: &Path) -> Result<(Remote, Reader), CliError> {
    let hint = "no point was made; a chain of images is one after `qemu-img convert -O qcow2 IMAGE NEW`";
    let real = file.canonicalize().map_err(failed(format!("read the image `{}`", file.display())))?;
    let layer = image::alone(&real).map_err(|error| unread(file, chain(&error), hint))?;
    let reader = start(layer).map_err(|why| {
        unread(file, why, "no point was made; Debian has `qemu-nbd` in the package qemu-utils")
    })?;
    let opened = Remote::open(&Place::unix(reader.socket(), EXPORT), &[], None);
    reader.hide(); // nobody else is to connect, and nothing is left behind
    match opened {
        Ok(remote) => Ok((remote, reader)),
        Err(error) => {
            let began = Instant::now();
            while reader.said().is_none() && began.elapsed() < WORDS {
                std::thread::sleep(Duration::from_millis(10));
            }
            let said = reader.said().map(|said| format!("`qemu-nbd`: {said}"));
            Err(unread(
                file,
                said.unwrap_or_else(|| chain(&error)),
                "no point was made; is it whole (`qemu-img check`), and used by nobody?",
            ))
        }
    }
}

fn start(layer: Layer) -> Result<Reader, String> {
    let nonce = std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|error| error.to_string())?;
    let folder = std::env::temp_dir().join(format!("holdfast-{}", nonce.trim()));
    Reader::start(&[layer], folder, Pace::Same).map_err(|error| chain(&error))
}

fn unread(file: &Path, cause: String, hint: &str) -> CliError {
    CliError::Said { error: format!("cannot read the disk `{}`", file.display()), cause, hint: hint.into() }
}

/// Where it is offered over NBD, if it is no file.
pub fn place(args: &ImageArgs) -> Result<Option<Place>, CliError> {
    let place = args.file.to_str().and_then(remote::place).transpose();
    let place = place.map_err(|cause| CliError::Usage {
        error: format!("{} is no place of a disk", crate::config::quote_path(&args.file)),
        cause: cause.into(),
        hint: "write `nbd+unix:///EXPORT?socket=PATH` or `nbd://HOST:PORT/EXPORT`".into(),
    })?;
    if place.is_some() && args.format.is_some() {
        return Err(CliError::Said {
            error: format!("`--format` says nothing of `{}`", args.file.display()),
            cause: "whoever offers a disk over NBD has read its image".into(),
            hint: "leave it out".into(),
        });
    }
    if place.is_none() && !args.bitmap.is_empty() {
        return Err(CliError::Said {
            error: format!("`--bitmap` says nothing of the file `{}`", args.file.display()),
            cause: "bitmaps are read over NBD, and what a file has of them is not asked".into(),
            hint: "offer it with `qemu-nbd --read-only --bitmap NAME`, or say what changed with `--changed`"
                .into(),
        });
    }
    Ok(place)
}
