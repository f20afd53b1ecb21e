//! One run of a story: the world, the daemon, and what is due when.
//!
//! Everything happens in the order of time, and at the same time in the order it was planned, so a run
//! depends on nothing but the story, the seed and the options. Quiet time is skipped: while every VM is
//! well, nothing is pending and the next event is far, the clock jumps to shortly before it.

use crate::checker::Checker;
use crate::daemon::{Daemon, Running};
use crate::driver::Flight;
use crate::faults::{DaemonFault, Happening, HostFault, PersonWish};
use crate::machine::Machine;
use crate::mutant::Mutant;
use crate::sense::Probe;
use crate::story::{Story, When};
use crate::timeline::Timeline;
use crate::world::{Glimpse, Plan, World};
use holdfast_core::input::Input;
use holdfast_core::signal::{
    AgentPort, AgentSign, AppSign, HypervisorSign, NetworkSign, ProbeFailure, ProcessSign, Seen, Signal,
};
use holdfast_core::subject::Subject;
use holdfast_core::time::{Duration, Timestamp};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// How a story is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The seed of everything that varies.
    pub seed: u64,
    /// Go through quiet time probe by probe.
    pub dont_skip: bool,
    /// Do one thing wrongly.
    pub mutant: Option<Mutant>,
    /// The daemon crashes at these of its numbered points.
    pub crash_at: Vec<u64>,
    /// The daemon stalls at this point for so long.
    pub stall_at: Option<(u64, Duration)>,
    /// Write no timeline.
    pub quiet: bool,
}

/// What is due.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// The world's own plan.
    World(Plan),
    /// Something seen arrives, for this life of the daemon. A silence belongs to its question: an answer
    /// may have come at the last moment.
    Hear(u32, Box<Glimpse>, Option<Probe>),
    /// An order has its effect.
    Effect(usize),
    /// An order is answered.
    Report(usize),
    /// An order must have been answered.
    Deadline(usize),
    /// An event of the story.
    Event(usize),
    /// Something that no event stands for.
    Undo(Happening),
    /// It is looked whether a snapshot of a VM is due.
    Points(usize),
    /// All faults are over.
    Heal,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    at: Timestamp,
    number: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number)) // the earliest is the greatest
    }
}

/// A run.
pub(crate) struct Run {
    pub(crate) story: Story,
    pub(crate) options: Options,
    pub(crate) world: World,
    pub(crate) daemon: Daemon,
    pub(crate) flights: Vec<Flight>,
    pub(crate) checker: Checker,
    pub(crate) timeline: Timeline,
    /// Which events tied to a moment have happened.
    pub(crate) fired: Vec<bool>,
    /// All faults are over: nothing more happens.
    pub(crate) healed: bool,
    /// Inputs that the engine took in.
    pub(crate) steps: u64,
    dues: BinaryHeap<Entry<Due>>,
    probes: BinaryHeap<Entry<Probe>>,
    number: u64,
    /// When something other than a good answer last happened.
    busy_at: Timestamp,
}

/// After this without any event nothing that the engine remembers is about to run out.
const SETTLED: Duration = Duration::from_secs(45);
/// The clock jumps to so long before the next event.
const BEFORE: Duration = Duration::from_secs(15);
/// How late a process ends that ends unnoticed.
const NEWS: Duration = Duration::from_secs(5);
/// Power returns after this.
const POWER_RETURNS: Duration = Duration::from_secs(30);

impl Run {
    pub(crate) fn new(story: Story, options: Options) -> Self {
        let world = World::new(&story, options.seed);
        let fired = vec![false; story.events.len()];
        let timeline = Timeline::new(options.quiet);
        let mut run = Self {
            story,
            options,
            world,
            daemon: Daemon::new(),
            flights: Vec::new(),
            checker: Checker::default(),
            timeline,
            fired,
            healed: false,
            steps: 0,
            dues: BinaryHeap::new(),
            probes: BinaryHeap::new(),
            number: 0,
            busy_at: Timestamp::ZERO,
        };
        run.plan_events();
        run.plan_points();
        for probe in run.world.probes() {
            let at = Timestamp::ZERO + probe.phase(run.options.seed);
            run.push_probe(at, probe);
        }
        run.start_daemon();
        run
    }

