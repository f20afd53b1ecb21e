//! The simulated hypervisor behind the `Driver` trait: the second implementation of it, and the proof that the
//! machines of the stories behave as a real driver must (`tests/contract.rs`).
//!
//! Its time is its own: it passes only while something is asked, so nothing here waits.

use crate::driver::takes;
use crate::faults::{CableFault, DiskFault, Happening, ProcessFault};
use crate::hypervisor::{Effect, Refusal};
use crate::sense::Probe;
use crate::story::Story;
use crate::world::{Glimpse as Sight, Plan, World};
use async_trait::async_trait;
use holdfast_core::action::{Fact, Found, Order};
use holdfast_core::lease::{Incarnation, Lease, Token};
use holdfast_core::policy::Ability;
use holdfast_core::signal::{AgentSign, ProcessSign, Seen};
use holdfast_core::subject::{AppName, VmName};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_drivers::{Driver, DriverError, Glimpse, GuestRead, Injection, Piece, Places, Question};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};

/// A simulated hypervisor with the VMs of a story. What the story says of events is not for it.
pub struct Hypervisor {
    stand: Mutex<Stand>,
}

/// The world, and what it will do and has told.
struct Stand {
    world: World,
    plans: Vec<(Timestamp, Plan)>,
    told: VecDeque<Glimpse>,
}

/// What one question takes.
const QUESTION: Duration = Duration::from_millis(10);

impl Hypervisor {
    /// The VMs of this story, as they are found.
    #[must_use]
    pub fn new(story: &Story) -> Self {
        let world = World::new(story, 0);
        Self { stand: Mutex::new(Stand { world, plans: Vec::new(), told: VecDeque::new() }) }
    }

    fn stand(&self) -> MutexGuard<'_, Stand> {
        self.stand.lock().expect("nobody panics while holding it")
    }
}

impl Stand {
    fn index(&self, vm: &VmName) -> Result<usize, DriverError> {
        self.world.index(vm).ok_or_else(|| DriverError::NoSuchVm(vm.clone()))
    }

    /// Lets time pass: what the world had planned happens, and what it tells is kept.
    fn pass(&mut self, long: Duration) {
        let until = self.world.now + long;
        self.settle();
        while let Some(next) = self.earliest(until) {
            let (at, plan) = self.plans.remove(next);
            self.world.now = self.world.now.max(at);
            self.world.happen(&plan);
            self.settle();
        }
        self.world.now = until;
    }

    fn earliest(&self, until: Timestamp) -> Option<usize> {
        let due = self.plans.iter().enumerate().filter(|(_, (at, _))| *at <= until);
        due.min_by_key(|(number, (at, _))| (*at, *number)).map(|(number, _)| number)
    }

    fn settle(&mut self) {
        self.plans.append(&mut self.world.later);
        for sight in std::mem::take(&mut self.world.heard) {
            self.told.extend(self.translate(sight));
        }
    }

    /// What was seen of a running incarnation, in the words of drivers.
    fn translate(&self, sight: Sight) -> Option<Glimpse> {
        let machine = self.world.machines.get(sight.vm)?;
        let app = sight.app.and_then(|app| machine.guest.apps.get(app)).map(|app| app.name.clone());
        let (vm, incarnation) = (machine.setup.name.clone(), sight.incarnation?);
        Some(Glimpse { vm, incarnation, app, seen: sight.seen })
    }

    fn look(&mut self, probe: Probe) -> Vec<Glimpse> {
        let mut seen = Vec::new();
        self.world.ask(probe, None, &mut |_, sight| seen.push(sight));
        self.pass(QUESTION);
        seen.into_iter().filter_map(|sight| self.translate(sight)).collect()
    }

    /// Waits for the end of a process.
    fn await_exit(&mut self, vm: usize, incarnation: Incarnation, limit: Duration) -> Option<Fact> {
        let end = self.world.now + limit;
        while self.world.now < end && self.world.machines[vm].incarnation() == Some(incarnation) {
            self.pass(QUESTION);
        }
        let of_it = |glimpse: &&Glimpse| glimpse.incarnation == incarnation;
        self.told.iter().rev().filter(of_it).find_map(|glimpse| match &glimpse.seen {
            Seen::Process(ProcessSign::Exited { proof, .. }) => Some(Fact::Died(proof.clone())),
            _ => None,
        })
    }
}

/// What the order names, for the refusal of an old one.
fn named(order: &Order) -> (Incarnation, Token) {
    match order {
        Order::Perform { incarnation, token, .. } | Order::PowerOff { incarnation, token } => {
            (*incarnation, *token)
        }
        Order::Start { lease } => (lease.incarnation(), lease.token()),
        Order::Capture { incarnation, .. } => (*incarnation, Token(0)),
        Order::Rewind { proof, .. } => (proof.incarnation(), Token(0)),
        Order::Adopt { seen } => (seen.incarnation(), Token(0)),
        Order::Inspect | Order::Reach { .. } | Order::TakeLease { .. } | Order::ReleaseLease { .. } => {
            (Incarnation::NONE, Token(0))
        }
    }
}

#[async_trait]
impl Driver for Hypervisor {
    fn abilities(&self, vm: &VmName) -> BTreeSet<Ability> {
        let stand = self.stand();
        let machine = stand.index(vm).map(|vm| &stand.world.machines[vm]);
        machine.map(|machine| machine.setup.policy.abilities.clone()).unwrap_or_default()
    }

    fn places(&self, vm: &VmName) -> Places {
        let stand = self.stand();
        let process = stand.index(vm).ok().and_then(|vm| stand.world.machines[vm].process.as_ref());
        Places { pid: process.map(|process| process.pid), ..Places::default() }
    }

