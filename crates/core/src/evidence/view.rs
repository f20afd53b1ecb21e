//! All that is remembered of one VM, channel by channel.

use super::agent::AgentView;
use super::app::AppView;
use super::console::ConsoleView;
use super::hypervisor::HypervisorView;
use super::lifecycle::LifecycleView;
use super::logs::LogsView;
use super::network::NetworkView;
use super::process::ProcessView;
use super::{Boot, BootCause, Evidence, FULL, Kind, Lens, lasted};
use crate::signal::{
    AgentSign, ConsoleSign, Counters, FindingKind, HypervisorSign, Measure, NetworkSign, NumberSign,
    RunState, Seen, Signal,
};
use crate::subject::{AppName, Subject};
use crate::time::{Duration, Timestamp};
use crate::written::Marks;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A guest in which nobody ever spoke to us counts as up so long after its start.
const MUTE_BOOT: Duration = Duration::from_secs(20);

/// A network that has been silent for so long, in a guest whose agent answers, does not come back by itself: a
/// switch that learns its ways anew takes half a minute.
const CUT_OFF_AFTER: Duration = Duration::from_secs(40);

/// What is remembered of one VM.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VmView {
    process: ProcessView,
    hypervisor: HypervisorView,
    console: ConsoleView,
    agent: AgentView,
    network: NetworkView,
    #[serde(default)]
    logs: Option<Box<LogsView>>, // apart: most VMs have nothing to tell
    lifecycle: LifecycleView,
    apps: Vec<(AppName, AppView)>, // few, in the order of their names, side by side in memory
    start_failed: Option<(Timestamp, String, Kind)>,
    has_agent: bool, // some agent has answered once: one is installed
}

