//! The memory of a VM that runs on while it is saved, for a QEMU that offers `mapped-ram`: each page has its place in the
//! file, so one that is written again is saved again where it was, and the file grows no further.
//!
//! QEMU has no right to the file: it gets a descriptor of it.

use super::live::Live;
use super::memory::{self, FAST, POLL, Progress};
use super::qmp::QmpError;
use super::untrusted::{Few, Text};
use holdfast_core::signal::RunState;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// What it takes: the place of each page, and a stop in the moment in which the VM stands still and its disk is still open.
const CAPABILITIES: [&str; 2] = [MAPPED, "pause-before-switchover"];
/// The capability of a QEMU that reads such a file, by its name.
pub const MAPPED: &str = "mapped-ram";
/// A guest that writes its memory faster than that is saved is held still after so long, and the rest is saved then.
const LIVE_MOST: Duration = Duration::from_secs(30);
/// What is left when it is held still must take no longer than this, in milliseconds, as far as QEMU can tell.
const REST: u64 = 50;
/// The same once `LIVE_MOST` is over: QEMU's own limit.
const ANY_REST: u64 = 2_000_000;
/// How long settings are set back, and a copy is given up, at most.
const ANSWER: Duration = Duration::from_secs(10);
/// What our descriptors are called in QEMU.
const OPAQUE: &str = "holdfast-memory";

