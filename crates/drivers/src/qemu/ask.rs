//! Questions to the guest agent, and its answers as signals. A guest can only make itself look worse.

use super::agent::{AgentError, Freeze, GuestFs, Interface, Session};
use super::live::Live;
use super::machine::Machine;
use super::untrusted::tame;
use crate::{Glimpse, Question};
use holdfast_core::signal::{AgentSign, Seen};
use holdfast_core::subject::AppName;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How long QEMU may take to say whether the guest has the agent's port open.
const PORT: Duration = Duration::from_millis(300);
/// So much of a file of the guest's kernel is read.
const FILE_MOST: usize = 512 * 1024;
/// File systems of a guest that are told of, and the root.
const MOST_SYSTEMS: usize = 15;
/// The state of a socket that listens, as the kernel writes it.
const LISTENS: &str = "0A";
/// Connections to one port that are told apart; with more, none are.
const PEERS_MOST: usize = 64;
/// FNV-1a of 32 bits (Fowler, Noll, Vo): short numbers for long addresses.
const FNV_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;
/// Those that are full or read-only by nature.
const IMAGES: [&str; 6] = ["iso9660", "udf", "squashfs", "erofs", "cramfs", "romfs"];

impl Machine {
    /// Asks, and tells what was answered. An empty answer: we did not get to ask.
    pub async fn ask(&self, question: &Question, limit: Duration) -> Vec<Glimpse> {
        let Ok(live) = self.running() else { return Vec::new() };
        let began = Instant::now();
        let Some(turn) = self.session(began + limit).await else { return Vec::new() };
        let asked = Instant::now();
        let left = limit.saturating_sub(began.elapsed());
        let mut signs = Vec::new();
        let failed = match self.agent.session(left).await {
            Ok(mut session) => {
                signs.push((None, AgentSign::Answered { latency: asked.elapsed() }));
                let spec = self.spec();
                answer(&mut session, question, spec.network.mac(), &mut signs).await.err()
            }
            Err(error) => Some(error),
        };
        drop(turn);
        self.note_agent(!signs.is_empty());
        match failed {
            None => {}
            // It is there, it understood, and it would or could not: no news.
            Some(error) if error.is_answer() => {
                tracing::debug!(vm = %self.name, %error, "a question to the guest agent was refused");
            }
            // It was heard a moment ago, so it is slow, or has not the words for this; it is not silent.
            Some(error) if !signs.is_empty() => {
                tracing::debug!(vm = %self.spec().name, %error, "the guest agent did not answer to the end");
            }
            Some(error) => {
                tracing::debug!(vm = %self.name, %error, "no answer from the guest agent");
                let waited = asked.elapsed();
                let port = self.agent_port(&live, Instant::now() + PORT).await;
                signs.push((None, AgentSign::NoAnswer { waited, port }));
            }
        }
        signs.into_iter().map(|(app, sign)| self.heard(&live, app, sign)).collect()
    }

    fn heard(&self, live: &Live, app: Option<AppName>, sign: AgentSign) -> Glimpse {
        Glimpse { app, ..self.glimpse(live, Seen::Agent(sign)) }
    }
}

type Signs = Vec<(Option<AppName>, AgentSign)>;

async fn answer(
    session: &mut Session<'_>,
    question: &Question,
    mac: Option<&str>,
    signs: &mut Signs,
) -> Result<(), AgentError> {
    match question {
        Question::Ping => Ok(()), // that the session began is the answer
        Question::Disks => disks(session, signs).await,
        Question::Health => health(session, mac, signs).await,
        Question::Services(apps) => services(session, apps, signs).await,
        Question::Check(app, argv) => {
            let end = session.exec(argv).await?;
            let text = tame(String::from_utf8_lossy(&end.output).trim(), 255);
            signs.push((Some(app.clone()), AgentSign::Check { passed: end.code == Some(0), text }));
            Ok(())
        }
    }
}

