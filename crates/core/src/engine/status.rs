//! The view that people and programs get of a VM: one view for CLI, API and dashboard.

use super::{Desired, Engine, VmState};
use crate::diagnosis::is_warning;
use crate::evidence::{Evidence, Kind, Lens};
use crate::incident::{Incident, IncidentId, Phase};
use crate::isolate::Isolated;
use crate::lease::Incarnation;
use crate::policy::Mode;
use crate::recover::{Power, Step};
use crate::signal::{Channel, Counters, RunState};
use crate::subject::{AppName, VmName};
use crate::time::{Timestamp, show};
use serde::{Deserialize, Serialize};

/// How one channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// It speaks, and well.
    Ok,
    /// It speaks of something bad.
    Bad,
    /// It should speak and does not.
    Silent,
    /// Nothing is known.
    Unknown,
}

/// One channel of a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Which.
    pub channel: Channel,
    /// How it stands.
    pub state: ChannelState,
    /// Since when.
    pub since: Timestamp,
    /// The sentence for people.
    pub detail: String,
}

/// One application of a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Its name.
    pub name: AppName,
    /// `ok`, `failed` or `unknown`.
    pub state: String,
    /// When it last answered.
    pub answered: Option<Timestamp>,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Its name.
    pub name: VmName,
    /// `starting running paused stopped failed held`.
    pub state: String,
    /// Its incarnation, if it runs.
    pub incarnation: Option<Incarnation>,
    /// Its channels.
    pub channels: Vec<ChannelStatus>,
    /// Its applications.
    pub apps: Vec<AppStatus>,
    /// Its open incident: the widest.
    pub incident: Option<IncidentId>,
    /// `armed`, `observe`, `maintenance`, `braked`, `off`.
    pub protection: String,
    /// What it waits for, or why it is stopped, for people.
    pub note: Option<String>,
    /// Something is being done to it: an order is under way.
    pub busy: bool,
    /// Why it did not go back when a person last told it to, if that failed.
    pub not_back: Option<String>,
    /// Recoveries that still count, and how many there are.
    pub tries: (u32, u32),
    /// It was made harmless.
    pub isolated: Option<Isolated>,
    /// What its devices have done since its start, as last told.
    pub counters: Option<Counters>,
}

impl Engine {
    /// How a VM stands at the moment of the last step.
    #[must_use]
    pub fn status(&self, name: &VmName, now: Timestamp) -> Option<VmStatus> {
        let vm = self.vms.get(name)?;
        let lens = Lens { now: now.max(self.now), ..self.lens(vm) };
        let mut evidence = vm.view.evidence(&lens, vm.policy.boot_limit);
        self.view.speak(&lens, &mut evidence);
        let incident = self.foremost(vm);
        let phase = incident.and_then(|id| self.incidents.get(&id));
        Some(VmStatus {
            name: name.clone(),
            state: state(vm, &lens, phase).to_owned(),
            incarnation: vm.current_incarnation(),
            channels: Channel::ALL
                .iter()
                .map(|channel| channel_status(*channel, &evidence, &lens, vm))
                .collect(),
            apps: vm
                .view
                .apps(&lens)
                .map(|(name, alive, answered)| app(name, alive, answered, &evidence))
                .collect(),
            incident: incident.or(vm.protected.overdue), // which says nothing of how the VM stands
            protection: self.protection(vm).to_owned(),
            note: note(vm, lens.now),
            busy: vm.job.is_some(),
            not_back: vm.not_back.clone(),
            tries: (vm.tries.spent(now, &vm.policy.budget), vm.policy.budget.tries),
            isolated: vm.isolated,
            counters: vm.view.counters().filter(|_| matches!(vm.power, Power::On(_))),
        })
    }

    /// The incident to speak of: the widest, but one that is sure before one that is not.
    fn foremost(&self, vm: &VmState) -> Option<IncidentId> {
        let sure = |id: &IncidentId| self.incidents.get(id).is_some_and(Incident::is_confirmed);
        vm.open_incidents().find(sure).or_else(|| vm.open_incidents().next())
    }

