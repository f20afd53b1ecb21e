//! The world as it truly is: one host, its VMs, their storage, and what they do by themselves.
//!
//! The world knows nothing of Holdfast. What it says unasked (events, console lines, a process that
//! ends) it puts into `heard`; what it will do later, into `later`.

use crate::guest::{Life, Stage};
use crate::lease::LeaseStore;
use crate::machine::{Machine, Process, RunRecord};
use crate::story::Story;
use holdfast_core::action::Operation;
use holdfast_core::lease::{Death, DeathProof, ExitStatus, Incarnation, Sighting, Token};
use holdfast_core::signal::{
    ConsoleSign, Finding, FindingKind, HypervisorSign, LogSign, NetworkSign, ProcessSign, ProcessState,
    RunState, Seen,
};
use holdfast_core::subject::{HostName, VmName};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_witness::Eyewitness;
use std::collections::BTreeMap;

/// Something that can be seen of a VM, without a time.
#[derive(Clone, Debug)]
pub(crate) struct Glimpse {
    pub(crate) vm: usize,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) app: Option<usize>,
    pub(crate) seen: Seen,
}

/// What the world will do by itself.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// A boot comes this far.
    Boot(usize, u64, Stage),
    /// A killed process ends.
    Exit(usize, Incarnation, ExitStatus),
    /// The guest's next request meets its dead storage.
    MeetStorage(usize, Incarnation),
    /// The guest's kernel meets damage on its disk again.
    MeetDamage(usize, u64),
    /// The virtual watchdog bites if the guest still hangs.
    Bite(usize, u64),
    /// A restarted application is ready.
    AppReady(usize, usize, u64),
    /// A guest that was asked to has powered down.
    PowerDown(usize, u64),
}

/// The host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: HostName,
    pub(crate) boot: u32,
    pub(crate) pressed: bool,
    pub(crate) slow: bool,
    pub(crate) disk_full: bool,
    pub(crate) state_full: bool,
    /// A small write takes seconds, or fails.
    pub(crate) disk_slow: bool,
    pub(crate) disk_gone: bool,
    /// Nobody can ask how full its disks are.
    pub(crate) disks_unknown: bool,
    /// Wall clock minus time since boot, in seconds.
    pub(crate) wall: i64,
}

/// The world.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) seed: u64,
    pub(crate) host: Host,
    pub(crate) machines: Vec<Machine>,
    pub(crate) leases: LeaseStore,
    pub(crate) heard: Vec<Glimpse>,
    pub(crate) later: Vec<(Timestamp, Plan)>,
    names: BTreeMap<VmName, usize>,
    last_pid: u32,
}

/// How long the memory of a small, and of a large process takes to be given back.
const TEARDOWN: Duration = Duration::from_millis(50);
const SLOW_TEARDOWN: Duration = Duration::from_secs(4);
/// How soon a guest's request meets dead storage.
const NEXT_REQUEST: Duration = Duration::from_millis(150);
/// How long an application takes to start.
const APP_START: Duration = Duration::from_millis(1_500);

impl World {
    pub(crate) fn new(story: &Story, seed: u64) -> Self {
        let machines: Vec<Machine> = story.vms.iter().map(Machine::new).collect();
        let names = machines.iter().enumerate().map(|(at, m)| (m.setup.name.clone(), at)).collect();
        let mut leases = LeaseStore::new(story.host.clone());
        for machine in &machines {
            if machine.setup.found == crate::story::FoundAs::Running {
                leases.adopt(&machine.setup.name, Sighting::of(Eyewitness::here(), Incarnation(1)));
            }
        }
        let mut world = Self {
            now: Timestamp::ZERO,
            seed,
            host: Host {
                name: story.host.clone(),
                boot: 1,
                pressed: false,
                slow: false,
                disk_full: false,
                state_full: false,
                disk_slow: false,
                disk_gone: false,
                disks_unknown: false,
                wall: 1_700_000_000,
            },
            machines,
            leases,
            heard: Vec::new(),
            later: Vec::new(),
            names,
            last_pid: 1_000,
        };
        for at in 0..world.machines.len() {
            let machine = &mut world.machines[at];
            if let Some(lease) = world.leases.of(&machine.setup.name) {
                machine.record.token = lease.token();
            }
            if let Some(process) = &mut machine.process {
                process.pid = 100 + at as u32;
                machine.record.pid = process.pid;
            }
        }
        world
    }

    pub(crate) fn index(&self, name: &VmName) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Remembers which VMs are ill now. Called before anything changes.
    pub(crate) fn note_ill(&mut self) {
        let now = self.now;
        for machine in self.machines.iter_mut().filter(|machine| machine.is_ill()) {
            machine.ill_at = Some(now);
        }
    }

