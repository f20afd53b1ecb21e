//! All sources that the configuration names, each a task of its own. One that changes is started anew; the others go
//! on undisturbed.

use super::child::{self, ProgramLog};
use super::file::{self, FileLog};
use super::guest::{self, GuestLog};
use super::means::{Feeds, Means, Places};
use super::otlp::{self, Speech};
use super::senders::Senders;
use super::syslog::{self, Listen};
use super::{Format, aside, kernel};
use crate::config::{Config, LogConfig, LogFrom};
use holdfast_core::subject::{HostName, Subject, VmName};
use holdfast_drivers::Driver;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// One source, as it is configured.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    File(FileLog),
    Guest(GuestLog),
    Program(ProgramLog),
    Kernel,
    Syslog(Listen),
    Otlp(otlp::Listen),
}

/// All sources there are. They end when this is dropped.
pub struct Sources {
    means: Means,
    host: HostName,
    syslog: Senders,
    otlp: Senders,
    aside: Handle,
    running: Vec<Running>,
    _ends: DropGuard,
}

struct Running {
    source: Source,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

impl Sources {
    /// Starts all that the configuration names. `places` tells at any time where a source goes on: the place that
    /// came with its last record that is kept.
    #[must_use]
    pub fn start(
        config: &Config,
        driver: &Arc<dyn Driver>,
        feeds: &Feeds,
        places: Places,
        stop: &CancellationToken,
    ) -> Self {
        let means = Means::new(feeds, &places, driver, stop.child_token());
        let (syslog, otlp) = (Senders::default(), Senders::default());
        let (aside, ends) = (aside::start(means.stop.clone()), means.stop.clone().drop_guard());
        let (host, running) = (config.host.clone(), Vec::new());
        let mut sources = Self { means, host, syslog, otlp, aside, running, _ends: ends };
        sources.configure(config);
        sources
    }

    /// Reads what is named now, and no longer what is not. What stays as it is goes on undisturbed.
    pub fn configure(&mut self, config: &Config) {
        let logs = &config.sources;
        let whose = senders(config);
        let heard = |listens: bool| if listens { whose.clone() } else { BTreeMap::new() };
        let syslog = logs.udp.is_some() || logs.tcp.is_some() || logs.tls.is_some();
        self.syslog.configure(&self.means, "syslog", &heard(syslog));
        let otlp = logs.otlp.http.is_some() || logs.otlp.grpc.is_some();
        self.otlp.configure(&self.means, "otlp", &heard(otlp));
        let wanted = wanted(config, self.means.driver.as_ref());
        self.running.retain(|running| wanted.contains(&running.source));
        for source in wanted {
            if !self.running.iter().any(|running| running.source == source) {
                self.running.push(self.run(source));
            }
        }
    }

