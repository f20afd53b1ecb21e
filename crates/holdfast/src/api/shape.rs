//! The JSON shapes, stable for scripts (`docs/json.md`).

use super::around::AroundDoc;
use super::counters::CountersDoc;
use crate::decide::Desk;
use crate::events::epoch;
use holdfast_core::diagnosis::{Catalogue, Diagnosis, Grounds, level};
use holdfast_core::engine::{ChannelState, VmStatus};
use holdfast_core::incident::{AttemptResult, Incident, IncidentId, Phase, Resolution};
use holdfast_core::time::{Timestamp, show};
use holdfast_drivers::Places;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The version of all shapes.
pub const V: u32 = 1;

/// `status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusDoc {
    /// The version of this shape.
    pub v: u32,
    /// This host.
    pub host: String,
    /// `armed`, or `observe` with the reason in `note`.
    pub mode: String,
    /// Why nothing is done at present, if that is so.
    pub note: Option<String>,
    /// The VMs, by name.
    pub vms: Vec<VmDoc>,
    /// Open incidents of the host itself.
    pub host_incidents: Vec<IncidentDoc>,
}

/// `reload --json`, when the configuration came into force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadDoc {
    /// The version of this shape.
    pub v: u32,
    /// The file that is in force now.
    pub file: String,
    /// Settings above all VMs that changed.
    pub settings: Vec<String>,
    /// VMs that are new.
    pub added: Vec<String>,
    /// VMs that are no longer looked after.
    pub removed: Vec<String>,
    /// VMs that are described otherwise.
    pub changed: Vec<ReloadedVmDoc>,
    /// What makes protection or safety weaker than it could be, as `check --json` tells it.
    pub warnings: serde_json::Value,
    /// What it leaves in doubt that is under way, for people.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One VM that is described otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadedVmDoc {
    /// Its name.
    pub vm: String,
    /// Settings that count from now on.
    pub at_once: Vec<String>,
    /// Settings that count from its next start on.
    pub at_next_start: Vec<String>,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmDoc {
    /// The version of this shape.
    pub v: u32,
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// `starting running paused stopped failed held`.
    pub state: String,
    /// Which start of it runs.
    pub incarnation: Option<u64>,
    /// Its process.
    pub pid: Option<u32>,
    /// A control socket for people and scripts.
    pub qmp: Option<String>,
    /// The file of its serial console.
    pub console: Option<String>,
    /// The socket of its guest agent.
    pub agent: Option<String>,
    /// Where each application is reached.
    pub address: BTreeMap<String, String>,
    /// Its channels.
    pub channels: BTreeMap<String, ChannelDoc>,
    /// Its applications.
    pub apps: Vec<AppDoc>,
    /// Its open incident.
    pub incident: Option<u64>,
    /// `armed observe maintenance braked off`.
    pub protection: String,
    /// What it waits for, or who stopped it.
    pub note: Option<String>,
    /// Something is being done to it: an order is under way.
    #[serde(default)]
    pub busy: bool,
    /// Why it did not go back when a person last told it to, if that failed.
    #[serde(default)]
    pub not_back: Option<String>,
    /// Recoveries that count now.
    pub tries: u32,
    /// Recoveries it may have in its window.
    pub tries_most: u32,
    /// It was made harmless, until a person takes that back.
    pub isolated: Option<IsolatedDoc>,
    /// What its devices have done since its start.
    pub counters: Option<CountersDoc>,
}

/// How a VM was made harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IsolatedDoc {
    /// `network` or `pause`.
    pub how: String,
    /// Since when, in seconds since the epoch; `null` while nobody knows whether it is done.
    pub since: Option<f64>,
    /// For this incident.
    pub incident: u64,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelDoc {
    /// `ok bad silent unknown`.
    pub state: String,
    /// Since when, in seconds since the epoch.
    pub since: f64,
    /// The sentence for people.
    pub detail: String,
}

