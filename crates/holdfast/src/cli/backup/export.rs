//! `holdfast backup export`: a disk of a restore point as an image that other programs read. It has its name only once it is
//! whole and on the disk, and never that of another file (I15).

use super::{PointArgs, RepositoryArgs, bar, bytes, failed, shown, threads, troubled, watched};
use crate::act::chain;
use crate::cli::{CliError, Exit, print_json};
use clap::{Args, ValueEnum};
use holdfast_backup::export::{Layout, Qcow2};
use holdfast_backup::point::{Disk, Point};
use holdfast_backup::repository::Repository;
use holdfast_backup::restore::{self, RestoreError, Target};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What to write.
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    point: PointArgs,
    /// Which disk; the first, if none is named.
    #[arg(long, value_name = "DISK")]
    disk: Option<String>,
    /// The file to write, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Its format.
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A format of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The bytes of the disk, with holes.
    Raw,
    /// As QEMU reads it, version 3.
    Qcow2,
}

struct Image(File);

impl Target for Image {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

/// Writes it.
pub fn export(args: &ExportArgs) -> Result<Exit, CliError> {
    if args.out.symlink_metadata().is_ok() {
        return Err(CliError::Said {
            error: format!("`{}` is there already", args.out.display()),
            cause: "an export never replaces a file: it might be the only copy (I15)".into(),
            hint: "name another file, or move that one away".into(),
        });
    }
    let (repository, folder) = (args.repository.open()?, &args.repository.repo);
    let name = args.point.find(&repository, folder)?;
    let point = repository.point(&name).map_err(troubled(folder))?;
    let disk = disk(&point, args.disk.as_deref(), &shown(&name))?;
    let layout = match args.format {
        Format::Raw => None,
        Format::Qcow2 => Some(Layout::of(&repository, disk).map_err(troubled(folder))?),
    };
    let unfinished = args.out.with_file_name(format!(
        ".{}.{}.unfinished",
        args.out.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let (done, bar) = (AtomicU64::new(0), bar(disk.size, args.json));
    let work = || write(&repository, disk, layout.as_ref(), (&unfinished, &args.out), &done);
    let ended = watched(&bar, || done.load(Ordering::Relaxed), work);
    bar.finish_and_clear();
    if let Err(error) = ended {
        let _ = fs::remove_file(&unfinished); // ours, and of no use to anybody
        return Err(error.for_people(&args.out, &shown(&name)));
    }
    if args.json {
        print_json(&serde_json::json!({
            "v": 1, "id": shown(&name), "disk": disk.name, "out": args.out.to_string_lossy(), "size": disk.size,
        }))?;
    } else {
        say!("wrote {} of point {} into {}", bytes(disk.size), shown(&name), args.out.display());
    }
    Ok(Exit::Fine)
}

/// The disk of this name, or the first.
fn disk<'a>(point: &'a Point, named: Option<&str>, shown: &str) -> Result<&'a Disk, CliError> {
    let found = point.disks.iter().find(|disk| named.is_none_or(|named| named == disk.name));
    let names: Vec<&str> = point.disks.iter().map(|disk| &disk.name[..]).collect();
    found.ok_or_else(|| CliError::Said {
        error: format!("restore point {shown} has no such disk"),
        cause: format!("its disks are: {}", names.join(", ")),
        hint: "name one of them with `--disk`".into(),
    })
}

enum Failure {
    Restore(RestoreError),
    File(io::Error),
}

impl Failure {
    fn for_people(self, out: &Path, point: &str) -> CliError {
        match self {
            Self::File(source) => {
                failed(format!("write `{}`; nothing is left of it", out.display()))(source)
            }
            Self::Restore(error) => CliError::Said {
                error: format!("cannot export point {point}"),
                cause: chain(&error),
                hint:
                    "nothing is left of the new file; `holdfast backup verify` names the points that are whole"
                        .into(),
            },
        }
    }
}

fn write(
    repository: &Repository,
    disk: &Disk,
    layout: Option<&Layout>,
    (unfinished, out): (&Path, &Path),
    done: &AtomicU64,
) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished);
    let image = Image(file.map_err(Failure::File)?);
    image.0.set_len(layout.map_or(disk.size, Layout::length)).map_err(Failure::File)?;
    let restored = match layout {
        None => restore::disk(repository, disk, &image, threads(), done),
        Some(layout) => {
            layout.write_tables(&image).map_err(Failure::File)?;
            restore::disk(repository, disk, &Qcow2::new(layout, &image), threads(), done)
        }
    };
    restored.map_err(Failure::Restore)?;
    image.0.sync_all().map_err(Failure::File)?;
    // A link never replaces a file that somebody made meanwhile.
    fs::hard_link(unfinished, out).and_then(|()| fs::remove_file(unfinished)).map_err(Failure::File)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Failure::File)
}