    fn plan_events(&mut self) {
        for at in 0..self.story.events.len() {
            match self.story.events[at].when {
                When::At(time) => self.at(Timestamp::ZERO + time, Due::Event(at)),
                When::Every { period, times } => {
                    (1..=times).for_each(|n| self.at(Timestamp::ZERO + period * n, Due::Event(at)));
                }
                When::Upon(_) => {}
            }
        }
        if let Some(at) = self.story.heals {
            self.at(Timestamp::ZERO + at, Due::Heal);
        }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.options.mutant == Some(mutant)
    }

    pub(crate) fn at(&mut self, at: Timestamp, what: Due) {
        self.number += 1;
        self.dues.push(Entry { at, number: self.number, what });
    }

    pub(crate) fn after(&mut self, after: Duration, what: Due) {
        self.at(self.world.now + after, what);
    }

    fn push_probe(&mut self, at: Timestamp, what: Probe) {
        self.number += 1;
        self.probes.push(Entry { at, number: self.number, what });
    }

    /// Runs until then, or until an invariant breaks.
    pub(crate) fn until(&mut self, end: Timestamp) {
        while self.checker.violations.is_empty() {
            let due = self.dues.peek().map_or(Timestamp::NEVER, |entry| entry.at);
            let probe = self.probes.peek().map_or(Timestamp::NEVER, |entry| entry.at);
            let up = self.daemon.running == Running::Up;
            let tick = self.daemon.engine.wake_at().filter(|_| up).unwrap_or(Timestamp::NEVER);
            let next = due.min(probe).min(tick);
            if next > end {
                self.world.now = end;
                return;
            }
            self.world.now = self.world.now.max(next);
            if due == next {
                let entry = self.dues.pop().expect("it was peeked at");
                self.meet(entry.what);
            } else if tick == next {
                self.feed(Input::Tick);
            } else {
                let entry = self.probes.pop().expect("it was peeked at");
                self.push_probe(entry.at + entry.what.period(), entry.what);
                self.ask(entry.what, end);
            }
        }
    }

    fn meet(&mut self, due: Due) {
        self.busy_at = self.world.now;
        match due {
            Due::World(plan) => {
                self.world.happen(&plan);
                self.settle_world();
            }
            Due::Hear(life, glimpse, probe) => {
                if life == self.daemon.life {
                    let glimpse = self.at_last(*glimpse, probe);
                    self.hear(glimpse);
                }
            }
            Due::Effect(flight) => self.take_effect(flight),
            Due::Report(flight) => self.report(flight),
            Due::Deadline(flight) => self.give_up(flight),
            Due::Event(event) => self.strike_event(event),
            Due::Undo(happening) => self.strike(&happening),
            Due::Points(vm) => self.mind_points(vm),
            Due::Heal => {
                self.healed = true;
                self.heal();
            }
        }
    }

    /// An event of the story happens, and is taken back later if the story says so.
    pub(crate) fn strike_event(&mut self, event: usize) {
        let event = self.story.events[event].clone();
        if !matches!(event.when, When::At(_)) {
            self.timeline.happens(self.world.now, &event.what);
        }
        let lasting = match (&event.what, event.lasting) {
            (Happening::Daemon(DaemonFault::Crashes), None) => Some(crate::daemon::RESTART),
            (_, lasting) => lasting,
        };
        if let (Some(long), Some(undo)) = (lasting, event.what.undo()) {
            self.after(long, Due::Undo(undo));
        }
        self.strike(&event.what);
    }

    pub(crate) fn strike(&mut self, happening: &Happening) {
        let alive = |run: &Self| -> Vec<bool> {
            let lives = |m: &Machine| m.process.as_ref().is_some_and(|process| !process.dying);
            run.world.machines.iter().map(lives).collect()
        };
        self.checker.wishes.befall(happening);
        match happening {
            Happening::Daemon(fault) => {
                let before = alive(self);
                self.strike_daemon(*fault);
                let after = alive(self);
                if matches!(fault, DaemonFault::Crashes | DaemonFault::Stalls) {
                    self.checker.daemon_struck(self.world.now, &before, &after);
                }
            }
            Happening::Repair => self.repair(),
            Happening::RestartIll => self.restart_ill(),
            Happening::Reload(without) => self.reload(without.clone()),
            Happening::Person(vm, wish) => {
                self.timeline.asks(happening);
                if self.daemon.running == Running::Down {
                    self.timeline.unheard(self.world.now);
                }
                self.command(vm, *wish);
            }
            Happening::Host(HostFault::LosesPower) => {
                self.crash();
                self.daemon.journal.cut_power();
                if self.is(Mutant::ForgetsLeases) {
                    self.world.leases.cut_power();
                }
                self.world.strike(happening);
                self.after(POWER_RETURNS, Due::Undo(Happening::Daemon(DaemonFault::Starts)));
            }
            _ => self.world.strike(happening),
        }
        self.settle_world();
    }

