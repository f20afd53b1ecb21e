//! The loop on a disk whose syncs end when the test says so.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::disk::faulty::FaultyDisk;
use crate::disk::{Disk, Listed, NewFile};
use holdfast_core::action::Work;
use holdfast_core::input::Started;
use holdfast_core::policy::VmPolicy;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

/// What syncs do.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    Open,
    Shut,
    Broken,
}

/// A disk whose files are synced through a door.
#[derive(Clone)]
struct Gated {
    disk: FaultyDisk,
    door: Arc<(Mutex<(Door, usize)>, Condvar)>,
}

impl Gated {
    fn new() -> Self {
        Self { disk: FaultyDisk::default(), door: Arc::new((Mutex::new((Door::Open, 0)), Condvar::new())) }
    }

    fn turn(&self, door: Door) {
        self.door.0.lock().unwrap().0 = door;
        self.door.1.notify_all();
    }

    /// How many syncs have come to the door so far.
    fn syncs(&self) -> usize {
        self.door.0.lock().unwrap().1
    }
}

impl Disk for Gated {
    fn list(&self, folder: &str) -> io::Result<Vec<Listed>> {
        self.disk.list(folder)
    }
    fn read(&self, file: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        self.disk.read(file, from, most)
    }
    fn create(&self, file: &str) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(GatedFile { file: self.disk.create(file)?, gate: self.clone() }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, file: &str) -> io::Result<()> {
        self.disk.remove(file)
    }
    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }
}

struct GatedFile {
    file: Box<dyn NewFile>,
    gate: Gated,
}

impl NewFile for GatedFile {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(at, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        let (state, turned) = &*self.gate.door;
        let mut state = state.lock().unwrap();
        state.1 += 1;
        let state = turned.wait_while(state, |(door, _)| *door == Door::Shut).unwrap();
        if state.0 == Door::Broken { Err(io::Error::other("broken")) } else { self.file.sync() }
    }
    fn another(&self) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(Self { file: self.file.another()?, gate: self.gate.clone() }))
    }
}

/// Those who carry out only write down what they were given.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Action>>>);

impl Notes {
    /// The numbers of what was begun.
    fn begun(&self) -> Vec<u64> {
        self.0.lock().unwrap().iter().map(|action| action.id.0).collect()
    }
}

impl Actors for Notes {
    fn start(&self, actions: Vec<Action>, _desk: &Desk) {
        self.0.lock().unwrap().extend(actions);
    }
}

/// A loop that was told of the VMs `a` and `b` through a shut door, and runs.
struct World {
    gate: Gated,
    /// Syncs until then.
    before: usize,
    notes: Notes,
    inbox: Inbox,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl World {
    fn begin() -> Self {
        let (gate, notes) = (Gated::new(), Notes::default());
        let disk: Arc<dyn Disk> = Arc::new(gate.clone());
        let (recorder, engine, newest) =
            Recorder::on(Arc::clone(&disk), "journal", "atlas".parse().unwrap(), "boot").unwrap();
        let (clock, _) = Clock::start(disk, "boot", newest);
        let (inbox, receiver) = Inbox::new();
        let desk = Desk { engine, clock, events: Ring::default(), mute: None, promises: Promises::default() };
        let mut decider = Decider::new(desk, recorder, notes.clone(), inbox.clone(), CommandId(0));
        let started = Started { host: "atlas".parse().unwrap(), boot: "boot".into(), wall_offset: 0 };
        decider.step(&Input::Started(started));
        gate.turn(Door::Shut);
        let before = gate.syncs();
        let vms = ["a", "b"].map(|name| (name.parse().unwrap(), VmPolicy::default()));
        decider.configure(Policies { vms: vms.into(), ..Policies::default() });
        let stop = CancellationToken::new();
        let ends = stop.clone();
        let running = tokio::spawn(async move { decider.run(receiver, ends).await });
        Self { gate, before, notes, inbox, stop, running }
    }

    fn syncs(&self) -> usize {
        self.gate.syncs() - self.before
    }

    async fn looks<T: Send + 'static>(&self, look: impl Fn(&Desk) -> T + Send + Copy + 'static) -> T {
        self.inbox.look(look).await.unwrap()
    }

