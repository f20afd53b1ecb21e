//! What Holdfast gets to see of the world: the same signals that the real sense layer makes.
//!
//! Each channel of a VM is asked once a period; a question without an answer ends after one second.
//! Nothing here tells the truth on purpose: a liar lies, a slow one is late, a dead one is silent.

use crate::faults::AgentFault;
use crate::guest::{AppState, Life, Stage};
use crate::machine::Machine;
use crate::mutant::Mutant;
use crate::random::noise;
use crate::world::{Glimpse, World};
use holdfast_core::lease::{Death, DeathProof, ExitStatus};
use holdfast_core::signal::{
    AgentPort, AgentSign, AppSign, Counters, HostSign, HypervisorSign, Measure, NetworkSign, NumberSign,
    ProbeFailure, ProcessSign, ProcessState, RunState, Seen,
};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_witness::Eyewitness;

/// The period of all probes.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);
/// A question waits so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// One question that is asked again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Process and hypervisor of a VM.
    Poll(usize),
    /// Its agent.
    Ping(usize),
    /// Its agent, about file systems and memory.
    Health(usize),
    /// One of its applications.
    App(usize, usize),
    /// Its network.
    Network(usize),
    /// The host's pressure.
    Pressure,
    /// The host's disks.
    Disks,
}

impl Probe {
    /// How often it is asked.
    pub(crate) const fn period(self) -> Duration {
        match self {
            Self::Poll(_) | Self::Ping(_) | Self::App(..) | Self::Network(_) => PERIOD,
            Self::Pressure => Duration::from_secs(2),
            Self::Health(_) => Duration::from_secs(5),
            Self::Disks => Duration::from_secs(10),
        }
    }

    const fn number(self) -> u64 {
        match self {
            Self::Poll(vm) => vm as u64 * 16,
            Self::Ping(vm) => vm as u64 * 16 + 1,
            Self::Health(vm) => vm as u64 * 16 + 2,
            Self::Network(vm) => vm as u64 * 16 + 3,
            Self::App(vm, app) => vm as u64 * 16 + 4 + app as u64,
            Self::Pressure => 14,
            Self::Disks => 15,
        }
    }

    /// When it is first asked: questions are spread over their period.
    pub(crate) fn phase(self, seed: u64) -> Duration {
        let period = u64::try_from(self.period().as_millis()).unwrap_or(1_000);
        Duration::from_millis(noise(seed, self.number(), 0, period))
    }
}

/// What the detector of numbers says of an application that crawls.
fn crawl() -> NumberSign {
    let text = "latency of db 11x its usual for this hour".to_owned();
    NumberSign { measure: Measure::Latency, series: "latency of db".to_owned(), surprise: 60, text }
}

/// Takes what is seen: after this delay, this.
pub(crate) type Emit<'a> = &'a mut dyn FnMut(Duration, Glimpse);

impl World {
    /// The questions that are asked about this world.
    pub(crate) fn probes(&self) -> Vec<Probe> {
        let mut all = vec![Probe::Pressure, Probe::Disks];
        for (vm, machine) in self.machines.iter().enumerate() {
            all.push(Probe::Poll(vm));
            if machine.setup.agent {
                all.extend([Probe::Ping(vm), Probe::Health(vm)]);
            }
            if machine.setup.tap {
                all.push(Probe::Network(vm));
            }
            all.extend((0..machine.guest.apps.len()).map(|app| Probe::App(vm, app)));
        }
        all
    }

    /// Asks one question.
    pub(crate) fn ask(&self, probe: Probe, mutant: Option<Mutant>, emit: Emit) {
        match probe {
            Probe::Poll(vm) => self.poll(vm, mutant, emit),
            Probe::Ping(vm) => self.ping(vm, emit),
            Probe::Health(vm) => self.ask_health(vm, emit),
            Probe::App(vm, app) => self.ask_app(vm, app, emit),
            Probe::Network(vm) => self.ask_network(vm, emit),
            Probe::Pressure => {
                let cpu = if self.host.pressed { 990 } else { 30 };
                let sign = HostSign::Pressure { cpu, memory: 0, io: 0, steal: 0 };
                emit(Duration::ZERO, host_glimpse(sign));
            }
            Probe::Disks => self.ask_disks(emit),
        }
    }

    fn ask_disks(&self, emit: Emit) {
        if self.host.disks_unknown {
            return;
        }
        let disks = [("/vms", self.host.disk_full), ("/state", self.host.state_full)];
        for (path, full) in disks {
            let free = if full { 0 } else { 40 << 30 };
            let of_vms = path == "/vms";
            let took = Duration::from_millis(if of_vms && self.host.disk_slow { 3_000 } else { 3 });
            let latency = (!(full || of_vms && self.host.disk_gone)).then_some(took);
            let sign = HostSign::Disk { path: path.into(), free, total: 100 << 30, latency };
            emit(Duration::ZERO, host_glimpse(sign));
        }
    }

