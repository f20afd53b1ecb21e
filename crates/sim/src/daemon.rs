//! Holdfast itself in the simulated world: the real engine, a journal, and all the ways a daemon can stop.
//!
//! Each input is stepped, its intents are recorded, and only then the actions are handed over. Between
//! these steps the daemon can crash or stall; the points are numbered, so that a test can visit each.

use crate::faults::{DaemonFault, Happening, PersonWish};
use crate::journal::{Journal, write};
use crate::mutant::Mutant;
use crate::run::{Due, Run};
use crate::story::{Moment, When};
use holdfast_core::action::{Action, Command, CommandId, Ended, Order, Outcome, Rewind, Wish};
use holdfast_core::engine::Engine;
use holdfast_core::input::{Input, Started};
use holdfast_core::lease::ExitStatus;
use holdfast_core::policy::{Mode, Period, Policies};
use holdfast_core::signal::{ObserverSign, Seen, Signal};
use holdfast_core::subject::{Subject, VmName};
use holdfast_core::time::{Duration, Timestamp};

/// Whether the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    Up,
    /// Stopped since then.
    Stalled(Timestamp),
    Down,
}

/// The daemon.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) running: Running,
    /// Counts its starts.
    pub(crate) life: u32,
    pub(crate) journal: Journal,
    /// What came while it was stopped.
    inbox: Vec<Input>,
    /// What it was about to do when it was stopped.
    halted: Vec<Action>,
    without: Option<VmName>,
    /// It found its state damaged: it watches until a person accepts that.
    pub(crate) distrusts: bool,
    pub(crate) commands: u64,
    /// The numbered points it has passed.
    pub(crate) points: u64,
    /// With `ignores-stall`: it is stopped and does not know it.
    pub(crate) deaf: bool,
}

/// How long a restart takes when a story does not say.
pub(crate) const RESTART: Duration = Duration::from_millis(500);
/// The longest inbox of a stopped daemon.
const INBOX: usize = 10_000;

impl Daemon {
    pub(crate) fn new() -> Self {
        let engine = Engine::new();
        let journal = Journal::new(&engine);
        Self {
            engine,
            running: Running::Down,
            life: 0,
            journal,
            inbox: Vec::new(),
            halted: Vec::new(),
            without: None,
            distrusts: false,
            commands: 0,
            points: 0,
            deaf: false,
        }
    }
}

impl Run {
    /// Something reaches the daemon.
    pub(crate) fn receive(&mut self, input: Input) {
        match self.daemon.running {
            Running::Up => self.feed(input),
            Running::Stalled(_) if self.daemon.inbox.len() < INBOX => self.daemon.inbox.push(input),
            Running::Stalled(_) | Running::Down => {}
        }
    }

    /// One turn of the daemon's loop.
    pub(crate) fn feed(&mut self, input: Input) {
        let matters = matches!(input, Input::Outcome(_) | Input::Command(_));
        if matters && self.passes_point() {
            return;
        }
        let now = self.engine_time();
        let mut reaction = self.daemon.engine.step(now, &input);
        self.steps += 1;
        let acts = !reaction.actions.is_empty();
        if acts && self.passes_point() {
            self.daemon.journal.miss(); // the engine took a step that nobody will ever know of
            return;
        }
        let full = self.world.host.state_full;
        let skips = self.is(Mutant::SkipsSync);
        let daemon = &mut self.daemon;
        daemon.journal.skips_sync = skips;
        let kept = daemon.journal.record(now, &input, &reaction.actions, daemon.life, full);
        if !kept && !self.is(Mutant::ActsUnrecorded) {
            self.daemon.engine.not_recorded(&reaction.actions, "no space left on device");
            reaction.actions.clear();
        }
        self.daemon.journal.keep_short(&mut self.daemon.engine, full);
        self.checker.steps(self.world.now, &input, &reaction, &self.daemon.engine, &self.world);
        self.timeline.step(self.world.now, &input, &reaction, &self.daemon.engine);
        if !reaction.actions.is_empty() {
            self.start_actions(std::mem::take(&mut reaction.actions));
        }
        if !reaction.changed.is_empty() {
            self.upon_phases();
        }
    }

    fn start_actions(&mut self, actions: Vec<Action>) {
        for action in &actions {
            self.upon(&Moment::Recorded(action.order.name().to_owned(), action.vm.clone()));
        }
        self.resume_actions(actions);
    }

    fn resume_actions(&mut self, actions: Vec<Action>) {
        let mut left = actions.into_iter();
        while let Some(action) = left.next() {
            if self.passes_point() || self.daemon.running != Running::Up {
                if let Running::Stalled(_) = self.daemon.running {
                    self.daemon.halted.push(action);
                    self.daemon.halted.extend(left);
                }
                return;
            }
            if self.is(Mutant::DoesTwice) {
                self.hand_over(action.clone());
            }
            self.hand_over(action);
        }
    }

