//! The same over TLS: who is taken, and who is refused before a word of theirs is read.

use super::super::super::senders;
use super::super::super::testing::{Authority, connect_tls, write_key};
use super::*;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

/// Two authorities, and the files of a listener: the one signed it, the other signs its senders.
struct Trust {
    ours: Authority,
    theirs: Authority,
    folder: TempDir,
}

impl Trust {
    fn new() -> Self {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let trust = Self { ours, theirs, folder: tempfile::tempdir().unwrap() };
        let (cert, key) = trust.ours.sign("logs.example");
        std::fs::write(trust.at("cert"), cert).unwrap();
        write_key(&trust.at("key"), &key);
        std::fs::write(trust.at("senders"), &trust.theirs.pem).unwrap();
        trust
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Anybody may send.
    fn anybody(&self) -> Option<TlsConfig> {
        Some(TlsConfig { cert: self.at("cert"), key: self.at("key"), client_ca: None })
    }

    /// Who has a certificate may send.
    fn certified(&self) -> Option<TlsConfig> {
        self.anybody().map(|files| TlsConfig { client_ca: Some(self.at("senders")), ..files })
    }

    /// Sends a request as one with this certificate, or none; why it could not.
    async fn send(
        &self,
        net: &Net,
        own: Option<(String, String)>,
        spoken: &[&[u8]],
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, String> {
        let stream = connect_tls(net.to, &self.ours.pem, own, spoken).await;
        let stream = stream.map_err(|error| error.to_string())?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), spoken.first().copied(), "the first is agreed upon");
        ask(stream, request).await.map_err(|error| chain(&error))
    }
}

fn hello(http2: bool) -> Request<Full<Bytes>> {
    let mut request = post("application/json", None, json("hello"));
    if http2 {
        *request.version_mut() = hyper::Version::HTTP_2;
        *request.uri_mut() = "https://logs.example/v1/logs".parse().unwrap();
    }
    request
}

#[tokio::test]
async fn http_is_spoken_in_the_version_that_both_agree_upon() {
    let trust = Trust::new();
    let mut net = Net::with(Speech::Http, "127.0.0.1", trust.anybody()).await;
    for (spoken, http2) in [
        (&[][..], false),
        (&[&b"http/1.1"[..]][..], false),
        (&[&b"h2"[..], b"http/1.1"][..], true),
        (&[&b"h2"[..]][..], true),
    ] {
        let (status, _, body) = trust.send(&net, None, spoken, hello(http2)).await.unwrap();
        assert_eq!((status, body.as_slice()), (200, &b"{}"[..]), "{spoken:?}");
        let entry = net.lab.next().await;
        assert_eq!((entry.record.text.as_str(), entry.source.as_str()), ("hello", "otlp"));
        assert_eq!(entry.subject, Subject::Guest("orders".parse().unwrap()));
    }
    assert_eq!(net.lab.until("listener", |_| true).await.dropped, 0);
}

#[tokio::test]
async fn grpc_is_taken_and_http_1_is_not_agreed_upon_there() {
    let trust = Trust::new();
    let mut net = Net::with(Speech::Grpc, "127.0.0.1", trust.anybody()).await;
    let export = || call(GRPC_PATH, framed(1, &gzip(&proto("hello"))), true);
    let (status, headers, _) = trust.send(&net, None, &[b"h2"], export()).await.unwrap();
    assert_eq!((status, headers["grpc-status"].as_bytes()), (200, &b"0"[..]));
    assert_eq!(net.lab.next().await.record.text, "hello");
    let refused = trust.send(&net, None, &[b"http/1.1"], hello(false)).await.unwrap_err();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    net.lab.until("listener", |reading| reading.dropped == 1).await;
}

