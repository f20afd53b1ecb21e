//! Does to the world what a story says.

use crate::faults::{
    AgentFault, AppFault, CableFault, DiskFault, GuestFault, Happening, HostFault, HypervisorFault,
    ProcessFault, Quirk,
};
use crate::guest::{AppState, Life};
use crate::sense::host_glimpse;
use crate::world::{Glimpse, World};
use holdfast_core::lease::ExitStatus;
use holdfast_core::signal::{
    Finding, FindingKind, HostSign, HypervisorSign, LogSign, NetworkSign, ProcessState, RunState, Seen,
    Unusual,
};
use holdfast_core::subject::{AppName, VmName};

const SIGKILL: ExitStatus = ExitStatus::Signal(9);

impl World {
    /// Something happens. What concerns Holdfast itself is not the world's business and is left alone.
    pub(crate) fn strike(&mut self, happening: &Happening) {
        self.note_ill();
        let at = |name: &VmName| self.index(name);
        match happening {
            Happening::Process(vm, fault) => at(vm).map_or((), |vm| self.strike_process(vm, *fault)),
            Happening::Hypervisor(vm, fault) => at(vm).map_or((), |vm| self.strike_hypervisor(vm, *fault)),
            Happening::Guest(vm, fault) => at(vm).map_or((), |vm| self.strike_guest(vm, *fault)),
            Happening::Agent(vm, fault) => at(vm).map_or((), |vm| self.strike_agent(vm, *fault)),
            Happening::App(vm, app, fault) => at(vm).map_or((), |vm| self.strike_app(vm, app, *fault)),
            Happening::Cable(vm, fault) => {
                let Some(vm) = at(vm) else { return };
                let up = *fault == CableFault::Plugged;
                self.machines[vm].cable = up;
                self.tell(vm, Seen::Network(NetworkSign::Link { up }));
            }
            Happening::Disk(vm, fault) => at(vm).map_or((), |vm| self.strike_disk(vm, *fault)),
            Happening::Order(order, vm, quirk) => {
                let Some(vm) = at(vm) else { return };
                self.machines[vm].quirks.remove(order);
                if *quirk != Quirk::Works {
                    self.machines[vm].quirks.insert(order.clone(), *quirk);
                }
            }
            Happening::Host(fault) => self.strike_host(*fault),
            Happening::WallClock(by) => self.host.wall = self.host.wall.saturating_add(*by),
            Happening::Daemon(_) | Happening::Reload(_) | Happening::Person(..) => {}
            Happening::Repair | Happening::RestartIll => {}
        }
    }

    /// An application only speaks where it runs, and is dead where nothing does.
    fn strike_app(&mut self, vm: usize, app: &AppName, fault: AppFault) {
        let running = self.machines[vm].guest.life == Life::Up && !self.machines[vm].guest.read_only;
        let Some(app) = self.machines[vm].guest.app(app) else { return };
        match words(fault) {
            Some(words) if running => self.log_of_app(vm, app, words),
            Some(_) => {}
            None => {
                let state = &mut self.machines[vm].guest.apps[app];
                state.strike(fault);
                if !running {
                    state.enter(AppState::Dead);
                }
            }
        }
    }

    fn strike_disk(&mut self, vm: usize, fault: DiskFault) {
        match fault {
            DiskFault::Damaged => self.find_damage(vm),
            DiskFault::LogsDamage => {
                let line = "qcow2: Marking image as corrupt: Preventing invalid write";
                self.log(vm, None, FindingKind::ImageCorrupt, line);
            }
            DiskFault::Taken => self.machines[vm].taken = true,
            DiskFault::Free => self.machines[vm].taken = false,
            DiskFault::Deleted => self.machines[vm].deleted = true,
            DiskFault::RepositoryAway | DiskFault::RepositoryBack => {
                self.machines[vm].snapshots.out_of_reach = fault == DiskFault::RepositoryAway;
            }
            DiskFault::NoSnapshots | DiskFault::Snapshots => {
                self.machines[vm].snapshots.fails = fault == DiskFault::NoSnapshots;
            }
            DiskFault::Fails | DiskFault::Works => {
                self.machines[vm].storage = fault == DiskFault::Works;
                self.use_storage_soon(vm);
            }
        }
    }

    /// The hypervisor marks the image as damaged, and lets no request through any more.
    fn find_damage(&mut self, vm: usize) {
        let (device, text) = ("disk0".to_owned(), "L2 table offset 0x50600 unaligned".to_owned());
        if self.machines[vm].hears() {
            self.tell(vm, Seen::Hypervisor(HypervisorSign::ImageCorrupt { device, text }));
        }
        self.machines[vm].storage = false;
        self.use_storage_soon(vm);
    }