    /// How long an answer takes that takes so many microseconds on a quiet host.
    fn latency(&self, probe: Probe, micros: u64, slow_guest: bool) -> Duration {
        let draw = |n| noise(self.seed, probe.number() + 1_000_000, self.now.as_micros(), n);
        let millis = match (slow_guest, self.host.slow, self.host.pressed) {
            (true, _, _) => 2_500 + draw(1_000),
            (_, true, _) => 400 + draw(800),
            (_, _, true) => 100 + draw(1_100),
            (false, false, false) => return Duration::from_micros(micros + draw(micros)),
        };
        Duration::from_millis(millis)
    }

    fn poll(&self, vm: usize, mutant: Option<Mutant>, emit: Emit) {
        let machine = &self.machines[vm];
        let Some(process) = &machine.process else {
            if machine.hypervisor.says_running && machine.record.pid > 0 {
                let (state, latency) = (RunState::Running, Duration::from_millis(1));
                let seen = Seen::Hypervisor(HypervisorSign::Answered { state, latency });
                let incarnation = Some(machine.record.started);
                emit(Duration::ZERO, Glimpse { vm, incarnation, app: None, seen });
            }
            return;
        };
        let incarnation = Some(process.incarnation);
        let mut say = |after, seen| emit(after, Glimpse { vm, incarnation, app: None, seen });
        let cpu = self.now.since(process.since) / 20;
        let sign = ProcessSign::Alive { state: process.state, cpu, rss: 400 << 20 };
        say(Duration::ZERO, Seen::Process(sign));
        let latency = self.latency(Probe::Poll(vm), 600, false);
        let heard = machine.hears() && latency < PATIENCE;
        if !heard && !machine.hypervisor.says_running {
            let sign = HypervisorSign::NoAnswer { waited: PATIENCE };
            if mutant == Some(Mutant::SilenceIsDeath) {
                let (pid, status) = (process.pid, ExitStatus::Unknown);
                let name = machine.setup.name.clone();
                let proof = DeathProof::witnessed(
                    Eyewitness::here(),
                    name,
                    process.incarnation,
                    Death::NotFound { pid },
                );
                return say(PATIENCE, Seen::Process(ProcessSign::Exited { proof, status }));
            }
            return say(PATIENCE, Seen::Hypervisor(sign));
        }
        let state =
            if machine.hypervisor.says_running { RunState::Running } else { machine.hypervisor.state };
        say(Duration::ZERO, Seen::Hypervisor(HypervisorSign::Answered { state, latency }));
        let writes = machine.hypervisor.writes;
        let (reads, failed) = (writes / 2, 0);
        let (memory_available, memory_total) =
            (Some(if machine.guest.low_memory { 4 << 20 } else { 300 << 20 }), Some(512 << 20));
        let disk = Counters { reads, writes, failed, ..Counters::default() };
        let counters = Counters { memory_available, memory_total, ..disk };
        say(Duration::ZERO, Seen::Hypervisor(HypervisorSign::Counters(counters)));
    }

    /// Its disk has done something since it was last asked.
    pub(crate) fn count_writes(&mut self, vm: usize) {
        let moves = self.machines[vm].executes() && self.machines[vm].guest.is_writing();
        let machine = &mut self.machines[vm];
        machine.hypervisor.writes += if moves { 7 } else { 0 };
    }

    /// The agent answers, or why not.
    fn agent(&self, machine: &Machine) -> Result<(), AgentPort> {
        let fault = machine.guest.agent;
        if fault == AgentFault::SaysWell {
            return Ok(());
        }
        if !machine.hears() {
            return Err(AgentPort::Unknown);
        }
        match machine.guest.life {
            Life::Booting(stage) if stage < Stage::Agent => Err(AgentPort::Closed),
            Life::Off => Err(AgentPort::Closed),
            Life::Hung { .. } | Life::Panicked if !machine.guest.has_agent => Err(AgentPort::Closed),
            Life::Hung { .. } | Life::Panicked => Err(AgentPort::Open),
            Life::Booting(_) | Life::Up if fault == AgentFault::Away => Err(AgentPort::Closed),
            Life::Booting(_) | Life::Up if !machine.executes() || fault == AgentFault::Mute => {
                Err(AgentPort::Open)
            }
            Life::Booting(_) | Life::Up => Ok(()),
        }
    }

