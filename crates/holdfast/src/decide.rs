//! The one loop that owns the engine. Nothing else decides, so there is no lock to reason about.
//!
//! Inputs come through one inbox. What the engine asks for is in the journal, durably, before anybody
//! starts on it (I8); if it cannot be written, it is not done, and the daemon goes on watching (I7).
//!
//! The loop does not wait for the disk. What must be durable waits in line while a sync is under way, and
//! the loop goes on: one sync serves all that were written before it began. What the engine has changed its
//! mind about meanwhile, as for maintenance (I5), is not begun. And what would break a promise is not begun either
//! (`promises.rs`).

pub mod promises;

use crate::asked;
use crate::clock::Clock;
use crate::events::{Event, Ring};
use crate::journal::sync::Synced;
use crate::recorder::{Recorded, Recorder};
use holdfast_core::action::{Action, Answer, Command, CommandId, Ended, Order, Outcome, Wish};
use holdfast_core::engine::{Engine, Reaction, VmState};
use holdfast_core::incident::IncidentId;
use holdfast_core::input::Input;
use holdfast_core::policy::Policies;
use holdfast_core::subject::VmName;
use holdfast_core::time::Timestamp;
use promises::{OnRecord, Promises};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Inputs that may wait; a full inbox makes sources wait, and own lag is then seen.
pub const INBOX: usize = 4_096;
/// Reactions that may wait for the disk; then no further input is taken.
const UNSAFE_MOST: usize = 4_096;
/// Live events a slow listener may be behind before it loses some (A44).
const LISTENERS_BEHIND: usize = 512;

/// What the loop is sent.
pub enum Message {
    /// An input for the engine.
    Input(Input),
    /// A person's command; the answer goes back at once.
    Command {
        /// Who asks.
        by: String,
        /// For which VM.
        vm: VmName,
        /// What.
        wish: Wish,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer>,
    },
    /// A configuration comes into force; then the answer goes back.
    Configure {
        /// What is wanted.
        policies: Policies,
        /// Where the answer goes.
        reply: oneshot::Sender<()>,
    },
    /// A question about what is; it is only read.
    Look(Box<dyn FnOnce(&Desk) + Send>),
}

/// What can be looked at.
pub struct Desk {
    /// The engine.
    pub engine: Engine,
    /// The clock.
    pub clock: Clock,
    /// What happened lately.
    pub events: Ring,
    /// Why nothing is done at present, if that is so: the journal cannot be written.
    pub mute: Option<String>,
    /// What was handed over, and the promise that would have been broken, if any: since then nothing is changed.
    pub promises: Promises,
}

/// Where everybody sends to.
#[derive(Clone)]
pub struct Inbox {
    sender: mpsc::Sender<Message>,
    live: broadcast::Sender<Event>,
}

/// The loop is gone: the daemon is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopping;

impl Inbox {
    /// An inbox and its receiving end.
    pub fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(INBOX);
        let (live, _) = broadcast::channel(LISTENERS_BEHIND);
        (Self { sender, live }, receiver)
    }

    /// Sends an input; waits while the inbox is full.
    pub async fn send(&self, input: Input) -> Result<(), Stopping> {
        self.sender.send(Message::Input(input)).await.map_err(|_| Stopping)
    }

    /// Sends an input without waiting; `false` if the inbox is full.
    pub fn offer(&self, input: Input) -> bool {
        self.sender.try_send(Message::Input(input)).is_ok()
    }

    /// Sends a person's command and waits for its answer.
    pub async fn command(&self, by: &str, vm: VmName, wish: Wish) -> Result<Answer, Stopping> {
        let command = |reply| Message::Command { by: by.to_owned(), vm, wish, reply };
        asked::ask(&self.sender, command).await.ok_or(Stopping)
    }

    /// Puts a configuration into force, and waits until it is.
    pub async fn configure(&self, policies: Policies) -> Result<(), Stopping> {
        asked::ask(&self.sender, |reply| Message::Configure { policies, reply }).await.ok_or(Stopping)
    }

    /// Looks at what is.
    pub async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Desk) -> T + Send + 'static,
    ) -> Result<T, Stopping> {
        let look = |reply: oneshot::Sender<T>| {
            Message::Look(Box::new(move |desk: &Desk| {
                let _ = reply.send(question(desk)); // whoever asked may have gone
            }))
        };
        asked::ask(&self.sender, look).await.ok_or(Stopping)
    }

    /// Listens to what happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.live.subscribe()
    }
}

/// Nobody is told that something was accepted which the end of this daemon would undo (I5, I8).
fn not_recorded(answers: Vec<Answer>, why: &str) -> Vec<Answer> {
    let doubt = || {
        format!(
            "it holds now, but is not on record: if the daemon ends before it can write, it forgets it ({why})"
        )
    };
    let told = |answer: Answer| Answer { refused: answer.refused.or_else(|| Some(doubt())), ..answer };
    answers.into_iter().map(told).collect()
}

/// Waits for the end of a sync, if one is under way.
async fn ended(syncing: &mut Option<JoinHandle<Synced>>) -> Result<Synced, JoinError> {
    match syncing {
        Some(sync) => sync.await,
        None => std::future::pending().await,
    }
}

