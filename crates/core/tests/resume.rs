//! What the engine does when events and outcomes reach it in an order that the simulator does not know.

use holdfast_core::action::{
    Action, Command, CommandId, Ended, Fact, Found, Operation, Order, Outcome, Rewind, Wish,
};
use holdfast_core::engine::Engine;
use holdfast_core::input::{Input, Started};
use holdfast_core::lease::{Death, DeathProof, ExitStatus, Incarnation, Lease, Sighting, Token};
use holdfast_core::point::{PointId, SnapshotId};
use holdfast_core::policy::{Policies, VmPolicy};
use holdfast_core::signal::{ConsoleSign, Finding, FindingKind, HypervisorSign, RunState, Seen, Signal};
use holdfast_core::subject::{HostName, Subject, VmName};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_witness::Eyewitness;

/// An engine with one VM that runs.
struct Stage {
    engine: Engine,
    vm: VmName,
    now: Timestamp,
}

impl Stage {
    fn new() -> Self {
        let host: HostName = "atlas".parse().expect("a name");
        let vm: VmName = "web".parse().expect("a name");
        let mut policies = Policies::default();
        policies.vms.insert(vm.clone(), VmPolicy::default());
        let mut stage = Self { engine: Engine::new(), vm, now: Timestamp::from_secs(1) };
        let started = Started { host: host.clone(), boot: "b".into(), wall_offset: 0 };
        stage.hear(Input::Started(started));
        let look = stage.hear(Input::Configured(policies)).pop().expect("it looks first");
        let seen = Sighting::of(Eyewitness::here(), Incarnation(1));
        let lease = Some(Lease::adopting(stage.vm.clone(), seen, Token(1), host));
        let found = Found::Running { seen, pid: 1, state: Some(RunState::Running), lease };
        stage.settle(&look, Ended::Done(Fact::Found(found)));
        stage
    }

    fn hear(&mut self, input: Input) -> Vec<Action> {
        self.engine.step(self.now, &input).actions
    }

    fn see(&mut self, sign: HypervisorSign) -> Vec<Action> {
        self.look(Subject::Vm(self.vm.clone()), Seen::Hypervisor(sign))
    }

    fn look(&mut self, subject: Subject, seen: Seen) -> Vec<Action> {
        let signal = Signal { subject, incarnation: Some(Incarnation(1)), at: self.now, seen };
        self.hear(Input::Signal(signal))
    }

    fn settle(&mut self, action: &Action, ended: Ended) -> Vec<Action> {
        self.hear(Input::Outcome(Outcome { action: action.id, ended }))
    }

    fn not_back(&self) -> Option<String> {
        self.engine.status(&self.vm, self.now).expect("it is known").not_back
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
    }
}

fn resumes(actions: &[Action]) -> bool {
    let resume = |a: &Action| matches!(a.order, Order::Perform { operation: Operation::Continue, .. });
    actions.iter().any(resume)
}

#[test]
fn a_vm_that_was_paused_again_before_its_resumption_was_reported_is_resumed_again_soon() {
    let mut stage = Stage::new();
    let latency = Duration::from_millis(1);
    for _ in 0..30 {
        stage.pass(1_000);
        assert!(stage.see(HypervisorSign::Answered { state: RunState::Running, latency }).is_empty());
    }
    let first = stage.see(HypervisorSign::State(RunState::IoError));
    assert!(resumes(&first));
    stage.pass(2);
    stage.see(HypervisorSign::State(RunState::Running)); // resumed, and paused again at once ...
    stage.see(HypervisorSign::State(RunState::IoError));
    stage.pass(3);
    assert!(stage.settle(&first[0], Ended::Done(Fact::Nothing)).is_empty()); // ... before this was heard
    stage.pass(900);
    stage.see(HypervisorSign::Answered { state: RunState::IoError, latency });
    let mut again = Vec::new();
    for _ in 0..2 {
        stage.pass(500);
        again.extend(stage.hear(Input::Tick));
    }
    assert!(resumes(&again), "its storage may be back any moment: it is not left paused for 20 s");
}

