//! `[logs]` and `[vm.NAME.log.NAME]`: where logs come from.
//!
//! Refuses what would let strangers speak for a VM without anybody having said so (I19).

use super::problem::Problem;
use super::rules::{Alone, Claims};
use super::section::Section;
use super::units::{bare, quote};
use super::{Frame, LogsConfig, settings, vm};
use crate::sense::logs::Format;
use holdfast_core::subject::{AppName, VmName};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

/// So many logs of one VM, or of the host, at most.
const MOST_LOGS: usize = 32;
/// The longest name of an event log (the key of a Windows registry).
const LONGEST_EVENT_LOG: usize = 255;

/// Where logs of this host come from, and where logs are received.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourcesConfig {
    /// What this host's kernel says.
    pub host_kernel: bool,
    /// What this host's journal holds.
    pub host_journal: bool,
    /// Syslog packets.
    pub udp: Option<SocketAddr>,
    /// Syslog connections.
    pub tcp: Option<SocketAddr>,
    /// Syslog connections with TLS.
    pub tls: Option<(SocketAddr, TlsConfig)>,
    /// OTLP.
    pub otlp: OtlpConfig,
    /// Logs of the host, by name.
    pub host: BTreeMap<String, LogConfig>,
}

/// Where OTLP is received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Over HTTP.
    pub http: Option<SocketAddr>,
    /// Over gRPC.
    pub grpc: Option<SocketAddr>,
    /// Both with TLS; `None`: both without.
    pub tls: Option<TlsConfig>,
}

/// What a receiver of connections with TLS has, and asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate and what it stands on.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whose certificates senders must have, if any.
    pub client_ca: Option<PathBuf>,
}

/// One log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Where it comes from.
    pub from: LogFrom,
    /// How its lines are written.
    pub format: Format,
    /// Whose it is; `None`: the guest's, or the host's.
    pub app: Option<AppName>,
}

/// Where a log comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum LogFrom {
    /// Files of this host.
    File(PathBuf),
    /// Files in the guest.
    GuestFile(String),
    /// The guest's journal.
    Journal,
    /// A Windows event log in the guest.
    EventLog(String),
    /// What a command of this host prints.
    Command(Vec<String>),
    /// What is received from these addresses.
    Addresses(Vec<IpAddr>),
}

/// Reads `[logs]`.
pub fn read(top: &Section<'_>, frame: &Frame<'_>) -> (LogsConfig, SourcesConfig) {
    let logs = top.section("logs", "[logs]".into(), settings::LOGS);
    let syslog = logs.section("syslog", "[logs.syslog]".into(), settings::SYSLOG);
    let by_otlp = logs.section("otlp", "[logs.otlp]".into(), settings::OTLP);
    let title = |name: &str| format!("[logs.host.{}]", bare(name));
    let sections = logs.sections("host", title, settings::HOST_LOG);
    let mut host = BTreeMap::new();
    if !too_many(&logs, "host", sections.len()) {
        for (name, section) in sections {
            let Some(name) = vm::name_of::<AppName>(&name, "a log", frame.problems) else { continue };
            if let Some(log) = one(&section, frame, &["file", "command"], &mut |_, _| {}) {
                host.insert(name.to_string(), log);
            }
        }
    }
    let found = SourcesConfig {
        host_kernel: logs.flag("host_kernel"),
        host_journal: logs.flag("host_journal"),
        udp: listen(&syslog, "udp", Safety::Nothing),
        tcp: listen(&syslog, "tcp", Safety::Nothing),
        tls: tls(&syslog, frame),
        otlp: otlp(&by_otlp, frame),
        host,
    };
    apart(&found, &syslog, &by_otlp);
    (LogsConfig { keep: logs.size("keep"), keep_for: logs.time("keep_for") }, found)
}

/// What keeps strangers from sending.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Safety {
    Nothing,
    /// Senders need a certificate.
    Certificates,
}

/// An address to listen at. One that other machines reach must be safe, or declared open (I19).
fn listen(section: &Section<'_>, key: &str, safety: Safety) -> Option<SocketAddr> {
    let written = section.text(key)?;
    let Ok(address) = written.get_ref().parse::<SocketAddr>() else {
        let cause = format!("{} is no address with a port", quote(written.get_ref()));
        let hint =
            format!("as in `{key} = \"127.0.0.1:5514\"` or \"[::1]:5514\"; names of hosts are not looked up");
        section.refuse(Problem::at(written.span(), format!("`{key}` is no address"), cause, hint));
        return None;
    };
    if !address.ip().is_loopback() && safety == Safety::Nothing && !section.flag("open") {
        let error = format!("`{key}` would be open to other machines");
        let cause = format!(
            "{} is not an address of this machine alone, and nothing proves who sends: whoever takes a VM's address \
             could speak for it (I19)",
            address.ip()
        );
        let certificates = match key {
            "http" | "grpc" => "name `cert`, `key` and `client_ca`, ",
            _ if section.has("tls") => "use `tls` with `client_ca`, ",
            _ => "",
        };
        let hint = format!(
            "{certificates}listen on 127.0.0.1, or write `open = true` if that network is yours alone"
        );
        section.refuse(Problem::at(written.span(), error, cause, hint));
    }
    Some(address)
}

