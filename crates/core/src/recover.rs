//! Bring the service back: the one thing that is being done to a VM, step by step.
//!
//! A [`Job`] asks for one action at a time and goes on only when its outcome is known. The order of a
//! restart is fixed by the types: the process is ended and its death proven, the proof takes the lease of
//! the next incarnation, the lease allows the start (I1, I2). An unknown outcome ends the job: the VM is
//! looked at before anything else is done (I9).

use crate::action::{ActionId, Ended, Fact, Found, Operation, Order, Reason, Rewind};
use crate::incident::IncidentId;
use crate::lease::{DeathProof, Incarnation, Lease, Token};
use crate::point::PointId;
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// What is known of the VM's power.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Not known (any more): look first.
    #[default]
    Unknown,
    /// Dead, and here is why we are sure.
    Off(DeathProof),
    /// Running under this lease.
    On(Lease),
}

impl Power {
    /// The incarnation that runs.
    #[must_use]
    pub const fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::On(lease) => Some(lease.incarnation()),
            Self::Unknown | Self::Off(_) => None,
        }
    }
}

/// What a job is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Find out whether it runs.
    Look,
    /// Let it run.
    Up,
    /// End it: ask the guest for so long, then cut the power.
    Down {
        /// How long the guest may take.
        grace: Duration,
        /// And start it again.
        then_up: bool,
    },
    /// Keep evidence, end it without asking, start it again.
    Cycle,
    /// End it without asking, go back to a restore point, start it again.
    Rewind(Rewind),
    /// One operation on the running machine.
    Do(Operation),
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The VM is being looked at.
    Looking,
    /// A running VM without a lease is being adopted.
    Adopting,
    /// It is seen whether it could start again, from the restore point if it goes back to one: nothing is ended for what could not
    /// be brought back.
    Reaching,
    /// Evidence is being kept.
    Capturing,
    /// The guest is being asked to power down.
    Asking,
    /// The guest was asked; its process may end any moment until then.
    AwaitingEnd {
        /// Then the power is cut.
        until: Timestamp,
    },
    /// The process is being ended.
    CuttingPower,
    /// It is dead, and its disk is being changed for that of a restore point.
    Rewinding,
    /// The lease is being taken.
    Claiming,
    /// The new incarnation is being started.
    Starting(Lease),
    /// The operation is being done.
    Doing,
    /// The lease is being given back.
    Releasing,
}

/// One thing being done to a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What for.
    pub goal: Goal,
    /// Why.
    pub reason: Reason,
    /// Where it stands.
    pub step: Step,
    /// The action whose outcome it waits for.
    pub action: Option<ActionId>,
    /// When that action is given up.
    pub deadline: Timestamp,
    /// How long one operation may take.
    pub limit: Duration,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Ask for this action.
    Ask(Step, Order, Duration),
    /// Wait for the process to end.
    Wait(Step),
    /// Done.
    Finished,
    /// Done up to a start that nobody wants any more.
    Unstarted,
    /// Certainly not done.
    Failed(String),
    /// Certainly not done, because somebody else is in the way.
    Blocked(String),
    /// Certainly not done, because its disk is not there.
    DiskGone(String),
    /// Nobody knows; look.
    Unknown(String),
}

const LOOK: Duration = Duration::from_secs(5);
/// Evidence first, at most so long (DESIGN 2.4).
const CAPTURE: Duration = Duration::from_secs(3);
/// The end of a large process takes seconds: its memory is given back first.
const POWER_OFF: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(5);
const REWIND: Duration = Duration::from_secs(30);
/// A repository is opened meanwhile, perhaps far away.
const RESTORE: Duration = Duration::from_secs(120);
const START: Duration = Duration::from_secs(30);
const SHUTDOWN: Duration = Duration::from_secs(5);

