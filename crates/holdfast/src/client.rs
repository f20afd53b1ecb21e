//! The command line's side of the API: HTTP over the daemon's Unix socket.

use crate::api::Refusal;
use http_body_util::{BodyExt, Full, Limited};
pub use hyper::Method;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// An answer larger than this is not ours.
const ANSWER_MOST: usize = 32 << 20;
/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A way to the daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    by: String,
}

/// Why the daemon gave no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach the daemon on {socket}")]
    NotThere {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// HTTP went wrong.
    #[error("the daemon broke off")]
    Http(#[from] hyper::Error),
    /// No answer in time.
    #[error("the daemon gave no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It refused, and says why.
    #[error("{}", .0.error)]
    Refused(Refusal),
    /// It answered something else.
    #[error("the daemon's answer is not understood")]
    Strange(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ClientError {
    /// The cause and the way out, for people.
    pub fn advice(&self) -> (Option<String>, &str) {
        match self {
            Self::NotThere { source, .. } => not_there(source.kind()),
            Self::Refused(refusal) => (Some(refusal.cause.clone()), &refusal.hint),
            Self::Late(_) => (None, "it may be overloaded; its log tells more"),
            Self::Http(_) | Self::Strange(_) => (None, "is it the same version? its log tells more"),
        }
    }
}

/// Why nobody was reached, and the way out.
fn not_there(kind: std::io::ErrorKind) -> (Option<String>, &'static str) {
    use std::io::ErrorKind;
    let start = "start it with `holdfast run`, or name its state folder with --state DIR";
    let known = [
        (ErrorKind::NotFound, "there is no such socket: no daemon runs with that state folder", start),
        (ErrorKind::ConnectionRefused, "nobody listens there: the daemon that did has ended", start),
        (
            ErrorKind::PermissionDenied,
            "the socket is for the daemon's own user alone",
            "ask as that user, mostly with `sudo holdfast ..`",
        ),
    ];
    let found = known.into_iter().find(|(one, ..)| *one == kind);
    found.map_or_else(|| (Some(kind.to_string()), start), |(_, cause, hint)| (Some(cause.into()), hint))
}

impl Client {
    /// A way to the daemon on this socket.
    pub fn new(socket: &Path) -> Self {
        let by =
            std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "root".into());
        Self { socket: socket.to_owned(), by }
    }

    /// Asks.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new(), PATIENCE).await?;
        let body = read(response).await?;
        serde_json::from_slice(&body).map_err(|cause| ClientError::Strange(cause.into()))
    }

    /// Tells, with nothing more to say.
    pub async fn post(&self, path: &str) -> Result<(), ClientError> {
        self.tell(path, &crate::api::Words { by: Some(self.by.clone()), ..Default::default() }).await
    }

    /// Tells.
    pub async fn tell(&self, path: &str, words: &crate::api::Words) -> Result<(), ClientError> {
        self.tell_and_hear::<serde::de::IgnoredAny>(path, words).await.map(drop)
    }

    /// Tells, and hears what came of it.
    pub async fn tell_and_hear<T: DeserializeOwned>(
        &self,
        path: &str,
        words: &crate::api::Words,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(words).map_err(|cause| ClientError::Strange(cause.into()))?;
        let answer = read(self.send(Method::POST, path, body.into(), PATIENCE).await?).await?;
        serde_json::from_slice(&answer).map_err(|cause| ClientError::Strange(cause.into()))
    }

    /// Has something done that may take longer than others, and hears what came of it.
    pub async fn order<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        words: &impl Serialize,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(words).map_err(|cause| ClientError::Strange(cause.into()))?;
        let answer = read(self.send(method, path, body.into(), patience).await?).await?;
        serde_json::from_slice(&answer).map_err(|cause| ClientError::Strange(cause.into()))
    }

    /// A person's command for a VM, for so long where it ends by itself.
    pub async fn command(&self, vm: &str, wish: &str, lasts: Option<Duration>) -> Result<(), ClientError> {
        let for_s = lasts.map(|lasts| lasts.as_secs_f64());
        let words = crate::api::Words { by: Some(self.by.clone()), for_s, ..Default::default() };
        self.tell(&format!("/api/v1/vms/{vm}/{wish}"), &words).await
    }

    /// Who asks.
    pub fn by(&self) -> &str {
        &self.by
    }

    /// A stream of live events: one JSON document a `data:` line.
    pub async fn stream(&self) -> Result<Incoming, ClientError> {
        Ok(self.send(Method::GET, "/api/v1/events/stream", Bytes::new(), PATIENCE).await?.into_body())
    }

    /// The same of another place. What is refused is told as for [`Client::get`].
    pub async fn live(&self, path: &str) -> Result<Incoming, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new(), PATIENCE).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        match read(response).await {
            Err(refused) => Err(refused),
            Ok(_) => Err(ClientError::Strange("a refusal without a reason".into())),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NotThere { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection); // ends with the exchange
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "holdfast")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|cause| ClientError::Strange(cause.into()))?;
        let response = tokio::time::timeout(patience, sender.send_request(request)).await;
        response.map_err(|_| ClientError::Late(patience))?.map_err(ClientError::Http)
    }
}

async fn read(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let good = response.status().is_success();
    let collecting = Limited::new(response.into_body(), ANSWER_MOST).collect();
    let body = tokio::time::timeout(PATIENCE, collecting).await.map_err(|_| ClientError::Late(PATIENCE))?;
    let body = body.map_err(ClientError::Strange)?.to_bytes();
    if good {
        return Ok(body);
    }
    let refusal = serde_json::from_slice(&body).map_err(|cause| ClientError::Strange(cause.into()))?;
    Err(ClientError::Refused(refusal))
}