/// Who carries out what the engine asks for.
pub trait Actors: Send {
    /// Starts on these; each reports exactly one outcome through the inbox.
    fn start(&self, actions: Vec<Action>, desk: &Desk);
}

/// The loop.
pub struct Decider<A> {
    /// What it owns and others may look at.
    pub desk: Desk,
    /// The journal.
    pub recorder: Recorder,
    /// Who carries out.
    pub actors: A,
    /// Where live events go.
    pub inbox: Inbox,
    /// What must be safe first, by the number of its record.
    unsafe_yet: VecDeque<(u64, Reaction)>,
    /// The last record that is safe.
    safe: u64,
    syncing: Option<JoinHandle<Synced>>,
    told: BTreeMap<IncidentId, usize>,
    waiting: BTreeMap<CommandId, oneshot::Sender<Answer>>,
    last_command: CommandId,
}

impl<A: Actors> Decider<A> {
    /// A loop that has not begun.
    pub fn new(desk: Desk, recorder: Recorder, actors: A, inbox: Inbox, last_command: CommandId) -> Self {
        let told = desk.engine.incidents().map(|incident| (incident.id, incident.story.len())).collect();
        let (unsafe_yet, waiting) = (VecDeque::new(), BTreeMap::new());
        let (safe, syncing) = (0, None);
        Self { desk, recorder, actors, inbox, unsafe_yet, safe, syncing, told, waiting, last_command }
    }

