//! A running VM: its process, the connection to its QEMU, and the task that watches both.

use super::cgroup::Cgroup;
use super::event::Event;
use super::process::Process;
use super::qmp::{Events, Qmp, QmpError};
use super::sign::{self, Status};
use crate::Glimpse;
use holdfast_core::lease::{Death, DeathProof, ExitStatus, Incarnation};
use holdfast_core::signal::{HypervisorSign, ProcessSign, RunState, Seen};
use holdfast_core::subject::VmName;
use holdfast_witness::Eyewitness;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Whether a VM lives.
#[derive(Clone, Debug)]
pub enum Life {
    /// It runs.
    Running(Arc<Live>),
    /// It does not, and here is why we are sure.
    Dead(DeathProof),
    /// It could not be told.
    Unclear(String),
}

/// A running VM.
#[derive(Debug)]
pub struct Live {
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Its process.
    pub process: Arc<Process>,
    /// The watching task ends when this is gone; the VM runs on.
    qmp: watch::Receiver<Option<Qmp>>,
}

/// A greeting later than this is no greeting.
const GREETING: Duration = Duration::from_secs(3);
/// How long between two tries to connect: short at first, because a QEMU that starts is nearly there.
const TRY_AGAIN: [Duration; 3] =
    [Duration::from_millis(4), Duration::from_millis(20), Duration::from_millis(250)];
/// How long the answer may take when an event makes us ask for the run state.
const ASIDE: Duration = Duration::from_secs(3);
/// How long the last words of a dead QEMU are waited for at most. They are in the socket already, and its end
/// ends the wait; only a busy host is late in reading them, and a fork of QEMU could keep the socket open.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long processes that a dead QEMU left in its control group are given.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// What the watching task needs.
pub struct Watch {
    /// The VM.
    pub vm: VmName,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Its process.
    pub process: Arc<Process>,
    /// Its control group, if it has one.
    pub cgroup: Option<Cgroup>,
    /// The control socket that is ours.
    pub control: PathBuf,
    /// Where what is seen goes.
    pub out: mpsc::Sender<Glimpse>,
    /// Where the end of the process is noted.
    pub life: watch::Sender<Life>,
    /// Where it is noted when that was, if the guest shut down in order.
    pub shut_down: watch::Sender<Option<SystemTime>>,
}

impl Watch {
    /// Begins to watch, and notes that the VM runs.
    pub fn begin(self) -> Arc<Live> {
        let (connected, qmp) = watch::channel(None);
        let (incarnation, process, life) = (self.incarnation, Arc::clone(&self.process), self.life.clone());
        let live = Arc::new(Live { incarnation, process, qmp });
        self.shut_down.send_replace(None);
        life.send_replace(Life::Running(Arc::clone(&live))); // before the task can note the end
        tokio::spawn(async move { self.run(&connected).await });
        live
    }

    async fn run(self, connected: &watch::Sender<Option<Qmp>>) {
        loop {
            let (qmp, mut events) = tokio::select! {
                biased;
                status = self.process.exited() => return self.finish(status).await,
                () = connected.closed() => return,
                connection = self.connect() => connection,
            };
            connected.send_replace(Some(qmp.clone()));
            self.ask_for_statistics(&qmp).await;
            loop {
                tokio::select! {
                    biased;
                    event = events.next() => match event {
                        Some(event) => self.tell(&qmp, &event).await,
                        None => break,
                    },
                    status = self.process.exited() => {
                        self.hear_last_words(&qmp, &mut events).await;
                        return self.finish(status).await;
                    }
                    () = connected.closed() => return,
                }
            }
            connected.send_replace(None);
        }
    }

    async fn connect(&self) -> (Qmp, Events) {
        for turn in 0_usize.. {
            match Qmp::connect(&self.control, GREETING).await {
                Ok(connection) => return connection,
                Err(error) => tracing::debug!(vm = %self.vm, %error, "no control connection yet"),
            }
            tokio::time::sleep(TRY_AGAIN[(turn / 50).min(TRY_AGAIN.len() - 1)]).await;
        }
        unreachable!("the range above has no end")
    }

    /// Has the guest tell its memory, where it has a balloon driver.
    async fn ask_for_statistics(&self, qmp: &Qmp) {
        let order = json!({ "path": "/machine/peripheral/balloon0", "property": "guest-stats-polling-interval", "value": 1 });
        if let Err(error) = qmp.run("qom-set", order, ASIDE).await {
            tracing::debug!(vm = %self.vm, %error, "no memory statistics of the guest");
        }
    }