    async fn inspect(&self, vm: &VmName) -> Result<Found, DriverError> {
        let mut stand = self.stand();
        let at = stand.index(vm)?;
        stand.pass(takes(&Order::Inspect));
        Ok(match stand.world.inspect(at, None) {
            Found::Running { seen, pid, state, lease: _ } => Found::Running { seen, pid, state, lease: None },
            found @ (Found::Dead(_) | Found::Unclear { .. }) => found,
        })
    }

    async fn perform(&self, vm: &VmName, order: &Order, limit: Duration) -> Result<Fact, DriverError> {
        let mut stand = self.stand();
        let at = stand.index(vm)?;
        stand.pass(takes(order));
        let effect = stand.world.carry_out(at, order, None);
        stand.settle();
        let (what, name) = (order.name(), vm.clone());
        match effect {
            Effect::Done(fact) => Ok(fact),
            Effect::Failed(Refusal::Stale(_)) => {
                let record = stand.world.machines[at].record;
                let newest = (record.started, record.token);
                Err(DriverError::Stale { vm: name, named: named(order), newest })
            }
            Effect::Failed(Refusal::NotRunning) => Err(DriverError::NotRunning(name)),
            Effect::Failed(Refusal::Blocked(why)) => Err(DriverError::Blocked { what, vm: name, why }),
            Effect::Failed(Refusal::DiskGone(why)) => Err(DriverError::DiskGone { vm: name, why }),
            Effect::Failed(Refusal::Refused(why)) => Err(DriverError::Refused { what, vm: name, why }),
            Effect::AwaitsExit(incarnation) => {
                stand.await_exit(at, incarnation, limit).ok_or(DriverError::Late { what, vm: name, limit })
            }
            Effect::Silence => {
                stand.pass(limit);
                Err(DriverError::Late { what, vm: name, limit })
            }
        }
    }

    async fn refuse_start(&self, vm: &VmName, lease: &Lease, _limit: Duration) -> Result<(), DriverError> {
        let mut stand = self.stand();
        let at = stand.index(vm)?;
        let machine = &mut stand.world.machines[at];
        if machine.process.is_none() && machine.record.started < lease.incarnation() {
            (machine.record.started, machine.record.token) = (lease.incarnation(), lease.token());
        }
        Ok(())
    }

    async fn poll(&self, vm: &VmName, _limit: Duration) -> Vec<Glimpse> {
        let mut stand = self.stand();
        let Ok(at) = stand.index(vm) else { return Vec::new() };
        stand.world.count_writes(at);
        stand.look(Probe::Poll(at))
    }

    async fn ask(&self, vm: &VmName, question: &Question, _limit: Duration) -> Vec<Glimpse> {
        let mut stand = self.stand();
        let Ok(at) = stand.index(vm) else { return Vec::new() };
        let mut heard = stand.look(Probe::Ping(at));
        if !stand.world.agent_answers(at) {
            return heard;
        }
        let inside = |stand: &Stand, app: &AppName| {
            let app = stand.world.machines[at].guest.app(app);
            let signs = app.map(|app| stand.world.look_inside(at, app)).unwrap_or_default();
            signs.into_iter().filter_map(|sight| stand.translate(sight)).collect::<Vec<_>>()
        };
        match question {
            Question::Ping => {}
            Question::Services(apps) => heard.extend(apps.iter().flat_map(|(app, _)| inside(&stand, app))),
            Question::Check(app, _) => {
                let checks = |glimpse: &Glimpse| matches!(glimpse.seen, Seen::Agent(AgentSign::Check { .. }));
                heard.extend(inside(&stand, app).into_iter().filter(checks));
            }
            Question::Health | Question::Disks => heard.extend(stand.look(Probe::Health(at))),
        }
        heard
    }

    async fn read(&self, vm: &VmName, _: &GuestRead, _: Duration) -> Result<Piece, DriverError> {
        self.stand().index(vm)?;
        Err(DriverError::Unable("read logs in a simulated guest"))
    }

    async fn next_event(&self) -> Glimpse {
        {
            let mut stand = self.stand();
            while stand.told.is_empty() && !stand.plans.is_empty() {
                stand.pass(QUESTION);
            }
            if let Some(glimpse) = stand.told.pop_front() {
                return glimpse;
            }
        }
        std::future::pending().await // its time passes only while something is asked
    }

    async fn inject(&self, vm: &VmName, fault: &Injection) -> Result<(), DriverError> {
        let mut stand = self.stand();
        let at = stand.index(vm)?;
        if stand.world.machines[at].process.is_none() {
            return Err(DriverError::NotRunning(vm.clone()));
        }
        let name = vm.clone();
        let happening = match fault {
            Injection::Kill => Happening::Process(name, ProcessFault::Dies),
            Injection::Stop => Happening::Process(name, ProcessFault::Stops),
            Injection::Unstop => Happening::Process(name, ProcessFault::GoesOn),
            Injection::DiskError(true) => Happening::Disk(name, DiskFault::Fails),
            Injection::DiskError(false) => Happening::Disk(name, DiskFault::Works),
            Injection::LinkDown(true) => Happening::Cable(name, CableFault::Unplugged),
            Injection::LinkDown(false) => Happening::Cable(name, CableFault::Plugged),
            Injection::DiskSlow(_) => return Err(DriverError::Unable("slow a simulated disk down")),
            Injection::Script(_) | Injection::Check(_) => {
                return Err(DriverError::Unable("run a script in a simulated guest"));
            }
        };
        stand.world.strike(&happening);
        stand.pass(QUESTION);
        Ok(())
    }
}