impl Job {
    /// What was handed over and cannot be taken back, in a word, where it changes what users see.
    #[must_use]
    pub fn irrevocable(&self) -> Option<&'static str> {
        self.action?;
        match (&self.step, &self.goal) {
            (Step::Asking, _) => Some(Operation::Shutdown.name()),
            (Step::CuttingPower, _) => Some("power-off"),
            (Step::Rewinding, _) => Some("rewind"),
            (Step::Starting(_), _) => Some("start"),
            (Step::Doing, Goal::Do(operation)) => Some(operation.name()),
            _ => None,
        }
    }

    /// A job that has not begun.
    #[must_use]
    pub const fn new(goal: Goal, reason: Reason, limit: Duration) -> Self {
        Self { goal, reason, step: Step::Looking, action: None, deadline: Timestamp::NEVER, limit }
    }

    /// The incident it works for.
    #[must_use]
    pub const fn incident(&self) -> Option<IncidentId> {
        match self.reason {
            Reason::Incident(id) => Some(id),
            Reason::Command(_) | Reason::Upkeep => None,
        }
    }

    /// It has changed nothing yet.
    #[must_use]
    pub const fn prepares(&self) -> bool {
        matches!(self.step, Step::Reaching | Step::Capturing)
    }

    /// It is taking the right to start the VM, or starting it.
    #[must_use]
    pub const fn starts(&self) -> bool {
        matches!(self.step, Step::Claiming | Step::Starting(_))
    }

    /// Its first step.
    #[must_use]
    pub fn begin(&self, power: &Power, incident: Option<IncidentId>) -> Next {
        match (&self.goal, power) {
            (Goal::Look, _) => Next::Ask(Step::Looking, Order::Inspect, LOOK),
            (_, Power::Unknown) => Next::Unknown("its state is not known".into()),
            (Goal::Up | Goal::Cycle | Goal::Down { then_up: true, .. }, Power::Off(proof)) => claim(proof),
            (Goal::Rewind(to), Power::Off(proof)) => rewind(proof, *to),
            (Goal::Up, Power::On(_)) => Next::Finished,
            (Goal::Down { then_up: false, .. }, Power::Off(_)) => Next::Finished,
            (Goal::Down { grace, .. }, Power::On(lease)) if grace.is_zero() => cut(lease),
            (Goal::Down { .. }, Power::On(lease)) => {
                Next::Ask(Step::Asking, perform(lease, Operation::Shutdown), SHUTDOWN)
            }
            (Goal::Cycle, Power::On(_)) => Next::Ask(Step::Reaching, Order::Reach { to: None }, START),
            (Goal::Rewind(to), Power::On(_)) => {
                Next::Ask(Step::Reaching, Order::Reach { to: Some(*to) }, RESTORE)
            }
            (Goal::Do(operation), Power::On(lease)) => self.before_doing(operation, lease, incident),
            (Goal::Do(_), Power::Off(_)) => Next::Failed("it does not run".into()),
        }
    }

    fn before_doing(&self, operation: &Operation, lease: &Lease, incident: Option<IncidentId>) -> Next {
        match (operation, incident) {
            (Operation::Reset, Some(incident)) => capture(lease, incident),
            _ => Next::Ask(Step::Doing, perform(lease, operation.clone()), self.limit),
        }
    }

    /// The next step, now that the outcome of the last one is known. `power` is brought up to date.
    #[must_use]
    pub fn settle(&self, now: Timestamp, power: &mut Power, ended: &Ended) -> Next {
        match (&self.step, ended) {
            (Step::Looking, Ended::Done(Fact::Found(found))) => look(power, found),
            (Step::Adopting, Ended::Done(Fact::Leased(lease))) => {
                *power = Power::On(lease.clone());
                Next::Finished
            }
            (Step::Reaching, Ended::Done(_)) => match power {
                Power::On(lease) => keep_evidence(lease, self.incident()),
                Power::Off(_) | Power::Unknown => self.begin(power, self.incident()), // it died meanwhile
            },
            // Nobody has touched it.
            (Step::Reaching, Ended::Blocked { why } | Ended::Unknown { why }) => Next::Blocked(why.clone()),
            // Evidence is worth three seconds, not the service: without it we go on.
            (Step::Capturing, _) => self.after_capture(power),
            (Step::Asking, Ended::Done(_)) => self.await_end(now),
            (
                Step::Asking,
                Ended::Failed { .. } | Ended::Blocked { .. } | Ended::DiskGone { .. } | Ended::Unknown { .. },
            ) => cut_if_on(power),
            (Step::CuttingPower, Ended::Done(Fact::Died(proof))) => self.died(power, proof),
            (Step::Rewinding, Ended::Done(Fact::Nothing)) => match power {
                Power::Off(proof) => claim(proof),
                Power::On(_) | Power::Unknown => Next::Unknown("its state is not known any more".into()),
            },
            (Step::Claiming, Ended::Done(Fact::Leased(lease))) => {
                Next::Ask(Step::Starting(lease.clone()), Order::Start { lease: lease.clone() }, START)
            }
            (Step::Starting(lease), Ended::Done(Fact::Started { .. })) => {
                *power = Power::On(lease.clone());
                Next::Finished
            }
            (
                Step::Starting(lease),
                Ended::Failed { why } | Ended::Blocked { why } | Ended::DiskGone { why },
            ) => {
                *power = never_ran(lease);
                not_started(ended, why)
            }
            // The repository cannot be reached; the VM stays as it is, dead for certain.
            (Step::Rewinding, Ended::Blocked { why }) => Next::Blocked(why.clone()),
            (Step::Doing | Step::Releasing, Ended::Done(_)) => Next::Finished,
            (Step::Claiming, Ended::Failed { why } | Ended::Blocked { why } | Ended::DiskGone { why }) => {
                *power = Power::Unknown; // the store knows of another incarnation, or cannot be written
                Next::Unknown(why.clone())
            }
            (_, Ended::Failed { why } | Ended::Blocked { why } | Ended::DiskGone { why }) => {
                Next::Failed(why.clone())
            }
            (_, Ended::Unknown { why }) => {
                *power = Power::Unknown;
                Next::Unknown(why.clone())
            }
            (_, Ended::Done(fact)) => {
                *power = Power::Unknown;
                Next::Unknown(format!("an answer that does not fit: {fact:?}"))
            }
        }
    }

    fn after_capture(&self, power: &Power) -> Next {
        match (&self.goal, power) {
            (Goal::Do(operation), Power::On(lease)) => {
                Next::Ask(Step::Doing, perform(lease, operation.clone()), self.limit)
            }
            (_, Power::On(lease)) => cut(lease),
            (Goal::Rewind(to), Power::Off(proof)) => rewind(proof, *to),
            (_, Power::Off(proof)) => claim(proof),
            (_, Power::Unknown) => Next::Unknown("its state is not known any more".into()),
        }
    }

    fn await_end(&self, now: Timestamp) -> Next {
        let grace = if let Goal::Down { grace, .. } = &self.goal { *grace } else { Duration::ZERO };
        Next::Wait(Step::AwaitingEnd { until: now + grace })
    }

    /// The process is seen to be dead, by our doing or by itself, while this job is under way.
    #[must_use]
    pub fn died(&self, power: &mut Power, proof: &DeathProof) -> Next {
        *power = Power::Off(proof.clone());
        match &self.goal {
            Goal::Up | Goal::Cycle | Goal::Down { then_up: true, .. } => claim(proof),
            Goal::Rewind(to) => rewind(proof, *to),
            Goal::Down { then_up: false, .. } => Self::give_back(proof),
            Goal::Look => Next::Finished,
            Goal::Do(_) => Next::Failed(format!("it died: {proof}")),
        }
    }

    /// It stays off: its lease is given back.
    #[must_use]
    pub fn give_back(proof: &DeathProof) -> Next {
        Next::Ask(Step::Releasing, Order::ReleaseLease { proof: proof.clone() }, LEASE)
    }

    /// The guest had its time to power down.
    #[must_use]
    pub fn grace_is_over(&self, now: Timestamp) -> bool {
        matches!(self.step, Step::AwaitingEnd { until } if now >= until)
    }

    /// The step after the grace: cut the power.
    #[must_use]
    pub fn after_grace(&self, power: &Power) -> Next {
        cut_if_on(power)
    }
}

