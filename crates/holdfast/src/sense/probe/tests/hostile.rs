//! Servers that misbehave.

use super::super::fake::{Fake, Manner, closed_port, target};
use super::*;
use crate::sense::probe::http::TlsError;
use holdfast_core::written::Written;

#[tokio::test]
async fn nobody_listens_is_refused_however_it_shows() {
    let gone = closed_port().await;
    let close = Fake::start(Manner::Close).await;
    let reset = Fake::start(Manner::Reset).await;
    for at in [gone, close.target(), reset.target()] {
        for probe in all(&at) {
            let (how, text) = failure(&probe, AMPLE).await;
            assert_eq!(how, ProbeFailure::Refused, "{probe:?}: {text}");
        }
        let (how, text) = failure(&Probe::Tcp(Tcp { at, banner: None }), AMPLE).await;
        assert_eq!(how, ProbeFailure::Refused, "tcp without a banner: {text}");
    }
}

#[tokio::test]
async fn a_stopped_server_takes_the_connection_and_gives_no_answer() {
    let mute = Fake::start(Manner::Mute).await;
    for probe in all(&mute.target()) {
        let (how, text) = failure(&probe, SHORT).await;
        assert_eq!((how, text.as_str()), (ProbeFailure::NoAnswer, "no answer within 0.3s"), "{probe:?}");
    }
}

#[tokio::test]
async fn one_byte_now_and_then_is_no_answer() {
    // Bytes with which each protocol could begin, so that the probes go on waiting.
    for (byte, kinds) in [(b'N', 0..1), (0, 1..2), (b'+', 2..3), (b'\n', 3..4), (22, 4..5), (b'2', 5..6)] {
        let drip = Fake::start(Manner::Drip(byte)).await;
        for probe in &all(&drip.target())[kinds] {
            let (how, text) = failure(probe, SHORT).await;
            let expected = [ProbeFailure::NoAnswer, ProbeFailure::Wrong]; // wrong: it was seen to be nonsense
            assert!(expected.contains(&how), "{probe:?}: {how:?} {text}");
        }
    }
}

#[tokio::test]
async fn an_endless_answer_is_wrong_and_cut_off() {
    for byte in [0, b'\n', b'+', b'N', b'x', 0xff] {
        let endless = Fake::start(Manner::Endless(byte)).await;
        for probe in all(&endless.target()) {
            let (how, text) = failure(&probe, AMPLE).await;
            assert_eq!(how, ProbeFailure::Wrong, "{byte} {probe:?}: {text}");
        }
    }
}

#[tokio::test]
async fn another_protocol_is_a_wrong_answer() {
    let ssh = Fake::start(Manner::Greet(b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec())).await;
    for probe in all(&ssh.target()) {
        let (how, text) = failure(&probe, SHORT).await;
        assert!([ProbeFailure::Wrong, ProbeFailure::NoAnswer].contains(&how), "{probe:?}: {how:?} {text}");
    }
    answered(&banner(ssh.target(), "SSH-2.0")).await;
    answered(&Probe::Tcp(Tcp { at: ssh.target(), banner: None })).await;
}

#[tokio::test]
async fn a_port_that_stays_open_is_enough_where_no_banner_is_asked_for() {
    let mute = Fake::start(Manner::Mute).await;
    answered(&Probe::Tcp(Tcp { at: mute.target(), banner: None })).await;
}

#[tokio::test]
async fn a_host_that_takes_no_connection_is_unreachable() {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    // A full queue: the kernel of this host drops what would connect.
    let busy = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&busy, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&busy, 0).unwrap();
    let address: std::net::SocketAddr = getsockname(&busy).unwrap().try_into().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    for probe in all(&target(address)) {
        let (how, text) = failure(&probe, SHORT).await;
        assert_eq!((how, text.as_str()), (ProbeFailure::Unreachable, "not connected within 0.3s"));
    }
}

/// A message of PostgreSQL: kind, length, body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn error(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0").as_bytes())
}