/// Whether its file systems are frozen: then it refuses all other questions.
async fn frozen(session: &mut Session<'_>, signs: &mut Signs) -> Result<bool, AgentError> {
    let frozen = session.freeze_state().await.map(|state| state == Freeze::Frozen);
    if let Ok(frozen) = frozen {
        signs.push((None, AgentSign::Frozen(frozen)));
    }
    frozen.or_else(|error| if error.is_answer() { Ok(false) } else { Err(error) })
}

async fn health(session: &mut Session<'_>, mac: Option<&str>, signs: &mut Signs) -> Result<(), AgentError> {
    if frozen(session, signs).await? {
        return Ok(());
    }
    let memory = optional(session.read_file("/proc/meminfo", FILE_MOST).await)?;
    if let Some((available, total)) = memory.and_then(|text| read_memory(&String::from_utf8_lossy(&text))) {
        signs.push((None, AgentSign::Memory { available, total }));
    }
    if let Some(mac) = mac
        && let Some(up) = carrier(session, mac).await?
    {
        signs.push((None, AgentSign::Carrier { up }));
    }
    Ok(())
}

async fn disks(session: &mut Session<'_>, signs: &mut Signs) -> Result<(), AgentError> {
    if frozen(session, signs).await? {
        return Ok(());
    }
    let systems = optional(session.file_systems().await)?;
    let mounts = optional(session.read_file("/proc/mounts", FILE_MOST).await)?.unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    if let Some(systems) = systems {
        signs.extend(told(&systems.kept, &mounts).into_iter().map(|sign| (None, sign)));
    }
    Ok(())
}

/// Whether the guest's network card has a cable. It is found by its address, which we gave it: names differ from one
/// Linux to the next. A card that is switched off inside the guest does not tell.
async fn carrier(session: &mut Session<'_>, mac: &str) -> Result<Option<bool>, AgentError> {
    let claimed = optional(session.interfaces().await)?;
    let Some(card) = claimed.as_ref().and_then(|claimed| card(&claimed.kept, mac)) else { return Ok(None) };
    let said = optional(session.read_file(&format!("/sys/class/net/{card}/carrier"), 16).await)?;
    Ok(match said.as_deref() {
        Some(b"0\n") => Some(false),
        Some(b"1\n") => Some(true),
        Some(_) | None => None,
    })
}

/// The card with this address: of several, as where a bridge has taken it over, the first that the kernel knew.
fn card<'c>(claimed: &'c [Interface], mac: &str) -> Option<&'c str> {
    let ours = |one: &&Interface| {
        one.hardware_address.as_ref().is_some_and(|address| address.as_str().eq_ignore_ascii_case(mac))
    };
    claimed.iter().find(ours).map(|card| card.name.as_str()).filter(|name| is_card(name))
}

/// A guest's word that becomes part of a path in that guest (A16).
fn is_card(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=15).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits)
}

/// An agent may know fewer questions than we do.
fn optional<T>(answer: Result<T, AgentError>) -> Result<Option<T>, AgentError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_answer() => Ok(None),
        Err(error) => Err(error),
    }
}

/// `MemAvailable` and `MemTotal` of `/proc/meminfo`, in bytes; no more is available than there is.
fn read_memory(text: &str) -> Option<(u64, u64)> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = kib("MemTotal:")?;
    Some((kib("MemAvailable:")?.min(total), total))
}

