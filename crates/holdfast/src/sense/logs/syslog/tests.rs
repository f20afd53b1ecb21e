//! Senders on the loopback: honest, strange and hostile.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::testing::{Authority, FakeGuest, Lab, connect_tls, write_key};
use super::*;
use holdfast_core::lease::Incarnation;
use holdfast_drivers::Places;
use holdfast_fuzz::memory::{Peak, alone};
use holdfast_logs::{LONGEST_TEXT, Severity};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SHORT: Duration = Duration::from_millis(100);
const LOCAL: &str = "127.0.0.1:0";

struct Net {
    lab: Lab,
    senders: Senders,
    listener: Feed,
}

impl Net {
    /// These addresses are the guest's.
    fn new(addresses: &[&str]) -> Self {
        let incarnation = Some(Incarnation(7));
        let lab = Lab::new(FakeGuest::at(Places { incarnation, ..Places::default() }));
        let senders = Senders::default();
        let subject = Subject::Guest("orders".parse().unwrap());
        let whose: BTreeMap<IpAddr, Subject> =
            addresses.iter().map(|address| (address.parse().unwrap(), subject.clone())).collect();
        senders.configure(&lab.means, "syslog", &whose);
        let listener = lab.means.feed(Subject::Host("atlas".parse().unwrap()), "listener");
        Self { lab, senders, listener }
    }

    async fn udp(&self) -> SocketAddr {
        let socket = bind_udp(LOCAL.parse().unwrap()).await.unwrap();
        let address = socket.local_addr().unwrap();
        let (senders, listener) = (self.senders.clone(), self.listener.clone());
        tokio::spawn(async move { packets(socket, &senders, &listener).await });
        address
    }

    async fn tcp(&self, tls: Option<Acceptor>) -> SocketAddr {
        let socket = TcpListener::bind(LOCAL).await.unwrap();
        let address = socket.local_addr().unwrap();
        let (senders, listener, means) =
            (self.senders.clone(), self.listener.clone(), self.lab.means.clone());
        tokio::spawn(async move { connections(socket, tls, &senders, &listener, &means).await });
        address
    }
}

#[tokio::test]
async fn a_packet_of_a_known_address_is_its_vms_whatever_it_says_of_itself() {
    let mut net = Net::new(&["127.0.0.1"]);
    let to = net.udp().await;
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    socket.send_to(b"<11>1 2026-11-26T10:00:00Z other.example su 9 ID47 - I am another", to).await.unwrap();
    let entry = net.lab.next().await;
    assert_eq!(entry.subject, Subject::Guest("orders".parse().unwrap()));
    assert_eq!(entry.incarnation, Some(Incarnation(7)));
    assert_eq!((entry.source.as_str(), entry.place), ("syslog", None));
    assert_eq!((entry.record.text.as_str(), entry.record.severity), ("I am another", Some(Severity::Error)));
    assert_eq!(net.lab.until("syslog", |r| r.state == State::Receiving).await.records, 1);
}

#[tokio::test]
async fn a_stranger_is_dropped_and_counted_over_udp_and_tcp() {
    let net = Net::new(&["127.0.0.2"]);
    let (udp, tcp) = (net.udp().await, net.tcp(None).await);
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    socket.send_to(b"<11>x", udp).await.unwrap();
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "it is closed at once");
    let reading = net.lab.until("listener", |reading| reading.dropped == 2).await;
    assert_eq!(reading.records, 0);
}

#[tokio::test]
async fn a20_whatever_comes_in_a_packet_is_bounded_text() {
    let mut net = Net::new(&["127.0.0.1"]);
    let to = net.udp().await;
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    let long = [&b"<11>"[..], &[b'x'; 60_000]].concat();
    for packet in [&b"no priority"[..], b"<999>x", b"<11>a\0b\x1b[2Jc\xff", b"<", &long] {
        socket.send_to(packet, to).await.unwrap();
        let text = net.lab.next().await.record.text;
        assert!(!text.chars().any(|c| c.is_control()) && text.len() <= LONGEST_TEXT, "{text:?}");
    }
    socket.send_to(b"", to).await.unwrap();
    socket.send_to(b"<13>last", to).await.unwrap();
    assert_eq!(net.lab.texts(1).await, ["last"]);
}

#[tokio::test]
async fn both_framings_are_understood_and_the_last_message_needs_no_end() {
    let mut net = Net::new(&["127.0.0.1"]);
    let to = net.tcp(None).await;
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(b"7 <11>one<11>two\n<11>th").await.unwrap();
    stream.write_all(b"ree\n7 <11>fo").await.unwrap();
    stream.write_all(b"u<11>five").await.unwrap();
    drop(stream);
    assert_eq!(net.lab.texts(5).await, ["one", "two", "three", "fou", "five"]);
}

/// Runs a test alone, for its memory is measured.
fn measured(test: &str, run: impl AsyncFnOnce()) {
    alone(&format!("sense::logs::syslog::tests::{test}"), || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run());
    });
}