/// What has to do with TLS.
const TLS: [&str; 3] = ["cert", "key", "client_ca"];

/// What keeps strangers out where TLS is spoken.
fn safety(section: &Section<'_>) -> Safety {
    if section.has("client_ca") { Safety::Certificates } else { Safety::Nothing }
}

fn tls(section: &Section<'_>, frame: &Frame<'_>) -> Option<(SocketAddr, TlsConfig)> {
    let listen = listen(section, "tls", safety(section));
    if !section.has("tls") {
        for key in TLS {
            section.pointless(key, "there is no `tls` here", "name an address for `tls`, or remove it");
        }
        return None;
    }
    let files = files(section, frame, "tls");
    Some((listen?, files?))
}

fn otlp(section: &Section<'_>, frame: &Frame<'_>) -> OtlpConfig {
    // That there is no TLS without its files is refused below.
    let listen = |key| listen(section, key, safety(section));
    let (http, grpc) = (listen("http"), listen("grpc"));
    if !section.has("http") && !section.has("grpc") {
        for key in TLS {
            section.pointless(
                key,
                "nothing listens here",
                "name an address for `http` or `grpc`, or remove it",
            );
        }
        return OtlpConfig::default();
    }
    let asks = TLS.into_iter().find(|key| section.has(key));
    OtlpConfig { http, grpc, tls: asks.and_then(|asks| files(section, frame, asks)) }
}

/// The files of TLS, which a setting asks for. Refuses if there are not enough.
fn files(section: &Section<'_>, frame: &Frame<'_>, asks: &str) -> Option<TlsConfig> {
    let [cert, key, client_ca] = TLS.map(|key| vm::path(section, key, frame));
    for key in ["cert", "key"] {
        if !section.has(key) {
            let error = format!("{} cannot be served", if asks == "tls" { "`tls`" } else { "TLS" });
            let cause = format!("a server with TLS has a certificate and its key, and `{key}` is missing");
            let hint = format!("write `{key} = \"PATH\"` below {}", section.name);
            section.refuse(Problem::at(section.place(asks), error, cause, hint));
        }
    }
    Some(TlsConfig { cert: cert?, key: key?, client_ca })
}

