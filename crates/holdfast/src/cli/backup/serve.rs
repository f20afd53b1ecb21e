//! `holdfast backup serve`: a disk of a restore point, offered over NBD and read where it is asked for. Nothing is restored, and
//! nothing can be written to it.

use super::disk::{DiskArgs, Meant};
use super::say_aside;
use crate::act::chain;
use crate::backups::offer::{self, Heard, Offer, READ_AGAIN};
use crate::cli::{CliError, Exit, print_json_line, wait_for};
use clap::Args;
use holdfast_backup::offered::Offered;
use std::io;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Bytes of blocks that are kept in memory.
const MOST: usize = 64 << 20;

/// What to offer.
#[derive(Args)]
pub struct ServeArgs {
    #[command(flatten)]
    of: DiskArgs,
    /// The Unix socket to make, in a folder that is there; only you may open it.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// End when standard input does, too: with the program that holds it open.
    #[arg(long, hide = true)]
    until_input_ends: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Offers it until it is told to end.
pub fn serve(args: &ServeArgs) -> Result<Exit, CliError> {
    let Meant { repository, point: id, disk } = args.of.open()?;
    let disk_name = disk.name.clone();
    let disk = Offered::new(repository, disk, MOST);
    let size = disk.size();
    wait_for(async {
        let asked = |source| CliError::Io { what: "listen to signals".into(), source };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(asked)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(asked)?;
        let offer = offered(disk, &args.socket, &id)?;
        if args.json {
            print_json_line(&serde_json::json!({
                "v": 1, "id": id, "disk": disk_name, "size": size, "url": offer.uri(),
                "socket": offer.path().to_string_lossy(),
            }))?;
        } else {
            say!("{}", offer.uri());
        }
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = input_ends(args.until_input_ends) => {}
        }
        Ok(Exit::Fine)
    })
}

fn offered(disk: Offered, socket: &Path, id: &str) -> Result<Offer, CliError> {
    let point = id.to_owned();
    let tell = move |heard: &Heard<'_>| match heard {
        Heard::Failed(error) => say_aside(&format!(
            "point {point}: {}; the client was told of an input/output error, as for all that follow. {}",
            chain(error),
            offer::hint(error)
        )),
        Heard::Again => say_aside(&format!("point {point}: {READ_AGAIN}")),
    };
    offer::offer(disk, socket, tell).map_err(|error| CliError::Said {
        error: format!("cannot offer point {id}"),
        cause: chain(&error),
        hint: error.hint().into(),
    })
}

/// Returns when nobody holds standard input open any more; never if that is not asked for.
async fn input_ends(is_asked: bool) {
    if !is_asked {
        return std::future::pending().await;
    }
    let (ended, heard) = oneshot::channel();
    // A thread that nobody waits for: a read of standard input cannot be given up.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = ended.send(());
    });
    let _ = heard.await;
}
