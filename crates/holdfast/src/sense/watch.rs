//! Keeps looking: one small task per VM and channel, each with its own pace, none waiting for another.
//!
//! A task that is late says nothing about its VM: silence is only ever a question of ours that was
//! asked in time and not answered (I10).

mod application;

use super::console::{self, Begin, Console, Tap};
use super::logs::{Feeds, Means, Places};
use super::network;
use super::numbers::kept::Kept;
use super::numbers::{Newest, Numbers};
use super::{convert, host, lag, lying, own};
use crate::config::{AppConfig, Config, Target};
use crate::decide::Inbox;
use holdfast_core::input::Input;
use holdfast_core::lease::Incarnation;
use holdfast_core::signal::{AgentSign, ProcessSign, Seen, Signal};
use holdfast_core::subject::{AppName, Subject, VmName};
use holdfast_core::time::Timestamp;
use holdfast_drivers::{Driver, Glimpse, Question};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// One question to hypervisor or agent takes at most so long.
const QUESTION: Duration = Duration::from_secs(1);
/// One that takes the agent many words.
const LONG_QUESTION: Duration = Duration::from_secs(2);
/// How full the guest's disks are, and how much memory is left, is asked this often.
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// Signs of the host that may wait; it is asked about once a second.
const QUEUE: usize = 64;

/// Where all that is seen goes.
#[derive(Clone)]
struct Reports {
    inbox: Inbox,
    numbers: Numbers,
    /// Where consoles are kept, and how far they were.
    consoles: Means,
}

impl Reports {
    async fn send(&self, signal: Signal) {
        self.numbers.show(&signal);
        let _ = self.inbox.send(Input::Signal(signal)).await; // stopping: nobody needs it any more
    }
}

/// What the tasks of one VM share.
#[derive(Clone)]
struct Eye {
    vm: VmName,
    driver: Arc<dyn Driver>,
    reports: Reports,
    clock: crate::clock::Clock,
    period: Duration,
    /// The incarnation seen last; `None`: it does not run, so nobody asks.
    running: watch::Sender<Option<Incarnation>>,
    /// What lies on which of its file systems.
    lying: lying::Lying,
    /// An application failed its probe: the agent should look from inside at once.
    look_closer: Arc<Notify>,
    stop: CancellationToken,
}

/// All watching that goes on. It ends when this is dropped.
pub struct Watching {
    driver: Arc<dyn Driver>,
    reports: Reports,
    clock: crate::clock::Clock,
    stop: CancellationToken,
    vms: BTreeMap<VmName, Watched>,
    /// The same eyes, for what drivers tell unasked.
    eyes: watch::Sender<Eyes>,
    /// The folders of the host that are watched, and the tasks that do.
    host: (Vec<PathBuf>, JoinSet<()>),
    /// Who may ask for a number of a user's own just now.
    questions: Arc<Semaphore>,
    /// What goes on whatever is configured.
    _always: JoinSet<()>,
}

type Eyes = Arc<BTreeMap<VmName, Eye>>;

/// The watching of one VM.
struct Watched {
    eye: Eye,
    /// Process, hypervisor and console.
    _looks: JoinSet<()>,
    /// Who is asked what, and the tasks that do.
    asks: (Asked, JoinSet<()>),
    /// Numbers that its user defined.
    numbers: own::Followed,
}

/// Who is asked: agent, applications, and the guest's kernel where it has an address.
#[derive(Clone, PartialEq)]
struct Asked {
    apps: BTreeMap<AppName, AppConfig>,
    address: Option<(IpAddr, u16)>,
}

