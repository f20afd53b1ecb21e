//! One VM of this driver: what is known of it, and who may give it orders.

use super::agent::Agent;
use super::backup::Reading;
use super::cgroup::Cgroup;
use super::configured::Specs;
use super::kept::KeptError;
use super::launch::{self, RunFolder};
use super::live::{Life, Live, Watch};
use super::process::{Presence, Process, read_small};
use super::program::{Able, Asked};
use super::qmp::QmpError;
use super::record::Record;
use super::spec::{Network, QemuVm};
use crate::{DriverError, Glimpse};
use holdfast_core::lease::{Death, DeathProof, Incarnation, Token};
use holdfast_core::subject::VmName;
use holdfast_witness::Eyewitness;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::Instant;

/// One VM.
#[derive(Debug)]
pub struct Machine {
    /// Its name.
    pub name: VmName,
    /// Where its sockets and files are.
    pub folder: RunFolder,
    /// Its guest agent.
    pub agent: Agent,
    pub(super) life: watch::Sender<Life>,
    pub(super) out: mpsc::Sender<Glimpse>,
    pub(super) specs: Mutex<Specs>,
    /// The highest incarnation and token durably seen, and what belongs to them (I3).
    record: Mutex<Record>,
    /// One order at a time.
    orders: Semaphore,
    /// One session with the agent at a time: its socket takes one client.
    sessions: Semaphore,
    /// One change of its snapshots at a time.
    pub(super) snapshots: Semaphore,
    pub(super) record_turn: Arc<super::snapshot::Turn>,
    /// A backup of this daemon reads a moment of its disk.
    pub(super) is_held_still: AtomicBool,
    /// Who reads its disk while it is off.
    reading: Mutex<Weak<Reading>>,
    /// When its guest shut it down in order, if it did so at its last end, and we saw it.
    pub(super) shut_down: watch::Sender<Option<SystemTime>>,
    /// It answered when it was asked last.
    agent_heard: AtomicBool,
    /// What its QEMU can do.
    asked: Arc<Asked>,
}

/// The processes on this host that some driver like this one has started, each with its command line: the
/// process table is read once for all VMs.
pub struct Starts(Result<Vec<(u32, Vec<String>)>, String>);

impl Starts {
    /// As they are now.
    pub fn now() -> Self {
        let entries = match std::fs::read_dir("/proc") {
            Ok(entries) => entries.flatten(),
            Err(error) => return Self(Err(format!("cannot search the process table: {error}"))),
        };
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(Ok(pids.filter_map(|pid| Some((pid, Self::words(pid)?))).collect()))
    }

    fn words(pid: u32) -> Option<Vec<String>> {
        let line = read_small(&format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<String> = line.split('\0').map(ToOwned::to_owned).collect();
        launch::is_marked(&words).then_some(words)
    }
}

/// Our eyes close; the VM runs on (I7).
impl Drop for Machine {
    fn drop(&mut self) {
        self.life.send_replace(Life::Unclear("not looked at any more".into()));
    }
}

impl Machine {
    /// Reads what is on record and adopts the VM if it runs.
    pub fn open(spec: QemuVm, folder: RunFolder, out: mpsc::Sender<Glimpse>, starts: &Starts) -> Self {
        let name = spec.name.clone();
        let specs = Mutex::new(Specs::of(spec));
        let agent = Agent::new(folder.agent(), std::process::id() << 8);
        let (life, _) = watch::channel(Life::Unclear("not looked at yet".into()));
        let record = Mutex::default();
        let [orders, sessions, snapshots] = [(); 3].map(|()| Semaphore::new(1));
        let agent_heard = AtomicBool::new(false);
        let asked = Arc::default();
        let machine = Self {
            name,
            folder,
            agent,
            life,
            out,
            specs,
            record,
            orders,
            sessions,
            snapshots,
            record_turn: Arc::default(),
            is_held_still: AtomicBool::new(false),
            reading: Mutex::default(),
            shut_down: watch::Sender::new(None),
            agent_heard,
            asked,
        };
        machine.look(starts);
        machine
    }

