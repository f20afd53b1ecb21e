//! All that the engine knows of one VM.

use crate::action::{CommandId, Reason, Work};
use crate::evidence::{Lens, VmView};
use crate::incident::IncidentId;
use crate::isolate::Isolated;
use crate::lease::{Incarnation, Lease};
use crate::plan::Tries;
use crate::point::Points;
use crate::policy::VmPolicy;
use crate::protect::Protected;
use crate::recover::{Goal, Job, Next, Power, Step};
use crate::signal::{AgentSign, AppSign, HypervisorSign, ProcessSign, RunState, Seen, Signal};
use crate::subject::{AppName, VmName};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// VMs by name, in the order of their names. One is found at the same cost among ten or ten thousand; the hash
/// has a fixed seed, though no output depends on it.
pub(super) type Vms = indexmap::IndexMap<VmName, VmState, foldhash::fast::FixedState>;

/// Whether a VM is meant to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It is.
    Running,
    /// It is not; somebody stopped it.
    Stopped {
        /// Who: a person, or the guest itself.
        by: String,
        /// How long the guest may take to power down, if it runs.
        grace: Duration,
    },
}

impl Desired {
    /// Stopped by this one, without more ado.
    #[must_use]
    pub fn stopped(by: &str) -> Self {
        Self::Stopped { by: by.to_owned(), grace: Duration::from_secs(60) }
    }
}

/// What outlives a configuration that leaves a VM out: what persons said of it, and its recoveries (I5, I6).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Left {
    /// Since when it is out.
    pub(super) at: Timestamp,
    desired: Desired,
    maintenance: Option<Timestamp>,
    paused_by: Option<String>,
    tries: Tries,
    #[serde(default)]
    isolated: Option<Isolated>,
}

/// What the engine knows of one VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmState {
    /// What is wanted for it.
    pub policy: Arc<VmPolicy>,
    /// Whether it is meant to run.
    pub desired: Desired,
    /// Whether it does.
    pub power: Power,
    /// The last lease it was known to run under, to tell a crash from a clean end after a restart of ours.
    pub ran: Option<Lease>,
    /// What was seen of it.
    pub view: VmView,
    /// In maintenance until then (I5).
    pub maintenance: Option<Timestamp>,
    /// Somebody paused it through us.
    pub paused_by: Option<String>,
    /// Announced work, and when it must be over.
    pub works: BTreeMap<Work, Timestamp>,
    /// Announced work that ran out before anybody said that it is done, and when. It excuses nothing any more.
    #[serde(default)]
    pub overrun: BTreeMap<Work, Timestamp>,
    /// When last looked at, something excused slow answers.
    pub excused: bool,
    /// Its recoveries that still count (I6).
    pub tries: Tries,
    /// The one thing that is being done to it.
    pub job: Option<Job>,
    /// A person's start or stop that has to wait for what is being done, or for a look. It is his, not ours: it is done in
    /// maintenance, too, and where we only watch.
    #[serde(default)]
    pub owed: Option<CommandId>,
    /// The open incident of the VM or its guest.
    pub incident: Option<IncidentId>,
    /// The open incidents of its applications.
    pub app_incidents: BTreeMap<AppName, IncidentId>,
    /// It was made harmless, and is not judged until a person takes that back.
    #[serde(default)]
    pub isolated: Option<Isolated>,
    /// Not to be isolated (again) before.
    #[serde(default)]
    pub isolate_at: Timestamp,
    /// It was isolated until a moment ago: what is heard until then may be of before, and is not judged.
    #[serde(default)]
    pub judge_from: Timestamp,
    /// Its snapshots.
    #[serde(default)]
    pub points: Points,
    /// What is known of the restore points that are made of it by schedule.
    #[serde(default)]
    pub protected: Protected,
    /// When it last went back to one by itself.
    #[serde(default)]
    pub went_back: Option<Timestamp>,
    /// Why it did not go back when a person last told it to, if that failed.
    #[serde(default)]
    pub not_back: Option<String>,
    /// Looks that failed in a row, and when to look again.
    pub look: (u32, Timestamp),
    /// Leases that were not given in a row.
    #[serde(default)]
    pub unclaimed: u32,
    /// Why it is not started although it is meant to run, if that is so.
    pub waits_for: Option<String>,
    /// When it is looked at again without a signal.
    pub wake: Timestamp,
}

