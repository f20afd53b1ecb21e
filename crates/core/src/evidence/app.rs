//! One application: what our probe finds from outside, and what the guest says of it from inside.

use super::pulse::Pulse;
use super::{Evidence, FULL, Kind, Lens, lasted};
use crate::signal::{AgentSign, AppSign, NumberSign, ProbeFailure};
use crate::subject::AppName;
use crate::time::{Duration, Timestamp};
use crate::written::{Tally, Written};
use serde::{Deserialize, Serialize};

/// A probe that gets no answer for so long has met a hung application.
const MUTE_FULL: Duration = Duration::from_millis(3_600);
/// Somebody who knocks once a second should have been seen inside long before this.
const NOBODY_FULL: Duration = Duration::from_secs(8);
/// The view from inside is asked for when the probe fails: this long it stays true.
const INSIDE_KEEPS: Duration = Duration::from_secs(8);
/// What a number says of its answers is told for so long.
const SLOW_KEEPS: Duration = Duration::from_secs(60);

/// What is remembered of one application.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[repr(C)] // what is asked of a healthy application comes first, side by side
pub struct AppView {
    healthy_since: Option<Timestamp>,
    /// When it last answered, in truth: excuses do not move it.
    #[serde(default)]
    heard: Option<Timestamp>,
    pulse: Pulse,
    failure: Option<(ProbeFailure, String, Timestamp, Timestamp, u32)>, // since, at, in a row
    service: Option<(bool, u32, Timestamp)>,
    check: Option<(bool, String, Timestamp)>,
    #[serde(default)]
    slow: Option<Box<Slow>>,
    #[serde(default)]
    known: Option<Box<Known>>,
    #[serde(default)]
    written: Option<Box<Tally>>,
}

/// Who is connected from elsewhere, as the guest's kernel says, and since when nobody else has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    peers: Vec<u32>,
    since: Timestamp,
}

/// Its answers take far longer than they used to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Slow {
    text: String,
    since: Timestamp,
    at: Timestamp,
}

impl AppView {
    pub fn observe(&mut self, at: Timestamp, sign: &AppSign) {
        match sign {
            AppSign::Answered { .. } => {
                self.pulse.answer(at);
                self.heard = Some(at);
                self.failure = None;
                self.known = None;
                self.healthy_since.get_or_insert(at);
            }
            AppSign::Failed { how, text } => {
                self.pulse.fail(at);
                self.healthy_since = None;
                let (since, count) = match &self.failure {
                    Some((before, _, since, _, count)) if before == how => (*since, count.saturating_add(1)),
                    _ => (at, 1),
                };
                self.failure = Some((*how, text.clone(), since, at, count));
            }
        }
    }

    pub fn observe_inside(&mut self, at: Timestamp, sign: &AgentSign) {
        match sign {
            AgentSign::Service { listens, waiting, peers } => {
                self.service = Some((*listens, *waiting, at));
                self.meet(at, peers);
            }
            AgentSign::Check { passed, text } => self.check = Some((*passed, text.clone(), at)),
            AgentSign::Answered { .. }
            | AgentSign::NoAnswer { .. }
            | AgentSign::Frozen(_)
            | AgentSign::Carrier { .. }
            | AgentSign::Uptime(_)
            | AgentSign::FileSystem { .. }
            | AgentSign::Memory { .. } => {}
        }
    }

    /// Those who are connected now: somebody new, or nobody else than before. Where nobody is, it may be that their
    /// connections end elsewhere, as at a container, and that says nothing.
    fn meet(&mut self, at: Timestamp, peers: &[u32]) {
        let known = self.known.take().filter(|known| peers.iter().all(|peer| known.peers.contains(peer)));
        let since = known.map_or(at, |known| known.since);
        self.known = (!peers.is_empty()).then(|| Box::new(Known { peers: peers.to_vec(), since }));
    }

    /// Its answers take longer than they used to, or no longer do.
    pub fn observe_latency(&mut self, at: Timestamp, sign: &NumberSign) {
        let since = self.slow.as_ref().map_or(at, |slow| slow.since);
        self.slow = (sign.surprise > 0).then(|| Box::new(Slow { text: sign.text.clone(), since, at }));
    }

    /// It has written so much.
    pub fn observe_written(&mut self, now: Written) {
        match &mut self.written {
            Some(tally) => tally.tell(now),
            None => self.written = Some(Box::new(Tally::of(now))),
        }
    }

    /// How much it has written, if it tells.
    pub fn written(&self) -> Option<Written> {
        self.written.as_ref().map(|tally| tally.all())
    }

    /// It answers as fast as it used to, as far as is known.
    pub fn is_brisk(&self, lens: &Lens) -> bool {
        self.told_slow(lens).is_none()
    }

