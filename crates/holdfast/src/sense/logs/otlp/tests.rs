//! Senders of OTLP on the loopback: honest, strange and hostile.
#![expect(clippy::unwrap_used, reason = "tests")]

mod tls;

use super::super::testing::{FakeGuest, Lab};
use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use holdfast_fuzz::memory::{Peak, alone};
use holdfast_logs::Record;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub struct Net {
    pub lab: Lab,
    pub to: SocketAddr,
}

impl Net {
    pub async fn new(speech: Speech, known: &str) -> Self {
        Self::with(speech, known, None).await
    }

    async fn with(speech: Speech, known: &str, tls: Option<TlsConfig>) -> Self {
        let lab = Lab::new(FakeGuest::away());
        let senders = Senders::default();
        let whose: BTreeMap<IpAddr, Subject> =
            [(known.parse().unwrap(), Subject::Guest("orders".parse().unwrap()))].into();
        senders.configure(&lab.means, "otlp", &whose);
        let listener = lab.means.feed(Subject::Host("atlas".parse().unwrap()), "listener");
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        let listen = Listen { speech, address: to, tls };
        tokio::spawn(async move { connections(&listen, socket, &senders, &listener).await });
        Self { lab, to }
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let stream = TcpStream::connect(self.to).await.unwrap();
        ask(stream, request).await.unwrap()
    }
}

/// The status, the headers with the trailers, and the body.
pub type Answer = (u16, header::HeaderMap, Vec<u8>);

/// Sends a request over a connection.
async fn ask<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = TokioIo::new(stream);
    let response = if request.version() == hyper::Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    let (status, mut headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await?;
    headers.extend(body.trailers().cloned().unwrap_or_default());
    Ok((status, headers, body.to_bytes().to_vec()))
}

pub fn json(text: &str) -> String {
    format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"host.name","value":{{"stringValue":"other"}}}}]}},
        "scopeLogs":[{{"logRecords":[{{"timeUnixNano":"1764150000000000000","severityNumber":17,
        "body":{{"stringValue":"{text}"}}}}]}}]}}]}}"#
    )
}