    async fn tell(&self, qmp: &Qmp, event: &Event) {
        tracing::debug!(vm = %self.vm, name = event.name, "hypervisor event");
        if sign::is_orderly_end(event) {
            self.shut_down.send_replace(Some(SystemTime::now()));
        }
        let seen = match event.name.as_str() {
            "STOP" => match qmp.call::<Status>("query-status", Value::Null, ASIDE).await {
                Ok(status) => Some(Seen::Hypervisor(HypervisorSign::State(status.state()))),
                Err(_) => None, // the next poll finds out
            },
            _ => sign::of_event(event),
        };
        if let Some(seen) = seen {
            self.say(seen).await;
        }
    }

    async fn hear_last_words(&self, qmp: &Qmp, events: &mut Events) {
        while let Ok(Some(event)) = tokio::time::timeout(LAST_WORDS, events.next()).await {
            self.tell(qmp, &event).await;
        }
    }

    async fn finish(self, status: std::io::Result<ExitStatus>) {
        let left = match &self.cgroup {
            Some(group) => group.clear(LEFTOVERS).await,
            None => Ok(true),
        };
        let status = match (status, left) {
            (Ok(status), Ok(true)) => status,
            (status, left) => {
                let why = format!("its end cannot be proven: exit {status:?}, control group empty {left:?}");
                tracing::error!(vm = %self.vm, why, "a VM is neither alive nor dead");
                self.shut_down.send_replace(None);
                self.life.send_replace(Life::Unclear(why));
                return;
            }
        };
        if let Some(group) = &self.cgroup {
            group.remove();
        }
        // What a guest that shuts down has flushed is written. Of a VM that was adopted nobody knows more.
        let is_well = matches!(status, ExitStatus::Code(0) | ExitStatus::Unknown);
        let is_orderly = is_well && self.shut_down.borrow().is_some();
        self.shut_down.send_replace(is_orderly.then(SystemTime::now));
        let death = Death::Exited { pid: self.process.pid(), status };
        let proof = DeathProof::witnessed(Eyewitness::here(), self.vm.clone(), self.incarnation, death);
        self.life.send_replace(Life::Dead(proof.clone()));
        self.say(Seen::Process(ProcessSign::Exited { proof, status })).await;
    }

    async fn say(&self, seen: Seen) {
        let glimpse = Glimpse { vm: self.vm.clone(), incarnation: self.incarnation, app: None, seen };
        let _nobody_listens = self.out.send(glimpse).await;
    }
}

impl Live {
    /// The connection to its QEMU, waited for until `deadline`.
    ///
    /// # Errors
    /// [`QmpError::Silent`], nothing asked.
    pub async fn qmp(&self, deadline: Instant) -> Result<Qmp, QmpError> {
        let began = Instant::now();
        let mut qmp = self.qmp.clone();
        let usable = |qmp: &Option<Qmp>| qmp.as_ref().is_some_and(|qmp| !qmp.has_ended());
        let found = tokio::time::timeout_at(deadline, qmp.wait_for(usable)).await;
        let silent = || QmpError::Silent { waited: began.elapsed(), asked: false };
        found.ok().and_then(Result::ok).and_then(|qmp| qmp.clone()).ok_or_else(silent)
    }

    /// Whether there is a connection to its QEMU now.
    pub fn is_connected(&self) -> bool {
        self.qmp.borrow().as_ref().is_some_and(|qmp| !qmp.has_ended())
    }

    /// Asks its QEMU, waiting for the connection and the answer until `deadline`.
    ///
    /// # Errors
    /// As for [`Qmp::call`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Value,
        deadline: Instant,
    ) -> Result<T, QmpError> {
        let qmp = self.qmp(deadline).await?;
        qmp.call(command, arguments, deadline.saturating_duration_since(Instant::now())).await
    }

    /// As [`Live::call`], for an answer that says nothing.
    ///
    /// # Errors
    /// As for [`Qmp::call`].
    pub async fn run(&self, command: &'static str, args: Value, deadline: Instant) -> Result<(), QmpError> {
        self.call::<serde::de::IgnoredAny>(command, args, deadline).await.map(drop)
    }

    /// As [`Live::call`], with a descriptor that its QEMU gets beside the command.
    ///
    /// # Errors
    /// As for [`Qmp::call`].
    pub async fn hand<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Value,
        descriptor: OwnedFd,
        deadline: Instant,
    ) -> Result<T, QmpError> {
        let qmp = self.qmp(deadline).await?;
        qmp.hand(command, arguments, descriptor, deadline.saturating_duration_since(Instant::now())).await
    }

    /// Its run state.
    ///
    /// # Errors
    /// As for [`Qmp::call`].
    pub async fn state(&self, deadline: Instant) -> Result<RunState, QmpError> {
        Ok(self.status(deadline).await?.state())
    }

    /// What it says of that.
    ///
    /// # Errors
    /// As for [`Qmp::call`].
    pub async fn status(&self, deadline: Instant) -> Result<Status, QmpError> {
        self.call("query-status", Value::Null, deadline).await
    }
}
