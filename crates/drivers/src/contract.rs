//! What every driver must keep, as a check that runs against any of them.
//!
//! It starts, disturbs and ends a VM; give it one that nobody needs, that never ran, and whose guest keeps
//! running by itself. Nothing else may read the driver's events meanwhile.

use crate::{Driver, DriverError, Glimpse, Injection};
use holdfast_core::action::{Fact, Found, Operation, Order};
use holdfast_core::incident::IncidentId;
use holdfast_core::lease::{DeathProof, Incarnation, Lease, Sighting, Token};
use holdfast_core::policy::Ability;
use holdfast_core::signal::{HypervisorSign, ProcessSign, ProcessState, RunState, Seen};
use holdfast_core::subject::{HostName, VmName};
use holdfast_witness::Eyewitness;
use std::collections::BTreeSet;
use std::time::Duration;

/// A rule that a driver broke.
#[derive(Debug, thiserror::Error)]
#[error("the driver breaks its contract: {0}")]
pub struct Broken(String);

/// Whether a driver keeps the contract, tried on this VM. `host` holds the leases; each step may take
/// `limit`.
///
/// # Errors
/// The first rule that was broken.
pub async fn check<D: Driver + ?Sized>(
    driver: &D,
    vm: &VmName,
    host: &HostName,
    limit: Duration,
) -> Result<(), Broken> {
    let abilities = driver.abilities(vm);
    let mut trial = Trial { driver, vm, host, limit, abilities, newest: (Incarnation::NONE, Token(0)) };
    trial.strangers().await?;
    let proof = trial.found_dead(Incarnation::NONE).await?;
    let first = trial.start_after(&proof).await?;
    trial.running(&first).await?;
    trial.wrong_orders(&first).await?;
    trial.pause(&first).await?;
    trial.reset(&first).await?;
    trial.cable(&first).await?;
    trial.evidence(&first).await?;
    trial.stopped_is_not_dead(&first).await?;
    let proof = trial.power_off(&first).await?;
    trial.dead(&first, &proof).await?;
    let proof = trial.refused_before(&proof).await?;
    let second = trial.start_after(&proof).await?;
    let proof = trial.killed(&second).await?;
    trial.dead(&second, &proof).await
}

struct Trial<'a, D: ?Sized> {
    driver: &'a D,
    vm: &'a VmName,
    host: &'a HostName,
    limit: Duration,
    abilities: BTreeSet<Ability>,
    newest: (Incarnation, Token),
}

/// `Ok` if it is so, otherwise the rule that it breaks.
fn rule(kept: bool, text: &str, seen: &dyn std::fmt::Debug) -> Result<(), Broken> {
    if kept { Ok(()) } else { Err(Broken(format!("{text}; it gave {seen:?}"))) }
}

fn is_certain(done: &Result<Fact, DriverError>) -> bool {
    done.as_ref().is_err_and(|error| !error.is_unknown())
}