/// One application.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppDoc {
    /// Its name.
    pub name: String,
    /// `ok failed unknown`.
    pub state: String,
    /// When it last answered, in seconds since the epoch.
    pub answered: Option<f64>,
}

/// One incident, as in `incidents --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentDoc {
    /// The version of this shape.
    pub v: u32,
    /// Its number.
    pub id: u64,
    /// The VM, if it is about one.
    pub vm: Option<String>,
    /// What it is about, as in `app orders/postgres`.
    pub subject: String,
    /// The fault that was named.
    pub fault: String,
    /// `Suspected` or `Confirmed`.
    pub certainty: String,
    /// The probability of the fault, 0 to 1.
    pub probability: f64,
    /// Where it stands: `suspected waiting recovering verifying held closed`.
    pub phase: String,
    /// First evidence.
    pub opened: f64,
    /// When the fault was confirmed.
    pub diagnosed: Option<f64>,
    /// When the broken part could do no more harm.
    pub isolated: Option<f64>,
    /// When the last remedy was done.
    pub recovered: Option<f64>,
    /// When it had been healthy for long enough.
    pub verified: Option<f64>,
    /// When it was closed.
    pub closed: Option<f64>,
    /// How long users were not served, in seconds.
    pub outage_s: f64,
    /// What was tried.
    pub remedies: Vec<RemedyDoc>,
    /// `recovered healed absorbed superseded`, once closed.
    pub resolution: Option<String>,
    /// Why it is held or waits, or who superseded it.
    pub reason: Option<String>,
    /// The incident that it follows from.
    #[serde(default)]
    pub cause: Option<u64>,
    /// The VMs of the incidents that follow from it.
    #[serde(default)]
    pub strikes: Vec<String>,
}

/// One remedy that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemedyDoc {
    /// The remedy.
    pub name: String,
    /// `running done failed unknown`.
    pub outcome: String,
    /// Why it failed or is not known.
    pub why: Option<String>,
    /// When it was begun.
    pub started: f64,
    /// When it ended.
    pub ended: Option<f64>,
}

/// `explain ID --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainDoc {
    /// The incident.
    #[serde(flatten)]
    pub incident: IncidentDoc,
    /// What the fault means, as in "is hung".
    pub says: String,
    /// The layer of the fault.
    pub level: String,
    /// Its prior odds in decibans.
    pub prior: f64,
    /// What counted for and against.
    pub evidence: Vec<EvidenceDoc>,
    /// What else it could have been.
    pub ruled_out: Vec<RivalDoc>,
    /// What it was allowed to stand on (I10), for people.
    pub grounds: String,
    /// What was planned.
    pub plan: Option<PlanDoc>,
    /// The story.
    pub timeline: Vec<LineDoc>,
    /// Kept evidence, relative to the state folder.
    pub files: Vec<String>,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvidenceDoc {
    /// The channel it came through.
    pub channel: String,
    /// The sentence.
    pub text: String,
    /// Its weight for (positive) or against (negative) the fault, in decibans.
    pub decibans: f64,
    /// Whether it is its channel's strongest voice; the others only repeat it.
    pub counts: bool,
    /// Since when it has held, in seconds since the epoch.
    pub since: f64,
    /// The line that proves it, with those around it, where it is one of a log.
    #[serde(default)]
    pub lines: Option<AroundDoc>,
}

/// One other explanation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RivalDoc {
    /// The fault, or `nothing is wrong`.
    pub fault: String,
    /// Its odds against the named one, in decibans: negative is less likely.
    pub decibans: f64,
}

/// What was planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanDoc {
    /// The remedy.
    pub remedy: String,
    /// How sure we had to be, 0 to 1.
    pub needs: f64,
    /// Which try it was.
    pub try_number: u32,
    /// Of how many.
    pub tries: u32,
    /// Why the gentler ones were passed over.
    pub why: String,
    /// Who approved it, if a person did.
    pub approved_by: Option<String>,
}

/// One line of a story.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineDoc {
    /// When, in seconds since the epoch.
    pub at: f64,
    /// Which step.
    pub step: String,
    /// What.
    pub text: String,
}