#[test]
fn a21_a_lying_octet_count_costs_no_memory_and_a_long_line_is_cut() {
    measured("a21_a_lying_octet_count_costs_no_memory_and_a_long_line_is_cut", lying_octet_count);
}

async fn lying_octet_count() {
    let mut net = Net::new(&["127.0.0.1"]);
    let to = net.tcp(None).await;
    let mut stream = TcpStream::connect(to).await.unwrap();
    let piece = vec![b'z'; 1 << 20];
    let peak = Peak::start();
    stream.write_all(b"4294967295 <11>x\n-1 <11>y\n").await.unwrap();
    for _ in 0..128 {
        stream.write_all(&piece).await.unwrap();
    }
    peak.is_below("a line of 128 MiB", 4);
    stream.write_all(b"\n<11>last\n").await.unwrap();
    let texts = net.lab.texts(4).await;
    assert!(texts[2].len() <= LONGEST_TEXT + 4, "{}", texts[2].len());
    assert_eq!(texts[3], "last");
}

#[test]
fn a22_ten_thousand_silent_connections_leave_room_for_others() {
    measured("a22_ten_thousand_silent_connections_leave_room_for_others", silent_connections);
}

async fn silent_connections() {
    let peak = Peak::start();
    let mut net = Net::new(&["127.0.0.1", "127.0.0.2"]);
    let to = net.tcp(None).await;
    let mut held = Vec::new();
    for _ in 0..10_000 {
        // One that was refused is closed by the other side, so that few are open at a time.
        if let Ok(stream) = TcpStream::connect(to).await {
            held.push(stream);
            if held.len() == 200 {
                held.drain(100..);
            }
        }
    }
    let reading = net.lab.until("listener", |reading| reading.dropped > 9_000).await;
    assert_eq!(reading.state, State::Following);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.write_all(b"<11>another one\n").await.unwrap();
    assert_eq!(net.lab.texts(1).await, ["another one"]);
    peak.is_below("10,000 connections", 4);
}

/// As many connections as there may be, each in the middle of the longest message.
#[test]
fn a22_connections_that_all_hold_half_a_message_cost_little() {
    measured("a22_connections_that_all_hold_half_a_message_cost_little", half_messages);
}

async fn half_messages() {
    let senders: Vec<String> = (1..=20).map(|number| format!("127.0.0.{number}")).collect();
    let senders: Vec<&str> = senders.iter().map(String::as_str).collect();
    let net = Net::new(&senders);
    let to = net.tcp(None).await;
    let half = vec![b'x'; 60_000];
    let (peak, mut held) = (Peak::start(), Vec::new());
    for from in senders.iter().flat_map(|from| std::iter::repeat_n(from, 40)) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let Ok(mut stream) = socket.connect(to).await else { continue };
        let framed = held.len() % 2 == 0;
        let head = if framed { &b"65536 <11>"[..] } else { b"<11>" };
        if stream.write_all(head).await.is_ok() && stream.write_all(&half).await.is_ok() {
            held.push(stream);
        }
    }
    net.lab.until("listener", |reading| reading.dropped >= (20 * 40 - MOST_CONNECTIONS) as u64).await;
    assert!(held.len() >= MOST_CONNECTIONS, "{}", held.len());
    peak.is_below("half a message of each connection", 24);
}

#[tokio::test]
async fn a_connection_that_says_nothing_ends_and_one_that_spoke_may_be_quiet() {
    let mut net = Net::new(&["127.0.0.1"]);
    let sender = net.senders.find("127.0.0.1".parse().unwrap()).unwrap();
    let (_silent, one) = tokio::io::duplex(64);
    messages(one, &sender.connect().unwrap(), &net.lab.means, SHORT).await; // ends by itself
    let (mut quiet, one) = tokio::io::duplex(64);
    let (connected, means) = (sender.connect().unwrap(), net.lab.means.clone());
    let serving = tokio::spawn(async move { messages(one, &connected, &means, SHORT).await });
    quiet.write_all(b"<11>one\n").await.unwrap();
    assert_eq!(net.lab.outlet.next().await.unwrap().record.text, "one");
    tokio::time::sleep(3 * SHORT).await;
    quiet.write_all(b"<11>two\n").await.unwrap();
    assert_eq!(net.lab.outlet.next().await.unwrap().record.text, "two");
    drop(quiet);
    serving.await.unwrap();
}

#[test]
fn r33_a_flood_of_packets_is_dropped_and_counted_and_a_connection_waits() {
    measured("r33_a_flood_of_packets_is_dropped_and_counted_and_a_connection_waits", flood_of_packets);
}

