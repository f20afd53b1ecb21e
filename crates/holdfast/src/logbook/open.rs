//! The logbook of a daemon: opened, fed with what the engine knows, and closed.

use super::inlet::{Inlet, SourceName};
use super::intake::{Asks, Circumstances, Finding, Intake};
use super::store::{Owner, Room, Shelf, Store};
use super::witness;
use crate::api::logs::Logs;
use crate::clock::Clock;
use crate::config::{Config, LogsConfig};
use crate::decide::Inbox;
use crate::sense::logs::Places;
use crate::state::StateFolder;
use holdfast_core::engine::Engine;
use holdfast_core::input::Input;
use holdfast_core::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// How often it is asked which incidents are open and which VMs run.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An incident counts as open for so long after it was closed: whoever reads late, or asks after a short one, must not
/// miss it.
const LINGER: Duration = Duration::from_secs(5);

/// The logbook at work.
pub struct Logbook {
    /// Where it is asked.
    pub asks: Asks,
    /// Where sources go on, as of the start.
    pub places: Places,
    inlet: Inlet,
    shelf: Shelf,
    thread: std::thread::JoinHandle<()>,
}

impl From<LogsConfig> for Room {
    fn from(config: LogsConfig) -> Self {
        Self { keep: config.keep, keep_for: config.keep_for }
    }
}

impl Logbook {
    /// Opens it, and starts to take records in. What is wrong with the file is told, and stops nothing (I7).
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn open(
        folder: &StateFolder,
        config: &Config,
        clock: &Clock,
        inbox: &Inbox,
        stop: &CancellationToken,
    ) -> std::io::Result<(Self, Inlet)> {
        let (inlet, outlet) = Inlet::new();
        let store = Store::open(folder.path(), config.logs.into());
        let shelf = store.shelf();
        let places = places(&shelf);
        let (circumstances, seen) = watch::channel(Circumstances::default());
        tokio::spawn(look(inbox.clone(), circumstances, stop.clone()));
        let intake =
            Intake { store, outlet, clock: *clock, circumstances: seen, tell: Box::new(tell(inbox.clone())) };
        let (asks, thread) = intake.start(stop.clone())?;
        let writer = inlet.clone();
        Ok((Self { asks, places, inlet: writer, shelf, thread }, inlet))
    }

    /// For those who read.
    pub fn for_readers(&self) -> Logs {
        Logs::new(self.shelf.clone(), self.asks.clone(), self.inlet.clone())
    }

    /// Waits until everything is written, once it was told to stop.
    pub async fn ended(self) {
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

/// Where sources go on: behind their last records that were kept.
fn places(shelf: &Shelf) -> Places {
    let kept = shelf.places().unwrap_or_else(|error| {
        warn!(%error, "sources of logs begin anew: where they were cannot be read");
        Vec::new()
    });
    let kept = kept.into_iter().map(|(owner, source, place)| ((owner, source), place));
    let kept: BTreeMap<(Owner, SourceName), Arc<str>> = kept.collect();
    Arc::new(move |subject, source| {
        kept.get(&(Owner::of(subject), source.clone())).map(|place| (**place).to_owned())
    })
}

impl Asks {
    /// Follows the configuration: how much is kept.
    pub async fn follow(self, mut config: watch::Receiver<Arc<Config>>, stop: CancellationToken) {
        while let Some(Ok(())) = stop.run_until_cancelled(config.changed()).await {
            let room = config.borrow_and_update().logs.into();
            self.set_room(room).await;
        }
    }
}

/// Tells the engine what is evidence. It never waits: a finding for which there is no room is kept all the same.
fn tell(inbox: Inbox) -> impl FnMut(Finding) {
    move |finding| {
        if let Some(signal) = witness::testify(&finding)
            && !inbox.offer(Input::Signal(signal))
        {
            debug!(source = %finding.source, number = finding.number, "a finding found no room on its way to the engine");
        }
    }
}

/// Keeps asking which incidents are open, and which VMs run.
async fn look(inbox: Inbox, circumstances: watch::Sender<Circumstances>, stop: CancellationToken) {
    let mut ticker = tokio::time::interval(LOOK_EVERY);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticker.tick()).await.is_some() {
        let Ok(now) = inbox.look(|desk| seen(&desk.engine, desk.clock.now())).await else { return };
        circumstances.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
    }
}

fn seen(engine: &Engine, now: Timestamp) -> Circumstances {
    let open = engine.incidents().filter(|incident| now.since(incident.open_until(now)) < LINGER);
    let stopped = engine.vms().filter(|(_, vm)| vm.current_incarnation().is_none());
    Circumstances {
        troubled: open.map(|incident| Owner::of(&incident.subject)).collect(),
        off: stopped.map(|(name, _)| name.clone()).collect(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_core::input::Started;
    use holdfast_core::signal::{HostSign, Seen, Signal};
    use holdfast_core::subject::Subject;

    /// An engine that was told of a disk of its host with so much free, each second from then until then.
    fn see_disk(engine: &mut Engine, seconds: std::ops::Range<u64>, free: u64) {
        for second in seconds {
            let at = Timestamp::from_secs(second);
            let seen = Seen::Host(HostSign::Disk {
                path: "/vms".into(),
                free,
                total: 1 << 40,
                latency: Some(Duration::ZERO),
            });
            let signal =
                Signal { subject: Subject::Host("atlas".parse().unwrap()), incarnation: None, at, seen };
            let _ = engine.step(at, &Input::Signal(signal));
        }
    }

    #[test]
    fn an_incident_is_not_missed_though_it_was_closed_before_anybody_looked() {
        let mut engine = Engine::new();
        let started = Started { host: "atlas".parse().unwrap(), boot: "boot".into(), wall_offset: 0 };
        let _ = engine.step(Timestamp::from_secs(1), &Input::Started(started));
        let troubled = |engine: &Engine, second| {
            seen(engine, Timestamp::from_secs(second)).troubled.contains(&Owner::Host)
        };
        see_disk(&mut engine, 2..20, 1 << 39);
        assert!(!troubled(&engine, 19));
        see_disk(&mut engine, 20..30, 0);
        assert!(troubled(&engine, 29), "it is open");
        see_disk(&mut engine, 30..31, 1 << 39);
        assert!(engine.incidents().all(holdfast_core::incident::Incident::is_closed));
        assert!(troubled(&engine, 32) && !troubled(&engine, 36));
    }
}
