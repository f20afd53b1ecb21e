//! `[vm.NAME.app.NAME]`: how an application is asked, restarted and checked.

use super::app::{AppConfig, Expect, Pattern, Probe, Secret, Target};
use super::files::{FileUse, Role};
use super::problem::{Problem, is_variable};
use super::rules::Claims;
use super::section::{Section, Text, nearest};
use super::units::quote;
use super::{Frame, vm};
use holdfast_core::subject::VmName;
use holdfast_drivers::qemu::Network;
use std::net::Ipv4Addr;
use std::path::Path;
use url::{Host, Url};

/// The guest's own address under QEMU's user networking.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Ways to ask that go by an address.
const SCHEMES: [&str; 6] = ["postgres", "mysql", "redis", "http", "https", "tcp"];
/// Settings that only some probes honour.
const PARTIAL: [&str; 7] =
    ["query", "expect", "write", "status", "contains", "password_file", "password_env"];
/// So many patterns at most in one file.
const MOST_PATTERNS: usize = 256;
/// What a probe looks like, for hints.
const EXAMPLE: &str = "write an address, as in \"postgres://probe@guest/orders\", \"http://guest:8080/health\" or \
                       \"tcp://guest:22\", or a command of this host as a list";

/// What is wrong with a probe's address: the error, the cause, the way out.
type Refusal = (String, String, String);

fn refusal(error: &str, cause: impl Into<String>, hint: impl Into<String>) -> Refusal {
    (error.to_owned(), cause.into(), hint.into())
}

/// Reads one application; `None` if nobody could ask it. Notes what is wrong.
pub fn read(
    vm: &VmName,
    section: &Section<'_>,
    frame: &Frame<'_>,
    network: &Network,
    claims: &mut Claims,
) -> Option<AppConfig> {
    let probe = probe(vm, section, frame, network, claims);
    let app = AppConfig {
        timeout: section.time("timeout"),
        write: section.flag("write"),
        password: password(vm, section, frame, claims),
        restart: section.command("restart"),
        quiesce: section.command("quiesce"),
        check: section.command("check"),
        probe: probe?,
    };
    refuse_pointless(section, &app.probe);
    Some(app)
}

/// Refuses what this kind of probe would not honour.
fn refuse_pointless(section: &Section<'_>, probe: &Probe) {
    let (honoured, does): (&[&str], _) = match probe {
        Probe::Postgres { .. } => {
            (&["query", "expect", "write", "password_file", "password_env"], "asks a query")
        }
        Probe::Mysql { .. } => (&["query", "expect", "password_file", "password_env"], "only asks a query"),
        Probe::Redis { .. } => (&["password_file", "password_env"], "sends PING"),
        Probe::Http { .. } => (&["status", "contains"], "gets a page"),
        Probe::Tcp { .. } => (&[], "only connects"),
        Probe::Command { .. } => (&[], "only looks at the exit status"),
    };
    for key in PARTIAL.iter().filter(|key| !honoured.contains(key)) {
        section.pointless(
            key,
            &format!("a {} probe {does}", probe.scheme()),
            "remove it, or take another probe",
        );
    }
}

fn probe(
    vm: &VmName,
    section: &Section<'_>,
    frame: &Frame<'_>,
    network: &Network,
    claims: &mut Claims,
) -> Option<Probe> {
    if section.is_list("probe") {
        return program(vm, section, "probe", frame, claims).map(|argv| Probe::Command { argv });
    }
    if !section.has("probe") {
        let error = format!("{} has no probe", section.name);
        let cause = "an application that is never asked cannot be protected";
        section.refuse(Problem::at(section.place("probe"), error, cause, EXAMPLE));
        return None;
    }
    let written = section.text("probe")?;
    match address(written.get_ref(), section, frame, network) {
        Ok(probe) => Some(probe),
        Err((error, cause, hint)) => {
            section.refuse(Problem::at(written.span(), error, cause, hint));
            None
        }
    }
}

/// A program of this host with its arguments, under this key; it is looked at before it is ever run.
pub fn program(
    vm: &VmName,
    section: &Section<'_>,
    key: &str,
    frame: &Frame<'_>,
    claims: &mut Claims,
) -> Option<Vec<String>> {
    let mut argv = section.command(key)?;
    let place = section.place(key);
    if !argv[0].contains('/') {
        let cause = format!("{} names no folder, and none is searched", quote(&argv[0]));
        let hint = "write the whole path, as in [\"/usr/bin/curl\", \"-f\", \"..\"]";
        section.refuse(Problem::at(place, format!("`{key}` names no program"), cause, hint));
        return None;
    }
    let path = frame.folder.join(Path::new(&argv[0]));
    argv[0] = path.to_string_lossy().into_owned();
    claims.files.push(FileUse { vm: vm.clone(), role: Role::Program, path, place });
    Some(argv)
}