    /// Decides until told to stop.
    pub async fn run(&mut self, mut inbox: mpsc::Receiver<Message>, stop: CancellationToken) {
        loop {
            let wake = self.desk.engine.wake_at().unwrap_or(Timestamp::NEVER);
            let flush = self.recorder.flush_due().filter(|_| self.syncing.is_none());
            let has_room = self.unsafe_yet.len() < UNSAFE_MOST;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                synced = ended(&mut self.syncing) => self.end_sync(synced),
                message = inbox.recv(), if has_room => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                () = self.desk.clock.until(wake) => self.step(&Input::Tick),
                () = self.desk.clock.until(flush.unwrap_or(Timestamp::NEVER)) => self.sync(),
            }
        }
        if let Err(cause) = self.recorder.flush(self.desk.clock.now()) {
            warn!(%cause, "the last records may be lost at a power cut");
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.step(&input),
            Message::Command { by, vm, wish, reply } => self.obey(by, vm, wish, reply),
            Message::Configure { policies, reply } => {
                self.configure(policies);
                let _ = reply.send(()); // whoever asked may have gone
            }
            Message::Look(look) => look(&self.desk),
        }
    }

    /// Makes safe what is written, beside this loop; one sync at a time.
    fn sync(&mut self) {
        if self.syncing.is_some() {
            return; // the next one serves all that wait by then
        }
        match self.recorder.begin_sync(self.desk.clock.now()) {
            Ok(Some(sync)) => self.syncing = Some(tokio::task::spawn_blocking(move || sync.carry_out())),
            Ok(None) => {}
            Err(cause) => self.lose(&crate::act::chain(&cause)),
        }
    }

    fn end_sync(&mut self, synced: Result<Synced, JoinError>) {
        self.syncing = None;
        let now = self.desk.clock.now();
        let safe = match synced.map(|synced| self.recorder.end_sync(now, synced)) {
            Ok(Ok(safe)) => safe,
            Ok(Err(crate::journal::JournalError::Stopped)) if self.unsafe_yet.is_empty() => return,
            Ok(Err(cause)) => return self.lose(&crate::act::chain(&cause)),
            Err(cause) => return self.lose(&cause.to_string()),
        };
        self.safe = safe;
        while let Some((n, reaction)) = self.unsafe_yet.pop_front_if(|(n, _)| *n <= safe) {
            self.release(Some(n), reaction);
        }
        if !self.unsafe_yet.is_empty() {
            self.sync();
        }
    }

    /// What is not safe yet may never be: it is not done.
    fn lose(&mut self, why: &str) {
        self.cannot_record(&Reaction::default(), why);
        for (_, reaction) in std::mem::take(&mut self.unsafe_yet) {
            self.cannot_record(&reaction, why);
            self.answer(not_recorded(reaction.answers, why));
        }
    }

    /// It is on record, as this record or in a checkpoint: it is told, and begun, but for what the engine no longer wants,
    /// what is too late, and what would break a promise.
    fn release(&mut self, record: Option<u64>, reaction: Reaction) {
        self.publish(&reaction);
        let now = self.desk.clock.now();
        let mut begun = Vec::new();
        for action in reaction.actions {
            if action.deadline <= now || !self.desk.engine.wants(&action) {
                let why = "it was on record too late, or no longer wanted then";
                warn!(action = action.id.0, vm = %action.vm, order = action.order.name(), why, "not begun");
                self.leave(&action, why.to_owned());
            } else if let Err(broken) = self.look(&action, record) {
                self.leave(&action, broken);
            } else {
                begun.push(action);
            }
        }
        if !begun.is_empty() {
            self.actors.start(begun, &self.desk);
        }
        self.answer(reaction.answers);
    }

    /// The last look at what is about to be begun.
    fn look(&mut self, action: &Action, record: Option<u64>) -> Result<(), String> {
        let on_record = OnRecord { record, safe: self.safe };
        let maintained = self.desk.engine.vm(&action.vm).is_some_and(VmState::in_maintenance);
        let is_first = self.desk.promises.broken().is_none();
        self.desk.promises.look(action, on_record, maintained).map_err(|broken| {
            if is_first {
                error!(%broken, "a promise would have been broken: Holdfast watches and tells, and changes nothing any more");
            }
            broken.to_string()
        })
    }

    /// It is not begun, and the engine hears of that as of any other end.
    fn leave(&self, action: &Action, why: String) {
        let (inbox, ended) = (self.inbox.clone(), Ended::Failed { why: format!("{why}: not begun") });
        let outcome = Input::Outcome(Outcome { action: action.id, ended });
        tokio::spawn(async move { inbox.send(outcome).await });
    }

    /// A configuration comes into force.
    pub fn configure(&mut self, policies: Policies) {
        self.step(&Input::Configured(policies));
    }

    /// One input, from the clock to the actors.
    pub fn step(&mut self, input: &Input) {
        let now = self.desk.clock.now(); // read after the wait: we may have been stopped (I20)
        let reaction = self.desk.engine.step(now, input);
        let seen = matches!(input, Input::Signal(_) | Input::WallClock { .. } | Input::Tick);
        let quiet = seen && reaction.actions.is_empty();
        if self.desk.mute.is_some() && self.recorder.begins_again(now) {
            self.desk.engine.recorded(); // and so says the checkpoint that the new segment begins with
        }
        let Desk { engine, clock, .. } = &self.desk;
        let recorded = match self.recorder.write(now, input, &reaction, engine, clock) {
            Ok(recorded) => recorded,
            Err(cause) => {
                let why = crate::act::chain(&cause);
                self.lose(&why);
                self.cannot_record(&reaction, &why);
                return self.answer(not_recorded(reaction.answers, &why));
            }
        };
        if self.desk.mute.take().is_some() {
            self.desk.engine.recorded();
            info!("the journal can be written again");
        }
        match recorded {
            Recorded::Safe => {
                let before = std::mem::take(&mut self.unsafe_yet);
                before.into_iter().for_each(|(_, reaction)| self.release(None, reaction));
                self.release(None, reaction);
            }
            Recorded::Written(_) if quiet => {
                self.publish(&reaction);
                if self.recorder.flush_due().is_some_and(|due| due <= now) {
                    self.sync(); // also where one signal follows the other
                }
            }
            Recorded::Written(n) => {
                self.unsafe_yet.push_back((n, reaction));
                self.sync();
            }
        }
    }

    /// No record, no action, and no exit (I7, I8).
    fn cannot_record(&mut self, reaction: &Reaction, why: &str) {
        if self.desk.mute.is_none() {
            error!(why, "the journal cannot be written: Holdfast watches and tells, and does nothing");
        }
        self.desk.mute = Some(why.to_owned());
        self.desk.engine.not_recorded(&reaction.actions, why);
        self.publish(reaction);
    }

    fn obey(&mut self, by: String, vm: VmName, wish: Wish, reply: oneshot::Sender<Answer>) {
        self.last_command.0 += 1;
        let id = self.last_command;
        info!(command = id.0, by, %vm, ?wish, "command");
        self.waiting.insert(id, reply);
        self.step(&Input::Command(Command { id, by, vm, wish }));
    }

    fn answer(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            if let Some(reply) = self.waiting.remove(&answer.command) {
                let _ = reply.send(answer); // whoever asked may have gone
            }
        }
    }

    /// Tells those who watch what is new.
    fn publish(&mut self, reaction: &Reaction) {
        for action in &reaction.actions {
            let destructive = action.order.is_destructive();
            debug!(action = action.id.0, vm = %action.vm, order = action.order.name(), destructive, "asked for");
            if let Order::PowerOff { .. } | Order::Start { .. } = action.order {
                info!(action = action.id.0, vm = %action.vm, order = action.order.name(), "asked for");
            }
        }
        for id in &reaction.changed {
            let Some(incident) = self.desk.engine.incident(*id) else { continue };
            let told = self.told.entry(*id).or_default();
            let from = (*told).min(incident.story.len().saturating_sub(1));
            let fresh =
                if *told > incident.story.len() { &incident.story[from..] } else { &incident.story[*told..] };
            for line in fresh {
                let event = Event::of(incident, line, self.desk.engine.wall_offset(line.at));
                match line.step.as_str() {
                    "held" => warn!(incident = id.0, subject = %incident.subject, text = line.text, "held"),
                    step => {
                        info!(incident = id.0, subject = %incident.subject, step, text = line.text, "incident")
                    }
                }
                let event = self.desk.events.push(event);
                let _ = self.inbox.live.send(event); // nobody may be listening
            }
            *told = incident.story.len();
        }
        self.told.retain(|id, _| self.desk.engine.incident(*id).is_some());
    }
}

#[cfg(test)]
mod tests;