impl Watching {
    /// Starts watching everything that the configuration names.
    pub fn start(
        config: &Config,
        driver: &Arc<dyn Driver>,
        (inbox, feeds, places): (&Inbox, &Feeds, &Places),
        numbers: (&Kept, Newest),
        clock: &crate::clock::Clock,
        stop: &CancellationToken,
    ) -> Self {
        let (eyes, seen) = watch::channel(Eyes::default());
        let mut always = JoinSet::new();
        always.spawn(events(seen, Arc::clone(driver), stop.clone()));
        let reports = Reports {
            inbox: inbox.clone(),
            numbers: Numbers::start(inbox, *clock, numbers, stop),
            consoles: Means::new(feeds, places, driver, stop.clone()),
        };
        watch_ourselves(&mut always, config, &reports, clock);
        let driver = Arc::clone(driver);
        let (vms, host) = (BTreeMap::new(), (Vec::new(), JoinSet::new()));
        let (clock, stop, questions) = (*clock, stop.clone(), own::questions());
        let mut watching = Self { driver, reports, clock, stop, vms, eyes, host, questions, _always: always };
        watching.configure(config);
        watching
    }

    /// Watches what is named now, and no longer what is not. What stays as it is goes on undisturbed.
    pub fn configure(&mut self, config: &Config) {
        self.vms.retain(|name, _| config.vms.contains_key(name));
        for (name, vm) in &config.vms {
            let asked = Asked { apps: vm.apps.clone(), address: convert::address(vm) };
            match self.vms.get_mut(name).filter(|watched| watched.eye.period == config.period) {
                Some(watched) if watched.asks.0 == asked => {}
                Some(watched) => watched.asks = (asked.clone(), ask(&watched.eye, &asked)),
                None => {
                    let eye = self.eye(name, config.period);
                    let (_looks, asks) = (look(&eye), (asked.clone(), ask(&eye, &asked)));
                    let numbers = own::Followed::default();
                    self.vms.insert(name.clone(), Watched { eye, _looks, asks, numbers });
                }
            }
            if let Some(watched) = self.vms.get_mut(name) {
                watched.numbers.configure(vm, || watched.eye.means(&self.questions));
            }
        }
        let eyes = self.vms.iter().map(|(name, watched)| (name.clone(), watched.eye.clone()));
        self.eyes.send_replace(Arc::new(eyes.collect()));
        let folders = folders(config);
        if self.host.0 != folders {
            let tasks = watch_host(config, &folders, &self.reports, &self.clock);
            self.host = (folders, tasks);
        }
    }

    /// An eye on a VM; what was known to run is known still.
    fn eye(&self, name: &VmName, period: Duration) -> Eye {
        let before = self.vms.get(name).map(|watched| &watched.eye);
        Eye {
            vm: name.clone(),
            driver: Arc::clone(&self.driver),
            reports: self.reports.clone(),
            clock: self.clock,
            period,
            running: before.map_or_else(|| watch::channel(None).0, |eye| eye.running.clone()),
            lying: lying::Lying::new(),
            look_closer: Arc::new(Notify::new()),
            stop: self.stop.clone(),
        }
    }
}

fn look(eye: &Eye) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(eye.clone().poll());
    tasks.spawn(eye.clone().console());
    tasks
}

fn ask(eye: &Eye, asked: &Asked) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(eye.clone().agent(asked.apps.clone().into_iter().collect()));
    for (name, app) in &asked.apps {
        tasks.spawn(eye.clone().application(name.clone(), app.clone()));
        tasks.spawn(lying::follow(eye.for_lying(), name.clone(), app.clone()));
    }
    if let Some(address) = asked.address {
        tasks.spawn(eye.clone().network(address));
    }
    tasks
}

impl Eye {
    /// What it takes to ask for a number of a user's own.
    fn means(&self, questions: &Arc<Semaphore>) -> own::Means {
        own::Means {
            vm: self.vm.clone(),
            driver: Arc::clone(&self.driver),
            numbers: self.reports.numbers.clone(),
            clock: self.clock,
            running: self.running.subscribe(),
            questions: Arc::clone(questions),
            stop: self.stop.clone(),
        }
    }

    fn for_lying(&self) -> lying::Means {
        let (vm, driver, stop) = (self.vm.clone(), Arc::clone(&self.driver), self.stop.clone());
        lying::Means { vm, driver, running: self.running.subscribe(), lying: self.lying.clone(), stop }
    }