/// No two may listen at one address.
fn apart(logs: &SourcesConfig, syslog: &Section<'_>, otlp: &Section<'_>) {
    let listeners: [(Option<SocketAddr>, &Section<'_>, &str); 4] = [
        (logs.tcp, syslog, "tcp"),
        (logs.tls.as_ref().map(|(listen, _)| *listen), syslog, "tls"),
        (logs.otlp.http, otlp, "http"),
        (logs.otlp.grpc, otlp, "grpc"),
    ];
    let mut taken: BTreeMap<SocketAddr, Range<usize>> = BTreeMap::new();
    for (address, section, key) in listeners {
        let Some(address) = address.filter(|address| address.port() != 0) else { continue };
        let place = section.place(key);
        if let Some(first) = taken.get(&address) {
            let error = format!("two listen at {address}");
            let problem = Problem::at(place, error, "only one can have a port", "take another port");
            section.refuse(problem.see(first.clone(), "the first"));
        } else {
            taken.insert(address, place);
        }
    }
}

fn too_many(section: &Section<'_>, key: &str, count: usize) -> bool {
    if count <= MOST_LOGS {
        return false;
    }
    let error = format!("{count} logs are configured in {}", section.name);
    let cause = format!("at most {MOST_LOGS} are read");
    let hint = "name several files with one pattern: `file = \"/var/log/orders/*.log\"`";
    section.refuse(Problem::at(section.place(key), error, cause, hint));
    true
}

/// Reads the logs of one VM.
pub fn of_vm(
    vm: &VmName,
    section: &Section<'_>,
    frame: &Frame<'_>,
    apps: &[AppName],
    claims: &mut Claims,
) -> BTreeMap<String, LogConfig> {
    let title = |name: &str| format!("[vm.{vm}.log.{}]", bare(name));
    let sections = section.sections("log", title, settings::LOG);
    let mut logs = BTreeMap::new();
    if too_many(section, "log", sections.len()) {
        return logs;
    }
    for (name, section) in sections {
        let Some(name) = vm::name_of::<AppName>(&name, "a log", frame.problems) else { continue };
        let kinds = ["file", "guest_file", "journal", "event_log", "command", "address"];
        let mut claim = |address, place| claims.alone.push((Alone::Sender(address), vm.clone(), place));
        let Some(mut log) = one(&section, frame, &kinds, &mut claim) else { continue };
        log.app = app(&section, apps);
        logs.insert(name.to_string(), log);
    }
    logs
}

fn app(section: &Section<'_>, apps: &[AppName]) -> Option<AppName> {
    let written = section.text("app")?;
    let found = apps.iter().find(|app| app.as_str() == written.get_ref().as_str()).cloned();
    if found.is_none() {
        let error = format!("there is no application {} in this VM", quote(written.get_ref()));
        let names: Vec<&str> = apps.iter().map(AppName::as_str).collect();
        let near = super::section::nearest(written.get_ref(), &names);
        let hint = near.map(|near| format!("did you mean `{near}`?"));
        let hint = hint.unwrap_or_else(|| "name one of its `app` tables, or remove it".into());
        section.refuse(Problem::at(written.span(), error, "nobody would own this log", hint));
    }
    found
}

/// One log, of one of these kinds.
fn one(
    section: &Section<'_>,
    frame: &Frame<'_>,
    kinds: &[&str],
    claim: &mut dyn FnMut(IpAddr, Range<usize>),
) -> Option<LogConfig> {
    // What is written as it is by default says nothing.
    let says = |key: &&str| match *key {
        "journal" => section.has(key) && section.flag(key),
        "address" => section.has(key) && !section.texts(key).is_empty(),
        key => section.has(key),
    };
    let written: Vec<&str> = kinds.iter().copied().filter(says).collect();
    let ways = kinds.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(", ");
    let &[kind] = written.as_slice() else {
        let (error, place) = match written.as_slice() {
            [] => (format!("{} does not say where it comes from", section.name), section.place("format")),
            [.., last] => (format!("{} comes from two places", section.name), section.place(last)),
        };
        let cause = "a log has exactly one source";
        section.refuse(Problem::at(place, error, cause, format!("write one of {ways}")));
        return None;
    };
    let from = match kind {
        "file" => LogFrom::File(vm::path(section, "file", frame)?),
        "guest_file" => LogFrom::GuestFile(guest_file(section)?),
        "journal" => LogFrom::Journal,
        "event_log" => LogFrom::EventLog(event_log(section)?),
        "command" => LogFrom::Command(section.command("command")?),
        _ => LogFrom::Addresses(addresses(section, claim)?),
    };
    let lines = matches!(from, LogFrom::File(_) | LogFrom::GuestFile(_) | LogFrom::Command(_));
    if !lines {
        let cause = "what comes in this way has its own form";
        section.pointless("format", cause, "remove it");
    }
    Some(LogConfig { from, format: Format::of(section.word("format")), app: None })
}

/// A path in the guest; only its last part may be a pattern.
fn guest_file(section: &Section<'_>) -> Option<String> {
    let written = section.text("guest_file")?;
    let path = written.get_ref();
    let mut letters = path.chars();
    let drive = letters.next().is_some_and(|c| c.is_ascii_alphabetic()) && letters.next() == Some(':');
    let (folder, _) = path.rsplit_once(['/', '\\']).unwrap_or_default();
    let wild = |text: &str| text.contains(['*', '?', '[']);
    let cause = if !path.starts_with('/') && !drive {
        format!("{} does not start at the root of the guest", quote(path))
    } else if wild(folder) {
        "only the last part of a path in a guest may be a pattern".to_owned()
    } else if wild(path) && drive {
        "patterns are looked up with `find`, which a Windows guest has not".to_owned()
    } else if path.ends_with(['/', '\\']) {
        "it is a folder".to_owned()
    } else {
        return Some(path.clone());
    };
    let hint = "as in `guest_file = \"/var/log/postgresql/*.log\"`";
    section.refuse(Problem::at(written.span(), "`guest_file` is no file of a guest", cause, hint));
    None
}

/// The name of an event log: it becomes an argument of a command in the guest.
fn event_log(section: &Section<'_>) -> Option<String> {
    let written = section.text("event_log")?;
    let name = written.get_ref();
    let fits = |c: char| c.is_ascii_alphanumeric() || " -_./()".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && name.chars().all(fits) && name.len() <= LONGEST_EVENT_LOG {
        return Some(name.clone());
    }
    let cause = "its name starts with a letter and goes on with letters, digits, blanks and -_./()";
    let hint = "as in \"System\", \"Application\" or \"Microsoft-Windows-Ntfs/Operational\"";
    section.refuse(Problem::at(written.span(), "`event_log` is no name of an event log", cause, hint));
    None
}

fn addresses(section: &Section<'_>, claim: &mut dyn FnMut(IpAddr, Range<usize>)) -> Option<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    let written = section.texts("address");
    for text in &written {
        match text.get_ref().parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() && !address.is_multicast() => {
                claim(address.to_canonical(), text.span());
                addresses.push(address.to_canonical());
            }
            Ok(_) | Err(_) => {
                let cause = format!("{} is not the address of one machine", quote(text.get_ref()));
                let hint = "as in `address = [\"10.0.0.5\"]`; names of hosts are not looked up";
                section.refuse(Problem::at(text.span(), "`address` holds no address", cause, hint));
            }
        }
    }
    (!addresses.is_empty()).then_some(addresses)
}