    pub(crate) fn tell(&mut self, vm: usize, seen: Seen) {
        let incarnation = self.machines[vm].incarnation();
        self.heard.push(Glimpse { vm, incarnation, app: None, seen });
    }

    /// A hypervisor that does not read its socket does not write to it either.
    fn tell_hypervisor(&mut self, vm: usize, sign: HypervisorSign) {
        if self.machines[vm].hears() {
            self.tell(vm, Seen::Hypervisor(sign));
        }
    }

    pub(crate) fn print(&mut self, vm: usize, kind: FindingKind, line: &str) {
        let finding = Finding { kind, rule: format!("{kind:?}").to_lowercase(), line: line.to_owned() };
        self.tell(vm, Seen::Console(ConsoleSign::Finding(finding)));
    }

    /// A line of a log that is not the console.
    pub(crate) fn log(&mut self, vm: usize, app: Option<usize>, kind: FindingKind, line: &str) {
        let finding = Finding { kind, rule: format!("{kind:?}").to_lowercase(), line: line.to_owned() };
        let source = if app.is_some() { "file postgresql.log" } else { "hypervisor" };
        let seen = Seen::Log(LogSign::Finding { source: source.to_owned(), finding });
        let incarnation = self.machines[vm].incarnation();
        self.heard.push(Glimpse { vm, incarnation, app, seen });
    }

    pub(crate) fn plan(&mut self, after: Duration, plan: Plan) {
        self.later.push((self.now + after, plan));
    }

    /// What the world had planned happens.
    pub(crate) fn happen(&mut self, plan: &Plan) {
        self.note_ill();
        match plan {
            Plan::Boot(vm, boot, stage) => self.boot_goes_on(*vm, *boot, *stage),
            Plan::Exit(vm, incarnation, status) => self.end_process(*vm, *incarnation, *status),
            Plan::MeetDamage(vm, boot) => self.meet_damage(*vm, *boot),
            Plan::MeetStorage(vm, incarnation) => self.meet_storage(*vm, *incarnation),
            Plan::Bite(vm, boot) => self.bite(*vm, *boot),
            Plan::AppReady(vm, app, turn) => self.app_ready(*vm, *app, *turn),
            Plan::PowerDown(vm, boot) => {
                let machine = &self.machines[*vm];
                if machine.guest.boots == *boot && machine.guest.life == Life::Up && machine.executes() {
                    self.power_down(*vm);
                }
            }
        }
    }

    pub(crate) fn enter_state(&mut self, vm: usize, state: RunState) {
        if self.machines[vm].process.is_some() && self.machines[vm].hypervisor.state != state {
            self.machines[vm].hypervisor.state = state;
            self.tell_hypervisor(vm, HypervisorSign::State(state));
        }
    }

    /// Power-on, or a reset in place.
    fn begin_boot(&mut self, vm: usize) {
        let machine = &mut self.machines[vm];
        machine.guest.boot();
        if machine.guest.wedged {
            return;
        }
        machine.guest.booted = self.now;
        let (boot, whole) = (machine.guest.boots, machine.guest.boot_time(&machine.setup));
        for (stage, percent) in Stage::PLAN {
            self.plan(whole * percent / 100, Plan::Boot(vm, boot, stage));
        }
    }

    fn boot_goes_on(&mut self, vm: usize, boot: u64, stage: Stage) {
        use crate::faults::GuestFault;
        let machine = &self.machines[vm];
        if machine.guest.boots != boot || !matches!(machine.guest.life, Life::Booting(_)) {
            return;
        }
        if !machine.executes() {
            return self.plan(Duration::from_millis(500), Plan::Boot(vm, boot, stage));
        }
        self.machines[vm].guest.life = Life::Booting(stage);
        self.machines[vm].guest.has_agent |= stage == Stage::Agent;
        match (stage, self.machines[vm].guest.boot_fault) {
            (Stage::Kernel, _) => {
                self.print(vm, FindingKind::BootStarted, "Linux version 6.1.0");
                self.meet_damage(vm, boot);
            }
            (Stage::Middle, Some(GuestFault::CannotBoot)) => self.hang(vm, false),
            (Stage::Middle, Some(GuestFault::LosesRoot)) => {
                self.print(vm, FindingKind::RootLost, "VFS: Unable to mount root fs on unknown-block(0,0)");
                self.hang(vm, false);
            }
            (Stage::Middle, Some(GuestFault::PanicsAtBoot)) => self.panic(vm, true),
            (Stage::Middle, Some(GuestFault::ResetsAtBoot)) => {
                self.machines[vm].guest.reset_itself = Some(self.now);
                self.reset(vm, true);
            }
            (Stage::Up, _) => {
                self.machines[vm].guest.arrive();
                self.print(vm, FindingKind::BootFinished, "Reached target Multi-User System");
            }
            (Stage::Firmware | Stage::Middle | Stage::Network | Stage::Agent | Stage::Starting, _) => {}
        }
    }

