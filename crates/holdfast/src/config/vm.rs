//! `[vm.NAME]`: one VM, its hardware, its network and what is wanted for it.

use super::app::{AppConfig, Probe, Secret, Target};
use super::files::{FileUse, Role};
use super::problem::{Problem, Problems};
use super::rules::{Alone, Claims};
use super::section::{Section, Text};
use super::units::{bare, quote};
use super::{Config, Frame, MOST_APPS, VmConfig, logs, number, probe, protect, rules, settings};
use holdfast_core::isolate::Isolation;
use holdfast_core::policy::{AppPolicy, Budget, Mode, VmPolicy};
use holdfast_core::subject::{AppName, VmName};
use holdfast_drivers::qemu::{Accel, Forward, Kernel, Network, QemuVm};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The longest kernel command line, in bytes (x86 takes 2048 with its final NUL).
const LONGEST_CMDLINE: usize = 2_047;
/// The longest name of a network interface (`IFNAMSIZ` without its final NUL).
const LONGEST_INTERFACE: usize = 15;
/// The longest name of a user (useradd(8)).
const LONGEST_USER: usize = 32;

/// Reads one VM; `None` if it cannot be made. Notes what is wrong, and what it claims.
pub fn read(
    name: &VmName,
    section: &Section<'_>,
    frame: &Frame<'_>,
    claims: &mut Claims,
    apps: &mut usize,
) -> Option<VmConfig> {
    let before = frame.problems.count();
    section.word("driver"); // there is one so far
    let disk = path(section, "disk", frame);
    if disk.is_none() && !section.has("disk") {
        let error = format!("vm `{name}` has no disk");
        let cause = "it is the one setting that has no default";
        let hint = format!("write `disk = \"PATH\"` below {}", section.name);
        section.refuse(Problem::at(section.place("disk"), error, cause, hint));
    }
    let mut network = network(name, section, claims);
    let (apps, places) = read_apps(name, section, frame, &mut network, claims, apps);
    let names: Vec<AppName> = places.iter().map(|(name, _)| name.clone()).collect();
    let logs = logs::of_vm(name, section, frame, &names, claims);
    let numbers = number::of_vm(name, section, frame, &apps, claims);
    let machine = (section.size("memory") >> 20 << 20, section.count("cpus"));
    let protect = protect::read(name, section, machine, claims);
    let policy = policy(section, frame, &apps, &places, network == Network::None, before);
    let kernel = kernel(section, frame);
    let images: Vec<Text> = section.texts("images");
    claims.needs.push((name.clone(), policy.autostart, section.texts("needs")));
    let mut claim = |role, path: &PathBuf, place| {
        claims.files.push(FileUse { vm: name.clone(), role, path: path.clone(), place });
    };
    let spec = QemuVm {
        name: name.clone(),
        disk: disk?,
        images: images.iter().map(|image| frame.folder.join(image.get_ref())).collect(),
        memory: machine.0,
        cpus: machine.1,
        accel: match section.word("accel") {
            "kvm" => Accel::Kvm,
            "tcg" => Accel::Tcg,
            _ => Accel::Auto,
        },
        kernel,
        network,
        user: user(section).or_else(|| frame.user.clone()),
        program: path(section, "qemu", frame),
        memory_state: None,
    };
    claim(Role::Disk, &spec.disk, section.place("disk"));
    for (path, image) in spec.images.iter().zip(&images) {
        claim(Role::Image, path, image.span());
    }
    for (role, path, key) in programs(&spec) {
        claim(role, path, section.place(key));
    }
    let disk_path = spec.disk.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    let policy = VmPolicy { disk_path, protect: protect.schedules(), ..policy };
    Some(VmConfig { spec, policy, apps, logs, numbers, protect })
}

/// All files that a VM is started from.
pub fn files(spec: &QemuVm) -> impl Iterator<Item = &PathBuf> {
    let programs = programs(spec).map(|(_, path, _)| path);
    std::iter::once(&spec.disk).chain(&spec.images).chain(programs)
}

