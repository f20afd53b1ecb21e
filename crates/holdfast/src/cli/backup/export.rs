//! `holdfast backup export`: a disk of a restore point as an image that other programs read. It has its name only once it is
//! whole and on the disk, and never that of another file (I15).

use super::fresh::{self, Failure, Fresh};
use super::{PointArgs, RepositoryArgs, bar, bytes, shown, troubled, watched};
use crate::cli::{CliError, Exit, print_json};
use clap::{Args, ValueEnum};
use holdfast_backup::export::{Layout, Qcow2};
use holdfast_backup::point::{Disk, Point};
use holdfast_backup::repository::Repository;
use holdfast_backup::restore;
use std::path::PathBuf;
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
    let (done, bar) = (AtomicU64::new(0), bar(disk.size, args.json));
    let length = layout.as_ref().map_or(disk.size, Layout::length);
    let fill = |image: &Fresh| write(&repository, disk, layout.as_ref(), image, &done);
    let work = || fresh::make(&args.out, length, fill);
    let ended = watched(&bar, || done.load(Ordering::Relaxed), work);
    bar.finish_and_clear();
    ended.map_err(|error| error.for_people("export", &args.out, &shown(&name)))?;
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
pub fn disk<'a>(point: &'a Point, named: Option<&str>, shown: &str) -> Result<&'a Disk, CliError> {
    let found = point.disks.iter().find(|disk| named.is_none_or(|named| named == disk.name));
    let names: Vec<&str> = point.disks.iter().map(|disk| &disk.name[..]).collect();
    found.ok_or_else(|| CliError::Said {
        error: format!("restore point {shown} has no such disk"),
        cause: format!("its disks are: {}", names.join(", ")),
        hint: "name one of them with `--disk`".into(),
    })
}

fn write(
    repository: &Repository,
    disk: &Disk,
    layout: Option<&Layout>,
    image: &Fresh,
    done: &AtomicU64,
) -> Result<(), Failure> {
    let restored = match layout {
        None => restore::disk(repository, disk, image, fresh::threads(), done),
        Some(layout) => {
            layout.write_tables(image).map_err(Failure::File)?;
            restore::disk(repository, disk, &Qcow2::new(layout, image), fresh::threads(), done)
        }
    };
    restored.map_err(Failure::Restore)
}
