//! `holdfast backup restore`: a disk of a restore point becomes a file again. It has its name only once it is whole, on the disk,
//! and read back from there, and never that of another file (I15). Onto one that is there: [`super::onto`].

use super::again::{self, Again};
use super::fresh::{self, Failure, Fresh};
use super::pace::{LimitArgs, Paced};
use super::{PointArgs, RepositoryArgs, bar, bytes, shown, troubled, watched};
use crate::cli::{CliError, Exit, print_json};
use crate::place::RepositoryPlace;
use clap::Args;
use holdfast_backup::point::Disk;
use holdfast_backup::repository::{PointName, Repository};
use holdfast_backup::restore;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What to restore, and where to.
#[derive(Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub(super) repository: RepositoryArgs,
    #[command(flatten)]
    pub(super) point: PointArgs,
    /// The file to write, which must not be there yet.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["onto", "instant"])]
    out: Option<PathBuf>,
    /// A file that is there and becomes the point: only what differs is written. What it holds now is given up (I15).
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    onto: Option<PathBuf>,
    /// The disk of a VM that is off: it becomes a qcow2 that stands on the point, so the VM can be started at once, and its blocks come
    /// in while it runs. What it was is kept beside it. Ends when all is there.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "onto", "iops"], requires = "qmp")]
    pub(super) instant: Option<PathBuf>,
    /// The control socket of that VM's QEMU, as `holdfast vm show --json` names it.
    #[arg(long, value_name = "PATH", requires = "instant")]
    qmp: Option<PathBuf>,
    /// The point that the file of `--onto` holds, so that it need not be read to see what differs. This is believed.
    #[arg(long, value_name = "POINT", requires = "onto")]
    pub(super) holds: Option<String>,
    /// What was written to the file of `--onto` since it held that point, or the one that is restored: a file of lines
    /// `OFFSET LENGTH`, in bytes. This is believed.
    #[arg(long, value_name = "RANGES", requires = "onto")]
    pub(super) changed: Option<PathBuf>,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Restores it.
pub fn restore(args: &RestoreArgs) -> Result<Exit, CliError> {
    for out in args.instant.iter().chain(&args.onto).chain(&args.out) {
        fresh::must_be_elsewhere(out, &args.repository.repo)?;
    }
    if let (Some(instant), Some(qmp)) = (&args.instant, &args.qmp) {
        return super::instant::restore(args, instant, qmp);
    }
    match (&args.onto, &args.out) {
        (Some(onto), _) => super::onto::restore(args, onto),
        (None, Some(out)) => new(args, out),
        (None, None) => Ok(Exit::Fine), // the command line asks for one of them
    }
}

/// Restores it into a file that is not there yet.
fn new(args: &RestoreArgs, out: &Path) -> Result<Exit, CliError> {
    if out.symlink_metadata().is_ok() {
        return Err(CliError::Said {
            error: format!("`{}` is there already", out.display()),
            cause: "a restore never replaces a file: it might be the only copy (I15)".into(),
            hint: "name another file, or move that one away; `--onto` gives up what it holds".into(),
        });
    }
    let repository = args.repository.open()?;
    let name = args.point.find(&repository, &args.repository.repo)?;
    let disk = disk_of(&repository, &args.repository.repo, &name)?;
    let (begun, done, bar) = (Instant::now(), AtomicU64::new(0), bar(disk.size, args.json));
    let pace = args.limits.pace();
    let fill = |file: &Fresh| {
        let target = Paced(file, pace.as_ref());
        restore::disk(&repository, &disk, &target, fresh::threads(), &done).map_err(Failure::Restore)
    };
    let compare = |again: &Again<'_>| {
        again::compare((&repository, &disk), &Paced(again, pace.as_ref()), None, &done, &bar)
    };
    let work = || fresh::make(out, disk.size, fill, compare);
    let ended = watched(&bar, || done.load(Ordering::Relaxed), work);
    bar.finish_and_clear();
    ended.map_err(|error| error.for_people("restore", out, &shown(&name)))?;
    let took = begun.elapsed().as_secs_f64();
    if args.json {
        print_json(&serde_json::json!({
            "v": 1, "id": shown(&name), "out": out.to_string_lossy(), "size": disk.size, "seconds": took,
        }))?;
    } else {
        say!("restored {} of point {} into {}, {took:.1} s", bytes(disk.size), shown(&name), out.display());
    }
    Ok(Exit::Fine)
}

/// The disk of a point.
pub fn disk_of(
    repository: &Repository,
    folder: &RepositoryPlace,
    name: &PointName,
) -> Result<Disk, CliError> {
    let point = repository.point(name).map_err(troubled(folder))?;
    point.disks.into_iter().next().ok_or_else(|| CliError::Said {
        error: format!("restore point {} has no disk", shown(name)),
        cause: "there is nothing to write".into(),
        hint: "name another point".into(),
    })
}