    /// What a number said of its answers, while that is told: who said it may be gone, and never take it back.
    fn told_slow(&self, lens: &Lens) -> Option<&Slow> {
        self.slow.as_deref().filter(|slow| lens.now.since(slow.at) <= SLOW_KEEPS)
    }

    /// A new incarnation, or a restarted application, answers for itself.
    pub fn renew(&mut self) {
        self.pulse.renew();
        let (pulse, heard) = (std::mem::take(&mut self.pulse), self.heard);
        let written = self.written.take();
        *self = Self { pulse, heard, written, ..Self::default() };
    }

    /// Silence begins now, if it is silent.
    pub fn begin_silence(&mut self, now: Timestamp) {
        self.pulse.begin_silence(now);
        self.known = None;
        if matches!(self.failure, Some((ProbeFailure::NoAnswer | ProbeFailure::Unreachable, ..))) {
            self.failure = None;
        }
    }

    /// The observer slept for so long.
    pub fn forgive(&mut self, slept: Duration) {
        self.pulse.forgive(slept);
        if let Some((_, _, since, _, count)) = &mut self.failure {
            *since = *since + slept;
            *count = 1;
        }
        if let Some(known) = &mut self.known {
            known.since = known.since + slept;
        }
    }

    /// It answers.
    pub fn is_alive(&self, lens: &Lens) -> bool {
        self.pulse.is_alive(lens)
    }

    /// Since when it has answered without a failure, if it does.
    pub const fn healthy_since(&self) -> Option<Timestamp> {
        self.healthy_since
    }

    /// When it last answered, whatever excused its silence since.
    pub const fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// When it last answered; excused time counts as if it had.
    pub const fn answered(&self) -> Option<Timestamp> {
        self.pulse.answered()
    }

    pub fn speak(&self, name: &AppName, lens: &Lens, say: &mut Vec<Evidence>) {
        let mut push = |kind, since, at, strength, text| {
            say.push(Evidence { kind, app: Some(name.clone()), since, at, strength, text, quote: None });
        };
        if self.pulse.is_alive(lens) {
            let at = self.pulse.answered().unwrap_or(lens.now);
            push(Kind::AppAnswers, at, at, FULL, format!("{name} answered {} ago", lasted(lens, at)));
        } else if let Some((how, text, since, at, count)) = &self.failure
            && lens.is_fresh(*at)
            && !lens.booting
        {
            let failing = (*since, *at, *count);
            if let Some((kind, strength, what)) = self.weigh(*how, failing, lens) {
                push(kind, *since, *at, strength, format!("{name} {what}: {text}"));
            }
        }
        if let Some(slow) = self.told_slow(lens).filter(|_| self.pulse.is_alive(lens)) {
            push(Kind::AppSlow, slow.since, slow.at, FULL, slow.text.clone());
        }
        self.speak_inside(name, lens, &mut push);
    }

    fn weigh(
        &self,
        how: ProbeFailure,
        (since, at, count): (Timestamp, Timestamp, u32),
        lens: &Lens,
    ) -> Option<(Kind, u16, String)> {
        let twice = if count >= 2 { FULL } else { FULL * 2 / 5 };
        let silent = |kind, what: &str| {
            let from = self.pulse.answered().unwrap_or(since);
            let strength = lens.ramp(at.since(from), MUTE_FULL);
            let strength = if count >= 2 { strength } else { strength / 4 };
            lens.hears_silence().then(|| (kind, strength, format!("{what} for {}", lasted(lens, from))))
        };
        let long = lens.ramp(at.since(since), Duration::from_secs(5));
        match how {
            ProbeFailure::NoAnswer => silent(Kind::AppMute, "takes connections and gives no answer"),
            ProbeFailure::Unreachable => silent(Kind::AppUnreachable, "cannot be reached"),
            ProbeFailure::Refused => Some((Kind::AppRefused, twice, "refuses connections".into())),
            ProbeFailure::Denied => Some((Kind::AppDenied, twice, "refuses our credentials".into())),
            ProbeFailure::Internal => Some((Kind::ProbeFailed, twice, "cannot be probed".into())),
            ProbeFailure::Wrong | ProbeFailure::Mismatch if lens.excused => None,
            ProbeFailure::Wrong => Some((Kind::AppWrong, long, "answers wrongly".into())),
            ProbeFailure::Mismatch => {
                Some((Kind::AppMismatch, long, "answers another thing than agreed".into()))
            }
            ProbeFailure::Exhausted => Some((Kind::AppExhausted, long, "has no connection left".into())),
            ProbeFailure::Starting => Some((Kind::AppStarting, long, "is starting".into())),
        }
    }