    /// Persons repair what is broken, and let go of what was held.
    fn repair(&mut self) {
        self.heal();
        for vm in 0..self.world.machines.len() {
            let name = self.world.machines[vm].setup.name.clone();
            for wish in [PersonWish::EndMaintenance, PersonWish::Release] {
                self.strike(&Happening::Person(name.clone(), wish));
            }
        }
    }

    /// Persons restart every VM that is still ill.
    fn restart_ill(&mut self) {
        for vm in 0..self.world.machines.len() {
            let machine = &self.world.machines[vm];
            let (name, runs) = (machine.setup.name.clone(), machine.process.is_some());
            if !machine.is_well() {
                let wish = if runs { PersonWish::Restart { at_once: true } } else { PersonWish::Start };
                self.strike(&Happening::Person(name, wish));
            }
        }
    }

    /// All faults are over, and persons let go of what they had stopped.
    fn heal(&mut self) {
        self.world.heal();
        self.settle_world();
        self.strike_daemon(DaemonFault::GoesOn);
        self.strike_daemon(DaemonFault::Starts);
        self.accept();
        self.reload(None);
    }

    /// What the world says unasked reaches the daemon; what it plans is planned.
    pub(crate) fn settle_world(&mut self) {
        for (at, plan) in std::mem::take(&mut self.world.later) {
            self.at(at, Due::World(plan));
        }
        let late = if self.world.host.slow || self.world.host.pressed { 700 } else { 0 };
        for glimpse in std::mem::take(&mut self.world.heard) {
            let mut late = Duration::from_millis(late);
            if let Seen::Process(ProcessSign::Exited { proof, .. }) = &glimpse.seen {
                self.process_ended(glimpse.vm, proof);
                late += if self.world.machines[glimpse.vm].unnoticed { NEWS } else { Duration::ZERO };
            }
            self.after(late, Due::Hear(self.daemon.life, Box::new(glimpse), None));
        }
    }

    /// Asks one question, if somebody is there to ask it.
    fn ask(&mut self, probe: Probe, end: Timestamp) {
        let deaf = self.is(Mutant::DeafAfterRestart) && self.daemon.life > 1;
        if probe == Probe::Pressure {
            let up = self.daemon.running == Running::Up && !self.daemon.distrusts;
            self.checker.watch_users(up, &self.daemon.engine, &self.world);
            self.checker.watch_wishes(&self.daemon.engine, &self.world);
        }
        if self.daemon.running != Running::Up || deaf {
            return;
        }
        if let Probe::Poll(vm) = probe {
            self.world.count_writes(vm);
        }
        let mut seen: Vec<(Duration, Glimpse)> = Vec::with_capacity(4);
        self.world.ask(probe, self.options.mutant, &mut |after, glimpse| seen.push((after, glimpse)));
        for (after, glimpse) in seen {
            let Some(glimpse) = (if self.daemon.deaf { unheard(glimpse) } else { Some(glimpse) }) else {
                continue;
            };
            if after.is_zero() {
                self.hear(glimpse);
            } else {
                self.after(after, Due::Hear(self.daemon.life, Box::new(glimpse), Some(probe)));
            }
        }
        if probe == Probe::Pressure && !self.options.dont_skip {
            self.skip(end);
        }
    }

    /// The silence that is about to be told, or the answer that has just come.
    fn at_last(&self, glimpse: Glimpse, probe: Option<Probe>) -> Glimpse {
        let Some(probe) = probe.filter(|_| is_silence(&glimpse.seen)) else { return glimpse };
        let mut answer = None;
        let mut note = |after: Duration, late: Glimpse| {
            let same = std::mem::discriminant(&late.seen) == std::mem::discriminant(&glimpse.seen);
            if same && after.is_zero() && late.incarnation == glimpse.incarnation && is_answer(&late.seen) {
                answer = Some(late);
            }
        };
        self.world.ask(probe, self.options.mutant, &mut note);
        answer.unwrap_or(glimpse)
    }