    fn protection(&self, vm: &VmState) -> &'static str {
        if vm.in_maintenance() {
            "maintenance"
        } else if vm.policy.mode == Mode::Observe {
            "observe"
        } else if vm.desired != Desired::Running {
            "off"
        } else if self.brake.pulled().is_some() {
            "braked"
        } else {
            "armed"
        }
    }
}

/// Where users are served, what a person is only told of changes nothing.
fn state(vm: &VmState, lens: &Lens, incident: Option<&Incident>) -> &'static str {
    let serves = vm.view.apps(lens).all(|(_, alive, _)| alive);
    let incident = incident.filter(|incident| !(serves && is_warning(incident.diagnosis.fault)));
    if let Some(Phase::Held(_)) = incident.map(|incident| &incident.phase) {
        return "held";
    }
    let starting = matches!(vm.job.as_ref().map(|job| &job.step), Some(Step::Claiming | Step::Starting(_)));
    match &vm.power {
        _ if starting => "starting",
        Power::Off(_) if vm.desired == Desired::Running && incident.is_some() => "failed",
        Power::Off(_) => "stopped",
        Power::Unknown => "starting",
        Power::On(_) if vm.paused_by.is_some() && vm.job.is_none() => "paused", // whatever the hypervisor says
        Power::On(_) if vm.view.run_state() == Some(RunState::Paused) => "paused",
        Power::On(_) if incident.is_some_and(Incident::is_confirmed) && vm.view.boot().is_none() => "failed",
        Power::On(_) if vm.view.boot().is_some() => "starting",
        Power::On(_) => "running",
    }
}

fn note(vm: &VmState, now: Timestamp) -> Option<String> {
    let stopped = match &vm.desired {
        Desired::Stopped { by, .. } => Some(format!("stopped by {by}")),
        Desired::Running => None,
    };
    let paused = match (&vm.paused_by, vm.view.run_state()) {
        (Some(by), _) => Some(format!("paused by {by}")),
        (None, Some(RunState::Paused)) if vm.isolated.is_none() => {
            Some("paused, and not through Holdfast".to_owned())
        }
        (None, _) => None,
    };
    let waits = vm.waits_for.as_ref().map(|what| format!("waits for {what}"));
    let overrun = vm.overrun.iter().min_by_key(|(_, until)| **until).map(|(work, until)| {
        let late = show(now.since(*until));
        format!("its {} was to be over {late} ago, and nobody has said that it is", work.name())
    });
    stopped.or(paused).or(waits).or(overrun)
}

fn app(name: &AppName, alive: bool, answered: Option<Timestamp>, evidence: &[Evidence]) -> AppStatus {
    let failed = evidence.iter().any(|e| e.app.as_ref() == Some(name) && e.kind.is_outage());
    let state = if alive {
        "ok"
    } else if failed {
        "failed"
    } else {
        "unknown"
    };
    AppStatus { name: name.clone(), state: state.to_owned(), answered }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only silence and the quiet channels are special")]
fn channel_status(channel: Channel, evidence: &[Evidence], lens: &Lens, vm: &VmState) -> ChannelStatus {
    let mut own: Vec<&Evidence> = evidence.iter().filter(|e| e.kind.channel() == channel).collect();
    own.sort_by_key(|e| (e.kind.is_sign_of_life(), std::cmp::Reverse(e.strength)));
    let said = |e: &Evidence| {
        let state = match e.kind {
            kind if kind.is_sign_of_life() => ChannelState::Ok,
            Kind::AgentSilent | Kind::AgentAway | Kind::HypervisorSilent | Kind::NetworkSilent => {
                ChannelState::Silent
            }
            Kind::AppMute | Kind::AppUnreachable => ChannelState::Silent,
            _ => ChannelState::Bad,
        };
        ChannelStatus { channel, state, since: e.since, detail: e.text.clone() }
    };
    if let Some(evidence) = own.first() {
        return said(evidence);
    }
    let (state, detail) = match channel {
        Channel::Console | Channel::Logs | Channel::Host | Channel::Observer => {
            (ChannelState::Ok, "nothing to complain of")
        }
        _ if vm.view.boot().is_some() => (ChannelState::Unknown, "the guest is booting"),
        _ => (ChannelState::Unknown, "nothing heard"),
    };
    ChannelStatus { channel, state, since: lens.now, detail: detail.to_owned() }
}