    fn speak_inside(
        &self,
        name: &AppName,
        lens: &Lens,
        push: &mut impl FnMut(Kind, Timestamp, Timestamp, u16, String),
    ) {
        // What it answered to users since then is newer; and what was seen inside before it failed as it does
        // now is about another failure.
        let failed = self.failure.as_ref().map_or(Timestamp::ZERO, |(_, _, since, _, _)| *since);
        let newest = |at: Timestamp| self.pulse.answered().is_none_or(|answered| answered < at);
        let keeps =
            |at: Timestamp| at >= failed && lens.now.since(at) <= INSIDE_KEEPS && newest(at) && !lens.booting;
        if let Some((listens, waiting, at)) = self.service.filter(|(_, _, at)| keeps(*at)) {
            let (kind, text) = match (listens, waiting) {
                (false, _) => (Kind::NobodyListens, format!("inside the guest nobody listens for {name}")),
                (true, 0) => (Kind::ServiceListens, format!("inside the guest {name} listens")),
                (true, n) => (
                    Kind::QueueGrows,
                    format!("inside the guest {n} connections wait for {name}, nobody takes them"),
                ),
            };
            push(kind, at, at, FULL, text);
            self.speak_of_arrivals(name, at, lens, push);
        }
        if let Some((passed, said, at)) = self.check.as_ref().filter(|(_, _, at)| keeps(*at)) {
            let (kind, text) = if *passed {
                (Kind::CheckPassed, format!("the check of {name} inside the guest passes"))
            } else {
                (Kind::CheckFailed, format!("the check of {name} inside the guest fails: {said}"))
            };
            push(kind, *at, *at, FULL, text);
        }
    }

    /// We knock all the time: who listens and still sees nobody new come is cut off from us on the way.
    fn speak_of_arrivals(
        &self,
        name: &AppName,
        at: Timestamp,
        lens: &Lens,
        push: &mut impl FnMut(Kind, Timestamp, Timestamp, u16, String),
    ) {
        let (Some((true, 0, _)), Some(known), Some((how, _, failed, ..))) =
            (self.service, &self.known, &self.failure)
        else {
            return;
        };
        let since = known.since.max(*failed);
        let knocks = matches!(how, ProbeFailure::NoAnswer | ProbeFailure::Unreachable);
        if knocks && lens.hears_silence() && at > since {
            let strength = lens.ramp(at.since(since), NOBODY_FULL);
            let text = format!("inside the guest nobody new has come to {name} for {}", lasted(lens, since));
            push(Kind::NobodyArrives, since, at, strength, text);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn said(view: &AppView, now: Timestamp) -> Vec<Kind> {
        let (fresh, hang_after) = (Duration::from_secs(4), Duration::from_secs(10));
        let lens =
            Lens { now, fresh, hang_after, trust_silence: true, patience: 1, booting: false, excused: false };
        let mut say = Vec::new();
        view.speak(&"db".parse().unwrap(), &lens, &mut say);
        say.iter().map(|evidence| evidence.kind).collect()
    }

    #[test]
    fn what_was_seen_inside_is_forgotten_once_it_answers_again() {
        let at = Timestamp::from_secs;
        let mut view = AppView::default();
        view.observe(at(1), &AppSign::Failed { how: ProbeFailure::Refused, text: String::new() });
        view.observe_inside(at(2), &AgentSign::Service { listens: false, waiting: 0, peers: Vec::new() });
        assert!(said(&view, at(2)).contains(&Kind::NobodyListens));
        view.observe(at(3), &AppSign::Answered { latency: Duration::from_millis(1) });
        assert_eq!(said(&view, at(4)), [Kind::AppAnswers]);
        view.observe_inside(at(5), &AgentSign::Service { listens: false, waiting: 0, peers: Vec::new() });
        assert_eq!(said(&view, at(5)), [Kind::AppAnswers, Kind::NobodyListens], "news is told");
    }

    #[test]
    fn nobody_new_inside_while_we_knock_is_told_and_somebody_new_or_nobody_at_all_is_not() {
        let at = Timestamp::from_secs;
        let arrives = |looks: [&[u32]; 4]| {
            let mut view = AppView::default();
            for (second, peers) in (1..).zip(looks) {
                let how = ProbeFailure::NoAnswer;
                view.observe(at(second * 3), &AppSign::Failed { how, text: String::new() });
                let peers = peers.to_vec();
                view.observe_inside(at(second * 3), &AgentSign::Service { listens: true, waiting: 0, peers });
            }
            said(&view, at(12)).contains(&Kind::NobodyArrives)
        };
        assert!(arrives([&[7, 8], &[7, 8], &[7, 8], &[7, 8]]));
        assert!(arrives([&[7, 8], &[7, 8], &[8], &[8]]), "one who leaves is no arrival");
        assert!(!arrives([&[7], &[7, 8], &[7, 9], &[7, 10]]), "they come");
        assert!(!arrives([&[], &[], &[], &[]]), "nobody knows");
    }
}
