//! Asks the guest's kernel on the network, where it can be asked: an echo, a connection, its neighbour
//! entry.
//!
//! Only for addresses that the configuration names or that belong to a tap device of ours (A16). Behind
//! QEMU's user networking the host itself answers for the guest: there is nothing to see, and nothing is
//! told. Our own trouble (no permission, no route) is no sign either.

use super::awaited;
use holdfast_core::signal::NetworkSign;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Packets that are listened to while one answer is waited for.
const MOST_HEARD: u32 = 1_000;

/// A way to a guest's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// An ICMP echo.
    Ping(IpAddr),
    /// A TCP connection. Refused is an answer too: the kernel gave it.
    Tcp(SocketAddr),
    /// The entry of `/proc/net/arp`. It tells only that nobody answers: what is complete may be old.
    Arp(Ipv4Addr),
}

/// Looks once, for at most `limit`. `None`: nothing can be said.
pub async fn look(way: Way, limit: Duration) -> Option<NetworkSign> {
    match way {
        Way::Ping(address) if can_be_a_guest(address) => told(ping(address, limit).await),
        Way::Tcp(address) if can_be_a_guest(address.ip()) => told(connect(address, limit).await),
        Way::Arp(address) if can_be_a_guest(address.into()) => {
            let mut table = String::new();
            std::fs::File::open("/proc/net/arp").ok()?.take(1 << 20).read_to_string(&mut table).ok()?;
            let silent = neighbour(&table, address) == Some(Neighbour::Incomplete);
            silent.then_some(NetworkSign::NoAnswer { waited: Duration::ZERO })
        }
        Way::Ping(_) | Way::Tcp(_) | Way::Arp(_) => None,
    }
}

/// A kernel that answers an echo or a connection lives; a neighbour entry can only say that it does not.
pub async fn ask_kernel(address: IpAddr, port: u16, limit: Duration) -> Option<NetworkSign> {
    let half = limit / 2;
    let mut sign = look(Way::Ping(address), half).await;
    if !matches!(sign, Some(NetworkSign::Answered { .. })) {
        sign = look(Way::Tcp(SocketAddr::new(address, port)), half).await.or(sign);
    }
    match (sign, address) {
        (None, IpAddr::V4(address)) => look(Way::Arp(address), half).await,
        (sign, _) => sign,
    }
}

/// An address at which this host, or nobody, or everybody would answer.
const fn can_be_a_guest(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast()),
    }
}

/// Our own trouble is said once, and no sign.
fn told(looked: io::Result<NetworkSign>) -> Option<NetworkSign> {
    static SAID: Once = Once::new();
    looked
        .inspect_err(|error| {
            SAID.call_once(|| tracing::warn!(%error, "the network towards a guest cannot be looked at"));
        })
        .ok()
}

async fn connect(address: SocketAddr, limit: Duration) -> io::Result<NetworkSign> {
    let asked = Instant::now();
    let answered = match timeout(limit, TcpStream::connect(address)).await {
        Err(_elapsed) => false,
        Ok(Ok(_stream)) => true,
        Ok(Err(error)) => {
            let kind = error.kind();
            let refused = matches!(kind, io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset);
            if !refused && !matches!(kind, io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut) {
                return Err(error);
            }
            refused
        }
    };
    Ok(sign(answered, asked))
}

fn sign(answered: bool, asked: Instant) -> NetworkSign {
    let took = asked.elapsed();
    if answered { NetworkSign::Answered { latency: took } } else { NetworkSign::NoAnswer { waited: took } }
}