    /// Nothing inside answers any more.
    pub(crate) fn hang(&mut self, vm: usize, working: bool) {
        let machine = &mut self.machines[vm];
        if machine.guest.life == Life::Off {
            return;
        }
        machine.guest.life = Life::Hung { working };
        let boot = machine.guest.boots;
        if let Some(after) = machine.setup.watchdog {
            self.plan(after, Plan::Bite(vm, boot));
        }
    }

    fn bite(&mut self, vm: usize, boot: u64) {
        let guest = &self.machines[vm].guest;
        if guest.boots == boot && matches!(guest.life, Life::Hung { .. }) && self.machines[vm].executes() {
            self.tell_hypervisor(vm, HypervisorSign::WatchdogFired);
            self.enter_state(vm, RunState::Watchdog);
        }
    }

    /// The kernel stops itself.
    pub(crate) fn panic(&mut self, vm: usize, reported: bool) {
        if self.machines[vm].guest.life == Life::Off {
            return;
        }
        self.print(vm, FindingKind::KernelPanic, "Kernel panic - not syncing: Fatal exception");
        self.machines[vm].guest.life = Life::Panicked;
        if reported {
            self.tell_hypervisor(vm, HypervisorSign::Panicked);
            self.enter_state(vm, RunState::GuestPanicked);
        }
    }

    /// The machine is reset.
    pub(crate) fn reset(&mut self, vm: usize, by_guest: bool) {
        self.tell_hypervisor(vm, HypervisorSign::Reset { by_guest });
        self.begin_boot(vm);
        self.enter_state(vm, RunState::Running);
    }

    /// The guest powers down by itself.
    pub(crate) fn power_down(&mut self, vm: usize) {
        self.tell_hypervisor(vm, HypervisorSign::Shutdown { by_guest: true });
        self.kill(vm, ExitStatus::Code(0));
    }

    /// Ends the process: at once, or as soon as the kernel can.
    pub(crate) fn kill(&mut self, vm: usize, status: ExitStatus) {
        let machine = &mut self.machines[vm];
        let Some(process) = machine.process.as_mut().filter(|process| !process.dying) else { return };
        process.dying = true;
        let (incarnation, teardown) =
            (process.incarnation, if machine.slow_death { SLOW_TEARDOWN } else { TEARDOWN });
        machine.guest.lose_power();
        if !machine.unkillable {
            self.plan(teardown, Plan::Exit(vm, incarnation, status));
        }
    }

    fn end_process(&mut self, vm: usize, incarnation: Incarnation, status: ExitStatus) {
        if self.machines[vm].incarnation() != Some(incarnation) || self.machines[vm].unkillable {
            return;
        }
        let Some(process) = self.machines[vm].process.take() else { return };
        let machine = &mut self.machines[vm];
        machine.guest.lose_power();
        machine.hypervisor.queued.clear();
        let death = Death::Exited { pid: process.pid, status };
        let proof = DeathProof::witnessed(Eyewitness::here(), machine.setup.name.clone(), incarnation, death);
        let seen = Seen::Process(ProcessSign::Exited { proof, status });
        self.heard.push(Glimpse { vm, incarnation: Some(incarnation), app: None, seen });
    }

    /// The storage under its disk works.
    pub(crate) fn storage_works(&self, vm: usize) -> bool {
        self.machines[vm].storage && !self.host.disk_full
    }

    pub(crate) fn use_storage_soon(&mut self, vm: usize) {
        if let Some(incarnation) = self.machines[vm].incarnation() {
            self.plan(NEXT_REQUEST, Plan::MeetStorage(vm, incarnation));
        }
    }

    fn meet_storage(&mut self, vm: usize, incarnation: Incarnation) {
        if self.machines[vm].incarnation() != Some(incarnation) || self.storage_works(vm) {
            return;
        }
        if self.machines[vm].executes() && self.machines[vm].guest.is_writing() {
            let no_space = self.host.disk_full;
            self.tell_hypervisor(vm, HypervisorSign::IoError { device: "vd0".into(), no_space });
            self.enter_state(vm, RunState::IoError);
        } else if self.machines[vm].hypervisor.state != RunState::IoError {
            self.plan(Duration::from_secs(1), Plan::MeetStorage(vm, incarnation));
        }
    }