    fn hear(&mut self, glimpse: Glimpse) {
        let (at, seen) = (self.world.now, glimpse.seen);
        let Some(machine) = self.world.machines.get(glimpse.vm) else {
            let subject = Subject::Host(self.world.host.name.clone());
            return self.receive(Input::Signal(Signal { subject, incarnation: None, at, seen }));
        };
        let name = machine.setup.name.clone();
        let newest = machine.record.started;
        let incarnation = if self.is(Mutant::StampsNow) { Some(newest) } else { glimpse.incarnation };
        let subject = match (glimpse.app, &seen) {
            (Some(app), _) => Subject::App(name, machine.guest.apps[app].name.clone()),
            (None, Seen::Agent(_) | Seen::Console(_)) => Subject::Guest(name),
            (None, _) => Subject::Vm(name),
        };
        self.receive(Input::Signal(Signal { subject, incarnation, at, seen }));
    }

    /// Jumps over quiet time.
    fn skip(&mut self, end: Timestamp) {
        let now = self.world.now;
        let next = self.dues.peek().map_or(end, |entry| entry.at).min(end);
        let target = next - BEFORE;
        let calm = now.since(self.busy_at) >= SETTLED && target > now + SETTLED;
        let host = &self.world.host;
        if !calm || host.pressed || host.slow || host.disk_full || host.state_full || host.disk_slow {
            return;
        }
        // What fills is seen to fill only by who looks again and again.
        let rests = |machine: &Machine| {
            (machine.is_well() && !machine.guest.is_filling()) || machine.process.is_none()
        };
        if !self.world.machines.iter().all(rests) || !self.daemon.engine.pass(target) {
            return;
        }
        self.daemon.journal.pass(target);
        self.world.now = target;
        let probes = std::mem::take(&mut self.probes);
        for entry in probes.into_vec() {
            let period = entry.what.period();
            let missed = target.since(entry.at).as_micros().div_ceil(period.as_micros());
            let at = entry.at + period * u32::try_from(missed).unwrap_or(u32::MAX);
            self.probes.push(Entry { at, ..entry });
        }
    }
}

const fn is_silence(seen: &Seen) -> bool {
    matches!(
        seen,
        Seen::Hypervisor(HypervisorSign::NoAnswer { .. })
            | Seen::Agent(AgentSign::NoAnswer { .. })
            | Seen::Network(NetworkSign::NoAnswer { .. })
            | Seen::Application(AppSign::Failed {
                how: ProbeFailure::NoAnswer | ProbeFailure::Unreachable,
                ..
            })
    )
}

const fn is_answer(seen: &Seen) -> bool {
    matches!(
        seen,
        Seen::Hypervisor(HypervisorSign::Answered { .. })
            | Seen::Agent(AgentSign::Answered { .. })
            | Seen::Network(NetworkSign::Answered { .. })
            | Seen::Application(AppSign::Answered { .. })
    )
}

/// With `ignores-stall`: the answer came, and nobody read it in time.
fn unheard(glimpse: Glimpse) -> Option<Glimpse> {
    let waited = Duration::from_secs(1);
    let seen = match glimpse.seen {
        Seen::Hypervisor(HypervisorSign::Answered { .. }) => {
            Seen::Hypervisor(HypervisorSign::NoAnswer { waited })
        }
        Seen::Agent(_) => Seen::Agent(AgentSign::NoAnswer { waited, port: AgentPort::Open }),
        Seen::Application(_) => {
            Seen::Application(AppSign::Failed { how: ProbeFailure::NoAnswer, text: "no answer".into() })
        }
        Seen::Network(NetworkSign::Answered { .. }) => Seen::Network(NetworkSign::NoAnswer { waited }),
        Seen::Hypervisor(HypervisorSign::Counters(_)) | Seen::Process(ProcessSign::Alive { .. }) => {
            return None;
        }
        seen => seen,
    };
    Some(Glimpse { seen, ..glimpse })
}
