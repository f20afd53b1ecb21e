//! What the daemon has its own child do when a backup takes the place of a disk: offer it beside the disk, and have QEMU copy
//! it into the disk, until nothing of it is missing any more. It outlives the daemon.

use super::instant::{checked, refused, stream, whole};
use super::{PointArgs, RepositoryArgs, Unopened, failed, shown, troubled};
use crate::act::chain;
use crate::backups::offer::{self, Heard, Offer, READ_AGAIN, UNREAD};
use crate::backups::{OutOfReach, Ready};
use crate::cli::{CliError, Exit, print_json_line, wait_for};
use clap::Args;
use holdfast_backup::repository::Repository;
use holdfast_drivers::qemu::image;
use holdfast_drivers::qemu::offered::NAME;
use holdfast_drivers::qemu::snapshot::is_in_use;
use indicatif::ProgressBar;
use std::fs::{File, OpenOptions};
use std::io::BufRead;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const HINT: &str = "the daemon tries it again; what the disk has of the backup stays";

/// So often it is looked whether somebody needs it still ...
const LOOK: Duration = Duration::from_secs(5);
/// ... and after so many looks in a row that found nobody it ends.
const LOOKS: u32 = 3;

/// What to bring, and where to.
#[derive(Args)]
pub struct SupplyArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    point: PointArgs,
    /// Where the disk expects it. Without one it is only seen whether it could be brought.
    #[arg(long, value_name = "PATH", requires = "qmp")]
    socket: Option<PathBuf>,
    /// The control socket of the VM.
    #[arg(long, value_name = "PATH", requires = "socket")]
    qmp: Option<PathBuf>,
    /// Bring so much in a second at most, as `50MiB/s`.
    #[arg(long, value_name = "RATE", value_parser = super::pace::rate)]
    limit: Option<u64>,
}

/// Offers it, says so, hears which file is to be filled, and stays until it is, or until nobody needs that any more.
pub fn supply(args: &SupplyArgs) -> Result<Exit, CliError> {
    let (repository, folder) = (opened(&args.repository)?, &args.repository.repo);
    let name = args.point.find(&repository, folder)?;
    let point = repository.point(&name).map_err(troubled(folder))?;
    let disk = super::disk::named(&point, None, &shown(&name))?.clone();
    let (number, size) = (repository.id().to_string(), disk.size);
    let (Some(socket), Some(qmp)) = (&args.socket, &args.qmp) else {
        print_json_line(&Ready { v: 1, repository: number, size })?;
        return Ok(Exit::Fine);
    };
    let offered = checked(repository, disk, socket)?;
    let tell = |heard: &Heard<'_>| match heard {
        Heard::Failed(error) => eprintln!("{UNREAD}{}; {}", chain(error), offer::hint(error)),
        Heard::Again => eprintln!("{READ_AGAIN}"),
    };
    let offer =
        offer::offer(offered, socket, tell).map_err(|error| refused(socket, chain(&error), error.hint()))?;
    print_json_line(&Ready { v: 1, repository: number, size })?;
    let mut file = String::new();
    std::io::stdin().lock().read_line(&mut file).map_err(failed("hear what is to be filled".into()))?;
    let Some(file) = file.strip_suffix('\n').map(PathBuf::from) else {
        return Ok(Exit::Fine); // who asked is gone, and has changed nothing
    };
    let log = talk_alone(socket)?;
    eprintln!("it is offered"); // what was said before, by one that was killed, is over
    let owner = file.metadata().map_err(failed(format!("look at `{}`", file.display())))?.uid();
    offer.give_to(owner).map_err(failed(format!("give `{}` away", socket.display())))?;
    let filled = wait_for(async {
        tokio::select! {
            filled = fill(&file, (socket, qmp), args.limit.unwrap_or(0)) => filled.map(|()| true),
            () = left(&file, &offer) => Ok(false),
        }
    })?;
    drop(offer);
    if filled {
        whole(&file)?;
    }
    let _there_is_nothing_to_read = std::fs::remove_file(log);
    Ok(Exit::Fine)
}

/// Opens the repository; where it may be in reach later, whoever asked is told that.
fn opened(repository: &RepositoryArgs) -> Result<Repository, CliError> {
    let opened = repository.try_open();
    if let Err(Unopened::OutOfReach(_)) = &opened {
        print_json_line(&OutOfReach { v: 1, out_of_reach: true })?;
    }
    Ok(opened?)
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
async fn fill(file: &Path, (socket, qmp): (&Path, &Path), limit: u64) -> Result<(), CliError> {
    let backing = format!("{NAME}{}", socket.display());
    let bar = ProgressBar::hidden();
    loop {
        match image::backing(file) {
            Ok(named) if named.as_deref() == Some(&backing) => {
                stream::stream(qmp, &[file], limit, &bar).await
            }
            Ok(_) => return Ok(()),
            Err(error) => return Err(refused(file, chain(&error), HINT)),
        }
    }
}

/// Returns once the disk of the VM has stood on other files for a while, as after it went back to a snapshot, and nobody is there who
/// reads. Whoever goes back to this disk has it offered again. What cannot be told is needed.
async fn left(file: &Path, offer: &Offer) {
    let mut looks = 0;
    while looks < LOOKS {
        tokio::time::sleep(LOOK).await;
        let is_left = is_in_use(file) == Some(false) && !offer.has_clients();
        looks = if is_left { looks + 1 } else { 0 };
    }
}