#[derive(Debug, Deserialize)]
struct Capability {
    capability: Text,
    state: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FdSet {
    fdset_id: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Held {
    fdset_id: u64,
    #[serde(default)]
    fds: Few<HeldFd, 16>,
}

#[derive(Debug, Deserialize)]
struct HeldFd {
    #[serde(default)]
    opaque: Text,
}

async fn capabilities(live: &Live, deadline: Instant) -> Result<Vec<Capability>, QmpError> {
    let all: Few<Capability, 256> = live.call("query-migrate-capabilities", Value::Null, deadline).await?;
    Ok(all.kept)
}

/// Whether this QEMU saves memory so.
///
/// # Errors
/// As for every question to QEMU.
pub async fn is_offered(live: &Live, deadline: Instant) -> Result<bool, QmpError> {
    let known = capabilities(live, deadline).await?;
    Ok(CAPABILITIES.iter().all(|name| known.iter().any(|known| known.capability.as_str() == *name)))
}

async fn switch(live: &Live, to: &[(&str, bool)], deadline: Instant) -> Result<(), QmpError> {
    let words: Vec<Value> =
        to.iter().map(|(name, state)| json!({ "capability": name, "state": state })).collect();
    live.run("migrate-set-capabilities", json!({ "capabilities": words }), deadline).await
}

/// Gives QEMU a descriptor of a file; the address of it for a migration, and the set that it is in.
async fn lend(live: &Live, file: &File, deadline: Instant) -> Result<(String, u64), String> {
    let descriptor = file.try_clone().map_err(|e| format!("no descriptor of its file: {e}"))?;
    let words = json!({ "opaque": OPAQUE });
    let lent = live.hand("add-fd", words, descriptor.into(), deadline).await;
    let FdSet { fdset_id } = lent.map_err(|e| memory::told(&e))?;
    Ok((format!("file:/dev/fdset/{fdset_id}"), fdset_id))
}

/// Loads a file that was saved so into a VM that was started to wait for it. It may run already.
///
/// # Errors
/// A sentence.
pub async fn load(live: &Live, file: &File, deadline: Instant) -> Result<(), String> {
    let told = |e: QmpError| memory::told(&e);
    let offered = capabilities(live, deadline).await.map_err(told)?;
    if !offered.iter().any(|offered| offered.capability.as_str() == MAPPED) {
        return Err("it was saved by a newer QEMU".into());
    }
    switch(live, &[(MAPPED, true)], deadline).await.map_err(told)?;
    let (address, set) = lend(live, file, deadline).await?;
    live.run("migrate-incoming", json!({ "uri": address }), deadline).await.map_err(told)?;
    memory::until_it_runs(live, deadline).await?;
    switch(live, &[(MAPPED, false)], deadline).await.map_err(told)?;
    live.run("remove-fd", json!({ "fdset-id": set }), deadline).await.map_err(told)
}

/// A copy of a VM's memory that is under way. It must be brought to its end by [`Copying::finish`] or
/// [`Copying::give_up`], and then by [`Copying::clear`].
#[derive(Debug)]
pub struct Copying<'a> {
    live: &'a Live,
    file: File,
    set: u64,
    /// Settings as they were.
    before: Settings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Parameters {
    max_bandwidth: u64,
    downtime_limit: u64,
}

#[derive(Debug)]
struct Settings {
    capabilities: Vec<Capability>,
    parameters: Parameters,
}

impl Settings {
    async fn of(live: &Live, deadline: Instant) -> Result<Self, QmpError> {
        let parameters = live.call("query-migrate-parameters", Value::Null, deadline).await?;
        Ok(Self { capabilities: capabilities(live, deadline).await?, parameters })
    }

    async fn set_back(&self, live: &Live, deadline: Instant) -> Result<(), QmpError> {
        let was =
            |name: &str| self.capabilities.iter().any(|one| one.capability.as_str() == name && one.state);
        switch(live, &CAPABILITIES.map(|name| (name, was(name))), deadline).await?;
        let Parameters { max_bandwidth, downtime_limit } = self.parameters;
        let words = json!({ "max-bandwidth": max_bandwidth, "downtime-limit": downtime_limit });
        live.run("migrate-set-parameters", words, deadline).await
    }
}

impl<'a> Copying<'a> {
    /// Begins to save memory into a file of ours. The VM runs on.
    ///
    /// # Errors
    /// A sentence; then nothing of it is left but the file, if that was made.
    pub async fn begin(live: &'a Live, to: &Path, deadline: Instant) -> Result<Self, String> {
        let before = Settings::of(live, deadline).await.map_err(|e| memory::told(&e))?;
        let file = memory::create(to)?;
        let (address, set) = lend(live, &file, deadline).await?;
        let copying = Self { live, file, set, before };
        match copying.start(&address, deadline).await {
            Ok(()) => Ok(copying),
            Err(error) => {
                let why = memory::told(&error);
                copying.give_up().await;
                copying.clear().await;
                Err(why)
            }
        }
    }

    async fn start(&self, address: &str, deadline: Instant) -> Result<(), QmpError> {
        switch(self.live, &CAPABILITIES.map(|name| (name, true)), deadline).await?;
        let words = json!({ "max-bandwidth": FAST, "downtime-limit": REST });
        self.live.run("migrate-set-parameters", words, deadline).await?;
        self.live.run("migrate", json!({ "uri": address }), deadline).await
    }

    /// Waits until nearly all is saved and the VM stands still for the rest; since when it does, at the earliest.
    ///
    /// # Errors
    /// A sentence: it was not saved, or the VM, which was `before`, has stopped by itself.
    pub async fn until_still(&self, before: RunState, deadline: Instant) -> Result<Instant, String> {
        let hurry = Instant::now() + LIVE_MOST;
        let mut hurried = false;
        loop {
            let asked = Instant::now();
            let deadline = deadline.min(asked + ANSWER); // one that hangs must not keep others from ending it
            let state = self.live.state(deadline).await.map_err(|e| memory::told(&e))?;
            // One that has stopped by itself must not be set going by us.
            if state != before && state != RunState::Moving {
                return Err("it stopped by itself meanwhile".into());
            }
            match memory::progress(self.live, deadline).await?.status.as_str() {
                "setup" | "active" => {}
                "pre-switchover" => return Ok(asked),
                other => return Err(format!("QEMU says that it is {other} too early")),
            }
            if !hurried && asked > hurry {
                hurried = true;
                let words = json!({ "downtime-limit": ANY_REST });
                let told = self.live.run("migrate-set-parameters", words, deadline).await;
                told.map_err(|e| memory::told(&e))?;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Saves the rest while the VM stands still. It stays so.
    ///
    /// # Errors
    /// A sentence.
    pub async fn finish(&self, deadline: Instant) -> Result<(), String> {
        let words = json!({ "state": "pre-switchover" });
        self.live.run("migrate-continue", words, deadline).await.map_err(|e| memory::told(&e))?;
        while is_under_way(&memory::progress(self.live, deadline).await?) {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Gives it up: QEMU sets the VM going again, if it ran.
    pub async fn give_up(&self) {
        if let Err(why) = give_up(self.live).await {
            tracing::warn!(why, "the copy of a VM's memory may still be under way");
        }
    }

    /// Sets back what was set for it; the file.
    pub async fn clear(self) -> File {
        let deadline = Instant::now() + ANSWER;
        let back = self.before.set_back(self.live, deadline).await;
        let removed = self.live.run("remove-fd", json!({ "fdset-id": self.set }), deadline).await;
        if let Err(error) = back.and(removed) {
            let error = memory::told(&error);
            tracing::warn!(error, "what was set in QEMU to save its memory may still be set");
        }
        self.file
    }
}

fn is_under_way(progress: &Progress) -> bool {
    !matches!(progress.status.as_str(), "" | "none" | "completed" | "failed" | "cancelled")
}

async fn give_up(live: &Live) -> Result<(), String> {
    let deadline = Instant::now() + ANSWER;
    let mut asked = false;
    loop {
        let now: Progress =
            live.call("query-migrate", Value::Null, deadline).await.map_err(|e| memory::told(&e))?;
        if !is_under_way(&now) {
            return Ok(());
        }
        if !asked {
            asked = true;
            live.run("migrate_cancel", Value::Null, deadline).await.map_err(|e| memory::told(&e))?;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Ends what a daemon before us had under way, and sets back what it had set. Harmless where there is nothing.
///
/// # Errors
/// A sentence.
pub async fn clear_left(live: &Live) -> Result<(), String> {
    let deadline = Instant::now() + ANSWER;
    let told = |e: QmpError| memory::told(&e);
    if !is_offered(live, deadline).await.map_err(told)? {
        return Ok(());
    }
    give_up(live).await?;
    switch(live, &CAPABILITIES.map(|name| (name, false)), deadline).await.map_err(told)?;
    let held: Few<Held, 64> = live.call("query-fdsets", Value::Null, deadline).await.map_err(told)?;
    let ours = |held: &&Held| held.fds.kept.iter().any(|fd| fd.opaque.as_str() == OPAQUE);
    for set in held.kept.iter().filter(ours) {
        live.run("remove-fd", json!({ "fdset-id": set.fdset_id }), deadline).await.map_err(told)?;
    }
    Ok(())
}

/// Waits until a file is on its disk.
///
/// # Errors
/// As the file system says.
pub async fn sync(file: File) -> io::Result<()> {
    tokio::task::spawn_blocking(move || file.sync_all()).await.map_err(io::Error::other)?
}