/// The file systems that matter most: those that refuse writes before the fullest, and the root in any case. No more
/// of one is used than there is, whatever the guest claims.
fn told(systems: &[GuestFs], mounts: &str) -> Vec<AgentSign> {
    let read_only = |mount: &str| {
        let mut options = None; // the last mount on a place is the one that counts
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            if fields.get(1) == Some(&mount) {
                options = fields.get(3).copied();
            }
        }
        options.is_some_and(|options| options.split(',').any(|option| option == "ro"))
    };
    let real = systems.iter().filter(|fs| !IMAGES.contains(&fs.kind.as_str()));
    let rated = real.filter_map(|fs| {
        let total = fs.total_bytes.filter(|&total| total > 0)?;
        let used = fs.used_bytes?.min(total);
        let mount = fs.mountpoint.as_str();
        let permille = u64::try_from(u128::from(used) * 1_000 / u128::from(total)).ok()?;
        Some((read_only(mount), permille, mount == "/", Reverse(mount), used, total))
    });
    let mut rated: Vec<_> = rated.collect();
    rated.sort_unstable_by(|a, b| b.cmp(a));
    let mut signs = Vec::new();
    let mut sizes = BTreeSet::new(); // what is mounted in two places is one file system
    let mut names = BTreeSet::new();
    for (read_only, _, is_root, Reverse(mount), used, total) in rated {
        let mount = tame(mount, 63);
        let has_room = signs.len() < MOST_SYSTEMS || is_root;
        if has_room && sizes.insert((used, total, read_only)) && names.insert(mount.clone()) {
            signs.push(AgentSign::FileSystem { mount, used, total, read_only, holds: String::new() });
        }
    }
    signs
}

async fn services(
    session: &mut Session<'_>,
    apps: &[(AppName, u16)],
    signs: &mut Signs,
) -> Result<(), AgentError> {
    let uptime = optional(session.read_file("/proc/uptime", 64).await)?;
    if let Some(up) = uptime.and_then(|text| read_uptime(&String::from_utf8_lossy(&text))) {
        signs.push((None, AgentSign::Uptime(up)));
    }
    let (mut tables, mut whole) = (String::new(), true);
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        if let Some(table) = optional(session.read_file(path, FILE_MOST).await)? {
            tables.push_str(&String::from_utf8_lossy(&table));
            whole &= table.len() < FILE_MOST;
        }
    }
    if tables.is_empty() {
        return Ok(());
    }
    for (app, port) in apps {
        let (listens, waiting) = listener(&tables, *port);
        let peers = if whole { peers(&tables, *port) } else { Vec::new() };
        signs.push((Some(app.clone()), AgentSign::Service { listens, waiting, peers }));
    }
    Ok(())
}

/// The first number of `/proc/uptime`: seconds since the kernel booted.
fn read_uptime(text: &str) -> Option<Duration> {
    let seconds = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Whether something listens on this port, and how many connections nobody has accepted: for a
/// listening socket (state 0A) the kernel shows them as its receive queue (`net/ipv4/tcp_ipv4.c`).
fn listener(tables: &str, port: u16) -> (bool, u32) {
    let local = format!(":{port:04X}");
    let mut waiting = None::<u32>;
    for line in tables.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, address, _, LISTENS, queues, ..] = fields[..] else { continue };
        if address.ends_with(&local) {
            let queue = queues.split_once(':').and_then(|(_, rx)| u32::from_str_radix(rx, 16).ok());
            waiting = Some(waiting.unwrap_or(0).saturating_add(queue.unwrap_or(0)));
        }
    }
    (waiting.is_some(), waiting.unwrap_or(0))
}

/// A number for the other end of each connection from elsewhere to this port, in whatever state; nothing if they are
/// more than [`PEERS_MOST`].
fn peers(tables: &str, port: u16) -> Vec<u32> {
    let own = format!("{port:04X}");
    let mut peers = Vec::new();
    for line in tables.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, ..] = fields[..] else { continue };
        let (Some((here, at)), Some((there, _))) = (local.split_once(':'), remote.split_once(':')) else {
            continue;
        };
        if at == own && state != LISTENS && here != there && !is_loopback(there) {
            peers.push(
                remote.bytes().fold(FNV_BASIS, |hash, b| (hash ^ u32::from(b)).wrapping_mul(FNV_PRIME)),
            );
        }
    }
    if peers.len() > PEERS_MOST { Vec::new() } else { peers }
}

