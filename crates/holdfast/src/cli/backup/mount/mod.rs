//! `holdfast backup mount`: a restore point as plain files, read where they are asked for. Nothing is restored, and nothing can
//! be written to it.

mod place;
mod tree;

use super::{PointArgs, RepositoryArgs, bytes, disk, list, say_aside, shown, threads, troubled};
use crate::act::chain;
use crate::backups::offer::{self, Heard, READ_AGAIN, Told};
use crate::cli::{CliError, Exit, print_json_line, wait_for};
use clap::Args;
use fuser::{Config, Session, SessionACL};
use holdfast_backup::block::BLOCK;
use holdfast_backup::id::BlockId;
use holdfast_backup::offered::Offered;
use holdfast_backup::point::{Disk, PAGE};
use holdfast_backup::proof;
use place::{Left, Mounted, PlaceError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tree::{Content, File, Tree};

/// Bytes of blocks that are kept in memory, for all disks together.
const MOST: usize = 64 << 20;
/// So many answer at least: one that waits for the repository keeps nobody else waiting.
const THREADS_LEAST: usize = 4;
/// The file that tells what is known of the point.
const ABOUT: &str = "point.json";

/// What to mount, and where.
#[derive(Args)]
pub struct MountArgs {
    /// The folder: it must be there, and empty.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    point: PointArgs,
    /// Only this disk; all, if none is named.
    #[arg(long, value_name = "DISK")]
    disk: Option<String>,
    /// Other users may read it, too: what a guest wrote is theirs to see then.
    #[arg(long)]
    allow_other: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is mounted.
struct Meant {
    /// The point, as people write it.
    id: String,
    disks: Vec<Disk>,
    tree: Tree,
}

/// Mounts it until it is told to end, or unmounted by somebody.
pub fn mount(args: &MountArgs) -> Result<Exit, CliError> {
    let refused = |error: &PlaceError| CliError::Said {
        error: format!("cannot mount a restore point at `{}`", args.folder.display()),
        cause: chain(error),
        hint: error.hint(),
    };
    let cleared = || say_aside("what a command that was killed left there was unmounted");
    let folder = place::free(&args.folder, cleared).map_err(|error| refused(&error))?;
    let Meant { id, disks, tree } = meant(args)?;
    wait_for(async {
        let asked = |source| CliError::Io { what: "listen to signals".into(), source };
        let interrupt = signal(SignalKind::interrupt()).map_err(asked)?;
        let terminate = signal(SignalKind::terminate()).map_err(asked)?;
        let (device, mounted) =
            place::mount(&folder, &id, args.allow_other).map_err(|error| refused(&error))?;
        let session = Session::from_fd(tree, device, access(args), config());
        let session = session.map_err(|source| refused(&PlaceError::Kernel(source)))?;
        let (ended, over) = oneshot::channel();
        // A thread that nobody waits for: it ends when nothing is mounted any more.
        std::thread::spawn(move || drop(ended.send(session.run())));
        tell(args, &folder, &id, &disks).inspect_err(|_| drop(mounted.end()))?;
        end(&mounted, over, [interrupt, terminate]).await
    })
}

fn access(args: &MountArgs) -> SessionACL {
    if args.allow_other { SessionACL::All } else { SessionACL::Owner }
}

fn config() -> Config {
    let mut config = Config::default();
    config.n_threads = Some(threads().max(THREADS_LEAST));
    config
}

/// Finds the point and its disks, which share the repository and what is kept in memory.
fn meant(args: &MountArgs) -> Result<Meant, CliError> {
    let (repository, folder) = (args.repository.open()?, &args.repository.repo);
    let name = args.point.find(&repository, folder)?;
    let point = repository.point(&name).map_err(troubled(folder))?;
    let id = shown(&name);
    let first = disk::named(&point, args.disk.as_deref(), &id)?.clone();
    let standing = proof::standing(&repository, &name).unwrap_or_default();
    let about = serde_json::to_string_pretty(&list::doc(&name, Some(&point), &standing)).unwrap_or_default();
    let disks = if args.disk.is_some() { vec![first.clone()] } else { point.disks };
    let offered = Offered::new(repository, first, MOST);
    let mut files: Vec<File> =
        disks.iter().map(|disk| file(&id, disk, offered.beside(disk.clone()))).collect();
    let about = (about + "\n").into_bytes();
    files.push(File { name: ABOUT.into(), stored: about.len() as u64, content: Content::Text(about) });
    let taken = UNIX_EPOCH + Duration::from_micros(u64::try_from(point.taken).unwrap_or_default());
    Ok(Meant { id, disks, tree: Tree::new(files, taken, args.allow_other) })
}

fn file_name(disk: &Disk) -> String {
    format!("{}.raw", disk.name)
}

fn file(id: &str, disk: &Disk, offered: Offered) -> File {
    let (id, name) = (id.to_owned(), disk.name.clone());
    let tell = move |heard: &Heard<'_>| match heard {
        Heard::Failed(error) => say_aside(&format!(
            "point {id}, disk {name}: {}; who read it was told of an input/output error, as for all that follow. {}",
            chain(error),
            offer::hint(error)
        )),
        Heard::Again => say_aside(&format!("point {id}, disk {name}: {READ_AGAIN}")),
    };
    let pages = disk.pages.iter().filter(|page| **page != BlockId::HOLE).count();
    let stored = disk.size.min((pages * PAGE * BLOCK) as u64);
    File { name: file_name(disk), content: Content::Disk(Told::new(offered, tell)), stored }
}

/// Says where it is, and how it ends.
fn tell(args: &MountArgs, folder: &Path, id: &str, disks: &[Disk]) -> Result<(), CliError> {
    let path = folder.display();
    if args.json {
        let file = |disk| folder.join(file_name(disk)).to_string_lossy().into_owned();
        let disks: Vec<_> = disks
            .iter()
            .map(|disk| serde_json::json!({ "disk": disk.name, "size": disk.size, "file": file(disk) }))
            .collect();
        return print_json_line(
            &serde_json::json!({ "v": 1, "id": id, "path": folder.to_string_lossy(), "disks": disks }),
        );
    }
    let files: Vec<String> =
        disks.iter().map(|disk| format!("{} ({})", file_name(disk), bytes(disk.size))).collect();
    say!("point {id} is mounted read-only at {path}: {}, {ABOUT}", files.join(", "));
    say!("it ends at Ctrl-C, or at `umount {path}`");
    Ok(())
}

/// How serving it ended. Of one that is unmounted, whoever waits for the next request is told that there is no device any more; but
/// who was just being handed one (of the last file that is closed, say), that the connection was aborted (`fuse_dev_do_read` of
/// Linux' fs/fuse/dev.c). Both are the end that was wanted: while it is mounted, neither is told.
fn is_over(ended: io::Result<()>) -> io::Result<()> {
    ended.or_else(|error| if error.kind() == io::ErrorKind::ConnectionAborted { Ok(()) } else { Err(error) })
}

/// Waits until nothing is mounted any more: somebody unmounted it, or one of the signals came.
async fn end(
    mounted: &Mounted,
    mut over: oneshot::Receiver<io::Result<()>>,
    [mut interrupt, mut terminate]: [Signal; 2],
) -> Result<Exit, CliError> {
    let mut is_asked = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut over => {
                let failed = |source| CliError::Io { what: "go on serving the mount".into(), source };
                let ended = ended.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
                return is_over(ended).map(|()| Exit::Fine).map_err(failed);
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if is_asked {
            return Ok(Exit::Fine); // whoever still reads is told of an error
        }
        is_asked = true;
        let again = "Ctrl-C once more ends it at once";
        match mounted.end() {
            Ok(Left::Gone) => {}
            Ok(Left::Used) => {
                say_aside(&format!(
                    "it is in use: it is unmounted, and served until its last file is closed; {again}"
                ));
            }
            Err(error) => say_aside(&format!("it cannot be unmounted: {}; {again}", chain(&error))),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_ends_while_a_request_is_handed_over_has_ended_well() {
        let told = |error: rustix::io::Errno| is_over(Err(error.into()));
        assert!(is_over(Ok(())).is_ok() && told(rustix::io::Errno::CONNABORTED).is_ok());
        assert_eq!(told(rustix::io::Errno::IO).unwrap_err().raw_os_error(), Some(5));
    }
}