    /// What the QEMU can do that its next start takes.
    ///
    /// # Errors
    /// A sentence: it does not run, or does not say.
    pub async fn able(&self) -> Result<Able, String> {
        let (spec, asked) = (self.spec(), Arc::clone(&self.asked));
        let asked = tokio::task::spawn_blocking(move || asked.able(&spec));
        asked.await.map_err(|error| error.to_string())?
    }

    /// Its disk is read by this, until that is gone.
    pub fn read_by(&self, reading: &Arc<Reading>) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(reading);
    }

    /// Who reads its disk.
    pub fn reading(&self) -> Option<Arc<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Finds out whether it lives, from its record and the process table. Only for a VM that nobody
    /// watches yet.
    pub fn look(&self, starts: &Starts) {
        let found = match Record::read(&self.folder.record()) {
            Ok(record) => self.find(record, starts),
            Err(error) => self.find_without(&error, starts),
        };
        match found {
            Ok(Some(process)) => drop(self.watch(process)),
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(vm = %self.name, why, "a VM is neither known to run nor to be dead");
                self.life.send_replace(Life::Unclear(why));
            }
        }
    }

    fn find(&self, record: Record, starts: &Starts) -> Result<Option<Process>, String> {
        let incarnation = record.incarnation;
        let (id, group) = (record.process.clone(), record.cgroup.clone());
        self.keep(record);
        let death = match id {
            None => match self.find_by_command_line(starts)? {
                Some(process) => return Ok(Some(process)),
                None if incarnation != Incarnation::NONE => Death::StartRefused,
                None => self.never_started()?,
            },
            Some(id) => {
                match Process::find(&id).map_err(|e| format!("cannot look for process {}: {e}", id.pid))? {
                    Presence::Here(process) => return Ok(Some(process)),
                    Presence::Gone(death) => proven(death, id.pid, group.clone().map(Cgroup::at).as_ref())?,
                }
            }
        };
        if let Some(group) = group {
            Cgroup::at(group).remove(); // nobody watched when it died
        }
        self.life.send_replace(Life::Dead(DeathProof::witnessed(
            Eyewitness::here(),
            self.name.clone(),
            incarnation,
            death,
        )));
        Ok(None)
    }

    /// The record is of no use: only a process that says itself which start it is can be adopted.
    fn find_without(&self, error: &KeptError, starts: &Starts) -> Result<Option<Process>, String> {
        let why = error_chain(error);
        if matches!(error, KeptError::Newer { .. }) {
            return Err(why); // I22: left untouched
        }
        self.find_by_command_line(starts)?.map(Some).ok_or(why)
    }

    /// Nothing on record: it never ran, unless a damaged record was set aside and a person has not looked.
    fn never_started(&self) -> Result<Death, String> {
        let files = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let damaged =
            |file: &std::fs::DirEntry| file.file_name().to_string_lossy().starts_with("run.damaged");
        match files.into_iter().find(damaged) {
            Some(file) => Err(format!(
                "its run record was damaged; nothing of it runs now: to go on, move {} away",
                file.path().display()
            )),
            None => Ok(Death::NeverStarted),
        }
    }

    /// Looks for a process that was started for this run folder, and keeps what it says of itself.
    fn find_by_command_line(&self, starts: &Starts) -> Result<Option<Process>, String> {
        for (pid, words) in starts.0.as_ref().map_err(Clone::clone)? {
            let pid = *pid;
            let Some((incarnation, token)) = launch::recognize(&self.folder, words) else { continue };
            let Ok(process) = Process::hold(pid) else { continue };
            if Starts::words(pid).as_ref() != Some(words) {
                continue; // that number is another process's by now
            }
            self.files().must_be_open_in(pid)?;
            let mut record = self.record();
            record.incarnation = incarnation.max(record.incarnation);
            record.token = token.max(record.token);
            record.process = Some(process.id().clone());
            record.cgroup = self.group().filter(|group| group.add(pid).is_ok()).map(|g| g.path().to_owned());
            tracing::warn!(vm = %self.name, pid, "a VM without a record of its start was found and adopted");
            let written = record.write(&self.folder.record());
            self.keep(record);
            return written.map(|()| Some(process)).map_err(|e| error_chain(&e));
        }
        Ok(None)
    }

    /// Watches a process as the running VM.
    pub fn watch(&self, process: Process) -> Arc<Live> {
        let record = self.record();
        Watch {
            vm: self.name.clone(),
            incarnation: record.incarnation,
            process: Arc::new(process),
            cgroup: record.cgroup.map(Cgroup::at),
            control: self.folder.control(),
            out: self.out.clone(),
            life: self.life.clone(),
            shut_down: self.shut_down.clone(),
        }
        .begin()
    }

    /// What is on record.
    pub fn record(&self) -> Record {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where ports of the guest are reached: as chosen at the last start; before the first one, those that
    /// the configuration fixes.
    pub fn ports(&self) -> Vec<(u16, SocketAddr)> {
        let record = self.record();
        let spec = self.spec();
        let fixed = match &spec.network {
            Network::User(forwards) if record.incarnation == Incarnation::NONE => forwards.as_slice(),
            Network::User(_) | Network::Tap { .. } | Network::None => &[],
        };
        let fixed = fixed.iter().filter(|forward| forward.listen.port() != 0);
        let chosen = record.ports.iter().map(|port| (port.guest, port.listen));
        chosen.chain(fixed.map(|forward| (forward.guest, forward.listen))).collect()
    }

    fn keep(&self, record: Record) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// Writes a new record, durably, then takes it as known.
    ///
    /// # Errors
    /// It was not written, and nothing has changed.
    pub async fn write(&self, record: Record) -> Result<(), DriverError> {
        let (path, copy) = (self.folder.record(), record.clone());
        let written = tokio::task::spawn_blocking(move || copy.write(&path)).await;
        let why = match written {
            Ok(Ok(())) => {
                self.keep(record);
                return Ok(());
            }
            Ok(Err(error)) => error_chain(&error),
            Err(error) => error.to_string(),
        };
        Err(DriverError::Refused { what: "give an order to", vm: self.name.clone(), why })
    }

    /// Waits for the turn to give an order.
    ///
    /// # Errors
    /// Another order is not done by `deadline`; certainly nothing was done.
    pub async fn turn(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, DriverError> {
        let turn = tokio::time::timeout_at(deadline, self.orders.acquire()).await;
        turn.ok()
            .and_then(Result::ok)
            .ok_or_else(|| self.refused("give an order to", "another order is not done"))
    }

    /// Waits for the turn to talk to the agent; `None` if it does not come by `deadline`.
    pub async fn session(&self, deadline: Instant) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout_at(deadline, self.sessions.acquire()).await.ok()?.ok()
    }

    /// Notes whether the agent answered.
    pub fn note_agent(&self, heard: bool) {
        self.agent_heard.store(heard, Ordering::Relaxed);
    }

    /// Whether the agent answered when it was asked last.
    pub fn agent_was_heard(&self) -> bool {
        self.agent_heard.load(Ordering::Relaxed)
    }

    /// Whether an order is under way.
    pub fn has_order(&self) -> bool {
        self.orders.available_permits() == 0
    }

    /// The running VM.
    ///
    /// # Errors
    /// [`DriverError::NotRunning`], or refused if nobody knows.
    pub fn running(&self) -> Result<Arc<Live>, DriverError> {
        match &*self.life.borrow() {
            Life::Running(live) => Ok(Arc::clone(live)),
            Life::Dead(_) => Err(DriverError::NotRunning(self.name.clone())),
            Life::Unclear(why) => Err(self.refused("give an order to", why.clone())),
        }
    }

    /// The running VM, if the order is for it and not older than what was seen (I3). A newer token is
    /// written down first.
    ///
    /// # Errors
    /// [`DriverError::Stale`], or as for [`Machine::running`] and [`Machine::write`].
    pub async fn authorize(&self, incarnation: Incarnation, token: Token) -> Result<Arc<Live>, DriverError> {
        let record = self.record();
        if incarnation < record.incarnation || token < record.token {
            return Err(self.stale(incarnation, token));
        }
        let live = self.running()?;
        if incarnation != live.incarnation {
            return Err(
                self.refused("give an order to", format!("{} runs, not {incarnation}", live.incarnation))
            );
        }
        if token > record.token {
            self.write(Record { token, ..record }).await?;
        }
        Ok(live)
    }

    /// An order that is older than what was seen.
    pub fn stale(&self, incarnation: Incarnation, token: Token) -> DriverError {
        let Record { incarnation: newest, token: highest, .. } = self.record();
        DriverError::Stale { vm: self.name.clone(), named: (incarnation, token), newest: (newest, highest) }
    }

    /// Certainly not done.
    pub fn refused(&self, what: &'static str, why: impl Into<String>) -> DriverError {
        DriverError::Refused { what, vm: self.name.clone(), why: why.into() }
    }

    /// Nobody knows whether it was done.
    pub fn unknown(&self, what: &'static str, why: impl Into<String>) -> DriverError {
        DriverError::Unknown { what, vm: self.name.clone(), why: why.into() }
    }

    /// What became of an order that QEMU did not confirm.
    pub fn unconfirmed(&self, what: &'static str, limit: Duration, error: &QmpError) -> DriverError {
        if matches!(error, QmpError::Silent { asked: true, .. }) {
            self.late(what, limit)
        } else if error.is_unknown() {
            self.unknown(what, error_chain(error))
        } else {
            self.refused(what, error_chain(error))
        }
    }

    /// No answer in time.
    pub fn late(&self, what: &'static str, limit: Duration) -> DriverError {
        DriverError::Late { what, vm: self.name.clone(), limit }
    }
}

