//! The engine's memory: every input goes to the journal with what the engine made of it, and the engine
//! itself goes there whole as the checkpoint that each segment begins with.

use crate::clock::Clock;
use crate::disk::Disk;
use crate::journal::recover::Recovery;
use crate::journal::sync::{Sync, Synced};
use crate::journal::{Beginning, Entry, Journal, JournalError, Limits, OpenError};
use crate::state::StateFolder;
use holdfast_core::engine::{Engine, Reaction};
use holdfast_core::incident::IncidentId;
use holdfast_core::input::Input;
use holdfast_core::subject::HostName;
use holdfast_core::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::{error, info, warn};

/// How something is recorded by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// As the record of this number, in the hands of the kernel. It is safe once [`Recorder::end_sync`] has
    /// told this number, or a higher one.
    Written(u64),
    /// In a new checkpoint: it is safe, and so is everything before it.
    Safe,
}

/// Writes what the engine is told and what it makes of it.
pub struct Recorder {
    journal: Journal,
    host: HostName,
    boot: String,
    /// The first record of each open incident: it is kept as long as that is open.
    open: BTreeMap<IncidentId, u64>,
}

impl Recorder {
    /// Opens the journal in this folder of the state folder and brings the engine back to where it was; with
    /// the newest time that is known.
    pub fn open(
        state: &StateFolder,
        folder: &str,
        host: HostName,
    ) -> Result<(Self, Engine, Timestamp), OpenError> {
        Self::on(state.disk(), folder, host, state.boot())
    }

    /// The same, in a folder of any disk.
    pub fn on(
        disk: Arc<dyn Disk>,
        folder: &str,
        host: HostName,
        boot: &str,
    ) -> Result<(Self, Engine, Timestamp), OpenError> {
        let (journal, recovery) = Journal::open(disk, folder, Limits::default())?;
        for trouble in &recovery.troubles {
            if trouble.is_serious() {
                error!(%trouble, "the journal is damaged; what is left of it is used, nothing is deleted");
            } else {
                info!(%trouble, "journal");
            }
        }
        let engine = restore(&recovery);
        let newest = recovery.newest.max(engine.now());
        Ok((Self { journal, host, boot: boot.to_owned(), open: BTreeMap::new() }, engine, newest))
    }

    /// Writes one input and what came of it. The engine has taken the input in already.
    pub fn write(
        &mut self,
        now: Timestamp,
        input: &Input,
        reaction: &Reaction,
        engine: &Engine,
        clock: &Clock,
    ) -> Result<Recorded, JournalError> {
        if !self.journal.is_writing() {
            return self.begin(now, engine, clock).map(|()| Recorded::Safe);
        }
        let entry = Entry {
            input: input.clone(),
            actions: reaction.actions.clone(),
            answers: reaction.answers.clone(),
        };
        let n = self.journal.append(now, &entry)?;
        for id in &reaction.changed {
            self.open.entry(*id).or_insert(n);
        }
        if self.journal.wants_checkpoint(now) {
            self.open.retain(|id, _| engine.incident(*id).is_some_and(|incident| !incident.is_closed()));
            self.journal.keep_from(self.open.values().min().copied());
            self.begin(now, engine, clock)?;
            return Ok(Recorded::Safe);
        }
        Ok(Recorded::Written(n))
    }

    /// Begins to make safe all that is written by now; `None` if it is.
    pub fn begin_sync(&mut self, now: Timestamp) -> Result<Option<Sync>, JournalError> {
        self.journal.begin_sync(now)
    }

    /// A sync has ended: the number of the last record that is safe now.
    pub fn end_sync(&mut self, now: Timestamp, synced: Synced) -> Result<u64, JournalError> {
        self.journal.end_sync(now, synced)
    }

    /// Begins a segment with the engine as it is now: all that it was ever told is in it.
    pub fn begin(&mut self, now: Timestamp, engine: &Engine, clock: &Clock) -> Result<(), JournalError> {
        if !self.journal.wants_checkpoint(now) {
            return Err(JournalError::Stopped);
        }
        let checkpoint = serde_json::to_vec(engine)?;
        let who = Beginning {
            host: self.host.to_string(),
            boot: self.boot.clone(),
            wall_offset: clock.wall_offset(),
            at: now,
        };
        self.journal.begin(&who, &checkpoint)
    }

    /// Whether the next record begins a new segment because the one before could not be written on.
    pub fn begins_again(&self, now: Timestamp) -> bool {
        !self.journal.is_writing() && self.journal.wants_checkpoint(now)
    }

    /// When lazy records must be made safe.
    pub fn flush_due(&self) -> Option<Timestamp> {
        self.journal.flush_due()
    }

    /// Makes them safe.
    pub fn flush(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.journal.flush(now)
    }
}

/// The engine as the checkpoint has it, told again what was recorded after that.
fn restore(recovery: &Recovery) -> Engine {
    let Some(checkpoint) = &recovery.checkpoint else { return Engine::new() };
    let mut engine: Engine = match serde_json::from_slice(&checkpoint.bytes) {
        Ok(engine) => engine,
        Err(cause) => {
            warn!(%cause, "the checkpoint is not understood: the engine begins anew, and looks before it acts");
            return Engine::new();
        }
    };
    let mut told = 0_u64;
    for record in recovery.records::<Entry>() {
        match record {
            Ok(record) => {
                let _ = engine.step(record.at, &record.body.input); // it was carried out, or is looked for (I9)
                told += 1;
            }
            Err(trouble) => warn!(%trouble, "the journal ends early"),
        }
    }
    info!(records = told, "the engine is back where it was");
    engine
}
