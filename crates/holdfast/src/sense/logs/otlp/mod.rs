//! OpenTelemetry logs over HTTP and gRPC (OTLP 1.x), with TLS or without, of known senders only: the address of the
//! sender decides whose they are, never a resource attribute (I17).
//!
//! gRPC is spoken by hand: one unary call over hyper's HTTP/2 needs five bytes of framing and two trailers, and no
//! further crate.

mod body;
mod reply;

use super::accept::{HANDSHAKE, Stream, Terms, accept};
use super::chain;
use super::health::State;
use super::means::{Feed, Means};
use super::senders::{Connected, Sender, Senders};
use super::syslog::AGAIN;
use super::tls::Acceptor;
use crate::config::TlsConfig;
use body::{Budget, Held, Refusal};
use holdfast_core::subject::{HostName, Subject};
use holdfast_logs::decode;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reply::{Body, Reply};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::either::Either;

/// Connections of all senders together.
const MOST_CONNECTIONS: usize = 128;
/// The head of a request must come within this time, and over HTTP/2 the beginning of the connection.
const HEAD: Duration = Duration::from_secs(30);
/// Records wait for room so long; the rest is refused, and the sender is told how many.
const ROOM: Duration = Duration::from_secs(5);
/// Calls of one connection at a time.
const MOST_CALLS: u32 = 8;
/// Bytes of the head of a request.
const MOST_HEAD: u32 = 16 * 1024;
/// Bytes over HTTP/2 that may be sent before they are looked at: in one call, and in all of a connection.
const WINDOW: u32 = 64 * 1024;
/// What a peer over HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A peer over HTTP/2 is asked whether it is there this often, and must answer within a third of it.
const PING: Duration = Duration::from_secs(60);
/// Its name where it is agreed upon (ALPN).
const HTTP2: &[u8] = b"h2";
/// Where logs are sent, over HTTP and over gRPC.
const HTTP_PATH: &str = "/v1/logs";
const GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// HTTP with protobuf or JSON: HTTP/1.1, over TLS also HTTP/2.
    Http,
    /// gRPC.
    Grpc,
}

impl Speech {
    /// What is agreed upon with a sender over TLS that asks (ALPN).
    const fn protocols(self) -> &'static [&'static [u8]] {
        match self {
            Self::Http => &[HTTP2, b"http/1.1"],
            Self::Grpc => &[HTTP2],
        }
    }
}

/// Where OTLP is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What is spoken.
    pub speech: Speech,
    /// Where.
    pub address: SocketAddr,
    /// With TLS.
    pub tls: Option<TlsConfig>,
}

impl Listen {
    fn name(&self) -> String {
        let speech = match self.speech {
            Speech::Http => "http",
            Speech::Grpc => "grpc",
        };
        let tls = if self.tls.is_some() { " tls" } else { "" };
        format!("otlp {speech}{tls} {}", self.address)
    }
}

/// Receives until it is time to stop.
pub async fn receive(listen: Listen, host: HostName, senders: Senders, means: Means) {
    let feed = means.feed(Subject::Host(host), &listen.name());
    let serving = async {
        loop {
            let ended = match TcpListener::bind(listen.address).await {
                Ok(socket) => connections(&listen, socket, &senders, &feed).await,
                Err(error) => error,
            };
            feed.is(State::Failing(chain(&ended)));
            tokio::time::sleep(AGAIN).await;
        }
    };
    means.stop.run_until_cancelled(serving).await;
}

/// Accepts connections until the socket fails.
async fn connections(listen: &Listen, socket: TcpListener, senders: &Senders, listener: &Feed) -> io::Error {
    let (speech, budget) = (listen.speech, Budget::default());
    let tls = listen.tls.as_ref().map(|files| Acceptor::new(files, speech.protocols()));
    let terms = Terms { tls, most: MOST_CONNECTIONS, handshake: HANDSHAKE };
    let serve = move |stream, connected| serve(speech, stream, connected, budget.clone());
    accept(socket, terms, senders, listener, serve).await
}

/// Whether HTTP/2 is spoken: always with gRPC, else if both sides agreed to.
fn is_http2(speech: Speech, stream: &Stream) -> bool {
    match (speech, stream) {
        (Speech::Grpc, _) => true,
        (Speech::Http, Either::Left(_)) => false,
        (Speech::Http, Either::Right(tls)) => tls.get_ref().1.alpn_protocol() == Some(HTTP2),
    }
}

/// Why a connection is not one of HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotBegun {
    /// It ended, or did not begin in time.
    Silent,
    /// Something else is spoken.
    Other,
}