/// Turns engine time into wall time, to show it.
pub struct Wall<'a>(pub &'a Desk);

impl Wall<'_> {
    fn at(&self, at: Timestamp) -> f64 {
        epoch(at, self.0.engine.wall_offset(at))
    }

    fn maybe(&self, at: Option<Timestamp>) -> Option<f64> {
        at.map(|at| self.at(at))
    }

    /// One VM.
    pub fn vm(&self, vm: VmStatus, places: Places, address: BTreeMap<String, String>) -> VmDoc {
        let path = |path: Option<std::path::PathBuf>| path.map(|path| path.display().to_string());
        VmDoc {
            v: V,
            name: vm.name.to_string(),
            driver: "qemu".into(),
            state: vm.state,
            incarnation: vm.incarnation.map(|incarnation| incarnation.0),
            pid: places.pid,
            address,
            qmp: path(places.qmp),
            console: path(places.console),
            agent: path(places.agent),
            channels: vm.channels.iter().map(|c| (c.channel.name().to_owned(), self.channel(c))).collect(),
            apps: vm.apps.into_iter().map(|app| self.app(app)).collect(),
            incident: vm.incident.map(|id| id.0),
            protection: vm.protection,
            note: vm.note,
            busy: vm.busy,
            not_back: vm.not_back,
            counters: vm.counters.map(CountersDoc::from),
            tries: vm.tries.0,
            tries_most: vm.tries.1,
            isolated: vm.isolated.map(|isolated| IsolatedDoc {
                how: isolated.how.name().into(),
                since: self.maybe(isolated.since),
                incident: isolated.incident.0,
            }),
        }
    }

    fn app(&self, app: holdfast_core::engine::AppStatus) -> AppDoc {
        AppDoc { name: app.name.to_string(), state: app.state, answered: self.maybe(app.answered) }
    }

    fn channel(&self, channel: &holdfast_core::engine::ChannelStatus) -> ChannelDoc {
        let state = match channel.state {
            ChannelState::Ok => "ok",
            ChannelState::Bad => "bad",
            ChannelState::Silent => "silent",
            ChannelState::Unknown => "unknown",
        };
        ChannelDoc { state: state.into(), since: self.at(channel.since), detail: channel.detail.clone() }
    }

    /// One incident.
    pub fn incident(&self, incident: &Incident) -> IncidentDoc {
        let times = &incident.times;
        let diagnosis = incident.named.as_ref().unwrap_or(&incident.diagnosis);
        let (resolution, reason) = ending(incident);
        IncidentDoc {
            v: V,
            id: incident.id.0,
            vm: incident.subject.vm().map(ToString::to_string),
            subject: incident.subject.to_string(),
            fault: incident.fault().to_string(),
            certainty: if incident.is_confirmed() { "Confirmed".into() } else { "Suspected".into() },
            probability: f64::from(diagnosis.probability) / 10_000.0,
            phase: incident.phase.name().into(),
            opened: self.at(times.opened),
            diagnosed: self.maybe(times.diagnosed),
            isolated: self.maybe(times.isolated),
            recovered: self.maybe(times.recovered),
            verified: self.maybe(times.verified),
            closed: self.maybe(times.closed),
            outage_s: incident.outage(self.0.engine.now()).as_millis() as f64 / 1_000.0,
            remedies: incident.attempts.iter().map(|attempt| self.remedy(attempt)).collect(),
            resolution,
            reason,
            cause: incident.cause.map(|cause| cause.0),
            strikes: self.strikes(incident.id),
        }
    }

    /// The VMs of the incidents that follow from this one.
    fn strikes(&self, cause: IncidentId) -> Vec<String> {
        let follow = self.0.engine.incidents().filter(|incident| incident.cause == Some(cause));
        let vms: BTreeSet<String> =
            follow.filter_map(|incident| Some(incident.subject.vm()?.to_string())).collect();
        vms.into_iter().collect()
    }

    fn remedy(&self, attempt: &holdfast_core::incident::Attempt) -> RemedyDoc {
        let why = match &attempt.result {
            AttemptResult::Failed(why) | AttemptResult::Blocked(why) | AttemptResult::Unknown(why) => {
                Some(why.clone())
            }
            AttemptResult::Running | AttemptResult::Done => None,
        };
        RemedyDoc {
            name: attempt.remedy.name().into(),
            outcome: attempt.result.name().into(),
            why,
            started: self.at(attempt.started),
            ended: self.maybe(attempt.ended),
        }
    }

    /// One incident with all that led to it.
    pub fn explain(&self, incident: &Incident) -> ExplainDoc {
        let diagnosis = incident.named.as_ref().unwrap_or(&incident.diagnosis);
        let decibans = |milli: i32| f64::from(milli) / 1_000.0;
        let line = |line: &holdfast_core::incident::Line| LineDoc {
            at: self.at(line.at),
            step: line.step.clone(),
            text: line.text.clone(),
        };
        ExplainDoc {
            incident: self.incident(incident),
            says: Catalogue::standard().row(diagnosis.fault).says.into(),
            level: format!("{:?}", level(diagnosis.fault)).to_lowercase(),
            prior: decibans(diagnosis.prior),
            evidence: diagnosis.evidence.iter().map(|weighed| self.evidence(weighed)).collect(),
            ruled_out: diagnosis
                .rivals
                .iter()
                .map(|rival| RivalDoc {
                    fault: rival.fault.map_or("nothing is wrong".into(), |fault| fault.to_string()),
                    decibans: decibans(rival.odds),
                })
                .collect(),
            grounds: grounds(diagnosis),
            plan: incident.plan.as_ref().map(|plan| PlanDoc {
                remedy: plan.remedy.name().into(),
                needs: f64::from(plan.threshold) / 10_000.0,
                try_number: plan.try_number,
                tries: plan.tries,
                why: plan.why.clone(),
                approved_by: plan.approved_by.clone(),
            }),
            timeline: incident.story.iter().map(line).collect(),
            files: incident.files.clone(),
        }
    }

    fn evidence(&self, weighed: &holdfast_core::diagnosis::Weighed) -> EvidenceDoc {
        EvidenceDoc {
            channel: weighed.evidence.kind.channel().name().into(),
            text: weighed.evidence.text.clone(),
            decibans: f64::from(weighed.weight) / 1_000.0,
            counts: weighed.counts,
            since: self.at(weighed.evidence.since),
            lines: None,
        }
    }
}