/// 127.0.0.0/8 and ::1 as the kernel writes them, words of four bytes in the order of the processor.
fn is_loopback(address: &str) -> bool {
    let in_four = address.strip_prefix("0000000000000000FFFF0000").unwrap_or(address);
    (in_four.len() == 8 && in_four.ends_with("7F")) || address == "00000000000000000000000001000000"
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stopped_server_shows_the_connections_that_wait() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
                     0: 00000000:1538 00000000:0000 0A 00000000:00000003 00:00000000 00000000 999 0 1 1\n   \
                     1: 0100007F:1539 00000000:0000 01 00000000:00000009 00:00000000 00000000 999 0 1 1\n   \
                     2: 00000000000000000000000000000000:1538 00:0000 0A 00000000:00000002 00:0 0 999\n   \
                     3: garbage\n";
        assert_eq!(listener(table, 5432), (true, 5));
        assert_eq!(listener(table, 5433), (false, 0));
        assert_eq!(listener("", 5432), (false, 0));
    }

    #[test]
    fn the_card_is_found_by_the_address_that_we_gave_it_and_its_name_is_not_trusted() {
        let claim = |rows: serde_json::Value| -> Vec<Interface> { serde_json::from_value(rows).unwrap() };
        let cards = claim(json!([
            {"name": "lo", "hardware-address": "00:00:00:00:00:00"},
            {"name": "docker0"},
            {"name": "enp0s9", "hardware-address": "52:54:00:AB:00:01"},
            {"name": "br0", "hardware-address": "52:54:00:ab:00:01"},
        ]));
        assert_eq!(card(&cards, "52:54:00:ab:00:01"), Some("enp0s9"));
        assert_eq!(card(&cards, "52:54:00:ab:00:02"), None);
        for name in ["..", "../../etc", "a/b", "", ".hidden", "a name", "sixteen-letters-"] {
            let lie = claim(json!([{"name": name, "hardware-address": "52:54:00:ab:00:01"}]));
            assert_eq!(card(&lie, "52:54:00:ab:00:01"), None, "{name}");
        }
    }

    #[test]
    fn peers_are_those_who_come_from_elsewhere() {
        let line = |local: &str, remote: &str, state: &str| {
            format!(
                "   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 4711\n"
            )
        };
        let (port, mapped) = ("0F02000A:1538", "0000000000000000FFFF00000F02000A:1538");
        let here = line("00000000:1538", "00000000:0000", "0A")
            + &line("0100007F:1538", "0100007F:9C40", "01")
            + &line(port, "0F02000A:9C40", "01")
            + &line("00000000000000000000000001000000:1538", "00000000000000000000000001000000:9C40", "01")
            + &line("0F02000A:0016", "0202000A:9C40", "01");
        assert!(peers(&here, 5432).is_empty());
        let one = line(port, "0202000A:9C40", "01");
        let two = line(mapped, "0000000000000000FFFF00000202000A:9C42", "08");
        let both = peers(&(here + &one + &two), 5432);
        assert_eq!(both.len(), 2);
        assert_eq!(both[..1], peers(&one, 5432), "the same by the same number");
        assert_ne!(both[0], both[1]);
        let crowd: String = (0..65).map(|n| line(port, &format!("0202000A:{n:04X}"), "03")).collect();
        assert!(peers(&crowd, 5432).is_empty());
    }

    #[test]
    fn memory_is_read_in_bytes_or_not_at_all() {
        let text = "MemTotal:  494060 kB\nMemFree: 1 kB\nMemAvailable:  50000 kB\n";
        assert_eq!(read_memory(text), Some((51_200_000, 505_917_440)));
        assert_eq!(read_memory("MemTotal: 7 kB\n"), None);
        assert_eq!(read_memory("MemTotal: 3 kB\nMemAvailable: 18014398509481983 kB\n"), Some((3_072, 3_072)));
        let lies = ["99999999999999999999", "18446744073709551615", "-1", "1e3", "1e999", "nan", "1.5", "x"];
        for lie in lies {
            assert_eq!(read_memory(&format!("MemTotal: 7 kB\nMemAvailable: {lie} kB\n")), None, "{lie}");
            assert_eq!(read_memory(&format!("MemTotal: {lie} kB\nMemAvailable: 7 kB\n")), None, "{lie}");
        }
    }

    #[test]
    fn an_uptime_is_read_or_not_believed() {
        assert_eq!(read_uptime("12.25 40.00\n"), Some(Duration::from_millis(12_250)));
        for lie in ["", "x", "-1.0 0", "nan 1", "inf", "1e999 0", "1e308", "18446744073709551616"] {
            assert_eq!(read_uptime(lie), None, "{lie}");
        }
    }

    fn systems(rows: serde_json::Value) -> Vec<GuestFs> {
        serde_json::from_value(rows).unwrap()
    }

    #[test]
    fn file_systems_are_told_the_fullest_first_and_a_read_only_one_before_it() {
        let rows = systems(json!([
            {"mountpoint": "/", "type": "ext4", "used-bytes": 50, "total-bytes": 100},
            {"mountpoint": "/data", "type": "xfs", "used-bytes": 99, "total-bytes": 100},
            {"mountpoint": "/snap", "type": "squashfs", "used-bytes": 100, "total-bytes": 100},
            {"mountpoint": "/old", "type": "ext4"},
        ]));
        let healthy = "/dev/vda / ext4 rw,relatime 0 0\n/dev/loop0 /snap squashfs ro 0 0\n";
        assert_eq!(mounts(&rows, healthy), [("/data".into(), false), ("/".into(), false)]);
        let ill = "rootfs / rootfs rw 0 0\n/dev/vda / ext4 ro,relatime 0 0\n";
        assert_eq!(mounts(&rows, ill), [("/".into(), true), ("/data".into(), false)]);
        assert_eq!(mounts(&rows, "garbage\n\n / \n").len(), 2);
        assert_eq!(mounts(&[], healthy), []);
    }

    #[test]
    fn a_file_system_fuller_than_it_is_large_is_full() {
        let told_of = |used: u64, total: u64| {
            told(&systems(json!([{"mountpoint": "/", "used-bytes": used, "total-bytes": total}])), "")
        };
        let full = |size| AgentSign::FileSystem {
            mount: "/".into(),
            used: size,
            total: size,
            read_only: false,
            holds: String::new(),
        };
        assert_eq!(told_of(u64::MAX, 1), [full(1)]);
        assert_eq!(told_of(u64::MAX, u64::MAX), [full(u64::MAX)]);
        assert_eq!(told_of(7, 0), []);
    }

    fn mounts(systems: &[GuestFs], mounts: &str) -> Vec<(String, bool)> {
        let one = |sign| {
            let AgentSign::FileSystem { mount, read_only, .. } = sign else { return None };
            Some((mount, read_only))
        };
        told(systems, mounts).into_iter().filter_map(one).collect()
    }

    #[test]
    fn what_is_mounted_twice_is_told_once_and_of_many_the_fullest_and_the_root() {
        let system = |mount: &str, used: u64| json!({"mountpoint": mount, "type": "ext4", "used-bytes": used, "total-bytes": 1_000});
        let mut rows = vec![system("/", 10), system("/data", 500), system("/data/bound", 500)];
        assert_eq!(mounts(&systems(rows.clone().into()), "").len(), 2);
        assert_eq!(mounts(&systems(rows.clone().into()), "")[0].0, "/data");
        rows.extend((0..200).map(|n| system(&format!("/volume/{n}"), 600 + n)));
        let told = mounts(&systems(rows.into()), "");
        assert_eq!((told.len(), told[0].0.as_str()), (MOST_SYSTEMS + 1, "/volume/199"));
        assert_eq!(told[MOST_SYSTEMS].0, "/");
    }

    #[test]
    fn sizes_that_lie_do_not_overflow() {
        let rows = systems(json!([
            {"mountpoint": "/", "type": "ext4", "used-bytes": u64::MAX, "total-bytes": 1},
            {"mountpoint": "/z", "type": "ext4", "used-bytes": 1, "total-bytes": 0},
        ]));
        assert_eq!(told(&rows, "").len(), 1, "one without room is none");
    }
}