/// What runs it and what it boots, and where that is written.
fn programs(spec: &QemuVm) -> impl Iterator<Item = (Role, &PathBuf, &'static str)> {
    let kernel = spec.kernel.as_ref().map(|kernel| (Role::Kernel, &kernel.image, "kernel"));
    let initrd = spec.kernel.as_ref().and_then(|kernel| kernel.initrd.as_ref());
    let initrd = initrd.map(|initrd| (Role::Initrd, initrd, "initrd"));
    let qemu = spec.program.as_ref().map(|program| (Role::Qemu, program, "qemu"));
    [kernel, initrd, qemu].into_iter().flatten()
}

/// Where each application and its time limit are written.
type AppPlaces = Vec<(AppName, std::ops::Range<usize>)>;

fn read_apps(
    vm: &VmName,
    section: &Section<'_>,
    frame: &Frame<'_>,
    network: &mut Network,
    claims: &mut Claims,
    count: &mut usize,
) -> (BTreeMap<AppName, AppConfig>, AppPlaces) {
    let title = |app: &str| format!("[vm.{vm}.app.{}]", bare(app));
    let sections = section.sections("app", title, settings::APP);
    let mut apps = BTreeMap::new();
    let mut places = Vec::new();
    let before = *count;
    *count += sections.len();
    if *count > MOST_APPS {
        if before <= MOST_APPS {
            let error = format!("more than {MOST_APPS} applications are configured");
            let cause = "their probes would take more than one host has to give";
            section.refuse(Problem::at(section.place("app"), error, cause, "spread the VMs over more hosts"));
        }
        return (apps, places);
    }
    for (name, section) in sections {
        let Some(name) = name_of::<AppName>(&name, "an application", frame.problems) else { continue };
        places.push((name.clone(), section.place("timeout")));
        if let Some(app) = probe::read(vm, &section, frame, network, claims) {
            lead_in(network, &app.probe);
            apps.insert(name, app);
        }
    }
    (apps, places)
}

/// Makes the guest's port that a probe asks reachable, unless it is already.
fn lead_in(network: &mut Network, probe: &Probe) {
    if let (Network::User(forwards), Some(Target::Guest(port))) = (network, probe.target())
        && !forwards.iter().any(|forward| forward.guest == *port)
    {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        forwards.push(Forward { listen, guest: *port });
    }
}

fn policy(
    section: &Section<'_>,
    frame: &Frame<'_>,
    apps: &BTreeMap<AppName, AppConfig>,
    places: &AppPlaces,
    wireless: bool,
    problems_before: usize,
) -> VmPolicy {
    let title = section.name.replace(']', ".recover]");
    let recover = section.section("recover", title, settings::RECOVER);
    let policy = VmPolicy {
        mode: if section.word("mode") == "observe" { Mode::Observe } else { Mode::Armed },
        autostart: section.flag("autostart"),
        apps: apps
            .iter()
            .map(|(name, app)| (name.clone(), AppPolicy { can_restart: app.restart.is_some() }))
            .collect(),
        budget: Budget {
            tries: recover.count("tries"),
            within: recover.time("within"),
            backoff: recover.time("backoff"),
        },
        verify_for: recover.time("verify"),
        boot_limit: recover.time("boot_limit"),
        hang_after: recover.time("hang_after"),
        needs: section.texts("needs").iter().filter_map(|name| name.get_ref().parse().ok()).collect(),
        max_data_loss: recover.time("max_data_loss"),
        isolate: match recover.word("isolate") {
            "network" => Isolation::Network,
            "pause" => Isolation::Pause,
            _ => Isolation::None,
        },
        ..VmPolicy::default()
    };
    if wireless && policy.isolate == Isolation::Network {
        let cause = "it has no network: its `network` is \"none\"";
        recover.pointless("isolate", cause, "write `isolate = \"pause\"`, or leave it out");
    }
    // Times that were refused are not compared: the default stands in for them.
    if frame.problems.count() == problems_before {
        rules::times(&policy, &recover, frame);
        for (name, place) in places {
            rules::timeout(name, apps[name].timeout, place, &policy, section);
        }
    }
    policy
}

