//! A person's word that a VM goes back to a backup, while its repository is slow, out of reach, or the VM is well again.

use holdfast_core::action::{Action, Command, CommandId, Ended, Fact, Found, Order, Outcome, Rewind, Wish};
use holdfast_core::engine::Engine;
use holdfast_core::incident::{IncidentId, Phase};
use holdfast_core::input::{Input, Started};
use holdfast_core::lease::{Incarnation, Lease, Sighting, Token};
use holdfast_core::point::{Grade, Known, PointId};
use holdfast_core::policy::{AppPolicy, Mode, Policies, VmPolicy};
use holdfast_core::signal::{AppSign, HypervisorSign, ProbeFailure, RunState, Seen, Signal};
use holdfast_core::subject::{AppName, HostName, Subject, VmName};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_core::written::Marks;
use holdfast_witness::Eyewitness;

const OPEN: IncidentId = IncidentId(1);
const BACKUP: PointId = PointId::backup(1);

/// An engine that does nothing unasked, with one VM that runs and whose application is down.
struct Stage {
    engine: Engine,
    vm: VmName,
    app: AppName,
    host: HostName,
    now: Timestamp,
    commands: u64,
}

impl Stage {
    fn new() -> Self {
        let (host, vm) = ("atlas".parse().expect("a name"), "web".parse().expect("a name"));
        let (app, now) = ("db".parse().expect("a name"), Timestamp::from_secs(1));
        let mut stage = Self { engine: Engine::new(), vm, app, host, now, commands: 0 };
        let apps = [(stage.app.clone(), AppPolicy { can_restart: false })].into();
        let policy = VmPolicy { mode: Mode::Observe, apps, ..VmPolicy::default() };
        let mut policies = Policies::default();
        policies.vms.insert(stage.vm.clone(), policy);
        assert!(stage.start().is_empty());
        let look = stage.hear(Input::Configured(policies)).pop().expect("it looks first");
        stage.found(&look);
        let (id, age, written) = (BACKUP, Duration::from_secs(60), Marks::new());
        let known = Known { id, grade: Grade::Taken, resumable: false, doubtful: false, age, written };
        stage.hear(Input::Points { vm: stage.vm.clone(), known: vec![known] });
        stage.go_on(20, true);
        stage.go_on(60, false);
        assert!(stage.engine.incident(OPEN).is_some_and(|incident| !incident.is_closed()));
        stage
    }

    fn start(&mut self) -> Vec<Action> {
        let (host, boot) = (self.host.clone(), "b".to_owned());
        self.hear(Input::Started(Started { host, boot, wall_offset: 0 }))
    }

    fn found(&mut self, look: &Action) {
        assert!(matches!(look.order, Order::Inspect), "{look:?}");
        let seen = Sighting::of(Eyewitness::here(), Incarnation(1));
        let lease = Some(Lease::adopting(self.vm.clone(), seen, Token(1), self.host.clone()));
        let found = Found::Running { seen, pid: 1, state: Some(RunState::Running), lease };
        self.settle(look, Ended::Done(Fact::Found(found)));
    }

    fn hear(&mut self, input: Input) -> Vec<Action> {
        self.engine.step(self.now, &input).actions
    }

    fn settle(&mut self, action: &Action, ended: Ended) -> Vec<Action> {
        self.hear(Input::Outcome(Outcome { action: action.id, ended }))
    }

