//! `holdfast backup`: restore points of disk images in a repository. Needs no daemon and no configuration.

mod again;
mod attempt;
mod basis;
mod cat;
mod check;
mod create;
mod disk;
mod du;
mod export;
mod files;
mod fresh;
mod grade;
mod image;
mod instant;
mod key;
mod list;
mod mount;
mod onto;
mod opened;
mod pace;
mod prune;
mod ranges;
mod remote;
mod repair;
mod restore;
mod revert;
mod secret;
mod serve;
mod supply;
mod suspicion;
mod verify;
mod writer;

use super::{CliError, Exit, print_json};
use crate::act::chain;
use crate::place::{self, OpenError, RepositoryPlace};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use holdfast_backup::key::KeyError;
use holdfast_backup::point::Point;
use holdfast_backup::repository::{PointName, Repository, Trouble};
use holdfast_backup::store::Store;
use holdfast_core::written::Marks;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;

/// What can be done with a repository.
#[derive(Subcommand)]
pub enum BackupCommand {
    /// Make a repository, and the key that opens it.
    Init(InitArgs),
    /// Have the daemon make restore points of VMs, running or off, and wait for them.
    Create(create::CreateArgs),
    /// End the backup of a VM that the daemon makes, whoever asked for it.
    Cancel(create::CancelArgs),
    /// Save a disk image as a restore point: only what changed since the last one is written.
    Image(image::ImageArgs),
    /// List the restore points.
    List(list::ListArgs),
    /// Write a disk of a restore point into a new file.
    Restore(restore::RestoreArgs),
    /// Have a VM go back to its backup at once; what it is now is kept as a snapshot.
    Revert(revert::RevertArgs),
    /// Remove the restore points that need not be kept, and what no point needs any more.
    Prune(prune::PruneArgs),
    /// Look whether everything is there that something else tells of; reads little.
    Check(check::CheckArgs),
    /// Make whole what can be made whole, and say what is lost.
    Repair(repair::RepairArgs),
    /// Say what restore points cost.
    Du(du::DuArgs),
    /// Add, list, remove or change the keys that open the repository.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Write a disk of a restore point into a new raw or qcow2 image.
    Export(export::ExportArgs),
    /// Offer a disk of a restore point over NBD, read-only, without restoring it.
    Serve(serve::ServeArgs),
    /// Mount a restore point read-only, its disks as plain files, without restoring it.
    Mount(mount::MountArgs),
    /// List a folder of a restore point, where its file system is ext4, ext3 or ext2.
    Files(files::FilesArgs),
    /// Bring single files or folders of a restore point back as new ones.
    Extract(files::ExtractArgs),
    /// Offer a restore point to whoever is at the other end of standard input.
    #[command(hide = true)]
    Offer(grade::OfferArgs),
    /// State what a trial of a restore point showed.
    #[command(hide = true)]
    Grade(grade::GradeArgs),
    /// Bring a restore point into the disk of a VM that stands on it.
    #[command(hide = true)]
    Supply(supply::SupplyArgs),
    /// Write a disk of a restore point to standard output, read from the page of the format alone.
    Cat(cat::CatArgs),
    /// Read and hash everything, or one restore point, and name what is hurt.
    Verify(verify::VerifyArgs),
}

/// Which repository, and what opens it.
#[derive(Args)]
pub struct RepositoryArgs {
    /// The folder of the repository, or `s3://BUCKET/PREFIX`.
    #[arg(long, env = "HOLDFAST_REPO", value_name = "PLACE", value_parser = place_parser())]
    repo: RepositoryPlace,
    /// The file that holds its key or passphrase; otherwise the key that `backup init` wrote into the
    /// configuration folder of this user.
    #[arg(long, env = "HOLDFAST_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The file with the keys and the endpoint of an S3 store: lines of AWS_... variables, as in the environment, which is asked
    /// otherwise.
    #[arg(long, env = "HOLDFAST_S3_FILE", value_name = "FILE")]
    s3_file: Option<PathBuf>,
}

/// What to make.
#[derive(Args)]
pub struct InitArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which restore point.
#[derive(Args)]
pub struct PointArgs {
    /// The point: `latest`, its number, or `NAME/NUMBER`.
    #[arg(long, value_name = "POINT", default_value = "latest")]
    point: String,
    /// Of this VM or image; needed where the repository has points of several.
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
}