    fn run(&self, source: Source) -> Running {
        let stop = self.means.stop.child_token();
        let means = Means { stop: stop.clone(), ..self.means.clone() };
        let (host, syslog, otlp) = (self.host.clone(), self.syslog.clone(), self.otlp.clone());
        let task = match source.clone() {
            Source::File(log) => tokio::spawn(file::follow(log, means)),
            Source::Guest(log) => tokio::spawn(guest::follow(log, means)),
            Source::Program(log) => tokio::spawn(child::follow(log, means)),
            Source::Kernel => tokio::spawn(kernel::follow(host, means)),
            Source::Syslog(listen) => self.aside.spawn(syslog::receive(listen, host, syslog, means)),
            Source::Otlp(listen) => self.aside.spawn(otlp::receive(listen, host, otlp, means)),
        };
        Running { source, stop, task }
    }
}

/// What is to be read, no source twice.
fn wanted(config: &Config, driver: &dyn Driver) -> Vec<Source> {
    let mut wanted = Vec::new();
    let logs = &config.sources;
    let host = Subject::Host(config.host.clone());
    if logs.host_kernel {
        wanted.push(Source::Kernel);
    }
    if logs.host_journal {
        let (subject, name) = (host.clone(), "journal".to_owned());
        wanted.push(Source::Program(ProgramLog { subject, name, what: child::What::Journal }));
    }
    let tls = logs.tls.clone().map(|(address, tls)| Listen::Tls(address, tls));
    let listens = [logs.udp.map(Listen::Udp), logs.tcp.map(Listen::Tcp), tls];
    wanted.extend(listens.into_iter().flatten().map(Source::Syslog));
    for (speech, address) in [(Speech::Http, logs.otlp.http), (Speech::Grpc, logs.otlp.grpc)] {
        let tls = logs.otlp.tls.clone();
        wanted.extend(address.map(|address| Source::Otlp(otlp::Listen { speech, address, tls })));
    }
    for (name, log) in &logs.host {
        wanted.extend(of_host(name, log, &host));
    }
    for (vm, meant) in &config.vms {
        if let Some(path) = driver.places(vm).log {
            let (subject, name) = (Subject::Vm(vm.clone()), Some("qemu"));
            wanted.push(Source::File(FileLog { subject, name, path, format: Format::Auto }));
        }
        for (name, log) in &meant.logs {
            wanted.extend(of_guest(vm, name, log));
        }
    }
    wanted
}

fn of_host(name: &str, log: &LogConfig, subject: &Subject) -> Option<Source> {
    let (subject, format) = (subject.clone(), log.format);
    match &log.from {
        LogFrom::File(path) => {
            Some(Source::File(FileLog { subject, name: None, path: path.clone(), format }))
        }
        LogFrom::Command(argv) => {
            let (name, what) = (format!("command {name}"), child::What::Command(argv.clone(), format));
            Some(Source::Program(ProgramLog { subject, name, what }))
        }
        LogFrom::GuestFile(_) | LogFrom::Journal | LogFrom::EventLog(_) | LogFrom::Addresses(_) => None,
    }
}

fn of_guest(vm: &VmName, name: &str, log: &LogConfig) -> Option<Source> {
    let subject = subject(vm, log);
    let what = match &log.from {
        LogFrom::File(_) | LogFrom::Command(_) => return of_host(name, log, &subject),
        LogFrom::GuestFile(path) => guest::What::File(path.clone(), log.format),
        LogFrom::Journal => guest::What::Journal,
        LogFrom::EventLog(name) => guest::What::Events(name.clone()),
        LogFrom::Addresses(_) => return None, // they only say whose a received record is
    };
    Some(Source::Guest(GuestLog { vm: vm.clone(), subject, what }))
}

fn subject(vm: &VmName, log: &LogConfig) -> Subject {
    match &log.app {
        Some(app) => Subject::App(vm.clone(), app.clone()),
        None => Subject::Guest(vm.clone()),
    }
}

/// Whose the records from an address are: as configured, and else the VM's whose tap network has it, if no other
/// VM claims the same.
fn senders(config: &Config) -> BTreeMap<IpAddr, Subject> {
    let (mut found, mut twice) = (BTreeMap::new(), BTreeSet::new());
    for (name, vm) in &config.vms {
        let Some((address, _)) = super::super::convert::address(vm) else { continue };
        if found.insert(address.to_canonical(), Subject::Guest(name.clone())).is_some() {
            twice.insert(address.to_canonical());
        }
    }
    found.retain(|address, _| !twice.contains(address));
    for (name, vm) in &config.vms {
        for log in vm.logs.values() {
            if let LogFrom::Addresses(addresses) = &log.from {
                found.extend(addresses.iter().map(|address| (*address, subject(name, log))));
            }
        }
    }
    found
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::health::State;
    use super::super::testing::{FakeGuest, Lab};
    use super::*;
    use std::io::Write;
    use tokio::net::UdpSocket;

    fn config(text: &str) -> Config {
        let whole = format!("host = \"atlas\"\n{text}\n[vm.a]\ndisk = \"/a.raw\"\n");
        Config::parsed(&whole)
    }

    fn tap(vm: &str, address: &str) -> String {
        format!(
            "[vm.{vm}]\ndisk = \"/{vm}.raw\"\nnetwork = \"tap:tap-{vm}\"\n\
             [vm.{vm}.app.web]\nprobe = \"tcp://{address}:80\"\n"
        )
    }

    #[test]
    fn an_address_of_a_tap_network_is_known_unless_two_have_it_and_a_configured_one_counts_more() {
        let text = [tap("b", "10.0.0.5"), tap("c", "10.0.0.6"), tap("d", "10.0.0.6")].concat()
            + "[vm.d.log.sent]\naddress = [\"10.0.0.5\", \"fd00::1\"]\napp = \"web\"\n";
        let subjects: Vec<String> =
            senders(&config(&text)).iter().map(|(at, whose)| format!("{at} {whose}")).collect();
        assert_eq!(subjects, ["10.0.0.5 app d/web", "fd00::1 app d/web"]);
        let text = tap("b", "10.0.0.5");
        assert_eq!(senders(&config(&text)).values().next().unwrap().to_string(), "guest b");
    }

    #[tokio::test]
    async fn what_changes_is_started_anew_and_what_stays_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.log"), folder.path().join("two.log"));
        let port = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let text = |second: &str| {
            format!(
                "[logs]\nhost_kernel = false\n[logs.syslog]\nudp = \"127.0.0.1:{port}\"\n\
                 [logs.host.one]\nfile = \"{}\"\n{second}\n[vm.a.log.sent]\naddress = [\"127.0.0.1\"]\n",
                one.display()
            )
        };
        let mut lab = Lab::new(FakeGuest::away());
        let means = &lab.means;
        let mut sources = Sources::start(
            &config(&text("")),
            &means.driver,
            &means.feeds,
            Arc::clone(&means.places),
            &means.stop,
        );
        let first = format!("file {}", one.display());
        lab.until(&first, |reading| reading.state.why() == Some("no such file")).await;
        std::fs::File::create(&one).unwrap().write_all(b"one\n").unwrap();
        assert_eq!(lab.texts(1).await, ["one"]);
        let second = format!("[logs.host.two]\nfile = \"{}\"", two.display());
        sources.configure(&config(&text(&second)));
        lab.until(&format!("file {}", two.display()), |_| true).await;
        assert_eq!(lab.until(&first, |_| true).await.records, 1, "it went on");
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        lab.until(&format!("syslog udp 127.0.0.1:{port}"), |reading| reading.state == State::Following).await;
        socket.send_to(b"<11>two", format!("127.0.0.1:{port}")).await.unwrap();
        let entry = lab.next().await;
        assert_eq!((entry.record.text.as_str(), entry.subject.to_string()), ("two", "guest a".into()));
        sources.configure(&config("[logs]\nhost_kernel = false\n"));
        for _ in 0..1_000 {
            if lab.means.feeds.registry.read().is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("{:?}", lab.means.feeds.registry.read());
    }
}