/// The same in protobuf, as short as it can be: resource_logs, scope_logs, log_records, body, string_value.
pub fn proto(text: &str) -> Vec<u8> {
    let within = |field: u8, inner: Vec<u8>| {
        [vec![field << 3 | 2, u8::try_from(inner.len()).unwrap()], inner].concat()
    };
    within(1, within(2, within(2, within(5, within(1, text.as_bytes().to_vec())))))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub fn post(kind: &str, encoding: Option<&str>, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::post("/v1/logs").header("content-type", kind);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    request.body(Full::new(body.into())).unwrap()
}

pub fn call(path: &str, frame: Vec<u8>, packed: bool) -> Request<Full<Bytes>> {
    let mut request = Request::post(format!("http://holdfast{path}"))
        .version(hyper::Version::HTTP_2)
        .header("content-type", "application/grpc");
    if packed {
        request = request.header("grpc-encoding", "gzip");
    }
    request.body(Full::new(frame.into())).unwrap()
}

pub fn framed(packed: u8, message: &[u8]) -> Vec<u8> {
    [&[packed][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

#[tokio::test]
async fn json_and_protobuf_packed_or_not_are_the_vms_whatever_host_they_name() {
    let mut net = Net::new(Speech::Http, "127.0.0.1").await;
    for (kind, encoding, body) in [
        ("application/json; charset=utf-8", None, json("hello").into_bytes()),
        ("application/json", Some("gzip"), gzip(json("hello").as_bytes())),
        ("application/x-protobuf", Some("identity"), proto("hello")),
        ("application/x-protobuf", Some("gzip"), gzip(&proto("hello"))),
    ] {
        let (status, headers, body) = net.send(post(kind, encoding, body)).await;
        assert_eq!(status, 200);
        assert_eq!(headers["content-type"], kind.split(';').next().unwrap());
        assert_eq!(body, if kind.starts_with("application/json") { &b"{}"[..] } else { b"" });
        let entry = net.lab.next().await;
        assert_eq!((entry.record.text.as_str(), entry.source.as_str()), ("hello", "otlp"));
        assert_eq!(entry.subject, Subject::Guest("orders".parse().unwrap()));
    }
    assert_eq!(net.lab.until("otlp", |reading| reading.records == 4).await.state, State::Receiving);
}

#[tokio::test]
async fn grpc_is_answered_as_grpc() {
    let mut net = Net::new(Speech::Grpc, "127.0.0.1").await;
    for (packed, message) in [(0, proto("hello")), (1, gzip(&proto("hello")))] {
        let (status, headers, body) = net.send(call(GRPC_PATH, framed(packed, &message), packed == 1)).await;
        assert_eq!(
            (status, headers["grpc-status"].as_bytes(), body.as_slice()),
            (200, &b"0"[..], &[0; 5][..])
        );
        assert_eq!(net.lab.next().await.record.text, "hello");
    }
    for (request, code) in [
        (call("/other.Service/Export", framed(0, &proto("x")), false), "12"),
        (call(GRPC_PATH, framed(0, &proto("x"))[..8].to_vec(), false), "3"),
        (call(GRPC_PATH, framed(1, b"no gzip"), true), "3"),
        (call(GRPC_PATH, framed(2, &proto("x")), false), "3"),
        (call(GRPC_PATH, framed(0, b"\x0a\xff\xff"), false), "3"),
        (call(GRPC_PATH, framed(1, &gzip(&vec![0; 5 << 20])), true), "8"),
    ] {
        let (status, headers, _) = net.send(request).await;
        assert_eq!((status, headers["grpc-status"].to_str().unwrap()), (200, code));
        assert!(!headers["grpc-message"].is_empty());
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_the_form_of_the_sender() {
    let net = Net::new(Speech::Http, "127.0.0.1").await;
    let get =
        Request::get("/v1/logs").header("content-type", "application/json").body(Full::default()).unwrap();
    let traces = Request::post("/v1/traces").header("content-type", "application/json").body(Full::default());
    for (request, code, why) in [
        (get, 405, "logs are sent with POST"),
        (traces.unwrap(), 404, "logs are sent to /v1/logs"),
        (post("text/plain", None, "x"), 415, "the type is not"),
        (post("application/json", Some("br"), "x"), 415, "only gzip"),
        (post("application/json", Some("gzip"), "x"), 400, "it is no gzip"),
        (post("application/json", None, "{"), 400, "not an OTLP message in JSON"),
        (post("application/x-protobuf", None, vec![0x0a, 0xff]), 400, "not an OTLP message in protobuf"),
        (post("application/json", None, vec![b' '; (4 << 20) + 100]), 413, "at most 4 MiB"),
    ] {
        let (status, _, body) = net.send(request).await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, code, "{body}");
        assert!(body.contains(why), "{body}");
    }
}

#[test]
fn a23_a_gzip_bomb_costs_four_mebibytes_twice_while_its_room_grows() {
    alone(
        "sense::logs::otlp::tests::a23_a_gzip_bomb_costs_four_mebibytes_twice_while_its_room_grows",
        || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(bombs());
        },
    );
}

/// Packed a thousand times smaller, sent by thirty at a time: one at a time is unpacked.
async fn bombs() {
    let net = Net::new(Speech::Http, "127.0.0.1").await;
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let peak = Peak::start();
    let (status, _, body) = net.send(post("application/json", Some("gzip"), bomb.clone())).await;
    assert_eq!(status, 413, "{}", String::from_utf8_lossy(&body));
    peak.is_below("a gzip bomb", 12);
    let all = (0..30).map(|_| net.send(post("application/json", Some("gzip"), bomb.clone())));
    for (status, ..) in futures_util::future::join_all(all).await {
        assert!([413, 429].contains(&status), "{status}");
    }
    peak.is_below("30 gzip bombs", 20);
}

#[test]
fn i18_requests_of_as_many_records_as_may_be_and_of_only_depth_are_bounded() {
    alone(
        "sense::logs::otlp::tests::i18_requests_of_as_many_records_as_may_be_and_of_only_depth_are_bounded",
        || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(large_requests());
        },
    );
}

/// Small requests whose records are large, for each says again what their resource says; nobody takes them. In memory are
/// what waits (8 MiB), the records of those that are taken, and of one that is read (32 MiB each), and that request.
async fn large_requests() {
    let net = Net::new(Speech::Http, "127.0.0.1").await;
    let value = "x".repeat(250);
    let said: Vec<String> = (0..5)
        .map(|number| format!(r#"{{"key":"k{number}","value":{{"stringValue":"{value}"}}}}"#))
        .collect();
    let many = format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{}]}},"scopeLogs":[{{"logRecords":[{}{{}}]}}]}}]}}"#,
        said.join(","),
        "{},".repeat(16_000)
    );
    assert!(many.len() < 64 << 10);
    let deep = format!(r#"{{"resourceLogs":{}"#, "[".repeat(3 << 20));
    let (many, deep) = (Bytes::from(many), Bytes::from(deep));
    let peak = Peak::start();
    let (status, ..) = net.send(post("application/json", None, deep)).await;
    assert_eq!(status, 400);
    peak.is_below("a request that is only depth", 24);
    let all = (0..12).map(|_| net.send(post("application/json", None, many.clone())));
    let all = futures_util::future::join_all(all).await;
    let count = |code: u16| all.iter().filter(|(status, ..)| *status == code).count();
    assert!(count(200) > 0 && count(429) > 0 && count(200) + count(429) == 12, "{}", count(200));
    peak.is_below("large requests", 96);
}

