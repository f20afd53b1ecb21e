//! What the daemon has its own child do for a trial of a restore point: offer it, and state what was seen.

use super::{PointArgs, RepositoryArgs, failed, say_aside, troubled};
use crate::act::chain;
use crate::backups::offer::{self, Heard, READ_AGAIN};
use crate::cli::{CliError, Exit};
use crate::clock;
use clap::Args;
use holdfast_backup::offered::Offered;
use holdfast_backup::proof::{self, Grade, Proof, What};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Bytes of blocks that are kept in memory.
const MOST: usize = 32 << 20;

/// What to offer.
#[derive(Args)]
pub struct OfferArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    point: PointArgs,
}

/// What was seen.
#[derive(Args)]
pub struct GradeArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    point: PointArgs,
    /// What it proved; `taken`: it did not boot.
    #[arg(long, value_parser = of_name)]
    grade: Grade,
    /// How long it took until users would have been served, in milliseconds.
    #[arg(long, default_value_t = 0)]
    boot_ms: u64,
    /// What a person should know.
    words: String,
}

fn of_name(name: &str) -> Result<Grade, String> {
    let all = [Grade::Taken, Grade::Booted, Grade::AppChecked];
    all.into_iter()
        .find(|grade| grade.to_string() == name)
        .ok_or_else(|| format!("`{name}` is no grade of a trial"))
}

/// Offers the first disk of a point over NBD to one client, until that has had enough.
pub fn offer(args: &OfferArgs) -> Result<Exit, CliError> {
    let (repository, folder) = (args.repository.open()?, &args.repository.repo);
    let name = args.point.find(&repository, folder)?;
    let mut point = repository.point(&name).map_err(troubled(folder))?;
    let stream =
        std::io::stdin().as_fd().try_clone_to_owned().map_err(failed("use standard input".into()))?;
    let disk = Offered::new(repository, point.disks.swap_remove(0), MOST);
    let tell = |heard: &Heard<'_>| match heard {
        Heard::Failed(error) => say_aside(&format!("error: {}", chain(error))),
        Heard::Again => say_aside(READ_AGAIN),
    };
    // A machine that is ended says no farewell.
    let _gone = offer::serve_one(disk, UnixStream::from(stream), tell);
    Ok(Exit::Fine)
}

/// States it beside the point.
pub fn grade(args: &GradeArgs) -> Result<Exit, CliError> {
    let (repository, folder) = (args.repository.open()?, &args.repository.repo);
    let name = args.point.find(&repository, folder)?;
    let words = args.words.chars().take(proof::WORDS_MOST / 4).collect();
    let proof =
        Proof { what: What::Grade(args.grade), when: clock::wall_micros(), boot: args.boot_ms, words };
    proof::prove(&repository, &name, &proof).map_err(troubled(folder))?;
    Ok(Exit::Fine)
}
