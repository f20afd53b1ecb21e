//! `holdfast backup export`: a disk of a restore point as an image that other programs read. It has its name only once it is
//! whole, on the disk and read back from there, and never that of another file (I15).

use super::again::{self, Again};
use super::disk::{DiskArgs, Meant};
use super::fresh::{self, Failure, Fresh};
use super::{bar, bytes, troubled, watched};
use crate::cli::{CliError, Exit, print_json};
use clap::{Args, ValueEnum};
use holdfast_backup::export::{Layout, Placed, Qcow2};
use holdfast_backup::point::Disk;
use holdfast_backup::repository::Repository;
use holdfast_backup::restore;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to write.
#[derive(Args)]
pub struct ExportArgs {
    #[command(flatten)]
    of: DiskArgs,
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
    fresh::must_be_elsewhere(&args.out, &args.of.repository.repo)?;
    if args.out.symlink_metadata().is_ok() {
        return Err(CliError::Said {
            error: format!("`{}` is there already", args.out.display()),
            cause: "an export never replaces a file: it might be the only copy (I15)".into(),
            hint: "name another file, or move that one away".into(),
        });
    }
    let Meant { repository, point, disk } = args.of.open()?;
    let layout = match args.format {
        Format::Raw => None,
        Format::Qcow2 => Some(Layout::of(&repository, &disk).map_err(troubled(&args.of.repository.repo))?),
    };
    let (done, bar) = (AtomicU64::new(0), bar(disk.size, args.json));
    let length = layout.as_ref().map_or(disk.size, Layout::length);
    let fill = |image: &Fresh| write(&repository, &disk, layout.as_ref(), image, &done);
    let compare = |again: &Again<'_>| match &layout {
        None => again::compare((&repository, &disk), again, None, &done, &bar),
        Some(layout) => {
            layout.compare_tables(again).map_err(Failure::Restore)?;
            let compared =
                again::compare((&repository, &disk), &Placed::new(layout, again), None, &done, &bar);
            compared.map_err(|why| match why {
                Failure::Restore(why) => Failure::Restore(layout.in_image(why)),
                Failure::File(why) => Failure::File(why),
            })
        }
    };
    let work = || fresh::make(&args.out, length, fill, compare);
    let ended = watched(&bar, || done.load(Ordering::Relaxed), work);
    bar.finish_and_clear();
    ended.map_err(|error| error.for_people("export", &args.out, &point))?;
    if args.json {
        print_json(&serde_json::json!({
            "v": 1, "id": point, "disk": disk.name, "out": args.out.to_string_lossy(), "size": disk.size,
        }))?;
    } else {
        say!("wrote {} of point {} into {}", bytes(disk.size), point, args.out.display());
    }
    Ok(Exit::Fine)
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