/// One echo request (RFC 792, RFC 4443), through a ping socket where the kernel allows it and a raw one
/// otherwise.
async fn ping(address: IpAddr, limit: Duration) -> io::Result<NetworkSign> {
    let asked = Instant::now();
    let (socket, raw) = open(address)?;
    rustix::net::connect(&socket, &SocketAddr::new(address, 0))?; // from now on it hears nobody else
    let echo = Echo::new(address.is_ipv4());
    match rustix::net::send(&socket, &echo.request(), SendFlags::NOSIGNAL) {
        Ok(_) => {}
        Err(Errno::HOSTUNREACH | Errno::HOSTDOWN) => return Ok(sign(false, asked)),
        Err(error) => return Err(error.into()),
    }
    let socket = awaited(socket)?;
    let hear = async {
        let mut heard = [0; 1500];
        for _ in 0..MOST_HEARD {
            let mut ready = socket.readable().await?;
            let read =
                ready.try_io(|socket| Ok(rustix::net::recv(socket, &mut heard, RecvFlags::DONTWAIT)?.0));
            match read {
                Ok(Ok(length)) if echo.is_answered_by(&heard[..length.min(heard.len())], raw) => {
                    return Ok(true);
                }
                Ok(Ok(_)) | Err(_) => {} // for somebody else on this host, or nothing yet
                Ok(Err(error)) if error.kind() == io::ErrorKind::HostUnreachable => return Ok(false),
                Ok(Err(error)) => return Err(error),
            }
        }
        Err(io::Error::other("too many other packets"))
    };
    match timeout(limit, hear).await {
        Ok(answered) => answered.map(|answered| sign(answered, asked)),
        Err(_elapsed) => Ok(sign(false, asked)),
    }
}

/// A socket for echoes, and whether it is a raw one.
fn open(address: IpAddr) -> io::Result<(OwnedFd, bool)> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let open = |kind| rustix::net::socket_with(family, kind, flags, Some(protocol));
    match open(SocketType::DGRAM) {
        Ok(socket) => Ok((socket, false)),
        Err(Errno::ACCESS | Errno::PERM | Errno::PROTONOSUPPORT) => Ok((open(SocketType::RAW)?, true)),
        Err(error) => Err(error.into()),
    }
}

/// A question that only its own answer fits.
#[derive(Clone, Copy, Debug)]
struct Echo {
    v4: bool,
    number: u16,
    mark: [u8; 16],
}

impl Echo {
    fn new(v4: bool) -> Self {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let number = ASKED.fetch_add(1, Relaxed);
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let mut mark = [0; 16];
        mark[..4].copy_from_slice(&std::process::id().to_be_bytes());
        mark[4..8].copy_from_slice(&number.to_be_bytes());
        mark[8..].copy_from_slice(&(time.tv_sec.wrapping_shl(30) ^ time.tv_nsec).to_be_bytes());
        Self { v4, number: (number & 0xffff) as u16, mark }
    }

