//! Reads logs inside the guest through its agent, where nobody else needs the agent: it does one thing at a time,
//! and questions and orders come first.
//!
//! Each turn at the agent is short; while a command runs in the guest, the agent is free for others. What comes
//! back is only data (I17).

use super::agent::{AgentError, CommandEnd, Session};
use super::live::Live;
use super::machine::Machine;
use crate::{DriverError, GuestRead, Piece};
use std::time::Duration;
use tokio::time::Instant;

/// One turn at the agent takes at most so long.
const TURN: Duration = Duration::from_millis(500);
/// How long is waited before a command is asked after: ever longer.
const ASK_AGAIN: [Duration; 5] = [
    Duration::from_millis(30),
    Duration::from_millis(60),
    Duration::from_millis(120),
    Duration::from_millis(250),
    Duration::from_millis(500),
];
const WHAT: &str = "read a log in";

impl Machine {
    /// Reads something in the guest, within `limit`.
    ///
    /// # Errors
    /// [`DriverError::Blocked`] if the agent is silent, or needed for something else; others as for an order.
    pub async fn read(&self, what: &GuestRead, limit: Duration) -> Result<Piece, DriverError> {
        let live = self.running()?;
        if !self.agent_was_heard() {
            return Err(self.not_now("the guest agent is silent"));
        }
        let deadline = Instant::now() + limit;
        match what {
            GuestRead::File { path, offset, most } => {
                let (size, bytes) = self
                    .turn_at_agent(deadline, limit, async |session| {
                        session.read_file_at(path, *offset, *most).await
                    })
                    .await?;
                self.piece(&live, bytes, Some(size), None)
            }
            GuestRead::Command(argv) => {
                let pid = self
                    .turn_at_agent(deadline, limit, async |session| session.begin(argv, true).await)
                    .await?;
                for turn in 0_usize.. {
                    let nap = ASK_AGAIN[turn.min(ASK_AGAIN.len() - 1)];
                    tokio::time::sleep_until(deadline.min(Instant::now() + nap)).await;
                    if Instant::now() >= deadline {
                        break;
                    }
                    let asked =
                        self.turn_at_agent(deadline, limit, async |session| session.ended(pid).await).await;
                    match asked {
                        Ok(Some(CommandEnd { code, output })) => {
                            return self.piece(&live, output, None, code);
                        }
                        Ok(None) | Err(DriverError::Blocked { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(self.late(WHAT, limit))
            }
        }
    }

    fn piece(
        &self,
        live: &Live,
        bytes: Vec<u8>,
        size: Option<u64>,
        code: Option<i64>,
    ) -> Result<Piece, DriverError> {
        // What another start of the VM said meanwhile would be taken for this one's.
        let same = self.running().is_ok_and(|now| now.incarnation == live.incarnation);
        if !same {
            return Err(DriverError::NotRunning(self.name.clone()));
        }
        Ok(Piece { incarnation: live.incarnation, bytes, size, code })
    }

    /// One short turn, if no order is under way.
    async fn turn_at_agent<T>(
        &self,
        deadline: Instant,
        limit: Duration,
        ask: impl AsyncFnOnce(&mut Session<'_>) -> Result<T, AgentError>,
    ) -> Result<T, DriverError> {
        if self.has_order() {
            return Err(self.not_now("an order to this VM is under way"));
        }
        let soon = deadline.min(Instant::now() + TURN);
        let Some(_turn) = self.session(soon).await else {
            return Err(self.not_now("the guest agent is asked something else"));
        };
        let left = soon.saturating_duration_since(Instant::now());
        let answer = match self.agent.session(left).await {
            Ok(mut session) => ask(&mut session).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| {
            if matches!(error, AgentError::Silent(_) | AgentError::Connect(_)) {
                self.note_agent(false); // until it answers a question again
            }
            self.agent_failed(WHAT, limit, &error)
        })
    }

    fn not_now(&self, why: &str) -> DriverError {
        DriverError::Blocked { what: WHAT, vm: self.name.clone(), why: why.to_owned() }
    }
}