fn kernel(section: &Section<'_>, frame: &Frame<'_>) -> Option<Kernel> {
    let cmdline = section.text_or_default("cmdline");
    if cmdline.len() > LONGEST_CMDLINE || cmdline.contains(char::is_control) {
        let cause = format!("a kernel takes one line of at most {LONGEST_CMDLINE} bytes");
        let error = "`cmdline` is no kernel command line";
        section.refuse(Problem::at(
            section.place("cmdline"),
            error,
            cause,
            "shorten it, or write it on one line",
        ));
    }
    let image = path(section, "kernel", frame);
    let initrd = path(section, "initrd", frame);
    if !section.has("kernel") {
        for key in ["initrd", "cmdline"] {
            section.pointless(
                key,
                "no `kernel` is named, so the disk boots itself",
                "name a `kernel`, or remove it",
            );
        }
    }
    Some(Kernel { image: image?, initrd, cmdline })
}

fn network(name: &VmName, section: &Section<'_>, claims: &mut Claims) -> Network {
    let written = section.text_or_default("network");
    let (kind, interface) = written.split_once(':').map_or((written.as_str(), None), |(k, i)| (k, Some(i)));
    if kind != "tap" {
        section.pointless(
            "mac",
            "only a tap network has one",
            "remove it, or write `network = \"tap:NAME\"`",
        );
    }
    if kind != "user" {
        let hint = "remove it, or write `network = \"user\"`";
        section.pointless("forward", "only user networking forwards ports", hint);
    }
    match (kind, interface) {
        ("user", None) => Network::User(forwards(name, section, claims)),
        ("none", None) => Network::None,
        ("tap", Some(interface)) if is_interface(interface) => {
            let place = section.place("network");
            claims.alone.push((Alone::Tap(interface.to_owned()), name.clone(), place));
            Network::Tap { interface: interface.to_owned(), mac: mac(name, section, claims) }
        }
        ("tap", _) => {
            let cause =
                "`tap:` is followed by the name of an interface, 1 to 15 of a-z, 0-9, `-`, `_` and `.`";
            let hint = "as in `network = \"tap:tap0\"`; make it with `ip tuntap add tap0 mode tap`";
            section.refuse(Problem::at(
                section.place("network"),
                "`network` names no interface",
                cause,
                hint,
            ));
            Network::None
        }
        _ => {
            let cause = format!("{} is not known here", quote(&written));
            let hint = "write \"user\", \"tap:NAME\" or \"none\"; by default \"user\"";
            section.refuse(Problem::at(section.place("network"), "`network` is no network", cause, hint));
            Network::None
        }
    }
}

fn is_interface(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=LONGEST_INTERFACE).contains(&name.len()) && name.chars().all(fits) && !name.starts_with(['.', '-'])
}

fn mac(name: &VmName, section: &Section<'_>, claims: &mut Claims) -> String {
    let [a, b, c, _] = crc32fast::hash(name.as_str().as_bytes()).to_be_bytes();
    let own = format!("52:54:00:{a:02x}:{b:02x}:{c:02x}");
    let mac = match section.text("mac") {
        None => own,
        Some(written) => {
            let mac = written.get_ref().to_ascii_lowercase();
            let parts: Vec<Option<u8>> = mac
                .split(':')
                .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten())
                .collect();
            let cause = match parts.as_slice() {
                [Some(first), Some(_), Some(_), Some(_), Some(_), Some(_)] if first % 2 == 1 => {
                    Some("its first byte is odd: that is a group, not one machine")
                }
                [Some(0), Some(0), Some(0), Some(0), Some(0), Some(0)] => Some("it is all zeroes"),
                [Some(_), Some(_), Some(_), Some(_), Some(_), Some(_)] => None,
                _ => Some("a MAC address is six pairs of hexadecimal digits, parted by colons"),
            };
            if let Some(cause) = cause {
                let hint = format!("as in `mac = \"{own}\"`, which is the default");
                section.refuse(Problem::at(written.span(), "`mac` is no MAC address", cause, hint));
            }
            mac
        }
    };
    claims.alone.push((Alone::Mac(mac.clone()), name.clone(), section.place("mac")));
    mac
}

