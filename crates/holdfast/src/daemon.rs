//! The daemon: starts sense, decide and act, and stops them in order.
//!
//! It never stops or changes a VM by starting, ending or crashing (I7): VMs are not its children in any way
//! that ends them with it, and what it left undone the next one looks for (I9).

use crate::act::Hands;
use crate::api::{self, Api, ListenError};
use crate::backups::Restorer;
use crate::clock::Clock;
use crate::config::{AppConfig, Config, Origin};
use crate::decide::promises::Promises;
use crate::decide::{Decider, Desk, Inbox};
use crate::drill::Keeper;
use crate::events::Ring;
use crate::journal::OpenError;
use crate::lease::file::FileLeases;
use crate::logbook::Logbook;
use crate::protect::Protector;
use crate::recorder::Recorder;
use crate::reload::{Reloader, Reloads};
use crate::sense::Watching;
use crate::sense::logs::health::Registry;
use crate::sense::logs::{Feeds, Sources};
use crate::sense::numbers::Newest;
use crate::sense::numbers::kept::Kept;
use crate::standing::Standing;
use crate::state::{JOURNAL, JOURNAL_OBSERVE, LEASES, StateError, StateFolder};
use holdfast_core::action::CommandId;
use holdfast_core::engine::Engine;
use holdfast_core::input::{Input, Started};
use holdfast_core::policy::{Mode, Policies};
use holdfast_core::subject::{AppName, VmName};
use holdfast_core::time::Timestamp;
use holdfast_drivers::qemu::{Qemu, QemuVm};
use holdfast_drivers::{Driver, DriverError};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the wall clock is looked at, and by how much it must have moved to be told of, in microseconds.
const WALL_CLOCK_EVERY: Duration = Duration::from_secs(10);
const WALL_CLOCK_MOVED: u64 = 50_000;

/// So long may each of those take to end who were told to.
const ENDS: Duration = Duration::from_secs(3);

/// Why the daemon could not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state folder cannot be used.
    #[error("cannot use the state folder")]
    State(#[from] StateError),
    /// The journal cannot be used.
    #[error("cannot use the journal")]
    Journal(#[from] OpenError),
    /// The driver cannot be used.
    #[error("cannot use QEMU")]
    Driver(#[from] DriverError),
    /// The API cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The runtime, or a thread of the daemon, cannot start.
    #[error("cannot start")]
    Runtime(#[from] std::io::Error),
}

impl DaemonError {
    /// The way out.
    pub fn hint(&self) -> String {
        let hint = match self {
            Self::State(cause) => return cause.hint(),
            Self::Journal(_) => "the journal's folder must be ours and writable; `holdfast doctor` looks",
            Self::Driver(_) => "`holdfast doctor` tells what is missing",
            Self::Listen(_) => "the socket's folder must be ours and writable",
            Self::Runtime(_) => "the machine is short of threads, file descriptors or disk space",
        };
        hint.to_owned()
    }
}

/// Runs until it is told to stop (SIGTERM, SIGINT). SIGHUP has it read its configuration again; in a terminal it
/// means that the terminal is gone, and stops it, too.
pub fn run(config: Config, origin: Origin) -> Result<(), DaemonError> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOLDFAST_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = crate::cli::on_terminal(&std::io::stderr()); // a file is read by people and programs
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(DaemonError::Runtime)?.block_on(serve(config, origin))
}

async fn serve(config: Config, origin: Origin) -> Result<(), DaemonError> {
    let folder = StateFolder::open(&config.state)?;
    let config = Arc::new(config);
    let (recorder, engine, newest, newer) = open_journal(&folder, &config)?;
    let (clock, trouble) = Clock::start(folder.disk(), folder.boot(), newest);
    for trouble in trouble.iter().chain(folder.damage()) {
        warn!(%trouble, "a file of the state folder");
    }
    let qemu = Arc::new(open_qemu(&config, &folder).await?);
    let driver: Arc<dyn Driver> = Arc::clone(&qemu) as Arc<dyn Driver>;
    let (inbox, receiver) = Inbox::new();
    let listener = api::listen(&config.socket)?;
    let stop = CancellationToken::new();
    let (sender, in_force) = tokio::sync::watch::channel(Arc::clone(&config));
    let restorer = Restorer::start(&qemu, &in_force, &stop);
    let hands = hands(&config, &folder, &driver, &restorer, &inbox);
    let mut decider = begin(engine, clock, recorder, hands, &inbox, &config, folder.boot());
    decider.configure(policies(&config, driver.as_ref(), newer));
    info!(host = %config.host, vms = config.vms.len(), socket = %config.socket.display(), "Holdfast runs");
    let (book, inlet) = Logbook::open(&folder, &config, &decider.desk.clock, &inbox, &stop)?;
    let feeds = Feeds { inlet, registry: Registry::default(), clock: decider.desk.clock };
    let (kept, newest) = (Kept::open(folder.path(), config.numbers.keep)?, Newest::new());
    let numbers = (&kept, newest.clone());
    let heard = (&inbox, &feeds, &book.places);
    let watching = Watching::start(&config, &driver, heard, numbers, &decider.desk.clock, &stop);
    let sources = Sources::start(&config, &driver, &feeds, book.places.clone(), &stop);
    let (ours, asked) = (Arc::clone(&qemu), inbox.clone());
    let reloader = Reloader { origin, driver: ours, inbox: asked, watching, sources, config: sender, newer };
    let (reloads, reloading) = reloader.start(stop.clone());
    let points = keep_points(&qemu, &inbox, &in_force, &stop);
    let keeper = keep_drills(&driver, &inbox, &stop);
    follow(&book, &kept, &in_force, &stop);
    let standing = keep_standing(&inbox, &stop);
    let api = Api {
        protector: points.protector,
        inbox: inbox.clone(),
        driver,
        config: in_force,
        reloads: reloads.clone(),
        keeper,
        logs: book.for_readers(),
        numbers: crate::api::numbers::Numbers::new(kept.shelf.clone(), newest),
        sources: feeds.registry,
        standing,
        backups: points.backups,
        proofs: points.proofs,
        restorer,
    };
    let serving = tokio::spawn(api::serve(listener, api, stop.clone()));
    tokio::spawn(obey_signals(stop.clone(), reloads));
    tokio::spawn(watch_wall_clock(decider.desk.clock, inbox.clone(), stop.clone()));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]); // nobody listens outside systemd
    decider.run(receiver, stop.clone()).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    end_all([reloading, serving, points.saving, points.proving]).await;
    keep_what_waits(book, kept).await;
    let _ = std::fs::remove_file(&config.socket);
    info!("Holdfast stops; the VMs run on");
    Ok(())
}