/// The wait before what failed is tried again doubles up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The wait after so many waits in a row.
pub(super) fn doubled(times: u32) -> Duration {
    Duration::from_secs(1 << times.min(5)).min(LONGEST_WAIT)
}

impl VmState {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(policy: &VmPolicy) -> Self {
        let stopped = Desired::stopped("configuration");
        Self {
            policy: Arc::new(policy.clone()),
            desired: if policy.autostart { Desired::Running } else { stopped },
            power: Power::Unknown,
            ran: None,
            view: VmView::default(),
            maintenance: None,
            paused_by: None,
            works: BTreeMap::new(),
            overrun: BTreeMap::new(),
            excused: false,
            tries: Tries::default(),
            job: None,
            owed: None,
            incident: None,
            app_incidents: BTreeMap::new(),
            isolated: None,
            isolate_at: Timestamp::ZERO,
            judge_from: Timestamp::ZERO,
            points: Points::default(),
            protected: Protected::default(),
            went_back: None,
            not_back: None,
            look: (0, Timestamp::ZERO),
            unclaimed: 0,
            waits_for: None,
            wake: Timestamp::NEVER,
        }
    }

    /// A stop that is under way is to end in a start, or no longer: a person thought better of it, and it is his from now on.
    pub(super) fn goes_on_after_stop(&mut self, starts: bool, by: CommandId) {
        if let Some(Job { goal: Goal::Down { then_up, .. }, reason, .. }) = &mut self.job {
            (*then_up, *reason) = (starts, Reason::Command(by));
        }
    }

    /// A person has told it to stop since: what is under way ends before a start.
    pub(super) fn ends_before_start(&self, next: Next) -> Next {
        match (next, &self.power) {
            (next, _) if self.desired == Desired::Running => next,
            (Next::Ask(Step::Claiming, ..), Power::Off(proof)) => Job::give_back(proof),
            // The lease is taken, and nothing was started under it: a look proves that, and uses it up.
            (Next::Ask(Step::Starting(_), ..), _) => Next::Unstarted,
            (next, _) => next,
        }
    }

    /// The configuration leaves it out from now on.
    pub(super) fn leave(self, at: Timestamp) -> Left {
        let Self { desired, maintenance, paused_by, tries, isolated, .. } = self;
        Left { at, desired, maintenance, paused_by, tries, isolated }
    }

    /// It is back.
    pub(super) fn take_up(&mut self, left: Left) {
        let Left { at: _, desired, maintenance, paused_by, tries, isolated } = left;
        self.isolated = isolated;
        (self.desired, self.maintenance, self.paused_by, self.tries) =
            (desired, maintenance, paused_by, tries);
    }

    /// Nobody knows any more whether it runs: it is looked at from then on, before anything else is done (I9).
    pub(super) fn lose_sight(&mut self, look_from: Timestamp) {
        if let Power::On(lease) = &self.power {
            self.ran = Some(lease.clone());
        }
        self.power = Power::Unknown;
        self.look = (0, look_from);
    }

    /// Its lease was not given once more: how long to wait before it is looked at again, and tried. The first time it is looked at at
    /// once: mostly what we knew was old.
    pub(super) fn claim_again(&mut self) -> Duration {
        self.unclaimed += 1;
        self.unclaimed.checked_sub(2).map_or(Duration::ZERO, doubled)
    }

    /// In maintenance: nothing automatic happens (I5).
    #[must_use]
    pub const fn in_maintenance(&self) -> bool {
        self.maintenance.is_some()
    }

    /// A drill was announced.
    #[must_use]
    pub fn in_drill(&self) -> bool {
        self.works.contains_key(&Work::Drill)
    }

    /// The incarnation that signals may speak of: the running one, or the one being started.
    #[must_use]
    pub fn current_incarnation(&self) -> Option<Incarnation> {
        match self.job.as_ref().map(|job| &job.step) {
            Some(Step::Starting(lease)) => Some(lease.incarnation()),
            _ => self.power.incarnation().or_else(|| self.last_known()),
        }
    }