fn forwards(name: &VmName, section: &Section<'_>, claims: &mut Claims) -> Vec<Forward> {
    let mut forwards = Vec::new();
    for written in section.texts("forward") {
        match forward(written.get_ref()) {
            Ok(forward) => {
                if forward.listen.port() != 0 {
                    claims.alone.push((Alone::Port(forward.listen), name.clone(), written.span()));
                }
                forwards.push(forward);
            }
            Err(cause) => {
                let hint = "write [ADDRESS:]PORT:GUEST_PORT, as in \"127.0.0.1:15432:5432\"";
                section.refuse(Problem::at(written.span(), "`forward` is not understood", cause, hint));
            }
        }
    }
    forwards
}

/// Reads `127.0.0.1:15432:5432` or `15432:5432`; without an address, this machine alone may use it.
fn forward(text: &str) -> Result<Forward, String> {
    let mut parts = text.rsplitn(3, ':');
    let port = |part: Option<&str>, what: &str, least: u16| {
        let part = part.ok_or_else(|| format!("there is no {what}"))?;
        let port = if part.chars().all(|c| c.is_ascii_digit()) { part.parse().ok() } else { None };
        port.filter(|port: &u16| *port >= least)
            .ok_or_else(|| format!("{} is no {what}: those go from {least} to 65535", quote(part)))
    };
    let guest = port(parts.next(), "guest port", 1)?;
    let listen = port(parts.next(), "port", 0)?;
    let address = match parts.next() {
        None => Ipv4Addr::LOCALHOST,
        Some(address) => match address.trim_matches(['[', ']']).parse() {
            Ok(IpAddr::V4(address)) => address,
            Ok(IpAddr::V6(_)) => return Err("QEMU's user networking forwards IPv4 only".into()),
            Err(_) => return Err(format!("{} is no IPv4 address of this host", quote(address))),
        },
    };
    Ok(Forward { listen: SocketAddr::from((address, listen)), guest })
}

/// A path, absolute.
pub fn path(section: &Section<'_>, key: &str, frame: &Frame<'_>) -> Option<PathBuf> {
    section.text(key).map(|path| frame.folder.join(path.get_ref()))
}

/// The name of a user, if one is written.
pub fn user(section: &Section<'_>) -> Option<String> {
    let user = section.text("user")?;
    let name = user.get_ref();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if !starts || !name.chars().all(fits) || name.len() > LONGEST_USER {
        let cause =
            "a user's name starts with a small letter and goes on with a-z, 0-9, `-` and `_`, at most 32";
        section.refuse(Problem::at(
            user.span(),
            "`user` is no name of a user",
            cause,
            "as in `user = \"holdfast-qemu\"`",
        ));
    }
    Some(user.into_inner())
}

/// A name that is written as a setting.
pub fn name<N: FromStr<Err = holdfast_core::subject::NameError>>(
    section: &Section<'_>,
    key: &str,
) -> Option<N> {
    let written = section.text(key)?;
    name_of(&written, &format!("a {key}"), section.problems())
}

/// A name from a text (A02).
pub fn name_of<N: FromStr<Err = holdfast_core::subject::NameError>>(
    written: &Text,
    what: &str,
    problems: &Problems,
) -> Option<N> {
    match written.get_ref().parse() {
        Ok(name) => Some(name),
        Err(cause) => {
            let error = format!("{} is no name of {what}", quote(written.get_ref()));
            let strange = written.get_ref().chars().find(|c| !c.is_ascii());
            let strange =
                strange.map(|c| format!(", and {c:?} is U+{:04X}", u32::from(c))).unwrap_or_default();
            let hint = "take a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit, at most 48";
            problems.push(Problem::at(written.span(), error, format!("{cause}{strange}"), hint));
            None
        }
    }
}

/// Passwords that the daemon would look for in vain, if it had this environment.
pub fn warn_of_unset_variables(config: &Config, warnings: &Problems) {
    for (vm, app, name) in config.vms.iter().flat_map(|(vm, meant)| {
        meant.apps.iter().filter_map(move |(app, meant)| match &meant.password {
            Some(Secret::Variable(name)) => Some((vm, app, name)),
            Some(Secret::File(_)) | None => None,
        })
    }) {
        if std::env::var_os(name).is_none() {
            let error = format!("the password of {vm}/{app} is not set here");
            let cause = format!("there is no environment variable `{name}`");
            warnings.push(Problem::whole(
                error,
                cause,
                "set it where the daemon is started, or use `password_file`",
            ));
        }
    }
}