/// A refused start. The driver says so only when no process is left: that incarnation is used up and dead.
fn never_ran(lease: &Lease) -> Power {
    Power::Off(DeathProof::of_refused_start(lease))
}

fn perform(lease: &Lease, operation: Operation) -> Order {
    let (incarnation, token): (Incarnation, Token) = (lease.incarnation(), lease.token());
    Order::Perform { incarnation, token, operation }
}

/// Takes the lease for the next incarnation: only a proof of death gets here.
fn claim(proof: &DeathProof) -> Next {
    Next::Ask(Step::Claiming, Order::TakeLease { proof: proof.clone() }, LEASE)
}

/// Changes the disk of a VM whose death is proven (I15).
fn rewind(proof: &DeathProof, to: Rewind) -> Next {
    let limit = match to.to {
        PointId::Snapshot(_) => REWIND,
        PointId::Backup { .. } => RESTORE,
    };
    Next::Ask(Step::Rewinding, Order::Rewind { proof: proof.clone(), to }, limit)
}

/// How a start ended that was refused.
fn not_started(ended: &Ended, why: &str) -> Next {
    match ended {
        Ended::Blocked { .. } => Next::Blocked(why.to_owned()),
        Ended::DiskGone { .. } => Next::DiskGone(why.to_owned()),
        Ended::Done(_) | Ended::Failed { .. } | Ended::Unknown { .. } => Next::Failed(why.to_owned()),
    }
}

/// Keeps evidence of what ails it, if that is why, then ends it.
fn keep_evidence(lease: &Lease, incident: Option<IncidentId>) -> Next {
    incident.map_or_else(|| cut(lease), |incident| capture(lease, incident))
}

fn capture(lease: &Lease, incident: IncidentId) -> Next {
    Next::Ask(Step::Capturing, Order::Capture { incarnation: lease.incarnation(), incident }, CAPTURE)
}

fn cut(lease: &Lease) -> Next {
    let order = Order::PowerOff { incarnation: lease.incarnation(), token: lease.token() };
    Next::Ask(Step::CuttingPower, order, POWER_OFF)
}

fn cut_if_on(power: &Power) -> Next {
    match power {
        Power::On(lease) => cut(lease),
        Power::Off(_) => Next::Finished,
        Power::Unknown => Next::Unknown("its state is not known".into()),
    }
}

