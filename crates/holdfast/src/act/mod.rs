//! Actions -> the world. Every action ends with exactly one outcome, by its deadline.
//!
//! Never decides, and never repeats: what is not known to be done is reported as unknown (I9).

use crate::backups::Restorer;
use crate::decide::{Actors, Desk, Inbox};
use crate::lease::{LeaseError, LeaseStore};
use holdfast_core::action::{Action, Ended, Fact, Found, Order, Outcome, Rewind};
use holdfast_core::input::Input;
use holdfast_core::lease::{DeathProof, Lease};
use holdfast_core::point::PointId;
use holdfast_core::subject::{HostName, VmName};
use holdfast_drivers::{Driver, DriverError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Those who carry out, on this host.
#[derive(Clone)]
pub struct Hands {
    /// The hypervisor.
    pub driver: Arc<dyn Driver>,
    /// Who may run what.
    pub leases: Arc<dyn LeaseStore>,
    /// This host.
    pub host: HostName,
    /// Brings backups back.
    pub restorer: Restorer,
    /// Where outcomes go.
    pub inbox: Inbox,
}

impl Actors for Hands {
    fn start(&self, actions: Vec<Action>, desk: &Desk) {
        let now = desk.clock.now();
        for action in actions {
            let (hands, limit) = (self.clone(), action.deadline.since(now));
            tokio::spawn(async move { hands.carry_out(action, limit).await });
        }
    }
}

impl Hands {
    async fn carry_out(&self, action: Action, limit: Duration) {
        let order = action.order.name();
        let ended = match tokio::time::timeout(limit, self.perform(&action, limit)).await {
            Ok(ended) => ended,
            Err(_) => Ended::Unknown { why: format!("{order} did not end within {limit:?}") },
        };
        match &ended {
            Ended::Done(_) => info!(action = action.id.0, vm = %action.vm, order, "done"),
            Ended::Failed { why } | Ended::Blocked { why } | Ended::DiskGone { why } => {
                warn!(action = action.id.0, vm = %action.vm, order, why, "failed")
            }
            Ended::Unknown { why } => warn!(action = action.id.0, vm = %action.vm, order, why, "not known"),
        }
        let outcome = Input::Outcome(Outcome { action: action.id, ended });
        if self.inbox.send(outcome).await.is_err() {
            info!(action = action.id.0, "the daemon is stopping; the next one looks what became of this");
        }
    }

    async fn perform(&self, action: &Action, limit: Duration) -> Ended {
        match &action.order {
            Order::Inspect => self.inspect(action, limit).await,
            Order::TakeLease { proof } => match self.leases.take(proof, &self.host).await {
                Ok(lease) => Ended::Done(Fact::Leased(lease)),
                Err(cause) => lease_error(&cause),
            },
            Order::Adopt { seen } => match self.leases.adopt(&action.vm, *seen, &self.host).await {
                Ok(lease) => Ended::Done(Fact::Leased(lease)),
                Err(cause) => lease_error(&cause),
            },
            Order::ReleaseLease { proof } => match self.leases.release(proof).await {
                Ok(()) => Ended::Done(Fact::Nothing),
                Err(cause) => lease_error(&cause),
            },
            Order::Reach { to } => self.reach(&action.vm, *to).await.unwrap_or_else(|ended| ended),
            Order::Rewind { proof, to: Rewind { to: PointId::Backup { backup }, .. } } => {
                self.restorer.restore(&action.vm, proof, *backup, limit).await
            }
            Order::Start { lease } => {
                let begun = Instant::now();
                let supplied = self.restorer.supply_start(&action.vm).await;
                let left = limit.saturating_sub(begun.elapsed());
                match supplied {
                    Ok(()) => ended(self.driver.perform(&action.vm, &action.order, left).await),
                    Err(ended) => {
                        self.use_up(lease, left).await;
                        ended
                    }
                }
            }
            Order::Capture { .. } | Order::Perform { .. } | Order::PowerOff { .. } | Order::Rewind { .. } => {
                ended(self.driver.perform(&action.vm, &action.order, limit).await)
            }
        }
    }

    /// Whether a VM that runs could start again once it has ended. What it lacks besides a disk or a point is waited for, as
    /// nothing else would start it either.
    ///
    /// # Errors
    /// How this ends if it could not.
    async fn reach(&self, vm: &VmName, to: Option<Rewind>) -> Result<Ended, Ended> {
        let lacks = |why: String| Ended::Blocked { why: format!("it would not start again: {why}") };
        self.driver.may_start(vm).await.map_err(|cause| lacks(why(cause)))?;
        let from = match to.map(|to| to.to) {
            Some(PointId::Backup { backup }) => return Ok(self.restorer.reach(vm, backup).await),
            Some(PointId::Snapshot(id)) => Some(id),
            None => None,
        };
        let disk = match (to, self.driver.snapshots()) {
            (Some(to), Some(snapshots)) => snapshots.may_rewind(vm, to).await,
            _ => self.driver.may_restart(vm).await,
        };
        let failed = |cause| Ended::Failed { why: format!("it would not start again: {}", why(cause)) };
        disk.map_err(failed)?;
        self.restorer.may_start(vm, from).await.map_err(lacks)?;
        Ok(Ended::Done(Fact::Nothing))
    }

    /// What the driver sees, with what the lease store knows.
    async fn inspect(&self, action: &Action, limit: Duration) -> Ended {
        let mut found = self.driver.inspect(&action.vm).await;
        if let Ok(Found::Dead(proof)) = &found
            && self.is_behind(proof, limit).await
        {
            found = self.driver.inspect(&action.vm).await;
        }
        let found = match found {
            Ok(found) => found,
            Err(cause) => return Ended::Failed { why: chain(&cause) },
        };
        let Found::Running { seen, pid, state, .. } = found else {
            return Ended::Done(Fact::Found(found));
        };
        match self.leases.read(&action.vm).await {
            Ok(lease) => Ended::Done(Fact::Found(Found::Running { seen, pid, state, lease })),
            Err(cause) => Ended::Failed { why: chain(&cause) },
        }
    }

    /// Whether the driver of a dead VM did not know of leases that were given to this host since: starts that were refused, or given
    /// up, before they came to it. The newest of them is used up there, or none would be given any more: one follows a death (I2).
    async fn is_behind(&self, dead: &DeathProof, limit: Duration) -> bool {
        let Ok(Some(newest)) = self.leases.newest(dead.vm()).await else { return false };
        let is_behind = newest.incarnation() > dead.incarnation() && *newest.holder() == self.host;
        if is_behind {
            self.use_up(&newest, limit).await;
        }
        is_behind
    }

    /// Nothing was, or will be, started under this lease.
    async fn use_up(&self, lease: &Lease, limit: Duration) {
        if let Err(error) = self.driver.refuse_start(lease.vm(), lease, limit).await {
            let (vm, error) = (lease.vm(), chain(&error));
            warn!(%vm, error, "a start that was refused is not on record");
        }
    }
}

fn lease_error(cause: &LeaseError) -> Ended {
    let why = format!("{}; {}", chain(cause), cause.hint());
    if matches!(cause, LeaseError::Ended) { Ended::Unknown { why } } else { Ended::Failed { why } }
}

fn ended(result: Result<Fact, DriverError>) -> Ended {
    match result {
        Ok(fact) => Ended::Done(fact),
        Err(cause) if cause.is_unknown() => Ended::Unknown { why: chain(&cause) },
        Err(cause @ DriverError::Blocked { .. }) => Ended::Blocked { why: chain(&cause) },
        Err(cause @ DriverError::DiskGone { .. }) => Ended::DiskGone { why: chain(&cause) },
        Err(cause) => Ended::Failed { why: chain(&cause) },
    }
}

/// Why a driver would not, where it says so; else all of its error.
pub fn why(error: DriverError) -> String {
    if let DriverError::Refused { why, .. } = error { why } else { chain(&error) }
}

/// The causes of an error, as one sentence.
pub fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| "nobody knows".to_owned(), chain)
}

/// An error with its causes, as one sentence.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