    /// While nobody knows whether it runs: the one that ran when we last knew. What is told of it stays true.
    fn last_known(&self) -> Option<Incarnation> {
        let ran = self.ran.as_ref().filter(|_| self.power == Power::Unknown);
        ran.map(|lease| lease.incarnation())
    }

    /// Something announced, somebody's pause, our own isolation or a frozen guest explains slow answers.
    #[must_use]
    pub fn is_excused(&self, now: Timestamp) -> bool {
        let by_hand = matches!(
            self.view.run_state(),
            Some(RunState::Paused | RunState::Moving | RunState::Suspended | RunState::Prelaunch)
        );
        let announced = self.works.keys().any(|work| *work != Work::Drill);
        by_hand || announced || self.isolated.is_some() || self.view.is_frozen(now)
    }

    /// What was silent while something excused it, is silent from now on if it stays so.
    pub fn end_excuse(&mut self, now: Timestamp) {
        let excused = self.is_excused(now);
        if std::mem::replace(&mut self.excused, excused) && !excused {
            self.view.begin_silence(now);
        }
    }

    /// Every application has answered lately, and since then.
    #[must_use]
    pub fn serves(&self, lens: &Lens, since: Timestamp) -> bool {
        let mut apps = self.view.apps(lens).peekable();
        apps.peek().is_some() && apps.all(|(_, alive, at)| alive && at.is_some_and(|at| at > since))
    }

    /// Takes in a signal of the current incarnation, seen at that moment.
    pub fn observe(&mut self, at: Timestamp, signal: &Signal) {
        if let Seen::Hypervisor(HypervisorSign::Shutdown { by_guest: true }) = &signal.seen
            && self.job.is_none()
            && self.desired == Desired::Running
        {
            self.desired = Desired::stopped("its guest");
        }
        if let Seen::Agent(AgentSign::Uptime(up)) = &signal.seen
            && *up < self.policy.boot_limit
        {
            self.view.booted(at, *up);
        }
        self.view.observe(at, signal);
        let dead = matches!(signal.seen, Seen::Process(ProcessSign::Exited { .. }));
        if self.paused_by.is_some() && (dead || (self.job.is_none() && !self.may_be_paused(&signal.seen))) {
            self.paused_by = None; // somebody else let it run on, or worse has come to it
        }
    }

    /// A hypervisor that says "running" may lie; a guest that answers does run.
    fn may_be_paused(&self, seen: &Seen) -> bool {
        let state = self.view.run_state();
        let lives = matches!(
            seen,
            Seen::Application(AppSign::Answered { .. }) | Seen::Agent(AgentSign::Answered { .. })
        );
        match state {
            // While its memory is saved it is called otherwise, and stands still.
            None | Some(RunState::Paused | RunState::Moving) => true,
            Some(RunState::Running) => !lives,
            Some(_) => false,
        }
    }

    /// It stands still because somebody paused it, through us or not, and not for a moment for work of ours.
    pub fn is_paused(&self) -> bool {
        let stands = self.view.run_state() == Some(RunState::Paused) && self.works.is_empty();
        self.paused_by.is_some() || stands
    }

    /// Ends what has run out: maintenance, announced work.
    pub fn expire(&mut self, now: Timestamp) {
        self.maintenance = self.maintenance.filter(|until| *until > now);
        let (on, over) = std::mem::take(&mut self.works).into_iter().partition(|(_, until)| *until > now);
        self.works = on;
        let over: BTreeMap<Work, Timestamp> = over;
        self.overrun.extend(over);
    }

    /// All its open incidents.
    pub fn open_incidents(&self) -> impl Iterator<Item = IncidentId> {
        self.incident.iter().chain(self.app_incidents.values()).copied()
    }

    /// When something of its own runs out next.
    #[must_use]
    pub fn next_expiry(&self, now: Timestamp) -> Timestamp {
        let works = self.works.values().copied();
        let settles = Some(self.judge_from).filter(|from| *from > now);
        works.chain(self.maintenance).chain(settles).min().unwrap_or(Timestamp::NEVER)
    }
}
