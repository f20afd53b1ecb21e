//! Hostile senders of OTLP: bodies that are framed, packed and written by an enemy, and whole connections of them. What is
//! looked for is a panic, more bytes than a request may have, room that is not given back, and a listener that is dead.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::tests::{Net, call, framed, gzip, json, post, proto};
use super::*;
use body::{FRAME, collect, unframe, unpack};
use holdfast_fuzz::{Chance, Damage, is_usual, run};
use holdfast_logs::decode::LONGEST_REQUEST;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::header::{HeaderMap, HeaderValue};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const WORDS: [&[u8]; 14] = [
    b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    b"\x1f\x8b\x08\x04\0\0\0\0\0\x03\xff\xff",
    b"\x1f\x8b\x08\x1f\0\0\0\0\0\x03",
    b"\x01\0\0\0\x10",
    b"\0\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x0a\xff\xff\x03",
    b"{\"resourceLogs\":[",
    b"\r\n\r\n",
    b"Content-Length: 99999999999\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff",
    b"\xff\xff\xff\x01\x25\0\0\0\x01",
];

/// Good bodies: written and framed, packed and not.
fn bodies() -> Vec<Vec<u8>> {
    let (text, message) = (json("hello").into_bytes(), proto("hello"));
    vec![
        gzip(&text),
        gzip(&message),
        framed(1, &gzip(&message)),
        framed(0, &message),
        gzip(&vec![b' '; LONGEST_REQUEST + 1]),
        text,
        message,
    ]
}

/// Headers that say it is packed, or something near to that.
fn said(chance: &mut Chance) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let encoding = *chance.one(&["gzip", "gzip", "identity", "", "GZIP", "gzip, gzip", "br"]);
    headers.insert("grpc-encoding", HeaderValue::from_static(encoding));
    headers
}

#[test]
fn fuzz_bodies_that_are_framed_and_packed() {
    let good = bodies();
    let good: Vec<&[u8]> = good.iter().map(Vec::as_slice).collect();
    let damage = Damage { good: &good, words: &WORDS, most: 1 << 15 };
    let (mut read, mut refused) = (0, 0);
    run("otlp bodies", 1_500, |chance| {
        let mut input =
            if chance.once_in(3) { chance.one::<&[u8]>(&good).to_vec() } else { damage.input(chance) };
        if chance.once_in(2) {
            input = framed(chance.below(3) as u8, &input);
        }
        let headers = said(chance);
        let plain = if chance.once_in(2) {
            unframe(input, &headers)
        } else {
            unpack(input, headers.get("grpc-encoding"))
        };
        match plain {
            Ok(plain) => {
                assert!(plain.len() <= LONGEST_REQUEST);
                let read_as = [decode::otlp_json(&plain), decode::otlp_proto(&plain)];
                read += read_as.iter().flatten().map(Vec::len).sum::<usize>();
            }
            Err(refusal) => {
                refused += 1;
                assert!(!refusal.to_string().chars().any(char::is_control), "{refusal}");
            }
        }
    });
    assert!(!is_usual() || (read > 50 && refused > 100), "{read} {refused}");
}

#[test]
fn fuzz_bodies_that_come_in_pieces_and_give_their_room_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let budget = Budget::default();
    run("otlp pieces", 300, |chance| {
        let mut pieces = Vec::new();
        for _ in 0..chance.below(20) {
            let length = *chance.one(&[0, 1, 1_000, 65_536, 65_537, 1 << 20, LONGEST_REQUEST, 5 << 20]);
            pieces.push(match chance.below(12) {
                0 => Err("broken off"),
                1 => Ok(Frame::trailers(HeaderMap::new())),
                _ => Ok(Frame::data(Bytes::from_static(&ZEROS[..length]))),
            });
        }
        let sent = pieces.iter().flatten().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>();
        let is_broken = pieces.iter().any(Result::is_err);
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        match runtime.block_on(collect(body, &budget)) {
            Ok(whole) => {
                assert!(!is_broken && whole.bytes.len() == sent && sent <= LONGEST_REQUEST + FRAME);
                let taken: usize = whole.taken.iter().map(|permit| permit.num_permits()).sum();
                assert!(taken << 10 >= whole.bytes.capacity(), "{taken} KiB for {}", whole.bytes.capacity());
            }
            Err(_) => assert!(is_broken || sent > LONGEST_REQUEST + FRAME),
        }
        assert_eq!(budget.free(), body::MOST_KIB, "it is given back");
    });
}

static ZEROS: [u8; 5 << 20] = [0; 5 << 20];

#[test]
fn fuzz_connections_and_then_an_honest_sender_is_served() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = format!(
        "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
        json("hello").len(),
        json("hello")
    );
    // The beginning of HTTP/2: settings, and the head of a request that is cut.
    let http2 = [PREFACE, &b"\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x04\0\0\0\x01\x83\x86\x44\x01/"[..]].concat();
    let good: [&[u8]; 2] = [request.as_bytes(), &http2];
    let damage = Damage { good: &good, words: &WORDS, most: 1 << 14 };
    for speech in [Speech::Http, Speech::Grpc] {
        let mut net = runtime.block_on(Net::new(speech, "127.0.0.1"));
        run("otlp connections", 150, |chance| {
            let (input, to) = (damage.input(chance), net.to);
            runtime.block_on(async {
                let mut stream = TcpStream::connect(to).await.unwrap();
                let _ = stream.write_all(&input).await;
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await; // until it is done with us
            });
            while net.lab.outlet.waiting().is_some() {}
        });
        let honest = match speech {
            Speech::Http => post("application/json", None, json("honest")),
            Speech::Grpc => call(GRPC_PATH, framed(0, &proto("honest")), false),
        };
        runtime.block_on(async {
            assert_eq!(net.send(honest).await.0, 200);
            assert_eq!(net.lab.next().await.record.text, "honest");
        });
    }
}
