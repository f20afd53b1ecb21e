//! Keeps looking: one small task per VM and channel, each with its own pace, none waiting for another.
//!
//! A task that is late says nothing about its VM: silence is only ever a question of ours that was
//! asked in time and not answered (I10).

use super::console::{self, Begin, Console};
use super::network::{self, Way};
use super::{host, lag, probe};
use crate::config::{AppConfig, Config, Target, VmConfig};
use crate::decide::Inbox;
use holdfast_core::input::Input;
use holdfast_core::lease::Incarnation;
use holdfast_core::signal::{AgentSign, AppSign, NetworkSign, ProcessSign, Seen, Signal};
use holdfast_core::subject::{AppName, Subject, VmName};
use holdfast_core::time::Timestamp;
use holdfast_drivers::qemu::Network;
use holdfast_drivers::{Driver, Glimpse, Question};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// One question to hypervisor or agent takes at most so long.
const QUESTION: Duration = Duration::from_secs(1);
/// How full the guest's disks are, and how much memory is left, is asked this often.
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// Signs of the host that may wait; it is asked about once a second.
const QUEUE: usize = 64;

/// What the tasks of one VM share.
#[derive(Clone)]
struct Eye {
    vm: VmName,
    driver: Arc<dyn Driver>,
    inbox: Inbox,
    clock: crate::clock::Clock,
    period: Duration,
    /// The incarnation seen last; `None`: it does not run, so nobody asks.
    running: watch::Sender<Option<Incarnation>>,
    /// An application failed its probe: the agent should look from inside at once.
    look_closer: Arc<Notify>,
    stop: CancellationToken,
}

/// Starts watching everything that the configuration names.
pub fn start(
    config: &Arc<Config>,
    driver: &Arc<dyn Driver>,
    inbox: &Inbox,
    clock: &crate::clock::Clock,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut eyes = Vec::new();
    for (name, vm) in &config.vms {
        let eye = Eye {
            vm: name.clone(),
            driver: Arc::clone(driver),
            inbox: inbox.clone(),
            clock: *clock,
            period: config.period,
            running: watch::channel(None).0,
            look_closer: Arc::new(Notify::new()),
            stop: stop.clone(),
        };
        watch_vm(&mut tasks, &eye, vm);
        eyes.push(eye);
    }
    tasks.spawn(events(eyes, Arc::clone(driver), stop.clone()));
    watch_host(&mut tasks, config, inbox, clock);
    tasks
}

fn watch_vm(tasks: &mut JoinSet<()>, eye: &Eye, vm: &VmConfig) {
    tasks.spawn(eye.clone().poll());
    tasks.spawn(eye.clone().agent(vm.apps.iter().map(|(name, app)| (name.clone(), app.clone())).collect()));
    tasks.spawn(eye.clone().console());
    for (name, app) in &vm.apps {
        tasks.spawn(eye.clone().application(name.clone(), app.clone()));
    }
    if let Some(address) = address(vm) {
        tasks.spawn(eye.clone().network(address));
    }
}

impl Eye {
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
        let _ = self.inbox.send(Input::Signal(signal)).await; // stopping: nobody needs it any more
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
        let mut health = tokio::time::Instant::now();
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
            // The guest's own health before its services: what ails the guest explains what ails a service.
            if answered && (closer || health <= tokio::time::Instant::now()) {
                self.ask(&Question::Health).await;
                health = tokio::time::Instant::now() + HEALTH_EVERY;
            }
            if answered && closer {
                self.look_inside(&apps).await;
            }
        }
    }

    /// Asks the agent; whether it answered.
    async fn ask(&self, question: &Question) -> bool {
        let glimpses = self.driver.ask(&self.vm, question, QUESTION).await;
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

    /// One application, once a period, each time anew.
    async fn application(self, name: AppName, app: AppConfig) {
        let mut ticker = self.ticker(self.period);
        while self.next(&mut ticker).await {
            let Some(incarnation) = self.incarnation() else { continue };
            let sign = match super::convert::probe(&app, &self.driver.places(&self.vm)) {
                Ok(probe) => probe::probe(&probe, app.timeout).await,
                Err(failed) => failed,
            };
            if matches!(sign, AppSign::Failed { .. }) {
                self.look_closer.notify_one();
            }
            self.tell_of(incarnation, Some(&name), Seen::Application(sign)).await;
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
            // What was written before we came has been seen, or is of long ago.
            let begin = if std::mem::replace(&mut known, true) { Begin::At(0) } else { Begin::End };
            let (signs, mut seen) = mpsc::channel(QUEUE);
            let following = tokio::spawn(console::follow(Console::new(path, begin), signs));
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
            if let Some(sign) = ask_kernel(address, port).await {
                self.tell_of(incarnation, None, Seen::Network(sign)).await;
            }
        }
    }
}

