//! A guest that stands still for a moment of ours runs on afterwards, whatever cuts us off: a QEMU that is slow, a disk that is
//! full, the end of the daemon. One that somebody else has paused stays paused. So it is noted beside its sockets, before it is
//! stopped, that it ran; and whoever comes next looks there, and not at how it stands.

use super::super::kept::Kind;
use super::super::live::Live;
use super::super::machine::{Machine, error_chain};
use super::live::ANSWER;
use crate::DriverError;
use holdfast_core::lease::Incarnation;
use holdfast_core::signal::RunState;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const KIND: Kind = Kind { word: "still", version: 1, most: 1 << 10 };
const STOP: &str = "stop for a moment";
const RUN_ON: &str = "have run on";
/// So soon it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Machine {
    /// Notes durably, before it is stopped, that it runs and is to run on.
    pub(super) async fn note_still(&self, live: &Live) -> Result<(), DriverError> {
        let (mark, incarnation) = (self.folder.still(), live.incarnation);
        self.on_disk(STOP, move |_| KIND.write(&mark, &incarnation).map_err(|error| error_chain(&error)))
            .await
    }

    /// Whether it stands still, or is about to, only for us.
    pub(super) fn is_still_for_us(&self, live: &Live) -> bool {
        let noted: Option<Incarnation> = KIND.read(&self.folder.still()).ok().flatten();
        noted == Some(live.incarnation)
    }

    /// Has it run on if it stands still for us. One that stopped by itself meanwhile, as for an error of its disk, is left to
    /// those who look after that.
    pub(super) async fn run_on(&self, live: &Live, deadline: Instant) -> Result<(), DriverError> {
        if !self.is_still_for_us(live) {
            return Ok(());
        }
        let ran = async {
            if matches!(live.state(deadline).await?, RunState::Paused | RunState::Moving) {
                live.run("cont", Value::Null, deadline).await?;
            }
            Ok(())
        };
        ran.await.map_err(|error| self.unconfirmed(RUN_ON, ANSWER, &error))?;
        self.forget_still();
        Ok(())
    }

    /// Somebody else says from now on whether it runs.
    pub(in super::super) fn forget_still(&self) {
        match std::fs::remove_file(self.folder.still()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(vm = %self.name, %error, "the note that it is to run on stays");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// What was broken off and left it standing still is settled as soon as that can be, in the background.
    pub(super) fn settle_later(self: Arc<Self>) {
        let stands = |machine: &Self| machine.running().is_ok_and(|live| machine.is_still_for_us(&live));
        if !stands(&self) {
            return;
        }
        tokio::spawn(async move {
            let mut is_told = false;
            while stands(&self) {
                if let Err(error) = self.settle_running().await
                    && !is_told
                {
                    let error = error_chain(&error);
                    tracing::error!(vm = %self.name, error, "it stands still for a snapshot, and runs on once that is settled");
                    is_told = true;
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }
}