impl VmView {
    /// Follows the configured applications.
    pub fn set_apps<'a>(&mut self, names: impl Iterator<Item = &'a AppName>) {
        let mut old: BTreeMap<AppName, AppView> = std::mem::take(&mut self.apps).into_iter().collect();
        self.apps = names.map(|name| (name.clone(), old.remove(name).unwrap_or_default())).collect();
    }

    /// Takes in a signal about this VM, seen at that moment.
    pub fn observe(&mut self, at: Timestamp, signal: &Signal) {
        match &signal.seen {
            Seen::Process(sign) => self.process.observe(at, sign),
            Seen::Hypervisor(sign) => self.observe_hypervisor(at, sign),
            Seen::Console(sign) => self.observe_console(at, sign),
            Seen::Agent(sign @ (AgentSign::Service { .. } | AgentSign::Check { .. })) => {
                if let Some(app) = self.app_mut(&signal.subject) {
                    app.observe_inside(at, sign);
                }
            }
            Seen::Agent(AgentSign::Uptime(_)) => {} // VmState
            // A guest that says its cable is out is believed: the remedy costs nobody anything.
            Seen::Agent(AgentSign::Carrier { up }) => {
                self.network.observe(at, &NetworkSign::Link { up: *up })
            }
            Seen::Agent(sign) => {
                self.has_agent |= matches!(sign, AgentSign::Answered { .. });
                self.agent.observe(at, sign);
            }
            Seen::Application(sign) => {
                if let Some(app) = self.app_mut(&signal.subject) {
                    app.observe(at, sign);
                }
            }
            Seen::Written(written) => {
                if let Some(app) = self.app_mut(&signal.subject) {
                    app.observe_written(*written);
                }
            }
            Seen::Network(sign) => self.network.observe(at, sign),
            Seen::Log(sign) => {
                let app = match &signal.subject {
                    Subject::App(_, name) => Some(name),
                    Subject::Host(_) | Subject::Vm(_) | Subject::Guest(_) => None,
                };
                self.logs.get_or_insert_default().observe(at, app, sign, &mut self.console);
            }
            Seen::Number(sign) => self.observe_number(at, &signal.subject, sign),
            Seen::Host(_) | Seen::Observer(_) => {} // HostView
        }
        if self.lifecycle.boot().is_some() && self.has_arrived(at) {
            self.lifecycle.arrive(at);
            self.hypervisor.settled();
        }
    }

    fn app_mut(&mut self, subject: &Subject) -> Option<&mut AppView> {
        match subject {
            Subject::App(_, name) => self.app_named(name),
            Subject::Host(_) | Subject::Vm(_) | Subject::Guest(_) => None,
        }
    }

    fn app_named(&mut self, wanted: &AppName) -> Option<&mut AppView> {
        self.apps.iter_mut().find(|(name, _)| name == wanted).map(|(_, app)| app)
    }

    fn observe_hypervisor(&mut self, at: Timestamp, sign: &HypervisorSign) {
        if matches!(sign, HypervisorSign::Answered { .. }) && self.hypervisor.was_silent() {
            self.begin_silence(at); // what the hypervisor kept from us was no silence of its guest
        }
        let paused = self.hypervisor.paused_since();
        self.hypervisor.observe(at, sign);
        if let Some(since) = paused.filter(|_| self.hypervisor.state() == Some(RunState::Running)) {
            self.lifecycle.forgive(at.since(since)); // a guest that stands still does not boot
        }
        if let HypervisorSign::Reset { by_guest } = sign {
            self.begin_boot(at, if *by_guest { BootCause::Itself } else { BootCause::Reset });
        }
    }

    fn observe_number(&mut self, at: Timestamp, subject: &Subject, sign: &NumberSign) {
        match sign.measure {
            Measure::Latency => {
                if let Some(app) = self.app_mut(subject) {
                    app.observe_latency(at, sign);
                }
            }
            Measure::Other => self.hypervisor.observe_number(at, sign),
        }
    }

    fn observe_console(&mut self, at: Timestamp, sign: &ConsoleSign) {
        if let ConsoleSign::Finding(finding) = sign {
            if finding.kind == FindingKind::BootStarted {
                self.console.turn_page();
            }
            if LogsView::concerns(finding.kind) {
                self.logs.get_or_insert_default().observe_console(at, finding);
            }
        }
        self.console.observe(at, sign);
    }

    /// Every application has answered since the boot began; without applications the agent; a guest in which
    /// nobody ever spoke to us counts as up once it runs.
    fn has_arrived(&self, at: Timestamp) -> bool {
        let Some(boot) = self.lifecycle.boot() else { return true };
        if self.apps.is_empty() {
            let mute = !self.has_agent && at.since(boot.since) >= MUTE_BOOT;
            return self.agent.was_heard() || mute;
        }
        self.apps.iter().all(|(_, app)| app.healthy_since().is_some())
    }

    /// The guest boots: what came before says nothing about it.
    pub fn begin_boot(&mut self, at: Timestamp, cause: BootCause) {
        self.lifecycle.begin(at, cause);
        self.apps.iter_mut().for_each(|(_, app)| app.renew());
        self.agent = AgentView::default();
        self.network.renew();
    }

    /// The guest says that it has been up for so long. If nothing has answered since then, it boots, though
    /// nobody saw that begin: it did so while we were not there to see it.
    pub fn booted(&mut self, at: Timestamp, up: Duration) {
        let since = at - up;
        let silent = |app: &AppView| app.heard().is_none_or(|heard| heard < since);
        if self.lifecycle.boot().is_none()
            && !self.apps.is_empty()
            && self.apps.iter().all(|(_, app)| silent(app))
        {
            self.begin_boot(since, BootCause::Reset);
        }
    }

    /// A new incarnation starts: only what was learned stays.
    pub fn begin_incarnation(&mut self, at: Timestamp) {
        self.process = ProcessView::default();
        self.hypervisor = HypervisorView::default();
        self.console = ConsoleView::default();
        if let Some(logs) = &mut self.logs {
            logs.turn_page();
        }
        self.network = NetworkView::default();
        self.start_failed = None;
        self.begin_boot(at, BootCause::Started);
    }

    /// An application was restarted: it answers for itself again.
    pub fn begin_app(&mut self, name: &AppName) {
        if let Some(app) = self.app_named(name) {
            app.renew();
        }
    }

    /// A start was refused, or ended at once; `gone`: as its disk is not there.
    pub fn start_failed(&mut self, at: Timestamp, why: String, gone: bool) {
        let kind = if gone { Kind::DiskGone } else { Kind::StartFailed };
        self.start_failed = Some((at, why, kind));
        self.lifecycle.end();
    }

    /// The last start was refused.
    pub const fn was_refused(&self) -> bool {
        self.start_failed.is_some()
    }

    /// It was told to go on, and does, whatever its hypervisor said before it was told.
    pub fn goes_on(&mut self, at: Timestamp) {
        if self.hypervisor.paused_since().is_some() {
            self.observe_hypervisor(at, &HypervisorSign::State(RunState::Running));
        }
    }

    /// A person says that what was told of is dealt with: older lines speak of the past.
    pub fn dealt_with(&mut self) {
        if let Some(logs) = &mut self.logs {
            logs.dealt_with();
        }
    }

    /// The guest has proved healthy: old lines and resets speak of the past.
    pub fn settled(&mut self) {
        self.console.turn_page();
        if let Some(logs) = &mut self.logs {
            logs.turn_page();
        }
        self.hypervisor.settled();
        self.start_failed = None;
    }

    /// The observer slept for so long: that time is no silence.
    pub fn forgive(&mut self, slept: Duration) {
        self.process.forgive(slept);
        self.hypervisor.forgive(slept);
        self.agent.forgive(slept);
        self.network.forgive(slept);
        self.lifecycle.forgive(slept);
        self.apps.iter_mut().for_each(|(_, app)| app.forgive(slept));
    }

    /// The daemon was not there to hear events: what only an event would have ended is not known to last.
    pub const fn look_away(&mut self) {
        self.network.look_away();
    }

    /// From now on silence counts again: what nobody could expect to hear before is no part of it.
    pub fn begin_silence(&mut self, now: Timestamp) {
        self.agent.begin_silence(now);
        self.network.begin_silence(now);
        self.apps.iter_mut().for_each(|(_, app)| app.begin_silence(now));
    }

    /// The boot in progress, if any, and when it is overdue.
    pub fn boot(&self) -> Option<Boot> {
        self.lifecycle.boot()
    }

    /// When the boot in progress is overdue.
    pub fn boot_due(&self, boot_limit: Duration, patience: u32) -> Option<Timestamp> {
        self.lifecycle.due(boot_limit, patience)
    }

    /// File systems are frozen: writes hang on purpose.
    pub fn is_frozen(&self, now: Timestamp) -> bool {
        self.agent.is_frozen(now)
    }

    /// Somebody in the guest told it, or its database, to stop: what is missing now is missing on purpose.
    pub fn is_going_down(&self, now: Timestamp) -> bool {
        self.console.is_going_down(now)
    }

    /// The agent answers, and says that there is room on the disks.
    pub fn has_room(&self, lens: &Lens) -> bool {
        self.agent.has_room(lens)
    }

    /// The run state last heard of.
    pub fn run_state(&self) -> Option<RunState> {
        self.hypervisor.state()
    }

    /// The hypervisor is asked and does not answer.
    pub fn is_hypervisor_silent(&self, lens: &Lens) -> bool {
        self.hypervisor.is_silent(lens)
    }

    /// A failed disk request was for want of space on the host.
    pub const fn wants_space(&self) -> bool {
        self.hypervisor.no_space()
    }

    /// A virtual cable is unplugged.
    pub const fn is_unplugged(&self) -> bool {
        self.network.is_unplugged()
    }

    /// What the devices of the VM have done since its start, as last told.
    pub fn counters(&self) -> Option<Counters> {
        self.hypervisor.counters()
    }

    /// The applications, and for each whether it answers and when it last did.
    pub fn apps(&self, lens: &Lens) -> impl Iterator<Item = (&AppName, bool, Option<Timestamp>)> {
        self.apps.iter().map(|(name, app)| (name, app.is_alive(lens), app.answered()))
    }

    /// How much its applications have written, of those that tell.
    pub fn written(&self) -> Marks {
        let told = self.apps.iter().filter_map(|(name, app)| Some((name.clone(), app.written()?)));
        told.collect()
    }

    /// When users were last served by all those applications that do not answer now, or by that one of them.
    pub fn served(&self, lens: &Lens, only: Option<&AppName>) -> Option<Timestamp> {
        let silent =
            |(name, app): &&(AppName, AppView)| !app.is_alive(lens) && only.is_none_or(|only| only == name);
        self.apps.iter().filter(silent).filter_map(|(_, app)| app.heard()).min()
    }

    /// Since when users are served by all its applications, or by that one, if they are: all of these answer without a failure.
    pub fn served_since(&self, lens: &Lens, only: Option<&AppName>) -> Option<Timestamp> {
        let asked = self.apps.iter().filter(|(name, _)| only.is_none_or(|only| only == name));
        let mut since = asked.map(|(_, app)| app.healthy_since().filter(|_| app.is_alive(lens))).peekable();
        since.peek()?;
        since.try_fold(Timestamp::ZERO, |latest, one| one.map(|at| latest.max(at)))
    }

    /// Everything that can be asked has answered since then, at least once.
    pub fn came_back(&self, since: Timestamp) -> bool {
        !self.apps.is_empty() && self.apps.iter().all(|(_, app)| app.heard().is_some_and(|at| at > since))
    }

    /// Since when everything that is watched has answered, if it does: applications, else the agent, else
    /// the hypervisor.
    pub fn healthy_since(&self, lens: &Lens) -> Option<Timestamp> {
        if self.start_failed.is_some() || !self.process.runs(lens) || self.boot().is_some() {
            return None;
        }
        if !matches!(self.hypervisor.state(), Some(RunState::Running) | None) {
            return None;
        }
        if self.apps.is_empty() {
            let alive = !self.agent.was_heard() || self.agent.is_alive(lens);
            return (alive && self.hypervisor.is_alive(lens)).then_some(Timestamp::ZERO);
        }
        self.served_since(lens, None)
    }

    /// Nothing seen here gives reason for a closer look: the path of nearly all signals.
    pub fn is_calm(&self, lens: &Lens) -> bool {
        self.console.is_quiet(lens)
            && self.logs.as_ref().is_none_or(|logs| logs.is_quiet(lens))
            && !self.agent.is_filling()
            && self.apps.iter().all(|(_, app)| app.is_brisk(lens))
            && !self.is_unplugged()
            && self.healthy_since(lens).is_some()
            && (!self.agent.was_heard() || self.agent.is_alive(lens))
    }

    /// The agent is asked through the hypervisor: when that is silent, both silences are one. And a machine that
    /// hangs falls silent on all channels at once: where the hypervisor and the guest did so at different times,
    /// the one explains nothing of the other, unless the process itself is seen not to run.
    fn join_silences(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let Some(at) = say.iter().position(|e| e.kind == Kind::HypervisorSilent) else { return };
        let since = say[at].since;
        let stands = say.iter().any(|e| matches!(e.kind, Kind::ProcessStopped | Kind::ProcessStuck));
        let lived =
            self.apps.iter().filter_map(|(_, app)| app.answered()).chain(self.network.answered()).max();
        if !stands && lived.is_some_and(|lived| since.since(lived).max(lived.since(since)) > lens.at_once()) {
            say[at].strength = 0;
        }
        let by_agent = self.apps.is_empty(); // then only the agent could have said that it is up
        let of_agent = |kind| matches!(kind, Kind::AgentSilent | Kind::AgentAway);
        let joined = |kind| of_agent(kind) || (by_agent && kind == Kind::BootOverdue);
        say.retain(|e| !joined(e.kind));
    }

    /// Probes and echoes go the same way, so their silence is one voice. The agent is asked another way: where it
    /// answers and everything that came over the network is missing, the guest lives and its network is away.
    fn tell_cut_off(&self, lens: &Lens, say: &mut Vec<Evidence>) {
        let among = |kind| say.iter().filter(move |e| e.kind == kind);
        let (Some(silent), Some(agent)) =
            (among(Kind::NetworkSilent).next(), among(Kind::AgentAnswers).next())
        else {
            return;
        };
        let long = lens.now.since(silent.since) >= CUT_OFF_AFTER * lens.patience;
        let unreached = !self.apps.is_empty() && among(Kind::AppUnreachable).count() == self.apps.len();
        // An echo that was never answered, nobody may be meant to answer.
        if !long || !unreached || self.network.answered().is_none_or(|heard| agent.at <= heard) {
            return;
        }
        let (kind, since, at) = (Kind::NetworkAway, silent.since, agent.at);
        let text = format!(
            "the agent answers, and nothing has reached the guest by network for {}",
            lasted(lens, since)
        );
        say.push(Evidence { kind, app: None, since, at, strength: silent.strength, text, quote: None });
    }

    /// Everything that can be stated now.
    pub fn evidence(&self, lens: &Lens, boot_limit: Duration) -> Vec<Evidence> {
        let mut say = Vec::new();
        match &self.start_failed {
            // A process that ends at once because it was refused something has not crashed.
            Some((at, why, kind)) => say.push(Evidence {
                kind: *kind,
                app: None,
                since: *at,
                at: lens.now,
                strength: FULL,
                text: format!("start refused: {why}"),
                quote: None,
            }),
            None => self.process.speak(lens, &mut say),
        }
        self.hypervisor.speak(lens, &mut say);
        self.console.speak(lens, self.agent.room_seen(), &mut say);
        let only = if let [(name, _)] = &self.apps[..] { Some(name) } else { None };
        let heard = |wanted: &AppName| {
            let app = self.apps.iter().find(|(name, _)| name == wanted).map(|(_, app)| app);
            app.map_or((None, false), |app| (app.heard(), app.is_alive(lens)))
        };
        if let Some(logs) = &self.logs {
            logs.speak(lens, only, heard, &mut say);
        }
        self.agent.speak(lens, self.console.damaged(lens), &mut say);
        if !self.agent.knows_memory(lens) {
            self.hypervisor.speak_memory(lens, &mut say);
        }
        self.network.speak(lens, &mut say);
        self.lifecycle.speak(lens, boot_limit, &mut say);
        for (name, app) in &self.apps {
            app.speak(name, lens, &mut say);
        }
        self.join_silences(lens, &mut say);
        self.tell_cut_off(lens, &mut say);
        // What lived before a conclusive sign says nothing of the time after it.
        if let Some(since) = say.iter().filter(|e| e.kind.is_conclusive()).map(|e| e.since).max() {
            say.retain(|e| !e.kind.is_sign_of_life() || e.at > since);
        }
        say
    }
}