/// Runs one command.
pub fn backup(command: &BackupCommand, place: &super::Place) -> Result<Exit, CliError> {
    match command {
        BackupCommand::Init(args) => init(args),
        BackupCommand::Create(args) => super::wait_for(create::create(&place.client()?, args)),
        BackupCommand::Cancel(args) => super::wait_for(create::end(&place.client()?, args)),
        BackupCommand::Image(args) => image::image(args),
        BackupCommand::List(args) => list::list(args),
        BackupCommand::Prune(args) => prune::prune(args),
        BackupCommand::Restore(args) => restore::restore(args),
        BackupCommand::Revert(args) => super::wait_for(revert::revert(&place.client()?, args)),
        BackupCommand::Check(args) => check::check(args),
        BackupCommand::Repair(args) => repair::repair(args),
        BackupCommand::Du(args) => du::du(args),
        BackupCommand::Key(command) => key::key(command),
        BackupCommand::Export(args) => export::export(args),
        BackupCommand::Serve(args) => serve::serve(args),
        BackupCommand::Mount(args) => mount::mount(args),
        BackupCommand::Files(args) => files::files(args),
        BackupCommand::Extract(args) => files::extract(args),
        BackupCommand::Offer(args) => grade::offer(args),
        BackupCommand::Grade(args) => grade::grade(args),
        BackupCommand::Supply(args) => supply::supply(args),
        BackupCommand::Cat(args) => cat::cat(args),
        BackupCommand::Verify(args) => verify::verify(args),
    }
}

/// Reads a place as it was typed.
fn place_parser() -> impl TypedValueParser<Value = RepositoryPlace> {
    OsStringValueParser::new().try_map(|name| RepositoryPlace::parse(&name))
}

fn init(args: &InitArgs) -> Result<Exit, CliError> {
    let RepositoryArgs { repo, s3_file, key_file } = &args.repository;
    let store = repo.open_new(s3_file.as_deref()).map_err(unopened(repo))?;
    let made = secret::for_new(key_file.as_deref())?;
    let begun = Repository::begin(store, made.bytes(), made.cost()).map_err(troubled(repo))?;
    let id = begun.id();
    let kept = made.keep(id).inspect_err(|_| begun.give_up())?;
    begun.finish().map_err(|error| {
        if let (Trouble::Another, Some(path)) = (&error, &kept) {
            made.forget(path);
        }
        troubled(repo)(error)
    })?;
    if args.json {
        let kept = kept.map(|path| path.to_string_lossy().into_owned());
        print_json(&serde_json::json!({
            "v": 1, "repository": id.to_string(), "repo": repo.to_string(), "key_file": kept,
        }))?;
        return Ok(Exit::Fine);
    }
    say!("repository {id} in {repo}");
    match kept {
        Some(path) => {
            say!("its key is in {}", path.display());
            say!("keep a copy of that file elsewhere: without it nothing can be restored");
        }
        None => say!("it opens with what is in the key file"),
    }
    Ok(Exit::Fine)
}

fn unopened(place: &RepositoryPlace) -> impl Fn(OpenError) -> CliError {
    move |error| CliError::Said {
        error: format!("cannot open the repository `{place}`"),
        cause: error.to_string(),
        hint: error.hint(place),
    }
}

/// Why a repository was not opened.
enum Unopened {
    /// It is not to be had now: a disk that is not mounted, a network that is gone.
    OutOfReach(CliError),
    /// It would be the same later.
    Other(CliError),
}

impl From<Unopened> for CliError {
    fn from(why: Unopened) -> Self {
        match why {
            Unopened::OutOfReach(error) | Unopened::Other(error) => error,
        }
    }
}

impl RepositoryArgs {
    fn store(&self) -> Result<Box<dyn Store>, CliError> {
        self.repo.open(self.s3_file.as_deref()).map_err(unopened(&self.repo))
    }

    fn open(&self) -> Result<Repository, CliError> {
        self.try_open().map_err(CliError::from)
    }

    /// Opens it, or says whether it may be opened later.
    fn try_open(&self) -> Result<Repository, Unopened> {
        let mut repository = self.try_open_unread()?;
        repository.reload().map_err(self.unopened())?;
        self.warn(&repository);
        Ok(repository)
    }

    /// Opens it without its index: for somebody who begins a session, which reads it, or who needs none.
    fn open_unread(&self) -> Result<Repository, CliError> {
        self.try_open_unread().map_err(CliError::from)
    }