    fn ping(&self, vm: usize, emit: Emit) {
        let machine = &self.machines[vm];
        let Some(incarnation) = self.speaker(machine) else { return };
        let latency = self.latency(Probe::Ping(vm), 8_000, machine.guest.busy);
        let (after, sign) = match self.agent(machine) {
            Ok(()) if latency < PATIENCE => (Duration::ZERO, AgentSign::Answered { latency }),
            Ok(()) => (PATIENCE, AgentSign::NoAnswer { waited: PATIENCE, port: AgentPort::Open }),
            Err(port) => (PATIENCE, AgentSign::NoAnswer { waited: PATIENCE, port }),
        };
        emit(after, Glimpse { vm, incarnation: Some(incarnation), app: None, seen: Seen::Agent(sign) });
    }

    /// The incarnation that an agent speaks for: a liar speaks for a dead one, too.
    fn speaker(&self, machine: &Machine) -> Option<holdfast_core::lease::Incarnation> {
        let liar = machine.guest.agent == AgentFault::SaysWell && machine.record.pid > 0;
        machine.incarnation().or_else(|| liar.then_some(machine.record.started))
    }

    pub(crate) fn agent_answers(&self, vm: usize) -> bool {
        let machine = &self.machines[vm];
        let quick = self.latency(Probe::Ping(vm), 8_000, machine.guest.busy) < PATIENCE;
        machine.setup.agent && quick && self.agent(machine).is_ok()
    }

    fn ask_health(&self, vm: usize, emit: Emit) {
        let machine = &self.machines[vm];
        if machine.process.is_none() || !self.agent_answers(vm) {
            return;
        }
        let incarnation = machine.incarnation();
        let (guest, liar) = (&machine.guest, machine.guest.agent == AgentFault::SaysWell);
        let total = 20u64 << 30;
        let filled = |since: Timestamp| total / 2_000 * self.now.since(since).as_secs();
        let grown = |since: Option<Timestamp>| (total / 3 + since.map_or(0, filled)).min(total);
        let used = if guest.seems_full() && !liar { total } else { grown(guest.fills) };
        let read_only = guest.read_only && !liar;
        let available = if guest.low_memory && !liar { 4 << 20 } else { 300 << 20 };
        let facts = [
            AgentSign::Frozen(guest.frozen),
            AgentSign::FileSystem { mount: "/".into(), used, total, read_only, holds: String::new() },
            AgentSign::Memory { available, total: 512 << 20 },
            AgentSign::Carrier { up: machine.cable || liar },
        ];
        let tablespace = guest.fills_tablespace.map(|since| AgentSign::FileSystem {
            mount: "/srv/ts1".into(),
            used: grown(Some(since)),
            total,
            read_only: false,
            holds: "tablespace ts1 of db".into(),
        });
        for fact in facts.into_iter().chain(tablespace) {
            emit(Duration::ZERO, Glimpse { vm, incarnation, app: None, seen: Seen::Agent(fact) });
        }
    }

    /// The latency of the right answer, or how it fails and how long that takes.
    fn app_answer(&self, vm: usize, app: usize) -> Result<Duration, (Duration, ProbeFailure, &'static str)> {
        use ProbeFailure as How;
        let machine = &self.machines[vm];
        let guest = &machine.guest;
        let quick = Duration::from_millis(2);
        let silence = if machine.setup.tap {
            (PATIENCE, How::Unreachable, "no connection within 1.0s")
        } else {
            (PATIENCE, How::NoAnswer, "no answer within 1.0s")
        };
        let one = &guest.apps[app];
        if one.unprobed {
            return Err((quick, How::Internal, "the probe's program is missing"));
        }
        if !machine.executes() || !machine.cable || guest.net_lost || one.cut_off {
            return Err(silence);
        }
        match guest.life {
            Life::Off | Life::Hung { .. } | Life::Panicked => return Err(silence),
            Life::Booting(stage) if stage < Stage::Network => return Err(silence),
            Life::Booting(stage) if stage < Stage::Starting => {
                return Err((quick, How::Refused, "connection refused"));
            }
            Life::Booting(_) => return Err((quick, How::Starting, "the database system is starting up")),
            Life::Up => {}
        }
        let base = if one.slow { 450_000 } else { 1_500 };
        let latency = self.latency(Probe::App(vm, app), base, guest.busy);
        match one.state {
            AppState::Dead => Err((quick, How::Refused, "connection refused")),
            AppState::Starting => Err((quick, How::Starting, "the database system is starting up")),
            AppState::Hung => Err((PATIENCE, How::NoAnswer, "no answer within 1.0s")),
            AppState::Exhausted => Err((quick, How::Exhausted, "too many clients already")),
            AppState::Wrong => Err((quick, How::Mismatch, "answered `3` instead of `7`")),
            AppState::Serving if one.denies => Err((quick, How::Denied, "password authentication failed")),
            AppState::Serving if guest.frozen => Err((PATIENCE, How::NoAnswer, "no answer within 1.0s")),
            AppState::Serving if guest.disk_full => Err((quick, How::Wrong, "could not extend file")),
            AppState::Serving if latency >= PATIENCE => {
                Err((PATIENCE, How::NoAnswer, "no answer within 1.0s"))
            }
            AppState::Serving => Ok(latency),
        }
    }