fn ending(incident: &Incident) -> (Option<String>, Option<String>) {
    match &incident.phase {
        Phase::Closed(how) => {
            let reason = match how {
                Resolution::Superseded { by } => Some(format!("by {by}")),
                Resolution::Absorbed(id) => Some(format!("explained by {id}")),
                Resolution::Recovered(remedy) => Some(format!("by {remedy}")),
                Resolution::Healed => None,
            };
            (Some(how.name().into()), reason)
        }
        Phase::Held(_) => (None, incident.held_because()),
        Phase::Waiting { why, .. } => (None, Some(why.clone())),
        Phase::Suspected | Phase::Recovering | Phase::Verifying { .. } => (None, None),
    }
}

fn grounds(diagnosis: &Diagnosis) -> String {
    match &diagnosis.grounds {
        Grounds::Conclusive(kind) => format!("one conclusive sign: {kind:?} (I10)"),
        Grounds::Agreeing(channels) => {
            let names: Vec<&str> = channels.iter().map(|channel| channel.name()).collect();
            format!("{} independent channels agree: {} (I10)", channels.len(), names.join(", "))
        }
        Grounds::Thin => "one channel only: nothing destructive may stand on it (I10)".into(),
    }
}

/// Seconds as people say them.
pub fn spoken(seconds: f64) -> String {
    show(std::time::Duration::from_secs_f64(seconds.max(0.0)))
}