    fn log_of_app(&mut self, vm: usize, app: usize, words: Words) {
        match words {
            Words::Known(kind, line) => self.log(vm, Some(app), kind, line),
            Words::Unknown(text) => {
                let (source, text) = ("file postgresql.log".to_owned(), text.to_owned());
                let sign = LogSign::Unusual { source, how: Unusual::New, surprise: 60, text };
                let incarnation = self.machines[vm].incarnation();
                self.heard.push(Glimpse { vm, incarnation, app: Some(app), seen: Seen::Log(sign) });
            }
        }
    }

    fn strike_process(&mut self, vm: usize, fault: ProcessFault) {
        match fault {
            ProcessFault::Dies => self.kill(vm, SIGKILL),
            ProcessFault::Stops => self.enter_process_state(vm, ProcessState::Stopped),
            ProcessFault::GoesOn => self.enter_process_state(vm, ProcessState::Running),
            ProcessFault::CannotDie => {
                self.machines[vm].unkillable = true;
                self.enter_process_state(vm, ProcessState::DiskWait);
            }
            ProcessFault::CanDie => {
                self.machines[vm].unkillable = false;
                let dying = self.machines[vm].process.as_ref().is_some_and(|process| process.dying);
                if dying {
                    if let Some(process) = &mut self.machines[vm].process {
                        process.dying = false;
                    }
                    self.kill(vm, SIGKILL);
                } else {
                    self.enter_process_state(vm, ProcessState::Running);
                }
            }
            ProcessFault::DiesSlowly => self.machines[vm].slow_death = true,
            ProcessFault::EndsUnnoticed => self.machines[vm].unnoticed = true,
            ProcessFault::EndsNoticed => self.machines[vm].unnoticed = false,
        }
    }

    fn enter_process_state(&mut self, vm: usize, state: ProcessState) {
        if let Some(process) = &mut self.machines[vm].process {
            process.state = state;
        }
        self.read_queue(vm);
    }

    fn strike_hypervisor(&mut self, vm: usize, fault: HypervisorFault) {
        let hypervisor = &mut self.machines[vm].hypervisor;
        match fault {
            HypervisorFault::Mute => {
                hypervisor.mute = true;
                self.machines[vm].muted_at = Some(self.now);
            }
            HypervisorFault::Answers => {
                hypervisor.mute = false;
                self.read_queue(vm);
            }
            HypervisorFault::SaysRunning => hypervisor.says_running = true,
            HypervisorFault::Honest => hypervisor.says_running = false,
            HypervisorFault::RefusesStart => hypervisor.refuses_start = true,
            HypervisorFault::StartsAgain => hypervisor.refuses_start = false,
            HypervisorFault::LosesKernel => {
                hypervisor.no_kernel_since.get_or_insert(self.now);
            }
            HypervisorFault::FindsKernel => hypervisor.no_kernel_since = None,
            HypervisorFault::Fails => self.enter_state(vm, RunState::InternalError),
        }
    }

    fn strike_guest(&mut self, vm: usize, fault: GuestFault) {
        let lives = self.machines[vm].guest.life == Life::Up && self.machines[vm].executes();
        self.machines[vm].disturbed_at = Some(self.now);
        match fault {
            GuestFault::CannotBoot
            | GuestFault::LosesRoot
            | GuestFault::PanicsAtBoot
            | GuestFault::ResetsAtBoot
            | GuestFault::BootsSlowly => self.machines[vm].guest.boot_fault = Some(fault),
            GuestFault::CanBoot => self.machines[vm].guest.boot_fault = None,
            GuestFault::HasMemory => self.machines[vm].guest.low_memory = false,
            GuestFault::HasSpace => {
                self.machines[vm].guest.disk_full = false;
                self.machines[vm].guest.fills = None;
                self.machines[vm].guest.fills_tablespace = None;
            }
            GuestFault::NetBack => self.machines[vm].guest.net_lost = false,
            GuestFault::Thaws => self.machines[vm].guest.frozen = false,
            GuestFault::Idle => self.machines[vm].guest.busy = false,
            GuestFault::Writes => self.machines[vm].guest.writes_nothing = false,
            _ if !lives => {}
            GuestFault::Hangs => self.hang(vm, false),
            GuestFault::HangsWorking => self.hang(vm, true),
            GuestFault::HangsForGood => {
                self.machines[vm].guest.wedged = true;
                self.hang(vm, false);
            }
            GuestFault::Panics => self.panic(vm, true),
            GuestFault::PanicsUnheard => self.panic(vm, false),
            GuestFault::Reboots => self.reset(vm, true),
            GuestFault::PowersDown => self.power_down(vm),
            GuestFault::TripsWatchdog => {
                self.machines[vm].guest.misleads = true;
                self.tell(vm, Seen::Hypervisor(HypervisorSign::WatchdogFired));
            }
            GuestFault::Busy => self.machines[vm].guest.busy = true,
            GuestFault::WritesNothing => self.machines[vm].guest.writes_nothing = true,
            GuestFault::Fills => self.machines[vm].guest.fills = Some(self.now),
            GuestFault::FillsTablespace => self.machines[vm].guest.fills_tablespace = Some(self.now),
            GuestFault::NetLost => self.machines[vm].guest.net_lost = true,
            GuestFault::Freezes => self.machines[vm].guest.frozen = self.machines[vm].setup.agent,
            GuestFault::OutOfMemory | GuestFault::DiskFull | GuestFault::ReadOnly => self.starve(vm, fault),
            GuestFault::Damaged => self.damage(vm),
            GuestFault::PrintsPanic
            | GuestFault::PrintsOutOfMemory
            | GuestFault::PrintsIoError
            | GuestFault::PrintsDiskFull
            | GuestFault::PrintsHungTask => self.print_lie(vm, fault),
        }
    }