fn address(
    text: &str,
    section: &Section<'_>,
    frame: &Frame<'_>,
    network: &Network,
) -> Result<Probe, Refusal> {
    let scheme = scheme(text)?;
    let url =
        Url::parse(text).map_err(|cause| refusal("`probe` is no address", cause.to_string(), EXAMPLE))?;
    if url.password().is_some() {
        let cause = "this file is shown, copied and kept in histories; a password in it is no secret";
        let hint =
            "put it alone into a file of mode 600, name that: `password_file = \"PATH\"`, and change it";
        return Err(refusal("`probe` holds a password", cause, hint));
    }
    if url.fragment().is_some() || (url.query().is_some() && scheme != "http") {
        let cause = "what follows `?` or `#` would not be honoured";
        return Err(refusal("`probe` says more than is understood", cause, "end the address before it"));
    }
    let (host, port) = whom(&url, scheme)?;
    let target = target(&host, port, network)?;
    let user = plain(url.username(), "user")?;
    if matches!(scheme, "http" | "https") {
        return http(&url, &host, target, user, section, frame);
    }
    let db = plain(url.path().trim_start_matches('/'), "database")?;
    let query = || section.text_or_default("query");
    Ok(match scheme {
        "postgres" => {
            let user = user.unwrap_or_else(|| "postgres".into());
            let db = db.unwrap_or_else(|| user.clone());
            Probe::Postgres { target, user, db, query: query(), expect: expect(section, frame, "expect") }
        }
        "mysql" => {
            let user = user.unwrap_or_else(|| "root".into());
            Probe::Mysql { target, user, db, query: query(), expect: expect(section, frame, "expect") }
        }
        "redis" => Probe::Redis { target, user, db: redis_db(db)? },
        _ if user.is_some() || db.is_some() => {
            let cause = "a tcp probe only connects";
            return Err(refusal("`probe` says more than is understood", cause, "write `tcp://HOST:PORT`"));
        }
        _ => Probe::Tcp { target },
    })
}

/// The kind of probe, one of [`SCHEMES`].
fn scheme(text: &str) -> Result<&str, Refusal> {
    match text.split_once("://").map(|(scheme, _)| scheme) {
        None => Err(refusal("`probe` is no address", "it has no `://`", EXAMPLE)),
        Some("postgresql") => Ok("postgres"),
        Some("rediss") => {
            let hint =
                "ask it without TLS, or by a command, as in [\"/usr/bin/redis-cli\", \"--tls\", \"PING\"]";
            Err(refusal("`probe` needs TLS", "the redis probe speaks plain text", hint))
        }
        Some(scheme) if SCHEMES.contains(&scheme) => Ok(scheme),
        Some(other) => {
            let near = nearest(other, &SCHEMES).map(|near| format!("did you mean `{near}`?"));
            let hint = near.unwrap_or_else(|| format!("there are {}", SCHEMES.join(", ")));
            Err(refusal("`probe` is of an unknown kind", format!("{} is none", quote(other)), hint))
        }
    }
}

fn http(
    url: &Url,
    host: &str,
    target: Target,
    user: Option<String>,
    section: &Section<'_>,
    frame: &Frame<'_>,
) -> Result<Probe, Refusal> {
    if user.is_some() {
        let cause = "an http probe does not log in";
        return Err(refusal("`probe` names a user", cause, "ask a page that needs no login"));
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Ok(Probe::Http {
        tls: url.scheme() == "https",
        target,
        host: url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}")),
        path: url[url::Position::BeforePath..].to_owned(),
        status: u16::try_from(section.count("status")).unwrap_or(200),
        contains: expect(section, frame, "contains"),
    })
}