/// What drivers tell unasked.
async fn events(eyes: Vec<Eye>, driver: Arc<dyn Driver>, stop: CancellationToken) {
    loop {
        let glimpse = tokio::select! {
            () = stop.cancelled() => return,
            glimpse = driver.next_event() => glimpse,
        };
        let Some(eye) = eyes.iter().find(|eye| eye.vm == glimpse.vm) else { continue };
        if matches!(glimpse.seen, Seen::Process(ProcessSign::Exited { .. })) {
            eye.running.send_replace(None);
        }
        eye.tell(glimpse).await;
    }
}

fn watch_host(tasks: &mut JoinSet<()>, config: &Arc<Config>, inbox: &Inbox, clock: &crate::clock::Clock) {
    let subject = Subject::Host(config.host.clone());
    let told = {
        let (inbox, clock) = (inbox.clone(), *clock);
        move |seen: Seen| {
            let signal = Signal { subject: subject.clone(), incarnation: None, at: clock.now(), seen };
            let inbox = inbox.clone();
            async move {
                let _ = inbox.send(Input::Signal(signal)).await; // stopping: nobody needs it any more
            }
        }
    };
    let (signs, mut seen) = mpsc::channel(QUEUE);
    tasks.spawn(host::watch(folders(config), signs));
    let host_told = told.clone();
    tasks.spawn(async move {
        while let Some(sign) = seen.recv().await {
            host_told(Seen::Host(sign)).await;
        }
    });
    let (signs, mut seen) = mpsc::channel(QUEUE);
    tasks.spawn(lag::watch(signs));
    tasks.spawn(async move {
        while let Some(sign) = seen.recv().await {
            told(Seen::Observer(sign)).await;
        }
    });
}

/// Where the guest's own kernel is reached: on a tap network, at the address its applications are asked at.
/// Behind user networking the host itself would answer, so nobody is asked.
fn address(vm: &VmConfig) -> Option<(IpAddr, u16)> {
    if !matches!(vm.spec.network, Network::Tap { .. }) {
        return None;
    }
    vm.apps.values().find_map(|app| match app.probe.target()? {
        Target::Address(host, port) => Some((host.parse().ok()?, *port)),
        Target::Guest(_) => None,
    })
}

/// A kernel that answers an echo or a connection lives; a neighbour entry can only say that it does not.
async fn ask_kernel(address: IpAddr, port: u16) -> Option<NetworkSign> {
    let half = QUESTION / 2;
    let mut sign = network::look(Way::Ping(address), half).await;
    if !matches!(sign, Some(NetworkSign::Answered { .. })) {
        sign = network::look(Way::Tcp(SocketAddr::new(address, port)), half).await.or(sign);
    }
    match (sign, address) {
        (None, IpAddr::V4(address)) => network::look(Way::Arp(address), half).await,
        (sign, _) => sign,
    }
}

/// The folders whose disks matter: ours, and those of the VMs.
fn folders(config: &Config) -> Vec<std::path::PathBuf> {
    let disks = config.vms.values().filter_map(|vm| vm.spec.disk.parent().map(std::path::Path::to_owned));
    let mut folders: Vec<std::path::PathBuf> = disks.chain([config.state.clone()]).collect();
    folders.sort();
    folders.dedup();
    folders
}