    fn try_open_unread(&self) -> Result<Repository, Unopened> {
        let store = self.store().map_err(Unopened::OutOfReach)?;
        let secret = self.secret(&*store)?;
        let repository = Repository::open_unread(store, &secret).map_err(self.unopened())?;
        if let Some(wrong) = repository.head().wrong() {
            say_aside(&format!("{wrong}; `holdfast backup repair` writes it anew"));
        }
        Ok(repository)
    }

    /// What opens it: the key file that is named, or the one of this repository; where what says which it is is damaged, of the one
    /// that its other objects name.
    fn secret(&self, store: &dyn Store) -> Result<Vec<u8>, Unopened> {
        let id = Repository::identify(store).map_err(self.unopened())?;
        secret::of(self.key_file.as_deref(), id).or_else(|error| {
            let others = Repository::told_by_others(store).unwrap_or_default();
            let others = others.into_iter().filter(|other| *other != id && self.key_file.is_none());
            others.into_iter().find_map(|id| secret::of(None, id).ok()).ok_or(Unopened::Other(error))
        })
    }

    fn unopened(&self) -> impl Fn(Trouble) -> Unopened {
        let said = troubled(&self.repo);
        move |trouble| {
            // Where a disk is not mounted, there is a folder with nothing in it.
            let is_away = matches!(trouble, Trouble::Store { .. } | Trouble::None | Trouble::Busy);
            if is_away { Unopened::OutOfReach(said(trouble)) } else { Unopened::Other(said(trouble)) }
        }
    }

    /// Says what of the index cannot be read.
    #[expect(clippy::unused_self, reason = "it is about this repository")]
    fn warn(&self, repository: &Repository) {
        for damaged in repository.damaged() {
            say_aside(&format!(
                "{damaged}: the packs were read instead; `holdfast backup repair` writes it anew"
            ));
        }
    }
}

/// What can be done where there is no room for an object of a hundred bytes.
const FULL: &str = "its disk is full, and nothing was lost; `holdfast backup prune` with what is to be kept (`--keep-last 3`) makes room, and needs \
    a page of it itself: if even that is not there, move away something else that lies on this disk, and nothing of the repository";

fn say_aside(text: &str) {
    super::paint::aside(&format!("{text}\n"));
}

