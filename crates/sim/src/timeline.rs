//! What Holdfast did and said, line by line: the part of a story that is compared.

use crate::faults::Happening;
use holdfast_core::action::{Action, Order, Wish};
use holdfast_core::engine::{Engine, Reaction, VmStatus};
use holdfast_core::incident::{IncidentId, STORY_MOST};
use holdfast_core::input::Input;
use holdfast_core::time::Timestamp;
use std::collections::BTreeMap;

/// The lines so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) lines: Vec<String>,
    /// How many lines of each incident's story were told.
    told: BTreeMap<IncidentId, usize>,
    /// What was last asked by a person.
    asked: String,
    /// The last line, if it was an act, and how often it came again.
    acted: String,
    repeated: u32,
    /// Nobody reads it: nothing is written.
    quiet: bool,
}

fn clock(at: Timestamp) -> String {
    let (secs, millis) = (at.as_micros() / 1_000_000, at.as_micros() / 1_000 % 1_000);
    if millis == 0 {
        return format!("{secs}s");
    }
    format!("{secs}.{millis:03}").trim_end_matches('0').to_owned() + "s"
}

impl Timeline {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, ..Self::default() }
    }

    fn line(&mut self, at: Timestamp, step: &str, text: &str) {
        if self.quiet {
            return;
        }
        if step == "act" && self.acted == text {
            self.repeated += 1;
            return;
        }
        if self.repeated > 0 {
            let times = format!("{}, {} times more", self.acted, self.repeated);
            self.lines.push(format!("{:>10}  {:<9}  {times}", "", "act"));
        }
        self.repeated = 0;
        self.acted = if step == "act" { text.to_owned() } else { String::new() };
        self.lines.push(format!("{:>10}  {step:<9}  {text}", clock(at)));
    }

    /// The engine took a step.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are a person's")]
    pub(crate) fn step(&mut self, now: Timestamp, input: &Input, reaction: &Reaction, engine: &Engine) {
        if self.quiet {
            return;
        }
        if let Input::Command(command) = input {
            for answer in reaction.answers.iter().filter(|answer| answer.command == command.id) {
                let (step, asked) = match &command.wish {
                    Wish::GiveUp(id) => ("schedule", format!("gives up snapshot {id} of {}", command.vm)),
                    _ => ("person", self.asked.clone()),
                };
                let text = match &answer.refused {
                    None => format!("{asked}: accepted"),
                    Some(why) => format!("{asked}: refused, {why}"),
                };
                self.line(now, step, &text);
            }
        }
        for id in &reaction.changed {
            self.tell(*id, engine);
        }
    }

    fn tell(&mut self, id: IncidentId, engine: &Engine) {
        let Some(incident) = engine.incident(id) else { return };
        let told = self.told.get(&id).copied().unwrap_or(0).min(incident.story.len());
        let from = if incident.story.len() >= STORY_MOST {
            incident.story.iter().position(|line| line.at >= engine.now()).unwrap_or(incident.story.len())
        } else {
            told
        };
        for line in &incident.story[from..] {
            self.line(line.at, &line.step, &format!("{id} {}", line.text));
        }
        self.told.insert(id, incident.story.len());
    }

    /// A person asks for this.
    pub(crate) fn asks(&mut self, happening: &Happening) {
        self.asked = happening.to_string().trim_start_matches("person ").to_owned();
    }

    /// A person asked, and nobody was there.
    pub(crate) fn unheard(&mut self, now: Timestamp) {
        let text = format!("{}: nobody answers, the daemon is down", self.asked);
        self.line(now, "person", &text);
    }

    /// Something that the story ties to a moment happens.
    pub(crate) fn happens(&mut self, now: Timestamp, happening: &Happening) {
        self.line(now, "*", &happening.to_string());
    }

    /// An order changed something.
    pub(crate) fn act(&mut self, now: Timestamp, action: &Action) {
        let incarnation = match &action.order {
            Order::Perform { incarnation, .. } | Order::PowerOff { incarnation, .. } => *incarnation,
            Order::Rewind { proof, .. } => proof.incarnation(),
            Order::Start { lease } => lease.incarnation(),
            Order::Inspect
            | Order::Capture { .. }
            | Order::Reach { .. }
            | Order::TakeLease { .. }
            | Order::Adopt { .. }
            | Order::ReleaseLease { .. } => return,
        };
        self.line(now, "act", &format!("{} {} {incarnation}", action.order.name(), action.vm));
    }

    /// How those VMs stand at the end that do not simply run, or of which there is something to say.
    pub(crate) fn end(&mut self, now: Timestamp, engine: &Engine) {
        for (name, _) in engine.vms() {
            let tells = |status: &VmStatus| status.state != "running" || status.note.is_some();
            let Some(status) = engine.status(name, now).filter(tells) else { continue };
            let note = status.note.map(|note| format!(", {note}")).unwrap_or_default();
            let incident = status.incident.map(|id| format!(" ({id})")).unwrap_or_default();
            self.line(now, "end", &format!("{name} {}{incident}{note}", status.state));
        }
    }

    /// A restarted daemon knows these incidents already.
    pub(crate) fn restarted(&mut self, engine: &Engine) {
        self.told = engine.incidents().map(|incident| (incident.id, incident.story.len())).collect();
    }
}