fn look(power: &mut Power, found: &Found) -> Next {
    match found {
        Found::Dead(proof) => {
            *power = Power::Off(proof.clone());
            Next::Finished
        }
        Found::Running { seen, lease: Some(lease), .. } if lease.incarnation() == seen.incarnation() => {
            *power = Power::On(lease.clone());
            Next::Finished
        }
        Found::Running { seen, lease: None, .. } => {
            Next::Ask(Step::Adopting, Order::Adopt { seen: *seen }, LEASE)
        }
        Found::Running { seen, lease: Some(lease), .. } => {
            *power = Power::Unknown;
            let (incarnation, leased) = (seen.incarnation(), lease.incarnation());
            Next::Failed(format!("incarnation {incarnation} runs, but the lease is for {leased}"))
        }
        Found::Unclear { why } => {
            *power = Power::Unknown;
            Next::Failed(why.clone())
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::lease::{Death, Sighting};
    use crate::point::SnapshotId;
    use holdfast_witness::Eyewitness;

    fn lease(n: u64) -> Lease {
        Lease::after(&proof(n - 1), Token(n), "atlas".parse().unwrap())
    }

    fn proof(n: u64) -> DeathProof {
        DeathProof::witnessed(
            Eyewitness::here(),
            "db".parse().unwrap(),
            Incarnation(n),
            Death::NotFound { pid: 7 },
        )
    }

    fn job(goal: Goal, step: Step) -> Job {
        Job { step, ..Job::new(goal, Reason::Upkeep, LOOK) }
    }

    #[test]
    fn a_restart_proves_death_before_it_claims_and_claims_before_it_starts() {
        let mut power = Power::On(lease(1));
        let begun = job(Goal::Cycle, Step::Looking).begin(&power, None);
        assert!(matches!(begun, Next::Ask(Step::Reaching, Order::Reach { to: None }, _)));
        let could = Ended::Done(Fact::Nothing);
        let next = job(Goal::Cycle, Step::Reaching).settle(Timestamp::ZERO, &mut power, &could);
        assert!(matches!(next, Next::Ask(Step::CuttingPower, Order::PowerOff { .. }, _)));
        let died = Ended::Done(Fact::Died(proof(1)));
        let next = job(Goal::Cycle, Step::CuttingPower).settle(Timestamp::ZERO, &mut power, &died);
        assert!(matches!(next, Next::Ask(Step::Claiming, Order::TakeLease { .. }, _)));
        let leased = Ended::Done(Fact::Leased(lease(2)));
        let next = job(Goal::Cycle, Step::Claiming).settle(Timestamp::ZERO, &mut power, &leased);
        assert!(matches!(next, Next::Ask(Step::Starting(_), Order::Start { .. }, _)));
    }

    #[test]
    fn what_could_not_start_again_is_not_ended() {
        let to = Rewind { to: PointId::Snapshot(SnapshotId(1)), resume: true, again: false };
        for goal in [Goal::Cycle, Goal::Rewind(to)] {
            let settle = |power: &mut Power, ended: Ended| {
                job(goal.clone(), Step::Reaching).settle(Timestamp::ZERO, power, &ended)
            };
            let mut power = Power::On(lease(1));
            let why = || "its kernel is gone".to_owned();
            assert_eq!(settle(&mut power, Ended::Blocked { why: why() }), Next::Blocked(why()));
            assert_eq!(settle(&mut power, Ended::Unknown { why: why() }), Next::Blocked(why()));
            assert_eq!(settle(&mut power, Ended::Failed { why: why() }), Next::Failed(why()));
            assert_eq!(power, Power::On(lease(1)), "it runs on");

            power = Power::Off(proof(1)); // it died by itself meanwhile
            let next = settle(&mut power, Ended::Done(Fact::Nothing));
            let goes_on = matches!(next, Next::Ask(Step::Claiming | Step::Rewinding, ..));
            assert!(goes_on, "{next:?}");
        }
    }

    #[test]
    fn an_unknown_end_of_a_power_off_starts_nothing() {
        let mut power = Power::On(lease(1));
        let unknown = Ended::Unknown { why: "late".into() };
        let next = job(Goal::Cycle, Step::CuttingPower).settle(Timestamp::ZERO, &mut power, &unknown);
        assert!(matches!(next, Next::Unknown(_)));
        assert_eq!(power, Power::Unknown);
    }

    #[test]
    fn a_vm_that_runs_under_another_lease_is_left_alone() {
        let mut power = Power::Unknown;
        let found = Found::Running {
            seen: Sighting::of(Eyewitness::here(), Incarnation(1)),
            pid: 7,
            state: None,
            lease: Some(lease(2)),
        };
        assert!(matches!(look(&mut power, &found), Next::Failed(_)));
        assert_eq!(power, Power::Unknown);
    }
}
