//! The life of one fault, from the first evidence to closed: through suspicion, plan, isolation,
//! recovery and verification, or to `Held`.

use crate::diagnosis::{Diagnosis, Fault, Grounds};
use crate::plan::{Plan, Remedy};
use crate::point::PointId;
use crate::subject::{AppName, Subject, VmName};
use crate::time::{Duration, Timestamp};
use serde::{Deserialize, Serialize};

/// The number of an incident; it only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub u64);

impl std::fmt::Display for IncidentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The record of one fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// What it is about.
    pub subject: Subject,
    /// What is believed now, and why.
    pub diagnosis: Diagnosis,
    /// The diagnosis that was first sure enough to act upon, or that a sign has settled since: its fault names
    /// the incident.
    pub named: Option<Diagnosis>,
    /// Where it stands.
    pub phase: Phase,
    /// A drill was announced when it began: it does not count in the budget.
    pub drill: bool,
    /// The moments that matter.
    pub times: Times,
    /// What was tried.
    pub attempts: Vec<Attempt>,
    /// What will be done or is being done.
    pub plan: Option<Plan>,
    /// The way back that a person approved, until it is done, has failed or is withdrawn: it is waited for.
    #[serde(default)]
    pub approved: Option<Plan>,
    /// The story, oldest first, at most [`STORY_MOST`] lines.
    pub story: Vec<Line>,
    /// Kept evidence: files relative to the state folder.
    pub files: Vec<String>,
    /// The incident that this one follows from: one cause, however many VMs it strikes.
    #[serde(default)]
    pub cause: Option<IncidentId>,
}

/// One sign names an incident anew if the fault is as sure as this, in parts of ten thousand.
const SETTLES: u16 = 7_500;
/// The longest story of one incident, in lines.
pub const STORY_MOST: usize = 120;

/// The moments of an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// First evidence.
    pub opened: Timestamp,
    /// When users were last served before it; the opening if that is not known.
    pub down_since: Timestamp,
    /// Users have been served all the while so far: there is no outage.
    #[serde(default)]
    pub serving: bool,
    /// When the fault was confirmed.
    pub diagnosed: Option<Timestamp>,
    /// When the broken part could do no more harm.
    pub isolated: Option<Timestamp>,
    /// When the last remedy was done.
    pub recovered: Option<Timestamp>,
    /// When users were served again.
    pub served: Option<Timestamp>,
    /// When it had been healthy for long enough.
    pub verified: Option<Timestamp>,
    /// When it was closed.
    pub closed: Option<Timestamp>,
}

/// Where an incident stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A fault is likelier than not; more evidence is awaited.
    Suspected,
    /// Confirmed and planned, but to be begun later.
    Waiting {
        /// Then at the latest it is looked at again.
        until: Timestamp,
        /// What for.
        why: String,
    },
    /// The remedy is under way: evidence is kept, the broken part isolated, the service brought back.
    Recovering,
    /// The remedy was done; everything must answer for long enough.
    Verifying {
        /// When it has failed.
        deadline: Timestamp,
    },
    /// Left alone, with a reason, for a person (or until it heals by itself).
    Held(HeldReason),
    /// Over.
    Closed(Resolution),
}

impl Phase {
    /// The word for it on screen and in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Waiting { .. } => "waiting",
            Self::Recovering => "recovering",
            Self::Verifying { .. } => "verifying",
            Self::Held(_) => "held",
            Self::Closed(_) => "closed",
        }
    }
}

/// Why a VM is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldReason {
    /// No remedy is left that could help without a person.
    NoRemedy,
    /// Going back to a snapshot might help, and would lose more than may be lost without a person.
    Approval,
    /// Users are not served, and too little is seen to do anything about it (I10).
    Unsure,
    /// The budget of recoveries is spent (I6).
    BudgetSpent,
    /// Too many VMs look failed at once (I11).
    Brake,
    /// The VM is in maintenance (I5).
    Maintenance,
    /// Holdfast was told only to watch.
    Observing,
    /// The intent could not be recorded (I8).
    NoRecord,
}

impl HeldReason {
    /// Nothing is left that would be done without a person.
    #[must_use]
    pub const fn is_hopeless(&self) -> bool {
        matches!(self, Self::NoRemedy | Self::Approval)
    }

    /// The sentence for people.
    #[must_use]
    pub const fn says(&self) -> &'static str {
        match self {
            Self::NoRemedy => "no remedy is left that helps without a person",
            Self::Approval => {
                "going back to a restore point is left that may help, and waits for a person's word"
            }
            Self::Unsure => "too little is seen to be sure what is wrong, and so to do anything",
            Self::BudgetSpent => "its recoveries are used up for now",
            Self::Brake => "too many VMs look failed at once: the watcher may be the one that is ill",
            Self::Maintenance => "it is in maintenance",
            Self::Observing => "its mode is observe: Holdfast only tells",
            Self::NoRecord => "the journal cannot be written",
        }
    }
}

