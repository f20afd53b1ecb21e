//! What the daemon has its own child do when a backup takes the place of a disk: offer it beside the disk, and have QEMU copy
//! it into the disk, until nothing of it is missing any more. It outlives the daemon.

use super::instant::{checked, refused, stream, whole};
use super::{PointArgs, RepositoryArgs, failed, shown, troubled};
use crate::act::chain;
use crate::backups::{Ready, offer};
use crate::cli::{CliError, Exit, print_json_line, wait_for};
use clap::Args;
use holdfast_backup::offered::OfferedError;
use holdfast_drivers::qemu::image;
use holdfast_drivers::qemu::offered::NAME;
use indicatif::ProgressBar;
use std::fs::{File, OpenOptions};
use std::io::BufRead;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const HINT: &str = "the daemon tries it again; what the disk has of the backup stays";

/// What to bring, and where to.
#[derive(Args)]
pub struct SupplyArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    point: PointArgs,
    /// Where the disk expects it.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The control socket of the VM.
    #[arg(long, value_name = "PATH")]
    qmp: PathBuf,
    /// Bring so much in a second at most, as `50MiB/s`.
    #[arg(long, value_name = "RATE", value_parser = super::pace::rate)]
    limit: Option<u64>,
}

/// Offers it, says so, hears which file is to be filled, and stays until it is.
pub fn supply(args: &SupplyArgs) -> Result<Exit, CliError> {
    let (repository, folder) = (args.repository.open()?, &args.repository.repo);
    let name = args.point.find(&repository, folder)?;
    let point = repository.point(&name).map_err(troubled(folder))?;
    let disk = super::disk::named(&point, None, &shown(&name))?.clone();
    let (number, size) = (repository.id().to_string(), disk.size);
    let offered = checked(repository, disk, &args.socket)?;
    let tell = |error: &OfferedError| eprintln!("error: {}; {}", chain(error), offer::hint(error));
    let offer = offer::offer(offered, &args.socket, tell)
        .map_err(|error| refused(&args.socket, chain(&error), error.hint()))?;
    print_json_line(&Ready { v: 1, repository: number, size })?;
    let mut file = String::new();
    std::io::stdin().lock().read_line(&mut file).map_err(failed("hear what is to be filled".into()))?;
    let Some(file) = file.strip_suffix('\n').map(PathBuf::from) else {
        return Ok(Exit::Fine); // who asked is gone, and has changed nothing
    };
    let log = talk_alone(&args.socket)?;
    let owner = file.metadata().map_err(failed(format!("look at `{}`", file.display())))?.uid();
    offer.give_to(owner).map_err(failed(format!("give `{}` away", args.socket.display())))?;
    wait_for(fill(&file, args))?;
    drop(offer);
    whole(&file)?;
    let _there_is_nothing_to_read = std::fs::remove_file(log);
    Ok(Exit::Fine)
}

/// Whoever started this may end before it does: what it says from now on is kept in a file beside the socket.
fn talk_alone(socket: &Path) -> Result<PathBuf, CliError> {
    let log = socket.with_extension("log");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&log);
    let file = file.map_err(failed(format!("write `{}`", log.display())))?;
    let told = |why: rustix::io::Errno| failed("let go of who started it".into())(why.into());
    let nothing = File::open("/dev/null").map_err(failed("open `/dev/null`".into()))?;
    rustix::stdio::dup2_stderr(&file).map_err(told)?;
    rustix::stdio::dup2_stdout(&file).map_err(told)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(told)?;
    Ok(log)
}

/// Has QEMU copy it, whenever it runs, until the disk says that nothing is missing.
async fn fill(file: &Path, args: &SupplyArgs) -> Result<(), CliError> {
    let backing = format!("{NAME}{}", args.socket.display());
    let bar = ProgressBar::hidden();
    loop {
        match image::backing(file) {
            Ok(named) if named.as_deref() == Some(&backing) => {
                stream::stream(&args.qmp, &[file], args.limit.unwrap_or(0), &bar).await
            }
            Ok(_) => return Ok(()),
            Err(error) => return Err(refused(file, chain(&error), HINT)),
        }
    }
}