    fn ticker(&self, every: Duration) -> tokio::time::Interval {
        let mut ticker = tokio::time::interval(every);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticker
    }

    /// Whether to go on; waits for the next tick.
    async fn next(&self, ticker: &mut tokio::time::Interval) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            _ = ticker.tick() => true,
        }
    }

    async fn tell(&self, glimpse: Glimpse) {
        let subject = match (&glimpse.app, &glimpse.seen) {
            (Some(app), _) => Subject::App(glimpse.vm.clone(), app.clone()),
            (None, Seen::Agent(_) | Seen::Console(_) | Seen::Network(_)) => {
                Subject::Guest(glimpse.vm.clone())
            }
            (None, _) => Subject::Vm(glimpse.vm.clone()),
        };
        let at: Timestamp = self.clock.now();
        let signal = Signal { subject, incarnation: Some(glimpse.incarnation), at, seen: glimpse.seen };
        self.reports.send(signal).await;
    }

    async fn tell_of(&self, incarnation: Incarnation, app: Option<&AppName>, seen: Seen) {
        self.tell(Glimpse { vm: self.vm.clone(), incarnation, app: app.cloned(), seen }).await;
    }

    fn incarnation(&self) -> Option<Incarnation> {
        *self.running.borrow()
    }

    /// Process and hypervisor, once a period.
    async fn poll(self) {
        let mut ticker = self.ticker(self.period);
        while self.next(&mut ticker).await {
            let glimpses = self.driver.poll(&self.vm, QUESTION).await;
            let dead = |g: &Glimpse| matches!(g.seen, Seen::Process(ProcessSign::Exited { .. }));
            let running = glimpses.iter().find(|g| !dead(g)).map(|g| g.incarnation);
            self.running.send_if_modified(|seen| std::mem::replace(seen, running) != running);
            for glimpse in glimpses {
                self.tell(glimpse).await;
            }
        }
    }

    /// The agent, once a period, and at once when an application fails.
    async fn agent(self, apps: Vec<(AppName, AppConfig)>) {
        let mut ticker = self.ticker(self.period);
        let mut health = Instant::now();
        loop {
            let closer = tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticker.tick() => false,
                () = self.look_closer.notified() => true,
            };
            if self.incarnation().is_none() {
                continue;
            }
            let answered = self.ask(&Question::Ping).await;
            if !answered {
                continue;
            }
            let due = closer || health <= Instant::now();
            // Disks before services: a full one explains what ails them.
            if due {
                self.ask(&Question::Disks).await;
            }
            if closer {
                self.look_inside(&apps).await;
            }
            if due {
                self.ask(&Question::Health).await;
                health = Instant::now() + HEALTH_EVERY;
            }
        }
    }

    /// Asks the agent; whether it answered.
    async fn ask(&self, question: &Question) -> bool {
        let limit = if *question == Question::Ping { QUESTION } else { LONG_QUESTION };
        let mut glimpses = self.driver.ask(&self.vm, question, limit).await;
        self.lying.name(&mut glimpses);
        let answered = glimpses.iter().any(|g| !matches!(g.seen, Seen::Agent(AgentSign::NoAnswer { .. })));
        for glimpse in glimpses {
            self.tell(glimpse).await;
        }
        answered
    }

    async fn look_inside(&self, apps: &[(AppName, AppConfig)]) {
        let port = |app: &AppConfig| app.probe.target().map(Target::port);
        let ports: Vec<(AppName, u16)> =
            apps.iter().filter_map(|(name, app)| Some((name.clone(), port(app)?))).collect();
        if !ports.is_empty() {
            self.ask(&Question::Services(ports)).await;
        }
        for (name, app) in apps {
            if let Some(check) = &app.check {
                self.ask(&Question::Check(name.clone(), check.clone())).await;
            }
        }
    }

    /// The serial console, line by line; each incarnation writes a new one.
    async fn console(self) {
        let mut running = self.running.subscribe();
        let mut known = false;
        loop {
            let incarnation = *running.borrow_and_update();
            let path = self.driver.places(&self.vm).console;
            let (Some(incarnation), Some(path)) = (incarnation, path) else {
                if !self.changed(&mut running).await {
                    return;
                }
                continue;
            };
            let (signs, mut seen) = mpsc::channel(QUEUE);
            let feed = self.reports.consoles.feed(Subject::Guest(self.vm.clone()), "console");
            let kept = || self.reports.consoles.place(&feed)?.parse().ok();
            // What was written before we came has been kept, or is of long ago.
            let begin = if known { Begin::At(0) } else { kept().map_or(Begin::End, Begin::Behind) };
            known = true;
            let console = Console::new(path, begin).heard_by(Tap::of(feed, incarnation));
            let following = tokio::spawn(console::follow(console, signs));
            loop {
                tokio::select! {
                    changed = self.changed(&mut running) => {
                        following.abort();
                        if !changed {
                            return;
                        }
                        break;
                    }
                    sign = seen.recv() => match sign {
                        Some(sign) => self.tell_of(incarnation, None, Seen::Console(sign)).await,
                        None => break,
                    },
                }
            }
        }
    }

    /// Waits for another incarnation; `false` when it is time to stop.
    async fn changed(&self, running: &mut watch::Receiver<Option<Incarnation>>) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            changed = running.changed() => changed.is_ok(),
        }
    }

    /// The guest's kernel, over the network.
    async fn network(self, (address, port): (IpAddr, u16)) {
        let mut ticker = self.ticker(self.period);
        while self.next(&mut ticker).await {
            let Some(incarnation) = self.incarnation() else { continue };
            if let Some(sign) = network::ask_kernel(address, port, QUESTION).await {
                self.tell_of(incarnation, None, Seen::Network(sign)).await;
            }
        }
    }
}