/// Those who carry out.
fn hands(
    config: &Config,
    folder: &StateFolder,
    driver: &Arc<dyn Driver>,
    restorer: &Restorer,
    inbox: &Inbox,
) -> Hands {
    let leases = Arc::new(FileLeases::new(folder.disk(), LEASES));
    let (driver, host) = (Arc::clone(driver), config.host.clone());
    Hands { driver, leases, host, restorer: restorer.clone(), inbox: inbox.clone() }
}

/// Those who look after restore points.
struct PointKeepers {
    protector: Protector,
    backups: crate::backups::Backups,
    proofs: crate::proofs::Proofs,
    saving: tokio::task::JoinHandle<()>,
    proving: tokio::task::JoinHandle<()>,
}

/// Restore points are taken, saved and proved.
fn keep_points(
    qemu: &Arc<Qemu>,
    inbox: &Inbox,
    in_force: &tokio::sync::watch::Receiver<Arc<Config>>,
    stop: &CancellationToken,
) -> PointKeepers {
    let driver: Arc<dyn Driver> = Arc::clone(qemu) as Arc<dyn Driver>;
    let protector = Protector::start(&driver, inbox, in_force, stop);
    let (ours, known) = (Arc::clone(qemu), in_force.clone());
    let (backups, saving) = crate::backups::start(ours, protector.clone(), known, stop.clone());
    let (ours, known) = (Arc::clone(qemu), in_force.clone());
    let (proofs, proving) = crate::proofs::start(ours, protector.clone(), inbox.clone(), known, stop.clone());
    PointKeepers { protector, backups, proofs, saving, proving }
}

/// Drills are taken back when the daemon ends in the middle of one.
fn keep_drills(
    driver: &Arc<dyn Driver>,
    inbox: &Inbox,
    stop: &CancellationToken,
) -> tokio::sync::mpsc::Sender<(VmName, crate::drill::Told)> {
    let (drills, keeper) = Keeper::new(Arc::clone(driver), inbox.clone());
    tokio::spawn(drills.run(stop.clone()));
    keeper
}

/// Since when channels stand as they do.
fn keep_standing(inbox: &Inbox, stop: &CancellationToken) -> Standing {
    let standing = Standing::default();
    tokio::spawn(standing.clone().keep(inbox.clone(), stop.clone()));
    standing
}

/// Stores change with the configuration.
fn follow(
    book: &Logbook,
    kept: &Kept,
    in_force: &tokio::sync::watch::Receiver<Arc<Config>>,
    stop: &CancellationToken,
) {
    tokio::spawn(book.asks.clone().follow(in_force.clone(), stop.clone()));
    tokio::spawn(kept.keeper.clone().follow(in_force.clone(), stop.clone()));
}

