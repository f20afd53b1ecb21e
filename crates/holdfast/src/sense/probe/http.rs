//! HTTP/1.1 and HTTPS: GET, a status, and a text that must be there. Redirects are answers, not orders.

use super::connection::{Heard, Hearing, connect};
use super::tcp::holds;
use super::{MOST_HEARD, Target, Trouble};
use crate::config::Expect;
use futures_util::future::{Either, select};
use holdfast_core::signal::ProbeFailure;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::pin::pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
#[cfg(test)]
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, Error, RootCertStore, client::Resumption, crypto,
};

/// A question over HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    /// Where.
    pub at: Target,
    /// With TLS, or without.
    pub tls: Option<Tls>,
    /// The name that the server is asked for (`Host`, and TLS SNI).
    pub name: String,
    /// The path and query, from `/` on.
    pub path: String,
    /// The status it must answer; without one, any from 200 to 399.
    pub status: Option<u16>,
    /// What the first 64 KiB must hold.
    pub contains: Option<Expect>,
}

/// Whom a server's certificate must come from.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

/// Why certificates were refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not PEM.
    #[cfg(test)]
    #[error("cannot read the certificates")]
    Pem(#[source] tokio_rustls::rustls::pki_types::pem::Error),
    /// No certificate is in it, or one that cannot be trusted.
    #[cfg(test)]
    #[error("no certificate in it can be trusted")]
    Untrusted,
    /// The cryptography does not fit.
    #[error("cannot set TLS up")]
    Setup(#[source] Error),
}

impl Tls {
    /// The authorities that browsers trust.
    ///
    /// # Errors
    /// [`TlsError::Setup`] if the cryptography does not fit.
    pub fn public() -> Result<Self, TlsError> {
        Self::trusting(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    /// Only the authorities (or the one self-made authority) in this PEM file. For tests: no setting names one yet.
    ///
    /// # Errors
    /// [`TlsError`] if the file holds nothing to trust.
    #[cfg(test)]
    pub fn authority(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(TlsError::Pem)?).map_err(|_| TlsError::Untrusted)?;
        }
        if roots.is_empty() { Err(TlsError::Untrusted) } else { Self::trusting(roots) }
    }

    fn trusting(roots: RootCertStore) -> Result<Self, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled(); // each probe sees the certificate anew
        Ok(Self(Arc::new(config)))
    }
}

impl Http {
    pub(super) async fn ask(&self, hearing: &Arc<Hearing>) -> Result<(), Trouble> {
        let stream = connect(&self.at, hearing).await?;
        match &self.tls {
            None => self.talk(stream, hearing).await,
            Some(tls) => {
                let stream = self.secure(tls, stream, hearing).await?;
                self.talk(stream, hearing).await
            }
        }
    }

    async fn secure(
        &self,
        tls: &Tls,
        stream: Heard,
        hearing: &Hearing,
    ) -> Result<tokio_rustls::client::TlsStream<Heard>, Trouble> {
        let name = ServerName::try_from(self.name.clone())
            .map_err(|_| Trouble::internal(format!("`{}` cannot be a server's name", self.name)))?;
        let connected = TlsConnector::from(Arc::clone(&tls.0)).connect(name, stream).await;
        connected.map_err(|error| {
            let reason = error.get_ref().and_then(|reason| reason.downcast_ref::<Error>());
            match reason {
                Some(Error::InvalidCertificate(certificate)) => {
                    Trouble::new(distrust(certificate), error.to_string())
                }
                Some(_) | None => hearing.broken(&error),
            }
        })
    }

    async fn talk<S>(&self, stream: S, hearing: &Hearing) -> Result<(), Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let request = Request::get(&self.path)
            .header("Host", &self.name)
            .header("User-Agent", concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .header("Connection", "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| Trouble::internal(format!("cannot ask for `{}`: {error}", self.path)))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(16 * 1024)
            .max_headers(100)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| hearing.broken(&error))?;
        let talk = pin!(async {
            let response = sender.send_request(request).await.map_err(|error| hearing.broken(&error))?;
            self.check(response, hearing).await
        });
        let told = match select(talk, pin!(connection)).await {
            Either::Left((told, _connection)) => told,
            Either::Right((_ended, talk)) => talk.await,
        };
        told.inspect(|()| hearing.answered())
    }

    async fn check(&self, response: Response<Incoming>, hearing: &Hearing) -> Result<(), Trouble> {
        let status = response.status();
        let right = match self.status {
            Some(expected) => status.as_u16() == expected,
            None => (200..400).contains(&status.as_u16()),
        };
        if !right {
            return Err(Trouble::new(meaning(status), format!("answered {status}")));
        }
        let Some(needle) = &self.contains else { return Ok(()) };
        let missing = || Trouble::wrong(format!("its answer does not hold `{needle}`"));
        let mut body = response.into_body();
        let mut heard: Vec<u8> = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                let cut = || Trouble::wrong("broke off in the middle of its answer");
                return Err(if hearing.too_much() { missing() } else { cut() });
            };
            let Ok(data) = frame.into_data() else { continue };
            // What was searched before need not be searched again, but for a text across the border.
            let border = if let Expect::Text(text) = needle { text.len() } else { 0 };
            let from = (heard.len() + 1).saturating_sub(border);
            heard.extend_from_slice(&data);
            if let Expect::Text(text) = needle
                && holds(&heard[from..], text.as_bytes())
            {
                return Ok(());
            }
            if heard.len() as u64 >= MOST_HEARD {
                break;
            }
        }
        if needle.is_in(&String::from_utf8_lossy(&heard)) { Ok(()) } else { Err(missing()) }
    }
}

/// A certificate that clients refuse is the server's fault; an authority or a name that only we do not
/// know is ours.
const fn distrust(certificate: &CertificateError) -> ProbeFailure {
    use CertificateError as E;
    let all_refuse = matches!(
        certificate,
        E::Expired
            | E::ExpiredContext { .. }
            | E::NotValidYet
            | E::NotValidYetContext { .. }
            | E::Revoked
            | E::BadEncoding
            | E::BadSignature
    );
    if all_refuse { ProbeFailure::Wrong } else { ProbeFailure::Internal }
}

/// What a status says that was not asked for (RFC 9110 section 15, RFC 6585).
fn meaning(status: StatusCode) -> ProbeFailure {
    match status.as_u16() {
        401 | 403 | 407 => ProbeFailure::Denied,
        429 => ProbeFailure::Exhausted,
        _ => ProbeFailure::Wrong,
    }
}