/// What drivers tell unasked.
async fn events(eyes: watch::Receiver<Eyes>, driver: Arc<dyn Driver>, stop: CancellationToken) {
    loop {
        let glimpse = tokio::select! {
            () = stop.cancelled() => return,
            glimpse = driver.next_event() => glimpse,
        };
        let Some(eye) = eyes.borrow().get(&glimpse.vm).cloned() else { continue };
        if matches!(glimpse.seen, Seen::Process(ProcessSign::Exited { .. })) {
            eye.running.send_replace(None);
        }
        eye.tell(glimpse).await;
    }
}

fn watch_host(
    config: &Config,
    folders: &[PathBuf],
    reports: &Reports,
    clock: &crate::clock::Clock,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (signs, seen) = mpsc::channel(QUEUE);
    tasks.spawn(host::watch(folders.to_vec(), signs));
    tasks.spawn(tell_of_host(config, reports, clock, seen, Seen::Host));
    tasks
}

fn watch_ourselves(tasks: &mut JoinSet<()>, config: &Config, reports: &Reports, clock: &crate::clock::Clock) {
    let (signs, seen) = mpsc::channel(QUEUE);
    tasks.spawn(lag::watch(signs));
    tasks.spawn(tell_of_host(config, reports, clock, seen, Seen::Observer));
}

/// Makes signals about this host of what is seen.
fn tell_of_host<T: Send + 'static>(
    config: &Config,
    reports: &Reports,
    clock: &crate::clock::Clock,
    mut signs: mpsc::Receiver<T>,
    seen: fn(T) -> Seen,
) -> impl Future<Output = ()> + Send + 'static {
    let (subject, reports, clock) = (Subject::Host(config.host.clone()), reports.clone(), *clock);
    async move {
        while let Some(sign) = signs.recv().await {
            let signal =
                Signal { subject: subject.clone(), incarnation: None, at: clock.now(), seen: seen(sign) };
            reports.send(signal).await;
        }
    }
}

/// The folders whose disks matter: ours, and those of the VMs.
fn folders(config: &Config) -> Vec<PathBuf> {
    let disks = config.vms.values().filter_map(|vm| vm.spec.disk.parent().map(Path::to_owned));
    let mut folders: Vec<PathBuf> = disks.chain([config.state.clone()]).collect();
    folders.sort();
    folders.dedup();
    folders
}