    /// Kind, code, checksum, identifier (a ping socket puts in its own), number, mark.
    fn request(&self) -> [u8; 24] {
        let mut request = [0; 24];
        request[0] = if self.v4 { 8 } else { 128 };
        request[4..6].copy_from_slice(&self.mark[2..4]);
        request[6..8].copy_from_slice(&self.number.to_be_bytes());
        request[8..].copy_from_slice(&self.mark);
        if self.v4 {
            let sum = checksum(&request); // the kernel makes the one of version 6
            request[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        request
    }

    fn is_answered_by(&self, heard: &[u8], raw: bool) -> bool {
        let message = if raw && self.v4 { behind_ip(heard) } else { Some(heard) };
        let kind = if self.v4 { 0 } else { 129 };
        message.is_some_and(|message| {
            message.len() == 24
                && message[..2] == [kind, 0]
                && message[6..8] == self.number.to_be_bytes()
                && message[8..] == self.mark
        })
    }
}

/// What follows an IPv4 header (RFC 791), which raw sockets hand out too.
fn behind_ip(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header < 20 { None } else { packet.get(header..) }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What this host knows of a neighbour's hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    /// It answered once.
    Complete,
    /// It is asked, and has not answered.
    Incomplete,
}

/// A row of `/proc/net/arp`: address, hardware type, flags (`ATF_COM` is 2), hardware address, mask, device.
fn neighbour(table: &str, address: Ipv4Addr) -> Option<Neighbour> {
    table.lines().skip(1).find_map(|row| {
        let mut fields = row.split_ascii_whitespace();
        let of: Ipv4Addr = fields.next()?.parse().ok()?;
        let flags = u32::from_str_radix(fields.nth(1)?.strip_prefix("0x")?, 16).ok()?;
        let state = if flags & 2 == 0 { Neighbour::Incomplete } else { Neighbour::Complete };
        (of == address).then_some(state)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHORT: Duration = Duration::from_millis(200);
    const AMPLE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn this_host_does_not_answer_for_a_guest() {
        for address in
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "255.255.255.255", "224.0.0.1", "::1", "::", "ff02::1"]
        {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(look(Way::Ping(address), AMPLE).await, None, "{address}");
            assert_eq!(look(Way::Tcp(SocketAddr::new(address, 1)), AMPLE).await, None, "{address}");
        }
        assert_eq!(look(Way::Arp(Ipv4Addr::LOCALHOST), AMPLE).await, None);
    }

    #[tokio::test]
    async fn a_kernel_answers_an_echo_where_we_may_send_one() {
        for address in ["127.0.0.1", "::1"] {
            match ping(address.parse().unwrap(), AMPLE).await {
                Ok(NetworkSign::Answered { latency }) => assert!(latency <= AMPLE),
                // No permission, or no IPv6 here: our own trouble, and no sign.
                Err(error) => assert_eq!(told(Err(error)), None),
                Ok(sign) => panic!("{address}: {sign:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_kernel_answers_a_connection_also_by_refusing_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(matches!(connect(address, AMPLE).await, Ok(NetworkSign::Answered { .. })));
        drop(listener);
        assert!(matches!(connect(address, AMPLE).await, Ok(NetworkSign::Answered { .. })));
    }

    #[tokio::test]
    async fn a_kernel_that_drops_connections_gives_no_answer() {
        let busy = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&busy, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&busy, 0).unwrap();
        let address: SocketAddr = rustix::net::getsockname(&busy).unwrap().try_into().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(SHORT, TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        assert!(matches!(connect(address, SHORT).await, Ok(NetworkSign::NoAnswer { .. })));
    }

    #[test]
    fn only_its_own_answer_fits_a_question() {
        let echo = Echo::new(true);
        let mut answer = echo.request();
        assert!(!echo.is_answered_by(&answer, false), "its own question, heard on loopback");
        answer[0] = 0;
        assert!(echo.is_answered_by(&answer, false));
        let packet = [&[0x45][..], &[0; 19], &answer].concat();
        assert!(echo.is_answered_by(&packet, true));
        assert!(!Echo::new(true).is_answered_by(&answer, false), "the answer to another question");
        assert!(!echo.is_answered_by(&answer[..23], false));
        assert_ne!(echo.mark, Echo::new(true).mark);
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        let example = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]; // RFC 1071, section 3
        assert_eq!(checksum(&example), !0xddf2);
        assert_eq!(checksum(&Echo::new(true).request()), 0);
        assert_eq!(checksum(&[]), 0xffff);
    }

    #[test]
    fn a_neighbour_is_looked_up() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     10.77.0.50       0x1         0x2         52:54:00:12:34:56     *        tap0\n\
                     10.77.0.51       0x1         0x0         00:00:00:00:00:00     *        tap0\n";
        let state = |last| neighbour(table, Ipv4Addr::new(10, 77, 0, last));
        assert_eq!(state(50), Some(Neighbour::Complete));
        assert_eq!(state(51), Some(Neighbour::Incomplete));
        assert_eq!(state(52), None);
    }

    proptest! {
        #[test]
        fn any_packet_is_read(heard in proptest::collection::vec(any::<u8>(), 0..80), raw: bool, v4: bool) {
            prop_assert!(!Echo::new(v4).is_answered_by(&heard, raw));
        }

        #[test]
        fn any_table_is_read(table in "([0-9.]{7,15} +0x[0-9a-f]{1,9} +0x[0-9a-f]{0,9}[ \n]*|[ -~\n]){0,20}") {
            neighbour(&table, Ipv4Addr::new(10, 0, 0, 1));
        }
    }
}