async fn flood_of_packets() {
    let peak = Peak::start();
    let mut net = Net::new(&["127.0.0.1"]);
    let (udp, tcp) = (net.udp().await, net.tcp(None).await);
    let socket = UdpSocket::bind(LOCAL).await.unwrap();
    let line = [&b"<11>"[..], &[b'x'; 16_000]].concat();
    for _ in 0..3_000 {
        socket.send_to(&line, udp).await.unwrap(); // 48 MB; 8 MiB may wait
    }
    let counted = |reading: &super::super::health::Reading| reading.dropped > 0 && reading.records > 100;
    net.lab.until("syslog", counted).await;
    peak.is_below("a flood of 48 MB of packets", 24);
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    let sending = tokio::spawn(async move {
        for number in 0..5_000 {
            stream.write_all(format!("<11>{number}\n").as_bytes()).await.unwrap();
        }
    });
    let mut next = 0;
    while next < 5_000 {
        let text = net.lab.next().await.record.text;
        if !text.starts_with('x') {
            assert_eq!(text, next.to_string());
            next += 1;
        }
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn r33_a_connection_that_sends_more_than_it_may_is_kept_waiting_and_loses_nothing() {
    const MESSAGES: usize = 30_000; // 20,000 a second
    let mut net = Net::new(&["127.0.0.1"]);
    let (tcp, began) = (net.tcp(None).await, std::time::Instant::now());
    let mut stream = TcpStream::connect(tcp).await.unwrap();
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            stream.write_all(format!("<11>{number}\n").as_bytes()).await.unwrap();
        }
    });
    for number in 0..MESSAGES {
        assert_eq!(net.lab.next().await.record.text, number.to_string());
    }
    sending.await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    net.lab.until("syslog", |reading| reading.dropped == 0).await;
}

async fn send_by_tls(
    to: SocketAddr,
    trusted: &str,
    own: Option<(String, String)>,
    bytes: &[u8],
) -> io::Result<()> {
    let mut stream = connect_tls(to, trusted, own, &[]).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    match stream.read(&mut [0; 1]).await {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error), // it refused our certificate
        Ok(_) | Err(_) => Ok(()),
    }
}

#[tokio::test]
async fn tls_proves_both_sides_and_a_renewed_certificate_counts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (cert, key) = ours.sign("logs.example");
    std::fs::write(at("cert"), cert).unwrap();
    write_key(&at("key"), &key);
    std::fs::write(at("ca"), &theirs.pem).unwrap();
    let config = TlsConfig { cert: at("cert"), key: at("key"), client_ca: Some(at("ca")) };
    let mut net = Net::new(&["127.0.0.1"]);
    let to = net.tcp(Some(Acceptor::new(&config, &[]))).await;
    send_by_tls(to, &ours.pem, Some(theirs.sign("orders")), b"7 <11>one<11>two\n").await.unwrap();
    assert_eq!(net.lab.texts(2).await, ["one", "two"]);
    assert!(send_by_tls(to, &ours.pem, None, b"<11>x\n").await.is_err(), "without a certificate");
    assert!(
        send_by_tls(to, &ours.pem, Some(ours.sign("orders")), b"<11>x\n").await.is_err(),
        "of a stranger"
    );
    let renewed = Authority::new();
    let (cert, key) = renewed.sign("logs.example");
    std::fs::write(at("cert"), cert).unwrap();
    write_key(&at("key"), &key);
    send_by_tls(to, &renewed.pem, Some(theirs.sign("orders")), b"<11>three\n").await.unwrap();
    assert_eq!(net.lab.texts(1).await, ["three"]);
}

#[test]
fn a_key_that_others_can_read_is_refused_and_so_is_what_is_no_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (cert, key) = Authority::new().sign("logs.example");
    std::fs::write(at("cert"), cert).unwrap();
    std::fs::write(at("key"), key).unwrap();
    std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let config = TlsConfig { cert: at("cert"), key: at("key"), client_ca: None };
    let why = |config: &TlsConfig| chain(&Acceptor::new(config, &[]).get().err().unwrap());
    assert!(why(&config).contains("others may read the key"), "{}", why(&config));
    std::fs::write(at("cert"), "nothing").unwrap();
    assert!(why(&config).ends_with("holds no certificate in PEM"), "{}", why(&config));
    std::fs::remove_file(at("cert")).unwrap();
    assert!(why(&config).contains("No such file"), "{}", why(&config));
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_as_a_failure() {
    let net = Net::new(&[]);
    let taken = TcpListener::bind(LOCAL).await.unwrap();
    let address = taken.local_addr().unwrap();
    let host = "atlas".parse().unwrap();
    let task = tokio::spawn(receive(Listen::Tcp(address), host, net.senders.clone(), net.lab.means.clone()));
    let source = format!("syslog tcp {address}");
    net.lab.until(&source, |reading| matches!(reading.state, State::Failing(_))).await;
    net.lab.means.stop.cancel();
    task.await.unwrap();
}

#[test]
fn the_drops_of_the_kernel_are_found_by_port() {
    let socket = std::net::UdpSocket::bind(LOCAL).unwrap();
    assert_eq!(kernel_drops(socket.local_addr().unwrap().port()), Some(0));
}
