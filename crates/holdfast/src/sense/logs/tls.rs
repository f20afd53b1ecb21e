//! TLS of a receiver: its certificate, and whose certificates senders must have.

use crate::config::TlsConfig;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig, crypto};

/// Bytes of a file with certificates.
const MOST_READ: u64 = 1 << 20;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the key.
    #[error("others may read the key `{}` (mode {mode:04o}): `chmod 600` it, and make a new one", path.display())]
    OpenKey {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("`{}` holds no {what} in PEM", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// The cause, if there is one.
        #[source]
        source: Option<pem::Error>,
    },
    /// The authorities of senders are of no use.
    #[error("cannot trust the authorities in `{}`", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: VerifierBuilderError,
    },
    /// The parts do not fit together.
    #[error("cannot set TLS up with this certificate and key")]
    Setup(#[source] Error),
}

/// Accepts connections with the files as they are now: renewed certificates count from the next connection on.
pub struct Acceptor {
    config: TlsConfig,
    spoken: &'static [&'static [u8]],
    made: Option<(Vec<Stamp>, TlsAcceptor)>,
}

/// By what a changed file is known: device, number, time of change, size.
type Stamp = (u64, u64, i64, i64, u64);

impl Acceptor {
    /// With these files. What is spoken inside is agreed with a sender that asks (ALPN, RFC 7301): the first of
    /// `spoken` that it knows, too; none that it asks for is there: no connection.
    #[must_use]
    pub fn new(config: &TlsConfig, spoken: &'static [&'static [u8]]) -> Self {
        Self { config: config.clone(), spoken, made: None }
    }

    /// The acceptor, made anew if a file has changed.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn get(&mut self) -> Result<TlsAcceptor, TlsError> {
        let files = [Some(&self.config.cert), Some(&self.config.key), self.config.client_ca.as_ref()];
        let stamps: Vec<Stamp> = files.into_iter().flatten().map(|path| stamp(path)).collect();
        if let Some((known, acceptor)) = &self.made
            && *known == stamps
        {
            return Ok(acceptor.clone());
        }
        let mut server = server(&self.config)?;
        server.alpn_protocols = self.spoken.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        self.made = Some((stamps, acceptor.clone()));
        Ok(acceptor)
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path);
    meta.map_or((0, 0, 0, 0, 0), |m| (m.dev(), m.ino(), m.ctime(), m.ctime_nsec(), m.len()))
}

fn server(config: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let certificates = certificates(&config.cert)?;
    let key = key(&config.key)?;
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(path)? {
                roots.add(certificate).map_err(TlsError::Setup)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let unfit = |source| TlsError::Authorities { path: path.clone(), source };
            builder.with_client_cert_verifier(verifier.map_err(unfit)?)
        }
    };
    builder.with_single_cert(certificates, key).map_err(TlsError::Setup)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let file = crate::sense::tail::Open::new(path, crate::sense::tail::Links::Safe);
    let file = file.map_err(|error| failed(std::io::Error::other(error)))?.file;
    let mut bytes = Vec::new();
    file.take(MOST_READ).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem { path: path.to_owned(), what: "certificate", source };
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| wrong(Some(error)))?;
    if found.is_empty() { Err(wrong(None)) } else { Ok(found) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path)?;
    let mode = std::fs::metadata(path).map_or(0, |meta| meta.mode() & 0o7777);
    if mode & 0o007 != 0 {
        return Err(TlsError::OpenKey { path: path.to_owned(), mode });
    }
    let wrong = |error| TlsError::Pem { path: path.to_owned(), what: "private key", source: Some(error) };
    PrivateKeyDer::from_pem_slice(&bytes).map_err(wrong)
}
