//! A guest whose agent is an enemy, on a real virtio port.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::hands::{Start, sockets_of};
use crate::lab::{BOOT, Lab, SOON};
use crate::rows::{Rows, address};
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};

const AGENT: &str = include_str!("hostile_agent.sh");
/// What a session with an agent may take, and some air.
const MORE: u64 = 48 << 20;

/// Resident memory of a process, in bytes.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// An address of the host that the agent claims for its guest.
const CLAIMED: &str = "127.0.0.9";

/// Listens at what the agent claims, on the ports where somebody who believes it would look for the application (A16).
struct Ear {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Ear {
    fn at(ports: &[u16]) -> Self {
        let tcp: Vec<TcpListener> =
            ports.iter().map(|port| TcpListener::bind((CLAIMED, *port)).unwrap()).collect();
        let udp: Vec<UdpSocket> =
            ports.iter().map(|port| UdpSocket::bind((CLAIMED, *port)).unwrap()).collect();
        tcp.iter().for_each(|one| one.set_nonblocking(true).unwrap());
        udp.iter().for_each(|one| one.set_nonblocking(true).unwrap());
        Self { tcp, udp }
    }

    fn heard_nothing(&self) -> bool {
        let silent = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        self.tcp.iter().all(|one| one.accept().is_err_and(silent))
            && self.udp.iter().all(|one| one.recv(&mut [0]).is_err_and(silent))
    }

    /// It was no deaf one: what is sent there is heard.
    fn hears(self) -> bool {
        let place = self.tcp[0].local_addr().unwrap();
        let _caller = TcpStream::connect(place).unwrap();
        let by_tcp = !self.heard_nothing();
        UdpSocket::bind((CLAIMED, 0)).unwrap().send_to(&[0], self.udp[0].local_addr().unwrap()).unwrap();
        by_tcp && !self.heard_nothing()
    }
}

/// The other ends of the daemon's connections on the network, as the kernel writes them.
fn dialled(daemon: i32) -> Vec<String> {
    let sockets = sockets_of(daemon);
    let mut dialled = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{daemon}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (remote, socket) = (words[2], words[9]);
            if !remote.ends_with(":0000") && sockets.iter().any(|one| one == socket) {
                dialled.push(remote.to_owned());
            }
        }
    }
    dialled
}

fn is_tame(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control())
}

#[test]
fn an_agent_that_floods_lies_and_drips_is_not_believed_and_is_shown_escaped_r32_a11_a16() {
    let lab = Lab::running("");
    let rows = Rows::start(&lab);
    let daemon = lab.daemon_pid();
    let before = resident(daemon);
    let place = address(&lab);
    let port: u16 = place.rsplit_once(':').unwrap().1.parse().unwrap();
    let (ear, application) = (Ear::at(&[port, 5432]), format!("0100007F:{port:04X}"));
    let console = lab.vm("orders")["console"].as_str().unwrap().to_owned();
    let said = |mark: &str| fs::read_to_string(&console).is_ok_and(|lines| lines.contains(mark));

    let take_over = format!("cat > /etc/agent <<'END'\n{AGENT}END\nkill $(pidof qemu-ga)");
    lab.in_guest("orders", &take_over);
    let (start, mut told) = (Start::of(&lab, "orders"), false);
    lab.until(2 * BOOT, "the agent has said all it has to say", |lab| {
        let now = resident(daemon);
        assert!(now < before + MORE, "{now} bytes, {before} before");
        let dialled = dialled(daemon);
        assert!(dialled.iter().all(|other| *other == application), "{dialled:?}\n{}", lab.story());
        assert!(ear.heard_nothing(), "{}", lab.story());
        for words in [&["status"][..], &["incidents"], &["events", "-n", "200"]] {
            let shown = lab.cli(words);
            let text = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.status.code() != Some(1) && is_tame(&text), "{text:?}");
            told |= text.contains("file system /\\u{1b}]0;owned");
        }
        assert_eq!(Start::of(lab, "orders"), start, "{}", lab.story());
        said("hostile: over")
    });
    assert!(told, "its lie of a full disk is told, escaped: {}", lab.story());
    let kinds = ["endless", "deep", "numbers", "old", "drip", "junk", "frozen", "crowds", "lies"];
    for kind in kinds.into_iter().chain(["cards of crowds", "cards of lies"]) {
        assert!(said(&format!("hostile: {kind}")), "{kind}: {}", lab.story());
    }
    rows.wait_for_more(&lab);

    assert_eq!(lab.daemon_pid(), daemon);
    lab.until(SOON, "the application is still asked", |lab| lab.vm("orders")["apps"][0]["state"] == "ok");
    assert!(lab.remedies().is_empty(), "{}", lab.story());
    let log = fs::read_to_string(lab.path().join("daemon.log")).unwrap();
    assert!(is_tame(&log), "{log:?}");
    for never in ["asked to freeze", "asked to thaw"] {
        assert!(!said(&format!("hostile: {never}")), "it is frozen for no snapshot or backup (A17, I16)");
    }
    rows.all_there(&lab);
    assert!(ear.heard_nothing() && ear.hears());
}