    /// The kernel of a guest reads what is damaged, takes it out of what is free, and will meet it again.
    pub(crate) fn meet_damage(&mut self, vm: usize, boot: u64) {
        let guest = &self.machines[vm].guest;
        if !guest.damaged || guest.boots != boot || !self.machines[vm].executes() {
            return;
        }
        let line = "EXT4-fs error (device vda): ext4_validate_block_bitmap: bg 3: bad block bitmap checksum";
        self.print(vm, FindingKind::FsError, line);
        self.print(vm, FindingKind::DiskFull, "could not write lock file: No space left on device");
        self.plan(Duration::from_secs(60), Plan::MeetDamage(vm, boot));
    }

    /// Restarts an application, as its restart command does.
    pub(crate) fn restart_app(&mut self, vm: usize, app: usize) {
        let guest = &mut self.machines[vm].guest;
        guest.low_memory = false;
        guest.apps[app].enter(crate::guest::AppState::Starting);
        let turn = guest.apps[app].turn;
        self.plan(APP_START, Plan::AppReady(vm, app, turn));
    }

    fn app_ready(&mut self, vm: usize, app: usize, turn: u64) {
        if self.machines[vm].guest.apps[app].turn != turn {
            return;
        }
        if !self.machines[vm].executes() {
            return self.plan(Duration::from_millis(500), Plan::AppReady(vm, app, turn));
        }
        let guest = &mut self.machines[vm].guest;
        let state = if guest.read_only { crate::guest::AppState::Dead } else { guest.apps[app].comes_up() };
        guest.apps[app].enter(state);
    }

    /// The hypervisor carries out a command that it has read.
    pub(crate) fn operate(&mut self, vm: usize, operation: &Operation) {
        match operation {
            Operation::Reset => self.reset(vm, false),
            Operation::Continue => {
                self.enter_state(vm, RunState::Running);
                if !self.storage_works(vm) {
                    self.use_storage_soon(vm);
                }
            }
            Operation::Pause => self.enter_state(vm, RunState::Paused),
            Operation::LinkUp | Operation::LinkDown => {
                let up = *operation == Operation::LinkUp;
                self.machines[vm].cable = up;
                self.tell(vm, Seen::Network(NetworkSign::Link { up }));
            }
            Operation::Thaw => self.machines[vm].guest.frozen = false,
            Operation::Shutdown | Operation::RestartApp(_) => {} // the guest's own doing: see `driver.rs`
        }
    }

    /// Commands that waited for the hypervisor to read them.
    pub(crate) fn read_queue(&mut self, vm: usize) {
        if self.machines[vm].hears() {
            let queued = std::mem::take(&mut self.machines[vm].hypervisor.queued);
            queued.iter().for_each(|operation| self.operate(vm, operation));
        }
    }

    /// Starts a process for this incarnation, or says why not.
    pub(crate) fn start(&mut self, vm: usize, incarnation: Incarnation, token: Token) -> Result<u32, String> {
        self.last_pid += 1;
        let (pid, now, boot) = (self.last_pid, self.now, self.host.boot);
        let machine = &mut self.machines[vm];
        if machine.process.is_some() {
            return Err("exit code 1: Failed to get \"write\" lock: another process uses the image".into());
        }
        machine.record.started = incarnation;
        machine.record.token = token;
        if machine.hypervisor.refuses_start {
            // It was a process for a moment, and its end is seen like any other.
            let (name, status) = (machine.setup.name.clone(), ExitStatus::Code(1));
            let proof =
                DeathProof::witnessed(Eyewitness::here(), name, incarnation, Death::Exited { pid, status });
            let seen = Seen::Process(ProcessSign::Exited { proof, status });
            self.heard.push(Glimpse { vm, incarnation: Some(incarnation), app: None, seen });
            return Err("exit code 1: cannot set up guest memory: Cannot allocate memory".into());
        }
        machine.process =
            Some(Process { pid, incarnation, state: ProcessState::Running, dying: false, since: now });
        machine.record = RunRecord { pid, boot, ..machine.record };
        machine.hypervisor.state = RunState::Running;
        machine.cable = true;
        if std::mem::take(&mut self.machines[vm].snapshots.resumes) {
            let guest = &mut self.machines[vm].guest;
            guest.be_up();
            guest.booted = self.now;
        } else {
            self.begin_boot(vm);
        }
        if !self.storage_works(vm) {
            self.use_storage_soon(vm);
        }
        Ok(pid)
    }
}