/// Waits for the end of those who were told to stop, for a few seconds each: what is left of a backup is cleared by the
/// next daemon.
async fn end_all(tasks: [tokio::task::JoinHandle<()>; 4]) {
    for task in tasks {
        let _ = tokio::time::timeout(ENDS, task).await;
    }
}

/// Writes what logs and numbers still wait to be written, within ten seconds.
async fn keep_what_waits(book: Logbook, kept: Kept) {
    let all = async { tokio::join!(book.ended(), kept.ended()) };
    let _ = tokio::time::timeout(Duration::from_secs(10), all).await;
}

/// The journal, or one beside it if a newer version wrote that (I22); the last value says which.
fn open_journal(
    folder: &StateFolder,
    config: &Config,
) -> Result<(Recorder, Engine, Timestamp, bool), DaemonError> {
    let newer = folder.newer().is_some();
    match Recorder::open(folder, JOURNAL, config.host.clone()) {
        Ok((recorder, engine, newest)) => Ok((recorder, engine, newest, newer)),
        Err(cause @ OpenError::Newer { .. }) => {
            warn!(%cause, "Holdfast only watches; start the newer version to have it act");
            folder.folder(JOURNAL_OBSERVE).map_err(DaemonError::Runtime)?;
            let (recorder, engine, newest) = Recorder::open(folder, JOURNAL_OBSERVE, config.host.clone())?;
            Ok((recorder, engine, newest, true))
        }
        Err(cause) => Err(cause.into()),
    }
}

/// QEMU, with the VMs of the configuration and the commands that it may run in their guests.
async fn open_qemu(config: &Config, folder: &StateFolder) -> Result<Qemu, DriverError> {
    let (run, evidence) = (folder.path().join("run"), folder.path().join("evidence"));
    Qemu::open(specs(config), restarts(config), run, evidence).await
}

/// The VMs as their driver must know them.
pub fn specs(config: &Config) -> Vec<QemuVm> {
    config.vms.values().map(|vm| vm.spec.clone()).collect()
}

/// The commands that restart applications inside their guests.
pub fn restarts(config: &Config) -> BTreeMap<(VmName, AppName), Vec<String>> {
    let restarts = config.vms.iter().flat_map(|(name, vm)| {
        let restart = |(app, config): (&AppName, &AppConfig)| {
            Some(((name.clone(), app.clone()), config.restart.clone()?))
        };
        vm.apps.iter().filter_map(restart)
    });
    restarts.collect()
}

/// What is wanted, with what the driver can do.
pub fn policies(config: &Config, driver: &dyn Driver, newer: bool) -> Policies {
    let mut policies = config.policies();
    for (name, policy) in &mut policies.vms {
        policy.abilities = driver.abilities(name);
        if newer {
            policy.mode = Mode::Observe; // what a newer version left here is not ours to act upon (I22)
        }
    }
    policies
}

/// The loop, with its first inputs: the engine learns that it was started, and what is wanted.
fn begin(
    engine: Engine,
    clock: Clock,
    recorder: Recorder,
    hands: Hands,
    inbox: &Inbox,
    config: &Config,
    boot: &str,
) -> Decider<Hands> {
    let last_command = CommandId(clock.now().as_micros()); // rises over restarts
    let wall_offset = clock.wall_offset();
    let events = Ring::of(&engine);
    let desk = Desk { engine, clock, events, mute: None, promises: Promises::default() };
    let mut decider = Decider::new(desk, recorder, hands, inbox.clone(), last_command);
    let boot = boot.to_owned();
    decider.step(&Input::Started(Started { host: config.host.clone(), boot, wall_offset }));
    decider
}

/// Tells when the wall clock was moved, as by NTP, so that times are shown as people read them.
async fn watch_wall_clock(clock: Clock, inbox: Inbox, stop: CancellationToken) {
    let mut told = clock.wall_offset();
    while stop.run_until_cancelled(tokio::time::sleep(WALL_CLOCK_EVERY)).await.is_some() {
        let offset = clock.wall_offset();
        if offset.abs_diff(told) > WALL_CLOCK_MOVED {
            let _ = inbox.send(Input::WallClock { offset }).await; // stopping: nobody needs it any more
            told = offset;
        }
    }
}

async fn obey_signals(stop: CancellationToken, reloads: Reloads) {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut term), Ok(mut int), Ok(mut hangup)] = kinds else {
        warn!("cannot listen for signals: only kill -9 ends this daemon, which harms no VM");
        return;
    };
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hangup.recv() => {
                if std::io::stdin().is_terminal() {
                    break; // the terminal it was started in was closed
                }
                drop(reloads.ask("SIGHUP").await); // what came of it is in the log
            }
        }
    }
    stop.cancel();
}