#[tokio::test]
async fn what_postgres_says_of_itself_is_understood() {
    for (code, text, how) in [
        ("57P03", "the database system is starting up", ProbeFailure::Starting),
        ("57P03", "the database system is shutting down", ProbeFailure::Starting),
        ("53300", "sorry, too many clients already", ProbeFailure::Exhausted),
        ("28P01", "password authentication failed for user \"app\"", ProbeFailure::Denied),
        ("28000", "no pg_hba.conf entry for host", ProbeFailure::Denied),
        ("3D000", "database \"orders\" does not exist", ProbeFailure::Denied),
        ("42501", "permission denied for table orders", ProbeFailure::Denied),
        ("53100", "could not extend file: No space left on device", ProbeFailure::Wrong),
        ("25006", "cannot execute INSERT in a read-only transaction", ProbeFailure::Wrong),
        ("XX001", "invalid page in block 0 of relation", ProbeFailure::Wrong),
    ] {
        let server = Fake::start(Manner::Converse(vec![error(code, text)])).await;
        let (said, shown) = failure(&postgres(server.target()), AMPLE).await;
        assert_eq!(said, how, "{shown}");
        assert!(shown.contains(text) && shown.contains(code), "{shown}");
    }
}

/// A row, and that more may be asked.
fn row(fields: &[&str]) -> Vec<u8> {
    let count = u16::try_from(fields.len()).unwrap().to_be_bytes();
    let described: Vec<u8> = fields.iter().flat_map(|_| [&b"n\0"[..], &[0; 18]].concat()).collect();
    let field =
        |field: &&str| [&u32::try_from(field.len()).unwrap().to_be_bytes(), field.as_bytes()].concat();
    let data: Vec<u8> = fields.iter().flat_map(field).collect();
    let (described, data) = ([&count[..], &described].concat(), [&count[..], &data].concat());
    let ready = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    [message(b'T', &described), message(b'D', &data), ready].concat()
}

#[tokio::test]
async fn how_much_postgres_has_written_is_told_beside_its_answer_and_never_in_its_way() {
    let login = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    let no = [message(b'E', b"SERROR\0C42883\0Mno such function\0\0"), message(b'Z', b"I")].concat();
    let written = Written { rows: 1_204, log: u64::MAX, since: 1_700_000_000_000_000 };
    for (says, told) in [
        (Some(row(&["1204", "18446744073709551615", "1700000000000000"])), Some(Ok(written))),
        (Some(row(&["-1", "1", "1"])), Some(Err(Untold::Never))),
        (Some(row(&["1", "18446744073709551616", "1"])), Some(Err(Untold::Never))),
        (Some(row(&["many"])), Some(Err(Untold::Never))),
        (Some(no), Some(Err(Untold::Never))),
        (None, Some(Err(Untold::Now))), // it closes the connection
    ] {
        let words = [login.clone(), row(&["1"])].into_iter().chain(says);
        let server = Fake::start(Manner::Converse(words.collect())).await;
        let aside = Aside::default();
        let probe = postgres(server.target()).telling(Some(aside.clone()));
        assert!(matches!(ask(&probe, AMPLE).await, AppSign::Answered { .. }), "{told:?}");
        assert_eq!(aside.take(), told);
    }
    let mute = Fake::start(Manner::Converse(vec![login, row(&["1"]), Vec::new(), Vec::new()])).await;
    let aside = Aside::default();
    let probe = postgres(mute.target()).telling(Some(aside.clone()));
    assert!(
        matches!(ask(&probe, SHORT).await, AppSign::Answered { .. }),
        "what it does not say is no trouble"
    );
    assert_eq!(aside.take(), None);
}