    /// So many seconds pass in which its application answers or does not; what is asked for meanwhile.
    fn go_on(&mut self, seconds: u64, answers: bool) -> Vec<Action> {
        let mut asked = Vec::new();
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            let latency = Duration::from_millis(1);
            let app = if answers {
                AppSign::Answered { latency }
            } else {
                AppSign::Failed { how: ProbeFailure::Refused, text: "connection refused".into() }
            };
            let vm = Subject::Vm(self.vm.clone());
            let of_app = Subject::App(self.vm.clone(), self.app.clone());
            let runs = Seen::Hypervisor(HypervisorSign::Answered { state: RunState::Running, latency });
            for (subject, seen) in [(vm, runs), (of_app, Seen::Application(app))] {
                let signal = Signal { subject, incarnation: Some(Incarnation(1)), at: self.now, seen };
                asked.extend(self.hear(Input::Signal(signal)));
            }
            asked.extend(self.hear(Input::Tick));
        }
        asked
    }

    /// What a person is told, and what is asked for.
    fn approve(&mut self, to: Option<PointId>) -> Result<Vec<Action>, String> {
        self.commands += 1;
        let (id, by, vm) = (CommandId(self.commands), "ann".to_owned(), self.vm.clone());
        let wish = Wish::Approve { incident: OPEN, to };
        let reaction = self.engine.step(self.now, &Input::Command(Command { id, by, vm, wish }));
        match reaction.answers.into_iter().find_map(|answer| answer.refused) {
            Some(why) => Err(why),
            None => Ok(reaction.actions),
        }
    }

    fn reach(&mut self) -> Action {
        let asked = self.approve(Some(BACKUP)).expect("it is approved");
        assert!(
            matches!(asked[..], [Action { order: Order::Reach { to: Some(Rewind { to: BACKUP, .. }) }, .. }]),
            "{asked:?}"
        );
        asked[0].clone()
    }

    fn phase(&self) -> Phase {
        self.engine.incident(OPEN).expect("it is known").phase.clone()
    }

    fn tells(&self, text: &str) -> bool {
        self.engine.incident(OPEN).expect("it is known").story.iter().any(|line| line.text.contains(text))
    }
}

fn blocked() -> Ended {
    Ended::Blocked { why: "the repository cannot be reached".into() }
}

#[test]
fn a_vm_that_serves_its_users_again_while_its_backup_was_looked_for_is_not_ended() {
    let mut stage = Stage::new();
    let reach = stage.reach();
    assert!(stage.go_on(5, true).is_empty());
    let capture = stage.settle(&reach, Ended::Done(Fact::Nothing));
    assert!(matches!(capture[..], [Action { order: Order::Capture { .. }, .. }]), "{capture:?}");
    let next = stage.settle(&capture[0], Ended::Done(Fact::Captured { files: Vec::new() }));
    assert!(next.is_empty(), "{next:?}");
    let next = stage.go_on(30, true);
    assert!(next.is_empty(), "{next:?}");
    assert!(matches!(stage.phase(), Phase::Closed(_)), "{:?}", stage.phase());
    assert!(stage.tells("going back to backup 1, as ann approved it, is not waited for any more"));
}

#[test]
fn what_was_approved_and_had_changed_nothing_yet_is_begun_again_after_a_restart() {
    for answered in [false, true] {
        let mut stage = Stage::new();
        let reach = stage.reach();
        if answered {
            assert!(stage.settle(&reach, blocked()).is_empty());
            assert!(stage.tells("the repository cannot be reached; as approved, it is tried again"));
        }
        let written = serde_json::to_vec(&stage.engine).expect("it can be written down");
        stage.engine = serde_json::from_slice(&written).expect("it can be read back");
        let look = stage.start();
        stage.found(look.first().expect("it looks first"));
        let asked = stage.go_on(20, false);
        assert!(matches!(asked[..], [Action { order: Order::Reach { .. }, .. }]), "{answered} {asked:?}");
    }
}

#[test]
fn a_point_that_is_not_there_is_named() {
    let mut stage = Stage::new();
    assert_eq!(stage.approve(Some(PointId::backup(7))), Err("it has no backup 7".into()));
}

#[test]
fn what_is_tried_again_is_replaced_by_another_word_and_costs_no_try() {
    let mut stage = Stage::new();
    let first = stage.reach();
    assert!(stage.approve(Some(BACKUP)).is_err(), "it was only just begun");
    stage.settle(&first, blocked());
    let again = stage.go_on(20, false);
    assert!(matches!(again[..], [Action { order: Order::Reach { .. }, .. }]), "{again:?}");
    let reach = stage.reach();
    assert!(!stage.engine.wants(&again[0]) && stage.engine.wants(&reach));
    assert!(stage.tells("restore, once more") && stage.tells("is not waited for any more"));
    assert!(stage.settle(&again[0], Ended::Done(Fact::Nothing)).is_empty(), "nobody waits for that");
    let capture = stage.settle(&reach, Ended::Done(Fact::Nothing));
    assert!(matches!(capture[..], [Action { order: Order::Capture { .. }, .. }]), "{capture:?}");
}
