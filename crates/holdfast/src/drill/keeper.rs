//! Takes back what a drill left in when its client is not there to do so, as after a kill -9 of the client.
//!
//! A drill is announced for a time, and its fault may be in only for so long. The keeper lives in the daemon; what
//! was put in by a drill whose client and whose daemon were both killed stays until a person takes it back.

use super::{Aim, Drill};
use crate::decide::{Inbox, Stopping};
use holdfast_core::subject::VmName;
use holdfast_drivers::{Driver, DriverError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often it looks whether an announcement has run out.
const LOOK: Duration = Duration::from_secs(1);
/// What cannot be taken back now, as while the guest boots, is tried again after this, so often.
const AGAIN: Duration = Duration::from_secs(5);
const TRIES: u32 = 60;

/// What the keeper is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// A fault is put in.
    In(Drill, Aim),
    /// A fault was taken back.
    Out(Drill),
}

/// What is in, as far as is known.
struct Kept {
    vm: VmName,
    drill: Drill,
    aim: Aim,
    again: Instant,
    tries: u32,
}

/// Who takes back what nobody else does.
pub struct Keeper {
    driver: Arc<dyn Driver>,
    inbox: Inbox,
    told: mpsc::Receiver<(VmName, Told)>,
    kept: Vec<Kept>,
}

impl Keeper {
    /// A keeper, and where it is told what is in.
    pub fn new(driver: Arc<dyn Driver>, inbox: Inbox) -> (Self, mpsc::Sender<(VmName, Told)>) {
        let (tell, told) = mpsc::channel(16);
        (Self { driver, inbox, told, kept: Vec::new() }, tell)
    }

    /// Keeps watch until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some((vm, told)) = self.told.recv() => self.note(vm, told),
                _ = looks.tick(), if !self.kept.is_empty() => self.look().await,
            }
        }
    }

    fn note(&mut self, vm: VmName, told: Told) {
        let (Told::In(drill, _) | Told::Out(drill)) = told;
        self.kept.retain(|kept| kept.vm != vm || kept.drill.name != drill.name);
        if let Told::In(drill, aim) = told {
            self.kept.push(Kept { vm, drill, aim, again: Instant::now(), tries: 0 });
        }
    }

    async fn look(&mut self) {
        let mut left = Vec::new();
        for mut kept in std::mem::take(&mut self.kept) {
            // Where nobody answers, the daemon stops: nothing more is done.
            if Instant::now() < kept.again || is_announced(&self.inbox, &kept.vm).await.unwrap_or(true) {
                left.push(kept);
                continue;
            }
            let (vm, fault) = (&kept.vm, kept.drill.name);
            match self.take_back(&kept).await {
                Ok(()) => info!(%vm, fault, "a drill's client went away: its fault was taken back"),
                Err(error) => {
                    kept.tries += 1;
                    let cause = crate::act::chain(&error);
                    if kept.tries < TRIES {
                        kept.again = Instant::now() + AGAIN;
                        left.push(kept);
                    } else {
                        warn!(%vm, fault, cause, "the fault of a drill may still be there");
                    }
                }
            }
        }
        self.kept = left;
    }

    async fn take_back(&self, kept: &Kept) -> Result<(), DriverError> {
        for injection in kept.drill.undo(&kept.aim) {
            self.driver.inject(&kept.vm, &injection).await?;
        }
        Ok(())
    }
}

/// Whether a drill is announced for a VM.
pub async fn is_announced(inbox: &Inbox, vm: &VmName) -> Result<bool, Stopping> {
    let asked = vm.clone();
    inbox.look(move |desk| desk.engine.vm(&asked).is_some_and(|vm| vm.in_drill())).await
}