/// What a repository could not do, for people.
fn troubled(place: &RepositoryPlace) -> impl Fn(Trouble) -> CliError {
    let (shown, noun) = (place.to_string(), place.noun());
    move |trouble| {
        let hint = match &trouble {
            Trouble::None => {
                format!("is that the {noun}? `holdfast backup init --repo {shown}` makes a new one")
            }
            Trouble::Another => format!(
                "nothing was changed; name another {noun}, or open that one: if its object `repository` is gone, `holdfast backup repair` puts it back"
            ),
            Trouble::Later => {
                "use that version; if there was none, the object is damaged: move it away, and `holdfast backup repair` puts it back"
                    .into()
            }
            Trouble::Key(KeyError::Gone) => {
                "put back what was in it, from any copy of this repository: without a key object nobody can open it".into()
            }
            Trouble::Key(KeyError::TooMuch { .. }) => {
                "look at the folder `keys` of the repository: move away what you did not put there; or name the right key with `--key-file`".into()
            }
            Trouble::Key(_) => "name the right key with `--key-file`; nothing was changed".into(),
            Trouble::Store { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => FULL.into(),
            Trouble::Store { source, .. } => place::hint(source)
                .unwrap_or("nothing was lost; try again once it can be read and written")
                .into(),
            Trouble::Damaged { .. } | Trouble::Missing(_) | Trouble::Block { .. } => {
                "`holdfast backup repair` says what is lost, and makes whole what can be; other points can be restored"
                    .into()
            }
            Trouble::GivenUp { .. } => {
                "no point was made; try again: what was saved is not saved twice".into()
            }
            Trouble::NoRandom(_) | Trouble::Busy | Trouble::NoSession => "nothing was changed; try again".into(),
        };
        CliError::Said {
            error: format!("the repository `{shown}` cannot be used"),
            cause: chain(&trouble),
            hint,
        }
    }
}

fn failed(what: String) -> impl FnOnce(std::io::Error) -> CliError {
    move |source| CliError::Io { what, source }
}

impl PointArgs {
    /// The point that is meant.
    fn find(&self, repository: &Repository, folder: &RepositoryPlace) -> Result<PointName, CliError> {
        let (of, number) = match self.point.split_once('/') {
            Some((of, number)) => (Some(of), number),
            None => (self.of.as_deref(), &self.point[..]),
        };
        must_be_number(number, &self.point)?;
        of.map_or(Ok(()), must_be_name)?;
        let mut all = repository.points().map_err(troubled(folder))?;
        let names: std::collections::BTreeSet<String> = all.iter().map(|point| point.vm.clone()).collect();
        all.retain(|point| of.is_none_or(|of| of == point.vm));
        let none = |cause: String| CliError::Said {
            error: format!("there is no restore point `{}`", self.point),
            cause,
            hint: format!("`holdfast backup list --repo {folder}` lists them"),
        };
        if let (Some(other), Some(of)) = (self.of.as_ref().filter(|other| Some(&other[..]) != of), of) {
            return Err(CliError::Said {
                error: format!("point `{}` is none of `{other}`", self.point),
                cause: format!("`--point` names one of `{of}`, and `--of` says `{other}`"),
                hint: "name the one that you mean: nothing was read or written".into(),
            });
        }
        if of.is_none() && names.len() > 1 {
            let names: Vec<String> = names.into_iter().collect();
            return Err(none(format!(
                "the repository has points of {}: name one with `--of`",
                names.join(", ")
            )));
        }
        let found = match number {
            "latest" => all.last().cloned(),
            number => {
                let number = number.parse::<u64>();
                all.iter().find(|point| number.as_ref().is_ok_and(|n| *n == point.sequence)).cloned()
            }
        };
        found.ok_or_else(|| none(format!("the repository has {} of that name", all.len())))
    }
}

/// A point is named by its number, or is the latest: what is neither names none.
fn must_be_number(number: &str, point: &str) -> Result<(), CliError> {
    if number == "latest" || number.parse::<u64>().is_ok() {
        return Ok(());
    }
    Err(CliError::Usage {
        error: format!("{} is no restore point", crate::config::quote(point)),
        cause: format!("{} is not a number", crate::config::quote(number)),
        hint: "write `latest`, its number, or `NAME/NUMBER`, as it is listed".into(),
    })
}

/// What can be no name has no points.
fn must_be_name(of: &str) -> Result<(), CliError> {
    if holdfast_backup::point::is_name(of) {
        return Ok(());
    }
    Err(CliError::Usage {
        error: format!("{} is no name of restore points", crate::config::quote(of)),
        cause: "names have up to 63 lower-case letters, digits, `-`, `_` and `.`, which none begins with"
            .into(),
        hint: "write `latest`, its number, or `NAME/NUMBER`, as it is listed".into(),
    })
}

/// What else is kept with a point.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
struct Note {
    /// Bytes that it brought to the repository.
    #[serde(default)]
    added: u64,
    /// The point that it was compared with.
    #[serde(default)]
    parent: Option<String>,
    /// The bitmap that records what is written from this point on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bitmap: Option<String>,
    /// What is other than at that point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<suspicion::Change>,
    /// Why it should be looked at before it is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
    /// What the applications had written by then.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    written: Marks,
}

impl Note {
    fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What somebody else wrote there is nothing to us.
    fn of(point: &Point) -> Self {
        serde_json::from_str(&point.note).unwrap_or_default()
    }
}

/// As people and `--point` write it.
fn shown(point: &PointName) -> String {
    format!("{}/{}", point.vm, point.sequence)
}

/// What of a disk was known of an attempt that was cut off.
fn known_before(count: u64) -> String {
    format!(", {} known of an attempt before it", bytes(count))
}

fn bar(bytes: u64, is_quiet: bool) -> ProgressBar {
    let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new(bytes) };
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}  {elapsed} of about {duration}{msg}",
    ) {
        bar.set_style(style);
    }
    bar
}

/// Runs `work` while the bar shows what `done` counts.
fn watched<T>(bar: &ProgressBar, done: impl Fn() -> u64 + Sync, work: impl FnOnce() -> T) -> T {
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                bar.set_position(done());
                std::thread::park_timeout(std::time::Duration::from_millis(100));
            }
        });
        let ended = work();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        watcher.thread().unpark();
        ended
    })
}

/// Where this user, or the service, keeps what can be made again.
fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = || set("HOME").map(|home| home.join(".cache"));
    let folder = set("CACHE_DIRECTORY") // of a systemd service
        .or_else(|| set("XDG_CACHE_HOME").or_else(own).map(|cache| cache.join("holdfast")));
    folder.map(|folder| folder.join("pieces"))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