#[tokio::test]
async fn plain_text_to_a_port_with_tls_is_refused_and_counted_and_none_of_it_is_kept() {
    let trust = Trust::new();
    for speech in [Speech::Http, Speech::Grpc] {
        let mut net = Net::with(speech, "127.0.0.1", trust.anybody()).await;
        let plain = |text| match speech {
            Speech::Http => post("application/json", None, json(text)),
            Speech::Grpc => call(GRPC_PATH, framed(0, &proto(text)), false),
        };
        let stream = TcpStream::connect(net.to).await.unwrap();
        assert!(ask(stream, plain("in the clear")).await.is_err());
        let reading = net.lab.until("listener", |reading| reading.dropped == 1).await;
        assert_eq!(reading.state, State::Following);
        let spoken: &[&[u8]] = if speech == Speech::Grpc { &[b"h2"] } else { &[b"http/1.1"] };
        trust.send(&net, None, spoken, plain("with TLS")).await.unwrap();
        assert_eq!(net.lab.texts(1).await, ["with TLS"]);
    }
}

#[tokio::test]
async fn i19_only_who_has_a_certificate_of_the_right_authority_may_send() {
    let trust = Trust::new();
    for (speech, spoken) in [(Speech::Http, &b"http/1.1"[..]), (Speech::Grpc, b"h2")] {
        let mut net = Net::with(speech, "127.0.0.1", trust.certified()).await;
        let export = |text| match speech {
            Speech::Http => post("application/json", None, json(text)),
            Speech::Grpc => call(GRPC_PATH, framed(0, &proto(text)), false),
        };
        let strangers = [None, Some(trust.ours.sign("orders")), Some(Authority::new().sign("orders"))];
        for own in strangers {
            assert!(trust.send(&net, own, &[spoken], export("of a stranger")).await.is_err());
        }
        net.lab.until("listener", |reading| reading.dropped == 3).await;
        let own = Some(trust.theirs.sign("orders"));
        trust.send(&net, own, &[spoken], export("of the VM")).await.unwrap();
        assert_eq!(net.lab.texts(1).await, ["of the VM"]);
    }
}

#[tokio::test]
async fn a22_half_open_handshakes_of_one_sender_are_few_and_give_their_room_back() {
    let trust = Trust::new();
    let mut net = Net::with(Speech::Grpc, "127.0.0.1", trust.certified()).await;
    let mut held = Vec::new();
    for _ in 0..senders::MOST_CONNECTIONS {
        let mut stream = TcpStream::connect(net.to).await.unwrap();
        stream.write_all(b"\x16\x03\x01\x02\x00").await.unwrap(); // a hello that does not go on
        held.push(stream);
    }
    for _ in 0..100 {
        let mut one_too_many = TcpStream::connect(net.to).await.unwrap();
        assert_eq!(one_too_many.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
    net.lab.until("listener", |reading| reading.dropped == 100).await;
    drop(held);
    net.lab.until("listener", |reading| reading.dropped == 100 + senders::MOST_CONNECTIONS as u64).await;
    let (own, export) =
        (Some(trust.theirs.sign("orders")), call(GRPC_PATH, framed(0, &proto("hello")), false));
    trust.send(&net, own, &[b"h2"], export).await.unwrap();
    assert_eq!(net.lab.texts(1).await, ["hello"]);
}

#[tokio::test]
async fn a06_a_key_that_others_can_read_is_not_used_and_the_source_says_so() {
    let trust = Trust::new();
    std::fs::set_permissions(trust.at("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let lab = Lab::new(FakeGuest::away());
    let address = "127.0.0.1:0".parse().unwrap();
    for (speech, name) in [(Speech::Http, "http"), (Speech::Grpc, "grpc")] {
        let listen = Listen { speech, address, tls: trust.anybody() };
        let receiving = receive(listen, "atlas".parse().unwrap(), Senders::default(), lab.means.clone());
        let receiving = tokio::spawn(receiving);
        let source = format!("otlp {name} tls 127.0.0.1:0");
        let failing = |reading: &super::super::super::health::Reading| matches!(&reading.state, State::Failing(why) if why.contains("others may read the key"));
        lab.until(&source, failing).await;
        receiving.abort();
    }
}