#[tokio::test]
async fn a_stranger_is_dropped_and_counted() {
    let net = Net::new(Speech::Http, "127.0.0.2").await;
    let mut stream = TcpStream::connect(net.to).await.unwrap();
    let _ = stream.write_all(b"POST /v1/logs HTTP/1.1\r\n").await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    net.lab.until("listener", |reading| reading.dropped == 1).await;
}

#[tokio::test]
async fn a22_a_connection_that_does_not_begin_as_http_2_does_ends() {
    let short = Duration::from_millis(50);
    for half in [&b""[..], &PREFACE[..23]] {
        let (mut peer, one) = tokio::io::duplex(64);
        peer.write_all(half).await.unwrap();
        assert_eq!(begun(one, short).await.err(), Some(NotBegun::Silent), "it is still open");
    }
    let (mut peer, one) = tokio::io::duplex(64);
    peer.write_all(&[PREFACE, &b"more"[..]].concat()).await.unwrap();
    peer.shutdown().await.unwrap();
    let (mut whole, mut one) = (Vec::new(), begun(one, HEAD).await.unwrap());
    one.read_to_end(&mut whole).await.unwrap();
    assert_eq!(whole, [PREFACE, &b"more"[..]].concat());

    let net = Net::new(Speech::Grpc, "127.0.0.1").await;
    let stream = TcpStream::connect(net.to).await.unwrap();
    assert!(ask(stream, post("application/json", None, json("to the other port"))).await.is_err());
    net.lab.until("otlp", |reading| reading.dropped == 1).await;
}

#[tokio::test]
async fn i18_a_peer_over_http_2_may_send_little_before_it_is_read() {
    let net = Net::new(Speech::Grpc, "127.0.0.1").await;
    let mut stream = TcpStream::connect(net.to).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap(); // settings: none
    // A length of three bytes, a type, flags, four bytes of a stream.
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "settings");
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    stream.read_exact(&mut settings).await.unwrap();
    let of = |number: u8| {
        let found = settings.chunks(6).find(|setting| setting[..2] == [0, number]);
        found.map(|setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
    };
    assert_eq!((of(3), of(4), of(6)), (Some(MOST_CALLS), Some(WINDOW), Some(MOST_HEAD)));
    loop {
        stream.read_exact(&mut head).await.unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        stream.read_exact(&mut rest).await.unwrap();
        if head[3] == 8 {
            let more = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
            assert_eq!(65_535 + more, 2 * WINDOW, "of the whole connection");
            return;
        }
    }
}

#[tokio::test]
async fn what_finds_no_room_is_told_to_the_sender() {
    let net = Net::new(Speech::Http, "127.0.0.1").await;
    let feed = net.lab.means.feed(Subject::Guest("other".parse().unwrap()), "full");
    for _ in 0..20_000 {
        feed.offer(Record { text: "x".into(), ..Record::default() }.into());
    }
    let (status, _, body) = net.send(post("application/json", None, json("late"))).await;
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&body).contains(r#""rejectedLogRecords":"1""#), "{body:?}");
    assert_eq!(net.lab.until("otlp", |_| true).await.dropped, 1);
    let taken =
        Reply::Taken { rejected: 300 }.write(Form::Proto).into_body().collect().await.unwrap().to_bytes();
    assert_eq!(taken[..5], [0x0a, 3 + 2 + 35, 0x08, 0xac, 0x02]);
}