/// How an incident ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// A remedy brought it back, and it stayed.
    Recovered(Remedy),
    /// It went away by itself.
    Healed,
    /// Another fault explains it, or what is left of it.
    Absorbed(IncidentId),
    /// A person decided otherwise.
    Superseded {
        /// Who.
        by: String,
    },
}

impl Resolution {
    /// The word for it on screen and in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Recovered(_) => "recovered",
            Self::Healed => "healed",
            Self::Absorbed(_) => "absorbed",
            Self::Superseded { .. } => "superseded",
        }
    }
}

/// One remedy that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The remedy.
    pub remedy: Remedy,
    /// When it was begun.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub result: AttemptResult,
    /// The restore point that was gone back to.
    #[serde(default)]
    pub to: Option<PointId>,
    /// A person said "try again" after it: it no longer stands in the way.
    pub forgiven: bool,
}

/// How a remedy ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    /// Not yet.
    Running,
    /// Done, and it helped or is being watched.
    Done,
    /// It did not help, or could not be done.
    Failed(String),
    /// It was not done: somebody else has what it needs.
    Blocked(String),
    /// Nobody knows whether it was done (I9).
    Unknown(String),
}

impl AttemptResult {
    /// The word for it on screen and in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Blocked(_) => "blocked",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// One line of the story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// Which step of the flow: `diagnosis`, `plan`, `isolate`, `recover`, `verify`, `held`, `closed`, `note`.
    pub step: String,
    /// What.
    pub text: String,
}

impl Incident {
    /// A new one, suspected.
    #[must_use]
    pub fn open(
        id: IncidentId,
        now: Timestamp,
        vm: &VmName,
        diagnosis: Diagnosis,
        down_since: Option<Timestamp>,
    ) -> Self {
        Self::about(id, now, subject_of(vm, &diagnosis), diagnosis, down_since)
    }

    /// A new one that is only told, as all of the host: it is held at once; what is only to come stays suspected.
    #[must_use]
    pub fn only_told(id: IncidentId, now: Timestamp, of: Subject, diagnosis: Diagnosis) -> Self {
        let mut incident = Self::about(id, now, of, diagnosis, None);
        incident.times.serving = true; // users are served by VMs: whom it strikes has an incident of its own
        if !incident.diagnosis.is_forecast() {
            incident.confirm_of_host(now);
        }
        incident
    }

    /// The fault of the host is there.
    fn confirm_of_host(&mut self, now: Timestamp) {
        self.times.diagnosed = Some(now);
        self.named = Some(self.diagnosis.clone());
        self.phase = Phase::Held(HeldReason::NoRemedy);
    }

    /// What was to come to the host has come, if this diagnosis says so.
    pub fn revise_of_host(&mut self, now: Timestamp, diagnosis: &Diagnosis) -> bool {
        let comes = self.named.is_none() && !diagnosis.is_forecast();
        if self.named.is_none() {
            self.diagnosis = diagnosis.clone();
        }
        if comes {
            self.confirm_of_host(now);
        }
        comes
    }

    fn about(
        id: IncidentId,
        now: Timestamp,
        subject: Subject,
        diagnosis: Diagnosis,
        down_since: Option<Timestamp>,
    ) -> Self {
        let times = Times { opened: now, down_since: down_since.unwrap_or(now), ..Times::default() };
        Self {
            id,
            subject,
            diagnosis,
            named: None,
            phase: Phase::Suspected,
            drill: false,
            times,
            attempts: Vec::new(),
            plan: None,
            approved: None,
            story: Vec::new(),
            files: Vec::new(),
            cause: None,
        }
    }

