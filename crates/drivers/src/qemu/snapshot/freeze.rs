//! A guest whose file systems are frozen for a moment, and never for longer (I16).

use super::super::agent::{Agent, AgentError, Session};
use super::super::machine::{Machine, error_chain};
use crate::{DriverError, FREEZE};
use std::fs::File;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Frozen for so long at most, from the order on (`T_FREEZE_MAX`, I16).
pub const FREEZE_MOST: Duration = Duration::from_secs(5);
/// How long the agent may take to listen before anything is frozen.
const LISTEN: Duration = Duration::from_secs(3);
/// How long one try to thaw may take.
const THAW: Duration = Duration::from_secs(2);
/// How long it is tried. A guest that stays frozen after that is found as any frozen guest is, also by a daemon that was
/// restarted, and thawed as that fault's remedy.
const THAW_FOR: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_millis(100);
/// A guest that is not thawed yet is told of so often.
const TELL: Duration = Duration::from_secs(10);

/// Does something while the guest's file systems are frozen, and thaws them until the guest says that they are. It is
/// done to its end even if nobody waits for it any more.
///
/// # Errors
/// The guest was not frozen, and nothing was done; or it was not done in time; or the guest cannot be thawed.
pub async fn frozen<T, W>(machine: Arc<Machine>, work: W) -> Result<T, DriverError>
where
    T: Send + 'static,
    W: Future<Output = Result<T, DriverError>> + Send + 'static,
{
    let name = machine.name.clone();
    let task = tokio::spawn(async move { freeze_and_thaw(&machine, work).await });
    let lost = |error: tokio::task::JoinError| DriverError::Unknown {
        what: FREEZE,
        vm: name,
        why: error.to_string(),
    };
    task.await.map_err(lost)?
}

async fn freeze_and_thaw<T>(
    machine: &Machine,
    work: impl Future<Output = Result<T, DriverError>>,
) -> Result<T, DriverError> {
    let listens = Instant::now() + LISTEN;
    let (_turn, session) = machine.agent_session(FREEZE, LISTEN, listens).await?;
    let lives = || machine.running().is_ok();
    let mark = machine.folder.frozen();
    let marked = File::create(&mark).and_then(|file| file.sync_all());
    marked.map_err(|e| machine.refused(FREEZE, format!("cannot note it in {}: {e}", mark.display())))?;
    let done = while_frozen(&machine.agent, session, FREEZE_MOST, work, lives).await;
    if !matches!(done, Err(FreezeError::NotThawed(_))) {
        unmark(machine);
    }
    match done {
        Ok(done) => done,
        Err(FreezeError::NotFrozen(error)) => Err(machine.refused(FREEZE, error_chain(&error))),
        Err(FreezeError::Late(most)) => Err(machine.late("what was to be done while frozen", most)),
        Err(error @ FreezeError::NotThawed(_)) => {
            let why = error_chain(&error);
            tracing::error!(vm = %machine.name, why, "the guest's file systems may still be frozen");
            Err(machine.unknown("the thaw", why))
        }
    }
}

fn unmark(machine: &Machine) {
    match std::fs::remove_file(machine.folder.frozen()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(vm = %machine.name, %error, "the note that it is frozen stays: it is thawed once more");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Thaws a guest that a daemon before us had frozen when it ended (I16).
pub async fn thaw_left(machine: &Machine) {
    if !machine.folder.frozen().exists() {
        return;
    }
    let lives = || machine.running().is_ok();
    let thawed = match machine.session(Instant::now() + THAW_FOR).await {
        Some(_turn) if lives() => thaw(&machine.agent, lives).await,
        Some(_) => Ok(()), // what does not run is not frozen
        None => Err(AgentError::Silent(THAW_FOR)),
    };
    match thawed {
        Ok(()) => {
            tracing::info!(vm = %machine.name, "it was frozen when the daemon before ended, and is thawed");
            unmark(machine);
        }
        Err(error) => {
            let error = error_chain(&error);
            tracing::error!(vm = %machine.name, error, "the guest's file systems may still be frozen");
        }
    }
}

/// How it went with a guest that was to be frozen.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// It was not frozen, or nobody knows; nothing was done, and it is thawed.
    #[error("its file systems were not frozen")]
    NotFrozen(#[source] AgentError),
    /// What was to be done took too long, and was given up. It is thawed.
    #[error("what was to be done while its file systems were frozen took longer than {0:?}")]
    Late(Duration),
    /// Nobody knows whether it is thawed.
    #[error("its file systems may still be frozen")]
    NotThawed(#[source] AgentError),
}

/// Freezes, does `work` for at most `most`, and thaws until that is confirmed, as long as the guest `lives`.
///
/// # Errors
/// See [`FreezeError`].
pub async fn while_frozen<T>(
    agent: &Agent,
    mut session: Session<'_>,
    most: Duration,
    work: impl Future<Output = T>,
    lives: impl Fn() -> bool,
) -> Result<T, FreezeError> {
    let until = Instant::now() + most;
    session.extend(until);
    let frozen = tokio::time::timeout_at(until, session.freeze()).await;
    drop(session); // a frozen guest may answer this one no more
    let done = match frozen {
        Ok(Ok(_)) => tokio::time::timeout_at(until, work).await.map_err(|_| FreezeError::Late(most)),
        // What it refused it has not done.
        Ok(Err(error @ AgentError::Refused { .. })) => return Err(FreezeError::NotFrozen(error)),
        // Of all else nobody knows.
        Ok(Err(error)) => Err(FreezeError::NotFrozen(error)),
        Err(_) => Err(FreezeError::NotFrozen(AgentError::Silent(most))),
    };
    thaw(agent, lives).await.map_err(FreezeError::NotThawed)?;
    done
}

/// Thaws until it is confirmed.
async fn thaw(agent: &Agent, lives: impl Fn() -> bool) -> Result<(), AgentError> {
    let until = Instant::now() + THAW_FOR;
    let mut tell = Instant::now();
    loop {
        let thawed = match agent.session(THAW).await {
            Ok(mut session) => session.thaw().await,
            Err(error) => Err(error),
        };
        match thawed {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= until || !lives() => return Err(error),
            Err(error) if Instant::now() >= tell => {
                tracing::warn!(%error, "the thaw is tried again until it is confirmed (I16)");
                tell = Instant::now() + TELL;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}