/// An error with its causes, for people.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// A process that is gone may have left others behind that still have the disk open: where it had a control group, the
/// VM is dead only if that is empty, too (SAFETY section 3).
fn proven(death: Death, pid: u32, group: Option<&Cgroup>) -> Result<Death, String> {
    let Some(group) = group.filter(|_| death != Death::HostRebooted) else { return Ok(death) };
    let told = |e| format!("process {pid} is gone, and its control group cannot be asked: {e}");
    let living = group.living().map_err(told)?;
    if !living.is_empty() {
        let pids: Vec<String> = living.iter().map(ToString::to_string).collect();
        return Err(format!(
            "process {pid} is gone and has left others in its control group that may still write: {}; end them",
            pids.join(", ")
        ));
    }
    // How it ended says more than that nothing is left of it.
    Ok(if matches!(death, Death::Exited { .. }) { death } else { Death::GroupEmpty { pid } })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use holdfast_core::lease::ExitStatus;

    #[tokio::test]
    async fn a_vm_is_dead_only_if_its_control_group_is_empty_too() {
        let folder = tempfile::tempdir().unwrap();
        let (group, pid) = (Cgroup::at(folder.path().to_owned()), 4_000_001);
        let gone = || Death::NotFound { pid };
        let members = |text: &str| std::fs::write(folder.path().join("cgroup.procs"), text).unwrap();
        assert!(proven(gone(), pid, Some(&group)).unwrap_err().contains("cannot be asked"));
        members(&format!("{}\n", std::process::id()));
        let left = proven(gone(), pid, Some(&group)).unwrap_err();
        assert!(left.contains(&std::process::id().to_string()), "{left}");
        members("");
        assert_eq!(proven(gone(), pid, Some(&group)), Ok(Death::GroupEmpty { pid }));
        let exited = || Death::Exited { pid, status: ExitStatus::Signal(9) };
        assert_eq!(proven(exited(), pid, Some(&group)), Ok(exited()));
        assert_eq!(proven(gone(), pid, None), Ok(gone()));
        members(&format!("{}\n", std::process::id()));
        assert_eq!(proven(Death::HostRebooted, pid, Some(&group)), Ok(Death::HostRebooted));
    }
}