    /// A guest runs out of something, and its kernel and its databases say so.
    fn starve(&mut self, vm: usize, fault: GuestFault) {
        let guest = &mut self.machines[vm].guest;
        match fault {
            GuestFault::OutOfMemory => {
                (guest.low_memory, guest.starved) = (true, true);
                if let Some(app) = guest.apps.first_mut() {
                    app.enter(AppState::Dead);
                }
                let line = "Out of memory: Killed process 311 (postgres) total-vm:402004kB";
                self.print(vm, FindingKind::OutOfMemory, line);
            }
            GuestFault::DiskFull => {
                guest.disk_full = true;
                self.print(vm, FindingKind::DiskFull, "could not extend file: No space left on device");
            }
            _ => {
                guest.read_only = true;
                guest.apps.iter_mut().for_each(|app| app.enter(AppState::Dead));
                self.print(vm, FindingKind::DiskIoError, "blk_update_request: I/O error, dev vda");
                self.print(vm, FindingKind::FsReadOnly, "EXT4-fs (vda): Remounting filesystem read-only");
                self.print(vm, FindingKind::AppPanic, "PANIC: could not fsync file: Input/output error");
            }
        }
    }

    /// What is on a disk is overwritten.
    fn damage(&mut self, vm: usize) {
        let guest = &mut self.machines[vm].guest;
        guest.damaged = true;
        guest.apps.iter_mut().for_each(|app| app.strike(AppFault::Ruined));
        let boot = guest.boots;
        self.meet_damage(vm, boot);
    }

    fn print_lie(&mut self, vm: usize, fault: GuestFault) {
        let (kind, line) = match fault {
            GuestFault::PrintsOutOfMemory => (FindingKind::OutOfMemory, "Out of memory: Killed process 1"),
            GuestFault::PrintsIoError => (FindingKind::DiskIoError, "I/O error, dev vda, sector 1"),
            GuestFault::PrintsDiskFull => (FindingKind::DiskFull, "No space left on device"),
            GuestFault::PrintsHungTask => (FindingKind::HungTask, "INFO: task cp:7 blocked for 120 seconds"),
            _ => (FindingKind::KernelPanic, "Kernel panic - not syncing: printed by a program"),
        };
        self.machines[vm].guest.misleads = true;
        self.print(vm, kind, line);
    }

    fn strike_agent(&mut self, vm: usize, fault: AgentFault) {
        self.machines[vm].guest.agent = fault;
    }