impl<D: Driver + ?Sized> Trial<'_, D> {
    fn can(&self, ability: Ability) -> bool {
        self.abilities.contains(&ability)
    }

    fn lease(&self, incarnation: Incarnation, token: Token) -> Lease {
        self.lease_of(self.vm.clone(), incarnation, token)
    }

    /// A lease as a store would give it; here it is the contract that says who may run what.
    fn lease_of(&self, vm: VmName, incarnation: Incarnation, token: Token) -> Lease {
        let running = Sighting::of(Eyewitness::here(), incarnation);
        Lease::adopting(vm, running, token, self.host.clone())
    }

    async fn order(&self, order: Order) -> Result<Fact, DriverError> {
        self.driver.perform(self.vm, &order, self.limit).await
    }

    async fn operate(&self, lease: &Lease, operation: Operation) -> Result<Fact, DriverError> {
        let (incarnation, token) = (lease.incarnation(), lease.token());
        self.order(Order::Perform { incarnation, token, operation }).await
    }

    async fn must(&self, lease: &Lease, operation: Operation) -> Result<(), Broken> {
        for turn in ["it is done", "repeating it is harmless"] {
            let done = self.operate(lease, operation.clone()).await;
            rule(done.is_ok(), &format!("{}: {turn}", operation.name()), &done)?;
        }
        Ok(())
    }

    async fn look(&self) -> Result<Found, Broken> {
        self.driver
            .inspect(self.vm)
            .await
            .map_err(|error| Broken(format!("it can be inspected; it gave {error}")))
    }

    /// Waits until an inspection finds this run state.
    async fn until_state(&self, wanted: RunState) -> Result<(), Broken> {
        let wait = async {
            loop {
                if let Found::Running { state: Some(state), .. } = self.look().await?
                    && state == wanted
                {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(self.limit, wait).await;
        reached.unwrap_or_else(|_| Err(Broken(format!("it reaches the run state {wanted:?}"))))
    }

    /// Waits for something to be told unasked.
    async fn until_told(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Result<Glimpse, Broken> {
        let wait = async {
            loop {
                let glimpse = self.driver.next_event().await;
                if fits(&glimpse.seen) {
                    return glimpse;
                }
            }
        };
        tokio::time::timeout(self.limit, wait).await.map_err(|_| Broken(format!("{what} is told unasked")))
    }

    /// A VM that is not its own is nothing to it.
    async fn strangers(&self) -> Result<(), Broken> {
        let Ok(stranger) = "a-vm-of-nobody".parse() else { return Ok(()) };
        let found = self.driver.inspect(&stranger).await;
        rule(matches!(found, Err(DriverError::NoSuchVm(_))), "a strange vm is refused", &found)?;
        let done = self.driver.perform(&stranger, &Order::Inspect, self.limit).await;
        rule(is_certain(&done), "an order to a strange vm is refused", &done)?;
        rule(self.driver.abilities(&stranger).is_empty(), "a strange vm has no abilities", &())
    }

    async fn found_dead(&self, incarnation: Incarnation) -> Result<DeathProof, Broken> {
        match self.look().await? {
            Found::Dead(proof) if proof.incarnation() == incarnation && proof.vm() == self.vm => Ok(proof),
            found @ (Found::Dead(_) | Found::Running { .. } | Found::Unclear { .. }) => {
                Err(Broken(format!("{incarnation} is found dead; it gave {found:?}")))
            }
        }
    }

    async fn start_after(&mut self, proof: &DeathProof) -> Result<Lease, Broken> {
        let lease = Lease::after(proof, Token(self.newest.1.0 + 10), self.host.clone());
        let mut pids = BTreeSet::new();
        for turn in ["a start under a new lease is done", "repeating a start is harmless"] {
            let done = self.order(Order::Start { lease: lease.clone() }).await;
            let Ok(Fact::Started { pid }) = done else { return rule(false, turn, &done).map(|()| lease) };
            pids.insert(pid);
        }
        rule(pids.len() == 1, "a repeated start starts nothing", &pids)?;
        self.newest = (lease.incarnation(), lease.token());
        Ok(lease)
    }

    /// Leases of which no start came are used up by the newest of them.
    async fn refused_before(&mut self, proof: &DeathProof) -> Result<DeathProof, Broken> {
        let (incarnation, token) = (proof.incarnation().next().next(), Token(self.newest.1.0 + 10));
        let lease = self.lease(incarnation, token);
        for turn in ["a start that never came is used up", "and it is harmless to say so again"] {
            let done = self.driver.refuse_start(self.vm, &lease, self.limit).await;
            rule(done.is_ok(), turn, &done)?;
        }
        let done = self.order(Order::Start { lease }).await;
        rule(is_certain(&done), "nothing is started under a lease that is used up (I3)", &done)?;
        self.newest = (incarnation, token);
        self.found_dead(incarnation).await
    }

    async fn running(&self, lease: &Lease) -> Result<(), Broken> {
        self.until_state(RunState::Running).await?;
        let found = self.look().await?;
        let ours = matches!(&found, Found::Running { seen, lease: None, .. } if seen.incarnation() == lease.incarnation());
        rule(ours, "the started incarnation is found, without a lease", &found)?;
        let glimpses = self.driver.poll(self.vm, self.limit).await;
        let ours = |g: &Glimpse| g.vm == *self.vm && g.incarnation == lease.incarnation();
        rule(glimpses.iter().all(ours), "what is seen is of the running incarnation", &glimpses)?;
        let answers = |g: &Glimpse| {
            matches!(g.seen, Seen::Hypervisor(HypervisorSign::Answered { state: RunState::Running, .. }))
        };
        rule(glimpses.iter().any(answers), "a running VM's hypervisor answers", &glimpses)
    }

    async fn wrong_orders(&self, lease: &Lease) -> Result<(), Broken> {
        let (incarnation, token) = (lease.incarnation(), lease.token());
        let lower = self.lease(incarnation, Token(token.0 - 1));
        let before = self.lease(Incarnation(incarnation.0 - 1), token);
        for old in [&lower, &before] {
            let done = self.operate(old, Operation::Pause).await;
            rule(matches!(done, Err(DriverError::Stale { .. })), "an old order is refused (I3)", &done)?;
            let (incarnation, token) = (old.incarnation(), old.token());
            let done = self.order(Order::PowerOff { incarnation, token }).await;
            rule(matches!(done, Err(DriverError::Stale { .. })), "an old power off is refused (I3)", &done)?;
        }
        let next = self.lease(incarnation.next(), Token(token.0 + 1));
        let done = self.operate(&next, Operation::Pause).await;
        rule(is_certain(&done), "an order to another incarnation is refused", &done)?;
        let done = self.order(Order::Start { lease: next.clone() }).await;
        rule(is_certain(&done), "no second copy is started (I1)", &done)?;
        if let Ok(other) = "another".parse() {
            let foreign = self.lease_of(other, next.incarnation(), next.token());
            let done = self.order(Order::Start { lease: foreign }).await;
            rule(is_certain(&done), "a lease for another VM starts nothing", &done)?;
        }
        let done = self.driver.refuse_start(self.vm, &next, self.limit).await;
        rule(done.is_ok(), "a lease that comes while it runs uses nothing up", &done)?;
        let seen = Sighting::of(Eyewitness::here(), incarnation);
        for order in [Order::Inspect, Order::Adopt { seen }] {
            let done = self.order(order).await;
            rule(is_certain(&done), "orders about leases and inspections are refused", &done)?;
        }
        self.running(lease).await
    }

    async fn pause(&self, lease: &Lease) -> Result<(), Broken> {
        if !self.can(Ability::Pause) {
            return Ok(());
        }
        self.must(lease, Operation::Pause).await?;
        self.until_state(RunState::Paused).await?;
        self.must(lease, Operation::Continue).await?;
        self.until_state(RunState::Running).await
    }

    async fn reset(&self, lease: &Lease) -> Result<(), Broken> {
        if !self.can(Ability::Reset) {
            return Ok(());
        }
        if self.can(Ability::Pause) {
            self.must(lease, Operation::Pause).await?; // whatever stopped it, it runs afterwards
        }
        self.must(lease, Operation::Reset).await?;
        let by_us = Seen::Hypervisor(HypervisorSign::Reset { by_guest: false });
        self.until_told("a reset by us", |seen| *seen == by_us).await?;
        self.until_state(RunState::Running).await
    }

    async fn cable(&self, lease: &Lease) -> Result<(), Broken> {
        if self.can(Ability::Link) {
            self.must(lease, Operation::LinkDown).await?;
            self.must(lease, Operation::LinkUp).await?;
        }
        Ok(())
    }

    async fn evidence(&self, lease: &Lease) -> Result<(), Broken> {
        if !self.can(Ability::Screenshot) && !self.can(Ability::Console) {
            return Ok(());
        }
        let capture = |incarnation| Order::Capture { incarnation, incident: IncidentId(1) };
        let done = self.order(capture(lease.incarnation())).await;
        let kept = matches!(&done, Ok(Fact::Captured { files }) if !files.is_empty());
        rule(kept, "evidence is kept of a running VM", &done)?;
        let done = self.order(capture(lease.incarnation().next())).await;
        rule(is_certain(&done), "evidence of an incarnation that does not run is refused", &done)
    }

    async fn stopped_is_not_dead(&self, lease: &Lease) -> Result<(), Broken> {
        if !self.can(Ability::Inject) {
            return Ok(());
        }
        let inject = async |fault| {
            let done = self.driver.inject(self.vm, &fault).await;
            rule(done.is_ok(), "a fault can be injected", &done)
        };
        inject(Injection::Stop).await?;
        let short = Duration::from_millis(300);
        let glimpses = self.driver.poll(self.vm, short).await;
        let silent = |g: &Glimpse| matches!(g.seen, Seen::Hypervisor(HypervisorSign::NoAnswer { .. }));
        rule(glimpses.iter().any(silent), "a stopped process is silent", &glimpses)?;
        let stopped = |g: &Glimpse| {
            matches!(g.seen, Seen::Process(ProcessSign::Alive { state: ProcessState::Stopped, .. }))
        };
        rule(glimpses.iter().any(stopped), "a stopped process is seen as stopped", &glimpses)?;
        let found = self.look().await?;
        let alive =
            matches!(&found, Found::Running { seen, .. } if seen.incarnation() == lease.incarnation());
        rule(alive, "silence is not death (I10)", &found)?;
        inject(Injection::Unstop).await?;
        self.until_state(RunState::Running).await?;
        inject(Injection::Stop).await // and so it is powered off
    }

    async fn power_off(&self, lease: &Lease) -> Result<DeathProof, Broken> {
        let (incarnation, token) = (lease.incarnation(), lease.token());
        let done = self.order(Order::PowerOff { incarnation, token }).await;
        match done {
            Ok(Fact::Died(proof)) => Ok(proof),
            done => Err(Broken(format!("a power off proves a death; it gave {done:?}"))),
        }
    }

    async fn killed(&self, lease: &Lease) -> Result<DeathProof, Broken> {
        if !self.can(Ability::Inject) {
            return self.power_off(lease).await;
        }
        let killed = self.driver.inject(self.vm, &Injection::Kill).await;
        rule(killed.is_ok(), "a process can be killed in a drill", &killed)?;
        let of_it = |proof: &DeathProof| proof.incarnation() == lease.incarnation();
        let is_exit =
            |seen: &Seen| matches!(seen, Seen::Process(ProcessSign::Exited { proof, .. }) if of_it(proof));
        self.until_told("the exit of a process", is_exit).await?;
        self.found_dead(lease.incarnation()).await
    }

    async fn dead(&self, lease: &Lease, proof: &DeathProof) -> Result<(), Broken> {
        let of_it = proof.vm() == self.vm && proof.incarnation() == lease.incarnation();
        rule(of_it, "the proof names the VM and the incarnation that died", proof)?;
        self.found_dead(lease.incarnation()).await?;
        let again = self.power_off(lease).await?;
        rule(again.incarnation() == lease.incarnation(), "repeating a power off is harmless", &again)?;
        let done = self.operate(lease, Operation::Continue).await;
        rule(is_certain(&done), "an order to a dead VM is refused", &done)?;
        let done = self.order(Order::Start { lease: lease.clone() }).await;
        rule(matches!(done, Err(DriverError::Stale { .. })), "an incarnation is never reused", &done)?;
        let glimpses = self.driver.poll(self.vm, self.limit).await;
        rule(glimpses.is_empty(), "nothing is seen of a dead VM", &glimpses)
    }
}