    /// Counts a point where the daemon may stop; true if it did.
    fn passes_point(&mut self) -> bool {
        self.daemon.points += 1;
        let point = self.daemon.points;
        if self.options.crash_at.contains(&point) {
            self.strike_daemon(DaemonFault::Crashes);
            self.after(RESTART, Due::Undo(Happening::Daemon(DaemonFault::Starts)));
            return true;
        }
        if let Some((_, long)) = self.options.stall_at.filter(|(at, _)| *at == point) {
            self.strike_daemon(DaemonFault::Stalls);
            self.after(long, Due::Undo(Happening::Daemon(DaemonFault::GoesOn)));
        }
        false
    }

    /// Time as the daemon reads it: since boot, never the wall clock (I20).
    fn engine_time(&self) -> Timestamp {
        let now = self.world.now;
        if self.is(Mutant::WallClock) {
            let by = self.world.host.wall - 1_700_000_000;
            return now + Duration::from_secs(u64::try_from(by).unwrap_or(0));
        }
        now
    }

    /// Something happens to the daemon.
    pub(crate) fn strike_daemon(&mut self, fault: DaemonFault) {
        if !matches!(fault, DaemonFault::Starts | DaemonFault::GoesOn) {
            self.checker.wishes.befall_all();
        }
        match fault {
            DaemonFault::Crashes => self.crash(),
            DaemonFault::Starts => self.start_daemon(),
            DaemonFault::Stalls if self.is(Mutant::IgnoresStall) => self.daemon.deaf = true,
            DaemonFault::Stalls if self.daemon.running == Running::Up => {
                self.daemon.journal.sync_if_due(self.world.now);
                self.daemon.running = Running::Stalled(self.world.now);
            }
            DaemonFault::Stalls => {}
            DaemonFault::GoesOn => self.go_on(),
            DaemonFault::LosesRecord => self.daemon.journal.damage(),
            DaemonFault::Accepted => {
                self.accept();
                self.configure();
            }
        }
    }

    /// A person accepts what is left of a damaged state.
    pub(crate) fn accept(&mut self) {
        if std::mem::take(&mut self.daemon.distrusts) {
            self.checker.accepts_loss();
        }
    }

    /// kill -9: all that is not in the journal is gone.
    pub(crate) fn crash(&mut self) {
        match self.daemon.running {
            Running::Down => return,
            Running::Up => self.daemon.journal.sync_if_due(self.world.now),
            Running::Stalled(_) => {}
        }
        self.daemon.running = Running::Down;
        self.daemon.inbox.clear();
        self.daemon.halted.clear();
        self.daemon.deaf = false;
        if self.is(Mutant::EndsChildren) {
            (0..self.world.machines.len()).for_each(|vm| self.world.kill(vm, ExitStatus::Signal(15)));
            self.settle_world();
        }
    }

    pub(crate) fn start_daemon(&mut self) {
        if self.daemon.running != Running::Down {
            return;
        }
        let before = (self.daemon.life > 0).then(|| write(&self.daemon.engine));
        let restored = self.daemon.journal.restore();
        self.checker.restored(self.world.now, &restored, before.as_deref());
        self.daemon.engine = restored.engine;
        self.daemon.running = Running::Up;
        self.daemon.life += 1;
        self.daemon.distrusts |= restored.damaged;
        self.timeline.restarted(&self.daemon.engine);
        let started = Started {
            host: self.world.host.name.clone(),
            boot: format!("boot-{}", self.world.host.boot),
            wall_offset: self.world.host.wall.saturating_mul(1_000_000),
        };
        self.receive(Input::Started(started));
        self.configure();
        if self.is(Mutant::RepeatsIntents) {
            for action in restored.open {
                self.hand_over(action);
            }
        }
    }

    /// The first thing after a stall is to say so; then what was halted, if it is not too late; then
    /// what came meanwhile.
    fn go_on(&mut self) {
        self.daemon.deaf = false;
        let Running::Stalled(since) = self.daemon.running else { return };
        self.daemon.running = Running::Up;
        let (now, host) = (self.world.now, self.world.host.name.clone());
        let seen = Seen::Observer(ObserverSign::Lag(now.since(since)));
        let signal = Signal { subject: Subject::Host(host), incarnation: None, at: now, seen };
        self.receive(Input::Signal(signal));
        let halted = std::mem::take(&mut self.daemon.halted);
        let (late, timely): (Vec<Action>, Vec<Action>) = halted.into_iter().partition(|a| a.deadline <= now);
        for action in late {
            let ended = Ended::Failed { why: "the daemon was stopped; now it is too late".into() };
            self.receive(Input::Outcome(Outcome { action: action.id, ended }));
        }
        self.resume_actions(timely);
        for input in std::mem::take(&mut self.daemon.inbox) {
            self.receive(input);
        }
    }

