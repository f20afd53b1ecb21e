//! `holdfast backup restore`: a disk of a restore point becomes a file again. It has its name only once it is whole and
//! on the disk, and never that of another file (I15).

use super::{PointArgs, RepositoryArgs, bar, bytes, failed, shown, threads, troubled, watched};
use crate::act::chain;
use crate::cli::{CliError, Exit, print_json};
use clap::Args;
use holdfast_backup::point::Disk;
use holdfast_backup::restore::{self, RestoreError, Target};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What to restore, and where to.
#[derive(Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    point: PointArgs,
    /// The file to write, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

struct New(File);

impl Target for New {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

/// Restores it.
pub fn restore(args: &RestoreArgs) -> Result<Exit, CliError> {
    if args.out.symlink_metadata().is_ok() {
        return Err(CliError::Said {
            error: format!("`{}` is there already", args.out.display()),
            cause: "a restore never replaces a file: it might be the only copy (I15)".into(),
            hint: "name another file, or move that one away".into(),
        });
    }
    let repository = args.repository.open()?;
    let name = args.point.find(&repository, &args.repository.repo)?;
    let point = repository.point(&name).map_err(troubled(&args.repository.repo))?;
    let Some(disk) = point.disks.first() else {
        return Err(CliError::Said {
            error: format!("restore point {} has no disk", shown(&name)),
            cause: "there is nothing to write".into(),
            hint: "name another point".into(),
        });
    };
    let (begun, done, bar) = (Instant::now(), AtomicU64::new(0), bar(disk.size, args.json));
    let unfinished = unfinished(&args.out);
    let work = || write(&repository, disk, &unfinished, &args.out, &done);
    let ended = watched(&bar, || done.load(Ordering::Relaxed), work);
    bar.finish_and_clear();
    if let Err(error) = ended {
        let _ = fs::remove_file(&unfinished); // ours, and of no use to anybody
        return Err(error.for_people(args, &shown(&name)));
    }
    let took = begun.elapsed().as_secs_f64();
    if args.json {
        let out = args.out.to_string_lossy();
        print_json(&serde_json::json!({
            "v": 1, "id": shown(&name), "out": out, "size": disk.size, "seconds": took,
        }))?;
    } else {
        say!(
            "restored {} of point {} into {}, {took:.1} s",
            bytes(disk.size),
            shown(&name),
            args.out.display()
        );
    }
    Ok(Exit::Fine)
}

enum Failure {
    Restore(RestoreError),
    File(io::Error),
}

impl Failure {
    fn for_people(self, args: &RestoreArgs, point: &str) -> CliError {
        match self {
            Self::File(source) => failed(format!("write `{}`; nothing is left of it", args.out.display()))(source),
            Self::Restore(error) => CliError::Said {
                error: format!("cannot restore point {point}"),
                cause: chain(&error),
                hint: "nothing is left of the new file; `holdfast backup verify` names the points that are whole".into(),
            },
        }
    }
}

fn write(
    repository: &holdfast_backup::repository::Repository,
    disk: &Disk,
    unfinished: &Path,
    out: &Path,
    done: &AtomicU64,
) -> Result<(), Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(unfinished)
        .map_err(Failure::File)?;
    file.set_len(disk.size).map_err(Failure::File)?;
    let target = New(file);
    restore::disk(repository, disk, &target, threads(), done).map_err(Failure::Restore)?;
    target.0.sync_all().map_err(Failure::File)?;
    // A link never replaces a file that somebody made meanwhile.
    fs::hard_link(unfinished, out).and_then(|()| fs::remove_file(unfinished)).map_err(Failure::File)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Failure::File)
}

/// The name of a file that is not whole yet, beside the one it becomes.
fn unfinished(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}.{}.unfinished", std::process::id()))
}