    /// The fault it is named by.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match &self.named {
            Some(named) => named.fault,
            None => self.diagnosis.fault,
        }
    }

    /// This names it anew: it was called something else, and one sign settles what it is. The end of a process
    /// after something was done about it may be our own work, and so names nothing.
    #[must_use]
    pub fn is_settled_by(&self, found: &Diagnosis) -> bool {
        let other = self.named.as_ref().is_some_and(|named| named.fault != found.fault);
        let ours = found.fault == Fault::VmCrashed && !self.attempts.is_empty();
        other && !ours && matches!(found.grounds, Grounds::Conclusive(_)) && found.probability >= SETTLES
    }

    /// Why the last remedy failed, if it did.
    #[must_use]
    pub fn last_failure(&self) -> Option<&str> {
        match &self.attempts.last()?.result {
            AttemptResult::Failed(why) | AttemptResult::Unknown(why) => Some(why),
            AttemptResult::Running | AttemptResult::Done | AttemptResult::Blocked(_) => None,
        }
    }

    /// Why it is left alone, if it is: the sentence for people, with what the last remedy failed of.
    #[must_use]
    pub fn held_because(&self) -> Option<String> {
        let Phase::Held(reason) = &self.phase else { return None };
        Some(self.because(reason))
    }

    /// The same, were it held for this reason.
    #[must_use]
    pub fn because(&self, reason: &HeldReason) -> String {
        match self.last_failure() {
            Some(why) if *reason == HeldReason::BudgetSpent => {
                format!("{}; the last try: {why}", reason.says())
            }
            Some(_) | None => reason.says().to_owned(),
        }
    }

    /// The application it is about, if it is about one.
    #[must_use]
    pub const fn app(&self) -> Option<&AppName> {
        match &self.subject {
            Subject::App(_, app) => Some(app),
            Subject::Host(_) | Subject::Vm(_) | Subject::Guest(_) => None,
        }
    }

    /// Whether the fault was ever sure enough to act upon.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.times.diagnosed.is_some()
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// The last moment at which it was open: now, if it is not over.
    #[must_use]
    pub fn open_until(&self, now: Timestamp) -> Timestamp {
        if self.is_closed() { self.times.closed.unwrap_or(self.times.opened) } else { now }
    }

    /// How long users were not served: until they were, or until now; nothing if they were served all the while.
    #[must_use]
    pub fn outage(&self, now: Timestamp) -> Duration {
        if self.times.serving {
            return Duration::ZERO;
        }
        self.times.served.or(self.times.closed).unwrap_or(now).since(self.times.down_since)
    }

    /// Writes a line of its story; a story that is too long keeps its beginning and its end.
    pub fn tell(&mut self, at: Timestamp, step: &str, text: String) {
        if self.story.len() >= STORY_MOST {
            self.story.remove(STORY_MOST / 2);
        }
        self.story.push(Line { at, step: step.to_owned(), text });
    }

    /// When something was last done about it, or when it began.
    #[must_use]
    pub fn last_tried(&self) -> Timestamp {
        self.attempts.last().map_or(self.times.opened, |attempt| attempt.ended.unwrap_or(attempt.started))
    }

    /// This remedy is only tried once more, as often before: that needs no new line in the story.
    #[must_use]
    pub fn tries_again(&self, remedy: Remedy) -> bool {
        self.repeated(remedy) >= 1
    }

    /// What went well after a remedy of which nobody knows whether it was done, was that remedy's work.
    #[must_use]
    pub fn how_it_healed(&self) -> Resolution {
        match self.attempts.last() {
            Some(Attempt { remedy, result: AttemptResult::Unknown(_), .. }) => Resolution::Recovered(*remedy),
            Some(_) | None => Resolution::Healed,
        }
    }

    /// The attempt under way is such a repetition.
    #[must_use]
    pub fn tried_before(&self, remedy: Remedy) -> bool {
        self.repeated(remedy) >= 2
    }

    /// How often in a row, up to now, this remedy was tried where that cost no try.
    fn repeated(&self, remedy: Remedy) -> usize {
        let free = |a: &Attempt| remedy == Remedy::ResumeIo || matches!(a.result, AttemptResult::Blocked(_));
        let ended = self.attempts.iter().rev().skip_while(|a| a.result == AttemptResult::Running);
        let running =
            self.attempts.last().is_some_and(|a| a.remedy == remedy && a.result == AttemptResult::Running);
        usize::from(running) + ended.take_while(|a| a.remedy == remedy && free(a)).count()
    }

    /// Begins an attempt. Of a remedy that is tried again and again only the first and the last are kept.
    pub fn begin_attempt(&mut self, now: Timestamp, remedy: Remedy) {
        if self.repeated(remedy) >= 2 {
            self.attempts.pop();
        }
        let result = AttemptResult::Running;
        let to = self.plan.as_ref().and_then(|plan| plan.to).map(|rewind| rewind.to);
        self.attempts.push(Attempt { remedy, started: now, ended: None, result, to, forgiven: false });
    }

    /// Ends the attempt under way.
    pub fn end_attempt(&mut self, now: Timestamp, result: AttemptResult) {
        if let Some(attempt) = self.attempts.last_mut().filter(|a| a.result == AttemptResult::Running) {
            attempt.ended = Some(now);
            attempt.result = result;
        }
    }

    /// The last attempt turned out not to have helped.
    pub fn fail_attempt(&mut self, now: Timestamp, why: String) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended.get_or_insert(now);
            attempt.result = AttemptResult::Failed(why);
        }
    }
}

/// What a diagnosis is about.
#[must_use]
pub fn subject_of(vm: &VmName, diagnosis: &Diagnosis) -> Subject {
    use crate::diagnosis::Level;
    let catalogue_level = crate::diagnosis::level(diagnosis.fault);
    match (&diagnosis.app, catalogue_level) {
        (Some(app), _) => Subject::App(vm.clone(), app.clone()),
        (None, Level::Guest) => Subject::Guest(vm.clone()),
        (None, Level::Application | Level::Vm | Level::Host | Level::Observer) => Subject::Vm(vm.clone()),
    }
}