    /// The configuration comes into force.
    pub(crate) fn configure(&mut self) {
        let mut policies = Policies { period: Period(crate::sense::PERIOD), ..Policies::default() };
        policies.use_lessons = self.story.learns;
        for setup in &self.story.vms {
            if self.daemon.without.as_ref() == Some(&setup.name) {
                continue;
            }
            let mut policy = setup.policy.clone();
            if self.daemon.distrusts {
                policy.mode = Mode::Observe;
            }
            if self.is(Mutant::IgnoresBudget) {
                policy.budget.tries = 1_000;
            }
            if self.is(Mutant::IgnoresBackoff) {
                policy.budget.backoff = Duration::ZERO;
            }
            policies.vms.insert(setup.name.clone(), policy);
        }
        if self.is(Mutant::IgnoresBrake) {
            policies.brake.vms = u32::MAX;
        }
        self.receive(Input::Configured(policies));
    }

    pub(crate) fn reload(&mut self, without: Option<VmName>) {
        self.daemon.without = without;
        self.configure();
    }

    /// A person asks for something.
    pub(crate) fn command(&mut self, vm: &VmName, wish: PersonWish) {
        self.daemon.commands += 1;
        let (now, grace) = (self.world.now, Duration::from_secs(60));
        let grace = |at_once| if at_once { Duration::ZERO } else { grace };
        let wish = match wish {
            PersonWish::Snapshot { memory } => return self.take_snapshot(vm, memory),
            PersonWish::Backup { warned } => return self.back_up(vm, warned),
            PersonWish::Write { rows } => return self.write_rows(vm, rows),
            PersonWish::GoBack { to, resume } => Wish::Rewind(Rewind { to: to.into(), resume, again: false }),
            PersonWish::Approve => {
                let open = self.daemon.engine.vm(vm).and_then(|vm| vm.open_incidents().next());
                Wish::Approve { incident: open.unwrap_or_default(), to: None }
            }
            PersonWish::Start => Wish::Start,
            PersonWish::Stop { at_once } => Wish::Stop { grace: grace(at_once) },
            PersonWish::Restart { at_once } => Wish::Restart { grace: grace(at_once) },
            PersonWish::Pause => Wish::Pause,
            PersonWish::Resume => Wish::Resume,
            PersonWish::Maintain(long) => Wish::MaintenanceOn { until: long.map(|long| now + long) },
            PersonWish::EndMaintenance => Wish::MaintenanceOff,
            PersonWish::Release => Wish::Release,
            PersonWish::Announce(work, long) => Wish::Announce { work, until: now + long },
            PersonWish::EndWork(work) => Wish::WorkDone(work),
        };
        let id = CommandId(self.daemon.commands);
        let command = Command { id, by: "ann".into(), vm: vm.clone(), wish };
        if self.never_hears(&command) {
            return self.checker.wishes.accepted(now, vm, &command.wish);
        }
        self.checker.asks(&command, self.daemon.running == Running::Up);
        if self.is(Mutant::IgnoresMaintenance) && matches!(command.wish, Wish::MaintenanceOn { .. }) {
            return self.checker.believes_maintained(&command);
        }
        self.receive(Input::Command(command));
    }

    /// With `forgets-wishes` or `stops-aside`: the engine is not told of this one.
    fn never_hears(&mut self, command: &Command) -> bool {
        if self.is(Mutant::StopsAside) && matches!(command.wish, Wish::Stop { .. }) {
            let vm = self.world.index(&command.vm);
            vm.into_iter().for_each(|vm| self.world.kill(vm, ExitStatus::Code(0)));
            return true;
        }
        self.is(Mutant::ForgetsWishes) && self.checker.wishes.are_fresh(self.world.now, &command.vm)
    }

    /// An order has had its effect.
    pub(crate) fn upon_done(&mut self, action: &Action) {
        if matches!(action.order, Order::Rewind { .. }) {
            self.tell_points(&action.vm);
        }
        self.upon(&Moment::Done(action.order.name().to_owned(), action.vm.clone()));
    }

    fn upon_phases(&mut self) {
        let waits = |when: &When| matches!(when, When::Upon(Moment::Phase(..)));
        if !self.story.events.iter().any(|event| waits(&event.when)) {
            return;
        }
        let phases: Vec<Moment> = self
            .daemon
            .engine
            .incidents()
            .filter_map(|incident| {
                Some(Moment::Phase(incident.subject.vm()?.clone(), incident.phase.name().to_owned()))
            })
            .collect();
        phases.iter().for_each(|moment| self.upon(moment));
    }

    /// What a story says about this moment happens, once: to the daemon at once, to the world right after.
    fn upon(&mut self, moment: &Moment) {
        for event in 0..self.story.events.len() {
            let awaited = matches!(&self.story.events[event].when, When::Upon(one) if one == moment);
            if !awaited || self.fired[event] || self.healed {
                continue;
            }
            self.fired[event] = true;
            match &self.story.events[event].what {
                Happening::Daemon(_) => self.strike_event(event),
                _ => self.after(Duration::ZERO, Due::Event(event)),
            }
        }
    }
}