    /// Waits until something holds; the time that takes proves nothing.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            tokio::task::yield_now().await;
        }
    }

    /// A person asks for something; it is on its way to the loop when this returns.
    async fn ask_of_b(&self, wish: Wish) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Command { by: "ann".into(), vm: "b".parse().unwrap(), wish, reply };
        self.inbox.sender.send(message).await.unwrap();
        answer
    }

    async fn b_is_maintained(&self) -> bool {
        self.looks(|desk| desk.engine.vm(&"b".parse().unwrap()).unwrap().in_maintenance()).await
    }

    async fn end(self) {
        self.gate.turn(Door::Open);
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_disk_holds_up_what_must_be_safe_first_and_no_decision_i8() {
    let world = World::begin();
    world.until(|world| world.syncs() == 1).await; // that of the intents
    let mut asked = world.ask_of_b(Wish::MaintenanceOn { until: None }).await;
    assert!(world.b_is_maintained().await, "it is decided, although the disk has not answered yet");
    assert!(world.notes.begun().is_empty(), "nothing is begun that is not safe");
    assert!(asked.try_recv().is_err(), "nobody is told what a power cut may take back");
    world.gate.turn(Door::Open);
    assert_eq!(asked.await.unwrap().refused, None);
    // 1 and 2 were to look at `a` and `b`; 3 looks at `b` again, now that a person maintains it.
    assert_eq!(world.notes.begun(), [1, 3], "what was stopped meanwhile is not begun (I5)");
    world.end().await;
}

#[tokio::test]
async fn one_sync_serves_all_that_wait_for_it() {
    let world = World::begin();
    world.until(|world| world.syncs() == 1).await;
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(world.ask_of_b(Wish::WorkDone(Work::Backup)).await);
    }
    world.looks(|_| ()).await; // all were decided: they came before this question
    world.gate.turn(Door::Open);
    for answer in asked {
        answer.await.unwrap();
    }
    assert_eq!(world.syncs(), 2, "one was under way, and one serves all that waited");
    world.end().await;
}

#[tokio::test]
async fn what_the_disk_loses_is_never_begun_and_the_next_segment_begins_anew_i7_i8() {
    let world = World::begin();
    world.until(|world| world.syncs() == 1).await;
    world.gate.turn(Door::Broken);
    while !world.looks(|desk| desk.mute.is_some()).await {
        tokio::task::yield_now().await;
    }
    assert!(world.notes.begun().is_empty());
    let idle = |desk: &Desk| desk.engine.vms().all(|(_, vm)| vm.job.is_none());
    assert!(world.looks(idle).await, "the engine knows that nothing was done");
    world.gate.turn(Door::Open);
    world.inbox.send(Input::Tick).await.unwrap();
    assert!(world.looks(|desk| desk.mute.is_none()).await, "it writes again");
    world.until(|world| world.notes.begun() == [3, 4]).await;
    world.end().await;
}

#[tokio::test]
async fn nobody_is_told_that_something_was_accepted_which_a_crash_would_undo_i5_i8() {
    let world = World::begin();
    world.until(|world| world.syncs() == 1).await;
    let asked = world.ask_of_b(Wish::MaintenanceOn { until: None }).await;
    assert!(world.b_is_maintained().await);
    world.gate.turn(Door::Broken);
    let refused = asked.await.unwrap().refused.expect("its record was lost");
    assert!(refused.contains("not on record"), "{refused}");
    assert!(world.b_is_maintained().await, "it holds as long as this daemon lives");
    world.end().await;
}

#[tokio::test]
async fn a_broken_promise_ends_all_action_and_is_told_i9() {
    let (disk, notes) = (Arc::new(FaultyDisk::default()), Notes::default());
    let (recorder, engine, newest) =
        Recorder::on(disk.clone(), "journal", "atlas".parse().unwrap(), "boot").unwrap();
    let (clock, _) = Clock::start(disk, "boot", newest);
    let (inbox, mut receiver) = Inbox::new();
    let desk = Desk { engine, clock, events: Ring::default(), mute: None, promises: Promises::default() };
    let mut decider = Decider::new(desk, recorder, notes.clone(), inbox, CommandId(0));
    let started = Started { host: "atlas".parse().unwrap(), boot: "boot".into(), wall_offset: 0 };
    decider.step(&Input::Started(started));
    let vms = [("a".parse().unwrap(), VmPolicy::default())];
    let policies = Policies { vms: vms.into(), ..Policies::default() };
    let asked = decider.desk.engine.step(decider.desk.clock.now(), &Input::Configured(policies));
    decider.release(None, Reaction { actions: asked.actions.clone(), ..Reaction::default() });
    assert_eq!((notes.begun(), decider.desk.promises.broken()), (vec![1], None));

    decider.release(None, Reaction { actions: asked.actions, ..Reaction::default() });
    assert_eq!(notes.begun(), [1], "it is not done a second time");
    let told = decider.desk.promises.broken().unwrap().to_string();
    assert!(told.starts_with("I9: action 1 (inspect of a)"), "{told}");
    let Some(Message::Input(Input::Outcome(outcome))) = receiver.recv().await else {
        panic!("it has an outcome")
    };
    assert!(matches!(outcome.ended, Ended::Failed { .. }));
    decider.step(&Input::Tick);
    assert!(
        decider.desk.promises.broken().is_some(),
        "what is recorded well afterwards does not change that"
    );
}