/// The connection, once its peer has begun to speak HTTP/2: hyper itself would wait for that for ever (A22).
async fn begun<S>(mut stream: S, within: Duration) -> Result<impl AsyncRead + AsyncWrite + Unpin, NotBegun>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut first = [0; PREFACE.len()];
    let read = tokio::time::timeout(within, stream.read_exact(&mut first)).await;
    read.ok().and_then(Result::ok).ok_or(NotBegun::Silent)?;
    if first != *PREFACE {
        return Err(NotBegun::Other);
    }
    let (rest, write) = tokio::io::split(stream);
    Ok(tokio::io::join(PREFACE.chain(rest), write))
}

async fn serve(speech: Speech, stream: Stream, connected: Connected, budget: Budget) {
    let http2 = is_http2(speech, &stream);
    let answer = service_fn(|request| {
        let (sender, budget) = (Arc::clone(&connected.0), budget.clone());
        async move { Ok::<_, Infallible>(respond(speech, request, &sender, &budget).await) }
    });
    let ended = if http2 {
        let stream = match begun(stream, HEAD).await {
            Ok(stream) => stream,
            Err(NotBegun::Silent) => return,
            Err(NotBegun::Other) => return connected.0.feed.gauge.dropped(1),
        };
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING / 3);
        server.max_concurrent_streams(MOST_CALLS).max_header_list_size(MOST_HEAD);
        server.initial_stream_window_size(WINDOW).initial_connection_window_size(2 * WINDOW);
        server.serve_connection(TokioIo::new(stream), answer).await
    } else {
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 * 1024);
        server.serve_connection(TokioIo::new(stream), answer).await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a sender of OTLP broke off");
    }
}

/// How a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Protobuf over HTTP.
    Proto,
    /// JSON over HTTP.
    Json,
    /// Protobuf in a frame of gRPC.
    Grpc,
}

async fn respond(
    speech: Speech,
    request: Request<Incoming>,
    sender: &Sender,
    budget: &Budget,
) -> Response<Body> {
    let (form, read) = match form(speech, &request) {
        Ok(form) => (form, read(form, request, sender, budget).await),
        Err((form, refusal)) => (form, Err(refusal)),
    };
    match read {
        Ok(held) => {
            let rejected = bring(held, sender).await;
            Reply::Taken { rejected }.write(form)
        }
        Err(refusal) => {
            sender.feed.gauge.dropped(1);
            Reply::Refused(refusal).write(form)
        }
    }
}

/// What a request is, by its path and its type.
fn form<B>(speech: Speech, request: &Request<B>) -> Result<Form, (Form, Refusal)> {
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let (path, posted) = (request.uri().path(), request.method() == Method::POST);
    let form = match speech {
        Speech::Grpc => Form::Grpc,
        Speech::Http if kind.eq_ignore_ascii_case("application/json") => Form::Json,
        Speech::Http => Form::Proto,
    };
    let known = match form {
        Form::Grpc => kind == "application/grpc" || kind == "application/grpc+proto",
        Form::Json => true,
        Form::Proto => kind == "application/x-protobuf",
    };
    if path != if form == Form::Grpc { GRPC_PATH } else { HTTP_PATH } {
        return Err((form, Refusal::NoSuchPath));
    }
    if !posted {
        return Err((form, Refusal::NotPosted));
    }
    if known { Ok(form) } else { Err((form, Refusal::Type)) }
}

async fn read(
    form: Form,
    request: Request<Incoming>,
    sender: &Sender,
    budget: &Budget,
) -> Result<Held, Refusal> {
    let (head, body) = request.into_parts();
    let whole = body::collect(body, budget).await?;
    if !sender.may_send(whole.bytes.len()) {
        return Err(Refusal::TooMuch);
    }
    // One at a time is unpacked and read: that is where memory is taken.
    let _turn = budget.turn().await?;
    let message = match form {
        Form::Grpc => body::unframe(whole.bytes, &head.headers)?,
        Form::Proto | Form::Json => body::unpack(whole.bytes, head.headers.get(header::CONTENT_ENCODING))?,
    };
    drop(whole.taken);
    let read = move || match form {
        Form::Json => decode::otlp_json(&message),
        Form::Proto | Form::Grpc => decode::otlp_proto(&message),
    };
    let records = tokio::task::spawn_blocking(read).await.map_err(|_| Refusal::TooMuch)?;
    budget.hold(records.map_err(|error| Refusal::Message(chain(&error)))?).await // before another has its turn
}

/// Brings what there is room for; how many found none.
async fn bring(held: Held, sender: &Sender) -> u64 {
    let deadline = tokio::time::Instant::now() + ROOM;
    let mut rejected = 0;
    for record in held.records {
        sender.feed.is(State::Receiving);
        if rejected > 0
            || tokio::time::timeout_at(deadline, sender.feed.bring(sender.said(record), None)).await
                != Ok(true)
        {
            rejected += 1;
        }
    }
    sender.feed.gauge.dropped(rejected);
    rejected
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
