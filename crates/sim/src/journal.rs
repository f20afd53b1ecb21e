//! The journal of the simulated daemon: a checkpoint of the engine and every input since, with the
//! intents it led to. Durable before anything is done (I8); what it holds is all that a restart has.

use holdfast_core::action::{Action, ActionId};
use holdfast_core::engine::Engine;
use holdfast_core::input::Input;
use holdfast_core::time::{Duration, Timestamp};
use std::collections::BTreeSet;

/// One record.
#[derive(Clone, Debug)]
enum Record {
    /// An input, and what it led to.
    Step(Timestamp, Input, Vec<Action>),
    /// Quiet time that was skipped.
    Passed(Timestamp),
}

/// The journal.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    checkpoint: String,
    records: Vec<Record>,
    /// So many records would outlive a power cut.
    synced: usize,
    /// The time of the oldest record that would not.
    unsynced: Option<Timestamp>,
    durable: BTreeSet<(u32, ActionId)>,
    /// Something could not be written: what follows makes no sense without a new checkpoint.
    broken: bool,
    damaged: bool,
    /// With `skips-sync`: nothing is made safe.
    pub(crate) skips_sync: bool,
}

/// Records between checkpoints.
const CHECKPOINT_EVERY: usize = 4_000;
/// What was seen and led to nothing may wait so long before it is made safe; all else is safe at once.
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// What a restart finds.
pub(crate) struct Restored {
    pub(crate) engine: Engine,
    /// Intents without an outcome on record.
    pub(crate) open: Vec<Action>,
    /// A record did not give the actions that it gave before.
    pub(crate) differs: Option<String>,
    /// A damaged record ended the reading early.
    pub(crate) damaged: bool,
    /// Everything that the old engine had seen is here.
    pub(crate) complete: bool,
}

impl Journal {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            checkpoint: write(engine),
            records: Vec::new(),
            synced: 0,
            unsynced: None,
            durable: BTreeSet::new(),
            broken: false,
            damaged: false,
            skips_sync: false,
        }
    }

    /// Writes an input and its intents; false if there is no room.
    pub(crate) fn record(
        &mut self,
        now: Timestamp,
        input: &Input,
        actions: &[Action],
        life: u32,
        full: bool,
    ) -> bool {
        if full || self.broken {
            self.broken = true;
            return false;
        }
        self.sync_if_due(now);
        self.records.push(Record::Step(now, input.clone(), actions.to_vec()));
        // As the program does: what a person was told, and what came of an order, is as safe as an intent.
        let lazy = actions.is_empty() && matches!(input, Input::Signal(_) | Input::Tick);
        if lazy {
            self.unsynced.get_or_insert(now);
        } else {
            self.sync();
            self.durable.extend(actions.iter().map(|action| (life, action.id)));
        }
        true
    }

    fn sync(&mut self) {
        if !self.skips_sync || self.records.is_empty() {
            (self.synced, self.unsynced) = (self.records.len(), None);
        }
    }

    /// The daemon has run until now: what waited long enough has been made safe.
    pub(crate) fn sync_if_due(&mut self, now: Timestamp) {
        if self.unsynced.is_some_and(|since| now >= since + SYNC_AFTER) && !self.broken {
            self.sync();
        }
    }

    /// The engine has gone one step further than the records.
    pub(crate) const fn miss(&mut self) {
        self.broken = true;
    }

    /// Notes that quiet time was skipped.
    pub(crate) fn pass(&mut self, now: Timestamp) {
        self.records.push(Record::Passed(now));
    }

    /// Writes a new checkpoint if one is due: after many records, or when there is room again. The engine is
    /// told of that first: it is no input, so no replay would tell it.
    pub(crate) fn keep_short(&mut self, engine: &mut Engine, full: bool) {
        let long = self.records.len() >= CHECKPOINT_EVERY + 100 * engine.policies().vms.len();
        if (long || self.broken) && !full {
            if self.broken {
                engine.recorded();
            }
            self.checkpoint = write(engine);
            self.records.clear();
            self.sync();
            self.broken = false;
        }
    }

    /// Whether the intent for this action can be read after a crash.
    pub(crate) fn is_durable(&self, life: u32, action: ActionId) -> bool {
        self.durable.contains(&(life, action))
    }

    /// A record rots.
    pub(crate) const fn damage(&mut self) {
        self.damaged = true;
    }

    /// The power fails: what was not synced is gone.
    pub(crate) fn cut_power(&mut self) {
        self.broken |= self.records.len() > self.synced;
        self.records.truncate(self.synced);
    }

    /// Reads it all back, through the same engine.
    pub(crate) fn restore(&mut self) -> Restored {
        let damaged = std::mem::take(&mut self.damaged);
        let complete = !damaged && !self.broken;
        if damaged {
            self.records.truncate(self.records.len() / 2);
        }
        let mut engine: Engine = read(&self.checkpoint);
        let mut differs = None;
        let mut open: Vec<Action> = Vec::new();
        for record in &self.records {
            match record {
                Record::Passed(now) => {
                    engine.pass(*now);
                }
                Record::Step(now, input, actions) => {
                    let again = engine.step(*now, input).actions;
                    if again != *actions {
                        differs = Some(format!("at {now} {input:?} gave {actions:?}, and now {again:?}"));
                        break;
                    }
                    if let Input::Outcome(outcome) = input {
                        open.retain(|action| action.id != outcome.action);
                    }
                    open.extend(actions.iter().cloned());
                }
            }
        }
        // The old tail cannot be trusted to follow what comes now.
        self.checkpoint = write(&engine);
        self.records.clear();
        self.sync();
        self.broken = false;
        Restored { engine, open, differs, damaged, complete }
    }
}

/// The checkpoint as it is on disk.
pub(crate) fn write(engine: &Engine) -> String {
    serde_json::to_string(engine).expect("every state of the engine can be written down")
}

fn read(text: &str) -> Engine {
    serde_json::from_str(text).expect("what was written can be read")
}