#[test]
fn the_line_of_a_panic_that_comes_while_it_is_repaired_is_among_its_evidence_once() {
    let mut stage = Stage::new();
    let latency = Duration::from_millis(1);
    for _ in 0..30 {
        stage.pass(1_000);
        stage.see(HypervisorSign::Answered { state: RunState::Running, latency });
    }
    let begun = stage.see(HypervisorSign::State(RunState::GuestPanicked));
    assert!(!begun.is_empty(), "it is sure at once");
    stage.pass(90);
    let reset = stage.settle(&begun[0], Ended::Done(Fact::Captured { files: Vec::new() }));
    assert!(matches!(reset[0].order, Order::Perform { operation: Operation::Reset, .. }), "{reset:?}");
    let line = "Kernel panic - not syncing: sysrq triggered crash";
    let kind = FindingKind::KernelPanic;
    for _ in 0..2 {
        stage.pass(20);
        let finding = Finding { kind, rule: "kernel-panic".into(), line: line.into() };
        let guest = Subject::Guest(stage.vm.clone());
        stage.look(guest, Seen::Console(ConsoleSign::Finding(finding)));
    }
    let incident = stage.engine.incidents().last().expect("it is told of");
    let evidence = &incident.named.as_ref().expect("it is sure").evidence;
    assert_eq!(evidence.iter().filter(|w| w.evidence.text.contains(line)).count(), 1, "{evidence:?}");
}

#[test]
fn a_way_back_that_fails_says_why_and_the_vm_that_ended_for_it_starts_without_an_incident() {
    let mut stage = Stage::new();
    let back = |number, to: PointId| {
        let to = Rewind { to, resume: false, again: false };
        let vm = "web".parse().expect("a name");
        Input::Command(Command { id: CommandId(number), by: "ann".into(), vm, wish: Wish::Rewind(to) })
    };
    let reach = stage.hear(back(1, PointId::backup(3)));
    assert!(matches!(reach[0].order, Order::Reach { .. }), "{reach:?}");
    assert_eq!(stage.settle(&reach[0], Ended::Failed { why: "it is offered".into() }), [], "it runs on");
    let why = "it did not go back, and nothing was done to it: it is offered";
    assert_eq!(stage.not_back().as_deref(), Some(why));

    let reach = stage.hear(back(2, SnapshotId(1).into()));
    assert_eq!(stage.not_back(), None, "what is told is of the last time");
    let cut = stage.settle(&reach[0], Ended::Done(Fact::Nothing));
    let death = Death::Exited { pid: 1, status: ExitStatus::Code(0) };
    let died = DeathProof::witnessed(Eyewitness::here(), stage.vm.clone(), Incarnation(1), death);
    let rewind = stage.settle(&cut[0], Ended::Done(Fact::Died(died)));
    assert!(matches!(rewind[0].order, Order::Rewind { .. }), "{rewind:?}");
    let next = stage.settle(&rewind[0], Ended::Failed { why: "no space left".into() });
    assert!(matches!(next[0].order, Order::TakeLease { .. }), "it starts: {next:?}");
    let why = "it did not go back, and starts from the disk that it had: no space left";
    assert_eq!(stage.not_back().as_deref(), Some(why));
    assert_eq!(stage.engine.incidents().count(), 0);
}

#[test]
fn a_vm_whose_memory_is_saved_while_it_is_paused_stays_that_persons() {
    let mut stage = Stage::new();
    let (latency, vm) = (Duration::from_millis(1), stage.vm.clone());
    let pause = Command { id: CommandId(1), by: "ann".into(), vm, wish: Wish::Pause };
    let paused = stage.hear(Input::Command(pause));
    stage.settle(&paused[0], Ended::Done(Fact::Nothing));
    for state in [RunState::Paused, RunState::Moving, RunState::Paused] {
        stage.pass(1_000);
        stage.see(HypervisorSign::Answered { state, latency });
        let status = stage.engine.status(&stage.vm, stage.now).expect("it is known");
        assert_eq!((&*status.state, status.note.as_deref()), ("paused", Some("paused by ann")), "{state:?}");
    }
}
