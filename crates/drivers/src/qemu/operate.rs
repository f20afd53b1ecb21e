//! Orders to a running machine. Repeating any of them is harmless.

use super::agent::AgentError;
use super::cut::why_cut;
use super::live::Live;
use super::machine::{Machine, error_chain};
use super::untrusted::tame;
use crate::DriverError;
use holdfast_core::action::{Fact, Operation};
use holdfast_core::lease::{Incarnation, Token};
use holdfast_core::signal::{NetworkSign, RunState, Seen};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How often a run state is asked for while it changes.
const POLL: Duration = Duration::from_millis(5);
/// How long an agent that listens may think before its silence counts as consent to power down.
const CONSENT: Duration = Duration::from_millis(700);
/// How long the agent may take to hear an order: one that is silent for longer will not carry it out.
const ORDER: Duration = Duration::from_secs(5);
/// How long it takes to press the power button.
const BUTTON: Duration = Duration::from_millis(500);
/// How long a reader of what is seen may be busy.
const READER: Duration = Duration::from_secs(1);

impl Machine {
    /// Does something to the running machine.
    pub async fn operate(
        &self,
        incarnation: Incarnation,
        token: Token,
        operation: &Operation,
        restart: Option<&[String]>,
        limit: Duration,
    ) -> Result<Fact, DriverError> {
        let deadline = Instant::now() + limit;
        let _turn = self.turn(deadline).await?;
        let live = self.authorize(incarnation, token).await?;
        let what = operation.name();
        let order = |command, arguments| self.give(&live, what, command, arguments, limit, deadline);
        match operation {
            Operation::RestartApp(app) => {
                let argv =
                    restart.ok_or_else(|| self.refused(what, format!("`{app}` has no restart command")))?;
                self.run_in_guest(what, argv, limit, deadline).await?;
            }
            Operation::Reset => self.reset(&live, limit, deadline).await?,
            Operation::Continue => {
                order("cont", Value::Null).await?;
                self.forget_still();
            }
            Operation::Pause => {
                order("stop", Value::Null).await?;
                self.forget_still(); // it was stopped for a moment, perhaps, and is paused from now on
            }
            Operation::Shutdown => self.ask_to_shut_down(&live, limit, deadline).await?,
            Operation::LinkUp => self.plug(&live, true, what, limit, deadline).await?,
            Operation::LinkDown => self.plug(&live, false, what, limit, deadline).await?,
            Operation::Thaw => {
                let session = self.agent_session(what, limit, deadline).await?;
                let (_turn, mut session) = session;
                session.thaw().await.map_err(|e| self.agent_failed(what, limit, &e))?;
            }
        }
        Ok(Fact::Nothing)
    }

    async fn give(
        &self,
        live: &Live,
        what: &'static str,
        command: &'static str,
        arguments: Value,
        limit: Duration,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let given = live.run(command, arguments, deadline).await;
        given.map_err(|error| self.unconfirmed(what, limit, &error))
    }

    /// Plugs the virtual cable in or pulls it, and tells what it is now.
    pub(super) async fn plug(
        &self,
        live: &Live,
        up: bool,
        what: &'static str,
        limit: Duration,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let cable = json!({ "name": super::launch::NIC, "up": up });
        self.give(live, what, "set_link", cable, limit, deadline).await?;
        self.tell(live, Seen::Network(NetworkSign::Link { up })).await;
        Ok(())
    }