/// Host and port of an address.
fn whom(url: &Url, scheme: &str) -> Result<(String, u16), Refusal> {
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_ascii_lowercase(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => String::new(),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if host.is_empty() || host.len() > 253 || !host.chars().all(fits) {
        return Err(refusal("`probe` names no host", "after `://` comes whom to ask", EXAMPLE));
    }
    let usual = match scheme {
        "postgres" => Some(5432),
        "mysql" => Some(3306),
        "redis" => Some(6379),
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    match url.port().or(usual) {
        Some(0) => {
            Err(refusal("`probe` names no port", "nobody listens on port 0", "write the port of the service"))
        }
        Some(port) => Ok((host, port)),
        None => Err(refusal(
            "`probe` names no port",
            "a tcp probe has no usual one",
            format!("as in `tcp://{host}:22`"),
        )),
    }
}

/// Whether the guest is meant. A forward of ours to it means the guest as well.
fn target(host: &str, port: u16, network: &Network) -> Result<Target, Refusal> {
    let address = host.parse::<Ipv4Addr>().ok();
    match network {
        Network::User(_) if host == "guest" || address == Some(GUEST) => Ok(Target::Guest(port)),
        Network::User(forwards) => {
            let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
            let through = forwards.iter().find(|forward| {
                let listens = forward.listen.ip();
                forward.listen.port() == port
                    && (address.is_some_and(|address| listens == address)
                        || (local && listens.is_unspecified())
                        || (host == "localhost" && listens.is_loopback()))
            });
            Ok(through
                .map_or_else(|| Target::Address(host.into(), port), |forward| Target::Guest(forward.guest)))
        }
        Network::Tap { .. } | Network::None if host == "guest" => {
            let cause = "only with `network = \"user\"` is it known how to reach the guest";
            let hint = "write the guest's address, as in `tcp://192.168.1.20:22`";
            Err(refusal("`guest` cannot be reached by this name", cause, hint))
        }
        Network::Tap { .. } | Network::None => Ok(Target::Address(host.into(), port)),
    }
}

/// A user or a database: nothing, or plain text.
fn plain(text: &str, what: &str) -> Result<Option<String>, Refusal> {
    let fits = |c: char| c.is_alphanumeric() || "-_.$+".contains(c);
    if !text.chars().all(fits) || text.len() > 63 {
        let cause =
            "it is longer than 63 bytes, or holds more than letters, digits, `-`, `_`, `.`, `$` and `+`";
        let hint = format!("make a {what} with a plainer name for the probe");
        return Err(refusal(&format!("`probe` names no usable {what}"), cause, hint));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn redis_db(written: Option<String>) -> Result<u32, Refusal> {
    let Some(text) = written else { return Ok(0) };
    text.parse().ok().filter(|db| *db < 65_536).ok_or_else(|| {
        let cause = format!("{} is no number below 65536", quote(&text));
        refusal("`probe` names no database of Redis", cause, "as in `redis://guest/0`")
    })
}

fn expect(section: &Section<'_>, frame: &Frame<'_>, key: &str) -> Option<Expect> {
    let (written, is_pattern): (Text, bool) = section.answer(key)?;
    if !is_pattern {
        return Some(Expect::Text(written.into_inner()));
    }
    frame.patterns.set(frame.patterns.get() + 1);
    if frame.patterns.get() > MOST_PATTERNS {
        let error = format!("more than {MOST_PATTERNS} patterns are configured");
        let cause = "each takes time to prepare and memory to keep";
        section.refuse(Problem::at(written.span(), error, cause, "write texts where they will do"));
        return None;
    }
    match Pattern::new(written.get_ref()) {
        Ok(pattern) => Some(Expect::Pattern(pattern)),
        Err(cause) => {
            let error = format!("`{key}` has no usable pattern");
            let hint = "patterns are regular expressions without back references, as in `^[0-9]+$`";
            section.refuse(Problem::at(written.span(), error, cause.to_string(), hint));
            None
        }
    }
}

fn password(vm: &VmName, section: &Section<'_>, frame: &Frame<'_>, claims: &mut Claims) -> Option<Secret> {
    let file = vm::path(section, "password_file", frame);
    let variable = section.text("password_env");
    if let (Some(_), Some(variable)) = (&file, &variable) {
        let cause = "`password_file` is written as well, and which one counts is not known";
        section.refuse(Problem::at(
            variable.span(),
            "the password is in two places",
            cause,
            "remove one of them",
        ));
    }
    if let Some(path) = file {
        let place = section.place("password_file");
        claims.files.push(FileUse { vm: vm.clone(), role: Role::Secret, path: path.clone(), place });
        return Some(Secret::File(path));
    }
    let variable = variable?;
    if !is_variable(variable.get_ref()) {
        // Not repeated: it may be the password itself.
        let cause = "it holds more than capital letters, digits and `_`";
        let hint =
            "write the name of a variable, as in `password_env = \"ORDERS_PASSWORD\"`, never the password";
        section.refuse(Problem::at(variable.span(), "`password_env` is no name of a variable", cause, hint));
    }
    Some(Secret::Variable(variable.into_inner()))
}