    /// The users of all its applications are served, whatever our own probes may make of it.
    pub(crate) fn serves(&self, vm: usize) -> bool {
        (0..self.machines[vm].guest.apps.len()).all(|app| {
            let answer = self.app_answer(vm, app);
            answer.is_ok_and(|latency| latency < PATIENCE)
                || matches!(answer, Err((_, ProbeFailure::Denied | ProbeFailure::Internal, _)))
        })
    }

    fn ask_app(&self, vm: usize, app: usize, emit: Emit) {
        let machine = &self.machines[vm];
        let Some(incarnation) = machine.incarnation() else { return };
        let incarnation = Some(incarnation);
        let of_app = |seen| Glimpse { vm, incarnation, app: Some(app), seen };
        let (after, how, text) = match self.app_answer(vm, app) {
            Ok(latency) => {
                if machine.guest.apps[app].crawls {
                    emit(Duration::ZERO, of_app(Seen::Number(crawl())));
                }
                return emit(Duration::ZERO, of_app(Seen::Application(AppSign::Answered { latency })));
            }
            Err(failure) => failure,
        };
        emit(after, of_app(Seen::Application(AppSign::Failed { how, text: text.into() })));
        // A probe that failed asks the guest how it is, and what it knows of the application.
        if !self.agent_answers(vm) || machine.guest.frozen {
            return;
        }
        self.ask_health(vm, &mut |soon, glimpse| emit(after + soon + Duration::from_millis(15), glimpse));
        for (soon, sight) in [20, 20, 60].into_iter().zip(self.look_inside(vm, app)) {
            emit(after + Duration::from_millis(soon), sight);
        }
    }

    /// What the guest itself says of an application, through its agent.
    pub(crate) fn look_inside(&self, vm: usize, app: usize) -> Vec<Glimpse> {
        let machine = &self.machines[vm];
        let incarnation = machine.incarnation();
        let of_app = |seen| Glimpse { vm, incarnation, app: Some(app), seen };
        let one = &machine.guest.apps[app];
        let liar = machine.guest.agent == AgentFault::SaysWell;
        let up = Seen::Agent(AgentSign::Uptime(self.now.since(machine.guest.booted)));
        let listens = liar || one.state != AppState::Dead;
        let waiting = if one.state == AppState::Hung && !liar { 3 } else { 0 };
        let peers = if one.cut_off { vec![7, 8] } else { Vec::new() }; // those who were in before
        let service = of_app(Seen::Agent(AgentSign::Service { listens, waiting, peers }));
        let mut said = vec![Glimpse { vm, incarnation, app: None, seen: up }, service];
        if machine.setup.checked {
            let passed = liar || (one.state == AppState::Serving && !machine.guest.disk_full);
            let text = if passed { "ok" } else { "exit status 1" }.to_owned();
            said.push(of_app(Seen::Agent(AgentSign::Check { passed, text })));
        }
        said
    }

    fn ask_network(&self, vm: usize, emit: Emit) {
        let machine = &self.machines[vm];
        let Some(incarnation) = machine.incarnation() else { return };
        let guest = &machine.guest;
        let kernel = match guest.life {
            Life::Booting(stage) => stage >= Stage::Network,
            // A guest whose programs hang still has a kernel that answers an echo.
            Life::Up | Life::Hung { working: true } => true,
            Life::Off | Life::Hung { working: false } | Life::Panicked => false,
        };
        let latency = self.latency(Probe::Network(vm), 300, false);
        let answers = machine.executes() && machine.cable && !guest.net_lost && kernel && latency < PATIENCE;
        let (after, sign) = if answers {
            (Duration::ZERO, NetworkSign::Answered { latency })
        } else {
            (PATIENCE, NetworkSign::NoAnswer { waited: PATIENCE })
        };
        emit(after, Glimpse { vm, incarnation: Some(incarnation), app: None, seen: Seen::Network(sign) });
    }

    /// The driver's own look at the process, which `inspect` reports.
    pub(crate) fn process_exists(&self, vm: usize, mutant: Option<Mutant>) -> bool {
        let machine = &self.machines[vm];
        match &machine.process {
            Some(process) if mutant == Some(Mutant::StoppedIsDead) => {
                process.state == ProcessState::Running && machine.hears()
            }
            Some(_) => true,
            None => false,
        }
    }
}

/// A glimpse of the host carries no VM: `usize::MAX` stands for it.
pub(crate) const fn host_glimpse(sign: HostSign) -> Glimpse {
    Glimpse { vm: usize::MAX, incarnation: None, app: None, seen: Seen::Host(sign) }
}