    pub(super) async fn tell(&self, live: &Live, seen: Seen) {
        let (vm, incarnation) = (self.name.clone(), live.incarnation);
        let glimpse = crate::Glimpse { vm, incarnation, app: None, seen };
        let told = tokio::time::timeout(READER, self.out.send(glimpse)).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::warn!(vm = %self.name, "nobody takes what the driver sees");
        }
    }

    /// A hard reset. Whatever stopped the machine before, it runs afterwards.
    async fn reset(&self, live: &Live, limit: Duration, deadline: Instant) -> Result<(), DriverError> {
        const RESET: &str = "reset";
        self.give(live, RESET, "system_reset", Value::Null, limit, deadline).await?;
        let unsure = |why: String| self.unknown(RESET, why);
        loop {
            let state = live.state(deadline).await.map_err(|e| unsure(error_chain(&e)))?;
            if state == RunState::Running {
                return Ok(());
            }
            // A stopped machine is reset by QEMU's main loop, which makes it ready to run; before that it
            // cannot be continued.
            if matches!(state, RunState::Prelaunch | RunState::Paused) {
                live.run("cont", Value::Null, deadline).await.map_err(|e| unsure(error_chain(&e)))?;
            }
            if Instant::now() >= deadline {
                return Err(self.late(RESET, limit));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks the agent, and the power button where there is none.
    async fn ask_to_shut_down(
        &self,
        live: &Live,
        limit: Duration,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let soon = deadline.checked_sub(BUTTON).unwrap_or(deadline);
        let asked = match self.session(soon).await {
            Some(_turn) => match self.agent.session(soon.saturating_duration_since(Instant::now())).await {
                Ok(mut session) => tokio::time::timeout(CONSENT, session.shut_down()).await,
                Err(error) => Ok(Err(error)),
            },
            None => Ok(Err(AgentError::Silent(limit))),
        };
        match asked {
            Ok(Ok(())) | Err(_) => Ok(()), // it answers only to refuse
            Ok(Err(error)) => {
                if let Some(socket) = self.lost_socket(live) {
                    let why = format!("{}, and {}", why_cut(&socket), error_chain(&error));
                    return Err(self.refused("shut down", why));
                }
                tracing::debug!(vm = %self.name, %error, "no agent to ask, so the power button is pressed");
                self.give(live, "shutdown", "system_powerdown", Value::Null, limit, deadline).await
            }
        }
    }

    /// Runs a configured command in the guest and waits for its success.
    pub(super) async fn run_in_guest(
        &self,
        what: &'static str,
        argv: &[String],
        limit: Duration,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let heard = deadline.min(Instant::now() + ORDER);
        let (_turn, mut session) = self.agent_session(what, limit.min(ORDER), heard).await?;
        session.extend(deadline);
        let end = session.exec(argv).await.map_err(|e| self.agent_failed(what, limit, &e))?;
        if end.code == Some(0) {
            return Ok(());
        }
        let said = tame(String::from_utf8_lossy(&end.output).trim(), 200);
        let how =
            end.code.map_or_else(|| "was ended by a signal".into(), |code| format!("ended with {code}"));
        Err(self.refused(what, format!("the command in the guest {how}: {said}")))
    }

    pub(super) async fn agent_session(
        &self,
        what: &'static str,
        limit: Duration,
        deadline: Instant,
    ) -> Result<(tokio::sync::SemaphorePermit<'_>, super::agent::Session<'_>), DriverError> {
        let turn = self.session(deadline).await;
        let turn =
            turn.ok_or_else(|| self.refused(what, "another question to the guest agent is not done"))?;
        let left = deadline.saturating_duration_since(Instant::now());
        match self.agent.session(left).await {
            Ok(session) => Ok((turn, session)),
            // The order itself was not given yet.
            Err(AgentError::Silent(_)) => {
                Err(self.refused(what, format!("the guest agent does not answer for {limit:?}")))
            }
            Err(error) => Err(self.refused(what, error_chain(&error))),
        }
    }

    pub(super) fn agent_failed(
        &self,
        what: &'static str,
        limit: Duration,
        error: &AgentError,
    ) -> DriverError {
        if matches!(error, AgentError::Silent(_)) {
            self.late(what, limit)
        } else if error.is_unknown() {
            self.unknown(what, error_chain(error))
        } else {
            self.refused(what, error_chain(error))
        }
    }
}