#[tokio::test]
async fn escape_codes_of_a_server_are_not_shown() {
    let server =
        Fake::start(Manner::Converse(vec![error("XX000", "\x1b[2J\x1b]0;x\x07 \u{202e} gone")])).await;
    let (_, text) = failure(&postgres(server.target()), AMPLE).await;
    assert!(text.contains("\\x1b[2J") && !text.chars().any(char::is_control), "{text}");
    let server = Fake::start(Manner::Converse(vec![error("XX000", &"long ".repeat(5_000))])).await;
    let (_, text) = failure(&postgres(server.target()), AMPLE).await;
    assert!(text.ends_with('…'), "{text}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_password_we_do_not_have_denies_us() {
    let server = Fake::start(Manner::Converse(vec![message(b'R', &3_u32.to_be_bytes())])).await;
    assert_eq!(failure(&postgres(server.target()), AMPLE).await.0, ProbeFailure::Denied);
    let server = Fake::start(Manner::Converse(vec![message(b'R', &7_u32.to_be_bytes())])).await;
    assert_eq!(failure(&postgres(server.target()), AMPLE).await.0, ProbeFailure::Internal); // GSSAPI
}

#[tokio::test]
async fn a_login_that_would_cost_hours_is_not_paid() {
    let sasl = [&10_u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat();
    let cost = [&11_u32.to_be_bytes()[..], b"r=,s=c2FsdA==,i=4294967295"].concat();
    let server = Fake::start(Manner::Converse(vec![message(b'R', &sasl), message(b'R', &cost)])).await;
    let Probe::Postgres(mut probe) = postgres(server.target()) else { unreachable!() };
    probe.password = Some(Password("secret".into()));
    let (how, text) = failure(&Probe::Postgres(probe), AMPLE).await;
    assert!([ProbeFailure::Wrong, ProbeFailure::Internal].contains(&how), "{how:?} {text}");
}

#[tokio::test]
async fn postgres_that_dies_in_the_middle_is_wrong() {
    let server = Fake::start(Manner::Converse(vec![message(b'R', &0_u32.to_be_bytes())])).await;
    let (how, text) = failure(&postgres(server.target()), AMPLE).await;
    assert_eq!((how, text.as_str()), (ProbeFailure::Wrong, "closed the connection after 9 bytes"));
}

#[tokio::test]
async fn what_a_command_prints_is_taken_without_its_errors_and_bounded_in_time_and_length() {
    let sh = |script: &str| {
        Probe::Command(Command { argv: ["/bin/sh", "-c", script].map(ToOwned::to_owned).into() })
    };
    assert_eq!(answer(&sh("echo 42; echo a warning >&2"), None, AMPLE).await, Ok("42".into()));
    let failed = |script: &'static str| async move { answer(&sh(script), None, AMPLE).await.unwrap_err() };
    assert_eq!(failed("echo 42; echo 'no\x07 database' >&2; exit 3").await, "exit code 3: no\\x07 database");
    assert_eq!(failed("echo 42; exit 3").await, "exit code 3: 42");
    for flood in ["yes", "yes >&2"] {
        assert!(failed(flood).await.ends_with("printed more than 1 MiB"), "{flood}");
    }
    let late = answer(&sh("sleep 1000"), None, SHORT).await.unwrap_err();
    assert!(late.starts_with("did not end within"), "{late}");
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_says_why() {
    let server =
        Fake::start(Manner::Converse(vec![error("42P01", "relation \"jobs\" does not exist")])).await;
    let why = answer(&postgres(server.target()), None, AMPLE).await.unwrap_err();
    assert!(why.contains("relation \"jobs\" does not exist") && why.contains("42P01"), "{why}");
    let tcp = Probe::Tcp(Tcp { at: server.target(), banner: None });
    assert_eq!(answer(&tcp, None, AMPLE).await.unwrap_err(), "it answers no queries");
}

#[tokio::test]
async fn what_redis_says_of_itself_is_understood() {
    for (said, how) in [
        ("-LOADING Redis is loading the dataset in memory\r\n", ProbeFailure::Starting),
        ("-ERR max number of clients reached\r\n", ProbeFailure::Exhausted),
        ("-NOAUTH Authentication required.\r\n", ProbeFailure::Denied),
        ("+PING\r\n", ProbeFailure::Wrong),
        ("*2147483647\r\n", ProbeFailure::Wrong),
    ] {
        let server = Fake::start(Manner::Converse(vec![said.into()])).await;
        let (found, text) = failure(&redis(server.target()), AMPLE).await;
        assert_eq!(found, how, "{said}: {text}");
    }
    answered(&redis(Fake::start(Manner::Converse(vec!["+PONG\r\n".into()])).await.target())).await;
}

#[tokio::test]
async fn what_mysql_says_of_itself_is_understood() {
    for (code, how) in [
        (1040_u16, ProbeFailure::Exhausted),
        (1130, ProbeFailure::Denied),
        (1053, ProbeFailure::Starting),
        (1021, ProbeFailure::Wrong),
    ] {
        let body = [&[0xff][..], &code.to_le_bytes(), b"#08004no"].concat();
        let packet = [&[u8::try_from(body.len()).unwrap(), 0, 0, 0][..], &body].concat();
        let server = Fake::start(Manner::Greet(packet)).await;
        let (found, text) = failure(&mysql(server.target()), AMPLE).await;
        assert_eq!(found, how, "{code}: {text}");
    }
}

fn page(head: &str, body: &str) -> Manner {
    Manner::Converse(vec![format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into()])
}

#[tokio::test]
async fn a_status_is_understood() {
    for (head, how) in [
        ("200 OK", None),
        ("302 Found", None),
        ("401 Unauthorized", Some(ProbeFailure::Denied)),
        ("429 Too Many Requests", Some(ProbeFailure::Exhausted)),
        ("500 Internal Server Error", Some(ProbeFailure::Wrong)),
        ("503 Service Unavailable", Some(ProbeFailure::Wrong)),
    ] {
        let server = Fake::start(page(head, "")).await;
        let probe = Probe::Http(http(server.target()));
        match how {
            None => answered(&probe).await,
            Some(how) => assert_eq!(failure(&probe, AMPLE).await, (how, format!("answered {head}"))),
        }
    }
    let server = Fake::start(page("503 Service Unavailable", "")).await;
    answered(&Probe::Http(Http { status: Some(503), ..http(server.target()) })).await;
}

#[tokio::test]
async fn a_text_is_looked_for_in_the_first_64_kib() {
    let looking = |at, text: &str| Probe::Http(Http { contains: Some(text.into()), ..http(at) });
    let server = Fake::start(page("200 OK", "all is well here")).await;
    answered(&looking(server.target(), "is well")).await;
    assert_eq!(failure(&looking(server.target(), "is ill"), AMPLE).await.0, ProbeFailure::Wrong);

    let far = format!("{}well", "x".repeat(100_000));
    let server = Fake::start(page("200 OK", &far)).await;
    let (how, text) = failure(&looking(server.target(), "well"), AMPLE).await;
    assert_eq!((how, text.as_str()), (ProbeFailure::Wrong, "its answer does not hold `well`"));

    let chunks: String = "well".chars().map(|letter| format!("1\r\n{letter}\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    let server = Fake::start(Manner::Converse(vec![answer.into()])).await;
    answered(&looking(server.target(), "well")).await;
}

#[tokio::test]
async fn headers_without_end_are_wrong() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(5_000));
    let server = Fake::start(Manner::Converse(vec![many.into()])).await;
    assert_eq!(failure(&Probe::Http(http(server.target())), AMPLE).await.0, ProbeFailure::Wrong);
}

/// A server with a certificate of its own making, and that certificate.
async fn secure(names: &[&str], until: i32) -> (std::net::SocketAddr, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (address, certificate.pem())
}

#[tokio::test]
async fn https_answers_whom_its_certificate_convinces() {
    let asking = |at, tls| Probe::Http(Http { tls: Some(tls), contains: Some("well".into()), ..http(at) });
    let (address, pem) = secure(&["localhost"], 2400).await;
    answered(&asking(target(address), Tls::authority(pem.as_bytes()).unwrap())).await;
    let (how, text) = failure(&asking(target(address), Tls::public().unwrap()), AMPLE).await;
    assert_eq!(how, ProbeFailure::Internal, "an authority that only we do not know: {text}");

    let (other, pem) = secure(&["elsewhere"], 2400).await;
    let (how, text) = failure(&asking(target(other), Tls::authority(pem.as_bytes()).unwrap()), AMPLE).await;
    assert_eq!(how, ProbeFailure::Internal, "a name that we ask for in vain: {text}");

    let (expired, pem) = secure(&["localhost"], 2001).await;
    let (how, text) = failure(&asking(target(expired), Tls::authority(pem.as_bytes()).unwrap()), AMPLE).await;
    assert_eq!(how, ProbeFailure::Wrong, "a certificate that all clients refuse: {text}");
}

#[test]
fn a_file_without_certificates_trusts_nobody() {
    assert!(matches!(Tls::authority(b""), Err(TlsError::Untrusted)));
    assert!(matches!(Tls::authority(b"nonsense"), Err(TlsError::Untrusted)));
    let broken = b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
    assert!(matches!(Tls::authority(broken), Err(TlsError::Pem(_))));
}

#[test]
fn a_password_shows_itself_nowhere() {
    let Probe::Postgres(mut probe) = postgres(Target { host: "db".into(), port: 5432 }) else {
        unreachable!()
    };
    probe.password = Some(Password("hunter2".into()));
    assert!(!format!("{probe:?}").contains("hunter2"));
}