    fn strike_host(&mut self, fault: HostFault) {
        match fault {
            HostFault::Pressed => self.host.pressed = true,
            HostFault::Calm => self.host.pressed = false,
            HostFault::Slow => self.host.slow = true,
            HostFault::Fast => self.host.slow = false,
            HostFault::DiskFull => {
                self.host.disk_full = true;
                (0..self.machines.len()).for_each(|vm| self.use_storage_soon(vm));
            }
            HostFault::HasRoom => self.host.disk_full = false,
            HostFault::StateFull => self.host.state_full = true,
            HostFault::StateRoom => self.host.state_full = false,
            HostFault::DisksUnknown => self.host.disks_unknown = true,
            HostFault::DisksTold => self.host.disks_unknown = false,
            HostFault::PrintsIoError => {
                let line = "blk_update_request: I/O error, dev sda, sector 2048";
                self.host_prints(FindingKind::DiskIoError, line);
            }
            HostFault::PrintsOutOfMemory => {
                let line = "Out of memory: Killed process 100 (qemu-system-x86)";
                self.host_prints(FindingKind::OutOfMemory, line);
            }
            HostFault::PrintsHardware => {
                let line = "mce: [Hardware Error]: Machine check events logged";
                self.host_prints(FindingKind::HardwareFailing, line);
            }
            HostFault::PrintsLink => self.host_prints(FindingKind::LinkLost, "e1000e eno1: NIC Link is Down"),
            HostFault::DiskSlow => self.host.disk_slow = true,
            HostFault::DiskFast => self.host.disk_slow = false,
            HostFault::DiskGone => self.host.disk_gone = true,
            HostFault::DiskBack => self.host.disk_gone = false,
            HostFault::LosesPower => {
                self.host.boot += 1;
                for machine in &mut self.machines {
                    machine.process = None;
                    machine.guest.lose_power();
                    machine.hypervisor.queued.clear();
                }
            }
        }
    }

    fn host_prints(&mut self, kind: FindingKind, line: &str) {
        let rule = format!("{kind:?}").to_lowercase();
        let finding = Finding { kind, rule, line: line.to_owned() };
        self.heard.push(host_glimpse(HostSign::Kernel(finding)));
    }

    /// All that was broken on purpose is repaired; what it has led to is left to Holdfast.
    pub(crate) fn heal(&mut self) {
        self.note_ill();
        (self.host.pressed, self.host.slow) = (false, false);
        (self.host.disk_full, self.host.state_full) = (false, false);
        (self.host.disk_slow, self.host.disk_gone) = (false, false);
        self.host.disks_unknown = false;
        for vm in 0..self.machines.len() {
            if self.machines[vm].unkillable {
                self.strike_process(vm, ProcessFault::CanDie);
            }
            let machine = &mut self.machines[vm];
            (machine.storage, machine.taken, machine.unnoticed) = (true, false, false);
            machine.quirks.clear();
            machine.guest.boot_fault = None;
            (machine.guest.disk_full, machine.guest.busy, machine.guest.frozen) = (false, false, false);
            machine.guest.fills = None;
            machine.guest.fills_tablespace = None;
            machine.guest.net_lost = false;
            machine.guest.agent = AgentFault::Answers;
            for app in &mut machine.guest.apps {
                (app.broken, app.ruined, app.spoiled, app.denies) = (false, false, false, false);
                (app.unprobed, app.slow) = (false, false);
            }
            (machine.hypervisor.says_running, machine.hypervisor.refuses_start) = (false, false);
            machine.hypervisor.no_kernel_since = None;
            machine.hypervisor.mute = false;
            self.read_queue(vm);
        }
    }
}

/// What the log of an application says.
enum Words {
    /// A line that is known.
    Known(FindingKind, &'static str),
    /// One that is not.
    Unknown(&'static str),
}

/// The words that are all that happens, if that is so.
const fn words(fault: AppFault) -> Option<Words> {
    Some(match fault {
        AppFault::LogsExhausted => {
            Words::Known(FindingKind::NoConnectionLeft, "FATAL: sorry, too many clients already")
        }
        AppFault::LogsDamage => {
            Words::Known(FindingKind::DataCorrupt, "ERROR: invalid page in block 7 of relation base/5/16384")
        }
        AppFault::LogsReplication => Words::Known(
            FindingKind::ReplicationBroken,
            "ERROR: requested WAL segment 000000010000000000000003 has already been removed",
        ),
        AppFault::LogsLocks => Words::Known(
            FindingKind::LocksPileUp,
            "LOG: process 311 still waiting for ExclusiveLock on relation 16384 after 1000.1 ms",
        ),
        AppFault::LogsPanic => {
            Words::Known(FindingKind::AppPanic, "PANIC: could not locate a valid checkpoint record")
        }
        AppFault::LogsNews => {
            Words::Unknown("never said before: \"WARNING: oldest xmin is far in the past\"")
        }
        AppFault::Dies
        | AppFault::Hangs
        | AppFault::Wrong
        | AppFault::Exhausted
        | AppFault::Denies
        | AppFault::Starts
        | AppFault::Broken
        | AppFault::Ruined
        | AppFault::Spoiled
        | AppFault::Slow
        | AppFault::CannotBeProbed
        | AppFault::CutOff
        | AppFault::Crawls
        | AppFault::Works => return None,
    })
}
